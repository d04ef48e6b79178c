"""What does each policy do that batch would not, on the smallest cell that shows it?"""

from collections import Counter
from dataclasses import replace
from importlib.metadata import entry_points

import pytest

from flowos.model.cell import Switch, Thing, Watts
from flowos.model.placement import Decision, Unplaceable
from flowos.model.rules import PlannerRules
from flowos.model.slice import (
    CircuitWish,
    EngineChoice,
    EngineRole,
    Mode,
    Reason,
    Shape,
    SliceSpec,
    Work,
)
from flowos.model.units import engine_unit
from flowos.model.view import CellView
from flowos.planning.engines.pool import Pool
from flowos.planning.engines.weights import Weights
from flowos.planning.policy import Policy, Waits
from flowos_schedulers.batch import Batch
from flowos_schedulers.inference import Inference
from flowos_schedulers.mpi import Mpi
from flowos_schedulers.service import Service
from flowos_schedulers.stream import Stream, in_order
from flowos_schedulers.training import Training
from tests.unit.planning.cells import (
    BITSTREAM,
    OTHER,
    flow,
    fpgas,
    gpus,
    hold,
    hold_part,
    leaves,
    load,
    node,
    ports,
    power_off,
    request,
    ring,
    trunk,
    view_of,
    want,
)

SHIPPED = (Batch, Service, Mpi, Training, Stream, Inference)


def chosen(policy: Policy, view: CellView, spec: SliceSpec, **more) -> Decision | Unplaceable:
    return policy.plan(Pool(view), spec, **{"seed": 0, "avoid": frozenset(), **more})


def decided(policy: Policy, view: CellView, spec: SliceSpec, **more) -> Decision:
    found = chosen(policy, view, spec, **more)
    assert isinstance(found, Decision), found
    return found


def nodes(decision: Decision, role: str) -> Counter[str]:
    return Counter(engine.partition("/")[0] for engine in decision.engines[role])


def hops(decision: Decision) -> int:
    return sum(len(circuit.path) - 2 for circuit in decision.circuits)


# --------------------------------------------------------------------------------------- all of them


def test_all_that_ship_are_installed_by_the_names_that_slices_ask_for():
    installed = {p.name: p.load() for p in entry_points(group="flowos.schedulers")}
    for kind in SHIPPED:
        assert installed[kind.name] is kind


@pytest.mark.parametrize("kind", SHIPPED)
def test_a_plain_slice_is_placed_by_each_and_reads_no_clock(kind):
    view = leaves(2, gpus_each=2)
    spec = request(ring("w"), w=want(2))
    first = decided(kind(), view, spec)
    assert decided(kind(), view, spec) == first
    assert len(first.engines["w"]) == 2


@pytest.mark.parametrize("kind", SHIPPED)
def test_units_to_leave_alone_are_left_alone_by_each(kind):
    view = leaves(2, gpus_each=2)
    avoid = {"engine/n0/gpu0", "node/n1"}
    assert decided(kind(), view, request(w=want(1)), avoid=avoid).engines == {"w": ("n0/gpu1",)}
    refused = chosen(kind(), view, request(w=want(2)), avoid=avoid)
    assert isinstance(refused, Unplaceable)
    assert refused == chosen(Batch(), view, request(w=want(2)), avoid=avoid)


@pytest.mark.parametrize("kind", SHIPPED)
def test_what_is_set_for_a_policy_is_its_own_and_no_other_policys(kind):
    policy = kind()
    before = dict(kind.settings)
    policy.settings = {**kind.settings, "load": 7.0}
    assert dict(kind.settings) == before
    if kind in (Batch, Service):  # the operator's weights are as good as any for these
        return
    assert policy.score(request(w=want()), Pool(leaves())).load == 7.0


# ---------------------------------------------------------------------------------------- the order


def waits(name, *, created=1, priority=0.0, usage=0.0):
    return Waits(SliceSpec(name), created, usage=usage, priority=priority)


@pytest.mark.parametrize("kind", [Batch, Mpi, Training])
def test_tenants_with_less_go_first_among_slices_of_one_priority(kind):
    policy = kind()
    queue = [
        waits("early-much", created=1, usage=0.5),
        waits("late-little", created=2, usage=0.1),
        waits("later-little", created=3, usage=0.1),
        waits("important", created=4, usage=0.9, priority=1.0),
    ]
    names = [w.spec.name for w in sorted(queue, key=policy.order)]
    assert names == ["important", "late-little", "later-little", "early-much"]
    assert policy.reorders


def test_batch_can_be_set_to_first_come_first_served():
    policy = Batch()
    policy.settings = {"fair": 0.0}
    queue = [waits("early", created=1, usage=0.5), waits("late", created=2)]
    assert [w.spec.name for w in sorted(queue, key=policy.order)] == ["early", "late"]


@pytest.mark.parametrize("kind", [Service, Stream, Inference])
def test_who_came_first_is_first_where_nothing_is_worth_waiting_for(kind):
    queue = [waits("early", created=1, usage=0.5), waits("late", created=2)]
    assert [w.spec.name for w in sorted(queue, key=kind().order)] == ["early", "late"]
    assert not kind.backfills


# ------------------------------------------------------------------------------------------- service


def test_a_service_is_laid_so_that_a_rack_a_switch_or_a_node_takes_few_of_it():
    # Two racks, in each two leaves with two nodes of two GPUs.
    things: list[Thing] = [Switch("top", tier=1)]
    for leaf in range(4):
        things += [Switch(f"l{leaf}"), trunk(f"l{leaf}", "top")]
        for n in range(2):
            engines = gpus(f"n{leaf}{n}", 2)
            things += [*node(f"n{leaf}{n}", *engines, rack=f"r{leaf // 2}")]
            things += ports(engines, f"l{leaf}")
    view = view_of(*things)
    most = {2: (1, 1, 1), 4: (2, 1, 1), 8: (4, 2, 1), 16: (8, 4, 2)}
    for count, (rack, leaf, one) in most.items():
        found = nodes(decided(Service(), view, request(w=want(count))), "w")
        assert sum(found.values()) == count
        assert max(found.values()) == one
        leaf_of: Counter[str] = Counter()
        rack_of: Counter[str] = Counter()
        for name, of in found.items():
            leaf_of[name[1]] += of
            rack_of[str(int(name[1]) // 2)] += of
        assert max(leaf_of.values()) == leaf
        assert max(rack_of.values()) == rack
    assert len(nodes(decided(Batch(), view, request(w=want(2))), "w")) == 1


def test_a_service_that_says_where_to_be_is_there():
    view = leaves(2, gpus_each=2)
    spec = request(w=want(2), together="node")
    assert len(nodes(decided(Service(), view, spec), "w")) == 1
    rack = decided(Service(), view, request(w=want(2), spread="rack"))
    assert len(nodes(rack, "w")) == 2


def test_a_service_is_near_each_other_where_lanes_are_short_rather_than_nowhere():
    view = leaves(2, gpus_each=2, spines=0)
    found = decided(Service(), view, request(ring("w"), w=want(2)))
    assert len(nodes(found, "w")) == 1
    assert isinstance(chosen(Service(), view, request(ring("w"), w=want(3))), Unplaceable)


@pytest.mark.parametrize("seed", range(1, 9))
def test_services_of_several_schedulers_are_apart_too(seed):
    view = leaves(4, gpus_each=2)
    found = decided(Service(), view, request(w=want(4)), seed=seed)
    assert set(nodes(found, "w").values()) == {1}


# ----------------------------------------------------------------------------------------------- mpi


def test_mpi_wakes_engines_rather_than_to_cross_to_another_switch():
    view = leaves(2, gpus_each=4, lanes=4)
    for n in (2, 3):
        power_off(view, f"n0/gpu{n}")
        power_off(view, f"n1/gpu{n}")
    spec = request(ring("w"), w=want(4))
    assert len(nodes(decided(Batch(), view, spec), "w")) == 2
    assert len(nodes(decided(Mpi(), view, spec), "w")) == 1


def row(count, each=2, model="A100", **more):
    """Leaves l0.. in a row, each with a node of GPUs; and what is far is far."""
    things: list[Thing] = []
    for n in range(count):
        engines = gpus(f"n{n}", each, model, **more)
        things += [Switch(f"l{n}", latency_ns=100), *node(f"n{n}", *engines)]
        things += ports(engines, f"l{n}", lanes=4)
        if n:
            things.append(trunk(f"l{n - 1}", f"l{n}", lanes=8))
    return view_of(*things)


def test_a_gang_of_several_switches_is_on_those_that_are_nearest_to_each_other():
    view = row(6, each=4)
    # n0 and n5 fit best, and are at the two ends; n2 and n3 are beside each other.
    hold(view, *(f"engine/n{n}/gpu0" for n in (2, 3)), by="other/a")
    hold(view, *(f"engine/n{n}/gpu{e}" for n in (1, 4) for e in range(4)), by="other/b")
    spec = request(ring("w"), w=want(6))
    batch, mpi = (decided(policy, view, spec) for policy in (Batch(), Mpi()))
    assert set(nodes(mpi, "w")) == {"n2", "n3"}
    assert hops(mpi) < hops(batch)


def test_what_is_near_is_so_by_the_time_that_light_takes_and_not_by_links():
    # l0 and l1 have a link of their own that is very long; by way of two switches it is shorter
    # from l0 to l2.
    things: list[Thing] = [Switch("s0"), Switch("s1")]
    things += [trunk("l0", "l1", lanes=8, latency_ns=100_000)]
    for a, b in (("l0", "s0"), ("s0", "s1"), ("s1", "l2")):
        things.append(trunk(a, b, lanes=8))
    for n in range(3):
        engines = gpus(f"n{n}", 2)
        things += [Switch(f"l{n}"), *node(f"n{n}", *engines), *ports(engines, f"l{n}", lanes=4)]
    found = decided(Mpi(), view_of(*things), request(w=want(4)))
    assert set(nodes(found, "w")) == {"n0", "n2"}


def test_all_roles_of_an_mpi_slice_share_a_switch_though_no_circuit_joins_them():
    view = row(4, each=4)
    hold(view, "engine/n0/gpu0", "engine/n1/gpu0", by="other/a")
    hold(view, *(f"engine/n3/gpu{n}" for n in range(3)), by="other/b")
    spec = request(solvers=want(3), io=want(1))
    batch, mpi = (decided(policy, view, spec) for policy in (Batch(), Mpi()))
    assert nodes(batch, "io") != nodes(batch, "solvers")
    assert set(nodes(mpi, "io")) == set(nodes(mpi, "solvers")) == {"n2"}


def test_an_mpi_slice_that_is_to_be_spread_is_spread_and_is_a_gang_whatever_it_says():
    spec = replace(request(w=want(2), spread="spread"), commit="incremental")
    assert len(nodes(decided(Mpi(), row(2), spec), "w")) == 2
    assert Mpi().commit_mode(spec) is Mode.GANG
    assert Batch().commit_mode(spec) is Mode.INCREMENTAL


# ------------------------------------------------------------------------------------------ training


BUSY = {"S": 100, "M": 200, "F": 800}
# A watt-second of S does 1 unit, of M 2, of F 1.25: M is the best a joule, F the fastest.
SPEEDS = {"bert": {"S": 100.0, "M": 400.0, "F": 1000.0}}


def mixed(*, count=2, off=(), **rules):
    """A node of each model, all on one leaf."""
    things: list[Thing] = [Switch("sw")]
    for model, watts in BUSY.items():
        engines = gpus(model, count, model, watts=Watts(0, 0, watts))
        things += [*node(model, *engines, cpu=8), *ports(engines, "sw", lanes=2)]
    view = view_of(*things)
    view.planner = PlannerRules(speeds=SPEEDS, **rules)
    for model in off:
        for n in range(count):
            power_off(view, f"{model}/gpu{n}")
    return view


def trained(count=1, amount=0.0, prefer="", work="bert"):
    spec = request(ring("w"), w=want(count)) if count > 1 else request(w=want(count))
    spec = replace(spec, constraints=replace(spec.constraints, prefer=prefer))
    return replace(spec, work={"w": Work(work, amount)} if work else {})


def test_training_wakes_the_model_that_does_the_most_a_joule():
    view = mixed(off=("M",))
    assert set(nodes(decided(Batch(), view, trained(2)), "w")) == {"F"}
    assert set(nodes(decided(Training(), view, trained(2)), "w")) == {"M"}


def test_work_of_a_known_amount_is_done_by_the_most_frugal_model_too():
    view = mixed()
    assert set(nodes(decided(Batch(), view, trained(2, amount=1e6)), "w")) == {"F"}
    assert set(nodes(decided(Training(), view, trained(2, amount=1e6)), "w")) == {"M"}


def test_slice_and_operator_have_the_last_word_on_what_a_joule_is_worth():
    fast = trained(2, prefer="fastest")
    assert set(nodes(decided(Training(), mixed(), fast), "w")) == {"F"}
    cheap = mixed(joule_seconds=1e-9)
    assert set(nodes(decided(Training(), cheap, trained(2)), "w")) == {"F"}


def test_a_ring_is_of_one_model_where_one_has_enough():
    # Of S four are free on four nodes, of F two on one: batch fills the leaf with both.
    things: list[Thing] = [Switch("sw")]
    for name, model, count in [("a", "S", 1), ("b", "S", 1), ("c", "F", 2), ("d", "S", 1)]:
        engines = gpus(name, count, model)
        things += [*node(name, *engines), *ports(engines, "sw", lanes=2)]
    view = view_of(*things)
    spec = trained(3, work="")

    def models(decision):
        return {view.cell.engines[engine].model for engine in decision.engines["w"]}

    assert models(decided(Batch(), view, spec)) == {"S", "F"}
    assert models(decided(Training(), view, spec)) == {"S"}
    assert models(decided(Training(), view, trained(4, work=""))) == {"S", "F"}
    assert models(decided(Training(), view, trained(2, work=""))) == {"S"}, "more of it are free"


def test_a_model_that_the_slice_rules_out_is_not_taken_and_its_refusal_is_its_own():
    view = mixed()
    spec = trained(1)
    only = replace(spec, engines={"w": EngineRole((EngineChoice("gpu", ("S", "F")),))})
    assert set(nodes(decided(Training(), view, only), "w")) == {"F"}
    never = trained(9)
    assert chosen(Training(), view, never) == chosen(
        Batch(), view, replace(never, constraints=replace(never.constraints, prefer="frugal"))
    )


# -------------------------------------------------------------------------------------------- stream


def pipeline(*stages):
    flows = [flow(a, b) for a, b in zip("abcd", "bcd", strict=False) if b in stages]
    return replace(request(*flows), engines={stage: want() for stage in stages})


def test_stages_come_in_the_order_of_the_flow_and_neighbours_share_a_switch():
    view = row(4)
    spec = pipeline("d", "b", "a", "c")
    assert in_order(spec) == ["a", "b", "c", "d"]
    found = decided(Stream(), view, spec)
    assert nodes(found, "a") == nodes(found, "b")
    assert nodes(found, "c") == nodes(found, "d")
    assert hops(found) == 4  # a to b and c to d on a switch each, b to c over two
    assert hops(found) < hops(decided(Batch(), view, spec))
    assert hops(found) < hops(decided(Mpi(), view, spec))


def test_a_pipeline_that_one_switch_has_no_room_for_goes_on_at_the_next_one():
    view = row(5, each=2)
    hold(view, "engine/n4/gpu0", by="other/a")  # it fits one stage best, and is far away
    found = decided(Stream(), view, pipeline("a", "b", "c"))
    batch = decided(Batch(), view, pipeline("a", "b", "c"))
    assert hops(found) == 3
    assert hops(batch) > hops(found)


@pytest.mark.parametrize(
    ("flows", "order"),
    [
        ([("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")], "abcd"),
        ([("d", "c"), ("c", "b"), ("b", "a")], "dcba"),
        ([("a", "c"), ("b", "d")], "acbd"),  # two pipelines, one after the other
        ([("b", "a"), ("a", "b"), ("b", "c"), ("c", "d")], "abcd"),  # a circle: as written
        ([("b", "b")], "abcd"),
        ([], "abcd"),
    ],
)
def test_the_order_of_stages_follows_the_flows(flows, order):
    wishes = [CircuitWish(Shape.FLOW, pair) for pair in flows]
    spec = replace(request(*wishes), engines={stage: want() for stage in "abcd"})
    assert "".join(in_order(spec)) == order


def test_a_pipeline_is_a_gang_whatever_it_says():
    assert Stream().commit_mode(replace(pipeline("a", "b"), commit="incremental")) is Mode.GANG


# ----------------------------------------------------------------------------------------- inference


def loaded(**boards):
    """A leaf with a node of FPGAs for each name, loaded with these bitstreams."""
    things: list[Thing] = [Switch("sw"), BITSTREAM, OTHER]
    for name, bitstreams in boards.items():
        engines = fpgas(name, len(bitstreams), shareable=True)
        things += [*node(name, *engines, cpu=8), *ports(engines, "sw")]
    view = view_of(*things)
    known = {"sum": BITSTREAM, "sort": OTHER}
    for name, bitstreams in boards.items():
        for n, bitstream in enumerate(bitstreams):
            if bitstream:
                load(view, f"{name}/fpga{n}", known[bitstream])
    return view


def test_replicas_go_where_they_are_loaded_though_that_is_on_several_nodes():
    view = loaded(n0=["sum", "sort"], n1=["sum", "sort"], n2=["", ""])
    spec = request(w=want(2, "fpga", bitstream="sum"))
    assert len(nodes(decided(Batch(), view, spec), "w")) == 1
    assert set(decided(Inference(), view, spec).engines["w"]) == {"n0/fpga0", "n1/fpga0"}


def test_the_last_idle_engine_with_a_bitstream_in_use_is_kept_for_it():
    view = loaded(n0=["sort", "sort"])
    hold(view, engine_unit("n0/fpga0"))
    spec = request(w=want(1, "fpga", bitstream="sum"))
    assert decided(Batch(), view, spec).engines["w"] == ("n0/fpga1",)
    refused = chosen(Inference(), view, spec)
    assert isinstance(refused, Unplaceable)
    assert refused.reason is Reason.WAITING_FOR_BITSTREAM
    assert "n0/fpga1, the last idle one loaded with sort" in refused.sentence
    sort = request(w=want(1, "fpga", bitstream="sort"))
    assert decided(Inference(), view, sort).engines["w"] == ("n0/fpga1",)


def test_what_nobody_uses_and_what_is_more_than_kept_is_evicted():
    spec = request(w=want(1, "fpga", bitstream="sum"))
    unused = loaded(n0=["sort", "sort"])
    assert decided(Inference(), unused, spec).engines["w"] == ("n0/fpga0",)
    drained = loaded(n0=["sort", "sort"])
    hold(drained, engine_unit("n0/fpga0"), by="~drain/engine/n0/fpga0")
    assert decided(Inference(), drained, spec).engines["w"] == ("n0/fpga1",)
    more = loaded(n0=["sort", "sort", "sort"])
    hold_part(more, "share/n0/fpga0", 300)
    assert decided(Inference(), more, spec).engines["w"] == ("n0/fpga2",)
    for settings in ({"warm": 0.0}, {"popular": 2.0}):
        policy = Inference()
        policy.settings = {**Inference.settings, **settings}
        view = loaded(n0=["sort", "sort"])
        hold(view, engine_unit("n0/fpga0"))
        assert decided(policy, view, spec).engines["w"] == ("n0/fpga1",)


def test_a_part_of_an_engine_that_runs_the_bitstream_is_taken_before_another_is_loaded():
    view = loaded(n0=["sum"], n1=[""])
    hold_part(view, "share/n0/fpga0", 400)
    held = view.now("other/part")
    assert held is not None
    view.assume("other/part", replace(held, bitstreams={"n0/fpga0": BITSTREAM.reference}))
    spec = request(w=want(1, "fpga", bitstream="sum", share=500))
    assert decided(Inference(), view, spec).units == {"share/n0/fpga0": (500,)}


def test_without_a_bitstream_inference_places_as_batch_does():
    view = leaves(2)
    assert decided(Inference(), view, request(w=want(2))) == decided(
        Batch(), view, request(w=want(2))
    )
    assert Inference().score(request(w=want()), Pool(view)) == Weights(load=256.0, evict=64.0)
