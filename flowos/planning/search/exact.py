"""Is there any assignment at all, when roles compete for the same engines?

Choosing role by role can fail although all would fit. Here every placement of the roles that must
be together is tried, and the other roles are matched to what remains by augmenting paths, which
never miss an assignment. It is asked only after the quick way failed.
"""

from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from itertools import islice, product
from typing import Final, TypeAlias

from flowos.planning.demand import Want
from flowos.planning.engines.choose import Pick
from flowos.planning.engines.pool import NOWHERE, Mask, Pool, Site

_TRIES_MAX: Final = 500  # placements of the roles that must be together: 0.1 s at most
_TIES_MAX: Final = 64  # leaves tried for one role

Room: TypeAlias = Callable[[Site, Want], Mask]  # the engines of a node that a role could use
Roles: TypeAlias = int  # bit n = the request's role n
Pin: TypeAlias = int | str | None  # a node's number, a leaf, or anywhere


class Verdict(Enum):
    """Why no assignment is returned."""

    NONE = "none exists"
    UNKNOWN = "too many to try"


def assign(pool: Pool, wants: Sequence[Want], room: Room) -> list[list[Pick]] | Verdict:
    """Return engines for each want, all whole, none twice; hosts are not looked at."""
    cell = _Cell(pool, wants, room)
    pins = [cell.pins_for(index) for index in range(len(wants))]
    if not all(pins):
        return Verdict.NONE
    tries = list(islice(product(*pins), _TRIES_MAX + 1))
    for pinned in tries[:_TRIES_MAX]:
        flows = _match([want.count for want in wants], cell.bins(pinned))
        if flows is not None:
            return cell.picks(pinned, flows)
    return Verdict.UNKNOWN if len(tries) > _TRIES_MAX or cell.cut else Verdict.NONE


class _Cell:
    """The engines that at least one role could use, by who could use them."""

    def __init__(self, pool: Pool, wants: Sequence[Want], room: Room) -> None:
        self.pool = pool
        self.wants = wants
        self.cut = False
        self.anywhere: Roles = sum(
            1 << n for n, want in enumerate(wants) if want.together not in ("node", "switch")
        )
        self.masks: dict[int, list[Mask]] = {}
        for site in pool.sites:
            if site is not None:
                masks = [room(site, want) for want in wants]
                if any(masks):
                    self.masks[site.number] = masks
        self.usable = {number: _by_roles(masks) for number, masks in self.masks.items()}
        self.loose: dict[Roles, int] = {}
        for groups in self.usable.values():
            _add(self.loose, groups, self.anywhere, +1)

    def site(self, number: int) -> Site:
        site = self.pool.sites[number]
        assert site is not None, "only living sites have masks"
        return site

    def pins_for(self, index: int) -> list[Pin]:
        """Return where a role can be, as many alike places as there are roles to meet there."""
        want = self.wants[index]
        if want.together == "node":
            seen: dict[object, int] = {}
            pins: list[Pin] = []
            leaves = any(other.together == "switch" for other in self.wants)
            for number, masks in self.masks.items():
                if masks[index].bit_count() >= want.count:
                    groups = {
                        roles: mask.bit_count() for roles, mask in self.usable[number].items()
                    }
                    alike = (
                        tuple(sorted(groups.items())),
                        self.site(number).leaves if leaves else (),
                    )
                    seen[alike] = seen.get(alike, 0) + 1
                    if seen[alike] <= len(self.wants):
                        pins.append(number)
            return pins
        if want.together == "switch":
            totals: dict[str, int] = {}
            for number, masks in self.masks.items():
                for leaf, ports in self.site(number).leaves:
                    totals[leaf] = totals.get(leaf, 0) + (masks[index] & ports).bit_count()
            fitting = [n for n, total in totals.items() if total >= want.count and n != NOWHERE]
            self.cut = self.cut or len(fitting) > _TIES_MAX
            return [*fitting[:_TIES_MAX]]
        return [None]

    def allowed(self, number: int, pinned: Sequence[Pin]) -> Iterator[tuple[Roles, Mask]]:
        """Yield (roles that may use them, engines) for each part of a node."""
        roles = self.anywhere
        switched: list[tuple[Roles, Mask]] = []
        for index, pin in enumerate(pinned):
            if pin == number and self.wants[index].together == "node":
                roles |= 1 << index
            elif isinstance(pin, str):
                switched.extend(
                    (1 << index, ports) for leaf, ports in self.site(number).leaves if leaf == pin
                )
        for held, mask in self.usable[number].items():
            parts = [(held & roles, mask)]
            for role, ports in switched:
                if held & role:
                    parts = [
                        part
                        for may, engines in parts
                        for part in ((may | role, engines & ports), (may, engines & ~ports))
                        if part[1]
                    ]
            yield from parts

    def concerned(self, pinned: Sequence[Pin]) -> set[int]:
        """Return the nodes where pins let more roles in."""
        numbers: set[int] = set()
        for pin in pinned:
            if isinstance(pin, int):
                numbers.add(pin)
            elif pin is not None:
                numbers.update(n for n in self.pool.leaf_sites[pin] if n in self.masks)
        return numbers

    def bins(self, pinned: Sequence[Pin]) -> dict[Roles, int]:
        """Return how many engines there are for each set of roles."""
        bins = self.loose.copy()
        for number in self.concerned(pinned):
            _add(bins, self.usable[number], self.anywhere, -1)
            for roles, mask in self.allowed(number, pinned):
                bins[roles] = bins.get(roles, 0) + mask.bit_count()
        return bins

    def picks(self, pinned: Sequence[Pin], flows: list[dict[Roles, int]]) -> list[list[Pick]]:
        """Return real engines for the numbers that were matched."""
        found: list[dict[int, Mask]] = [{} for _ in flows]
        # Nodes that a role is pinned to first: what is taken of the rest then matters to nobody.
        for number in sorted(self.masks):
            for roles, mask in self.allowed(number, pinned):
                left = mask
                for flow, picked in zip(flows, found, strict=True):
                    while left and flow.get(roles, 0):
                        lowest = left & -left
                        left ^= lowest
                        flow[roles] -= 1
                        picked[number] = picked.get(number, 0) | lowest
        return [list(picked.items()) for picked in found]


def _by_roles(masks: Sequence[Mask]) -> dict[Roles, Mask]:
    groups: dict[Roles, Mask] = {}
    union = 0
    for mask in masks:
        union |= mask
    while union:
        lowest = union & -union
        union ^= lowest
        roles = sum(1 << n for n, mask in enumerate(masks) if mask & lowest)
        groups[roles] = groups.get(roles, 0) | lowest
    return groups


def _add(bins: dict[Roles, int], groups: dict[Roles, Mask], among: Roles, sign: int) -> None:
    for roles, mask in groups.items():
        bins[roles & among] = bins.get(roles & among, 0) + sign * mask.bit_count()


def _match(counts: Sequence[int], bins: dict[Roles, int]) -> list[dict[Roles, int]] | None:
    """Return how many engines of each bin each role gets, or None where they are too few.

    Source: Ford and Fulkerson's augmenting paths, 1956, on roles and bins.
    """
    spare = {roles: number for roles, number in bins.items() if roles and number}
    flows: list[dict[Roles, int]] = [{} for _ in counts]
    for role, count in enumerate(counts):
        for _ in range(count):
            if not _augment(role, spare, flows):
                return None
    return flows


def _augment(role: int, spare: dict[Roles, int], flows: list[dict[Roles, int]]) -> bool:
    """Give one more engine to a role, moving others aside where that helps."""
    came: dict[int, tuple[int, Roles] | None] = {role: None}  # role -> who asks it for which bin
    queue = [role]
    for asking in queue:
        for bin_ in [roles for roles in spare if roles >> asking & 1]:
            if spare[bin_]:
                spare[bin_] -= 1
                _shift(asking, bin_, came, flows)
                return True
            for other, flow in enumerate(flows):
                if other not in came and flow.get(bin_):
                    came[other] = (asking, bin_)
                    queue.append(other)
    return False


def _shift(
    role: int,
    gained: Roles,
    came: dict[int, tuple[int, Roles] | None],
    flows: list[dict[Roles, int]],
) -> None:
    step: tuple[int, Roles] | None = (role, gained)
    while step is not None:
        role, gained = step
        flows[role][gained] = flows[role].get(gained, 0) + 1
        step = came[role]
        if step is not None:
            flows[role][step[1]] -= 1
