"""Is each rule needed by which parts of a host or engine, and the watts, go to who takes over?"""

from tests.protocol.laws import law
from tests.protocol.little_cell import HALF, HOST_BIG, HOST_SMALL, PURSE, XY, F, X, Y, decision
from tests.protocol.planting import needed
from tests.protocol.rules import Mistake
from tests.protocol.world import Control, World, held_by, placed

HOST = "host/n1"
MOST = decision({HOST: (1500, 500)})
SHARE = decision({"share/n1/f": (700,)}, "n1/f")


def built(world: World, name: str, what: object, control: Control | None = None) -> Control:
    """Have a slice placed and built, by a scheduler that has heard of it."""
    world.submit(name)
    a = control or world.control("A")
    assert a.do(a.hear().commit(name, what))  # type: ignore[arg-type]
    world.run_agents()
    return a.hear()


def amounts(world: World, name: str) -> dict[str, tuple[int, ...]]:
    """Return what a placement lists of hosts and shared engines."""
    placement = placed(world, name)
    assert placement is not None
    return {u: a for u, a in {**placement.held, **placement.releasing}.items() if a}


def to_the_end(world: World, taker: str, *victims: str) -> None:
    """Have the victims cleaned and the taker built."""
    a = world.control("C").hear()
    waits = placed(world, taker)
    assert waits is not None
    assert waits.waits
    assert a.arm(taker) is None
    world.run_agents()
    for victim in victims:
        assert a.do(a.hear().free(victim))
    assert a.do(a.hear().arm(taker))
    world.run_agents()


def test_what_is_lacking_of_a_host_moves_and_the_rest_is_kept_until_it_is_clean():
    world = World()
    a = built(world, "t/S", HOST_SMALL)
    world.submit("t/T")
    assert a.hear().commit("t/T", MOST) is None, "nobody gives way unasked"
    assert a.do(a.hear().commit("t/T", MOST, preempt=True))
    assert amounts(world, "t/S") == {HOST: (500, 1000)}, "500 thousandths were lacking, no memory"
    assert amounts(world, "t/T") == {HOST: (1500, 500)}
    world.submit("t/U")
    assert not a.do(a.hear().commit("t/U", HOST_SMALL)), "and nothing is free in between"
    to_the_end(world, "t/T", "t/S")
    record = world.record("t/S")
    assert record is not None
    assert (record.end, record.attempts) == (None, 1), "queued again"


def test_a_victim_loses_a_part_only_once_its_rest_is_clean():
    def script(world: World) -> None:
        a = built(world, "t/S", HOST_SMALL)
        world.submit("t/T")
        assert a.do(a.hear().commit("t/T", MOST, preempt=True))
        assert held_by(world, "t/S") == {HOST}

    needed(
        script,
        Mistake("protocol.takeover", "if any(rest):", "if False:"),
        law="host/n1 is free but still built",
    )


def test_what_a_victim_keeps_is_written():
    def script(world: World) -> None:
        a = built(world, "t/S", HOST_SMALL)
        world.submit("t/T")
        assert a.do(a.hear().commit("t/T", MOST, preempt=True))

    rest = "draft.claim(claim_key(unit, victim.attempt), name, victim.attempt, rest)"
    needed(
        script,
        Mistake("protocol.takeover", rest, "pass"),
        law="claims are not what placements list",
    )


def test_what_moves_is_no_longer_the_victims():
    def script(world: World) -> None:
        a = built(world, "t/S", HOST_SMALL)
        world.submit("t/T")
        assert a.do(a.hear().commit("t/T", MOST, preempt=True))

    rest = "rest = _less(left.pop(unit), amounts)"
    needed(
        script,
        Mistake("protocol.takeover", rest, "rest = left.pop(unit)"),
        law="host n1 is given away more than once",
    )


def test_nobody_takes_what_is_free_beside_who_takes_over():
    def script(world: World) -> None:
        a = built(world, "t/S", HOST_SMALL)
        world.submit("t/T", "t/U")
        b = world.control("B").hear()
        request = a.hear().ask(a.commit("t/T", MOST, preempt=True))
        assert b.do(b.commit("t/U", HOST_SMALL))
        assert not a.send(request)

    guard = "draft.stays_quiet(prefix, view.guard(prefix))"
    needed(
        script,
        Mistake("protocol.commit", guard, "pass"),
        law="host n1 is given away more than once",
    )


def test_who_takes_a_part_waits_for_the_victims_report():
    def script(world: World) -> None:
        a = built(world, "t/S", HOST_SMALL)
        world.submit("t/T")
        assert a.do(a.hear().commit("t/T", MOST, preempt=True))
        a.do(a.hear().arm("t/T"))
        world.agents["n1"].sync()
        for which in world.agents["n1"].missing():
            world.agents["n1"].build(which)

    waits = "if not before.waits or view.carried(before.waits) or"
    needed(
        script,
        Mistake("protocol.release", waits, "if not before.waits or"),
        law="host/n1 is free but still built",
    )


def test_a_taker_has_no_orders_before_its_victims_are_gone():
    def script(world: World) -> None:
        a = built(world, "t/S", HOST_SMALL)
        world.submit("t/T")
        assert a.do(a.hear().commit("t/T", MOST, preempt=True))

    needed(
        script,
        Mistake(
            "protocol.orders", "if placement.waits or not placement.held", "if not placement.held"
        ),
        law="has orders at n1 but waits",
    )


def test_what_a_taker_gives_back_is_free_only_after_the_victim():
    def script(world: World) -> None:
        a = built(world, "t/S", HOST_SMALL)
        world.submit("t/T")
        assert a.do(a.hear().commit("t/T", MOST, preempt=True))
        assert a.do(a.hear().release("t/T"))
        a.do(a.hear().free("t/T"))
        assert held_by(world, "t/T") == {HOST}

    waits = "if view.carried(before.waits) or entry.modified > view.revision:"
    needed(
        script,
        Mistake("protocol.release", waits, "if entry.modified > view.revision:"),
        law="host/n1 is free but still built",
    )


def test_two_schedulers_do_not_take_the_same_part():
    def script(world: World) -> None:
        a = built(world, "t/S", HOST_BIG)
        world.submit("t/T", "t/U")
        b = world.control("B").hear()
        request = a.hear().ask(a.commit("t/T", HOST_SMALL, preempt=True))
        assert b.do(b.commit("t/U", HOST_SMALL, preempt=True))
        assert not a.send(request)

    seen = "        draft.placed(name, entry)\n        after = replace(\n            victim,"
    needed(
        script,
        Mistake("protocol.takeover", seen, seen.partition("\n")[2]),
        Mistake("protocol.commit", "draft.stays_quiet(prefix, view.guard(prefix))", "pass"),
        law="host n1 is given away more than once|claims are not what placements list",
    )


def test_a_part_of_an_engine_moves():
    world = World()
    a = built(world, "t/S", SHARE)
    world.submit("t/T")
    assert a.do(a.hear().commit("t/T", SHARE, preempt=True))
    assert amounts(world, "t/S") == {"share/n1/f": (300,)}
    assert amounts(world, "t/T") == {"share/n1/f": (700,)}
    to_the_end(world, "t/T", "t/S")
    assert amounts(world, "t/T") == {"share/n1/f": (700,)}


def test_all_parts_of_an_engine_go_to_who_takes_it_whole():
    world = World()
    a = built(world, "t/S", HALF)
    built(world, "t/U", decision({"share/n1/f": (500,)}, "n1/f"), a)
    world.submit("t/T")
    assert a.hear().commit("t/T", F) is None
    assert a.do(a.hear().commit("t/T", F, preempt=True))
    assert held_by(world, "t/T") == {"engine/n1/f"}
    assert held_by(world, "t/S") == {HOST}
    assert not held_by(world, "t/U")
    to_the_end(world, "t/T", "t/S", "t/U")


def test_an_engine_is_taken_whole_only_from_those_who_were_seen_to_have_a_part():
    def script(world: World) -> None:
        a = built(world, "t/S", HALF)
        world.submit("t/T", "t/U")
        b = world.control("B").hear()
        request = a.hear().ask(a.commit("t/T", F, preempt=True))
        assert b.do(b.commit("t/U", decision({"share/n1/f": (500,)}, "n1/f")))
        assert not a.send(request)

    needed(
        script,
        Mistake("protocol.commit", "_guard(draft, view, share_unit(subject))", "pass"),
        law="n1/f is given away whole and in parts",
    )


def test_a_part_is_not_taken_of_an_engine_that_is_held_whole():
    world = World()
    a = built(world, "t/S", F)
    world.submit("t/T")
    assert a.hear().commit("t/T", HALF, preempt=True) is None, "half of it would be free in use"


def test_a_victim_that_became_more_important_is_not_taken_from():
    def script(world: World) -> None:
        a = built(world, "t/S", X)
        world.submit("t/T")
        request = a.hear().ask(a.commit("t/T", X, preempt=True))
        world.wish("t/S", held=False)
        law(not a.send(request), "what its user asked for meanwhile was not seen")

    needed(
        script,
        Mistake("protocol.commit", "draft.seen(keys.slice_(name), victim.modified)", "pass"),
        law="was not seen",
    )


# ------------------------------------------------------------------------------- watts


def granted(world: World, control: Control) -> int:
    """Return what a scheduler may spend."""
    found = control.hear().view.grants.get(PURSE, {}).get(control.session)
    return found.value if found else 0


def test_watts_and_their_grant_move_with_the_units():
    world = World(budget=100)
    a, b = world.control("A"), world.control("B")
    assert a.do(a.raise_grant(100))
    built(world, "t/S", X, a)
    world.submit("t/T")
    assert b.hear().commit("t/T", Y, preempt=True) is None, "nothing is left of the budget"
    assert b.do(b.commit("t/T", X, preempt=True))
    assert (granted(world, a), granted(world, b)) == (0, 100)
    victim, taker = placed(world, "t/S"), placed(world, "t/T")
    assert victim is not None
    assert taker is not None
    assert (victim.spent, taker.spent) == ({}, {PURSE: 100})
    to_the_end(world, "t/T", "t/S")


def test_what_a_victim_keeps_is_spent_until_it_is_clean():
    world = World(budget=300)
    a, b = world.control("A"), world.control("B")
    assert a.do(a.raise_grant(200))
    built(world, "t/S", XY, a)
    world.submit("t/T")
    assert b.do(b.hear().commit("t/T", X, preempt=True))
    assert (granted(world, a), granted(world, b)) == (100, 100)
    victim = placed(world, "t/S")
    assert victim is not None
    assert victim.spent == {PURSE: 100}
    world.run_agents()
    assert a.do(a.hear().free("t/S"))


def taken_of_another(world: World) -> None:
    """B takes over what A has spent its grant for, while A is about to do something with it."""
    a, b = world.control("A"), world.control("B")
    assert a.do(a.raise_grant(200))
    built(world, "t/S", X, a)
    world.submit("t/T", "t/U")
    later = a.hear().ask(a.commit("t/U", Y))
    assert later
    assert b.do(b.hear().commit("t/T", X, preempt=True))
    a.send(later)


def test_no_more_is_granted_than_was_taken_from_others():
    needed(
        taken_of_another,
        Mistake("protocol.commit", "yield amount", "yield 2 * amount"),
        law="raising brings the grants to 300 over a limit of 200",
        budget=200,
    )


def test_the_grant_of_a_victims_scheduler_is_compared():
    def script(world: World) -> None:
        a, b = world.control("A"), world.control("B")
        assert a.do(a.raise_grant(200))
        built(world, "t/S", X, a)
        world.submit("t/T")
        request = b.hear().ask(b.commit("t/T", X, preempt=True))
        assert a.do(a.hear().give_back(100))
        c = world.control("C")
        assert c.do(c.raise_grant(100))
        assert not b.send(request)

    seen = "draft.seen(key, grant.modified)\n        if grant.value > amount"
    needed(
        script,
        Mistake("protocol.commit", seen, "if grant.value > amount"),
        law="over a limit of 200",
        budget=200,
    )


def test_the_grant_that_moves_is_no_longer_the_victims_schedulers():
    def script(world: World) -> None:
        a, b = world.control("A"), world.control("B")
        assert a.do(a.raise_grant(100))
        built(world, "t/S", X, a)
        world.submit("t/T")
        assert b.do(b.hear().commit("t/T", X, preempt=True))

    delete = "            draft.delete(key)\n        yield amount"
    needed(
        script,
        Mistake("protocol.commit", delete, "            pass\n        yield amount"),
        law="raising brings the grants to 200 over a limit of 100",
        budget=100,
    )


def test_what_moves_is_no_longer_spent_by_the_victim():
    def script(world: World) -> None:
        a, b = world.control("A"), world.control("B")
        assert a.do(a.raise_grant(100))
        built(world, "t/S", X, a)
        world.submit("t/T")
        assert b.do(b.hear().commit("t/T", X, preempt=True))

    less = "less = (moved or {}).get(name, {})"
    needed(
        script,
        Mistake("protocol.takeover", less, "less: dict[str, int] = {}"),
        law="spends 100 of a grant of 0",
        budget=100,
    )
