"""Which lanes carry a slice's circuits from port to port?

Ways are the shortest in links, then in latency, then the least used. Circuits are routed one after
the other on what the earlier ones left, so an unlucky order can fail where another succeeds:
then those with the longest way go first, then the one that failed, then all negotiate, before the
answer is no.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final, NamedTuple, TypeAlias

from flowos.model.placement import Arc, Circuit
from flowos.model.slice import CircuitWish, Constraints, Shape
from flowos.model.units import lane_unit
from flowos.planning.chance import scramble, shuffled
from flowos.planning.circuits.graph import NO_SWITCH
from flowos.planning.circuits.inside import Seating
from flowos.planning.circuits.negotiate import Effort, Net, negotiate
from flowos.planning.circuits.records import circuit_of
from flowos.planning.circuits.shapes import pairs_of
from flowos.planning.circuits.trees import Grown, Mergers, gathered, multicast
from flowos.planning.circuits.ways import way
from flowos.planning.engines.pool import Pool

_ORDERS: Final = 5  # orders tried; the failed one goes first in each
_TURNS: Final = 64  # places from which a choice among ways that are alike can begin

Claim: TypeAlias = tuple[int, int]  # an arc, and the bitmap of lanes that are taken of it


_new: Final = tuple.__new__  # a named tuple's own constructor costs twice as much


class Wish(NamedTuple):
    """One circuit that is wanted, with its number in the slice.

    Attributes:
        sources: Where streams of several are to be aggregated: all of them, `source` first.
    """

    number: int
    source: str
    targets: tuple[str, ...]
    lanes: int
    aggregate: str
    sources: tuple[str, ...] = ()

    @property
    def is_tree(self) -> bool:
        """Whether it has more than two ends."""
        return len(self.targets) > 1 or bool(self.sources)


class Routed(NamedTuple):
    """All circuits, in the order of their numbers, and the lanes and aggregators to be claimed."""

    circuits: tuple[Circuit, ...]
    units: tuple[str, ...]


class Blocked(NamedTuple):
    """The circuit that no order found lanes for, and how many others there were room for."""

    wish: Wish
    routed: int
    wanted: int
    why: str


def wishes_of(
    circuits: Iterable[CircuitWish], ends: Mapping[str, Sequence[str]], first: int = 0
) -> list[Wish]:
    """Return every single circuit that a request asks for.

    Args:
        circuits: The request's wishes.
        ends: Role -> engine ids, or nodes for roles without engines, in rank order.
        first: The number of the first one.

    Raises:
        SpecError: A shape that does not fit the number of ends; `demand_of` has said so before.
    """
    found: list[Wish] = []

    def want(wish: CircuitWish, source: str, targets: Iterable[str]) -> None:
        others = tuple(dict.fromkeys(t for t in targets if t != source))
        if others:
            found.append(Wish(first + len(found), source, others, wish.lanes, wish.aggregate))

    def gather(wish: CircuitWish, pairs: Iterable[tuple[str, str]]) -> None:
        sources: dict[str, dict[str, None]] = {}
        for source, target in pairs:
            sources.setdefault(target, {})[source] = None
        for target, its in sources.items():
            head, *others = its
            every = tuple(its) if others else ()
            number = first + len(found)
            found.append(Wish(number, head, (target,), wish.lanes, wish.aggregate, every))

    for wish in circuits:
        if wish.shape is Shape.FLOW:
            sources, targets = ends[wish.roles[0]], ends[wish.roles[-1]]
            if wish.aggregate and len(sources) > 1:
                gather(wish, [(s, t) for t in targets for s in sources if s != t])
                continue
            for source in dict.fromkeys(sources):
                if len(sources) == 1:
                    want(wish, source, targets)
                else:
                    for target in dict.fromkeys(targets):
                        want(wish, source, (target,))
            continue
        members = [end for role in wish.roles for end in ends[role]]
        if wish.shape is Shape.EXPLICIT:
            # Two ranks may be parts of one engine: ranks are counted before that is looked at.
            pairs = [(members[a], members[b]) for a, b in pairs_of(wish, len(members))]
            joined = [pair for pair in dict.fromkeys(pairs) if pair[0] != pair[1]]
            if wish.aggregate:
                gather(wish, joined)
                continue
            trees: dict[str, list[str]] = {}
            for source, target in joined:
                if wish.multicast:
                    trees.setdefault(source, []).append(target)
                else:
                    want(wish, source, (target,))
            for source, reached in trees.items():
                want(wish, source, reached)
            continue
        members = list(dict.fromkeys(members))
        if len(members) > 1 and wish.aggregate:
            gather(wish, [(members[a], members[b]) for a, b in pairs_of(wish, len(members))])
        elif len(members) > 1:
            lanes, aggregate = wish.lanes, wish.aggregate
            alone = [(member,) for member in members]
            found += [
                _new(Wish, (number, members[a], alone[b], lanes, aggregate, ()))
                for number, (a, b) in enumerate(pairs_of(wish, len(members)), first + len(found))
            ]
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
    effort: Effort | None = None,
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
        effort: How much circuits that are in each other's way may negotiate.
    """
    graph = pool.graph
    graph.tidy()
    router = Router(pool, whole, name, bounds or Constraints(), seed, avoid, effort)
    mark = graph.mark()
    try:
        graph.leave(avoid)
        return router.all(wishes)
    finally:
        graph.undo(mark)


def again(
    pool: Pool,
    circuits: Sequence[CircuitWish],
    seatings: Sequence[Seating | None],
    ends: Mapping[str, tuple[str, ...]],
    *,
    whole: Callable[[], Collection[str]],
    name: str,
    seed: int = 0,
) -> Routed | None:
    """Lay circuits in the order in which they are asked for; remember those within a switch.

    Args:
        pool: Folded by the caller.
        circuits: The request's wishes, without bounds.
        seatings: For each what it is remembered by, if at all.
        ends: Role -> ends in rank order.
        whole: Returns the engines that the slice holds whole.
        name: Circuits are called "<name>/<number>".
        seed: Varies the choice among ways that are alike.

    Returns:
        None where one finds no way: `route` has more to try.
    """
    graph, inside = pool.graph, pool.inside
    graph.tidy()
    router: Router | None = None
    found: list[Circuit] = []
    mark = graph.mark()
    try:
        for number, (wish, seating) in enumerate(zip(circuits, seatings, strict=True), 1):
            laid = seating and inside.known(graph, seating, ends[seating.role])
            if laid:
                found += [
                    circuit_of(f"{name}/{n}", path[0], (path[2],), path, arcs, 1, ns)
                    for n, (path, arcs, ns) in enumerate(laid.ways, len(found))
                ]
                if number < len(circuits):
                    laid.lay(graph)
                continue
            router = router or Router(pool, whole(), name, Constraints(), seed)
            before = graph.mark()
            more = router.each(wishes_of((wish,), ends, len(found)))
            if more is None:
                return None
            if seating:
                inside.note(graph, seating, ends[seating.role], more, before)
            found += more
        return Routed(tuple(found), router.units() if router else ())
    finally:
        graph.undo(mark)


def claimed(pool: Pool, circuits: Iterable[Circuit], whole: Collection[str]) -> Iterable[str]:
    """Yield the units that rivals could want: a port of an engine held whole is the slice's."""
    links = pool.view.cell.links
    for circuit in circuits:
        yield from circuit.aggregators
        for arc in circuit.arcs:
            link = links[arc.link]
            if link.a_thing not in whole and link.b_thing not in whole:
                for lane in arc.lanes:
                    yield lane_unit(arc.link, arc.direction, lane)


class Router:
    """The circuits of one slice while they are laid.

    Attributes:
        claims: What rivals could want: a port of an engine held whole is the slice's.
        aggregators: Units that trees laid so far take.
    """

    def __init__(
        self,
        pool: Pool,
        whole: Collection[str],
        name: str,
        bounds: Constraints,
        seed: int,
        avoid: Collection[str] = (),
        effort: Effort | None = None,
    ) -> None:
        self.effort = effort
        self.pool = pool
        self.graph = pool.graph
        self.whole = whole
        self.name = name
        self.bounds = bounds
        self.seed = seed
        self.turn = scramble(seed) % _TURNS if seed else 0
        self.claims: list[Claim] = []
        self.aggregators: list[str] = []
        self._avoid = frozenset(unit for unit in avoid if unit.startswith("aggregator/"))

    def all(self, wishes: Sequence[Wish]) -> Routed | Blocked:
        """Lay all circuits, in one order or another, or say which failed first."""
        mark = self.graph.mark()
        first: Blocked | None = None
        order = list(wishes)
        longest: dict[int, int] = {}
        for turn in range(_ORDERS):
            done: dict[int, Circuit] = {}
            failed = self._lay_each(order, done)
            if failed is None:
                return self._routed(wishes, done)
            self.graph.undo(mark)
            first = first or Blocked(failed[0], len(done), len(wishes), failed[1])
            if failed[0] is order[0]:
                # It found no way even before the others took theirs: there is no better reason.
                return first._replace(wish=failed[0], why=failed[1])
            rest = [wish for wish in order if wish is not failed[0]]
            if turn == 0:
                longest = {wish.number: self._alone(wish) for wish in wishes}
                rest.sort(key=lambda wish: longest[wish.number], reverse=True)
            elif turn > 1:
                rest = shuffled(rest, self.seed, turn)
            order = [failed[0], *rest]
        assert first is not None, "a round without a failure has returned"
        return self._agreed(wishes) or first

    def each(self, wishes: Sequence[Wish]) -> list[Circuit] | None:
        """Lay more circuits in order; None where one finds no way."""
        done: dict[int, Circuit] = {}
        return None if self._lay_more(wishes, done) else list(done.values())

    def _lay_each(self, order: Iterable[Wish], done: dict[int, Circuit]) -> tuple[Wish, str] | None:
        """Lay circuits one after the other; return the one that found no way, and why."""
        self.claims = []
        self.aggregators = []
        return self._lay_more(order, done)

    def _lay_more(self, order: Iterable[Wish], done: dict[int, Circuit]) -> tuple[Wish, str] | None:
        graph, whole, bounds, name = self.graph, self.whole, self.bounds, self.name
        known, free, ns, cards = graph.known_ports, graph.free, graph.ns, graph.cards
        note = graph.journal.append
        free_of_bounds = not (bounds.max_hops or bounds.max_latency_ns)
        for wish in order:
            number, source, targets, lanes, aggregate, sources = wish
            if free_of_bounds and lanes == 1 == len(targets) and not sources:
                # Most circuits are one lane wide and stay within one switch: such are laid here,
                # just as the search would lay them, in a fifth of the time.
                (target,) = targets
                outs = known.get(source) or graph.ports(source)
                ends = known.get(target) or graph.ports(target)
                if len(outs) == 1 == len(ends):
                    ((out, _, switch, middle),) = outs
                    ((_, into, other, _),) = ends
                    leaving, coming = free[out], free[into]
                    if switch == other != NO_SWITCH and leaving and coming:
                        one, two = leaving & -leaving, coming & -coming
                        note((out, leaving))
                        note((into, coming))
                        free[out] = leaving ^ one
                        free[into] = coming ^ two
                        if source not in whole or target not in whole:
                            self._claim_ports(source, target, (out, one), (into, two))
                        done[number] = circuit_of(
                            f"{name}/{number}",
                            source,
                            targets,
                            (source, middle, target),
                            (
                                cards[out].get(one) or graph.card(out, one),
                                cards[into].get(two) or graph.card(into, two),
                            ),
                            1,
                            ns[out] + ns[into],
                            aggregate,
                        )
                        continue
            if wish.is_tree:
                grown = self._grown(wish)
                if isinstance(grown, str):
                    return wish, grown
                done[number] = self._lay_tree(wish, grown)
                continue
            found = way(graph, source, targets[0], lanes, bounds, self.turn)
            if isinstance(found, str):
                return wish, found
            done[number] = self._lay_path(wish, found)
        return None

    def _lay_path(self, wish: Wish, arcs: Sequence[int]) -> Circuit:
        """Take the lanes of a circuit from one source to one target."""
        number, source, targets, lanes, aggregate, _ = wish
        graph, whole, claims = self.graph, self.whole, self.claims
        cards, trunks, ends, ns = graph.cards, graph.trunk_arcs, graph.ends, graph.ns
        records: list[Arc] = []
        for arc, taken in zip(arcs, graph.take_way(arcs, lanes), strict=True):
            records.append(cards[arc].get(taken) or graph.card(arc, taken))
            if arc < trunks or (ends[arc] not in whole and ends[arc ^ 1] not in whole):
                claims.append((arc, taken))
        return circuit_of(
            f"{self.name}/{number}",
            source,
            targets,
            (source, *[ends[arc] for arc in arcs]),
            tuple(records),
            lanes,
            sum([ns[arc] for arc in arcs]),
            aggregate,
        )

    def _claim_ports(self, source: str, target: str, out: Claim, into: Claim) -> None:
        """Note the port lanes of ends that are not held whole."""
        if source not in self.whole:
            self.claims.append(out)
        if target not in self.whole:
            self.claims.append(into)

    def _routed(self, wishes: Sequence[Wish], done: Mapping[int, Circuit]) -> Routed:
        return Routed(tuple([done[wish.number] for wish in wishes]), self.units())

    def units(self) -> tuple[str, ...]:
        """Return what is to be claimed for the circuits that were laid."""
        if not self.claims and not self.aggregators:
            return ()
        units = self.graph.units
        lanes = [unit for claim in self.claims for unit in units(*claim)]
        return (*lanes, *self.aggregators)

    # -- trees

    def _mergers(self, wish: Wish) -> Mergers:
        return Mergers(self.pool.view, wish.aggregate, self._avoid.union(self.aggregators))

    def _grown(self, wish: Wish) -> Grown | str:
        """Return a tree on what is left, or why there is none."""
        graph, lanes, bounds = self.graph, wish.lanes, self.bounds
        if wish.sources:
            mergers = self._mergers(wish)
            return gathered(graph, wish.sources, wish.targets[0], lanes, bounds, mergers)
        return multicast(graph, wish.source, wish.targets, lanes, bounds)

    def _lay_tree(self, wish: Wish, grown: Grown) -> Circuit:
        """Take the lanes and the aggregators of a tree."""
        graph, whole = self.graph, self.whole
        trunks, ends, cards = graph.trunk_arcs, graph.ends, graph.cards
        arcs: list[Arc] = []
        path: dict[str, None] = {wish.targets[0] if wish.sources else wish.source: None}
        for branch in grown.branches:
            for arc, lanes in zip(
                branch.arcs, graph.take_way(branch.arcs, wish.lanes), strict=True
            ):
                arcs.append(cards[arc].get(lanes) or graph.card(arc, lanes))
                if arc < trunks or (ends[arc] not in whole and ends[arc ^ 1] not in whole):
                    self.claims.append((arc, lanes))
            if wish.sources:  # seen from where it grows
                path |= dict.fromkeys(ends[arc ^ 1] for arc in reversed(branch.arcs))
            else:
                path |= dict.fromkeys(ends[arc] for arc in branch.arcs)
        mergers = self._mergers(wish) if grown.merging else None
        units = [mergers.unit(graph.names[s]) for s in grown.merging] if mergers else []
        aggregators = tuple([unit for unit in units if unit is not None])
        assert len(aggregators) == len(units), "a tree merges only where it was told that it can"
        self.aggregators += aggregators
        return circuit_of(
            f"{self.name}/{wish.number}",
            wish.source,
            wish.targets,
            tuple(path),
            tuple(arcs),
            wish.lanes,
            max(branch.ns for branch in grown.branches),
            wish.aggregate,
            wish.sources,
            aggregators,
        )

    def _alone(self, wish: Wish) -> int:
        """Return how many links a circuit crosses where no other of the slice is in its way."""
        if wish.is_tree:
            grown = self._grown(wish)
            return 0 if isinstance(grown, str) else sum(len(b.arcs) for b in grown.branches)
        found = way(self.graph, wish.source, wish.targets[0], wish.lanes, self.bounds, self.turn)
        return 0 if isinstance(found, str) else len(found)

    def _agreed(self, wishes: Sequence[Wish]) -> Routed | None:
        """Lay all circuits on ways that they negotiate; trees do not take part."""
        if any(wish.is_tree for wish in wishes):
            return None
        nets = [Net(wish.source, wish.targets[0], wish.lanes) for wish in wishes]
        ways = negotiate(self.graph, nets, self.bounds, self.effort)
        if ways is None:
            return None
        self.claims = []
        self.aggregators = []
        done = {
            wish.number: self._lay_path(wish, arcs) for wish, arcs in zip(wishes, ways, strict=True)
        }
        return self._routed(wishes, done)
