"""The store is away, silent, full, or refuses a login: what people at the command see.

A command that cannot do what it was asked for ends with 5 and one sentence that names the store.
Those that wait or watch go on through an outage, and end with 5 only where they must ask anew and
get no answer.
"""

import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flowos.model.slice import EngineChoice, EngineRole, SliceSpec
from tests.faults.load import short
from tests.faults.machine import until
from tests.faults.test_trouble import fill
from tests.faults.trial import QUOTA, Trial

pytestmark = [pytest.mark.etcd, pytest.mark.slow]

LOOKING = (
    ("ls",),
    ("ls", "-w"),
    ("ls", "-o", "json"),
    ("status",),
    ("top",),
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
    ("cell", "init", "fic-small", "--replace"),
)
STARTING = (  # processes that find no store when they start leave it to who started them
    ("scheduler", "run", "batch"),
    ("controller", "run"),
    ("agent", "run"),
)
PATIENCE_SECONDS = 20.0  # a liveness limit; the command's own is a second


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


def all_end_with_five(trial: Trial, commands, *, names: str) -> None:
    """Each ends with 5 and one sentence, which holds these words."""

    def outcome(words: tuple[str, ...]) -> str:
        try:
            done = trial.run(*words, "--connect-timeout", "1", patience_seconds=PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            return f"{words}: hangs"
        said = done.stderr.strip().splitlines()
        if done.returncode == 5 and len(said) == 1 and not done.stdout:
            if said[0].startswith("error: ") and names in said[0]:
                return ""
        return f"{words}: {done.returncode}: {done.stdout[-300:]}{done.stderr[-600:]}"

    with ThreadPoolExecutor(4) as pool:
        wrong = [text for text in pool.map(outcome, commands) if text]
    assert not wrong, "\n".join(wrong)


def test_every_command_ends_with_5_and_a_sentence_where_no_store_answers(trial):
    trial.proxy.refuse()
    all_end_with_five(trial, (*LOOKING, *WRITING, *STARTING), names=trial.proxy.endpoint)
    trial.proxy.heal()
    trial.proxy.hold()  # it takes connections, and says nothing
    silent = (*LOOKING[::3], *WRITING[::3], *STARTING)
    all_end_with_five(trial, silent, names=trial.proxy.endpoint)


def test_every_command_that_writes_ends_with_5_where_the_store_is_full_and_others_work(tmp_path):
    with Trial(tmp_path / "trial", flags=[f"--quota-backend-bytes={QUOTA}"]) as trial:
        load(trial)
        fill(trial)
        all_end_with_five(trial, WRITING, names="database space exceeded")
        for words in LOOKING:
            if words[-1] in ("-w", "top", "--follow") or "wait" in words:
                continue
            done = trial.run(*words)
            assert done.returncode == 0, (words, done.stderr)


def test_every_command_ends_with_5_where_it_is_not_let_in(trial):
    assert "error" not in trial.etcd("auth/user/add", name="root", password="one")
    assert "error" not in trial.etcd("auth/user/grant", user="root", role="root")
    assert "error" not in trial.etcd("auth/enable")
    some = (*LOOKING[::2], *WRITING[::2], *STARTING)
    all_end_with_five(trial, some, names=trial.proxy.endpoint)
    trial.where = (*trial.where, "--user", "root")
    trial.crew.environment["FLOWOS_PASSWORD"] = "two"
    all_end_with_five(trial, some, names="authentication failed")
    trial.crew.environment["FLOWOS_PASSWORD"] = "one"
    assert trial.run("ls").returncode == 0


class Waiting:
    """A command that goes on until something happens."""

    def __init__(self, trial: Trial, *words: str) -> None:
        self.process = subprocess.Popen(
            trial.arguments(*words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=trial.crew.environment,
        )
        self.told = ""
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.told += line

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
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.reader.join(5.0)
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()


@pytest.mark.parametrize("how", ["refused", "silent", "killed"])
def test_commands_that_wait_or_watch_go_on_through_an_outage(trial, how):
    trial.crew.scheduler("batch-0")
    trial.crew.controller("controller-0")
    trial.crew.agent("agent-0")
    trial.crew.until_in_step()
    words = {
        "wait": ("slice", "wait", "held"),
        "ls": ("ls", "-w", "-o", "jsonl"),
        "verify": ("cell", "verify", "--follow"),
    }
    waiting = {name: Waiting(trial, *command) for name, command in words.items()}
    try:
        until(lambda: "held" in waiting["ls"].told, "the list has told of the slice")
        time.sleep(1.0)  # the others have begun to wait
        match how:
            case "refused":
                trial.proxy.refuse()
            case "silent":
                trial.proxy.hold()
            case _:
                trial.server.kill()
        time.sleep(4.0)
        ended = {n: w.process.stderr.read() for n, w in waiting.items() if not w.goes_on()}
        assert ended == {}
        if how == "killed":
            trial.server.start()
        trial.proxy.heal()
        trial.is_served("after")
        until(lambda: "after" in waiting["ls"].told, "the list goes on")
        with trial.cell() as cell:
            cell.cancel("default/held")
        code, said = waiting["wait"].end()
        assert (code, "held" in said) == (1, True), said  # it was cancelled
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
    until(lambda: "held" in waiting.told, "the list has told of the slice")
    assert "error" not in trial.etcd("auth/user/changepw", name="root", password="two")
    trial.proxy.cut()  # it must open its watch again
    code, said = waiting.end()
    assert code == 5, said
    assert "authentication failed" in said


def test_a_wait_ends_with_4_at_its_time_though_the_store_is_away(trial):
    waiting = Waiting(trial, "slice", "wait", "held", "--timeout", "4")
    time.sleep(1.5)
    trial.proxy.refuse()
    code, said = waiting.end()
    assert code in (4, 5), said
    assert short  # both are honest: its time is over, or it cannot know
