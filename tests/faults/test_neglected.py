"""What an operator does to a running cell without thinking of what runs."""

import json
import shutil
import signal
import subprocess
import sys
import time

import pytest

from flowos.documents.presets import preset
from flowos.runtime.loading import load_cell_into
from flowos.verify.history import verify_history
from flowos_cli.children import Child
from flowos_store import find_server
from tests.faults.load import short
from tests.faults.machine import until

pytestmark = pytest.mark.etcd


def test_a_cell_that_is_replaced_while_it_runs_is_served_in_its_new_shape(machine):
    machine.up()
    with machine.client() as cell:
        load_cell_into(cell.store, preset("torus:2x2x2"), replace=True)
    words = ("--engines", "gpu=8", "--run-for", "100ms", "--wait", "done", "--timeout", "20")
    done = machine.command("submit", *words, code=None)
    shown = [machine.command(*each).stdout for each in (("ls", "-o", "json"), ("status",))]
    assert done.returncode == 0, "\n".join((done.stderr, *shown))
    with machine.client() as cell:
        assert verify_history(cell.store).violations == ()


def test_a_cell_whose_folder_was_removed_stops_and_leaves_no_process(machine):
    machine.up()
    shutil.rmtree(machine.folder, ignore_errors=True)
    until(lambda: machine.left() == [], "every process of the removed cell has ended")


def test_a_command_on_simulated_agents_is_not_passed_off_as_run(machine):
    machine.up()
    done = machine.command("submit", "--engines", "gpu=1", "--", "false")
    assert "the command is not run" in done.stderr


def test_down_leaves_a_process_alone_that_has_got_the_number_of_a_dead_one(machine):
    machine.up()
    other = ("import time; time.sleep(60)", "flowos", str(machine.folder))
    with subprocess.Popen([sys.executable, "-c", *other]) as stranger:
        try:
            pid = machine.signal("supervisor", signal.SIGKILL)
            until(lambda: not machine.lives(pid), "the supervisor is gone")
            state = machine.state()
            (machine.folder / "run.json").write_text(
                json.dumps(state | {"supervisor": stranger.pid})
            )
            machine.down()
            assert stranger.poll() is None
            assert machine.left() == []  # all others were found
        finally:
            stranger.kill()


def test_up_says_once_that_the_store_does_not_start_again_and_goes_on_when_it_does(
    machine, tmp_path
):
    broken, program = tmp_path / "broken", tmp_path / "etcd"
    program.write_text(
        f'#!/bin/sh\n[ "$1" != --version ] && [ -e {broken} ] && exit 1\n'
        f'exec {find_server().path} "$@"\n'
    )
    program.chmod(0o755)
    machine.environment["FLOWOS_ETCD"] = str(program)
    machine.up()
    before = {n: p for n, p in machine.processes().items() if n != "etcd"}
    broken.touch()
    machine.signal("etcd", signal.SIGKILL)
    until(lambda: "error: etcd did not come up" in machine.log("up"), "up has said so")
    time.sleep(3.0)  # some more tries
    assert machine.log("up").count("the store ended") == 1
    assert machine.log("up").count("error:") == 1
    broken.unlink()
    until(lambda: "the store runs again" in machine.log("up"), "up has said so")
    with machine.client() as cell:
        cell.submit([short("after")])
        cell.wait("default/after", "done", timeout_seconds=25.0)
    assert {n: p for n, p in machine.processes().items() if n != "etcd"} == before
    machine.down()
    assert machine.left() == []


def pauses(monkeypatch, command: str) -> list[float]:
    """How long `up` waits before each new start of a child that ends at once, always alike."""
    now = 0.0
    child = subprocess.Popen(["sh", "-c", command])
    child.wait()
    monkeypatch.setattr("time.monotonic", lambda: now)
    process = Child("x", [], running=child)
    found = []
    for _ in range(7):
        process.started_at = now
        while process.ended() is None:
            now += 0.5
        found.append(now - process.started_at)
    return found


def test_a_child_that_ends_by_itself_again_and_again_is_started_ever_later(monkeypatch):
    assert pauses(monkeypatch, "exit 1") == [1, 2, 4, 8, 15, 15, 15]


def test_a_child_that_is_killed_again_and_again_is_started_as_soon_as_before(monkeypatch):
    assert set(pauses(monkeypatch, "kill -9 $$")) == {1}
