"""A host takes no more attached devices than it says, over all slices, and who waits is told so."""

from dataclasses import replace

import pytest

from flowos.model.cell import Link, Node, Switch, Thing
from flowos.model.placement import Decision, Placement
from flowos.model.slice import CircuitWish, HostRole, Reason, Shape
from flowos.planning.engines.pool import Pool
from flowos.planning.place import plan
from flowos.planning.reasons.last_word import empty_pool
from tests.unit.planning.cells import GIB, gpus, node, ports, request, view_of, want
from tests.unit.planning.laws import faults

TO = CircuitWish(Shape.FLOW, ("driver", "w"))
BACK = CircuitWish(Shape.FLOW, ("w", "driver"))
DRIVER = {"driver": HostRole(1000, GIB, 1)}


def pooled(*limits, devices=8):
    """Hosts with these limits, and devices in boxes of their own, all on one switch."""
    things: list[Thing] = [Switch("sw", latency_ns=100)]
    for number, most in enumerate(limits):
        name = f"h{number}"
        things.append(Node(name, 16_000, 64 * GIB, devices_max=most))
        things.append(Link(f"{name}-nic", f"{name}:0", f"sw:{name}", 16))
    for number in range(devices):
        engines = gpus(f"box{number}", 1)
        things += node(f"box{number}", *engines)
        things += ports(engines, "sw", lanes=4)
    return view_of(*things)


def attach(count, name="t"):
    return replace(request(TO, BACK, w=want(count), hosts=DRIVER), name=name)


def placed(view, spec):
    found = plan(Pool(view), spec)
    assert isinstance(found, Decision), found
    assert faults(view, spec, found) == []
    view.assume(spec.id, Placement(1, spec.name, held=found.units, circuits=found.circuits))
    return found


def refused(view, spec):
    found = plan(Pool(view), spec)
    assert not isinstance(found, Decision), found
    return found


def test_attached_devices_are_held_of_the_host():
    view = pooled(4)
    found = placed(view, attach(3))
    assert found.units["host/h0"] == (1000, GIB, 3)  # each once, though joined both ways
    assert view.free_devices("h0") == 1


def test_host_without_a_limit_holds_room_for_none():
    view = pooled(0)
    assert placed(view, attach(8)).units["host/h0"] == (1000, GIB)
    assert view.free_devices("h0") is None


def test_devices_of_all_slices_count_until_they_are_given_back():
    view = pooled(4)
    placed(view, attach(3, "first"))
    answer = refused(view, attach(2, "second"))
    assert answer.reason is Reason.WAITING_FOR_ENGINES
    assert answer.sentence == (
        "driver: 2 devices to be attached to one node, 0 of 1 take so many more now: "
        "h0 takes 1 more of its 4"
    )
    placed(view, attach(1, "small"))
    view.retract("default/first")
    placed(view, attach(3, "third"))


def test_another_host_is_taken_where_the_tightest_is_full():
    view = pooled(2, 4)
    assert placed(view, attach(2, "a")).hosts["driver"] == ("h0",)
    assert placed(view, attach(2, "b")).hosts["driver"] == ("h1",)
    assert placed(view, attach(2, "c")).hosts["driver"] == ("h1",)
    assert refused(view, attach(1, "d")).reason is Reason.WAITING_FOR_ENGINES


def test_room_at_another_host_is_no_help_to_who_names_one():
    view = pooled(2, 4)
    here = replace(attach(2), hosts={"driver": HostRole(1000, GIB, 1, at="h0")})
    assert placed(view, here).hosts["driver"] == ("h0",)
    answer = refused(view, replace(here, name="again"))
    assert answer.reason is Reason.WAITING_FOR_ENGINES
    assert "h0 takes 0 more of its 2" in answer.sentence


@pytest.mark.parametrize("limits", [(2,), (2, 3)])
def test_more_devices_than_any_host_takes_can_never_be(limits):
    answer = refused(pooled(*limits), attach(4))
    assert answer.reason is Reason.INFEASIBLE
    assert answer.sentence == (
        f"driver: 4 devices to be attached to one node, 0 of {len(limits)} take so many: "
        f"h{len(limits) - 1} takes at most {limits[-1]} at once"
    )


def test_role_of_several_hosts_needs_room_at_each():
    view = pooled(4, 4)
    both = request(TO, w=want(3), hosts={"driver": HostRole(1000, GIB, 2)})
    first = placed(view, both)
    assert {first.units[f"host/h{n}"] for n in (0, 1)} == {(1000, GIB, 3)}
    answer = refused(view, replace(both, name="again"))
    assert answer.reason is Reason.WAITING_FOR_ENGINES
    assert "attached to each of 2 nodes, 0 of 2 take so many more now" in answer.sentence


def test_roles_of_one_slice_share_what_a_host_takes():
    view = pooled(4)
    spec = request(
        TO,
        CircuitWish(Shape.FLOW, ("second", "disk")),
        w=want(2),
        disk=want(2),
        hosts={**DRIVER, "second": HostRole(1000, GIB, 1)},
    )
    assert placed(view, spec).units["host/h0"] == (2000, 2 * GIB, 4)
    more = replace(spec, engines={**spec.engines, "disk": want(3)})
    assert refused(pooled(4), more).reason is Reason.INFEASIBLE


def test_of_two_choices_the_one_that_the_host_takes_is_looked_at():
    view = pooled(2)
    few, many = want(2).choices[0], want(4).choices[0]
    spec = attach(2)
    either = replace(spec, engines={"w": replace(spec.engines["w"], choices=(few, many))})
    assert placed(view, either).units["host/h0"] == (1000, GIB, 2)


def test_ring_attaches_only_the_neighbours_of_a_host():
    view = pooled(2)
    ring = request(CircuitWish(Shape.RING, ("w", "driver")), w=want(6), hosts=DRIVER)
    assert placed(view, ring).units["host/h0"] == (1000, GIB, 2)


def test_circuits_between_devices_attach_nothing():
    view = pooled(1)
    spec = request(TO, CircuitWish(Shape.RING, ("peers",)), w=want(1), peers=want(4), hosts=DRIVER)
    assert placed(view, spec).units["host/h0"] == (1000, GIB, 1)


def test_limit_that_is_full_is_no_matter_to_hosts_that_attach_nothing():
    view = pooled(1)
    placed(view, attach(1, "full"))
    plain = request(w=want(1), hosts=DRIVER)
    assert placed(view, replace(plain, name="plain")).units["host/h0"] == (1000, GIB)


def test_empty_cell_has_room_again():
    view = pooled(2)
    placed(view, attach(2, "full"))
    pool = Pool(view)
    pool.fold()
    assert isinstance(plan(empty_pool(pool), attach(2)), Decision)
