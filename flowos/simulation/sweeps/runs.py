"""One run of a sweep: from settings to the model's setup, and from its figures to rows."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final

from flowos.model.cell import Cell
from flowos.planning.policy import Policy
from flowos.simulation.full import run as full
from flowos.simulation.full.measured import FullFigures
from flowos.simulation.full.setup import Setup as FullSetup
from flowos.simulation.full.setup import Team
from flowos.simulation.jobs import slice_name
from flowos.simulation.light.machines import MachineSize
from flowos.simulation.light.measured import RunFigures
from flowos.simulation.light.run import Setup as LightSetup
from flowos.simulation.light.run import run as run_light
from flowos.simulation.light.schedulers import Pace, slowest
from flowos.simulation.stage import VirtualClock
from flowos.simulation.sweeps.arrivals import arrivals
from flowos.simulation.sweeps.compared import compared
from flowos.simulation.sweeps.knobs import PRODUCTION, Form, Settings, value_of
from flowos.simulation.sweeps.loads import Load
from flowos.simulation.sweeps.rows import Amount, Row, fraction
from flowos.simulation.wire import SimStore

# Whole runs of one class each, by what figures are called; in the order of columns.
LIGHT_FIGURES: Final = (
    "jobs", "tasks", "attempted", "placed", "abandoned", "transactions_ok", "conflicts",
    "conflict_fraction", "claims_ok", "claims_conflicted", "no_room", "busyness", "busy_useful",
    "busy_wasted", "busy_no_conflict", "wait_first_mean_s", "wait_first_p90_s", "wait_full_mean_s",
    "queue_left",
)  # fmt: skip
FULL_FIGURES: Final = ("arrived", "placed", "conflicts", "conflict_fraction", "plans",
                       "plans_per_placed", "repaired", "fairness")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Full:
    """What full mode needs; it goes to other processes.

    Attributes:
        policy: Decides; each scheduler gets a copy.
        new_store: Makes an empty store on a virtual clock: a class, or a function of a module.
    """

    cell: Cell
    cell_name: str
    policy: Policy
    policy_name: str
    new_store: Callable[[VirtualClock], SimStore]


@dataclass(frozen=True, slots=True)
class Ground:
    """What all runs of a sweep have in common.

    Attributes:
        full: None = light mode.
    """

    load: Load
    full: Full | None = None

    @property
    def mode(self) -> Form:
        """Of the simulation."""
        return "full" if self.full else "light"

    def play(self, settings: Settings, seed: int) -> list[Row]:
        """Run once; the same settings and seed give the same rows."""
        if self.full:
            come = arrivals(self.full.cell, self.load, settings)
            if value_of(settings, "architecture", "full") != PRODUCTION:
                return compared(self.full.cell, come, self.load.classes, settings, seed)
            last = come[-1].at_s if _until_come(settings) else None
            return _full_rows(full.run(
                _full_setup(self.full, self.load, settings, seed, last), come,
                new_store=self.full.new_store,
            ), self.load)  # fmt: skip
        setup = _light_setup(self.load, settings, seed)
        return _light_rows(run_light(setup, self.load.jobs_of(settings, "light")))


# -- light


def _light_setup(load: Load, settings: Settings, seed: int) -> LightSetup:
    def told(name: str, of_class: str = "") -> Any:  # a knob's value has its own type
        return value_of(settings, name, "light", of_class)

    machines, prefilled = told("machines"), told("prefilled")
    size = MachineSize(
        load.machines if machines is None else machines,
        round(1000 * told("machine_cpus")),
        round(1024 * told("machine_mem_gb")),
    )
    paces = {name: Pace(told("t_job", name), told("t_task", name)) for name in load.classes}
    architecture = told("architecture")
    if architecture == "monolithic-single":
        paces = dict.fromkeys(paces, slowest(paces.values()))
    return LightSetup(
        size,
        load.prefilled if prefilled is None else prefilled,
        load.seconds(settings, "light"),
        "monolithic" if architecture.startswith("monolithic") else architecture,
        paces,
        {name: told("schedulers", name) for name in load.classes},
        told("check"),
        told("commit"),
        live_round_trip_s=told("round_trip") if told("looks") == "live" else None,
        seed=seed,
    )


def _light_rows(found: RunFigures) -> list[Row]:
    whole = {
        "cpu_use": found.cpu_use,
        "cpu_locked": found.cpu_locked,
        "over_committed": found.over_committed,
    }
    return [
        Row(
            name,
            {figure: getattr(each, figure) for figure in LIGHT_FIGURES}
            | {"conflict_fraction": fraction(each.conflicts, each.transactions_ok)}
            | whole,
        )
        for name, each in found.classes.items()
    ]


# -- full


def _until_come(settings: Settings) -> bool:
    """Return whether a run ends with the last that comes: a load that is kept is kept until then."""
    told = value_of(settings, "until", "full")
    return told == "come" or (told is None and "load" in settings)


def _full_setup(
    means: Full, load: Load, settings: Settings, seed: int, last_s: float | None
) -> FullSetup:
    def told(name: str, of_class: str = "") -> Any:  # a knob's value has its own type
        return value_of(settings, name, "full", of_class)

    teams = tuple(
        Team(slice_name(name), means.policy, told("schedulers", name),
             Pace(told("t_job", name), told("t_task", name)), told("queues"))
        for name in load.classes
    )  # fmt: skip
    seconds = told("seconds")
    return FullSetup(
        means.cell, teams, seconds=last_s if seconds is None else seconds, looks=told("looks"),
        round_trip_s=told("round_trip"), news_s=told("news"), check=told("check"),
        homes=told("homes") == "yes", seed=seed,
    )  # fmt: skip


def _full_rows(found: FullFigures, load: Load) -> list[Row]:
    whole: dict[str, Amount] = {
        "waiting": found.waiting,
        "utilisation": found.utilisation,
        "hops_mean": found.hops_mean,
        "nodes_mean": found.nodes_mean,
        "double_holds": found.double_holds,
        "seconds": found.seconds,
    }
    rows = []
    for name in load.classes:
        team = found.teams[slice_name(name)]
        figures: dict[str, Amount] = {figure: getattr(team, figure) for figure in FULL_FIGURES}
        figures["conflict_fraction"] = fraction(team.conflicts, team.placed)
        figures["busyness"] = team.busy_useful + team.busy_wasted
        figures |= {"busy_useful": team.busy_useful, "busy_wasted": team.busy_wasted}
        figures |= {f"wait_{of}_s": value for of, value in asdict(team.waits).items()}
        rows.append(Row(name, figures | whole))
    return rows
