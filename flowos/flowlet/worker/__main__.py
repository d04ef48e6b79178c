"""What is started for each engine: it starts the worker, and another one when a task killed that.

The one that starts does nothing else, so nothing that a task does can hurt it; what was running is
noted where both can read it.
"""

import contextlib
import ctypes
import mmap
import os
import signal
import sys
import time
from types import FrameType
from typing import Final

from flowos.flowlet.wire.segments import swept
from flowos.flowlet.worker.notes import Notes, Slain

AGAIN: Final = 75  # a worker's exit code that asks for another one: EX_TEMPFAIL
LIVES_MAX: Final = 100
PAUSE_SECONDS: Final = 0.05  # between a death and the next life
_PR_SET_PDEATHSIG: Final = 1


def main() -> int:
    """Run workers, one after the other, until one has ended by itself."""
    notes = Notes(mmap.mmap(-1, Notes.SIZE_BYTES))
    child = 0
    ending = False

    def end(number: int, _frame: FrameType | None) -> None:
        nonlocal ending
        ending = True
        if child:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    slain: Slain | None = None
    for _ in range(LIVES_MAX):
        parent = os.getpid()
        child = os.fork()
        if child == 0:
            os._exit(_live(notes, slain, parent))
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        before, child = child, 0
        # Here, for it may have died, or been ended, while it wrote.
        swept(f"{os.environ['FLOWOS_ATTEMPT']}-{before}")
        if ending or (code >= 0 and code != AGAIN):
            return code if code >= 0 else 128 - code
        job, task = notes.read()
        slain = Slain(job, task, -code) if code < 0 and task >= 0 else None
        notes.clear()
        died = f"by signal {-code}" if code < 0 else "by itself"
        sys.stderr.write(f"the worker ended {died}: another one begins\n")
        sys.stderr.flush()
        time.sleep(PAUSE_SECONDS)
    return 1


def _live(notes: Notes, slain: Slain | None, parent: int) -> int:
    """Be a worker; returns its exit code."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    with contextlib.suppress(OSError, AttributeError):  # it must not outlive who looks after it
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return 1
    from flowos.flowlet.worker.serving import serve

    try:
        return serve(os.environ, notes, slain)
    except Exception:  # noqa: BLE001  # the log is where it can be read
        sys.excepthook(*sys.exc_info())
        return 1
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
