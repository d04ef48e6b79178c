"""Who reads history holds compaction back: for as long as it reads, or under a name that stays."""

import threading
import time

import pytest

from flowos.model.codec import encode
from flowos.model.errors import Forbidden, OutcomeUnknown, StoreUnreachable
from flowos.model.transaction import Change, Delete, Put, Transaction
from flowos.model.view import CellView
from flowos.simulation.stage import VirtualClock
from flowos.verify.history import Listed, Told, follow
from flowos.verify.hold import MOVE_SECONDS, SIGN_SECONDS, Checkpoint, history_held
from flowos.verify.laws import Violation
from flowos_store import MemoryStore
from tests.verify.scene import Followed, StoppedClock, X, claim

STRAY = claim("engine/n2/z", "default/nobody", "a0")


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


def test_a_reader_moves_its_hold_as_it_reads(monkeypatch):
    monkeypatch.setattr("flowos.verify.hold.TTL_SECONDS", 0.03)
    store = MemoryStore(StoppedClock())
    moved = threading.Event()
    with history_held(store, 7) as move:
        store.watch(["verify/"], after=store.revision, deliver=lambda _: moved.set())
        move(9)
        assert moved.wait(10)
        assert checkpoints(store) == [9]


def test_a_reader_that_was_killed_holds_nothing_back_for_long():
    clock = VirtualClock()
    store = MemoryStore(clock)
    held = history_held(store, 7)
    held.__enter__()
    clock.now += 31
    store.tick()
    assert checkpoints(store) == []
    held.__exit__(None, None, None)


# ------------------------------------------------------------------------- checkpoints


class Troubled:
    """A store whose next commit goes wrong."""

    def __init__(self, inner):
        self.inner = inner
        self.trouble = None
        self.lands = False

    def commit(self, transactions, **more):
        if self.trouble is not None:
            if self.lands:
                self.inner.commit(transactions)
            raise self.trouble
        return self.inner.commit(transactions, **more)

    def __getattr__(self, name):
        return getattr(self.inner, name)


@pytest.fixture
def memory():
    return MemoryStore(StoppedClock())


def test_a_checkpoint_is_found_again_under_its_name(store):
    first = Checkpoint(store, "night")
    assert first.found() == 0
    assert first.move(7) == ""
    assert first.move(9) == ""
    assert Checkpoint(store, "night").found() == 9
    assert Checkpoint(store, "nigh").found() == 0
    assert Checkpoint(store, "day").found() == 0


def test_a_checkpoint_outlives_its_process():
    clock = VirtualClock()
    store = MemoryStore(clock)
    Checkpoint(store, "night").move(7)
    clock.now += 100_000
    store.tick()
    assert checkpoints(store) == [7]


def test_a_checkpoint_that_cannot_be_read_is_none_and_is_written_over(store):
    store.commit([Transaction((), (Put("verify/night", b"{"),))])
    checkpoint = Checkpoint(store, "night")
    assert checkpoint.found() == 0
    assert checkpoint.move(5) == ""
    assert checkpoints(store) == [5]


def test_one_who_comes_later_takes_a_checkpoint_over_and_the_earlier_goes_on_without(store):
    first, second = Checkpoint(store, "night"), Checkpoint(store, "night")
    first.found()
    first.move(5)
    second.found()
    second.move(6)
    assert "another verifier keeps the checkpoint night" in first.move(7)
    assert first.move(8) == ""
    assert not first.due(news=True)
    assert checkpoints(store) == [6]


def test_a_checkpoint_that_the_controller_removed_is_made_again(store):
    checkpoint = Checkpoint(store, "night")
    checkpoint.move(5)
    store.commit([Transaction((), (Delete("verify/night"),))])
    assert checkpoint.move(6) == ""
    assert checkpoints(store) == [6]


@pytest.mark.parametrize("lands", [True, False])
def test_a_lost_answer_is_no_rival(memory, lands):
    store = Troubled(memory)
    checkpoint = Checkpoint(store, "night")
    checkpoint.move(5)
    store.trouble, store.lands = OutcomeUnknown("no answer"), lands
    assert "could not be moved: no answer" in checkpoint.move(6)
    store.trouble = None
    assert checkpoint.move(7) == ""
    assert checkpoints(store) == [7]


def test_what_keeps_a_checkpoint_from_moving_is_said_once_for_each_reason(memory):
    store = Troubled(memory)
    checkpoint = Checkpoint(store, "night")
    store.trouble = Forbidden("not yours")
    assert "not yours" in checkpoint.move(5)
    assert checkpoint.move(6) == ""
    store.trouble = StoreUnreachable("no answer")
    assert "no answer" in checkpoint.move(7)
    store.trouble = None
    assert checkpoint.move(8) == ""
    store.trouble = Forbidden("not yours")
    assert "not yours" in checkpoint.move(9)


def test_a_checkpoint_moves_every_few_seconds_and_now_and_then_as_a_sign_of_life(memory):
    clock = VirtualClock()
    checkpoint = Checkpoint(memory, "night", clock.monotonic)
    assert checkpoint.due(news=False)
    checkpoint.move(1)
    assert not checkpoint.due(news=True)
    clock.now += MOVE_SECONDS
    assert checkpoint.due(news=True)
    assert not checkpoint.due(news=False)
    clock.now += SIGN_SECONDS
    assert checkpoint.due(news=False)


# ------------------------------------------------------------------------- following from one


def follow_to(store, revision, name="night", problem=None):
    """Follow until a revision was checked; return what was told, and the verdict."""
    seen, stop = Followed(), threading.Event()

    def progress(at, first, newest):
        if at >= revision:
            stop.set()

    verdict = follow(
        store, seen.deliver, stop, checkpoint=Checkpoint(store, name), progress=progress
    )
    return seen.news, verdict


def violations(news):
    return [(v.revision, v.where) for v in news if isinstance(v, Violation)]


def test_one_that_is_started_again_checks_every_revision_since(scene):
    _, verdict = follow_to(scene.store, scene.submit("default/t"))
    bad = scene.write(STRAY)
    last = scene.write(Delete(STRAY.key))
    news, second = follow_to(scene.store, last)
    assert violations(news) == [(bad, STRAY.key)]
    assert news[0] == Listed(verdict.last, after=verdict.last)
    assert (second.first, second.last >= last) == (verdict.last, True)
    assert checkpoints(scene.store) == [second.last]


def test_one_that_was_killed_checks_a_revision_twice_rather_than_not_at_all(scene):
    # What it had checked, and had not noted yet, when it was killed.
    noted = scene.submit("default/t")
    Checkpoint(scene.store, "night").move(noted)
    bad = scene.write(STRAY)
    last = scene.write(Delete(STRAY.key))
    news, _ = follow_to(scene.store, last)
    assert violations(news) == [(bad, STRAY.key)]


def test_the_first_of_a_name_begins_at_the_newest(scene):
    scene.write(STRAY)
    last = scene.write(Delete(STRAY.key))
    news, verdict = follow_to(scene.store, last)
    assert violations(news) == []
    assert verdict.first == last


def test_what_was_compacted_is_said_and_all_that_is_kept_is_checked(scene):
    _, verdict = follow_to(scene.store, scene.submit("default/t"))
    scene.write(STRAY)
    oldest = scene.write(Delete(STRAY.key))
    bad = scene.write(STRAY)
    last = scene.write(Delete(STRAY.key))
    scene.store.compact(oldest)
    news, second = follow_to(scene.store, last)
    listed = news[0]
    assert (listed.revision, listed.after) == (oldest, verdict.last)
    assert "compacted" in listed.why
    assert violations(news) == [(bad, STRAY.key)]
    assert second.first == oldest


def test_a_checkpoint_of_another_store_is_no_place_to_go_on_from(little):
    little.write(Put("verify/night", encode(10_000)))
    last = little.submit("default/t")
    news, verdict = follow_to(little.store, last)
    assert news[0].after == 10_000
    assert "is another one" in news[0].why
    assert verdict.first == last


def test_a_quiet_cell_is_not_written_to_for_ever(little):
    seen, stop = Followed(), threading.Event()
    clock = VirtualClock()
    checkpoint = Checkpoint(little.store, "night", clock.monotonic)
    rounds = []

    def progress(at, first, newest):
        rounds.append(at)
        clock.now += MOVE_SECONDS
        if len(rounds) == 20:
            stop.set()

    before = little.store.revision
    follow(little.store, seen.deliver, stop, checkpoint=checkpoint, progress=progress)
    assert little.store.revision <= before + 2  # one at the beginning, one at the end


def test_who_may_not_write_follows_all_the_same_and_says_so_once(little):
    store = Troubled(little.store)
    store.trouble = Forbidden("not yours")
    little.run("default/t", X)
    news, verdict = follow_to(store, little.write(STRAY))
    assert [n for n in news if isinstance(n, Told)] == [
        Told("the checkpoint night could not be moved: not yours")
    ]
    assert violations(news) == [(verdict.last, STRAY.key)]


def test_two_followers_of_one_name_both_see_everything(scene):
    first, second = Followed(), Followed()
    stop = threading.Event()
    checkpoint = Checkpoint(scene.store, "night", VirtualClock().monotonic)
    thread = threading.Thread(
        target=lambda: follow(scene.store, first.deliver, stop, checkpoint=checkpoint), daemon=True
    )
    thread.start()
    first.wait_for(lambda news: isinstance(news, Listed))
    while not scene.store.read(["verify/"]).records:
        time.sleep(0.01)  # else the second may come before the first, and is the one that is told
    bad = scene.write(STRAY)
    news, _ = follow_to(scene.store, bad)
    assert violations(news) == [(bad, STRAY.key)]
    first.wait_for(lambda news: isinstance(news, Violation))
    stop.set()
    thread.join(10)
    said = [news.sentence for news in first.news if isinstance(news, Told)]
    assert said == ["another verifier keeps the checkpoint night now: this one goes on without"]
    assert second.news == []
