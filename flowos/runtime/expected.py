"""What will other schedulers of the same queue take next, for slices that come first?

Whatever becomes free in a full cell is seen by all at once, and all who have a slice that waits for
it would go for it: one wins, the others lose a race that they could have foreseen. For nothing is
hidden from them. They see the same queue and the same free units, so each can plan for the slices
of the others that come first as their owners will, and plan its own on what that leaves. Nobody is
asked, nothing is written, and nobody has to keep to it: no unit that is free is left to others for
longer than a moment, however many slices of however many owners are expected to take it.
"""

from math import inf
from typing import Final

from flowos.model.placement import Decision
from flowos.model.units import is_divisible
from flowos.model.view import CellView
from flowos.runtime.marks import ROOM

COMES_SECONDS: Final = 0.5  # how long a unit is left to those who are expected to take it


class Expected:
    """What the others are expected to take, as one scheduler works it out in a pass."""

    def __init__(self, view: CellView) -> None:
        """Expect nothing yet."""
        self._view = view
        self._units: dict[str, frozenset[str]] = {}
        # Since when a free unit is left to others. By unit: whoever has many slices would else be
        # given a moment for each of them, one after the other.
        self._since: dict[str, float] = {}
        self._look_at = inf

    def waits_for_room(self, name: str) -> bool:
        """Whether a slice is known to wait for room: then all plan for it alike, without chance."""
        told = self._view.reasons.get(name)
        return told is not None and told.value.reason in ROOM

    def takes(self, name: str, decision: Decision, now: float) -> None:
        """Note where a slice will go, if its owner sees what is seen here."""
        units = frozenset(unit for unit in decision.units if not is_divisible(unit))
        self._units[name] = units
        for unit in units:
            self._since.setdefault(unit, now)

    def changed(self, name: str) -> None:
        """Expect nothing more of a slice that was placed, or changed."""
        self._units.pop(name, None)

    def begin(self) -> None:
        """Begin a new pass: it is worked out anew. What somebody has taken may be left again later."""
        self._units.clear()
        held = self._view.holders
        self._since = {unit: since for unit, since in self._since.items() if unit not in held}

    def clear(self) -> None:
        """Forget everything."""
        self._units.clear()
        self._since.clear()
        self._look_at = inf

    def units(self, now: float) -> frozenset[str]:
        """Return what is to be left alone now."""
        if not self._units:
            return frozenset()
        since = self._since
        return frozenset(
            unit
            for units in self._units.values()
            for unit in units
            if now < since.get(unit, -inf) + COMES_SECONDS
        )

    def gave_way(self, now: float) -> None:
        """Note that an own slice would fit on what is left alone: it is to look again after that."""
        ends = (self._since[unit] + COMES_SECONDS for unit in self.units(now))
        self._look_at = min(self._look_at, max(ends, default=now))

    def next_at(self) -> float:
        """Return when what others were given, and have not taken, may be taken after all."""
        return self._look_at

    def over(self) -> None:
        """Note that it was looked at again."""
        self._look_at = inf
