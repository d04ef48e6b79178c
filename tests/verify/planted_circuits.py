"""What can be wrong with a circuit: a path, a multicast tree, or one that makes streams one?"""

from dataclasses import replace
from typing import Any

from flowos.model.cell import Link, Switch
from flowos.model.codec import encode
from flowos.model.placement import Arc
from flowos.model.transaction import Operation, Put
from tests.verify.mistakes import PLACED, T, mistake, order_of
from tests.verify.scene import MERGED, PAIR, SUMMED, TREE, Scene, across


def with_circuits(scene: Scene, *circuits: Any, **fields: Any) -> list[Operation]:
    """The running pair with other circuits; what else is wrong then is no matter here."""
    scene.run(T, PAIR)
    return [scene.rewritten(T, circuits=circuits, **fields)]


CIRCUIT = across("n1/x", "n2/y")
PX, OVER, PY = CIRCUIT.arcs


@mistake("circuits", PLACED, "t/0 of default/t starts at n1/f, which is not of the slice")
def a_circuit_starts_at_a_stranger(scene):
    return with_circuits(scene, across("n1/f", "n2/y"))


@mistake("circuits", PLACED, "ends at n2/z, which is not of the slice")
def a_circuit_ends_at_a_stranger(scene):
    return with_circuits(scene, across("n1/x", "n2/z"))


@mistake("circuits", PLACED, "has no target")
def a_circuit_leads_nowhere(scene):
    return with_circuits(scene, replace(CIRCUIT, targets=()))


@mistake("circuits", PLACED, "crosses none, which is no link")
def a_circuit_crosses_what_is_no_link(scene):
    return with_circuits(scene, replace(CIRCUIT, arcs=(Arc("none", "fwd", (0,)),)))


@mistake("circuits", PLACED, "crosses trunk, which is no link")
def a_link_is_removed_under_a_circuit(scene):
    scene.run(T, PAIR)
    return [scene.gone("link/trunk")]


@mistake("circuits", PLACED, "crosses trunk in direction 'up'")
def a_circuit_goes_up(scene):
    return with_circuits(scene, replace(CIRCUIT, arcs=(PX, Arc("trunk", "up", (0,)), PY)))


@mistake("circuits", PLACED, "does not lead from n1/x to n2/y")
def a_circuit_has_a_gap(scene):
    return with_circuits(scene, replace(CIRCUIT, arcs=(PX, PY)))


@mistake("circuits", PLACED, "has a piece from s2 that its source does not lead to")
def a_circuit_is_in_two_pieces(scene):
    return with_circuits(scene, replace(CIRCUIT, arcs=(PX, PY)))


@mistake("circuits", PLACED, "does not lead from n1/x to n2/y")
def a_circuit_goes_against_its_direction(scene):
    back = tuple(replace(arc, direction="rev") for arc in CIRCUIT.arcs)
    return with_circuits(scene, replace(CIRCUIT, arcs=back))


@mistake("circuits", PLACED, "is to turn at n2/y, which is no switch")
def a_circuit_goes_through_an_engine(scene):
    scene.run(T, TREE)
    scene.write(Put("link/side", encode(Link("side", a="n2/y:1", b="n2/z:1"))))
    through = replace(
        CIRCUIT, targets=("n2/y", "n2/z"), arcs=(*CIRCUIT.arcs, Arc("side", "fwd", (0,)))
    )
    return [scene.rewritten(T, circuits=(through,))]


@mistake("circuits", PLACED, "is to turn at s2, which is no switch")
def a_circuit_turns_where_the_switch_was_removed(scene):
    scene.run(T, PAIR)
    return [scene.gone("switch/s2")]


@mistake("circuits", PLACED, "comes to s2 twice")
def a_circuit_goes_twice_to_a_switch(scene):
    scene.write(Put("link/other", encode(Link("other", a="s1:o", b="s2:o"))))
    twice = replace(CIRCUIT, arcs=(*CIRCUIT.arcs, Arc("other", "fwd", (0,))))
    return with_circuits(scene, twice)


@mistake("circuits", PLACED, "comes to n1/x twice")
def a_circuit_comes_back_to_its_source(scene):
    return with_circuits(scene, replace(CIRCUIT, arcs=(*CIRCUIT.arcs, Arc("px", "rev", (0,)))))


@mistake("circuits", PLACED, "ends at n2/z, which is no target")
def a_circuit_has_a_loose_end(scene):
    return with_circuits(scene, replace(CIRCUIT, arcs=(*CIRCUIT.arcs, Arc("pz", "rev", (0,)))))


@mistake("circuits", PLACED, "crosses trunk on no lane")
def a_circuit_takes_no_lane(scene):
    return with_circuits(scene, replace(CIRCUIT, arcs=(PX, Arc("trunk", "fwd", ()), PY)))


@mistake("circuits", PLACED, "crosses lane/px/fwd/1, but px has 1 lanes")
def a_circuit_takes_a_lane_that_the_link_does_not_have(scene):
    return with_circuits(scene, replace(CIRCUIT, arcs=(Arc("px", "fwd", (1,)), OVER, PY)))


@mistake("circuits", PLACED, "crosses lane/trunk/fwd/1, which it does not hold")
def a_circuit_takes_a_lane_that_its_slice_does_not_hold(scene):
    return with_circuits(scene, across("n1/x", "n2/y", lane=1))


@mistake("circuits", PLACED, "crosses lane/trunk/fwd/0, which t/0 crosses too")
def two_circuits_take_a_lane(scene):
    return with_circuits(scene, CIRCUIT, replace(CIRCUIT, id="t/1"))


@mistake("circuits", PLACED, "crosses lane/trunk/fwd/0, which t/0 crosses too")
def a_circuit_takes_a_lane_twice(scene):
    twice = Arc("trunk", "fwd", (0, 0))
    return with_circuits(scene, replace(CIRCUIT, arcs=(PX, twice, PY), aggregate="sum"))


# -- aggregation trees

INTO, JOINS, OUT = MERGED.arcs[:2], MERGED.arcs[2], MERGED.arcs[3]


def with_merge(scene: Scene, **fields: Any) -> list[Operation]:
    """The running tree of x and y to z, otherwise."""
    scene.run(T, SUMMED)
    return [scene.rewritten(T, circuits=(replace(MERGED, **fields),))]


@mistake("circuits", PLACED, "starts at n1/f, which is not of the slice")
def a_tree_gathers_from_a_stranger(scene):
    return with_merge(scene, sources=(*MERGED.sources, "n1/f"))


@mistake("circuits", PLACED, "has the source n1/x, and n2/y as the first of all")
def a_tree_names_a_later_source_first(scene):
    return with_merge(scene, sources=("n2/y", "n1/x"))


@mistake("circuits", PLACED, "has several sources and several targets")
def a_tree_gathers_and_fans_out(scene):
    return with_merge(scene, targets=("n2/z", "n2/y"))


@mistake("circuits", PLACED, "makes 2 streams 1 at s2 without an aggregator")
def streams_meet_without_an_aggregator(scene):
    return with_merge(scene, aggregators=())


@mistake("circuits", PLACED, "has aggregator/s2/0, but s2 cannot compute 'max'")
def streams_meet_where_the_function_is_not_offered(scene):
    return with_merge(scene, aggregate="max")


@mistake("circuits", PLACED, "has aggregator/s2/0, but s2 cannot compute 'sum'")
def a_switch_loses_its_function_under_a_tree(scene):
    scene.run(T, SUMMED)
    return [Put("switch/s2", encode(Switch("s2", aggregators=1, domain="d")))]


@mistake("circuits", PLACED, "uses aggregator/s2/0, which it does not hold")
def streams_meet_in_an_aggregator_that_is_not_held(scene):
    scene.run(T, SUMMED)
    held = {u: a for u, a in SUMMED.units.items() if not u.startswith("aggregator/")}
    claim = scene.gone("claim/aggregator/s2/0")
    return [claim, scene.rewritten(T, held=held)]


@mistake("circuits", PLACED, "uses aggregator/s2/0, which t/0 uses too")
def two_trees_use_one_aggregator(scene):
    scene.run(T, SUMMED)
    return [scene.rewritten(T, circuits=(MERGED, replace(MERGED, id="t/1")))]


@mistake("circuits", PLACED, "makes 2 streams 1 at s2 with 2 aggregators")
def streams_meet_in_two_aggregators_at_once(scene):
    return with_merge(scene, aggregators=("aggregator/s2/0", "aggregator/s2/1"))


@mistake("circuits", PLACED, "makes 1 streams 1 at s1 with 1 aggregators")
def an_aggregator_has_nothing_to_merge(scene):
    return with_merge(scene, aggregators=(*MERGED.aggregators, "aggregator/s1/0"))


@mistake("circuits", PLACED, "has an aggregator of s1, where it does not come by")
def an_aggregator_is_not_on_the_way(scene):
    arcs = (JOINS, OUT)
    return with_merge(scene, arcs=arcs, aggregators=("aggregator/s1/0",))


@mistake("circuits", PLACED, "does not lead from n1/x to n2/z")
def a_stream_has_a_gap(scene):
    return with_merge(scene, arcs=(INTO[0], JOINS, OUT))


@mistake("circuits", PLACED, "does not start at its source n2/y as one stream")
def a_stream_leads_into_a_source(scene):
    return with_merge(scene, arcs=(*MERGED.arcs, Arc("py", "rev", (0,))))


@mistake("circuits", PLACED, "has a piece to s1 that no source leads to")
def a_tree_has_a_loose_piece(scene):
    return with_merge(scene, arcs=(*MERGED.arcs, Arc("pf", "fwd", (0,))))


@mistake("circuits", PLACED, "does not end at its target n2/z")
def a_tree_leaves_its_target(scene):
    return with_merge(scene, arcs=(*MERGED.arcs, Arc("pz", "fwd", (0,))))


@mistake("circuits", PLACED, "is to turn at n1/f, which is no switch")
def streams_meet_in_an_engine(scene):
    arcs = (*MERGED.arcs, Arc("pf", "rev", (0,)), Arc("pf", "fwd", (0,)))
    return with_merge(scene, arcs=arcs)


@mistake("circuits", PLACED, "has aggregator/s2/0, but only one source")
def a_path_has_an_aggregator(scene):
    scene.run(T, TREE)
    return [
        scene.rewritten(T, circuits=(replace(TREE.circuits[0], aggregators=("aggregator/s2/0",)),))
    ]


@mistake("orders", "order/s2/a1", "not what its placement says: crossbar")
def a_switch_is_not_told_to_merge(scene):
    scene.run(T, SUMMED)
    (turn,) = scene.view().orders["a1"]["s2"].value.crossbar
    return [order_of(scene, "s2", crossbar=(replace(turn, aggregator="", function=""),))]
