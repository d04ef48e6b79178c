"""Why a request cannot be placed, told so that people and programs can act on it."""

import pytest

from flowos.model.cell import Switch
from flowos.model.slice import EngineChoice, EngineRole, HostRole, Reason
from tests.unit.planning.cells import (
    BITSTREAM,
    GIB,
    flow,
    fpgas,
    gpus,
    hold,
    hold_part,
    leaves,
    node,
    ports,
    refused,
    request,
    ring,
    view_of,
    want,
)


def two_nodes(each=4, **more):
    return view_of(
        Switch("sw"), node("n0", *gpus("n0", each), **more), node("n1", *gpus("n1", each), **more)
    )


# -- never


def test_unknown_kind_can_never_be():
    answer = refused(two_nodes(), request(w=want(1, "tpu")))
    assert answer.reason is Reason.INFEASIBLE
    assert answer.sentence == "w: 1 tpu wanted, the cell has 0"
    assert answer.funnel == (("kind tpu", 0),)


def test_more_than_exist_can_never_be_and_the_funnel_says_where_they_went():
    answer = refused(two_nodes(), request(w=want(5, models=("A100",), memory=">=80GiB")))
    assert answer.reason is Reason.INFEASIBLE
    assert answer.funnel == (("kind gpu", 8), ("model A100", 8), ("memory >=80GiB", 0))
    assert "of that: model A100 leaves 8, memory >=80GiB leaves 0" in answer.sentence


def test_more_on_one_node_than_any_node_has_can_never_be():
    answer = refused(two_nodes(), request(w=want(5), together="node"))
    assert answer.reason is Reason.INFEASIBLE
    assert answer.sentence == "w: 5 gpu wanted on one node, no node has more than 4"


def test_more_on_one_switch_than_any_switch_has_can_never_be():
    answer = refused(leaves(2, gpus_each=2), request(w=want(3), together="switch"))
    assert answer.reason is Reason.INFEASIBLE


def test_one_switch_can_never_be_where_there_is_none():
    assert refused(two_nodes(), request(w=want(1), together="switch")).reason is Reason.INFEASIBLE


def test_host_resources_that_no_node_has_can_never_be():
    answer = refused(two_nodes(cpu=8, memory=8), request(w=want(1), hosts={"w": HostRole(9000)}))
    assert answer.reason is Reason.INFEASIBLE
    assert "9 CPU each, that much is there for 0" in answer.sentence
    answer = refused(two_nodes(cpu=8, memory=8), request(hosts={"d": HostRole(9000, GIB, 1)}))
    assert answer.reason is Reason.INFEASIBLE


def test_two_roles_that_want_more_than_exists_together_can_never_be():
    answer = refused(two_nodes(), request(a=want(4), b=want(5)))
    assert answer.reason is Reason.INFEASIBLE
    assert answer.sentence.startswith("5 gpu") or answer.sentence.startswith("4 gpu")


def test_unknown_bitstream_unknown_role_and_unreadable_condition_can_never_be():
    view = view_of(BITSTREAM, node("n0", *fpgas("n0", 1)))
    for spec, word in [
        (request(w=want(1, "fpga", bitstream="nothing")), "bitstream nothing is not known"),
        (request(flow("w", "x"), w=want(1, "fpga")), "role x"),
        (request(w=want(1, "fpga", memory=">=much")), "no size to compare"),
    ]:
        answer = refused(view, spec)
        assert answer.reason is Reason.INFEASIBLE
        assert word in answer.sentence


def test_circuits_that_not_even_the_empty_cell_has_lanes_for_can_never_be():
    view = leaves(2, gpus_each=1, port_lanes=2)
    hold(view, "lane/l0-s0/fwd/0")
    assert refused(view, request(ring("w"), w=want(2))).reason is Reason.NO_CIRCUIT
    answer = refused(view, request(ring("w", lanes=2), w=want(2)))
    assert answer.reason is Reason.INFEASIBLE
    assert "even if it were empty" in answer.sentence


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (request(w=want(0)), "asks for 0 engines"),
        (request(w=want(-3)), "asks for -3 engines"),
        (request(w=want(1, share=-5)), "-5 thousandths"),
        (request(w=want(2, share=500)), "shares of 2 engines"),
        (request(w=want(1), hosts={"w": HostRole(-1)}), "less than nothing"),
        (request(hosts={"d": HostRole(1000, -GIB, 1)}), "less than nothing"),
        (request(ring("w", lanes=0), w=want(2)), "a circuit of 0 lanes"),
    ],
)
def test_amounts_that_cannot_be_meant_are_refused(spec, words):
    answer = refused(two_nodes(), spec)
    assert answer.reason is Reason.INFEASIBLE
    assert words in answer.sentence


# -- not now


def test_too_few_free_engines_are_waited_for():
    view = two_nodes()
    hold(view, *(f"engine/n0/gpu{n}" for n in range(4)), "engine/n1/gpu0")
    answer = refused(view, request(w=want(4)))
    assert answer.reason is Reason.WAITING_FOR_ENGINES
    assert answer.sentence == ("w: 4 gpu wanted, 3 are free: 5 of 8 are held or out of service")
    assert answer.funnel == (("kind gpu", 8), ("free now", 3))


def test_gang_that_fits_only_in_pieces_is_fragmented():
    view = two_nodes()
    hold(view, "engine/n0/gpu0", "engine/n1/gpu0")
    answer = refused(view, request(w=want(4), together="node"))
    assert answer.reason is Reason.FRAGMENTED_ACROSS_SWITCHES
    assert answer.sentence == ("w: 4 gpu wanted on one node, 6 are free but at most 3 on one node")
    assert answer.funnel == (("kind gpu", 8), ("free now", 6), ("one node", 0))


def test_without_switches_nothing_is_fragmented_across_them():
    view = view_of(node("n0", *gpus("n0", 4)), node("n1", *gpus("n1", 4)))
    hold(view, "engine/n0/gpu0", "engine/n1/gpu0")
    answer = refused(view, request(w=want(4), together="node"))
    assert answer.reason is Reason.WAITING_FOR_ENGINES
    assert answer.sentence == "w: 4 gpu wanted on one node, 6 are free but at most 3 on one node"


def test_engines_without_enough_host_beside_them_are_fragmented():
    view = two_nodes(cpu=8, memory=8)
    hold_part(view, "host/n0", 6000, 0)
    hold_part(view, "host/n1", 6000, 0, by="other/n1")
    answer = refused(view, request(w=want(1), hosts={"w": HostRole(4000, GIB)}))
    assert answer.reason is Reason.FRAGMENTED_ACROSS_SWITCHES
    assert answer.funnel[-1] == ("with 4 CPU and 1 GiB", 0)


def test_part_of_an_engine_is_waited_for_with_how_many_would_do():
    view = view_of(node("n0", *gpus("n0", 2, shareable=True)))
    hold_part(view, "share/n0/gpu0", 600)
    hold(view, "engine/n0/gpu1")
    answer = refused(view, request(w=want(1, share=500)))
    assert answer.reason is Reason.WAITING_FOR_ENGINES
    assert answer.sentence.startswith("w: 0.5 of one gpu wanted, 0 are free")


def test_busy_engines_that_could_load_the_bitstream_are_waited_for():
    view = view_of(BITSTREAM, node("n0", *fpgas("n0", 1)))
    hold(view, "engine/n0/fpga0")
    answer = refused(view, request(w=want(1, "fpga", bitstream="sum")))
    assert answer.reason is Reason.WAITING_FOR_BITSTREAM
    assert answer.funnel == (("kind fpga", 1), ("loads sum", 1), ("free now", 0))


def test_hosts_are_waited_for_with_what_all_nodes_have():
    view = view_of(Switch("sw"), node("n0", cpu=8, memory=8), node("n1", cpu=8, memory=8))
    hold_part(view, "host/n0", 5000, 0)
    hold_part(view, "host/n1", 5000, 0, by="other/n1")
    answer = refused(view, request(hosts={"d": HostRole(4000, GIB, 1)}))
    assert answer.reason is Reason.FRAGMENTED_ACROSS_SWITCHES
    assert answer.sentence == (
        "d: 1 node with 4 CPU and 1 GiB wanted, 0 of 2 have that much free: "
        "all nodes together 6 CPU and 16 GiB"
    )
    hold_part(view, "host/n1", 8000, 0, by="other/n1")
    answer = refused(view, request(hosts={"d": HostRole(4000, GIB, 1)}))
    assert answer.reason is Reason.WAITING_FOR_ENGINES


def test_of_several_choices_the_nearest_to_a_yes_is_told():
    view = two_nodes()
    hold(view, *(f"engine/{n}/gpu{g}" for n in ("n0", "n1") for g in range(2)))
    role = EngineRole((EngineChoice("tpu", (), 1), EngineChoice("gpu", (), 5)))
    answer = refused(view, request(w=role))
    assert answer.reason is Reason.WAITING_FOR_ENGINES
    assert answer.sentence.startswith("none of 2 choices fits; the nearest: w: 5 gpu wanted")


def test_role_that_another_role_left_nothing_for_is_counted_without_it():
    view = two_nodes()
    hold(view, "engine/n0/gpu0", "engine/n0/gpu1")
    answer = refused(view, request(a=want(4), b=want(3)))
    assert answer.reason is Reason.WAITING_FOR_ENGINES
    assert "3 gpu wanted, 2 are free" in answer.sentence


def test_engines_that_are_free_without_free_port_lanes_wait_for_circuits():
    # The one that is held has the ports; without circuits there is one more that would do.
    view = view_of(Switch("sw"), node("n0", *gpus("n0", 3)), ports(gpus("n0", 2), "sw", lanes=1))
    hold(view, "engine/n0/gpu0")
    answer = refused(view, request(ring("w"), w=want(2)))
    assert answer.reason is Reason.NO_CIRCUIT
    assert ("1 port lane", 2) in answer.funnel


def test_roles_that_compete_for_the_last_engines_wait_for_engines():
    view = two_nodes()
    hold(view, "engine/n0/gpu0", "engine/n0/gpu1", "engine/n0/gpu2")
    answer = refused(view, request(a=want(3), b=want(3), together="node"))
    assert answer.reason is Reason.WAITING_FOR_ENGINES


def test_other_roles_that_are_short_too_wait_for_engines_and_not_for_a_bitstream():
    view = view_of(BITSTREAM, node("n0", *fpgas("n0", 1), *gpus("n0", 1)))
    hold(view, "engine/n0/fpga0", by="a/fpga")
    spec = request(g=want(1), f=want(1, "fpga", bitstream="sum"))
    assert refused(view, spec).reason is Reason.WAITING_FOR_BITSTREAM
    hold(view, "engine/n0/gpu0", by="a/gpu")
    assert refused(view, spec).reason is Reason.WAITING_FOR_ENGINES
