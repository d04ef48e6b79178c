"""A real etcd for tests: one server a session, one cell a test.

A machine without a safe etcd fails these tests: `make setup` gets one.
"""

import contextlib
import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flowos_store import EmbeddedEtcd, EtcdStore

OpenStore = Callable[..., EtcdStore]


@pytest.fixture(scope="session")
def etcd_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedEtcd]:
    """An etcd with the flags of the embedded one, but for the disk."""
    with EmbeddedEtcd(tmp_path_factory.mktemp("etcd"), unsafe_no_fsync=True) as server:
        yield server


@pytest.fixture(scope="session")
def etcd_default_flags(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedEtcd]:
    """An etcd as somebody else runs it: 128 operations and 1.5 MiB a request."""
    server = EmbeddedEtcd(
        tmp_path_factory.mktemp("etcd-default"),
        unsafe_no_fsync=True,
        max_txn_ops=None,
        flags=("--max-request-bytes=1572864",),
    )
    with server:
        yield server


@pytest.fixture
def own_etcd(tmp_path: Path) -> Iterator[EmbeddedEtcd]:
    """An etcd that the test may kill, stop and start again."""
    with EmbeddedEtcd(tmp_path / "etcd", unsafe_no_fsync=True) as server:
        yield server


@pytest.fixture
def etcd_store(request: pytest.FixtureRequest) -> Iterator[OpenStore]:
    """Open a store of this test's own cell: `etcd_store()`, or of `etcd_store(server, ...)`."""
    cell = f"test-{uuid.uuid4().hex[:12]}"
    opened: list[EtcdStore] = []

    def open_store(server: EmbeddedEtcd | None = None, **options: object) -> EtcdStore:
        if server is None:
            server = request.getfixturevalue("etcd_server")
        options.setdefault("cell", cell)
        store = EtcdStore([server.endpoint], **options)  # type: ignore[arg-type]
        opened.append(store)
        return store

    yield open_store
    for store in opened:
        store.close()


@contextlib.contextmanager
def paused(server: EmbeddedEtcd) -> Iterator[None]:
    """Let the server hang: it is there, and answers nothing."""
    stat = Path(f"/proc/{server.pid}/stat")
    os.kill(server.pid, signal.SIGSTOP)
    try:
        while stat.read_text().rpartition(")")[2].split()[0] != "T":  # it stops when it next can
            time.sleep(0.01)
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)
