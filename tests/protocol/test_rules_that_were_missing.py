"""Rules that the first version of the protocol lacked: each with the life in which they matter."""

import pytest

from flowos.model.errors import SessionLost
from flowos.model.transaction import Change, Conflicted, Delete, Put, Transaction, Versioned
from tests.protocol.laws import law
from tests.protocol.little_cell import (
    ATTACHED,
    F_NEAR,
    HALF,
    HALF_FAR,
    HOST_BIG,
    HOST_SMALL,
    PAIR,
    TRUNK,
    XY,
    X,
    Y,
    Z,
    decision,
    whole,
)
from tests.protocol.planting import needed
from tests.protocol.rules import Mistake
from tests.protocol.test_planted_mistakes import placed_and_built, rivals
from tests.protocol.world import CANCELLED, World, held_by, placed

XZ = decision(whole("n1/x", "n2/z"), "n1/x", "n2/z")


# ------------------------------------------------------------------------- parts of things


def test_what_no_longer_fits_is_not_committed_though_nothing_is_new_since_the_view():
    def script(world: World) -> None:
        a, b = rivals(world)
        assert b.do(b.commit("t/T", HOST_BIG))
        # A has decided before, and now hears of it: from here on the guard sees nothing new.
        assert not a.do(a.hear().commit("t/S", HOST_BIG))

    check = "if not _fits(view, unit, more, kept):\n        return False"
    needed(
        script,
        Mistake("protocol.commit", check, ""),
        law="host n1 is given away more than once",
    )


def test_two_schedulers_do_not_both_take_the_last_place_for_a_device():
    def script(world: World) -> None:
        a, b = rivals(world)
        request = a.ask(a.commit("t/S", ATTACHED))
        assert b.do(b.commit("t/T", ATTACHED))
        assert not a.send(request)
        # Now that A has heard of it, it does not even ask.
        assert a.hear().commit("t/S", ATTACHED) is None

    guard = "draft.stays_quiet(prefix, view.guard(prefix))"
    needed(
        script,
        Mistake("protocol.commit", guard, "None"),
        law="host n1 is given away more than once",
    )


def test_devices_that_no_longer_fit_are_not_attached_though_cpu_is_left():
    def script(world: World) -> None:
        a, b = rivals(world)
        assert b.do(b.commit("t/T", ATTACHED))
        assert not a.do(a.hear().commit("t/S", ATTACHED))

    check = "devices = self.free_devices(node) if len(amounts) > 2 else None"
    needed(
        script,
        Mistake("model.view", check, "devices = None"),
        law="host n1 is given away more than once",
    )


def test_a_slice_that_attaches_more_holds_that_much_more_of_the_host():
    world = World()
    a, b = rivals(world)
    one = decision({"host/n1": (500, 0)})
    assert a.do(a.commit("t/S", one))
    assert a.do(a.hear().grow("t/S", decision({"host/n1": (500, 0, 1)})))
    assert placed(world, "t/S").held == {"host/n1": (500, 0, 1)}  # type: ignore[union-attr]
    assert b.hear().commit("t/T", ATTACHED) is None
    # What is in use less is not given back before the end.
    assert a.do(a.hear().grow("t/S", decision({"host/n1": (700, 0)})))
    assert placed(world, "t/S").held == {"host/n1": (700, 0, 1)}  # type: ignore[union-attr]


def test_nothing_is_divided_while_a_placement_cannot_be_read():
    def script(world: World) -> None:
        a, b = rivals(world)
        assert b.do(b.commit("t/T", HOST_BIG))
        (record,) = world.store.read(("placement/t/T",)).records
        a.view.apply(
            Change(record.key, b'{"of": "a newer version"}', record.created, record.modified)
        )
        assert not a.do(a.commit("t/S", HOST_SMALL))

    check = 'if any(key.startswith("placement/") for key in view.unreadable):\n        return False'
    needed(
        script,
        Mistake("protocol.commit", check, ""),
        law="host n1 is given away more than once",
    )


def test_a_part_of_an_engine_is_clean_no_earlier_than_the_lanes_at_its_port():
    def script(world: World) -> None:
        a = placed_and_built(world, "t/S", HALF_FAR)
        world.submit("t/T")
        assert a.do(a.hear().release("t/S"))
        for place in ("n1", "n2", "s2"):
            world.agents[place].work()
        a.do(a.hear().free("t/S"))
        a.do(a.hear().commit("t/T", F_NEAR))  # uses the lane at f's port without a claim
        world.run_agents()
        assert a.do(a.hear().free("t/S"))
        assert a.do(a.hear().commit("t/T", F_NEAR))

    port = 'if kind_of(unit) == "share":\n        unit = engine_unit(subject_of(unit))\n    return'
    needed(
        script,
        Mistake("protocol.orders", port, "return"),
        law="lane/pf/fwd/0 is up for .* but claimed by",
    )


def test_a_part_that_grows_is_claimed_and_guarded():
    def script(world: World) -> None:
        a = placed_and_built(world, "t/S", HOST_SMALL)
        assert a.do(a.hear().grow("t/S", HOST_BIG))
        assert placed(world, "t/S").held == {"host/n1": (2000, 2000)}  # type: ignore[union-attr]

    def contended(world: World) -> None:
        a = placed_and_built(world, "t/S", HOST_SMALL)
        world.submit("t/T")
        b = world.control("B")
        assert b.do(b.commit("t/T", HOST_SMALL))
        assert not a.do(a.hear().grow("t/S", HOST_BIG))

    contended(World())
    needed(
        script,
        Mistake(
            "protocol.resize",
            "if u not in before.held or a != before.held[u]}",
            "if u not in before.held}",
        ),
        law="claims are not what placements list",
    )


def test_a_part_that_is_kept_stays_as_large_as_its_claim():
    def script(world: World) -> None:
        a = placed_and_built(world, "t/S", HOST_BIG)
        assert a.do(a.hear().shrink("t/S", HOST_SMALL))

    needed(
        script,
        Mistake("protocol.resize", "held=kept,", "held=keep.units,"),
        law="claims are not what placements list",
    )


def test_only_what_is_held_is_kept_or_grown():
    world = World()
    a = placed_and_built(world, "t/S", XY)
    assert a.hear().shrink("t/S", XZ) is None
    assert a.grow("t/S", XZ) is None


def test_a_slice_whose_user_wants_its_end_does_not_grow():
    world = World()
    a = placed_and_built(world, "t/S", X)
    world.wish("t/S", cancelled=True)
    assert a.hear().grow("t/S", XY) is None


# ------------------------------------------------------------------------------------ watts


def paid_and_built(world: World, name: str, what, watts: int):
    """A slice that spends from its own scheduler's grant."""
    scheduler = world.control("P")
    world.submit(name)
    assert scheduler.do(scheduler.hear().raise_grant(watts))
    assert scheduler.do(scheduler.hear().commit(name, what))
    world.run_agents()
    return scheduler.hear()


def test_nothing_is_committed_that_the_own_grant_does_not_cover():
    def script(world: World) -> None:
        a, _ = rivals(world)
        assert not a.do(a.commit("t/S", X)), "there is no grant at all"
        assert a.do(a.raise_grant(100))
        assert not a.do(a.hear().commit("t/S", XY))

    check = "if view.spent(purse, spender) + amount - sum(table.values()) > had:\n            return False"
    needed(
        script, Mistake("protocol.commit", check, ""), law="spends 100 of a grant of 0", budget=400
    )


def test_a_slice_grows_on_the_grant_of_who_makes_it_grow():
    # Only a grant's holder knows what it has under way.
    def script(world: World) -> None:
        a = paid_and_built(world, "t/S", X, 200)
        world.submit("t/T")
        b = world.control("B")
        request = b.ask(b.grow("t/S", XY))
        assert a.do(a.hear().commit("t/T", Z))
        assert not b.send(request)
        assert b.do(b.hear().raise_grant(200))
        assert b.do(b.hear().grow("t/S", XY))
        assert placed(world, "t/S").scheduler == b.session  # type: ignore[union-attr]
        assert a.hear().view.spent("domain:d", a.session) == 100

    own = 'spender = fence.key.rpartition("/")[2] if rise else before.scheduler'
    needed(
        script,
        Mistake("protocol.resize", own, "spender = before.scheduler"),
        law="spends 300 of a grant of 200",
        budget=400,
    )


def test_what_a_shrunk_slice_gives_back_is_spent_until_it_is_clean():
    def script(world: World) -> None:
        a = paid_and_built(world, "t/S", XY, 300)
        assert a.do(a.shrink("t/S", X))
        assert a.do(a.hear().grow("t/S", XZ))

    sum_ = "spent = {p: before.spent.get(p, 0) + rise.get(p, 0) for p in {**before.spent, **rise}}"
    needed(
        script,
        Mistake("protocol.resize", sum_, "spent = dict(has)"),
        law="t/S draws 300 W of domain:d and says 200",
        budget=400,
    )


def test_what_is_clean_is_no_longer_spent():
    def script(world: World) -> None:
        a = paid_and_built(world, "t/S", XY, 200)
        world.submit("t/T")
        assert a.do(a.hear().shrink("t/S", X))
        world.run_agents()
        assert a.do(a.hear().free("t/S"))
        law(a.do(a.hear().commit("t/T", Y)), "watts are lost")

    lower = (
        "spent = {p: w - freed.get(p, 0) for p, w in before.spent.items() if w > freed.get(p, 0)}"
    )
    needed(
        script, Mistake("protocol.release", lower, "spent = before.spent"), law="lost", budget=400
    )


def test_a_dead_nodes_watts_count_until_its_quarantine_ends():
    def script(world: World) -> None:
        a = paid_and_built(world, "t/S", XY, 200)
        world.agents["n1"].lose_session()
        assert a.do(a.hear().quarantine("n1", "t/S"))
        assert a.hear().view.spent("domain:d", a.session) == 200

    part = "spent={purse: watts for purse, watts in drawn.items() if watts},"
    needed(
        script,
        Mistake("protocol.system", part, ""),
        law="draws 100 W of domain:d and says 0",
        budget=400,
    )


# ---------------------------------------------------------------------- views of two speeds


def test_a_request_that_is_only_not_known_yet_does_not_count_as_gone():
    def script(world: World) -> None:
        a, c = world.control("A"), world.control("c", "controller")
        assert a.do(a.commit("t/S", X, embedded=True))
        c.hear("placement/")
        law(not c.do(c.release("t/S", CANCELLED)), "a slice is cancelled that nobody cancelled")

    compare = "draft.seen(keys.slice_(identifier), spec.modified if spec else 0)"
    needed(script, Mistake("protocol.release", compare, "pass"), law="nobody cancelled")


def test_a_big_gang_sees_rules_that_were_written_before_placements_it_knows():
    def script(world: World) -> None:
        a, b = rivals(world)
        assert a.do(a.raise_grant(100))
        a.hear()
        world._write(*(Put(f"rule/epoch/{p}", b"1") for p in ("domain:d", "tenant:t")))
        assert b.do(b.hear().commit("t/T", HOST_SMALL))
        a.hear("placement/")
        law(not a.do(a.commit("t/S", X)), "committed under rules that it has not seen")

    since = "seen=view.placed_at if all(key.startswith(told) for key in absent) else view.revision,"
    needed(
        script,
        Mistake("protocol.proposal", since, "seen=view.placed_at,"),
        law="rules that it has not seen",
        budget=400,
        operations_max=7,
    )


def test_an_engine_that_is_still_being_powered_off_is_not_woken():
    world = World()
    a, _ = rivals(world)
    off = a.power_off("n1/f")
    a.view.assume(off.identifier, off.placement)
    assert a.commit("t/S", HALF) is None
    assert a.commit("t/S", F_NEAR) is None
    assert a.drain("engine/n1/f") is None


def test_waking_an_engine_leaves_no_report_behind():
    def script(world: World) -> None:
        a, _ = rivals(world)
        assert a.do(a.power_off("n1/x"))
        world.run_agents()
        assert a.do(a.hear().commit("t/S", X))

    report = "\n        draft.delete(keys.report(place, entry.value.attempt))"
    needed(script, Mistake("protocol.takeover", report, ""), law="report n1/.* has no order")


# ------------------------------------------------------------------- drains and dead places


def test_a_drain_that_waits_is_not_freed():
    def script(world: World) -> None:
        a = placed_and_built(world, "t/S", X)
        assert a.do(a.hear().drain("engine/n1/x"))
        law(not a.do(a.hear().free("~drain/engine/n1/x")), "a drain is forgotten")

    check = 'if not (before.releasing or before.ending or identifier.startswith("~quarantine/")):'
    needed(script, Mistake("protocol.release", check, "if False:"), law="a drain is forgotten")


def test_a_place_without_power_is_clean_but_not_the_other_ends_of_its_lanes():
    def script(world: World) -> None:
        a = placed_and_built(world, "t/S", PAIR)
        world.agents["s1"].lose_power()
        assert a.do(a.hear().quarantine("s1", "t/S"))
        name = f"~quarantine/s1/{placed(world, 't/S').attempt}"  # type: ignore[union-attr]
        declare = a.rules.system.declare_clean
        assert a.do(declare(a.hear().view, name, fence=a.fence))
        assert held_by(world, name) == {"engine/n1/x", TRUNK}
        world.run_agents()
        assert a.do(a.hear().free(name))

    needed(
        script,
        Mistake("protocol.system", "if not dirty:", "if True:"),
        law="is free but still built",
    )


def test_a_living_agent_is_believed_before_anybody_says_that_its_place_is_clean():
    def script(world: World) -> None:
        a = placed_and_built(world, "t/S", X)
        world.agents["n1"].lose_session()
        assert a.do(a.hear().quarantine("n1", "t/S"))
        name = f"~quarantine/n1/{placed(world, 't/S').attempt}"  # type: ignore[union-attr]
        world.agents["n1"].works = True
        world._write(Put("session/agent/n1", b'{"role":"agent","name":"n1"}'))
        declare = a.rules.system.declare_clean
        assert not a.do(declare(a.hear().view, name, fence=a.fence))
        world.run_agents()
        assert a.do(declare(a.hear().view, name, fence=a.fence, by_hand=True))

    check = 'if f"agent/{place}" in view.sessions and not (by_hand or reported):'
    needed(script, Mistake("protocol.system", check, "if False:"), law="engine/n1/x is free but")


def test_a_victim_on_a_dead_node_ends_without_its_report():
    def script(world: World) -> None:
        a = placed_and_built(world, "t/S", X)
        world.submit("t/T")
        assert a.do(a.hear().commit("t/T", X, preempt=True))
        world.agents["n1"].lose_power()
        for name in ("t/T", "t/S"):
            a.do(a.hear().quarantine("n1", name))
        law(a.do(a.hear().free("t/S")), "what was taken over waits for the dead")
        declare = a.rules.system.declare_clean
        attempt = next(n for n in a.hear().view.placements if n.endswith("/a1"))
        assert a.do(declare(a.view, attempt, fence=a.fence))
        for name in ("t/T", "~quarantine/n1/a2"):
            assert a.do(a.hear().free(name))

    alone = 'if identifier.startswith("~") or not (gone or (unreported and not before.held)):'
    needed(
        script,
        Mistake("protocol.system", alone, 'if identifier.startswith("~") or not gone:'),
        law="waits for the dead",
    )


@pytest.mark.parametrize(
    ("module", "right", "wrong"),
    [
        (
            "protocol.orders",
            "return places_of(cell, unit) or ordered",
            "return places_of(cell, unit)",
        ),
        ("protocol.orders", "if not known or unclear or ", "if not known or "),
    ],
)
def test_what_left_the_inventory_while_in_use_is_torn_down_all_the_same(module, right, wrong):
    def script(world: World) -> None:
        a = placed_and_built(world, "t/S", PAIR)
        gone = tuple(Delete(f"link/{name}") for name in ("trunk", "px"))
        world.store.commit([Transaction((), gone)])
        assert a.do(a.hear().release("t/S"))
        a.do(a.hear().free("t/S"))
        world.run_agents()
        assert a.do(a.hear().free("t/S"))

    needed(script, Mistake(module, right, wrong), law="lane/.*/0 is free but still built")


# --------------------------------------------------------------------------- lost answers


def test_a_commit_whose_answer_was_lost_is_known_by_its_attempt():
    world = World()
    a, _ = rivals(world)
    lost = a.lose(a.ask(a.commit("t/S", X)))
    world.arrive(lost)
    assert a.find_out() == [True]
    assert a.hear().view.placements["t/S"].value.attempt == lost.proposals[0].placement.attempt


def test_a_fence_whose_own_answer_was_lost_counts():
    world = World()
    a = world.control("A")
    answers = a.rules.answers
    fencing = answers.fence_again(a.fence, a.record, a.lease.id)
    world.commit([fencing], "the first, unanswered")
    (outcome,) = world.commit([fencing], "the second")
    assert isinstance(outcome, Conflicted)
    fence = answers.fenced(a.fence, outcome)
    assert fence.revision == outcome.keys[a.key].modified  # type: ignore[union-attr]


def test_a_process_without_its_session_must_start_anew():
    world = World()
    a = world.control("A")
    gone = Conflicted(9, {a.key: None})
    with pytest.raises(SessionLost):
        a.rules.answers.fenced(a.fence, gone)
    record = Versioned(a.key, b"", 1, 7)
    assert a.rules.answers.fenced(a.fence, Conflicted(9, {a.key: record})).revision == 7
