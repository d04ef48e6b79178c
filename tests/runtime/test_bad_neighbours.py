"""Do clocks that differ, and watches that are late, harm anybody, and does a gang always start?"""

import random
from collections import deque
from dataclasses import replace
from functools import partial

import pytest

from flowos.model import keys
from flowos.model.codec import encode
from flowos.model.rules import PolicyRules
from flowos.model.slice import Phase
from flowos.model.transaction import Put
from flowos.runtime.marks import STARVING_SECONDS
from flowos_schedulers.batch import Batch
from tests.runtime.cells import small_cell, wanted
from tests.runtime.theatre import Theatre

HOUR = 3600.0
LONGEST = 6.0  # of the small slices
BOUND = STARVING_SECONDS + LONGEST + 5.0  # 5: to look, to clean what is given back, to start
STREAM = 3 * BOUND


def cell(schedulers: int, *ahead: float) -> Theatre:
    theatre = Theatre(small_cell(fpgas=0))
    for number in range(schedulers):
        skew = ahead[number] if ahead else 0.0
        theatre.scheduler(f"batch-{number}", policy=Batch(), ahead_seconds=skew)
    theatre.controller()
    theatre.agent()
    return theatre


def waits_beside_a_stream(theatre: Theatre, seed: int, *, known: bool) -> float:
    """Return for how long a gang of the whole cell waits while small slices never stop coming."""
    dice = random.Random(seed)

    def small() -> None:
        length = dice.uniform(LONGEST / 3, LONGEST)
        spec = wanted(theatre.fresh("small"), gpus=1, run_for=length)
        theatre.submit(replace(spec, expected_seconds=length if known else 0.0, priority=1))

    for _ in range(6):
        small()
    theatre.play(1.0)
    theatre.submit(wanted("big", gpus=4, run_for=1.0, priority=1))
    started = theatre.clock.now
    while theatre.clock.now < started + STREAM:
        for _ in range(2):
            small()
        if theatre.play(1.0, lambda: bool(theatre.held("default/big"))):
            return theatre.clock.now - started
    return float("inf")


@pytest.mark.parametrize("schedulers", [1, 3])
@pytest.mark.parametrize("known", [True, False])
def test_a_gang_of_the_whole_cell_starts_within_the_bound_beside_a_stream(schedulers, known):
    for seed in range(4):
        took = waits_beside_a_stream(cell(schedulers), seed, known=known)
        assert took < BOUND, f"seed {seed}: {took}"


@pytest.mark.parametrize("schedulers", [1, 3])
def test_without_marks_it_does_not(schedulers):
    theatre = cell(schedulers)
    for player in theatre.players[:schedulers]:
        marks = player.machine._marks  # type: ignore[attr-defined]
        marks._starving_seconds = float("inf")
        marks._at_once = lambda: False
        marks.losing = lambda *_: None
    assert waits_beside_a_stream(theatre, 0, known=True) == float("inf")


@pytest.mark.parametrize("ahead", [(0.0, HOUR), (HOUR, 0.0), (-HOUR, HOUR)])
def test_clocks_an_hour_apart_change_nothing_that_matters(ahead):
    for seed in range(3):
        dice = random.Random(seed)
        theatre = cell(2, *ahead)
        theatre.write(Put(keys.POLICIES, encode(PolicyRules(ageing_seconds=20.0))))
        names = [f"s{n:02}" for n in range(16)]
        for name in names:
            theatre.submit(wanted(name, gpus=dice.randrange(1, 5), run_for=dice.uniform(0.5, 3)))
            theatre.play(dice.uniform(0, 0.5))
        theatre.play_out()
        assert {theatre.end(f"default/{n}").phase for n in names} == {Phase.DONE}


def holds_any(theatre: Theatre, names: list[str]) -> bool:
    return any(theatre.held(name) for name in names)


def order_of_starts(*ahead: float) -> list[str]:
    """Return the order in which slices start that each need the whole cell."""
    theatre = cell(len(ahead), *ahead)
    theatre.write(Put(keys.POLICIES, encode(PolicyRules(ageing_seconds=20.0))))
    left = [f"default/s{n}" for n in range(6)]
    for name in left:
        theatre.submit(wanted(name.partition("/")[2], gpus=4, run_for=1.0))
        theatre.play(0.1)
    started: list[str] = []
    while left:
        assert theatre.play(30.0, partial(holds_any, theatre, left))
        now = [name for name in left if theatre.held(name)]
        started += now
        left = [name for name in left if name not in now]
    return started


@pytest.mark.parametrize("ahead", [(0.0, HOUR), (HOUR, 0.0), (-HOUR, HOUR)])
def test_slices_of_equal_priority_start_in_the_order_of_creation_whatever_the_clocks_say(ahead):
    assert order_of_starts(*ahead) == [f"default/s{n}" for n in range(6)]


@pytest.mark.parametrize("seed", range(3))
def test_a_scheduler_whose_watch_is_late_by_all_events_does_not_spin(seed):
    """It plans on what is long taken; once it lost a race, it waits until its view shows that."""
    dice = random.Random(seed)
    theatre = Theatre(small_cell(nodes=8, fpgas=0))
    stale = theatre.scheduler("stale", alone=True)
    theatre.submit(*(wanted(f"s{n:02}", gpus=dice.randrange(1, 3), run_for=1.0) for n in range(20)))
    while "hear" in stale.possible_moves():
        stale.move("hear")  # it knows the queue, and will not hear what others do with it
    theatre.scheduler("fresh", alone=True)
    stale._inbox = deque()  # its watch goes on to fill the other one
    theatre.controller()
    theatre.agent()
    theatre.play(10.0)
    sent = [line for line in theatre.trace if " stale: " in line]
    assert any(line.endswith(" conflicted") for line in sent), "it was not late"
    assert len(sent) <= 40, f"{len(sent)} requests in 10 s"
