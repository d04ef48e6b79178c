"""Does every program end with the right result, whatever is lost and whenever?

The coordinator and the workers' machines talk over queues that keep their order and nothing else;
chance decides what is heard next, who dies, and who comes back.
"""

import random
from collections import deque
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from flowos.flowlet.coordinating.coordinator import (
    Coordinator,
    Ended,
    GaveUp,
    Introduce,
    Job,
    Supply,
    Tell,
    Wire,
)
from flowos.flowlet.wire.messages import (
    CLIENT,
    Arrived,
    Done,
    Drop,
    Failed,
    Freed,
    Go,
    Got,
    Held,
    Part,
    Program,
    Ready,
    Recall,
    Result,
)
from flowos.flowlet.worker.machine import Give, LetGo, Say, WorkerMachine


class Thing:
    """A value: what it was made of, and whether it was let go."""

    def __init__(self, recipe: Any) -> None:
        self.recipe, self.gone = recipe, False


def job_of(dice: random.Random, tasks: int, ranks: int, waves: int) -> Job:
    inputs: list[tuple[tuple[int, int], ...]] = []
    outputs = [dice.choice((1, 1, 1, 2)) for _ in range(tasks)]
    sources = {n for n in range(tasks) if n == 0 or dice.random() < 0.25}
    for number in range(tasks):
        earlier = [
            (m, p) for m in range(number) for p in range(outputs[m] if m not in sources else 1)
        ]
        some = (
            [] if number in sources else [dice.choice(earlier) for _ in range(dice.randint(0, 3))]
        )
        inputs.append(tuple(some))
    wave = [0] * tasks
    for number in range(tasks):
        least = max((wave[o[0]] for o in inputs[number]), default=0)
        wave[number] = min(waves - 1, least + (dice.random() < 0.3))
    for number in sources:
        outputs[number] = 1
    ranks_of = [dice.randrange(ranks) for _ in range(tasks)]
    deliveries: dict[tuple[tuple[int, int], int], int] = {}
    for number in range(tasks):
        for output in inputs[number]:
            if ranks_of[output[0]] != ranks_of[number]:
                wave_sent = dice.randint(wave[output[0]], wave[number])
                key = (output, ranks_of[number])
                deliveries[key] = min(deliveries.get(key, wave_sent), wave_sent)
    all_outputs = [(n, p) for n in range(tasks) if n not in sources for p in range(outputs[n])]
    wanted = frozenset(dice.sample(all_outputs, min(len(all_outputs), 3)))
    return Job(
        7,
        inputs,
        outputs,
        ranks_of,
        frozenset(sources),
        wanted,
        wave,
        {rank: dice.choice("ab") if rank > 1 else "a" for rank in range(ranks)},
        deliveries,
    )


def recipe(job: Job, output: tuple[int, int]) -> Any:
    number, port = output
    return number, port, tuple(recipe(job, o) for o in job.inputs[number])


class Net:
    """Everybody, and what is on its way between them."""

    def __init__(self, job: Job, dice: random.Random, losses: int) -> None:
        self.job, self.dice, self.losses = job, dice, losses
        self.coordinator = Coordinator(job)
        self.now = 0.0
        self.ways: dict[tuple[int, int], deque[Any]] = {}
        self.workers: dict[int, WorkerMachine | None] = {}
        self.life: dict[int, int] = {}
        self.results: dict[tuple[int, int], Any] = {}
        self.end: Any = None
        self.wired: list[int] = []
        self.away: dict[int, float] = {}
        self.ran: dict[int, int] = {}
        self.busy: set[int] = set()  # ranks whose task is under way
        for rank in job.kinds:
            self.come(rank)

    def come(self, rank: int) -> None:
        self.workers[rank] = WorkerMachine(rank, 7)
        self.life[rank] = self.life.get(rank, 0) + 1
        self.away.pop(rank, None)
        self.busy.discard(rank)
        self.coordinator.ready(Ready(rank, "a", 1, "m", "", ""), self.now)
        self.carry_out()

    def die(self, rank: int, returns: bool) -> None:
        for way in [w for w in self.ways if rank in w]:
            if way[0] == rank and way[1] == CLIENT:
                # What it had said may still be heard, or not; then the end is.
                keep = self.dice.randint(0, len(self.ways[way]))
                for message in list(self.ways[way])[:keep]:
                    self.hear(rank, CLIENT, message)
            del self.ways[way]
        self.workers[rank] = None
        self.life[rank] += 1
        self.away[rank] = self.now + (0.5 if returns else 1e9)
        self.coordinator.gone(rank, self.now)
        self.carry_out()

    def post(self, source: int, target: int, message: Any) -> None:
        if target in self.away or source in self.away:
            return
        self.ways.setdefault((source, target), deque()).append(message)

    def carry_out(self) -> None:
        for action in self.coordinator.take():
            match action:
                case Tell(rank, message):
                    self.post(CLIENT, rank, message)
                case Introduce(ranks):
                    for rank in ranks:
                        parts = tuple(
                            Part(n, str(n), self.job.inputs[n], self.job.outputs[n], "run", "", b"")
                            for n in self.coordinator.introduced(rank)
                        )
                        self.post(CLIENT, rank, Program(7, parts, {}, {}, "a"))
                case Supply(rank, epoch, task):
                    self.post(CLIENT, rank, ("feed", epoch, task))
                case Wire(epoch, wires):
                    self.wires = {(a, b) for a, targets in wires for b in targets}
                    self.wired.append(epoch)
                case Ended() | GaveUp():
                    self.end = action

    def hear(self, source: int, target: int, message: Any) -> None:
        if target == CLIENT:
            match message:
                case Done():
                    self.coordinator.done_at(source, message)
                case Arrived():
                    self.coordinator.arrived(source, message)
                case Held():
                    self.coordinator.held(source, message)
                case Failed():
                    self.coordinator.failed(message)
                case Result():
                    self.results[message.output] = message.packet
                    self.coordinator.result(message)
                    freed = Freed(7, message.epoch, CLIENT, (message.output,))
                    self.post(CLIENT, source, freed)
            self.carry_out()
            return
        worker = self.workers[target]
        if isinstance(message, Program):
            assert worker is not None
            worker.introduced(message)
            return
        if worker is None:
            return
        match message:
            case Go():
                worker.go(message)
            case Recall(_, epoch):
                worker.recall(epoch)
            case ("feed", epoch, task):
                worker.fed(epoch, task, Thing((task, 0, ())))
            case ("sent", epoch, output, thing):
                worker.sent(source, epoch, output, Thing(thing.recipe))
            case Got(_, epoch, rank, outputs):
                worker.got(rank, epoch, outputs)
            case Freed(_, epoch, rank, outputs):
                worker.freed(rank, epoch, outputs)
            case Drop():
                for thing in worker.dropped():
                    assert not thing.gone
                    thing.gone = True
        self.act(target)

    def act(self, rank: int) -> None:
        worker = self.workers[rank]
        assert worker is not None
        for action in worker.take():
            match action:
                case Say(to, message):
                    self.post(rank, to, message)
                case Give(to, output, thing):
                    assert not thing.gone, "what was let go is sent"
                    if to == CLIENT:
                        self.post(rank, to, Result(7, worker.epoch, output, thing.recipe))
                    elif (rank, to) not in self.wires:
                        worker.failed(worker.epoch, output[0], "circuit", "there is none")
                        self.act(rank)
                    else:
                        self.post(rank, to, ("sent", worker.epoch, output, thing))
                case LetGo(thing):
                    assert not thing.gone, "let go twice"
                    thing.gone = True

    def run_one(self, rank: int) -> bool:
        worker = self.workers[rank]
        found = worker.next_task() if worker is not None else None
        if worker is None or found is None:
            return False
        part, things = found
        assert not any(thing.gone for thing in things), "an input was let go before it was read"
        self.ran[part.number] = self.ran.get(part.number, 0) + 1
        made = tuple(thing.recipe for thing in things)
        values = [Thing((part.number, port, made)) for port in range(part.outputs)]
        epoch = worker.epoch
        self.busy.add(rank)
        for _ in range(self.dice.choice((0, 0, 1, 5, 40))):  # much may happen meanwhile
            self.step()
            if self.workers[rank] is not worker:
                return True
        self.busy.discard(rank)
        worker.ran(epoch, part.number, values, 0.0, 0.0)
        self.act(rank)
        return True

    def step(self) -> bool:
        ways = [way for way, queue in self.ways.items() if queue]
        choices: list[Any] = [("way", way) for way in ways]
        choices += [
            ("run", rank)
            for rank, w in self.workers.items()
            if w is not None and w.ready and rank not in self.busy
        ]
        choices += [("wired", epoch) for epoch in self.wired[-1:]]
        if self.losses and self.dice.random() < 0.05:
            alive = [r for r in self.job.kinds if r not in self.away]
            others = {self.job.kinds[r] for r in alive}
            rank = self.dice.choice(alive) if alive else -1
            if rank >= 0 and others:
                kind = [r for r in alive if self.job.kinds[r] == self.job.kinds[rank]]
                self.losses -= 1
                self.die(rank, returns=len(kind) == 1 or self.dice.random() < 0.5)
                return True
        if not choices:
            if not self.away:
                return bool(self.busy)
            self.now += 1.0
            for rank, at in list(self.away.items()):
                if at <= self.now:
                    self.come(rank)
            self.coordinator.tick(self.now)
            self.carry_out()
            return self.now < 5000
        what, which = self.dice.choice(choices)
        if what == "way":
            self.hear(which[0], which[1], self.ways[which].popleft())
        elif what == "run":
            self.run_one(which)
        else:
            self.wired.pop()
            self.coordinator.wired(which)
            self.carry_out()
        return True


def played(seed: int, tasks: int, ranks: int, waves: int, losses: int) -> Net:
    dice = random.Random(seed)
    net = Net(job_of(dice, tasks, ranks, waves), dice, losses)
    for _ in range(20_000):
        if not net.step():
            break
    return net


def check(net: Net) -> None:
    assert isinstance(net.end, Ended), (net.end, net.coordinator.epoch)
    for output in net.job.wanted:
        assert net.results[output] == recipe(net.job, output)
    for worker in net.workers.values():
        assert worker is None or worker.held == ()


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 10**9), st.integers(1, 14), st.integers(1, 5), st.integers(1, 3))
def test_every_program_ends_with_its_result_and_nothing_is_kept(seed, tasks, ranks, waves):
    net = played(seed, tasks, ranks, waves, 0)
    check(net)
    assert all(times == 1 for times in net.ran.values())


@settings(max_examples=600, deadline=None)
@given(st.integers(0, 10**9), st.integers(2, 14), st.integers(1, 5), st.integers(1, 3))
def test_every_program_ends_with_its_result_whoever_is_lost(seed, tasks, ranks, waves):
    check(played(seed, tasks, ranks, waves, 3))
