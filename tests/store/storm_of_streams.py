"""One subscription through thousands of broken streams, in virtual time.

    PYTHONPATH=.:store python -m tests.store.storm_of_streams 4711

`run(seed)` lets a fake etcd, which lives on a memory store's history, fragment, batch, cancel,
compact, fall silent, answer progress out of date, lose streams in the middle of a revision, and
give its address to another store. The real `Subscription` follows it. After every message:

- what was delivered is the truth, in order, nothing torn, lost or doubled;
- `Progress(r)` comes when all up to r was delivered, and not before;
- it ends in `Lost` only where that is so.

It returns a digest of everything that happened: the same seed, the same digest.
"""

import hashlib
import random
import sys
from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any, Final

from flowos.model.transaction import (
    Change,
    Changes,
    Delete,
    Lost,
    Progress,
    Put,
    Transaction,
    WatchMessage,
)
from flowos_store.memory import MemoryStore
from flowos_store.subscription import Create, Do, Newest, Span, Subscription, Then
from flowos_store.wire import kv, rpc

FAMILIES: Final = ("placement/", "slice/", "order/")
STEPS: Final = 400
CLOSED_STEPS: Final = 4000  # in which all must have been delivered, once the storm is over
SILENT_SECONDS: Final = 3.0


class StormBroken(AssertionError):
    """The subscription said what is not so."""


class Clock:
    """Virtual seconds."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now


class Truth:
    """A store and the whole of its history, also what it has compacted away."""

    def __init__(self, clock: Clock, cluster: int) -> None:
        self.cluster = cluster
        self.store = MemoryStore(clock)
        self.history: list[Change] = []
        self.store.watch(("",), after=self.store.revision, deliver=self._note)

    def _note(self, message: WatchMessage) -> None:
        if isinstance(message, Changes):
            self.history.extend(message.changes)

    def write(self, dice: random.Random) -> None:
        """Put and delete some keys of some families, at one revision."""
        keys = {f"{dice.choice(FAMILIES)}{dice.randrange(6)}" for _ in range(dice.randint(1, 5))}
        operations = [
            Delete(key) if dice.random() < 0.3 else Put(key, b"%d" % dice.randrange(1000))
            for key in sorted(keys)
        ]
        self.store.commit([Transaction((), tuple(operations))])

    def since(self, prefix: str, start: int) -> list[list[Change]]:
        """Return a prefix's changes from a revision on, by revision."""
        found = (c for c in self.history if c.modified >= start and c.key.startswith(prefix))
        return [list(group) for _, group in groupby(found, key=attrgetter("modified"))]


class FakeWatch:
    """One watch of a stream: what is still to be sent."""

    def __init__(self, number: int, prefix: str, start: int) -> None:
        self.number, self.prefix = number, prefix
        self.next = start  # the first revision that was not sent
        self.announced = False
        self.start = start
        self.parts: list[Any] = []  # fragments that are still to be sent
        self.held: list[Any] = []  # events that wait until `created` is sent


class FakeStream:
    """What a server does with one stream."""

    def __init__(self, truth: Truth, dice: random.Random, opened_at: float) -> None:
        self.truth, self.dice = truth, dice
        self.watches: list[FakeWatch] = []
        self.asked = 0  # progress requests not looked at yet
        self.hangs = dice.random() < 0.08
        self.opened_at = opened_at
        self.behind = 0  # a member may lag: it knows nothing above this; 0 = it does not

    def create(self, create: Create) -> None:
        prefix = create.span.first[1:].decode()
        self.watches.append(FakeWatch(create.number, prefix, create.start))

    @property
    def revision(self) -> int:
        """How far this member is."""
        return self.behind or self.truth.store.revision

    def say(self) -> Any | None:
        """Return the next response, or None where it has nothing to say now."""
        if self.hangs:
            return None
        for watch in self.watches:
            if watch.parts:  # nothing comes between the fragments of one response
                return self._part(watch)
        if waiting := [w for w in self.watches if not w.announced]:
            return self._announce(waiting)
        for watch in self.watches:
            if watch.held:
                events, watch.held = watch.held, []
                return self._response(watch.number, events=events)
        watch = self.dice.choice(self.watches)
        if watch.next < self.truth.store.oldest():
            oldest = self.truth.store.oldest()
            return self._response(watch.number, canceled=True, compact_revision=oldest)
        if self._pending(watch) and self.dice.random() < 0.7:
            return self._events(watch)
        return self._progress()

    def _announce(self, waiting: list[FakeWatch]) -> Any | None:
        """Say that a watch is created; its events wait for that, but not progress answers."""
        if self.dice.random() < 0.5:
            waiting[0].announced = True
            return self._response(waiting[0].number, created=True)
        for watch in waiting:
            if (groups := self._pending(watch)) and watch.next >= self.truth.store.oldest():
                watch.held += [event(change) for group in groups for change in group]
                watch.next = groups[-1][0].modified + 1
        return self._progress()

    def _progress(self) -> Any | None:
        """Answer a request: dropped where some watch is behind, or starts above what there is."""
        if not self.asked:
            return None
        self.asked -= 1
        synced = not any(self._pending(w) for w in self.watches)
        if synced and all(w.start <= self.revision for w in self.watches):
            return self._response(-1)
        return None

    def _pending(self, watch: FakeWatch) -> list[list[Change]]:
        found = self.truth.since(watch.prefix, watch.next)
        return [group for group in found if group[0].modified <= self.revision]

    def _events(self, watch: FakeWatch) -> Any:
        groups = self._pending(watch)[: self.dice.randint(1, 4)]
        watch.next = groups[-1][0].modified + 1
        events = [event(change) for group in groups for change in group]
        if len(events) > 1 and self.dice.random() < 0.5:
            cuts = sorted({self.dice.randrange(1, len(events)) for _ in range(2)})
            watch.parts = [events[a:b] for a, b in zip([0, *cuts], [*cuts, None], strict=True)]
            return self._part(watch)
        return self._response(watch.number, events=events)

    def _part(self, watch: FakeWatch) -> Any:
        events = watch.parts.pop(0)
        return self._response(watch.number, events=events, fragment=bool(watch.parts))

    def _response(self, number: int, **fields: Any) -> Any:
        header = rpc.ResponseHeader(cluster_id=self.truth.cluster, revision=self.revision)
        return rpc.WatchResponse(header=header, watch_id=number, **fields)


def event(change: Change) -> Any:
    """Return a change as etcd says it."""
    entry = kv.KeyValue(
        key=b"/" + change.key.encode(),
        value=change.value or b"",
        create_revision=change.created,
        mod_revision=change.modified,
    )
    return kv.Event(kv=entry, type=1 if change.value is None else 0)


class Storm:
    """One life of a subscription."""

    def __init__(self, seed: int, subscription: type[Subscription] = Subscription) -> None:
        self.dice = random.Random(seed)
        self.clock = Clock()
        self.truth = Truth(self.clock, 1)
        for _ in range(self.dice.randrange(6)):
            self.truth.write(self.dice)
        self.after = self.truth.store.revision
        self.prefixes = FAMILIES[: self.dice.randint(1, len(FAMILIES))]
        self.subscription = subscription(
            [Span(b"/" + p.encode(), b"/" + p[:-1].encode() + b"0") for p in self.prefixes],
            root_length=1,
            after=self.after,
            silent_seconds=SILENT_SECONDS,
            jitter=random.Random(seed),
            cluster=self.truth.cluster,
        )
        self.stream: FakeStream | None = None
        self.reopen_at = 0.0
        self.told: dict[str, list[Change]] = {prefix: [] for prefix in self.prefixes}
        self.said: list[str] = []
        self.progress = self.after
        self.asked_for = 0  # progress that was wanted and did not come yet
        self.over = False
        self.replaced = False  # another store is at the address
        self.calm = False

    def run(self) -> str:
        """Live it to its end; return its digest."""
        for _ in range(STEPS):
            self.step()
            if self.over:
                return self.digest()
        self.calm = True
        for _ in range(CLOSED_STEPS):
            self.step()
            if self.over or self.progress == self.truth.store.revision:
                return self.digest()
        raise StormBroken(f"in calm weather it does not get beyond {self.progress}")

    def digest(self) -> str:
        return hashlib.sha256("\n".join(self.said).encode()).hexdigest()[:16]

    # -- one step

    def step(self) -> None:
        self.clock.now += self.dice.expovariate(20)
        dice = self.dice.random()
        if not self.calm:
            if dice < 0.25:
                self.truth.write(self.dice)
            elif dice < 0.26:
                oldest = self.truth.store.oldest()
                self.truth.store.compact(self.dice.randint(oldest, self.truth.store.revision))
            elif dice < 0.30 and self.stream:
                self.lose()
                return
            elif dice < 0.301 and not self.replaced:
                self.replaced = True
                self.truth = Truth(self.clock, self.dice.choice((1, 2)))
                while self.dice.random() < 0.9:
                    self.truth.write(self.dice)
                self.lose()
                return
            elif dice < 0.32 and self.stream:
                self.stream.hangs = not self.stream.hangs
        if dice > 0.9 or (self.calm and dice > 0.5):
            self.subscription.want_progress(self.clock.now)
        if self.stream is None:
            self.open()
        else:
            self.send(self.stream)
            self.hear()

    def open(self) -> None:
        if self.clock.now < self.reopen_at:
            self.clock.now = self.reopen_at
        if self.calm or self.dice.random() < 0.8:  # else there is no answer to be had now
            newest = Newest(self.truth.cluster, self.truth.store.revision)
            lost = self.subscription.stands(newest)
            if lost is not None:
                self.tell(lost)
                self.over = True
                return
        self.stream = FakeStream(self.truth, self.dice, self.clock.now)
        if self.calm:
            self.stream.hangs = False
        elif self.dice.random() < 0.1:
            self.stream.behind = max(1, self.truth.store.revision - self.dice.randrange(4))
        for create in self.subscription.opened(self.clock.now):
            self.stream.create(create)

    def lose(self) -> None:
        self.said.append("lost a stream")
        self.stream = None
        self.reopen_at = self.clock.now + self.subscription.broke()

    def send(self, stream: FakeStream) -> None:
        do = self.subscription.look(self.clock.now)
        if do is Do.ASK:
            stream.asked += 1
        elif do is Do.HANG_UP:
            if not stream.hangs and self.clock.now - stream.opened_at < SILENT_SECONDS:
                raise StormBroken("a stream that is not silent was left as silent")
            self.lose()

    def hear(self) -> None:
        if self.calm and self.stream:
            self.stream.behind = 0
        response = self.stream.say() if self.stream else None
        if response is None:
            wake_at = self.subscription.wake_at()
            if self.calm and wake_at is not None:
                self.clock.now = max(self.clock.now, min(wake_at, self.clock.now + 1.0))
            return
        heard = self.subscription.heard(response, self.clock.now)
        for message in heard.messages:
            self.tell(message)
        if heard.then is Then.OVER:
            self.over = True
        elif heard.then is not Then.GO_ON:
            self.lose()

    # -- what it says

    def tell(self, message: WatchMessage) -> None:
        self.said.append(repr(message))
        match message:
            case Changes(changes):
                self.changed(changes)
            case Progress(revision):
                self.progressed(revision)
            case Lost():
                self.lost(message)

    def changed(self, changes: Sequence[Change]) -> None:
        if self.replaced:
            if self.truth.cluster != 1:
                raise StormBroken("changes of another store were told as if they went on")
            return  # by its id it is the same; that it went back shows only while it is behind
        (prefix,) = {p for p in self.prefixes for c in changes if c.key.startswith(p)}
        told = self.told[prefix]
        last = told[-1].modified if told else self.after
        first, end = changes[0].modified, changes[-1].modified
        expected = [
            c for group in self.truth.since(prefix, last + 1) for c in group if c.modified <= end
        ]
        if first <= last or list(changes) != expected:
            raise StormBroken(f"{prefix}: told {list(changes)} after {last}, not {expected}")
        told.extend(changes)

    def progressed(self, revision: int) -> None:
        self.progress = max(self.progress, revision)
        for prefix, told in self.told.items():
            last = told[-1].modified if told else self.after
            missing = [g for g in self.truth.since(prefix, last + 1) if g[0].modified <= revision]
            if missing and not self.replaced:
                raise StormBroken(f"progress {revision}, but {prefix} was not told {missing[0]}")

    def lost(self, lost: Lost) -> None:
        known = max([self.progress, *(t[-1].modified for t in self.told.values() if t)])
        if lost.compacted:
            if lost.compacted > self.truth.store.oldest():
                raise StormBroken(f"{lost} but {self.truth.store.oldest()} is kept")
            return
        if not self.replaced:
            raise StormBroken(f"{lost.why}, without a cause")
        if "went back" in lost.why and self.truth.store.revision >= known:
            raise StormBroken(f"{lost.why}, but it stands at {self.truth.store.revision}")


def run(seed: int, subscription: type[Subscription] = Subscription) -> str:
    """Live through one storm; return its digest.

    Raises:
        StormBroken: The subscription said what is not so.
    """
    try:
        return Storm(seed, subscription).run()
    except StormBroken as broken:
        raise StormBroken(
            f"seed {seed}: {broken}; again: python -m tests.store.storm_of_streams {seed}"
        ) from None


def seeds(start: int, count: int) -> Iterator[tuple[int, str]]:
    """Yield each seed and its digest."""
    for seed in range(start, start + count):
        yield seed, run(seed)


if __name__ == "__main__":
    for number, found in seeds(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1):
        print(number, found)
