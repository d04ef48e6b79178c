"""What is to be up where: orders as they follow from placements, and which of them are written."""

from dataclasses import replace

import pytest

from flowos.model.codec import decode
from flowos.model.placement import Arc, Decision, Order, Placement, Turn
from flowos.model.slice import NEXT, Phase, Run
from flowos.model.transaction import Put
from flowos.model.units import places_of, things_used
from flowos.protocol.orders import cleaners_of, orders_of, rank_of, rewrite_orders
from flowos.protocol.proposal import Draft, Fence
from tests.protocol.little_cell import (
    F_FAR,
    HALF,
    HALF_FAR,
    MERGED,
    PAIR,
    TREE,
    TRUNK,
    X,
    little_cell,
)

CELL = little_cell()
RUN = Run(command=("train",))


def holding(what: Decision, **more) -> Placement:
    """A placement of a decision, without orders yet."""
    return replace(
        Placement(uid=1, attempt="a1", held=what.units, engines=what.engines, run=RUN),
        circuits=what.circuits,
        **more,
    )


def written(draft: Draft) -> dict[str, Order]:
    """The orders that a draft puts, by place."""
    puts = [op for op in draft.operations.values() if isinstance(op, Put)]
    return {op.key.split("/")[1]: decode(Order, op.value) for op in puts}


# ------------------------------------------------------------------------------ orders_of


def test_a_path_is_up_at_both_ends_of_each_lane():
    orders = orders_of(CELL, "t/S", holding(PAIR))
    assert {place: order.units for place, order in orders.items()} == {
        "n1": ("engine/n1/x", "lane/px/fwd/0"),
        "s1": ("lane/px/fwd/0", TRUNK),
        "s2": ("lane/py/rev/0", TRUNK),
        "n2": ("engine/n2/y", "lane/py/rev/0"),
    }


def test_a_switch_turns_what_enters_to_where_it_leaves():
    (turn,) = orders_of(CELL, "t/S", holding(PAIR))["s1"].crossbar
    assert turn.into == Arc("px", "fwd", (0,))
    assert turn.out == (Arc("trunk", "fwd", (0,)),)


def test_a_tree_fans_out_where_it_branches():
    orders = orders_of(CELL, "t/S", holding(TREE))
    (turn,) = orders["s2"].crossbar
    assert turn.into == Arc("trunk", "fwd", (0,))
    assert turn.out == (Arc("py", "rev", (0,)), Arc("pz", "rev", (0,)))
    assert "aggregator/s2/0" in orders["s2"].units
    assert "aggregator/s2/0" not in orders["s1"].units


def test_streams_that_meet_at_an_aggregator_are_one_turn():
    orders = orders_of(CELL, "t/S", holding(MERGED))
    assert orders["s2"].crossbar == (
        Turn(
            "t/c",
            into=Arc("trunk", "fwd", (0,)),
            out=(Arc("pz", "rev", (0,)),),
            merged=(Arc("py", "fwd", (0,)),),
            aggregator="aggregator/s2/0",
            function="sum",
        ),
    )
    assert orders["s1"].crossbar == (
        Turn("t/c", Arc("px", "fwd", (0,)), (Arc("trunk", "fwd", (0,)),)),
    )
    assert "aggregator/s2/0" in orders["s2"].units


def test_streams_that_pass_a_switch_without_an_aggregator_turn_each_for_itself():
    apart = (Arc("px", "fwd", (0,)), Arc("pf", "fwd", (0,)))
    onward = (Arc("trunk", "fwd", (0,)), Arc("trunk", "fwd", (1,)))
    circuit = replace(
        MERGED.circuits[0],
        sources=("n1/x", "n1/f"),
        arcs=(apart[0], onward[0], apart[1], onward[1], Arc("pz", "rev", (0,))),
    )
    orders = orders_of(CELL, "t/S", replace(holding(MERGED), circuits=(circuit,)))
    assert [(turn.into, turn.out) for turn in orders["s1"].crossbar] == [
        (into, (out,)) for into, out in zip(apart, onward, strict=True)
    ]
    (turn,) = orders["s2"].crossbar
    assert (turn.into, *turn.merged) == onward


def test_parts_of_an_engine_and_of_a_host_are_ordered_at_their_node():
    assert {p: o.units for p, o in orders_of(CELL, "t/S", holding(HALF)).items()} == {
        "n1": ("host/n1", "share/n1/f")
    }


def test_tasks_have_the_rank_of_their_engine_over_all_roles():
    placement = holding(TREE)
    assert rank_of(placement) == {"n1/x": 0, "n2/y": 1, "n2/z": 2}
    orders = orders_of(CELL, "t/S", placement)
    assert orders["n1"].tasks == {"n1/x": 0}
    assert orders["n2"].tasks == {"n2/y": 1, "n2/z": 2}


def test_nodes_run_programs_and_switches_do_not():
    orders = orders_of(CELL, "t/S", holding(PAIR))
    assert [orders[place].run for place in ("n1", "s1")] == [RUN, Run()]
    assert orders["s1"].tasks == {}


def test_a_bitstream_is_ordered_where_its_engine_is():
    orders = orders_of(CELL, "t/S", holding(F_FAR, bitstreams={"n1/f": "fft@sha256:1"}))
    assert orders["n1"].bitstreams == {"n1/f": "fft@sha256:1"}
    assert [place for place, order in orders.items() if order.bitstreams] == ["n1"]


@pytest.mark.parametrize(
    ("identifier", "placement"),
    [
        ("t/S", holding(PAIR, waits=("a0",))),
        ("t/S", replace(holding(PAIR), held={}, releasing=PAIR.units)),
        ("~drain/engine/n1/x", holding(X)),
        ("~quarantine/n1/a1", replace(holding(PAIR), held={}, releasing=PAIR.units)),
        ("~quarantine/n1/out-of-service", Placement(0, "a1", held={"node/n1": ()})),
    ],
)
def test_nothing_is_up_for_who_waits_gives_back_or_only_keeps_others_out(identifier, placement):
    assert orders_of(CELL, identifier, placement) == {}


def test_an_engine_without_power_is_ordered_off():
    placement = Placement(0, "a1", held={"engine/n1/x": ()})
    assert orders_of(CELL, "~off/engine/n1/x", placement) == {
        "n1": Order(slice="~off/engine/n1/x", off=("n1/x",))
    }


def test_orders_do_not_depend_on_how_units_are_listed():
    upside_down = dict(reversed([*TREE.units.items()]))
    assert orders_of(CELL, "t/S", holding(replace(TREE, units=upside_down))) == orders_of(
        CELL, "t/S", holding(TREE)
    )


# -------------------------------------------------------------------------- rewrite_orders


def rewritten(before: Placement, after: Placement) -> tuple[dict[str, Order], Placement]:
    """What is put, and the placement with its ordered places."""
    draft = Draft(fence=Fence("session/scheduler/a", 1))
    placement = rewrite_orders(draft, CELL, "t/S", before, after)
    return written(draft), placement


def test_a_first_placement_orders_at_each_of_its_places():
    puts, placement = rewritten(Placement(1, "a1"), holding(PAIR))
    assert puts == orders_of(CELL, "t/S", holding(PAIR))
    assert placement.ordered == ("n1", "n2", "s1", "s2")


@pytest.mark.parametrize(
    ("run", "changed"),
    [(Run(for_seconds=1.0), ["n2", "s2"]), (RUN, ["n1", "n2", "s2"])],
    ids=["simulated", "command"],  # n1's task is told that its circuit ends elsewhere
)
def test_only_orders_that_change_are_written(run, changed):
    _, before = rewritten(Placement(1, "a1"), replace(holding(TREE), run=run))
    after = replace(before, held=PAIR.units, circuits=PAIR.circuits)
    puts, placement = rewritten(before, after)
    assert sorted(puts) == changed
    assert placement.ordered == before.ordered


def test_a_place_that_has_nothing_up_any_more_is_told_so():
    _, before = rewritten(Placement(1, "a1"), holding(PAIR))
    after = replace(before, held={}, releasing=before.held)
    puts, placement = rewritten(before, after)
    assert puts == dict.fromkeys(("n1", "n2", "s1", "s2"), Order(slice="t/S"))
    assert placement.ordered == before.ordered


def test_who_gives_back_already_is_not_told_twice():
    _, before = rewritten(Placement(1, "a1"), holding(PAIR))
    _, releasing = rewritten(before, replace(before, held={}, releasing=before.held))
    puts, _ = rewritten(releasing, replace(releasing, releasing={}))
    assert puts == {}


# ------------------------------------------------------------------- who cleans, what is used


def test_an_engine_is_cleaned_by_its_node_and_the_switches_at_its_ports():
    assert places_of(CELL, "engine/n1/x") == ("n1", "s1")
    assert cleaners_of(CELL, "share/n1/f", ()) == ("n1", "s1")
    assert cleaners_of(CELL, "host/n1", ()) == ("n1",)
    assert cleaners_of(CELL, TRUNK, ()) == ("s1", "s2")


def test_what_left_the_inventory_is_cleaned_by_all_that_had_orders():
    assert cleaners_of(CELL, "lane/gone/fwd/0", ("n1", "s1")) == ("n1", "s1")


@pytest.mark.parametrize(
    ("unit", "things"),
    [
        ("engine/n1/x", {"node/n1"}),
        ("share/n1/f", {"node/n1"}),
        ("host/n1", {"node/n1"}),
        ("aggregator/s2/0", {"switch/s2"}),
        (TRUNK, {"link/trunk", "switch/s1", "switch/s2"}),
        ("lane/px/fwd/0", {"link/px", "node/n1", "switch/s1"}),
    ],
)
def test_a_unit_needs_what_it_is_part_of_in_service(unit, things):
    assert set(things_used(CELL, unit)) == things


def test_lanes_of_a_whole_engines_port_are_ordered_without_being_held():
    ordered = {u for o in orders_of(CELL, "t/S", holding(F_FAR)).values() for u in o.units}
    assert "lane/pf/fwd/0" in ordered - F_FAR.units.keys()
    assert "lane/pf/fwd/0" in HALF_FAR.units


# --------------------------------------------------------------------------- the phases table


def test_every_phase_leads_to_an_end_and_a_lost_placement_back_to_the_queue():
    def reached(phase: Phase) -> set[Phase]:
        found, new = {phase}, {phase}
        while new:
            new = {after for one in new for after in NEXT[one]} - found
            found |= new
        return found

    ends = {phase for phase in Phase if not NEXT[phase]}
    assert ends == {Phase.DONE, Phase.FAILED, Phase.CANCELLED}
    for phase in set(Phase) - ends:
        assert ends <= reached(phase)
        assert Phase.PENDING in reached(phase)
