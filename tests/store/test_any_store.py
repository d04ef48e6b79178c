"""What every store does: each sentence holds in memory and in etcd.

`tests/property/test_stores_agree.py` compares the two; here stands what they agree on.
"""

import queue
from typing import Any

import pytest

from flowos.model.errors import RevisionCompacted, StoreRefused, TransactionTooLarge
from flowos.model.transaction import (
    Changes,
    Committed,
    Conflicted,
    Delete,
    Lost,
    Progress,
    Put,
    Quiet,
    Seen,
    Transaction,
)
from flowos_store import MemoryStore


class StillClock:
    def monotonic(self):
        return 0.0

    def wall(self):
        return 0.0


@pytest.fixture(params=["memory", pytest.param("etcd", marks=pytest.mark.etcd)])
def store(request):
    """A store that takes 128 operations a request."""
    if request.param == "memory":
        return MemoryStore(StillClock())
    server = request.getfixturevalue("etcd_default_flags")
    return request.getfixturevalue("etcd_store")(server)


def put(store, *keys, value=b"v", lease=0):
    (done,) = store.commit([Transaction((), tuple(Put(key, value, lease) for key in keys))])
    return done.revision


def newest(store):
    return store.read(["nothing/"]).revision


def take(*keys, value=b"mine", seen=0):
    """Claim keys that nobody holds."""
    return Transaction(
        tuple(Seen(key, 0) for key in keys), tuple(Put(key, value) for key in keys), seen
    )


# ------------------------------------------------------------------------------------- commits


def test_second_of_two_rivals_conflicts_and_sees_who_won(store):
    (won,) = store.commit([take("claim/a", "claim/b", value=b"first")])
    (lost,) = store.commit([take("claim/b", "claim/c", value=b"second")])
    assert isinstance(won, Committed)
    assert isinstance(lost, Conflicted)
    assert lost.keys["claim/b"] == ("claim/b", b"first", won.revision, won.revision)
    assert lost.keys["claim/c"] is None
    assert lost.broken(take("claim/b", "claim/c").compares) == [Seen("claim/b", 0)]
    assert [r.key for r in store.read(["claim/"]).records] == ["claim/a", "claim/b"]


def test_members_of_one_request_share_a_revision_and_each_has_its_own_verdict(store):
    put(store, "claim/b")
    before = newest(store)
    outcomes = store.commit([take("claim/a"), take("claim/b", "claim/x"), take("claim/c")])
    assert [outcomes[0], outcomes[2]] == [Committed(before + 1)] * 2
    assert isinstance(outcomes[1], Conflicted)
    assert newest(store) == before + 1


def test_members_compare_with_the_state_before_the_request(store):
    reader = Transaction((Seen("claim/a", 0),), (Put("placement/a", b""),))
    outcomes = store.commit([take("claim/a"), reader])
    assert [type(outcome) for outcome in outcomes] == [Committed, Committed]


def test_a_conflict_shows_what_members_before_it_wrote_and_none_after(store):
    before = newest(store)
    loser = Transaction((Seen("a", 5_000_000), Seen("b", 0), Quiet("c/", 0)), (Put("x", b""),))
    _, conflict, _ = store.commit([take("b", "c/1"), loser, take("a", "c/2")])
    assert conflict.revision == before
    assert conflict.keys["a"] is None
    assert conflict.keys["b"].modified == before + 1
    assert [record.key for record in conflict.ranges["c/"]] == ["c/1"]


def test_a_request_that_writes_nothing_keeps_the_revision(store):
    before = put(store, "a")
    outcomes = store.commit(
        [
            Transaction((Seen("a", before),), ()),
            Transaction((), (Delete("nothing"),)),
            Transaction((), ()),
            take("a"),
        ]
    )
    assert outcomes[:3] == [Committed(before)] * 3
    assert outcomes[3].revision == before
    assert newest(store) == before


def test_a_request_without_transactions_is_answered(store):
    assert store.commit([]) == []


def test_a_new_holder_breaks_the_guard_of_a_prefix_and_a_free_does_not(store):
    seen = put(store, "claim/share/n1/e1/a", "claim/share/n1/e1/b")
    guarded = Transaction((Quiet("claim/share/n1/e1/", seen),), (Put("mark", b""),))
    store.commit([Transaction((), (Delete("claim/share/n1/e1/a"),))])
    assert isinstance(store.commit([guarded])[0], Committed)
    put(store, "claim/share/n1/e10/c")  # another engine, whose name only starts alike
    assert isinstance(store.commit([guarded])[0], Committed)
    put(store, "claim/share/n1/e1/c")
    (conflict,) = store.commit([guarded])
    assert conflict.broken(guarded.compares) == list(guarded.compares)


def test_a_guard_since_nothing_holds_over_an_empty_prefix_alone(store):
    empty = Transaction((Quiet("claim/host/n1/", 0),), (Put("claim/host/n1/a", b""),))
    assert isinstance(store.commit([empty])[0], Committed)
    assert isinstance(store.commit([empty])[0], Conflicted)


@pytest.mark.parametrize(
    "second",
    [
        Transaction((), (Put("b", b""), Put("a", b"2"))),
        Transaction((), (Put("b", b""), Delete("a"))),
        Transaction((Seen("a", 7_000_000),), (Put("a", b"2"),)),
    ],
    ids=["put", "deletion", "member-that-would-not-apply"],
)
def test_a_request_that_writes_a_key_twice_is_refused_as_a_whole(store, second):
    before = newest(store)
    with pytest.raises(StoreRefused, match="writes a twice"):
        store.commit([Transaction((), (Put("a", b"1"),)), second])
    assert newest(store) == before


def test_a_refusal_leaves_nothing_behind(store):
    with pytest.raises(StoreRefused):
        store.commit([take("a"), take("a")])
    assert isinstance(store.commit([take("a")])[0], Committed)


# -------------------------------------------------------------------------------------- leases


def test_revoking_a_lease_deletes_its_keys_at_one_revision(store):
    lease = store.lease(600)
    before = put(store, "session/a", "session/b", lease=lease.id)
    put(store, "session/a")  # no longer the lease's
    lease.revoke()
    assert [r.key for r in store.read(["session/"]).records] == ["session/a"]
    assert newest(store) == before + 2
    lease.revoke()
    assert lease.keep_alive() == 0


def test_a_lease_that_lives_says_for_how_long(store):
    assert 0 < store.lease(600).keep_alive() <= 600


def test_a_dead_lease_is_refused_in_members_that_would_apply_and_no_others(store):
    lease = store.lease(600)
    lease.revoke()
    dead = Put("session/a", b"", lease.id)
    with pytest.raises(StoreRefused):
        store.commit([take("a"), Transaction((), (dead,))])
    assert store.read([""]).records == []
    outcomes = store.commit([take("a"), Transaction((Seen("b", 7_000_000),), (dead,))])
    assert [type(outcome) for outcome in outcomes] == [Committed, Conflicted]


# --------------------------------------------------------------------------------------- limits

LARGE = [f"claim/engine/n{number // 8:04}/{number % 8}" for number in range(4096)]


def test_4096_claims_are_one_atomic_revision(store):
    before = newest(store)
    assert store.commit([take(*LARGE, seen=before)]) == [Committed(before + 1)]
    assert len(store.read(["claim/"]).records) == 4096


@pytest.mark.parametrize("place", [0, 1, 2000, 4094, 4095])
def test_a_rival_anywhere_in_a_large_transaction_makes_it_conflict(store, place):
    seen = newest(store)
    put(store, LARGE[place])
    transaction = take(*LARGE, seen=seen)
    (conflict,) = store.commit([transaction])
    assert isinstance(conflict, Conflicted)
    assert conflict.broken(transaction.compares) == [Seen(LARGE[place], 0)]
    assert len(conflict.keys) == 4096
    assert len(store.read(["claim/"]).records) == 1


def test_a_key_between_those_of_a_large_transaction_makes_it_conflict_without_a_broken_compare(
    store,
):
    seen = newest(store)
    put(store, "claim/engine/n0000/0-and-more")
    transaction = take(*LARGE, seen=seen)
    (conflict,) = store.commit([transaction])
    assert conflict.broken(transaction.compares) == []
    assert isinstance(store.commit([take(*LARGE, seen=newest(store))])[0], Committed)


def test_keys_beside_a_large_transaction_and_deletions_inside_do_not_disturb_it(store):
    put(store, LARGE[7])
    seen = newest(store)
    store.commit([Transaction((), (Delete(LARGE[7]),))])
    put(store, "claim/engine/n0511/7x", "claim/engine/n", "claim/lane/l1/out/1")
    assert isinstance(store.commit([take(*LARGE, seen=seen)])[0], Committed)


def test_compares_of_what_exists_stay_exact_in_a_large_transaction(store):
    session = put(store, "session/scheduler/a")
    seen = newest(store)
    large = take(*LARGE[:4000], seen=seen)
    fenced = Transaction(
        (*large.compares, Seen("session/scheduler/a", session)), large.operations, seen
    )
    put(store, "session/scheduler/a")
    (conflict,) = store.commit([fenced])
    assert conflict.broken(fenced.compares) == [Seen("session/scheduler/a", session)]


def test_a_large_transaction_whose_view_was_not_complete_is_refused(store):
    before = newest(store)
    with pytest.raises(TransactionTooLarge, match="raise --max-txn-ops on every etcd member"):
        store.commit([take(*LARGE)])
    with pytest.raises(TransactionTooLarge):
        store.commit([take(*LARGE, "one/more", seen=before)])
    assert newest(store) == before


def test_a_group_may_be_as_large_as_the_limit_and_not_larger(store):
    group = [take(f"claim/{number}/a", f"claim/{number}/b") for number in range(127)]
    assert len(store.commit(group[:126])) == 126
    with pytest.raises(TransactionTooLarge, match="needs 129 operations, the store accepts 128"):
        store.commit(group)
    assert store.fits(group[:126])
    assert not store.fits(group)


# ---------------------------------------------------------------------------------------- reads


def test_prefixes_are_read_at_one_revision_in_the_order_of_keys(store):
    first = put(store, "b/1", "a/1", "a/10", "c")
    put(store, "a/2")
    assert [r.key for r in store.read(["b/", "a/"]).records] == ["a/1", "a/10", "a/2", "b/1"]
    old = store.read(["a/", "c"], at=first)
    assert (old.revision, [r.key for r in old.records]) == (first, ["a/1", "a/10", "c"])


def test_a_record_says_when_it_was_created_and_last_written(store):
    created = put(store, "a")
    modified = put(store, "a", value=b"new")
    assert store.read(["a"]).records == [("a", b"new", created, modified)]


def test_any_text_is_a_key(store):
    keys = ["ä", "\U0001f600/x", "a b", "z\x7f"]
    put(store, *keys)
    assert [record.key for record in store.read([""]).records] == sorted(keys)


def test_history_that_was_compacted_is_named(store):
    revisions = [put(store, "a", value=bytes([n])) for n in range(5)]
    store.compact(revisions[2])
    assert store.oldest() == revisions[2]
    assert store.read(["a"], at=revisions[2]).records[0].value == b"\x02"
    with pytest.raises(RevisionCompacted) as gone:
        store.read(["a"], at=revisions[1])
    assert (gone.value.asked, gone.value.oldest) == (revisions[1], revisions[2])
    store.compact(revisions[1])  # gone already: no error
    store.compact(revisions[2])


def test_the_future_can_be_neither_read_nor_compacted(store):
    with pytest.raises(StoreRefused):
        store.read(["a"], at=newest(store) + 1)
    with pytest.raises(StoreRefused):
        store.compact(newest(store) + 1)


# --------------------------------------------------------------------------------------- watches


class Listener:
    """What a watch said."""

    def __init__(self, store, prefixes, after):
        self.messages: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.watch = store.watch(prefixes, after=after, deliver=self.messages.put)

    def next(self):
        return self.messages.get(timeout=10)

    def up_to(self, revision):
        """All changes before the progress that says this revision."""
        changes: list[Any] = []
        self.watch.ask_progress()
        while (message := self.next()) != Progress(revision):
            changes += message.changes if isinstance(message, Changes) else []
        return changes


def test_a_watch_tells_what_happened_before_and_after_it_began(store):
    first = put(store, "a/1")
    second = put(store, "a/2", "b/1")
    listener = Listener(store, ["a/"], after=first)
    assert listener.up_to(second) == [("a/2", b"v", second, second)]
    (gone,) = store.commit([Transaction((), (Delete("a/1"),))])
    assert listener.up_to(gone.revision) == [("a/1", None, 0, gone.revision)]


def test_a_watch_from_now_on_answers_although_nobody_ever_writes(store):
    # etcd does not answer a watch that starts above its newest revision.
    now = put(store, "a")
    listener = Listener(store, ["a", "b"], after=now)
    assert listener.up_to(now) == []


def test_a_watch_of_two_prefixes_tells_both(store):
    start = newest(store)
    listener = Listener(store, ["a/", "b/"], after=start)
    revision = put(store, "a/1", "b/1", "c/1")
    assert {change.key for change in listener.up_to(revision)} == {"a/1", "b/1"}


def test_a_watch_that_starts_at_the_oldest_revision_kept_is_told_of_it(store):
    put(store, "a", "b")
    (kept,) = store.commit([Transaction((), (Put("a", b"kept"), Delete("b")))])
    last = put(store, "c")
    store.compact(kept.revision)
    listener = Listener(store, [""], after=kept.revision - 1)
    told = listener.up_to(last)
    assert [(change.key, change.value) for change in told[:2]] == [("a", b"kept"), ("b", None)]


def test_a_watch_that_starts_before_the_oldest_revision_kept_is_lost(store):
    put(store, "a")
    kept = put(store, "a")
    store.compact(kept)
    message = Listener(store, ["a"], after=kept - 2).next()
    assert isinstance(message, Lost)
    assert message.compacted == kept


def test_a_closed_watch_says_nothing_more(store):
    listener = Listener(store, ["a"], after=newest(store))
    listener.up_to(newest(store))
    listener.watch.close()
    put(store, "a")
    other = Listener(store, ["a"], after=newest(store) - 1)
    assert other.next()
    assert listener.messages.empty()
