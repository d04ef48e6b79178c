"""One run of a sweep: from settings to the model's setup, and from its figures to rows."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, NamedTuple, TypeAlias

from flowos.model.cell import Cell
from flowos.model.errors import SpecError
from flowos.planning.policy import Policy
from flowos.simulation.full import run as full
from flowos.simulation.full.measured import FullFigures
from flowos.simulation.full.setup import Arrival, Team
from flowos.simulation.full.setup import Setup as FullSetup
from flowos.simulation.full.workload import at_load, at_rate, fitting, of_light, of_trace
from flowos.simulation.jobs import slice_name
from flowos.simulation.light.machines import MachineSize
from flowos.simulation.light.measured import RunFigures
from flowos.simulation.light.run import Setup as LightSetup
from flowos.simulation.light.run import run as run_light
from flowos.simulation.light.schedulers import Pace
from flowos.simulation.stage import VirtualClock
from flowos.simulation.sweeps.knobs import Form, Settings, number, value_of
from flowos.simulation.sweeps.loads import Load
from flowos.simulation.wire import SimStore

DRAWN_LOAD: Final = 0.75  # what a drawn load asks of a cell's engines, where nobody says how much
Amount: TypeAlias = float | int
# Whole runs of one class each, by what figures are called; in the order of columns.
LIGHT_FIGURES: Final = (
    "jobs", "tasks", "attempted", "placed", "abandoned", "transactions_ok", "conflicts",
    "conflict_fraction", "claims_ok", "claims_conflicted", "no_room", "busyness", "busy_useful",
    "busy_wasted", "busy_no_conflict", "wait_first_mean_s", "wait_first_p90_s", "wait_full_mean_s",
    "queue_left",
)  # fmt: skip
FULL_FIGURES: Final = ("arrived", "placed", "conflicts", "conflict_fraction", "plans",
                       "plans_per_placed", "repaired", "fairness")  # fmt: skip


class Row(NamedTuple):
    """One class of jobs in one run.

    Attributes:
        figures: By name; those of the whole run are in each of its rows.
    """

    of_class: str
    figures: dict[str, Amount]


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
            return _full_rows(full.run(
                _full_setup(self.full, self.load, settings, seed),
                _arrivals(self.full.cell, self.load, settings),
                new_store=self.full.new_store,
            ), self.load)  # fmt: skip
        setup = _light_setup(self.load, settings, seed)
        return _light_rows(run_light(setup, self.load.jobs_of(settings, "light")))


def _fraction(conflicts: int, successes: int) -> float:
    """Return conflicts for each success; as if there had been one where there was none.

    A class whose every commit conflicts must not look like one that has no conflicts.
    """
    return conflicts / max(1, successes)


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
    return LightSetup(
        size,
        load.prefilled if prefilled is None else prefilled,
        load.seconds(settings, "light"),
        told("architecture"),
        {name: Pace(told("t_job", name), told("t_task", name)) for name in load.classes},
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
            | {"conflict_fraction": _fraction(each.conflicts, each.transactions_ok)}
            | whole,
        )
        for name, each in found.classes.items()
    ]


# -- full


def _full_setup(means: Full, load: Load, settings: Settings, seed: int) -> FullSetup:
    def told(name: str, of_class: str = "") -> Any:  # a knob's value has its own type
        return value_of(settings, name, "full", of_class)

    teams = tuple(
        Team(slice_name(name), means.policy, told("schedulers", name),
             Pace(told("t_job", name), told("t_task", name)), told("queues"))
        for name in load.classes
    )  # fmt: skip
    return FullSetup(
        means.cell, teams, told("seconds"), told("looks"), told("round_trip"), told("news"),
        told("homes") == "yes", seed=seed,
    )  # fmt: skip


def _arrivals(cell: Cell, load: Load, settings: Settings) -> Sequence[Arrival]:
    count = int(number(settings, "slices", "full"))
    if load.trace:
        engines: dict[str, int] = {}
        for engine in cell.engines.values():
            engines[engine.node] = engines.get(engine.node, 0) + 1
        found = of_trace(load.trace, node_engines_max=max(engines.values()), any_model=True)
    else:
        teams = {name: slice_name(name) for name in load.classes}
        jobs = sorted(load.jobs_of(settings, "full"), key=lambda job: job.submit_s)[:count]
        found = of_light(jobs, teams, engines_max=int(number(settings, "engines_max", "full")))
    found = fitting(found[:count], cell)
    if not found or not found[-1].at_s:
        raise SpecError(
            f"none that fits the cell comes after the first moment, of {count:,} slices",
            where=load.name,
            hint="take a larger --cell, or more slices by --set slices=N",
        )
    share = value_of(settings, "load", "full")
    if share is None and load.profile is not None:
        share = DRAWN_LOAD  # drawn for another cell, while a file has its own time
    if share is not None:
        assert isinstance(share, int | float)
        try:
            found = at_load(found, len(cell.engines), share)
        except ValueError as error:
            raise SpecError(
                f"{error}", where="load", hint="set less of it, or more slices, or a smaller --cell"
            ) from None
    rate = value_of(settings, "rate", "full")
    if rate is not None:
        assert isinstance(rate, int | float)
        found = at_rate(found, rate)
    return found


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
        figures["conflict_fraction"] = _fraction(team.conflicts, team.placed)
        figures["busyness"] = team.busy_useful + team.busy_wasted
        figures |= {"busy_useful": team.busy_useful, "busy_wasted": team.busy_wasted}
        figures |= {f"wait_{of}_s": value for of, value in asdict(team.waits).items()}
        rows.append(Row(name, figures | whole))
    return rows
