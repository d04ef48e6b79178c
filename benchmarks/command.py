"""How long the command takes to answer: `flowos --help`, and `slice ls` of 20 slices on a cell.

Baseline of the same run: a Python that does nothing.
"""

import subprocess
import sys
import tempfile

from harness import Report as Figures
from harness import interleaved, options, seconds

from flowos import connect
from flowos.model.slice import EngineChoice, EngineRole, SliceSpec

PYTHON = [sys.executable, "-c", "pass"]
FLOWOS = [sys.executable, "-m", "flowos_cli.main"]


def taking(command: list[str]) -> float:
    """Return how long a command takes, in milliseconds."""
    return 1000 * seconds(lambda: subprocess.run(command, check=True, capture_output=True))


def main() -> None:
    """Measure and print."""
    chosen = options(__doc__ or "")
    rounds = 7 if chosen.quick else 21
    figures = Figures("The command, median of interleaved rounds")
    with tempfile.TemporaryDirectory() as folder:
        there = ["--data-dir", folder]
        subprocess.run([*FLOWOS, "up", "--detach", "--cell", "fic-small", *there], check=True,
                       capture_output=True)  # fmt: skip
        try:
            with connect(data_dir=folder) as client:
                role = EngineRole((EngineChoice(kind="gpu", count=1),))
                client.submit([SliceSpec(f"s{n}", engines={"w": role}) for n in range(20)])
            help_ms, ls_ms, python_ms = interleaved(
                [
                    lambda: taking([*FLOWOS, "--help"]),
                    lambda: taking([*FLOWOS, "slice", "ls", *there]),
                    lambda: taking(PYTHON),
                ],
                rounds,
            )
        finally:
            subprocess.run([*FLOWOS, "down", *there], check=True, capture_output=True)
    figures.add("help", help_ms, "ms", baseline=python_ms, at_most=150)
    figures.add("slice_ls", ls_ms, "ms", baseline=python_ms, at_most=300)
    figures.print(as_json=chosen.json)
    if not chosen.json:
        names = list(figures.figures)
        figures.plot(
            "command",
            lambda axes: axes.bar(names, [f.value for f in figures.figures.values()]),  # type: ignore[attr-defined]
        )


if __name__ == "__main__":
    main()
