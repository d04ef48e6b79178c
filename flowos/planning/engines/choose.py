"""Which engines and hosts does a request get: best fit, powered first, near to each other?"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Final, NamedTuple, TypeAlias

from flowos.planning.chance import one_of, scramble
from flowos.planning.demand import Demand, HostWant, Want
from flowos.planning.engines.draft import NO_SPEEDS, Draft, Pick
from flowos.planning.engines.pool import NOWHERE, Mask, Pool, Site, Stock
from flowos.planning.engines.scoring import Scorer, stranded_by_host
from flowos.planning.engines.weights import DEFAULT, Weights

__all__ = ("Chosen", "Draft", "Missing", "Pick", "Selection", "choose", "choose_hosts")

_FEW: Final = 8  # a seed chooses among this many: eight schedulers then seldom meet
_ENDS: Final = 2  # from either end of a rung: more did no better on five mixes of real jobs
_PARTS: Final = 8  # engines that are partly held, of the fullest that fit
_RUNGS_MAX: Final = 8
_NEAR: Final = 2.0  # what differs less in score is alike: far less than to wake or load an engine
_LOOKED_AT_MAX: Final = (
    1024  # nodes looked at for what is loaded; loading costs seconds, not a cell
)
_LOADED_MAX: Final = 32  # of them compared, where it is and where nothing is
_NONE: Final = (0, 0)  # free engines of a leaf that has none of a stock
_TOGETHER: Final = {"here": -1, "node": 0, "switch": 1}  # the narrowest choose first

# What it costs, the free CPU there, the node and which of its engines.
Scored: TypeAlias = tuple[float, int, int, Mask]


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
    weights: Weights = DEFAULT,
    speeds: Mapping[str, float] = NO_SPEEDS,
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
        weights: How much each feature of a place counts.
        speeds: Engine model -> how much of the slice's work it does in a second, or for a joule.
    """
    draft = Draft(pool, avoid, closed, weights, speeds, joined)
    chosen: dict[str, Chosen] = {}
    order = demand.engines
    if len(order) > 1:
        order = tuple(
            sorted(order, key=lambda wants: (_TOGETHER.get(wants[0].together, 2), -wants[0].count))
        )
    bound = _bound(draft, demand) if joined and demand.hosts else []
    for turn, wants in enumerate(order):
        near = [*bound, *(c for role, c in chosen.items() if role in joined)] if joined else []
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


def _bound(draft: Draft, demand: Demand) -> list[Chosen]:
    """The nodes that hosts at the ends of circuits are bound to, as if their engines were chosen."""
    numbers = [draft.pool.numbers.get(host.at) for host in demand.hosts if host.at and host.linked]
    anything = demand.engines[0][0] if demand.engines else None
    if anything is None:
        return []
    return [Chosen(anything, ((number, -1),)) for number in numbers if number is not None]


def choose_hosts(
    draft: Draft, demand: Demand, chosen: Mapping[str, Chosen], seed: int = 0
) -> Selection | tuple[Missing, Draft]:
    """Find the hosts for roles without engines, once the engines are chosen."""
    hosts: dict[str, tuple[str, ...]] = {}
    counts = {role: of.want.count for role, of in chosen.items()}
    for host in demand.hosts:
        devices = host.devices(counts)
        found = _hosts_for(draft, host, devices, seed)
        if found is None:
            return Missing((), host), draft
        for number in found:
            draft.take(number, 0, host.cpu_millis, host.memory_bytes)
            draft.attach(number, devices)
        hosts[host.role] = tuple(draft.site(number).name for number in found)
    return Selection(chosen, hosts)


def _choose_role(
    draft: Draft, want: Want, near: Sequence[Chosen], spread: str, seed: int
) -> list[Pick] | None:
    stock = draft.pool.stock(want.wares)
    for wake in (True,) if stock.free_off and _may_wake(draft, want, stock) else (False, True):
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


def _may_wake(draft: Draft, want: Want, stock: Stock) -> bool:
    """Whether an engine may be woken though powered ones would do, for what that saves."""
    weights = draft.weights
    saved = weights.load + weights.evict if want.bitstream else 0.0
    if draft.speeds and stock.mixed:
        saved += weights.speed
    return weights.wake < saved


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
    """The node with the least score; among equals the one with the tightest host."""
    ranked = _ranked(draft, want, stock, seed)
    if not ranked:
        return None
    _, _, number, picked = _one_of(draft, ranked, seed)
    return [(number, picked)]


def _ranked(draft: Draft, want: Want, stock: Stock, seed: int) -> list[Scored]:
    """Return nodes with room for the whole role, the best first."""
    if want.bitstream:
        found = _loaded_nodes(draft, want, stock)
    elif draft.minds_fragments():
        found = _ends(draft, want, stock, _FEW if seed else _ENDS)
    elif draft.speeds and stock.mixed:
        found = _of_each_make(draft, want, stock)
    elif draft.touched or draft.wake:
        found = _climb(draft, want, stock, _FEW if seed or draft.wake else _ENDS)
    else:
        return _first_ones(draft, want, stock, _FEW if seed else 1, seed)
    scorer = Scorer(draft, want, stock)
    ranked: list[Scored] = []
    for number, mask in found:
        picked = _positions(draft, want, number, mask, want.count)
        score = scorer.score(number, mask, picked)
        ranked.append((score, draft.host(number)[0], number, picked))
    ranked.sort()
    return ranked


def _first_ones(draft: Draft, want: Want, stock: Stock, few: int, seed: int) -> list[Scored]:
    """The ladder's order is the order of preference, where nothing was taken off it."""
    if not (want.cpu_millis or want.memory_bytes or want.together == "switch"):
        # Every node on the ladder will do: only the one that chance takes is looked at.
        number = stock.on.first(want.count)
        if number is None:
            return []
        if few > 1 and not (draft.pool.divided and not _is_afar(draft, number)):
            number = one_of([n for _, n in islice(stock.on.climb(want.count), few)], seed)
        mask = draft.pool.free[number].on & stock.mask(draft.site(number))
        return [(0.0, 0, number, _positions(draft, want, number, mask, want.count))]
    climbing = _climb(draft, want, stock, few)
    found = list(islice(climbing, 1))
    if found and few > 1 and not (draft.pool.divided and not _is_afar(draft, found[0][0])):
        found += islice(climbing, few - 1)
    return [
        (0.0, 0, number, _positions(draft, want, number, mask, want.count))
        for number, mask in found
    ]


def _one_of(draft: Draft, ranked: Sequence[Scored], seed: int) -> Scored:
    """One of the best few by chance, where rivals may want them too; at home just the best."""
    best = ranked[0]
    if not seed or (draft.pool.divided and not _is_afar(draft, best[2])):
        return best
    near = [scored for scored in ranked[:_FEW] if scored[0] <= best[0] + _NEAR]
    return one_of(near, seed)


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


def _of_each_make(draft: Draft, want: Want, stock: Stock) -> Iterator[Pick]:
    """Yield nodes with room for the whole role, a few of those with the same engines."""
    found: dict[tuple[int, ...], int] = {}
    for number, mask in _climb(draft, want, stock, _LOOKED_AT_MAX):
        makes = draft.site(number).makes
        found[makes] = found.get(makes, 0) + 1
        if found[makes] <= _FEW:
            yield number, mask


def _ends(draft: Draft, want: Want, stock: Stock, few: int) -> Iterator[Pick]:
    """Yield nodes with room for the whole role: of each number of free engines a few.

    They have the least and the most CPU left: what is scarce decides what would be stranded.
    """
    count = want.count
    cpu, memory = want.cpu_millis * count, want.memory_bytes * count
    for number in sorted(draft.touched):
        mask, limit = draft.room(number, want, stock)
        if limit >= count and _on_one_leaf(draft, want, number, mask):
            yield number, mask
    fits = _fitting(draft, want, stock, cpu, memory, leaf=want.together == "switch")
    for ladder in (stock.on, stock.every) if draft.wake else (stock.on,):
        rungs = 0
        last = 0
        for rung, number in ladder.ends(count, cpu, few, fits):
            if rung != last:
                last, rungs = rung, rungs + 1
                if rungs > _RUNGS_MAX:
                    break
            yield number, draft.engines(number, stock)


def _fitting(
    draft: Draft, want: Want, stock: Stock, cpu_millis: int, memory_bytes: int, *, leaf: bool
) -> Callable[[int], bool]:
    """Return whether a node that nothing was taken of has room beside its engines."""
    states, touched = draft.pool.free, draft.touched

    def fits(number: int) -> bool:
        free = states[number]
        if memory_bytes and free.memory_bytes < memory_bytes:
            return False
        if (cpu_millis or memory_bytes) and free.cpu_millis < cpu_millis:
            return False
        if number in touched:
            return False
        return not leaf or _on_one_leaf(draft, want, number, draft.engines(number, stock))

    return fits


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
    states = draft.pool.free
    for reference in (want.bitstream, ""):
        there = draft.pool.loaded.get(reference, {})
        found = 0
        for number, loaded in islice(there.items(), _LOOKED_AT_MAX):
            free = states[number]
            # Most are in use; that is seen at once.
            if not (free.on | free.off if draft.wake else free.on) & loaded or number in seen:
                continue
            mask, limit = draft.room(number, want, stock)
            if limit >= want.count and _on_one_leaf(draft, want, number, mask):
                seen.add(number)
                yield number, mask
                found += 1
                if found >= _LOADED_MAX:
                    break
    for number, mask in _climb(draft, want, stock, _FEW):
        if number not in seen:
            yield number, mask


def _positions(draft: Draft, want: Want, number: int, mask: Mask, count: int) -> Mask:
    """Return `count` engines out of a mask: powered before off, loaded before empty, in order."""
    if want.together == "switch":
        mask = _leaf_mask(draft.site(number), mask, count) or mask
    if mask.bit_count() == count:
        return mask
    free = draft.pool.free[number]
    tiers = [free.on, -1]
    if want.bitstream:
        loaded = dict(free.loaded)
        warm = [loaded.get(want.bitstream, 0), loaded.get("", 0), -1]
        if draft.weights.wake < draft.weights.load:
            tiers = [power & heat for heat in warm for power in tiers]
        else:
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
    scorer = Scorer(draft, want, stock)
    for leaf in leaves:
        if _left_on(draft, stock, leaf) < want.count:
            continue
        rooms: list[Scored] = []
        for number, ports in _ports_on(draft, leaf):
            mask, limit = draft.room(number, want, stock, ports)
            if limit >= want.count:
                picked = _positions(draft, want, number, mask, want.count)
                score = scorer.score(number, mask, picked)
                rooms.append((score, draft.host(number)[0], number, picked))
        if rooms:
            _, _, number, picked = min(rooms)
            return [(number, picked)]
        if want.together != "node":
            picks = _within(draft, want, stock, _ports_on(draft, leaf), want.count)
            if picks is not None:
                return picks
    return None


def _left_on(draft: Draft, stock: Stock, leaf: str) -> int:
    """Return how many of a leaf's free engines are left at most: hosts may allow fewer."""
    left = stock.leaves.get(leaf, _NONE)[draft.wake]
    if left and draft.taken:
        for number, ports in _ports_on(draft, leaf):
            taken = draft.taken.get(number, 0) & ports
            if taken:
                free = draft.pool.free[number]
                there = free.on | free.off if draft.wake else free.on
                left -= (taken & there & stock.mask(draft.site(number))).bit_count()
    return left


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
    if want.count > draft.pool.leaf_engines:
        return None
    fitting = _fitting_leaves(draft, want, stock)
    first_few = list(islice(fitting, _FEW if seed else 1))
    if len(first_few) > 1 and _is_open(draft, first_few[0]):
        first = scramble(seed) % len(first_few)
        first_few = [*first_few[first:], *first_few[:first]]
    for leaf in chain(first_few, fitting):
        if draft.taken and _left_on(draft, stock, leaf) < want.count:
            continue
        picks = _within(draft, want, stock, _ports_on(draft, leaf), want.count)
        if picks is not None:
            return picks
    return None


def _is_open(draft: Draft, leaf: str) -> bool:
    """Whether rivals may look at a leaf first, as well as we."""
    return leaf in draft.pool.leaves_afar or not draft.pool.leaves_afar


def _fitting_leaves(draft: Draft, want: Want, stock: Stock) -> Iterator[str]:
    """Yield leaves with enough free engines, at home first, the fewest left over first."""
    asleep: list[tuple[int, str]] = []
    if draft.wake:
        asleep = sorted(
            (total, leaf)
            for leaf, (_, total) in stock.leaves.items()
            if total >= want.count and leaf != NOWHERE
        )
    afar = draft.pool.leaves_afar
    for far in (False, True) if afar else (False,):
        for _, leaf in asleep if draft.wake else stock.shelf.climb(want.count):
            if (leaf in afar) == far:
                yield leaf


def _many_leaves(draft: Draft, want: Want, stock: Stock) -> list[Pick] | None:
    """As few leaves as possible, in one pod if one has enough."""
    which = 1 if draft.wake else 0
    fitting = sorted(
        (both[which], pod) for pod, both in stock.pods.items() if pod and both[which] >= want.count
    )
    for _, pod in fitting[:_FEW]:
        # Leaves of a pod that have none of these wares are not in the stock.
        there = draft.pool.pods[pod]
        totals = {leaf: stock.leaves[leaf][which] for leaf in there if leaf in stock.leaves}
        picks = _fill(draft.copy(), want, stock, _by_fit(totals))
        if picks is not None:
            return picks
    if draft.wake:
        everywhere = _by_fit({leaf: totals[1] for leaf, totals in stock.leaves.items()})
    else:
        everywhere = _by_shelf(stock)
    return _fill(draft.copy(), want, stock, everywhere)


def _fill(
    draft: Draft, want: Want, stock: Stock, next_leaf: Callable[[int], str | None]
) -> list[Pick] | None:
    """Take all that is wanted, leaf by leaf.

    Args:
        draft: Is written to.
        want: The role.
        stock: Its wares.
        next_leaf: Returns a leaf for so many engines that are still to be found; None = no more.
    """
    rest = want.count
    picks: dict[int, Mask] = {}
    while rest:
        leaf = next_leaf(rest)
        if leaf is None:
            return None
        rooms = sum(draft.room(n, want, stock, ports)[1] for n, ports in _ports_on(draft, leaf))
        if not rooms:
            continue
        got = _within(draft, want, stock, _ports_on(draft, leaf), min(rest, rooms))
        assert got is not None, "no more was asked than there is room for"
        draft.take_engines(want, got)
        for number, mask in got:
            picks[number] = picks.get(number, 0) | mask
            rest -= mask.bit_count()
    return list(picks.items())


def _by_fit(totals: dict[str, int]) -> Callable[[int], str | None]:
    """Give out the leaves of a few, each once."""
    left = {leaf: total for leaf, total in totals.items() if total}

    def next_leaf(rest: int) -> str | None:
        if not left:
            return None
        leaf = _next_leaf(left, rest)
        del left[leaf]
        return leaf

    return next_leaf


def _by_shelf(stock: Stock) -> Callable[[int], str | None]:
    """Give out all leaves of powered engines, in the same order, without looking at all."""
    used: set[str] = set()

    def next_leaf(rest: int) -> str | None:
        either = chain(stock.shelf.climb(rest), stock.shelf.descend())
        leaf = next((leaf for _, leaf in either if leaf not in used), None)
        if leaf is None and NOWHERE in stock.leaves and NOWHERE not in used:
            leaf = NOWHERE
        if leaf is not None:
            used.add(leaf)
        return leaf

    return next_leaf


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
        for leaf in _fitting_leaves(draft, want, stock):
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
    """The part of an engine, or of a whole one, with the least score.

    As long as nothing is known of what usually comes, the least that is left, then a whole one.
    """
    scorer = Scorer(draft, want, stock)
    ranked: list[Scored] = []
    for number, picked in _parts(draft, want, stock, _PARTS):
        score = scorer.score(number, picked, picked)
        ranked.append((score, draft.host(number)[0], number, picked))
    if not ranked or scorer.minds_fragments or _is_afar(draft, min(ranked)[2]):
        ranked += _ranked(draft, want, stock, seed)
    if not ranked:
        return None
    ranked.sort()
    _, _, number, picked = _one_of(draft, ranked, seed)
    return [(number, picked)]


def _parts(draft: Draft, want: Want, stock: Stock, few: int) -> Iterator[Pick]:
    """Yield engines that are partly held and have enough left."""
    cpu, memory = want.cpu_millis, want.memory_bytes
    for number in sorted(draft.touched):
        left_cpu, left_memory = draft.host(number)
        if not (cpu or memory) or (left_cpu >= cpu and left_memory >= memory):
            for position, rest in draft.broken(number, stock):
                if rest >= want.millis and _suits(draft, want, number, position):
                    yield number, 1 << position
    fresh = last = 0
    fits = _fitting(draft, want, stock, cpu, memory, leaf=False)
    for rest, number in stock.parts.ends(want.millis, cpu, _ENDS, fits):
        if rest != last:
            last = rest
            if fresh >= few:
                return
        mask = stock.mask(draft.site(number))
        for position, left in draft.pool.free[number].parts:
            if left == rest and mask >> position & 1 and _suits(draft, want, number, position):
                yield number, 1 << position
                fresh += 1
                break


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


def _host_at(draft: Draft, host: HostWant, devices: int) -> list[int] | None:
    """The one node that will do."""
    number = draft.pool.numbers.get(host.at)
    if number is None or not draft.attaches(number, devices):
        return None
    cpu, memory = draft.host(number)
    fits = cpu >= host.cpu_millis and memory >= host.memory_bytes
    return [number] if fits and (draft.site(number).linked or not host.linked) else None


def _hosts_for(draft: Draft, host: HostWant, devices: int, seed: int) -> list[int] | None:
    """Nodes without engines first, then where it strands the fewest engines, each the tightest."""
    if host.at:
        return _host_at(draft, host, devices)
    few = host.count + (_FEW - 1 if seed else 0)
    ranked = sorted(_hosts(draft, host, devices, few))
    if len(ranked) < host.count:
        return None
    if seed and (_is_afar(draft, ranked[0][-1]) or not draft.pool.divided):
        few_ones = ranked[:few]
        first = scramble(seed) % (len(few_ones) - host.count + 1)
        ranked = few_ones[first:]
    return [number for *_, number in ranked[: host.count]]


def _hosts(
    draft: Draft, host: HostWant, devices: int, few: int
) -> Iterator[tuple[bool, float, int, bool, int, int]]:
    """Yield what hosts are ranked by, and their numbers."""
    states = draft.pool.free
    minds = draft.minds_fragments()

    def entry(number: int, calm: int, cpu: int) -> tuple[bool, float, int, bool, int, int]:
        stranded = 0.0
        if calm and minds:
            stranded = stranded_by_host(draft, number, host)
        return calm > 0, stranded, calm, _is_afar(draft, number), cpu, number

    def fits(number: int) -> bool:
        if states[number].memory_bytes < host.memory_bytes or number in draft.touched:
            return False
        return usable(number)

    def usable(number: int) -> bool:
        if not draft.attaches(number, devices):
            return False
        return draft.site(number).linked or not host.linked

    for number in sorted(draft.touched):
        cpu, memory = draft.host(number)
        enough = cpu >= host.cpu_millis and memory >= host.memory_bytes
        if not enough or number in draft.closed:
            continue
        if usable(number):
            # Its engines are in use, by this very plan.
            yield entry(number, min(draft.pool.free[number].calm, 2), cpu)
    hosts = draft.pool.hosts
    found = 0
    if not minds:
        for calm, number in hosts.climb(0, host.cpu_millis, home_first=False):
            if fits(number):
                yield entry(number, calm, states[number].cpu_millis)
                found += 1
                if found >= few:
                    return
        return
    last = 0
    for calm, number in hosts.ends(0, host.cpu_millis, max(few, _FEW), fits):
        if calm != last and found >= few and not last:
            return  # enough nodes have no engines to strand
        last = calm
        yield entry(number, calm, states[number].cpu_millis)
        found += 1
