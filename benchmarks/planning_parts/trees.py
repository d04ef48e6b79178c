"""What does a tree cost, from one engine to seven, and back from seven with streams summed on the way?

On a torus of 11 x 11 x 11 switches with one lane a link. No search sees the same fabric twice: some
trees stand all the time, and with each new one the oldest is given back; what the pool folds in is
not counted. networkx has a graph of the switches with just the links that have a free lane in either
direction, which it may cross in both; what its upkeep takes is not counted. Both answer in turns.
"""

import gc
import statistics
import time
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import replace
from random import Random
from typing import Any, Final

import networkx as nx
from harness import Report
from networkx.algorithms.approximation import steiner_tree

from flowos.model.cell import Cell
from flowos.model.placement import Circuit, Placement
from flowos.model.units import lane_unit
from flowos.model.view import CellView
from flowos.planning.circuits.route import Routed, Wish, route
from flowos.planning.engines.pool import Pool
from planning_parts.ways import torus

SIDE: Final = 11
LEAVES: Final = 7
STANDING: Final = 20  # trees: one lane of ten is held
RATIO_MAX: Final = 1 / 20  # of what networkx takes


def measure(report: Report, quick: bool) -> None:
    """Add the figures of trees."""
    cell = torus(SIDE)
    for switch in [*cell.switches.values()]:
        cell.add(replace(switch, aggregators=1, functions=("sum",)))
    turns = 60 if quick else 300
    trees = Trees(cell)
    ours, theirs, links, their_links = [], [], [], []
    gc.collect()
    gc.disable()
    try:
        for _ in range(turns):
            ends = trees.draw()
            spent, circuit = trees.plan(Wish(0, ends[0], tuple(ends[1:]), 1, ""))
            their_spent, edges = trees.ask_networkx(ends)
            trees.stand(circuit)
            ours.append(spent)
            theirs.append(their_spent)
            links.append(len(circuit.arcs) - len(ends))
            their_links.append(edges)
        gathered = []
        for _ in range(turns):
            ends = trees.draw()
            spent, circuit = trees.plan(Wish(0, ends[1], (ends[0],), 1, "sum", tuple(ends[1:])))
            trees.stand(circuit)
            gathered.append(spent)
    finally:
        gc.enable()
    report.add(
        f"multicast_1_{LEAVES}_us",
        statistics.median(ours),
        "us",
        baseline=statistics.median(theirs),
        ratio_at_most=RATIO_MAX,
    )
    report.add(
        f"multicast_1_{LEAVES}_links",
        statistics.mean(links),
        "links",
        baseline=statistics.mean(their_links),
        ratio_at_most=1.0,
    )
    report.add(f"aggregation_{LEAVES}_1_us", statistics.median(gathered), "us")


class Trees:
    """A cell in which trees come and go, for the planner and for networkx."""

    def __init__(self, cell: Cell) -> None:
        """Start with as many trees as stand at a time."""
        self.view = CellView(cell=cell)
        self.pool = Pool(self.view)
        self.dice = Random(11)
        self.engines = list(cell.engines)
        self.standing: deque[tuple[str, Circuit]] = deque()
        self.count = 0
        self.graph: Any = nx.Graph()  # networkx has no types
        self.lanes: Counter[tuple[str, str]] = Counter()
        for _ in range(2):  # directions, of one lane each
            self._free((link.name for link in cell.links.values()), 1)
        for _ in range(STANDING):
            ends = self.draw()
            self.stand(self.plan(Wish(0, ends[0], tuple(ends[1:]), 1, ""))[1])

    def draw(self) -> list[str]:
        """Return the ends of a tree, of which none is an end of one that stands."""
        busy = {end for _, c in self.standing for end in (c.source, *c.targets, *c.sources)}
        ends: list[str] = []
        while len(ends) <= LEAVES:
            end = self.dice.choice(self.engines)
            if end not in busy and end not in ends:
                ends.append(end)
        return ends

    def plan(self, wish: Wish) -> tuple[float, Circuit]:
        """Return the microseconds that a tree takes, and the tree."""
        self.pool.fold()
        whole = {wish.source, *wish.targets, *wish.sources}
        before = time.perf_counter()
        routed = route(self.pool, [wish], whole=whole, name="t")
        spent = time.perf_counter() - before
        assert isinstance(routed, Routed), routed
        return spent * 1e6, routed.circuits[0]

    def ask_networkx(self, ends: list[str]) -> tuple[float, int]:
        """Return the microseconds that networkx takes for the same, and its links."""
        switches = [f"s{end.partition('/')[0][1:]}" for end in ends]
        before = time.perf_counter()
        found = steiner_tree(self.graph, switches, method="mehlhorn")
        spent = time.perf_counter() - before
        return spent * 1e6, found.number_of_edges()

    def stand(self, circuit: Circuit) -> None:
        """Let a tree stand, and the oldest go."""
        self.count += 1
        name = f"t/{self.count}"
        held: dict[str, tuple[int, ...]] = dict.fromkeys(circuit.aggregators, ())
        for arc in circuit.arcs:
            held |= dict.fromkeys(
                (lane_unit(arc.link, arc.direction, lane) for lane in arc.lanes), ()
            )
        self.view.assume(name, Placement(1, f"a{self.count}", held=held))
        self._free((arc.link for arc in circuit.arcs), -1)
        self.standing.append((name, circuit))
        if len(self.standing) > STANDING:
            old, gone = self.standing.popleft()
            self.view.retract(old)
            self._free((arc.link for arc in gone.arcs), 1)

    def _free(self, links: Iterable[str], change: int) -> None:
        """Keep networkx's links as they are: there as long as a lane in either direction is free."""
        for name in links:
            link = self.view.cell.links[name]
            ends = (link.a_thing, link.b_thing)
            if not set(ends) <= self.view.cell.switches.keys():
                continue
            self.lanes[ends] += change
            if not self.lanes[ends]:
                self.graph.remove_edge(*ends)
                # It does not answer where a switch is cut off.
                self.graph.remove_nodes_from([end for end in ends if not self.graph[end]])
            elif change > 0:
                self.graph.add_edge(*ends)
