"""The thin shell that runs a machine against a real store.

One loop thread owns the machine and its view. The store's threads and the commit threads only put
messages into one queue. Measured under full planning load, this keeps the watch's lag at 2 ms
where asyncio took seconds.
"""

import logging
import queue
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Final, TypeAlias

from flowos.model.errors import (
    OutcomeUnknown,
    RevisionCompacted,
    SessionLost,
    StoreError,
    StoreUnreachable,
)
from flowos.model.protocols import CellStore, Clock, Maintenance, Watch
from flowos.model.transaction import Changes, Conflicted, Lost, Outcome, Progress, WatchMessage
from flowos.runtime.machine import Answer, Commit, Compact, Machine, Refused, after_fence
from flowos.runtime.session import ProcessSession

LOG = logging.getLogger("flowos")

PROGRESS_SECONDS: Final = 2.0  # how often a quiet watch is asked whether it still lives
PAUSE_SECONDS_MAX: Final = 5.0  # the longest wait between two tries to reach the store


@dataclass(frozen=True, slots=True)
class _Answered:
    commit: Commit
    answers: list[Answer]


@dataclass(frozen=True, slots=True)
class _Fenced:
    commit: Commit
    revision: int


@dataclass(frozen=True, slots=True)
class _Unsent:
    commit: Commit
    error: StoreError


@dataclass(frozen=True, slots=True)
class _Gone:
    pass


@dataclass(frozen=True, slots=True)
class _Bug:
    error: BaseException


@dataclass(frozen=True, slots=True)
class _Stop:
    pass


@dataclass(frozen=True, slots=True)
class _FromWatch:
    generation: int
    message: WatchMessage


_Message: TypeAlias = _Answered | _Fenced | _Unsent | _Gone | _Bug | _Stop | _FromWatch


class Shell:
    """Feeds a machine from watches, carries out its instructions, and resolves lost answers."""

    def __init__(
        self,
        store: CellStore,
        machine: Machine,
        session: ProcessSession | None,
        *,
        prefixes: Sequence[str],
        clock: Clock,
        maintenance: Maintenance | None = None,
        commit_threads: int = 1,
        on_round: Callable[[float], None] = lambda _now: None,
        on_synced: Callable[[], None] = lambda: None,
    ) -> None:
        """Connect a machine.

        Args:
            store: The cell's.
            machine: What decides.
            session: The process's; None for machines that only look.
            prefixes: What the machine's view follows.
            clock: Monotonic seconds.
            maintenance: For machines that compact.
            commit_threads: How many requests may be under way; each blocks one thread.
            on_round: Called after each round with the monotonic time, on the loop thread.
            on_synced: Called after each listing, on the loop thread.
        """
        self._store = store
        self._machine = machine
        self._session = session
        self._prefixes = tuple(prefixes)
        self._clock = clock
        self._maintenance = maintenance
        self._on_round = on_round
        self._inbox: queue.SimpleQueue[_Message] = queue.SimpleQueue()
        self._jobs: queue.SimpleQueue[Commit | Compact | None] = queue.SimpleQueue()
        self._threads = commit_threads
        self._generation = 0
        self._watch: Watch | None = None
        self._fenced: list[_Fenced] = []
        self._heard_at = 0.0
        self._asked_at = -inf
        self._listed = False
        self._needed = 0  # the machine waits for the view to be complete up to this revision
        self._pause_seconds = 0.0
        self._paused_until = 0.0
        self._on_synced = on_synced

    def stop(self) -> None:
        """End `run` soon; may be called from a signal handler or any thread."""
        self._inbox.put(_Stop())

    def session_lost(self) -> None:
        """End `run` with `SessionLost`; given to the session as `on_lost`."""
        self._inbox.put(_Gone())

    def run(self) -> None:
        """Run until `stop`.

        Raises:
            SessionLost: The process must start anew, with a new session.
        """
        threads = [
            threading.Thread(target=self._commit_all, name=f"commit-{n}", daemon=True)
            for n in range(self._threads)
        ]
        for thread in threads:
            thread.start()
        try:
            self._sync()
            while self._round():
                pass
        finally:
            for _ in threads:
                self._jobs.put(None)
            if self._watch is not None:
                self._watch.close()

    # -- one round of the loop

    def _round(self) -> bool:
        now = self._clock.monotonic()
        # While the store cannot be reached, the machine is not asked and has to wait.
        wake_at = max(self._machine.wake_at(), self._paused_until)
        deadline = min(wake_at, max(self._heard_at, self._asked_at) + PROGRESS_SECONDS)
        timeout = max(0.0, min(deadline - now, PROGRESS_SECONDS))
        if self._listed:  # what was listed is news by itself
            self._listed, timeout = False, 0.0
        message: _Message | None
        try:
            message = self._inbox.get(timeout=timeout) if timeout else self._inbox.get_nowait()
        except queue.Empty:
            message = None
        while message is not None:
            if not self._take(message):
                return False
            try:
                message = self._inbox.get_nowait()
            except queue.Empty:
                message = None
        now = self._clock.monotonic()
        self._decide_fenced(now)
        if now >= self._paused_until:
            for instruction in self._machine.step(now):
                self._jobs.put(instruction)
        self._ask_progress(now)
        self._on_round(now)
        return True

    def _take(self, message: _Message) -> bool:
        now = self._clock.monotonic()
        view = self._machine.view
        match message:
            case _Stop():
                return False
            case _Gone():
                raise SessionLost("the session's lease is over")
            case _Bug(bug):
                raise bug
            case _Answered(commit, answers):
                self._pause_seconds = 0.0
                for answer in answers:
                    if not isinstance(answer, Refused):
                        self._needed = max(self._needed, answer.revision)
                self._machine.answered(commit, answers, now)
            case _Fenced(_, revision):
                self._fenced.append(message)
                self._needed = max(self._needed, revision)
            case _Unsent(commit, error):
                self._pause(now, error)
                conflicts: list[Answer] = [Conflicted(view.revision) for _ in commit.proposals]
                self._machine.answered(commit, conflicts, now)
            case _FromWatch(generation, content) if generation == self._generation:
                self._heard_at = now
                match content:
                    case Changes(changes):
                        for change in changes:
                            self._machine.changed(view.apply(change))
                            self._needed = max(self._needed, change.modified)
                    case Progress(revision):
                        view.progressed(revision)
                        self._asked_at = -inf
                    case Lost(why):
                        LOG.warning("watch lost (%s): listing again", why)
                        self._sync()
            case _:
                pass
        return True

    def _ask_progress(self, now: float) -> None:
        """Keep the view's revision fresh: planners and frees need to know that it is complete."""
        waited = now - self._heard_at >= PROGRESS_SECONDS
        # An answer to an earlier question may not reach as far as what was heard since.
        behind = self._needed > self._machine.view.revision
        if self._watch is None or not (behind or waited):
            return
        if now - self._asked_at < PROGRESS_SECONDS:
            return
        self._asked_at = now
        self._heard_at = now if waited else self._heard_at
        self._watch.ask_progress()

    def _decide_fenced(self, now: float) -> None:
        revision = self._machine.view.revision
        for fenced in [f for f in self._fenced if f.revision <= revision]:
            self._fenced.remove(fenced)
            answers = after_fence(self._machine.view, fenced.commit.proposals)
            LOG.warning("a lost answer is decided: %d steps", len(answers))
            self._machine.answered(fenced.commit, answers, now)

    def _pause(self, now: float, error: StoreError) -> None:
        if not self._pause_seconds:
            LOG.warning("%s: trying again", error)
        self._pause_seconds = min(PAUSE_SECONDS_MAX, max(0.05, 2 * self._pause_seconds))
        self._paused_until = now + self._pause_seconds

    # -- listing and watching

    def _sync(self) -> None:
        """List everything at one revision and watch from there."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        self._generation += 1
        generation = self._generation
        view = self._machine.view
        pause_seconds = 0.05
        while True:
            try:
                reading = self._store.read(self._prefixes)
            except (StoreUnreachable, RevisionCompacted) as error:
                LOG.warning("%s: trying again", error)
                if self._stopped_within(pause_seconds):
                    return
                pause_seconds = min(PAUSE_SECONDS_MAX, 2 * pause_seconds)
                continue
            break
        view.clear()
        view.load(reading.records)
        view.progressed(reading.revision)
        self._watch = self._store.watch(
            self._prefixes,
            after=view.revision,
            deliver=lambda message: self._inbox.put(_FromWatch(generation, message)),
        )
        self._heard_at = self._clock.monotonic()
        self._asked_at = -inf
        self._needed = 0
        self._listed = True
        self._machine.relisted()
        self._on_synced()

    def _stopped_within(self, seconds: float) -> bool:
        """Wait a little for the store; True where someone asked to stop meanwhile."""
        deadline = self._clock.monotonic() + seconds * random.uniform(0.5, 1.5)
        kept: list[_Message] = []
        stopped = False
        while not stopped and (left := deadline - self._clock.monotonic()) > 0:
            try:
                message = self._inbox.get(timeout=left)
            except queue.Empty:
                break
            kept.append(message)
            stopped = isinstance(message, _Stop | _Gone)
        for message in kept:
            self._inbox.put(message)
        return stopped

    # -- the commit threads

    def _commit_all(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                if isinstance(job, Compact):
                    self._compact(job)
                else:
                    self._inbox.put(self._commit(job))
            except Exception as bug:  # noqa: BLE001  # raised again where it is seen: on the loop thread
                self._inbox.put(_Bug(bug))
                return

    def _commit(self, commit: Commit) -> _Message:
        transactions = [proposal.transaction for proposal in commit.proposals]
        try:
            outcomes: list[Outcome] = self._store.commit(transactions)
        except StoreUnreachable as error:
            return _Unsent(commit, error)
        except OutcomeUnknown as error:
            LOG.warning("%s: fencing before anything else", error)
            return self._fence(commit)
        except StoreError as error:
            return _Answered(commit, [Refused(error) for _ in transactions])
        return _Answered(commit, list(outcomes))

    def _fence(self, commit: Commit) -> _Message:
        pause_seconds = 0.05
        if self._session is None:
            return _Gone()
        while True:
            try:
                return _Fenced(commit, self._session.refence())
            except SessionLost:
                return _Gone()
            except StoreError:
                threading.Event().wait(pause_seconds)
                pause_seconds = min(PAUSE_SECONDS_MAX, 2 * pause_seconds)

    def _compact(self, job: Compact) -> None:
        try:
            if self._maintenance is not None:
                self._maintenance.compact(job.before)
        except StoreError as error:
            LOG.warning("not compacted: %s", error)
