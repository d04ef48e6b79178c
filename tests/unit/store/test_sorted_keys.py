"""Sorted keys are what a sorted set would be."""

from hypothesis import given
from hypothesis import strategies as st

from flowos_store import sorted_keys
from flowos_store.sorted_keys import SortedKeys

KEYS = st.text("ab/\N{GREEK SMALL LETTER OMEGA}\U0001f600", max_size=4)


@given(steps=st.lists(KEYS, max_size=80), first=KEYS)
def test_keys_come_in_order_whatever_was_added_and_removed(steps, first):
    keys = SortedKeys()
    known: set[str] = set()
    for key in steps:  # a key that comes again goes
        (keys.remove if key in known else keys.add)(key)
        known ^= {key}
    assert list(keys.starting_at("")) == sorted(known)
    assert list(keys.starting_at(first)) == sorted(key for key in known if key >= first)


def test_order_stays_across_many_lists():
    keys = SortedKeys()
    count = 5 * sorted_keys.CHUNK_MAX
    for number in range(count):
        keys.add(f"{number * 7919 % count:06}")
    for number in range(0, count, 2):
        keys.remove(f"{number:06}")
    assert list(keys.starting_at("001001")) == [f"{n:06}" for n in range(1001, count, 2)]


def test_order_of_keys_is_that_of_their_bytes():
    # etcd sorts bytes, we sort text: the same for UTF-8.
    keys = ["a", "z", "\x7f", "\x80", "\u07ff", "\uffff", "\U0001f600"]
    assert sorted(keys) == sorted(keys, key=str.encode)


def test_a_copy_goes_its_own_way():
    keys = SortedKeys()
    keys.add("a")
    copy = keys.copy()
    copy.add("b")
    keys.remove("a")
    assert (list(keys.starting_at("")), list(copy.starting_at(""))) == ([], ["a", "b"])
