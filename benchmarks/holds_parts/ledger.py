"""Who held what, at every revision? Worked out from the records' text alone.

It shares no code with what schedules: a mistake there is not made here a second time. What it knows
of the format is a placement's two lists of units, and how much of a shared one is held.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

WHOLE = 1000  # thousandths of an engine


@dataclass
class Ledger:
    """What each placement holds, and each unit's holders.

    Attributes:
        capacity: Node -> CPU thousandths and bytes of memory.
        double: What was held twice, as "revision: unit by these".
        placed: Every slice that was ever placed.
        revisions: How many were looked at.
    """

    capacity: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    double: list[str] = field(default_factory=list)
    placed: set[str] = field(default_factory=set)
    revisions: int = 0
    _of: dict[str, dict[str, Sequence[int]]] = field(default_factory=dict)
    _holders: defaultdict[str, dict[str, Sequence[int]]] = field(
        default_factory=lambda: defaultdict(dict)
    )

    @property
    def held(self) -> int:
        """How many units are held now."""
        return sum(map(bool, self._holders.values()))

    def revision(self, number: int, changes: Iterable[tuple[str, bytes | None]]) -> None:
        """Take in all changes of placements of one revision, and look at what they touch.

        Args:
            number: The revision.
            changes: Name and record of each placement; None = it is gone.
        """
        touched: set[str] = set()
        for name, record in changes:
            for unit in self._of.pop(name, {}):
                self._holders[unit].pop(name, None)
            if record is None:
                continue
            said = json.loads(record)
            units = {**said.get("releasing", {}), **said.get("held", {})}
            self._of[name] = units
            if not name.startswith("~"):
                self.placed.add(name)
            for unit, amounts in units.items():
                self._holders[unit][name] = amounts
            touched |= units.keys()
        self.revisions += 1
        for unit in touched:
            said = self._wrong(unit)
            if said:
                self.double.append(f"revision {number}: {said}")

    def _wrong(self, unit: str) -> str:
        kind, _, subject = unit.partition("/")
        holders = self._holders[unit]
        who = ", ".join(sorted(holders))
        if kind == "share":
            if self._holders.get(f"engine/{subject}"):
                return f"{unit} by {who}, and the whole of it by others"
            if sum(amounts[0] for amounts in holders.values()) > WHOLE:
                return f"{unit}: more than all of it by {who}"
        elif kind == "host":
            most = self.capacity.get(subject)
            for place, limit in enumerate(most or ()):
                if sum(amounts[place] for amounts in holders.values()) > limit:
                    return f"{unit}: more than all of it by {who}"
        elif len(holders) > 1:
            return f"{unit} by {who}"
        elif kind == "engine" and self._holders.get(f"share/{subject}"):
            return f"{unit} by {who}, and parts of it by others"
        return ""
