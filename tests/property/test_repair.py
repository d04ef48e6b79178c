"""Whatever a rival takes of a plan: what is repaired keeps the laws, and the members that it can."""

from dataclasses import replace
from random import Random

import pytest

from flowos.model.placement import Decision
from flowos.model.slice import CircuitWish, EngineChoice, EngineRole, HostRole, Shape
from flowos.model.units import engine_unit, kind_of
from flowos.planning.engines.pool import Pool
from flowos.planning.place import plan
from flowos.planning.repair import repaired
from tests.property.small_cells import small_request, small_view
from tests.unit.planning.cells import hold, leaves, placed, request, ring, want
from tests.unit.planning.laws import faults


def engines_of(decision: Decision) -> list[str]:
    return [engine for members in decision.engines.values() for engine in members]


def test_in_small_cells_with_something_wrong_in_each():
    mended = 0
    for seed in range(3_000):
        dice = Random(seed)
        view, spec = small_view(seed, engines_max=20), small_request(seed)
        pool = Pool(view)
        first = plan(pool, spec)
        if not isinstance(first, Decision):
            continue
        whole = [u for u in first.units if kind_of(u) in ("engine", "lane") and not view.holder(u)]
        if not whole:
            continue
        lost = dice.sample(whole, dice.randint(1, min(2, len(whole))))
        hold(view, *lost, by="rival/r")
        found = repaired(pool, spec, first, lost, seed=dice.choice([0, seed]))
        if found is None:
            continue
        mended += 1
        assert faults(view, spec, found) == [], seed
        stays = [e for e in engines_of(first) if engine_unit(e) not in lost]
        assert set(stays) <= set(engines_of(found)), seed
        for role, members in first.engines.items():
            for rank, engine in enumerate(members):
                if engine in stays:
                    assert found.engines[role][rank] == engine, seed
    assert mended > 50, mended


def test_one_member_of_a_large_ring_is_replaced_and_all_others_stay():
    view = leaves(4, gpus_each=4, lanes=8, port_lanes=2)
    spec = request(ring("w"), w=want(9))
    first = placed(view, spec)
    gone = first.engines["w"][4]
    hold(view, engine_unit(gone), by="rival/r")
    found = repaired(Pool(view), spec, first, [engine_unit(gone)])
    assert found is not None
    assert [(a, b) for a, b in zip(first.engines["w"], found.engines["w"], strict=True) if a != b]
    changed = [n for n in range(9) if first.engines["w"][n] != found.engines["w"][n]]
    assert changed == [4]
    assert faults(view, spec, found) == []


def test_the_host_of_the_lost_member_is_given_up_and_the_new_one_s_is_taken():
    view = leaves(2, gpus_each=3, cpu=8)  # its new place is beside one that stays
    hosts = {"w": HostRole(cpu_millis=2000, memory_bytes=1 << 30)}
    spec = request(hosts=hosts, w=want(4))
    first = placed(view, spec)
    gone = first.engines["w"][0]
    hold(view, engine_unit(gone), by="rival/r")
    found = repaired(Pool(view), spec, first, [engine_unit(gone)])
    assert found is not None
    assert faults(view, spec, found) == []
    assert sum(a[0] for u, a in found.units.items() if kind_of(u) == "host") == 8000


@pytest.mark.parametrize(
    "spec",
    [
        request(w=want(4), together="node"),
        request(w=EngineRole((EngineChoice("gpu", count=4), EngineChoice("fpga", count=1)))),
    ],
    ids=["together", "either or"],
)
def test_what_is_not_simple_is_planned_anew(spec):
    view = leaves(3, gpus_each=4)
    first = placed(view, spec)
    gone = engine_unit(engines_of(first)[0])
    hold(view, gone, by="rival/r")
    assert repaired(Pool(view), spec, first, [gone]) is None


def test_nothing_is_repaired_where_more_was_lost_than_kept():
    view = leaves(4, gpus_each=4)
    spec = request(w=want(4))
    first = placed(view, spec)
    lost = [engine_unit(e) for e in engines_of(first)[:3]]
    hold(view, *lost, by="rival/r")
    assert repaired(Pool(view), spec, first, lost) is None


def test_what_else_is_gone_since_is_not_taken_for_free():
    view = leaves(4, gpus_each=4)
    spec = request(w=want(8))
    first = placed(view, spec)
    one, other, *_ = map(engine_unit, engines_of(first))
    hold(view, one, other, by="rival/r")
    assert repaired(Pool(view), spec, first, [one]) is None


def test_a_plan_for_fewer_ranks_than_circuits_name_by_now_is_made_anew():
    view = leaves(1, gpus_each=4, port_lanes=2)
    first = placed(view, request(ring("w"), w=want(2)))
    gone = engine_unit(first.engines["w"][0])
    hold(view, gone, by="rival/r")
    by_rank = CircuitWish(Shape.EXPLICIT, ("w",), links=((0, 2),))
    pool = Pool(view)
    assert repaired(pool, request(by_rank, w=want(3)), first, [gone]) is None
    two = replace(by_rank, links=((0, 1),))
    assert repaired(pool, request(two, w=want(2)), first, [gone]) is not None
