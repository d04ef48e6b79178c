"""What does a process do about each answer of its store? Its logic alone: events in, instructions out."""

import random
from collections.abc import Sequence
from math import inf

import pytest

from flowos.model.errors import (
    Forbidden,
    LoginRefused,
    OutcomeUnknown,
    SessionLost,
    StoreFull,
    StoreRefused,
    StoreUnreachable,
    TransactionTooLarge,
)
from flowos.model.transaction import (
    Change,
    Changes,
    Committed,
    Conflicted,
    Lost,
    Progress,
    Put,
    Reading,
    Transaction,
)
from flowos.model.view import CellView
from flowos.protocol.proposal import Proposal
from flowos.runtime import mirror
from flowos.runtime.machine import Answer, Commit, Compact, Refused
from flowos.runtime.mirror import (
    LAG_SECONDS,
    Answered,
    AskProgress,
    CloseWatch,
    Fenced,
    Heard,
    List,
    Listed,
    Mirror,
    NotListed,
    OpenWatch,
    PutFence,
    Send,
    SessionOver,
    Unanswered,
    Unfenced,
)
from flowos.runtime.trouble import Trouble

SESSION = "session/scheduler/me"


class Puppet:
    """A machine that wants what the test says."""

    def __init__(self) -> None:
        self.view = CellView()
        self.wants: list[Commit | Compact] = []
        self.told: list[tuple[Commit, Sequence[Answer]]] = []
        self.seen: list[str] = []
        self.steps = 0
        self.wakes_at = inf
        self.needed = 2**62  # whatever comes

    def changed(self, change) -> None:
        self.seen.append(change.name)

    def relisted(self) -> None:
        self.seen.append("relisted")

    def answered(self, commit, answers, now) -> None:
        self.told.append((commit, answers))

    def step(self, now):
        self.steps += 1
        wants, self.wants = self.wants, []
        return wants

    def needs(self) -> int:
        return self.needed

    def wake_at(self) -> float:
        return self.wakes_at


class Following:
    """A mirror, and its clock."""

    def __init__(self, *, in_step: bool = True, **more) -> None:
        self.machine = Puppet()
        self.said: list[str] = []
        self.now = 100.0
        options = {"session_key": SESSION, "in_flight_max": 2, **more}
        self.mirror = Mirror(
            self.machine, dice=random.Random(1), trouble=Trouble(self.said.append), **options
        )
        if in_step:
            assert self.act() == [List(1)]
            assert self.hear(Listed(1, Reading(10, []))) == [OpenWatch(1, 10)]

    def act(self) -> list[mirror.Instruction]:
        return self.mirror.act(self.now)

    def hear(self, *events: mirror.Event, after: float = 0.0) -> list[mirror.Instruction]:
        self.now += after
        for event in events:
            self.mirror.take(event, self.now)
        return self.act()

    def later(self, seconds: float) -> list[mirror.Instruction]:
        return self.hear(after=seconds)

    def wait(self) -> list[mirror.Instruction]:
        """Go on when it wants to be woken."""
        at = self.mirror.wake_at()
        assert at > self.now, "it would spin"
        self.now = at
        return self.act()

    def sends(self, *commits: Commit | Compact) -> list[mirror.Instruction]:
        self.machine.wants += commits
        self.machine.wakes_at = -inf
        todo = self.act()
        self.machine.wakes_at = inf
        return todo


def commit(name: str = "t", step: str = "commit") -> Commit:
    return Commit((Proposal(step, name, Transaction((), (Put(f"x/{name}", b"1"),))),))


def change(name: str, revision: int) -> Changes:
    return Changes([Change(f"verify/{name}", b"1", revision, revision)])


# --------------------------------------------------------------------------------------- in step


def test_it_begins_with_a_listing_and_acts_on_what_was_listed():
    following = Following(in_step=False)
    assert following.act() == [List(1)]
    assert following.machine.steps == 0
    assert following.hear(Listed(1, Reading(10, []))) == [OpenWatch(1, 10)]
    assert following.machine.view.revision == 10
    assert (following.machine.seen, following.machine.steps) == (["relisted"], 1)


def test_a_listing_that_fails_is_tried_again_after_pauses_that_grow_to_seconds():
    following = Following(in_step=False)
    following.act()
    pauses = []
    for generation in range(1, 12):
        assert following.hear(NotListed(generation, StoreUnreachable("away"))) == []
        before = following.now
        assert following.wait() == [List(generation + 1)]
        pauses.append(following.now - before)
    assert pauses[0] < 0.1
    assert 2.5 <= pauses[-1] <= 5.0
    assert len(following.said) == 1


@pytest.mark.parametrize("error", [Forbidden("no"), LoginRefused("who"), StoreRefused("no")])
def test_a_listing_that_is_refused_ends_no_process(error):
    following = Following(in_step=False)
    following.act()
    assert following.hear(NotListed(1, error)) == []
    assert following.wait() == [List(2)]
    assert following.hear(Listed(2, Reading(10, []))) == [OpenWatch(2, 10)]


def test_events_reach_the_machine_and_only_progress_makes_the_view_complete():
    following = Following()
    assert following.hear(Heard(1, change("a", 11))) == [AskProgress()]
    assert following.machine.seen[-1] == "a"
    assert following.machine.view.revision == 10
    assert following.machine.steps == 2
    following.hear(Heard(1, Progress(11)))
    assert following.machine.view.revision == 11


def test_a_view_that_nobody_waits_for_is_asked_about_a_moment_later():
    following = Following()
    following.machine.needed = 0
    assert following.hear(Heard(1, change("a", 11))) == []
    assert following.hear(Heard(1, change("b", 12)), after=0.05) == []
    assert following.wait() == [AskProgress()]
    assert following.now == pytest.approx(100.0 + LAG_SECONDS)
    assert following.hear(Heard(1, change("c", 13)), after=0.01) == []
    assert following.hear(Heard(1, Progress(12)), after=0.01) == []
    assert following.wait() == [AskProgress()]
    following.hear(Heard(1, Progress(13)))
    assert following.mirror.wake_at() > following.now + 1.0


def test_a_machine_that_waits_is_asked_for_at_once():
    following = Following()
    following.machine.needed = 0
    assert following.hear(Heard(1, change("a", 11))) == []
    following.machine.needed = 11
    assert following.later(0.001) == [AskProgress()]


def test_a_fence_is_asked_for_whatever_the_machine_waits_for():
    following = Following()
    following.machine.needed = 0
    one = commit()
    assert following.sends(one) == [Send(one)]
    assert following.hear(Unanswered(one, OutcomeUnknown("no answer"))) == [PutFence()]
    assert following.hear(Fenced(12)) == [AskProgress()]


def test_a_lost_watch_is_closed_and_everything_is_listed_again():
    following = Following()
    assert following.hear(Heard(1, Lost("compacted"))) == [CloseWatch(), List(2)]
    steps = following.machine.steps
    assert following.later(30) == []
    assert following.machine.steps == steps  # what it knows is nobody's word
    assert following.hear(Listed(2, Reading(50, []))) == [OpenWatch(2, 50)]
    assert following.machine.view.revision == 50


def test_what_an_older_watch_or_listing_says_is_not_heard():
    following = Following()
    following.hear(Heard(1, Lost("compacted")))
    following.hear(Heard(1, change("old", 11)), Listed(1, Reading(20, [])))
    following.hear(Listed(2, Reading(50, [])), Heard(1, Progress(5000)), Heard(1, Lost("again")))
    assert following.machine.view.revision == 50
    assert "old" not in following.machine.seen
    assert following.act() == []


def test_a_quiet_watch_is_asked_now_and_then_and_nobody_spins():
    following = Following()
    assert [following.wait() for _ in range(5)] == [[AskProgress()]] * 5
    assert following.now == 110.0


def test_a_progress_answer_that_falls_short_is_asked_for_again():
    following = Following()
    assert following.hear(Heard(1, change("a", 11)), Heard(1, change("b", 12))) == [AskProgress()]
    assert following.hear(Heard(1, Progress(11))) == [AskProgress()]
    assert following.hear(Heard(1, Progress(12))) == []


def test_answers_that_come_while_it_is_listing_are_told_on_the_new_view():
    following = Following()
    mine = commit()
    assert following.sends(mine) == [Send(mine)]
    following.hear(Heard(1, Lost("torn")), Answered(mine, [Committed(12)], 0.1))
    assert following.machine.told == []
    following.hear(Listed(2, Reading(11, [])))
    assert following.machine.told == [(mine, [Committed(12)])]
    assert following.machine.seen[-1] == "relisted"


def test_one_question_at_a_time_and_again_where_it_is_not_answered():
    following = Following()
    assert following.hear(Heard(1, change("a", 11))) == [AskProgress()]
    assert following.hear(Heard(1, change("b", 12)), after=0.5) == []
    assert following.later(1.0) == []
    assert following.later(1.0) == [AskProgress()]


# --------------------------------------------------------------------------------------- answers


def test_requests_under_way_are_bounded():
    following = Following()
    commits = [commit(f"t{number}") for number in range(4)]
    assert following.sends(*commits) == [Send(commits[0]), Send(commits[1])]
    done = Answered(commits[0], [Committed(11)], 0.1)
    assert following.hear(done) == [Send(commits[2]), AskProgress()]


def test_after_an_answer_the_view_is_asked_to_come_as_far():
    following = Following()
    mine = commit()
    following.sends(mine)
    answer = Conflicted(40)
    assert following.hear(Answered(mine, [answer], 0.1)) == [AskProgress()]
    assert following.machine.told == [(mine, [answer])]


def test_a_conflict_that_shows_the_session_gone_ends_this_life_at_once():
    following = Following()
    mine = commit()
    following.sends(mine)
    with pytest.raises(SessionLost):
        following.hear(Answered(mine, [Conflicted(40, {SESSION: None})], 0.1))


def test_a_session_that_is_over_ends_this_life():
    following = Following()
    with pytest.raises(SessionLost):
        following.hear(SessionOver())


def test_compaction_is_carried_out_beside_what_is_under_way():
    following = Following()
    assert following.sends(commit("a"), commit("b"), Compact(7))[-3:] == [
        Compact(7), Send(commit("a")), Send(commit("b")),
    ]  # fmt: skip


# --------------------------------------------------------------------------------- lost answers


def test_a_lost_answer_is_fenced_and_decided_when_the_view_is_as_far_as_the_fence():
    following = Following()
    mine = commit()
    following.sends(mine)
    assert following.hear(Unanswered(mine, OutcomeUnknown("?"))) == [PutFence()]
    assert following.machine.told == []
    assert following.hear(Fenced(20)) == [AskProgress()]
    assert following.hear(Heard(1, Progress(19))) == [AskProgress()]
    assert following.machine.told == []
    following.hear(Heard(1, Progress(20)))
    assert following.machine.told == [(mine, [Conflicted(20)])]
    assert following.mirror.busy is False


def test_while_the_outcome_is_unknown_nothing_else_is_sent():
    following = Following()
    first, second, third = (commit(f"t{number}") for number in range(3))
    following.sends(first, second, third)
    assert following.hear(Unanswered(first, OutcomeUnknown("?"))) == [PutFence()]
    steps = following.machine.steps
    assert Send(third) not in following.hear(Answered(second, [Committed(11)], 0.1))
    assert following.machine.steps == steps
    assert Send(third) in following.hear(Fenced(20))


def test_an_answer_lost_while_a_fence_is_under_way_gets_a_fence_of_its_own():
    following = Following()
    first, second = commit("a"), commit("b")
    following.sends(first, second)
    following.hear(Unanswered(first, OutcomeUnknown("?")))
    assert following.hear(Unanswered(second, OutcomeUnknown("?"))) == []
    assert PutFence() in following.hear(Fenced(20))
    following.hear(Heard(1, Progress(20)))
    assert [told for told, _ in following.machine.told] == [first]
    following.hear(Fenced(21))
    following.hear(Heard(1, Progress(21)))
    assert [told for told, _ in following.machine.told] == [first, second]


def test_a_fence_that_fails_is_put_again_after_a_pause_whatever_the_store_says():
    following = Following()
    mine = commit()
    following.sends(mine)
    following.hear(Unanswered(mine, OutcomeUnknown("?")))
    for error in (StoreUnreachable("away"), StoreFull("full"), LoginRefused("who")):
        assert following.hear(Unfenced(error)) == []
        while PutFence() not in following.wait():
            pass
    following.hear(Fenced(20))
    following.hear(Heard(1, Progress(20)))
    assert [told for told, _ in following.machine.told] == [mine]


def test_what_is_unknown_stays_unknown_over_a_listing():
    following = Following()
    mine = commit()
    following.sends(mine)
    following.hear(Unanswered(mine, OutcomeUnknown("?")), Fenced(20))
    following.hear(Fenced(20), Heard(1, Lost("torn")))
    assert following.hear(Listed(2, Reading(15, []))) == [OpenWatch(2, 15), AskProgress()]
    assert following.machine.told == []
    following.hear(Heard(2, Progress(20)))
    assert [told for told, _ in following.machine.told] == [mine]


def test_without_a_session_a_lost_answer_ends_all():
    following = Following(session_key="")
    mine = commit()
    following.sends(mine)
    with pytest.raises(SessionLost):
        following.hear(Unanswered(mine, OutcomeUnknown("?")))


# ----------------------------------------------------------------------------- a store in trouble


@pytest.mark.parametrize(
    "error", [StoreUnreachable("away"), StoreFull("full"), LoginRefused("who"), Forbidden("no")]
)
def test_a_store_that_says_no_to_all_is_tried_after_growing_pauses_until_it_says_yes(error):
    following = Following(in_flight_max=1)
    mine, pauses = commit(), []
    for _ in range(12):
        assert following.sends(mine) == [Send(mine)]
        steps = following.machine.steps
        following.machine.wakes_at = -inf  # it would like to act at once
        before = following.now
        assert following.hear(Unanswered(mine, error)) == []
        while following.machine.steps == steps:
            following.wait()
        pauses.append(following.now - before)
    kinds = Conflicted if isinstance(error, StoreUnreachable) else Refused
    assert {type(answer) for _, (answer,) in following.machine.told} == {kinds}
    assert pauses[0] < 0.1
    assert 2.5 <= pauses[-1] <= 5.0
    assert len(following.said) == 1
    assert following.sends(mine) == [Send(mine)]
    following.hear(Answered(mine, [Committed(11)], 0.1))
    following.later(1.5)
    assert len(following.said) == 2
    assert following.sends(mine)[0] == Send(mine)
    following.hear(Unanswered(mine, error))
    assert following.mirror.wake_at() - following.now < 0.1  # it begins with the shortest again


@pytest.mark.parametrize("error", [TransactionTooLarge(200, 128), StoreRefused("not this one")])
def test_one_request_that_is_refused_holds_up_no_other(error):
    following = Following()
    mine, other = commit("a"), commit("b")
    following.sends(mine)
    following.hear(Unanswered(mine, error))
    ((_, (told,)),) = following.machine.told
    assert told == Refused(error)
    assert following.sends(other) == [Send(other)]


def test_two_requests_that_fail_at_once_make_one_pause():
    following = Following()
    first, second = commit("a"), commit("b")
    following.sends(first, second)
    away = StoreUnreachable("away")
    following.hear(Unanswered(first, away), Unanswered(second, away))
    assert following.mirror.wake_at() - following.now < 0.05
