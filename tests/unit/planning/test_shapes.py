"""Which circuits a shape comes to, and how many lanes its engines need for them."""

from dataclasses import replace

import networkx as nx
import pytest

from flowos.model.cell import Engine, Link
from flowos.model.slice import CircuitWish, EngineChoice, EngineRole, Reason, Shape
from flowos.planning.circuits.shapes import lanes_at_least, pairs_of
from tests.unit.planning.cells import leaves, placed, refused, request, want
from tests.unit.planning.laws import faults


def torus(*dims, role="w"):
    return CircuitWish(Shape.TORUS, (role,), dims=dims)


def explicit(*links, role="w", lanes=1):
    return CircuitWish(Shape.EXPLICIT, (role,), lanes, links=links)


@pytest.mark.parametrize("dims", [(5,), (3, 4), (2, 2, 2), (1, 3), (2, 3, 4)])
def test_torus_is_a_ring_along_each_side(dims):
    pairs = list(pairs_of(torus(*dims), nx.number_of_nodes(nx.grid_graph(dims))))
    found = nx.DiGraph(pairs)
    # networkx names places by the reverse of its sides, and joins them both ways.
    oracle = nx.grid_graph(dims[::-1], periodic=True)
    number = {place: n for n, place in enumerate(sorted(oracle))}
    edges = {
        frozenset((number[a] if dims[1:] else a, number[b] if dims[1:] else b))
        for a, b in oracle.edges
        if a != b
    }
    assert {frozenset(pair) for pair in found.edges} == edges
    rings = sum(side > 1 for side in dims)
    assert all(found.out_degree(n) == found.in_degree(n) == rings for n in found)
    assert lanes_at_least(torus(*dims), len(found)) == (rings, rings)


def test_torus_of_one_side_is_a_ring():
    ring = CircuitWish(Shape.RING, ("w",))
    assert list(pairs_of(torus(4), 4)) == list(pairs_of(ring, 4))


def test_explicit_pairs_are_joined_by_rank_and_no_others():
    view = leaves(1, gpus_each=3, port_lanes=2)
    spec = request(explicit((2, 0), (2, 1)), w=want(3))
    decision = placed(view, spec)
    assert [(c.source, c.targets) for c in decision.circuits] == [
        ("n0/gpu2", ("n0/gpu0",)),
        ("n0/gpu2", ("n0/gpu1",)),
    ]
    assert faults(view, spec, decision) == []


def test_torus_over_leaves_is_laid_whole():
    view = leaves(2, gpus_each=4, port_lanes=2, lanes=8)
    spec = request(torus(2, 4), w=want(8))
    decision = placed(view, spec)
    assert len(decision.circuits) == 16
    assert faults(view, spec, decision) == []


def test_some_engine_needs_as_many_port_lanes_as_the_busiest_rank():
    view = leaves(1, gpus_each=3, port_lanes=1)
    wish = request(explicit((0, 1), (0, 2)), w=want(3))
    assert refused(view, wish).reason is Reason.INFEASIBLE
    # One engine with two lanes is enough: it gets the rank that needs them.
    view.cell.add(Link("more", "n0/gpu2:1", "l0:more", 1, 100.0, 10))
    assert placed(view, wish).engines["w"][0] == "n0/gpu2"


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        (torus(2, 2), "a torus of 2x2 has 4 ends, there are 3"),
        (explicit((0, 3)), "circuits join rank 3, but w has the ranks 0 to 2"),
        (explicit((0, -1)), "circuits join rank -1, but w has the ranks 0 to 2"),
    ],
)
def test_shape_that_does_not_fit_the_number_of_ends_can_never_be(wish, words):
    answer = refused(leaves(1, gpus_each=4, port_lanes=4), request(wish, w=want(3)))
    assert answer.reason is Reason.INFEASIBLE
    assert words in answer.sentence


def test_every_choice_must_have_the_ranks_of_the_shape():
    view = leaves(1, gpus_each=4, port_lanes=4)
    either = EngineRole((EngineChoice("gpu", count=1), EngineChoice("gpu", count=4)))
    answer = refused(view, request(torus(1), w=either))
    assert answer.reason is Reason.INFEASIBLE
    assert "a torus of 1 has 1 ends, there are 4" in answer.sentence


def test_explicit_ranks_count_through_several_roles():
    view = leaves(1, gpus_each=4, port_lanes=3)
    wish = CircuitWish(Shape.EXPLICIT, ("a", "b"), links=((0, 2), (3, 1)))
    decision = placed(view, request(wish, a=want(2), b=want(2)))
    a, b = decision.engines["a"], decision.engines["b"]
    assert [(c.source, c.targets) for c in decision.circuits] == [
        (a[0], (b[0],)),
        (b[1], (a[1],)),
    ]
    assert faults(view, request(wish, a=want(2), b=want(2)), decision) == []


def test_multicast_from_each_source_is_one_tree_over_one_lane():
    view = leaves(1, gpus_each=3, port_lanes=2)
    links = ((0, 1), (0, 2), (1, 0), (1, 2))
    wish = CircuitWish(Shape.EXPLICIT, ("w",), links=links, multicast=True)
    spec = request(wish, w=want(3))
    decision = placed(view, spec)
    w = decision.engines["w"]
    assert [(c.source, c.targets) for c in decision.circuits] == [
        (w[0], (w[1], w[2])),
        (w[1], (w[0], w[2])),
    ]
    assert faults(view, spec, decision) == []
    assert lanes_at_least(wish, 3) == (0, 1)
    # Four circuits of their own would want two lanes out of each source.
    narrow = leaves(1, gpus_each=3, port_lanes=1)
    assert refused(narrow, request(explicit(*links), w=want(3))).reason is Reason.INFEASIBLE


def test_sums_of_explicit_circuits_are_one_tree_to_each_target():
    view = leaves(1, gpus_each=4, port_lanes=1)
    view.cell.add(replace(view.cell.switches["l0"], aggregators=1, functions=("sum",)))
    wish = CircuitWish(Shape.EXPLICIT, ("w",), aggregate="sum", links=((1, 0), (2, 0), (3, 0)))
    spec = request(wish, w=want(4))
    decision = placed(view, spec)
    (tree,) = decision.circuits
    w = decision.engines["w"]
    assert (tree.sources, tree.targets, len(tree.aggregators)) == ((w[1], w[2], w[3]), (w[0],), 1)
    assert faults(view, spec, decision) == []


def test_ranks_of_several_roles_need_to_know_how_many_engines_each_has():
    view = leaves(1, gpus_each=4, port_lanes=2)
    wish = CircuitWish(Shape.EXPLICIT, ("a", "b"), links=((0, 2),))
    either = EngineRole((EngineChoice("gpu", count=1), EngineChoice("gpu", count=2)))
    answer = refused(view, request(wish, a=either, b=want(2)))
    assert answer.reason is Reason.INFEASIBLE
    assert "need to know how many engines a has" in answer.sentence
    beyond = replace(wish, links=((0, 4),))
    answer = refused(view, request(beyond, a=want(2), b=want(2)))
    assert "circuits join rank 4, but a and b have the ranks 0 to 3" in answer.sentence


def test_parts_of_one_engine_are_ranks_of_their_own():
    view = leaves(1, gpus_each=2, port_lanes=2)
    view.cell.add(replace(view.cell.engines["n0/gpu0"], shareable=True))
    part = EngineRole((EngineChoice("gpu", share_millis=400),))
    wish = CircuitWish(Shape.EXPLICIT, ("a", "b", "c"), links=((0, 1), (0, 2), (1, 2), (2, 1)))
    spec = request(wish, a=part, b=part, c=want(1))
    decision = placed(view, spec)
    # Both parts are of one engine: between them nothing is laid, and to others one circuit.
    assert [(c.source, c.targets) for c in decision.circuits] == [
        ("n0/gpu0", ("n0/gpu1",)),
        ("n0/gpu1", ("n0/gpu0",)),
    ]
    assert faults(view, spec, decision) == []
    view.cell.add(replace(view.cell.switches["l0"], aggregators=1, functions=("sum",)))
    into_one = replace(wish, links=((0, 1), (2, 1)), aggregate="sum")
    spec = request(into_one, a=part, b=part, c=want(1))
    decision = placed(view, spec)
    (path,) = decision.circuits
    assert (path.source, path.targets, path.sources) == ("n0/gpu1", ("n0/gpu0",), ())
    assert faults(view, spec, decision) == []


def test_parts_of_one_engine_need_no_port_to_reach_each_other():
    view = leaves(1, gpus_each=1)
    view.cell.add(Engine("n0", "bare", "fpga", shareable=True))
    part = EngineRole((EngineChoice("fpga", share_millis=400),))
    spec = request(CircuitWish(Shape.EXPLICIT, ("a", "b"), links=((0, 1),)), a=part, b=part)
    assert placed(view, spec).circuits == ()


def test_each_role_needs_the_lanes_of_its_own_ranks():
    view = leaves(1, gpus_each=4, port_lanes=1)
    wish = CircuitWish(Shape.EXPLICIT, ("a", "b"), links=((0, 1), (0, 2), (0, 3)))
    answer = refused(view, request(wish, a=want(1), b=want(3)))
    assert (answer.reason, answer.funnel[-1]) == (Reason.INFEASIBLE, ("3 port lanes", 0))
    tree = replace(wish, multicast=True)
    assert len(placed(view, request(tree, a=want(1), b=want(3))).circuits) == 1


def test_streams_that_are_made_one_come_in_by_one_lane():
    view = leaves(1, gpus_each=4, port_lanes=1)
    view.cell.add(replace(view.cell.switches["l0"], aggregators=4, functions=("sum",)))
    for rank in range(3):
        for more in range(2):
            port = f"{rank}.{more}"
            view.cell.add(Link(port, f"n0/gpu{rank}:{port}", f"l0:{port}", 1, 100.0, 10))
    # Two come to each rank, and the fourth engine has one lane.
    links = ((0, 1), (0, 2), (0, 3), (1, 0), (1, 2), (1, 3), (2, 0), (2, 1))
    spec = request(CircuitWish(Shape.EXPLICIT, ("w",), aggregate="sum", links=links), w=want(4))
    decision = placed(view, spec)
    assert len(decision.circuits) == 4
    assert faults(view, spec, decision) == []
