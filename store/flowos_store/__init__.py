"""The cell's shared state: one transactional store, kept in etcd or in memory."""

from flowos_store import quiet  # noqa: F401  # first of all: before anything imports grpc
from flowos_store.connection import Tls
from flowos_store.embedded import EmbeddedEtcd, find_server
from flowos_store.etcd import EtcdStore
from flowos_store.memory import MemoryStore
from flowos_store.opening import data_directory, open_store

__all__ = [
    "EmbeddedEtcd",
    "EtcdStore",
    "MemoryStore",
    "Tls",
    "data_directory",
    "find_server",
    "open_store",
]
