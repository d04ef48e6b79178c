"""The mirror's one mutable index of a cell: what exists, what is asked for, and who holds what.

Changes from the store come in by `apply`. A planner's own commits that are under way come in by
`assume` and leave by `settle` (they happened) or `retract` (they did not); together they are the
journal that lets one working copy serve a whole group of plans.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Generic, NamedTuple, TypeVar

from flowos.model import collector
from flowos.model.cell import FAMILY_OF, WHOLE_MILLIS, Cell, Domain, Engine, Tenant
from flowos.model.codec import FEW, decode, decode_many
from flowos.model.errors import SpecError
from flowos.model.keys import PLANNER, POLICIES
from flowos.model.placement import Held, Mark, Observed, Order, Placement, Report, Session
from flowos.model.rules import PlannerRules, PolicyRules, Reservation
from flowos.model.slice import Slice, Waiting
from flowos.model.transaction import Change, Versioned
from flowos.model.units import NOTHING, Amounts, engine_unit, is_divisible, well_formed

T = TypeVar("T")

_THINGS: Final = {family: kind for kind, family in FAMILY_OF.items()}
_LIMITING: Final = (Domain, Tenant)  # what grants are compared with: `written_at` knows them
_GIVES_WAY: Final = ("~off/", "~reserved/")
_MANY: Final = 8 * FEW  # records of a listing, from which on some kind in it has more than a few


class Entry(NamedTuple, Generic[T]):
    """A record with the revisions at which its key was created and last written."""

    value: T
    created: int
    modified: int


class Applied(NamedTuple):
    """What a change was about: the key family, the name below it."""

    family: str
    name: str


@dataclass(slots=True)
class CellView:
    """Everything a process knows of its cell.

    Planners read it; only the loop that owns it writes it.

    Attributes:
        revision: Everything up to here has been applied, on every prefix followed.
        placed_at: The same for placements alone, which tell all claims.
        orders: attempt -> place -> order; followed by control processes and agents.
        reports: attempt -> place -> report.
        holders: Whole unit -> the placements that list it; more than one only while a plan of
            ours that lost is not yet retracted.
        shares: Engine -> placement -> thousandths.
        hosts: Node -> placement -> (cpu_millis, memory_bytes).
        devices: Node with a limit -> placement -> how many engines it attaches there.
        lanes_taken: (link, direction) -> bitmap of claimed lanes.
        wanted: Unit -> the drains that wait for it; planners leave such units alone.
        by_attempt: Attempt -> the placements that carry it.
        checkpoints: Verifier -> the oldest revision that it still needs.
        history: Line of the history, by its name -> wall-clock second at which it ends.
        written_at: Domain or tenant, by its key -> the revision at which it was last written.
        planner: What the operator told all planners of the cell; None = nothing.
        policies: Who serves slices that name no policy; None = the default does.
        reservations: Name -> what is kept for somebody, whether its window is open or not.
        marks: Slice -> what it asks others to plan around.
        supposing: Whether what is seen now is a supposition (`lifted`): no news for anybody.
        unreadable: Key -> why its record cannot be read; it is left alone.
        listeners: Called with each unit whose holders changed.
        inventory_listeners: Called with (family, name) for each thing that came, changed or
            went; with ("", "") when everything was forgotten, or has been listed.
    """

    cell: Cell = field(default_factory=Cell)
    revision: int = 0
    placed_at: int = 0
    slices: dict[str, Entry[Slice]] = field(default_factory=dict)
    placements: dict[str, Entry[Placement]] = field(default_factory=dict)
    sessions: dict[str, Entry[Session]] = field(default_factory=dict)
    grants: dict[str, dict[str, Entry[int]]] = field(default_factory=dict)
    epochs: dict[str, int] = field(default_factory=dict)
    written_at: dict[str, int] = field(default_factory=dict)
    observed: dict[str, Observed] = field(default_factory=dict)
    reasons: dict[str, Entry[Waiting]] = field(default_factory=dict)
    orders: dict[str, dict[str, Entry[Order]]] = field(default_factory=dict)
    reports: dict[str, dict[str, Entry[Report]]] = field(default_factory=dict)
    holders: dict[str, tuple[str, ...]] = field(default_factory=dict)
    shares: dict[str, dict[str, int]] = field(default_factory=dict)
    hosts: dict[str, dict[str, tuple[int, int]]] = field(default_factory=dict)
    devices: dict[str, dict[str, int]] = field(default_factory=dict)
    lanes_taken: dict[tuple[str, str], int] = field(default_factory=dict)
    wanted: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    by_attempt: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    checkpoints: dict[str, int] = field(default_factory=dict)
    history: dict[str, float] = field(default_factory=dict)
    planner: PlannerRules | None = None
    policies: PolicyRules | None = None
    reservations: dict[str, Reservation] = field(default_factory=dict)
    marks: dict[str, Entry[Mark]] = field(default_factory=dict)
    supposing: bool = False
    unreadable: dict[str, str] = field(default_factory=dict)
    listeners: list[Callable[[str], None]] = field(default_factory=list)
    inventory_listeners: list[Callable[[str, str], None]] = field(default_factory=list)
    _assumed: dict[str, Placement] = field(default_factory=dict)
    _written: dict[str, bytes] = field(default_factory=dict)
    _guards: dict[str, int] = field(default_factory=dict)
    _spent: dict[tuple[str, str], int] = field(default_factory=dict)

    # -- what a planner or a rule asks

    def holder(self, unit: str) -> str | None:
        """Return the placement that holds a whole unit, or None where it is free.

        While a plan of ours that wakes an engine is under way, the plan holds it, not its `~off`;
        the same where it takes what is reserved for it.
        """
        names = self.holders.get(unit)
        if not names:
            return None
        return next((name for name in names if not name.startswith(_GIVES_WAY)), names[0])

    def in_service(self, unit: str) -> bool:
        """Whether a node, switch or link unit is not taken out of service."""
        return unit not in self.holders

    def free_millis(self, engine: str) -> int:
        """Return how many thousandths of an engine can be held now; 0 while it is held whole."""
        unit = engine_unit(engine)
        holder = self.holder(unit)
        if (holder and not holder.startswith("~off/")) or self.wanted.get(unit):
            return 0
        return WHOLE_MILLIS - sum(self.shares.get(engine, {}).values())

    def free_host(self, node: str) -> tuple[int, int]:
        """Return the CPU thousandths and the bytes of memory of a node that nobody holds."""
        there = self.cell.nodes[node]
        held = self.hosts.get(node)
        if not held:
            return there.cpu_millis, there.memory_bytes
        return (
            there.cpu_millis - sum(amount[0] for amount in held.values()),
            there.memory_bytes - sum(amount[1] for amount in held.values()),
        )

    def free_devices(self, node: str) -> int | None:
        """Return how many more engines can be attached to a node, or None where no limit is said."""
        most = self.cell.nodes[node].devices_max
        return most - sum(self.devices.get(node, {}).values()) if most else None

    def host_has(self, node: str, amounts: Amounts) -> bool:
        """Whether that much is free of what a node's host unit is of."""
        cpu_millis, memory_bytes = self.free_host(node)
        if amounts[0] > cpu_millis or amounts[1] > memory_bytes:
            return False
        devices = self.free_devices(node) if len(amounts) > 2 else None
        return devices is None or amounts[2] <= devices

    def guard(self, prefix: str) -> int:
        """Return the revision up to which everything put under a claims prefix is known."""
        complete = self.revision if prefix.startswith("grant/") else self.placed_at
        return max(complete, self._guards.get(prefix, 0))

    def carried(self, attempts: Iterable[str]) -> bool:
        """Whether any placement still carries one of these attempts."""
        return any(self.by_attempt.get(attempt) for attempt in attempts)

    def spent(self, purse: str, holder: str) -> int:
        """Return how much of a grant is used, plans under way included."""
        return self._spent.get((purse, holder), 0)

    def assumed(self, identifier: str) -> bool:
        """Whether a plan of ours for this slice is under way."""
        return identifier in self._assumed

    def spending(self, purse: str) -> bool:
        """Whether a plan of ours that spends from a purse is under way."""
        return any(purse in plan.spent for plan in self._assumed.values())

    def now(self, identifier: str) -> Placement | None:
        """Return a slice's placement as planned or as committed."""
        entry = self.placements.get(identifier)
        return self._assumed.get(identifier) or (entry.value if entry else None)

    # -- the journal of plans under way

    def assume(self, identifier: str, placement: Placement, record: bytes = b"") -> None:
        """Count a plan's units as held until `settle` or `retract`.

        Args:
            identifier: The slice, or system placement.
            placement: As it will be.
            record: The bytes that are to be written for it: when the store shows just these,
                nothing has to be read or changed any more.
        """
        before = self.now(identifier)
        self._assumed[identifier] = placement
        if record:
            self._written[identifier] = record
        self._replace(identifier, before, placement)

    def retract(self, identifier: str) -> None:
        """Forget a plan that was not committed; no error if the store's word came first."""
        plan = self._assumed.pop(identifier, None)
        if plan is not None:
            self._written.pop(identifier, None)
            entry = self.placements.get(identifier)
            self._replace(identifier, plan, entry.value if entry else None)

    def settle(self, identifier: str, revision: int, guards: Iterable[str] = ()) -> None:
        """Take a plan as committed at a revision.

        Args:
            identifier: The slice, or system placement.
            revision: What the store answered.
            guards: The claims prefixes whose quiet the commit compared: nobody else put there
                up to this revision.
        """
        for prefix in guards:
            self._guards[prefix] = max(revision, self._guards.get(prefix, 0))
        if revision <= self.placed_at:  # the store's word is complete beyond it: it came and went
            self.retract(identifier)
        plan = self._assumed.pop(identifier, None)
        if plan is not None:  # else the watch was faster
            entry = self.placements.get(identifier)
            created = entry.created if entry else revision
            self.placements[identifier] = Entry(plan, created, revision)

    @contextmanager
    def lifted(self, identifiers: Sequence[str]) -> Iterator[None]:
        """Look, for the length of a block, at what would be if these placements held nothing.

        All that follows the view follows along, so its cost is what they hold. Nothing may be
        applied, assumed or settled meanwhile. Claims and their guards are as they were.

        Args:
            identifiers: Placements as planned or committed; what is not there is passed over.
        """
        lifted = [(name, placed) for name in identifiers if (placed := self.now(name)) is not None]
        before, self.supposing = self.supposing, True
        for name, placed in lifted:
            self._replace(name, placed, None)
        try:
            yield
        finally:
            for name, placed in reversed(lifted):
                self._replace(name, None, placed)
            self.supposing = before

    # -- the store's word

    def load(self, records: Sequence[Versioned]) -> None:
        """Take in a listing after `clear`; plans under way that it does not show stay assumed."""
        plans, self._assumed = self._assumed, {}
        with collector.paused():
            self._load(records)
        for identifier, plan in plans.items():
            if identifier not in self.placements:
                self.assume(identifier, plan)

    def _load(self, records: Sequence[Versioned]) -> None:
        # The same as `apply` of each. Inventory and slices are nearly all of a listing; going
        # through them family by family takes half the time, and listeners are told once.
        read: Callable[[type, bytes], Any] = decode_many if len(records) > _MANY else decode
        add, slices, written_at = self.cell.add, self.slices, self.written_at
        prefix, kind, things = "/", None, False
        for record in records:
            key, value, created, modified = record
            if not key.startswith(prefix):
                family = key.partition("/")[0]
                prefix, kind = f"{family}/", _THINGS.get(family)
                things = things or kind is not None
            try:
                if kind is not None:
                    add(read(kind, value))
                    if kind in _LIMITING:
                        written_at[key] = modified
                elif prefix == "slice/":
                    slices[key[6:]] = Entry(read(Slice, value), created, modified)
                else:
                    self.apply(Change(*record))
            except SpecError as error:
                self.unreadable[key] = str(error)
        if things:
            for listener in self.inventory_listeners:
                listener("", "")

    def apply(self, change: Change) -> Applied:
        """Take in one change, whatever it is about; a record that cannot be read is set aside."""
        family, _, name = change.key.partition("/")
        self.unreadable.pop(change.key, None)
        try:
            self._apply(family, name, change)
        except SpecError as error:
            self.unreadable[change.key] = str(error)
        return Applied(family, name)

    def progressed(self, revision: int) -> None:
        """Note that everything up to a revision has been applied."""
        self.revision = max(self.revision, revision)
        self.placed_at = max(self.placed_at, revision)
        if self._guards:
            self._guards = {p: r for p, r in self._guards.items() if r > revision}

    def clear(self) -> None:
        """Forget everything but the listeners and the plans under way, before listing again."""
        fresh = CellView(
            listeners=self.listeners,
            inventory_listeners=self.inventory_listeners,
            _assumed=self._assumed,
        )
        for name in CellView.__slots__:
            setattr(self, name, getattr(fresh, name))
        for listener in self.inventory_listeners:
            listener("", "")

    def _apply(self, family: str, name: str, change: Change) -> None:
        kind = _THINGS.get(family)
        if kind is not None:
            self._apply_thing(family, name, kind, change)
        elif family == "placement":
            self._apply_placement(name, change)
        elif family == "slice":
            _put(self.slices, name, Slice, change)
        elif family == "session":
            _put(self.sessions, name, Session, change)
        elif family == "reason":
            _put(self.reasons, name, Waiting, change)
        elif family == "grant":
            purse, _, holder = name.rpartition("/")
            _put(self.grants.setdefault(purse, {}), holder, int, change)
        elif family == "observed":
            if change.value is None:
                self.observed.pop(name, None)
            else:
                self.observed[name] = decode(Observed, change.value)
            self._changed(engine_unit(name))
        elif family == "order":
            _put_by_attempt(self.orders, name, Order, change)
        elif family == "report":
            _put_by_attempt(self.reports, name, Report, change)
        elif family == "verify":
            if change.value is None:
                self.checkpoints.pop(name, None)
            else:
                self.checkpoints[name] = decode(int, change.value)
        elif change.key == PLANNER:
            self.planner = decode(PlannerRules, change.value) if change.value is not None else None
        elif change.key == POLICIES:
            self.policies = decode(PolicyRules, change.value) if change.value is not None else None
        elif change.key.startswith("rule/reservation/"):
            self._apply_reservation(name.partition("/")[2], change)
        elif family == "history":
            if change.value is None:
                self.history.pop(name, None)
            else:
                self.history[name] = decode(Held, change.value).until_at
        elif family == "mark":
            _put(self.marks, name, Mark, change)
        elif change.key.startswith("rule/epoch/"):
            self.epochs[name.partition("/")[2]] = change.modified if change.value is not None else 0

    def _apply_reservation(self, name: str, change: Change) -> None:
        if change.value is None:
            self.reservations.pop(name, None)
        else:
            self.reservations[name] = decode(Reservation, change.value)

    def _apply_thing(self, family: str, name: str, kind: type, change: Change) -> None:
        if change.value is None:
            self.cell.remove(family, name)
            self.written_at.pop(change.key, None)
        else:
            thing: Any = decode(kind, change.value)
            self.cell.add(thing)
            if kind in _LIMITING:
                self.written_at[change.key] = change.modified
        for listener in self.inventory_listeners:
            listener(family, name)

    def _apply_placement(self, identifier: str, change: Change) -> None:
        self.placed_at = max(self.placed_at, change.modified)
        before = self.now(identifier)
        written = self._written.pop(identifier, None)
        if written is not None and written == change.value and before is not None:
            # Our own commit comes back to us. Its attempt is in it, so it is no other's.
            self._assumed.pop(identifier, None)
            self.placements[identifier] = Entry(before, change.created, change.modified)
            return
        after = None if change.value is None else decode(Placement, change.value)
        engines = self.cell.engines
        for unit, amounts in _listed(after).items():
            known = not amounts and unit.startswith("engine/") and unit[7:] in engines
            if not known and not well_formed(unit, amounts):
                raise SpecError(f"{unit} {list(amounts)} is no unit", where=change.key)
        self._assumed.pop(identifier, None)
        if after is None:
            self.placements.pop(identifier, None)
        else:
            self.placements[identifier] = Entry(after, change.created, change.modified)
        self._replace(identifier, before, after)

    def _replace(self, name: str, before: Placement | None, after: Placement | None) -> None:
        """Move the indexes from one state of a placement to the next."""
        old, new = _listed(before), _listed(after)
        for unit, amounts in old.items():
            if new.get(unit) != amounts:
                self._drop(unit, name)
        alone = (name,)  # one for all units that nobody else lists, which is nearly all
        holders, listeners = self.holders, self.listeners
        for unit, amounts in new.items():
            if old and old.get(unit) == amounts:
                continue
            if unit.startswith("engine/") and unit not in holders:
                holders[unit] = alone
                for listener in listeners:
                    listener(unit)
            else:
                self._hold(unit, name, amounts)
        if before:
            self._spend(before, -1)
            for unit in before.wanted:
                self.wanted[unit].discard(name)
                self._changed(unit)
        if after:
            self._spend(after, +1)
            for unit in after.wanted:
                self.wanted[unit].add(name)
                self._changed(unit)
        if before and (after is None or after.attempt != before.attempt):
            carriers = self.by_attempt[before.attempt]
            carriers.discard(name)
            if not carriers:
                del self.by_attempt[before.attempt]
        if after:
            self.by_attempt[after.attempt].add(name)

    def _spend(self, placement: Placement, sign: int) -> None:
        for purse, amount in placement.spent.items():
            key = (purse, placement.scheduler)
            rest = self._spent.get(key, 0) + sign * amount
            if rest:
                self._spent[key] = rest
            else:
                self._spent.pop(key, None)

    def _hold(self, unit: str, name: str, amounts: tuple[int, ...]) -> None:
        kind, _, subject = unit.partition("/")
        if kind == "share":
            self.shares.setdefault(subject, {})[name] = amounts[0]
        elif kind == "host":
            self.hosts.setdefault(subject, {})[name] = (amounts[0], amounts[1])
            if len(amounts) > 2:
                self.devices.setdefault(subject, {})[name] = amounts[2]
        else:
            self.holders[unit] = (*self.holders.get(unit, ()), name)
            if kind == "lane":
                link, direction, lane = subject.rsplit("/", 2)
                taken = self.lanes_taken.get((link, direction), 0)
                self.lanes_taken[link, direction] = taken | 1 << int(lane)
        self._changed(unit)

    def _drop(self, unit: str, name: str) -> None:
        kind, _, subject = unit.partition("/")
        if is_divisible(unit):
            tables: list[dict[str, dict[str, Any]]] = [self.shares]
            if kind == "host":
                tables = [self.hosts, self.devices]
            for table in tables:
                held = table.get(subject, {})
                held.pop(name, None)
                if not held:
                    table.pop(subject, None)
        else:
            rest = tuple(n for n in self.holders.get(unit, ()) if n != name)
            if rest:
                self.holders[unit] = rest
            else:
                self.holders.pop(unit, None)
                if kind == "lane":
                    link, direction, lane = subject.rsplit("/", 2)
                    taken = self.lanes_taken.get((link, direction), 0) & ~(1 << int(lane))
                    self.lanes_taken[link, direction] = taken
        self._changed(unit)

    def _changed(self, unit: str) -> None:
        for listener in self.listeners:
            listener(unit)

    # -- small views used by several loops

    def engines_of(self, node: str) -> Iterator[Engine]:
        """Yield a node's engines."""
        for identifier in self.cell.engines_of.get(node, ()):
            yield self.cell.engines[identifier]

    def sessions_of(self, role: str) -> dict[str, Entry[Session]]:
        """Return the living sessions of a role, by id."""
        start = f"{role}/"
        return {k[len(start) :]: e for k, e in self.sessions.items() if k.startswith(start)}

    def applied(self, place: str, attempt: str) -> bool:
        """Whether the devices of a place equal the order it has for an attempt, if it has one."""
        order = self.orders.get(attempt, {}).get(place)
        if order is None:
            return True
        report = self.reports.get(attempt, {}).get(place)
        return report is not None and report.value.applied >= order.modified


def _listed(placement: Placement | None) -> Mapping[str, Amounts]:
    """Return all units of a placement."""
    if placement is None:
        return NOTHING
    held, releasing = placement.held, placement.releasing
    return {**held, **releasing} if releasing else held


def _put(table: dict[str, Entry[T]], name: str, kind: type[T], change: Change) -> None:
    if change.value is None:
        table.pop(name, None)
    else:
        table[name] = Entry(decode(kind, change.value), change.created, change.modified)


def _put_by_attempt(
    table: dict[str, dict[str, Entry[T]]], name: str, kind: type[T], change: Change
) -> None:
    place, _, attempt = name.rpartition("/")
    if change.value is None:
        places = table.get(attempt, {})
        places.pop(place, None)
        if not places:
            table.pop(attempt, None)
    else:
        entry = Entry(decode(kind, change.value), change.created, change.modified)
        table.setdefault(attempt, {})[place] = entry
