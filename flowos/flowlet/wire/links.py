"""How do two processes of a program talk? Over a connection that both have proved a secret for."""

import contextlib
import os
import pickle
import socket
import threading
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any, Final

from flowos.flowlet.wire.messages import Packet
from flowos.flowlet.wire.segments import INLINE_BYTES_MAX, Value

MACHINE: Final = Path("/proc/sys/kernel/random/boot_id")
APART: Final = "FLOWOS_FLOWLET_APART"  # set: each worker behaves as if on a machine of its own
_PICKLE: Final = 5


def this_machine() -> str:
    """Return a name that only processes which share memory with this one return, too."""
    if os.environ.get(APART):
        return f"apart-{os.getpid()}"
    try:
        shared = Path("/dev/shm").stat()  # noqa: S108  # of containers on one kernel, each has its own
        return f"{MACHINE.read_text().strip()}-{shared.st_dev}-{shared.st_ino}"
    except OSError:
        return f"alone-{os.getpid()}"


class Link:
    """One connection; any thread may send, one receives."""

    def __init__(self, connection: Connection) -> None:
        """Take a connection over."""
        self._connection = connection
        self._lock = threading.Lock()

    def fileno(self) -> int:
        """Return what selectors wait on."""
        return self._connection.fileno()

    def send(self, message: Any, behind: Any = None) -> None:  # a buffer, if anything
        """Send a message, and bytes right behind it.

        Raises:
            OSError: The other side is gone.
        """
        data = pickle.dumps(message, _PICKLE)
        with self._lock:
            self._connection.send_bytes(data)
            if behind is not None:
                self._connection.send_bytes(behind)

    def receive(self) -> Any:
        """Wait for a message; one whose bytes come behind has these in `packet.inline`.

        Raises:
            EOFError, OSError: The other side is gone.
        """
        message = pickle.loads(self._connection.recv_bytes())  # noqa: S301  # it has proved the secret
        packet = getattr(message, "packet", None)
        if packet is not None and packet.behind:
            memory = bytearray(packet.size_bytes)
            self._connection.recv_bytes_into(memory)
            # Its own type says bytes, and what reads it takes any buffer.
            return message._replace(packet=packet._replace(inline=memory, behind=False))
        return message

    def close(self) -> None:
        """End it; the other side sees that."""
        with contextlib.suppress(OSError):
            self._connection.close()


def packet_of(value: Value, *, shared: bool) -> tuple[Packet, Any]:
    """Return a value as it is sent, and the bytes to be sent behind it, if any.

    Args:
        value: What is sent.
        shared: Whether the receiver shares memory with this process.
    """
    if value.name and shared:
        return Packet(value.form, value.size_bytes, segment=value.name), None
    if value.size_bytes <= INLINE_BYTES_MAX:
        return Packet(value.form, value.size_bytes, inline=bytes(value.buffer())), None
    return Packet(value.form, value.size_bytes, behind=True), value.buffer()


def value_of(packet: Packet, *, owned: bool = False) -> Value:
    """Return what has arrived, its segment mapped.

    Raises:
        OSError: Its segment is gone.
    """
    value = Value(packet.form, packet.size_bytes, packet.inline, packet.segment, owned)
    return value.opened()


def listen(address: str, secret: bytes) -> Listener:
    """Listen at "unix:@NAME" (a name that is no file), or at "tcp:HOST:PORT" (port 0 = any)."""
    family, _, rest = address.partition(":")
    if family == "unix":
        return Listener("\0" + rest[1:], "AF_UNIX", backlog=128, authkey=secret)
    host, _, port = rest.rpartition(":")
    return Listener((host, int(port)), "AF_INET", backlog=128, authkey=secret)


def address_of(listener: Listener, host: str = "") -> str:
    """Return where others reach a listener; `host` is what they call this machine."""
    address: Any = listener.address
    if isinstance(address, tuple):
        return f"tcp:{host}:{address[1]}"
    name = address.decode() if isinstance(address, bytes) else address
    return f"unix:@{name[1:]}"


def connect(address: str, secret: bytes) -> Link:
    """Call who listens there.

    Raises:
        OSError: Nobody does.
        multiprocessing.AuthenticationError: It has another secret.
    """
    family, _, rest = address.partition(":")
    if family == "unix":
        return Link(Client("\0" + rest[1:], "AF_UNIX", authkey=secret))
    host, _, port = rest.rpartition(":")
    return Link(no_delay(Client((host, int(port)), "AF_INET", authkey=secret)))


def no_delay(connection: Connection) -> Connection:
    """Let small messages go at once, where the connection is one of TCP."""
    with (
        contextlib.suppress(OSError),
        socket.socket(fileno=os.dup(connection.fileno())) as wire,
    ):
        if wire.family != socket.AF_UNIX:
            wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection
