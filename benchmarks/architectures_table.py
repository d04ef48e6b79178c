"""The comparison that the founding paper made in words, measured: four ways to build the same cell.

The same engines, the same slices and the same planner; what differs is which engines a circuit can
join. See docs/architectures.md for the shapes and what each assumes.

    python benchmarks/architectures_table.py [--quick] [--json]
"""

import statistics
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any, Final

from architectures_parts.served import Served, Server, largest_ring
from architectures_parts.workload import requests
from harness import PICTURES, Report, options

from flowos.documents.presets import preset

SHAPES: Final[Mapping[str, str]] = {
    "rack-pool": "pooled by rack",
    "memory-pool": "one shared memory",
    "boxes": "boxes of 8 GPUs",
    "fic": "Flow in Cloud",
}
COMPARED: Final = (256, 1024)  # engines
GROWTH: Final = (64, 128, 256, 512, 1024)
LARGEST: Final = 2048  # in a full run only
GROWS: Final = 1.1  # a cell of twice the engines has grown if it holds so many times the GPUs
SLICES: Final = 64  # for any cell, so that more wait than are looked at,
ENGINES_A_SLICE: Final = 4  # and one more for so many engines: about a day of work
SEEDS: Final = (1, 2, 3)

Runs = list[Served]  # of one shape and size, one for each seed

COLUMNS: Final[Mapping[str, tuple[str, Callable[[Served], float]]]] = {
    # figure -> unit, value
    "placed": ("slices", lambda run: run.placed),
    "refused": ("slices", lambda run: run.refused),
    "gpus_held": ("GPUs", lambda run: run.gpus_held),
    "stranded": ("%", lambda run: 100 * run.share_stranded),
    "kj_gpu_hour": ("kJ", lambda run: run.kj_per_gpu_hour),
    "kj_stranded": ("kJ", lambda run: run.stranded_joules / 1000 / run.placed),
    "hops": ("links", lambda run: run.hops_each),
    "latency": ("ns", lambda run: run.latency_each_ns),
}


def main() -> None:
    """Measure and print."""
    chosen = options(__doc__ or "")
    seeds = SEEDS[:1] if chosen.quick else SEEDS
    sizes = GROWTH if chosen.quick else (*GROWTH, LARGEST)
    runs = {
        (shape, size): [serve(shape, size, seed) for seed in seeds[: 1 if size > 1024 else None]]
        for size in sizes
        for shape in SHAPES
    }
    report = Report("Four ways to build one cell")
    for size in COMPARED:
        for shape in SHAPES:
            known = f"{shape.replace('-', '_')}_{size}"
            for column, (unit, _) in COLUMNS.items():
                report.add(f"{known}_{column}", mean(column, runs[shape, size]), unit)
            ring = largest_ring(preset(f"{shape}:{size}"))
            report.add(f"{known}_largest_ring", ring, "GPUs")
    for shape in SHAPES:
        grown = stops_at(shape, runs, sizes)
        report.add(f"{shape.replace('-', '_')}_grows_to", grown, "engines")
    if chosen.json:
        report.print(as_json=True)
        return
    print_table(report, sizes)
    if not chosen.quick:
        report.save("architectures", seeds=len(seeds), largest=sizes[-1])
    report.plot("architectures", lambda axes: draw(axes, runs, sizes), folder=PICTURES)


def serve(shape: str, size: int, seed: int) -> Served:
    """Return how a cell of this shape and size serves its share of the workload."""
    slices = islice(requests(seed), SLICES + size // ENGINES_A_SLICE)
    return Server(preset(f"{shape}:{size}"), slices).serve()


def mean(column: str, runs: Runs) -> float:
    """Return a column's value over the seeds."""
    return statistics.mean(COLUMNS[column][1](run) for run in runs)


def stops_at(shape: str, runs: Mapping[tuple[str, int], Runs], sizes: tuple[int, ...]) -> int:
    """Return the largest size at which a cell still held more than at half of it."""
    grown = sizes[0]
    for size in sizes[1:]:
        now, before = (mean("gpus_held", runs[shape, s]) for s in (size, size // 2))
        if now < GROWS * before:
            break
        grown = size
    return grown


def print_table(report: Report, sizes: tuple[int, ...]) -> None:
    """Print a table for each size that is compared."""
    for size in COMPARED:
        print(f"{report.title}: {size} engines, {size * 3 // 4} of them GPUs")
        print(f"  {'':<18}" + "".join(f"{heading:>13}" for heading in (*COLUMNS, "largest_ring")))
        for shape, words in SHAPES.items():
            known = f"{shape.replace('-', '_')}_{size}"
            values = [report.figures[f"{known}_{c}"].value for c in (*COLUMNS, "largest_ring")]
            print(f"  {words:<18}" + "".join(f"{value:>13,.4g}" for value in values))
    print(f"Where growth stops, of cells up to {sizes[-1]} engines")
    for shape, words in SHAPES.items():
        grown = int(report.figures[f"{shape.replace('-', '_')}_grows_to"].value)
        print(f"  {words:<18}" + (f"{grown} engines" if grown < sizes[-1] else "not seen"))


def draw(axes: Any, runs: Mapping[tuple[str, int], Runs], sizes: tuple[int, ...]) -> None:
    """Draw the share of GPUs held, and what is stranded, over size; the assumptions beside it."""
    figure, held = axes.figure, axes
    figure.set_size_inches(12, 5)
    grid = figure.add_gridspec(1, 3, width_ratios=[3, 3, 2])
    held.set_subplotspec(grid[0])
    stranded, words = figure.add_subplot(grid[1]), figure.add_subplot(grid[2])
    for shape, label in SHAPES.items():
        gpus = [mean("gpus_held", runs[shape, size]) / (0.75 * size) for size in sizes]
        held.plot(sizes, [100 * part for part in gpus], "o-", label=label)
        share = [mean("stranded", runs[shape, size]) for size in sizes]
        stranded.plot(sizes, share, "o-", label=label)
    held.set_ylabel("GPUs held while slices wait, % of all")
    stranded.set_ylabel("engines stranded, % of all")
    for part in (held, stranded):
        part.set_xscale("log", base=2)
        part.set_xticks(sizes, [str(size) for size in sizes])
        part.set_xlabel("engines in the cell")
    held.legend(fontsize="small")
    words.axis("off")
    words.text(0, 1, ASSUMED, va="top", fontsize="small")
    stranded.set_title("the same engines, slices and planner")


ASSUMED: Final = """\
Assumed

All: of 8 engines 6 GPUs, 1 FPGA,
1 NVMe drive; hosts never short;
nothing is powered off.

Pooled by rack: 64 engines on one
non-blocking switch; none between.

One shared memory: 320 engines on
one crossbar; the rest stands beside.

Boxes: 8 GPUs with 12 lanes each
inside; 4 lanes of 100 Gb/s out of
the box, non-blocking between.

Flow in Cloud: 16 engines with
8 lanes each at a switch; a torus
with 32 lanes to each neighbour.

Slices: gangs of three traces, their
circuits derived; all wait from the
start, the 64 oldest are tried.
"""


if __name__ == "__main__":
    main()
