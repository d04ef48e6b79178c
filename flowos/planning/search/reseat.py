"""Which engines, in which ranks, can be joined, where those that were chosen first cannot?

Engines are chosen before circuits are laid. Where a circuit finds no way, the engine at one of its
ends changes places: with another rank of the slice, or with a free engine that would do as well. Of
a few such changes the one with which most circuits find their way is kept, and so on.

Source: Minton et al., "Minimizing conflicts: a heuristic repair method for constraint satisfaction
and scheduling problems", Artificial Intelligence 58, 1992; of which this is the steepest form.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import chain, islice
from typing import Final, NamedTuple, TypeAlias

from flowos.planning.chance import shuffled
from flowos.planning.circuits.route import Blocked, Routed, Wish
from flowos.planning.demand import Want
from flowos.planning.engines.draft import Draft
from flowos.planning.engines.pool import NOWHERE, Pool, Site

_ENDS_MAX: Final = 512  # that circuits are laid to, over all tries in a small cell: some 50 ms
_SMALL: Final = 64  # engines; in a larger cell other sets of engines were tried before
_NEIGHBOURS: Final = 6  # changes looked at before the best of them is made; 12 found fewer
_NODES_MAX: Final = 64  # whose free engines are looked at

Engines: TypeAlias = Mapping[str, tuple[str, ...]]  # role -> engine ids in rank order
OnHost: TypeAlias = tuple[int, int, int]  # node number, CPU thousandths, bytes of memory
Lay: TypeAlias = Callable[[Engines], Routed | Blocked]


class Reseated(NamedTuple):
    """Engines that can be joined, and how."""

    engines: Engines
    routed: Routed


def reseat(
    pool: Pool,
    wants: Mapping[str, Want],
    engines: Engines,
    blocked: Blocked,
    lay: Lay,
    *,
    joined: int,
    hosts: Collection[OnHost] = (),
    avoid: Collection[str] = (),
    seed: int = 0,
) -> Reseated | None:
    """Return engines whose circuits can be laid, or None where a few dozen changes found none.

    The larger the cell and the more its circuits join, the fewer changes are tried; in the end none.

    Args:
        pool: Folded by the caller.
        wants: Role -> the choice that its engines satisfy.
        engines: Those that were chosen.
        blocked: Which of their circuits found no way.
        lay: Lays all circuits of some engines.
        joined: How many ends they join, each counted as often as a circuit comes to it.
        hosts: What roles without engines have on nodes, which stays where it is.
        avoid: Units not to use.
        seed: Varies what is tried.
    """
    tries = _ENDS_MAX // (joined * (1 + len(pool.view.cell.engines) // _SMALL))
    seats = _Seats(pool, wants, hosts, avoid)
    seen = {_key(engines)}
    turn = 0
    while tries > 0:
        turn += 1
        best: tuple[Engines, Blocked] | None = None
        changes = (
            c for c in seats.changes(engines, blocked.wish, seed, turn) if _key(c) not in seen
        )
        for changed in islice(changes, min(_NEIGHBOURS, tries)):
            tries -= 1
            seen.add(_key(changed))
            found = lay(changed)
            if isinstance(found, Routed):
                return Reseated(changed, found)
            if best is None or found.routed > best[1].routed:
                best = changed, found
        if best is None:
            return None
        # Even where it is no better: what was seen is not tried again, so it does not go in circles.
        engines, blocked = best
    return None


def _key(engines: Engines) -> tuple[tuple[str, ...], ...]:
    return tuple(engines.values())


class _Seats:
    """Who could sit where: what a role's engines may be exchanged for."""

    def __init__(
        self,
        pool: Pool,
        wants: Mapping[str, Want],
        hosts: Collection[OnHost],
        avoid: Collection[str],
    ) -> None:
        self.pool = pool
        self.wants = wants
        self.hosts = hosts
        self.avoid = avoid

    def changes(self, engines: Engines, wish: Wish, seed: int, turn: int) -> Iterator[Engines]:
        """Yield what the slice's engines become if one at an end of a circuit is exchanged."""
        blocked = {wish.source, *wish.sources, *wish.targets}
        swaps: list[Engines] = []
        moves: list[Engines] = []
        for role, want in self.wants.items():
            if want.shared:
                continue
            for rank, engine in enumerate(engines[role]):
                if engine in blocked:
                    swaps += self._swaps(engines, role, rank)
                    moves += self._moves(engines, role, rank)
        swaps, moves = shuffled(swaps, seed, turn), shuffled(moves, seed, turn)
        # By turns, as one alone may be of no use at all.
        yield from chain.from_iterable(zip(swaps, moves, strict=False))
        yield from [*swaps[len(moves) :], *moves[len(swaps) :]]

    def _swaps(self, engines: Engines, role: str, rank: int) -> Iterator[Engines]:
        """Yield the same engines with two ranks exchanged, of one role or of two that ask alike."""
        mine = self.wants[role]
        for other, want in self.wants.items():
            if want.shared or (other != role and not _alike(mine, want)):
                continue
            for place in range(len(engines[other])):
                if other != role or place != rank:
                    swapped = {name: [*ids] for name, ids in engines.items()}
                    ours, theirs = swapped[role], swapped[other]
                    ours[rank], theirs[place] = theirs[place], ours[rank]
                    yield {name: tuple(ids) for name, ids in swapped.items()}

    def _moves(self, engines: Engines, role: str, rank: int) -> Iterator[Engines]:
        """Yield the engines with one replaced by a free one."""
        want = self.wants[role]
        draft = Draft(self.pool, self.avoid)
        draft.wake = True
        for number, cpu_millis, memory_bytes in self.hosts:
            draft.take(number, 0, cpu_millis, memory_bytes)
        stock = self.pool.stock(want.wares)
        here: dict[int, None] = {}
        for name, ids in engines.items():
            for place, engine in enumerate(ids):
                found = self.pool.position(engine)
                assert found is not None, "engines that were chosen are in the cell"
                site, position = found
                if (name, place) != (role, rank):
                    draft.take_engines(self.wants[name], [(site.number, 1 << position)])
                for leaf, ports in site.leaves:
                    if ports >> position & 1 and leaf != NOWHERE:
                        here.update(dict.fromkeys(self.pool.leaf_sites[leaf]))
        rest = [engine for place, engine in enumerate(engines[role]) if place != rank]
        beyond = (number for _, number in chain(stock.on.climb(1), stock.every.climb(1)))
        for number in islice(dict.fromkeys(chain(here, islice(beyond, _NODES_MAX))), _NODES_MAX):
            mask, limit = draft.room(number, want, stock)
            if not limit:
                continue
            site = draft.site(number)
            for position, engine in enumerate(site.engines):
                others = mask >> position & 1 and engine != engines[role][rank]
                if others and self._together(want, rest, site, position):
                    ids = engines[role]
                    yield {**engines, role: (*ids[:rank], engine, *ids[rank + 1 :])}

    def _together(self, want: Want, rest: list[str], site: Site, position: int) -> bool:
        """Whether an engine is where the rest of a role is, if it must be."""
        if want.together == "node":
            return all(engine.partition("/")[0] == site.name for engine in rest)
        if want.together == "switch":
            common = _leaves(site, position)
            for engine in rest:
                found = self.pool.position(engine)
                assert found is not None, "engines that were chosen are in the cell"
                common &= _leaves(*found)
            return bool(common)
        return True


def _alike(one: Want, other: Want) -> bool:
    """Whether two roles ask the same of an engine, and can lie anywhere."""
    return (
        one.wares == other.wares
        and one.bitstream == other.bitstream
        and (one.cpu_millis, one.memory_bytes) == (other.cpu_millis, other.memory_bytes)
        and one.together == other.together == "any"
    )


def _leaves(site: Site, position: int) -> set[str]:
    return {leaf for leaf, ports in site.leaves if ports >> position & 1 and leaf != NOWHERE}
