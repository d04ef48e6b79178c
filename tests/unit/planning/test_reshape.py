"""What does a slice that runs lack, and what can it give up, where its circuits name ranks?"""

from dataclasses import replace

import pytest

from flowos.model.placement import Decision, Placement
from flowos.model.slice import CircuitWish, Shape, SliceSpec
from flowos.planning.engines.pool import Pool
from flowos.planning.reshape import grown, kept, lacks_circuits
from tests.unit.planning.cells import leaves, placed, request, want

EXPLICIT = CircuitWish(Shape.EXPLICIT, ("w",), links=((0, 3), (1, 0)))
TORUS = CircuitWish(Shape.TORUS, ("w",), dims=(2, 2))
BY_RANK = pytest.mark.parametrize("wish", [EXPLICIT, TORUS], ids=["explicit", "torus"])


def a_ring_of(count: int):
    """One leaf of four GPUs, and a slice that holds so many of them in a ring."""
    view = leaves(1, gpus_each=4, port_lanes=4)
    spec = request(CircuitWish(Shape.RING, ("w",)), w=want(count))
    found = placed(view, spec)
    return view, _placement(found), spec


def _placement(found: Decision) -> Placement:
    return Placement(1, "a", held=found.units, engines=found.engines, circuits=found.circuits)


def joined_by(spec: SliceSpec, wish: CircuitWish, count: int) -> SliceSpec:
    return replace(spec, engines={"w": want(count)}, circuits=(wish,))


@BY_RANK
def test_circuits_by_rank_are_laid_when_all_ranks_are_there_and_the_old_stays_until_then(wish):
    view, placement, spec = a_ring_of(3)
    view.assume("t/other", Placement(1, "b", held={"engine/n0/gpu3": ()}))
    view.assume(spec.id, placement)
    asked = joined_by(spec, wish, 4)
    assert lacks_circuits(asked, placement)
    assert kept(asked, placement) is None
    pool = Pool(view)
    assert not isinstance(grown(pool, asked, placement), Decision)
    view.retract("t/other")
    found = grown(pool, asked, placement)
    assert isinstance(found, Decision)
    assert len(found.engines["w"]) == 4
    after = _placement(found)
    assert not lacks_circuits(asked, after)
    left = kept(asked, after)
    assert left is not None
    assert len(left.circuits) == (8 if wish is TORUS else 2)


@BY_RANK
def test_with_fewer_than_all_engines_it_grows_without_circuits_by_rank(wish):
    view, placement, spec = a_ring_of(2)
    view.assume("t/other", Placement(1, "b", held={"engine/n0/gpu3": ()}))
    view.assume(spec.id, placement)
    found = grown(Pool(view), joined_by(spec, wish, 4), placement)
    assert isinstance(found, Decision)
    assert (len(found.engines["w"]), found.circuits) == (3, placement.circuits)


def test_circuits_alone_are_laid_first_and_given_up_afterwards():
    view, placement, spec = a_ring_of(4)
    view.assume(spec.id, placement)
    asked = joined_by(spec, EXPLICIT, 4)
    found = grown(Pool(view), asked, placement)
    assert isinstance(found, Decision)
    assert found.engines == placement.engines
    assert found.circuits[:4] == placement.circuits
    assert [(c.source, c.targets) for c in found.circuits[4:]] == [
        ("n0/gpu0", ("n0/gpu3",)),
        ("n0/gpu1", ("n0/gpu0",)),
    ]
    left = kept(asked, _placement(found))
    assert left is not None
    assert left.circuits == found.circuits[4:]
