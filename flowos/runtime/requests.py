"""What is asked of a store, as values: a thread carries them out, or virtual time with its faults.

Longer conversations are generators that yield one request after the other and get the answer, or
the error, back where they stand. So the same lines run against a real store and in simulation.
"""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from flowos.model.errors import FlowosError
from flowos.model.protocols import CellStore, Lease
from flowos.model.transaction import Outcome, Reading, Transaction

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Write:
    """Commit transactions; a lost answer leaves unknown whether they happened."""

    transactions: tuple[Transaction, ...]

    def ask(self, store: CellStore) -> list[Outcome]:
        """Return the outcomes."""
        return store.commit(self.transactions)


@dataclass(frozen=True, slots=True)
class Look:
    """Read everything under some prefixes."""

    prefixes: tuple[str, ...]

    def ask(self, store: CellStore) -> Reading:
        """Return what is there."""
        return store.read(self.prefixes)


@dataclass(frozen=True, slots=True)
class Grant:
    """Ask for a lease."""

    ttl_seconds: int

    def ask(self, store: CellStore) -> Lease:
        """Return it."""
        return store.lease(self.ttl_seconds)


@dataclass(frozen=True, slots=True)
class Renew:
    """Keep a lease alive."""

    lease: Lease

    def ask(self, _store: CellStore) -> float:
        """Return the seconds left."""
        return self.lease.keep_alive()


@dataclass(frozen=True, slots=True)
class Revoke:
    """End a lease, with all its keys."""

    lease: Lease

    def ask(self, _store: CellStore) -> None:
        """Return nothing."""
        self.lease.revoke()


Request: TypeAlias = Write | Look | Grant | Renew | Revoke
Conversation: TypeAlias = Generator[Request, Any, T]


def carry_out(conversation: Conversation[T], store: CellStore) -> T:
    """Have a conversation with a store, on this thread, and return what it came to."""
    try:
        request = next(conversation)
        while True:
            try:
                answer = request.ask(store)
            except FlowosError as error:
                request = conversation.throw(error)
            else:
                request = conversation.send(answer)
    except StopIteration as end:
        result: T = end.value
        return result
