"""What is lost again and again although it looks free: is it left alone, and does it show?"""

import pytest

from flowos.model.codec import encode
from flowos.model.slice import Reason
from flowos.model.transaction import Conflicted, Delete, Put, Quiet, Seen, Transaction, Versioned
from flowos.model.view import CellView
from flowos.runtime.rejections import AVOID_SECONDS, Rejections
from flowos.runtime.scheduling import Scheduling
from tests.runtime.cells import small_cell, wanted
from tests.runtime.theatre import Player, Theatre

POISON = "claim/engine/n0/gpu0"


def machine(player: Player) -> Scheduling:
    assert isinstance(player.machine, Scheduling)
    return player.machine


def poisoned(**more) -> Theatre:
    """A cell with a claim that no placement lists."""
    theatre = Theatre(small_cell(fpgas=0, **more))
    theatre.forgiven |= {"claims", "freed"}
    theatre.write(Put(POISON, encode(("default/nobody", "a0", ()))))
    theatre.scheduler(alone=True)
    return theatre


def conflicts(theatre: Theatre) -> int:
    return machine(theatre.players[0]).figures.conflicts


def test_a_poisoned_unit_never_spins_and_is_tried_ever_more_seldom():
    theatre = poisoned(nodes=1, gpus=1)
    theatre.submit(wanted("x", gpus=1))
    theatre.play(10.0)
    early = conflicts(theatre)
    theatre.play(590.0)
    assert 2 <= early <= 8
    assert conflicts(theatre) - early <= 10
    assert theatre.moves < 1000


def test_the_slice_says_what_is_left_alone():
    theatre = poisoned(nodes=1, gpus=1)
    theatre.submit(wanted("x", gpus=1))
    theatre.play(20.0)
    waiting = theatre.waiting("default/x")
    assert waiting.reason is Reason.WAITING_FOR_ENGINES
    assert "engine/n0/gpu0 is left alone for a while" in waiting.sentence


def test_a_unit_that_was_poisoned_serves_again_once_it_is_free():
    theatre = poisoned(nodes=1, gpus=1)
    theatre.submit(wanted("x", gpus=1))
    theatre.play(60.0)
    theatre.write(Delete(POISON))
    assert theatre.play(AVOID_SECONDS[1], lambda: theatre.held("default/x") != [])
    assert not machine(theatre.players[0])._rejections.avoided(theatre.clock.now)


def test_other_slices_plan_around_what_one_has_lost():
    theatre = poisoned()
    theatre.submit(wanted("first", gpus=1))
    theatre.play(0.2)
    lost = conflicts(theatre)
    assert lost == 1
    theatre.submit(*(wanted(f"s{n}", gpus=1) for n in range(2)))
    theatre.settle()
    assert conflicts(theatre) == lost
    assert sorted(e for n in ("first", "s0", "s1") for e in theatre.held(f"default/{n}")) == [
        "n0/gpu1", "n1/gpu0", "n1/gpu1",
    ]  # fmt: skip


def test_what_was_lost_shows_in_the_figures():
    theatre = poisoned()
    theatre.submit(wanted("x", gpus=1))
    theatre.play(0.1)
    rejections = machine(theatre.players[0])._rejections
    assert rejections.causes == {"engine taken": 1}
    assert rejections.kinds == {"engine": 1}
    (worst,) = rejections.most(theatre.clock.now, 3)
    assert (worst.unit, worst.count) == ("engine/n0/gpu0", 1)
    assert worst.avoided_seconds > 0


# ------------------------------------------------------------------------------------------- alone


def conflict(*keys: str, revision: int = 9) -> tuple[Transaction, Conflicted]:
    """A commit that wanted these keys to be absent, and found them."""
    compares = tuple(Seen(key, 0) for key in keys)
    found = {key: Versioned(key, b"", 3, 3) for key in keys}
    return Transaction(compares, ()), Conflicted(revision, found)


def view_at(revision: int) -> CellView:
    view = CellView()
    view.progressed(revision)
    return view


def test_a_unit_is_in_doubt_only_once_the_view_is_as_new_as_the_conflict():
    view = view_at(8)
    rejections = Rejections(view)
    assert rejections.lost(*conflict(POISON)) == {"engine/n0/gpu0"}
    assert not rejections.avoided(0.0)
    view.progressed(9)
    assert rejections.avoided(0.0) == {"engine/n0/gpu0"}


def test_a_race_whose_winner_the_view_shows_leaves_nothing_alone():
    view = view_at(9)
    view.holders["engine/n0/gpu0"] = ("default/rival",)
    rejections = Rejections(view)
    rejections.lost(*conflict(POISON))
    assert not rejections.avoided(0.0)


def test_each_time_it_is_avoided_for_twice_as_long_up_to_a_limit():
    rejections, now, pauses = Rejections(view_at(9)), 0.0, []
    for _ in range(14):
        rejections.lost(*conflict(POISON))
        assert rejections.avoided(now)
        pauses.append(rejections.next_at() - now)
        now = rejections.next_at()
        assert not rejections.avoided(now)
    first, longest = AVOID_SECONDS
    assert pauses[:4] == pytest.approx([first, 2 * first, 4 * first, 8 * first])
    assert pauses[-1] == longest


def test_what_is_won_after_all_is_avoided_no_longer():
    rejections = Rejections(view_at(9))
    rejections.lost(*conflict(POISON))
    assert rejections.avoided(0.0)
    rejections.won(["engine/n0/gpu0"])
    assert not rejections.avoided(0.1)


def test_parts_of_hosts_are_counted_but_never_avoided():
    rejections = Rejections(view_at(9))
    key = "claim/host/n3/a7"
    transaction = Transaction((Quiet("claim/host/n3/", 2),), ())
    answer = Conflicted(9, {}, {"claim/host/n3/": (Versioned(key, b"", 5, 5),)})
    assert not rejections.lost(transaction, answer)
    assert rejections.causes == {"host taken": 1}
    assert rejections.units == {"host/n3": 1}
    assert not rejections.avoided(0.0)


def test_a_conflict_that_says_nothing_is_counted_as_that():
    rejections = Rejections(view_at(9))
    assert not rejections.lost(Transaction((Seen("session/s", 4),), ()), Conflicted(9))
    assert rejections.causes == {"no answer came": 1}
