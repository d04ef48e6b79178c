"""Does a more important slice get its place, and do those who gave way come back? Whoever dies."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from flowos.model.slice import HostRole, Phase, Reason, Run, SliceSpec
from flowos.runtime.story import told
from flowos.simulation.devices import Bench
from tests.runtime.cells import wanted
from tests.runtime.stage import Stage
from tests.runtime.theatre import Player

TAKER = "default/gang"
GRACE_SECONDS = 30.0


def small(name: str, *, seconds: float = 100.0, grace: float = 0.0, **more: Any) -> SliceSpec:
    """A slice with one GPU that gives way."""
    run = Run(for_seconds=seconds, grace_seconds=grace)
    return replace(wanted(name, gpus=1), run=run, preemptible=True, **more)


def gang(count: int = 4, priority: int = 5, seconds: float = 10.0) -> SliceSpec:
    """A slice that is more important."""
    return wanted("gang", gpus=count, run_for=seconds, priority=priority)


def ring() -> SliceSpec:
    """A slice of four GPUs with circuits, that gives way with its grace."""
    run = Run(for_seconds=12.0, grace_seconds=GRACE_SECONDS)
    return replace(wanted("ring", gpus=4, ring=True, preemptible=True), run=run)


def full(stage: Stage, count: int = 4, **more: Any) -> list[str]:
    """Fill a cell with slices that give way, each of which runs."""
    names = [f"default/s{n}" for n in range(count)]
    stage.submit(*(small(name.partition("/")[2], **more) for name in names))
    for name in names:
        stage.until(name, Phase.RUNNING)
    return names


def test_a_gang_takes_over_a_full_cell_and_its_victims_run_later():
    stage = Stage(fpgas=0)
    victims = full(stage)
    uids = {name: stage.view().slices[name].created for name in victims}
    stage.submit(gang())
    stage.play(0.01)
    assert sorted(stage.held(TAKER)) == ["n0/gpu0", "n0/gpu1", "n1/gpu0", "n1/gpu1"], "at once"
    for name in victims:
        ending = stage.placed(name).ending
        assert ending is not None
        assert ending.reason is Reason.BEHIND_HIGHER_PRIORITY
        assert ending.message == "gives way to default/gang of priority 5"
    stage.until(TAKER, Phase.RUNNING, 5.0)
    assert all(stage.phase(name) is Phase.PENDING for name in victims)
    stage.until(TAKER, Phase.DONE, 12.0)
    assert {name: stage.view().slices[name].created for name in victims} == uids, (
        "their place in the queue is what it was"
    )
    stage.play_out(400)
    for name in victims:
        assert stage.life(name)[-1] == "done"
        assert stage.life(name).count("running") == 2
        assert stage.slice(name).attempts == 2


def test_only_as_many_give_way_as_are_needed():
    stage = Stage(fpgas=0)
    victims = full(stage)
    stage.submit(gang(1))
    stage.until(TAKER, Phase.RUNNING, 5.0)
    assert [stage.phase(name) for name in victims].count(Phase.RUNNING) == 3
    assert stage.phase(victims[3]) is Phase.PENDING, "the youngest"


@pytest.mark.parametrize("change", [{"priority": 5}, {"preemptible": False}])
def test_nobody_gives_way_who_need_not(change):
    stage = Stage(fpgas=0)
    stage.submit(*(replace(small(f"s{n}"), **change) for n in range(4)))
    stage.play(5.0)
    stage.submit(gang(1))
    stage.play(20.0)
    assert stage.phase(TAKER) is Phase.PENDING
    assert [stage.phase(f"default/s{n}") for n in range(4)] == [Phase.RUNNING] * 4


def test_tasks_go_on_for_their_grace_and_the_taker_begins_after_it():
    stage = Stage(fpgas=0)
    victims = full(stage, grace=GRACE_SECONDS)
    stage.submit(gang())
    stage.play(GRACE_SECONDS - 1)
    assert all(stage.phase(name) is Phase.DRAINING for name in victims)
    assert len(stage.devices.running) == 4, "tasks run on"
    assert stage.phase(TAKER) is Phase.COMMITTED
    stage.until(TAKER, Phase.RUNNING, 5.0)
    stage.play_out(400)


def test_events_tell_who_took_over_and_how_long_tasks_have():
    stage = Stage(fpgas=0)
    full(stage, grace=GRACE_SECONDS)
    stage.submit(gang())
    stage.until(TAKER, Phase.RUNNING, GRACE_SECONDS + 5)
    events = [(e["phase"], e["what"]) for e in told(stage.store, "default/s0")]
    message = "gives way to default/gang of priority 5"
    assert ("draining", f"{message}; its tasks have 30 s to end") in events
    assert ("pending", "queued again after 1 attempt") in events
    events = [(e["phase"], e["what"]) for e in told(stage.store, TAKER)]
    assert ("committed", "took 4 engines over, waits until they are given up") in events


def test_a_task_that_ends_within_its_grace_is_queued_again_and_nobody_waits_longer():
    stage = Stage(fpgas=0)
    victims = full(stage, seconds=15.0, grace=GRACE_SECONDS)
    stage.play(5.0)
    stage.submit(gang())
    stage.play(5.0)
    assert all(stage.phase(name) is Phase.DRAINING for name in victims)
    stage.until(TAKER, Phase.RUNNING, 10.0)
    stage.play_out(100)
    assert all(stage.life(name).count("running") == 2 for name in victims)


def test_circuits_stay_while_tasks_have_their_grace():
    stage = Stage(fpgas=0, agents="each")
    stage.submit(ring())
    stage.until("default/ring", Phase.RUNNING)
    lit = {place for place, _ in stage.devices.lit}
    assert {"sw0", "sw1"} <= lit
    stage.submit(gang())
    stage.play(6.0)
    assert {place for place, _ in stage.devices.lit} == lit
    assert stage.devices.running
    # An agent of a switch alone does not hear when tasks elsewhere end.
    stage.until(TAKER, Phase.RUNNING, GRACE_SECONDS)
    stage.play_out(400)


def test_circuits_go_with_the_last_task_where_one_agent_knows_of_all():
    stage = Stage(fpgas=0)
    stage.submit(ring())
    stage.until("default/ring", Phase.RUNNING)
    stage.submit(gang())
    stage.play(6.0)
    assert stage.devices.lit
    stage.until(TAKER, Phase.RUNNING, 8.0)


def test_a_drain_that_takes_over_gives_tasks_their_grace_too():
    stage = Stage(fpgas=0)
    full(stage, 1, grace=GRACE_SECONDS)
    (engine,) = stage.held("default/s0")
    stage.drain(f"engine/{engine}", deadline_at=stage.clock.wall() + 1)
    stage.play(GRACE_SECONDS - 1)
    assert stage.phase("default/s0") is Phase.DRAINING
    assert stage.devices.running
    stage.play(5.0)
    assert stage.phase("default/s0") is Phase.RUNNING, "elsewhere"


def test_a_slice_that_is_cancelled_has_no_grace():
    stage = Stage(fpgas=0)
    full(stage, 1, grace=GRACE_SECONDS)
    stage.wish("default/s0", cancelled=True)
    stage.until("default/s0", Phase.CANCELLED, 2.0)


def test_parts_of_a_host_are_taken_over():
    stage = Stage(fpgas=0, nodes=1, cpu_millis=4000)
    host = {"w": HostRole(cpu_millis=3000, count=1)}
    spec = SliceSpec("low", hosts=host, run=Run(for_seconds=50.0), preemptible=True)
    stage.submit(spec)
    stage.until("default/low", Phase.RUNNING)
    stage.submit(replace(spec, name="gang", priority=5, preemptible=False))
    stage.play(0.01)
    assert stage.placed(TAKER).held["host/n0"][0] == 3000
    assert stage.placed("default/low").releasing["host/n0"][0] == 1000
    stage.until(TAKER, Phase.RUNNING, 5.0)
    stage.play_out(200)
    assert stage.life("default/low").count("running") == 2


def test_the_last_watt_goes_to_who_is_more_important():
    stage = Stage(fpgas=0, budget=400)
    full(stage)
    stage.submit(gang())
    stage.until(TAKER, Phase.RUNNING, 10.0)
    stage.play_out(400)


def test_another_scheduler_takes_over_with_the_watts():
    stage = Stage(fpgas=0, budget=400)
    full(stage)
    stage.batch.die()
    stage.scheduler("batch-1", alone=True)
    stage.submit(gang())
    stage.until(TAKER, Phase.RUNNING, 10.0)
    stage.play_out(400)


KILLED: list[Callable[[Stage], Player]] = [
    lambda stage: stage.batch,
    lambda stage: stage.leader,
    lambda stage: stage.all,
]


@pytest.mark.parametrize("who", KILLED, ids=["scheduler", "controller", "agents"])
@pytest.mark.parametrize("turn", range(1, 49, 3))
def test_whoever_dies_in_the_middle_nothing_is_lost(who, turn):
    stage = Stage(fpgas=0)
    victims = full(stage, seconds=20.0, grace=1.0)
    left = [turn]

    def die() -> None:
        left[0] -= 1
        if left[0] == 0:
            who(stage).replace(requests_land_late=bool(turn % 2))

    stage.submit(gang())
    stage.before_move = die
    stage.play_out(400)
    assert left[0] < 0
    for name in (TAKER, *victims):
        assert stage.end(name).phase is Phase.DONE
    started = stage.end(TAKER).started_at
    assert started is not None
    assert all((stage.end(name).started_at or 0.0) > started for name in victims)


def test_an_agent_that_begins_anew_gives_no_longer_grace_than_from_then_on():
    benches: list[Bench] = []
    stage = Stage(fpgas=0, prepare=benches.append)
    full(stage, grace=GRACE_SECONDS)
    stage.submit(gang())
    stage.play(20.0)
    stage.all.replace()
    assert len(benches) == 2
    stage.until(TAKER, Phase.RUNNING, GRACE_SECONDS + 15.0)
