"""A view takes in whatever lies in the store; one bad record never stops a loop."""

import pytest

from flowos.model.codec import encode
from flowos.model.placement import Placement
from flowos.model.transaction import Change, Versioned
from flowos.model.view import CellView


@pytest.mark.parametrize(
    ("unit", "amounts"),
    [("lane/bad", ()), ("lane/l/fwd/x", ()), ("share/n/g", ()), ("host/n0", (1,)), ("x", ())],
)
def test_a_placement_with_a_malformed_unit_is_set_aside(unit, amounts):
    view = CellView()
    record = encode(Placement(uid=1, attempt="a", held={"engine/n/g": (), unit: amounts}))
    view.apply(Change("placement/default/t", record, 5, 5))
    assert "placement/default/t" in view.unreadable
    assert (view.placements, view.holders, view.hosts, view.shares) == ({}, {}, {}, {})


def planned(attempt: str = "a") -> Placement:
    return Placement(uid=1, attempt=attempt, held={"engine/n/g": ()})


@pytest.mark.parametrize("answer_first", [True, False])
def test_an_own_commit_that_comes_back_is_taken_as_it_was_planned(answer_first):
    view, plan = CellView(), planned()
    view.assume("default/t", plan, encode(plan))
    if answer_first:
        view.settle("default/t", 5)
    view.apply(Change("placement/default/t", encode(plan), 5, 5))
    assert view.placements["default/t"] == (plan, 5, 5)
    assert view.placements["default/t"].value is plan, "it was read all the same"
    assert view.holders == {"engine/n/g": ("default/t",)}
    assert not view.assumed("default/t")


@pytest.mark.parametrize("answer_first", [True, False])
def test_another_word_of_the_store_on_an_own_plan_is_read(answer_first):
    view, plan = CellView(), planned()
    view.assume("default/t", plan, encode(plan))
    if answer_first:
        view.settle("default/t", 5)
    other = Placement(uid=1, attempt="b", held={"engine/n/h": ()})
    view.apply(Change("placement/default/t", encode(other), 5, 6))
    assert view.holders == {"engine/n/h": ("default/t",)}
    # And what was planned is of no more use, whatever comes.
    view.apply(Change("placement/default/t", encode(plan), 5, 7))
    assert view.placements["default/t"].value == plan
    assert view.holders == {"engine/n/g": ("default/t",)}


def test_a_plan_that_lost_leaves_nothing_behind_when_its_record_comes_all_the_same():
    view, small = CellView(), planned()
    large = Placement(uid=1, attempt="a", held={"engine/n/g": (), "engine/n/h": ()})
    view.apply(Change("placement/default/t", encode(small), 5, 5))
    view.assume("default/t", large, encode(large))
    view.retract("default/t")
    view.apply(Change("placement/default/t", encode(large), 5, 6))
    assert view.placements["default/t"].value == large
    assert set(view.holders) == {"engine/n/g", "engine/n/h"}


def test_what_was_committed_before_everything_was_listed_again_is_read_anew():
    view, plan = CellView(), planned()
    view.assume("default/t", plan, encode(plan))
    view.settle("default/t", 5)
    view.clear()
    view.load([Versioned("placement/default/t", encode(plan), 5, 5)])
    assert view.holders == {"engine/n/g": ("default/t",)}
