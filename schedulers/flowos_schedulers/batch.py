"""Batch: strict priority, then first come; whatever cannot be placed now lets others pass."""

from flowos.planning.policy import Policy


class Batch(Policy):
    """The default policy."""

    name = "batch"
