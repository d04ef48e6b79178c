"""Does a living cell keep its laws? Asked of the store: now, for all that it remembers, and on."""

import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any, Final, Protocol, TypeAlias

from flowos.model import keys
from flowos.model.errors import RevisionCompacted, StoreError, StoreUnreachable
from flowos.model.protocols import CellStore, Maintenance
from flowos.model.transaction import Change, Changes, Lost, Progress, WatchMessage
from flowos.verify.causes import Explainer
from flowos.verify.hold import Checkpoint
from flowos.verify.invariants import Checker
from flowos.verify.laws import Violation
from flowos.verify.state import EVERYTHING, State, by_revision

ASK_SECONDS: Final = 1.0  # how often a quiet watch is asked how far it is
SILENCES_MAX: Final = 30  # that many questions without an answer are an end, not a pause
LOSSES_MAX: Final = 5  # the same of watches that are lost, one after the other, without a step on
STOP_SECONDS: Final = 0.05  # how long a wish to stop may go unseen
AWAY_SECONDS: Final = 10.0  # a watch that was asked so often, and says nothing, has no store
PAUSE_SECONDS_MAX: Final = 5.0  # the longest wait before a watch that was lost is opened again


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
        after: The last revision that was checked before; 0 = none. What lies between was not
            checked; equal to `revision` = it goes on from a checkpoint, and nothing lies between.
        why: Why something lies between, or the state had to be read again; "" = neither.
    """

    revision: int
    after: int = 0
    why: str = ""


@dataclass(frozen=True, slots=True)
class Told:
    """What people should know of the store while it is followed; once, and not again."""

    sentence: str


News: TypeAlias = Violation | Listed | Told


class _Messages:
    """What a watch on everything tells, one after the other."""

    def __init__(self, store: CellStore, *, after: int) -> None:
        self._arrived: queue.SimpleQueue[WatchMessage] = queue.SimpleQueue()
        self._watch = store.watch(EVERYTHING, after=after, deliver=self._arrived.put)
        self._quiet_seconds = 0.0
        self.silent_seconds = 0.0  # since the last message, whatever was asked
        self._watch.ask_progress()

    def next(self, seconds: float) -> WatchMessage | None:
        """Return the next message, or None where none comes for so long."""
        try:
            message = self._arrived.get(timeout=seconds)
        except queue.Empty:
            self._quiet_seconds += seconds
            self.silent_seconds += seconds
            if self._quiet_seconds >= ASK_SECONDS:
                self._quiet_seconds = 0.0
                self._watch.ask_progress()
            return None
        self._quiet_seconds = self.silent_seconds = 0.0
        return message

    def close(self) -> None:
        self._watch.close()


def verify_now(store: KeptStore) -> Verdict:
    """Check the newest state.

    Raises:
        StoreUnreachable: No answer.
    """
    checker = Checker(State.read(store.read(EVERYTHING)))
    found = Explainer(store).explained(checker, checker.standing())
    return _verdict(checker, checker.state.revision, found)


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
        StoreUnreachable: No answer, no word from a watch for long, watches that are lost again and
            again, or the store was replaced meanwhile.
    """
    found: list[Violation] = []
    explainer = Explainer(store)
    newest = store.read((keys.INFO,)).revision
    reached = losses = 0
    while True:
        first = store.oldest()
        try:
            state = State.read(store.read(EVERYTHING, at=first))
        except RevisionCompacted:
            continue
        newest = max(newest, first)
        checker = Checker(state)
        found += explainer.explained(checker, _new(checker.standing(), found))
        with closing(_Messages(store, after=first)) as messages:
            lost = _follow_up_to(newest, checker, messages, explainer, found, first, progress)
        if lost is None:
            return _verdict(checker, first, found)
        losses = 1 if checker.state.revision > reached else losses + 1
        reached = max(reached, checker.state.revision)
        if lost.anew or losses == LOSSES_MAX:
            times = "" if lost.anew else f" {losses} times in a row"
            raise StoreUnreachable(
                f"the watch was lost{times} at revision {reached} of {newest}: {lost.why}"
            )
        time.sleep(_pause_seconds(losses))


def _follow_up_to(
    newest: int,
    checker: Checker,
    messages: _Messages,
    explainer: Explainer,
    found: list[Violation],
    first: int,
    progress: Callable[[int, int, int], None] | None,
) -> Lost | None:
    """Check revisions up to the newest; return why that is not all of them, or None."""
    silences = 0
    while checker.state.revision < newest:
        message = messages.next(ASK_SECONDS)
        silences = silences + 1 if message is None else 0
        match message:
            case Changes(changes):
                for together in by_revision(changes):
                    if together[0].modified > newest:
                        break
                    found += explainer.explained(checker, checker.step(together), together)
            case Progress(revision):
                # Up to there nothing was written in this cell: a revision can be another cell's.
                checker.state.revision = max(checker.state.revision, min(revision, newest))
            case Lost():
                return message
            case None if silences > SILENCES_MAX:
                raise StoreUnreachable(
                    f"the watch has said nothing for {silences * ASK_SECONDS:.0f} s, at revision "
                    f"{checker.state.revision} of {newest}"
                )
        if progress is not None:
            progress(checker.state.revision, first, newest)
    return None


def follow(
    store: KeptStore,
    deliver: Callable[[News], None],
    stop: threading.Event,
    *,
    checkpoint: Checkpoint | None = None,
    progress: Callable[[int, int, int], None] | None = None,
) -> Verdict:
    """Check every revision from a checkpoint, or from the newest, until told to stop.

    A watch that is lost is opened again at the revision that was reached. Only where the history
    from there on is compacted, or the store went back or is another one, the state is read and checked again;
    a `Listed` says what was missed.

    Args:
        store: Which cell.
        deliver: Called, in this thread, with each violation as it is found, with a `Listed`
            whenever the state was read, and with what people should know of the store.
        stop: Set by another thread, or by `deliver`.
        checkpoint: Where to go on from, and what to move forward meanwhile.
        progress: Called now and then with: checked up to here, from there, up to there.

    Returns:
        What was found in all; `first` is where the last uninterrupted stretch begins.

    Raises:
        StoreError: No answer at the start; later ones are waited for.
    """
    return _Follower(store, deliver, stop, checkpoint, progress).follow()


class _Follower:
    """One run of `follow`."""

    def __init__(
        self,
        store: KeptStore,
        deliver: Callable[[News], None],
        stop: threading.Event,
        checkpoint: Checkpoint | None,
        progress: Callable[[int, int, int], None] | None,
    ) -> None:
        self._store = store
        self._deliver = deliver
        self._stop = stop
        self._checkpoint = checkpoint
        self._progress = progress or (lambda _at, _first, _last: None)
        self._explainer = Explainer(store)
        self._found: list[Violation] = []
        self._away = False
        self._news = False  # something was checked since the checkpoint was moved
        self._failures = 0  # watches lost in a row without a word
        self._newest = 0
        begin = checkpoint.found() if checkpoint else 0
        self._checker = self._read(begin, after=begin, why="")

    def follow(self) -> Verdict:
        while not self._stop.is_set():
            with closing(_Messages(self._store, after=self._checker.state.revision)) as messages:
                lost = self._listen(messages)
            if lost is not None:
                self._failures += 1
                if self._failures == LOSSES_MAX:
                    self._gone(f"the watch is lost again and again: {lost.why}")
                self._stop.wait(_pause_seconds(self._failures))
                self._go_on(lost)
        self._keep()
        return _verdict(self._checker, self._first, self._found)

    def _read(self, at: int, *, after: int, why: str) -> Checker:
        """Read and check the state at a revision, or the oldest kept after it; 0 = the newest."""
        self._newest = self._store.read((keys.INFO,)).revision
        if at > self._newest:
            why, at = f"the store stands at {self._newest} and not at {at}: it is another one", 0
        state: State | None = None
        while state is None:
            try:
                state = State.read(self._store.read(EVERYTHING, at=at))
            except RevisionCompacted as error:
                why, at = why or str(error).partition(":")[0], self._store.oldest()
        self._first = state.revision
        self._newest = max(self._newest, state.revision)
        checker = Checker(state)
        self._deliver(Listed(state.revision, after, why))
        self._tell(checker, _new(checker.standing(), self._found))
        self._news = True
        return checker

    def _listen(self, messages: "_Messages") -> Lost | None:
        """Check revisions as they come; return why no more come, or None where it is to stop."""
        while not self._stop.is_set():
            message = messages.next(STOP_SECONDS)
            state = self._checker.state
            match message:
                case Changes(changes):
                    for together in by_revision(changes):
                        self._tell(self._checker, self._checker.step(together), together)
                        self._news = self._news or not _only_verifiers(together)
                case Progress(revision):
                    state.revision = max(state.revision, revision)
                case Lost():
                    return message
            if message is not None:
                self._failures = 0
                self._back()
            elif messages.silent_seconds >= AWAY_SECONDS:
                self._gone(f"no word for {messages.silent_seconds:.0f} s")
            self._newest = max(self._newest, state.revision)
            self._progress(state.revision, self._first, self._newest)
            if self._checkpoint is not None and self._checkpoint.due(news=self._news):
                self._keep()
        return None

    def _go_on(self, lost: Lost) -> None:
        """Wait until the store is there again, and read the state anew where it must be."""
        at = self._checker.state.revision
        while not self._stop.is_set():
            try:
                newest = self._store.read((keys.INFO,)).revision
                anew = lost.anew or newest < at
                if anew or at < lost.compacted:
                    oldest = 0 if anew else lost.compacted
                    self._checker = self._read(oldest, after=at, why=lost.why)
            except StoreError as error:
                self._gone(str(error))
                self._stop.wait(ASK_SECONDS)
            else:
                if self._failures < LOSSES_MAX:
                    self._back()
                return

    def _keep(self) -> None:
        """Move the checkpoint to what was checked."""
        if self._checkpoint is None:
            return
        problem = self._checkpoint.move(self._checker.state.revision)
        self._news = False
        if problem:
            self._deliver(Told(problem))

    def _gone(self, why: str) -> None:
        if not self._away:
            self._away = True
            self._deliver(Told(f"the store does not answer, waiting for it: {why}"))

    def _back(self) -> None:
        if self._away:
            self._away = False
            at = self._checker.state.revision
            self._deliver(Told(f"the store answers again: following from revision {at}"))

    def _tell(
        self, checker: Checker, violations: list[Violation], step: Sequence[Change] = ()
    ) -> None:
        for violation in self._explainer.explained(checker, violations, step):
            self._found.append(violation)
            self._deliver(violation)


def _pause_seconds(failures: int) -> float:
    return min(PAUSE_SECONDS_MAX, STOP_SECONDS * 2.0 ** min(failures, 10))


def _only_verifiers(changes: Iterable[Change]) -> bool:
    return all(change.key.startswith("verify/") for change in changes)


def _new(violations: list[Violation], known: list[Violation]) -> list[Violation]:
    """Return what was not known to be broken before the state was read again."""
    before = {(v.law, v.where, v.sentence) for v in known}
    return [v for v in violations if (v.law, v.where, v.sentence) not in before]


def _verdict(checker: Checker, first: int, found: list[Violation]) -> Verdict:
    return Verdict(
        first=first,
        last=checker.state.revision,
        engines=len(checker.facts.cell.engines),
        slices=checker.phases.lives,
        violations=tuple(found),
    )
