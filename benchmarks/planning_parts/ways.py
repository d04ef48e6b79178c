"""What does one circuit cost: to find the shortest free way, and to take its lanes?

On a fat tree of 100,000 engines (3,973 switches), and on a torus of 23 x 23 x 23 switches with one
lane a link between pairs as far from each other as can be; 30 % of all lanes are held. Each circuit
is for other engines and takes its lanes from the next ones, until 64 are held: then all are given
back. That is not counted, nor is what the libraries take for it.

Libraries search a graph of the switches that has just the links with a free lane. They find and take
the same circuits in the same order, which all must be as long as the planner's. Like the planner's,
each circuit is timed by itself, and nothing else is done between two but to keep the count: what
records, claims and the pool take, and what they push out of the processor's caches, is in
`circuit_.._record_us`, which is of gangs of eight circuits that are planned, held and given back.
"""

import gc
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice, product
from random import Random
from typing import Any, Final, NamedTuple

import networkit
import networkx as nx
import rustworkx
from harness import Report

from flowos.documents.presets import preset
from flowos.model.cell import Cell, Engine, Link, Node, Switch
from flowos.model.placement import Circuit, Placement
from flowos.model.slice import Constraints
from flowos.model.units import lane_unit
from flowos.model.view import CellView
from flowos.planning.circuits.graph import Graph
from flowos.planning.circuits.route import Routed, Wish, route
from flowos.planning.circuits.ways import way
from flowos.planning.engines.pool import Pool

SIDE: Final = 23
BUSY: Final = 0.3
GOAL_US: Final = 4.0
FASTER: Final = 10.0  # than rustworkx and networkx
TOGETHER: Final = 8  # circuits of a gang
HELD: Final = 64  # circuits that are held at a time, of those that are laid here


def measure(report: Report, quick: bool) -> None:
    """Add the figures of single circuits."""
    _on(report, "fat_tree", preset("fat-tree:100000"), other_leaf, 30 if quick else 200)
    _on(report, "torus", torus(SIDE), across, 6 if quick else 50)
    _inside_one_switch(report)


# --------------------------------------------------------------------------- cells and pairs


def torus(side: int) -> Cell:
    """Return a torus of three dimensions, one engine a switch, one lane a link and direction."""
    cell = Cell()
    places = list(product(range(side), repeat=3))
    for x, y, z in places:
        switch, node = f"s{x}-{y}-{z}", f"n{x}-{y}-{z}"
        engine = Engine(node, "gpu0", "gpu")
        cell.add(Switch(switch, latency_ns=100))
        cell.add(Node(node))
        cell.add(engine)
        cell.add(Link(f"{node}.gpu0", f"{engine.id}:0", f"{switch}:0", 8, latency_ns=10))
    for place in places:
        for d in range(3):
            other = (*place[:d], (place[d] + 1) % side, *place[d + 1 :])
            a, b = (f"s{'-'.join(map(str, p))}" for p in (place, other))
            cell.add(Link(f"{a}.{d}", f"{a}:{1 + d}", f"{b}:{4 + d}", 1, latency_ns=10))
    return cell


def other_leaf(cell: Cell, dice: Random) -> Iterator[tuple[str, str]]:
    """Yield pairs of engines on different leaves, anywhere."""
    engines = list(cell.engines)
    rack = {name: cell.nodes[engine.node].rack for name, engine in cell.engines.items()}
    while True:
        a, b = dice.sample(engines, 2)
        if rack[a] != rack[b]:
            yield a, b


def across(_: Cell, dice: Random) -> Iterator[tuple[str, str]]:
    """Yield pairs of engines that are as far from each other as can be: 11 links each way."""
    while True:
        place = [dice.randrange(SIDE) for _ in range(3)]
        other = [(at + dice.choice((-1, 1)) * (SIDE // 2)) % SIDE for at in place]
        yield tuple(f"n{'-'.join(map(str, p))}/gpu0" for p in (place, other))  # type: ignore[misc]


# --------------------------------------------------------------------------- the libraries


class Turn(NamedTuple):
    """What happens to the fabric, by the arcs between its switches.

    Attributes:
        way: A circuit that was laid; empty = all were given back.
        full: Those whose last free lane it took.
        freed: Those that were full and no longer are.
    """

    way: Sequence[int]
    full: Sequence[int]
    freed: Sequence[int]


class Library:
    """A graph of the switches in another's library, with the links that have a free lane."""

    def __init__(self, graph: Graph) -> None:
        self._tails, self._heads = graph.tails, graph.heads
        self._parallel: dict[tuple[int, int], int] = {}
        for arc in range(graph.trunk_arcs):
            if graph.free[arc]:
                self.join(graph.tails[arc], graph.heads[arc])

    def join(self, a: int, b: int) -> None:
        """Add a link that has got a free lane."""
        count = self._parallel[a, b] = self._parallel.get((a, b), 0) + 1
        if count == 1:
            self.add(a, b)

    def part(self, a: int, b: int) -> None:
        """Remove a link whose last lane went."""
        count = self._parallel[a, b] = self._parallel[a, b] - 1
        if not count:
            self.remove(a, b)

    def replayed(self, log: Iterable[Turn]) -> list[float]:
        """Find and take the same circuits; return the seconds of each."""
        times: list[float] = []
        tails, heads = self._tails, self._heads
        for way_, full, freed in log:
            if way_:
                before = time.perf_counter()
                nodes = self.find(tails[way_[0]], heads[way_[-1]])
                for arc in full:
                    self.part(tails[arc], heads[arc])
                times.append(time.perf_counter() - before)
                assert len(nodes) == len(way_) + 1, f"{type(self).__name__}: of another length"
            for arc in freed:
                self.join(tails[arc], heads[arc])
        return times

    def add(self, a: int, b: int) -> None:
        """Add an edge."""
        raise NotImplementedError

    def remove(self, a: int, b: int) -> None:
        """Remove an edge."""
        raise NotImplementedError

    def find(self, a: int, b: int) -> Sequence[int]:
        """Return the nodes of a shortest way."""
        raise NotImplementedError


class Networkx(Library):
    """networkx, bidirectional breadth first."""

    def __init__(self, graph: Graph) -> None:
        self.graph: Any = nx.DiGraph()
        self.graph.add_nodes_from(range(len(graph.names)))
        super().__init__(graph)

    def add(self, a: int, b: int) -> None:
        """Add an edge."""
        self.graph.add_edge(a, b)

    def remove(self, a: int, b: int) -> None:
        """Remove an edge."""
        self.graph.remove_edge(a, b)

    def find(self, a: int, b: int) -> Sequence[int]:
        """Return the nodes of a shortest way."""
        found: list[int] = nx.bidirectional_shortest_path(self.graph, a, b)
        return found


class Rustworkx(Library):
    """rustworkx, Dijkstra up to the target: it has no search from both ends."""

    def __init__(self, graph: Graph) -> None:
        self.graph: Any = rustworkx.PyDiGraph(multigraph=False)
        self.graph.add_nodes_from(range(len(graph.names)))
        super().__init__(graph)

    def add(self, a: int, b: int) -> None:
        """Add an edge."""
        self.graph.add_edge(a, b, None)

    def remove(self, a: int, b: int) -> None:
        """Remove an edge."""
        self.graph.remove_edge(a, b)

    def find(self, a: int, b: int) -> Sequence[int]:
        """Return the nodes of a shortest way."""
        found = rustworkx.dijkstra_shortest_paths(self.graph, a, target=b, default_weight=1.0)
        return list(found[b])


class Networkit(Library):
    """networkit, breadth first from both ends, in C++."""

    def __init__(self, graph: Graph) -> None:
        self.graph: Any = networkit.Graph(len(graph.names), directed=True)
        super().__init__(graph)

    def add(self, a: int, b: int) -> None:
        """Add an edge."""
        self.graph.addEdge(a, b)

    def remove(self, a: int, b: int) -> None:
        """Remove an edge."""
        self.graph.removeEdge(a, b)

    def find(self, a: int, b: int) -> Sequence[int]:
        """Return the nodes of a shortest way."""
        search = networkit.distance.BidirectionalBFS(self.graph, a, b, True)
        search.run()
        return [a, *search.getPath(), b]


LIBRARIES: Final[dict[str, Callable[[Graph], Library]]] = {
    "rustworkx": Rustworkx,
    "networkx": Networkx,
    "networkit": Networkit,
}


# --------------------------------------------------------------------------- a fabric in use


class Fabric:
    """A cell with some of its trunk lanes held, and the circuits that come and go."""

    def __init__(self, cell: Cell) -> None:
        self.view = CellView(cell=cell)
        self.pool = Pool(self.view)
        graph = self.graph = self.pool.graph
        dice = Random(1)
        held = [
            lane_unit(graph.links[arc >> 1].name, ("fwd", "rev")[arc & 1], lane)
            for arc in range(graph.trunk_arcs)
            for lane in range(graph.lanes[arc])
            if dice.random() < BUSY
        ]
        self._assume("default/others", held, ())
        self._laid: deque[str] = deque()
        self._count = 0

    def _assume(self, name: str, units: Sequence[str], circuits: Sequence[Circuit]) -> None:
        placement = Placement(0, name, held=dict.fromkeys(units, ()), circuits=tuple(circuits))
        self.view.assume(name, placement)
        self.pool.fold()

    def hold(self, found: Routed) -> None:
        """Hold a gang's circuits, and give back the oldest where there are enough."""
        self._count += 1
        name = f"default/c{self._count}"
        self._assume(name, found.units, found.circuits)
        self._laid.append(name)
        if len(self._laid) * TOGETHER > HELD:
            self.view.retract(self._laid.popleft())
            self.pool.fold()


def _on(
    report: Report,
    name: str,
    cell: Cell,
    pairs: Callable[[Cell, Random], Iterator[tuple[str, str]]],
    turns: int,
) -> None:
    fabric = Fabric(cell)
    dice = Random(2)
    ends = list(islice(pairs(cell, dice), TOGETHER * turns))
    for end in {end for pair in ends for end in pair}:
        fabric.graph.ports(end)  # as after some time
    libraries = {library: make(fabric.graph) for library, make in LIBRARIES.items()}
    gc.collect()
    gc.disable()
    times: list[float] = []
    log = [*_laid(fabric.graph, ends, times)]
    median = statistics.median(times) * 1e6
    report.add(f"circuit_{name}_us", median, "us", at_most=GOAL_US)
    whole = statistics.median(_with_records(fabric, ends)) * 1e6
    report.add(f"circuit_{name}_record_us", whole, "us")
    for library, its in libraries.items():
        theirs = statistics.median(its.replayed(log)) * 1e6
        goal = None if library == "networkit" else FASTER
        report.add(
            f"circuit_{name}_{library}_us", theirs, "us", baseline=median, ratio_at_least=goal
        )
    gc.enable()


def _laid(graph: Graph, ends: Iterable[tuple[str, str]], times: list[float]) -> Iterator[Turn]:
    """Lay circuits; note how long finding and taking each took, and yield what happens."""
    no_bounds = Constraints()
    free = graph.free
    mark = graph.mark()
    used: set[int] = set()
    for source, target in ends:
        before = time.perf_counter()
        arcs = way(graph, source, target, 1, no_bounds)
        if isinstance(arcs, str):
            continue  # nothing leads there: no library is asked for that
        graph.take_way(arcs, 1)
        times.append(time.perf_counter() - before)
        trunks = arcs[1:-1]
        used.update(trunks)
        yield Turn(trunks, [arc for arc in trunks if not free[arc]], [])
        if len(times) % HELD == 0:
            full = [arc for arc in used if not free[arc]]
            graph.undo(mark)
            used.clear()
            yield Turn([], [], [arc for arc in full if free[arc]])
    graph.undo(mark)


def _with_records(fabric: Fabric, ends: Sequence[tuple[str, str]]) -> Iterator[float]:
    """Plan and hold circuits, a gang after the other; yield the seconds of each circuit."""
    for first in range(0, len(ends), TOGETHER):
        joined = ends[first : first + TOGETHER]
        wishes = [Wish(n, source, (target,), 1, "") for n, (source, target) in enumerate(joined)]
        before = time.perf_counter()
        routed = route(fabric.pool, wishes, whole=(), name="c")
        if isinstance(routed, Routed):
            yield (time.perf_counter() - before) / TOGETHER
            fabric.hold(routed)


def _inside_one_switch(report: Report) -> None:
    """The eight circuits of a ring in one switch, with their records."""
    view = CellView(cell=preset("fat-tree:1000"))
    pool = Pool(view)
    engines = list(view.cell.engines)[:8]
    wishes = [
        Wish(n, source, (target,), 1, "")
        for n, (source, target) in enumerate(zip(engines, [*engines[1:], engines[0]], strict=True))
    ]
    times = []
    for _ in range(2_000):
        before = time.perf_counter()
        found = route(pool, wishes, whole=engines, name="ring")
        times.append(time.perf_counter() - before)
        assert isinstance(found, Routed)
    report.add("ring8_in_a_switch_us", statistics.median(times) * 1e6, "us", at_most=12.0)
