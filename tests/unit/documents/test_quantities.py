"""Amounts with units are read exactly, refused in words, and written back."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowos.documents import quantities as q
from flowos.model.errors import SpecError


@pytest.mark.parametrize(
    ("read", "written", "amount"),
    [
        (q.bytes_of, "32GiB", 32 * 2**30),
        (q.bytes_of, "24 GB", 24 * 10**9),
        (q.bytes_of, "0.5KiB", 512),
        (q.bytes_of, "7B", 7),
        (q.bytes_of, 0, 0),
        (q.seconds_of, "2h", 7200.0),
        (q.seconds_of, "90m", 5400.0),
        (q.seconds_of, "1h30m", 5400.0),
        (q.seconds_of, "1h 30m", 5400.0),
        (q.seconds_of, "1m0.5s", 60.5),
        (q.seconds_of, "10s", 10.0),
        (q.seconds_of, "0.5", 0.5),
        (q.seconds_of, 10, 10.0),
        (q.seconds_of, Decimal("0.1"), 0.1),
        (q.seconds_of, "250ms", 0.25),
        (q.seconds_of, "2d", 172_800.0),
        (q.nanoseconds_of, "50ns", 50),
        (q.nanoseconds_of, "1.5us", 1500),
        (q.nanoseconds_of, 0, 0),
        (q.cpu_millis_of, "4", 4000),
        (q.cpu_millis_of, "500m", 500),
        (q.cpu_millis_of, Decimal("2.5"), 2500),
        (q.watts_of, "20kW", 20_000),
        (q.watts_of, "1.5MW", 1_500_000),
        (q.watts_of, 400, 400),
        (q.share_millis_of, "0.5", 500),
        (q.share_millis_of, Decimal("0.001"), 1),
        (q.share_millis_of, 0.3, 300),
        (q.gbps_of, Decimal("12.5"), 12.5),
    ],
)
def test_amounts_are_read_exactly(read: Callable[[Any], Any], written: Any, amount: Any):
    assert read(written) == amount


@pytest.mark.parametrize(
    ("read", "written", "words"),
    [
        (q.bytes_of, "32", "no unit"),
        (q.bytes_of, 512, "no unit"),
        (q.bytes_of, "32Gib", "has the unit Gib"),
        (q.bytes_of, "much", '"much" is not an amount of memory'),
        (q.bytes_of, "-1GiB", "is not an amount of memory"),
        (q.bytes_of, "0.3B", "not a whole number of bytes"),
        (q.bytes_of, "9999999PiB", "above"),
        (q.bytes_of, True, "true is not an amount"),
        (q.bytes_of, None, "nothing is not an amount"),
        (q.bytes_of, [], "a list is not an amount"),
        (q.bytes_of, "9" * 5000 + "B", "is not an amount"),
        (q.bytes_of, Decimal("1e999999999"), "is not an amount"),
        (q.seconds_of, "soon", "is not a duration"),
        (q.seconds_of, "30m1h", "is not a duration"),
        (q.seconds_of, "1h2h", "is not a duration"),
        (q.seconds_of, "5x", "is not a duration"),
        (q.seconds_of, "1.2.3s", "is not a duration"),
        (q.seconds_of, "5 fortnights", "is not a duration"),
        (q.seconds_of, "99999999d", "above"),
        (q.seconds_of, float("nan"), "is not a duration"),
        (q.nanoseconds_of, 50, "has no unit"),
        (q.nanoseconds_of, "50", "has no unit"),
        (q.nanoseconds_of, "0.5ns", "not a whole number"),
        (q.cpu_millis_of, "4 cores", "has the unit cores"),
        (q.cpu_millis_of, "0.5m", "not a whole number"),
        (q.watts_of, "3 hp", "has the unit hp"),
        (q.share_millis_of, "1", "no share"),
        (q.share_millis_of, "0", "no share"),
        (q.share_millis_of, "0.3333", "no share"),
        (q.gbps_of, 0, "is not a rate"),
    ],
)
def test_what_is_no_amount_is_named_with_the_accepted_forms(
    read: Callable[[Any], Any], written: Any, words: str
):
    with pytest.raises(SpecError, match="write") as caught:
        read(written)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        (q.bytes_text(32 * 2**30), "32GiB"),
        (q.bytes_text(3 * 2**29), "1.5GiB"),
        (q.bytes_text(10**9), "976562.5KiB"),
        (q.bytes_text(1023), "1023B"),
        (q.bytes_text(0), "0B"),
        (q.seconds_text(5400), "1h30m"),
        (q.seconds_text(10.0), "10s"),
        (q.seconds_text(0.0025), "2500us"),
        (q.seconds_text(90.5), "1m30.5s"),
        (q.seconds_text(0), "0s"),
        (q.nanoseconds_text(50), "50ns"),
        (q.nanoseconds_text(1500), "1.5us"),
        (q.cpu_text(4000), "4"),
        (q.cpu_text(2500), "2.5"),
        (q.cpu_text(500), "500m"),
        (q.watts_text(400), "400W"),
        (q.watts_text(20_500), "20.5kW"),
        (q.watts_text(2_000_000), "2000kW"),
        (q.share_text(500), "0.5"),
        (q.share_text(1000), "1"),
    ],
)
def test_amounts_are_written_for_people(text: str, written: str):
    assert text == written


@given(st.integers(0, q.BYTES_MAX))
def test_every_amount_of_memory_is_read_back(amount: int):
    assert q.bytes_of(q.bytes_text(amount)) == amount


@given(st.integers(0, 10**18) | st.integers(0, 10**6))
def test_every_duration_is_read_back(nanoseconds: int):
    seconds = nanoseconds / 10**9
    assert q.seconds_of(q.seconds_text(seconds)) == seconds


@given(st.floats(1e-12, 1e9))
def test_even_an_odd_duration_is_read_back(seconds: float):
    assert q.seconds_of(q.seconds_text(seconds)) == seconds


@given(st.integers(0, 10**9))
def test_every_other_amount_is_read_back(amount: int):
    assert q.nanoseconds_of(q.nanoseconds_text(amount)) == amount
    assert q.cpu_millis_of(q.cpu_text(amount)) == amount
    assert q.watts_of(q.watts_text(amount)) == amount


@given(st.integers(1, 999))
def test_every_share_is_read_back(millis: int):
    assert q.share_millis_of(q.share_text(millis)) == millis
