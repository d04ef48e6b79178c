"""How does one scheduler process live in virtual time? Its machine, its mirror, and its wire.

As in production one thread takes in what was heard, and plans: what comes while it thinks is
heard afterwards. Messages take their time, and none is ever lost: what goes wrong on the way is
what trials are for (`flowos.simulation.trial`).
"""

import random
from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from typing import Protocol

from flowos.model.errors import StoreRefused, TransactionTooLarge
from flowos.model.transaction import Outcome, Progress, WatchMessage
from flowos.protocol.proposal import Proposal
from flowos.runtime import mirror
from flowos.runtime.machine import Commit, Machine
from flowos.runtime.mirror import Mirror
from flowos.runtime.trouble import Trouble
from flowos.runtime.underway import GROUPS_MAX
from flowos.simulation.timeline import Timeline
from flowos.simulation.wire import SimStore

_ROUND_SECONDS = 1e-6  # a round takes some time: what is due in a rounding error is not due now
_IDLE_SECONDS = 1.0  # the stream is never lost here, so an idle mirror need not look at it


class Hall(Protocol):
    """Where the members meet: the store, and who carries requests to it."""

    store: SimStore
    line: Timeline
    round_trip_s: float
    news_s: float

    def carry_out(self, member: "Member", proposals: Sequence[Proposal]) -> list[Outcome]:
        """Commit one request of a member now."""


class Member:
    """One scheduler process.

    Attributes:
        think_until: It is busy with its plans up to then.
    """

    def __init__(
        self,
        hall: Hall,
        follows: tuple[str, ...],
        session_key: str,
        make: Callable[["Member"], Machine],
        seed: int,
    ) -> None:
        """Be about to begin.

        Args:
            hall: Where it lives.
            follows: What its machine's view is made of.
            session_key: Of its session, which is open.
            make: Makes its machine, by this member's clock.
            seed: Of its mirror's pauses.
        """
        self.line = hall.line
        self.think_until = 0.0
        self._hall = hall
        self._follows = follows
        self._ahead = 0.0
        self._inbox: list[mirror.Event] = []
        self._round_at = inf
        self._generation = 0
        self.machine = make(self)
        self.mirror = Mirror(
            self.machine,
            session_key=session_key,
            dice=random.Random(seed),
            trouble=Trouble(),
            in_flight_max=GROUPS_MAX,
        )

    def clock(self) -> float:
        """Return its own time, with what it has thought in this round."""
        return self.line.clock.now + self._ahead

    def thinks(self, seconds: float) -> None:
        """Let it take that long for what it does just now."""
        self._ahead += seconds

    def begin(self) -> None:
        """Start at the present moment."""
        self._look_later()

    def hear(self, message: WatchMessage) -> None:
        """Take in what its watch says, as soon as it has time."""
        if self._generation:
            self._post(mirror.Heard(self._generation, message))

    def _post(self, event: mirror.Event) -> None:
        self._inbox.append(event)
        self._look_later()

    def _look_later(self) -> None:
        now = self.line.clock.now
        if self._inbox:
            at = max(now, self.think_until)
        else:
            at = max(now + _ROUND_SECONDS, self.think_until, self.mirror.wake_at())
            idle = self.machine.wake_at() == inf and not self.mirror.busy
            if idle and at > now + _IDLE_SECONDS:
                return
        if at < self._round_at:
            self._round_at = at
            self.line.at(at, partial(self._round, at))

    def _round(self, at: float) -> None:
        if at != self._round_at:
            return  # an earlier one came in between
        self._round_at = inf
        now, inbox = self.line.clock.now, self._inbox
        self._inbox = []
        for event in inbox:
            self.mirror.take(event, now)
        todo = self.mirror.act(now)
        took, self._ahead = self._ahead, 0.0
        if took:
            self.think_until = now + took
            self.line.at(self.think_until, lambda: self._carry_out(todo))
        else:
            self._carry_out(todo)
        self._look_later()

    def _carry_out(self, todo: Sequence[mirror.Instruction]) -> None:
        hall, line = self._hall, self.line
        for instruction in todo:
            match instruction:
                case mirror.Send(commit):
                    line.after(hall.round_trip_s / 2, partial(self._arrive, commit))
                case mirror.AskProgress():
                    line.after(hall.round_trip_s / 2, self._answer)
                case mirror.List(generation):
                    self._generation = generation
                    self._post(mirror.Listed(generation, hall.store.read(self._follows)))
                case mirror.OpenWatch():
                    pass  # the hall tells everybody, from the first revision on
                case _:
                    raise AssertionError(f"nothing is lost here: {instruction}")

    def _arrive(self, commit: Commit) -> None:
        event: mirror.Event
        try:
            outcomes = self._hall.carry_out(self, commit.proposals)
        except (StoreRefused, TransactionTooLarge) as error:
            event = mirror.Unanswered(commit, error)
        else:
            event = mirror.Answered(commit, outcomes, self._hall.round_trip_s)
        self.line.after(self._hall.round_trip_s / 2, lambda: self._post(event))

    def _answer(self) -> None:
        # After all that was told before: those messages take as long.
        message = Progress(self._hall.store.revision)
        self.line.after(self._hall.news_s, lambda: self.hear(message))
