"""What is free on a cell of like machines, and who may take it?

A transaction claims machines for like tasks. Checked finely, a claim fits or not; checked coarsely,
it conflicts once anything was put on its machine since the claimer looked.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from flowos.simulation.light.loads import Job

Check: TypeAlias = Literal["fine", "coarse"]
Mode: TypeAlias = Literal["incremental", "all-or-nothing"]


class Seen(NamedTuple):
    """A private copy: free CPU and memory by machine, and how often each had been changed."""

    cpu: list[int]
    memory: list[int]
    changes: Sequence[int]


class Outcome(NamedTuple):
    """What a transaction came to.

    Attributes:
        taken: The machines, one entry a task.
        conflicted: How many claims were refused, or given back with those.
        aliased: Of the refused, those that a check against the claimer's own count of changes,
            not against what it had seen, would have let pass.
    """

    taken: list[int]
    conflicted: int
    aliased: int


@dataclass(frozen=True, slots=True)
class MachineSize:
    """How many machines there are, and of what size each is."""

    count: int
    cpu_millis: int
    memory_mib: int


class Machines:
    """The cell's own state, and how much of it was used since the beginning."""

    def __init__(self, size: MachineSize, now: Callable[[], float]) -> None:
        """All of it is free."""
        self.size = size
        self.cpu = [size.cpu_millis] * size.count
        self.memory = [size.memory_mib] * size.count
        self.changes = [0] * size.count
        self.cpu_total = size.cpu_millis * size.count
        self.cpu_used = 0
        self._now = now
        self._area = 0.0
        self._since = now()

    def copied(self, *, changes: bool) -> Seen:
        """Return a private copy, which later changes here leave alone."""
        return Seen(self.cpu[:], self.memory[:], self.changes[:] if changes else ())

    def take(self, machines: Sequence[int], job: Job) -> None:
        """Put a task of a job on each machine; the caller knows that they fit."""
        self._put(machines, job)
        for machine in machines:
            self.changes[machine] += 1
        self._count(len(machines) * job.cpu_millis)

    def give_back(self, machines: Sequence[int], job: Job) -> None:
        """End a task of a job on each machine. This does not count as a change, as published."""
        self._remove(machines, job)
        self._count(-len(machines) * job.cpu_millis)

    def commit(
        self, claims: Sequence[int], job: Job, seen: Seen, check: Check, mode: Mode
    ) -> Outcome:
        """Take what a transaction claims and does not conflict; of all or nothing, all or nothing.

        Each machine is compared once, with what was seen before the transaction. The published
        simulator compares the second claim on a machine with the claimer's own count, which the
        rival's claim may just have reached: `aliased` counts what would have passed.
        """
        stops = mode == "all-or-nothing"
        if check == "fine":
            taken, conflicted = self._fitting(claims, job, stops=stops)
            aliased = 0
        else:
            taken, conflicted, aliased = self._unchanged(claims, seen, stops=stops)
            if not (stops and conflicted):
                self._put(taken, job)
        if stops and conflicted:
            # What came before the first conflict was put there and is taken away again: its
            # machines count as changed, as published.
            if check == "fine":
                self._remove(taken, job)
            for machine in taken:
                self.changes[machine] += 1
            return Outcome([], conflicted + len(taken), aliased)
        for machine in taken:
            self.changes[machine] += 1
        self._count(len(taken) * job.cpu_millis)
        return Outcome(taken, conflicted, aliased)

    def _fitting(self, claims: Sequence[int], job: Job, *, stops: bool) -> tuple[list[int], int]:
        """Put what fits, up to the first that does not if it stops there."""
        each_cpu, each_memory = job.cpu_millis, job.memory_mib
        cpu, memory = self.cpu, self.memory
        taken: list[int] = []
        for machine in claims:
            if cpu[machine] >= each_cpu and memory[machine] >= each_memory:
                cpu[machine] -= each_cpu
                memory[machine] -= each_memory
                taken.append(machine)
            elif stops:
                return taken, 1
        return taken, len(claims) - len(taken)

    def _unchanged(
        self, claims: Sequence[int], seen: Seen, *, stops: bool
    ) -> tuple[list[int], int, int]:
        """Return what may be put, and what would have been put by an aliased count."""
        changes, before = self.changes, seen.changes
        own: dict[int, int] = {}
        taken: list[int] = []
        aliased = 0
        for machine in claims:
            if changes[machine] == before[machine]:
                taken.append(machine)
                continue
            if stops:
                return taken, 1, 0
            # The published count: what was seen, and one more for each earlier claim of its own.
            ahead = own.get(machine, 0)
            aliased += before[machine] + ahead == changes[machine]
            own[machine] = ahead + 1
        return taken, len(claims) - len(taken), aliased

    def _put(self, machines: Sequence[int], job: Job) -> None:
        cpu, memory = self.cpu, self.memory
        each_cpu, each_memory = job.cpu_millis, job.memory_mib
        for machine in machines:
            cpu[machine] -= each_cpu
            memory[machine] -= each_memory

    def _remove(self, machines: Sequence[int], job: Job) -> None:
        cpu, memory = self.cpu, self.memory
        each_cpu, each_memory = job.cpu_millis, job.memory_mib
        for machine in machines:
            cpu[machine] += each_cpu
            memory[machine] += each_memory

    def mean_use(self) -> float:
        """Return the share of CPU that was used on average until now."""
        self._count(0)
        lasted = self._since
        return self._area / (lasted * self.cpu_total) if lasted else 0.0

    def _count(self, more: int) -> None:
        now = self._now()
        self._area += self.cpu_used * (now - self._since)
        self._since = now
        self.cpu_used += more


def first_fit(
    cpu: list[int],
    memory: list[int],
    job: Job,
    count: int,
    pool: list[int],
    random: Callable[[], float],
) -> list[int]:
    """Take a random machine for each task, as long as any fits, and return them.

    Args:
        cpu: Free CPU by machine; what is taken is taken off.
        memory: The same of memory.
        job: Whose tasks.
        count: How many of them.
        pool: The machines to look at, in any order; the order is changed.
        random: Draws from [0, 1).
    """
    each_cpu, each_memory = job.cpu_millis, job.memory_mib
    left = len(pool)
    found: list[int] = []
    while count and left:
        at = int(random() * left)
        machine = pool[at]
        if cpu[machine] >= each_cpu and memory[machine] >= each_memory:
            cpu[machine] -= each_cpu
            memory[machine] -= each_memory
            found.append(machine)
            count -= 1
        else:  # it will not fit the next task either
            left -= 1
            pool[at] = pool[left]
            pool[left] = machine
    return found
