"""Does a hunt with a small budget find what is bad, and nothing that breaks a law?"""

from dataclasses import replace

import pytest

from flowos.planning.policy import Policy
from flowos.testing.cells import Shaped
from flowos.testing.hunt import OBJECTIVES, Catch, hunt, made_up, simplified
from flowos.testing.interleaving import ALL, NONE, Contest, Ground, play, policy_of
from flowos_schedulers.batch import Batch
from flowos_schedulers.inference import Inference
from flowos_schedulers.mpi import Mpi
from flowos_schedulers.service import Service
from flowos_schedulers.stream import Stream
from flowos_schedulers.training import Training
from flowos_store.memory import MemoryStore

SMALL = 15


@pytest.mark.parametrize("policy", [Batch, Training, Service])
def test_no_order_of_moves_breaks_a_law(policy):
    found = hunt(policy, MemoryStore, examples=SMALL, simpler=False)
    found.check()
    assert found.runs >= SMALL * len(OBJECTIVES)
    assert found.worst.keys() == set(OBJECTIVES)


def test_what_was_found_is_found_again_and_can_be_played_again():
    first, second = (
        hunt(Batch, MemoryStore, objectives=["conflict fraction"], examples=SMALL) for _ in range(2)
    )
    catch = first.worst["conflict fraction"]
    assert second.worst["conflict fraction"] == catch
    again = play(Ground(catch.contest, MemoryStore), catch.choices, policy=Batch)
    assert again.conflict_fraction == catch.score


def test_the_worst_is_looked_for():
    scores = {
        searching: hunt(
            Batch,
            MemoryStore,
            objectives=["unfairness"],
            examples=60,
            searching=searching,
            simpler=False,
            checked=False,
        )
        .worst["unfairness"]
        .score
        for searching in (False, True)
    }
    assert scores[True] >= scores[False] > 0.0


def test_what_was_found_is_made_simpler_and_no_better():
    objective = OBJECTIVES["conflict fraction"]
    contest, choices = max(
        made_up(30), key=lambda made: play(Ground(made[0], MemoryStore), made[1]).conflicts
    )
    run = play(Ground(contest, MemoryStore), choices, policy=Batch)
    catch = Catch(contest, tuple(run.choices), run.conflict_fraction, run)
    simple = simplified(catch, objective, Batch, MemoryStore)
    assert simple.score >= 0.999 * catch.score > 0.0
    assert len(simple.contest.arrivals) <= len(contest.arrivals)
    assert sum(map(bool, simple.choices)) <= sum(map(bool, catch.choices))


def test_without_mitigations_more_is_lost():
    lost = {
        ways: sum(
            play(Ground(contest, MemoryStore), choices, policy=Batch, mitigations=ways).conflicts
            for contest, choices in made_up(25)
        )
        for ways in (ALL, NONE)
    }
    assert lost[ALL] < lost[NONE]


class Greedy(Policy):
    """Does not leave alone what it is told to."""

    name = "greedy"

    def plan(self, pool, spec, *, seed, avoid):
        return super().plan(pool, spec, seed=0, avoid=frozenset())


def test_a_policy_that_asks_for_what_is_refused_again_and_again_is_told_as_an_expression():
    found = hunt(Greedy, MemoryStore, objectives=["wasted work"], examples=60, simpler=False)
    assert found.broken
    with pytest.raises(AssertionError, match=r"(?s)in Contest\(.*choices="):
        found.check()


def test_schedulers_of_different_policies_break_no_law_in_any_order():
    policies = [Batch, Service, Training, Mpi, Stream, Inference]
    found = hunt(
        policies, MemoryStore, objectives=["conflict fraction"], examples=60, simpler=False
    )
    found.check()
    assert found.runs >= 60


def test_a_contest_says_which_policy_each_scheduler_has():
    contest = Contest(Shaped(nodes=1, gpus=1, fpgas=0), (), schedulers=3, kinds=(2, 0))
    policies = [Batch, Service, Training]
    assert [policy_of(policies, contest, n).name for n in range(3)] == [
        "training",
        "batch",
        "batch",
    ]
    one = replace(contest, queues="one")
    assert [policy_of(policies, one, n).name for n in range(3)] == ["training"] * 3
    assert policy_of(Batch, contest, 0).name == "batch"
