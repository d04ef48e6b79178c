"""What is each worker told, and what is done again when one is lost? Decided without any I/O.

A job goes through epochs. In each, every rank is told which of its tasks to run and to whom to
send what, and nobody asks again until all of it is done. When a worker is lost, all others are
recalled: they say what they hold, and the next epoch runs just what is missing, back to the
sources if need be (lineage, as in Zaharia et al., "Resilient Distributed Datasets", NSDI 2012).
A worker that does not come back within a time leaves its tasks to the other ranks of its kind.

A program that needs more circuits at once than there can be is run in waves: an epoch each, and
between two of them the circuits are laid anew.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeAlias

from flowos.flowlet.wire.messages import (
    CLIENT,
    Arrived,
    Done,
    Drop,
    Failed,
    Go,
    Held,
    Output,
    Ready,
    Recall,
    Result,
)

TRIES_MAX: Final = 3  # times that a task may take its worker with it
RETURN_SECONDS: Final = 3.0  # for which a lost worker's tasks wait for it

Wires: TypeAlias = frozenset[tuple[int, tuple[int, ...]]]  # rank, ranks that get the same of it


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be done, by task numbers that respect the flows.

    Attributes:
        inputs: Task -> the outputs that go into it.
        outputs: Task -> how many it has.
        ranks: Task -> the rank that runs it; CLIENT for those that are no rank's affair.
        sources: Tasks whose output the user's process has; each is given to its rank.
        wanted: Outputs that the user's process is to have.
        waves: Task -> in which wave it runs.
        deliveries: Output and rank -> in which wave it is sent there, where that is not just the
            wave of the first that reads it there: it is kept until then.
        kinds: Rank -> its role: its tasks can go to others of that.
        streams: Task -> the outputs that it reads in chunks, which are never held; these are not
            among its inputs.
        groups: Task -> all that have to run together with it, itself among them, for they are
            joined by streams.
    """

    number: int
    inputs: Sequence[tuple[Output, ...]]
    outputs: Sequence[int]
    ranks: Sequence[int]
    sources: frozenset[int]
    wanted: frozenset[Output]
    waves: Sequence[int]
    kinds: Mapping[int, str]
    deliveries: Mapping[tuple[Output, int], int] = field(default_factory=dict)
    streams: Mapping[int, tuple[Output, ...]] = field(default_factory=dict)
    groups: Mapping[int, frozenset[int]] = field(default_factory=dict)


class Tell(NamedTuple):
    """A message to a rank."""

    rank: int
    message: object


class Introduce(NamedTuple):
    """Give a rank its program: all tasks that are its own now, and all peers."""

    ranks: tuple[int, ...]


class Supply(NamedTuple):
    """Send a source's data to a rank."""

    rank: int
    epoch: int
    task: int


class Wire(NamedTuple):
    """See to it that these circuits are up, and then call `wired`."""

    epoch: int
    wires: Wires


class Ended(NamedTuple):
    """All that was wanted is here."""


class GaveUp(NamedTuple):
    """A task cannot be done.

    Attributes:
        task: Which; -1 = it is nobody's fault.
        kind: As in `Failed`; killed | lost.
    """

    task: int
    kind: str
    message: str
    traceback: str = ""


Action: TypeAlias = Tell | Introduce | Supply | Wire | Ended | GaveUp


@dataclass(slots=True)
class _Plan:
    """One epoch, worked out."""

    run: dict[int, list[int]] = field(default_factory=dict)  # rank -> tasks
    fed: dict[int, list[int]] = field(default_factory=dict)
    routes: dict[int, dict[Output, set[int]]] = field(default_factory=dict)
    results: dict[int, set[Output]] = field(default_factory=dict)
    stays: dict[int, set[Output]] = field(default_factory=dict)
    pending: set[int] = field(default_factory=set)
    coming: set[tuple[Output, int]] = field(default_factory=set)  # to be kept for a later wave


class Coordinator:
    """One job, from the first worker to the last result."""

    def __init__(self, job: Job, *, reassign: bool = True) -> None:
        """Begin with no worker there.

        Args:
            job: What is to be done.
            reassign: Whether a lost worker's tasks may go to others of its kind.
        """
        self.job = job
        self.ranks = list(job.ranks)
        self.epoch = 0
        self.actions: list[Action] = []
        self.ended = False
        self.done: set[int] = set()
        self.results: set[Output] = set()
        self._reassign = reassign
        self._wave = 0
        self._last_wave = max(job.waves, default=0)
        self._here: dict[int, Ready] = {}
        self._gone: dict[int, float] = {}  # rank -> since when
        self._dead: set[int] = set()
        self._tries: dict[int, int] = {}
        self._recalling: set[int] | None = None  # who has not answered yet; None = no recall
        self._have: dict[int, set[Output]] = {}  # rank -> outputs, as far as known
        self._plan = _Plan()
        self._wiring = False
        self._begun = False
        self._readers: dict[Output, list[int]] = {}
        for number, inputs in enumerate(job.inputs):
            for output in inputs:
                self._readers.setdefault(output, []).append(number)

    # -- what is heard

    def ready(self, ready: Ready, now: float) -> None:
        """A worker is there, for the first time or again."""
        if self.ended or ready.rank not in self.job.kinds:
            return
        before = self._here.get(ready.rank)
        self._here[ready.rank] = ready
        self._gone.pop(ready.rank, None)
        self._dead.discard(ready.rank)
        self._have[ready.rank] = set()
        if (
            ready.slain is not None
            and ready.slain[0] == self.job.number
            and self._slain(ready.slain[1], ready.slain[2])
        ):
            return
        if not self._begun:
            if len(self._here) == len(self.job.kinds):
                self._begun = True
                self.actions.append(Introduce(tuple(sorted(self._here))))
                self._next_epoch()
            return
        if before is not None:
            self.gone(ready.rank, now, back=True)
        self.actions.append(Introduce(tuple(sorted(self._here))))
        self._recall()

    def gone(self, rank: int, now: float, *, back: bool = False) -> None:
        """A worker has died, or cannot be reached."""
        if self.ended or rank not in self._here:
            return
        if not back:
            del self._here[rank]
            self._gone[rank] = now
        self._have.pop(rank, None)
        if not self._begun:
            return
        if self._recalling is not None:
            self._recalling.discard(rank)
        if not back:
            self._recall()

    def tick(self, now: float) -> None:
        """Give the tasks of whoever has been gone for long to others."""
        if self.ended or not self._begun:
            return
        for rank in [r for r, since in self._gone.items() if now - since >= RETURN_SECONDS]:
            if not self._reassign:
                continue
            kind = self.job.kinds[rank]
            others = [r for r in sorted(self._here) if self.job.kinds[r] == kind]
            if not others:
                continue
            del self._gone[rank]
            self._dead.add(rank)
            for turn, number in enumerate(n for n, r in enumerate(self.ranks) if r == rank):
                self.ranks[number] = others[turn % len(others)]
            self.actions.append(Introduce(tuple(sorted(self._here))))
            self._recall()

    def wake_at(self) -> float | None:
        """Return when `tick` has something to do."""
        return min(self._gone.values()) + RETURN_SECONDS if self._gone else None

    def done_at(self, rank: int, done: Done) -> None:
        """Tasks have ended."""
        if self.ended:
            return
        for number, _, _ in done.tasks:
            self.done.add(number)  # of an earlier epoch, too: what it made is held, or was needed
            if done.epoch == self.epoch:
                self._plan.pending.discard(number)
        self._go_on()

    def arrived(self, rank: int, arrived: Arrived) -> None:
        """Outputs have come to where a later wave needs them."""
        if self.ended or arrived.epoch != self.epoch:
            return
        for output in arrived.outputs:
            self._plan.coming.discard((output, rank))
        self._go_on()

    def result(self, result: Result) -> None:
        """An output that the user's process wants has come."""
        if self.ended or result.output not in self.job.wanted:
            return
        self.results.add(result.output)
        self._go_on()

    def failed(self, failed: Failed) -> None:
        """A task cannot be done: nothing else will be.

        Only that a circuit is missing may be late news: of an epoch that had it.
        """
        if self.ended or (failed.kind == "circuit" and failed.epoch != self.epoch):
            return
        self._give_up(GaveUp(failed.task, failed.kind, failed.message, failed.traceback))

    def held(self, rank: int, held: Held) -> None:
        """A worker that was recalled says what it has."""
        if self.ended or held.epoch != self.epoch or self._recalling is None:
            return
        self._have[rank] = set(held.outputs)
        self._recalling.discard(rank)
        self._recalled()

    def wired(self, epoch: int) -> None:
        """The circuits that this epoch needs are up."""
        if self.ended or epoch != self.epoch or not self._wiring:
            return
        self._wiring = False
        self._start()

    def abandon(self, message: str) -> None:
        """Give up for a reason of the caller's."""
        if not self.ended:
            self._give_up(GaveUp(-1, "lost", message))

    def take(self) -> list[Action]:
        """Return what is to be done since the last call."""
        actions, self.actions = self.actions, []
        return actions

    def introduced(self, rank: int) -> list[int]:
        """Return the tasks that are a rank's own now."""
        return [n for n, r in enumerate(self.ranks) if r == rank and n not in self.job.sources]

    @property
    def present(self) -> Mapping[int, Ready]:
        """Who is there."""
        return self._here

    @property
    def missing(self) -> list[int]:
        """Ranks that are not there."""
        return [r for r in self.job.kinds if r not in self._here and r not in self._dead]

    # -- its own

    def _slain(self, number: int, signal: int) -> bool:
        """Note that a task took its worker with it; return whether that was once too often."""
        tries = self._tries[number] = self._tries.get(number, 0) + 1
        if tries >= TRIES_MAX:
            self._give_up(
                GaveUp(number, "killed", f"it ended its worker {tries} times, by signal {signal}")
            )
        return tries >= TRIES_MAX

    def _recall(self) -> None:
        """Ask everybody who is there what they hold; what was to be done is void."""
        self.epoch += 1
        self._wiring = False
        self._recalling = set(self._here)
        for rank in self._here:
            self.actions.append(Tell(rank, Recall(self.job.number, self.epoch)))
        self._recalled()

    def _recalled(self) -> None:
        if self._recalling or any(rank in self._gone for rank in self._needed_ranks()):
            return
        self._recalling = None
        self._next_epoch()

    def _needed_ranks(self) -> set[int]:
        return {self.ranks[n] for n in range(len(self.ranks)) if self.ranks[n] != CLIENT}

    def _next_epoch(self) -> None:
        self.epoch += 1
        self._plan = self._planned()
        wires = (
            frozenset(
                (rank, tuple(sorted(to)))
                for rank, routes in self._plan.routes.items()
                for to in routes.values()
            )
            | self._stream_wires()
        )
        self._wiring = True
        self.actions.append(Wire(self.epoch, wires))

    def _stream_wires(self) -> Wires:
        """Return the circuits that chunks of this epoch go over."""
        found: dict[Output, set[int]] = {}
        for rank, numbers in self._plan.run.items():
            for number in numbers:
                for output in self.job.streams.get(number, ()):
                    if self.ranks[output[0]] != rank:
                        found.setdefault(output, set()).add(rank)
        return frozenset((self.ranks[output[0]], tuple(sorted(to))) for output, to in found.items())

    def _start(self) -> None:
        plan, number = self._plan, self.job.number
        for rank in sorted(self._here):
            go = Go(
                number,
                self.epoch,
                tuple(plan.run.get(rank, ())),
                {o: tuple(sorted(to)) for o, to in plan.routes.get(rank, {}).items()},
                frozenset(plan.results.get(rank, ())),
                frozenset(plan.stays.get(rank, ())),
                frozenset(plan.fed.get(rank, ())),
            )
            self.actions.append(Tell(rank, go))
            self.actions += [Supply(rank, self.epoch, t) for t in plan.fed.get(rank, ())]
        self._go_on()

    def _go_on(self) -> None:
        """End, or begin the next wave, when all of this one is done."""
        plan = self._plan
        if self.ended or self._wiring or self._recalling is not None or plan.pending or plan.coming:
            return
        expected = {output for outputs in plan.results.values() for output in outputs}
        if not expected <= self.results:
            return
        if self._wave < self._last_wave:
            self._wave += 1
            for rank in self._have:
                self._have[rank] = set(plan.stays.get(rank, ()))
            self._next_epoch()
            return
        if self.job.wanted <= self.results:
            self.ended = True
            self._drop()
            self.actions.append(Ended())

    def _give_up(self, why: GaveUp) -> None:
        self.ended = True
        self._drop()
        self.actions.append(why)

    def _drop(self) -> None:
        self.actions += [Tell(rank, Drop(self.job.number)) for rank in self._here]

    def _planned(self) -> _Plan:
        """Work out who runs and sends what in this wave, from what is held where."""
        job, plan = self.job, _Plan()
        run: set[int] = set()
        todo = [n for n in range(len(job.inputs)) if self._is_due(n)]
        for output in sorted(job.wanted - self.results):
            number = output[0]
            if job.waves[number] > self._wave:
                continue
            if output not in self._have.get(self.ranks[number], ()):
                todo.append(number)
            plan.results.setdefault(self.ranks[number], set()).add(output)
        later: set[Output] = {
            output
            for output, readers in self._readers.items()
            if any(job.waves[n] > self._wave and self.ranks[n] != CLIENT for n in readers)
        }
        for output in later:  # what a later wave reads, and was lost
            number = output[0]
            if (
                job.waves[number] <= self._wave
                and number in self.done
                and output not in self._have.get(self.ranks[number], ())
            ):
                todo.append(number)
        for (output, rank), wave in job.deliveries.items():
            if wave > self._wave or not self._is_read_later(output, rank):
                continue
            plan.stays.setdefault(rank, set()).add(output)
            if output in self._have.get(rank, ()):
                continue
            maker = self.ranks[output[0]]
            if output not in self._have.get(maker, ()):
                todo.append(output[0])
            plan.routes.setdefault(maker, {}).setdefault(output, set()).add(rank)
            plan.coming.add((output, rank))
        while todo:
            number = todo.pop()
            if number in run:
                continue
            run.add(number)
            todo += self.job.groups.get(number, ())
            here = self._have.get(self.ranks[number], set())
            for output in job.inputs[number]:
                if output in here:
                    continue
                maker = self.ranks[output[0]]
                if output not in self._have.get(maker, ()):
                    todo.append(output[0])
                if maker != self.ranks[number]:
                    plan.routes.setdefault(maker, {}).setdefault(output, set()).add(
                        self.ranks[number]
                    )
        for number in sorted(run):
            rank = self.ranks[number]
            if number in job.sources:
                plan.fed.setdefault(rank, []).append(number)
            else:
                plan.run.setdefault(rank, []).append(number)
                plan.pending.add(number)
                self.done.discard(number)
        for output in later:
            number = output[0]
            rank = self.ranks[number]
            if number in run or output in self._have.get(rank, ()):
                plan.stays.setdefault(rank, set()).add(output)
        return plan

    def _is_read_later(self, output: Output, rank: int) -> bool:
        """Whether a later wave reads an output at a rank where it is not made."""
        return self.ranks[output[0]] != rank and any(
            self.ranks[n] == rank and self.job.waves[n] > self._wave and n not in self.done
            for n in self._readers.get(output, ())
        )

    def _is_due(self, number: int) -> bool:
        """Whether a task is to run in this wave, whatever else has to for it."""
        return (
            self.job.waves[number] <= self._wave
            and number not in self.done
            and number not in self.job.sources
            and self.ranks[number] != CLIENT
        )
