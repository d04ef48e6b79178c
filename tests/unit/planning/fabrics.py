"""Fabrics of all sorts with some of their lanes held, and what networkx says of their ways."""

from collections.abc import Iterator, Sequence
from itertools import product
from random import Random

import networkx as nx

from flowos.model.cell import Cell, Engine, Link, Node, Switch
from flowos.model.placement import Placement
from flowos.model.units import lane_unit
from flowos.model.view import CellView


class Fabric:
    """A cell that is being cabled: `latency` says what each link's and switch's latency is."""

    def __init__(self, dice: Random, *, even: bool, lanes: int = 1) -> None:
        self.cell = Cell()
        self.dice = dice
        self.even = even
        self.lanes = lanes

    def latency(self) -> int:
        return 10 if self.even else self.dice.choice([10, 10, 20, 90])

    def switch(self, name: str, tier: int = 0) -> str:
        self.cell.add(Switch(name, latency_ns=self.latency(), tier=tier))
        return name

    def join(self, a: str, b: str, lanes: int = 0) -> None:
        n = len(self.cell.links)
        a, b = self.dice.sample([a, b], 2)  # either end may be "a"
        lanes = lanes or self.lanes
        self.cell.add(Link(f"k{n}", f"{a}:{n}", f"{b}:{n}", lanes, latency_ns=self.latency()))

    def engine(self, *switches: str, lanes: int = 2) -> str:
        name = f"n{len(self.cell.nodes)}"
        self.cell.add(Node(name))
        engine = Engine(name, "gpu0", "gpu")
        self.cell.add(engine)
        for switch in switches:
            self.join(engine.id, switch, lanes)
        return engine.id


def grid(dice: Random, sides: Sequence[int], *, wrapped: bool, even: bool, lanes: int) -> Cell:
    """A torus or mesh with an engine at each switch, in no particular order."""
    fabric = Fabric(dice, even=even, lanes=lanes)
    places = list(product(*map(range, sides)))
    dice.shuffle(places)
    for place in places:
        fabric.engine(fabric.switch(f"s{place}"))
    for place in places:
        for d, side in enumerate(sides):
            on = (place[d] + 1) % side
            if on > place[d] or (wrapped and side > 2):
                fabric.join(f"s{place}", f"s{(*place[:d], on, *place[d + 1 :])}")
    return fabric.cell


def leaf_and_spine(
    dice: Random, pods: int, leaves: int, spines: int, cores: int, *, even: bool, lanes: int
) -> Cell:
    """Pods of leaves and spines, each spine with as many cores; some links are there twice."""
    fabric = Fabric(dice, even=even, lanes=lanes)
    tiers = dice.random() < 0.7  # else the wiring has to show it
    twice = dice.random() < 0.3
    above = [[fabric.switch(f"c{s}-{c}", 2 * tiers) for c in range(cores)] for s in range(spines)]
    for pod in range(pods):
        middle = [fabric.switch(f"s{pod}-{s}", 1 * tiers) for s in range(spines)]
        for leaf in range(leaves):
            below = fabric.switch(f"l{pod}-{leaf}")
            for spine in middle:
                for _ in range(1 + (twice and dice.random() < 0.5)):
                    fabric.join(below, spine)
            # The second may have its other port on a leaf that is there already.
            others = [name for name in fabric.cell.switches if name.startswith("l")]
            fabric.engine(below)
            fabric.engine(*dict.fromkeys((below, dice.choice([below, *others]))))
        for spine, its in zip(middle, above, strict=True):
            for core in its:
                fabric.join(spine, core)
    return fabric.cell


def irregular(dice: Random, switches: int, links: int, *, even: bool, lanes: int) -> Cell:
    """Switches joined at random, and engines with one port or several."""
    fabric = Fabric(dice, even=even, lanes=lanes)
    names = [fabric.switch(f"s{n}") for n in range(switches)]
    for _ in range(links):
        a, b = dice.sample(names, 2)
        fabric.join(a, b, dice.randint(1, lanes))
    for name in names:
        fabric.engine(name, *dice.sample(names, dice.choice([0, 0, 0, 1])))
    a, b = fabric.engine(names[0]), fabric.engine(names[1])
    if dice.random() < 0.5:
        fabric.join(a, b)  # no switch between
    return fabric.cell


def some_fabric(dice: Random) -> Cell:
    """One of the above, small."""
    even, lanes = dice.random() < 0.5, dice.choice([1, 1, 2, 3, 5])
    kind = dice.randrange(4)
    if kind == 0:
        sides = dice.choice([(4, 4), (3, 5), (2, 2, 2), (3, 3, 3), (2, 3, 4), (5, 2), (2,) * 4])
        return grid(dice, sides, wrapped=dice.random() < 0.6, even=even, lanes=lanes)
    if kind == 1:
        shape = dice.choice([(1, 4, 3, 0), (2, 3, 2, 2), (3, 2, 3, 1), (1, 3, 5, 0)])
        return leaf_and_spine(dice, *shape, even=even, lanes=lanes)
    count = dice.randint(2, 14) if kind == 2 else dice.randint(30, 40)
    links = dice.randint(count - 1, 2 * count)
    return irregular(dice, count, links, even=even, lanes=lanes)


def some_busy(dice: Random, cell: Cell) -> CellView:
    """A view of a cell in which lanes are held or waited for, and things are down."""
    view = CellView(cell=cell)
    busy = dice.choice([0.0, 0.1, 0.3, 0.6])
    for unit in lanes_of(cell):
        if dice.random() < busy:
            hold(view, unit)
    waited = [unit for unit in lanes_of(cell) if dice.random() < busy / 10]
    view.assume("~drain/lanes", Placement(0, "w", wanted=tuple(waited)))
    for unit in [*(f"switch/{s}" for s in cell.switches), *(f"link/{k}" for k in cell.links)]:
        if dice.random() < busy / 10:
            hold(view, unit)
    return view


def hold(view: CellView, unit: str) -> None:
    view.assume(f"x/{unit}", Placement(0, unit, held={unit: ()}))


def lanes_of(cell: Cell) -> Iterator[str]:
    for link in cell.links.values():
        for direction in ("fwd", "rev"):
            for lane in range(link.lanes):
                yield lane_unit(link.name, direction, lane)


def free_lanes(view: CellView, link: Link, direction: str) -> list[int]:
    """Which lanes of a link can be had, from the claims alone."""
    things = [f"link/{link.name}", f"switch/{link.a_thing}", f"switch/{link.b_thing}"]
    if any(thing in view.holders or view.wanted.get(thing) for thing in things):
        return []
    units = [(lane, lane_unit(link.name, direction, lane)) for lane in range(link.lanes)]
    return [n for n, unit in units if unit not in view.holders and not view.wanted.get(unit)]


def oracle(view: CellView, lanes: int, *, everything: bool = False) -> nx.DiGraph:
    """All ends and switches, with an edge where so many lanes are free; `ns` as a circuit counts.

    `everything` is the same with nothing held and nothing down.
    """
    graph = nx.DiGraph()
    graph.add_nodes_from([*view.cell.switches, *view.cell.engines])
    for link in view.cell.links.values():
        for direction, tail, head in (
            ("fwd", link.a_thing, link.b_thing),
            ("rev", link.b_thing, link.a_thing),
        ):
            if not everything and len(free_lanes(view, link, direction)) < lanes:
                continue
            there = view.cell.switches.get(head)
            ns = link.latency_ns + (there.latency_ns if there else 0)
            old = graph.get_edge_data(tail, head)
            if old is None or ns < old["ns"]:
                graph.add_edge(tail, head, ns=ns)
    return graph


def between(graph: nx.DiGraph, view: CellView, source: str, target: str) -> nx.DiGraph:
    """The part of it that circuits may use: no engine but the two ends."""
    return graph.subgraph([*view.cell.switches, source, target])
