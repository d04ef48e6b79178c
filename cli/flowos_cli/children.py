"""When is a process that ended started again?"""

import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import click

RESTART_SECONDS: Final = 1.0  # a process that died is started again, not more often than this
RESTART_SECONDS_MAX: Final = 15.0  # nor, where it ends by itself again and again, more often
STOP_SECONDS: Final = 7.5  # what a process may take to end when it is told to
LOOK_SECONDS: Final = 0.1
WRONG_WORDS: Final = 2  # the status of what would end so again, however often it is started


@dataclass
class Child:
    """A process that is to run until whoever started it ends."""

    name: str
    arguments: list[str]
    running: "subprocess.Popen[bytes] | None" = None
    started_at: float = 0.0
    pause_seconds: float = RESTART_SECONDS

    def ended(self) -> int | None:
        """Return its status where it has ended and it is time to start it again, else None.

        What is killed is to be back soon. What ends by itself, as it finds no store or has a fault,
        would do so again at once.
        """
        code = self.running.poll() if self.running is not None else None
        lived = time.monotonic() - self.started_at
        if code is None or lived < self.pause_seconds:
            return None
        again = code > 0 and lived < 2 * self.pause_seconds + RESTART_SECONDS
        longer = min(RESTART_SECONDS_MAX, 2 * self.pause_seconds)
        self.pause_seconds = longer if again else RESTART_SECONDS
        return code


def keep(
    children: Sequence[Child],
    start: Callable[[Child], "subprocess.Popen[bytes]"],
    stopping: Callable[[], bool],
) -> int:
    """Start processes, start again what ends, and end all when told to; return a status.

    Args:
        children: What runs: as many as there are now, all the time.
        start: Starts one.
        stopping: Whether it is time to end.
    """

    def begin(child: Child) -> None:
        child.running, child.started_at = start(child), time.monotonic()

    for child in children:
        begin(child)
    try:
        while not stopping():
            time.sleep(LOOK_SECONDS)
            for child in children:
                code = child.ended()
                if code == WRONG_WORDS:
                    return code
                if code is not None and not stopping():
                    click.echo(f"{child.name} ended with {code}: starting it again", err=True)
                    begin(child)
        return 0
    finally:
        _end(children)


def _end(children: Sequence[Child]) -> None:
    running = [child.running for child in children if child.running is not None]
    for process in running:
        if process.poll() is None:
            process.terminate()
    deadline = time.monotonic() + STOP_SECONDS
    for process in running:
        try:
            process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
