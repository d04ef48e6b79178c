"""Who lives in a simulated cell? Processes made as in production, but for threads and clocks.

A `Process` is what `runtime.processes` runs: a session, a machine, and the `Mirror` that keeps it
in step. It can be killed before any instruction, or paused for longer than its lease.
"""

import random
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any, TypeVar

from flowos.model.errors import SessionLost, StoreError
from flowos.model.placement import Unplaceable
from flowos.model.slice import Slice, SliceSpec
from flowos.model.transaction import Conflicted
from flowos.model.view import Applied, CellView
from flowos.planning.engines.pool import Pool
from flowos.planning.policy import Policy
from flowos.protocol.commit import commit
from flowos.protocol.proposal import Fence, Proposal
from flowos.runtime import mirror
from flowos.runtime.guarded import refused
from flowos.runtime.machine import Answer, Commit, Compact, Instruction, Machine, settle_view
from flowos.runtime.mirror import Event, Mirror
from flowos.runtime.purses import Purses
from flowos.runtime.requests import Conversation, Look, Renew, Request, Revoke, Write
from flowos.runtime.tenure import Renewals, Tenure
from flowos.runtime.trouble import BackOff, Kind, Trouble
from flowos.simulation.wire import Site, Wire, WireWatch

T = TypeVar("T")

AGAIN_SECONDS = 0.5  # between two tries of a person, or of an embedded client


@dataclass(frozen=True, slots=True)
class Role:
    """What a process is for.

    Attributes:
        word: scheduler, controller, agents or client.
        follows: What its machine's view is made of.
        make: Makes its machine, anew for each life.
        records: What it writes under its lease before it begins.
    """

    word: str
    name: str
    follows: tuple[str, ...]
    make: Callable[["Process"], Machine]
    ttl_seconds: int
    policy: str = ""
    in_flight_max: int = 1
    records: Callable[["Process"], Mapping[str, object]] = lambda _process: {}
    ended: Callable[["Process"], None] = lambda _process: None


class Person:
    """Somebody without a session: has conversations with the store, and may be asleep."""

    def __init__(self, site: Site, name: str, seed: int) -> None:
        """Be there."""
        self.site = site
        self.timeline = site.timeline
        self.name = name
        self.dice = random.Random(seed)
        self.life = 0  # what belongs to an earlier one is not heard any more
        self.asleep_until = 0.0
        self._wire = Wire(site)
        self._dreams: deque[tuple[int, Callable[[], None]]] = deque()

    def sleep(self, seconds: float) -> None:
        """Do nothing for a while; what comes meanwhile is found afterwards."""
        self.asleep_until = max(self.asleep_until, self.timeline.now + seconds)
        self.timeline.at(self.asleep_until, self._wake)

    def _wake(self) -> None:
        while self._dreams and self.timeline.now >= self.asleep_until:
            life, call = self._dreams.popleft()
            if life == self.life:
                call()

    def awake(self, call: Callable[[], None]) -> Callable[[], None]:
        """Return what calls this in this life only, and not while asleep."""
        life = self.life

        def later() -> None:
            if life != self.life:
                return
            if self.timeline.now < self.asleep_until or self._dreams:
                self._dreams.append((life, call))
            else:
                call()

        return later

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        """Have something called later."""
        self.timeline.after(seconds, self.awake(call))

    def ask(self, request: Request, told: Callable[[Any], None]) -> None:
        """Send a request; its answer is heard in this life only."""
        life = self.life

        def heard(answer: Any) -> None:
            if life == self.life:
                self.awake(lambda: told(answer))()

        self._wire.ask(request, heard)

    def talk(
        self,
        conversation: Conversation[T],
        then: Callable[[T], None],
        failed: Callable[[Exception], None],
    ) -> None:
        """Have a conversation; at its end one of the two is called."""

        def go(answer: Any) -> None:
            try:
                if isinstance(answer, Exception):
                    request = conversation.throw(answer)
                else:
                    request = conversation.send(answer)
            except StopIteration as end:
                then(end.value)
            except (StoreError, SessionLost) as error:
                failed(error)
            else:
                self.ask(request, go)

        go(None)

    def insist(self, errand: Callable[[], Generator[Request, Any, bool]]) -> None:
        """Have a conversation again and again, until it comes to True."""

        def again() -> None:
            self.after(AGAIN_SECONDS * self.dice.uniform(0.5, 1.5), lambda: self.insist(errand))

        self.talk(errand(), lambda done: None if done else again(), lambda _error: again())


class Process(Person):
    """One process: its session, its machine, and what is on the way to it."""

    def __init__(self, site: Site, role: Role, seed: int, say: Callable[[str], None]) -> None:
        """Be about to begin."""
        super().__init__(site, role.name, seed)
        self.role = role
        self.mirror: Mirror | None = None
        self.tenure: Tenure | None = None
        self.deaths = 0
        self._say = say
        self._trouble = self._new_trouble()
        self._starts = BackOff(self.dice)
        self._watch: WireWatch | None = None
        self._inbox: list[Event] = []
        self._round_at = inf

    def _new_trouble(self) -> Trouble:
        return Trouble(lambda line: self._say(f"{self.name}: {line}"))

    # -- lives

    def begin(self) -> None:
        """Open a session, and live with it."""
        now, role = self.timeline.now, self.role
        kind = role.word
        tenure = Tenure(f"{role.name}@{self.life}", kind, role.name, role.policy, now)
        tenure.record = replace(tenure.record, pid=0, host="")  # the same on every machine
        self.tenure = tenure

        def opened(_: object) -> None:
            renewals = Renewals(role.ttl_seconds, self.dice)
            self.after(renewals.calm_seconds, lambda: self._renew(renewals))
            self.talk(tenure.put_leased(role.records(self)), live, self._failed)

        def live(_: object) -> None:
            self._starts.worked()
            self.mirror = Mirror(
                role.make(self),
                session_key=tenure.key,
                dice=self.dice,
                trouble=self._trouble,
                in_flight_max=role.in_flight_max,
            )
            self._look_later()

        self.talk(tenure.open(role.ttl_seconds), opened, self._failed)

    def fence(self) -> Fence:
        """What every control transaction of this process compares."""
        assert self.tenure is not None
        return self.tenure.fence

    def kill(self, back_after: float) -> None:
        """End as by SIGKILL, and begin anew later: the lease runs out by itself."""
        self._say(f"{self.name}: killed")
        self.deaths += 1
        self._end()
        self._dreams.clear()
        self.asleep_until = 0.0
        self._trouble = self._new_trouble()
        self.timeline.after(back_after, self.awake(self.begin))

    def _failed(self, error: Exception) -> None:
        """Start this life again, as a supervisor does."""
        if isinstance(error, StoreError):
            self._trouble.failed(error, self.timeline.now, "lease")
        else:
            away = " while the store was away" if Kind.UNREACHABLE in self._trouble else ""
            self._say(f"{self.name}: session lost{away}")
        lease = self.tenure.lease if self.tenure is not None else None
        self._end()
        if lease is not None:
            self.ask(Revoke(lease), lambda _answer: None)  # it is not waited for
        self.after(self._starts.failed(), self.begin)

    def _end(self) -> None:
        self.life += 1
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        self.mirror = None
        self._inbox.clear()
        self._round_at = inf
        self.role.ended(self)

    def _renew(self, renewals: Renewals) -> None:
        assert self.tenure is not None

        def told(left: Any) -> None:
            if isinstance(left, Exception):
                self.after(renewals.failed(), lambda: self._renew(renewals))
            elif left > 0:
                self.after(renewals.worked(), lambda: self._renew(renewals))
            elif self.mirror is not None:
                self.post(mirror.SessionOver())
            else:
                self._failed(SessionLost("over"))

        assert self.tenure.lease is not None
        self.ask(Renew(self.tenure.lease), told)

    # -- one round of its loop

    def post(self, event: Event) -> None:
        """Put an event into the loop's queue."""
        self._inbox.append(event)
        self._look_later()

    def _look_later(self) -> None:
        """Have a round soon, or when the mirror wants to be woken; the loop takes a moment."""
        assert self.mirror is not None
        if self._inbox:
            at = self.timeline.now + self.dice.uniform(0.0, 0.001)
        else:
            at = max(self.timeline.now + 0.0001, self.mirror.wake_at())
        if at < self._round_at:
            self._round_at = at
            self.timeline.at(at, self.awake(lambda: self._round(at)))

    def _round(self, at: float) -> None:
        if at != self._round_at or self.mirror is None:
            return  # an earlier one came in between
        self._round_at = inf
        now, inbox = self.timeline.now, self._inbox
        self._inbox = []
        try:
            for event in inbox:
                self.mirror.take(event, now)
            todo = self.mirror.act(now)
        except SessionLost as error:
            self._failed(error)
            return
        for instruction in todo:
            if self.site.chance(self.site.mishaps.killed):
                self.kill(self.dice.uniform(0.05, 3.0))
                return
            self._carry_out(instruction)
        self._look_later()

    def _carry_out(self, instruction: mirror.Instruction) -> None:
        match instruction:
            case mirror.Send(commit):
                sent_at = self.timeline.now
                write = Write(tuple(proposal.transaction for proposal in commit.proposals))

                def told(answer: Any) -> None:
                    if isinstance(answer, StoreError):
                        self.post(mirror.Unanswered(commit, answer))
                    else:
                        took = self.timeline.now - sent_at
                        self.post(mirror.Answered(commit, answer, took))

                self.ask(write, told)
            case mirror.PutFence():
                assert self.tenure is not None
                self.talk(
                    self.tenure.refence(),
                    lambda revision: self.post(mirror.Fenced(revision)),
                    self._unfenced,
                )
            case mirror.List(generation):
                self.ask(Look(self.role.follows), lambda answer: self._listed(generation, answer))
            case mirror.OpenWatch(generation, after):
                self._watch = WireWatch(
                    self.site,
                    self.role.follows,
                    after=after,
                    deliver=self._hears(generation),
                )
            case mirror.CloseWatch():
                if self._watch is not None:
                    self._watch.close()
                    self._watch = None
            case mirror.AskProgress():
                if self._watch is not None:
                    self._watch.ask_progress()
            case Compact(before):
                self.site.store.compact(min(before, self.site.store.revision))

    def _listed(self, generation: int, answer: Any) -> None:
        if isinstance(answer, StoreError):
            self.post(mirror.NotListed(generation, answer))
        else:
            self.post(mirror.Listed(generation, answer))

    def _unfenced(self, error: Exception) -> None:
        if isinstance(error, StoreError):
            self.post(mirror.Unfenced(error))
        else:
            self.post(mirror.SessionOver())

    def _hears(self, generation: int) -> Callable[[Any], None]:
        life = self.life

        def deliver(message: Any) -> None:
            if life == self.life:
                self.awake(lambda: self.post(mirror.Heard(generation, message)))()

        return deliver


class Embedding:
    """A program that plans its own slices, and commits request and placement in one step.

    What `runtime.embedded` does by waiting, as a machine.
    """

    def __init__(
        self,
        view: CellView,
        policy: Policy,
        specs: Sequence[tuple[float, SliceSpec]],
        *,
        fence: Callable[[], Fence],
        session: str,
        fits: Callable[[Sequence[Proposal]], bool],
        new_attempt: Callable[[], str],
    ) -> None:
        """Start with slices that are to be placed from a moment on."""
        self.view = view
        self._policy = policy
        self._specs = list(specs)
        self._fence = fence
        self._session = session
        self._new_attempt = new_attempt
        self._pool = Pool(view)
        self._purses = Purses(view, session, fence)
        self._busy = False
        self._behind_until = 0
        self._wake_at = 0.0

    @property
    def left(self) -> list[str]:
        """What it has not placed yet, as far as it sees."""
        return [spec.id for _, spec in self._specs if spec.id not in self.view.slices]

    def changed(self, change: Applied) -> None:
        """Nothing to note: each round looks at all."""

    def relisted(self) -> None:
        """The same."""

    def answered(self, commit: Commit, answers: Sequence[Answer], now: float) -> None:
        """Wait until the view shows what a rival did."""
        self._busy = False
        settle_view(self.view, commit.proposals, answers)
        for proposal, answer in zip(commit.proposals, answers, strict=True):
            self._purses.answered(proposal, answer)
            if isinstance(answer, Conflicted):
                self._behind_until = max(self._behind_until, answer.revision)

    def needs(self) -> int:
        """Return up to where the view must be complete: a rival's commit must be seen."""
        return max(self._behind_until, self._purses.known_until)

    def wake_at(self) -> float:
        """Return when to try again."""
        return inf if self._busy else self._wake_at

    def step(self, now: float) -> list[Instruction]:
        """Place the next one that can be placed."""
        self._wake_at = now + AGAIN_SECONDS
        if self._busy or self._behind_until > self.view.revision:
            return []
        proposals: list[Proposal] = []
        for at, spec in self._specs:
            if at > now or spec.id in self.view.slices or self.view.now(spec.id) is not None:
                continue
            proposal = self._plan(spec, now)
            if proposal is not None:
                proposals.append(proposal)
                break
        proposals = proposals or self._purses.steps(now)
        if not proposals:
            return []
        for proposal in proposals:
            if proposal.placement is not None:
                self.view.assume(proposal.identifier, proposal.placement)
        self._busy = True
        return [Commit(tuple(proposals))]

    def _plan(self, spec: SliceSpec, now: float) -> Proposal | None:
        decision = self._policy.plan(self._pool, spec, seed=0, avoid=frozenset())
        if isinstance(decision, Unplaceable):
            return None
        if refused(decision) or self._purses.afford(spec.id, decision, now):
            return None
        return commit(
            self.view,
            spec.id,
            decision,
            fence=self._fence(),
            attempt=self._new_attempt(),
            scheduler=self._session,
            spec=(spec.id, Slice(spec=spec, submitted_at=now)),
        )
