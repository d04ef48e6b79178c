"""A scheduler inside a client: plan on an own mirror, and commit slice and placement in one step.

In Omega any framework is a scheduler. One that embeds this is trusted with the cell: it opens a
session, takes grants, and follows the same rules as any scheduler process: it plans around marks
and windows, too. What it has placed it also gives back by itself, without asking a controller to.
It takes nothing over from others, and puts no mark: what it cannot place does not wait.
"""

import contextlib
import gc
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Self

from flowos.model import keys
from flowos.model.assignment import assigned
from flowos.model.codec import decode
from flowos.model.errors import (
    DuplicateName,
    FlowosError,
    NotInTime,
    OutcomeUnknown,
    SessionLost,
    SpecError,
    StillContended,
    StoreError,
    TransactionTooLarge,
)
from flowos.model.placement import Decision, Ending, Placement, Unplaceable
from flowos.model.protocols import CellStore, Clock, Watch
from flowos.model.slice import Reason, Slice, SliceSpec
from flowos.model.transaction import (
    Change,
    Changes,
    Committed,
    Conflicted,
    Lost,
    Progress,
    Versioned,
    WatchMessage,
)
from flowos.model.view import CellView, Entry
from flowos.planning.engines.pool import Pool
from flowos.planning.policy import Policy, settings_of
from flowos.planning.reserved import planned
from flowos.protocol.commit import commit
from flowos.protocol.proposal import Proposal, writes
from flowos.protocol.release import CANCELLED, GIVEN_BACK, release
from flowos.runtime.deciding import behind, paid
from flowos.runtime.figures import Figures
from flowos.runtime.guarded import Guarded, refused
from flowos.runtime.looking import NEVER, Look, look
from flowos.runtime.machine import Answer, after_fence, settle_view
from flowos.runtime.marks import NOBODY, Around, Marks
from flowos.runtime.purses import ASKING, Purses
from flowos.runtime.ranks import Ranks
from flowos.runtime.session import ProcessSession
from flowos.runtime.underway import GROUP_MAX
from flowos.runtime.waiting import Pending, Queue

ROUNDS_MAX: Final = 50  # lost races before it gives up: each is one round trip
SYNC_SECONDS: Final = 10.0  # how long a progress answer may take
FENCE_SECONDS: Final = 0.1  # between two tries to reach a store that gave no answer
# What planners need. Not the slices: of its own it knows what it wrote, and of others' a conflict
# tells. Each family that is followed costs a message for each commit, its own included; marks are
# few, and the slices that they are for are read one by one.
FOLLOWS: Final = (*keys.INVENTORY, "rule/", "placement/", "grant/", "observed/", "mark/")


@dataclass(slots=True)
class _Work:
    """What one call is to do, and what came of it so far.

    Attributes:
        left: Which specs are still to be tried, by index.
        giving: The slices that are still to be given back -> how they end.
        gave: The others -> whether they held anything.
        asked: What is written of the slices under way.
    """

    specs: Sequence[SliceSpec]
    left: list[int]
    results: list[Placement | Unplaceable | None]
    giving: dict[str, Ending]
    gave: dict[str, bool] = field(default_factory=dict)
    asked: dict[str, Slice] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """How much is still to be done."""
        return len(self.left) + len(self.giving)


class EmbeddedScheduler:
    """Places slices from within a program, and gives them back; blocking, for one thread.

    Example:
        with connect() as cell, cell.scheduler() as scheduler:
            placement, = scheduler.place([spec])
            ...
            scheduler.release([spec.id])
    """

    def __init__(
        self,
        store: CellStore,
        clock: Clock,
        policy: Policy,
        *,
        name: str,
        fits: Callable[[Sequence[Proposal]], bool],
        new_attempt: Callable[[], str],
        follow: bool = True,
        freeze: bool = False,
    ) -> None:
        """Open a session and get in step with the cell.

        Args:
            store: The cell's.
            clock: For the session and figures.
            policy: Plans.
            name: For people.
            fits: Whether the store takes these steps in one request.
            new_attempt: Returns an id that no commit has had.
            follow: False = nobody else writes to this cell, so nothing needs to be watched.
            freeze: Tell Python's garbage collector to look at nothing again that the program has
                by now (`gc.freeze`). A full collection goes through the whole mirror, some 0.2 s
                for 100,000 engines, in the middle of a call. It is the program's to decide, since
                it holds for all that the program has.

        Raises:
            StoreUnreachable: No answer.
        """
        self._store = store
        self._clock = clock
        self._policy = policy
        self._fits = fits
        self._new_attempt = new_attempt
        self._inbox: queue.SimpleQueue[WatchMessage] = queue.SimpleQueue()
        self.session = ProcessSession(store, clock, "client", name, policy=policy.name)
        self.view = CellView()
        self.pool = Pool(self.view)
        self.figures = Figures()
        self._purses = Purses(self.view, self.session.id, lambda: self.session.fence)
        waits_none = Queue()
        self._marks = Marks(
            self.view,
            waits_none,
            Ranks(
                self.view,
                Guarded(policy, self.view, clock.monotonic),
                waits_none,
                wall=clock.wall,
                stopwatch=clock.monotonic,
            ),
            fence=lambda: self.session.fence,
            lease=None,
            find=lambda *_: None,
            wall=clock.wall,
            stopwatch=clock.monotonic,
            wake=lambda: None,
        )
        self._marked: dict[str, int] = {}  # whose slice is as of which revision of its mark
        self._watch: Watch | None = None
        self._newest = 0
        self._list()
        if follow:
            self._follow()
        if freeze:
            gc.collect()
            gc.freeze()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """End the session; what was placed stays."""
        if self._watch is not None:
            self._watch.close()
        self.session.close()

    def place(
        self, specs: Sequence[SliceSpec], *, release: Sequence[str] = ()
    ) -> list[Placement | Unplaceable]:
        """Submit slices and place them at once; what cannot be placed is not submitted.

        Args:
            specs: Planned in order, each on what the ones before it left; their names are new.
            release: Slices to give back by the same request, as `release` does. What they hold
                is free only when it is clean: it cannot be what the new slices get.

        Returns:
            For each its committed placement, or why it cannot be placed now.

        Raises:
            SpecError: One waits for another slice, which is for the queue.
            DuplicateName: A name is taken; slices before it in the list are placed, some of those
                behind it may be.
            StillContended: Rivals kept winning; slices that were placed stay placed.
            SessionLost: The lease is over: open a new scheduler.
            StoreUnreachable: No answer; every lost answer was decided before this was raised.
        """
        for spec in specs:
            if spec.depends_on or (spec.array and spec.array.parallel):
                problem = "what is placed at once waits for nobody"
                raise SpecError(problem, where=spec.name, hint="submit it to the queue")
        work = _Work(
            specs, list(range(len(specs))), [None] * len(specs), dict.fromkeys(release, GIVEN_BACK)
        )
        self._finish(work)
        return [result for result in work.results if result is not None]

    def release(self, identifiers: Sequence[str], *, ending: Ending = GIVEN_BACK) -> list[bool]:
        """Give slices back: what they hold is free as soon as it is clean.

        Each is ordered down in one step, at once and without a controller; its agents then tear
        it down, and the controller frees what is clean. Who was cancelled by its user meanwhile
        ends as cancelled, whatever `ending` says.

        Args:
            identifiers: "tenant/name" of slices with a placement, of whichever scheduler.
            ending: How they end: done, unless it says otherwise. PENDING puts them into the
                queue of their policy again.

        Returns:
            For each True where it is being given back now, or was already; False where it holds
            nothing.

        Raises:
            StillContended: Rivals kept changing them; the others are being given back.
            SessionLost: The lease is over: open a new scheduler.
            StoreUnreachable: No answer; every lost answer was decided before this was raised.
        """
        work = _Work((), [], [], dict.fromkeys(identifiers, ending))
        self._finish(work)
        return [work.gave[identifier] for identifier in identifiers]

    def _finish(self, work: _Work) -> None:
        fruitless = 0
        while work.size:
            self._drain()
            before = work.size
            self._do_some(work)
            fruitless = 0 if work.size < before else fruitless + 1
            if fruitless == ROUNDS_MAX:
                raise StillContended(
                    f"{work.size} of {len(work.specs) + len(work.gave) + len(work.giving)} slices "
                    f"lost {ROUNDS_MAX} races: try again later"
                )
        self._give_back_grants()

    def _do_some(self, work: _Work) -> None:
        """Plan and commit one group."""
        work.asked.clear()
        if self.view.policies is not None:
            self._policy.settings = settings_of(self._policy, self.view.policies)
        if work.left:
            self._read_marked()
        group = self._releases(work)
        written = writes(group)
        planned: list[int] = []
        rest: list[int] = []
        for at, index in enumerate(work.left):
            if len(group) >= GROUP_MAX:
                rest += work.left[at:]
                break
            try:
                outcome = self._plan(work.specs[index], work)
            except FlowosError:
                if not group:
                    raise
                rest += work.left[at:]  # those before it are placed first; then it is raised
                break
            if isinstance(outcome, Proposal):
                mine = writes([outcome])
                if group and (mine & written or not self._fits([*group, outcome])):
                    rest += work.left[at:]
                    break
                if outcome.placement is not None:
                    self.view.assume(outcome.identifier, outcome.placement)
                group.append(outcome)
                planned.append(index)
                written |= mine
            elif outcome is ASKING:
                rest += work.left[at:]
                break
            else:
                work.results[index] = outcome
        work.left = rest
        if group:
            self._commit_group(work, group, planned)
        if self._purses.asking:
            self._raise_grants()

    def _commit_group(self, work: _Work, group: list[Proposal], planned: list[int]) -> None:
        try:
            lost = self._commit(group, work)
        except TransactionTooLarge as error:
            if len(group) > 1:  # the store has just said how much it takes
                work.left = sorted([*work.left, *planned])
            elif planned:
                work.results[planned[0]] = Unplaceable(Reason.INFEASIBLE, str(error))
            else:
                raise
            return
        placements = group[len(group) - len(planned) :]
        again: list[int] = []
        for index, proposal in zip(planned, placements, strict=True):
            if proposal.identifier in lost:
                again.append(index)
            else:
                work.results[index] = proposal.placement
        if again:
            work.left = sorted([*work.left, *again])

    def _plan(self, spec: SliceSpec, work: _Work) -> Proposal | Unplaceable:
        if spec.id in self.view.slices or self.view.now(spec.id) is not None:
            raise _taken(spec.id)
        before = self._clock.monotonic()
        around = self._around(spec, before)
        decision = self._planned(spec, around.units)
        if isinstance(decision, Unplaceable) and around.units:
            alone = self._planned(spec, frozenset())
            decision = behind(around) if isinstance(alone, Decision) else decision
        now = self._clock.monotonic()
        self.figures.plans += 1
        self.figures.decisions_ms.append(1000 * (now - before))
        if isinstance(decision, Unplaceable):
            return decision
        short = refused(decision) or paid(
            self._purses, self._purses.needs(spec.id, decision), around, now
        )
        if short is not None:
            return short
        spec = assigned(spec, self.view.policies)  # who serves it if it is queued again
        record = work.asked[spec.id] = Slice(spec=spec, submitted_at=self._clock.wall())
        proposal = commit(
            self.view,
            spec.id,
            decision,
            fence=self.session.fence,
            attempt=self._new_attempt(),
            scheduler=self.session.id,
            spec=(spec.id, record),
        )
        if proposal is None:
            raise StillContended(f"slice {spec.id}: the plan does not fit the view it was made on")
        return proposal

    def _planned(self, spec: SliceSpec, avoid: frozenset[str]) -> Decision | Unplaceable:
        return planned(
            self.view,
            spec,
            self._clock.wall(),
            avoid,
            lambda units: self._policy.plan(self.pool, spec, seed=0, avoid=units),
        )

    # -- what is left to others

    def _around(self, spec: SliceSpec, now: float) -> Around:
        """Return what a new slice leaves to those that wait: it is younger than all of them."""
        if not self.view.marks:
            return NOBODY
        entry = Entry(Slice(spec=spec, submitted_at=self._clock.wall()), NEVER, NEVER)
        return self._marks.around(spec.id, entry, Pending((), now), now)

    def _read_marked(self) -> None:
        """Read the slices that marks are for, once for each time that one is put."""
        marks = self.view.marks
        new = [name for name, mark in marks.items() if self._marked.get(name) != mark.modified]
        if not new:
            return
        found = look(self._store, map(keys.slice_, new))
        for name in new:
            self._marked[name] = marks[name].modified
            record = found.records[keys.slice_(name)]
            if record is None:
                self.view.slices.pop(name, None)
                continue
            with contextlib.suppress(SpecError):  # nobody knows what it asks for: as if unmarked
                self._keep(record)

    # -- giving back

    def _releases(self, work: _Work) -> list[Proposal]:
        """Return the next steps that give something back; note what needs none."""
        found: list[Proposal] = []
        if not work.giving:
            return found
        for name in list(work.giving):
            entry = self.view.placements.get(name)
            if entry is None or entry.value.ending is not None or name.startswith("~"):
                work.gave[name] = entry is not None and not name.startswith("~")
                del work.giving[name]
        for name in list(work.giving)[:GROUP_MAX]:
            # Another's slice is not known here: then a conflict tells of it.
            known = self.view.slices.get(name)
            ending = CANCELLED if known and known.value.cancelled else work.giving[name]
            step = release(self.view, name, ending, fence=self.session.fence)
            assert step is not None, "what ends already was left out"
            if found and not self._fits([*found, step]):
                break
            found.append(step)
        return found

    def _keep(self, record: Versioned) -> None:
        name = record.key.partition("/")[2]
        entry = Entry(decode(Slice, record.value), record.created, record.modified)
        self.view.slices[name] = entry

    def _released(self, proposal: Proposal, answer: Answer, work: _Work) -> int:
        """Take in what became of a release; return up to where the view must be to try again."""
        name = proposal.identifier
        if isinstance(answer, Committed):
            assert proposal.placement is not None
            self._placed(name, proposal.placement, answer.revision)
            work.gave[name] = True
            del work.giving[name]
        elif isinstance(answer, Conflicted):
            return self._freshen(name, answer, work)
        return 0

    def _freshen(self, name: str, answer: Conflicted, work: _Work) -> int:
        """Take over what a conflict tells of a slice: reading again would add a round trip."""
        key = keys.placement(name)
        if key not in answer.keys:
            return answer.revision
        placed, request = answer.keys[key], answer.keys.get(keys.slice_(name))
        if placed is None:
            work.gave[name] = True  # somebody else's release has come to its end
            del work.giving[name]
            return 0
        try:
            if request is None:
                self.view.slices.pop(name, None)
            else:
                self._keep(request)
            self._placed(name, decode(Placement, placed.value), placed.modified)
        except SpecError:
            return answer.revision
        return 0

    def _placed(self, name: str, placement: Placement, revision: int) -> None:
        """Know a placement before the watch tells; of others nothing is known by this."""
        known = self.view.placements.get(name)
        if known is not None and known.modified < revision:
            self.view.assume(name, placement)
            self.view.settle(name, revision)

    # -- committing

    def _raise_grants(self) -> None:
        steps = self._purses.steps(self._clock.monotonic())
        if steps:
            self._commit(steps, _Work((), [], [], {}))
        self._catch_up(max(self._newest, self._purses.known_until))

    def _give_back_grants(self) -> None:
        """Keep no grant from others between two calls: nobody knows when the next one comes."""
        steps = self._purses.give_all_back() if self._watch is not None else []
        if steps:
            # The call has done what it was asked for; the rest can go back with the next one.
            with contextlib.suppress(FlowosError):
                self._commit(steps, _Work((), [], [], {}))
                self._catch_up(self._newest)

    def _commit(self, proposals: list[Proposal], work: _Work) -> set[str]:
        """Commit a group, settle the view, and return what lost."""
        before = self._clock.monotonic()
        answers: list[Answer]
        try:
            answers = list(self._store.commit([p.transaction for p in proposals]))
        except OutcomeUnknown:
            answers = self._decided(proposals, work)
        except BaseException:
            self._retract(proposals)
            raise
        self.figures.commits_ms.append(1000 * (self._clock.monotonic() - before))
        settle_view(self.view, proposals, answers)
        lost: set[str] = set()
        behind, taken = 0, ""
        for proposal, answer in zip(proposals, answers, strict=True):
            self._purses.answered(proposal, answer)
            name = proposal.identifier
            if isinstance(answer, Committed):
                self._newest = max(self._newest, answer.revision)
                self.figures.commits += 1
                if proposal.step == "commit":
                    self.figures.placed += 1
                    if name in self.view.placements:
                        record = work.asked[name]
                        self.view.slices[name] = Entry(record, answer.revision, answer.revision)
            else:
                lost.add(name)
                self.figures.conflicts += 1
                if isinstance(answer, Conflicted):
                    if answer.keys.get(self.session.key, answer) is None:
                        raise SessionLost(
                            f"session {self.session.id} is over: open a new scheduler"
                        )
                    if proposal.step != "release":
                        behind = max(behind, answer.revision)
                    if proposal.step == "commit" and answer.keys.get(keys.slice_(name)):
                        taken = taken or name
            if proposal.step == "release":
                behind = max(behind, self._released(proposal, answer, work))
        if taken:
            raise _taken(taken)
        if behind:
            self._catch_up(behind)
        return lost

    def _retract(self, proposals: Sequence[Proposal]) -> None:
        for proposal in proposals:
            self.view.retract(proposal.identifier)
            self._purses.answered(proposal, None)

    def _decided(self, proposals: Sequence[Proposal], work: _Work) -> list[Answer]:
        """Fence what got no answer, and find out what became of it, however long that takes."""
        try:
            revision = self._fence()
        except SessionLost:
            self._retract(proposals)
            raise
        while self.view.revision < revision:
            try:
                self._catch_up(revision)
            except (NotInTime, StoreError):
                threading.Event().wait(FENCE_SECONDS)
                with contextlib.suppress(StoreError):
                    self._start_over()
        answers = after_fence(self.view, proposals)
        unseen = [
            (at, keys.slice_(proposal.identifier))
            for at, (proposal, answer) in enumerate(zip(proposals, answers, strict=True))
            if proposal.step == "commit" and not isinstance(answer, Committed)
        ]
        if not unseen:
            return answers
        # What was placed may have ended by now and left nothing but the slice's own record.
        found: Look | None = None
        while found is None:
            try:
                found = look(self._store, [key for _, key in unseen])
            except StoreError:
                threading.Event().wait(FENCE_SECONDS)
        for at, key in unseen:
            name, record = proposals[at].identifier, found.records[key]
            if record is not None and _is_same(record, work.asked[name]):
                self.view.retract(name)
                answers[at] = Committed(record.created)
        return answers

    def _fence(self) -> int:
        """Put the session again until it is certain that nothing sent before can still happen."""
        while True:
            try:
                return self.session.refence()
            except StoreError:  # whatever it says: without a fence nothing is certain
                threading.Event().wait(FENCE_SECONDS)

    # -- staying in step

    def _list(self) -> None:
        reading = self._store.read(FOLLOWS)
        self._marked.clear()
        self.view.clear()
        self.view.load(reading.records)
        self.view.progressed(reading.revision)
        self._newest = reading.revision

    def _start_over(self) -> None:
        """List again, and follow from there."""
        if self._watch is not None:
            self._watch.close()
        self._inbox = queue.SimpleQueue()
        self._list()
        if self._watch is not None:
            self._follow()

    def _follow(self) -> None:
        self._watch = self._store.watch(FOLLOWS, after=self.view.revision, deliver=self._inbox.put)

    def _drain(self) -> None:
        while not self._inbox.empty():
            self._take(self._inbox.get())

    def _take(self, message: WatchMessage) -> None:
        match message:
            case Changes(changes):
                for change in changes:
                    if change.key.startswith("placement/"):
                        self._take_placement(change)
                    elif change.key.startswith("mark/"):
                        self._take_mark(change)
                    else:
                        self.view.apply(change)
            case Progress(revision):
                self.view.progressed(revision)
            case Lost():
                self._list()
                self._follow()

    def _take_placement(self, change: Change) -> None:
        """Take in what became of a placement; its own commits come back too, and are known."""
        view, name = self.view, change.key.partition("/")[2]
        known = view.placements.get(name)
        if known is not None and change.modified <= known.modified and not view.assumed(name):
            view.placed_at = max(view.placed_at, change.modified)
            return
        view.apply(change)
        if change.value is None:
            view.slices.pop(name, None)  # it has ended, or is in the queue again

    def _take_mark(self, change: Change) -> None:
        """Take in a mark; of others' slices only those are known that have one, or a placement."""
        self.view.apply(change)
        name = change.key.partition("/")[2]
        if change.value is None:
            known = self._marked.pop(name, None)
            if known is not None and self.view.now(name) is None:
                self.view.slices.pop(name, None)

    def _catch_up(self, revision: int) -> None:
        """Wait until the view is complete up to a revision."""
        if self._watch is None:
            self._list()
            return
        deadline = self._clock.monotonic() + SYNC_SECONDS
        self._watch.ask_progress()
        while self.view.revision < revision:
            left = deadline - self._clock.monotonic()
            if left <= 0:
                raise NotInTime(f"the store's watch gave no sign for {SYNC_SECONDS:g} s")
            try:
                self._take(self._inbox.get(timeout=min(left, 0.5)))
            except queue.Empty:
                self._watch.ask_progress()


def _is_same(record: Versioned, asked: Slice) -> bool:
    """Tell whether a slice's record is what became of the one that was asked for."""
    try:
        now = decode(Slice, record.value)
    except SpecError:
        return False
    return now.spec == asked.spec and now.submitted_at == asked.submitted_at


def _taken(identifier: str) -> DuplicateName:
    return DuplicateName(f"slice {identifier} exists: choose another name")
