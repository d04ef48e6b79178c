"""Every history that a store makes has a serial order, and a history that has none is found out.

The first half plants what must never happen into small histories. The second lets threads race at
both stores, and explains all that they were told.
"""

import random
import threading
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowos.model.errors import OutcomeUnknown, StoreRefused
from flowos.model.transaction import (
    Change,
    Committed,
    Compare,
    Conflicted,
    Delete,
    Put,
    Quiet,
    Reading,
    Seen,
    Transaction,
    Versioned,
)
from flowos_store.memory import MemoryStore
from tests.plugins.serial import Contradiction, Recording, Witness, explain, explained
from tests.verify.scene import StoppedClock

START = Reading(1, ())


class Told:
    """A history written by hand: who asked what, when, and was told what."""

    def __init__(self):
        self.recording = Recording()
        self.changes = []
        self.created = {}

    def ask(self, sent_at, answered_at, told, *transactions, client="c"):
        self.recording.note(transactions, sent_at, told, answered_at, client)

    def look(self, sent_at, answered_at, revision, *records, prefix=""):
        self.recording.note_look("r", (prefix,), 0, sent_at, Reading(revision, records))
        look = self.recording.looks[-1]
        self.recording.looks[-1] = replace(look, answered_at=answered_at)

    def revision(self, number, **values):
        """What a revision wrote; None = deleted."""
        for key, value in values.items():
            if value is None:
                self.created.pop(key)
                self.changes.append(Change(key, None, 0, number))
            else:
                created = self.created.setdefault(key, number)
                self.changes.append(Change(key, value, created, number))

    def explain(self):
        return explain(self.recording, self.changes, START)

    def says(self):
        with pytest.raises(Contradiction) as caught:
            self.explain()
        return str(caught.value)


@pytest.fixture
def told():
    return Told()


def put(key, value=b"1", *compares):
    return Transaction(compares, (Put(key, value),))


# ----------------------------------------------------------------------- what has no explanation


def test_a_lost_update_is_found(told):
    told.ask(1, 2, [Committed(2)], put("x"), client="a")
    told.ask(3, 6, [Committed(3)], put("x", b"2", Seen("x", 2)), client="a")
    told.ask(4, 5, [Committed(4)], put("x", b"3", Seen("x", 2)), client="b")
    told.revision(2, x=b"1")
    told.revision(3, x=b"2")
    told.revision(4, x=b"3")
    assert told.says() == (
        "b#3 (put x if x of 2) committed at revision 4, but it relies on x of 2, which was last "
        "written at 3"
    )


def test_a_rivals_claim_on_an_empty_range_is_found(told):
    told.ask(1, 4, [Committed(2)], put("s/a", b"1", Quiet("s/", 0)), client="a")
    told.ask(2, 3, [Committed(3)], put("s/b", b"1", Quiet("s/", 0)), client="b")
    told.revision(2, **{"s/a": b"1"})
    told.revision(3, **{"s/b": b"1"})
    assert told.says() == (
        "b#2 (put s/b if s/* quiet since 0) committed at revision 3, but it relies on s/* quiet "
        "since 0, but s/a was put at 2"
    )


def test_a_doubled_write_is_found(told):
    told.ask(1, 2, [Committed(2)], put("x"), client="a")
    told.revision(2, x=b"1")
    told.revision(3, x=b"1")
    assert told.says() == (
        "revision 3 writes what a#1 (put x) wrote at revision 2 already: it happened twice"
    )


def test_a_write_without_an_answer_that_happened_twice_is_found(told):
    told.ask(1, 2, OutcomeUnknown("no answer"), put("x"), client="a")
    told.ask(3, 4, [Committed(3)], put("y"), client="b")
    told.revision(2, x=b"1")
    told.revision(3, y=b"1")
    told.revision(4, x=b"1")
    assert "revision 4 writes what a#1 (put x) wrote at revision 2 already" in told.says()


def test_a_torn_group_is_found(told):
    group = (put("x"), put("y"), put("z"))
    told.ask(1, 2, [Committed(2)] * 3, *group, client="a")
    told.revision(2, x=b"1", z=b"1")
    assert told.says() == (
        "revision 2 has only a part of a#1 (put x and put y and put z): y is not written"
    )


def test_a_group_whose_member_conflicted_and_wrote_is_found(told):
    told.ask(
        1, 2, [Committed(2), Conflicted(1, {"q": None})], put("x"), put("y", b"1", Seen("q", 5))
    )
    told.revision(2, x=b"1", y=b"1")
    assert "is not what c#1" in told.says()


def test_members_of_a_group_do_not_see_each_other(told):
    # As if the second member had been judged after the first had written.
    record = Versioned("x", b"1", 2, 2)
    told.ask(
        1, 2, [Committed(2), Conflicted(1, {"x": record})], put("x"), put("y", b"1", Seen("x", 0))
    )
    told.revision(2, x=b"1")
    assert "was told a conflict, but at revision 2 all that it relies on holds" in told.says()


def test_a_stale_read_is_found(told):
    told.ask(1, 2, [Committed(2)], put("x"), client="a")
    told.revision(2, x=b"1")
    told.look(3, 4, 1)
    assert told.says() == (
        "r?1 (read of '') is stale: it returned the state before revision 2, which was answered "
        "before it was sent"
    )


def test_a_read_of_a_state_that_never_was_is_found(told):
    told.ask(1, 2, [Committed(2)], put("x"), client="a")
    told.revision(2, x=b"1")
    told.look(3, 4, 2, Versioned("x", b"2", 2, 2))
    assert (
        "fits no state of revision 2, the only one between its sending and its answer"
        in told.says()
    )
    assert "x was not what it returned" in told.says()


def test_reads_that_go_back_in_time_are_found(told):
    told.ask(1, 9, [Committed(2)], put("x"), client="a")
    told.revision(2, x=b"1")
    told.look(2, 3, 2, Versioned("x", b"1", 2, 2))
    told.look(4, 5, 1)
    assert "r?2 (read of '') is stale" in told.says()


def test_a_commit_out_of_real_time_order_is_found(told):
    told.ask(1, 2, [Committed(3)], put("x"), client="a")
    told.ask(3, 4, [Committed(2)], put("y"), client="b")
    told.revision(2, y=b"1")
    told.revision(3, x=b"1")
    assert told.says() == "b#2 (put y) was sent after a#1 (put x) was answered, which comes later"


def test_a_deletion_out_of_real_time_order_is_found(told):
    told.ask(1, 2, [Committed(2)], put("x"), client="a")
    told.ask(3, 4, [Committed(4)], Transaction((), (Delete("x"),)), client="a")
    told.ask(5, 6, [Committed(3)], put("y"), client="b")
    told.revision(2, x=b"1")
    told.revision(3, y=b"1")
    told.revision(4, x=None)
    assert "was answered before b#3 (put y) was sent, which comes earlier" in told.says()


def test_an_answered_write_that_nothing_shows_is_found(told):
    told.ask(1, 2, [Committed(2)], put("x"), client="a")
    told.ask(3, 4, [Committed(3)], put("y"), client="a")
    told.revision(2, x=b"1")
    assert told.says() == "a#2 (put y) was answered as committed, but no revision shows it"


def test_a_refused_write_that_happened_is_found(told):
    told.ask(1, 2, StoreRefused("no space"), put("x"), client="a")
    told.revision(2, x=b"1")
    assert "which was refused: no space" in told.says()


def test_a_write_that_was_told_a_conflict_and_happened_is_found(told):
    told.ask(1, 2, [Committed(2)], put("x"), client="a")
    broken = Conflicted(2, {"x": Versioned("x", b"1", 2, 2)})
    told.ask(3, 4, [broken], put("x", b"2", Seen("x", 0)), client="b")
    told.revision(2, x=b"1")
    told.revision(3, x=b"2")
    assert told.says() == (
        "revision 3 writes what b#2 (put x if x of 0) asked for, which was told a conflict"
    )


def test_what_nobody_asked_for_is_found(told):
    told.ask(1, 2, [Committed(2)], put("x"), client="a")
    told.revision(2, x=b"1")
    told.revision(3, x=b"9", y=b"9")
    assert told.says() == "revision 3 (put x, put y) was asked for by nobody"


def test_a_conflict_without_a_cause_is_found(told):
    told.ask(1, 2, [Conflicted(1, {"x": None})], put("x", b"1", Seen("x", 0)), client="a")
    assert "it was told a conflict, but all that it relies on holds" in told.says()


def test_a_conflict_that_was_none_any_more_when_it_was_asked_is_found(told):
    told.ask(1, 2, [Committed(2)], put("x"), client="a")
    told.ask(3, 4, [Committed(3)], Transaction((), (Delete("x"),)), client="a")
    stale = Conflicted(2, {"x": Versioned("x", b"1", 2, 2)})
    told.ask(5, 6, [stale], put("x", b"1", Seen("x", 0)), client="b")
    told.revision(2, x=b"1")
    told.revision(3, x=None)
    assert "b#3 (put x if x of 0) fits no state of revision 3" in told.says()


def test_a_conflict_with_values_of_another_state_is_found(told):
    told.ask(1, 2, [Committed(2)], put("x"), client="a")
    old = Conflicted(2, {"x": Versioned("x", b"0", 2, 2)})
    told.ask(3, 4, [old], put("x", b"2", Seen("x", 0)), client="b")
    told.revision(2, x=b"1")
    assert "the value of x that it was told is not the one of then" in told.says()


def test_a_commit_that_was_told_another_revision_is_found(told):
    told.ask(1, 2, [Committed(3)], put("x"), client="a")
    told.ask(1, 2, [Committed(2)], put("y"), client="b")
    told.revision(2, x=b"1")
    told.revision(3, y=b"1")
    assert "was told that it committed at revision 3, but it is revision 2" in told.says()


def test_a_history_that_leaves_something_out_is_found(told):
    told.changes = [Change("x", None, 0, 2)]
    assert "revision 2 deletes x, which was not there" in told.says()


def test_the_first_revision_that_has_no_explanation_is_the_one_that_is_named(told):
    for number in range(2, 50):
        told.ask(number, number + 0.5, [Committed(number)], put("x", str(number).encode()))
        told.revision(number, x=str(number if number < 30 else -number).encode())
    assert told.says().startswith("revision 30 ")


# --------------------------------------------------------------------------- what has one


def test_a_write_without_an_answer_may_happen_later_than_all_that_came_after_it(told):
    told.ask(1, 2, OutcomeUnknown("no answer"), put("x"), client="a")
    told.ask(3, 4, [Committed(2)], put("y"), client="b")
    told.revision(2, y=b"1")
    told.revision(3, x=b"1")
    assert [str(one) for _, one in told.explain().order] == ["b#2 (put y)", "a#1 (put x)"]


def test_a_write_without_an_answer_may_never_happen(told):
    told.ask(1, 2, OutcomeUnknown("no answer"), put("x"), client="a")
    assert [str(write) for write in told.explain().never] == ["a#1 (put x)"]


def test_of_two_alike_the_one_that_fits_the_rest_is_chosen(told):
    # Either may have written revision 2, but only b was there at 3.
    told.ask(1, 9, [Committed(3)], put("x"), client="a")
    told.ask(1, 2, [Committed(2)], put("x"), client="b")
    told.revision(2, x=b"1")
    told.revision(3, x=b"1")
    told.ask(3, 4, [Conflicted(2, {"x": Versioned("x", b"1", 2, 2)})], put("z", b"", Seen("x", 0)))
    assert next(str(one) for _, one in told.explain().order) == "b#2 (put x)"


def test_of_two_alike_the_revisions_that_were_told_decide_at_last(told):
    told.ask(1, 5, [Committed(3)], put("x"), client="a")
    told.ask(1, 6, [Committed(2)], put("x"), client="b")
    told.revision(2, x=b"1")
    told.revision(3, x=b"1")
    assert [str(one) for _, one in told.explain().order] == ["b#2 (put x)", "a#1 (put x)"]


def test_a_read_is_explained_though_very_many_orders_would_explain_the_writes(told):
    alike = Transaction((), (Put("k", b"x"),))
    # By time alone the second may have been first; then the read between them saw nothing that was.
    told.ask(1, 20, [Committed(2)], alike)
    told.revision(2, k=b"x")
    told.look(2, 3, 2, Versioned("k", b"x", 2, 2))
    told.ask(4, 6, [Committed(3)], alike)
    told.revision(3, k=b"x")
    for number in range(4, 24, 2):
        told.ask(10 * number, 10 * number + 9, [Committed(number)], alike)
        told.ask(10 * number + 1, 10 * number + 8, [Committed(number + 1)], alike)
        told.revision(number, k=b"x")
        told.revision(number + 1, k=b"x")
    told.explain()


def test_who_put_a_key_with_a_lease_is_thought_over_again(told):
    bare = Transaction((), (Put("k", b"x"),))
    leased = Transaction((), (Put("k", b"x", 7),))
    told.ask(1, 20, OutcomeUnknown("no answer"), leased)
    told.ask(2, 20, OutcomeUnknown("no answer"), bare)
    told.revision(2, k=b"x")
    told.revision(3, k=b"x")
    told.revision(4, k=None)  # the lease ends
    told.explain()


def test_a_deletion_of_what_was_not_there_writes_nothing(told):
    told.ask(1, 2, [Committed(1)], Transaction((), (Delete("x"),)))
    told.ask(3, 4, [Committed(2)], put("x"))
    told.revision(2, x=b"1")
    assert len(told.explain().order) == 2


def test_many_alike_without_answers_are_explained_soon(told):
    for number in range(40):
        told.ask(number, number + 0.5, OutcomeUnknown("no answer"), put("x"))
    for number in range(20):
        told.revision(2 + number, x=b"1")
    assert len(told.explain().never) == 20


# ----------------------------------------------------------------------------- real stores


KEYS = ("a", "a/1", "a/2", "b", "b/1")


class Racer:
    """One client that guesses, conflicts, reads, and repairs."""

    def __init__(self, store, dice, lease=0):
        self.store = store
        self.dice = dice
        self.lease = lease
        self.known = {}  # key -> revision, as last seen
        self.newest = 1

    def transaction(self, keys):
        compares: list[Compare] = []
        for key in self.dice.sample(KEYS, self.dice.randint(0, 2)):
            if self.dice.random() < 0.3:
                compares.append(Quiet(key, self.dice.choice([0, self.newest, self.newest + 3])))
            else:
                compares.append(Seen(key, self.known.get(key, 0)))
        operations = [
            Delete(key)
            if self.dice.random() < 0.3
            else Put(key, self.dice.choice([b"x", b"y"]), self.dice.choice([0, self.lease]))
            for key in keys
        ]
        return Transaction(tuple(compares), tuple(operations))

    def turn(self):
        if self.dice.random() < 0.25:
            reading = self.store.read([self.dice.choice(["", "a", "b/"])])
            self.known |= {record.key: record.modified for record in reading.records}
            self.newest = reading.revision
            return
        keys = self.dice.sample(KEYS, self.dice.randint(0, 4))
        cut = self.dice.randint(0, len(keys))
        group = [self.transaction(keys[:cut])]
        if self.dice.random() < 0.5:
            group.append(self.transaction(keys[cut:]))
        for transaction, outcome in zip(group, self.store.commit(group), strict=True):
            self.newest = max(self.newest, outcome.revision)
            if isinstance(outcome, Committed):
                for operation in transaction.operations:
                    there = isinstance(operation, Put)
                    self.known[operation.key] = outcome.revision if there else 0
            else:
                self.known |= {k: (v.modified if v else 0) for k, v in outcome.keys.items()}


def race(store, seed, clients=4, turns=30):
    """Let threads race, and explain all of it."""
    recording = Recording()
    witness = Witness(store)
    lease = store.lease(600)
    racers = [
        Racer(recording.of(store, f"c{n}"), random.Random(f"{seed} {n}"), lease.id)
        for n in range(clients)
    ]
    go = threading.Barrier(clients)

    def run(racer):
        go.wait()
        for _ in range(turns):
            racer.turn()

    threads = [threading.Thread(target=run, args=(racer,), daemon=True) for racer in racers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    lease.revoke()
    found = explained(recording, witness)
    witness.close()
    assert found.never == ()
    return recording, witness, found


@given(st.integers(0, 2**32))
@settings(max_examples=max(5, settings().max_examples // 5))
def test_threads_at_the_memory_store_have_a_serial_order(seed):
    race(MemoryStore(StoppedClock()), seed)


@pytest.mark.etcd
@pytest.mark.parametrize("seed", range(5))
def test_threads_at_etcd_have_a_serial_order(etcd_store, seed):
    recording, _, found = race(etcd_store(), seed, clients=6, turns=60)
    assert len(found.order) >= len(recording.writes)


@given(st.integers(0, 2**32), st.randoms(use_true_random=False))
@settings(max_examples=max(10, settings().max_examples // 2))
def test_what_was_told_wrong_once_is_found_out(seed, dice):
    recording, witness, _ = race(MemoryStore(StoppedClock()), seed, clients=2, turns=20)
    told = [
        number
        for number, write in enumerate(recording.writes)
        if any(isinstance(outcome, Committed) for outcome in write.told) and write.must_write
    ]
    if not told:
        return
    number = dice.choice(told)
    write = recording.writes[number]
    # As if a commit had been answered by a conflict: who repairs that does it twice.
    lie = tuple(
        Conflicted(o.revision, {c.key: None for c in t.compares if isinstance(c, Seen)})
        if isinstance(o, Committed) and any(isinstance(op, Put) for op in t.operations)
        else o
        for t, o in zip(write.transactions, write.told, strict=True)
    )
    recording.writes[number] = replace(write, told=lie)
    with pytest.raises(Contradiction):
        explain(recording, witness.changes(), witness.start)


@pytest.mark.parametrize("late", [False, True])
def test_a_transaction_that_ranges_guard_may_conflict_over_what_it_does_not_name(late):
    store = MemoryStore(StoppedClock(), operations_max=16)
    recording, witness = Recording(), Witness(store)
    client = recording.of(store, "c")
    client.commit([Transaction((), tuple(Put(f"big/{n:02}b", b"1") for n in range(12)))])
    keys = [f"big/{number:02}" for number in range(40)]
    large = Transaction(
        tuple(Seen(key, 0) for key in keys),
        tuple(Put(key, b"1") for key in keys),
        seen=store.revision - late,
    )
    (outcome,) = client.commit([large])
    assert isinstance(outcome, Conflicted) is late
    explained(recording, witness, operations_max=16)
    if late:
        with pytest.raises(Contradiction, match="all that it relies on holds"):
            explained(recording, witness)


# ------------------------------------------------------------------- stores that are no good


class Careless(MemoryStore):
    """Lets a transaction pass now and then though a compare is broken."""

    passes = 0

    def _verdicts(self, transactions):
        held = super()._verdicts(transactions)
        self.passes += 1
        return [True] * len(held) if self.passes % 9 == 0 else held


class Lagging(MemoryStore):
    """Reads now and then as it was two revisions ago."""

    reads = 0

    def read(self, prefixes, *, at=0):
        self.reads += 1
        if at or self.reads % 5 or self.revision < 4:
            return super().read(prefixes, at=at)
        return super().read(prefixes, at=self.revision - 2)


class Tearing(MemoryStore):
    """Now and then it writes the members of a group one after the other."""

    groups = 0

    def commit(self, transactions, **more):
        self.groups += len(transactions) > 1
        if len(transactions) < 2 or self.groups % 4:
            return super().commit(transactions, **more)
        return [outcome for t in transactions for outcome in super(Tearing, self).commit([t])]


class Repeating(MemoryStore):
    """Carries out a request again now and then, as one that retries what it should not."""

    commits = 0

    def commit(self, transactions, **more):
        self.commits += 1
        outcomes = super().commit(transactions, **more)
        if self.commits % 10 == 0:
            super().commit([replace(t, compares=()) for t in transactions])
        return outcomes


@pytest.mark.parametrize("bad", [Careless, Lagging, Tearing, Repeating])
def test_a_store_that_is_no_good_is_found_out(bad):
    with pytest.raises(Contradiction):
        race(bad(StoppedClock()), seed=1, clients=2, turns=150)
