"""A view takes in whatever lies in the store; one bad record never stops a loop."""

import pytest

from flowos.model import view as view_module
from flowos.model.cell import Domain, Engine, Link, Node
from flowos.model.codec import encode
from flowos.model.placement import Placement
from flowos.model.slice import Slice, SliceSpec
from flowos.model.transaction import Change, Versioned
from flowos.model.view import CellView


@pytest.mark.parametrize(
    ("unit", "amounts"),
    [
        ("lane/bad", ()),
        ("lane/l/fwd/x", ()),
        ("share/n/g", ()),
        ("host/n0", (1,)),
        ("x", ()),
        ("host/n0", (1, 2, 3, 4)),
        ("share/n/g", (1, 2)),
        ("engine/n/g", (1, 2, 3)),
    ],
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


LISTED = [
    ("claim/engine/n/g", b"[]"),
    ("domain/bad", b'{"name": 1}'),
    ("domain/room", encode(Domain("room"))),
    ("engine/n/bad", b'{"node": "n", "name": "bad", "kind": "gpu", "colour": "red"}'),
    ("engine/n/g", encode(Engine("n", "g", "gpu"))),
    ("engine/n/h", encode(Engine("n", "h", "gpu"))),
    ("engineering", b"{}"),
    ("link/bad", b""),
    ("link/l", encode(Link("l", "n/g:0", "s:0"))),
    ("link/two", encode(Link("l", "n/g:0", "s:0")) + encode(Link("l", "n/g:0", "s:0"))),
    ("node/n", encode(Node("n"))),
    ("node/null", b"null"),
    ("placement/default/t", encode(Placement(uid=1, attempt="a", held={"engine/n/g": ()}))),
    ("reason/default/t", b"?"),
    ("slice/default/bad", b'{"spec": {}}'),
    ("slice/default/t", encode(Slice(spec=SliceSpec(name="t")))),
]


@pytest.mark.parametrize("many", [False, True])
def test_a_listing_is_taken_in_as_if_its_records_had_come_one_by_one(many, monkeypatch):
    if many:
        monkeypatch.setattr(view_module, "_MANY", 0)
    records = [Versioned(key, value, 3, 4) for key, value in LISTED]
    listed, followed = CellView(), CellView()
    listed.load(records)
    for record in records:
        followed.apply(Change(*record))
    for name in CellView.__slots__:
        if name != "unreadable":
            assert getattr(listed, name) == getattr(followed, name), name
    assert listed.cell.engines_of == {"n": ["n/g", "n/h"]}
    assert listed.unreadable.keys() == followed.unreadable.keys()
    assert len(listed.unreadable) == 7


def test_listeners_are_told_once_that_an_inventory_has_been_listed():
    view = CellView()
    told: list[tuple[str, str]] = []
    view.inventory_listeners.append(lambda family, name: told.append((family, name)))
    view.load([Versioned(key, value, 3, 4) for key, value in LISTED])
    assert told == [("", "")]


def test_devices_are_counted_where_a_host_unit_says_them():
    view = CellView()
    view.cell.add(Node("h0", 1000, 1000, devices_max=4))
    view.cell.add(Node("h1", 1000, 1000))
    view.assume("t/a", Placement(1, "a", held={"host/h0": (500, 0, 3), "host/h1": (1, 1)}))
    view.assume("t/b", Placement(2, "b", held={"host/h0": (100, 0)}))
    assert (view.free_host("h0"), view.free_devices("h0")) == ((400, 1000), 1)
    assert view.free_devices("h1") is None
    assert view.host_has("h0", (400, 1000, 1))
    assert not view.host_has("h0", (400, 1000, 2))
    assert not view.host_has("h0", (401, 1000))
    assert view.host_has("h1", (999, 999, 70))
    view.retract("t/a")
    assert view.free_devices("h0") == 4
    assert view.devices == {}
