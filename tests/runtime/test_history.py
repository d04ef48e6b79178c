"""Is everything that was ever held told in the history, once, and for how long is it kept?"""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from flowos.drivers.step import Verb
from flowos.model import keys
from flowos.model.codec import decode, encode
from flowos.model.placement import Held, Placement
from flowos.model.slice import HostRole, Member, Phase, Slice
from flowos.model.transaction import Put
from flowos.model.view import CellView
from flowos.protocol import accounts
from flowos.protocol.proposal import Draft, Fence
from flowos.runtime.accounted import history_shown, meant, totals_shown
from flowos.runtime.updating import Update, updated
from flowos.simulation.devices import Bench
from tests.runtime.cells import BUSY, wanted
from tests.runtime.stage import GRACE, Stage

BEGIN = 100.0  # a record's time of 0 means that nobody has said it


def stage_of(**more: Any) -> Stage:
    """Return a cell whose clock has begun."""
    stage = Stage(**more)
    stage.play(BEGIN)
    return stage


def lines(stage: Stage) -> dict[str, Held]:
    """All lines of the history by their keys."""
    return {
        key.removeprefix("history/"): decode(Held, record.value)
        for key, record in stage.records("history/").items()
    }


def test_what_was_held_is_told_with_its_times_and_how_it_ended():
    stage = stage_of()
    stage.submit(wanted("a", gpus=2, run_for=5.0))
    stage.until("default/a", Phase.RUNNING)
    placed = stage.placed("default/a")
    stage.play_out()
    ((key, line),) = lines(stage).items()
    assert key == f"default/a/{placed.attempt}/0"
    end = stage.end("default/a")
    assert line == Held(
        attempt=placed.attempt,
        number=1,
        policy="batch",
        engines=placed.engines,
        watts=2 * BUSY + 2 * 10,
        from_at=placed.committed_at,
        started_at=end.started_at,
        until_at=end.ended_at,
        ended="done",
        message="",
    )
    assert 0 < line.from_at <= (line.started_at or 0) < line.until_at


def test_parts_of_hosts_and_engines_are_told_though_their_places_gave_them_back_one_by_one():
    stage = stage_of(agents="each")
    both = {"driver": HostRole(cpu_millis=1500, memory_bytes=1 << 20, count=2)}
    stage.submit(replace(wanted("a", gpus=1, share=500, run_for=5.0), hosts=both))
    stage.until("default/a", Phase.RUNNING)
    (gpu,) = stage.placed("default/a").engines["workers"]
    stage.play_out()
    (line,) = lines(stage).values()
    assert line.shares == {gpu: 500}
    assert (line.cpu_millis, line.memory_bytes) == (3000, 2 << 20)


def test_every_try_has_a_line_of_its_own():
    def broken(bench: Bench) -> None:
        bench.failing = {(Verb.LOAD, f"n{n}/fpga0"): -1 for n in range(2)}

    stage = stage_of(prepare=broken)
    stage.submit(wanted("a", fpgas=1, run_for=2.0))
    stage.play_out()
    told = sorted(lines(stage).values(), key=lambda line: line.number)
    assert [(line.number, line.ended) for line in told] == [
        (1, "queued again"), (2, "queued again"), (3, "failed"),
    ]  # fmt: skip
    assert all(line.started_at is None and 0 < line.from_at < line.until_at for line in told)
    assert told[0].message.startswith("could not be built: ")
    assert [a.until_at <= b.from_at for a, b in pairwise(told)] == [True, True]


def test_what_held_nothing_has_no_history():
    stage = stage_of()
    stage.submit(wanted("a", gpus=99))
    stage.play(1)
    stage.wish("default/a", cancelled=True)
    stage.play_out()
    assert lines(stage) == {}


@pytest.mark.parametrize("late", [False, True])
def test_a_controller_that_dies_at_any_moment_leaves_one_line_for_each_try(late):
    for moment in (0.1, 0.6, 2.0, 2.7, 2.85):
        stage = stage_of()
        stage.submit(wanted("a", gpus=1, fpgas=1, run_for=2.0))
        stage.play(moment)
        stage.leader.replace(requests_land_late=late)
        stage.play_out()
        (line,) = lines(stage).values()
        assert line.ended == "done"
        assert line.from_at <= (line.started_at or 0) < line.until_at


def test_what_has_no_time_of_its_own_is_counted_from_when_it_was_seen():
    stage = stage_of()
    stage.submit(wanted("a", gpus=1, fpgas=1))
    stage.play(0.2)
    assert stage.placed("default/a").committed_at == 0  # nothing is up yet
    stage.wish("default/a", cancelled=True)
    stage.play_out()
    (line,) = lines(stage).values()
    assert line.ended == "cancelled"
    assert line.from_at == pytest.approx(BEGIN, abs=0.05)
    assert line.until_at > BEGIN + 0.2


# -------------------------------------------------------------------------------------- for how long


def test_the_history_goes_after_its_time():
    stage = stage_of(rules=replace(GRACE, history_seconds=50.0))
    stage.submit(wanted("a", gpus=1, run_for=1.0))
    stage.play(30)
    stage.submit(wanted("b", gpus=1, run_for=1.0))
    stage.play(40)
    assert [key.split("/")[1] for key in lines(stage)] == ["b"]
    stage.play(60)
    assert lines(stage) == {}
    assert stage.end("default/a").phase is Phase.DONE  # its own record has a time of its own


def test_no_more_of_the_history_is_kept_than_its_number_and_it_goes_in_few_steps():
    stage = stage_of(rules=replace(GRACE, history_max=20))
    count = 330
    for number in range(count):
        line = Held(f"x{number}", until_at=float(number - 1000), ended="done")
        stage.write(Put(keys.history(f"default/s{number}", f"x{number}", 0), encode(line)))
    before = stage.store.read([""]).revision
    stage.play(5)
    left = sorted(line.until_at for line in lines(stage).values())
    assert left == [float(number - 1000) for number in range(count - 20, count)]
    assert stage.store.read([""]).revision - before < 10


# ------------------------------------------------------------------------------------------- resized


def test_a_resize_ends_one_line_and_begins_the_next():
    view = CellView()
    before = Placement(
        7, "a1", held={"engine/n0/gpu0": ()}, engines={"w": ("n0/gpu0",)}, watts=100,
        committed_at=10.0, started_at=11.0,
    )  # fmt: skip
    after = replace(before, engines={"w": ("n0/gpu0", "n0/gpu1")}, watts=200)
    draft = Draft(fence=Fence("session/x", 1))
    goes_on = accounts.resized(draft, view, "default/a", before, after, now=50.0)
    (put,) = draft.operations.values()
    assert isinstance(put, Put)
    assert put.key == "history/default/a/a1/0"
    line = decode(Held, put.value)
    assert (line.from_at, line.until_at, line.ended, line.watts) == (10.0, 50.0, "resized", 100)
    assert (goes_on.committed_at, goes_on.segment, goes_on.started_at) == (50.0, 1, 11.0)
    draft = Draft(fence=Fence("session/x", 1))
    accounts.close(draft, view, "default/a", goes_on, now=60.0)
    (last,) = draft.operations.values()
    assert last.key == "history/default/a/a1/1"


def test_a_clock_that_goes_back_makes_no_line_end_before_it_begins():
    placement = Placement(7, "a1", committed_at=100.0)
    line = accounts.held_by(placement, policy="batch", until_at=40.0, ended="done")
    assert (line.from_at, line.until_at) == (40.0, 40.0)


# ------------------------------------------------------------------------------------------- as shown


def test_what_is_held_still_counts_up_to_now_and_each_tenant_has_its_sums():
    stage = stage_of()
    stage.submit(wanted("a", gpus=2, run_for=3600.0), wanted("b", gpus=1, share=500))
    stage.play(1800)
    now = stage.clock.wall()
    told = {line["name"]: line for line in history_shown(stage.store, stage.view(), now=now)}
    assert told["a"]["ended"] == told["b"]["ended"] == "running"
    assert told["a"]["until_at"] is None
    assert told["a"]["engine_hours"] == pytest.approx(1.0, abs=0.01)
    assert told["b"]["engine_hours"] == pytest.approx(0.25, abs=0.01)
    assert told["a"]["watt_hours"] == pytest.approx(110, abs=1)
    (total,) = totals_shown(told.values())
    assert (total["tenant"], total["slices"]) == ("default", 2)
    assert total["engine_hours"] == pytest.approx(1.25, abs=0.02)


def test_since_a_time_only_what_came_after_it_is_counted():
    stage = stage_of()
    stage.submit(wanted("a", gpus=1, run_for=10.0))
    stage.play(100)
    stage.submit(wanted("b", gpus=1))
    stage.play(100)
    now = stage.clock.wall()
    (line,) = history_shown(stage.store, stage.view(), now=now, since=now - 36.0)
    assert (line["name"], line["engine_hours"]) == ("b", pytest.approx(0.01, abs=0.0001))


@pytest.mark.parametrize(
    ("text", "tenant", "found"),
    [
        ("a", "", ["default/a"]),
        ("t", "", ["default/t-0", "default/t-1"]),
        ("t-1", "", ["default/t-1"]),
        ("v/a", "", ["v/a"]),
        ("a", "v", ["v/a"]),
        ("only", "", ["v/only-3"]),
        ("ab", "", ["default/abc"]),
        ("nobody", "", []),
    ],
)
def test_a_name_means_a_slice_an_array_or_what_it_begins(text, tenant, found):
    names = ["default/a", "default/abc", "default/t-0", "default/t-1", "v/a", "v/only-3"]
    assert meant(names, text, tenant) == found


# ------------------------------------------------------------------------- changed while it is there


def update(stage: Stage, name: str, change: Update) -> None:
    record: Slice = stage.slice(name)
    stage.wish(name, spec=updated(record.spec, change))


def test_a_time_limit_that_is_set_lowered_or_lifted_acts_at_once_on_what_runs():
    stage = stage_of()
    stage.submit(*(wanted(name, gpus=1, time_limit_seconds=500.0) for name in ("a", "b", "c")))
    stage.until("default/c", Phase.RUNNING)
    stage.play(20)
    update(stage, "default/a", Update(time_limit_seconds=30.0))
    update(stage, "default/b", Update(time_limit_seconds=10.0))
    update(stage, "default/c", Update(time_limit_seconds=0.0))
    stage.play(5)
    assert stage.end("default/b").message == "ran into its time limit of 10 s"
    assert stage.phase("default/a") is Phase.RUNNING
    stage.play(20)
    assert stage.end("default/a").ended_at == pytest.approx(BEGIN + 30, abs=1)
    stage.play(600)
    assert stage.phase("default/c") is Phase.RUNNING


def test_a_waiting_slice_of_higher_priority_goes_first_at_once():
    stage = stage_of()
    stage.submit(wanted("all", gpus=4), *(wanted(n, gpus=4) for n in ("first", "second")))
    stage.until("default/all", Phase.RUNNING)
    update(stage, "default/second", Update(priority=5))
    stage.play(1)
    stage.wish("default/all", cancelled=True)
    stage.play(10)
    assert stage.held("default/second")
    assert not stage.held("default/first")


def test_a_waiting_slice_that_asks_for_less_is_looked_at_again_at_once():
    stage = stage_of()
    stage.submit(wanted("most", gpus=3), wanted("a", gpus=2))
    stage.until("default/most", Phase.RUNNING)
    stage.play(5)
    assert not stage.held("default/a")
    update(stage, "default/a", Update(sizes={"workers": 1}))
    stage.play(2)
    assert len(stage.held("default/a")) == 1


def test_members_of_an_array_go_by_their_index():
    stage = stage_of()
    stage.submit(
        *(wanted(f"t-{i}", gpus=4, run_for=1.0, array=Member("t", i, 12)) for i in range(12))
    )
    # As of one submission: they have one revision.
    puts = [Put(k, r.value) for k, r in stage.records("slice/").items()]
    stage = stage_of()
    stage.write(*puts)
    stage.play_out()
    starts = [stage.end(f"default/t-{i}").started_at or 0.0 for i in range(12)]
    assert starts == sorted(starts)


def test_a_slice_that_changes_its_size_while_it_runs_has_a_line_for_each():
    stage = stage_of()
    stage.submit(wanted("a", gpus=2))
    stage.until("default/a", Phase.RUNNING)
    for count in (3, 1):
        stage.play(20)
        update(stage, "default/a", Update(sizes={"workers": count}))
    stage.play(20)
    stage.wish("default/a", cancelled=True)
    stage.play_out()
    told = [lines(stage)[key] for key in sorted(lines(stage))]
    assert [(len(line.engines["workers"]), line.ended) for line in told] == [
        (2, "resized"), (3, "resized"), (1, "cancelled"),
    ]  # fmt: skip
    assert [line.from_at for line in told[1:]] == [line.until_at for line in told[:-1]]
    assert len({line.attempt for line in told}) == 1
