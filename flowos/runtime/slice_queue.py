"""A program's own slices, followed by one watch that stays open, for programs that submit many.

A wait that opens a watch of its own pays for a reading, for the watch, and until etcd has brought
that up to date, which takes up to 0.1 s. Here a wait costs no more than the event it waits for.
"""

import contextlib
import queue
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Self, TypeVar

from flowos.model import keys
from flowos.model.codec import decode
from flowos.model.errors import NeverPlaceable, NotInTime, SpecError, StoreUnreachable, UnknownName
from flowos.model.placement import Placement
from flowos.model.protocols import CellStore, Clock, Watch
from flowos.model.slice import End, Reason, Slice, SliceSpec, Waiting
from flowos.model.transaction import Change, Changes, Lost, Progress, WatchMessage
from flowos.protocol.release import uid_of
from flowos.runtime.looking import look

T = TypeVar("T")

FAMILIES: Final = ("slice", "placement", "reason")
POLL_SECONDS: Final = 0.5  # after this silence the watch is asked whether it still lives
YOUNG_SECONDS: Final = (0.001, 0.1)  # first and longest pause between looks beside a young watch
WHAT: Final = {"allocated": "placed", "running": "running", "done": "at its end"}


@dataclass(slots=True)
class _Heard:
    """What is known of one slice: the newest change of each of its records.

    They come by separate watches, so no two of them need be of one moment. Each answer follows
    from one record alone, which names the slice it is of.

    Attributes:
        uid: The slice's; 0 = not known yet.
        news: Whether anything has come since this was last looked at.
        stale: Whether something may have been missed.
    """

    uid: int = 0
    slice: Change | None = None
    placement: Change | None = None
    reason: Change | None = None
    news: bool = True
    stale: bool = False


class SliceQueue:
    """Submits slices and waits for them; blocking, for one thread.

    It remembers a slice from when it is submitted, or first waited for, until its end is known.

    Example:
        with connect() as cell, cell.queue() as queue:
            queue.submit([spec])
            placement = queue.wait(spec.id, "allocated")
    """

    def __init__(
        self,
        store: CellStore,
        clock: Clock,
        submit: Callable[[Sequence[SliceSpec]], int],
        tenants: Sequence[str],
    ) -> None:
        """Begin to follow the slices of some tenants.

        Args:
            store: The cell's.
            clock: For time-outs.
            submit: Puts slices into the queue and returns the revision, as `CellClient.submit`.
            tenants: Whose slices can be waited for.

        Raises:
            StoreUnreachable: No answer.
        """
        self._store = store
        self._clock = clock
        self._submit = submit
        self._tenants = frozenset(tenants)
        self._inbox: queue.SimpleQueue[WatchMessage] = queue.SimpleQueue()
        self._heard: dict[str, _Heard] = {}
        self._young = True  # the watch has not said yet that it is up to date
        self._watch = self._follow()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """End the watch; the slices go on."""
        self._watch.close()

    def submit(self, specs: Sequence[SliceSpec]) -> int:
        """Put slices into the queue, all of them or none; return the revision.

        Raises:
            SpecError: A slice is of a tenant that this queue does not follow.
            FlowosError: As `CellClient.submit` does.
        """
        for spec in specs:
            self._check(spec.tenant)
        revision = self._submit(specs)
        for spec in specs:
            # What was faster than the answer is in the inbox still.
            self._heard[spec.id] = _Heard(uid=revision)
        return revision

    def wait(
        self, identifier: str, until: str, *, timeout_seconds: float | None = None
    ) -> Placement | End:
        """Wait until a slice is `allocated`, `running`, or `done` (ended in any way).

        Args:
            identifier: "tenant/name", of one of the queue's tenants.
            until: allocated | running | done.
            timeout_seconds: None = for ever.

        Returns:
            Its placement, or its end: an end of any kind ends every wait.

        Raises:
            SpecError: It is of a tenant that this queue does not follow.
            UnknownName: There is no such slice.
            NotInTime: It did not happen in time; the slice goes on.
            NeverPlaceable: Its scheduler found that it can never be placed.
            StoreUnreachable: No answer.
        """
        self._check(identifier.partition("/")[0])
        deadline = None if timeout_seconds is None else self._clock.monotonic() + timeout_seconds
        heard = self._heard.setdefault(identifier, _Heard(stale=True))
        if not heard.uid:
            heard.stale = True
        pause = YOUNG_SECONDS[0]
        while True:
            self._drain(identifier)
            if heard.stale:
                self._look(identifier, heard)
            if heard.news:
                heard.news = False
                try:
                    found = _reached(heard, identifier, until)
                except UnknownName:
                    del self._heard[identifier]
                    raise
                if isinstance(found, End):
                    del self._heard[identifier]
                if found is not None:
                    return found
            left = pause if self._young else POLL_SECONDS
            if deadline is not None:
                left = min(left, deadline - self._clock.monotonic())
                if left <= 0:
                    break
            try:
                self._take(self._inbox.get(timeout=left), identifier)
            except queue.Empty:
                self._watch.ask_progress()
                if self._young:  # what has happened since may still be on its way
                    with contextlib.suppress(StoreUnreachable):  # the watch waits for it too
                        self._look(identifier, heard)
                    pause = min(2 * pause, YOUNG_SECONDS[1])
        waiting = _waiting(heard)
        said = f": {waiting.sentence}" if waiting and _placed(heard) is None else ""
        raise NotInTime(
            f"slice {identifier} is not {WHAT[until]} after {timeout_seconds:g} s{said}"
        )

    def _check(self, tenant: str) -> None:
        if tenant not in self._tenants:
            named = ", ".join(sorted(self._tenants))
            raise SpecError(
                f"this queue follows slices of {named}, not of {tenant}",
                hint="name all tenants when the queue is opened",
            )

    # -- what is heard

    def _follow(self) -> Watch:
        # What was before is looked at when it is asked for.
        after = look(self._store, [keys.INFO]).revision
        self._young = True
        prefixes = [f"{family}/{tenant}/" for family in FAMILIES for tenant in self._tenants]
        watch = self._store.watch(prefixes, after=after, deliver=self._inbox.put)
        watch.ask_progress()
        return watch

    def _drain(self, waited_for: str) -> None:
        while not self._inbox.empty():
            self._take(self._inbox.get(), waited_for)

    def _take(self, message: WatchMessage, waited_for: str) -> None:
        match message:
            case Changes(changes):
                for change in changes:
                    self._note(change, waited_for)
            case Progress():
                self._young = False
            case Lost():
                for heard in self._heard.values():
                    heard.stale = True
                self._watch.close()
                self._watch = self._follow()

    def _note(self, change: Change, waited_for: str) -> None:
        family, _, identifier = change.key.partition("/")
        heard = self._heard.get(identifier)
        if heard is None or change.modified < heard.uid:
            return
        known: Change | None = getattr(heard, family)
        if known is not None and change.modified <= known.modified:
            return
        setattr(heard, family, change)
        heard.news = True
        if family == "slice" and identifier != waited_for and _is_over(heard):
            del self._heard[identifier]

    def _look(self, identifier: str, heard: _Heard) -> None:
        """Look at one slice without the watch: all its records, as of one moment."""
        told = look(self._store, [f"{family}/{identifier}" for family in FAMILIES])
        for key, record in told.records.items():
            family = key.partition("/")[0]
            now = Change(*record) if record else Change(key, None, 0, told.revision)
            known: Change | None = getattr(heard, family)
            if known is None or known.modified < now.modified:
                setattr(heard, family, now)
                heard.news = True
        if not heard.uid and heard.slice is not None:
            heard.uid = heard.slice.created
        heard.stale = False


def _is_over(heard: _Heard) -> bool:
    """Whether the slice has ended, or its record is gone."""
    change = heard.slice
    if change is None or change.modified == change.created == heard.uid:
        return False  # as it was submitted
    request = _decoded(Slice, change)
    return request is None or change.created != heard.uid or request.end is not None


def _reached(heard: _Heard, identifier: str, until: str) -> Placement | End | None:
    if _is_over(heard):
        request = _decoded(Slice, heard.slice)
        mine = heard.slice is not None and heard.slice.created == heard.uid
        if request is None or request.end is None or not mine:
            raise UnknownName(f"there is no slice {identifier}: 'flowos ls --all' lists all")
        return request.end
    placed = _placed(heard)
    if placed is None:
        waiting = _waiting(heard)
        if waiting is not None and waiting.reason is Reason.INFEASIBLE:
            raise NeverPlaceable(f"slice {identifier} can never be placed: {waiting.sentence}")
        return None
    if until == "done" or placed.ending is not None:
        return None
    return placed if until == "allocated" or placed.started_at is not None else None


def _placed(heard: _Heard) -> Placement | None:
    """Return what the slice holds; what an earlier slice of its name has left is not its own."""
    placed = _decoded(Placement, heard.placement)
    if placed is None or heard.placement is None:
        return None
    return placed if uid_of(heard.placement.created, placed) == heard.uid else None


def _waiting(heard: _Heard) -> Waiting | None:
    """Return why the slice waits; an earlier slice of its name may have left its reason too."""
    told = heard.reason
    return _decoded(Waiting, told) if told is not None and told.modified > heard.uid else None


def _decoded(kind: type[T], change: Change | None) -> T | None:
    return None if change is None or change.value is None else decode(kind, change.value)
