"""Which is the shortest free way from an engine to another?

Shortest in links; of those alike the one of least latency; of those the one over what is least
used, as far as that shows without looking at every way: on a grid of even latency there are too
many. Leaf-spines, fat trees and grids have searches of their own, which find the same as
the general one, sooner.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, NamedTuple, TypeAlias

from flowos.model.slice import Constraints
from flowos.planning.circuits.graph import NO_SWITCH, Graph
from flowos.planning.circuits.landmarks import Landmarks

_PAIRS_MAX: Final = 16  # of switches at both ends, that are tried one by one
_STEPS: Final = 16  # switches that a search looks at before the one from the other end goes on
_NARROW: Final = 8  # links across: two searches by layers meet before they have seen much more

Arcs: TypeAlias = Sequence[int]
Ends: TypeAlias = Mapping[int, int]  # switch -> the arc that joins it with an engine


class Seen(NamedTuple):
    """How a switch was reached: latency and use so far, from which switch, over what arc."""

    ns: int
    used: int
    previous: int
    arc: int


def way(
    graph: Graph, source: str, target: str, lanes: int, bounds: Constraints, turn: int = 0
) -> Arcs | str:
    """Return the arcs of the best free way, or a sentence that says why there is none.

    Args:
        graph: What is free.
        source: An engine, or a node with an attachment port.
        target: Another.
        lanes: How many each link must have left.
        bounds: On links and latency.
        turn: Varies the choice among ways that are alike.
    """
    found: Arcs | None = None
    if not (bounds.max_hops or bounds.max_latency_ns):
        found = _between_leaves(graph, source, target, lanes, turn)
        if found is not None:
            return found
    found = direct(graph, source, (target,), lanes)
    if found is None:
        starts = beside(graph, source, lanes, leaving=True)
        goals = beside(graph, target, lanes, leaving=False)
        found = shortest(graph, starts, goals, lanes, turn)
    if found is None:
        return f"no {lanes_wanted(lanes)} from {source} to {target}"
    if bounds.max_hops and len(found) > bounds.max_hops:
        return (
            f"the shortest free way from {source} to {target} crosses {len(found)} links, "
            f"at most {bounds.max_hops} are allowed"
        )
    latency = latency_of(graph, found)
    if not bounds.max_latency_ns or latency <= bounds.max_latency_ns:
        return found
    starts = beside(graph, source, lanes, leaving=True)
    goals = beside(graph, target, lanes, leaving=False)
    quick = _quick(graph, starts, goals, lanes, bounds)
    return quick or (
        f"no free way from {source} to {target} is as quick as {bounds.max_latency_ns} ns, "
        f"the shortest takes {latency} ns"
    )


def latency_of(graph: Graph, arcs: Iterable[int]) -> int:
    """Return the latency of a way in nanoseconds."""
    ns = graph.ns
    return sum([ns[arc] for arc in arcs])


def lanes_wanted(lanes: int) -> str:
    """Return what is looked for, in words."""
    if lanes == 1:
        return "way with a free lane on each link"
    return f"way with {lanes} free lanes on each link"


# -- at the ends


def direct(graph: Graph, source: str, targets: Collection[str], lanes: int) -> list[int] | None:
    """Return the arc of a cable from an engine right to one of some others."""
    best: tuple[int, int, int] | None = None
    for port in graph.ports(source):
        if (
            port.switch == NO_SWITCH
            and port.other in targets
            and graph.free[port.out].bit_count() >= lanes
        ):
            cost = (graph.ns[port.out], graph.used(port.out), port.out)
            best = cost if best is None else min(best, cost)
    return None if best is None else [best[2]]


def beside(graph: Graph, end: str, lanes: int, *, leaving: bool) -> dict[int, int]:
    """Return the switches at an engine's ports, each with the best arc from or to it."""
    found: dict[int, int] = {}
    free, ns = graph.free, graph.ns
    for port in graph.ports(end):
        arc = port.out if leaving else port.into
        if port.switch == NO_SWITCH or free[arc].bit_count() < lanes:
            continue
        old = found.get(port.switch)
        if old is None or (ns[arc], graph.used(arc)) < (ns[old], graph.used(old)):
            found[port.switch] = arc
    return found


# -- from switch to switch


def shortest(
    graph: Graph, starts: Ends, goals: Ends, lanes: int, turn: int = 0
) -> list[int] | None:
    """Return all arcs of the best way from an end to another, or None where there is no way.

    Args:
        graph: What is free.
        starts: Switches at the source, with the arcs to them.
        goals: Switches at the target, with the arcs from them.
        lanes: How many each link must have left.
        turn: Varies the choice among ways that are alike.
    """
    met = [switch for switch in starts if switch in goals]
    if met:
        best = min(met, key=lambda s: _cost(graph, (starts[s], goals[s]))) if met[1:] else met[0]
        return [starts[best], goals[best]]
    if not starts or not goals:
        return None
    if len(starts) * len(goals) <= _PAIRS_MAX and graph.levels is not None:
        found = _over_levels(graph, starts, goals, lanes, turn)
        if found is not None:
            return found
    if graph.grid is not None and graph.even and graph.grid.simple:
        if len(starts) == len(goals) == 1:
            ((a, out),), ((b, into),) = starts.items(), goals.items()
            if not graph.grid.closed(graph.free, a, b, lanes):
                middle = graph.grid.straight(graph.free, a, b, lanes)
                if middle is not None:
                    return [out, *middle, into]
    elif isinstance(graph.metric, Landmarks) and graph.metric.across <= _NARROW:
        return _by_layers(graph, starts, goals, lanes)
    hunted = _hunt(graph, starts, goals, lanes)
    if hunted is None or graph.even:
        return hunted
    return _of_length(graph, starts, goals, lanes, len(hunted) - 2)


def _cost(graph: Graph, arcs: Iterable[int]) -> tuple[int, int]:
    ns = used = 0
    for arc in arcs:
        ns += graph.ns[arc]
        used += graph.used(arc)
    return ns, used


def _between_leaves(graph: Graph, source: str, target: str, lanes: int, turn: int) -> Arcs | None:
    """Return what `shortest` would, where each end has one port and the words know a way."""
    levels, free = graph.levels, graph.free
    if levels is None:
        return None
    known = graph.known_ports
    outs = known.get(source) or graph.ports(source)
    ends = known.get(target) or graph.ports(target)
    if not len(outs) == 1 == len(ends):
        return None
    ((out, _, a, _),) = outs
    ((_, into, b, _),) = ends
    if a < 0 or b < 0 or a == b:  # at another engine, or at the same switch
        return None
    if free[out].bit_count() < lanes or free[into].bit_count() < lanes:
        return None
    middle = levels.way(a, b, lanes, turn)
    return None if middle is None else (out, *middle, into)


def _over_levels(
    graph: Graph, starts: Ends, goals: Ends, lanes: int, turn: int
) -> list[int] | None:
    levels = graph.levels
    assert levels is not None, "the caller has looked"
    if len(starts) == len(goals) == 1:
        ((a, out),), ((b, into),) = starts.items(), goals.items()
        if not levels.turns_once(a, b):
            return None
        found = levels.way(a, b, lanes, turn)
        return None if found is None else [out, *found, into]
    ways: list[list[int]] = []
    missed = False
    for a, out in starts.items():
        for b, into in goals.items():
            if not levels.turns_once(a, b):
                return None
            found = levels.way(a, b, lanes, turn)
            if found is None:
                missed = True
            else:
                ways.append([out, *found, into])
    if not ways:
        return None
    best = min(ways, key=lambda arcs: (len(arcs), *_cost(graph, arcs)))
    # A pair without such a way may have one of four links, up and down twice.
    return None if missed and len(best) > 4 else best


def _by_layers(graph: Graph, starts: Ends, goals: Ends, lanes: int) -> list[int] | None:
    """Search from both ends.

    Whole layers are added to the smaller side; where they first meet lies every shortest way,
    and each side knows its best way to each switch of its last layer.
    """
    ahead = {s: Seen(*_cost(graph, (arc,)), NO_SWITCH, arc) for s, arc in starts.items()}
    behind = {s: Seen(*_cost(graph, (arc,)), NO_SWITCH, arc) for s, arc in goals.items()}
    front, rear = list(ahead), list(behind)
    met: list[int] = []
    while front and rear and not met:
        if len(front) <= len(rear):
            front = _widen(graph, ahead, front, lanes, 0)
            met = [switch for switch in front if switch in behind]
        else:
            rear = _widen(graph, behind, rear, lanes, 1)
            met = [switch for switch in rear if switch in ahead]
    if not met:
        return None

    def cost(switch: int) -> tuple[int, int, int]:
        one, other = ahead[switch], behind[switch]
        return one.ns + other.ns, one.used + other.used, switch

    best = min(met, key=cost)
    return [*reversed(_back(ahead, best)), *_back(behind, best)]


def _widen(
    graph: Graph, seen: dict[int, Seen], front: Iterable[int], lanes: int, back: int
) -> list[int]:
    """Add the next layer; `back` is 1 where arcs are gone against their direction."""
    near, free, every, latency = graph.near, graph.free, graph.lanes, graph.ns
    layer: dict[int, Seen] = {}
    for here in front:
        ns, used, _, _ = seen[here]
        for other, out in near[here]:
            if other in seen:
                continue
            arc = out ^ back
            left = free[arc].bit_count()
            if left < lanes:
                continue
            step = Seen(ns + latency[arc], used + every[arc] - left, here, arc)
            old = layer.get(other)
            if old is None or step < old:
                layer[other] = step
    seen.update(layer)
    return list(layer)


def _back(seen: Mapping[int, Seen], switch: int) -> list[int]:
    """Return the arcs from a switch back to where a search began."""
    arcs: list[int] = []
    while switch != NO_SWITCH:
        step = seen[switch]
        arcs.append(step.arc)
        switch = step.previous
    return arcs


class _Hunter:
    """A search from one end that looks first where the bound says that the way is shortest.

    Source: Hart, Nilsson and Raphael, "A formal basis for the heuristic determination of minimum
    cost paths", 1968. The bound is consistent, so a switch is looked at once.
    """

    def __init__(
        self, graph: Graph, starts: Iterable[int], goals: Collection[int], lanes: int, back: int
    ) -> None:
        self.graph = graph
        self.goals = goals
        self.lanes = lanes
        self.back = back
        towards = [graph.metric.to(goal) for goal in goals]
        self.left = towards[0] if len(towards) == 1 else lambda s: min([to(s) for to in towards])
        self.came: dict[int, tuple[int, int]] = {}
        self.depth: dict[int, int] = {}
        self.done: set[int] = set()
        self.stacks: dict[int, list[int]] = {}  # links in all, at least -> switches
        for start in starts:
            self.depth[start] = 0
            self.came[start] = (NO_SWITCH, -1)
            self.stacks.setdefault(self.left(start), []).append(start)
        self.found: list[int] | None = None

    def step(self, count: int) -> bool:
        """Look at some more switches; return whether it is over, `found` then has the arcs."""
        near, free, back, lanes = self.graph.near, self.graph.free, self.back, self.lanes
        stacks, done, depth, came, left = self.stacks, self.done, self.depth, self.came, self.left
        while stacks:
            least = min(stacks)
            stack = stacks[least]
            while stack:
                here = stack.pop()
                if here in done:
                    continue
                if here in self.goals:
                    self.found = self._arcs(here)
                    return True
                done.add(here)
                far = depth[here] + 1
                for other, out in near[here]:
                    if other in done or free[out ^ back].bit_count() < lanes:
                        continue
                    old = depth.get(other)
                    if old is None or far < old:
                        depth[other] = far
                        came[other] = (here, out ^ back)
                        stacks.setdefault(far + left(other), []).append(other)
                count -= 1
                # What was found just now may be no farther in all: it is on this very stack.
                if not count:
                    return False
            del stacks[least]
        return True

    def _arcs(self, switch: int) -> list[int]:
        arcs: list[int] = []
        while True:
            switch, arc = self.came[switch]
            if switch == NO_SWITCH:
                return arcs if self.back else arcs[::-1]
            arcs.append(arc)


def _hunt(graph: Graph, starts: Ends, goals: Ends, lanes: int) -> list[int] | None:
    """Search from both ends in turns: where one of them is shut in, that one knows soon."""
    ahead = _Hunter(graph, starts, goals, lanes, 0)
    behind = _Hunter(graph, goals, starts, lanes, 1)
    while True:
        for hunter in (ahead, behind):
            if hunter.step(_STEPS):
                if hunter.found is None:
                    return None
                arcs = hunter.found
                first, last = graph.tails[arcs[0]], graph.heads[arcs[-1]]
                return [starts[first], *arcs, goals[last]]


def _of_length(
    graph: Graph, starts: Ends, goals: Ends, lanes: int, length: int
) -> list[int] | None:
    """Return the way of least latency, then least used, among those of the shortest length.

    It goes layer by layer over the switches that the bound lets be on such a way.
    """
    near, free, every, latency = graph.near, graph.free, graph.lanes, graph.ns
    towards = [graph.metric.to(goal) for goal in goals]
    layers = [{s: Seen(*_cost(graph, (arc,)), NO_SWITCH, arc) for s, arc in starts.items()}]
    for left in range(length - 1, -1, -1):
        layer: dict[int, Seen] = {}
        for here, (ns, used, _, _) in layers[-1].items():
            for other, arc in near[here]:
                rest = free[arc].bit_count()
                if rest < lanes or all(to(other) > left for to in towards):
                    continue
                step = Seen(ns + latency[arc], used + every[arc] - rest, here, arc)
                old = layer.get(other)
                if old is None or step < old:
                    layer[other] = step
        layers.append(layer)
    return _unroll(graph, layers, goals)


def _quick(
    graph: Graph, starts: Ends, goals: Ends, lanes: int, bounds: Constraints
) -> list[int] | None:
    """The fewest links among the ways within both bounds: the least latency for each length."""
    near, free, latency = graph.near, graph.free, graph.ns
    layers = [{s: Seen(latency[arc], 0, NO_SWITCH, arc) for s, arc in starts.items()}]
    least = {switch: step.ns for switch, step in layers[0].items()}
    limit = bounds.max_latency_ns
    for _ in range(2, (bounds.max_hops or len(near) + 1) + 1):
        reached = layers[-1]
        if any(reached[s].ns + latency[goals[s]] <= limit for s in reached if s in goals):
            return _unroll(graph, layers, goals)
        layer: dict[int, Seen] = {}
        for here, step in reached.items():
            for other, arc in near[here]:
                ns = step.ns + latency[arc]
                if ns > limit or free[arc].bit_count() < lanes:
                    continue
                if ns < least.get(other, ns + 1):
                    least[other] = ns
                    layer[other] = Seen(ns, 0, here, arc)
        if not layer:
            return None
        layers.append(layer)
    return None


def _unroll(graph: Graph, layers: Sequence[Mapping[int, Seen]], goals: Ends) -> list[int] | None:
    """Return the best way that ends in the last layer, or None where none does."""
    last = layers[-1]
    ends = [
        (last[s].ns + graph.ns[arc], last[s].used + graph.used(arc), s)
        for s, arc in goals.items()
        if s in last
    ]
    if not ends:
        return None
    switch = min(ends)[2]
    arcs = [goals[switch]]
    for layer in reversed(layers):
        step = layer[switch]
        arcs.append(step.arc)
        switch = step.previous
    return arcs[::-1]
