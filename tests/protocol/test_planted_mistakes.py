"""Each mistake that the protocol's model knows, planted into a copy of the real rules.

The first half of every test is the real code in the interleaving that matters; the second half is
the same with the mistake in it, and must break the law that is named.
"""

from dataclasses import replace

from flowos.model import keys
from flowos.model.cell import Link
from flowos.model.codec import encode
from flowos.model.transaction import Put
from tests.protocol.laws import law
from tests.protocol.little_cell import (
    HALF,
    HOST_BIG,
    LAST_STREAM,
    MERGED,
    PAIR,
    PURSE,
    SUM,
    TREE,
    XY,
    F,
    X,
    Y,
    decision,
    whole,
)
from tests.protocol.planting import needed
from tests.protocol.rules import Mistake
from tests.protocol.world import AGAIN, CANCELLED, Control, World, held_by


def placed_and_built(world: World, name: str, what) -> Control:
    """A slice that holds what was decided, up on all devices."""
    scheduler = world.control("P")
    world.submit(name)
    scheduler.hear()
    assert scheduler.do(scheduler.commit(name, what))
    world.run_agents()
    return scheduler


# --------------------------------------------------------------------------- the life of slices


def test_a_commit_compares_the_slices_own_record():
    def script(world: World) -> None:
        a = world.control("A")
        world.submit("t/S")
        request = a.hear().ask(a.commit("t/S", X))
        world.wish("t/S", cancelled=True)
        assert not a.send(request)

    compare = "draft.seen(keys.slice_(identifier), entry.modified)"
    needed(
        script,
        Mistake("protocol.commit", compare, "pass"),
        law="committed while its request",
    )


def test_the_last_free_writes_the_outcome():
    def script(world: World) -> None:
        a = placed_and_built(world, "t/S", X)
        assert a.do(a.hear().release("t/S"))
        world.run_agents()
        assert a.do(a.hear().free("t/S"))
        assert not a.do(a.hear().commit("t/S", X))

    write = "_write_outcome(draft, view, identifier, before, entry.created, now)"
    needed(
        script, Mistake("protocol.release", write, "pass"), law="was over and is committed again"
    )


def test_a_taker_that_ends_early_frees_nothing_before_its_victim_is_clean():
    def script(world: World) -> None:
        a = placed_and_built(world, "t/S", PAIR)
        world.submit("t/T")
        assert a.do(a.hear().commit("t/T", X, preempt=True))
        assert a.do(a.hear().release("t/T", CANCELLED))
        assert not a.do(a.hear().free("t/T"))
        world.run_agents()
        assert a.do(a.hear().free("t/S"))
        assert a.do(a.hear().free("t/T"))

    waits = "if view.carried(before.waits) or entry.modified > view.revision:\n        return None\n    clean"
    needed(
        script,
        Mistake(
            "protocol.release",
            waits,
            "if entry.modified > view.revision:\n        return None\n    clean",
        ),
        law="engine/n1/x is free but still built",
    )


def test_an_undrained_engine_is_clean_of_those_it_was_taken_from():
    def script(world: World) -> None:
        a = placed_and_built(world, "t/S", PAIR)
        drain = "~drain/engine/n1/x"
        assert a.do(a.hear().drain("engine/n1/x", take=True))
        assert not a.do(a.rules.system.undrain(a.hear().view, drain, fence=a.fence))
        world.run_agents()
        assert a.do(a.hear().free("t/S"))
        assert a.do(a.rules.system.undrain(a.hear().view, drain, fence=a.fence))

    waits = 'if view.carried(entry.value.waits):\n        return None\n    return drop(view, identifier, fence=fence, step="undrain")'
    drop = 'return drop(view, identifier, fence=fence, step="undrain")'
    needed(
        script,
        Mistake("protocol.system", waits, drop),
        law="engine/n1/x is free but still built",
    )


def test_a_taker_gets_no_orders_before_its_victims_are_clean():
    def script(world: World) -> None:
        a = placed_and_built(world, "t/S", PAIR)
        world.submit("t/T")
        assert a.do(a.hear().commit("t/T", PAIR, preempt=True))
        world.agents["n1"].work()
        world.agents["s1"].work()
        assert not a.do(a.hear().arm("t/T"))
        world.run_agents()
        assert a.do(a.hear().free("t/S"))
        assert a.do(a.hear().arm("t/T"))
        world.run_agents()

    needed(
        script,
        Mistake(
            "protocol.orders",
            "if placement.waits or not placement.held or ",
            "if not placement.held or ",
        ),
        law="is ordered for .* while built for|has orders at .* but waits",
    )


def test_what_is_taken_leaves_the_victims_placement():
    def script(world: World) -> None:
        a = placed_and_built(world, "t/S", PAIR)
        world.submit("t/T")
        assert a.do(a.hear().commit("t/T", X, preempt=True))
        assert held_by(world, "t/S") == {"engine/n2/y", "lane/trunk/fwd/0"}

    needed(
        script,
        Mistake("protocol.takeover", "left.pop(unit)", "left[unit]"),
        law="engine/n1/x is listed by",
    )


def test_a_release_orders_the_devices_down():
    def script(world: World) -> None:
        a = placed_and_built(world, "t/S", X)
        assert a.do(a.hear().release("t/S"))
        assert not a.do(a.hear().free("t/S"))

    order = "rewrite_orders(draft, view.cell, identifier, before, released(before, ending, since))"
    needed(
        script,
        Mistake("protocol.release", order, "released(before, ending, since)"),
        law="engine/n1/x is free but still built",
    )


def test_both_ends_of_a_lane_report_before_it_is_free():
    def script(world: World) -> None:
        a = placed_and_built(world, "t/S", PAIR)
        assert a.do(a.hear().release("t/S"))
        for place in ("n1", "s1"):
            world.agents[place].work()
        a.do(a.hear().free("t/S"))
        assert held_by(world, "t/S") == {"engine/n2/y", "lane/trunk/fwd/0"}

    every = "if all(\n            view.applied(place, before.attempt)\n            for place in cleaners_of("
    needed(
        script,
        Mistake("protocol.release", every, every.replace("all", "any")),
        law="is free but still built",
    )


def test_powering_off_claims_a_free_engine():
    def script(world: World) -> None:
        a, c = world.control("A"), world.control("c", "controller")
        request = c.ask(c.power_off("n1/x"))
        world.submit("t/S")
        assert a.do(a.hear().commit("t/S", X))
        assert not c.send(request)

    claim = "claim_free(draft, unit, identifier, attempt)\n    blank"
    needed(
        script,
        Mistake(
            "protocol.system",
            claim,
            "draft.claim(claim_key(unit, attempt), identifier, attempt, ())\n    blank",
        ),
        law="engine/n1/x is listed by",
    )


def test_a_slice_that_ends_does_not_grow():
    def script(world: World) -> None:
        a = placed_and_built(world, "t/S", X)
        growing = a.hear().ask(a.grow("t/S", PAIR))
        assert growing
        c = world.control("c", "controller")
        assert c.do(c.release("t/S"))
        assert not a.send(growing)

    compare = (
        "draft.placed(identifier, entry)\n    draft.seen(keys.slice_(identifier), spec.modified)"
    )
    needed(
        script,
        Mistake(
            "protocol.resize", compare, compare.replace("draft.placed(identifier, entry)", "pass")
        ),
        law="t/S grows while it ends",
    )


def test_a_dead_nodes_units_stay_claimed():
    def script(world: World) -> None:
        a = placed_and_built(world, "t/S", PAIR)
        world.agents["n1"].works = False
        world.agents["n1"].lose_session()
        assert a.do(a.hear().quarantine("n1", "t/S"))
        assert held_by(world, f"~quarantine/n1/{a.hear().view.placements['t/S'].value.attempt}")

    needed(
        script,
        Mistake(
            "protocol.system",
            "draft.claim(claim_key(unit, before.attempt), name, before.attempt, amounts)",
            "draft.delete(claim_key(unit, before.attempt))",
        ),
        Mistake("protocol.system", "draft.put(keys.placement(name), parted)", "pass"),
        Mistake(
            "protocol.system",
            "after = replace(after, ordered=tuple(p for p in after.ordered if p != place))",
            "pass",
        ),
        law="engine/n1/x is free but still built",
    )


def test_a_victim_without_units_ends_only_when_its_orders_are_carried_out():
    def script(world: World) -> None:
        a = placed_and_built(world, "t/S", X)
        world.submit("t/T")
        assert a.do(a.hear().commit("t/T", X, preempt=True))
        a.do(a.hear().free("t/S"))
        a.do(a.hear().arm("t/T"))
        world.run_agents()
        assert a.do(a.hear().free("t/S"))
        assert a.do(a.hear().arm("t/T"))

    wait = "\n        and all(view.applied(place, before.attempt) for place in before.ordered)"
    needed(
        script,
        Mistake("protocol.release", wait, ""),
        law="engine/n1/x is ordered for .* while built for",
    )


# ---------------------------------------------------------------------------- divisible units


def rivals(world: World) -> tuple[Control, Control]:
    """Two schedulers that both know the slices S and T."""
    world.submit("t/S", "t/T")
    return world.control("A"), world.control("B")


def test_a_rivals_part_of_a_host_is_seen():
    def script(world: World) -> None:
        a, b = rivals(world)
        request = a.ask(a.commit("t/S", HOST_BIG))
        assert b.do(b.commit("t/T", HOST_BIG))
        assert not a.send(request)

    guard = "draft.stays_quiet(prefix, view.guard(prefix))"
    needed(
        script,
        Mistake("protocol.commit", guard, "pass"),
        law="host n1 is given away more than once",
    )


def test_slices_of_one_request_are_planned_on_one_working_copy():
    def script(world: World) -> None:
        a, _ = rivals(world)
        request = a.group(("t/S", HOST_BIG), ("t/T", HOST_BIG))
        assert a.send(request) is False

    needed(
        script,
        Mistake("model.view", "self._replace(identifier, before, placement)", "pass"),
        law="host n1 is given away more than once",
    )


def test_a_whole_engine_has_no_parts():
    def script(world: World) -> None:
        a, b = rivals(world)
        request = a.ask(a.commit("t/S", F))
        assert b.do(b.commit("t/T", HALF))
        assert not a.send(request)

    quiet = 'draft.stays_quiet(f"claim/{share_unit(engine)}/", 0)'
    needed(
        script,
        Mistake("protocol.commit", quiet, "pass"),
        law="n1/f is given away whole and in parts",
    )


def with_twins_of_f(world: World) -> None:
    """Put two more engines beside f that can be held in parts."""
    cell = world.cell
    for name in "gh":
        cell.add(replace(cell.engines["n1/f"], name=name))
        cell.add(Link(f"p{name}", a=f"n1/{name}:0", b=f"s1:{name}"))
        engine, link = cell.engines[f"n1/{name}"], cell.links[f"p{name}"]
        world._write(
            Put(keys.inventory("engine", engine.id), encode(engine)),
            Put(keys.inventory("link", link.name), encode(link)),
        )


ALL_OF_N1 = decision(whole("n1/f", "n1/g", "n1/h"), "n1/f", "n1/g", "n1/h")


def test_whole_engines_of_one_node_have_no_parts():
    def script(world: World) -> None:
        with_twins_of_f(world)
        a, b = rivals(world)
        request = a.ask(a.commit("t/S", ALL_OF_N1))
        assert b.do(b.commit("t/T", HALF))
        assert not a.send(request)

    needed(
        script,
        Mistake("protocol.commit", 'draft.stays_quiet(f"claim/share/{node}/", 0)', "pass"),
        law="n1/f is given away whole and in parts",
    )


def test_whole_engines_of_a_node_are_to_be_had_beside_a_shared_one():
    world = World()
    with_twins_of_f(world)
    a, _ = rivals(world)
    assert a.do(a.commit("t/T", HALF))
    pair = decision(whole("n1/g", "n1/h"), "n1/g", "n1/h")
    assert a.do(a.hear().commit("t/S", pair))


def test_a_part_is_of_an_engine_that_nobody_holds_whole():
    def script(world: World) -> None:
        a, b = rivals(world)
        request = a.ask(a.commit("t/S", HALF))
        assert b.do(b.commit("t/T", F))
        assert not a.send(request)

    absent = 'draft.seen(f"claim/{whole}", 0)'
    needed(
        script,
        Mistake("protocol.commit", absent, "pass"),
        law="n1/f is given away whole and in parts",
    )


def test_a_drain_of_a_shared_engine_takes_all_parts():
    def script(world: World) -> None:
        a, b = rivals(world)
        assert a.do(a.commit("t/S", HALF))
        request = a.ask(a.hear().drain("engine/n1/f", take=True))
        assert b.do(b.hear().commit("t/T", HALF))
        assert not a.send(request)
        assert a.do(a.hear().drain("engine/n1/f", take=True))

    guard = "draft.stays_quiet(prefix, view.guard(prefix) if shared else 0)"
    needed(
        script,
        Mistake("protocol.system", guard, "pass"),
        law="n1/f is given away whole and in parts",
    )


# --------------------------------------------------------------------- grants and lost answers


def test_commits_under_way_count_as_spent():
    def script(world: World) -> None:
        a, _ = rivals(world)
        assert a.do(a.raise_grant(100))
        first = a.hear().ask(a.commit("t/S", X))
        second = a.ask(a.commit("t/T", Y))
        assert first
        assert second is None
        assert a.send(first)
        assert a.ask(a.commit("t/T", Y)) is None

    count = "self._replace(identifier, before, placement)"
    forget = f"spent = dict(self._spent); {count}; self._spent = spent"
    mistake = Mistake("model.view", count, forget)

    def both(world: World) -> None:
        a, _ = rivals(world)
        assert a.do(a.raise_grant(100))
        requests = [a.hear().ask(a.commit("t/S", X)), a.ask(a.commit("t/T", Y))]
        for request in requests:
            a.send(request)

    script(World(budget=200))
    needed(both, mistake, law="spends 200 of a grant of 100", budget=200)


def lost_then_late(world: World) -> None:
    """An answer is lost, decided, and the request lands all the same, or tries to."""
    a, _ = rivals(world)
    assert a.do(a.raise_grant(100))
    lost = a.lose(a.hear().ask(a.commit("t/S", X)))
    assert a.ask(a.commit("t/T", Y)) is None, "what is unknown counts as used"
    assert a.find_out() == [False]
    assert a.do(a.hear().commit("t/T", Y))
    world.arrive(lost)


def test_absent_is_no_answer_before_the_fence():
    put = "(Put(fence.key, encode(record), lease),)"
    answer = "return Fence(fence.key, outcome.revision)"
    needed(
        lost_then_late,
        Mistake("protocol.answers", put, "()"),
        Mistake("protocol.answers", answer, "return fence"),
        law="spends 200 of a grant of 100",
        budget=200,
    )


def test_every_step_compares_the_session_of_its_process():
    needed(
        lost_then_late,
        Mistake("protocol.proposal", "self.seen(fence.key, fence.revision)", "pass"),
        law="spends 200 of a grant of 100",
        budget=200,
    )


def test_a_dead_holders_grant_is_lowered_only_by_who_has_seen_its_last_commit():
    def script(world: World) -> None:
        a, _ = rivals(world)
        c = world.control("c", "controller")
        assert a.do(a.raise_grant(100))
        lost = a.lose(a.hear().ask(a.commit("t/S", X)))
        c.hear()
        world.arrive(lost)
        a.die()
        c.hear("session/", "grant/")
        rules, fence = c.rules.grants, c.fence
        assert c.do(rules.fence_dead(c.view, PURSE, a.session, fence=fence))
        c.hear("grant/")
        fenced_at = c.fenced_grants[f"grant/{PURSE}/{a.session}"]
        assert not c.do(rules.lower_dead(c.view, PURSE, a.session, fenced_at, fence=fence))
        c.hear()
        assert not c.do(rules.lower_dead(c.view, PURSE, a.session, fenced_at, fence=fence))

    seen = "if view.placed_at < fenced_at or entry.modified < fenced_at:\n        return None"
    needed(
        script,
        Mistake("protocol.grants", seen, ""),
        law="spends 100 of a grant of 0",
        budget=200,
    )


def test_two_raises_do_not_pass_the_limit_together():
    def script(world: World) -> None:
        a, b = world.control("A"), world.control("B")
        request = a.ask(a.raise_grant(200))
        assert b.do(b.raise_grant(200))
        assert not a.send(request)

    guard = "draft.stays_quiet(prefix, view.guard(prefix))"
    needed(
        script,
        Mistake("protocol.grants", guard, "pass"),
        law="raising brings the grants to 400 over a limit of 200",
        budget=200,
    )


def test_a_raise_sees_that_the_limit_was_lowered():
    def script(world: World) -> None:
        a = world.control("A")
        request = a.ask(a.raise_grant(200))
        world.set_budget(100)
        assert not a.send(request)

    compare = "draft.seen(limited, written_at)"
    needed(
        script,
        Mistake("protocol.grants", compare, "pass"),
        law="raising brings the grants to 200 over a limit of 100",
        budget=200,
    )


# ------------------------------------------------ what only the project's own model has: service


def test_a_commit_and_a_drain_of_its_node_meet():
    def script(world: World) -> None:
        a, b = rivals(world)
        request = a.ask(a.commit("t/S", X))
        assert b.do(b.drain("node/n1"))
        assert not a.send(request)

    absent = 'draft.seen(f"claim/{unit}", 0)'
    needed(
        script,
        Mistake("protocol.commit", absent, "pass"),
        law="takes engine/n1/x, node/n1 is out of service",
    )


def test_a_commit_and_a_drain_of_a_link_it_only_crosses_meet():
    def script(world: World) -> None:
        a, b = rivals(world)
        request = a.ask(a.commit("t/S", PAIR))
        assert b.do(b.drain("link/py"))
        assert not a.send(request)

    crossed = "for circuit in circuits:\n        for arc in circuit.arcs:"
    needed(
        script,
        Mistake("protocol.commit", crossed, crossed.replace("in circuits", "in ()")),
        law="link/py is out of service",
    )


def test_a_commit_and_a_drain_of_a_switch_that_nobody_claims_meet():
    def script(world: World) -> None:
        a, b = rivals(world)
        request = a.ask(a.commit("t/S", PAIR))
        assert b.do(b.drain("switch/s1"))
        assert not a.send(request)

    both = "*(_service_unit(cell, p) for p in places_of(cell, unit))"
    needed(
        script,
        Mistake("model.units", both, ""),
        law="switch/s1 is out of service",
    )


def test_a_growing_slice_and_a_drain_of_the_node_meet():
    def script(world: World) -> None:
        a = placed_and_built(world, "t/S", X)
        request = a.hear().ask(a.grow("t/S", XY))
        b = world.control("B")
        assert b.do(b.drain("node/n2"))
        assert not a.send(request)

    meet = "if not in_service(draft, view, new, circuits):\n        return None"
    needed(
        script,
        Mistake("protocol.resize", meet, ""),
        law="takes engine/n2/y, node/n2 is out of service",
    )


def test_a_place_is_quarantined_only_while_its_agent_is_gone():
    def script(world: World) -> None:
        a = placed_and_built(world, "t/S", X)
        world.agents["n1"].lose_session()
        request = a.hear().ask(a.quarantine("n1", "t/S"))
        assert request
        world.agents["n1"].come_back()
        law(not a.send(request), "a living agent's devices are taken for dead")

    absent = 'draft.seen(keys.session("agent", place), 0)\n    draft.placed(identifier, entry)'
    needed(
        script,
        Mistake("protocol.system", absent, "draft.placed(identifier, entry)"),
        law="taken for dead",
    )


# ------------------------------------------------------------------- trees and aggregators


def test_an_aggregator_has_one_holder():
    def script(world: World) -> None:
        a, b = rivals(world)
        request = a.ask(a.commit("t/S", TREE))
        assert b.do(b.commit("t/T", SUM))
        assert not a.send(request)

    divisible = 'unit.startswith(("share/", "host/"))'
    needed(
        script,
        Mistake("model.units", divisible, 'unit.startswith(("share/", "host/", "aggregator/"))'),
        Mistake("protocol.commit", "return False\n    _guard", "pass\n    _guard"),
        law="aggregator/s2/0",
    )


def test_an_aggregator_is_free_only_after_its_switch_has_let_go():
    def script(world: World) -> None:
        a = placed_and_built(world, "t/S", MERGED)
        assert a.do(a.hear().shrink("t/S", LAST_STREAM))
        for place in ("n1", "n2", "s1"):
            world.agents[place].work()
        a.do(a.hear().free("t/S"))
        assert "aggregator/s2/0" in held_by(world, "t/S")
        world.run_agents()
        assert a.do(a.hear().free("t/S"))
        assert held_by(world, "t/S") == {*LAST_STREAM.units}

    needed(
        script,
        Mistake(
            "protocol.orders",
            "return places_of(cell, unit) or ordered",
            'return () if unit[0] == "a" else places_of(cell, unit) or ordered',
        ),
        law="aggregator/s2/0 is free but still built",
    )


def test_a_tree_that_loses_a_branch_keeps_the_lanes_that_others_use():
    def script(world: World) -> None:
        a = placed_and_built(world, "t/S", TREE)
        assert a.do(a.hear().shrink("t/S", PAIR))
        world.run_agents()
        assert a.do(a.hear().free("t/S"))
        assert held_by(world, "t/S") == {*PAIR.units}

    keep = "kept = {u: a for u, a in before.held.items() if u in keep.units}"
    drop = "drop = {u: a for u, a in before.held.items() if u not in keep.units}"
    needed(
        script,
        Mistake(
            "protocol.resize",
            keep,
            keep.replace("in keep.units", 'in keep.units and "lane" not in u'),
        ),
        Mistake(
            "protocol.resize",
            drop,
            drop.replace("not in keep.units", 'not in keep.units or "lane" in u'),
        ),
        law="lane",
    )


def test_every_branch_of_a_tree_is_torn_down_before_its_lanes_are_free():
    def script(world: World) -> None:
        a = placed_and_built(world, "t/S", TREE)
        assert a.do(a.hear().release("t/S"))
        for place in ("n1", "n2", "s1"):
            world.agents[place].work()
        a.do(a.hear().free("t/S"))
        assert {"aggregator/s2/0", "lane/trunk/fwd/0", "engine/n2/y"} <= held_by(world, "t/S")

    ends = "return tuple(sorted({cell.place_of(link.a_thing), cell.place_of(link.b_thing)}))"
    needed(
        script,
        Mistake("model.units", ends, "return (cell.place_of(link.a_thing),)"),
        law="lane/trunk/fwd/0 is free but still built",
    )


# ------------------------------------------------------------------- gangs guarded by ranges

FEW = 8  # operations a request may hold, so that a commit of two engines is a big gang


def test_a_big_gang_sees_what_was_put_after_its_view():
    def script(world: World) -> None:
        a, b = rivals(world)
        request = a.ask(a.commit("t/S", PAIR))
        assert b.do(b.commit("t/T", Y))
        assert not a.send(request)

    since = "seen=view.placed_at if all(key.startswith(told) for key in absent) else view.revision,"
    needed(
        script,
        Mistake("protocol.proposal", since, "seen=10**9,"),
        law="engine/n2/y is listed by",
        operations_max=FEW,
    )


def test_a_big_gang_does_not_take_what_its_view_knows_to_be_out_of_service():
    def script(world: World) -> None:
        a, b = rivals(world)
        assert b.do(b.drain("link/trunk"))
        assert not a.do(a.hear().commit("t/S", PAIR))

    known = "return all(map(view.in_service, used))"
    needed(
        script,
        Mistake("protocol.commit", known, "return True"),
        law="link/trunk is out of service",
        operations_max=FEW,
    )


def test_a_big_gang_of_a_client_does_not_overwrite_a_request_that_is_known():
    def script(world: World) -> None:
        a, _ = rivals(world)
        world.wish("t/S", cancelled=True)
        assert not a.do(a.hear().commit("t/S", X, embedded=True))

    known = "if entry is not None:\n            return None"
    needed(
        script,
        Mistake("protocol.commit", known, "pass"),
        law="committed while its request",
        operations_max=5,
    )


def test_a_victim_that_is_queued_again_keeps_its_uid():
    world = World()
    a = placed_and_built(world, "t/S", X)
    uid = a.hear().view.slices["t/S"].created
    assert a.do(a.release("t/S", replace(AGAIN, message="once more")))
    world.run_agents()
    assert a.do(a.hear().free("t/S"))
    assert a.do(a.hear().commit("t/S", X))
    placement = a.hear().view.placements["t/S"].value
    assert (placement.uid, placement.number) == (uid, 2)
