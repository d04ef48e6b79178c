"""How soon a process has all of a large cell, and how fast it can follow."""

import queue
import statistics
import time

import grpc
from commit_parts.cells import Bench, Mix
from commit_parts.profiled import Profiled
from commit_parts.raw import ROOT, UNLIMITED

from flowos.model.transaction import Changes, WatchMessage
from flowos.model.view import CellView
from flowos.planning.engines.pool import Pool
from flowos.runtime.scheduling import SCHEDULER_FOLLOWS
from flowos_store.wire import etcdrpc, rpc

ENGINES = 100_000
FOLLOW_SECONDS = 60.0
STEP = 500


def cold_start(bench: Bench, *, starts: int) -> tuple[float, float]:
    """Return seconds from the start of a scheduler process to its view being in step, and of raw.

    The process is the product's own, on 100,000 engines: interpreter, imports, session, listing,
    decoding, indexes. Raw is the bare stub's listing of the same keys in one answer, undecoded.
    """
    ours, raw = [], []
    with grpc.insecure_channel(bench.etcd.endpoint, options=UNLIMITED) as channel:
        stub = etcdrpc.KVStub(channel)
        for _ in range(starts):
            before = time.perf_counter()
            bench.start("scheduler", "batch")
            bench.await_step()
            ours.append(time.perf_counter() - before)
            bench.stop()
            before = time.perf_counter()
            stub.Range(rpc.RangeRequest(key=ROOT, range_end=ROOT[:-1] + b"0"))
            raw.append(time.perf_counter() - before)
    return statistics.median(ours), statistics.median(raw)


def make_history(bench: Bench, slices: int) -> None:
    """Place slices in an empty cell, in groups."""
    with bench.scheduler("write") as scheduler:
        mix = Mix(seed=9, stem="h")
        for _ in range(slices // STEP):
            scheduler.place(mix.take(STEP))


def events(bench: Bench, *, rounds: int) -> tuple[float, float]:
    """Return events a second that a scheduler's view follows, and that its watch delivers alone.

    An event is one key's change in the families that a scheduler follows: here half of them are
    new slices, half their placements. It is the history of the cell since it was loaded, replayed
    by a watch from there, so that no writer sets the pace. The view has a planner's index attached,
    as a scheduler's has.
    """
    ours, bare = [], []
    before, last = bench.loaded_at, _last_of(bench)
    placed = len(bench.store.read(["placement/"]).records)
    reading = bench.store.read(SCHEDULER_FOLLOWS, at=before)
    for _ in range(rounds):
        view = CellView()
        view.load(reading.records)
        view.progressed(before)
        Pool(view)
        with Profiled():
            ours.append(_follow(bench, view, before, last))
        assert len(view.placements) == placed
        bare.append(_follow(bench, None, before, last))
    return statistics.median(ours), statistics.median(bare)


def _follow(bench: Bench, view: CellView | None, after: int, last: dict[str, int]) -> float:
    """Return the events a second of one replay, from the opening of the watch to the last event."""
    inbox: queue.SimpleQueue[WatchMessage] = queue.SimpleQueue()
    count = 0
    seen = dict.fromkeys(last, after)
    started = time.perf_counter()
    watch = bench.store.watch(SCHEDULER_FOLLOWS, after=after, deliver=inbox.put)
    while any(seen[family] < last[family] for family in last):
        message = inbox.get(timeout=FOLLOW_SECONDS)
        if not isinstance(message, Changes):
            continue
        count += len(message.changes)
        for change in message.changes:
            if view is not None:
                view.apply(change)
        for change in message.changes[-1:]:
            seen[change.key.partition("/")[0]] = change.modified
    took = time.perf_counter() - started
    watch.close()
    return count / took


def _last_of(bench: Bench) -> dict[str, int]:
    """Return the newest revision of each family that the history is about."""
    return {
        family: max(r.modified for r in bench.store.read([f"{family}/"]).records)
        for family in ("slice", "placement")
    }
