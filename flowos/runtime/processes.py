"""Whole processes: a session, a machine, a shell, and a new start whenever the session is lost."""

import gc
import logging
import os
import random
import secrets
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeVar

from flowos.drivers.step import Driver
from flowos.model import keys
from flowos.model.codec import encode
from flowos.model.errors import SessionLost, StoreError
from flowos.model.placement import Session
from flowos.model.protocols import CellStore, Clock, Maintenance
from flowos.model.transaction import Put, Transaction
from flowos.model.view import CellView
from flowos.planning.policy import Policy
from flowos.protocol.proposal import Proposal
from flowos.runtime.agent import Agent
from flowos.runtime.lifecycle import Lifecycle, Rules, election
from flowos.runtime.machine import Machine
from flowos.runtime.scheduling import SCHEDULER_FOLLOWS, Scheduling
from flowos.runtime.session import ProcessSession
from flowos.runtime.shell import Shell
from flowos.runtime.trouble import BackOff, Kind, Trouble, kind_of
from flowos.runtime.underway import GROUPS_MAX
from flowos.runtime.watchdog import DECISION_SECONDS, Watchdog

LOG = logging.getLogger("flowos")

S = TypeVar("S")

SCHEDULER_TTL_SECONDS: Final = 10
CONTROLLER_TTL_SECONDS: Final = 5  # the longest time without anyone who frees
AGENT_TTL_SECONDS: Final = 30
STATS_SECONDS: Final = 1.0
ATTEMPTS_A_BLOCK: Final = 64
GARBAGE_CHECK_EVERY: Final = 20_000  # new objects, of a few hundred bytes; the default is 700
CELL_SECONDS: Final = 0.2  # how often a cell that is being loaded is looked for
CALM_SECONDS: Final = 10.0  # a life as long as this was no failed try
CONTROLLER_FOLLOWS: Final = (
    *keys.INVENTORY, "slice/", "placement/", "session/", "grant/", "order/", "report/", "verify/",
    "history/", "rule/",
)  # fmt: skip
AGENT_FOLLOWS: Final = ("order/", "report/", "observed/")


class Store(CellStore, Maintenance, Protocol):
    """What a process needs: a store that can also be compacted and says what fits a request."""

    def fits(self, transactions: Sequence[Transaction]) -> bool:
        """Whether these transactions go into one request."""


@dataclass
class Supervisor:
    """Runs one process until it is told to stop, with a new session after each loss.

    Attributes:
        trouble: What the process has to say of its store, over all its lives.
        kept: What an agent knows of its devices, from one life to the next.
    """

    store: Store
    clock: Clock
    stopping: threading.Event = field(default_factory=threading.Event)
    shell: Shell | None = None
    trouble: Trouble = field(default_factory=Trouble)
    kept: "_Hands | None" = None

    def stop(self, *_signal: object) -> None:
        """End soon; usable as a signal handler."""
        self.stopping.set()
        if self.shell is not None:
            self.shell.stop()

    def stop_on_signals(self) -> None:
        """Let SIGTERM and SIGINT stop the process cleanly."""
        signal.signal(signal.SIGTERM, self.stop)
        signal.signal(signal.SIGINT, self.stop)

    def run(self, life: Callable[["Supervisor"], None]) -> None:
        """Call `life` again and again until `stop`; each call is one session's life."""
        # Measured: with the default of 5 ms, events wait 57 ms behind a planner at full load.
        sys.setswitchinterval(0.0005)
        back_off = BackOff(random.Random())
        while not self.stopping.is_set():
            started = self.clock.monotonic()
            try:
                life(self)
                back_off.worked()
            except SessionLost as error:
                away = Kind.UNREACHABLE in self.trouble
                why = "it could not be renewed while the store was away" if away else str(error)
                LOG.warning("session lost (%s): going on with a new one", why)
            except StoreError as error:
                self.trouble.failed(error, self.clock.monotonic(), "lease")
            if self.clock.monotonic() - started > CALM_SECONDS:
                back_off.worked()  # it was well for a while: the next try may be soon
            self.stopping.wait(back_off.failed())

    def live(
        self,
        session: ProcessSession,
        machine: Machine,
        prefixes: Sequence[str],
        *,
        ready: Callable[[], None],
        on_round: Callable[[float], None] = lambda _now: None,
        commit_threads: int = 1,
    ) -> None:
        """Run one machine in this session; `ready` is called once its view is in step."""
        shell = Shell(
            self.store,
            machine,
            session,
            prefixes=prefixes,
            clock=self.clock,
            maintenance=self.store,
            commit_threads=commit_threads,
            on_round=on_round,
            on_synced=ready,
            trouble=self.trouble,
        )
        self.shell = shell
        if self.stopping.is_set():
            return
        if session.lost:  # before there was a shell that could have been told
            raise SessionLost(f"session {session.id} is over: start again")
        try:
            shell.run()
        finally:
            self.shell = None


def reached(
    open_store: Callable[[], S],
    clock: Clock,
    trouble: Trouble,
    stopping: threading.Event,
) -> S | None:
    """Open a store, however long it takes until it answers and lets this process in.

    Args:
        open_store: Connects and logs in.
        clock: Monotonic seconds.
        trouble: Told of each try.
        stopping: Set where the process is to end instead.

    Returns:
        The store; None where the process was told to end before.

    Raises:
        StoreError: What no waiting mends, such as a server that is known to lose data.
    """
    back_off = BackOff(random.Random())
    while not stopping.is_set():
        try:
            store = open_store()
        except StoreError as error:
            if kind_of(error) is None:
                raise
            trouble.failed(error, clock.monotonic(), "lease")
            stopping.wait(back_off.failed())
        else:
            trouble.worked(clock.monotonic(), "lease")
            return store
    return None


def new_attempt() -> str:
    """Return an id that no commit has had: 64 random bits."""
    return secrets.token_hex(8)


def attempts() -> Iterator[str]:
    """Yield such ids, a block at a time: asking the system for each takes 2 to 6 µs."""
    while True:
        block = secrets.token_hex(8 * ATTEMPTS_A_BLOCK)
        yield from (block[start : start + 16] for start in range(0, len(block), 16))


def scheduler_process(
    supervisor: Supervisor,
    policy: Policy,
    name: str,
    *,
    ready: Callable[[], None],
    ttl_seconds: int = SCHEDULER_TTL_SECONDS,
    tell: Callable[[Mapping[str, object]], None] = lambda _figures: None,
    on_hung: Callable[[], None] | None = None,
    decision_seconds: float = DECISION_SECONDS,
) -> None:
    """Run one life of a scheduler; `tell` gets its figures once a second.

    Where a policy takes longer than `decision_seconds` for an answer, `on_hung` is called, on
    another thread, to begin the process anew; None = nobody looks.
    """

    def in_step() -> None:
        _spare_collector()
        ready()

    store, clock = supervisor.store, supervisor.clock
    session = _open(supervisor, "scheduler", name, ttl_seconds, policy=policy.name)
    try:
        machine = Scheduling(
            CellView(),
            policy,
            session=session.id,
            fence=lambda: session.fence,
            seed=secrets.randbits(32),
            fits=_fits(store),
            stopwatch=clock.monotonic,
            new_attempt=attempts().__next__,
            wall=clock.wall,
            lease=lambda: session.lease_id,
        )
        stats = _Stats(store, clock, session, machine.figures_now, supervisor.trouble, tell)
        watchdog = on_hung and Watchdog(
            store,
            policy=policy.name,
            scheduler=name,
            asked=lambda: machine.guarded.asked,
            fence=lambda: session.fence,
            on_hung=_after(session.close, on_hung),
            seconds=decision_seconds,
        )
        with watchdog or nullcontext():
            supervisor.live(
                session,
                machine,
                SCHEDULER_FOLLOWS,
                ready=in_step,
                on_round=stats.round,
                commit_threads=GROUPS_MAX,
            )
    finally:
        session.close()


def _after(first: Callable[[], None], then: Callable[[], None]) -> Callable[[], None]:
    def both() -> None:
        first()
        then()

    return both


def controller_process(
    supervisor: Supervisor,
    name: str,
    rules: Rules,
    *,
    ready: Callable[[], None],
    ttl_seconds: int = CONTROLLER_TTL_SECONDS,
) -> None:
    """Run one life of a controller; of all that run, the one with the leader key acts."""
    store, clock = supervisor.store, supervisor.clock
    session = _open(supervisor, "controller", name, ttl_seconds)
    try:
        leader = encode(session.record)

        def leads() -> bool:
            entry = machine.view.sessions.get("controller/leader")
            return entry is not None and entry.value == session.record

        machine = Lifecycle(
            CellView(),
            fence=lambda: session.fence,
            wall=clock.wall,
            new_attempt=new_attempt,
            fits=_fits(store),
            leads=leads,
            rules=rules,
            candidacy=lambda: election(session.fence, leader, session.lease_id),
        )
        supervisor.live(session, machine, CONTROLLER_FOLLOWS, ready=ready, commit_threads=2)
    finally:
        session.close()


def agent_process(
    supervisor: Supervisor,
    name: str,
    driver: Driver,
    places: Sequence[str],
    *,
    policy: str = "",
    ready: Callable[[], None],
    ttl_seconds: int = AGENT_TTL_SECONDS,
) -> None:
    """Run one life of an agent that acts for these nodes and switches.

    Only one process at a time may act for a place: the caller holds a lock of the machine's. The
    life ends when the cell is loaded anew, since its places may be others then. With the same
    driver and places the next life goes on with what this one knows, so that nothing starts anew
    because a session was lost; the caller closes the driver when the process ends.
    """

    def end_this_life() -> None:
        if supervisor.shell is not None:
            supervisor.shell.stop()

    session = _open(supervisor, "agents", name, ttl_seconds, policy=policy)
    try:
        record = Session(
            "agent", name, policy=policy, pid=os.getpid(), started_at=supervisor.clock.wall()
        )
        session.put_leased({keys.session("agent", place): record for place in places})
        hands = supervisor.kept
        if hands is not None and hands.driver is driver and hands.places == frozenset(places):
            machine = hands.machine
            machine.go_on(fence=lambda: session.fence, on_new_cell=end_this_life)
        else:
            served = frozenset(places)
            machine = Agent(
                CellView(),
                driver,
                fence=lambda: session.fence,
                serves=served.__contains__,
                fits=_fits(supervisor.store),
                on_new_cell=end_this_life,
            )
            supervisor.kept = _Hands(machine, driver, served)
        follows: Sequence[str] = AGENT_FOLLOWS
        if len(places) == 1:
            follows = tuple(f"{family}{places[0]}/" for family in AGENT_FOLLOWS)
        follows = (*follows, keys.INFO)
        supervisor.live(session, machine, follows, ready=ready, commit_threads=2)
    finally:
        session.close()


@dataclass(frozen=True, slots=True)
class _Hands:
    """What an agent's lives have in common."""

    machine: Agent
    driver: Driver
    places: frozenset[str]


def _open(
    supervisor: Supervisor, role: str, name: str, ttl_seconds: int, policy: str = ""
) -> ProcessSession:
    _await_cell(supervisor)
    return ProcessSession(
        supervisor.store,
        supervisor.clock,
        role,
        name,
        policy=policy,
        ttl_seconds=ttl_seconds,
        on_lost=lambda: supervisor.shell.session_lost() if supervisor.shell else None,
        trouble=supervisor.trouble,
    )


def _await_cell(supervisor: Supervisor) -> None:
    """Wait until all of a cell is there: what works on a part of it gives away what the rest holds."""
    told = False
    while not (supervisor.stopping.is_set() or supervisor.store.read([keys.INFO]).records):
        if not told:
            LOG.info("waiting for a cell: none is there, or one is just being loaded or restored")
        told = True
        supervisor.stopping.wait(CELL_SECONDS)


def _fits(store: Store) -> Callable[[Sequence[Proposal]], bool]:
    return lambda proposals: store.fits([p.transaction for p in proposals])


def _spare_collector() -> None:
    """Take all that was listed out of the garbage collector's sight, and let it look less often.

    Measured: it took a tenth of a scheduler's time to look at a cell of 20,000 engines again and
    again; records refer to each other in no cycles, so they go without it.
    """
    gc.freeze()
    gc.set_threshold(GARBAGE_CHECK_EVERY)


class _Stats:
    """Publishes a process's figures under its lease, when they changed, once a second."""

    def __init__(
        self,
        store: CellStore,
        clock: Clock,
        session: ProcessSession,
        figures: Callable[[float], Mapping[str, object]],
        trouble: Trouble,
        tell: Callable[[Mapping[str, object]], None],
    ) -> None:
        self._tell = tell
        self._store = store
        self._clock = clock
        self._trouble = trouble
        self._back_off = BackOff(random.Random())
        self._session = session
        self._figures = figures
        self._started_at = self._told_at = clock.monotonic()
        self._told: Mapping[str, object] = {}
        self._sending = threading.Lock()

    def round(self, now: float) -> None:
        """Tell the store, on a thread of its own, so that the loop never waits for it."""
        if now - self._told_at < STATS_SECONDS:
            return
        self._told_at = now
        figures = dict(self._figures(now - self._started_at))
        self._tell(figures)
        compared = {k: v for k, v in figures.items() if k != "busy"}
        if compared == self._told or self._sending.locked():
            return
        self._told = compared
        threading.Thread(target=self._send, args=(figures,), daemon=True).start()

    def _send(self, figures: dict[str, object]) -> None:
        record = self._session.record
        key = keys.stats(record.role, self._session.id)
        put = Put(key, encode({"name": record.name, **figures}), self._session.lease_id)
        with self._sending:
            try:
                self._store.commit([Transaction((self._session.fence.compare,), (put,))])
            except StoreError as error:
                now = self._clock.monotonic()
                self._trouble.failed(error, now, "figures")
                self._told = {}  # they are told again, but not in a frenzy
                self._told_at = now + self._back_off.failed()
            else:
                self._trouble.worked(self._clock.monotonic(), "figures")
                self._back_off.worked()
