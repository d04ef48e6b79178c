"""Who takes up a job, for how long is it decided on, and what becomes of it?

One queue each, one job at a time. A decision takes t_job + t_task for each task not yet placed;
what is left of the job then comes again a second later.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from flowos.simulation.light.loads import Job
from flowos.simulation.light.machines import Check, Machines, Mode, Seen, first_fit
from flowos.simulation.light.measured import Underway, Worked
from flowos.simulation.timeline import Timeline

RETRY_S: Final = 1.0  # from a decision to the next on the same job, as published
_TRIES_IN_VAIN: Final = 100  # a job of which nothing was placed is given up after more than these
_TRIES_MAX: Final = 1_000  # and any job after more than these


@dataclass(frozen=True, slots=True)
class Pace:
    """How long decisions on one class of jobs take.

    Attributes:
        job_s: t_job, for the job.
        task_s: t_task, for each of its tasks that is not placed yet.
    """

    job_s: float = 0.1
    task_s: float = 0.005

    def seconds(self, tasks: int) -> float:
        """Return how long it takes to decide on so many tasks."""
        return self.job_s + self.task_s * tasks


def slowest(paces: Iterable[Pace]) -> Pace:
    """Return the pace of a scheduler with a single path: each job takes as the slowest class does."""
    many = list(paces)
    return Pace(max(pace.job_s for pace in many), max(pace.task_s for pace in many))


class Scheduler:
    """What all have in common; what differs is how the end of a decision is carried out."""

    def __init__(
        self,
        line: Timeline,
        cell: Machines,
        paces: Mapping[str, Pace],
        random: Callable[[], float],
    ) -> None:
        """Begin with nothing to do.

        Args:
            line: Virtual time.
            cell: What is scheduled on.
            paces: By class of jobs.
            random: Draws machines, from [0, 1).
        """
        self.line = line
        self.cell = cell
        self.paces = paces
        self.random = random
        self.queue: deque[Underway] = deque()
        self.worked: dict[str, Worked] = {name: Worked() for name in paces}
        self.pool = list(range(cell.size.count))
        self.events = 0

    def add(self, job: Underway) -> None:
        """Put a job at the end of the queue."""
        job.queued_at = self.line.now
        self.queue.append(job)
        self.awake()

    def awake(self) -> None:
        """Go on, if there is something to do and nothing is being done."""
        raise NotImplementedError

    def pace(self, job: Underway) -> float:
        """Return how long a decision takes."""
        return self.paces[job.job.name].seconds(job.left)

    def take_up(self) -> Underway:
        """Return the next job, and note how long it waited."""
        job = self.queue.popleft()
        waited = self.line.now - job.queued_at
        job.waited_s += waited
        if not job.attempts:
            job.waited_first_s = waited
        return job

    def put_back(self, job: Underway) -> None:
        """Have what is left of a job come again, or give it up."""
        if not job.left:
            return
        in_vain = job.left == job.job.tasks and job.attempts > _TRIES_IN_VAIN
        if in_vain or job.attempts > _TRIES_MAX:
            job.is_abandoned = True
        else:
            self.line.after(RETRY_S, lambda: self.add(job))

    def ends_later(self, machines: list[int], job: Job) -> None:
        """Have the tasks of one transaction end, all in one event."""

        def end() -> None:
            self.events += 1
            self.cell.give_back(machines, job)
            self.ended(machines, job)

        self.line.after(job.duration_s, end)

    def ended(self, machines: list[int], job: Job) -> None:
        """Hear that the tasks of a transaction have ended; to most it does not matter."""


class OneByOne(Scheduler):
    """One decision at a time."""

    is_busy = False

    def awake(self) -> None:
        """Take up the next job, unless one is being decided on."""
        if self.is_busy or not self.queue:
            return
        job = self.take_up()
        self.is_busy = True
        seconds = self.pace(job)
        seen = self.looked()

        def decided() -> None:
            self.events += 1
            job.attempts += 1
            self.carry_out(job, seconds, seen)

        self.line.after(seconds, decided)

    def looked(self) -> Seen | None:
        """Return what is copied when a decision begins."""
        return None

    def carry_out(self, job: Underway, seconds: float, seen: Seen | None) -> None:
        """Place what can be placed, at the end of a decision that took so long."""
        raise NotImplementedError

    def done(self, job: Underway) -> None:
        """Go on with the next job."""
        self.put_back(job)
        self.is_busy = False
        self.awake()


class Monolithic(OneByOne):
    """The only one who schedules: what it places on is the truth."""

    def carry_out(self, job: Underway, seconds: float, seen: Seen | None) -> None:
        """Place on the cell itself."""
        del seen
        worked, cell = self.worked[job.job.name], self.cell
        # On copies of the two lists: the cell keeps its own books.
        found = first_fit(cell.cpu[:], cell.memory[:], job.job, job.left, self.pool, self.random)
        if found:
            cell.take(found, job.job)
            job.left -= len(found)
            worked.transactions_ok += 1
            worked.claims_ok += len(found)
            worked.useful_s += seconds
            self.ends_later(found, job.job)
        else:
            worked.no_room += 1
        self.done(job)


class SharedState(OneByOne):
    """One of several: plans on a private copy, and commits against what the others did meanwhile.

    Published: the copy is as old as the decision, and a commit takes no time. Live: the copy is
    kept in step until the end of the decision, when what broke of a plan is replaced; only the
    commit's round trip is left for rivals.
    """

    def __init__(
        self,
        line: Timeline,
        cell: Machines,
        paces: Mapping[str, Pace],
        random: Callable[[], float],
        *,
        check: Check = "fine",
        mode: Mode = "incremental",
        live_round_trip_s: float | None = None,
    ) -> None:
        """Begin with nothing to do.

        Args:
            line: Virtual time.
            cell: What is scheduled on.
            paces: By class of jobs.
            random: Draws machines, from [0, 1).
            check: When a claim conflicts.
            mode: What a transaction does then.
            live_round_trip_s: Of a commit, with a live copy; None = as published.
        """
        super().__init__(line, cell, paces, random)
        self.check: Check = check
        self.mode: Mode = mode
        self.live_round_trip_s = live_round_trip_s

    def looked(self) -> Seen | None:
        """Copy the cell, unless the copy is live."""
        return None if self.live_round_trip_s is not None else self._copy()

    def _copy(self) -> Seen:
        return self.cell.copied(changes=self.check == "coarse")

    def carry_out(self, job: Underway, seconds: float, seen: Seen | None) -> None:
        """Place on the copy; commit at once, or a round trip later."""
        known = seen if seen is not None else self._copy()
        found = first_fit(known.cpu, known.memory, job.job, job.left, self.pool, self.random)
        if not found:
            self.worked[job.job.name].no_room += 1
            self.done(job)
        elif seen is not None:
            self._commit(job, found, seconds, known)
        else:
            assert self.live_round_trip_s is not None, "only then nothing is copied before"
            took = seconds + self.live_round_trip_s
            self.line.after(self.live_round_trip_s, lambda: self._commit(job, found, took, known))

    def _commit(self, job: Underway, found: list[int], seconds: float, seen: Seen) -> None:
        worked = self.worked[job.job.name]
        outcome = self.cell.commit(found, job.job, seen, self.check, self.mode)
        job.left -= len(outcome.taken)
        worked.claims_ok += len(outcome.taken)
        worked.claims_conflicted += outcome.conflicted
        worked.aliased += outcome.aliased
        if outcome.conflicted:
            worked.transactions_conflicted += 1
            worked.wasted_s += seconds
        else:
            worked.transactions_ok += 1
            worked.useful_s += seconds
        if outcome.taken:
            self.ends_later(outcome.taken, job.job)
        self.done(job)
