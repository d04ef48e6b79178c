"""Is there a serial order of all requests that explains what the store did? If not, why not?

`Recording` notes what each client asked and was told, and when. `Witness` notes what the store's
changes were. `explain` puts every request where it must have happened:

- each revision is what one request writes in the state just before it, with all compares of its
  committed members holding there, and a compare of each conflicted one broken;
- a request that was answered before another was sent comes before it;
- one without an answer happened once, at any later time, or never; one that was refused, never;
- what writes nothing (conflicts, reads) saw one state between its sending and its answer.

The revisions in answers are not believed: the order is found without them, and then must agree.
"""

import heapq
import itertools
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any, Final

from flowos.model.errors import OutcomeUnknown, StoreError
from flowos.model.protocols import CellStore
from flowos.model.transaction import (
    Change,
    Changes,
    Committed,
    Compare,
    Conflicted,
    Lost,
    Outcome,
    Progress,
    Put,
    Quiet,
    Reading,
    Seen,
    Transaction,
    Versioned,
    WatchMessage,
)
from flowos.verify.state import by_revision

EVERYTHING: Final = ("",)
PATIENCE_SECONDS: Final = 30.0
KEYS_SHOWN: Final = 6
ORDERS_MAX: Final = 200  # where several requests may have written a revision: orders that are tried


class Contradiction(AssertionError):
    """No serial order explains the history; says the first thing that none explains."""


# ------------------------------------------------------------------------------ what was asked


@dataclass(frozen=True, slots=True, eq=False)
class Write:
    """One request that may have written.

    Attributes:
        told: An outcome for each transaction, or the error; None = it was never answered.
    """

    name: str
    transactions: tuple[Transaction, ...]
    sent_at: float
    told: tuple[Outcome, ...] | StoreError | None
    answered_at: float

    @property
    def unknown(self) -> bool:
        """Whether it may or may not have happened, then or later."""
        return self.told is None or isinstance(self.told, OutcomeUnknown)

    @property
    def refused(self) -> bool:
        """Whether it was said that nothing was written."""
        return isinstance(self.told, StoreError) and not self.unknown

    @property
    def before(self) -> float:
        """The time before which it happened, if it did."""
        return inf if self.unknown else self.answered_at

    @property
    def may_write(self) -> bool:
        """Whether some revision can be its own."""
        told = self.told if isinstance(self.told, tuple) else ()
        return self.unknown or any(isinstance(outcome, Committed) for outcome in told)

    @property
    def must_write(self) -> bool:
        """Whether some revision has to be its own."""
        return isinstance(self.told, tuple) and any(
            isinstance(outcome, Committed) and any(isinstance(op, Put) for op in t.operations)
            for t, outcome in zip(self.transactions, self.told, strict=True)
        )

    def __str__(self) -> str:
        asked = " and ".join(_said(transaction) for transaction in self.transactions)
        return f"{self.name} ({asked})"


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """One answered reading."""

    name: str
    prefixes: tuple[str, ...]
    at: int
    sent_at: float
    reading: Reading
    answered_at: float

    @property
    def before(self) -> float:
        """The time before which it happened."""
        return self.answered_at

    def __str__(self) -> str:
        where = f" at {self.at}" if self.at else ""
        return f"{self.name} (read of {', '.join(map(repr, self.prefixes))}{where})"


def _said(transaction: Transaction) -> str:
    writes = [
        ("put " if isinstance(op, Put) else "delete ") + op.key for op in transaction.operations
    ]
    relies = [
        f"{c.key} of {c.revision}" if isinstance(c, Seen) else f"{c.prefix}* quiet since {c.since}"
        for c in transaction.compares
    ]
    return f"{_few(writes) or 'nothing'}{' if ' if relies else ''}{_few(relies)}"


def _few(words: Sequence[str]) -> str:
    more = f" and {len(words) - KEYS_SHOWN} more" if len(words) > KEYS_SHOWN else ""
    return ", ".join(words[:KEYS_SHOWN]) + more


class Recording:
    """What all clients of one cell asked, in one time; any thread may add to it."""

    def __init__(self) -> None:
        self.writes: list[Write] = []
        self.looks: list[Look] = []
        self._ticks = itertools.count(1)
        self._lock = threading.Lock()

    def of(self, store: Any, client: str) -> "Recorder":
        """Return a store that passes everything on, and notes it for a client."""
        return Recorder(store, self, client)

    def tick(self) -> float:
        """Return a moment later than all before."""
        with self._lock:
            return float(next(self._ticks))

    def note(
        self,
        transactions: Sequence[Transaction],
        sent_at: float,
        told: Sequence[Outcome] | StoreError | None,
        answered_at: float,
        client: str = "request",
    ) -> None:
        """Note a request that may write; None = there was no answer, and will be none."""
        outcome = tuple(told) if isinstance(told, Sequence) else told
        with self._lock:
            name = f"{client}#{len(self.writes) + 1}"
            self.writes.append(Write(name, tuple(transactions), sent_at, outcome, answered_at))

    def note_look(
        self, client: str, prefixes: Sequence[str], at: int, sent_at: float, reading: Reading
    ) -> None:
        """Note a reading that was just answered."""
        answered_at = self.tick()
        with self._lock:
            name = f"{client}?{len(self.looks) + 1}"
            self.looks.append(Look(name, tuple(prefixes), at, sent_at, reading, answered_at))


class Recorder:
    """A client's store: any `CellStore`, with all its requests on record."""

    def __init__(self, inner: Any, recording: Recording, client: str) -> None:
        self.inner = inner
        self.recording = recording
        self.client = client

    def commit(
        self, transactions: Sequence[Transaction], *, timeout_seconds: float = 5.0
    ) -> list[Outcome]:
        sent_at = self.recording.tick()
        told: Sequence[Outcome] | StoreError | None = None
        try:
            outcomes: list[Outcome] = self.inner.commit(
                transactions, timeout_seconds=timeout_seconds
            )
            told = outcomes
            return outcomes
        except StoreError as error:
            told = error
            raise
        finally:  # a bug, or an interrupt, is no answer
            answered_at = self.recording.tick()
            self.recording.note(transactions, sent_at, told, answered_at, self.client)

    def read(self, prefixes: Sequence[str], *, at: int = 0) -> Reading:
        sent_at = self.recording.tick()
        reading: Reading = self.inner.read(prefixes, at=at)
        self.recording.note_look(self.client, prefixes, at, sent_at, reading)
        return reading

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class Witness:
    """What the store's changes were, from now on."""

    def __init__(self, store: CellStore) -> None:
        self.start = store.read(EVERYTHING)
        self._store = store
        self._told = threading.Condition()
        self.seen: list[Change] = []  # so far, in the order of revisions
        self._complete = self.start.revision
        self._lost = ""
        self._watch = store.watch(EVERYTHING, after=self.start.revision, deliver=self._hear)

    def _hear(self, message: WatchMessage) -> None:
        with self._told:
            match message:
                case Changes(changes):
                    self.seen += changes
                case Progress(revision):
                    self._complete = max(self._complete, revision)
                case Lost(why):
                    self._lost = why
            self._told.notify_all()

    def changes(self) -> list[Change]:
        """Return all changes up to now, in the order of revisions."""
        newest = self._store.read(EVERYTHING).revision
        self._watch.ask_progress()
        with self._told:
            there = self._told.wait_for(
                lambda: self._complete >= newest or self._lost, PATIENCE_SECONDS
            )
            assert there, f"no word of revision {newest}"
            assert not self._lost, self._lost
            return [change for change in self.seen if change.modified <= newest]

    def close(self) -> None:
        """Stop to listen."""
        self._watch.close()


# ------------------------------------------------------------------------------ what happened


class Past:
    """The states that the changes make, one after the other: index 0 is the start."""

    def __init__(self, start: Reading, changes: Sequence[Change]) -> None:
        self.steps = list(by_revision(changes))
        self.revisions = [start.revision, *(step[0].modified for step in self.steps)]
        self._versions: dict[str, tuple[list[int], list[Versioned | None]]] = {}
        for record in start.records:
            self._versions[record.key] = ([0], [record])
        for index, step in enumerate(self.steps, start=1):
            for change in step:
                self._refuse_unfit(index, change)
                at, values = self._versions.setdefault(change.key, ([0], [None]))
                there = change.value is not None
                at.append(index)
                values.append(Versioned(*change) if there else None)  # type: ignore[arg-type]
        self._keys = sorted(self._versions)

    def _refuse_unfit(self, index: int, change: Change) -> None:
        revision = self.revisions[index]
        if revision <= self.revisions[index - 1]:
            raise Contradiction(
                f"revision {revision} is told after {self.revisions[index - 1]}: changes are not "
                "in order"
            )
        before = self.value(change.key, index - 1)
        if change.value is None and before is None:
            raise Contradiction(
                f"revision {revision} deletes {change.key}, which was not there: something before "
                "it is missing from the history"
            )
        created = before.created if before else revision
        if change.value is not None and change.created != created:
            raise Contradiction(
                f"revision {revision} puts {change.key} as created at {change.created}, but it was "
                f"created at {created}"
            )

    def value(self, key: str, index: int) -> Versioned | None:
        """Return a key in a state."""
        known = self._versions.get(key)
        if known is None:
            return None
        at, values = known
        return values[bisect_right(at, index) - 1]

    def under(self, prefix: str, index: int) -> Iterator[Versioned]:
        """Yield what lies under a prefix in a state, in key order."""
        for place in range(bisect_left(self._keys, prefix), len(self._keys)):
            key = self._keys[place]
            if not key.startswith(prefix):
                return
            value = self.value(key, index)
            if value is not None:
                yield value

    def last_put(self, key: str, index: int) -> int:
        """Return the index of the revision that put what a key has in a state; 0 = the start."""
        at, _ = self._versions[key]
        return at[bisect_right(at, index) - 1]

    def index_of(self, revision: int) -> int:
        """Return the state of a revision, be it another cell's; -1 = before it all."""
        return bisect_right(self.revisions, revision) - 1

    def broken(self, compare: Compare, index: int) -> str:
        """Say how a compare does not hold in a state; "" = it holds."""
        if isinstance(compare, Seen):
            now = self.value(compare.key, index)
            modified = now.modified if now else 0
            if modified == compare.revision:
                return ""
            was = f"was last written at {modified}" if modified else "was not there"
            relied = f"of {compare.revision}" if compare.revision else "not to be there"
            return f"it relies on {compare.key} {relied}, which {was}"
        for now in self.under(compare.prefix, index):
            if now.modified > compare.since:
                return (
                    f"it relies on {compare.prefix}* quiet since {compare.since}, but {now.key} "
                    f"was put at {now.modified}"
                )
        return ""

    def first_broken(self, transaction: Transaction, index: int) -> str:
        """Say how the first compare that is broken in a state is; "" = all hold."""
        return next(filter(None, (self.broken(c, index) for c in transaction.compares)), "")


@dataclass(frozen=True, slots=True)
class Explanation:
    """A serial order.

    Attributes:
        order: What happened, with the number of the revisions before it, in serial order.
        never: Requests without an answer that did not happen.
    """

    order: tuple[tuple[int, Write | Look | None], ...]
    never: tuple[Write, ...]


def explain(
    recording: Recording,
    changes: Sequence[Change],
    start: Reading,
    *,
    operations_max: int = 128,
    lease_of: Mapping[str, int] | None = None,
) -> Explanation:
    """Find the serial order of all requests that explains the changes.

    Args:
        recording: What was asked by all who wrote.
        changes: All that changed since `start`.
        start: Everything, as it was before the first request that is on record.
        operations_max: Beyond, one transaction may be guarded by ranges, and then conflict over a
            key that it does not name.
        lease_of: Leases of keys that are there at the start.

    Raises:
        Contradiction: There is none.
    """
    past = Past(start, changes)
    looks = [
        look for look in recording.looks if past.index_of(look.at or look.reading.revision) >= 0
    ]
    writes = list(recording.writes)
    leases = lease_of or {}
    try:
        # An order by the revisions that were told is an order; it is checked like any other. Where
        # many ask for the same, the other orders are too many to go through in search of one.
        order, placed = _fitting_all(past, writes, looks, operations_max, leases, believing=True)
    except Contradiction:
        # Is there none at all, or only none that agrees with what was told? The first says more.
        _fitting_all(past, writes, looks, operations_max, leases, believing=False)
        raise
    # What wrote nothing comes after the revision whose state it saw, and before the next.
    serial: list[tuple[int, bool, Write | Look | None]] = [
        *((index, False, write) for index, write in enumerate(order, start=1)),
        *((index, True, one) for index, one in placed),
    ]
    serial.sort(key=lambda one: one[:2])
    happened = {id(one) for _, _, one in serial}
    return Explanation(
        tuple((index, one) for index, _, one in serial),
        tuple(write for write in writes if write.unknown and id(write) not in happened),
    )


def _fitting_all(
    past: "Past",
    writes: Sequence[Write],
    looks: Sequence[Look],
    operations_max: int,
    lease_of: Mapping[str, int],
    *,
    believing: bool,
) -> tuple[list[Write | None], list[tuple[int, Write | Look]]]:
    """Return the first order of writes that also has a place for all that wrote nothing."""
    search = _Search(past, writes, operations_max, lease_of, believing=believing)
    first: Contradiction | None = None
    for order in itertools.islice(search.orders(), ORDERS_MAX):
        try:
            placing = _Placing(past, writes, looks, order, operations_max, believing=believing)
            return order, placing.placed()
        except Contradiction as contradiction:
            first = first or contradiction
    assert first is not None, "the search says why it finds no order"
    raise first


# ------------------------------------------------------------------------------ who wrote what


@dataclass(slots=True)
class _Choice:
    """What was decided for one revision, and what to put back if it was wrong."""

    options: list[Write | None]
    taken: Write | None = None
    newest_sent: float = -inf
    first_unanswered: int = 0
    moved: list[tuple[str, int]] = field(default_factory=list)


class _Search:
    """Gives each revision the request that wrote it: depth first, remembering dead ends."""

    def __init__(
        self,
        past: Past,
        writes: Sequence[Write],
        operations_max: int,
        lease_of: Mapping[str, int],
        *,
        believing: bool,
    ) -> None:
        self._past = past
        self._all = writes
        self._operations_max = operations_max
        self._lease_of = lease_of
        self._believing = believing
        self._used: set[int] = set()
        self._taken: list[Write | None] = []
        writing = [w for w in writes if not w.refused and w.may_write]
        self._due = sorted((w for w in writing if w.must_write), key=lambda w: w.before)
        self._by_key: dict[str, list[Write]] = {}
        self._first: dict[str, int] = {}
        for write in sorted(writing, key=lambda w: w.sent_at):
            for key in {op.key for t in write.transactions for op in t.operations}:
                self._by_key.setdefault(key, []).append(write)
                self._first[key] = 0
        self._leasing = {
            id(write)
            for write in writes
            if any(getattr(op, "lease", 0) for t in write.transactions for op in t.operations)
        }
        self._deepest = (-1, "")

    def orders(self) -> Iterator[list[Write | None]]:
        """Yield the request of each revision, None = a lease ended: each order that there is.

        Raises:
            Contradiction: There is none.
        """
        steps = len(self._past.steps)
        dead: set[object] = set()
        newest_sent, first = -inf, 0
        stack: list[_Choice] = []
        found = False
        while True:
            at = len(stack)
            options: list[Write | None] = []
            if at < steps:
                if not dead or self._standing() not in dead:
                    options = self._candidates(at + 1, newest_sent, first)
            elif (late := self._never_written(first)) is not None:
                self._remember(at, f"{late} was answered as committed, but no revision shows it")
            else:
                yield self._taken.copy()
                found = True  # and not liked, else nobody would ask on: dead ends are none now
            stack.append(_Choice(options, newest_sent=newest_sent, first_unanswered=first))
            while not stack[-1].options:
                stack.pop()
                if not found:
                    dead.add(self._standing())
                if not stack:
                    if found:
                        return
                    raise Contradiction(self._deepest[1])
                self._undo(stack[-1])
            newest_sent, first = self._do(stack[-1])

    def _standing(self) -> object:
        """Return what decides how it can go on: who was taken, and who put what with a lease."""
        leased = {(at, id(w)) for at, w in enumerate(self._taken) if id(w) in self._leasing}
        return len(self._taken), frozenset(self._used), frozenset(leased)

    def _do(self, choice: _Choice) -> tuple[float, int]:
        write = choice.taken = choice.options.pop(0)
        self._taken.append(write)
        if write is None:
            return choice.newest_sent, choice.first_unanswered
        self._used.add(id(write))
        newest_sent = max(choice.newest_sent, write.sent_at)
        first = choice.first_unanswered
        while first < len(self._due) and id(self._due[first]) in self._used:
            first += 1
        for key in {op.key for t in write.transactions for op in t.operations}:
            place, there = self._first[key], self._by_key[key]
            choice.moved.append((key, place))
            # Who was answered before the newest was sent cannot come any more.
            while place < len(there) and (
                id(there[place]) in self._used or there[place].before < newest_sent
            ):
                place += 1
            self._first[key] = place
        return newest_sent, first

    def _undo(self, choice: _Choice) -> None:
        self._taken.pop()
        if choice.taken is not None:
            self._used.discard(id(choice.taken))
        for key, place in choice.moved:
            self._first[key] = place
        choice.moved.clear()

    def _candidates(self, index: int, newest_sent: float, first: int) -> list[Write | None]:
        """Return who may have written a revision, the one that had to be first before others."""
        step = self._past.steps[index - 1]
        bound = self._due[first].before if first < len(self._due) else inf
        found: list[Write | None] = [
            write
            for write in self._asking(step, bound)
            if write.before >= newest_sent and not self._misfit(write, index)
        ]
        found.sort(key=lambda w: w.before if w else inf)
        if self._lease_ended(index):
            found.append(None)
        if not found:
            self._remember(
                index - 1, self._unexplained(index, self._near_miss(index, newest_sent, first))
            )
        return found

    def _near_miss(self, index: int, newest_sent: float, first: int) -> str:
        """Say why the first that asked for this, or nearly, did not write a revision."""
        why = ""
        for write in self._asking(self._past.steps[index - 1], inf):
            misfit = self._misfit(write, index)
            if not misfit and write.before < newest_sent:
                early = self._sent_last(newest_sent)
                return f"{write} was answered before {early} was sent, which comes earlier"
            if not misfit:
                return f"{write} was sent after {self._due[first]} was answered, which comes later"
            why = why or misfit
        return why

    def _asking(self, step: Sequence[Change], sent_until: float) -> Iterator[Write]:
        """Yield unused requests that name all the keys of a step, in the order of their sending."""
        rarest = min(
            (change.key for change in step),
            key=lambda key: len(self._by_key.get(key, ())) - self._first.get(key, 0),
        )
        keys = {change.key for change in step}
        there = self._by_key.get(rarest, [])
        for place in range(self._first.get(rarest, 0), len(there)):
            write = there[place]
            if write.sent_at > sent_until:
                return
            named = {op.key for t in write.transactions for op in t.operations}
            if id(write) not in self._used and keys <= named:
                yield write

    def _misfit(self, write: Write, index: int) -> str:
        """Say why a request did not write a revision; "" = it may have."""
        past, revision = self._past, self._past.revisions[index]
        wrote = {change.key: change.value for change in past.steps[index - 1]}
        expected: dict[str, bytes | None] = {}
        broken_at: dict[int, str] = {}
        for number, transaction in enumerate(write.transactions):
            broken = past.first_broken(transaction, index - 1)
            told = write.told[number] if isinstance(write.told, tuple) else None
            if isinstance(told, Committed) and broken:
                if all(wrote.get(k, b"") == v for k, v in _asked(transaction).items()):
                    return f"{write} committed at revision {revision}, but {broken}"
                return "it did not hold"
            if isinstance(told, Conflicted) and not broken:
                if not guarded(transaction, self._operations_max):
                    return (
                        f"{write} was told a conflict, but at revision {revision} all that it "
                        "relies on holds"
                    )
                broken = "a range"
            if isinstance(told, Conflicted):
                broken_at[number] = broken
            if broken:
                continue
            expected |= {
                key: value
                for key, value in _asked(transaction).items()
                if value is not None or past.value(key, index - 1) is not None
            }
        if expected != wrote:
            missing = [key for key in expected if key not in wrote]
            same = all(expected.get(key, b"?") == value for key, value in wrote.items())
            if missing and same:
                return (
                    f"revision {revision} has only a part of {write}: {_few(missing)} is not "
                    "written"
                )
            return f"revision {revision} is not what {write} writes"
        for number in broken_at:
            told = write.told[number]  # type: ignore[index]
            stale = _stale(past, write, number, index, writes=True)
            if stale:
                return f"{write} was told of a conflict at revision {revision}, but {stale}"
            if self._believing and past.index_of(told.revision) != index - 1:
                return (
                    f"{write} was told a conflict at revision {told.revision}, but it was just "
                    f"before {revision}"
                )
        if self._believing and isinstance(write.told, tuple):
            for told in write.told:
                if isinstance(told, Committed) and told.revision != revision:
                    return (
                        f"{write} was told that it committed at revision {told.revision}, but it "
                        f"is revision {revision}"
                    )
        return ""

    def _lease_ended(self, index: int) -> bool:
        """Whether a revision only deletes what was put with one lease."""
        leases: set[int] = set()
        for change in self._past.steps[index - 1]:
            if change.value is not None:
                return False
            put = self._past.last_put(change.key, index - 1)
            leases.add(
                self._lease_of.get(change.key, 0) if not put else self._leased(put, change.key)
            )
        return len(leases) == 1 and 0 not in leases

    def _leased(self, index: int, key: str) -> int:
        write = self._taken[index - 1]
        if write is None:
            return 0
        puts = [op for t in write.transactions for op in t.operations if op.key == key]
        return next((op.lease for op in puts if isinstance(op, Put)), 0)

    def _never_written(self, first: int) -> Write | None:
        while first < len(self._due):
            if id(self._due[first]) not in self._used:
                return self._due[first]
            first += 1
        return None

    def _sent_last(self, sent_at: float) -> Write:
        return next(w for w in self._taken if w is not None and w.sent_at == sent_at)

    def _unexplained(self, index: int, why: str) -> str:
        """Say what is wrong with a revision that nobody wrote."""
        revision = self._past.revisions[index]
        step = self._past.steps[index - 1]
        wrote = {change.key: change.value for change in step}
        if why and "is not what" not in why and why != "it did not hold":
            return why
        for write in self._all:
            asked = {k: v for t in write.transactions for k, v in _asked(t).items()}
            if all(asked.get(key, b"?") == value for key, value in wrote.items()):
                if id(write) in self._used:
                    earlier = self._past.revisions[1 + self._taken.index(write)]
                    return (
                        f"revision {revision} writes what {write} wrote at revision {earlier} "
                        "already: it happened twice"
                    )
                if write.refused or not write.may_write:
                    told = f"was refused: {write.told}" if write.refused else "was told a conflict"
                    return f"revision {revision} writes what {write} asked for, which {told}"
        puts = [("put " if c.value is not None else "delete ") + c.key for c in step]
        more = f": {why}" if why.startswith("revision") else ""
        return f"revision {revision} ({_few(puts)}) was asked for by nobody{more}"

    def _remember(self, depth: int, why: str) -> None:
        if depth > self._deepest[0]:
            self._deepest = (depth, why)


def guarded(transaction: Transaction, operations_max: int) -> bool:
    """Whether a transaction alone is so large that ranges guard it."""
    longest = max(len(transaction.compares), len(transaction.operations))
    return bool(transaction.seen) and longest > operations_max


def _asked(transaction: Transaction) -> dict[str, bytes | None]:
    return {op.key: op.value if isinstance(op, Put) else None for op in transaction.operations}


def _stale(past: Past, write: Write, number: int, index: int, *, writes: bool) -> str:
    """Say which fresh value of a conflicted member is not of the state that it saw.

    Args:
        past: The states.
        write: The request.
        number: Which of its transactions.
        index: The revision that the request wrote; where it wrote nothing, the state it saw.
        writes: Whether it wrote that revision.
    """
    told = write.told[number]  # type: ignore[index]
    assert isinstance(told, Conflicted), "asked of conflicts alone"
    before = index - 1 if writes else index
    # Members see the state before the request when they compare, but their fresh values are read
    # one after the other, when the members before them have written.
    written: set[str] = set()
    if writes and isinstance(write.told, tuple):
        for transaction, outcome in zip(write.transactions[:number], write.told, strict=False):
            if isinstance(outcome, Committed):
                written |= {op.key for op in transaction.operations}

    def seen(key: str) -> Versioned | None:
        return past.value(key, index if key in written else before)

    for compare in write.transactions[number].compares:
        if isinstance(compare, Seen):
            if told.keys.get(compare.key) != seen(compare.key):
                return f"the value of {compare.key} that it was told is not the one of then"
        elif isinstance(compare, Quiet):
            keys = {r.key for r in past.under(compare.prefix, before)}
            keys |= {key for key in written if key.startswith(compare.prefix)}
            there = [record for key in sorted(keys) if (record := seen(key)) is not None]
            if list(told.ranges.get(compare.prefix, ())) != there:
                return f"what it was told to lie under {compare.prefix} is not what lay there then"
    return ""


# ------------------------------------------------------------------------------ who only looked


class _Placing:
    """Gives each request that wrote nothing a state that it saw, in the order of time."""

    def __init__(
        self,
        past: Past,
        writes: Sequence[Write],
        looks: Sequence[Look],
        order: Sequence[Write | None],
        operations_max: int,
        *,
        believing: bool,
    ) -> None:
        self._past = past
        self._operations_max = operations_max
        self._believing = believing
        wrote = [(write, index) for index, write in enumerate(order, start=1) if write is not None]
        used = {id(write) for write, _ in wrote}
        self._idle: list[Write | Look] = [
            w for w in writes if not w.refused and not w.unknown and id(w) not in used
        ]
        self._idle += looks
        self._idle.sort(key=lambda one: one.sent_at)
        # Who was answered before: the last state of theirs; who was sent after: the first.
        ended = sorted((write.before, index) for write, index in wrote)
        self._ended = [before for before, _ in ended]
        self._ended_at = list(itertools.accumulate((i for _, i in ended), max, initial=0))
        sent = sorted((write.sent_at, index) for write, index in wrote)
        self._sent = [sent_at for sent_at, _ in sent]
        latest = len(past.steps) + 1
        self._sent_at = list(
            itertools.accumulate((i for _, i in reversed(sent)), min, initial=latest)
        )[::-1]

    def placed(self) -> list[tuple[int, Write | Look]]:
        """Return each with the state that it saw.

        Raises:
            Contradiction: One fits nowhere.
        """
        found: list[tuple[int, Write | Look]] = []
        answered: list[tuple[float, int]] = []  # a heap: when, and which state it saw
        floor = 0
        for one in self._idle:
            # Whoever was answered before this was sent saw no later state.
            while answered and answered[0][0] < one.sent_at:
                floor = max(floor, heapq.heappop(answered)[1])
            first = max(floor, self._ended_at[bisect_left(self._ended, one.sent_at)])
            last = self._sent_at[bisect_right(self._sent, one.before)] - 1
            index = self._fitting(one, first, last)
            found.append((index, one))
            if not (isinstance(one, Look) and one.at):  # an old state says nothing of the newest
                heapq.heappush(answered, (one.before, index))
        return found

    def _fitting(self, one: Write | Look, first: int, last: int) -> int:
        if isinstance(one, Look) and one.at:
            index = self._past.index_of(one.at)
            why = self._misfit(one, index) if index <= last else "that revision did not exist yet"
            if why:
                raise Contradiction(f"{one} is of no state: {why}")
            return index
        why = ""
        for index in range(first, last + 1):
            misfit = self._misfit(one, index)
            if not misfit:
                return index
            why = why or misfit
        span = self._span(first, last)
        if isinstance(one, Look):
            stale = next((i for i in range(first - 1, -1, -1) if not self._misfit(one, i)), None)
            if stale is not None:
                overtaken = self._past.revisions[stale + 1]
                raise Contradiction(
                    f"{one} is stale: it returned the state before revision {overtaken}, which was "
                    f"answered before it was sent"
                )
        raise Contradiction(f"{one} fits no state {span}: {why or 'there is none'}")

    def _span(self, first: int, last: int) -> str:
        revisions = self._past.revisions
        if first > last:
            return "between its sending and its answer"
        if first == last:
            return (
                f"of revision {revisions[first]}, the only one between its sending and its answer"
            )
        span = f"{revisions[first]} to {revisions[last]}"
        return f"of revisions {span}, between its sending and its answer"

    def _misfit(self, one: Write | Look, index: int) -> str:
        if isinstance(one, Look):
            return self._unlike(one, index)
        assert isinstance(one.told, tuple), "answered, as all here"
        past = self._past
        for number, (transaction, told) in enumerate(zip(one.transactions, one.told, strict=True)):
            broken = past.first_broken(transaction, index)
            if isinstance(told, Committed):
                if broken:
                    return f"it committed, but {broken}"
                if any(
                    value is not None or past.value(key, index) is not None
                    for key, value in _asked(transaction).items()
                ):
                    return "it committed, but no revision shows what it writes"
            else:
                if not broken and not guarded(transaction, self._operations_max):
                    return "it was told a conflict, but all that it relies on holds"
                stale = _stale(past, one, number, index, writes=False)
                if stale:
                    return stale
            if self._believing and past.index_of(told.revision) != index:
                return f"it was told revision {told.revision}"
        return ""

    def _unlike(self, look: Look, index: int) -> str:
        past, told = self._past, look.reading
        there = [r for prefix in sorted(look.prefixes) for r in past.under(prefix, index)]
        if list(told.records) != there:
            theirs, ours = ({r.key: r for r in records} for records in (told.records, there))
            unlike = sorted(k for k in {*theirs, *ours} if theirs.get(k) != ours.get(k))
            return f"at revision {past.revisions[index]}, {_few(unlike)} was not what it returned"
        if self._believing and past.index_of(told.revision) != index:
            return f"it was told revision {told.revision}"
        return ""


def explained(recording: Recording, witness: Witness, **more: Any) -> Explanation:
    """Find the order of what a witness has seen up to now."""
    return explain(recording, witness.changes(), witness.start, **more)


def committed(explanation: Explanation) -> Iterable[Write]:
    """Yield the requests that wrote, in serial order."""
    seen: set[int] = set()
    for _, one in explanation.order:
        if isinstance(one, Write) and id(one) not in seen:
            seen.add(id(one))
            yield one
