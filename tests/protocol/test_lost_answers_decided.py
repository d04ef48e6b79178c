"""Each interleaving of part 4 of the model, played on the real session, fence and store.

`model_answers` finds them; here the real code meets them one by one, and each planted mistake of
the model is what one of these tests would see.
"""

import pytest

from flowos.model.errors import OutcomeUnknown, SessionLost, StoreUnreachable
from flowos.model.transaction import Committed, Conflicted, Put, Reading, Seen, Transaction
from flowos.runtime.requests import Look, Write, carry_out
from flowos.runtime.tenure import Tenure
from flowos_store.memory import MemoryStore
from tests.protocol.world import StillClock

LOST = OutcomeUnknown("no answer")


class Play:
    """A process with a session, and the store that its requests reach when the test says so."""

    def __init__(self) -> None:
        self.store = MemoryStore(StillClock())
        self.tenure = self.opened("p@1")

    def opened(self, identifier: str) -> Tenure:
        tenure = Tenure(identifier, "scheduler", "p", "", 0.0)
        carry_out(tenure.open(3600), self.store)
        return tenure

    def request(self, attempt: str) -> Transaction:
        key = f"placement/t/{attempt}"
        return Transaction((self.tenure.fence.compare, Seen(key, 0)), (Put(key, b""),))

    def lands(self, transaction: Transaction) -> bool:
        (outcome,) = self.store.commit([transaction])
        return isinstance(outcome, Committed)

    def there(self) -> list[str]:
        return [r.key.rpartition("/")[2] for r in self.store.read(("placement/",)).records]

    def refence(self) -> int:
        return carry_out(self.tenure.refence(), self.store)


def test_what_lands_between_a_first_look_and_the_fence_is_found_by_the_look_after_it():
    play = Play()
    request = play.request("a")
    assert play.there() == [], "a read alone would decide that it did not happen"
    assert play.lands(request)
    assert play.refence() <= play.store.revision
    assert play.there() == ["a"]


def test_what_arrives_after_the_fence_does_nothing():
    play = Play()
    request = play.request("a")
    fence = play.refence()
    assert play.there() == []
    assert not play.lands(request)
    assert play.store.revision == fence


def test_a_view_from_before_the_fence_may_not_know_what_happened():
    play = Play()
    request = play.request("a")
    older = play.store.revision
    assert play.lands(request)
    assert play.refence() > older, "so the view has to be complete up to the fence"
    assert play.store.read(("placement/",), at=older).records == []


def test_a_fence_whose_own_answer_is_lost_and_that_never_lands_decides_nothing():
    play = Play()
    request, before = play.request("a"), play.tenure.fence
    fencing = play.tenure.refence()
    assert isinstance(next(fencing), Write)
    look = fencing.throw(LOST)
    assert isinstance(look, Look)
    with pytest.raises(StoreUnreachable):
        fencing.send(look.ask(play.store))
    assert play.tenure.fence == before
    assert play.lands(request), "it still could, so it was right to decide nothing"


def test_a_fence_that_landed_unheard_is_found_and_counts():
    play = Play()
    request = play.request("a")
    fencing = play.tenure.refence()
    write = next(fencing)
    write.ask(play.store)
    look = fencing.throw(LOST)
    with pytest.raises(StopIteration) as done:
        fencing.send(look.ask(play.store))
    assert done.value.value == play.tenure.fence.revision == play.store.revision
    assert not play.lands(request)


def test_a_fence_that_arrives_after_the_next_one_undoes_nothing():
    play = Play()
    fencing = play.tenure.refence()
    late = next(fencing)
    assert isinstance(late, Write)
    look = fencing.throw(LOST)
    with pytest.raises(StoreUnreachable):
        fencing.send(look.ask(play.store))
    play.refence()
    fenced = play.tenure.fence
    assert isinstance(late.ask(play.store)[0], Conflicted)
    assert play.lands(play.request("b")), "what compares the newer fence is let in"
    assert play.tenure.fence == fenced


def test_of_two_requests_under_way_the_fence_of_one_ends_both():
    play = Play()
    one, other = play.request("a"), play.request("b")
    play.refence()
    assert not play.lands(one)
    assert not play.lands(other)
    assert play.lands(play.request("c"))


def test_a_fence_from_before_a_request_was_sent_says_nothing_of_it():
    play = Play()
    play.refence()
    request = play.request("b")
    assert play.there() == []
    assert play.lands(request), "only a fence at a later revision than it compares keeps it out"


def test_a_session_that_ran_out_fences_and_the_next_one_lets_nothing_old_in():
    play = Play()
    request = play.request("a")
    assert play.tenure.lease is not None
    play.tenure.lease.revoke()
    with pytest.raises(SessionLost):
        play.refence()
    assert play.tenure.lost
    assert not play.lands(request)
    play.opened("p@2")
    assert not play.lands(request)
    # Not even where somebody used the id again: it is the revision that is compared.
    play.opened("p@1")
    assert not play.lands(request)


def test_a_session_that_ran_out_while_its_fence_was_lost_is_found_to_be_gone():
    play = Play()
    fencing = play.tenure.refence()
    next(fencing)
    assert play.tenure.lease is not None
    play.tenure.lease.revoke()
    look = fencing.throw(LOST)
    with pytest.raises(SessionLost):
        fencing.send(look.ask(play.store))
    assert isinstance(play.store.read(("session/",)), Reading)
