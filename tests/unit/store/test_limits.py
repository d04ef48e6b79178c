"""What fits into one request, and what guards a transaction that does not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowos.model.errors import StoreRefused, TransactionTooLarge
from flowos.model.transaction import Delete, Put, Quiet, Seen, Transaction
from flowos_store.limits import (
    KeyRange,
    fits,
    guard,
    largest_group,
    operations_needed,
    refuse_double_writes,
)


def claims(count, *, seen=9, start=0, extra=()):
    keys = [
        f"claim/engine/n{number // 8:04}/{number % 8}" for number in range(start, start + count)
    ]
    return Transaction(
        (*extra, *(Seen(key, 0) for key in keys)), tuple(Put(key, b"") for key in keys), seen
    )


def test_a_group_needs_one_operation_per_member_and_its_longest_list():
    assert operations_needed([claims(8)]) == 8
    assert operations_needed([claims(8), claims(14, start=50)]) == 16
    assert operations_needed([]) == 0


def test_114_slices_of_14_compares_share_a_request_of_128():
    assert fits([claims(14, start=14 * n) for n in range(114)])
    assert not fits([claims(14, start=14 * n) for n in range(115)])


def test_largest_group_ends_before_the_member_that_would_not_fit():
    slices = [claims(8, start=8 * n) for n in range(150)]
    assert largest_group(slices) == 120
    assert largest_group(slices[:5]) == 5
    assert largest_group([]) == 0


def test_a_transaction_too_large_for_a_group_goes_alone():
    assert largest_group([claims(500), claims(8)]) == 1
    assert largest_group([claims(8), claims(500)]) == 1


def test_one_request_writes_a_key_once():
    refuse_double_writes([claims(8), claims(8, start=8)])
    twice = Transaction((), (Put("a", b""), Delete("a")))
    with pytest.raises(StoreRefused, match="writes a twice"):
        refuse_double_writes([twice])
    with pytest.raises(StoreRefused, match="claim/engine/n0000/0"):
        refuse_double_writes([claims(8), claims(8)])


def test_4096_claims_are_guarded_at_the_default_limit():
    cut = guard(claims(4096))
    assert len(cut.exact) + len(cut.ranges) <= 64
    assert len(cut.writes) <= 64
    assert {len(part) for part in (*cut.writes, *cut.reads)} == {64}


def test_one_more_write_than_4096_is_too_large():
    with pytest.raises(TransactionTooLarge, match="needs 4097 operations, the store accepts 4096"):
        guard(claims(4097))


def test_what_was_not_seen_completely_is_not_joined():
    with pytest.raises(TransactionTooLarge):
        guard(claims(1000, seen=0))


def test_few_compares_stay_exact_beside_many_writes():
    transaction = Transaction(claims(40).compares, claims(3000).operations)
    cut = guard(transaction)
    assert set(cut.exact) == set(transaction.compares)
    assert cut.ranges == ()


def test_compares_of_what_exists_and_of_prefixes_stay_exact():
    extra = (Seen("session/scheduler/a", 5), Quiet("claim/host/n1/", 3), Seen("slice/t/s", 7))
    cut = guard(claims(1000, extra=extra))
    assert set(extra) <= set(cut.exact)


def test_too_many_exact_compares_leave_no_room_for_a_guard():
    extra = tuple(Seen(f"slice/t/{number}", 5) for number in range(80))
    with pytest.raises(TransactionTooLarge):
        guard(claims(4000, extra=extra))
    assert guard(claims(4000, extra=extra[:60])).ranges


def test_ranges_are_cut_between_families_first_and_then_between_nodes():
    keys = [
        *(f"claim/engine/n{node}/{engine}" for node in range(4) for engine in range(300)),
        *(f"claim/lane/l{link}/out/{lane}" for link in range(2) for lane in range(300)),
        "placement/t/s",
    ]
    transaction = Transaction(tuple(Seen(k, 0) for k in keys), tuple(Put(k, b"") for k in keys), 9)
    ranges = [*guard(transaction).ranges]
    assert not any(r.first.split("/")[1] != r.last.split("/")[1] for r in ranges)
    assert len({r.first.split("/")[2] for r in ranges}) == 6
    assert all(r.first.split("/")[2] == r.last.split("/")[2] for r in ranges)
    assert Seen("placement/t/s", 0) in guard(transaction).exact


def test_a_key_that_is_newer_than_the_view_is_not_inside_a_range():
    newer = Seen("claim/engine/n0009/3x", 12)
    cut = guard(claims(1000, seen=9, extra=(newer,)))
    assert not any(span.first < newer.key < span.last for span in cut.ranges)
    older = Seen("claim/engine/n0009/3x", 5)
    assert guard(claims(1000, seen=9, extra=(older,))).ranges


@given(
    count=st.integers(1, 600),
    writes=st.integers(0, 600),
    exact=st.integers(0, 20),
    operations_max=st.sampled_from([14, 32, 64, 128]),
)
def test_every_guard_fits_and_covers_each_compare_and_write(count, writes, exact, operations_max):
    extra = tuple(Seen(f"slice/t/{number}", 5) for number in range(exact))
    large = Transaction(claims(count, extra=extra).compares, claims(writes).operations, seen=9)
    try:
        cut = guard(large, operations_max)
    except TransactionTooLarge:
        most = (operations_max // 2) ** 2
        assert max(len(large.compares), writes) > most or exact + 1 > operations_max // 2
        return
    outer = max(len(cut.exact) + len(cut.ranges), len(cut.writes), len(cut.reads))
    inner = max(map(len, (*cut.writes, *cut.reads)), default=0)
    assert outer + inner <= operations_max
    assert [w for part in cut.writes for w in part] == list(large.operations)
    assert [c for part in cut.reads for c in part] == list(large.compares)
    absent = [c for c in claims(count).compares if isinstance(c, Seen)]
    covered = {c for c in large.compares if c in cut.exact}
    for span in cut.ranges:
        covered |= {Seen(c.key, 0) for c in absent if span.first <= c.key <= span.last}
    assert covered == set(large.compares)
    assert all(
        left.last < right.first for left, right in zip(cut.ranges, cut.ranges[1:], strict=False)
    )


def test_a_range_names_its_first_and_last_key():
    cut = guard(claims(4096))
    first, last = cut.ranges[0].first, cut.ranges[-1].last
    assert (first, last) == ("claim/engine/n0000/0", "claim/engine/n0511/7")
    assert all(isinstance(span, KeyRange) for span in cut.ranges)
