"""What does a program hear of its own slices by the one watch that it keeps open?"""

import threading
from dataclasses import replace

import pytest

from flowos.model.codec import decode, encode
from flowos.model.errors import (
    DuplicateName,
    NeverPlaceable,
    NotInTime,
    SpecError,
    UnknownName,
)
from flowos.model.placement import Ending, Placement
from flowos.model.slice import End, Phase, Reason, Slice, Waiting
from flowos.model.transaction import Change, Changes, Delete, Put, Transaction
from flowos.runtime.client import CellClient
from flowos.runtime.clock import SystemClock
from flowos.runtime.loading import load_cell_into
from tests.runtime.cells import small_cell, wanted
from tests.runtime.lossy import LossyStore
from tests.runtime.threads import living_cell, until

NAME = "default/a"
HELD = {"engine/n0/gpu0": ()}


class Stage:
    """A store whose records a test writes, and a queue on it."""

    def __init__(self, store) -> None:
        load_cell_into(store, small_cell())
        self.store = store
        self.lossy = LossyStore(store)
        self.client = CellClient(self.lossy, SystemClock())
        self.queue = self.client.queue()

    def write(self, *operations) -> int:
        (outcome,) = self.store.commit([Transaction((), operations)])
        return int(outcome.revision)

    def place(self, uid: int, name: str = NAME, **more) -> None:
        placement = Placement(uid, f"x{uid}", held=HELD, scheduler="s@1")
        self.write(Put(f"placement/{name}", encode(replace(placement, **more))))

    def end(self, phase: Phase, name: str = NAME) -> None:
        (record,) = self.store.read([f"slice/{name}"]).records
        ended = replace(decode(Slice, record.value), end=End(phase))
        self.write(Put(record.key, encode(ended)), Delete(f"placement/{name}"))

    def in_step(self) -> None:
        """Let the watch say that it is up to date."""
        until(lambda: not self._young(), "the watch is up to date")

    def _young(self) -> bool:
        with pytest.raises((NotInTime, UnknownName)):
            self.queue.wait("default/nobody", "done", timeout_seconds=0.01)
        return self.queue._young


@pytest.fixture
def stage(store):
    found = Stage(store)
    yield found
    found.queue.close()


@pytest.fixture
def little(memory):
    found = Stage(memory)
    yield found
    found.queue.close()


def test_a_slice_is_followed_from_the_queue_to_its_end(store):
    with living_cell(store) as cell:
        cell.all()
        with CellClient(store, SystemClock()).queue() as queue:
            for number in range(3):
                spec = wanted(f"s{number}", gpus=1, run_for=0.05)
                queue.submit([spec])
                placed = queue.wait(spec.id, "allocated", timeout_seconds=20)
                assert isinstance(placed, Placement)
                assert len(placed.engines["workers"]) == 1
                running = queue.wait(spec.id, "running", timeout_seconds=20)
                assert isinstance(running, Placement | End)
                end = queue.wait(spec.id, "done", timeout_seconds=20)
                assert isinstance(end, End)
                assert end.exit_code == 0
            assert queue._heard == {}


def test_what_comes_by_the_watch_is_not_read(stage):
    stage.in_step()
    uid = stage.queue.submit([wanted("a", gpus=1)])
    asked = stage.lossy.reads + stage.lossy.commits
    waiting = threading.Timer(0.05, lambda: stage.place(uid))
    waiting.start()
    placed = stage.queue.wait(NAME, "allocated", timeout_seconds=20)
    waiting.join()
    assert isinstance(placed, Placement)
    assert placed.uid == uid
    assert stage.lossy.reads + stage.lossy.commits == asked


def test_what_happened_before_the_watch_is_up_to_date_is_read(stage):
    uid = stage.queue.submit([wanted("a", gpus=1)])
    stage.place(uid)
    assert stage.queue.wait(NAME, "allocated", timeout_seconds=20)


def test_a_slice_that_others_submitted_can_be_waited_for(stage):
    CellClient(stage.store, SystemClock()).submit([wanted("a", gpus=1)])
    (record,) = stage.store.read([f"slice/{NAME}"]).records
    stage.place(record.created)
    assert stage.queue.wait(NAME, "allocated", timeout_seconds=20)


def test_a_placement_that_an_earlier_slice_of_the_name_left_is_not_its_own(little):
    little.place(1)
    little.queue.submit([wanted("a", gpus=1)])
    little.place(1, why="it is still being cleaned")
    with pytest.raises(NotInTime, match="default/a is not placed after"):
        little.queue.wait(NAME, "allocated", timeout_seconds=0.1)


def test_a_slice_that_is_on_its_way_out_is_not_placed(little):
    uid = little.queue.submit([wanted("a", gpus=1)])
    little.place(uid, held={}, releasing=HELD, ending=Ending(Phase.PENDING))
    with pytest.raises(NotInTime):
        little.queue.wait(NAME, "allocated", timeout_seconds=0.1)


def test_an_end_of_any_kind_ends_every_wait(stage):
    stage.queue.submit([wanted("a", gpus=1)])
    stage.end(Phase.CANCELLED)
    for until_ in ("allocated", "running", "done"):
        end = stage.queue.wait(NAME, until_, timeout_seconds=20)
        assert isinstance(end, End)
        assert end.phase is Phase.CANCELLED


def test_what_has_ended_unheeded_is_forgotten(little):
    little.in_step()
    little.queue.submit([wanted(f"s{n}", gpus=1) for n in range(4)])
    for number in range(3):
        little.end(Phase.DONE, f"default/s{number}")
    with pytest.raises(NotInTime):
        little.queue.wait("default/s3", "allocated", timeout_seconds=0.1)
    assert sorted(little.queue._heard) == ["default/s3"]


def test_a_slice_that_can_never_be_placed_is_said_to_be(little):
    little.queue.submit([wanted("a", gpus=1)])
    waiting = Waiting(Reason.INFEASIBLE, "no engine has 9 GiB")
    little.write(Put(f"reason/{NAME}", encode(waiting)))
    with pytest.raises(NeverPlaceable, match="no engine has 9 GiB"):
        little.queue.wait(NAME, "allocated", timeout_seconds=20)


def test_what_an_earlier_slice_of_the_name_could_not_have_says_nothing(little):
    waiting = Waiting(Reason.INFEASIBLE, "no engine has 9 GiB")
    little.write(Put(f"reason/{NAME}", encode(waiting)))
    CellClient(little.store, SystemClock()).submit([wanted("a", gpus=1)])
    with pytest.raises(NotInTime):
        little.queue.wait(NAME, "allocated", timeout_seconds=0.1)


def test_why_a_slice_waits_is_said_when_it_is_not_in_time(little):
    little.queue.submit([wanted("a", gpus=1)])
    waiting = Waiting(Reason.WAITING_FOR_ENGINES, "all 4 are held")
    little.write(Put(f"reason/{NAME}", encode(waiting)))
    with pytest.raises(NotInTime, match="all 4 are held"):
        little.queue.wait(NAME, "allocated", timeout_seconds=0.1)


def test_a_slice_that_is_not_there_is_not_waited_for(stage):
    with pytest.raises(UnknownName, match="default/a"):
        stage.queue.wait(NAME, "done", timeout_seconds=20)
    stage.queue.submit([wanted("a", gpus=1)])
    stage.write(Delete(f"slice/{NAME}"))
    with pytest.raises(UnknownName, match="default/a"):
        stage.queue.wait(NAME, "done", timeout_seconds=20)


def test_another_slice_of_the_same_name_is_another(little):
    little.queue.submit([wanted("a", gpus=1)])
    little.write(Delete(f"slice/{NAME}"))
    CellClient(little.store, SystemClock()).submit([wanted("a", gpus=2)])
    with pytest.raises(UnknownName):
        little.queue.wait(NAME, "done", timeout_seconds=20)


def test_a_submission_that_is_refused_leaves_what_is_known_of_the_name(little):
    uid = little.queue.submit([wanted("a", gpus=1)])
    with pytest.raises(DuplicateName):
        little.queue.submit([wanted("a", gpus=1)])
    little.place(uid)
    assert little.queue.wait(NAME, "allocated", timeout_seconds=20)


def test_what_happens_while_a_watch_is_lost_is_seen(stage):
    stage.in_step()
    uid = stage.queue.submit([wanted("a", gpus=1)])
    stage.lossy.end_watches()
    stage.place(uid)
    assert stage.queue.wait(NAME, "allocated", timeout_seconds=20)
    stage.end(Phase.DONE)
    end = stage.queue.wait(NAME, "done", timeout_seconds=20)
    assert isinstance(end, End)


def test_a_slice_that_nobody_waited_for_when_a_watch_was_lost_is_looked_up(little):
    little.in_step()
    uid = little.queue.submit([wanted("a", gpus=1), wanted("b", gpus=1)])
    little.queue._watch.close()
    little.lossy.end_watches()
    little.place(uid, "default/b")
    with pytest.raises(NotInTime):
        little.queue.wait("default/a", "allocated", timeout_seconds=0.1)
    assert not little.queue._young
    assert little.queue.wait("default/b", "allocated", timeout_seconds=20)


def test_an_event_that_is_older_than_what_was_read_changes_nothing(little):
    uid = CellClient(little.store, SystemClock()).submit([wanted("a", gpus=1)])
    little.write(Put("grant/p/s", b"1"))
    for _ in range(2):
        with pytest.raises(NotInTime):
            little.queue.wait(NAME, "allocated", timeout_seconds=0.1)
        record = encode(Placement(uid, "x", held=HELD))
        late = Change(f"placement/{NAME}", record, uid + 1, uid + 1)
        little.queue._inbox.put(Changes([late]))


def test_the_end_of_an_earlier_slice_of_the_name_says_nothing(little):
    little.in_step()
    little.queue._watch.close()
    uid = little.queue.submit([wanted("a", gpus=1)])
    gone = Change(f"slice/{NAME}", None, 0, uid - 1)
    placed = Change(f"placement/{NAME}", encode(Placement(uid, "x", held=HELD)), uid + 1, uid + 1)
    little.queue._inbox.put(Changes([gone]))
    little.queue._inbox.put(Changes([placed]))
    assert isinstance(little.queue.wait(NAME, "allocated", timeout_seconds=20), Placement)


def test_slices_of_other_tenants_are_refused_at_once(little):
    with pytest.raises(SpecError, match="follows slices of default, not of other"):
        little.queue.wait("other/a", "done")
    with pytest.raises(SpecError, match="not of other"):
        little.queue.submit([wanted("a", gpus=1, tenant="other")])
