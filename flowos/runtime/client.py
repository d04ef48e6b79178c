"""What a user's program does with a cell: submit slices, watch them, end them, embed a scheduler.

from flowos import connect

with connect() as cell:
cell.submit([spec])
cell.wait(spec.id, "running", timeout_seconds=60)
"""

import contextlib
import itertools
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from queue import Empty, SimpleQueue
from threading import Event
from typing import Any, Final, Self

from flowos.documents.totals import never
from flowos.model import keys
from flowos.model.codec import decode, encode
from flowos.model.errors import (
    DuplicateName,
    NeverPlaceable,
    NotInTime,
    OutcomeUnknown,
    SpecError,
    StillContended,
    StoreUnreachable,
    UnknownName,
)
from flowos.model.protocols import Clock, Watch
from flowos.model.slice import Reason, Slice, SliceSpec, misasked
from flowos.model.transaction import (
    Changes,
    Committed,
    Compare,
    Conflicted,
    Lost,
    Operation,
    Progress,
    Put,
    Reading,
    Seen,
    Transaction,
    Versioned,
    WatchMessage,
)
from flowos.model.view import CellView
from flowos.planning.policy import Policy
from flowos.protocol.proposal import Proposal
from flowos.runtime.embedded import EmbeddedScheduler
from flowos.runtime.instep import OutOfStep, revision_of
from flowos.runtime.looking import look
from flowos.runtime.processes import Store, new_attempt
from flowos.runtime.shown import view_of
from flowos.runtime.slice_queue import POLL_SECONDS, YOUNG_SECONDS, SliceQueue

TRIES_MAX: Final = 20  # a user's own record is rarely written by anyone else at the same moment
SUBMIT_GROUP: Final = 100  # slices of one atomic submission: etcd's default limit is 128 operations
SUBMITTED_MAX: Final = 10_000  # slices whose record is remembered, some 300 bytes each
SLICES: Final = ("slice/", "placement/", "reason/", "session/", "order/", "report/")


class CellClient:
    """A connection to one cell."""

    def __init__(self, store: Store, clock: Clock) -> None:
        """Use a store that is connected; `close` closes it."""
        self.store = store
        self._clock = clock
        self._facts = _Facts(store)
        self._submitted: dict[str, Versioned] = {}  # the newest; their own records as written here

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self.store.close()

    # -- looking

    def view(self, prefixes: Sequence[str] = SLICES) -> CellView:
        """Return everything under some key families, all as of one revision.

        Raises:
            UnknownName: No cell was loaded here.
        """
        return view_of(self.store, prefixes)

    def totals(self) -> dict[str, Any]:
        """Return what the cell has in all, as `flowos.documents.totals` counted it.

        Raises:
            UnknownName: No cell was loaded here.
        """
        return _totals_in(look(self.store, [keys.TOTALS]).records[keys.TOTALS])

    # -- a user's wishes

    def submit(self, specs: Sequence[SliceSpec]) -> int:
        """Put slices into the queue, all of them or none; return the revision.

        Raises:
            SpecError: More than can be submitted at once, or two of one name.
            UnknownName: A tenant or a bitstream that the cell does not know.
            NeverPlaceable: A slice that no state of this cell could hold.
            DuplicateName: A name is taken.
            OutcomeUnknown: No answer came, and the slices may or may not be in the queue.
        """
        names = _named(specs)
        now = self._clock.wall()
        records = {keys.slice_(s.id): encode(Slice(spec=s, submitted_at=now)) for s in specs}
        puts = tuple(Put(key, value) for key, value in records.items())
        for _ in range(TRIES_MAX):
            compares = self._facts.for_submission(specs)
            compares += [Seen(key, 0) for key in records]
            try:
                (outcome,) = self.store.commit([Transaction(tuple(compares), puts)])
            except OutcomeUnknown as error:
                now_there = look(self.store, records).records
                found = {k: r for k, r in now_there.items() if r and r.value == records[k]}
                if len(found) == len(records):
                    return max(record.created for record in found.values())
                raise OutcomeUnknown(
                    f"{error}; whether {names[0]} is in the queue is not known yet: "
                    f"'flowos slice show {names[0].partition('/')[2]}' will tell"
                ) from None
            if isinstance(outcome, Committed):
                self._remember(records, outcome.revision)
                return outcome.revision
            for key in records:
                if outcome.keys.get(key) is not None:
                    name = key.partition("/")[2]
                    raise DuplicateName(f"slice {name} exists: cancel it or choose another name")
            self._facts.refresh(outcome)
        raise StillContended("a tenant was changed at this moment: submit again")

    def check(self, specs: Sequence[SliceSpec]) -> None:
        """Refuse what `submit` would refuse now, and write nothing.

        Raises:
            SpecError, UnknownName, NeverPlaceable, DuplicateName: As `submit`.
        """
        names = _named(specs)
        self._facts.for_submission(specs)
        there = look(self.store, map(keys.slice_, names)).records
        for name in names:
            if there[keys.slice_(name)] is not None:
                raise DuplicateName(f"slice {name} exists: cancel it or choose another name")

    def _remember(self, records: Mapping[str, bytes], revision: int) -> None:
        for key, value in records.items():
            self._submitted[key] = Versioned(key, value, revision, revision)
        while len(self._submitted) > SUBMITTED_MAX:
            del self._submitted[next(iter(self._submitted))]

    def cancel(self, identifier: str) -> bool:
        """Ask for a slice's end; False where it has ended already.

        Raises:
            UnknownName: There is no such slice.
        """
        return self._wish(identifier, lambda s: None if s.end else replace(s, cancelled=True))

    def hold(self, identifier: str) -> bool:
        """Keep a pending slice from being placed; False where it has ended."""
        return self._wish(identifier, lambda s: None if s.end else replace(s, held=True))

    def unhold(self, identifier: str) -> bool:
        """Let a held slice be placed again; False where it has ended."""
        return self._wish(identifier, lambda s: None if s.end else replace(s, held=False))

    def _wish(self, identifier: str, change: Callable[[Slice], Slice | None]) -> bool:
        key = keys.slice_(identifier)
        # Of a slice that was submitted here, the record is known; if not any more, a conflict tells.
        known = self._submitted.pop(key, None)
        record = known or look(self.store, [key]).records[key]
        for _ in range(TRIES_MAX):
            if record is None:
                raise UnknownName(f"there is no slice {identifier}: 'flowos ls --all' lists all")
            before = decode(Slice, record.value)
            after = change(before)
            if after is None:
                return False
            if after == before and record is known:  # somebody may have wished otherwise since
                record = look(self.store, [key]).records[key]
                continue
            if after == before:
                return True
            transaction = Transaction((Seen(key, record.modified),), (Put(key, encode(after)),))
            (outcome,) = self.store.commit([transaction])
            if isinstance(outcome, Committed):
                return True
            record = outcome.keys[key]
        raise StillContended(f"slice {identifier} kept changing: try again")

    # -- waiting

    def queue(self, tenants: Sequence[str] = ("default",)) -> SliceQueue:
        """Open a queue of one's own slices, for programs that submit many; see `SliceQueue`."""
        return SliceQueue(self.store, self._clock, self.submit, tenants)

    def wait(
        self,
        identifier: str,
        until: str,
        *,
        timeout_seconds: float | None = None,
        changed: Callable[[CellView], None] = lambda _view: None,
    ) -> CellView:
        """Wait until a slice is `allocated`, `running`, or `done` (ended in any way).

        Args:
            identifier: "tenant/name".
            until: allocated | running | done.
            timeout_seconds: None = for ever.
            changed: Called with the view after each change, e.g. to show it.

        Returns:
            The view in which it happened; an end of any kind ends every wait.

        Raises:
            UnknownName: There is no such slice.
            NotInTime: It did not happen in time; the slice goes on.
            NeverPlaceable: Its scheduler found that it can never be placed.
        """
        deadline = None if timeout_seconds is None else self._clock.monotonic() + timeout_seconds
        for view in self.follow(
            [keys.slice_(identifier), keys.placement(identifier), keys.reason(identifier)],
            deadline=deadline,
        ):
            changed(view)
            if _reached(view, identifier, until):
                return view
        entry = view.slices.get(identifier)
        waiting = view.reasons.get(identifier)
        said = (
            f": {waiting.value.sentence}" if waiting and identifier not in view.placements else ""
        )
        what = {"allocated": "placed", "running": "running", "done": "at its end"}[until]
        assert entry is not None
        raise NotInTime(f"slice {identifier} is not {what} after {timeout_seconds:g} s{said}")

    def follow(
        self, prefixes: Sequence[str], *, deadline: float | None = None
    ) -> Iterator[CellView]:
        """Yield one view after each revision that changed something; ends at the deadline.

        Key families come by separate watches, so changes are held back until the store says that
        everything up to a revision was delivered: what is yielded is the state at one revision.

        Args:
            prefixes: What to follow.
            deadline: Monotonic seconds; None = for ever.
        """
        inbox: SimpleQueue[WatchMessage] = SimpleQueue()
        view = CellView()
        listed = False
        while True:
            try:
                reading = self.store.read(prefixes)
            except StoreUnreachable:
                if not listed:
                    raise
                # Who has begun to wait goes on through an outage, until the time is over.
                if deadline is not None and self._clock.monotonic() >= deadline:
                    return
                Event().wait(POLL_SECONDS)
                continue
            listed = True
            _refill(view, reading)
            watch = self.store.watch(prefixes, after=reading.revision, deliver=inbox.put)
            watch.ask_progress()
            try:
                yield view
                early: deque[WatchMessage] = deque()
                yield from self._beside(view, reading, prefixes, inbox, early, deadline)
                yield from self._in_step(view, early, inbox, watch, deadline)
            finally:
                watch.close()
            if deadline is not None and self._clock.monotonic() >= deadline:
                return

    def _beside(
        self,
        view: CellView,
        reading: Reading,
        prefixes: Sequence[str],
        inbox: SimpleQueue[WatchMessage],
        early: deque[WatchMessage],
        deadline: float | None,
    ) -> Iterator[CellView]:
        """Read and yield until the watch says that it is up to date, which takes up to 0.1 s."""
        pause, longest = YOUNG_SECONDS
        while not early or isinstance(early[-1], Changes):
            left = pause if deadline is None else min(pause, deadline - self._clock.monotonic())
            if left <= 0:
                break
            try:
                early.append(inbox.get(timeout=left))
            except Empty:
                pause = min(2 * pause, longest)
                before = reading
                with contextlib.suppress(StoreUnreachable):  # the watch waits for it to come back
                    reading = self.store.read(prefixes)
                if reading.records != before.records:
                    _refill(view, reading)
                    yield view

    def _in_step(
        self,
        view: CellView,
        early: deque[WatchMessage],
        inbox: SimpleQueue[WatchMessage],
        watch: Watch,
        deadline: float | None,
    ) -> Iterator[CellView]:
        """Apply and yield revision by revision, until the watch or the time is over."""
        pending = OutOfStep()
        while True:
            left = POLL_SECONDS
            if deadline is not None:
                left = min(left, deadline - self._clock.monotonic())
                if left <= 0:
                    return
            try:
                message = early.popleft() if early else inbox.get(timeout=left)
            except Empty:
                watch.ask_progress()
                continue
            match message:
                case Changes(changes):
                    # What was read beside the watch is known.
                    pending.add(change for change in changes if change.modified > view.revision)
                    watch.ask_progress()
                case Progress(revision):
                    due = pending.complete_up_to(revision)
                    for at, group in itertools.groupby(due, key=revision_of):
                        for change in group:
                            view.apply(change)
                        view.progressed(at)
                        yield view
                    view.progressed(revision)
                case Lost():
                    return

    # -- scheduling from within a program

    def scheduler(
        self, policy: Policy, *, name: str = "client", follow: bool = True, freeze: bool = False
    ) -> EmbeddedScheduler:
        """Open a scheduler of one's own; see `EmbeddedScheduler`."""
        return EmbeddedScheduler(
            self.store,
            self._clock,
            policy,
            name=name,
            fits=self._fits,
            new_attempt=new_attempt,
            follow=follow,
            freeze=freeze,
        )

    def _fits(self, proposals: Sequence[Proposal]) -> bool:
        return self.store.fits([p.transaction for p in proposals])

    # -- an operator's steps

    def operate(self, step: Callable[[CellView], Proposal | None], prefixes: Sequence[str]) -> bool:
        """Read, decide and commit one step; again where a rival was faster.

        Returns:
            False where the rules do not allow the step now.

        Raises:
            StillContended: Rivals kept being faster.
        """
        for _ in range(TRIES_MAX):
            proposal = step(self.view(prefixes))
            if proposal is None:
                return False
            (outcome,) = self.store.commit([proposal.transaction])
            if not isinstance(outcome, Conflicted):
                return True
        raise StillContended("the cell kept changing: try again")

    def write(
        self, compares: Sequence[Compare], operations: Sequence[Operation]
    ) -> Committed | Conflicted:
        """Commit one plain transaction, for an operator's inventory and rules."""
        (outcome,) = self.store.commit([Transaction(tuple(compares), tuple(operations))])
        return outcome


def _refill(view: CellView, reading: Reading) -> None:
    view.clear()
    view.load(reading.records)
    view.progressed(reading.revision)


def _named(specs: Sequence[SliceSpec]) -> list[str]:
    """Return the names of slices that are submitted together."""
    if len(specs) > SUBMIT_GROUP:
        raise SpecError(
            f"{len(specs)} slices in one submission, which is all or nothing",
            hint=f"submit at most {SUBMIT_GROUP} at once, in several files",
        )
    for spec in specs:
        if wrong := misasked(spec):
            raise SpecError(wrong, where=spec.name, hint="write an amount that can be meant")
    names = [spec.id for spec in specs]
    for name in names:
        if names.count(name) > 1:
            raise DuplicateName(f"slice {name} is named twice in one submission")
    return names


class _Facts:
    """What a submission is checked against: kept, and compared instead of read each time."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._records: dict[str, Versioned] = {}
        self._totals: dict[str, Any] | None = None

    def for_submission(self, specs: Sequence[SliceSpec]) -> list[Compare]:
        """Check requests and return what must still be so when they are written."""
        tenants = sorted({keys.inventory("tenant", spec.tenant) for spec in specs})
        places = dict.fromkeys(place for spec in specs for place in _places_named(spec))
        wanted = [keys.TOTALS, *tenants]
        # A place that goes later is the planner's to tell of: it is not compared.
        unknown = [key for key in (*wanted, *places) if key not in self._records]
        if unknown:
            self._take(look(self._store, unknown).records)
        # What is missing may be there by now, and what is kept be of a cell that is not any more.
        if self._totals is None:
            self._totals = _totals_in(self._records.get(keys.TOTALS))
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
        for spec in specs:
            why = never(spec, self._totals)
            if why and not unknown:  # of a cell as it was some time ago
                self._records.clear()
                self._totals = None
                return self.for_submission(specs)
            if why:
                raise NeverPlaceable(f"slice {spec.name} can never be placed on this cell: {why}")
        return [Seen(key, self._records[key].modified) for key in wanted]

    def refresh(self, conflict: Conflicted) -> None:
        """Take over what has changed, as the conflict tells."""
        self._take({key: conflict.keys.get(key) for key in self._records})

    def _take(self, records: Mapping[str, Versioned | None]) -> None:
        for key, record in records.items():
            if record is None:
                self._records.pop(key, None)
            else:
                self._records[key] = record
        if keys.TOTALS in records:
            self._totals = None


def _places_named(spec: SliceSpec) -> Iterator[str]:
    """Yield the inventory keys of the engines and nodes that a request names."""
    for at in (*(data.at for data in spec.data), *(host.at for host in spec.hosts.values())):
        if at:
            yield keys.inventory("engine" if "/" in at else "node", at)


def _totals_in(record: Versioned | None) -> dict[str, Any]:
    if record is None:
        raise UnknownName("the store holds no cell of this name: load one with 'cell init'")
    return decode(dict, record.value)


def _reached(view: CellView, identifier: str, until: str) -> bool:
    entry = view.slices.get(identifier)
    if entry is None:
        raise UnknownName(f"there is no slice {identifier}: 'flowos ls --all' lists all")
    if entry.value.end is not None:
        return True
    placed = view.placements.get(identifier)
    if placed is None:
        waiting = view.reasons.get(identifier)
        if waiting is not None and waiting.value.reason is Reason.INFEASIBLE:
            raise NeverPlaceable(
                f"slice {identifier} can never be placed: {waiting.value.sentence}"
            )
        return False
    if until == "done" or placed.value.ending is not None:
        return False
    return until == "allocated" or placed.value.started_at is not None
