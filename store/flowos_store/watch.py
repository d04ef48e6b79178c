"""What changes under these prefixes? One etcd stream, followed so that nothing is lost or doubled.

Traps of etcd's watch that are handled here (each has a test):
- A watch from revision R + 1 answers no progress request while the store stands at R, for hours if
  nobody writes (3.5.30). So it starts at R, and what happened at R is left out.
- Progress requests made while a watch is catching up are dropped, not deferred: ask again.
- Events of a watch wait until its `created` is sent, a progress answer does not: ask only after all
  are announced, else it overtakes them.
- Large revisions come in fragments, to be joined before anybody sees them.
- `canceled` is the end of a watch, whatever else the message says; the stream stays open.
- The revision of `created` is the server's, and says nothing of what was delivered.
- A server that hangs leaves the stream open for ever.
"""

import queue
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import grpc

from flowos.model.errors import StoreError
from flowos.model.transaction import Change, Changes, Lost, Progress, WatchMessage
from flowos_store.connection import Connection
from flowos_store.failures import details_of
from flowos_store.wire import rpc

REASK_SECONDS: Final = (0.02, 0.05, 0.1, 0.25, 1.0)  # etcd takes up to 0.1 s to bring a watch up
REOPEN_SECONDS_MAX: Final = 5.0
DELETE: Final = 1  # mvccpb.Event.DELETE
EVERY_WATCH: Final = -1  # the watch id of a progress answer


def pause_seconds(failures: int) -> float:
    """Return how long to wait before a stream is opened again, without jitter."""
    return min(REOPEN_SECONDS_MAX, 0.05 * 2.0 ** min(failures, 10))


class Span(NamedTuple):
    """A prefix as etcd takes it: from `first` on, to before `end`."""

    first: bytes
    end: bytes


class Newest(NamedTuple):
    """Where a store stands, and which it is."""

    cluster: int
    revision: int


class _Stream:
    """One opening of the stream: what it still owes us.

    Answers to progress requests carry no name, and some requests get none. But they come in order,
    so the nth answer is to the nth request or a later one: an ask is answered for certain by the
    answer with the number of the next request.
    """

    def __init__(self, *, asked: bool) -> None:
        self.requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.call: Any = None
        self.announced = 0  # watches that the server has said to have created
        self.heard = time.monotonic()  # when anything came
        self.sent = 0  # progress requests
        self.answered = 0  # of these
        self.due = 1 if asked else 0  # which answer is waited for

    def is_asked(self) -> bool:
        return self.answered < self.due


class EtcdWatch:
    """A subscription that opens its stream again where it broke, and says `Lost` where it can't.

    It takes three daemon threads, two of them grpc's.
    """

    def __init__(
        self,
        connection: Connection,
        spans: Sequence[Span],
        *,
        root_length: int,
        after: int,
        deliver: Callable[[WatchMessage], None],
        newest: Callable[[], Newest],
        silent_seconds: float,
        jitter: random.Random,
    ) -> None:
        """Start to follow.

        Args:
            connection: Where to.
            spans: What to watch.
            root_length: How many bytes to cut off the front of each key.
            after: The revision that is known already.
            deliver: Takes the messages, on a thread of this watch.
            newest: Reads where the store stands; raises StoreError.
            silent_seconds: How long an answer may take before the stream counts as dead.
            jitter: Spreads the reopening of many clients.
        """
        self._connection = connection
        self._spans = tuple(spans)
        self._root_length = root_length
        self._deliver = deliver
        self._newest = newest
        self._silent_seconds = silent_seconds
        self._jitter = jitter
        self._delivered = [after] * len(spans)  # per span, the revision up to which all was told
        self._first = [max(1, after)] * len(spans)  # per span, where the next stream starts
        self._cluster = 0  # which store this is, once heard
        self._closed = threading.Event()
        self._counting = threading.Lock()  # of requests and answers
        self._stream = _Stream(asked=False)
        self._thread = threading.Thread(target=self._run, name="flowos-watch", daemon=True)
        self._thread.start()

    def ask_progress(self) -> None:
        """Ask for a `Progress` message; it comes after every change that precedes it."""
        with self._counting:
            stream = self._stream
            stream.due = stream.sent + 1
        stream.requests.put(_AGAIN)

    def is_over(self) -> bool:
        """Tell whether it will never deliver anything again."""
        return not self._thread.is_alive()

    def close(self) -> None:
        """End it; nothing is delivered after this returns, except from a delivery under way."""
        self._closed.set()
        self._end_stream()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=2.0)

    # ----------------------------------------------------------------------- keeping it open

    def _run(self) -> None:
        failures = 0
        try:
            while not self._closed.is_set():
                before = self._delivered.copy()
                lost = self._follow()
                if lost is None:
                    failures = 0 if self._delivered != before else failures + 1
                    pause = pause_seconds(failures) * self._jitter.uniform(0.5, 1.0)
                    self._closed.wait(pause)
                    lost = None if self._closed.is_set() else self._went_back()
                if lost is not None:
                    self._tell(lost)
                    return
        except BaseException as bug:
            if self._closed.is_set():
                return  # a channel that was closed below us
            self._tell(Lost(f"the watch failed: {bug!r}"))
            raise

    def _went_back(self) -> Lost | None:
        """Check that what comes next continues what was delivered."""
        try:
            cluster, revision = self._newest()
        except StoreError:
            return None  # not there yet: the next stream will fail too, and we come back
        if self._cluster and cluster != self._cluster:
            return Lost("another etcd answers at these endpoints")
        known = max(self._delivered)
        if revision < known:
            return Lost(f"the store went back from revision {known} to {revision}")
        return None

    def _tell(self, message: WatchMessage) -> None:
        if not self._closed.is_set():
            self._deliver(message)

    def _end_stream(self) -> None:
        stream = self._stream
        stream.requests.put(None)
        if stream.call is not None:
            stream.call.cancel()

    # ---------------------------------------------------------------------------- one stream

    def _follow(self) -> Lost | None:
        """Follow one stream to its end; return why there can be no next, or None."""
        with self._counting:
            self._stream = stream = _Stream(asked=self._stream.is_asked())
        token = self._connection.metadata
        stream.call = self._connection.watchstub.Watch(
            self._requests(stream),
            # A member cut off from its leader is to say so, instead of just falling silent.
            metadata=(*token, ("hasleader", "true")),
            # See Connection._comes_back; the watchdog ends the waiting.
            wait_for_ready=True,
        )
        if self._closed.is_set():  # closed before it could see the call
            self._end_stream()
        parts: dict[int, list[Any]] = {}
        try:
            for response in stream.call:
                stream.heard = time.monotonic()
                if response.canceled:
                    return self._canceled(response, token)
                if response.created:
                    self._cluster = self._cluster or response.header.cluster_id
                    stream.announced += 1
                    if stream.announced == len(self._spans):
                        stream.requests.put(_AGAIN)
                elif response.watch_id == EVERY_WATCH:
                    self._progressed(stream, response.header.revision)
                else:
                    parts.setdefault(response.watch_id, []).extend(response.events)
                    if not response.fragment:
                        self._changed(response.watch_id - 1, parts.pop(response.watch_id))
        except grpc.RpcError as error:
            # Torn off, by the network, the server or ourselves: all that was told is known, so
            # the next stream goes on from there. What was not joined yet comes again.
            if self._connection.has_user and "auth token" in details_of(error):
                self._log_in_again(token)
        finally:
            self._end_stream()
        return None

    def _requests(self, stream: _Stream) -> Iterator[Any]:
        """Yield what the stream asks for; grpc calls this on a thread of its own.

        It is also the watchdog: there is nothing else for its thread to do.
        """
        for number, (span, first) in enumerate(zip(self._spans, self._first, strict=True), start=1):
            request = rpc.WatchRequest()
            create = request.create_request
            create.key, create.range_end = span
            create.start_revision = first
            create.watch_id = number
            create.fragment = True
            yield request
        ask = rpc.WatchRequest(progress_request=rpc.WatchProgressRequest())
        asked, asked_at = 0, time.monotonic()
        while True:
            ready = stream.announced == len(self._spans)
            waiting = stream.is_asked() or not ready
            pause = REASK_SECONDS[min(asked, len(REASK_SECONDS) - 1)] if waiting else None
            try:
                wanted = stream.requests.get(timeout=pause)
            except queue.Empty:
                wanted = _AGAIN
            else:
                if wanted is None:
                    return
                if not waiting:
                    asked, asked_at = 0, time.monotonic()
            if time.monotonic() - max(asked_at, stream.heard) > self._silent_seconds:
                stream.call.cancel()
                return
            with self._counting:
                ask_now = stream.is_asked() and stream.announced == len(self._spans)
                stream.sent += ask_now
            if ask_now:
                asked += 1
                yield ask

    # ------------------------------------------------------------------------------- answers

    def _progressed(self, stream: _Stream, revision: int) -> None:
        with self._counting:
            stream.answered += 1
        for at, delivered in enumerate(self._delivered):
            self._known(at, max(delivered, revision))
        self._tell(Progress(revision))

    def _changed(self, at: int, events: Sequence[Any]) -> None:
        cut, known = self._root_length, self._delivered[at]
        changes = []
        for event in events:
            entry = event.kv
            if entry.mod_revision > known:
                value = None if event.type == DELETE else entry.value
                key = entry.key[cut:].decode("utf-8", "surrogateescape")
                changes.append(Change(key, value, entry.create_revision, entry.mod_revision))
        if changes:
            self._known(at, changes[-1].modified)
            self._tell(Changes(changes))

    def _known(self, at: int, revision: int) -> None:
        self._delivered[at] = self._first[at] = revision

    def _canceled(self, response: Any, token: tuple[tuple[str, str], ...]) -> Lost | None:
        at, oldest = response.watch_id - 1, response.compact_revision
        if oldest:
            if self._delivered[at] + 1 < oldest:
                after = self._delivered[at]
                return Lost(f"the history after {after} is compacted", oldest)
            # Only the revision that is left out anyway is gone.
            self._first[at] = oldest
            return None
        reason = response.cancel_reason or "no reason given"
        if self._connection.has_user and "auth token" in reason:
            return self._log_in_again(token)
        return Lost(f"etcd ended the watch: {reason}")

    def _log_in_again(self, stale: tuple[tuple[str, str], ...]) -> Lost | None:
        try:
            self._connection.log_in(stale)
        except StoreError as error:
            return Lost(f"etcd ended the watch, and a new login failed: {error}")
        return None


_AGAIN: Final = object()  # wakes the sender up to look at what is asked for
