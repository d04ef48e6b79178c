"""What would a gang with its circuits cost with the means that are at hand: a scan, a library?

Each rival keeps its own free engines and lanes on the same cell, and each turn lets a random old
gang go and places another: eight engines of the fullest leaf that has as many, and a ring of
shortest ways. They write no records, know no makes, hosts, shares, power or bitstreams, and never
have to say why not.
"""

import heapq
import importlib
import statistics
import time
from abc import ABC, abstractmethod
from itertools import pairwise
from random import Random
from typing import Any, Final

from flowos.model.cell import Cell

_FAR: Final = 1 << 30  # worse than any leaf

Way = list[int]  # things crossed, ends included


class Rival(ABC):
    """A cell as arrays: which leaf each engine is on, and the lanes left of every arc.

    Attributes:
        names: Engines first, then switches; their places are their numbers.
        leaf_of: Engine -> leaf, counted among the switches.
        left: (from, to) -> lanes.
        free_on: Leaf -> free engines.
    """

    def __init__(self, cell: Cell, gang: int) -> None:
        """Lay an empty cell out."""
        self.gang = gang
        self.dice = Random(0)
        names = [*cell.engines, *cell.switches]
        numbers = {name: number for number, name in enumerate(names)}
        self.things = len(names)
        engines = len(cell.engines)
        self.leaf_of = [0] * engines
        self.left: dict[tuple[int, int], int] = {}
        for link in cell.links.values():
            a, b = numbers[link.a_thing], numbers[link.b_thing]
            self.left[a, b] = self.left[b, a] = link.lanes
            for end, other in ((a, b), (b, a)):
                if end < engines:
                    self.leaf_of[end] = other - engines
        self.free = [True] * engines
        self.free_on = [0] * len(cell.switches)
        for leaf in self.leaf_of:
            self.free_on[leaf] += 1
        self.gangs: list[tuple[list[int], list[Way]]] = []

    def fill(self, share: float) -> None:
        """Hold so much of the cell by gangs side by side: the least work that a full cell can be."""
        blocks = [range(n, n + self.gang) for n in range(0, len(self.free), self.gang)]
        self.dice.shuffle(blocks)
        for block in blocks[: int(share * len(blocks))]:
            self.take([*block], [])

    def take(self, engines: list[int], ways: list[Way]) -> None:
        """Hold engines and lanes."""
        for engine in engines:
            self.free[engine] = False
            self.free_on[self.leaf_of[engine]] -= 1
        for way in ways:
            for arc in pairwise(way):
                self.left[arc] -= 1
                if not self.left[arc]:
                    self.cut(*arc)
        self.gangs.append((engines, ways))
        self.noted(engines, free=False)

    def release(self) -> None:
        """Let a random gang go."""
        index = self.dice.randrange(len(self.gangs))
        self.gangs[index], self.gangs[-1] = self.gangs[-1], self.gangs[index]
        engines, ways = self.gangs.pop()
        for engine in engines:
            self.free[engine] = True
            self.free_on[self.leaf_of[engine]] += 1
        for way in ways:
            for arc in pairwise(way):
                if not self.left[arc]:
                    self.mend(*arc)
                self.left[arc] += 1
        self.noted(engines, free=True)

    def turn_us(self, count: int) -> float:
        """Return the median of some turns in microseconds; a release is not counted."""
        samples = []
        for _ in range(count):
            self.release()
            before = time.perf_counter_ns()
            engines = self.choose()
            ends = zip(engines, [*engines[1:], engines[0]], strict=True)
            self.take(engines, [self.way(source, target) for source, target in ends])
            samples.append((time.perf_counter_ns() - before) / 1000)
        return statistics.median(samples)

    @abstractmethod
    def noted(self, engines: list[int], *, free: bool) -> None:
        """Be told which engines were just taken or freed."""

    @abstractmethod
    def choose(self) -> list[int]:
        """Return the engines of a gang."""

    @abstractmethod
    def way(self, source: int, target: int) -> Way:
        """Return a shortest way over arcs that have lanes left."""

    @abstractmethod
    def cut(self, a: int, b: int) -> None:
        """Take an arc without lanes out of the graph."""

    @abstractmethod
    def mend(self, a: int, b: int) -> None:
        """Put an arc back that has lanes again."""


class Naive(Rival):
    """A scan of all engines in plain Python, and ways by networkx."""

    def __init__(self, cell: Cell, gang: int) -> None:
        """Lay the cell out as a graph of networkx."""
        networkx: Any = importlib.import_module("networkx")
        super().__init__(cell, gang)
        self.find = networkx.bidirectional_shortest_path
        self.graph = networkx.DiGraph(self.left.keys())

    def noted(self, engines: list[int], *, free: bool) -> None:
        """Do nothing: the lists are all there is."""

    def choose(self) -> list[int]:
        """Rank every free engine."""
        free_on, leaf_of, gang = self.free_on, self.leaf_of, self.gang
        ranked = (
            (free_on[leaf_of[engine]] if free_on[leaf_of[engine]] >= gang else _FAR, engine)
            for engine, free in enumerate(self.free)
            if free
        )
        return [engine for _, engine in heapq.nsmallest(gang, ranked)]

    def way(self, source: int, target: int) -> Way:
        """Ask networkx."""
        found: Way = self.find(self.graph, source, target)
        return found

    def cut(self, a: int, b: int) -> None:
        """Remove the edge."""
        self.graph.remove_edge(a, b)

    def mend(self, a: int, b: int) -> None:
        """Add the edge."""
        self.graph.add_edge(a, b)


class Arrays(Rival):
    """Engines ranked by numpy, ways by networkit: the fastest library for each half."""

    def __init__(self, cell: Cell, gang: int) -> None:
        """Lay the cell out as arrays and a graph of networkit."""
        self.np: Any = importlib.import_module("numpy")
        networkit: Any = importlib.import_module("networkit")
        networkit.setNumberOfThreads(1)
        super().__init__(cell, gang)
        self.find = networkit.distance.BidirectionalBFS
        self.graph = networkit.Graph(self.things, directed=True)
        for a, b in self.left:
            self.graph.addEdge(a, b)
        self.leaves = self.np.array(self.leaf_of)
        self.marks = self.np.ones(len(self.leaf_of), dtype=bool)
        self.counts = self.np.array(self.free_on)
        self.order = self.np.arange(len(self.free_on))
        self.never = self.np.iinfo(self.np.int64).max

    def noted(self, engines: list[int], *, free: bool) -> None:
        """Write it into the arrays."""
        self.marks[engines] = free
        for leaf in {self.leaf_of[engine] for engine in engines}:
            self.counts[leaf] = self.free_on[leaf]

    def choose(self) -> list[int]:
        """Rank all engines at once."""
        np = self.np
        worth = np.where(self.counts >= self.gang, self.counts, _FAR)
        worth = worth * len(worth) + self.order  # no two leaves alike, or a gang lies on both
        ranked = np.where(self.marks, worth[self.leaves], self.never)
        found: list[int] = np.argpartition(ranked, self.gang)[: self.gang].tolist()
        return found

    def way(self, source: int, target: int) -> Way:
        """Ask networkit."""
        search = self.find(self.graph, source, target)
        search.run()
        return [source, *search.getPath(), target]

    def cut(self, a: int, b: int) -> None:
        """Remove the edge."""
        self.graph.removeEdge(a, b)

    def mend(self, a: int, b: int) -> None:
        """Add the edge."""
        self.graph.addEdge(a, b)
