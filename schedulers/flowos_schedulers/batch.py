"""Batch: strict priority, then first come; whatever cannot be placed now lets others pass."""

from flowos.model.placement import Decision, Unplaceable
from flowos.model.slice import SliceSpec
from flowos.planning.engines.pool import Pool
from flowos.planning.place import plan


class Batch:
    """The default policy."""

    name = "batch"

    def order(self, spec: SliceSpec, created: int) -> tuple[int, ...]:
        """Higher priority first, then the one that was submitted first."""
        return (-spec.priority, created)

    def plan(
        self, pool: Pool, spec: SliceSpec, *, seed: int, avoid: frozenset[str]
    ) -> Decision | Unplaceable:
        """Best fit on engines, then circuits over free lanes."""
        return plan(pool, spec, slice_name=spec.name, seed=seed, avoid=avoid)
