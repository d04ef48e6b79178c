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
from flowos.planning.graph import NO_SWITCH, Graph
from flowos.planning.ways import Ends, beside, direct, lanes_wanted, way

_HUBS: Final = 4  # switches that could merge, and are tried one by one where growth meets none

Flip: TypeAlias = Literal[0, 1]  # arc ^ flip: the stream's arc, where the tree grows along an arc
Merges: TypeAlias = Callable[[int], bool]  # whether a switch can make streams one
Up: TypeAlias = dict[int, tuple[int, int]]  # switch -> (the one nearer the root, stream's arc)


class Branch(NamedTuple):
    """What one end adds to a tree.

    Attributes:
        arcs: In the direction of the stream: from the tree to a target, or from a source to it.
        start: The switch of the tree that it starts at; `NO_SWITCH` = the root.
        hops: Links between the root and the end, over the tree.
        ns: Latency between them.
    """

    end: str
    arcs: tuple[int, ...]
    start: int
    hops: int
    ns: int


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
        if not starts:
            return _Aim(inf, NO_SWITCH)
        if self.measure == "few":
            metric = self.graph.metric
            return _Aim(*min([metric.nearest(goal, starts) for goal in goals]))
        to = _zero if self.measure == "quick" else graph_to(self.graph, goals)
        return min([_Aim(self._offset(switch) + to(switch), switch) for switch in starts])

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
        ports = beside(self.graph, self.root, self.lanes, leaving=not self.flip)
        return {s: arc for s, arc in ports.items() if self.flip or arc not in self._ports_used}

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
        tree = self.tree
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
                    if other in done or other in tree or free[out ^ flip].bit_count() < lanes:
                        continue
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
        if arcs is None or any(beyond[arc] in tree for arc in arcs):
            return None
        if self.flip:
            arcs.reverse()
        return self._whole(cost, start, arcs, goals[goal])

    def _hunt_quick(self, goals: Ends) -> _Found | None:
        """Do the same by nanoseconds, which no bound is known of."""
        near, free, flip, lanes = self.graph.near, self.graph.free, self.flip, self.lanes
        ns, tree = self.graph.ns, self.tree
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
                if other in done or other in tree or free[arc].bit_count() < lanes:
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
        ns += sum(self.graph.ns[arc] for arc in arcs)
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
        plain = Grown(tuple(self.branches), self._merging(self.branches))
        if self.measure == "few" and self.parts:
            smaller = _exchanged(self.graph, self.branches, self.lanes, self.flip, self.merges)
            if smaller is not None and _keeps(smaller, bounds):
                return Grown(tuple(smaller), self._merging(smaller))
        return plain if _keeps(plain.branches, bounds) else None

    def _merging(self, branches: Sequence[Branch]) -> tuple[int, ...]:
        if not self.flip:
            return ()
        return tuple(dict.fromkeys(branch.start for branch in branches if branch.start >= 0))

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


def _keeps(branches: Iterable[Branch], bounds: Constraints) -> bool:
    return all(
        (not bounds.max_hops or branch.hops <= bounds.max_hops)
        and (not bounds.max_latency_ns or branch.ns <= bounds.max_latency_ns)
        for branch in branches
    )


def _zero(_: int) -> int:
    return 0


def graph_to(graph: Graph, goals: Collection[int]) -> Callable[[int], int]:
    """Return the bound to the nearest of some switches as a function of another."""
    towards = [graph.metric.to(goal) for goal in goals]
    if len(towards) == 1:
        return towards[0]
    return lambda switch: min([to(switch) for to in towards])


# -- making a tree smaller


class _Shape:
    """A tree of switches whose parts can be hung elsewhere.

    Attributes:
        up: Switch -> the next one towards the root (`NO_SWITCH` = the root), and the stream's arc.
        held: Switches where ends hang.
    """

    def __init__(self, up: Up, held: Mapping[int, int]) -> None:
        self.up = up
        self.held = held
        self.below: dict[int, list[int]] = {switch: [] for switch in up}
        for switch, (above, _) in up.items():
            if above >= 0:
                self.below[above].append(switch)

    def is_key(self, switch: int) -> bool:
        """Whether ends, several branches or the root are at a switch: it cannot go alone."""
        return (
            switch in self.held or len(self.below[switch]) != 1 or self.up[switch][0] == NO_SWITCH
        )

    def key_path(self, switch: int) -> list[int]:
        """Return the switches that go with the way up from a key switch, itself first."""
        path = [switch]
        above = self.up[switch][0]
        while not self.is_key(above):
            path.append(above)
            above = self.up[above][0]
        return path

    def subtree(self, switch: int) -> list[int]:
        """Return a switch and all below it."""
        found = [switch]
        for here in found:
            found.extend(self.below[here])
        return found

    def streams(self, switch: int) -> int:
        """Return how many streams come together at a switch, or part there."""
        return len(self.below[switch]) + self.held.get(switch, 0)


def _exchanged(
    graph: Graph,
    branches: Sequence[Branch],
    lanes: int,
    flip: Flip,
    merges: Merges | None,
) -> list[Branch] | None:
    """Return the tree with each key path replaced where another has fewer links; None = none has.

    A key path is what joins two switches that must stay: without it the tree is in two parts, and
    any free way between these will do. The part that the root is not in may come to hang by
    another of its switches.
    """
    shape, ports = _shaped(graph, branches, flip)
    before = shape.up
    order = [s for s, (above, _) in shape.up.items() if above != NO_SWITCH and shape.is_key(s)]
    order.sort(key=lambda s: -len(shape.key_path(s)))
    for switch in order:
        if switch not in shape.up or not shape.is_key(switch) or shape.up[switch][0] < 0:
            continue
        path = shape.key_path(switch)
        if len(path) == 1:
            continue
        up = _rehung(graph, shape, path, lanes, flip)
        if up is None:
            continue
        new = _Shape(up, shape.held)
        if merges is None or all(merges(s) for s in up if new.streams(s) > 1):
            shape = new
    if shape.up is before:
        return None
    return _rebranched(graph, shape, branches, ports, flip)


def _shaped(graph: Graph, branches: Sequence[Branch], flip: Flip) -> tuple[_Shape, dict[str, int]]:
    """Return a tree by its switches, and the arc of each end's port."""
    up: Up = {}
    held: Counter[int] = Counter()
    ports: dict[str, int] = {}
    near_root = graph.heads if flip else graph.tails
    for branch in branches:
        arcs = branch.arcs[::-1] if flip else branch.arcs  # away from the root
        ports[branch.end] = arcs[-1]
        for arc in arcs[:-1]:
            up[near_root[arc ^ 1]] = (near_root[arc], arc)
        held[near_root[arcs[-1]]] += 1
    return _Shape(up, held), ports


def _rehung(graph: Graph, shape: _Shape, path: Sequence[int], lanes: int, flip: Flip) -> Up | None:
    """Return the tree with a key path replaced by one of fewer links, or None."""
    switch = path[0]
    part = shape.subtree(switch)
    gone = {*part, *path}
    rest = [s for s in shape.up if s not in gone]
    best, hook = graph.metric.gap(part, rest)
    if best >= len(path):
        return None
    arcs = _joined(graph, rest, hook, gone.difference(path[1:]), len(path) - 1, lanes, flip)
    if arcs is None:
        return None
    up = {s: above for s, above in shape.up.items() if s not in path[1:]}
    here = hook
    while here != switch:  # what was its way up leads down now
        above, arc = shape.up[here]
        if graph.free[arc ^ 1].bit_count() < lanes:
            return None
        up[above] = (here, arc ^ 1)
        here = above
    near_root = graph.heads if flip else graph.tails
    for arc in arcs:
        up[near_root[arc ^ 1]] = (near_root[arc], arc)
    return up


def _joined(
    graph: Graph,
    rest: Iterable[int],
    hook: int,
    closed: Collection[int],
    longest: int,
    lanes: int,
    flip: Flip,
) -> list[int] | None:
    """Return the stream's arcs from a part of a tree to a switch, few enough, or None."""
    near, free = graph.near, graph.free
    to = graph.metric.to(hook)
    stacks: list[list[int]] = [[] for _ in range(longest + 1)]
    depth: dict[int, int] = {}
    came: dict[int, tuple[int, int]] = {}
    for switch in rest:
        depth[switch] = 0
        if to(switch) <= longest:
            stacks[to(switch)].append(switch)
    done: set[int] = set()
    for stack in stacks:
        while stack:
            here = stack.pop()
            if here == hook:
                arcs: list[int] = []
                while here in came:
                    here, arc = came[here]
                    arcs.append(arc)
                return arcs[::-1]
            if here in done:
                continue
            done.add(here)
            far = depth[here] + 1
            for other, out in near[here]:
                arc = out ^ flip
                if far >= depth.get(other, longest + 1) or free[arc].bit_count() < lanes:
                    continue
                if other in closed and other != hook:
                    continue
                total = far + to(other)
                if total <= longest:
                    depth[other] = far
                    came[other] = (here, arc)
                    stacks[total].append(other)
    return None


def _rebranched(
    graph: Graph, shape: _Shape, branches: Sequence[Branch], ports: Mapping[str, int], flip: Flip
) -> list[Branch]:
    """Return a tree branch by branch again, the ends in their order."""
    at = graph.tails if not flip else graph.heads
    seen: dict[int, tuple[int, int]] = {NO_SWITCH: (0, 0)}
    found: list[Branch] = []
    for branch in branches:
        port = ports[branch.end]
        arcs = [port]
        crossed: list[tuple[int, int]] = []
        here = at[port]
        while here not in seen:
            above, arc = shape.up[here]
            crossed.append((here, arc))
            arcs.append(arc)
            here = above
        hops, ns = seen[here]
        for switch, arc in reversed(crossed):
            hops, ns = hops + 1, ns + graph.ns[arc]
            seen[switch] = (hops, ns)
        away = tuple(arcs) if flip else tuple(reversed(arcs))
        found.append(Branch(branch.end, away, here, hops + 1, ns + graph.ns[port]))
    return found
