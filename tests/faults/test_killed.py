"""Any process of a living cell is killed or stopped while slices come and go."""

import os
import signal
import subprocess
import sys
import textwrap
from functools import partial

import pytest

from tests.faults.machine import Load, Machine, until

pytestmark = [pytest.mark.etcd, pytest.mark.slow]

FORTY = [f"s{number:02}" for number in range(40)]


@pytest.mark.parametrize("victim", ["batch-0", "controller-0", "agent-0", "etcd"])
def test_all_slices_end_once_when_a_process_is_killed_in_the_middle(machine, victim):
    machine.up(ttl_seconds=2)
    with machine.client() as cell:
        load = Load(cell, FORTY)
        load.submit()
        until(lambda: load.ended() >= 5 and load.placed(), "some have ended, some run")
        pid = machine.signal(victim, signal.SIGKILL)
        load.all_end_once()
        load.verify()
    until(partial(gone, machine, pid), "it is gone")
    until(lambda: machine.processes()[victim] != pid, "it was started again")
    machine.down()
    assert machine.left() == []


def test_all_slices_end_once_when_everything_but_the_store_is_killed_at_once(machine):
    machine.up(ttl_seconds=2)
    with machine.client() as cell:
        load = Load(cell, FORTY)
        load.submit()
        until(lambda: load.ended() >= 5 and load.placed(), "some have ended, some run")
        for victim in ("batch-0", "batch-1", "controller-0", "agent-0"):
            machine.signal(victim, signal.SIGKILL)
        load.all_end_once()
        load.verify()
    machine.down()
    assert machine.left() == []


SHORT_LIVED = """
    from flowos_cli.wiring import Where
    from flowos.runtime.clock import SystemClock
    from flowos.runtime.processes import Supervisor, scheduler_process
    from flowos_schedulers.batch import Batch
    from flowos_store import open_store

    supervisor = Supervisor(open_store(data_dir={folder!r}), SystemClock())
    supervisor.stop_on_signals()
    supervisor.run(
        lambda s: scheduler_process(s, Batch(), "short", ready=lambda: None, ttl_seconds=2)
    )
"""


def gone(machine: Machine, pid: int) -> bool:
    return not machine.lives(pid)


def sessions(machine: Machine, cell, name: str) -> list[str]:
    records = cell.store.read(["session/scheduler/"]).records
    return [record.key for record in records if f"/{name}@" in record.key]


def test_a_scheduler_stopped_for_longer_than_its_lease_starts_anew_and_doubles_nothing(machine):
    machine.up("--scheduler", "batch=1")
    script = textwrap.dedent(SHORT_LIVED).format(folder=str(machine.folder))
    with (
        machine.client() as cell,
        subprocess.Popen([sys.executable, "-c", script], env=machine.environment) as sleeper,
    ):
        try:
            machine.seen.add(sleeper.pid)
            until(lambda: sessions(machine, cell, "short"), "a second scheduler is there")
            (first,) = sessions(machine, cell, "short")
            load, more = Load(cell, FORTY[:20]), Load(cell, FORTY[20:])
            load.submit()
            os.kill(sleeper.pid, signal.SIGSTOP)  # perhaps with a commit on the way
            until(lambda: not sessions(machine, cell, "short"), "its lease is over")
            more.submit()
            os.kill(sleeper.pid, signal.SIGCONT)
            until(lambda: sessions(machine, cell, "short"), "it starts anew")
            assert sessions(machine, cell, "short") != [first]
            load.all_end_once()
            more.all_end_once()
            more.verify()
        finally:
            sleeper.send_signal(signal.SIGCONT)
            sleeper.terminate()
        assert sleeper.wait(10) == 0
    machine.down()


def test_down_cleans_up_after_a_supervisor_that_was_killed(machine):
    machine.up()
    pid = machine.signal("supervisor", signal.SIGKILL)
    until(partial(gone, machine, pid), "it is gone")
    with machine.client() as cell:
        load = Load(cell, FORTY[:4])
        load.submit(0.05)
        load.all_end_once()  # its children work on
    machine.down()
    assert machine.left() == []
    assert not machine.is_locked()
    machine.up()
    machine.down()
    assert machine.left() == []


def test_down_finds_what_runs_after_a_supervisor_was_killed_and_up_tried_again(machine):
    machine.up()
    pid = machine.signal("supervisor", signal.SIGKILL)
    until(partial(gone, machine, pid), "it is gone")
    said = machine.command("up", "--detach", code=2)
    assert f"processes of an earlier 'up' run in {machine.folder}" in said.stderr
    machine.down()
    assert machine.left() == []


def test_down_stops_a_store_that_is_left_alone(machine):
    machine.up()
    for name in sorted(machine.processes(), reverse=True):  # the supervisor first
        if name != "etcd":
            pid = machine.signal(name, signal.SIGKILL)
            until(partial(gone, machine, pid), "it is gone")
    machine.down()
    assert machine.left() == []
