"""Slices that name their data, from submit to end: the laws hold, and nothing runs on the data's engine."""

from dataclasses import replace

import pytest

from flowos.model import keys
from flowos.model.cell import Link
from flowos.model.codec import encode
from flowos.model.rules import PlannerRules
from flowos.model.slice import (
    Data,
    EngineChoice,
    EngineRole,
    Phase,
    Reason,
    Run,
    SliceSpec,
    Work,
)
from flowos.model.transaction import Put
from flowos.model.units import engine_unit
from tests.runtime.cells import small_cell
from tests.runtime.stage import GRACE, PLACES, SECONDS
from tests.runtime.theatre import Theatre

GPU, FPGA = EngineChoice("gpu"), EngineChoice("fpga")


def stage(*, each=False):
    """Two nodes, each with GPUs of a model of its own, an FPGA and an attachment port."""
    cell = small_cell(nodes=2)
    for engine in list(cell.engines.values()):
        cell.add(replace(engine, model=f"{engine.kind}-{engine.node}"))
    for number in range(2):
        cell.add(Link(f"port{number}", f"n{number}:0", f"sw{number}:port{number}", 4))
    theatre = Theatre(cell)
    theatre.scheduler(alone=True)
    theatre.controller(rules=GRACE)
    for places in [(place,) for place in PLACES] if each else [()]:
        theatre.agent(*places, seconds=SECONDS)
    theatre.settle()
    return theatre


def told(theatre, **speeds):
    theatre.write(Put(keys.PLANNER, encode(PlannerRules(speeds={"bert": speeds}))))


def asked(at, *choices, size=1, run=1.0, amount=1000.0):
    return SliceSpec(
        "s",
        engines={"w": EngineRole(choices)},
        data=(Data(at, size * 10**9, "w"),),
        work={"w": Work("bert", amount)},
        run=Run(for_seconds=run),
    )


def test_slice_moves_its_data_and_ends_and_the_laws_hold_all_along():
    theatre = stage()
    told(theatre, **{"gpu-n1": 100.0, "fpga-n0": 1.0})
    theatre.submit(asked("n0/fpga0", GPU, FPGA))
    assert theatre.play(20, lambda: theatre.phase("default/s") is Phase.RUNNING)
    placement = theatre.placed("default/s")
    assert placement.engines["w"][0].startswith("n1/gpu")
    assert engine_unit("n0/fpga0") in placement.held
    assert [(c.source, c.targets) for c in placement.circuits] == [
        ("n0/fpga0", placement.engines["w"])
    ]
    orders = theatre.view().orders[placement.attempt]
    assert engine_unit("n0/fpga0") in orders["n0"].value.units
    assert not orders["n0"].value.tasks
    assert list(orders["n1"].value.tasks.values()) == [0]
    theatre.play(60, lambda: theatre.phase("default/s") is Phase.DONE)
    assert theatre.phase("default/s") is Phase.DONE
    assert not theatre.violations


def test_slice_computes_where_its_data_is_and_ends():
    theatre = stage()
    told(theatre, **{"gpu-n1": 2.0, "fpga-n0": 1.0})
    theatre.submit(asked("n0/fpga0", GPU, FPGA, size=9000))
    theatre.play(60, lambda: theatre.phase("default/s") is Phase.DONE)
    assert "running" in theatre.life("default/s")
    assert theatre.phase("default/s") is Phase.DONE
    assert not theatre.violations


@pytest.mark.parametrize("at", ["n0", "n1"])
def test_data_of_a_node_comes_over_its_port_or_stays(at):
    theatre = stage()
    told(theatre, **{"gpu-n1": 100.0, "gpu-n0": 1.0})
    theatre.submit(asked(at, GPU))
    assert theatre.play(20, lambda: theatre.phase("default/s") is Phase.RUNNING)
    placement = theatre.placed("default/s")
    assert placement.engines["w"][0].startswith("n1/gpu")
    assert [c.source for c in placement.circuits] == (["n0"] if at == "n0" else [])
    theatre.play(60, lambda: theatre.phase("default/s") is Phase.DONE)
    assert theatre.phase("default/s") is Phase.DONE
    assert not theatre.violations


def test_running_scheduler_goes_by_what_it_is_told_next():
    theatre = stage()
    for best in ("gpu-n1", "gpu-n0"):
        told(theatre, **{"gpu-n0": 1.0, "gpu-n1": 1.0, best: 50.0})
        theatre.play(1)
        theatre.submit(replace(asked("n0", GPU), name=best))
        assert theatre.play(20, lambda b=best: theatre.phase(f"default/{b}") is Phase.RUNNING)
        engine = theatre.placed(f"default/{best}").engines["w"][0]
        assert engine.startswith(best[-2:])


def test_slices_alike_but_for_their_data_are_told_apart():
    theatre = stage()
    theatre.submit(SliceSpec("other", engines={"w": EngineRole((EngineChoice("fpga", count=1),))}))
    theatre.play(5)
    held = theatre.placed("default/other").engines["w"][0]
    free = "n1/fpga0" if held == "n0/fpga0" else "n0/fpga0"
    theatre.submit(
        replace(asked(held, GPU), name="waits"),
        replace(asked(free, GPU, run=100.0), name="goes"),
    )
    theatre.play(5)
    assert theatre.waiting("default/waits").reason is Reason.WAITING_FOR_ENGINES
    assert held in theatre.waiting("default/waits").sentence
    assert theatre.placement("default/goes") is not None


def test_broken_rules_leave_those_before_in_force():
    theatre = stage()
    told(theatre, **{"gpu-n1": 100.0, "gpu-n0": 1.0})
    theatre.write(Put(keys.PLANNER, b'{"weights": 7}'))
    theatre.play(1)
    theatre.submit(asked("n0", GPU))
    assert theatre.play(20, lambda: theatre.phase("default/s") is Phase.RUNNING)
    assert theatre.placed("default/s").engines["w"][0].startswith("n1/gpu")


def test_slice_whose_data_s_node_is_lost_gives_all_back_and_waits_for_its_data():
    theatre = stage(each=True)
    told(theatre, **{"gpu-n1": 100.0, "fpga-n0": 1.0})
    theatre.submit(asked("n0/fpga0", GPU, FPGA, run=500.0))
    assert theatre.play(20, lambda: theatre.phase("default/s") is Phase.RUNNING)
    next(player for player in theatre.players if player.name == "n0").die()
    theatre.play(60)
    assert theatre.phase("default/s") is Phase.PENDING
    waiting = theatre.waiting("default/s")
    assert waiting.reason is Reason.WAITING_FOR_ENGINES
    assert "n0/fpga0" in waiting.sentence
    assert not theatre.held("default/s")
    assert not theatre.violations
