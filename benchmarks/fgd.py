"""A real cluster filled with its real jobs: how many of its GPUs are allocated when none departs?

The fill-up of Weng et al., "Beware of Fragmentation", USENIX ATC 2023, with the planner alone: the
code of `flowos replay --fill-up` without its store. Servers are fixed as published: the GPU nodes,
1,213 of the trace's cell. Beside it, of the same arrivals, the authors' rule (the baseline, for any
mix) and a random fit, and what the authors published for theirs. Then the same arrivals with engines
joined by circuits: a job that fits no node takes engines wherever they are and a host wherever
there is one.
"""

import argparse
import csv
import json
import statistics
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from fill_up import TRACES, random_fit
from gradient_fit import Fitted, gradient_fit
from harness import Report

from flowos.documents.presets import file_or_preset
from flowos.model.cell import Cell
from flowos.model.errors import FlowosError, SpecError
from flowos.model.placement import Decision, Unplaceable
from flowos.model.slice import HostRole, SliceSpec
from flowos.planning.engines.pool import Pool
from flowos.simulation.jobs import read_jobs
from flowos.simulation.replay import accelerators, fill_up_alone, fill_up_jobs
from flowos_schedulers.batch import Batch

LOAD = 1.3
QUICK_SEEDS = 2


class Joined(Batch):
    """Batch, but what fits no node is put together over circuits.

    Attributes:
        circuits: One for each engine that is not on its host's node.
        joined: How many jobs needed any.
    """

    def __init__(self) -> None:
        self.circuits = 0
        self.joined = 0

    def plan(
        self, pool: Pool, spec: SliceSpec, *, seed: int, avoid: frozenset[str]
    ) -> Decision | Unplaceable:
        """Try one node first: circuits are not free."""
        found = super().plan(pool, spec, seed=seed, avoid=avoid)
        beside = spec.hosts.get("workers")
        if isinstance(found, Decision) or beside is None:
            return found
        (role,) = spec.engines.values()
        count = role.choices[0].count
        host = HostRole(beside.cpu_millis * count, beside.memory_bytes * count, 1)
        apart = replace(spec, hosts={"host": host}, together={})
        joined = super().plan(pool, apart, seed=seed, avoid=avoid)
        if isinstance(joined, Decision):
            (home,) = joined.hosts["host"]
            away = [e for e in joined.engines["workers"] if e.partition("/")[0] != home]
            self.circuits += len(away)
            self.joined += bool(away)
        return joined


class Filled(NamedTuple):
    """What one seed came to, as shares of all engines: 0..1.

    Attributes:
        at: Arrived load -> allocated then.
        gradient: By fragmentation gradient descent as published; None where it says nothing.
        joined: Allocated at the end with engines joined by circuits.
        jobs_joined: Jobs that needed circuits, and that they were placed.
    """

    at: dict[str, float]
    allocated: float
    random: float
    gradient: Fitted | None
    joined: float
    circuits: int
    jobs_joined: int
    seconds: float


def servers(path: str, *, every: bool) -> Cell:
    """Return the cell, without the nodes that have no engines unless all are asked for."""
    cell = file_or_preset(path)
    if not every:
        for name in [name for name in cell.nodes if not cell.engines_of.get(name)]:
            cell.remove("node", name)
    return cell


def fill(cell_path: str, jobs_path: str, seed: int, every: bool) -> Filled:
    """Fill a cell up with one seed, in all ways."""
    jobs = read_jobs(Path(jobs_path))
    alone = fill_up_alone(servers(cell_path, every=every), Batch(), jobs, load=LOAD, seed=seed)
    cell = servers(cell_path, every=every)
    arrivals = fill_up_jobs(jobs, accelerators(cell, jobs), LOAD, seed)
    chance = random_fit(cell, arrivals, seed)
    gradient = gradient_fit(cell, jobs, arrivals)
    policy = Joined()
    joined = fill_up_alone(servers(cell_path, every=every), policy, jobs, load=LOAD, seed=seed)
    return Filled(
        alone.allocated_at,
        alone.allocated,
        chance,
        gradient,
        joined.allocated,
        policy.circuits,
        policy.joined,
        alone.wall_seconds,
    )


def check(cell_path: str, jobs_path: str, *, every: bool) -> None:
    """Read both files once, before several processes do.

    Raises:
        SpecError: One cannot be read, or nothing of the one fits the other.
    """
    cell, jobs = servers(cell_path, every=every), read_jobs(Path(jobs_path))
    if not any(job.engines for job in jobs):
        hint = "a fill-up needs rows with num_engines from 1 up"
        raise SpecError("asks for no engines", where=jobs_path, hint=hint)
    if not accelerators(cell, jobs):
        kinds = " or ".join(sorted({job.kind for job in jobs if job.engines}))
        hint = f"choose a cell with such engines, or other jobs than those of {jobs_path}"
        raise SpecError(f"has no {kinds} engines", where=cell_path, hint=hint)


def published(mix: str) -> dict[str, dict[int, float]]:
    """Return policy -> arrived per cent -> allocated, 0..1, as its authors published it."""
    found: dict[str, dict[int, float]] = {}
    with (TRACES / "published_fgd.csv").open() as lines:
        for row in csv.DictReader(lines):
            if row["trace"] == mix:
                curve = found.setdefault(row["policy"], {})
                curve[int(row["arrived_pct"])] = float(row["alloc_pct"]) / 100
    return found


def report(mix: str, runs: Sequence[Filled], theirs: dict[str, dict[int, float]]) -> Report:
    """Return all figures of a mix, with the published ones beside them."""

    def known(policy: str, arrived: int) -> float | None:
        return theirs.get(policy, {}).get(arrived)

    gradients = [run.gradient for run in runs if run.gradient is not None]
    at_full = statistics.mean(g.at_full for g in gradients) if gradients else None
    at_last = statistics.mean(g.at_last for g in gradients) if gradients else None
    fgd = known("FGD", 130) or at_last
    least = 0.95 if mix == "openb_default" else None if fgd is None else fgd - 0.005
    figures = Report(f"{mix} filled to 130 % arrived, {len(runs)} seeds; baseline: FGD, same run")
    figures.add(
        "allocated_100", statistics.mean(run.at["1.0"] for run in runs), "", baseline=at_full
    )
    figures.add(
        "allocated_130", statistics.mean(run.allocated for run in runs), "",
        baseline=at_last, at_least=least,
    )  # fmt: skip
    figures.add("allocated_130_sd", statistics.pstdev(run.allocated for run in runs), "")
    for name, share in (
        ("published_fgd_100", known("FGD", 100)),
        ("published_fgd_130", known("FGD", 130)),
        ("published_best_fit_130", known("BestFit", 130)),
    ):
        if share is not None:
            figures.add(name, share, "")
    figures.add(
        "random_130", statistics.mean(run.random for run in runs), "",
        baseline=known("Random", 130),
    )  # fmt: skip
    figures.add("joined_130", statistics.mean(run.joined for run in runs), "")
    closed = statistics.mean(run.joined - run.allocated for run in runs)
    figures.add("joined_points", 100 * closed, "points")
    figures.add("joined_circuits", statistics.mean(run.circuits for run in runs), "")
    figures.add("joined_jobs", statistics.mean(run.jobs_joined for run in runs), "")
    figures.add("fill_seconds", statistics.median(run.seconds for run in runs), "s")
    return figures


def draw(axes: Any, runs: Sequence[Filled], theirs: dict[str, dict[int, float]]) -> None:
    """Draw the allocated share over the arrived load, beside the published curves."""
    for policy, curve in theirs.items():
        axes.plot(
            list(curve), [100 * share for share in curve.values()],
            linestyle=":", linewidth=1, label=f"{policy}, published",
        )  # fmt: skip
    loads = list(runs[0].at)
    shares = [100 * statistics.mean(run.at[load] for run in runs) for load in loads]
    axes.plot([100 * float(load) for load in loads], shares, "o-", label="Flow OS")
    joined = 100 * statistics.mean(run.joined for run in runs)
    axes.axhline(joined, color="grey", linewidth=1, label="Flow OS, joined by circuits, at 130 %")
    axes.set_xlabel("arrived load, % of GPUs")
    axes.set_ylabel("allocated, % of GPUs")
    axes.set_ylim(84, 100.5)
    axes.legend(fontsize=7)


def main() -> int:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cell", default=str(TRACES / "openb.cell.csv"), help="a cell file")
    parser.add_argument("--jobs", default=str(TRACES / "openb_default.jobs.csv.gz"))
    parser.add_argument("--seeds", type=int, default=10, help="how many, from 0 (default 10)")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--every-node", action="store_true", help="with those without engines")
    parser.add_argument("--quick", action="store_true", help="under 50 s: two seeds")
    parser.add_argument("--json", action="store_true", help="print figures as JSON, no plots")
    chosen = parser.parse_args()
    seeds = range(min(chosen.seeds, QUICK_SEEDS) if chosen.quick else chosen.seeds)
    if not seeds:
        parser.error("--seeds is a number from 1")
    try:
        check(chosen.cell, chosen.jobs, every=chosen.every_node)
    except FlowosError as error:
        parser.error(str(error))
    with ProcessPoolExecutor(chosen.processes) as workers:
        runs = list(
            workers.map(
                fill,
                [chosen.cell] * len(seeds),
                [chosen.jobs] * len(seeds),
                seeds,
                [chosen.every_node] * len(seeds),
            )
        )
    mix = Path(chosen.jobs).name.partition(".")[0]
    ours = Path(chosen.cell).name == "openb.cell.csv"
    theirs = published(mix) if ours else {}
    figures = report(mix, runs, theirs)
    if chosen.json:
        print(json.dumps({"figures": figures.shown()}))
        return 0
    figures.print(as_json=False)
    name = f"fgd_{mix}" + ("_every_node" if chosen.every_node else "")
    figures.plot(name, lambda axes: draw(axes, runs, theirs))
    if not chosen.quick:
        figures.save(name, seeds=len(runs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
