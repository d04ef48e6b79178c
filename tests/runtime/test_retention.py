"""How far may a verifier hold compaction back, and what becomes of one that does not come back?"""

import logging
from dataclasses import replace

import pytest

from flowos.model import keys
from flowos.model.codec import encode
from flowos.model.errors import StoreFull
from flowos.model.transaction import Change, Committed, Delete, Put
from flowos.model.view import CellView
from flowos.protocol.proposal import Fence
from flowos.runtime.machine import Compact, Refused
from flowos.runtime.retention import Keeping, Retention
from tests.runtime.cells import wanted
from tests.runtime.stage import GRACE, Stage, machine

KEEPING = Keeping(keep_revisions=100, keep_seconds=10.0, compact_seconds=1.0)
FENCE = Fence("session/controller/c", 1)


class History:
    """A view that moves on, and what is decided about its history."""

    def __init__(self, keeping=KEEPING):
        self.view = CellView()
        self.retention = Retention(self.view, keeping)
        self.now = 0.0

    def checkpoint(self, name, revision):
        value = None if revision is None else encode(revision)
        self.view.apply(Change(keys.checkpoint(name), value, 1, self.view.revision + 1))

    def go(self, seconds, revision):
        """Let time pass, a second at a time, and return the last compaction."""
        found = []
        for _ in range(int(seconds)):
            self.now += 1.0
            self.view.progressed(revision)
            found = self.retention.compaction(self.now)
        return found

    def abandoned(self):
        return self.retention.abandoned(self.now, FENCE)


@pytest.fixture
def history():
    return History()


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.WARNING, logger="flowos")
    return lambda: [record.getMessage() for record in caplog.records]


def test_a_checkpoint_within_the_limits_holds_compaction_back(history, said):
    history.checkpoint("follow", 40)
    assert history.go(20, 1000) == [Compact(40)]
    history.checkpoint("follow", 800)
    assert history.go(1, 1000) == [Compact(800)]
    history.checkpoint("follow", 990)
    assert history.go(1, 1000) == [Compact(900)]
    assert said() == []


def test_a_verifier_that_holds_back_too_much_is_passed_over_and_that_is_said_once(history, said):
    history.checkpoint("follow", 40)
    assert history.go(20, 1140) == [Compact(40)]
    assert history.go(20, 1141) == [Compact(1041)]
    assert history.go(20, 2000) == [Compact(1900)]
    (sentence,) = said()
    assert "verifier follow is passed over" in sentence
    assert "holds back 1001 revisions more" in sentence
    assert history.abandoned() == []


def test_a_verifier_that_came_back_is_waited_for_again_and_may_be_passed_over_again(history, said):
    history.checkpoint("follow", 40)
    history.go(20, 2000)
    history.checkpoint("follow", 1950)
    assert history.go(20, 2100) == [Compact(1950)]
    history.go(20, 9000)
    assert len(said()) == 2


def test_a_checkpoint_that_has_not_moved_for_long_is_passed_over_and_removed(history, said):
    history.checkpoint("follow", 40)
    history.checkpoint("other", 50)
    assert history.go(3000, 500) == [Compact(40)]
    history.checkpoint("other", 60)
    assert history.abandoned() == []
    assert history.go(610, 501) == [Compact(60)]
    assert len(history.abandoned()) == len(history.abandoned()) == 1  # until it is gone
    (step,) = history.abandoned()
    assert step.transaction.operations == (Delete("verify/follow"),)
    assert FENCE.compare in step.transaction.compares
    assert step.identifier == "~verify/follow"  # a slice may be called verify/follow
    assert [("passed over" in s, "is removed" in s) for s in said()] == [
        (True, False),
        (False, True),
    ]
    history.checkpoint("follow", None)
    assert history.abandoned() == []


def test_one_that_moves_now_and_then_is_waited_for_for_ever(history):
    for revision in range(40, 90):
        history.checkpoint("follow", revision)
        assert history.go(1000, 500) == [Compact(revision)]
        assert history.abandoned() == []


def test_a_full_store_waits_for_no_verifier(history, said):
    history.checkpoint("follow", 40)
    assert history.go(20, 1000) == [Compact(40)]
    history.retention.answered(Refused(StoreFull("no space")))
    assert history.go(1, 1000) == [Compact(900)]
    (sentence,) = said()
    assert "the store is full" in sentence
    history.retention.answered(Committed(1001))
    assert history.go(1, 1000) == [Compact(40)]


# ----------------------------------------------------------------------------- in a whole cell

SHORT = replace(
    GRACE, keep_revisions=20, keep_seconds=30.0, compact_seconds=5.0, checkpoint_seconds=200.0
)


def lived(stage, *lives):
    for number in range(*lives):
        stage.submit(wanted(f"s{number}", gpus=1, run_for=1.0))
        stage.play(10)


def test_the_controller_removes_what_a_verifier_left_behind():
    stage = Stage(rules=SHORT)
    stage.write(Put("verify/follow", encode(40)), Put("verify/other", encode(40)))
    lived(stage, 10)
    assert stage.store.oldest() == 40
    stage.write(Put("verify/other", encode(41)))
    lived(stage, 10, 22)
    assert sorted(stage.records("verify/")) == ["verify/other"]
    assert stage.store.oldest() == 41


def test_the_controller_removes_no_checkpoint_that_moves_just_then():
    stage = Stage(rules=SHORT)
    stage.write(Put("verify/follow", encode(40)))
    stage.play(10)
    leading = machine(stage.leader)
    (step,) = leading._history.abandoned(10_000.0, leading._fence())
    stage.write(Put("verify/follow", encode(41)))
    (outcome,) = stage.store.commit([step.transaction])
    assert not isinstance(outcome, Committed)


def test_a_slice_of_a_tenant_called_verify_is_not_mixed_up_with_a_checkpoint():
    stage = Stage(rules=SHORT)
    stage.write(Put("verify/follow", encode(40)))
    stage.submit(replace(wanted("follow", gpus=1), tenant="verify"))
    stage.play(250)
    assert stage.records("verify/") == {}
    assert "placement/verify/follow" in stage.records("placement/")
