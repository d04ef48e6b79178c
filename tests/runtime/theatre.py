"""How do the real machines get on when every request, answer and message is a move of its own?

A `Theatre` is a little cell on a memory store in virtual time. Each `Player` runs one real machine
with a session, a view and a watch of its own, as the shell would, but only when it is told to. After
every revision the laws of `flowos.verify` are checked, and after every move whether the devices are
used by those alone who hold them.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import inf
from typing import Any, Final

from flowos.drivers.sim import SimSettings
from flowos.drivers.step import Driver, Verb
from flowos.model import keys
from flowos.model.cell import FAMILY_OF, Cell, name_of
from flowos.model.codec import decode, encode
from flowos.model.errors import StoreError, StoreRefused
from flowos.model.life import phase_in
from flowos.model.placement import Observed, Placement, Session
from flowos.model.protocols import Lease
from flowos.model.slice import End, Phase, Slice, SliceSpec, Waiting
from flowos.model.transaction import (
    Changes,
    Committed,
    Conflicted,
    Delete,
    Operation,
    Outcome,
    Progress,
    Put,
    Transaction,
    Versioned,
    WatchMessage,
)
from flowos.model.view import CellView
from flowos.planning.policy import Policy
from flowos.protocol import system
from flowos.protocol.proposal import Fence, Proposal
from flowos.runtime.agent import Agent
from flowos.runtime.lifecycle import Lifecycle, Rules, election
from flowos.runtime.machine import Answer, Commit, Compact, Machine, Refused
from flowos.runtime.processes import AGENT_FOLLOWS, CONTROLLER_FOLLOWS
from flowos.runtime.scheduling import SCHEDULER_FOLLOWS, Scheduling
from flowos.simulation.devices import Bench, Devices
from flowos.simulation.stage import VirtualClock
from flowos.verify.invariants import Checker
from flowos.verify.laws import Violation
from flowos.verify.state import State, by_revision
from flowos.verify.steps import phases_of
from flowos_schedulers.batch import Batch
from flowos_store.memory import MemoryStore

MOVES_MAX: Final = 20_000  # at one moment of time; more means that they never come to rest
CALM: Final = Rules(idle_off_seconds=0)
EVER: Final = 10**9  # seconds: a lease that lives until its holder dies
TTL_SECONDS: Final = 10.0


@dataclass
class OwnSession:
    """A player's place in the cell."""

    id: str
    key: str
    lease: Lease
    record: Session
    fence: Fence


class Theatre:
    """The cell, the store, the clock and the players."""

    def __init__(self, cell: Cell, *, operations_max: int = 128) -> None:
        self.clock = VirtualClock()
        self.store = MemoryStore(self.clock, operations_max=operations_max)
        self.devices = Devices()
        self.players: list[Player] = []
        self.late: list[Commit] = []  # of the dead; still on the network
        self.expiries: list[tuple[float, Lease]] = []
        self.trace: list[str] = []
        self.violations: list[Violation] = []
        self.lives: dict[str, list[Phase]] = {}
        self.forgiven: set[str] = set()  # laws that the test breaks on purpose
        self.moves = 0
        self.before_move: Callable[[], None] = lambda: None
        self._count = 0
        things = [
            Put(keys.inventory(FAMILY_OF[type(thing)], name_of(thing)), encode(thing))
            for thing in cell.things()
        ]
        for start in range(0, len(things), operations_max):
            self.write(*things[start : start + operations_max])
        reading = self.store.read([""])
        self.checker = Checker(State.read(reading))
        self.store.watch([""], after=reading.revision, deliver=self._check_revision)

    # -- the store

    def write(self, *operations: Operation) -> int:
        """Write without comparing anything."""
        (outcome,) = self.store.commit([Transaction((), operations)])
        assert isinstance(outcome, Committed)
        return outcome.revision

    def records(self, prefix: str) -> dict[str, Versioned]:
        return {record.key: record for record in self.store.read([prefix]).records}

    def fresh(self, word: str) -> str:
        """Return a name that was not given before."""
        self._count += 1
        return f"{word}{self._count}"

    def _check_revision(self, message: WatchMessage) -> None:
        assert isinstance(message, Changes)
        for together in by_revision(message.changes):
            found = self.checker.step(together)
            self.violations += [v for v in found if v.law not in self.forgiven]
            self._follow_lives()

    def _follow_lives(self) -> None:
        facts = self.checker.facts
        for identifier in {*facts.slices, *facts.placements}:
            if identifier.startswith("~"):
                continue
            for uid, phase in phases_of(facts, identifier).items():
                life = self.lives.setdefault(f"{identifier}#{uid}", [])
                if not life or life[-1] != phase:
                    life.append(phase)

    def life(self, identifier: str) -> list[str]:
        """The phases that the newest slice of a name went through."""
        *_, newest = (life for key, life in self.lives.items() if key.startswith(f"{identifier}#"))
        return [str(phase) for phase in newest]

    def edges(self) -> set[tuple[Phase, Phase]]:
        """The steps of the life cycle that any slice took."""
        return {edge for life in self.lives.values() for edge in pairwise(life)}

    def check(self) -> None:
        told = "\n".join(self.trace[-30:])
        assert not self.violations, f"{self.violations[:3]}\nafter:\n{told}"
        try:
            self.devices.check({key.partition("/")[2] for key in self.records("claim/")})
        except AssertionError as error:
            raise AssertionError(f"{error}\nafter:\n{told}") from None

    # -- users and operators

    def submit(self, *specs: SliceSpec) -> None:
        for spec in specs:
            record = Slice(spec, submitted_at=self.clock.now)
            self.write(Put(keys.slice_(spec.id), encode(record)))

    def wish(self, identifier: str, **what: Any) -> None:
        """Change a slice's own record as its user may."""
        record = self.slice(identifier)
        self.write(Put(keys.slice_(identifier), encode(replace(record, **what))))

    def do(self, step: Callable[[CellView], Proposal | None]) -> None:
        """Commit an operator's step, which must be allowed and not conflict."""
        proposal = step(self.view())
        assert proposal is not None
        (outcome,) = self.store.commit([proposal.transaction])
        assert isinstance(outcome, Committed)

    def drain(self, unit: str, deadline_at: float | None = None) -> None:
        """Drain a unit as an operator does."""
        attempt = self.fresh("d")
        self.do(
            lambda view: system.drain(
                view, unit, attempt=attempt, fence=None, deadline_at=deadline_at
            )
        )

    def take_away(self, *identifiers: str) -> None:
        """Take slices' placements and claims away, as if they had been given back."""
        gone: list[Operation] = []
        for identifier in identifiers:
            placement = self.placed(identifier)
            gone += [Delete(keys.placement(identifier)), Delete(keys.slice_(identifier))]
            gone += [Delete(keys.order(place, placement.attempt)) for place in placement.ordered]
            gone += [
                Delete(key)
                for key in self.records("claim/")
                if key.endswith(placement.attempt) or key.removeprefix("claim/") in placement.held
            ]
        self.forgiven |= {"freed", "phases"}
        self.write(*gone)

    # -- looking

    def view(self) -> CellView:
        view = CellView()
        reading = self.store.read([""])
        view.load(reading.records)
        view.progressed(reading.revision)
        return view

    def slice(self, identifier: str) -> Slice:
        return decode(Slice, self.records(keys.slice_(identifier))[f"slice/{identifier}"].value)

    def placement(self, identifier: str) -> Placement | None:
        record = self.records("placement/").get(keys.placement(identifier))
        return decode(Placement, record.value) if record else None

    def placed(self, identifier: str) -> Placement:
        placement = self.placement(identifier)
        assert placement is not None, f"{identifier} is not placed"
        return placement

    def end(self, identifier: str) -> End:
        end = self.slice(identifier).end
        assert end is not None, f"{identifier} has not ended"
        return end

    def held(self, identifier: str) -> list[str]:
        """The engines that a slice holds."""
        placement = self.placement(identifier)
        return [e for role in placement.engines.values() for e in role] if placement else []

    def phase(self, identifier: str) -> Phase | None:
        return phase_in(self.view(), identifier)

    def waiting(self, identifier: str) -> Waiting:
        record = self.records("reason/").get(keys.reason(identifier))
        assert record is not None, f"nothing is said of why {identifier} waits"
        return decode(Waiting, record.value)

    def waits(self, identifier: str) -> bool:
        """Whether it is said why a slice waits."""
        return keys.reason(identifier) in self.records("reason/")

    def observed(self, engine: str) -> Observed:
        record = self.records("observed/").get(keys.observed(engine))
        return decode(Observed, record.value) if record else Observed()

    def grants(self) -> dict[str, int]:
        return {key: decode(int, r.value) for key, r in self.records("grant/").items()}

    def over(self) -> bool:
        """Whether every slice has ended, and nothing is left of any but its record."""
        left = (*self.records("placement/"), *self.records("claim/"), *self.records("order/"))
        return (
            all(decode(Slice, r.value).end for r in self.records("slice/").values())
            and all("/~off/" in key or self._of_an_off(key) for key in left)
            and not self.records("report/")
        )

    def _of_an_off(self, key: str) -> bool:
        offs = list(self.records("placement/~off/"))
        units = {name.removeprefix("placement/~off/") for name in offs}
        return key.removeprefix("claim/") in units or any(
            key.endswith(decode(Placement, self.records(name)[name].value).attempt) for name in offs
        )

    # -- time

    def settle(self) -> None:
        """Let everybody act until nobody has anything to do at this moment."""
        for _ in range(MOVES_MAX):
            moved = False
            for player in list(self.players):
                move = player.next_move()
                if move:
                    player.move(move)
                    moved = True
            if not moved:
                return
        told = "\n".join(self.trace[-30:])
        raise AssertionError(f"no rest after {MOVES_MAX} moves:\n{told}")

    def advance(self, at: float) -> None:
        """Move the clock; leases of the dead run out."""
        self.clock.now = max(self.clock.now, at)
        for expiry in [e for e in self.expiries if e[0] <= self.clock.now]:
            self.expiries.remove(expiry)
            self.trace.append(f"{self.clock.now:.2f} lease {expiry[1].id} is over")
            expiry[1].revoke()

    def play(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Let time pass, from event to event; return whether `until` came true."""
        deadline = self.clock.now + seconds
        self.settle()
        while not until():
            at = min(
                [player.machine.wake_at() for player in self.players if player.acts]
                + [at for at, _ in self.expiries],
                default=inf,
            )
            self.advance(min(at, deadline))
            self.settle()
            if at >= deadline:
                return until()
        return True

    def play_out(self, seconds: float = 300.0) -> None:
        """Play until the cell is empty and every slice has ended."""
        over = self.play(seconds, self.over)
        told = "\n".join(self.trace[-40:])
        left = [k for f in ("slice/", "placement/", "claim/", "order/") for k in self.records(f)]
        assert over, f"no end: {left}\n{told}"

    # -- players

    def scheduler(
        self,
        name: str = "batch-0",
        *,
        policy: Policy | None = None,
        alone: bool = False,
        ahead_seconds: float = 0.0,
    ) -> "Player":
        served = policy.name if policy else "batch"

        def make(player: Player) -> Machine:
            return Scheduling(
                CellView(),
                policy or Batch(),
                session=player.session.id,
                fence=lambda: player.session.fence,
                seed=len(self.trace) + len(self.players),
                fits=self.fits,
                stopwatch=self.clock.monotonic,
                new_attempt=lambda: self.fresh("a"),
                alone=alone,
                wall=lambda: self.clock.wall() + ahead_seconds,
                lease=lambda: player.session.lease.id,
            )

        return self._enter(Player(self, "scheduler", name, SCHEDULER_FOLLOWS, make, policy=served))

    def controller(self, name: str = "controller-0", rules: Rules = CALM) -> "Player":
        def make(player: Player) -> Machine:
            session, view = player.session, CellView()

            def leads() -> bool:
                entry = view.sessions.get("controller/leader")
                return entry is not None and entry.value == session.record

            return Lifecycle(
                view,
                fence=lambda: session.fence,
                wall=self.clock.wall,
                new_attempt=lambda: self.fresh("s"),
                fits=self.fits,
                leads=leads,
                rules=rules,
                candidacy=lambda: election(session.fence, encode(session.record), session.lease.id),
            )

        return self._enter(Player(self, "controller", name, CONTROLLER_FOLLOWS, make))

    def agent(
        self,
        *places: str,
        seconds: Mapping[Verb, float] | None = None,
        prepare: Callable[[Bench], None] = lambda _bench: None,
    ) -> "Player":
        """Let an agent act for some places; for all of the cell where none is named."""
        served = places or tuple(sorted({**self.view().cell.nodes, **self.view().cell.switches}))

        def make(player: Player) -> Machine:
            bench = Bench(self.devices, SimSettings(seconds or {}))
            prepare(bench)
            player.bench = bench
            return Agent(
                CellView(),
                _typed(bench),
                fence=lambda: player.session.fence,
                serves=served.__contains__,
                fits=self.fits,
            )

        name = "+".join(places) or "all"
        return self._enter(Player(self, "agents", name, AGENT_FOLLOWS, make, places=served))

    def fits(self, proposals: Sequence[Proposal]) -> bool:
        return self.store.fits([proposal.transaction for proposal in proposals])

    def _enter(self, player: "Player") -> "Player":
        self.players.append(player)
        player.enter()
        return player


def _typed(bench: Bench) -> Driver:
    return bench


class Player:
    """One process: a machine, its session, its view and what is on the way to and from it."""

    def __init__(
        self,
        theatre: Theatre,
        role: str,
        name: str,
        follows: Sequence[str],
        make: Callable[["Player"], Machine],
        *,
        places: Sequence[str] = (),
        policy: str = "",
    ) -> None:
        self.theatre = theatre
        self.role, self.name, self.policy = role, name, policy
        self.places = places
        self.follows = follows
        self.acts = True  # False = stopped: it neither hears nor acts, and its lease may run out
        self.requests: deque[Commit] = deque()
        self.answers: deque[tuple[Commit, list[Answer]]] = deque()
        self.compactions: list[int] = []
        self.bench: Any = None
        self._make = make
        self._inbox: deque[WatchMessage] = deque()
        self._awake = False

    def enter(self) -> None:
        """Begin a life: session, machine, listing, watch."""
        theatre, store = self.theatre, self.theatre.store
        lease = store.lease(EVER)
        identifier = theatre.fresh(f"{self.name}@")
        record = Session(self.role, self.name, self.policy, started_at=float(lease.id))
        key = keys.session(self.role, identifier)
        puts = [Put(key, encode(record), lease.id)]
        puts += [
            Put(keys.session("agent", place), encode(Session("agent", self.name)), lease.id)
            for place in self.places
        ]
        revision = theatre.write(*puts)
        self.session = OwnSession(identifier, key, lease, record, Fence(key, revision))
        self.machine = self._make(self)
        self._inbox = deque()
        self._list()

    def _list(self) -> None:
        inbox, view = self._inbox, self.machine.view
        reading = self.theatre.store.read(self.follows)
        view.clear()
        view.load(reading.records)
        view.progressed(reading.revision)
        self.watch = self.theatre.store.watch(
            self.follows, after=reading.revision, deliver=inbox.append
        )
        self.machine.relisted()
        self._awake = True

    def list_again(self) -> None:
        """As after a watch that was lost."""
        self.watch.close()
        self._inbox.clear()
        self._list()

    def die(self, *, requests_land_late: bool = False) -> None:
        """End as by SIGKILL: the lease runs out by itself."""
        self.watch.close()
        if requests_land_late:
            self.theatre.late += self.requests
        self.requests.clear()
        self.answers.clear()
        self.theatre.expiries.append((self.theatre.clock.now + TTL_SECONDS, self.session.lease))
        self.acts = False
        self.theatre.trace.append(f"{self.theatre.clock.now:.2f} {self.name} dies")

    def replace(self, *, requests_land_late: bool = False) -> None:
        """Die and begin anew at once."""
        self.die(requests_land_late=requests_land_late)
        self.acts = True
        self.enter()

    def exit(self) -> None:
        """End as by SIGTERM."""
        self.watch.close()
        self.session.lease.revoke()
        self.acts = False

    # -- moves

    def next_move(self) -> str:
        """What the shell would do next; "" = nothing."""
        if not self.acts:
            return ""
        if self._inbox:
            return "hear"
        if self.answers:
            return "be told"
        if self._awake or self.machine.wake_at() <= self.theatre.clock.now:
            return "step"
        return "send" if self.requests else ""

    def possible_moves(self) -> list[str]:
        """All that could happen next, whatever the shell would do first."""
        if not self.acts:
            return []
        found = [("hear", self._inbox), ("be told", self.answers), ("send", self.requests)]
        moves = [move for move, there in found if there]
        if self._awake or self.machine.wake_at() <= self.theatre.clock.now:
            moves.append("step")
        return moves

    def move(self, which: str) -> None:
        """Make one move."""
        self.theatre.moves += 1
        self.theatre.before_move()
        getattr(self, f"_{which.replace(' ', '_')}")()
        self.theatre.check()

    def _hear(self) -> None:
        if not self._inbox:
            return
        message = self._inbox.popleft()
        self._awake = True
        match message:
            case Changes(changes):
                for change in changes:
                    self.machine.changed(self.machine.view.apply(change))
                self.watch.ask_progress()
            case Progress(revision):
                self.machine.view.progressed(revision)

    def _step(self) -> None:
        self._awake = False
        for instruction in self.machine.step(self.theatre.clock.now):
            match instruction:
                case Commit():
                    self.requests.append(instruction)
                case Compact(before):
                    self.compactions.append(before)
                    self.theatre.store.compact(before)

    def _send(self) -> None:
        if not self.requests:
            return
        commit = self.requests.popleft()
        self.answers.append((commit, self.theatre_commit(commit)))

    def theatre_commit(self, commit: Commit) -> list[Answer]:
        """Apply a request of this player's."""
        theatre = self.theatre
        transactions = [proposal.transaction for proposal in commit.proposals]
        outcomes: list[Answer]
        try:
            outcomes = list(theatre.store.commit(transactions))
        except StoreError as error:
            outcomes = [Refused(error) for _ in transactions]
        for proposal, outcome in zip(commit.proposals, outcomes, strict=True):
            how = type(outcome).__name__.lower()
            theatre.trace.append(
                f"{theatre.clock.now:.2f} {self.name}: {proposal.step} {proposal.identifier} {how}"
            )
        return outcomes

    def _be_told(self) -> None:
        if not self.answers:
            return
        commit, answers = self.answers.popleft()
        if any(isinstance(answer, Conflicted) for answer in answers):
            self.watch.ask_progress()  # the shell asks, for the machine waits for what it shows
        self.machine.answered(commit, answers, self.theatre.clock.now)
        self._awake = True


class Moods:
    """What the store thinks of requests: `refuse` says of which it won't have any."""

    def __init__(self, theatre: Theatre, refuse: Callable[[Sequence[Transaction]], bool]) -> None:
        self.refuse = refuse
        self.sizes: list[int] = []
        self._commit = theatre.store.commit
        theatre.store.commit = self.commit  # type: ignore[method-assign]

    def commit(
        self, transactions: Sequence[Transaction], *, timeout_seconds: float = 5.0
    ) -> list[Outcome]:
        if self.refuse(transactions):
            self.sizes.append(len(transactions))
            raise StoreRefused("etcdserver: mvcc: database space exceeded")
        return self._commit(transactions)
