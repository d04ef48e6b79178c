"""What do the records of a state say together? Read once each, and kept in step change by change.

Every change also names the subjects of laws that it touches, so that after it only these need to
be looked at again. What a law reads and what touches its subject must therefore be kept together:
a property test holds the two equal.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple, TypeVar

from flowos.model import keys
from flowos.model.cell import FAMILY_OF, WHOLE_MILLIS, Cell, Link, name_of
from flowos.model.codec import decode
from flowos.model.errors import SpecError
from flowos.model.placement import Observed, Order, Placement, Report, Session
from flowos.model.rules import Reservation
from flowos.model.slice import ENDED, Phase, Slice, Waiting
from flowos.model.transaction import Change
from flowos.model.units import (
    OUT_OF_SERVICE,
    Amounts,
    engine_unit,
    is_divisible,
    kind_of,
    subject_of,
)
from flowos.model.view import Entry
from flowos.protocol.release import uid_of

K = TypeVar("K")
T = TypeVar("T")

CLAIM: Final = "claim/"
RESERVATION: Final = "rule/reservation/"
_UNIT: Final = re.compile(
    r"(?:engine|share)/[^/]+/[^/]+"
    r"|(?:host|node|switch)/[^/]+"
    r"|link/.+"
    r"|lane/.+/(?:fwd|rev)/(?:0|[1-9]\d*)"
    r"|aggregator/[^/]+/(?:0|[1-9]\d*)"
)
_THINGS: Final = {family: kind for kind, family in FAMILY_OF.items()}
_KINDS: Final[Mapping[str, Any]] = {
    **_THINGS,
    "slice": Slice,
    "placement": Placement,
    "claim": tuple[str, str, tuple[int, ...]],
    "order": Order,
    "report": Report,
    "observed": Observed,
    "grant": int,
    "session": Session,
    "reason": Waiting,
}


class Claim(NamedTuple):
    """Who has a unit: the placement, its attempt, and how much of it."""

    owner: str
    attempt: str
    amounts: Amounts


class ByAttempt(NamedTuple):
    """A place, and an attempt that has an order or a report there."""

    place: str
    attempt: str


class Purse(NamedTuple):
    """A scheduler's part of a limit."""

    purse: str
    holder: str


class Life(NamedTuple):
    """One slice from its request to its end; its name may be used again."""

    identifier: str
    uid: int


@dataclass(slots=True)
class Touched:
    """The subjects that must be looked at again, by what they are."""

    records: set[str] = field(default_factory=set)  # keys that could or can't be read
    claims: set[str] = field(default_factory=set)  # below "claim/"
    units: set[str] = field(default_factory=set)  # that orders name
    engines: set[str] = field(default_factory=set)  # whose parts are held
    hosts: set[str] = field(default_factory=set)  # nodes
    circuits: set[str] = field(default_factory=set)  # placements
    uids: set[str] = field(default_factory=set)  # placements
    attempts: set[str] = field(default_factory=set)
    reports: set[ByAttempt] = field(default_factory=set)
    purses: set[Purse] = field(default_factory=set)
    observed: set[str] = field(default_factory=set)  # engines
    slices: set[str] = field(default_factory=set)  # whose phase may have changed


@dataclass(slots=True)
class Facts:
    """The records of a state, read, with what leads from one to the other.

    Attributes:
        claims: Key below "claim/" -> claim.
        listed: The same key -> placement -> the claim that would be right.
        twice: (placement, key) of units that a placement lists as held and as releasing.
        by_attempt: Attempt -> the placements that carry it.
        orders: Attempt -> place -> order.
        reports: Attempt -> place -> report.
        up: Unit -> attempts whose orders want it up (or, an engine, off) -> at how many places.
        lanes_up: Link -> its lanes that are in `up`.
        shares: Engine -> attempt -> thousandths claimed.
        hosts: Node -> attempt -> (cpu_millis, memory_bytes, perhaps devices) claimed.
        spent: What all placements use of each purse.
        tasks: Attempt -> the engines on which its tasks were seen.
        crossing: Link -> the placements whose circuits cross it.
        out_of_service: Claimed units that are a node, a switch or a link.
        used: (family, name) of a thing -> the claims, there or listed, of its units.
        reservations: Name -> what is kept for whom.
        unreadable: Key -> why its record cannot be read; the rest behaves as if it were not there.
        inventory: Counts changes to what exists, for those who remember what follows from it.
    """

    cell: Cell = field(default_factory=Cell)
    slices: dict[str, Entry[Slice]] = field(default_factory=dict)
    placements: dict[str, Entry[Placement]] = field(default_factory=dict)
    claims: dict[str, Claim] = field(default_factory=dict)
    listed: dict[str, dict[str, Claim]] = field(default_factory=dict)
    twice: set[tuple[str, str]] = field(default_factory=set)
    by_attempt: dict[str, set[str]] = field(default_factory=dict)
    orders: dict[str, dict[str, Entry[Order]]] = field(default_factory=dict)
    reports: dict[str, dict[str, Entry[Report]]] = field(default_factory=dict)
    up: dict[str, dict[str, int]] = field(default_factory=dict)
    lanes_up: dict[str, set[str]] = field(default_factory=dict)
    out_of_service: set[str] = field(default_factory=set)
    shares: dict[str, dict[str, int]] = field(default_factory=dict)
    hosts: dict[str, dict[str, Amounts]] = field(default_factory=dict)
    grants: dict[str, dict[str, int]] = field(default_factory=dict)
    spent: dict[Purse, int] = field(default_factory=dict)
    observed: dict[str, Observed] = field(default_factory=dict)
    tasks: dict[str, set[str]] = field(default_factory=dict)
    crossing: dict[str, set[str]] = field(default_factory=dict)
    used: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    reservations: dict[str, Reservation] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    inventory: int = 0
    _listings: dict[str, dict[str, Claim]] = field(default_factory=dict)

    def apply(self, change: Change, touched: Touched) -> None:
        """Take in one change, and note whom it touches."""
        key = change.key
        family, _, name = key.partition("/")
        kind = Reservation if key.startswith(RESERVATION) else _KINDS.get(family)
        if kind is None or key == keys.LEADER:  # figures, the election: nothing held by laws
            return
        record: Any = None
        if self.unreadable.pop(key, None):
            touched.records.add(key)
        if change.value is not None:
            try:
                record = decode(kind, change.value)
                _refuse_misfit(family, name, record)
            except SpecError as error:
                record = None
                self.unreadable[key] = str(error)
                touched.records.add(key)
        if kind is Reservation:
            self.reservations.pop(key[len(RESERVATION) :], None)
            if record is not None:
                self.reservations[record.name] = record
        elif family in _THINGS:
            self._put_thing(family, name, record, touched)
        elif (put := _PUTS.get(family)) is not None:
            put(self, name, record, change, touched)

    # -- what laws ask

    def carried(self, attempts: Iterable[str]) -> bool:
        """Whether any placement still carries one of these attempts."""
        return any(attempt in self.by_attempt for attempt in attempts)

    def applied(self, place: str, attempt: str) -> bool:
        """Whether the devices of a place equal the order it has for an attempt, if it has one."""
        order = self.orders.get(attempt, {}).get(place)
        if order is None:
            return True
        report = self.reports.get(attempt, {}).get(place)
        return report is not None and report.value.applied >= order.modified

    def comes_with_engine(self, link: str, attempt: str) -> bool:
        """Whether a link is the port of an engine that an attempt has whole."""
        cable = self.cell.links.get(link)
        if cable is None:
            return False
        for end in (cable.a_thing, cable.b_thing):
            claim = self.claims.get(engine_unit(end))
            if claim is not None and claim.attempt == attempt:
                return True
        return False

    # -- inventory

    def _put_thing(self, family: str, name: str, thing: Any, touched: Touched) -> None:
        self.inventory += 1
        if family == "link":
            self._touch_link(self.cell.links.get(name), touched)
        if thing is None:
            self.cell.remove(family, name)
        else:
            self.cell.add(thing)
        if family == "link":
            self._touch_link(thing, touched)
        elif family == "switch":
            # How circuits turn there is a part of the orders.
            for link in self.cell.links_at.get(name, ()):
                self._touch_crossing(link, touched)
        elif family == "node":
            touched.hosts.add(name)
            # How many devices it takes matters to the circuits that end at its own port.
            for link in self.cell.links_at.get(name, ()):
                self._touch_crossing(link, touched)
        touched.claims |= self.used.get((family, name), set())

    def _touch_link(self, link: Link | None, touched: Touched) -> None:
        if link is not None:
            touched.units |= self.lanes_up.get(link.name, set())
            self._touch_crossing(link.name, touched)

    def _touch_crossing(self, link: str, touched: Touched) -> None:
        for identifier in self.crossing.get(link, ()):
            touched.circuits.add(identifier)
            touched.attempts.add(self.placements[identifier].value.attempt)

    # -- claims

    def _put_claim(self, key: str, record: Any, change: Change, touched: Touched) -> None:
        before = self.claims.pop(key, None)
        unit = unit_of_claim(key)
        if unit is None:  # it never had a readable record either
            return
        after = None if record is None else Claim(*record)
        if after is not None:
            self.claims[key] = after
        if after == before:
            return
        touched.claims.add(key)
        touched.units.add(unit)
        self._note_use(key)
        kind, _, subject = unit.partition("/")
        if kind == "share":
            attempt = key.rpartition("/")[2]
            _set(self.shares, subject, attempt, after.amounts[0] if after else None)
            touched.engines.add(subject)
        elif kind == "host":
            attempt = key.rpartition("/")[2]
            _set(self.hosts, subject, attempt, after.amounts if after else None)
            touched.hosts.add(subject)
        elif kind == "engine":
            touched.engines.add(subject)
            for link in self.cell.links_at.get(subject, ()):
                touched.units |= self.lanes_up.get(link, set())
        elif kind in OUT_OF_SERVICE:
            if after is not None:
                self.out_of_service.add(unit)
            else:
                self.out_of_service.discard(unit)

    def _note_use(self, key: str) -> None:
        """Keep `used` in step after a claim or a listing came or went."""
        unit = unit_of_claim(key)
        assert unit is not None, "records that name no unit were refused"
        if key in self.claims or key in self.listed:
            self.used.setdefault(thing_of(unit), set()).add(key)
        else:
            _discard(self.used, thing_of(unit), key)

    # -- slices and placements

    def _put_slice(self, name: str, record: Any, change: Change, touched: Touched) -> None:
        _enter(self.slices, name, record, change)
        touched.slices.add(name)
        touched.uids.add(name)

    def _put_placement(self, name: str, record: Any, change: Change, touched: Touched) -> None:
        old = self.placements.get(name)
        before: Placement | None = old.value if old else None
        after: Placement | None = record
        _enter(self.placements, name, record, change)
        touched.slices.add(name)
        if (
            before is not None
            and after is not None
            and before.started_at != after.started_at
            and replace(before, started_at=after.started_at) == after
        ):
            return  # what every slice is written once for; of the laws, only phases ask for it
        touched.circuits.add(name)
        touched.uids.add(name)
        self._list(name, before, after, touched)
        if before is not None:
            self._leave(name, before, touched)
        if after is not None:
            self._join(name, after, touched)

    def _list(
        self, name: str, before: Placement | None, after: Placement | None, touched: Touched
    ) -> None:
        old = self._listings.pop(name, {})
        new = listing(name, after) if after else {}
        if after is not None:
            self._listings[name] = new
        for key in old:
            if key not in new:
                _set(self.listed, key, name, None)
                touched.claims.add(key)
                self._note_use(key)
        for key, claim in new.items():
            if old.get(key) != claim:
                _set(self.listed, key, name, claim)
                touched.claims.add(key)
                self._note_use(key)
        for placement, change in ((before, self.twice.discard), (after, self.twice.add)):
            if placement is not None and placement.held and placement.releasing:
                for unit in placement.held.keys() & placement.releasing.keys():
                    key = _below_claim(unit, placement.attempt)
                    change((name, key))
                    touched.claims.add(key)

    def _leave(self, name: str, placement: Placement, touched: Touched) -> None:
        _discard(self.by_attempt, placement.attempt, name)
        for purse, amount in placement.spent.items():
            self._spend(Purse(purse, placement.scheduler), -amount, touched)
        for link in links_of(placement):
            _discard(self.crossing, link, name)
        self._touch_attempt(placement.attempt, touched)

    def _join(self, name: str, placement: Placement, touched: Touched) -> None:
        self.by_attempt.setdefault(placement.attempt, set()).add(name)
        for purse, amount in placement.spent.items():
            self._spend(Purse(purse, placement.scheduler), amount, touched)
        for link in links_of(placement):
            self.crossing.setdefault(link, set()).add(name)
        self._touch_attempt(placement.attempt, touched)

    def _touch_attempt(self, attempt: str, touched: Touched) -> None:
        touched.attempts.add(attempt)
        touched.observed |= self.tasks.get(attempt, set())
        touched.slices |= self.by_attempt.get(attempt, set())

    def _spend(self, purse: Purse, amount: int, touched: Touched) -> None:
        rest = self.spent.get(purse, 0) + amount
        if rest:
            self.spent[purse] = rest
        else:
            self.spent.pop(purse, None)
        touched.purses.add(purse)

    def _put_grant(self, name: str, record: Any, change: Change, touched: Touched) -> None:
        purse, _, holder = name.rpartition("/")
        _set(self.grants, purse, holder, record)
        touched.purses.add(Purse(purse, holder))

    # -- orders, reports and what was observed

    def _put_order(self, name: str, record: Any, change: Change, touched: Touched) -> None:
        place, _, attempt = name.rpartition("/")
        old = self.orders.get(attempt, {}).get(place)
        _enter(self.orders.setdefault(attempt, {}), place, record, change)
        if not self.orders[attempt]:
            del self.orders[attempt]
        before = set(ordered_units(old.value)) if old else set()
        after = set(ordered_units(record)) if record is not None else set()
        for unit in before - after:
            self._count_up(unit, attempt, -1, touched)
        for unit in after - before:
            self._count_up(unit, attempt, +1, touched)
        touched.attempts.add(attempt)
        touched.reports.add(ByAttempt(place, attempt))
        touched.slices |= self.by_attempt.get(attempt, set())

    def _count_up(self, unit: str, attempt: str, by: int, touched: Touched) -> None:
        touched.units.add(unit)
        attempts = self.up.setdefault(unit, {})
        places = attempts.get(attempt, 0) + by
        if places:
            attempts[attempt] = places
        else:
            del attempts[attempt]
        if kind_of(unit) == "lane":
            if attempts:
                self.lanes_up.setdefault(subject_of(unit), set()).add(unit)
            else:
                _discard(self.lanes_up, subject_of(unit), unit)
        if not attempts:
            del self.up[unit]

    def _put_report(self, name: str, record: Any, change: Change, touched: Touched) -> None:
        place, _, attempt = name.rpartition("/")
        _enter(self.reports.setdefault(attempt, {}), place, record, change)
        if not self.reports[attempt]:
            del self.reports[attempt]
        touched.reports.add(ByAttempt(place, attempt))
        touched.slices |= self.by_attempt.get(attempt, set())

    def _put_observed(self, name: str, record: Any, change: Change, touched: Touched) -> None:
        before = self.observed.pop(name, None)
        if before is not None and before.task:
            _discard(self.tasks, before.task, name)
        if record is not None:
            self.observed[name] = record
            if record.task:
                self.tasks.setdefault(record.task, set()).add(name)
        touched.observed.add(name)


_PUTS: Final[Mapping[str, Callable[[Facts, str, Any, Change, Touched], None]]] = {
    "claim": Facts._put_claim,  # noqa: SLF001  # the table of this class's own methods
    "slice": Facts._put_slice,  # noqa: SLF001
    "placement": Facts._put_placement,  # noqa: SLF001
    "grant": Facts._put_grant,  # noqa: SLF001
    "order": Facts._put_order,  # noqa: SLF001
    "report": Facts._put_report,  # noqa: SLF001
    "observed": Facts._put_observed,  # noqa: SLF001
}


# ------------------------------------------------------------------------- small readings


def listing(name: str, placement: Placement) -> dict[str, Claim]:
    """Return the claims that a placement's units ask for, by key below "claim/"."""
    attempt = placement.attempt
    return {
        _below_claim(unit, attempt): Claim(name, attempt, amounts)
        for units in (placement.held, placement.releasing)
        for unit, amounts in units.items()
    }


def links_of(placement: Placement) -> set[str]:
    """Return the links that a placement's circuits cross."""
    return {arc.link for circuit in placement.circuits for arc in circuit.arcs}


def ordered_units(order: Order) -> Iterable[str]:
    """Return what an order decides about: units to be up, and engines to be off."""
    return (*order.units, *map(engine_unit, order.off))


def unit_of_claim(key: str) -> str | None:
    """Return the unit that a key below "claim/" is about, or None where it is no such key."""
    unit = key.rpartition("/")[0] if is_divisible(key) else key
    return unit if _UNIT.fullmatch(unit) else None


def thing_of(unit: str) -> tuple[str, str]:
    """Return the family and name of the thing in the inventory that a unit is of."""
    kind = kind_of(unit)
    family = {"share": "engine", "host": "node", "lane": "link", "aggregator": "switch"}
    return family.get(kind, kind), subject_of(unit)


def life_of(identifier: str, placed: Entry[Placement]) -> Life:
    """Return which slice of this name a placement is of."""
    return Life(identifier, uid_of(placed.created, placed.value))


def amounts_fit(unit: str, amounts: Amounts) -> bool:
    """Whether these amounts can be meant for a unit: none for whole ones."""
    if unit.startswith("share/"):
        return len(amounts) == 1 and 0 < amounts[0] <= WHOLE_MILLIS
    if unit.startswith("host/"):
        # CPU and memory; and devices, where some are attached to a node that limits them.
        return len(amounts) in (2, 3) and min(amounts) >= 0
    return not amounts


def _below_claim(unit: str, attempt: str) -> str:
    return f"{unit}/{attempt}" if is_divisible(unit) else unit


def _refuse_misfit(family: str, name: str, record: Any) -> None:
    """Refuse a record that can be read but says what its key, or the model, does not allow.

    Raises:
        SpecError: With the reason.
    """
    if family in _THINGS:
        if name_of(record) != name:
            raise SpecError(f"the record names itself {name_of(record)}")
    elif family == "rule":
        if f"reservation/{record.name}" != name:
            raise SpecError(f"the record names itself {record.name}")
    elif family == "slice":
        if record.spec.id != name:
            raise SpecError(f"the record names itself {record.spec.id}")
        if record.end is not None and record.end.phase not in ENDED:
            raise SpecError(f"{record.end.phase} is no end")
    elif family == "placement":
        _refuse_misfit_placement(name, record)
    elif family == "claim":
        unit = unit_of_claim(name)
        if unit is None:
            raise SpecError("the key names no unit")
        if not amounts_fit(unit, record[2]):
            raise SpecError(f"{list(record[2])} is no amount of {unit}")
    elif family == "order":
        strange = [unit for unit in ordered_units(record) if not _UNIT.fullmatch(unit)]
        if strange:
            raise SpecError(f"{strange[0]} is no unit")
    elif family == "grant" and "/" not in name:
        raise SpecError("the key names no holder")


def _refuse_misfit_placement(name: str, placement: Placement) -> None:
    if "/" not in name:
        raise SpecError("the key names no tenant")
    for units in (placement.held, placement.releasing):
        for unit, amounts in units.items():
            if not _UNIT.fullmatch(unit):
                raise SpecError(f"{unit} is no unit")
            if not amounts_fit(unit, amounts):
                raise SpecError(f"{list(amounts)} is no amount of {unit}")
    if name.startswith("~reserved/"):
        unit = "".join((*placement.held, *placement.wanted, *placement.releasing))
        if name.split("/", 2)[2:] != [unit]:
            raise SpecError(
                "a reserved unit's placement holds it or waits for it, and nothing else"
            )
    if name.startswith("~off/") and name != f"~off/{''.join(placement.held)}":
        raise SpecError("a switched off engine's placement holds this engine and nothing else")
    if placement.ending is not None and placement.ending.phase not in (*ENDED, Phase.PENDING):
        raise SpecError(f"{placement.ending.phase} is no end")


def _enter(table: dict[str, Entry[T]], name: str, record: T | None, change: Change) -> None:
    if record is None:
        table.pop(name, None)
    else:
        table[name] = Entry(record, change.created, change.modified)


def _set(table: dict[str, dict[str, T]], outer: str, inner: str, value: T | None) -> None:
    """Put into a table of tables, or take out; no empty inner table stays."""
    if value is not None:
        table.setdefault(outer, {})[inner] = value
        return
    held = table.get(outer)
    if held is not None:
        held.pop(inner, None)
        if not held:
            del table[outer]


def _discard(table: dict[K, set[str]], outer: K, inner: str) -> None:
    held = table.get(outer)
    if held is not None:
        held.discard(inner)
        if not held:
            del table[outer]
