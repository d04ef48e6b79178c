"""What was delivered of a watch, and what is to be asked next? Decided without I/O.

A `Subscription` follows some prefixes over any number of etcd's streams, one after the other. The
shell (`watch`) tells it what a stream said, that it broke, and the time; it says what to deliver,
what to ask, and when a stream is to be left.

Traps of etcd's watch that are handled here (each has a test):
- A watch from revision R + 1 answers no progress request while the store stands at R, for hours if
  nobody writes (3.5.30). So it starts at R, and what happened at R is left out.
- Progress requests made while a watch is catching up are dropped, not deferred: ask again.
- Events of a watch wait until its `created` is sent, a progress answer does not: ask only after all
  are announced, else it overtakes them.
- Large revisions come in fragments, to be joined before anybody sees them.
- `canceled` is the end of a watch, whatever else the message says; the stream stays open.
- The revision of `created` is the server's, and says nothing of what was delivered.
- A server that hangs leaves the stream open for ever.
- Another store may answer at the same address.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, NamedTuple

from flowos.model.transaction import Change, Changes, Lost, Progress, WatchMessage
from flowos_store.origins import ANOTHER

REASK_SECONDS: Final = (0.02, 0.05, 0.1, 0.25, 1.0)  # etcd takes up to 0.1 s to bring a watch up
REOPEN_SECONDS_MAX: Final = 5.0
DELETE: Final = 1  # mvccpb.Event.DELETE
EVERY_WATCH: Final = -1  # the watch id of a progress answer


def pause_seconds(failures: int) -> float:
    """Return how long to wait before a stream is opened again, without jitter."""
    return min(REOPEN_SECONDS_MAX, 0.05 * 2.0 ** min(failures, 10))


class Span(NamedTuple):
    """A prefix as etcd takes it: from `first` on, to before `end`."""

    first: bytes
    end: bytes


class Newest(NamedTuple):
    """Where a store stands, and which it is."""

    cluster: int
    revision: int


class Create(NamedTuple):
    """Ask for a watch: its number on this stream, what it watches, and from which revision on."""

    number: int
    span: Span
    start: int


class Then(Enum):
    """What becomes of the stream."""

    GO_ON = "it goes on"
    REOPEN = "leave it and open another"
    LOG_IN = "leave it, log in, and open another"
    OVER = "leave it; the subscription is over"


class Do(Enum):
    """What the sender is to do now."""

    WAIT = "wait, until `wake_at` or until something happens"
    ASK = "send a progress request"
    HANG_UP = "end the stream: nothing comes from it"


@dataclass(frozen=True, slots=True)
class Heard:
    """What follows from one response."""

    messages: tuple[WatchMessage, ...] = ()
    then: Then = Then.GO_ON


@dataclass(slots=True)
class _Stream:
    """One opening of the stream: what it still owes us.

    Answers to progress requests carry no name, and some requests get none. But they come in order,
    so the nth answer is to the nth request or a later one: an ask is answered for certain by the
    answer with the number of the next request.
    """

    heard_at: float  # when anything came
    announced: int = 0  # watches that the server has said to have created
    sent: int = 0  # progress requests
    answered: int = 0  # of these
    due: int = 0  # which answer is waited for
    parts: dict[int, list[Any]] = field(default_factory=dict)  # fragments that wait for the rest


class Subscription:
    """One subscription, over all its streams. Not for several threads at once."""

    def __init__(
        self,
        spans: Sequence[Span],
        *,
        root_length: int,
        after: int,
        silent_seconds: float,
        jitter: random.Random,
        has_user: bool = False,
        cluster: int = 0,
    ) -> None:
        """Begin, without a stream.

        Args:
            spans: What to watch.
            root_length: How many bytes to cut off the front of each key.
            after: The revision that is known already.
            silent_seconds: How long an answer may take before the stream counts as dead.
            jitter: Spreads the reopening of many clients.
            has_user: Whether a new login can help.
            cluster: Which store `after` is of; 0 = the one that is heard first.
        """
        self._spans = tuple(spans)
        self._root_length = root_length
        self._silent_seconds = silent_seconds
        self._jitter = jitter
        self._has_user = has_user
        self._delivered = [after] * len(spans)  # per span, the revision up to which all was told
        self._first = [max(1, after)] * len(spans)  # per span, where the next stream starts
        self._cluster = cluster
        self._stream = _Stream(0.0)
        self._waiting_since: float | None = None  # for an answer to a request, or to `Create`
        self._asks = 0  # requests since then
        self._ask_at = 0.0  # when to make the next
        self._failures = 0  # streams in a row that told nothing new
        self._before = self._delivered.copy()  # what was told when the stream began

    # -------------------------------------------------------------------------- the stream

    def opened(self, now: float) -> list[Create]:
        """Note that a stream is opened; return the watches to ask it for."""
        asked = self._is_asked()
        self._stream = _Stream(now, due=1 if asked else 0)
        self._before = self._delivered.copy()
        self._waiting_since, self._asks = now, 0
        return [
            Create(number, span, first)
            for number, (span, first) in enumerate(
                zip(self._spans, self._first, strict=True), start=1
            )
        ]

    def heard(self, response: Any, now: float) -> Heard:
        """Take in a WatchResponse of the stream."""
        stream = self._stream
        stream.heard_at = now
        if response.canceled:
            return self._canceled(response)
        if response.created:
            return self._created(response, now)
        if response.watch_id == EVERY_WATCH:
            return self._progressed(response.header.revision)
        events: Sequence[Any] = response.events
        if response.fragment or response.watch_id in stream.parts:
            parts = stream.parts.setdefault(response.watch_id, [])
            parts.extend(events)
            if response.fragment:
                return Heard()
            events = stream.parts.pop(response.watch_id)
        return self._changed(response.watch_id - 1, events)

    def broke(self) -> float:
        """Note that the stream is over; return for how many seconds not to open another.

        All that was told is known, so the next stream goes on from there. What was not joined yet
        comes again.
        """
        self._stream.parts.clear()
        self._failures = 0 if self._delivered != self._before else self._failures + 1
        return pause_seconds(self._failures) * self._jitter.uniform(0.5, 1.0)

    def stands(self, newest: Newest) -> Lost | None:
        """Check where the store stands before another stream: does it continue what was told?"""
        if self._cluster and newest.cluster != self._cluster:
            return Lost(ANOTHER, anew=True)
        known = max(self._delivered)
        if newest.revision < known:
            why = f"the store went back from revision {known} to {newest.revision}"
            return Lost(why, anew=True)
        return None

    # ----------------------------------------------------------------------------- asking

    def want_progress(self, now: float) -> None:
        """Have a `Progress` delivered; it comes after every change that precedes it."""
        self._stream.due = self._stream.sent + 1
        if self._waiting_since is None:
            self._waiting_since, self._asks = now, 0
        self._ask_at = now

    def is_waiting(self) -> bool:
        """Tell whether the stream owes an answer."""
        return self._waiting_since is not None

    def look(self, now: float) -> Do:
        """Say what the sender is to do now; `ASK` counts as done."""
        if self._waiting_since is None:
            return Do.WAIT
        if now - max(self._waiting_since, self._stream.heard_at) > self._silent_seconds:
            return Do.HANG_UP
        if self._is_announced() and self._is_asked() and now >= self._ask_at:
            self._stream.sent += 1
            self._asks += 1
            self._ask_at = now + REASK_SECONDS[min(self._asks, len(REASK_SECONDS) - 1)]
            return Do.ASK
        return Do.WAIT

    def wake_at(self) -> float | None:
        """Return when to `look` again if nothing happens; None = not before something does."""
        if self._waiting_since is None:
            return None
        silent_at = max(self._waiting_since, self._stream.heard_at) + self._silent_seconds
        if self._is_announced() and self._is_asked():
            return min(silent_at, self._ask_at)
        return silent_at

    def _is_asked(self) -> bool:
        return self._stream.answered < self._stream.due

    def _is_announced(self) -> bool:
        return self._stream.announced == len(self._spans)

    def _settle(self) -> None:
        if self._is_announced() and not self._is_asked():
            self._waiting_since = None

    # ----------------------------------------------------------------------------- answers

    def _created(self, response: Any, now: float) -> Heard:
        cluster = response.header.cluster_id
        if self._cluster and cluster and cluster != self._cluster:
            # Between our look at where it stands and this stream, the address changed hands.
            return Heard((Lost(ANOTHER, anew=True),), Then.OVER)
        self._cluster = self._cluster or cluster
        self._stream.announced += 1
        if self._is_announced():
            self._ask_at = now
            self._settle()
        return Heard()

    def _progressed(self, revision: int) -> Heard:
        self._stream.answered += 1
        self._settle()
        for at, delivered in enumerate(self._delivered):
            self._known(at, max(delivered, revision))
        return Heard((Progress(revision),))

    def _changed(self, at: int, events: Sequence[Any]) -> Heard:
        cut, known = self._root_length, self._delivered[at]
        changes = []
        for event in events:
            entry = event.kv
            if entry.mod_revision > known:
                value = None if event.type == DELETE else entry.value
                key = entry.key[cut:].decode("utf-8", "surrogateescape")
                changes.append(Change(key, value, entry.create_revision, entry.mod_revision))
        if not changes:
            return Heard()
        self._known(at, changes[-1].modified)
        return Heard((Changes(changes),))

    def _known(self, at: int, revision: int) -> None:
        self._delivered[at] = self._first[at] = revision

    def _canceled(self, response: Any) -> Heard:
        at, oldest = response.watch_id - 1, response.compact_revision
        if oldest:
            after = self._delivered[at]
            if after + 1 < oldest:
                return Heard((Lost(f"the history after {after} is compacted", oldest),), Then.OVER)
            # Only the revision that is left out anyway is gone.
            self._first[at] = oldest
            return Heard(then=Then.REOPEN)
        reason = response.cancel_reason or "no reason given"
        if self._has_user and "auth token" in reason:
            return Heard(then=Then.LOG_IN)
        if "no leader" in reason:
            return Heard(then=Then.REOPEN)
        return Heard((Lost(f"etcd ended the watch: {reason}"),), Then.OVER)
