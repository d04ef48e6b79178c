"""Are trees what they claim to be, found where there is one, and nearly as small as can be?"""

from dataclasses import replace
from random import Random
from statistics import mean

from hypothesis import example, given
from hypothesis import strategies as st

from flowos.documents.presets import preset
from flowos.model.cell import Switch, Thing
from flowos.model.placement import Circuit, Placement
from flowos.model.slice import Constraints, SliceSpec
from flowos.model.view import CellView
from flowos.planning.circuits.route import Routed, Wish, route
from flowos.planning.circuits.trees import Grown, multicast
from flowos.planning.engines.pool import Pool
from flowos.runtime.tree_shown import depth, tree_shown
from tests.unit.planning.cells import gpus, hold, node, ports, request, trunk, view_of
from tests.unit.planning.laws import tree_faults
from tests.unit.planning.steiner import fewest_links
from tests.unit.planning.streams import stream_faults

SWITCHES_MAX = 30
OVER_OPTIMUM_MAX = 1.10
SEEDS = st.integers(0, 2**32 - 1)
COUNTS = st.integers(3, SWITCHES_MAX)


def some_fabric(dice: Random, count: int) -> CellView:
    """Switches with a GPU each, joined at random, some lanes, links and aggregators not free."""
    names = [f"w{n}" for n in range(count)]
    things: list[Thing] = []
    for n, name in enumerate(names):
        able = dice.choice([(), ("sum",), ("max", "sum"), ("max",)])
        things.append(
            Switch(name, aggregators=dice.choice([0, 1, 2]), functions=able, latency_ns=100)
        )
        engines = gpus(f"n{n}", 1)
        things += node(f"n{n}", *engines)
        things += ports(engines, name, lanes=dice.choice([1, 1, 2, 4]))
    pairs = [(names[n], dice.choice(names[:n])) for n in range(1, count)]
    for _ in range(dice.randrange(count + 1)):
        one, other = dice.sample(names, 2)
        pairs.append((one, other))
    latencies = [dice.choice([10, 10, 50, 400]) for _ in pairs]
    trunks = [
        trunk(*pair, lanes=dice.choice([1, 1, 2, 3]), latency_ns=ns, name=f"k{n}")
        for n, (pair, ns) in enumerate(zip(pairs, latencies, strict=True))
    ]
    view = view_of(things, trunks)
    spoiled = dice.choice([0.0, 0.0, 0.1, 0.3])
    for link in trunks:
        for direction in ("fwd", "rev"):
            for lane in range(link.lanes):
                if dice.random() < spoiled:
                    unit = f"lane/{link.name}/{direction}/{lane}"
                    hold(view, unit, by=f"other/{unit}")
    for name in names:
        if dice.random() < spoiled / 2:
            hold(view, f"aggregator/{name}/0", by=f"other/{name}")
    if spoiled and dice.random() < 0.3:
        view.assume("~drain/x", Placement(0, "x", held={f"link/{dice.choice(trunks).name}": ()}))
    return view


def ways_of(view: CellView, lanes: int = 1) -> dict[str, list[str]]:
    """Switch -> where a link with free lanes leads."""
    cell = view.cell
    found: dict[str, list[str]] = {name: [] for name in cell.switches}
    for link in cell.links.values():
        ends = (link.a_thing, link.b_thing)
        if not set(ends) <= cell.switches.keys() or f"link/{link.name}" in view.holders:
            continue
        for direction, (a, b) in (("fwd", ends), ("rev", ends[::-1])):
            taken = view.lanes_taken.get((link.name, direction), 0)
            if link.lanes - taken.bit_count() >= lanes:
                found[a].append(b)
    return found


def tree_problems(view: CellView, tree: Circuit, spec: SliceSpec | None = None) -> list[str]:
    """What is wrong with a tree, or with its lanes."""
    found = list(tree_faults(view, spec or request(), tree))
    for arc in tree.arcs:
        taken = view.lanes_taken.get((arc.link, arc.direction), 0)
        if len(arc.lanes) != tree.lanes or any(taken >> lane & 1 for lane in arc.lanes):
            found.append(f"{arc} is not free")
    return found


def hops_of(view: CellView, tree: Circuit) -> int:
    """How many links the longest way of a tree crosses."""
    shown = tree_shown(view.cell, tree)
    return len(tree.arcs) if shown is None else depth(shown)


def a_tree(view: CellView, ends: list[str], bounds: Constraints | None = None) -> Circuit | None:
    """The circuit from the first to all others."""
    wish = Wish(0, ends[0], tuple(ends[1:]), 1, "")
    routed = route(Pool(view), [wish], whole=set(ends), name="t", bounds=bounds)
    return routed.circuits[0] if isinstance(routed, Routed) else None


@given(seed=SEEDS, count=COUNTS)
def test_a_multicast_tree_is_one_and_is_found_just_where_there_is_one(seed, count):
    dice = Random(seed)
    view = some_fabric(dice, count)
    places = dice.sample(range(count), dice.randint(3, min(count, 8)))
    tree = a_tree(view, [f"n{place}/gpu0" for place in places])
    names = [f"w{place}" for place in places]
    fewest = fewest_links(ways_of(view), names[0], names[1:])
    if tree is None:
        assert fewest == float("inf")
        return
    assert tree_problems(view, tree) == []
    assert len(tree.arcs) - len(places) >= fewest


@given(seed=SEEDS, count=COUNTS)
def test_a_multicast_tree_keeps_within_its_bounds(seed, count):
    dice = Random(seed)
    view = some_fabric(dice, count)
    ends = [f"n{p}/gpu0" for p in dice.sample(range(count), dice.randint(3, min(count, 8)))]
    loose = a_tree(view, ends)
    if loose is None:
        return
    tighter = [
        Constraints(max_hops=hops_of(view, loose) - 1),
        Constraints(max_latency_ns=loose.latency_ns - 1),
        Constraints(hops_of(view, loose), loose.latency_ns - 1),
    ]
    for bounds in tighter:
        tree = a_tree(view, ends, bounds)
        if tree is not None:
            spec = request(max_hops=bounds.max_hops, max_latency_ns=bounds.max_latency_ns)
            assert tree_problems(view, tree, spec) == []


@given(seed=SEEDS, count=COUNTS)
@example(seed=89, count=8)  # a tree would be smaller if a switch that cannot did merge
def test_streams_are_gathered_lawfully_and_the_graph_is_left_as_it_was(seed, count):
    dice = Random(seed)
    view = some_fabric(dice, count)
    places = dice.sample(range(count), dice.randint(3, min(count, 8)))
    ends = tuple(f"n{place}/gpu0" for place in places)
    bounds = Constraints(dice.choice([0, 0, 4, 6]), dice.choice([0, 0, 900]))
    pool = Pool(view)
    lanes = dice.choice([1, 1, 2])
    wish = Wish(0, ends[1], ends[:1], lanes, "sum", ends[1:])
    for end in ends:
        pool.graph.ports(end)
    before = list(pool.graph.free)
    routed = route(pool, [wish], whole=set(ends), name="t", bounds=bounds)
    assert pool.graph.free == before
    if isinstance(routed, Routed):
        (circuit,) = routed.circuits
        spec = request(max_hops=bounds.max_hops, max_latency_ns=bounds.max_latency_ns)
        assert list(stream_faults(view, spec, circuit)) == []


@given(seed=SEEDS, count=COUNTS)
def test_where_every_switch_can_merge_a_tree_is_found_just_where_there_is_one(seed, count):
    dice = Random(seed)
    view = some_fabric(dice, count)
    for switch in [*view.cell.switches.values()]:
        view.cell.add(replace(switch, aggregators=5, functions=("sum",)))
    places = dice.sample(range(count), dice.randint(3, min(count, 8)))
    ends = tuple(f"n{place}/gpu0" for place in places)
    wish = Wish(0, ends[1], ends[:1], 1, "sum", ends[1:])
    routed = route(Pool(view), [wish], whole=set(ends), name="t")
    back: dict[str, list[str]] = {name: [] for name in view.cell.switches}
    for a, others in ways_of(view).items():
        for b in others:
            back[b].append(a)
    names = [f"w{place}" for place in places]
    fewest = fewest_links(back, names[0], names[1:])
    assert isinstance(routed, Routed) == (fewest < float("inf"))
    if isinstance(routed, Routed):
        (circuit,) = routed.circuits
        assert len(circuit.arcs) - len(places) >= fewest
        assert len([a for a in circuit.arcs if a.link == f"n{places[0]}-gpu0"]) == 1


def some_levels(dice: Random) -> tuple[CellView, list[str]]:
    """A small fat tree or leaf-spine, some lanes not free, and some of its engines."""
    view = CellView(cell=preset(f"fat-tree:{dice.choice([64, 128, 300])}"))
    spoiled = dice.choice([0.0, 0.2, 0.6])
    for link in view.cell.links.values():
        if {link.a_thing, link.b_thing} <= view.cell.switches.keys():
            for direction in ("fwd", "rev"):
                for lane in range(link.lanes if dice.random() < spoiled else 0):
                    unit = f"lane/{link.name}/{direction}/{lane}"
                    hold(view, unit, by=f"other/{unit}")
    return view, dice.sample([*view.cell.engines], dice.randint(3, 7))


@given(seed=SEEDS)
def test_trees_over_levels_are_found_just_where_there_are_any(seed):
    dice = Random(seed)
    view, ends = some_levels(dice)
    tree = a_tree(view, ends)
    graph = Pool(view).graph
    tops = [graph.ports(end)[0].other for end in ends]
    fewest = fewest_links(ways_of(view), tops[0], tops[1:])
    assert (tree is None) == (fewest == float("inf"))
    if tree is not None:
        assert tree_problems(view, tree) == []
        assert fewest <= len(tree.arcs) - len(ends) <= OVER_OPTIMUM_MAX * fewest + 1


@given(seed=SEEDS)
def test_streams_over_levels_are_gathered_lawfully(seed):
    dice = Random(seed)
    view, ends = some_levels(dice)
    for switch in [*view.cell.switches.values()]:
        view.cell.add(replace(switch, aggregators=dice.choice([0, 1]), functions=("sum",)))
    wish = Wish(0, ends[1], (ends[0],), 1, "sum", tuple(ends[1:]))
    routed = route(Pool(view), [wish], whole=set(ends), name="t")
    if isinstance(routed, Routed):
        (circuit,) = routed.circuits
        assert list(stream_faults(view, request(), circuit)) == []


# -- how small


def over_optimum(view: CellView, ends: list[str]) -> float:
    """How many times the fewest links a tree has, ports at both ends left out."""
    pool = Pool(view)
    grown = multicast(pool.graph, ends[0], ends[1:], 1, Constraints())
    assert isinstance(grown, Grown)
    switches = [pool.graph.ports(end)[0].other for end in ends]
    fewest = fewest_links(ways_of(view), switches[0], switches[1:])
    return (sum(len(branch.arcs) for branch in grown.branches) - len(ends)) / fewest


def test_trees_on_irregular_fabrics_have_few_more_links_than_the_fewest():
    ratios = []
    # 472: a part of the tree would hang better by a link that is free in the other direction.
    for seed in [*range(150), 472]:
        dice = Random(seed)
        count = dice.randint(15, SWITCHES_MAX)
        view = some_fabric(dice, count)
        ends = [f"n{place}/gpu0" for place in dice.sample(range(count), dice.randint(4, 8))]
        tree = a_tree(view, ends)
        if tree is not None:
            assert tree_problems(view, tree) == []
            ratios.append(over_optimum(view, ends))
    assert len(ratios) > 100
    assert 1 <= mean(ratios) <= OVER_OPTIMUM_MAX, mean(ratios)


def test_trees_on_a_torus_keep_within_a_bound_that_the_smallest_breaks():
    view = CellView(cell=preset("torus:5x5x5"))
    dice = Random(2)
    kept = 0
    for _ in range(12):
        ends = dice.sample([*view.cell.engines], 8)
        loose = a_tree(view, ends)
        assert loose is not None
        bounds = Constraints(max_hops=hops_of(view, loose) - 1)
        tree = a_tree(view, ends, bounds)
        if tree is not None:
            kept += 1
            assert tree_problems(view, tree, request(max_hops=bounds.max_hops)) == []
    assert kept > 3


def test_trees_on_a_torus_have_few_more_links_than_the_fewest():
    view = CellView(cell=preset("torus:5x5x5"))
    pool = Pool(view)
    engines: dict[str, str] = {}
    for engine in view.cell.engines:
        engines.setdefault(pool.graph.ports(engine)[0].other, engine)
    dice = Random(1)
    ratios = [over_optimum(view, dice.sample([*engines.values()], 8)) for _ in range(12)]
    assert 1 <= mean(ratios) <= OVER_OPTIMUM_MAX, mean(ratios)
