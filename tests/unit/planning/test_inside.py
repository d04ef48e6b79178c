"""Circuits within one switch that are remembered: are they the ones that would be laid anew?"""

from dataclasses import replace

import pytest

from flowos.model.placement import Decision, Placement
from flowos.model.slice import CircuitWish, EngineChoice, EngineRole, Shape
from flowos.planning.circuits import inside
from flowos.planning.demand import demand_of
from flowos.planning.engines.pool import Pool
from flowos.planning.place import plan
from tests.unit.planning.cells import hold, leaves, placed, request, ring, want
from tests.unit.planning.laws import faults


def everyone(role):
    return CircuitWish(Shape.ALL, (role,))


def again(pool, spec, **options):
    found = plan(pool, spec, **options)
    assert isinstance(found, Decision), found
    return found


def remembered(pool) -> int:
    return len(pool.inside._laid)


SHAPES = [
    request(ring("w"), w=want(4)),
    request(everyone("w"), w=want(4)),
    request(ring("w"), everyone("w"), w=want(4)),
    # A ring over both leaves goes first, and leaves each leaf's engines fewer lanes.
    request(ring("a", "b"), everyone("a"), everyone("b"), together="switch", a=want(4), b=want(4)),
]


@pytest.mark.parametrize("spec", SHAPES, ids=["ring", "all", "both", "over two leaves"])
def test_what_is_remembered_is_what_is_laid_anew(spec):
    view = leaves(2, gpus_each=4, lanes=4, port_lanes=5)
    pool = Pool(view)
    first = again(pool, spec)
    assert remembered(pool) > 0
    second = again(pool, spec)
    assert second == first == placed(view, spec)
    assert faults(view, spec, second) == []


def test_only_the_names_are_new():
    view = leaves(1, gpus_each=4)
    pool = Pool(view)
    spec = request(ring("w"), w=want(4))
    first, other = again(pool, spec), again(pool, replace(spec, name="other"))
    assert [c.id for c in other.circuits] == [f"other/{n}" for n in range(4)]
    assert (
        tuple(replace(c, id=c.id.replace("other", "t")) for c in other.circuits) == first.circuits
    )


def test_a_lane_that_is_gone_since_is_not_taken_again():
    view = leaves(1, gpus_each=4, port_lanes=2)
    pool = Pool(view)
    spec = request(ring("w"), w=want(4))
    first = again(pool, spec)
    arc = first.circuits[0].arcs[0]
    lane = f"lane/{arc.link}/{arc.direction}/{arc.lanes[0]}"
    hold(view, lane, by="~drain/lane")
    second = again(pool, spec)
    assert second.circuits[0].arcs[0] != arc
    assert second == placed(view, spec)
    assert faults(view, spec, second) == []


def test_nothing_stays_taken_after_a_plan():
    view = leaves(2, gpus_each=4, lanes=4, port_lanes=5)
    pool = Pool(view)
    before = list(pool.graph.free)
    for _ in range(3):
        again(pool, SHAPES[3])
    assert pool.graph.free[: len(before)] == before
    assert not pool.graph.journal
    for arc in range(len(pool.graph.free)):
        assert pool.graph.free[arc] == (1 << pool.graph.lanes[arc]) - 1


def test_arcs_that_have_new_numbers_make_it_forget(monkeypatch):
    view = leaves(2, gpus_each=4)
    pool = Pool(view)
    spec = request(ring("w"), w=want(4))
    first = again(pool, spec)
    monkeypatch.setattr("flowos.planning.circuits.graph._REMEMBERED_MAX", 1)
    pool.graph.ports("n1/gpu0")
    pool.graph.tidy()
    pool.graph.ports("n1/gpu0")  # it gets the number that one of the first node had
    assert again(pool, spec) == first == placed(view, spec)


def test_it_does_not_remember_without_end(monkeypatch):
    monkeypatch.setattr(inside, "_REMEMBERED_MAX", 2)
    view = leaves(4, gpus_each=2)
    pool = Pool(view)
    for number in range(4):
        found = again(pool, request(ring("w"), w=want(2)))
        view.assume(f"x/{number}", Placement(1, f"a{number}", held=found.units))
        assert 0 < remembered(pool) <= 2


def test_what_may_be_shared_is_not_remembered_for_its_lanes_are_claimed():
    pool = Pool(leaves(1, gpus_each=2))
    either = EngineRole((EngineChoice("gpu", count=2), EngineChoice("gpu", share_millis=500)))
    assert demand_of(pool, request(ring("w"), w=either)).seatings == ()
    assert demand_of(pool, request(ring("w"), w=want(2))).seatings != ()
