"""Which stores the threads of the runtime are tried on."""

import sys
from collections.abc import Iterator

import pytest

from flowos.runtime.clock import SystemClock
from flowos_store.memory import MemoryStore


@pytest.fixture(params=["memory", pytest.param("etcd", marks=pytest.mark.etcd)])
def store(request):
    """An empty store: in memory, and a real etcd."""
    if request.param == "memory":
        return MemoryStore(SystemClock())
    return request.getfixturevalue("etcd_store")()


@pytest.fixture
def memory():
    """A store in memory, where no test of two stores is needed."""
    return MemoryStore(SystemClock())


@pytest.fixture(autouse=True)
def switch_interval() -> Iterator[None]:
    """What a process sets for itself holds for this one only as long as the test."""
    before = sys.getswitchinterval()
    yield
    sys.setswitchinterval(before)
