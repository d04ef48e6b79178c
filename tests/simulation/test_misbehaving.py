"""Does a scheduler that claims at random and retries blindly harm anybody, in virtual time?"""

import pytest

from flowos.model.transaction import Transaction
from flowos.simulation.neighbours import Neighbour, Neighbourhood, Told
from flowos.simulation.trial import Failure
from flowos_schedulers.batch import Batch
from flowos_store.memory import MemoryStore

SEEDS = (1, 2, 3)
CLAIMED = 50  # claims that it sends at least: else nothing was tried


def neighbourhood(seed: int, neighbour: Neighbour, new_store=MemoryStore) -> Neighbourhood:
    return Neighbourhood(
        seed, new_store=new_store, policy=Batch(), neighbour=neighbour, seconds=0.2
    )


@pytest.fixture(scope="module")
def alone() -> dict[int, Told]:
    return {seed: neighbourhood(seed, Neighbour.NOBODY).play() for seed in SEEDS}


@pytest.mark.parametrize("neighbour", [Neighbour.RANDOM, Neighbour.COVETOUS])
def test_the_others_place_nine_tenths_of_what_they_place_without_it(alone, neighbour):
    beside = {}
    for seed in SEEDS:
        # A law that is broken at any revision, such as a unit held twice, ends it.
        played = neighbourhood(seed, neighbour)
        beside[seed] = found = played.play()
        assert found.tried >= CLAIMED
        assert found.won < found.tried, "it never lost: nothing was tried"
        assert played.held() == ()
        # Of what was refused nothing is there, but one may have been on its way.
        theirs = len(played.store.read(["slice/bad/"]).records)
        assert found.won <= theirs <= found.won + 1
    with_it = sum(found.rate for found in beside.values())
    without = sum(found.rate for found in alone.values())
    assert with_it >= 0.9 * without


def test_beside_one_that_is_well_behaved_nothing_is_lost_either(alone):
    found = neighbourhood(SEEDS[0], Neighbour.GOOD).play()
    assert found.tried == 0
    assert found.rate >= 0.9 * alone[SEEDS[0]].rate


def test_the_same_behind_a_store_that_takes_time_costs_a_place_in_its_queue():
    alone, beside = (
        Neighbourhood(
            1,
            new_store=MemoryStore,
            policy=Batch(),
            neighbour=who,
            one_by_one=True,
            seconds=0.2,
        ).play()
        for who in (Neighbour.NOBODY, Neighbour.RANDOM)
    )
    assert beside.wait(0.5) > alone.wait(0.5)
    assert beside.rate >= 0.75 * alone.rate


class Gullible(MemoryStore):
    """Takes the misbehaving one's claims, whatever they rest on."""

    def commit(self, transactions, **more):
        bad = [any(o.key.startswith("placement/bad/b") for o in t.operations) for t in transactions]
        return super().commit(
            [
                Transaction((), t.operations) if theirs else t
                for t, theirs in zip(transactions, bad, strict=True)
            ],
            **more,
        )


def test_a_store_that_believed_it_would_be_found_out():
    with pytest.raises(Failure, match="is broken"):
        neighbourhood(1, Neighbour.RANDOM, Gullible).play()
