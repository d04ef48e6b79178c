"""What is free of some wares, sorted so that the best fit is found at once?"""

from bisect import bisect_left, insort
from collections.abc import Callable, Container, Iterator, Mapping
from typing import Final, NamedTuple, TypeAlias

from flowos.model.cell import Node
from flowos.planning.where import Condition, all_hold, text_of

NOWHERE: Final = ""  # the leaf of engines that have no port on any switch
_NUMBER_BITS: Final = 24  # 16 million nodes
_NUMBER_MASK: Final = (1 << _NUMBER_BITS) - 1
_TURN_BITS: Final = 40  # before which engines of it were last given back
_CPU_SHIFT: Final = _NUMBER_BITS + _TURN_BITS
AFAR: Final = 1 << _CPU_SHIFT + 40  # in a node's tag: it is some other scheduler's to begin with
PLACE: Final = AFAR | _NUMBER_MASK  # of a tag: all but the turn

Mask: TypeAlias = int  # bit n = the node's engine n


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
        cpu_millis: What the node has, held or not.
        memory_bytes: The same.
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
    cpu_millis: int
    memory_bytes: int


class Free(NamedTuple):
    """What of a node can be held now.

    Attributes:
        on: Engines that are free whole and powered.
        off: Engines that are free whole once woken.
        parts: (position, thousandths left) of engines that are partly held.
        cpu_millis: -1 while the node's host resources cannot be held.
        memory_bytes: The same.
        calm: For work without engines, lowest first: 0 = the node has none to strand, 1 = none is
            free whole, 2 = some are, 3 = all are.
        loaded: Bitstream reference -> which engines have it; "" = which are empty.
    """

    on: Mask
    off: Mask
    parts: tuple[tuple[int, int], ...]
    cpu_millis: int
    memory_bytes: int
    calm: int
    loaded: tuple[tuple[str, Mask], ...]


CLOSED: Final = Free(0, 0, (), -1, -1, 0, ())  # out of service, or about to be


def tag_of(number: int, turn: int, *, afar: bool = False) -> int:
    """Return what tells a node on a ladder: who has the same CPU comes in order of turns."""
    return AFAR * afar | turn << _NUMBER_BITS | number


def turn_of(tag: int) -> int:
    """Return at which turn engines of a node were last given back; 0 = never."""
    return (tag & AFAR - 1) >> _NUMBER_BITS


class Ladder:
    """Nodes by how much they have (the rung), on each rung by free CPU, least first.

    Among nodes that have as much, the one whose engines have been idle longest comes first: those
    of the others are not powered off before they are used again.

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
        key = _key(free, tag)
        if not bucket or key > bucket[-1]:  # what was just given back comes last
            bucket.append(key)
        else:
            insort(bucket, key)
        self.afar += tag >= AFAR

    def take(self, rung: int, free: Free, tag: int) -> None:
        """Remove a node that was put with the same words."""
        bucket = self.rungs[rung]
        key = _key(free, tag)
        # Plans take the first; a search would touch numbers all over the bucket.
        del bucket[0 if bucket[0] == key else bisect_left(bucket, key)]
        self.afar -= tag >= AFAR
        if not bucket:
            del self.rungs[rung]
            self.order.remove(rung)

    def first(self, least: int) -> int | None:
        """Return the node on the lowest rung from one upwards; None = all rungs are lower."""
        if self.afar:
            return next((number for _, number in self.climb(least)), None)
        rung = bisect_left(self.order, least)
        return None if rung == len(self.order) else self.rungs[self.order[rung]][0] & _NUMBER_MASK

    def heads(self, least: int, few: int) -> list[tuple[int, int]]:
        """Return (rung, node): the first of each rung from one upwards, at home and afar."""
        heads: list[tuple[int, int]] = []
        place = bisect_left(self.order, least)
        for rung in self.order[place : place + few]:
            bucket = self.rungs[rung]
            if self.afar:
                far = bisect_left(bucket, AFAR)
                if 0 < far < len(bucket):
                    heads.append((rung, bucket[far] & _NUMBER_MASK))
            heads.append((rung, bucket[0] & _NUMBER_MASK))
        return heads

    def level(self, rung: int, few: int, *, afar: bool) -> list[int]:
        """Return the first few nodes of one rung, of those at home or of those afar."""
        bucket = self.rungs[rung]
        split = bisect_left(bucket, AFAR) if self.afar else len(bucket)
        some = bucket[split : split + few] if afar else bucket[: min(split, few)]
        return [key & _NUMBER_MASK for key in some]

    def climb(
        self, least: int, cpu_millis: int = 0, *, home_first: bool = True
    ) -> Iterator[tuple[int, int]]:
        """Yield (rung, node) from a rung upwards, skipping nodes with less free CPU.

        Args:
            least: The lowest rung.
            cpu_millis: The least free CPU.
            home_first: Whether to climb twice, at home and then afar; else each rung once.
        """
        floor = cpu_millis << _CPU_SHIFT
        rungs = self.order[bisect_left(self.order, least) :]
        turns = [(floor, AFAR)]
        if self.afar:
            turns.append((AFAR | floor, 2 * AFAR))
        walks = [turns] if not home_first else [[turn] for turn in turns]
        for walk in walks:
            for rung in rungs:
                bucket = self.rungs[rung]
                for low, high in walk:
                    end = bisect_left(bucket, high) if self.afar else len(bucket)
                    for index in range(bisect_left(bucket, low), end):
                        yield rung, bucket[index] & _NUMBER_MASK

    def ends(
        self, least: int, cpu_millis: int, few: int, fits: Callable[[int], bool]
    ) -> Iterator[tuple[int, int]]:
        """Yield (rung, node) from a rung upwards: of each rung those with least and most free CPU.

        Args:
            least: The lowest rung.
            cpu_millis: The least free CPU.
            few: How many from either end of a rung; as many again of the nodes afar.
            fits: Whether a node will do.
        """
        floor = cpu_millis << _CPU_SHIFT
        walks = [(floor, AFAR)]
        if self.afar:
            walks.append((AFAR | floor, 2 * AFAR))
        for rung in self.order[bisect_left(self.order, least) :]:
            bucket = self.rungs[rung]
            for low, high in walks:
                first = bisect_left(bucket, low)
                last = bisect_left(bucket, high) if self.afar else len(bucket)
                found = 0
                while first < last and found < few:
                    number = bucket[first] & _NUMBER_MASK
                    first += 1
                    if fits(number):
                        found += 1
                        yield rung, number
                found = 0
                while first < last and found < few:
                    last -= 1
                    number = bucket[last] & _NUMBER_MASK
                    if fits(number):
                        found += 1
                        yield rung, number

    def descend(self) -> Iterator[tuple[int, int]]:
        """Yield (rung, node) from the highest rung downwards."""
        for rung in reversed(self.order):
            for key in self.rungs[rung]:
                yield rung, key & _NUMBER_MASK


class Shelf:
    """Leaves by how many engines they have free: those with none are not on it.

    It is sorted when somebody looks: most plans do not, and the names of leaves that a search
    compares lie all over a large cell's memory.
    """

    __slots__ = ("_latest", "_stands", "order", "rungs")

    def __init__(self) -> None:
        self.rungs: dict[int, list[str]] = {}
        self.order: list[int] = []
        self._latest: dict[str, int] = {}  # since somebody looked
        self._stands: dict[str, int] = {}  # leaf -> its rung

    def move(self, leaf: str, after: int) -> None:
        """Note that a leaf has another number of free engines now."""
        self._latest[leaf] = after

    def _settle(self) -> None:
        for leaf, after in self._latest.items():
            before = self._stands.get(leaf, 0)
            if before != after:
                self._move(leaf, before, after)
                self._stands[leaf] = after
        self._latest.clear()

    def _move(self, leaf: str, before: int, after: int) -> None:
        if before:
            bucket = self.rungs[before]
            del bucket[bisect_left(bucket, leaf)]
            if not bucket:
                del self.rungs[before]
                self.order.remove(before)
        if after:
            found = self.rungs.get(after)
            if found is None:
                self.rungs[after] = [leaf]
                insort(self.order, after)
            else:
                insort(found, leaf)

    def climb(self, least: int) -> Iterator[tuple[int, str]]:
        """Yield (free engines, leaf) from so many upwards, by name where they have as many."""
        self._settle()
        for rung in self.order[bisect_left(self.order, least) :]:
            for leaf in self.rungs[rung]:
                yield rung, leaf

    def descend(self) -> Iterator[tuple[int, str]]:
        """Yield (free engines, leaf) from the most downwards."""
        self._settle()
        for rung in reversed(self.order):
            for leaf in self.rungs[rung]:
                yield rung, leaf


def _key(free: Free, tag: int) -> int:
    cpu = free.cpu_millis
    return cpu << _CPU_SHIFT | tag if cpu > 0 else tag


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
        mixed: Whether the wares are of several makes.
        leaves: Leaf -> [free powered, free on or off].
        pods: Pod -> the same for all its leaves together.
        shelf: Leaves with switches, by free powered engines.
    """

    __slots__ = (
        "_makes", "_masks", "_of_node", "_pod_of", "every", "existing", "free_off", "free_on",
        "leaves", "mixed", "on", "parts", "pods", "shelf", "wares",
    )  # fmt: skip

    def __init__(self, wares: Wares, pod_of: Mapping[str, str]) -> None:
        self.wares = wares
        self._pod_of = pod_of
        self._makes = frozenset(make for make, conditions in wares if not conditions)
        self._masks: dict[tuple[int, ...], Mask] = {}
        self._of_node: dict[int, Mask] | None = {} if any(c for _, c in wares) else None
        self.mixed = len(wares) > 1
        self.existing = 0
        self.on = Ladder()
        self.every = Ladder()
        self.parts = Ladder()
        self.free_on = 0
        self.free_off = 0
        self.leaves: dict[str, list[int]] = {}
        self.pods: dict[str, list[int]] = {}
        self.shelf = Shelf()

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
            self._of_node[site.number] = _mask_where(site, self.wares, _found_at(node))
        self.existing += self.mask(site).bit_count()

    def dismiss(self, site: Site) -> None:
        """Forget a node, after the last `take` of it."""
        self.existing -= self.mask(site).bit_count()
        if self._of_node is not None:
            self._of_node.pop(site.number, None)

    def put(self, site: Site, free: Free, tag: int) -> None:
        """Add what is free on a node."""
        self.replace(site, CLOSED, free, tag, tag)

    def replace(self, site: Site, before: Free, after: Free, tag: int, latest: int) -> None:
        """Put what is free on a node now, with its latest tag, in place of what was put before."""
        mask = self.mask(site)
        if not mask:
            return
        on, off = before.on & mask, before.off & mask
        new_on, new_off = after.on & mask, after.off & mask
        elsewhere = before.cpu_millis != after.cpu_millis or tag != latest
        if on != new_on or off != new_off or elsewhere:
            powered, new_powered = on.bit_count(), new_on.bit_count()
            self.free_on += new_powered - powered
            if powered:
                self.on.take(powered, before, tag)
            if new_powered:
                self.on.put(new_powered, after, latest)
            if off or new_off:
                asleep, new_asleep = off.bit_count(), new_off.bit_count()
                self.free_off += new_asleep - asleep
                if asleep:
                    self.every.take(powered + asleep, before, tag)
                if new_asleep:
                    self.every.put(new_powered + new_asleep, after, latest)
            if on != new_on or off != new_off:
                for leaf, ports in site.leaves:
                    more = (new_on & ports).bit_count() - (on & ports).bit_count()
                    if off or new_off:
                        woken = (new_off & ports).bit_count() - (off & ports).bit_count()
                        self._count(leaf, more, more + woken)
                    elif more:
                        self._count(leaf, more, more)
        if before.parts != after.parts or (elsewhere and after.parts):
            for rest in {rest for position, rest in before.parts if mask >> position & 1}:
                self.parts.take(rest, before, tag)
            for rest in {rest for position, rest in after.parts if mask >> position & 1}:
                self.parts.put(rest, after, latest)

    def _count(self, leaf: str, powered: int, either: int) -> None:
        totals = self.leaves.get(leaf)
        if totals is None:
            totals = self.leaves[leaf] = [0, 0]
        was = totals[0]
        totals[0] = was + powered
        totals[1] += either
        if powered and leaf != NOWHERE:
            self.shelf.move(leaf, was + powered)
        pod = self._pod_of[leaf]
        totals = self.pods.get(pod)
        if totals is None:
            totals = self.pods[pod] = [0, 0]
        totals[0] += powered
        totals[1] += either


def _mask_of(makes: tuple[int, ...], wanted: Container[int]) -> Mask:
    return sum(1 << position for position, make in enumerate(makes) if make in wanted)


def _mask_where(site: Site, wares: Wares, found: Mapping[str, str]) -> Mask:
    """Return the engines of a node that meet their conditions; `engine` is of each its own id."""
    mask = 0
    here: dict[int, list[Condition]] = {}
    for make, conditions in wares:
        if all_hold([c for c in conditions if c.key != "engine"], found):
            here[make] = [c for c in conditions if c.key == "engine"]
    for position, make in enumerate(site.makes):
        own = here.get(make)
        if own is not None and all(c.holds(site.engines[position]) for c in own):
            mask |= 1 << position
    return mask


def _found_at(node: Node) -> dict[str, str]:
    words = {key: text_of(value) for key, value in node.attributes.items()}
    return {
        **words,
        "node": node.name,
        "rack": node.rack,
        "pod": node.pod,
        "domain": node.domain,
    }
