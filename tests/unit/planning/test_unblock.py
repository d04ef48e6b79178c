"""What would let a request be placed: who goes, what is woken, what is accepted instead."""

from flowos.model.placement import Placement
from flowos.model.slice import HostRole
from flowos.planning.engines.pool import Pool
from flowos.planning.reasons.unblock import unblock, without
from tests.unit.planning.cells import (
    hold,
    hold_part,
    leaves,
    power_off,
    request,
    ring,
    want,
)
from tests.unit.planning.pictures import kept_is_fresh


def helped(view, spec, ends=None, priorities=None):
    items = unblock(Pool(view), spec, (ends or {}).get, priority_of=(priorities or {}).get)
    return [(i.sort, i.names or i.engines or i.words, i.eta_s) for i in items]


def full(count=4):
    view = leaves(2, gpus_each=2)
    for n in range(count):
        hold(view, f"engine/n{n // 2}/gpu{n % 2}", by=f"a/s{n}")
    return view


def test_whoever_alone_is_enough_is_waited_for_the_soonest_first():
    found = helped(full(), request(w=want(1)), {"a/s0": 90.0, "a/s1": 30.0, "a/s3": 60.0})
    assert found == [
        ("wait", ("a/s1",), 30.0), ("wait", ("a/s3",), 60.0), ("wait", ("a/s0",), 90.0)
    ]  # fmt: skip


def test_where_one_is_not_enough_those_that_end_first_are_waited_for_together():
    found = helped(full(), request(w=want(2)), {"a/s0": 90.0, "a/s1": 30.0, "a/s3": 60.0})
    assert found == [("wait", ("a/s1", "a/s3"), 60.0)]


def test_who_is_not_needed_in_a_group_is_left_out():
    # s1 ends first, but only n0's two engines together help a gang on one node.
    ends = {"a/s2": 10.0, "a/s0": 20.0, "a/s1": 30.0, "a/s3": 99.0}
    waits = [i for i in helped(full(), request(w=want(2), together="node"), ends) if i[0] == "wait"]
    assert waits == [("wait", ("a/s0", "a/s1"), 30.0)]


def test_request_that_fits_is_told_what_it_wakes():
    view = leaves(1, gpus_each=2)
    assert helped(view, request(w=want(2))) == [("place", "", None)]
    power_off(view, "n0/gpu1")
    assert helped(view, request(w=want(2))) == [("wake", ("n0/gpu1",), None)]


def test_another_switch_is_to_be_accepted_where_that_helps():
    view = full(0)
    hold(view, "engine/n0/gpu0", by="a/s0")
    hold(view, "engine/n1/gpu0", by="a/s1")
    found = helped(view, request(w=want(2), together="switch"), {"a/s0": 5.0, "a/s1": 7.0})
    assert found[:2] == [("wait", ("a/s0",), 5.0), ("wait", ("a/s1",), 7.0)]
    assert found[2][:2] == ("accept", "accept another switch for some of w (together: any)")
    assert found[3][:2] == ("accept", "accept 1 of 2 engines for w")


def test_longer_circuits_are_to_be_accepted_where_that_helps():
    view = full(0)
    hold(view, "engine/n0/gpu0", by="a/s0")
    hold(view, "engine/n1/gpu0", by="a/s1")
    spec = request(ring("w"), w=want(2), max_hops=2)
    words = [what for sort, what, _ in helped(view, spec) if sort == "accept"]
    assert words[0] == "accept circuits of more than 2 links (no max_hops)"


def test_lower_priorities_can_be_pre_empted():
    view = full()
    found = helped(view, request(w=want(1)), priorities={"a/s0": -1, "a/s1": 0, "a/s2": 1})
    assert [i for i in found if i[0] == "preempt"] == [("preempt", ("a/s0",), 0)]


def test_drained_engines_can_be_given_back_by_the_operator():
    view = full(0)
    view.assume("~drain/node/n0", Placement(0, "d", held={"node/n0": ()}))
    hold(view, "engine/n1/gpu0", "engine/n1/gpu1", by="a/s0")
    found = helped(view, request(w=want(2)))
    assert {sort for sort, *_ in found} == {"wait", "undrain"}
    assert ("undrain", ("~drain/node/n0",), None) in found


def test_who_holds_the_lanes_or_the_hosts_is_waited_for_too():
    view = leaves(2, gpus_each=1)
    hold(view, "lane/l0-s0/fwd/0", by="a/lanes")
    assert ("wait", ("a/lanes",), None) in helped(view, request(ring("w"), w=want(2)))
    view = leaves(1, gpus_each=1)
    hold_part(view, "host/n0", 8000, 0, by="a/host")
    spec = request(w=want(1), hosts={"w": HostRole(1000)})
    assert helped(view, spec) == [("wait", ("a/host",), None)]


def test_nothing_helps_what_can_never_be():
    assert helped(full(), request(w=want(9, "tpu"))) == []


def test_view_is_as_before():
    view = full()
    pool = Pool(view)
    with without(view, ["a/s0", "a/none"]):
        assert "engine/n0/gpu0" not in view.holders
    assert view.holders["engine/n0/gpu0"] == ("a/s0",)
    assert kept_is_fresh(pool)
