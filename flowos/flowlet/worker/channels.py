"""How do chunks get from one stage to the next? By a ring of slots in shared memory, with credit.

A stage writes each chunk once, into a slot that all who read it map; a slot is written again when
all of them have given it back. So a stage that is faster than the next waits for it, and memory is
bounded by the ring. To another machine chunks go over the connection, with the same credit.
"""

import mmap
import os
import pickle
import queue
import secrets
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from enum import IntEnum
from typing import Any, Final, NamedTuple

from flowos.flowlet.wire.links import Link
from flowos.flowlet.wire.segments import FOLDER, PREFIX
from flowos.flowlet.wire.values import Form, put_together, taken_apart

SLOTS: Final = 4  # measured: more do not help, two keep the stages waiting for each other
LOOK_SECONDS: Final = 0.1  # how often who waits sees whether it is all over
SLOT_BYTES_MIN: Final = 64 * 1024


class StreamOver(Exception):
    """No error: a stage is to end, for its epoch is over."""


class Unread(Exception):
    """No error: a stage may end, for all who read it have enough."""


class Opened(NamedTuple):
    """A reader calls: for which output, and for which task."""

    job: int
    epoch: int
    output: tuple[int, int]
    reader: int


class Last:
    """There are no more chunks."""


class _Kind(IntEnum):
    """What comes over a stream's connection.

    Messages of a fixed form, and not pickled ones: of 1 MiB in shared memory two of those took as
    long as copying it.
    """

    NOTE = 1  # how to read the chunks that follow, and in which ring they are
    SLOT = 2  # a chunk in a slot
    BEHIND = 3  # a chunk that comes right behind
    LAST = 4


_HEAD: Final = struct.Struct("=Bqq")  # kind, bytes, offset in the ring
_CREDIT: Final = b"."  # a chunk is given back
_CREDITS_MAX: Final = 64


def _write(descriptor: int, data: Any) -> None:
    """Write all of it.

    Raises:
        OSError: The other side is gone.
    """
    left = memoryview(data)
    while left.nbytes:
        left = left[os.write(descriptor, left) :]


def _read(descriptor: int, size_bytes: int) -> bytes:
    """Read just so much.

    Raises:
        EOFError, OSError: The other side is gone.
    """
    data = os.read(descriptor, size_bytes)
    if len(data) == size_bytes:
        return data
    found = bytearray(data)
    while len(found) < size_bytes:
        if not data:
            raise EOFError
        data = os.read(descriptor, size_bytes - len(found))
        found += data
    return bytes(found)


class Ring:
    """Slots in shared memory, for one writer."""

    def __init__(self, attempt: str, slot_bytes: int) -> None:
        """Make one.

        Raises:
            OSError: There is no room.
        """
        page = mmap.PAGESIZE
        self.slot_bytes = -(-max(slot_bytes, SLOT_BYTES_MIN) // page) * page
        self.name = f"{PREFIX}{attempt}-{os.getpid()}-{secrets.token_hex(6)}"
        descriptor = os.open(FOLDER / self.name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            size = self.slot_bytes * SLOTS
            os.posix_fallocate(descriptor, 0, size)  # else a full disk is a SIGBUS later
            self._memory = mmap.mmap(descriptor, size)
        except OSError:
            (FOLDER / self.name).unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
        self.free: deque[int] = deque(range(SLOTS))

    def write(self, slot: int, data: memoryview) -> int:
        """Fill a slot, and return its offset."""
        import numpy as np

        offset = slot * self.slot_bytes
        into = np.frombuffer(self._memory, np.uint8, data.nbytes, offset)
        into[:] = np.frombuffer(data, np.uint8)  # numpy lets other threads run meanwhile
        return offset

    def unlink(self) -> None:
        """Take its name away; who has mapped it keeps it."""
        (FOLDER / self.name).unlink(missing_ok=True)


class _Subscriber:
    """Who reads an output from elsewhere, and the slots that it has not given back."""

    def __init__(self, link: Link, *, shared: bool) -> None:
        self.link = link
        self.shared = shared
        self.out: deque[tuple[Ring | None, int]] = deque()
        self.noted: tuple[Form, str] | None = None  # what it was told of the chunks that follow

    def send(self, form: Form, ring: str, size_bytes: int, offset: int, behind: Any) -> None:
        """Send a chunk.

        Raises:
            OSError: It is gone.
        """
        descriptor = self.link.fileno()
        if self.noted != (form, ring):
            note = pickle.dumps((form, ring))
            _write(descriptor, _HEAD.pack(_Kind.NOTE, len(note), 0) + note)
            self.noted = form, ring
        kind = _Kind.SLOT if ring else _Kind.BEHIND
        _write(descriptor, _HEAD.pack(kind, size_bytes, offset))
        if behind is not None:
            _write(descriptor, behind)

    def end(self) -> None:
        """Say that there is no more.

        Raises:
            OSError: It is gone.
        """
        _write(self.link.fileno(), _HEAD.pack(_Kind.LAST, 0, 0))

    def credits(self) -> int:
        """Wait until chunks are given back, and return how many.

        Raises:
            EOFError, OSError: It is gone.
        """
        count = len(os.read(self.link.fileno(), _CREDITS_MAX))
        if not count:
            raise EOFError
        return count


class Writer:
    """One output of a stage, to all who read it."""

    def __init__(self, attempt: str, *, collect: bool) -> None:
        """Begin with nobody.

        Args:
            attempt: Whose segments these are.
            collect: Whether all chunks are also kept, to be joined at the end.
        """
        self._attempt = attempt
        self._far: list[_Subscriber] = []
        self._near: list[Near] = []
        self._ring: Ring | None = None
        self._users: dict[tuple[int, int], int] = {}  # (ring, slot) -> readers that have it
        self._rings: dict[int, Ring] = {}
        self.kept: list[Any] | None = [] if collect else None

    def add_far(self, link: Link, *, shared: bool) -> None:
        """Let a reader on another worker have what comes."""
        self._far.append(_Subscriber(link, shared=shared))

    def add_near(self) -> "Near":
        """Let a reader on this worker have it."""
        found = Near()
        self._near.append(found)
        return found

    def put(self, chunk: object, over: threading.Event) -> None:
        """Send a chunk, waiting for room.

        Raises:
            StreamOver: The epoch is over.
            Unread: Nobody reads it any more.
            NotData: No port carries it.
        """
        form, data = taken_apart(chunk)
        if self.kept is not None:
            self.kept.append(
                bytes(data) if form.dtype == "bytes" else put_together(form, bytes(data))
            )
        self._put_near(chunk, over)
        if any(reader.shared for reader in self._far):
            self._put_shared(form, data)
        for reader in [r for r in self._far if not r.shared]:
            if len(reader.out) >= SLOTS:
                self._credit(reader)
            reader.out.append((None, 0))
            self._say(reader, lambda to: to.send(form, "", data.nbytes, 0, data))
        if not self._far and not self._near and self.kept is None:
            raise Unread

    def end(self, over: threading.Event) -> None:
        """Say that there is no more.

        Raises:
            StreamOver: The epoch is over.
        """
        for reader in list(self._far):
            self._say(reader, _Subscriber.end)
        for near in self._near:
            near.put(Last(), over)

    def close(self) -> None:
        """Let go of all there is, once every reader has what it was sent, or is gone."""
        for reader in list(self._far):
            while reader.out and reader in self._far:
                self._credit(reader)
        for reader in self._far:
            reader.link.close()
        for ring in self._rings.values():
            ring.unlink()

    def abandon(self) -> None:
        """Let go at once."""
        for reader in self._far:
            reader.link.close()
        for ring in self._rings.values():
            ring.unlink()

    def _put_near(self, chunk: object, over: threading.Event) -> None:
        self._near = [near for near in self._near if near.put(chunk, over)]

    def _put_shared(self, form: Form, data: memoryview) -> None:
        if self._ring is None or data.nbytes > self._ring.slot_bytes:
            self._ring = Ring(self._attempt, data.nbytes)
            self._rings[id(self._ring)] = self._ring
        ring = self._ring
        while not ring.free:
            slowest = max(
                (r for r in self._far if r.shared), key=lambda r: len(r.out), default=None
            )
            if slowest is None or not slowest.out:
                ring.free.append(0)  # nobody has any
                break
            self._credit(slowest)
        slot = ring.free.popleft()
        offset = ring.write(slot, data)
        readers = [reader for reader in self._far if reader.shared]
        self._users[id(ring), slot] = len(readers)
        for reader in readers:
            reader.out.append((ring, slot))
            self._say(reader, lambda to: to.send(form, ring.name, data.nbytes, offset, None))

    def _credit(self, reader: _Subscriber) -> None:
        """Wait until a reader gives a chunk back."""
        try:
            count = reader.credits()
        except (OSError, EOFError):
            self._gone(reader)
            return
        for _ in range(count):
            self._given_back(*reader.out.popleft())

    def _say(self, reader: _Subscriber, what: Callable[[_Subscriber], None]) -> None:
        try:
            what(reader)
        except OSError:
            self._gone(reader)

    def _gone(self, reader: _Subscriber) -> None:
        if reader in self._far:
            self._far.remove(reader)
            for ring, slot in reader.out:
                self._given_back(ring, slot)
            reader.out.clear()
            reader.link.close()

    def _given_back(self, ring: Ring | None, slot: int) -> None:
        if ring is None:
            return
        left = self._users[id(ring), slot] = self._users[id(ring), slot] - 1
        if not left:
            ring.free.append(slot)
            if ring is not self._ring and len(ring.free) == SLOTS:
                ring.unlink()


def far_chunks(link: Link) -> Iterator[Any]:
    """Yield the chunks that come over a connection; each is given back when the next is asked for.

    Raises:
        StreamOver: The other side is gone before its end.
    """
    memory: mmap.mmap | None = None
    form, ring = Form(), ""
    descriptor = link.fileno()
    try:
        while True:
            kind, size_bytes, offset = _HEAD.unpack(_read(descriptor, _HEAD.size))
            if kind == _Kind.LAST:
                return
            if kind == _Kind.NOTE:
                form, named = pickle.loads(_read(descriptor, size_bytes))  # noqa: S301  # a worker's
                if named != ring:
                    ring, memory = named, _mapped(named) if named else None
                continue
            if memory is not None and kind == _Kind.SLOT:
                data = memoryview(memory)[offset : offset + size_bytes]
            else:
                data = memoryview(_read(descriptor, size_bytes))
            yield put_together(form, data)
            _write(descriptor, _CREDIT)
    except (OSError, EOFError):
        raise StreamOver from None
    finally:
        link.close()


class Near:
    """Chunks on their way to a reader on the same worker."""

    def __init__(self) -> None:
        """Begin with none."""
        self._queue: queue.Queue[Any] = queue.Queue(SLOTS)
        self._left = False  # the reader has enough

    def put(self, chunk: object, over: threading.Event) -> bool:
        """Give a chunk, waiting for room; False = the reader has enough.

        Raises:
            StreamOver: The epoch is over.
        """
        while not self._left:
            if over.is_set():
                raise StreamOver
            try:
                self._queue.put(chunk, timeout=LOOK_SECONDS)
            except queue.Full:
                continue
            return True
        return False

    def chunks(self, over: threading.Event) -> Iterator[Any]:
        """Yield them.

        Raises:
            StreamOver: The epoch is over.
        """
        try:
            while True:
                try:
                    chunk = self._queue.get(timeout=LOOK_SECONDS)
                except queue.Empty:
                    if over.is_set():
                        raise StreamOver from None
                    continue
                if isinstance(chunk, Last):
                    return
                yield chunk
        finally:
            self._left = True


def joined(chunks: Sequence[Any]) -> Any:
    """Return all chunks of a stream as one value: bytes, or an array along its first axis."""
    if not chunks:
        return b""
    if all(isinstance(chunk, bytes) for chunk in chunks):
        return b"".join(chunks)
    import numpy as np

    return np.concatenate([np.atleast_1d(chunk) for chunk in chunks])


def _mapped(name: str) -> mmap.mmap:
    descriptor = os.open(FOLDER / name, os.O_RDONLY)
    try:
        return mmap.mmap(descriptor, 0, prot=mmap.PROT_READ)
    finally:
        os.close(descriptor)
