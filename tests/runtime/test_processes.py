"""What does a whole process say of itself, and how does it begin again and end?"""

import json
import logging
import threading
import time

import pytest

from flowos.drivers.sim import SimDriver, SimSettings
from flowos.model.codec import decode
from flowos.model.errors import (
    Forbidden,
    LoginRefused,
    SessionLost,
    StoreUnreachable,
    UnsafeServer,
)
from flowos.model.placement import Session
from flowos.runtime.clock import SystemClock
from flowos.runtime.processes import Supervisor, agent_process, reached
from flowos.runtime.trouble import Trouble
from tests.runtime.cells import wanted
from tests.runtime.lossy import LossyStore
from tests.runtime.threads import Process, living_cell, until


def test_a_scheduler_publishes_its_figures_as_long_as_it_lives(store):
    with living_cell(store) as cell:
        process = cell.scheduler()
        cell.submit(wanted("a", gpus=1))
        until(lambda: cell.placed("a"), "it is placed")

        def figures() -> dict[str, object]:
            records = store.read(["stats/scheduler/"]).records
            return json.loads(records[0].value) if records else {}

        until(lambda: figures().get("commits") == 1, "the figures are there")
        shown = figures()
        assert (shown["name"], shown["policy"], shown["placed"]) == ("batch-0", "batch", 1)
        process.stop()
        assert store.read(["stats/"]).records == []


def test_an_agent_has_a_session_for_each_of_its_places(store):
    with living_cell(store) as cell:
        cell.agent()
        until(lambda: len(cell.sessions("agent")) == 4, "all places have one")
        assert [key.rpartition("/")[2] for key in cell.sessions("agent")] == [
            "n0", "n1", "sw0", "sw1",
        ]  # fmt: skip
        records = store.read(["session/agent/"]).records
        assert {decode(Session, record.value).name for record in records} == {"agent-0"}


def test_an_agent_of_one_place_hears_of_no_other(memory):
    with living_cell(memory) as cell:

        def life(supervisor: Supervisor) -> None:
            driver = SimDriver(SimSettings())
            agent_process(supervisor, "agent-n0", driver, ["n0"], ready=lambda: None)

        process = cell.processes["agent-n0"] = Process(memory, life)
        cell.scheduler()
        cell.submit(wanted("a", gpus=4))
        until(lambda: memory.read(["report/n0/"]).records, "it reports")
        assert {place for orders in process.machine.view.orders.values() for place in orders} == {
            "n0"
        }


def test_a_process_that_cannot_reach_its_store_begins_when_it_can(memory):
    with living_cell(memory) as cell:
        process = cell.scheduler()
        until(lambda: process.supervisor.shell, "its shell")
        shell = process.supervisor.shell
        assert shell is not None
        process.store.reachable = False
        shell.session_lost()
        cell.submit(wanted("a", gpus=1))
        until(lambda: process.supervisor.shell is not shell, "its life is over")
        process.store.reachable = True
        until(lambda: cell.placed("a"), "it began again")


@pytest.mark.parametrize("error", [SessionLost("over"), StoreUnreachable("nobody there")])
def test_each_life_that_ends_by_a_loss_is_followed_by_another_until_told_to_stop(memory, error):
    lives = []
    supervisor = Supervisor(LossyStore(memory), SystemClock())

    def life(supervisor: Supervisor) -> None:
        lives.append(1)
        if len(lives) == 3:
            supervisor.stop()
        raise error

    thread = threading.Thread(target=supervisor.run, args=(life,))
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    assert len(lives) == 3


@pytest.mark.parametrize("error", [SessionLost("over"), LoginRefused("who"), StoreUnreachable("?")])
def test_lives_that_end_at_once_do_not_follow_each_other_in_a_frenzy(memory, error):
    lives = []
    supervisor = Supervisor(LossyStore(memory), SystemClock())

    def life(_supervisor: Supervisor) -> None:
        lives.append(1)
        raise error

    thread = threading.Thread(target=supervisor.run, args=(life,))
    thread.start()
    time.sleep(1.0)
    supervisor.stop()
    thread.join(10)
    assert 2 < len(lives) < 20


def test_a_bug_is_no_loss_and_ends_the_process(memory):
    supervisor = Supervisor(LossyStore(memory), SystemClock())

    def life(_: Supervisor) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        supervisor.run(life)


# ---------------------------------------------------------------------------- a store in trouble

REFUSALS = [LoginRefused("etcd at a:1 knows no x"), Forbidden("etcd at a:1 forbids x to read y")]


@pytest.fixture
def said(caplog):
    """What processes have said so far of warnings and worse."""
    return lambda: [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


def test_a_full_store_is_said_once_waited_for_and_gone_on_with(memory, said):
    with living_cell(memory) as cell:
        cell.all()
        until(lambda: cell.sessions("agent") and cell.sessions("scheduler"), "all are up")
        until(lambda: cell.processes["batch-0"].supervisor.shell, "a shell")
        time.sleep(0.3)
        for process in cell.processes.values():
            process.store.full = True
        cell.submit(*(wanted(f"s{n}", gpus=1, run_for=0.05) for n in range(5)))
        time.sleep(2.0)
        tries = cell.processes["batch-0"].store.tries
        assert not any(cell.placed(f"s{n}") for n in range(5))
        assert sum("is full" in line for line in said()) <= len(cell.processes)
        time.sleep(1.0)
        assert cell.processes["batch-0"].store.tries - tries < 20
        for process in cell.processes.values():
            process.store.full = False
        until(lambda: cell.ended(*(f"s{n}" for n in range(5))), "they end", 30)
        assert all(cell.slice(f"s{n}").attempts == 1 for n in range(5))
        until(lambda: any("takes writes again" in line for line in said()), "its end is said")


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("who", ["batch-0", "controller-0", "agent-0"])
def test_a_process_that_is_not_let_in_waits_until_it_is(memory, said, who, refusal):
    with living_cell(memory) as cell:
        cell.prepare[who] = lambda store: setattr(store, "refusing", refusal)
        cell.all()
        cell.submit(wanted("a", gpus=1, run_for=0.05))
        time.sleep(1.0)
        assert cell.slice("a").end is None
        assert [line.partition(": trying")[0] for line in said() if "a:1" in line] == [str(refusal)]
        cell.processes[who].store.refusing = None
        until(lambda: cell.ended("a"), "it was let in", 30)


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda error: type(error).__name__)
def test_a_process_that_is_shut_out_later_waits_until_it_is_let_in_again(memory, said, refusal):
    with living_cell(memory) as cell:
        cell.all()
        cell.submit(wanted("a", gpus=1, run_for=0.05))
        until(lambda: cell.ended("a"), "all is well")
        for process in cell.processes.values():
            process.store.refusing = refusal
            process.store.end_watches()  # so it has to list, and may not
        cell.submit(wanted("b", gpus=1, run_for=0.05))
        time.sleep(1.0)
        assert not cell.placed("b")
        assert sum("a:1" in line for line in said()) == len(cell.processes)
        for process in cell.processes.values():
            process.store.refusing = None
        until(lambda: cell.ended("b"), "they were let in again", 30)


def test_a_session_lost_while_the_store_was_away_is_said_once_and_there_is_a_new_one(memory, said):
    with living_cell(memory) as cell:
        process = cell.scheduler(ttl_seconds=1)
        until(lambda: cell.sessions("scheduler"), "a session")
        (first,) = cell.sessions("scheduler")
        until(lambda: process.supervisor.shell, "its shell")
        process.store.reachable = False
        shell = process.supervisor.shell
        assert shell is not None
        lease = shell._session._lease  # type: ignore[union-attr]
        away = LostLease(process.store, lease)
        shell._session._lease = away  # type: ignore[union-attr]
        until(lambda: away.asked > 1, "it could not be renewed")
        lease.revoke()  # it has run out
        process.store.reachable = True
        until(lambda: [k for k in cell.sessions("scheduler") if k != first], "a new one")
        (line,) = [line for line in said() if "session lost" in line]
        assert "it could not be renewed while the store was away" in line


def test_a_store_that_cannot_be_opened_yet_is_opened_when_it_lets_the_process_in(memory, said):
    errors = [StoreUnreachable("nobody at a:1"), *REFUSALS, StoreUnreachable("nobody at a:1")]

    def open_store():
        if errors:
            raise errors.pop()
        return memory

    found = reached(open_store, SystemClock(), Trouble(), threading.Event())
    assert found is memory
    assert len(said()) == 3  # each kind once


def test_a_store_that_no_waiting_mends_is_not_waited_for():
    def open_store():
        raise UnsafeServer("3.5.1 loses data")

    with pytest.raises(UnsafeServer):
        reached(open_store, SystemClock(), Trouble(), threading.Event())


def test_a_process_that_is_told_to_end_does_not_wait_for_its_store(memory):
    stopping = threading.Event()

    def open_store():
        stopping.set()
        raise StoreUnreachable("nobody there")

    assert reached(open_store, SystemClock(), Trouble(), stopping) is None


class LostLease:
    """A lease that can be renewed when its process's store can be reached."""

    def __init__(self, store, lease) -> None:
        self.id, self.asked = lease.id, 0
        self._store, self._lease = store, lease

    def keep_alive(self) -> float:
        self.asked += 1
        self._store._reach()
        return float(self._lease.keep_alive())

    def revoke(self) -> None:
        self._lease.revoke()
