"""Which engines and hosts does a request get: best fit, powered first, near to each other?"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Final, NamedTuple, TypeVar

from flowos.model.cell import WHOLE_MILLIS
from flowos.model.units import kind_of, subject_of
from flowos.planning.chance import one_of, scramble
from flowos.planning.demand import Demand, HostWant, Want
from flowos.planning.pool import NOWHERE, Mask, Pool, Site, Stock

_FEW: Final = 8  # a seed chooses among this many: eight schedulers then seldom meet
_LOOKED_AT_MAX: Final = 256  # nodes compared by what is loaded; loading costs seconds, not a cell
_TOGETHER: Final = {"node": 0, "switch": 1}  # the narrowest choose first

Pick = tuple[int, Mask]  # node number, which of its engines
Effort = tuple[int, int, bool, int, int]
T = TypeVar("T")


class Chosen(NamedTuple):
    """Engines of one role, with the choice that they satisfy."""

    want: Want
    picks: tuple[Pick, ...]


class Missing(NamedTuple):
    """The first role for which nothing was left, as things stood then."""

    wants: tuple[Want, ...]
    host: HostWant | None = None


class Selection(NamedTuple):
    """What was found for every role."""

    engines: Mapping[str, Chosen]
    hosts: Mapping[str, tuple[str, ...]]


class Draft:
    """What a plan in the making has taken off the pool.

    Attributes:
        taken: Node number -> engines taken whole.
        parts: (node number, position) -> thousandths taken.
        loads: (node number, position) -> bitstream that a part taken of it needs.
        hosts: Node number -> (CPU thousandths, bytes of memory) taken.
        closed: Nodes that are not to be used.
        wake: Whether engines that are off may be taken.
    """

    __slots__ = ("closed", "hosts", "loads", "parts", "pool", "taken", "touched", "wake")

    def __init__(self, pool: Pool, avoid: Collection[str] = (), closed: Iterable[int] = ()) -> None:
        self.pool = pool
        self.taken: dict[int, Mask] = {}
        self.parts: dict[tuple[int, int], int] = {}
        self.loads: dict[tuple[int, int], str] = {}
        self.hosts: dict[int, tuple[int, int]] = {}
        self.closed = set(closed)
        self.touched = set(self.closed)
        self.wake = False
        for unit in avoid:
            self._avoid(unit)

    def _avoid(self, unit: str) -> None:
        kind = kind_of(unit)
        if kind in ("engine", "share"):
            found = self.pool.position(subject_of(unit))
            if found is not None:
                site, position = found
                self.take(site.number, 1 << position)
                self.parts[site.number, position] = WHOLE_MILLIS
        elif kind in ("host", "node"):
            number = self.pool.numbers.get(subject_of(unit))
            if number is not None and kind == "node":
                self.closed.add(number)
                self.touched.add(number)
            elif number is not None:
                free = self.pool.free[number]
                self.take(number, 0, free.cpu_millis + 1, free.memory_bytes + 1)

    def copy(self) -> "Draft":
        """Return a draft that can be thrown away."""
        other = Draft(self.pool)
        other.taken, other.parts, other.hosts = (
            self.taken.copy(),
            self.parts.copy(),
            self.hosts.copy(),
        )
        other.loads, other.closed, other.wake = self.loads.copy(), self.closed, self.wake
        other.touched = self.touched.copy()
        return other

    def take(self, number: int, mask: Mask, cpu_millis: int = 0, memory_bytes: int = 0) -> None:
        """Take engines and host resources of a node."""
        self.touched.add(number)
        self.taken[number] = self.taken.get(number, 0) | mask
        if cpu_millis or memory_bytes:
            cpu, memory = self.hosts.get(number, (0, 0))
            self.hosts[number] = (cpu + cpu_millis, memory + memory_bytes)

    def take_engines(self, want: Want, picks: Iterable[Pick]) -> None:
        """Take what was chosen for a role, with the host resources that come beside it."""
        for number, mask in picks:
            count = mask.bit_count()
            if want.shared:
                key = (number, mask.bit_length() - 1)
                self.parts[key] = self.parts.get(key, 0) + want.millis
                if want.bitstream:
                    self.loads[key] = want.bitstream
            self.take(
                number,
                0 if want.shared else mask,
                want.cpu_millis * count,
                want.memory_bytes * count,
            )

    def site(self, number: int) -> Site:
        """Return a node."""
        site = self.pool.sites[number]
        assert site is not None, "plans only see nodes that exist"
        return site

    def host(self, number: int) -> tuple[int, int]:
        """Return the CPU and the memory that are left on a node."""
        free = self.pool.free[number]
        if number not in self.touched:
            return free.cpu_millis, free.memory_bytes
        if number in self.closed:
            return -1, -1
        cpu, memory = self.hosts.get(number, (0, 0))
        return free.cpu_millis - cpu, free.memory_bytes - memory

    def engines(self, number: int, stock: Stock) -> Mask:
        """Return the engines of a stock on a node that are left whole."""
        free = self.pool.free[number]
        mask = (free.on | free.off if self.wake else free.on) & stock.mask(self.site(number))
        if number in self.touched:
            mask &= ~self.taken.get(number, 0)
            if number in self.closed:
                return 0
            for place, position in self.parts:
                if place == number:
                    mask &= ~(1 << position)
        return mask

    def broken(self, number: int, stock: Stock) -> Iterator[tuple[int, int]]:
        """Yield (position, thousandths left) of a node's engines that are partly held."""
        if number in self.closed:
            return
        mask = stock.mask(self.site(number)) & ~self.taken.get(number, 0)
        left = dict(self.pool.free[number].parts)
        for place, position in self.parts:
            if place == number and position not in left:
                left[position] = WHOLE_MILLIS  # a whole one until this draft took a part
        for position, rest in left.items():
            if mask >> position & 1:
                yield position, rest - self.parts.get((number, position), 0)

    def room(self, number: int, want: Want, stock: Stock, among: Mask = -1) -> tuple[Mask, int]:
        """Return the engines of a node that a role could use, and how many at once."""
        mask = self.engines(number, stock) & among
        limit = mask.bit_count()
        if limit and (want.cpu_millis or want.memory_bytes):
            cpu, memory = self.host(number)
            if want.cpu_millis:
                limit = min(limit, cpu // want.cpu_millis)
            if want.memory_bytes:
                limit = min(limit, memory // want.memory_bytes)
        return mask, max(limit, 0)


# -- all roles


def choose(
    pool: Pool,
    demand: Demand,
    *,
    joined: Collection[str] = (),
    spread: str = "pack",
    seed: int = 0,
    avoid: Collection[str] = (),
    closed: Iterable[int] = (),
) -> Selection | tuple[Missing, Draft]:
    """Find engines and hosts for every role, each with the first of its choices that fits.

    Args:
        pool: Folded by the caller.
        demand: What is asked.
        joined: Roles that circuits join: they are laid near to each other.
        spread: pack, spread (over nodes) or rack (over racks).
        seed: 0 takes the best; else one of the best few by chance.
        avoid: Units not to use.
        closed: Numbers of nodes not to use.
    """
    draft = Draft(pool, avoid, closed)
    chosen: dict[str, Chosen] = {}
    order = demand.engines
    if len(order) > 1:
        order = tuple(
            sorted(order, key=lambda wants: (_TOGETHER.get(wants[0].together, 2), -wants[0].count))
        )
    for turn, wants in enumerate(order):
        near = [c for role, c in chosen.items() if role in joined] if joined else []
        if wants[0].role not in joined:
            near = []
        for want in wants:
            picks = _choose_role(draft, want, near, spread, seed + turn if seed else 0)
            if picks is not None:
                draft.take_engines(want, picks)
                chosen[want.role] = Chosen(want, tuple(picks))
                break
        else:
            return Missing(wants), draft
    return choose_hosts(draft, demand, chosen, seed)


def choose_hosts(
    draft: Draft, demand: Demand, chosen: Mapping[str, Chosen], seed: int = 0
) -> Selection | tuple[Missing, Draft]:
    """Find the hosts for roles without engines, once the engines are chosen."""
    hosts: dict[str, tuple[str, ...]] = {}
    for host in demand.hosts:
        found = _hosts_for(draft, host, seed)
        if found is None:
            return Missing((), host), draft
        for number in found:
            draft.take(number, 0, host.cpu_millis, host.memory_bytes)
        hosts[host.role] = tuple(draft.site(number).name for number in found)
    return Selection(chosen, hosts)


def _choose_role(
    draft: Draft, want: Want, near: Sequence[Chosen], spread: str, seed: int
) -> list[Pick] | None:
    stock = draft.pool.stock(want.wares)
    for wake in (False, True):
        if wake and not stock.free_off:
            return None
        draft.wake = wake
        if stock.free_on + wake * stock.free_off < want.count and not want.shared:
            continue
        if want.shared:
            picks = _part(draft, want, stock, seed)
        elif want.together == "node":
            picks = _near(draft, want, stock, near) if near else None
            picks = picks or _one_node(draft, want, stock, seed)
        elif spread == "pack":
            picks = _packed(draft, want, stock, near, seed)
        else:
            picks = _scattered(draft, want, stock, spread, seed)
        if picks is not None:
            return picks
    return None


def _packed(
    draft: Draft, want: Want, stock: Stock, near: Sequence[Chosen], seed: int
) -> list[Pick] | None:
    picks = _near(draft, want, stock, near) if near else None
    if picks is None:
        picks = _one_node(draft, want, stock, seed)
    if picks is None and want.count > 1:
        picks = _one_leaf(draft, want, stock, seed)
        if picks is None and want.together != "switch":
            picks = _many_leaves(draft, want, stock)
    return picks


# -- one node


def _one_node(draft: Draft, want: Want, stock: Stock, seed: int) -> list[Pick] | None:
    """The node with the fewest leftover engines, then the tightest host."""
    few = _FEW if seed or draft.wake else 1
    if want.bitstream:
        ranked = sorted(
            (_effort(draft, want, number, mask), number, mask)
            for number, mask in _loaded_nodes(draft, want, stock)
        )[:few]
        if not ranked:
            return None
        _, number, mask = _one_of(draft, ranked, ranked[0][1], seed)
    elif not draft.touched and not draft.wake:
        # The ladder's order is the order of preference, and nothing was taken off it.
        climbing = _climb(draft, want, stock, few)
        found = list(islice(climbing, 1))
        if not found:
            return None
        if not (draft.pool.divided and not _is_afar(draft, found[0][0])):
            found += islice(climbing, few - 1)
        number, mask = _one_of(draft, found, found[0][0], seed)
    else:
        ranked = sorted(
            (_effort(draft, want, number, mask), number, mask)
            for number, mask in _climb(draft, want, stock, few)
        )[:few]
        if not ranked:
            return None
        _, number, mask = _one_of(draft, ranked, ranked[0][1], seed)
    return [(number, _positions(draft, want, number, mask, want.count))]


def _one_of(draft: Draft, ranked: Sequence[T], best: int, seed: int) -> T:
    """One of the best few by chance, where rivals may want them too; at home just the best."""
    at_home = draft.pool.divided and not _is_afar(draft, best)
    return ranked[0] if at_home else one_of(ranked, seed)


def _is_afar(draft: Draft, number: int) -> bool:
    return draft.pool.is_afar(draft.site(number).name)


def _climb(draft: Draft, want: Want, stock: Stock, few: int) -> Iterator[Pick]:
    """Yield nodes with room for the whole role: a few of each kind, the best of each first."""
    count = want.count
    cpu, memory = want.cpu_millis * count, want.memory_bytes * count
    ladders = (stock.on, stock.every) if draft.wake else (stock.on,)
    for number in sorted(draft.touched):
        mask, limit = draft.room(number, want, stock)
        if limit >= count and _on_one_leaf(draft, want, number, mask):
            yield number, mask
    states = draft.pool.free
    for ladder in ladders:
        found = 0
        for _, number in ladder.climb(count, cpu):
            free = states[number]
            if (cpu or memory) and (free.memory_bytes < memory or free.cpu_millis < cpu):
                continue
            if number in draft.touched:
                continue
            mask = draft.engines(number, stock)
            if not _on_one_leaf(draft, want, number, mask):
                continue
            yield number, mask
            found += 1
            if found >= few:
                break


def _on_one_leaf(draft: Draft, want: Want, number: int, mask: Mask) -> bool:
    """Whether a role that must be on one switch can be so on this node."""
    if want.together != "switch":
        return True
    return _leaf_mask(draft.site(number), mask, want.count) is not None


def _leaf_mask(site: Site, mask: Mask, count: int) -> Mask | None:
    for leaf, ports in site.leaves:
        if leaf != NOWHERE and (mask & ports).bit_count() >= count:
            return mask & ports
    return None


def _loaded_nodes(draft: Draft, want: Want, stock: Stock) -> Iterator[Pick]:
    """Yield nodes with room where the bitstream is, where nothing is, and some others."""
    seen: set[int] = set()
    for reference in (want.bitstream, ""):
        there = draft.pool.loaded.get(reference, {})
        for number in islice(there, _LOOKED_AT_MAX):
            mask, limit = draft.room(number, want, stock)
            if (
                limit >= want.count
                and number not in seen
                and _on_one_leaf(draft, want, number, mask)
            ):
                seen.add(number)
                yield number, mask
    for number, mask in _climb(draft, want, stock, _FEW):
        if number not in seen:
            yield number, mask


def _effort(draft: Draft, want: Want, number: int, mask: Mask) -> Effort:
    """Return how much there is to do and to waste on a node: to wake, to load, left over.

    A node at home comes before one afar, unless that saves waking or loading.
    """
    free = draft.pool.free[number]
    count = want.count
    asleep = max(count - (mask & free.on).bit_count(), 0)
    loads = 0
    if want.bitstream:
        picked = _positions(draft, want, number, mask, count)
        loaded = dict(free.loaded)
        hot = (picked & loaded.get(want.bitstream, 0)).bit_count()
        empty = (picked & loaded.get("", 0)).bit_count()
        loads = 2 * (count - hot) - empty
    afar = draft.pool.divided and _is_afar(draft, number)
    left = mask.bit_count() - count
    return asleep, loads, afar, left, draft.host(number)[0] - want.cpu_millis * count


def _positions(draft: Draft, want: Want, number: int, mask: Mask, count: int) -> Mask:
    """Return `count` engines out of a mask: powered before off, loaded before empty, in order."""
    site = draft.site(number)
    if want.together == "switch":
        mask = _leaf_mask(site, mask, count) or mask
    if mask.bit_count() == count:
        return mask
    free = draft.pool.free[number]
    tiers = [free.on, -1]
    if want.bitstream:
        loaded = dict(free.loaded)
        warm = [loaded.get(want.bitstream, 0), loaded.get("", 0), -1]
        tiers = [power & heat for power in tiers for heat in warm]
    picked = 0
    for tier in tiers:
        left = mask & tier & ~picked
        while left and count:
            lowest = left & -left
            picked |= lowest
            left ^= lowest
            count -= 1
    return picked


# -- near what is placed already


def _near(draft: Draft, want: Want, stock: Stock, near: Sequence[Chosen]) -> list[Pick] | None:
    """The same leaf as the roles that circuits join this one with, on one node if it can be."""
    leaves: dict[str, None] = {}
    for chosen in near:
        for number, mask in chosen.picks:
            for leaf, ports in draft.site(number).leaves:
                if mask & ports and leaf != NOWHERE:
                    leaves[leaf] = None
    for leaf in leaves:
        rooms: list[tuple[Effort, int, Mask]] = []
        for number, ports in _ports_on(draft, leaf):
            mask, limit = draft.room(number, want, stock, ports)
            if limit >= want.count:
                rooms.append((_effort(draft, want, number, mask), number, mask))
        if rooms:
            _, number, mask = min(rooms)
            return [(number, _positions(draft, want, number, mask, want.count))]
        if want.together != "node":
            picks = _within(draft, want, stock, _ports_on(draft, leaf), want.count)
            if picks is not None:
                return picks
    return None


def _ports_on(draft: Draft, leaf: str) -> Iterator[Pick]:
    for number in draft.pool.leaf_sites.get(leaf, ()):
        yield number, next(ports for name, ports in draft.site(number).leaves if name == leaf)


# -- several nodes


def _within(
    draft: Draft, want: Want, stock: Stock, places: Iterable[Pick], count: int
) -> list[Pick] | None:
    """As few of these nodes as possible: the largest first, the last the one that fits best."""
    rooms: list[tuple[int, int, Mask]] = []
    for number, among in places:
        mask, limit = draft.room(number, want, stock, among)
        if limit:
            rooms.append((limit, number, mask))
    if sum(limit for limit, _, _ in rooms) < count:
        return None
    rooms.sort(key=lambda room: (-room[0], room[1]))
    picks: list[Pick] = []
    for index, (limit, number, mask) in enumerate(rooms):
        if limit < count:
            picks.append((number, _positions_plain(draft, want, number, mask, limit)))
            count -= limit
            continue
        last = rooms[index]
        for room in rooms[index + 1 :]:
            if room[0] < count:
                break
            if room[0] < last[0]:
                last = room
        picks.append((last[1], _positions_plain(draft, want, last[1], last[2], count)))
        return picks
    return None


def _positions_plain(draft: Draft, want: Want, number: int, mask: Mask, count: int) -> Mask:
    # The mask is narrowed to one leaf already where that matters.
    if mask.bit_count() == count:
        return mask
    return _positions(draft, _anywhere(want), number, mask, count)


def _anywhere(want: Want) -> Want:
    if want.together != "switch":
        return want
    return Want(
        want.role, want.count, want.millis, want.cpu_millis, want.memory_bytes, "any",
        want.bitstream, want.wares, want.funnel, want.named,
    )  # fmt: skip


def _one_leaf(draft: Draft, want: Want, stock: Stock, seed: int) -> list[Pick] | None:
    """The leaf switch with the fewest engines left over."""
    which = 1 if draft.wake else 0
    if want.count > draft.pool.leaf_engines:
        return None
    afar = draft.pool.leaves_afar
    fitting = sorted(
        (leaf in afar, totals[which], leaf)
        for leaf, totals in stock.leaves.items()
        if totals[which] >= want.count and leaf != NOWHERE
    )
    if seed and len(fitting) > 1 and (fitting[0][0] or not afar):
        few = fitting[:_FEW]
        first = scramble(seed) % len(few)
        fitting = [*few[first:], *few[:first], *fitting[_FEW:]]
    for _, _, leaf in fitting:
        picks = _within(draft, want, stock, _ports_on(draft, leaf), want.count)
        if picks is not None:
            return picks
    return None


def _many_leaves(draft: Draft, want: Want, stock: Stock) -> list[Pick] | None:
    """As few leaves as possible, in one pod if one has enough."""
    which = 1 if draft.wake else 0
    fitting = sorted(
        (both[which], pod) for pod, both in stock.pods.items() if pod and both[which] >= want.count
    )
    groups = (draft.pool.pods[pod] for _, pod in fitting[:_FEW])
    for group in chain(groups, [stock.leaves]):
        # Leaves of a pod that have none of these wares are not in the stock.
        there = [(leaf, stock.leaves[leaf][which]) for leaf in group if leaf in stock.leaves]
        totals = {leaf: total for leaf, total in there if total}
        picks = _fill(draft.copy(), want, stock, totals)
        if picks is not None:
            return picks
    return None


def _fill(draft: Draft, want: Want, stock: Stock, totals: dict[str, int]) -> list[Pick] | None:
    rest = want.count
    picks: dict[int, Mask] = {}
    while rest and totals:
        leaf = _next_leaf(totals, rest)
        del totals[leaf]
        rooms = sum(draft.room(n, want, stock, ports)[1] for n, ports in _ports_on(draft, leaf))
        if not rooms:
            continue
        got = _within(draft, want, stock, _ports_on(draft, leaf), min(rest, rooms))
        assert got is not None, "no more was asked than there is room for"
        draft.take_engines(want, got)
        for number, mask in got:
            picks[number] = picks.get(number, 0) | mask
            rest -= mask.bit_count()
    return None if rest else list(picks.items())


def _next_leaf(totals: Mapping[str, int], rest: int) -> str:
    """The leaf that fits the rest best, or else the largest; what has no port at all comes last."""
    ported = [leaf for leaf in totals if leaf != NOWHERE] or list(totals)
    fitting = [leaf for leaf in ported if totals[leaf] >= rest]
    if fitting:
        return min(fitting, key=lambda leaf: (totals[leaf], leaf))
    return min(ported, key=lambda leaf: (-totals[leaf], leaf))


def _scattered(draft: Draft, want: Want, stock: Stock, spread: str, seed: int) -> list[Pick] | None:
    """As many nodes, or racks, as possible."""
    if want.together == "switch":
        which = 1 if draft.wake else 0
        leaves = sorted(
            (totals[which], leaf)
            for leaf, totals in stock.leaves.items()
            if totals[which] >= want.count and leaf != NOWHERE
        )
        for _, leaf in leaves:
            picks = _round_robin(draft, want, stock, spread, list(_ports_on(draft, leaf)), seed)
            if picks is not None:
                return picks
        return None
    ladders = (stock.on, stock.every) if draft.wake else (stock.on,)
    numbers = dict.fromkeys(number for ladder in ladders for _, number in ladder.climb(1))
    return _round_robin(draft, want, stock, spread, [(number, -1) for number in numbers], seed)


def _round_robin(
    draft: Draft, want: Want, stock: Stock, spread: str, places: Sequence[Pick], seed: int
) -> list[Pick] | None:
    groups: dict[str, list[list[int]]] = {}
    for number, among in places:
        mask, limit = draft.room(number, want, stock, among)
        if limit:
            site = draft.site(number)
            group = site.rack if spread == "rack" and site.rack else site.name
            groups.setdefault(group, []).append([number, mask, limit, 0])
    if sum(room[2] for rooms in groups.values() for room in rooms) < want.count:
        return None
    # The groups with least to spare first: they are of least use to a gang that wants to be close.
    order = sorted(groups, key=lambda group: (sum(room[2] for room in groups[group]), group))
    if seed:
        first = scramble(seed) % max(len(order) - want.count + 1, 1)
        order = [*order[first:], *order[:first]]
    rest = want.count
    while rest:
        for group in order:
            open_rooms = [room for room in groups[group] if room[3] < room[2]]
            if open_rooms and rest:
                # Within a rack the node that was used already, for the host's sake.
                max(open_rooms, key=lambda room: (room[3] > 0, -room[2], -room[0]))[3] += 1
                rest -= 1
    return [
        (number, _positions_plain(draft, want, number, mask, used))
        for group in order
        for number, mask, _, used in groups[group]
        if used
    ]


# -- parts of engines


def _part(draft: Draft, want: Want, stock: Stock, seed: int) -> list[Pick] | None:
    """The engine with the least thousandths left that still fits, then a whole one."""
    few = _FEW if seed else 1
    found = sorted(_parts(draft, want, stock, few))
    if draft.pool.divided:
        found.sort(key=lambda part: _is_afar(draft, part[2]))
        if found and _is_afar(draft, found[0][2]):
            whole = _one_node(draft, want, stock, seed)
            if whole and not _is_afar(draft, whole[0][0]):
                return whole
    if not found:
        return _one_node(draft, want, stock, seed)
    _, _, number, mask = _one_of(draft, found[:few], found[0][2], seed)
    return [(number, mask)]


def _parts(
    draft: Draft, want: Want, stock: Stock, few: int
) -> Iterator[tuple[int, int, int, Mask]]:
    """Yield (thousandths left, free CPU, node, engine) of engines that are partly held."""
    cpu, memory = want.cpu_millis, want.memory_bytes
    for number in sorted(draft.touched):
        left_cpu, left_memory = draft.host(number)
        if not (cpu or memory) or (left_cpu >= cpu and left_memory >= memory):
            for position, rest in draft.broken(number, stock):
                if rest >= want.millis and _suits(draft, want, number, position):
                    yield rest, left_cpu, number, 1 << position
    states = draft.pool.free
    fresh = 0
    for rest, number in stock.parts.climb(want.millis, cpu):
        free = states[number]
        if (cpu or memory) and (free.memory_bytes < memory or free.cpu_millis < cpu):
            continue
        if number in draft.touched:
            continue
        mask = stock.mask(draft.site(number))
        for position, left in free.parts:
            if left == rest and mask >> position & 1 and _suits(draft, want, number, position):
                yield rest, free.cpu_millis, number, 1 << position
                fresh += 1
                break
        if fresh >= few:
            return


def _suits(draft: Draft, want: Want, number: int, position: int) -> bool:
    """Whether a part of an engine will do: on a switch if so asked, loaded as its others need it."""
    if want.together == "switch" and _leaf_mask(draft.site(number), 1 << position, 1) is None:
        return False
    if not want.bitstream:
        return True
    if draft.loads.get((number, position), want.bitstream) != want.bitstream:
        return False
    view = draft.pool.view
    engine = draft.site(number).engines[position]
    return all(
        (placement := view.now(holder)) is not None
        and placement.bitstreams.get(engine) == want.bitstream
        for holder in view.shares.get(engine, ())
    )


# -- hosts


def _hosts_for(draft: Draft, host: HostWant, seed: int) -> list[int] | None:
    """Nodes without engines first, then those whose engines are in use, each the tightest."""
    few = host.count + (_FEW - 1 if seed else 0)
    ranked: list[tuple[int, bool, int, int]] = []
    for number in draft.touched:
        cpu, memory = draft.host(number)
        if cpu >= host.cpu_millis and memory >= host.memory_bytes and number not in draft.closed:
            calm = min(draft.pool.free[number].calm, 1)  # touched: its engines are in use, by us
            ranked.append((calm, _is_afar(draft, number), cpu, number))
    states = draft.pool.free
    found = 0
    for calm, number in draft.pool.hosts.climb(0, host.cpu_millis, home_first=False):
        free = states[number]
        if free.memory_bytes < host.memory_bytes or number in draft.touched:
            continue
        if host.linked and not draft.site(number).linked:
            continue
        ranked.append((calm, _is_afar(draft, number), free.cpu_millis, number))
        found += 1
        if found >= few:
            break
    if host.linked:
        ranked = [entry for entry in ranked if draft.site(entry[3]).linked]
    if len(ranked) < host.count:
        return None
    ranked.sort()
    if seed and (ranked[0][1] or not draft.pool.divided):
        few_ones = ranked[:few]
        first = scramble(seed) % (len(few_ones) - host.count + 1)
        ranked = few_ones[first:]
    return [number for _, _, _, number in ranked[: host.count]]
