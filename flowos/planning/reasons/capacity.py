"""How many requests of one sort fit, now and if the cell were empty, and what limits them?

Roles of different engines do not compete, so each is counted alone and the scarcest decides.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from flowos.model.cell import WHOLE_MILLIS
from flowos.model.errors import SpecError
from flowos.model.slice import SliceSpec
from flowos.planning.demand import Want, demand_of
from flowos.planning.engines.choose import Draft
from flowos.planning.engines.pool import NOWHERE, Pool
from flowos.planning.reasons.last_word import empty_pool

BY: Final = ("leaf", "rack", "pod")


class Count(NamedTuple):
    """How many fit.

    Attributes:
        fits: Whole requests.
        free: Engines that are free for them; of a share, engines with enough left.
        stranded: Free engines that are left over, in places too small for one more.
    """

    fits: int
    free: int
    stranded: int


class Capacity(NamedTuple):
    """What a cell holds of one request.

    Attributes:
        now: On what is free.
        empty: With nothing held, out of service or off.
        limit: The role that is scarcest now.
        roles: Role -> (now, empty).
        places: By leaf, rack or pod: name -> (now, empty); requests that lie within one of them.
    """

    now: int
    empty: int
    limit: str
    roles: Mapping[str, tuple[Count, Count]]
    places: Mapping[str, Mapping[str, tuple[int, int]]]


def capacity(pool: Pool, spec: SliceSpec) -> Capacity:
    """Return how many requests like this one fit at once; circuits are not looked at.

    Args:
        pool: The cell.
        spec: Roles of one choice each, that ask for engines of different makes, without hosts.

    Raises:
        SpecError: It asks for what cannot be counted so.
    """
    pool.fold()
    both = (pool, empty_pool(pool))
    wants: list[list[Want]] = []
    for one in both:
        demand = demand_of(one, spec)
        if demand.hosts or any(w.cpu_millis or w.memory_bytes for ws in demand.engines for w in ws):
            raise SpecError("host resources are not counted", hint="leave them out")
        if any(len(choices) != 1 for choices in demand.engines):
            raise SpecError("of several choices not one can be counted", hint="ask for each alone")
        wants.append([choices[0] for choices in demand.engines])
        makes = [make for want in wants[-1] for make, _ in want.wares]
        if len(makes) != len(set(makes)):
            raise SpecError("two roles want the same engines", hint="ask for both in one role")
    tallies = [[_Tally(one, want) for want in here] for one, here in zip(both, wants, strict=True)]
    roles = {
        now.want.role: (now.count(), then.count())
        for now, then in zip(tallies[0], tallies[1], strict=True)
    }
    limit = min(roles, key=lambda role: (roles[role][0].fits, roles[role][1].fits))
    return Capacity(
        min(now.fits for now, _ in roles.values()),
        min(then.fits for _, then in roles.values()),
        limit,
        roles,
        {by: _by_place(both, tallies, by) for by in BY},
    )


class _Tally:
    """The free engines of one role in one state of the cell, by node."""

    def __init__(self, pool: Pool, want: Want) -> None:
        self.pool = pool
        self.want = want
        self.masks: dict[int, int] = {}
        self.parts: dict[int, int] = {}
        stock = pool.stock(want.wares)
        draft = Draft(pool)
        draft.wake = True
        for site in pool.sites:
            if site is None or not stock.mask(site):
                continue
            mask = draft.engines(site.number, stock)
            if mask:
                self.masks[site.number] = mask
            if want.shared:
                rests = [rest for _, rest in draft.broken(site.number, stock)]
                rests += [WHOLE_MILLIS] * mask.bit_count()
                self.parts[site.number] = sum(rest // want.millis for rest in rests)

    def count(self, among: Callable[[int], bool] = lambda _number: True) -> Count:
        """Return how many fit on some nodes."""
        if self.want.shared:
            fits = sum(n for number, n in self.parts.items() if among(number))
            free = sum(1 for number, n in self.parts.items() if n and among(number))
            return Count(fits, free, 0)
        here = {number: mask for number, mask in self.masks.items() if among(number)}
        free = sum(mask.bit_count() for mask in here.values())
        fits = sum(size // self.want.count for size in self._sizes(here))
        return Count(fits, free, free - fits * self.want.count)

    def _sizes(self, here: Mapping[int, int]) -> Sequence[int]:
        """Return how many engines there are in each place that a role must be within."""
        if self.want.together == "node":
            return [mask.bit_count() for mask in here.values()]
        if self.want.together != "switch":
            return [sum(mask.bit_count() for mask in here.values())]
        leaves: dict[str, list[tuple[int, int]]] = {}
        for number, mask in here.items():
            site = self.pool.sites[number]
            assert site is not None, "only living nodes are counted"
            for leaf, ports in site.leaves:
                if leaf != NOWHERE and mask & ports:
                    leaves.setdefault(leaf, []).append((number, mask & ports))
        # An engine with ports on two leaves counts on one: the leaf that is nearest to one more.
        taken: dict[int, int] = {}
        sizes: list[int] = []
        count = self.want.count
        left = dict(leaves)
        while left:
            free = {
                leaf: sum((mask & ~taken.get(n, 0)).bit_count() for n, mask in there)
                for leaf, there in left.items()
            }
            leaf = min(left, key=lambda name: (free[name] % count, -free[name], name))
            size = free[leaf] // count * count
            rest = size
            for number, mask in sorted(left.pop(leaf), key=lambda entry: self._bound(entry[0])):
                open_ones = mask & ~taken.get(number, 0)
                while open_ones and rest:
                    lowest = open_ones & -open_ones
                    open_ones ^= lowest
                    taken[number] = taken.get(number, 0) | lowest
                    rest -= 1
            sizes.append(size)
        return sizes

    def _bound(self, number: int) -> int:
        site = self.pool.sites[number]
        return len(site.leaves) if site is not None else 0


def _by_place(
    both: Sequence[Pool], tallies: Sequence[Sequence[_Tally]], by: str
) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    names = [_places(pool, by) for pool in both]
    for name in sorted({*names[0], *names[1]}):
        counts = [
            min(
                (tally.count(there.get(name, set()).__contains__).fits for tally in tally_list),
                default=0,
            )
            for there, tally_list in zip(names, tallies, strict=True)
        ]
        if counts[1]:
            found[name] = (counts[0], counts[1])
    return found


def _places(pool: Pool, by: str) -> dict[str, set[int]]:
    """Return the nodes of each place; a node on two leaves counts on the first."""
    found: dict[str, set[int]] = {}
    for site in pool.sites:
        if site is None:
            continue
        if by == "leaf":
            name = next((leaf for leaf, _ in site.leaves if leaf != NOWHERE), "")
        else:
            node = pool.view.cell.nodes[site.name]
            name = node.rack if by == "rack" else node.pod or _pod_of(pool, site.number)
        if name:
            found.setdefault(name, set()).add(site.number)
    return found


def _pod_of(pool: Pool, number: int) -> str:
    site = pool.sites[number]
    leaves = [leaf for leaf, _ in site.leaves] if site is not None else []
    return next((pod for leaf in leaves if (pod := pool.pod_of.get(leaf, ""))), "")
