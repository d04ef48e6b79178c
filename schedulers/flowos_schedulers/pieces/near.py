"""Which parts of a cell, as small as can be, have room for all of a slice?

A part is a leaf switch and those that are the nearest to it, by the latency of the way there. A
slice that is planned on one part alone crosses as few switches as the cell allows just now.
"""

import heapq
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from itertools import groupby
from operator import itemgetter
from typing import Final, NamedTuple

from flowos.model.errors import SpecError
from flowos.model.placement import Decision
from flowos.model.slice import SliceSpec
from flowos.planning.demand import demand_of
from flowos.planning.engines.pool import NOWHERE, Pool, Wares

_CENTRES_MAX: Final = 16  # leaves around which a part is looked for
_PARTS_MAX: Final = 4  # that are planned on: the smallest nearly always does


class Extent(NamedTuple):
    """How far a slice reaches: on how many leaves its engines are, and how long its circuits."""

    leaves: int
    latency_ns: int
    links: int


def extent(pool: Pool, decision: Decision) -> Extent:
    """Return how far a slice would reach; what reaches less far is more compact."""
    leaves: set[str] = set()
    for engines in decision.engines.values():
        for engine in engines:
            found = pool.position(engine)
            if found is not None:
                site, position = found
                leaves.add(next((leaf for leaf, on in site.leaves if on >> position & 1), NOWHERE))
    circuits = decision.circuits
    latency_ns = sum(circuit.latency_ns for circuit in circuits)
    return Extent(len(leaves), latency_ns, sum(len(circuit.arcs) for circuit in circuits))


def parts(pool: Pool, spec: SliceSpec) -> Iterator[Collection[str]]:
    """Yield, the smallest part first, the nodes outside of it: what a plan there has to avoid.

    Nothing is yielded for a slice of one engine, or where engines have no switches.
    """
    pool.fold()
    try:
        roles = [choices[0] for choices in demand_of(pool, spec).engines]
    except SpecError:
        return  # the planner has the words for it
    wants: Counter[Wares] = Counter()  # roles that want the same must not count on the same
    for role in roles:
        wants[role.wares] += role.count
    if wants.total() < 2:
        return
    found = sorted(
        (len(leaves), far, left, centre, leaves)
        for centre in _centres(pool, wants)
        for far, left, leaves in _around(pool, wants, centre)
    )
    seen: list[frozenset[str]] = []
    for _, _, _, _, leaves in found:
        part = frozenset(leaves)
        if part not in seen:
            seen.append(part)
            yield _outside(pool, part)
            if len(seen) == _PARTS_MAX:
                return


def _centres(pool: Pool, wants: Mapping[Wares, int]) -> list[str]:
    """Return leaves with the largest part of what is wanted, of equals those with least to spare."""

    def rank(leaf: str) -> tuple[int, int, str]:
        free = {wares: _free(pool, wares, leaf) for wares in wants}
        met = sum(min(free[wares], count) for wares, count in wants.items())
        return -met, sum(free.values()), leaf

    leaves = {leaf for wares in wants for leaf in pool.stock(wares).leaves if leaf != NOWHERE}
    return heapq.nsmallest(_CENTRES_MAX, leaves, key=rank)


def _free(pool: Pool, wares: Wares, leaf: str) -> int:
    """Return how many free engines of some wares a leaf has, powered or not."""
    return pool.stock(wares).leaves.get(leaf, (0, 0))[1]


def _around(
    pool: Pool, wants: Mapping[Wares, int], centre: str
) -> Iterator[tuple[int, int, tuple[str, ...]]]:
    """Yield the smallest part around a leaf with room for all: (latency, spare, leaves).

    Of leaves that are equally far those with the most for the slice come in first.
    """
    short = dict(wants)
    leaves: list[str] = []
    spare = 0
    for far, ring in groupby(
        pool.recall(("near", centre), lambda: _near(pool, centre)), itemgetter(0)
    ):

        def useful(leaf: str) -> int:
            return sum(min(_free(pool, wares, leaf), left) for wares, left in short.items())

        for leaf in sorted((leaf for _, leaf in ring), key=lambda leaf: (-useful(leaf), leaf)):
            if not useful(leaf):
                continue
            leaves.append(leaf)
            for wares, left in short.items():
                there = _free(pool, wares, leaf)
                spare += max(there - left, 0)
                short[wares] = max(left - there, 0)
            if not any(short.values()):
                yield far, spare, tuple(leaves)
                return


def _near(pool: Pool, centre: str) -> list[tuple[int, str]]:
    """Return all leaves that can be reached, the nearest first, with the latency of the way.

    Source: Dijkstra, "A note on two problems in connexion with graphs", 1959; a way that nobody
    gives a latency counts by its links.
    """
    switches = pool.view.cell.switches
    found: list[tuple[int, str]] = []
    known: dict[str, int] = {}
    ways = [(0, centre)]
    while ways:
        far, here = heapq.heappop(ways)
        if here in known:
            continue
        known[here] = far
        if here in pool.leaf_sites:
            found.append((far, here))
        for trunk in pool.trunks.get(here, ()):
            if trunk.other not in known:
                step = trunk.link.latency_ns + switches[trunk.other].latency_ns
                heapq.heappush(ways, (far + max(step, 1), trunk.other))
    return found


def _outside(pool: Pool, part: frozenset[str]) -> Collection[str]:
    """Return the nodes without any engine on a part's leaves, as units to avoid."""

    def work_out() -> frozenset[str]:
        inside = {number for leaf in part for number in pool.leaf_sites.get(leaf, ())}
        return frozenset(
            f"node/{site.name}"
            for site in pool.sites
            if site is not None and site.engines and site.number not in inside
        )

    return pool.recall(("outside", part), work_out)
