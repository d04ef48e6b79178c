"""Which units are left to a slice that keeps waiting, and which slice of ours asks for that?

A mark is advice: a leased key that names units, whose slice it is for, and in how long that can
have them. Whoever comes later plans around them, unless it has surely ended by then. So a gang that
needs much gets it in the end, though small slices come all the time, and nobody holds anything
for it: no unit is idle that a slice could use and give back in time.

The bound: whoever comes first in the order starts at most STARVING_SECONDS, and the longest run of
those that hold its units when the mark is put, and what it takes to look and to clean (5 s) later,
however many small ones come.

Source: the later ones may pass as in EASY backfilling, Lifka, "The ANL/IBM SP Scheduling System",
JSSPP 1995; here the reservation is written down, so that all schedulers of a cell see it.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import inf
from typing import Final, NamedTuple

from flowos.model import keys
from flowos.model.placement import Decision, Mark
from flowos.model.slice import Reason, Slice
from flowos.model.transaction import Committed
from flowos.model.view import CellView, Entry
from flowos.planning.policy import Order
from flowos.planning.shadow import Shadow, places
from flowos.protocol.proposal import Draft, Fence, Proposal
from flowos.runtime.machine import Answer, Refused
from flowos.runtime.placed import takes_seconds
from flowos.runtime.ranks import Ranks
from flowos.runtime.waiting import Pending, Queue

STARVING_SECONDS: Final = 10.0  # a slice that waits for room this long asks to be let in
LOSSES_MAX: Final = 4  # and one that has lost so many races; most win before
LOOK_SECONDS: Final = 1.0  # a mark is looked at this often
SHADOW_PART: Final = 20  # at most this part of the time goes into finding out when there is room
HOPELESS_SECONDS: Final = 30.0  # where no end of others makes room, it is not asked again so soon

# What the end of others can mend; quotas, power and what is infeasible are no matter of room.
ROOM: Final = frozenset(
    {
        Reason.WAITING_FOR_ENGINES,
        Reason.FRAGMENTED_ACROSS_SWITCHES,
        Reason.NO_CIRCUIT,
        Reason.WAITING_FOR_BITSTREAM,
        Reason.BEHIND_HIGHER_PRIORITY,
    }
)


class Around(NamedTuple):
    """What a slice leaves alone.

    Attributes:
        units: Of all marks that it respects.
        names: Whose they are, first the one that comes first.
    """

    units: frozenset[str]
    names: tuple[str, ...]


NOBODY: Final = Around(frozenset(), ())


@dataclass(slots=True)
class _Own:
    """The mark of this process's slice, as it should be in the store.

    Attributes:
        at: When its units were found.
        version: Below 0, and another one for each.
        held: Who held them then.
        told: Whether it was asked to be written as it is now.
    """

    name: str
    mark: Mark
    at: float
    version: int
    held: Mapping[str, str]
    told: bool = False


class Marks:
    """All marks of a view, and the one that this process wants."""

    def __init__(
        self,
        view: CellView,
        queue: Queue,
        ranks: Ranks,
        *,
        fence: Callable[[], Fence],
        lease: Callable[[], int] | None,
        find: Callable[[str, Pending, float, float], Shadow | None],
        wall: Callable[[], float],
        stopwatch: Callable[[], float],
        wake: Callable[[], None],
        at_once: Callable[[], bool] = lambda: False,
        starving_seconds: float = STARVING_SECONDS,
    ) -> None:
        """Want none.

        Args:
            view: Which marks there are.
            queue: Who of ours waits.
            ranks: Who comes first.
            fence: Returns the session's fence now.
            lease: Returns the session's lease; None = nothing is written, only respected.
            find: Where a slice would go, and when, by when others end: its shadow. It is told the
                slice, its entry in the queue, and monotonic and wall-clock seconds.
            wall: Wall-clock seconds, for people.
            stopwatch: Monotonic seconds, for what finding takes.
            wake: Called when what was planned around others may be planned anew.
            at_once: Whether the first that waits asks at once, so that later ones never make it
                wait longer, provided that anybody knows how long that is.
            starving_seconds: How long a slice waits for room until it asks; 0 = at once.
        """
        self.put = 0
        self._view = view
        self._queue = queue
        self._ranks = ranks
        self._fence = fence
        self._lease = lease
        self._find = find
        self._wall = wall
        self._stopwatch = stopwatch
        self._wake = wake
        self._at_once = at_once
        self._starving_seconds = starving_seconds
        self._own: _Own | None = None
        self._written: set[str] = set()  # slices whose mark may be in the store by this process
        self._seen: dict[str, tuple[int, float]] = {}  # mark -> its revision, when it came
        self._hopeless: dict[str, float] = {}
        self._find_at = -inf
        self._look_at = -inf  # not sooner, whatever comes
        self._due_at = inf  # whatever does not come
        self._news = False
        self._refused_until = -inf
        self._versions = itertools.count(-1, -1)
        self._arounds: dict[tuple[tuple[str, int], ...], Around] = {}

    # -- what is respected

    def around(self, name: str, entry: Entry[Slice], pending: Pending, now: float) -> Around:
        """Return what a slice plans around.

        Args:
            name: The slice.
            entry: Its own record.
            pending: Its entry in the queue.
            now: Monotonic seconds.
        """
        own = self._own
        if not self._view.marks and own is None:
            return NOBODY
        found: list[tuple[tuple[int, ...], str, int, Mark]] = []
        takes = takes_seconds(entry.value.spec)
        for other, mark, revision, age in self._marks(now):
            if other == name or not self._comes_before(other, mark, name, entry, pending, now):
                continue
            if (
                takes is not None
                and mark.eta_seconds is not None
                and takes <= mark.eta_seconds - age
            ):
                continue  # it has ended by then
            found.append((mark.order, other, revision, mark))
        if not found:
            return NOBODY
        found.sort(key=lambda each: each[:2])
        key = tuple((other, revision) for _, other, revision, _ in found)
        around = self._arounds.get(key)
        if around is None:
            if len(self._arounds) > 64:  # of marks that are over
                self._arounds.clear()
            units = _kept_for(mark for _, _, _, mark in found)
            around = self._arounds[key] = Around(units, tuple(other for _, other, _, _ in found))
        return around

    def kept(self, now: float) -> frozenset[str]:
        """Return what is kept for any slice: what runs already comes after all that wait."""
        return _kept_for(mark for _, mark, _, _ in self._marks(now))

    def _marks(self, now: float) -> list[tuple[str, Mark, int, float]]:
        """Return slice, mark, its revision (below 0: not written yet) and how long it is known."""
        found: list[tuple[str, Mark, int, float]] = []
        own = self._own
        if own is not None and self._waits(own.name, own.mark):
            found.append((own.name, own.mark, own.version, now - own.at))
        for name, written in self._view.marks.items():
            if (own is not None and name == own.name) or not self._waits(name, written.value):
                continue
            revision, since = self._seen.get(name, (0, now))
            if revision != written.modified:
                since = now
                self._seen[name] = (written.modified, now)
            found.append((name, written.value, written.modified, now - since))
        if len(self._seen) > len(self._view.marks):
            self._seen = {n: s for n, s in self._seen.items() if n in self._view.marks}
        return found

    def _waits(self, name: str, mark: Mark) -> bool:
        """Whether the slice of a mark is still there and holds nothing."""
        entry = self._view.slices.get(name)
        if entry is None or entry.created != mark.uid or self._view.now(name) is not None:
            return False
        return not (entry.value.cancelled or entry.value.held or entry.value.end)

    def _comes_before(
        self, other: str, mark: Mark, name: str, entry: Entry[Slice], pending: Pending, now: float
    ) -> bool:
        """Whether a mark's slice comes before one of ours.

        Between two marks what is written decides, so that all agree and no circle of slices waits
        for each other. Of the same queue its policy says; between queues, priority and age do.
        """
        mine = self._own.mark if self._own is not None and self._own.name == name else None
        if mine is not None:
            return (*mark.order, mark.uid) < (*mine.order, mine.uid)
        theirs = self._queue.slices.get(other)
        if theirs is not None:
            return theirs.order < pending.order
        # Both by the same clock: how far that is from other machines' does not count.
        asks = self._view.slices[other]
        return self._ranks.general(asks, now, now) < self._ranks.general(entry, now, now)

    # -- what is asked for

    def blocked(self, name: str, pending: Pending, now: float, *, asks: bool) -> None:
        """Note that there is no room for a slice: if it comes first, it may ask for some.

        Args:
            name: The slice.
            pending: Its entry in the queue.
            now: Monotonic seconds.
            asks: Whether that is for this process to ask.
        """
        pending.blocked = self._news = True
        own = self._own
        if (
            asks
            and self._at_once()
            and (own is None or (own.name != name and self._is_before(pending, own)))
        ):
            self._want_room(name, now)  # at once, before later ones are planned

    def losing(self, name: str, pending: Pending, decision: Decision, now: float) -> None:
        """Note what a slice goes for that has lost races: others leave that to it from now on."""
        own = self._own
        if own is not None and own.name != name and not self._is_before(pending, own):
            return
        units = places(decision.units)
        if own is not None and own.name == name and units.issubset(own.mark.units):
            return
        self._own = self._mark(name, Shadow(0.0, units, ()), "losing", now)

    def _is_before(self, pending: Pending, own: _Own) -> bool:
        known = self._queue.slices.get(own.name)
        return known is None or pending.order < known.order

    def _want_room(self, name: str, now: float) -> None:
        """Find out when there is room for a slice, and mark that."""
        pending = self._queue.slices.get(name)
        if pending is None or now < self._hopeless.get(name, -inf):
            return
        if now < self._find_at:
            self._due_at = min(self._due_at, self._find_at)
            return
        before = self._stopwatch()
        room = self._find(name, pending, now, self._wall())
        self._find_at = now + SHADOW_PART * (self._stopwatch() - before)
        if room is None:
            self._hopeless = {n: at for n, at in self._hopeless.items() if now < at}
            self._hopeless[name] = now + HOPELESS_SECONDS
            return
        starving = now >= pending.since + self._starving_seconds
        if not starving and room.eta_seconds is None:
            return  # others may go on until it is
        self._own = self._mark(name, room, "starving" if starving else "first", now)

    def _mark(self, name: str, room: Shadow, why: str, now: float) -> _Own | None:
        entry, pending = self._view.slices.get(name), self._queue.slices.get(name)
        if entry is None or pending is None:
            return None
        order = self._ranks.general(entry, pending.since, now)
        units = tuple(sorted(room.units))
        mark = Mark(entry.created, order, units, room.eta_seconds, self._wall(), why)
        return _Own(name, mark, now, next(self._versions), self._holders(units))

    def _holders(self, units: tuple[str, ...]) -> dict[str, str]:
        held = ((unit, self._view.holder(unit)) for unit in units)
        return {unit: holder for unit, holder in held if holder is not None}

    # -- what is written

    def steps(self, now: float, mine: Callable[[str, Pending], bool]) -> list[Proposal]:
        """Return what is to be written of marks now; to be asked now and then, see `next_at`.

        Args:
            now: Monotonic seconds.
            mine: Whether this process is who asks for a slice, of all that serve its queue.
        """
        own = self._own
        if own is not None and (
            own.name not in self._queue.slices or not self._waits(own.name, own.mark)
        ):
            own = self._own = None
            self._wake()
            self._news = True
        if now >= self._due_at or (self._news and now >= self._look_at):
            self._look_at, self._news = now + LOOK_SECONDS, False
            self._look(now, mine)
        if self._lease is None or now < self._refused_until:
            return []
        return self._written_down(self._lease())

    def answered(self, proposal: Proposal, answer: Answer, now: float) -> None:
        """Take in what became of a step."""
        name = proposal.identifier
        if not isinstance(answer, Committed):
            self._written.discard(name)
            if self._own is not None and self._own.name == name:
                self._own.told = False  # it is written again, if it still waits
                self._refused_until = now + LOOK_SECONDS
        if isinstance(answer, Refused):
            self._refused_until = now + HOPELESS_SECONDS

    def next_at(self) -> float:
        """Return when `steps` has something to do without any event."""
        return min(self._due_at, self._look_at if self._news else inf)

    def _look(self, now: float, mine: Callable[[str, Pending], bool]) -> None:
        own, first = self._own, self._first(now, mine)
        if first is not None and (
            own is None or (own.name != first and self._is_before(self._queue.slices[first], own))
        ):
            self._want_room(first, now)
        elif own is not None and own.mark.why != "losing" and self._is_stale(own, now):
            self._want_room(own.name, now)
        if self._own is not None and self._own.mark.eta_seconds:
            over = self._own.at + self._own.mark.eta_seconds + 2 * LOOK_SECONDS
            self._due_at = min(self._due_at, max(over, now + LOOK_SECONDS))

    def _first(self, now: float, mine: Callable[[str, Pending], bool]) -> str | None:
        """Return the first slice of ours that has starved for room, None = none has."""
        first: tuple[Order, str] | None = None
        youngest = inf
        for name, pending in self._queue.slices.items():
            if not pending.blocked or now < self._hopeless.get(name, -inf):
                continue
            if pending.since + self._starving_seconds > now:  # the sum that is waited for, below
                youngest = min(youngest, pending.since)
            elif first is None or (pending.order, name) < first:
                first = pending.order, name
        self._due_at = youngest + self._starving_seconds
        # Only the first of a queue: if that is for another process to ask for, so it does.
        if first is None or not mine(first[1], self._queue.slices[first[1]]):
            return None
        return first[1]

    def _is_stale(self, own: _Own, now: float) -> bool:
        """Whether what was found is not so any more: it is late, or others have got there."""
        eta = own.mark.eta_seconds
        if eta is not None and now > own.at + eta + LOOK_SECONDS:
            return True
        holders = self._holders(own.mark.units).items()
        return any(own.held.get(unit) != holder for unit, holder in holders)

    def _written_down(self, lease: int) -> list[Proposal]:
        own, marks = self._own, self._view.marks
        draft = Draft(fence=self._fence())
        for name in [n for n in self._written if own is None or n != own.name]:
            if name in marks:  # else it is still on its way, or gone
                self._written.discard(name)
                draft.delete(keys.mark(name))
                return [draft.proposal("unmark", name, self._view)]
        if own is None or own.told or self._view.assumed(own.name):
            return []
        entry = self._view.slices.get(own.name)
        if entry is None:
            return []
        draft.seen(keys.slice_(own.name), entry.modified)
        draft.placed(own.name, None)
        draft.put(keys.mark(own.name), own.mark, lease=lease)
        self._written.add(own.name)
        own.told = True
        self.put += 1
        return [draft.proposal("mark", own.name, self._view)]


def _kept_for(marks: Iterable[Mark]) -> frozenset[str]:
    # Of a node that is named only its host is meant: its engines are named one by one.
    return frozenset(
        f"host/{unit[5:]}" if unit.startswith("node/") else unit
        for mark in marks
        for unit in mark.units
    )
