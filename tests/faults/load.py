"""Clients that place as fast as they can, and remember what the store acknowledged to them."""

import itertools
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Self

from flowos.model.errors import SessionLost, StoreError
from flowos.model.placement import Placement
from flowos.model.slice import EngineChoice, EngineRole, Run, SliceSpec
from flowos.model.transaction import Committed, Outcome, Put, Transaction
from flowos.runtime.client import CellClient
from flowos.runtime.clock import SystemClock
from flowos_schedulers.batch import Batch

PAUSE_SECONDS = 0.02  # while the cell is full, or the store is away


class Remembering:
    """A store that remembers which placements it has acknowledged.

    Attributes:
        placed: (slice, attempt, revision) in order.
        at: When each of these answers came.
    """

    def __init__(self, store: Any) -> None:
        self._store = store
        self.placed: list[tuple[str, str, int]] = []
        self.at: list[float] = []

    def commit(self, transactions: Sequence[Transaction], **options: Any) -> list[Outcome]:
        """Commit, and remember."""
        outcomes: list[Outcome] = self._store.commit(transactions, **options)
        for transaction, outcome in zip(transactions, outcomes, strict=True):
            if isinstance(outcome, Committed):
                for operation in transaction.operations:
                    if isinstance(operation, Put) and operation.key.startswith("placement/"):
                        self._remember(operation, outcome.revision)
        return outcomes

    def _remember(self, put: Put, revision: int) -> None:
        from flowos.model.codec import decode

        attempt = decode(Placement, put.value).attempt
        self.placed.append((put.key.partition("/")[2], attempt, revision))
        self.at.append(time.monotonic())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def short(name: str, gpus: int = 1, seconds: float = 0.05) -> SliceSpec:
    """A slice of some GPUs that runs for a moment."""
    return SliceSpec(
        name=name,
        engines={"w": EngineRole((EngineChoice("gpu", count=gpus),))},
        run=Run(for_seconds=seconds),
    )


class Hand(threading.Thread):
    """Does something to a cell again and again, on a thread of its own, until the block ends.

    Attributes:
        troubles: What the store's errors said.
        surprises: Errors that are no trouble with the store.
    """

    def __init__(self, connect: Callable[[], CellClient], name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._connect = connect
        self._stopping = threading.Event()
        self.troubles: list[str] = []
        self.surprises: list[BaseException] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End, once what is under way has ended."""
        self._stopping.set()
        self.join(60.0)
        assert not self.is_alive(), f"{self.name} hangs"

    def run(self) -> None:
        """Work until told to stop."""
        try:
            with self._connect() as cell:
                self.work(cell)
        except BaseException as error:  # noqa: BLE001  # told where the test can see it
            self.surprises.append(error)

    def work(self, cell: CellClient) -> None:
        """Go on until `_stopping` is set."""
        raise NotImplementedError


class Placer(Hand):
    """A program with an embedded scheduler: it plans and commits without a pause.

    Attributes:
        placed: (slice, attempt) that `place` has returned, which is its promise.
    """

    def __init__(self, connect: Callable[[], CellClient], name: str, group: int = 1) -> None:
        super().__init__(connect, name)
        self._group = group
        self.store: Remembering | None = None
        self.placed: list[tuple[str, str]] = []

    def state(self) -> str:
        """What it is at, for a failure's message."""
        frame = sys._current_frames().get(self.ident or 0)
        at = "".join(traceback.format_stack(frame)[-4:]) if frame else "ended"
        return (
            f"{self.name}: {len(self.placed)} placed; {self.troubles[-3:]}; {self.surprises}\n{at}"
        )

    def work(self, cell: CellClient) -> None:
        """Place until told to stop."""
        self.store = Remembering(cell.store)
        client = CellClient(self.store, SystemClock())
        numbers = itertools.count()
        while not self._stopping.is_set():
            with suppress(SessionLost, StoreError):
                with client.scheduler(Batch(), name=self.name) as scheduler:
                    self._place_on(scheduler, numbers)
                continue
            self._stopping.wait(PAUSE_SECONDS)

    def _place_on(self, scheduler: Any, numbers: "itertools.count[int]") -> None:
        while not self._stopping.is_set():
            specs = [short(f"{self.name}-{next(numbers):06}") for _ in range(self._group)]
            try:
                results = scheduler.place(specs)
            except (SessionLost, StoreError) as error:
                self.troubles.append(f"{type(error).__name__}: {error}")
                if isinstance(error, SessionLost):
                    raise
                self._stopping.wait(PAUSE_SECONDS)
                continue
            placed = [
                (spec.id, result.attempt)
                for spec, result in zip(specs, results, strict=True)
                if isinstance(result, Placement)
            ]
            self.placed += placed
            if len(placed) < len(specs):
                self._stopping.wait(PAUSE_SECONDS)


class Submitter(Hand):
    """A program that puts slices into the queue, a few at a time.

    Attributes:
        accepted: Slices that `submit` has returned for.
        unknown: Slices of which it said that it does not know.
    """

    def __init__(self, connect: Callable[[], CellClient], pause_seconds: float = 0.1) -> None:
        super().__init__(connect, "queued")
        self._pause_seconds = pause_seconds
        self.accepted: list[str] = []
        self.unknown: list[str] = []

    def work(self, cell: CellClient) -> None:
        """Submit until told to stop."""
        for number in itertools.count():
            if self._stopping.wait(self._pause_seconds):
                return
            names = [f"queued-{number:05}-{n}" for n in range(3)]
            try:
                cell.submit([short(name, gpus=2) for name in names])
            except StoreError as error:
                self.troubles.append(f"{type(error).__name__}: {error}")
                self.unknown += [f"default/{name}" for name in names]
            else:
                self.accepted += [f"default/{name}" for name in names]
