"""Engines over several leaves are counted in the order in which their circuits are shortest."""

import pytest

from flowos.model.cell import Link, Switch, Thing
from flowos.model.placement import Decision
from flowos.model.slice import CircuitWish, Shape
from flowos.planning.engines.pool import Pool
from flowos.planning.place import plan
from flowos.planning.tasks.ranks import ranked
from tests.unit.planning.cells import gpus, node, ports, request, ring, trunk, view_of, want


def row_of(count, *, closed, each=1):
    """Switches in a row or a ring, whose names say nothing of where they stand, with GPUs on each."""
    places = [f"sw{number * 7 % count:02}" for number in range(count)]
    things: list[Thing] = [Switch(name, latency_ns=100) for name in sorted(places)]
    for number, name in enumerate(places[: count - (not closed)]):
        things.append(trunk(name, places[(number + 1) % count], lanes=4))
    for name in sorted(places):
        engines = gpus(f"n{name[2:]}", each)
        things += node(f"n{name[2:]}", *engines)
        things += ports(engines, name, lanes=4)
    return places, view_of(*things)


def pool_of(view):
    pool = Pool(view)
    pool.fold()
    return pool


def steps(places, engines, *, closed):
    """How many trunks a ring of these engines crosses."""
    at = [places.index(f"sw{engine[1:3]}") for engine in engines]
    apart = [abs(a - b) for a, b in zip(at, [*at[1:], at[0]], strict=True)]
    return sum(min(d, len(places) - d) if closed else d for d in apart)


@pytest.mark.parametrize("closed", [True, False])
def test_ring_goes_round_the_switches_as_they_are_joined(closed):
    places, view = row_of(9, closed=closed, each=2)
    engines = sorted(view.cell.engines)
    found = ranked(pool_of(view), [ring("w")], "w", engines)
    assert sorted(found) == engines
    assert steps(places, found, closed=closed) == (9 if closed else 16)
    assert steps(places, engines, closed=closed) > 16


def test_gang_is_placed_in_the_order_of_its_ring():
    places, view = row_of(9, closed=True)
    found = plan(pool_of(view), request(ring("w"), w=want(9)))
    assert isinstance(found, Decision)
    assert steps(places, found.engines["w"], closed=True) == 9


def test_leaves_of_a_pod_are_neighbours_in_a_ring():
    pods = {f"l{leaf}": leaf % 2 for leaf in range(6)}
    things: list[Thing] = [Switch("core", tier=2), *(Switch(f"s{pod}", tier=1) for pod in (0, 1))]
    things += [trunk(f"s{pod}", "core", lanes=4) for pod in (0, 1)]
    for leaf, pod in pods.items():
        engines = gpus(f"n{leaf[1:]}", 1)
        things += [Switch(leaf), trunk(leaf, f"s{pod}", lanes=4), *node(f"n{leaf[1:]}", *engines)]
        things += ports(engines, leaf)
    view = view_of(*things)
    found = ranked(pool_of(view), [ring("w")], "w", sorted(view.cell.engines))
    turns = [pods[f"l{engine[1]}"] for engine in found]
    assert sum(a != b for a, b in zip(turns, [*turns[1:], turns[0]], strict=True)) == 2


def test_explicit_pairs_come_onto_one_switch():
    _, view = row_of(4, closed=True, each=2)
    pairs = CircuitWish(Shape.EXPLICIT, ("w",), links=((0, 7), (1, 6), (2, 5), (3, 4)))
    found = ranked(pool_of(view), [pairs], "w", sorted(view.cell.engines))
    assert all(found[a][:3] == found[b][:3] for a, b in pairs.links)


def test_star_has_its_centre_where_the_way_to_all_is_shortest():
    places, view = row_of(11, closed=False)
    star = CircuitWish(Shape.STAR, ("w",))
    found = ranked(pool_of(view), [star], "w", sorted(view.cell.engines))
    assert f"sw{found[0][1:3]}" == places[5]


@pytest.mark.parametrize(
    "wishes",
    [
        [],
        [CircuitWish(Shape.ALL, ("w",))],
        [CircuitWish(Shape.RING, ("w", "v"))],
        [CircuitWish(Shape.TORUS, ("w",), dims=(5, 5))],  # refused where its circuits are laid
    ],
)
def test_where_ranks_do_not_matter_the_order_stays(wishes):
    _, view = row_of(9, closed=True)
    engines = sorted(view.cell.engines)
    assert ranked(pool_of(view), wishes, "w", engines) == tuple(engines)


def test_engines_that_no_switch_joins_keep_their_order():
    engines = gpus("n0", 4)
    joined = [Switch("sw"), *ports(engines[:2], "sw")]
    view = view_of(*node("n0", *engines), Link("pair", "n0/gpu2:1", "n0/gpu3:1"), *joined)
    names = [engine.id for engine in engines]
    assert ranked(pool_of(view), [CircuitWish(Shape.STAR, ("w",))], "w", names) == tuple(names)
