"""Where the time goes: cProfile around parts of this process, or around another one."""

import cProfile
import pstats
from pathlib import Path
from typing import ClassVar

LINES = 40


class Profiled:
    """Profiles its blocks, all into one profile, where the command line asked for it."""

    profiler: ClassVar[cProfile.Profile | None] = None

    def __init__(self, *, on: bool = True) -> None:
        """Say whether this block counts."""
        self._profiler = self.profiler if on else None

    def __enter__(self) -> None:
        """Begin."""
        if self._profiler is not None:
            self._profiler.enable()

    def __exit__(self, *_: object) -> None:
        """Pause."""
        if self._profiler is not None:
            self._profiler.disable()


def show(found: cProfile.Profile | Path) -> None:
    """Print what took longest."""
    stats = pstats.Stats(str(found) if isinstance(found, Path) else found)
    stats.sort_stats("tottime").print_stats(LINES)
