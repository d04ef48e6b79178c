"""The thin shell that runs a machine against a real store.

One loop thread owns the machine, its view and the `Mirror` that keeps both in step; it alone
decides. The store's threads and the commit threads only put messages into one queue. Measured under
full planning load, this keeps the watch's lag at 2 ms where asyncio took seconds.
"""

import logging
import queue
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from flowos.model.errors import SessionLost, StoreError
from flowos.model.protocols import CellStore, Clock, Maintenance, Watch
from flowos.runtime import mirror
from flowos.runtime.machine import Compact, Machine
from flowos.runtime.mirror import Event, Mirror
from flowos.runtime.session import ProcessSession
from flowos.runtime.trouble import Trouble

LOG = logging.getLogger("flowos")

ROUND_SECONDS_MAX: Final = 2.0  # a loop looks at its clock this often at least
MESSAGES_MAX: Final = 1000  # taken in one round: a flood of events must not keep a machine waiting


@dataclass(frozen=True, slots=True)
class _Bug:
    error: BaseException


@dataclass(frozen=True, slots=True)
class _Stop:
    pass


_Message: TypeAlias = Event | _Bug | _Stop


class Shell:
    """Carries out what a mirror says, with threads, and posts what came of it."""

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
        trouble: Trouble | None = None,
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
            trouble: What the process has to say of its store.
        """
        self._store = store
        self._machine = machine
        self._session = session
        self._prefixes = tuple(prefixes)
        self._clock = clock
        self._maintenance = maintenance
        self._on_round = on_round
        self._on_synced = on_synced
        self._inbox: queue.SimpleQueue[_Message] = queue.SimpleQueue()
        self._jobs: queue.SimpleQueue[mirror.Send | mirror.PutFence | Compact | None] = (
            queue.SimpleQueue()
        )
        self._threads = commit_threads
        self._watch: Watch | None = None
        self._not_compacted: set[type[StoreError]] = set()
        self._mirror = Mirror(
            machine,
            session_key=session.key if session is not None else "",
            dice=random.Random(),
            trouble=trouble or Trouble(),
            in_flight_max=commit_threads,
        )

    def stop(self) -> None:
        """End `run` soon; may be called from a signal handler or any thread."""
        self._inbox.put(_Stop())

    def session_lost(self) -> None:
        """End `run` with `SessionLost`; given to the session as `on_lost`."""
        self._inbox.put(mirror.SessionOver())

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
            while self._round():
                pass
        finally:
            for _ in threads:
                self._jobs.put(None)
            if self._watch is not None:
                self._watch.close()

    # -- one round of the loop

    def _round(self) -> bool:
        clock, inbox = self._clock.monotonic, self._inbox
        timeout = min(self._mirror.wake_at() - clock(), ROUND_SECONDS_MAX)
        message: _Message | None
        try:
            message = inbox.get(timeout=timeout) if timeout > 0 else inbox.get_nowait()
        except queue.Empty:
            message = None
        taken = 0
        while message is not None:
            if isinstance(message, _Stop):
                return False
            if isinstance(message, _Bug):
                raise message.error
            self._mirror.take(message, clock())
            taken += 1
            try:
                message = inbox.get_nowait() if taken < MESSAGES_MAX else None
            except queue.Empty:
                message = None
        now = clock()
        for instruction in self._mirror.act(now):
            self._carry_out(instruction)
        self._on_round(now)
        return True

    def _carry_out(self, instruction: mirror.Instruction) -> None:
        match instruction:
            case mirror.Send() | mirror.PutFence() | Compact():
                self._jobs.put(instruction)
            case mirror.AskProgress():
                if self._watch is not None:
                    self._watch.ask_progress()
            case mirror.List(generation):
                # On a thread of its own: a store that hangs must not keep this loop from its end.
                threading.Thread(
                    target=self._list, args=(generation,), name="list", daemon=True
                ).start()
            case mirror.CloseWatch():
                if self._watch is not None:
                    self._watch.close()
                    self._watch = None
            case mirror.OpenWatch(generation, after):
                put = self._inbox.put
                self._watch = self._store.watch(
                    self._prefixes,
                    after=after,
                    deliver=lambda message: put(mirror.Heard(generation, message)),
                )
                self._on_synced()

    # -- the other threads

    def _list(self, generation: int) -> None:
        try:
            reading = self._store.read(self._prefixes)
        except StoreError as error:
            self._inbox.put(mirror.NotListed(generation, error))
        except Exception as bug:  # noqa: BLE001  # raised again where it is seen: on the loop thread
            self._inbox.put(_Bug(bug))
        else:
            self._inbox.put(mirror.Listed(generation, reading))

    def _commit_all(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                match job:
                    case mirror.Send():
                        self._inbox.put(self._commit(job))
                    case mirror.PutFence():
                        self._inbox.put(self._fence())
                    case Compact():
                        self._compact(job)
            except Exception as bug:  # noqa: BLE001  # raised again where it is seen: on the loop thread
                self._inbox.put(_Bug(bug))
                return

    def _commit(self, send: mirror.Send) -> Event:
        commit = send.commit
        sent_at = self._clock.monotonic()
        try:
            outcomes = self._store.commit([proposal.transaction for proposal in commit.proposals])
        except StoreError as error:
            return mirror.Unanswered(commit, error)
        return mirror.Answered(commit, outcomes, self._clock.monotonic() - sent_at)

    def _fence(self) -> Event:
        assert self._session is not None, "a mirror without a session asks for no fence"
        try:
            return mirror.Fenced(self._session.refence())
        except SessionLost:
            return mirror.SessionOver()
        except StoreError as error:
            return mirror.Unfenced(error)

    def _compact(self, job: Compact) -> None:
        try:
            if self._maintenance is not None:
                self._maintenance.compact(job.before)
        except StoreError as error:
            if type(error) not in self._not_compacted:  # the same again and again is said once
                self._not_compacted.add(type(error))
                LOG.warning("not compacted: %s", error)
        else:
            self._not_compacted.clear()
