"""Units that are kept for somebody: every rule about them, and what breaks without it."""

from flowos.model.placement import Decision, Placement
from tests.protocol.little_cell import HALF, F, X
from tests.protocol.planting import needed
from tests.protocol.rules import Mistake
from tests.protocol.world import Control, World, placed

UNIT = next(iter(X.units))
KEPT = f"~reserved/r/{UNIT}"
SHARED = next(iter(F.units))  # can be held in parts


def state_of(world: World, name: str) -> Placement:
    found = placed(world, name)
    assert found is not None, f"{name} is not there"
    return found


def kept(world: World, unit: str = UNIT) -> Control:
    """A window of tenant t is open, and holds its unit."""
    world.reserve("r", unit)
    controller = world.control("C", "controller")
    assert controller.do(controller.keep("r", unit))
    return controller.hear()


def test_a_slice_of_the_tenant_commits_over_what_is_kept_and_it_comes_back():
    world = World()
    controller = kept(world)
    world.submit("t/S")
    a = world.control("A")
    assert a.do(a.commit("t/S", X))
    after = state_of(world, KEPT)
    assert not after.held
    assert after.wanted == (UNIT,)
    world.run_agents()
    controller.hear()
    assert controller.keep("r", UNIT) is None  # while the slice has it
    assert controller.do(controller.release("t/S"))
    world.run_agents()
    assert controller.hear().do(controller.free("t/S"))
    assert controller.hear().do(controller.keep("r", UNIT))
    after = state_of(world, KEPT)
    assert after.held == {UNIT: ()}


def test_nobody_else_commits_over_what_is_kept():
    def script(world: World) -> None:
        kept(world)
        world.submit("u/S")
        a = world.control("A")
        assert a.commit("u/S", X) is None or not a.do(a.commit("u/S", X))

    needed(
        script,
        Mistake("protocol.commit", "if _kept_in(holder) in kept else None", "if True else None"),
        law="kept by r, went to u/S",
    )


def test_nobody_else_gets_a_part_of_what_is_kept():
    def script(world: World) -> None:
        kept(world, SHARED)
        world.submit("u/S")
        a = world.control("A")
        assert not a.do(a.commit("u/S", HALF))

    mine = "holder.startswith(RESERVED) and _kept_in(holder) in kept"
    whose = 'mine = [f"{RESERVED}{name}/{engine_unit(subject)}" for name in kept]'
    needed(
        script,
        Mistake("protocol.commit", f"elif {mine}:", "elif holder.startswith(RESERVED):"),
        Mistake("protocol.commit", whose, "mine = [n for n in view.placements if n[:2] == '~r']"),
        law="kept by r, went to u/S",
    )


def test_a_rule_that_is_removed_is_seen_by_who_commits_over_what_it_keeps():
    def script(world: World) -> None:
        kept(world)
        world.submit("t/S")
        a = world.control("A")
        request = a.ask(a.commit("t/S", X))
        world.unreserve("r")
        assert not a.send(request)

    needed(
        script,
        Mistake("protocol.commit", "draft.seen(keys.RESERVATIONS, known)", "pass"),
        law="kept by r, went to t/S",
    )


def test_two_slices_do_not_both_take_what_is_kept():
    def script(world: World) -> None:
        kept(world)
        world.submit("t/S", "t/T")
        a, b = world.control("A"), world.control("B")
        request = a.ask(a.commit("t/S", X))
        assert b.do(b.commit("t/T", X))
        assert not a.send(request)

    needed(
        script,
        Mistake("protocol.takeover", "draft.placed(reserved, entry)", "pass"),
        law="is listed by t/T and",
    )


def opening(world: World, what: Decision = X) -> tuple[Control, Control]:
    """A slice of another tenant is up when the window opens, and gives way."""
    unit = next(iter(what.units))
    world.submit("u/V")
    a = world.control("A")
    assert a.do(a.commit("u/V", what))
    world.run_agents()
    world.reserve("r", unit)
    controller = world.control("C", "controller")
    assert controller.do(controller.keep("r", unit))
    return a.hear(), controller.hear()


def test_who_takes_what_is_not_clean_yet_waits_for_it():
    def script(world: World) -> None:
        a, controller = opening(world)
        taken = state_of(world, KEPT)
        assert taken.held == {UNIT: ()}
        world.submit("t/S")
        assert a.hear().do(a.commit("t/S", X))
        assert a.hear().arm("t/S") is None
        world.run_agents()
        controller.hear()
        assert controller.do(controller.free("u/V"))
        assert controller.hear().do(controller.arm("t/S"))
        world.run_agents()

    needed(
        script,
        Mistake("protocol.commit", "waits = (*waits, *unclean)", "pass"),
        law="is ordered for",
    )


def test_what_is_not_clean_yet_is_not_let_go():
    def script(world: World) -> None:
        _, controller = opening(world)
        world.unreserve("r")
        assert not controller.hear().do(controller.let_go("r", UNIT))
        world.run_agents()
        assert controller.hear().do(controller.free("u/V"))
        assert controller.hear().do(controller.let_go("r", UNIT))
        assert placed(world, KEPT) is None

    waits = "if view.carried(view.placements[identifier].value.waits):\n        return None"
    needed(script, Mistake("protocol.reserved", waits, "pass"), law="is free but still built")


def test_no_part_of_what_is_not_clean_yet_is_given_away():
    def script(world: World) -> None:
        a, _ = opening(world, F)
        world.submit("t/S")
        assert not a.hear().do(a.commit("t/S", HALF))

    unclean = "if step_aside(draft, view, holder) != ():"
    needed(
        script,
        Mistake("protocol.commit", unclean, "if step_aside(draft, view, holder) is None:"),
        law="is free but still built",
    )


def test_a_window_that_does_not_evict_waits():
    world = World()
    world.submit("u/V")
    a = world.control("A")
    assert a.do(a.commit("u/V", X))
    world.reserve("r", UNIT, evict=False)
    controller = world.control("C", "controller")
    assert controller.do(controller.keep("r", UNIT))
    after = state_of(world, KEPT)
    assert after.wanted == (UNIT,)
    victim = state_of(world, "u/V")
    assert victim.ending is None


def test_two_windows_do_not_fight_for_a_unit():
    world = World()
    controller = kept(world)
    world.reserve("other", UNIT)
    assert controller.hear().do(controller.keep("other", UNIT))
    waiting = state_of(world, f"~reserved/other/{UNIT}")
    assert not waiting.held
    world.unreserve("r")
    assert controller.hear().do(controller.keep("other", UNIT))
    assert state_of(world, f"~reserved/other/{UNIT}").held == {UNIT: ()}
    assert not state_of(world, KEPT).held


def test_an_engine_that_is_off_is_woken_and_kept():
    world = World()
    world.reserve("r", UNIT)
    controller = world.control("C", "controller")
    assert controller.do(controller.power_off(UNIT.partition("/")[2]))
    world.run_agents()
    assert controller.hear().do(controller.keep("r", UNIT))
    world.run_agents()
    assert state_of(world, KEPT).held == {UNIT: ()}
    assert placed(world, f"~off/{UNIT}") is None


def test_a_drain_takes_what_is_kept_and_gives_it_back_to_the_window():
    world = World()
    controller = kept(world)
    assert controller.do(controller.drain(UNIT))
    assert state_of(world, KEPT).wanted == (UNIT,)
    assert controller.hear().keep("r", UNIT) is None
    assert controller.do(
        world.rules.system.undrain(controller.view, f"~drain/{UNIT}", fence=controller.fence)
    )
    assert controller.hear().do(controller.keep("r", UNIT))
    assert state_of(world, KEPT).held == {UNIT: ()}
