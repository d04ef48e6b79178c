"""Who comes first?"""

from flowos.planning.policy import Order, Waits


def first_come(waits: Waits) -> Order:
    """Higher priority first, then who came first."""
    return (-waits.priority, waits.created)


def by_turns(waits: Waits) -> Order:
    """Higher priority first, then the tenant that has the least for its weight, then who came first."""
    return (-waits.priority, waits.usage, waits.created)
