"""Which trees join one with many, and where streams are made one."""

import pytest

from flowos.model.cell import Link, Switch, Thing
from flowos.model.placement import Circuit
from flowos.model.slice import CircuitWish, Constraints, Reason, Shape
from flowos.model.view import CellView
from flowos.planning.circuits.exchange import Branch
from flowos.planning.circuits.route import Blocked, Routed, Wish, route
from flowos.planning.circuits.trees import Grown, multicast
from flowos.planning.engines.pool import Pool
from tests.unit.planning.cells import (
    flow,
    gpus,
    hold,
    node,
    placed,
    ports,
    refused,
    request,
    trunk,
    view_of,
    want,
)
from tests.unit.planning.laws import faults
from tests.unit.planning.streams import stream_faults


def fabric(
    *trunks: str, able: str = "", port_lanes: int = 1, lanes: int = 1, each: int = 1
) -> CellView:
    """Switches that are letters, trunks "ab", at each switch a node of its name with GPUs.

    Those of `able` have one aggregator for sums.
    """
    switches = dict.fromkeys("".join(trunks))
    things: list[Thing] = []
    for name in switches:
        functions = ("sum",) if name in able else ()
        things.append(Switch(name, aggregators=len(functions), functions=functions, latency_ns=100))
        engines = gpus(f"n{name}", each)
        things += [*node(f"n{name}", *engines), *ports(engines, name, lanes=port_lanes)]
    return view_of(things, [trunk(*ends, lanes=lanes) for ends in trunks])


def gather(view: CellView, *sources: str, to: str, max_hops: int = 0) -> Routed | Blocked:
    """A tree from a GPU of each of these nodes to one, summed on the way."""
    ends = tuple(f"n{name}/gpu0" for name in sources)
    wish = Wish(0, ends[0], (f"n{to}/gpu0",), 1, "sum", ends)
    whole = {*ends, *wish.targets}
    return route(Pool(view), [wish], whole=whole, name="t", bounds=Constraints(max_hops))


def summed(view: CellView, *sources: str, to: str, max_hops: int = 0) -> Circuit:
    """The tree, which must be one."""
    routed = gather(view, *sources, to=to, max_hops=max_hops)
    assert isinstance(routed, Routed), routed
    (circuit,) = routed.circuits
    assert list(stream_faults(view, request(max_hops=max_hops), circuit)) == []
    assert [u for u in routed.units if u.startswith("aggregator/")] == [*circuit.aggregators]
    return circuit


def turned(view: CellView, *sources: str, to: str, max_hops: int = 0) -> str:
    blocked = gather(view, *sources, to=to, max_hops=max_hops)
    assert isinstance(blocked, Blocked), blocked
    return blocked.why


# -- multicast


def cross() -> CellView:
    """From s to x over a or over m, of which m leads on to y."""
    return fabric("sm", "mx", "my", "sa", "ax")


def links(view: CellView, source: str, *targets: str, bounds: Constraints | None = None) -> int:
    graph = Pool(view).graph
    names = [f"n{t}/gpu0" for t in targets]
    grown = multicast(graph, f"n{source}/gpu0", names, 1, bounds or Constraints())
    assert isinstance(grown, Grown), grown
    assert {branch.end for branch in grown.branches} == set(names)
    return sum(len(branch.arcs) for branch in grown.branches)


def test_a_key_path_is_exchanged_for_a_shorter_one(monkeypatch):
    # Growth comes to x over a, and only then to y over m: x hangs as well at m.
    assert links(cross(), "s", "x", "y") == 3 + 3
    monkeypatch.setattr("flowos.planning.circuits.trees.exchanged", lambda *_: None)
    assert links(cross(), "s", "x", "y") == 4 + 3


def test_a_tree_is_found_where_only_a_detour_is_free():
    view = cross()
    hold(view, "lane/s-m/fwd/0")
    assert links(view, "s", "x", "y") == 3 + 4  # s a x m y


def test_a_tree_within_a_bound_may_take_more_links():
    ring = fabric("ab", "bc", "cd", "de", "ef", "fa")
    assert links(ring, "a", "b", "c", "d", "e") == 5 + 4
    ends = ["nb/gpu0", "nc/gpu0", "nd/gpu0", "ne/gpu0"]
    grown = multicast(Pool(ring).graph, "na/gpu0", ends, 1, Constraints(max_hops=5))
    assert isinstance(grown, Grown)
    assert {branch.end: branch.hops for branch in grown.branches} == {
        "nb/gpu0": 3, "nc/gpu0": 4, "nd/gpu0": 5, "ne/gpu0": 4,
    }  # fmt: skip


def test_a_tree_is_as_quick_as_it_has_to_be():
    # Both targets lie two links away over m; n is quicker for y.
    view = view_of(
        [
            part
            for name, ns in (("s", 0), ("m", 500), ("n", 10), ("x", 0), ("y", 0))
            for part in (
                Switch(name, latency_ns=ns),
                *node(f"n{name}", *gpus(f"n{name}", 1)),
                *ports(gpus(f"n{name}", 1), name),
            )
        ],
        [trunk("s", "m"), trunk("m", "x"), trunk("m", "y"), trunk("s", "n"), trunk("n", "y")],
    )
    view.cell.add(trunk("n", "x", latency_ns=400))
    quick = Constraints(max_latency_ns=460)
    grown = multicast(Pool(view).graph, "ns/gpu0", ["nx/gpu0", "ny/gpu0"], 1, quick)
    assert isinstance(grown, Grown)
    assert max(branch.ns for branch in grown.branches) <= 460
    slow = multicast(Pool(view).graph, "ns/gpu0", ["nx/gpu0", "ny/gpu0"], 1, Constraints(0, 100))
    assert slow == "no free tree from ns/gpu0 to 2 targets keeps within 100 ns"


def test_growing_a_tree_leaves_the_graph_as_it_was():
    graph = Pool(cross()).graph
    graph.ports("ns/gpu0"), graph.ports("nx/gpu0"), graph.ports("ny/gpu0")
    before = list(graph.free)
    multicast(graph, "ns/gpu0", ["nx/gpu0", "ny/gpu0"], 1, Constraints())
    assert graph.free == before


def test_a_target_that_is_cabled_to_the_source_needs_no_switch():
    view = fabric("ab")
    view.cell.add(Link("cable", "na/gpu0:1", "nb/gpu0:1"))
    grown = multicast(Pool(view).graph, "na/gpu0", ["nb/gpu0"], 1, Constraints())
    assert isinstance(grown, Grown)
    (branch,) = grown.branches
    assert branch == Branch("nb/gpu0", branch.arcs, -1, 1, 0)


# -- aggregation


def test_streams_are_made_one_where_they_meet():
    circuit = summed(fabric("tm", "mx", "my", able="m"), "x", "y", to="t")
    assert circuit.aggregators == ("aggregator/m/0",)
    assert len(circuit.arcs) == 3 + 3
    assert circuit.source == circuit.sources[0]


def test_a_chain_merges_at_each_switch_that_can():
    circuit = summed(fabric("ta", "ab", "bc", able="tabc"), "a", "b", "c", to="t")
    assert set(circuit.aggregators) == {"aggregator/a/0", "aggregator/b/0"}
    assert len(circuit.arcs) == 3 + 4


def test_streams_go_beside_each_other_to_the_next_switch_that_can():
    view = fabric("ta", "ab", "bc", able="a", lanes=2)
    circuit = summed(view, "b", "c", to="t")
    assert circuit.aggregators == ("aggregator/a/0",)
    over = [arc.lanes for arc in circuit.arcs if arc.link == "a-b"]
    assert over == [(0,), (1,)]


def test_streams_go_round_by_a_switch_that_can():
    # x, y and t hang on one switch that cannot add; the spine can.
    view = fabric("ls", able="s", lanes=4, each=3)  # of which none at s takes part
    spec = request(flow("w", "t", aggregate="sum"), w=want(2, node="nl"), t=want(1, node="nl"))
    decision = placed(view, spec)
    assert faults(view, spec, decision) == []
    (circuit,) = decision.circuits
    assert circuit.aggregators == ("aggregator/s/0",)
    assert len(circuit.arcs) == 2 + 2 + 1 + 1


def test_where_nothing_can_merge_the_target_receives_each_stream():
    view = fabric("tm", "mx", "my", port_lanes=2, lanes=2)
    circuit = summed(view, "x", "y", to="t")
    assert circuit.aggregators == ()
    assert len([arc for arc in circuit.arcs if arc.link == "nt-gpu0"]) == 2


@pytest.mark.parametrize(
    "spoil",
    [
        lambda view: hold(view, "aggregator/m/0"),
        lambda view: view.wanted["aggregator/m/0"].add("~drain/x"),
        lambda view: view.cell.add(Switch("m", aggregators=1, functions=("max",))),
        lambda view: view.cell.add(Switch("m", aggregators=0, functions=("sum",))),
    ],
    ids=["held by another", "waited for by a drain", "other function", "none"],
)
def test_what_cannot_merge_is_told(spoil):
    view = fabric("tm", "mx", "my", able="m")
    assert summed(view, "x", "y", to="t").aggregators
    spoil(view)
    assert turned(view, "x", "y", to="t") == (
        "no switch on the way has a free aggregator for sum, and nt/gpu0 has too few free lanes "
        "to receive 2 streams"
    )


def test_a_source_that_is_shut_in_is_told():
    view = fabric("tm", "mx", "my", able="m")
    hold(view, "lane/m-y/rev/0")
    assert turned(view, "x", "y", to="t") == (
        "no way with a free lane on each link from ny/gpu0 to nt/gpu0"
    )


def test_an_aggregator_that_is_to_be_avoided_is_left_alone():
    view = fabric("tm", able="m", each=2)
    spec = request(flow("w", "t", aggregate="sum"), w=want(2, node="nm"), t=want(1, node="nt"))
    (circuit,) = placed(view, spec).circuits
    assert circuit.aggregators == ("aggregator/m/0",)
    answer = refused(view, spec, avoid={"aggregator/m/0"})
    assert answer.reason is Reason.NO_CIRCUIT
    assert "no switch on the way has a free aggregator for sum" in answer.sentence


def test_two_trees_of_a_slice_take_an_aggregator_each():
    view = fabric("mt", "mu", "mx", "my", able="m", lanes=2, port_lanes=2)
    view.cell.add(Switch("m", aggregators=2, functions=("sum",)))
    each = CircuitWish(Shape.ALL, ("t", "x", "y"), aggregate="sum")
    spec = request(each, t=want(1, node="nt"), x=want(1, node="nx"), y=want(1, node="ny"))
    decision = placed(view, spec)
    assert faults(view, spec, decision) == []
    assert sorted(u for u in decision.units if u.startswith("aggregator/")) == [
        "aggregator/m/0",
        "aggregator/m/1",
    ]


def test_a_bound_holds_for_every_stream():
    view = fabric("ta", "ab", "bc", "tc", able="tabc")
    assert summed(view, "a", "b", "c", to="t").aggregators
    assert summed(view, "a", "b", "c", to="t", max_hops=4).aggregators
    assert turned(view, "a", "b", "c", to="t", max_hops=3) == (
        "no free tree from 3 sources to nt/gpu0 keeps within 3 links"
    )


def test_one_source_is_no_tree():
    view = fabric("tm", "mx", able="m")
    spec = request(flow("w", "t", aggregate="sum"), w=want(1, node="nx"), t=want(1, node="nt"))
    (circuit,) = placed(view, spec).circuits
    assert (circuit.sources, circuit.aggregators, circuit.aggregate) == ((), (), "sum")
