"""How do the parts of a cell run in threads of a test, with the store that the test gives each?"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from flowos.drivers.sim import SimDriver, SimSettings
from flowos.model.codec import decode, encode
from flowos.model.slice import Slice, SliceSpec
from flowos.model.transaction import Put, Transaction
from flowos.model.view import CellView
from flowos.runtime.clock import SystemClock
from flowos.runtime.lifecycle import Rules
from flowos.runtime.loading import load_cell_into
from flowos.runtime.processes import (
    Supervisor,
    agent_process,
    controller_process,
    scheduler_process,
)
from flowos.verify.history import verify_history
from flowos_schedulers.batch import Batch
from tests.runtime.cells import small_cell
from tests.runtime.lossy import LossyStore

PATIENCE_SECONDS = 10.0


def until(happened: Callable[[], object], what: str, seconds: float = PATIENCE_SECONDS) -> None:
    """Poll until something is so; fail by name where it does not come."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, f"not after {seconds:g} s: {what}"
        time.sleep(0.005)


class Process:
    """One supervised process of a cell, as a thread."""

    def __init__(
        self,
        store: Any,
        life: Callable[[Supervisor], None],
        prepare: Callable[[LossyStore], None] = lambda _store: None,
    ) -> None:
        self.store = LossyStore(store)
        prepare(self.store)
        self.errors: list[BaseException] = []
        self.supervisor = Supervisor(self.store, SystemClock())
        self._life = life
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.supervisor.run(self._life)
        except BaseException as error:
            self.errors.append(error)
            raise

    @property
    def machine(self) -> Any:
        """The machine that runs now."""
        until(lambda: self.supervisor.shell, "a shell")
        shell = self.supervisor.shell
        assert shell is not None
        return shell._machine

    def stop(self, seconds: float = PATIENCE_SECONDS) -> float:
        """Stop it and return how long that took."""
        started = time.monotonic()
        self.supervisor.stop()
        self._thread.join(seconds)
        assert not self._thread.is_alive(), f"still running after {seconds:g} s"
        return time.monotonic() - started


class LivingCell:
    """A small cell in a store, with a scheduler, a controller and an agent."""

    def __init__(self, store: Any, **cell: Any) -> None:
        self.store = store
        load_cell_into(store, small_cell(**cell))
        self.processes: dict[str, Process] = {}
        self.prepare: dict[str, Callable[[LossyStore], None]] = {}  # before a process begins

    def scheduler(self, name: str = "batch-0", **more: Any) -> Process:
        return self._start(
            name, lambda s: scheduler_process(s, Batch(), name, ready=_nothing, **more)
        )

    def controller(self, name: str = "controller-0") -> Process:
        rules = Rules(idle_off_seconds=0, sweep_seconds=0.2)
        return self._start(name, lambda s: controller_process(s, name, rules, ready=_nothing))

    def agent(self, name: str = "agent-0") -> Process:
        records = self.store.read(["node/", "switch/"]).records
        places = [record.key.partition("/")[2] for record in records]
        return self._start(
            name,
            lambda s: agent_process(s, name, SimDriver(SimSettings()), places, ready=_nothing),
        )

    def all(self) -> None:
        self.scheduler()
        self.controller()
        self.agent()

    def _start(self, name: str, life: Callable[[Supervisor], None]) -> Process:
        prepare = self.prepare.get(name, lambda _store: None)
        process = self.processes[name] = Process(self.store, life, prepare)
        return process

    def submit(self, *specs: SliceSpec) -> None:
        for spec in specs:
            put = Put(f"slice/{spec.id}", encode(Slice(spec)))
            self.store.commit([Transaction((), (put,))])

    def slice(self, name: str) -> Slice:
        key = f"slice/default/{name}"
        (record,) = (r for r in self.store.read([key]).records if r.key == key)
        return decode(Slice, record.value)

    def ended(self, *names: str) -> bool:
        return all(self.slice(name).end for name in names)

    def placed(self, name: str) -> bool:
        return bool(self.store.read([f"placement/default/{name}"]).records)

    def sessions(self, role: str) -> list[str]:
        return [record.key for record in self.store.read([f"session/{role}/"]).records]

    def view(self) -> CellView:
        view = CellView()
        reading = self.store.read([""])
        view.load(reading.records)
        view.progressed(reading.revision)
        return view

    def verify(self) -> None:
        """Look at every revision since the beginning."""
        verdict = verify_history(self.store)
        assert verdict.violations == ()


def _nothing() -> None:
    pass


@contextmanager
def living_cell(store: Any, **cell: Any) -> Iterator[LivingCell]:
    """A cell for the length of a block; afterwards nothing of it runs, and its history is lawful."""
    living = LivingCell(store, **cell)
    try:
        yield living
    finally:
        for process in living.processes.values():
            process.store.reachable, process.store.full = True, False
            process.store.refusing = None
            process.stop()
    assert [p.errors for p in living.processes.values() if p.errors] == []
    living.verify()
