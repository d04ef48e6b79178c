"""Which units are left to a slice that keeps waiting, and which slice of ours asks for that?

A mark is advice: a leased key that names units, whose slice it is for, and in how long that can
have them. Whoever comes later plans around them, unless it has surely ended by then. So a gang that
needs much gets it in the end, though small slices come all the time, and nobody holds anything
for it: no unit is idle that a slice could use and give back in time.

What is lacking may be no unit but money: its tenant's quota, or watts. Then the mark names no unit,
and how much of which purse it needs; whoever comes later leaves that much unspent. A process puts one mark
for units and one for each purse, so that a tenant at its quota is in nobody else's way.

The bound: whoever comes first in the order starts at most STARVING_SECONDS, and the longest run of
those that hold its units when the mark is put, and what it takes to look and to clean (5 s) later,
however many small ones come. Where nobody knows how long those run, a mark stands for
PATIENCE_SECONDS since the last of them ended; then others go on for as long as it stood, and the
next time it stands twice as long.

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
WRITES_MAX: Final = 8  # marks in one request
PATIENCE_SECONDS: Final = 300.0  # a mark without a known end stands so long without any progress

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
MONEY: Final = frozenset({Reason.QUOTA_EXCEEDED, Reason.WAITING_FOR_POWER})


class Around(NamedTuple):
    """What a slice leaves alone.

    Attributes:
        units: Of all marks that it respects.
        names: Whose they are, first the one that comes first.
        purses: How much is to be left in which.
        savers: Purse -> the first that needs it.
    """

    units: frozenset[str]
    names: tuple[str, ...]
    purses: Mapping[str, int]
    savers: Mapping[str, str]


NOBODY: Final = Around(frozenset(), (), {}, {})


@dataclass(slots=True)
class _Own:
    """A mark of one of this process's slices, as it should be in the store.

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


@dataclass(slots=True)
class _Stand:
    """How long a mark without a known end has stood for nothing.

    Attributes:
        moved_at: When what it waits for was last less than ever before.
        left: How many of its units somebody held then, and what was spent of its purses.
    """

    moved_at: float
    patience_seconds: float = PATIENCE_SECONDS
    left: tuple[float, float] = (inf, inf)


class Marks:
    """All marks of a view, and those that this process wants."""

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
        self._owns: dict[str, _Own] = {}  # by what is lacking: a purse, or "" for units
        self._stands: dict[str, _Stand] = {}
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
        if not self._view.marks and not self._owns:
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
            kept = [mark for _, _, _, mark in found]
            # Of units it is said whose they are where any are kept, else nobody would be named.
            names = tuple(other for _, other, _, mark in found if mark.units)
            savers = {p: other for _, other, _, mark in reversed(found) for p in mark.purses}
            around = Around(_kept_for(kept), names, _saved_for(kept), savers)
            self._arounds[key] = around
        return around

    def kept(self, now: float) -> frozenset[str]:
        """Return what is kept for any slice: what runs already comes after all that wait."""
        return _kept_for(mark for _, mark, _, _ in self._marks(now))

    def saved(self, now: float) -> Mapping[str, int]:
        """Return what is to be left in purses for any slice, as `kept`."""
        return _saved_for(mark for _, mark, _, _ in self._marks(now))

    def _own_of(self, name: str) -> _Own | None:
        return next((own for own in self._owns.values() if own.name == name), None)

    def _marks(self, now: float) -> list[tuple[str, Mark, int, float]]:
        """Return slice, mark, its revision (below 0: not written yet) and how long it is known."""
        mine = {own.name for own in self._owns.values()}
        found = [
            (own.name, own.mark, own.version, now - own.at)
            for own in self._owns.values()
            if self._waits(own.name, own.mark)
        ]
        for name, written in self._view.marks.items():
            if name in mine or not self._waits(name, written.value):
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
        mine = self._own_of(name)
        if mine is not None:
            return (*mark.order, mark.uid) < (*mine.mark.order, mine.mark.uid)
        theirs = self._queue.slices.get(other)
        if theirs is not None:
            return theirs.order < pending.order
        # Both by the same clock: how far that is from other machines' does not count.
        asks = self._view.slices[other]
        return self._ranks.general(asks, now, now) < self._ranks.general(entry, now, now)

    # -- what is asked for

    def blocked(self, name: str, pending: Pending, now: float, *, asks: bool) -> None:
        """Note that a slice finds no room, or no money: if it comes first, it may ask for some.

        Args:
            name: The slice.
            pending: Its entry in the queue.
            now: Monotonic seconds.
            asks: Whether that is for this process to ask.
        """
        pending.blocked = self._news = True
        own = self._owns.get("")
        if (
            asks
            and not pending.purse
            and self._at_once()
            and (own is None or (own.name != name and self._is_before(pending, own)))
        ):
            self._want_room(name, now)  # at once, before later ones are planned

    def losing(self, name: str, pending: Pending, decision: Decision, now: float) -> None:
        """Note what a slice goes for that has lost races: others leave that to it from now on."""
        own = self._owns.get("")
        if own is not None and own.name != name and not self._is_before(pending, own):
            return
        units = places(decision.units)
        if own is not None and own.name == name and units.issubset(own.mark.units):
            return
        self._want(name, "", Shadow(0.0, units, (), decision.units), "losing", now)

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
            self._put_off(name, now, HOPELESS_SECONDS)
            return  # a mark that is there stays: it may be late, and others have come in between
        starving = now >= pending.since + self._starving_seconds
        if not starving and (room.eta_seconds is None or pending.purse):
            return  # others may go on until it is
        self._want(name, pending.purse, room, "starving" if starving else "first", now)

    def _want(self, name: str, lacks: str, room: Shadow, why: str, now: float) -> None:
        entry, pending = self._view.slices.get(name), self._queue.slices.get(name)
        if entry is None or pending is None:
            return
        order = self._ranks.general(entry, pending.since, now)
        units = tuple(sorted(room.units))
        purses = {purse: amount for purse, amount in pending.needs.items() if amount > 0}
        mark = Mark(entry.created, order, units, room.eta_seconds, self._wall(), why, purses)
        self._owns = {lack: own for lack, own in self._owns.items() if own.name != name}
        self._owns[lacks] = _Own(name, mark, now, next(self._versions), self._holders(units))

    def _put_off(self, name: str, now: float, seconds: float) -> None:
        """Ask no more for a slice, for so long."""
        self._hopeless = {n: at for n, at in self._hopeless.items() if now < at}
        self._hopeless[name] = now + seconds

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
        over = [
            lack
            for lack, own in self._owns.items()
            if own.name not in self._queue.slices or not self._waits(own.name, own.mark)
        ]
        for lack in over:
            self._stands.pop(self._owns.pop(lack).name, None)
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
            own = self._own_of(name)
            if own is not None:
                own.told = False  # it is written again, if it still waits
                self._refused_until = now + LOOK_SECONDS
        if isinstance(answer, Refused):
            self._refused_until = now + HOPELESS_SECONDS

    def next_at(self) -> float:
        """Return when `steps` has something to do without any event."""
        return min(self._due_at, self._look_at if self._news else inf)

    def _look(self, now: float, mine: Callable[[str, Pending], bool]) -> None:
        for lack, (_, first) in sorted(self._firsts(now, mine).items(), key=lambda one: one[1]):
            own, other = self._owns.get(lack), self._own_of(first)
            if lack and other is not None and not other.mark.units:
                continue  # of two purses it saves for one first
            if own is None or (
                own.name != first and self._is_before(self._queue.slices[first], own)
            ):
                self._want_room(first, now)
        for own in list(self._owns.values()):
            if own.at < now and own.mark.why != "losing" and self._is_stale(own, now):
                self._want_room(own.name, now)
        for own in list(self._owns.values()):
            eta = own.mark.eta_seconds
            if eta is None or now > own.at + eta + LOOK_SECONDS:
                self._stand(own, now)
            elif eta:
                over = own.at + eta + 2 * LOOK_SECONDS
                self._due_at = min(self._due_at, max(over, now + LOOK_SECONDS))

    def _stand(self, own: _Own, now: float) -> None:
        """Let others go on where a mark that nobody knows the end of has stood long for nothing."""
        stand = self._stands.setdefault(own.name, _Stand(now))
        spent = sum(
            self._view.spent(purse, holder)
            for purse in own.mark.purses
            for holder in self._view.grants.get(purse, ())
        )
        left = len(self._holders(own.mark.units)), spent
        if left < stand.left:
            stand.left, stand.moved_at = left, now
        until = stand.moved_at + stand.patience_seconds
        if now >= until:
            self._put_off(own.name, now, stand.patience_seconds)
            self._owns = {lack: one for lack, one in self._owns.items() if one is not own}
            self._wake()
            self._stands = {n: s for n, s in self._stands.items() if n in self._queue.slices}
            self._stands[own.name] = _Stand(
                now + stand.patience_seconds, 2 * stand.patience_seconds
            )
            self._due_at = min(self._due_at, now + stand.patience_seconds)
        else:
            self._due_at = min(self._due_at, until)

    def _firsts(
        self, now: float, mine: Callable[[str, Pending], bool]
    ) -> dict[str, tuple[Order, str]]:
        """Return, by what they lack, the first of our slices that have starved for it."""
        firsts: dict[str, tuple[Order, str]] = {}
        youngest = inf
        for name, pending in self._queue.slices.items():
            if not pending.blocked or now < self._hopeless.get(name, -inf):
                continue
            if pending.since + self._starving_seconds > now:  # the sum that is waited for, below
                youngest = min(youngest, pending.since)
            elif pending.purse not in firsts or (pending.order, name) < firsts[pending.purse]:
                firsts[pending.purse] = pending.order, name
        again = [stand.moved_at for stand in self._stands.values() if stand.moved_at > now]
        self._due_at = min(youngest + self._starving_seconds, *again, inf)
        # Only the first of a queue: if that is for another process to ask for, so it does.
        slices = self._queue.slices
        return {lack: one for lack, one in firsts.items() if mine(one[1], slices[one[1]])}

    def _is_stale(self, own: _Own, now: float) -> bool:
        """Whether what was found is not so any more: it is late, or others have got there."""
        eta = own.mark.eta_seconds
        if eta is not None and now > own.at + eta + LOOK_SECONDS:
            return True
        holders = self._holders(own.mark.units).items()
        return any(own.held.get(unit) != holder for unit, holder in holders)

    def _written_down(self, lease: int) -> list[Proposal]:
        marks = self._view.marks
        found: list[Proposal] = []
        wanted = {own.name for own in self._owns.values()}
        for name in [n for n in self._written if n not in wanted][:WRITES_MAX]:
            if name in marks:  # else it is still on its way, or gone
                self._written.discard(name)
                draft = Draft(fence=self._fence())
                draft.delete(keys.mark(name))
                found.append(draft.proposal("unmark", name, self._view))
        for own in self._owns.values():
            entry = self._view.slices.get(own.name)
            if len(found) >= WRITES_MAX:
                break  # the rest with the next request
            if entry is None or own.told or self._view.assumed(own.name):
                continue
            draft = Draft(fence=self._fence())
            draft.seen(keys.slice_(own.name), entry.modified)
            draft.placed(own.name, None)
            draft.put(keys.mark(own.name), own.mark, lease=lease)
            self._written.add(own.name)
            own.told = True
            self.put += 1
            found.append(draft.proposal("mark", own.name, self._view))
        return found


def _saved_for(marks: Iterable[Mark]) -> dict[str, int]:
    found: dict[str, int] = {}
    for mark in marks:
        for purse, amount in mark.purses.items():
            found[purse] = found.get(purse, 0) + amount
    return found


def _kept_for(marks: Iterable[Mark]) -> frozenset[str]:
    # Of a node that is named only its host is meant: its engines are named one by one.
    return frozenset(
        f"host/{unit[5:]}" if unit.startswith("node/") else unit
        for mark in marks
        for unit in mark.units
    )
