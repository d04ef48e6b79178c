"""How fast slices are planned on one core, beside what libraries take for parts of the same.

Each part makes its own cells and asks the planner what production asks it; baselines are measured in
the same run on the same cells.

    python benchmarks/planning.py [--quick] [--json] [--only PART,..]
"""

import argparse
import importlib
import sys
import time
from typing import Any, Final

from harness import PICTURES, Report
from planning_parts.gangs import ENGINES, GOALS_US

PARTS: Final = ("gangs", "ways", "trees", "tasks", "explain")  # one file of planning_parts each


def main() -> None:
    """Measure and print."""
    chosen = options()
    parts = chosen.only or PARTS
    report = Report("The speed of planning")
    for name in parts:
        part = importlib.import_module(f"planning_parts.{name}")
        before = time.perf_counter()
        part.measure(report, chosen.quick)
        print(f"  {name}: {time.perf_counter() - before:.1f} s", file=sys.stderr, flush=True)
    report.print(as_json=chosen.json)
    if chosen.json:
        return
    if "gangs" in parts:
        report.plot("planning_gangs", lambda axes: draw_growth(axes, report), folder=PICTURES)
    if not chosen.only:
        if not chosen.quick:
            report.save("planning")
        report.plot("planning", report.draw_goals, folder=PICTURES)


def draw_growth(axes: Any, report: Report) -> None:  # matplotlib has no types
    """Draw what a gang of eight takes over the size of the cell."""
    known = report.figures
    lines = {
        "Flow OS: engines, circuits, records": ("gang8_python_{}_us", "o-"),
        "numpy and networkit: engines, ways": ("gang8_numpy_networkit_{}_us", "s--"),
    }
    for label, (form, style) in lines.items():
        points = [
            (n, known[form.format(s)].value) for s, n in ENGINES.items() if form.format(s) in known
        ]
        axes.plot(*zip(*points, strict=True), style, label=label)
    naive = [
        (count, figure.baseline)
        for size, count in ENGINES.items()
        if (figure := known.get(f"gang8_python_{size}_us")) and figure.baseline
    ]
    axes.plot(*zip(*naive, strict=True), "^:", label="a scan in Python and networkx")
    goals = [(ENGINES[size], goal) for size, goal in GOALS_US.items()]
    axes.plot(*zip(*goals, strict=True), "k_", markersize=14, label="goal")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("engines in the cell")
    axes.set_ylabel("µs to plan and apply 8 engines and 8 circuits")
    axes.legend()


def options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="under 50 s")
    parser.add_argument("--json", action="store_true", help="print figures as JSON, no plots")
    parser.add_argument(
        "--only", type=lambda text: text.split(","), default=[], metavar="PART,..",
        help=", ".join(PARTS),
    )  # fmt: skip
    chosen = parser.parse_args()
    unknown = sorted(set(chosen.only) - set(PARTS))
    if unknown:
        parser.error(f"there is no part {', '.join(unknown)}: {', '.join(PARTS)}")
    return chosen


if __name__ == "__main__":
    main()
