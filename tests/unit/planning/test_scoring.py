"""Each feature of a place has a name, a scale and a weight, and the least sum is taken."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowos.model.cell import Bitstream, Engine, Watts
from flowos.planning.demand import demand_of
from flowos.planning.engines.choose import Selection, choose
from flowos.planning.engines.draft import Draft
from flowos.planning.engines.pool import Pool
from flowos.planning.engines.scoring import Scorer, score
from flowos.planning.engines.stock import CLOSED, Ladder, tag_of
from flowos.planning.engines.weights import DEFAULT, Weights
from tests.unit.planning.cells import (
    BITSTREAM,
    OTHER,
    fpgas,
    gpus,
    hold,
    hold_part,
    leaves,
    load,
    node,
    power_off,
    request,
    ring,
    view_of,
    want,
)

NOTHING = Weights(*([0.0] * len(Weights._fields)))
THIRD = Bitstream("hash", "sha256:cc", "fpga", function="hash")


def chosen(view, spec, *, pool=None, weights=DEFAULT, **options) -> set[str]:
    pool = pool or Pool(view)
    pool.fold()
    demand = demand_of(pool, spec)
    found = choose(pool, demand, joined=demand.joined, weights=weights, **options)
    assert isinstance(found, Selection), found
    return {pool.sites[number].name for number, _ in found.engines["w"].picks}


def features(view, spec, name, *, picked=1, pool=None, wake=False, joined=False, speeds=None):
    pool = pool or Pool(view)
    pool.fold()
    (wants,) = demand_of(pool, spec).engines
    draft = Draft(pool, speeds={"w": speeds or {}}, joined={"w"} if joined else ())
    draft.wake = wake
    stock = pool.stock(wants[0].wares)
    number = pool.numbers[name]
    return Scorer(draft, wants[0], stock).features(number, draft.engines(number, stock), picked)


def test_score_is_the_weighted_sum():
    assert score(NOTHING._replace(load=2.0, afar=1.0), NOTHING._replace(load=3.0, afar=4.0)) == 10


def test_place_without_anything_special_has_no_features():
    assert features(view_of(node("n0", *gpus("n0", 1))), request(w=want()), "n0") == NOTHING


# -- features


def test_loads_count_whole_where_something_is_evicted_and_half_where_nothing_is():
    view = view_of(BITSTREAM, OTHER, node("n0", *fpgas("n0", 3)))
    load(view, "n0/fpga0", BITSTREAM)
    load(view, "n0/fpga1", OTHER)
    spec = request(w=want(1, "fpga", bitstream="sum"))
    assert [features(view, spec, "n0", picked=1 << n).load for n in range(3)] == [0, 1, 0.5]


def test_evicted_bitstream_counts_by_how_many_nodes_have_it():
    view = view_of(BITSTREAM, OTHER, THIRD, *(node(f"n{n}", *fpgas(f"n{n}", 1)) for n in range(6)))
    for n in range(4):
        load(view, f"n{n}/fpga0", OTHER)
    load(view, "n4/fpga0", THIRD)
    spec = request(w=want(1, "fpga", bitstream="sum"))
    assert [features(view, spec, f"n{n}").evict for n in (3, 4, 5)] == [1, 0.25, 0]


def test_engines_to_be_woken_are_counted():
    view = view_of(node("n0", *gpus("n0", 3)))
    power_off(view, "n0/gpu1")
    power_off(view, "n0/gpu2")
    assert features(view, request(w=want(3)), "n0", picked=0b111, wake=True).wake == 2


def test_what_was_given_back_lately_is_not_idle_long():
    view = view_of(*(node(f"n{n}", *gpus(f"n{n}", 1)) for n in range(4)))
    pool = Pool(view)
    for name in ("n0", "n1"):
        hold(view, f"engine/{name}/gpu0", by=f"a/{name}")
        pool.fold()
        view.retract(f"a/{name}")
        pool.fold()
    found = [features(view, request(w=want()), f"n{n}", pool=pool).idle for n in range(4)]
    assert found == [1 - 1 / 5, 1, 0, 0]


def test_watts_are_what_running_and_waking_adds_per_watt_of_the_largest():
    small = Engine("n0", "gpu0", "gpu", "S", watts=Watts(10, 50, 150))
    large = Engine("n1", "gpu0", "gpu", "L", watts=Watts(0, 100, 400))
    view = view_of(node("n0", small), node("n1", large))
    spec = request(w=want())
    assert [features(view, spec, name).watts for name in ("n0", "n1")] == [0.25, 0.75]
    power_off(view, "n0/gpu0")
    assert features(view, spec, "n0", wake=True).watts == 0.35


def test_leftovers_are_shares_of_the_node_and_of_the_largest_leaf():
    view = leaves(2, nodes_each=2, gpus_each=4)
    hold(view, "engine/n0/gpu3", "engine/n1/gpu0")
    found = features(view, request(w=want(2)), "n0", picked=0b11)
    assert (found.leftover, found.leaf) == (1 / 4, 4 / 8)


def test_leftover_of_a_share_counts_the_rests_of_its_node_and_its_own_twice():
    view = view_of(node("n0", *gpus("n0", 4, shareable=True)))
    hold_part(view, "share/n0/gpu0", 400)
    found = features(view, request(w=want(share=500)), "n0", picked=1)
    assert found.leftover == pytest.approx((3 + 0.6 + 0.6) / 4)


def test_uplinks_are_the_share_of_lanes_taken_off_the_leaf():
    view = leaves(2, spines=2, lanes=2)
    hold(view, "lane/l0-s0/fwd/0", "lane/l0-s0/rev/1", "lane/l0-s1/fwd/1")
    spec = request(ring("w"), w=want(2))
    assert features(view, spec, "n0", joined=True).uplinks == 2 / 4
    assert features(view, spec, "n1", joined=True).uplinks == 0
    assert features(view, spec, "n0").uplinks == 0


def test_slowness_is_against_the_fastest_model_and_unknown_ones_are_not_slow():
    view = view_of(*(node(m, *gpus(m, 2, m)) for m in ("fast", "slow", "new")))
    speeds = {"fast": 8.0, "slow": 2.0}
    spec = request(w=want(2))
    found = [
        features(view, spec, name, picked=0b11, speeds=speeds).speed
        for name in ("fast", "slow", "new")
    ]
    assert found == [0, 1.5, 0]


# -- weights


def twins(**more):
    return view_of(node("a", *gpus("a", 2, "A", **more)), node("b", *gpus("b", 2, "B", **more)))


def test_faster_model_is_taken_though_another_fits_better():
    view = twins()
    hold(view, "engine/a/gpu0")
    spec = request(w=want())
    assert chosen(view, spec) == {"a"}
    speeds = {"w": {"A": 1.0, "B": 4.0}}
    assert chosen(view, spec, speeds=speeds) == {"b"}
    assert chosen(view, spec, speeds=speeds, weights=DEFAULT._replace(speed=0.0)) == {"a"}


def test_faster_model_is_found_behind_many_slow_ones_that_fit_better():
    view = view_of(
        *(node(f"slow{n}", *gpus(f"slow{n}", 1, "A")) for n in range(30)),
        node("fast", *gpus("fast", 8, "B")),
    )
    assert chosen(view, request(w=want()), speeds={"w": {"A": 1.0, "B": 2.0}}) == {"fast"}


def test_the_less_popular_bitstream_is_evicted():
    view = view_of(BITSTREAM, OTHER, THIRD, *(node(f"n{n}", *fpgas(f"n{n}", 1)) for n in range(4)))
    for n in range(3):
        load(view, f"n{n}/fpga0", OTHER)
    load(view, "n3/fpga0", THIRD)
    spec = request(w=want(1, "fpga", bitstream="sum"))
    assert chosen(view, spec) == {"n3"}
    assert chosen(view, spec, weights=DEFAULT._replace(evict=0.0)) == {"n0"}


def test_waking_is_weighed_against_loading_where_it_may_be_cheaper():
    view = view_of(BITSTREAM, OTHER, node("hot", *fpgas("hot", 1)), node("on", *fpgas("on", 1)))
    load(view, "hot/fpga0", BITSTREAM)
    load(view, "on/fpga0", OTHER)
    power_off(view, "hot/fpga0")
    spec = request(w=want(1, "fpga", bitstream="sum"))
    assert chosen(view, spec) == {"on"}
    assert chosen(view, spec, weights=DEFAULT._replace(wake=1.0)) == {"hot"}


def test_loading_is_weighed_against_a_rivals_home():
    names = [f"n{n:02}" for n in range(32)]
    view = view_of(BITSTREAM, *(node(name, *fpgas(name, 1)) for name in names))
    pool = Pool(view)
    pool.divide(0, 2)
    far = next(name for name in names if pool.is_afar(name))
    load(view, f"{far}/fpga0", BITSTREAM)
    spec = request(w=want(1, "fpga", bitstream="sum"))
    assert chosen(view, spec, pool=pool) == {far}
    (name,) = chosen(view, spec, pool=pool, weights=DEFAULT._replace(afar=100.0))
    assert not pool.is_afar(name)


def test_longest_idle_of_equals_is_taken_first():
    view = view_of(*(node(f"n{n}", *gpus(f"n{n}", 1)) for n in range(3)))
    pool = Pool(view)
    for name in ("n1", "n2", "n0"):
        hold(view, f"engine/{name}/gpu0", by=f"a/{name}")
        pool.fold()
    order = []
    for name in ("n2", "n0", "n1"):
        view.retract(f"a/{name}")
        pool.fold()
    for turn in range(3):
        (name,) = chosen(view, request(w=want()), pool=pool)
        order.append(name)
        hold(view, f"engine/{name}/gpu0", by=f"b/{turn}")
    assert order == ["n2", "n0", "n1"]


# -- the first of each rung


@given(
    entries=st.lists(
        st.tuples(st.integers(1, 4), st.sampled_from((0, 1000)), st.integers(0, 9), st.booleans()),
        max_size=30,
    ),
    least=st.integers(1, 4),
    few=st.integers(1, 4),
)
def test_heads_and_levels_are_what_climbing_meets_first(entries, least, few):
    ladder = Ladder()
    afar = {}
    for number, (rung, cpu, turn, far) in enumerate(entries):
        afar[number] = far
        ladder.put(rung, CLOSED._replace(cpu_millis=cpu), tag_of(number, turn, afar=far))
    climbed: dict[tuple[int, bool], list[int]] = {}
    for rung, number in ladder.climb(least):
        climbed.setdefault((rung, afar[number]), []).append(number)
    rungs = sorted({rung for rung, _ in climbed})[:few]
    first = {(rung, numbers[0]) for (rung, _), numbers in climbed.items() if rung in rungs}
    heads = ladder.heads(least, few)
    assert (len(heads), set(heads)) == (len(first), first)
    for (rung, far), numbers in climbed.items():
        assert ladder.level(rung, few, afar=far) == numbers[:few]
