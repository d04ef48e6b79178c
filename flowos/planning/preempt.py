"""Which less important slices have to give way so that a slice finds a place, and where does it go?"""

from collections.abc import Callable, Collection
from typing import NamedTuple

from flowos.model.placement import Decision, Unplaceable
from flowos.model.slice import SliceSpec
from flowos.planning.engines.pool import Pool


class Preemption(NamedTuple):
    """A plan that needs what others hold.

    Attributes:
        decision: Where the slice goes.
        victims: The slices that lose something by it, in the order of their names: what `commit`
            is told as its `victims`.
    """

    decision: Decision
    victims: tuple[str, ...]


def victims(
    pool: Pool,
    spec: SliceSpec,
    *,
    plan: Callable[[Collection[str]], Decision | Unplaceable],
    avoid: Collection[str] = (),
) -> Preemption | None:
    """Find a place for a slice that found none among what is free, at the cost of others.

    Args:
        pool: Of the view that is to be committed on.
        spec: The slice; its priority is what counts, as it is written.
        plan: Plans the slice on the pool as it is then, leaving these units alone: the policy's
            own `plan`, with its seed.
        avoid: Units to leave alone.

    Returns:
        None where no set of less important, preemptible slices makes room. Whoever asks remembers
        that until something changes.
    """
    raise NotImplementedError
