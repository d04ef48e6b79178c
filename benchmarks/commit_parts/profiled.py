"""Where the time goes: cProfile around parts of this process, or around another one.

As a script it is a `flowos` process under the profiler: profiled.py FILE ROLE run ...
"""

import cProfile
import os
import pstats
import sys
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
    if isinstance(found, Path) and not found.exists():
        print("  the process to be profiled has left no profile")
        return
    try:
        stats = pstats.Stats(str(found) if isinstance(found, Path) else found)
    except TypeError:
        print("  nothing was profiled here")
        return
    stats.strip_dirs().sort_stats("tottime").print_stats(LINES)


def main() -> None:
    """Run the command under the profiler; it ends by SIGTERM."""
    from flowos_cli import main as command

    path, sys.argv = sys.argv[1], ["flowos", *sys.argv[2:]]
    profiler = cProfile.Profile()
    code = profiler.runcall(command.run)
    profiler.dump_stats(path)
    os._exit(code)


if __name__ == "__main__":
    main()
