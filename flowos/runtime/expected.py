"""What will other schedulers of the same queue take next, for slices that come first?

Whatever becomes free in a full cell is seen by all at once, and all who have a slice that waits for
it would go for it: one wins, the others lose a race that they could have foreseen. For nothing is
hidden from them. They see the same queue and the same free units, so each can plan for the slices
of the others that come first as their owners will, and plan its own on what that leaves. Nobody is
asked, nothing is written, and nobody has to keep to it: an owner that does not come gets a moment,
and then no more for a while.
"""

from collections.abc import Iterable
from math import inf
from typing import Final

from flowos.model.placement import Decision
from flowos.model.view import CellView
from flowos.runtime.marks import ROOM

COMES_SECONDS: Final = 0.2  # how long an owner is given to take what it is expected to
AGAIN_SECONDS: Final = 1.0  # from the first time until it is expected to take something again
_CLAIMED: Final = ("engine/", "lane/", "aggregator/")  # what only one can have


class Expected:
    """What the others are expected to take, as one scheduler works it out in a pass."""

    def __init__(self, view: CellView) -> None:
        """Expect nothing yet."""
        self._view = view
        self._units: dict[str, frozenset[str]] = {}
        self._since: dict[str, float] = {}
        self._look_at = inf

    def waits_for_room(self, name: str) -> bool:
        """Whether a slice is known to wait for room: then all plan for it alike, without chance."""
        told = self._view.reasons.get(name)
        return told is not None and told.value.reason in ROOM

    def is_given_time(self, name: str, now: float) -> bool:
        """Whether what a slice may take is to be left to it: for a moment, once in a while."""
        since = self._since.get(name, -inf)
        return now < since + COMES_SECONDS or now >= since + AGAIN_SECONDS

    def takes(self, name: str, decision: Decision, now: float) -> None:
        """Note where a slice will go, if its owner sees what is seen here."""
        if now >= self._since.get(name, -inf) + AGAIN_SECONDS:
            self._since[name] = now
        self._units[name] = frozenset(u for u in decision.units if u.startswith(_CLAIMED))

    def changed(self, name: str) -> None:
        """Expect nothing more of a slice that was placed, or changed."""
        self._units.pop(name, None)
        self._since.pop(name, None)

    def begin(self) -> None:
        """Begin a new pass: it is worked out anew."""
        self._units.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._units.clear()
        self._since.clear()
        self._look_at = inf

    def units(self, now: float) -> frozenset[str]:
        """Return what is to be left alone now."""
        if not self._units:
            return frozenset()
        return frozenset().union(*(self._units[name] for name in self._awaited(now)))

    def gave_way(self, now: float) -> None:
        """Note that an own slice would fit on what is left alone: it is to look again after that."""
        ends = (self._since[name] + COMES_SECONDS for name in self._awaited(now))
        self._look_at = min(self._look_at, max(ends, default=now))

    def next_at(self) -> float:
        """Return when what others were given, and have not taken, may be taken after all."""
        return self._look_at

    def over(self) -> None:
        """Note that it was looked at again."""
        self._look_at = inf

    def _awaited(self, now: float) -> Iterable[str]:
        return [name for name in self._units if now < self._since[name] + COMES_SECONDS]
