"""Every benchmark in its quick form, one after another: `make bench` ends with one table of all figures.

One that fails does not keep the others from running; then the end is status 1. A figure that misses
its goal is shown, and fails only with --strict: goals of speed are for a machine that does nothing else.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "benchmarks"
TIMEOUT_S = 600.0  # a quick form takes less than one


@dataclass
class Outcome:
    """What came of one benchmark.

    Attributes:
        figures: By name, as its `--json` has them: value, unit, goal, and whether it was met.
        failure: Why it has none; "" = it has.
    """

    name: str
    seconds: float
    figures: dict[str, dict[str, object]] = field(default_factory=dict)
    failure: str = ""

    @property
    def met(self) -> int:
        """How many goals were met."""
        return sum(figure.get("ok") is True for figure in self.figures.values())

    @property
    def missed(self) -> list[str]:
        """Which figures missed theirs."""
        return [name for name, figure in self.figures.items() if figure.get("ok") is False]


def main() -> int:
    """Run them; 1 where one failed."""
    asked = _options()
    paths = benchmarks(FOLDER, asked.only)
    if not paths:
        sys.exit(f"{FOLDER.relative_to(ROOT)}: no benchmark has '{asked.only}' in its name")
    outcomes = []
    for path in paths:
        print(f"==> {path.stem}", file=sys.stderr)
        outcomes.append(run([sys.executable, str(path), "--quick", "--json"], path.stem))
        print(f"    {said(outcomes[-1])}", file=sys.stderr)
    if asked.json:
        print(json.dumps({each.name: vars(each) for each in outcomes}))
    else:
        print("\n".join(table(outcomes)))
    return status(outcomes, strict=asked.strict)


def benchmarks(folder: Path, only: str = "") -> list[Path]:
    """Return those that can be run, not the parts that they share."""
    return [
        path
        for path in sorted(folder.glob("*.py"))
        if only in path.stem and '__name__ == "__main__"' in path.read_text()
    ]


def run(command: Sequence[str], name: str, *, timeout_s: float = TIMEOUT_S) -> Outcome:
    """Run one, and read the figures that it prints as JSON in its last line."""
    before = time.perf_counter()

    def outcome(**more: object) -> Outcome:
        return Outcome(name, round(time.perf_counter() - before, 1), **more)  # type: ignore[arg-type]

    # A group of its own, so that whatever it has started ends with it.
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    ) as child:  # fmt: skip
        try:
            out, err = child.communicate(timeout=timeout_s)
        except BaseException as error:
            os.killpg(child.pid, signal.SIGKILL)
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            return outcome(failure=f"was not done after {timeout_s:g} s")
    if child.returncode:
        last = (err.strip().splitlines() or ["it said nothing"])[-1]
        return outcome(failure=f"ended with {child.returncode}: {last}")
    for line in reversed(out.splitlines()):
        try:
            figures = json.loads(line)["figures"]
        except (ValueError, KeyError, TypeError):
            continue
        return outcome(figures=figures)
    return outcome(failure="printed no figures")


def said(outcome: Outcome) -> str:
    """Return one benchmark in a line."""
    if outcome.failure:
        return f"FAILED: {outcome.failure}"
    without = len(outcome.figures) - outcome.met - len(outcome.missed)
    return (
        f"{outcome.met} ok, {len(outcome.missed)} missed, {without} without a goal, "
        f"{outcome.seconds:.1f} s"
    )


def table(outcomes: Sequence[Outcome]) -> list[str]:
    """Return all of them, with each figure that missed its goal."""
    width = max(len(each.name) for each in outcomes)
    lines = [f"{'BENCHMARK':<{width}}  {'OK':>4}  {'MISSED':>6}  {'FIGURES':>7}  {'SECONDS':>7}"]
    for each in outcomes:
        counts = f"{each.met:>4}  {len(each.missed):>6}  {len(each.figures):>7}"
        failed = "  FAILED" if each.failure else ""
        lines.append(f"{each.name:<{width}}  {counts}  {each.seconds:>7.1f}{failed}")
    sums: list[Callable[[Outcome], float]] = [
        lambda each: each.met, lambda each: len(each.missed), lambda each: len(each.figures),
        lambda each: each.seconds,
    ]  # fmt: skip
    met, missed, figures, seconds = (sum(map(one, outcomes)) for one in sums)
    lines.append(f"{'all':<{width}}  {met:>4}  {missed:>6}  {figures:>7}  {seconds:>7.1f}")
    for each in outcomes:
        if each.failure:
            lines.append(f"failed: {each.name} {each.failure}")
        for name in each.missed:
            figure = each.figures[name]
            value = f"{figure.get('value')} {figure.get('unit', '')}".strip()
            lines.append(f"missed: {each.name} {name}: {value}, goal {figure.get('goal')}")
    return lines


def status(outcomes: Sequence[Outcome], *, strict: bool) -> int:
    """Return 1 where one failed or, if strict, missed a goal."""
    return int(any(each.failure or (strict and each.missed) for each in outcomes))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", default="", metavar="WORD", help="those with it in their name")
    parser.add_argument("--strict", action="store_true", help="a missed goal is a failure")
    parser.add_argument("--json", action="store_true", help="print all outcomes as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
