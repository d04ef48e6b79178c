"""Run all tests, in two lanes side by side: what computes, and what mostly waits for processes.

Each lane is one pytest of its own, so nothing in a lane runs at the same time as anything else of
it. Lines are shown as they come, with the lane's name; what failed is listed again at the end.

    python scripts/run_tests.py [pytest options]
"""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
# Whole processes on real stores; everything else is in the other lane, whatever is added.
PROCESSES: Final = ("tests/cli", "tests/faults", "tests/store")


def lanes() -> dict[str, list[str]]:
    """Return lane -> the files and folders that it runs."""
    found = sorted(
        p for p in (ROOT / "tests").iterdir() if p.is_dir() or p.name.startswith("test_")
    )
    names = [f"tests/{path.name}" for path in found if path.name[0] not in "_."]
    rest = [name for name in names if name not in PROCESSES]
    return {"processes": [*PROCESSES], "machines": rest}


def run(name: str, paths: list[str], options: list[str], codes: dict[str, int]) -> None:
    """Run one lane to its end and show what it says."""
    began = time.monotonic()
    command = [sys.executable, "-m", "pytest", "-q", "-o", f"cache_dir=.pytest_cache/{name}"]
    with subprocess.Popen(
        [*command, *options, *paths],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    ) as lane:
        assert lane.stdout is not None, "it is a pipe"
        for line in lane.stdout:
            print(f"{name:>9} | {line}", end="", flush=True)
    codes[name] = lane.returncode
    print(f"{name:>9} | {time.monotonic() - began:.0f} s, status {lane.returncode}", flush=True)


def main() -> int:
    """Return 0 where both lanes passed."""
    codes: dict[str, int] = {}
    threads = [
        threading.Thread(target=run, args=(name, paths, sys.argv[1:], codes))
        for name, paths in lanes().items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return max(map(abs, codes.values()), default=1)


if __name__ == "__main__":
    sys.exit(main())
