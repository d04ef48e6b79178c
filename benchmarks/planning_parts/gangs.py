"""What does it cost to plan and apply a gang with its circuits, on cells of a thousand to a million?

A cell is filled to 80 % with gangs of 1, 2, 4 and 8 by the planner itself. Then, turn after turn, a
random old gang of 8 goes, and a new one in a ring of 8 circuits is planned and applied: `plan` folds
into the pool what went and came since the last time, and `assume` writes the plan into the view. So
no plan sees the same cell twice. What the release itself takes is not counted: it is another's.

Cells of different sizes take turns, round by round, so that a busy machine slows all of them alike;
a figure is the median of the rounds' medians.
"""

import gc
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Final

from harness import Report, interleaved

from flowos.documents.presets import preset
from flowos.model.placement import Decision, Placement
from flowos.model.slice import CircuitWish, Constraints, EngineChoice, EngineRole, Shape, SliceSpec
from flowos.model.view import CellView
from flowos.planning.engines.pool import Pool
from flowos.planning.place import plan
from flowos.runtime.processes import GARBAGE_CHECK_EVERY
from planning_parts.rivals import Arrays, Naive

ENGINES: Final = {"1k": 1_000, "10k": 10_000, "100k": 100_000, "1m": 1_000_000}
GOALS_US: Final = {"1k": 40.0, "10k": 45.0, "100k": 60.0, "1m": 90.0}
GROWTH_MAX: Final = 2.0  # from 1k to 100k
LARGE_GOAL_US: Final = 1000.0
FULL: Final = 0.8
GANG: Final = 8
LARGE: Final = 64
MIX: Final = (1, 2, 4, 8, 8, 8)  # four engines of five are in gangs of eight
WARM_UP: Final = 100
SCANS: Final = {
    "1k": 200,
    "10k": 100,
    "100k": 20,
}  # a rival's turns; a graph of a million is left out


def gang(count: int, *, spread: str = "pack") -> SliceSpec:
    """Return a request for some GPUs in a ring."""
    return SliceSpec(
        f"gang{count}",
        engines={"w": EngineRole((EngineChoice("gpu", count=count),))},
        circuits=(CircuitWish(Shape.RING, ("w",)),),
        constraints=Constraints(spread=spread),
    )


def joined_on_leaves() -> SliceSpec:
    """Return a request for 64 GPUs in a ring, eight on one leaf each, and there all to all.

    All to all of 64 would take 63 lanes at each engine, which has eight. What eight lanes do carry
    is all to all on each leaf (seven) and a ring through all of them (the eighth): 512 circuits.
    """
    roles = [f"leaf{n}" for n in range(8)]
    return SliceSpec(
        "gang64",
        engines={role: EngineRole((EngineChoice("gpu", count=GANG),)) for role in roles},
        together=dict.fromkeys(roles, "switch"),
        circuits=(
            CircuitWish(Shape.RING, tuple(roles)),
            *[CircuitWish(Shape.ALL, (role,)) for role in roles],
        ),
    )


class Filled:
    """A fat tree with gangs on it, in the planner's view and pool.

    Attributes:
        gangs: The names of those that may go.
        built_seconds: How long the cell took to make, and to be taken in by the pool.
        mib: What the process grew by, cell, view and pool together.
    """

    def __init__(self, engines: int, seed: int = 0) -> None:
        """Build it, empty."""
        gc.collect()
        before, began = resident_mib(), time.perf_counter()
        self.view = CellView(cell=preset(f"fat-tree:{engines}"))
        made = time.perf_counter()
        self.pool = Pool(self.view)
        self.built_seconds = made - began, time.perf_counter() - made
        self.mib = resident_mib() - before
        self.gangs: list[str] = []
        self._dice = Random(seed)
        self._count = 0

    def fill(self) -> None:
        """Place gangs of all sizes until as much as is to be full is held."""
        specs = {size: gang(size) for size in MIX}
        left = int(FULL * len(self.view.cell.engines))
        while left >= GANG:
            size = self._dice.choice(MIX)
            name = self.placed(specs[size])
            if size == GANG:
                self.gangs.append(name)
            left -= size

    def leave_on_leaves(self, count: int) -> None:
        """Hold all engines of each leaf but so many, here and there."""
        for numbers in self.pool.leaf_sites.values():
            sites = [site for number in numbers if (site := self.pool.sites[number])]
            units = [unit for site in sites for unit in site.units]
            held = self._dice.sample(units, max(0, len(units) - count))
            self.hold(Decision({}, dict.fromkeys(held, ())))

    def placed(self, spec: SliceSpec) -> str:
        """Plan a gang, hold what was planned, and return the name that holds it."""
        found = plan(self.pool, spec)
        assert isinstance(found, Decision), found
        return self.hold(found)

    def hold(self, decision: Decision) -> str:
        """Hold what was decided."""
        self._count += 1
        name = f"default/g{self._count}"
        placement = Placement(
            self._count, name, held=decision.units, engines=decision.engines,
            circuits=decision.circuits,
        )  # fmt: skip
        self.view.assume(name, placement)
        return name

    def release(self) -> None:
        """Let a random gang go."""
        index = self._dice.randrange(len(self.gangs))
        self.gangs[index], self.gangs[-1] = self.gangs[-1], self.gangs[index]
        self.view.retract(self.gangs.pop())

    def turn_us(self, spec: SliceSpec, count: int) -> float:
        """Return what it takes to plan and apply a gang after another went: the median of some.

        Taking in that the other went is no part of it: `fold_us` says what that takes.
        """
        samples = []
        for _ in range(count):
            self.release()
            self.pool.fold()
            before = time.perf_counter_ns()
            name = self.placed(spec)
            self.pool.fold()
            samples.append((time.perf_counter_ns() - before) / 1000)
            self.gangs.append(name)
        return statistics.median(samples)

    def fold_us(self, count: int) -> float:
        """Return what the pool takes to take in one gang that another scheduler placed."""
        samples = []
        for _ in range(count):
            name = self._dice.choice(self.gangs)
            placement = self.view.now(name)
            assert placement is not None, "gangs are held"
            self.view.retract(name)
            self.pool.fold()
            self.view.assume(name, placement)
            before = time.perf_counter_ns()
            self.pool.fold()
            samples.append((time.perf_counter_ns() - before) / 1000)
        return statistics.median(samples)


def resident_mib() -> float:
    """Return how much memory this process has."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 2**20


@contextmanager
def collecting_as_a_scheduler() -> Iterator[None]:
    """Let the garbage collector look at as little, and as seldom, as in a scheduler's process."""
    thresholds = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_CHECK_EVERY)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()


def medians_us(cells: Sequence[Filled], spec: SliceSpec, *, plans: int, rounds: int) -> list[float]:
    """Return what a turn takes on each cell; cells take turns."""

    def round_on(cell: Filled) -> Callable[[], float]:
        return lambda: cell.turn_us(spec, plans // rounds)

    for cell in cells:
        # Until gangs have been on all nodes that were free: their ports are then known.
        cell.turn_us(spec, WARM_UP + len(cell.view.cell.nodes) // 3)
    return interleaved([round_on(cell) for cell in cells], rounds)


def measure(report: Report, quick: bool) -> None:
    """Add the figures of gangs; a cell of a million takes half a minute to make: not when quick."""
    cells = {size: Filled(count) for size, count in ENGINES.items() if not (quick and size == "1m")}
    for cell in cells.values():
        cell.fill()
    plans, rounds = (2_000, 5) if quick else (10_000, 10)
    with collecting_as_a_scheduler():
        _small(report, cells, plans=plans, rounds=rounds)
        spread = gang(GANG, spread="rack")  # a rack has one leaf: every circuit leaves its own
        (took,) = medians_us([cells["10k"]], spread, plans=plans // 5, rounds=rounds)
        report.add("gang8_in_8_racks_10k_us", took, "us")
        _large(report, plans=100 if quick else 400)


def _small(report: Report, cells: Mapping[str, Filled], *, plans: int, rounds: int) -> None:
    spec = gang(GANG)
    found = medians_us(list(cells.values()), spec, plans=plans, rounds=rounds)
    took = dict(zip(cells, found, strict=True))
    for size, cell in cells.items():
        baseline = None
        if size in SCANS:
            naive = Naive(cell.view.cell, GANG)
            naive.fill(FULL)
            baseline = naive.turn_us(SCANS[size])
        report.add(
            f"gang8_python_{size}_us", took[size], "us", baseline=baseline, at_most=GOALS_US[size]
        )
    report.add("gang8_growth_1k_100k", took["100k"] / took["1k"], "x", at_most=GROWTH_MAX)
    for size in SCANS:
        arrays = Arrays(cells[size].view.cell, GANG)
        arrays.fill(FULL)
        report.add(f"gang8_numpy_networkit_{size}_us", arrays.turn_us(10 * SCANS[size]), "us")
    for size, cell in cells.items():
        report.add(f"gang8_fold_{size}_us", cell.fold_us(500), "us")
        made, taken_in = cell.built_seconds
        report.add(f"cell_{size}_made_s", made, "s")
        report.add(f"cell_{size}_taken_in_s", taken_in, "s")
        report.add(f"cell_{size}_mib", cell.mib, "MiB")


def _large(report: Report, *, plans: int) -> None:
    took = []
    for name, spec in (("ring", gang(LARGE)), ("ring_and_all", joined_on_leaves())):
        # Each leaf has room for eight engines; two of the four gangs that fit are there.
        cell = Filled(ENGINES["1k"], seed=1)
        cell.leave_on_leaves(GANG)
        cell.gangs = [cell.placed(spec) for _ in range(2)]
        cell.turn_us(spec, 10)
        took.append(cell.turn_us(spec, plans))
        report.add(f"gang64_{name}_us", took[-1], "us")
    report.add("gang64_us", max(took), "us", at_most=LARGE_GOAL_US)
