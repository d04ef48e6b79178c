"""What is checked before slices are put into the queue, and what must still be so when they are?

A submission is one transaction: all of its slices or none. Facts of the cell are kept and compared
instead of read each time; a conflict brings what has changed.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from flowos.documents.slice_terms import MEMBERS_MAX, cycle_in, told
from flowos.documents.totals import never
from flowos.model import keys
from flowos.model.assignment import assigned
from flowos.model.codec import decode
from flowos.model.errors import DuplicateName, NeverPlaceable, SpecError, UnknownName
from flowos.model.protocols import CellStore
from flowos.model.rules import NO_POLICIES, PolicyRules, Reservation
from flowos.model.slice import Once, Phase, Slice, SliceSpec, misasked
from flowos.model.transaction import Compare, Conflicted, Seen, Versioned
from flowos.runtime.looking import look

SUBMIT_MAX: Final = MEMBERS_MAX  # of one submission: etcd guards 4,096 operations as one
PLAIN_MAX: Final = 100  # slices that go in without a look at their names; etcd's limit is 128


def named(specs: Sequence[SliceSpec]) -> list[str]:
    """Return the names of slices that are submitted together.

    Raises:
        SpecError: They are too many, wait for each other, or one asks for what cannot be meant.
        DuplicateName: Two have one name.
    """
    if len(specs) > SUBMIT_MAX:
        raise SpecError(
            f"{len(specs)} slices in one submission, which is all or nothing",
            hint=f"submit at most {SUBMIT_MAX} at once, in several files",
        )
    names: dict[str, None] = {}
    for spec in specs:
        if wrong := misasked(spec):
            raise SpecError(wrong, where=spec.name, hint="write an amount that can be meant")
        if spec.array and spec.name != f"{spec.array.array}-{spec.array.index}":
            hint = f"name it {spec.array.array}-{spec.array.index}"
            raise SpecError(
                "its name is not that of its array and index", where=spec.name, hint=hint
            )
        if spec.id in names:
            raise DuplicateName(f"slice {spec.id} is named twice in one submission")
        names[spec.id] = None
    if cycle := cycle_in(specs):
        raise SpecError(told(cycle), where="depends_on", hint="leave out one of them")
    return list(names)


def taken(name: str) -> DuplicateName:
    """Return the error about a name that another slice has."""
    return DuplicateName(
        f"slice {name} exists: choose another name ('flowos ls --all' lists those that ended, too)"
    )


class Facts:
    """What a submission is checked against: kept, and compared instead of read each time."""

    def __init__(self, store: CellStore) -> None:
        """Know nothing yet."""
        self._store = store
        self._records: dict[str, Versioned] = {}
        self._totals: dict[str, Any] | None = None
        self._policies: tuple[int, PolicyRules] | None = (
            None  # as of a revision, 0 = none are there
        )

    def for_submission(
        self, specs: Sequence[SliceSpec]
    ) -> tuple[Sequence[SliceSpec], list[Compare]]:
        """Check requests; return them complete, and what must still be so when they are written.

        Raises:
            SpecError: One waits for what can never happen.
            UnknownName: A tenant, a place, a reservation or a slice that the cell does not have.
            NeverPlaceable: One that no state of this cell could hold.
        """
        specs, compares = self._served(specs)
        tenants = sorted({keys.inventory("tenant", spec.tenant) for spec in specs})
        places = dict.fromkeys(place for spec in specs for place in _places_named(spec))
        wanted = [keys.TOTALS, *tenants]
        # A place that goes later is the planner's to tell of: it is not compared.
        unknown = [key for key in (*wanted, *places) if key not in self._records]
        if unknown:
            self._take(look(self._store, unknown).records)
        # What is missing may be there by now, and what is kept be of a cell that is not any more.
        if self._totals is None:
            self._totals = totals_in(self._records.get(keys.TOTALS))
        for key in tenants:
            if key not in self._records:
                name = key.partition("/")[2]
                raise UnknownName(
                    f"tenant {name} is not known to this cell: 'flowos tenant ls' names those "
                    f"that are, 'flowos tenant set {name}' makes it"
                )
        for key in places:
            if key not in self._records:
                family, _, name = key.partition("/")
                raise UnknownName(
                    f"the cell has no {family} {name}, which data or hosts of the slice name: "
                    f"'flowos engine ls' names all"
                )
        for spec in _alike(specs):
            why = never(spec, self._totals)
            if why and not unknown:  # of a cell as it was some time ago
                self._records.clear()
                self._totals = None
                return self.for_submission(specs)
            if why:
                raise NeverPlaceable(f"slice {spec.name} can never be placed on this cell: {why}")
        self._reservations(specs)
        compares += [Seen(key, self._records[key].modified) for key in wanted]
        return specs, [*compares, *self._waited_for(specs)]

    def still_fit(self, specs: Sequence[SliceSpec]) -> None:
        """Check that requests which are changed can be placed on this cell.

        Raises:
            SpecError: One asks for what cannot be meant.
            NeverPlaceable: One that no state of this cell could hold.
        """
        totals = totals_in(look(self._store, [keys.TOTALS]).records[keys.TOTALS])
        for spec in specs:
            if wrong := misasked(spec):
                raise SpecError(wrong, where=spec.name, hint="write an amount that can be meant")
            if why := never(spec, totals):
                raise NeverPlaceable(f"slice {spec.name} can never be placed on this cell: {why}")

    def refresh(self, conflict: Conflicted) -> None:
        """Take over what has changed, as the conflict tells."""
        self._take({key: conflict.keys.get(key) for key in self._records})
        self._policies = None

    def _take(self, records: Mapping[str, Versioned | None]) -> None:
        for key, record in records.items():
            if record is None:
                self._records.pop(key, None)
            else:
                self._records[key] = record
        if keys.TOTALS in records:
            self._totals = None

    # -- who serves it

    def _served(self, specs: Sequence[SliceSpec]) -> tuple[Sequence[SliceSpec], list[Compare]]:
        """Let the cell's rules say which policy serves those that name none."""
        if all(spec.policy for spec in specs):
            return specs, []
        if self._policies is None:
            record = look(self._store, [keys.POLICIES]).records[keys.POLICIES]
            rules = decode(PolicyRules, record.value) if record else NO_POLICIES
            self._policies = (record.modified if record else 0, rules)
        revision, rules = self._policies
        served = [spec if spec.policy else assigned(spec, rules) for spec in specs]
        return served, [Seen(keys.POLICIES, revision)]

    # -- whom it waits for, and what it may use

    def _waited_for(self, specs: Sequence[SliceSpec]) -> Iterator[Compare]:
        """Check that what is waited for is there; yield that those which have ended stay there."""
        own = {spec.id for spec in specs}
        own |= {f"{spec.tenant}/{spec.array.array}" for spec in specs if spec.array}
        wanted = {d: spec for spec in _alike(specs) for d in spec.depends_on if d.on not in own}
        if not wanted:
            return
        records = look(self._store, {keys.slice_(d.on) for d in wanted}).records
        for dependency, spec in wanted.items():
            record = records[keys.slice_(dependency.on)]
            if record is None:
                if not members_of(self._store, dependency.on):
                    raise UnknownName(
                        f"there is no slice {dependency.on}, which {spec.name} depends on: "
                        f"'flowos ls --all' lists all"
                    )
                continue
            end = decode(Slice, record.value).end
            if end is None:
                continue
            lost = end.phase is not Phase.DONE and (
                dependency.once is Once.DONE
                or (dependency.once is Once.RUNNING and end.started_at is None)
            )
            if lost:
                how = "was cancelled" if end.phase is Phase.CANCELLED else "has failed"
                raise SpecError(
                    f"{dependency.on}, which {spec.name} depends on, {how}",
                    where="depends_on",
                    hint="leave it out, or wait for it with once: ended",
                )
            yield Seen(record.key, record.modified)

    def _reservations(self, specs: Sequence[SliceSpec]) -> None:
        """Check that a slice may use the reservation that it names."""
        wanted = {spec.reservation: spec for spec in specs if spec.reservation}
        if not wanted:
            return
        records = look(self._store, map(keys.reservation, wanted)).records
        for name, spec in wanted.items():
            record = records[keys.reservation(name)]
            if record is None:
                raise UnknownName(
                    f"there is no reservation {name}, which {spec.name} names: "
                    f"'flowos reservation ls' lists all"
                )
            if spec.tenant not in decode(Reservation, record.value).tenants:
                hint = "name one of its own, or none"
                problem = f"reservation {name} is not for tenant {spec.tenant}"
                raise SpecError(problem, where=spec.name, hint=hint)


def members_of(store: CellStore, array: str) -> list[Versioned]:
    """Return the records of an array's slices, in the order of their indexes.

    Args:
        store: Where.
        array: "tenant/array".
    """
    name = array.partition("/")[2]
    found: list[tuple[int, Versioned]] = []
    for record in store.read([keys.slice_(f"{array}-")]).records:
        if not record.key.rpartition("-")[2].isdecimal():
            continue
        try:
            member = decode(Slice, record.value).spec.array
        except SpecError:
            continue
        if member is not None and member.array == name:
            found.append((member.index, record))
    return [record for _, record in sorted(found)]


def _alike(specs: Iterable[SliceSpec]) -> Iterable[SliceSpec]:
    """Return one of each array: its members ask for the same."""
    return {f"{s.tenant}/{s.array.array}/" if s.array else s.id: s for s in specs}.values()


def _places_named(spec: SliceSpec) -> Iterator[str]:
    """Yield the inventory keys of the engines and nodes that a request names."""
    for at in (*(data.at for data in spec.data), *(host.at for host in spec.hosts.values())):
        if at:
            yield keys.inventory("engine" if "/" in at else "node", at)


def totals_in(record: Versioned | None) -> dict[str, Any]:
    """Return what a cell has in all, from its record.

    Raises:
        UnknownName: There is no cell.
    """
    if record is None:
        raise UnknownName("the store holds no cell of this name: load one with 'cell init'")
    totals: dict[str, Any] = decode(dict, record.value)
    return totals
