"""How much does each feature of a place count, when the planner has a choice?"""

from typing import Final, NamedTuple


class Weights(NamedTuple):
    """The linear score's weights: the place with the least weighted sum of features is taken.

    Every feature is counted per wanted engine or scaled to about 0..1, so that weights compare;
    a weight of 0 leaves its feature out.

    Attributes:
        load: Bitstreams to be loaded (an empty region counts half of one to be evicted).
        evict: How popular the bitstreams are that would be evicted, 0..1.
        wake: Engines to be woken.
        idle: Seconds since a powered engine was last used, saturating: the longest idle first.
        watts: What waking and running here draws, per watt of the largest engine.
        leftover: Free engines left over on the node: best fit.
        leaf: Free engines left over on the leaf switch.
        fragments: What becomes unusable to the jobs that usually come, in engines.
        uplinks: The share of the leaf's lanes upwards that are taken already.
        speed: How slow the engine model is for the slice's type of work, against the fastest.
        afar: Engines that are some other scheduler's to begin with.
    """

    load: float = 64.0
    evict: float = 8.0
    wake: float = 32.0
    idle: float = 4.0
    watts: float = 1.0
    leftover: float = 1.0
    leaf: float = 0.5
    fragments: float = 16.0
    uplinks: float = 1.0
    speed: float = 16.0
    afar: float = 16.0


DEFAULT: Final = Weights()
