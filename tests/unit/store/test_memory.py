"""What only the memory store has: its clock, its copies, its synchronous watches."""

from typing import Any

import pytest

from flowos.model.errors import StoreRefused
from flowos.model.transaction import (
    Change,
    Changes,
    Committed,
    Progress,
    Put,
    Quiet,
    Seen,
    Transaction,
)
from flowos_store.memory import MemoryStore


class MovedClock:
    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now

    def wall(self):
        return 0.0


@pytest.fixture
def clock():
    return MovedClock()


@pytest.fixture
def store(clock):
    return MemoryStore(clock)


def put(store, *keys, lease=0):
    (outcome,) = store.commit([Transaction((), tuple(Put(key, b"v", lease) for key in keys))])
    return outcome.revision


def keys_of(store, prefix=""):
    return [record.key for record in store.read([prefix]).records]


def test_keys_of_a_lease_go_together_when_its_time_is_over(store, clock):
    lease = store.lease(10)
    put(store, "session/a", "session/b", lease=lease.id)
    put(store, "other")
    told: list[Any] = []
    store.watch(["session/"], after=store.revision, deliver=told.append)
    clock.now = 9.9
    assert len(keys_of(store)) == 3
    clock.now = 10.0
    assert keys_of(store) == ["other"]
    gone = [Change("session/a", None, 0, 4), Change("session/b", None, 0, 4)]
    assert told == [Changes(gone)]
    assert lease.keep_alive() == 0


def test_a_lease_that_is_kept_alive_stays(store, clock):
    lease = store.lease(10)
    put(store, "session/a", lease=lease.id)
    for _ in range(5):
        clock.now += 9
        assert lease.keep_alive() == 10
    assert keys_of(store) == ["session/a"]
    assert store.next_expiry() == clock.now + 10


def test_ticking_ends_leases_without_any_other_use(store, clock):
    told: list[Any] = []
    put(store, "a", lease=store.lease(5).id)
    store.watch([""], after=store.revision, deliver=told.append)
    clock.now = 5
    store.tick()
    assert len(told) == 1


def test_leases_that_end_at_once_end_at_revisions_of_their_own(store, clock):
    put(store, "a", lease=store.lease(5).id)
    put(store, "b", lease=store.lease(5).id)
    before = store.revision
    clock.now = 5
    assert store.revision == before + 2


def test_a_key_put_without_its_lease_outlives_it(store):
    lease = store.lease(5)
    put(store, "a", lease=lease.id)
    put(store, "a")
    lease.revoke()
    assert keys_of(store) == ["a"]


def test_a_copy_and_its_original_do_not_see_each_other(store, clock):
    lease = store.lease(5)
    put(store, "a", lease=lease.id)
    told: list[Any] = []
    store.watch([""], after=store.revision, deliver=told.append)
    copy = store.fork()
    put(copy, "b")
    put(store, "c")
    assert (keys_of(store), keys_of(copy)) == (["a", "c"], ["a", "b"])
    copy.revoke(lease.id)
    assert (keys_of(store), keys_of(copy)) == (["a", "c"], ["b"])
    assert [change.key for message in told for change in message.changes] == ["c"]
    assert copy.read([""], at=2).records == store.read([""], at=2).records


def test_watches_are_told_before_the_commit_returns(store):
    told: list[Any] = []
    watch = store.watch(["a/"], after=store.revision, deliver=told.append)
    revision = put(store, "a/1", "b/1")
    assert told == [Changes([Change("a/1", b"v", revision, revision)])]
    watch.ask_progress()
    assert told[-1] == Progress(revision)
    watch.close()
    put(store, "a/2")
    assert len(told) == 2


def test_closing_the_store_ends_its_watches_and_keeps_its_contents(store):
    told: list[Any] = []
    put(store, "a")
    store.watch([""], after=store.revision, deliver=told.append)
    store.close()
    put(store, "b")
    assert (told, keys_of(store)) == ([], ["a", "b"])


def test_a_future_revision_is_refused(store):
    with pytest.raises(StoreRefused, match="in the future"):
        store.read([""], at=store.revision + 1)
    with pytest.raises(StoreRefused, match="in the future"):
        store.compact(store.revision + 1)


def test_one_holder_is_checked_among_very_many_keys(store):
    for start in range(0, 3000, 100):
        put(store, *(f"claim/share/n{number:05}/e/x" for number in range(start, start + 100)))
    seen = store.revision
    guard = Quiet("claim/share/n01500/", seen)
    (outcome,) = store.commit([Transaction((guard, Seen("none", 0)), (Put("none", b""),))])
    assert isinstance(outcome, Committed)
