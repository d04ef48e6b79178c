"""What etcd alone can do: the same transactions, built beforehand, on the bare gRPC stubs.

The transactions are those of the protocol's own rules, for the same requests on the same cell: the
same keys, the same bytes. They are planned and encoded before the clock starts; what is timed is
the stub's call alone: protobuf's serializing, the wire, etcd's commit with fsync, the answer. So
raw pays neither for planning nor for building messages, nor for following the cell.
"""

import itertools
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self

import grpc
from commit_parts.cells import Mix, Spent

from flowos.model.placement import Unplaceable
from flowos.model.slice import Slice, SliceSpec
from flowos.model.transaction import Put, Seen, Transaction
from flowos.model.view import Entry
from flowos.protocol.commit import commit
from flowos.protocol.proposal import Proposal
from flowos.protocol.release import GIVEN_BACK, release
from flowos.runtime.embedded import EmbeddedScheduler
from flowos.runtime.processes import new_attempt
from flowos_schedulers.batch import Batch
from flowos_store import EtcdStore
from flowos_store.wire import etcdrpc, rpc

ROOT = b"/flowos/main/"  # of the cell that is measured
COPIES = itertools.count()  # each below a prefix of its own
LESS, MOD = 2, 2  # etcdserverpb.Compare.LESS and Compare.MOD
TXN = "/etcdserverpb.KV/Txn"
STREAMS = ("/etcdserverpb.Watch/Watch", "/etcdserverpb.Lease/LeaseKeepAlive")
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


# --------------------------------------------------------------------------- the same transactions


def planned(scheduler: EmbeddedScheduler, spec: SliceSpec, *, new: bool = True) -> Proposal:
    """Return the step that places a slice, and assume it in the scheduler's view.

    Args:
        scheduler: Whose view, session and grants it is; it does not send the step.
        spec: The request.
        new: Whether the slice's own record is written by the same transaction.
    """
    view, session = scheduler.view, scheduler.session
    decision = Batch().plan(scheduler.pool, spec, seed=0, avoid=frozenset())
    if isinstance(decision, Unplaceable):
        raise SystemExit(f"{spec.id}: {decision.sentence}")
    step = commit(
        view,
        spec.id,
        decision,
        fence=session.fence,
        attempt=new_attempt(),
        scheduler=session.id,
        spec=(spec.id, Slice(spec=spec, submitted_at=time.time())) if new else None,  # noqa: TID251
    )
    assert step is not None
    assert step.placement is not None
    view.assume(spec.id, step.placement)
    return step


def released(scheduler: EmbeddedScheduler, name: str, written_at: int) -> Proposal:
    """Return the step that moves a slice to releasing, as its client's.

    Args:
        scheduler: Whose view and session it is; it does not send the step.
        name: The slice.
        written_at: The revision of its own record, which the view may not know.
    """
    view = scheduler.view
    known: Any = Entry(None, written_at, written_at)
    view.slices[name] = known
    step = release(view, name, GIVEN_BACK, fence=scheduler.session.fence)
    del view.slices[name]
    assert step is not None
    return step


def encoded(transaction: Transaction, root: bytes = ROOT) -> Any:
    """Return the message that asks etcd for a transaction, as the store writes it."""
    request = rpc.TxnRequest()
    for compare in transaction.compares:
        message, read = request.compare.add(), request.failure.add().request_range
        message.target = MOD
        if isinstance(compare, Seen):
            message.key = read.key = root + compare.key.encode()
            message.mod_revision = compare.revision
        else:
            message.result = LESS
            message.key = read.key = root + compare.prefix.encode()
            end = message.key[:-1] + bytes((message.key[-1] + 1,))
            message.range_end = read.range_end = end
            message.mod_revision = compare.since + 1
    for operation in transaction.operations:
        key = root + operation.key.encode()
        if isinstance(operation, Put):
            put = request.success.add().request_put
            put.key, put.value = key, operation.value
        else:
            request.success.add().request_delete_range.key = key
    return request


class Recorder(grpc.GenericRpcHandler):
    """A proxy on loopback that passes everything on and keeps the transactions' bytes."""

    def __init__(self, endpoint: str) -> None:
        """Stand before an etcd."""
        self._channel = grpc.insecure_channel(endpoint, options=UNLIMITED)
        self._server = grpc.server(ThreadPoolExecutor(32), handlers=[self], options=UNLIMITED)
        self.endpoint = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self.kept: list[bytes] = []

    def __enter__(self) -> Self:
        """Begin to serve."""
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self._server.stop(None)
        self._channel.close()

    def service(self, handler_call_details: Any) -> Any:
        """Return who answers a method; called by grpc."""
        method = handler_call_details.method
        if method in STREAMS:
            stream = self._channel.stream_stream(method)
            return grpc.stream_stream_rpc_method_handler(lambda asked, _: stream(asked))
        call = self._channel.unary_unary(method)

        def ask(question: bytes, _: Any) -> bytes:
            if method == TXN:
                self.kept.append(question)
            answer: bytes = call(question)
            return answer

        return grpc.unary_unary_rpc_method_handler(ask)


def check_encoding(scheduler: EmbeddedScheduler, endpoint: str) -> None:
    """Make sure that what raw sends is what the store sends, to the byte; leaves a slice behind."""
    with Recorder(endpoint) as recorder:
        store = EtcdStore([recorder.endpoint])
        step = planned(scheduler, Mix(stem="same").of(8))
        recorder.kept.clear()
        store.commit([step.transaction])
        store.close()
    (kept,) = recorder.kept
    ours = encoded(step.transaction)
    assert rpc.TxnRequest.FromString(kept) == ours, "the store sends something else by now"
    assert len(kept) == ours.ByteSize()


# -------------------------------------------------------------------------------------- sending it


@dataclass
class Timing:
    """How long a number of calls took."""

    seconds: float
    cpu_seconds: float
    samples: list[float]


class Raw:
    """Sends messages, timed."""

    def __init__(self, endpoint: str) -> None:
        """Open a channel of its own."""
        self._channel = grpc.insecure_channel(endpoint, options=UNLIMITED)
        self._txn = etcdrpc.KVStub(self._channel).Txn

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def copies(self, transactions: Sequence[Transaction]) -> list[Any]:
        """Return messages that write the same below a prefix that nobody watches.

        What they compare with something that is there, is put there first.
        """
        root = f"/flowos/r{next(COPIES):03d}/".encode()
        assert len(root) == len(ROOT)
        there = sorted(
            {c.key for t in transactions for c in t.compares if isinstance(c, Seen) and c.revision}
        )
        revisions: dict[bytes, int] = {}
        for start in range(0, len(there), 100):
            request = rpc.TxnRequest()
            for key in there[start : start + 100]:
                put = request.success.add().request_put
                put.key, put.value = root + key.encode(), b"there"
            revision = self._txn(request).header.revision
            revisions |= {op.request_put.key: revision for op in request.success}
        requests = [encoded(transaction, root) for transaction in transactions]
        for request in requests:
            for compare in request.compare:
                if compare.mod_revision and not compare.range_end:
                    compare.mod_revision = revisions[compare.key]
        return requests

    def one_in_flight(self, requests: Sequence[Any]) -> Timing:
        """Send one after the other."""
        samples: list[float] = []
        with Spent() as spent:
            for request in requests:
                before = time.perf_counter()
                answer = self._txn(request)
                samples.append(time.perf_counter() - before)
                assert answer.succeeded, _why(request, answer)
        return Timing(spent.seconds, spent.cpu_seconds, samples)

    def in_flight(self, requests: Sequence[Any], threads: int) -> Timing:
        """Send with so many blocking threads."""
        left = iter(requests)
        lock = threading.Lock()
        samples: list[float] = []

        def following() -> Iterator[Any]:
            while True:
                with lock:
                    request = next(left, None)
                if request is None:
                    return
                yield request

        def work() -> None:
            for request in following():
                before = time.perf_counter()
                answer = self._txn(request)
                took = time.perf_counter() - before
                if answer.succeeded:
                    samples.append(took)

        workers = [threading.Thread(target=work) for _ in range(threads)]
        with Spent() as spent:
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
        assert len(samples) == len(requests), "a raw transaction failed"
        return Timing(spent.seconds, spent.cpu_seconds, samples)


def _why(request: Any, answer: Any) -> str:
    """Return what of a transaction did not hold, for the one who mends this file."""
    found = [
        f"{compare.key.decode()} at {compare.mod_revision}: now "
        f"{[entry.mod_revision for entry in reply.response_range.kvs]}"
        for compare, reply in zip(request.compare, answer.responses, strict=True)
    ]
    return "; ".join(found)
