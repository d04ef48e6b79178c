"""Does the ledger that placements are held against notice what it is there for?"""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

PATH = Path(__file__).parent.parent.parent / "benchmarks" / "holds_parts" / "ledger.py"
SPEC = importlib.util.spec_from_file_location("holds_ledger", PATH)
assert SPEC is not None
assert SPEC.loader is not None
MODULE = importlib.util.module_from_spec(SPEC)
sys.modules["holds_ledger"] = MODULE  # dataclasses look there
SPEC.loader.exec_module(MODULE)


def record(**held: list[int]) -> bytes:
    return json.dumps({"held": {unit.replace("_", "/"): a for unit, a in held.items()}}).encode()


def ledger(*revisions):
    book = MODULE.Ledger({"n0": (8000, 100)})
    for number, changes in enumerate(revisions, start=1):
        book.revision(number, changes)
    return book


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        (record(engine_n0_g=[]), record(engine_n0_g=[]), "engine/n0/g by a, b"),
        (record(lane_l_fwd_0=[]), record(lane_l_fwd_0=[]), "lane/l/fwd/0 by a, b"),
        (record(share_n0_g=[600]), record(share_n0_g=[500]), "more than all of it"),
        (record(share_n0_g=[600]), record(engine_n0_g=[]), "parts of it by others"),
        (record(engine_n0_g=[]), record(share_n0_g=[600]), "the whole of it by others"),
        (record(host_n0=[5000, 1]), record(host_n0=[4000, 1]), "more than all of it"),
        (record(host_n0=[1, 60]), record(host_n0=[1, 60]), "more than all of it"),
    ],
)
def test_what_two_hold_is_named_with_the_revision(one, other, said):
    book = ledger([("a", one)], [("b", other)])
    (line,) = book.double
    assert line.startswith("revision 2: ")
    assert said in line


def test_what_is_still_on_its_way_back_is_held():
    leaving = json.dumps({"held": {}, "releasing": {"engine/n0/g": []}}).encode()
    book = ledger(
        [("a", record(engine_n0_g=[]))], [("a", leaving)], [("b", record(engine_n0_g=[]))]
    )
    assert len(book.double) == 1


def test_a_unit_may_go_from_one_to_another_in_one_revision():
    mine = record(engine_n0_g=[])
    book = ledger([("a", mine)], [("a", None), ("b", mine)], [("b", None)])
    assert book.double == []
    assert book.placed == {"a", "b"}
    assert book.held == 0


def test_shares_that_fit_are_no_fault():
    book = ledger([("a", record(share_n0_g=[500]))], [("b", record(share_n0_g=[500]))])
    assert book.double == []
