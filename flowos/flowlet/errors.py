"""What can be wrong with a program, or go wrong while it runs?"""

import sys
from dataclasses import dataclass
from pathlib import Path

from flowos.model.errors import SpecError

_OURS = str(Path(__file__).resolve().parent)


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the user's program.

    Attributes:
        file: As Python names it.
        number: From 1; 0 = not known.
    """

    file: str
    number: int

    def __str__(self) -> str:
        """Return "file.py:12", as short as it can be found again from here."""
        return f"{_near(self.file)}:{self.number}" if self.number else ""


def users_line(maker_of: object = None) -> Line:
    """Return the line of the user's program that is being run: the innermost that is not ours.

    Args:
        maker_of: What is being made: where its class's own `__init__` is called counts, and not
            what happens in it.
    """
    frame = sys._getframe(1)  # noqa: SLF001  # its documented use: `inspect` costs a millisecond
    while frame is not None:
        name = frame.f_code.co_filename
        own = (
            maker_of is not None
            and frame.f_code.co_name == "__init__"
            and frame.f_code.co_argcount > 0
            and frame.f_locals.get(frame.f_code.co_varnames[0]) is maker_of
        )
        if not own and not name.startswith((_OURS, "<frozen ")):
            return Line(name, frame.f_lineno)
        back = frame.f_back
        if back is None:
            break
        frame = back
    return Line("", 0)


def _near(file: str) -> str:
    try:
        return str(Path(file).relative_to(Path.cwd()))
    except ValueError:
        return file


class FlowletError(SpecError):
    """A program that cannot run as it is; `where` is the user's own line."""

    exit_code = 2


class TaskError(FlowletError):
    """A task of a running program failed.

    Attributes:
        task: Its name.
        kind: raised | outputs | hung | memory | circuit | code | killed | lost.
        engine: Where it ran; "" = nowhere yet.
        trace: The user's part of its traceback, and what it had written.
    """

    exit_code = 1

    def __init__(
        self, problem: str, *, task: str, kind: str, where: str = "", engine: str = "",
        trace: str = "", hint: str = "",
    ) -> None:  # fmt: skip
        """Say which task, where it is in the program, and what happened."""
        self.task, self.kind, self.engine, self.trace = task, kind, engine, trace
        super().__init__(problem, where=where, hint=hint)

    def __str__(self) -> str:
        """Return the sentence, and the traceback below it."""
        sentence = super().__str__()
        return f"{sentence}\n\n{self.trace.rstrip()}" if self.trace else sentence
