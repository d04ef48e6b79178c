"""Conditions on attributes: what they let through and what they refuse to read."""

import pytest

from flowos.model.errors import SpecError
from flowos.planning.where import parse_condition, quantity


@pytest.mark.parametrize(
    ("asked", "found", "holds"),
    [
        (">=24GiB", str(24 * 2**30), True),
        (">=24GiB", str(24 * 2**30 - 1), False),
        (">=24GiB", "32GiB", True),
        (">24GiB", "24GiB", False),
        ("<= 1TB", "999GB", True),
        ("24", "24.0", True),
        ("=24", "25", False),
        ("==24GiB", "24576MiB", True),
        ("!=24", "24", False),
        ("!=x", "y", True),
        ("x", "x", True),
        ("true", "true", True),
        (">=100ns", "200ns", True),
        (">=100ns", "200us", False),
        (">=24GiB", "much", False),
    ],
)
def test_condition_compares_quantities_with_their_units(asked, found, holds):
    assert parse_condition("memory", asked).holds(found) is holds


def test_absent_attribute_is_certainly_not_x():
    assert parse_condition("zone", "!=x").holds(None)
    assert not parse_condition("zone", "x").holds(None)
    assert not parse_condition("zone", ">=1").holds(None)


@pytest.mark.parametrize("text", ["", ">=", "!= ", ">=fast"])
def test_condition_that_compares_with_nothing_names_its_key(text):
    with pytest.raises(SpecError, match=r"^memory: "):
        parse_condition("memory", text)


def test_bytes_are_bare_numbers_and_other_units_are_kept_apart():
    assert quantity("24GiB") == (24 * 2**30, "") == quantity("24Gi")
    assert quantity("100 Gb/s") == (100, "Gb/s")
    assert quantity("5m") == (5, "m")
    assert quantity("U250") is None


def test_condition_reads_back_as_it_was_written():
    assert str(parse_condition("memory", ">= 24GiB")) == "memory >=24GiB"
    assert str(parse_condition("zone", "a")) == "zone a"
