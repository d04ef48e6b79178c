"""When is a member of the cluster left for another, and when are its calls given up?"""

from flowos_store.roster import (
    AGAIN_SECONDS,
    CALM_SECONDS,
    HEAD_START_SECONDS,
    PATIENCE_SECONDS,
    ROUND_SECONDS,
    Ask,
    GiveUp,
    Leave,
    Roster,
)

LONG = PATIENCE_SECONDS


def asked(*, term: int = 7, first: int = 0) -> Roster:
    """Three members, a call to the first that takes long, and a round under way since 10.0."""
    roster = Roster(3, first=first)
    roster.leads(first, term)
    assert roster.looked(10.0, 10.0 - LONG) == [Ask()]
    return roster


def test_nobody_is_asked_while_calls_are_quick_or_there_are_none():
    roster = Roster(3)
    assert roster.looked(10.0, None) == []
    assert roster.looked(10.0, 10.0 - LONG / 2) == []
    assert roster.looked(10.0, 10.0 - LONG) == [Ask()]
    assert roster.looked(10.1, 9.0) == [], "a round is under way"


def test_a_member_that_answers_is_only_slow_and_stays():
    roster = asked()
    assert roster.answered(0, 7, 10.01, 9.0) == []
    assert roster.answered(1, 7, 10.02, 9.0) == []
    assert roster.looked(10.0 + HEAD_START_SECONDS * 2, 9.0) == []
    assert roster.current == 0
    assert roster.looked(10.01 + CALM_SECONDS, 9.0) == [Ask()]


def test_a_member_that_hangs_is_left_for_one_that_answers():
    roster = asked()
    assert roster.answered(2, 7, 10.01, 9.0) == [], "its own answer may be on the way"
    assert roster.looked(10.01 + HEAD_START_SECONDS, 9.0) == [Leave(0)]
    assert roster.current == 2


def test_a_member_that_says_no_is_left_at_once():
    roster = asked()
    assert roster.answered(1, 7, 10.01, 9.0) == []
    assert roster.failed(0, 10.02) == [Leave(0)]
    assert roster.current == 1


def test_while_nobody_answers_nobody_is_left_and_all_are_asked_again_soon():
    roster = asked()
    for member in range(3):
        assert roster.failed(member, 10.05) == []
    assert roster.looked(10.06, 9.0) == []
    assert roster.looked(10.06 + AGAIN_SECONDS, 9.0) == [Ask()]
    silent = asked()
    assert silent.looked(10.0 + ROUND_SECONDS, 9.0) == []
    assert silent.looked(10.0 + ROUND_SECONDS + AGAIN_SECONDS, 9.0) == [Ask()]


def test_calls_from_before_a_new_leader_are_given_up():
    roster = asked(term=7)
    assert roster.answered(0, 8, 10.9, 9.0) == [GiveUp(0)]
    assert roster.current == 0


def test_a_new_leader_that_another_member_told_of_first_is_new_all_the_same():
    roster = asked(term=7)
    assert roster.answered(1, 8, 10.9, 9.0) == []
    assert roster.answered(0, 8, 10.91, 9.0) == [GiveUp(0)]


def test_who_passes_a_dead_member_over_still_knows_the_term_it_lived_in():
    roster = Roster(3)
    roster.leads(0, 7)
    assert roster.passed_over() == 1
    assert roster.looked(10.0, 9.0) == [Ask()]
    assert roster.answered(1, 8, 10.5, 9.0) == [GiveUp(1)]


def test_a_member_that_tells_of_a_change_of_leader_has_lost_what_was_under_way():
    roster = asked()
    assert roster.failed(0, 10.4, changed=True) == [GiveUp(0)]
    assert roster.current == 0


def test_calls_made_after_the_election_are_not_given_up():
    roster = asked(term=7)
    assert roster.answered(0, 8, 10.9, None) == []
    again = asked(term=7)
    assert again.answered(0, 8, 10.9, 10.9 - LONG / 2) == []


def test_an_answer_after_the_round_moves_nothing():
    roster = asked()
    assert roster.looked(10.0 + ROUND_SECONDS, 9.0) == []
    assert roster.answered(1, 9, 10.0 + ROUND_SECONDS, 9.0) == []
    assert roster.failed(0, 10.0 + ROUND_SECONDS) == []
    assert roster.current == 0
