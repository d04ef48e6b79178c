"""A scheduler inside a client: plan on an own mirror, and commit slice and placement in one step.

In Omega any framework is a scheduler. One that embeds this is trusted with the cell: it opens a
session, takes grants, and follows the same rules as any scheduler process.
"""

import queue
import threading
from collections.abc import Callable, Sequence
from typing import Final, Self

from flowos.model.errors import (
    DuplicateName,
    FlowosError,
    NotInTime,
    OutcomeUnknown,
    SessionLost,
    StillContended,
    StoreUnreachable,
    TransactionTooLarge,
)
from flowos.model.placement import Placement, Unplaceable
from flowos.model.protocols import CellStore, Clock, Watch
from flowos.model.slice import Reason, Slice, SliceSpec
from flowos.model.transaction import Changes, Committed, Conflicted, Lost, Progress, WatchMessage
from flowos.model.view import CellView
from flowos.planning.pool import Pool
from flowos.protocol.commit import commit
from flowos.protocol.proposal import Proposal, writes
from flowos.runtime.machine import Answer, after_fence, settle_view
from flowos.runtime.purses import Purses
from flowos.runtime.scheduling import (
    GROUP_MAX,
    SCHEDULER_FOLLOWS,
    Figures,
    Policy,
    refused,
)
from flowos.runtime.session import ProcessSession

ROUNDS_MAX: Final = 50  # lost races before it gives up: each is one round trip
SYNC_SECONDS: Final = 10.0  # how long a progress answer may take
FENCE_SECONDS: Final = 0.1  # between two tries to reach a store that gave no answer


class EmbeddedScheduler:
    """Places slices from within a program; blocking, for one thread.

    Example:
        with connect() as cell, cell.scheduler() as scheduler:
            placement, = scheduler.place([spec])
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
        self._watch: Watch | None = None
        self._newest = 0
        self._list()
        if follow:
            self._follow()

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

    def place(self, specs: Sequence[SliceSpec]) -> list[Placement | Unplaceable]:
        """Submit slices and place them at once; what cannot be placed is not submitted.

        Args:
            specs: Planned in order, each on what the ones before it left; their names are new.

        Returns:
            For each its committed placement, or why it cannot be placed now.

        Raises:
            DuplicateName: A name is taken; slices before it in the list are placed.
            StillContended: Rivals kept winning; slices that were placed stay placed.
            SessionLost: The lease is over: open a new scheduler.
            StoreUnreachable: No answer; every lost answer was decided before this was raised.
        """
        results: list[Placement | Unplaceable | None] = [None] * len(specs)
        left = list(range(len(specs)))
        fruitless = 0
        while left:
            self._drain()
            before = len(left)
            left = self._place_some(specs, left, results)
            fruitless = 0 if len(left) < before else fruitless + 1
            if fruitless == ROUNDS_MAX:
                raise StillContended(
                    f"{len(left)} of {len(specs)} slices lost {ROUNDS_MAX} races: try again later"
                )
        return [result for result in results if result is not None]

    def _place_some(
        self,
        specs: Sequence[SliceSpec],
        left: list[int],
        results: list[Placement | Unplaceable | None],
    ) -> list[int]:
        """Plan and commit one group; return the slices that are still to be tried."""
        group: list[tuple[int, Proposal]] = []
        written: set[str] = set()
        rest: list[int] = []
        for at, index in enumerate(left):
            if len(group) == GROUP_MAX:
                rest += left[at:]
                break
            try:
                outcome = self._plan(specs[index])
            except FlowosError:
                if not group:
                    raise
                rest += left[at:]  # those before it are placed first; then it is raised
                break
            if isinstance(outcome, Proposal):
                mine = writes([outcome])
                proposals = [p for _, p in group]
                if group and (mine & written or not self._fits([*proposals, outcome])):
                    rest += left[at:]
                    break
                if outcome.placement is not None:
                    self.view.assume(outcome.identifier, outcome.placement)
                group.append((index, outcome))
                written |= mine
            elif self._purses.asking:
                rest += left[at:]
                break
            else:
                results[index] = outcome
        if not group:
            self._raise_grants()
            return rest
        try:
            lost = self._commit([proposal for _, proposal in group])
        except TransactionTooLarge as error:
            if len(group) > 1:  # the store has just said how much it takes
                return sorted([*rest, *(index for index, _ in group)])
            results[group[0][0]] = Unplaceable(Reason.INFEASIBLE, str(error))
            return rest
        for index, proposal in group:
            if proposal.identifier in lost:
                rest.append(index)
            else:
                results[index] = proposal.placement
        if self._purses.asking:
            self._raise_grants()
        return sorted(rest)

    def _plan(self, spec: SliceSpec) -> Proposal | Unplaceable:
        if spec.id in self.view.slices or self.view.now(spec.id) is not None:
            raise DuplicateName(f"slice {spec.id} exists: choose another name")
        before = self._clock.monotonic()
        decision = self._policy.plan(self.pool, spec, seed=0, avoid=frozenset())
        now = self._clock.monotonic()
        self.figures.plans += 1
        self.figures.decisions_ms.append(1000 * (now - before))
        if isinstance(decision, Unplaceable):
            return decision
        short = refused(decision) or self._purses.afford(decision, now)
        if short is not None:
            return short
        record = Slice(spec=spec, submitted_at=self._clock.wall())
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

    def _raise_grants(self) -> None:
        steps = self._purses.raises()
        if steps:
            self._commit(steps)
            self._catch_up(self._newest)

    def _commit(self, proposals: list[Proposal]) -> set[str]:
        """Commit a group, settle the view, and return what lost."""
        before = self._clock.monotonic()
        answers: list[Answer]
        try:
            answers = list(self._store.commit([p.transaction for p in proposals]))
        except OutcomeUnknown:
            self._catch_up(self._fence())
            answers = after_fence(self.view, proposals)
        except BaseException:
            for proposal in proposals:
                self.view.retract(proposal.identifier)
            raise
        self.figures.commits_ms.append(1000 * (self._clock.monotonic() - before))
        settle_view(self.view, proposals, answers)
        lost: set[str] = set()
        for proposal, answer in zip(proposals, answers, strict=True):
            if isinstance(answer, Committed):
                self._newest = max(self._newest, answer.revision)
                self.figures.commits += 1
                self.figures.placed += proposal.step == "commit"
            else:
                lost.add(proposal.identifier)
                self.figures.conflicts += 1
                if isinstance(answer, Conflicted):
                    if answer.keys.get(self.session.key, answer) is None:
                        raise SessionLost(
                            f"session {self.session.id} is over: open a new scheduler"
                        )
                    self._catch_up(answer.revision)
        return lost

    def _fence(self) -> int:
        """Put the session again until it is certain that nothing sent before can still happen."""
        while True:
            try:
                return self.session.refence()
            except StoreUnreachable:
                threading.Event().wait(FENCE_SECONDS)

    # -- staying in step

    def _list(self) -> None:
        reading = self._store.read(SCHEDULER_FOLLOWS)
        self.view.clear()
        self.view.load(reading.records)
        self.view.progressed(reading.revision)
        self._newest = reading.revision

    def _follow(self) -> None:
        self._watch = self._store.watch(
            SCHEDULER_FOLLOWS, after=self.view.revision, deliver=self._inbox.put
        )

    def _drain(self) -> None:
        while not self._inbox.empty():
            self._take(self._inbox.get())

    def _take(self, message: WatchMessage) -> None:
        match message:
            case Changes(changes):
                for change in changes:
                    self.view.apply(change)
            case Progress(revision):
                self.view.progressed(revision)
            case Lost():
                self._list()
                self._follow()

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
