"""How do slices move along their life cycle, and who gives back what: the controller's machine."""

from dataclasses import replace

import pytest

from flowos.drivers.step import Verb
from flowos.model import keys
from flowos.model.cell import Link, Node
from flowos.model.codec import encode
from flowos.model.slice import Phase, Reason
from flowos.model.transaction import Delete, Put
from flowos.protocol import system
from flowos.simulation.devices import Bench
from tests.runtime.cells import wanted
from tests.runtime.stage import GRACE, SECONDS, Stage
from tests.runtime.test_controller import dead_node, only_reporter_dies

# ------------------------------------------------------------------------------------ whole lives


def done() -> Stage:
    stage = Stage()
    stage.submit(wanted("a", gpus=2, fpgas=1, ring=True, run_for=2.0))
    stage.play_out()
    return stage


def test_a_slice_that_runs_to_its_end_is_done():
    stage = done()
    assert stage.life("default/a") == [
        "pending", "committed", "provisioning", "running", "draining", "cleaning", "done",
    ]  # fmt: skip
    end = stage.end("default/a")
    assert (end.phase, end.exit_code, end.message) == (Phase.DONE, 0, "")
    assert end.started_at == pytest.approx(0.55)
    assert end.ended_at == pytest.approx(2.72)
    assert stage.slice("default/a").attempts == 1


def failed_run() -> Stage:
    stage = Stage(prepare=lambda bench: bench.exit_codes.update(n1=7), gpus=1)
    stage.submit(wanted("a", gpus=2, run_for=2.0))
    stage.play_out()
    return stage


def test_a_slice_fails_with_the_first_exit_code_that_is_not_zero():
    end = failed_run().end("default/a")
    assert (end.phase, end.exit_code, end.message) == (Phase.FAILED, 7, "a task ended with 7")
    assert end.started_at is not None


def test_a_gang_is_given_up_when_the_first_of_its_tasks_fails():
    stage = Stage(prepare=lambda bench: bench.exit_codes.update(n1=7), gpus=1, agents="each")
    stage.submit(wanted("a", gpus=2, run_for=2.0))
    stage.until("default/a", Phase.RUNNING)
    stage.at["n0"].bench.inner._ends.clear()  # what waits for the other one never ends
    stage.play_out(10)
    assert stage.end("default/a").exit_code == 7


def failed_build() -> Stage:
    def broken(bench: Bench) -> None:
        bench.failing = {(Verb.LOAD, f"n{n}/fpga0"): -1 for n in range(2)}

    stage = Stage(prepare=broken)
    stage.submit(wanted("a", fpgas=1, run_for=2.0), wanted("b", gpus=1, run_for=2.0))
    stage.play_out()
    return stage


def test_a_slice_that_failed_to_build_three_times_has_failed():
    stage = failed_build()
    end = stage.end("default/a")
    assert (end.phase, end.exit_code) == (Phase.FAILED, 1)
    # Each try took the engine that had been idle longest; the last one's failure is told.
    assert end.message in {f"could not be built, 3 times: no load of n{n}/fpga0" for n in range(2)}
    assert stage.slice("default/a").attempts == 3
    assert stage.life("default/a").count("provisioning") == 3
    assert stage.end("default/b").phase is Phase.DONE


def failed_twice() -> Stage:
    def shaky(bench: Bench) -> None:
        bench.failing = {(Verb.LOAD, "n0/fpga0"): 2}

    stage = Stage(prepare=shaky)
    stage.submit(wanted("a", fpgas=1, run_for=2.0))
    stage.play_out()
    return stage


def test_a_slice_that_failed_to_build_twice_may_still_be_done():
    stage = failed_twice()
    assert stage.end("default/a").phase is Phase.DONE
    assert stage.slice("default/a").attempts == 3


def cancelled_pending() -> Stage:
    stage = Stage()
    stage.submit(wanted("a", gpus=99))
    stage.play(1)
    stage.wish("default/a", cancelled=True)
    stage.play_out()
    return stage


def test_a_slice_cancelled_before_it_was_placed_ends_at_once():
    stage = cancelled_pending()
    assert stage.life("default/a") == ["pending", "cancelled"]
    assert stage.end("default/a").message == "cancelled by its user"
    assert not stage.waits("default/a")


def cancelled_running() -> Stage:
    stage = Stage()
    stage.submit(wanted("a", gpus=1, fpgas=1, ring=True))
    stage.until("default/a", Phase.RUNNING)
    stage.play(100)
    stage.wish("default/a", cancelled=True)
    stage.play_out()
    return stage


def test_a_slice_cancelled_while_it_runs_is_torn_down_first():
    stage = cancelled_running()
    assert stage.life("default/a")[-4:] == ["running", "draining", "cleaning", "cancelled"]
    assert "scrub n0/fpga0" in stage.devices.verbs()


def cancelled_unseen() -> Stage:
    stage = Stage()
    stage.all.acts = False
    stage.submit(wanted("a", gpus=1, fpgas=1, ring=True))
    stage.until("default/a", Phase.COMMITTED)
    stage.wish("default/a", cancelled=True)
    stage.play(1)
    stage.all.acts = True
    stage.play_out()
    return stage


def test_a_slice_cancelled_before_its_agents_heard_of_it_is_never_built():
    stage = cancelled_unseen()
    assert stage.life("default/a")[-3:] == ["draining", "cleaning", "cancelled"]
    assert stage.devices.verbs() == []


def cancelled_at_any_phase() -> list[Stage]:
    stages = []
    for moves in range(1, 200, 3):
        stage = Stage()
        stage.submit(wanted("a", gpus=2, fpgas=1, ring=True, run_for=0.5))
        first = stage.moves

        def cancel(stage: Stage = stage, at: int = first + moves) -> None:
            if stage.moves == at and not stage.slice("default/a").end:
                stage.wish("default/a", cancelled=True)

        stage.before_move = cancel
        stage.play_out()
        stages.append(stage)
    return stages


def test_a_slice_cancelled_at_any_moment_ends_clean():
    ends = {stage.end("default/a").phase for stage in cancelled_at_any_phase()}
    assert ends == {Phase.CANCELLED, Phase.DONE}


def time_limit() -> Stage:
    stage = Stage()
    stage.submit(wanted("a", gpus=1, run_for=50.0, time_limit_seconds=3.0))
    stage.play_out()
    return stage


def test_a_slice_that_runs_longer_than_its_limit_has_failed():
    stage = time_limit()
    end = stage.end("default/a")
    assert (end.phase, end.reason) == (Phase.FAILED, Reason.TIME_LIMIT)
    assert end.message == "ran into its time limit of 3 s"
    assert end.started_at is not None
    assert end.ended_at - end.started_at == pytest.approx(3.0, abs=0.2)


def test_a_time_limit_is_no_reason_to_overlook_an_earlier_end():
    stage = Stage()
    stage.submit(wanted("a", gpus=1, run_for=2.0, time_limit_seconds=3600.0))
    stage.submit(wanted("b", gpus=1, time_limit_seconds=3600.0))
    stage.until("default/b", Phase.RUNNING)
    stage.play(1)
    stage.wish("default/b", cancelled=True)
    stage.play_out(10)
    assert stage.end("default/a").phase is Phase.DONE
    assert stage.end("default/b").phase is Phase.CANCELLED


def test_a_slice_held_while_it_runs_goes_on():
    stage = Stage()
    stage.submit(wanted("a", gpus=1, run_for=2.0))
    stage.until("default/a", Phase.RUNNING)
    stage.wish("default/a", held=True)
    stage.play_out()
    assert stage.end("default/a").phase is Phase.DONE


def test_a_slice_that_ran_while_no_controller_lived_still_says_when_it_started():
    stage = Stage()
    stage.leader.exit()
    stage.submit(wanted("a", gpus=1, run_for=2.0))
    stage.play(10)
    stage.controller("controller-1")
    stage.play_out()
    end = stage.end("default/a")
    assert end.phase is Phase.DONE
    assert end.started_at is not None
    assert stage.life("default/a")[-3:] == ["draining", "cleaning", "done"]


def test_what_is_all_up_before_the_view_is_complete_is_still_noted_as_started():
    stage = Stage(seconds={})
    stage.submit(wanted("a", gpus=1))
    leader = stage.leader
    leader.acts = False
    stage.settle()
    leader.acts = True
    while leader.next_move() == "hear":
        if type(leader._inbox[0]).__name__ == "Progress":
            break
        leader.move("hear")
    # The changes are heard, and what says that they are all is still on its way.
    told, leader._inbox = leader._inbox, type(leader._inbox)()
    leader.move("step")
    leader._inbox = told
    stage.settle()
    assert stage.phase("default/a") is Phase.RUNNING
    assert stage.placed("default/a").started_at is not None


# ------------------------------------------------------------------------------------ gone records


@pytest.mark.parametrize("moves", range(2, 60, 4))
def test_what_a_deleted_slice_holds_is_given_back(moves):
    stage = Stage()
    stage.forgiven |= {"committed", "phases"}
    stage.submit(wanted("a", gpus=2, fpgas=1, ring=True))
    for _ in range(moves):
        for player in stage.players:
            if player.next_move():
                player.move(player.next_move())
    stage.write(Delete("slice/default/a"))
    stage.play_out()


def test_a_slice_that_takes_the_name_of_a_deleted_one_waits_for_it_and_is_placed_then():
    stage = Stage()
    stage.submit(wanted("a", gpus=4))
    stage.until("default/a", Phase.RUNNING)
    first = stage.placed("default/a").attempt
    stage.write(Delete("slice/default/a"))
    stage.submit(wanted("a", gpus=3, run_for=1.0))
    stage.play_out()
    assert stage.end("default/a").phase is Phase.DONE
    assert stage.devices.verbs(first).count("scrub n0/gpu0") == 1


# ------------------------------------------------------------------------------------------ drains


def drained() -> Stage:
    stage = Stage()
    stage.submit(wanted("a", gpus=4, run_for=30.0), wanted("b", gpus=1))
    stage.until("default/a", Phase.RUNNING)
    stage.drain("engine/n0/gpu0", deadline_at=stage.clock.now + 5.0)
    stage.drain("engine/n0/fpga0")
    stage.play(20)
    return stage


def test_a_drain_of_a_free_engine_holds_at_once():
    stage = drained()
    assert stage.placed("~drain/engine/n0/fpga0").held == {"engine/n0/fpga0": ()}


def test_a_drain_waits_until_the_engine_is_given_back():
    stage = Stage()
    stage.submit(wanted("a", gpus=4, run_for=30.0), wanted("b", gpus=4, run_for=1.0))
    stage.until("default/a", Phase.RUNNING)
    stage.drain("engine/n0/gpu0")
    stage.play(10)
    drain = stage.placed("~drain/engine/n0/gpu0")
    assert (drain.held, drain.wanted) == ({}, ("engine/n0/gpu0",))
    stage.play(30)
    assert stage.end("default/a").phase is Phase.DONE
    assert stage.placed("~drain/engine/n0/gpu0").held == {"engine/n0/gpu0": ()}
    assert stage.waiting("default/b").reason is Reason.WAITING_FOR_ENGINES
    stage.do(lambda view: system.undrain(view, "~drain/engine/n0/gpu0", fence=None))
    stage.play_out()


def test_a_drain_takes_the_engine_at_its_deadline_and_the_victim_is_queued_again():
    stage = Stage()
    stage.submit(wanted("a", gpus=2, run_for=30.0, together="node"))
    stage.until("default/a", Phase.RUNNING)
    (home,) = {engine.partition("/")[0] for engine in stage.held("default/a")}
    unit = f"engine/{home}/gpu0"
    stage.drain(unit, deadline_at=stage.clock.now + 5.0)
    stage.play(4)
    assert stage.phase("default/a") is Phase.RUNNING
    stage.play(4)
    assert stage.placed(f"~drain/{unit}").held == {unit: ()}
    stage.until("default/a", Phase.RUNNING)
    assert {engine.partition("/")[0] for engine in stage.held("default/a")} != {home}
    assert stage.slice("default/a").attempts == 1
    assert stage.life("default/a")[-6:] == [
        "running", "draining", "cleaning", "pending", "committed", "running",
    ]  # fmt: skip


def test_a_drain_with_a_deadline_takes_all_shares_of_an_engine():
    stage = Stage(nodes=1)
    stage.submit(*(wanted(f"s{n}", gpus=1, share=400, run_for=60.0) for n in range(4)))
    stage.play(1)
    stage.drain("engine/n0/gpu0", deadline_at=stage.clock.now + 2.0)
    stage.play(10)
    assert stage.placed("~drain/engine/n0/gpu0").held == {"engine/n0/gpu0": ()}
    assert not any(k.startswith("claim/share/n0/gpu0/") for k in stage.records("claim/"))
    placed = [n for n in range(4) if stage.placement(f"default/s{n}")]
    assert len(placed) == 2
    assert all(stage.held(f"default/s{n}") == ["n0/gpu1"] for n in placed)


def test_an_undrain_is_not_allowed_while_the_victim_is_still_being_cleaned():
    stage = Stage(seconds={**SECONDS, Verb.SCRUB: 20.0})
    stage.submit(wanted("a", gpus=4))
    stage.until("default/a", Phase.RUNNING)
    stage.drain("engine/n0/gpu0", deadline_at=stage.clock.now)
    stage.play(5)
    assert stage.placed("~drain/engine/n0/gpu0").held
    assert system.undrain(stage.view(), "~drain/engine/n0/gpu0", fence=None) is None
    stage.play(40)
    stage.do(lambda view: system.undrain(view, "~drain/engine/n0/gpu0", fence=None))
    stage.wish("default/a", cancelled=True)
    stage.play_out()


@pytest.mark.parametrize("unit", ["node/n0", "switch/sw0", "link/n0.gpu0", "lane/trunk1/fwd/0"])
def test_what_is_drained_is_used_by_nobody_until_it_is_undrained(unit):
    stage = Stage(lanes=2)
    stage.drain(unit)
    stage.submit(wanted("a", gpus=4, fpgas=2, ring=True, run_for=1.0))
    stage.play(5)
    assert stage.placement("default/a") is None
    stage.do(lambda view: system.undrain(view, f"~drain/{unit}", fence=None))
    stage.play_out()
    assert stage.end("default/a").phase is Phase.DONE


def test_an_engine_that_is_off_can_be_drained():
    stage = Stage(rules=replace(GRACE, idle_off_seconds=2.0))
    stage.play(5)
    assert stage.placement("~off/engine/n0/gpu0")
    stage.drain("engine/n0/gpu0")
    stage.play(5)
    assert stage.placed("~drain/engine/n0/gpu0").held == {"engine/n0/gpu0": ()}
    assert stage.placement("~off/engine/n0/gpu0") is None


# ------------------------------------------------------------------------------------------- power


def test_engines_idle_for_long_are_powered_off_and_a_commit_wakes_them():
    stage = Stage(rules=replace(GRACE, idle_off_seconds=5.0))
    stage.submit(wanted("a", gpus=3, run_for=20.0))
    stage.play(8)
    offs = sorted(stage.records("placement/~off/"))
    free = sorted(f"n{n}/{e}" for n in range(2) for e in ("gpu0", "gpu1", "fpga0"))
    free = [engine for engine in free if engine not in stage.held("default/a")]
    assert offs == sorted(f"placement/~off/engine/{engine}" for engine in free)
    assert all(stage.observed(engine).power == "off" for engine in free)
    stage.submit(wanted("b", fpgas=2, run_for=2.0))
    stage.until("default/b", Phase.RUNNING)
    attempt = stage.placed("default/b").attempt
    assert sorted(stage.devices.verbs(attempt))[-3:] == [
        "power on n1/fpga0", "run", "run"
    ]  # fmt: skip
    stage.play(60)
    assert len(stage.records("placement/~off/")) == 6
    assert stage.end("default/b").phase is Phase.DONE


def test_a_short_use_starts_the_idle_time_again():
    stage = Stage(rules=replace(GRACE, idle_off_seconds=5.0), nodes=1, gpus=1, fpgas=0)
    stage.play(4)
    stage.submit(wanted("a", gpus=1, run_for=0.5))
    stage.play_out(4)
    ended = stage.clock.now
    stage.play(4)
    assert stage.records("placement/~off/") == {}
    stage.play(ended + 8 - stage.clock.now)
    assert len(stage.records("placement/~off/")) == 1


def woken(after_moves: int) -> tuple[Stage, int]:
    """Two engines are about to be powered off; a slice that wants them comes after some moves."""
    stage = Stage(rules=replace(GRACE, idle_off_seconds=5.0), nodes=1, gpus=1)
    stage.play(4)
    first = stage.moves

    def submit() -> None:
        if stage.moves == first + after_moves:
            stage.submit(wanted("a", gpus=1, fpgas=1, ring=True, run_for=0.5))

    stage.before_move = submit
    stage.play(4)
    return stage, stage.moves - first


def test_engines_are_woken_at_any_moment_of_being_powered_off():
    _, moves = woken(0)
    for after in range(1, moves, 2):
        stage, _ = woken(after)
        stage.play_out(60)
        assert stage.end("default/a").phase is Phase.DONE
        stage.play(20)
        assert len(stage.records("placement/~off/")) == 2


# ----------------------------------------------------------------------------------- the table itself

EDGES = """
pending committed, pending cancelled,
committed provisioning, committed running, committed draining,
provisioning running, provisioning draining,
running draining, running cleaning,
draining cleaning, cleaning draining,
cleaning pending, cleaning done, cleaning failed, cleaning cancelled
"""


def test_these_edges_of_the_life_cycle_are_taken_and_no_others():
    stages = [
        done(), failed_run(), failed_build(), failed_twice(), cancelled_pending(),
        cancelled_running(), cancelled_unseen(), time_limit(), drained(), dead_node(), only_reporter_dies(), *cancelled_at_any_phase(),
    ]  # fmt: skip
    quick = Stage(seconds={})
    quick.submit(wanted("a", gpus=1, run_for=1.0))
    quick.play_out()
    taken = set().union(*(stage.edges() for stage in [*stages, quick]))
    expected = {tuple(edge.split()) for edge in EDGES.replace("\n", " ").split(",")}
    assert {(str(one), str(other)) for one, other in taken} == expected


def test_a_link_added_while_slices_run_changes_nothing_for_them():
    stage = Stage()
    stage.submit(wanted("a", gpus=4, fpgas=2, ring=True, run_for=5.0))
    stage.until("default/a", Phase.RUNNING)
    stage.write(
        Put(keys.inventory("link", "new"), encode(Link("new", "sw0:new", "sw1:new", lanes=2))),
        Put(keys.inventory("node", "n7"), encode(Node("n7"))),
    )
    stage.play_out()
    assert stage.end("default/a").phase is Phase.DONE
