"""What is measured, and how is one run of it made? A case names all that a run needs."""

import csv
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from flowos.documents.cell_csv import read_csv
from flowos.documents.presets import file_or_preset
from flowos.model.cell import Cell
from flowos.model.slice import CircuitWish, EngineChoice, EngineRole, HostRole, Shape
from flowos.planning.policy import Order, Policy, Waits
from flowos.simulation.full.measured import FullFigures
from flowos.simulation.full.run import run
from flowos.simulation.full.setup import Arrival, Check, Looks, Queues, Setup, Team
from flowos.simulation.full.workload import HEAVY, Mix, at_load, at_rate, drawn, hurried, of_trace
from flowos.simulation.jobs import read_jobs
from flowos.simulation.light.loads import Draw
from flowos.simulation.light.schedulers import Pace
from flowos_schedulers.batch import Batch
from flowos_store import MemoryStore

TRACES = Path(__file__).resolve().parents[3] / "shared" / "traces"
GANG_MAX = 8  # of each side of a service
CN_PART = 8  # the presets have hosts beside GPUs, and no CPU nodes: so much less of each
GIB = 1 << 30

MIXES = {
    "gangs": Mix(engines_max=8),
    "node": Mix(engines_max=8, together=True),
    "all": Mix(engines_max=8, ring=0.5, shares=0.3, hosts=0.5),
    "wide": Mix(engines_max=12, ring=0.8, shares=0.2, hosts=0.5),
    "rings": Mix(engines_max=8, ring=1.0),
    "heavy": HEAVY,
}


class Shortest(Policy):
    """The shortest first, by what slices say; none is ever taken off again."""

    name = "shortest"

    def order(self, waits: Waits) -> Order:
        """Return how long it runs, and then who came first."""
        return (waits.spec.run.for_seconds, waits.created)


POLICIES: dict[str, Callable[[], Policy]] = {"batch": Batch, "shortest": Shortest}


@dataclass(frozen=True, slots=True)
class Case:
    """One run.

    Attributes:
        name: In tables and results.
        group: Which question it belongs to.
        load: A mix, or a trace.
        slices: How many of them, the first of a trace.
        per_s: How many come in a virtual second, on average; 0 = as the trace has it.
        busy: The share of the cell's engines that they ask for.
        faster: A trace in a time that goes so many times as fast, its load as it is; 0 = see above.
        to_the_end: Until the last has ended; else until the last has come.
    """

    name: str
    group: str
    load: str
    slices: int
    per_s: float
    busy: float
    cell: str = "fat-tree:1000"
    schedulers: int = 8
    pace: Pace = Pace(0.0, 0.0)
    queues: Queues = "each"
    looks: Looks = "live"
    homes: bool = True
    check: Check = "fine"
    round_trip_s: float = 0.002
    news_s: float = 0.001
    policy: str = "batch"
    faster: float = 0.0
    to_the_end: bool = False
    seed: int = 1


def measure(case: Case) -> tuple[FullFigures, float]:
    """Run a case; return its figures and the CPU seconds that it took."""
    arrivals = list(slices_of(case))
    team = Team("batch", POLICIES[case.policy](), case.schedulers, case.pace, case.queues)
    setup = Setup(
        cell_of(case.cell),
        (team,),
        looks=case.looks,
        homes=case.homes,
        check=case.check,
        round_trip_s=case.round_trip_s,
        news_s=case.news_s,
        seed=case.seed,
        seconds=None if case.to_the_end else max(arrival.at_s for arrival in arrivals),
    )
    before = time.process_time()
    found = run(setup, arrivals, new_store=MemoryStore)
    return found, time.process_time() - before


def slices_of(case: Case) -> Sequence[Arrival]:
    """Return what comes in a case."""
    cell = cell_of(case.cell)
    engines = sum(engine.kind == "gpu" for engine in cell.engines.values())
    if case.load in MIXES:
        found = drawn(MIXES[case.load], case.slices, 1.0, case.seed)
    elif case.load == "prism":
        found = gangs(case.slices, case.seed)
    else:
        found = _trace(case.load, cell)
        # Each so many-th, from the beginning of the trace to its end.
        found = found[:: max(1, len(found) // case.slices)][: case.slices]
    if case.faster:
        return hurried(found, case.faster)
    found = at_load(found, engines, case.busy)
    return at_rate(found, case.per_s) if case.per_s else found


@cache
def cell_of(text: str) -> Cell:
    """Return a preset, or each so many-th node of a trace's cell: "openb.cell.csv:8"."""
    name, _, every = text.partition(":")
    if not name.endswith(".csv"):
        return file_or_preset(text)
    header, *rows = (TRACES / name).read_text().splitlines()
    return read_csv("\n".join([header, *rows[:: int(every or 1)]]), name)


def _trace(name: str, cell: Cell) -> list[Arrival]:
    largest = max(map(len, cell.engines_of.values()))
    jobs = [job for job in read_jobs(TRACES / name) if job.engines <= len(cell.engines)]
    fits = name.startswith("openb") and cell_has_models(cell)
    found = of_trace(jobs, node_engines_max=largest, any_model=not fits)
    if fits:
        return _evenly(found)
    first = found[0].at_s if found else 0.0
    return [arrival._replace(at_s=arrival.at_s - first) for arrival in found]


def _evenly(found: list[Arrival]) -> list[Arrival]:
    """Return the same jobs, one after the other, none longer than a tenth of the time of all.

    Most of this trace comes in the last tenth of its time and stays beyond its end, so as it is it
    has no steady state.
    """
    longest = sorted(arrival.runs_s for arrival in found)[len(found) // 2]
    gap = 10 * longest / len(found)
    return [
        Arrival(number * gap, arrival.spec, min(arrival.runs_s, longest))
        for number, arrival in enumerate(found)
    ]


def gangs(count: int, seed: int) -> list[Arrival]:
    """Return services of GPU-disaggregated inference, as published: GPU nodes, and CPU nodes.

    Their sizes are the trace's, with at most so many of each side that the cell has room for
    several, and an eighth of the CPU side's CPU and memory. That the GPU side is joined in a ring
    is ours, as no pairing is published.
    """
    with (TRACES / "prism2025.gangs.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    shapes = drawn(Mix(runs_s=Draw("log-normal", 60.0, 1.5)), count, 1.0, seed)
    found = []
    for number, arrival in enumerate(shapes):
        row = rows[number % len(rows)]
        heads = min(GANG_MAX, max(1, int(row["hn_peak"])))
        tails = min(GANG_MAX, max(1, int(row["cn_peak"])))
        ring = (CircuitWish(Shape.RING, ("hn",)),) if heads > 1 else ()
        spec = replace(
            arrival.spec,
            engines={"hn": EngineRole((EngineChoice("gpu", count=heads),))},
            hosts={
                "hn": HostRole(int(row["hn_cpu"]) * 1000, int(row["hn_mem_gib"]) * GIB),
                "cn": HostRole(
                    int(row["cn_cpu"]) * 1000 // CN_PART,
                    int(row["cn_mem_gib"]) * GIB // CN_PART,
                    tails,
                ),
            },
            circuits=ring,
        )
        found.append(arrival._replace(spec=spec))
    return found


def cell_has_models(cell: Cell) -> bool:
    """Whether its engines are of several models, as a trace's own cell has them."""
    return len({engine.model for engine in cell.engines.values()}) > 1
