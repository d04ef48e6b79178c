"""Do two gangs that each need the whole cell ever lock each other out, on a real store?"""

import json
import threading
from functools import partial

import pytest

from flowos.model.codec import decode
from flowos.model.placement import Placement
from flowos.model.slice import EngineChoice, EngineRole, Reason, SliceSpec, Waiting
from flowos.verify.history import verify_history
from tests.faults.machine import Machine, until

pytestmark = [pytest.mark.etcd, pytest.mark.slow]

ROUNDS = 20
WHOLE = 16  # GPUs of the cell
# The winner has all engines, and the watts that they draw.
NOT_NOW = (Reason.WAITING_FOR_ENGINES, Reason.WAITING_FOR_POWER)


def gang(name: str) -> SliceSpec:
    return SliceSpec(name=name, engines={"w": EngineRole((EngineChoice("gpu", count=WHOLE),))})


def placements(cell) -> dict[str, Placement]:
    records = cell.store.read(["placement/default/"]).records
    return {r.key.removeprefix("placement/"): decode(Placement, r.value) for r in records}


def claims(cell) -> list[str]:
    return [r.key for r in cell.store.read(["claim/engine/"]).records]


def reason(cell, identifier: str) -> Reason | None:
    records = cell.store.read([f"reason/{identifier}"]).records
    return decode(Waiting, records[0].value).reason if records else None


def has_its_turn(cell, identifier: str) -> bool:
    return identifier in placements(cell)


def commits(cell) -> int:
    """How many commits of slices all schedulers have sent, won or lost."""
    figures = [json.loads(r.value) for r in cell.store.read(["stats/scheduler/"]).records]
    return sum(f["commits"] + f["conflicts"] for f in figures)


def both_at_once(machine: Machine, names: tuple[str, str]) -> None:
    """Submit each gang from a connection of its own, at the same moment."""
    ready = threading.Barrier(2)

    def submit(name: str) -> None:
        with machine.client() as cell:
            ready.wait()
            cell.submit([gang(name)])

    threads = [threading.Thread(target=submit, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_one_of_two_gangs_starts_and_the_other_holds_nothing(machine):
    machine.up("--scheduler", "batch=2", "--idle-off", "0")
    with machine.client() as cell:
        for number in range(ROUNDS):
            red, blue = f"red{number}", f"blue{number}"
            both_at_once(machine, (red, blue))
            names = {f"default/{red}", f"default/{blue}"}
            until(lambda: placements(cell), "one has started")
            placed = placements(cell)
            (won,) = placed
            (lost,) = names - {won}
            until(partial(reason, cell, lost), "the other says why not")
            assert reason(cell, lost) in NOT_NOW
            assert placements(cell).keys() == {won}
            assert len(claims(cell)) == len(placed[won].held) == WHOLE
            cell.cancel(won)
            until(partial(has_its_turn, cell, lost), "the other one has its turn")
            cell.cancel(lost)
            until(lambda: not placements(cell) and not claims(cell), "the cell is empty")
        # Each gang was won once; no more was lost than one race for each.
        until(lambda: commits(cell) >= 2 * ROUNDS, "all figures are published")
        assert commits(cell) <= 3 * ROUNDS
        verdict = verify_history(cell.store)
        assert verdict.violations == ()
    machine.down()
