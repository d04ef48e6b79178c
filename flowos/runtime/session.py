"""A process's own key in the cell: alive as long as its lease, and the fence of all it commits."""

import contextlib
import os
import secrets
import socket
import threading
from collections.abc import Callable, Mapping

from flowos.model import keys
from flowos.model.codec import encode
from flowos.model.errors import OutcomeUnknown, SessionLost, StoreError, StoreUnreachable
from flowos.model.placement import Session
from flowos.model.protocols import CellStore, Clock, Lease
from flowos.model.transaction import Committed, Put, Transaction
from flowos.protocol.answers import fence_again, fenced
from flowos.protocol.proposal import Fence

KEYS_A_REQUEST = 100  # below etcd's default --max-txn-ops of 128
CLOSE_SECONDS = 2.0  # a session that could not be ended ends by itself


class ProcessSession:
    """Opens, keeps and fences one process's session.

    Attributes:
        id: Never used twice.
        record: What others see of this process.
        fence: What every control transaction of this process compares.
    """

    def __init__(
        self,
        store: CellStore,
        clock: Clock,
        role: str,
        name: str,
        *,
        policy: str = "",
        ttl_seconds: int = 10,
        on_lost: Callable[[], None] = lambda: None,
    ) -> None:
        """Grant the lease and put the key.

        Args:
            store: The cell's.
            clock: For the record's start.
            role: scheduler, controller, agent or client.
            name: For people.
            policy: For schedulers.
            ttl_seconds: How long others wait for a sign of life.
            on_lost: Called once, on the keep-alive thread, when the lease is over.

        Raises:
            StoreUnreachable: No answer.
        """
        self.id = f"{name}@{secrets.token_hex(5)}"
        self.record = Session(
            role=role,
            name=name,
            policy=policy,
            pid=os.getpid(),
            host=socket.gethostname(),
            started_at=clock.wall(),
        )
        self.key = keys.session(role, self.id)
        self._store = store
        self._ttl_seconds = ttl_seconds
        self._on_lost = on_lost
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self.lost = False
        self._lease: Lease = store.lease(ttl_seconds)
        try:
            self.fence = self._put(Fence(self.key, 0))
        except StoreError:
            self.close()  # others would wait for this process until the lease runs out
            raise
        self._keeper = threading.Thread(target=self._keep, name=f"session {self.id}", daemon=True)
        self._keeper.start()

    @property
    def lease_id(self) -> int:
        """The lease to put this process's other keys under."""
        return self._lease.id

    def refence(self) -> int:
        """Put the session key again, so that nothing sent before can still happen.

        Returns:
            The revision of the fence: once the view is complete up to it, what is not there did
            not happen.

        Raises:
            SessionLost: The lease is over, which fences as well; this process must start anew.
            StoreUnreachable: No answer; try again.
        """
        with self._lock:
            try:
                self.fence = self._put(self.fence)
            except OutcomeUnknown as error:
                revision = self._own_revision()
                if revision == self.fence.revision:
                    raise StoreUnreachable(str(error)) from None
                self.fence = Fence(self.key, revision)
            return self.fence.revision

    def put_leased(self, records: Mapping[str, object]) -> dict[str, int]:
        """Write further keys of this process under its lease; return their revisions."""
        found: dict[str, int] = {}
        items = list(records.items())
        for start in range(0, len(items), KEYS_A_REQUEST):
            part = items[start : start + KEYS_A_REQUEST]
            puts = tuple(Put(key, encode(record), self._lease.id) for key, record in part)
            (outcome,) = self._store.commit([Transaction((self.fence.compare,), puts)])
            if not isinstance(outcome, Committed):
                self._gone()
                raise SessionLost(f"session {self.id} is over: start again")
            found |= dict.fromkeys((key for key, _ in part), outcome.revision)
        return found

    def close(self) -> None:
        """End the lease, and with it the session; does not wait long for a store that is silent."""
        self._closed.set()
        ending = threading.Thread(target=self._revoke, name=f"end of {self.id}", daemon=True)
        ending.start()
        ending.join(CLOSE_SECONDS)

    def _revoke(self) -> None:
        with contextlib.suppress(StoreError):  # then it runs out by itself
            self._lease.revoke()

    def _put(self, fence: Fence) -> Fence:
        (outcome,) = self._store.commit([fence_again(fence, self.record, self._lease.id)])
        try:
            return fenced(fence, outcome)
        except SessionLost:
            self._gone()
            raise

    def _own_revision(self) -> int:
        found = [r for r in self._store.read([self.key]).records if r.key == self.key]
        if not found:
            self._gone()
            raise SessionLost(f"session {self.id} is over: start again")
        return found[0].modified

    def _keep(self) -> None:
        while not self._closed.wait(self._ttl_seconds / 3):
            try:
                left = self._lease.keep_alive()
            except StoreError:
                # Only the store says that a lease is over; silence, or a no, alone does not.
                continue
            if left <= 0:
                self._gone()
                return

    def _gone(self) -> None:
        if not self.lost:
            self.lost = True
            self._closed.set()
            self._on_lost()
