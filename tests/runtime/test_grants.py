"""What may be spent, and by whom: grants of watts, shared, raised and given back."""

from dataclasses import replace

import pytest

from flowos.model.cell import Domain
from flowos.model.codec import encode
from flowos.model.placement import Ending
from flowos.model.slice import Phase, Reason
from flowos.model.transaction import Put
from flowos.protocol.release import release
from flowos.runtime.purses import ASKED_GRANT_SECONDS
from flowos_schedulers.batch import Batch
from tests.runtime.cells import PURSE, small_cell, wanted
from tests.runtime.stage import Stage
from tests.runtime.theatre import Moods, Theatre


class Other(Batch):
    """Another queue, so that a test says which scheduler plans what."""

    name = "other"


def granted(theatre: Theatre) -> int:
    return sum(theatre.grants().values())


def test_a_slice_beyond_the_budget_waits_for_power():
    theatre = Theatre(small_cell(budget=250))
    theatre.scheduler()
    theatre.submit(wanted("a", gpus=2), wanted("b", gpus=1))
    theatre.settle()
    assert theatre.held("default/a")
    waiting = theatre.waiting("default/b")
    assert waiting.reason is Reason.WAITING_FOR_POWER
    assert waiting.sentence == ("needs 100 W in domain room; of 250 W above idle 50 W can be had")
    theatre.take_away("default/a")
    theatre.play(3)
    assert theatre.held("default/b")


def test_grants_are_raised_in_parts_and_the_unused_rest_is_given_back():
    theatre = Theatre(small_cell(nodes=4, gpus=4, budget=1600))
    player = theatre.scheduler()
    theatre.submit(wanted("a", gpus=1))
    theatre.settle()
    assert theatre.grants() == {f"grant/{PURSE}/{player.session.id}": 200}  # an eighth
    theatre.play(3)
    assert granted(theatre) == 100
    theatre.take_away("default/a")
    theatre.play(3)
    assert theatre.grants() == {}


def test_two_schedulers_share_a_budget_to_its_last_watt():
    theatre = Theatre(small_cell(nodes=4, gpus=4, budget=1000))
    for number in range(2):
        theatre.scheduler(f"batch-{number}")
    theatre.submit(*(wanted(f"s{n}", gpus=1) for n in range(12)))
    theatre.play(10)
    placed = [n for n in range(12) if theatre.held(f"default/s{n}")]
    assert len(placed) == 10
    assert granted(theatre) == 1000
    left = [f"default/s{n}" for n in range(12) if n not in placed]
    reasons = [theatre.waiting(name).reason for name in left]
    assert reasons == [Reason.WAITING_FOR_POWER] * 2
    theatre.take_away(*(f"default/s{n}" for n in placed[:5]))
    theatre.play(10)
    assert all(theatre.held(f"default/s{n}") for n in range(12) if n not in placed)


def test_watts_that_one_scheduler_does_not_use_reach_the_other():
    theatre = Theatre(small_cell(budget=200))
    one = theatre.scheduler("one", alone=True)
    theatre.submit(wanted("a", gpus=2))
    theatre.play(3)
    two = theatre.scheduler("two", alone=True)
    theatre.submit(wanted("b", gpus=2))
    theatre.play(3)
    theatre.take_away("default/a")
    one.acts = True
    theatre.play(5)
    placement = theatre.placement("default/b")
    assert placement is not None
    assert placement.scheduler in (one.session.id, two.session.id)
    assert granted(theatre) <= 200


def test_who_waits_for_watts_is_told_who_has_been_granted_them_and_does_not_use_them():
    theatre = Theatre(small_cell(budget=400))
    one = theatre.scheduler("one", alone=True)
    theatre.scheduler("two", policy=Other(), alone=True)
    theatre.submit(wanted("a", gpus=3))
    theatre.play(3)
    one.acts = False
    theatre.take_away("default/a")
    theatre.submit(wanted("b", gpus=2, policy="other"))
    theatre.play(1)
    assert theatre.waiting("default/b").sentence == (
        "needs 200 W in domain room; of 400 W above idle 100 W can be had; "
        "granted and not used yet: 300 W to scheduler one"
    )
    one.acts = True
    assert theatre.play(ASKED_GRANT_SECONDS + 0.1, lambda: bool(theatre.held("default/b")))


def test_a_lowered_budget_only_keeps_from_raising():
    theatre = Theatre(small_cell(budget=400))
    theatre.scheduler()
    theatre.submit(wanted("a", gpus=3))
    theatre.play(3)
    theatre.write(Put("domain/room", encode(Domain("room", budget_watts=60 + 200))))
    theatre.submit(wanted("b", gpus=1))
    theatre.play(3)
    assert theatre.held("default/a")
    assert not theatre.held("default/b")
    assert granted(theatre) == 300
    theatre.write(Put("domain/room", encode(Domain("room", budget_watts=60 + 400))))
    theatre.play(3)
    assert theatre.held("default/b")


def test_engines_without_a_limit_need_no_grant():
    theatre = Theatre(small_cell())
    theatre.scheduler()
    theatre.submit(wanted("a", gpus=4))
    theatre.settle()
    assert theatre.held("default/a")
    assert theatre.grants() == {}


def test_a_refused_raise_of_a_grant_is_asked_for_again_without_a_frenzy():
    theatre = Theatre(small_cell(budget=400))
    theatre.scheduler()
    moods = Moods(theatre, lambda ts: any("grant/" in op.key for t in ts for op in t.operations))
    theatre.submit(wanted("x", gpus=1))
    theatre.play(5)
    assert 2 < len(moods.sizes) < 20
    moods.refuse = lambda _: False
    theatre.play(2)
    assert theatre.held("default/x")


@pytest.mark.parametrize(("rack", "room"), [(150, 1000), (1000, 150)])
def test_what_draws_from_two_domains_stays_within_both(rack, room):
    cell = small_cell(nodes=2, budget=room)
    cell.add(Domain("rack", budget_watts=rack + 30, parent="room"))
    cell.add(replace(cell.nodes["n0"], domain="rack"))
    cell.add(replace(cell.nodes["n1"], domain="rack"))
    cell.add(Domain("rack", budget_watts=rack + 60, parent="room"))
    theatre = Theatre(cell)
    for number in range(2):
        theatre.scheduler(f"batch-{number}")
    theatre.submit(*(wanted(f"s{n}", gpus=1) for n in range(3)))
    theatre.play(10)
    placed = [n for n in range(3) if theatre.held(f"default/s{n}")]
    assert len(placed) == 1
    narrow = "rack" if rack < room else "room"
    reasons = [theatre.waiting(f"default/s{n}") for n in range(3) if n not in placed]
    assert {waiting.reason for waiting in reasons} == {Reason.WAITING_FOR_POWER}
    assert all(f"in domain {narrow};" in waiting.sentence for waiting in reasons)
    theatre.take_away(f"default/s{placed[0]}")
    theatre.play(10)
    assert len([n for n in range(3) if theatre.placement(f"default/s{n}")]) == 1


def test_who_gave_way_is_not_said_to_lack_what_it_lacked_before_it_ran():
    stage = Stage(gpus=4, fpgas=0, budget=400)
    stage.submit(wanted("first", gpus=4, run_for=2.0))
    stage.until("default/first", Phase.RUNNING)
    stage.submit(replace(wanted("low", gpus=4, run_for=60.0), preemptible=True))
    stage.play(0.5)
    assert stage.waiting("default/low").reason is Reason.WAITING_FOR_POWER
    stage.until("default/low", Phase.RUNNING)
    stage.batch.acts = False  # as one that is slow to say anew why a slice waits
    stage.do(
        lambda view: release(
            view, "default/low", Ending(Phase.PENDING), fence=stage.leader.session.fence
        )
    )
    assert stage.play(10.0, lambda: stage.placement("default/low") is None)
    assert stage.phase("default/low") is Phase.PENDING
    assert not stage.waits("default/low")
