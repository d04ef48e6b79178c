"""Which of a node's engines does a role take, and which of them are on one leaf switch?"""

from collections.abc import Iterator
from typing import Final

from flowos.planning.demand import Want
from flowos.planning.engines.draft import Draft, Pick
from flowos.planning.engines.pool import NOWHERE, Mask, Site, Stock

_NONE: Final = (0, 0)  # free engines of a leaf that has none of a stock


def positions(draft: Draft, want: Want, number: int, mask: Mask, count: int) -> Mask:
    """Return `count` engines out of a mask: powered before off, loaded before empty, in order."""
    if want.together == "switch":
        mask = leaf_mask(draft.site(number), mask, count) or mask
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


def on_one_leaf(draft: Draft, want: Want, number: int, mask: Mask) -> bool:
    """Whether a role that must be on one switch can be so on this node."""
    if want.together != "switch":
        return True
    return leaf_mask(draft.site(number), mask, want.count) is not None


def leaf_mask(site: Site, mask: Mask, count: int) -> Mask | None:
    """Return those of a node's engines on its first leaf that has enough of them; None = none has."""
    for leaf, ports in site.leaves:
        if leaf != NOWHERE and (mask & ports).bit_count() >= count:
            return mask & ports
    return None


def left_on(draft: Draft, stock: Stock, leaf: str) -> int:
    """Return how many of a leaf's free engines are left at most: hosts may allow fewer."""
    left = stock.leaves.get(leaf, _NONE)[draft.wake]
    if left and draft.taken:
        for number, ports in ports_on(draft, leaf):
            taken = draft.taken.get(number, 0) & ports
            if taken:
                free = draft.pool.free[number]
                there = free.on | free.off if draft.wake else free.on
                left -= (taken & there & stock.mask(draft.site(number))).bit_count()
    return left


def ports_on(draft: Draft, leaf: str) -> Iterator[Pick]:
    """Yield the nodes with ports on a leaf, each with the engines that have them."""
    for number in draft.pool.leaf_sites.get(leaf, ()):
        yield number, next(ports for name, ports in draft.site(number).leaves if name == leaf)
