"""Are the bytes that are put together by hand what protobuf makes of the same request?"""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from flowos.model.transaction import Delete, Put, Quiet, Seen, Transaction
from flowos_store import encoding, limits
from flowos_store.wire import rpc

ROOT = b"/flowos/main/"
LESS, MOD = 2, 2  # etcdserverpb.Compare.LESS and Compare.MOD

# Long keys and values cross the sizes at which a length takes another byte.
keys = st.text(min_size=1, max_size=30) | st.integers(100, 300).map("k".__mul__)
values = st.binary(max_size=20) | st.sampled_from([100, 127, 128, 5000, 20_000]).map(bytes)
revisions = st.integers(0, 300) | st.integers(0, 2**62)
leases = st.just(0) | st.integers(1, 2**62)
compares = st.builds(Seen, keys, revisions) | st.builds(Quiet, keys, revisions)
operations = st.builds(Put, keys, values, leases) | st.builds(Delete, keys)
transactions = st.builds(
    Transaction,
    st.lists(compares, max_size=6).map(tuple),
    st.lists(operations, max_size=6).map(tuple),
    revisions,
)


def full(key: str) -> bytes:
    return ROOT + key.encode("utf-8", "surrogateescape")


def end(prefix: str) -> bytes:
    return full(prefix)[:-1] + bytes((full(prefix)[-1] + 1,))


def write(request: Any, transaction: Transaction) -> None:
    request.SetInParent()  # a member that asks for nothing is a member all the same
    for compare in transaction.compares:
        message = request.compare.add(target=MOD)
        if isinstance(compare, Seen):
            message.key, message.mod_revision = full(compare.key), compare.revision
        else:
            message.result, message.key = LESS, full(compare.prefix)
            message.range_end, message.mod_revision = end(compare.prefix), compare.since + 1
    write_operations(request.success, transaction)
    write_reads(request.failure, transaction.compares)


def write_operations(field: Any, transaction: Transaction) -> None:
    for operation in transaction.operations:
        if isinstance(operation, Put):
            put = field.add().request_put
            put.key, put.value, put.lease = full(operation.key), operation.value, operation.lease
        else:
            field.add().request_delete_range.key = full(operation.key)


def write_reads(field: Any, asked: tuple[Any, ...]) -> None:
    for compare in asked:
        read = field.add().request_range
        if isinstance(compare, Seen):
            read.key = full(compare.key)
        else:
            read.key, read.range_end = full(compare.prefix), end(compare.prefix)


@given(transactions)
def test_a_transaction_is_written_as_protobuf_writes_it(transaction):
    request = rpc.TxnRequest()
    write(request, transaction)
    assert encoding.plain(ROOT, transaction) == request.SerializeToString()


@given(st.lists(transactions, max_size=4))
def test_a_group_is_written_as_protobuf_writes_it(members):
    request = rpc.TxnRequest()
    for member in members:
        write(request.success.add().request_txn, member)
    assert encoding.group(ROOT, members) == request.SerializeToString()


@given(st.integers(1, 300), st.integers(8, 64), st.integers(1, 2**62))
def test_a_transaction_that_had_to_be_cut_is_written_as_protobuf_writes_it(size, most, seen):
    names = [f"claim/engine/n{n:03}" for n in range(min(size, most * most // 4))]
    transaction = Transaction(
        (Seen("session/me", 7), Quiet("claim/host/n0/", 3), *(Seen(n, 0) for n in names)),
        tuple(Put(name, b"x") for name in names),
        seen=seen,
    )
    guard = limits.guard(transaction, 4 * most)
    request = rpc.TxnRequest()
    write(request, Transaction(guard.exact, ()))
    del request.failure[:]
    for span in guard.ranges:
        compare = request.compare.add(result=LESS, target=MOD)
        compare.key, compare.range_end = full(span.first), full(span.last) + b"\0"
        compare.mod_revision = seen + 1
    for part in guard.writes:
        write_operations(request.success.add().request_txn.success, Transaction((), part))
    for asked in guard.reads:
        write_reads(request.failure.add().request_txn.success, asked)
    assert encoding.guarded(ROOT, guard, seen) == request.SerializeToString()


def test_a_key_that_is_no_text_is_written_with_the_bytes_it_was_read_with():
    name = b"foreign/\xff\xfe".decode("utf-8", "surrogateescape")
    written = encoding.plain(ROOT, Transaction((Seen(name, 1),), (Delete(name),)))
    request = rpc.TxnRequest.FromString(written)
    assert request.compare[0].key == ROOT + b"foreign/\xff\xfe"
    assert request.success[0].request_delete_range.key == ROOT + b"foreign/\xff\xfe"
