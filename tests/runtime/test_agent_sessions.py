"""Does an agent whose session was lost go on where it was, with a new one?"""

from dataclasses import replace

import pytest

from flowos.drivers.sim import SimDriver, SimSettings
from flowos.drivers.step import Finished, Step, Verb
from flowos.model.codec import decode
from flowos.model.errors import StoreUnreachable
from flowos.model.placement import Observed, Order, Report
from flowos.model.slice import Run
from flowos.model.transaction import Put, Versioned
from flowos.protocol.proposal import Fence
from flowos.runtime.machine import Commit, Refused
from flowos.runtime.processes import agent_process
from tests.runtime.cells import wanted
from tests.runtime.test_agent_elsewhere import MINE, Bench, ordered
from tests.runtime.threads import Process, living_cell, until

ENDLESS = replace(MINE, run=Run())
NOTHING = Order(slice="default/t")


class Noting(SimDriver):
    """Notes what begins; may be told to fail."""

    def __init__(self, **seconds: float) -> None:
        super().__init__(SimSettings({Verb(v): s for v, s in seconds.items()}))
        self.begun: list[Verb] = []
        self.failing: set[Verb] = set()
        self.closed = 0

    def begin(self, step: Step, now: float) -> None:
        self.begun.append(step.verb)
        super().begin(step, now)

    def finished(self, now: float) -> list[Finished]:
        found = super().finished(now)
        return [
            Finished(f.step, error="jammed") if f.step.verb in self.failing else f for f in found
        ]

    def close(self) -> None:
        self.closed += 1
        super().close()


class Lives(Bench):
    """An agent with one session after another."""

    def __init__(self, **seconds: float) -> None:
        self.noting = Noting(**seconds)
        super().__init__(self.noting)
        self.reports: dict[str, Report] = {}
        self.observed: dict[str, Observed] = {}

    def again(self, *records: Versioned, revision: int) -> None:
        self.agent.go_on(fence=lambda: Fence("session/agents/a@2", 7), on_new_cell=lambda: None)
        self.reports.clear()
        self.observed.clear()
        self.lists(*records, revision=revision)

    def play(self, now: float) -> None:
        for instruction in self.agent.step(now):
            assert isinstance(instruction, Commit)
            for proposal in instruction.proposals:
                for put in proposal.transaction.operations:
                    assert isinstance(put, Put)
                    family, _, name = put.key.partition("/")
                    if family == "report":
                        self.reports[name] = decode(Report, put.value)
                    else:
                        self.observed[name] = decode(Observed, put.value)
            error = Refused(StoreUnreachable("lost with its session"))
            self.sent = instruction, [error for _ in instruction.proposals]


def test_what_is_up_stays_up_in_a_store_whose_revisions_are_lower():
    lives = Lives()
    lives.lists(ordered("a1", MINE, 90))
    lives.play(0)  # its report is never answered
    begun = list(lives.noting.begun)
    assert begun == [Verb.LOAD, Verb.RUN]
    lives.again(ordered("a1", MINE, 7), revision=9)
    lives.play(1)
    assert lives.noting.begun == begun
    assert lives.reports["n0/a1"] == Report(7, 7)
    assert lives.observed["n0/fpga0"] == Observed(bitstream="sum@1", task="a1")
    lives.again(ordered("a1", MINE, 7), revision=9)
    lives.play(200)
    assert lives.reports["n0/a1"].exit_code == 0


def test_a_build_goes_on_where_it_was():
    lives = Lives(load=5.0)
    lives.lists(ordered("a1", ENDLESS, 90))
    lives.play(0)
    lives.again(ordered("a1", ENDLESS, 90), revision=100)
    lives.play(1)
    assert lives.reports["n0/a1"] == Report(0, 90)
    lives.play(6)
    assert lives.noting.begun == [Verb.LOAD]
    lives.again(ordered("a1", ENDLESS, 90), revision=100)
    lives.play(7)
    assert lives.reports["n0/a1"] == Report(90, 90)


@pytest.mark.parametrize("revision", [7, 90])
@pytest.mark.parametrize("looked", [False, True])
def test_a_build_that_fails_in_the_next_session_is_reported_failed(revision, looked):
    lives = Lives(load=5.0)
    lives.noting.failing = {Verb.LOAD}
    lives.lists(ordered("a1", ENDLESS, 90))
    lives.play(0)
    lives.again(ordered("a1", ENDLESS, revision), revision=100)
    if looked:  # at its order, before the step has failed
        lives.play(1)
    lives.play(6)
    lives.again(ordered("a1", ENDLESS, revision), revision=100)
    lives.play(7)
    assert lives.reports["n0/a1"] == Report(0, revision, failed="jammed")
    assert lives.noting.begun == [Verb.LOAD]


def test_what_was_emptied_or_dropped_meanwhile_is_torn_down():
    for records in ([ordered("a1", NOTHING, 7)], []):
        lives = Lives()
        lives.lists(ordered("a1", MINE, 90))
        lives.play(0)
        lives.again(*records, revision=9)
        lives.play(1)
        assert lives.noting.begun == [Verb.LOAD, Verb.RUN, Verb.STOP, Verb.SCRUB]
        assert lives.up == {}
        assert lives.asked == 0
        assert lives.reports.get("n0/a1", Report(7, 7)).applied == 7


def test_a_task_runs_on_when_its_agents_session_is_lost(memory):
    with living_cell(memory) as cell:
        driver = Noting()
        places = ["n0", "n1", "sw0", "sw1"]
        process = cell.processes["agent-0"] = Process(
            memory, lambda s: agent_process(s, "agent-0", driver, places, ready=lambda: None)
        )
        cell.scheduler()
        cell.controller()
        cell.submit(wanted("a", gpus=1, run_for=3.0))
        until(lambda: Verb.RUN in driver.begun, "it runs")
        shell = process.supervisor.shell
        assert shell is not None
        shell.session_lost()
        until(lambda: process.supervisor.shell not in (None, shell), "a new life")
        cell.submit(wanted("b", gpus=1, run_for=0.1))
        until(lambda: cell.ended("b"), "the new life acts")
        assert driver.begun.count(Verb.RUN) == 2
        until(lambda: cell.ended("a"), "it ends")
        assert cell.slice("a").attempts == 1
        assert driver.begun.count(Verb.RUN) == 2
        assert driver.closed == 0
