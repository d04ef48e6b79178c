"""How many links lie between two switches of an irregular fabric, at least?

Source: Goldberg and Harrelson, "Computing the shortest path: A* search meets graph theory",
SODA 2005: by the triangle inequality, two switches are no nearer to each other than their
distances from any third, a landmark, differ.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeAlias

Near: TypeAlias = Sequence[Sequence[tuple[int, int]]]  # by switch: (other switch, arc)

LANDMARKS: Final = 8  # more cost each expansion more than they save; see benchmarks
_FAR: Final = 1 << 30  # between parts of a fabric that nothing joins


def distances(near: Near, start: int) -> list[int]:
    """Return how many links every switch is from one, `_FAR` where no way leads."""
    found = [_FAR] * len(near)
    found[start] = 0
    layer = [start]
    far = 0
    while layer:
        far += 1
        wider: list[int] = []
        for here in layer:
            for other, _ in near[here]:
                if found[other] == _FAR:
                    found[other] = far
                    wider.append(other)
        layer = wider
    return found


class Landmarks:
    """Hop distances from a few switches that are far from each other, with nothing held.

    Attributes:
        across: The longest of them: the fabric is at least so many links across.
    """

    def __init__(self, near: Near, count: int = LANDMARKS) -> None:
        """Choose landmarks, each next one the farthest from all before, and measure from them."""
        self._rows: list[tuple[int, ...]] = []
        self.across = 0
        if near:
            tables: list[list[int]] = []
            nearest = distances(near, 0)
            for _ in range(min(count, len(near))):
                # What nothing joins to any landmark yet comes first: it is the farthest.
                start = max(range(len(near)), key=nearest.__getitem__)
                if tables and nearest[start] == 0:
                    break
                table = distances(near, start)
                nearest = [min(pair) for pair in zip(nearest, table, strict=True)]
                tables.append(table)
            self._rows = list(zip(*tables, strict=True))
            self.across = max(far for table in tables for far in table if far < _FAR)

    def bound(self, a: int, b: int) -> int:
        """Return a number of links that every way between two switches crosses, at least.

        More links than there are, where no way leads.
        """
        return max(
            abs(one - other) for one, other in zip(self._rows[a], self._rows[b], strict=True)
        )

    def to(self, goal: int) -> Callable[[int], int]:
        """Return `bound` to one switch, as a function of the other: quicker for many."""
        rows = self._rows
        last = rows[goal]
        return lambda here: max(
            [a - b if a > b else b - a for a, b in zip(rows[here], last, strict=True)]
        )

    def nearest(self, goal: int, others: Iterable[int]) -> tuple[int, int]:
        """Return the least `bound` from any of several switches to one, and the first such one."""
        to = self.to(goal)
        return min([(to(other), other) for other in others])

    def gap(self, these: Iterable[int], others: Sequence[int]) -> tuple[int, int]:
        """Return the least `bound` between two groups of switches, and which of these it is at."""
        return min([(self.nearest(switch, others)[0], switch) for switch in these])
