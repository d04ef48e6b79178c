"""One server behind a proxy, and whole processes that reach it only by way of the proxy."""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Self

import flowos
from flowos.runtime.client import CellClient
from flowos_store import EmbeddedEtcd
from tests.faults.crew import Crew
from tests.faults.load import short
from tests.faults.machine import COMMAND, state_of, until
from tests.plugins.proxy import Proxy

ROLES = ("batch-0", "controller-0", "agent-0")
TTL_SECONDS = 12  # outlives the troubles here; processes look at their lease every 4 s
QUOTA = 24 << 20  # bytes: a store that is soon full
TICKS = os.sysconf("SC_CLK_TCK")


class Trial:
    """A scheduler, a controller and an agent, whose way to the store a test can spoil."""

    def __init__(self, folder: Path, *, flags: Sequence[str] = ()) -> None:
        """Describe it; entering it starts all.

        Args:
            folder: For everything.
            flags: More of etcd's own.
        """
        self.folder = folder
        self.server = EmbeddedEtcd(folder / "etcd", unsafe_no_fsync=True, flags=tuple(flags))
        self._marks: dict[str, int] = {}
        self._token = ""

    def __enter__(self) -> Self:
        self.server.start()
        self.proxy = Proxy(self.server.endpoint)
        self.where: tuple[str, ...] = (
            *("--data-dir", str(self.folder)),
            *("--endpoints", self.proxy.endpoint),
        )
        self.crew = Crew(self.folder, self.where)
        return self

    def __exit__(self, *_: object) -> None:
        self.crew.close()
        self.proxy.close()
        self.server.stop()

    def start(self) -> None:
        """Load a small cell and start the three processes."""
        done = self.run("cell", "init", "fic-small")
        assert done.returncode == 0, done.stderr
        self.crew.scheduler("batch-0", TTL_SECONDS)
        self.crew.controller("controller-0", TTL_SECONDS)
        self.crew.agent("agent-0", ttl_seconds=TTL_SECONDS)
        self.crew.until_in_step()
        self.before = self.crew.pids()

    def arguments(self, *words: str) -> list[str]:
        """Return the whole command that means this store."""
        return [*COMMAND, *words, *self.where]

    def run(
        self, *words: str, patience_seconds: float = 30.0, **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end."""
        return subprocess.run(
            self.arguments(*words),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=self.crew.environment | environment,
            timeout=patience_seconds,
        )

    def cell(self) -> CellClient:
        """Connect past the proxy."""
        return flowos.connect([self.server.endpoint])

    def is_served(self, name: str) -> None:
        """A slice submitted now is placed, built, run, and given back: all three work."""
        with self.cell() as cell:
            cell.submit([short(name)])
            cell.wait(f"default/{name}", "done", timeout_seconds=25.0)

    # -- what processes say

    def mark(self) -> None:
        """From here on `said` looks at logs."""
        self._marks = {name: len(self.crew.log(name)) for name in self.crew.members}

    def said(self, name: str) -> list[str]:
        """What a process has said since the mark, but for that it is well."""
        lines = self.crew.log(name)[self._marks[name] :].splitlines()
        return [line for line in lines if "in step with the cell" not in line]

    def until_said(self, name: str, lines: int = 1, phrase: str = "") -> None:
        """Wait until a process has said so many lines that hold a phrase."""

        def has_said() -> bool:
            return len([line for line in self.said(name) if phrase in line]) >= lines

        until(has_said, f"{name} has said {lines} lines with '{phrase}'")

    def has_said_once(self, name: str, begins: str, ends: str) -> None:
        """A process has said when the trouble began, naming the endpoint, and when it was over."""
        said = self.said(name)
        text = "\n".join(said)
        assert len(said) == 2, f"{name} said:\n{text}"
        assert begins in said[0], text
        assert self.proxy.endpoint in said[0], text
        assert ends in said[1], text
        tried = re.search(r"after ([0-9.]+) s, ([0-9]+) tries", said[1])
        if tried:  # with back-off, a few a second at first and one in seconds later
            assert int(tried[2]) <= 10 + 10 * float(tried[1]), text

    def all_go_on_with_the_same_pids(self) -> None:
        """No process has ended."""
        assert self.crew.pids() == self.before
        assert self.crew.codes == []

    def busy(self, name: str) -> float:
        """The seconds of CPU that a process has used so far."""
        pid = self.crew.pids()[name]
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(stat[11]) + int(stat[12])) / TICKS

    def rests_meanwhile(self, trouble: Callable[[], object]) -> None:
        """What happens meanwhile makes no process spin."""
        before = {name: self.busy(name) for name in ROLES}
        began = time.monotonic()
        trouble()
        took = time.monotonic() - began
        used = {name: self.busy(name) - before[name] for name in ROLES}
        # Measured: 1 % with back-off; where it spins 20 %, on a machine that is busy otherwise.
        assert all(seconds < 0.1 + 0.05 * took for seconds in used.values()), (used, took)

    def stop(self, name: str) -> None:
        """Stop a process until `go_on`."""
        pid = self.crew.signal(name, signal.SIGSTOP)
        until(lambda: state_of(pid)[1] == "T", f"{name} is stopped")

    def go_on(self, name: str) -> None:
        """Let a stopped process go on."""
        self.crew.signal(name, signal.SIGCONT)

    # -- what an operator does to etcd itself

    def etcd(self, path: str, **fields: Any) -> dict[str, Any]:
        """Ask etcd by its JSON gateway, past the proxy; as root, once logged in."""
        host, _, port = self.server.endpoint.partition(":")
        connection = HTTPConnection(host, int(port), timeout=20.0)
        headers = {"Authorization": self._token} if self._token else {}
        try:
            connection.request("POST", f"/v3/{path}", json.dumps(fields), headers)
            answer = connection.getresponse()
            said = json.loads(answer.read())
        finally:
            connection.close()
        found: dict[str, Any] = said
        return found if answer.status == 200 else {"error": said}

    def log_in(self, password: str) -> None:
        """From here on `etcd` asks as root."""
        self._token = ""
        self._token = self.etcd("auth/authenticate", name="root", password=password)["token"]
