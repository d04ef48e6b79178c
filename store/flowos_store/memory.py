"""What does a cell's shared state answer? The whole of it in memory: the specification of etcd's.

Where this store and etcd answer differently, one of them is wrong: `tests/property` holds them
equal step by step.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from flowos.model.errors import RevisionCompacted, StoreRefused, TransactionTooLarge
from flowos.model.protocols import Clock, Lease, Watch
from flowos.model.transaction import (
    Change,
    Changes,
    Committed,
    Compare,
    Conflicted,
    Lost,
    Operation,
    Outcome,
    Progress,
    Put,
    Reading,
    Seen,
    Transaction,
    Versioned,
    WatchMessage,
)
from flowos_store import limits
from flowos_store.sorted_keys import SortedKeys


class _Edit(NamedTuple):
    """One key's change and what it replaced, so that it can be taken back."""

    key: str
    before: Versioned | None
    change: Change


@dataclass(slots=True)
class _Grant:
    ttl_seconds: int
    deadline: float
    keys: set[str] = field(default_factory=set)


class MemoryStore:
    """A cell's state in this process: a `CellStore` with `Maintenance`, and cheap copies.

    Made for simulation and tests: nothing in a commit costs more with more keys, watches or
    history. `deliver` is called in the thread that commits, before `commit` returns. Leases run
    out by the given clock, whenever the store is used next or `tick` is called.
    """

    def __init__(self, clock: Clock, *, operations_max: int = limits.OPERATIONS_DEFAULT) -> None:
        """Start empty, at revision 1 as etcd does.

        Args:
            clock: Measures the leases.
            operations_max: What etcd calls --max-txn-ops.
        """
        self._clock = clock
        self._operations_max = operations_max
        self._lock = threading.RLock()
        self._revision = 1
        self._records: dict[str, Versioned] = {}
        self._keys = SortedKeys()
        # One entry a revision, from the oldest kept on; the first of all wrote nothing.
        self._log: list[tuple[_Edit, ...]] = [()]
        self._oldest = 1
        self._grants: dict[int, _Grant] = {}
        self._lease_of: dict[str, int] = {}
        self._leases_granted = 0
        self._expiry = float("inf")  # no lease runs out before this moment
        self._watched: dict[str, list[_MemoryWatch]] = {}
        # Family of keys -> the watched prefixes that one of it may lie under; found when asked for.
        self._of_family: dict[str, tuple[str, ...]] = {}

    # ---------------------------------------------------------------------------- CellStore

    def commit(
        self, transactions: Sequence[Transaction], *, timeout_seconds: float = 5.0
    ) -> list[Outcome]:
        """Apply transactions as one request; see `CellStore.commit`.

        Raises:
            TransactionTooLarge: Beyond the limit, also when guarded by ranges.
            StoreRefused: A key is written twice, or a lease is over; nothing was written.
        """
        with self._lock:
            self.tick()
            limits.refuse_double_writes(transactions)
            # Every compare sees the state before the request, so all verdicts come first.
            holds = self._verdicts(transactions)
            for transaction, held in zip(transactions, holds, strict=True):
                if held:
                    self._refuse_dead_leases(transaction.operations)
            before, edits = self._revision, list[_Edit]()
            outcomes: list[Outcome | None] = []
            for transaction, held in zip(transactions, holds, strict=True):
                if held:
                    self._apply(transaction.operations, edits)
                    outcomes.append(None)
                else:
                    # Read here and not at the end: as in etcd, it sees what the members before it
                    # have just written, so the values are whole up to `before` and no further.
                    outcomes.append(self._conflict(transaction.compares, before))
            self._seal(edits)
            return [outcome or Committed(self._revision) for outcome in outcomes]

    def read(self, prefixes: Sequence[str], *, at: int = 0) -> Reading:
        """Return all keys under the prefixes at one revision; see `CellStore.read`."""
        with self._lock:
            self.tick()
            if at > self._revision:
                raise StoreRefused(
                    f"revision {at} is in the future, the newest is {self._revision}"
                )
            if at and at < self._oldest:
                raise RevisionCompacted(at, self._oldest)
            records = [record for prefix in sorted(prefixes) for record in self._under(prefix)]
            if at and at < self._revision:
                return Reading(at, self._undone(records, tuple(prefixes), at))
            return Reading(self._revision, records)

    def watch(
        self, prefixes: Sequence[str], *, after: int, deliver: Callable[[WatchMessage], None]
    ) -> Watch:
        """Deliver every change with a revision above `after`; see `CellStore.watch`.

        What happened since `after` is delivered before this returns.
        """
        assert prefixes, "a watch on nothing would never tell anything"
        assert after >= 0, "revisions start at 1"
        with self._lock:
            self.tick()
            watch = _MemoryWatch(tuple(prefixes), deliver, self._answer_progress, self._forget)
            if after + 1 < self._oldest:
                deliver(Lost(f"the history after {after} is compacted", self._oldest))
                return watch
            watch.first = after + 1
            missed = self._log[max(0, after + 1 - self._oldest) :]
            for prefix in prefixes:
                changes = [
                    edit.change for edits in missed for edit in edits if edit.key.startswith(prefix)
                ]
                if changes:
                    deliver(Changes(changes))
                self._watched.setdefault(prefix, []).append(watch)
            self._of_family.clear()
            return watch

    def lease(self, ttl_seconds: int) -> Lease:
        """Grant a lease that lives for this long on the store's clock."""
        with self._lock:
            self.tick()
            self._leases_granted += 1
            deadline = self._clock.monotonic() + ttl_seconds
            self._grants[self._leases_granted] = _Grant(ttl_seconds, deadline)
            self._expiry = min(self._expiry, deadline)
            return MemoryLease(self, self._leases_granted)

    def close(self) -> None:
        """End every watch; the contents stay, as they do in etcd when a client goes."""
        with self._lock:
            self._watched.clear()
            self._of_family.clear()

    # -------------------------------------------------------------------------- Maintenance

    def compact(self, before: int) -> None:
        """Drop the history before this revision.

        Raises:
            StoreRefused: The revision is in the future.
        """
        with self._lock:
            self.tick()
            if before > self._revision:
                raise StoreRefused(
                    f"revision {before} is in the future, the newest is {self._revision}"
                )
            if before > self._oldest:
                del self._log[: before - self._oldest]
                self._oldest = before

    def oldest(self) -> int:
        """Return the oldest revision whose state can still be read."""
        with self._lock:
            return self._oldest

    # ------------------------------------------------------------- what only this store has

    def fits(self, transactions: Sequence[Transaction]) -> bool:
        """Tell whether these transactions go into one request as they are."""
        return limits.fits(transactions, self._operations_max)

    @property
    def revision(self) -> int:
        """The newest revision."""
        with self._lock:
            self.tick()
            return self._revision

    def tick(self) -> None:
        """End the leases whose time is over, each at a revision of its own."""
        with self._lock:
            now = self._clock.monotonic()
            if now < self._expiry:
                return
            for identifier in [i for i, g in self._grants.items() if g.deadline <= now]:
                self.revoke(identifier)
            self._expiry = self.next_expiry()

    def next_expiry(self) -> float:
        """Return when, on the clock, the next lease runs out if nobody renews it; else infinity."""
        with self._lock:
            return min((g.deadline for g in self._grants.values()), default=float("inf"))

    def keep_alive(self, lease: int) -> float:
        """Renew a lease; return the seconds left, 0 when it is over."""
        with self._lock:
            self.tick()
            grant = self._grants.get(lease)
            if grant is None:
                return 0.0
            grant.deadline = self._clock.monotonic() + grant.ttl_seconds
            return float(grant.ttl_seconds)

    def revoke(self, lease: int) -> None:
        """End a lease with all its keys, at one revision; no error if it is over already."""
        with self._lock:
            grant = self._grants.pop(lease, None)
            if grant is not None:
                edits: list[_Edit] = []
                for key in sorted(grant.keys):
                    self._delete(key, edits)
                self._seal(edits)

    def fork(self, clock: Clock | None = None) -> "MemoryStore":
        """Return a copy that goes its own way, without the watches; leases keep their ids."""
        with self._lock:
            copy = MemoryStore(clock or self._clock, operations_max=self._operations_max)
            copy._revision = self._revision
            copy._records = self._records.copy()
            copy._keys = self._keys.copy()
            copy._log = self._log.copy()
            copy._oldest = self._oldest
            copy._grants = {
                i: _Grant(g.ttl_seconds, g.deadline, set(g.keys)) for i, g in self._grants.items()
            }
            copy._lease_of = self._lease_of.copy()
            copy._leases_granted = self._leases_granted
            copy._expiry = self._expiry
            return copy

    # ------------------------------------------------------------------------------ compares

    def _verdicts(self, transactions: Sequence[Transaction]) -> list[bool]:
        if limits.fits(transactions, self._operations_max):
            return [all(map(self._holds, t.compares)) for t in transactions]
        if len(transactions) > 1:
            raise TransactionTooLarge(limits.operations_needed(transactions), self._operations_max)
        (transaction,) = transactions
        guard = limits.guard(transaction, self._operations_max)
        return [
            all(map(self._holds, guard.exact))
            and all(self._untouched(span, transaction.seen) for span in guard.ranges)
        ]

    def _holds(self, compare: Compare) -> bool:
        if isinstance(compare, Seen):
            record = self._records.get(compare.key)
            return (record.modified if record else 0) == compare.revision
        return all(record.modified <= compare.since for record in self._under(compare.prefix))

    def _untouched(self, span: limits.KeyRange, since: int) -> bool:
        for key in self._keys.starting_at(span.first):
            if key > span.last:
                break
            if self._records[key].modified > since:
                return False
        return True

    def _conflict(self, compares: Iterable[Compare], revision: int) -> Conflicted:
        keys: dict[str, Versioned | None] = {}
        ranges: dict[str, tuple[Versioned, ...]] = {}
        for compare in compares:
            if isinstance(compare, Seen):
                keys[compare.key] = self._records.get(compare.key)
            else:
                ranges[compare.prefix] = tuple(self._under(compare.prefix))
        return Conflicted(revision, keys, ranges)

    # -------------------------------------------------------------------------------- writes

    def _refuse_dead_leases(self, operations: Iterable[Operation]) -> None:
        for operation in operations:
            lease = operation.lease if isinstance(operation, Put) else 0
            if lease and lease not in self._grants:
                raise StoreRefused(f"lease {lease} of {operation.key} is over")

    def _apply(self, operations: Iterable[Operation], edits: list["_Edit"]) -> None:
        for operation in operations:
            if isinstance(operation, Put):
                self._put(operation, edits)
            else:
                self._delete(operation.key, edits)

    def _put(self, put: Put, edits: list["_Edit"]) -> None:
        key, revision = put.key, self._revision + 1
        before = self._records.get(key)
        if before is None:
            self._keys.add(key)
        created = before.created if before else revision
        self._records[key] = Versioned(key, put.value, created, revision)
        self._detach(key)
        if put.lease:
            self._grants[put.lease].keys.add(key)
            self._lease_of[key] = put.lease
        edits.append(_Edit(key, before, Change(key, put.value, created, revision)))

    def _delete(self, key: str, edits: list["_Edit"]) -> None:
        before = self._records.pop(key, None)
        if before is not None:
            self._keys.remove(key)
            self._detach(key)
            edits.append(_Edit(key, before, Change(key, None, 0, self._revision + 1)))

    def _detach(self, key: str) -> None:
        lease = self._lease_of.pop(key, 0)
        if lease in self._grants:
            self._grants[lease].keys.discard(key)

    def _seal(self, edits: list["_Edit"]) -> None:
        """Make the edits the next revision; without any there is none."""
        if edits:
            self._revision += 1
            self._log.append(tuple(edits))
            self._notify(edits)

    def _notify(self, edits: Iterable["_Edit"]) -> None:
        # As in etcd, each watched prefix gets its own message: none says that two belong together.
        told: dict[tuple[int, str], tuple[_MemoryWatch, list[Change]]] = {}
        for edit in edits:
            key, family = edit.key, edit.key.partition("/")[0]
            watched = self._of_family.get(family)
            if watched is None:
                watched = self._of_family[family] = self._watched_of(family)
            for prefix in watched:
                if key.startswith(prefix):
                    for watch in self._watched[prefix]:
                        if edit.change.modified >= watch.first:
                            place = (id(watch), prefix)
                            told.setdefault(place, (watch, []))[1].append(edit.change)
        for watch, changes in told.values():
            watch.deliver(Changes(changes))

    def _watched_of(self, family: str) -> tuple[str, ...]:
        """Return the watched prefixes that a key of a family may lie under."""
        start = f"{family}/"
        return tuple(p for p in self._watched if start.startswith(p) or p.startswith(start))

    # --------------------------------------------------------------------------------- reads

    def _under(self, prefix: str) -> Iterator[Versioned]:
        for key in self._keys.starting_at(prefix):
            if not key.startswith(prefix):
                break
            yield self._records[key]

    def _undone(
        self, records: Iterable[Versioned], prefixes: tuple[str, ...], at: int
    ) -> list[Versioned]:
        """Take back what happened after `at`, newest first."""
        state = {record.key: record for record in records}
        for edits in reversed(self._log[at + 1 - self._oldest :]):
            for edit in edits:
                if edit.key.startswith(prefixes):
                    if edit.before is None:
                        del state[edit.key]
                    else:
                        state[edit.key] = edit.before
        return [state[key] for key in sorted(state)]

    def _answer_progress(self, watch: "_MemoryWatch") -> None:
        with self._lock:
            self.tick()
            # A watch that is over hears no more.
            if watch in self._watched.get(watch.prefixes[0], ()):
                watch.deliver(Progress(self._revision))

    def _forget(self, watch: "_MemoryWatch") -> None:
        with self._lock:
            for prefix in watch.prefixes:
                watching = self._watched.get(prefix, [])
                if watch in watching:
                    watching.remove(watch)
                    if not watching:
                        del self._watched[prefix]
            self._of_family.clear()


class MemoryLease:
    """A lease of a memory store."""

    def __init__(self, store: MemoryStore, identifier: int) -> None:
        self.id = identifier
        self._store = store

    def keep_alive(self) -> float:
        """Renew it; return the seconds left, 0 when it is over."""
        return self._store.keep_alive(self.id)

    def revoke(self) -> None:
        """End it, with all its keys; no error if it is over already."""
        self._store.revoke(self.id)


class _MemoryWatch:
    """A subscription at a memory store, told in the thread that commits."""

    def __init__(
        self,
        prefixes: tuple[str, ...],
        deliver: Callable[[WatchMessage], None],
        answer: Callable[["_MemoryWatch"], None],
        forget: Callable[["_MemoryWatch"], None],
    ) -> None:
        self.prefixes = prefixes
        self.deliver = deliver
        self.first = 0  # the first revision to tell of
        self._answer = answer
        self._forget = forget

    def ask_progress(self) -> None:
        self._answer(self)

    def close(self) -> None:
        self._forget(self)
