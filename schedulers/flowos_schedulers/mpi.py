"""Mpi: a gang of engines that talk all the time, on as few switches as can be."""

from collections.abc import Collection, Mapping
from types import MappingProxyType

from flowos.model.placement import Decision, Unplaceable
from flowos.model.slice import Mode, SliceSpec
from flowos.planning.engines.pool import Pool
from flowos.planning.engines.weights import Weights
from flowos.planning.policy import Order, Policy, Waits
from flowos_schedulers.pieces import near, order, score


class Mpi(Policy):
    """Gangs that talk all the time: on one switch, or the nearest ones.

    The slowest way sets the pace. All roles go to one leaf switch if one has room, though engines have to be woken there; else to
    the leaves that are nearest to each other by latency. It takes all at once or nothing.

    Settings:
        uplinks: How much a leaf counts against itself whose lanes to other switches are taken.
        leaf: How much is worth it to fill up a leaf, and so to leave others whole.
    """

    name = "mpi"
    reorders = True
    backfills = True
    settings: Mapping[str, float] = MappingProxyType({"uplinks": 8.0, "leaf": 4.0})

    def order(self, waits: Waits) -> Order:
        """Return the place in the queue: priority, then tenants by turns."""
        return order.by_turns(waits)

    def score(self, spec: SliceSpec, pool: Pool) -> Weights:
        """Return how much each feature of a place counts."""
        return score.weighted(pool, self.settings)

    def plan(
        self, pool: Pool, spec: SliceSpec, *, seed: int, avoid: Collection[str]
    ) -> Decision | Unplaceable:
        """Decide where a slice goes: one switch, or those that are the nearest to each other."""
        if spec.constraints.spread != "pack":
            return super().plan(pool, spec, seed=seed, avoid=avoid)
        best: tuple[near.Extent, Decision] | None = None
        for outside in near.parts(pool, spec):
            found = super().plan(pool, spec, seed=seed, avoid={*outside, *avoid})
            if isinstance(found, Decision):
                best = near.extent(pool, found), found
                break
        found = super().plan(pool, spec, seed=seed, avoid=avoid)
        if isinstance(found, Decision) and (best is None or near.extent(pool, found) < best[0]):
            return found
        return best[1] if best else found

    def commit_mode(self, spec: SliceSpec) -> Mode:
        """Return that it takes all at once: a program of so many ranks has no use for fewer."""
        return Mode.GANG
