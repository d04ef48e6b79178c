"""Who has to give way: the fewest engines, the least important, the youngest, and nobody for nothing."""

from collections.abc import Collection
from copy import deepcopy
from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as some

from flowos.model.placement import Decision, Ending, Placement, Unplaceable
from flowos.model.slice import HostRole, Phase, Slice, SliceSpec
from flowos.model.view import CellView, Entry
from flowos.planning.engines.pool import Pool
from flowos.planning.place import plan
from flowos.planning.preempt import PLANS_MAX, Preemption, victims
from flowos.protocol.takeover import losses
from tests.unit.planning.cells import (
    GIB,
    gpus,
    hold,
    leaves,
    node,
    power_off,
    request,
    ring,
    view_of,
    want,
)
from tests.unit.planning.pictures import kept_is_fresh

URGENT = 10


def runs(
    view: CellView,
    name: str,
    *units: str,
    priority: int = 0,
    preemptible: bool = True,
    parts: dict[str, tuple[int, ...]] | None = None,
    **more: object,
) -> None:
    """Let a slice run on whole units, and parts; the later it is told, the younger."""
    revision = len(view.placements) + 1
    spec = SliceSpec(name, priority=priority, preemptible=preemptible)
    view.slices[f"default/{name}"] = Entry(Slice(spec), revision, revision)
    held = {**dict.fromkeys(units, ()), **(parts or {})}
    placement = Placement(revision, f"attempt-{name}", held=held, **more)  # type: ignore[arg-type]
    view.assume(f"default/{name}", placement)
    view.settle(f"default/{name}", revision)


def engines(on: str, count: int, first: int = 0) -> list[str]:
    return [f"engine/{on}/gpu{n}" for n in range(first, first + count)]


def asked(view: CellView, spec: SliceSpec, priority: int = URGENT) -> Preemption | None:
    """Ask on a pool that is kept; afterwards it and the view are as they were."""
    pool = Pool(view)
    spec = replace(spec, priority=priority)
    before = deepcopy((view.holders, view.shares, view.hosts, view.lanes_taken))
    found = victims(
        pool, spec, plan=lambda avoid: plan(pool, spec, slice_name=spec.name, avoid=avoid)
    )
    assert before == (view.holders, view.shares, view.hosts, view.lanes_taken)
    assert kept_is_fresh(pool)
    assert not view.supposing
    if found is not None:
        lost = losses(view, found.decision.units, found.victims)
        assert sorted(lost) == list(found.victims), "each of them loses something"
    return found


def names(found: Preemption | None) -> list[str]:
    assert found is not None
    return [name.partition("/")[2] for name in found.victims]


def test_the_least_important_gives_way():
    view = leaves(2, gpus_each=2)
    for n, priority in enumerate((3, 1, 2, 4)):
        runs(view, f"s{n}", f"engine/n{n // 2}/gpu{n % 2}", priority=priority)
    assert names(asked(view, request(w=want(1)))) == ["s1"]
    assert names(asked(view, request(w=want(2)))) == ["s1", "s2"]


def test_the_youngest_of_equals_gives_way():
    view = leaves(2, gpus_each=2)
    for n in range(4):
        runs(view, f"s{n}", f"engine/n{n // 2}/gpu{n % 2}")
    assert names(asked(view, request(w=want(1)))) == ["s3"]


def test_fewer_engines_are_lost_before_the_younger_ones():
    view = leaves(2, gpus_each=4)
    for n in range(4):
        runs(view, f"small{n}", *engines("n0", 1, n))
    runs(view, "large", *engines("n1", 4))
    assert names(asked(view, request(w=want(2)))) == ["small2", "small3"]
    assert names(asked(view, request(w=want(4, share=1000), together="node"))) == ["large"], (
        "as many engines, but one slice that begins anew and not four"
    )


def test_what_is_free_is_taken_first():
    view = leaves(2, gpus_each=4)
    for n in range(3):
        runs(view, f"small{n}", *engines("n0", 1, n))
    for n in range(4):
        runs(view, f"young{n}", *engines("n1", 1, n))
    assert names(asked(view, request(w=want(2), together="node"))) == ["small2"]


def test_nobody_as_important_gives_way():
    view = leaves(1, gpus_each=2)
    runs(view, "equal", "engine/n0/gpu0", priority=URGENT)
    runs(view, "more", "engine/n0/gpu1", priority=URGENT + 1)
    assert asked(view, request(w=want(1))) is None


def unwilling(view: CellView) -> None:
    runs(view, "s", "engine/n0/gpu0", preemptible=False)


def leaving(view: CellView) -> None:
    runs(view, "s", "engine/n0/gpu0", ending=Ending(Phase.DONE))


def half_gone(view: CellView) -> None:
    runs(view, "s", "engine/n0/gpu0", releasing={"host/n0": (1000, 0)})


def waiting(view: CellView) -> None:
    runs(view, "s", "engine/n0/gpu0", waits=("attempt-other",))


def cancelled(view: CellView) -> None:
    runs(view, "s", "engine/n0/gpu0")
    entry = view.slices["default/s"]
    view.slices["default/s"] = entry._replace(value=replace(entry.value, cancelled=True))


def of_an_earlier_slice(view: CellView) -> None:
    runs(view, "s", "engine/n0/gpu0")
    view.slices["default/s"] = view.slices["default/s"]._replace(created=99)


def system(view: CellView) -> None:
    view.assume("~drain/engine/n0/gpu0", Placement(0, "d", held={"engine/n0/gpu0": ()}))


def under_way(view: CellView) -> None:
    runs(view, "s", "engine/n0/gpu0")
    view.assume("default/s", Placement(1, "attempt-s", held={"engine/n0/gpu0": ()}))


def taken_by_another_plan(view: CellView) -> None:
    runs(view, "s", "engine/n0/gpu0", "engine/n0/gpu1")
    hold(view, "engine/n0/gpu1", by="default/taker")


@pytest.mark.parametrize(
    "held",
    [
        unwilling, leaving, half_gone, waiting, cancelled, of_an_earlier_slice, system, under_way,
        taken_by_another_plan,
    ],
)  # fmt: skip
def test_who_cannot_give_way_does_not(held):
    view = leaves(1, gpus_each=2)
    held(view)
    if len(view.holders) == 1:
        runs(view, "important", "engine/n0/gpu1", priority=URGENT)
    assert asked(view, request(w=want(1))) is None


def test_who_is_not_needed_is_spared():
    view = leaves(2, gpus_each=2)
    for n in range(4):
        runs(view, f"s{n}", f"engine/n{n // 2}/gpu{n % 2}", priority=n % 2)
    # The two least important ones are on two nodes; a gang on one node needs one of each sort.
    assert names(asked(view, request(w=want(2), together="node"))) == ["s2", "s3"]


def test_lanes_are_a_reason_too():
    view = leaves(2, gpus_each=1)
    lanes = [f"lane/l{n}-s0/{way}/0" for n in range(2) for way in ("fwd", "rev")]
    runs(view, "lanes", *lanes)
    runs(view, "others", *[])
    assert names(asked(view, request(ring("w"), w=want(2)))) == ["lanes"]


def test_just_what_is_lacking_of_a_host_is_a_reason():
    view = leaves(1, gpus_each=1, cpu=8, memory=64)
    runs(view, "small", parts={"host/n0": (2000, 8 * GIB)})
    runs(view, "large", parts={"host/n0": (4000, 48 * GIB)})
    spec = request(w=want(1), hosts={"w": HostRole(3000, 4 * GIB)})
    assert names(asked(view, spec)) == ["large"], "the younger of two that are enough"
    spec = request(w=want(1), hosts={"w": HostRole(5000, 56 * GIB)})
    assert names(asked(view, spec)) == ["large"], "free are 2,000 and 8 GiB, 4,000 and 48 come"
    spec = request(w=want(1), hosts={"w": HostRole(7000, 4 * GIB)})
    assert names(asked(view, spec)) == ["large", "small"]


def test_those_without_whom_it_goes_too_are_spared_wherever_they_are():
    view = leaves(3, gpus_each=4)
    for number, size in enumerate((1, 3, 4)):
        if size < 4:
            runs(view, f"kept{number}", *engines(f"n{number}", 4 - size, size), priority=URGENT)
        runs(view, f"of{size}", *engines(f"n{number}", size))
    assert names(asked(view, request(w=want(5)))) == ["of1", "of4"]


def test_who_has_too_little_of_a_host_is_spared_beside_who_has_enough():
    view = leaves(1, gpus_each=1, cpu=4)
    runs(view, "large", parts={"host/n0": (3000, 0)})
    runs(view, "young", parts={"host/n0": (1000, 0)})
    assert names(asked(view, request(hosts={"driver": HostRole(3000, count=1)}))) == ["large"]


def shared_node() -> CellView:
    return view_of(*[node(f"n{n}", *gpus(f"n{n}", 1, shareable=True), cpu=8) for n in range(2)])


def test_parts_of_an_engine_come_from_who_has_parts_and_not_from_who_has_it_whole():
    view = shared_node()
    runs(view, "half", parts={"share/n0/gpu0": (600,)})
    runs(view, "whole", "engine/n1/gpu0")
    found = asked(view, request(w=want(1, share=700)))
    assert names(found) == ["half"]
    assert found is not None
    assert losses(view, found.decision.units, found.victims) == {
        "default/half": {"share/n0/gpu0": (300,)}
    }


def test_parts_come_from_several_where_one_is_not_enough():
    view = shared_node()
    runs(view, "whole", "engine/n0/gpu0")
    runs(view, "first", parts={"share/n1/gpu0": (600,)}, priority=1)
    runs(view, "second", parts={"share/n1/gpu0": (300,)}, priority=1)
    assert names(asked(view, request(w=want(1, share=900)))) == ["first", "second"]


def test_an_engine_is_taken_whole_from_all_who_have_parts():
    view = shared_node()
    runs(view, "first", parts={"share/n0/gpu0": (600,)})
    runs(view, "second", parts={"share/n0/gpu0": (300,)})
    runs(view, "important", "engine/n1/gpu0", priority=URGENT)
    assert names(asked(view, request(w=want(1)))) == ["first", "second"]


def test_engines_that_are_off_are_woken_before_anybody_gives_way():
    view = leaves(1, gpus_each=2)
    power_off(view, "n0/gpu0")
    runs(view, "s", "engine/n0/gpu1")
    assert names(asked(view, request(w=want(2)))) == ["s"]


def test_what_nobody_can_make_room_for_is_said_after_one_plan():
    view = leaves(1, gpus_each=2)
    runs(view, "s", *engines("n0", 2))
    asked_for: list[int] = []

    def refuse(_avoid: Collection[str]) -> Decision | Unplaceable:
        asked_for.append(1)
        return plan(pool, spec)

    pool, spec = Pool(view), replace(request(w=want(3)), priority=URGENT)
    assert victims(pool, spec, plan=refuse) is None
    assert len(asked_for) == 1


def test_the_number_of_plans_is_bounded():
    view = leaves(8, gpus_each=8)
    for n in range(64):
        runs(view, f"s{n}", f"engine/n{n // 8}/gpu{n % 8}", priority=n % 3)
    count = 0

    def counted(avoid: Collection[str]) -> Decision | Unplaceable:
        nonlocal count
        count += 1
        return plan(pool, spec, avoid=avoid)

    pool = Pool(view)
    spec = replace(request(w=want(20)), priority=URGENT)
    found = victims(pool, spec, plan=counted)
    assert found is not None
    assert len(found.victims) == 20
    assert {view.slices[name].value.spec.priority for name in found.victims} == {0}
    assert count <= PLANS_MAX


@given(
    some.lists(
        some.tuples(some.integers(0, 4), some.integers(1, 3), some.booleans()),
        min_size=1,
        max_size=8,
    ),
    some.integers(1, 8),
    some.sampled_from(["any", "node", "switch"]),
)
def test_whatever_is_held_victims_may_give_way_all_lose_and_none_is_spare(held, count, together):
    view = leaves(2, gpus_each=4)
    free = [*engines("n0", 4), *engines("n1", 4)]
    for n, (priority, size, preemptible) in enumerate(held):
        mine, free = free[:size], free[size:]
        if mine:
            runs(view, f"s{n}", *mine, priority=priority, preemptible=preemptible)
    spec = replace(request(w=want(count), together=together), priority=3)
    pool = Pool(view)
    ask = partial(victims, pool, spec, plan=lambda avoid: plan(pool, spec, avoid=avoid))
    if isinstance(plan(pool, spec), Decision):
        return
    found = ask()
    lesser = [
        name
        for name in view.placements
        if view.slices[name].value.spec.preemptible and view.slices[name].value.spec.priority < 3
    ]
    with view.lifted(lesser):
        possible = isinstance(plan(pool, spec), Decision)
    assert (found is not None) == possible
    if found is None:
        return
    assert found == ask(), "the same question has the same answer"
    assert set(found.victims) <= set(lesser)
    for name in found.victims:
        with view.lifted([other for other in found.victims if other != name]):
            assert isinstance(plan(pool, spec), Unplaceable), f"{name} need not have given way"
