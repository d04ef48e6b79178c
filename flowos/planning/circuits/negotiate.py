"""Which ways do circuits take that are in each other's way, where no order of choosing helps?

All choose at once, as if they could share lanes; then what too many want costs more, from round
to round, and those that have another way give way, until no lane is wanted twice.

Source: McMurchie and Ebeling, "PathFinder: a negotiation-based performance-driven router for
FPGAs", FPGA 1995.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from typing import Final, NamedTuple

from flowos.model.slice import Constraints
from flowos.planning.circuits.graph import NO_SWITCH, Graph
from flowos.planning.circuits.ways import direct

_ROUNDS: Final = 60  # most that agree at all do within ten
_PATIENCE: Final = 20  # rounds without a lane less in dispute
_PRESENT: Final = 1.0  # what a lane too many costs now, in links
_PAST: Final = 0.2  # what a dispute adds for good
STEPS_MAX: Final = 40_000  # for one plan: 60 ms. All that agree in small cells need a tenth of it.


class Effort:
    """How much a plan may still negotiate; all its tries draw on one.

    Attributes:
        steps: Switches that may still be looked at; each costs 1 to 2 us.
    """

    __slots__ = ("steps",)

    def __init__(self, steps: int = STEPS_MAX) -> None:
        self.steps = steps


class Net(NamedTuple):
    """One end that is to be joined to another, so many lanes wide."""

    source: str
    target: str
    lanes: int


def negotiate(
    graph: Graph, nets: Sequence[Net], bounds: Constraints, effort: Effort | None = None
) -> list[list[int]] | None:
    """Return arcs for every net so that no arc is given more lanes away than are free.

    Args:
        graph: What is free for all of them together.
        nets: In any order; the answer is in the same.
        bounds: On each way's links and latency.
        effort: What is left of it, and is used up here.

    Returns:
        None where no agreement was reached, which is no proof that there is none. Ways may be
        longer than the shortest: that is the price of the agreement.
    """
    bargain = _Bargain(graph, bounds, effort or Effort())
    ways: list[list[int]] = []
    for net in nets:
        way = bargain.way(net)
        if way is None:
            return None
        bargain.want(way, net.lanes)
        ways.append(way)
    least, patience = bargain.disputed(), _PATIENCE
    for _ in range(_ROUNDS):
        if not least:
            return ways
        bargain.remember()
        for number, net in enumerate(nets):
            if not bargain.is_disputed(ways[number]):
                continue
            bargain.want(ways[number], -net.lanes)
            way = bargain.way(net)
            if way is None:
                return None
            bargain.want(way, net.lanes)
            ways[number] = way
        now = bargain.disputed()
        patience = _PATIENCE if now < least else patience - 1
        least = min(least, now)
        if not now:
            return ways
        if not patience:
            return None
    return None


class _Bargain:
    """Who wants how much of each arc, and what that has cost so far."""

    def __init__(self, graph: Graph, bounds: Constraints, effort: Effort) -> None:
        self._graph = graph
        self._effort = effort
        self._bounds = bounds
        self._wanted: Counter[int] = Counter()
        self._past: Counter[int] = Counter()
        self._turn = 0

    def want(self, way: Sequence[int], lanes: int) -> None:
        for arc in way:
            self._wanted[arc] += lanes

    def _over(self, arc: int) -> int:
        return max(0, self._wanted[arc] - self._graph.free[arc].bit_count())

    def is_disputed(self, way: Sequence[int]) -> bool:
        return any(self._over(arc) for arc in way)

    def disputed(self) -> int:
        """Return how many lanes are wanted beyond those there are."""
        return sum(self._over(arc) for arc in self._wanted)

    def remember(self) -> None:
        """End a round: what is in dispute gets dearer for good."""
        self._turn += 1
        for arc in self._wanted:
            over = self._over(arc)
            if over:
                self._past[arc] += over

    def cost(self, arc: int, lanes: int) -> float:
        """Return what an arc costs one who wants so many lanes of it, at least 1."""
        over = self._wanted[arc] + lanes - self._graph.free[arc].bit_count()
        past = 1.0 + _PAST * self._past[arc]
        return past * (1.0 + _PRESENT * self._turn * over) if over > 0 else past

    def way(self, net: Net) -> list[int] | None:
        """Return the cheapest way within the bounds, whoever else wants its lanes.

        None where there is none, or the effort is spent.
        """
        graph, lanes = self._graph, net.lanes
        goals = self._at(net.target, lanes, leaving=False)
        starts = self._at(net.source, lanes, leaving=True) if goals else {}
        left = _left(graph, list(goals))
        heap: list[tuple[float, int, float, int, int, int, int]] = []
        # A longer way may be cheaper, and a bound then forbid it: so ways to one switch that
        # are of different length are kept apart, where there are bounds.
        bound = self._bounds
        narrow = bool(bound.max_hops or bound.max_latency_ns)
        came: list[tuple[int, int]] = []  # (entry it came from, arc)
        done: set[tuple[int, int]] = set()

        def push(cost: float, hops: int, ns: int, switch: int, entry: int, arc: int) -> None:
            if bound.max_hops and hops + left(switch) + 1 > bound.max_hops:
                return
            if bound.max_latency_ns and ns > bound.max_latency_ns:
                return
            came.append((entry, arc))
            heappush(heap, (cost + left(switch), hops, cost, ns, switch, len(came) - 1, arc))

        for switch, arc in starts.items():
            push(self.cost(arc, lanes), 1, graph.ns[arc], switch, -1, arc)
        for arc in direct(graph, net.source, (net.target,), lanes) or ():
            came.append((-1, arc))
            price = self.cost(arc, lanes)
            heappush(heap, (price, 1, price, graph.ns[arc], NO_SWITCH, len(came) - 1, arc))
        while heap and self._effort.steps > 0:
            _, hops, cost, ns, here, entry, arc = heappop(heap)
            self._effort.steps -= 1 + len(graph.near[here]) if here != NO_SWITCH else 1
            if here == NO_SWITCH:
                return _unwound(came, entry)
            key = (here, hops if narrow else 0)
            if key in done:
                continue
            done.add(key)
            if here in goals:
                last = goals[here]
                whole = ns + graph.ns[last]
                fits = not bound.max_latency_ns or whole <= bound.max_latency_ns
                if fits and not (bound.max_hops and hops + 1 > bound.max_hops):
                    came.append((entry, last))
                    total = cost + self.cost(last, lanes)
                    heappush(heap, (total, hops + 1, total, whole, NO_SWITCH, len(came) - 1, last))
            for other, out in graph.near[here]:
                if graph.free[out].bit_count() >= lanes and other != graph.tails[arc]:
                    price = cost + self.cost(out, lanes)
                    push(price, hops + 1, ns + graph.ns[out], other, entry, out)
        return None

    def _at(self, end: str, lanes: int, *, leaving: bool) -> dict[int, int]:
        """Return the switches at an end, each with the arc that costs least there."""
        found: dict[int, int] = {}
        for port in self._graph.ports(end):
            arc = port.out if leaving else port.into
            if port.switch == NO_SWITCH or self._graph.free[arc].bit_count() < lanes:
                continue
            old = found.get(port.switch)
            if old is None or self.cost(arc, lanes) < self.cost(old, lanes):
                found[port.switch] = arc
        return found


def _left(graph: Graph, goals: Sequence[int]) -> Callable[[int], int]:
    towards = [graph.metric.to(goal) for goal in goals] or [lambda _: 0]
    return towards[0] if len(towards) == 1 else lambda s: min([to(s) for to in towards])


def _unwound(came: Sequence[tuple[int, int]], entry: int) -> list[int]:
    arcs: list[int] = []
    while entry >= 0:
        entry, arc = came[entry]
        arcs.append(arc)
    return arcs[::-1]
