"""How is etcd watched? The thin shell of a `Subscription`: streams, threads, and the time."""

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grpc

from flowos.model.errors import StoreError, StoreUnreachable
from flowos.model.transaction import Lost, WatchMessage
from flowos_store.connection import Connection
from flowos_store.failures import details_of
from flowos_store.subscription import Do, Newest, Span, Subscription, Then
from flowos_store.wire import rpc


class _Call:
    """One stream of grpc's, which may be ended before it is there."""

    def __init__(self) -> None:
        self.stream: Any = None
        self.ended = False
        self.is_silent = False  # nothing came, though an answer was owed

    def end(self) -> None:
        self.ended = True
        if self.stream is not None:
            self.stream.cancel()


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
        cluster: int,
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
            cluster: Which etcd it is a revision of; 0 = the one that is heard first.
            deliver: Takes the messages, on a thread of this watch.
            newest: Reads where the store stands; raises StoreError.
            silent_seconds: How long an answer may take before the stream counts as dead.
            jitter: Spreads the reopening of many clients.
        """
        self._connection = connection
        self._deliver = deliver
        self._newest = newest
        self._subscription = Subscription(
            spans,
            root_length=root_length,
            after=after,
            silent_seconds=silent_seconds,
            jitter=jitter,
            has_user=connection.has_user,
            cluster=cluster,
        )
        self._lock = threading.Condition()  # of the subscription; notified when it is asked
        self._call = _Call()
        self._begun: Any = None  # how the guard of the members knows that we wait
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="flowos-watch", daemon=True)
        self._thread.start()

    def ask_progress(self) -> None:
        """Ask for a `Progress` message; it comes after every change that precedes it."""
        with self._lock:
            self._subscription.want_progress(time.monotonic())
            self._note_waiting()
            self._lock.notify_all()

    def is_over(self) -> bool:
        """Tell whether it will never deliver anything again."""
        return not self._thread.is_alive()

    def close(self) -> None:
        """End it; nothing is delivered after this returns, except from a delivery under way."""
        self._closed.set()
        self._end(self._call)
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=2.0)

    # ----------------------------------------------------------------------- keeping it open

    def _run(self) -> None:
        try:
            lost: Lost | None = None
            while lost is None and not self._closed.is_set():
                if self._follow() is Then.OVER:
                    return
                with self._lock:
                    pause = self._subscription.broke()
                self._closed.wait(pause)
                lost = None if self._closed.is_set() else self._stands()
            if lost is not None:
                self._tell(lost)
        except BaseException as bug:
            if self._closed.is_set():
                return  # a channel that was closed below us
            self._tell(Lost(f"the watch failed: {bug!r}"))
            raise
        finally:
            self._stop_waiting()

    def _stands(self) -> Lost | None:
        """Check that what comes next continues what was delivered."""
        try:
            newest = self._newest()
        except StoreError:
            return None  # not there yet: the next stream will fail too, and we come back
        with self._lock:
            return self._subscription.stands(newest)

    def _tell(self, message: WatchMessage) -> None:
        if not self._closed.is_set():
            self._deliver(message)

    def _end(self, call: _Call) -> None:
        with self._lock:
            call.ended = True
            self._lock.notify_all()
        call.end()

    # ---------------------------------------------------------------------------- one stream

    def _follow(self) -> Then:
        """Follow one stream to its end."""
        self._call = call = _Call()
        token, member = self._connection.metadata, self._connection.members.current
        self._stop_waiting()  # for the member of the stream before
        try:
            call.stream = self._connection.watchstub.Watch(
                self._requests(call),
                metadata=token,
                # See Members.find; the silence of the subscription ends the waiting.
                wait_for_ready=True,
            )
            if self._closed.is_set():  # closed before it could see the call
                call.end()
            for response in call.stream:
                with self._lock:
                    heard = self._subscription.heard(response, time.monotonic())
                    self._note_waiting()
                    if response.created:
                        self._lock.notify_all()  # nothing else lets the sender send
                for message in heard.messages:
                    self._tell(message)
                if heard.then is Then.LOG_IN:
                    return self._log_in_again(token)
                if heard.then is not Then.GO_ON:
                    return heard.then
        except grpc.RpcError as error:
            # Torn off, by the network, the server or ourselves.
            if self._connection.has_user and "auth token" in details_of(error):
                return self._log_in_again(token)
        except ValueError:
            if not self._connection.members.closed:
                return Then.REOPEN  # its member was left just now, and its channel closed
            raise
        finally:
            self._end(call)
        if call.is_silent:
            # The next stream would go over the same connection, which may be half open.
            member.renew(calls=False)
        return Then.REOPEN

    def _requests(self, call: _Call) -> Iterator[Any]:
        """Yield what the stream asks for; grpc calls this on a thread of its own.

        It is also the watchdog: there is nothing else for its thread to do.
        """
        with self._lock:
            creates = self._subscription.opened(time.monotonic())
            self._note_waiting()
        for number, span, start in creates:
            request = rpc.WatchRequest()
            create = request.create_request
            create.key, create.range_end = span
            create.start_revision = start
            create.watch_id = number
            create.fragment = True
            yield request
        ask = rpc.WatchRequest(progress_request=rpc.WatchProgressRequest())
        while True:
            with self._lock:
                while (do := self._next(call)) is Do.WAIT:
                    wake_at = self._subscription.wake_at()
                    self._lock.wait(None if wake_at is None else wake_at - time.monotonic())
            if do is Do.HANG_UP:
                call.is_silent = not call.ended
                call.end()
                return
            yield ask

    def _next(self, call: _Call) -> Do:
        return Do.HANG_UP if call.ended else self._subscription.look(time.monotonic())

    def _log_in_again(self, stale: tuple[tuple[str, str], ...]) -> Then:
        try:
            self._connection.log_in(stale)
        except StoreUnreachable:
            pass  # the next stream fails as well, and asks for a login again
        except StoreError as error:
            self._tell(Lost(f"etcd ended the watch, and a new login failed: {error}"))
            return Then.OVER
        return Then.REOPEN

    # ---------------------------------------------------------------------- who waits for whom

    def _note_waiting(self) -> None:
        """Have the members' guard know whether an answer is owed."""
        if not self._subscription.is_waiting():
            self._stop_waiting()
        elif self._begun is None:
            self._begun = self._connection.members.begin()

    def _stop_waiting(self) -> None:
        begun, self._begun = self._begun, None
        if begun is not None:
            self._connection.members.end(begun)
