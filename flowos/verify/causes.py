"""Which transactions made a violation? For each of the facts that cannot both be true: which one.

Asked of the history that the store keeps, only once something is found: to follow who wrote each
key all the time would cost every revision something.
"""

import queue
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any, Final, NamedTuple, TypeVar

from flowos.model import keys
from flowos.model.cell import FAMILY_OF
from flowos.model.codec import decode
from flowos.model.errors import RevisionCompacted, SpecError, StoreError
from flowos.model.placement import Observed, Order, Placement, Session, attached_to
from flowos.model.protocols import CellStore
from flowos.model.slice import Slice
from flowos.model.transaction import Change, Changes, Lost, Progress, Versioned, WatchMessage
from flowos.model.units import engine_unit, host_unit, is_divisible, subject_of
from flowos.protocol.grants import limit_key
from flowos.protocol.orders import orders_of
from flowos.protocol.release import GIVEN_BACK, uid_of
from flowos.verify.facts import CLAIM, Claim, listing, ordered_units, thing_of, unit_of_claim
from flowos.verify.invariants import Checker
from flowos.verify.laws import Made, Violation
from flowos.verify.state import EVERYTHING, by_revision

T = TypeVar("T")
Holds = Callable[[bytes | None], bool]

EXPLAINED_MAX: Final = 100  # violations a run; beyond, the first ones tell enough
VERSIONS_MAX: Final = 50  # how far back a key's versions are looked at
ANSWER_SECONDS: Final = 5.0
SHOWN: Final = 2  # facts that contradict each other
_INVENTORY: Final = frozenset(FAMILY_OF.values())


class Fact(NamedTuple):
    """Something about one key that a violation is made of.

    Attributes:
        key: Whose value it is about.
        says: It, as a clause for people.
        holds: Whether a value, or None for an absent key, makes it true.
        at: The revision at which it is true; 0 = the violation's.
        made: The revision that made it, where that is known already; else 0.
    """

    key: str
    says: str
    holds: Holds = lambda _value: True
    at: int = 0
    made: int = 0


class Explainer:
    """Adds to violations the transactions that made them."""

    def __init__(self, store: CellStore) -> None:
        """Remember where the history is."""
        self._store = store
        self._left = EXPLAINED_MAX
        self._wrote: dict[int, list[Change] | None] = {}

    def explained(
        self, checker: Checker, violations: Sequence[Violation], step: Sequence[Change] = ()
    ) -> list[Violation]:
        """Return violations of a checker's present state with their transactions.

        Args:
            checker: As it is at the revision at which they were found.
            violations: What it found there.
            step: What that revision wrote; empty where the state was only read.
        """
        if not violations:
            return []
        self._wrote.clear()
        if step:
            self._wrote[step[0].modified] = list(step)
        found: list[Violation] = []
        for violation in violations:
            made: tuple[Made, ...] = ()
            if self._left > 0:
                self._left -= 1
                made = self._made(checker, violation, stepped=bool(step))
            found.append(replace(violation, transactions=made))
        return found

    def _made(self, checker: Checker, violation: Violation, *, stepped: bool) -> tuple[Made, ...]:
        past = _Past(self._store, checker)
        revision = checker.state.revision
        facts = list(_CAUSES[violation.law](_Scene(checker, violation)))
        try:
            return self._contradicting(past, facts, revision, stepped=stepped)
        except StoreError as error:  # a violation is told all the same
            return (Made(0, (), "", f"not known: {error}", kept=False),)

    def _contradicting(
        self, past: "_Past", facts: Sequence[Fact], revision: int, *, stepped: bool
    ) -> tuple[Made, ...]:
        dated = [(*past.since(fact), fact) for fact in facts]
        if stepped and all(made < revision for made, _, _ in dated):
            # What the records are judged by has changed under them.
            dated.append((revision, True, Fact("", "this changed what the others are judged by")))
        dated.sort(key=lambda one: one[0], reverse=True)
        together: dict[int, list[tuple[bool, Fact]]] = {}
        for made, kept, fact in dated[:SHOWN]:
            together.setdefault(made, []).append((kept, fact))
        return tuple(self._transaction(past, made, same) for made, same in sorted(together.items()))

    def _transaction(self, past: "_Past", made: int, facts: list[tuple[bool, Fact]]) -> Made:
        says = "; ".join(dict.fromkeys(fact.says for _, fact in reversed(facts)))
        if not made:
            return Made(0, (), "", f"{says}, and was never written as far as is kept", kept=True)
        if made not in self._wrote:
            self._wrote[made] = past.wrote(made)
        changes = self._wrote[made]
        if changes is None:
            return Made(made, (), "", says, kept=False)
        wrote = tuple(
            f"{'deleted' if change.value is None else 'put'} {change.key}"
            for change in sorted(changes, key=lambda change: change.key)
        )
        kept = all(known for known, _ in facts)
        return Made(made, wrote, past.actor(made, changes), says, kept)


class _Past:
    """The history of single keys, read backwards from a checker's state."""

    def __init__(self, store: CellStore, checker: Checker) -> None:
        self._store = store
        self._state = checker.state

    def since(self, fact: Fact) -> tuple[int, bool]:
        """Return the revision that made a fact true, 0 = it always was; and whether it is kept."""
        if fact.made:
            return fact.made, True
        revision, cursor = 0, fact.at or self._state.revision
        for _ in range(VERSIONS_MAX):
            try:
                record = self.record(fact.key, cursor)
            except RevisionCompacted:
                return revision, False
            if not fact.holds(record.value if record else None):
                return revision, True
            began = record.modified if record else self.deleted(fact.key, cursor)
            if not began:  # there was nothing before
                return revision, True
            revision, cursor = began, began - 1
        return revision, False

    def record(self, key: str, at: int) -> Versioned | None:
        """Return a key as it was at a revision.

        Raises:
            RevisionCompacted: That is not kept.
        """
        if at >= self._state.revision:
            return self._state.records.get(key)
        records = self._store.read((key,), at=at).records
        return next((record for record in records if record.key == key), None)

    def deleted(self, key: str, at: int) -> int:
        """Return when a key that is not there was deleted; 0 = not as far as is kept."""
        known = self._state.gone.get(key, 0)
        if 0 < known <= at:
            return known
        deletions = [c.modified for c in self._told((key,), 0, at) or () if c.key == key]
        return deletions[-1] if deletions else 0

    def wrote(self, revision: int) -> list[Change] | None:
        """Return all that a revision wrote, or None where that is not known any more."""
        return self._told(EVERYTHING, revision - 1, revision)

    def actor(self, revision: int, changes: Sequence[Change]) -> str:
        """Return who wrote this, as far as its records tell."""
        puts = {change.key: change for change in changes if change.value is not None}
        families = {change.key.partition("/")[0] for change in changes}
        placed = [key for key in puts if key.startswith("placement/")]
        if any(key.startswith(CLAIM) for key in puts):
            for key in placed:
                placement = _read(Placement, puts[key].value)
                # Whoever gives way was placed by somebody, who did not do this.
                if placement is not None and placement.scheduler and not placement.ending:
                    return f"scheduler {placement.scheduler}"
        elif len(placed) == 1 and not any(change.key.startswith(CLAIM) for change in changes):
            released = _read(Placement, puts[placed[0]].value)
            if released is not None and released.ending == GIVEN_BACK:
                return "program with a scheduler of its own"
        system = {change.key.split("/")[1] for change in changes if "placement/~" in change.key}
        if system & {"~drain"}:
            return "operator"
        if families <= {"report", "observed"}:
            return f"agent of {changes[0].key.split('/')[1]}"
        if families == {"slice"}:
            ended = [_read(Slice, change.value) for change in puts.values()]
            if puts and not any(slice_ is not None and slice_.end for slice_ in ended):
                return f"user of tenant {changes[0].key.split('/')[1]}"
        if families == {"grant"}:
            return f"scheduler {changes[0].key.rpartition('/')[2]}"
        if families <= _INVENTORY:
            return "operator"
        if families & {"placement", "order"} or families in ({"slice"}, {"history"}):
            return self._controller(revision)
        return "unknown"

    def _controller(self, revision: int) -> str:
        try:
            leader = self.record(keys.LEADER, revision)
        except StoreError:
            leader = None
        session = _read(Session, leader.value) if leader else None
        return f"controller {session.name}" if session else "controller"

    def _told(self, prefixes: Sequence[str], after: int, until: int) -> list[Change] | None:
        """Return what a watch tells of revisions up to `until`; None where they are not kept."""
        while True:
            arrived: queue.SimpleQueue[WatchMessage] = queue.SimpleQueue()
            found: list[Change] = []
            with closing(self._store.watch(prefixes, after=after, deliver=arrived.put)) as watch:
                watch.ask_progress()
                try:
                    again = self._listened(arrived, until, found)
                except queue.Empty:
                    return None
            if not again:
                return found
            if after:
                return None
            after = again  # the oldest that is kept

    def _listened(
        self, arrived: "queue.SimpleQueue[WatchMessage]", until: int, found: list[Change]
    ) -> int:
        """Collect changes up to a revision; return where to begin where it is too far back."""
        while True:
            match arrived.get(timeout=ANSWER_SECONDS):
                case Changes(changes):
                    for together in by_revision(changes):
                        if together[0].modified > until:
                            return 0
                        found += together
                    if changes[-1].modified == until:
                        return 0
                case Progress(revision) if revision >= until:
                    return 0
                case Lost(_, compacted):
                    return compacted or until + 1
                case _:
                    pass


# ------------------------------------------------------------------------- the facts of each law


class _Scene:
    """A violation where it was found, and how to say facts about it."""

    def __init__(self, checker: Checker, violation: Violation) -> None:
        self.facts = checker.facts
        self.records: Mapping[str, Versioned] = checker.state.records
        self.where = violation.where
        self.details: Mapping[str, Any] = violation.details
        self.revision = violation.revision

    def lists(self, name: str, below: str) -> Fact:
        def holds(value: bytes | None) -> bool:
            placement = _read(Placement, value)
            return placement is not None and below in listing(name, placement)

        return Fact(keys.placement(name), f"{name} lists {below}", holds)

    def lists_not(self, name: str, below: str) -> Fact:
        def holds(value: bytes | None) -> bool:
            placement = _read(Placement, value)
            return placement is None or below not in listing(name, placement)

        return Fact(keys.placement(name), f"{name} does not list {below}", holds)

    def claimed(self, below: str) -> Fact:
        now = self.facts.claims[below]

        def holds(value: bytes | None) -> bool:
            return _claim(value) == now

        return Fact(
            CLAIM + below, f"{below} is claimed for {now.owner}, attempt {now.attempt}", holds
        )

    def absent(self, key: str) -> Fact:
        return Fact(key, f"{key} is not there", lambda value: value is None)

    def stays(self, key: str, says: str, *, at: int = 0) -> Fact:
        """What a key has as its value now, whatever that is."""
        record = self.records.get(key)
        now = record.value if record else None
        if at:
            return Fact(key, says, _once(), at=at)
        return Fact(key, says, lambda value: value == now)

    def this(self, says: str) -> Fact:
        """What the violation's own revision did."""
        return Fact("", says, made=self.revision)

    def newest(self, candidates: Iterable[str], count: int) -> list[str]:
        there = [key for key in candidates if key in self.records]
        return sorted(there, key=lambda key: self.records[key].modified, reverse=True)[:count]


def _once() -> Holds:
    """Return what holds of the first value that is looked at, and of no earlier one."""
    looked = False

    def holds(_value: bytes | None) -> bool:
        nonlocal looked
        first, looked = not looked, True
        return first

    return holds


def _claims(scene: _Scene) -> Iterator[Fact]:
    below, details = scene.where[len(CLAIM) :], scene.details
    if "owner" in details:
        yield scene.claimed(below)
        yield scene.lists_not(details["owner"], below)
        return
    if "listed" in details:
        wanted = Claim(details["listed"][0], details["listed"][1], tuple(details["listed"][2]))

        def holds(value: bytes | None) -> bool:
            placement = _read(Placement, value)
            return placement is not None and listing(wanted.owner, placement).get(below) == wanted

        yield scene.claimed(below)
        key = keys.placement(wanted.owner)
        yield Fact(key, f"{wanted.owner} lists {below} for attempt {wanted.attempt}", holds)
        return
    names = details["placements"]
    if "claim" in details:
        yield scene.absent(scene.where)
        yield scene.lists(names[0], below)
    elif len(set(names)) < len(names):
        for field in ("held", "releasing"):
            yield Fact(
                keys.placement(names[0]),
                f"{names[0]} lists {below} as {field}",
                _listed_in(names[0], field, below),
            )
    else:
        for name in names:
            yield scene.lists(name, below)


def _listed_in(name: str, field: str, below: str) -> Holds:
    def holds(value: bytes | None) -> bool:
        placement = _read(Placement, value)
        if placement is None:
            return False
        alone = replace(placement, releasing={}) if field == "held" else replace(placement, held={})
        return below in listing(name, alone)

    return holds


def _exists(scene: _Scene) -> Iterator[Fact]:
    below = scene.where[len(CLAIM) :]
    unit = unit_of_claim(below)
    assert unit is not None, "the law spoke of a unit"
    family, name = thing_of(unit)
    if below in scene.facts.claims:
        yield scene.claimed(below)
    else:
        yield scene.lists(min(scene.facts.listed[below]), below)
    key = keys.inventory(family, name)
    yield scene.stays(
        key, f"{key} is written as it stands" if key in scene.records else f"{key} is not there"
    )


def _shares(scene: _Scene) -> Iterator[Fact]:
    engine = scene.where.partition("/")[2]
    parts = [f"{CLAIM}{scene.where}/{attempt}" for attempt in scene.details["attempts"]]
    whole = "owner" in scene.details
    if whole:
        yield scene.claimed(engine_unit(engine))
    for key in scene.newest(parts, 1 if whole else SHOWN):
        yield scene.claimed(key[len(CLAIM) :])


def _hosts(scene: _Scene) -> Iterator[Fact]:
    node = keys.inventory("node", scene.where.partition("/")[2])
    parts = [f"{CLAIM}{scene.where}/{attempt}" for attempt in scene.details["attempts"]]
    for key in scene.newest([node, *parts], SHOWN):
        yield (
            scene.stays(key, f"{key} is written as it stands")
            if key == node
            else scene.claimed(key[len(CLAIM) :])
        )


def _up(scene: _Scene) -> Iterator[Fact]:
    unit, details = scene.where, scene.details
    for attempt in details["attempts"] if "attempts" in details else [details["up"]]:
        yield _ordered(scene, unit, attempt)
    if "up" in details:
        below = f"{unit}/{details['up']}" if is_divisible(unit) else unit
        yield scene.claimed(below) if "claimed" in details else scene.absent(CLAIM + below)


def _ordered(scene: _Scene, unit: str, attempt: str) -> Fact:
    def holds(value: bytes | None) -> bool:
        order = _read(Order, value)
        return order is not None and unit in ordered_units(order)

    there = scene.facts.orders.get(attempt, {})
    place = min(place for place, order in there.items() if unit in ordered_units(order.value))
    return Fact(keys.order(place, attempt), f"the order of {attempt} at {place} has {unit}", holds)


def _orders(scene: _Scene) -> Iterator[Fact]:
    _, _, rest = scene.where.partition("/")
    place, _, attempt = rest.rpartition("/")
    name = scene.details.get("placement") or scene.details["slice"]
    there = place in scene.facts.orders.get(attempt, {})
    if "slice" in scene.details:
        yield scene.stays(scene.where, f"{attempt} has an order at {place}")
        yield _orders_at(name, place, attempt, listed=False)
        return
    listing_it = [
        other
        for other in sorted(scene.facts.by_attempt.get(attempt, ()))
        if place in scene.facts.placements[other].value.ordered
    ]
    if name not in listing_it:
        yield _orders_at(name, place, attempt, listed=False)
        yield _wants(scene, name, place)
    elif "parts" in scene.details:
        yield scene.stays(scene.where, f"the order of {attempt} at {place} is written as it stands")
        yield _wants(scene, name, place)
    elif len(listing_it) > 1 and there:
        for other in listing_it:
            yield _orders_at(other, place, attempt, listed=True)
    else:
        yield _orders_at(name, place, attempt, listed=True)
        yield scene.absent(scene.where)


def _orders_at(name: str, place: str, attempt: str, *, listed: bool) -> Fact:
    def holds(value: bytes | None) -> bool:
        placement = _read(Placement, value)
        return listed is (
            placement is not None and placement.attempt == attempt and place in placement.ordered
        )

    says = "lists" if listed else "does not list"
    return Fact(keys.placement(name), f"{name} {says} an order at {place}", holds)


def _wants(scene: _Scene, name: str, place: str) -> Fact:
    cell = scene.facts.cell
    now = orders_of(cell, name, scene.facts.placements[name].value).get(place)

    def holds(value: bytes | None) -> bool:
        placement = _read(Placement, value)
        return placement is not None and orders_of(cell, name, placement).get(place) == now

    return Fact(keys.placement(name), f"{name} asks for another order at {place}", holds)


def _reports(scene: _Scene) -> Iterator[Fact]:
    yield scene.stays(scene.where, f"{scene.where} is written as it stands")
    order = scene.where.replace("report/", "order/", 1)
    if order in scene.records:
        yield scene.stays(order, f"{order} is written as it stands")
    else:
        yield scene.absent(order)


def _attempts(scene: _Scene) -> Iterator[Fact]:
    attempt = scene.details["attempt"]

    def holds(value: bytes | None) -> bool:
        placement = _read(Placement, value)
        return placement is not None and placement.attempt == attempt

    for name in scene.details["placements"]:
        yield Fact(keys.placement(name), f"{name} is attempt {attempt}", holds)


def _bitstreams(scene: _Scene) -> Iterator[Fact]:
    engine = scene.where.partition("/")[2]
    now = scene.facts.observed[engine]
    name, wanted = scene.details["placement"], scene.details["wanted"]

    def runs(value: bytes | None) -> bool:
        seen = _read(Observed, value)
        return seen is not None and (seen.task, seen.bitstream) == (now.task, now.bitstream)

    def wants(value: bytes | None) -> bool:
        placement = _read(Placement, value)
        return placement is not None and placement.bitstreams.get(engine) == wanted

    loaded = now.bitstream or "no bitstream"
    yield Fact(scene.where, f"a task of {now.task} runs on {engine} with {loaded}", runs)
    yield Fact(keys.placement(name), f"{name} wants {wanted} on {engine}", wants)


def _attaches(scene: _Scene, name: str, placement: Placement) -> Iterator[Fact]:
    node, cell = scene.details["node"], scene.facts.cell
    unit = host_unit(node)
    devices = attached_to(cell.nodes, placement.circuits)[node]

    def attaches(value: bytes | None) -> bool:
        known = _read(Placement, value)
        return known is not None and attached_to(cell.nodes, known.circuits).get(node) == devices

    def holds(value: bytes | None) -> bool:
        known = _read(Placement, value)
        return known is not None and known.held.get(unit) == placement.held.get(unit)

    yield Fact(scene.where, f"{name} attaches {', '.join(sorted(devices))} to {node}", attaches)
    yield Fact(scene.where, f"{name} holds what it holds of {node}", holds)
    key = keys.inventory("node", node)
    yield scene.stays(key, f"{key} is written as it stands")


def _circuits(scene: _Scene) -> Iterator[Fact]:
    name = scene.where.partition("/")[2]
    placement = scene.facts.placements[name].value
    if "node" in scene.details:
        yield from _attaches(scene, name, placement)
        return
    number = scene.details["circuit"]
    circuit = next(c for c in placement.circuits if c.id == number)
    cell = scene.facts.cell

    def crosses(value: bytes | None) -> bool:
        known = _read(Placement, value)
        return known is not None and circuit in known.circuits

    def holds(value: bytes | None) -> bool:
        known = _read(Placement, value)
        return known is not None and known.held == placement.held

    yield Fact(scene.where, f"{name} has the circuit {number}", crosses)
    yield Fact(scene.where, f"{name} holds what it holds", holds)
    missing = [keys.inventory("link", arc.link) for arc in circuit.arcs]
    ends = {
        thing
        for arc in circuit.arcs
        if (link := cell.links.get(arc.link)) is not None
        for thing in (link.a_thing, link.b_thing)
    }
    missing += [keys.inventory("switch", thing) for thing in ends if thing not in cell.engines]
    for key in missing:
        if key not in scene.records and key.partition("/")[2] not in cell.nodes:
            yield scene.absent(key)
    for name in {subject_of(unit) for unit in circuit.aggregators}:
        switch = cell.switches.get(name)
        if switch is not None and circuit.aggregate not in switch.functions:
            key = keys.inventory("switch", name)
            yield scene.stays(key, f"{key} is written as it stands")


def _uids(scene: _Scene) -> Iterator[Fact]:
    name = scene.where.partition("/")[2]
    uid = scene.details["uid"]
    entry = scene.facts.placements[name]

    def holds(value: bytes | None) -> bool:
        placement = _read(Placement, value)
        return placement is not None and uid_of(entry.created, placement) == uid

    yield Fact(scene.where, f"{name} is placed as slice {uid}", holds)
    created = scene.details["created"]
    yield Fact(keys.slice_(name), f"{name} is slice {created}", made=created)


def _grants(scene: _Scene) -> Iterator[Fact]:
    purse, _, holder = scene.where.partition("/")[2].rpartition("/")
    yield scene.stays(scene.where, f"{holder} is granted {scene.details['granted']} of {purse}")
    spending = [
        keys.placement(name)
        for name, entry in scene.facts.placements.items()
        if entry.value.scheduler == holder and entry.value.spent.get(purse)
    ]
    for key in scene.newest(spending, SHOWN):
        name = key.partition("/")[2]
        amount = scene.facts.placements[name].value.spent[purse]
        yield Fact(key, f"{name} uses {amount} of it", _spends(purse, holder, amount))


def _spends(purse: str, holder: str, amount: int) -> Holds:
    def holds(value: bytes | None) -> bool:
        placement = _read(Placement, value)
        return placement is not None and (placement.scheduler, placement.spent.get(purse)) == (
            holder,
            amount,
        )

    return holds


def _freed(scene: _Scene) -> Iterator[Fact]:
    yield scene.this(f"{scene.where} is deleted")
    before = scene.revision - 1
    for place in scene.details.get("places", ())[:1]:
        order = keys.order(place, scene.details["attempt"])
        yield scene.stays(order, f"{place} was ordered so, and has not reported it", at=before)
    if "waits" in scene.details:
        waits = tuple(scene.details["waits"])

        def holds(value: bytes | None) -> bool:
            placement = _read(Placement, value)
            return placement is not None and placement.waits == waits

        owner = scene.details["owner"]
        says = f"{owner} waits for {', '.join(waits)}"
        yield Fact(keys.placement(owner), says, holds, at=before)


def _raised(scene: _Scene) -> Iterator[Fact]:
    purse = scene.where.partition("/")[2]
    yield scene.this(f"grants of {purse} come to {scene.details['granted']}")
    cell = scene.facts.cell
    name = purse.partition(":")[2]
    judged = [limit_key(purse)]
    judged += [keys.grant(purse, holder) for holder in scene.facts.grants.get(purse, ())]
    judged += [
        keys.inventory("engine", identifier)
        for identifier, engine in cell.engines.items()
        if engine.node in cell.nodes and cell.nodes[engine.node].domain == name
    ]
    older = [k for k in judged if k in scene.records and scene.records[k].modified < scene.revision]
    for key in scene.newest(older, 1):
        yield scene.stays(key, f"{key} was written: the limit is {scene.details['limit']}")


def _committed(scene: _Scene) -> Iterator[Fact]:
    name = scene.where.partition("/")[2]
    yield scene.this(f"{name} is placed")
    entry = scene.facts.slices.get(name)
    if entry is None:
        yield scene.absent(keys.slice_(name))
        return
    wish = "cancelled" if entry.value.cancelled else "held"

    def holds(value: bytes | None) -> bool:
        slice_ = _read(Slice, value)
        return slice_ is not None and bool(getattr(slice_, wish))

    yield Fact(keys.slice_(name), f"{name} is {wish}", holds)


def _covered(scene: _Scene) -> Iterator[Fact]:
    name, purse = scene.where.partition("/")[2], scene.details["purse"]
    yield scene.this(f"{name} spends too little of {purse}")
    limited = limit_key(purse)
    if limited in scene.records and scene.records[limited].modified < scene.revision:
        yield scene.stays(limited, f"{limited} was written: there is a quota")


def _reserved(scene: _Scene) -> Iterator[Fact]:
    reservation, owner = scene.details["reservation"], scene.details["owner"]
    yield scene.this(f"{scene.where.partition('/')[2]} goes to {owner}")
    rule = keys.reservation(reservation)
    if rule in scene.records:
        yield scene.stays(rule, f"{rule} was written: it is not for {owner}")


def _in_service(scene: _Scene) -> Iterator[Fact]:
    thing = scene.details["thing"]
    yield scene.this(f"{scene.where.partition('/')[2]} is given what is of {thing}")
    yield scene.claimed(thing)


def _phases(scene: _Scene) -> Iterator[Fact]:
    name = scene.where.partition("/")[2]
    before, after = scene.details["before"], scene.details["after"]
    yield scene.this(f"{name} is {after or 'gone'}")
    if before is None:
        return
    # Whichever was written last made it what it was.
    for key in (keys.slice_(name), keys.placement(name)):
        yield scene.stays(key, f"{name} was {before}", at=scene.revision - 1)


def _readable(scene: _Scene) -> Iterator[Fact]:
    yield scene.stays(scene.where, f"{scene.where} was written")


_CAUSES: Final[Mapping[str, Callable[[_Scene], Iterator[Fact]]]] = {
    "readable": _readable,
    "claims": _claims,
    "exists": _exists,
    "shares": _shares,
    "hosts": _hosts,
    "up": _up,
    "orders": _orders,
    "reports": _reports,
    "attempts": _attempts,
    "bitstreams": _bitstreams,
    "circuits": _circuits,
    "uids": _uids,
    "grants": _grants,
    "freed": _freed,
    "raised": _raised,
    "committed": _committed,
    "covered": _covered,
    "reserved": _reserved,
    "in service": _in_service,
    "phases": _phases,
}


def _read(kind: type[T], value: bytes | None) -> T | None:
    """Return a record, or None where there is none that can be read."""
    if value is None:
        return None
    try:
        return decode(kind, value)
    except SpecError:
        return None


def _claim(value: bytes | None) -> Claim | None:
    read: Any = _read(tuple[str, str, tuple[int, ...]], value)
    return Claim(*read) if read is not None else None
