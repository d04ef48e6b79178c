"""Can gangs hoard, or lock each other out? Every order of their schedulers' moves is a fair draw.

Two gangs that each need the whole cell are the oldest trap of schedulers that take a gang's members
one by one: each gets a half, neither starts. Here a gang is one commit, so whoever loses has nothing.
"""

import random
from collections.abc import Sequence
from itertools import count

import pytest

from flowos.model.slice import Reason, SliceSpec
from tests.runtime.cells import small_cell, wanted
from tests.runtime.theatre import Theatre

RUNS = 1_000
CROWDS = 3  # of a hundred schedulers: a second each
MOVES_MAX = 4_000


def race(seed: int, specs: Sequence[SliceSpec], *, schedulers: int, nodes: int) -> Theatre:
    """Let schedulers that all want to plan all slices move in an order drawn by the seed."""
    draw = random.Random(seed)
    theatre = Theatre(small_cell(nodes=nodes, gpus=2, fpgas=0))
    # Alone: none leaves a slice to another one, which is as bad as it can get.
    players = [theatre.scheduler(f"batch-{n}", alone=True) for n in range(schedulers)]
    theatre.submit(*draw.sample(specs, len(specs)))
    quiet = 0
    for moves in count():
        assert moves < MOVES_MAX * schedulers, "they never come to rest"
        able = [(p, move) for p in players for move in p.possible_moves()]
        if able:
            quiet = 0
            player, move = draw.choice(able)
            player.move(move)
            continue
        later = [p.machine.wake_at() for p in players]
        quiet += 1
        if min(later) == float("inf") or quiet > 20:
            return theatre
        theatre.advance(min(later))
    raise AssertionError


def tried(theatre: Theatre) -> list[str]:
    """The commits of slices in the order in which the store took them: how each ended."""
    lines = [line.split(": ", 1)[1] for line in theatre.trace if ": commit " in line]
    return [line.removeprefix("commit ") for line in lines]


def claims_of(theatre: Theatre) -> dict[str, int]:
    """Slice -> how many units it holds, by the claims alone."""
    found: dict[str, int] = {}
    for record in theatre.records("claim/").values():
        name = record.value.decode().split('"')[1]
        found[name] = found.get(name, 0) + 1
    return found


@pytest.mark.parametrize("part", range(4))
def test_of_two_gangs_that_need_the_whole_cell_one_starts_and_the_other_holds_nothing(part):
    races = 0
    for seed in range(part, RUNS, 4):
        gangs = [wanted(name, gpus=8) for name in ("red", "blue")]
        theatre = race(seed, gangs, schedulers=2, nodes=4)
        placed = [gang.id for gang in gangs if theatre.placement(gang.id)]
        assert len(placed) == 1, f"seed {seed}: {placed}"
        commits = tried(theatre)
        won = [n for n, line in enumerate(commits) if line.endswith(" committed")]
        assert won[0] < 2, f"seed {seed}: started by commit {won[0] + 1}"
        races += len(commits) > 1
        assert claims_of(theatre) == {placed[0]: 8}
        (other,) = {gang.id for gang in gangs} - {*placed}
        assert theatre.waiting(other).reason is Reason.WAITING_FOR_ENGINES
    assert races > RUNS // 40, "hardly any of them raced: nothing was tried"


def test_gangs_of_half_a_cell_in_a_hundred_ways_never_lock_each_other_out():
    """A hundred schedulers, five gangs of half the cell each: two run, whatever the order."""
    for seed in range(CROWDS):
        gangs = [wanted(f"half-{n}", gpus=4) for n in range(5)]
        theatre = race(seed, gangs, schedulers=100, nodes=4)
        placed = {gang.id for gang in gangs if theatre.placement(gang.id)}
        assert len(placed) == 2, f"seed {seed}: {placed}"
        assert claims_of(theatre) == dict.fromkeys(placed, 4)


@pytest.mark.parametrize("seed", range(3))
def test_what_lost_runs_as_soon_as_it_can(seed):
    gangs = [wanted(f"gang-{n}", gpus=8) for n in range(4)]
    theatre = race(seed, gangs, schedulers=2, nodes=4)
    finished: list[str] = []
    while len(finished) < len(gangs):
        (now,) = {gang.id for gang in gangs if theatre.placement(gang.id)}
        finished.append(now)
        theatre.take_away(now)
        theatre.play(5.0, lambda: any(theatre.placement(gang.id) for gang in gangs))
    assert sorted(finished) == sorted(gang.id for gang in gangs)
