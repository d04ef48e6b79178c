"""Does a slice that lacks quota, or watts, get it in the end though small ones spend it all the time?"""

from dataclasses import replace

import pytest

from flowos.model.cell import Tenant
from flowos.model.codec import encode
from flowos.model.slice import Reason
from flowos.model.transaction import Put
from flowos.planning.policy import Policy
from flowos.runtime.marks import STARVING_SECONDS
from tests.runtime.cells import small_cell, wanted
from tests.runtime.test_marks import Elsewhere, Filling, Greedy, marks
from tests.runtime.theatre import Theatre

LONGEST = 6.0  # of the small slices
BOUND = STARVING_SECONDS + LONGEST + 5.0  # 5: to look, to clean, to hand grants on, to start
PURSE = "tenant:vision:gpu"
WATTS = "domain:room"


def cell(*policies: Policy, quota: int | None = 4, budget: int | None = None) -> Theatre:
    """Eight GPUs on two nodes, and everybody at work."""
    theatre = Theatre(small_cell(gpus=4, fpgas=0, budget=budget))
    quotas = {} if quota is None else {"gpu": quota}
    theatre.write(Put("tenant/vision", encode(Tenant("vision", quota=quotas))))
    for number, policy in enumerate(policies):
        theatre.scheduler(f"{policy.name}-{number}", policy=policy)
    theatre.controller()
    theatre.agent()
    return theatre


def stream(
    theatre: Theatre, seconds: float, *policies: str, tenant: str = "vision", big: str = "big"
) -> float:
    """Let more small slices come than may run at once; return when the big one was placed."""
    started = theatre.clock.now
    while theatre.clock.now < started + seconds:
        for number, length in enumerate((LONGEST, 4.3, 2.7)):  # seldom do several end at once
            small = wanted(theatre.fresh("small"), gpus=1, run_for=length, tenant=tenant)
            theatre.submit(replace(small, policy=policies[number % len(policies)]))
        if theatre.play(1.0, lambda: bool(theatre.held(f"vision/{big}"))):
            return theatre.clock.now - started
    raise AssertionError(f"not within {seconds} s")


def begun(theatre: Theatre, *, tenant: str = "vision", gpus: int = 4) -> Theatre:
    """Some small slices that run, and the big one that comes after them."""
    for length in (LONGEST, 4.3, 2.7, 5.1):
        theatre.submit(wanted(theatre.fresh("early"), gpus=1, run_for=length, tenant=tenant))
    theatre.play(1.0)
    theatre.submit(wanted("big", gpus=gpus, run_for=1.0, tenant="vision"))
    return theatre


@pytest.mark.parametrize("policy", [Greedy(), Filling()], ids=["greedy", "filling"])
def test_a_gang_that_needs_all_of_its_quota_starts_within_the_bound(policy):
    theatre = begun(cell(policy))
    assert stream(theatre, 60.0, "batch") < BOUND


def test_of_several_schedulers_of_one_queue_all_leave_it_the_quota():
    theatre = begun(cell(Greedy(), Greedy(), Greedy()))
    assert stream(theatre, 60.0, "batch") < BOUND


def test_schedulers_of_other_policies_leave_it_the_quota():
    theatre = begun(cell(Greedy(), Elsewhere()))
    assert stream(theatre, 60.0, "elsewhere", "batch") < BOUND


def test_a_gang_that_lacks_watts_starts_though_small_ones_of_others_spend_them():
    theatre = begun(cell(Greedy(), Elsewhere(), quota=None, budget=400), tenant="default")
    assert stream(theatre, 60.0, "elsewhere", "batch", tenant="default") < BOUND


def test_a_more_important_slice_of_the_tenant_spends_what_is_kept():
    theatre = cell(Greedy())
    theatre.submit(wanted("long", gpus=3, run_for=60.0, tenant="vision"))
    theatre.play(1.0)
    theatre.submit(wanted("big", gpus=4, run_for=1.0, tenant="vision"))
    theatre.play(STARVING_SECONDS + 2.0)
    theatre.submit(
        wanted("urgent", gpus=1, run_for=90.0, tenant="vision", priority=5),
        wanted("late", gpus=1, run_for=90.0, tenant="vision"),
    )
    theatre.play(3.0)
    assert theatre.held("vision/urgent")
    assert not theatre.held("vision/late")


def saving(theatre: Theatre, length: float = 30.0) -> Theatre:
    """Three of four are spent for long, and the big one waits for the fourth."""
    theatre.submit(wanted("long", gpus=3, run_for=length, tenant="vision"))
    theatre.play(1.0)
    theatre.submit(wanted("big", gpus=4, run_for=1.0, tenant="vision"))
    theatre.play(STARVING_SECONDS + 2.0)
    return theatre


def test_the_mark_says_how_much_of_what_and_keeps_no_unit():
    theatre = saving(cell(Greedy()))
    mark = marks(theatre)["vision/big"]
    assert dict(mark.purses) == {PURSE: 4000}
    assert mark.units == ()
    assert mark.eta_seconds == pytest.approx(30.0 - STARVING_SECONDS, abs=2.5)


def test_who_comes_later_says_for_whom_what_is_left_is_kept():
    theatre = saving(cell(Greedy()))
    theatre.submit(wanted("late", gpus=1, run_for=60.0, tenant="vision"))
    theatre.play(2.0)
    waiting = theatre.waiting("vision/late")
    assert waiting.reason is Reason.BEHIND_HIGHER_PRIORITY
    assert waiting.sentence == (
        "what is left of the quota of gpu is kept for vision/big, which comes first and has waited long"
    )


def test_who_has_surely_ended_by_then_may_spend_it():
    theatre = saving(cell(Greedy()))
    theatre.submit(wanted("short", gpus=1, run_for=5.0, tenant="vision"))
    theatre.play(2.0)
    assert theatre.held("vision/short")
    assert theatre.play(25.0, lambda: bool(theatre.held("vision/big")))


def test_other_tenants_do_not_notice():
    theatre = saving(cell(Greedy(), Elsewhere()))
    theatre.submit(wanted("mine", gpus=5, run_for=60.0))
    theatre.play(1.0)
    assert theatre.held("default/mine")


def test_a_tenant_at_its_quota_is_not_in_the_way_of_another_ones_gang():
    """One mark for each that is lacking: the quota's queue does not use up what a gang needs for units."""
    theatre = saving(cell(Greedy()), length=200.0)
    for length in (5.0, 4.0, 3.0, 2.0, 4.5):
        theatre.submit(wanted(theatre.fresh("early"), gpus=1, run_for=length))
    theatre.play(1.0)
    theatre.submit(wanted("gang", gpus=5, run_for=1.0))
    started = theatre.clock.now
    while not theatre.held("default/gang"):
        assert theatre.clock.now < started + BOUND
        for length in (LONGEST, 4.3, 2.7):
            theatre.submit(wanted(theatre.fresh("small"), gpus=1, run_for=length))
        theatre.play(1.0, lambda: bool(theatre.held("default/gang")))


def test_nothing_is_kept_where_no_end_of_others_is_enough():
    theatre = cell(Greedy())
    theatre.submit(wanted("service", gpus=1, tenant="vision"))
    theatre.play(1.0)
    theatre.submit(wanted("big", gpus=4, run_for=1.0, tenant="vision"))
    theatre.play(2 * STARVING_SECONDS)
    assert not marks(theatre)
    theatre.submit(wanted("small", gpus=3, run_for=5.0, tenant="vision"))
    theatre.play(1.0)
    assert theatre.held("vision/small")


def test_what_runs_does_not_grow_into_what_is_kept():
    theatre = cell(Greedy())
    theatre.submit(wanted("grows", gpus=1, run_for=60.0, tenant="vision"))
    theatre.play(1.0)
    saving(theatre)
    grows = theatre.slice("vision/grows").spec
    role = grows.engines["workers"]
    more = replace(role, choices=(replace(role.choices[0], count=2),))
    theatre.wish("vision/grows", spec=replace(grows, engines={"workers": more}))
    theatre.play(25.0)
    assert len(theatre.held("vision/grows")) == 1


def test_a_gang_that_lacks_both_waits_for_its_quota_and_then_for_units():
    theatre = cell(Greedy(), Elsewhere())
    for number in range(4):
        theatre.submit(wanted(f"v{number}", gpus=1, run_for=3.0 + number, tenant="vision"))
        theatre.submit(wanted(f"d{number}", gpus=1, run_for=2.5 + number))
    theatre.play(1.0)
    theatre.submit(wanted("big", gpus=4, run_for=1.0, tenant="vision"))
    started = theatre.clock.now
    while not theatre.held("vision/big"):
        assert theatre.clock.now < started + BOUND + LONGEST + 5.0
        for tenant in ("vision", "default"):
            for length in (LONGEST, 4.3, 2.7, 5.2):
                small = wanted(theatre.fresh("s"), gpus=1, run_for=length, tenant=tenant)
                theatre.submit(
                    replace(small, policy="elsewhere" if tenant == "default" else "batch")
                )
        theatre.play(1.0, lambda: bool(theatre.held("vision/big")))


def test_before_it_starves_no_units_are_kept_for_what_lacks_only_quota():
    # Two schedulers of one tenant: what one has been granted and does not use yet, the other lacks
    # for a moment. There is room for twice as much.
    theatre = cell(Filling(), Elsewhere())
    for number in range(40):
        small = wanted(f"small{number}", gpus=1, run_for=0.5 + number % 3, tenant="vision")
        theatre.submit(replace(small, policy=("batch", "elsewhere")[number % 2]))
    kept: set[str] = set()
    while theatre.clock.now < STARVING_SECONDS - 1:
        theatre.play(0.1)
        kept |= marks(theatre).keys()
    assert theatre.waiting("vision/small39").reason is Reason.QUOTA_EXCEEDED
    assert kept == set()
