"""A slice that runs gets another size: what it lacks comes first, what it gives up goes afterwards."""

import random
from dataclasses import replace
from functools import partial

import pytest

from flowos.model.errors import SpecError
from flowos.model.slice import CircuitWish, EngineRole, Mode, Phase, Shape, SliceSpec
from flowos.planning.circuits.route import wishes_of
from flowos.planning.reshape import lacks_circuits
from flowos.runtime.updating import Update, updated
from tests.runtime.cells import small_cell, wanted
from tests.runtime.theatre import Theatre


def resized(spec: SliceSpec, count: int) -> SliceSpec:
    workers = EngineRole((replace(spec.engines["workers"].choices[0], count=count),))
    return replace(spec, engines={**spec.engines, "workers": workers})


def stage(**cell) -> Theatre:
    theatre = Theatre(small_cell(**cell))
    theatre.scheduler()
    theatre.controller()
    theatre.agent()
    return theatre


def ring_of(theatre: Theatre, name: str) -> set[tuple[str, str]]:
    return {(c.source, c.targets[0]) for c in theatre.placed(name).circuits}


def ring(members) -> set[tuple[str, str]]:
    return set(zip(members, [*members[1:], members[0]], strict=True))


def settled(theatre: Theatre, name: str, count: int) -> bool:
    placed = theatre.placement(name)
    return (
        placed is not None
        and len(theatre.held(name)) == count
        and not placed.releasing
        and theatre.phase(name) is Phase.RUNNING
        and ring_of(theatre, name) == ring(theatre.held(name))
    )


def test_a_slice_that_gave_up_a_whole_node_ends_when_the_tasks_on_the_others_have():
    theatre = stage(gpus=2, fpgas=0)
    spec = wanted("s", gpus=3, run_for=20.0)
    theatre.submit(spec)
    assert theatre.play(20, lambda: theatre.phase(spec.id) is Phase.RUNNING)
    assert len({engine.partition("/")[0] for engine in theatre.held(spec.id)}) == 2
    theatre.wish(spec.id, spec=resized(spec, 2))
    assert theatre.play(10, lambda: len(theatre.held(spec.id)) == 2)
    assert len({engine.partition("/")[0] for engine in theatre.held(spec.id)}) == 1
    assert theatre.play(60, lambda: theatre.phase(spec.id) is Phase.DONE)


@pytest.mark.parametrize(("first", "then"), [(2, 4), (4, 2), (2, 3), (4, 3)])
def test_a_ring_that_runs_grows_and_shrinks_under_the_same_attempt(first, then):
    theatre = stage(gpus=4, fpgas=0)
    spec = wanted("s", gpus=first, ring=True)
    theatre.submit(spec)
    assert theatre.play(20, lambda: theatre.phase(spec.id) is Phase.RUNNING)
    before = theatre.placed(spec.id)
    theatre.wish(spec.id, spec=resized(spec, then))
    assert theatre.play(30, lambda: settled(theatre, spec.id, then))
    after = theatre.placed(spec.id)
    assert after.attempt == before.attempt
    stays = min(first, then)
    assert after.engines["workers"][:stays] == before.engines["workers"][:stays]
    theatre.check()


def test_the_new_is_up_before_the_old_goes():
    theatre = stage(gpus=4, fpgas=0)
    spec = wanted("s", gpus=2, ring=True)
    theatre.submit(spec)
    assert theatre.play(20, lambda: theatre.phase(spec.id) is Phase.RUNNING)
    seen: list[tuple[int, int]] = []  # engines and circuits that it has

    def look() -> None:
        placed = theatre.placement(spec.id)
        if placed is not None:
            now = len(placed.engines["workers"]), len(placed.circuits)
            if not seen or seen[-1] != now:
                seen.append(now)

    theatre.before_move = look
    theatre.wish(spec.id, spec=resized(spec, 3))
    assert theatre.play(30, lambda: settled(theatre, spec.id, 3))
    look()
    assert seen == [(2, 2), (3, 4), (3, 3)]  # the edge that closed the ring goes last


def test_where_the_old_is_in_the_way_of_the_new_it_goes_first():
    # Two lanes at each port, one of them gone: an engine cannot have two circuits at once.
    theatre = stage(nodes=1, gpus=4, fpgas=0)
    for engine in range(4):
        for direction in ("fwd", "rev"):
            theatre.drain(f"lane/n0.gpu{engine}/{direction}/1")
    spec = wanted("s", gpus=2, ring=True)
    theatre.submit(spec)
    assert theatre.play(20, lambda: theatre.phase(spec.id) is Phase.RUNNING)
    theatre.wish(spec.id, spec=resized(spec, 3))
    assert theatre.play(60, lambda: settled(theatre, spec.id, 3)), theatre.placed(spec.id)


def test_a_slice_that_takes_what_fits_begins_small_and_grows_when_it_can():
    theatre = stage(gpus=4, fpgas=0)
    theatre.submit(wanted("other", gpus=5, run_for=5.0))
    assert theatre.play(5, lambda: theatre.placement("default/other") is not None)
    spec = wanted("s", gpus=8, ring=True, commit=str(Mode.INCREMENTAL), least={"workers": 2})
    theatre.submit(spec)
    assert theatre.play(4, lambda: len(theatre.held(spec.id)) == 3)
    assert theatre.play(60, lambda: settled(theatre, spec.id, 8))
    assert theatre.slice(spec.id).attempts == 0  # it was never queued again


def test_less_than_its_minimum_is_nothing():
    theatre = stage(gpus=4, fpgas=0)
    theatre.submit(wanted("other", gpus=5))
    assert theatre.play(5, lambda: theatre.placement("default/other") is not None)
    spec = wanted("s", gpus=8, commit=str(Mode.INCREMENTAL), least={"workers": 4})
    theatre.submit(spec)
    theatre.play(5)
    assert theatre.placement(spec.id) is None
    assert theatre.waits(spec.id)


def test_a_gang_never_begins_with_a_part():
    theatre = stage(gpus=4, fpgas=0)
    theatre.submit(wanted("other", gpus=5), wanted("s", gpus=8))
    theatre.play(5)
    assert theatre.placement("default/s") is None


@pytest.mark.parametrize("seed", range(12))
def test_whoever_dies_meanwhile_the_size_comes_to_what_is_wanted(seed):
    draw = random.Random(seed)
    theatre = stage(gpus=4, fpgas=0)
    spec = wanted("s", gpus=2, ring=True)
    theatre.submit(spec)
    assert theatre.play(20, lambda: theatre.phase(spec.id) is Phase.RUNNING)
    for size in (5, 3, 6, 2):
        theatre.wish(spec.id, spec=resized(spec, size))
        for _ in range(draw.randrange(40)):
            able = [(p, move) for p in theatre.players for move in p.possible_moves()]
            if able:
                player, move = draw.choice(able)
                player.move(move)
        draw.choice(theatre.players).replace(requests_land_late=draw.random() < 0.5)
    assert theatre.play(200, lambda: settled(theatre, spec.id, 2)), theatre.placed(spec.id)
    theatre.check()


def test_a_budget_is_not_passed_by_growing():
    theatre = stage(nodes=1, gpus=4, fpgas=0, budget=300)
    spec = wanted("s", gpus=2)
    theatre.submit(spec)
    assert theatre.play(20, lambda: theatre.phase(spec.id) is Phase.RUNNING)
    theatre.wish(spec.id, spec=resized(spec, 4))
    theatre.play(20)
    assert len(theatre.held(spec.id)) <= 3
    theatre.check()


def test_what_runs_does_not_grow_into_what_is_kept_for_one_that_starves():
    """An elastic slice asks for all there is; the gang waits for two that hold for a while."""
    theatre = stage(nodes=1, gpus=6, fpgas=0)
    elastic = wanted("elastic", gpus=6, commit=str(Mode.INCREMENTAL), run_for=300.0)
    theatre.submit(wanted("a", gpus=2, run_for=14.0), wanted("b", gpus=2, run_for=40.0))
    assert theatre.play(3, lambda: bool(theatre.held("default/a") and theatre.held("default/b")))
    theatre.submit(elastic)
    assert theatre.play(3, lambda: len(theatre.held(elastic.id)) == 2)
    theatre.submit(wanted("gang", gpus=4))
    assert theatre.play(13, lambda: "mark/default/gang" in theatre.records("mark/"))
    assert theatre.play(60, lambda: bool(theatre.held("default/gang")))
    assert len(theatre.held(elastic.id)) == 2


@pytest.mark.parametrize("shape", [Shape.ALL, Shape.STAR, None])
def test_a_slice_that_runs_gets_other_circuits_under_its_tasks(shape):
    theatre = stage(gpus=4, fpgas=0)
    spec = wanted("s", gpus=3, ring=True, run_for=200.0)
    theatre.submit(spec)
    assert theatre.play(20, lambda: theatre.phase(spec.id) is Phase.RUNNING)
    before = theatre.placed(spec.id)
    began = len([v for v in theatre.devices.verbs() if v in ("run", "stop")])
    wishes = () if shape is None else (CircuitWish(shape, ("workers",)),)
    after = updated(spec, Update(circuits=wishes))
    theatre.wish(spec.id, spec=after)
    ends = {(w.source, w.targets) for w in wishes_of(wishes, before.engines)}

    def is_so() -> bool:
        placed = theatre.placed(spec.id)
        there = {(c.source, c.targets) for c in placed.circuits}
        return there == ends and not placed.releasing and theatre.phase(spec.id) is Phase.RUNNING

    assert theatre.play(30, is_so)
    placed = theatre.placed(spec.id)
    assert (placed.attempt, placed.engines) == (before.attempt, before.engines)
    assert len([v for v in theatre.devices.verbs() if v in ("run", "stop")]) == began
    theatre.check()


def test_circuits_that_cannot_be_meant_are_refused():
    spec = wanted("s", gpus=2, ring=True)
    with pytest.raises(SpecError, match="has no role nobody"):
        updated(spec, Update(circuits=(CircuitWish(Shape.RING, ("nobody",)),)))
    wish = CircuitWish(Shape.EXPLICIT, ("workers",), links=((0, 5),))
    with pytest.raises(SpecError, match="rank 5"):
        updated(spec, Update(circuits=(wish,)))
    one = CircuitWish(Shape.EXPLICIT, ("workers",), links=((0, 1),))
    with pytest.raises(SpecError, match="takes them as they come"):
        updated(replace(spec, commit=Mode.INCREMENTAL), Update(circuits=(one,)))
    # Ranks are those of the size that it is to have.
    both = updated(spec, Update(sizes={"workers": 6}, circuits=(wish,)))
    assert (both.circuits, both.engines["workers"].choices[0].count) == ((wish,), 6)
    with pytest.raises(SpecError, match="rank 5"):
        updated(both, Update(sizes={"workers": 5}, circuits=(wish,)))
    with pytest.raises(SpecError, match="says how many engines it has"):
        updated(both, Update(sizes={"workers": 5}))


BY_RANK = CircuitWish(Shape.EXPLICIT, ("workers", "reducer"), links=((0, 2), (1, 0)))
TREE = CircuitWish(
    Shape.EXPLICIT, ("workers", "reducer"), links=((2, 0), (2, 1), (0, 1)), multicast=True
)
SUMS = CircuitWish(Shape.EXPLICIT, ("workers", "reducer"), links=((0, 2), (1, 2)), aggregate="sum")


def has_just(theatre: Theatre, name: str) -> bool:
    """Whether a slice that runs has the circuits that it asks for, and no others."""
    placed = theatre.placed(name)
    if lacks_circuits(theatre.view().slices[name].value.spec, placed):
        return False
    asked = wishes_of(theatre.view().slices[name].value.spec.circuits, placed.engines)
    there = {(c.source, c.targets, c.sources) for c in placed.circuits}
    return (
        there == {(w.source, w.targets, w.sources) for w in asked}
        and not placed.releasing
        and theatre.phase(name) is Phase.RUNNING
    )


@pytest.mark.parametrize("seed", range(6))
def test_circuits_of_several_roles_follow_each_other_whoever_dies_meanwhile(seed):
    dice = random.Random(seed)
    theatre = stage()
    spec = wanted("s", gpus=2, fpgas=1, ring=True, run_for=500.0)
    theatre.submit(spec)
    assert theatre.play(30, lambda: theatre.phase(spec.id) is Phase.RUNNING)
    before = theatre.placed(spec.id)
    began = len([v for v in theatre.devices.verbs() if v in ("run", "stop")])
    # Trees and sums have their say in any order, and some at once.
    for _ in range(5):
        wishes = tuple(dice.sample((BY_RANK, TREE, SUMS), dice.choice((0, 1, 1, 2))))
        spec = updated(spec, Update(circuits=wishes))
        theatre.wish(spec.id, spec=spec)
        for _ in range(dice.randrange(40)):
            able = [(p, move) for p in theatre.players for move in p.possible_moves()]
            if able:
                player, move = dice.choice(able)
                player.move(move)
        unsteady = [p for p in theatre.players if p.role != "agents"]  # who keeps tasks running
        dice.choice(unsteady).replace(requests_land_late=dice.random() < 0.5)
        assert theatre.play(60, partial(has_just, theatre, spec.id)), wishes
    after = theatre.placed(spec.id)
    assert (after.attempt, after.engines) == (before.attempt, before.engines)
    assert len([v for v in theatre.devices.verbs() if v in ("run", "stop")]) == began
    theatre.check()


def test_circuits_by_rank_wait_until_every_rank_is_there():
    theatre = stage(gpus=2, fpgas=0)
    theatre.submit(wanted("other", gpus=1, run_for=30.0))
    spec = wanted("s", gpus=2, ring=True)
    theatre.submit(spec)
    assert theatre.play(20, lambda: theatre.phase(spec.id) is Phase.RUNNING)
    assert theatre.play(20, lambda: theatre.phase("default/other") is Phase.RUNNING)
    wish = CircuitWish(Shape.EXPLICIT, ("workers",), links=((0, 3), (3, 1)))
    spec = updated(spec, Update(sizes={"workers": 4}, circuits=(wish,)))
    theatre.wish(spec.id, spec=spec)
    theatre.play(10)
    placed = theatre.placed(spec.id)
    assert len(placed.engines["workers"]) == 3  # and what it had goes on with what it had
    assert ring_of(theatre, spec.id) == ring(placed.engines["workers"][:2])
    assert theatre.play(60, lambda: has_just(theatre, spec.id))
    assert len(theatre.placed(spec.id).circuits) == 2
    theatre.check()
