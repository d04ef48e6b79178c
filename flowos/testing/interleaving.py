"""How do schedulers get on when every plan, request, answer and piece of news is a move of its own?

Some production schedulers (`flowos.runtime.scheduling`), each with a view of its own, race on one
store in virtual time. Whenever several things could happen next, a choice says which does. A list of
choices is a whole run: the same list gives the same run, and 0 is always the calm one, in which a
scheduler hears all news, plans, sends, and is answered before anybody else does anything. So a
shorter list, or one with more zeros, is a simpler story.

What may be late is late by `Contest.delay_s` at most: nobody is made to wait by a network that
delivers nothing, only by races.
"""

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from itertools import count
from math import inf
from typing import Final, Literal, NamedTuple, Protocol, TypeAlias

from flowos.model import keys
from flowos.model.cell import FAMILY_OF, Cell, name_of
from flowos.model.codec import encode
from flowos.model.errors import FlowosError, StoreRefused, TransactionTooLarge
from flowos.model.placement import Decision, Session, Unplaceable
from flowos.model.slice import SliceSpec
from flowos.model.transaction import (
    Change,
    Changes,
    Committed,
    Conflicted,
    Operation,
    Outcome,
    Put,
    Transaction,
    WatchMessage,
)
from flowos.model.units import claim_key, engine_unit
from flowos.model.view import CellView
from flowos.planning.engines.pool import Pool
from flowos.planning.policy import Policy
from flowos.protocol.proposal import Fence, Proposal
from flowos.runtime.machine import Answer, Commit, Refused
from flowos.runtime.scheduling import SCHEDULER_FOLLOWS, Scheduling
from flowos.simulation.full.deliberate import engines_of
from flowos.simulation.full.life import Life
from flowos.simulation.full.setup import Arrival, Queues
from flowos.simulation.light.schedulers import Pace
from flowos.simulation.stage import VirtualClock
from flowos.simulation.timeline import Timeline
from flowos.simulation.wire import SimStore
from flowos.testing.cells import Shaped
from flowos.verify.invariants import Checker
from flowos.verify.laws import Violation
from flowos.verify.state import State

MOVES_MAX: Final = 500  # for each slice; ten to thirty are usual, so they never come to rest
# A contest's slices end in one step, without agents: what these laws are about is left out.
_LIFES: Final = frozenset({"freed", "phases"})
LEFT_SECONDS: Final = 2.5  # longer than any pause, and than a slice is left to its owner
_TTL_SECONDS: Final = 10**9  # nobody dies here

What: TypeAlias = Literal["hear", "be told", "plan", "send"]
NewPolicy: TypeAlias = Callable[[], Policy]
Policies: TypeAlias = NewPolicy | Sequence[NewPolicy]
NewStore: TypeAlias = Callable[[VirtualClock], "ForkedStore"]


class ForkedStore(SimStore, Protocol):
    """A store that can be copied, so that a cell is loaded once for many runs."""

    def fork(self, clock: VirtualClock) -> "ForkedStore":
        """Return a copy that goes its own way, on another clock, without the watches."""


class Restless(FlowosError):
    """The schedulers of a contest did not come to rest.

    Attributes:
        played: What had come of it by then.
    """

    def __init__(self, played: "Played") -> None:
        """Say after how many moves."""
        self.played = played
        super().__init__(
            f"no rest after {played.moves} moves in {played.seconds:.3f} s, {played.conflicts} "
            f"commits lost, {played.placed} won"
        )


@dataclass(frozen=True, slots=True)
class Mitigations:
    """What the product does about races, each of which can be left out to see what it is worth.

    Attributes:
        repair: A plan that took long is looked at again before it is sent, and of one that lost only
            what broke is replaced; else all is planned anew.
        back_off: Who lost stands back for a random while that grows with the races lost, and is
            shorter for whoever lost more of them; else all try again at once.
        marks: A slice that lost several races asks others to leave its units to it.
        homes: Each looks at its own part of the nodes first.
        chance: Each takes one of the best few places, by its own seed; else all take the best.
        division: The queue is divided among those who serve it; else all plan all of it.
        avoidance: A unit that is refused though nobody is seen to hold it is left alone for a while.
    """

    repair: bool = True
    back_off: bool = True
    marks: bool = True
    homes: bool = True
    chance: bool = True
    division: bool = True
    avoidance: bool = True

    def without(self, *names: str) -> "Mitigations":
        """Return these but for some."""
        return replace(self, **dict.fromkeys(names, False))


ALL: Final = Mitigations()
NONE: Final = Mitigations(*[False] * 7)


@dataclass(frozen=True)
class Contest:
    """Who wants what where; all but the order in which things happen.

    Attributes:
        cell: What there is; nobody holds anything of it at first.
        arrivals: Slices that come, no two of one name, in any order. With queues of their own the
            first is the first scheduler's, the second the second's, and so on round.
        schedulers: How many.
        queues: "one" that they divide among themselves, or "each" its own, as of several teams.
        paces: How long each scheduler thinks; the last is that of all further ones.
        delay_s: How late a plan, a request, an answer or news may come at most, each.
        ghosts: Engines that the store says are held and no placement lists, as a mistake leaves
            them; schedulers see them as free.
        seconds: When it ends, virtual, if it does not come to rest before.
        seed: Of the schedulers' choices among equals, and their pauses.
        kinds: Which of several policies each scheduler has, by its number; the last is that of all
            further ones, () = the first. Those of one queue have one.
    """

    cell: Shaped
    arrivals: tuple[Arrival, ...]
    schedulers: int = 2
    queues: Queues = "each"
    paces: tuple[Pace, ...] = (Pace(0.01, 0.0),)
    delay_s: float = 0.01
    ghosts: tuple[str, ...] = ()
    seconds: float = 5.0
    seed: int = 0
    kinds: tuple[int, ...] = ()

    def kind(self, number: int) -> int:
        """Return which of several policies a scheduler has."""
        if not self.kinds:
            return 0
        return self.kinds[0 if self.queues == "one" else min(number, len(self.kinds) - 1)]

    def pace(self, number: int) -> Pace:
        """Return how long a scheduler thinks."""
        return self.paces[min(number, len(self.paces) - 1)]


class Move(NamedTuple):
    """Something that could happen next; scheduler -1 = nothing does, and time passes."""

    scheduler: int
    what: What | Literal["pass"]


_PASS: Final = Move(-1, "pass")


@dataclass(slots=True)
class SchedulerPart:
    """What one scheduler did in a run.

    Attributes:
        placed: Its commits that the store took.
        conflicts: Those it did not.
        useful_s: Virtual seconds in plans that were committed, at once or repaired.
        wasted_s: In plans that were thrown away: they conflicted, or broke before they were sent.
        vain_s: In plans that found no room, or were not sent before the end.
        plans: Plans that found room, those included of which only a part was replaced, and not those
            that only suppose that somebody gives way.
        vain: Plans that found none.
    """

    placed: int = 0
    conflicts: int = 0
    useful_s: float = 0.0
    wasted_s: float = 0.0
    vain_s: float = 0.0
    plans: int = 0
    vain: int = 0

    @property
    def losses(self) -> float:
        """Commits that conflicted, for each that was taken."""
        return self.conflicts / max(1, self.placed)


@dataclass(slots=True)
class Played:
    """What came of one run.

    Attributes:
        choices: How each move was chosen where there was a choice: the whole run.
        moves: How many there were, those included that nobody had to choose.
        seconds: Virtual, when it ended.
        parts: Of each scheduler.
        waits: Slice -> seconds from its coming to its first commit; those not placed: to the end.
        unplaced: Slices that never got anything.
        causes: Why commits conflicted -> how often; one may have several causes.
        left: Those of them for which there was room at the end, and had been for `LEFT_SECONDS`,
            though nobody has asked that it be left to another one.
        violations: Laws of `flowos.verify` that a revision broke.
        story: What happened, a line for each move, if it was asked for.
    """

    choices: list[int] = field(default_factory=list)
    moves: int = 0
    seconds: float = 0.0
    parts: list[SchedulerPart] = field(default_factory=list)
    waits: dict[str, float] = field(default_factory=dict)
    unplaced: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    causes: dict[str, int] = field(default_factory=dict)
    violations: list[Violation] = field(default_factory=list)
    story: list[str] = field(default_factory=list)

    @property
    def placed(self) -> int:
        """Commits that the store took."""
        return sum(part.placed for part in self.parts)

    @property
    def conflicts(self) -> int:
        """Commits that it did not."""
        return sum(part.conflicts for part in self.parts)

    @property
    def conflict_fraction(self) -> float:
        """Conflicted commits for each that succeeded, as Omega's paper has it."""
        return self.conflicts / max(1, self.placed)

    @property
    def plans_per_placed(self) -> float:
        """Plans that found room, repairs included, for each that was placed; 1 = none for nothing."""
        return sum(part.plans for part in self.parts) / max(1, self.placed)

    @property
    def longest_wait_s(self) -> float:
        """The longest wait of a slice that was placed, or could have been."""
        unplaced = {*self.unplaced} - {*self.left}
        return max((s for name, s in self.waits.items() if name not in unplaced), default=0.0)

    @property
    def unfairness(self) -> float:
        """How many more commits the unluckiest scheduler lost for each it won than the luckiest."""
        losses = [part.losses for part in self.parts if part.placed or part.conflicts]
        return max(losses) - min(losses) if losses else 0.0

    @property
    def wasted(self) -> float:
        """Share of the time spent on plans that could be sent which was thrown away, 0..1."""
        useful = sum(part.useful_s for part in self.parts)
        wasted = sum(part.wasted_s for part in self.parts)
        return wasted / (useful + wasted) if useful + wasted else 0.0


class Ground:
    """A cell in a store, from which any number of runs begin.

    Attributes:
        cell: As all read it; nobody writes it.
    """

    def __init__(self, contest: Contest, new_store: NewStore) -> None:
        """Load the contest's cell, open everybody's session, and put its ghosts.

        Args:
            contest: All but its arrivals and the schedulers' ways is taken from it.
            new_store: Makes an empty store on a virtual clock.
        """
        shaped = contest.cell
        if shaped.held or shaped.shared or shaped.asleep or shaped.busy_hosts:
            raise ValueError("nobody holds anything of a contest's cell: let slices come instead")
        self.contest = contest
        store = self._store = new_store(VirtualClock())
        _put(store, list(_things(shaped.view().cell)))
        self.controller = self._open("controller", "controller", "")
        self.fences = [
            self._open("scheduler", f"s{number}", queue_of(contest, number))
            for number in range(contest.schedulers)
        ]
        _put(
            store,
            [
                Put(claim_key(engine_unit(e), "ghost"), encode(("nobody/ghost", "ghost", ())))
                for e in contest.ghosts
            ],
        )
        store.compact(store.revision)
        self.revision = store.revision
        self._seen = CellView()
        self._seen.load(store.read(SCHEDULER_FOLLOWS).records)
        self.cell = self._seen.cell

    def _open(self, role: str, name: str, policy: str) -> Fence:
        key = keys.session(role, name)
        return Fence(key, _put(self._store, [Put(key, encode(Session(role, name, policy)))]))

    def store(self, clock: VirtualClock) -> ForkedStore:
        """Return a store with the cell in it, for one run."""
        return self._store.fork(clock)

    def view(self) -> CellView:
        """Return a view of it as a listing would leave it; only the cell is shared, as it stays."""
        seen = self._seen
        return CellView(
            cell=self.cell,
            revision=self.revision,
            placed_at=self.revision,
            sessions=dict(seen.sessions),
            written_at=dict(seen.written_at),
        )


def queue_of(contest: Contest, number: int) -> str:
    """Return the name of the queue that a scheduler serves."""
    return "q" if contest.queues == "one" else f"q{number}"


def policy_of(policies: Policies, contest: Contest, number: int) -> Policy:
    """Return a new policy for a scheduler."""
    if callable(policies):
        return policies()
    return policies[contest.kind(number) % len(policies)]()


def play(
    ground: Ground,
    choices: Sequence[int],
    *,
    policy: Policies = Policy,
    mitigations: Mitigations = ALL,
    checked: bool = True,
    told: bool = False,
) -> Played:
    """Play one run of a contest.

    Args:
        ground: The contest and its cell; one for many runs.
        choices: Which of the moves that are possible happens, one number for each time that there
            are several; any number counts, by its remainder. Where they end, the calm goes on.
        policy: What decides; each scheduler has one of its own. Of several, which one is said by
            the contest.
        mitigations: What is done about races.
        checked: Whether the laws are checked at each revision.
        told: Whether the story is kept.

    Raises:
        Restless: There was no end.
    """
    return _Run(ground, choices, policy, mitigations, checked=checked, told=told).played()


# -- one scheduler


class _Contender:
    """One scheduler: its machine, and what is on the way to and from it."""

    def __init__(
        self, run: "_Run", number: int, fence: Fence, policy: Policies, ways: Mitigations
    ) -> None:
        ground, contest = run.ground, run.ground.contest
        self.number = number
        self.inbox: deque[tuple[float, int, list[Change]]] = deque()  # when, revision
        self.answers: deque[tuple[float, Commit, list[Answer]]] = deque()
        self.requests: deque[tuple[float, Commit]] = deque()
        self.busy_until = 0.0
        self.part = SchedulerPart()
        self._run = run
        self._ahead = 0.0
        self._awake_at = 0.0  # since when it has something to look at; inf = nothing
        self._thought: dict[str, float] = {}  # slice -> seconds in its newest plan
        self._lost = set[str]()  # whose newest plan conflicted; it may be repaired
        mine = self._thinking(policy_of(policy, contest, number), contest, chance=ways.chance)
        store = run.store
        lease = store.lease(_TTL_SECONDS).id if ways.marks else None
        self.machine = Scheduling(
            ground.view(),
            mine,
            session=f"s{number}",
            fence=lambda: fence,
            # Whoever has no chance of its own pauses like all others, too.
            seed=contest.seed * 1_000 + number,
            fits=run.fits,
            stopwatch=self._clock,
            clock=run.clock.monotonic,
            new_attempt=run.attempts.__next__,
            alone=not ways.division,
            wall=self._clock,
            lease=(lambda: lease) if lease is not None else None,
            repairs=ways.repair,
            homes=ways.homes,
        )
        if not ways.back_off:
            vars(self.machine)["_pause"] = lambda _losses: 0.0
        if not ways.avoidance:
            vars(self.machine.lost)["avoided"] = lambda _now: frozenset[str]()
        self.machine.relisted()

    def _thinking(self, policy: Policy, contest: Contest, *, chance: bool) -> Policy:
        """Return a policy of its own that plans like another one, and takes its time."""
        mine, pace = copy(policy), contest.pace(self.number)
        mine.name = queue_of(contest, self.number)

        def plan(
            pool: Pool, spec: SliceSpec, *, seed: int, avoid: Collection[str]
        ) -> Decision | Unplaceable:
            found = policy.plan(pool, spec, seed=seed if chance else 0, avoid=avoid)
            took = pace.seconds(engines_of(spec))
            self._ahead += took
            if isinstance(found, Unplaceable):
                self.part.vain_s += took
                self.part.vain += 1
            elif pool.view.supposing:  # all that it takes to find who may give way is one plan
                self._thought[spec.id] = self._thought.get(spec.id, 0.0) + took
            else:
                self.part.plans += 1
                self.part.wasted_s += self._thought.pop(spec.id, 0.0)
                self._thought[spec.id] = took
                self._lost.discard(spec.id)
            return found

        vars(mine)["plan"] = plan  # on this one object: its class stays what the scheduler knows
        return mine

    def _clock(self) -> float:
        return self._run.clock.now + self._ahead

    # -- what could happen

    def moves(self, now: float) -> Iterator[tuple[Move, float]]:
        """Yield what it could do now, the calm order first, and since when it could."""
        number = self.number
        if now >= self.busy_until:
            if self.inbox:
                yield Move(number, "hear"), self.inbox[0][0]
            if self.answers:
                yield Move(number, "be told"), self.answers[0][0]
            wakes = min(self._awake_at, self.machine.wake_at())
            if wakes <= now:
                yield Move(number, "plan"), max(wakes, self.busy_until)
        if self.requests and self.requests[0][0] <= now:
            yield Move(number, "send"), self.requests[0][0]

    def next_at(self, now: float) -> float:
        """Return when it could do something that it cannot do now."""
        at = self.busy_until if now < self.busy_until else self.machine.wake_at()
        if self.requests:
            ready = self.requests[0][0]
            at = min(at if at > now else inf, ready if ready > now else inf)
        return at if at > now else inf

    # -- what happens

    def hear(self) -> str:
        """Take in the news of one revision."""
        _, revision, changes = self.inbox.popleft()
        machine, view = self.machine, self.machine.view
        for change in changes:
            machine.changed(view.apply(change))
        view.progressed(revision)
        self._awake_at = self._run.clock.now
        return ", ".join(change.key for change in changes)

    def be_told(self) -> str:
        """Take in the answers to one request."""
        _, commit, answers = self.answers.popleft()
        self.machine.answered(commit, answers, self._run.clock.now)
        self._awake_at = self._run.clock.now
        return ", ".join(type(answer).__name__.lower() for answer in answers)

    def plan(self) -> str:
        """Let it do what it finds to do; it takes the time that its plans take."""
        now = self._run.clock.now
        self._awake_at = inf
        instructions = self.machine.step(now)
        took, self._ahead = self._ahead, 0.0
        self.busy_until = now + took
        asked = []
        for instruction in instructions:
            assert isinstance(instruction, Commit), "schedulers only commit"
            self.requests.append((self.busy_until, instruction))
            asked += [f"{p.step} {p.identifier}" for p in instruction.proposals]
        return ", ".join(asked) or "nothing to do"

    def send(self) -> str:
        """Have the store decide on a request."""
        _, commit = self.requests.popleft()
        answers = self._run.carry_out(commit.proposals)
        for proposal, answer in zip(commit.proposals, answers, strict=True):
            if proposal.step == "commit":
                name = proposal.identifier
                if isinstance(answer, Committed):
                    self.part.placed += 1
                    self.part.useful_s += self._thought.pop(name, 0.0)
                    self._lost.discard(name)
                else:
                    self.part.conflicts += isinstance(answer, Conflicted)
                    self._lost.add(name)
        self.answers.append((self._run.clock.now, commit, answers))
        return ", ".join(
            f"{p.identifier} {type(a).__name__.lower()}"
            for p, a in zip(commit.proposals, answers, strict=True)
        )

    def finish(self) -> SchedulerPart:
        """Return what it did."""
        self.part.plans += self.machine.figures.repaired
        for name, seconds in self._thought.items():
            if name in self._lost:
                self.part.wasted_s += seconds
            else:
                self.part.vain_s += seconds  # it was not sent before the end
        return self.part


# -- a run


class _Run:
    """The store, everybody, and the choices that are left."""

    def __init__(
        self,
        ground: Ground,
        choices: Sequence[int],
        policy: Policies,
        ways: Mitigations,
        *,
        checked: bool,
        told: bool,
    ) -> None:
        contest = ground.contest
        self.ground = ground
        self.clock = VirtualClock()
        self.line = Timeline(self.clock)
        self.store = ground.store(self.clock)
        self.attempts = map("a{:x}".format, count(1))
        self.found = Played()
        self._choices = choices
        self._policy = policy
        self._told = told
        self._news: list[Change] = []
        self._came: dict[str, float] = {}
        self._checker = Checker(State.read(self.store.read([""]))) if checked else None
        self.store.watch([""], after=ground.revision, deliver=self._noted)
        self.life = Life(
            self.line,
            ground.view(),
            self._ask,
            self.store.fits,
            ground.controller,
            gather_s=0.0,
            keeps_ended=False,
            ended=lambda _name, _placement: None,
        )
        self.contenders = [
            _Contender(self, number, fence, policy, ways)
            for number, fence in enumerate(ground.fences)
        ]
        arrivals = []
        for number, arrival in enumerate(contest.arrivals):
            spec = replace(arrival.spec, policy=queue_of(contest, number % contest.schedulers))
            self._came[spec.id] = arrival.at_s
            arrivals.append(arrival._replace(spec=spec))
        self.life.expect(arrivals)

    # -- the store

    def fits(self, proposals: Sequence[Proposal]) -> bool:
        """Whether the store takes them in one request."""
        return self.store.fits([proposal.transaction for proposal in proposals])

    def carry_out(self, proposals: Sequence[Proposal]) -> list[Answer]:
        """Commit one request of a scheduler now."""
        answers: list[Answer]
        try:
            answers = list(self.store.commit([proposal.transaction for proposal in proposals]))
        except (StoreRefused, TransactionTooLarge) as error:
            return [Refused(error) for _ in proposals]
        known = []
        for proposal, answer in zip(proposals, answers, strict=True):
            if isinstance(answer, Committed) and proposal.placement is not None and proposal.record:
                known.append(proposal)
                if proposal.step == "commit":
                    name = proposal.identifier
                    self.found.waits.setdefault(name, self.clock.now - self._came[name])
        self._tell(known)
        return answers

    def _ask(self, transactions: Sequence[Transaction]) -> list[Outcome]:
        outcomes = self.store.commit(transactions)
        self._tell(())
        return outcomes

    def _noted(self, message: WatchMessage) -> None:
        assert isinstance(message, Changes), "this watch is never lost"
        self._news += message.changes
        if self._checker is not None:
            broken = self._checker.step(message.changes)
            self.found.violations += [v for v in broken if v.law not in _LIFES]

    def _tell(self, known: Sequence[Proposal]) -> None:
        """Show what was just written to the life, and send it on its way to all schedulers."""
        news, self._news = self._news, []
        if not news:
            return
        revision, now = news[-1].modified, self.clock.now
        news = [change for change in news if change.key.startswith(SCHEDULER_FOLLOWS)]
        # Of one revision in any order; so, nobody queues a slice whose end comes with it.
        news.sort(key=lambda change: change.key.startswith("placement/"))
        self.life.follow([c for c in news if c.key.startswith(("placement/", "slice/"))], known)
        self.life.view.progressed(revision)
        for contender in self.contenders:
            contender.inbox.append((now, revision, news))

    # -- what happens

    def played(self) -> Played:
        """Let everything happen, and return what came of it."""
        found = self.found
        self.line.run(0.0)
        most = MOVES_MAX * (1 + len(self._came))
        while (move := self._next()) is not None:
            if found.moves == most:
                raise Restless(self._concluded())
            found.moves += 1
            if move is not _PASS:
                contender = self.contenders[move.scheduler]
                what = getattr(contender, move.what.replace(" ", "_"))()
                if self._told:
                    found.story.append(
                        f"{self.clock.now:.3f} s{move.scheduler} {move.what}: {what}"
                    )
        return self._concluded()

    def _concluded(self) -> Played:
        """Return what has come of it by now."""
        found = self.found
        found.seconds = self.clock.now
        for contender in self.contenders:
            while contender.answers:  # what is lost counts, whether it was heard of or not
                contender.be_told()
        while found.choices and not found.choices[-1]:
            found.choices.pop()  # the calm goes on by itself
        found.parts = [contender.finish() for contender in self.contenders]
        causes: Counter[str] = Counter()
        for contender in self.contenders:
            causes.update(contender.machine.lost.causes)
        found.causes = dict(causes.most_common())
        for name, at in self._came.items():
            if name not in found.waits and at <= found.seconds:
                found.unplaced.append(name)
                found.waits[name] = found.seconds - at
        quiet = self.clock.now >= self.life.moved_at + LEFT_SECONDS
        if found.unplaced and quiet and not self.contenders[0].machine.view.marks:
            found.left = [name for name in found.unplaced if self._finds_room(name)]
        return found

    def _finds_room(self, name: str) -> bool:
        view = self.life.view
        ghosts = {engine_unit(engine) for engine in self.ground.contest.ghosts}
        spec = view.slices[name].value.spec
        contest = self.ground.contest
        served = [n for n in range(contest.schedulers) if queue_of(contest, n) == spec.policy]
        policy = policy_of(self._policy, contest, served[0])
        answer = policy.plan(Pool(view), spec, seed=0, avoid=ghosts)
        return isinstance(answer, Decision)

    def _next(self) -> Move | None:
        """Return what happens next, None = nothing more; where time passes, it has passed then."""
        now, end = self.clock.now, self.ground.contest.seconds
        self.line.run(now)  # who gives way does so at once
        if self._over():
            return None
        able, deadline, later = list[Move](), inf, self.line.next_at()
        for contender in self.contenders:
            for move, since in contender.moves(now):
                able.append(move)
                deadline = min(deadline, since + self.ground.contest.delay_s)
            later = min(later, contender.next_at(now))
        until = min(later, deadline)
        if not able and until > end:
            self.line.run(end)
            return None
        if until > now and until <= end:
            able.append(_PASS)
        move = able[self._choose(len(able))] if len(able) > 1 else able[0]
        if move is _PASS:
            self.line.run(until)
        return move

    def _over(self) -> bool:
        """Whether all have what they wanted, and nobody will give it back."""
        return not self.life.waiting and self.line.next_at() == inf

    def _choose(self, among: int) -> int:
        choices = self.found.choices
        chosen = self._choices[len(choices)] % among if len(choices) < len(self._choices) else 0
        choices.append(chosen)
        return chosen


def _things(cell: Cell) -> Iterator[Put]:
    for thing in cell.things():
        yield Put(keys.inventory(FAMILY_OF[type(thing)], name_of(thing)), encode(thing))


def _put(store: SimStore, operations: Sequence[Operation]) -> int:
    """Write without comparing anything; return the newest revision."""
    for start in range(0, len(operations), 100):
        store.commit([Transaction((), tuple(operations[start : start + 100]))])
    return store.revision
