"""What is a task that sees its data piece by piece? For data larger than memory, or without an end."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from flowos.flowlet.errors import FlowletError, users_line
from flowos.flowlet.task import Port, Task

CHUNK_BYTES: Final = 1 << 20


class StreamTask(Task):
    """A computation on chunks, that runs while what comes before and after it does.

    `run` is a generator: its inputs are iterators over chunks, and it yields chunks, or a tuple of
    them where there are several output ports (None = nothing for that port now). An array that
    comes in is a view of shared memory, good until the next one is asked for; a chunk that was
    yielded must not be changed any more.

    What an ordinary task sends it is one chunk; an ordinary task that reads from it gets all of its
    chunks joined, as Concat joins them.

    Example:
        class Scale(StreamTask):
            def run(self, chunks):
                for chunk in chunks:
                    yield chunk * 2
    """

    def run(self, *streams: Any, **_more: Any) -> Any:
        """Yield chunks."""
        raise NotImplementedError


class FileSource(StreamTask):
    """A file's bytes, in chunks, read where the task runs."""

    def __init__(self, path: str | Path, *, chunk_bytes: int = CHUNK_BYTES, name: str = "") -> None:
        """Name the file.

        Raises:
            FlowletError: Chunks of nothing.
        """
        super().__init__(name=name)
        if chunk_bytes < 1:
            raise FlowletError(f"chunks of {chunk_bytes} bytes", where=str(users_line(self)))
        self.path = str(Path(path).resolve())
        self.chunk_bytes = chunk_bytes

    def run(self) -> Iterator[bytes]:
        """Yield the file's bytes."""
        with Path(self.path).open("rb") as file:
            while chunk := file.read(self.chunk_bytes):
                yield chunk


class FileSink(StreamTask):
    """Writes what comes into a file, where the task runs; its output is the number of bytes."""

    def __init__(self, source: Task | Port, path: str | Path, *, name: str = "") -> None:
        """Name the file; it is replaced when all has come."""
        super().__init__(source, name=name)
        self.path = str(Path(path).resolve())

    def run(self, chunks: Iterator[Any]) -> Iterator[bytes]:
        """Write all chunks, and yield how many bytes they had."""
        count = 0
        part = Path(f"{self.path}.part")
        with part.open("wb") as file:
            for chunk in chunks:
                count += file.write(chunk if isinstance(chunk, bytes) else chunk.tobytes())
        part.rename(self.path)
        yield str(count).encode()
