"""Who is compared: each architecture, with offers in all their settings?"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from flowos.simulation.architectures.measured import Figures
from flowos.simulation.architectures.run import run
from flowos.simulation.architectures.setup import (
    DEALINGS,
    Architecture,
    Devices,
    OfferRules,
    PowerRules,
    Setup,
)
from flowos.simulation.light.schedulers import Pace
from two_level_parts.cells import HOURS, PLACES, load

# The published simulator's for batch; for services ten times as much.
PACES: Final[Mapping[str, Pace]] = {"batch": Pace(0.1, 0.005), "service": Pace(1.0, 0.05)}
POWER: Final = PowerRules(off_after_s=120.0, wake_s=60.0)
HOLDS: Final = (0.0, 30.0, 120.0, 600.0)  # seconds; 0 = refuse and wait
ALONE: Final[Mapping[str, Architecture]] = {
    "shared state, live": "shared-live",
    "shared state, as published": "shared-frozen",
    "monolithic, multi-path": "monolithic-multi",
    "monolithic, single-path": "monolithic-single",
}


@dataclass(frozen=True, slots=True)
class Case:
    """One run.

    Attributes:
        place: Which cell.
        way: Who schedules: a name of `ALONE`, or "offers".
        rules: Of offers.
        service_s: t_job of services, where it is not the usual one.
        marked: Whether slices that starve have marks; not for offers.
        parts: Into how many frameworks, or schedulers, each class is divided.
    """

    place: str
    way: str
    seed: int
    rules: OfferRules = OfferRules()
    service_s: float | None = None
    marked: bool = True
    parts: int = 1


def offer_rules(place: str, holds: tuple[float, ...] = HOLDS) -> list[OfferRules]:
    """Return all settings of offers that make a difference in a cell."""
    devices: tuple[Devices, ...] = (
        ("optimistic", "pessimistic") if PLACES[place].is_pooled else ("own",)
    )
    return [
        OfferRules(each, dealing, hold_s=hold)
        for each in devices
        for dealing in DEALINGS
        for hold in holds
    ]


def cases(place: str, seeds: tuple[int, ...], holds: tuple[float, ...] = HOLDS) -> list[Case]:
    """Return all runs of a cell."""
    return [
        *(Case(place, way, seed) for way in ALONE for seed in seeds),
        *(Case(place, "shared state, live", seed, marked=False) for seed in seeds),
        *(
            Case(place, "offers", seed, each)
            for each in offer_rules(place, holds)
            for seed in seeds
        ),
    ]


def measured(case: Case) -> Figures:
    """Run one."""
    place = PLACES[case.place]
    paces = {f"{name}-{n}": pace for name, pace in PACES.items() for n in range(case.parts)}
    if case.service_s is not None:
        slow = Pace(case.service_s, PACES["service"].task_s)
        paces.update((name, slow) for name in paces if name.startswith("service"))
    return run(
        Setup(
            place.make(),
            ALONE.get(case.way, "offers"),
            paces,
            HOURS * 3600,
            offers=case.rules,
            power=POWER,
            starving_s=10.0 if case.marked else float("inf"),
            seed=case.seed,
        ),
        load(place, case.seed, case.parts),
    )


def named(case: Case) -> str:
    """Return what is compared, in words."""
    if case.way != "offers":
        return case.way if case.marked else f"{case.way}, without marks"
    rules = case.rules
    devices = "" if rules.devices == "own" else f" {rules.devices},"
    to = "node by node" if rules.dealing == "nodes" else "all to one"
    waits = f"hold {rules.hold_s:g} s" if rules.hold_s else "refuse"
    return f"offers:{devices} {to}, {waits}"
