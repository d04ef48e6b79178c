"""How is a choice among equals varied, the same way for the same seed?

The planner has no dice of its own: the seed is an argument, and 0 means the first of the best.
"""

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")
_BITS = (1 << 64) - 1


def scramble(seed: int, turn: int = 0) -> int:
    """Return 64 well-mixed bits.

    Source: Steele et al., "Fast splittable pseudorandom number generators", OOPSLA 2014.
    """
    state = (seed + 0x9E3779B97F4A7C15 * (turn + 1)) & _BITS
    state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & _BITS
    state = (state ^ state >> 27) * 0x94D049BB133111EB & _BITS
    return state ^ state >> 31


def one_of(items: Sequence[T], seed: int, turn: int = 0) -> T:
    """Return the first item for seed 0, else one by chance."""
    return items[scramble(seed, turn) % len(items)] if seed else items[0]


def shuffled(items: Sequence[T], seed: int, turn: int = 0) -> list[T]:
    """Return the items in an order by chance."""
    return [
        item
        for _, _, item in sorted(
            (scramble(scramble(seed, turn), place), place, item) for place, item in enumerate(items)
        )
    ]
