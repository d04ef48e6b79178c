"""Which way leads from leaf to leaf, in a fabric whose switches stand on levels?

Leaf-spines and fat trees: every trunk joins a switch to one a level higher. Of each switch there
are words that say on which trunks, up or down, so many lanes are left: bit n stands for the n-th
switch above. The switches where a way can turn around are then the AND of two words, however many
there are, and taking a lane changes two bits.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from flowos.planning.circuits.landmarks import Near

Word: TypeAlias = int  # bit n = the n-th switch above


def levels_of(near: Near, tiers: Sequence[int], leaves: Collection[int]) -> list[int] | None:
    """Return each switch's level, or None where trunks join switches of one level.

    Args:
        near: The wiring.
        tiers: What the inventory says of each switch.
        leaves: Switches with ends on them; where tiers do not fit, levels are counted from these.
    """
    if _climb(near, tiers):
        return list(tiers)
    found = [-1] * len(near)
    layer = list(leaves)
    level = 0
    while layer:
        for switch in layer:
            found[switch] = level
        level += 1
        layer = [*{other for here in layer for other, _ in near[here] if found[other] < 0}]
    return found if _climb(near, found) else None


def _climb(near: Near, levels: Sequence[int]) -> bool:
    return all(
        abs(levels[here] - levels[other]) == 1
        for here, others in enumerate(near)
        for other, _ in others
    )


class Rise(NamedTuple):
    """The trunks between one switch and one above it, in one direction, as a bit of words.

    Attributes:
        words: By class: the lower switch's word of those that have so much left; see `Levels`.
        bit: Of the upper switch.
        arcs: All of them, nearly always one.
        counts: By class: how many rises of the same pod and direction have so much left.
    """

    words: list[Word]
    bit: Word
    arcs: list[int]
    counts: list[int]


class Rung(NamedTuple):
    """What a bit of a switch's words stands for: a switch above it.

    Attributes:
        arc: The trunk up to it, the first where there are several; `arc ^ 1` leads down.
        switch: Its number.
        plane: Spines that share cores are of one plane; -1 above the second level.
        up: Its own words, by class.
        down: The same of the trunks that come down to it.
        rungs: What their bits stand for.
    """

    arc: int
    switch: int
    plane: int
    up: list[Word]
    down: list[Word]
    rungs: Mapping[Word, "Rung"]


class Leaf(NamedTuple):
    """All that a search for a way asks of a leaf at either end: one look instead of eight.

    Attributes:
        pod: Its number.
        up: Its words, by class.
        down: The same of the trunks that come down to it.
        rungs: What their bits stand for.
        rich_up: By class: how many trunks from its pod's spines upwards have so much left.
        rich_down: The same of those that come down to them.
        planes: Plane -> the bits of its pod's spines that are on it.
    """

    pod: int
    up: list[Word]
    down: list[Word]
    rungs: Mapping[Word, Rung]
    rich_up: list[int]
    rich_down: list[int]
    planes: Mapping[int, Word]


class Levels:
    """Words about the lowest three levels of a fabric, kept in step with what is free.

    Words are by class: that of n free lanes is `n.bit_length()`, so class 1 has a lane, class 2 has
    two, class 3 four. Most takings change no word, and looking for the way with most left takes
    few steps, however many lanes there are.

    Attributes:
        rises: By arc: what `changed` changes; None above the third level.
        pod: By switch: the number of its pod, or -1 where it is no leaf. Leaves with a switch
            above in common, or joined by such leaves, are of one pod. All are -1 where ways of one
            length differ in latency by more than their levels: words do not tell the quickest.
    """

    def __init__(
        self,
        near: Near,
        levels: Sequence[int],
        lanes: Sequence[int],
        free: Sequence[int],
        ns: Sequence[int],
    ) -> None:
        """Make the words.

        Args:
            near: The wiring.
            levels: From `levels_of`.
            lanes: By arc: how many there are.
            free: By arc: a bitmap of the lanes that are free now; `changed` tells changes.
            ns: By arc: latency.
        """
        self._free = free
        self._ns = ns
        count = len(near)
        lower, above_leaves = _parts(near, levels, 0)
        self.pod: list[int] = [p if levels[s] == 0 else -1 for s, p in enumerate(lower)]
        self._level = list(levels)
        self._part = lower  # of leaves and spines: their pod
        self._plane, above_spines = _parts(near, levels, 1)
        self._up: list[list[Word]] = [[] for _ in range(count)]
        self._down: list[list[Word]] = [[] for _ in range(count)]
        self.rises: list[Rise | None] = [None] * len(lanes)
        # The arcs that a bit of a switch's words stands for.
        self._ups: list[dict[Word, list[int]]] = [{} for _ in range(count)]
        most = max(lanes, default=0).bit_length()
        # Of the rises from each pod's spines, and of those from a leaf, which nobody asks for.
        self._rich: list[tuple[list[int], list[int]]] = [
            ([0] * (most + 1), [0] * (most + 1)) for _ in range(max(lower, default=-1) + 1)
        ]
        of_leaves = ([0] * (most + 1), [0] * (most + 1))
        for level, above in ((0, above_leaves), (1, above_spines)):
            for here in range(count):
                if levels[here] == level:
                    spine = level and lower[here] >= 0
                    counts = self._rich[lower[here]] if spine else of_leaves
                    self._survey(here, near[here], levels, above, lanes, counts)
        # Pod -> plane -> the bits of those of its spines that are on the plane.
        self._on_plane: dict[int, dict[int, Word]] = defaultdict(dict)
        for switch, bit in above_leaves.items():
            planes = self._on_plane[lower[switch]]
            planes[self._plane[switch]] = planes.get(self._plane[switch], 0) | bit
        self._named: list[dict[Word, int]] = [{} for _ in range(count)]
        for here in range(count):
            for other, arc in near[here]:
                rise = self.rises[arc]
                if rise is not None and levels[other] == levels[here] + 1:
                    self._named[here][rise.bit] = other
        if not self._is_even(near, levels):
            self.pod = [-1] * count
        self._single = all(len(arcs) == 1 for its in self._ups for arcs in its.values())
        self._leaf = self._leaves(levels)

    def _leaves(self, levels: Sequence[int]) -> list[Leaf | None]:
        """Return by switch what a search asks of it, where it is a leaf."""
        rungs: list[dict[Word, Rung]] = [{} for _ in levels]
        for here in sorted(range(len(levels)), key=levels.__getitem__, reverse=True):
            for bit, other in self._named[here].items():
                rungs[here][bit] = Rung(
                    self._ups[here][bit][0],
                    other,
                    self._plane[other],
                    self._up[other],
                    self._down[other],
                    rungs[other],
                )
        return [
            Leaf(
                pod,
                self._up[here],
                self._down[here],
                rungs[here],
                *self._rich[pod],
                self._on_plane[pod],
            )
            if pod >= 0
            else None
            for here, pod in enumerate(self.pod)
        ]

    def _survey(
        self,
        here: int,
        others: Sequence[tuple[int, int]],
        levels: Sequence[int],
        above: Mapping[int, Word],
        lanes: Sequence[int],
        counts: tuple[list[int], list[int]],
    ) -> None:
        rising = [(other, arc) for other, arc in others if levels[other] > levels[here]]
        most = max((lanes[arc] for _, arc in rising), default=0)
        self._up[here] = [0] * (most.bit_length() + 1)
        self._down[here] = [0] * (most.bit_length() + 1)
        ups: dict[Word, Rise] = {}
        downs: dict[Word, Rise] = {}
        for other, arc in rising:
            bit = above[other]
            up = ups.setdefault(bit, Rise(self._up[here], bit, [], counts[0]))
            down = downs.setdefault(bit, Rise(self._down[here], bit, [], counts[1]))
            self.rises[arc] = up
            self.rises[arc ^ 1] = down
            for rise, each in ((up, arc), (down, arc ^ 1)):
                before = self._most(rise).bit_length()
                rise.arcs.append(each)
                for having in range(before + 1, self._most(rise).bit_length() + 1):
                    rise.words[having] |= bit
                    rise.counts[having] += 1
            self._ups[here].setdefault(bit, []).append(arc)

    def _most(self, rise: Rise) -> int:
        return max((self._free[arc].bit_count() for arc in rise.arcs), default=0)

    def _is_even(self, near: Near, levels: Sequence[int]) -> bool:
        """Whether ways of one length are alike in latency, by their levels alone."""
        kinds: dict[tuple[int, int], set[int]] = defaultdict(set)
        for here, others in enumerate(near):
            for other, arc in others:
                kinds[levels[here], levels[other]].add(self._ns[arc])
        return all(len(found) == 1 for found in kinds.values())

    def changed(self, arc: int, before: Word, after: Word) -> None:
        """Note that what is free of an arc went from one bitmap to another."""
        rise = self.rises[arc]
        if rise is None:
            return
        words, bit, arcs, counts = rise
        had, has = before.bit_count().bit_length(), after.bit_count().bit_length()
        if had == has:
            return
        if len(arcs) > 1:  # what is free has changed already
            rest = max([self._free[other].bit_count() for other in arcs if other != arc])
            had, has = max(had, rest.bit_length()), max(has, rest.bit_length())
        while had > has:
            words[had] ^= bit
            counts[had] -= 1
            had -= 1
        while had < has:
            had += 1
            words[had] ^= bit
            counts[had] += 1

    def words(self) -> tuple[list[list[Word]], list[list[Word]]]:
        """Return the words of all switches by class, up and down, to compare."""
        return self._up, self._down

    # -- ways

    def way(self, a: int, b: int, lanes: int, turn: int = 0) -> tuple[int, ...] | None:
        """Return the arcs of the shortest way between two leaves, if that turns around once.

        Of ways alike, one whose fuller trunk has the most lanes left, to a power of two; then the
        first from a place among the switches above that `turn` chooses. Where `None` is returned
        there may be a way that goes up and down more than once.

        Args:
            a: A leaf.
            b: Another.
            lanes: How many each trunk must have.
            turn: Varies the choice.
        """
        one, other = self._leaf[a], self._leaf[b]
        if one is None or other is None:
            return None
        pod, up, _, rungs, rich_up, _, _ = one
        pod_b, _, down, rungs_b, _, rich_down, _ = other
        within = pod == pod_b
        if within:
            rich_up, rich_down = up, down
        least = lanes.bit_length()
        for having in range(min(len(up), len(down)) - 1, least - 1, -1):
            # Where no spine has so much left on any trunk above it, there is nothing to look for.
            if not (rich_up[having] and rich_down[having]):
                continue
            # In the least class some may have fewer lanes than are wanted, unless that is a power
            # of two.
            exact = having > least or not lanes & lanes - 1
            if within:
                found = up[having] & down[having]
                if not exact:
                    found = self._with(a, found, lanes, 0) & self._with(b, found, lanes, 1)
                if found:
                    bit = _from(found, turn) if turn else found & -found
                    if self._single:
                        return rungs[bit][0], rungs_b[bit][0] ^ 1
                    return self._rising(a, bit), self._falling(b, bit)
            elif left := up[having]:
                way = self._over_cores(a, b, left, having, 0 if exact else lanes, turn)
                if way is not None:
                    return way
        return None

    def turns_once(self, a: int, b: int) -> bool:
        """Whether every way of the least length that the wiring allows is one `way` looks for."""
        return self.pod[a] >= 0 and self.pod[b] >= 0 and a != b

    def _over_cores(
        self, a: int, b: int, left: Word, having: int, lanes: int, turn: int
    ) -> tuple[int, ...] | None:
        """Return a way over a core switch whose trunks are all of a class or above.

        Args:
            a: A leaf.
            b: One of another pod.
            left: The first's word of that class.
            having: The class.
            lanes: What each trunk must have left, 0 where the class says enough.
            turn: As in `way`.
        """
        one, other = self._leaf[a], self._leaf[b]
        assert one is not None, "the caller has looked"
        assert other is not None, "the caller has looked"
        rungs, (_, _, down, rungs_b, _, _, planes) = one[3], other
        ends = down[having]
        if lanes:
            left, ends = self._with(a, left, lanes, 0), self._with(b, ends, lanes, 1)
        while left:
            x = _from(left, turn) if turn else left & -left
            left ^= x
            first, here, plane, up, _, cores = rungs[x]
            if having >= len(up) or not (word := up[having]):
                continue
            others = ends & planes.get(plane, 0)
            while others:
                y = others & -others
                others ^= y
                last, there, _, _, down, cores_b = rungs_b[y]
                both = word & down[having] if having < len(down) else 0
                if both and lanes:
                    both = self._with(here, both, lanes, 0) & self._with(there, both, lanes, 1)
                if both:
                    core = _from(both, turn) if turn else both & -both
                    if self._single:
                        return first, cores[core][0], cores_b[core][0] ^ 1, last ^ 1
                    return (
                        self._rising(a, x),
                        self._rising(here, core),
                        self._falling(there, core),
                        self._falling(b, y),
                    )
        return None

    # -- trees

    def common(
        self, root: int, leaves: Sequence[int], lanes: int, *, back: int
    ) -> list[tuple[int, ...]] | None:
        """Return a smallest tree that turns around once: over one spine, or one core, for all.

        Where leaves are of one pod, that is a spine which all of them have lanes to; else a core,
        and in each pod the spine below it. Of such trees, one whose fullest trunk has the most
        lanes left, to a power of two.

        Args:
            root: A leaf.
            leaves: Others, none twice.
            lanes: How many each trunk must have.
            back: 0 = streams run from the root, 1 = to it.

        Returns:
            For each leaf the arcs between it and the root in the direction of the stream, what is
            common to several each time; None where there is no such tree.
        """
        groups: dict[int, list[int]] = {self.pod[root]: []}
        for leaf in leaves:
            groups.setdefault(self.pod[leaf], []).append(leaf)
        if -1 in groups:
            return None
        most = min([len(self._up[leaf]) for leaf in (root, *leaves)]) - 1
        least = lanes.bit_length()
        for having in range(most, least - 1, -1):
            exact = having > least or not lanes & lanes - 1
            found = self._common(root, groups, having, 0 if exact else lanes, back)
            if found is not None:
                ways = [found[leaf] for leaf in leaves]
                return [way[::-1] for way in ways] if back else ways
        return None

    def _common(
        self, root: int, groups: Mapping[int, Sequence[int]], having: int, lanes: int, back: int
    ) -> dict[int, tuple[int, ...]] | None:
        """Return the arcs from the root to each leaf, for trunks of a class or above."""
        own = self.pod[root]
        left = self._word(root, having, lanes, back)
        ends: dict[int, Word] = {}
        for pod, its in groups.items():
            ends[pod] = -1
            for leaf in its:
                ends[pod] &= self._word(leaf, having, lanes, 1 - back)
        left &= ends.pop(own)
        down = self._rising if back else self._falling
        up = self._falling if back else self._rising
        while left:
            x = left & -left
            left ^= x
            here = self._named[root][x]
            spines = self._spines(here, groups, ends, having, lanes, back)
            if spines is None:
                continue
            below, core = spines
            found: dict[int, tuple[int, ...]] = {
                leaf: (up(root, x), down(leaf, x)) for leaf in groups[own]
            }
            for pod, (y, there) in below.items():
                crossed = up(root, x), up(here, core), down(there, core)
                found.update({leaf: (*crossed, down(leaf, y)) for leaf in groups[pod]})
            return found
        return None

    def _spines(
        self,
        here: int,
        groups: Mapping[int, Sequence[int]],
        ends: Mapping[int, Word],
        having: int,
        lanes: int,
        back: int,
    ) -> tuple[dict[int, tuple[Word, int]], Word] | None:
        """Return for each pod a spine, as bit and switch, that all share a core with `here`."""
        cores: Word = self._word(here, having, lanes, back) if ends else 1
        below: dict[int, tuple[Word, int]] = {}
        for pod, word in ends.items():
            others = word & self._on_plane[pod].get(self._plane[here], 0)
            while others:
                y = others & -others
                others ^= y
                there = self._named[groups[pod][0]][y]
                both = cores & self._word(there, having, lanes, 1 - back)
                if both:
                    below[pod] = (y, there)
                    cores = both
                    break
            else:
                return None
        return below, cores & -cores

    def _word(self, here: int, having: int, lanes: int, back: int) -> Word:
        """Return the switches above to which, or back from which, trunks are of a class."""
        words = (self._down if back else self._up)[here]
        if having >= len(words):
            return 0
        return self._with(here, words[having], lanes, back) if lanes else words[having]

    def to(self, goal: int) -> Callable[[int], int]:
        """Return how many links lie between a leaf and another switch, at least.

        As for `Graph.bound`: of the fabric with nothing held, and consistent.
        """
        level, part, own = self._level, self._part, self._part[goal]
        near, far = (2, 1), (4, 3)

        def bound(here: int) -> int:
            height = level[here]
            if height > 1:
                return height
            return (near if part[here] == own else far)[height] if here != goal else 0

        return bound

    def _with(self, here: int, word: Word, lanes: int, back: int) -> Word:
        """Return those of a word's switches to which, or back from which, so many lanes are left."""
        found = 0
        while word:
            bit = word & -word
            word ^= bit
            if any(self._free[arc ^ back].bit_count() >= lanes for arc in self._ups[here][bit]):
                found |= bit
        return found

    def _rising(self, here: int, bit: Word) -> int:
        arcs = self._ups[here][bit]
        if len(arcs) == 1:
            return arcs[0]
        return max(arcs, key=lambda arc: self._free[arc].bit_count())

    def _falling(self, here: int, bit: Word) -> int:
        arcs = self._ups[here][bit]
        if len(arcs) == 1:
            return arcs[0] ^ 1
        return max((arc ^ 1 for arc in arcs), key=lambda arc: self._free[arc].bit_count())


def _from(word: Word, turn: int) -> Word:
    """Return the lowest bit from `turn` upwards, or the lowest of all where there is none."""
    if turn:
        high = word >> turn << turn
        if high:
            return high & -high
    return word & -word


def _parts(near: Near, levels: Sequence[int], level: int) -> tuple[list[int], dict[int, Word]]:
    """Return the parts that a level and the one above it fall into, and the bits of the latter.

    Returns:
        By switch: the number of its part, or -1; then upper switch -> its bit in the words of
        its part, in the order of numbers.
    """
    part = [-1] * len(near)
    bits: dict[int, Word] = {}
    number = 0
    for start, its in enumerate(levels):
        if its != level or part[start] >= 0:
            continue
        part[start] = number
        stack, members = [start], [start]
        while stack:
            for other, _ in near[stack.pop()]:
                if part[other] < 0 and levels[other] in (level, level + 1):
                    part[other] = number
                    stack.append(other)
                    members.append(other)
        upper = sorted(s for s in members if levels[s] == level + 1)
        bits.update((switch, 1 << place) for place, switch in enumerate(upper))
        number += 1
    return part, bits
