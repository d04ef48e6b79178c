"""How much does each feature of a place count, when the planner has a choice?"""

from typing import Final, NamedTuple

from flowos.model.rules import PlannerRules


class Weights(NamedTuple):
    """The linear score's weights: the place with the least weighted sum of features is taken.

    Every feature is counted per wanted engine or scaled to about 0..1, so that weights compare;
    a weight of 0 leaves its feature out.

    Attributes:
        load: Bitstreams to be loaded (an empty region counts half of one to be evicted).
        evict: How popular the bitstreams are that would be evicted, against the one most loaded.
        wake: Engines to be woken.
        idle: How lately the node's engines were freed, 0..1: the longest idle first.
        watts: What waking and running here draws, per watt of the largest engine.
        leftover: The share of the node's engines that is left over: best fit.
        leaf: Free engines left over on the leaf switch, against the largest leaf.
        fragments: What becomes unusable to the work that usually comes, in engines.
        uplinks: The share of the leaf's lanes upwards that are taken already.
        speed: How bad the engine model is at the role's type of work, against the best: by units
            a second, or for a joule, as slice and operator say.
        afar: Whether the node is some other scheduler's to begin with.
    """

    load: float = 32.0  # it takes seconds
    evict: float = 4.0
    wake: float = 64.0  # it takes tens of seconds
    idle: float = 0.5
    watts: float = 1.0
    leftover: float = 0.0625  # with 8 engines a node, 1/2000 of what a stranded engine counts
    leaf: float = 0.03125
    fragments: float = 16.0
    uplinks: float = 1.0
    speed: float = 16.0
    afar: float = 8.0  # less than loading: a rival is met seldom, a bitstream is loaded for sure


DEFAULT: Final = Weights()


def minds_leaves(weights: Weights, *, joined: bool) -> bool:
    """Whether a node's leaf is to count beside what is left on the node and how long it is idle.

    By default it decides only where nodes are compared one by one anyway: looking at leaves would
    double what a plan costs.
    """
    return weights.leaf > DEFAULT.leaf or (joined and weights.uplinks > DEFAULT.uplinks)


def weights_of(rules: PlannerRules | None) -> Weights:
    """Return the weights that an operator has set, with the default for each that is not named.

    Names that nobody knows are passed over: they are refused where rules are written, and a
    record of a later version must not stop a planner.
    """
    if rules is None or not rules.weights:
        return DEFAULT
    known = {name: value for name, value in rules.weights.items() if name in Weights._fields}
    return DEFAULT._replace(**known)
