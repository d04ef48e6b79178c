"""How is one task run, and what is told where it does not go well?"""

import os
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Final

from flowos.flowlet.wire.messages import Part
from flowos.flowlet.wire.segments import NoSharedMemory, Value, packed
from flowos.flowlet.wire.values import NotData

LOG_BYTES_MAX: Final = 4000  # of what a task has written, told with its failure
OURS: Final = str(Path(__file__).resolve().parents[1])


class TaskFailed(Exception):  # never seen by users: it becomes a message
    """A task cannot be done; kind, sentence and traceback as in `messages.Failed`."""

    def __init__(self, kind: str, message: str, trace: str = "") -> None:
        """Say why."""
        super().__init__(message)
        self.kind, self.message, self.trace = kind, message, trace


@dataclass(frozen=True, slots=True)
class Ran:
    """What a task made: its outputs, the monotonic second it began at, and what it took."""

    values: tuple[Value, ...]
    began: float
    took: float


class Codes:
    """The tasks of a program, made when they are needed."""

    def __init__(self, codes: Mapping[str, bytes]) -> None:
        """Take what makes them."""
        self._shipped = dict(codes)
        self._loaded: dict[str, Any] = {}

    def more(self, codes: Mapping[str, bytes]) -> None:
        """Take more of it."""
        self._shipped.update(codes)

    def task(self, part: Part) -> Any:
        """Return the task that a part means.

        Raises:
            TaskFailed: Its code cannot be loaded here.
        """
        from flowos.flowlet.shipping import loaded

        try:
            return loaded(self._code(part.code), part.fields, self._code)
        except Exception as error:  # noqa: BLE001  # the user's modules may raise anything
            raise TaskFailed(
                "code", f"it cannot be loaded on its engine: {error!r}", users_part(error)
            ) from None

    def _code(self, code: str) -> Any:
        from flowos.flowlet.shipping import loaded_code

        if code not in self._loaded:
            self._loaded[code] = loaded_code(self._shipped[code])
        return self._loaded[code]


def run(task: Any, part: Part, values: Sequence[Value], attempt: str) -> Ran:
    """Run a task on its inputs.

    Raises:
        TaskFailed: It did not make what it said.
    """
    began = time.monotonic()
    try:
        inputs = [value.data() for value in values]
        made = getattr(task, part.method)(*inputs)
    except MemoryError as error:
        raise TaskFailed(
            "memory",
            "it wants more memory than its engine's share",
            users_part(error),
        ) from None
    except BaseException as error:  # noqa: BLE001  # a task must not end its worker by SystemExit
        raise TaskFailed("raised", _in_a_line(error), users_part(error)) from None
    outputs = outputs_of(made, part.outputs)
    found: list[Value] = []
    for port, output in enumerate(outputs):
        try:
            found.append(packed(output, attempt))
        except (NotData, NoSharedMemory) as error:
            for value in found:
                value.unlink()
            where = f"output {port}: " if part.outputs != 1 else ""
            raise TaskFailed("outputs", f"{where}{error}") from None
    return Ran(tuple(found), began, time.monotonic() - began)


def outputs_of(made: object, count: int) -> Sequence[object]:
    """Return a task's outputs, one for each port.

    Raises:
        TaskFailed: They are more or fewer.
    """
    if count == 1 and not (isinstance(made, tuple) and len(made) == 1):
        if isinstance(made, tuple):
            raise TaskFailed(
                "outputs",
                f"it returned {len(made)} outputs and has 1 output port: set output_ports, or "
                "return one array",
            )
        if made is None:
            raise TaskFailed("outputs", "it returned nothing and has 1 output port")
        return (made,)
    if made is None and count == 0:
        return ()
    if not isinstance(made, tuple | list) or len(made) != count:
        found = len(made) if isinstance(made, tuple | list) else int(made is not None)
        raise TaskFailed("outputs", f"it returned {found} outputs and has {count} output ports")
    return made


def users_part(error: BaseException) -> str:
    """Return a traceback as Python prints it, without this package's own frames."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not _is_ours(f.filename)]
    lines = ["Traceback (most recent call last):\n", *traceback.format_list(frames)]
    return "".join([*lines, *traceback.format_exception_only(error)])


def stack_of(thread: int) -> str:
    """Return where a thread is, as Python prints it, without this package's own frames."""
    frame: FrameType | None = sys._current_frames().get(thread)  # noqa: SLF001  # its documented use
    if frame is None:
        return ""
    frames = [f for f in traceback.extract_stack(frame) if not _is_ours(f.filename)]
    return "".join(["It was here:\n", *traceback.format_list(frames)])


def log_size() -> int:
    """Return how much has been written to this process's output, where that is a file."""
    try:
        return os.fstat(1).st_size
    except OSError:
        return 0


def log_since(size: int) -> str:
    """Return what has been written to this process's output since it was of this size."""
    try:
        sys.stdout.flush()
        with Path("/proc/self/fd/1").open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(size, end - LOG_BYTES_MAX))
            return file.read().decode(errors="replace")
    except (OSError, ValueError):
        return ""


def _is_ours(filename: str) -> bool:
    return filename.startswith((OURS, "<frozen "))


def _in_a_line(error: BaseException) -> str:
    return "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]
