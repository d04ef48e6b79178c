"""Which lanes carry a slice's circuits from port to port?

Ways are the shortest in links, then in latency, then the least used. Circuits are routed one after
the other on what the earlier ones left, so an unlucky order can fail where another succeeds:
then the one that failed goes first, a few times, before the answer is no.
"""

import heapq
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Final, NamedTuple, TypeAlias

from flowos.model.cell import Link
from flowos.model.placement import Arc, Circuit
from flowos.model.slice import CircuitWish, Constraints, Shape
from flowos.model.units import lane_unit
from flowos.planning.chance import shuffled
from flowos.planning.pool import Direction, Pool, Trunk

_ROUNDS: Final = 8  # orders tried; the failed one goes first in each

Lane: TypeAlias = tuple[str, Direction]


class Wish(NamedTuple):
    """One circuit that is wanted, with its number in the slice."""

    number: int
    source: str
    targets: tuple[str, ...]
    lanes: int
    aggregate: str


class Routed(NamedTuple):
    """All circuits, in the order of their numbers, and the lane units that must be claimed."""

    circuits: tuple[Circuit, ...]
    units: tuple[str, ...]


class Blocked(NamedTuple):
    """The circuit that no order found lanes for, and how many others there were room for."""

    wish: Wish
    routed: int
    wanted: int
    why: str


class Port(NamedTuple):
    """A link at an engine or host, seen from there."""

    link: Link
    other: str
    away: Direction
    back: Direction


class Step(NamedTuple):
    """How a switch was reached: latency and use so far, from which switch, over what.

    Seen from the source, the latency counts the switch itself; seen from a target it does not.
    """

    latency_ns: int
    used: int
    hops: int
    previous: str | None
    link: Link
    direction: Direction
    target: str = ""


@dataclass(slots=True)
class Way:
    """Arcs from the source (or a tree that has it) to one target."""

    target: str
    arcs: list[tuple[Link, Direction]]
    latency_ns: int


def wishes_of(circuits: Iterable[CircuitWish], ends: Mapping[str, Sequence[str]]) -> list[Wish]:
    """Return every single circuit that a request asks for.

    Args:
        circuits: The request's wishes.
        ends: Role -> engine ids, or nodes for roles without engines, in rank order.
    """
    found: list[Wish] = []

    def want(wish: CircuitWish, source: str, targets: Iterable[str]) -> None:
        others = tuple(dict.fromkeys(t for t in targets if t != source))
        if others:
            found.append(Wish(len(found), source, others, wish.lanes, wish.aggregate))

    for wish in circuits:
        if wish.shape is Shape.FLOW:
            sources, targets = ends[wish.roles[0]], ends[wish.roles[-1]]
            for source in dict.fromkeys(sources):
                if len(sources) == 1:
                    want(wish, source, targets)
                else:
                    for target in dict.fromkeys(targets):
                        want(wish, source, (target,))
            continue
        members = list(dict.fromkeys(end for role in wish.roles for end in ends[role]))
        if len(members) < 2:
            continue
        match wish.shape:
            case Shape.RING:
                for source, target in zip(members, [*members[1:], members[0]], strict=True):
                    want(wish, source, (target,))
            case Shape.ALL:
                for source in members:
                    for target in members:
                        want(wish, source, (target,))
            case Shape.STAR:
                for other in members[1:]:
                    want(wish, members[0], (other,))
                    want(wish, other, (members[0],))
    return found


def route(
    pool: Pool,
    wishes: Sequence[Wish],
    *,
    whole: Collection[str],
    name: str,
    bounds: Constraints | None = None,
    seed: int = 0,
    avoid: Collection[str] = (),
) -> Routed | Blocked:
    """Find lanes for all circuits, or say which could not be had.

    Args:
        pool: Folded by the caller.
        wishes: From `wishes_of`.
        whole: Engines that the slice holds whole: their ports' lanes come with them.
        name: Circuits are called "<name>/<number>".
        bounds: On every circuit's links and latency.
        seed: Varies the orders that are tried after the first.
        avoid: Units not to use: lanes, links, switches.
    """
    fabric = Fabric(pool, bounds or Constraints(), avoid)
    order = list(wishes)
    first: Blocked | None = None
    for turn in range(_ROUNDS):
        fabric.used.clear()
        done: dict[int, Circuit] = {}
        failed: Wish | None = None
        for wish in order:
            ways = fabric.ways(wish)
            if isinstance(ways, str):
                failed = wish
                first = first or Blocked(wish, len(done), len(wishes), ways)
                break
            done[wish.number] = fabric.lay(wish, ways, name)
        if failed is None:
            circuits = tuple(done[wish.number] for wish in wishes)
            return Routed(circuits, tuple(claimed(pool, circuits, whole)))
        if failed is order[0]:
            break  # it found no way even before the others took theirs
        rest = [wish for wish in order if wish is not failed]
        if turn == 0:
            rest.sort(key=fabric.alone, reverse=True)  # those with the longest way choose first
        elif turn > 2:
            rest = shuffled(rest, seed, turn)
        order = [failed, *rest]
    assert first is not None, "a round without a failure has returned"
    return first


def claimed(pool: Pool, circuits: Iterable[Circuit], whole: Collection[str]) -> Iterable[str]:
    """Yield the lanes that rivals could want: a port of an engine held whole is the slice's."""
    links = pool.view.cell.links
    for circuit in circuits:
        for arc in circuit.arcs:
            link = links[arc.link]
            if link.a_thing not in whole and link.b_thing not in whole:
                for lane in arc.lanes:
                    yield lane_unit(arc.link, arc.direction, lane)


class Fabric:
    """The lanes that one slice could still use while its circuits are laid.

    Attributes:
        used: (link, direction) -> bitmap of lanes in use, by others or by this slice's circuits.
    """

    def __init__(self, pool: Pool, bounds: Constraints, avoid: Collection[str]) -> None:
        self.pool = pool
        self.bounds = bounds
        self.used: dict[Lane, int] = {}
        self._ports: dict[str, list[Port]] = {}
        self._alone: dict[int, int] = {}
        self._shut = pool.shut | {u for u in avoid if u.startswith(("switch/", "link/"))}
        self._spoken = dict(pool.spoken)
        for unit in avoid:
            if unit.startswith("lane/"):
                link, direction, lane = unit[5:].rsplit("/", 2)
                key = (link, direction)
                self._spoken[key] = self._spoken.get(key, 0) | 1 << int(lane)

    # -- lanes

    def taken(self, link: Link, direction: Direction) -> int:
        """Return the bitmap of a link's lanes that are not to be had."""
        key = (link.name, direction)
        found = self.used.get(key)
        if found is None:
            found = self.pool.view.lanes_taken.get(key, 0)
            if self._spoken:
                found |= self._spoken.get(key, 0)
            self.used[key] = found
        return found

    def has(self, link: Link, direction: Direction, lanes: int) -> bool:
        """Whether so many lanes are left."""
        if self._shut and f"link/{link.name}" in self._shut:
            return False
        return link.lanes - self.taken(link, direction).bit_count() >= lanes

    def open(self, switch: str) -> bool:
        """Whether a switch is in service."""
        return not self._shut or f"switch/{switch}" not in self._shut

    def ports(self, end: str) -> list[Port]:
        """Return the links at an engine or a host."""
        found = self._ports.get(end)
        if found is None:
            cell = self.pool.view.cell
            found = self._ports[end] = []
            for name in cell.links_at.get(end, ()):
                link = cell.links[name]
                a, b = link.a_thing, link.b_thing
                if a == end:
                    found.append(Port(link, b, "fwd", "rev"))
                if b == end:
                    found.append(Port(link, a, "rev", "fwd"))
        return found

    def lay(self, wish: Wish, ways: Sequence[Way], name: str) -> Circuit:
        """Take the lanes of a circuit's ways."""
        arcs: list[Arc] = []
        path: dict[str, None] = {wish.source: None}
        for way in ways:
            for link, direction in way.arcs:
                taken = self.taken(link, direction)
                lanes: list[int] = []
                lane = 0
                while len(lanes) < wish.lanes:
                    if not taken >> lane & 1:
                        lanes.append(lane)
                        taken |= 1 << lane
                    lane += 1
                self.used[link.name, direction] = taken
                arcs.append(Arc(link.name, direction, tuple(lanes)))
                path[link.b_thing if direction == "fwd" else link.a_thing] = None
        return Circuit(
            id=f"{name}/{wish.number}",
            source=wish.source,
            targets=wish.targets,
            path=tuple(path),
            arcs=tuple(arcs),
            lanes=wish.lanes,
            latency_ns=max(way.latency_ns for way in ways),
            aggregate=wish.aggregate,
        )

    # -- ways

    def alone(self, wish: Wish) -> int:
        """Return how many links a circuit crosses where no other of the slice is in its way."""
        found = self._alone.get(wish.number)
        if found is None:
            used, self.used = self.used, {}
            ways = self.ways(wish)
            self.used = used
            found = 0 if isinstance(ways, str) else sum(len(way.arcs) for way in ways)
            self._alone[wish.number] = found
        return found

    def ways(self, wish: Wish) -> list[Way] | str:
        """Return the arcs of a circuit on what is left, in order of growth, or why there are none."""
        if len(wish.targets) > 1:
            return self._tree(wish)
        source, target = wish.source, wish.targets[0]
        # Most circuits stay within one switch: they are worth not starting a search for.
        near = self._direct(source, [target], wish.lanes) or self._across(
            source, target, wish.lanes
        )
        if near is not None and self._bounded(len(near.arcs), near.latency_ns):
            return [near]
        goals = self._goals([target], wish.lanes)
        starts = self._starts(source, wish.lanes)
        found = self._shortest(starts, goals, wish.lanes)
        if found is not None and self._bounded(len(found.arcs), found.latency_ns):
            return [found]
        if found is None:
            return f"no {_lanes(wish.lanes)} from {source} to {target}"
        if self.bounds.max_hops and len(found.arcs) > self.bounds.max_hops:
            return (
                f"the shortest free way from {source} to {target} crosses {len(found.arcs)} links, "
                f"at most {self.bounds.max_hops} are allowed"
            )
        quick = self._quick(starts, goals, wish.lanes)
        if quick is not None:
            return [quick]
        return (
            f"no free way from {source} to {target} is as quick as {self.bounds.max_latency_ns} ns, "
            f"the shortest takes {found.latency_ns} ns"
        )

    def _bounded(self, hops: int, latency_ns: int) -> bool:
        bounds = self.bounds
        return not (
            (bounds.max_hops and hops > bounds.max_hops)
            or (bounds.max_latency_ns and latency_ns > bounds.max_latency_ns)
        )

    def _direct(self, source: str, targets: Collection[str], lanes: int) -> Way | None:
        for port in self.ports(source):
            if port.other in targets and self.has(port.link, port.away, lanes):
                return Way(port.other, [(port.link, port.away)], port.link.latency_ns)
        return None

    def _across(self, source: str, target: str, lanes: int) -> Way | None:
        """Return the best way over one switch."""
        best: tuple[int, int] | None = None
        way: Way | None = None
        switches = self.pool.view.cell.switches
        for out in self.ports(source):
            switch = switches.get(out.other)
            if (
                switch is None
                or not self.has(out.link, out.away, lanes)
                or not self.open(out.other)
            ):
                continue
            for into in self.ports(target):
                if into.other == out.other and self.has(into.link, into.back, lanes):
                    latency = out.link.latency_ns + switch.latency_ns + into.link.latency_ns
                    used = self.taken(out.link, out.away).bit_count()
                    cost = (latency, used + self.taken(into.link, into.back).bit_count())
                    if best is None or cost < best:
                        best = cost
                        way = Way(target, [(out.link, out.away), (into.link, into.back)], latency)
        return way

    def _starts(self, source: str, lanes: int) -> dict[str, Step]:
        """Return the switches at a source's ports."""
        return self._beside(source, lanes, leaving=True)

    def _goals(self, targets: Iterable[str], lanes: int) -> dict[str, Step]:
        """Return the switches at the targets' ports, each with the target it is nearest to."""
        found: dict[str, Step] = {}
        for target in targets:
            for switch, step in self._beside(target, lanes, leaving=False).items():
                old = found.get(switch)
                if old is None or step[:2] < old[:2]:
                    found[switch] = step
        return found

    def _beside(self, end: str, lanes: int, *, leaving: bool) -> dict[str, Step]:
        switches = self.pool.view.cell.switches
        found: dict[str, Step] = {}
        for port in self.ports(end):
            direction = port.away if leaving else port.back
            switch = switches.get(port.other)
            if switch is None or not self.has(port.link, direction, lanes):
                continue
            if not self.open(port.other):
                continue
            latency = port.link.latency_ns + (switch.latency_ns if leaving else 0)
            used = self.taken(port.link, direction).bit_count()
            step = Step(latency, used, 1, None, port.link, direction, "" if leaving else end)
            old = found.get(port.other)
            if old is None or step[:2] < old[:2]:
                found[port.other] = step
        return found

    def _shortest(
        self, starts: Mapping[str, Step], goals: Mapping[str, Step], lanes: int
    ) -> Way | None:
        """The fewest links, then the least latency, then the least used, by search from both ends.

        Whole layers are added to the smaller side; where they first meet lies every shortest way,
        and each side knows its best way to each switch of its last layer.
        """
        ahead, behind = dict(starts), dict(goals)
        front, rear = list(ahead), list(behind)
        met = [switch for switch in front if switch in behind]
        while front and rear and not met:
            if len(front) <= len(rear):
                front = self._widen(ahead, front, lanes, leaving=True)
                met = [switch for switch in front if switch in behind]
            else:
                rear = self._widen(behind, rear, lanes, leaving=False)
                met = [switch for switch in rear if switch in ahead]
        if not met:
            return None
        best = min(met, key=lambda s: (_sum(ahead[s], behind[s]), s))
        return _join(ahead, behind, best)

    def _widen(
        self, seen: dict[str, Step], front: Iterable[str], lanes: int, *, leaving: bool
    ) -> list[str]:
        layer: dict[str, Step] = {}
        for here in front:
            latency, used, hops, _, _, _, target = seen[here]
            if not leaving:
                latency += self.pool.view.cell.switches[here].latency_ns
            for trunk in self.pool.trunks.get(here, ()):
                if trunk.other in seen:
                    continue
                step = self._over(trunk, here, latency, used, hops, lanes, target, leaving=leaving)
                if step is None:
                    continue
                old = layer.get(trunk.other)
                if old is None or step[:2] < old[:2]:
                    layer[trunk.other] = step
        seen.update(layer)
        return list(layer)

    def _over(
        self,
        trunk: Trunk,
        here: str,
        latency: int,
        used: int,
        hops: int,
        lanes: int,
        target: str = "",
        *,
        leaving: bool,
    ) -> Step | None:
        link = trunk.link
        direction = trunk.away if leaving else trunk.back
        if not self.has(link, direction, lanes) or not self.open(trunk.other):
            return None
        latency += link.latency_ns
        if leaving:
            latency += self.pool.view.cell.switches[trunk.other].latency_ns
        used += self.taken(link, direction).bit_count()
        return Step(latency, used, hops + 1, here, link, direction, target)

    def _quick(
        self, starts: Mapping[str, Step], goals: Mapping[str, Step], lanes: int
    ) -> Way | None:
        """The fewest links among the ways within both bounds: the least latency for each length."""
        layers: list[dict[str, Step]] = [dict(starts)]
        least = {switch: step.latency_ns for switch, step in starts.items()}
        hops_max = self.bounds.max_hops or len(self.pool.trunks) + 1
        for hops in range(2, hops_max + 1):
            reached = layers[-1]
            fits = [(reached[s].latency_ns + goals[s].latency_ns, s) for s in reached if s in goals]
            if fits and min(fits)[0] <= self.bounds.max_latency_ns:
                return _unroll(layers, goals, min(fits)[1])
            layer: dict[str, Step] = {}
            for here, step in reached.items():
                for trunk in self.pool.trunks.get(here, ()):
                    new = self._over(trunk, here, step.latency_ns, 0, hops, lanes, leaving=True)
                    if new is None or new.latency_ns > self.bounds.max_latency_ns:
                        continue
                    if new.latency_ns < least.get(trunk.other, new.latency_ns + 1):
                        least[trunk.other] = new.latency_ns
                        layer[trunk.other] = new
            if not layer:
                return None
            layers.append(layer)
        return None

    # -- trees

    def _tree(self, wish: Wish) -> list[Way] | str:
        """A tree to all targets, each next one the nearest to what has grown so far.

        Source: Takahashi and Matsuyama, "An approximate solution for the Steiner problem in
        graphs", 1980. Where that breaks a bound, a tree of shortest or of quickest ways.
        """
        grown = self._grow(wish)
        if isinstance(grown, str):
            return grown
        if all(self._bounded(hops, way.latency_ns) for hops, way in grown):
            return [way for _, way in grown]
        for quickest in (False, True):
            fanned = self._fan(wish, quickest=quickest)
            if fanned is not None and all(self._bounded(h, w.latency_ns) for h, w in fanned):
                return [way for _, way in fanned]
        return (
            f"no free tree from {wish.source} to {len(wish.targets)} targets keeps within "
            f"{_bounds(self.bounds)}"
        )

    def _grow(self, wish: Wish) -> list[tuple[int, Way]] | str:
        left = dict.fromkeys(wish.targets)
        # Each switch of the tree with its distance from the source; at first only those beside it.
        tree: dict[str, Step] = {}
        ways: list[tuple[int, Way]] = []
        while left:
            way = self._direct(wish.source, left, wish.lanes)
            if way is not None:
                hops = 1
            else:
                goals = self._goals(left, wish.lanes)
                # A second port of the source may be nearer than the tree.
                beside = self._starts(wish.source, wish.lanes)
                found = self._nearest(tree, beside, goals, wish.lanes)
                if found is None:
                    return (
                        f"no {_lanes(wish.lanes)} from {wish.source} or the tree to "
                        f"{next(iter(left))}"
                    )
                way, hops = found
                self._join_tree(tree, way, hops)
            del left[way.target]
            ways.append((hops, way))
        return ways

    def _nearest(
        self,
        tree: Mapping[str, Step],
        beside: Mapping[str, Step],
        goals: Mapping[str, Step],
        lanes: int,
    ) -> tuple[Way, int] | None:
        """Return the way that adds the fewest links to a tree, and the target's distance."""
        inside = self._shortest(tree, goals, lanes) if tree else None
        fresh = {switch: step for switch, step in beside.items() if switch not in tree}
        outside = self._shortest(fresh, goals, lanes) if fresh else None
        if outside is not None:
            cut = next((n for n, arc in enumerate(outside.arcs) if _head(arc) in tree), None)
            if cut is not None:
                outside = None  # it only leads into the tree, which `inside` knows better
        if inside is None and outside is None:
            return None
        if outside is not None and (inside is None or len(outside.arcs) < len(inside.arcs) - 1):
            return outside, len(outside.arcs)
        assert inside is not None, "one of the two was found"
        # The tree's own last arc stands first: it is there already.
        root = _head(inside.arcs[0])
        added = Way(inside.target, inside.arcs[1:], inside.latency_ns)
        return added, tree[root].hops + len(added.arcs)

    def _join_tree(self, tree: dict[str, Step], way: Way, hops: int) -> None:
        """Note the new switches of a tree, each with its links and latency from the source."""
        switches = self.pool.view.cell.switches
        depth = hops - len(way.arcs)
        tail = _tail(way.arcs[0])
        latency = tree[tail].latency_ns if tail in tree else 0
        for link, direction in way.arcs:
            depth += 1
            latency += link.latency_ns
            head = _head((link, direction))
            if head in switches:
                latency += switches[head].latency_ns
                tree.setdefault(head, Step(latency, 0, depth, None, link, direction))

    def _fan(self, wish: Wish, *, quickest: bool) -> list[tuple[int, Way]] | None:
        """The shortest, or the quickest, way to every target, all out of one tree."""
        switches = self.pool.view.cell.switches
        goals = {target: self._goals([target], wish.lanes) for target in wish.targets}
        done: dict[str, Step] = {}
        turn = count()
        heap: list[tuple[tuple[int, int, int], int, str, Step]] = []

        def push(switch: str, step: Step) -> None:
            cost = (step.hops, step.latency_ns) if not quickest else (step.latency_ns, step.hops)
            heapq.heappush(heap, ((*cost, step.used), next(turn), switch, step))

        for switch, step in self._starts(wish.source, wish.lanes).items():
            push(switch, step)
        while heap:
            _, _, here, step = heapq.heappop(heap)
            if here in done:
                continue
            done[here] = step
            for trunk in self.pool.trunks.get(here, ()):
                if trunk.other not in done and trunk.other in switches:
                    new = self._over(
                        trunk, here, step.latency_ns, step.used, step.hops, wish.lanes, leaving=True
                    )
                    if new is not None:
                        push(trunk.other, new)
        ways: list[tuple[int, Way]] = []
        grown: set[str] = set()
        for target in wish.targets:
            direct = self._direct(wish.source, [target], wish.lanes)
            if direct is not None:
                ways.append((1, direct))
                continue
            ends = [
                (done[s].hops, done[s].latency_ns + goal.latency_ns, s)
                for s, goal in goals[target].items()
                if s in done
            ]
            if not ends:
                return None
            hops, latency, switch = min(
                ends, key=lambda end: (end[1], end[0], end[2]) if quickest else end
            )
            last = goals[target][switch]
            arcs = [(last.link, last.direction)]
            here_: str | None = switch
            while here_ is not None and here_ not in grown:
                grown.add(here_)
                arcs.append((done[here_].link, done[here_].direction))
                here_ = done[here_].previous
            ways.append((hops + 1, Way(target, arcs[::-1], latency)))
        return ways


def _join(ahead: Mapping[str, Step], behind: Mapping[str, Step], meeting: str) -> Way:
    arcs: list[tuple[Link, Direction]] = []
    here: str | None = meeting
    while here is not None:
        step = ahead[here]
        arcs.append((step.link, step.direction))
        here = step.previous
    arcs.reverse()
    here = meeting
    while here is not None:
        step = behind[here]
        arcs.append((step.link, step.direction))
        here = step.previous
    total = ahead[meeting].latency_ns + behind[meeting].latency_ns
    return Way(behind[meeting].target, arcs, total)


def _unroll(layers: Sequence[Mapping[str, Step]], goals: Mapping[str, Step], switch: str) -> Way:
    last = goals[switch]
    arcs = [(last.link, last.direction)]
    total = last.latency_ns + layers[-1][switch].latency_ns
    here: str | None = switch
    for layer in reversed(layers):
        assert here is not None, "every layer but the first has one before it"
        step = layer[here]
        arcs.append((step.link, step.direction))
        here = step.previous
    return Way(last.target, arcs[::-1], total)


def _sum(ahead: Step, behind: Step) -> tuple[int, int]:
    return ahead.latency_ns + behind.latency_ns, ahead.used + behind.used


def _head(arc: tuple[Link, Direction]) -> str:
    link, direction = arc
    return link.b_thing if direction == "fwd" else link.a_thing


def _tail(arc: tuple[Link, Direction]) -> str:
    link, direction = arc
    return link.a_thing if direction == "fwd" else link.b_thing


def _lanes(lanes: int) -> str:
    return (
        "way with a free lane on each link"
        if lanes == 1
        else f"way with {lanes} free lanes on each link"
    )


def _bounds(bounds: Constraints) -> str:
    parts = []
    if bounds.max_hops:
        parts.append(f"{bounds.max_hops} links")
    if bounds.max_latency_ns:
        parts.append(f"{bounds.max_latency_ns} ns")
    return " and ".join(parts)
