"""Which stores the verifier is tried on."""

import pytest

from flowos_store.memory import MemoryStore
from tests.verify.scene import Scene, StoppedClock


@pytest.fixture(params=["memory", pytest.param("etcd", marks=pytest.mark.etcd)])
def store(request):
    """An empty cell: in memory, and in a real etcd."""
    if request.param == "memory":
        return MemoryStore(StoppedClock())
    return request.getfixturevalue("etcd_store")()


@pytest.fixture
def scene(store):
    """The little cell, with nobody in it yet."""
    return Scene(store)


@pytest.fixture
def little():
    """The little cell in memory alone, where no test of two stores is needed."""
    return Scene(MemoryStore(StoppedClock()))
