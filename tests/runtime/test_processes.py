"""What does a whole process say of itself, and how does it begin again and end?"""

import json
import threading

import pytest

from flowos.drivers.sim import SimDriver, SimSettings
from flowos.model.codec import decode
from flowos.model.errors import SessionLost, StoreUnreachable
from flowos.model.placement import Session
from flowos.runtime.clock import SystemClock
from flowos.runtime.processes import Supervisor, agent_process
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


def test_a_bug_is_no_loss_and_ends_the_process(memory):
    supervisor = Supervisor(LossyStore(memory), SystemClock())

    def life(_: Supervisor) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        supervisor.run(life)
