"""Where does a scheduler look first, when a cell is divided among several?"""

from hypothesis import given
from hypothesis import strategies as st

from flowos.model.cell import Node
from flowos.model.placement import Decision
from flowos.model.slice import HostRole
from flowos.planning.engines.pool import Pool
from flowos.planning.place import plan
from tests.unit.planning.cells import gpus, hold, hold_part, leaves, node, request, view_of, want

NODES = 32
SEEDS = st.integers(1, 2**32)


def bare(nodes: int = NODES, each: int = 8, *, shareable: bool = False):
    names = [f"n{n:02}" for n in range(nodes)]
    return view_of(
        *(node(name, *gpus(name, each, shareable=shareable), cpu=8, memory=64) for name in names)
    )


def at_home(pool: Pool) -> set[str]:
    return {name for name in pool.numbers if not pool.is_afar(name)}


def nodes_of(found) -> set[str]:
    assert isinstance(found, Decision), found
    return {engine.partition("/")[0] for role in found.engines.values() for engine in role}


def homes(view, parts: int) -> list[set[str]]:
    found = []
    for part in range(parts):
        pool = Pool(view)
        pool.divide(part, parts)
        found.append(at_home(pool))
    return found


def test_every_node_is_home_to_just_one_and_all_get_alike():
    parts = homes(bare(), 4)
    assert [len(home) for home in parts] == [8, 8, 8, 8]
    assert set.union(*parts) == {f"n{n:02}" for n in range(NODES)}


def test_homes_are_made_of_whole_leaves_where_there_are_plenty():
    view = leaves(8, nodes_each=3)
    parts = homes(view, 2)
    for leaf in range(8):
        here = {f"n{leaf * 3 + n}" for n in range(3)}
        assert [here <= home for home in parts].count(True) == 1


def test_a_cell_of_few_nodes_is_not_divided():
    assert homes(bare(nodes=15), 2) == [{f"n{n:02}" for n in range(15)}] * 2


@given(SEEDS)
def test_a_plan_is_at_home_even_where_it_fits_better_afar(seed):
    view = bare()
    pool = Pool(view)
    pool.divide(0, 2)
    afar = next(name for name in sorted(pool.numbers) if pool.is_afar(name))
    hold(view, *(f"engine/{afar}/gpu{n}" for n in range(6)))
    assert nodes_of(plan(pool, request(a=want(2)), seed=seed)) <= at_home(pool)


@given(SEEDS)
def test_what_fits_nowhere_at_home_is_placed_afar(seed):
    view = bare()
    pool = Pool(view)
    pool.divide(1, 2)
    hold(view, *(f"engine/{name}/gpu0" for name in at_home(pool)))
    assert nodes_of(plan(pool, request(a=want(8)), seed=seed)).isdisjoint(at_home(pool))


@given(SEEDS)
def test_a_part_of_an_engine_is_at_home_even_where_one_afar_is_broken_already(seed):
    view = bare(shareable=True)
    pool = Pool(view)
    pool.divide(0, 2)
    afar = next(name for name in sorted(pool.numbers) if pool.is_afar(name))
    hold_part(view, f"share/{afar}/gpu0", 500)
    assert nodes_of(plan(pool, request(a=want(share=500)), seed=seed)) <= at_home(pool)


@given(SEEDS)
def test_a_gang_of_many_nodes_is_on_a_leaf_at_home(seed):
    pool = Pool(leaves(8, nodes_each=4, gpus_each=2))
    pool.divide(1, 2)
    assert nodes_of(plan(pool, request(a=want(8)), seed=seed)) <= at_home(pool)


def test_a_node_that_comes_later_is_home_to_just_one():
    view = bare()
    pools = [Pool(view) for _ in range(2)]
    for part, pool in enumerate(pools):
        pool.divide(part, 2)
    view.cell.add(Node("new"))
    for listener in view.inventory_listeners:
        listener("node", "new")
    for pool in pools:
        pool.fold()
    assert [pool.is_afar("new") for pool in pools].count(False) == 1


def test_a_cell_that_is_one_again_is_planned_as_ever():
    view = bare()
    spec = request(a=want(3))
    pool = Pool(view)
    pool.divide(1, 2)
    assert nodes_of(plan(pool, spec)) != nodes_of(plan(Pool(view), spec))
    pool.divide(0, 1)
    assert plan(pool, spec) == plan(Pool(view), spec)


@given(SEEDS)
def test_host_resources_are_taken_at_home_even_where_they_fit_better_afar(seed):
    view = bare(each=0)
    pool = Pool(view)
    pool.divide(1, 2)
    last, *others = sorted(at_home(pool), reverse=True)
    for name in others:
        hold_part(view, f"host/{name}", 8000, 0, by=f"other/{name}")
    for name in pool.numbers.keys() - at_home(pool):
        hold_part(view, f"host/{name}", 4000, 0, by=f"other/{name}")
    spec = request(hosts={"driver": HostRole(cpu_millis=100, count=1)})
    found = plan(pool, spec, seed=seed)
    assert isinstance(found, Decision)
    assert found.hosts["driver"] == (last,)
