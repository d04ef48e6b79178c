"""One run: a cell, a load, an architecture; and what came of it."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Literal, TypeAlias

from flowos.simulation.light.loads import Job
from flowos.simulation.light.machines import Check, Machines, MachineSize, Mode, first_fit
from flowos.simulation.light.measured import ClassFigures, RunFigures, Underway, waits
from flowos.simulation.light.offers import Allocator, Framework
from flowos.simulation.light.schedulers import Monolithic, Pace, Scheduler, SharedState
from flowos.simulation.stage import VirtualClock
from flowos.simulation.timeline import Timeline

Architecture: TypeAlias = Literal["monolithic", "shared-state", "offers"]

_PREFILL: Final = Job("prefill", 0.0, 1, float("inf"), 1000, 2048)


@dataclass(frozen=True, slots=True)
class Setup:
    """What is run.

    Attributes:
        prefilled: Share of all CPU that tasks hold which outlive the run.
        seconds: How long it lasts.
        paces: By class of jobs. A monolithic scheduler with one path for all has one pace for all.
        schedulers: How many serve each class, 1 where it is not said; one in all if monolithic.
        live_round_trip_s: For shared state with live copies, see `SharedState`.
        seed: For where tasks go.
    """

    size: MachineSize
    prefilled: float
    seconds: float
    architecture: Architecture
    paces: Mapping[str, Pace]
    schedulers: Mapping[str, int] = field(default_factory=dict)
    check: Check = "fine"
    mode: Mode = "incremental"
    live_round_trip_s: float | None = None
    seed: int = 0


def run(setup: Setup, jobs: Sequence[Job]) -> RunFigures:
    """Let a load pass over a cell, in virtual time.

    Args:
        setup: The cell, and who schedules.
        jobs: In any order; those of classes that `setup.paces` does not name are an error.

    Raises:
        KeyError: A class of jobs has no pace.
    """
    line = Timeline(VirtualClock())
    draw = random.Random(setup.seed).random
    cell = Machines(setup.size, lambda: line.now)
    _prefill(cell, setup.prefilled, draw)
    serving, allocator = _schedulers(setup, line, cell, draw)
    underway: dict[str, list[Underway]] = {name: [] for name in setup.paces}
    arrivals = 0
    # What comes at one moment comes in the order of the list.
    for job in sorted(jobs, key=lambda job: job.submit_s):
        if job.submit_s > setup.seconds:
            break
        each = Underway(job, job.tasks)
        among = serving[job.name]
        one = among[len(underway[job.name]) % len(among)]
        underway[job.name].append(each)
        arrivals += 1
        line.at(job.submit_s, partial(one.add, each))
    line.run(setup.seconds)
    everyone = {id(one): one for among in serving.values() for one in among}
    return RunFigures(
        {name: _figures(name, setup, underway[name], serving[name]) for name in setup.paces},
        cpu_use=cell.mean_use(),
        cpu_locked=allocator.mean_locked() if allocator else 0.0,
        over_committed=sum(cpu < 0 for cpu in cell.cpu) + sum(m < 0 for m in cell.memory),
        events=arrivals + sum(one.events for one in everyone.values()),
    )


def _prefill(cell: Machines, share: float, draw: Callable[[], float]) -> None:
    count = round(share * cell.cpu_total / _PREFILL.cpu_millis)
    pool = list(range(cell.size.count))
    found = first_fit(cell.cpu[:], cell.memory[:], _PREFILL, count, pool, draw)
    cell.take(found, _PREFILL)


def _schedulers(
    setup: Setup, line: Timeline, cell: Machines, draw: Callable[[], float]
) -> tuple[Mapping[str, Sequence[Scheduler]], Allocator | None]:
    paces = dict(setup.paces)
    if setup.architecture == "monolithic":
        only = Monolithic(line, cell, paces, draw)
        return {name: [only] for name in paces}, None
    allocator = Allocator(line, cell) if setup.architecture == "offers" else None
    serving: dict[str, list[Scheduler]] = {}
    for name, pace in paces.items():
        for _ in range(setup.schedulers.get(name, 1)):
            one: Scheduler
            if allocator is not None:
                one = Framework(line, cell, {name: pace}, draw, allocator)
            else:
                one = SharedState(
                    line, cell, {name: pace}, draw, check=setup.check, mode=setup.mode,
                    live_round_trip_s=setup.live_round_trip_s,
                )  # fmt: skip
            serving.setdefault(name, []).append(one)
    return serving, allocator


def _figures(
    name: str, setup: Setup, jobs: Sequence[Underway], among: Sequence[Scheduler]
) -> ClassFigures:
    found = ClassFigures(name, jobs=len(jobs), tasks=sum(each.job.tasks for each in jobs))
    waits(jobs, found)
    whole = setup.seconds * len(among)
    for one in among:
        worked = one.worked[name]
        found.busyness += sum(w.useful_s + w.wasted_s for w in one.worked.values()) / whole
        found.busy_useful += worked.useful_s / whole
        found.busy_wasted += worked.wasted_s / whole
        found.transactions_ok += worked.transactions_ok
        found.conflicts += worked.transactions_conflicted
        found.claims_ok += worked.claims_ok
        found.claims_conflicted += worked.claims_conflicted
        found.aliased += worked.aliased
        found.no_room += worked.no_room
        found.queue_left += len(one.queue)
    pace = setup.paces[name]
    found.busy_no_conflict = sum(pace.seconds(each.job.tasks) for each in jobs) / whole
    return found
