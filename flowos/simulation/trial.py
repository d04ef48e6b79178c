"""Does a whole cell keep its laws when everything goes wrong, and come to rest when nothing does?

A trial runs schedulers, controllers, agents, an embedded client, a user and an operator in virtual
time against a store that fails by a seed. The same seed gives the same run, byte for byte (with
PYTHONHASHSEED fixed: sets of names are gone through in some places). After every revision the laws
are checked. Then all faults stop, and the cell must come to rest.
"""

import hashlib
import random
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from flowos.documents.presets import preset
from flowos.drivers.sim import SimSettings
from flowos.drivers.step import Verb
from flowos.model import keys
from flowos.model.cell import FAMILY_OF, Cell, name_of
from flowos.model.codec import decode, encode
from flowos.model.errors import StoreError
from flowos.model.placement import Placement, Session
from flowos.model.slice import (
    CircuitWish,
    End,
    EngineChoice,
    EngineRole,
    HostRole,
    Run,
    Shape,
    SliceSpec,
)
from flowos.model.transaction import (
    Change,
    Changes,
    Committed,
    Outcome,
    Put,
    Transaction,
    WatchMessage,
)
from flowos.model.view import CellView
from flowos.planning.policy import Policy
from flowos.protocol.proposal import Proposal
from flowos.runtime.agent import Agent
from flowos.runtime.lifecycle import Lifecycle, Rules, election
from flowos.runtime.machine import Machine
from flowos.runtime.processes import AGENT_FOLLOWS, CONTROLLER_FOLLOWS
from flowos.runtime.scheduling import SCHEDULER_FOLLOWS, Scheduling
from flowos.simulation.actors import Embedding, Process, Role
from flowos.simulation.devices import Bench, Devices
from flowos.simulation.people import Operator, User
from flowos.simulation.sharing import Sharer, as_shared, with_tenants
from flowos.simulation.stage import VirtualClock
from flowos.simulation.timeline import Timeline
from flowos.simulation.wire import Mishaps, Noted, SimStore, Site
from flowos.verify.invariants import Checker
from flowos.verify.state import State, by_revision

TROUBLE_SECONDS: Final = 40.0  # of virtual time in which things go wrong
REST_SECONDS: Final = 120.0  # in which a cell without faults must come to rest
STEP_SECONDS: Final = 0.5  # between two looks at whether it has
LAST: Final = 12  # transactions that a failure shows
BUDGET_WATTS: Final = 3_600  # of 1,400 idle and 7,400 busy: slices wait for power, too

SECONDS: Final = {
    Verb.POWER_ON: 0.2, Verb.POWER_OFF: 0.1, Verb.LOAD: 0.5, Verb.CONNECT: 0.05,
    Verb.STOP: 0.05, Verb.DISCONNECT: 0.02, Verb.SCRUB: 0.1,
}  # fmt: skip


class Failure(Exception):
    """A trial that broke a law or had no end; says which, where, and how to see it again."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a trial came to.

    Attributes:
        digest: Of all that was asked, answered and written, in order.
    """

    seed: int
    digest: str
    revisions: int
    requests: int
    slices: int
    deaths: int
    seconds: float
    unknown: int

    @property
    def line(self) -> str:
        """One line for people."""
        return (
            f"seed {self.seed:>5}: lawful at {self.revisions} revisions; {self.slices} slices ended "
            f"in {self.seconds:.0f} virtual s; {self.requests} writes, {self.unknown} answers "
            f"lost, {self.deaths} deaths; history {self.digest}"
        )


class Trial:
    """One seed's run."""

    def __init__(
        self,
        seed: int,
        *,
        new_store: Callable[[VirtualClock], SimStore],
        policy: Policy,
        slices: int = 30,
        mishaps: Mishaps | None = None,
        budget_watts: int | None = None,
        shared: bool = False,
        on_request: Noted = lambda *_: None,
        say: Callable[[str], None] = lambda _line: None,
    ) -> None:
        """Prepare a cell.

        Args:
            seed: Of everything that is drawn.
            new_store: Makes the store behind the faults, on the virtual clock.
            policy: Of the schedulers.
            slices: How many the user submits.
            mishaps: How often what goes wrong; None = drawn, from nothing to a lot.
            budget_watts: Of the whole cell; None = drawn, tight or ample.
            shared: Whether its users ask for all that a shared cell offers: see `sharing`.
            on_request: Called with each write's transactions, when it was sent, what its sender
                was told, and when.
            say: Takes a line for each thing that happens, with its moment.
        """
        self.seed = seed
        self.dice = random.Random(seed)
        self.clock = VirtualClock()
        self.timeline = Timeline(self.clock)
        self.store = new_store(self.clock)
        self.timeline.leases = self.store
        drawn = _mishaps(self.dice)
        self.site = self._new_site(mishaps or drawn)
        self.devices = Devices()
        self.processes: list[Process] = []
        self.broken: list[str] = []
        self.requests = self.unknown = 0
        self._ends: dict[tuple[str, int], End | None] = {}
        self._policy = policy
        self._on_request = on_request
        self._say = say
        self._hash = hashlib.sha256()
        self._last: deque[str] = deque(maxlen=LAST)
        self._attempts = 0
        cell = self._new_cell(budget_watts)
        self._shared = shared
        self._load(with_tenants(cell) if shared else cell)
        reading = self.store.read([""])
        self._checker = Checker(State.read(reading))
        self.store.watch([""], after=reading.revision, deliver=self._revision)
        self._idle_off = self.dice.choice((0.0, 2.0))
        self._people(slices)

    def run(self) -> Report:
        """Play it to its end.

        Raises:
            Failure: A law was broken, or the cell did not come to rest.
        """
        for process in self.processes:
            self.timeline.after(self.dice.uniform(0, 0.5), process.awake(process.begin))
        self._plan_disasters()
        self._play(TROUBLE_SECONDS)
        self.say("-- calm --")
        self.site.calm_down()
        self.user.finish()
        self.operator.finish()
        if self.sharer is not None:
            self.sharer.finish()
        deadline = self.clock.now + REST_SECONDS
        while left := self.unrest():
            if self.clock.now >= deadline:
                raise self._failure(f"no rest after {REST_SECONDS:g} s of calm: {'; '.join(left)}")
            self._play(self.clock.now + STEP_SECONDS)
        return Report(
            seed=self.seed,
            digest=self._hash.hexdigest()[:16],
            revisions=self.store.revision,
            requests=self.requests,
            slices=len(self._checker.facts.slices),
            deaths=sum(process.deaths for process in self.processes),
            seconds=self.clock.now,
            unknown=self.unknown,
        )

    def say(self, line: str) -> None:
        """Tell what happened, for --verbose."""
        self._say(f"{self.clock.now:9.4f}  {line}")

    def _play(self, until: float) -> None:
        moment = self.clock.now
        while moment < until:
            moment = min(until, moment + 0.05)
            self.timeline.run(moment)
            if self.broken:
                raise self._failure(self.broken[0])

    def _failure(self, what: str) -> Failure:
        last = "\n  ".join(self._last)
        return Failure(
            f"seed {self.seed}, at {self.clock.now:.3f} virtual s, revision {self.store.revision}: "
            f"{what}\nlast transactions:\n  {last}\nreplay: make sim SEED={self.seed}"
        )

    # -- what is watched

    def _revision(self, message: WatchMessage) -> None:
        assert isinstance(message, Changes)
        for together in by_revision(message.changes):
            for change in together:
                self._hash.update(repr(change).encode())
                if change.value is None and change.key.startswith("session/"):
                    self.say(f"{change.key} is over at {change.modified}")
            for violation in self._checker.step(together):
                self.broken.append(
                    f"law '{violation.law}' is broken at revision {violation.revision}: "
                    f"{violation.where}: {violation.sentence}"
                )
            self._note_ends(together)
        try:
            self.devices.check(self._checker.facts.claims)
        except AssertionError as error:
            self.broken.append(f"devices: {error}")

    def _note_ends(self, changes: Iterable[Change]) -> None:
        """A slice ends once, and stays as it ended."""
        for change in changes:
            family, _, name = change.key.partition("/")
            entry = self._checker.facts.slices.get(name) if family == "slice" else None
            if entry is None or change.value is None:
                continue
            first = self._ends.setdefault((name, entry.created), entry.value.end)
            if first is None:
                self._ends[name, entry.created] = entry.value.end
            elif first != entry.value.end:
                self.broken.append(f"slice {name} ended as {first} and then as {entry.value.end}")

    def _noted(
        self,
        transactions: Sequence[Transaction],
        sent_at: float,
        outcome: Sequence[Outcome] | StoreError,
        answered_at: float,
    ) -> None:
        self.requests += 1
        self._on_request(transactions, sent_at, outcome, answered_at)
        if isinstance(outcome, StoreError):
            told = type(outcome).__name__
            self.unknown += told == "OutcomeUnknown"
        else:
            told = ", ".join(
                str(o.revision) if isinstance(o, Committed) else f"conflict {o.revision}"
                for o in outcome
            )
        wrote = "; ".join(
            " ".join(("+" if isinstance(op, Put) else "-") + op.key for op in t.operations)
            for t in transactions
        )
        self._hash.update(f"{sent_at!r} {answered_at!r} {told} {wrote}".encode())
        line = f"{sent_at:.4f}-{answered_at:.4f} [{told}] {wrote}"
        self._last.append(line)
        self.say(line)

    def unrest(self) -> list[str]:
        """Return what keeps the cell from being at rest; what is merely powered off does not."""
        facts = self._checker.facts
        found = [
            f"slice {name} has not ended"
            for name, entry in facts.slices.items()
            if not entry.value.end
        ]
        found += self.user.errands + self.operator.errands
        found += self.sharer.errands if self.sharer is not None else []
        records = {
            r.key: r for r in self.store.read(["claim/", "order/", "placement/", "report/"]).records
        }
        offs = {
            key.removeprefix("placement/~off/"): decode(Placement, record.value).attempt
            for key, record in records.items()
            if key.startswith("placement/~off/")
        }
        found += [
            f"{key} is left"
            for key in records
            if not key.startswith("placement/~off/")
            and key.removeprefix("claim/") not in offs
            and key.rpartition("/")[2] not in offs.values()
        ]
        for process in self.processes:
            machine = process.mirror.machine if process.mirror is not None else None
            if isinstance(machine, Embedding):
                found += [f"{name} is to be placed" for name in machine.left]
        if found:
            return found[:8]
        for process in self.processes:
            found += self._unlike(process)
        return found[:8]

    def _unlike(self, process: Process) -> list[str]:
        """Return in what a process's view differs from the store."""
        if process.mirror is None:
            return [f"{process.name} is not up"]
        view = process.mirror.machine.view
        if process.mirror.busy:
            return [f"{process.name} waits for answers"]
        reading = self.store.read(process.role.follows)
        if view.revision < reading.revision:
            return [f"{process.name} is at {view.revision} of {reading.revision}"]
        fresh = CellView()
        fresh.load(reading.records)
        return [
            f"{process.name} sees other {table} than there are"
            for table in COMPARED
            if _told(getattr(view, table)) != _told(getattr(fresh, table))
        ]

    # -- who is there

    def fits(self, proposals: Sequence[Proposal]) -> bool:
        """Whether the store takes these steps in one request."""
        return self.store.fits([proposal.transaction for proposal in proposals])

    def new_attempt(self) -> str:
        """Return an id that no commit has had."""
        self._attempts += 1
        return f"a{self._attempts:04}"

    def _new_site(self, mishaps: Mishaps) -> Site:
        return Site(self.store, self.timeline, self.dice, mishaps, self._noted)

    def _new_cell(self, budget_watts: int | None) -> Cell:
        return _cell(self.dice, budget_watts)

    def _load(self, cell: Cell) -> None:
        things = [
            Put(keys.inventory(FAMILY_OF[type(thing)], name_of(thing)), encode(thing))
            for thing in cell.things()
        ]
        for start in range(0, len(things), 100):
            self.store.commit([Transaction((), tuple(things[start : start + 100]))])
        self.cell = cell

    def _people(self, slices: int) -> None:
        dice = self.dice
        for number in range(dice.choice((2, 2, 3))):
            self._enter(self._scheduler(f"batch-{number}"))
        for number in range(2):
            self._enter(self._controller(f"controller-{number}"))
        places = sorted({**self.cell.nodes, **self.cell.switches})
        cut = dice.choice((1, 2, len(places)))
        for number in range(cut):
            self._enter(self._agent(f"agent-{number}", tuple(places[number::cut])))
        mine = [(dice.uniform(1, 25), _spec(dice, f"own{n}", ends=True)) for n in range(4)]
        self._enter(self._client("client-0", mine))
        specs = [_spec(dice, f"s{number:02}") for number in range(slices)]
        self.sharer: Sharer | None = None
        if self._shared:
            specs = as_shared(dice, specs)
            self.sharer = Sharer(
                self.site, dice.getrandbits(32), self.cell, specs, TROUBLE_SECONDS, self.say
            )
        self.user = User(self.site, dice.getrandbits(32), specs, TROUBLE_SECONDS, self.say)
        self.operator = Operator(
            self.site, dice.getrandbits(32), self.cell, TROUBLE_SECONDS, self.new_attempt, self.say
        )

    def _enter(self, role: Role) -> None:
        self.processes.append(Process(self.site, role, self.dice.getrandbits(32), self.say))

    def _scheduler(self, name: str) -> Role:
        def make(process: Process) -> Machine:
            return Scheduling(
                CellView(),
                self._policy,
                session=_session(process),
                fence=process.fence,
                seed=process.dice.getrandbits(32),
                fits=self.fits,
                stopwatch=self.clock.monotonic,
                new_attempt=self.new_attempt,
                wall=self.clock.wall,
                lease=lambda: process.tenure.lease_id if process.tenure is not None else 0,
            )

        return Role(
            "scheduler",
            name,
            SCHEDULER_FOLLOWS,
            make,
            10,
            policy=self._policy.name,
            in_flight_max=2,
        )

    def _controller(self, name: str) -> Role:
        rules = Rules(
            idle_off_seconds=self._idle_off,
            agent_grace_seconds=8.0,
            mass_silence=0.6,
            keep_revisions=60,
            keep_seconds=3.0,
            compact_seconds=2.0,
        )

        def make(process: Process) -> Machine:
            view, tenure = CellView(), process.tenure
            assert tenure is not None

            def leads() -> bool:
                entry = view.sessions.get("controller/leader")
                return entry is not None and entry.value == tenure.record

            return Lifecycle(
                view,
                fence=process.fence,
                wall=self.clock.wall,
                new_attempt=self.new_attempt,
                fits=self.fits,
                leads=leads,
                rules=rules,
                candidacy=lambda: election(process.fence(), encode(tenure.record), tenure.lease_id),
            )

        return Role("controller", name, CONTROLLER_FOLLOWS, make, 5, in_flight_max=2)

    def _agent(self, name: str, places: tuple[str, ...]) -> Role:
        seconds = self.dice.choice((SECONDS, SECONDS, {}))

        def make(process: Process) -> Machine:
            settings = SimSettings(
                seconds, jitter=0.2, failures={} if self.site.calm else {Verb.LOAD: 0.05}
            )
            return Agent(
                CellView(),
                Bench(self.devices, settings, process.dice.getrandbits(32)),
                fence=process.fence,
                serves=places.__contains__,
                fits=self.fits,
            )

        def records(_: Process) -> dict[str, object]:
            record = Session("agent", name, started_at=self.clock.now)
            return {keys.session("agent", place): record for place in places}

        return Role(
            "agents",
            name,
            AGENT_FOLLOWS,
            make,
            8,
            in_flight_max=2,
            records=records,
        )

    def _client(self, name: str, specs: Sequence[tuple[float, SliceSpec]]) -> Role:
        def make(process: Process) -> Machine:
            return Embedding(
                CellView(),
                self._policy,
                specs,
                fence=process.fence,
                session=_session(process),
                fits=self.fits,
                new_attempt=self.new_attempt,
            )

        return Role("client", name, SCHEDULER_FOLLOWS, make, 10)

    # -- what goes wrong

    def _plan_disasters(self) -> None:
        """Draw when the store is away, full, locked or compacted, and who is killed or paused."""
        dice, site, timeline = self.dice, self.site, self.timeline

        def moments(every_seconds: float) -> Iterable[float]:
            at = dice.expovariate(1 / every_seconds)
            while at < TROUBLE_SECONDS:
                yield at
                at += dice.expovariate(1 / every_seconds)

        def happens(at: float, what: str, call: Callable[[], None]) -> None:
            def now() -> None:
                self.say(what)
                call()

            timeline.at(at, now)

        for at in moments(15):
            away = dice.choice((0.05, 0.5, 3.0, 8.0))
            happens(at, f"the store is away for {away} s", partial(site.go_away, away))
        for at in moments(25):
            full = dice.uniform(0.5, 6)
            happens(at, f"the store is full for {full:.1f} s", partial(site.fill_up, full))
        for at in moments(40):
            shut = dice.uniform(0.5, 4)
            happens(at, f"nobody is let in for {shut:.1f} s", partial(site.lock, shut))
        for at in moments(8):
            happens(at, "compacted", lambda: self.store.compact(self.store.revision))
        for at in moments(6):
            process = dice.choice(self.processes)
            back = dice.choice((0.05, 1.0, 12.0)) * dice.random()
            happens(at, f"{process.name} dies", partial(process.kill, back))
        for at in moments(8):
            process = dice.choice(self.processes)
            pause = dice.choice((0.05, 2.0, 15.0)) * dice.random()
            happens(at, f"{process.name} stops for {pause:.1f} s", partial(process.sleep, pause))


COMPARED: Final = (
    "slices", "placements", "sessions", "grants", "reasons", "orders", "reports", "observed",
    "holders", "shares", "hosts", "lanes_taken", "by_attempt",
)  # fmt: skip


def _told(table: dict[Any, Any]) -> dict[Any, Any]:
    """Return a view's table without the empty places that what has gone has left."""
    return {key: value for key, value in table.items() if value}


def _session(process: Process) -> str:
    assert process.tenure is not None
    return process.tenure.id


def _mishaps(dice: random.Random) -> Mishaps:
    """Return the weather of one trial: from fair to foul."""
    foul = dice.choice((0.0, 0.3, 1.0, 1.0, 3.0))
    return Mishaps(
        dropped=0.01 * foul,
        unanswered=0.015 * foul,
        late=0.015 * foul,
        torn=0.005 * foul,
        slow=0.02 * foul,
        deaf=0.05 * foul,
        killed=0.002 * foul,
    )


def _cell(dice: random.Random, budget_watts: int | None) -> Cell:
    cell = preset("fic-small")
    room = cell.domains["room"]
    drawn = dice.choice((BUDGET_WATTS, room.budget_watts))
    cell.add(replace(room, budget_watts=budget_watts or drawn))
    return cell


_CIRCUITS: Final[Mapping[str, Callable[[tuple[str, ...]], tuple[CircuitWish, ...]]]] = {
    "": lambda _: (),
    "ring": lambda roles: (CircuitWish(Shape.RING, roles),),
    "sum": lambda roles: (CircuitWish(Shape.FLOW, roles, aggregate="sum"),),
}


def _spec(dice: random.Random, name: str, *, ends: bool = False) -> SliceSpec:
    """Return a request for something that the cell can hold."""
    gpus, share, fpgas, cpus, joined = dice.choice(
        (
            (1, 1000, 0, 0, ""), (2, 1000, 0, 0, "ring"), (4, 1000, 0, 0, ""),
            (6, 1000, 0, 0, "ring"), (1, 500, 0, 4000, ""), (1, 300, 0, 0, ""),
            (0, 1000, 1, 0, ""), (2, 1000, 1, 0, "ring"), (0, 1000, 2, 8000, "ring"),
            (0, 1000, 0, 20000, ""), (3, 1000, 1, 0, "sum"),
        )
    )  # fmt: skip
    engines = {}
    if gpus:
        engines["workers"] = EngineRole((EngineChoice("gpu", count=gpus, share_millis=share),))
    if fpgas:
        bitstream = dice.choice(("sum-f32", "add-bytewise"))
        engines["reducer"] = EngineRole((EngineChoice("fpga", count=fpgas, bitstream=bitstream),))
    run_for = dice.choice((0.3, 1.0, 3.0) if ends else (0.0, 0.3, 1.0, 3.0))
    return SliceSpec(
        name=name,
        engines=engines,
        hosts={"driver": HostRole(cpu_millis=cpus, count=1)} if cpus else {},
        circuits=_CIRCUITS[joined](tuple(engines)),
        priority=dice.randrange(3),
        run=Run(for_seconds=run_for),
    )
