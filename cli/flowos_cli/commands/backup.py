"""`flowos cell backup` and `flowos cell restore`: all of a cell's state in a file, and back."""

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from flowos.model.errors import StoreRefused
from flowos_cli import render
from flowos_cli.output import say
from flowos_cli.wiring import Where, where_options

if TYPE_CHECKING:
    from flowos.runtime.backup import Backup
    from flowos_store import EtcdStore

STDOUT: Final = "-"


@click.command()
@click.argument("target", metavar="FILE|-")
@where_options
def backup(target: str, where: Where) -> int:
    """Write all of the cell's state, as of one revision, to a file; '-' is standard output.

    The cell goes on meanwhile. Sessions of processes are left out. The file is there under its name
    once it is complete.
    """
    from flowos.model.errors import SpecError
    from flowos.runtime.backup import whole_file, write_backup
    from flowos.runtime.clock import SystemClock

    if target == STDOUT and sys.stdout.isatty():
        raise SpecError("a backup is not for reading", hint="write it to a file, or into a pipe")
    store = where.store()
    try:
        with contextlib.ExitStack() as stack:
            out = sys.stdout.buffer if target == STDOUT else None
            if out is None:
                out = stack.enter_context(whole_file(Path(target)))
            progress = stack.enter_context(render.progress_bar("keys written"))
            made = write_backup(
                store,
                out,
                cell=store_cell(store),
                etcd=_version(store),
                taken_at=SystemClock().wall(),
                progress=progress,
            )
    finally:
        store.close()
    say(f"wrote {_what(made)}")
    return 0


@click.command()
@click.argument("source", metavar="FILE", type=click.Path())
@click.option(
    "--replace",
    is_flag=True,
    help="Put it in the place of the cell that is there, with its slices.",
)
@where_options
def restore(source: str, replace: bool, where: Where) -> int:
    """Bring a cell back from a backup, into an etcd without it.

    A damaged file is refused before anything is written. The cell is there once all of it is;
    restore again if this was broken off. Every node and switch is out of service until its agent
    has looked at its orders.
    """
    from flowos.runtime.backup import read_backup
    from flowos.runtime.backup import restore as restore_into
    from flowos.runtime.clock import SystemClock

    path = Path(source)
    found = read_backup(path)
    store = where.store()
    try:
        name = store_cell(store)
        with render.progress_bar("restoring") as progress:
            revision = restore_into(
                store, path, replace=replace, now=SystemClock().wall(), progress=progress
            )
    finally:
        store.close()
    into = "" if name == found.cell else f" as cell {name}"
    say(f"restored {_what(found)}{into}: now revision {revision:,}")
    say("each node and switch is out of service until its agent has looked at its orders")
    return 0


def store_cell(store: "EtcdStore") -> str:
    """Return the name of a store's cell."""
    from flowos_store.access import EtcdAccess

    return EtcdAccess(store).cell


def _version(store: "EtcdStore") -> str:
    try:
        return store.status().version
    except StoreRefused:
        return ""  # it is told to root alone


def _what(made: "Backup") -> str:
    slices, places = made.families.get("slice", 0), made.families.get("placement", 0)
    return (
        f"{made.count:,} keys of cell {made.cell} at revision {made.revision:,}: "
        f"{slices:,} slices, {places:,} placements"
    )
