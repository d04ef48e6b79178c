"""The loop of a scheduler process: which pending slice is planned next, and how it is committed.

It reads the queue from the view, plans on the working copy, commits groups optimistically, and
after a conflict waits until the view has caught up before it plans again. It holds no lock and no
offer; two of these machines on one queue only ever cost each other a conflict.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import Final

from flowos.model import collector, keys
from flowos.model.errors import TransactionTooLarge
from flowos.model.placement import Decision, Unplaceable
from flowos.model.slice import Reason, Slice
from flowos.model.transaction import Committed, Conflicted
from flowos.model.view import Applied, CellView
from flowos.planning.engines.pool import Pool
from flowos.planning.policy import Order, Policy, settings_of
from flowos.planning.reserved import RESERVED
from flowos.protocol.commit import commit
from flowos.protocol.proposal import Fence, Proposal, writes
from flowos.runtime.deciding import OTHERS_FIRST, Deciding
from flowos.runtime.expected import Expected
from flowos.runtime.figures import Figures
from flowos.runtime.freed import Freed
from flowos.runtime.gates import Gates
from flowos.runtime.guarded import Guarded
from flowos.runtime.machine import Answer, Commit, Instruction, Refused, settle_view
from flowos.runtime.marks import LOSSES_MAX, MONEY, ROOM, Marks
from flowos.runtime.peers import Peers
from flowos.runtime.placed import Placed
from flowos.runtime.purses import ASKING, Purses
from flowos.runtime.ranks import Ranks
from flowos.runtime.rejections import Rejections
from flowos.runtime.resizing import Resizing
from flowos.runtime.told import Told
from flowos.runtime.underway import GROUP_ALONE_MAX, GROUP_MAX, Sent, Underway
from flowos.runtime.usage import Turns, Usage
from flowos.runtime.waiting import Pending, Queue

SCHEDULER_FOLLOWS: Final = (
    *keys.INVENTORY, "rule/", "slice/", "placement/", "session/", "grant/", "observed/", "reason/",
    "mark/",
)  # fmt: skip
PLAN_SECONDS: Final = 0.02  # the longest time at planning before events are looked at again
PASS_SECONDS: Final = 1.0  # the queue is gone through to its end this often at least
OVERLAP_SECONDS: Final = 1.0  # a slice that its owner left this long is anybody's
YIELD_SECONDS: Final = 0.05  # what its owner gets to try it before less important ones are planned
BACKOFF_SECONDS: Final = (0.002, 0.5)  # first and longest pause after a lost race
REJECTED_SHOWN: Final = 5  # units that are named in the figures
HEAT_MAX: Final = 10  # doublings of the first pause; more are cut off anyway
AFAR_SECONDS: Final = 0.02  # what the schedulers there get to try what fits on their nodes


class Scheduling:
    """One scheduler process's machine."""

    def __init__(
        self,
        view: CellView,
        policy: Policy,
        *,
        session: str,
        fence: Callable[[], Fence],
        seed: int,
        fits: Callable[[Sequence[Proposal]], bool],
        stopwatch: Callable[[], float],
        new_attempt: Callable[[], str],
        alone: bool = False,
        wall: Callable[[], float] | None = None,
        clock: Callable[[], float] | None = None,
        lease: Callable[[], int] | None = None,
        repairs: bool = True,
        homes: bool = True,
    ) -> None:
        """Start with an empty queue.

        Args:
            view: Fed by the shell.
            policy: Orders the queue and plans.
            session: This process's session id: the holder of its grants.
            fence: Returns the session's fence now.
            seed: Of this process's own choices among equals, and of its back-off.
            fits: Whether the store takes these steps in one request.
            stopwatch: Monotonic seconds, for figures and the planning budget.
            new_attempt: Returns an id that no commit has had.
            alone: Skip the division of the queue among processes.
            wall: Wall-clock seconds, for how long slices have waited; None = the stopwatch.
            clock: The monotonic seconds that `step` is told; None = the stopwatch.
            lease: Returns the session's lease, under which marks are put; None = it puts none.
            repairs: Look again at plans that took long before they are sent, and after a lost race
                replace only what broke; else all is planned anew (simulations compare the two).
            homes: Look at an own part of the nodes first (the same).
        """
        self.view = view
        self.policy = policy
        self.pool = Pool(view)
        self.figures = Figures()
        self._session = session
        self._fence = fence
        self._random = random.Random(seed)  # ties and pauses, no secrets
        # Those who help out come at different times, else they would only race each other.
        self._overlap_seconds = OVERLAP_SECONDS * self._random.uniform(1, 2)
        self._stopwatch = stopwatch
        self._clock = clock or stopwatch
        self._new_attempt = new_attempt
        self._repairs = repairs
        self._homes = homes
        self._queue = Queue()
        self._waiting = self._queue.slices
        self._freed = Freed(view)
        self._pass_freed = 0
        self._passed_at = 0.0
        self._underway = Underway(fits)
        self._told = Told(view, self._queue, fence, session.partition("@")[0])
        self._purses = Purses(view, session, fence, self._freed.note)
        self._gates = Gates(view)
        self._behind_until = 0
        self._known_until = 0  # the latest `known_at` of all
        self._yielded: dict[float, dict[str, float]] = {}  # priority -> slice -> until
        self._again: list[str] = []  # to be planned again at whatever happens next
        self._paused_until = -inf
        self._heat = 0  # of the races that were lost lately
        self._wake_at = inf
        self._peers = Peers(view, session, policy.name, alone=alone)
        self.guarded = Guarded(policy, view, stopwatch)
        wall = wall or stopwatch
        self._ranks = Ranks(
            view,
            self.guarded,
            self._queue,
            wall=wall,
            stopwatch=stopwatch,
            turns=Turns(Usage(view)) if policy.reorders else None,
        )
        self._rejections = Rejections(view)
        self._placed = Placed(view)
        self._expected = Expected(view)
        self._marks = Marks(
            view,
            self._queue,
            self._ranks,
            fence=fence,
            lease=lease,
            find=lambda *about: self._deciding.room_for(*about),
            wall=wall,
            stopwatch=stopwatch,
            wake=self._freed.note,
            at_once=lambda: policy.backfills and self._placed.any_ends,
        )
        self._deciding = Deciding(
            view,
            self.guarded,
            self.pool,
            purses=self._purses,
            marks=self._marks,
            rejections=self._rejections,
            placed=self._placed,
            peers=self._peers,
            expected=self._expected,
            freed=self._freed,
            figures=self.figures,
            chance=self._random,
            stopwatch=stopwatch,
            wall=wall,
        )
        self._resizing = Resizing(
            view,
            self.pool,
            serves=lambda slice_: slice_.spec.served_by == policy.name,
            session=session,
            fence=fence,
            peers=self._peers,
            may_spend=self._deciding.may_spend,
            freed=self._freed,
            seed=lambda: self._random.getrandbits(32) | 1 if self._peers.many else 0,
            wall=wall,
            avoid=self._deciding.not_to_grow_into,
        )

    # -- what happened

    def changed(self, change: Applied) -> None:
        """Keep the queue in step with slices, placements and sessions."""
        for woken in self._gates.changed(change):
            self._look_again(woken)
        if change.family in ("slice", "placement"):
            self._placed.changed(change.name)
            self._expected.changed(change.name)
            self._resizing.changed(change.name)
        if change.family == "slice":
            self._look_again(change.name)  # what it asks for, or waits for, may be another now
            self._enqueue(change.name)
        elif change.family == "placement" and change.name.startswith(RESERVED):
            self._freed.note()  # what is held for the slices that may use it is news for them
        elif change.family == "placement":
            if self._peers.many:
                self._note_rival(change.name)
            if change.name in self.view.placements and not self.view.assumed(change.name):
                self._queue.drop(change.name)
                return
            self._enqueue(change.name)
            pending = self._waiting.get(change.name)
            if pending and not self.view.now(change.name):
                # Its end may be in the same revision, and come by another watch a moment later.
                pending.known_at = self._known_until = self.view.placed_at
        elif change.family == "reason":
            self._purses.told(change.name)
        elif change.family == "session":
            if change.name.startswith("scheduler/"):
                self._meet()
        elif change.family in ("grant", "mark") or (
            change.family == "rule" and change.name.startswith("reservation/")
        ):
            self._freed.note()
        elif change.family == "rule" and f"rule/{change.name}" == keys.POLICIES:
            self._set_policy()
            self._freed.note()

    def relisted(self) -> None:
        """Build the queue anew."""
        self._queue.clear()
        self._gates.restart()
        self._placed.restart()
        self._expected.clear()
        self._resizing.restart()
        self._freed.note()
        self._set_policy()
        self._meet()
        now = self._clock()
        for name, entry in self.view.slices.items():
            if self._may_be_placed(name, entry.value):
                self._waiting[name] = Pending(self._ranks.order(entry, now, now), now)
        self._queue.restart()  # sorted once: put one by one, 20,000 take 0.3 s
        with collector.paused():
            self.pool.fold()  # now, and not when the first slice waits for it

    def _set_policy(self) -> None:
        """Give the policy what the cell's rules set for it."""
        self.policy.settings = settings_of(self.policy, self.view.policies)

    def _meet(self) -> None:
        """Divide the queue and the cell among those who are there now."""
        if self._peers.refresh():
            if self._homes:
                self.pool.divide(self._peers.part, self._peers.parts)
            self._freed.note()

    def _note_rival(self, name: str) -> None:
        placed, pending = self.view.placements.get(name), self._waiting.get(name)
        entry = self.view.slices.get(name)
        if placed and pending and entry:
            # What it does to help others out says nothing of how far it is with its own.
            session = placed.value.scheduler
            if session == self._owner(pending, entry.created, name) != self._session:
                self._peers.placed(session, pending.order, self._clock())

    def answered(self, commit: Commit, answers: Sequence[Answer], now: float) -> None:
        """Settle or retract; after a conflict plan again only on a view that shows it."""
        sent = self._underway.answered(commit.proposals)
        settle_view(self.view, commit.proposals, answers)
        took_ms = 1000 * (self._stopwatch() - sent.at) if sent else 0.0
        for proposal, answer in zip(commit.proposals, answers, strict=True):
            match proposal.step:
                case "commit":
                    self._commit_answered(proposal, answer, now, sent or Sent(now), len(answers))
                    self.figures.commits_ms.append(took_ms)
                case "reason":
                    pending = self._waiting.get(proposal.identifier)
                    if pending and not isinstance(answer, Committed):
                        # The slice or its placement has changed; then it is thought over again.
                        pending.tried_at = -1
                        pending.not_before = now + BACKOFF_SECONDS[1]
                        self._queue.again(proposal.identifier, pending.not_before)
                case "grow" | "shrink":
                    self._resizing.answered(proposal, answer, now)
                    self._wait_for(answer)
                case "mark" | "unmark":
                    self._marks.answered(proposal, answer, now)
                case _:
                    self._purses.answered(proposal, answer)
                    self._freed.note()
                    if isinstance(answer, Refused):
                        self._paused_until = now + BACKOFF_SECONDS[1]
                    elif not isinstance(answer, Committed):
                        self._wait_for(answer)

    def _commit_answered(
        self, proposal: Proposal, answer: Answer, now: float, sent: Sent, count: int
    ) -> None:
        name = proposal.identifier
        pending = self._waiting.get(name)
        if isinstance(answer, Committed):
            self.figures.commits += 1
            self._heat = max(0, self._heat - 1)
            self.figures.placed += 1
            plan = proposal.placement
            if plan is not None:
                self._rejections.won(plan.held)
                self.figures.preemptions += bool(plan.waits)
            # The watch may have been faster: then it is in the queue no more.
            tried = pending or sent.of.get(name)
            if tried is not None:
                self.figures.won(
                    attempts=tried.losses + 1,
                    stale=answer.revision - proposal.transaction.seen,
                    waited_seconds=now - tried.since,
                )
            self._queue.drop(name)
            return
        if isinstance(answer, Refused):
            self.figures.refused += 1
            self._underway.takes_less()
            if pending and count == 1:
                pending.not_before = now + BACKOFF_SECONDS[1]
                self._queue.again(name, pending.not_before)
                reason = Reason.CONFLICTED  # rights or space: the store may take it another time
                if isinstance(answer.error, TransactionTooLarge):
                    reason, pending.tried_at = Reason.INFEASIBLE, self._freed.count
                self._told.tell(name, Unplaceable(reason, str(answer.error)), pending, now)
            elif pending:
                pending.alone = True  # nobody knows which of the group it was
                self._queue.again(name, now)
            return
        self.figures.conflicts += 1
        self._heat = min(HEAT_MAX, self._heat + 1)
        lost: frozenset[str] = frozenset()
        if isinstance(answer, Conflicted):
            lost = self._rejections.lost(proposal.transaction, answer)
        self._wait_for(answer)
        if pending:
            pending.losses += 1
            pending.tried_at = -1
            pending.avoid |= lost
            pending.lost = _decided(proposal, lost) if self._repairs else None
            pending.not_before = now + self._pause(pending.losses)
            self._queue.again(name, pending.not_before)

    def _pause(self, losses: int) -> float:
        """Return how long a slice that has lost so many races stands back.

        How long that is at most, the races of this process lately say: each one that is lost
        doubles it, each one that is won halves it. Who has lost more of them comes sooner.
        """
        first, longest = BACKOFF_SECONDS
        most: float = min(longest, first * 2**self._heat)
        return most * self._random.random() * 2 / (1 + losses)

    def _wait_for(self, answer: Answer) -> None:
        if isinstance(answer, Conflicted):
            self._behind_until = max(self._behind_until, answer.revision)

    def _enqueue(self, name: str) -> None:
        entry = self.view.slices.get(name)
        if entry is None or not self._may_be_placed(name, entry.value):
            self._queue.drop(name)
            return
        now = self._clock()
        known = self._waiting.get(name)
        order = self._ranks.order(entry, known.since if known else now, now)
        self._queue.put(name, order, now)
        self._waiting[name].shape, self._waiting[name].needs = None, {}

    def _look_again(self, name: str) -> None:
        """Let a slice that waits be planned at once, whatever was found before."""
        pending = self._waiting.get(name)
        if pending is not None:
            pending.shut, pending.tried_at = False, -1
            self._again.append(name)

    def _may_be_placed(self, name: str, record: Slice) -> bool:
        return (
            record.spec.served_by == self.policy.name
            and not (record.cancelled or record.held or record.end is not None)
            and (self.view.now(name) is None or self.view.assumed(name))
        )

    # -- what to do

    def needs(self) -> int:
        """Return up to where the view must be complete for this to go on."""
        return max(self._behind_until, self._known_until, self._purses.known_until)

    def wake_at(self) -> float:
        """Return when `step` has something to do without any event."""
        return self._wake_at

    def step(self, now: float) -> list[Instruction]:
        """Plan what can be planned, in order, and send one group."""
        self._wake_at = inf
        if self._underway.full:
            return []
        if self._behind_until > self.view.revision:
            return []
        if now < self._paused_until:
            self._wake_at = self._paused_until
            return []
        started = self._stopwatch()
        self._ranks.refresh(now)
        sent = Sent(started)
        self._look_at_ghosts(now)
        grants = self._marks.steps(now, self._asks_for) or self._purses.steps(now)
        proposals = grants or self._plan_group(now, sent)
        if not proposals:
            proposals = grants = self._purses.steps(now)  # what these plans lack
        for step in grants:
            sent.add(step, writes([step]))
        self._wake_at = min(
            self._wake_at,
            self._purses.look_at,
            self._marks.next_at(),
            self._rejections.next_at(),
            self._expected.next_at(),
            self._resizing.next_at(),
        )
        if not proposals and not self._underway:
            proposals = self._resizing.steps(now)
            for step in proposals:  # what runs already grows after those who wait
                sent.add(step, writes([step]))
                sent.joins = False
                if step.step == "grow" and step.placement is not None:
                    self.view.assume(step.identifier, step.placement, step.record)
        if not proposals and not self._underway:
            sent.joins = False  # these change what is said of slices: they go alone
            proposals = self._told.steps(now, GROUP_MAX)
        over = self._stopwatch()
        self.figures.busy_seconds += over - started
        if not proposals:
            self._underway.wait_unless(joins=sent.joins)
            return []
        sent.at = over
        self._underway.send(proposals, sent)
        if (grants or self._purses.asking or not self._queue.over) and not self._underway.full:
            self._wake_at = now
        return [Commit(tuple(proposals))]

    def _look_at_ghosts(self, now: float) -> None:
        """Try those units again that have been left alone, or to others, for long enough."""
        if now >= self._rejections.next_at():
            self._rejections.renew(now)
            self._freed.note()
        if now >= self._expected.next_at():
            self._expected.over()
            self._freed.note()

    def _asks_for(self, name: str, pending: Pending) -> bool:
        """Whether a mark for a slice is this process's to put."""
        entry = self.view.slices.get(name)
        return entry is not None and self._owner(pending, entry.created, name) in (
            "",
            self._session,
        )

    def _plan_group(self, now: float, sent: Sent) -> list[Proposal]:
        group: list[Proposal] = []
        started = sent.at
        self._begin_pass(now, started)
        most = GROUP_MAX if self._peers.many else GROUP_ALONE_MAX
        while not self._queue.over and len(group) < most:
            order, name = self._queue.head()
            if self._yields(order, now):
                break
            if self._stopwatch() - started > PLAN_SECONDS:
                self._wake_at = now
                break
            proposal = self._plan_one(name, now)
            if proposal is not None:
                mine = writes([proposal])
                if self._underway.meets(mine):
                    sent.joins = False
                    self._keep(name, proposal)
                    break
                alone = self._waiting[name].alone
                # One that is too large alone goes alone: the store splits it or refuses it.
                if group and (
                    alone or mine & sent.written or not self._underway.join(sent, group, proposal)
                ):
                    self._keep(name, proposal)
                    break
                assert proposal.placement is not None, "a commit leaves a placement"
                self.view.assume(name, proposal.placement, proposal.record)
                group.append(proposal)
                sent.add(proposal, mine)
                sent.of[name] = self._waiting[name]
                if alone or self._waiting[name].slow:  # it is not to wait for the next plan
                    self._queue.advance()
                    break
            self._queue.advance()
        self._wake_at = min(self._wake_at, self._queue.next_at())
        if self._queue.over and self._pass_freed != self._freed.count:
            self._wake_at = now  # something was freed behind the pass
        return group

    def _keep(self, name: str, proposal: Proposal) -> None:
        """Keep a plan that is not sent now, where another one would take as long again."""
        pending = self._waiting[name]
        if pending.slow and self._repairs:
            pending.lost = _decided(proposal)

    def _yields(self, order: Order, now: float) -> bool:
        """Whether a slice comes after a more important one that its owner has not tried yet.

        Without this, the owner of a less important slice could take what both want.
        """
        priority = order[0]
        yields = False
        for more_important in [p for p in self._yielded if p < priority]:
            left = {
                name: until
                for name, until in self._yielded.pop(more_important).items()
                if now < until
                and name in self._waiting
                and name not in self.view.reasons
                and self.view.now(name) is None
            }
            if left:
                self._yielded[more_important] = left
                self._wake_at = min(self._wake_at, *left.values())
                yields = True
        return yields

    def _begin_pass(self, now: float, started: float) -> None:
        """Start at the head of the queue again, where that may place anything."""
        again, self._again = self._again, []
        for name in again:
            self._queue.again(name, now)
        self._queue.recall(now, self.view.revision)
        over = self._queue.over
        if over:
            self._passed_at = started
        if self._pass_freed == self._freed.count:
            return
        # What is freed in the middle of a pass is for those who come first, not for those who
        # happen to be looked at next. But a long queue must be gone through now and then.
        if not over and started - self._passed_at > PASS_SECONDS:
            return
        self._pass_freed = self._freed.count
        if self._stale():
            self._queue.restart()
            self._expected.begin()

    def _stale(self) -> bool:
        """Whether something happened that may let a waiting slice be placed."""
        return any(
            pending.tried_at != self._freed.count and not self.view.assumed(name)
            for name, pending in self._waiting.items()
        )

    def _plan_one(self, name: str, now: float) -> Proposal | None:
        pending = self._waiting.get(name)
        entry = self.view.slices.get(name)
        if pending is None or entry is None or self.view.assumed(name):
            return None
        if pending.tried_at == self._freed.count:
            return None
        if pending.shut:
            pending.tried_at = self._freed.count
            return None
        if pending.known_at > self.view.revision:
            self._queue.seen(name, pending.known_at)
            return None
        if now < pending.not_before:
            self._queue.again(name, pending.not_before)
            return None
        if self._leaves(pending, entry.created, name, now):
            self._queue.again(name, pending.left_until)
            self._deciding.expect(name, entry, pending, now)
            return None
        if pending.avoid:
            # What a rival has is in the view by now. What is not there is somebody's all the same,
            # by a record that cannot be read, and would be lost again and again.
            pending.avoid = frozenset(u for u in pending.avoid if u not in self.view.holders)
        shut = self._gates.closed(name, entry.value)
        if shut is not None:
            pending.shut, pending.tried_at = True, self._freed.count
            self._told.tell(name, shut, pending, now)
            return None
        pending.ask_at, pending.blocked = inf, False
        began, looks_again = self._stopwatch(), pending.lost is not None
        result = self._deciding.decide(name, entry, pending, now)
        pending.slow = pending.slow or self._stopwatch() - began > PLAN_SECONDS
        if isinstance(result, Unplaceable):
            pending.tried_at = self._freed.count
            pending.afar = False
            if result.reason in ROOM or result.reason in MONEY:
                # What lacks money has room: no unit is to be kept for it at once.
                asks = result.reason in ROOM and self._asks_for(name, pending)
                self._marks.blocked(name, pending, now, asks=asks)
            if pending.ask_at < inf:
                pending.tried_at = -1
                pending.not_before = pending.ask_at
                self._queue.again(name, pending.ask_at)
            if pending.avoid:
                pending.avoid, pending.tried_at = frozenset(), -1
                pending.not_before = now + BACKOFF_SECONDS[1]
                self._queue.again(name, pending.not_before)
            if result not in (ASKING, OTHERS_FIRST):
                self._told.tell(name, result, pending, now)
            return None
        if result.afar:
            pending.afar = True
            pending.not_before = now + AFAR_SECONDS * self._random.random()
            self._queue.again(name, pending.not_before)
            return None
        if self._repairs and not result.victims and self._stopwatch() - began > PLAN_SECONDS:
            # Meanwhile others have gone on. What they did is heard first, and what of the plan it
            # broke is replaced, so that rivals have one round trip and not as long as it took.
            pending.lost = result.decision
            pending.losses += looks_again  # what broke before could not be replaced
            self._again.append(name)
            self._wake_at = now
            return None
        if pending.losses >= LOSSES_MAX:
            self._marks.losing(name, pending, result.decision, now)
        proposal = commit(
            self.view,
            name,
            result.decision,
            fence=self._fence(),
            attempt=self._new_attempt(),
            scheduler=self._session,
            victims=result.victims,
        )
        if proposal is None:
            self._again.append(name)
            unclear = next(iter(self.view.unreadable), "")
            why = f"{unclear} cannot be read" if unclear else "the view has changed"
            sentence = f"what was planned cannot be committed: {why}"
            self._told.tell(name, Unplaceable(Reason.CONFLICTED, sentence), pending, now)
        return proposal

    def _leaves(self, pending: Pending, created: int, name: str, now: float) -> bool:
        """Whether a slice is left to its owner for now.

        An owner that is silent, or has passed the slice by, is helped out once a second.
        """
        owner = self._owner(pending, created, name)
        if owner in ("", self._session):
            return False
        if now < pending.since + YIELD_SECONDS:
            yielded = self._yielded.setdefault(pending.order[0], {})
            yielded.setdefault(name, pending.since + YIELD_SECONDS)
        left_until = max(pending.left_until, pending.since + OVERLAP_SECONDS)
        if now < left_until:
            pending.left_until = left_until
            return True
        pending.left_until = now + self._overlap_seconds
        silent, passed = self._peers.sign_of(owner, pending.order, now, OVERLAP_SECONDS)
        # Of two requests that are under way the later one may land first, so what is passed by is
        # looked at twice.
        known, pending.passed = pending.passed, passed
        return not (silent or (known and passed))

    def _owner(self, pending: Pending, created: int, name: str) -> str:
        if pending.owner_of != self._peers.version:
            pending.owner_of = self._peers.version
            pending.owner = self._peers.owner(created, name)
        return pending.owner

    @property
    def lost(self) -> Rejections:
        """Which units were lost to others, and why commits conflicted."""
        return self._rejections

    def figures_now(self, elapsed_seconds: float) -> Mapping[str, object]:
        """Return the figures as `scheduler stats` shows them."""
        rejections = self._rejections
        return {
            "policy": self.policy.name,
            **self.figures.shown(elapsed_seconds),
            "queue": len(self._queue),
            "conflicts_by_cause": dict(rejections.causes.most_common()),
            "rejected_by_kind": dict(rejections.kinds.most_common()),
            "rejected_units": [
                {"unit": lost.unit, "count": lost.count, "avoided": lost.avoided_seconds > 0}
                for lost in rejections.most(self._clock(), REJECTED_SHOWN)
            ],
            "marks": self._marks.put,
            "policy_failures": dict(self.guarded.failures),
        }


def _decided(proposal: Proposal, lost: frozenset[str] = frozenset()) -> Decision | None:
    """Return what a commit was to carry out, None = nothing of it can be replaced one by one."""
    plan = proposal.placement
    if plan is None or plan.waits:  # what it was to take over may be held by others now
        return None
    if not lost <= plan.held.keys():  # a node, or the whole of an engine that it wanted a part of
        return None
    return Decision(plan.engines, plan.held, plan.hosts, plan.circuits, plan.bitstreams)
