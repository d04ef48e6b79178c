"""The pool knows what is free, and stays in step with its view."""

import pytest

from flowos.model.cell import Engine, Link, Switch
from flowos.model.codec import encode
from flowos.model.placement import Placement
from flowos.model.transaction import Change
from flowos.planning.engines.pool import CLOSED, NOWHERE, Ladder, Pool
from flowos.planning.engines.stock import Shelf, tag_of
from tests.unit.planning.cells import (
    BITSTREAM,
    fpgas,
    gpus,
    hold,
    hold_part,
    leaves,
    load,
    node,
    ports,
    power_off,
    view_of,
)
from tests.unit.planning.pictures import kept_is_fresh


def free(pool, name="n0"):
    pool.fold()
    return pool.free[pool.numbers[name]]


def small(**more):
    return view_of(node("n0", *gpus("n0", 2, shareable=True), cpu=8, memory=16, **more))


def test_engine_without_claims_is_free_and_on():
    assert free(Pool(small()))[:3] == (0b11, 0, ())


def test_engine_held_whole_is_not_free():
    view = small()
    pool = Pool(view)
    hold(view, "engine/n0/gpu0")
    assert free(pool).on == 0b10
    view.retract("other/held")
    assert free(pool).on == 0b11


def test_engine_that_is_off_can_be_woken():
    view = small()
    pool = Pool(view)
    power_off(view, "n0/gpu1")
    assert (free(pool).on, free(pool).off) == (0b01, 0b10)


def test_node_that_one_placement_keeps_off_can_be_woken():
    view = small()
    pool = Pool(view)
    hold(view, "engine/n0/gpu0", "engine/n0/gpu1", by="~off/n0")
    assert (free(pool).on, free(pool).off) == (0, 0b11)
    view.retract("~off/n0")
    assert (free(pool).on, free(pool).off) == (0b11, 0)


def test_node_that_one_placement_holds_is_free_to_nobody_even_if_put_to_sleep():
    view = small()
    pool = Pool(view)
    hold(view, "engine/n0/gpu0", "engine/n0/gpu1")
    assert (free(pool).on, free(pool).off, free(pool).calm) == (0, 0, 1)
    hold(view, "engine/n0/gpu0", "engine/n0/gpu1", by="~off/n0")
    assert (free(pool).on, free(pool).off) == (0, 0)


def test_engine_that_a_plan_under_way_wakes_is_not_free():
    # Until the commit is seen, both its old and its new holder are in the view.
    view = small()
    power_off(view, "n0/gpu1")
    pool = Pool(view)
    hold(view, "engine/n0/gpu1")
    assert (free(pool).on, free(pool).off) == (0b01, 0)


def test_partly_held_engine_is_not_whole_and_has_a_rest():
    view = small()
    pool = Pool(view)
    hold_part(view, "share/n0/gpu0", 300)
    hold_part(view, "share/n0/gpu0", 200, by="other/second")
    assert (free(pool).on, free(pool).parts) == (0b10, ((0, 500),))


@pytest.mark.parametrize("unit", ["engine/n0/gpu0", "node/n0", "host/n0"])
def test_what_a_drain_waits_for_is_left_alone(unit):
    view = small()
    pool = Pool(view)
    view.assume("~drain/x", Placement(0, "d", wanted=(unit,)))
    after = free(pool)
    assert after.on == {"engine/n0/gpu0": 0b10, "node/n0": 0, "host/n0": 0b11}[unit]
    assert after.cpu_millis == (8000 if unit.startswith("engine") else -1)
    view.retract("~drain/x")
    assert free(pool).on == 0b11


def test_node_out_of_service_offers_nothing():
    view = small()
    pool = Pool(view)
    hold(view, "node/n0", by="~drain/node/n0")
    assert free(pool)[:5] == (0, 0, (), -1, -1)


def test_host_resources_are_what_nobody_holds():
    view = small()
    pool = Pool(view)
    hold_part(view, "host/n0", 3000, 2**30)
    assert free(pool)[3:5] == (5000, 15 * 2**30)


def test_leaf_is_the_tier_0_switch_of_an_engines_port():
    both, upper, none = gpus("n0", 3)
    view = view_of(
        Switch("l0"),
        Switch("s0", tier=1),
        node("n0", both, upper, none),
        Link("low", f"{both.id}:0", "l0:0", lanes=2),
        Link("high", "s0:0", f"{both.id}:1"),
        Link("only", f"{upper.id}:0", "s0:1"),
    )
    pool = Pool(view)
    site = pool.sites[0]
    assert site is not None
    assert dict(site.leaves) == {"l0": 0b001, "s0": 0b010, NOWHERE: 0b100}
    assert [pool.makes[make].port_lanes for make in site.makes] == [3, 1, 0]


def test_bitstreams_are_found_by_what_agents_observe():
    view = view_of(BITSTREAM, node("n0", *fpgas("n0", 2)))
    pool = Pool(view)
    assert pool.loaded == {"": {0: 0b11}}
    load(view, "n0/fpga1", BITSTREAM)
    pool.fold()
    assert pool.loaded == {"": {0: 0b01}, BITSTREAM.reference: {0: 0b10}}


def test_closed_pool_listens_no_more():
    view = small()
    Pool(view).close()
    assert (view.listeners, view.inventory_listeners) == ([], [])


def put(view, thing, family, name):
    view.apply(Change(f"{family}/{name}", encode(thing), 1, 1))


def test_new_engine_on_a_known_node_is_seen():
    view = small()
    pool = Pool(view)
    put(view, Engine("n0", "gpu9", "gpu"), "engine", "n0/gpu9")
    assert free(pool).on == 0b111
    assert kept_is_fresh(pool)


def test_engine_that_comes_before_its_node_is_seen_with_it():
    view = small()
    pool = Pool(view)
    put(view, Engine("n1", "gpu0", "gpu"), "engine", "n1/gpu0")
    pool.fold()
    assert "n1" not in pool.numbers
    put(view, node("n1")[0], "node", "n1")
    assert free(pool, "n1").on == 0b1
    assert kept_is_fresh(pool)


def test_node_that_goes_takes_its_engines_along():
    view = leaves(2)
    pool = Pool(view)
    view.apply(Change("node/n0", None, 1, 2))
    pool.fold()
    assert "n0" not in pool.numbers
    assert kept_is_fresh(pool)


def test_new_link_moves_an_engine_to_its_leaf():
    view = view_of(Switch("l0"), node("n0", *gpus("n0", 1)))
    pool = Pool(view)
    (link,) = ports(gpus("n0", 1), "l0")
    put(view, link, "link", link.name)
    pool.fold()
    assert list(pool.leaf_sites) == ["l0"]
    assert kept_is_fresh(pool)


def test_cleared_view_is_read_anew():
    view = leaves(2)
    pool = Pool(view)
    view.clear()
    pool.fold()
    assert pool.sites == []
    assert kept_is_fresh(pool)


def test_switches_links_and_lanes_out_of_service_are_known_at_once_and_later():
    view = leaves(2)
    early = Pool(view)
    hold(view, "switch/s0", "link/l0-s0", by="~drain/s0")
    view.assume("~drain/x", Placement(0, "d", wanted=("lane/l1-s0/fwd/0", "switch/l1")))
    early.fold()
    for pool in (early, Pool(view)):
        assert pool.shut == {"switch/s0", "link/l0-s0", "switch/l1"}
        assert pool.spoken == {("l1-s0", "fwd"): 1}
    view.retract("~drain/x")
    view.retract("~drain/s0")
    early.fold()
    assert (early.shut, early.spoken) == (set(), {})


# -- how free nodes and leaves are sorted


def numbers(count: int, ladder: Ladder, cpu: dict[int, int]) -> Ladder:
    for number in range(count):
        ladder.put(2, CLOSED._replace(cpu_millis=cpu[number]), tag_of(number, 0))
    return ladder


def test_ends_of_a_rung_are_those_with_least_and_with_most_cpu():
    ladder = numbers(6, Ladder(), {n: 1000 * n for n in range(6)})
    found = [number for _, number in ladder.ends(1, 1000, 2, lambda _: True)]
    assert found == [1, 2, 5, 4]
    assert [n for _, n in ladder.ends(1, 0, 1, lambda number: number not in (0, 5))] == [1, 4]
    assert [n for _, n in ladder.ends(1, 0, 9, lambda _: True)] == list(range(6))
    assert not list(ladder.ends(3, 0, 2, lambda _: True))


def test_ends_are_taken_of_what_is_home_and_of_what_is_afar():
    ladder = Ladder()
    for number in range(6):
        free = CLOSED._replace(cpu_millis=1000 * number)
        ladder.put(2, free, tag_of(number, 0, afar=number % 2 == 1))
    assert [n for _, n in ladder.ends(1, 0, 1, lambda _: True)] == [0, 4, 1, 5]


def test_engines_given_back_last_are_taken_last():
    view = view_of(*(node(f"n{n}", *gpus(f"n{n}", 1)) for n in range(3)))
    pool = Pool(view)
    (make,) = {make for site in pool.sites if site for make in site.makes}
    stock = pool.stock(frozenset({(make, ())}))
    hold(view, "engine/n0/gpu0")
    pool.fold()
    view.retract("other/held")
    pool.fold()
    assert [number for _, number in stock.on.climb(1)] == [1, 2, 0]
    assert [pool.freed_at(n) for n in range(3)] == [1, 0, 0]
    assert kept_is_fresh(pool)


def test_shelf_keeps_leaves_by_how_many_engines_they_have_free():
    shelf = Shelf()
    for leaf, free in (("l1", 2), ("l0", 2), ("l2", 70), ("l3", 1)):
        shelf.move(leaf, free)
    assert next(shelf.climb(1)) == (1, "l3")
    assert next(shelf.descend()) == (70, "l2")
    shelf.move("l3", 0)
    shelf.move("l2", 12)
    shelf.move("l2", 69)
    assert list(shelf.climb(1)) == [(2, "l0"), (2, "l1"), (69, "l2")]
    assert list(shelf.climb(3)) == [(69, "l2")]
    assert list(shelf.descend()) == [(69, "l2"), (2, "l0"), (2, "l1")]
