"""What if the network loses, delays or cuts? A TCP proxy that does so at the byte that a test says.

One thread carries all connections, so what a test orders holds for every byte read afterwards.
Bytes on their way to the server are `UP`, answers are `DOWN`.
"""

import contextlib
import heapq
import itertools
import selectors
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Any, Final, Self

CHUNK_BYTES: Final = 65_536
RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: close by a reset


class Way(Enum):
    """A direction."""

    UP = "to the server"
    DOWN = "to the client"


UP, DOWN = Way.UP, Way.DOWN


class Fate(Enum):
    """What becomes of a connection at the byte that was named."""

    CUT = "both ends see it broken"
    SWALLOW = "it stays open, and nothing more comes through this way"
    HOLD = "it stays open, and what comes this way waits for `release`"
    LATE = "its sender sees it broken, and what was sent arrives with `arrive`"


class _Flow:
    """One direction of one connection."""

    def __init__(self, way: Way, source: socket.socket, sink: socket.socket) -> None:
        self.way, self.source, self.sink = way, source, sink
        self.waiting: deque[tuple[float, bytes]] = deque()  # (not before, bytes)
        self.ended = False  # the source has said all
        self.swallows = False
        self.held = False


class Proxy:
    """Stands at an address of its own for a server, and does to the bytes what it is told.

    Example:
        with Proxy("127.0.0.1:2379") as proxy:
            proxy.after(DOWN, 10, Fate.CUT)  # ten more bytes of answers, then the connection breaks

    Attributes:
        passed: How many bytes were read each way since the start, whatever became of them.
        connections: How many were made since the start.
    """

    def __init__(
        self,
        target: str,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        who: Callable[[socket.socket], Any] = lambda _client: None,
    ) -> None:
        """Begin to listen.

        Args:
            target: "host:port" of the server; changed by `point_to`.
            host: Where to listen.
            port: 0 = any.
            who: Says of a new connection whose it is, for `cut_off`; called on the proxy's thread.
        """
        self._target = self._parsed(target)
        self._who = who
        self.passed = {UP: 0, DOWN: 0}
        self.connections = 0
        self._lock = threading.RLock()
        self._selector = selectors.DefaultSelector()
        self._flows: dict[socket.socket, _Flow] = {}  # by source
        self._owners: dict[socket.socket, Any] = {}  # client side -> whose
        self._other: dict[socket.socket, socket.socket] = {}
        self._delay = {UP: 0.0, DOWN: 0.0}
        self._held = {UP: False, DOWN: False}
        self._swallowed = {UP: False, DOWN: False}
        self._after: dict[Way, tuple[int, Fate] | None] = {UP: None, DOWN: None}
        self._cut_off: set[Any] = set()
        self.struck = threading.Event()  # what `after` ordered has happened
        self._spent: list[socket.socket] = []  # open until the end, so that their server reads them
        self._late: list[tuple[Way, socket.socket, bytes]] = []  # sinks, and what is to arrive
        self._timers: list[tuple[float, int, _Flow]] = []
        self._numbers = itertools.count()
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_out.setblocking(False)
        self._selector.register(self._wake_out, selectors.EVENT_READ)
        self._closed = False
        self._listener: socket.socket | None = None
        self._host, self._port = host, port
        self._listen()
        self._thread = threading.Thread(target=self._run, name="test proxy", daemon=True)
        self._thread.start()

    @property
    def endpoint(self) -> str:
        """Where clients find it: "127.0.0.1:port"."""
        return f"{self._host}:{self._port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------------------------- orders

    def after(self, way: Way, count: int, fate: Fate) -> None:
        """Let `count` more bytes through this way, over all connections, and then strike.

        It strikes the connection that carries the next byte, before that byte. `struck` is set
        then; until then the order stands.
        """
        with self._lock:
            self.struck.clear()
            self._after[way] = (count, fate)

    def swallow(self, way: Way) -> None:
        """From now on nothing comes through this way, on any connection."""
        with self._lock:
            self._swallowed[way] = True

    def hold(self, *ways: Way) -> None:
        """Keep what comes these ways (or both) until `release`; connections stay open."""
        with self._lock:
            for way in ways or Way:
                self._held[way] = True

    def release(self, *ways: Way) -> None:
        """Send on what was held these ways (or both)."""
        with self._lock:
            for way in ways or Way:
                self._held[way] = False
                for flow in self._flows.values():
                    if flow.way is way:
                        flow.held = False
        self._wake()

    def arrive(self) -> int:
        """Deliver what `Fate.LATE` kept back; return how many connections there were."""
        with self._lock:
            late, self._late = self._late, []
        for way, sink, data in late:
            with contextlib.suppress(OSError):
                sink.setblocking(True)
                sink.settimeout(5.0)
                sink.sendall(data)
            if way is UP:
                self._spent.append(sink)  # a server reads what comes before it sees the end
            else:
                sink.close()
        return len(late)

    def delay(self, way: Way, seconds: float) -> None:
        """Let everything that comes this way from now on arrive later by so much."""
        with self._lock:
            self._delay[way] = seconds

    def cut(self) -> None:
        """Break every connection now; new ones may be made."""
        with self._lock:
            for client in list(self._owners):
                self._break(client)
        self._wake()

    def refuse(self) -> None:
        """Break every connection and refuse new ones, as a dead server's port does."""
        with self._lock:
            if self._listener is not None:
                self._selector.unregister(self._listener)
                self._listener.close()
                self._listener = None
        self.cut()

    def accept(self) -> None:
        """Take new connections again."""
        with self._lock:
            if self._listener is None:
                self._listen()
        self._wake()

    def heal(self) -> None:
        """Forget every order, and break the connections that bytes are missing from."""
        with self._lock:
            self._delay = {UP: 0.0, DOWN: 0.0}
            self._held = {UP: False, DOWN: False}
            self._after = {UP: None, DOWN: None}
            torn = any(self._swallowed.values())
            self._swallowed = {UP: False, DOWN: False}
            for flow in list(self._flows.values()):
                flow.held = False
                if torn or flow.swallows:
                    client = flow.source if flow.way is UP else flow.sink
                    self._break(client)
        self.accept()

    def point_to(self, target: str) -> None:
        """Send new connections to another server, and break the old ones."""
        with self._lock:
            self._target = self._parsed(target)
        self.cut()

    def cut_off(self, *owners: Any) -> None:
        """Let nothing through for these owners (see `who`): connections stay open, and hang."""
        with self._lock:
            self._cut_off = set(owners)
        self._wake()

    def close(self) -> None:
        """Break everything and end the thread."""
        with self._lock:
            self._closed = True
        self._wake()
        self._thread.join(5.0)

    # ------------------------------------------------------------------------------ the thread

    @staticmethod
    def _parsed(target: str) -> tuple[str, int]:
        host, _, port = target.rpartition(":")
        return host, int(port)

    def _listen(self) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((self._host, self._port))
        listener.listen(128)
        listener.setblocking(False)
        self._port = listener.getsockname()[1]
        self._listener = listener
        self._selector.register(listener, selectors.EVENT_READ)

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            self._wake_in.send(b"!")

    def _run(self) -> None:
        while True:
            timeout = None
            with self._lock:
                if self._timers:
                    timeout = max(0.0, self._timers[0][0] - time.monotonic())
            ready = self._selector.select(timeout)
            with self._lock:
                if self._closed:
                    break
                for key, events in ready:
                    self._handle(key.fileobj, events)  # type: ignore[arg-type]
                now = time.monotonic()
                while self._timers and self._timers[0][0] <= now:
                    heapq.heappop(self._timers)
                for flow in list(self._flows.values()):
                    if flow.waiting or flow.ended:
                        self._send(flow)
        with self._lock:
            for client in list(self._owners):
                self._break(client)
            for sock in (*self._spent, *(sink for _, sink, _ in self._late)):
                sock.close()
            if self._listener is not None:
                self._listener.close()
            self._selector.close()
            self._wake_in.close()
            self._wake_out.close()

    def _handle(self, sock: socket.socket, events: int) -> None:
        if sock is self._wake_out:
            with contextlib.suppress(OSError):
                sock.recv(4096)
        elif sock is self._listener:
            self._welcome()
        elif sock in self._flows and events & selectors.EVENT_READ:
            self._read(self._flows[sock])

    def _welcome(self) -> None:
        assert self._listener is not None
        try:
            client, _ = self._listener.accept()
        except OSError:
            return
        server = socket.socket()
        server.setblocking(False)
        owner = self._who(client)
        with contextlib.suppress(BlockingIOError):
            try:
                server.connect(self._target)
            except BlockingIOError:
                raise
            except OSError:
                client.close()
                server.close()
                return
        self.connections += 1
        self._owners[client] = owner
        self._other[client], self._other[server] = server, client
        for sock in (client, server):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._flows[client] = _Flow(UP, client, server)
        self._flows[server] = _Flow(DOWN, server, client)
        for sock in (client, server):
            self._selector.register(sock, selectors.EVENT_READ)

    def _read(self, flow: _Flow) -> None:
        try:
            data = flow.source.recv(CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self._break(self._client(flow))
            return
        if not data:
            flow.ended = True
            self._watch(flow.source)
            return
        self.passed[flow.way] += len(data)
        due = time.monotonic() + self._delay[flow.way]
        order = self._after[flow.way]
        rest = b""
        if order is not None:
            count, fate = order
            data, rest = data[:count], data[count:]
            self._after[flow.way] = (count - len(data), fate)
        if data and not (flow.swallows or self._swallowed[flow.way]):
            flow.waiting.append((due, data))
        if order is not None and rest:
            self._after[flow.way] = None
            self._strike(flow, order[1], due, rest)
        if due > time.monotonic():
            heapq.heappush(self._timers, (due, next(self._numbers), flow))
        self._send(flow)

    def _strike(self, flow: _Flow, fate: Fate, due: float, rest: bytes) -> None:
        if fate is Fate.CUT:
            self._send(flow)
            self._break(self._client(flow), gently=True)
        elif fate is Fate.LATE:
            self._send(flow)
            kept = b"".join(data for _, data in flow.waiting) + rest
            self._late.append((flow.way, flow.sink, kept))
            self._break(self._client(flow), spared=flow.sink)
        elif fate is Fate.SWALLOW:
            flow.swallows = True
        else:
            flow.held = True
            flow.waiting.append((due, rest))
        self.struck.set()

    def _send(self, flow: _Flow) -> None:
        if flow.source not in self._flows:
            return
        client = self._client(flow)
        held = flow.held or self._held[flow.way] or self._owners[client] in self._cut_off
        now = time.monotonic()
        while flow.waiting and not held and flow.waiting[0][0] <= now:
            due, data = flow.waiting[0]
            try:
                sent = flow.sink.send(data)
            except BlockingIOError:
                break
            except OSError:
                self._break(client)
                return
            if sent == len(data):
                flow.waiting.popleft()
            else:
                flow.waiting[0] = (due, data[sent:])
        if flow.ended and not flow.waiting and not held:
            # One side is done; half-closed connections are of no use to HTTP/2.
            self._break(client, gently=True)
            return
        self._watch(flow.sink, writes=bool(flow.waiting) and not held and flow.waiting[0][0] <= now)

    def _watch(self, sock: socket.socket, *, writes: bool = False) -> None:
        flow = self._flows.get(sock)
        if flow is None:
            return
        events = 0 if flow.ended else selectors.EVENT_READ
        events |= selectors.EVENT_WRITE if writes else 0
        try:
            known = self._selector.get_key(sock).events
        except KeyError:
            known = 0
        if events == known:
            return
        if not events:
            self._selector.unregister(sock)
        elif known:
            self._selector.modify(sock, events)
        else:
            self._selector.register(sock, events)

    def _client(self, flow: _Flow) -> socket.socket:
        return flow.source if flow.way is UP else flow.sink

    def _break(
        self, client: socket.socket, *, gently: bool = False, spared: socket.socket | None = None
    ) -> None:
        """Close both sides; by a reset, unless what was sent before is still to arrive."""
        if client not in self._owners:
            return
        server = self._other[client]
        del self._owners[client]
        for sock in (client, server):
            self._flows.pop(sock, None)
            self._other.pop(sock, None)
            with contextlib.suppress(KeyError):
                self._selector.unregister(sock)
            if sock is spared:
                continue
            with contextlib.suppress(OSError):
                if not gently:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                sock.close()
