"""Which lanes a slice's circuits get, and which of them it must claim."""

import copy

import pytest

from flowos.model.cell import Link, Switch, Thing
from flowos.model.codec import encode
from flowos.model.placement import Arc, Circuit, Placement
from flowos.model.slice import CircuitWish, Constraints, HostRole, Reason, Shape
from flowos.planning.circuits.records import circuit_of
from flowos.planning.circuits.route import Blocked, Routed, Wish, route
from flowos.planning.circuits.ways import way
from flowos.planning.engines.pool import Pool
from tests.unit.planning.cells import (
    GIB,
    flow,
    gpus,
    hold,
    hold_part,
    leaves,
    node,
    placed,
    ports,
    refused,
    request,
    ring,
    trunk,
    view_of,
    want,
)
from tests.unit.planning.laws import faults


def lanes(decision):
    return {unit for unit in decision.units if unit.startswith("lane/")}


def line(count, *, trunk_lanes=1, latency_ns=10):
    """Switches w0 - w1 - ..., with one gpu each."""
    things = []
    for n in range(count):
        things += [Switch(f"w{n}", latency_ns=100), *node(f"n{n}", *gpus(f"n{n}", 1))]
        things += ports(gpus(f"n{n}", 1), f"w{n}", lanes=4)
    things += [
        trunk(f"w{n}", f"w{n + 1}", lanes=trunk_lanes, latency_ns=latency_ns)
        for n in range(count - 1)
    ]
    return view_of(things)


# -- shapes


def test_ring_joins_each_to_the_next_and_the_last_to_the_first():
    view = leaves(1, gpus_each=3)
    decision = placed(view, request(ring("w"), w=want(3)))
    assert [(c.id, c.source, c.targets) for c in decision.circuits] == [
        ("t/0", "n0/gpu0", ("n0/gpu1",)),
        ("t/1", "n0/gpu1", ("n0/gpu2",)),
        ("t/2", "n0/gpu2", ("n0/gpu0",)),
    ]
    assert decision.circuits[0].path == ("n0/gpu0", "l0", "n0/gpu1")
    assert decision.circuits[0].latency_ns == 10 + 100 + 10


def test_ring_of_two_is_there_and_back_and_of_one_is_nothing():
    view = leaves(1, gpus_each=2)
    assert len(placed(view, request(ring("w"), w=want(2))).circuits) == 2
    assert placed(view, request(ring("w"), w=want(1))).circuits == ()


def test_ring_goes_through_several_roles_in_order():
    view = leaves(1, gpus_each=3, port_lanes=2)
    decision = placed(view, request(ring("a", "b"), a=want(2), b=want(1)))
    assert [c.source for c in decision.circuits] == [*decision.engines["a"], *decision.engines["b"]]


def test_all_joins_each_to_each_other():
    view = leaves(1, gpus_each=3, port_lanes=2)
    decision = placed(view, request(CircuitWish(Shape.ALL, ("w",)), w=want(3)))
    assert len(decision.circuits) == 6


def test_star_joins_the_first_with_each_other_both_ways():
    view = leaves(1, gpus_each=3, port_lanes=2)
    decision = placed(view, request(CircuitWish(Shape.STAR, ("c", "w")), c=want(1), w=want(2)))
    centre = decision.engines["c"][0]
    assert len(decision.circuits) == 4
    assert all(centre in (c.source, *c.targets) for c in decision.circuits)


def test_flow_of_one_to_many_is_one_tree():
    view = leaves(2, gpus_each=2)
    spec = request(flow("s", "t"), s=want(1), t=want(3))
    (tree,) = placed(view, spec).circuits
    assert len(tree.targets) == 3
    # The trunk is crossed once, however many targets are behind it.
    assert len({arc.link for arc in tree.arcs}) == len(tree.arcs)
    assert sorted(arc.link for arc in tree.arcs if "-s0" in arc.link) == ["l0-s0", "l1-s0"]


def test_flow_of_many_to_many_is_a_circuit_for_each_pair():
    view = leaves(1, gpus_each=4, port_lanes=2)
    decision = placed(view, request(flow("s", "t"), s=want(2), t=want(2)))
    assert len(decision.circuits) == 4
    assert all(len(circuit.targets) == 1 for circuit in decision.circuits)


def test_aggregated_flow_keeps_the_word():
    view = leaves(1, gpus_each=3, port_lanes=2)
    decision = placed(view, request(flow("s", "t", aggregate="sum"), s=want(2), t=want(1)))
    assert {circuit.aggregate for circuit in decision.circuits} == {"sum"}


def test_host_role_is_reached_at_its_attachment_port():
    view = leaves(2, gpus_each=1, lanes=2, port_lanes=2)
    for n in range(3):  # the tightest hosts, but on no switch
        view.cell.add(node(f"portless{n}", cpu=1, memory=1)[0])
    spec = request(flow("d", "w"), w=want(1), hosts={"d": HostRole(1000, GIB, 2)})
    decision = placed(view, spec)
    assert sorted(decision.hosts["d"]) == ["n0", "n1"]
    assert sorted(circuit.source for circuit in decision.circuits) == ["n0", "n1"]
    assert faults(view, spec, decision) == []
    # A host's attachment port is shared by all that use the host.
    assert any(unit.startswith("lane/n") and "-host/" in unit for unit in decision.units)


# -- what is claimed


def test_lanes_inside_one_switch_between_whole_engines_need_no_claim():
    view = leaves(1, gpus_each=3)
    decision = placed(view, request(ring("w"), w=want(3)))
    assert lanes(decision) == set()
    assert all(arc.lanes == (0,) for circuit in decision.circuits for arc in circuit.arcs)


def test_lanes_between_switches_are_claimed():
    view = leaves(2, gpus_each=1)
    decision = placed(view, request(ring("w"), w=want(2)))
    assert lanes(decision) == {
        "lane/l0-s0/fwd/0", "lane/l1-s0/rev/0", "lane/l1-s0/fwd/0", "lane/l0-s0/rev/0",
    }  # fmt: skip


def test_port_lanes_of_a_shared_engine_are_claimed():
    view = leaves(1, gpus_each=0)
    engines = gpus("n0", 2, shareable=True)
    for thing in [*engines, *ports(engines, "l0", lanes=2)]:
        view.cell.add(thing)
    hold_part(view, "share/n0/gpu0", 500)
    hold(view, "lane/n0-gpu0/fwd/0", by="other/lane")
    spec = request(flow("a", "b"), a=want(1, share=500), b=want(1))
    decision = placed(view, spec)
    assert decision.engines == {"a": ("n0/gpu0",), "b": ("n0/gpu1",)}
    assert lanes(decision) == {"lane/n0-gpu0/fwd/1"}


def test_circuit_is_as_wide_as_was_asked():
    view = leaves(2, gpus_each=1, lanes=3, port_lanes=3)
    hold(view, "lane/l0-s0/fwd/1")
    spec = request(ring("w", lanes=2), w=want(2))
    decision = placed(view, spec)
    assert faults(view, spec, decision) == []
    assert {"lane/l0-s0/fwd/0", "lane/l0-s0/fwd/2"} <= lanes(decision)


# -- which way


def test_shortest_way_is_taken_though_a_longer_one_is_quicker():
    view = line(3, trunk_lanes=2)
    view.cell.add(trunk("w0", "w2", latency_ns=100_000))
    hold(view, "engine/n1/gpu0")
    decision = placed(view, request(flow("a", "b"), a=want(1), b=want(1)))
    assert decision.circuits[0].path == ("n0/gpu0", "w0", "w2", "n2/gpu0")


def test_longer_way_is_taken_where_only_it_is_quick_enough():
    view = line(3, trunk_lanes=2)
    view.cell.add(trunk("w0", "w2", latency_ns=100_000))
    hold(view, "engine/n1/gpu0")
    spec = request(flow("a", "b"), a=want(1), b=want(1), max_latency_ns=1000)
    (circuit,) = placed(view, spec).circuits
    assert circuit.path == ("n0/gpu0", "w0", "w1", "w2", "n2/gpu0")
    assert circuit.latency_ns == 10 + 100 + 10 + 100 + 10 + 100 + 10


def test_of_ways_alike_the_quickest_and_then_the_least_used_is_taken():
    view = leaves(2, gpus_each=1, spines=3, lanes=4)
    decision = placed(view, request(flow("a", "b"), a=want(1), b=want(1)))
    assert decision.circuits[0].path[2] == "s0"
    hold(view, "lane/l0-s0/fwd/3")
    assert placed(view, request(ring("w"), w=want(2))).circuits[0].path[2] == "s1"
    view.cell.add(Switch("s2", tier=1, latency_ns=1))
    assert placed(view, request(ring("w"), w=want(2))).circuits[0].path[2] == "s2"


@pytest.mark.parametrize("unit", ["switch/s0", "link/l0-s0", "link/l1-s0"])
def test_way_around_what_is_out_of_service(unit):
    view = leaves(2, gpus_each=1, spines=2)
    hold(view, unit, by="~drain/x")
    spec = request(ring("w"), w=want(2))
    decision = placed(view, spec)
    assert {circuit.path[2] for circuit in decision.circuits} == {"s1"}
    assert faults(view, spec, decision) == []


def test_way_around_what_is_to_be_avoided():
    view = leaves(2, gpus_each=1, spines=2)
    spec = request(ring("w"), w=want(2))
    for unit in ("switch/s0", "link/l0-s0", "lane/l0-s0/fwd/0"):
        first = placed(view, spec, avoid={unit}).circuits[0]
        assert first.path[2] == "s1"


def test_lane_that_a_drain_waits_for_is_left_alone():
    view = leaves(2, gpus_each=1, spines=2)
    view.assume("~drain/x", Placement(0, "d", wanted=("lane/l0-s0/fwd/0",)))
    assert placed(view, request(ring("w"), w=want(2))).circuits[0].path[2] == "s1"


def test_no_circuit_goes_through_an_engine_or_a_node():
    # n0's gpu and n0 itself hang on both switches, and nothing else joins these.
    (middle,) = gpus("n0", 1)
    view = line(2)
    view.cell.remove("link", "w0-w1")
    view.cell.add(Link("bridge", f"{middle.id}:1", "w1:9"))
    for switch in ("w0", "w1"):
        view.cell.add(Link(f"nic-{switch}", "n0:nic", f"{switch}:8"))
    pool = Pool(view)
    wish = Wish(0, "n1/gpu0", ("n0/gpu0",), 1, "")
    assert isinstance(route(pool, [wish], whole=(), name="t"), Routed)
    view.cell.add(node("n2")[0])
    for thing in [*gpus("n2", 1), *ports(gpus("n2", 1), "w0")]:
        view.cell.add(thing)
    pool = Pool(view)
    away = Wish(0, "n1/gpu0", ("n2/gpu0",), 1, "")
    assert isinstance(route(pool, [away], whole=(), name="t"), Blocked)


def test_engines_that_are_cabled_directly_need_no_switch():
    a, b = gpus("n0", 2)
    view = view_of(node("n0", a, b), Link("cable", f"{a.id}:0", f"{b.id}:0", lanes=1))
    spec = request(ring("w"), w=want(2))
    decision = placed(view, spec)
    assert [circuit.path for circuit in decision.circuits] == [(a.id, b.id), (b.id, a.id)]
    assert lanes(decision) == set()
    assert faults(view, spec, decision) == []


def test_unlucky_order_is_mended_by_letting_the_failed_one_go_first():
    # a to c goes over b first, since that is quicker; but from b there is no other way to c.
    things: list[Thing] = [Switch(name) for name in ("a", "b", "c", "d")]
    for n, switch in enumerate(("a", "c", "b")):
        things += [*node(f"n{n}", *gpus(f"n{n}", 1)), *ports(gpus(f"n{n}", 1), switch, lanes=2)]
    trunks = [trunk("a", "b"), trunk("b", "c"), trunk("a", "d", latency_ns=20), trunk("d", "c")]
    view = view_of(things, trunks)
    hold(view, "lane/a-b/rev/0")
    pool = Pool(view)
    first = Wish(0, "n0/gpu0", ("n1/gpu0",), 1, "")
    second = Wish(1, "n2/gpu0", ("n1/gpu0",), 1, "")
    done = route(pool, [first, second], whole={"n0/gpu0", "n1/gpu0", "n2/gpu0"}, name="t")
    assert isinstance(done, Routed)
    assert [circuit.path[1:-1] for circuit in done.circuits] == [("a", "d", "c"), ("b", "c")]


def test_one_that_finds_no_way_even_alone_is_the_reason():
    # The second fails first, since the first took its lane; but the third can never be laid.
    view = line(3)
    hold(view, "lane/w1-w2/fwd/0")
    wishes = [
        Wish(0, "n0/gpu0", ("n1/gpu0",), 1, ""),
        Wish(1, "n0/gpu0", ("n1/gpu0",), 1, ""),
        Wish(2, "n0/gpu0", ("n2/gpu0",), 1, ""),
    ]
    blocked = route(Pool(view), wishes, whole=(), name="t")
    assert isinstance(blocked, Blocked)
    assert blocked.wish == wishes[2]
    assert blocked.why == "no way with a free lane on each link from n0/gpu0 to n2/gpu0"


@pytest.mark.parametrize("link", ["s0-c0", "c0-s1", "l0-s0", "s1-l1"])
def test_core_with_too_few_lanes_on_one_of_its_trunks_is_passed_by(link):
    # Two pods of a leaf and a spine, two cores; three of four lanes are wanted.
    things: list[Thing] = [Switch(f"{s}{n}", tier=t) for t, s in enumerate("lsc") for n in (0, 1)]
    for n in (0, 1):
        things += [*node(f"n{n}", *gpus(f"n{n}", 1)), *ports(gpus(f"n{n}", 1), f"l{n}", lanes=4)]
    pairs = ["l0-s0", "s1-l1", "s0-c0", "s0-c1", "c0-s1", "c1-s1"]
    view = view_of(things, [trunk(*pair.split("-"), lanes=4) for pair in pairs])
    hold(view, f"lane/{link}/fwd/0", f"lane/{link}/fwd/2", "lane/s0-c1/fwd/1")
    done = route(Pool(view), [Wish(0, "n0/gpu0", ("n1/gpu0",), 3, "")], whole=(), name="t")
    if "c0" in link:
        assert isinstance(done, Routed)
        assert done.circuits[0].path[3] == "c1"
    else:
        assert isinstance(done, Blocked)


def test_parallel_plans_turn_around_at_different_spines():
    view = leaves(2, gpus_each=1, spines=8)
    wish = Wish(0, "n0/gpu0", ("n1/gpu0",), 1, "")
    pool = Pool(view)
    over = set()
    for seed in range(1, 30):
        done = route(pool, [wish], whole=(), name="t", seed=seed)
        assert isinstance(done, Routed)
        over.add(done.circuits[0].path[2])
    assert len(over) > 4


@pytest.mark.parametrize("count", [1, 2, 3])
def test_words_of_a_fabric_follow_what_a_plan_takes_and_gives_back(count):
    view = leaves(3, gpus_each=2, spines=2, lanes=7, port_lanes=8)
    graph = Pool(view).graph
    assert graph.levels is not None
    empty = copy.deepcopy(graph.levels.words())
    mark = graph.mark()
    for pair in [("n0/gpu0", "n1/gpu0"), ("n0/gpu1", "n2/gpu0"), ("n1/gpu0", "n2/gpu1")] * 2:
        arcs = way(graph, *pair, count, Constraints())
        if isinstance(arcs, str):
            continue
        for arc, taken in zip(arcs, graph.take_way(arcs, count), strict=True):
            assert taken.bit_count() == count
            for unit in graph.units(arc, taken):
                hold(view, unit, by=f"x/{unit}")
        fresh = Pool(view).graph
        assert fresh.levels is not None
        assert graph.levels.words() == fresh.levels.words()
    assert graph.levels.words() != empty
    graph.undo(mark)
    assert graph.levels.words() == empty


def test_record_that_is_made_quickly_is_like_any_other():
    arc = Arc("k", "fwd", (0,))
    words = ("t/0", "a", ("b", "c"), ("a", "s", "b", "c"), (arc,), 2, 30, "sum", ("a",), ("x",))
    quick, slow = circuit_of(*words), Circuit(*words)
    assert quick == slow
    assert encode(quick) == encode(slow)
    assert circuit_of(*words[:7]) == Circuit(*words[:7])


def test_graph_forgets_the_ports_of_engines_where_it_knows_very_many(monkeypatch):
    view = leaves(2, gpus_each=4, spines=2)
    pool = Pool(view)
    wish = Wish(0, "n0/gpu0", ("n1/gpu0",), 1, "")
    first = route(pool, [wish], whole=(), name="t")
    for engine in view.cell.engines:
        pool.graph.ports(engine)
    monkeypatch.setattr("flowos.planning.circuits.graph._REMEMBERED_MAX", 4)
    assert route(pool, [wish], whole=(), name="t") == first
    assert set(pool.graph.known_ports) == {"n0/gpu0", "n1/gpu0"}
    other = Wish(0, "n1/gpu3", ("n0/gpu2",), 1, "")
    expected = route(Pool(view), [other], whole=(), name="t")
    assert route(pool, [other], whole=(), name="t") == expected
    hold(view, "lane/n0-gpu0/fwd/0")
    pool.fold()
    assert isinstance(route(pool, [wish], whole=(), name="t"), Blocked)


# -- trees


def test_tree_grows_to_the_nearest_target_first():
    view = line(4, trunk_lanes=1)
    spec = request(flow("s", "t"), s=want(1, node="n0"), t=want(3))
    (tree,) = placed(view, spec).circuits
    assert tree.path == ("n0/gpu0", "w0", "w1", "n1/gpu0", "w2", "n2/gpu0", "w3", "n3/gpu0")
    assert len(tree.arcs) == 7
    assert tree.latency_ns == 10 + 4 * 100 + 3 * 10 + 10


def bow():
    """From a to z: two short arms over b and c, or one long arm that passes both targets."""
    things: list[Thing] = [Switch(name) for name in ("a", "b", "c", "m")]
    for n, switch in enumerate(("a", "b", "c")):
        things += [*node(f"n{n}", *gpus(f"n{n}", 1)), *ports(gpus(f"n{n}", 1), switch)]
    return view_of(things, [trunk("a", "b"), trunk("b", "c"), trunk("a", "m"), trunk("m", "c")])


def test_tree_that_would_be_too_deep_is_fanned_out():
    view = bow()
    wish = Wish(0, "n0/gpu0", ("n1/gpu0", "n2/gpu0"), 1, "")
    spec = request(flow("s", "t"), s=want(1, node="n0"), t=want(2))
    (tree,) = placed(view, spec).circuits
    assert len(tree.arcs) == 5
    assert wish.targets == tree.targets
    slow = request(flow("s", "t"), s=want(1, node="n0"), t=want(2), max_latency_ns=1)
    assert refused(view, slow).reason is Reason.INFEASIBLE


def test_bounds_hold_for_every_branch_of_a_tree():
    # Growing from target to target along the line would be 5 links deep; the chord is shorter.
    view = line(4)
    view.cell.add(trunk("w0", "w3"))
    spec = request(flow("s", "t"), s=want(1, node="n0"), t=want(3), max_hops=4)
    decision = placed(view, spec)
    assert faults(view, spec, decision) == []


# -- refusals


def test_slice_without_a_free_way_is_refused_with_numbers():
    view = line(2)
    hold(view, "lane/w0-w1/fwd/0")
    answer = refused(view, request(ring("w"), w=want(2)))
    assert answer.reason is Reason.NO_CIRCUIT
    assert answer.sentence == (
        "no way with a free lane on each link from n0/gpu0 to n1/gpu0: "
        "0 of 2 circuits found their lanes"
    )
    assert answer.funnel[-2:] == (("circuits wanted", 2), ("circuits routed", 0))


def test_slice_with_too_long_ways_is_refused_with_the_bound():
    answer = refused(line(3), request(ring("w"), w=want(3), max_hops=3))
    assert answer.reason is Reason.INFEASIBLE
    assert "crosses 4 links, at most 3 are allowed" in answer.sentence


def test_other_engines_are_tried_where_the_best_have_no_free_way():
    # n0 and n1 fit best but the way between them is taken; n2 and n3 are as good a pair.
    view = line(4)
    hold(view, "lane/w0-w1/fwd/0", "lane/w1-w2/fwd/0")
    spec = request(ring("w"), w=want(2))
    decision = placed(view, spec)
    assert decision.engines["w"] == ("n2/gpu0", "n3/gpu0")


def test_circuits_that_need_more_lanes_than_a_port_has_can_never_be():
    view = leaves(1, gpus_each=4, port_lanes=2)
    answer = refused(view, request(CircuitWish(Shape.ALL, ("w",)), w=want(4)))
    assert answer.reason is Reason.INFEASIBLE
    assert ("3 port lanes", 0) in answer.funnel
