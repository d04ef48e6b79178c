"""What does a process know of its own session, and what has it to ask the store to be sure of it?

Pure: each conversation yields what is to be asked. `session.py` has them on threads.
"""

import os
import random
import socket
from collections.abc import Mapping
from typing import Final

from flowos.model import keys
from flowos.model.codec import encode
from flowos.model.errors import OutcomeUnknown, SessionLost, StoreUnreachable
from flowos.model.placement import Session
from flowos.model.protocols import Lease
from flowos.model.transaction import Committed, Put, Seen, Transaction
from flowos.protocol.answers import fence_again, fenced
from flowos.protocol.proposal import Fence
from flowos.runtime.requests import Conversation, Grant, Look, Write
from flowos.runtime.trouble import BackOff

KEYS_A_REQUEST: Final = 100  # below etcd's default --max-txn-ops of 128
SOON_SECONDS: Final = 0.1  # a renewal that failed is not hurried more than this


class Tenure:
    """A session from its opening to its loss.

    Attributes:
        id: Never used twice.
        record: What others see of this process.
        fence: What every control transaction of this process compares; revision 0 = not open.
        lost: Whether the lease is known to be over.
    """

    def __init__(self, identifier: str, role: str, name: str, policy: str, now: float) -> None:
        """Know who this is; nothing is asked yet. `now` is wall-clock seconds."""
        self.id = identifier
        self.record = Session(
            role=role,
            name=name,
            policy=policy,
            pid=os.getpid(),
            host=socket.gethostname(),
            started_at=now,
        )
        self.key = keys.session(role, identifier)
        self.fence = Fence(self.key, 0)
        self.lease: Lease | None = None
        self.lost = False

    @property
    def lease_id(self) -> int:
        """The lease to put this process's other keys under."""
        assert self.lease is not None, "not open"
        return self.lease.id

    def open(self, ttl_seconds: int) -> Conversation[None]:
        """Grant the lease and put the key."""
        self.lease = yield Grant(ttl_seconds)
        yield from self._put()

    def refence(self) -> Conversation[int]:
        """Put the session key again, so that nothing sent before can still happen.

        Returns:
            The revision of the fence: once the view is complete up to it, what is not there did
            not happen.

        Raises:
            SessionLost: The lease is over, which fences as well; this process must start anew.
            StoreUnreachable: No answer; try again.
        """
        try:
            yield from self._put()
        except OutcomeUnknown as error:
            # Put at a later revision than was known: then it happened, or an earlier try did.
            revision = yield from self._own_revision()
            if revision == self.fence.revision:
                raise StoreUnreachable(str(error)) from None
            self.fence = Fence(self.key, revision)
        return self.fence.revision

    def put_leased(self, records: Mapping[str, object]) -> Conversation[dict[str, int]]:
        """Write further keys of this process under its lease; return their revisions.

        Such a key may be an earlier life's, so it is compared with what was read: what that life
        has still on its way must not take the key back to a lease that will run out.
        """
        found: dict[str, int] = {}
        items = list(records.items())
        for start in range(0, len(items), KEYS_A_REQUEST):
            part = items[start : start + KEYS_A_REQUEST]
            puts = tuple(Put(key, encode(record), self.lease_id) for key, record in part)
            reading = yield Look(tuple(key for key, _ in part))
            known = {record.key: record.modified for record in reading.records}
            while True:
                compares = [Seen(key, known.get(key, 0)) for key, _ in part]
                (outcome,) = yield Write((Transaction((self.fence.compare, *compares), puts),))
                if isinstance(outcome, Committed):
                    break
                if outcome.keys.get(self.key) is None:
                    raise self.over()
                known = {key: now.modified for key, now in outcome.keys.items() if now}
            found |= dict.fromkeys((key for key, _ in part), outcome.revision)
        return found

    def over(self) -> SessionLost:
        """Note that the lease is over; return what to raise."""
        self.lost = True
        return SessionLost(f"session {self.id} is over: start again")

    def _put(self) -> Conversation[None]:
        (outcome,) = yield Write((fence_again(self.fence, self.record, self.lease_id),))
        try:
            self.fence = fenced(self.fence, outcome)
        except SessionLost:
            self.lost = True
            raise

    def _own_revision(self) -> Conversation[int]:
        reading = yield Look((self.key,))
        found = [record for record in reading.records if record.key == self.key]
        if not found:
            raise self.over()
        revision: int = found[0].modified
        return revision


class Renewals:
    """When to renew a lease next: three times in its life, and sooner where a try has failed."""

    def __init__(self, ttl_seconds: float, dice: random.Random) -> None:
        """Start with a lease that was just granted."""
        self.calm_seconds = ttl_seconds / 3
        self._back_off = BackOff(dice)

    def worked(self) -> float:
        """Return the seconds until the next."""
        self._back_off.worked()
        return self.calm_seconds

    def failed(self) -> float:
        """Return the seconds until the next try."""
        return min(self.calm_seconds, max(SOON_SECONDS, self._back_off.failed()))
