"""What becomes of a window: who gives way, who gets in, and who is left alone, with real machines."""

from dataclasses import replace
from typing import Any

import pytest

from flowos.model import keys
from flowos.model.cell import Tenant
from flowos.model.codec import encode
from flowos.model.rules import Reservation
from flowos.model.slice import Phase, Reason, SliceSpec
from flowos.model.transaction import Delete, Operation, Put
from tests.runtime.cells import small_cell, wanted
from tests.runtime.theatre import Player, Theatre

N0 = ("engine/n0/gpu0", "engine/n0/gpu1")
FAR = 100_000.0


def cell_of(nodes: int = 2, gpus: int = 2) -> Theatre:
    cell = small_cell(nodes=nodes, gpus=gpus, fpgas=0)
    for tenant in ("physics", "music"):
        cell.add(Tenant(tenant))
    theatre = Theatre(cell)
    theatre.agent()
    theatre.controller()
    theatre.scheduler()
    return theatre


def put(window: Reservation) -> list[Operation]:
    """What `flowos reservation add` writes."""
    return [
        Put(keys.reservation(window.name), encode(window)),
        Put(keys.RESERVATIONS, encode(window.name)),
    ]


def reserve(theatre: Theatre, **more: Any) -> Reservation:
    window = Reservation(**{"name": "talk", "units": N0, "tenants": ("physics",), **more})
    theatre.write(*put(window))
    return window


def unreserve(theatre: Theatre, name: str = "talk") -> None:
    theatre.write(Delete(keys.reservation(name)), Put(keys.RESERVATIONS, encode(name)))


def of(tenant: str, name: str, gpus: int = 2, **more: Any) -> SliceSpec:
    return replace(wanted(name, gpus=gpus, together="node", **more), tenant=tenant)


def runs(theatre: Theatre, identifier: str) -> bool:
    return theatre.phase(identifier) is Phase.RUNNING


def play(theatre: Theatre, seconds: float) -> None:
    theatre.play(seconds)
    theatre.check()


def test_an_open_window_holds_what_is_free():
    theatre = cell_of()
    reserve(theatre)
    play(theatre, 3)
    assert {*theatre.records("placement/~reserved/")} == {
        f"placement/~reserved/talk/{unit}" for unit in N0
    }
    assert all(f"claim/{unit}" in theatre.records("claim/") for unit in N0)


def test_a_slice_of_the_tenant_goes_in_when_nothing_else_is_free_and_others_wait():
    theatre = cell_of()
    reserve(theatre)
    play(theatre, 3)
    theatre.submit(of("music", "a"), of("music", "b"))
    play(theatre, 5)
    waiting = theatre.waiting("music/b")
    assert waiting.reason is Reason.RESERVED_FOR_OTHER
    assert "reservation talk keeps 2" in waiting.sentence
    assert "physics" in waiting.sentence
    theatre.submit(of("physics", "c"))
    play(theatre, 5)
    assert runs(theatre, "music/a")
    assert runs(theatre, "physics/c")
    assert {f"engine/{e}" for e in theatre.held("physics/c")} == set(N0)


def test_between_two_slices_of_the_window_nobody_else_gets_in():
    theatre = cell_of()
    reserve(theatre)
    play(theatre, 3)
    theatre.submit(of("music", "x"), of("physics", "first", run_for=4.0))
    theatre.play(2)
    theatre.submit(*(of("music", f"m{n}", gpus=1) for n in range(4)))
    seen = set[str]()

    def look() -> bool:
        seen.update(
            name.partition("/")[2]
            for name in theatre.records("placement/music/")
            if any(u in theatre.placed(name.partition("/")[2]).held for u in N0)
        )
        return theatre.slice("physics/first").end is not None

    assert theatre.play(60, look)
    theatre.submit(of("physics", "second"))
    play(theatre, 5)
    look()
    assert runs(theatre, "physics/second")
    assert not seen


def test_who_is_in_the_way_when_it_opens_is_queued_again_with_its_grace():
    theatre = cell_of(nodes=1)
    spec = of("music", "a", run_for=1000.0)
    theatre.submit(replace(spec, run=replace(spec.run, grace_seconds=5.0)))
    play(theatre, 3)
    reserve(theatre, from_at=theatre.clock.now + 10)
    play(theatre, 8)
    assert runs(theatre, "music/a")
    theatre.play(3)
    victim = theatre.placed("music/a")
    assert victim.ending is not None
    assert victim.ending.phase is Phase.PENDING
    assert victim.ending.grace_seconds == 5.0
    assert victim.ending.reason is Reason.RESERVED_FOR_OTHER
    play(theatre, 10)
    assert theatre.phase("music/a") is Phase.PENDING
    assert theatre.waiting("music/a").reason is Reason.RESERVED_FOR_OTHER
    theatre.submit(of("physics", "b"))
    play(theatre, 5)
    assert runs(theatre, "physics/b")


def test_a_slice_that_takes_what_is_not_clean_yet_waits_for_it():
    theatre = cell_of(nodes=1, gpus=1)
    theatre.submit(of("music", "a", gpus=1), of("physics", "b", gpus=1))
    play(theatre, 3)
    assert runs(theatre, "music/a")
    agent = next(p for p in theatre.players if p.role == "agents")
    agent.acts = False  # it reports nothing
    reserve(theatre, units=N0[:1])
    theatre.play(3)
    taken = theatre.placed("physics/b")
    assert taken.waits == (theatre.placed("music/a").attempt,)
    assert not taken.ordered
    agent.acts = True
    play(theatre, 10)
    assert runs(theatre, "physics/b")


def test_a_window_that_does_not_evict_waits_and_is_planned_around():
    theatre = cell_of(nodes=1)
    theatre.submit(of("music", "a", run_for=20.0))
    play(theatre, 3)
    reserve(theatre, evict=False)
    theatre.submit(of("music", "b", gpus=1))
    play(theatre, 10)
    assert runs(theatre, "music/a")
    assert theatre.placed(f"~reserved/talk/{N0[0]}").wanted == (N0[0],)
    play(theatre, 20)
    assert theatre.slice("music/a").end is not None
    assert theatre.placed(f"~reserved/talk/{N0[0]}").held == {N0[0]: ()}
    assert theatre.placement("music/b") is None


def test_at_its_end_all_is_free_and_what_runs_goes_on():
    theatre = cell_of()
    reserve(theatre, until_at=theatre.clock.now + 20, units=(*N0, "engine/n1/gpu0"))
    play(theatre, 3)
    theatre.submit(of("physics", "a"), of("music", "b"))
    play(theatre, 10)
    assert runs(theatre, "physics/a")
    assert not runs(theatre, "music/b")
    play(theatre, 15)
    assert not theatre.records("placement/~reserved/")
    assert runs(theatre, "physics/a")
    assert runs(theatre, "music/b")
    assert theatre.life("physics/a").count("running") == 1


def test_a_rule_that_is_removed_closes_its_window():
    theatre = cell_of()
    reserve(theatre)
    play(theatre, 3)
    unreserve(theatre)
    play(theatre, 3)
    assert not theatre.records("placement/~reserved/")
    assert not theatre.records("claim/")


def test_maintenance_empties_the_node_and_keeps_it_empty():
    theatre = cell_of()
    theatre.submit(of("music", "a"), of("physics", "b"), of("music", "host", gpus=0, cpu_millis=10))
    play(theatre, 5)
    assert runs(theatre, "music/a")
    assert runs(theatre, "physics/b")
    reserve(theatre, tenants=(), units=("node/n0", *N0))
    play(theatre, 20)
    left = {
        unit
        for name in theatre.records("placement/")
        if "~" not in name
        for unit in theatre.placed(name.partition("/")[2]).held
    }
    assert left
    assert not any("/n0" in unit for unit in left)
    assert {*theatre.records("claim/")} >= {"claim/node/n0", *(f"claim/{u}" for u in N0)}
    assert runs(theatre, "music/host")  # it went to the other node


def test_what_crosses_a_switch_that_is_kept_for_maintenance_goes():
    theatre = cell_of()
    theatre.submit(replace(wanted("a", gpus=4, ring=True), tenant="music"))
    play(theatre, 3)
    assert runs(theatre, "music/a")
    reserve(theatre, tenants=(), units=("switch/sw0",))
    play(theatre, 10)
    assert theatre.phase("music/a") is Phase.PENDING


def test_engines_without_circuits_stay_and_come_beside_a_switch_that_is_kept():
    theatre = cell_of()
    theatre.submit(of("music", "before"))
    play(theatre, 3)
    first = theatre.placed("music/before").attempt
    reserve(theatre, tenants=(), units=("switch/sw0",))
    play(theatre, 5)
    theatre.submit(of("music", "after"))
    play(theatre, 20)
    assert runs(theatre, "music/before")
    assert runs(theatre, "music/after")
    assert theatre.placed("music/before").attempt == first
    assert theatre.placed("music/after").number == 1  # not placed and taken away by turns


def test_who_names_a_reservation_waits_until_it_opens_and_is_told_so():
    theatre = cell_of()
    theatre.submit(
        of("physics", "a", reservation="talk"), of("music", "b", reservation="talk"),
        of("physics", "c", reservation="party"),
    )  # fmt: skip
    reserve(theatre, from_at=theatre.clock.now + 30)
    play(theatre, 5)
    assert "is not open" in theatre.waiting("physics/a").sentence
    assert "not for tenant music" in theatre.waiting("music/b").sentence
    assert "no reservation party" in theatre.waiting("physics/c").sentence
    play(theatre, 40)
    assert runs(theatre, "physics/a")


def test_slices_that_would_run_into_a_window_keep_out_of_it():
    theatre = cell_of(nodes=1)
    reserve(theatre, from_at=theatre.clock.now + 100)
    theatre.submit(
        of("music", "endless", gpus=1),
        of("music", "long", gpus=1, time_limit_seconds=200.0),
        of("music", "short", gpus=1, time_limit_seconds=50.0),
        of("physics", "ours", gpus=1),
    )
    play(theatre, 5)
    assert runs(theatre, "music/short")
    assert runs(theatre, "physics/ours")
    assert theatre.waiting("music/endless").reason is Reason.RESERVED_FOR_OTHER
    assert theatre.waiting("music/long").reason is Reason.RESERVED_FOR_OTHER
    assert "1970-01-01 00:01 UTC" in theatre.waiting("music/long").sentence


def test_parts_of_a_reserved_engine_are_for_its_tenant_too():
    theatre = cell_of(nodes=1)
    reserve(theatre)
    play(theatre, 3)
    parts = [of("physics", f"p{n}", gpus=1, share=400) for n in range(4)]
    theatre.submit(*parts, of("music", "m", gpus=1, share=100))
    play(theatre, 10)
    assert all(runs(theatre, spec.id) for spec in parts)
    assert theatre.waiting("music/m").reason is Reason.RESERVED_FOR_OTHER
    for spec in parts:
        theatre.wish(spec.id, cancelled=True)
    play(theatre, 10)
    assert all(theatre.placed(f"~reserved/talk/{u}").held for u in N0)


@pytest.mark.parametrize("ahead", [3600.0, -3600.0])
def test_a_scheduler_whose_clock_is_an_hour_off_changes_nothing_that_matters(ahead):
    theatre = cell_of()
    off(theatre, ahead)
    reserve(theatre, from_at=50.0, until_at=150.0)
    theatre.submit(*(of("music", f"m{n}") for n in range(3)), of("physics", "p"))
    inside = set[str]()

    def look() -> bool:
        if 55 < theatre.clock.now < 150:
            names = [n.partition("/")[2] for n in theatre.records("placement/music/")]
            inside.update(n for n in names if not {*N0}.isdisjoint(theatre.placed(n).held))
        return False

    theatre.play(100, look)
    assert not inside  # whatever it thinks the time is
    assert runs(theatre, "physics/p")
    theatre.wish("physics/p", cancelled=True)
    theatre.play(200, look)
    theatre.check()
    assert not theatre.records("placement/~reserved/")
    assert sum(runs(theatre, f"music/m{n}") for n in range(3)) == 2


def off(theatre: Theatre, ahead: float) -> Player:
    """Let a scheduler's wall clock be off."""
    player = next(p for p in theatre.players if p.role == "scheduler")
    player.machine._deciding._wall = lambda: theatre.clock.now + ahead  # type: ignore[attr-defined]
    return player


def test_a_controller_that_dies_between_any_two_moves_leaves_the_window_as_it_should_be():
    for dies_at in range(1, 400, 3):
        if not lived_through(dies_at):
            assert dies_at > 60
            return
    raise AssertionError("there is no end to it")


def lived_through(dies_at: int) -> bool:
    """A window's life, with a controller that dies before a move; False where it is over before."""
    theatre = cell_of()
    theatre.submit(of("music", "a"), of("music", "b"))
    theatre.play(3)
    reserve(theatre, until_at=theatre.clock.now + 60)
    moves = 0

    def count() -> None:
        nonlocal moves
        moves += 1
        if moves == dies_at:
            next(p for p in theatre.players if p.role == "controller").die()
            theatre.controller("controller-1")

    theatre.before_move = count
    theatre.submit(of("physics", "p"))
    assert theatre.play(50, lambda: runs(theatre, "physics/p"))
    assert {f"engine/{e}" for e in theatre.held("physics/p")} == set(N0)
    theatre.play(80)
    theatre.check()
    assert not theatre.records("placement/~reserved/")
    assert not theatre.records("rule/reservation/")
    assert theatre.phase("physics/p") is Phase.RUNNING
    return moves >= dies_at


def test_a_more_important_slice_that_keeps_out_of_a_window_takes_over_outside_it():
    theatre = cell_of(nodes=1)
    low = [of("music", f"low{n}", gpus=1, time_limit_seconds=50.0, preemptible=True) for n in "ab"]
    theatre.submit(*low)
    play(theatre, 3)
    reserve(theatre, units=N0[:1], from_at=theatre.clock.now + 100)
    theatre.submit(of("music", "high", gpus=1, priority=5))
    play(theatre, 5)
    assert theatre.held("music/high") == [N0[1].removeprefix("engine/")]
    assert sum(runs(theatre, spec.id) for spec in low) == 1


def test_an_engine_that_strangers_share_is_given_up_by_all_who_share_it():
    theatre = cell_of(nodes=1, gpus=1)
    theatre.submit(of("music", "m", gpus=1, share=400), of("physics", "p", gpus=1, share=400))
    play(theatre, 3)
    assert runs(theatre, "music/m")
    assert runs(theatre, "physics/p")
    reserve(theatre, units=N0[:1])
    play(theatre, 10)
    assert runs(theatre, "physics/p")
    assert theatre.slice("physics/p").attempts == 1
    assert theatre.phase("music/m") is Phase.PENDING
    assert theatre.waiting("music/m").reason is Reason.RESERVED_FOR_OTHER


def test_an_engine_that_only_slices_of_the_window_share_stays_with_them():
    theatre = cell_of(nodes=1, gpus=1)
    theatre.submit(of("physics", "p", gpus=1, share=400), of("physics", "q", gpus=1, share=400))
    play(theatre, 3)
    reserve(theatre, units=N0[:1])
    play(theatre, 10)
    assert theatre.life("physics/p").count("running") == 1
    assert theatre.life("physics/q").count("running") == 1
    assert theatre.placed(f"~reserved/talk/{N0[0]}").wanted == N0[:1]
