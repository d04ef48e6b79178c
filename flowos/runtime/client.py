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

from flowos.model import keys
from flowos.model.codec import decode, encode
from flowos.model.errors import (
    FlowosError,
    NeverPlaceable,
    NotInTime,
    OutcomeUnknown,
    SpecError,
    StillContended,
    StoreRefused,
    StoreUnreachable,
    UnknownName,
)
from flowos.model.protocols import Clock, Watch
from flowos.model.slice import Reason, Slice, SliceSpec
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
from flowos.runtime.submission import PLAIN_MAX, Facts, named, taken, totals_in
from flowos.runtime.updating import Update, updated

TRIES_MAX: Final = 20  # a user's own record is rarely written by anyone else at the same moment
WISHES_A_REQUEST: Final = 100  # each a nested transaction; etcd's default limit is 128 operations
FEW: Final = 8  # slices that are followed by their keys; more by what their names begin with
SUBMITTED_MAX: Final = 10_000  # slices whose record is remembered, some 300 bytes each
SLICES: Final = ("slice/", "placement/", "reason/", "session/", "order/", "report/")


class CellClient:
    """A connection to one cell."""

    def __init__(self, store: Store, clock: Clock) -> None:
        """Use a store that is connected; `close` closes it."""
        self.store = store
        self._clock = clock
        self._facts = Facts(store)
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
        return totals_in(look(self.store, [keys.TOTALS]).records[keys.TOTALS])

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
        names = named(specs)
        now = self._clock.wall()
        for _ in range(TRIES_MAX):
            served, compares = self._facts.for_submission(specs)
            records = {keys.slice_(s.id): encode(Slice(spec=s, submitted_at=now)) for s in served}
            # A slice of the array's own name would be meant wherever the array is.
            arrays = {f"{s.tenant}/{s.array.array}" for s in specs if s.array}
            absent = [*records, *map(keys.slice_, sorted(arrays))]
            compares += [Seen(key, 0) for key in absent]
            puts = tuple(Put(key, value) for key, value in records.items())
            seen = self._none_of(absent) if len(absent) > PLAIN_MAX else 0
            try:
                (outcome,) = self.store.commit([Transaction(tuple(compares), puts, seen)])
            except StoreRefused as error:
                raise _too_much(error, puts) from None
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
            for key in absent:
                if outcome.keys.get(key) is not None:
                    raise taken(key.partition("/")[2])
            self._facts.refresh(outcome)
        raise StillContended("a tenant was changed at this moment: submit again")

    def check(self, specs: Sequence[SliceSpec]) -> None:
        """Refuse what `submit` would refuse now, and write nothing.

        Raises:
            SpecError, UnknownName, NeverPlaceable, DuplicateName: As `submit`.
        """
        names = named(specs)
        self._facts.for_submission(specs)
        self._none_of(list(map(keys.slice_, names)))

    def _none_of(self, absent: Sequence[str]) -> int:
        """Return a revision at which none of these slices was there."""
        told = look(self.store, absent)
        for key in absent:
            if told.records[key] is not None:
                raise taken(key.partition("/")[2])
        return told.revision

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
        return self._wish(identifier, _cancelled)

    def cancel_all(self, identifiers: Sequence[str]) -> list[str]:
        """Ask for the end of many slices; return those that have ended already."""
        return self._wishes(identifiers, _cancelled)

    def hold(self, identifier: str) -> bool:
        """Keep a pending slice from being placed; False where it has ended."""
        return not self.hold_all([identifier])

    def unhold(self, identifier: str) -> bool:
        """Let a held slice be placed again; False where it has ended."""
        return not self.unhold_all([identifier])

    def hold_all(self, identifiers: Sequence[str]) -> list[str]:
        """Keep many slices from being placed; return those that have ended."""
        return self._wishes(identifiers, lambda s: None if s.end else replace(s, held=True))

    def unhold_all(self, identifiers: Sequence[str]) -> list[str]:
        """Let many held slices be placed again; return those that have ended."""
        return self._wishes(identifiers, lambda s: None if s.end else replace(s, held=False))

    def update(self, identifiers: Sequence[str], update: Update) -> list[str]:
        """Change what slices ask for, in whatever phase they are; return those that have ended.

        Nothing is written where one of the requests would be refused, which is checked as when it
        is submitted; a slice that is changed by somebody else at this moment keeps that change.

        Raises:
            SpecError: It cannot be meant.
            NeverPlaceable: No state of this cell could hold it.
            UnknownName: There is no such slice.
        """

        def change(record: Slice) -> Slice | None:
            if record.end:
                return None
            return replace(record, spec=updated(record.spec, update))

        records = look(self.store, map(keys.slice_, identifiers)).records
        after = [change(self._there(key, record)) for key, record in records.items()]
        specs = [record.spec for record in after if record is not None]
        self._facts.still_fit(specs)
        return self._wishes(identifiers, change)

    def _wishes(
        self, identifiers: Sequence[str], change: Callable[[Slice], Slice | None]
    ) -> list[str]:
        """Change many records, in few requests; return those that have ended."""
        if len(identifiers) == 1:
            return [i for i in identifiers if not self._wish(i, change)]
        ended: list[str] = []
        names = {keys.slice_(identifier): identifier for identifier in identifiers}
        wanted = list(names)
        for start in range(0, len(wanted), WISHES_A_REQUEST):
            records = look(self.store, wanted[start : start + WISHES_A_REQUEST]).records
            changes: dict[str, Transaction] = {}
            for key, record in records.items():
                before = self._there(key, record)
                after = change(before)
                if after is None:
                    ended.append(names[key])
                elif after != before and record is not None:
                    seen = Seen(key, record.modified)
                    changes[key] = Transaction((seen,), (Put(key, encode(after)),))
            outcomes = self.store.commit(list(changes.values())) if changes else []
            for key, outcome in zip(changes, outcomes, strict=True):
                self._submitted.pop(key, None)
                if isinstance(outcome, Conflicted) and not self._wish(names[key], change):
                    ended.append(names[key])
        return ended

    @staticmethod
    def _there(key: str, record: Versioned | None) -> Slice:
        if record is None:
            name = key.partition("/")[2]
            raise UnknownName(f"there is no slice {name}: 'flowos ls --all' lists all")
        return decode(Slice, record.value)

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
        return self.wait_all([identifier], until, timeout_seconds=timeout_seconds, changed=changed)

    def wait_all(
        self,
        identifiers: Sequence[str],
        until: str,
        *,
        timeout_seconds: float | None = None,
        changed: Callable[[CellView], None] = lambda _view: None,
    ) -> CellView:
        """Wait until each of several slices has come so far at some time; see `wait`."""
        deadline = None if timeout_seconds is None else self._clock.monotonic() + timeout_seconds
        left = deque(identifiers)
        for view in self.follow(_families_of(identifiers), deadline=deadline):
            changed(view)
            # They come so far in any order, but all of them have to.
            while left and _reached(view, left[0], until):
                left.popleft()
            if not left:
                return view
        identifier = left[0]
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


def _cancelled(record: Slice) -> Slice | None:
    return None if record.end else replace(record, cancelled=True)


def _families_of(identifiers: Sequence[str]) -> list[str]:
    """Return what is to be followed of slices: their own keys, or what all of them begin with."""
    starts = identifiers
    if len(identifiers) > FEW:
        first, last = min(identifiers), max(identifiers)
        same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
        starts = ["".join(one for one, _ in same)]
    return [of(start) for start in starts for of in (keys.slice_, keys.placement, keys.reason)]


def _too_much(error: StoreRefused, puts: Sequence[Put]) -> FlowosError:
    """Return the error about a submission that is too large for one request of the store."""
    if "request is too large" not in str(error) and "larger than max" not in str(error):
        return error
    kibibytes = sum(len(put.value) for put in puts) // 1024
    return SpecError(
        f"{len(puts)} slices of {kibibytes} KiB are more than the store takes at once",
        hint="submit fewer in one submission, in several files",
    )


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
