"""`flowos up` and `flowos down`: what they start, what they say, and what is left."""

import fcntl
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowos.model.slice import EngineChoice, EngineRole, SliceSpec
from tests.faults.machine import COMMAND, Load, Machine, until

pytestmark = [pytest.mark.etcd, pytest.mark.slow]


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """An empty data directory; whatever is started there ends with the test."""
    found = Machine(tmp_path / "data")
    yield found
    found.clean_up()


def up_lock_is_free(machine: Machine) -> bool:
    lock = os.open(machine.folder / "up.lock", os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True


def test_up_comes_back_when_all_work_and_down_leaves_nothing_running(machine):
    said = machine.up()
    assert f"cell fic-small is up in {machine.folder}" in said.stderr
    processes = machine.processes()
    assert sorted(processes) == [
        "agent-0", "batch-0", "batch-1", "controller-0", "etcd", "supervisor",
    ]  # fmt: skip
    assert all(machine.lives(pid) for pid in processes.values())
    with machine.client() as cell:
        sessions = {r.key.split("/")[1] for r in cell.store.read(["session/"]).records}
        assert {"scheduler", "controller", "agent"} <= sessions
    said = machine.down()
    assert f"stopped the cell in {machine.folder}" in said.stderr
    assert machine.left() == []
    assert not machine.is_locked()
    assert up_lock_is_free(machine)
    assert machine.state() == {}


def test_a_cell_goes_on_where_it_was_when_it_is_started_again(machine):
    machine.up()
    with machine.client() as cell:
        load = Load(cell, ["ended"])
        load.submit(0.05)
        load.all_end_once()
        cell.submit([SliceSpec("held", engines={"w": EngineRole((EngineChoice("gpu"),))})])
        cell.wait("default/held", "running", timeout_seconds=10)
    machine.down()
    machine.up()
    with machine.client() as cell:
        cell.wait("default/held", "running", timeout_seconds=10)
        assert Load(cell, ["ended"]).ended() == 1
        assert cell.cancel("default/held")
        cell.wait("default/held", "done", timeout_seconds=10)
        Load(cell, []).verify()
    machine.down()


def test_a_second_up_on_the_same_folder_is_refused_and_hurts_nobody(machine):
    machine.up()
    before = machine.processes()
    for words in (["up", "--detach"], ["up"]):
        said = machine.command(*words, code=2)
        assert f"a cell runs in {machine.folder} already" in said.stderr
        assert "'flowos down' stops it" in said.stderr
    assert machine.processes() == before
    assert all(machine.lives(pid) for pid in before.values())
    with machine.client() as cell:
        load = Load(cell, ["a"])
        load.submit(0.05)
        load.all_end_once()
    machine.down()


def test_another_cell_in_the_same_folder_is_refused(machine):
    machine.up()
    machine.down()
    said = machine.up("--cell", "expether", code=2)
    assert "holds a cell made of 'fic-small' already" in said.stderr
    assert machine.left() == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--cell", "nowhere.yaml"], "nowhere.yaml"),
        (["--cell", "fic-smal"], "fic-small"),
        (["--scheduler", "best"], "there is no scheduler 'best'"),
        (["--scheduler", "batch=0"], "1 to 64"),
        (["--idle-off", "soon"], "soon"),
        (["--agents", "real"], "--agents"),
    ],
)
def test_wrong_words_are_named_before_anything_is_started(machine, words, said):
    done = machine.up(*words, code=2)
    assert said in done.stderr
    assert machine.processes() == {}


def test_down_where_nothing_runs_says_so(machine):
    said = machine.down()
    assert f"nothing runs in {machine.folder}" in said.stderr


def test_what_is_asked_for_is_started_and_nothing_else(machine):
    machine.up("--scheduler", "batch=3", "--agents", "none", "--no-controller")
    assert sorted(machine.processes()) == ["batch-0", "batch-1", "batch-2", "etcd", "supervisor"]
    machine.down()


def in_the_foreground(machine: Machine) -> "subprocess.Popen[str]":
    words = ["up", "--data-dir", str(machine.folder), "--no-fsync", "--delay", "none=0"]
    running = subprocess.Popen(
        [*COMMAND, *words], stderr=subprocess.PIPE, text=True, env=machine.environment
    )
    machine.seen.add(running.pid)
    until(lambda: machine.state().get("ready"), "it is up")
    machine.processes()
    return running


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_or_a_polite_kill_stops_a_cell_in_the_foreground(machine, number):
    running = in_the_foreground(machine)
    running.send_signal(number)
    _, said = running.communicate(timeout=20)
    assert running.returncode == 0
    assert "Traceback" not in said
    assert "Ctrl-C or 'flowos down' stops it" in said
    assert machine.left() == []
    assert not machine.is_locked()


def test_down_stops_a_cell_in_the_foreground_too(machine):
    running = in_the_foreground(machine)
    machine.down()
    running.communicate(timeout=20)
    assert running.returncode == 0
    assert machine.left() == []


def test_a_process_that_dies_is_started_again_and_said_so(machine):
    machine.up()
    pid = machine.signal("batch-1", signal.SIGKILL)
    until(lambda: machine.processes()["batch-1"] != pid, "it was started again")
    assert "batch-1 ended with -9: starting it again" in machine.log("up")
    machine.down()
    assert machine.left() == []


def test_a_store_elsewhere_is_used_and_left_running(machine, own_etcd):
    machine.up("--endpoints", own_etcd.endpoint)
    assert "etcd" not in machine.processes()
    machine.down()
    assert machine.left() == []
    assert own_etcd.is_running()
