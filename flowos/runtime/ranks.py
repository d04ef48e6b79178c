"""Where in the queue does a slice stand now, by what its policy says and how long it has waited?"""

from collections.abc import Callable
from math import floor, inf
from typing import Final

from flowos.model.rules import NO_POLICIES
from flowos.model.slice import Reason, Slice
from flowos.model.view import CellView, Entry
from flowos.planning.policy import Order, Waits
from flowos.runtime.guarded import Guarded
from flowos.runtime.usage import Turns
from flowos.runtime.waiting import Queue

REORDER_SECONDS: Final = 1.0  # a queue is put in order anew this often at most
REORDER_PART: Final = 50  # and at most this part of the time goes there: a long queue waits longer


class Ranks:
    """Asks a policy for the order of its slices, and keeps a queue in it as time goes by."""

    def __init__(
        self,
        view: CellView,
        guarded: Guarded,
        queue: Queue,
        *,
        wall: Callable[[], float],
        stopwatch: Callable[[], float],
        turns: Turns | None = None,
    ) -> None:
        """Order nothing yet.

        Args:
            view: What tells of slices, and of how fast they age.
            guarded: The policy that is asked.
            queue: Kept in order by `refresh`.
            wall: Wall-clock seconds; other machines' clocks may say something else.
            stopwatch: Monotonic seconds.
            turns: What tenants have of the cell, for `Waits.usage`; None = nobody minds.
        """
        self._view = view
        self._guarded = guarded
        self._queue = queue
        self._wall = wall
        self._stopwatch = stopwatch
        self._turns = turns
        self._due_at = -inf

    def order(self, entry: Entry[Slice], since: float, now: float) -> Order:
        """Return a slice's place in the queue.

        Args:
            entry: Its own record.
            since: When this process first saw it wait, in monotonic seconds.
            now: The same clock, now.
        """
        if self._turns is not None and not self._queue.slices:
            self._turns.restart()  # nobody is ahead of it
        return self._order(entry, self.age_seconds(entry.value, since, now))

    def _order(self, entry: Entry[Slice], age: float, *, counts: bool = True) -> Order:
        spec = entry.value.spec
        usage = 0.0 if self._turns is None else self._turns.turn(spec, counts=counts)
        waits = Waits(spec, entry.created, age, usage, spec.priority + self._gained(age))
        order = self._guarded.order(waits)
        # All of an array came at once: the first of them goes first.
        return order if spec.array is None else (*order, spec.array.index)

    def age_seconds(self, record: Slice, since: float, now: float) -> float:
        """Return how long a slice has waited: as the clocks say, and at least as was seen."""
        told = self._wall() - record.submitted_at if record.submitted_at else 0.0
        return max(told, now - since)

    def general(self, entry: Entry[Slice], since: float, now: float) -> tuple[int, int]:
        """Return a place in the queue that slices of all policies can be compared by."""
        gained = self._gained(self.age_seconds(entry.value, since, now))
        return -(entry.value.spec.priority + gained), entry.created

    def refresh(self, now: float) -> None:
        """Put the queue in order anew where that is due.

        Nobody need be woken for it: another order alone makes no room. The time that it takes
        counts: for 20,000 slices it is some 0.1 s, so that is done every few seconds only.
        """
        if now < self._due_at or not (self._guarded.policy.reorders or self._ageing_seconds()):
            return
        started = self._stopwatch()
        orders = self._orders(now)
        self._queue.reorder(lambda name, pending: orders.get(name, pending.order))
        took = self._stopwatch() - started
        self._due_at = now + max(REORDER_SECONDS, REORDER_PART * took)

    def _orders(self, now: float) -> dict[str, Order]:
        """Return where each slice stands, asked for in the order in which its tenant wants it."""
        waiting: list[tuple[float, int, int, str, float]] = []
        for name, pending in self._queue.slices.items():
            entry = self._view.slices.get(name)
            if entry is not None:
                spec = entry.value.spec
                age = self.age_seconds(entry.value, pending.since, now)
                index = 0 if spec.array is None else spec.array.index
                rank = -(spec.priority + self._gained(age))
                waiting.append((rank, entry.created, index, name, age))
        if self._turns is not None:
            waiting.sort()
            self._turns.restart()
        orders: dict[str, Order] = {}
        for *_, name, age in waiting:
            # Nobody waits for one that cannot be placed whatever comes free.
            told = self._view.reasons.get(name)
            never = told is not None and told.value.reason is Reason.INFEASIBLE
            counts = not (never or self._queue.slices[name].shut)
            orders[name] = self._order(self._view.slices[name], age, counts=counts)
        return orders

    def _gained(self, age_seconds: float) -> int:
        """Return what a slice has gained in priority by waiting."""
        step = self._ageing_seconds()
        return floor(age_seconds / step) if step else 0

    def _ageing_seconds(self) -> float:
        return (self._view.policies or NO_POLICIES).ageing_seconds
