"""What may be planned now: held slices, those that wait for others, and arrays with a limit."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import pytest

from flowos.model import keys
from flowos.model.codec import encode
from flowos.model.placement import Placement
from flowos.model.slice import Dependency, End, Member, Once, Phase, Reason, Slice, SliceSpec
from flowos.model.transaction import Change
from flowos.model.view import CellView
from flowos.runtime.gates import Gates
from tests.runtime.cells import small_cell, wanted
from tests.runtime.stage import GRACE, Stage
from tests.runtime.theatre import Theatre


def after(name: str, *on: str, once: Once = Once.DONE, **more) -> SliceSpec:
    return wanted(name, gpus=1, **more, depends_on=tuple(Dependency(f"default/{o}", once) for o in on))  # fmt: skip


def members(array: str, count: int, *, parallel: int = 0, **more) -> list[SliceSpec]:
    more = {"gpus": 1} | more
    return [
        wanted(f"{array}-{i}", array=Member(array, i, count, parallel), **more)
        for i in range(count)
    ]


# ------------------------------------------------------------------------------- one after another


def test_a_slice_waits_until_the_one_it_depends_on_is_done_and_says_so():
    stage = Stage()
    stage.submit(wanted("a", gpus=1, run_for=5.0), after("b", "a", run_for=1.0))
    stage.until("default/a", Phase.RUNNING)
    stage.play(1)
    assert not stage.held("default/b")
    waiting = stage.waiting("default/b")
    assert waiting.reason is Reason.DEPENDS_ON
    assert waiting.sentence.startswith("it waits until default/a is done; now default/a ")
    stage.play_out()
    assert stage.end("default/b").phase is Phase.DONE
    first, second = stage.end("default/a"), stage.end("default/b")
    assert second.started_at is not None
    assert second.started_at >= first.ended_at


@pytest.mark.parametrize("once", [Once.RUNNING, Once.ENDED])
def test_a_slice_goes_on_once_the_other_runs_or_has_ended_in_whatever_way(once):
    stage = Stage()
    stage.submit(wanted("a", gpus=1), after("b", "a", once=once, run_for=1.0))
    stage.until("default/a", Phase.RUNNING)
    stage.play(20)
    assert (stage.phase("default/b") is Phase.DONE) == (once is Once.RUNNING)
    stage.wish("default/a", cancelled=True)
    stage.play_out()
    assert stage.end("default/b").phase is Phase.DONE


def test_what_can_never_happen_ends_all_that_wait_for_it_one_after_the_other():
    stage = Stage()
    stage.submit(
        wanted("a", gpus=1),
        after("b", "a", run_for=1.0),
        after("c", "b", run_for=1.0),
        after("d", "b", once=Once.ENDED, run_for=1.0),
        after("e", "b", once=Once.RUNNING, run_for=1.0),
    )
    stage.until("default/a", Phase.RUNNING)
    stage.wish("default/a", cancelled=True)
    stage.play_out()
    b = stage.end("default/b")
    assert (b.phase, b.reason) == (Phase.CANCELLED, Reason.DEPENDS_ON)
    assert (
        b.message == "default/a, which was to be done first, was cancelled: cancelled by its user"
    )
    assert stage.end("default/c").message.startswith("default/b, which was to be done first, was")
    assert stage.end("default/d").phase is Phase.DONE
    assert stage.end("default/e").message.startswith("default/b, which was to run first, was")


def test_a_slice_that_waits_for_what_nobody_knows_ends():
    stage = Stage()
    stage.submit(after("b", "gone"))
    stage.play_out()
    assert stage.end("default/b").message == "default/gone, which it was to wait for, is not known any more"  # fmt: skip


def test_an_ended_slice_is_kept_while_another_one_waits_for_it():
    rules = replace(GRACE, ended_seconds=5.0)
    stage = Stage(rules=rules)
    stage.submit(
        wanted("a", gpus=1, run_for=1.0), wanted("x", gpus=1, run_for=1.0), after("b", "a", "c"),
        wanted("c", gpus=1),
    )  # fmt: skip
    stage.play(60)
    assert "slice/default/x" not in stage.records("slice/")
    assert stage.end("default/a").phase is Phase.DONE
    stage.wish("default/b", cancelled=True)
    stage.wish("default/c", cancelled=True)
    stage.play(60)
    assert not stage.records("slice/")


def test_a_held_slice_is_not_placed_before_it_is_released():
    theatre = Theatre(small_cell())
    theatre.scheduler(alone=True)
    theatre.submit(wanted("a", gpus=1))
    theatre.wish("default/a", held=True)
    theatre.settle()
    assert not theatre.held("default/a")
    theatre.wish("default/a", held=False)
    theatre.settle()
    assert theatre.held("default/a")


# ------------------------------------------------------------------------------------------ arrays


def most_at_once(stage: Stage, seconds: float) -> int:
    """Play, and return how many slices held something at any revision."""
    most = 0

    def look() -> bool:
        nonlocal most
        held = [name for name in stage.records("placement/default/") if name]
        most = max(most, len(held))
        return stage.over()

    assert stage.play(seconds, look)
    return most


def test_an_array_with_a_limit_runs_so_many_at_once_to_its_end_in_its_order():
    stage = Stage(nodes=2, gpus=4)
    stage.submit(*members("t", 7, parallel=2, run_for=1.0))
    assert most_at_once(stage, 300) == 2
    starts = [stage.end(f"default/t-{i}").started_at or 0.0 for i in range(7)]
    assert starts == sorted(starts)


def test_a_member_says_that_its_array_has_enough_running():
    stage = Stage()
    stage.submit(*members("t", 3, parallel=1))
    stage.play(2)
    waiting = stage.waiting("default/t-2")
    assert waiting.reason is Reason.DEPENDS_ON
    assert waiting.sentence == "array t may have 1 running at once, and default/t-0 hold engines"


def test_two_schedulers_never_have_more_of_an_array_placed_than_its_limit():
    theatre = Theatre(small_cell(nodes=4, gpus=4))
    theatre.scheduler("batch-0")
    theatre.scheduler("batch-1")
    theatre.settle()
    most = []
    theatre.before_move = lambda: most.append(len(theatre.records("placement/default/")))
    theatre.submit(*members("t", 12, parallel=3))
    theatre.play(5)
    assert max(most) == 3
    assert len(theatre.records("placement/default/")) == 3


def test_a_slice_waits_for_all_of_an_array():
    stage = Stage(nodes=2, gpus=4)
    stage.submit(*members("t", 3, run_for=1.0), after("z", "t", run_for=1.0))
    stage.play(0.2)
    assert stage.waiting("default/z").sentence == "it waits until all of array default/t are done: 0 of 3 are so far"  # fmt: skip
    stage.play_out()
    z = stage.end("default/z")
    assert z.phase is Phase.DONE
    assert (z.started_at or 0) >= max(stage.end(f"default/t-{i}").ended_at for i in range(3))


def test_one_member_that_failed_ends_what_waits_for_all_of_them():
    stage = Stage()
    stage.submit(*members("t", 2, run_for=50.0), after("z", "t"))
    stage.until("default/t-1", Phase.RUNNING)
    stage.wish("default/t-1", cancelled=True)
    stage.play_out()
    assert stage.end("default/z").message == "default/t-1 ended, and all of array default/t were to be done first"  # fmt: skip


# ---------------------------------------------------------------------------- only whom it concerns


class Desk:
    """A view whose slices a test writes, with the gates that follow it."""

    def __init__(self) -> None:
        self.view = CellView()
        self.gates = Gates(self.view)
        self.revision = 0

    def write(self, spec: SliceSpec, **more) -> set[str]:
        self.revision += 1
        value = encode(Slice(spec, **more))
        change = Change(keys.slice_(spec.id), value, self.revision, self.revision)
        return set(self.gates.changed(self.view.apply(change)))

    def remove(self, name: str) -> set[str]:
        self.revision += 1
        change = Change(keys.slice_(name), None, 0, self.revision)
        return set(self.gates.changed(self.view.apply(change)))


DONE = End(Phase.DONE, started_at=1.0)


def test_a_change_wakes_those_who_wait_for_it_and_nobody_else():
    desk = Desk()
    for name in "abx":
        desk.write(wanted(name, gpus=1))
    desk.write(after("c", "a", "b"))
    desk.write(after("d", "a"))
    assert desk.write(wanted("x", gpus=1), end=DONE) == set()
    assert desk.write(wanted("a", gpus=1), end=DONE) == {"default/c", "default/d"}
    desk.write(after("d", "a"), end=DONE)
    assert desk.remove("default/a") == {"default/c"}


def test_an_array_of_a_thousand_wakes_the_next_alone():
    desk = Desk()
    array = members("t", 1000, parallel=1)
    for spec in array:
        desk.write(spec)
    for spec in array:
        desk.gates.closed(spec.id, desk.view.slices[spec.id].value)
    # None holds anything yet, so all may go on; the first to be placed shuts the others out.
    assert desk.write(array[0], end=DONE) == set()
    placed = _placed(desk, array[1])
    assert placed == set()
    for spec in array[2:]:
        assert desk.gates.closed(spec.id, desk.view.slices[spec.id].value) is not None
    assert _gone(desk, array[1]) == {"default/t-2"}


def _placed(desk: Desk, spec: SliceSpec) -> set[str]:
    desk.revision += 1
    uid = desk.view.slices[spec.id].created
    value = encode(Placement(uid, "a1", held={"engine/n0/gpu0": ()}))
    change = Change(keys.placement(spec.id), value, desk.revision, desk.revision)
    return set(desk.gates.changed(desk.view.apply(change)))


def _gone(desk: Desk, spec: SliceSpec) -> set[str]:
    desk.revision += 1
    change = Change(keys.placement(spec.id), None, 0, desk.revision)
    return set(desk.gates.changed(desk.view.apply(change)))


def steps() -> Iterator[tuple[Once, End | None, bool, bool]]:
    """What is waited for, how the other ended, whether it may go on, whether it never can."""
    ends = {
        None: (False, False, False),
        DONE: (True, True, True),
        End(Phase.FAILED, started_at=1.0): (False, True, True),
        End(Phase.FAILED): (False, True, False),
        End(Phase.CANCELLED): (False, True, False),
    }
    for (end, met), (number, once) in product(
        ends.items(), enumerate((Once.DONE, Once.ENDED, Once.RUNNING))
    ):
        yield once, end, met[number], end is not None and not met[number]


@pytest.mark.parametrize(("once", "end", "met", "lost"), list(steps()))
def test_every_end_meets_or_loses_what_was_waited_for(once, end, met, lost):
    desk = Desk()
    desk.write(wanted("a", gpus=1), end=end)
    desk.write(after("b", "a", once=once))
    record = desk.view.slices["default/b"].value
    assert (desk.gates.closed("default/b", record) is None) == met
    assert bool(desk.gates.never(record)) == lost


def test_a_listing_tells_the_same_as_its_changes_did():
    desk = Desk()
    for spec in (*members("t", 3, parallel=1), after("z", "t", "a"), wanted("a", gpus=1)):
        desk.write(spec)
    anew = Gates(desk.view)
    anew.restart()
    for name, entry in desk.view.slices.items():
        assert anew.closed(name, entry.value) == desk.gates.closed(name, entry.value)
        assert anew.is_waited_for(name) == desk.gates.is_waited_for(name)
    assert [n for n in desk.view.slices if anew.is_waited_for(n)] == [
        "default/t-0", "default/t-1", "default/t-2", "default/a",
    ]  # fmt: skip
