"""Is a fabric a torus, a mesh, a hypercube or another product of small graphs, and how far is what?

In a Cartesian product every switch has a coordinate in each factor (a cycle, a path, a pair, or
any small graph), and a link changes one coordinate by one link of that factor. So the distance
between two switches is the sum of the distances between their coordinates: exact, from small
tables. The wiring alone shows it, names and numbers are not asked.
"""

from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations
from operator import getitem
from typing import Final, TypeAlias

from flowos.planning.circuits.landmarks import Near, distances

_FACTOR_MAX: Final = 512  # switches in one factor: its table of distances has the square of it
_DEGREE_MAX: Final = 64  # neighbours of a switch that pairs are formed of

Coordinates: TypeAlias = tuple[int, ...]


def coordinates_of(near: Near) -> list[Coordinates] | None:
    """Return every switch's coordinate in each factor, or None where there are no such factors.

    Coordinates are read off squares: from layer to layer away from a first switch, two links down
    from one switch lie in different factors just if they close a square, and then each is parallel
    to the side across. Whether the result is a product is checked after that, link by link.

    Source: the squares are those of Imrich and Klavžar, "Product Graphs", Wiley 2000, chapter 4.
    """
    count = len(near)
    beside = [{other for other, _ in others} for others in near]
    if count < 4 or max(map(len, beside)) > _DEGREE_MAX:
        return None
    dimension = _dimensions_at(0, beside)
    dimensions = len(set(dimension.values()))
    far = distances(near, 0)
    if dimensions < 2 or max(far) >= count:
        return None  # one factor alone is nothing to gain from; or it is in parts
    found: list[list[int]] = [[] for _ in range(count)]
    found[0] = [0] * dimensions
    sizes = [1] * dimensions  # of each factor so far
    axis = [-1] * count  # the dimension of a switch that differs from the first in just one
    for here in sorted(range(1, count), key=far.__getitem__):
        parents = [p for p in beside[here] if far[p] == far[here] - 1]
        mixed = _mixed(parents, far, beside, found, here)
        if mixed is not None:
            found[here] = mixed
            continue
        # All ways down stay in one factor: it lies on an axis and is a new place there.
        along = dimension[here] if here in dimension else axis[parents[0]]
        if along < 0 or sizes[along] >= _FACTOR_MAX:
            return None
        axis[here] = along
        found[here] = [0] * dimensions
        found[here][along] = sizes[along]
        sizes[along] += 1
    places = [tuple(place) for place in found]
    return places if _is_product(places, sizes, beside) else None


def _dimensions_at(start: int, beside: Sequence[set[int]]) -> dict[int, int]:
    """Return the dimension of each link at a switch, by the neighbour: squares part them."""
    dimension: dict[int, int] = {}
    groups: list[list[int]] = []
    for other in sorted(beside[start]):
        alike = [
            group
            for group in groups
            if any(
                other in beside[member] or beside[other] & beside[member] == {start}
                for member in group
            )
        ]
        merged = [other, *(member for group in alike for member in group)]
        groups = [group for group in groups if group not in alike]
        groups.append(merged)
    for number, group in enumerate(sorted(groups, key=min)):
        dimension.update(dict.fromkeys(group, number))
    return dimension


def _mixed(
    parents: Sequence[int],
    far: Sequence[int],
    beside: Sequence[set[int]],
    found: Sequence[list[int]],
    here: int,
) -> list[int] | None:
    """Return the coordinates of a switch that differs from the first in several dimensions."""
    for one, other in combinations(parents, 2):
        below = [s for s in beside[one] & beside[other] if far[s] == far[here] - 2]
        if len(below) != 1:
            continue
        base, left, right = found[below[0]], found[one], found[other]
        by_left = [d for d, place in enumerate(base) if left[d] != place]
        by_right = [d for d, place in enumerate(base) if right[d] != place]
        if len(by_left) == len(by_right) == 1 and by_left != by_right:
            place = list(left)
            place[by_right[0]] = right[by_right[0]]
            return place
    return None


def _is_product(
    places: Sequence[Coordinates], sizes: Sequence[int], beside: Sequence[set[int]]
) -> bool:
    """Whether all places of the factors are taken once, and all links are as the factors say."""
    count = len(places)
    whole = 1
    for size in sizes:
        whole *= size
    if whole != count or len(set(places)) != count:
        return False
    links: list[set[tuple[int, int]]] = [set() for _ in sizes]
    ends = 0
    for here, others in enumerate(beside):
        for other in others:
            differing = [
                d
                for d, (a, b) in enumerate(zip(places[here], places[other], strict=True))
                if a != b
            ]
            if len(differing) != 1:
                return False
            d = differing[0]
            links[d].add((places[here][d], places[other][d]))
            ends += 1
    # Each link of a factor stands once for each setting of the other coordinates.
    return ends == sum(len(its) * count // size for its, size in zip(links, sizes, strict=True))


class Grid:
    """The coordinates of a product's switches, and ways that only ever come nearer.

    Attributes:
        places: By switch.
    """

    def __init__(self, near: Near, places: Sequence[Coordinates]) -> None:
        """Make the tables; `places` is from `coordinates_of`."""
        self.places = places
        self._near = near
        dimensions = len(places[0])
        factors: list[dict[int, set[int]]] = [defaultdict(set) for _ in range(dimensions)]
        for here, others in enumerate(near):
            for other, _ in others:
                for d, (a, b) in enumerate(zip(places[here], places[other], strict=True)):
                    if a != b:
                        factors[d][a].add(b)
        self._far: list[list[list[int]]] = []
        # Dimension -> to -> from -> the slots of the links that lead nearer.
        self._nearer: list[list[list[tuple[int, ...]]]] = []
        slots: list[list[dict[int, int]]] = []
        base = 0
        for factor in factors:
            every = range(len(factor))
            wiring = [[(b, 0) for b in sorted(factor[a])] for a in every]
            far = [distances(wiring, a) for a in every]
            slot = [{b: base + n for n, (b, _) in enumerate(wiring[a])} for a in every]
            base += max(map(len, wiring))
            self._far.append(far)
            slots.append(slot)
            self._nearer.append(
                [
                    [tuple(s for b, s in slot[a].items() if row[b] < row[a]) for a in every]
                    for row in far
                ]
            )
        # Flat and small, for a way touches many switches in few places of memory: the arc in each
        # slot of each switch, the switch it leads to, and each switch's place by dimension.
        self._slots = base
        self._arcs = array("i", [-1]) * (base * len(near))
        self._next = array("i", [-1]) * (base * len(near))
        self._at = [array("H", column) for column in zip(*places, strict=True)]
        self.simple = True  # no two links join the same two switches
        for here, others in enumerate(near):
            for other, arc in others:
                for d, (a, b) in enumerate(zip(places[here], places[other], strict=True)):
                    if a != b:
                        index = here * base + slots[d][a][b]
                        self.simple &= self._arcs[index] < 0
                        self._arcs[index] = arc
                        self._next[index] = other

    def bound(self, a: int, b: int) -> int:
        """Return how many links lie between two switches: no way has fewer, and one has as many."""
        return sum(
            far[one][other]
            for far, one, other in zip(self._far, self.places[a], self.places[b], strict=True)
        )

    def to(self, goal: int) -> Callable[[int], int]:
        """Return `bound` to one switch, as a function of the other: quicker for many."""
        rows = [far[place] for far, place in zip(self._far, self.places[goal], strict=True)]
        places = self.places
        return lambda here: sum(map(getitem, rows, places[here]))

    def nearest(self, goal: int, others: Iterable[int]) -> tuple[int, int]:
        """Return the least `bound` from any of several switches to one, and the first such one."""
        rows = [far[place] for far, place in zip(self._far, self.places[goal], strict=True)]
        places = self.places
        if len(rows) == 3:  # written out: a tree asks this of each of its switches
            one, two, three = rows
            return min(
                [
                    (one[a] + two[b] + three[c], other)
                    for other in others
                    for a, b, c in (places[other],)
                ]
            )
        return min([(sum(map(getitem, rows, places[other])), other) for other in others])

    def gap(self, these: Iterable[int], others: Sequence[int]) -> tuple[int, int]:
        """Return the least `bound` between two groups of switches, and which of these it is at."""
        if len(self._far) != 3:
            return min([(self.nearest(switch, others)[0], switch) for switch in these])
        places = self.places
        there = [places[other] for other in others]
        x, y, z = self._far
        best = (sum(map(len, self._far)), -1)  # more than there can be
        for switch in these:
            a, b, c = places[switch]
            one, two, three = x[a], y[b], z[c]
            best = min(best, (min([one[i] + two[j] + three[k] for i, j, k in there]), switch))
        return best

    def closed(self, free: Sequence[int], a: int, b: int, lanes: int) -> bool:
        """Whether a switch cannot be come to from any that is nearer to another one.

        Args:
            free: By arc: bitmap of free lanes.
            a: The other.
            b: The switch.
            lanes: How many a link must have.
        """
        first = b * self._slots
        return not any(
            free[self._arcs[first + slot] ^ 1].bit_count() >= lanes
            for nearer, to, at in zip(self._nearer, self.places[a], self.places[b], strict=True)
            for slot in nearer[to][at]
        )

    def straight(self, free: Sequence[int], a: int, b: int, lanes: int) -> list[int] | None:
        """Return arcs of a way on which each link comes nearer, or None where there is no such.

        It is the shortest there can be. At each switch it takes the link with most lanes left,
        then in the dimension with most left to go, since so there are most ways round what is
        taken. A switch from which nothing leads on is not gone to again: at worst it looks at
        each switch between the two once.

        Args:
            free: By arc: bitmap of free lanes.
            a: From where.
            b: To where.
            lanes: How many each link must have.
        """
        slots, arcs, heads = self._slots, self._arcs, self._next
        dimensions = [
            (at, far[to], nearer[to])
            for at, far, nearer, to in zip(
                self._at, self._far, self._nearer, self.places[b], strict=True
            )
        ]
        way: list[int] = []
        trail = [a]
        dead: set[int] = set()
        here = a
        while here != b:
            first = here * slots
            best, most, longest = -1, lanes - 1, 0
            for at, far, nearer in dimensions:
                place = at[here]
                left = far[place]
                if left:
                    for slot in nearer[place]:
                        count = free[arcs[first + slot]].bit_count()
                        if (
                            count > most or (count == most and left > longest and best >= 0)
                        ) and heads[first + slot] not in dead:
                            best, most, longest = first + slot, count, left
            if best >= 0:
                way.append(arcs[best])
                here = heads[best]
                trail.append(here)
                continue
            if not way:
                return None
            dead.add(here)
            trail.pop()
            way.pop()
            here = trail[-1]
        return way
