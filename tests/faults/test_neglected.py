"""What an operator does to a running cell without thinking of what runs."""

import json
import shutil
import signal
import subprocess
import sys

import pytest

from flowos.documents.presets import preset
from flowos.runtime.loading import load_cell_into
from flowos.verify.history import verify_history
from tests.faults.machine import until

pytestmark = pytest.mark.etcd


def test_a_cell_that_is_replaced_while_it_runs_is_served_in_its_new_shape(machine):
    machine.up()
    with machine.client() as cell:
        load_cell_into(cell.store, preset("torus:2x2x2"), replace=True)
    machine.command(
        "submit", "--engines", "gpu=8", "--run-for", "100ms", "--wait", "done", "--timeout", "20"
    )
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
