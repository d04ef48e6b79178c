"""Is a run just what its choices say, and are its races those of the production loop?"""

import random
from dataclasses import replace
from math import inf

import pytest

from flowos.model.placement import Unplaceable
from flowos.model.slice import Reason, SliceSpec
from flowos.planning.policy import Policy
from flowos.simulation.full.setup import Arrival
from flowos.simulation.light.schedulers import Pace
from flowos.testing.cells import Shaped, want
from flowos.testing.interleaving import ALL, NONE, Contest, Ground, Played, Restless, play
from flowos_schedulers.batch import Batch
from flowos_store.memory import MemoryStore

AT_ONCE = (Pace(0.0, 0.0),)


def asks(
    name: str, gpus: int = 1, *, at: float = 0.0, runs: float = inf, share: int = 1000, **more
) -> Arrival:
    return Arrival(at, SliceSpec(name, engines={"w": want(gpus, share_millis=share)}, **more), runs)


def contest(*arrivals: Arrival, nodes: int = 1, gpus: int = 1, **more) -> Contest:
    return Contest(Shaped(nodes=nodes, gpus=gpus, fpgas=0), arrivals, **more)


def of(contest: Contest, choices=(), **more) -> Played:
    return play(Ground(contest, MemoryStore), choices, policy=Batch, **more)


def orders(count: int) -> list[list[int]]:
    dice = random.Random(7)
    return [[dice.randrange(12) for _ in range(40)] for _ in range(count)]


RIVALS = contest(asks("a"), asks("b"))


@pytest.mark.parametrize("choices", orders(5))
def test_the_same_choices_are_the_same_run(choices):
    first, second = (of(RIVALS, choices, told=True) for _ in range(2))
    assert first.story == second.story
    again = of(RIVALS, first.choices, told=True)
    assert again.story == first.story


def test_runs_of_one_ground_know_nothing_of_each_other():
    ground = Ground(RIVALS, MemoryStore)
    alone = play(ground, (), policy=Batch, told=True).story
    for choices in orders(5):
        play(ground, choices, policy=Batch)
    assert play(ground, (), policy=Batch, told=True).story == alone


def test_the_calm_order_of_those_who_plan_at_once_has_no_races():
    calm = contest(*(asks(f"s{n}") for n in range(6)), nodes=3, gpus=2, paces=AT_ONCE)
    assert of(calm).conflicts == 0
    assert of(calm).placed == 6
    raced = [of(calm, choices).conflicts for choices in orders(20)]
    assert max(raced) > 0


def test_of_two_that_want_the_same_one_wins_in_any_order():
    won = set[str]()
    for choices in orders(40):
        played = of(RIVALS, choices)
        assert played.placed == 1
        (name,) = played.unplaced
        won |= {"default/a", "default/b"} - {name}
        assert played.conflicts <= 1
        assert played.left == []
    assert won == {"default/a", "default/b"}


def test_nothing_is_late_by_more_than_was_said():
    alone = contest(asks("a"), schedulers=1, delay_s=0.01, paces=(Pace(0.1, 0.0),))
    waits = [of(alone, [11] * 40).waits["default/a"] for _ in range(1)]
    waits += [of(alone, choices).waits["default/a"] for choices in orders(20)]
    # News, a plan, its end, and the request: each up to 10 ms late, around 100 ms of thinking.
    assert all(0.1 <= wait <= 0.14 + 1e-9 for wait in waits)
    assert max(waits) > 0.11


def test_slices_end_after_their_time_and_others_get_what_they_had():
    played = of(contest(asks("a", runs=0.5), asks("b", runs=0.5), schedulers=1))
    assert played.placed == 2
    assert 0.5 < played.waits["default/b"] < 0.6


def test_all_laws_hold_in_any_order():
    many = contest(
        *(asks(f"s{n}", 1 + n % 3, runs=0.05) for n in range(6)), nodes=2, gpus=2, schedulers=3
    )
    for choices in orders(20):
        played = of(many, choices)
        assert played.violations == []
        assert played.unplaced == []


class Careless(MemoryStore):
    """A store that compares nothing."""

    def _verdicts(self, transactions):
        return [True for _ in transactions]

    def fork(self, clock=None):
        copy = Careless(clock or self._clock)
        for name in ("_revision", "_oldest", "_leases_granted", "_expiry"):
            setattr(copy, name, getattr(self, name))
        for name in ("_records", "_keys", "_log", "_grants", "_lease_of"):
            setattr(copy, name, getattr(self, name).copy())
        return copy


def test_a_store_that_lets_two_hold_one_engine_is_found_out():
    played = play(Ground(RIVALS, Careless), (), policy=Batch)
    assert played.placed == 2
    assert played.violations


class Moody(Policy):
    """Finds no place when it is asked for the first time."""

    asked = 0

    def plan(self, pool, spec, *, seed, avoid):
        Moody.asked += 1
        if Moody.asked == 1:
            return Unplaceable(Reason.WAITING_FOR_ENGINES, "not today")
        return super().plan(pool, spec, seed=seed, avoid=avoid)


def test_whoever_waits_though_there_is_room_is_told():
    Moody.asked = 0
    played = play(Ground(contest(asks("a"), schedulers=1), MemoryStore), (), policy=Moody)
    assert played.left == ["default/a"]


def test_whoever_waits_for_what_another_holds_is_not_left():
    played = of(RIVALS)
    assert played.unplaced == ["default/b"]
    assert played.left == []


# ------------------------------------------------------------------------------------ mitigations


def test_without_chance_all_go_for_the_same_place():
    wide = contest(asks("a"), asks("b"), nodes=4)
    with_chance = sum(of(replace(wide, seed=seed)).conflicts for seed in range(12))
    without = sum(
        of(replace(wide, seed=seed), mitigations=ALL.without("chance", "homes")).conflicts
        for seed in range(12)
    )
    assert without == 12
    assert with_chance < 8


def test_without_division_all_plan_the_same_slices():
    shared = contest(*(asks(f"s{n}") for n in range(4)), nodes=4, queues="one")
    same = "the slice or a holder changed"  # two have planned one slice
    assert same not in of(shared).causes
    assert of(shared, mitigations=ALL.without("division")).causes[same] > 0


def test_without_back_off_whoever_lost_is_back_at_once():
    lost = contest(asks("a", 2), asks("b", 2), nodes=2, gpus=2)
    on, off = of(lost), of(lost, mitigations=ALL.without("back_off"))
    assert on.conflicts == off.conflicts == 1
    assert max(off.waits.values()) == pytest.approx(0.02)
    assert max(on.waits.values()) > 0.02


def test_without_repair_a_lost_plan_is_thrown_away():
    lost = contest(asks("a", 1), asks("b", 3), nodes=2, gpus=2, seed=2)
    on, off = (of(lost, mitigations=ways) for ways in (ALL, ALL.without("repair")))
    assert on.conflicts == off.conflicts == 1
    assert (on.wasted, on.placed) == (0.0, 2)
    assert off.wasted > 0.0


def test_without_any_there_are_more_races():
    gangs = contest(*(asks(f"s{n}", 2, runs=0.05) for n in range(4)), nodes=4, gpus=2)
    on = sum(of(gangs, choices).conflicts for choices in orders(20))
    off = sum(of(gangs, choices, mitigations=NONE).conflicts for choices in orders(20))
    assert on < off


# ---------------------------------------------------------------------------- what nobody is seen to hold


def test_a_unit_that_the_store_refuses_is_left_alone_for_a_while():
    ghost = contest(asks("a"), nodes=2, schedulers=1, ghosts=("n0/gpu0",))
    assert of(ghost).conflicts == 1
    assert of(ghost).placed == 1
    only = contest(asks("a"), schedulers=1, ghosts=("n0/gpu0",))
    assert 1 < of(only).conflicts < 6  # 0.5 s, 1 s, 2 s


def test_a_part_of_an_engine_that_the_store_refuses_whole_is_not_asked_for_again():
    ghost = contest(asks("a", share=500), nodes=2, schedulers=1, ghosts=("n0/gpu0",))
    played = of(ghost)
    assert (played.conflicts, played.placed) == (1, 1)
    only = contest(asks("a", share=500), schedulers=1, ghosts=("n0/gpu0",))
    assert 1 < of(only).conflicts < 6


def test_a_run_without_an_end_says_so(monkeypatch):
    monkeypatch.setattr("flowos.testing.interleaving.MOVES_MAX", 4)
    with pytest.raises(Restless, match="no rest after 12 moves"):
        of(RIVALS)
