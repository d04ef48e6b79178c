"""The memory store and etcd answer every step alike, so that what holds in one holds in the other.

One machine drives both with the same steps. Revisions differ by an offset, nothing else does: etcd
is this test's alone. Between two steps every watch of both has said the same.
"""

import queue
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from flowos.model.errors import RevisionCompacted, StoreError
from flowos.model.protocols import CellStore, Lease, Watch
from flowos.model.transaction import (
    Change,
    Changes,
    Committed,
    Compare,
    Conflicted,
    Delete,
    Lost,
    Operation,
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
from flowos_store import EmbeddedEtcd, EtcdStore, MemoryStore

pytestmark = pytest.mark.etcd

Answer = TypeVar("Answer")

ANSWER_SECONDS = 10.0
EXAMPLES = 2 * settings().max_examples  # 12 s at `inner`: it is the specification that is tested

# Few keys, so that steps meet; "a/1" also is the start of "a/10", and "a" of neither family alone.
# The last two lie among those of large transactions.
KEYS = ("a", "a/1", "a/10", "b/1", "b/2", "big/1/0015", "big/4/0025")
PREFIXES = ("", "a", "a/", "a/1", "b/", "big/", "nothing/")
DISJOINT = (("",), ("a", "b/"), ("b/", "a/"), ("a/1", "nothing/", "big/"))


class StillClock:
    """Leases end by revocation alone: etcd's clock cannot be moved."""

    def monotonic(self) -> float:
        return 0.0

    def wall(self) -> float:
        return 0.0


# ------------------------------------------------------------------------------ what is asked for


@dataclass(frozen=True)
class Guess:
    """A compare before the state is known: how right it is, and about what."""

    about: str
    is_prefix: bool
    back: int  # how many revisions the guess is old; -1 = as if nothing were there

    def compare(self, store: MemoryStore) -> Compare:
        if self.is_prefix:
            since = 0 if self.back < 0 else max(0, store.revision - self.back)
            return Quiet(self.about, since)
        if self.back < 0:
            return Seen(self.about, 0)
        under = {r.key: r.modified for r in store.read([self.about]).records}
        return Seen(self.about, max(0, under.get(self.about, 0) - self.back))


@dataclass(frozen=True)
class Write:
    """An operation before its lease is known."""

    key: str
    value: bytes | None
    lease: int  # index into the leases granted so far, dead or alive; -1 = none


guesses = st.lists(
    st.builds(Guess, st.sampled_from(KEYS), st.just(False), st.sampled_from([-1, 0, 0, 0, 1]))
    | st.builds(Guess, st.sampled_from(PREFIXES), st.just(True), st.sampled_from([-1, 0, 0, 1, 3])),
    max_size=3,
    unique_by=lambda guess: (guess.about, guess.is_prefix),
)
writes = st.lists(
    st.builds(
        Write,
        st.sampled_from(KEYS),
        st.sampled_from([b"", b"x", b"yy", None]),
        st.sampled_from([-1, -1, 0, 1]),
    ),
    max_size=6,
    unique_by=lambda write: write.key,
)
Plan = list[tuple[list[Guess], list[Write]]]


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """One request of up to four members; now and then two of them write one key."""
    plan: Plan = [(draw(guesses), []) for _ in range(draw(st.integers(1, 4)))]
    for write in draw(writes):
        plan[draw(st.integers(0, len(plan) - 1))][1].append(write)
    written = [write for _, own in plan for write in own]
    if written and draw(st.integers(0, 9)) == 0:
        plan[draw(st.integers(0, len(plan) - 1))][1].append(written[0])
    return plan


@dataclass
class Follower:
    """One watch on both stores, and what it was told by each."""

    prefixes: tuple[str, ...]
    watches: list[Watch] = field(default_factory=list)
    told: tuple["queue.SimpleQueue[WatchMessage]", ...] = field(
        default_factory=lambda: (queue.SimpleQueue(), queue.SimpleQueue())
    )
    last: tuple[dict[str, int], dict[str, int]] = field(default_factory=lambda: ({}, {}))


class StoresAgree(RuleBasedStateMachine):
    """The same steps on both stores."""

    server: ClassVar[EmbeddedEtcd]

    def __init__(self) -> None:
        super().__init__()
        self.memory = MemoryStore(StillClock())
        self.etcd = EtcdStore([self.server.endpoint], cell=uuid.uuid4().hex)
        self.offset = self.etcd.read([""]).revision - self.memory.revision
        self.leases: list[tuple[Lease, Lease]] = []
        self.followers: list[Follower] = []
        self.compacted = False

    def teardown(self) -> None:
        for _, lease in self.leases:
            lease.revoke()
        self.etcd.close()

    @invariant()
    def contents_are_equal(self) -> None:
        for at in (0, self.memory.revision - 1, self.memory.revision - 3):
            if at >= 0:
                self.reads_agree([""], at=at)

    @invariant()
    def watches_are_equal(self) -> None:
        for follower in list(self.followers):
            self.hear(follower)

    # ---------------------------------------------------------------------- one scale of revisions

    def to_etcd(self, revision: int) -> int:
        return revision + self.offset if revision else 0

    def from_etcd(self, revision: int) -> int:
        return revision - self.offset if revision else 0

    def asked_of_etcd(self, transaction: Transaction) -> Transaction:
        compares: list[Compare] = [
            replace_seen(c, self.to_etcd(c.revision))
            if isinstance(c, Seen)
            else Quiet(c.prefix, self.to_etcd(c.since))
            for c in transaction.compares
        ]
        ids = {memory.id: etcd.id for memory, etcd in self.leases}
        operations: list[Operation] = [
            Put(o.key, o.value, ids.get(o.lease, 0)) if isinstance(o, Put) else o
            for o in transaction.operations
        ]
        return Transaction(tuple(compares), tuple(operations), self.to_etcd(transaction.seen))

    def record(self, record: Versioned) -> Versioned:
        return record._replace(
            created=self.from_etcd(record.created), modified=self.from_etcd(record.modified)
        )

    def outcome(self, outcome: Outcome) -> Outcome:
        if isinstance(outcome, Committed):
            return Committed(self.from_etcd(outcome.revision))
        return Conflicted(
            self.from_etcd(outcome.revision),
            {key: now and self.record(now) for key, now in outcome.keys.items()},
            {prefix: tuple(map(self.record, now)) for prefix, now in outcome.ranges.items()},
        )

    def message(self, message: WatchMessage) -> WatchMessage:
        match message:
            case Changes(changes):
                return Changes(
                    [
                        c._replace(
                            created=self.from_etcd(c.created), modified=self.from_etcd(c.modified)
                        )
                        for c in changes
                    ]
                )
            case Progress(revision):
                return Progress(self.from_etcd(revision))
            case Lost(compacted=compacted):
                return Lost("", self.from_etcd(compacted))

    # ------------------------------------------------------------------------------------- steps

    @initialize(plans=st.lists(plans(), max_size=3))
    def begin(self, plans: list[Plan]) -> None:
        self.leases = [(self.memory.lease(600), self.etcd.lease(600)) for _ in range(2)]
        for plan in plans:
            self.commit(plan)

    @rule(plan=plans())
    def commit(self, plan: Plan) -> None:
        self.commits_agree(
            [
                Transaction(
                    tuple(guess.compare(self.memory) for guess in guesses),
                    tuple(map(self.operation, writes)),
                )
                for guesses, writes in plan
            ]
        )

    def operation(self, write: Write) -> Operation:
        if write.value is None:
            return Delete(write.key)
        lease = self.leases[write.lease][0].id if write.lease >= 0 else 0
        return Put(write.key, write.value, lease)

    @rule(
        first=st.integers(0, 2),
        count=st.sampled_from([40, 130, 400]),
        stride=st.sampled_from([1, 3]),
        puts=st.sampled_from([1, 10, 200]),
        exact=guesses,
        back=st.sampled_from([None, 0, 0, 1, 2]),
    )
    def commit_large(
        self,
        first: int,
        count: int,
        stride: int,
        puts: int,
        exact: list[Guess],
        back: int | None,
    ) -> None:
        numbers = range(first, first + count * stride, stride)
        keys = [f"big/{number % 7}/{number:04}" for number in numbers]
        compared = {guess.about for guess in exact}
        transaction = Transaction(
            (
                *(guess.compare(self.memory) for guess in exact),
                *(Seen(key, 0) for key in keys if key not in compared),
            ),
            tuple(Put(key, b"big") for key in keys[:puts]),
            seen=0 if back is None else max(0, self.memory.revision - back),
        )
        self.commits_agree([transaction])

    @rule(most=st.integers(1, 100))
    def clear_large(self, most: int) -> None:
        there = [record.key for record in self.memory.read(["big/"]).records]
        self.commits_agree([Transaction((), tuple(map(Delete, there[:most])))])

    @rule(
        prefixes=st.sampled_from([("",), ("a/", "b/"), ("big/",), ("a/1",), ("b", "a")]),
        back=st.sampled_from([None, -1, 0, 1, 2, 5, 9]),
    )
    def read(self, prefixes: Sequence[str], back: int | None) -> None:
        self.reads_agree(prefixes, at=0 if back is None else max(1, self.memory.revision - back))

    @rule(prefixes=st.sampled_from(DISJOINT), back=st.integers(0, 8))
    @precondition(lambda self: len(self.followers) < 3)
    def watch(self, prefixes: Sequence[str], back: int) -> None:
        after = max(0, self.memory.revision - back)
        follower = Follower(tuple(prefixes))
        stores: tuple[CellStore, CellStore] = (self.memory, self.etcd)
        revisions = (after, after + self.offset)
        for store, told, since in zip(stores, follower.told, revisions, strict=True):
            follower.watches.append(store.watch(follower.prefixes, after=since, deliver=told.put))
        self.followers.append(follower)

    @rule(which=st.integers(0, 2))
    def stop_listening(self, which: int) -> None:
        if which < len(self.followers):
            follower = self.followers.pop(which)
            for watch in follower.watches:
                watch.close()

    @rule(which=st.integers(0, 1))
    def revoke(self, which: int) -> None:
        memory, etcd = self.leases[which]
        for lease in self.leases[which]:
            lease.revoke()
        assert memory.keep_alive() == etcd.keep_alive() == 0

    @rule(which=st.integers(0, 1))
    def renew(self, which: int) -> None:
        memory, etcd = self.leases[which]
        assert memory.keep_alive() == etcd.keep_alive()
        if not memory.keep_alive():
            self.leases[which] = (self.memory.lease(600), self.etcd.lease(600))

    @rule(back=st.sampled_from([-1, 0, 1, 2, 5]))
    def compact(self, back: int) -> None:
        before = self.memory.revision - back
        if before < 2:
            return
        ours = answer(lambda: self.memory.compact(before))
        theirs = answer(lambda: self.etcd.compact(before + self.offset))
        assert type(ours) is type(theirs)
        self.compacted = self.compacted or ours is None
        if self.compacted:  # before that, etcd still has the history of earlier examples
            assert self.memory.oldest() == self.from_etcd(self.etcd.oldest())

    # ---------------------------------------------------------------------------------- agreement

    def commits_agree(self, transactions: Sequence[Transaction]) -> None:
        ours = answer(lambda: self.memory.commit(transactions))
        asked = [self.asked_of_etcd(transaction) for transaction in transactions]
        theirs = answer(lambda: self.etcd.commit(asked))
        if isinstance(ours, StoreError) or isinstance(theirs, StoreError):
            assert type(ours) is type(theirs), (ours, theirs)
        else:
            assert ours == [self.outcome(outcome) for outcome in theirs]

    def reads_agree(self, prefixes: Sequence[str], at: int) -> None:
        ours = answer(lambda: self.memory.read(prefixes, at=at))
        theirs = answer(lambda: self.etcd.read(prefixes, at=self.to_etcd(at)))
        if isinstance(theirs, RevisionCompacted):
            assert isinstance(ours, RevisionCompacted)
            expected = (self.from_etcd(theirs.asked), self.from_etcd(theirs.oldest))
            assert (ours.asked, ours.oldest) == expected
        elif isinstance(ours, Reading) and isinstance(theirs, Reading):
            assert ours.revision == self.from_etcd(theirs.revision)
            assert list(ours.records) == [self.record(record) for record in theirs.records]
        else:
            assert type(ours) is type(theirs), (ours, theirs)

    def hear(self, follower: Follower) -> None:
        """Both watches say the same up to now, each in an order that etcd promises."""
        for watch in follower.watches:
            watch.ask_progress()
        until = self.memory.revision
        ours = list(heard(follower.told[0], until))
        theirs = list(heard(follower.told[1], until, self.message))
        assert ours[-1:] == theirs[-1:], (ours, theirs)
        said = [
            self.by_revision(follower.prefixes, messages, last)
            for messages, last in zip((ours, theirs), follower.last, strict=True)
        ]
        assert said[0] == said[1]
        if isinstance(ours[-1], Lost):
            self.followers.remove(follower)

    def by_revision(
        self, prefixes: Sequence[str], messages: Sequence[WatchMessage], last: dict[str, int]
    ) -> dict[str, dict[int, frozenset[Change]]]:
        """Sort what was told by prefix and revision; a revision comes whole, and in order."""
        told: dict[str, dict[int, frozenset[Change]]] = {prefix: {} for prefix in prefixes}
        for message in messages:
            if not isinstance(message, Changes):
                continue
            assert message.changes
            for prefix in prefixes:
                under = [change for change in message.changes if change.key.startswith(prefix)]
                revisions = [change.modified for change in under]
                assert revisions == sorted(revisions)
                for revision in sorted(set(revisions)):
                    assert revision > last.get(prefix, 0), "told twice, or in pieces"
                    told[prefix][revision] = frozenset(c for c in under if c.modified == revision)
                    last[prefix] = revision
        return told


def replace_seen(compare: Seen, revision: int) -> Seen:
    return compare._replace(revision=revision)


def answer(ask: Callable[[], Answer]) -> Answer | StoreError:
    """What the store answers, be it an error."""
    try:
        return ask()
    except StoreError as error:
        return error


def heard(
    told: "queue.SimpleQueue[WatchMessage]",
    until: int,
    read: Callable[[WatchMessage], WatchMessage] = lambda message: message,
) -> Iterator[WatchMessage]:
    """Yield what was told, to the progress that says `until`, or to the end."""
    deadline = time.monotonic() + ANSWER_SECONDS
    while True:
        message = read(told.get(timeout=max(0.0, deadline - time.monotonic())))
        if isinstance(message, Lost) or message == Progress(until):
            yield Lost("", message.compacted) if isinstance(message, Lost) else message
            return
        if not isinstance(message, Progress):
            yield message


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("etcd-alone")
    with EmbeddedEtcd(folder, unsafe_no_fsync=True, max_txn_ops=None) as server:
        yield server


def test_memory_store_and_etcd_answer_every_step_alike(server):
    machine = type("StoresAgreeHere", (StoresAgree,), {"server": server})
    run_state_machine_as_test(
        machine, settings=settings(max_examples=EXAMPLES, stateful_step_count=30)
    )
