"""How do slices move along their life cycle, and who gives back what: the controller's machine."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from flowos.drivers.step import Verb
from flowos.model import keys
from flowos.model.cell import Link, Node
from flowos.model.codec import encode
from flowos.model.errors import StoreRefused, TransactionTooLarge
from flowos.model.placement import Placement
from flowos.model.slice import Phase, Reason
from flowos.model.transaction import Delete, Put
from flowos.protocol import system
from flowos.runtime.lifecycle import Lifecycle, Rules
from tests.runtime.cells import PURSE, small_cell, wanted
from tests.runtime.theatre import TTL_SECONDS, Bench, Player, Theatre

SECONDS = {
    Verb.POWER_ON: 0.2,
    Verb.POWER_OFF: 0.1,
    Verb.LOAD: 0.5,
    Verb.CONNECT: 0.05,
    Verb.STOP: 0.05,
    Verb.DISCONNECT: 0.02,
    Verb.SCRUB: 0.1,
}
PLACES = ("n0", "n1", "sw0", "sw1")
GRACE = Rules(idle_off_seconds=0, agent_grace_seconds=20.0, mass_silence=0.3)


class Stage(Theatre):
    """A cell with one of each: scheduler, controller, and an agent for all places or for each."""

    def __init__(
        self,
        *,
        rules: Rules | None = None,
        agents: str = "one",
        prepare: Callable[[Bench], None] = lambda _bench: None,
        seconds: dict[Verb, float] | None = None,
        **cell: Any,
    ) -> None:
        super().__init__(small_cell(**cell))
        self.batch = self.scheduler(alone=True)
        self.leader = self.controller(rules=rules or GRACE)
        self.at: dict[str, Player] = {}
        slow = SECONDS if seconds is None else seconds
        if agents == "one":
            self.all = self.agent(seconds=slow, prepare=prepare)
        elif agents == "each":
            for place in sorted({**self.view().cell.nodes, **self.view().cell.switches}):
                self.at[place] = self.agent(place, seconds=slow, prepare=prepare)
        self.settle()

    def until(self, identifier: str, phase: Phase, seconds: float = 100.0) -> None:
        """Play until a slice is in a phase."""
        came = self.play(seconds, lambda: self.phase(identifier) is phase)
        told = "\n".join(self.trace[-30:])
        assert came, f"{identifier} is {self.phase(identifier)}, not {phase}:\n{told}"


def machine(player: Player) -> Lifecycle:
    assert isinstance(player.machine, Lifecycle)
    return player.machine


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
    assert end.message == "could not be built, 3 times: no load of n0/fpga0"
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


# -------------------------------------------------------------------------------------- dead agents


def dead_node() -> Stage:
    stage = Stage(agents="each")
    stage.submit(wanted("a", gpus=2, run_for=60.0, together="node"), wanted("b", fpgas=1))
    stage.until("default/a", Phase.RUNNING)
    stage.until("default/b", Phase.RUNNING)
    (home,) = {engine.partition("/")[0] for engine in stage.held("default/a")}
    stage.home = home  # type: ignore[attr-defined]
    stage.at[home].die()
    stage.play(TTL_SECONDS + 45)
    return stage


def test_what_a_dead_node_holds_is_quarantined_and_its_slices_run_elsewhere():
    stage = dead_node()
    home = stage.home  # type: ignore[attr-defined]
    assert stage.phase("default/a") is Phase.RUNNING
    assert {engine.partition("/")[0] for engine in stage.held("default/a")} != {home}
    quarantines = stage.records(f"placement/~quarantine/{home}/")
    assert f"placement/~quarantine/{home}/out-of-service" in quarantines
    assert f"claim/node/{home}" in stage.records("claim/")
    assert f"claim/engine/{home}/gpu0" in stage.records("claim/")
    assert "pending" in stage.life("default/a")[3:]


def test_a_node_that_returns_is_cleaned_and_used_again():
    stage = dead_node()
    home = stage.home  # type: ignore[attr-defined]
    stage.submit(wanted("c", gpus=4, run_for=5.0))
    stage.play(5)
    assert stage.placement("default/c") is None
    stage.at[home].acts = True
    stage.at[home].enter()
    stage.play(5)
    assert stage.records("placement/~quarantine/") == {}
    assert f"claim/node/{home}" not in stage.records("claim/")
    for name in ("a", "b"):
        stage.wish(f"default/{name}", cancelled=True)
    stage.play_out()
    assert stage.end("default/c").phase is Phase.DONE


@pytest.mark.parametrize("late", [5.0, 12.0, 25.0, 31.0, 35.0, 60.0])
@pytest.mark.parametrize("place", PLACES)
def test_an_agent_that_returns_after_any_time_finds_or_gets_a_clean_place(place, late):
    stage = Stage(agents="each")
    stage.submit(wanted("a", gpus=4, fpgas=2, ring=True, run_for=20.0))
    stage.submit(wanted("b", gpus=1, run_for=1.0))
    stage.until("default/a", Phase.RUNNING)
    stage.at[place].die()
    stage.play(late)
    stage.at[place].acts = True
    stage.at[place].enter()
    stage.play_out()
    assert {stage.end(f"default/{name}").phase for name in "ab"} == {Phase.DONE}


@pytest.mark.parametrize("place", PLACES)
def test_an_agent_that_dies_in_the_middle_of_a_teardown_holds_up_only_its_own_units(place):
    stage = Stage(agents="each", seconds={**SECONDS, Verb.SCRUB: 5.0, Verb.DISCONNECT: 5.0})
    stage.submit(wanted("a", gpus=4, fpgas=2, ring=True))
    stage.until("default/a", Phase.RUNNING)
    stage.wish("default/a", cancelled=True)
    stage.play(1)
    stage.at[place].die()
    stage.play(TTL_SECONDS + 60)
    assert stage.end("default/a").phase is Phase.CANCELLED
    assert stage.records(f"placement/~quarantine/{place}/")
    stage.at[place].acts = True
    stage.at[place].enter()
    stage.play_out()
    stage.play(5)
    assert stage.records("placement/") == {}


def only_reporter_dies() -> Stage:
    """The only place that had reported its part down dies before the others report."""
    slow = {**SECONDS, Verb.SCRUB: 200.0, Verb.DISCONNECT: 0.1}
    stage = Stage(agents="each", seconds=slow)
    stage.submit(wanted("a", gpus=1, fpgas=1, ring=True))
    stage.until("default/a", Phase.RUNNING)
    stage.wish("default/a", cancelled=True)
    stage.until("default/a", Phase.CLEANING)
    stage.at["sw0"].die()
    stage.play(TTL_SECONDS + 60)
    stage.at["sw0"].acts = True
    stage.at["sw0"].enter()
    stage.play_out(600)
    return stage


def test_a_slice_goes_back_to_draining_when_the_only_place_that_had_reported_dies():
    assert only_reporter_dies().life("default/a")[-5:] == [
        "draining", "cleaning", "draining", "cleaning", "cancelled"
    ]  # fmt: skip


def test_nothing_is_repaired_while_many_agents_are_silent_at_once():
    stage = Stage(agents="each")
    stage.submit(wanted("a", gpus=2, run_for=300.0))
    stage.until("default/a", Phase.RUNNING)
    for place in ("n0", "n1", "sw0"):
        stage.at[place].die()
    stage.play(200)
    assert stage.records("placement/~quarantine/") == {}
    for place in ("sw0", "n1"):
        stage.at[place].acts = True
        stage.at[place].enter()
    stage.play(5)
    assert stage.records("placement/~quarantine/n0/")
    assert not stage.records("placement/~quarantine/n1/")


def test_a_dead_agents_node_is_quarantined_by_the_next_leader_too():
    stage = Stage(agents="each")
    stage.submit(wanted("a", gpus=2, run_for=100.0, together="node"))
    stage.until("default/a", Phase.RUNNING)
    (home,) = {engine.partition("/")[0] for engine in stage.held("default/a")}
    stage.at[home].die()
    stage.play(TTL_SECONDS + 1)
    stage.leader.replace()
    stage.play(TTL_SECONDS + 40)
    assert stage.records(f"placement/~quarantine/{home}/")


def test_places_that_left_the_inventory_count_neither_as_dead_nor_as_many():
    stage = Stage(agents="each", nodes=4, gpus=1, fpgas=0)
    gone = ["n3", "sw3", "n2", "sw2"]
    for place in gone:
        stage.at[place].exit()
    stage.write(
        *(Delete(f"{'node' if p[0] == 'n' else 'switch'}/{p}") for p in gone),
        *(Delete(f"engine/{p}/gpu0") for p in gone if p[0] == "n"),
        *(Delete(f"link/{link}") for link in ("n2.gpu0", "n3.gpu0", "trunk2", "trunk3")),
    )
    stage.play(60)
    assert stage.records("placement/") == {}
    stage.submit(wanted("a", gpus=2))
    stage.until("default/a", Phase.RUNNING)
    stage.at["n0"].die()
    stage.play(60)
    assert stage.records("placement/~quarantine/n0/")


# ----------------------------------------------------------------------------------------- retention


def test_ended_slices_are_forgotten_after_their_time():
    stage = Stage(rules=replace(GRACE, ended_seconds=30.0))
    stage.submit(wanted("a", gpus=1, run_for=1.0))
    stage.play_out()
    stage.play(25)
    assert stage.records("slice/")
    stage.play(10)
    assert stage.records("slice/") == {}


def test_more_ended_slices_than_are_kept_are_forgotten_oldest_first():
    stage = Stage(rules=replace(GRACE, ended_max=2))
    for number in range(5):
        stage.submit(wanted(f"s{number}", gpus=1, run_for=1.0))
        stage.play_out()
    stage.play(5)
    assert sorted(stage.records("slice/")) == ["slice/default/s3", "slice/default/s4"]


def test_a_living_slice_is_never_forgotten():
    stage = Stage(rules=replace(GRACE, ended_seconds=0.0, ended_max=0))
    stage.submit(wanted("a", gpus=1), wanted("b", gpus=9))
    stage.play(100)
    assert sorted(stage.records("slice/")) == ["slice/default/a", "slice/default/b"]


SHORT = replace(GRACE, keep_revisions=20, keep_seconds=30.0, compact_seconds=5.0)


def lived(rules: Rules, lives: int = 20, checkpoint: int = 0) -> Stage:
    stage = Stage(rules=rules)
    if checkpoint:
        stage.write(Put("verify/reader", encode(checkpoint)))
    for number in range(lives):
        stage.submit(wanted(f"s{number}", gpus=1, run_for=1.0))
        stage.play(10)
    return stage


def test_the_history_is_compacted_to_what_the_rules_keep():
    stage = lived(SHORT)
    oldest = stage.store.oldest()
    assert 1 < oldest <= stage.store.revision - 20
    # Three slices' lives fit into the thirty seconds that are kept.
    kept = stage.store.revision - oldest
    assert kept < 12 * 5


def test_the_history_of_the_last_minutes_is_kept_however_long_it_is():
    stage = lived(replace(SHORT, keep_seconds=10_000.0))
    assert stage.store.oldest() == 1


def test_the_last_revisions_are_kept_however_old_they_are():
    stage = lived(replace(SHORT, keep_revisions=100_000))
    assert stage.store.oldest() == 1


def test_compaction_never_passes_the_verifiers_checkpoint():
    stage = lived(SHORT, checkpoint=40)
    assert stage.store.oldest() == 40


# ------------------------------------------------------------------------------------------- grants


def test_a_dead_schedulers_grant_is_lowered_to_what_its_slices_use_and_goes_with_them():
    stage = Stage(budget=400)
    stage.batch.exit()
    dead = stage.scheduler("dead", alone=True)
    stage.submit(wanted("a", gpus=1), wanted("b", gpus=2))
    stage.until("default/b", Phase.RUNNING)
    stage.write(Put(f"grant/{PURSE}/{dead.session.id}", b"390"))
    dead.die()
    stage.play(TTL_SECONDS - 1)
    assert stage.grants() == {f"grant/{PURSE}/{dead.session.id}": 390}
    stage.play(5)
    assert stage.grants() == {f"grant/{PURSE}/{dead.session.id}": 300}
    stage.wish("default/b", cancelled=True)
    stage.play(5)
    assert stage.grants() == {f"grant/{PURSE}/{dead.session.id}": 100}
    stage.wish("default/a", cancelled=True)
    stage.play(5)
    assert stage.grants() == {}


def test_a_living_schedulers_grant_is_left_alone():
    stage = Stage(budget=400)
    stage.submit(wanted("a", gpus=1))
    stage.play(100)
    assert sum(stage.grants().values()) == 100


def test_a_commit_of_a_dead_scheduler_that_lands_late_is_still_within_its_grant():
    for moves in range(0, 40, 3):
        stage = Stage(budget=400)
        stage.batch.exit()
        dead = stage.scheduler("dead", alone=True)
        stage.submit(wanted("a", gpus=1), wanted("b", gpus=2))
        while not any(p.step == "commit" for c in dead.requests for p in c.proposals):
            dead.move(dead.next_move())
        dead.die(requests_land_late=True)
        stage.play(TTL_SECONDS - 0.5)
        for _ in range(moves):
            if stage.leader.next_move():
                stage.leader.move(stage.leader.next_move())
        for commit in stage.late:
            stage.store.commit([proposal.transaction for proposal in commit.proposals])
        stage.scheduler("new", alone=True)
        stage.play(20)
        stage.check()
        assert stage.phase("default/a") is Phase.RUNNING


# ------------------------------------------------------------------------------------------ leaders


def test_of_two_controllers_one_acts_and_the_other_takes_over_when_it_dies():
    stage = Stage()
    second = stage.controller("controller-1", GRACE)
    stage.submit(wanted("a", gpus=1, run_for=1.0))
    stage.play_out()
    assert not any(told.split(": ")[0].endswith("controller-1") for told in stage.trace[3:])
    stage.leader.die()
    stage.submit(wanted("b", gpus=1, run_for=1.0))
    stage.play(TTL_SECONDS - 1)
    assert not stage.slice("default/b").end
    stage.play_out(30)
    assert any("controller-1: free default/b" in told for told in stage.trace)
    assert second.acts


def test_a_controller_that_stands_by_remembers_nothing_of_what_is_over():
    stage = Stage(rules=replace(GRACE, ended_seconds=1.0))
    second = stage.controller("controller-1", GRACE)
    for number in range(10):
        stage.submit(wanted(f"s{number}", gpus=1, run_for=0.1))
        stage.play(5)
    assert stage.records("slice/") == {}
    assert len(machine(second)._due) < 5


def test_a_leader_that_wakes_up_after_its_lease_is_over_changes_nothing():
    stage = Stage()
    stage.submit(wanted("a", gpus=1, run_for=5.0))
    stage.until("default/a", Phase.RUNNING)
    asleep = stage.leader
    asleep.acts = False
    stage.play(10)
    asleep.session.lease.revoke()
    stage.controller("controller-1", GRACE)
    stage.play_out()
    revision = stage.store.revision
    asleep.acts = True
    stage.play(5)
    assert stage.store.revision == revision


# ---------------------------------------------------------------------------------- records gone wrong


@pytest.mark.parametrize(
    "key",
    [
        "slice/default/bad",
        "placement/default/bad",
        "placement/~off/engine/n1/fpga0",
        "placement/~drain/engine/n1/fpga0",
        "placement/~quarantine/n1/a1",
        "placement/~",
        "placement/",
        "order/n0/bad",
        "report/n0/bad",
        "report/x",
        "session/agent/n0/x",
        "session/controller/bad",
        "grant/domain:room/bad",
        "grant/x",
        "node/bad",
        "engine/bad",
        "link/bad",
        "verify/bad",
    ],
)
def test_a_record_that_cannot_be_read_stops_no_controller(key):
    stage = Stage()
    stage.forgiven |= {"readable", "orders", "reports", "exists"}
    stage.write(Put(key, b"?"))
    stage.submit(wanted("a", gpus=1, run_for=1.0))
    assert stage.play(20, lambda: stage.slice("default/a").end is not None)
    stage.leader.replace()
    stage.submit(wanted("b", gpus=1, run_for=1.0))
    assert stage.play(30, lambda: stage.slice("default/b").end is not None)


def test_a_placement_of_what_does_not_exist_stops_no_controller():
    stage = Stage()
    stage.forgiven |= {"readable", "claims", "exists", "orders", "up", "uids", "freed", "phases"}
    stage.forgiven |= {"committed", "attempts"}
    for number, unit in enumerate(("engine/n9/gpu0", "lane/nowhere/fwd/0", "aggregator/sw9/0")):
        strange = Placement(uid=1, attempt=f"x{number}", held={unit: ()}, ordered=("n9",))
        stage.write(Put(f"placement/default/strange{number}", encode(strange)))
    stage.submit(wanted("a", gpus=1, run_for=1.0))
    assert stage.play(20, lambda: stage.slice("default/a").end is not None)
    assert stage.end("default/a").phase is Phase.DONE


def test_an_engine_removed_while_it_is_held_stops_no_controller():
    stage = Stage()
    stage.forgiven |= {"exists", "orders", "freed", "up"}
    stage.submit(wanted("a", gpus=4, run_for=3.0), wanted("b", fpgas=1, run_for=1.0))
    stage.until("default/a", Phase.RUNNING)
    stage.write(Delete("engine/n0/gpu0"), Delete("link/n0.gpu0"))
    assert stage.play(60, lambda: stage.slice("default/b").end is not None)
    assert stage.end("default/b").phase is Phase.DONE


def test_one_step_that_the_store_refuses_does_not_keep_others_from_being_taken():
    stage = Stage()
    commit = stage.store.commit

    def refuse(transactions, **more):
        keys_ = [op.key for t in transactions for op in t.operations]
        if "placement/default/bad" in keys_ and "slice/default/bad" in keys_:
            raise TransactionTooLarge(999, 128)
        return commit(transactions, **more)

    stage.store.commit = refuse  # type: ignore[method-assign]
    stage.submit(*(wanted(name, gpus=1, run_for=1.0) for name in ("a", "bad", "z")))
    assert stage.play(30, lambda: all(stage.slice(f"default/{n}").end for n in ("a", "z")))
    refused = sum("refused" in told for told in stage.trace)
    assert refused < 20
    stage.store.commit = commit  # type: ignore[method-assign]
    stage.play_out()


def test_a_store_that_refuses_everything_for_a_while_is_asked_now_and_then():
    stage = Stage()
    stage.submit(wanted("a", gpus=1, run_for=1.0))
    stage.until("default/a", Phase.RUNNING)
    commit = stage.store.commit
    asked = []

    def refuse(transactions, **more):
        asked.append(stage.clock.now)
        raise StoreRefused("etcdserver: mvcc: database space exceeded")

    stage.store.commit = refuse  # type: ignore[method-assign]
    stage.play(60)
    assert 1 < len(asked) < 200
    stage.store.commit = commit  # type: ignore[method-assign]
    stage.play_out(30)


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
