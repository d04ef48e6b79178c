"""Omega's light simulator reproduced: ours beside each row of its reference outputs.

The same job lists, replayed in four architectures and four commit modes; ours is the mean of three
seeds. Then the paper's Fig. 9: a class of jobs divided among 1 to 32 schedulers at 1 to 10 times
the rate, beside what the birthday law expects. Then the t_job sweep with a live copy: what is left
of the conflicts when only a commit's round trip is open to rivals.

    python benchmarks/omega.py [--reference FOLDER] [--quick] [--json]
"""

import argparse
import os
import random
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from harness import PICTURES, PLOTS, ROOT, Report
from omega_parts.bands import Compared, as_row, compared
from omega_parts.grid import GRID_LOADS, GRID_SCHEDULERS, Cell, draw_grid, grid_cell
from omega_parts.live import Window, draw_windows, window, windows
from omega_parts.reference import SEEDS, Case, jobs_of, read, setups

from flowos.simulation.light.measured import RunFigures
from flowos.simulation.light.run import run

T = TypeVar("T")

QUICK_TASKS = 14_000_000  # placed in all runs together: some 30 s on two cores
QUICK_GRID = ((4, 1), (8, 1))


def main() -> None:
    """Run all."""
    given = _options()
    found = read(given.reference)
    for why, count in found.skipped.items():
        print(f"left out: {count} rows: {why}", file=sys.stderr)
    if not found.cases:
        sys.exit(f"{given.reference}: has no row that ours can be put beside")
    cases = _few(found.cases) if given.quick else list(found.cases)
    points = [(n, load) for load in GRID_LOADS for n in GRID_SCHEDULERS]
    before = time.perf_counter()
    with ProcessPoolExecutor(max_workers=os.cpu_count()) as pool:
        runner = partial(_run, more=0 if given.quick else 1)
        ours = list(_progress(pool.map(runner, cases), len(cases), "of the reference's runs"))
        points = list(QUICK_GRID) if given.quick else points
        cells = list(_progress(pool.map(grid_cell, points), len(points), "points of Fig. 9"))
        spans = windows(given.quick)
        live = list(_progress(pool.map(window, spans), len(spans), "windows"))
    rows = [
        row
        for case, (runs, _) in zip(cases, ours, strict=True)
        for name, theirs in found.cases[case].items()
        for row in compared(case, name, theirs, [one.classes[name] for one in runs[:SEEDS]])
    ]
    # Where ours itself takes the reference's place.
    by_chance = [
        row
        for case, (runs, _) in zip(cases, ours, strict=True)
        for other in runs[SEEDS:]
        for name in found.cases[case]
        for row in compared(
            case, name, as_row(other.classes[name]), [one.classes[name] for one in runs[:SEEDS]]
        )
    ]
    report = _report(rows, by_chance, cells, [run for runs, _ in ours for run in runs])
    for each in live:
        name = f"{each.load}_{each.job_s:g}s"
        report.add(f"{name}_conflicts_stale", each.stale, "")
        report.add(f"{name}_conflicts_live", each.live, "", baseline=each.stale)
    day = max(
        (took for case, (_, took) in zip(cases, ours, strict=True) if case.cell == "pl10k"),
        default=None,
    )
    if day is not None:
        report.add("pl10k_slowest_day_s", day, "s", at_most=20.0)
    report.add("all_s", time.perf_counter() - before, "s")
    if given.json:
        report.figures |= {row.name: row.figure for row in rows}
        report.print(as_json=True)
        return
    _print_rows(rows)
    report.print(as_json=False)
    if not given.quick:
        report.save(
            "omega",
            rows={row.name: vars(row.figure) for row in rows},
            grid=[cell._asdict() for cell in cells],
            windows=[each._asdict() for each in live],
        )
    _draw(report, rows, cells, live, PLOTS if given.quick else PICTURES)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--reference", type=Path, default=ROOT.parent / "shared" / "omega_ref")
    parser.add_argument("--quick", action="store_true", help="some of the rows, under 50 s")
    parser.add_argument("--json", action="store_true", help="print figures as JSON, no plots")
    return parser.parse_args()


def _few(cases: Iterable[Case]) -> list[Case]:
    """Return some cases of each architecture, the same ones each time."""
    by_architecture: dict[str, list[Case]] = {}
    for case in sorted(cases, key=str):
        by_architecture.setdefault(case.architecture, []).append(case)
    chance = random.Random(0)
    for line in by_architecture.values():
        chance.shuffle(line)
    # Those first that can conflict.
    by_architecture = dict(sorted(by_architecture.items(), key=lambda each: each[0][0] != "o"))
    few: list[Case] = []
    left = QUICK_TASKS
    for turn in range(max(map(len, by_architecture.values()))):
        for line in by_architecture.values():
            if turn < len(line):
                cost = len(setups(line[turn])) * sum(
                    j.tasks for j in jobs_of(line[turn].cell) or ()
                )
                left -= cost
                if left < 0 and few:
                    return few
                few.append(line[turn])
    return few


def _run(case: Case, *, more: int) -> tuple[list[RunFigures], float]:
    """Return a case's runs, and how long the quickest took."""
    jobs = jobs_of(case.cell)
    assert jobs is not None, "others are left out when rows are read"
    took: list[float] = []
    runs: list[RunFigures] = []
    for setup in setups(case, more=more):
        before = time.perf_counter()
        runs.append(run(setup, jobs))
        took.append(time.perf_counter() - before)
    return runs, min(took)


def _progress(results: Iterator[T], total: int, of_what: str) -> Iterator[T]:
    for done, result in enumerate(results, start=1):
        if sys.stderr.isatty():
            print(f"\r{done} of {total} {of_what} ", end="", file=sys.stderr)
        yield result
    if sys.stderr.isatty():
        print(file=sys.stderr)


def _report(
    rows: Sequence[Compared],
    by_chance: Sequence[Compared],
    cells: Sequence[Cell],
    runs: Sequence[RunFigures],
) -> Report:
    report = Report("Omega's light simulator, reproduced")
    report.add("rows_in_band", sum(row.ok for row in rows), "figures", at_least=len(rows))
    if by_chance:
        within = sum(row.ok for row in by_chance)
        report.add("own_fourth_seed_in_band", within, "figures", baseline=len(by_chance))
    for kind in ("conflicts", "busyness", "wait_first", "wait_full", "saturated"):
        of_kind = [row for row in rows if row.name.endswith(kind)]
        if of_kind:
            within = sum(row.ok for row in of_kind) / len(of_kind)
            report.add(f"{kind}_in_band", within, "", at_least=1.0)
    over = sum(run.over_committed for run in runs)
    report.add("over_committed", over, "machines", at_most=0)
    aliased = sum(c.aliased for run in runs for c in run.classes.values())
    report.add("aliased_claims_refused", aliased, "claims")
    for cell in cells:
        name = f"fig9_{cell.schedulers}_schedulers_{cell.load}x"
        report.add(f"{name}_fine", cell.fine, "")
        report.add(f"{name}_coarse", cell.coarse, "", baseline=cell.law)
    return report


def _print_rows(rows: Sequence[Compared]) -> None:
    width = max(len(row.name) for row in rows)
    for row in rows:
        f = row.figure
        print(
            f"  {row.name:<{width}} ours {f.value:>12,.5g}  theirs {f.baseline:>12,.5g} "
            f"{f.unit:<5} {f.goal:<15} {'' if row.ok else 'MISSED'}".rstrip()
        )


def _draw(
    report: Report,
    rows: Sequence[Compared],
    cells: Sequence[Cell],
    live: Sequence[Window],
    folder: Path,
) -> None:
    def beside(axes: Any) -> None:  # matplotlib has no types
        for kind, named, mark in (("conflicts", "conflicts, transactions", "o"),
                                  ("busyness", "busyness, share of time", "s"),
                                  ("wait_first", "wait for the first decision, s", "^")):  # fmt: skip
            pairs = [
                (row.figure.baseline, row.figure.value)
                for row in rows
                if row.name.endswith(kind) and row.figure.baseline and row.figure.value
            ]
            axes.scatter(
                [x for x, _ in pairs], [y for _, y in pairs], s=9, marker=mark, label=named
            )
        low, high = 1e-4, 1e5
        axes.plot([low, high], [low, high], color="black", linewidth=0.7)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("published simulator")
        axes.set_ylabel("ours, mean of three seeds")
        axes.legend()

    report.plot("omega_rows", beside, folder=folder)
    fig9 = Report("Batch jobs divided among schedulers (the paper's Fig. 9)")
    fig9.plot("omega_fig9", lambda axes: draw_grid(axes, list(cells)), folder=folder)
    spared = Report("What a live copy leaves of the conflicts")
    spared.plot("omega_live", lambda axes: draw_windows(axes, list(live)), folder=folder)


if __name__ == "__main__":
    main()
