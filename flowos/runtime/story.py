"""What happened to a slice? Its changes of phase and reason, out of the store's own history."""

import queue
from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import groupby
from operator import attrgetter
from typing import Any, Final

from flowos.model import keys
from flowos.model.errors import RevisionCompacted, StoreUnreachable
from flowos.model.life import built, phase_in, reason_of, served
from flowos.model.placement import Placement
from flowos.model.protocols import CellStore
from flowos.model.slice import ENDED, Phase, Slice
from flowos.model.transaction import Change, Changes, Lost, Progress, Reading, WatchMessage
from flowos.model.view import CellView
from flowos.runtime.shown import placement_of

ASK_SECONDS: Final = 0.5  # how often a quiet watch is asked how far it is
SILENCES_MAX: Final = 60  # that many questions without an answer are an end
RESTARTS_MAX: Final = 3  # the store may drop the history just when it is asked for

Event = dict[str, Any]


def told(store: CellStore, identifier: str, *, follow: bool = False) -> Iterator[Event]:
    """Yield what happened to a slice, oldest first: one event for each change that people notice.

    Args:
        store: Where.
        identifier: "tenant/name", of a slice that exists.
        follow: Whether to go on until it ends.

    Yields:
        revision, at (seconds since the epoch, where a record tells it), phase, reason, what
        (one clause) and attempt.

    Raises:
        StoreUnreachable: No answer.
    """
    watched = _families(identifier)
    now = store.read([keys.slice_(identifier)])
    uid = next((r.created for r in now.records if r.key == keys.slice_(identifier)), now.revision)
    for _ in range(RESTARTS_MAX):
        reading = _earliest(store, watched, uid - 1)
        story = Story(identifier)
        yield from story.begin(reading)
        inbox: queue.SimpleQueue[WatchMessage] = queue.SimpleQueue()
        watch = store.watch(watched, after=reading.revision, deliver=inbox.put)
        try:
            watch.ask_progress()
            over = yield from _from_watch(story, inbox, watch.ask_progress, now.revision, follow)
        finally:
            watch.close()
        if over:
            return
    raise StoreUnreachable("the store drops its history faster than it can be read: ask again")


def _families(identifier: str) -> list[str]:
    own = [keys.slice_(identifier), keys.placement(identifier), keys.reason(identifier)]
    return [*own, "session/", "order/", "report/"]


def _earliest(store: CellStore, watched: list[str], revision: int) -> Reading:
    """Read the state at a revision, or at the oldest that is kept."""
    try:
        return store.read(watched, at=max(1, revision))
    except RevisionCompacted as error:
        return store.read(watched, at=error.oldest)


def _from_watch(
    story: "Story",
    inbox: "queue.SimpleQueue[WatchMessage]",
    ask: Callable[[], None],
    newest: int,
    follow: bool,
) -> Generator[Event, None, bool]:
    """Yield events in the order of revisions; return False where the watch was lost.

    Several families are watched, and only a `Progress` says that all of them are complete.
    """
    pending: list[Change] = []
    silences = 0
    while True:
        try:
            message = inbox.get(timeout=ASK_SECONDS)
            silences = 0
        except queue.Empty:
            silences += 1
            if silences > SILENCES_MAX:
                raise StoreUnreachable("the store's watch says nothing") from None
            ask()
            continue
        match message:
            case Changes(changes):
                pending += changes
                if follow:
                    ask()
            case Lost():
                return False
            case Progress(revision):
                ready = sorted((c for c in pending if c.modified <= revision), key=_order)
                pending = [c for c in pending if c.modified > revision]
                yield from story.apply(ready)
                if revision >= newest and (not follow or story.ended):
                    return True


def _order(change: Change) -> tuple[int, int]:
    # A placement names the attempt that its orders and reports are known by.
    return change.modified, 0 if change.key.startswith("placement/") else 1


class Story:
    """A view of one slice, moved on revision by revision; tells what people would notice."""

    def __init__(self, identifier: str) -> None:
        self.identifier = identifier
        self.ended = False
        self._view = CellView()
        self._told: tuple[Any, ...] = ()
        self._started: tuple[str, int] | None = None  # attempt and segment last told to run
        self._own = frozenset(
            (keys.slice_(identifier), keys.placement(identifier), keys.reason(identifier))
        )

    def begin(self, reading: Reading) -> Iterator[Event]:
        """Start with a state; yields an event where the slice is there already."""
        changes = [Change(*record) for record in reading.records]
        for change in sorted(changes, key=lambda c: not c.key.startswith("placement/")):
            self._take(change)
        yield from self._event(reading.revision)

    def apply(self, changes: Iterable[Change]) -> Iterator[Event]:
        """Move on; the changes are in the order of revisions."""
        for revision, together in groupby(changes, key=attrgetter("modified")):
            for change in together:
                self._take(change)
            yield from self._event(revision)

    def _take(self, change: Change) -> None:
        family, _, name = change.key.partition("/")
        if family in ("order", "report"):
            placed = self._view.placements.get(self.identifier)
            attempt = name.rpartition("/")[2]
            if change.value is not None and (placed is None or placed.value.attempt != attempt):
                return
        elif family != "session" and change.key not in self._own:
            return  # a slice whose name begins with this one's
        self._view.apply(change)

    def _event(self, revision: int) -> Iterator[Event]:
        entry = self._view.slices.get(self.identifier)
        if entry is None:
            return
        slice_ = entry.value
        placed = placement_of(self._view, self.identifier)
        placement = placed.value if placed else None
        waiting = self._view.reasons.get(self.identifier)
        phase = phase_in(self._view, self.identifier)
        reason = reason_of(
            slice_,
            placement,
            waiting.value if waiting else None,
            served(e.value for e in self._view.sessions.values()),
        )
        assert phase is not None
        sentence = waiting.value.sentence if waiting and waiting.value.reason == reason else ""
        if placement is None and slice_.cancelled and slice_.end is None:
            reason = None  # what it waited for a moment ago is not why it goes
        what = self._what(slice_, placement, phase, sentence)
        facts = (phase, reason, what)
        if facts == self._told:
            return
        first = not self._told
        self._told = facts
        self.ended = phase in ENDED
        yield {
            "revision": entry.created if first and revision < entry.created else revision,
            "at": self._at(slice_, placement, first=first),
            "phase": str(phase),
            "reason": str(reason) if reason else None,
            "what": what,
            "attempt": placement.number if placement else slice_.attempts,
        }

    def _at(self, slice_: Slice, placement: Placement | None, *, first: bool) -> float | None:
        """Return when it was, where a record says so: the store's history has no clock."""
        if slice_.end is not None:
            return slice_.end.ended_at
        if first:
            return slice_.submitted_at or None
        if placement is None or placement.started_at is None or placement.ending is not None:
            return None
        started = (placement.attempt, placement.segment)
        if started == self._started:
            return None  # it ran before: what is told now was later, and nobody says when
        resized = self._started is not None and self._started[0] == placement.attempt
        self._started = started
        return (placement.committed_at or None) if resized else placement.started_at

    def _what(self, slice_: Slice, placement: Placement | None, phase: Phase, sentence: str) -> str:
        """Return what is new, in one clause."""
        if slice_.end is not None:
            code = slice_.end.exit_code
            return slice_.end.message or ("" if code is None else f"ended with {code}")
        if placement is None:
            if slice_.cancelled:
                return "its user wants it gone"
            if slice_.held:
                return "its user wants it to wait"
            again = _again(slice_.attempts) if slice_.attempts else "queued"
            return sentence or again
        if placement.ending is not None:
            ending = placement.ending
            what = ending.message or (
                "being given back" if phase is Phase.DRAINING else "being cleaned"
            )
            if ending.grace_seconds and phase is Phase.DRAINING:
                what += f"; its tasks have {ending.grace_seconds:g} s to end"
            return what
        if slice_.cancelled:
            return "its user wants it gone"
        engines = sum(map(len, placement.engines.values()))
        held = f"{engines} {'engine' if engines == 1 else 'engines'}"
        if placement.waits:
            return f"took {held} over, waits until they are given up"
        if placement.started_at is not None:
            return f"runs on {held}"
        progress = built(
            placement,
            self._view.orders.get(placement.attempt, {}),
            self._view.reports.get(placement.attempt, {}),
        )
        if progress.begun:
            return f"{progress.applied} of {progress.places} places are ready"
        return f"placed on {held} by {placement.scheduler.partition('@')[0]}"


def _again(attempts: int) -> str:
    return f"queued again after {attempts} attempt{'' if attempts == 1 else 's'}"
