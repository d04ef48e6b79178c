"""What is asked of the shared state in one request, and what it answers.

Keys are relative to the cell's root ("placement/default/t"); the store adds the root.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias


class Seen(NamedTuple):
    """Holds if the key was last written at `revision`; 0 = the key does not exist."""

    key: str
    revision: int


class Quiet(NamedTuple):
    """Holds if no key that starts with `prefix` was put after `since`; 0 = there is none at all.

    A rival's new key breaks it, a deletion does not.
    """

    prefix: str
    since: int


class Put(NamedTuple):
    """Write the key; with a lease, the key goes when the lease does."""

    key: str
    value: bytes
    lease: int = 0


class Delete(NamedTuple):
    """Remove the key; removing what is not there is no error."""

    key: str


Compare: TypeAlias = Seen | Quiet
Operation: TypeAlias = Put | Delete


@dataclass(frozen=True, slots=True)
class Transaction:
    """All of its operations, if all of its compares hold; else none.

    Transactions of one request see the state before the request, not each other, and together
    write each key at most once.

    Attributes:
        compares: What must still be as it was seen; each key at most once.
        operations: What is then written.
        seen: The revision up to which the planner's view was complete. Where a transaction is
            larger than the store accepts, its compares of absent keys are joined into ranges
            "nothing put here after `seen`". Such a range may conflict over a key that nobody
            named; `Conflicted.broken` is then empty, so plan again from a newer view. 0 = they
            may not be joined.
    """

    compares: tuple[Compare, ...]
    operations: tuple[Operation, ...]
    seen: int = 0


class Versioned(NamedTuple):
    """A key's value and when it was created and last written; revisions are the store's."""

    key: str
    value: bytes
    created: int
    modified: int


@dataclass(frozen=True, slots=True)
class Committed:
    """The transaction happened, as a whole, at this revision."""

    revision: int


@dataclass(frozen=True, slots=True)
class Conflicted:
    """Nothing was written; the fresh values of all that was compared.

    Attributes:
        revision: All changes up to it are in the values; of a group, some of what its other
            members wrote may be too.
        keys: For each `Seen`, the key's state now, or None where it does not exist.
        ranges: For each `Quiet`, what lies under the prefix now, in key order.
    """

    revision: int
    keys: Mapping[str, Versioned | None] = field(default_factory=dict)
    ranges: Mapping[str, tuple[Versioned, ...]] = field(default_factory=dict)

    def broken(self, compares: Iterable[Compare]) -> list[Compare]:
        """Return the compares that do not hold in these fresh values."""
        return [compare for compare in compares if not self._holds(compare)]

    def _holds(self, compare: Compare) -> bool:
        if isinstance(compare, Seen):
            now = self.keys.get(compare.key)
            return (now.modified if now else 0) == compare.revision
        return all(now.modified <= compare.since for now in self.ranges.get(compare.prefix, ()))


Outcome: TypeAlias = Committed | Conflicted


class Change(NamedTuple):
    """One key at one revision: put (value) or deleted (None)."""

    key: str
    value: bytes | None
    created: int
    modified: int


@dataclass(frozen=True, slots=True)
class Changes:
    """Changes in revision order; never a part of a revision.

    Changes of one revision have no order among themselves: compare them as a set.
    """

    changes: Sequence[Change]


@dataclass(frozen=True, slots=True)
class Progress:
    """Everything up to and including `revision` has been delivered, on every prefix."""

    revision: int


@dataclass(frozen=True, slots=True)
class Lost:
    """The watch is over: what follows is unknown, list again.

    Attributes:
        why: One clause for people.
        compacted: The oldest revision kept, where compaction was the cause; else 0.
        anew: Whether the store is another one, or has gone back: no revision of before counts.
    """

    why: str
    compacted: int = 0
    anew: bool = False


WatchMessage: TypeAlias = Changes | Progress | Lost


@dataclass(frozen=True, slots=True)
class Reading:
    """What lay under the prefixes at one revision, in key order."""

    revision: int
    records: Sequence[Versioned]
