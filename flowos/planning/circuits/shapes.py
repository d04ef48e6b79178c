"""Which of a role's engines does a shape join with which?"""

from collections import Counter
from collections.abc import Iterable
from math import prod

from flowos.model.errors import SpecError
from flowos.model.slice import CircuitWish, Shape


def pairs_of(wish: CircuitWish, count: int) -> Iterable[tuple[int, int]]:
    """Return (source, target) by rank for each circuit of a shape.

    Args:
        wish: Any shape but a flow, which is between roles.
        count: How many ends there are.

    Raises:
        SpecError: A torus of other sides, or a pair of a rank that there is not.
    """
    every = range(count)
    match wish.shape:
        case Shape.RING:
            return zip(every, [*every[1:], 0], strict=True)
        case Shape.ALL:
            return [(a, b) for a in every for b in every if a != b]
        case Shape.STAR:
            return [pair for other in every[1:] for pair in ((0, other), (other, 0))]
        case Shape.TORUS:
            return _torus(wish.dims, count)
        case Shape.EXPLICIT:
            if any(rank >= count for pair in wish.links for rank in pair):
                raise SpecError(
                    f"circuits join rank {max(map(max, wish.links))}, but {wish.roles[0]} has the "
                    f"ranks 0 to {count - 1}"
                )
            return wish.links
    raise AssertionError(f"{wish.shape} is not between the ends of one role")


def _torus(dims: tuple[int, ...], count: int) -> list[tuple[int, int]]:
    """Each to the next in every dimension, the last to the first: the last changes fastest."""
    if prod(dims) != count:
        sides = "x".join(map(str, dims))
        raise SpecError(f"a torus of {sides} has {prod(dims)} ends, there are {count}")
    pairs: list[tuple[int, int]] = []
    for here in range(count):
        stride = count
        for side in dims:
            stride //= side
            place = here // stride % side
            if side > 1:
                pairs.append((here, here + ((place + 1) % side - place) * stride))
    return pairs


def lanes_at_least(wish: CircuitWish, count: int) -> tuple[int, int]:
    """Return how many circuits leave, and come to, the rank of a shape that has the fewest.

    That much every engine of the role has to carry; which one gets a busier rank is open.
    """
    out: Counter[int] = Counter()
    into: Counter[int] = Counter()
    trees = set()
    for source, target in pairs_of(wish, count):
        if not wish.multicast or source not in trees:
            out[source] += 1
        trees.add(source)
        into[target] += 1
    every = range(count)
    return min((out[n] for n in every), default=0), min((into[n] for n in every), default=0)
