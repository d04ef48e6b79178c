"""A real cluster filled with its real jobs: how much is allocated, and how fast, through etcd.

The FGD fill-up (Weng et al., USENIX ATC 2023) on openb: 1,523 nodes, 6,212 GPUs, 130 % arrived.
Baselines of the same run: a random fit of the same jobs on the same cell, and the same planner with
no store behind it.
"""

import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from harness import Report as Figures
from harness import options

from flowos.documents.presets import file_or_preset
from flowos.model.cell import WHOLE_MILLIS, Cell
from flowos.model.placement import Placement, Unplaceable
from flowos.model.slice import Run
from flowos.model.view import CellView
from flowos.planning.engines.pool import Pool
from flowos.planning.place import plan
from flowos.runtime.client import CellClient
from flowos.runtime.clock import SystemClock
from flowos.runtime.loading import load_cell_into
from flowos.simulation.jobs import Job, read_jobs
from flowos.simulation.replay import Result, accelerators, fill_up, fill_up_jobs
from flowos_schedulers.batch import Batch
from flowos_store import EmbeddedEtcd, EtcdStore

TRACES = Path(__file__).resolve().parent.parent.parent / "shared" / "traces"
LOAD = 1.3


def random_fit(cell: Cell, arrivals: list[Job], seed: int) -> float:
    """Return the allocated share when each job goes to a random node where it fits."""
    rng = random.Random(seed)
    nodes = list(cell.nodes)
    cpu = {name: node.cpu_millis for name, node in cell.nodes.items()}
    memory = {name: node.memory_bytes for name, node in cell.nodes.items()}
    free = {name: [WHOLE_MILLIS] * len(cell.engines_of.get(name, ())) for name in nodes}
    models = {n: {cell.engines[e].model for e in cell.engines_of.get(n, ())} for n in nodes}
    allocated = 0.0
    for job in arrivals:
        rng.shuffle(nodes)
        for name in nodes:
            if cpu[name] < job.cpu_millis or memory[name] < job.memory_bytes:
                continue
            if job.models and not models[name] & set(job.models):
                continue
            fit = [i for i, millis in enumerate(free[name]) if millis >= job.share_millis]
            if len(fit) < job.engines:
                continue
            for i in rng.sample(fit, job.engines):
                free[name][i] -= job.share_millis
            cpu[name] -= job.cpu_millis
            memory[name] -= job.memory_bytes
            allocated += job.engine_amount
            break
    return allocated / accelerators(cell, arrivals)


def planner_alone(cell: Cell, arrivals: list[Job]) -> float:
    """Return slices a second of the same planner with no store behind it."""
    view = CellView(cell=cell)
    pool = Pool(view)
    placed = 0
    before = time.perf_counter()
    for number, job in enumerate(arrivals):
        spec = job.spec(f"j{number}", "default", Run())
        decision = plan(pool, spec, slice_name=spec.name)
        if not isinstance(decision, Unplaceable):
            view.assume(spec.id, Placement(0, f"a{number}", held=decision.units))
            placed += 1
    return placed / (time.perf_counter() - before)


def through_etcd(cell: Cell, jobs: list[Job], seed: int) -> Result:
    """Fill the cell up through a fresh etcd, with fsync."""
    with tempfile.TemporaryDirectory() as folder, EmbeddedEtcd(Path(folder) / "etcd") as etcd:
        store = EtcdStore([etcd.endpoint])
        load_cell_into(store, cell)
        client = CellClient(store, SystemClock())
        result = fill_up(client, Batch(), jobs, load=LOAD, seed=seed, progress=lambda *_state: None)
        client.close()
    return result


def main() -> None:
    """Measure and print."""
    chosen = options(__doc__ or "")
    source = str(TRACES / "openb.cell.csv")
    jobs = read_jobs(TRACES / "openb_default.jobs.csv.gz")
    seeds = [1] if chosen.quick else [1, 2, 3]
    results, randoms, alone = [], [], []
    for seed in seeds:
        cell = file_or_preset(source)
        arrivals = fill_up_jobs(jobs, accelerators(cell, jobs), LOAD, seed)
        randoms.append(random_fit(cell, arrivals, seed))
        alone.append(planner_alone(file_or_preset(source), arrivals))
        results.append(through_etcd(cell, jobs, seed))
    figures = Figures("openb filled to 130 % arrived")
    figures.add(
        "allocated", 100 * statistics.mean(r.allocated for r in results), "%",
        baseline=100 * statistics.mean(randoms), at_least=92,
    )  # fmt: skip
    rates = [r.placed / r.wall_seconds for r in results]
    figures.add("slices_per_s", statistics.median(rates), "1/s", baseline=statistics.median(alone))
    figures.add("decision_p50", results[0].decision_ms["p50"], "ms")
    figures.print(as_json=chosen.json)
    if not chosen.json:
        figures.plot("fill_up", lambda axes: curve(axes, results, statistics.mean(randoms)))


def curve(axes: Any, results: list[Result], random_share: float) -> None:
    """Draw the allocated share over the arrived load."""
    for result in results:
        loads = [100 * float(load) for load in result.allocated_at]
        axes.plot(loads, [100 * share for share in result.allocated_at.values()], "o-")
    axes.axhline(100 * random_share, linestyle=":", color="grey", label="random fit at 130 %")
    axes.set_xlabel("arrived load, % of GPUs")
    axes.set_ylabel("allocated, % of GPUs")
    axes.legend()


if __name__ == "__main__":
    main()
