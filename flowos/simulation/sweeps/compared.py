"""One run of an architecture that is compared on real slices: from settings to setup, and to rows."""

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from flowos.model.cell import Cell
from flowos.model.errors import SpecError
from flowos.simulation.architectures.measured import ClassFigures, Figures, part_of
from flowos.simulation.architectures.run import run
from flowos.simulation.architectures.setup import (
    Architecture,
    Devices,
    OfferRules,
    PowerRules,
    Setup,
)
from flowos.simulation.full.setup import Arrival
from flowos.simulation.jobs import slice_name
from flowos.simulation.light.schedulers import Pace
from flowos.simulation.sweeps.knobs import Settings, value_of
from flowos.simulation.sweeps.rows import Amount, Row, fraction

_DEVICES: Final[Mapping[str, Devices]] = {
    "offers": "own", "offers-optimistic": "optimistic", "offers-pessimistic": "pessimistic",
}  # fmt: skip
_ALONE: Final[Mapping[str, Architecture]] = {
    "monolithic-single": "monolithic-single", "monolithic-multi": "monolithic-multi",
}  # fmt: skip
_WHOLE: Final = ("hoarded_engine_s", "hoarded", "locked", "stranded", "withheld", "waking", "wakes",
                 "offers", "seconds")  # fmt: skip
_STARVING_S: Final = 10.0
_SAMPLES: Final = 500  # of what is stranded
_SUMS: Final = ("never", "placed", "conflicts", "failed", "gave_up", "decisions")


def compared(
    cell: Cell, arrivals: Sequence[Arrival], classes: Sequence[str], settings: Settings, seed: int
) -> list[Row]:
    """Let slices pass over a cell, and return a row for each class.

    Where nobody says how long a run is, it ends when the last slice has come: slices that wait then
    count with what they have waited.

    Raises:
        SpecError: No slice has a place on the empty cell; and as
            `flowos.simulation.architectures.run.run`.
    """

    def told(name: str, of_class: str = "") -> Any:  # a knob's value has its own type
        return value_of(settings, name, "full", of_class)

    name = told("architecture")
    devices = _DEVICES.get(name)
    way: Architecture = "offers" if devices else _ALONE.get(name) or (
        "shared-live" if told("looks") == "live" else "shared-frozen"
    )  # fmt: skip
    teams = {slice_name(of_class): of_class for of_class in classes}
    paces = {team: Pace(told("t_job", own), told("t_task", own)) for team, own in teams.items()}
    schedulers = {team: told("schedulers", own) for team, own in teams.items()}
    parts = {team: [team] for team in teams}
    if devices:
        # Each framework is a class of its own to the allocator, whose shares are by framework.
        parts = {team: [f"{team}-{n}" for n in range(schedulers[team])] for team in teams}
        arrivals = _in_turn(arrivals, parts)
        paces = {part: paces[team] for team in teams for part in parts[team]}
    off_after, seconds = told("off_after"), told("seconds")
    if seconds is None:
        seconds = arrivals[-1].at_s
    setup = Setup(
        cell, way, paces, seconds,
        schedulers=schedulers,
        offers=OfferRules(devices or "own", told("dealing"), told("gather"), hold_s=told("hold")),
        power=PowerRules(math.inf if off_after is None else off_after, told("wake")),
        round_trip_s=told("round_trip"),
        starving_s=_STARVING_S if told("marks") == "yes" else math.inf,
        sample_s=seconds / _SAMPLES,
        seed=seed,
    )  # fmt: skip
    found = run(setup, arrivals)
    if found.never == found.came:
        raise SpecError(
            "not one slice has a place on it, even if it is empty", where="--cell",
            hint="take another, or other slices: see engines_max and per_host",
        )  # fmt: skip
    return [Row(own, _figures(found, parts[team])) for team, own in teams.items()]


def _in_turn(arrivals: Sequence[Arrival], parts: Mapping[str, Sequence[str]]) -> list[Arrival]:
    turns: Counter[str] = Counter()
    found = []
    for arrival in arrivals:
        among = parts[arrival.spec.policy]
        to = among[turns[arrival.spec.policy] % len(among)]
        turns[arrival.spec.policy] += 1
        found.append(arrival._replace(spec=replace(arrival.spec, policy=to)))
    return found


def _figures(found: Figures, parts: Sequence[str]) -> dict[str, Amount]:
    """Return the figures of a class that so many frameworks may share, and of the whole run."""
    mine: list[ClassFigures] = [found.classes[part] for part in parts]
    waits = sorted(wait for part in parts for wait in found.waits_by_class.get(part, ()))
    tried = sum(each.came - each.never for each in mine)

    only = sum(each.only_outside * (each.came - each.never) for each in mine)
    better = sum(each.better_outside * (each.came - each.never) for each in mine)
    figures: dict[str, Amount] = {
        "arrived": tried,
        **{name: sum(getattr(each, name) for each in mine) for name in _SUMS},
        "waiting": sum(each.left for each in mine),
        "busyness": statistics.fmean(each.busyness for each in mine),
        "wait_mean_s": statistics.fmean(waits) if waits else 0.0,
        "wait_p99_s": part_of(waits, 0.99),
        "wait_longest_s": part_of(waits, 1.0),
        "only_outside": only / max(1, tried),
        "better_outside": better / max(1, tried),
    }
    figures["conflict_fraction"] = fraction(int(figures["conflicts"]), int(figures["placed"]))
    figures["failed_fraction"] = fraction(int(figures["failed"]), int(figures["placed"]))
    figures |= {name: getattr(found, name) for name in _WHOLE}
    figures["utilisation"] = found.useful
    # As if an engine had been of use for a second, where none was.
    figures["kj_per_engine_hour"] = found.joules * 3.6 / max(1.0, found.useful_engine_s)
    return figures
