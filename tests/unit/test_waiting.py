"""Which slice is looked at next: passes from head to end, and those who come back into them."""

from math import inf

from hypothesis import given
from hypothesis import strategies as st

from flowos.runtime.waiting import Queue


def filled(*orders: int) -> Queue:
    queue = Queue()
    for order in orders:
        queue.put(f"s{order}", (order,), 0.0)
    return queue


def gone_through(queue: Queue) -> list[str]:
    names = []
    while not queue.over:
        names.append(queue.head()[1])
        queue.advance()
    return names


def test_a_pass_goes_in_the_policys_order():
    assert gone_through(filled(3, 1, 2)) == ["s1", "s2", "s3"]


def test_a_slice_that_was_passed_over_comes_back_at_its_place_in_the_same_pass():
    queue = filled(1, 2, 5, 9)
    queue.advance()
    queue.again("s1", 10.0)
    queue.recall(9.9, 0)
    assert queue.head()[1] == "s2"
    queue.recall(10.0, 0)
    assert gone_through(queue) == ["s1", "s2", "s5", "s9"]


def test_a_slice_that_is_put_off_once_more_comes_back_once():
    queue = filled(1)
    gone_through(queue)
    queue.again("s1", 1.0)
    queue.again("s1", 2.0)
    queue.recall(1.0, 0)
    assert queue.over
    queue.recall(2.0, 0)
    assert gone_through(queue) == ["s1"]
    assert queue.next_at() == inf


def test_a_slice_waits_for_a_revision_of_the_view():
    queue = filled(1)
    gone_through(queue)
    queue.seen("s1", 7)
    queue.recall(100.0, 6)
    assert queue.over
    queue.recall(100.0, 7)
    assert gone_through(queue) == ["s1"]


def test_what_waits_no_longer_does_not_come_back():
    queue = filled(1)
    gone_through(queue)
    queue.again("s1", 1.0)
    queue.seen("s1", 1)
    queue.drop("s1")
    queue.recall(5.0, 5)
    assert queue.over


@given(st.lists(st.integers(0, 200), unique=True), st.integers(0, 200))
def test_many_that_come_back_together_come_back_in_order(orders, done):
    queue = filled(*orders)
    for _ in range(min(done, len(orders))):
        name = queue.head()[1]
        queue.advance()
        queue.again(name, 1.0)
    queue.recall(1.0, 0)
    assert gone_through(queue) == [f"s{order}" for order in sorted(orders)]
