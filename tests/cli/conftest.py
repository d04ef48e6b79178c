"""A cell for each test, and the command as its users call it: arguments in, status and texts out."""

import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

import pytest

from flowos.documents.presets import preset
from flowos.drivers.sim import SimDriver, SimSettings
from flowos.drivers.step import Verb
from flowos.runtime.clock import SystemClock
from flowos.runtime.lifecycle import Rules
from flowos.runtime.loading import load_cell_into
from flowos.runtime.processes import (
    Supervisor,
    agent_process,
    controller_process,
    scheduler_process,
)
from flowos_cli.main import run
from flowos_schedulers.batch import Batch
from flowos_store import EmbeddedEtcd, EtcdStore
from tests.plugins.etcd import OpenStore

READY_SECONDS = 20


@pytest.fixture(autouse=True)
def _logs_of_its_own() -> Iterator[None]:
    """Take away what a `run` command in this process set up: it writes to this test's stderr."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)


@dataclass
class Said:
    """What a call of the command came to."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)

    @property
    def lines(self):
        return self.out.splitlines()


@dataclass
class Flowos:
    """The command, on one test's cell."""

    capsys: pytest.CaptureFixture[str]
    store: EtcdStore
    endpoint: str
    cell: str
    machines: list[tuple[Supervisor, threading.Thread]] = field(default_factory=list)

    def __call__(self, *arguments: str, code: int | None = 0) -> Said:
        """Run it; `code` is the status it must end with, None = any."""
        self.capsys.readouterr()
        ended = run(arguments)
        said = Said(ended, *self.capsys.readouterr())
        assert "Traceback" not in said.err
        assert code is None or ended == code, f"{arguments} ended with {ended}: {said.err}"
        return said

    def load(self, name: str = "fic-small") -> None:
        load_cell_into(self.store, preset(name), source=name)

    def start(self, *, scheduler: bool = True, agent: bool = True, failing: bool = False) -> None:
        """Run a scheduler, a controller and the agent of all places, in this process."""
        store, clock = self.store, SystemClock()
        records = store.read(["node/", "switch/"]).records
        places = [record.key.partition("/")[2] for record in records]
        driver = SimDriver(SimSettings(failures={Verb.RUN: 1.0} if failing else {}))
        said = [threading.Event() for _ in range(3)]
        lives: list[Callable[[Supervisor], None]] = [
            lambda s: controller_process(s, "controller-0", Rules(), ready=said[0].set),
        ]
        if agent:
            lives.append(lambda s: agent_process(s, "agent-0", driver, places, ready=said[1].set))
        if scheduler:
            lives.append(lambda s: scheduler_process(s, Batch(), "batch-0", ready=said[2].set))
        ready = [e for e, wanted in zip(said, (True, agent, scheduler), strict=True) if wanted]
        for life in lives:
            supervisor = Supervisor(store, clock)
            thread = threading.Thread(target=supervisor.run, args=(life,))
            thread.start()
            self.machines.append((supervisor, thread))
        for event in ready:
            assert event.wait(READY_SECONDS)

    def stop(self) -> None:
        for supervisor, _ in self.machines:
            supervisor.stop()
        for _, thread in self.machines:
            thread.join(READY_SECONDS)
        self.machines.clear()


@pytest.fixture
def empty(
    etcd_server: EmbeddedEtcd,
    etcd_store: OpenStore,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Iterator[Flowos]:
    """The command on a store without a cell."""
    store = etcd_store()
    cell = store._root.decode().split("/")[2]
    for name in ("FLOWOS_DATA_DIR", "FLOWOS_TENANT", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FLOWOS_ENDPOINTS", etcd_server.endpoint)
    monkeypatch.setenv("FLOWOS_CELL", cell)
    flowos = Flowos(capsys, store, etcd_server.endpoint, cell)
    yield flowos
    flowos.stop()


@pytest.fixture
def still(empty: Flowos) -> Flowos:
    """The command on a small cell in which nothing moves: no process runs."""
    empty.load()
    return empty


@pytest.fixture
def live(still: Flowos) -> Flowos:
    """The command on a small cell that works."""
    still.start()
    return still


@pytest.fixture
def written() -> Callable[[EtcdStore], AbstractContextManager[list[int]]]:
    """Assert that a store's cell is not written: `with written(store) as count: ...; count == [0]`."""

    @contextmanager
    def watch(store: EtcdStore) -> Iterator[list[int]]:
        def newest() -> dict[str, int]:
            return {r.key: r.modified for r in store.read([""]).records}

        count = [0]
        before = newest()
        yield count
        after = newest()
        count[0] = sum(before.get(key) != after.get(key) for key in {*before, *after})

    return watch
