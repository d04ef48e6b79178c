"""How much of the history is kept? The last revisions and minutes, and what verifiers still need.

A verifier names the oldest revision that it needs under `verify/<name>` and moves it forward as it
goes. Within limits that holds compaction back, also while the verifier is down: when it is started
again it goes on from there. Beyond the limits the store comes first.
"""

import logging
from dataclasses import dataclass
from typing import Final

from flowos.model import keys
from flowos.model.errors import StoreFull
from flowos.model.transaction import Committed, Delete, Quiet, Transaction
from flowos.model.view import CellView
from flowos.protocol.proposal import Fence, Proposal
from flowos.runtime.machine import Answer, Compact, Refused

LOG: Final = logging.getLogger("flowos")


@dataclass(frozen=True, slots=True)
class Keeping:
    """How much history is kept; durations on the controller's own clock."""

    keep_revisions: int = 100_000
    keep_seconds: float = 600.0
    compact_seconds: float = 60.0
    held_back_times: int = 10  # a verifier may hold back that many times `keep_revisions` ...
    checkpoint_seconds: float = 3600.0  # ... and be away for so long before it is given up


class Retention:
    """Decides what is compacted, and which verifiers are not waited for any longer.

    Attributes:
        full: The store takes no more writes: nothing but the rules holds compaction back.
    """

    def __init__(self, view: CellView, keeping: Keeping) -> None:
        """Start with no history of its own: ten minutes are known after ten minutes."""
        self.full = False
        self._view = view
        self._keeping = keeping
        self._revisions: list[tuple[float, int]] = []
        self._compact_at = 0.0
        self._moved: dict[str, tuple[int, float]] = {}  # verifier -> its checkpoint, since when
        self._passed: set[str] = set()  # verifiers that were said to be passed over
        self._given_up: set[str] = set()  # and those that were said to be given up

    def answered(self, answer: Answer) -> None:
        """Note from the answer to any step whether the store is full."""
        if isinstance(answer, Committed):
            self.full = False
        elif isinstance(answer, Refused) and isinstance(answer.error, StoreFull):
            self.full = True

    def compaction(self, now: float) -> list[Compact]:
        """Keep 100,000 revisions or ten minutes, whichever is more, and what verifiers need."""
        keeping = self._keeping
        if now < self._compact_at:
            return []
        self._compact_at = now + keeping.compact_seconds
        self._look(now)
        self._revisions.append((now, self._view.revision))
        old = [r for at, r in self._revisions if at <= now - keeping.keep_seconds]
        if not old:
            return []
        del self._revisions[: len(old) - 1]
        before = min(old[-1], self._view.revision - keeping.keep_revisions)
        before = min([before, *self._needed(before, now)])
        return [Compact(before)] if before > 0 else []

    def abandoned(self, now: float, fence: Fence) -> list[Proposal]:
        """Return the steps that remove the checkpoints of verifiers that do not come back."""
        self._look(now)
        return [
            self._forget(name, fence)
            for name, (_, since) in self._moved.items()
            if now - since >= self._keeping.checkpoint_seconds
        ]

    def _needed(self, before: int, now: float) -> list[int]:
        """Return the checkpoints that are honoured, and say once which are not."""
        honoured: list[int] = []
        for name, (revision, since) in self._moved.items():
            away, behind = now - since, before - revision
            if behind <= 0:
                self._passed.discard(name)
                continue
            if away >= self._keeping.checkpoint_seconds:
                why = f"it has not moved for {away:.0f} s"
            elif behind > self._keeping.held_back_times * self._keeping.keep_revisions:
                why = f"it holds back {behind} revisions more than are kept"
            elif self.full:
                why = "the store is full"
            else:
                self._passed.discard(name)
                honoured.append(revision)
                continue
            if name not in self._passed:
                self._passed.add(name)
                LOG.warning("the checkpoint of verifier %s is passed over: %s", name, why)
        return honoured

    def _look(self, now: float) -> None:
        checkpoints = self._view.checkpoints
        for name in [n for n in self._moved if n not in checkpoints]:
            del self._moved[name]
            self._passed.discard(name)
            self._given_up.discard(name)
        for name, revision in checkpoints.items():
            known = self._moved.get(name)
            if known is None or known[0] != revision:
                self._moved[name] = (revision, now)

    def _forget(self, name: str, fence: Fence) -> Proposal:
        key = keys.checkpoint(name)
        if name not in self._given_up:
            self._given_up.add(name)
            LOG.warning("verifier %s does not come back: its checkpoint is removed", name)
        # The view does not keep when a checkpoint was written, but it knows all that was.
        untouched = Quiet(key, self._view.revision)
        transaction = Transaction((fence.compare, untouched), (Delete(key),))
        return Proposal("forget verifier", f"~{key}", transaction)
