"""Why one engine is not used for a request."""

import pytest

from flowos.model.placement import Placement
from flowos.model.slice import HostRole
from flowos.planning.engines.pool import Pool
from flowos.planning.reasons.explain import funnel, why_not
from tests.unit.planning.cells import (
    BITSTREAM,
    GIB,
    fpgas,
    gpus,
    hold,
    hold_part,
    leaves,
    node,
    power_off,
    request,
    ring,
    view_of,
    want,
)


def scene():
    return view_of(
        node("n0", *gpus("n0", 2, shareable=True), *fpgas("n0", 1), cpu=8, memory=8, rack="r0"),
        node("n1", *gpus("n1", 4, "H100"), cpu=8, memory=8, rack="r1"),
    )


@pytest.mark.parametrize(
    ("spec", "engine", "sentence"),
    [
        (request(w=want(1)), "n9/gpu0", "the cell has no engine n9/gpu0"),
        (request(w=want(1)), "n0/fpga0", "w asks for kind gpu, n0/fpga0 is fpga U250"),
        (request(w=want(1, models=("H100",))), "n0/gpu0", "w asks for model H100, n0/gpu0 is gpu A100"),
        (request(w=want(1, memory=">=80GiB")), "n0/gpu0", "w asks for memory >=80GiB, n0/gpu0 is"),
        (request(w=want(1, rack="r1")), "n0/gpu0", "w asks for rack r1, which neither n0/gpu0 nor"),
        (request(w=want(1, share=500)), "n1/gpu0", "w asks for shareable, n1/gpu0 is gpu H100"),
        (request(w=want(1, "fpga", bitstream="x")), "n0/fpga0", "no engine will do: w: bitstream x"),
        (request(ring("w"), w=want(2)), "n0/gpu0", "w asks for more port lanes for its circuits"),
        (request(w=want(3), together="node"), "n0/gpu0", "n0/gpu0 is free, but its node n0 has room for 2"),
        (request(w=want(1), together="switch"), "n0/gpu0", "n0/gpu0 is free, but it has no port on a"),
        (
            request(w=want(1), hosts={"w": HostRole(9000, GIB)}),
            "n0/gpu0",
            "n0/gpu0 is free, but its node n0 has 8 CPU and 8 GiB left, w asks for 9 CPU and 1 GiB",
        ),
        (request(w=want(2)), "n0/gpu0", "n0/gpu0 would be used"),
        (request(w=want(2)), "n1/gpu0", "n1/gpu0 is free and would do for w, but others fit better"),
        (request(hosts={"d": HostRole(1000, GIB, 1)}), "n0/gpu0", "t asks for no engines"),
    ],
)  # fmt: skip
def test_free_engine_is_told_what_it_lacks(spec, engine, sentence):
    assert why_not(Pool(scene()), spec, engine).startswith(sentence)


def test_held_engine_is_told_by_whom():
    view = scene()
    pool = Pool(view)
    spec = request(w=want(1, models=("A100",)))
    power_off(view, "n0/gpu0")
    assert "would do" in why_not(pool, spec, "n0/gpu0")  # asleep is no obstacle
    hold(view, "engine/n0/gpu0", by="vision/train")
    assert why_not(pool, spec, "n0/gpu0") == "n0/gpu0 is held by vision/train"
    hold_part(view, "share/n0/gpu1", 600, by="vision/serve")
    assert "is shared: vision/serve holds" in why_not(pool, spec, "n0/gpu1")
    part = request(w=want(1, share=500))
    assert why_not(pool, part, "n0/gpu1") == "n0/gpu1 has 400 thousandths left, 500 are wanted"


def test_engine_kept_for_a_drain_or_out_of_service_is_told_so():
    view = scene()
    pool = Pool(view)
    spec = request(w=want(1, models=("A100",)))
    view.assume("~drain/e", Placement(0, "e", wanted=("engine/n0/gpu0",)))
    assert "is kept for ~drain/e" in why_not(pool, spec, "n0/gpu0")
    hold(view, "node/n0", by="~drain/node/n0")
    assert "which ~drain/node/n0 took out of service" in why_not(pool, spec, "n0/gpu0")


def test_engine_on_a_switch_with_too_few_free_is_told_so():
    view = leaves(2, gpus_each=2)
    hold(view, "engine/n0/gpu0")
    spec = request(w=want(2), together="switch")
    assert "its switch l0 has 1 free of 2" in why_not(Pool(view), spec, "n0/gpu1")


def test_engine_that_waits_for_others_of_its_slice_is_told_so():
    view = leaves(1, gpus_each=2)
    hold(view, "engine/n0/gpu0")
    answer = why_not(Pool(view), request(w=want(2)), "n0/gpu1")
    assert answer.startswith("n0/gpu1 is free and would do for w, but w: 2 gpu wanted, 1 is free")


def test_role_that_the_engine_comes_nearest_to_is_told():
    view = scene()
    hold(view, "engine/n0/fpga0", by="a/b")
    spec = request(w=want(1), f=want(1, "fpga"))
    assert why_not(Pool(view), spec, "n0/fpga0") == "n0/fpga0 is held by a/b"


# -- the funnel


def test_funnel_goes_in_the_order_people_ask():
    view = leaves(3, gpus_each=4, cpu=8, memory=8)
    view.assume("~quarantine/node/n2", Placement(0, "q", held={"node/n2": ()}))
    view.assume("~drain/e", Placement(0, "d", wanted=("engine/n1/gpu3",)))
    power_off(view, "n0/gpu0")
    hold(view, "engine/n0/gpu1")
    hold(view, "lane/n0-gpu2/fwd/0", "lane/n0-gpu2/rev/0", by="other/lanes")
    hold_part(view, "host/n1", 7500, 0)
    spec = request(ring("w"), w=want(2), together="node", hosts={"w": HostRole(1000)})
    assert funnel(Pool(view), spec) == (
        ("kind gpu", 12),
        ("1 port lane", 12),
        ("powered or can be woken", 8),
        ("not drained", 7),
        ("free", 6),
        ("with 1 CPU beside it", 3),
        ("with a free port", 2),
        ("together on one node", 2),
    )


def test_funnel_is_of_the_role_that_is_scarcest():
    view = view_of(BITSTREAM, node("n0", *gpus("n0", 4), *fpgas("n0", 2)))
    hold(view, "engine/n0/fpga0", "engine/n0/gpu0")
    spec = request(g=want(2), f=want(2, "fpga", bitstream="sum"))
    assert funnel(Pool(view), spec)[-1] == ("free", 1)
    assert funnel(Pool(view), spec, role="g")[-1] == ("free", 3)
    assert funnel(Pool(view), request(hosts={"d": HostRole(1000, GIB, 1)})) == ()


def test_engines_that_lie_in_places_large_enough_are_together():
    view = leaves(2, gpus_each=2, nodes_each=2)
    hold(view, "engine/n0/gpu0", "engine/n1/gpu0")
    spec = request(w=want(3), together="switch")
    assert funnel(Pool(view), spec)[-2:] == (("free", 6), ("together on one switch", 4))
