"""How does a stage of a stream run? On a thread of its own, beside the others of its worker."""

import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from typing import Any, Final

from flowos.flowlet.wire.links import Link
from flowos.flowlet.wire.messages import Output, Part
from flowos.flowlet.wire.segments import NoSharedMemory, Value, packed
from flowos.flowlet.wire.values import NotData
from flowos.flowlet.worker.channels import (
    Opened,
    StreamOver,
    Unread,
    Writer,
    far_chunks,
    joined,
)
from flowos.flowlet.worker.running import Ran, TaskFailed, users_part

READERS_SECONDS: Final = 60.0  # for all readers of an output to call


class Stages:
    """The stages of one epoch on one worker."""

    def __init__(
        self, job: int, epoch: int, rank: int, attempt: str, connect: Callable[[int], Link]
    ) -> None:
        """Begin with none.

        Args:
            job: Whose.
            epoch: Which.
            rank: Of this worker.
            attempt: Whose segments these are.
            connect: Calls a rank.
        """
        self.job, self.epoch = job, epoch
        self._rank = rank
        self._attempt = attempt
        self._connect = connect
        self.over = threading.Event()
        self._lock = threading.Condition()
        self._writers: dict[Output, Writer] = {}
        self._callers: dict[Output, int] = {}  # how many readers have called

    def announce(self, part: Part) -> None:
        """A stage will run here: let others find its outputs."""
        with self._lock:
            for port in range(part.outputs):
                self._writer((part.number, port), part)

    def called(self, opened: Opened, link: Link, *, shared: bool) -> None:
        """A reader of an output has called."""
        with self._lock:
            writer = self._writer(opened.output, None)
            writer.add_far(link, shared=shared)
            self._callers[opened.output] = self._callers.get(opened.output, 0) + 1
            self._lock.notify_all()

    def run(self, task: Any, part: Part, values: Sequence[Value | None]) -> Ran:
        """Run a stage to its end.

        Raises:
            TaskFailed: It did not make what it said.
            StreamOver: It is not wanted any more.
        """
        began = time.monotonic()
        writers = [self._writer_of(part, port) for port in range(part.outputs)]
        try:
            inputs = [
                self._chunks(part, port) if value is None else iter((value.data(),))
                for port, value in enumerate(values)
            ]
            self._await_readers(part)
            with suppress(Unread):  # they have enough: that is an end like any other
                self._put_all(getattr(task, part.method)(*inputs), writers, part)
            for chunks in inputs:
                if isinstance(chunks, Generator):
                    chunks.close()  # what feeds it need not go on
            for writer in writers:
                writer.end(self.over)
            found = tuple(
                packed(joined(writers[port].kept or []), self._attempt) for port in part.collected
            )
            for writer in writers:
                writer.close()
        except (StreamOver, TaskFailed):
            self._abandon(writers)
            raise
        except NoSharedMemory as error:
            self._abandon(writers)
            raise TaskFailed("outputs", str(error)) from None
        except BaseException as error:  # noqa: BLE001  # a stage must not end its worker
            self._abandon(writers)
            if self.over.is_set():
                raise StreamOver from None
            raise TaskFailed("raised", repr(error), users_part(error)) from None
        return Ran(found, began, time.monotonic() - began)

    def end(self) -> None:
        """The epoch is over: what still runs ends at its next chunk."""
        self.over.set()
        with self._lock:
            for writer in self._writers.values():
                writer.abandon()
            self._lock.notify_all()

    # -- its own

    def _writer(self, output: Output, part: Part | None) -> Writer:
        writer = self._writers.get(output)
        if writer is None:
            writer = self._writers[output] = Writer(self._attempt, collect=False)
        if part is not None and output[1] in part.collected and writer.kept is None:
            writer.kept = []
        return writer

    def _writer_of(self, part: Part, port: int) -> Writer:
        with self._lock:
            return self._writer((part.number, port), part)

    def _chunks(self, part: Part, port: int) -> Iterator[Any]:
        output, home = part.inputs[port], part.homes[port]
        if home == self._rank:
            with self._lock:
                chunks = self._writer(output, None).add_near()
                self._callers[output] = self._callers.get(output, 0) + 1
                self._lock.notify_all()
            return chunks.chunks(self.over)
        link = self._connect(home)
        link.send(Opened(self.job, self.epoch, output, self._rank))
        return far_chunks(link)

    def _await_readers(self, part: Part) -> None:
        """Wait until all who read an output in chunks have called: none may miss the first."""
        until = time.monotonic() + READERS_SECONDS
        with self._lock:
            for port, count in enumerate(part.readers):
                while self._callers.get((part.number, port), 0) < count:
                    if self.over.is_set():
                        raise StreamOver
                    if not self._lock.wait(max(0.0, until - time.monotonic())):
                        raise TaskFailed("stream", f"nobody reads output {port}")

    def _put_all(self, chunks: Any, writers: Sequence[Writer], part: Part) -> None:
        if not hasattr(chunks, "__iter__"):
            raise TaskFailed(
                "outputs", "its run() is no generator: yield chunks, where it returns something"
            )
        for chunk in chunks:
            if self.over.is_set():
                raise StreamOver
            if len(writers) == 1:
                some: Sequence[Any] = (chunk,)
            elif isinstance(chunk, tuple) and len(chunk) == len(writers):
                some = chunk
            else:
                raise TaskFailed(
                    "outputs", f"it yielded one chunk and has {part.outputs} output ports: yield a "
                    "tuple, with None for those that get nothing"
                )  # fmt: skip
            for port, (writer, one) in enumerate(zip(writers, some, strict=True)):
                if one is None and len(writers) > 1:
                    continue
                try:
                    writer.put(one, self.over)
                except NotData as error:
                    raise TaskFailed("outputs", f"output {port}: {error}") from None

    @staticmethod
    def _abandon(writers: Sequence[Writer]) -> None:
        for writer in writers:
            writer.abandon()
