"""What becomes of a cell's records in another store, where all revisions are others?

Three things in the records are tied to the store that they were written in: revisions, sessions,
and the word that devices are as they were last said to be. None of them is carried over. A slice is
known by the revision that created it, so its placement gets the new one. Sessions stay behind, and
with them every agent's memory of the orders that it has carried out. And since devices may have
been given other orders after the records were copied, each node and switch is out of service until
its agent has looked at its orders and torn down what none of them names.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from flowos.model import keys
from flowos.model.codec import decode, encode
from flowos.model.errors import SpecError
from flowos.model.placement import Observed, Order, Placement, Report
from flowos.model.transaction import Operation, Put, Versioned
from flowos.model.units import claim_key
from flowos.protocol.release import uid_of

# What lives as long as a process does, and so is in no backup.
PASSING: Final = ("session/", "stats/", "verify/")
# What says that there is a cell; written last. `cell/loading` is the mark of whoever is writing.
MARKS: Final = (keys.INFO, keys.TOTALS, "cell/loading")
SLICES: Final = "slice/"
NEVER: Final = 1  # no slice was ever created at the first revision of a store
WHY: Final = "restored: its agent has not looked at its orders yet"


def is_kept(key: str) -> bool:
    """Whether a key is a part of the cell, and not of a process that was there."""
    return not key.startswith(PASSING)


@dataclass(frozen=True, slots=True)
class Place:
    """A node or switch, and who had taken it out of service already.

    Attributes:
        unit: "node/n3" or "switch/sw0".
        attempt: Of the quarantine that it begins with.
        holder: The system placement that has its claim; "" = none.
    """

    name: str
    unit: str
    attempt: str
    holder: str = ""

    @property
    def quarantine(self) -> str:
        """The identifier of the quarantine that it begins with."""
        return f"~quarantine/{self.name}/{self.attempt}"


def places_in(records: Iterable[Versioned], new_attempt: Callable[[], str]) -> list[Place]:
    """Return the nodes and switches among some records, each with an attempt of its own."""
    names: list[tuple[str, str]] = []
    holders: dict[str, str] = {}
    for record in records:
        family, _, name = record.key.partition("/")
        if family in ("node", "switch"):
            names.append((family, name))
        elif record.key.startswith(("claim/node/", "claim/switch/")):
            holders[record.key.removeprefix("claim/")] = json.loads(record.value)[0]
    return [
        Place(name, unit, new_attempt(), holders.get(unit, ""))
        for family, name in names
        for unit in (f"{family}/{name}",)
    ]


def quarantined(place: Place) -> list[Operation]:
    """Return what keeps a place out of service until its agent has looked at all its orders.

    It is what a dead place leaves behind: the agent reports on an order that asks for nothing, and
    the quarantine ends. Where the place was out of service already, that waits for this one.
    """
    held = {} if place.holder else {place.unit: ()}
    placement = Placement(
        uid=0, attempt=place.attempt, releasing=held, ordered=(place.name,), why=WHY
    )
    claims = [
        Put(claim_key(unit, place.attempt), encode((place.quarantine, place.attempt, ())))
        for unit in held
    ]
    return [
        Put(keys.placement(place.quarantine), encode(placement)),
        Put(keys.order(place.name, place.attempt), encode(Order(slice=place.quarantine))),
        *claims,
    ]


class Rewriting:
    """Turns a backup's records into those of the store that they are restored to."""

    def __init__(self, slices: Iterable[Versioned], places: Iterable[Place]) -> None:
        """Know the slices and places.

        Args:
            slices: As they are in the backup.
            places: The cell's nodes and switches.
        """
        self._old = _created(slices)
        self._new: dict[str, int] = {}
        self._waits: dict[str, list[str]] = {}
        for place in places:
            if place.holder:
                self._waits.setdefault(place.holder, []).append(place.attempt)

    def known(self, slices: Iterable[Versioned]) -> None:
        """Note the slices as they are in the new store; before any placement of theirs comes."""
        self._new = _created(slices)

    def is_stale(self, record: Versioned) -> bool:
        """Whether it is a placement that an earlier slice of its name has left."""
        family, _, name = record.key.partition("/")
        if family != "placement" or name.startswith("~") or name not in self._old:
            return False
        try:
            placement = decode(Placement, record.value)
        except SpecError:
            return False
        return uid_of(record.created, placement) != self._old[name]

    def of(self, record: Versioned) -> Iterator[Operation]:
        """Yield what is written for a record; nothing where it says nothing any more.

        A record that cannot be read stays as it is: the loops leave it alone, and `cell verify`
        names it.
        """
        family, _, name = record.key.partition("/")
        if not is_kept(record.key) or record.key in MARKS:
            return
        value: bytes | None = record.value
        try:
            if family == "placement":
                value = encode(self._placement(name, record))
            elif family == "report":
                value = _report(record)
            elif family == "observed":
                # Others may have loaded it, or switched it off: so it is switched on and loaded
                # before it is used.
                value = encode(Observed(power="off"))
        except SpecError:
            value = record.value
        if value is not None:
            yield Put(record.key, value)

    def _placement(self, name: str, record: Versioned) -> Placement:
        placement = decode(Placement, record.value)
        if name.startswith("~"):
            return replace(placement, waits=(*placement.waits, *self._waits.get(name, ())))
        mine = uid_of(record.created, placement) == self._old.get(name)
        return replace(placement, uid=self._new[name] if mine else NEVER)


def _created(slices: Iterable[Versioned]) -> dict[str, int]:
    return {record.key.removeprefix(SLICES): record.created for record in slices}


def _report(record: Versioned) -> bytes | None:
    """Return what stays true of a report: how tasks ended, and that an order cannot be built."""
    report = decode(Report, record.value)
    if report.exit_code is None and not report.failed:
        return None
    return encode(Report(exit_code=report.exit_code, failed=report.failed))
