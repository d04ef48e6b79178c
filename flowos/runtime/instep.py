"""Puts changes that come by several watches back into the order of revisions."""

from collections.abc import Iterable

from flowos.model.transaction import Change


class OutOfStep:
    """Changes whose revision may not be complete yet: other key families may still bring some."""

    def __init__(self) -> None:
        """Start with none."""
        self._changes: list[Change] = []

    def add(self, changes: Iterable[Change]) -> None:
        """Keep changes as they come."""
        self._changes += changes

    def complete_up_to(self, revision: int) -> list[Change]:
        """Return, in order, the changes up to a revision that the store says is delivered."""
        self._changes.sort(key=revision_of)
        due = [change for change in self._changes if change.modified <= revision]
        del self._changes[: len(due)]
        return due


def revision_of(change: Change) -> int:
    """Return the revision at which a change happened."""
    return change.modified
