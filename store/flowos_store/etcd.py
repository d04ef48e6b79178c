"""What does etcd say? The cell's state kept there, spoken to in single round trips."""

import contextlib
import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import grpc

from flowos.model import collector
from flowos.model.errors import (
    OutcomeUnknown,
    RevisionCompacted,
    StoreFull,
    StoreRefused,
    StoreUnreachable,
    TransactionTooLarge,
    UnsafeServer,
)
from flowos.model.protocols import Lease, Watch
from flowos.model.transaction import (
    Committed,
    Compare,
    Conflicted,
    Outcome,
    Put,
    Quiet,
    Reading,
    Seen,
    Transaction,
    Versioned,
    WatchMessage,
)
from flowos_store import encoding, limits, versions
from flowos_store.attempts import TORN
from flowos_store.connection import Connection, Tls
from flowos_store.encoding import ENCODING
from flowos_store.failures import TooManyOperations, code_of
from flowos_store.origins import Origins
from flowos_store.subscription import Newest, Span
from flowos_store.watch import EtcdWatch
from flowos_store.wire import rpc

PAGE_KEYS: Final = 20_000  # 100,000 keys in 0.67 s, against 0.63 in one page and 1.1 in 5,000s
PAGES_MAX: Final = (
    8  # each page makes etcd count all that follow, so large listings take longer ones
)
# What servers are started with, the largest first; a larger transaction is guarded by ranges.
OPERATIONS_PROBED: Final = (4096, 2048, 1024, 512, 256, 128, 64, 32)


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """How the member that answered sees itself and its cluster.

    Attributes:
        version: "3.5.30".
        leader: The leading member's name; empty = there is none.
        revision: The newest revision.
        database_bytes: The size of its file.
        database_bytes_used: Of these, what a defragmentation would leave.
        alarms: What is wrong, in etcd's words.
    """

    version: str
    leader: str
    revision: int
    database_bytes: int
    database_bytes_used: int
    alarms: tuple[str, ...]


class EtcdStore:
    """A cell's state in etcd, below /flowos/<cell>/: a `CellStore` with `Maintenance`.

    One instance may be used by several threads. Only processes that are spawned, not forked, may
    use it: grpc hangs in a forked child.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        cell: str = "main",
        *,
        tls: Tls | None = None,
        user: str = "",
        password: str = "",
        allow_unsafe: bool = False,
        connect_timeout_seconds: float = 5.0,
        read_timeout_seconds: float = 30.0,
        silent_seconds: float = 10.0,
        jitter: random.Random | None = None,
    ) -> None:
        """Connect, log in, and look at the server's version.

        Args:
            endpoints: "host:port" or an http or https URL of each member.
            cell: Which cell; etcd may keep several.
            tls: How to secure the connection, where https and the system's authorities don't do.
            user: Who to log in as; empty = nobody, or whom the client certificate names.
            password: The user's; also works without TLS.
            allow_unsafe: Take servers that are known to lose data.
            connect_timeout_seconds: How long a server may take to answer the first question.
            read_timeout_seconds: How long one page of a listing, or any other question, may take.
            silent_seconds: How long a watch waits for an answer before it opens its stream again.
            jitter: Spreads the reopening of many clients.

        Raises:
            SpecError: An endpoint or certificate that cannot be.
            StoreUnreachable: Nobody answered in time.
            StoreRefused: The login failed.
            UnsafeServer: The server is known to lose data.
        """
        self._root = f"/flowos/{cell}/".encode(*ENCODING)
        self._connection = Connection(
            endpoints,
            tls=tls,
            user=user,
            password=password,
            timeout_seconds=read_timeout_seconds,
        )
        self._read_timeout_seconds = read_timeout_seconds
        self._silent_seconds = silent_seconds
        self._jitter = jitter or random.Random()
        self._operations_max = limits.OPERATIONS_DEFAULT
        self._probed = False
        self._watches: list[EtcdWatch] = []
        self._origins = Origins()
        client = self._connection.client
        self._kv, self._maintenance = client.kvstub, client.maintenancestub
        self._txn = self._connection.members.calls.unary_unary(
            "/etcdserverpb.KV/Txn", response_deserializer=rpc.TxnResponse.FromString
        )
        try:
            self._connect(connect_timeout_seconds, allow_unsafe=allow_unsafe)
        except BaseException:
            self._connection.close()
            raise

    def _connect(self, timeout_seconds: float, *, allow_unsafe: bool) -> None:
        connection = self._connection
        try:
            # With auth on, not even the version is told to strangers.
            if connection.has_user:
                connection.log_in(patience_seconds=timeout_seconds)
            told = connection.version(timeout_seconds)
        except StoreUnreachable as error:
            raise StoreUnreachable(
                f"no etcd answered at {connection.endpoints} in {timeout_seconds:g} s: "
                f"{connection.why_not or error}"
            ) from error
        if told and not allow_unsafe:
            version = versions.parse(told)
            refusal = versions.judge(version).refusal
            # Asking costs a write, so only servers are asked where the answer matters.
            if not refusal and versions.judge(version, auth=True).refusal:
                refusal = versions.judge(version, auth=connection.auth_is_on()).refusal
            if refusal:
                raise UnsafeServer(
                    f"etcd {versions.shown(version)} at {connection.endpoints} {refusal}, "
                    "or allow it by name for state that may be thrown away"
                )

    # ---------------------------------------------------------------------------- CellStore

    def commit(
        self, transactions: Sequence[Transaction], *, timeout_seconds: float = 5.0
    ) -> list[Outcome]:
        """Apply transactions in one request; see `CellStore.commit`.

        A single transaction beyond the server's limit is guarded by ranges (see `Transaction.seen`)
        and may then conflict over a key that it doesn't name: `broken` is empty, `seen` was old.
        """
        if not transactions:
            return []
        limits.refuse_double_writes(transactions)
        if not limits.fits(transactions, self._operations_max):
            self.operations_max()
        try:
            return self._commit(transactions, timeout_seconds)
        except TooManyOperations:
            # Smaller than the default. Nothing was written, so it may be cut anew.
            self._probe()
            return self._commit(transactions, timeout_seconds)
        except StoreFull as error:
            # Of the requests that meet the quota first, some are carried out and refused all the
            # same (3.5.30: 11 of 240). None of them is still on its way, so a read tells.
            if any(map(self._may_have_happened, transactions)):
                raise OutcomeUnknown(f"{error}; what was just written may be there") from error
            raise

    def _may_have_happened(self, transaction: Transaction) -> bool:
        put = next((o for o in transaction.operations if isinstance(o, Put)), None)
        if put is None:
            return False
        compared = {c.key: c.revision for c in transaction.compares if isinstance(c, Seen)}
        try:
            found = self._range(rpc.RangeRequest(key=self._key(put.key))).kvs
        except StoreUnreachable:
            return True
        return any(
            entry.value == put.value and entry.mod_revision != compared.get(put.key)
            for entry in found
        )

    def _commit(self, transactions: Sequence[Transaction], timeout_seconds: float) -> list[Outcome]:
        fits = limits.fits(transactions, self._operations_max)
        if len(transactions) > 1:
            if not fits:
                needed = limits.operations_needed(transactions)
                raise TransactionTooLarge(needed, self._operations_max)
            request = encoding.group(self._root, transactions)
        elif fits:
            request = encoding.plain(self._root, transactions[0])
        else:
            guard = limits.guard(transactions[0], self._operations_max)
            request = encoding.guarded(self._root, guard, transactions[0].seen)
        answer = self._connection.ask(
            lambda: self._txn(request, timeout_seconds, metadata=self._connection.metadata),
            wrote=True,
        )
        if len(transactions) > 1:
            return self._group_outcomes(transactions, answer)
        revision = answer.header.revision
        if answer.succeeded:
            return [Committed(revision)]
        replies = answer.responses if fits else _flattened(answer.responses)
        return [self._conflict(transactions[0].compares, replies, revision)]

    def read(self, prefixes: Sequence[str], *, at: int = 0) -> Reading:
        """Return all keys under the prefixes at one revision; see `CellStore.read`."""
        records: list[Versioned] = []
        spans = deque(self._span(prefix) for prefix in sorted(prefixes))
        revision, cluster = at, 0
        page = self._page(*(span := spans.popleft()), revision) if spans else None
        with collector.paused():
            while page is not None:
                answer = page()
                revision = revision or answer.header.revision
                cluster = self._origins.note(revision, answer.header.cluster_id, cluster)
                # etcd looks for the next page while records are made of this one.
                page = None
                if answer.more:
                    begin, limit = answer.kvs[-1].key + b"\0", answer.count // PAGES_MAX
                    page = self._page(begin, span.end, revision, limit=limit, ahead=True)
                elif spans:
                    page = self._page(*(span := spans.popleft()), revision, ahead=True)
                records += self._records(answer.kvs)
        return Reading(revision, records)

    def watch(
        self, prefixes: Sequence[str], *, after: int, deliver: Callable[[WatchMessage], None]
    ) -> Watch:
        """Deliver every change with a revision above `after`; see `CellStore.watch`."""
        assert prefixes, "a watch on nothing would never tell anything"
        assert after >= 0, "revisions start at 1"
        watch = EtcdWatch(
            self._connection,
            [self._span(prefix) for prefix in prefixes],
            root_length=len(self._root),
            after=after,
            cluster=self._origins.of(after),
            deliver=deliver,
            newest=self._newest,
            silent_seconds=self._silent_seconds,
            jitter=self._jitter,
        )
        self._watches = [old for old in self._watches if not old.is_over()] + [watch]
        return watch

    def lease(self, ttl_seconds: int) -> Lease:
        """Grant a lease; etcd rounds very short ones up, to 2 s by default."""
        client = self._connection.client
        granted = self._connection.ask(lambda: client.lease(ttl_seconds))
        return EtcdLease(self._connection, granted)

    def close(self) -> None:
        """Close connections and end every watch of this store."""
        for watch in self._watches:
            watch.close()
        self._watches.clear()
        self._connection.close()

    # -------------------------------------------------------------------------- Maintenance

    def compact(self, before: int) -> None:
        """Drop the history before this revision, for every cell in this etcd.

        Raises:
            StoreRefused: The revision is in the future.
            StoreUnreachable: No answer.
        """
        client = self._connection.client
        if before > 1:
            try:
                self._connection.ask(lambda: client.compact(before))
            except StoreRefused as error:
                if "has been compacted" not in str(error):
                    raise

    def oldest(self) -> int:
        """Return the oldest revision whose state can still be read; some 25 short questions."""
        # etcd tells it only to watches, when it feels like it. Asking for halves is quicker.
        kept, gone = self._newest().revision, 0
        while kept - gone > 1:
            middle = (kept + gone) // 2
            if self._is_kept(middle):
                kept = middle
            else:
                gone = middle
        return kept

    # ------------------------------------------------------------- what only this store has

    def operations_max(self) -> int:
        """Return how many operations the server takes in one request; asks it once.

        Raises:
            StoreUnreachable: No answer.
        """
        if not self._probed:
            self._probe()
        return self._operations_max

    def fits(self, transactions: Sequence[Transaction]) -> bool:
        """Tell whether these transactions go into one request of this server's as they are."""
        # Probing is for single large gangs; groups stay below etcd's default.
        return limits.fits(transactions, self._operations_max)

    def status(self) -> ServerStatus:
        """Ask a member how it is.

        Raises:
            StoreUnreachable: No answer.
        """
        client, timeout = self._connection.client, self._read_timeout_seconds
        answer = self._connection.ask(
            lambda: self._maintenance.Status(
                rpc.StatusRequest(), timeout, metadata=self._connection.metadata
            )
        )
        members = self._connection.ask(lambda: list(client.members))
        return ServerStatus(
            version=answer.version,
            leader=next((m.name or hex(m.id) for m in members if m.id == answer.leader), ""),
            revision=answer.header.revision or self._newest().revision,
            database_bytes=answer.dbSize,
            database_bytes_used=answer.dbSizeInUse,
            alarms=tuple(answer.errors),
        )

    # ------------------------------------------------------------------------------ requests

    def _key(self, key: str) -> bytes:
        return self._root + key.encode(*ENCODING)

    def _span(self, prefix: str) -> Span:
        return Span(*encoding.span_of(self._root, prefix))

    # ------------------------------------------------------------------------------- answers

    def _record(self, entry: Any) -> Versioned:
        key = entry.key[len(self._root) :].decode(*ENCODING)
        return Versioned(key, entry.value, entry.create_revision, entry.mod_revision)

    def _records(self, entries: Iterable[Any]) -> list[Versioned]:
        """Return the same for many, in two thirds of the time."""
        start, new = len(self._root), tuple.__new__
        try:
            return [
                new(
                    Versioned,
                    (e.key[start:].decode(), e.value, e.create_revision, e.mod_revision),
                )
                for e in entries
            ]
        except UnicodeDecodeError:  # a foreign key
            return list(map(self._record, entries))

    def _group_outcomes(self, transactions: Sequence[Transaction], answer: Any) -> list[Outcome]:
        revision = answer.header.revision
        members = [response.response_txn for response in answer.responses]
        wrote = any(map(_wrote, transactions, members))
        outcomes: list[Outcome] = []
        for transaction, member in zip(transactions, members, strict=True):
            if member.succeeded:
                outcomes.append(Committed(revision))
            else:
                # Its values may hold some of what other members wrote at this revision, but not
                # all of it: they are whole only up to the one before.
                whole = revision - 1 if wrote else revision
                outcomes.append(self._conflict(transaction.compares, member.responses, whole))
        return outcomes

    def _conflict(
        self, compares: Iterable[Compare], replies: Iterable[Any], revision: int
    ) -> Conflicted:
        keys: dict[str, Versioned | None] = {}
        ranges: dict[str, tuple[Versioned, ...]] = {}
        for compare, reply in zip(compares, replies, strict=True):
            entries = reply.response_range.kvs
            if isinstance(compare, Quiet):
                ranges[compare.prefix] = tuple(map(self._record, entries))
            else:
                keys[compare.key] = self._record(entries[0]) if entries else None
        return Conflicted(revision, keys, ranges)

    # --------------------------------------------------------------------------------- reads

    def _range(self, request: Any) -> Any:
        return self._connection.ask(
            lambda: self._kv.Range(
                request, self._read_timeout_seconds, metadata=self._connection.metadata
            )
        )

    def _page(
        self, first: bytes, end: bytes, revision: int, *, limit: int = 0, ahead: bool = False
    ) -> Callable[[], Any]:
        """Return what waits for one page of keys.

        Args:
            first: The first key.
            end: Before which key to end.
            revision: 0 = the newest.
            limit: How many keys at most, where that is more than usual.
            ahead: Whether to ask for it now already, beside what else is done.
        """
        request = rpc.RangeRequest(
            key=first, range_end=end, limit=max(PAGE_KEYS, limit), revision=revision
        )
        begun: list[Any] = []
        if ahead:
            with contextlib.suppress(ValueError):  # closed: the call below says so
                begun.append(
                    self._kv.Range.future(
                        request, self._read_timeout_seconds, metadata=self._connection.metadata
                    )
                )

        def call() -> Any:
            if begun:
                try:
                    return begun.pop().result()
                except grpc.RpcError as error:
                    # A connection that broke meanwhile says nothing of how things are now.
                    if code_of(error) not in TORN:
                        raise
            return self._kv.Range(
                request, self._read_timeout_seconds, metadata=self._connection.metadata
            )

        def answer() -> Any:
            try:
                return self._connection.ask(call)
            except StoreRefused as error:
                if "has been compacted" in str(error):
                    raise RevisionCompacted(revision, self.oldest()) from error
                raise

        return answer

    def _newest(self) -> Newest:
        header = self._range(rpc.RangeRequest(key=self._root, count_only=True)).header
        return Newest(header.cluster_id, header.revision)

    def _is_kept(self, revision: int) -> bool:
        try:
            self._range(rpc.RangeRequest(key=self._root, count_only=True, revision=revision))
        except StoreRefused as error:
            if "has been compacted" in str(error):
                return False
            raise
        return True

    def _probe(self) -> None:
        """Find out by reads of nothing how many operations the server takes."""
        for operations in OPERATIONS_PROBED:
            request = rpc.TxnRequest()
            for _ in range(operations):
                request.success.add().request_range.key = self._root
            try:
                self._connection.ask(partial(self._probed_by, request))
            except TooManyOperations:
                continue
            except StoreRefused as error:
                # etcd counts before it looks at rights, so the size was not the problem.
                if "permission denied" not in str(error):
                    raise
            self._operations_max, self._probed = operations, True
            return
        raise StoreRefused(f"the server accepts fewer than {OPERATIONS_PROBED[-1]} operations")

    def _probed_by(self, request: Any) -> None:
        self._kv.Txn(request, self._read_timeout_seconds, metadata=self._connection.metadata)


class EtcdLease:
    """A lease in etcd."""

    def __init__(self, connection: Connection, lease: Any) -> None:
        self.id: int = lease.id
        self._connection = connection
        self._lease = lease

    def keep_alive(self) -> float:
        """Renew it; return the seconds left, 0 when it is over.

        Raises:
            StoreUnreachable: No answer; the lease may still live.
        """
        answers = self._connection.ask(self._lease.refresh)
        return float(answers[0].TTL) if answers else 0.0

    def revoke(self) -> None:
        """End it, with all its keys; no error if it is over already.

        Raises:
            StoreUnreachable: No answer; it runs out by itself.
        """
        try:
            self._connection.ask(self._lease.revoke)
        except StoreRefused as error:
            if "lease not found" not in str(error):
                raise


def _flattened(responses: Iterable[Any]) -> list[Any]:
    return [inner for outer in responses for inner in outer.response_txn.responses]


def _wrote(transaction: Transaction, member: Any) -> bool:
    """Tell whether a member of a group has changed anything."""
    if not member.succeeded:
        return False
    if any(isinstance(operation, Put) for operation in transaction.operations):
        return True
    return any(reply.response_delete_range.deleted for reply in member.responses)
