"""What does a misbehaving scheduler process cost the others? Placements a second, with and without.

It claims engines at random as plain transactions on real keys, from a view that it never renews, and
tries again at once, one request in flight. Two good schedulers place a stream of one-GPU slices on a
real etcd, by wall clock; the baseline is the same stream, in the same run, without it.

The same in virtual time, with three schedulers, on the simulator; `flowos.simulation.neighbours` says
how the store's time is modelled. There it claims at random, or just what the others' own policy would
choose ("covetous"); one more good scheduler is the control. The goal is for a trial's store, which
has no queue; "queue" are the same runs behind a store that takes one write at a time, without one.
"""

import statistics
import time

from commit_parts.cells import Bench
from harness import Report, options

from flowos import connect
from flowos.model.slice import EngineChoice, EngineRole, SliceSpec
from flowos.simulation.neighbours import Neighbour, Neighbourhood, Told
from flowos_schedulers.batch import Batch
from flowos_store.memory import MemoryStore

CELL = "fat-tree:4096"
GROUP = 100
LIMIT_SECONDS = 30.0
OURS = "placement/default/"


def rate(number: int, *, bad: bool) -> float:
    """Return how many slices two schedulers place a second, from the first request to the last."""
    with Bench(CELL) as bench:
        for scheduler in range(2):
            bench.start("scheduler", "batch", "--name", f"batch-{scheduler}")
        if bad:
            bench.start_script("misbehaving.py")
        bench.await_step()
        role = EngineRole((EngineChoice(kind="gpu", count=1),))
        specs = [SliceSpec(f"s{n}", engines={"w": role}) for n in range(number)]
        with connect(endpoints=[bench.etcd.endpoint]) as client:
            began = time.perf_counter()
            for start in range(0, number, GROUP):
                client.submit(specs[start : start + GROUP])
            while (placed := len(bench.store.read([OURS]).records)) < number:
                if time.perf_counter() - began > LIMIT_SECONDS:
                    raise SystemExit(f"{placed} of {number} placed in {LIMIT_SECONDS:g} s")
                time.sleep(0.02)
            took = time.perf_counter() - began
        if bad and bench.processes[-1].poll() is not None:
            raise SystemExit(f"the misbehaving one ended: {bench.logs[-1].read_text()}")
        return number / took


def virtual(neighbour: Neighbour, seeds: range, *, one_by_one: bool) -> list[Told]:
    """Return what came of a run of each seed in virtual time."""
    return [
        Neighbourhood(
            seed,
            new_store=MemoryStore,
            policy=Batch(),
            neighbour=neighbour,
            one_by_one=one_by_one,
            seconds=0.2,
        ).play()
        for seed in seeds
    ]


def add_virtual(report: Report, seeds: range, *, one_by_one: bool) -> None:
    """Measure beside nobody and beside each neighbour, and add rates and waits."""
    word = "virtual_queue" if one_by_one else "virtual"
    found = {who: virtual(who, seeds, one_by_one=one_by_one) for who in Neighbour}
    alone = found.pop(Neighbour.NOBODY)
    for who, runs in found.items():
        report.add(
            f"beside_{who.value}_{word}",
            statistics.mean(run.rate for run in runs),
            "slices/s",
            baseline=statistics.mean(run.rate for run in alone),
            ratio_at_least=None if one_by_one else 0.9,
        )
        report.add(
            f"beside_{who.value}_{word}_p99",
            1000 * statistics.median(run.wait(0.99) for run in runs),
            "ms",
            baseline=1000 * statistics.median(run.wait(0.99) for run in alone),
        )


def main() -> None:
    """Measure and print."""
    chosen = options(__doc__ or "")
    number, rounds = (1500, 1) if chosen.quick else (1500, 5)
    beside, alone = [], []
    for _ in range(rounds):
        alone.append(rate(number, bad=False))
        beside.append(rate(number, bad=True))
    report = Report(f"Two schedulers beside a misbehaving one, {number} slices on {CELL}")
    report.add(
        "beside_misbehaving_etcd",
        statistics.median(beside),
        "slices/s",
        baseline=statistics.median(alone),
        ratio_at_least=0.6,
    )
    add_virtual(report, range(1, 3 if chosen.quick else 6), one_by_one=False)
    add_virtual(report, range(1, 2 if chosen.quick else 6), one_by_one=True)
    report.print(as_json=chosen.json)


if __name__ == "__main__":
    main()
