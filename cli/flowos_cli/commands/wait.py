"""`flowos slice wait`: until a slice, or all of an array, is so far."""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import click

from flowos_cli.commands.slice import find_all, slice_arguments
from flowos_cli.output import say, seconds, tenant_option
from flowos_cli.wiring import Where, where_options

if TYPE_CHECKING:
    from flowos.model.view import CellView
    from flowos.runtime.client import CellClient

WAITS: Final = ("allocated", "running", "done")


@click.command()
@slice_arguments()
@click.option(
    "--for", "until", type=click.Choice(WAITS), default="done", show_default=True, help="What for."
)
@click.option("--timeout", callback=seconds, default=None, metavar="S", help="Give up after this.")
@tenant_option
@where_options
def wait(name: str, until: str, timeout: float | None, tenant: str, where: Where) -> int:
    """Wait until a slice is allocated, running, or done; status 1 if it failed or was cancelled.

    Of an array, all of its slices.

    \b
    flowos slice wait train-42 --for done --timeout 2h
    """
    with where.client() as client:
        return wait_all(client, find_all(client.store, name, tenant), until, timeout)


def wait_all(
    client: "CellClient", identifiers: Sequence[str], until: str, timeout: float | None
) -> int:
    """Wait for each, within one time in all; return the status to end with."""
    code = 0
    tell = _teller(identifiers[0]) if len(identifiers) == 1 else _counter(identifiers)
    view = client.wait_all(identifiers, until, timeout_seconds=timeout, changed=tell)
    for identifier in identifiers:
        end = view.slices[identifier].value.end
        if end is not None and end.phase != "done":
            said = f": {end.message}" if end.message else ""
            say(f"slice {identifier} {_PAST[end.phase]}{said}")
            code = 1
    return code


_PAST: Final[Mapping[str, str]] = {"failed": "failed", "cancelled": "was cancelled"}


def _teller(identifier: str) -> "Callable[[CellView], None]":
    """Return what tells people how far a slice is, on a terminal."""
    told = ""
    seen = sys.stderr.isatty()

    def tell(view: "CellView") -> None:
        nonlocal told
        sentence = _how_far(view, identifier)
        if seen and sentence and sentence != told:
            say(f"{identifier}: {sentence}")
            told = sentence

    return tell


def _counter(identifiers: Sequence[str]) -> "Callable[[CellView], None]":
    """Return what tells people how many of several slices are how far, on a terminal."""
    told = ""
    seen = sys.stderr.isatty()

    def tell(view: "CellView") -> None:
        nonlocal told
        if not seen:
            return
        ended = sum(1 for n in identifiers if (e := view.slices.get(n)) and e.value.end)
        placed = sum(1 for n in identifiers if n in view.placements)
        sentence = f"{ended} of {len(identifiers)} have ended, {placed} hold engines"
        if sentence != told:
            say(sentence)
            told = sentence

    return tell


def _how_far(view: "CellView", identifier: str) -> str:
    """Return how far a slice is, without its orders and reports."""
    entry, placed = view.slices.get(identifier), view.placements.get(identifier)
    waiting = view.reasons.get(identifier)
    if entry is None or entry.value.end is not None:
        return ""
    if placed is None:
        return f"waits, {waiting.value.sentence}" if waiting else "waits"
    if placed.value.ending is not None:
        return "is being given back"
    count = sum(map(len, placed.value.engines.values()))
    what = f"{count} {'engine' if count == 1 else 'engines'}"
    if placed.value.started_at is not None:
        return f"runs on {what}"
    return f"has {what}, which are being made ready"
