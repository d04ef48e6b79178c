"""A store that loses answers, is out of reach, or ends watches, exactly when a test says so."""

import threading
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

from flowos.model.errors import OutcomeUnknown, StoreError, StoreFull, StoreUnreachable
from flowos.model.protocols import Lease, Watch
from flowos.model.transaction import Lost, Outcome, Put, Reading, Transaction, WatchMessage


class Fate(Enum):
    """What becomes of a request whose answer is lost."""

    LANDED = "it landed"
    DROPPED = "it never arrived"
    LATE = "it arrives after the next one"


class LossyStore:
    """Passes everything on to a store, but for what `lose` and `reachable` say."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.reachable = True
        self.refusing: StoreError | None = None  # what everything but a watch is answered with
        self.full = False  # whether it takes no more writes
        self.lose: Callable[[Sequence[Transaction]], Fate | None] = lambda _: None
        self.tries = 0  # commits that were asked for
        self.commits = 0  # of these, that were sent
        self.reads = 0
        self.lost: list[Sequence[Transaction]] = []
        self.late_outcomes: list[Outcome] = []
        self._late: list[Sequence[Transaction]] = []
        self._delivers: list[Callable[[WatchMessage], None]] = []
        self._lock = threading.Lock()

    def lose_next(self, fate: Fate, word: str) -> None:
        """Lose the answer of the next request that writes a key which starts with `word`."""

        def choose(transactions: Sequence[Transaction]) -> Fate | None:
            if any(op.key.startswith(word) for t in transactions for op in t.operations):
                self.lose = lambda _: None
                return fate
            return None

        self.lose = choose

    def commit(
        self, transactions: Sequence[Transaction], *, timeout_seconds: float = 5.0
    ) -> list[Outcome]:
        self.tries += 1
        self._reach()
        if self.full and any(isinstance(op, Put) for t in transactions for op in t.operations):
            raise StoreFull("etcd at a:1 is full")
        with self._lock:
            self.commits += 1
            fate = self.lose(transactions)
            late, self._late = self._late, []
        if fate is None:
            outcomes: list[Outcome] = self.inner.commit(transactions)
            for request in late:
                self.late_outcomes += self.inner.commit(request)
            return outcomes
        self.lost.append(transactions)
        if fate is Fate.LANDED:
            self.inner.commit(transactions)
        elif fate is Fate.LATE:
            self._late = [*late, transactions]
        raise OutcomeUnknown("no answer")

    def read(self, prefixes: Sequence[str], *, at: int = 0) -> Reading:
        self._reach()
        self.reads += 1
        found: Reading = self.inner.read(prefixes, at=at)
        return found

    def watch(
        self, prefixes: Sequence[str], *, after: int, deliver: Callable[[WatchMessage], None]
    ) -> Watch:
        self._delivers.append(deliver)
        found: Watch = self.inner.watch(prefixes, after=after, deliver=deliver)
        return found

    def end_watches(self) -> None:
        """Say of every watch that it is over, as after a compaction."""
        for deliver in self._delivers:
            deliver(Lost("the history is compacted"))
        self._delivers.clear()

    def lease(self, ttl_seconds: int) -> Lease:
        self._reach()
        found: Lease = self.inner.lease(ttl_seconds)
        return found

    def close(self) -> None:
        pass

    def compact(self, before: int) -> None:
        self._reach()
        self.inner.compact(before)

    def oldest(self) -> int:
        return int(self.inner.oldest())

    def fits(self, transactions: Sequence[Transaction]) -> bool:
        return bool(self.inner.fits(transactions))

    def _reach(self) -> None:
        if not self.reachable:
            raise StoreUnreachable("no connection to the store")
        if self.refusing is not None:
            raise self.refusing
