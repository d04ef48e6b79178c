"""Keeps the history that is being read from being compacted meanwhile."""

import contextlib
import secrets
import threading
from collections.abc import Iterator
from typing import Final

from flowos.model import keys
from flowos.model.codec import encode
from flowos.model.errors import StoreError
from flowos.model.protocols import CellStore, Lease
from flowos.model.transaction import Put, Transaction

TTL_SECONDS: Final = 30  # a reader that was killed holds nothing back for longer


@contextlib.contextmanager
def history_held(store: CellStore, oldest: int) -> Iterator[None]:
    """Ask the controller not to compact past a revision while the block runs.

    Who may not write is not held up by that: the history may then go while it is read.
    """
    stop = threading.Event()
    lease: Lease | None = None
    with contextlib.suppress(StoreError):
        lease = store.lease(TTL_SECONDS)
        put = Put(keys.checkpoint(secrets.token_hex(4)), encode(oldest), lease.id)
        store.commit([Transaction((), (put,))])
        threading.Thread(target=_keep, args=(lease, stop), name="hold", daemon=True).start()
    try:
        yield
    finally:
        stop.set()
        if lease is not None:
            with contextlib.suppress(StoreError):
                lease.revoke()


def _keep(lease: Lease, stop: threading.Event) -> None:
    while not stop.wait(TTL_SECONDS / 3):
        with contextlib.suppress(StoreError):
            lease.keep_alive()
