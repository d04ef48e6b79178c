"""What of a cell is free now, by node, leaf switch and set of engine makes?

A pool listens to its view and only notes what changed; `fold` reads the changed nodes anew before
the next plan. So a burst of changes costs one reading per node, and a plan pays for its own alone.
"""

from bisect import bisect_left, insort
from collections.abc import Callable, Container, Hashable, Iterator, Mapping
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

from flowos.model.cell import WHOLE_MILLIS, Engine, Link, Node
from flowos.model.units import engine_unit, kind_of, subject_of
from flowos.model.view import CellView
from flowos.planning.where import Condition, all_hold, text_of

T = TypeVar("T")

NOWHERE: Final = ""  # the leaf of engines that have no port on any switch
OFF: Final = "~off/"  # system placements of this name hold what is powered off, and give it up
_NUMBER_BITS: Final = 24  # 16 million nodes
_NUMBER_MASK: Final = (1 << _NUMBER_BITS) - 1
_AFAR: Final = 1 << 62  # in a node's tag: it is some other scheduler's to begin with
_HOME_NODES_MIN: Final = 8  # a home with fewer would cost more in packing than conflicts cost
_HOME_LEAVES_MIN: Final = 4  # with fewer, homes are made of nodes, of which all get alike
_MEMO_MAX: Final = 20_000  # a stream of requests that differ each time ends here
_STOCK_ENTRIES_MAX: Final = 1_000_000  # about 40 MB of sorted keys over all stocks

Mask: TypeAlias = int  # bit n = the node's engine n
Direction: TypeAlias = str  # "fwd" or "rev"


class Make(NamedTuple):
    """What a request can ask of an engine, wherever it is; few makes serve a whole cell.

    Attributes:
        port_lanes: Lanes of all its ports together, in one direction.
        attributes: As text, sorted.
    """

    kind: str
    model: str
    memory_bytes: int
    shareable: bool
    loads_bitstreams: bool
    port_lanes: int
    attributes: tuple[tuple[str, str], ...]

    def found(self) -> dict[str, str]:
        """Return what conditions can ask for."""
        named = {"kind": self.kind, "model": self.model, "memory": str(self.memory_bytes)}
        return {**dict(self.attributes), **named}


class Site(NamedTuple):
    """What stays of a node while its claims change.

    Attributes:
        number: Its place in the pool's lists.
        engines: Engine ids; their positions are the bits of all masks.
        units: The same as units.
        makes: The number of each engine's make, in the same order.
        leaves: Leaf switch -> which engines have a port on it; `NOWHERE` for the rest.
        loads: Which engines load bitstreams.
        linked: Whether the node itself has an attachment port.
    """

    number: int
    name: str
    rack: str
    engines: tuple[str, ...]
    units: tuple[str, ...]
    makes: tuple[int, ...]
    leaves: tuple[tuple[str, Mask], ...]
    loads: Mask
    linked: bool


class Free(NamedTuple):
    """What of a node can be held now.

    Attributes:
        on: Engines that are free whole and powered.
        off: Engines that are free whole once woken.
        parts: (position, thousandths left) of engines that are partly held.
        cpu_millis: -1 while the node's host resources cannot be held.
        memory_bytes: The same.
        calm: For work without engines, lowest first: 0 = the node has none to strand, 1 = some
            are in use already, 2 = all are free.
        loaded: Bitstream reference -> which engines have it; "" = which are empty.
    """

    on: Mask
    off: Mask
    parts: tuple[tuple[int, int], ...]
    cpu_millis: int
    memory_bytes: int
    calm: int
    loaded: tuple[tuple[str, Mask], ...]


_HOST: Final = slice(3, 7)  # of `Free`: all that is not of engines alone
CLOSED: Final = Free(0, 0, (), -1, -1, 0, ())  # out of service, or about to be


class Trunk(NamedTuple):
    """A link from one switch to another, seen from one end."""

    other: str
    link: Link
    away: Direction
    back: Direction


class Ladder:
    """Nodes by how much they have (the rung), on each rung by free CPU, least first.

    On each rung the nodes at home stand before those afar (see `Pool.divide`).
    """

    __slots__ = ("afar", "order", "rungs")

    def __init__(self) -> None:
        self.rungs: dict[int, list[int]] = {}
        self.order: list[int] = []
        self.afar = 0  # how many entries are of nodes afar

    def put(self, rung: int, free: Free, tag: int) -> None:
        """Add a node, by its tag; the same node may stand on several rungs."""
        bucket = self.rungs.get(rung)
        if bucket is None:
            bucket = self.rungs[rung] = []
            insort(self.order, rung)
        insort(bucket, _key(free, tag))
        self.afar += tag >= _AFAR

    def take(self, rung: int, free: Free, tag: int) -> None:
        """Remove a node that was put with the same words."""
        bucket = self.rungs[rung]
        del bucket[bisect_left(bucket, _key(free, tag))]
        self.afar -= tag >= _AFAR
        if not bucket:
            del self.rungs[rung]
            self.order.remove(rung)

    def climb(
        self, least: int, cpu_millis: int = 0, *, home_first: bool = True
    ) -> Iterator[tuple[int, int]]:
        """Yield (rung, node) from a rung upwards, skipping nodes with less free CPU.

        Args:
            least: The lowest rung.
            cpu_millis: The least free CPU.
            home_first: Whether to climb twice, at home and then afar; else each rung once.
        """
        floor = cpu_millis << _NUMBER_BITS
        rungs = self.order[bisect_left(self.order, least) :]
        turns = [(floor, _AFAR)]
        if self.afar:
            turns.append((_AFAR | floor, 2 * _AFAR))
        walks = [turns] if not home_first else [[turn] for turn in turns]
        for walk in walks:
            for rung in rungs:
                bucket = self.rungs[rung]
                for low, high in walk:
                    end = bisect_left(bucket, high) if self.afar else len(bucket)
                    for index in range(bisect_left(bucket, low), end):
                        yield rung, bucket[index] & _NUMBER_MASK

    def descend(self) -> Iterator[tuple[int, int]]:
        """Yield (rung, node) from the highest rung downwards."""
        for rung in reversed(self.order):
            for key in self.rungs[rung]:
                yield rung, key & _NUMBER_MASK


def _key(free: Free, tag: int) -> int:
    return max(free.cpu_millis, 0) << _NUMBER_BITS | tag


# Which engines a request is content with: the numbers of their makes, each with the conditions
# that its node has to meet. Most have none.
Wares: TypeAlias = frozenset[tuple[int, tuple[Condition, ...]]]


class Stock:
    """What is free of some wares, kept sorted for best fit.

    Attributes:
        existing: How many engines there are, whoever holds them.
        on: Nodes by number of free powered engines.
        every: Nodes with free engines that are off, by number of free engines on or off.
        parts: Nodes by thousandths left on an engine that is partly held.
        free_on: Free powered engines in the whole cell.
        free_off: Free engines that are off.
        leaves: Leaf -> [free powered, free on or off].
        pods: Pod -> the same for all its leaves together.
    """

    __slots__ = (
        "_makes", "_masks", "_of_node", "_pod_of", "every", "existing", "free_off", "free_on",
        "leaves", "on", "parts", "pods", "wares",
    )  # fmt: skip

    def __init__(self, wares: Wares, pod_of: Mapping[str, str]) -> None:
        self.wares = wares
        self._pod_of = pod_of
        self._makes = frozenset(make for make, conditions in wares if not conditions)
        self._masks: dict[tuple[int, ...], Mask] = {}
        self._of_node: dict[int, Mask] | None = {} if any(c for _, c in wares) else None
        self.existing = 0
        self.on = Ladder()
        self.every = Ladder()
        self.parts = Ladder()
        self.free_on = 0
        self.free_off = 0
        self.leaves: dict[str, list[int]] = {}
        self.pods: dict[str, list[int]] = {}

    def mask(self, site: Site) -> Mask:
        """Return which engines of a node are of these wares."""
        if self._of_node is not None:
            return self._of_node.get(site.number, 0)
        mask = self._masks.get(site.makes)
        if mask is None:
            mask = self._masks[site.makes] = _mask_of(site.makes, self._makes)
        return mask

    def admit(self, site: Site, node: Node) -> None:
        """Note a node, before the first `put` of it."""
        if self._of_node is not None:
            found = _found_at(node)
            here = {make for make, conditions in self.wares if all_hold(conditions, found)}
            self._of_node[site.number] = _mask_of(site.makes, here)
        self.existing += self.mask(site).bit_count()

    def dismiss(self, site: Site) -> None:
        """Forget a node, after the last `take` of it."""
        self.existing -= self.mask(site).bit_count()
        if self._of_node is not None:
            del self._of_node[site.number]

    def put(self, site: Site, free: Free, tag: int) -> None:
        """Add what is free on a node."""
        self.replace(site, CLOSED, free, tag)

    def take(self, site: Site, free: Free, tag: int) -> None:
        """Remove what was put with the same words."""
        self.replace(site, free, CLOSED, tag)

    def replace(self, site: Site, before: Free, after: Free, tag: int) -> None:
        """Put what is free on a node now in place of what was put before."""
        mask = self.mask(site)
        if not mask:
            return
        on, off = before.on & mask, before.off & mask
        new_on, new_off = after.on & mask, after.off & mask
        moved = on != new_on or off != new_off or before.cpu_millis != after.cpu_millis
        if moved and (on | off | new_on | new_off):
            powered, asleep = on.bit_count(), off.bit_count()
            new_powered, new_asleep = new_on.bit_count(), new_off.bit_count()
            self.free_on += new_powered - powered
            self.free_off += new_asleep - asleep
            if powered:
                self.on.take(powered, before, tag)
            if new_powered:
                self.on.put(new_powered, after, tag)
            if asleep:
                self.every.take(powered + asleep, before, tag)
            if new_asleep:
                self.every.put(new_powered + new_asleep, after, tag)
            for leaf, ports in site.leaves:
                more = (new_on & ports).bit_count() - (on & ports).bit_count()
                either = more + (new_off & ports).bit_count() - (off & ports).bit_count()
                for table, name in ((self.leaves, leaf), (self.pods, self._pod_of[leaf])):
                    totals = table.get(name)
                    if totals is None:
                        totals = table[name] = [0, 0]
                    totals[0] += more
                    totals[1] += either
        if before.parts != after.parts or before.cpu_millis != after.cpu_millis:
            for rest in {rest for position, rest in before.parts if mask >> position & 1}:
                self.parts.take(rest, before, tag)
            for rest in {rest for position, rest in after.parts if mask >> position & 1}:
                self.parts.put(rest, after, tag)


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
        hosts: Nodes by `Free.calm`, for host resources alone.
        cpu_millis: Free CPU of the whole cell.
        memory_bytes: Free memory of the whole cell.
        loaded: Bitstream reference -> node number -> which engines have it.
        divided: Whether some nodes are not home.
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
            for site in self.sites:
                if site is not None:
                    stock.admit(site, self.view.cell.nodes[site.name])
                    stock.put(site, self.free[site.number], self._tags[site.number])
            while len(self._stocks) > _STOCK_ENTRIES_MAX // (len(self.sites) + 1000):
                del self._stocks[next(iter(self._stocks))]
        self._stocks[wares] = stock  # the last is the one asked for latest
        return stock

    def recall(self, key: Hashable, work_out: Callable[[], T]) -> T:
        """Return what follows from the inventory alone, worked out once until that changes."""
        if key not in self._memo:
            if len(self._memo) > _MEMO_MAX:
                self._memo.clear()
            self._memo[key] = work_out()
        found: T = self._memo[key]
        return found

    def position(self, engine: str) -> tuple[Site, int] | None:
        """Return where an engine is, or None where the cell has no such engine and node."""
        number = self.numbers.get(engine.partition("/")[0])
        site = None if number is None else self.sites[number]
        if site is None or engine not in site.engines:
            return None
        return site, site.engines.index(engine)

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
        units = list(self._units)
        self._units.clear()  # the set stays the view's listener
        numbers: set[int] = set()
        for unit in units:
            kind, place, *_ = unit.split("/", 2)
            if kind in ("engine", "share", "host", "node"):
                number = self.numbers.get(place)
                if number is not None:
                    numbers.add(number)
            else:
                self._fold_way(kind, unit)
        for number in numbers:
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
        if before[_HOST] != after[_HOST]:
            self._remove(site, before)
            self._insert(site, after)
            return
        # Most claims are of engines alone, and leave the node's place among hosts as it is.
        self.free[site.number] = after
        tag = self._tags[site.number]
        for stock in self._stocks.values():
            stock.replace(site, before, after, tag)

    def _remove(self, site: Site, free: Free) -> None:
        tag = self._tags[site.number]
        for stock in self._stocks.values():
            stock.take(site, free, tag)
        if free.cpu_millis >= 0:
            self.hosts.take(free.calm, free, tag)
            self.cpu_millis -= free.cpu_millis
            self.memory_bytes -= free.memory_bytes
        for reference, _ in free.loaded:
            there = self.loaded[reference]
            del there[site.number]
            if not there:
                del self.loaded[reference]

    def _insert(self, site: Site, free: Free) -> None:
        self.free[site.number] = free
        tag = self._tags[site.number]
        for stock in self._stocks.values():
            stock.put(site, free, tag)
        if free.cpu_millis >= 0:
            self.hosts.put(free.calm, free, tag)
            self.cpu_millis += free.cpu_millis
            self.memory_bytes += free.memory_bytes
        for reference, mask in free.loaded:
            self.loaded.setdefault(reference, {})[site.number] = mask

    # -- reading the view

    def _rebuild(self) -> None:
        self._units.clear()
        self._things.clear()
        self._reshaped = False
        self.sites: list[Site | None] = []
        self.free: list[Free] = []
        self._tags: list[int] = []
        self.divided = False
        self.leaves_afar: frozenset[str] = frozenset()
        self.numbers: dict[str, int] = {}
        self.makes: list[Make] = []
        self.counts: list[int] = []
        self._make_numbers: dict[Make, int] = {}
        self._makes_written: dict[tuple[str, str, int, bool, bool, int, str], int] = {}
        self._shapes: dict[tuple[int, ...], tuple[int, ...]] = {}
        self.leaf_sites: dict[str, list[int]] = {}
        self.pod_of: dict[str, str] = {}
        self.leaf_engines = 0
        self._on_leaf: dict[str, int] = {}
        self.pods: dict[str, list[str]] = {}
        self.hosts = Ladder()
        self.cpu_millis = self.memory_bytes = 0
        self.loaded: dict[str, dict[int, Mask]] = {}
        self._stocks: dict[Wares, Stock] = {}
        self._memo: dict[Hashable, Any] = {}
        view = self.view
        self.trunks = self._survey_trunks()
        self.shut: set[str] = set()
        self.spoken: dict[tuple[str, Direction], int] = {}
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
        return self._tags[self.numbers[node]] >= _AFAR

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
        self.hosts = Ladder()
        self._stocks.clear()
        for site, free in zip(self.sites, self.free, strict=True):
            if site is None:
                continue
            key = site.leaves[0][0] if by_leaf and site.leaves else site.name
            tag = self._tags[site.number] = site.number | _AFAR * (key in afar)
            if free.cpu_millis >= 0:
                self.hosts.put(free.calm, free, tag)

    def _survey(self, name: str) -> None:
        """See anew what there is at a node: it came, changed or went."""
        number = self.numbers.get(name)
        old = None if number is None else self.sites[number]
        if old is not None:
            self._remove(old, self.free[old.number])
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
                self.sites[old.number] = None
                self.free[old.number] = CLOSED
                del self.numbers[name]
            return
        if number is None:
            number = self.numbers[name] = len(self.sites)
            self.sites.append(None)
            self.free.append(CLOSED)
            self._tags.append(number)
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
        self._insert(site, self._read(site))

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
        for position, unit in enumerate(site.units):
            if wanted and wanted.get(unit):
                pass
            elif unit in holders:
                # A plan of ours that wakes the engine stands beside the one that keeps it off.
                names = holders[unit]
                if names[0].startswith(OFF) and site.engines[position] not in shares:
                    off |= bit * all(name.startswith(OFF) for name in names)
            elif not shares or site.engines[position] not in shares:
                on |= bit
            elif self.makes[site.makes[position]].shareable:
                rest = WHOLE_MILLIS - sum(shares[site.engines[position]].values())
                if rest > 0:
                    parts.append((position, rest))
            bit <<= 1
        cpu_millis, memory_bytes = view.free_host(site.name)
        if wanted and wanted.get(f"host/{site.name}"):
            cpu_millis = memory_bytes = -1
        calm = 0
        if site.engines:
            calm = 2 if (on | off).bit_count() == len(site.engines) else 1
        loaded = self._loaded(site) if site.loads else ()
        return Free(on, off, tuple(parts), cpu_millis, memory_bytes, calm, loaded)

    def _loaded(self, site: Site) -> tuple[tuple[str, Mask], ...]:
        found: dict[str, Mask] = {}
        for position, engine in enumerate(site.engines):
            if site.loads >> position & 1:
                observed = self.view.observed.get(engine)
                reference = observed.bitstream if observed else ""
                found[reference] = found.get(reference, 0) | 1 << position
        return tuple(sorted(found.items()))


def _mask_of(makes: tuple[int, ...], wanted: Container[int]) -> Mask:
    return sum(1 << position for position, make in enumerate(makes) if make in wanted)


def _found_at(node: Node) -> dict[str, str]:
    words = {key: text_of(value) for key, value in node.attributes.items()}
    return {
        **words,
        "node": node.name,
        "rack": node.rack,
        "pod": node.pod,
        "domain": node.domain,
    }
