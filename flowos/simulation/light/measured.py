"""What is counted of each class of jobs, and of those who schedule it?"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from flowos.simulation.light.loads import Job


@dataclass(slots=True)
class Underway:
    """A job on its way.

    Attributes:
        left: Tasks that are not placed yet.
        attempts: How often it was tried.
        waited_first_s: From its coming until it was first taken up.
        waited_s: In a queue, until it was taken up for the last time.
    """

    job: Job
    left: int
    queued_at: float = 0.0
    attempts: int = 0
    waited_first_s: float = 0.0
    waited_s: float = 0.0
    is_abandoned: bool = False

    @property
    def is_placed(self) -> bool:
        """Whether all its tasks are."""
        return not self.left


@dataclass(slots=True)
class Worked:
    """What one scheduler did for one class of jobs: its time, and its transactions."""

    useful_s: float = 0.0
    wasted_s: float = 0.0
    transactions_ok: int = 0
    transactions_conflicted: int = 0
    claims_ok: int = 0
    claims_conflicted: int = 0
    aliased: int = 0
    no_room: int = 0


@dataclass(slots=True)
class ClassFigures:
    """One class of jobs in one run. Times in seconds; busyness as a share of the run.

    Attributes:
        attempted: Jobs that were taken up at all.
        placed: Jobs whose tasks all found a machine.
        busyness: Of the schedulers that serve this class, on average: for whatever they decided.
        busy_useful: The same, of decisions for this class that did not conflict.
        busy_wasted: And of those that did.
        busy_no_conflict: What each job's first decision would take, if none had to be repeated.
        conflicts: Transactions that conflicted.
        queue_left: Jobs that waited at the end at those who serve this class.
    """

    name: str
    jobs: int = 0
    tasks: int = 0
    attempted: int = 0
    placed: int = 0
    abandoned: int = 0
    busyness: float = 0.0
    busy_useful: float = 0.0
    busy_wasted: float = 0.0
    busy_no_conflict: float = 0.0
    transactions_ok: int = 0
    conflicts: int = 0
    claims_ok: int = 0
    claims_conflicted: int = 0
    aliased: int = 0
    no_room: int = 0
    wait_first_mean_s: float = 0.0
    wait_full_mean_s: float = 0.0
    wait_first_p90_s: float = 0.0
    queue_left: int = 0

    @property
    def conflict_fraction(self) -> float:
        """Conflicted transactions for each that succeeded, as the paper has it; where none did, as if one had."""
        return self.conflicts / max(1, self.transactions_ok)

    @property
    def is_saturated(self) -> bool:
        """Whether those who serve it cannot keep up."""
        return self.busyness > 0.95


@dataclass(slots=True)
class RunFigures:
    """One run.

    Attributes:
        classes: By name.
        cpu_use: Share of all CPU, on average.
        cpu_locked: Share of all CPU that lay in offers, on average.
        over_committed: Machines that held more than they have; must be none.
        events: What happened: arrivals, decisions, ends of transactions' tasks.
    """

    classes: dict[str, ClassFigures] = field(default_factory=dict)
    cpu_use: float = 0.0
    cpu_locked: float = 0.0
    over_committed: int = 0
    events: int = 0


def waits(jobs: Sequence[Underway], figures: ClassFigures) -> None:
    """Fill in what the jobs of a class waited: in queues, decisions and back-off left out."""
    first = sorted(job.waited_first_s for job in jobs if job.attempts)
    full = [job.waited_s for job in jobs if job.is_placed]
    figures.attempted = len(first)
    figures.placed = len(full)
    figures.abandoned = sum(job.is_abandoned for job in jobs)
    if first:
        figures.wait_first_mean_s = sum(first) / len(first)
        figures.wait_first_p90_s = first[min(int(len(first) * 0.9), len(first) - 1)]
    if full:
        figures.wait_full_mean_s = sum(full) / len(full)
