"""Two-level offers, monolithic schedulers and shared state on the same slices, by the same planner.

Hoarding, information hiding, stranding, waits, failures and energy of each, on pooled devices and
others. Offers have the setting that is best for them, out of all that are tried. Then what happens
when a framework thinks for long, and when there are many. docs/two-level.md says what is assumed.

    python benchmarks/two_level.py [--quick] [--json]
"""

import os
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Final

from harness import PICTURES, Report, options
from two_level_parts.cells import PLACES
from two_level_parts.ways import ALONE, Case, cases, measured, named

from flowos.simulation.architectures.measured import Figures
from flowos.simulation.architectures.setup import DEALINGS, OfferRules

SEEDS: Final = (1, 2, 3, 4, 5)
SLOW: Final = (0.1, 1.0, 10.0, 60.0)  # t_job of services, seconds
MANY: Final = (1, 2, 4)  # frameworks of each class
SLOW_AT, MANY_AT = "pool", "fic-small"

COLUMNS: Final[Mapping[str, tuple[str, Callable[[Figures], float]]]] = {
    # figure -> unit, value
    "wait": ("s", lambda run: run.wait_mean_s),
    "wait_batch": ("s", lambda run: class_wait(run, "batch")),
    "wait_service": ("s", lambda run: class_wait(run, "service")),
    "wait_longest": ("s", lambda run: run.wait_s(1.0)),
    "left": ("slices", lambda run: run.left),
    "useful": ("%", lambda run: 100 * run.useful),
    "hoarded": ("engine-s", lambda run: run.hoarded_engine_s),
    "locked": ("%", lambda run: 100 * run.locked),
    "stranded": ("%", lambda run: 100 * run.stranded),
    "withheld": ("%", lambda run: 100 * run.withheld),
    "only_outside": ("%", lambda run: 100 * run.only_outside),
    "better_outside": ("%", lambda run: 100 * run.better_outside),
    "failed": ("", lambda run: run.failed),
    "conflicts": ("", lambda run: run.conflicts),
    "gave_up": ("", lambda run: run.gave_up),
    "energy": ("kJ", lambda run: run.kj_per_engine_hour),
}
SHARED: Final = "shared state, live"
UNMARKED: Final = f"{SHARED}, without marks"
WHOLE: Final = OfferRules("own", "whole")
NODES: Final = OfferRules("own", "nodes")


def class_wait(run: Figures, name: str) -> float:
    """Return the mean wait of a class, whatever it is divided into."""
    waits = [w for part, of in run.waits_by_class.items() if part.startswith(name) for w in of]
    return statistics.fmean(waits) if waits else 0.0


Found = Mapping[Case, Figures]


def main() -> None:
    """Measure and print."""
    chosen = options(__doc__ or "")
    seeds = SEEDS[:1] if chosen.quick else SEEDS
    holds = (0.0, 120.0) if chosen.quick else (0.0, 30.0, 120.0, 600.0)
    wanted = [case for place in PLACES for case in cases(place, seeds, holds)]
    slow = [case for one in SLOW for seed in seeds for case in slow_cases(one, seed)]
    many = [case for one in MANY for seed in seeds for case in many_cases(one, seed)]
    everything = list(dict.fromkeys([*wanted, *slow, *many]))
    with ProcessPoolExecutor(max_workers=os.cpu_count()) as pool:
        found = dict(zip(everything, pool.map(measured, everything), strict=True))
    report = Report("Two-level offers beside shared state")
    best = {place: best_offers(found, place) for place in PLACES}
    for place in PLACES:
        rows = rows_of(found, place)
        for name, title in (
            *((way, way) for way in (*ALONE, UNMARKED)),
            *((title, kind) for kind, title in best[place].items()),
        ):
            for column, (unit, _) in COLUMNS.items():
                report.add(f"{place} | {title} | {column}", mean(column, rows[name]), unit)
            least, most = spread("wait", rows[name])
            report.add(f"{place} | {title} | wait, least of the seeds", least, "s")
            report.add(f"{place} | {title} | wait, most of the seeds", most, "s")
    for case, run in found.items():
        assert run.placed + run.left + run.never == run.came, named(case)
    add_sweep(report, "t_job", [(case, case.service_s or 0.0) for case in slow], found)
    add_sweep(report, "frameworks", [(case, float(case.parts)) for case in many], found)
    if chosen.json:
        report.print(as_json=True)
        return
    for place in PLACES:
        print_table(place, rows_of(found, place), best[place])
    print_sweep("services take s to decide on", [(c, c.service_s or 0.0) for c in slow], found)
    print_sweep("frameworks of each class", [(c, float(c.parts)) for c in many], found)
    print_for_page(found, best)
    if not chosen.quick:
        report.save("two_level", seeds=len(seeds), best=best)
    folder = None if chosen.quick else PICTURES
    report.plot("two_level", lambda axes: draw(axes, found, best, slow), folder=folder)


def slow_cases(job_s: float, seed: int) -> list[Case]:
    """Return the runs in which services are decided on for so long."""
    return [
        *(Case(SLOW_AT, way, seed, service_s=job_s) for way in ALONE),
        Case(SLOW_AT, SHARED, seed, service_s=job_s, marked=False),
        Case(SLOW_AT, "offers", seed, WHOLE, service_s=job_s),
        Case(SLOW_AT, "offers", seed, NODES, service_s=job_s),
        Case(SLOW_AT, "offers", seed, OfferRules("optimistic", "whole"), service_s=job_s),
        Case(SLOW_AT, "offers", seed, OfferRules("optimistic", "nodes"), service_s=job_s),
    ]


def many_cases(parts: int, seed: int) -> list[Case]:
    """Return the runs in which each class is divided among so many."""
    return [
        Case(MANY_AT, SHARED, seed, parts=parts),
        Case(MANY_AT, SHARED, seed, parts=parts, marked=False),
        Case(MANY_AT, "shared state, as published", seed, parts=parts),
        *(
            Case(MANY_AT, "offers", seed, OfferRules("own", dealing, hold_s=hold), parts=parts)
            for dealing in DEALINGS
            for hold in (0.0, 120.0)
        ),
    ]


def rows_of(found: Found, place: str) -> dict[str, list[Figures]]:
    """Return what is compared in a cell, by its name: a run for each seed."""
    rows: dict[str, list[Figures]] = {}
    for case, run in found.items():
        if case.place == place and case.service_s is None and case.parts == 1:
            rows.setdefault(named(case), []).append(run)
    return rows


def best_offers(found: Found, place: str) -> dict[str, str]:
    """Return the setting with the shortest mean wait, by how offers name devices and who holds."""
    rows = rows_of(found, place)
    best: dict[str, str] = {}
    for case in found:
        if case.place != place or case.way != "offers" or case.service_s or case.parts > 1:
            continue
        name = named(case)
        holds = "hold and wait" if case.rules.hold_s else "refuse and wait"
        kind = f"offers, {case.rules.devices}, {holds}"
        if kind not in best or mean("wait", rows[name]) < mean("wait", rows[best[kind]]):
            best[kind] = name
    return best


def mean(column: str, runs: Sequence[Figures]) -> float:
    """Return the mean of a figure over seeds."""
    return statistics.fmean(COLUMNS[column][1](run) for run in runs)


def spread(column: str, runs: Sequence[Figures]) -> tuple[float, float]:
    """Return the least and the most of a figure over seeds."""
    values = [COLUMNS[column][1](run) for run in runs]
    return min(values), max(values)


SWEPT: Final = ("wait_batch", "wait_service", "only_outside", "locked", "conflicts")


def swept(
    points: Iterable[tuple[Case, float]], found: Found
) -> dict[str, dict[float, list[Figures]]]:
    """Return way -> what was varied -> a run for each seed."""
    lines: dict[str, dict[float, list[Figures]]] = {}
    for case, value in dict.fromkeys(points):
        lines.setdefault(named(case), {}).setdefault(value, []).append(found[case])
    return lines


def add_sweep(
    report: Report, what: str, points: Iterable[tuple[Case, float]], found: Found
) -> None:
    """Add a sweep's figures."""
    for name, line in swept(points, found).items():
        for value, runs in line.items():
            for column in SWEPT:
                unit = COLUMNS[column][0]
                report.add(f"{what} {value:g} | {name} | {column}", mean(column, runs), unit)


def print_sweep(what: str, points: Iterable[tuple[Case, float]], found: Found) -> None:
    """Print a sweep."""
    print(f"\n{what}")
    for name, line in swept(points, found).items():
        for value, runs in line.items():
            figures = "  ".join(f"{column} {mean(column, runs):8.1f}" for column in SWEPT)
            print(f"  {value:>5g}  {name:<45} {figures}")


def print_table(place: str, rows: Mapping[str, list[Figures]], best: Mapping[str, str]) -> None:
    """Print a cell's table: all settings, and which of them are the best of their kind."""
    print(f"\n{place}: {PLACES[place].about}")
    print(f"  {'':<48}" + "".join(f"{column[:10]:>11}" for column in COLUMNS))
    for name, runs in rows.items():
        star = "*" if name in best.values() else " "
        cells = "".join(f"{mean(column, runs):>11,.1f}" for column in COLUMNS)
        print(f" {star}{name:<48}{cells}")


ON_PAGE: Final[Mapping[str, str]] = {
    # figure -> how it is written in docs/two-level.md
    "wait": "{:,.0f}", "wait_batch": "{:,.0f}", "wait_service": "{:,.0f}", "wait_longest": "{:,.0f}",
    "left": "{:g}", "hoarded": "{:,.0f}", "withheld": "{:.1f} %", "only_outside": "{:.0f} %",
    "better_outside": "{:.0f} %", "failed": "{:.1f}", "conflicts": "{:.1f}", "energy": "{:,.0f}",
}  # fmt: skip


def print_for_page(found: Found, best: Mapping[str, Mapping[str, str]]) -> None:
    """Print the table of docs/two-level.md, and which settings of offers are the best."""
    print("\nfor docs/two-level.md")
    for place in PLACES:
        rows = rows_of(found, place)
        same = ((name, name) for name in (SHARED, "monolithic, single-path", UNMARKED))
        for title, name in (*same, *best[place].items()):
            runs = rows[name]
            cells = [form.format(mean(column, runs)) for column, form in ON_PAGE.items()]
            low, high = spread("wait", runs)
            cells[0] += f" ({low:,.0f} to {high:,.0f})"
            print(f"| `{place}` | {title} | {' | '.join(cells)} |")
    for place in PLACES:
        for title, name in best[place].items():
            print(f"  best, {place}: {title}: {name}")


def draw(axes: Any, found: Found, best: Mapping[str, Mapping[str, str]], slow: list[Case]) -> None:
    """Draw waits of both classes by architecture, and what a slow framework costs the quick one."""
    figure = axes.figure
    figure.set_size_inches(12, 9)
    grid = figure.add_gridspec(2, 2)
    axes.set_subplotspec(grid[0, 0])
    panels = [axes, *(figure.add_subplot(grid[n // 2, n % 2]) for n in range(1, 4))]
    for panel, place in zip(panels[:2], ("expether", "pool"), strict=True):
        rows = rows_of(found, place)
        bars = [(SHARED, SHARED), (UNMARKED, UNMARKED)]
        bars += [("monolithic, single-path", "monolithic, single-path"), *best[place].items()]
        names = [title for title, _ in bars]
        for offset, column in ((-0.2, "wait_batch"), (0.2, "wait_service")):
            values = [mean(column, rows[name]) for _, name in bars]
            label = column.removeprefix("wait_")
            panel.barh([n + offset for n in range(len(bars))], values, 0.4, label=label)
        panel.set_yticks(range(len(bars)), names, fontsize="x-small")
        panel.invert_yaxis()
        panel.set_xlabel(f"{place}: mean wait, s")
        if panel is axes:  # whose title is the report's
            panel.set_xlabel(f"{place} ({PLACES[place].about}): mean wait, s")
        else:
            panel.set_title(f"{place}: {PLACES[place].about}", fontsize="medium")
        panel.legend(fontsize="small")
    rows = rows_of(found, "pool")
    bars = [(SHARED, SHARED), *best["pool"].items()]
    left = [0.0] * len(bars)
    for column in ("useful", "waking", "hoarded", "stranded", "withheld"):
        values = [
            100 * statistics.fmean(getattr(run, column) for run in rows[name]) for _, name in bars
        ]
        panels[2].barh([title for title, _ in bars], values, left=left, label=column)
        left = [before + value for before, value in zip(left, values, strict=True)]
    panels[2].invert_yaxis()
    panels[2].tick_params(axis="y", labelsize="x-small")
    panels[2].set_xlabel("% of all engine-seconds; the rest was free and wanted by nobody")
    panels[2].set_title("pool: what engines did", fontsize="medium")
    panels[2].set_xlim(0, 100)  # so that the words do not lie on the bars
    panels[2].legend(fontsize="x-small", loc="center right")
    lines = swept([(case, case.service_s or 0.0) for case in slow], found)
    for number, (name, line) in enumerate(lines.items()):
        waits = [max(mean("wait_batch", runs), 0.1) for runs in line.values()]
        style = f"{'osD^v'[number % 5]}{('-', '--', ':')[number % 3]}"
        panels[3].plot(list(line), waits, style, label=name, markersize=5)
    panels[3].set_xscale("log")
    panels[3].set_yscale("log")
    for axis in (panels[3].xaxis, panels[3].yaxis):
        axis.set_major_formatter("{x:g}")
    panels[3].yaxis.set_minor_formatter("{x:g}")
    panels[3].tick_params(axis="y", which="both", labelsize="small")
    panels[3].set_xlabel("t_job of services, s")
    panels[3].set_ylabel("mean wait of batch slices, s")
    panels[3].set_title(f"{SLOW_AT}: one framework that thinks for long", fontsize="medium")
    panels[3].legend(fontsize="x-small")


if __name__ == "__main__":
    main()
