"""Can a tree that has grown be made smaller, by hanging parts of it elsewhere?"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple, TypeAlias

from flowos.planning.circuits.balls import bitmap
from flowos.planning.circuits.graph import NO_SWITCH, Graph

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


class Shape:
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


def exchanged(
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
    ways = {switch: shape.key_path(switch) for switch in order}
    order.sort(key=lambda s: -len(ways[s]))
    for switch in order:
        path = ways[switch]
        if shape.up is not before:
            if switch not in shape.up or not shape.is_key(switch) or shape.up[switch][0] < 0:
                continue
            path = shape.key_path(switch)
        if len(path) == 1:
            continue
        up = _rehung(graph, shape, path, lanes, flip)
        if up is None:
            continue
        new = Shape(up, shape.held)
        if merges is None or all(merges(s) for s in up if new.streams(s) > 1):
            shape = new
    if shape.up is before:
        return None
    return rebranched(graph, shape, [branch.end for branch in branches], ports, flip)


def _shaped(graph: Graph, branches: Sequence[Branch], flip: Flip) -> tuple[Shape, dict[str, int]]:
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
    return Shape(up, held), ports


def _rehung(graph: Graph, shape: Shape, path: Sequence[int], lanes: int, flip: Flip) -> Up | None:
    """Return the tree with a key path replaced by one of fewer links, or None."""
    switch = path[0]
    part = shape.subtree(switch)
    gone = {*part, *path}
    rest = [s for s in shape.up if s not in gone]
    balls = graph.balls.of(len(path) - 1)
    if balls is not None:
        there = bitmap(rest)
        if not any(balls[s] & there for s in part):
            return None  # as most often: it is quicker than to ask how far they are apart
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


def rebranched(
    graph: Graph, shape: Shape, ends: Sequence[str], ports: Mapping[str, int], flip: Flip
) -> list[Branch]:
    """Return a tree branch by branch, the ends in their order."""
    at = graph.tails if not flip else graph.heads
    seen: dict[int, tuple[int, int]] = {NO_SWITCH: (0, 0)}
    found: list[Branch] = []
    for end in ends:
        port = ports[end]
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
        found.append(Branch(end, away, here, hops + 1, ns + graph.ns[port]))
    return found
