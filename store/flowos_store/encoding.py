"""How is a transaction written in etcd's messages?

A slice's commit is some fifty small messages inside one. Built object by object they cost more than
planning where the slice goes; so their bytes are put together here. A test holds them equal to what
protobuf makes of the same request.

Each line of a message is a tag, which says which field and of what kind, and the value: for a
nested message or bytes, how long it is and then the bytes; for a number, seven bits a byte.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from flowos.model.transaction import Compare, Operation, Put, Seen, Transaction
from flowos_store.limits import Guarded

ENCODING: Final = ("utf-8", "surrogateescape")  # a foreign key must not stop a whole listing

# A tag is the field's number times 8, plus 2 for bytes and messages, and 0 for numbers.
_COMPARE, _SUCCESS, _FAILURE = b"\x0a", b"\x12", b"\x1a"  # of etcdserverpb.TxnRequest
_RANGE, _PUT, _DELETE, _TXN = b"\x0a", b"\x12", b"\x1a", b"\x22"  # of RequestOp
# Of Compare: target MOD, perhaps with result LESS before it; the default is EQUAL.
_MOD_EQUAL, _MOD_LESS = b"\x10\x02\x1a", b"\x08\x02\x10\x02\x1a"  # and the tag of its key
_REVISION, _COMPARE_END = b"\x30", b"\x82\x04"
_KEY, _END, _VALUE, _LEASE = b"\x0a", b"\x12", b"\x12", b"\x18"  # of ranges, puts and deletions


class _Numbers(dict[int, bytes]):
    """Numbers as protobuf writes them; the small ones, lengths above all, are kept."""

    def __missing__(self, number: int) -> bytes:
        if not 0 <= number < 1 << 63:
            raise ValueError(f"{number} is out of the range of etcd's numbers")
        written = bytearray()
        while number > 0x7F:
            written.append(number & 0x7F | 0x80)
            number >>= 7
        written.append(number)
        return bytes(written)


_NUMBERS: Final = _Numbers()
_NUMBERS.update({number: _NUMBERS[number] for number in range(4096)})


def plain(root: bytes, transaction: Transaction) -> bytes:
    """Return a TxnRequest: compares, operations, and reads of all that is compared otherwise.

    Args:
        root: What stands before every key.
        transaction: What is asked.
    """
    compares, reads = _compares_and_reads(root, transaction.compares)
    return b"".join((*compares, *_operations(root, transaction.operations), *reads))


def group(root: bytes, transactions: Sequence[Transaction]) -> bytes:
    """Return a TxnRequest in which each transaction is a nested one."""
    return b"".join(_within(_SUCCESS, _TXN, plain(root, each)) for each in transactions)


def guarded(root: bytes, guard: Guarded, seen: int) -> bytes:
    """Return a TxnRequest for a transaction that had to be cut.

    Args:
        root: What stands before every key.
        guard: The transaction as it was cut.
        seen: The revision since which nothing may have been put into its ranges.
    """
    compares, _ = _compares_and_reads(root, guard.exact)
    compares += [
        _within_ranges(root, first.encode(*ENCODING), last.encode(*ENCODING), seen)
        for first, last in guard.ranges
    ]
    writes = [
        _within(_SUCCESS, _TXN, b"".join(_operations(root, operations)))
        for operations in guard.writes
    ]
    reads = [
        # What is read is what the nested transaction does, whatever it compares: nothing.
        _within(_FAILURE, _TXN, b"".join(_compares_and_reads(root, part, read=_SUCCESS)[1]))
        for part in guard.reads
    ]
    return b"".join((*compares, *writes, *reads))


def span_of(root: bytes, prefix: str) -> tuple[bytes, bytes]:
    """Return a prefix as etcd takes it: from the first key on, to before the second."""
    first = root + prefix.encode(*ENCODING)
    # The root ends in "/", and no UTF-8 byte is 0xff, so the last byte can always be raised.
    return first, first[:-1] + bytes((first[-1] + 1,))


def _compares_and_reads(
    root: bytes, compares: Iterable[Compare], *, read: bytes = _FAILURE
) -> tuple[list[bytes], list[bytes]]:
    numbers = _NUMBERS
    asked: list[bytes] = []
    reads: list[bytes] = []
    for compare in compares:
        if isinstance(compare, Seen):
            name, revision = compare
            # Encoding is quickest where nothing is said of how.
            key = root + (name.encode() if name.isascii() else name.encode(*ENCODING))
            size = numbers[len(key)]
            body = b"%b%b%b%b%b" % (_MOD_EQUAL, size, key, _REVISION, numbers[revision])
            question = b"%b%b%b" % (_KEY, size, key)
        else:
            key, end = span_of(root, compare.prefix)
            size = numbers[len(key)]
            since = numbers[compare.since + 1]
            body = b"%b%b%b%b%b%b%b%b" % (
                _MOD_LESS, size, key, _REVISION, since, _COMPARE_END, size, end,
            )  # fmt: skip
            question = b"%b%b%b%b%b%b" % (_KEY, size, key, _END, size, end)
        asked.append(b"%b%b%b" % (_COMPARE, numbers[len(body)], body))
        size = numbers[len(question)]  # as `_within` does; the call alone would take a third more
        whole = numbers[1 + len(size) + len(question)]
        reads.append(b"%b%b%b%b%b" % (read, whole, _RANGE, size, question))
    return asked, reads


def _within_ranges(root: bytes, first: bytes, last: bytes, seen: int) -> bytes:
    key, end = root + first, root + last + b"\0"
    body = b"".join(
        (
            *(_MOD_LESS, _NUMBERS[len(key)], key, _REVISION, _NUMBERS[seen + 1]),
            *(_COMPARE_END, _NUMBERS[len(end)], end),
        )
    )
    return _COMPARE + _NUMBERS[len(body)] + body


def _operations(root: bytes, operations: Iterable[Operation]) -> list[bytes]:
    numbers = _NUMBERS
    found: list[bytes] = []
    for operation in operations:
        name = operation.key
        key = root + (name.encode() if name.isascii() else name.encode(*ENCODING))
        body = b"%b%b%b" % (_KEY, numbers[len(key)], key)
        kind = _DELETE
        if isinstance(operation, Put):
            kind, value = _PUT, operation.value
            if value:  # a field that has its default is left out
                body = b"%b%b%b%b" % (body, _VALUE, numbers[len(value)], value)
            if operation.lease:
                body += _LEASE + numbers[operation.lease]
        found.append(_within(_SUCCESS, kind, body))
    return found


def _within(outer: bytes, kind: bytes, body: bytes) -> bytes:
    """Return a RequestOp of this kind as a line of a TxnRequest."""
    size = _NUMBERS[len(body)]
    return b"%b%b%b%b%b" % (outer, _NUMBERS[len(kind) + len(size) + len(body)], kind, size, body)
