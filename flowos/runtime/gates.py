"""May this slice be planned now: is it held, what does it wait for, and how many of its array run?

A gate is what a slice's own record says about when it may be placed, whatever is free. `Gates`
follows a view by its events, so that a change wakes just those that it may concern.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from heapq import nsmallest
from typing import Final, NamedTuple

from flowos.model import keys
from flowos.model.placement import Unplaceable
from flowos.model.slice import Dependency, Once, Phase, Reason, Slice
from flowos.model.view import Applied, CellView
from flowos.protocol.release import uid_of


class _Far(Enum):
    """How far a slice is that others wait for."""

    WAITS = "waits for its engines"
    HOLDS = "has its engines, which are being made ready"
    UP = "runs"
    DONE = "is done"
    BROKE = "ran, and did not end well"  # failed, or cancelled, after all of it was up
    NEVER = "ended before it ran"


# What has happened once a slice is so far, and what never will any more.
_MET: Final[Mapping[Once, frozenset[_Far]]] = {
    Once.DONE: frozenset({_Far.DONE}),
    Once.ENDED: frozenset({_Far.DONE, _Far.BROKE, _Far.NEVER}),
    Once.RUNNING: frozenset({_Far.UP, _Far.DONE, _Far.BROKE}),
}
_LOST: Final[Mapping[Once, frozenset[_Far]]] = {
    Once.DONE: frozenset({_Far.BROKE, _Far.NEVER}),
    Once.ENDED: frozenset(),
    Once.RUNNING: frozenset({_Far.NEVER}),
}
_WORDS: Final[Mapping[Once, str]] = {
    Once.DONE: "is done",
    Once.ENDED: "has ended",
    Once.RUNNING: "runs",
}
_FIRST: Final[Mapping[Once, str]] = {Once.DONE: "be done", Once.RUNNING: "run"}


class _Standing(NamedTuple):
    """Whether what is waited for has happened, or never will; and the sentence if it has not."""

    met: bool
    lost: bool = False
    sentence: str = ""


_MET_NOW: Final = _Standing(met=True)


@dataclass(slots=True)
class _Array:
    """What is known of an array.

    Attributes:
        far: Member -> how far it is.
        count: How many are so far.
        holding: Those that may hold something: a placement of theirs was seen, or they were let
            through.
        shut: Those that its limit keeps waiting -> their index.
    """

    far: dict[str, _Far] = field(default_factory=dict)
    count: Counter[_Far] = field(default_factory=Counter)
    holding: set[str] = field(default_factory=set)
    shut: dict[str, int] = field(default_factory=dict)


class Gates:
    """The gates of all slices of a view that tells of slices and placements."""

    def __init__(self, view: CellView) -> None:
        """Know nothing; `restart` looks at what is there already."""
        self._view = view
        self._waits_for: dict[str, tuple[str, ...]] = {}  # who -> for what; only who lives
        self._waited: defaultdict[str, set[str]] = defaultdict(set)  # and the other way round
        self._arrays: dict[str, _Array] = {}

    # -- what is asked

    def closed(self, name: str, record: Slice) -> Unplaceable | None:
        """Return why a slice must not be planned now, or None where it may be.

        A slice that was told to wait is named by `changed` as soon as that may be over. Plans of
        our own that are under way count as placed.

        Args:
            name: "tenant/name".
            record: Its own record.
        """
        if record.held:
            return Unplaceable(
                Reason.HELD, "held by its user: 'flowos slice release' lets it go on"
            )
        for dependency in record.spec.depends_on:
            standing = self._standing(dependency)
            if not standing.met:
                return Unplaceable(Reason.DEPENDS_ON, standing.sentence)
        return self._limited(name, record)

    def never(self, record: Slice) -> str:
        """Return why what a slice waits for can never happen any more, "" = it still can."""
        for dependency in record.spec.depends_on:
            standing = self._standing(dependency)
            if standing.lost:
                return standing.sentence
        return ""

    def is_waited_for(self, name: str) -> bool:
        """Whether a slice that lives needs to know how this one ended."""
        if name in self._waited:
            return True
        entry = self._view.slices.get(name)
        array = _array_of(name, entry.value) if entry else ""
        return bool(array) and array in self._waited

    # -- what happened

    def restart(self) -> None:
        """Look at every slice, after a listing."""
        self._waits_for.clear()
        self._waited.clear()
        self._arrays.clear()
        for name, entry in self._view.slices.items():
            self._note(name, entry.value)

    def changed(self, change: Applied) -> Iterable[str]:
        """Take in a change of the view; return the slices to look at again because of it.

        A change costs what it concerns. What it returns may hold slices that are closed still.
        """
        name = change.name
        if change.family not in ("slice", "placement") or name.startswith("~"):
            return ()
        entry = self._view.slices.get(name)
        if entry is None:
            return self._gone(name)
        if change.family == "slice" or entry.value.spec.array is not None:
            woken = self._note(name, entry.value)
        else:
            woken = set()
        if name in self._waited:
            woken |= self._waited[name]
        return woken

    def _note(self, name: str, record: Slice) -> set[str]:
        """Bring the indexes up to what a record says; return whom its array wakes."""
        spec = record.spec
        if spec.depends_on or name in self._waits_for:
            wanted = tuple(d.on for d in spec.depends_on) if record.end is None else ()
            self._wait(name, wanted)
        if spec.array is None:
            return set()
        key = _array_of(name, record)
        array = self._arrays.setdefault(key, _Array())
        before, now = array.far.get(name), self._far(name, record)
        if before is not now:
            if before is not None:
                array.count[before] -= 1
            array.far[name] = now
            array.count[now] += 1
        if self._view.now(name) is not None:
            array.holding.add(name)
            array.shut.pop(name, None)
        elif record.end is not None or record.held or record.cancelled:
            array.shut.pop(name, None)
        woken = set(self._next_of(array, spec.array.parallel))
        if before is not now and key in self._waited and self._concerns(array, now):
            woken |= self._waited[key]
        return woken

    def _gone(self, name: str) -> set[str]:
        """Forget a slice whose record went; return who waited for it."""
        self._wait(name, ())
        woken = set(self._waited.get(name, ()))
        tenant, _, own = name.partition("/")
        # Which array it was of, nobody says any more; its name begins with the array's.
        key = f"{tenant}/{own.rpartition('-')[0]}"
        array = self._arrays.get(key)
        if array is not None and name in array.far:
            array.count[array.far.pop(name)] -= 1
            array.holding.discard(name)
            array.shut.pop(name, None)
            if not array.far:
                del self._arrays[key]
            woken |= self._waited.get(key, set())
        return woken

    def _wait(self, name: str, wanted: tuple[str, ...]) -> None:
        """Note what a slice waits for."""
        before = self._waits_for.pop(name, ())
        if wanted:
            self._waits_for[name] = wanted
        if wanted == before:
            return
        for other in before:
            waiting = self._waited[other]
            waiting.discard(name)
            if not waiting:
                del self._waited[other]
        for other in wanted:
            self._waited[other].add(name)

    # -- dependencies

    def _standing(self, dependency: Dependency) -> _Standing:
        on, once = dependency.on, dependency.once
        entry = self._view.slices.get(on)
        if entry is not None:
            far = self._far(on, entry.value)
            if far in _MET[once]:
                return _MET_NOW
            if far in _LOST[once]:
                how = "was cancelled" if _was_cancelled(entry.value) else "has failed"
                end = entry.value.end
                why = f": {end.message}" if end and end.message else ""
                sentence = f"{on}, which was to {_FIRST[once]} first, {how}{why}"
                return _Standing(met=False, lost=True, sentence=sentence)
            sentence = f"it waits until {on} {_WORDS[once]}; now {on} {far.value}"
            return _Standing(met=False, sentence=sentence)
        array = self._arrays.get(on)
        if array is not None:
            return _of_array(on, array, once)
        if keys.slice_(on) in self._view.unreadable:
            sentence = f"it waits for {on}, whose record cannot be read"
            return _Standing(met=False, sentence=sentence)
        sentence = f"{on}, which it was to wait for, is not known any more"
        return _Standing(met=False, lost=True, sentence=sentence)

    def _far(self, name: str, record: Slice) -> _Far:
        end = record.end
        if end is not None:
            if end.phase is Phase.DONE:
                return _Far.DONE
            return _Far.NEVER if end.started_at is None else _Far.BROKE
        placed, entry = self._view.placements.get(name), self._view.slices.get(name)
        if placed is None or entry is None:
            return _Far.WAITS
        if uid_of(placed.created, placed.value) != entry.created:
            return _Far.WAITS  # what an earlier slice of its name has left
        return _Far.HOLDS if placed.value.started_at is None else _Far.UP

    @staticmethod
    def _concerns(array: _Array, now: _Far) -> bool:
        """Whether a member's step may be news for those who wait for all of its array."""
        if now in (_Far.BROKE, _Far.NEVER):
            return True
        return not (array.count[_Far.WAITS] or array.count[_Far.HOLDS])

    # -- arrays

    def _limited(self, name: str, record: Slice) -> Unplaceable | None:
        member = record.spec.array
        if member is None or not member.parallel:
            return None
        array = self._arrays.setdefault(_array_of(name, record), _Array())
        busy = [other for other in self._busy(array) if other != name]
        if len(busy) < member.parallel:
            array.shut.pop(name, None)
            array.holding.add(name)  # looked at each time: it counts once it has a placement
            return None
        array.shut[name] = member.index
        first = min(busy)
        others = f" and {len(busy) - 1} more" if len(busy) > 1 else ""
        return Unplaceable(
            Reason.DEPENDS_ON,
            f"array {member.array} may have {member.parallel} running at once, "
            f"and {first}{others} hold engines",
        )

    def _busy(self, array: _Array) -> Iterator[str]:
        """Yield the members that hold something, plans of our own included."""
        for name in list(array.holding):
            if self._view.now(name) is not None:
                yield name
            else:
                array.holding.discard(name)

    def _next_of(self, array: _Array, parallel: int) -> list[str]:
        """Return the members that may go on because others have ended, the first ones first."""
        if not array.shut or not parallel:
            return []
        room = parallel - sum(1 for _ in self._busy(array))
        return nsmallest(room, array.shut, key=array.shut.__getitem__) if room > 0 else []


def _of_array(name: str, array: _Array, once: Once) -> _Standing:
    """Return how an array stands: it has happened once it has for each of its members."""
    lost = sum(array.count[far] for far in _LOST[once])
    if lost:
        which = min(n for n, far in array.far.items() if far in _LOST[once])
        sentence = f"{which} ended, and all of array {name} were to {_FIRST[once]} first"
        return _Standing(met=False, lost=True, sentence=sentence)
    met = sum(array.count[far] for far in _MET[once])
    if met == len(array.far):
        return _MET_NOW
    word = {Once.DONE: "are done", Once.ENDED: "have ended", Once.RUNNING: "run"}[once]
    count = f"{met} of {len(array.far)} are so far"
    return _Standing(met=False, sentence=f"it waits until all of array {name} {word}: {count}")


def _was_cancelled(record: Slice) -> bool:
    return record.end is not None and record.end.phase is Phase.CANCELLED


def _array_of(name: str, record: Slice) -> str:
    """Return "tenant/array" of a member, "" = of none."""
    member = record.spec.array
    return f"{name.partition('/')[0]}/{member.array}" if member else ""
