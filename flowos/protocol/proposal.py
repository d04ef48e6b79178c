"""A transaction that the rules allow, with what its process must remember until the answer."""

from collections.abc import Iterable
from dataclasses import dataclass

from flowos.model import keys
from flowos.model.codec import encode
from flowos.model.placement import Placement
from flowos.model.transaction import Delete, Operation, Put, Quiet, Seen, Transaction
from flowos.model.view import CellView, Entry


@dataclass(frozen=True, slots=True)
class Fence:
    """The session of the process that acts: its key and the revision that it was last put at.

    A process whose lease is over, or that has put its session again to find out about a lost
    answer, can commit nothing with this fence.
    """

    key: str
    revision: int

    @property
    def compare(self) -> Seen:
        """The compare that every control transaction carries."""
        return Seen(self.key, self.revision)


@dataclass(frozen=True, slots=True)
class Proposal:
    """One step, ready to be committed.

    Attributes:
        step: What it does, one word for logs and figures.
        identifier: The slice or system placement it is about.
        transaction: What is asked of the store.
        placement: The placement as it will be; None = it will be gone, or is not touched. Only
            what takes (commit, grow) may be assumed in a view: to plan on units that are given
            back before the store says so would give them away twice.
        guards: Claims prefixes whose quiet is compared (see `CellView.settle`).
        record: The placement as it is written; empty = it is not.
    """

    step: str
    identifier: str
    transaction: Transaction
    placement: Placement | None = None
    guards: tuple[str, ...] = ()
    record: bytes = b""


class Draft:
    """Collects compares and operations, each key once."""

    def __init__(self, *, fence: Fence | None) -> None:
        """Start with the process's own session; None only where the store itself is the actor."""
        self.compares: dict[str, Seen] = {}
        self.quiet: dict[str, Quiet] = {}
        self.operations: dict[str, Operation] = {}
        self._holders: dict[tuple[str, str, tuple[int, ...]], bytes] = {}
        if fence is not None:
            self.seen(fence.key, fence.revision)

    def seen(self, key: str, revision: int) -> None:
        """Compare the key's mod_revision; 0 = absent."""
        self.compares[key] = Seen(key, revision)

    def placed(self, identifier: str, entry: Entry[Placement] | None) -> None:
        """Compare a placement with how it is known."""
        self.seen(keys.placement(identifier), entry.modified if entry else 0)

    def stays_quiet(self, prefix: str, since: int) -> None:
        """Compare that nothing was put under the prefix after a revision."""
        self.quiet[prefix] = Quiet(prefix, since)

    def put(self, key: str, record: object, lease: int = 0) -> None:
        """Write a record; under a lease it goes with that."""
        self.operations[key] = Put(key, encode(record), lease)

    def claim_free(self, key: str, identifier: str, attempt: str, amounts: tuple[int, ...]) -> None:
        """Compare that nobody holds a unit, and write who does."""
        self.compares[key] = Seen(key, 0)
        self.claim(key, identifier, attempt, amounts)

    def claim(self, key: str, identifier: str, attempt: str, amounts: tuple[int, ...]) -> None:
        """Write who holds a unit."""
        holder = (identifier, attempt, amounts)
        value = self._holders.get(holder)
        if value is None:  # all whole units of a slice say the same
            value = self._holders[holder] = encode(holder)
        self.operations[key] = Put(key, value)

    def delete(self, key: str) -> None:
        """Remove a key."""
        self.operations[key] = Delete(key)

    def transaction(self, view: CellView) -> Transaction:
        """Return what was collected, in one transaction."""
        # Placements tell all claims; of other families only `revision` says how far they are known.
        told = ("claim/", "placement/")
        absent = [key for key, c in self.compares.items() if not c.revision]
        return Transaction(
            (*self.compares.values(), *self.quiet.values()),
            tuple(self.operations.values()),
            seen=view.placed_at if all(key.startswith(told) for key in absent) else view.revision,
        )

    def proposal(
        self, step: str, identifier: str, view: CellView, placement: Placement | None = None
    ) -> Proposal:
        """Return the finished step."""
        written = self.operations.get(keys.placement(identifier))
        record = written.value if isinstance(written, Put) else b""
        return Proposal(
            step, identifier, self.transaction(view), placement, tuple(self.quiet), record
        )


def writes(proposals: Iterable[Proposal]) -> set[str]:
    """Return all keys that these steps write; a request may write each only once."""
    return {op.key for proposal in proposals for op in proposal.transaction.operations}
