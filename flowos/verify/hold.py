"""Keeps history from being compacted before it was checked, for a while or under a name.

Who reads the history once holds it with a lease: a reader that was killed will not come back, and
holds nothing back for longer. Who follows keeps a `Checkpoint` without a lease: it is to be there
when the verifier is started again. The controller gives up on both after limits of its own.
"""

import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

from flowos.model import keys
from flowos.model.codec import decode, encode
from flowos.model.errors import OutcomeUnknown, SpecError, StoreError
from flowos.model.protocols import CellStore, Lease
from flowos.model.transaction import Committed, Put, Seen, Transaction, Versioned

TTL_SECONDS: Final = 30  # a reader that was killed holds nothing back for longer
MOVE_SECONDS: Final = 3.0  # how often a checkpoint is moved at most
SIGN_SECONDS: Final = 300.0  # where there is nothing to check it moves all the same: a sign of life
PUT_SECONDS: Final = 2.0  # how long an answer is waited for; the next one may tell as well


@contextlib.contextmanager
def history_held(store: CellStore, oldest: int) -> Iterator[Callable[[int], None]]:
    """Ask the controller not to compact past a revision while the block runs.

    Who may not write is not held up by that: the history may then go while it is read.

    Yields:
        A function that moves the hold forward: what is before its revision is not needed any more.
    """
    stop = threading.Event()
    lease: Lease | None = None
    at = oldest
    key = keys.checkpoint(secrets.token_hex(4))

    def put(leased: Lease) -> None:
        store.commit([Transaction((), (Put(key, encode(at), leased.id),))])

    def keep(leased: Lease) -> None:
        told = oldest
        while not stop.wait(TTL_SECONDS / 3):
            with contextlib.suppress(StoreError):
                leased.keep_alive()
                if at != told:
                    told = at
                    put(leased)

    def move(revision: int) -> None:
        nonlocal at
        at = max(at, revision)

    with contextlib.suppress(StoreError):
        lease = store.lease(TTL_SECONDS)
        put(lease)
        threading.Thread(target=keep, args=(lease,), name="hold", daemon=True).start()
    try:
        yield move
    finally:
        stop.set()
        if lease is not None:
            with contextlib.suppress(StoreError):
                lease.revoke()


class Checkpoint:
    """Up to where a verifier of this name has checked; it goes on from there when started again.

    Only one process moves a checkpoint: a later one of the same name takes it over, as it must
    where the earlier was killed, and the earlier goes on without.
    """

    def __init__(
        self, store: CellStore, name: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Remember where it lies; nothing is asked yet.

        Args:
            store: Which cell.
            name: The verifier's.
            clock: Monotonic seconds.
        """
        self.name = name
        self.taken_over = False
        self._store = store
        self._key = keys.checkpoint(name)
        self._clock = clock
        self._modified = 0  # when the key was last written, as far as known
        self._trying: set[bytes] = set()  # written, with an answer that got lost
        self._moved_at = -SIGN_SECONDS
        self._told = ""

    def found(self) -> int:
        """Return the revision that was kept; 0 = none.

        Raises:
            StoreError: No answer, or no right to read it.
        """
        record = self._record()
        if record is None:
            return 0
        self._modified = record.modified
        try:
            return max(0, decode(int, record.value))
        except SpecError:
            return 0  # nobody's; it is written over

    def due(self, *, news: bool) -> bool:
        """Whether it is time to move it; `news` = more was checked than its own writes."""
        pause = MOVE_SECONDS if news else SIGN_SECONDS
        return not self.taken_over and self._clock() - self._moved_at >= pause

    def move(self, revision: int) -> str:
        """Note that all up to a revision was checked.

        Returns:
            Why that could not be written, once for each reason; else "".
        """
        if self.taken_over:
            return ""
        self._moved_at = self._clock()
        value = encode(revision)
        try:
            return self._written(value)
        except OutcomeUnknown as error:
            self._trying.add(value)
            why = str(error)
        except StoreError as error:
            why = str(error)
        told, self._told = self._told, why
        return "" if told == why else f"the checkpoint {self.name} could not be moved: {why}"

    def _written(self, value: bytes) -> str:
        for _ in range(2):
            (outcome,) = self._store.commit(
                [Transaction((Seen(self._key, self._modified),), (Put(self._key, value),))],
                timeout_seconds=PUT_SECONDS,
            )
            if isinstance(outcome, Committed):
                self._modified, self._told = outcome.revision, ""
                self._trying.clear()
                return ""
            fresh = outcome.keys[self._key]
            if fresh is not None and fresh.value not in self._trying:
                self.taken_over = True
                return (
                    f"another verifier keeps the checkpoint {self.name} now: this one goes on "
                    "without"
                )
            # It was given up for us, or our own write had landed after all.
            self._modified = fresh.modified if fresh else 0
        return ""

    def _record(self) -> Versioned | None:
        records = self._store.read((self._key,)).records
        return next((record for record in records if record.key == self._key), None)
