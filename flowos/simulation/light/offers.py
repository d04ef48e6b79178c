"""What does a framework see when all that is free is offered to one at a time?

Two levels, as published for Mesos: an allocator gathers what is free for a second, offers all of it
to the framework with the smallest dominant share, and locks it until the framework answers. What
is freed meanwhile can be offered to another.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from flowos.simulation.light.loads import Job
from flowos.simulation.light.machines import Machines, first_fit
from flowos.simulation.light.schedulers import Pace, Scheduler
from flowos.simulation.timeline import Timeline

BATCH_S: Final = 1.0  # gathered for so long, as published
ALLOCATOR_S: Final = 0.001  # and then decided whom to offer to
_CPU_MIN_MILLIS: Final = 100_000  # offered only if so much is free


class Offer:
    """What was free when it was made, until it is answered.

    Attributes:
        cpu: Free CPU by machine.
        memory: The same of memory.
        machines: Those that have any, where these are known to be few; None = look at all.
        cpu_free: In all, when it was made.
        taken: What a framework placed on it: machines, and of which job.
    """

    def __init__(
        self, cpu: list[int], memory: list[int], machines: set[int] | None, cpu_free: int
    ) -> None:
        """Hold these."""
        self.cpu = cpu
        self.memory = memory
        self.machines = machines
        self.cpu_free = cpu_free
        self.taken: list[tuple[list[int], Job]] = []


class Allocator:
    """Makes the offers, and keeps what is locked in them."""

    def __init__(self, line: Timeline, cell: Machines) -> None:
        """Nobody has asked for anything."""
        self.line = line
        self.cell = cell
        # What is in no offer; the cell's own lists say what tasks have left.
        self.cpu = cell.cpu[:]
        self.memory = cell.memory[:]
        self.machines: set[int] | None = None
        self.cpu_free = sum(self.cpu)
        self.asking: list[Framework] = []
        self.held: dict[Framework, tuple[int, int]] = {}
        self.is_gathering = False
        self.locked_area = 0.0
        self.locked = 0
        self.locked_since = 0.0

    def ask(self, framework: "Framework") -> None:
        """Note that a framework wants offers."""
        if framework not in self.asking:
            self.asking.append(framework)
        self.gather()

    def enough(self, framework: "Framework") -> None:
        """Note that it does not want any more."""
        if framework in self.asking:
            self.asking.remove(framework)

    def gather(self) -> None:
        """Make an offer a little later, unless one is coming."""
        if not self.is_gathering:
            self.is_gathering = True
            self.line.after(BATCH_S, self._offer)

    def freed(self, framework: "Framework", machines: Sequence[int], job: Job) -> None:
        """Take in what tasks of a framework leave."""
        self._count(framework, -len(machines), job)
        for machine in machines:
            self._add(machine, job.cpu_millis, job.memory_mib)
        self.gather()

    def answered(self, framework: "Framework", offer: Offer) -> None:
        """Take back what a framework leaves of an offer, and start what it placed."""
        self._lock(-offer.cpu_free)
        left = offer.cpu_free - sum(len(m) * job.cpu_millis for m, job in offer.taken)
        for machines, job in offer.taken:
            self._count(framework, len(machines), job)
            self.cell.take(machines, job)
            framework.ends_later(machines, job)
        self._take_back(offer, left)
        self.gather()

    def _take_back(self, offer: Offer, left: int) -> None:
        if offer.machines is None:
            # Nearly all that is free lies in the offer: what was freed meanwhile is added to it.
            rest_cpu, rest_memory, rest = self.cpu, self.memory, self.machines
            self.cpu, self.memory, self.machines = offer.cpu, offer.memory, None
            assert rest is not None, "only one offer has it all"
            free = self.cpu_free
            self.cpu_free = left
            for machine in rest:
                self._add(machine, rest_cpu[machine], rest_memory[machine])
            assert self.cpu_free == left + free, "nothing is lost between offers"
            return
        for machine in offer.machines:
            self._add(machine, offer.cpu[machine], offer.memory[machine])

    def _add(self, machine: int, cpu_millis: int, memory_mib: int) -> None:
        self.cpu[machine] += cpu_millis
        self.memory[machine] += memory_mib
        self.cpu_free += cpu_millis
        if self.machines is not None:
            self.machines.add(machine)

    def _offer(self) -> None:
        self.is_gathering = False
        if not self.asking or self.cpu_free < _CPU_MIN_MILLIS:
            return
        # Dominant resource fairness: Ghodsi et al., NSDI 2011; who asked first goes first.
        framework = min(self.asking, key=self._share)
        offer = Offer(self.cpu, self.memory, self.machines, self.cpu_free)
        count = self.cell.size.count
        self.cpu, self.memory, self.machines = [0] * count, [0] * count, set()
        self.cpu_free = 0
        self._lock(offer.cpu_free)
        self.line.after(ALLOCATOR_S, lambda: framework.offered(offer))

    def _share(self, framework: "Framework") -> float:
        cpu, memory = self.held.get(framework, (0, 0))
        size = self.cell.size
        return max(cpu / self.cell.cpu_total, memory / (size.memory_mib * size.count))

    def _count(self, framework: "Framework", tasks: int, job: Job) -> None:
        cpu, memory = self.held.get(framework, (0, 0))
        self.held[framework] = (
            cpu + tasks * job.cpu_millis,
            memory + tasks * job.memory_mib,
        )

    def _lock(self, cpu_millis: int) -> None:
        now = self.line.now
        self.locked_area += self.locked * (now - self.locked_since)
        self.locked_since = now
        self.locked += cpu_millis

    def mean_locked(self) -> float:
        """Return the share of all CPU that lay in offers, on average until now."""
        self._lock(0)
        now = self.line.now
        return self.locked_area / (now * self.cell.cpu_total) if now else 0.0


class Framework(Scheduler):
    """One who places on what it is offered, all the jobs it has, and answers when all is decided.

    Its decisions overlap: another offer is looked at while the answer to the first is still to
    come. So it can be busy for more than all of its time, as published.
    """

    def __init__(
        self,
        line: Timeline,
        cell: Machines,
        paces: Mapping[str, Pace],
        random: Callable[[], float],
        allocator: Allocator,
    ) -> None:
        """Begin with nothing to do."""
        super().__init__(line, cell, paces, random)
        self.allocator = allocator

    def awake(self) -> None:
        """Ask for an offer."""
        if self.queue:
            self.allocator.ask(self)

    def offered(self, offer: Offer) -> None:
        """Place what the offer has room for, and answer once all of it is decided."""
        self.events += 1
        thinking = 0.0
        free_cpu = offer.cpu_free
        free_memory = sum(offer.memory)
        pool = self.pool if offer.machines is None else list(offer.machines)
        while self.queue and free_cpu > 0 and free_memory > 0:
            job = self.take_up()
            seconds = self.pace(job)
            thinking += seconds
            job.attempts += 1
            worked = self.worked[job.job.name]
            found: list[int] = []
            if free_cpu > job.job.cpu_millis and free_memory > job.job.memory_mib:
                found = first_fit(offer.cpu, offer.memory, job.job, job.left, pool, self.random)
            if found:
                offer.taken.append((found, job.job))
                free_cpu -= len(found) * job.job.cpu_millis
                free_memory -= len(found) * job.job.memory_mib
                job.left -= len(found)
                worked.transactions_ok += 1
                worked.claims_ok += len(found)
                worked.useful_s += seconds
            else:
                worked.no_room += 1
            self.put_back(job)
        if not self.queue:
            self.allocator.enough(self)
        self.line.after(thinking, lambda: self.allocator.answered(self, offer))

    def ended(self, machines: list[int], job: Job) -> None:
        """Let what the tasks leave be offered."""
        self.allocator.freed(self, machines, job)
