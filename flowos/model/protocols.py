"""The seams: the least that the loops need of a store, a clock, a driver and a scheduler."""

from collections.abc import Callable, Sequence
from typing import Protocol

from flowos.model.transaction import Outcome, Reading, Transaction, WatchMessage


class Watch(Protocol):
    """A running subscription; messages arrive at the `deliver` given to `CellStore.watch`."""

    def ask_progress(self) -> None:
        """Ask for a `Progress` message; it comes after every change that precedes it."""

    def close(self) -> None:
        """End it; nothing is delivered after this returns, except from a delivery under way."""


class Lease(Protocol):
    """Keys put with this lease's id live as long as it does."""

    id: int

    def keep_alive(self) -> float:
        """Renew it; return the seconds left, 0 when it is over.

        Raises:
            StoreUnreachable: No answer; the lease may still live.
        """

    def revoke(self) -> None:
        """End it, with all its keys; no error if it is over already."""


class CellStore(Protocol):
    """The shared state of one cell: keys, revisions, transactions, watches and leases.

    Every store answers alike; the memory store is the specification of this protocol.
    """

    def commit(
        self, transactions: Sequence[Transaction], *, timeout_seconds: float = 5.0
    ) -> list[Outcome]:
        """Apply transactions in one request and return one outcome each, in order.

        All compares see the state before the request. Those that hold are applied together, at
        one revision; a request that writes nothing leaves the revision as it is.

        Raises:
            TransactionTooLarge: More operations than the store accepts; nothing was written.
            StoreUnreachable: The request was not sent.
            OutcomeUnknown: It was sent and no answer came. Fence, then read; never just repeat.
            StoreRefused: The store said no; nothing was written.
        """

    def read(self, prefixes: Sequence[str], *, at: int = 0) -> Reading:
        """Return all keys under the prefixes, all as of one revision, sorted by key.

        Args:
            prefixes: Disjoint; a prefix that is a whole key reads this key (and longer ones).
            at: The revision to read at; 0 = the newest.

        Raises:
            RevisionCompacted: `at` is no longer kept.
            StoreUnreachable: No answer.
        """

    def watch(
        self, prefixes: Sequence[str], *, after: int, deliver: Callable[[WatchMessage], None]
    ) -> Watch:
        """Deliver every change under the prefixes with a revision above `after`.

        Each revision's changes under one prefix come whole and in order; between prefixes only a
        `Progress` orders them. The end is one `Lost`. `deliver` is called on a thread of the
        store's: it may only hand the message on.
        """

    def lease(self, ttl_seconds: int) -> Lease:
        """Grant a lease.

        Raises:
            StoreUnreachable: No answer; a lease that was granted all the same runs out unused.
        """

    def close(self) -> None:
        """Close connections and end every watch of this store."""


class Maintenance(Protocol):
    """What an operator's process asks of a store, beside its contents."""

    def compact(self, before: int) -> None:
        """Drop the history before this revision; what was dropped already is no error."""

    def oldest(self) -> int:
        """Return the oldest revision whose state can still be read."""


class Clock(Protocol):
    """Where time comes from; durations are measured with `monotonic` alone."""

    def monotonic(self) -> float:
        """Return seconds since some moment; never falls."""

    def wall(self) -> float:
        """Return seconds since the epoch: for people and records, never for safety."""
