"""Is each rule of quotas needed? With it a life goes well, and without it a tenant gets too much.

The mistakes of `model_quotas`, in the real code, and those that only the real code can have.
"""

from typing import Any

from tests.protocol.laws import law
from tests.protocol.little_cell import QUOTA, XY, F, X, Y, Z, decision, whole
from tests.protocol.planting import needed
from tests.protocol.rules import Mistake
from tests.protocol.test_planted_mistakes import rivals
from tests.protocol.world import Control, World, held_by, placed

XZ = decision(whole("n1/x", "n2/z"), "n1/x", "n2/z")
STAYS = "draft.seen(key, view.written_at.get(key, 0))"


def paid(world: World, what: Any, granted: int) -> Control:
    """A scheduler that has placed and built t/S from its own grant."""
    scheduler = world.control("P")
    world.submit("t/S")
    assert scheduler.do(scheduler.hear().raise_grant(granted, QUOTA))
    assert scheduler.do(scheduler.hear().commit("t/S", what))
    world.run_agents()
    return scheduler.hear()


# ------------------------------------------------------------------- a quota that was not there


def test_a_commit_sees_that_there_is_a_quota_now():
    def script(world: World) -> None:
        a, _ = rivals(world)
        request = a.ask(a.commit("t/S", X))
        world.set_quota(1)
        assert not a.send(request)

    needed(script, Mistake("protocol.commit", STAYS, "pass"), law=f"has 1000 of {QUOTA} and says 0")


def test_to_know_the_new_epoch_is_not_to_know_the_new_quota():
    def script(world: World) -> None:
        a, _ = rivals(world)
        world.set_quota(1)
        a.hear("rule/")
        assert not a.do(a.commit("t/S", X))

    epoch = 'f"tenant:{tenant}"'
    by_epoch = f"draft.seen(keys.epoch({epoch}), view.epochs.get({epoch}, 0))"
    needed(
        script, Mistake("protocol.commit", STAYS, by_epoch), law=f"has 1000 of {QUOTA} and says 0"
    )


def test_growing_sees_that_there_is_a_quota_now():
    def script(world: World) -> None:
        a, _ = rivals(world)
        assert a.do(a.commit("t/S", X))
        world.run_agents()
        request = a.ask(a.hear().grow("t/S", XY))
        world.set_quota(1)
        assert not a.send(request)

    compare = "stays(draft, view, spec.value.spec.tenant)"
    needed(
        script,
        Mistake("protocol.resize", compare, "pass"),
        law=f"has 2000 of {QUOTA} and says 0",
    )


def test_a_raise_counts_what_was_placed_before_the_quota():
    def script(world: World) -> None:
        a, b = rivals(world)
        assert b.do(b.commit("t/T", X))
        world.set_quota(1)
        assert not a.do(a.hear().raise_grant(1000, QUOTA))

    count = "found += lacks(cell, name, entry.value).get(purse, 0)"
    needed(
        script,
        Mistake("protocol.grants", count, "pass"),
        law="raising brings the grants to 1000 over a limit of 0",
    )


def test_a_raise_waits_until_all_that_was_placed_before_the_quota_is_known():
    def script(world: World) -> None:
        a, b = rivals(world)
        assert b.do(b.commit("t/T", X))
        world.set_quota(1)
        a.hear("tenant/")
        assert not a.do(a.raise_grant(1000, QUOTA))

    complete = "if view.placed_at < written_at:\n        return None"
    needed(
        script,
        Mistake("protocol.grants", complete, ""),
        law="raising brings the grants to 1000 over a limit of 0",
    )


def test_a_raise_sees_that_the_quota_was_lowered():
    def script(world: World) -> None:
        a = world.control("A")
        request = a.ask(a.raise_grant(2000, QUOTA))
        world.set_quota(1)
        assert not a.send(request)

    needed(
        script,
        Mistake("protocol.grants", "draft.seen(limited, written_at)", "pass"),
        law="raising brings the grants to 2000 over a limit of 1000",
        quota=2,
    )


# ------------------------------------------------------------------- what counts, and how long


def test_a_slice_that_grows_spends_what_it_grows_by():
    def script(world: World) -> None:
        a = paid(world, X, 1000)
        assert not a.do(a.grow("t/S", XY))
        assert a.do(a.hear().raise_grant(1000, QUOTA))
        assert a.do(a.hear().grow("t/S", XY))

    both = "(spend(view.cell, units, identifier) for units in (before.held, held))"
    needed(
        script,
        Mistake("protocol.resize", both, both.replace("identifier", '""')),
        law=f"has 2000 of {QUOTA} and says 1000",
        quota=3,
    )


def test_what_is_clean_no_longer_counts_against_its_tenant():
    def script(world: World) -> None:
        a = paid(world, XY, 2000)
        world.submit("t/T")
        assert a.do(a.hear().shrink("t/S", X))
        assert not a.do(a.hear().commit("t/T", Z)), "what is not clean yet counts"
        world.run_agents()
        assert a.do(a.hear().free("t/S"))
        law(a.do(a.hear().commit("t/T", Z)), "quota is lost")

    freed = "freed = spend(view.cell, clean, identifier)"
    needed(
        script,
        Mistake("protocol.release", freed, freed.replace("identifier", '""')),
        law="quota is lost",
        quota=2,
    )


def test_a_dead_nodes_engines_do_not_count_against_their_tenant():
    def script(world: World) -> None:
        a = paid(world, XY, 2000)
        world.submit("t/T")
        world.agents["n1"].lose_session()
        assert a.do(a.hear().quarantine("n1", "t/S"))
        law(a.do(a.hear().commit("t/T", Z)), "quota is lost")

    less = "less = {**spend(view.cell, gone, identifier), **drawn}"
    needed(script, Mistake("protocol.system", less, "less = drawn"), law="quota is lost", quota=2)


def test_engines_of_other_kinds_and_tenants_are_not_counted():
    world = World(quota=0)
    world.state()
    a = world.control("A")
    world.submit("t/S", "t/T")
    assert not a.do(a.hear().commit("t/S", F))
    world.set_quota(1)
    assert a.do(a.hear().raise_grant(1000, QUOTA))
    assert a.do(a.hear().commit("t/S", X))
    assert placed(world, "t/S").spent == {QUOTA: 1000}  # type: ignore[union-attr]


# ------------------------------------------------------------------- taking over


def test_what_is_taken_over_is_paid_for_by_the_takers_scheduler():
    def script(world: World) -> None:
        b = paid(world, X, 1000)
        world.submit("t/T")
        a = world.control("A")
        assert a.do(a.hear().commit("t/T", X, preempt=True))
        assert a.hear().view.spent(QUOTA, a.session) == 1000
        assert b.hear().view.spent(QUOTA, b.session) == 0
        assert held_by(world, "t/T") == {"engine/n1/x"}

    needed(
        script,
        Mistake("protocol.commit", "draft.put(keys.grant(purse, spender), had + comes)", "pass"),
        law="spends 1000 of a grant of 0",
        quota=1,
    )


def test_a_victim_goes_on_spending_what_it_has_still_to_give_back():
    def script(world: World) -> None:
        b = paid(world, XY, 2000)
        assert b.do(b.raise_grant(1000, QUOTA))
        world.submit("t/T")
        b.hear()
        assert b.do(b.commit("t/T", XZ, preempt=True))
        assert placed(world, "t/S").spent == {QUOTA: 1000}  # type: ignore[union-attr]

    rest = "rest = spend(view.cell, units, name)"
    needed(
        script,
        Mistake("protocol.commit", rest, rest.replace("name", '""')),
        law=f"t/S has 1000 of {QUOTA} and says 0",
        quota=3,
    )


def test_a_grant_moves_only_as_it_was_known():
    def script(world: World) -> None:
        b = paid(world, X, 2000)
        world.submit("t/T")
        a, c = world.control("A"), world.control("C")
        request = a.ask(a.hear().commit("t/T", X, preempt=True))
        assert b.do(b.give_back(1000, QUOTA))
        assert c.do(c.hear().raise_grant(1000, QUOTA))
        assert not a.send(request)

    compare = "draft.seen(key, grant.modified)"
    needed(
        script,
        Mistake("protocol.commit", compare, "pass"),
        law="raising brings the grants to 3000 over a limit of 2000",
        quota=2,
    )


def test_a_commit_under_way_and_a_grant_given_back_meet():
    def script(world: World) -> None:
        b = paid(world, X, 2000)
        world.submit("t/T")
        request = b.ask(b.hear().commit("t/T", Y))
        later = world.control("L")
        step = later.rules.grants.give_back(
            later.hear().view, QUOTA, b.session, 1000, fence=later.fence
        )
        assert later.do(step)
        assert not b.send(request)

    compare = "draft.seen(keys.grant(purse, spender), grant.modified if grant else 0)"
    needed(
        script,
        Mistake("protocol.commit", compare, "pass"),
        law="spends 2000 of a grant of 1000",
        quota=2,
    )
