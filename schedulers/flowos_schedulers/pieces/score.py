"""How much does each feature of a place count for a policy?"""

from collections.abc import Mapping

from flowos.planning.engines.pool import Pool
from flowos.planning.engines.weights import Weights, weights_of


def weighted(pool: Pool, settings: Mapping[str, float]) -> Weights:
    """Return the operator's weights, in place of some of which a policy has its own.

    Args:
        pool: Whose view knows what all planners of the cell are told.
        settings: The policy's; those that are named as weights are taken.
    """
    own = {name: value for name, value in settings.items() if name in Weights._fields}
    return weights_of(pool.view.planner)._replace(**own)
