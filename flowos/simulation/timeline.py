"""What happens next? Moments in virtual time, in order, and the leases that run out between them."""

import heapq
from collections.abc import Callable
from math import inf
from typing import Protocol

from flowos.simulation.stage import VirtualClock


class Leases(Protocol):
    """The part of a store that time alone changes."""

    def next_expiry(self) -> float:
        """Return when the next lease runs out."""

    def tick(self) -> None:
        """End the leases whose time is over."""


class Timeline:
    """A clock that jumps to what is due next; what is due at one moment comes in order of asking."""

    def __init__(self, clock: VirtualClock) -> None:
        """Start with nothing due."""
        self.clock = clock
        self.leases: Leases | None = None
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    @property
    def now(self) -> float:
        """The virtual moment."""
        return self.clock.now

    def at(self, moment: float, call: Callable[[], None]) -> None:
        """Have something called at a moment; the past counts as now."""
        self._count += 1
        heapq.heappush(self._due, (max(moment, self.clock.now), self._count, call))

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        """Have something called later."""
        self.at(self.clock.now + seconds, call)

    def next_at(self) -> float:
        """Return when the next is due; infinite = nothing is."""
        return self._due[0][0] if self._due else inf

    def run(self, until: float) -> None:
        """Let time pass up to a moment."""
        while self._due and self._due[0][0] <= until:
            moment, _, call = heapq.heappop(self._due)
            self._pass(moment)
            call()
        self._pass(until)

    def _pass(self, moment: float) -> None:
        while self.leases is not None and (over := self.leases.next_expiry()) <= moment:
            self.clock.now = max(self.clock.now, over)
            self.leases.tick()
        self.clock.now = max(self.clock.now, moment)
