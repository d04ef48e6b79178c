"""Which units were refused to us, why, and which of them are left alone for a while?

A race that is lost is ordinary: the view shows the winner a moment later. But a unit that the view
shows as free and the store says is not (by a key that no placement lists, or a record that cannot
be read) would be lost again and again, by each slice that comes; so it is avoided, longer each time.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from typing import Final

from flowos.model.transaction import Compare, Conflicted, Quiet, Seen, Transaction
from flowos.model.units import OUT_OF_SERVICE, kind_of
from flowos.model.view import CellView

AVOID_SECONDS: Final = (0.5, 300.0)  # the first time, and at most; each time twice as long
STRIKES_MAX: Final = 12  # more change nothing
UNITS_MAX: Final = 10_000  # counted one by one; a busy cell's conflicts go on for ever

_FAMILIES: Final = {
    "slice": "the slice changed",
    "placement": "the slice or a holder changed",
    "session": "own session",
    "grant": "grants",
    "rule": "rules",
}


@dataclass(frozen=True, slots=True)
class Rejected:
    """A unit that was lost.

    Attributes:
        count: How often.
        avoided_seconds: For how much longer it is left alone; 0 = it is not.
    """

    unit: str
    count: int
    avoided_seconds: float


@dataclass(slots=True)
class _Strikes:
    count: int = 0
    until: float = -inf


class Rejections:
    """The conflicts of one process.

    Attributes:
        causes: Why commits conflicted -> how often. A commit with several causes counts for each.
        kinds: Kind of unit -> how often one was lost.
        units: Unit -> how often it was lost.
    """

    def __init__(self, view: CellView) -> None:
        """Have lost nothing yet."""
        self.causes: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self.units: Counter[str] = Counter()
        self._view = view
        self._doubtful: list[tuple[int, tuple[str, ...]]] = []  # revision, units
        self._strikes: dict[str, _Strikes] = {}
        self._avoided: frozenset[str] = frozenset()
        self._until = inf  # the avoided ones are so until then

    def lost(self, transaction: Transaction, answer: Conflicted) -> frozenset[str]:
        """Count a conflict.

        Returns:
            The whole units, and things out of service, that were not there to be had.
        """
        causes, units = set[str](), set[str]()
        if not answer.keys and not answer.ranges:
            self.causes["no answer came"] += 1  # a fence said only that it did not happen
            return frozenset()
        for compare in answer.broken(transaction.compares):
            unit = _unit_of(compare)
            if unit:
                units.add(unit)
            causes.add(_cause_of(compare, unit))
        # A joined range conflicts over a key that nobody named.
        self.causes.update(causes or {"something in a joined range"})
        self.kinds.update(map(kind_of, units))
        self.units.update(units)
        if len(self.units) > UNITS_MAX:
            self.units = Counter(dict(self.units.most_common(UNITS_MAX // 2)))
        whole = frozenset(unit for unit in units if not unit.startswith(("host/", "share/")))
        if whole:
            self._doubtful.append((answer.revision, tuple(whole)))
        return whole

    def won(self, units: Iterable[str]) -> None:
        """Note that these were there to be had after all."""
        if self._strikes:
            for unit in units:
                if self._strikes.pop(unit, None) is not None:
                    self._until = -inf

    def avoided(self, now: float) -> frozenset[str]:
        """Return the units to leave alone; `now` is monotonic seconds."""
        if self._doubtful:
            self._judge(now)
        if now >= self._until:
            self.renew(now)
        return self._avoided

    def next_at(self) -> float:
        """Return when a unit is no longer avoided, inf = none is."""
        return self._until if self._avoided else inf

    def _judge(self, now: float) -> None:
        """Look which units are lost to nobody, where the view is complete up to the conflict."""
        revision = self._view.revision
        waiting = [doubt for doubt in self._doubtful if doubt[0] > revision]
        for at, units in self._doubtful:
            if at > revision:
                continue
            for unit in units:
                if unit in self._view.holders:
                    self._strikes.pop(unit, None)
                    continue
                strikes = self._strikes.setdefault(unit, _Strikes())
                strikes.count = min(STRIKES_MAX, strikes.count + 1)
                first, longest = AVOID_SECONDS
                strikes.until = now + min(longest, first * 2 ** (strikes.count - 1))
            self._until = -inf
        self._doubtful = waiting

    def renew(self, now: float) -> None:
        """Let go of the units that were avoided for long enough."""
        held = self._view.holders
        # What the view shows as held is known again; and a ghost that was let be for long is new.
        self._strikes = {
            unit: s
            for unit, s in self._strikes.items()
            if unit not in held and now < s.until + AVOID_SECONDS[1]
        }
        avoided = {unit: s.until for unit, s in self._strikes.items() if now < s.until}
        self._avoided = frozenset(avoided)
        self._until = min(avoided.values(), default=inf)

    def most(self, now: float, count: int) -> list[Rejected]:
        """Return the units that were lost most often, those that are avoided first."""
        left = {unit: s.until - now for unit, s in self._strikes.items() if now < s.until}
        names = dict.fromkeys([*sorted(left), *(unit for unit, _ in self.units.most_common(count))])
        return [
            Rejected(unit, self.units[unit], round(left.get(unit, 0.0), 1))
            for unit in list(names)[:count]
        ]


def _unit_of(compare: Compare) -> str:
    """Return the unit that a broken compare is about, "" = none."""
    if isinstance(compare, Quiet):
        prefix = compare.prefix.removeprefix("claim/")
        is_unit = prefix != compare.prefix and prefix.startswith(("host/", "share/"))
        return prefix.rstrip("/") if is_unit else ""
    if not compare.key.startswith("claim/"):
        return ""
    return compare.key.partition("/")[2]


def _cause_of(compare: Compare, unit: str) -> str:
    if unit:
        kind = kind_of(unit)
        if kind in OUT_OF_SERVICE:
            return f"{kind} out of service"
        if isinstance(compare, Seen) and compare.revision:
            return f"{kind} changed hands"
        return f"{kind} taken"
    key = compare.key if isinstance(compare, Seen) else compare.prefix
    return _FAMILIES.get(key.partition("/")[0], "other")
