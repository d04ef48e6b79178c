"""Tasks are mapped to places so that bytes times hops are as few as can be."""

import random
from functools import cache
from itertools import combinations, permutations

import pytest

from flowos.model.slice import Shape
from flowos.planning.tasks.mapping import hop_bytes, place_tasks, rank_order

TREE = (1, 3, 5)  # links between two engines on one leaf, in one pod, across pods


def tree(count, on_leaf, leaves_in_pod):
    def apart(a, b):
        if a == b:
            return 0
        if a // on_leaf == b // on_leaf:
            return TREE[0]
        return TREE[1 if a // (on_leaf * leaves_in_pod) == b // (on_leaf * leaves_in_pod) else 2]

    return [[apart(a, b) for b in range(count)] for a in range(count)]


def torus(*sizes):
    def at(number):
        spot = []
        for size in sizes:
            number, rest = divmod(number, size)
            spot.append(rest)
        return spot

    def apart(a, b):
        steps = zip(at(a), at(b), sizes, strict=True)
        return sum(min(abs(x - y), size - abs(x - y)) for x, y, size in steps)

    count = 1
    for size in sizes:
        count *= size
    return [[apart(a, b) for b in range(count)] for a in range(count)]


def some_traffic(count, seed, partners=3.0):
    rng = random.Random(seed)
    return {
        (a, b): rng.randint(1, 20)
        for a in range(count)
        for b in range(count)
        if a != b and rng.random() < partners / count
    }


def shuffled(traffic, count, seed):
    names = random.Random(seed).sample(range(count), count)
    return {(names[a], names[b]): amount for (a, b), amount in traffic.items()}


def least_on_tree_of_16(traffic):
    """The optimum on pods of two leaves of four: the best halves of 16, each in its best halves."""
    weights = [[0] * 16 for _ in range(16)]
    for (a, b), amount in traffic.items():
        weights[a][b] += amount
        weights[b][a] += amount
    inside = [0] * (1 << 16)  # bytes within each set of tasks
    for tasks in range(1, 1 << 16):
        low = (tasks & -tasks).bit_length() - 1
        rest = tasks & (tasks - 1)
        inside[tasks] = inside[rest] + sum(weights[low][b] for b in range(16) if rest >> b & 1)

    def halves(tasks, size):
        members = [n for n in range(16) if tasks >> n & 1]
        for chosen in combinations(members[1:], size - 1):
            half = 1 << members[0] | sum(1 << n for n in chosen)
            yield half, tasks ^ half

    @cache
    def kept_on_leaves(pod):
        return max(inside[one] + inside[two] for one, two in halves(pod, 4))

    everything = (1 << 16) - 1
    near, middle, far = TREE
    return min(
        far * inside[everything]
        - (far - middle) * (inside[one] + inside[two])
        - (middle - near) * (kept_on_leaves(one) + kept_on_leaves(two))
        for one, two in halves(everything, 8)
    )


# -- the optimum


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(
    ("tasks", "distance"),
    [(7, tree(7, 2, 2)), (6, torus(3, 2)), (5, torus(7)), (7, tree(7, 3, 1))],
)
def test_mapping_is_the_best_of_all_orders(seed, tasks, distance):
    traffic = [[0] * tasks for _ in range(tasks)]
    for (a, b), amount in some_traffic(tasks, seed).items():
        traffic[a][b] = amount
    places = place_tasks(traffic, distance, seed)
    assert len(set(places)) == tasks
    best = min(
        hop_bytes(traffic, distance, order) for order in permutations(range(len(distance)), tasks)
    )
    assert hop_bytes(traffic, distance, places) == best


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("partners", [2.0, 4.0, 16.0])
def test_sixteen_tasks_on_a_tree_are_mapped_at_the_optimum(seed, partners):
    traffic = some_traffic(16, seed, partners)
    distance = tree(16, 4, 2)
    found = hop_bytes(traffic, distance, place_tasks(traffic, distance))
    assert found == least_on_tree_of_16(traffic)


RING = {(n, (n + 1) % 16): 7 for n in range(16)}
GRID = {(a, b): 7 for a, row in enumerate(torus(4, 4)) for b, hops in enumerate(row) if hops == 1}
CUBES = {(a, b): 7 for a, row in enumerate(torus(2, 2, 2, 2)) for b, d in enumerate(row) if d == 1}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("traffic", "distance", "best"),
    [
        (RING, torus(4, 4), 16 * 7),  # each hop to a neighbour
        (GRID, torus(4, 4), 64 * 7),
        (CUBES, torus(4, 4), 64 * 7),  # the 4-cube is the 4 x 4 torus
        (RING, torus(16), 16 * 7),
        (RING, tree(16, 4, 2), 7 * (12 * 1 + 2 * 3 + 2 * 5)),  # it leaves each leaf and pod once
        (GRID, tree(16, 4, 2), 7 * (32 * 1 + 16 * 3 + 16 * 5)),  # squares on leaves, or columns
    ],
)
def test_shuffled_shapes_of_sixteen_are_found_again(seed, traffic, distance, best):
    mixed = shuffled(traffic, 16, seed)
    assert hop_bytes(mixed, distance, place_tasks(mixed, distance)) == best


def test_more_places_than_tasks_leave_the_far_ones_empty():
    traffic = [[0, 5, 5], [5, 0, 5], [5, 5, 0]]
    distance = tree(12, 2, 2)
    distance[7][6] = distance[6][7] = 2  # the only leaf that would do is 4..5, with one of its pod
    places = place_tasks(traffic, distance)
    assert hop_bytes(traffic, distance, places) == 2 * 5 * (1 + 3 + 3)


def test_one_way_traffic_counts_in_both_directions():
    distance = torus(6)
    places = place_tasks({(0, 5): 9, (5, 0): 1, (2, 2): 50}, distance)
    assert distance[places[0]][places[5]] == 1


# -- what it answers where there is nothing to gain


def test_silent_tasks_and_places_all_alike_stay_in_order():
    alike = [[0 if a == b else 4 for b in range(5)] for a in range(5)]
    assert place_tasks({}, tree(8, 2, 2)) == list(range(8))
    assert place_tasks(some_traffic(5, 1), alike) == [0, 1, 2, 3, 4]
    assert place_tasks([[0]], [[0]]) == [0]
    assert place_tasks([], []) == []


def test_more_tasks_than_places_are_refused():
    with pytest.raises(
        ValueError, match="3 tasks cannot each have a place of 2: bring more places"
    ):
        place_tasks([[0] * 3] * 3, torus(2))


def test_same_arguments_give_the_same_mapping():
    traffic = some_traffic(24, 3)
    distance = tree(24, 4, 3)
    assert place_tasks(traffic, distance, seed=5) == place_tasks(traffic, distance, seed=5)


def test_shaking_betters_what_growth_and_swaps_found():
    gains = []
    for seed in range(5):
        traffic, distance = some_traffic(32, seed, 5.0), torus(8, 4)
        plain = hop_bytes(traffic, distance, place_tasks(traffic, distance, shakes=0))
        gains.append(1 - hop_bytes(traffic, distance, place_tasks(traffic, distance)) / plain)
    assert all(gain >= 0 for gain in gains)
    assert sum(gains) / len(gains) > 0.02


# -- the order of ranks


def hops_of(distance):
    return lambda one, other: distance[int(one)][int(other)]


def crossed(shape, leaves, order, hops):
    ranks = [leaves[n] for n in order]
    pairs = {
        Shape.RING: [(n, (n + 1) % len(ranks)) for n in range(len(ranks))],
        Shape.STAR: [(0, n) for n in range(1, len(ranks))],
    }[shape]
    return sum(hops(ranks[a], ranks[b]) for a, b in pairs)


def test_engines_of_one_leaf_keep_their_order_and_no_hops_are_asked():
    def never(one, other):
        raise AssertionError((one, other))

    for shape in Shape:
        assert list(rank_order(shape, ["s0"] * 4, never)) == [0, 1, 2, 3]
    assert list(rank_order(Shape.ALL, ["s0", "s1", "s0"], never)) == [0, 1, 2]


def test_ring_passes_each_leaf_once_and_goes_round_by_neighbours():
    hops = hops_of(torus(6))
    leaves = [*"03142503142503"]  # the names lie: 0-3-1-4-2-5 is the worst way round
    order = rank_order(Shape.RING, leaves, hops)
    assert sorted(order) == list(range(14))
    assert crossed(Shape.RING, leaves, order, hops) == 6


def test_star_has_its_centre_in_the_middle():
    hops = hops_of(tree(8, 1, 4))
    leaves = [*"4555667"]
    order = rank_order(Shape.STAR, leaves, hops)
    assert leaves[order[0]] == "5"
    assert order[1:] == [0, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("shape", [Shape.RING, Shape.STAR])
def test_order_is_never_worse_than_the_one_given(shape, seed):
    rng = random.Random(seed)
    hops = hops_of(torus(3, 4))
    leaves = sorted(str(rng.randrange(12)) for _ in range(rng.randint(2, 24)))
    order = rank_order(shape, leaves, hops)
    assert sorted(order) == list(range(len(leaves)))
    given = crossed(shape, leaves, range(len(leaves)), hops)
    assert crossed(shape, leaves, order, hops) <= given


def test_explicit_circuits_are_mapped_by_their_traffic():
    hops = hops_of(tree(4, 1, 2))
    leaves = [*"00112233"]
    traffic = shuffled({(n, n ^ 1): 9 for n in range(8)}, 8, seed=2)
    order = rank_order(Shape.RING, leaves, hops, traffic)
    assert sum(hops(leaves[order[a]], leaves[order[b]]) for a, b in traffic) == 0


def test_explicit_circuits_that_lie_well_already_keep_their_order():
    hops = hops_of(tree(4, 1, 2))
    pairs = {(n, n ^ 1): 1 for n in range(8)}
    pairs[6, 7] = 9  # growth would begin with these
    assert list(rank_order(Shape.RING, [*"00112233"], hops, pairs)) == list(range(8))


def test_mapping_that_cannot_be_bettered_is_not_shaken(monkeypatch):
    def never(seed, turn):
        raise AssertionError((seed, turn))

    monkeypatch.setattr("flowos.planning.tasks.mapping.scramble", never)
    pairs = shuffled({(n, n ^ 1): 7 for n in range(16)}, 16, seed=1)
    distance = tree(16, 4, 2)
    assert hop_bytes(pairs, distance, place_tasks(pairs, distance)) == 16 * 7
