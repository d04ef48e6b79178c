"""What is a process's session worth, and what does it know after a lost answer?"""

import random
import threading
import time

import pytest

from flowos.model.codec import decode
from flowos.model.errors import (
    OutcomeUnknown,
    SessionLost,
    StoreError,
    StoreRefused,
    StoreUnreachable,
)
from flowos.model.placement import Session
from flowos.model.transaction import Committed, Put, Transaction
from flowos.runtime.clock import SystemClock
from flowos.runtime.session import KEYS_A_REQUEST, ProcessSession
from flowos.runtime.tenure import SOON_SECONDS, Renewals
from tests.runtime.lossy import Fate, LossyStore
from tests.runtime.threads import until


@pytest.fixture
def lossy(store):
    return LossyStore(store)


def opened(store, **more) -> ProcessSession:
    return ProcessSession(store, SystemClock(), "scheduler", "batch-0", policy="batch", **more)


def allowed(store, session: ProcessSession, revision: int | None = None) -> bool:
    """Whether a transaction with the session's fence, or an older one, can happen."""
    fence = session.fence.compare
    if revision is not None:
        fence = fence._replace(revision=revision)
    (outcome,) = store.commit([Transaction((fence,), (Put("x", b"1"),))])
    return isinstance(outcome, Committed)


def test_others_see_who_a_process_is_until_it_closes(store):
    session = opened(store)
    (record,) = store.read(["session/"]).records
    assert record.key == f"session/scheduler/{session.id}"
    assert decode(Session, record.value) == session.record
    assert session.record.policy == "batch"
    session.close()
    assert store.read(["session/"]).records == []


def test_no_id_is_used_twice(memory):
    sessions = [opened(memory) for _ in range(20)]
    assert len({session.id for session in sessions}) == 20
    for session in sessions:
        session.close()


def test_nothing_with_an_older_fence_can_happen_after_the_session_is_put_again(store):
    session = opened(store)
    before = session.fence.revision
    assert allowed(store, session)
    revision = session.refence()
    assert revision > before
    assert session.fence.revision == revision
    assert not allowed(store, session, before)
    assert allowed(store, session)
    session.close()


@pytest.mark.parametrize("fate", [Fate.LANDED, Fate.DROPPED, Fate.LATE])
def test_a_fence_whose_own_answer_is_lost_is_put_until_it_is_certain(lossy, fate):
    session = opened(lossy)
    before = session.fence.revision
    lossy.lose_next(fate, "session/")
    for _ in range(3):
        try:
            revision = session.refence()
            break
        except StoreUnreachable:
            continue
    else:
        pytest.fail("never certain")
    (record,) = lossy.read(["session/"]).records
    assert record.modified == revision == session.fence.revision > before
    assert allowed(lossy, session)
    assert not allowed(lossy, session, before)
    session.close()


def test_a_session_whose_lease_is_over_cannot_be_put_again(store):
    lost = threading.Event()
    session = opened(store, on_lost=lost.set)
    session._lease.revoke()
    with pytest.raises(SessionLost, match="is over: start again"):
        session.refence()
    assert lost.is_set()
    assert session.lost
    assert not allowed(store, session)


@pytest.mark.parametrize("revisions_between", [0, 1])
def test_a_key_that_somebody_else_put_does_not_bring_a_lost_session_back(store, revisions_between):
    session = opened(store)
    session._lease.revoke()
    for _ in range(revisions_between):
        store.commit([Transaction((), (Put("x", b"1"),))])
    with pytest.raises(SessionLost):
        session.refence()
    with pytest.raises(SessionLost):
        session.refence()


def test_the_keeper_says_once_that_the_lease_is_over(store):
    calls = []
    session = opened(store, ttl_seconds=2, on_lost=lambda: calls.append(1))
    session._lease.revoke()
    until(lambda: calls, "the keeper noticed")
    with pytest.raises(SessionLost):
        session.refence()
    assert calls == [1]


@pytest.mark.etcd
def test_a_session_lives_as_long_as_its_process(etcd_store):
    store = etcd_store()
    session = opened(store, ttl_seconds=2)
    time.sleep(2.5)  # the one thing that can only be seen by waiting: it is renewed
    assert allowed(store, session)
    session.close()


class MoodyLease:
    """A lease whose store answers as the test says, and then as if all were well."""

    id = 1

    def __init__(self, *errors: StoreError) -> None:
        self.errors = list(errors)
        self.asked = 0
        self.hangs = threading.Event()
        self.hangs.set()

    def keep_alive(self) -> float:
        self.asked += 1
        if self.errors:
            raise self.errors.pop(0)
        return 1.0

    def revoke(self) -> None:
        self.hangs.wait()
        if self.errors:
            raise self.errors.pop(0)


def test_a_store_that_is_silent_or_says_no_for_a_while_does_not_end_a_session(memory):
    session = opened(memory, ttl_seconds=1)
    lease = MoodyLease(StoreUnreachable("?"), StoreRefused("auth: no"), OutcomeUnknown("?"))
    session._lease = lease
    until(lambda: lease.asked >= 4, "it was renewed after three failures")
    assert not session.lost
    session.close()


def test_a_renewal_that_failed_is_tried_again_long_before_the_next_is_due():
    renewals = Renewals(30.0, random.Random(1))
    assert renewals.worked() == 10.0
    pauses = [renewals.failed() for _ in range(12)]
    assert pauses[0] == SOON_SECONDS
    assert max(pauses) <= 5.0
    assert sum(pauses[:6]) < 3.0
    assert renewals.worked() == 10.0
    assert max(Renewals(3.0, random.Random(1)).failed() for _ in range(12)) <= 1.0


def test_many_keys_live_under_one_lease(store):
    session = opened(store)
    names = [f"session/agent/n{number:03}" for number in range(KEYS_A_REQUEST * 2 + 5)]
    revisions = session.put_leased(dict.fromkeys(names, session.record))
    assert list(revisions) == names
    found = {r.key: r.modified for r in store.read(["session/agent/"]).records}
    assert found == revisions
    session.close()
    assert store.read(["session/"]).records == []


def test_a_key_of_this_life_is_not_taken_back_by_what_an_earlier_life_has_on_its_way(lossy):
    first = opened(lossy)
    lossy.lose_next(Fate.LATE, "session/agent/")
    with pytest.raises(OutcomeUnknown):
        first.put_leased({"session/agent/n0": first.record})
    second = opened(lossy.inner)
    revisions = second.put_leased({"session/agent/n0": second.record})
    lossy.commit([Transaction((), (Put("x", b"1"),))])  # and the lost one right after it
    assert lossy.late_outcomes
    first.close()
    found = {r.key: r.modified for r in lossy.read(["session/agent/"]).records}
    assert found == revisions
    second.close()


def test_a_key_that_changes_while_it_is_taken_over_is_taken_all_the_same(lossy):
    session = opened(lossy)
    read = lossy.read

    def interfere(prefixes, *, at=0):
        reading = read(prefixes, at=at)
        lossy.inner.commit([Transaction((), (Put("session/agent/n0", b"{}"),))])
        return reading

    lossy.read = interfere
    revisions = session.put_leased({"session/agent/n0": session.record})
    lossy.read = read
    (record,) = lossy.read(["session/agent/"]).records
    assert revisions == {record.key: record.modified}
    session.close()


def test_keys_of_a_session_that_is_over_are_not_written(store):
    session = opened(store)
    session._lease.revoke()
    with pytest.raises((SessionLost, StoreRefused)):
        session.put_leased({"session/agent/n0": session.record})
    assert store.read(["session/"]).records == []


def test_a_session_that_could_not_be_opened_leaves_no_lease_behind(lossy):
    lossy.lose_next(Fate.LANDED, "session/")
    with pytest.raises(OutcomeUnknown):
        opened(lossy, ttl_seconds=60)
    assert lossy.read(["session/"]).records == []


def test_closing_does_not_wait_long_for_a_store_that_hangs(memory):
    session = opened(memory)
    lease = MoodyLease()
    lease.hangs.clear()
    session._lease = lease
    started = time.monotonic()
    session.close()
    assert time.monotonic() - started < 5
    lease.hangs.set()


def test_closing_a_session_out_of_reach_is_no_error(memory):
    session = opened(memory)
    session._lease = MoodyLease(OutcomeUnknown("no answer"))
    session.close()
