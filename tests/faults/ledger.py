"""What does the kept history say, read by something that knows nothing of Flow OS's own checker?

It reads every change since the first revision, and knows four things: a unit that cannot be
divided has one holder, a slice ends once, an attempt is placed once, and where each was placed.
"""

import json
import queue
from collections import defaultdict
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Self

from flowos.model.protocols import CellStore
from flowos.model.transaction import Change, Changes, Lost, Progress, WatchMessage

QUIET_SECONDS = 20.0


@dataclass
class Ledger:
    """The story of all slices, from all changes.

    Attributes:
        placed: (slice, attempt) -> the revision at which it was placed.
        attempts: Slice -> its attempts, in order.
        ended: Slice -> (revision, phase) of each end that was ever written.
        doubled: What two placements held at one revision.
    """

    placed: dict[tuple[str, str], int] = field(default_factory=dict)
    attempts: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    ended: dict[str, list[tuple[int, str]]] = field(default_factory=lambda: defaultdict(list))
    doubled: list[str] = field(default_factory=list)
    quarantined: int = 0
    revision: int = 0
    _holders: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    _holds: dict[str, set[str]] = field(default_factory=dict)
    _has_ended: dict[str, bool] = field(default_factory=dict)

    @classmethod
    def read(cls, store: CellStore) -> Self:
        """Read the whole history up to now, which must be kept from the first revision on."""
        newest = store.read(["cell/info"]).revision
        arrived: queue.SimpleQueue[WatchMessage] = queue.SimpleQueue()
        found = cls()
        with closing(store.watch([""], after=0, deliver=arrived.put)) as watch:
            watch.ask_progress()
            while found.revision < newest:
                message = arrived.get(timeout=QUIET_SECONDS)
                if isinstance(message, Changes):
                    for revision, together in groupby(message.changes, lambda c: c.modified):
                        found.take(revision, together)
                    watch.ask_progress()
                elif isinstance(message, Progress):
                    found.revision = max(found.revision, message.revision)
                    watch.ask_progress()
                else:
                    assert not isinstance(message, Lost), f"history is not whole: {message.why}"
        return found

    def take(self, revision: int, changes: Iterable[Change]) -> None:
        """Note what one revision did."""
        self.revision = revision
        touched: set[str] = set()
        for change in changes:
            family, _, name = change.key.partition("/")
            if family == "placement":
                touched |= self._placement(name, change)
            elif family == "slice":
                self._slice(name, change)
        for unit in touched:
            if len(self._holders[unit]) > 1:
                who = " and ".join(sorted(self._holders[unit]))
                self.doubled.append(f"{unit} at revision {revision}: {who}")

    def _placement(self, name: str, change: Change) -> set[str]:
        before = self._holds.pop(name, set())
        for unit in before:
            self._holders[unit].discard(name)
        if change.value is None:
            return set()
        record: dict[str, Any] = json.loads(change.value)
        units = [*record.get("held", {}), *record.get("releasing", {})]
        mine = {unit for unit in units if not unit.startswith(("share/", "host/"))}
        self._holds[name] = mine
        for unit in mine:
            self._holders[unit].add(name)
        if change.created == change.modified:
            self.quarantined += name.startswith("~quarantine/")
            if not name.startswith("~"):
                self.placed[name, record["attempt"]] = change.modified
                self.attempts[name].append(record["attempt"])
        return mine

    def _slice(self, name: str, change: Change) -> None:
        record = {} if change.value is None else json.loads(change.value)
        end = record.get("end")
        if end and not self._has_ended.get(name):
            self.ended[name].append((change.modified, end["phase"]))
        if change.value is not None and self._has_ended.get(name) and not end:
            self.ended[name].append((change.modified, "alive again"))
        self._has_ended[name] = bool(end)
