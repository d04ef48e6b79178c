"""Does all that the real processes ask of a store have a serial order, with answers that get lost?"""

import random
import threading
from typing import Any

import pytest

from flowos.model.errors import FlowosError
from flowos.model.placement import Placement
from flowos.model.slice import Phase
from flowos.runtime.client import CellClient
from flowos.runtime.clock import SystemClock
from flowos.runtime.loading import load_cell_into
from flowos.simulation.stage import VirtualClock
from flowos_schedulers.batch import Batch
from flowos_store.memory import MemoryStore
from tests.plugins.serial import Contradiction, Recording, Witness, committed, explained
from tests.runtime import theatre
from tests.runtime.cells import small_cell, wanted
from tests.runtime.lossy import Fate, LossyStore
from tests.runtime.stage import Stage


@pytest.fixture
def recorded(monkeypatch):
    """Stages whose store is on record; gives the recording and the witness of the last one."""
    kept: dict[str, Any] = {}

    def new_store(clock: VirtualClock, **more):
        store = kept.get("broken", MemoryStore)(clock, **more)
        kept["recording"], kept["witness"] = Recording(), Witness(store)
        return kept["recording"].of(store, "all")

    monkeypatch.setattr(theatre, "MemoryStore", new_store)
    return kept


def lived():
    """A cell with two schedulers, slices that come and go, and processes that die."""
    stage = Stage(nodes=4, agents="each")
    rival = stage.scheduler("rival")
    stage.submit(*(wanted(f"s{n}", gpus=1 + n % 3, ring=n % 2 == 0, run_for=2.0) for n in range(8)))
    stage.play(3)
    rival.die()
    stage.at["n1"].die()
    stage.submit(*(wanted(f"t{n}", gpus=2, run_for=1.0) for n in range(4)))
    stage.play(40)
    stage.wish("default/t3", cancelled=True)
    stage.leader.die()
    stage.controller("second")
    stage.play(60)
    return stage


def test_all_that_a_whole_cell_asks_has_a_serial_order(recorded):
    stage = lived()
    assert stage.phase("default/s0") is Phase.DONE
    found = explained(recorded["recording"], recorded["witness"])
    assert len(list(committed(found))) > 50
    assert found.never == ()


class Forgetful(MemoryStore):
    """Now and then it says that it has written what it has not."""

    def commit(self, transactions, **more):
        if any(op.key.startswith("report/n2/") for t in transactions for op in t.operations):
            self.asked = getattr(self, "asked", 0) + 1
            if self.asked == 3:
                return self.fork().commit(transactions, **more)
        return super().commit(transactions, **more)


def test_one_acknowledged_write_that_is_lost_in_a_whole_cell_is_found(recorded):
    recorded["broken"] = Forgetful
    lived()
    with pytest.raises(Contradiction, match="report/n2/"):
        explained(recorded["recording"], recorded["witness"])


# ----------------------------------------------------------------------------- embedded clients


def compete(store, recording, fates, *, clients=4, rounds=6):
    """Let programs with schedulers of their own place slices in one small cell."""
    placed: list[Placement] = []

    def run(number):
        dice = random.Random(number)
        lossy = LossyStore(store)
        mine = recording.of(lossy, f"client-{number}")
        scheduler = CellClient(mine, SystemClock()).scheduler(Batch())
        for turn in range(rounds):
            if fates and dice.random() < 0.5:
                lossy.lose_next(dice.choice(list(Fate)), "placement/")
            specs = [wanted(f"c{number}r{turn}s{n}", gpus=dice.randint(1, 2)) for n in range(2)]
            try:
                found = scheduler.place(specs)
            except FlowosError:  # rivals that kept winning: what was asked is on record
                continue
            placed.extend(one for one in found if isinstance(one, Placement))
        scheduler.close()

    threads = [threading.Thread(target=run, args=(n,), daemon=True) for n in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    return placed


@pytest.mark.parametrize("fates", [False, True], ids=["answers come", "answers get lost"])
def test_embedded_schedulers_that_race_have_a_serial_order(store, fates):
    load_cell_into(store, small_cell(nodes=6))
    recording, witness = Recording(), Witness(store)
    placed = compete(store, recording, fates)
    found = explained(recording, witness)
    witness.close()
    attempts = {op.key for w in committed(found) for t in w.transactions for op in t.operations}
    assert {f"placement/default/{name}" for name in names(witness)} <= attempts
    assert len(placed) == len(names(witness)) > 3


def names(witness):
    """The slices that a witness has seen placed."""
    word = "placement/default/"
    return {c.key[len(word) :] for c in witness.seen if c.key.startswith(word)}
