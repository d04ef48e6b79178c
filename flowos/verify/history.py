"""Does a living cell keep its laws? Asked of the store: now, for all that it remembers, and on."""

import queue
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any, Final, Protocol, TypeAlias

from flowos.model import keys
from flowos.model.errors import RevisionCompacted, StoreUnreachable
from flowos.model.protocols import CellStore, Maintenance
from flowos.model.transaction import Changes, Lost, Progress, WatchMessage
from flowos.verify.invariants import Checker
from flowos.verify.laws import Violation
from flowos.verify.state import EVERYTHING, State, by_revision

ASK_SECONDS: Final = 1.0  # how often a quiet watch is asked how far it is
SILENCES_MAX: Final = 30  # that many questions without an answer are an end, not a pause
STOP_SECONDS: Final = 0.05  # how long a wish to stop may go unseen


class KeptStore(CellStore, Maintenance, Protocol):
    """A store that also says how much of its history it keeps."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was looked at and what was found.

    Attributes:
        first: The oldest revision of which all was checked.
        last: The newest.
        engines: How many the cell has, at `last`.
        slices: How many were seen; a name that was used again counts again.
        violations: In the order of revisions. Some may be older than `first`: they were found
            before the store dropped that part of its history.
    """

    first: int
    last: int
    engines: int
    slices: int
    violations: tuple[Violation, ...]

    def record(self) -> dict[str, Any]:
        """Return it as `flowos cell verify` prints it in JSON."""
        return {
            "revision": self.last,
            "from": self.first,
            "to": self.last,
            "checked": {
                "engines": self.engines,
                "slices": self.slices,
                "revisions": self.last - self.first + 1,
            },
            "violations": [asdict(violation) for violation in self.violations],
        }


@dataclass(frozen=True, slots=True)
class Listed:
    """The whole state was read and checked at `revision`; each revision from there on is followed.

    Attributes:
        after: The last revision that was checked before; what lies between was not. 0 = none.
        why: Why the state had to be read again; "" = for the first time.
    """

    revision: int
    after: int = 0
    why: str = ""


News: TypeAlias = Violation | Listed


class _Messages:
    """What a watch on everything tells, one after the other."""

    def __init__(self, store: CellStore, *, after: int) -> None:
        self._arrived: queue.SimpleQueue[WatchMessage] = queue.SimpleQueue()
        self._watch = store.watch(EVERYTHING, after=after, deliver=self._arrived.put)
        self._quiet_seconds = 0.0
        self._watch.ask_progress()

    def next(self, seconds: float) -> WatchMessage | None:
        """Return the next message, or None where none comes for so long."""
        try:
            message = self._arrived.get(timeout=seconds)
        except queue.Empty:
            self._quiet_seconds += seconds
            if self._quiet_seconds >= ASK_SECONDS:
                self._quiet_seconds = 0.0
                self._watch.ask_progress()
            return None
        self._quiet_seconds = 0.0
        return message

    def close(self) -> None:
        self._watch.close()


def verify_now(store: CellStore) -> Verdict:
    """Check the newest state.

    Raises:
        StoreUnreachable: No answer.
    """
    checker = Checker(State.read(store.read(EVERYTHING)))
    return _verdict(checker, checker.state.revision, checker.standing())


def verify_history(
    store: KeptStore, progress: Callable[[int, int, int], None] | None = None
) -> Verdict:
    """Check every revision from the oldest that is kept up to the newest as of now.

    Where the store drops history faster than it is checked, this goes on from what is then the
    oldest.

    Args:
        store: Which cell.
        progress: Called now and then with: checked up to here, from there, up to there.

    Raises:
        StoreUnreachable: No answer, or no word from a watch for long.
    """
    found: list[Violation] = []
    newest = store.read((keys.INFO,)).revision
    while True:
        first = store.oldest()
        try:
            state = State.read(store.read(EVERYTHING, at=first))
        except RevisionCompacted:
            continue
        newest = max(newest, first)
        checker = Checker(state)
        found += _new(checker.standing(), found)
        with closing(_Messages(store, after=first)) as messages:
            if _followed_up_to(newest, checker, messages, found, first, progress):
                return _verdict(checker, first, found)


def _followed_up_to(
    newest: int,
    checker: Checker,
    messages: _Messages,
    found: list[Violation],
    first: int,
    progress: Callable[[int, int, int], None] | None,
) -> bool:
    """Check revisions up to the newest; False where the watch ends before."""
    silences = 0
    while checker.state.revision < newest:
        message = messages.next(ASK_SECONDS)
        silences = silences + 1 if message is None else 0
        match message:
            case Changes(changes):
                for together in by_revision(changes):
                    if together[0].modified > newest:
                        break
                    found += checker.step(together)
            case Progress(revision):
                # Up to there nothing was written in this cell: a revision can be another cell's.
                checker.state.revision = max(checker.state.revision, min(revision, newest))
            case Lost():
                return False
            case None if silences > SILENCES_MAX:
                raise StoreUnreachable(
                    f"the watch has said nothing for {silences * ASK_SECONDS:.0f} s, at revision "
                    f"{checker.state.revision} of {newest}"
                )
        if progress is not None:
            progress(checker.state.revision, first, newest)
    return True


def follow(store: CellStore, deliver: Callable[[News], None], stop: threading.Event) -> Verdict:
    """Check the newest state, and then every revision as it comes, until told to stop.

    Where the watch is lost, the state is read and checked again; a `Listed` says what was missed.

    Args:
        store: Which cell.
        deliver: Called, in this thread, with each violation as it is found, and with a `Listed`
            whenever the state was read.
        stop: Set by another thread, or by `deliver`.

    Returns:
        What was found in all; `first` is the last listing.

    Raises:
        StoreUnreachable: No answer at the start; later ones are waited for.
    """
    found: list[Violation] = []
    checker: Checker | None = None
    first, why = 0, ""
    while True:
        try:
            state = State.read(store.read(EVERYTHING))
        except StoreUnreachable:
            if checker is None:
                raise
            if stop.wait(ASK_SECONDS):
                return _verdict(checker, first, found)
            continue
        known, after = (checker.standing(), checker.state.revision) if checker else ([], 0)
        checker, first = Checker(state), state.revision
        deliver(Listed(first, after, why))
        _tell(_new(checker.standing(), known), found, deliver)
        with closing(_Messages(store, after=first)) as messages:
            why = _followed(checker, messages, found, deliver, stop)
        if stop.is_set():
            return _verdict(checker, first, found)


def _followed(
    checker: Checker,
    messages: _Messages,
    found: list[Violation],
    deliver: Callable[[News], None],
    stop: threading.Event,
) -> str:
    """Check revisions as they come, and return why that is over."""
    while not stop.is_set():
        match messages.next(STOP_SECONDS):
            case Changes(changes):
                for together in by_revision(changes):
                    _tell(checker.step(together), found, deliver)
            case Progress(revision):
                checker.state.revision = max(checker.state.revision, revision)
            case Lost(why):
                return why
    return ""


def _new(violations: list[Violation], known: list[Violation]) -> list[Violation]:
    """Return what was not known to be broken before the state was read again."""
    before = {(v.law, v.where, v.sentence) for v in known}
    return [v for v in violations if (v.law, v.where, v.sentence) not in before]


def _tell(
    violations: list[Violation], found: list[Violation], deliver: Callable[[News], None]
) -> None:
    found += violations
    for violation in violations:
        deliver(violation)


def _verdict(checker: Checker, first: int, found: list[Violation]) -> Verdict:
    return Verdict(
        first=first,
        last=checker.state.revision,
        engines=len(checker.facts.cell.engines),
        slices=checker.phases.lives,
        violations=tuple(found),
    )
