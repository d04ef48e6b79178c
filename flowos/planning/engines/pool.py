"""What of a cell is free now, by node, leaf switch and set of engine makes?

A pool listens to its view and only notes what changed; `fold` reads the changed nodes anew before
the next plan. So a burst of changes costs one reading per node, and a plan pays for its own alone.
"""

from bisect import insort
from collections.abc import Callable, Hashable, Iterable
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

from flowos.model.cell import WHOLE_MILLIS, Engine, Link, Node
from flowos.model.units import engine_unit, kind_of, subject_of
from flowos.model.view import CellView
from flowos.planning.circuits.graph import Graph
from flowos.planning.circuits.inside import Inside
from flowos.planning.engines.fragments import Usual, pieces_on
from flowos.planning.engines.stock import (
    AFAR,
    CLOSED,
    NOWHERE,
    PLACE,
    Free,
    Ladder,
    Make,
    Mask,
    Site,
    Stock,
    Wares,
    tag_of,
    turn_of,
)
from flowos.planning.where import text_of

__all__ = (
    "CLOSED", "NOWHERE", "OFF", "Direction", "Free", "Ladder", "Make", "Mask", "Pool", "Site",
    "Stock", "Trunk", "Wares",
)  # fmt: skip

T = TypeVar("T")

OFF: Final = "~off/"  # system placements of this name hold what is powered off, and give it up
_HOME_NODES_MIN: Final = 8  # a home with fewer would cost more in packing than conflicts cost
_HOME_LEAVES_MIN: Final = 4  # with fewer, homes are made of nodes, of which all get alike
_MEMO_MAX: Final = 20_000  # a stream of requests that differ each time ends here
_STOCK_ENTRIES_MAX: Final = 1_000_000  # about 40 MB of sorted keys over all stocks

Direction: TypeAlias = str  # "fwd" or "rev"
_OF_NODES: Final = frozenset(("engine", "share", "host", "node"))  # kinds of units
_new: Final = tuple.__new__  # a named tuple's own constructor costs twice as much
_HOST: Final = slice(3, 7)  # of `Free`: all that is not of engines alone
_AMOUNTS: Final = slice(3, 5)  # of `Free`: CPU and memory


class Trunk(NamedTuple):
    """A link from one switch to another, seen from one end."""

    other: str
    link: Link
    away: Direction
    back: Direction


class Pool:
    """The free engines, host resources and ways of a view, kept in step with it.

    Attributes:
        sites: By number; None where a node is gone.
        free: By the same numbers.
        numbers: Node -> number.
        makes: By number, as in `Site.makes`.
        counts: How many engines there are of each make.
        leaf_sites: Leaf -> numbers of the nodes with engines on it.
        pod_of: Leaf -> its pod; "" = it is in none.
        pods: Pod -> its leaves.
        leaf_engines: At least as many as the engines on any leaf.
        cpu_millis: Free CPU of the whole cell.
        memory_bytes: Free memory of the whole cell.
        loaded: Bitstream reference -> node number -> which engines have it.
        divided: Whether some nodes are not home.
        turn: How often engines were given back so far: the pool's own time.
        leaves_afar: Leaves whose nodes are not home, where homes are made of leaves.
        trunks: Switch -> its links to other switches.
        shut: "switch/..." and "link/..." that are out of service or about to be.
        spoken: (link, direction) -> lanes that a drain waits for.
    """

    def __init__(self, view: CellView) -> None:
        self.view = view
        self._units: set[str] = set()
        view.listeners.append(self._units.add)
        view.inventory_listeners.append(self._thing_changed)
        self._things: set[tuple[str, str]] = set()
        self._part = (0, 1)
        self._graph: Graph | None = None
        self.inside = Inside()
        self._rebuild()

    def close(self) -> None:
        """Stop listening; the pool is of no use after this."""
        self.view.listeners.remove(self._units.add)
        self.view.inventory_listeners.remove(self._thing_changed)

    # -- what planners ask

    def stock(self, wares: Wares) -> Stock:
        """Return the stock of some wares, counting it first if it was not asked for lately."""
        stock = self._stocks.pop(wares, None)
        if stock is None:
            stock = Stock(wares, self.pod_of)
            sites = self._sites_for(wares)
            for site in sites:
                if site is not None:
                    stock.admit(site, self.view.cell.nodes[site.name])
                    stock.put(site, self.free[site.number], self._tags[site.number])
            if sites is not self.sites:
                return stock  # of a few nodes: counting it costs less than keeping it in step
            while len(self._stocks) > _STOCK_ENTRIES_MAX // (len(self.sites) + 1000):
                del self._stocks[next(iter(self._stocks))]
        self._stocks[wares] = stock  # the last is the one asked for latest
        return stock

    def _sites_for(self, wares: Wares) -> Iterable[Site | None]:
        """Return the sites where wares can be: all, or those that all conditions name."""
        names: set[str] = set()
        for _, conditions in wares:
            named = [c.value for c in conditions if c.key == "node" and c.test == "=="]
            if not named:
                return self.sites
            names.update(named)
        return [self.sites[self.numbers[name]] for name in names if name in self.numbers]

    def recall(self, key: Hashable, work_out: Callable[[], T]) -> T:
        """Return what follows from the inventory alone, worked out once until that changes."""
        if key not in self._memo:
            if len(self._memo) > _MEMO_MAX:
                self._memo.clear()
            self._memo[key] = work_out()
        found: T = self._memo[key]
        return found

    @property
    def graph(self) -> Graph:
        """The switches and what is free between them, surveyed when it is first asked for."""
        if self._graph is None:
            self._graph = Graph(self.view, self.shut, self.spoken)
        return self._graph

    def position(self, engine: str) -> tuple[Site, int] | None:
        """Return where an engine is, or None where the cell has no such engine and node."""
        number = self.numbers.get(engine.partition("/")[0])
        site = None if number is None else self.sites[number]
        if site is None or engine not in site.engines:
            return None
        return site, site.engines.index(engine)

    @property
    def hosts(self) -> Ladder:
        """Nodes by `Free.calm`, for host resources alone; brought up to date when asked for."""
        for number in self._unhosted:
            place = self._tags[number] & PLACE
            was = self._hosted.pop(number, None)
            if was is not None:
                self._hosts.take(was.calm, was, place)
            free = self.free[number]
            if free.cpu_millis >= 0:
                self._hosts.put(free.calm, free, place)
                self._hosted[number] = free
        self._unhosted.clear()
        return self._hosts

    def _restart_hosts(self) -> None:
        self._hosts = Ladder()
        self._hosted: dict[int, Free] = {}
        self._unhosted = {site.number for site in self.sites if site is not None}

    def kinds(self, site: Site) -> tuple[tuple[str, Mask], ...]:
        """Return the kinds of a node's engines, and which are of each."""
        found = self._kinds.get(site.makes)
        if found is None:
            kinds: dict[str, Mask] = {}
            for position, make in enumerate(site.makes):
                kind = self.makes[make].kind
                kinds[kind] = kinds.get(kind, 0) | 1 << position
            found = self._kinds[site.makes] = tuple(kinds.items())
        return found

    def usual(self) -> Usual:
        """Return what usually comes, by what is there now.

        It is counted on from where it was last asked for, so cells where nobody asks pay nothing.
        """
        if self._uncounted:
            for number in self._uncounted:
                site = self.sites[number]
                pieces = pieces_on(self.view, site, self.kinds(site)) if site is not None else ()
                self._usual.note(number, pieces)
            self._uncounted.clear()
            self._usual.settle()
        return self._usual

    def fold(self) -> None:
        """Take in all that changed since the last time; planners call it first."""
        if self._reshaped:
            self._rebuild()
        if self._things:
            self._fold_things()
        if self._units:
            self._fold_units()

    # -- changes

    def _thing_changed(self, family: str, name: str) -> None:
        # Links and switches shape everything, and change when an operator rebuilds the cell.
        if family in ("", "link", "switch"):
            self._reshaped = True
        elif not self._reshaped:
            self._things.add((family, name))

    def _fold_things(self) -> None:
        things, self._things = self._things, set()
        nodes = {name.partition("/")[0] for family, name in things if family in ("node", "engine")}
        if len(nodes) > 64 + len(self.sites) // 8:
            self._rebuild()
            return
        self._memo.clear()
        for name in nodes:
            self._survey(name)
        if nodes and self._part != (0, 1):
            self._divide()

    def _fold_units(self) -> None:
        units = self._units  # the set stays the view's listener
        numbers: set[int] = set()
        while units:
            unit = units.pop()
            words = unit.split("/", 2)
            kind = words[0]
            if kind in _OF_NODES:
                number = self.numbers.get(words[1])
                if number is not None:
                    numbers.add(number)
                    site = self.sites[number]
                    assert site is not None, "numbers names living sites only"
                    units.difference_update(site.units)  # most often a gang has all of a node
            else:
                self._fold_way(kind, unit)
                if self._graph is not None:
                    self._graph.changed(unit)
        units.clear()  # or what a burst made large would be searched for one entry ever after
        self._uncounted |= numbers
        for number in sorted(numbers):  # which turn each gets must not hang on the sets' order
            site, before = self.sites[number], self.free[number]
            assert site is not None, "numbers names living sites only"
            after = self._read(site)
            if after != before:
                self._replace(site, before, after)

    def _fold_way(self, kind: str, unit: str) -> None:
        wanted = bool(self.view.wanted.get(unit))
        if kind in ("switch", "link"):
            if wanted or unit in self.view.holders:
                self.shut.add(unit)
            else:
                self.shut.discard(unit)
        elif kind == "lane":
            _, direction, lane = unit.rsplit("/", 2)
            key = (subject_of(unit), direction)
            bit = 1 << int(lane)
            if wanted:
                self.spoken[key] = self.spoken.get(key, 0) | bit
            elif self.spoken and key in self.spoken:
                self.spoken[key] &= ~bit
                if not self.spoken[key]:
                    del self.spoken[key]

    def _replace(self, site: Site, before: Free, after: Free) -> None:
        number = site.number
        tag = latest = self._tags[number]
        if after.on & ~before.on:
            self.turn += 1
            latest = self._tags[number] = tag_of(number, self.turn, afar=tag >= AFAR)
        self._move(site, before, after, tag, latest)

    def _move(self, site: Site, before: Free, after: Free, tag: int, latest: int) -> None:
        number = site.number
        self.free[number] = after
        for stock in self._stocks.values():
            stock.replace(site, before, after, tag, latest)
        if before[_HOST] == after[_HOST]:
            return  # most claims are of engines alone
        self._unhosted.add(number)
        if before[_AMOUNTS] != after[_AMOUNTS]:
            if before.cpu_millis >= 0:
                self.cpu_millis -= before.cpu_millis
                self.memory_bytes -= before.memory_bytes
            if after.cpu_millis >= 0:
                self.cpu_millis += after.cpu_millis
                self.memory_bytes += after.memory_bytes
        if before.loaded != after.loaded:
            for reference, _ in before.loaded:
                there = self.loaded[reference]
                del there[number]
                if not there:
                    del self.loaded[reference]
            for reference, mask in after.loaded:
                self.loaded.setdefault(reference, {})[number] = mask

    # -- reading the view

    def _rebuild(self) -> None:
        self._units.clear()
        self._things.clear()
        self._reshaped = False
        self.sites: list[Site | None] = []
        self.free: list[Free] = []
        self._tags: list[int] = []
        self.turn = 0
        self.divided = False
        self.leaves_afar: frozenset[str] = frozenset()
        self.numbers: dict[str, int] = {}
        self.makes: list[Make] = []
        self.counts: list[int] = []
        self._make_numbers: dict[Make, int] = {}
        self._makes_written: dict[tuple[str, str, int, bool, bool, int, str], int] = {}
        self._shapes: dict[tuple[int, ...], tuple[int, ...]] = {}
        self._kinds: dict[tuple[int, ...], tuple[tuple[str, Mask], ...]] = {}
        self._usual = Usual()
        self._uncounted: set[int] = set()
        self.leaf_sites: dict[str, list[int]] = {}
        self.pod_of: dict[str, str] = {}
        self.leaf_engines = 0
        self._on_leaf: dict[str, int] = {}
        self.pods: dict[str, list[str]] = {}
        self._restart_hosts()
        self.cpu_millis = self.memory_bytes = 0
        self.loaded: dict[str, dict[int, Mask]] = {}
        self._stocks: dict[Wares, Stock] = {}
        self._memo: dict[Hashable, Any] = {}
        view = self.view
        self.trunks = self._survey_trunks()
        self.shut: set[str] = set()
        self.spoken: dict[tuple[str, Direction], int] = {}
        self._graph = None
        for unit in [*view.holders, *view.wanted]:
            if unit.startswith(("switch/", "link/", "lane/")):
                self._fold_way(kind_of(unit), unit)
        for name in view.cell.nodes:
            self._survey(name)
        self._divide()

    # -- homes

    def divide(self, part: int, parts: int) -> None:
        """Say which nodes are home: a plan looks there first, and afar where nothing at home fits.

        Schedulers that divide a cell alike seldom want the same node. It is a preference only; a
        cell of few nodes is not divided.

        Args:
            part: Which of the parts is home, from 0.
            parts: Into how many the cell is divided; 1 = all is home.
        """
        if (part, parts) != self._part:
            self._part = (part, parts)
            self._divide()

    def is_afar(self, node: str) -> bool:
        """Whether a node is not home."""
        return self._tags[self.numbers[node]] >= AFAR

    def freed_at(self, number: int) -> int:
        """Return at which turn engines of a node were last given back; 0 = never."""
        return turn_of(self._tags[number])

    def _divide(self) -> None:
        part, parts = self._part
        was, self.divided = self.divided, 1 < parts <= len(self.numbers) // _HOME_NODES_MIN
        if not (was or self.divided):
            return
        names = sorted(self.leaf_sites.keys() - {NOWHERE})
        by_leaf = len(names) >= _HOME_LEAVES_MIN * parts
        afar = frozenset(
            name
            for place, name in enumerate(names if by_leaf else sorted(self.numbers))
            if self.divided and place % parts != part
        )
        self.leaves_afar = afar if by_leaf else frozenset()
        self._restart_hosts()
        self._stocks.clear()
        for site in self.sites:
            if site is None:
                continue
            key = site.leaves[0][0] if by_leaf and site.leaves else site.name
            turn = turn_of(self._tags[site.number])
            self._tags[site.number] = tag_of(site.number, turn, afar=key in afar)

    def _survey(self, name: str) -> None:
        """See anew what there is at a node: it came, changed or went."""
        number = self.numbers.get(name)
        old = None if number is None else self.sites[number]
        if old is not None:
            tag = self._tags[old.number]
            self._move(old, self.free[old.number], CLOSED, tag, tag)
            for stock in self._stocks.values():
                stock.dismiss(old)
            for make in old.makes:
                self.counts[make] -= 1
            for leaf, _ in old.leaves:
                self.leaf_sites[leaf].remove(old.number)
                if leaf != NOWHERE:
                    self._on_leaf[leaf] -= len(old.engines)
        node = self.view.cell.nodes.get(name)
        if node is None:
            if old is not None:
                self._uncounted.add(old.number)
                self.sites[old.number] = None
                self.free[old.number] = CLOSED
                del self.numbers[name]
            return
        if number is None:
            number = self.numbers[name] = len(self.sites)
            self.sites.append(None)
            self.free.append(CLOSED)
            self._tags.append(number)
        self._uncounted.add(number)
        site = self.sites[number] = self._site(number, node)
        for make in site.makes:
            self.counts[make] += 1
        for leaf, _ in site.leaves:
            if leaf not in self.pod_of:
                switch = self.view.cell.switches.get(leaf)
                pod = self.pod_of[leaf] = switch.pod if switch else ""
                self.pods.setdefault(pod, []).append(leaf)
            insort(self.leaf_sites.setdefault(leaf, []), number)
            if leaf != NOWHERE:
                here = self._on_leaf[leaf] = self._on_leaf.get(leaf, 0) + len(site.engines)
                self.leaf_engines = max(self.leaf_engines, here)
        for stock in self._stocks.values():
            stock.admit(site, node)
        tag = self._tags[number]
        self._move(site, CLOSED, self._read(site), tag, tag)

    def _site(self, number: int, node: Node) -> Site:
        cell = self.view.cell
        engines = tuple(cell.engines_of.get(node.name, ()))
        makes: list[int] = []
        leaves: dict[str, Mask] = {}
        loads = 0
        for position, identifier in enumerate(engines):
            engine = cell.engines[identifier]
            lanes, above = self._ports(identifier)
            makes.append(self._make(engine, lanes))
            for leaf in above:
                leaves[leaf] = leaves.get(leaf, 0) | 1 << position
            if engine.loads_bitstreams:
                loads |= 1 << position
        shape = tuple(makes)
        return Site(
            number=number,
            name=node.name,
            rack=node.rack,
            engines=engines,
            units=tuple([engine_unit(engine) for engine in engines]),
            makes=self._shapes.setdefault(shape, shape),
            leaves=tuple(leaves.items()),
            loads=loads,
            linked=bool(cell.links_at.get(node.name)),
            cpu_millis=node.cpu_millis,
            memory_bytes=node.memory_bytes,
        )

    def _ports(self, engine: str) -> tuple[int, list[str]]:
        """Return an engine's lanes in one direction and its leaves."""
        cell = self.view.cell
        lanes = 0
        leaves: list[str] = []
        above: list[str] = []
        for name in cell.links_at.get(engine, ()):
            link = cell.links[name]
            lanes += link.lanes
            other = link.a.partition(":")[0]  # as `a_thing`, 100,000 times
            if other == engine:
                other = link.b.partition(":")[0]
            switch = cell.switches.get(other)
            if switch is not None and other not in above:
                above.append(other)
                if switch.tier == 0:
                    leaves.append(other)
        return lanes, leaves or above or [NOWHERE]

    def _make(self, engine: Engine, lanes: int) -> int:
        # `repr` because True and 1 are equal, and not the same words.
        attributes = repr(engine.attributes) if engine.attributes else ""
        key = (
            engine.kind, engine.model, engine.memory_bytes, engine.shareable,
            engine.loads_bitstreams, lanes, attributes,
        )  # fmt: skip
        number = self._makes_written.get(key)
        if number is None:
            words = [(key, text_of(value)) for key, value in engine.attributes.items()]
            make = Make(*key[:-1], tuple(sorted(words)))
            number = self._make_numbers.get(make)
            if number is None:
                number = self._make_numbers[make] = len(self.makes)
                self.makes.append(make)
                self.counts.append(0)
            self._makes_written[key] = number
        return number

    def _survey_trunks(self) -> dict[str, list[Trunk]]:
        switches = self.view.cell.switches
        trunks: dict[str, list[Trunk]] = {name: [] for name in switches}
        for link in self.view.cell.links.values():
            a, b = link.a.partition(":")[0], link.b.partition(":")[0]  # as `a_thing` and `b_thing`
            if a in switches and b in switches and a != b:
                trunks[a].append(Trunk(b, link, "fwd", "rev"))
                trunks[b].append(Trunk(a, link, "rev", "fwd"))
        return trunks

    def _read(self, site: Site) -> Free:
        view = self.view
        holders, wanted, shares = view.holders, view.wanted, view.shares
        closed = f"node/{site.name}"
        if closed in holders or wanted.get(closed):
            return CLOSED
        on = off = 0
        parts: list[tuple[int, int]] = []
        bit = 1
        plain = not (wanted or shares)
        held = [holders.get(unit) for unit in site.units]
        first = held[0] if held else None
        if plain and held.count(first) == len(held) and (not first or not first[0].startswith(OFF)):
            if first is None:  # one holder has all or nobody has any: so it is of most nodes
                on = (1 << len(held)) - 1
            held = []
        for position, names in enumerate(held):
            unit = site.units[position]
            if names is None and plain:
                on |= bit
            elif wanted and wanted.get(unit):
                pass
            elif names is not None:
                # A plan of ours that wakes the engine stands beside the one that keeps it off.
                if names[0].startswith(OFF) and site.engines[position] not in shares:
                    off |= bit * all(name.startswith(OFF) for name in names)
            elif site.engines[position] not in shares:
                on |= bit
            elif self.makes[site.makes[position]].shareable:
                rest = WHOLE_MILLIS - sum(shares[site.engines[position]].values())
                if rest > 0:
                    parts.append((position, rest))
            bit <<= 1
        if site.name in view.hosts:
            cpu_millis, memory_bytes = view.free_host(site.name)
        else:
            cpu_millis, memory_bytes = site.cpu_millis, site.memory_bytes
        if wanted and wanted.get(f"host/{site.name}"):
            cpu_millis = memory_bytes = -1
        calm = 0
        if site.engines:
            whole = (on | off).bit_count()
            calm = 3 if whole == len(site.engines) else 2 if whole else 1
        loaded = self._loaded(site) if site.loads else ()
        return _new(Free, (on, off, tuple(parts), cpu_millis, memory_bytes, calm, loaded))

    def _loaded(self, site: Site) -> tuple[tuple[str, Mask], ...]:
        found: dict[str, Mask] = {}
        for position, engine in enumerate(site.engines):
            if site.loads >> position & 1:
                observed = self.view.observed.get(engine)
                reference = observed.bitstream if observed else ""
                found[reference] = found.get(reference, 0) | 1 << position
        return tuple(sorted(found.items()))
