"""Which task runs on which engine, so that as few bytes as can be cross as few hops as can be?

The quadratic assignment problem: tasks that talk, places that lie apart, and the sum of bytes times
hops is to be least. Exact answers stop at about 16 tasks. So tasks are grown around those that talk
most, then swapped while that helps, then a few are shaken and swapped again, where at first a
slightly worse answer may be gone on from. All is integers but the patience with worse answers.

Sources: Brandfass et al., "Rank reordering for MPI communication optimization", Computers & Fluids
2013 (growth, swaps by their difference); Martin, Otto, Felten, "Large-step Markov chains for the
travelling salesman problem", Complex Systems 1991 (shaking).
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, TypeAlias

from flowos.model.slice import Shape
from flowos.planning.chance import scramble

Matrix: TypeAlias = Sequence[Sequence[int]]
Traffic: TypeAlias = Matrix | Mapping[tuple[int, int], int]

_SHAKES_MAX: Final = 600  # half as many missed the optimum of one in 40 cases of 16 tasks
_SHAKEN: Final = 300_000  # shakes times tasks squared: some tens of ms at 64 tasks
_SHAKES_MIN: Final = 8
_SWAPS_MAX: Final = 3  # in one shake: more of them forget what was learnt
_PATIENCE: Final = 0.03  # how much worse an answer may at first be, against the first one found
_DIE_BITS: Final = 10  # of a turn's bits for each thing left to chance: up to 1,024 places
_SAME_ROUND: Final = 3  # round trips of so few leaves are all the same


def hop_bytes(traffic: Traffic, distance: Matrix, places: Sequence[int]) -> int:
    """Return the bytes times hops of a mapping.

    Args:
        traffic: As in `place_tasks`.
        distance: As in `place_tasks`.
        places: Task -> place.
    """
    return sum(
        amount * distance[places[one]][places[other]] for one, other, amount in _flows(traffic)
    )


def place_tasks(
    traffic: Traffic, distance: Matrix, seed: int = 0, shakes: int | None = None
) -> list[int]:
    """Give each task a place of its own so that bytes times hops are few.

    It has found the optimum in every tested case of up to 16 tasks.

    Args:
        traffic: Bytes from each task to each other: rows, shape (tasks, tasks), or {(from, to):
            bytes} where all that are not named are nothing; then there are as many tasks as
            places. What a task says to itself counts nothing.
        distance: Hops from each place to each other, symmetric, shape (places, places).
        seed: Another number tries other shakes; the answer is no worse on average.
        shakes: How often to shake; None = as many as take some tens of milliseconds. 0 = only
            grow and swap.

    Returns:
        Task -> place, each place once.

    Raises:
        ValueError: There are more tasks than places.
    """
    places = len(distance)
    tasks = places if isinstance(traffic, Mapping) else len(traffic)
    if tasks > places:
        raise ValueError(f"{tasks} tasks cannot each have a place of {places}: bring more places")
    # A place without a task has a silent one, so that moving there is a swap like others.
    weights = [[0] * places for _ in range(places)]
    for one, other, amount in _flows(traffic):
        weights[one][other] += amount
        weights[other][one] += amount
    layout = _Layout(weights, distance)
    if layout.talking and not _all_alike(distance):
        layout.grow()
        layout.settle(layout.talking)
        if shakes is None:
            shakes = max(_SHAKES_MIN, min(_SHAKES_MAX, _SHAKEN // (places * places)))
        _shake(layout, seed, shakes)
        return layout.place_of[:tasks]
    return list(range(tasks))


def _flows(traffic: Traffic) -> Iterable[tuple[int, int, int]]:
    if isinstance(traffic, Mapping):
        return [(a, b, amount) for (a, b), amount in traffic.items() if a != b and amount]
    return [
        (a, b, amount)
        for a, row in enumerate(traffic)
        for b, amount in enumerate(row)
        if amount and a != b
    ]


def _all_alike(distance: Matrix) -> bool:
    first = distance[0][-1]
    return all(d == first for a, row in enumerate(distance) for b, d in enumerate(row) if a != b)


class _Layout:
    """Where the tasks are, and what each would cost at each place while the others stay.

    Attributes:
        weights: Bytes between two tasks, both ways together.
        partners: The tasks that each talks to.
        talking: Those that talk to any.
        costs: Task -> place -> bytes times hops to where its partners are.
        cost: Bytes times hops of all.
    """

    __slots__ = (
        "cost",
        "costs",
        "distance",
        "partners",
        "place_of",
        "talking",
        "task_at",
        "weights",
    )

    def __init__(self, weights: list[list[int]], distance: Matrix) -> None:
        size = len(distance)
        self.weights = weights
        self.distance = distance
        self.partners = [[b for b, amount in enumerate(row) if amount] for row in weights]
        self.talking = [task for task, partners in enumerate(self.partners) if partners]
        self.costs = [[0] * size for _ in range(size)]
        self.place_of = [-1] * size
        self.task_at = [-1] * size
        self.cost = 0

    def grow(self) -> None:
        """Place the task that talks most to those placed, where that adds least; then the next."""
        bonds = [0] * len(self.weights)
        free = list(range(len(self.distance)))
        left = set(self.talking)
        task = max(left, key=lambda t: (sum(self.weights[t]), -t))
        while True:
            place = min(free, key=self.costs[task].__getitem__)
            free.remove(place)
            left.remove(task)
            self._put(task, place)
            if not left:
                break
            for partner in self.partners[task]:
                bonds[partner] += self.weights[task][partner]
            task = max(left, key=lambda t: (bonds[t], -t))
        silent = (task for task, place in enumerate(self.place_of) if place < 0)
        for task, place in zip(list(silent), free, strict=True):
            self._put(task, place)

    def _put(self, task: int, place: int) -> None:
        self.cost += self.costs[task][place]
        self.place_of[task] = place
        self.task_at[place] = task
        row = self.distance[place]
        for partner in self.partners[task]:
            weight = self.weights[task][partner]
            self.costs[partner] = [
                c + weight * d for c, d in zip(self.costs[partner], row, strict=True)
            ]

    def swap(self, place: int, other: int) -> tuple[int, int]:
        """Let the tasks at two places change with each other, and return both."""
        one, two = self.task_at[place], self.task_at[other]
        costs, weights = self.costs, self.weights
        self.cost += (
            costs[one][other] - costs[one][place]
            + costs[two][place] - costs[two][other]
            + 2 * weights[one][two] * self.distance[place][other]
        )  # fmt: skip
        self.task_at[place], self.task_at[other] = two, one
        self.place_of[one], self.place_of[two] = other, place
        further = [b - a for a, b in zip(self.distance[place], self.distance[other], strict=True)]
        bytes_of_one, bytes_of_two = weights[one], weights[two]
        for partner in {*self.partners[one], *self.partners[two]}:
            more = bytes_of_one[partner] - bytes_of_two[partner]
            if more:
                costs[partner] = [
                    c + more * d for c, d in zip(costs[partner], further, strict=True)
                ]
        return one, two

    def settle(self, tasks: Iterable[int]) -> None:
        """Swap while that helps, beginning with these tasks; those near a change are seen again."""
        queue = deque(tasks)
        queued = set(queue)
        costs, task_at, distance = self.costs, self.task_at, self.distance
        while queue:
            task = queue.popleft()
            queued.discard(task)
            weights = self.weights[task]
            while True:
                here = self.place_of[task]
                mine, row = costs[task], distance[here]
                stay = mine[here]
                # What a swap with the task at each place comes to, `stay` left out; at its own
                # place that is just `stay`.
                found = [
                    mine[there] + costs[t][here] - costs[t][there] + 2 * weights[t] * row[there]
                    for there, t in enumerate(task_at)
                ]
                least = min(found)
                if least >= stay:
                    break
                for moved in self.swap(here, found.index(least)):
                    for near in (moved, *self.partners[moved]):
                        if near not in queued and near != task:
                            queued.add(near)
                            queue.append(near)

    def saved(self) -> tuple[int, list[list[int]], list[int], list[int]]:
        """Return what `restore` takes; rows of costs are never changed in place."""
        return self.cost, self.costs[:], self.place_of[:], self.task_at[:]

    def restore(self, saved: tuple[int, list[list[int]], list[int], list[int]]) -> None:
        """Go back to how it was."""
        self.cost = saved[0]
        self.costs, self.place_of, self.task_at = saved[1][:], saved[2][:], saved[3][:]


def _shake(layout: _Layout, seed: int, shakes: int) -> None:
    """Swap a few by chance, settle, and go on from there if it is not much worse."""
    size, talking = len(layout.distance), layout.talking
    least = _least_possible(layout)
    now = best = layout.saved()
    slack = _PATIENCE * layout.cost
    for turn in range(shakes):
        if best[0] == least:
            break
        bits = scramble(seed, turn)
        shaken: set[int] = set()
        task = talking[bits % len(talking)]
        bits >>= _DIE_BITS
        for _ in range(1 + bits % _SWAPS_MAX):
            bits >>= _DIE_BITS
            here, there = layout.place_of[task], bits % size
            if here != there:
                shaken.update(layout.swap(here, there))
        layout.settle({near for task in shaken for near in (task, *layout.partners[task])})
        patience = slack * (1 - turn / shakes) * (bits >> _DIE_BITS & 1023) / 1023
        if layout.cost <= now[0] + patience:
            now = layout.saved()
            if layout.cost < best[0]:
                best = now
        else:
            layout.restore(now)
    layout.restore(best)


def _least_possible(layout: _Layout) -> int:
    """Return a bound: each task for itself, its most talkative partners at the nearest places."""
    near = [sorted(row[:q] + row[q + 1 :]) for q, row in enumerate(map(list, layout.distance))]
    near = [list(row) for row in set(map(tuple, near))]  # places that lie alike bound alike
    twice = 0
    for task in layout.talking:
        amounts = sorted((layout.weights[task][b] for b in layout.partners[task]), reverse=True)
        twice += min(sum(a * d for a, d in zip(amounts, row, strict=False)) for row in near)
    return -(-twice // 2)


# -- the order of ranks


def rank_order(
    shape: Shape,
    leaves: Sequence[str],
    hops: Callable[[str, str], int],
    traffic: Mapping[tuple[int, int], int] | None = None,
    seed: int = 0,
    shakes: int | None = None,
) -> Sequence[int]:
    """Return which engine gets which rank so that the circuits of a shape cross few switches.

    The answer is never worse than the order given; where that cannot be bettered cheaply, it is
    the order given: all engines on one leaf, or circuits from each to each.

    Args:
        shape: How the engines of one role are joined.
        leaves: The leaf switch of each engine, in the order they have now.
        hops: Links between two leaves, symmetric, 0 for the same; asked once for each two, and
            not at all where that makes no difference.
        traffic: For circuits that no shape tells, bytes (or lanes) from rank to rank.
        seed: As in `place_tasks`; only with traffic.
        shakes: The same.

    Returns:
        Rank -> position in `leaves`.
    """
    count = len(leaves)
    unchanged = range(count)
    if len(set(leaves)) <= 1 or (traffic is None and shape in (Shape.ALL, Shape.FLOW)):
        return unchanged
    members: dict[str, list[int]] = {}
    for position, leaf in enumerate(leaves):
        members.setdefault(leaf, []).append(position)
    names = list(members)
    if traffic is None and shape is Shape.RING and len(names) <= _SAME_ROUND:
        return [position for positions in members.values() for position in positions]
    apart = [[0] * len(names) for _ in names]
    for a, one in enumerate(names):
        for b in range(a):
            apart[a][b] = apart[b][a] = hops(one, names[b])
    if traffic is not None:
        return _by_traffic(traffic, leaves, names, apart, seed, shakes)
    if shape is Shape.STAR:
        sizes = [len(members[name]) for name in names]
        totals = [sum(d * s for d, s in zip(row, sizes, strict=True)) for row in apart]
        centre = members[names[totals.index(min(totals))]][0]
        return [centre, *(position for position in unchanged if position != centre)]
    return [position for leaf in _tour(apart) for position in members[names[leaf]]]


def _by_traffic(
    traffic: Mapping[tuple[int, int], int],
    leaves: Sequence[str],
    names: Sequence[str],
    apart: Matrix,
    seed: int,
    shakes: int | None,
) -> Sequence[int]:
    number = {name: n for n, name in enumerate(names)}
    of = [number[leaf] for leaf in leaves]
    rows = [[row[leaf] for leaf in of] for row in apart]
    distance = [rows[leaf] for leaf in of]
    found = place_tasks(traffic, distance, seed, shakes)
    unchanged = range(len(leaves))
    better = hop_bytes(traffic, distance, found) < hop_bytes(traffic, distance, unchanged)
    return found if better else unchanged


def _tour(apart: Matrix) -> list[int]:
    """Return a short round trip: from the order given, pieces are turned round or moved.

    Source: Lin, "Computer solutions of the traveling salesman problem", BSTJ 1965 (2-opt, or-opt).
    """
    count = len(apart)
    tour = list(range(count))
    better = True
    while better:
        better = False
        for first in range(count - 1):
            for last in range(first + 1, count):
                before, after = tour[first - 1], tour[(last + 1) % count]
                head, tail = tour[first], tour[last]
                gain = (
                    apart[before][head] + apart[tail][after]
                    - apart[before][tail] - apart[head][after]
                )  # fmt: skip
                if gain > 0 and last - first < count - 1:
                    tour[first : last + 1] = tour[first : last + 1][::-1]
                    better = True
    return tour
