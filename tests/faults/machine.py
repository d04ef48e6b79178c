"""How is a whole cell started, hurt, looked at and stopped, as on a user's machine?"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import flowos
from flowos.model.codec import decode
from flowos.model.errors import StoreUnreachable
from flowos.model.protocols import CellStore
from flowos.model.slice import EngineChoice, EngineRole, Phase, Run, Slice, SliceSpec
from flowos.runtime.client import CellClient
from flowos.verify.history import verify_history
from flowos_store import EmbeddedEtcd
from flowos_store.opening import STORE_FOLDER

COMMAND = (sys.executable, "-m", "flowos_cli.main")
PATIENCE_SECONDS = 25.0


def until(happened: Callable[[], object], what: str, seconds: float = PATIENCE_SECONDS) -> None:
    """Poll until something is so; fail by name where it does not come.

    A store that is out of reach for a moment says nothing of it.
    """
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(StoreUnreachable):
            if happened():
                return
        assert time.monotonic() < deadline, f"not after {seconds:g} s: {what}"
        time.sleep(0.02)


def until_none(found: Callable[[], Sequence[object]], what: str, seconds: float = 60.0) -> None:
    """Poll until nothing is found any more; name what is left where that does not come."""
    try:
        until(lambda: not found(), what, seconds)
    except AssertionError as error:
        raise AssertionError(f"{error}; left: {list(found())[:20]}") from None


def left_over(store: CellStore) -> list[str]:
    """Return what is held, ordered or reported, and every slice that has not ended.

    That nothing is held is not yet the end: a slice may stand back for a moment after a lost race.
    """
    held = [r.key for r in store.read(["claim/", "placement/", "order/", "report/"]).records]
    slices = store.read(["slice/"]).records
    return held + [r.key for r in slices if decode(Slice, r.value).end is None]


def state_of(pid: int) -> tuple[bytes, str]:
    """Return a process's command line and its state ("T" = stopped, "Z" = only to be reaped)."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        return command, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return b"", ""


class Machine:
    """A data directory, and what `flowos up` runs for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seen: set[int] = set()  # every process of this cell that was ever seen
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("FLOWOS_")}

    def command(self, *words: str, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Run a `flowos` command on this directory; `code` is how it must end, None = any."""
        done = subprocess.run(
            [*COMMAND, words[0], "--data-dir", str(self.folder), *words[1:]],
            capture_output=True,
            text=True,
            env=self.environment,
            timeout=60,
        )
        assert "Traceback" not in done.stderr
        assert code is None or done.returncode == code, (words, done.returncode, done.stderr)
        return done

    def up(
        self,
        *words: str,
        code: int | None = 0,
        fsync: bool = False,
        ttl_seconds: int | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Start the cell in the background, with devices that take no time."""
        if ttl_seconds is not None:
            self.environment["FLOWOS_TTL"] = str(ttl_seconds)
        fast = ("--detach", "--delay", "none=0", *(() if fsync else ("--no-fsync",)))
        done = self.command("up", *fast, *words, code=code)
        if done.returncode == 0:
            self.processes()
        return done

    def down(self, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Stop it."""
        return self.command("down", code=code)

    # -- processes

    def state(self) -> dict[str, object]:
        """What run.json says; empty where nothing runs."""
        try:
            found: dict[str, object] = json.loads((self.folder / "run.json").read_text())
        except FileNotFoundError:
            return {}
        return found

    def processes(self) -> dict[str, int]:
        """Name -> pid of all that runs now, by what run.json and the store's folder say."""
        state = self.state()
        found = {"supervisor": state.get("supervisor", 0)}
        listed = state.get("processes", [])
        assert isinstance(listed, list)
        found |= {process["name"]: process["pid"] for process in listed}
        server = self.folder / STORE_FOLDER / "server.json"
        if server.exists():
            found["etcd"] = json.loads(server.read_text())["pid"]
        pids = {name: pid for name, pid in found.items() if isinstance(pid, int) and pid}
        self.seen |= set(pids.values())
        return pids

    def left(self) -> list[int]:
        """Which of all processes that were ever seen still live."""
        self.processes()
        return [pid for pid in self.seen if self.lives(pid)]

    def lives(self, pid: int) -> bool:
        """Whether a process of this cell lives, and not another one that got its number since.

        A process that only waits to be reaped does not.
        """
        command, status = state_of(pid)
        return str(self.folder).encode() in command and status != "Z"

    def signal(self, name: str, number: signal.Signals) -> int:
        """Send a signal to a process; return its pid."""
        pid = self.processes()[name]
        os.kill(pid, number)
        return pid

    def log(self, name: str) -> str:
        """What a process has said of itself."""
        return (self.folder / "logs" / f"{name}.log").read_text(errors="replace")

    def is_locked(self) -> bool:
        """Whether etcd runs on this directory."""
        return EmbeddedEtcd(self.folder / STORE_FOLDER).is_running()

    def clean_up(self) -> None:
        """End everything, however a test has left it."""
        self.processes()
        for pid in self.seen:
            if self.lives(pid):
                os.kill(pid, signal.SIGKILL)
        until(lambda: not self.left(), "everything ended")

    # -- slices

    @contextmanager
    def client(self) -> Iterator[CellClient]:
        """Connect to the cell."""
        with flowos.connect(data_dir=str(self.folder)) as found:
            yield found


class Load:
    """Many short slices on a living cell, and how they ended."""

    def __init__(self, cell: CellClient, names: Sequence[str]) -> None:
        self.cell = cell
        self.names = tuple(names)

    def submit(self, run_for: float = 0.2) -> None:
        """Submit them all, with one or two GPUs each."""
        self.cell.submit(
            [
                SliceSpec(
                    name=name,
                    engines={"w": EngineRole((EngineChoice("gpu", count=1 + number % 2),))},
                    run=Run(for_seconds=run_for),
                )
                for number, name in enumerate(self.names)
            ]
        )

    def slices(self) -> dict[str, Slice]:
        """The records, by name."""
        found = [decode(Slice, r.value) for r in self.cell.store.read(["slice/"]).records]
        return {record.spec.name: record for record in found if record.spec.name in self.names}

    def ended(self) -> int:
        """How many have ended."""
        return sum(record.end is not None for record in self.slices().values())

    def placed(self) -> int:
        """How many hold anything now."""
        return len(self.cell.store.read(["placement/default/"]).records)

    def all_end_once(self) -> None:
        """Wait for the end of all; nothing failed, was placed twice, or is left."""
        until(lambda: self.ended() == len(self.names), "all slices ended")
        records = self.slices().values()
        assert {record.end.phase for record in records if record.end} == {Phase.DONE}
        assert {record.attempts for record in records} == {1}
        left = ["claim/", "placement/default/", "order/", "report/"]
        until(lambda: not self.cell.store.read(left).records, "the cell is clean")

    def verify(self) -> None:
        """Check every revision that is kept, from the first on."""
        verdict = verify_history(self.cell.store)
        assert verdict.violations == ()
        assert verdict.first == 1
