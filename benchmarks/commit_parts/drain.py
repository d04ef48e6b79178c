"""How fast schedulers empty a full queue: one, four, and with decisions that take their time."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import grpc
from commit_parts.cells import Bench, Mix, cpu_of
from commit_parts.raw import planned

from flowos.model import keys
from flowos.model.codec import decode, encode
from flowos.model.slice import Slice
from flowos.model.transaction import Change, Put, Transaction
from flowos_store.wire import etcdrpc, rpc

LOOK_SECONDS = 0.01
DRAIN_SECONDS = 120.0
PUTS = 100
STATS_SECONDS = 5.0
SPARE = 1.12  # engines beyond those asked for: gangs of one node leave some of each node free


def engines_for(slices: int) -> int:
    """Return how many engines hold so many gangs of 1 to 8, with some to spare."""
    return 8 * -(-int(slices * 4.5 * SPARE) // 8)


@dataclass
class Drained:
    """One drain, as it was seen from outside.

    Attributes:
        from_start: Slices a second, from the start of the process to the last placement.
        at_work: The same from the first sight of a placement.
        tenths: Slices a second of each tenth.
        cpu_us: CPU of all scheduler processes for a slice.
        plans_per_placed: Commits tried for each slice, over all processes.
    """

    from_start: float
    at_work: float
    tenths: list[float]
    cpu_us: float
    plans_per_placed: float


class Observer:
    """Counts placements from outside every few milliseconds.

    A count-only range costs the server a walk over the index of keys and the wire one small
    message; nothing is decoded, so it takes little from those that it observes.
    """

    def __init__(self, bench: Bench) -> None:
        """Open a channel of its own."""
        self._channel = grpc.insecure_channel(bench.etcd.endpoint)
        self._range = etcdrpc.KVStub(self._channel).Range
        first = b"/flowos/main/placement/default/"
        self._question = rpc.RangeRequest(key=first, range_end=first[:-1] + b"0", count_only=True)
        self.seen: list[tuple[float, int]] = []

    def until(self, count: int, alive: Sequence[Any]) -> None:
        """Look until so many are placed."""
        deadline = time.monotonic() + DRAIN_SECONDS
        while True:
            found = self._range(self._question).count
            self.seen.append((time.monotonic(), found))
            if found >= count:
                return
            if time.monotonic() > deadline or any(p.poll() is not None for p in alive):
                raise SystemExit(f"drained {found} of {count} only")
            time.sleep(LOOK_SECONDS)

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def at(self, count: float) -> float:
        """Return when so many were placed, between two looks in proportion."""
        before = self.seen[0]
        for moment, found in self.seen:
            if found >= count and found > before[1]:
                share = (count - before[1]) / (found - before[1])
                return before[0] + max(0.0, share) * (moment - before[0])
            before = (moment, found)
        return before[0]


def submit_all(bench: Bench, slices: int, *, seed: int) -> None:
    """Put so many slices into the queue, as fast as the store takes them."""
    puts = [
        Put(keys.slice_(spec.id), encode(Slice(spec=spec, submitted_at=1.0)))
        for spec in Mix(seed=seed, stem="b").take(slices)
    ]
    parts = [tuple(puts[n : n + PUTS]) for n in range(0, len(puts), PUTS)]
    for part in parts:
        bench.store.commit([Transaction((), part)])


def drain_once(bench: Bench, slices: int, *, profiled: bool = False) -> Drained:
    """Start a scheduler on a full queue and see it emptied.

    The clock starts with the process: interpreter, imports and the listing of cell and queue are
    in `from_start`.
    """
    submit_all(bench, slices, seed=5)
    observer = Observer(bench)
    started = time.monotonic()
    process = bench.start("scheduler", "run", "batch", profiled=profiled)
    observer.until(slices, [process])
    return _drained(bench, observer, slices, started, cpu_of(process))


def drain_by(bench: Bench, slices: int, processes: int, *, decision_ms: float = 0.0) -> Drained:
    """Fill the queue of schedulers that wait for it, and see it emptied.

    The clock starts with the first submission; all schedulers are in step by then.
    """
    running = [
        bench.start_script("slow.py", "--name", f"batch-{n}", "--decision-ms", str(decision_ms))
        for n in range(processes)
    ]
    bench.await_step()
    before = sum(map(cpu_of, running))
    observer = Observer(bench)
    started = time.monotonic()
    thread = threading.Thread(target=submit_all, args=(bench, slices), kwargs={"seed": 6})
    thread.start()
    observer.until(slices, running)
    thread.join()
    return _drained(bench, observer, slices, started, sum(map(cpu_of, running)) - before)


def _drained(
    bench: Bench, observer: Observer, slices: int, started: float, cpu_seconds: float
) -> Drained:
    observer.close()
    last = observer.seen[-1][0]
    first = observer.at(0.5)
    moments = [first, *(observer.at(slices * n / 10) for n in range(1, 11))]
    tenths = [slices / 10 / (b - a) for a, b in pairwise(moments)]
    tries = _tries(bench, slices)
    return Drained(
        from_start=slices / (last - started),
        at_work=slices / (last - first),
        tenths=tenths,
        cpu_us=1e6 * cpu_seconds / slices,
        plans_per_placed=tries / slices,
    )


def _tries(bench: Bench, slices: int) -> int:
    """Return how many commits all living schedulers have tried, once their figures are all told."""
    deadline = time.monotonic() + STATS_SECONDS
    while True:  # a process tells its figures once a second
        stats = [decode(dict, r.value) for r in bench.store.read(["stats/"]).records]
        done = sum(s.get("placed", 0) for s in stats) >= slices
        if done or time.monotonic() > deadline:
            return sum(s.get("commits", 0) + s.get("conflicts", 0) for s in stats)
        time.sleep(0.05)


def raw_placements(bench: Bench, slices: int) -> list[Transaction]:
    """Return what placing so many queued slices one by one would send; nothing is sent."""
    submit_all(bench, slices, seed=5)
    with bench.scheduler("plan") as scheduler:
        queue = bench.store.read(["slice/"]).records
        view = scheduler.view
        for record in queue:
            view.apply(Change(*record))
        ours = sorted(queue, key=lambda r: r.created)
        return [
            planned(scheduler, decode(Slice, r.value).spec, new=False).transaction for r in ours
        ]
