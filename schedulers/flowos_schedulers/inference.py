"""Inference: where the bitstream is loaded already, and never in place of one that is in use."""

from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType

from flowos.model.cell import WHOLE_MILLIS
from flowos.model.placement import Decision, Unplaceable
from flowos.model.slice import Reason, SliceSpec
from flowos.model.units import engine_unit
from flowos.planning.engines.pool import Mask, Pool
from flowos.planning.engines.weights import Weights
from flowos.planning.policy import Order, Policy, Waits
from flowos_schedulers.pieces import order, score


class Inference(Policy):
    """Functions that answer: where their bitstream is loaded already.

    First only engines are looked at that have the bitstream loaded, wherever they are: replicas do
    not talk to each other. Then others; but of each bitstream that other slices use now, the last
    idle engines that are loaded with it are left as they are, for its next slice to be as quick.
    Parts of engines are taken like whole ones.

    Settings:
        warm: How many idle engines with a bitstream in use are kept for it; 0 = none.
        popular: On how many engines it has to be in use for that.
        load: How much it counts that a bitstream must be loaded.
        evict: And that another one is lost thereby.
    """

    name = "inference"
    settings: Mapping[str, float] = MappingProxyType(
        {"warm": 1.0, "popular": 1.0, "load": 256.0, "evict": 64.0}
    )

    def order(self, waits: Waits) -> Order:
        """Return the place in the queue: priority, then first come."""
        return order.first_come(waits)

    def score(self, spec: SliceSpec, pool: Pool) -> Weights:
        """Return how much each feature of a place counts."""
        return score.weighted(pool, self.settings)

    def plan(
        self, pool: Pool, spec: SliceSpec, *, seed: int, avoid: Collection[str]
    ) -> Decision | Unplaceable:
        """Decide where a slice goes: where it is warm, else where nobody is cold thereby."""
        pool.fold()
        wanted = _bitstreams(pool, spec)
        if not wanted:
            return super().plan(pool, spec, seed=seed, avoid=avoid)
        if _is_warm(pool, spec, wanted):
            cold = {unit for reference, unit in _idle(pool) if reference not in wanted}
            found = super().plan(pool, spec, seed=seed, avoid={*cold, *avoid})
            if isinstance(found, Decision):
                return found
        kept = self._kept(pool, wanted)
        found = super().plan(pool, spec, seed=seed, avoid={*kept, *avoid} if kept else avoid)
        if isinstance(found, Decision) or not kept:
            return found
        otherwise = super().plan(pool, spec, seed=seed, avoid=avoid)
        if isinstance(otherwise, Unplaceable):
            return otherwise
        return Unplaceable(Reason.WAITING_FOR_BITSTREAM, _why(kept, otherwise))

    def _kept(self, pool: Pool, wanted: Collection[str]) -> dict[str, str]:
        """Return unit -> bitstream, of idle engines that are left to a bitstream in use."""
        kept: dict[str, str] = {}
        idle: dict[str, list[str]] = {}
        for reference, unit in _idle(pool):
            if reference and reference not in wanted:
                idle.setdefault(reference, []).append(unit)
        for reference, units in idle.items():
            if _is_used(pool, reference, self.settings["popular"]):
                kept.update(dict.fromkeys(units[: int(self.settings["warm"])], reference))
        return kept


def _bitstreams(pool: Pool, spec: SliceSpec) -> frozenset[str]:
    """Return what a slice wants to be loaded, "name@digest"."""
    names = {choice.bitstream for role in spec.engines.values() for choice in role.choices}
    known = (pool.view.cell.bitstream(name) for name in names if name)
    return frozenset(bitstream.reference for bitstream in known if bitstream is not None)


def _on_engines(pool: Pool, reference: str) -> Iterator[tuple[int, Mask, Mask]]:
    """Yield (node number, which of its engines have a bitstream, which of these are free)."""
    for number, loaded in sorted(pool.loaded.get(reference, {}).items()):
        free = pool.free[number]
        yield number, loaded, loaded & (free.on | free.off)


def _names(pool: Pool, number: int, mask: Mask) -> Iterator[str]:
    site = pool.sites[number]
    if site is not None:
        yield from (name for n, name in enumerate(site.engines) if mask >> n & 1)


def _idle(pool: Pool) -> Iterator[tuple[str, str]]:
    """Yield (bitstream, unit) of all engines that are free whole and load bitstreams."""
    for reference in sorted(pool.loaded):
        for number, _, idle in _on_engines(pool, reference):
            for engine in _names(pool, number, idle):
                yield reference, engine_unit(engine)


def _is_warm(pool: Pool, spec: SliceSpec, wanted: Collection[str]) -> bool:
    """Whether enough engines with a slice's bitstreams may be had: then they are looked at first."""
    asked = sum(
        min(choice.count for choice in role.choices)
        for role in spec.engines.values()
        if all(choice.bitstream and choice.share_millis == WHOLE_MILLIS for choice in role.choices)
    )
    warm = sum(idle.bit_count() for ref in wanted for _, _, idle in _on_engines(pool, ref))
    return warm >= asked


def _is_used(pool: Pool, reference: str, least: float) -> bool:
    """Whether slices hold so many engines with a bitstream, whole or in parts."""
    view, used = pool.view, 0
    for number, loaded, idle in _on_engines(pool, reference):
        for engine in _names(pool, number, loaded & ~idle):
            holders = (view.holder(engine_unit(engine)), *view.shares.get(engine, ()))
            used += any(holder and not holder.startswith("~") for holder in holders)
            if used >= least:
                return True
    return False


def _why(kept: Mapping[str, str], otherwise: Decision) -> str:
    """Return in words what is kept of that which a slice could have."""
    (unit, reference), *more = [(u, kept[u]) for u in sorted(otherwise.units) if u in kept]
    name, engine = reference.partition("@")[0], unit.partition("/")[2]
    others = f" and {len(more)} more" if more else ""
    return (
        f"would take {engine}{others}, the last idle one loaded with {name}, which other slices "
        f"use: it is kept for them; an engine with the bitstream wanted, or an empty one, will do"
    )
