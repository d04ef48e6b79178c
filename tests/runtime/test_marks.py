"""Does a slice that needs much get it, though small ones come all the time, and is nothing idle?"""

from dataclasses import replace

import pytest

from flowos.drivers import sim
from flowos.model import keys
from flowos.model.codec import decode
from flowos.model.placement import Mark
from flowos.model.slice import Phase, Reason, Run
from flowos.planning.policy import Policy
from flowos.runtime.marks import PATIENCE_SECONDS, STARVING_SECONDS
from flowos.runtime.scheduling import Scheduling
from tests.runtime.cells import small_cell, wanted
from tests.runtime.theatre import Player, Theatre

LONGEST = 6.0  # of the small slices
BOUND = STARVING_SECONDS + LONGEST + 5.0  # 5: to look, to clean what is given back, to start


class Greedy(Policy):
    """Others may always pass, until one starves."""

    name = "batch"


class Filling(Policy):
    """Others may pass only where that makes nobody wait longer."""

    name = "batch"
    backfills = True


class Elsewhere(Policy):
    """Another policy."""

    name = "elsewhere"


def marks(theatre: Theatre) -> dict[str, Mark]:
    return {k.partition("/")[2]: decode(Mark, r.value) for k, r in theatre.records("mark/").items()}


def machine(player: Player) -> Scheduling:
    assert isinstance(player.machine, Scheduling)
    return player.machine


def busy_cell(policy: Policy, **more) -> Theatre:
    """Two GPUs on each of two nodes, and everybody at work."""
    theatre = Theatre(small_cell(fpgas=0, **more))
    theatre.scheduler(policy=policy)
    theatre.controller()
    theatre.agent()
    return theatre


def stream(theatre: Theatre, seconds: float, until, *, every: float = 1.0, policy: str = "batch"):
    """Let small slices come all the time, more than there is room for; return when it came true."""
    started = theatre.clock.now
    while theatre.clock.now < started + seconds:
        for length in (LONGEST, 4.3, 2.7):  # seldom do several end at once
            small = wanted(theatre.fresh("small"), gpus=1, run_for=length)
            theatre.submit(replace(small, policy=policy))
        if theatre.play(every, until):
            return theatre.clock.now - started
    raise AssertionError(f"not within {seconds} s")


@pytest.mark.parametrize("policy", [Greedy(), Filling()], ids=["greedy", "filling"])
def test_a_big_gang_among_a_stream_of_small_ones_starts_within_the_stated_bound(policy):
    theatre = busy_cell(policy)
    for length in (LONGEST, 4.3, 2.7, 5.1):
        theatre.submit(wanted(theatre.fresh("early"), gpus=1, run_for=length))
    theatre.play(1.0)
    theatre.submit(wanted("big", gpus=4, run_for=1.0))
    took = stream(theatre, 60.0, lambda: bool(theatre.held("default/big")))
    assert took < BOUND


def test_without_marks_the_same_gang_waits_for_as_long_as_small_ones_come():
    """What the bound is worth: the stream alone leaves no moment with four engines free."""
    theatre = busy_cell(Greedy())
    machine(theatre.players[0])._marks._starving_seconds = float("inf")
    for length in (LONGEST, 4.3, 2.7, 5.1):
        theatre.submit(wanted(theatre.fresh("early"), gpus=1, run_for=length))
    theatre.play(1.0)
    theatre.submit(wanted("big", gpus=4, run_for=1.0))
    with pytest.raises(AssertionError, match="not within"):
        stream(theatre, 2 * BOUND, lambda: bool(theatre.held("default/big")))


def test_schedulers_of_other_policies_plan_around_a_mark_too():
    theatre = busy_cell(Greedy())
    theatre.scheduler("other-0", policy=Elsewhere())
    theatre.submit(wanted("a", gpus=2, run_for=LONGEST), wanted("b", gpus=2, run_for=2 * LONGEST))
    theatre.play(1.0)
    theatre.submit(wanted("big", gpus=4, run_for=1.0))
    took = stream(
        theatre, 60.0, lambda: bool(theatre.held("default/big")), policy="elsewhere", every=2.0
    )
    assert took < BOUND + LONGEST


def test_whoever_has_surely_ended_by_then_may_use_what_is_kept():
    theatre = busy_cell(Filling())
    theatre.submit(wanted("long", gpus=3, run_for=20.0))
    theatre.play(1.0)
    theatre.submit(wanted("big", gpus=4, run_for=1.0))
    theatre.play(1.0)
    theatre.submit(wanted("longer", gpus=1, run_for=30.0), wanted("silent", gpus=1))
    theatre.play(2.0)
    for name in ("default/longer", "default/silent"):
        assert not theatre.held(name)
        waiting = theatre.waiting(name)
        assert waiting.reason is Reason.BEHIND_HIGHER_PRIORITY
        assert "kept for default/big" in waiting.sentence
    theatre.submit(wanted("shorter", gpus=1, run_for=5.0))
    theatre.play(2.0)
    assert theatre.held("default/shorter")
    assert theatre.play(22.0, lambda: bool(theatre.held("default/big")))


def test_a_policy_that_does_not_fill_lets_others_pass_until_somebody_starves():
    theatre = busy_cell(Greedy())
    theatre.submit(wanted("long", gpus=3, run_for=40.0))
    theatre.play(1.0)
    theatre.submit(wanted("big", gpus=4, run_for=1.0), wanted("first", gpus=1, run_for=3.0))
    theatre.play(2.0)
    assert theatre.held("default/first")
    assert not marks(theatre)
    theatre.play(STARVING_SECONDS)
    assert list(marks(theatre)) == ["default/big"]
    theatre.submit(wanted("late", gpus=1, run_for=60.0))
    theatre.play(2.0)
    assert not theatre.held("default/late")


def test_a_more_important_slice_takes_what_is_kept_for_another():
    theatre = busy_cell(Filling())
    theatre.submit(wanted("long", gpus=3, run_for=20.0))
    theatre.play(1.0)
    theatre.submit(wanted("big", gpus=4, run_for=1.0))
    theatre.play(1.0)
    theatre.submit(wanted("urgent", gpus=1, run_for=60.0, priority=5))
    theatre.play(1.0)
    assert theatre.held("default/urgent")


@pytest.mark.parametrize("end", ["cancelled", "held", "placed", "dead"])
def test_a_mark_goes_with_its_slice_and_with_its_scheduler(end):
    theatre = busy_cell(Filling())
    theatre.submit(wanted("long", gpus=3, run_for=20.0))
    theatre.play(1.0)
    theatre.submit(wanted("big", gpus=4, run_for=1.0))
    theatre.play(1.0)
    assert list(marks(theatre)) == ["default/big"]
    match end:
        case "cancelled":
            theatre.wish("default/big", cancelled=True)
        case "held":
            theatre.wish("default/big", held=True)
        case "placed":
            assert theatre.play(30.0, lambda: theatre.phase("default/big") is Phase.DONE)
        case "dead":
            theatre.players[0].exit()
            theatre.play(15.0)
    theatre.play(3.0)
    assert not marks(theatre)


def test_whoever_holds_until_it_is_cancelled_is_not_waited_for():
    """Else all that is free would be kept for ever for one that cannot start."""
    theatre = busy_cell(Greedy())
    theatre.submit(wanted("service", gpus=1))
    theatre.play(1.0)
    theatre.submit(wanted("big", gpus=4, run_for=1.0))
    theatre.play(2 * STARVING_SECONDS)
    assert not marks(theatre)
    theatre.submit(wanted("small", gpus=3, run_for=5.0))
    theatre.play(1.0)
    assert theatre.held("default/small")


def test_a_mark_names_its_units_its_order_and_its_time():
    theatre = busy_cell(Filling())
    theatre.submit(wanted("long", gpus=3, run_for=20.0))
    theatre.play(1.0)
    theatre.submit(wanted("big", gpus=4, run_for=1.0, priority=2))
    theatre.play(1.0)
    mark = marks(theatre)["default/big"]
    created = theatre.records(keys.slice_("default/big"))["slice/default/big"].created
    assert mark.units == tuple(f"engine/n{n}/gpu{g}" for n in (0, 1) for g in (0, 1))
    assert (mark.uid, mark.order) == (created, (-2, created))
    assert mark.eta_seconds == pytest.approx(19.0, abs=1.5)


# ------------------------------------------------------------------------ marks without a known end


@pytest.fixture
def endless(monkeypatch):
    """Commands go on until they are cancelled, and nobody is told."""
    monkeypatch.setattr(sim, "COMMAND_SECONDS", 1e6)


def unknown(theatre: Theatre, name: str, gpus: int = 1) -> None:
    """Let something run that ends by itself, and nobody knows when."""
    theatre.submit(replace(wanted(name, gpus=gpus), run=Run(command=("true",))))


@pytest.mark.usefixtures("endless")
def test_a_mark_without_a_known_end_does_not_keep_others_out_for_ever():
    """It stands for so long, then others go on for as long, and then it stands for twice as long."""
    theatre = busy_cell(Greedy())
    unknown(theatre, "silent")
    theatre.play(1.0)
    theatre.submit(wanted("big", gpus=4, run_for=1.0))
    theatre.play(STARVING_SECONDS + 2.0)
    theatre.submit(wanted("late", gpus=1, run_for=1.0))
    theatre.play(PATIENCE_SECONDS - 10.0)
    assert list(marks(theatre)) == ["default/big"]
    assert not theatre.held("default/late")
    assert theatre.play(15.0, lambda: bool(theatre.held("default/late")))
    assert not marks(theatre)
    theatre.play(PATIENCE_SECONDS - 15.0)
    assert not marks(theatre)
    assert theatre.play(20.0, lambda: bool(marks(theatre)))
    assert not theatre.play(2 * PATIENCE_SECONDS - 10.0, lambda: not marks(theatre))
    assert theatre.play(15.0, lambda: not marks(theatre))


@pytest.mark.usefixtures("endless")
def test_a_mark_stands_as_long_as_what_it_waits_for_comes():
    theatre = busy_cell(Greedy())
    for number in range(4):
        unknown(theatre, f"silent{number}")
    theatre.play(1.0)
    theatre.submit(wanted("big", gpus=4, run_for=30.0))
    theatre.play(STARVING_SECONDS + 2.0)
    theatre.submit(*(wanted(theatre.fresh("late"), gpus=1) for _ in range(4)))
    for number in range(4):
        theatre.play(PATIENCE_SECONDS - 20.0)
        assert list(marks(theatre)) == ["default/big"]
        theatre.wish(f"default/silent{number}", cancelled=True)
        theatre.play(2.0)
    assert theatre.held("default/big")
