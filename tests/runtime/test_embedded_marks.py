"""Does a program that embeds a scheduler leave alone what others have asked to be left to them?"""

from collections.abc import Iterator
from typing import Any

import pytest

from flowos.model import keys
from flowos.model.cell import Tenant
from flowos.model.codec import encode
from flowos.model.placement import Mark, Placement, Unplaceable
from flowos.model.protocols import CellStore, Lease
from flowos.model.rules import Reservation
from flowos.model.slice import Reason, Slice, SliceSpec
from flowos.model.transaction import Delete, Operation, Put, Transaction
from flowos.planning.policy import Policy
from flowos.runtime.client import CellClient
from flowos.runtime.clock import SystemClock
from flowos.runtime.embedded import EmbeddedScheduler
from flowos.runtime.loading import load_cell_into
from flowos.runtime.marks import STARVING_SECONDS
from flowos_schedulers.batch import Batch
from flowos_store.memory import MemoryStore
from tests.runtime.cells import PURSE, small_cell, wanted
from tests.runtime.theatre import EVER, Theatre

BIG = "default/big"
N0 = ("engine/n0/gpu0", "engine/n0/gpu1")
N1 = ["n1/gpu0", "n1/gpu1"]
QUOTA = "tenant:default:gpu"


class Cell:
    """Two GPUs on each of two nodes, a slice that waits, and programs beside its scheduler."""

    def __init__(self, store: MemoryStore, **cell: Any) -> None:
        self.store = store
        load_cell_into(store, small_cell(fpgas=0, **cell))
        self.put(Put(keys.slice_(BIG), encode(Slice(wanted("big", gpus=2)))))
        self.opened: list[EmbeddedScheduler] = []

    def put(self, *operations: Operation) -> None:
        self.store.commit([Transaction((), operations)])

    def mark(self, *units: str, eta: float | None = None, **purses: int) -> None:
        (record,) = self.store.read([keys.slice_(BIG)]).records
        named = {QUOTA if purse == "quota" else PURSE: amount for purse, amount in purses.items()}
        mark = Mark(record.created, (0, record.created), units, eta, purses=named)
        self.put(Put(keys.mark(BIG), encode(mark)))

    def scheduler(self, *, follow: bool = True) -> EmbeddedScheduler:
        client = CellClient(self.store, SystemClock())
        self.opened.append(client.scheduler(Batch(), follow=follow))
        return self.opened[-1]


@pytest.fixture
def cell(memory: MemoryStore) -> Iterator[Cell]:
    found = Cell(memory)
    yield found
    for scheduler in found.opened:
        scheduler.close()


def engines(results: list[Placement | Unplaceable]) -> list[str]:
    """The engines of those that were placed."""
    placed = [result for result in results if isinstance(result, Placement)]
    return sorted(engine for one in placed for engine in one.engines["workers"])


def singles(count: int, **more: Any) -> list[SliceSpec]:
    return [wanted(f"s{number}", gpus=1, **more) for number in range(count)]


@pytest.mark.parametrize("marked_first", [True, False])
def test_what_is_kept_for_a_slice_of_the_queue_is_left_alone(cell: Cell, marked_first: bool):
    if marked_first:
        cell.mark(*N0)
    scheduler = cell.scheduler()
    if not marked_first:
        cell.mark(*N0)
    found = scheduler.place(singles(3))
    assert engines(found) == N1
    assert isinstance(found[2], Unplaceable)
    assert found[2].reason is Reason.BEHIND_HIGHER_PRIORITY
    assert found[2].sentence == (
        f"what it would fit on is kept for {BIG}, which comes first and has waited long"
    )


def test_who_has_surely_ended_by_then_goes_there(cell: Cell):
    cell.mark(*N0, eta=100.0)
    found = cell.scheduler().place([*singles(2), wanted("short", gpus=2, run_for=10.0)])
    assert len(engines(found)) == 4


def test_who_is_more_important_goes_there(cell: Cell):
    cell.mark(*N0)
    found = cell.scheduler().place(singles(4, priority=5))
    assert len(engines(found)) == 4


@pytest.mark.parametrize("over", ["unmarked", "cancelled", "held"])
def test_a_mark_that_is_over_binds_nobody(cell: Cell, over: str):
    cell.mark(*N0)
    scheduler = cell.scheduler()
    scheduler.place(singles(1))
    if over == "unmarked":
        cell.put(Delete(keys.mark(BIG)))
    else:
        big = wanted("big", gpus=2)
        record = Slice(big, cancelled=over == "cancelled", held=over == "held")
        cell.put(Put(keys.slice_(BIG), encode(record)))
        cell.mark(*N0)  # as one that was put anew before its scheduler heard of that
    assert len(engines(scheduler.place([wanted("rest", gpus=3)]))) == 3


def test_a_name_is_free_again_once_its_marked_slice_is_gone(cell: Cell):
    cell.mark(*N0)
    scheduler = cell.scheduler()
    scheduler.place(singles(1))
    cell.put(Delete(keys.mark(BIG)), Delete(keys.slice_(BIG)))
    assert len(engines(scheduler.place([wanted("big", gpus=3)]))) == 3


def test_a_mark_of_a_slice_that_is_not_there_binds_nobody(cell: Cell):
    cell.put(Put(keys.mark("default/ghost"), encode(Mark(7, (0, 7), N0))))
    assert len(engines(cell.scheduler().place(singles(4)))) == 4


def test_without_a_watch_marks_are_read_with_the_rest(cell: Cell):
    cell.mark(*N0)
    assert engines(cell.scheduler(follow=False).place(singles(3))) == N1


def test_quota_that_is_kept_is_left_unspent(cell: Cell):
    cell.put(Put("tenant/default", encode(Tenant("default", quota={"gpu": 3}))))
    cell.mark(quota=2000)
    found = cell.scheduler().place(singles(2))
    assert len(engines(found)) == 1
    assert isinstance(found[1], Unplaceable)
    assert found[1].sentence == (
        f"what is left of the quota of gpu is kept for {BIG}, which comes first and has waited long"
    )


def test_watts_that_are_kept_are_left_unspent(memory: MemoryStore):
    cell = Cell(memory, budget=300)
    cell.mark(watts=200)
    with cell.scheduler() as scheduler:
        assert len(engines(scheduler.place(singles(2)))) == 1


@pytest.mark.parametrize("opens_in", [-10.0, 60.0])
def test_a_window_of_others_is_kept_out_of(cell: Cell, opens_in: float):
    """Open, or open before a slice that runs for ever is over."""
    at = SystemClock().wall() + opens_in
    window = Reservation("talk", N0, tenants=("physics",), from_at=at, until_at=at + 3600.0)
    cell.put(Put(keys.reservation("talk"), encode(window)), Put(keys.RESERVATIONS, encode("talk")))
    found = cell.scheduler().place(singles(3))
    assert engines(found) == N1
    assert isinstance(found[2], Unplaceable)
    assert found[2].reason is Reason.RESERVED_FOR_OTHER


# ----------------------------------------------------------------------------------- all together


class Lasting:
    """A store whose leases last: nobody renews them in virtual time."""

    def __init__(self, store: CellStore) -> None:
        self._store = store

    def lease(self, _seconds: int) -> Lease:
        return self._store.lease(EVER)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


class Greedy(Policy):
    """Others may pass, until one starves."""

    name = "batch"


def test_a_stream_of_what_programs_place_does_not_starve_a_gang_of_the_queue():
    longest = 6.0
    theatre = Theatre(small_cell(fpgas=0))
    theatre.scheduler(policy=Greedy())
    theatre.controller()
    theatre.agent()
    theatre.settle()
    program = CellClient(Lasting(theatre.store), theatre.clock).scheduler(Greedy())
    program.place([wanted(f"early{n}", gpus=1, run_for=longest - n) for n in range(4)])
    theatre.submit(wanted("gang", gpus=4, run_for=1.0))
    started = theatre.clock.now
    while not theatre.held("default/gang"):
        waited = theatre.clock.now - started
        assert waited < STARVING_SECONDS + longest + 5.0, "the bound of `flowos.runtime.marks`"
        for length in (longest, 4.3, 2.7):
            program.place([wanted(theatre.fresh("small"), gpus=1, run_for=length)])
        theatre.play(0.5, lambda: bool(theatre.held("default/gang")))
    program.close()
    theatre.check()
