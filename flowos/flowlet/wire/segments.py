"""Where is a value that is too large for a message? In a file of shared memory, written once.

Who receives one maps it read-only, so that a value for many is in memory once. A mapping outlives
the name: whoever has mapped a segment has it, even if its writer dies and is cleaned up after.
"""

import errno
import mmap
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from flowos.flowlet.wire.values import BYTES, Form, put_together, taken_apart

FOLDER: Final = Path("/dev/shm")  # noqa: S108  # what shared memory is on Linux
PREFIX: Final = "flowos-"  # and the attempt: what a driver sweeps by
INLINE_BYTES_MAX: Final = 64 * 1024  # measured: above that a segment is faster than a socket
_WRITE_BYTES_MAX: Final = 1 << 30  # what one call writes


@dataclass(slots=True)
class Value:
    """What a port carries, as it is held by a process.

    Attributes:
        form: How to read it.
        size_bytes: How long it is.
        inline: Its bytes, where it is in no segment.
        name: Its segment; "" = none.
        owned: Whether this process takes the segment's name away when it lets go of it.
        mapped: The segment, once it is.
    """

    form: Form
    size_bytes: int
    inline: bytes | bytearray | None = None
    name: str = ""
    owned: bool = False
    mapped: mmap.mmap | None = field(default=None, repr=False)

    def opened(self) -> "Value":
        """Map the segment now, so that it stays when its name is gone.

        Raises:
            OSError: There is no such segment (any more).
        """
        if self.name and self.mapped is None and self.size_bytes:
            descriptor = os.open(FOLDER / self.name, os.O_RDONLY)
            try:
                self.mapped = mmap.mmap(descriptor, self.size_bytes, prot=mmap.PROT_READ)
            finally:
                os.close(descriptor)
        return self

    def data(self) -> Any:
        """Return it as a task gets it: an array is a view of the shared memory.

        Raises:
            OSError: Its segment is gone.
        """
        if not self.name:
            return put_together(self.form, self.inline)
        if self.form.dtype == BYTES:
            with (FOLDER / self.name).open("rb", buffering=0) as file:  # a copy, without a mapping
                return file.read() if self.mapped is None else self.mapped[:]
        return put_together(self.form, self.opened().mapped or b"")

    def buffer(self) -> Any:  # anything with a buffer
        """Return its bytes, without a copy where they can be had so."""
        return self.inline if not self.name else (self.opened().mapped or b"")

    def unlink(self) -> None:
        """Take the segment's name away, if it is this process's to do."""
        if self.name and self.owned:
            self.owned = False
            (FOLDER / self.name).unlink(missing_ok=True)


class NoSharedMemory(MemoryError):
    """The machine's shared memory is full; says how much was wanted and where to look."""


def packed(value: object, attempt: str) -> Value:
    """Write a value down: small ones as they are, large ones into a segment of this attempt.

    Raises:
        NotData: No port carries it.
        NoSharedMemory: There is no room for it.
    """
    form, memory = taken_apart(value)
    if memory.nbytes <= INLINE_BYTES_MAX:
        return Value(form, memory.nbytes, inline=memory.tobytes())
    return Value(form, memory.nbytes, name=written(memory, attempt), owned=True)


def written(memory: memoryview, attempt: str) -> str:
    """Write bytes into a new segment, and return its name.

    `write` and not a mapping: the kernel fills fresh pages twice as fast as faults do (measured).

    Raises:
        NoSharedMemory: There is no room.
    """
    name = f"{PREFIX}{attempt}-{os.getpid()}-{secrets.token_hex(6)}"
    path = FOLDER / name
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        done = 0
        while done < memory.nbytes:
            done += os.write(descriptor, memory[done : done + _WRITE_BYTES_MAX])
    except OSError as error:
        path.unlink(missing_ok=True)
        if error.errno in (errno.ENOSPC, errno.ENOMEM):
            raise NoSharedMemory(
                f"no room for {memory.nbytes:,} bytes in {FOLDER}: see 'df -h {FOLDER}', or send "
                "less at a time (a StreamTask sees chunks)"
            ) from None
        raise
    finally:
        os.close(descriptor)
    return name


def swept(attempt: str) -> int:
    """Remove all segments of an attempt; return how many there were."""
    found = list(FOLDER.glob(f"{PREFIX}{attempt}-*")) if attempt else []
    for path in found:
        path.unlink(missing_ok=True)
    return len(found)
