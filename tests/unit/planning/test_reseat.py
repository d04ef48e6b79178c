"""Engines that cannot be joined as they were chosen change places, and only places that will do."""

from collections.abc import Mapping

from flowos.model.cell import Engine, Switch
from flowos.model.slice import CircuitWish, Shape, SliceSpec
from flowos.model.view import CellView
from flowos.planning.circuits.route import Blocked, Routed, route, wishes_of
from flowos.planning.demand import Want, demand_of
from flowos.planning.engines.pool import Pool
from flowos.planning.search.reseat import Engines, Reseated, reseat
from tests.unit.planning.cells import gpus, hold, node, ports, request, ring, trunk, view_of, want

STAR = CircuitWish(Shape.STAR, ("a",))


def tried(
    view: CellView, spec: SliceSpec, engines: Engines, avoid: tuple[str, ...] = ()
) -> Reseated | None:
    """What comes of engines whose circuits are blocked."""
    pool = Pool(view)
    wants: dict[str, Want] = {wants[0].role: wants[0] for wants in demand_of(pool, spec).engines}

    def lay(named: Mapping[str, tuple[str, ...]]) -> Routed | Blocked:
        whole = {engine for ids in named.values() for engine in ids}
        return route(pool, wishes_of(spec.circuits, named), whole=whole, name="t")

    blocked = lay(engines)
    assert isinstance(blocked, Blocked), "the test begins with what cannot be joined"
    return reseat(pool, wants, engines, blocked, lay, joined=blocked.wanted, avoid=avoid)


def hub_cell() -> CellView:
    """Four engines on a switch, of which only the last has more than one lane."""
    thin, wide = gpus("n0", 3), [Engine("n0", "gpu3", "gpu", "A100")]
    return view_of(
        Switch("l0"), node("n0", *thin, *wide), ports(thin, "l0"), ports(wide, "l0", lanes=3)
    )


def test_the_only_engine_that_can_be_the_hub_of_a_star_becomes_it():
    engines = tuple(f"n0/gpu{n}" for n in range(4))
    found = tried(hub_cell(), request(STAR, a=want(4)), {"a": engines})
    assert found is not None
    assert found.engines["a"][0] == "n0/gpu3"
    assert sorted(found.engines["a"]) == sorted(engines)
    assert len(found.routed.circuits) == 6


def apart() -> CellView:
    """Two leaves that nothing joins, two engines on one and four on the other."""
    few, many = gpus("n0", 2), gpus("n1", 4)
    return view_of(
        Switch("l0"), Switch("l1"), node("n0", *few), node("n1", *many),
        ports(few, "l0"), ports(many, "l1"),
    )  # fmt: skip


def test_engines_move_one_by_one_to_where_the_rest_can_be_reached():
    found = tried(apart(), request(ring("a"), a=want(3)), {"a": ("n0/gpu0", "n0/gpu1", "n1/gpu0")})
    assert found is not None
    assert {engine.partition("/")[0] for engine in found.engines["a"]} == {"n1"}


def test_what_is_held_or_to_be_avoided_is_no_place_to_move_to():
    view = apart()
    hold(view, "engine/n1/gpu1")
    begin = {"a": ("n0/gpu0", "n0/gpu1", "n1/gpu0")}
    found = tried(view, request(ring("a"), a=want(3)), begin)
    assert found is not None
    assert set(found.engines["a"]) == {"n1/gpu0", "n1/gpu2", "n1/gpu3"}
    assert tried(view, request(ring("a"), a=want(3)), begin, avoid=("engine/n1/gpu2",)) is None


def test_a_role_that_must_be_on_one_switch_is_not_torn_apart():
    few, many = gpus("n0", 2), gpus("n1", 3)
    view = view_of(
        Switch("l0"), Switch("l1"), trunk("l0", "l1"), node("n0", *few), node("n1", *many),
        ports(few, "l0", lanes=2), ports(many, "l1", lanes=2),
    )  # fmt: skip
    begin = {"a": ("n0/gpu0", "n0/gpu1"), "b": ("n1/gpu0",)}
    # Two rings, and one lane each way between the leaves.
    rings = [ring("a", "b"), ring("a", "b")]
    found = tried(view, request(*rings, a=want(2), b=want(1)), begin)
    assert found is not None
    assert {e.partition("/")[0] for ids in found.engines.values() for e in ids} == {"n1"}
    assert tried(view, request(*rings, a=want(2), b=want(1), together="switch"), begin) is None
    assert tried(view, request(*rings, a=want(2), b=want(1), together="node"), begin) is None


def test_nothing_is_found_where_no_change_helps():
    assert tried(apart(), request(ring("a"), a=want(6)), {"a": ALL}) is None


ALL = ("n0/gpu0", "n1/gpu0", "n1/gpu1", "n0/gpu1", "n1/gpu2", "n1/gpu3")
