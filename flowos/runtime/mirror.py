"""How does a process stay in step with its store, and what has it to do about each answer?

The logic of every loop's shell, without threads, queues or waiting: events come in by `take`, and
`act` says what to do now. `shell.py` carries that out with threads, the simulation in virtual time.

What is held here:
- The view is complete up to a revision only by a progress answer, asked for after the last event:
  at once where the machine waits for it, soon where nobody does. Each question costs a scheduler and
  its etcd 0.2 ms, and most events need none.
- A watch that is lost is made good by listing again; what an older watch still says is not heard.
- An answer that never came is decided by a fence and then by the view, once it is complete up to
  the fence; until then the machine counts what it asked for as its own.
- A store that does not answer, or says no to everything, is asked again after pauses that grow, and
  the machine has to wait as long.
"""

import logging
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Final, TypeAlias

from flowos.model.errors import OutcomeUnknown, SessionLost, StoreError, StoreUnreachable
from flowos.model.transaction import (
    Changes,
    Conflicted,
    Lost,
    Outcome,
    Progress,
    Put,
    Reading,
    WatchMessage,
)
from flowos.runtime.machine import Answer, Commit, Compact, Machine, Refused, after_fence
from flowos.runtime.trouble import BackOff, Trouble, kind_of

LOG = logging.getLogger("flowos")

PROGRESS_SECONDS: Final = 2.0  # how often a quiet watch is asked whether it still lives
LAG_SECONDS: Final = 0.1  # how long a view that nobody waits for may be incomplete

# -- what happened


@dataclass(frozen=True, slots=True)
class Listed:
    """Everything was read at one revision."""

    generation: int
    reading: Reading


@dataclass(frozen=True, slots=True)
class NotListed:
    """It could not be read."""

    generation: int
    error: StoreError


@dataclass(frozen=True, slots=True)
class Heard:
    """A watch said something; watches are told apart by the listing that they follow."""

    generation: int
    message: WatchMessage


@dataclass(frozen=True, slots=True)
class Answered:
    """The store has answered a request, which took so long."""

    commit: Commit
    outcomes: Sequence[Outcome]
    seconds: float


@dataclass(frozen=True, slots=True)
class Unanswered:
    """A request was not sent, was refused, or nobody knows."""

    commit: Commit
    error: StoreError


@dataclass(frozen=True, slots=True)
class Fenced:
    """The session was put again, at this revision."""

    revision: int


@dataclass(frozen=True, slots=True)
class Unfenced:
    """It could not be put again, or nobody knows."""

    error: StoreError


@dataclass(frozen=True, slots=True)
class SessionOver:
    """The session's lease has run out."""


Event: TypeAlias = (
    Listed | NotListed | Heard | Answered | Unanswered | Fenced | Unfenced | SessionOver
)

# -- what to do


@dataclass(frozen=True, slots=True)
class List:
    """Read everything that the machine follows."""

    generation: int


@dataclass(frozen=True, slots=True)
class OpenWatch:
    """Follow every change after this revision."""

    generation: int
    after: int


@dataclass(frozen=True, slots=True)
class CloseWatch:
    """End the watch that is open."""


@dataclass(frozen=True, slots=True)
class AskProgress:
    """Ask the open watch how far it is."""


@dataclass(frozen=True, slots=True)
class Send:
    """Commit these steps, in one request."""

    commit: Commit


@dataclass(frozen=True, slots=True)
class PutFence:
    """Put the session again."""


Instruction: TypeAlias = List | OpenWatch | CloseWatch | AskProgress | Send | PutFence | Compact


class Mirror:
    """One machine in step with its store."""

    def __init__(
        self,
        machine: Machine,
        *,
        session_key: str,
        dice: random.Random,
        trouble: Trouble,
        in_flight_max: int = 1,
    ) -> None:
        """Begin with a listing.

        Args:
            machine: What decides; its view is filled and followed.
            session_key: Of the process's session, whose loss ends all; "" = it has none.
            dice: Spreads the tries of many processes.
            trouble: Told of all that fails and works.
            in_flight_max: How many requests may be under way.
        """
        self.machine = machine
        self._session_key = session_key
        self._trouble = trouble
        self._in_flight_max = in_flight_max
        self._generation = 0
        self._list_at = 0.0  # when to list; infinity where nothing calls for it
        self._listing = False  # a listing is under way
        self._in_step = False  # the view was listed and is followed
        self._held: list[Event] = []  # answers that came while the view was nobody's word
        self._opening: list[Instruction] = []
        self._waiting: deque[Commit] = deque()
        self._in_flight = 0
        self._unknown: list[Commit] = []
        self._fencing: list[Commit] | None = None  # what the fence under way is to decide
        self._fenced: list[tuple[int, list[Commit]]] = []  # until the view is as far
        self._fence_at = 0.0
        self._held_until = 0.0  # the store said no to everything, or nothing
        self._listings, self._sendings = BackOff(dice), BackOff(dice)
        self._heard_at = 0.0
        self._asked_at = -inf
        self._complete_at = 0.0  # when the view was last known to be complete up to something
        self._heard_of = 0  # the newest revision of all that came
        self._fences = 0  # what is to be decided waits for the view to be complete up to here
        self._news = False  # the machine has not been asked since something happened

    # -- what happened

    def take(self, event: Event, now: float) -> None:
        """Take in what happened; `act` comes after it, or after several.

        Raises:
            SessionLost: Nothing that this process knows may be acted on any more.
        """
        if isinstance(event, Heard):
            if event.generation == self._generation and self._in_step:
                self._hear(event.message, now)
            return
        if isinstance(event, Listed | NotListed):
            if event.generation == self._generation:
                self._take_listing(event, now)
            return
        if isinstance(event, SessionOver):
            raise SessionLost("the session's lease is over")
        if not self._in_step:
            self._held.append(event)
            return
        self._news = True
        match event:
            case Answered():
                self._take_answers(event, now)
            case Unanswered(commit, error):
                self._take_failure(commit, error, now)
            case Fenced(revision):
                self._trouble.worked(now)
                self._sendings.worked()
                commits, self._fencing = self._fencing or [], None
                self._in_flight -= len(commits)
                self._fenced.append((revision, commits))
                self._fences = max(self._fences, revision)
            case Unfenced(error):
                self._trouble.failed(error, now)
                self._unknown = [*(self._fencing or []), *self._unknown]
                self._fencing = None
                self._fence_at = now + self._sendings.failed()

    def _hear(self, message: WatchMessage, now: float) -> None:
        self._heard_at = now
        self._news = True
        if isinstance(message, Changes):
            machine, view = self.machine, self.machine.view
            for change in message.changes:
                machine.changed(view.apply(change))
                self._heard_of = max(self._heard_of, change.modified)
        elif isinstance(message, Progress):
            self.machine.view.progressed(message.revision)
            self._asked_at = -inf
            self._complete_at = now
        elif isinstance(message, Lost):
            self._trouble.lost(message.why, now)
            self._in_step = False
            self._list_at = now
            self._opening.append(CloseWatch())

    def _take_listing(self, event: Listed | NotListed, now: float) -> None:
        self._listing = False
        if isinstance(event, NotListed):
            self._trouble.failed(event.error, now, "read")
            self._list_at = now + self._listings.failed()
            return
        self._trouble.worked(now, "read")
        self._listings.worked()
        view, reading = self.machine.view, event.reading
        view.clear()
        view.load(reading.records)
        view.progressed(reading.revision)
        self._in_step = True
        self._heard_at, self._asked_at, self._complete_at = now, -inf, now
        self._heard_of = 0
        self._fences = max([0, *(revision for revision, _ in self._fenced)])
        self._opening.append(OpenWatch(event.generation, reading.revision))
        self._news = True
        self.machine.relisted()
        held, self._held = self._held, []
        for answer in held:
            self.take(answer, now)

    def _take_answers(self, event: Answered, now: float) -> None:
        commit = event.commit
        self._in_flight -= 1
        trouble = self._trouble
        trouble.took(event.seconds, now)
        if trouble.there_is:
            puts = any(
                isinstance(operation, Put)
                for proposal in commit.proposals
                for operation in proposal.transaction.operations
            )
            trouble.worked(now, "write" if puts else "delete")  # a full store takes deletions
        self._sendings.worked()
        for outcome in event.outcomes:
            self._heard_of = max(self._heard_of, outcome.revision)
            if isinstance(outcome, Conflicted) and outcome.keys.get(self._session_key, 0) is None:
                raise SessionLost(f"{self._session_key} is over: start again")
        self.machine.answered(commit, event.outcomes, now)

    def _take_failure(self, commit: Commit, error: StoreError, now: float) -> None:
        self._trouble.failed(error, now)
        if isinstance(error, OutcomeUnknown):
            if not self._session_key:
                raise SessionLost("an answer was lost, and without a session nothing decides it")
            self._unknown.append(commit)
            return
        self._in_flight -= 1
        if kind_of(error) is not None and now >= self._held_until:
            self._held_until = now + self._sendings.failed()
        if isinstance(error, StoreUnreachable):
            none = Conflicted(self.machine.view.revision)
            self.machine.answered(commit, [none for _ in commit.proposals], now)
        else:
            self.machine.answered(commit, [Refused(error) for _ in commit.proposals], now)

    # -- what to do

    @property
    def busy(self) -> bool:
        """Whether any request's outcome is still to be known."""
        return bool(self._in_flight or self._waiting or self._fenced or self._held)

    def wake_at(self) -> float:
        """Return when `act` has something to do without any event."""
        at = self._trouble.ends_at() if self._trouble.there_is else inf
        if not self._listing:
            at = min(at, self._list_at)
        if not self._in_step:
            return at
        if self._fencing is None:
            if self._unknown:
                at = min(at, self._fence_at)
            else:
                wakes = -inf if self._news or self._may_send() else self.machine.wake_at()
                at = min(at, max(wakes, self._held_until))
        return min(at, self._lags_at(), max(self._heard_at, self._asked_at) + PROGRESS_SECONDS)

    def act(self, now: float) -> list[Instruction]:
        """Return what to do now, in order."""
        todo, self._opening = self._opening, []
        if self._trouble.there_is:
            self._trouble.passes(now)
        if now >= self._list_at and not self._listing:
            self._listing, self._list_at = True, inf
            self._generation += 1
            todo.append(List(self._generation))
        if not self._in_step:
            return todo
        if self._fenced:
            self._decide(now)
        if self._fencing is None:
            if self._unknown:
                if now >= self._fence_at:
                    self._fencing, self._unknown = self._unknown, []
                    todo.append(PutFence())
            elif now >= self._held_until:
                self._step(now, todo)
        self._ask(now, todo)
        return todo

    def _step(self, now: float, todo: list[Instruction]) -> None:
        """Let the machine act, and send what may be sent."""
        self._news = False
        for instruction in self.machine.step(now):
            if isinstance(instruction, Commit):
                self._waiting.append(instruction)
            else:
                todo.append(instruction)
        while self._may_send():
            self._in_flight += 1
            todo.append(Send(self._waiting.popleft()))

    def _may_send(self) -> bool:
        return bool(self._waiting) and self._in_flight < self._in_flight_max

    def _decide(self, now: float) -> None:
        """Decide what was unknown: after its fence nothing of it can still happen."""
        view = self.machine.view
        due = [entry for entry in self._fenced if entry[0] <= view.revision]
        if not due:
            return
        self._fenced = [entry for entry in self._fenced if entry[0] > view.revision]
        for _, commits in due:
            for commit in commits:
                answers: list[Answer] = after_fence(view, commit.proposals)
                LOG.debug("a lost answer is decided: %d steps", len(answers))
                self.machine.answered(commit, answers, now)
        self._news = True

    def _ask(self, now: float, todo: list[Instruction]) -> None:
        """Keep the view's revision as fresh as the machine needs it, and never far behind."""
        waited = now - self._heard_at >= PROGRESS_SECONDS
        # An answer to an earlier question may not reach as far as what was heard since.
        if not (waited or self._awaited() or now >= self._lags_at()):
            return
        if now - self._asked_at < PROGRESS_SECONDS:
            return
        self._asked_at = now
        if waited:
            self._heard_at = now
        todo.append(AskProgress())

    def _awaited(self) -> bool:
        """Whether anything waits for the view to be complete beyond where it is."""
        complete = self.machine.view.revision
        return self._fences > complete or (
            self._heard_of > complete and self.machine.needs() > complete
        )

    def _lags_at(self) -> float:
        """Return when the view has been incomplete for too long."""
        if self._heard_of <= self.machine.view.revision or self._asked_at > -inf:
            return inf
        return self._complete_at + LAG_SECONDS
