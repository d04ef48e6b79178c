"""Which member of a cluster is asked, and when is it left for another? Decided without I/O.

All calls of a store go to one member, so that the others' troubles are none of ours. Where a call
to it takes long, all members are asked how they are (a round): a read that needs a quorum.

- It answers: it is only slow, and stays. But where it tells of a new leader, what was on its way
  to the old one may be gone, and its sender would wait for nothing: the calls are given up.
- It does not, and another one does: it hangs, or is cut off from its quorum. It is left.
- Nobody answers: nothing better is to be had. Ask again soon.

A call that is given up is a read that can be made again, or a write whose outcome is unknown and
is found out by a fence. So an overhasty verdict costs a round trip and is never wrong.
"""

from dataclasses import dataclass
from typing import Final, TypeAlias

PATIENCE_SECONDS: Final = 0.5  # a call that takes longer makes us ask; commits take some ms
HEAD_START_SECONDS: Final = 0.25  # how much later than another's its own answer may come
ROUND_SECONDS: Final = 0.5  # how long a round waits for answers
AGAIN_SECONDS: Final = 0.1  # after a round without any; elections end suddenly
CALM_SECONDS: Final = 1.0  # after a round that found it well


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask every member how it is."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """End all calls to this member; it stays the one that is asked."""

    member: int


@dataclass(frozen=True, slots=True)
class Leave:
    """End all calls to this member; from now on `Roster.current` is asked."""

    member: int


Step: TypeAlias = Ask | GiveUp | Leave


class Roster:
    """Decides on the members of one cluster.

    Attributes:
        current: Who is asked.
        term: The newest leader's, as far as the members told that were asked.
    """

    def __init__(self, members: int, *, first: int = 0) -> None:
        """Begin with a member.

        Args:
            members: How many there are.
            first: Who is asked first; should differ between clients, to spread the load.
        """
        self.members = members
        self.current = first
        self.term = 0
        self._asked_at: float | None = None  # when the round under way began
        self._next_at = 0.0  # not before then begins another
        self._ok: dict[int, tuple[float, int]] = {}  # who answered in this round: when, its term
        self._failed: set[int] = set()

    def leads(self, member: int, term: int = 0) -> None:
        """Ask this member from now on; it has just told its term, or 0 = nothing is known of it."""
        self.current, self.term = member, max(self.term, term)
        self._asked_at = None

    def passed_over(self) -> int:
        """Ask the next one from now on, and return it: the current one cannot be reached."""
        self.leads((self.current + 1) % self.members)
        return self.current

    def looked(self, now: float, oldest: float | None) -> list[Step]:
        """Note the time.

        Args:
            now: Monotonic seconds.
            oldest: When the oldest call to the current member was made; None = there is none.
        """
        if self._asked_at is None:
            if oldest is None or now - oldest < PATIENCE_SECONDS or now < self._next_at:
                return []
            self._asked_at = now
            self._ok.clear()
            self._failed.clear()
            return [Ask()]
        steps = self._left(now)
        if not steps and now - self._asked_at >= ROUND_SECONDS:
            self._over(now, AGAIN_SECONDS)
        return steps

    def answered(self, member: int, term: int, now: float, oldest: float | None) -> list[Step]:
        """Note that a member is well, and which term it lives in; `oldest` as in `looked`."""
        if self._asked_at is None:
            return []
        self._ok[member] = now, term
        if member != self.current:
            return self._left(now)
        known, self.term = self.term, term
        self._over(now, CALM_SECONDS)
        is_new = 0 < known < term and oldest is not None and now - oldest >= PATIENCE_SECONDS
        return [GiveUp(member)] if is_new else []

    def failed(self, member: int, now: float, *, changed: bool = False) -> list[Step]:
        """Note that a member said no, or nothing, when it was asked in this round.

        Args:
            member: Which.
            now: Monotonic seconds.
            changed: It said that the leader has just changed.
        """
        if self._asked_at is None:
            return []
        if changed and member == self.current:
            self._over(now, AGAIN_SECONDS)
            return [GiveUp(member)]
        self._failed.add(member)
        steps = self._left(now)
        if len(self._failed) == self.members:
            self._over(now, AGAIN_SECONDS)
        return steps

    def _left(self, now: float) -> list[Step]:
        """Leave the current member, if another one answers that has waited for it long enough."""
        if not self._ok:
            return []
        best = min(self._ok, key=self._ok.__getitem__)
        at, term = self._ok[best]
        if self.current not in self._failed and now - at < HEAD_START_SECONDS:
            return []
        left = self.current
        self.leads(best, term)
        return [Leave(left)]

    def _over(self, now: float, pause: float) -> None:
        self._asked_at = None
        self._next_at = now + pause
