"""A driver of this machine: a slice's command is started for each of its engines here.

What is up is written down, so an agent that begins anew goes on with what the last one started.
There is no fabric: circuits are a file that tasks are told of, and that what moves their data obeys.
"""

import contextlib
import json
import logging
import shutil
import signal
import subprocess
import time
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from math import inf
from pathlib import Path
from typing import Final

from flowos.drivers.local import tasks
from flowos.drivers.local.devices import Device
from flowos.drivers.local.processes import Process, kill_leftovers, start
from flowos.drivers.step import Finished, Standing, Step, Verb
from flowos.drivers.table import Key, Table
from flowos.model.codec import decode, encode
from flowos.model.errors import SpecError
from flowos.model.placement import Gang, Order
from flowos.model.units import is_laid

LOG = logging.getLogger("flowos")

LOOK_SECONDS: Final = 0.02  # how often it is seen whether a task has ended
KILL_SECONDS: Final = 2.0  # for which tasks that were told to end may go on at least
KEPT_SECONDS: Final = 7 * 86_400.0  # for which a slice's logs stay
SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108  # what shared memory is on Linux
NOT_STARTED: Final = 126


@dataclass(slots=True)
class _Run:
    """The tasks of one attempt here.

    Attributes:
        step: What has to be told of their end.
        until: When a simulated program ends; inf = a command runs.
        failed: What the first of its tasks that failed ended with; then the others are told to end.
        kill_at: When they are made to.
    """

    step: Step
    processes: list[Process] = field(default_factory=list)
    until: float = inf
    failed: int = 0
    kill_at: float = inf


@dataclass(slots=True)
class _Stop:
    """Tasks that were told to end.

    Attributes:
        tasks: Which, by place and attempt.
        kill_at: When they are made to.
    """

    step: Step
    tasks: dict[Key, list[Process]]
    kill_at: float
    killed: bool = False

    @property
    def processes(self) -> list[Process]:
        """All of them."""
        return [process for tasks in self.tasks.values() for process in tasks]


class LocalDriver:
    """This machine's processes and devices."""

    def __init__(self, folder: Path, devices: Mapping[str, Device]) -> None:
        """Take over what an earlier life has left.

        Args:
            folder: For logs, and for what is up.
            devices: Engine id -> what it is here.
        """
        self._folder = folder
        self._devices = devices
        self._table = Table()
        self._runs: dict[Key, _Run] = {}
        self._stops: list[_Stop] = []
        self._ended: list[Finished] = []
        self._children: list[subprocess.Popen[bytes]] = []
        self._next_look = inf
        self._closed = False
        (folder / "up").mkdir(parents=True, exist_ok=True)
        self._load()
        _forget_old(folder / "slices", {attempt for _, attempt in self._table.up})

    # -- the seam

    def begin(self, step: Step, now: float) -> None:
        """Start a step."""
        key = (step.place, step.attempt)
        refused = self._table.in_the_way(step)
        if refused:
            self._ended.append(Finished(step, error=refused))
            return
        try:
            self._carry_out(step, now)
        except OSError as error:  # no room, no right: of this step, and not of all that runs here
            code = self._give_up(step) if step.verb is Verb.RUN else 0
            why = f"cannot write {error.filename or self._folder}: {error.strerror}"
            self._ended.append(Finished(step, code, why))
        self._save(key)

    def _carry_out(self, step: Step, now: float) -> None:
        match step.verb:
            case Verb.RUN:
                self._table.begun(step)
                self._start(step, now)
                self._write((step.place, step.attempt))
            case Verb.STOP:
                self._stop(step, now)
            case Verb.CONNECT:
                self._table.begun(step)
                self._lay(step.place, step.order, step.attempt)
                self._ended.append(Finished(step))
            case Verb.DISCONNECT:
                for _, attempt in self._meant(step):
                    order = self._table.up[step.place, attempt].order
                    none = replace(order, gang=Gang() if order.gang is not None else None)
                    self._lay(step.place, step.keep.get(attempt, none), attempt)
                self._tear_down(step)
                self._ended.append(Finished(step))
            case Verb.SCRUB:
                self._tear_down(step)
                self._ended.append(Finished(step))
            case _:
                self._table.begun(step)
                self._table.torn_down(step)
                self._ended.append(Finished(step))

    def finished(self, now: float) -> list[Finished]:
        """Return what has ended."""
        if self._closed:
            return []
        found, self._ended = self._ended, []
        self._children = [child for child in self._children if child.poll() is None]
        for stop in list(self._stops):
            if any(p.alive for p in stop.processes):
                if now >= stop.kill_at and not stop.killed:
                    stop.killed = True
                    for process in stop.processes:
                        process.tell(signal.SIGKILL)
                continue
            if left := [process for process in stop.processes if process.has_left_some]:
                for process in left:
                    process.tell(signal.SIGKILL)
                continue
            self._stops.remove(stop)
            self._table.stopped(stop.step)
            self._save((stop.step.place, stop.step.attempt))
            found.append(Finished(stop.step))
        for key, run in list(self._runs.items()):
            code = self._exit_code(run, now)
            if code is None:
                continue
            del self._runs[key]
            self._table.ended(run.step, code)
            self._save(key)
            found.append(Finished(run.step, exit_code=code))
        self._next_look = now + LOOK_SECONDS
        return found

    def next_at(self) -> float:
        """Return when to look again."""
        if self._closed:
            return inf
        if self._ended:
            return 0.0
        if self._stops or any(run.until == inf for run in self._runs.values()):
            return self._next_look
        return min((run.until for run in self._runs.values()), default=inf)

    def standing(self) -> list[Standing]:
        """Return what is up; what was running then is running still, or its end will be told."""
        return list(self._table.up.values())

    def close(self) -> None:
        """Leave all as it is: tasks go on, and whoever comes next finds them."""
        self._closed = True
        for child in self._children:
            child.poll()
            child.returncode = child.returncode or 0  # it is nobody's child from now on
        self._children.clear()

    def stop_all(self) -> None:
        """Kill everything that runs, and forget it: for a cell that ends with this process."""
        running = [p for run in self._runs.values() for p in run.processes]
        running += [p for stop in self._stops for p in stop.processes]
        for process in running:
            process.tell(signal.SIGKILL)
        for place, attempt in [*self._table.up]:
            self._sweep(attempt)
            del self._table.up[place, attempt]
            self._save((place, attempt))
        self._runs.clear()
        self._stops.clear()
        for child in self._children:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(KILL_SECONDS)

    # -- tasks

    def _start(self, step: Step, now: float) -> None:
        key, order = (step.place, step.attempt), step.order
        run = self._runs[key] = _Run(step)
        if not order.run.command:
            run.until = now + order.run.for_seconds
            return
        folder = self._attempt_folder(order, step.attempt)
        (folder / "peers.json").write_text(tasks.peers_text(order))
        (folder / "hostfile").write_text(tasks.hostfile_text(order))
        if not (folder / "circuits.json").exists():
            self._lay(step.place, order, step.attempt)
        everybody = tasks.members(order)
        mine = [rank for rank, _, engine, node in everybody if node == step.place and (
            engine in order.tasks or not order.tasks)]  # fmt: skip
        if order.run.launch == "first":
            mine = [rank for rank in mine if rank == 0]
        base = tasks.base_environment()
        for rank in mine:
            engine = everybody[rank][2]
            device = self._devices.get(engine)
            scratch = folder / f"scratch-{rank}"
            scratch.mkdir(exist_ok=True)
            exit_file = folder / f"rank-{rank}.exit"
            log = folder / f"rank-{rank}.log"
            directory = Path(order.run.directory) if order.run.directory else scratch
            cores = device.cores if device is not None and order.run.launch == "each" else ()
            try:
                process, child = start(
                    order.run.command,
                    rank=rank,
                    environment=tasks.environment(
                        order, step.attempt, rank, folder=folder, scratch=scratch, device=device,
                        base=base,
                    ),
                    directory=directory,
                    log=log,
                    exit_file=exit_file,
                    cores=cores,
                )  # fmt: skip
            except (OSError, ValueError) as error:  # the latter: a null byte, a name with "="
                with log.open("a") as file:
                    file.write(f"flowos: cannot start in {directory}: {error}\n")
                exit_file.write_text(f"{NOT_STARTED}\n")
                process = Process(rank, 0, 0, str(exit_file))
            else:
                self._children.append(child)
            run.processes.append(process)
        self._next_look = now

    def _give_up(self, step: Step) -> int:
        """End what a RUN has started that could not be started as a whole; return its exit code."""
        run = self._runs.pop((step.place, step.attempt), None)
        for process in run.processes if run is not None else ():
            process.tell(signal.SIGKILL)
        self._table.ended(step, NOT_STARTED)
        return NOT_STARTED

    @staticmethod
    def _exit_code(run: _Run, now: float) -> int | None:
        """Return what the tasks ended with; None = some run.

        A gang is given up when the first of its tasks fails: others may wait for it for ever.
        """
        if not run.step.order.run.command:
            return 0 if now >= run.until else None
        codes = [(process, process.exit_code()) for process in run.processes]
        running = [process for process, code in codes if code is None]
        failed = [(process.ended_at(), process.rank, code) for process, code in codes if code]
        if run.step.order.run.tolerant:
            ended = [code for _, code in codes if code is not None]
            return None if running else min(ended, default=0)
        if failed and not run.failed:
            run.failed = min(failed)[2]
            run.kill_at = now + KILL_SECONDS
            for process in running:
                process.tell(signal.SIGTERM)
        if running and now >= run.kill_at:
            run.kill_at = inf
            for process in running:
                process.tell(signal.SIGKILL)
        return None if running else run.failed

    def _stop(self, step: Step, now: float) -> None:
        keys = dict.fromkeys(self._table.stopped_by(step, self._runs))
        stop = _Stop(step, {}, now + KILL_SECONDS)
        for key in keys:
            run = self._runs.pop(key, None)
            if run is not None:
                stop.tasks[key] = run.processes
                stop.kill_at = max(stop.kill_at, now + step.graces.get(key[1], 0.0))
        for process in stop.processes:
            process.tell(signal.SIGTERM)
        self._stops.append(stop)
        self._next_look = now

    def _meant(self, step: Step) -> list[Key]:
        if step.attempt:
            key = (step.place, step.attempt)
            return [key] if key in self._table.up else []
        return [k for k in self._table.up if k[0] == step.place and k[1] not in step.keep]

    def _tear_down(self, step: Step) -> None:
        meant = self._meant(step)
        self._table.torn_down(step)
        for place, attempt in meant:
            self._sweep_if_gone(attempt)
            self._save((place, attempt))

    def _sweep_if_gone(self, attempt: str) -> None:
        """Sweep, unless it has an engine here still, or something runs: at a switch, perhaps."""
        left = [there for there in self._table.up.values() if there.attempt == attempt]
        units = (unit for there in left for unit in there.order.units)
        if not any(there.running for there in left) and all(map(is_laid, units)):
            self._sweep(attempt)

    def _sweep(self, attempt: str) -> None:
        """Remove what tasks of an attempt have left: processes, shared memory, scratch."""
        kill_leftovers(attempt)
        for segment in SHARED_MEMORY.glob(f"flowos-{attempt}-*"):
            if segment.is_dir() and not segment.is_symlink():
                shutil.rmtree(segment, ignore_errors=True)
            else:
                segment.unlink(missing_ok=True)
        for folder in (self._folder / "slices").glob(f"*/*/{attempt}"):
            for scratch in folder.glob("scratch-*"):
                shutil.rmtree(scratch, ignore_errors=True)

    # -- files

    def _attempt_folder(self, order: Order, attempt: str) -> Path:
        folder = self._folder / "slices" / order.slice / attempt
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _lay(self, place: str, order: Order, attempt: str) -> None:
        """Write down which circuits there are, in one step: it may be read at any moment."""
        if order.gang is None:  # a switch, or no command: nobody asks
            return
        folder = self._attempt_folder(order, attempt)
        part = folder / "circuits.json.part"
        there = {key[0]: up.order for key, up in self._table.up.items() if key[1] == attempt}
        part.write_text(tasks.circuits_text((there | {place: order}).values()))
        part.rename(folder / "circuits.json")

    def _up_file(self, key: Key) -> Path:
        return self._folder / "up" / f"{key[0]}@{key[1]}.json"

    def _save(self, key: Key) -> None:
        """Write down what is up for an attempt at a place; "" = for all that are there."""
        try:
            for one in [key] if key[1] else [k for k in self._up_keys() if k[0] == key[0]]:
                self._write(one)
        except OSError as error:  # who begins anew finds too much, and is told that it has ended
            LOG.warning("what is up cannot be written in %s: %s", self._folder, error.strerror)

    def _write(self, key: Key) -> None:
        file = self._up_file(key)
        there = self._table.up.get(key)
        if there is None:
            file.unlink(missing_ok=True)
            return
        run = self._runs.get(key)
        stopping = [p for stop in self._stops for p in stop.tasks.get(key, ())]
        record = {
            "order": encode(there.order).decode(),
            "running": there.running,
            "exit_code": there.exit_code,
            "processes": [asdict(p) for p in (run.processes if run is not None else stopping)],
        }
        part = file.with_suffix(".part")
        part.write_text(json.dumps(record))
        part.rename(file)

    def _up_keys(self) -> list[Key]:
        found = [path.stem.rpartition("@") for path in (self._folder / "up").glob("*@*.json")]
        return [(place, attempt) for place, _, attempt in found]

    def _load(self) -> None:
        damaged: list[Key] = []
        for key in self._up_keys():
            try:
                record = json.loads(self._up_file(key).read_text())
                order = decode(Order, record["order"].encode())
                processes = [Process(**p) for p in record["processes"]]
                code = record["exit_code"]
                running = bool(record["running"]) and code is None
            except (OSError, SpecError, ValueError, KeyError, TypeError, AttributeError) as error:
                LOG.warning(
                    "%s is not readable, so what was up for it is ended: %s",
                    self._up_file(key), error,
                )  # fmt: skip
                damaged.append(key)
                continue
            self._table.up[key] = Standing(*key, order, running, code)
            if running:
                step = Step(*key, Verb.RUN, "", order)
                until = inf if order.run.command else 0.0
                self._runs[key] = _Run(step, processes, until)
                self._next_look = 0.0
        # What is not told of here would be built a second time, beside what runs.
        for key in damaged:
            self._sweep_if_gone(key[1])
            self._save(key)


def _forget_old(slices: Path, up: Collection[str]) -> None:
    """Remove the logs of slices that ended long ago."""
    before = time.time() - KEPT_SECONDS  # noqa: TID251  # file times are this machine's own
    for folder in slices.glob("*/*/*"):
        with contextlib.suppress(OSError):
            if folder.name not in up and folder.stat().st_mtime < before:
                shutil.rmtree(folder, ignore_errors=True)
