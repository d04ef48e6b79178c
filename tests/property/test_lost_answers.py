"""Whatever the network does to requests and answers: what was decided about them is the truth.

A process commits through a proxy that cuts, swallows, holds and delays at any byte. It decides by
the real code: put the session again (the fence), read, then act. The truth is read past the proxy,
at once and again when all that was still on its way has arrived.
"""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from flowos.model.codec import decode
from flowos.model.errors import DuplicateName, OutcomeUnknown, StoreUnreachable
from flowos.model.placement import Placement, Unplaceable
from flowos.model.transaction import Committed, Put, Seen, Transaction
from flowos.runtime.client import CellClient
from flowos.runtime.clock import SystemClock
from flowos.runtime.loading import load_cell_into
from flowos.runtime.session import ProcessSession
from flowos.verify.history import verify_history
from flowos_schedulers.batch import Batch
from flowos_store import EmbeddedEtcd, EtcdStore
from tests.plugins.proxy import UP, Fate, Proxy, Way
from tests.runtime.cells import small_cell, wanted

pytestmark = [pytest.mark.etcd, pytest.mark.slow]

TIMEOUT_SECONDS = 0.15  # what a call may take; longer delays make a request land late
LASTS_SECONDS = 0.6  # the longest that a trouble stays


@dataclass(frozen=True)
class Trouble:
    """What the network does to the next call.

    Attributes:
        way: To which direction.
        count: After how many bytes; beyond all of a call it strikes a later one, or nothing.
        fate: What it does. None = everything comes later than the call waits for.
        calls: For how many further calls it stays so, or keeps back what is late.
    """

    way: Way
    count: int
    fate: Fate | None
    calls: int


TROUBLES = st.builds(
    Trouble,
    way=st.sampled_from(Way),
    count=st.one_of(st.just(0), st.integers(0, 700)),
    fate=st.sampled_from([Fate.LATE, Fate.CUT, Fate.SWALLOW, Fate.HOLD, None]),
    calls=st.integers(0, 3),
)
# The first call of each claim, its fence, and reads are all struck in their turn.
WEATHER = st.lists(st.one_of(st.none(), TROUBLES, TROUBLES), min_size=4, max_size=14)


class Weather:
    """Gives each call its trouble, and ends the trouble of those before."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self._troubles: list[Trouble | None] = []
        self._ends: list[int] = []  # the calls left until each trouble ends
        self.struck = 0

    def begins(self, troubles: Sequence[Trouble | None]) -> None:
        """From now on calls meet these, one after the other."""
        self._troubles = list(troubles)

    def next_call(self) -> None:
        """Begin a call."""
        self.struck += self.proxy.struck.is_set()
        self.proxy.struck.clear()
        self._ends = [left - 1 for left in self._ends]
        if any(left < 0 for left in self._ends):
            self._ends = [left for left in self._ends if left >= 0]
            self.clear()
        trouble = self._troubles.pop(0) if self._troubles else None
        if trouble is None:
            return
        self._ends.append(trouble.calls)
        # Whoever waits for a watch makes no call; for them it ends by the clock.
        timer = threading.Timer(LASTS_SECONDS, self.clear)
        timer.daemon = True
        timer.start()
        if trouble.fate is None:
            self.proxy.delay(trouble.way, 2 * TIMEOUT_SECONDS)
            self.struck += 1
        else:
            self.proxy.after(trouble.way, trouble.count, trouble.fate)

    def clear(self) -> None:
        """Let all through, also what was kept back; the connections that miss bytes break."""
        self.proxy.arrive()
        self.proxy.release()
        self.proxy.heal()


class Stormy:
    """A store whose every call meets the weather, and does not wait long."""

    def __init__(self, inner: EtcdStore, weather: Weather) -> None:
        self._inner, self._weather = inner, weather

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def commit(self, transactions: Sequence[Transaction], **_: Any) -> Any:
        self._weather.next_call()
        return self._inner.commit(transactions, timeout_seconds=TIMEOUT_SECONDS)

    def read(self, prefixes: Sequence[str], **options: Any) -> Any:
        self._weather.next_call()
        return self._inner.read(prefixes, **options)


class Cell:
    """A cell of one example: behind a proxy for the process under test, and past it."""

    cells = 0
    calls_struck = 0

    def __init__(self, server: EmbeddedEtcd) -> None:
        Cell.cells += 1
        name = f"lost-{id(self):x}-{Cell.cells}"
        self.proxy = Proxy(server.endpoint)
        self.weather = Weather(self.proxy)
        self._inner = EtcdStore(
            [self.proxy.endpoint], name, read_timeout_seconds=TIMEOUT_SECONDS, silent_seconds=0.5
        )
        self.store = Stormy(self._inner, self.weather)
        self.truth = EtcdStore([server.endpoint], name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        Cell.calls_struck += self.weather.struck
        self.weather.clear()
        self._inner.close()
        self.truth.close()
        self.proxy.close()

    def patiently(self, ask: Any) -> Any:
        """Ask until there is an answer, as every loop does."""
        for _ in range(1000):
            try:
                return ask()
            except StoreUnreachable:
                threading.Event().wait(0.02)
        raise AssertionError("the store stayed out of reach")


@pytest.fixture(scope="module", autouse=True)
def told() -> Iterator[None]:
    yield
    print(f"\n{Cell.calls_struck} calls struck in {Cell.cells} cells")


def claim(cell: Cell, session: ProcessSession, number: int, *, fenced: bool = True) -> bool:
    """Claim two units for an attempt of our own; return whether it happened, as we decide it."""
    attempt = f"attempt-{number}".encode()
    unit = f"claim/engine/n{number % 2}/gpu{number // 2}"
    compares = (Seen(unit, 0), Seen(f"placement/t/s{number}", 0))
    transaction = Transaction(
        (session.fence.compare, *compares) if fenced else compares,
        (Put(unit, attempt), Put(f"placement/t/s{number}", attempt)),
    )
    try:
        (outcome,) = cell.store.commit([transaction])
    except StoreUnreachable:
        return False
    except OutcomeUnknown:
        if fenced:
            cell.patiently(session.refence)
        found = cell.patiently(lambda: cell.store.read([unit])).records
        return any(record.value == attempt for record in found)
    return isinstance(outcome, Committed)


def check(cell: Cell, decided: dict[int, bool]) -> None:
    """Hold what was decided against what is there."""
    records = {record.key: record for record in cell.truth.read([""]).records}
    for number, happened in decided.items():
        unit = records.get(f"claim/engine/n{number % 2}/gpu{number // 2}")
        placement = records.get(f"placement/t/s{number}")
        assert (unit is None) == (placement is None), f"{number} is torn"
        assert (placement is not None) == happened, f"{number}: decided {happened}, and it is not"
        if unit and placement:
            assert unit.modified == placement.modified == unit.created, f"{number} is doubled"


def session_in(cell: Cell) -> ProcessSession:
    """Open a session in calm weather, which from now on speaks through the proxy."""
    session = ProcessSession(cell.truth, SystemClock(), "scheduler", "p", ttl_seconds=60)
    session._store = cell.store
    return session


QUIET = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]


@given(WEATHER)
@settings(suppress_health_check=QUIET)
def test_what_a_fence_and_a_read_decide_is_so_and_stays_so(etcd_server, troubles):
    with Cell(etcd_server) as cell:
        session = session_in(cell)
        cell.weather.begins(troubles)
        decided: dict[int, bool] = {}
        for number in range(4):
            decided[number] = claim(cell, session, number)
            check(cell, decided)
        note(f"decided {decided}")
        cell.weather.clear()
        check(cell, decided)
        session.close()


def test_a_read_without_a_fence_decides_wrong(etcd_server):
    """What the fence is for: the request is on its way when the read says that it did not land."""
    with Cell(etcd_server) as cell:
        session = session_in(cell)
        # No weather: that ends by the clock, or after some calls, and lets the request arrive early.
        cell.proxy.after(UP, 0, Fate.LATE)
        decided = {0: claim(cell, session, 0, fenced=False)}
        check(cell, decided)
        cell.weather.clear()
        deadline = threading.Event()
        for _ in range(500):  # it takes its time from the socket to the store
            if cell.truth.read(["placement/"]).records:
                break
            deadline.wait(0.01)
        with pytest.raises(AssertionError, match="decided False, and it is not"):
            check(cell, decided)
        session.close()


def test_with_a_fence_the_same_request_arrives_and_does_nothing(etcd_server):
    with Cell(etcd_server) as cell:
        session = session_in(cell)
        cell.proxy.after(UP, 0, Fate.LATE)
        decided = {0: claim(cell, session, 0)}
        before = cell.truth.read([""]).revision
        assert cell.proxy.arrive() == 1
        threading.Event().wait(0.3)
        check(cell, decided)
        assert decided == {0: False}
        assert cell.truth.read(["placement/", "claim/"]).records == []
        assert cell.truth.read([""]).revision >= before
        session.close()


@given(WEATHER)
@settings(suppress_health_check=QUIET)
def test_an_embedded_scheduler_returns_what_is_placed_and_nothing_else(etcd_server, troubles):
    with Cell(etcd_server) as cell:
        load_cell_into(cell.truth, small_cell(nodes=2, gpus=2))
        client = CellClient(cell.store, SystemClock())
        with client.scheduler(Batch()) as scheduler:
            cell.weather.begins(troubles)
            returned: dict[str, Placement | Unplaceable | None] = {}
            for name in ("a", "b", "c"):
                spec = wanted(name, gpus=1)
                try:
                    (returned[name],) = cell.patiently(lambda spec=spec: scheduler.place([spec]))
                except DuplicateName:  # it was placed before the place that was out of reach
                    returned[name] = None
            cell.weather.clear()
            threading.Event().wait(0.05)
            records = cell.truth.read(["placement/"]).records
            there = {r.key.rpartition("/")[2]: decode(Placement, r.value) for r in records}
            assert returned.keys() == there.keys()
            for name, placement in returned.items():
                assert placement is None or placement == there[name]
            assert verify_history(cell.truth).violations == ()
