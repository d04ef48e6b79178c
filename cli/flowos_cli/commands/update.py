"""`flowos slice update`: what of a slice that is there already is to be different?"""

from dataclasses import replace
from typing import TYPE_CHECKING

import click

from flowos_cli.commands.slice import slice_arguments
from flowos_cli.commands.wishes import living
from flowos_cli.output import say, seconds, tenant_option
from flowos_cli.wiring import Where, where_options

if TYPE_CHECKING:
    from flowos.runtime.client import CellClient
    from flowos.runtime.updating import Update


@click.command()
@slice_arguments(several=True)
@click.option("--priority", type=int, default=None, metavar="N", help="Higher goes first.")
@click.option(
    "--size",
    "sizes",
    multiple=True,
    metavar="ROLE=N",
    help="So many engines of a role; more are taken before any is given back.",
)
@click.option(
    "--time-limit",
    callback=seconds,
    default=None,
    metavar="4h",
    help="From its start; 0 = it has none. Acts at once, also on what runs.",
)
@click.option(
    "--expected", callback=seconds, default=None, metavar="2h", help="How long it will run."
)
@click.option(
    "--circuits",
    type=click.Choice(["ring", "all", "star", "none"]),
    default=None,
    help="How its engines are joined; what runs goes on while circuits are laid.",
)
@tenant_option
@where_options
def update(
    names: tuple[str, ...],
    priority: int | None,
    sizes: tuple[str, ...],
    time_limit: float | None,
    expected: float | None,
    circuits: str | None,
    tenant: str,
    where: Where,
) -> int:
    """Change slices that wait or run; of an array, all of its slices that live.

    \b
    flowos slice update train-42 --priority 90
    flowos slice update train-42 --size workers=12 --time-limit 8h
    """
    from flowos.runtime.updating import Update

    if not names:
        raise click.UsageError("name at least one slice")
    wanted = Update(priority, _sizes(sizes), time_limit, expected)
    if wanted == Update() and circuits is None:
        raise click.UsageError(
            "say what is to change: --priority, --size, --time-limit, --expected, --circuits"
        )
    with where.client() as client:
        found = living(client.store, names, tenant, "changed")
        for some, change in _changes(client, found, wanted, circuits):
            for identifier in client.update(some, change):
                say(f"slice {identifier} has ended meanwhile")
    return 0


def _changes(
    client: "CellClient", identifiers: list[str], wanted: "Update", circuits: str | None
) -> "list[tuple[list[str], Update]]":
    """Return what is to change of whom: a shape of circuits is over the roles of each slice."""
    if circuits is None:
        return [(identifiers, wanted)]
    from flowos.model.slice import CircuitWish, Shape

    slices = client.view([f"slice/{i}" for i in identifiers]).slices
    found = []
    for identifier in identifiers:
        entry = slices.get(identifier)
        roles = tuple(entry.value.spec.engines) if entry is not None else ()
        wishes = (CircuitWish(Shape(circuits), roles),) if roles and circuits != "none" else ()
        found.append(([identifier], replace(wanted, circuits=wishes)))
    return found


def _sizes(said: tuple[str, ...]) -> dict[str, int]:
    """Read "workers=8", said several times or with commas."""
    found: dict[str, int] = {}
    for part in ",".join(said).split(",") if said else ():
        role, _, count = part.strip().partition("=")
        if not role or not count.isdecimal():
            raise click.UsageError(f"--size {part.strip()} is no size: write such as workers=8")
        found[role] = int(count)
    return found
