"""How does a whole cell come into the store, however large it is, so that others see all or nothing?

A cell may be far larger than one transaction. So `cell/info`, which says that there is a cell, is
written last; until then `cell/loading` names who is writing, and every part compares it. A loader
that died leaves that name behind: the next one takes its place, and first removes what is there.
"""

import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, Final

from flowos.documents.totals import totals
from flowos.model import keys
from flowos.model.cell import FAMILY_OF, Cell, name_of
from flowos.model.codec import encode
from flowos.model.errors import (
    DuplicateName,
    OutcomeUnknown,
    SpecError,
    StillContended,
    StoreUnreachable,
)
from flowos.model.protocols import CellStore
from flowos.model.transaction import (
    Committed,
    Compare,
    Delete,
    Operation,
    Put,
    Quiet,
    Seen,
    Transaction,
)
from flowos.model.view import CellView
from flowos.protocol.system import power_on

LOADING: Final = "cell/loading"
KEYS_A_REQUEST: Final = 120  # with its compare below 128, etcd's default --max-txn-ops
TRIES_MAX: Final = 5  # of one part whose answers are lost
VERSION: Final = "flowos/v1"


def _ignore(_done: int, _of: int) -> None:
    pass


def load_cell_into(
    store: CellStore,
    cell: Cell,
    *,
    progress: Callable[[int, int], None] = _ignore,
    threads: int = 8,
    replace: bool = False,
    source: str = "",
) -> int:
    """Write a cell's inventory and totals into an empty store, or in place of the one that is there.

    Args:
        store: Where to.
        cell: What exists.
        progress: Called on this thread with how many keys are written, and of how many.
        threads: How many requests may be under way.
        replace: Whether a cell that is there may go, if nobody uses it.
        source: The file or preset that it was read from, for people.

    Returns:
        The revision at which the cell was complete.

    Raises:
        DuplicateName: A cell is there, and `replace` is not set.
        SpecError: The cell that is there is in use.
        StillContended: Somebody else is loading a cell at the same time.
        StoreUnreachable: No answer; what was written is removed by the next load.
    """
    marker = secrets.token_hex(8)
    begun = _begin(store, marker, replace=replace)
    guard = Seen(LOADING, begun)
    # What agents saw of engines goes with them.
    old = [record.key for record in store.read([*keys.INVENTORY, "observed/"]).records]
    deletes: list[Operation] = [Delete(key) for key in old]
    total = len(deletes) + sum(1 for _ in cell.things())
    done = 0
    with ThreadPoolExecutor(threads, "load") as pool:
        # What goes must be gone before it may come again: the parts overtake each other.
        for operations in (iter(deletes), _puts(cell)):
            for count in _write_all(store, guard, operations, pool, in_flight_max=2 * threads):
                done += count
                progress(done, total)
    return _finish(store, cell, guard, info_of(cell, marker, source))


def _puts(cell: Cell) -> Iterator[Operation]:
    for thing in cell.things():
        yield Put(keys.inventory(FAMILY_OF[type(thing)], name_of(thing)), encode(thing))


def _begin(store: CellStore, marker: str, *, replace: bool) -> int:
    """Announce the load, and take back the word that there is a cell; return the revision."""
    reading = store.read(["cell/"])
    known = {record.key: record for record in reading.records}
    if keys.INFO in known:
        if not replace:
            raise DuplicateName(
                "there is a cell already: --replace puts another in its place, --cell-name loads "
                "one beside it"
            )
        _put_to_rest(store)
    compares: list[Compare] = [
        Seen(key, known[key].modified if key in known else 0) for key in (keys.INFO, LOADING)
    ]
    if replace:
        # Nobody may have begun to use the cell since it was found to be idle.
        compares += [Quiet("placement/", 0), Quiet("claim/", 0)]
    puts = (Put(LOADING, encode(marker)), Delete(keys.INFO), Delete(keys.TOTALS))
    for _ in range(TRIES_MAX):
        try:
            (outcome,) = store.commit([Transaction(tuple(compares), puts)])
        except OutcomeUnknown:
            outcome = None
        if isinstance(outcome, Committed):
            return outcome.revision
        # An answer that was lost, or the second try after it, may hide a success.
        now = next((r for r in store.read([LOADING]).records if r.key == LOADING), None)
        if now is not None and now.value == encode(marker):
            return now.modified
        if outcome is not None:
            raise StillContended("somebody loads or uses this cell at the same moment: try again")
    raise StoreUnreachable("the store does not answer writes: nothing was loaded")


def _put_to_rest(store: CellStore) -> None:
    """Make sure that nobody uses the cell; what is merely powered off is switched on again.

    Raises:
        SpecError: Something is in use; says what.
    """
    view = CellView()
    reading = store.read(["slice/", "placement/", "order/", "report/"])
    view.load(reading.records)
    view.progressed(reading.revision)
    held = sorted(name for name in view.placements if not name.startswith("~off/"))
    living = sorted(n for n, e in view.slices.items() if e.value.end is None and n not in held)
    if held or living:
        users = [*held, *living]
        named = ", ".join(users[:3]) + (", ..." if len(users) > 3 else "")
        raise SpecError(
            f"the cell is in use by {named}",
            hint="end slices with 'flowos cancel --all', drains with 'flowos engine undrain'",
        )
    for name in view.placements:
        step = power_on(view, name, fence=None)
        assert step is not None, "an engine that is off can always be switched on"
        store.commit([step.transaction])


def _write_all(
    store: CellStore,
    guard: Seen,
    operations: Iterator[Operation],
    pool: ThreadPoolExecutor,
    *,
    in_flight_max: int,
) -> Iterator[int]:
    """Write all operations in parts, several under way; yield how many each part wrote."""
    under_way: set[Future[int]] = set()
    try:
        for part in _parts(operations):
            under_way.add(pool.submit(_write, store, guard, part))
            if len(under_way) == in_flight_max:
                finished, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in finished)
        while under_way:
            finished, under_way = wait(under_way, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in finished)
    finally:
        for future in under_way:
            future.cancel()


def _parts(operations: Iterable[Operation]) -> Iterator[tuple[Operation, ...]]:
    part: list[Operation] = []
    for operation in operations:
        part.append(operation)
        if len(part) == KEYS_A_REQUEST:
            yield tuple(part)
            part = []
    if part:
        yield tuple(part)


def _write(store: CellStore, guard: Seen, part: Sequence[Operation]) -> int:
    """Write one part; return how many operations it has.

    An answer that was lost needs no fence here: the same part says the same thing again, and after
    the load, or another's, `guard` does not hold any more.
    """
    for _ in range(TRIES_MAX):
        try:
            (outcome,) = store.commit([Transaction((guard,), tuple(part))], timeout_seconds=30.0)
        except OutcomeUnknown:
            continue
        if isinstance(outcome, Committed):
            return len(part)
        raise StillContended("somebody else began to load a cell here: see whose it is to be")
    raise StoreUnreachable("the store does not answer writes: load the cell again when it does")


def _finish(store: CellStore, cell: Cell, guard: Seen, info: dict[str, Any]) -> int:
    """Say that the cell is there."""
    puts = (
        Put(keys.TOTALS, encode(totals(cell))),
        Put(keys.INFO, encode(info)),
        Delete(LOADING),
    )
    for _ in range(TRIES_MAX):
        try:
            (outcome,) = store.commit([Transaction((guard,), puts)])
        except OutcomeUnknown:
            outcome = None
        if isinstance(outcome, Committed):
            return outcome.revision
        now = next((r for r in store.read([keys.INFO]).records if r.key == keys.INFO), None)
        if now is not None and now.value == encode(info):
            return now.modified
        if outcome is not None:
            raise StillContended("somebody else began to load a cell here: see whose it is to be")
    raise StoreUnreachable("the store does not answer writes: load the cell again when it does")


def info_of(cell: Cell, marker: str, source: str = "") -> dict[str, Any]:
    """Return the record that says that there is a cell; `marker` tells one load from another."""
    return {"apiVersion": VERSION, "name": cell.name, "load": marker, "source": source}
