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
            for rank in (rank for pair in wish.links for rank in pair):
                if not 0 <= rank < count:
                    have = "has" if len(wish.roles) == 1 else "have"
                    raise SpecError(
                        f"circuits join rank {rank}, but {' and '.join(wish.roles)} {have} the "
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
    out, into = lanes_by_rank(wish, pairs_of(wish, count))
    every = range(count)
    return min((out[n] for n in every), default=0), min((into[n] for n in every), default=0)


def lanes_by_rank(
    wish: CircuitWish, pairs: Iterable[tuple[int, int]]
) -> tuple[Counter[int], Counter[int]]:
    """Return how many circuits leave, and come to, each rank, at least."""
    out: Counter[int] = Counter()
    into: Counter[int] = Counter()
    for source, target in pairs:
        # A tree leaves its source once; streams that are made one may come in by one lane.
        if not wish.multicast or source not in out:
            out[source] += 1
        if not wish.aggregate or target not in into:
            into[target] += 1
    return out, into
