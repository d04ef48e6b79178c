"""Where does a program run? On the cell that is named, or is up here; else this machine is the cell.

Where nothing was started, a scheduler, a controller and an agent run on threads of this process,
the same ones as in a cell of many machines, on a store in its memory.
"""

import atexit
import gc
import logging
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Final

from flowos import connect
from flowos.drivers.local.devices import Machine, cache_folder, node_name, this_machine
from flowos.drivers.local.driver import LocalDriver
from flowos.flowlet.errors import FlowletError
from flowos.model import keys
from flowos.model.cell import Cell, Engine
from flowos.model.errors import StoreUnreachable
from flowos.model.protocols import Clock
from flowos.model.units import subject_of
from flowos.runtime.client import CellClient
from flowos.runtime.clock import SystemClock
from flowos.runtime.lifecycle import Rules
from flowos.runtime.loading import load_cell_into
from flowos.runtime.plugins import load, plugin_named
from flowos.runtime.processes import (
    Supervisor,
    agent_process,
    controller_process,
    scheduler_process,
)

POLICY: Final = "batch"
READY_SECONDS: Final = 20.0
END_SECONDS: Final = 5.0
FOLDERS: Final = "flowos-own-"  # and the pid of the process that is the cell
LOCAL: Final = "local"  # what an agent says drives its devices, if it really runs things

_OWN: list["OwnCell"] = []


@dataclass(frozen=True, slots=True)
class Offer:
    """What a cell has for programs.

    Attributes:
        engines: Those that run things, the free ones first.
        free: How many of them are free.
        degree_max: How many circuits may begin or end at each of them.
        elsewhere: Whether some are on other machines.
        places: The names of all nodes and engines.
        aggregators: How many sums its switches can make at a time, as far as they are free.
    """

    engines: tuple[Engine, ...]
    free: int
    degree_max: int
    elsewhere: bool
    places: frozenset[str] = frozenset()
    aggregators: int = 0


def found(client: CellClient | None = None) -> CellClient:
    """Return the cell that programs of this process run on.

    Args:
        client: One that is named.
    """
    if client is not None:
        return client
    if os.environ.get("FLOWOS_ENDPOINTS"):
        return connect()
    if _OWN:
        return _OWN[0].client
    try:
        there = connect(connect_timeout_seconds=1.0)
    except StoreUnreachable:
        there = None
    if there is not None:
        if _runs_things(there):
            return there
        there.close()
    return own().client


def own() -> "OwnCell":
    """Return the cell that this process is, made when it is first asked for."""
    if not _OWN:
        _OWN.append(OwnCell())
        atexit.register(end_own)
    return _OWN[0]


def end_own() -> None:
    """End the cell that this process is, if it is one; nothing of it stays."""
    while _OWN:
        _OWN.pop().close()


def offer_of(client: CellClient) -> Offer:
    """Return what a cell has for programs now.

    Raises:
        FlowletError: None of its agents runs anything.
    """
    view = client.view([*keys.INVENTORY, "placement/", "session/"])
    places = _local_places(view.sessions)
    if not places:
        raise FlowletError(
            "the agents of this cell only simulate, so no program can run on it",
            hint="start it by 'flowos up --agents local', or agents by 'flowos agent run --driver "
            "local'",
        )
    held = {
        unit
        for entry in view.placements.values()
        for unit in (*entry.value.held, *entry.value.releasing)
    }
    taken = {subject_of(unit) for unit in held if unit.startswith(("engine/", "share/"))}
    cell = view.cell
    there = [engine for engine in cell.engines.values() if engine.node in places]
    there.sort(key=lambda engine: engine.id in taken)
    nodes = {engine.node for engine in there}
    return Offer(
        tuple(there),
        sum(engine.id not in taken for engine in there),
        min((_lanes(cell, engine.id) for engine in there), default=0),
        elsewhere=nodes != {node_name()},
        places=frozenset(cell.nodes) | frozenset(cell.engines),
        aggregators=sum(
            switch.aggregators
            for switch in cell.switches.values()
            if "sum" in switch.functions and switch.name in places
        )
        - sum(unit.startswith("aggregator/") for unit in held),
    )


def _lanes(cell: Cell, engine: str) -> int:
    return sum(cell.links[link].lanes for link in cell.links_at.get(engine, ()))


def _local_places(sessions: Any) -> set[str]:  # name -> entry
    return {
        name.partition("/")[2]
        for name, entry in sessions.items()
        if name.startswith("agent/") and entry.value.policy == LOCAL
    }


def _runs_things(client: CellClient) -> bool:
    try:
        return bool(_local_places(client.view([*keys.INVENTORY, "session/"]).sessions))
    except Exception:  # noqa: BLE001  # no cell in it, no right to it: it is not the one to use
        return False


def _sweep_folders() -> None:
    """Remove what cells of processes that were killed have left."""
    for folder in Path(tempfile.gettempdir()).glob(f"{FOLDERS}*-*"):
        pid = folder.name.removeprefix(FOLDERS).partition("-")[0]
        if pid.isdigit() and not Path("/proc", pid).exists():
            shutil.rmtree(folder, ignore_errors=True)


class OwnCell:
    """A whole cell in this process: of this machine, with nothing left when it ends."""

    def __init__(self, clock: Clock | None = None, machine: Machine | None = None) -> None:
        """Look at this machine, and start what a cell needs.

        Args:
            clock: Of all that runs in it.
            machine: What it is; None = as it is found.

        Raises:
            FlowletError: It does not come up.
        """
        _sweep_folders()
        self.folder = Path(tempfile.mkdtemp(prefix=f"{FOLDERS}{os.getpid()}-"))
        self._clock = clock or SystemClock()
        machine = machine or this_machine(cache_folder())
        (plugin,) = entry_points(group="flowos.stores", name="memory")
        self.store = plugin.load()(self._clock)
        load_cell_into(self.store, machine.cell(), source="this machine", threads=1)
        self._driver = LocalDriver(self.folder, {d.engine: d for d in machine.devices})
        self._before = sys.getswitchinterval(), gc.get_threshold()
        self._supervisors: list[Supervisor] = []
        self._threads: list[threading.Thread] = []
        places = [machine.node, *machine.cell().switches]
        policy = load(plugin_named(POLICY))
        rules = Rules(idle_off_seconds=0.0)
        logging.getLogger("flowos").addHandler(logging.NullHandler())
        steps: list[Callable[[Supervisor, Callable[[], None]], None]] = [
            lambda s, ready: agent_process(
                s, machine.node, self._driver, places, policy=LOCAL, ready=ready
            ),
            lambda s, ready: controller_process(s, "controller-0", rules, ready=ready),
            lambda s, ready: scheduler_process(s, policy, f"{POLICY}-0", ready=ready),
        ]
        self._start(steps)
        self.client = CellClient(self.store, self._clock)

    def close(self) -> None:
        """End everything, and remove what is left of it."""
        for supervisor in self._supervisors:
            supervisor.stop()
        for thread in self._threads:
            thread.join(END_SECONDS)
        self._driver.stop_all()
        interval, threshold = self._before
        sys.setswitchinterval(interval)
        gc.set_threshold(*threshold)
        gc.unfreeze()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self, steps: Sequence[Callable[[Supervisor, Callable[[], None]], None]]) -> None:
        ready = [threading.Event() for _ in steps]
        for step, event in zip(steps, ready, strict=True):
            supervisor = Supervisor(self.store, self._clock)
            self._supervisors.append(supervisor)

            def life(s: Supervisor, step: Any = step, event: Any = event) -> None:
                step(s, event.set)

            thread = threading.Thread(target=supervisor.run, args=(life,), daemon=True)
            self._threads.append(thread)
            thread.start()
        for event in ready:
            if not event.wait(READY_SECONDS):
                raise FlowletError(
                    f"the cell of this machine did not come up in {READY_SECONDS:g} s"
                )
