"""Do the tasks that come with Flow OS compute what they say, and refuse what they cannot?"""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowos.flowlet import AddBytewise, Concat, Source, Sum, execute
from flowos.flowlet import reduce as reduced


def add(a: Any, b: Any) -> Any:
    return AddBytewise(..., ...).run(a, b)


@given(st.lists(st.tuples(st.integers(0, 255), st.integers(0, 255)), max_size=50))
def test_bytes_are_added_modulo_256_in_whatever_form_they_come(pairs):
    a, b = bytes(x for x, _ in pairs), bytes(y for _, y in pairs)
    expected = bytes((x + y) % 256 for x, y in pairs)
    one, other = np.frombuffer(a, np.uint8), np.frombuffer(b, np.uint8)
    assert add(a, b) == expected
    for left, right in ((one, other), (one, b), (a, other), (one.astype(np.int64), other)):
        total = add(left, right)
        assert total.dtype == np.uint8
        assert total.tobytes() == expected


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        (b"ab", b"a", "inputs of 2 and 1 bytes"),
        (np.zeros(3, np.uint8), b"a", r"shape \(3,\) and \(1,\)"),
        # One of the two would do for numpy, which would add it to each row.
        (np.zeros((2, 2), np.uint8), np.zeros(2, np.uint8), r"shape \(2, 2\) and \(2,\)"),
        (np.array([300.7]), np.array([1], np.uint8), "array of float64 is none of bytes"),
        (np.array([1], np.uint8), np.array([1j]), "array of complex128 is none of bytes"),
    ],
)
def test_what_cannot_be_added_byte_by_byte_is_refused(a, b, said):
    with pytest.raises(ValueError, match=said):
        add(a, b)


def test_concat_joins_along_the_first_axis():
    one, other = np.ones((1, 2)), np.zeros((2, 2))
    np.testing.assert_array_equal(Concat().run(one, other), np.vstack([one, other]))
    np.testing.assert_array_equal(Concat().run(np.array(1), np.array([2, 3])), [1, 2, 3])
    assert Concat().run(b"a", b"", b"bc") == b"abc"
    assert Concat().run() == b""
    with pytest.raises(ValueError, match="bytes and arrays cannot be joined"):
        Concat().run(b"a", one)


def test_a_sum_leaves_its_inputs_as_they_were_and_does_not_stretch_them():
    first = np.ones(3)
    np.testing.assert_array_equal(Sum().run(first, first, first), [3, 3, 3])
    np.testing.assert_array_equal(first, [1, 1, 1])
    with pytest.raises(ValueError, match=r"shapes \[\(1,\), \(3,\)\]"):
        Sum().run(first, np.ones(1))
    with pytest.raises(ValueError, match="nothing to add"):
        Sum().run()


@given(st.lists(st.binary(max_size=3), min_size=1, max_size=40), st.integers(2, 6))
def test_a_reduction_keeps_the_order_of_its_inputs(parts, fan_in):
    def join(*some: bytes) -> bytes:
        assert 2 <= len(some) <= fan_in
        return b"".join(some)

    end = reduced(join, [Source(part) for part in parts], fan_in=fan_in)
    whole = Concat(end)
    assert execute(whole, on="here").values[whole.name] == b"".join(parts)
