"""One thread that runs several machines against one store, in virtual time.

Machines are the same as in production. They share one view, since here nobody else writes to the
cell: what a commit wrote is taken into the view at once, at the revision the store answered.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import inf

from flowos.model.errors import StoreRefused, TransactionTooLarge
from flowos.model.protocols import CellStore
from flowos.model.transaction import Change, Committed, Put
from flowos.model.view import CellView
from flowos.protocol.proposal import Proposal
from flowos.runtime.machine import Answer, Commit, Instruction, Machine, Refused


@dataclass
class VirtualClock:
    """Time that moves when it is told to; the wall starts at the epoch."""

    now: float = 0.0

    def monotonic(self) -> float:
        """Return virtual seconds."""
        return self.now

    def wall(self) -> float:
        """Return virtual seconds."""
        return self.now


@dataclass
class Stage:
    """Runs machines until nothing is left to do, and moves the clock from event to event.

    Attributes:
        store: Whose only writer this stage is.
        view: Shared by all machines.
        clock: Virtual.
        commits: Requests sent so far.
        observers: Called with each committed step.
    """

    store: CellStore
    view: CellView
    clock: VirtualClock
    machines: list[Machine] = field(default_factory=list)
    commits: int = 0
    observers: list[Callable[[Proposal], None]] = field(default_factory=list)
    _created: dict[str, int] = field(default_factory=dict)

    def start(self, prefixes: Sequence[str]) -> None:
        """Fill the view; machines are added before."""
        reading = self.store.read(prefixes)
        self._created = {record.key: record.created for record in reading.records}
        self.view.load(reading.records)
        self.view.progressed(reading.revision)
        for machine in self.machines:
            machine.relisted()

    def settle(self) -> None:
        """Let every machine act until none has anything to do at this moment."""
        busy = True
        while busy:
            busy = False
            for machine in self.machines:
                for instruction in machine.step(self.clock.now):
                    busy = True
                    self._carry_out(machine, instruction)
            busy = busy or any(m.wake_at() <= self.clock.now for m in self.machines)

    def next_at(self) -> float:
        """Return the next moment at which a machine has something to do."""
        return min((machine.wake_at() for machine in self.machines), default=inf)

    def write(self, proposals: Sequence[Proposal]) -> list[Answer]:
        """Commit steps of the caller's own, and show them to the machines."""
        answers: list[Answer] = list(self.store.commit([p.transaction for p in proposals]))
        self.commits += 1
        for proposal, answer in zip(proposals, answers, strict=True):
            if isinstance(answer, Committed):
                for change in self._echo(proposal, answer.revision):
                    applied = self.view.apply(change)
                    for machine in self.machines:
                        machine.changed(applied)
                for observer in self.observers:
                    observer(proposal)
        newest = max((a.revision for a in answers if isinstance(a, Committed)), default=0)
        self.view.progressed(newest)
        return answers

    def _carry_out(self, machine: Machine, instruction: Instruction) -> None:
        if isinstance(instruction, Commit):
            try:
                answers = self.write(instruction.proposals)
            except (StoreRefused, TransactionTooLarge) as error:
                answers = [Refused(error) for _ in instruction.proposals]
            machine.answered(instruction, answers, self.clock.now)

    def _echo(self, proposal: Proposal, revision: int) -> Iterator[Change]:
        for operation in proposal.transaction.operations:
            key = operation.key
            if key.startswith("claim/"):
                continue  # the placement says the same, and nobody watches claims
            if isinstance(operation, Put):
                created = self._created.setdefault(key, revision)
                yield Change(key, operation.value, created, revision)
            elif self._created.pop(key, None):
                yield Change(key, None, 0, revision)
