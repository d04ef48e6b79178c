"""What is measured on: a fresh cell in a safe etcd on disk, the processes around it, and slices."""

import contextlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

from flowos.documents.presets import preset
from flowos.model.cell import Cell
from flowos.model.codec import decode
from flowos.model.placement import Decision, Placement, Unplaceable
from flowos.model.slice import EngineChoice, EngineRole, Slice, SliceSpec
from flowos.model.transaction import Operation, Transaction
from flowos.model.view import CellView
from flowos.protocol.commit import commit
from flowos.protocol.proposal import Fence
from flowos.runtime.client import CellClient
from flowos.runtime.clock import SystemClock
from flowos.runtime.embedded import EmbeddedScheduler
from flowos.runtime.loading import load_cell_into
from flowos.runtime.processes import new_attempt
from flowos_schedulers.batch import Batch
from flowos_store import EmbeddedEtcd, EtcdStore

ENGINES_PER_NODE = 8
PUTS = 100  # of one transaction
TENANT = "default"
UP_SECONDS = 60.0
SETTLE_SECONDS = 60.0
PARTS = Path(__file__).resolve().parent
NICER = 15  # who stands for processors of other machines


def on_disk() -> Path:
    """Return a folder for data that lies on a disk: a file system in memory has no fsync."""
    for folder in (Path(tempfile.gettempdir()), Path("/var/tmp"), Path.cwd()):  # noqa: S108
        if _file_system(folder) not in ("tmpfs", "ramfs"):
            return folder
    print("no folder on a disk was found: fsync costs nothing here", file=sys.stderr)
    return Path(tempfile.gettempdir())


def _file_system(folder: Path) -> str:
    found = ("", "")
    with contextlib.suppress(OSError):
        for line in Path("/proc/mounts").read_text().splitlines():
            _, point, kind, *_ = line.split()
            if folder.resolve().is_relative_to(point) and len(point) >= len(found[0]):
                found = (point, kind)
    return found[1]


class Bench:
    """One etcd with fsync, one cell in it, and the processes started on it."""

    def __init__(
        self, cell: Cell | str, *, profile: Path | None = None, profiled: str = ""
    ) -> None:
        """Take a cell, or the name of a preset; nothing is started yet.

        Args:
            cell: What to load.
            profile: Where a process's profile goes.
            profiled: Which process's: scheduler, controller or agent.
        """
        self._cell = cell
        self._profile = profile
        self._profiled = profiled
        self.folder = Path(tempfile.mkdtemp(prefix="flowos-commit-", dir=on_disk()))
        self.etcd = EmbeddedEtcd(self.folder / "etcd")
        self.processes: list[subprocess.Popen[bytes]] = []
        self.logs: list[Path] = []
        self._frees: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        """Start etcd and load the cell."""
        try:
            self.etcd.start()
            self.store = EtcdStore([self.etcd.endpoint])
            self.cell = preset(self._cell) if isinstance(self._cell, str) else self._cell
            self.loaded_at = load_cell_into(self.store, self.cell)
            self.client = CellClient(self.store, SystemClock())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Stop everything and remove it."""
        self._end()

    def _end(self) -> None:
        self.stop()
        with contextlib.suppress(AttributeError):
            self.store.close()
        self.etcd.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    # -- processes

    def start(self, role: str, *words: str) -> subprocess.Popen[bytes]:
        """Start `flowos ROLE run WORDS` on this cell; return at once."""
        program = ["-m", "flowos_cli.main"]
        if role == self._profiled and self._profile is not None:
            program = [str(PARTS / "profiled.py"), str(self._profile)]
        return self._launch([*program, role, "run", *words])

    def start_script(self, script: str, *words: str) -> subprocess.Popen[bytes]:
        """Start a script that lies beside this file on this cell; return at once."""
        return self._launch([str(PARTS / script), *words])

    def _launch(self, words: list[str]) -> subprocess.Popen[bytes]:
        log = self.folder / f"process-{len(self.processes)}.log"
        where = ["--endpoints", self.etcd.endpoint, "--data-dir", str(self.folder)]
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, *words, *where],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        self.processes.append(process)
        self.logs.append(log)
        return process

    def await_step(self) -> None:
        """Wait until every process has said that it is in step with the cell."""
        deadline = time.monotonic() + UP_SECONDS
        for process, log in zip(self.processes, self.logs, strict=True):
            while process.poll() is None and b"is in step" not in log.read_bytes():
                if time.monotonic() > deadline:
                    raise SystemExit(f"not up after {UP_SECONDS:g} s: {log.read_text()}")
                time.sleep(0.002)
            if process.poll() is not None:
                raise SystemExit(f"ended with {process.returncode}: {log.read_text()}")

    def start_freeing(self) -> None:
        """Start who really gives units back: a controller, and an agent whose steps take no time."""
        if self._frees:
            return
        self._frees += [
            self.start("agent", "--driver", "sim", "--delay", "none=0"),
            self.start("controller", "--idle-off", "0"),
        ]
        for process in self._frees:  # before they have threads, which take it over
            os.setpriority(os.PRIO_PROCESS, process.pid, os.nice(0) + NICER)
        self.await_step()

    @contextlib.contextmanager
    def elsewhere(self) -> Iterator[None]:
        """Let the controller and the agent pause: they stand for processors of other machines."""
        for process in self._frees:
            process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            for process in self._frees:
                process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End the processes, and wait for them."""
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
        for process in self.processes:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes.clear()
        self.logs.clear()
        self._frees.clear()

    def cpu_seconds(self) -> dict[str, float]:
        """Return the CPU that etcd and the processes have used so far, by what they are."""
        found = {"etcd": cpu_of(self.etcd.pid)}
        for process in self.processes:
            words = process.args
            assert isinstance(words, list)
            role = next((w for w in words if w in ("agent", "controller", "scheduler")), "other")
            found[role] = found.get(role, 0.0) + cpu_of(process.pid)
        return found

    # -- state

    def placements(self) -> dict[str, Placement]:
        """Return what is placed now."""
        found = self.store.read(["placement/"]).records
        return {r.key.partition("/")[2]: decode(Placement, r.value) for r in found}

    def settle(self) -> None:
        """Wait until all that is placed is up and all that was released is free."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while any(
            not name.startswith("~") and (p.started_at is None or p.releasing or p.ending)
            for name, p in self.placements().items()
        ):
            if time.monotonic() > deadline:
                raise SystemExit(f"the cell did not settle in {SETTLE_SECONDS:g} s")
            time.sleep(0.05)

    def scheduler(self, name: str = "bench") -> EmbeddedScheduler:
        """Open an embedded scheduler with the policy `batch`."""
        return self.client.scheduler(Batch(), name=name)


# ----------------------------------------------------------------------------------------- slices


class Mix:
    """Requests for gangs of 1 to 8 engines of one node, uniform, as the rival's driver draws them."""

    def __init__(self, seed: int = 1, stem: str = "g") -> None:
        """Start a seeded sequence."""
        self._random = random.Random(seed)
        self._stem = stem
        self._count = 0

    def next(self) -> SliceSpec:
        """Return a new request."""
        return self.of(self._random.randint(1, ENGINES_PER_NODE))

    def of(self, engines: int) -> SliceSpec:
        """Return a new request of so many engines; more than a node has may lie on several."""
        self._count += 1
        return SliceSpec(
            name=f"{self._stem}{self._count}",
            tenant=TENANT,
            engines={"workers": EngineRole((EngineChoice(count=engines),))},
            together={"workers": "node"} if engines <= ENGINES_PER_NODE else {},
        )

    def take(self, number: int) -> list[SliceSpec]:
        """Return so many new requests."""
        return [self.next() for _ in range(number)]


def fill(scheduler: EmbeddedScheduler, mix: Mix, engines: int, *, gang: int = 0) -> list[str]:
    """Place until so many engines are held; return the slices, the oldest first.

    Args:
        scheduler: Who places, in groups.
        mix: What.
        engines: How many are to be held.
        gang: Engines of each slice; 0 = as the mix comes.
    """
    held = 0
    placed: list[str] = []
    while held < engines:
        batch = [mix.of(gang) if gang else mix.next() for _ in range(64)]
        for spec, placement in zip(batch, scheduler.place(batch), strict=True):
            if isinstance(placement, Unplaceable):
                raise SystemExit(f"{spec.id}: {placement.sentence}")
            held += len(placement.held)
            placed.append(spec.id)
    return placed


def fill_in_bulk(bench: Bench) -> list[str]:
    """Let every second node be held by a slice of its own, as if placed; return the slices.

    Slices, placements, claims and orders are those of the protocol's own step, written many to a
    transaction and without compares: a large cell is half full in seconds.
    """
    cell = bench.cell
    view = CellView(cell=cell)
    fence = Fence("session/client/fill", 0)
    puts: list[Operation] = []
    names = []
    mix = Mix(stem="w")
    for node in list(cell.nodes)[::2]:
        spec = mix.of(ENGINES_PER_NODE)
        engines = cell.engines_of[node]
        units: dict[str, tuple[int, ...]] = {f"engine/{engine}": () for engine in engines}
        decision = Decision({"workers": tuple(engines)}, units)
        record = Slice(spec=spec, submitted_at=1.0)
        step = commit(
            view, spec.id, decision, fence=fence, attempt=new_attempt(), scheduler="fill",
            spec=(spec.id, record),
        )  # fmt: skip
        assert step is not None
        puts += step.transaction.operations
        names.append(spec.id)
    parts = [tuple(puts[n : n + PUTS]) for n in range(0, len(puts), PUTS)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda part: bench.store.commit([Transaction((), part)]), parts))
    return names


def half_full(bench: Bench, scheduler: EmbeddedScheduler, mix: Mix) -> list[str]:
    """Place what is missing until half of 1,000 x 8 is held; return the slices, the oldest first."""
    found = bench.store.read(["placement/"]).records
    there = sorted((r.created, r.key.partition("/")[2], r.value) for r in found)
    held = sum(len(decode(Placement, value).held) for *_, value in there)
    return [name for _, name, _ in there] + fill(scheduler, mix, 4000 - held)


# --------------------------------------------------------------------------------------- measuring


class Spent:
    """CPU of this process, and wall time, between two moments."""

    def __enter__(self) -> Self:
        """Begin."""
        self._cpu, self._wall = _cpu(), time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self.seconds = time.perf_counter() - self._wall
        self.cpu_seconds = _cpu() - self._cpu


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def cpu_of(pid: int) -> float:
    """Return the CPU seconds that another process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def quantile(samples: Sequence[float], at: float) -> float:
    """Return a quantile, the nearest sample from above."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(at * len(ordered)))]


def timed(call: Callable[[], Any], into: list[float]) -> Any:
    """Call, and add how many seconds it took."""
    before = time.perf_counter()
    result = call()
    into.append(time.perf_counter() - before)
    return result
