"""A client that waits for what others do, by one watch of its own."""

import queue

from flowos.model import keys
from flowos.model.protocols import CellStore
from flowos.model.transaction import Changes, Progress, WatchMessage

SEEN_SECONDS = 30.0


class Waiter:
    """Sees placements come by one watch that lives as long as the client."""

    def __init__(self, store: CellStore) -> None:
        """Begin to watch."""
        self._inbox: queue.SimpleQueue[WatchMessage] = queue.SimpleQueue()
        revision = store.read(["cell/"]).revision
        self._watch = store.watch(["placement/"], after=revision, deliver=self._inbox.put)

    def close(self) -> None:
        """End the watch."""
        self._watch.close()

    def gone(self, name: str) -> None:
        """Wait until the slice's placement is seen gone: its units are free."""
        key = keys.placement(name)
        while True:
            message = self._inbox.get(timeout=SEEN_SECONDS)
            if isinstance(message, Progress):
                continue
            assert isinstance(message, Changes), message
            if any(c.key == key and c.value is None for c in message.changes):
                return
