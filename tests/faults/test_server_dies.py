"""The one server of a cell is killed under load, and waits for its disk otherwise."""

import json
import os
import random
import time
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

import flowos
from flowos.runtime.client import CellClient
from flowos.verify.history import verify_history
from tests.faults.crew import Verifier, note
from tests.faults.ledger import Ledger
from tests.faults.load import Placer, Submitter
from tests.faults.machine import Machine, left_over, until, until_none

pytestmark = [pytest.mark.etcd, pytest.mark.slow]

KILLS = 20


def is_another(machine: Machine, pid: int) -> bool:
    return machine.processes()["etcd"] != pid


def test_no_acknowledged_placement_is_lost_when_the_server_is_killed_twenty_times(
    machine: Machine,
) -> None:
    rng = random.Random(int(os.environ.get("SEED", "1")))
    machine.up("--cell", "fat-tree:256", "--idle-off", "0", fsync=True)
    before = {n: p for n, p in machine.processes().items() if n != "etcd"}

    def connect() -> CellClient:
        return flowos.connect(data_dir=str(machine.folder))

    where = ("--data-dir", str(machine.folder))
    gaps: list[float] = []
    with (
        connect() as cell,
        Verifier(machine.folder, where, machine.environment) as verifier,
    ):
        with (
            Placer(connect, "one") as one,
            Placer(connect, "four", 4) as four,
            Submitter(connect) as submitter,
        ):
            placers = (one, four)
            for number in range(KILLS):
                until(lambda: all(p.store and p.store.placed for p in placers), "load is on")
                time.sleep(rng.uniform(0.05, 0.35))
                pid = machine.processes()["etcd"]
                known = [len(p.store.placed) for p in placers if p.store]
                os.kill(pid, 9)
                killed_at = time.monotonic()
                until(partial(is_another, machine, pid), "etcd is back")

                def goes_on(known: list[int] = known) -> bool:
                    now = [len(p.store.placed) for p in placers if p.store]
                    return all(n > k + 2 for n, k in zip(now, known, strict=True))

                try:
                    until(goes_on, f"placing goes on after kill {number}")
                except AssertionError:
                    note("\n".join(p.state() for p in placers))
                    raise
                after = [at for p in placers if p.store for at in p.store.at if at > killed_at]
                gaps.append(min(after) - killed_at)
        for thread in (one, four, submitter):
            assert thread.surprises == []
        names = {*submitter.accepted, *(name for name, _ in (*one.placed, *four.placed))}
        until_none(lambda: left_over(cell.store), "the cell is empty")
        verifier.end()
        verdict = verify_history(cell.store)
        assert verdict.violations == ()
        ledger = Ledger.read(cell.store)
    assert ledger.doubled == []
    acknowledged = [entry for p in placers if p.store for entry in p.store.placed]
    lost = [e for e in acknowledged if ledger.placed.get(e[:2], e[2]) != e[2]]
    lost += [e for e in acknowledged if e[:2] not in ledger.placed]
    assert lost == []
    promised = [entry for p in placers for entry in p.placed]
    assert [entry for entry in promised if entry not in ledger.placed] == []
    assert {len(ends) for ends in ledger.ended.values()} == {1}
    assert Counter(len(ledger.ended[name]) for name in names) == {1: len(names)}
    now = {n: p for n, p in machine.processes().items() if n != "etcd"}
    assert now == before
    figures = {
        "kills": KILLS,
        "acknowledged": len(acknowledged),
        "submitted": len(submitter.accepted),
        "troubles": len(one.troubles) + len(four.troubles) + len(submitter.troubles),
        "gap median s": round(sorted(gaps)[len(gaps) // 2], 2),
        "gap max s": round(max(gaps), 2),
    }
    note(f"server dies: {json.dumps(figures)}")
    assert Path(machine.folder).exists()
    machine.down()
    assert machine.left() == []
