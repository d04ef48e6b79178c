"""`flowos up` and `flowos down`: a whole cell on one machine."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flowos.model.errors import FlowosError, NotInTime, SpecError, StoreError
from flowos_cli.children import RESTART_SECONDS, Child
from flowos_cli.commands.completion import policies
from flowos_cli.commands.plugins import policy_named
from flowos_cli.commands.processes import PROGRAM, counted
from flowos_cli.wiring import Where, where_options

if TYPE_CHECKING:
    from flowos.model.cell import Cell
    from flowos_store import EmbeddedEtcd, EtcdStore

READY_SECONDS = 30.0  # what the processes of a preset may take to open their sessions
LOAD_SECONDS = 120.0  # what a large cell may take to load
STOP_SECONDS = 15.0
PRESET_DEFAULT = "fic-small"
THIS_MACHINE = "this machine"


@click.command()
@click.option(
    "--cell", "source", default="", metavar="FILE|PRESET", help="What the cell is made of."
)
@click.option(
    "--scheduler",
    "schedulers",
    multiple=True,
    metavar="NAME[=N]",
    shell_complete=policies,
    help="Scheduler processes; default batch=2.",
)
@click.option(
    "--agents",
    type=click.Choice(["sim", "local", "none"]),
    default="sim",
    show_default=True,
    help="Who carries out orders; local: this machine's cores and devices, for real.",
)
@click.option("--detach", is_flag=True, help="Return when all is up; 'flowos down' stops it.")
@click.option("--no-controller", is_flag=True, help="Start none: nothing is given back then.")
@click.option(
    "--idle-off", default="15m", show_default=True, help="Power idle engines off; 0 = never."
)
@click.option(
    "--delay",
    "delays",
    multiple=True,
    metavar="VERB=T",
    help="How long simulated steps take (see 'flowos agent run').",
)
@click.option("--no-fsync", is_flag=True, help="Don't wait for the disk: throw-away cells only.")
@where_options
def up(
    source: str,
    schedulers: tuple[str, ...],
    agents: str,
    detach: bool,
    no_controller: bool,
    idle_off: str,
    delays: tuple[str, ...],
    no_fsync: bool,
    where: Where,
) -> int:
    """Start a cell on this machine: store, schedulers, controller and agents.

    \b
    flowos up --detach --cell fic-small --scheduler batch=2 --scheduler service
    """
    from flowos.documents.quantities import seconds_of

    seconds_of(idle_off)
    wanted = [counted(text) for text in schedulers or ("batch=2",)]
    for name, _ in wanted:
        policy_named(name)
    if agents == "local":
        if source:
            raise SpecError(
                "a cell of local agents is this machine, as it is", hint="leave --cell out"
            )
        source = THIS_MACHINE
    cell = _cell(source) if source else None  # a wrong file is said before anything is started
    folder = where.folder()
    _refuse_leftovers(folder)
    if detach:
        return _detach(folder)
    lock = _lock(folder)
    processes: list[Child] = []
    for name, number in wanted:
        processes += [
            Child(f"{name}-{n}", ["scheduler", "run", name, "--name", f"{name}-{n}"])
            for n in range(number)
        ]
    if not no_controller:
        processes.append(Child("controller-0", ["controller", "run", "--idle-off", idle_off]))
    if agents == "local":
        processes.append(Child("agent-0", ["agent", "run", "--driver", "local"]))
    if agents == "sim":
        options = [word for text in delays for word in ("--delay", text)]
        processes.append(Child("agent-0", ["agent", "run", "--driver", "sim", *options]))
    keeper = _Keeper(folder, where, processes, no_fsync=no_fsync)
    try:
        keeper.run(source, cell)
    finally:
        os.close(lock)
    return 0


@click.command()
@click.option("--data-dir", envvar="FLOWOS_DATA_DIR", default="", help="As given to 'up'.")
def down(data_dir: str) -> int:
    """Stop what 'up' started in this data directory."""
    from flowos_store.opening import data_directory

    folder = data_directory(data_dir)
    state = _state(folder)
    if not _alive_of(state):
        stopped = _stop_store(folder)
        said = "stopped the store that ran" if stopped else "nothing runs"
        click.echo(f"{said} in {folder}", err=True)
        return 0
    deadline = time.monotonic() + STOP_SECONDS
    if _supervised(state):
        os.kill(state["supervisor"], signal.SIGTERM)
        while _supervised(state) and time.monotonic() < deadline:
            time.sleep(0.05)
    for pid in _alive_of(state):  # the supervisor was killed, or could not
        os.kill(pid, signal.SIGTERM)
    while _alive_of(state) and time.monotonic() < deadline:
        time.sleep(0.05)
    for pid in _alive_of(state):
        os.kill(pid, signal.SIGKILL)
    _stop_store(folder)
    (folder / "run.json").unlink(missing_ok=True)
    click.echo(f"stopped the cell in {folder}", err=True)
    return 0


def _stop_store(folder: Path) -> bool:
    """Stop the folder's store; False where none runs."""
    from flowos_store import EmbeddedEtcd
    from flowos_store.opening import STORE_FOLDER

    try:
        EmbeddedEtcd.attach(folder / STORE_FOLDER).stop()
    except StoreError:
        return False
    return True


def _cell(source: str) -> "Cell":
    if source == THIS_MACHINE:
        from flowos.drivers.local.devices import cache_folder, this_machine

        return this_machine(cache_folder()).cell()
    from flowos.documents.presets import file_or_preset

    return file_or_preset(source)


@dataclass
class _Keeper:
    """Starts the store and the children, keeps them running, and stops them."""

    folder: Path
    where: Where
    processes: list[Child]
    no_fsync: bool = False
    stopping: bool = False
    store: "EmbeddedEtcd | None" = None
    store_pid: int = 0
    restart_at: float = 0.0  # when the store is tried again; 0 = it ran when last looked at
    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ))

    def run(self, source: str, cell: "Cell | None") -> None:
        """Bring everything up, wait until told to stop, and bring it down."""
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        (self.folder / "logs").mkdir(parents=True, exist_ok=True)
        try:
            self._start_store()
            store = self.where.store()
            try:
                loaded = self._load(store, source, cell)
                if self.stopping:
                    return
                self._write(ready=False)
                for process in self.processes:
                    self._start(process)
                self._write(ready=False)
                self._await_sessions(store)
            finally:
                store.close()
            if not self.stopping:  # said first: who waits for the word "ready" may stop it at once
                click.echo(
                    f"cell {loaded} is up in {self.folder}: {len(self.processes)} processes, "
                    "Ctrl-C or 'flowos down' stops it",
                    err=True,
                )
            self._write(ready=not self.stopping, cell=loaded)
            self._keep()
        finally:
            self._bring_down()

    def _stop(self, *_: object) -> None:
        self.stopping = True

    def _start_store(self) -> None:
        if self.where.endpoints:
            return
        from flowos_store import EmbeddedEtcd, find_server
        from flowos_store.opening import STORE_FOLDER

        server = find_server()
        for note in server.notes:
            click.echo(f"note: {note}", err=True)
        self.store = EmbeddedEtcd(
            self.folder / STORE_FOLDER,
            server=server,
            unsafe_no_fsync=self.no_fsync,
            detached=True,
        )
        self.store.start()
        self.store_pid = self.store.pid

    def _load(self, store: "EtcdStore", source: str, cell: "Cell | None") -> str:
        """Load the cell where there is none; return where it came from."""
        from flowos.model import keys
        from flowos.runtime.loading import load_cell_into
        from flowos_cli.render import progress_bar

        info = [r for r in store.read([keys.INFO]).records if r.key == keys.INFO]
        if info:
            known = str(json.loads(info[0].value).get("source", ""))
            if source and source != known:
                raise SpecError(
                    f"{self.folder} holds a cell made of '{known or 'another file'}' already",
                    hint="leave --cell out to go on with it, use another --data-dir, or replace "
                    "it with 'flowos cell init --replace'",
                )
            return known or "main"
        source = source or PRESET_DEFAULT
        with progress_bar("loading the cell") as tell:
            load_cell_into(store, cell or _cell(source), source=source, progress=tell)
        return source

    def _start(self, process: Child) -> None:
        log = (self.folder / "logs" / f"{process.name}.log").open("ab")
        with log:
            process.running = subprocess.Popen(
                [*PROGRAM, *process.arguments]
                + self.where.arguments()
                + ([] if self.where.data_dir else ["--data-dir", str(self.folder)]),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
                start_new_session=True,  # Ctrl-C is for this process alone: it stops the others
            )
        process.started_at = time.monotonic()

    def _await_sessions(self, store: "EtcdStore") -> None:
        """Wait until every child has a session."""
        deadline = time.monotonic() + READY_SECONDS
        while not self.stopping:
            names = {
                json.loads(record.value).get("name") for record in store.read(["session/"]).records
            }
            missing = [p.name for p in self.processes if p.name not in names]
            if not missing:
                return
            for process in self.processes:
                code = process.running.poll() if process.running else None
                if code is not None:
                    raise FlowosError(
                        f"{process.name} ended with {code}: {self._last_line(process)}"
                    )
            if time.monotonic() > deadline:
                raise NotInTime(
                    f"{', '.join(missing)} not up after {READY_SECONDS:g} s: see "
                    f"{self.folder / 'logs'}"
                )
            time.sleep(0.05)

    def _last_line(self, process: Child) -> str:
        log = self.folder / "logs" / f"{process.name}.log"
        lines = log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def _keep(self) -> None:
        """Start again what dies, until told to stop."""
        while not self.stopping:
            time.sleep(0.1)
            locked = self.store is None or self.store.is_running()
            if not (self.folder / "up.lock").exists() or (not locked and self._store_lives()):
                click.echo(
                    f"{self.folder} was removed: stopping the cell that lived there", err=True
                )
                self._end_homeless_store()
                return
            for process in self.processes:
                code = process.ended()
                if code is not None:
                    click.echo(f"{process.name} ended with {code}: starting it again", err=True)
                    self._start(process)
                    self._write(ready=True)
            if not locked and time.monotonic() >= self.restart_at:
                self._restart_store()

    def _restart_store(self) -> None:
        """Try to start the store again; what is in the way is said once."""
        assert self.store is not None
        first = not self.restart_at
        if first:
            click.echo("the store ended: starting it again", err=True)
        try:
            self.store.start()
        except StoreError as error:
            if first:
                click.echo(f"error: {error}: trying on", err=True)
            self.restart_at = time.monotonic() + RESTART_SECONDS
            return
        if not first:
            click.echo("the store runs again", err=True)
        self.restart_at = 0.0
        self.store_pid = self.store.pid

    def _store_lives(self) -> bool:
        """Whether the store's process is there, whatever its folder and its lock say."""
        try:
            command = Path(f"/proc/{self.store_pid}/cmdline").read_bytes()
        except OSError:
            return False
        return self.store_pid > 0 and str(self.folder).encode() in command

    def _end_homeless_store(self) -> None:
        """End a store whose folder, and so the lock that tells whose process it is, is gone."""
        if self._store_lives():
            os.kill(self.store_pid, signal.SIGKILL)  # it has nothing to save any more

    def _bring_down(self) -> None:
        children = [p.running for p in self.processes if p.running is not None]
        for child in children:
            if child.poll() is None:
                child.terminate()
        deadline = time.monotonic() + STOP_SECONDS / 2
        for child in children:
            try:
                child.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        if self.store is not None:
            self.store.stop()
        (self.folder / "run.json").unlink(missing_ok=True)

    def _write(self, *, ready: bool, cell: str = "") -> None:
        """Say in run.json what runs, for `down` and for a waiting `up --detach`."""
        before = _state(self.folder)
        state = {
            "supervisor": os.getpid(),
            "started": _started(os.getpid()),
            "ready": ready,
            "cell": cell or before.get("cell", ""),
            "processes": [
                {"name": p.name, "pid": p.running.pid, "started": _started(p.running.pid)}
                for p in self.processes
                if p.running
            ],
        }
        path = self.folder / "run.json"
        part = path.with_suffix(".part")
        part.write_text(json.dumps(state))
        part.replace(path)


def _refuse_leftovers(folder: Path) -> None:
    """Do not start beside what an `up` that was killed has left running."""
    state = _state(folder)
    left = _alive_of(state)
    if left and not _supervised(state):
        raise SpecError(
            f"{len(left)} processes of an earlier 'up' run in {folder}",
            hint="'flowos down' stops them, --data-dir names another place",
        )


def _lock(folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise SpecError(
            f"a cell runs in {folder} already",
            hint="'flowos down' stops it, --data-dir names another place",
        ) from None
    return lock


def _detach(folder: Path) -> int:
    """Start the same command as a process of its own and wait until it says that all is up."""
    os.close(_lock(folder))
    (folder / "run.json").unlink(missing_ok=True)
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    arguments = [word for word in sys.argv[1:] if word != "--detach"]
    log_path = folder / "logs" / "up.log"
    with log_path.open("wb") as log:
        child = subprocess.Popen(
            [*PROGRAM, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    deadline = time.monotonic() + READY_SECONDS + LOAD_SECONDS
    while True:
        state = _state(folder)
        if state.get("ready"):
            child.returncode = 0  # it stays; Popen need not warn
            click.echo(
                f"cell {state['cell']} is up in {folder}: 'flowos status' shows it, "
                f"'flowos down' stops it",
                err=True,
            )
            return 0
        code = child.poll()
        if code is not None:
            said = [line for line in log_path.read_text(errors="replace").splitlines() if line]
            click.echo(said[-1] if said else f"error: up ended with {code}", err=True)
            return code or 1
        if time.monotonic() > deadline:
            child.terminate()
            raise NotInTime(f"the cell is not up yet: see {folder / 'logs'}")
        time.sleep(0.05)


def _state(folder: Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = json.loads((folder / "run.json").read_text())
    except (OSError, ValueError):
        return {}
    return state


def _alive_of(state: dict[str, Any]) -> list[int]:
    found = [state["supervisor"]] if _supervised(state) else []
    listed = state.get("processes", [])
    return found + [p["pid"] for p in listed if _is_ours(p["pid"], p.get("started", 0))]


def _supervised(state: dict[str, Any]) -> bool:
    """Whether the `up` that wrote this state still runs."""
    return _is_ours(state.get("supervisor", 0), state.get("started", 0))


def _is_ours(pid: int, started: int) -> bool:
    """Whether a process still is the one that was noted: numbers are used again."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return pid > 0 and b"flowos" in command and _started(pid) == started


def _started(pid: int) -> int:
    """Return when a process began, in the kernel's ticks since the machine did; 0 = it has ended.

    Together with its number, nothing else tells it as surely from all others: a data directory may
    stand in a command line by another name, or not at all.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if stat[0] == "Z" else int(stat[19])
