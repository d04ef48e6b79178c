"""`flowos power`: what the cell draws, and what it may."""

from typing import TYPE_CHECKING, Final

import click

from flowos_cli import render
from flowos_cli.lazy import LazyGroup
from flowos_cli.output import Listing, Output, output_options, show_list
from flowos_cli.render import Column, Item
from flowos_cli.wiring import Where, where_options

if TYPE_CHECKING:
    from flowos.model.protocols import CellStore
    from flowos.model.view import CellView

FOLLOWED: Final = ("domain/", "node/", "engine/", "placement/", "grant/")
DOMAINS: Final = Listing(
    columns=(
        Column("name", lambda d: d["name"]),
        Column("budget", lambda d: render.watts(d["budget_watts"]), right=True),
        Column("in force", lambda d: render.watts(d["in_force_watts"]), right=True),
        Column("draw", lambda d: render.watts(d["draw_watts"]), right=True),
        Column("idle", lambda d: render.watts(d["idle_watts"]), right=True),
        Column("held", lambda d: render.watts(d["held_watts"]), right=True),
        Column("granted", lambda d: render.watts(d["granted_watts"]), right=True),
        Column("free", lambda d: render.watts(d["free_watts"]), right=True),
        Column("engines", lambda d: str(d["engines"]), right=True),
        Column("off", lambda d: str(d["off"]), right=True),
        Column("parent", lambda d: d["parent"] or "-", wide=True),
    ),
    empty="the cell has no power domains",
)


@click.group(
    cls=LazyGroup,
    short_help="Budgets and draw by power domain.",
    table={"show": (f"{__name__}:show", "Budgets and draw by power domain.")},
)
def power() -> None:
    """Power domains: what feeds nodes, with a budget."""


@click.command()
@output_options()
@where_options
def show(out: Output, where: Where) -> int:
    """Budgets and draw by power domain.

    IN FORCE is the budget, or more as long as what was granted before it was lowered is still used.
    IDLE is what all engines draw when none computes. HELD is what slices may draw above it, GRANTED
    what schedulers may give them without asking, FREE what is left of the budget.
    """
    from flowos.runtime.shown import domains_shown

    def make(view: "CellView", _store: "CellStore") -> list[Item]:
        return [*domains_shown(view)]

    return show_list(where, out, DOMAINS, FOLLOWED, make)
