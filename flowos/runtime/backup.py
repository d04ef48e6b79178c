"""How is a cell written to a file, all of one revision, and brought back into a store?

The file is lines of JSON, packed by gzip: a head, a line for each key, and an end with their count
and checksum. It is read to its end before anything is written to a store.

A restored cell is there when all of it is: `cell/info`, without which no process begins to work, is
written last. Until then `cell/loading` names who is restoring, and every part compares it, and that
no process has come up. A restore that died leaves it behind; the next one begins anew.
"""

import base64
import contextlib
import gzip
import hashlib
import json
import os
import secrets
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from time import monotonic, sleep
from typing import IO, Any, Final, Protocol, Self

from flowos.model import keys
from flowos.model.codec import decode, encode
from flowos.model.errors import (
    DuplicateName,
    FileError,
    OutcomeUnknown,
    SpecError,
    StillContended,
    StoreError,
    StoreUnreachable,
    UnknownName,
)
from flowos.model.protocols import CellStore, Maintenance
from flowos.model.transaction import (
    Committed,
    Compare,
    Delete,
    Operation,
    Put,
    Quiet,
    Seen,
    Transaction,
    Versioned,
)
from flowos.protocol.restored import MARKS, SLICES, Rewriting, is_kept, places_in, quarantined
from flowos.runtime.loading import KEYS_A_REQUEST, LOADING
from flowos.runtime.submission import SUBMIT_MAX

VERSION: Final = "flowos/v1"
KIND: Final = "CellBackup"
RESTORE: Final = "restore "  # what the mark of a restore begins with
# Read one after the other, so that no more than a family or two is ever in memory.
FIRST_LETTERS: Final = tuple(map(chr, range(32, 127)))
CONTROL_SESSIONS: Final = ("session/scheduler/", "session/controller/", "session/client/")
TRIES_MAX: Final = 5  # of one part whose answers are lost
THREADS: Final = 8
AGENTS_GONE_SECONDS: Final = 60.0  # an agent ends its session when its cell goes, or it runs out
POLL_SECONDS: Final = 0.2
PART_BYTES_MAX: Final = 1_000_000  # etcd's default --max-request-bytes is 1.5 MiB


def _ignore(_done: int, _of: int) -> None:
    pass


class KeptStore(CellStore, Maintenance, Protocol):
    """A store that also lets its history be dropped."""


@dataclass(frozen=True, slots=True)
class Backup:
    """What a file says of itself.

    Attributes:
        cell: The cell's name in its store.
        revision: All of it is as of this one.
        etcd: The version of the server that it came from.
        taken_at: Wall-clock seconds, for people.
        families: Key family -> how many keys.
    """

    cell: str
    revision: int
    etcd: str
    taken_at: float
    families: dict[str, int] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """How many keys it has."""
        return sum(self.families.values())


# ------------------------------------------------------------------------------------- writing


def write_backup(
    store: CellStore,
    out: IO[bytes],
    *,
    cell: str,
    etcd: str,
    taken_at: float,
    progress: Callable[[int, int], None] = _ignore,
) -> Backup:
    """Write all of a cell, as of now, to a file that is open.

    Args:
        store: The cell's.
        out: Where to.
        cell: Its name in the store.
        etcd: The server's version.
        taken_at: Wall-clock seconds.
        progress: Called with how many keys are written; how many there are is not known before.

    Raises:
        UnknownName: There is no cell, or not all of it.
        RevisionCompacted: The store dropped this revision while it was written.
        StoreUnreachable: No answer.
    """
    info = store.read([keys.INFO])
    if not any(record.key == keys.INFO for record in info.records):
        raise UnknownName("the store holds no whole cell of this name: there is nothing to back up")
    head = Backup(cell, info.revision, etcd, taken_at)
    digest = hashlib.sha256()
    families: Counter[str] = Counter()
    with gzip.GzipFile(fileobj=out, mode="wb", mtime=0, filename="") as packed:

        def write(record: dict[str, Any]) -> None:
            line = json.dumps(record, separators=(",", ":")).encode() + b"\n"
            digest.update(line)
            packed.write(line)

        write(
            {
                "apiVersion": VERSION,
                "kind": KIND,
                "cell": cell,
                "revision": head.revision,
                "etcd": etcd,
                "takenAt": taken_at,
            }
        )
        for letter in FIRST_LETTERS:
            for record in store.read([letter], at=head.revision).records:
                if is_kept(record.key) and record.key != LOADING:
                    write(_line(record))
                    families[record.key.partition("/")[0]] += 1
            progress(families.total(), families.total())
        end = {"end": True, "keys": families.total(), "families": dict(sorted(families.items()))}
        end["sha256"] = digest.hexdigest()
        packed.write(json.dumps(end).encode() + b"\n")
    return Backup(cell, head.revision, etcd, taken_at, dict(sorted(families.items())))


def _line(record: Versioned) -> dict[str, Any]:
    found: dict[str, Any] = {"key": record.key}
    try:
        found["value"] = record.value.decode()
    except UnicodeDecodeError:
        found["base64"] = base64.b64encode(record.value).decode()
    return {**found, "created": record.created, "modified": record.modified}


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for writing that is there under its name once it is complete, or not at all.

    Raises:
        SpecError: It cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise SpecError(f"cannot be written: {error.strerror or error}", where=str(path)) from error
    finally:
        part.unlink(missing_ok=True)


# ------------------------------------------------------------------------------------- reading


def read_backup(path: Path) -> Backup:
    """Read a file to its end and return what it says of itself.

    Raises:
        FileError: It is damaged, cut short, or no backup; nothing was written anywhere.
    """
    lines = _lines(path)
    head = next(lines, None)
    if head is None or head.get("kind") != KIND:
        raise FileError("is no backup of a cell", path=str(path), hint="name one")
    if head.get("apiVersion") != VERSION:
        raise FileError(
            f"is of version {head.get('apiVersion')}",
            path=str(path),
            hint=f"this Flow OS reads {VERSION}",
        )
    families: Counter[str] = Counter()
    try:
        for line in lines:
            families[_record(line).key.partition("/")[0]] += 1
        return Backup(
            cell=str(head["cell"]),
            revision=int(head["revision"]),
            etcd=str(head["etcd"]),
            taken_at=float(head["takenAt"]),
            families=dict(sorted(families.items())),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, 1 + families.total(), f"{error}") from None


def records_of(path: Path) -> Iterator[Versioned]:
    """Yield the records of a file that was read to its end before."""
    lines = _lines(path)
    next(lines)
    return map(_record, lines)


def _record(line: dict[str, Any]) -> Versioned:
    value = (
        base64.b64decode(line["base64"], validate=True)
        if "base64" in line
        else line["value"].encode()
    )
    return Versioned(line["key"], value, int(line["created"]), int(line["modified"]))


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the head and the records; the end is checked and not told."""
    digest = hashlib.sha256()
    number, end = 0, None
    try:
        with gzip.open(path) as file:
            for number, line in enumerate(file, start=1):
                if end is not None:
                    raise _damaged(path, number, "goes on after its end")
                record = json.loads(line)
                if not isinstance(record, dict):
                    raise _damaged(path, number, "is no record")
                if record.get("end") is True:
                    end = record
                else:
                    digest.update(line)
                    yield record
    except OSError as error:
        if isinstance(error, gzip.BadGzipFile):
            raise _damaged(path, number + 1, str(error)) from None
        raise FileError(
            f"cannot be read: {error.strerror or error}",
            path=str(path),
            hint="name a file that exists and may be read",
        ) from None
    except (EOFError, zlib.error, ValueError) as error:
        raise _damaged(path, number + 1, str(error)) from None
    if end is None:
        raise _damaged(path, number, "it has no end")
    if end.get("keys") != number - 2 or end.get("sha256") != digest.hexdigest():
        raise _damaged(path, number, "its checksum is another")


def _damaged(path: Path, line: int, why: str) -> FileError:
    return FileError(
        f"is damaged or cut short: {why}",
        path=str(path),
        line=line,
        hint="nothing was restored; take another copy of it",
    )


# ----------------------------------------------------------------------------------- restoring


def restore(
    store: KeptStore,
    path: Path,
    *,
    replace: bool = False,
    now: float,
    progress: Callable[[int, int], None] = _ignore,
    new_attempt: Callable[[], str] = lambda: secrets.token_hex(8),
) -> int:
    """Bring a cell back from a file; a restore that was broken off is begun anew.

    Args:
        store: Where to: a place for a cell without one, or `replace`.
        path: The file, which `read_backup` has found whole.
        replace: Whether a cell that is there may go, with all that runs on it.
        now: Wall-clock seconds, for the record.
        progress: Called with how many keys are written, and of how many.
        new_attempt: Returns an id that no commit has had.

    Returns:
        The revision at which the cell was there.

    Raises:
        DuplicateName: There is a cell, and `replace` is not set.
        SpecError: Processes are at work on it.
        StillContended: Somebody else loads or restores, or a process came up meanwhile.
        StoreUnreachable: No answer; restore again.
    """
    total = read_backup(path).count
    marker = RESTORE + secrets.token_hex(8)
    begun, generation = _begin(store, marker, replace=replace)
    _await_agents(store)
    work = _Writer(store, (Seen(LOADING, begun), Quiet("session/", begun)), progress, total)
    marks: dict[str, bytes] = {}
    slices: list[Versioned] = []
    for record in records_of(path):
        if record.key.startswith(SLICES):
            slices.append(record)
        elif record.key in MARKS:
            marks[record.key] = record.value
    places = places_in(records_of(path), new_attempt)
    with work:
        old_keys = [r.key for r in store.read([""]).records if r.key not in MARKS]
        work.write((Delete(key) for key in old_keys), counted=False)
        rewriting = Rewriting(slices, places)
        # What an earlier slice of a name has left is older than the slice that now has it.
        work.write(op for r in records_of(path) if rewriting.is_stale(r) for op in rewriting.of(r))
        _queue(work, slices)
        rewriting.known(store.read([SLICES]).records)
        rest = (
            record
            for record in records_of(path)
            if not (record.key.startswith(SLICES) or rewriting.is_stale(record))
        )
        work.write(operation for record in rest for operation in rewriting.of(record))
        # A quarantine's keys belong together, but nobody looks before the end.
        work.write((op for place in places for op in quarantined(place)), counted=False)
    info = {
        **decode(dict, marks[keys.INFO]),
        "load": marker,
        "generation": 1 + max(generation, _generation(marks[keys.INFO])),
        "restoredAt": now,
    }
    puts = (
        Put(keys.TOTALS, marks[keys.TOTALS]),
        Put(keys.INFO, encode(info)),
        Delete(LOADING),
    )
    revision = work.commit(puts, done=Put(keys.INFO, encode(info)))
    # Whoever looks back is not to see a cell of which only a part was there.
    with contextlib.suppress(StoreError):
        store.compact(revision)
    progress(total, total)
    return revision


def is_being_restored(store: CellStore) -> bool:
    """Tell whether a restore was begun here and is not complete."""
    begun = encode(RESTORE)[:-1]
    return any(
        record.key == LOADING and record.value.startswith(begun)
        for record in store.read([LOADING]).records
    )


def _generation(info: bytes) -> int:
    return int(decode(dict, info).get("generation", 0))


def _begin(store: CellStore, marker: str, *, replace: bool) -> tuple[int, int]:
    """Take back the word that there is a cell; return the mark's revision, and the generation."""
    for _ in range(TRIES_MAX):
        reading = store.read([*MARKS, *CONTROL_SESSIONS])
        known = {record.key: record for record in reading.records}
        if LOADING in known and known[LOADING].value == encode(marker):
            return known[LOADING].modified, 0
        generation = 0
        if keys.INFO in known:
            if not replace:
                raise DuplicateName(
                    "there is a cell already: --replace puts the backup in its place, "
                    "--cell-name restores it beside it"
                )
            generation = _generation(known[keys.INFO].value)
        at_work = sorted(key for key in known if key.startswith(CONTROL_SESSIONS))
        if at_work:
            named = ", ".join(key.split("/", 2)[2] for key in at_work[:3])
            raise SpecError(
                f"{len(at_work)} processes are at work here: {named}",
                hint="stop schedulers, controllers and programs first, agents may stay",
            )
        compares: list[Compare] = [
            Seen(key, known[key].modified if key in known else 0) for key in (keys.INFO, LOADING)
        ]
        compares += [Quiet(prefix, 0) for prefix in CONTROL_SESSIONS]
        puts = (Put(LOADING, encode(marker)), Delete(keys.INFO), Delete(keys.TOTALS))
        try:
            (outcome,) = store.commit([Transaction(tuple(compares), puts)])
        except OutcomeUnknown:
            continue
        if isinstance(outcome, Committed):
            return outcome.revision, generation
    raise StillContended("somebody loads or uses this cell at the same moment: try again")


def _await_agents(store: CellStore) -> None:
    """Wait until agents have seen that their cell is gone, and have ended their sessions."""
    deadline = monotonic() + AGENTS_GONE_SECONDS
    while sessions := store.read(["session/"]).records:
        if monotonic() > deadline:
            named = ", ".join(record.key.partition("/")[2] for record in sessions[:3])
            raise StillContended(f"{named} still at work: stop them, and restore again")
        sleep(POLL_SECONDS)


def _queue(work: "_Writer", slices: Iterable[Versioned]) -> None:
    """Write slices in the order in which they were submitted, which is their place in the queue."""
    waiting: list[Operation] = []
    by_age = sorted(slices, key=attrgetter("created", "key"))
    for _, together in groupby(by_age, key=attrgetter("created")):
        group = list(together)
        ended = all(b'"end":{' in record.value for record in group)
        puts = [Put(record.key, record.value) for record in group]
        if not ended or len(waiting) + len(puts) > KEYS_A_REQUEST:
            work.write_now(waiting)
            waiting = []
        waiting += puts
        if not ended:  # one that lives has a revision of its own, as it had
            work.write_now(waiting, keys_max=SUBMIT_MAX)
            waiting = []
    work.write_now(waiting)


class _Writer:
    """Writes many operations in parts, each under the same guard."""

    def __init__(
        self,
        store: CellStore,
        guard: tuple[Compare, ...],
        progress: Callable[[int, int], None],
        total: int,
    ) -> None:
        self._store = store
        self._guard = guard
        self._progress = progress
        self._total = total
        self._done = 0
        self._pool = ThreadPoolExecutor(THREADS, "restore")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def write(self, operations: Iterable[Operation], *, counted: bool = True) -> None:
        """Write all of these, in any order; returns when all are written."""
        under_way: set[Future[int]] = set()
        for part in _parts(operations):
            under_way.add(self._pool.submit(self._write, part))
            if len(under_way) == 2 * THREADS:
                under_way = self._settle(under_way, counted=counted)
        while under_way:
            under_way = self._settle(under_way, counted=counted)

    def write_now(self, operations: Sequence[Operation], *, keys_max: int = 0) -> None:
        """Write these before anything that comes later."""
        for part in _parts(operations, keys_max):
            self._write(part)
            self._count(len(part))

    def commit(self, operations: tuple[Operation, ...], *, done: Put) -> int:
        """Write the last part; `done` tells whether it happened, where its answer was lost."""
        for _ in range(TRIES_MAX):
            try:
                (outcome,) = self._store.commit([Transaction(self._guard, operations)])
            except OutcomeUnknown:
                outcome = None
            if isinstance(outcome, Committed):
                return outcome.revision
            found = [r for r in self._store.read([done.key]).records if r.key == done.key]
            if found and found[0].value == done.value:
                return found[0].modified
            if outcome is not None:
                raise _overtaken()
        raise StoreUnreachable("the store does not answer writes: restore again when it does")

    def _settle(self, under_way: set[Future[int]], *, counted: bool) -> set[Future[int]]:
        finished, left = wait(under_way, return_when=FIRST_COMPLETED)
        for future in finished:
            written = future.result()
            self._count(written if counted else 0)
        return left

    def _count(self, written: int) -> None:
        self._done += written
        self._progress(min(self._done, self._total), self._total)

    def _write(self, part: Sequence[Operation]) -> int:
        # A lost answer needs no fence here: the same part says the same thing again, nobody looks
        # before the end, and after the end the guard does not hold any more.
        transaction = Transaction(self._guard, tuple(part))
        for _ in range(TRIES_MAX):
            try:
                (outcome,) = self._store.commit([transaction], timeout_seconds=30.0)
            except OutcomeUnknown:
                continue
            if isinstance(outcome, Committed):
                return len(part)
            raise _overtaken()
        raise StoreUnreachable("the store does not answer writes: restore again when it does")


def _overtaken() -> StillContended:
    return StillContended(
        "somebody else began to load this cell, or a process of it came up: stop it, and restore "
        "again"
    )


def _parts(operations: Iterable[Operation], keys_max: int = 0) -> Iterator[list[Operation]]:
    part: list[Operation] = []
    size = 0
    for operation in operations:
        more = len(operation.value) if isinstance(operation, Put) else 0
        if part and (len(part) == (keys_max or KEYS_A_REQUEST) or size + more > PART_BYTES_MAX):
            yield part
            part, size = [], 0
        part.append(operation)
        size += more
    if part:
        yield part
