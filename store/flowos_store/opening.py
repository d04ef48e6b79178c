"""Which store is meant, and how is it opened? Endpoints by name, else what `flowos up` started."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from flowos.model.errors import StoreUnreachable
from flowos_store.connection import Tls
from flowos_store.embedded import EmbeddedEtcd
from flowos_store.etcd import EtcdStore

CELL_DEFAULT: Final = "main"
STORE_FOLDER: Final = "etcd"  # below the data directory


def data_directory(given: str = "") -> Path:
    """Return where `flowos up` keeps its things: as given, FLOWOS_DATA_DIR, or the user's own."""
    named = given or os.environ.get("FLOWOS_DATA_DIR", "")
    if named:
        return Path(named).expanduser()
    base = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(base).expanduser() / "flowos"


def open_store(
    endpoints: Sequence[str] = (),
    *,
    cell: str = "",
    data_dir: str = "",
    tls: Tls | None = None,
    user: str = "",
    password: str = "",
    allow_unsafe: bool = False,
    connect_timeout_seconds: float = 5.0,
) -> EtcdStore:
    """Open a cell's store.

    Args:
        endpoints: "host:port" of etcd members; empty = FLOWOS_ENDPOINTS (comma separated), else
            the server that runs on the data directory.
        cell: "" = FLOWOS_CELL, else "main".
        data_dir: See `data_directory`.
        tls: Certificates.
        user: Who to log in as.
        password: The user's.
        allow_unsafe: Take servers that are known to lose data.
        connect_timeout_seconds: How long the first answer may take.

    Raises:
        StoreUnreachable: No store answers; the sentence says how to start one.
        UnsafeServer: The server's version is known to lose data.
    """
    found = [e for e in endpoints if e]
    found = found or [e for e in os.environ.get("FLOWOS_ENDPOINTS", "").split(",") if e]
    if not found:
        folder = data_directory(data_dir)
        try:
            found = [EmbeddedEtcd.attach(folder / STORE_FOLDER).endpoint]
        except StoreUnreachable:
            raise StoreUnreachable(
                f"no cell runs in {folder}: start one with 'flowos up', or name a store with "
                "--endpoints"
            ) from None
    return EtcdStore(
        found,
        cell or os.environ.get("FLOWOS_CELL", "") or CELL_DEFAULT,
        tls=tls,
        user=user,
        password=password,
        allow_unsafe=allow_unsafe,
        connect_timeout_seconds=connect_timeout_seconds,
    )
