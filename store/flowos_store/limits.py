"""What fits into one request, and how is a transaction guarded that does not?"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple

from flowos.model.errors import StoreRefused, TransactionTooLarge
from flowos.model.transaction import Compare, Operation, Quiet, Seen, Transaction

OPERATIONS_DEFAULT: Final = 128  # etcd's default --max-txn-ops


def operations_needed(transactions: Sequence[Transaction]) -> int:
    """Return the operation count that etcd holds against its limit for this request.

    It counts the longest list of each level along a nesting path: for a group that is one nested
    transaction per member, and below it the longest list of any member.
    """
    longest = max((max(len(t.compares), len(t.operations)) for t in transactions), default=0)
    return longest if len(transactions) == 1 else len(transactions) + longest


def fits(transactions: Sequence[Transaction], operations_max: int = OPERATIONS_DEFAULT) -> bool:
    """Tell whether these transactions go into one request as they are."""
    return operations_needed(transactions) <= operations_max


def largest_group(
    transactions: Sequence[Transaction], operations_max: int = OPERATIONS_DEFAULT
) -> int:
    """Return how many of the transactions, from the first on, may share one request.

    At least 1 where there is any: a transaction that is too large for a group goes alone, where
    the store may still guard it by ranges.
    """
    longest = 0
    for size, transaction in enumerate(transactions, start=1):
        longest = max(longest, len(transaction.compares), len(transaction.operations))
        if size > 1 and size + longest > operations_max:
            return size - 1
    return len(transactions)


def refuse_double_writes(transactions: Sequence[Transaction]) -> None:
    """Refuse a request that names a key in two operations, whichever of them would apply.

    etcd refuses two puts of one key by looking at the request alone, so rivals in one request are
    no way to have one of them win. It lets pass a put in one member and a deletion in a later one;
    we don't, for nobody can mean that.

    Raises:
        StoreRefused: A key stands in two operations.
    """
    written: set[str] = set()
    operations = 0
    for transaction in transactions:
        operations += len(transaction.operations)
        written.update([operation.key for operation in transaction.operations])
    if len(written) == operations:
        return
    seen: set[str] = set()
    for transaction in transactions:
        for operation in transaction.operations:
            if operation.key in seen:
                raise StoreRefused(
                    f"one request writes {operation.key} twice: put the second write into a later "
                    "request"
                )
            seen.add(operation.key)


class KeyRange(NamedTuple):
    """All keys from `first` to `last`, both included, also those that nobody named."""

    first: str
    last: str


@dataclass(frozen=True, slots=True)
class Guarded:
    """One transaction in the shape that a small limit accepts: guard outside, writes nested.

    It applies if all of `exact` hold and no key in `ranges` was put after the transaction's `seen`.

    Attributes:
        exact: Compares that stay as they were asked for.
        ranges: What is left of the compares of absent keys.
        writes: The operations, one nested transaction each; no list is longer than accepted.
        reads: The original compares, cut in the same way, for the fresh values of a conflict.
    """

    exact: tuple[Compare, ...]
    ranges: tuple[KeyRange, ...]
    writes: tuple[tuple[Operation, ...], ...]
    reads: tuple[tuple[Compare, ...], ...]


def guard(transaction: Transaction, operations_max: int = OPERATIONS_DEFAULT) -> Guarded:
    """Cut a transaction that is larger than the limit into a shape that the limit accepts.

    With 128 operations that is at most 4,096 writes and 64 compares, after those of absent keys
    were joined; fewer writes leave room for more compares.

    Raises:
        TransactionTooLarge: No shape is small enough.
    """
    longest = max(len(transaction.compares), len(transaction.operations))
    outer = _outer_length(longest, operations_max)
    inner = operations_max - outer
    absent = sorted(c.key for c in transaction.compares if isinstance(c, Seen) and not c.revision)
    exact = [c for c in transaction.compares if isinstance(c, Quiet) or c.revision]
    if transaction.seen and len(transaction.compares) > outer:
        joined = _joined(absent, exact, transaction.seen, outer - len(exact))
    else:
        joined = [KeyRange(key, key) for key in absent]
    if len(exact) + len(joined) > outer:
        raise TransactionTooLarge(len(exact) + len(joined), outer)
    # A range of one key needs no detour over `seen`.
    exact += [Seen(first, 0) for first, last in joined if first == last]
    return Guarded(
        exact=tuple(exact),
        ranges=tuple(span for span in joined if span.first != span.last),
        writes=tuple(
            transaction.operations[start : start + inner]
            for start in range(0, len(transaction.operations), inner)
        ),
        reads=tuple(
            transaction.compares[start : start + inner]
            for start in range(0, len(transaction.compares), inner)
        ),
    )


def _outer_length(longest: int, operations_max: int) -> int:
    # Both levels together may have operations_max entries in their longest lists. The more the
    # outer one gets, the finer are the guards, so take the longest that leaves room below.
    half = operations_max // 2
    if longest > half * (operations_max - half):
        raise TransactionTooLarge(longest, half * (operations_max - half))
    outer = operations_max - 1
    while outer * (operations_max - outer) < longest:
        outer -= 1
    return outer


def _joined(
    absent: Sequence[str], exact: Sequence[Compare], seen: int, ranges_max: int
) -> list[KeyRange]:
    """Join sorted keys into at most `ranges_max` ranges (1 at least), cut where least is between."""
    if not absent:
        return []
    # A key that was put after `seen`, and is compared as such, would break any range across it.
    newer = sorted(c.key for c in exact if isinstance(c, Seen) and c.revision > seen)

    def closeness(boundary: int) -> tuple[bool, int, int, int]:
        before, behind = absent[boundary - 1], absent[boundary]
        shared = _shared_start(before, behind)
        apart = any(before < key < behind for key in newer)
        return (not apart, shared.count("/"), len(shared), boundary)

    cuts = sorted(sorted(range(1, len(absent)), key=closeness)[: max(0, ranges_max - 1)])
    return [
        KeyRange(absent[start], absent[end - 1]) for start, end in pairwise([0, *cuts, len(absent)])
    ]


def _shared_start(one: str, other: str) -> str:
    for at, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return one[:at]
    return min(one, other, key=len)
