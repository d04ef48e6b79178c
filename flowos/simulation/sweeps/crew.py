"""Who plays the runs of a sweep: this process, or several beside it; and what if one is interrupted?

Processes of our own, not a pool: an interrupted sweep ends them at once and keeps what is done.
"""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import NamedTuple, Protocol, TypeAlias, cast

from flowos.model.errors import FlowosError
from flowos.simulation.processes import deaf_to_interrupts
from flowos.simulation.sweeps.knobs import Settings
from flowos.simulation.sweeps.rows import Row

Progress: TypeAlias = Callable[[int, int], None]  # (done, of)


class Ground(Protocol):
    """What all runs have in common; it goes to other processes."""

    def play(self, settings: Settings, seed: int) -> list[Row]:
        """Run once; the same settings and seed give the same rows."""
        ...


class Point(NamedTuple):
    """One run: a point of the grid, and a seed."""

    number: int
    settings: Settings
    seed: int


@dataclass(slots=True)
class Swept:
    """What is done of a sweep.

    Attributes:
        points: All that were to be run.
        rows: By the place in `points`; what is not there was not run.
        interrupted: Whether somebody ended it before all was done.
    """

    points: Sequence[Point]
    rows: dict[int, list[Row]] = field(default_factory=dict)
    interrupted: bool = False


def points_of(grid: Sequence[Settings], seeds: int) -> list[Point]:
    """Return all runs: first the whole grid under one seed, so that little done says much."""
    return [
        Point(number, settings, seed)
        for seed in range(1, seeds + 1)
        for number, settings in enumerate(grid)
    ]


def sweep(
    ground: Ground,
    points: Sequence[Point],
    *,
    processes: int = 1,
    progress: Progress = lambda _done, _of: None,
) -> Swept:
    """Play all runs; a KeyboardInterrupt ends it, and what was done until then is returned.

    Each run is the same whoever plays it, so that the result does not depend on `processes`.

    Args:
        ground: What the runs have in common.
        points: As `points_of` has them.
        processes: 1 = all is played in this one.
        progress: Told of each run that is done.

    Raises:
        FlowosError: A run was impossible, or one of the processes died.
    """
    found = Swept(points)
    progress(0, len(points))
    try:
        if processes == 1 or len(points) == 1:
            for place, point in enumerate(points):
                found.rows[place] = ground.play(point.settings, point.seed)
                progress(len(found.rows), len(points))
        else:
            with _hands(ground, min(processes, len(points))) as hands:
                for place, rows in _shared_out(hands, points):
                    found.rows[place] = rows
                    progress(len(found.rows), len(points))
    except KeyboardInterrupt:
        found.interrupted = True
    return found


def _shared_out(
    hands: dict[Connection, BaseProcess], points: Sequence[Point]
) -> Iterator[tuple[int, list[Row]]]:
    """Give each process a run whenever it is done with its last."""
    left = iter(range(len(points)))
    at: dict[Connection, int] = {}

    def give(hand: Connection) -> None:
        place = next(left, None)
        if place is not None:
            at[hand] = place
            hand.send(points[place])

    for hand in hands:
        give(hand)
    while at:
        for hand in cast("list[Connection]", wait(list(at))):
            try:
                rows = hand.recv()
            except (EOFError, ConnectionError):
                raise _died(hands[hand], points[at[hand]]) from None
            if isinstance(rows, BaseException):
                raise rows
            place = at.pop(hand)
            give(hand)
            yield place, rows


def _died(process: BaseProcess, point: Point) -> FlowosError:
    process.join(1.0)
    said = ", ".join(f"{name} {value}" for name, value in point.settings.items()) or "defaults"
    return FlowosError(
        f"the process of the run with {said}, seed {point.seed}, has died "
        f"(status {process.exitcode}): if memory is short, take fewer --processes"
    )


@contextmanager
def _hands(ground: Ground, count: int) -> Iterator[dict[Connection, BaseProcess]]:
    """Start processes that play; on the way out they are ended, whatever they do.

    Spawned, not forked: a fork copies threads' locks as they happen to be.
    """
    context = get_context("spawn")
    with ExitStack() as stack:
        hands: dict[Connection, BaseProcess] = {}
        for _ in range(count):
            ours, theirs = context.Pipe()
            stack.callback(ours.close)
            # A daemon: ended with this process, if that comes to its end in another way.
            process = context.Process(target=_play, args=(theirs,), daemon=True)
            with deaf_to_interrupts():
                process.start()
            stack.callback(process.join)
            stack.callback(process.terminate)
            theirs.close()
            ours.send(ground)
            hands[ours] = process
        yield hands


def _play(asked: Connection) -> None:
    # A terminal's Ctrl-C reaches all; the first process decides what becomes of it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(1)  # a sweep leaves the machine usable
    try:
        ground: Ground = asked.recv()
        while True:
            point: Point = asked.recv()
            try:
                asked.send(ground.play(point.settings, point.seed))
            except FlowosError as error:
                asked.send(error)
    except (EOFError, ConnectionError):
        return  # nobody asks any more
