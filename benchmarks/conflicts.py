"""What is the worst that schedulers can do to each other, and what does each mitigation do about it?

Contests that hypothesis makes up (cells, requests, schedulers, thinking times and the order of all
that happens) are played by the production loop on the memory store: by chance, with each mitigation
left out, and looked for by `hypothesis.target`. Then the worst that are known by name, also on real
etcd servers with real processes; `--on-etcd` holds just these, or one of them.

    python benchmarks/conflicts.py [--quick] [--json] [--on-etcd NAME|all] [--rounds N]
"""

import argparse
import gc
import os
import random
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from math import inf
from typing import Any

from conflicts_parts.processes import race
from conflicts_parts.spread import FIGURES, WAYS, Spread, draw, played
from harness import PICTURES, PLOTS, Report

from flowos.model.slice import SliceSpec
from flowos.simulation.full.setup import Arrival
from flowos.testing.cells import Shaped, want
from flowos.testing.hunt import OBJECTIVES, Hunted, ended, hunt, made_up
from flowos.testing.interleaving import ALL, NONE, Contest, Ground, Mitigations, play
from flowos.testing.worst import WORST, Known
from flowos_schedulers.batch import Batch
from flowos_schedulers.inference import Inference
from flowos_schedulers.mpi import Mpi
from flowos_schedulers.service import Service
from flowos_schedulers.stream import Stream
from flowos_schedulers.training import Training
from flowos_store.memory import MemoryStore

MIXED = (Batch, Service, Training, Mpi, Stream, Inference)
ORDERS = 20  # in which each known case is played, besides its own
ROUNDS = 10


def main() -> None:
    """Run all."""
    given = _options()
    report = Report("Races: by chance, looked for, and known by name")
    if given.on_etcd:
        _add_raced(report, _cases(given.on_etcd), given.rounds)
        report.print(as_json=given.json)
        return
    made = made_up(60 if given.quick else 300)
    examples = 25 if given.quick else 200
    with ProcessPoolExecutor(max_workers=os.cpu_count()) as pool:
        alone = pool.submit(schedules_per_s, 200 if given.quick else 1_000).result()
        spreads = dict(
            zip(WAYS, pool.map(played, [(made, ways) for ways in WAYS.values()]), strict=True)
        )
        jobs = [
            (name, searching, ways, examples)
            for name in OBJECTIVES
            for searching, ways in ((True, ALL), (False, ALL), (True, NONE))
        ]
        hunted = dict(zip([job[:3] for job in jobs], pool.map(hunted_for, jobs), strict=True))
        known = list(pool.map(known_case, range(len(WORST))))
        mixed = pool.submit(hunted_mixed, examples).result()
    report.add("schedules_per_s_of_a_core", alone, "runs/s")
    _add_spreads(report, spreads)
    runs = broken = 0
    for name in OBJECTIVES:
        with_all, by_chance, without = (
            hunted[name, searching, ways]
            for searching, ways in ((True, ALL), (False, ALL), (True, NONE))
        )
        for one in (with_all, by_chance, without):
            runs += one.runs
            broken += len(one.broken)
            for law, (contest, choices, what) in one.broken.items():
                print(f"BROKEN {law}: {what}\n{contest!r}\n{choices}", file=sys.stderr)
        word = name.replace(" ", "_")
        report.add(f"worst_{word}_looked_for", _worst(with_all, name), "",
                   baseline=_worst(by_chance, name))  # fmt: skip
        report.add(f"worst_{word}_without_any", _worst(without, name), "")
    runs += mixed.runs
    broken += len(mixed.broken)
    for name in OBJECTIVES:
        report.add(f"worst_{name.replace(' ', '_')}_of_mixed_policies", _worst(mixed, name), "",
                   baseline=_worst(hunted[name, True, ALL], name))  # fmt: skip
    report.add("runs_looked_at", runs + sum(len(s.values[FIGURES[0]]) for s in spreads.values()),
               "runs")  # fmt: skip
    report.add("laws_broken", broken, "", at_most=0)
    for case, (value, without_it, most) in zip(WORST, known, strict=True):
        word = case.name.replace(" ", "_")
        report.add(word, value, _unit(case), baseline=without_it, at_most=case.most)
        report.add(f"{word}_in_any_order", most, _unit(case))
    if not given.quick:
        _add_raced(report, WORST, given.rounds)
    report.print(as_json=given.json)
    if not given.json:
        # A quick run must not change the page.
        folder = PLOTS if given.quick else PICTURES
        report.plot("conflicts_found", lambda axes: _draw(axes, spreads), folder=folder)
        if not given.quick:
            report.save("conflicts", contests=len(made), examples=examples)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer runs, none on etcd: under 50 s")
    parser.add_argument("--json", action="store_true", help="print figures as JSON, no plots")
    parser.add_argument("--on-etcd", default="", metavar="NAME", help="only these, on etcd; or all")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how often each is held there")
    return parser.parse_args()


def _cases(name: str) -> Sequence[Known]:
    found = [case for case in WORST if name in (case.name, "all")]
    if not found:
        sys.exit(f"no case is called '{name}': one of {', '.join(case.name for case in WORST)}")
    return found


def schedules_per_s(runs: int) -> float:
    """Return how many runs a core plays in a second: two schedulers, two slices, one place."""
    asked = SliceSpec("a", engines={"w": want(1)}), SliceSpec("b", engines={"w": want(1)})
    contest = Contest(
        Shaped(nodes=1, gpus=1, fpgas=0), tuple(Arrival(0.0, spec, inf) for spec in asked)
    )
    ground, dice = Ground(contest, MemoryStore), random.Random(1)
    orders = [[dice.randrange(12) for _ in range(30)] for _ in range(runs)]
    rates = []
    gc.collect()
    gc.freeze()  # what is there stays: only the runs' own garbage is looked for
    for part in range(3):
        mine = orders[part::3]
        before = time.process_time()
        for choices in mine:
            play(ground, choices, policy=Batch, checked=False)
        rates.append(len(mine) / (time.process_time() - before))
    return max(rates)


def hunted_for(job: tuple[str, bool, Mitigations, int]) -> Hunted:
    """Look for the worst of one figure."""
    name, searching, ways, examples = job
    return hunt(
        Batch,
        MemoryStore,
        objectives=[name],
        examples=examples,
        mitigations=ways,
        searching=searching,
        mistakes=False,
        simpler=False,
    )


def hunted_mixed(examples: int) -> Hunted:
    """Look for the worst of every figure among schedulers of different policies."""
    return hunt(MIXED, MemoryStore, examples=examples, mistakes=False, simpler=False)


def known_case(number: int) -> tuple[float, float | None, float]:
    """Return a known case's figure in its own order, the same without its mitigations, and the worst of any order."""
    known = WORST[number]
    ground, objective = Ground(known.contest, MemoryStore), OBJECTIVES[known.figure]

    def of(choices: tuple[int, ...], ways: Mitigations) -> float:
        return objective.of(ended(ground, choices, Batch, ways))

    without = of(known.choices, ALL.without(*known.without)) if known.without else None
    return of(known.choices, ALL), without, max(of(order, ALL) for order in _orders())


def _orders() -> list[tuple[int, ...]]:
    dice = random.Random(5)
    return [tuple(dice.randrange(12) for _ in range(60)) for _ in range(ORDERS)]


def _add_raced(report: Report, cases: Sequence[Known], rounds: int) -> None:
    """Hold cases on etcd, beside what the memory store makes of them in any order."""
    for known in cases:
        ground = Ground(known.contest, MemoryStore)
        runs = [ended(ground, order, Batch, ALL) for order in _orders()]
        memory = sum(run.conflicts for run in runs)
        found = race(known.contest, rounds=rounds)
        word = known.name.replace(" ", "_")
        # Where nothing can be placed: for each time that it was held.
        report.add(
            f"{word}_on_etcd", found.conflicts / (found.placed or rounds), "",
            baseline=memory / (sum(run.placed for run in runs) or len(runs)),
        )  # fmt: skip
        if known.figure == "longest wait":
            wait = OBJECTIVES[known.figure].of
            report.add(
                f"{word}_on_etcd_wait", max(found.waits, default=0.0), "s",
                baseline=max(map(wait, runs)),
            )  # fmt: skip
        report.add(f"{word}_on_etcd_violations", len(found.violations), "", at_most=0)


def _add_spreads(report: Report, spreads: dict[str, Spread]) -> None:
    with_all = spreads["all"]
    for figure in FIGURES:
        word = figure.replace(" ", "_")
        report.add(f"mean_{word}", with_all.mean(figure), "")
        report.add(f"most_{word}", with_all.worst(figure), "")
        for way, spread in spreads.items():
            if way != "all":
                named = way.replace(" ", "_") if way != "none" else "without_any"
                report.add(f"mean_{word}_{named}", spread.mean(figure), "",
                           baseline=with_all.mean(figure))  # fmt: skip
    report.add("conflicts_for_each_placed", with_all.conflicts / with_all.placed, "",
               baseline=spreads["none"].conflicts / spreads["none"].placed)  # fmt: skip


def _worst(found: Hunted, name: str) -> float:
    return found.worst[name].score if name in found.worst else 0.0


def _unit(known: Known) -> str:
    return "s" if known.figure == "longest wait" else ""


def _draw(axes: Any, spreads: dict[str, Spread]) -> None:  # matplotlib has no types
    draw(axes.figure, spreads)


if __name__ == "__main__":
    main()
