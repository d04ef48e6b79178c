"""Which lanes join one end with many: as a multicast tree, or as an aggregation tree, its reverse?

Both grow from their root, the one source or the one target, to the end that is nearest next. Where
streams run towards the root, a branch may only start at a switch that can make two streams
one; where none is near enough it goes on beside the others, on a lane of its own.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from heapq import heapify, heappop, heappush
from math import inf
from typing import Final, Literal, NamedTuple, TypeAlias

from flowos.model.slice import Constraints
from flowos.model.units import aggregator_unit
from flowos.model.view import CellView
from flowos.planning.circuits.balls import bitmap
from flowos.planning.circuits.exchange import Branch, Flip, Merges, Shape, Up, exchanged, rebranched
from flowos.planning.circuits.graph import NO_SWITCH, Graph
from flowos.planning.circuits.grid import Grid
from flowos.planning.circuits.landmarks import Landmarks
from flowos.planning.circuits.levels import Levels
from flowos.planning.circuits.ways import Ends, beside, direct, lanes_wanted, way

_HUBS: Final = 4  # switches that could merge, and are tried one by one where growth meets none


class Grown(NamedTuple):
    """A tree, branch by branch in order of growth; what it merges, and where.

    Attributes:
        merging: Switches in which streams are made one.
    """

    branches: tuple[Branch, ...]
    merging: tuple[int, ...] = ()


class Mergers:
    """Which aggregator of a switch is free for a function.

    Attributes:
        function: What it is to compute of the streams.
        taken: Units that are not to be had though nobody holds them yet.
    """

    def __init__(self, view: CellView, function: str, taken: Collection[str] = ()) -> None:
        self._view = view
        self.function = function
        self.taken = taken

    def unit(self, switch: str) -> str | None:
        """Return the first that is free, or None."""
        view = self._view
        there = view.cell.switches[switch]
        if self.function not in there.functions:
            return None
        for number in range(there.aggregators):
            unit = aggregator_unit(switch, number)
            if unit not in view.holders and unit not in self.taken and not view.wanted.get(unit):
                return unit
        return None


def multicast(
    graph: Graph, source: str, targets: Sequence[str], lanes: int, bounds: Constraints
) -> Grown | str:
    """Return a tree from a source to all targets over few links, or why there is none.

    Args:
        graph: What is free; it is left as it was.
        source: An engine, or a node with an attachment port.
        targets: At least one, none twice, not the source.
        lanes: How many each link must have left.
        bounds: On the way to each target. Where the tree of few links breaks them, one of
            short ways is tried, then one of quick ways.

    Source: Takahashi and Matsuyama, "An approximate solution for the Steiner problem in graphs",
    1980; then one pass of key-path exchanges, as Verhoeven, Severens and Aarts, "Local search for
    Steiner trees in graphs", 1996.
    """
    grown = _crowned(graph, source, targets, lanes, 0, None)
    if grown is not None and _keeps(grown.branches, bounds):
        return grown
    missed = ""
    for measure in _MEASURES:
        growth = _Growth(graph, source, lanes, 0, None, measure)
        missing = growth.cover(targets)
        if missing:
            return f"no {lanes_wanted(lanes)} from {source} or the tree to {missing}"
        grown = growth.within(bounds)
        if grown is not None:
            return grown
        missed = (
            f"no free tree from {source} to {len(targets)} targets keeps within {_said(bounds)}"
        )
    return missed


def gathered(
    graph: Graph,
    sources: Sequence[str],
    target: str,
    lanes: int,
    bounds: Constraints,
    mergers: Mergers,
) -> Grown | str:
    """Return a tree from all sources to a target, or why there is none.

    Streams are made one wherever they meet in a switch that can. Only where they cannot all be
    made one, the target receives several, as far as its port has lanes.

    Args:
        graph: What is free; it is left as it was.
        sources: At least one, none twice, not the target.
        target: An engine, or a node with an attachment port.
        lanes: How many each link must have left, for each stream over it.
        bounds: As for `multicast`, on the way from each source.
        mergers: Which switches can make streams one.
    """
    known: dict[int, bool] = {}

    def merges(switch: int) -> bool:
        found = known.get(switch)
        if found is None:
            found = known[switch] = mergers.unit(graph.names[switch]) is not None
        return found

    grown = _crowned(graph, target, sources, lanes, 1, merges)
    if grown is not None and _keeps(grown.branches, bounds):
        return grown
    far = False  # whether there was a tree, but none within the bounds
    for single in (True, False):
        for measure in _MEASURES:
            growth = _Growth(graph, target, lanes, 1, merges, measure, single=single)
            if growth.cover(sources):
                break
            far = True
            grown = growth.within(bounds)
            if grown is not None:
                return grown
        for hub in _hubs(graph, target, lanes, merges) if single else ():
            growth = _Growth(graph, target, lanes, 1, merges, "few")
            if growth.reach(hub) and not growth.cover(sources):
                grown = growth.within(bounds)
                if grown is not None:
                    return grown
    if far:
        return f"no free tree from {len(sources)} sources to {target} keeps within {_said(bounds)}"
    for source in sources:
        alone = way(graph, source, target, lanes, Constraints())
        if isinstance(alone, str):
            return alone
    return (
        f"no switch on the way has a free aggregator for {mergers.function}, and {target} has too few "
        f"free lanes to receive {len(sources)} streams"
    )


def _said(bounds: Constraints) -> str:
    parts = []
    if bounds.max_hops:
        parts.append(f"{bounds.max_hops} links")
    if bounds.max_latency_ns:
        parts.append(f"{bounds.max_latency_ns} ns")
    return " and ".join(parts)


def _crowned(
    graph: Graph,
    root: str,
    ends: Sequence[str],
    lanes: int,
    flip: Flip,
    merges: Merges | None,
) -> Grown | None:
    """Return a smallest tree on a leaf-spine or fat tree, where one turns around once."""
    levels = graph.levels
    if levels is None:
        return None
    at_root = beside(graph, root, lanes, leaving=not flip)
    if len(at_root) != 1:
        return None
    ((top, port),) = at_root.items()
    ports: dict[str, tuple[int, int]] = {}
    for end in ends:
        at_end = beside(graph, end, lanes, leaving=bool(flip))
        if len(at_end) != 1 or len(graph.ports(end)) != 1:
            return None
        ((ports[end]),) = at_end.items()
    others = list(dict.fromkeys(leaf for leaf, _ in ports.values() if leaf != top))
    ways = levels.common(top, others, lanes, back=flip) if others else []
    if ways is None:
        return None
    # Away from the root, with the port there.
    away = {
        leaf: (port, *(found[::-1] if flip else found))
        for leaf, found in zip(others, ways, strict=True)
    }
    away[top] = (port,)
    up: Up = {}
    near_root = graph.heads if flip else graph.tails
    for arcs in away.values():
        up.update({near_root[arc ^ 1]: (near_root[arc], arc) for arc in arcs})
    shape = Shape(up, Counter(leaf for leaf, _ in ports.values()))
    if merges is not None and not all(merges(s) for s in up if shape.streams(s) > 1):
        return None
    its = {end: arc for end, (_, arc) in ports.items()}
    branches = rebranched(graph, shape, ends, its, flip)
    return Grown(tuple(branches), _merging(branches, flip))


def _hubs(graph: Graph, target: str, lanes: int, merges: Merges) -> Iterable[int]:
    """Yield a few switches near a target that can merge, the nearest first."""
    layer = list(beside(graph, target, lanes, leaving=False))
    seen = set(layer)
    count = 0
    while layer and count < _HUBS:
        wider: list[int] = []
        for here in layer:
            if merges(here):
                yield here
                count += 1
            for other, arc in graph.near[here]:
                if other not in seen and graph.free[arc ^ 1].bit_count() >= lanes:
                    seen.add(other)
                    wider.append(other)
        layer = wider


Measure: TypeAlias = Literal["few", "short", "quick"]
_MEASURES: Final[tuple[Measure, ...]] = ("few", "short", "quick")


class _Found(NamedTuple):
    """A way from a tree to an end: its cost, where it starts, and the stream's arcs from there."""

    cost: float
    start: int
    arcs: list[int]


class _Aim(NamedTuple):
    """The least that a way to an end can cost, and the switch that it would start at."""

    cost: float
    start: int


class _Growth:
    """A tree in the making.

    By which measure the next end is the nearest: "few" counts the links that it adds, "short" the
    links from the root, "quick" the nanoseconds from the root.
    """

    def __init__(
        self,
        graph: Graph,
        root: str,
        lanes: int,
        flip: Flip,
        merges: Merges | None,
        measure: Measure,
        *,
        single: bool = True,
    ) -> None:
        self.graph = graph
        self.root = root
        self.lanes = lanes
        self.flip: Flip = flip
        self.merges = merges
        self.measure: Measure = measure
        self.single = single  # whether the root receives one stream
        # Switches where a branch may start, with links and nanoseconds from the root.
        self.tree: dict[int, tuple[int, int]] = {}
        self.branches: list[Branch] = []
        self.trunk: list[int] = []  # the stream's arcs to a hub, from the root
        self.parts = True  # whether every switch is crossed by one stream at most
        self._crossed: set[int] = set()
        self._ports_used: set[int] = set()
        self._at_root: Ends | None = (
            None  # where the root's ports lead, which growth does not change
        )
        self._mark = graph.mark()

    # -- covering ends

    def cover(self, ends: Sequence[str]) -> str:
        """Grow to all ends; return one that cannot be reached, or "". The graph stays as it was."""
        try:
            return self._cover(ends)
        finally:
            self.graph.undo(self._mark)

    def reach(self, hub: int) -> bool:
        """Grow to a switch first, so that branches can start there; `cover` must follow."""
        goals = {hub: -1}
        found = self._hunt(goals, self._aim(goals))
        if found is None:
            self.graph.undo(self._mark)
            return False
        self.trunk = found.arcs
        self._cross(found.start, found.arcs)
        return True

    def _cover(self, ends: Sequence[str]) -> str:
        graph, flip = self.graph, self.flip
        goals: dict[str, dict[int, int]] = {}
        for end in ends:
            cable = (
                direct(graph, end, (self.root,), self.lanes)
                if flip
                else direct(graph, self.root, (end,), self.lanes)
            )
            if cable:
                (arc,) = cable
                self.branches.append(Branch(end, (arc,), NO_SWITCH, 1, graph.ns[arc]))
            else:
                goals[end] = beside(graph, end, self.lanes, leaving=bool(flip))
                if not goals[end]:
                    return end
        # The least that each end can cost, and from where; what it does, once that is known.
        aims = {end: self._aim(its) for end, its in goals.items()}
        known: dict[str, _Found] = {}
        while goals:
            end = min(goals, key=aims.__getitem__)
            aim = aims[end]
            if aim.cost == inf:
                return end
            found = known.get(end)
            if found is None:
                found = self._hunt(goals[end], aim)
                if found is not None:
                    known[end] = found
                elif self.merges is None:
                    return end  # whatever is added to the tree leads there no more than this
                cost = inf if found is None else found.cost
                if cost > aim.cost:
                    aims[end] = _Aim(cost, aim.start)
                    continue  # another may be nearer
            assert found is not None, "its cost is finite"
            fresh = self._commit(end, found, goals.pop(end))
            if flip:
                # Lanes of what was found before may be taken, and the root may be out of reach.
                known.clear()
                aims = {other: self._aim(its) for other, its in goals.items()}
                continue
            if self.measure != "few":
                known.clear()  # it may cross what is of the tree now, from where it costs more
            for other, its in goals.items():
                if not self._may_be_nearer(fresh, its, aims[other].cost):
                    continue
                aim = self._aim_from(fresh, its)
                if aim.cost < aims[other].cost:
                    aims[other] = aim
                    known.pop(other, None)
        return ""

    def _aim(self, goals: Ends) -> _Aim:
        """Return the least that a way to any of some switches can cost, and from where."""
        aim = self._aim_from(list(self.tree), goals)
        for switch, cost in self._root_offers(goals).items():
            if cost < aim.cost:
                aim = _Aim(cost, switch)
        return aim

    def _aim_from(self, starts: Sequence[int], goals: Ends) -> _Aim:
        if not starts or not goals:
            return _Aim(inf, NO_SWITCH)
        if self.measure == "few" and self.graph.levels is None:
            metric = self.graph.metric
            return _Aim(*min([metric.nearest(goal, starts) for goal in goals]))
        to = _zero if self.measure == "quick" else graph_to(self.graph, goals)
        return min([_Aim(self._offset(switch) + to(switch), switch) for switch in starts])

    def _may_be_nearer(self, starts: Sequence[int], goals: Ends, cost: float) -> bool:
        """Whether a way from any of some switches could cost less; told without the distances."""
        if self.measure != "few" or self.graph.levels is not None or cost == inf:
            return True
        if cost < 1:
            return False
        balls = self.graph.balls.of(int(cost) - 1)
        if balls is None:
            return True
        there = bitmap(starts)
        return any(balls[goal] & there for goal in goals)

    def _root_offers(self, goals: Ends) -> dict[int, float]:
        """Return the least cost of a way from the root itself, by the switch that it begins at."""
        if self.flip and self.single and (self.branches or self.trunk):
            return {}
        ns = self.graph.ns
        ports = self._root_ports()
        if self.measure == "quick":
            return {switch: ns[arc] for switch, arc in ports.items() if switch not in self.tree}
        to = graph_to(self.graph, goals)
        return {switch: 1 + to(switch) for switch in ports if switch not in self.tree}

    def _offset(self, switch: int) -> int:
        if self.measure == "few":
            return 0
        return self.tree[switch][self.measure == "quick"]

    def _offers(self, goals: Ends) -> dict[int, float]:
        """Return where a way could start: switch -> the least that it can cost from there."""
        to = _zero if self.measure == "quick" else graph_to(self.graph, goals)
        found: dict[int, float] = {s: self._offset(s) + to(s) for s in self.tree}
        return found | self._root_offers(goals)

    def _root_ports(self) -> dict[int, int]:
        if self.flip:  # streams that come take lanes of the ports
            return beside(self.graph, self.root, self.lanes, leaving=False)
        if self._at_root is None:
            self._at_root = beside(self.graph, self.root, self.lanes, leaving=True)
        used = self._ports_used
        return {s: arc for s, arc in self._at_root.items() if arc not in used}

    # -- one way

    def _hunt(self, goals: Ends, aim: _Aim) -> _Found | None:
        """Return the cheapest way from the tree or the root to any goal.

        Args:
            goals: Switches at an end, each with the arc of its port, or -1 where there is none.
            aim: The least that it can cost, and from where that would be.

        Source: Hart, Nilsson and Raphael, "A formal basis for the heuristic determination of
        minimum cost paths", 1968.
        """
        if self.measure == "quick":
            return self._hunt_quick(goals)
        if aim.cost == inf:
            return None
        straight = self._straight(goals, aim)
        if straight is not None:
            return straight
        near, free, flip, lanes = self.graph.near, self.graph.free, self.flip, self.lanes
        to = graph_to(self.graph, goals)
        depth: dict[int, float] = {}
        came: dict[int, tuple[int, int]] = {}
        stacks: dict[float, list[int]] = {}
        for switch, cost in self._offers(goals).items():
            depth[switch] = cost - to(switch)
            stacks.setdefault(cost, []).append(switch)
        done: set[int] = set()
        while stacks:
            cost = min(stacks)
            stack = stacks[cost]
            while stack:
                here = stack.pop()
                if here in done:
                    continue
                if here in goals:
                    return self._traced(cost, here, came, goals)
                done.add(here)
                far = depth[here] + 1
                for other, out in near[here]:
                    if other in done or free[out ^ flip].bit_count() < lanes:
                        continue
                    # Never of the tree: what is free was free when it grew, so no way there is shorter.
                    if far < depth.get(other, inf):
                        depth[other] = far
                        came[other] = (here, out ^ flip)
                        stacks.setdefault(far + to(other), []).append(other)
            del stacks[cost]
        return None

    def _straight(self, goals: Ends, aim: _Aim) -> _Found | None:
        """Return a way on which every link comes nearer, from where that can be, on a grid."""
        graph, tree = self.graph, self.tree
        if graph.grid is None or not graph.grid.simple or len(goals) != 1:
            return None
        (goal,) = goals
        cost, start = aim
        if start == goal:
            return self._whole(cost, start, [], goals[goal])
        ends = (goal, start) if self.flip else (start, goal)
        arcs = graph.grid.straight(graph.free, *ends, self.lanes)
        beyond = graph.tails if self.flip else graph.heads
        if arcs is None or not tree.keys().isdisjoint([beyond[arc] for arc in arcs]):
            return None
        if self.flip:
            arcs.reverse()
        return self._whole(cost, start, arcs, goals[goal])

    def _hunt_quick(self, goals: Ends) -> _Found | None:
        """Do the same by nanoseconds, which no bound is known of."""
        near, free, flip, lanes = self.graph.near, self.graph.free, self.flip, self.lanes
        ns = self.graph.ns
        best = self._offers(goals)
        came: dict[int, tuple[int, int]] = {}
        heap = [(cost, switch) for switch, cost in best.items()]
        heapify(heap)
        done: set[int] = set()
        reached: tuple[float, int] | None = None
        while heap:
            cost, here = heappop(heap)
            if reached is not None and cost >= reached[0]:
                break
            if here in done:
                continue
            done.add(here)
            if here in goals:
                port = goals[here]
                end = (cost + (ns[port] if port >= 0 else 0), here)
                reached = end if reached is None else min(reached, end)
            for other, out in near[here]:
                arc = out ^ flip
                if other in done or free[arc].bit_count() < lanes:
                    continue
                total = cost + ns[arc]
                if total < best.get(other, inf):
                    best[other] = total
                    came[other] = (here, arc)
                    heappush(heap, (total, other))
        if reached is None:
            return None
        return self._traced(reached[0], reached[1], came, goals)

    def _traced(
        self, cost: float, goal: int, came: Mapping[int, tuple[int, int]], goals: Ends
    ) -> _Found:
        arcs: list[int] = []
        here = goal
        while here in came:
            here, arc = came[here]
            arcs.append(arc)
        arcs.reverse()
        return self._whole(cost, here, arcs, goals[goal])

    def _whole(self, cost: float, start: int, arcs: list[int], port: int) -> _Found:
        """Add the ports at both ends to arcs between switches."""
        if port >= 0:
            arcs = [*arcs, port]
        if start in self.tree:
            return _Found(cost, start, arcs)
        return _Found(cost, NO_SWITCH, [self._root_ports()[start], *arcs])

    # -- what has grown

    def _commit(self, end: str, found: _Found, goals: Ends) -> list[int]:
        """Add a way; return the switches where branches may start now."""
        fresh = self._cross(found.start, found.arcs)
        hops, ns = self.tree.get(found.start, (0, 0)) if found.start >= 0 else (0, 0)
        arcs = tuple(reversed(found.arcs)) if self.flip else tuple(found.arcs)
        ns += sum([self.graph.ns[arc] for arc in arcs])
        self.branches.append(Branch(end, arcs, found.start, hops + len(arcs), ns))
        return fresh

    def _cross(self, start: int, arcs: Sequence[int]) -> list[int]:
        """Note the switches of a way, and that its lanes are not to be had again."""
        graph, flip = self.graph, self.flip
        beyond = graph.tails if flip else graph.heads
        hops, ns = self.tree[start] if start >= 0 else (0, 0)
        fresh: list[int] = []
        if start < 0:
            self._ports_used.add(arcs[0])
        for arc in arcs:
            hops, ns = hops + 1, ns + graph.ns[arc]
            switch = beyond[arc]
            if flip:
                graph.take(arc, graph.pick(arc, self.lanes))
            if switch < 0:
                continue
            self.parts &= switch not in self._crossed
            self._crossed.add(switch)
            if self.merges is None or self.merges(switch):
                self.tree[switch] = (hops, ns)
                fresh.append(switch)
        return fresh

    def within(self, bounds: Constraints) -> Grown | None:
        """Return what has grown, made smaller where that can be, or None where it breaks a bound."""
        if self.trunk:
            self._stem()
        plain = Grown(tuple(self.branches), _merging(self.branches, self.flip))
        # In a fabric of levels growth has the fewest links, or next to.
        if self.measure == "few" and self.parts and self.graph.levels is None:
            smaller = exchanged(self.graph, self.branches, self.lanes, self.flip, self.merges)
            if smaller is not None and _keeps(smaller, bounds):
                return Grown(tuple(smaller), _merging(smaller, self.flip))
        return plain if _keeps(plain.branches, bounds) else None

    def _stem(self) -> None:
        """Make the way to a hub a part of the first branch that starts where it is last used."""
        graph = self.graph
        ways = [graph.tails[arc] for arc in self.trunk]  # it is the way of a stream to the root
        used = [ways.index(b.start) for b in self.branches if b.start in ways]
        last = max(used, default=-1)
        if last < 0:
            return
        number = next(n for n, b in enumerate(self.branches) if b.start == ways[last])
        first = self.branches.pop(number)
        stem = tuple(reversed(self.trunk[: last + 1]))
        self.branches.insert(0, first._replace(arcs=(*first.arcs, *stem), start=NO_SWITCH))


def _merging(branches: Sequence[Branch], flip: Flip) -> tuple[int, ...]:
    """Return the switches at which branches start, where that is to merge."""
    if not flip:
        return ()
    return tuple(dict.fromkeys(branch.start for branch in branches if branch.start >= 0))


def _keeps(branches: Iterable[Branch], bounds: Constraints) -> bool:
    return all(
        (not bounds.max_hops or branch.hops <= bounds.max_hops)
        and (not bounds.max_latency_ns or branch.ns <= bounds.max_latency_ns)
        for branch in branches
    )


def _metric_at(graph: Graph, goal: int) -> Grid | Landmarks | Levels:
    """Return what knows best how far a switch is."""
    levels = graph.levels
    return graph.metric if levels is None or levels.pod[goal] < 0 else levels


def _zero(_: int) -> int:
    return 0


def graph_to(graph: Graph, goals: Collection[int]) -> Callable[[int], int]:
    """Return the bound to the nearest of some switches as a function of another."""
    towards = [_metric_at(graph, goal).to(goal) for goal in goals]
    if len(towards) == 1:
        return towards[0]
    return lambda switch: min([to(switch) for to in towards])
