"""Which switches are joined by which links, and which of their lanes are free?

A `Graph` numbers switches, and each link twice: once for either direction. Such a directed link is
an arc here, and arc ^ 1 is the same link the other way. The pool owns the graph and tells it
each lane, link and switch that changes, so what is free is read from one list. A plan takes lanes
in the same lists and undoes that at its end: there is no copy to make.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Final, NamedTuple, TypeAlias

from flowos.model.cell import Link
from flowos.model.placement import Arc
from flowos.model.units import lane_unit, subject_of
from flowos.model.view import CellView
from flowos.planning.circuits.balls import Balls
from flowos.planning.circuits.grid import Grid, coordinates_of
from flowos.planning.circuits.landmarks import Landmarks
from flowos.planning.circuits.levels import Levels, levels_of

NO_SWITCH: Final = -1
FWD: Final = "fwd"
REV: Final = "rev"

_REMEMBERED_MAX: Final = 1 << 18  # arcs at engines and names of units: about 200 MB

Lanes: TypeAlias = int  # bit n = lane n of a link in one direction


class Port(NamedTuple):
    """A link at an engine or host, seen from there.

    Attributes:
        out: The arc that leaves the engine.
        into: The arc that comes to it, `out ^ 1`.
        switch: What it leads to, or `NO_SWITCH` where that is an engine or a node.
        other: The same by name.
    """

    out: int
    into: int
    switch: int
    other: str


class Graph:
    """The switches of a cell and what of the links between and at them is free now.

    Reading it costs list lookups. It is built from the inventory, once; links at engines and hosts
    get their arcs when they are first asked for, by `ports`, since most never are.

    Attributes:
        names: Switch by number, in the order of the inventory.
        numbers: Switch name -> number.
        near: By switch: (other switch, arc to it) for each link to another switch; the arc back
            from there is `arc ^ 1`.
        tails: By arc: the switch it leaves, or `NO_SWITCH`.
        heads: By arc: the switch it comes to, or `NO_SWITCH`.
        ends: By arc: the name of what it comes to, switch, engine or node.
        links: By arc >> 1; an even arc goes "fwd", an odd one "rev".
        ns: By arc: latency of the link and of the switch it comes to. The sum over a way's arcs is
            its latency.
        lanes: By arc: how many lanes there are.
        free: By arc: the lanes that can be had, as a bitmap; 0 where the link or a switch at
            its ends is out of service or about to be. Read only: see `take`.
        known_ports: What `ports` was asked for so far.
        journal: (arc, what was free before) of each taking that is not undone. Who takes lanes of
            an arc at an engine may write `free` by itself, if it notes that here first.
        cards: By arc: the records of `card` so far.
        open: By switch: whether it is in service.
        trunk_arcs: Arcs below this number join two switches.
        numbering: Another one once arcs have been numbered anew.
    """

    def __init__(
        self,
        view: CellView,
        shut: Collection[str],
        spoken: Mapping[tuple[str, str], Lanes],
    ) -> None:
        """Survey a cell.

        Args:
            view: Whose cell and claims it is about.
            shut: "switch/..." and "link/..." out of service; the pool's own, kept by it.
            spoken: (link, direction) -> lanes that a drain waits for; the pool's own too.
        """
        self._view = view
        self._shut = shut
        self._spoken = spoken
        switches = view.cell.switches
        self.names: list[str] = list(switches)
        self.numbers: dict[str, int] = {name: n for n, name in enumerate(self.names)}
        self.open: list[bool] = [True] * len(self.names)
        self.tails: list[int] = []
        self.heads: list[int] = []
        self.ends: list[str] = []
        self.links: list[Link] = []
        self.ns: list[int] = []
        self.lanes: list[int] = []
        self.free: list[Lanes] = []
        self._arc_of: dict[str, int] = {}  # link -> its even arc
        self.cards: list[dict[Lanes, Arc]] = []
        self.known_ports: dict[str, tuple[Port, ...]] = {}
        self.journal: list[tuple[int, Lanes]] = []
        self.numbering = 0
        self._units: dict[tuple[int, Lanes], tuple[str, ...]] = {}
        self._levels: Levels | None = None
        self._full: dict[int, Lanes] = {}  # one number for all arcs of so many lanes
        near: list[list[tuple[int, int]]] = [[] for _ in self.names]
        numbers = self.numbers
        for link in view.cell.links.values():
            # As `a_thing` and `b_thing`, a million times.
            a = numbers.get(link.a.partition(":")[0])
            if a is None:
                continue
            b = numbers.get(link.b.partition(":")[0])
            if b is None or a == b:
                continue
            arc = self._add(link)
            near[a].append((b, arc))
            near[b].append((a, arc + 1))
        self.near: list[tuple[tuple[int, int], ...]] = [tuple(others) for others in near]
        self.trunk_arcs: int = len(self.free)
        for unit in shut:
            if unit.startswith("switch/"):
                number = numbers.get(subject_of(unit))
                if number is not None:
                    self.open[number] = False
        for arc in range(self.trunk_arcs):
            self.free[arc] = self._free_now(arc)

    # -- what there is

    def ports(self, end: str) -> tuple[Port, ...]:
        """Return the links at an engine or a host, by its name, in the order of the inventory."""
        found = self.known_ports.get(end)
        if found is None:
            found = self.known_ports[end] = tuple(self._ports_of(end))
        return found

    def _ports_of(self, end: str) -> Iterator[Port]:
        cell = self._view.cell
        for name in cell.links_at.get(end, ()):
            even = self._arc_of.get(name)
            if even is None:
                even = self._add(cell.links[name])
                for arc in (even, even + 1):
                    self.free[arc] = self._free_now(arc)
            link = cell.links[name]
            if link.a_thing == end:
                yield Port(even, even + 1, self.heads[even], link.b_thing)
            if link.b_thing == end:
                yield Port(even + 1, even, self.heads[even + 1], link.a_thing)

    def card(self, arc: int, lanes: Lanes) -> Arc:
        """Return the record that says: these lanes of this arc. The same for the same."""
        cards = self.cards[arc]
        found = cards.get(lanes)
        if found is None:
            most = lanes.bit_length()
            single = not lanes & lanes - 1
            numbers = (most - 1,) if single else tuple([n for n in range(most) if lanes >> n & 1])
            direction = REV if arc & 1 else FWD
            found = cards[lanes] = Arc(self.links[arc >> 1].name, direction, numbers)
        return found

    def units(self, arc: int, lanes: Lanes) -> tuple[str, ...]:
        """Return the units of some lanes of an arc."""
        found = self._units.get((arc, lanes))
        if found is None:
            card = self.card(arc, lanes)
            names = [lane_unit(card.link, card.direction, lane) for lane in card.lanes]
            found = self._units[arc, lanes] = tuple(names)
        return found

    def used(self, arc: int) -> int:
        """Return how many of an arc's lanes are not to be had."""
        return self.lanes[arc] - self.free[arc].bit_count()

    def bound(self, a: int, b: int) -> int:
        """Return a number of links that every way between two switches crosses, at least.

        It is of the cell with nothing held and nothing down, so it holds whatever is; it is
        consistent: never more than 1 above the bound at a neighbour.
        """
        return self.metric.bound(a, b)

    @cached_property
    def metric(self) -> Grid | Landmarks:
        """What `bound` reckons with, made when it is first needed."""
        return self.grid or Landmarks(self.near)

    @cached_property
    def balls(self) -> Balls:
        """Which switches are near which."""
        return Balls(self.near)

    @cached_property
    def grid(self) -> Grid | None:
        """The coordinates of the switches, where the wiring is that of a torus or the like."""
        places = coordinates_of(self.near)
        return None if places is None else Grid(self.near, places)

    @cached_property
    def levels(self) -> Levels | None:
        """The words of a leaf-spine or fat tree, where the switches stand on levels."""
        cell = self._view.cell
        tiers = [cell.switches[name].tier for name in self.names]
        leaves = [
            number
            for number, name in enumerate(self.names)
            if len(cell.links_at.get(name, ())) > len(self.near[number])
        ]
        found = levels_of(self.near, tiers, leaves) if self.trunk_arcs else None
        if found is not None:
            self._levels = Levels(self.near, found, self.lanes, self.free, self.ns)
        return self._levels

    @cached_property
    def even(self) -> bool:
        """Whether all trunks are alike in latency, so that ways of one length are."""
        return len(set(self.ns[: self.trunk_arcs])) <= 1

    # -- plans in the making

    def pick(self, arc: int, count: int) -> Lanes:
        """Return the lowest free lanes of an arc, so many; it must have them."""
        free = self.free[arc]
        if count == 1:
            return free & -free
        rest = free
        for _ in range(count):
            rest &= rest - 1
        return free ^ rest

    def take(self, arc: int, lanes: Lanes) -> None:
        """Count lanes as held, until `undo` or until the store's word about them comes."""
        before = self.free[arc]
        after = self.free[arc] = before & ~lanes
        self.journal.append((arc, before))
        if self._levels is not None and arc < self.trunk_arcs:
            self._levels.changed(arc, before, after)

    def take_way(self, arcs: Iterable[int], count: int) -> list[Lanes]:
        """Take the lowest free lanes of each arc, so many; all must have them."""
        free, note, trunks, levels = self.free, self.journal.append, self.trunk_arcs, self._levels
        found: list[Lanes] = []
        if count > 1:
            for arc in arcs:
                found.append(self.pick(arc, count))
                self.take(arc, found[-1])
            return found
        for arc in arcs:
            before = free[arc]
            note((arc, before))
            taken = before & -before
            free[arc] = before ^ taken
            found.append(taken)
            # One lane less changes an arc's class just where a power of two was left; asking
            # here saves most calls.
            if levels is not None and arc < trunks:
                left = before.bit_count()
                if not left & left - 1:
                    levels.changed(arc, before, before ^ taken)
        return found

    def tidy(self) -> None:
        """Forget the arcs at engines where there are very many; no plan may be in the making."""
        first = self.trunk_arcs
        if len(self.free) - first + len(self._units) < _REMEMBERED_MAX or self.journal:
            return
        for link in self.links[first >> 1 :]:
            del self._arc_of[link.name]
        for table in (self.tails, self.heads, self.ends, self.ns, self.lanes, self.free):
            del table[first:]
        del self.links[first >> 1 :]
        self.cards = [{} for _ in range(first)]
        self.known_ports.clear()
        self._units.clear()
        self.numbering += 1

    def mark(self) -> int:
        """Return where the journal of takings is now."""
        return len(self.journal)

    def undo(self, mark: int) -> None:
        """Give back all that was taken since a mark; plans undo all before the next `fold`."""
        journal, free_now, trunks = self.journal, self.free, self.trunk_arcs
        taken = journal[mark:]
        del journal[mark:]
        for arc, free in reversed(taken):
            if arc >= trunks:
                free_now[arc] = free
            elif arc >= 0:
                self._put(arc, free)
            else:
                self.open[~arc] = bool(free)

    def leave(self, units: Iterable[str]) -> None:
        """Do without lanes, links and switches, by their units, until `undo`."""
        for unit in units:
            self._leave(unit)

    def _leave(self, unit: str) -> None:
        kind, _, rest = unit.partition("/")
        if kind == "lane":
            link, direction, lane = rest.rsplit("/", 2)
            even = self._arc_ever(link)
            if even is not None:
                self.take(even + (direction != FWD), 1 << int(lane))
        elif kind == "link":
            even = self._arc_ever(rest)
            if even is not None:
                self.take(even, self.free[even])
                self.take(even + 1, self.free[even + 1])
        elif kind == "switch" and rest in self.numbers:
            number = self.numbers[rest]
            self.journal.append((~number, int(self.open[number])))
            self.open[number] = False
            for _, arc in self.near[number]:
                self.take(arc, self.free[arc])
                self.take(arc ^ 1, self.free[arc ^ 1])
            for end in self._ends_at(number):
                self.take(end, self.free[end])

    def _ends_at(self, number: int) -> Iterator[int]:
        """Yield the arcs between a switch and what is not a switch, as far as they were asked."""
        for name in self._view.cell.links_at.get(self.names[number], ()):
            even = self._arc_ever(name)
            if even is not None and even >= self.trunk_arcs:
                yield even
                yield even + 1

    def _arc_ever(self, link: str) -> int | None:
        """Return a link's even arc, adding it where nobody asked for it yet."""
        even = self._arc_of.get(link)
        if even is None and link in self._view.cell.links:
            even = self._add(self._view.cell.links[link])
            for arc in (even, even + 1):
                self.free[arc] = self._free_now(arc)
        return even

    # -- changes

    def changed(self, unit: str) -> None:
        """Read anew what a lane's, link's or switch's unit is about; the pool calls it."""
        kind, _, rest = unit.partition("/")
        if kind == "lane":
            link, direction, _ = rest.rsplit("/", 2)
            even = self._arc_of.get(link)
            if even is not None:
                self._read(even + (direction != FWD))
        elif kind == "link":
            even = self._arc_of.get(rest)
            if even is not None:
                self._read(even)
                self._read(even + 1)
        elif kind == "switch":
            number = self.numbers.get(rest)
            if number is not None:
                self.open[number] = unit not in self._shut
                for _, arc in self.near[number]:
                    self._read(arc)
                    self._read(arc ^ 1)
                for name in self._view.cell.links_at.get(rest, ()):
                    even = self._arc_of.get(name)
                    if even is not None and even >= self.trunk_arcs:
                        self._read(even)
                        self._read(even + 1)

    def _read(self, arc: int) -> None:
        free = self._free_now(arc)
        if free != self.free[arc]:
            self._put(arc, free)

    def _put(self, arc: int, free: Lanes) -> None:
        before = self.free[arc]
        self.free[arc] = free
        if (
            self._levels is not None
            and arc < self.trunk_arcs
            and before.bit_count().bit_length() != free.bit_count().bit_length()
        ):
            self._levels.changed(arc, before, free)

    def _free_now(self, arc: int) -> Lanes:
        link = self.links[arc >> 1]
        tail, head = self.tails[arc], self.heads[arc]
        if (tail >= 0 and not self.open[tail]) or (head >= 0 and not self.open[head]):
            return 0
        if self._shut and f"link/{link.name}" in self._shut:
            return 0
        key = (link.name, REV if arc & 1 else FWD)
        taken = self._view.lanes_taken.get(key, 0)
        if self._spoken:
            taken |= self._spoken.get(key, 0)
        full = self._full.setdefault(link.lanes, (1 << link.lanes) - 1)
        return full & ~taken if taken else full

    def _add(self, link: Link) -> int:
        """Number a link's two arcs; what of them is free is still to be read."""
        arc = len(self.free)
        a, b = link.a.partition(":")[0], link.b.partition(":")[0]
        switches = self._view.cell.switches
        numbers = self.numbers
        tail, head = numbers.get(a, NO_SWITCH), numbers.get(b, NO_SWITCH)
        self.tails += (tail, head)
        self.heads += (head, tail)
        self.ends += (b, a)
        self.links.append(link)
        latency = link.latency_ns
        self.ns.append(latency + (switches[b].latency_ns if head >= 0 else 0))
        self.ns.append(latency + (switches[a].latency_ns if tail >= 0 else 0))
        self.lanes += (link.lanes, link.lanes)
        self.free += (0, 0)
        self.cards += ({}, {})
        self._arc_of[link.name] = arc
        return arc
