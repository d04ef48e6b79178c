"""A watch whose server, network or history fails at any byte: the view is right, or it is `Lost`."""

import queue
import threading
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowos.model.errors import OutcomeUnknown, StoreUnreachable
from flowos.model.transaction import Changes, Delete, Lost, Progress, Put, Transaction
from flowos_store import EmbeddedEtcd, EtcdStore
from tests.plugins.proxy import DOWN, UP, Fate, Proxy
from tests.store.test_watch import when_reachable

pytestmark = [pytest.mark.etcd, pytest.mark.slow]
PATIENCE_SECONDS = 30.0


class View:
    """What is there according to the messages of one watch, as every mirror keeps it."""

    def __init__(self, store: EtcdStore, prefixes: Any = ("a/", "b/")) -> None:
        self.messages: queue.SimpleQueue[Any] = queue.SimpleQueue()
        reading = store.read(prefixes)
        self.there = {record.key: (record.value, record.modified) for record in reading.records}
        self.revision = reading.revision
        self.lost: Lost | None = None
        self.watch = store.watch(prefixes, after=reading.revision, deliver=self.messages.put)

    def take(self, timeout: float = PATIENCE_SECONDS) -> None:
        message = self.messages.get(timeout=timeout)
        match message:
            case Changes(changes):
                assert self.lost is None
                for key, value, _, modified in changes:
                    assert modified > self.revision, f"{key} at {modified} after {self.revision}"
                    before = self.there.pop(key, (b"", 0))
                    assert modified > before[1], f"{key} goes back to {modified}"
                    if value is not None:
                        self.there[key] = (value, modified)
            case Progress(revision):
                self.revision = revision
            case Lost():
                self.lost = message

    def up_to(self, revision: int) -> None:
        """Take messages until the view is complete up to a revision, or lost."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.revision < revision and self.lost is None:
            assert time.monotonic() < deadline, f"no progress beyond {self.revision}"
            self.watch.ask_progress()
            try:
                self.take(timeout=0.2)
            except queue.Empty:
                continue

    def is_true_in(self, store: EtcdStore) -> bool:
        reading = store.read(("a/", "b/"), at=self.revision)
        return self.there == {r.key: (r.value, r.modified) for r in reading.records}


def write(store: EtcdStore, number: int, size: int = 3) -> int:
    """Put and delete some keys of two families at one revision."""
    puts = [Put(f"{f}/{number % 5}-{part}", b"%d" % number) for f in "ab" for part in range(size)]
    gone = [Delete(f"a/{(number + 1) % 5}-0")]
    (done,) = store.commit([Transaction((), (*puts, *gone))])
    return done.revision


CUTS = st.lists(
    st.tuples(
        st.sampled_from([DOWN, DOWN, UP]),
        st.one_of(st.integers(0, 300), st.integers(0, 6000)),
        st.sampled_from([Fate.CUT, Fate.CUT, Fate.SWALLOW, Fate.HOLD]),
        st.integers(1, 4),
    ),
    min_size=1,
    max_size=4,
)


@given(CUTS)
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
def test_wherever_its_stream_breaks_the_view_becomes_the_truth(etcd_server, cuts):
    cell = f"cuts-{time.monotonic_ns():x}"
    truth = EtcdStore([etcd_server.endpoint], cell)
    with Proxy(etcd_server.endpoint) as proxy:
        store = EtcdStore([proxy.endpoint], cell, read_timeout_seconds=1.0, silent_seconds=0.3)
        newest = write(truth, 0)
        view = View(store)
        number = 0
        for way, count, fate, writes in cuts:
            proxy.after(way, count, fate)
            for _ in range(writes):
                number += 1
                newest = write(truth, number, size=number % 7)
            view.watch.ask_progress()
            proxy.struck.wait(0.1)
            threading.Event().wait(0.02)
            proxy.heal()
            view.up_to(newest)
            assert view.lost is None
            assert view.is_true_in(truth)
        store.close()
        truth.close()


@given(st.integers(0, 2_600_000), st.integers(0, 2_600_000))
@settings(max_examples=12, suppress_health_check=list(HealthCheck))
def test_a_stream_that_dies_within_a_large_revision_tears_and_loses_nothing(
    etcd_default_flags, first, second
):
    # One revision of 2.4 MB, which this etcd sends in fragments.
    cell = f"torn-{time.monotonic_ns():x}"
    truth = EtcdStore([etcd_default_flags.endpoint], cell)
    with Proxy(etcd_default_flags.endpoint) as proxy:
        store = EtcdStore([proxy.endpoint], cell, silent_seconds=1.0)
        view = View(store)
        proxy.after(DOWN, first, Fate.CUT)
        values = tuple(Put(f"a/{part}", bytes(480_000)) for part in range(3))
        (one,) = truth.commit([Transaction((), values)])
        (two,) = truth.commit([Transaction((), values)])
        proxy.struck.wait(0.3)
        proxy.after(DOWN, second, Fate.CUT)
        deadline = time.monotonic() + PATIENCE_SECONDS
        seen: list[int] = []
        while seen != [one.revision] * 3 + [two.revision] * 3:
            assert time.monotonic() < deadline, seen
            message = view.messages.get(timeout=PATIENCE_SECONDS)
            if isinstance(message, Changes):
                told = [change.modified for change in message.changes]
                assert all(told.count(revision) == 3 for revision in told), "a revision is torn"
                seen += told
        store.close()
        truth.close()


def test_a_watch_that_is_behind_when_its_history_goes_is_lost_and_names_the_oldest(etcd_server):
    cell = "behind"
    truth = EtcdStore([etcd_server.endpoint], cell)
    with Proxy(etcd_server.endpoint) as proxy:
        store = EtcdStore([proxy.endpoint], cell, read_timeout_seconds=1.0, silent_seconds=0.3)
        view = View(store)
        view.up_to(write(truth, 1))
        proxy.refuse()
        newest = [write(truth, number) for number in range(2, 6)][-1]
        truth.compact(newest)
        proxy.accept()
        view.up_to(newest)
        assert view.lost is not None
        assert view.lost.compacted == newest
        again = when_reachable(lambda: View(store))
        again.up_to(newest)
        assert again.is_true_in(truth)
        store.close()
        truth.close()


def test_a_watch_that_is_behind_by_nothing_survives_compaction(etcd_server):
    truth = EtcdStore([etcd_server.endpoint], "in-step")
    with Proxy(etcd_server.endpoint) as proxy:
        store = EtcdStore([proxy.endpoint], "in-step", read_timeout_seconds=1.0, silent_seconds=0.3)
        view = View(store)
        view.up_to(write(truth, 1))
        proxy.cut()
        truth.compact(view.revision)
        newest = write(truth, 2)
        view.up_to(newest)
        assert view.lost is None
        assert view.is_true_in(truth)
        store.close()
        truth.close()


@pytest.mark.parametrize("ways", [(UP,), (DOWN,), (UP, DOWN)], ids=["up", "down", "both"])
def test_a_connection_that_is_only_half_there_is_left(etcd_server, ways):
    cell = f"half-{len(ways)}-{ways[0].name}"
    truth = EtcdStore([etcd_server.endpoint], cell)
    with Proxy(etcd_server.endpoint) as proxy:
        store = EtcdStore([proxy.endpoint], cell, read_timeout_seconds=1.0, silent_seconds=0.3)
        view = View(store)
        view.up_to(write(truth, 1))
        for way in ways:
            # The connections of now; those of later are whole.
            proxy.after(way, 0, Fate.SWALLOW)
        newest = write(truth, 2)
        view.watch.ask_progress()
        view.up_to(newest)
        assert view.is_true_in(truth)
        store.close()
        truth.close()


def test_calls_over_a_connection_that_is_only_half_there_take_a_new_one(etcd_server):
    with Proxy(etcd_server.endpoint) as proxy:
        store = EtcdStore([proxy.endpoint], "half", read_timeout_seconds=0.3)
        ask = Transaction((), (Put("a/1", b""),))
        store.commit([ask])
        proxy.after(UP, 0, Fate.SWALLOW)
        with pytest.raises(OutcomeUnknown):
            store.commit([ask], timeout_seconds=0.3)
        assert len(store.commit([ask], timeout_seconds=10.0)) == 1
        proxy.after(DOWN, 0, Fate.SWALLOW)
        with pytest.raises(StoreUnreachable):
            store.read(["a/"])
        assert len(store.read(["a/"]).records) == 1
        store.close()


def test_another_store_at_the_same_address_ends_the_watch(tmp_path, etcd_server):
    truth = EtcdStore([etcd_server.endpoint], "moved")
    with (
        EmbeddedEtcd(tmp_path, unsafe_no_fsync=True, flags=("--initial-cluster-token=b",)) as new,
        Proxy(etcd_server.endpoint) as proxy,
    ):
        store = EtcdStore([proxy.endpoint], "moved", read_timeout_seconds=1.0)
        view = View(store)
        view.up_to(write(truth, 1))
        proxy.point_to(new.endpoint)
        while view.lost is None:
            view.take()
        assert view.lost.why in {
            "another etcd answers at these endpoints",
            f"the store went back from revision {view.revision} to 1",
        }
        store.close()
        truth.close()


@pytest.fixture
def replaced(tmp_path, own_etcd):
    """A store at an address that `move` gives to another etcd, whose history is longer."""
    old = EtcdStore([own_etcd.endpoint], "outlives")
    flags = ("--initial-cluster-token=c",)
    with (
        EmbeddedEtcd(tmp_path / "new", unsafe_no_fsync=True, flags=flags) as new,
        Proxy(own_etcd.endpoint) as proxy,
    ):
        store = EtcdStore([proxy.endpoint], "outlives", read_timeout_seconds=5.0)
        truth = EtcdStore([new.endpoint], "outlives")
        write(old, 0)
        for number in range(9):
            write(truth, number)

        def move():
            proxy.point_to(new.endpoint)
            when_reachable(lambda: store.oldest())

        yield store, truth, move
        for opened in (store, truth, old):
            opened.close()


def test_a_store_that_outlives_its_etcd_follows_the_one_that_is_there_now(replaced):
    store, truth, move = replaced
    view = View(store)
    move()
    while view.lost is None:
        view.take()
    assert view.lost.anew
    for number in range(2):
        again = View(store)
        again.up_to(write(truth, number))
        assert again.lost is None
        assert again.is_true_in(truth)


def test_a_listing_of_the_etcd_before_is_followed_in_no_other(replaced):
    store, _, move = replaced
    listed = store.read(["a/", "b/"]).revision
    move()
    assert store.read(["a/"]).revision > listed  # somebody else's listing, of the new one
    told: queue.SimpleQueue[Any] = queue.SimpleQueue()
    watch = store.watch(["a/"], after=listed, deliver=told.put)
    watch.ask_progress()
    assert told.get(timeout=PATIENCE_SECONDS) == Lost(
        "another etcd answers at these endpoints", anew=True
    )
