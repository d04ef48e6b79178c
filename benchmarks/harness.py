"""What every benchmark shares: options, figures with their baselines, a table, a plot."""

import argparse
import datetime as dt
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PLOTS = Path("benchmarks/plots")
RESULTS = ROOT / "benchmarks" / "results"
PICTURES = ROOT / "docs" / "pictures"
# Okabe and Ito's, which the colour-blind can tell apart; their yellow is too pale for lines.
COLOURS = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#7a5195", "#8c8c8c",
)  # fmt: skip


def _interrupted(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Say a word where somebody has pressed Ctrl-C; all else is a mistake, with its trace."""
    if issubclass(kind, KeyboardInterrupt):
        print("interrupted: nothing was saved", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _interrupted


@dataclass
class Figure:
    """One measured value beside its baseline of the same run.

    Attributes:
        ratio: value / baseline.
        goal: In words, e.g. "<= 10 s".
        ok: Whether the goal is met; None = there is none.
    """

    value: float
    unit: str
    baseline: float | None = None
    goal: str = ""
    ok: bool | None = None

    @property
    def ratio(self) -> float | None:
        """How many times the baseline the value is."""
        return self.value / self.baseline if self.baseline else None


@dataclass
class Report:
    """Collects figures and prints them."""

    title: str
    figures: dict[str, Figure] = field(default_factory=dict)

    def add(
        self,
        name: str,
        value: float,
        unit: str,
        *,
        baseline: float | None = None,
        at_most: float | None = None,
        at_least: float | None = None,
        ratio_at_most: float | None = None,
        ratio_at_least: float | None = None,
    ) -> None:
        """Add a figure, with its goal as a bound on the value, or on its ratio to the baseline.

        A goal on the ratio is open where there is no baseline.
        """
        goal, ok = "", None
        ratio = value / baseline if baseline else None
        if ratio_at_most is not None:
            goal, ok = f"<= {ratio_at_most:g} x", None if ratio is None else ratio <= ratio_at_most
        if ratio_at_least is not None:
            goal, ok = (
                f">= {ratio_at_least:g} x",
                None if ratio is None else ratio >= ratio_at_least,
            )
        if at_most is not None:
            goal, ok = f"<= {at_most:g} {unit}".strip(), value <= at_most
        if at_least is not None:
            goal, ok = f">= {at_least:g} {unit}".strip(), value >= at_least
        self.figures[name] = Figure(value, unit, baseline, goal, ok)

    def shown(self) -> dict[str, dict[str, object]]:
        """Return all figures for programs."""
        return {
            name: {
                "value": round(f.value, 4),
                "unit": f.unit,
                "baseline": None if f.baseline is None else round(f.baseline, 4),
                "ratio": None if f.ratio is None else round(f.ratio, 4),
                "goal": f.goal,
                "ok": f.ok,
            }
            for name, f in self.figures.items()
        }

    def print(self, *, as_json: bool) -> None:
        """Print all figures, as JSON or as a table with a plot beside it."""
        if as_json:
            print(json.dumps({"figures": self.shown()}))
            return
        load = os.getloadavg()[0]
        print(f"{self.title}  (load average {load:.2f}, {os.cpu_count()} cores)")
        width = max(len(name) for name in self.figures)
        for name, f in self.figures.items():
            baseline = "" if f.baseline is None else f"baseline {f.baseline:,.4g}"
            ratio = "" if f.ratio is None else f"x{f.ratio:.2f}"
            verdict = {True: "ok", False: "MISSED", None: ""}[f.ok]
            print(
                f"  {name:<{width}}  {f.value:>12,.4g} {f.unit:<9} {baseline:<22} {ratio:<8} "
                f"{f.goal:<18} {verdict}".rstrip()
            )

    def save(self, name: str, **more: object) -> None:
        """Keep the figures in `benchmarks/results`, with what they were measured on, and more."""
        RESULTS.mkdir(exist_ok=True)
        found = {
            "figures": self.shown(),
            **more,
            "date": dt.datetime.now(tz=dt.UTC).date().isoformat(),
            "python": platform.python_version(),
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
            "load": [round(load, 2) for load in os.getloadavg()],
        }
        path = RESULTS / f"{name}.json"
        path.write_text(json.dumps(found, indent=2) + "\n")
        print(f"  saved: {path.relative_to(ROOT)}")

    def draw_goals(self, axes: Any) -> None:  # matplotlib has no types
        """Draw each figure beside its goal, on one scale: 1 = the goal, to the right is better."""
        rows = []
        for name, figure in self.figures.items():
            if not figure.goal:
                continue
            sign, bound, *unit = figure.goal.split()
            reached = figure.ratio if unit == ["x"] and figure.unit != "x" else figure.value
            if reached:
                share = reached / float(bound) if sign == ">=" else float(bound) / reached
                rows.append((f"{name}  {reached:.3g} ({figure.goal})", share, figure.ok))
        rows.reverse()
        colours = ["tab:green" if ok else "tab:red" for *_, ok in rows]
        axes.figure.set_size_inches(9, 1 + 0.3 * len(rows))
        axes.barh([row[0] for row in rows], [row[1] for row in rows], color=colours)
        axes.axvline(1.0, color="black", linewidth=1)
        axes.set_xscale("log")
        axes.set_xlabel("times its goal")

    def plot(
        self, name: str, draw: "Callable[[object], None]", *, folder: Path | None = None
    ) -> None:
        """Write a picture, where matplotlib is installed (extra `bench`)."""
        folder = folder or PLOTS
        try:
            import matplotlib as mpl

            mpl.use("Agg")
            from matplotlib import pyplot as plt
        except ImportError:
            print("  no picture: pip install 'flowos[bench]'", file=sys.stderr)
            return
        folder.mkdir(parents=True, exist_ok=True)
        mpl.rcParams["axes.prop_cycle"] = mpl.cycler(color=COLOURS)
        figure, axes = plt.subplots(figsize=(7, 4))
        draw(axes)
        axes.set_title(self.title)
        figure.tight_layout()
        path = folder / f"{name}.png"
        figure.savefig(path, dpi=120)
        plt.close(figure)
        print(f"  picture: {path}")


def options(description: str) -> argparse.Namespace:
    """Parse --quick and --json."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="under 50 s")
    parser.add_argument("--json", action="store_true", help="print figures as JSON, no plots")
    return parser.parse_args()


def seconds(call: Callable[[], object]) -> float:
    """Return how long a call took."""
    before = time.perf_counter()
    call()
    return time.perf_counter() - before


def interleaved(calls: Sequence[Callable[[], float]], rounds: int) -> list[float]:
    """Return each call's median over rounds that take turns, so that drift hits all alike."""
    samples: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for call, found in zip(calls, samples, strict=True):
            found.append(call())
    return [statistics.median(found) for found in samples]
