"""Is nothing held twice, nothing lost, and each run the same again, in every architecture?"""

import random
from dataclasses import replace

import pytest

from flowos.documents.presets import preset
from flowos.model.cell import Cell
from flowos.model.placement import Decision
from flowos.model.slice import (
    CircuitWish,
    EngineChoice,
    EngineRole,
    HostRole,
    Shape,
    SliceSpec,
)
from flowos.model.units import subject_of
from flowos.simulation.architectures.ground import all_of
from flowos.simulation.architectures.parts import members, merged, smaller
from flowos.simulation.architectures.run import Run, run
from flowos.simulation.architectures.setup import Architecture, OfferRules, PowerRules, Setup
from flowos.simulation.full.setup import Arrival
from flowos.simulation.light.schedulers import Pace
from tests.simulation.test_architectures import pooled

PACES = {"x": Pace(0.1, 0.05), "y": Pace(3.0, 0.5)}
SECONDS = 100.0
OFFERS = [
    OfferRules(devices, dealing, hold_s=hold_s)
    for devices in ("own", "optimistic", "pessimistic")
    for dealing in ("nodes", "whole")
    for hold_s in (0.0, 10.0)
]
ALONE: list[Architecture] = [
    "monolithic-single",
    "monolithic-multi",
    "shared-frozen",
    "shared-live",
]
WAYS: list[Architecture | OfferRules] = [*ALONE, *OFFERS]


def attached(number: int, gpus: int, policy: str) -> SliceSpec:
    """Return a slice of a host for each four GPUs, which circuits attach to it."""
    engines, hosts, circuits = {}, {}, []
    for part, first in enumerate(range(0, gpus, 4)):
        role, host = f"gpus{part}", f"driver{part}"
        engines[role] = EngineRole((EngineChoice("gpu", count=min(4, gpus - first)),))
        hosts[host] = HostRole(3000, 8 << 30, 1)
        circuits.append(CircuitWish(Shape.FLOW, (host, role)))
    return SliceSpec(
        f"s{number}", policy=policy, engines=engines, hosts=hosts, circuits=tuple(circuits)
    )


def load(seed: int) -> list[Arrival]:
    dice = random.Random(seed)
    now, found = 0.0, []
    for number in range(30):
        now += dice.expovariate(1 / 3)
        spec = attached(number, dice.choice((1, 1, 2, 3, 4, 6, 8)), dice.choice("xy"))
        found.append(Arrival(now, spec, dice.expovariate(1 / 15)))
    return found


def setup_of(cell: Cell, way: Architecture | OfferRules, seed: int) -> Setup:
    power = PowerRules(off_after_s=15, wake_s=4)
    setup = Setup(cell, "offers", PACES, SECONDS, {"x": 2}, power=power, seed=seed, sample_s=25)
    if isinstance(way, OfferRules):
        return replace(setup, offers=way)
    return replace(setup, architecture=way)


def nothing_is_held_twice(found: Run) -> None:
    view = found.ground.view
    for unit, names in view.holders.items():
        firm = [name for name in names if not name.startswith("~off/")]
        assert len(firm) <= 1, (unit, names)
    for node in view.cell.nodes:
        assert min(view.free_host(node)) >= 0
        assert (view.free_devices(node) or 0) >= 0


def nothing_is_lost(found: Run) -> None:
    """Hold that whatever no slice has is in an offer, or waits to be offered."""
    view, allocator = found.ground.view, found.allocator
    assert allocator is not None
    optimistic = found.setup.offers.devices == "optimistic"
    for unit, amounts in all_of(view).items():
        if unit.startswith("host/"):
            assert view.free_host(subject_of(unit)) == (0, 0), unit
        elif not optimistic:
            names = [n for n in view.holders.get(unit, ()) if not n.startswith("~off/")]
            assert len(names) == 1, (unit, amounts)


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("cell", [preset("expether"), pooled(3, 9)], ids=["expether", "pooled"])
def test_no_unit_is_held_twice_and_none_is_lost(cell: Cell, way: Architecture | OfferRules) -> None:
    found = Run(setup_of(cell, way, seed=3), load(3))
    line = found.line
    while line.next_at() <= SECONDS:
        line.run(line.next_at())
        nothing_is_held_twice(found)
        if isinstance(way, OfferRules):
            nothing_is_lost(found)
    figures = found.run()
    assert figures.placed > 3
    assert 0 < figures.useful + figures.hoarded + figures.waking <= 1


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_seed_gives_the_same_run_again(way: Architecture | OfferRules) -> None:
    once = run(setup_of(preset("expether"), way, seed=5), load(5))
    assert once == run(setup_of(preset("expether"), way, seed=5), load(5))


def test_a_slice_falls_into_members_that_no_circuit_joins() -> None:
    spec = attached(0, 10, "x")
    assert [list(m.engines) for m in members(spec)] == [["gpus0"], ["gpus1"], ["gpus2"]]
    ring = CircuitWish(Shape.RING, ("gpus0", "gpus2"))
    joined = members(replace(spec, circuits=(*spec.circuits, ring)))
    assert [list(m.engines) for m in joined] == [["gpus0", "gpus2"], ["gpus1"]]


def test_what_can_be_had_before_the_rest_comes_in_order_of_size() -> None:
    counts = [
        sum(role.choices[0].count for role in part.engines.values())
        for part in smaller(attached(0, 10, "x"))
    ]
    assert counts == [4, 8]
    counts = [part.engines["gpus0"].choices[0].count for part in smaller(attached(0, 4, "x"))]
    assert counts == [1, 2, 3]


def test_members_on_one_host_add_up() -> None:
    one = Decision({"a": ("n/g0",)}, {"engine/n/g0": (), "host/n": (1000, 5, 1)})
    two = Decision({"b": ("n/g1",)}, {"engine/n/g1": (), "host/n": (500, 7, 2)})
    both = merged([one, two])
    assert both.units == {"engine/n/g0": (), "engine/n/g1": (), "host/n": (1500, 12, 3)}
