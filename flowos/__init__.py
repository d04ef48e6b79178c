"""Flow OS: a shared-state scheduler for cells of unlike AI engines on circuit-switched networks."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flowos.runtime.client import CellClient

__all__ = ["__version__", "connect"]
__version__ = "0.1.0"


def connect(
    endpoints: Sequence[str] = (), *, cell: str = "", data_dir: str = "", **options: object
) -> "CellClient":
    """Connect to a cell.

    Args:
        endpoints: "host:port" of etcd members; empty = `FLOWOS_ENDPOINTS`, else the store that
            `flowos up` started in `data_dir`.
        cell: The cell's name; "" = `FLOWOS_CELL`, else "main".
        data_dir: Where `flowos up` keeps its store; "" = `FLOWOS_DATA_DIR` or the default.
        options: TLS and user, as `flowos_store.open_store` takes them.

    Raises:
        StoreUnreachable: No store answers there.
        UnsafeServer: The server's version is known to lose data.
    """
    # The store is a plug-in: importing this package costs nothing of it.
    from importlib.metadata import entry_points

    from flowos.runtime.client import CellClient
    from flowos.runtime.clock import SystemClock

    (plugin,) = entry_points(group="flowos.stores", name="etcd")
    store = plugin.load()(endpoints, cell=cell, data_dir=data_dir, **options)
    return CellClient(store, SystemClock())
