"""What do requests that overlap cost each other, of one scheduler and of several?"""

import pytest

from flowos.model.placement import Unplaceable
from flowos.model.slice import Reason, SliceSpec
from flowos.protocol import system
from flowos.runtime.machine import Commit
from flowos.runtime.scheduling import (
    AFAR_SECONDS,
    OVERLAP_SECONDS,
    Scheduling,
)
from flowos.runtime.underway import GROUP_ALONE_MAX, GROUP_MAX, GROUPS_MAX
from flowos_schedulers.batch import Batch
from tests.runtime.cells import small_cell, wanted
from tests.runtime.theatre import Player, Theatre


def machine(player: Player) -> Scheduling:
    assert isinstance(player.machine, Scheduling)
    return player.machine


# ------------------------------------------------------------------------- several requests at once


def under_way(player: Player, specs: list[SliceSpec]) -> list[Commit]:
    """Submit slices and let a scheduler plan as long as it wants to, but send nothing."""
    theatre = player.theatre
    theatre.settle()
    theatre.submit(*specs)
    while player.next_move() in ("hear", "be told", "step"):
        player.move(player.next_move())
    return list(player.requests)


def test_a_second_group_is_planned_while_the_first_one_is_under_way():
    theatre = Theatre(small_cell(nodes=8, gpus=8))
    player = theatre.scheduler()
    sent = under_way(player, [wanted(f"s{n:02}", gpus=1) for n in range(2 * GROUP_ALONE_MAX)])
    assert [len(commit.proposals) for commit in sent] == [GROUP_ALONE_MAX] * GROUPS_MAX
    taken = [unit for commit in sent for p in commit.proposals for unit in p.placement.held]  # type: ignore[union-attr]
    assert len(taken) == len(set(taken))
    theatre.settle()
    figures = machine(player).figures
    assert (figures.placed, figures.conflicts) == (2 * GROUP_ALONE_MAX, 0)


def test_groups_are_shorter_where_a_rival_may_wait_for_them():
    theatre = Theatre(small_cell(nodes=8, gpus=8))
    player = theatre.scheduler()
    theatre.scheduler()
    sent = under_way(player, [wanted(f"s{n:02}", gpus=1) for n in range(3 * GROUP_MAX)])
    assert {len(commit.proposals) for commit in sent} <= set(range(1, GROUP_MAX + 1))
    assert len(sent[0].proposals) == GROUP_MAX


@pytest.mark.parametrize(
    "asked",
    [{"cpu_millis": 10}, {"gpus": 1, "share": 20}],
    ids=["of a host", "of an engine"],
)
def test_a_part_of_what_a_group_under_way_divides_waits_for_its_answer(asked):
    theatre = Theatre(small_cell(nodes=1, gpus=1))
    player = theatre.scheduler()
    sent = under_way(player, [wanted(f"s{n:02}", **asked) for n in range(GROUP_ALONE_MAX + 4)])
    assert [len(commit.proposals) for commit in sent] == [GROUP_ALONE_MAX]
    theatre.settle()
    figures = machine(player).figures
    assert (figures.placed, figures.conflicts) == (GROUP_ALONE_MAX + 4, 0)


def test_whole_engines_of_one_node_may_be_taken_by_two_groups_at_once():
    theatre = Theatre(small_cell(nodes=1, gpus=72, fpgas=0))
    player = theatre.scheduler()
    # Each takes two, and compares for the whole node that nobody has a part of anything there.
    sent = under_way(player, [wanted(f"s{n:02}", gpus=2) for n in range(36)])
    assert [len(commit.proposals) for commit in sent] == [GROUP_ALONE_MAX, 4]
    theatre.settle()
    assert machine(player).figures.conflicts == 0


def test_a_part_goes_beside_whole_engines_of_its_node_that_are_under_way():
    theatre = Theatre(small_cell(nodes=1, gpus=72, fpgas=0))
    player = theatre.scheduler()
    specs = [wanted(f"s{n:02}", gpus=2) for n in range(GROUP_ALONE_MAX)]
    sent = under_way(player, [*specs, wanted("part", gpus=1, share=100)])
    assert [len(commit.proposals) for commit in sent] == [GROUP_ALONE_MAX, 1]
    theatre.settle()
    figures = machine(player).figures
    assert (figures.placed, figures.conflicts) == (GROUP_ALONE_MAX + 1, 0)


def test_two_groups_that_wake_parts_of_one_engine_do_not_race():
    theatre = Theatre(small_cell(nodes=1, gpus=1))
    fence = theatre.controller().session.fence
    theatre.do(lambda view: system.power_off(view, "n0/gpu0", attempt="off", fence=fence))
    player = theatre.scheduler()
    specs = [wanted(f"s{n}", gpus=1, share=100) for n in range(4)]
    assert [len(commit.proposals) for commit in under_way(player, specs)] == [1]
    theatre.settle()
    assert machine(player).figures.conflicts == 0


def test_a_lost_race_of_one_group_costs_the_other_one_nothing():
    theatre = Theatre(small_cell(nodes=9, gpus=8))
    player = theatre.scheduler()
    first, _ = under_way(player, [wanted(f"s{n:02}", gpus=1) for n in range(2 * GROUP_ALONE_MAX)])
    theatre.drain(next(iter(first.proposals[0].placement.held)))  # type: ignore[union-attr]
    theatre.play(1.0)
    figures = machine(player).figures
    assert (figures.placed, figures.conflicts) == (2 * GROUP_ALONE_MAX, 1)


def test_grants_are_raised_only_while_nothing_is_under_way():
    theatre = Theatre(small_cell(nodes=8, gpus=8, budget=6400))
    player = theatre.scheduler(alone=True)
    theatre.submit(*(wanted(f"s{n:02}", gpus=1) for n in range(40)))
    busy: list[set[str]] = []
    while move := player.next_move():
        player.move(move)
        for _ in range(2):  # something else may always happen
            player.move("step")
        busy.append({p.step for commit in player.requests for p in commit.proposals})
    assert {"commit"} in busy
    assert {"raise grant"} in busy
    assert not any({"commit", "raise grant"} <= steps for steps in busy)
    assert machine(player).figures.conflicts == 0


# ------------------------------------------------------------------------------- side by side


def test_schedulers_of_a_large_cell_do_not_race_for_its_nodes():
    theatre = Theatre(small_cell(nodes=16, gpus=4, fpgas=0))
    players = [theatre.scheduler(f"batch-{n}") for n in range(2)]
    theatre.settle()
    theatre.submit(*(wanted(f"s{n:02}", gpus=1 + n % 3) for n in range(24)))
    theatre.settle()
    figures = [machine(player).figures for player in players]
    assert sum(f.conflicts for f in figures) == 0
    assert sum(f.placed for f in figures) == 24


def test_what_fits_only_where_others_look_first_is_left_to_them_for_a_moment():
    theatre = Theatre(small_cell(nodes=16, gpus=1, fpgas=0))
    one, two = theatre.scheduler("batch-0"), theatre.scheduler("batch-1")
    theatre.settle()
    two.acts = False
    home = [name for name in machine(one).pool.numbers if not machine(one).pool.is_afar(name)]
    names = [f"s{n:02}" for n in range(60)]
    theatre.submit(*(wanted(name, gpus=1) for name in names))
    theatre.settle()
    assert machine(one).figures.placed == len(home)
    theatre.play(2 * AFAR_SECONDS)
    assert machine(one).figures.placed == 16


def test_an_owner_at_work_is_not_helped_out_however_long_its_queue_is():
    theatre = Theatre(small_cell(nodes=16, gpus=8, fpgas=0))

    class Slow(Batch):
        def plan(self, pool, spec, *, seed, avoid):
            theatre.clock.now += 0.05
            return super().plan(pool, spec, seed=seed, avoid=avoid)

    players = [theatre.scheduler(f"batch-{n}", policy=Slow()) for n in range(2)]
    theatre.settle()
    theatre.submit(*(wanted(f"s{n:03}", gpus=1) for n in range(120)))
    started = theatre.clock.now
    theatre.settle()
    assert theatre.clock.now > started + 2 * OVERLAP_SECONDS
    figures = [machine(player).figures for player in players]
    assert sum(f.placed for f in figures) == 120
    assert sum(f.conflicts for f in figures) == 0


def test_slices_that_their_owner_passes_by_are_placed_by_another_soon():
    theatre = Theatre(small_cell(nodes=16, gpus=8, fpgas=0))

    class Blind(Batch):
        """Refuses some slices."""

        def plan(self, pool, spec, *, seed, avoid):
            if spec.name.startswith("odd"):
                return Unplaceable(Reason.WAITING_FOR_ENGINES, "not by me")
            return super().plan(pool, spec, seed=seed, avoid=avoid)

    blind = theatre.scheduler("batch-0", policy=Blind())
    theatre.scheduler("batch-1")
    theatre.settle()
    odd = [f"odd{n}" for n in range(10)]
    theatre.submit(*(wanted(name, gpus=2) for name in odd))
    theatre.play(OVERLAP_SECONDS / 2)
    left = [name for name in odd if not theatre.held(f"default/{name}")]
    assert left, "all were the other's own"
    for n in range(70):  # their owner is at work all the time
        theatre.submit(wanted(f"s{n:03}", gpus=1))
        theatre.play(0.1)
    assert all(theatre.held(f"default/{name}") for name in odd)
    assert machine(blind).figures.placed > 20
