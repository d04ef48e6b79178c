"""What is run next, what is sent to whom, and what may be let go? Decided without any I/O.

Everything that a worker hears goes in, and a list of what it is to say comes out. A task runs when
all its inputs are here. Its outputs go at once to whoever needs them. An input is let go when the
outputs that were made of it have arrived, so a task that is lost with its engine can be run again
from what others still have. After a recall nothing begins until the next `Go`.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from flowos.flowlet.wire.messages import (
    CLIENT,
    Arrived,
    Done,
    Failed,
    Freed,
    Go,
    Got,
    Held,
    Output,
    Part,
    Program,
)

Value: TypeAlias = Any  # held, sent and let go; never looked into


class Say(NamedTuple):
    """A message to a rank, or to the coordinator."""

    rank: int
    message: Any


class Give(NamedTuple):
    """An output to a rank, or to the coordinator."""

    rank: int
    output: Output
    value: Value


class LetGo(NamedTuple):
    """A value that is not needed here any more."""

    value: Value


Action: TypeAlias = Say | Give | LetGo


@dataclass(slots=True)
class _Task:
    """A task that is to run in this epoch.

    Attributes:
        missing: Inputs that are not here yet.
        unheard: Of its outputs: to whom they were sent who has not said that they arrived.
    """

    part: Part
    missing: set[Output]
    unheard: set[tuple[Output, int]] = field(default_factory=set)
    ran: bool = False


class WorkerMachine:
    """One worker's part in one job."""

    def __init__(self, rank: int, job: int) -> None:
        """Begin with nothing held, in no epoch, and without a task: others may be faster to begin."""
        self.rank = rank
        self.job = job
        self.parts: Mapping[int, Part] = {}
        self.epoch = 0
        self.ready: deque[int] = deque()
        self.actions: list[Action] = []
        self._recalled = False
        self._go = Go(self.job, 0, (), {}, frozenset(), frozenset())
        self._tasks: dict[int, _Task] = {}
        self._held: dict[Output, Value] = {}
        self._from: dict[Output, int] = {}  # what came from elsewhere -> from whom
        self._users: dict[Output, set[int]] = {}  # tasks here that may still have to read it
        self._borrowers: dict[Output, set[int]] = {}  # ranks that read it in this memory
        self._early: list[tuple[int, int, Output, Value]] = []
        self._got: dict[int, list[Output]] = {}
        self._freed: dict[int, list[Output]] = {}

    # -- what is heard

    def introduced(self, program: Program) -> None:
        """Take the tasks that are its own from now on."""
        self.parts = {part.number: part for part in program.parts}

    def go(self, go: Go) -> None:
        """Take what is to be done from now on; what is held and not named any more is let go."""
        if go.epoch <= self.epoch:
            return
        self.epoch, self._go, self._recalled = go.epoch, go, False
        self.ready.clear()
        self._got.clear()
        self._freed.clear()
        self._borrowers = {}
        self._users = {}
        self._tasks = {}
        for number in go.run:
            inputs = self.parts[number].whole
            self._tasks[number] = _Task(
                self.parts[number], {o for o in inputs if o not in self._held}
            )
            for output in inputs:
                self._users.setdefault(output, set()).add(number)
        running = self._tasks.keys() | go.fed
        for output in list(self._held):
            if output[0] in running:
                continue  # looked at below: it may have come while the epochs changed
            self._send(output)
            self._let_go(output)
        for number in [*go.fed, *go.run]:
            made = self._outputs(number)
            if number in self._tasks and self.parts[number].stream:
                continue  # it runs with its group, or not at all
            if made and all(output in self._held for output in made):
                self._made(number)
        self._begin(self._tasks)
        early, self._early = self._early, []
        for source, epoch, output, value in early:
            self.sent(source, epoch, output, value)

    def fed(self, epoch: int, number: int, value: Value) -> None:
        """Take what a source gives."""
        if epoch != self.epoch:
            self.actions.append(LetGo(value))
            return
        self._hold((number, 0), value, CLIENT)
        self._made(number)

    def sent(self, source: int, epoch: int, output: Output, value: Value) -> None:
        """Take an output that another rank made."""
        if epoch > self.epoch:
            self._early.append((source, epoch, output, value))
            return
        if epoch < self.epoch:
            self.actions.append(LetGo(value))
            return
        self._got.setdefault(source, []).append(output)
        if output in self._go.stays:
            self.actions.append(Say(CLIENT, Arrived(self.job, self.epoch, (output,))))
        if output in self._held:
            self.actions.append(LetGo(value))
        else:
            self._hold(output, value, source)
        self._arrived(output)
        self._let_go(output)

    def got(self, source: int, epoch: int, outputs: Iterable[Output]) -> None:
        """Outputs have arrived there: what they were made of may be let go."""
        if epoch != self.epoch:
            return
        for output in outputs:
            task = self._tasks.get(output[0])
            if task is not None and (output, source) in task.unheard:
                task.unheard.discard((output, source))
                self._settle(task)

    def freed(self, source: int, epoch: int, outputs: Iterable[Output]) -> None:
        """Outputs are not needed there any more."""
        if epoch != self.epoch:
            return
        for output in outputs:
            self._borrowers.get(output, set()).discard(source)
            self._let_go(output)

    def recall(self, epoch: int) -> None:
        """Begin nothing more, and say what is held."""
        if epoch <= self.epoch:
            return
        self._recalled = True
        self.ready.clear()
        self.actions.append(Say(CLIENT, Held(self.job, epoch, tuple(self._held))))

    # -- what is run

    def next_task(self) -> tuple[Part, list[Value]] | None:
        """Return a task whose inputs are all here, with these; None = none is.

        An input that comes in chunks is None.
        """
        while self.ready:
            task = self._tasks[self.ready.popleft()]
            if not task.ran:  # else it was under way when the epoch began, and has ended since
                part, whole = task.part, set(task.part.whole)
                return part, [self._held[o] if o in whole else None for o in part.inputs]
        return None

    def ran(
        self, epoch: int, number: int, values: Iterable[Value], began: float, took: float
    ) -> None:
        """Take a task's outputs; those of an earlier epoch are kept if this one needs them."""
        outputs = self._outputs(number)
        for output, value in zip(outputs, values, strict=True):
            self._hold(output, value, self.rank)
        if epoch != self.epoch and number not in self._tasks:
            for output in outputs:
                self._let_go(output)
            return
        if not self._recalled:
            self._made(number, began, took)

    def failed(self, epoch: int, number: int, kind: str, message: str, traceback: str = "") -> None:
        """Tell why a task cannot be done."""
        self.actions.append(Say(CLIENT, Failed(self.job, epoch, number, kind, message, traceback)))

    def take(self) -> list[Action]:
        """Return what is to be said since the last call, acknowledgements last and in one."""
        for source, outputs in self._got.items():
            self.actions.append(Say(source, Got(self.job, self.epoch, self.rank, tuple(outputs))))
        for source, outputs in self._freed.items():
            self.actions.append(Say(source, Freed(self.job, self.epoch, self.rank, tuple(outputs))))
        self._got.clear()
        self._freed.clear()
        actions, self.actions = self.actions, []
        return actions

    def dropped(self) -> list[Value]:
        """Let go of everything; return what was held."""
        values = [*self._held.values(), *(value for *_, value in self._early)]
        self._held.clear()
        self._early.clear()
        self.ready.clear()
        return values

    @property
    def held(self) -> tuple[Output, ...]:
        """What is held now."""
        return tuple(self._held)

    # -- its own

    def _outputs(self, number: int) -> list[Output]:
        part = self.parts.get(number)
        return [(number, port) for port in (part.ports if part is not None else (0,))]

    def _hold(self, output: Output, value: Value, source: int) -> None:
        if output in self._held:
            self.actions.append(LetGo(value))
            return
        self._held[output] = value
        if source not in (self.rank, CLIENT):
            self._from[output] = source

    def _made(self, number: int, began: float = 0.0, took: float = 0.0) -> None:
        """All outputs of a task are here, for the first time in this epoch."""
        task = self._tasks.get(number)
        if task is not None:
            if task.ran:
                return
            task.ran = True
            self.actions.append(Say(CLIENT, Done(self.job, self.epoch, ((number, began, took),))))
        outputs = self._outputs(number)
        for output in outputs:
            for rank in self._send(output):
                if task is not None and rank != CLIENT:
                    task.unheard.add((output, rank))
            self._arrived(output)
        if task is not None:
            self._settle(task)
        for output in outputs:
            self._let_go(output)

    def _send(self, output: Output) -> tuple[int, ...]:
        """Give an output to all who are to have it; return these."""
        ranks = self._go.routes.get(output, ())
        if output in self._go.results:
            ranks = (*ranks, CLIENT)
        if ranks:
            self._borrowers[output] = set(ranks)
        self.actions += [Give(rank, output, self._held[output]) for rank in ranks]
        return ranks

    def _arrived(self, output: Output) -> None:
        waiting = [n for n in self._users.get(output, ()) if output in self._tasks[n].missing]
        for number in waiting:
            self._tasks[number].missing.discard(output)
        self._begin(waiting)

    def _begin(self, numbers: Iterable[int]) -> None:
        if self._recalled:
            return
        for number in numbers:
            task = self._tasks[number]
            if not task.missing and not task.ran and number not in self.ready:
                self.ready.append(number)

    def _settle(self, task: _Task) -> None:
        """Let go of a task's inputs, once all that was made of them has arrived."""
        if not task.ran or task.unheard:
            return
        for output in task.part.whole:
            self._users.get(output, set()).discard(task.part.number)
            self._let_go(output)

    def _let_go(self, output: Output) -> None:
        if (
            self._recalled
            or output not in self._held
            or output in self._go.stays
            or self._users.get(output)
            or self._borrowers.get(output)
        ):
            return
        self.actions.append(LetGo(self._held.pop(output)))
        source = self._from.pop(output, None)
        if source is not None:
            self._freed.setdefault(source, []).append(output)
