"""In which order are a role's engines counted, so that its circuits cross few switches?"""

from collections.abc import Callable, Sequence
from typing import Final

from flowos.model.errors import SpecError
from flowos.model.slice import CircuitWish, Shape
from flowos.planning.circuits.graph import Graph
from flowos.planning.circuits.shapes import pairs_of
from flowos.planning.engines.pool import NOWHERE, Pool
from flowos.planning.tasks.mapping import rank_order

_SHAKEN: Final = 128  # ends times shakes of a mapping: a plan has some milliseconds at most
_SAME_POD: Final = 2  # links between two leaves below one spine
_OTHER_POD: Final = 4


def ranked(
    pool: Pool, circuits: Sequence[CircuitWish], role: str, engines: Sequence[str]
) -> tuple[str, ...]:
    """Return a role's engines in the order of their ranks.

    Only shapes within the role count, in which one rank is not as good as another. What is on one
    leaf keeps its order, and so does what cannot be bettered.

    Args:
        pool: Folded by the caller.
        circuits: All that the slice wishes.
        role: Whose engines they are.
        engines: Neighbours beside each other, as far as is known.
    """
    own = [w for w in circuits if w.roles == (role,) and w.shape not in (Shape.ALL, Shape.FLOW)]
    if not own:
        return tuple(engines)
    leaves = _leaves_of(pool, engines)
    graph = pool.graph
    numbers = graph.numbers
    different = dict.fromkeys(leaves)
    if len(different) == 1 or not different.keys() <= numbers.keys():
        return tuple(engines)
    if len(own) == 1 and own[0].shape is Shape.RING and graph.levels is not None:
        # Leaves of a pod are all as far from each other, and from those of all other pods.
        return _by_pod(engines, leaves, [graph.levels.pod[numbers[leaf]] for leaf in leaves])
    traffic: dict[tuple[int, int], int] | None = None
    if len(own) > 1 or own[0].shape not in (Shape.RING, Shape.STAR):
        traffic = {}
        for wish in own:
            try:
                pairs = pairs_of(wish, len(engines))
            except SpecError:
                return tuple(engines)  # who lays the circuits says so
            for pair in pairs:
                traffic[pair] = traffic.get(pair, 0) + wish.lanes
    hops = _hops(graph)
    order = rank_order(
        own[0].shape,
        leaves,
        lambda one, other: hops(numbers[one], numbers[other]),
        traffic,
        shakes=_SHAKEN // len(engines),
    )
    return tuple(engines[position] for position in order)


def _leaves_of(pool: Pool, engines: Sequence[str]) -> list[str]:
    leaves: list[str] = []
    last, site = "", None
    for engine in engines:
        node = engine.partition("/")[0]
        if node != last:
            last, site = node, pool.sites[pool.numbers[node]]
        assert site is not None, "engines are picked on living nodes"
        if len(site.leaves) == 1:
            leaves.append(site.leaves[0][0])
        else:
            bit = 1 << site.engines.index(engine)
            leaves.append(next((leaf for leaf, ports in site.leaves if ports & bit), NOWHERE))
    return leaves


def _by_pod(engines: Sequence[str], leaves: Sequence[str], pods: Sequence[int]) -> tuple[str, ...]:
    groups: dict[int, dict[str, list[str]]] = {}
    for engine, leaf, pod in zip(engines, leaves, pods, strict=True):
        groups.setdefault(pod, {}).setdefault(leaf, []).append(engine)
    return tuple(e for pod in groups.values() for leaf in pod.values() for e in leaf)


def _hops(graph: Graph) -> Callable[[int, int], int]:
    """Return how many links apart two leaves are, at least, with nothing held."""
    levels = graph.levels
    if levels is None:
        return graph.bound
    pods = levels.pod

    def over_levels(one: int, other: int) -> int:
        if one == other:
            return 0
        return _SAME_POD if pods[one] == pods[other] else _OTHER_POD

    return over_levels
