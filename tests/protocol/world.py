"""What happens when real rules, stale views, lost answers and slow agents meet on one store?

A `World` is a little cell on a store, with users, operators, `Control` processes that each have
their own view, and an `Agent` per node and switch. Every move is one step; after each the `Laws`
are checked. Nothing happens by itself: a message is heard when a test says so, a request is
applied later, never, or with its answer lost.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import attrgetter
from typing import Any, Final

from flowos.model import keys
from flowos.model.cell import Cell, Domain, Tenant, name_of
from flowos.model.codec import decode, encode
from flowos.model.errors import TransactionTooLarge
from flowos.model.placement import Decision, Ending, Order, Placement, Report, Session
from flowos.model.protocols import CellStore, Lease
from flowos.model.rules import Reservation
from flowos.model.slice import End, Phase, Slice, SliceSpec
from flowos.model.transaction import (
    Change,
    Changes,
    Committed,
    Conflicted,
    Delete,
    Outcome,
    Progress,
    Put,
    Seen,
    Transaction,
    Versioned,
    WatchMessage,
)
from flowos.runtime.machine import TAKING
from flowos_store.memory import MemoryStore
from tests.protocol.laws import Built, LawBroken, Laws
from tests.protocol.little_cell import PURSE, little_cell
from tests.protocol.rules import Rules, real

# What each process watches: families whose changes it hears independently of each other.
HEARD: Final = (
    *keys.INVENTORY,
    "placement/",
    "slice/",
    "order/",
    "report/",
    "session/",
    "grant/",
    "rule/",
)
DONE: Final = Ending(Phase.DONE)
CANCELLED: Final = Ending(Phase.CANCELLED)
AGAIN: Final = Ending(Phase.PENDING)

ARRIVES_SECONDS: Final = 10.0  # for a real store on a busy machine
ROUNDS_MAX: Final = 60


class StillClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now


@dataclass(eq=False)
class Request:
    """Proposals on their way to the store, all in one request."""

    sender: "Control"
    proposals: tuple[Any, ...]
    given_up: bool = False  # its sender has decided that it did not happen

    @property
    def transactions(self) -> list[Transaction]:
        return [proposal.transaction for proposal in self.proposals]

    @property
    def name(self) -> str:
        return " + ".join(f"{p.step} {p.identifier}" for p in self.proposals)


class World:
    """One cell, its store and everybody who acts on it."""

    def __init__(
        self,
        rules: Rules | None = None,
        *,
        budget: int | None = None,
        quota: int | None = None,
        operations_max: int = 128,
        store: CellStore | None = None,
    ) -> None:
        self.rules = rules or real()
        self.store = store or MemoryStore(StillClock(), operations_max=operations_max)
        self.cell = little_cell(budget, quota)
        self.laws = Laws(self.cell)
        self.controls: list[Control] = []
        self.late: list[Request] = []  # on the network; nobody waits for the answer
        self.trace: list[str] = []
        self._attempts = 0
        things = [
            Put(keys.inventory(family, name), encode(t)) for family, name, t in named(self.cell)
        ]
        for start in range(0, len(things), operations_max):
            self._write(*things[start : start + operations_max])
        self.agents = {p: Agent(self, p) for p in (*self.cell.nodes, *self.cell.switches)}
        self.check()

    # -- the store

    def state(self) -> dict[str, Versioned]:
        """Return every record."""
        return {record.key: record for record in self.store.read(("",)).records}

    def check(self) -> None:
        """Look whether the laws hold now."""
        built = sorted(b for agent in self.agents.values() for b in agent.built)
        try:
            self.laws.look(self.state(), built)
        except LawBroken as error:
            raise LawBroken(f"{error}\n  after: " + "\n         ".join(self.trace[-40:])) from None

    def commit(self, transactions: Sequence[Transaction], what: str) -> list[Outcome]:
        """Apply one request and check."""
        outcomes = self.store.commit(transactions)
        verdicts = "".join("+" if isinstance(o, Committed) else "-" for o in outcomes)
        self.trace.append(f"{what} {verdicts}")
        self.check()
        return outcomes

    def arrive(self, request: Request) -> list[Outcome]:
        """Apply a request whose sender no longer listens."""
        self.late.remove(request)
        try:
            outcomes = self.commit(request.transactions, f"late: {request.name}")
        except TransactionTooLarge:
            return []
        if request.given_up and any(isinstance(o, Committed) for o in outcomes):
            raise LawBroken(f"{request.name} was decided not to happen, and happened")
        return outcomes

    def _write(self, *puts: Put) -> int:
        (outcome,) = self.store.commit([Transaction((), puts)])
        assert isinstance(outcome, Committed)
        return outcome.revision

    def fresh(self) -> str:
        """Return an attempt id that no commit has had."""
        self._attempts += 1
        return f"a{self._attempts}"

    # -- users and operators

    def record(self, identifier: str) -> Slice | None:
        """Return a slice's own record."""
        found = self.state().get(keys.slice_(identifier))
        return decode(Slice, found.value) if found else None

    def submit(self, *names: str) -> None:
        """Ask for slices of tenant t."""
        for name in names:
            tenant, _, short = name.partition("/")
            request = Slice(SliceSpec(name=short, tenant=tenant))
            put = Put(keys.slice_(name), encode(request))
            self.commit([Transaction((Seen(put.key, 0),), (put,))], f"submit {name}")

    def wish(self, name: str, **what: bool) -> None:
        """Change a living slice's record as its user may: cancelled, held."""
        found = self.state().get(keys.slice_(name))
        if found is None or decode(Slice, found.value).end:
            return
        record = replace(decode(Slice, found.value), **what)  # type: ignore[arg-type]
        change = Transaction((Seen(found.key, found.modified),), (Put(found.key, encode(record)),))
        self.commit([change], f"wish {name} {what}")

    def set_budget(self, watts: int) -> None:
        """Change what domain d may draw."""
        self.trace.append(f"budget {watts}")
        self._write(Put("domain/d", encode(Domain("d", budget_watts=watts))))
        self.check()

    def reserve(
        self, name: str, *units: str, tenants: tuple[str, ...] = ("t",), **more: Any
    ) -> None:
        """Keep units for tenants, as `reservation add` does."""
        self.trace.append(f"reserve {name} for {tenants}")
        window = Reservation(name, units, tenants, **more)
        self._write(Put(keys.reservation(name), encode(window)), Put(keys.RESERVATIONS, b'"r"'))
        self.check()

    def unreserve(self, name: str) -> None:
        """Keep them no longer, as `reservation rm` does."""
        self.trace.append(f"unreserve {name}")
        gone = Transaction((), (Delete(keys.reservation(name)), Put(keys.RESERVATIONS, b'"r"')))
        self.commit([gone], f"unreserve {name}")

    def set_quota(self, gpus: int | None) -> None:
        """Change what tenant t may hold, and with it its epoch, as `tenant set` does."""
        self.trace.append(f"quota {gpus}")
        tenant = Tenant("t", quota={} if gpus is None else {"gpu": gpus})
        self._write(Put("tenant/t", encode(tenant)), Put(keys.epoch("tenant:t"), encode("t")))
        self.check()

    # -- who acts

    def control(self, name: str, role: str = "scheduler") -> "Control":
        """Start a scheduler, controller or client with a view of its own."""
        found = Control(self, name, role)
        self.controls.append(found)
        return found

    def run_agents(self) -> None:
        """Let the living agents carry out everything they know and can know."""
        while sum(agent.work() for agent in self.agents.values() if agent.works):
            pass

    # -- the end

    def clean(self) -> bool:
        """Whether nothing is held, ordered, built or granted to the dead, and every slice ended."""
        state = self.state()
        alive = {key.rpartition("/")[2] for key in state if key.startswith("session/")}
        left = ("placement/", "claim/", "order/", "report/")
        return (
            not any(key.startswith(left) for key in state)
            and {k.rpartition("/")[2] for k in state if k.startswith("grant/")} <= alive
            and not any(agent.built or agent.off for agent in self.agents.values())
            and all(
                decode(Slice, record.value).end
                for key, record in state.items()
                if key.startswith("slice/")
            )
        )

    def come_to_rest(self, plan: Callable[["Control"], Iterable[Any]]) -> None:
        """Let everything go on fairly until the cell is empty.

        What is on the network is dropped, agents return, and `plan` is asked for the steps of
        each process in turn.

        Raises:
            LawBroken: There is no end, or a law is broken on the way.
        """
        self.trace.append("-- and now fairly to the end")
        self.late.clear()
        for agent in self.agents.values():
            agent.come_back()
        for control in self.controls:
            for request in list(control.requests):
                control.drop(request)
        for _ in range(ROUNDS_MAX):
            for control in self.controls:
                control.find_out()
                control.hear()
                for proposal in plan(control):
                    control.do(proposal)
                    control.hear()
            self.run_agents()
            if self.clean():
                return
        left = [
            k for k in self.state() if k.startswith(("placement/", "claim/", "order/", "slice/"))
        ]
        raise LawBroken(f"no clean end: {left}\n  after: " + "\n         ".join(self.trace[-60:]))


def named(cell: Cell) -> Iterable[tuple[str, str, Any]]:
    """Yield a cell's things with their family and name."""
    for thing in cell.things():
        yield type(thing).__name__.lower(), name_of(thing), thing


class Control:
    """A process that plans and commits by the rules, on a view that may lag in every family."""

    def __init__(self, world: World, name: str, role: str) -> None:
        self.world = world
        self.rules = world.rules
        self.name, self.role = name, role
        self.requests: list[Request] = []
        self.unsure: list[Request] = []  # sent, and no answer came
        self.fenced_grants: dict[str, int] = {}
        self._inbox: dict[str, deque[tuple[Change, ...]]] = {}
        self._told: dict[str, int] = {}  # family -> all up to here is in its inbox
        self._open()

    def _open(self) -> None:
        self.lease: Lease = self.world.store.lease(3600)
        self.session = f"{self.name}@{self.lease.id}"
        self.key = keys.session(self.role, self.session)
        self.record = Session(self.role, self.name)
        at = self.world._write(Put(self.key, encode(self.record), self.lease.id))
        self.fence = self.rules.proposal.Fence(self.key, at)
        self.view = self.rules.view.CellView()
        reading = self.world.store.read(HEARD)
        self.view.load(reading.records)
        self.view.progressed(reading.revision)
        self._inbox = {family: deque() for family in HEARD}
        self._told = dict.fromkeys(HEARD, reading.revision)
        self.watches = [
            self.world.store.watch([family], after=reading.revision, deliver=self._into(family))
            for family in HEARD
        ]

    def _into(self, family: str) -> Callable[[WatchMessage], None]:
        inbox = self._inbox[family]

        def deliver(message: WatchMessage) -> None:  # on a thread of the store's
            if isinstance(message, Changes):
                # Some stores tell of several revisions at once; here they are heard one by one.
                for _, changes in groupby(message.changes, key=attrgetter("modified")):
                    inbox.append(tuple(changes))
            else:
                assert isinstance(message, Progress), message
                self._told[family] = message.revision

        return deliver

    def _arrived(self, family: str) -> deque[tuple[Change, ...]]:
        """Return a family's inbox, once all that was said before now is in it."""
        newest = self.world.store.read((self.key,)).revision
        watch = self.watches[HEARD.index(family)]
        deadline = time.monotonic() + ARRIVES_SECONDS
        while self._told[family] < newest:
            watch.ask_progress()
            if self._told[family] < newest:
                assert time.monotonic() < deadline, f"{family} is not told of {newest}"
                time.sleep(0.001)
        return self._inbox[family]

    # -- hearing

    def hear(self, *families: str) -> "Control":
        """Take in all that was said, of all families or only of these."""
        for family in families or HEARD:
            while self.hear_one(family):
                pass
        if not any(self._inbox.values()):
            self.view.progressed(min(self._told.values()))
        return self

    def hear_one(self, family: str) -> bool:
        """Take in the next message of a family."""
        inbox = self._arrived(family)
        if not inbox:
            return False
        for change in inbox.popleft():
            self.view.apply(change)
        return True

    def list_again(self) -> None:
        """Forget the view and read everything, as after a watch that ended."""
        for family in HEARD:
            self._arrived(family).clear()
        reading = self.world.store.read(HEARD)
        self.view.clear()
        self.view.load(reading.records)
        self.view.progressed(reading.revision)

    # -- asking

    def ask(self, *proposals: Any) -> Request | None:
        """Take steps on: what they take counts as taken in this view until the answer comes."""
        if not proposals or any(p is None for p in proposals):
            return None
        for proposal in proposals:
            if proposal.step in TAKING:
                self.view.assume(proposal.identifier, proposal.placement)
        request = Request(self, proposals)
        self.requests.append(request)
        self.world.trace.append(f"{self.name} plans {request.name}")
        return request

    def send(self, request: Request | None) -> bool:
        """Have the store answer; True where all of it happened."""
        if request is None:
            return False
        self.requests.remove(request)
        try:
            outcomes = self.world.commit(request.transactions, f"{self.name}: {request.name}")
        except TransactionTooLarge:
            outcomes = [Conflicted(0)] * len(request.proposals)
        for proposal, outcome in zip(request.proposals, outcomes, strict=True):
            if proposal.step in TAKING and isinstance(outcome, Committed):
                self.view.settle(proposal.identifier, outcome.revision, proposal.guards)
            elif proposal.step in TAKING:
                self.view.retract(proposal.identifier)
            elif proposal.step == "fence grant" and isinstance(outcome, Committed):
                self.fenced_grants[proposal.identifier] = outcome.revision
        return all(isinstance(outcome, Committed) for outcome in outcomes)

    def do(self, *proposals: Any) -> bool:
        """Ask and be answered at once."""
        return self.send(self.ask(*proposals))

    def drop(self, request: Request) -> None:
        """The request was never sent."""
        self.requests.remove(request)
        for proposal in request.proposals:
            if proposal.step in TAKING:
                self.view.retract(proposal.identifier)

    def lose(self, request: Request | None) -> Request:
        """The request is on the network and its answer will not come."""
        assert request is not None
        self.requests.remove(request)
        self.unsure.append(request)
        self.world.late.append(request)
        self.world.trace.append(f"{self.name} gets no answer to {request.name}")
        return request

    def find_out(self) -> list[bool]:
        """Decide what lost answers were: fence, then read, then act."""
        if not self.unsure:
            return []
        answers = self.rules.answers
        lost, self.unsure = self.unsure, []
        fencing = answers.fence_again(self.fence, self.record, self.lease.id)
        (outcome,) = self.world.commit([fencing], f"{self.name} fences")
        self.fence = answers.fenced(self.fence, outcome)
        found = []
        for request in lost:
            # Other steps than commits are decided anew, from what the view says after the fence.
            for proposal in [p for p in request.proposals if p.step in TAKING]:
                name = proposal.identifier
                if proposal.step == "grow":  # its attempt is not its own: the view must tell
                    self.hear()
                    self.view.retract(name)
                    continue
                key = keys.placement(name)
                read = [r for r in self.world.store.read((key,)).records if r.key == key]
                placement = decode(Placement, read[0].value) if read else None
                happened = answers.happened(placement, proposal.placement.attempt)
                if not happened:
                    self.view.retract(name)
                    request.given_up = True
                found.append(happened)
        return found

    def die(self) -> None:
        """End the process and its session; what it has sent is on the network."""
        self.world.trace.append(f"{self.name} dies")
        for request in list(self.requests):
            self.world.late.append(request)
        for watch in self.watches:
            watch.close()
        self.world.controls.remove(self)
        self.lease.revoke()
        self.world.check()

    # -- steps that tests ask for often

    def commit(
        self, name: str, what: Decision, *, preempt: bool = False, embedded: bool = False
    ) -> Any:
        """Plan a slice."""
        tenant, _, short = name.partition("/")
        record = Slice(SliceSpec(name=short, tenant=tenant))
        return self.rules.commit.commit(
            self.view,
            name,
            what,
            fence=self.fence,
            attempt=self.world.fresh(),
            scheduler=self.session,
            victims=[n for n in self.view.placements if n[0] != "~"] if preempt else (),
            spec=(name, record) if embedded else None,
        )

    def group(self, *plans: tuple[str, Decision]) -> Request | None:
        """Plan several slices on one working copy, for one request."""
        proposals = []
        for name, what in plans:
            proposal = self.commit(name, what)
            if proposal is None:
                return None
            self.view.assume(name, proposal.placement)
            proposals.append(proposal)
        return self.ask(*proposals)

    def drain(self, unit: str, *, take: bool = False) -> Any:
        """Take a unit out of use."""
        return self.rules.system.drain(
            self.view, unit, attempt=self.world.fresh(), fence=self.fence, take=take
        )

    def keep(self, name: str, unit: str) -> Any:
        """Keep a unit of an open window."""
        reserved = self.rules.reserved
        identifier = reserved.name_of(name, unit)
        return reserved.hold(self.view, identifier, attempt=self.world.fresh(), fence=self.fence)

    def let_go(self, name: str, unit: str) -> Any:
        """Keep a unit of a window that is over no longer."""
        reserved = self.rules.reserved
        return reserved.drop(self.view, reserved.name_of(name, unit), fence=self.fence)

    def power_off(self, engine: str) -> Any:
        """Power a free engine off."""
        return self.rules.system.power_off(
            self.view, engine, attempt=self.world.fresh(), fence=self.fence
        )

    def release(self, name: str, ending: Ending = DONE) -> Any:
        """Give a placement back."""
        return self.rules.release.release(self.view, name, ending, fence=self.fence)

    def free(self, name: str) -> Any:
        """Free what is clean."""
        return self.rules.release.free(self.view, name, fence=self.fence, now=0.0)

    def arm(self, name: str) -> Any:
        """Give a placement that waited its orders."""
        return self.rules.release.arm(self.view, name, fence=self.fence)

    def end_unplaced(self, name: str) -> Any:
        """Write the end of a slice that holds nothing."""
        end = End(Phase.CANCELLED)
        return self.rules.release.end_unplaced(self.view, name, end, fence=self.fence)

    def quarantine(self, place: str, name: str) -> Any:
        """Split off what a placement has at a dead place."""
        return self.rules.system.quarantine(self.view, place, name, fence=self.fence, ending=AGAIN)

    def take_out(self, place: str) -> Any:
        """Take a dead place out of service."""
        return self.rules.system.take_out(
            self.view, place, attempt=self.world.fresh(), fence=self.fence
        )

    def grow(self, name: str, to: Decision) -> Any:
        """Let a slice hold more."""
        return self.rules.resize.grow(self.view, name, to, fence=self.fence, now=1.0)

    def shrink(self, name: str, keep: Decision) -> Any:
        """Let a slice hold less."""
        return self.rules.resize.shrink(self.view, name, keep, fence=self.fence, now=1.0)

    def raise_grant(self, amount: int, purse: str = PURSE) -> Any:
        """Ask for watts of domain d, or thousandths of tenant t's GPUs."""
        grants, view = self.rules.grants, self.view
        limit = grants.limit_of(view.cell, purse) or 0
        limit -= grants.uncovered(view.cell, view.placements, purse)
        return grants.raise_grant(view, purse, self.session, amount, limit=limit, fence=self.fence)

    def give_back(self, keep: int, purse: str = PURSE) -> Any:
        """Lower the own grant."""
        return self.rules.grants.give_back(self.view, purse, self.session, keep, fence=self.fence)


class Agent:
    """The reference agent of one place: it makes devices equal to orders and then reports."""

    def __init__(self, world: World, place: str) -> None:
        self.world, self.place = world, place
        self.built: set[Built] = set()
        self.off: set[str] = set()
        self.known: dict[str, tuple[int, Order]] = {}
        self.reported: dict[str, int] = {}
        self.works = True
        self._key = keys.session("agent", place)
        self._record = encode(Session("agent", place))
        self._lease = world.store.lease(3600)
        world._write(Put(self._key, self._record, self._lease.id))

    @property
    def alive(self) -> bool:
        """Whether its session is there."""
        return self._key in self.world.state()

    # -- moves; each returns whether it changed anything

    def sync(self) -> bool:
        """Read the orders of this place."""
        before = self.known
        prefix = f"order/{self.place}/"
        self.known = {
            record.key[len(prefix) :]: (record.modified, decode(Order, record.value))
            for record in self.world.store.read((prefix,)).records
        }
        return self.known != before

    def surplus(self) -> list[Built]:
        """Return what is built and in no order that is known."""
        return sorted(self.built - self._wanted())

    def missing(self) -> list[Built]:
        """Return what can be built now: ordered, and nobody else has it up."""
        return [b for b in sorted(self._wanted() - self.built) if not self._in_the_way(b)]

    def tear_down(self, which: Built) -> bool:
        """Take one unit down."""
        self.built.remove(which)
        self._did(f"tears down {which.unit} of {which.attempt}")
        return True

    def build(self, which: Built) -> bool:
        """Build one unit; an engine that is off is powered on first."""
        self.off -= {which.unit.partition("/")[2]}
        self.built.add(which)
        self._did(f"builds {which.unit} for {which.attempt}")
        return True

    def power(self) -> bool:
        """Power engines off and on as ordered."""
        wanted = {engine for _, order in self.known.values() for engine in order.off}
        in_use = {b.unit.partition("/")[2] for b in self.built}
        changed = self.off != wanted - in_use
        self.off = wanted - in_use
        return changed

    def report(self, attempt: str) -> bool:
        """Say that the devices equal an order, if they do and the order is still the same."""
        modified, order = self.known[attempt]
        mine = {b for b in self.built if b.attempt == attempt}
        if mine != {Built(self.place, unit, attempt) for unit in order.units}:
            return False
        if self.reported.get(attempt) == modified or not self.off.issuperset(order.off):
            return False
        put = Put(keys.report(self.place, attempt), encode(Report(applied=modified)))
        same = Seen(keys.order(self.place, attempt), modified)
        what = f"agent {self.place} reports {attempt} at {modified}"
        (outcome,) = self.world.commit([Transaction((same,), (put,))], what)
        self.reported[attempt] = modified
        return isinstance(outcome, Committed)

    def work(self) -> bool:
        """Do everything that can be done now."""
        did = self.sync()
        for which in self.surplus():
            did |= self.tear_down(which)
        did |= self.power()
        while missing := self.missing():
            did |= self.build(missing[0])
        for attempt in list(self.known):
            did |= self.report(attempt)
        return did

    def lose_session(self) -> None:
        """Its lease runs out; the agent itself may go on for a while, or be gone (`works`)."""
        self.world.trace.append(f"agent {self.place} loses its session")
        self._lease.revoke()
        self.world.check()

    def lose_power(self) -> None:
        """Everything here goes down, the agent too."""
        self.works = False
        self.built.clear()
        self.off.clear()
        self.lose_session()

    def come_back(self) -> None:
        """Start again: read the orders, then tear down all that none of them names."""
        self.works = True
        self.reported.clear()
        if not self.alive:
            self._lease = self.world.store.lease(3600)
            self.world.trace.append(f"agent {self.place} is back")
            self.world._write(Put(self._key, self._record, self._lease.id))
        self.sync()
        for which in self.surplus():
            self.tear_down(which)

    # -- within

    def _wanted(self) -> set[Built]:
        return {
            Built(self.place, unit, attempt)
            for attempt, (_, order) in self.known.items()
            for unit in order.units
        }

    def _in_the_way(self, which: Built) -> bool:
        """Whether somebody else's use of the same thing is still up here."""
        kind, _, subject = which.unit.partition("/")
        others = {b.unit for b in self.built if b.attempt != which.attempt}
        if kind == "host":
            return False
        if kind == "share":
            return f"engine/{subject}" in others
        return which.unit in others or (kind == "engine" and f"share/{subject}" in others)

    def _did(self, what: str) -> None:
        self.world.trace.append(f"agent {self.place} {what}")
        self.world.check()


def placed(world: World, name: str) -> Placement | None:
    """Return a slice's placement as it is in the store."""
    found = world.state().get(keys.placement(name))
    return decode(Placement, found.value) if found else None


def held_by(world: World, name: str) -> set[str]:
    """Return the units that a placement lists, held and releasing."""
    placement = placed(world, name)
    return {*placement.held, *placement.releasing} if placement else set()
