"""Whole processes beside (or without) `flowos up`: started, hurt, started again, listened to."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self

from tests.faults.machine import COMMAND, state_of, until

POLL_SECONDS = 0.05
RESTART_SECONDS = 0.3  # a process that was killed comes back after this
STOP_SECONDS = 10.0


@dataclass
class Member:
    """One process of a crew.

    Attributes:
        words: The command after `flowos`.
        lives: How often it was started.
    """

    name: str
    words: tuple[str, ...]
    log: Path
    running: "subprocess.Popen[bytes] | None" = None
    lives: int = 0
    ended_at: float = 0.0
    ttl_seconds: int | None = None
    pids: list[int] = field(default_factory=list)


class Crew:
    """Processes of a cell that a test keeps running, as an init system would.

    Attributes:
        codes: How processes ended that nobody killed: (name, exit status).
    """

    def __init__(
        self, folder: Path, where: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> None:
        """Begin without any process.

        Args:
            folder: For logs and agents' locks.
            where: The options that say which cell, as every process gets them.
            environment: Of the processes; None = this one's, without what means other cells.
        """
        self.folder = folder
        self.where = tuple(where)
        found = environment if environment is not None else os.environ
        self.environment = {k: v for k, v in found.items() if not k.startswith("FLOWOS_")}
        self.members: dict[str, Member] = {}
        self.codes: list[tuple[str, int]] = []
        self._lock = threading.RLock()
        self._closing = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="crew", daemon=True)
        (folder / "logs").mkdir(parents=True, exist_ok=True)
        self._keeper.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- who is there

    def start(self, name: str, *words: str, ttl_seconds: int | None = None) -> Member:
        """Start a process: `start("batch-0", "scheduler", "run", "batch", "--name", "batch-0")`."""
        log = self.folder / "logs" / f"{name}.log"
        member = Member(name, words, log, ttl_seconds=ttl_seconds)
        with self._lock:
            self.members[name] = member
            self._launch(member)
        return member

    def scheduler(self, name: str, ttl_seconds: int | None = None, policy: str = "batch") -> Member:
        """Start a scheduler."""
        words = ("scheduler", "run", policy, "--name", name)
        return self.start(name, *words, ttl_seconds=ttl_seconds)

    def controller(
        self, name: str, ttl_seconds: int | None = None, *, grace: str = "60s"
    ) -> Member:
        """Start a controller that powers nothing off."""
        words = ("controller", "run", "--name", name, "--idle-off", "0", "--agent-grace", grace)
        return self.start(name, *words, ttl_seconds=ttl_seconds)

    def agent(
        self,
        name: str,
        places: Sequence[str] = (),
        ttl_seconds: int | None = None,
        *,
        delays: Sequence[str] = (),
    ) -> Member:
        """Start an agent of simulated devices that take no time, but for what is named."""
        words = ["agent", "run", "--driver", "sim", "--name", name, "--delay", "none=0"]
        words += [word for delay in delays for word in ("--delay", delay)]
        words += [word for place in places for word in ("--place", place)]
        return self.start(name, *words, ttl_seconds=ttl_seconds)

    def pids(self) -> dict[str, int]:
        """Name -> pid of all that run now."""
        with self._lock:
            return {
                name: member.running.pid
                for name, member in self.members.items()
                if member.running is not None and member.running.poll() is None
            }

    def signal(self, name: str, number: signal.Signals) -> int:
        """Send a signal; return the pid, or 0 where it does not run at the moment."""
        with self._lock:
            member = self.members[name]
            if member.running is None or member.running.poll() is not None:
                return 0
            member.running.send_signal(number)
            return member.running.pid

    def log(self, name: str) -> str:
        """What a process has said of itself in all its lives."""
        return self.members[name].log.read_text(errors="replace")

    def said(self, name: str, phrase: str) -> list[str]:
        """The lines of a process's log that hold a phrase."""
        return [line for line in self.log(name).splitlines() if phrase in line]

    def until_in_step(self) -> None:
        """Wait until each process has said that it follows the cell."""
        for name in self.members:
            until(partial(self.said, name, "in step with the cell"), f"{name} is up")

    # -- the keeper

    def _launch(self, member: Member) -> None:
        environment = dict(self.environment)
        if member.ttl_seconds is not None:
            environment["FLOWOS_TTL"] = str(member.ttl_seconds)
        with member.log.open("ab") as log:
            member.running = subprocess.Popen(
                [*COMMAND, *member.words, *self.where],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
            )
        member.lives += 1
        member.pids.append(member.running.pid)

    def _keep(self) -> None:
        while not self._closing.wait(POLL_SECONDS):
            with self._lock:
                for member in self.members.values():
                    if member.running is not None and member.running.poll() is not None:
                        if member.running.returncode != -signal.SIGKILL:
                            self.codes.append((member.name, member.running.returncode))
                        member.running, member.ended_at = None, time.monotonic()
                    back_at = member.ended_at + RESTART_SECONDS
                    if member.running is None and time.monotonic() > back_at:
                        self._launch(member)

    def close(self) -> None:
        """End all, and see that they go when asked."""
        self._closing.set()
        self._keeper.join()
        running = [m.running for m in self.members.values() if m.running is not None]
        for process in running:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        for process in running:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class Verifier:
    """`flowos cell verify --follow` as a process, from here on to `end`."""

    def __init__(self, folder: Path, where: Sequence[str], environment: Mapping[str, str]) -> None:
        self.said, self.verdict = folder / "verify.err", folder / "verify.json"
        with self.said.open("wb") as said, self.verdict.open("wb") as verdict:
            self.process = subprocess.Popen(
                [*COMMAND, "cell", "verify", "--follow", "-o", "json", *where],
                stdin=subprocess.DEVNULL,
                stdout=verdict,
                stderr=said,
                env=dict(environment),
            )

        def follows() -> bool:
            assert self.process.poll() is None, self.said.read_text()
            return "following" in self.said.read_text()

        until(follows, "the verifier follows")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def end(self) -> dict[str, Any]:
        """Stop it as Ctrl-C does; return its verdict, which must be that every law holds."""
        assert self.process.poll() is None, f"it has ended by itself: {self.said.read_text()}"
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(30)
        said, verdict = self.said.read_text(), self.verdict.read_text()
        assert code == 0, (code, said, verdict)
        found: dict[str, Any] = json.loads(verdict)
        assert found["violations"] == []
        return found


class Hits:
    """Kills and stops of random victims, each as a seed says.

    Attributes:
        done: What was done so far, for a failure's message.
    """

    def __init__(
        self,
        rng: Any,
        victims: Callable[[], Mapping[str, int]],
        *,
        ttl_seconds: int,
        pause_seconds: tuple[float, float],
        favourite: str = "",
    ) -> None:
        """Begin with none.

        Args:
            rng: Draws victim, kind and times.
            victims: Name -> pid of those that may be hit now.
            ttl_seconds: How long a lease lives: a stop lasts longer.
            pause_seconds: Between two hits, from and to.
            favourite: Who is hit three times as often.
        """
        self.rng, self._victims, self._ttl_seconds = rng, victims, ttl_seconds
        self._favourite = favourite
        self._pause_seconds = pause_seconds
        self.done: list[tuple[str, str]] = []
        self._stopped: dict[int, float] = {}  # pid -> when it goes on
        self._next_at = time.monotonic() + rng.uniform(*pause_seconds)

    def round(self, *, more: bool) -> None:
        """Let go on what was stopped for long enough, and hit once more where it is time."""
        now = time.monotonic()
        for pid in [p for p, at in self._stopped.items() if at <= now]:
            del self._stopped[pid]
            _send(pid, signal.SIGCONT)
        if not more or now < self._next_at:
            return
        self._next_at = now + self.rng.uniform(*self._pause_seconds)
        free = {n: p for n, p in sorted(self._victims().items()) if p not in self._stopped}
        if not free:
            return
        victim = self.rng.choice([*free, *(n for n in free if n == self._favourite for _ in "12")])
        if self.rng.random() < 0.5:
            _send(free[victim], signal.SIGKILL)
            self.done.append(("kill", victim))
        else:
            _send(free[victim], signal.SIGSTOP)
            pause = self._ttl_seconds + self.rng.uniform(0.5, 5.0)
            self._stopped[free[victim]] = now + pause
            self.done.append((f"stop {pause:.1f} s", victim))

    def is_over(self) -> bool:
        """Whether nothing is stopped any more."""
        return not self._stopped

    def let_go(self) -> None:
        """Let all go on at once."""
        for pid in self._stopped:
            _send(pid, signal.SIGCONT)
        self._stopped.clear()


def _send(pid: int, number: signal.Signals) -> None:
    # The number is still its own: whoever started it has not waited for it in the meantime, or
    # it is looked at again.
    if b"flowos_cli" in state_of(pid)[0]:
        os.kill(pid, number)


def plain_environment() -> dict[str, str]:
    """This process's environment without what means other cells."""
    return {k: v for k, v in os.environ.items() if not k.startswith("FLOWOS_")}


def note(line: str) -> None:
    """Print a figure at once, past pytest's capture where `-s` is given."""
    print(line, file=sys.stderr, flush=True)
