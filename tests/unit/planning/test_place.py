"""Which engines and hosts a request gets."""

from random import Random

import pytest

from flowos.model.cell import Engine
from flowos.model.placement import Decision, Placement
from flowos.model.slice import EngineChoice, EngineRole, HostRole, Reason
from flowos.planning.engines.pool import Pool
from flowos.planning.place import plan
from tests.unit.planning.cells import (
    BITSTREAM,
    GIB,
    OTHER,
    fpgas,
    gpus,
    hold,
    hold_part,
    leaves,
    load,
    node,
    placed,
    ports,
    power_off,
    refused,
    request,
    ring,
    view_of,
    want,
)
from tests.unit.planning.laws import faults


def nodes_of(decision, role="w"):
    return {engine.partition("/")[0] for engine in decision.engines[role]}


# -- best fit


def test_gang_takes_the_node_with_the_fewest_engines_left_over():
    view = view_of(node("big", *gpus("big", 8)), node("right", *gpus("right", 2)))
    assert placed(view, request(w=want(2))).engines == {"w": ("right/gpu0", "right/gpu1")}


def test_alike_nodes_are_told_apart_by_the_tightest_host():
    view = view_of(
        node("roomy", *gpus("roomy", 2), cpu=64, memory=64),
        node("tight", *gpus("tight", 2), cpu=4, memory=64),
    )
    decision = placed(view, request(w=want(2), hosts={"w": HostRole(2000, GIB)}))
    assert decision.hosts == {"w": ("tight", "tight")}
    assert decision.units["host/tight"] == (4000, 2 * GIB)


def test_node_without_enough_host_memory_is_passed_over():
    view = view_of(
        node("n0", *gpus("n0", 1), cpu=4, memory=1),
        node("n1", *gpus("n1", 1), cpu=8, memory=8),
    )
    assert nodes_of(placed(view, request(w=want(1), hosts={"w": HostRole(1000, 4 * GIB)}))) == {
        "n1"
    }


def test_gang_that_no_node_holds_stays_on_one_switch():
    view = leaves(3, nodes_each=2, gpus_each=2)
    hold(view, "engine/n0/gpu0", "engine/n2/gpu0")
    decision = placed(view, request(w=want(4)))
    assert nodes_of(decision) == {"n4", "n5"}


def test_gang_that_no_switch_holds_takes_as_few_as_possible():
    view = leaves(3, nodes_each=1, gpus_each=4)
    hold(view, "engine/n0/gpu0", "engine/n0/gpu1", "engine/n0/gpu2")
    decision = placed(view, request(w=want(5)))
    # Four of one, and the one left over from the leaf that it fits best.
    assert sorted(decision.engines["w"]) == ["n0/gpu3", *(f"n1/gpu{n}" for n in range(4))]


def test_engines_come_in_the_order_of_their_switches():
    view = leaves(2, nodes_each=1, gpus_each=2)
    assert placed(view, request(w=want(4))).engines["w"] == (
        "n0/gpu0", "n0/gpu1", "n1/gpu0", "n1/gpu1",
    )  # fmt: skip


def test_gang_without_any_fabric_spans_nodes():
    view = view_of(node("n0", *gpus("n0", 2)), node("n1", *gpus("n1", 2)))
    assert nodes_of(placed(view, request(w=want(4)))) == {"n0", "n1"}


def test_first_choice_that_fits_is_taken():
    role = EngineRole((EngineChoice("gpu", ("H100",), 2), EngineChoice("gpu", ("A100",), 4)))
    view = view_of(node("n0", *gpus("n0", 4)), node("n1", *gpus("n1", 2, "H100")))
    assert nodes_of(placed(view, request(w=role))) == {"n1"}
    hold(view, "engine/n1/gpu0")
    assert len(placed(view, request(w=role)).engines["w"]) == 4


def test_where_reads_memory_engine_words_and_node_words():
    small, large = gpus("n0", 1)[0], Engine("n1", "gpu0", "gpu", "H100", 80 * GIB)
    view = view_of(
        node("n0", small, rack="r0"),
        node("n1", large, rack="r1"),
        node("n2", Engine("n2", "gpu0", "gpu", attributes={"nic": 400}), rack="r2"),
    )
    assert nodes_of(placed(view, request(w=want(memory=">=80GiB")))) == {"n1"}
    assert nodes_of(placed(view, request(w=want(rack="r1")))) == {"n1"}
    assert nodes_of(placed(view, request(w=want(nic=">=200")))) == {"n2"}
    assert nodes_of(placed(view, request(w=want(node="n0")))) == {"n0"}
    assert nodes_of(placed(view, request(w=want(nic="!=400", rack="!=r0")))) == {"n1"}


def test_word_of_an_engine_overrules_that_of_its_node():
    view = view_of(
        node("n0", Engine("n0", "gpu0", "gpu", attributes={"rack": "x"}), rack="r0"),
        node("n1", Engine("n1", "gpu0", "gpu"), rack="r0"),
    )
    assert nodes_of(placed(view, request(w=want(rack="r0")))) == {"n1"}
    assert nodes_of(placed(view, request(w=want(rack="x")))) == {"n0"}


def test_sizes_replace_the_count():
    view = leaves(1, gpus_each=4)
    assert len(placed(view, request(w=want(4)), sizes={"w": 3}).engines["w"]) == 3


def test_units_to_avoid_are_left_alone():
    view = view_of(node("n0", *gpus("n0", 1)), node("n1", *gpus("n1", 1)))
    spec = request(w=want(1))
    assert nodes_of(placed(view, spec, avoid={"engine/n0/gpu0"})) == {"n1"}
    assert nodes_of(placed(view, spec, avoid={"node/n0"})) == {"n1"}
    assert refused(view, spec, avoid={"node/n0", "engine/n1/gpu0"}).sentence
    hosted = request(w=want(1), hosts={"w": HostRole(0, 0)})
    assert nodes_of(placed(view, hosted, avoid={"host/n0"})) == {"n0"}


def test_part_to_avoid_is_left_alone_where_roles_compete():
    view = view_of(node("n0", *gpus("n0", 2, shareable=True)))
    hold_part(view, "share/n0/gpu0", 400)
    spec = request(a=want(1), b=want(1, share=500))
    assert placed(view, spec).engines == {"a": ("n0/gpu1",), "b": ("n0/gpu0",)}
    assert refused(view, spec, avoid={"share/n0/gpu0"}).reason is Reason.WAITING_FOR_ENGINES


def test_host_to_avoid_holds_nothing_more():
    view = view_of(node("n0", cpu=4, memory=4), node("n1", cpu=8, memory=8))
    spec = request(hosts={"d": HostRole(1000, GIB, 1)})
    assert placed(view, spec).hosts == {"d": ("n0",)}
    assert placed(view, spec, avoid={"host/n0"}).hosts == {"d": ("n1",)}


@pytest.mark.parametrize(
    ("seed", "joined", "racks"),
    [*((seed, joined, 10) for seed in range(6) for joined in (False, True)), (0, False, 250)],
)
def test_first_come_gangs_whose_sum_fits_are_all_placed(seed, joined, racks):
    dice = Random(seed)
    sizes, left = [], racks * 4 * 8
    while left:
        sizes.append(min(dice.randint(1, 8), left))
        left -= sizes[-1]
    view = leaves(racks, nodes_each=4, gpus_each=8, spines=8, lanes=4)
    pool = Pool(view)
    for turn, size in enumerate(sizes):
        spec = request(*([ring("w")] if joined else []), w=want(size))
        decision = plan(pool, spec, slice_name=f"s{turn}")
        assert isinstance(decision, Decision), (turn, size, decision)
        view.assume(f"a/{turn}", Placement(1, f"a{turn}", held=decision.units))
    pool.fold()
    assert not any(free.on for free in pool.free)


def test_leaves_of_more_than_64_engines_are_filled_to_the_last():
    view = leaves(2, nodes_each=1, gpus_each=100)
    hold(view, *(f"engine/n0/gpu{n}" for n in range(3, 97)))
    assert nodes_of(placed(view, request(w=want(6), together="switch"))) == {"n0"}
    both = placed(view, request(w=want(106)))
    assert len(both.engines["w"]) == 106
    assert refused(view, request(w=want(107))).sentence


def test_gang_over_leaves_of_no_pod_takes_the_largest_first_and_the_rest_where_it_fits():
    view = leaves(4, nodes_each=1, gpus_each=4)
    hold(view, "engine/n0/gpu0", "engine/n1/gpu0", "engine/n1/gpu1", "engine/n2/gpu0")
    # Four of n3, and of those with three the first; what is left fits n1 best.
    assert nodes_of(placed(view, request(w=want(6)))) == {"n3", "n1"}
    assert nodes_of(placed(view, request(w=want(9)))) == {"n3", "n0", "n1"}


# -- power


def test_powered_engines_come_before_those_that_are_off():
    view = view_of(node("n0", *gpus("n0", 2)), node("n1", *gpus("n1", 4)))
    power_off(view, "n0/gpu0")
    assert nodes_of(placed(view, request(w=want(2)))) == {"n1"}


def test_engines_are_woken_where_the_powered_ones_do_not_suffice():
    view = view_of(node("n0", *gpus("n0", 2)))
    power_off(view, "n0/gpu0")
    decision = placed(view, request(w=want(2)))
    assert decision.units == {"engine/n0/gpu0": (), "engine/n0/gpu1": ()}


def test_as_few_engines_as_possible_are_woken():
    view = view_of(node("n0", *gpus("n0", 2)), node("n1", *gpus("n1", 4)))
    for engine in ("n0/gpu0", "n0/gpu1", "n1/gpu0", "n1/gpu1", "n1/gpu2"):
        power_off(view, engine)
    # n0 would fit without leftovers, but there two had to be woken.
    assert nodes_of(placed(view, request(w=want(2), together="node"))) == {"n1"}


# -- together and spread


def test_together_on_one_node_is_kept():
    view = leaves(2, nodes_each=2, gpus_each=2)
    assert len(nodes_of(placed(view, request(w=want(2), together="node")))) == 1
    assert refused(view, request(w=want(3), together="node")).sentence


def test_together_on_one_switch_is_kept():
    view = leaves(2, nodes_each=2, gpus_each=2)
    assert nodes_of(placed(view, request(w=want(3), together="switch"))) == {"n0", "n1"}
    assert refused(view, request(w=want(5), together="switch")).sentence


def test_node_with_ports_on_two_switches_is_no_single_switch():
    view = leaves(2, gpus_each=1)
    first, second = gpus("rail", 2)
    for thing in [*node("rail", first, second), *ports([first], "l0"), *ports([second], "l1")]:
        view.cell.add(thing)
    spec = request(w=want(2), together="switch")
    decision = placed(view, spec)
    assert len(nodes_of(decision)) == 2
    assert faults(view, spec, decision) == []


def test_spread_uses_as_many_nodes_as_it_can():
    view = leaves(2, nodes_each=2, gpus_each=2)
    assert len(nodes_of(placed(view, request(w=want(4), spread="spread")))) == 4
    assert len(placed(view, request(w=want(7), spread="spread")).engines["w"]) == 7


def test_rack_spreads_over_racks_and_packs_inside():
    view = leaves(2, nodes_each=2, gpus_each=2)
    assert nodes_of(placed(view, request(w=want(4), spread="rack"))) == {"n0", "n2"}


# -- shares


def shared_view():
    return view_of(
        node("n0", *gpus("n0", 2, shareable=True), cpu=8, memory=8),
        node("n1", *gpus("n1", 2, shareable=True), cpu=8, memory=8),
    )


def test_part_goes_to_the_engine_with_least_left_that_still_fits():
    view = shared_view()
    hold_part(view, "share/n0/gpu0", 300, by="a/a")
    hold_part(view, "share/n1/gpu0", 500, by="a/b")
    hold_part(view, "share/n1/gpu1", 900, by="a/c")
    decision = placed(view, request(w=want(1, share=500)))
    assert decision.units == {"share/n1/gpu0": (500,)}


def test_part_breaks_a_whole_engine_only_where_no_broken_one_fits():
    view = shared_view()
    hold_part(view, "share/n0/gpu0", 700)
    assert placed(view, request(w=want(1, share=400))).units == {"share/n0/gpu1": (400,)}


def test_part_comes_with_its_host_resources():
    view = shared_view()
    hold_part(view, "share/n0/gpu0", 500)
    hold_part(view, "host/n0", 8000, 0, by="other/host")
    decision = placed(view, request(w=want(1, share=500), hosts={"w": HostRole(1000, GIB)}))
    assert decision.units == {"share/n1/gpu0": (500,), "host/n1": (1000, GIB)}


def test_two_parts_of_one_slice_may_share_an_engine_but_not_overfill_it():
    view = view_of(node("n0", *gpus("n0", 2, shareable=True)))
    spec = request(a=want(1, share=600), b=want(1, share=400), c=want(1, share=500))
    decision = placed(view, spec)
    assert faults(view, spec, decision) == []
    assert sorted(sum(amount) for amount in decision.units.values()) == [500, 1000]


def test_engine_that_is_not_shareable_is_not_divided():
    assert refused(view_of(node("n0", *gpus("n0", 1))), request(w=want(1, share=500))).sentence


def test_part_of_an_engine_needs_the_bitstream_of_its_other_holders():
    view = view_of(BITSTREAM, OTHER, node("n0", *fpgas("n0", 2, shareable=True)))
    held = {"share/n0/fpga0": (500,)}
    loaded = {"n0/fpga0": BITSTREAM.reference}
    view.assume("a/a", Placement(1, "a", held=held, bitstreams=loaded))
    same = placed(view, request(w=want(1, "fpga", share=500, bitstream="sum")))
    assert same.engines["w"] == ("n0/fpga0",)
    other = placed(view, request(w=want(1, "fpga", share=500, bitstream="sort")))
    assert other.engines["w"] == ("n0/fpga1",)


# -- bitstreams


def test_engine_that_has_the_bitstream_comes_first_then_an_empty_one():
    view = view_of(BITSTREAM, OTHER, node("n0", *fpgas("n0", 3)))
    load(view, "n0/fpga0", OTHER)
    load(view, "n0/fpga2", BITSTREAM)
    spec = request(w=want(1, "fpga", bitstream="sum"))
    decision = placed(view, spec)
    assert decision.engines["w"] == ("n0/fpga2",)
    assert decision.bitstreams == {"n0/fpga2": BITSTREAM.reference}
    hold(view, "engine/n0/fpga2")
    assert placed(view, spec).engines["w"] == ("n0/fpga1",)
    hold(view, "engine/n0/fpga1", by="other/two")
    assert placed(view, spec).engines["w"] == ("n0/fpga0",)


def test_node_with_the_bitstream_wins_over_the_better_fit():
    view = view_of(BITSTREAM, node("n0", *fpgas("n0", 1)), node("n1", *fpgas("n1", 4)))
    load(view, "n1/fpga3", BITSTREAM)
    decision = placed(view, request(w=want(1, "fpga", bitstream="sum")))
    assert decision.engines["w"] == ("n1/fpga3",)


def test_bitstream_may_be_asked_for_by_its_digest():
    view = view_of(BITSTREAM, node("n0", *fpgas("n0", 1)))
    assert placed(view, request(w=want(1, "fpga", bitstream="sum@sha256:aa"))).bitstreams
    assert refused(view, request(w=want(1, "fpga", bitstream="sum@sha256:ab"))).sentence


# -- hosts


def test_work_without_engines_strands_no_engines():
    view = view_of(
        node("idle", *gpus("idle", 1), cpu=8, memory=8),
        node("busy", *gpus("busy", 1), cpu=8, memory=8),
        node("plain", cpu=16, memory=16),
    )
    hold(view, "engine/busy/gpu0")
    pool = Pool(view)
    order: list[str] = []
    for turn in range(4):
        decision = plan(pool, request(hosts={"d": HostRole(8000, 8 * GIB, 1)}))
        assert isinstance(decision, Decision)
        order += decision.hosts["d"]
        view.assume(f"a/{turn}", Placement(1, f"a{turn}", held=decision.units))
    assert order == ["plain", "plain", "busy", "idle"]


def test_work_without_engines_goes_first_where_fewest_whole_engines_are_free():
    view = view_of(*(node(name, *gpus(name, 2), cpu=8) for name in ("all", "some", "none")))
    hold(view, "engine/some/gpu0", "engine/none/gpu0", "engine/none/gpu1")
    pool = Pool(view)
    order: list[str] = []
    for turn in range(3):
        decision = plan(pool, request(hosts={"d": HostRole(8000, 0, 1)}))
        assert isinstance(decision, Decision)
        order += decision.hosts["d"]
        view.assume(f"a/{turn}", Placement(1, f"a{turn}", held=decision.units))
    assert order == ["none", "some", "all"]


def test_several_hosts_are_several_nodes():
    view = view_of(*(node(f"n{n}", cpu=8, memory=8) for n in range(3)))
    decision = placed(view, request(hosts={"d": HostRole(1000, GIB, 3)}))
    assert sorted(decision.hosts["d"]) == ["n0", "n1", "n2"]
    assert refused(view, request(hosts={"d": HostRole(1000, GIB, 4)})).sentence


def test_host_amounts_of_all_roles_on_a_node_are_added():
    view = view_of(node("n0", *gpus("n0", 2), cpu=8, memory=8))
    spec = request(w=want(2), hosts={"w": HostRole(2000, GIB), "d": HostRole(4000, GIB, 1)})
    decision = placed(view, spec)
    assert decision.units["host/n0"] == (8000, 3 * GIB)
    assert decision.hosts == {"w": ("n0", "n0"), "d": ("n0",)}
    too_much = request(w=want(2), hosts={"w": HostRole(2000, GIB), "d": HostRole(4001, GIB, 1)})
    assert refused(view, too_much).sentence


# -- several roles


def test_roles_that_circuits_join_are_laid_on_one_switch():
    # Each leaf has two gpus and an fpga; the tighter fpga is far away.
    view = leaves(2, gpus_each=2, lanes=4)
    for leaf in range(2):
        (fpga,) = fpgas(f"n{leaf}", 1, loads_bitstreams=False)
        for thing in [fpga, *ports([fpga], f"l{leaf}")]:
            view.cell.add(thing)
    (lonely,) = fpgas("lonely", 1, loads_bitstreams=False)
    for thing in [*node("lonely", lonely), *ports([lonely], "l1")]:
        view.cell.add(thing)
    hold(view, "engine/n0/gpu0")
    near = placed(view, request(ring("w", "r"), w=want(2), r=want(1, "fpga")))
    assert nodes_of(near, "w") == {"n1"}
    assert nodes_of(near, "r") <= {"n1", "lonely"}
    assert all(len(circuit.arcs) == 2 for circuit in near.circuits)


def test_roles_that_compete_are_matched_where_choosing_in_order_would_fail():
    # The first role fits n0 best, which is all that the second can use.
    view = view_of(
        node("n0", *gpus("n0", 2)), node("n1", *gpus("n1", 3, "H100")), node("n2", *gpus("n2", 1))
    )
    spec = request(any=want(2), only=want(2, models=("A100",)), together="node")
    decision = placed(view, spec)
    assert (nodes_of(decision, "any"), nodes_of(decision, "only")) == ({"n1"}, {"n0"})
    assert faults(view, spec, decision) == []


# -- seeds


def test_same_seed_gives_the_same_plan_and_zero_the_best():
    view = leaves(4, nodes_each=4, gpus_each=4)
    spec = request(w=want(4))
    assert placed(view, spec) == placed(view, spec)
    assert placed(view, spec, seed=7) == placed(view, spec, seed=7)
    assert nodes_of(placed(view, spec)) == {"n0"}


@pytest.mark.parametrize(
    "spec",
    [
        request(w=want(4)),
        request(w=want(1, share=500)),
        request(w=want(8)),
        request(hosts={"d": HostRole(1000, GIB, 1)}),
        request(w=want(8), spread="spread"),
    ],
    ids=["node", "part", "leaf", "host", "spread"],
)
def test_different_seeds_seldom_want_the_same(spec):
    view = leaves(8, nodes_each=4, gpus_each=4)
    for engine in list(view.cell.engines.values()):
        view.cell.add(Engine(engine.node, engine.name, "gpu", "A100", shareable=True))
    plans = {str(sorted(placed(view, spec, seed=seed).units)) for seed in range(1, 9)}
    assert len(plans) >= 4
