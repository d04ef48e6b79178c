"""How good is a place for a role, as one number made of features that have names?"""

from collections.abc import Iterator, Mapping
from functools import cached_property
from operator import mul
from types import MappingProxyType
from typing import Final

from flowos.model.cell import WHOLE_MILLIS
from flowos.planning.demand import HostWant, Want
from flowos.planning.engines.draft import Draft
from flowos.planning.engines.fragments import Room
from flowos.planning.engines.pool import NOWHERE, Mask, Pool, Stock
from flowos.planning.engines.weights import Weights

_UNKNOWN: Final[Mapping[str, float]] = MappingProxyType({})


def score(features: Weights, weights: Weights) -> float:
    """Return the weighted sum; the place with the least is the best."""
    return float(sum(map(mul, features, weights)))


def recency(pool: Pool, stock: Stock, number: int) -> float:
    """Return how lately engines of a node were given back: 1 = just now, 0 = long ago.

    Long ago is when as many nodes have been given back since as there are free engines.
    """
    freed = pool.freed_at(number)
    if not freed:
        return 0.0
    return max(0.0, 1 - (pool.turn - freed) / (stock.free_on + 1))


class Scorer:
    """Scores the places of one role, on what one draft has left.

    Args:
        draft: What is taken already, and the weights.
        want: The role.
        stock: Its wares.
    """

    def __init__(self, draft: Draft, want: Want, stock: Stock) -> None:
        self.draft = draft
        self.want = want
        self.stock = stock
        self.joined = want.role in draft.joined  # so that lanes off its leaf matter
        self.speeds = _UNKNOWN
        if stock.mixed and draft.weights.speed:
            self.speeds = draft.speeds.get(want.role, _UNKNOWN)
        self.minds_fragments = draft.minds_fragments()
        self._taken_up: dict[str, float] = {}

    def score(self, number: int, mask: Mask, picked: Mask) -> float:
        """Return the score of taking some engines of a node; the least is the best.

        Args:
            number: The node.
            mask: Its engines that the role could have.
            picked: Those that it would take; for a share, the one engine.
        """
        return score(self.features(number, mask, picked), self.draft.weights)

    def features(self, number: int, mask: Mask, picked: Mask) -> Weights:
        """Return each feature of taking some engines of a node, by the name of its weight."""
        draft, want = self.draft, self.want
        weights, site, free = draft.weights, draft.site(number), draft.pool.free[number]
        count = picked.bit_count()
        load = evict = 0.0
        if want.bitstream and not (want.shared and not picked & (free.on | free.off)):
            load, evict = self._loads(free.loaded, picked)
        left = mask.bit_count() - count
        leftover = left / len(site.engines)
        if want.shared:
            leftover = self._rest(number, picked) / len(site.engines)
        leaf = self._leaf(number, picked)
        return Weights(
            load=load,
            evict=evict,
            wake=float((picked & free.off).bit_count()),
            idle=recency(draft.pool, self.stock, number),
            watts=self._watts(number, picked) if weights.watts and self.stock.mixed else 0.0,
            leftover=leftover,
            leaf=self._leaf_left(leaf, count),
            fragments=self._fragments(number, picked) if self.minds_fragments else 0.0,
            uplinks=self._uplinks(leaf) if self.joined and weights.uplinks else 0.0,
            speed=self._slowness(number, picked) if self.speeds else 0.0,
            afar=float(draft.pool.divided and draft.pool.is_afar(site.name)),
        )

    # -- bitstreams

    def _loads(self, loaded: tuple[tuple[str, Mask], ...], picked: Mask) -> tuple[float, float]:
        """Return how many have to be loaded, an empty region as half, and what is evicted."""
        load = evict = 0.0
        for reference, there in loaded:
            here = (there & picked).bit_count()
            if here and reference != self.want.bitstream:
                load += here if reference else here / 2
                if reference:
                    evict += here * self._popularity(reference)
        return load, evict

    def _popularity(self, reference: str) -> float:
        """On how many nodes a bitstream is, against the one that is on most: 0..1."""
        return len(self.draft.pool.loaded.get(reference, ())) / self._most_loaded

    @cached_property
    def _most_loaded(self) -> int:
        loaded = self.draft.pool.loaded
        return max((len(there) for reference, there in loaded.items() if reference), default=1)

    # -- power and speed

    def _engines(self, number: int, picked: Mask) -> Iterator[str]:
        for position, engine in enumerate(self.draft.site(number).engines):
            if picked >> position & 1:
                yield engine

    def _watts(self, number: int, picked: Mask) -> float:
        """Return what the engines add to the cell's draw, per watt of the most that one draws."""
        engines, off = self.draft.pool.view.cell.engines, self.draft.pool.free[number].off
        if not self._watts_most:
            return 0.0
        added = 0
        for engine in self._engines(number, picked):
            added += engines[engine].watts.busy - engines[engine].watts.idle
        if picked & off:
            added += sum(
                engines[e].watts.idle - engines[e].watts.off
                for e in self._engines(number, picked & off)
            )
        return added / self._watts_most

    @cached_property
    def _watts_most(self) -> int:
        cell = self.draft.pool.view.cell
        return self.draft.pool.recall(
            "watts", lambda: max((e.watts.busy for e in cell.engines.values()), default=0)
        )

    def _slowness(self, number: int, picked: Mask) -> float:
        """Return by how much the engines are slower than the fastest, each 0..1."""
        engines, fastest = self.draft.pool.view.cell.engines, max(self.speeds.values())
        if fastest <= 0:
            return 0.0
        return sum(
            1 - self.speeds.get(engines[engine].model, fastest) / fastest
            for engine in self._engines(number, picked)
        )

    # -- what is left over

    def _rest(self, number: int, picked: Mask) -> float:
        """Return the node's free engines, shares as fractions, and that of the engine on top."""
        rests = dict(self.draft.broken(number, self.stock))
        whole = self.draft.engines(number, self.stock) & ~sum(1 << p for p in rests)
        here = rests.get(picked.bit_length() - 1, WHOLE_MILLIS)
        return whole.bit_count() + (sum(rests.values()) + here) / WHOLE_MILLIS

    def _leaf(self, number: int, picked: Mask) -> str:
        for leaf, ports in self.draft.site(number).leaves:
            if ports & picked:
                return leaf
        return NOWHERE

    def _leaf_left(self, leaf: str, count: int) -> float:
        """Return how much of the leaf is left free, against the largest leaf: 0..1."""
        totals = self.stock.leaves.get(leaf)
        if leaf == NOWHERE or totals is None:
            return 0.0
        return max(totals[self.draft.wake] - count, 0) / self.draft.pool.leaf_engines

    def _uplinks(self, leaf: str) -> float:
        """Return which share of a leaf's lanes to other switches is taken: 0..1."""
        share = self._taken_up.get(leaf)
        if share is None:
            lanes_taken = self.draft.pool.view.lanes_taken
            taken = lanes = 0
            for trunk in self.draft.pool.trunks.get(leaf, ()):
                lanes += trunk.link.lanes
                taken += lanes_taken.get((trunk.link.name, trunk.away), 0).bit_count()
            share = self._taken_up[leaf] = taken / lanes if lanes else 0.0
        return share

    # -- fragments

    def _fragments(self, number: int, picked: Mask) -> float:
        want = self.want
        count = picked.bit_count()
        cpu, memory = want.cpu_millis * count, want.memory_bytes * count
        millis = want.millis if want.shared else 0
        return stranded_by(self.draft, number, picked, millis, cpu, memory)


def stranded_by(
    draft: Draft, number: int, picked: Mask, millis: int, cpu_millis: int, memory_bytes: int
) -> float:
    """Return how many engines become useless on a node when something of it is taken.

    Args:
        draft: What is taken already.
        number: The node.
        picked: The engines, whole, or the one that a share is taken of.
        millis: The share; 0 = whole engines.
        cpu_millis: Taken of the host.
        memory_bytes: The same.
    """

    def work_out() -> float:
        return _stranded_by(draft, number, picked, millis, cpu_millis, memory_bytes)

    if number in draft.touched:
        return work_out()
    # Plans come to the same nodes again and again, and many nodes are alike.
    free, makes = draft.pool.free[number], draft.site(number).makes
    key = (free[:5], makes, picked, millis, cpu_millis, memory_bytes)
    return draft.pool.usual().recall(key, work_out)


def _stranded_by(
    draft: Draft, number: int, picked: Mask, millis: int, cpu_millis: int, memory_bytes: int
) -> float:
    pool = draft.pool
    usual = pool.usual()
    site = draft.site(number)
    cpu, memory = draft.host(number)
    wholes, parts = draft.rests(number)
    change = 0.0
    for kind, mask in pool.kinds(site):
        here = sorted(rest for position, rest in parts if mask >> position & 1)
        before = Room(kind, (wholes & mask).bit_count(), tuple(here), cpu, memory)
        after = wholes & mask
        if picked & mask:
            after &= ~picked
            if millis:
                position = picked.bit_length() - 1
                rest = next((r for p, r in parts if p == position), WHOLE_MILLIS)
                if not wholes & picked:
                    here.remove(rest)
                if rest > millis:
                    here.append(rest - millis)
                    here.sort()
        room = Room(kind, after.bit_count(), tuple(here), cpu - cpu_millis, memory - memory_bytes)
        change += usual.stranded(room) - usual.stranded(before)
    return change


def stranded_by_host(draft: Draft, number: int, want: HostWant) -> float:
    """Return how many engines become useless on a node when its host alone is used."""
    return stranded_by(draft, number, 0, 0, want.cpu_millis, want.memory_bytes)
