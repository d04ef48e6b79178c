"""What is left of a pool, once a plan in the making has taken what it has chosen so far?"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Final, TypeAlias

from flowos.model.cell import WHOLE_MILLIS
from flowos.model.units import kind_of, subject_of
from flowos.planning.demand import Want
from flowos.planning.engines.pool import Mask, Pool, Site, Stock
from flowos.planning.engines.weights import DEFAULT, Weights

Pick: TypeAlias = tuple[int, Mask]  # node number, which of its engines
# Role -> engine model -> how good it is at what the role computes.
Speeds: TypeAlias = Mapping[str, Mapping[str, float]]
NO_SPEEDS: Final[Speeds] = MappingProxyType({})


class Draft:
    """What a plan in the making has taken off the pool.

    Attributes:
        taken: Node number -> engines taken whole.
        parts: (node number, position) -> thousandths taken.
        loads: (node number, position) -> bitstream that a part taken of it needs.
        hosts: Node number -> (CPU thousandths, bytes of memory) taken.
        devices: Node number -> engines attached to it.
        closed: Nodes that are not to be used.
        wake: Whether engines that are off may be taken.
        weights: How much each feature of a place counts.
        speeds: Role -> engine model -> how much of the role's work it does in a second, or for a
            joule; models that are not named count as the fastest.
        joined: Roles that circuits join.
    """

    __slots__ = (
        "closed", "devices", "hosts", "joined", "loads", "parts", "pool", "speeds", "taken",
        "touched", "wake", "weights",
    )  # fmt: skip

    def __init__(
        self,
        pool: Pool,
        avoid: Collection[str] = (),
        closed: Iterable[int] = (),
        weights: Weights = DEFAULT,
        speeds: Speeds = NO_SPEEDS,
        joined: Collection[str] = (),
    ) -> None:
        self.pool = pool
        self.weights = weights
        self.speeds = speeds
        self.joined = joined
        self.taken: dict[int, Mask] = {}
        self.parts: dict[tuple[int, int], int] = {}
        self.loads: dict[tuple[int, int], str] = {}
        self.hosts: dict[int, tuple[int, int]] = {}
        self.devices: dict[int, int] = {}
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
        other = Draft(self.pool, (), (), self.weights, self.speeds, self.joined)
        other.taken, other.parts, other.hosts = (
            self.taken.copy(),
            self.parts.copy(),
            self.hosts.copy(),
        )
        other.loads, other.closed, other.wake = self.loads.copy(), self.closed, self.wake
        other.touched = self.touched.copy()
        other.devices = self.devices.copy()
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

    def attach(self, number: int, devices: int) -> None:
        """Take some of what may be attached to a node; fewer than none gives back."""
        self.devices[number] = self.devices.get(number, 0) + devices

    def attachable(self, number: int) -> int | None:
        """Return how many more engines can be attached to a node; None where no limit is said."""
        free = self.pool.view.free_devices(self.site(number).name)
        return None if free is None else free - self.devices.get(number, 0)

    def attaches(self, number: int, devices: int) -> bool:
        """Whether so many more engines can be attached to a node."""
        left = self.attachable(number) if devices else None
        return left is None or devices <= left

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

    def rests(self, number: int) -> tuple[Mask, list[tuple[int, int]]]:
        """Return a node's engines that are left whole, on or off, and (position, rest) of parts."""
        free = self.pool.free[number]
        if number not in self.touched:
            return free.on | free.off, list(free.parts)
        whole = (free.on | free.off) & ~self.taken.get(number, 0)
        left = dict(free.parts)
        for (place, position), millis in self.parts.items():
            if place == number:
                left[position] = max(left.get(position, WHOLE_MILLIS) - millis, 0)
                whole &= ~(1 << position)
        return whole, [(position, rest) for position, rest in sorted(left.items()) if rest]

    def minds_fragments(self) -> bool:
        """Whether anything is held in parts, so that what is left over can be of no use."""
        view = self.pool.view
        return bool(self.weights.fragments and (view.shares or view.hosts))

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
