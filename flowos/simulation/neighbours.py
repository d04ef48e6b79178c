"""What does one more scheduler cost the others in virtual time, and does the cell keep its laws?

The trial's cell without its disasters: production schedulers, a controller, agents and a user, the
laws checked at every revision; then the same with one more scheduler, good or bad.

How time is modelled: a message takes 0.2-3 ms each way, drawn, as in every trial, and the store
itself takes none: so a neighbour costs the others lost races, engines that it holds, and the work
of agents and controller on what it has won, but never a queue at the store. With `one_by_one`
there is one: a write takes WRITE_SECONDS, and PART_SECONDS for each condition and operation,
whether it is taken or refused, and waits for all that came before. Both are assumed, of the size of
a store that writes to a fast disk and never shares an fsync between two requests, as etcd does:
thus harsh. Reads, renewals and watches take no time of the store in either model, and planning
takes nobody's: that lost plans cost processor time is seen in etcd's figures only.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Final

from flowos.documents.presets import preset
from flowos.model import keys
from flowos.model.cell import Cell, Tenant
from flowos.model.codec import decode, encode
from flowos.model.errors import StoreError
from flowos.model.slice import EngineChoice, EngineRole, Run, Slice, SliceSpec
from flowos.model.transaction import (
    Changes,
    Conflicted,
    Outcome,
    Put,
    Seen,
    Transaction,
    WatchMessage,
)
from flowos.model.view import CellView
from flowos.planning.policy import Policy
from flowos.runtime.machine import Machine
from flowos.runtime.requests import Request, Write
from flowos.runtime.scheduling import SCHEDULER_FOLLOWS
from flowos.simulation.actors import Person, Process, Role
from flowos.simulation.misbehaving import TENANT, Covetous, Misbehaving
from flowos.simulation.stage import VirtualClock
from flowos.simulation.trial import Trial
from flowos.simulation.wire import Mishaps, SimStore, Site

WRITE_SECONDS: Final = 0.0005
PART_SECONDS: Final = 0.000_01
LIMIT_SECONDS: Final = 60.0  # of virtual time, in which all slices must have ended
STEP_SECONDS: Final = 0.05  # between two looks at whether they have
UP_SECONDS: Final = 0.5  # until all are up, and the misbehaving one has begun
RUN_SECONDS: Final = 0.05
OURS: Final = "placement/default/"


class Neighbour(Enum):
    """Who is there beside the production schedulers."""

    NOBODY = "nobody"
    GOOD = "good"
    RANDOM = "random"
    COVETOUS = "covetous"


@dataclass(frozen=True, slots=True)
class Told:
    """What came of one run.

    Attributes:
        rate: Placements of the well-behaved a virtual second, in steady state.
        waits: From submission to placement of each slice, in virtual seconds, rising.
        tried: Claims that the misbehaving one sent.
        won: Claims of these that the store took.
        lost: Commits of the well-behaved ones that the store refused.
    """

    rate: float
    waits: tuple[float, ...]
    tried: int
    won: int
    lost: int

    def wait(self, quantile: float) -> float:
        """Return the wait that this fraction of slices did not exceed, in virtual seconds."""
        return self.waits[min(len(self.waits) - 1, int(quantile * len(self.waits)))]


class OneByOne(Site):
    """A store that works on one write after the other."""

    _idle_from = 0.0

    def works(self, request: Request) -> float:
        """Return for how long this write waits for others, and then for itself."""
        if not isinstance(request, Write):
            return 0.0
        parts = sum(len(t.compares) + len(t.operations) for t in request.transactions)
        begins = max(self._idle_from, self.timeline.now)
        self._idle_from = begins + WRITE_SECONDS + parts * PART_SECONDS
        return self._idle_from - self.timeline.now


class Submitter(Person):
    """Submits a slice, and the next one when that has been placed."""

    def __init__(self, site: Site, seed: int, name: str) -> None:
        """Be about to begin."""
        super().__init__(site, name, seed)
        self._count = 0
        self.waits_for = ""
        self.done = False

    def next(self) -> None:
        """Submit the next one, but for who is done."""
        if self.done:
            return
        self._count += 1
        spec = _wanted(f"{self.name}-{self._count}", self.dice.choice((1, 1, 2)))
        self.waits_for = spec.id
        key, record = keys.slice_(spec.id), Slice(spec, submitted_at=self.timeline.now)
        self.ask(
            Write((Transaction((Seen(key, 0),), (Put(key, encode(record)),)),)), lambda _: None
        )


class Neighbourhood(Trial):
    """One run in fair weather."""

    def __init__(
        self,
        seed: int,
        *,
        new_store: Callable[[VirtualClock], SimStore],
        policy: Policy,
        neighbour: Neighbour,
        one_by_one: bool = False,
        engines: int = 512,
        schedulers: int = 3,
        users: int = 6,
        seconds: float = 0.3,
    ) -> None:
        """Prepare a cell.

        Args:
            seed: Of everything that is drawn.
            new_store: Makes the store, on the virtual clock.
            policy: Of the well-behaved schedulers.
            neighbour: Who is there beside them.
            one_by_one: Whether writes pass the store one by one; else it takes no time.
            engines: GPUs of the cell; with too few, what is measured is what the neighbour holds.
            schedulers: How many are well-behaved, without a neighbour that is.
            users: Each has one slice to be placed at any moment.
            seconds: Of virtual time, in which placements are counted.
        """
        self._one_by_one = one_by_one
        self._engines, self._schedulers, self._neighbour = engines, schedulers, neighbour
        self._submitted: dict[str, float] = {}
        self._placed: dict[str, float] = {}
        self._machines: list[Misbehaving] = []
        self._bad: Process | None = None
        self._users: list[Submitter] = []
        self._seconds = seconds
        self._lost = 0
        super().__init__(seed, new_store=new_store, policy=policy, slices=users, mishaps=Mishaps())

    def play(self) -> Told:
        """Run until all slices have been placed, and then until nobody holds anything.

        Raises:
            Failure: A law was broken, or it did not come to that in time.
        """
        for process in self.processes:
            self.timeline.after(self.dice.uniform(0, 0.05), process.awake(process.begin))
        self._play(UP_SECONDS)
        for user in self._users:
            user.next()
        self._play(UP_SECONDS + self._seconds)
        rate = len(self._placed) / self._seconds
        tried = sum(machine.tried for machine in self._machines)
        won = sum(machine.won for machine in self._machines)
        lost = self._lost
        if self._bad is not None:
            self._bad.sleep(10 * LIMIT_SECONDS)
        for user in self._users:
            user.done = True
        self._until("placed", lambda: len(self._placed) == len(self._submitted))
        # What is on its way when the misbehaving one stops may still be won.
        self._play(self.clock.now + STEP_SECONDS)
        self._until("given back", lambda: not self.held())
        waits = sorted(at - self._submitted[name] for name, at in self._placed.items())
        return Told(rate, tuple(waits), tried, won, lost)

    def held(self) -> tuple[str, ...]:
        """Return the keys of all claims and placements there are."""
        return tuple(record.key for record in self.store.read(["claim/", "placement/"]).records)

    def _until(self, what: str, done: Callable[[], bool]) -> None:
        deadline = self.clock.now + LIMIT_SECONDS
        while not done():
            if self.clock.now >= deadline:
                raise self._failure(f"not all {what} within {LIMIT_SECONDS:g} s")
            self._play(self.clock.now + STEP_SECONDS)

    def _revision(self, message: WatchMessage) -> None:
        super()._revision(message)
        assert isinstance(message, Changes)
        for change in message.changes:
            if change.key.startswith("slice/default/") and change.value is not None:
                name = change.key.removeprefix("slice/")
                self._submitted.setdefault(name, decode(Slice, change.value).submitted_at)
            elif change.key.startswith(OURS) and change.value is not None:
                name = change.key.removeprefix("placement/")
                self._placed.setdefault(name, self.clock.now)
                for user in self._users:
                    if user.waits_for == name:
                        user.waits_for = ""
                        # A store is not written to while it tells; and a user looks now and then.
                        user.after(self.site.takes(), user.next)

    def _noted(
        self,
        transactions: Sequence[Transaction],
        sent_at: float,
        outcome: Sequence[Outcome] | StoreError,
        answered_at: float,
    ) -> None:
        super()._noted(transactions, sent_at, outcome, answered_at)
        if not isinstance(outcome, StoreError):
            for transaction, answer in zip(transactions, outcome, strict=True):
                self._lost += isinstance(answer, Conflicted) and any(
                    operation.key.startswith(OURS) for operation in transaction.operations
                )

    # -- who is there

    def _new_site(self, mishaps: Mishaps) -> Site:
        make = OneByOne if self._one_by_one else Site
        return make(self.store, self.timeline, self.dice, mishaps, self._noted)

    def _new_cell(self, budget_watts: int | None) -> Cell:
        cell = preset(f"fat-tree:{self._engines}")
        cell.add(Tenant(TENANT))
        return cell

    def _people(self, slices: int) -> None:
        good = self._schedulers + (self._neighbour is Neighbour.GOOD)
        for number in range(good):
            self._enter(self._scheduler(f"batch-{number}"))
        self._enter(self._controller("controller-0"))
        places = sorted({**self.cell.nodes, **self.cell.switches})
        for number in range(2):
            self._enter(self._agent(f"agent-{number}", tuple(places[number::2])))
        for number in range(slices):
            self._users.append(Submitter(self.site, self.dice.getrandbits(32), f"user{number}"))
        if self._neighbour in (Neighbour.RANDOM, Neighbour.COVETOUS):
            self._enter(Role("scheduler", "bad", SCHEDULER_FOLLOWS, self._misbehaving, 10))
            self._bad = self.processes[-1]

    def _misbehaving(self, process: Process) -> Machine:
        assert process.tenure is not None
        stale, reading = CellView(), self.store.read([""])
        stale.load(reading.records)
        stale.progressed(reading.revision)
        make: Callable[..., Misbehaving] = Misbehaving
        if self._neighbour is Neighbour.COVETOUS:
            make = partial(Covetous, policy=self._policy)
        machine = make(
            view=CellView(),
            fence=process.fence,
            session=process.tenure.id,
            new_attempt=self.new_attempt,
            seed=process.dice.getrandbits(32),
            stale=stale,
        )
        self._machines.append(machine)
        return machine


def _wanted(name: str, gpus: int) -> SliceSpec:
    role = EngineRole((EngineChoice("gpu", count=gpus),))
    return SliceSpec(name, engines={"w": role}, run=Run(for_seconds=RUN_SECONDS))
