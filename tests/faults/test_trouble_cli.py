"""The store is away, silent, full, or refuses a login: what people at the command see.

A command that cannot do what it was asked for ends with 5 and one sentence that names the store.
Those that wait or watch go on through an outage, and end with 5 only where they must ask anew and
get no answer.
"""

import contextlib
import io
import os
import pty
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import pytest

from flowos.model.slice import EngineChoice, EngineRole, SliceSpec
from flowos_cli.main import run
from tests.faults.machine import until
from tests.faults.test_trouble import fill
from tests.faults.trial import QUOTA, Trial

pytestmark = [pytest.mark.etcd, pytest.mark.slow]

LOOKING = (
    ("ls",),
    ("ls", "-w"),
    ("ls", "-o", "json"),
    ("status",),
    ("explain", "held"),
    ("slice", "show", "held"),
    ("slice", "events", "held"),
    ("slice", "wait", "held"),
    ("cell", "show"),
    ("cell", "export"),
    ("cell", "verify"),
    ("cell", "verify", "--history"),
    ("cell", "verify", "--follow"),
    ("engine", "ls"),
    ("switch", "ls"),
    ("circuit", "ls"),
    ("bitstream", "ls"),
    ("tenant", "ls"),
    ("power", "show"),
    ("scheduler", "ls"),
    ("scheduler", "stats"),
)
WRITING = (
    ("submit", "--engines", "gpu=1"),
    ("slice", "submit", "--engines", "gpu=1", "--wait", "done"),
    ("cancel", "held"),
    ("slice", "release", "held"),
    ("engine", "drain", "n0/gpu0"),
    ("tenant", "set", "other"),
)


@pytest.fixture
def trial(tmp_path: Path) -> Iterator[Trial]:
    """A cell with one slice, and no process at all."""
    with Trial(tmp_path / "trial") as found:
        load(found)
        yield found


def load(trial: Trial) -> None:
    done = trial.run("cell", "init", "fic-small")
    assert done.returncode == 0, done.stderr
    with trial.cell() as cell:
        engines = {"w": EngineRole((EngineChoice("gpu", count=1),))}
        cell.submit([SliceSpec(name="held", engines=engines)])
        cell.hold("default/held")


def all_end_with_five(
    trial: Trial, commands: Iterable[tuple[str, ...]], *, names: str, patience: str = "5"
) -> None:
    """Each ends with 5 and one sentence, which holds these words."""
    wrong = []
    for words in commands:
        said, told = io.StringIO(), io.StringIO()
        with (
            contextlib.redirect_stderr(said),
            contextlib.redirect_stdout(told),
            pytest.MonkeyPatch.context() as patch,
        ):
            for name, value in trial.crew.environment.items():
                patch.setenv(name, value)
            code = run([*words, *trial.where, "--connect-timeout", patience])
        lines = said.getvalue().splitlines()
        fine = len(lines) == 1 and lines[0].startswith("error: ") and names in lines[0]
        if code != 5 or not fine or told.getvalue():
            wrong.append(f"{words}: {code}: {told.getvalue()[-300:]}{said.getvalue()[-600:]}")
    assert not wrong, "\n".join(wrong)


def processes_end_with_five(trial: Trial, *, names: str) -> None:
    """Processes that find no store when they start leave it to who started them."""
    for words in (("scheduler", "run", "batch"), ("controller", "run"), ("agent", "run")):
        done = trial.run(*words, "--connect-timeout", "0.3")
        assert done.returncode == 5
        assert done.stderr.startswith("error: ")
        assert names in done.stderr
        assert done.stderr.count("\n") == 1


def test_every_command_ends_with_5_and_a_sentence_where_no_store_answers(trial):
    trial.proxy.refuse()
    here = trial.proxy.endpoint
    all_end_with_five(trial, (*LOOKING, *WRITING), names=here, patience="0.1")
    processes_end_with_five(trial, names=trial.proxy.endpoint)
    trial.proxy.heal()
    trial.proxy.hold()  # it takes connections, and says nothing
    some = (*LOOKING[::3], *WRITING[::3])
    all_end_with_five(trial, some, names=here, patience="0.3")


def test_every_command_that_writes_ends_with_5_where_the_store_is_full_and_others_work(tmp_path):
    with Trial(tmp_path / "trial", flags=[f"--quota-backend-bytes={QUOTA}"]) as trial:
        load(trial)
        fill(trial)
        all_end_with_five(trial, WRITING, names="database space exceeded")
        for words in (("ls",), ("status",), ("explain", "held"), ("cell", "verify")):
            done = trial.run(*words)
            assert done.returncode == 0, (words, done.stderr)


def test_every_command_ends_with_5_where_it_is_not_let_in(trial):
    assert "error" not in trial.etcd("auth/user/add", name="root", password="one")
    assert "error" not in trial.etcd("auth/user/grant", user="root", role="root")
    assert "error" not in trial.etcd("auth/enable")
    all_end_with_five(trial, (*LOOKING[::4], *WRITING[::2]), names=trial.proxy.endpoint)
    trial.where = (*trial.where, "--user", "root")
    trial.crew.environment["FLOWOS_PASSWORD"] = "two"
    all_end_with_five(trial, (*LOOKING, *WRITING), names="authentication failed")
    processes_end_with_five(trial, names="authentication failed")
    trial.crew.environment["FLOWOS_PASSWORD"] = "one"
    assert trial.run("ls").returncode == 0


class Waiting:
    """A command that goes on until something happens, on a terminal or not."""

    def __init__(self, trial: Trial, *words: str, terminal: bool = False) -> None:
        ours, theirs = pty.openpty() if terminal else os.pipe()
        self.process = subprocess.Popen(
            trial.arguments(*words),
            stdin=theirs if terminal else subprocess.DEVNULL,
            stdout=theirs,
            stderr=subprocess.PIPE,
            text=True,
            env=trial.crew.environment | {"TERM": "xterm"},
        )
        os.close(theirs)
        self.told = b""
        self._ours = ours
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # a terminal that nobody has open any more
            while some := os.read(self._ours, 65_536):
                self.told += some

    def has_told(self, words: str) -> bool:
        return words.encode() in self.told

    def goes_on(self) -> bool:
        return self.process.poll() is None

    def end(self, seconds: float = 25.0) -> tuple[int, str]:
        """Wait for its end; return its status and what it said to stderr."""
        assert self.process.stderr is not None
        try:
            code = self.process.wait(seconds)
            said = self.process.stderr.read()
        finally:
            self.close()
        assert "Traceback" not in said, said
        return code, said

    def close(self) -> None:
        if self.goes_on():
            self.process.kill()
            self.process.wait()
        if self.process.stderr is None or self.process.stderr.closed:
            return
        self._reader.join(5.0)
        os.close(self._ours)
        self.process.stderr.close()


def test_commands_that_wait_or_watch_go_on_through_outages(trial):
    trial.crew.scheduler("batch-0")
    trial.crew.controller("controller-0")
    trial.crew.agent("agent-0")
    trial.crew.until_in_step()
    waiting = {
        "wait": Waiting(trial, "slice", "wait", "held"),
        "ls": Waiting(trial, "ls", "--all", "-w", "-o", "jsonl"),
        "top": Waiting(trial, "top", terminal=True),
        "verify": Waiting(trial, "cell", "verify", "--follow"),
    }
    try:
        until(lambda: b"held" in waiting["ls"].told, "the list has told of the slice")
        until(lambda: b"held" in waiting["top"].told, "the screen shows the slice")
        time.sleep(1.0)  # the others have begun to wait
        for how in ("refused", "silent", "killed"):
            match how:
                case "refused":
                    trial.proxy.refuse()
                case "silent":
                    trial.proxy.hold()
                case _:
                    trial.server.kill()
            time.sleep(3.0)
            if how == "killed":
                trial.server.start()
            trial.proxy.heal()
            trial.is_served(how)
            ended = {n: w.end() for n, w in waiting.items() if not w.goes_on()}
            assert ended == {}, how
            # A question that was under way is given up after 30 s at the latest.
            until(partial(waiting["ls"].has_told, how), "the list goes on", 60)
        with trial.cell() as cell:
            cell.cancel("default/held")
        code, said = waiting["wait"].end()
        assert code == 1, said  # it was cancelled
        assert waiting["verify"].goes_on()
    finally:
        for one in waiting.values():
            one.close()


def test_a_command_that_waits_ends_with_5_where_it_is_not_let_in_any_more(trial):
    assert "error" not in trial.etcd("auth/user/add", name="root", password="one")
    assert "error" not in trial.etcd("auth/user/grant", user="root", role="root")
    assert "error" not in trial.etcd("auth/enable")
    trial.log_in("one")
    trial.where = (*trial.where, "--user", "root")
    trial.crew.environment["FLOWOS_PASSWORD"] = "one"
    waiting = Waiting(trial, "ls", "-w", "-o", "jsonl")
    try:
        until(lambda: b"held" in waiting.told, "the list has told of the slice")
        assert "error" not in trial.etcd("auth/user/changepw", name="root", password="two")
        trial.proxy.cut()  # it must open its watch again
        code, said = waiting.end()
        assert code == 5, said
        assert "authentication failed" in said
    finally:
        waiting.close()


def test_a_wait_ends_with_4_at_its_time_though_the_store_is_away(trial):
    waiting = Waiting(trial, "slice", "wait", "held", "--timeout", "4")
    try:
        time.sleep(2.0)
        trial.proxy.refuse()
        code, said = waiting.end()
        assert code == 4, said
    finally:
        waiting.close()
