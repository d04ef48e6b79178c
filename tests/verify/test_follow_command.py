"""Does `cell verify --follow` leave nothing unchecked, as a process of its own, on a real etcd?"""

import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
import uuid
from contextlib import contextmanager

import pytest

from flowos.model import keys
from flowos.model.transaction import Delete, Put
from flowos.runtime.lifecycle import Rules
from flowos.runtime.processes import controller_process
from tests.runtime.threads import Process, until
from tests.verify.scene import Scene, X, claim

pytestmark = pytest.mark.etcd

PATIENCE_SECONDS = 30.0
STRAY = claim("engine/n2/z", "default/nobody", "a0")


def soon(happened, what="what was waited for"):
    until(happened, what, PATIENCE_SECONDS)


class Following:
    """A process that follows a test's cell; what it says is kept as it comes."""

    def __init__(self, server, cell, *options):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "flowos_cli.main", "cell", "verify", "--follow", *options],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=os.environ | {"FLOWOS_ENDPOINTS": server.endpoint, "FLOWOS_CELL": cell},
        )  # fmt: skip
        self.out: list[str] = []
        self.err: list[str] = []
        self.listening = [
            threading.Thread(target=self._listen, args=pair, daemon=True)
            for pair in ((self.process.stdout, self.out), (self.process.stderr, self.err))
        ]
        for thread in self.listening:
            thread.start()

    def _listen(self, stream, lines):
        with stream:
            for line in stream:
                lines.append(line.rstrip("\n"))

    def said(self, word):
        """Wait for a word on stderr, and return its line."""
        soon(lambda: any(word in line for line in self.err), f"{word!r} in {self.err}")
        return next(line for line in self.err if word in line)

    def ended(self, number=signal.SIGTERM):
        """End it; return its status and what it printed."""
        self.process.send_signal(number)
        code = self.process.wait(PATIENCE_SECONDS)
        for thread in self.listening:
            thread.join(PATIENCE_SECONDS)
        return code, "\n".join(self.out)


@contextmanager
def following(server, cell, *options):
    process = Following(server, cell, *options)
    try:
        process.said("following")
        yield process
    finally:
        process.process.kill()
        process.process.wait()
        for thread in process.listening:
            thread.join(PATIENCE_SECONDS)


@pytest.fixture
def place(etcd_server, etcd_store):
    """A server, the name of a cell there, and a scene in it."""
    cell = f"test-{uuid.uuid4().hex[:12]}"
    return etcd_server, cell, Scene(etcd_store(cell=cell))


def checkpoint(scene, name="follow"):
    records = scene.store.read([f"verify/{name}"]).records
    return int(records[0].value) if records else 0


def test_one_that_was_killed_goes_on_and_leaves_no_revision_unchecked(place):
    server, cell, scene = place
    scene.run("default/t", X)
    with following(server, cell) as first:
        seen = scene.submit("default/u")
        soon(lambda: checkpoint(scene) >= seen)
        first.process.kill()
        first.process.wait()
    stood = checkpoint(scene)
    bad = scene.write(STRAY)  # while nobody looks, and mended before anybody does
    scene.write(Delete(STRAY.key))
    with following(server, cell, "-o", "json") as second:
        assert f"all of revision {stood} is checked" in second.said("going on from there")
        soon(lambda: len(second.out) > 0)
        code, out = second.ended(signal.SIGINT)
    assert code == 6
    told, _, verdict = out.partition("\n")
    assert json.loads(told)["revision"] == bad
    assert [v["revision"] for v in json.loads(verdict)["violations"]] == [bad]
    assert json.loads(verdict)["from"] == stood
    made = json.loads(told)["transactions"][-1]
    assert (made["revision"], made["wrote"]) == (bad, [f"put {STRAY.key}"])


def test_one_that_is_told_to_stop_ends_clean_and_moves_its_checkpoint_to_the_end(place):
    server, cell, scene = place
    with following(server, cell, "--checkpoint", "night", "-o", "json") as process:
        last = scene.submit("default/t")
        soon(lambda: checkpoint(scene, "night") >= last)
        code, out = process.ended(signal.SIGTERM)
    assert (code, json.loads(out)["violations"]) == (0, [])
    assert checkpoint(scene, "night") >= last
    assert checkpoint(scene) == 0


def test_one_that_keeps_no_checkpoint_writes_nothing(place):
    server, cell, scene = place
    with following(server, cell, "--checkpoint", "") as process:
        scene.submit("default/t")
        assert process.ended()[0] == 0
    assert scene.store.read(["verify/"]).records == []


def test_both_transactions_are_said_to_people_in_two_short_blocks(place):
    server, cell, scene = place
    first = scene.place("default/t", X)
    with following(server, cell) as process:
        second = scene.write(Delete("claim/engine/n1/x"))
        soon(lambda: len(process.out) >= 5)
        assert process.ended()[0] == 6
    assert process.out[0].startswith(f"revision {second}: claims: default/t lists engine/n1/x")
    assert process.out[1:5] == [
        f"    at {first} by scheduler s: default/t lists engine/n1/x",
        "        put claim/engine/n1/x, put order/n1/a1, put placement/default/t",
        f"    at {second}, nobody knows by whom: claim/engine/n1/x is not there",
        "        deleted claim/engine/n1/x",
    ]


SHORT = Rules(
    idle_off_seconds=0,
    keep_revisions=20,
    keep_seconds=0.5,
    compact_seconds=0.2,
    sweep_seconds=0.2,
    held_back_times=20,
)


@contextmanager
def controlled(scene, rules):
    """A controller that compacts in earnest."""
    scene.write(Delete(keys.LEADER))  # the scene's own is no process
    controller = Process(
        scene.store,
        lambda s: controller_process(s, "controller-0", rules, ready=lambda: None),
        lambda _store: None,
    )
    try:
        yield
    finally:
        controller.stop()


def busy(scene, revisions):
    for number in range(revisions):
        scene.write(Put(f"reason/default/t{number % 7}", b'{"reason":"Held","sentence":"?"}'))


def test_the_controller_waits_for_one_that_was_killed_and_gives_it_up_beyond_the_limit(place):
    server, cell, scene = place
    with following(server, cell):
        seen = scene.submit("default/t")
        soon(lambda: checkpoint(scene) >= seen)
    stood = checkpoint(scene)
    with controlled(scene, SHORT):
        busy(scene, 150)
        bad = scene.write(STRAY)
        scene.write(Delete(STRAY.key))
        soon(lambda: scene.store.oldest() == stood)
        time.sleep(2 * SHORT.keep_seconds)
        busy(scene, 30)
        assert scene.store.oldest() == stood
        with following(server, cell) as second:
            soon(lambda: len(second.out) > 0)
            assert f"revision {bad}: claims" in second.out[0]
            soon(lambda: checkpoint(scene) > bad)
        stood = checkpoint(scene)
        busy(scene, 500)
        soon(lambda: scene.store.oldest() > stood)
        with following(server, cell) as third:
            line = third.said("could not be")
            assert f"the steps from {stood} to " in line
            assert "compacted" in line
            assert third.ended()[0] == 0


def test_a_server_that_is_killed_and_comes_back_costs_no_revision(own_etcd, etcd_store):
    own_etcd.client_port = own_etcd._description.client_port
    scene, cell = Scene(etcd_store(own_etcd, cell="mine", silent_seconds=1.0)), "mine"
    with following(own_etcd, cell) as process:
        scene.run("default/t", X)
        own_etcd.kill()
        process.said("does not answer")
        own_etcd.start()
        process.said("answers again")
        bad = scene.write(STRAY)
        scene.write(Delete(STRAY.key))
        soon(lambda: len(process.out) > 0)
        assert f"revision {bad}: claims" in process.out[0]
        assert process.ended()[0] == 6
    assert not any("could not be" in line for line in process.err if "steps" in line)
    assert sum("does not answer" in line for line in process.err) == 1


def test_people_at_a_terminal_are_shown_how_far_it_is(place):
    server, cell, scene = place
    scene.run("default/t", X)
    screen, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "flowos_cli.main", "cell", "verify", "--follow"],
        stdout=subprocess.PIPE, stderr=terminal,
        env=os.environ | {"FLOWOS_ENDPOINTS": server.endpoint, "FLOWOS_CELL": cell},
    )  # fmt: skip
    os.close(terminal)
    shown = ""
    try:
        while "no violation" not in shown:
            shown += os.read(screen, 1000).decode()
        scene.write(STRAY)
        while "1 violation" not in shown:
            shown += os.read(screen, 1000).decode()
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode == 6
    finally:
        process.kill()
        process.wait()
        os.close(screen)
    assert b"\x1b" not in out  # what is data, a pipe gets as it is
    assert b"claims" in out
