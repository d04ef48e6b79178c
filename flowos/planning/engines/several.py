"""Which engines does a role get that no one node has room for, or that is to be spread?"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from heapq import heapify, heappop, heapreplace
from itertools import chain, islice
from typing import Final, TypeAlias

from flowos.planning.chance import scramble
from flowos.planning.demand import Want
from flowos.planning.engines.draft import Draft, Pick
from flowos.planning.engines.masks import left_on, ports_on, positions
from flowos.planning.engines.pool import NOWHERE, Mask, Stock

FEW: Final = 8  # a seed chooses among this many: eight schedulers then seldom meet


def one_leaf(draft: Draft, want: Want, stock: Stock, seed: int) -> list[Pick] | None:
    """The leaf switch with the fewest engines left over."""
    if want.count > draft.pool.leaf_engines:
        return None
    fitting = _fitting_leaves(draft, want, stock)
    first_few = list(islice(fitting, FEW if seed else 1))
    if len(first_few) > 1 and _is_open(draft, first_few[0]):
        first = scramble(seed) % len(first_few)
        first_few = [*first_few[first:], *first_few[:first]]
    for leaf in chain(first_few, fitting):
        if draft.taken and left_on(draft, stock, leaf) < want.count:
            continue
        picks = within(draft, want, stock, ports_on(draft, leaf), want.count)
        if picks is not None:
            return picks
    return None


def many_leaves(draft: Draft, want: Want, stock: Stock) -> list[Pick] | None:
    """As few leaves as possible, in one pod if one has enough."""
    which = 1 if draft.wake else 0
    fitting = sorted(
        (both[which], pod) for pod, both in stock.pods.items() if pod and both[which] >= want.count
    )
    for _, pod in fitting[:FEW]:
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


def scattered(draft: Draft, want: Want, stock: Stock, spread: str, seed: int) -> list[Pick] | None:
    """As many nodes, or racks, as possible; or apart: racks, in them switches, on them nodes."""
    share = _apart if spread == "apart" else _round_robin
    if want.together == "switch":
        for leaf in _fitting_leaves(draft, want, stock):
            picks = share(draft, want, stock, spread, list(ports_on(draft, leaf)), seed)
            if picks is not None:
                return picks
        return None
    ladders = (stock.on, stock.every) if draft.wake else (stock.on,)
    numbers = dict.fromkeys(number for ladder in ladders for _, number in ladder.climb(1))
    return share(draft, want, stock, spread, [(number, -1) for number in numbers], seed)


def within(
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
    return positions(draft, _anywhere(want), number, mask, count)


def _anywhere(want: Want) -> Want:
    if want.together != "switch":
        return want
    return Want(
        want.role, want.count, want.millis, want.cpu_millis, want.memory_bytes, "any",
        want.bitstream, want.wares, want.funnel, want.named,
    )  # fmt: skip


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
        rooms = sum(draft.room(n, want, stock, ports)[1] for n, ports in ports_on(draft, leaf))
        if not rooms:
            continue
        got = within(draft, want, stock, ports_on(draft, leaf), min(rest, rooms))
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


# How many engines of it are used, its place among its like, what is below it or which node it is.
_Branch: TypeAlias = "tuple[int, int, list[_Branch] | int]"


def _apart(
    draft: Draft, want: Want, stock: Stock, _spread: str, places: Sequence[Pick], seed: int
) -> list[Pick] | None:
    """One engine after the other where the fewest are: rack, in it the switch, on it the node."""
    rooms: dict[int, tuple[int, Mask]] = {}
    tree: dict[str, dict[str, list[int]]] = {}
    for number, among in places:
        mask, limit = draft.room(number, want, stock, among)
        if limit:
            rooms[number] = limit, mask
            site = draft.site(number)
            leaf = site.leaves[0][0] if site.leaves else NOWHERE
            leaf = site.name if leaf == NOWHERE else leaf
            tree.setdefault(site.rack or leaf, {}).setdefault(leaf, []).append(number)
    if sum(limit for limit, _ in rooms.values()) < want.count:
        return None

    def spare(numbers: Iterable[int]) -> int:
        return sum(rooms[number][0] for number in numbers)

    def grown(branches: Iterable[tuple[int, str, list[_Branch] | int]]) -> list[_Branch]:
        # Those with least to spare first: they are of least use to a gang that wants to be close.
        ordered = sorted(branches, key=lambda branch: branch[:2])
        first = scramble(seed) % len(ordered) if seed else 0
        heap: list[_Branch] = [
            (0, (place - first) % len(ordered), below)
            for place, (_, _, below) in enumerate(ordered)
        ]
        heapify(heap)
        return heap

    racks = grown(
        (
            sum(spare(numbers) for numbers in leaves.values()),
            rack,
            grown(
                (
                    spare(numbers),
                    leaf,
                    grown((rooms[n][0], draft.site(n).name, n) for n in numbers),
                )
                for leaf, numbers in leaves.items()
            ),
        )
        for rack, leaves in tree.items()
    )
    taken = dict.fromkeys(rooms, 0)
    for _ in range(want.count):
        _take_one(racks, taken, rooms)
    return [
        (number, _positions_plain(draft, want, number, rooms[number][1], used))
        for number, used in taken.items()
        if used
    ]


def _take_one(
    heap: list[_Branch], taken: dict[int, int], rooms: Mapping[int, tuple[int, Mask]]
) -> None:
    """Take one engine below the branch of which the fewest are used; drop what has no more."""
    used, place, below = heap[0]
    if isinstance(below, int):
        taken[below] += 1
        more = taken[below] < rooms[below][0]
    else:
        _take_one(below, taken, rooms)
        more = bool(below)
    if more:
        heapreplace(heap, (used + 1, place, below))
    else:
        heappop(heap)
