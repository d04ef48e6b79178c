"""What lies in the shared state at one revision: every key, as it is written."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from typing import Final

from flowos.model.transaction import Change, Reading, Versioned

EVERYTHING = ("",)  # one prefix: only under one prefix does a watch tell whole revisions in order
GONE_MAX: Final = 200_000  # deletions that are remembered; the oldest are forgotten first


@dataclass(slots=True)
class State:
    """All keys of a cell at a revision, values as they are; moved on by whole revisions.

    Attributes:
        gone: Key -> when it was last deleted, of those that were while this was moved on.
    """

    revision: int = 0
    records: dict[str, Versioned] = field(default_factory=dict)
    gone: dict[str, int] = field(default_factory=dict, compare=False)

    @classmethod
    def read(cls, reading: Reading) -> "State":
        """Return the state that was read, of everything at one revision."""
        return cls(reading.revision, {record.key: record for record in reading.records})

    def apply(self, changes: Sequence[Change]) -> None:
        """Move on to the revision of these changes, which must be all that it wrote."""
        revision = changes[0].modified
        assert revision > self.revision, f"{revision} was applied already"
        for key, value, created, modified in changes:
            assert modified == revision, "one revision at a time"
            if value is None:
                self.records.pop(key, None)
                self.gone[key] = revision
            else:
                self.records[key] = Versioned(key, value, created, modified)
        self.revision = revision
        if len(self.gone) > GONE_MAX:
            for key in list(self.gone)[: GONE_MAX // 2]:
                del self.gone[key]

    def changes(self) -> Iterator[Change]:
        """Yield the changes that lead here from nothing."""
        return (Change(*record) for record in self.records.values())


def by_revision(changes: Iterable[Change]) -> Iterator[list[Change]]:
    """Cut changes, in the order in which a watch tells them, into one list for each revision."""
    for _, together in groupby(changes, key=attrgetter("modified")):
        yield list(together)
