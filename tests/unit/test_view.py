"""A view takes in whatever lies in the store; one bad record never stops a loop."""

import pytest

from flowos.model.codec import encode
from flowos.model.placement import Placement
from flowos.model.transaction import Change
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
