"""What may a tenant hold? Quotas, shared by schedulers, lowered, raised, and never passed."""

from collections.abc import Callable
from typing import Any

import pytest

from flowos.model.cell import Tenant
from flowos.model.codec import encode
from flowos.model.slice import Phase, Reason
from flowos.model.transaction import Put
from flowos.runtime.lifecycle import Rules
from flowos.runtime.purses import ASKED_GRANT_SECONDS, IDLE_GRANT_SECONDS, Purses
from flowos_schedulers.batch import Batch
from tests.runtime.cells import small_cell, wanted
from tests.runtime.stage import Stage
from tests.runtime.theatre import TTL_SECONDS, Player, Theatre

PURSE = "tenant:vision:gpu"


def theatre(quota: int | None, **cell: Any) -> Theatre:
    found = Theatre(small_cell(nodes=8, gpus=4, **cell))
    set_quota(found, quota)
    return found


def set_quota(where: Theatre, quota: int | None) -> None:
    quotas = {} if quota is None else {"gpu": quota}
    where.write(Put("tenant/vision", encode(Tenant("vision", quota=quotas))))


def vision(name: str, gpus: int = 1, **more: Any) -> Any:
    return wanted(name, gpus=gpus, tenant="vision", **more)


def held(where: Theatre) -> int:
    """Thousandths of GPUs that the tenant has, on their way back included."""
    return sum(
        sum(amounts) or 1000
        for name, entry in where.view().placements.items()
        if name.startswith("vision/")
        for unit, amounts in {**entry.value.held, **entry.value.releasing}.items()
        if unit.startswith(("engine/", "share/"))
    )


def granted(where: Theatre) -> dict[str, int]:
    """Scheduler -> what it was granted."""
    return {
        key.rpartition("/")[2].partition("@")[0]: amount
        for key, amount in where.grants().items()
        if f"/{PURSE}/" in key
    }


# ------------------------------------------------------------------------------------- what counts


def test_a_tenant_at_its_quota_waits_and_others_go_on():
    where = theatre(quota=4)
    where.scheduler()
    where.submit(vision("a", 3), vision("b", 2), vision("c"), wanted("d", gpus=6))
    where.play(3)
    assert where.held("vision/a")
    assert where.held("vision/c")
    assert where.held("default/d")
    waiting = where.waiting("vision/b")
    assert waiting.reason is Reason.QUOTA_EXCEEDED
    assert waiting.sentence == "needs 2 gpu; tenant vision has 3 of 4 gpu"
    where.take_away("vision/a")
    where.play(3)
    assert where.held("vision/b")


def test_parts_of_engines_count_as_parts():
    where = theatre(quota=1)
    where.scheduler()
    where.submit(*(vision(f"s{n}", share=300) for n in range(4)))
    where.play(3)
    assert held(where) == 900
    (left,) = (n for n in range(4) if not where.held(f"vision/s{n}"))
    assert (
        where.waiting(f"vision/s{left}").sentence == "needs 0.3 gpu; tenant vision has 0.9 of 1 gpu"
    )


def test_kinds_without_a_limit_are_free():
    where = theatre(quota=0)
    where.scheduler()
    where.submit(wanted("f", fpgas=1, tenant="vision"), vision("g"))
    where.play(3)
    assert where.held("vision/f")
    assert where.waiting("vision/g").reason is Reason.QUOTA_EXCEEDED


def test_what_never_fits_says_so():
    where = theatre(quota=4)
    where.scheduler()
    where.submit(vision("a", 5))
    where.play(3)
    assert where.waiting("vision/a").sentence == (
        "needs 5 gpu; tenant vision may have 4 at once: ask for less, or raise the quota"
    )
    set_quota(where, 5)
    where.play(3)
    assert where.held("vision/a")


def test_a_placement_spends_of_its_domain_and_of_its_tenant():
    where = theatre(quota=4, budget=3200)
    where.scheduler()
    where.submit(vision("a", 2), wanted("b", gpus=1))
    where.play(3)
    assert where.placed("vision/a").spent == {"domain:room": 200, PURSE: 2000}
    assert where.placed("default/b").spent == {"domain:room": 100}


# --------------------------------------------------------------------------- several schedulers


def test_two_schedulers_share_a_quota_to_its_last_engine():
    where = theatre(quota=9)
    for number in range(2):
        where.scheduler(f"batch-{number}")
    where.submit(*(vision(f"s{n}") for n in range(12)))
    where.play(10)
    assert held(where) == 9000
    assert sum(granted(where).values()) == 9000


class Other(Batch):
    """Another queue, so that a test says which scheduler plans what."""

    name = "other"


def rivals(where: Theatre) -> tuple[Player, Player]:
    """Two schedulers that do not look at each other's slices."""
    return where.scheduler("one", alone=True), where.scheduler("two", policy=Other(), alone=True)


def keep_busy(
    player: Player, seconds: float, until: Callable[[], bool], tenant: str = "default"
) -> bool:
    """Let time pass while a scheduler always has a tenant's slices to place, and one sent."""
    where, tick = player.theatre, 0.02
    names: list[str] = []
    for _ in range(round(seconds / tick)):
        names.append(where.fresh("busy"))
        where.submit(wanted(names[-1], gpus=1, tenant=tenant))
        while player.next_move() == "hear":
            player.move("hear")
        before = len(player.requests)
        player.move("step")
        # The older one of two is answered; an only one just where nothing else is planned.
        answered = len(player.requests) - (len(player.requests) > before)
        for _ in range(answered):
            player.move("send")
            player.move("be told")
        for name in names[:-3]:
            if where.placement(f"{tenant}/{name}"):
                where.take_away(f"{tenant}/{name}")
        where.advance(where.clock.now + tick)
        others = [other for other in where.players if other is not player]
        while any(moves := [(other, other.next_move()) for other in others if other.next_move()]):
            for other, move in moves:
                other.move(move)
        if until():
            return True
    return until()


@pytest.mark.parametrize("busy", [False, True])
def test_what_lies_idle_with_a_rival_is_had_within_about_a_second(busy):
    where = theatre(quota=8)
    one, two = rivals(where)
    where.submit(vision("a", 8))
    where.play(1)
    where.submit(vision("b", 8, policy="other"))
    where.play(3)
    assert granted(where) == {"one": 8000}
    assert where.waiting("vision/b").sentence == "needs 8 gpu; tenant vision has 8 of 8 gpu"
    where.take_away("vision/a")
    seconds, done = 2 * IDLE_GRANT_SECONDS + 0.1, lambda: bool(where.held("vision/b"))
    assert keep_busy(one, seconds, done) if busy else where.play(seconds, done)
    assert where.placed("vision/b").scheduler == two.session.id


def test_a_grant_that_is_asked_for_while_others_are_placed_comes_at_once():
    where = theatre(quota=8)
    one = where.scheduler("one", alone=True)
    where.submit(vision("a", 8))
    assert keep_busy(one, 0.5, lambda: bool(where.held("vision/a")))


def test_a_grant_is_raised_though_plans_that_spend_from_it_are_always_under_way():
    where = theatre(quota=16)
    one = where.scheduler("one", alone=True)
    where.submit(vision("a", 7))
    where.settle()
    where.take_away("vision/a")  # its grant is enough for the small ones for a while
    keep_busy(one, 0.1, lambda: False, tenant="vision")
    where.submit(vision("big", 8, priority=5))
    assert keep_busy(one, 0.2, lambda: bool(where.held("vision/big")), tenant="vision")


def test_what_is_needed_and_too_little_is_not_kept_from_a_rival():
    """Each has a half, each wants the whole: whoever comes first has it, the other nothing."""
    where = theatre(quota=8)
    rivals(where)
    where.submit(vision("a", 4), vision("b", 4, policy="other"))
    where.play(3)
    where.submit(vision("c", 8), vision("d", 8, policy="other"))
    where.play(3)
    assert granted(where) == {"one": 4000, "two": 4000}
    where.take_away("vision/a", "vision/b")
    assert where.play(2, lambda: bool(where.held("vision/c") or where.held("vision/d")))
    (first,) = (name for name in ("vision/c", "vision/d") if where.held(name))
    where.take_away(first)
    assert where.play(2, lambda: bool(where.held("vision/c") or where.held("vision/d")))


def test_what_is_used_again_and_again_is_kept_and_what_is_not_goes_to_the_rival():
    where = theatre(quota=8)
    rivals(where)
    where.submit(vision("a", 8))
    where.play(3)
    where.submit(vision("b", 6, policy="other"))
    where.take_away("vision/a")
    raises = []
    for number in range(20):  # one at a time, and never a second without
        where.submit(vision(f"small{number}"))
        where.play(0.1)
        raises.append(sum(granted(where).values()))
        where.take_away(f"vision/small{number}")
    assert where.held("vision/b")
    assert granted(where) == {"one": 1000, "two": 6000}
    sent = [line for line in where.trace if "grant" in line and " one: " in line]
    assert len(sent) < 6, sent


def test_a_waiting_slice_is_told_whose_unused_grant_it_waits_for():
    where = theatre(quota=8)
    one, _ = rivals(where)
    where.submit(vision("a", 8))
    where.play(3)
    one.acts = False
    where.take_away("vision/a")
    where.submit(vision("b", 3, policy="other"))
    where.play(1)
    assert where.waiting("vision/b").sentence == (
        "needs 3 gpu; tenant vision has 0 of 8 gpu; granted and not used yet: 8 gpu to scheduler one"
    )


@pytest.mark.parametrize("busy", [False, True])
def test_what_lies_idle_goes_at_once_to_a_rival_who_asks(busy):
    """It has asked before anything was given back; other tenants' slices come all the time, or not."""
    where = theatre(quota=8)
    one, _ = rivals(where)
    where.submit(vision("a", 8))
    where.play(1)
    where.submit(vision("b", 8, policy="other"))
    where.play(3)
    where.take_away("vision/a")
    seconds, done = ASKED_GRANT_SECONDS + 0.1, lambda: bool(where.held("vision/b"))
    assert keep_busy(one, seconds, done) if busy else where.play(seconds, done)


def test_what_lies_idle_already_goes_at_once_to_a_rival_who_asks_then():
    where = theatre(quota=8)
    rivals(where)
    where.submit(vision("a", 8))
    where.play(1)
    where.take_away("vision/a")
    where.play(0.01)
    where.submit(vision("b", 3, policy="other"))
    assert where.play(ASKED_GRANT_SECONDS + 0.05, lambda: bool(where.held("vision/b")))


def test_who_runs_by_now_does_not_ask_any_more():
    where = theatre(quota=8)
    rivals(where)
    where.submit(vision("a", 6))
    where.play(1)
    where.submit(vision("b", 8, policy="other"), vision("c", 2, policy="other"))
    where.play(1)
    where.take_away("vision/a", "vision/c")
    assert where.play(1, lambda: bool(where.held("vision/b")))
    assert where.waits("vision/b"), "what was said of it is there still"
    where.take_away("vision/b")
    where.submit(vision("d", 3))
    where.play(2)
    where.take_away("vision/d")
    where.play(IDLE_GRANT_SECONDS - 0.1)
    assert granted(where) == {"one": 3000}, "nobody asks: it is kept for a while"


def test_no_more_than_is_needed_is_raised_while_a_rival_asks():
    where = theatre(quota=24)
    rivals(where)
    where.submit(vision("a", 8))
    where.play(3)
    where.submit(vision("b", 20, policy="other"))
    where.play(1)
    where.submit(vision("c", 1))
    where.settle()
    assert where.held("vision/c")
    assert granted(where) == {"one": 9000}


# --------------------------------------------------------------------------- limits that change


def test_a_lowered_quota_is_in_force_as_what_is_held_ends():
    where = theatre(quota=8)
    rivals(where)
    where.submit(vision("a", 3), vision("b", 3), vision("c", 2, policy="other"))
    where.play(3)
    set_quota(where, 4)
    where.submit(vision("d"), vision("e", policy="other"))
    where.play(3)
    assert sum(granted(where).values()) == 8000
    sentence = "needs 1 gpu; tenant vision has 8, and its quota was lowered to 4"
    assert where.waiting("vision/d").sentence == where.waiting("vision/e").sentence == sentence
    where.take_away("vision/a")  # what it had may not be used again, not even by who was granted it
    where.settle()
    assert granted(where) == {"one": 3000, "two": 2000}, "it follows down at once"
    assert not where.held("vision/d")
    where.take_away("vision/b")
    where.play(3)
    assert held(where) == 4000
    set_quota(where, 8)
    where.submit(vision("f", 4))
    where.play(3)
    assert held(where) == 8000


def test_a_grant_is_not_spent_while_more_is_granted_than_is_wanted():
    where = theatre(quota=8)
    one = where.scheduler("one", alone=True)
    where.submit(vision("a", 8))
    where.play(1)
    where.take_away("vision/a")
    set_quota(where, 4)
    view = where.view()
    purses = Purses(view, one.session.id, lambda: one.session.fence)
    short = purses.covers({PURSE: 1000}, 0.0)
    assert short is not None
    assert short.sentence == "needs 1 gpu; tenant vision has 0, and its quota was lowered to 4"
    assert [step.step for step in purses.give_all_back()] == []
    set_quota(where, 8)
    purses = Purses(where.view(), one.session.id, lambda: one.session.fence)
    assert purses.covers({PURSE: 1000}, 0.0) is None


def test_what_was_placed_before_there_was_a_quota_counts():
    where = theatre(quota=None)
    rivals(where)
    where.submit(vision("a", 3), vision("b", 2, policy="other"))
    where.play(1)
    assert where.grants() == {}
    set_quota(where, 6)
    where.submit(vision("d"))
    where.play(1)
    where.submit(vision("c", 2))
    where.play(3)
    assert not where.held("vision/c")
    assert where.held("vision/d")
    assert where.waiting("vision/c").sentence == "needs 2 gpu; tenant vision has 6 of 6 gpu"
    where.take_away("vision/b")
    where.play(3)
    assert where.held("vision/c")
    assert held(where) == 6000


def test_a_quota_that_is_taken_away_leaves_no_grant_behind():
    where = theatre(quota=4)
    where.scheduler()
    where.submit(vision("a", 3))
    where.play(1)
    set_quota(where, None)
    where.submit(vision("b", 8))
    where.play(3)
    assert where.held("vision/b")
    where.take_away("vision/a")
    where.play(3)
    assert where.grants() == {}


def test_a_plan_made_for_the_quotas_of_before_is_not_committed():
    where = theatre(quota=None)
    one = where.scheduler()
    where.settle()
    where.submit(vision("a", 8))
    while not one.requests:
        one.move(one.next_move())
    set_quota(where, 4)
    where.play(3)
    assert not where.held("vision/a")
    assert where.waiting("vision/a").reason is Reason.QUOTA_EXCEEDED


def test_a_dead_schedulers_grant_comes_back():
    where = theatre(quota=8)
    one, _ = rivals(where)
    where.controller()
    where.submit(vision("a", 3), vision("b", 5))
    where.play(1)
    where.take_away("vision/a")
    one.die()
    where.submit(vision("c", 3, policy="other"))
    within = (
        TTL_SECONDS + 2 * Rules().sweep_seconds + 0.1
    )  # its lease, a sweep to fence, one to lower
    assert where.play(within, lambda: bool(where.held("vision/c")))
    assert granted(where) == {"one": 5000, "two": 3000}


def test_the_grant_of_a_scheduler_that_was_ended_comes_back_without_waiting_for_its_lease():
    where = theatre(quota=8)
    one, _ = rivals(where)
    where.controller()
    where.submit(vision("a", 3))
    where.play(1)
    one.exit()
    where.take_away("vision/a")
    where.submit(vision("c", 8, policy="other"))
    assert where.play(2 * Rules().sweep_seconds + 0.1, lambda: bool(where.held("vision/c")))


def test_who_waits_for_what_a_dead_scheduler_was_granted_is_told_so():
    where = theatre(quota=8)
    one, _ = rivals(where)
    where.submit(vision("a", 3))
    where.play(1)
    one.exit()
    where.take_away("vision/a")
    where.submit(vision("c", 8, policy="other"))
    where.play(1)
    assert where.waiting("vision/c").sentence.endswith(
        "; granted and not used yet: 3 gpu to scheduler one, which is gone"
    )


def test_a_dead_nodes_engines_are_not_held_against_their_tenant():
    where = Stage(agents="each", nodes=2, gpus=2)
    where.write(Put("tenant/vision", encode(Tenant("vision", quota={"gpu": 2}))))
    where.submit(vision("a", 2, together="node"))
    where.until("vision/a", Phase.RUNNING)
    (node,) = {engine.partition("/")[0] for engine in where.held("vision/a")}
    where.at[node].die()
    where.play(120, lambda: any(not e.startswith(node) for e in where.held("vision/a")))
    assert len(where.held("vision/a")) == 2
    assert any(name.startswith("~quarantine/") for name in where.view().placements)
    where.until("vision/a", Phase.RUNNING)


# --------------------------------------------------------------------------- one beside the other


def test_tenants_do_not_wait_for_each_others_grants():
    where = theatre(quota=4)
    where.write(Put("tenant/audio", encode(Tenant("audio", quota={"gpu": 4}))))
    one, two = rivals(where)
    where.submit(
        *(vision(f"s{n}") for n in range(4)),
        *(wanted(f"s{n}", gpus=1, tenant="audio", policy="other") for n in range(4)),
    )
    where.play(5)
    assert all(where.held(f"{tenant}/s{n}") for tenant in ("vision", "audio") for n in range(4))
    lost = [line for line in where.trace if line.endswith(" conflicted") and "grant" in line]
    assert lost == []
    assert one.session.id != two.session.id
