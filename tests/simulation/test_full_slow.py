"""A policy that thinks for long: what it has planned is looked at again before it is sent."""

import pytest

from flowos.documents.presets import preset
from flowos.model.slice import EngineChoice, EngineRole, SliceSpec
from flowos.simulation.full.run import run
from flowos.simulation.full.setup import Arrival, Setup, Team
from flowos.simulation.light.schedulers import Pace
from flowos_schedulers.batch import Batch
from flowos_store import MemoryStore

CELL = preset("fat-tree:16")  # two nodes of eight


def asks(name, at, engines, team, runs=100.0):
    spec = SliceSpec(
        name=name, policy=team, engines={"workers": EngineRole((EngineChoice(count=engines),))}
    )
    return Arrival(at, spec, runs)


def play(arrivals, looks="live", **more):
    teams = (Team("slow", Batch(), 1, Pace(5.0, 0.0)), Team("quick", Batch()))
    return run(
        Setup(CELL, teams, looks=looks, homes=False, **more), arrivals, new_store=MemoryStore
    )


# While one thinks about twelve engines, the other takes four of the sixteen: some of the twelve.
MEANWHILE = [asks("big", 1.0, 12, "slow"), asks("small", 3.0, 4, "quick")]


def test_what_broke_meanwhile_is_replaced_and_nothing_is_lost():
    found = play(MEANWHILE)
    slow = found.teams["slow"]
    assert (found.placed, found.conflicts) == (2, 0)
    assert slow.plans == 1
    assert slow.waits.most < 5.1


def test_without_a_second_look_the_same_is_lost_and_thought_over_again():
    found = play(MEANWHILE, looks="frozen")
    slow = found.teams["slow"]
    assert (slow.conflicts, slow.placed, slow.plans) == (1, 1, 2)
    assert slow.waits.most > 10.0
    assert slow.schedulers[0].wasted_s == 5.0


def test_a_plan_does_not_wait_for_the_next_slice_to_be_thought_over():
    found = play([asks("a", 1.0, 2, "slow"), asks("b", 1.0, 2, "slow")])
    first = 2 * found.waits.mean - found.waits.most  # there are two
    assert first < 5.1
    assert found.waits.most > 10.0


def test_what_cannot_be_replaced_is_thought_over_again():
    # All but one node's engines go meanwhile, and only when those end is there room again.
    slices = [asks("big", 1.0, 16, "slow"), asks("small", 3.0, 1, "quick", runs=30.0)]
    found = play(slices)
    assert (found.placed, found.conflicts, found.double_holds) == (2, 0, 0)
    assert found.teams["slow"].waits.most > 32.0


def test_a_slow_slice_that_gives_up_nothing_is_still_placed_beside_many_quick_ones():
    quick = [asks(f"q{n}", 0.1 * n, 1, "quick", runs=0.5) for n in range(400)]
    found = play([asks("big", 1.0, 8, "slow"), *quick])
    assert found.teams["slow"].placed == 1
    assert found.placed == 401


def test_a_slice_of_a_team_that_is_not_there_is_an_error():
    with pytest.raises(KeyError, match="nobody"):
        play([asks("a", 0.0, 1, "nobody")])
