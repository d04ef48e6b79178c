"""What can go wrong between an etcd and who watches it, one trap a test.

A scripted server plays those that a real one shows only by chance.
"""

import contextlib
import os
import queue
import random
import subprocess
import sys
import threading
import time
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest

from flowos.model.errors import StoreUnreachable
from flowos.model.transaction import Changes, Lost, Progress, Put, Transaction
from flowos_store.connection import Connection
from flowos_store.subscription import Newest, Span, pause_seconds
from flowos_store.watch import EtcdWatch
from flowos_store.wire import kv, rpc
from tests.plugins.etcd import paused

pytestmark = pytest.mark.etcd
ROOT = Path(__file__).parents[2]


# ------------------------------------------------------------------------------ the scripted server


class ScriptedServer:
    """An etcd that says on each stream what the test puts into `says`, and nothing else."""

    def __init__(self) -> None:
        self.streams: queue.SimpleQueue[ScriptedStream] = queue.SimpleQueue()
        self.server = grpc.server(futures.ThreadPoolExecutor(8))
        handler = grpc.stream_stream_rpc_method_handler(
            self.follow,
            request_deserializer=rpc.WatchRequest.FromString,
            response_serializer=rpc.WatchResponse.SerializeToString,
        )
        service = grpc.method_handlers_generic_handler("etcdserverpb.Watch", {"Watch": handler})
        self.server.add_generic_rpc_handlers((service,))
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def follow(self, requests: Any, context: Any) -> Any:
        stream = ScriptedStream(requests)
        context.add_callback(lambda: stream.says.put(None))
        self.streams.put(stream)
        while (response := stream.says.get()) is not None:
            yield response

    def next_stream(self) -> "ScriptedStream":
        return self.streams.get(timeout=10)


class ScriptedStream:
    """One stream, seen from the server: what was asked, and what is to be said."""

    def __init__(self, requests: Any) -> None:
        self.says: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.asked: queue.SimpleQueue[Any] = queue.SimpleQueue()
        threading.Thread(target=self._listen, args=(requests,), daemon=True).start()

    def _listen(self, requests: Any) -> None:
        try:
            for request in requests:
                self.asked.put(request)
        except Exception:  # noqa: BLE001  the other side hung up
            return

    def created(self, *ids: int, revision: int = 99) -> list[Any]:
        """Take the create requests and announce their watches."""
        creates = [self.asked.get(timeout=10).create_request for _ in ids]
        for number in ids:
            self.say(watch_id=number, created=True, revision=revision)
        return creates

    def say(self, *, revision: int = 0, events: Any = (), **fields: Any) -> None:
        header = rpc.ResponseHeader(cluster_id=1, revision=revision)
        self.says.put(rpc.WatchResponse(header=header, events=events, **fields))

    def hang_up(self) -> None:
        self.says.put(None)


def event(key: str, revision: int) -> Any:
    entry = kv.KeyValue(key=f"/{key}".encode(), mod_revision=revision, create_revision=revision)
    return kv.Event(kv=entry)


class Followed:
    """A watch on a scripted server."""

    def __init__(self, server: ScriptedServer, prefixes: Any = ("a",), **options: Any) -> None:
        self.told: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.stands = Newest(1, 1000)
        self.connection = Connection([f"127.0.0.1:{server.port}"], timeout_seconds=2)
        settings = {"after": 5, "cluster": 0, "silent_seconds": 10.0, **options}
        self.watch = EtcdWatch(
            self.connection,
            [Span(f"/{prefix}".encode(), f"/{prefix}~".encode()) for prefix in prefixes],
            root_length=1,
            deliver=self.told.put,
            newest=lambda: self.stands,
            jitter=random.Random(1),
            **settings,
        )

    def next(self) -> Any:
        return self.told.get(timeout=10)

    def says_nothing(self, seconds: float = 0.2) -> bool:
        time.sleep(seconds)
        return self.told.empty()

    def close(self) -> None:
        self.watch.close()
        self.connection.close()


@pytest.fixture
def scripted():
    server = ScriptedServer()
    yield server
    server.server.stop(0).wait()


@pytest.fixture
def follow(scripted):
    opened = []

    def open_watch(*args, **options):
        opened.append(Followed(scripted, *args, **options))
        return opened[-1]

    yield open_watch
    for followed in opened:
        followed.close()


def test_fragments_are_joined_before_anybody_sees_them(scripted, follow):
    followed = follow()
    stream = scripted.next_stream()
    stream.created(1)
    stream.say(watch_id=1, fragment=True, events=[event("a1", 6)])
    stream.say(watch_id=1, fragment=True, events=[event("a2", 6)])
    assert followed.says_nothing()
    stream.say(watch_id=1, events=[event("a3", 6)])
    assert [change.key for change in followed.next().changes] == ["a1", "a2", "a3"]


def test_a_stream_torn_between_fragments_tells_the_whole_revision_once(scripted, follow):
    followed = follow()
    stream = scripted.next_stream()
    stream.created(1)
    stream.say(watch_id=1, events=[event("a1", 6)])
    stream.say(watch_id=1, fragment=True, events=[event("a1", 7)])
    followed.next()
    stream.hang_up()
    stream = scripted.next_stream()
    (create,) = stream.created(1)
    assert create.start_revision == 6
    stream.say(watch_id=1, events=[event("a1", 6), event("a1", 7), event("a2", 7)])
    assert [(c.key, c.modified) for c in followed.next().changes] == [("a1", 7), ("a2", 7)]


def test_a_new_stream_goes_on_from_what_was_told_and_not_from_the_created_header(scripted, follow):
    followed = follow(("a", "b"))
    stream = scripted.next_stream()
    assert [create.start_revision for create in stream.created(1, 2, revision=500)] == [5, 5]
    stream.say(watch_id=2, events=[event("b1", 40)])
    followed.next()
    stream.hang_up()
    creates = scripted.next_stream().created(1, 2, revision=500)
    assert [create.start_revision for create in creates] == [5, 40]


def test_what_a_progress_vouches_for_is_not_asked_for_again(scripted, follow):
    followed = follow(("a", "b"))
    stream = scripted.next_stream()
    stream.created(1, 2)
    stream.say(watch_id=-1, revision=70)
    assert followed.next() == Progress(70)
    stream.hang_up()
    creates = scripted.next_stream().created(1, 2)
    assert [create.start_revision for create in creates] == [70, 70]


def test_progress_is_not_asked_before_every_watch_is_announced(scripted, follow):
    # Events of a watch that is not announced yet wait; a progress answer would overtake them.
    followed = follow(("a", "b"))
    followed.watch.ask_progress()
    stream = scripted.next_stream()
    for _ in range(2):
        assert stream.asked.get(timeout=10).HasField("create_request")
    stream.say(watch_id=1, created=True)
    with pytest.raises(queue.Empty):
        stream.asked.get(timeout=0.3)
    stream.say(watch_id=2, created=True)
    assert stream.asked.get(timeout=10).HasField("progress_request")


def test_a_progress_request_that_the_server_dropped_is_made_again(scripted, follow):
    followed = follow()
    stream = scripted.next_stream()
    stream.created(1)
    followed.watch.ask_progress()
    for _ in range(3):
        assert stream.asked.get(timeout=10).HasField("progress_request")
    stream.say(watch_id=-1, revision=99)
    assert followed.next() == Progress(99)


def test_an_answer_to_an_earlier_request_does_not_answer_a_later_one(scripted, follow):
    followed = follow()
    stream = scripted.next_stream()
    stream.created(1)
    followed.watch.ask_progress()
    for _ in range(2):  # asked again, as the first may have been dropped; it was not
        assert stream.asked.get(timeout=10).HasField("progress_request")
    stream.say(watch_id=-1, revision=10)
    assert followed.next() == Progress(10)
    time.sleep(0.1)
    while not stream.asked.empty():
        stream.asked.get()
    followed.watch.ask_progress()
    assert stream.asked.get(timeout=10).HasField("progress_request")  # this one is dropped
    stream.say(watch_id=-1, revision=10)  # to the second of the requests before
    assert followed.next() == Progress(10)
    time.sleep(0.1)
    while not stream.asked.empty():
        stream.asked.get()
    assert stream.asked.get(timeout=10).HasField("progress_request")
    stream.say(watch_id=-1, revision=20)
    assert followed.next() == Progress(20)


def test_a_server_that_does_not_answer_is_left_for_another(scripted, follow):
    followed = follow(silent_seconds=0.5)
    stream = scripted.next_stream()
    stream.created(1)
    followed.watch.ask_progress()
    again = scripted.next_stream()
    again.created(1)
    again.say(watch_id=-1, revision=99)
    assert followed.next() == Progress(99)


def test_a_server_that_does_not_even_announce_the_watch_is_left_for_another(scripted, follow):
    follow(silent_seconds=0.3)
    scripted.next_stream()
    scripted.next_stream().created(1)


def test_a_quiet_stream_of_which_nothing_was_asked_stays(scripted, follow):
    followed = follow(silent_seconds=0.2)
    scripted.next_stream().created(1)
    assert followed.says_nothing(0.6)
    with pytest.raises(queue.Empty):
        scripted.streams.get(timeout=0.1)


def test_a_watch_that_the_server_cancels_is_lost_with_its_reason(scripted, follow):
    followed = follow()
    stream = scripted.next_stream()
    stream.created(1)
    stream.say(watch_id=1, canceled=True, cancel_reason="etcdserver: permission denied")
    assert followed.next() == Lost("etcd ended the watch: etcdserver: permission denied")
    assert followed.says_nothing()


def test_a_watch_that_is_created_and_cancelled_in_one_breath_is_lost(scripted, follow):
    followed = follow()
    scripted.next_stream().say(watch_id=1, created=True, canceled=True)
    assert isinstance(followed.next(), Lost)


def test_a_store_that_went_back_is_told_as_lost(scripted, follow):
    followed = follow()
    stream = scripted.next_stream()
    stream.created(1)
    stream.say(watch_id=1, events=[event("a", 50)])
    followed.next()
    followed.stands = Newest(1, 20)
    stream.hang_up()
    assert followed.next() == Lost("the store went back from revision 50 to 20", anew=True)


def test_another_store_at_the_same_address_is_told_as_lost(scripted, follow):
    followed = follow()
    stream = scripted.next_stream()
    stream.created(1)
    stream.say(watch_id=1, events=[event("a", 50)])
    followed.next()
    followed.stands = Newest(2, 2000)
    stream.hang_up()
    assert followed.next() == Lost("another etcd answers at these endpoints", anew=True)


def test_a_server_may_be_gone_for_days():
    assert [pause_seconds(failures) for failures in (0, 1, 7, 100_000)] == [0.05, 0.1, 5.0, 5.0]


# ---------------------------------------------------------------------------------- a real server


def put(store, *keys):
    (done,) = store.commit([Transaction((), tuple(Put(key, b"v") for key in keys))])
    return done.revision


def when_reachable(ask):
    """What the store answers once its channel has found the server again."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with contextlib.suppress(StoreUnreachable):
            return ask()
        time.sleep(0.05)
    return ask()


def changes_up_to(told, watch, revision):
    watch.ask_progress()
    changes: list[Any] = []
    while (message := told.get(timeout=20)) != Progress(revision):
        if not isinstance(message, Progress):
            assert isinstance(message, Changes), message
            changes += message.changes
    return changes


def test_a_watch_outlives_the_crash_of_its_server(own_etcd, etcd_store):
    store = etcd_store(own_etcd)
    told: queue.SimpleQueue[Any] = queue.SimpleQueue()
    watch = store.watch(["a"], after=put(store, "a0"), deliver=told.put)
    one = put(store, "a1")
    own_etcd.kill()
    with pytest.raises(StoreUnreachable):
        store.read(["a"])
    own_etcd.start()
    two = when_reachable(lambda: put(store, "a2"))
    told_of = [(change.key, change.modified) for change in changes_up_to(told, watch, two)]
    assert told_of == [("a1", one), ("a2", two)]


def test_a_server_that_hangs_is_noticed_and_followed_again_when_it_wakes(own_etcd, etcd_store):
    store = etcd_store(own_etcd, silent_seconds=0.5)
    told: queue.SimpleQueue[Any] = queue.SimpleQueue()
    start = put(store, "a0")
    watch = store.watch(["a"], after=start, deliver=told.put)
    assert changes_up_to(told, watch, start) == []
    with paused(own_etcd):
        watch.ask_progress()
        time.sleep(1.0)
    last = put(store, "a1")
    assert [change.key for change in changes_up_to(told, watch, last)] == ["a1"]


def test_a_revision_that_comes_in_fragments_is_told_whole(etcd_default_flags, etcd_store):
    # etcd cuts what is above --max-request-bytes + 512 KiB, here after every four events.
    store = etcd_store(etcd_default_flags)
    start = store.read(["a"]).revision
    value = b"x" * 450_000
    for number in range(12):
        writes = tuple(Put(f"a/{number}/{part}", value) for part in range(3))
        store.commit([Transaction((), writes)])
    told: queue.SimpleQueue[Any] = queue.SimpleQueue()
    store.watch(["a/"], after=start, deliver=told.put)
    seen: list[int] = []
    while len(seen) < 36:
        message = [change.modified for change in told.get(timeout=20).changes]
        assert message == [r for r in sorted(set(message)) for _ in range(3)]
        seen += message
    assert seen == [start + number for number in range(1, 13) for _ in range(3)]


LEFT_OPEN = """
import sys
from flowos_store import EtcdStore
store = EtcdStore([sys.argv[1]])
store.watch(["a"], after=1, deliver=lambda message: None).ask_progress()
"""


def test_an_interpreter_with_an_open_watch_ends(etcd_server):
    command = [sys.executable, "-W", "error", "-c", LEFT_OPEN, etcd_server.endpoint]
    paths = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'store'}"}
    done = subprocess.run(command, env=paths, capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stderr) == (0, "")


def test_closing_a_store_ends_the_threads_of_its_watches(etcd_server, etcd_store):
    store = etcd_store(etcd_server)
    before = threading.active_count()
    for _ in range(3):
        store.watch(["a"], after=1, deliver=lambda message: None)
    assert threading.active_count() > before
    store.close()
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.02)
    assert threading.active_count() <= before
