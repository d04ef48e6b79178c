"""Batch: priority, then tenants by turns, then first come; shorter ones may fill the gaps."""

from collections.abc import Mapping
from types import MappingProxyType

from flowos.planning.policy import Order, Policy, Waits
from flowos_schedulers.pieces import order


class Batch(Policy):
    """Jobs by priority, tenants by turns, short ones into the gaps; the default.

    Who waits gains priority as the cell's rules say (`ageing`). Among slices of one priority the
    tenant is next that has the least of the cell for its weight. While the first of the queue waits
    for room, others may pass it if they end, by what they say, before it can start; so does EASY.

    Settings:
        fair: 0 = whoever came first is next, whatever its tenant has already.

    Source: Lifka, "The ANL/IBM SP scheduling system", JSSPP 1995 (EASY backfill); Ghodsi et al.,
    "Dominant Resource Fairness", NSDI 2011.
    """

    name = "batch"
    reorders = True
    backfills = True
    settings: Mapping[str, float] = MappingProxyType({"fair": 1.0})

    def order(self, waits: Waits) -> Order:
        """Return the place in the queue."""
        return order.by_turns(waits) if self.settings.get("fair", 1.0) else order.first_come(waits)
