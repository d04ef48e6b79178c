"""Processes of a living cell are killed and stopped at random, again and again.

SLICES, KILLS and SEED in the environment make it longer, or the same again (`make swarm`).
"""

import json
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from flowos.model.codec import decode
from flowos.model.slice import (
    CircuitWish,
    EngineChoice,
    EngineRole,
    Run,
    Shape,
    Slice,
    SliceSpec,
)
from flowos.runtime.client import CellClient
from flowos.verify.history import verify_history
from tests.faults.crew import Crew, Hits, Verifier, note
from tests.faults.ledger import Ledger
from tests.faults.machine import Machine, until, until_none

pytestmark = [pytest.mark.etcd, pytest.mark.slow]

SLICES = int(os.environ.get("SLICES", "200"))
KILLS = int(os.environ.get("KILLS", str(SLICES // 5)))
SEED = int(os.environ.get("SEED", "0")) or random.SystemRandom().randrange(1, 1_000_000)
TTL_SECONDS = 2  # etcd grants no less for certain
GRACE_SECONDS = 1  # then a silent node's part goes into quarantine
CELL = "torus:2x2x3"  # 12 nodes of 4 GPUs, 12 switches
ALIVE_MAX = 60  # slices that wait or run at a time
PATIENCE_SECONDS = 60.0  # for the end of all, once nothing is hit any more
# Steps that take a moment, so that a kill finds them half done.
DELAYS = ("connect=30ms", "scrub=40ms", "stop=20ms", "disconnect=20ms")


def specs(rng: random.Random, count: int) -> Iterator[SliceSpec]:
    """Slices of every kind that the cell can hold, each running for a moment."""
    for number in range(count):
        kind = rng.randrange(10)
        choice = EngineChoice("gpu", count=rng.choice((1, 1, 2, 3)))
        circuits: tuple[CircuitWish, ...] = ()
        if kind < 3:
            choice = EngineChoice("gpu", count=1, share_millis=rng.choice((250, 500)))
        elif kind < 6:  # over one node, or two and the switches between
            choice = EngineChoice("gpu", count=rng.choice((4, 6)))
            circuits = (CircuitWish(Shape.RING, ("w",)),)
        yield SliceSpec(
            name=f"s{number:05}",
            engines={"w": EngineRole((choice,))},
            circuits=circuits,
            run=Run(for_seconds=rng.uniform(0.05, 1.2)),
        )


class Client:
    """Submits slices over time, not more than the cell takes soon."""

    def __init__(self, cell: CellClient, rng: random.Random, count: int) -> None:
        self.cell, self.rng = cell, rng
        self.left = list(specs(rng, count))[::-1]
        self.submitted = 0
        self.next_at = 0.0

    def round(self) -> None:
        """Submit some more, where it is time and there is room."""
        now = time.monotonic()
        if not self.left or now < self.next_at:
            return
        self.next_at = now + self.rng.uniform(0.1, 0.6)
        if self.submitted - self.ended() > ALIVE_MAX:
            return
        some = [self.left.pop() for _ in range(min(len(self.left), self.rng.randint(1, 12)))]
        self.cell.submit(some)
        self.submitted += len(some)

    def slices(self) -> list[Slice]:
        """The records."""
        return [decode(Slice, r.value) for r in self.cell.store.read(["slice/"]).records]

    def ended(self) -> int:
        """How many have ended."""
        return sum(record.end is not None for record in self.slices())


def keys_left(cell: CellClient) -> list[str]:
    """What a cell that nobody uses has no record of."""
    left = ["claim/", "placement/", "order/", "report/", "reason/", "grant/"]
    return [record.key for record in cell.store.read(left).records]


def foreign_sessions(cell: CellClient, pids: set[int]) -> list[str]:
    """Sessions of processes that do not live any more."""
    records = cell.store.read(["session/"]).records
    return [r.key for r in records if json.loads(r.value).get("pid") not in pids]


def tasks_left(cell: CellClient) -> list[str]:
    """Engines on which a task is said to run."""
    records = cell.store.read(["observed/"]).records
    return [record.key for record in records if json.loads(record.value).get("task")]


def start_all(machine: Machine, crew: Crew) -> None:
    """Start the store and schedulers by `up`, and controllers and agents beside it."""
    alone = ("--cell", CELL, "--scheduler", "batch=3", "--agents", "none", "--no-controller")
    machine.up(*alone, ttl_seconds=TTL_SECONDS)
    with machine.client() as cell:
        records = cell.store.read(["node/", "switch/"]).records
    places = [record.key.partition("/")[2] for record in records]
    for number in range(2):
        crew.controller(f"controller-{number}", TTL_SECONDS, grace=f"{GRACE_SECONDS}s")
    # One place alone, so that its silence is its own and not the store's (see Rules.mass_silence).
    shares = places[:1], places[1::2], places[2::2]
    for number, mine in enumerate(shares):
        crew.agent(f"agent-{number}", mine, TTL_SECONDS, delays=DELAYS)
    crew.until_in_step()


def test_slices_end_once_while_any_process_is_killed_or_stopped_at_random(machine: Machine) -> None:
    rng = random.Random(SEED)
    note(f"\nswarm: {SLICES} slices, {KILLS} hits, seed {SEED} (again: SEED={SEED} make swarm)")
    where = ("--data-dir", str(machine.folder))
    with Crew(machine.folder, where) as crew:
        start_all(machine, crew)

        def victims() -> dict[str, int]:
            scheduled = {n: p for n, p in machine.processes().items() if n.startswith("batch-")}
            return scheduled | crew.pids()

        began = time.monotonic()
        figures: dict[str, Any] = {}
        with (
            machine.client() as cell,
            Verifier(machine.folder, where, machine.environment) as verifier,
        ):
            client = Client(cell, rng, SLICES)
            hits = Hits(
                rng,
                victims,
                ttl_seconds=TTL_SECONDS,
                pause_seconds=(0.1, 0.9),
                favourite="agent-0",  # whose silence is long enough for a quarantine at times
            )
            try:
                while client.left or not hits.is_over() or len(hits.done) < KILLS:
                    client.round()
                    hits.round(more=len(hits.done) < KILLS)
                    time.sleep(0.02)
            finally:
                hits.let_go()
            hit_for = time.monotonic() - began
            until(lambda: client.ended() == SLICES, "all slices ended", PATIENCE_SECONDS)
            until_none(lambda: keys_left(cell), "the cell is empty")
            until_none(lambda: tasks_left(cell), "no task is said to run")
            lives = set(machine.processes().values()) | set(crew.pids().values())
            until_none(lambda: foreign_sessions(cell, lives), "no session is left of the dead")
            verdict = verifier.end()
            check_history(cell, client.slices(), figures)
        assert all(code != 1 for _, code in crew.codes), crew.codes
    machine.down()
    assert machine.left() == []
    kinds = Counter(kind.split()[0] for kind, _ in hits.done)
    figures |= {
        "seed": SEED,
        "slices": SLICES,
        "hits": dict(kinds),
        "seconds under hits": round(hit_for, 1),
        "seconds": round(time.monotonic() - began, 1),
        "revisions followed": verdict["checked"]["revisions"],
    }
    note(f"swarm: {json.dumps(figures)}")


def check_history(cell: CellClient, records: list[Slice], figures: dict[str, Any]) -> None:
    """Check each revision, by Flow OS's own laws and by a ledger that knows nothing of them."""
    checked = verify_history(cell.store)
    assert checked.violations == ()
    assert checked.first == 1
    ledger = Ledger.read(cell.store)
    assert ledger.doubled == []
    assert {len(ends) for ends in ledger.ended.values()} == {1}
    assert Counter(e[0][1] for e in ledger.ended.values()) == {"done": len(records)}
    assert {r.spec.id: r.attempts for r in records} == {
        name: len(attempts) for name, attempts in ledger.attempts.items()
    }
    figures |= {
        "attempts": dict(sorted(Counter(r.attempts for r in records).items())),
        "quarantines": ledger.quarantined,
        "revisions": ledger.revision,
    }
