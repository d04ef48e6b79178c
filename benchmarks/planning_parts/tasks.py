"""How good, and how fast, are task mapping and schedules in time, beside exact solvers and plain HEFT?

An exact solver's ten seconds for each case would not do in a quick run. So a full run keeps what the
solver found in `benchmarks/results/tasks_exact.json`, by case; a quick run compares with that, and
gives the solver one second for a case that is not there. Without the solver (extra `bench`), cases
that are not there have no baseline.
"""

import json
import statistics
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple

from harness import Report, seconds

from flowos.planning.tasks.mapping import Matrix, hop_bytes, place_tasks
from flowos.planning.tasks.multiplex import Costs, Flow, Schedule, Seat, Task, multiplex, numbered
from flowos.planning.tasks.turns import inserted

RECORDED: Final = Path("benchmarks/results/tasks_exact.json")
SOLVER_SECONDS: Final = 10.0
SOLVER_SECONDS_QUICK: Final = 1.0
MILLIS: Final = 1000
SETUP_SECONDS: Final = 3.0
PROGRAMS: Final = 10  # of each shape and size


# -- cases


def tree(count: int, on_leaf: int, leaves_in_pod: int) -> Matrix:
    """Return the links between the engines of a three-level tree."""

    def apart(a: int, b: int) -> int:
        if a == b:
            return 0
        if a // on_leaf == b // on_leaf:
            return 2
        return 4 if a // (on_leaf * leaves_in_pod) == b // (on_leaf * leaves_in_pod) else 6

    return [[apart(a, b) for b in range(count)] for a in range(count)]


def torus(wide: int, high: int) -> Matrix:
    """Return the links between the engines of a torus with one engine at each switch."""

    def around(a: int, b: int, size: int) -> int:
        return min(abs(a - b), size - abs(a - b))

    count = wide * high
    return [
        [
            around(a % wide, b % wide, wide) + around(a // wide, b // wide, high)
            for b in range(count)
        ]
        for a in range(count)
    ]


def traffic(count: int, partners: int, seed: int) -> dict[tuple[int, int], int]:
    """Return bytes between tasks that each talk to about so many others."""
    rng = Random(seed)
    return {
        (a, b): rng.randint(1, 20)
        for a in range(count)
        for b in range(a)
        if rng.random() * count < partners
    }


class Case(NamedTuple):
    """A mapping to be found, with a name to remember the solver's answer by."""

    name: str
    traffic: dict[tuple[int, int], int]
    distance: Matrix


MAPPED_16: Final = [
    *(Case(f"tree16-{seed}", traffic(16, 4, seed), tree(16, 4, 2)) for seed in range(3)),
    *(Case(f"torus16-{seed}", traffic(16, 4, seed), torus(4, 4)) for seed in range(3)),
]
MAPPED_32: Final = [
    Case("tree32-4", traffic(32, 4, 1), tree(32, 4, 4)),
    Case("tree32-12", traffic(32, 12, 2), tree(32, 4, 4)),
    Case("torus32-4", traffic(32, 4, 3), torus(8, 4)),
]


class Job(NamedTuple):
    """A program and the engines it may have."""

    tasks: list[Task]
    flows: list[Flow]
    seats: list[Seat]
    costs: Costs

    def plan(self) -> Schedule:
        """Return the planner's schedule."""
        found = multiplex(*self)
        assert isinstance(found, Schedule), found
        return found

    def blind_seconds(self) -> float:
        """Return what plain HEFT's schedule takes, whose choices count no loads."""
        return inserted(numbered(*self), blind=True).seconds


def program(count: int, seats: int, seed: int, *, deep: bool) -> Job:
    """Return tasks of a second to nine on FPGAs with six bitstreams, each 3 s to load.

    Deep = layers of twelve, each task fed by two of the layer before; else each is fed by one or
    two of all before.
    """
    rng = Random(seed)
    tasks = [
        Task(f"t{n}", "fpga", rng.randint(1500, 9000) / MILLIS, f"b{rng.randrange(6)}")
        for n in range(count)
    ]
    flows: list[Flow] = []
    wide = max(2, min(12, count // 5))
    for target in range(wide if deep else 1, count):
        layer = target // wide * wide
        before = range(layer - wide, layer) if deep else range(target)
        sources = rng.sample(before, min(len(before), 2 if deep else rng.choice((1, 2))))
        flows += [Flow(f"t{n}", (f"t{target}",), rng.randint(250, 750) * 10**6) for n in sources]
    engines = [
        Seat(f"n{n}/fpga0", "fpga", bitstream=f"b{n % 6}" if n % 2 else "") for n in range(seats)
    ]
    return Job(
        tasks, flows, engines, Costs(SETUP_SECONDS, circuit_seconds=0.05, lane_bytes_per_second=1e9)
    )


# -- exact answers


def solved_mapping(case: Case, limit: float) -> float:
    """Return the least bytes times hops that CP-SAT finds within a time limit."""
    from ortools.sat.python import cp_model

    model: Any = cp_model.CpModel()
    size = len(case.distance)
    at = [[model.new_bool_var("") for _ in range(size)] for _ in range(size)]
    for row in [*at, *zip(*at, strict=True)]:
        model.add_exactly_one(row)
    far = max(map(max, case.distance))
    terms = []
    for (one, other), amount in case.traffic.items():
        hops = model.new_int_var(1, far, "")
        for place in range(size):
            there = sum(d * x for d, x in zip(case.distance[place], at[other], strict=True))
            model.add(hops >= there).only_enforce_if(at[one][place])
        terms.append(amount * hops)
    model.minimize(sum(terms))
    return _answer(model, limit)


def solved_program(job: Job, limit: float) -> float:
    """Return the earliest end in seconds that CP-SAT finds within a time limit."""
    from ortools.sat.python import cp_model

    numbers = numbered(*job)
    model: Any = cp_model.CpModel()
    count, horizon = len(job.tasks), 10**6
    ms = [[round(x * MILLIS) for x in row] for row in numbers.run]
    load = [round(x * MILLIS) for x in numbers.load]
    starts = [model.new_int_var(0, horizon, "") for _ in range(count)]
    on = [[model.new_bool_var("") for _ in job.seats] for _ in range(count)]
    end = model.new_int_var(0, horizon, "")
    for task in range(count):
        model.add_exactly_one(on[task])
        model.add(end >= starts[task] + ms[task][0])
    for seat in range(len(job.seats)):
        arcs: list[tuple[int, int, Any]] = [(0, 0, model.new_bool_var(""))]
        for task in range(count):
            first = model.new_bool_var("")
            arcs += [(0, task + 1, first), (task + 1, 0, model.new_bool_var(""))]
            arcs.append((task + 1, task + 1, ~on[task][seat]))
            wanted = numbers.bitstream[task]
            wait = load[wanted] if wanted != numbers.loaded[seat] else 0
            model.add(starts[task] >= round(numbers.free[seat] * MILLIS) + wait).only_enforce_if(
                first
            )
            for after in range(count):
                if after != task:
                    follows = model.new_bool_var("")
                    arcs.append((task + 1, after + 1, follows))
                    to = numbers.bitstream[after]
                    gap = ms[task][seat] + (load[to] if to != wanted else 0)
                    model.add(starts[after] >= starts[task] + gap).only_enforce_if(follows)
        model.add_circuit(arcs)
    for task in range(count):
        for source, delay in numbers.inputs[task]:
            model.add(starts[task] >= starts[source] + ms[source][0])
            for seat in range(len(job.seats)):
                arrived = starts[source] + ms[source][0] + round(delay * MILLIS)
                model.add(starts[task] >= arrived).only_enforce_if(
                    on[task][seat], ~on[source][seat]
                )
    model.minimize(end)
    return _answer(model, limit) / MILLIS


def _answer(model: Any, limit: float) -> float:
    from ortools.sat.python import cp_model

    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = limit
    solver.parameters.num_workers = 2
    status = solver.solve(model)
    assert status in (cp_model.OPTIMAL, cp_model.FEASIBLE), solver.status_name(status)
    return float(solver.objective_value)


class Answers:
    """What the solver found, kept from full runs."""

    def __init__(self, quick: bool) -> None:
        self.quick = quick
        self.kept: dict[str, dict[str, float]] = {}
        with suppress(FileNotFoundError):
            self.kept = json.loads(RECORDED.read_text())

    def of(self, name: str, solve: Callable[[float], float]) -> float | None:
        """Return the solver's answer for a case; None where it is neither kept nor installed."""
        if self.quick and name in self.kept:
            return self.kept[name]["answer"]
        limit = SOLVER_SECONDS_QUICK if self.quick else SOLVER_SECONDS
        try:
            answer = solve(limit)
        except ImportError:
            return self.kept[name]["answer"] if name in self.kept else None
        if not self.quick:
            self.kept[name] = {"answer": answer, "limit_seconds": limit}
        return answer

    def keep(self) -> None:
        """Write down what a full run found."""
        if not self.quick:
            RECORDED.parent.mkdir(parents=True, exist_ok=True)
            RECORDED.write_text(json.dumps(self.kept, indent=1, sort_keys=True) + "\n")


# -- figures


def measure(report: Report, quick: bool) -> None:
    """Add the figures of mapping and multiplexing."""
    answers = Answers(quick)
    _mapping(report, answers)
    _programs(report, answers)
    answers.keep()


def _mapping(report: Report, answers: Answers) -> None:
    for size, cases, goal in ((16, MAPPED_16, 1.0), (32, MAPPED_32, 1.02)):
        ratios = list(_ratios(cases, answers))
        if ratios:
            report.add(f"mapping_n{size}_ratio", statistics.mean(ratios), "x", at_most=goal)
    for case in (MAPPED_16[0], MAPPED_32[0], Case("", traffic(64, 4, 4), tree(64, 4, 4))):
        grown = _median_ms(partial(place_tasks, case.traffic, case.distance, shakes=0))
        took = _median_ms(partial(place_tasks, case.traffic, case.distance))
        report.add(f"mapping_n{len(case.distance)}_ms", took, "ms", baseline=grown)


def _ratios(cases: list[Case], answers: Answers) -> Iterator[float]:
    for case in cases:
        known = answers.of(case.name, partial(solved_mapping, case))
        if known is not None:
            places = place_tasks(case.traffic, case.distance)
            yield hop_bytes(case.traffic, case.distance, places) / known


def _programs(report: Report, answers: Answers) -> None:
    jobs = [program(100, 8, seed, deep=deep) for seed in range(PROGRAMS) for deep in (True, False)]
    took = _median_of_best_ms([job.plan for job in jobs])
    blind = _median_of_best_ms([job.blind_seconds for job in jobs])
    report.add("dag100_ms", took, "ms", baseline=blind, at_most=10.0)
    gains = [1 - job.plan().seconds / job.blind_seconds() for job in jobs]
    report.add("setup_gain", statistics.mean(gains), "", at_least=0.08)
    ratios = []
    for seed in range(4):
        job = program(10, 3, seed, deep=seed % 2 == 0)
        known = answers.of(f"program10-{seed}", partial(solved_program, job))
        if known is not None:
            ratios.append(job.plan().seconds / known)
    if ratios:
        report.add("dag10_ratio", statistics.mean(ratios), "x", at_most=1.05)


def _median_of_best_ms(calls: list[Callable[[], object]]) -> float:
    """Return the median over cases, each the best of three: the rest is what else the core did."""
    return statistics.median(min(seconds(call) for _ in range(3)) for call in calls) * MILLIS


def _median_ms(call: Callable[[], object]) -> float:
    return statistics.median(seconds(call) for _ in range(5)) * MILLIS
