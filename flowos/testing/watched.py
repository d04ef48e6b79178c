"""Does a piece of somebody's code come to an end, and keep to itself?

Steps are counted, not seconds, so that a busy machine is no finding.
"""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final, SupportsIndex

STEPS_MAX: Final = 1_000_000  # lines of the plug-in and calls together; batch takes some 2,000
_OURS: Final = str(Path(__file__).parent.parent) + "/"
_EVENTS: Final = {  # by the interpreter's own names, see "Audit events table" in its manual
    "socket.connect": "a connection",
    "socket.bind": "a port",
    "subprocess.Popen": "a process",
    "os.system": "a process",
    "os.exec": "a process",
    "os.fork": "a process",
    "os.remove": "a file",
}


class TooManySteps(BaseException):
    """No end is in sight; not an Exception, so that nobody's `except` takes it."""


class AskedOthers(BaseException):
    """Something outside was used."""


class _Watching(threading.local):
    on = False


_watching: Final = _Watching()
_sleep: Final = time.sleep
_hooked: list[bool] = []


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watching.on:
        return
    what = _EVENTS.get(event)
    if event == "open":
        path, mode = arguments[0], arguments[1]
        # What an import keeps of its own work is opened by number: that is nobody's business.
        if isinstance(path, str) and isinstance(mode, str) and set("wax+") & set(mode):
            what = f"file {path}"
    if what is not None:
        raise AskedOthers(what)


def _no_sleep(seconds: float | SupportsIndex) -> None:
    """Stand in for `time.sleep`, which interpreters before 3.13 tell nobody of."""
    if _watching.on:
        raise AskedOthers("time.sleep")
    _sleep(seconds)


@contextmanager
def watched() -> Iterator[None]:
    """Watch what this thread does in the block; the trace function is put back afterwards.

    Raises:
        TooManySteps: More than `STEPS_MAX` lines and calls.
        AskedOthers: It slept, wrote a file, started a process or used the network.
    """
    if not _hooked:
        sys.addaudithook(_hear)  # for good: it cannot be taken back, and looks at one flag
        _hooked.append(True)
    steps = 0

    def step(_frame: FrameType, _event: str, _argument: object) -> Any:
        nonlocal steps
        steps += 1
        if steps > STEPS_MAX:
            raise TooManySteps(STEPS_MAX)
        return step

    def call(frame: FrameType, event: str, argument: object) -> Any:
        step(frame, event, argument)
        # Lines of our own planner need not be counted: it ends, and counting takes time.
        return None if frame.f_code.co_filename.startswith(_OURS) else step

    before, sleep = sys.gettrace(), time.sleep
    _watching.on, time.sleep = True, _no_sleep
    sys.settrace(call)
    try:
        yield
    finally:
        sys.settrace(before)
        _watching.on, time.sleep = False, sleep
