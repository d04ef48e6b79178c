"""A process's own key in the cell: alive as long as its lease, and the fence of all it commits."""

import contextlib
import random
import secrets
import threading
from collections.abc import Callable, Mapping
from typing import TypeVar

from flowos.model.errors import SessionLost, StoreError
from flowos.model.placement import Session
from flowos.model.protocols import CellStore, Clock, Lease
from flowos.protocol.proposal import Fence
from flowos.runtime.requests import Conversation, carry_out
from flowos.runtime.tenure import KEYS_A_REQUEST, Renewals, Tenure
from flowos.runtime.trouble import Trouble

__all__ = ["KEYS_A_REQUEST", "ProcessSession"]

T = TypeVar("T")

CLOSE_SECONDS = 2.0  # a session that could not be ended ends by itself


def _ignore() -> None:
    pass


class ProcessSession:
    """Opens, keeps and fences one process's session.

    Attributes:
        id: Never used twice.
        key: Of the session.
        record: What others see of this process.
    """

    _lease: Lease

    def __init__(
        self,
        store: CellStore,
        clock: Clock,
        role: str,
        name: str,
        *,
        policy: str = "",
        ttl_seconds: int = 10,
        on_lost: Callable[[], None] = _ignore,
        trouble: Trouble | None = None,
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
            trouble: Told when the lease cannot be renewed, and when it can again.

        Raises:
            StoreUnreachable: No answer.
        """
        self._tenure = Tenure(f"{name}@{secrets.token_hex(5)}", role, name, policy, clock.wall())
        self.id, self.key = self._tenure.id, self._tenure.key
        self.record: Session = self._tenure.record
        self._store = store
        self._clock = clock
        self._ttl_seconds = ttl_seconds
        self._on_lost = on_lost
        self._trouble = trouble
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self.lost = False
        try:
            self._hold(self._tenure.open(ttl_seconds))
        except StoreError:
            if self._tenure.lease is not None:
                self._lease = self._tenure.lease
                self.close()  # others would wait for this process until the lease runs out
            raise
        assert self._tenure.lease is not None, "it is open"
        self._lease = self._tenure.lease
        self._keeper = threading.Thread(target=self._keep, name=f"session {self.id}", daemon=True)
        self._keeper.start()

    @property
    def fence(self) -> Fence:
        """What every control transaction of this process compares."""
        return self._tenure.fence

    @property
    def lease_id(self) -> int:
        """The lease to put this process's other keys under."""
        return self._tenure.lease_id

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
            return self._hold(self._tenure.refence())

    def put_leased(self, records: Mapping[str, object]) -> dict[str, int]:
        """Write further keys of this process under its lease; return their revisions."""
        return self._hold(self._tenure.put_leased(records))

    def close(self) -> None:
        """End the lease, and with it the session; does not wait long for a store that is silent."""
        self._closed.set()
        ending = threading.Thread(target=self._revoke, name=f"end of {self.id}", daemon=True)
        ending.start()
        ending.join(CLOSE_SECONDS)

    def _hold(self, conversation: Conversation[T]) -> T:
        try:
            return carry_out(conversation, self._store)
        except SessionLost:
            self._gone()
            raise

    def _revoke(self) -> None:
        with contextlib.suppress(StoreError):  # then it runs out by itself
            self._lease.revoke()

    def _keep(self) -> None:
        renewals = Renewals(self._ttl_seconds, random.Random())
        pause = renewals.calm_seconds
        while not self._closed.wait(pause):
            try:
                left = self._lease.keep_alive()
            except StoreError as error:
                # Only the store says that a lease is over; silence, or a no, alone does not.
                if self._trouble is not None and not self._closed.is_set():
                    self._trouble.failed(error, self._clock.monotonic(), "lease")
                pause = renewals.failed()
                continue
            pause = renewals.worked()
            if self._trouble is not None:
                self._trouble.worked(self._clock.monotonic(), "lease")
            if left <= 0:
                self._gone()
                return

    def _gone(self) -> None:
        if not self.lost:
            self.lost = True
            self._closed.set()
            self._on_lost()
