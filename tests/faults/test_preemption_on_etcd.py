"""Does a gang take over a full cell of real processes on a real store, whoever is killed meanwhile?"""

import signal

import pytest

from flowos.model.codec import decode
from flowos.model.placement import Placement
from flowos.model.slice import EngineChoice, EngineRole, Phase, Reason, Run, Slice, SliceSpec
from flowos.verify.history import verify_history
from tests.faults.machine import Machine, until

pytestmark = [pytest.mark.etcd, pytest.mark.slow]

WHOLE = 16  # GPUs of the cell
EACH = 2
GANG = "default/gang"
VICTIMS = [f"default/s{number}" for number in range(WHOLE // EACH)]


def asks(name: str, count: int, run: Run, *, priority: int = 0) -> SliceSpec:
    engines = {"w": EngineRole((EngineChoice("gpu", count=count),))}
    return SliceSpec(name, engines=engines, run=run, priority=priority, preemptible=not priority)


def slices(cell) -> dict[str, Slice]:
    records = cell.store.read(["slice/default/"]).records
    return {r.key.removeprefix("slice/"): decode(Slice, r.value) for r in records}


def placements(cell) -> dict[str, Placement]:
    records = cell.store.read(["placement/default/"]).records
    return {r.key.removeprefix("placement/"): decode(Placement, r.value) for r in records}


def take_over(cell) -> None:
    """Fill the cell, let all of it run, and ask for all of it at a higher priority."""
    run = Run(for_seconds=4.0, grace_seconds=2.0)
    cell.submit([asks(name.partition("/")[2], EACH, run) for name in VICTIMS])
    until(
        lambda: [p.started_at for p in placements(cell).values() if p.started_at][
            len(VICTIMS) - 1 :
        ],
        "all of them run",
    )
    cell.submit([asks("gang", WHOLE, Run(for_seconds=0.5), priority=5)])
    until(lambda: GANG in placements(cell), "the gang has the cell")


def ends_well(cell) -> None:
    until(lambda: all(s.end for s in slices(cell).values()), "all have ended")
    ended = {name: slice_.end for name, slice_ in slices(cell).items() if slice_.end}
    assert {end.phase for end in ended.values()} == {Phase.DONE}
    started = {name: end.started_at or 0.0 for name, end in ended.items()}
    assert min(started[name] for name in VICTIMS) > started[GANG], "they ran again, later"
    until(lambda: not placements(cell), "nothing is held")
    assert verify_history(cell.store).violations == ()


def test_a_gang_takes_over_a_full_cell_and_its_victims_run_later(machine: Machine):
    machine.up("--scheduler", "batch=2", "--idle-off", "0")
    with machine.client() as cell:
        take_over(cell)
        placed = placements(cell)
        assert len(placed[GANG].held) >= WHOLE
        endings = [placed[name].ending for name in VICTIMS if name in placed]
        assert {(e.reason, e.message) for e in endings if e} == {
            (Reason.BEHIND_HIGHER_PRIORITY, "gives way to default/gang of priority 5")
        }
        ends_well(cell)
        assert {s.attempts for name, s in slices(cell).items() if name != GANG} == {2}
    machine.down()


@pytest.mark.parametrize("victim", ["batch-0", "controller-0", "agent-0", "etcd"])
def test_whoever_is_killed_while_units_change_hands_all_end_well(machine: Machine, victim):
    machine.up(ttl_seconds=2)
    with machine.client() as cell:
        take_over(cell)
        machine.signal(victim, signal.SIGKILL)
        ends_well(cell)
    machine.down()
    assert machine.left() == []
