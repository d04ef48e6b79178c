"""Beyond Omega: the production code in virtual time, many schedulers on one shared state.

What a live view leaves of the conflicts when decisions take long; conflicts by kind of unit; what
homes (partition affinity) spare; one sequence number for a node instead of a compare for each unit;
heavy tails; real traces; eight schedulers beside one that is alone;
whether any unit is ever held twice; how fast all of it runs.

    python benchmarks/beyond.py [--quick] [--json] [--only GROUP] [--placements N]
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import chain
from typing import Any

from beyond_parts import groups
from beyond_parts.cases import TRACES, Case, measure, slices_of
from harness import PICTURES, PLOTS, Report

from flowos.simulation.full.measured import FullFigures

Found = dict[str, tuple[Case, FullFigures, float]]

GROUPS = (
    "window",
    "kinds",
    "affinity",
    "check",
    "heavy",
    "traces",
    "muri",
    "eight",
    "holds",
    "speed",
)
PLANS_MAX = 1.10  # for each slice placed
COST_MAX = 1.6  # times the sequential way's
SPEED_MIN = 5_000.0  # slices a second of CPU
SECONDS_OF_MURI = 1_000.0  # in one of ours


def main() -> None:
    """Run all, or one group."""
    given = _options()
    cases = [case for case in _cases(given) if given.only in ("", case.group)]
    before = time.perf_counter()
    found: Found = {}
    with ProcessPoolExecutor(max_workers=1 if given.only == "speed" else os.cpu_count()) as pool:
        for number, (case, (figures, cpu)) in enumerate(
            zip(cases, pool.map(measure, cases), strict=True), start=1
        ):
            if sys.stderr.isatty():
                print(f"\r{number} of {len(cases)} runs ", end="", file=sys.stderr)
            found[case.name] = case, figures, cpu
    if sys.stderr.isatty():
        print(file=sys.stderr)
    report = _report(found)
    report.add("all_s", time.perf_counter() - before, "s")
    if not given.json:
        _print_runs(found)
    report.print(as_json=given.json)
    if given.json:
        return
    if not given.quick:
        name = f"beyond_{given.only}" if given.only else "beyond"
        report.save(name, runs={name: _row(*run) for name, run in found.items()})
    if any(case.group == "window" for case, *_ in found.values()):
        folder = PLOTS if given.quick else PICTURES
        spared = Report("What a live view leaves of the conflicts (production code)")
        spared.plot("beyond_window", lambda axes: _draw(axes, found), folder=folder)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer and shorter runs, under 50 s")
    parser.add_argument("--json", action="store_true", help="print figures as JSON, no plots")
    parser.add_argument("--only", default="", choices=("", *GROUPS), help="one group of runs")
    parser.add_argument("--placements", type=int, default=25_000, help="that holds are checked in")
    return parser.parse_args()


def _cases(given: argparse.Namespace) -> Iterator[Case]:
    quick = given.quick
    traces = groups.traces(quick) if TRACES.exists() else ()
    placements = 5_000 if quick else given.placements
    yield from chain(
        groups.sweep(quick), groups.kinds(quick), groups.affinity(quick), groups.coarse(quick),
        groups.heavy(quick), traces, groups.eight(quick), groups.holds(quick, placements), groups.speed(quick),
    )  # fmt: skip


# ----------------------------------------------------------------------------------------- report


def _report(found: Found) -> Report:
    report = Report("Beyond Omega: full mode")
    for name, (case, figures, cpu) in found.items():
        match case.group:
            case "window" | "heavy" if case.looks == "live":
                frozen = found[name.replace("_live", "_frozen")][1]
                report.add(
                    f"{name}_conflicts", figures.conflict_fraction, "",
                    baseline=frozen.conflict_fraction,
                )  # fmt: skip
                # Where none is left, one would have been: the factor is no less than that.
                report.add(f"{name}_spared", frozen.conflicts / max(1, figures.conflicts), "x")
            case "kinds":
                for kind, count in sorted(figures.lost_units.items()):
                    report.add(f"{name}_lost_{kind}", count / max(1, figures.placed), "/slice")
            case "affinity" if case.homes:
                without = found[name.replace("_homes", "_no_homes")][1]
                report.add(
                    f"{name}_conflicts", figures.conflict_fraction, "",
                    baseline=without.conflict_fraction,
                )  # fmt: skip
            case "check" if case.check == "coarse":
                fine = found[name.replace("coarse", "fine")][1]
                report.add(
                    f"{name}_conflicts", figures.conflict_fraction, "",
                    baseline=fine.conflict_fraction,
                )  # fmt: skip
                report.add(
                    f"{name}_plans", figures.plans_per_placed, "", baseline=fine.plans_per_placed
                )
            case "traces":
                report.add(f"{name}_plans_per_placed", figures.plans_per_placed, "")
                report.add(f"{name}_wait_p99", figures.waits.p99, "s")
            case "muri":
                _add_muri(report, case, figures)
            case "eight" if case.schedulers > 1:
                alone = found[name.replace("eight", "alone")][1]
                report.add(f"{name}_plans", figures.plans_per_placed, "", at_most=PLANS_MAX)
                # Nodes that a slice lies on: on one node its circuits need no lane beyond a leaf.
                report.add(
                    f"{name}_cost", _cost(figures), "nodes+lanes", baseline=_cost(alone),
                    ratio_at_most=COST_MAX,
                )  # fmt: skip
            case "speed":
                report.add("slices_per_cpu_s", figures.placed / cpu, "1/s", at_least=SPEED_MIN)
    holding = [figures for case, figures, _ in found.values() if case.group == "holds"]
    if holding:
        report.add("checked_placements", sum(figures.placed for figures in holding), "")
    report.add(
        "double_holds", sum(figures.double_holds for _, figures, _ in found.values()), "units",
        at_most=0,
    )  # fmt: skip
    return report


def _cost(figures: FullFigures) -> float:
    return figures.nodes_mean + figures.hops_mean


def _add_muri(report: Report, case: Case, figures: FullFigures) -> None:
    """Put the published rows beside ours: who is never taken off again beside who is."""
    runs = [arrival.runs_s for arrival in slices_of(case)]
    jct = (figures.waits.mean + sum(runs) / len(runs)) * SECONDS_OF_MURI
    published = {"shortest": 249_140.2, "batch": 336_533.2}  # SRTF, Tiresias
    makespans = {"shortest": 4_156_633.3, "batch": 3_959_796.9}
    report.add(f"muri_{case.policy}_mean_jct", jct, "s", baseline=published[case.policy])
    makespan = figures.seconds * SECONDS_OF_MURI
    report.add(f"muri_{case.policy}_makespan", makespan, "s", baseline=makespans[case.policy])


def _row(case: Case, figures: FullFigures, cpu: float) -> dict[str, Any]:
    busy = figures.teams["batch"]
    return {
        "schedulers": case.schedulers,
        "t_job_s": case.pace.job_s,
        "looks": case.looks,
        "homes": case.homes,
        "arrived": figures.arrived,
        "placed": figures.placed,
        "conflict_fraction": round(figures.conflict_fraction, 4),
        "plans_per_placed": round(figures.plans_per_placed, 4),
        "plans_made": busy.plans,
        "repaired": busy.repaired,
        "wait_mean_s": round(figures.waits.mean, 4),
        "wait_p99_s": round(figures.waits.p99, 4),
        "busy_useful": round(busy.busy_useful, 4),
        "busy_wasted": round(busy.busy_wasted, 4),
        "utilisation": round(figures.utilisation, 4),
        "nodes_mean": round(figures.nodes_mean, 3),
        "hops_mean": round(figures.hops_mean, 3),
        "fairness": round(busy.fairness, 4),
        "lost_units": figures.lost_units,
        "causes": figures.causes,
        "double_holds": figures.double_holds,
        "slices_per_cpu_s": round(figures.placed / cpu, 1),
    }


def _print_runs(found: Found) -> None:
    print(
        f"  {'run':<24} {'placed':>7} {'conflicts':>9} {'tried':>6} {'wait s':>8} {'p99 s':>8} "
        f"{'in use':>6} {'wasted':>6} {'1/cpu s':>8}  lost units"
    )
    for name, (case, figures, cpu) in found.items():
        row = _row(case, figures, cpu)
        lost = " ".join(f"{kind} {count}" for kind, count in figures.lost_units.items())
        print(
            f"  {name:<24} {row['placed']:>7} {row['conflict_fraction']:>9.4f} "
            f"{row['plans_per_placed']:>6.3f} {row['wait_mean_s']:>8.3f} {row['wait_p99_s']:>8.3f} "
            f"{row['utilisation']:>6.2f} {row['busy_wasted']:>6.3f} {row['slices_per_cpu_s']:>8.0f}"
            f"  {lost}".rstrip()
        )


def _draw(axes: Any, found: Found) -> None:  # matplotlib has no types
    for looks in groups.LOOKS:
        line = sorted(
            (case.pace.job_s, figures.conflict_fraction)
            for case, figures, _ in found.values()
            if case.group == "window" and case.looks == looks
        )
        style = "-" if looks == "frozen" else "--"
        label = {
            "frozen": "view as old as the decision",
            "live": "looked at again before it is sent",
        }
        axes.plot([x for x, _ in line], [y for _, y in line], style, marker="o", label=label[looks])
    axes.set_xscale("log")
    axes.set_xlabel("t_job, s")
    axes.set_ylabel("conflicts for each success")
    axes.set_ylim(bottom=0)
    axes.legend()


if __name__ == "__main__":
    main()
