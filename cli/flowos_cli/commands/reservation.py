"""`flowos reservation`: units that are kept for a tenant, or for maintenance, during a window."""

from typing import TYPE_CHECKING, Final

import click

from flowos.model.errors import SpecError, StillContended
from flowos_cli import render
from flowos_cli.commands.completion import live
from flowos_cli.lazy import LazyGroup
from flowos_cli.output import Listing, Output, now, output_options, say, show_list
from flowos_cli.render import Column, Item
from flowos_cli.wiring import Where, where_options

if TYPE_CHECKING:
    from collections.abc import Callable

    from flowos.model.protocols import CellStore
    from flowos.model.transaction import Transaction
    from flowos.model.view import CellView

TRIES_MAX: Final = 20


def _short(at: str) -> str:
    """Return "2026-12-01 08:00Z" for "2026-12-01T08:00:00Z": two of them fit on a terminal."""
    return f"{at[:10]} {at[11:16]}Z"


RESERVATIONS: Final = Listing(
    columns=(
        Column("name", lambda r: r["name"]),
        Column("state", lambda r: r["state"], styled="="),
        Column("for", lambda r: ",".join(r["tenants"]) or "maintenance"),
        Column("from", lambda r: _short(r["from"])),
        Column("until", lambda r: _short(r["until"]) if r["until"] else "-"),
        Column("held", lambda r: f"{r['held']}/{len(r['units'])}", right=True),
        Column("in_use", lambda r: str(r["in_use"]), right=True),
        Column("in_the_way", lambda r: render.cut(r["in_the_way"], 2) or "-"),
        Column("evict", lambda r: "yes" if r["evict"] else "no", wide=True),
        Column("why", lambda r: r["why"], wide=True),
        Column("units", lambda r: render.cut([u.partition("/")[2] for u in r["units"]]), wide=True),
    ),
    empty="no reservations: 'flowos reservation add --help' says how to make one",
)


@click.group(
    cls=LazyGroup,
    short_help="Keep units for a tenant or for maintenance.",
    table={
        "add": (f"{__name__}:add", "Keep units during a window."),
        "ls": (f"{__name__}:ls", "List reservations."),
        "rm": (f"{__name__}:rm", "Remove a reservation: its units are let go."),
    },
)
def reservation() -> None:
    """Reservations: units that are kept for a tenant, or for maintenance, during a window."""


# ------------------------------------------------------------------------------------------ add


@click.command()
@click.argument("name", metavar="NAME")
@click.option("--engines", default="", metavar="gpu=8,fpga=2", help="So many engines of a kind.")
@click.option("--units", default="", metavar="n3,n4/gpu0", help="These engines, nodes or switches.")
@click.option(
    "--tenant",
    "tenants",
    multiple=True,
    metavar="T",
    shell_complete=live("tenant"),
    help="For its slices alone.",
)
@click.option("--maintenance", is_flag=True, help="For nobody's slices.")
@click.option("--from", "begins", default="now", metavar="TIME", help="When it opens; default now.")
@click.option("--until", "ends", default=None, metavar="TIME", help="When it closes.")
@click.option("--for", "lasts", default=None, metavar="D", help="How long it is open: 2h, 1h30m.")
@click.option("--no-evict", is_flag=True, help="Wait for who holds a unit when it opens.")
@click.option("--why", default="", metavar="R", help="For people.")
@where_options
def add(
    name: str,
    engines: str,
    units: str,
    tenants: tuple[str, ...],
    maintenance: bool,
    begins: str,
    ends: str | None,
    lasts: str | None,
    no_evict: bool,
    why: str,
    where: Where,
) -> int:
    """Keep units for the slices of a tenant, or for maintenance, during a window.

    TIME is now, +2h, or a date and time such as 2026-12-01T08:00 (of this machine's time zone, if
    none is said) or 2026-12-01T08:00Z. Without --until and --for it is open until it is removed.
    Who holds a unit when the window opens gives way after the grace that it asks for, and is queued
    again; with --no-evict it is waited for. What still runs when it closes goes on.

    \b
    flowos reservation add demo --engines gpu=8 --tenant vision --from 2026-12-01T08:00Z --for 3h
    flowos reservation add fans --units n3,sw1 --maintenance --from +2h --why "fan tray"
    """
    from flowos.documents.fields import SLICE_NAME
    from flowos.model.rules import Reservation
    from flowos.runtime import windows

    if SLICE_NAME.fullmatch(name) is None:
        raise SpecError(
            f"'{name}' is no name for a reservation",
            hint="use up to 63 small letters, digits and dashes, such as night-shift",
        )
    if bool(tenants) == maintenance:
        raise click.UsageError("say who it is for: --tenant T, or --maintenance")
    if not (engines or units):
        raise click.UsageError("say what is kept: --engines gpu=8, or --units n3,n4/gpu0")
    if ends is not None and lasts is not None:
        raise click.UsageError("say when it closes once: --until or --for")
    at = now()
    from_at = time_of(begins, at, "--from")
    until_at = None if ends is None else time_of(ends, at, "--until")
    if lasts is not None:
        until_at = from_at + _seconds_of(lasts, "--for")
    if until_at is None and from_at < at - _LATE_SECONDS:
        from_at = at
    asked = Reservation(
        name, (), tuple(dict.fromkeys(tenants)), from_at, until_at, not no_evict, why
    )
    names = [word.strip() for word in units.split(",") if word.strip()]
    counts = _counts_of(engines) if engines else {}
    made = asked

    def step(view: "CellView") -> "Transaction":
        nonlocal made
        made, transaction = windows.added(view, asked, names=names, counts=counts, now=at)
        return transaction

    _commit(where, step, f"reservation {name}")
    kept = [unit.partition("/")[2] for unit in made.units]
    say(f"reservation {name} keeps {len(kept)}: {render.cut(kept, 8)}")
    return 0


_LATE_SECONDS: Final = 60.0


def time_of(text: str, at: float, option: str) -> float:
    """Return the wall-clock second that "now", "+2h" or an ISO date and time means.

    Args:
        text: As it was written; a time without a zone is this machine's.
        at: Wall-clock seconds now.
        option: For the error.

    Raises:
        SpecError: It is none of these.
    """
    from datetime import datetime

    if text == "now":
        return at
    if text.startswith("+"):
        return at + _seconds_of(text[1:], option)
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        raise SpecError(
            f"'{text}' is no time",
            where=option,
            hint="write now, +2h, 2026-12-01T08:00 or 2026-12-01T08:00Z",
        ) from None


def _seconds_of(text: str, option: str) -> float:
    from flowos.documents.quantities import seconds_of

    try:
        return seconds_of(text)
    except SpecError as error:
        raise SpecError(str(error), where=option) from None


def _counts_of(text: str) -> dict[str, int]:
    counts: dict[str, int] = {}
    for part in text.split(","):
        kind, equals, count = (word.strip() for word in part.partition("="))
        well = kind and equals and count.isascii() and count.isdigit() and len(count) < 10
        if not well or int(count) < 1:
            raise SpecError(
                f"'{part.strip()}' is no number of engines",
                where="--engines",
                hint="write gpu=8, or gpu=8,fpga=2",
            )
        if kind in counts:
            raise SpecError(f"{kind} stands twice", where="--engines", hint="keep one of the two")
        counts[kind] = int(count)
    return counts


# ------------------------------------------------------------------------------------- ls and rm


@click.command()
@output_options()
@where_options
def ls(out: Output, where: Where) -> int:
    """List reservations: HELD of their units are free for them, IN USE are with their slices.

    A reservation is planned, open, or closed; the controller removes one that is closed.

    \b
    flowos reservation ls -o wide
    """
    from flowos.runtime.windows import window_shown

    def make(view: "CellView", _store: "CellStore") -> list[Item]:
        at = now()
        order = sorted(view.reservations, key=lambda n: (view.reservations[n].from_at, n))
        return [window_shown(view, name, at) for name in order]

    return show_list(where, out, RESERVATIONS, ("rule/", "placement/"), make)


@click.command()
@click.argument(
    "names", metavar="NAME...", nargs=-1, required=True, shell_complete=live("rule/reservation")
)
@where_options
def rm(names: tuple[str, ...], where: Where) -> int:
    """Remove reservations: the controller lets their units go; what runs there goes on.

    \b
    flowos reservation rm fans
    """
    from flowos.runtime import windows

    left = list(dict.fromkeys(names))

    def step(view: "CellView") -> "Transaction":
        # All names that are left: where one is wrong, nothing is removed.
        first, *_ = [windows.removed(view, name) for name in left]
        return first

    while left:
        _commit(where, step, f"reservation {left[0]}")
        say(f"reservation {left.pop(0)} is removed")
    return 0


def _commit(where: Where, step: "Callable[[CellView], Transaction]", what: str) -> None:
    """Commit a change, again where the reservations have changed meanwhile."""
    from flowos.model.transaction import Committed
    from flowos.runtime.shown import view_of
    from flowos.runtime.windows import FOLLOWS

    store = where.store()
    try:
        for _ in range(TRIES_MAX):
            (outcome,) = store.commit([step(view_of(store, FOLLOWS))])
            if isinstance(outcome, Committed):
                return
    finally:
        store.close()
    raise StillContended(f"{what}: reservations kept changing: try again")
