"""Each weight of the score can change a plan: a small cell for each, in which raising it does.

All but those of bitstreams and of parts are of plain gangs: whole engines, nothing to load. Chance
has no part in it: the seed is 0.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import NamedTuple

import pytest

from flowos.model.cell import Bitstream, Watts
from flowos.model.placement import Decision, Placement
from flowos.model.rules import PlannerRules
from flowos.model.slice import HostRole, SliceSpec, Work
from flowos.planning.engines.pool import Pool
from flowos.planning.engines.weights import DEFAULT, Weights
from flowos.planning.place import plan
from tests.unit.planning.cells import (
    BITSTREAM,
    OTHER,
    fpgas,
    gpus,
    hold,
    leaves,
    load,
    node,
    power_off,
    request,
    ring,
    view_of,
    want,
)


class Case(NamedTuple):
    """A cell, a request, and the first node that is taken with a low and with a high weight."""

    pool: Pool
    spec: SliceSpec
    low: float
    high: float
    before: str
    after: str
    others: Mapping[str, float] = MappingProxyType({})


def one_just_freed() -> Pool:
    """Node n0 is all free and never was in use; of n1 one engine is free, since a moment."""
    view = view_of(*(node(f"n{n}", *gpus(f"n{n}", 4)) for n in range(2)))
    hold(view, "engine/n1/gpu0", "engine/n1/gpu1", "engine/n1/gpu2")
    hold(view, "engine/n1/gpu3", by="a/gone")
    pool = Pool(view)
    pool.fold()
    view.retract("a/gone")
    return pool


def idle() -> Case:
    return Case(one_just_freed(), request(w=want()), 0, DEFAULT.idle, "n1", "n0")


def leftover() -> Case:
    return Case(one_just_freed(), request(w=want()), DEFAULT.leftover, 4, "n0", "n1")


def leaf() -> Case:
    view = leaves(2, nodes_each=2)
    hold(view, "engine/n3/gpu0", "engine/n3/gpu1")
    return Case(Pool(view), request(ring("w"), w=want(2)), DEFAULT.leaf, 1, "n0", "n2")


def uplinks() -> Case:
    view = leaves(2, lanes=2)
    hold(view, "lane/l0-s0/fwd/0")
    return Case(Pool(view), request(ring("w"), w=want(2)), DEFAULT.uplinks, 2, "n0", "n1")


def watts() -> Case:
    view = view_of(
        node("hungry", *gpus("hungry", 1, "A", watts=Watts(0, 50, 400))),
        node("frugal", *gpus("frugal", 4, "B", watts=Watts(0, 50, 100))),
    )
    return Case(Pool(view), request(w=want()), 0, DEFAULT.watts, "hungry", "frugal")


def two_models() -> Pool:
    view = view_of(
        node("slow", *gpus("slow", 1, "A")),
        node("fast", *gpus("fast", 4, "B")),
    )
    view.planner = PlannerRules(speeds={"train": {"A": 1.0, "B": 4.0}})
    return Pool(view)


def at_work(spec: SliceSpec) -> SliceSpec:
    return replace(spec, work={"w": Work("train")})


def speed() -> Case:
    return Case(two_models(), at_work(request(w=want())), 0, DEFAULT.speed, "slow", "fast")


def wake() -> Case:
    pool = two_models()
    for n in range(4):
        power_off(pool.view, f"fast/gpu{n}")
    return Case(pool, at_work(request(w=want())), 1, DEFAULT.wake, "fast", "slow")


def afar() -> Case:
    """All nodes that are home were in use a moment ago; n15, of another's, never was."""
    names = [f"n{n:02}" for n in range(16)]
    view = view_of(*(node(name, *gpus(name, 1 + (name == "n15"))) for name in names))
    pool = Pool(view)
    pool.divide(0, 2)
    assert pool.is_afar("n15")
    for name in names[:-1]:
        hold(view, f"engine/{name}/gpu0", by=f"a/{name}")
    pool.fold()
    for name in names[:-1]:
        view.retract(f"a/{name}")
        pool.fold()
    return Case(pool, request(w=want()), 0, DEFAULT.afar, "n15", "n00", {"idle": 4.0})


def fragments() -> Case:
    """Pairs with 8 CPUs usually come; the better fit would leave an engine without a partner."""
    view = view_of(
        node("odd", *gpus("odd", 2), cpu=8),
        node("even", *gpus("even", 3), cpu=64),
        node("busy", *gpus("busy", 8), cpu=64),
    )
    for n in range(4):
        units = dict.fromkeys([f"engine/busy/gpu{2 * n}", f"engine/busy/gpu{2 * n + 1}"], ())
        held = {**units, "host/busy": (8000, 0)}
        pair = (f"busy/gpu{2 * n}", f"busy/gpu{2 * n + 1}")
        placement = Placement(
            1, f"a{n}", held=held, engines={"w": pair}, hosts={"w": ("busy", "busy")}
        )
        view.assume(f"a/{n}", placement)
    return Case(Pool(view), request(w=want()), 0, DEFAULT.fragments, "odd", "even")


THIRD = Bitstream("hash", "sha256:cc", "fpga", function="hash")


def loads() -> Case:
    view = view_of(BITSTREAM, OTHER, node("hot", *fpgas("hot", 8)), node("cold", *fpgas("cold", 1)))
    for n in range(8):
        load(view, f"hot/fpga{n}", BITSTREAM)
    load(view, "cold/fpga0", OTHER)
    spec = request(w=want(1, "fpga", bitstream="sum"))
    return Case(Pool(view), spec, 0, DEFAULT.load, "cold", "hot", {"evict": 0.0})


def evict() -> Case:
    view = view_of(
        BITSTREAM, OTHER, THIRD, *(node(name, *fpgas(name, 1)) for name in ("a", "b", "c"))
    )
    load(view, "a/fpga0", OTHER)
    load(view, "b/fpga0", OTHER)
    load(view, "c/fpga0", THIRD)
    spec = request(w=want(1, "fpga", bitstream="sum"))
    return Case(Pool(view), spec, 0, DEFAULT.evict, "a", "c")


CASES: dict[str, Callable[[], Case]] = {
    "load": loads,
    "evict": evict,
    "wake": wake,
    "idle": idle,
    "watts": watts,
    "leftover": leftover,
    "leaf": leaf,
    "fragments": fragments,
    "uplinks": uplinks,
    "speed": speed,
    "afar": afar,
}


def test_there_is_a_cell_for_each_weight():
    assert list(CASES) == list(Weights._fields)


@pytest.mark.parametrize("more", [{"hosts": {"w": HostRole(1000, 0)}}, {"together": "switch"}])
@pytest.mark.parametrize(("weight", "found"), [(0.0, "n1"), (DEFAULT.idle, "n0")])
def test_longest_idle_comes_first_beside_host_resources_and_on_one_switch(more, weight, found):
    view = leaves(2, gpus_each=4)
    hold(view, "engine/n1/gpu0", "engine/n1/gpu1")
    hold(view, "engine/n1/gpu2", by="a/gone")
    pool = Pool(view)
    pool.fold()
    view.retract("a/gone")
    weights = DEFAULT._replace(idle=weight)
    decision = plan(pool, request(w=want(), **more), weights=weights)
    assert isinstance(decision, Decision), decision
    assert decision.engines["w"][0].partition("/")[0] == found


@pytest.mark.parametrize("name", CASES)
def test_raising_a_weight_changes_the_plan(name: str):
    case = CASES[name]()
    found = []
    for weight in (case.low, case.high):
        weights = DEFAULT._replace(**{**case.others, name: weight})
        decision = plan(case.pool, case.spec, weights=weights)
        assert isinstance(decision, Decision), decision
        found.append(decision.engines["w"][0].partition("/")[0])
    assert found == [case.before, case.after]
