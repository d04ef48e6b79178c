"""What does a slice do after it lost a race, and what does it cost others to let it in?"""

from dataclasses import replace
from statistics import mean

import pytest

from flowos.model.cell import Tenant
from flowos.model.codec import decode, encode
from flowos.model.placement import Mark
from flowos.model.slice import Phase, Reason, SliceSpec
from flowos.model.transaction import Put
from flowos.planning.policy import Policy
from flowos.runtime.marks import LOSSES_MAX
from flowos.runtime.scheduling import Scheduling
from flowos.runtime.shown import slice_shown
from tests.runtime.cells import small_cell, wanted
from tests.runtime.theatre import Player, Theatre


def machine(player: Player) -> Scheduling:
    assert isinstance(player.machine, Scheduling)
    return player.machine


def until_sent(player: Player) -> None:
    """Let a scheduler go on until its request is on the way."""
    while not player.requests:
        move = player.next_move()
        if move:
            player.move(move)
        else:
            player.theatre.advance(player.machine.wake_at())


def test_a_gang_that_lost_one_engine_keeps_the_others_and_takes_another_one():
    theatre = Theatre(small_cell(nodes=4, fpgas=0))
    theatre.forgiven.add("claims")
    player = theatre.scheduler(alone=True)
    theatre.submit(wanted("gang", gpus=6))
    until_sent(player)
    (planned,) = player.requests[0].proposals
    assert planned.placement is not None
    before = planned.placement.engines["workers"]
    lost = before[2]
    theatre.write(Put(f"claim/engine/{lost}", encode(("default/rival", "a0", ()))))
    theatre.play(1.0)
    after = theatre.held("default/gang")
    assert [engine for engine in before if engine != lost] == [e for e in after if e in before]
    assert lost not in after
    assert len(after) == 6
    assert machine(player).figures.repaired == 1


def test_the_more_races_a_slice_has_lost_the_sooner_it_comes_again():
    scheduling = machine(Theatre(small_cell()).scheduler())
    scheduling._heat = 6
    pauses = [mean(scheduling._pause(losses) for _ in range(500)) for losses in (1, 4, 16)]
    assert pauses == sorted(pauses, reverse=True)
    assert pauses[0] > 3 * pauses[2]


def test_lost_races_make_all_pauses_longer_and_won_ones_shorter_again():
    theatre = Theatre(small_cell(nodes=1, gpus=1))
    theatre.forgiven |= {"claims"}
    player = theatre.scheduler(alone=True)
    theatre.write(Put("claim/engine/n0/gpu0", encode(("default/nobody", "a0", ()))))
    theatre.submit(wanted("x", gpus=1))
    theatre.play(30.0)
    hot = machine(player)._heat
    assert hot >= 3
    theatre.submit(*(wanted(f"c{n}", cpu_millis=1) for n in range(hot)))
    theatre.play(1.0)
    assert machine(player)._heat == 0


def test_a_slice_that_keeps_losing_asks_others_to_leave_its_units_alone():
    theatre = Theatre(small_cell(fpgas=0))
    theatre.forgiven |= {"claims"}
    player = theatre.scheduler(alone=True)
    theatre.submit(wanted("x", gpus=2))
    until_sent(player)
    for loss in range(LOSSES_MAX + 1):  # each time its slice changes before the request is there
        until_sent(player)
        while player.requests[0].proposals[0].step != "commit":
            player.move("send")
            until_sent(player)
        theatre.wish("default/x", submitted_at=float(loss + 1))
        player.move("send")
    assert machine(player)._waiting["default/x"].losses >= LOSSES_MAX
    theatre.settle()
    (mark,) = (decode(Mark, r.value) for r in theatre.records("mark/").values())
    assert (mark.why, mark.eta_seconds, len(mark.units)) == ("losing", 0.0, 2)
    theatre.play(3.0)
    assert theatre.held("default/x")
    assert not theatre.records("mark/")


def test_how_often_and_how_long_a_slice_tried_is_told_even_where_the_watch_was_faster():
    theatre = Theatre(small_cell())
    player = theatre.scheduler(alone=True)
    theatre.submit(wanted("x", gpus=1))
    until_sent(player)
    player.move("send")
    while "hear" in player.possible_moves():
        player.move("hear")
    theatre.advance(theatre.clock.now + 2.0)
    theatre.settle()
    shown = machine(player).figures_now(10.0)
    assert shown["attempts"] == {"p50": 1, "p99": 1}
    assert shown["wait_seconds"] == {"p50": 2.0, "p99": 2.0}
    assert shown["stale_revisions"] == {"p50": 1, "p99": 1}


# -------------------------------------------------------------------------------------- take-overs


def lesser(name: str, **more) -> SliceSpec:
    return wanted(name, preemptible=True, **more)


def full_of_lesser() -> Theatre:
    theatre = Theatre(small_cell(fpgas=0))
    theatre.scheduler(alone=True)
    theatre.controller()
    theatre.agent()
    theatre.submit(*(lesser(f"low{n}", gpus=1, run_for=60.0) for n in range(4)))
    theatre.play(1.0)
    return theatre


def test_a_more_important_slice_takes_over_from_just_as_many_as_it_needs():
    theatre = full_of_lesser()
    theatre.submit(wanted("high", gpus=2, priority=5, run_for=5.0))
    theatre.play(3.0)
    assert theatre.phase("default/high") is Phase.RUNNING
    left = [n for n in range(4) if theatre.phase(f"default/low{n}") is Phase.RUNNING]
    assert len(left) == 2
    assert machine(theatre.players[0]).figures.preemptions == 1
    theatre.play(10.0)
    assert all(theatre.phase(f"default/low{n}") is Phase.RUNNING for n in range(4))


def test_nobody_gives_way_to_a_slice_that_its_quota_keeps_waiting():
    theatre = full_of_lesser()
    theatre.write(Put("tenant/poor", encode(Tenant("poor", quota={"gpu": 1}))))
    theatre.submit(replace(wanted("high", gpus=2, priority=5), tenant="poor"))
    theatre.play(5.0)
    assert theatre.placement("poor/high") is None
    assert theatre.waiting("poor/high").reason is Reason.QUOTA_EXCEEDED
    assert all(theatre.phase(f"default/low{n}") is Phase.RUNNING for n in range(4))


@pytest.mark.parametrize("priority", [0, -1])
def test_whoever_is_as_important_or_less_waits(priority):
    theatre = full_of_lesser()
    theatre.submit(wanted("other", gpus=2, priority=priority))
    theatre.play(5.0)
    assert theatre.placement("default/other") is None
    assert machine(theatre.players[0]).figures.preemptions == 0


def test_many_who_want_to_take_over_do_it_one_after_the_other():
    theatre = full_of_lesser()
    theatre.submit(*(wanted(f"high{n}", gpus=1, priority=5 + n, run_for=5.0) for n in range(4)))
    theatre.play(4.0)
    assert all(theatre.placement(f"default/high{n}") for n in range(4))
    theatre.play(30.0)
    assert all(theatre.placement(f"default/low{n}") for n in range(4))


def test_a_slice_that_took_over_says_whose_end_it_waits_for():
    theatre = Theatre(small_cell(fpgas=0))
    theatre.scheduler(alone=True)
    theatre.submit(*(lesser(f"low{n}", gpus=2) for n in range(2)))
    theatre.settle()
    theatre.submit(wanted("high", gpus=2, priority=5))
    theatre.settle()
    message = slice_shown(theatre.view(), "default/high")["message"]
    assert message.startswith("it takes over from default/low")


def test_a_slice_whose_policy_fails_shows_what_it_failed_with():
    class Failing(Policy):
        name = "batch"

        def plan(self, pool, spec, *, seed, avoid):
            raise ValueError("no idea")

    theatre = Theatre(small_cell())
    player = theatre.scheduler(policy=Failing())
    theatre.submit(wanted("x", gpus=1))
    theatre.settle()
    shown = slice_shown(theatre.view(), "default/x")
    assert (shown["reason"], shown["message"]) == (
        "SchedulerDown", "policy batch failed: ValueError: no idea",
    )  # fmt: skip
    player.exit()
    theatre.advance(theatre.clock.now + 60.0)
    assert (
        "no scheduler with policy batch runs" in slice_shown(theatre.view(), "default/x")["message"]
    )
