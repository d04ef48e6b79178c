"""How much data is too much to move? Where the planner turns from moving it to computing beside it.

    python benchmarks/affinity.py [--quick] [--json]

Two nodes: data on a disk beside a small engine, and a large engine on another leaf. For each lane
rate the amount of data at which the planner's decision flips is found by bisection, and compared
with the amount at which both ways take equally long, by hand:

    bytes = rate x (work / slow - work / fast - circuit set-up)

and the same for joules. Speeds are measured ones (MLPerf Inference, closed division, offline) and
watts are published ones, from ../shared/traces. Then random slices: what the choice saves against
always staying and always moving.
"""

import json
import random
import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from harness import PICTURES, Report, options

from flowos.documents.planner_file import load_planner
from flowos.model.cell import Cell, Engine, Link, Node, Switch, Watts
from flowos.model.placement import Decision
from flowos.model.rules import PlannerRules
from flowos.model.slice import Constraints, Data, EngineChoice, EngineRole, SliceSpec, Work
from flowos.model.view import CellView
from flowos.planning.affinity.weighed import costs_of
from flowos.planning.engines.pool import Pool
from flowos.planning.place import plan

TRACES: Final = Path(__file__).resolve().parent.parent.parent / "shared" / "traces"
DISK: Final = "NVMe Micron 9200 MAX 6.4TB"
RATES: Final = (10.0, 25.0, 50.0, 100.0, 200.0, 400.0)  # Gb/s of a lane
LEAST: Final = 1e-5  # how finely a flip is looked for, relative
BYTES_MAX: Final = 2**60


@dataclass(frozen=True)
class Pair:
    """A small engine beside the data, a large one away from it, and work that both can do."""

    name: str
    short: str  # the small engine, in the picture
    near: str
    far: str
    work: str
    amount: float


PAIRS: Final = (
    Pair("bert", "T4", "T4", "H100-SXM-80GB", "bert", 1e5),
    Pair("resnet50", "AI 100", "QUALCOMM Cloud AI 100 PCIe HHHL", "H100-SXM-80GB", "resnet50", 1e7),
)


class Bench:
    """The cell of a pair, with lanes of some rate, and requests to it."""

    def __init__(self, pair: Pair, rules: PlannerRules, watts: dict[str, Watts]) -> None:
        self.pair = pair
        self.rules = rules
        self.watts = {name: watts[name] for name in (pair.near, pair.far, DISK)}
        speeds = rules.speeds[pair.work]
        self.near_seconds = pair.amount / speeds[pair.near]
        self.far_seconds = pair.amount / speeds[pair.far]

    def pool(self, gbps: float) -> Pool:
        """Return the cell with lanes of a rate, all free."""
        cell = Cell()
        engines = [
            Engine("n0", "nvme0", "nvme", DISK, watts=self.watts[DISK]),
            Engine("n0", "engine0", "small", self.pair.near, watts=self.watts[self.pair.near]),
            Engine("n1", "engine0", "large", self.pair.far, watts=self.watts[self.pair.far]),
        ]
        for thing in (Switch("s0"), Switch("s1"), Node("n0"), Node("n1"), *engines):
            cell.add(thing)
        for engine in engines:
            port = f"s{engine.node[1]}:{engine.name}"
            cell.add(Link(f"{engine.node}-{engine.name}", f"{engine.id}:0", port, 4, gbps))
        cell.add(Link("s0-s1", "s0:up", "s1:up", 4, gbps))
        return Pool(CellView(cell=cell, planner=self.rules))

    def spec(self, size: float, *, lanes: int = 1, prefer: str = "", scale: float = 1) -> SliceSpec:
        """Return a slice that works on so many bytes, on either engine."""
        pair = self.pair
        choices = (EngineChoice(models=(pair.far,)), EngineChoice(models=(pair.near,)))
        return SliceSpec(
            "s",
            engines={"w": EngineRole(choices)},
            constraints=Constraints(prefer=prefer),
            data=(Data("n0/nvme0", int(size), "w", lanes=lanes),),
            work={"w": Work(pair.work, pair.amount * scale)},
        )

    def flip(self, gbps: float, *, lanes: int = 1, prefer: str = "") -> float:
        """Return from how many bytes on the planner computes beside the data; 0 = always."""
        pool = self.pool(gbps)

        def moved(size: float) -> bool:
            found = plan(pool, self.spec(size, lanes=lanes, prefer=prefer))
            assert isinstance(found, Decision), found
            return found.engines["w"] == ("n1/engine0",)

        low, high = 1.0, 1e6
        if not moved(low):
            return 0.0
        while moved(high):
            low, high = high, high * 16
            assert high < BYTES_MAX, "moving is always better"
        while high / low - 1 > LEAST:
            middle = (low * high) ** 0.5
            low, high = (middle, high) if moved(middle) else (low, middle)
        return high

    def even_seconds(self, gbps: float, lanes: int = 1) -> float:
        """Return for how many bytes both ways take equally long, by hand."""
        saved = self.near_seconds - self.far_seconds - self.rules.circuit_seconds
        return max(saved, 0.0) * lanes * gbps * 1e9 / 8

    def even_joules(self, gbps: float) -> float:
        """Return for how many bytes both ways draw equally much, by hand; 0 = moving never pays.

        Beside the data the disk idles while the small engine works. Otherwise disk and large engine
        idle while circuits are set up; then the disk works; then the large engine does.
        """
        near, far, disk = (self.watts[n] for n in (self.pair.near, self.pair.far, DISK))
        stay = (near.busy + disk.idle) * self.near_seconds
        go = (far.busy + disk.idle) * self.far_seconds
        go += (far.idle + disk.idle) * self.rules.circuit_seconds
        return max(stay - go, 0.0) / (far.idle + disk.busy) * gbps * 1e9 / 8


def measured() -> tuple[PlannerRules, dict[str, Watts]]:
    """Return measured speeds, and published watts by model."""
    models = {name for pair in PAIRS for name in (pair.near, pair.far)}
    table = str(TRACES / "engine_throughput_mlperf.csv")
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        same = {name: name for name in sorted(models)}
        json.dump({"speeds_from": {"file": table, "models": same}}, file)
        file.flush()
        rules = load_planner(file.name, weights=())
    known = json.loads((TRACES / "accelerators.json").read_text())["engines"]
    watts = {
        engine["model"]: Watts(0, engine["idle_w"], engine["tdp_w"])
        for engine in known
        if engine["model"] in models | {DISK}
    }
    return rules, watts


def mixed(benches: list[Bench], slices: int, seed: int) -> dict[str, float]:
    """Return the mean seconds of random slices by what is always done, and by weighing."""
    chance = random.Random(seed)
    totals: dict[str, list[float]] = {"weighed": [], "beside": [], "moved": []}
    pools = {(b.pair.name, rate): b.pool(rate) for b in benches for rate in RATES}
    for _ in range(slices):
        bench, rate = chance.choice(benches), chance.choice(RATES)
        pool = pools[bench.pair.name, rate]
        scale = 10 ** chance.uniform(-3, 0)
        asked = bench.spec(10 ** chance.uniform(8, 13), scale=scale)
        both = asked.engines["w"].choices
        for word, choices in (("weighed", both), ("moved", both[:1]), ("beside", both[1:])):
            spec = replace(asked, engines={"w": EngineRole(choices)})
            found = plan(pool, spec)
            assert isinstance(found, Decision), found
            costs = costs_of(pool.view, spec, "w", found.engines["w"], found.circuits, {})
            totals[word].append(costs.seconds)
    return {word: statistics.mean(seconds) for word, seconds in totals.items()}


def planning_seconds(bench: Bench, rounds: int) -> tuple[float, float]:
    """Return the least time of a plan that weighs, and of one of the same engines that does not."""
    pool = bench.pool(100.0)
    asked = bench.spec(1e9)
    plain = replace(asked, data=(), work={})
    found: list[list[float]] = [[], []]
    for _ in range(rounds):
        for times, spec in zip(found, (asked, plain), strict=True):
            before = time.perf_counter()
            plan(pool, spec)
            times.append(time.perf_counter() - before)
    return min(found[0]), min(found[1])


def main() -> None:
    """Measure and print."""
    chosen = options(__doc__ or "")
    rules, watts = measured()
    benches = [Bench(pair, rules, watts) for pair in PAIRS]
    report = Report("How much data is too much to move")
    flips: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    for bench in benches:
        for rate in RATES:
            flip, even = bench.flip(rate, prefer="fastest"), bench.even_seconds(rate)
            report.add(
                f"flip_{bench.pair.name}_{rate:g}gbps", flip / 1e12, "TB", baseline=even / 1e12
            )
            flips.setdefault((bench.pair.name, "seconds"), []).append((rate, flip, even))
            flip, even = bench.flip(rate, prefer="frugal"), bench.even_joules(rate)
            flips.setdefault((bench.pair.name, "joules"), []).append((rate, flip, even))
        rate, flip, even = flips[bench.pair.name, "joules"][3]
        report.add(
            f"flip_{bench.pair.name}_frugal_{rate:g}gbps",
            flip / 1e12, "TB", baseline=even / 1e12 or None,
        )  # fmt: skip
        wide = bench.flip(100.0, lanes=4, prefer="fastest")
        even = bench.even_seconds(100.0, 4)
        report.add(f"flip_{bench.pair.name}_4x100gbps", wide / 1e12, "TB", baseline=even / 1e12)
    worst = max(
        abs(flip / even - 1) if even else float(flip != 0)
        for points in flips.values()
        for _, flip, even in points
    )
    report.add("flip_error_max", worst, "of 1", at_most=0.001)
    means = mixed(benches, 200 if chosen.quick else 2000, seed=1)
    best = min(means["beside"], means["moved"])
    report.add("mean_seconds_weighed", means["weighed"], "s", baseline=best, ratio_at_most=1.0)
    slow, quick = planning_seconds(benches[0], 200 if chosen.quick else 2000)
    report.add("plan_with_data_us", slow * 1e6, "us", baseline=quick * 1e6)
    report.print(as_json=chosen.json)
    if not chosen.json:
        for folder in (None, PICTURES):
            report.plot("affinity", lambda axes: draw(axes, benches, flips), folder=folder)
        report.save("affinity", always=means)


def draw(
    axes: Any,  # matplotlib has no types
    benches: list[Bench],
    flips: dict[tuple[str, str], list[tuple[float, float, float]]],
) -> None:
    """Draw where it flips, by data size and lane rate; lines are by hand, marks are the planner's."""
    for bench, colour in zip(benches, ("tab:blue", "tab:orange"), strict=True):
        pair = bench.pair
        for word, style, mark in (("seconds", "-", "o"), ("joules", "--", "s")):
            points = [p for p in flips[pair.name, word] if p[2]]
            if not points:
                continue
            label = f"{pair.amount:.0e} {pair.name}: {pair.short} or H100, by {word}"
            axes.plot(
                [p[0] for p in points], [p[2] / 1e12 for p in points], style, color=colour,
                label=label,
            )  # fmt: skip
            axes.plot([p[0] for p in points], [p[1] / 1e12 for p in points], mark, color=colour)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(RATES, [f"{rate:g}" for rate in RATES])
    axes.set_xlabel("Gb/s of the lane on the way")
    axes.set_ylabel("TB of data")
    axes.text(0.04, 0.93, "compute beside the data", transform=axes.transAxes)
    axes.text(0.66, 0.32, "move it to the H100", transform=axes.transAxes)
    axes.legend(loc="lower right", fontsize=8)


if __name__ == "__main__":
    main()
