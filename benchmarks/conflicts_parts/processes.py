"""What becomes of a contest on a real etcd, with a real process for each scheduler?

Nobody chooses the order there: it is whatever the machine makes of it, so a contest is held several
times. Its slices run under a controller and an agent whose devices take no time.
"""

import json
import time
from dataclasses import dataclass, field, replace
from math import isfinite

from commit_parts.cells import Bench

from flowos.model import keys
from flowos.model.codec import encode
from flowos.model.slice import Run, Slice
from flowos.model.transaction import Put, Transaction
from flowos.model.units import claim_key, engine_unit
from flowos.runtime.clock import SystemClock
from flowos.testing.interleaving import Contest, queue_of
from flowos.verify.history import verify_history

_PATIENCE_SECONDS = 20.0
_STATS_SECONDS = 2.5  # figures are published once a second
_LOOK_SECONDS = 0.01


@dataclass
class Raced:
    """A contest, held several times.

    Attributes:
        placed: Commits that etcd took.
        conflicts: Those it did not.
        waits: Seconds until each slice was seen placed, over all rounds.
        violations: Laws that any revision broke.
    """

    placed: int = 0
    conflicts: int = 0
    waits: list[float] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)


def race(contest: Contest, *, rounds: int) -> Raced:
    """Hold a contest, all anew each time but the processes."""
    found = Raced()
    with Bench(contest.cell.view().cell) as bench:
        ghosts = [
            Put(claim_key(engine_unit(e), "ghost"), encode(("nobody/ghost", "ghost", ())))
            for e in contest.ghosts
        ]
        if ghosts:
            bench.store.commit([Transaction((), tuple(ghosts))])
        bench.start_freeing()
        for number in range(contest.schedulers):
            bench.start_script(
                "../conflicts_parts/contender.py",
                *("--name", f"s{number}", "--queue", queue_of(contest, number)),
                *("--think", str(contest.pace(number).job_s)),
            )
        bench.await_step()
        for turn in range(rounds):
            _hold(bench, contest, turn, found)
        time.sleep(_STATS_SECONDS)
        for record in bench.store.read(["stats/scheduler/"]).records:
            figures = json.loads(record.value)
            found.placed += figures["commits"]
            found.conflicts += figures["conflicts"]
        verdict = verify_history(bench.store)
        found.violations = [
            f"{v.law}: {v.sentence}"
            for v in verdict.violations
            if not any(ghost in v.sentence or ghost in v.where for ghost in contest.ghosts)
        ]
    return found


def _hold(bench: Bench, contest: Contest, turn: int, found: Raced) -> None:
    """Let all slices come, wait until as many are placed as can be, and take them away."""
    clock = SystemClock()
    came: dict[str, float] = {}
    started = time.monotonic()
    left = sorted(enumerate(contest.arrivals), key=lambda each: each[1].at_s)
    waiting: set[str] = set()
    moved = started
    while True:
        now = time.monotonic()
        due = [each for each in left if each[1].at_s <= now - started]
        left = left[len(due) :]
        puts = []
        for number, arrival in due:
            spec = replace(
                arrival.spec,
                name=f"{arrival.spec.name}-{turn}",
                policy=queue_of(contest, number % contest.schedulers),
                run=Run(for_seconds=arrival.runs_s if isfinite(arrival.runs_s) else 0.0),
            )
            came[spec.id] = moved = now
            waiting.add(spec.id)
            puts.append(Put(keys.slice_(spec.id), encode(Slice(spec, submitted_at=clock.wall()))))
        if puts:
            bench.store.commit([Transaction((), tuple(puts))])
        there = waiting & bench.placements().keys()
        for name in there:
            found.waits.append(now - came[name])
            moved = now
        waiting -= there
        # Those that have ended before they were looked for count by their scheduler's figures.
        if not left and (not waiting or now - moved > contest.seconds):
            break
        if now - started > _PATIENCE_SECONDS:
            break
        time.sleep(_LOOK_SECONDS)
    for name in came:
        bench.client.cancel(name)
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while any(not name.startswith("~") for name in bench.placements()):
        if time.monotonic() > deadline:
            raise SystemExit("the cell does not come to rest")
        time.sleep(_LOOK_SECONDS)
