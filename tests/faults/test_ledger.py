"""The ledger that judges the swarm: does it see what it is there for?"""

import json

from flowos.model.transaction import Change
from tests.faults.ledger import Ledger

GPU = "engine/n0/gpu0"


def placement(name: str, attempt: str, units: list[str], created: int, at: int = 0) -> Change:
    value = {"uid": 1, "attempt": attempt, "held": {key: [] for key in units}}
    return Change(f"placement/{name}", json.dumps(value).encode(), created, at or created)


def gone(name: str, at: int) -> Change:
    return Change(f"placement/{name}", None, 0, at)


def ended(name: str, at: int, phase: str = "done") -> Change:
    value = {"spec": {}, "end": {"phase": phase}} if phase else {"spec": {}}
    return Change(f"slice/{name}", json.dumps(value).encode(), 1, at)


def test_a_unit_that_two_placements_list_at_one_revision_is_doubled():
    ledger = Ledger()
    ledger.take(5, [placement("t/a", "x", [GPU], 5)])
    ledger.take(6, [placement("t/b", "y", [GPU], 6)])
    assert ledger.doubled == [f"{GPU} at revision 6: t/a and t/b"]


def test_a_unit_that_moves_from_one_to_another_in_one_revision_is_not_doubled():
    ledger = Ledger()
    ledger.take(5, [placement("t/a", "x", [GPU], 5)])
    ledger.take(6, [placement("t/b", "y", [GPU], 6), placement("t/a", "x", [], 5, 6)])
    ledger.take(7, [gone("t/b", 7)])
    ledger.take(8, [placement("t/c", "z", [GPU], 8)])
    assert ledger.doubled == []


def test_parts_of_an_engine_may_have_several_holders():
    ledger = Ledger()
    ledger.take(5, [placement("t/a", "x", ["share/n0/gpu0"], 5)])
    ledger.take(6, [placement("t/b", "y", ["share/n0/gpu0"], 6)])
    assert ledger.doubled == []


def test_each_attempt_has_the_revision_at_which_it_was_placed():
    ledger = Ledger()
    ledger.take(5, [placement("t/a", "x", [GPU], 5)])
    ledger.take(6, [placement("t/a", "x", [], 5, 6)])
    ledger.take(7, [gone("t/a", 7)])
    ledger.take(8, [placement("t/a", "y", [GPU], 8)])
    assert ledger.placed == {("t/a", "x"): 5, ("t/a", "y"): 8}
    assert ledger.attempts == {"t/a": ["x", "y"]}


def test_an_end_is_counted_each_time_that_it_comes_about_and_not_when_it_is_written_again():
    ledger = Ledger()
    ledger.take(5, [ended("t/a", 5)])
    ledger.take(6, [ended("t/a", 6)])
    assert ledger.ended == {"t/a": [(5, "done")]}
    ledger.take(7, [ended("t/a", 7, phase="")])
    ledger.take(8, [ended("t/a", 8)])
    assert ledger.ended == {"t/a": [(5, "done"), (7, "alive again"), (8, "done")]}
