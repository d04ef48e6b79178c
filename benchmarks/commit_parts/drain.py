"""How fast schedulers empty a full queue: one, four, and with decisions that take their time."""

import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import grpc
from commit_parts.cells import PUTS, Bench, Mix, cpu_of
from commit_parts.raw import planned

from flowos.model import keys
from flowos.model.codec import decode, encode
from flowos.model.slice import Slice
from flowos.model.transaction import Change, Put, Transaction
from flowos_store.wire import etcdrpc, rpc

LOOK_SECONDS = 0.04  # and as much more as there are slices: a count takes etcd 0.1 us for each
DRAIN_SECONDS = 120.0
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
    """Counts placements from outside, some twenty times a second.

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
            time.sleep(LOOK_SECONDS + count * 3e-6)

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


def submit_all(bench: Bench, slices: int, *, stem: str) -> None:
    """Put so many slices into the queue, as fast as the store takes them."""
    puts = [
        Put(keys.slice_(spec.id), encode(Slice(spec=spec, submitted_at=1.0)))
        for spec in Mix(seed=5, stem=stem).take(slices)
    ]
    parts = [tuple(puts[n : n + PUTS]) for n in range(0, len(puts), PUTS)]
    for part in parts:
        bench.store.commit([Transaction((), part)])


def drain_once(bench: Bench, slices: int) -> Drained:
    """Start a scheduler on a full queue of an empty cell and see it emptied.

    The clock starts with the process: interpreter, imports and the listing of cell and queue are
    in `from_start`.
    """
    with closing(Observer(bench)) as observer:
        started = time.monotonic()
        process = bench.start("scheduler", "batch")
        observer.until(slices, [process])
        return _drained(bench, observer, 0, slices, started, cpu_of(process.pid), 0)


class Team:
    """Scheduler processes that wait for a queue; their decisions can be made to take longer."""

    def __init__(self, bench: Bench) -> None:
        """Begin with none."""
        self._bench = bench
        self._placed = 0
        self.members: list[subprocess.Popen[bytes]] = []

    def grow(self, size: int) -> None:
        """Have so many, and wait until all are in step."""
        while len(self.members) < size:
            name = f"batch-{len(self.members)}"
            self.members.append(self._bench.start_script("slow.py", "--name", name))
        self._bench.await_step()
        time.sleep(0.2)  # until each has seen the others' sessions

    def drain(self, slices: int, *, slow: bool) -> Drained:
        """Fill the queue and see it emptied; the clock starts with the first submission."""
        for member in self.members:
            member.send_signal(signal.SIGUSR1 if slow else signal.SIGUSR2)
        pids = [member.pid for member in self.members]
        cpu, (_, tries) = sum(map(cpu_of, pids)), _told(self._bench)
        before, self._placed = self._placed, self._placed + slices
        work = {"slices": slices, "stem": f"b{before}-"}
        thread = threading.Thread(target=submit_all, args=(self._bench,), kwargs=work)
        with closing(Observer(self._bench)) as observer:
            started = time.monotonic()
            thread.start()
            observer.until(before + slices, self.members)
            thread.join()
            cpu = sum(map(cpu_of, pids)) - cpu
            return _drained(self._bench, observer, before, slices, started, cpu, tries)


def _drained(
    bench: Bench,
    observer: Observer,
    before: int,
    slices: int,
    started: float,
    cpu_seconds: float,
    tries_before: int,
) -> Drained:
    last = observer.seen[-1][0]
    first = observer.at(before + 0.5)
    moments = [first, *(observer.at(before + slices * n / 10) for n in range(1, 11))]
    deadline = time.monotonic() + STATS_SECONDS
    placed, tries = _told(bench)
    while placed < before + slices and time.monotonic() < deadline:  # told once a second
        time.sleep(0.05)
        placed, tries = _told(bench)
    return Drained(
        from_start=slices / (last - started),
        at_work=slices / (last - first),
        tenths=[slices / 10 / (b - a) for a, b in pairwise(moments)],
        cpu_us=1e6 * cpu_seconds / slices,
        plans_per_placed=(tries - tries_before) / slices,
    )


def _told(bench: Bench) -> tuple[int, int]:
    """Return what living schedulers say that they have placed, and tried to commit."""
    stats = [decode(dict, r.value) for r in bench.store.read(["stats/"]).records]
    tries = sum(s.get("commits", 0) + s.get("conflicts", 0) for s in stats)
    return sum(s.get("placed", 0) for s in stats), tries


def raw_placements(bench: Bench, slices: int) -> list[Transaction]:
    """Return what placing the first slices of the queue one by one would send; nothing is sent."""
    with bench.scheduler("plan") as scheduler:
        queue = sorted(bench.store.read(["slice/"]).records, key=lambda r: (r.created, r.key))
        for record in queue[:slices]:
            scheduler.view.apply(Change(*record))
        return [
            planned(scheduler, decode(Slice, r.value).spec, new=False).transaction
            for r in queue[:slices]
        ]
