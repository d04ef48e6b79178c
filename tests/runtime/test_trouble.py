"""Is each trouble with the store said once when it begins, and once when it is over?"""

import random

import pytest

from flowos.model.errors import (
    Forbidden,
    LoginRefused,
    OutcomeUnknown,
    StoreFull,
    StoreRefused,
    StoreUnreachable,
)
from flowos.runtime.trouble import PAUSE_SECONDS, BackOff, Kind, Trouble

KINDS = {
    StoreUnreachable("no answer from etcd at a:1"): (Kind.UNREACHABLE, "the store answers again"),
    OutcomeUnknown("etcd at a:1 did not answer"): (Kind.UNREACHABLE, "the store answers again"),
    StoreFull("etcd at a:1 is full"): (Kind.FULL, "the store takes writes again"),
    LoginRefused("etcd at a:1 knows no b"): (Kind.LOGIN, "the store lets this process in again"),
    Forbidden("etcd at a:1 forbids c"): (Kind.FORBIDDEN, "the store allows it again"),
}


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def trouble(said) -> Trouble:
    return Trouble(said.append)


@pytest.mark.parametrize("error", KINDS, ids=lambda error: type(error).__name__)
def test_each_trouble_is_said_once_at_its_beginning_and_once_at_its_end(trouble, said, error):
    kind, end = KINDS[error]
    for second in range(12):
        trouble.failed(error, float(second))
    assert said == [f"{error}: {kind.meaning}"]
    assert kind in trouble
    trouble.worked(12.0)
    trouble.worked(13.1)
    assert said[1:] == [f"{end} after 12.0 s, 12 tries"]
    trouble.worked(20.0)
    assert len(said) == 2
    assert not trouble.there_is


def test_a_failure_right_after_the_end_belongs_to_the_same_trouble(trouble, said):
    for second in range(5):
        trouble.failed(StoreUnreachable("?"), float(second))
        trouble.worked(second + 0.1)
    assert len(said) == 1
    trouble.passes(5.2)
    assert said[1:] == ["the store answers again after 4.1 s, 5 tries"]


def test_the_end_is_said_without_another_answer(trouble, said):
    trouble.failed(StoreUnreachable("?"), 0.0)
    trouble.worked(0.5)
    assert trouble.ends_at() == 1.5
    trouble.passes(1.5)
    assert len(said) == 2


def test_a_full_store_that_can_be_read_is_still_full(trouble, said):
    trouble.failed(StoreFull("full"), 0.0, "write")
    trouble.worked(1.0, "read")
    trouble.worked(9.0, "lease")
    assert len(said) == 1
    trouble.worked(10.0, "write")
    trouble.passes(11.0)
    assert len(said) == 2


def test_any_answer_ends_a_silence(trouble, said):
    trouble.failed(StoreUnreachable("?"), 0.0, "write")
    trouble.worked(1.0, "read")
    trouble.passes(2.0)
    assert len(said) == 2


def test_two_troubles_at_once_are_said_each(trouble, said):
    trouble.failed(StoreUnreachable("away"), 0.0)
    trouble.failed(StoreFull("full"), 1.0)
    trouble.failed(StoreUnreachable("away"), 2.0)
    assert [line.partition(":")[0] for line in said] == ["away", "full"]


def test_a_refusal_of_one_request_is_said_once_with_its_text(trouble, said):
    for _ in range(3):
        trouble.failed(StoreRefused("too large"), 0.0)
        trouble.failed(StoreRefused("a lease that is over"), 0.0)
    assert said == ["too large", "a lease that is over"]
    assert not trouble.there_is


def test_a_store_that_is_slow_several_times_in_a_row_is_said_to_be_slow(trouble, said):
    for at, seconds in enumerate((2.0, 0.1, 2.0, 2.0)):
        trouble.took(seconds, float(at))
    assert said == []
    trouble.took(2.5, 5.0)
    assert said == [
        f"the store needs 2.5 s for a commit, 3 times in a row: {Kind.SLOW.meaning}",
    ]
    for at in (6, 7, 8):
        trouble.took(0.1, float(at))
    trouble.passes(9.0)
    assert said[1:] == ["the store answers in time again after 3.0 s"]


def test_a_lost_watch_is_said_once_until_its_process_is_in_step(trouble, said):
    trouble.lost("compacted", 0.0)
    trouble.worked(0.3, "read")
    trouble.lost("compacted", 0.5)
    trouble.worked(0.7, "read")
    trouble.passes(1.7)
    assert said == [
        "watch lost (compacted): listing everything again",
        "in step with the store again after 0.7 s, 2 tries",
    ]


def test_pauses_grow_to_seconds_and_no_two_processes_are_alike():
    back_offs = [BackOff(random.Random(seed)) for seed in range(2)]
    pauses = [[back_off.failed() for _ in range(12)] for back_off in back_offs]
    first, longest = PAUSE_SECONDS
    for mine in pauses:
        assert mine[0] <= first
        assert longest / 2 <= mine[-1] <= longest
    assert pauses[0] != pauses[1]
    back_offs[0].worked()
    assert back_offs[0].failed() <= first
