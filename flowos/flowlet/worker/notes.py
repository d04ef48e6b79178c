"""Which task runs? Written where it can be read after the worker has been killed."""

import struct
from mmap import mmap
from typing import ClassVar, Final, NamedTuple

_FORMAT: Final = struct.Struct("=qq")


class Slain(NamedTuple):
    """What ran when a worker died, and the signal."""

    job: int
    task: int
    signal: int


class Notes:
    """A few bytes that two processes share."""

    SIZE_BYTES: ClassVar = _FORMAT.size

    def __init__(self, memory: mmap) -> None:
        """Take the memory; nothing runs."""
        self._memory = memory
        self.clear()

    def runs(self, job: int, task: int) -> None:
        """A task begins."""
        _FORMAT.pack_into(self._memory, 0, job, task)

    def clear(self) -> None:
        """Nothing runs."""
        _FORMAT.pack_into(self._memory, 0, 0, -1)

    def read(self) -> tuple[int, int]:
        """Return the job and the task; -1 = none."""
        job, task = _FORMAT.unpack_from(self._memory, 0)
        return int(job), int(task)
