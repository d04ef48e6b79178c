"""The model of the protocol is sound in every scenario, and each rule in it is needed."""

import pytest

from tests.protocol.model_store import apply, explore, holds
from tests.protocol.protocol_model import PLANTED, SOUND, at_random

RANDOM_SECONDS = 3.0  # some hundred lives, on top of what is explored to the end


@pytest.mark.parametrize("scenario", SOUND)
def test_no_reachable_state_is_broken_and_each_can_end_well(scenario):
    found = explore(SOUND[scenario](()))
    assert not found.what, "\n".join((found.what, *found.trace))


@pytest.mark.parametrize("mistake", PLANTED)
def test_a_rule_left_out_is_found(mistake):
    assert explore(PLANTED[mistake]((mistake,))).what


def test_random_lives_of_all_rules_together_break_nothing():
    found = at_random(RANDOM_SECONDS)
    assert not found.what, "\n".join((found.what, *found.trace))


def test_a_key_that_came_and_went_does_not_show_in_a_compare_with_absent():
    # Why a lost answer is fenced by a key that stays: absent before and after says nothing.
    records, revision, _ = apply({}, 1, [((), (("put", "k", ""),))])
    records, _, _ = apply(records, revision, [((), (("delete", "k"),))])
    assert holds(records, (("k", "create", 0),))
