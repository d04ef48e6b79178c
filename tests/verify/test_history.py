"""Is every revision looked at once, whatever happens to the store meanwhile?"""

import json
import threading
import time
from typing import Any

import pytest

from flowos.model.errors import StoreUnreachable
from flowos.model.transaction import Change, Delete, Lost
from flowos.verify import history
from flowos.verify.history import Listed, Told, follow, verify_history, verify_now
from flowos.verify.laws import Violation
from flowos.verify.state import State, by_revision
from flowos_store.memory import MemoryStore
from tests.verify.scene import PAIR, Scene, StoppedClock, X, Y, claim, followed

T = "default/t"
STRAY = claim("engine/n2/z", "default/nobody", "a0")


class Meddled:
    """A store to which something happens before it is asked."""

    def __init__(self, store: Any) -> None:
        self.inner = store
        self.before: dict[str, list[Any]] = {}
        self.watching: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        asked = getattr(self.inner, name)

        def ask(*arguments: Any, **named: Any) -> Any:
            waiting = self.before.get(name)
            if waiting:
                waiting.pop(0)()
            if name == "watch":
                self.watching.append(named["deliver"])
            return asked(*arguments, **named)

        return ask

    def lose(self, why: Lost) -> None:
        """Breaks the first watch, which may be opened only after the list was told."""
        while not self.watching:
            time.sleep(0.001)
        self.watching[0](why)

    def newest(self) -> int:
        return int(self.inner.read(["cell/info"]).revision)


def found(violations: Any) -> list[tuple[int, str]]:
    return [(v.revision, v.where) for v in violations if isinstance(v, Violation)]


# ------------------------------------------------------------------------- what is said


def test_verdict_is_what_the_command_prints(little):
    little.run(T, X)
    bad = little.write(STRAY)
    said = json.loads(json.dumps(verify_now(little.store).record()))
    assert said == {
        "revision": bad,
        "from": bad,
        "to": bad,
        "checked": {"engines": 4, "slices": 1, "revisions": 1},
        "violations": [
            {
                "law": "claims",
                "where": "claim/engine/n2/z",
                "sentence": "engine/n2/z is claimed for default/nobody, which does not list it",
                "revision": bad,
                "details": {"owner": "default/nobody", "attempt": "a0"},
                "transactions": [
                    {
                        "revision": 0,
                        "wrote": [],
                        "by": "",
                        "made": "default/nobody does not list engine/n2/z, "
                        "and was never written as far as is kept",
                        "kept": True,
                    },
                    {
                        "revision": bad,
                        "wrote": ["put claim/engine/n2/z"],
                        "by": "unknown",
                        "made": "engine/n2/z is claimed for default/nobody, attempt a0",
                        "kept": True,
                    },
                ],
            }
        ],
    }


def test_history_counts_revisions_and_every_use_of_a_name(scene):
    scene.run(T, X)
    scene.end(T)
    scene.write(Delete(f"slice/{T}"))
    last = scene.place(T, Y)
    record = verify_history(scene.store).record()
    assert (record["from"], record["to"]) == (scene.store.oldest(), last)
    assert record["checked"]["slices"] == 2
    assert record["checked"]["revisions"] == last - record["from"] + 1


def test_history_says_how_far_it_is(little):
    little.run(T, PAIR)
    newest = verify_now(little.store).last
    steps: list[tuple[int, int, int]] = []
    verify_history(little.store, progress=lambda *step: steps.append(step))
    assert steps[-1] == (newest, 1, newest)
    assert steps == sorted(steps)


# ------------------------------------------------------------------------- what was and is


def test_a_mistake_that_was_mended_is_in_the_history_alone(scene):
    bad = scene.write(STRAY)
    scene.write(Delete(STRAY.key))
    assert verify_now(scene.store).violations == ()
    assert found(verify_history(scene.store).violations) == [(bad, STRAY.key)]


def test_a_mistake_made_again_is_told_again(scene):
    first = scene.write(STRAY)
    scene.write(Delete(STRAY.key))
    second = scene.write(STRAY)
    told = found(verify_history(scene.store).violations)
    assert told == [(first, STRAY.key), (second, STRAY.key)]


def test_a_mistake_that_stays_is_told_once(scene):
    bad = scene.write(STRAY)
    scene.run(T, X)
    assert found(verify_history(scene.store).violations) == [(bad, STRAY.key)]


def test_history_begins_at_the_oldest_revision_kept(scene):
    bad = scene.write(STRAY)
    kept = scene.write(Delete(STRAY.key))
    worse = scene.write(STRAY)
    scene.run(T, X)
    scene.store.compact(kept)
    verdict = verify_history(scene.store)
    assert verdict.first == kept
    assert found(verdict.violations) == [(worse, STRAY.key)]
    scene.store.compact(worse + 1)
    assert found(verify_history(scene.store).violations) == [(worse + 1, STRAY.key)]
    assert bad < kept


# ------------------------------------------------------------------------- compaction meanwhile


def test_history_goes_on_where_the_oldest_is_compacted_before_it_is_read(scene):
    scene.run(T, PAIR)
    store = Meddled(scene.store)
    # The first reading asks for the newest revision, the second for the oldest state.
    store.before["read"] = [lambda: None, lambda: scene.store.compact(store.newest() - 2)]
    verdict = verify_history(store)
    assert verdict.violations == ()
    assert verdict.first == store.newest() - 2


def test_history_goes_on_where_compaction_overtakes_its_watch(scene):
    scene.run(T, PAIR)
    store = Meddled(scene.store)
    store.before["watch"] = [lambda: scene.store.compact(store.newest() - 1)]
    bad = scene.write(STRAY)
    scene.write(Delete(STRAY.key))
    verdict = verify_history(store)
    assert (verdict.first, verdict.last) == (store.newest() - 1, store.newest())
    assert found(verdict.violations) == [(bad, STRAY.key)]


def test_what_was_found_before_compaction_is_not_forgotten(little):
    bad = little.write(STRAY)
    little.store.compact(bad)
    little.write(Delete(STRAY.key))
    little.run(T, X)
    store = Meddled(little.store)
    store.before["watch"] = [lambda: little.store.compact(store.newest())]
    verdict = verify_history(store)
    assert verdict.first == verdict.last > bad
    assert found(verdict.violations) == [(bad, STRAY.key)]


def test_a_mistake_that_outlives_compaction_is_told_once(little):
    bad = little.write(STRAY)
    little.run(T, X)
    little.store.compact(bad)
    store = Meddled(little.store)
    store.before["watch"] = [lambda: little.store.compact(store.newest())]
    assert found(verify_history(store).violations) == [(bad, STRAY.key)]


@pytest.mark.etcd
def test_history_ends_where_the_newest_revisions_are_another_cells(etcd_store):
    scene = Scene(etcd_store())
    scene.run(T, X)
    other = Scene(etcd_store(cell="test-other-cell"))
    other.run(T, X)
    newest = other.write(STRAY)
    verdict = verify_history(scene.store)
    assert verdict.violations == ()
    assert verdict.last == newest


def test_a_watch_that_never_answers_is_not_waited_for_for_ever(little, monkeypatch):
    monkeypatch.setattr(history, "ASK_SECONDS", 0.001)
    little.run(T, X)

    class Mute:
        def ask_progress(self) -> None:
            pass

        def close(self) -> None:
            pass

    store = Meddled(little.store)
    monkeypatch.setattr(store, "watch", lambda *_, **__: Mute(), raising=False)
    little.store.compact(3)
    with pytest.raises(StoreUnreachable, match="at revision 3 of"):
        verify_history(store)


def losing(lost, times=1_000_000):
    """Return a store that loses each new watch, so many times."""

    class Losing(Meddled):
        opened = 0

        def watch(self, prefixes, *, after, deliver):
            self.opened += 1
            if self.opened > times:
                return self.inner.watch(prefixes, after=after, deliver=deliver)
            deliver(lost)
            return self.inner.watch(prefixes, after=after, deliver=lambda _: None)

    return Losing


def test_history_whose_watch_is_lost_again_and_again_is_given_up(scene, monkeypatch):
    monkeypatch.setattr(history, "STOP_SECONDS", 0.0001)
    scene.run(T, X)
    store = losing(Lost("etcd ended the watch"))(scene.store)
    with pytest.raises(StoreUnreachable, match=r"5 times in a row at .*: etcd ended the watch"):
        verify_history(store)
    store = losing(Lost("etcd ended the watch"), times=3)(scene.store)
    assert verify_history(store).violations == ()


def test_history_of_a_store_that_is_replaced_meanwhile_is_given_up(scene):
    scene.run(T, X)
    with pytest.raises(StoreUnreachable, match=r"the watch was lost at .*: another etcd"):
        verify_history(losing(Lost("another etcd", anew=True))(scene.store))


# ------------------------------------------------------------------------- following


def test_a_follower_reads_another_store_anew_also_where_that_has_the_revision(scene):
    scene.run(T, X)
    store = Meddled(scene.store)
    with followed(store) as seen:
        seen.wait_for(lambda news: isinstance(news, Listed))
        store.lose(Lost("another etcd", anew=True))
        seen.wait_for(lambda news: isinstance(news, Listed) and news.why == "another etcd")


def test_a_follower_whose_watch_is_lost_again_and_again_says_so_once(little, monkeypatch):
    monkeypatch.setattr(history, "PAUSE_SECONDS_MAX", 0.0001)
    store = losing(Lost("etcd ended the watch"), times=2000)(little.store)
    with followed(store) as seen:
        seen.wait_for(lambda news: isinstance(news, Told) and "answers again" in news.sentence)
        bad = little.write(STRAY)
        seen.wait_for(lambda news: isinstance(news, Violation) and news.revision == bad)
    said = [news.sentence for news in seen.news if isinstance(news, Told)]
    assert ["again and again" in said[0], "answers again" in said[-1], len(said)] == [True, True, 2]


def test_a_torn_watch_leaves_no_revision_unchecked(scene):
    scene.run(T, X)
    store = Meddled(scene.store)
    with followed(store) as seen:
        seen.wait_for(lambda news: isinstance(news, Listed))
        known = scene.write(STRAY)
        seen.wait_for(lambda news: isinstance(news, Violation))
        # Written, and mended, after the watch broke and before it is opened again.
        missed: list[int] = []

        def wrong_for_a_moment() -> None:
            missed.append(scene.write(claim("engine/n2/y", T, "a0")))
            scene.write(Delete("claim/engine/n2/y"))

        store.before["read"] = [wrong_for_a_moment]
        store.lose(Lost("it broke"))
        live = scene.write(claim("engine/n1/f", T, "a0"))
        seen.wait_for(
            lambda news: isinstance(news, Violation) and news.where == "claim/engine/n1/f"
        )
        seen.wait_for(
            lambda news: isinstance(news, Violation) and news.where == "claim/engine/n2/y"
        )
    assert len([n for n in seen.news if isinstance(n, Listed)]) == 1
    told = {(known, STRAY.key), (missed[0], "claim/engine/n2/y"), (live, "claim/engine/n1/f")}
    assert set(found(seen.news)) == told
    assert seen.verdict is not None
    assert set(found(seen.verdict.violations)) == told


def test_compaction_under_a_followers_feet_is_told_with_what_was_missed(scene):
    scene.run(T, X)
    store = Meddled(scene.store)
    with followed(store) as seen:
        seen.wait_for(lambda news: isinstance(news, Listed))
        known = scene.write(STRAY)
        seen.wait_for(lambda news: isinstance(news, Violation))
        oldest: list[int] = []

        def far_away() -> None:
            scene.write(Delete(STRAY.key))
            scene.write(STRAY)
            oldest.append(scene.write(claim("engine/n2/y", T, "a0")))
            scene.store.compact(oldest[0])

        store.before["read"] = [far_away]
        store.lose(Lost("it broke"))
        seen.wait_for(lambda news: isinstance(news, Listed) and bool(news.after))
        live = scene.write(claim("engine/n1/f", T, "a0"))
        seen.wait_for(lambda news: isinstance(news, Violation) and news.revision == live)
    listed = [n for n in seen.news if isinstance(n, Listed)][1]
    assert (listed.revision, listed.after) == (oldest[0], known)
    assert "compacted" in listed.why
    # What was wrong before is not told again, though it was mended and made again meanwhile.
    told = [(known, STRAY.key), (oldest[0], "claim/engine/n2/y"), (live, "claim/engine/n1/f")]
    assert found(seen.news) == told
    assert seen.verdict is not None
    assert (seen.verdict.first, seen.verdict.last) == (oldest[0], live)


def test_following_waits_for_a_store_that_is_gone_for_a_while(little, monkeypatch):
    monkeypatch.setattr(history, "ASK_SECONDS", 0.001)
    store = Meddled(little.store)

    def gone() -> None:
        raise StoreUnreachable("no answer")

    with followed(store) as seen:
        seen.wait_for(lambda news: isinstance(news, Listed))
        store.before["read"] = [gone, gone]
        store.lose(Lost("it broke"))
        seen.wait_for(lambda news: isinstance(news, Told) and "answers again" in news.sentence)
        bad = little.write(STRAY)
        seen.wait_for(lambda news: isinstance(news, Violation) and news.revision == bad)
    assert store.before["read"] == []
    said = [news.sentence for news in seen.news if isinstance(news, Told)]
    assert [("does not answer" in said[0]), len(said)] == [True, 2]  # once each


def test_following_can_be_stopped_while_the_store_is_gone(little, monkeypatch):
    monkeypatch.setattr(history, "ASK_SECONDS", 0.001)
    store, stop, asked = Meddled(little.store), threading.Event(), threading.Event()

    def gone() -> None:
        asked.set()
        raise StoreUnreachable("no answer")

    bad = little.write(STRAY)
    verdicts: list[Any] = []
    told: list[int] = []  # how many watches there were when it was told: to explain it takes some

    def deliver(news: Any) -> None:
        if isinstance(news, Violation):
            told.append(len(store.watching))

    thread = threading.Thread(
        target=lambda: verdicts.append(follow(store, deliver, stop)), daemon=True
    )
    thread.start()
    while not told or len(store.watching) == told[0]:
        pass
    store.before["read"] = [gone] * 1_000_000
    store.watching[-1](Lost("it broke"))
    assert asked.wait(5)
    stop.set()
    thread.join(5)
    assert found(verdicts[0].violations) == [(bad, STRAY.key)]


def test_following_what_cannot_be_reached_at_first_is_an_error():
    store = Meddled(MemoryStore(StoppedClock()))

    def gone() -> None:
        raise StoreUnreachable("no answer")

    store.before["read"] = [gone]
    with pytest.raises(StoreUnreachable):
        follow(store, lambda news: None, threading.Event())


# ------------------------------------------------------------------------- states


def test_changes_are_cut_at_revisions():
    changes = [Change("a", b"", 2, 2), Change("b", None, 0, 2), Change("a", b"", 2, 5)]
    assert list(by_revision(changes)) == [changes[:2], changes[2:]]


def test_state_moves_on_by_whole_revisions(little):
    state = State.read(little.store.read([""], at=1))
    heard: list[Any] = []
    little.run(T, PAIR)
    little.end(T)
    little.store.watch([""], after=1, deliver=heard.append)
    for changes in by_revision(heard[0].changes):
        state.apply(changes)
        assert state == State.read(little.store.read([""], at=changes[0].modified))


def test_a_revision_is_applied_once(little):
    state = State.read(little.store.read([""]))
    with pytest.raises(AssertionError, match="was applied already"):
        state.apply([Change("a", b"", state.revision, state.revision)])


def test_an_empty_cell_breaks_no_law(store):
    assert verify_now(store).violations == ()
    assert verify_history(store).violations == ()
