"""The loop of a scheduler process: which pending slice is planned next, and how it is committed.

It reads the queue from the view, plans on the working copy, commits groups optimistically, and
after a conflict waits until the view has caught up before it plans again. It holds no lock and no
offer; two of these machines on one queue only ever cost each other a conflict.
"""

import logging
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Final

from flowos.model import collector, keys
from flowos.model.errors import TransactionTooLarge
from flowos.model.placement import Decision, Unplaceable
from flowos.model.slice import Reason, Slice, SliceSpec, Waiting
from flowos.model.transaction import Committed, Conflicted, Seen
from flowos.model.units import is_divisible, kind_of, subject_of
from flowos.model.view import Applied, CellView, Entry
from flowos.planning.engines.pool import Pool
from flowos.planning.policy import Order, Policy, Waits
from flowos.protocol.commit import commit
from flowos.protocol.proposal import Draft, Fence, Proposal, writes
from flowos.runtime.machine import Answer, Commit, Instruction, Refused, settle_view
from flowos.runtime.peers import Peers
from flowos.runtime.purses import Purses
from flowos.runtime.waiting import Pending, Queue

LOG = logging.getLogger("flowos")

SCHEDULER_FOLLOWS: Final = (
    *keys.INVENTORY, "rule/", "slice/", "placement/", "session/", "grant/", "observed/", "reason/",
)  # fmt: skip
GROUP_MAX: Final = 16  # more in one request makes rivals wait longer
GROUP_ALONE_MAX: Final = 32  # the same where there are none: some 20 us of CPU less a slice
GROUPS_MAX: Final = 2  # requests under way: one is planned while the store works on another
PLAN_SECONDS: Final = 0.02  # the longest time at planning before events are looked at again
PASS_SECONDS: Final = 1.0  # the queue is gone through to its end this often at least
OVERLAP_SECONDS: Final = 1.0  # a slice that its owner left this long is anybody's
YIELD_SECONDS: Final = 0.05  # what its owner gets to try it before less important ones are planned
BACKOFF_SECONDS: Final = (0.002, 0.5)  # first and longest pause after a lost race
AFAR_SECONDS: Final = 0.02  # what the schedulers there get to try what fits on their nodes
REASON_SECONDS: Final = 2.0  # a sentence with new numbers is written this often at most


@dataclass(slots=True)
class Figures:
    """What this scheduler has done so far; published for `scheduler stats`."""

    commits: int = 0
    conflicts: int = 0
    plans: int = 0
    placed: int = 0
    refused: int = 0
    busy_seconds: float = 0.0
    decisions_ms: deque[float] = field(default_factory=lambda: deque(maxlen=1000))
    commits_ms: deque[float] = field(default_factory=lambda: deque(maxlen=1000))


@dataclass(slots=True)
class _Sent:
    """A request that is under way, and what another one must not touch meanwhile."""

    at: float
    written: set[str] = field(default_factory=set)
    guards: tuple[str, ...] = ()
    joins: bool = True  # whether another may be sent before its answer
    longest: int = 0  # list of compares or operations of any member


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
        self._fits = fits
        self._stopwatch = stopwatch
        self._new_attempt = new_attempt
        self._queue = Queue()
        self._waiting = self._queue.slices
        self._shapes: dict[object, Unplaceable] = {}
        self._freed = 0
        self._shapes_at = 0
        self._pass_freed = 0
        self._passed_at = 0.0
        self._used: dict[str, tuple[int, ...]] = {}
        self._in_flight: dict[tuple[str, ...], _Sent] = {}
        self._short = 0  # lists up to this length fit into a full group
        self._full = False  # nothing more can be sent before an answer
        self._reasons_due: dict[str, Waiting] = {}
        self._purses = Purses(view, session, fence)
        self._behind_until = 0
        self._known_until = 0  # the latest `known_at` of all
        self._yielded: dict[float, dict[str, float]] = {}  # priority -> slice -> until
        self._again: list[str] = []  # to be planned again at whatever happens next
        self._paused_until = -inf
        self._wake_at = inf
        self._peers = Peers(view, session, policy.name, alone=alone)
        view.listeners.append(self._unit_changed)
        view.inventory_listeners.append(self._inventory_changed)

    # -- what happened

    def changed(self, change: Applied) -> None:
        """Keep the queue in step with slices, placements and sessions."""
        if change.family == "slice":
            self._enqueue(change.name)
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
        elif change.family == "session":
            if change.name.startswith("scheduler/"):
                self._meet()
        elif change.family == "grant":
            self._freed += 1

    def relisted(self) -> None:
        """Build the queue anew."""
        self._queue.clear()
        self._freed += 1
        self._meet()
        now = self._stopwatch()
        for name, entry in self.view.slices.items():
            if self._may_be_placed(name, entry.value):
                self._waiting[name] = Pending(self._order(entry), now)
        self._queue.restart()  # sorted once: put one by one, 20,000 take 0.3 s
        with collector.paused():
            self.pool.fold()  # now, and not when the first slice waits for it

    def _meet(self) -> None:
        """Divide the queue and the cell among those who are there now."""
        if self._peers.refresh():
            self.pool.divide(self._peers.part, self._peers.parts)
            self._freed += 1

    def _note_rival(self, name: str) -> None:
        placed, pending = self.view.placements.get(name), self._waiting.get(name)
        entry = self.view.slices.get(name)
        if placed and pending and entry:
            # What it does to help others out says nothing of how far it is with its own.
            session = placed.value.scheduler
            if session == self._owner(pending, entry.created, name) != self._session:
                self._peers.placed(session, pending.order, self._stopwatch())

    def answered(self, commit: Commit, answers: Sequence[Answer], now: float) -> None:
        """Settle or retract; after a conflict plan again only on a view that shows it."""
        names = tuple(p.identifier for p in commit.proposals)
        sent = self._in_flight.pop(names, None)
        self._full = False
        settle_view(self.view, commit.proposals, answers)
        took_ms = 1000 * (self._stopwatch() - sent.at) if sent else 0.0
        for proposal, answer in zip(commit.proposals, answers, strict=True):
            match proposal.step:
                case "commit":
                    self._commit_answered(proposal, answer, now, alone=len(names) == 1)
                    self.figures.commits_ms.append(took_ms)
                case "reason":
                    pending = self._waiting.get(proposal.identifier)
                    if pending and not isinstance(answer, Committed):
                        # The slice or its placement has changed; then it is thought over again.
                        pending.tried_at = -1
                        pending.not_before = now + BACKOFF_SECONDS[1]
                        self._queue.again(proposal.identifier, pending.not_before)
                case _:
                    self._freed += 1
                    if isinstance(answer, Refused):
                        self._paused_until = now + BACKOFF_SECONDS[1]
                    elif not isinstance(answer, Committed):
                        self._wait_for(answer)

    def _commit_answered(
        self, proposal: Proposal, answer: Answer, now: float, *, alone: bool
    ) -> None:
        name = proposal.identifier
        pending = self._waiting.get(name)
        if isinstance(answer, Committed):
            self.figures.commits += 1
            self.figures.placed += 1
            self._queue.drop(name)
            return
        if isinstance(answer, Refused):
            self.figures.refused += 1
            self._short = 0  # the store may take less than it said
            if pending and alone:
                pending.not_before = now + BACKOFF_SECONDS[1]
                self._queue.again(name, pending.not_before)
                reason = Reason.CONFLICTED  # rights or space: the store may take it another time
                if isinstance(answer.error, TransactionTooLarge):
                    reason, pending.tried_at = Reason.INFEASIBLE, self._freed
                self._tell(name, Unplaceable(reason, str(answer.error)), pending, now)
            elif pending:
                pending.alone = True  # nobody knows which of the group it was
                self._queue.again(name, now)
            return
        self.figures.conflicts += 1
        self._wait_for(answer)
        if pending:
            pending.losses += 1
            pending.tried_at = -1
            if isinstance(answer, Conflicted):
                pending.avoid |= _lost(proposal, answer)
            first, longest = BACKOFF_SECONDS
            pause = min(longest, first * 2 ** min(pending.losses, 10))
            pending.not_before = now + pause * self._random.random()
            self._queue.again(name, pending.not_before)

    def _wait_for(self, answer: Answer) -> None:
        if isinstance(answer, Conflicted):
            self._behind_until = max(self._behind_until, answer.revision)

    def _unit_changed(self, unit: str) -> None:
        if self.view.supposing or unit in self.view.holders:
            return
        if is_divisible(unit):
            before, now = self._used.get(unit, ()), self._used_of(unit)
            self._used[unit] = now
            # Only what is given back may help a slice that waits.
            if any(was > is_ for was, is_ in zip(before, now, strict=False)):
                self._freed += 1
        else:
            self._freed += 1

    def _used_of(self, unit: str) -> tuple[int, ...]:
        """Return how much of a divisible unit all its holders have together."""
        subject = subject_of(unit)
        if kind_of(unit) == "share":
            return (sum(self.view.shares.get(subject, {}).values()),)
        held = self.view.hosts.get(subject, {}).values()
        devices = self.view.devices.get(subject, {}).values()
        return sum(cpu for cpu, _ in held), sum(memory for _, memory in held), sum(devices)

    def _inventory_changed(self, _family: str, _name: str) -> None:
        self._freed += 1

    def _enqueue(self, name: str) -> None:
        entry = self.view.slices.get(name)
        if entry is None or not self._may_be_placed(name, entry.value):
            self._queue.drop(name)
            return
        self._queue.put(name, self._order(entry), self._stopwatch())
        self._waiting[name].shape = None

    def _order(self, entry: Entry[Slice]) -> Order:
        spec = entry.value.spec
        return self.policy.order(Waits(spec, entry.created, priority=spec.priority))

    def _may_be_placed(self, name: str, record: Slice) -> bool:
        return (
            record.spec.policy == self.policy.name
            and not (record.cancelled or record.held or record.end is not None)
            and (self.view.now(name) is None or self.view.assumed(name))
        )

    # -- what to do

    def needs(self) -> int:
        """Return up to where the view must be complete for this to go on."""
        return max(self._behind_until, self._known_until)

    def wake_at(self) -> float:
        """Return when `step` has something to do without any event."""
        return self._wake_at

    def step(self, now: float) -> list[Instruction]:
        """Plan what can be planned, in order, and send one group."""
        self._wake_at = inf
        if self._full:
            return []
        if self._behind_until > self.view.revision:
            return []
        if now < self._paused_until:
            self._wake_at = self._paused_until
            return []
        started = self._stopwatch()
        sent = _Sent(started)
        proposals = self._plan_group(now, sent)
        if not proposals and not self._in_flight:
            sent.joins = False  # these change grants, or what is said of slices: they go alone
            proposals = self._purses.raises() or self._reasons(now)
            if not proposals:
                proposals, look_at = self._purses.returns(now)
                self._wake_at = min(self._wake_at, look_at)
        over = self._stopwatch()
        self.figures.busy_seconds += over - started
        if not proposals:
            self._full = not sent.joins and bool(self._in_flight)
            return []
        sent.at = over
        self._in_flight[tuple(p.identifier for p in proposals)] = sent
        self._full = len(self._in_flight) == GROUPS_MAX or not sent.joins
        if not self._full and not self._queue.over:
            self._wake_at = now
        return [Commit(tuple(proposals))]

    def _plan_group(self, now: float, sent: _Sent) -> list[Proposal]:
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
                if self._meets(mine):
                    sent.joins = False
                    break
                alone = self._waiting[name].alone
                # One that is too large alone goes alone: the store splits it or refuses it.
                if group and (
                    alone or mine & sent.written or not self._join(sent, group, proposal)
                ):
                    break
                sent.longest = max(sent.longest, _length(proposal))
                assert proposal.placement is not None, "a commit leaves a placement"
                self.view.assume(name, proposal.placement, proposal.record)
                group.append(proposal)
                sent.written |= mine
                sent.guards += proposal.guards
                if alone:
                    self._queue.advance()
                    break
            self._queue.advance()
        self._wake_at = min(self._wake_at, self._queue.next_at())
        if self._queue.over and self._pass_freed != self._freed:
            self._wake_at = now  # something was freed behind the pass
        return group

    def _join(self, sent: _Sent, group: list[Proposal], proposal: Proposal) -> bool:
        """Whether the store takes a step in one request with these."""
        longest = max(sent.longest, _length(proposal))
        # A request is measured by its members and their longest list. So where a full group of the
        # longest one fits, all shorter ones do, and need not be measured one after the other.
        new = longest > self._short and longest == _length(proposal)
        if new and self._fits([proposal] * GROUP_ALONE_MAX):
            self._short = longest
        return longest <= self._short or self._fits([*group, proposal])

    def _meets(self, written: set[str]) -> bool:
        """Whether a step would conflict with one of our own that is still under way.

        A part of a host or of an engine is guarded by "nobody put anything here since my view",
        and only an answer moves that on (see `CellView.settle`).
        """
        parts = [key for key in written if key.startswith(("claim/share/", "claim/host/"))]
        return any(
            not written.isdisjoint(sent.written)
            or any(key.startswith(sent.guards) for key in parts)
            for sent in self._in_flight.values()
        )

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
        if self._pass_freed == self._freed:
            return
        # What is freed in the middle of a pass is for those who come first, not for those who
        # happen to be looked at next. But a long queue must be gone through now and then.
        if not over and started - self._passed_at > PASS_SECONDS:
            return
        self._pass_freed = self._freed
        if self._stale():
            self._queue.restart()

    def _stale(self) -> bool:
        """Whether something happened that may let a waiting slice be placed."""
        return any(
            pending.tried_at != self._freed and not self.view.assumed(name)
            for name, pending in self._waiting.items()
        )

    def _plan_one(self, name: str, now: float) -> Proposal | None:
        pending = self._waiting.get(name)
        entry = self.view.slices.get(name)
        if pending is None or entry is None or self.view.assumed(name):
            return None
        if pending.tried_at == self._freed:
            return None
        if pending.known_at > self.view.revision:
            self._queue.seen(name, pending.known_at)
            return None
        if now < pending.not_before:
            self._queue.again(name, pending.not_before)
            return None
        if self._leaves(pending, entry.created, name, now):
            self._queue.again(name, pending.left_until)
            return None
        if pending.avoid:
            # What a rival has is in the view by now. What is not there is somebody's all the same,
            # by a record that cannot be read, and would be lost again and again.
            pending.avoid = frozenset(u for u in pending.avoid if u not in self.view.holders)
        result = self._decide(entry.value.spec, pending)
        if isinstance(result, Decision) and self._is_afar(result) and not pending.afar:
            pending.afar = True
            pending.not_before = now + AFAR_SECONDS * self._random.random()
            self._queue.again(name, pending.not_before)
            return None
        if isinstance(result, Decision):
            result = self._purses.afford(result, now) or result
        if isinstance(result, Unplaceable):
            pending.tried_at = self._freed
            pending.afar = False
            if pending.avoid:
                pending.avoid, pending.tried_at = frozenset(), -1
                pending.not_before = now + BACKOFF_SECONDS[1]
                self._queue.again(name, pending.not_before)
            if not self._purses.asking:
                self._tell(name, result, pending, now)
            return None
        proposal = commit(
            self.view,
            name,
            result,
            fence=self._fence(),
            attempt=self._new_attempt(),
            scheduler=self._session,
        )
        if proposal is None:
            self._again.append(name)
            unclear = next(iter(self.view.unreadable), "")
            why = f"{unclear} cannot be read" if unclear else "the view has changed"
            sentence = f"what was planned cannot be committed: {why}"
            self._tell(name, Unplaceable(Reason.CONFLICTED, sentence), pending, now)
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

    def _is_afar(self, decision: Decision) -> bool:
        """Whether a plan needs nodes that others look at first."""
        if not self.pool.divided:
            return False
        nodes = {engine.partition("/")[0] for role in decision.engines.values() for engine in role}
        return any(map(self.pool.is_afar, nodes))

    def _decide(self, spec: SliceSpec, pending: Pending) -> Decision | Unplaceable:
        if self._shapes_at != self._freed:
            self._shapes.clear()
            self._shapes_at = self._freed
        avoid = pending.avoid
        if self._shapes and not avoid:
            pending.shape = pending.shape or _shape(spec)
            known = self._shapes.get(pending.shape)
            if known is not None:  # it found no place since anything was freed
                return known
        before = self._stopwatch()
        seed = self._random.getrandbits(32) | 1 if self._peers.many else 0
        try:
            result = self.policy.plan(self.pool, spec, seed=seed, avoid=avoid)
        except Exception as bug:  # a plug-in that fails for one slice serves the others
            LOG.exception("policy %s failed for slice %s", self.policy.name, spec.id)
            why = f"policy {self.policy.name} failed: {type(bug).__name__}: {bug}"
            result = Unplaceable(Reason.SCHEDULER_DOWN, why)
        if isinstance(result, Decision):
            result = refused(result) or result
        self.figures.plans += 1
        self.figures.decisions_ms.append(1000 * (self._stopwatch() - before))
        if isinstance(result, Unplaceable) and not avoid:
            pending.shape = pending.shape or _shape(spec)
            self._shapes[pending.shape] = result
        return result

    # -- reasons

    def _tell(self, name: str, why: Unplaceable, pending: Pending, now: float) -> None:
        known = self.view.reasons.get(name)
        waiting = Waiting(why.reason, why.sentence, why.funnel, self._session.partition("@")[0])
        if known and (known.value.reason, known.value.sentence) == (why.reason, why.sentence):
            self._reasons_due.pop(name, None)
            return
        if known and known.value.reason == why.reason and now < pending.told_at + REASON_SECONDS:
            return
        self._reasons_due[name] = waiting

    def _reasons(self, now: float) -> list[Proposal]:
        found: list[Proposal] = []
        for name in list(self._reasons_due):
            if len(found) == GROUP_MAX:
                break
            waiting = self._reasons_due.pop(name)
            pending, entry = self._waiting.get(name), self.view.slices.get(name)
            if pending is None or entry is None:
                continue
            pending.told_at = now
            draft = Draft(fence=self._fence())
            draft.seen(keys.slice_(name), entry.modified)
            draft.placed(name, None)
            draft.put(keys.reason(name), waiting)
            found.append(draft.proposal("reason", name, self.view))
        return found

    def figures_now(self, elapsed_seconds: float) -> Mapping[str, object]:
        """Return the figures as `scheduler stats` shows them."""
        figures = self.figures
        done = figures.commits + figures.conflicts
        return {
            "policy": self.policy.name,
            "commits": figures.commits,
            "conflicts": figures.conflicts,
            "conflict_fraction": round(figures.conflicts / done, 4) if done else 0.0,
            "plans": figures.plans,
            "placed": figures.placed,
            "plans_per_placed": round(done / figures.placed, 3) if figures.placed else 0.0,
            "decision_ms": quantiles(figures.decisions_ms),
            "commit_ms": quantiles(figures.commits_ms),
            "busy": round(figures.busy_seconds / elapsed_seconds, 4) if elapsed_seconds else 0.0,
            "queue": len(self._queue),
        }


def refused(decision: Decision) -> Unplaceable | None:
    """Return why a decision must not be committed, whatever plug-in or request it comes from.

    Whoever holds nothing would be queued again at once, for ever; and whoever holds less than
    nothing would give others more than there is.
    """
    if not decision.units:
        return Unplaceable(Reason.INFEASIBLE, "it asks for no engines and no hosts")
    for unit, amounts in decision.units.items():
        if is_divisible(unit) and (
            min(amounts) < 0 or (kind_of(unit) == "share" and not any(amounts))
        ):
            text = ", ".join(map(str, amounts))
            return Unplaceable(
                Reason.INFEASIBLE, f"it asks for {text} of {unit}: parts are above 0"
            )
    return None


def _length(proposal: Proposal) -> int:
    transaction = proposal.transaction
    return max(len(transaction.compares), len(transaction.operations))


def _lost(proposal: Proposal, answer: Conflicted) -> frozenset[str]:
    """Return the whole units that a proposal did not get because they are claimed."""
    return frozenset(
        compare.key.partition("/")[2]
        for compare in answer.broken(proposal.transaction.compares)
        if isinstance(compare, Seen) and compare.key.startswith("claim/") and not compare.revision
    )


def quantiles(samples: Sequence[float]) -> dict[str, float]:
    """Return the median and the 99th percentile, 0 where there are no samples."""
    ordered = sorted(samples)
    if not ordered:
        return {"p50": 0.0, "p99": 0.0}
    last = len(ordered) - 1
    return {
        "p50": round(ordered[last // 2], 3),
        "p99": round(ordered[min(last, last * 99 // 100)], 3),
    }


def _shape(spec: SliceSpec) -> object:
    """Return what decides whether a place can be found: everything but name, tenant and rank."""
    asked = (spec.engines, spec.hosts, spec.together, spec.circuits, spec.constraints, spec.elastic)
    return repr((*asked, spec.data, spec.work))
