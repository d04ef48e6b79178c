"""`flowos slice logs`: what have the tasks of a slice written?"""

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from flowos.model.errors import UnknownName
from flowos_cli.commands.slice import ENDED, find, slice_arguments
from flowos_cli.output import tenant_option, write
from flowos_cli.wiring import Where, where_options

if TYPE_CHECKING:
    from flowos.model.protocols import CellStore

LOOK_SECONDS: Final = 0.2
BLOCK_BYTES: Final = 1 << 20


@dataclass(slots=True)
class _Log:
    """One task's output, as far as it has been shown."""

    rank: int
    path: Path
    shown: int = 0

    def more(self) -> Iterator[str]:
        """Yield the whole lines that have come since."""
        try:
            with self.path.open("rb") as file:
                file.seek(self.shown)
                while block := file.read(BLOCK_BYTES):
                    whole = block.rfind(b"\n") + 1
                    if not whole and len(block) < BLOCK_BYTES:
                        return
                    whole = whole or len(block)
                    self.shown += whole
                    file.seek(self.shown)
                    yield from block[:whole].decode(errors="replace").splitlines()
        except FileNotFoundError:
            return

    def rest(self) -> Iterator[str]:
        """Yield what came last, without an end of line."""
        try:
            with self.path.open("rb") as file:
                file.seek(self.shown)
                text = file.read().decode(errors="replace")
        except FileNotFoundError:
            return
        self.shown += len(text)
        yield from text.splitlines()


@click.command()
@slice_arguments()
@click.option("--rank", type=click.IntRange(min=0), default=None, help="Of this task only.")
@click.option("-f", "--follow", is_flag=True, help="Go on until the slice has ended.")
@click.option(
    "--tail",
    type=click.IntRange(min=0),
    default=None,
    metavar="N",
    help="The last N lines of each.",
)
@click.option(
    "--attempt", default="", metavar="A", help="Of an earlier attempt; default: the last."
)
@tenant_option
@where_options
def logs(
    name: str,
    rank: int | None,
    follow: bool,
    tail: int | None,
    attempt: str,
    tenant: str,
    where: Where,
) -> int:
    """What the tasks of a slice have written, each line with its rank where there are several.

    The agents that run them keep it, each on its own machine, for a week.

    \b
    flowos slice logs train-42 -f
    flowos slice logs train-42 --rank 3 --tail 20
    """
    store = where.store()
    try:
        identifier = find(store, name, tenant)
        folder = where.folder() / "slices" / identifier
        try:
            _show(store, identifier, folder, rank, attempt, tail, follow=follow)
        except KeyboardInterrupt:
            return 130
    finally:
        store.close()
    return 0


def _show(
    store: "CellStore",
    identifier: str,
    folder: Path,
    rank: int | None,
    attempt: str,
    tail: int | None,
    *,
    follow: bool,
) -> None:
    known: dict[Path, _Log] = {}
    first = True
    while True:
        phase, command, nodes = _state(store, identifier)
        over = phase in ENDED or not follow
        _find(known, folder, rank, attempt)
        if not known and over:
            raise UnknownName(_none(identifier, folder, phase, command, nodes, rank))
        several = len(known) > 1
        for log in sorted(known.values(), key=lambda log: log.rank):
            lines = [*log.more(), *(log.rest() if over else ())]
            if first and tail is not None:
                lines = lines[-tail:] if tail else []
            write(f"{log.rank}: {line}" if several else line for line in lines)
        sys.stdout.flush()
        first = first and not known
        if over:
            return
        time.sleep(LOOK_SECONDS)


def _find(known: dict[Path, _Log], folder: Path, rank: int | None, attempt: str) -> None:
    """Add the logs of the last attempt, or of the one that is named."""
    attempts = [path for path in folder.glob("*") if path.is_dir()]
    if attempt:
        attempts = [path for path in attempts if path.name.startswith(attempt)]
    else:
        attempts = sorted(attempts, key=lambda path: path.stat().st_mtime)[-1:]
    for path in attempts:
        for file in path.glob("rank-*.log"):
            number = int(file.stem.partition("-")[2])
            if rank is None or number == rank:
                known.setdefault(file, _Log(number, file))


def _state(store: "CellStore", identifier: str) -> tuple[str, bool, list[str]]:
    """Return a slice's phase, whether it runs a command, and where."""
    from flowos.model.life import phase_in
    from flowos.runtime.shown import view_of

    view = view_of(store)
    entry = view.slices.get(identifier)
    if entry is None:
        return "cancelled", False, []
    placement = view.placements.get(identifier)
    engines = placement.value.engines.values() if placement is not None else ()
    nodes = sorted({e.partition("/")[0] for role in engines for e in role})
    return str(phase_in(view, identifier) or "cancelled"), bool(entry.value.spec.run.command), nodes


def _none(
    identifier: str, folder: Path, phase: str, command: bool, nodes: list[str], rank: int | None
) -> str:
    if not command:
        return f"slice {identifier} runs no command, so nothing is written"
    if rank is not None and folder.exists():
        return f"slice {identifier} has no task of rank {rank} here"
    if phase == "pending":
        return f"slice {identifier} waits, so nothing is written yet: 'flowos explain' says why"
    at = f" of {', '.join(nodes)}" if nodes else ""
    return (
        f"nothing of slice {identifier} is kept in {folder.parent.parent}: its agents{at} keep it on "
        "their own machines, in their --data-dir"
    )
