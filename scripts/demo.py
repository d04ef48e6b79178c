"""`make demo`: a whole cell on this machine, seven slices from submission to the last freed unit.

Everything is real but the devices: an etcd, two scheduler processes, a controller, and an agent
process that simulates the hardware of `fic-small`.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flowos import connect
from flowos.model.life import phase_in
from flowos.model.slice import ENDED, Phase
from flowos.model.view import CellView
from flowos.runtime.client import SLICES

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = "examples/flowlets/founding.py"
SLICES_FILE = "examples/demo/slices.yaml"
PATIENCE_SECONDS = 50.0
COLOURS = {
    Phase.PENDING: "33", Phase.RUNNING: "32", Phase.DONE: "36", Phase.FAILED: "31",
    Phase.CANCELLED: "31",
}  # fmt: skip


def say(text: str = "") -> None:
    """Print at once, also into a pipe."""
    print(text, flush=True)


def flowos(*words: str, data_dir: str = "", quiet: bool = False) -> str:
    """Run a command as a user would, show it, and return what it printed.

    Raises:
        SystemExit: It failed.
    """
    if not quiet:
        say(f"\n$ flowos {' '.join(words)}")
    done = subprocess.run(
        [sys.executable, "-m", "flowos_cli.main", *words]
        + (["--data-dir", data_dir] if data_dir else []),
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        cwd=ROOT,
    )
    if not quiet:
        say(done.stdout.rstrip())
    if done.returncode:
        raise SystemExit(f"demo: 'flowos {' '.join(words)}' ended with {done.returncode}")
    return done.stdout


@contextmanager
def cell(data_dir: str) -> Iterator[None]:
    """Start a cell and stop it, whatever happens between."""
    flowos("up", "--detach", "--cell", "fic-small", "--scheduler", "batch=2", data_dir=data_dir)
    try:
        yield
    finally:
        flowos("down", data_dir=data_dir)


def painted(phase: Phase) -> str:
    """Return the phase in its colour, on a terminal."""
    colour = COLOURS.get(phase)
    return f"\x1b[{colour}m{phase}\x1b[0m" if colour and sys.stdout.isatty() else str(phase)


def why(view: CellView, name: str, phase: Phase) -> str:
    """Return what is worth saying beside a phase."""
    placed, waiting = view.placements.get(name), view.reasons.get(name)
    if phase is Phase.PENDING and waiting:
        return f"{waiting.value.reason}: {waiting.value.sentence}"
    if phase is Phase.COMMITTED and placed:
        engines = [engine for role in placed.value.engines.values() for engine in role]
        circuits = len(placed.value.circuits)
        parts = [", ".join(engines[:4]) + (" ..." if len(engines) > 4 else "")]
        parts += [f"{circuits} circuits"] if circuits else []
        parts += [f"by {placed.value.scheduler.partition('@')[0]}"]
        return "  ".join(part for part in parts if part)
    return ""


def submit_and_watch(data_dir: str) -> None:
    """Print each change of phase or reason until every slice has ended and nothing is held."""
    with connect(data_dir=data_dir) as client:
        started = time.monotonic()
        shown: dict[str, tuple[Phase, str]] = {}
        for view in client.follow(SLICES, deadline=started + PATIENCE_SECONDS):
            if not shown and not view.slices:  # following already: nothing will be missed
                flowos("submit", SLICES_FILE, data_dir=data_dir)
                started = time.monotonic()
                say("\n# What becomes of them, at every revision of the shared state:")
            for name in view.slices:
                phase = phase_in(view, name) or Phase.PENDING
                text = why(view, name, phase)
                before = shown.get(name)
                if before is None or before[0] is not phase or (text and before[1] != text):
                    shown[name] = (phase, text)
                    at = time.monotonic() - started
                    say(f"{at:6.2f} s  {name:<22} {painted(phase):<12}  {text}".rstrip())
            held = [name for name in view.placements if not name.startswith("~")]
            if shown and not held and all(phase in ENDED for phase, _ in shown.values()):
                return
    left = [name for name, (phase, _) in shown.items() if phase not in ENDED]
    raise SystemExit(f"demo: after {PATIENCE_SECONDS:g} s these have not ended: {left}")


def main() -> None:
    """Run the demonstration."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="flowos-demo-") as data_dir, cell(data_dir):
        say("\n# 4 nodes with 4 GPUs, an FPGA and a disk each, behind two circuit switches:")
        flowos("engine", "ls", data_dir=data_dir)
        say("\n# Seven slices; all of them together are more than the cell holds:")
        submit_and_watch(data_dir)
        say("\n# Everything has been given back, and every revision kept the laws:")
        flowos("ls", "--all", data_dir=data_dir)
        flowos("scheduler", "stats", data_dir=data_dir)
        said = flowos("cell", "verify", "--history", "-o", "json", data_dir=data_dir)
        violations = json.loads(said)["violations"]
        free = flowos("status", data_dir=data_dir)
        assert free, "status says nothing"
    say("\n# A program that names no engine, on this machine's own cores, with nothing started:")
    flowos("run", "--on", "alone", PROGRAM)
    if violations:
        raise SystemExit(f"demo: {len(violations)} violations")
    say(f"\nThe demonstration took {time.monotonic() - started:.0f} s.")


if __name__ == "__main__":
    main()
