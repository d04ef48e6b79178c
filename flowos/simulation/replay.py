"""Replays of real jobs on a real cell, through the real store.

`fill_up` places jobs one after the other and lets none depart, as published results for fragmented
GPU clusters do. `replay` honours arrivals and durations in replayed time: the production
scheduler, controller and agents run in one process against the store, on a clock that jumps from
event to event or runs at a chosen speed.
"""

import heapq
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any, Final

from flowos.drivers.sim import SimDriver, SimSettings
from flowos.model import keys
from flowos.model.cell import WHOLE_MILLIS, Cell
from flowos.model.placement import Placement, Unplaceable
from flowos.model.slice import Run, Slice, SliceSpec
from flowos.model.units import kind_of
from flowos.model.view import CellView
from flowos.planning.engines.pool import Pool
from flowos.planning.policy import Policy
from flowos.protocol.proposal import Draft, Proposal
from flowos.runtime.agent import Agent
from flowos.runtime.client import CellClient
from flowos.runtime.clock import SystemClock
from flowos.runtime.figures import Figures, quantiles
from flowos.runtime.lifecycle import Lifecycle, Rules
from flowos.runtime.processes import CONTROLLER_FOLLOWS, Store, new_attempt
from flowos.runtime.scheduling import SCHEDULER_FOLLOWS, Scheduling
from flowos.runtime.session import ProcessSession
from flowos.simulation.jobs import Job, slice_name
from flowos.simulation.stage import Stage, VirtualClock

TENANT: Final = "default"
BATCH: Final = 64  # jobs planned between two looks at the progress
NEVER: Final = Rules(
    idle_off_seconds=0, sweep_seconds=inf, keep_seconds=inf, ended_seconds=inf, ended_max=10**9
)
Progress = Callable[[int, int, str], None]


@dataclass
class Result:
    """What a replay came to; `shown` gives the names that scripts rely on.

    Attributes:
        reasons: Why the unplaced jobs were not placed -> how many.
        examples: The same -> what the scheduler said of the first of them.
        allocated_at: Arrived load (requested engines / engines) -> allocated fraction then.
        allocated_max: The largest fraction of engines that was ever held at once.
    """

    jobs: int
    seed: int
    engines: int
    placed: int = 0
    done: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict)
    allocated: float = 0.0
    allocated_at: dict[str, float] = field(default_factory=dict)
    allocated_max: float = 0.0
    engine_seconds: float = 0.0
    replayed_seconds: float = 0.0
    wall_seconds: float = 0.0
    conflicts: int = 0
    commits: int = 0
    plans: int = 0
    decision_ms: dict[str, float] = field(default_factory=dict)
    violations: int = 0

    def count(self, reason: str, sentence: str) -> None:
        """Count a job that was not placed."""
        self.reasons[str(reason)] = self.reasons.get(str(reason), 0) + 1
        self.examples.setdefault(str(reason), sentence)

    def shown(self) -> dict[str, Any]:
        """Return the figures by their stable names."""
        attempts = self.commits + self.conflicts
        return {
            "jobs": self.jobs,
            "placed": self.placed,
            "unplaced": self.jobs - self.placed,
            "done": self.done,
            "unplaced_reasons": dict(sorted(self.reasons.items())),
            "unplaced_examples": dict(sorted(self.examples.items())),
            "engines": self.engines,
            "allocated_fraction": round(self.allocated, 4),
            "allocated_max": round(self.allocated_max, 4),
            "allocated_at": self.allocated_at,
            "slices_per_s": round(self.placed / self.wall_seconds, 1) if self.wall_seconds else 0,
            "conflict_fraction": round(self.conflicts / attempts, 4) if attempts else 0.0,
            "plans_per_placed": round(attempts / self.placed, 4) if self.placed else 0.0,
            "decision_ms": self.decision_ms,
            "replayed_seconds": round(self.replayed_seconds, 1),
            "wall_seconds": round(self.wall_seconds, 2),
            "violations": self.violations,
            "seed": self.seed,
        }


def accelerators(cell: Cell, jobs: Sequence[Job]) -> int:
    """Return how many engines the cell has of the kinds that jobs ask for."""
    kinds = {job.kind for job in jobs if job.engines}
    return sum(engine.kind in kinds for engine in cell.engines.values())


def largest_node(cell: Cell, jobs: Sequence[Job]) -> int:
    """Return how many engines of the kinds that jobs ask for one node has at most."""
    kinds = {job.kind for job in jobs if job.engines}
    return max(
        (
            sum(cell.engines[engine].kind in kinds for engine in engines)
            for engines in cell.engines_of.values()
        ),
        default=0,
    )


def fill_up_jobs(jobs: Sequence[Job], engines: int, load: float, seed: int) -> list[Job]:
    """Return a shuffled job list that requests `load` times the engines in all.

    Jobs are shuffled, then drawn again with replacement until the load is reached, or the last
    ones are dropped where the file alone is over it.

    Source: Weng et al., "Beware of Fragmentation", USENIX ATC 2023, section 6.
    """
    rng = random.Random(seed)
    shuffled = list(jobs)
    rng.shuffle(shuffled)
    wanted = load * engines
    amount = sum(job.engine_amount for job in shuffled)
    while amount < wanted and any(job.engines for job in jobs):
        job = rng.choice(jobs)
        shuffled.append(job)
        amount += job.engine_amount
    while amount > wanted and len(shuffled) > 1:
        amount -= shuffled.pop().engine_amount
    return shuffled


def fill_up(
    client: CellClient,
    policy: Policy,
    jobs: Sequence[Job],
    *,
    load: float,
    seed: int,
    progress: Progress,
) -> Result:
    """Place jobs in a seeded order until `load` times the engines were asked for; none departs.

    Each job is tried once. Jobs are planned in order by an embedded scheduler and committed in
    groups through the client's store, which nobody else may be writing to.
    """
    with client.scheduler(policy, name="replay", follow=False) as scheduler:
        result = _fill(scheduler.view.cell, jobs, scheduler.place, load, seed, progress)
        _take_figures(result, scheduler.figures)
        return result


def fill_up_alone(
    cell: Cell, policy: Policy, jobs: Sequence[Job], *, load: float, seed: int
) -> Result:
    """Do the same with nothing but the planner: each plan counts as held at once."""
    view = CellView(cell=cell)
    pool = Pool(view)

    def place(specs: Sequence[SliceSpec]) -> list[Placement | Unplaceable]:
        placed: list[Placement | Unplaceable] = []
        for spec in specs:
            found = policy.plan(pool, spec, seed=0, avoid=frozenset())
            if isinstance(found, Unplaceable):
                placed.append(found)
                continue
            placement = Placement(0, spec.name, held=found.units, bitstreams=found.bitstreams)
            view.assume(spec.id, placement)
            placed.append(placement)
        return placed

    return _fill(cell, jobs, place, load, seed, lambda *_state: None)


def _fill(
    cell: Cell,
    jobs: Sequence[Job],
    place: Callable[[Sequence[SliceSpec]], Sequence[Placement | Unplaceable]],
    load: float,
    seed: int,
    progress: Progress,
) -> Result:
    engines = accelerators(cell, jobs)
    largest = largest_node(cell, jobs)
    arrivals = fill_up_jobs(jobs, engines, load, seed)
    result = Result(jobs=len(arrivals), seed=seed, engines=engines)
    names = _Names()
    started = time.monotonic()
    requested = allocated = 0.0
    marks = _marks(load)
    for start in range(0, len(arrivals), BATCH):
        batch = arrivals[start : start + BATCH]
        specs = [job.spec(names.of(job), TENANT, Run(), node_engines_max=largest) for job in batch]
        for job, placed in zip(batch, place(specs), strict=True):
            requested += job.engine_amount
            if isinstance(placed, Unplaceable):
                result.count(placed.reason, placed.sentence)
            else:
                result.placed += 1
                allocated += engines_held(placed)
            while marks and requested >= (marks[0] - 1e-9) * engines:
                mark = marks.pop(0)
                result.allocated_at[f"{mark:.1f}"] = round(allocated / engines, 4)
        progress(
            min(start + BATCH, len(arrivals)), len(arrivals),
            f"{100 * allocated / engines:.1f} % of engines allocated",
        )  # fmt: skip
    while marks and requested >= (marks[0] - 0.01) * engines:
        result.allocated_at[f"{marks.pop(0):.1f}"] = round(allocated / engines, 4)
    result.wall_seconds = time.monotonic() - started
    result.allocated = result.allocated_max = allocated / engines if engines else 0.0
    return result


def _marks(load: float) -> list[float]:
    """Return the arrived loads to report at: every 0.1 from half full on."""
    tenths = range(5, round(load * 10) + 1)
    return [tenth / 10 for tenth in tenths] or [load]


def engines_held(placement: Placement) -> float:
    """Return how many accelerators a placement holds, shares as fractions."""
    held = 0.0
    for unit, amounts in {**placement.held, **placement.releasing}.items():
        kind = kind_of(unit)
        held += 1.0 if kind == "engine" else amounts[0] / WHOLE_MILLIS if kind == "share" else 0.0
    return held


def replay(
    store: Store,
    policy: Policy,
    jobs: Sequence[Job],
    *,
    speed: float,
    seed: int,
    progress: Progress,
) -> Result:
    """Replay arrivals and durations; every job ends done, or is named as never placed.

    Args:
        store: With a cell loaded; nobody else writes to it.
        policy: Of the one scheduler.
        jobs: In any order; those without a published duration end as soon as they are up.
        speed: Replayed seconds a second; 0 = as fast as it goes.
        seed: Kept with the result: this replay draws nothing at random.
        progress: Called now and then with jobs arrived, jobs in all, and a clause.
    """
    clock = VirtualClock()
    session = ProcessSession(store, SystemClock(), "client", "replay", ttl_seconds=60)
    try:
        run = _Replay(store, policy, clock, session, list(jobs), seed)
        run.play(speed, progress)
    finally:
        session.close()
    return run.result


class _Replay:
    """One replay under way."""

    def __init__(
        self,
        store: Store,
        policy: Policy,
        clock: VirtualClock,
        session: ProcessSession,
        jobs: list[Job],
        seed: int,
    ) -> None:
        view = CellView()

        def fits(proposals: Sequence[Proposal]) -> bool:
            return store.fits([p.transaction for p in proposals])

        self._session = session
        self._scheduler = Scheduling(
            view,
            policy,
            session=session.id,
            fence=lambda: session.fence,
            seed=0,
            fits=fits,
            stopwatch=time.monotonic,
            new_attempt=new_attempt,
            alone=True,
            wall=clock.wall,
            clock=clock.monotonic,
        )
        lifecycle = Lifecycle(
            view,
            fence=lambda: session.fence,
            wall=clock.wall,
            new_attempt=new_attempt,
            fits=fits,
            rules=NEVER,
        )
        agent = Agent(
            view,
            SimDriver(SimSettings()),
            fence=lambda: session.fence,
            serves=lambda _place: True,
            fits=fits,
        )
        self._stage = Stage(store, view, clock, [self._scheduler, lifecycle, agent])
        self._stage.observers.append(self._committed)
        self._stage.start(list(dict.fromkeys([*SCHEDULER_FOLLOWS, *CONTROLLER_FOLLOWS])))
        self._arrivals = [(job.submit_s, at, job) for at, job in enumerate(jobs)]
        heapq.heapify(self._arrivals)
        self._names = _Names()
        self._held = 0.0
        self._held_since = 0.0
        self._largest = largest_node(view.cell, jobs)
        self.result = Result(len(jobs), seed, accelerators(view.cell, jobs))

    def play(self, speed: float, progress: Progress) -> None:
        """Run until every job has ended or nothing can happen any more."""
        stage, result = self._stage, self.result
        started = told = time.monotonic()
        first = self._arrivals[0][0] if self._arrivals else 0.0
        stage.clock.now = first
        self._held_since = first
        while True:
            arrival = self._arrivals[0][0] if self._arrivals else inf
            moment = min(arrival, stage.next_at())
            if moment == inf:
                break
            if speed:
                behind = started + (moment - first) / speed - time.monotonic()
                if behind > 0:
                    time.sleep(behind)
            stage.clock.now = max(stage.clock.now, moment)
            self._submit_due()
            stage.settle()
            if time.monotonic() - told > 0.1:
                told = time.monotonic()
                progress(
                    result.jobs - len(self._arrivals), result.jobs,
                    f"{self._held:g} of {result.engines} engines held, {result.done} jobs done",
                )  # fmt: skip
        self._account(0.0)
        result.replayed_seconds = stage.clock.now - first
        result.wall_seconds = time.monotonic() - started
        span = result.replayed_seconds * result.engines
        result.allocated = result.engine_seconds / span if span else 0.0
        for name, entry in stage.view.slices.items():
            if entry.value.end is None and name not in stage.view.placements:
                waiting = stage.view.reasons.get(name)
                if waiting:
                    result.count(waiting.value.reason, waiting.value.sentence)
                else:
                    result.count("unknown", "no scheduler has said why")
        _take_figures(result, self._scheduler.figures)
        progress(result.jobs, result.jobs, f"{result.done} jobs done")

    def _submit_due(self) -> None:
        due: list[Proposal] = []
        while self._arrivals and self._arrivals[0][0] <= self._stage.clock.now:
            job = heapq.heappop(self._arrivals)[2]
            duration = job.duration_s or 1.0
            spec = job.spec(
                self._names.of(job),
                TENANT,
                Run(for_seconds=duration),
                node_engines_max=self._largest,
            )
            due.append(self._submission(replace(spec, policy=self._scheduler.policy.name)))
            if len(due) == BATCH:
                self._stage.write(due)
                due = []
        if due:
            self._stage.write(due)

    def _submission(self, spec: SliceSpec) -> Proposal:
        draft = Draft(fence=self._session.fence)
        key = keys.slice_(spec.id)
        draft.seen(key, 0)
        draft.put(key, Slice(spec=spec, submitted_at=self._stage.clock.now))
        return draft.proposal("submit", spec.id, self._stage.view)

    def _committed(self, proposal: Proposal) -> None:
        if proposal.step == "commit" and proposal.placement is not None:
            self.result.placed += 1
            self._account(engines_held(proposal.placement))
        elif proposal.step == "release" and proposal.placement is not None:
            self.result.done += 1
            self._account(-engines_held(proposal.placement))

    def _account(self, change: float) -> None:
        """Add up engine-seconds, and note the peak."""
        now = self._stage.clock.now
        self.result.engine_seconds += self._held * (now - self._held_since)
        self._held_since = now
        self._held += change
        share = self._held / self.result.engines if self.result.engines else 0.0
        self.result.allocated_max = max(self.result.allocated_max, share)


class _Names:
    """Gives each job a slice name of its own; jobs that are drawn again get a number."""

    def __init__(self) -> None:
        self._given: set[str] = set()
        self._next: dict[str, int] = {}

    def of(self, job: Job) -> str:
        name = slice_name(job.name)
        stem, number = name[:55].rstrip("-"), self._next.get(name, 1)
        while name in self._given:
            number += 1
            name = f"{stem}-{number}"
        self._next[slice_name(job.name)] = number
        self._given.add(name)
        return name


def _take_figures(result: Result, figures: Figures) -> None:
    result.commits = figures.commits
    result.conflicts = figures.conflicts
    result.plans = figures.plans
    result.decision_ms = quantiles(figures.decisions_ms)
