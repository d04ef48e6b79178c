"""A reader of history holds compaction back for as long as it reads."""

from flowos.model.transaction import Change
from flowos.model.view import CellView
from flowos.simulation.stage import VirtualClock
from flowos.verify.hold import history_held
from flowos_store import MemoryStore


def checkpoints(store):
    view = CellView()
    for record in store.read(["verify/"]).records:
        view.apply(Change(*record))
    return list(view.checkpoints.values())


def test_a_reader_names_the_oldest_revision_that_it_needs_and_takes_it_back():
    store = MemoryStore(VirtualClock())
    with history_held(store, 7):
        assert checkpoints(store) == [7]
    assert checkpoints(store) == []


def test_a_reader_that_was_killed_holds_nothing_back_for_long():
    clock = VirtualClock()
    store = MemoryStore(clock)
    held = history_held(store, 7)
    held.__enter__()
    clock.now += 31
    store.tick()
    assert checkpoints(store) == []
    held.__exit__(None, None, None)
