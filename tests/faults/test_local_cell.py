"""Does a cell of this machine run commands and programs for real, whatever is killed meanwhile?

One cell for all of it: etcd, a scheduler, a controller and an agent in processes of their own.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FLOWOS = [sys.executable, "-m", "flowos_cli.main"]
SHARED_MEMORY = Path("/dev/shm")
PROGRAM = """
import sys, time
from pathlib import Path
from flowos.flowlet import Concat, Sink, Source, Task

class Slow(Task):
    def __init__(self, source, seconds, mark):
        super().__init__(source)
        self.seconds, self.mark = seconds, mark
    def run(self, a):
        with open(self.mark, "a") as file:
            file.write("x")
        time.sleep(self.seconds)
        return a

seconds, mark = float(sys.argv[1]), sys.argv[2]
sink = Sink(Concat(*[Slow(Source(bytes([65 + n]) * 100_000), seconds, mark) for n in range(4)]))
sink.execute()
print(len(sink.result), sink.result[::100_000].decode())
"""
RESULT = "400000 ABCD\n"


class Local:
    """The cell, and the command in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("FLOWOS_")},
            "FLOWOS_DATA_DIR": str(folder / "data"),
        }

    def start(self, *words: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [*FLOWOS, *words], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=self.environment, cwd=self.folder,
        )  # fmt: skip

    def __call__(self, *words: str, status: int = 0) -> str:
        process = self.start(*words)
        out, err = process.communicate(timeout=90)
        assert process.returncode == status, (words, process.returncode, out, err)
        return out if status == 0 else out + err

    def slices(self) -> list[Any]:
        return list(json.loads(self("ls", "--all", "-o", "json"))["items"])

    def nothing_is_held(self) -> None:
        """Wait until nothing is held, nothing runs, and nothing is left in shared memory."""
        until = time.monotonic() + 60
        while time.monotonic() < until:
            free = all(
                e["state"] == "free"
                for e in json.loads(self("engine", "ls", "-o", "json"))["items"]
            )
            if free and not self.workers() and not self.segments():
                return
            time.sleep(0.2)
        raise AssertionError((self("engine", "ls"), self.workers(), self.segments()))

    def segments(self) -> list[Path]:
        """What is in shared memory of its slices; others' tests run beside these."""
        attempts = [path.name for path in (self.folder / "data/slices").glob("*/*/*")]
        return [p for a in attempts for p in SHARED_MEMORY.glob(f"flowos-{a}-*")]

    def workers(self) -> list[int]:
        """Workers of its programs."""
        mine = f"FLOWOS_SCRATCH={self.folder}".encode()
        found = []
        for pid, words in commands().items():
            with suppress(OSError):
                if b"flowos.flowlet.worker" in words:
                    found += [pid] if mine in Path(f"/proc/{pid}/environ").read_bytes() else []
        return found

    def pid(self, words: str) -> int:
        """Return the one process of this cell whose command has these words."""
        here = str(self.folder / "data").encode()
        found = [n for n, said in commands().items() if words.encode() in said and here in said]
        assert len(found) == 1, (words, found)
        return found[0]


def commands() -> dict[int, bytes]:
    """Pid -> command line, of all processes of this machine."""
    found = {}
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit():
                found[int(entry.name)] = (entry / "cmdline").read_bytes()
    return found


def wait_for(path: Path, size: int) -> None:
    until = time.monotonic() + 40
    while not path.exists() or path.stat().st_size < size:
        assert time.monotonic() < until, f"{path} has not {size} bytes"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def local(tmp_path_factory) -> Iterator[Local]:
    there = Local(tmp_path_factory.mktemp("local"))
    (there.folder / "program.py").write_text(PROGRAM)
    there("up", "--detach", "--agents", "local", "--scheduler", "batch")
    try:
        yield there
    finally:
        there("down")


def test_a_command_runs_on_each_engine_and_its_output_is_kept(local):
    local("submit", "--engines", "cpu=2", "--circuits", "ring", "--name", "hello", "--env", "A=b c",
          "--wait", "done", "--", "sh", "-c", "echo $FLOWOS_RANK of $WORLD_SIZE, $A; pwd")  # fmt: skip
    lines = local("slice", "logs", "hello").splitlines()
    assert lines == [
        "0: 0 of 2, b c", f"0: {local.folder}", "1: 1 of 2, b c", f"1: {local.folder}"
    ]  # fmt: skip
    assert local("slice", "logs", "hello", "--rank", "1", "--tail", "1") == f"{local.folder}\n"
    assert "has no task of rank 7 here" in local("slice", "logs", "hello", "--rank", "7", status=2)


def test_logs_are_followed_until_the_end(local, tmp_path):
    go = tmp_path / "go"
    local("submit", "--engines", "cpu=1", "--name", "long", "--", "sh", "-c",
          f"echo one; while [ ! -e {go} ]; do sleep 0.05; done; echo two; printf three")  # fmt: skip
    follow = local.start("slice", "logs", "long", "-f")
    assert follow.stdout is not None
    assert follow.stdout.readline() == "one\n"
    go.touch()
    out, err = follow.communicate(timeout=60)
    assert (out, err, follow.returncode) == ("two\nthree\n", "", 0)


@pytest.mark.parametrize(
    ("command", "code"),
    [("exit 3", 3), ("kill -9 $$", 137), ("nosuchprogram", 127)],
)
def test_how_a_command_ended_is_told(local, command, code):
    name = f"ends-{code}"
    out = local("submit", "--engines", "cpu=1", "--name", name, "--wait", "done", "--",
                "sh", "-c", command, status=1)  # fmt: skip
    assert f"a task ended with {code}" in out
    (record,) = [
        s for s in local.slices() if s["name"] == name
    ]  # fmt: skip
    assert (record["phase"], record["exit_code"]) == ("failed", code)


def test_a_command_is_ended_by_its_time_limit_and_by_cancel(local):
    local("submit", "--engines", "cpu=1", "--name", "late", "--time-limit", "1s", "--wait", "done",
          "--", "sleep", "100", status=1)  # fmt: skip
    local("submit", "--engines", "cpu=1", "--name", "stopped", "--wait", "running", "--",
          "setsid", "sleep", "4711")  # fmt: skip
    local("cancel", "stopped")
    local("slice", "wait", "stopped", "--for", "done", status=1)
    local.nothing_is_held()
    assert not any(b"sleep\x004711" in words for words in commands().values())


def test_circuits_are_laid_anew_under_a_command_that_runs(local):
    local("submit", "--engines", "cpu=2", "--name", "wired", "--wait", "running", "--",
          "sh", "-c", "echo began; while sleep 0.05; do cat $FLOWOS_CIRCUITS; echo; done")  # fmt: skip
    assert local("slice", "logs", "wired", "--rank", "0").splitlines()[1] == "[]"
    local("slice", "update", "wired", "--circuits", "ring")
    until = time.monotonic() + 30
    while '"sources"' not in local("slice", "logs", "wired", "--rank", "0", "--tail", "1"):
        assert time.monotonic() < until
    assert local("slice", "logs", "wired", "--rank", "1").count("began") == 1
    local("cancel", "wired")
    local("slice", "wait", "wired", status=1)


def test_a_slice_without_a_command_has_no_logs(local):
    local("submit", "--engines", "cpu=1", "--name", "held", "--wait", "running")
    assert "runs no command" in local("slice", "logs", "held", status=2)
    local("cancel", "held")


def test_a_program_runs_on_the_cell_and_says_what_ran_where(local, tmp_path):
    out = local(
        "run", "--picture", str(tmp_path / "p.svg"), "program.py", "0.01", str(tmp_path / "m")
    )
    assert out == RESULT
    assert (tmp_path / "p.svg").read_text().startswith("<svg")
    last = local.slices()[-1]
    assert (last["name"][:8], last["phase"]) == ("flowlet-", "done")
    local.nothing_is_held()


def test_an_agent_that_is_killed_costs_a_program_nothing(local, tmp_path):
    mark = tmp_path / "mark"
    program = local.start("run", "program.py", "1.5", str(mark))
    wait_for(mark, 1)
    os.kill(local.pid("agent\0run"), signal.SIGKILL)
    out, err = program.communicate(timeout=60)
    assert (out, program.returncode) == (RESULT, 0), err
    assert mark.read_text() == "xxxx"
    local.nothing_is_held()


def test_a_program_goes_on_while_the_store_is_away(local, tmp_path):
    mark = tmp_path / "mark"
    program = local.start("run", "program.py", "2", str(mark))
    wait_for(mark, 1)
    store = local.pid("etcd\0")
    os.kill(store, signal.SIGSTOP)
    try:
        wait_for(mark, 4)  # tasks of a second round have begun meanwhile
    finally:
        os.kill(store, signal.SIGCONT)
    out, err = program.communicate(timeout=90)
    assert (out, program.returncode) == (RESULT, 0), err
    local.nothing_is_held()


def test_nothing_stays_of_a_program_that_is_killed(local, tmp_path):
    mark = tmp_path / "mark"
    program = local.start("run", "program.py", "60", str(mark))
    wait_for(mark, 1)
    program.kill()
    program.communicate(timeout=30)
    local.nothing_is_held()


def test_nothing_stays_of_a_program_that_is_interrupted(local, tmp_path):
    mark = tmp_path / "mark"
    program = local.start("run", "program.py", "60", str(mark))
    wait_for(mark, 1)
    program.send_signal(signal.SIGINT)
    out, err = program.communicate(timeout=30)
    assert (out, err.strip(), program.returncode) == ("", "interrupted", 130)
    local.nothing_is_held()


@pytest.mark.parametrize(
    ("text", "said", "status"),
    [
        ("print(1", "SyntaxError", 1),
        ("raise SystemExit(4)", "", 4),
        ("1 / 0", "ZeroDivisionError", 1),
        ("print('nothing')", "has executed nothing", 0),
        ("import nosuchmodule", "ModuleNotFoundError", 1),
    ],
)
def test_programs_that_cannot_run_are_told_as_python_tells_it(local, tmp_path, text, said, status):
    path = tmp_path / "p.py"
    path.write_text(text)
    process = local.start("run", str(path))
    _, err = process.communicate(timeout=60)
    assert process.returncode == status
    assert said in err
    assert "flowos_cli" not in err


def test_a_program_that_there_is_not_is_told(local):
    assert "nosuch.py: cannot be read" in local("run", "nosuch.py", status=2)
    assert "write cpu=4" in local("run", "--engines", "cpu", "program.py", status=2)


def test_programs_need_agents_that_run_things(tmp_path):
    there = Local(tmp_path)
    (tmp_path / "program.py").write_text(PROGRAM)
    there("up", "--detach", "--cell", "fic-small")
    try:
        said = there("run", "--on", "cell", "program.py", "0", str(tmp_path / "m"), status=2)
        assert "only simulate" in said
        # This machine alone runs it all the same.
        assert there("run", "--on", "alone", "program.py", "0", str(tmp_path / "m")) == RESULT
    finally:
        there("down")
