"""`flowos slice update`: what of a slice that is there already is to be different?"""

import click

from flowos_cli.commands.slice import slice_arguments
from flowos_cli.commands.wishes import living
from flowos_cli.output import say, seconds, tenant_option
from flowos_cli.wiring import Where, where_options


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
@tenant_option
@where_options
def update(
    names: tuple[str, ...],
    priority: int | None,
    sizes: tuple[str, ...],
    time_limit: float | None,
    expected: float | None,
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
    if wanted == Update():
        raise click.UsageError(
            "say what is to change: --priority, --size, --time-limit, --expected"
        )
    with where.client() as client:
        found = living(client.store, names, tenant, "changed")
        for identifier in client.update(found, wanted):
            say(f"slice {identifier} has ended meanwhile")
    return 0


def _sizes(said: tuple[str, ...]) -> dict[str, int]:
    """Read "workers=8", said several times or with commas."""
    found: dict[str, int] = {}
    for part in ",".join(said).split(",") if said else ():
        role, _, count = part.strip().partition("=")
        if not role or not count.isdecimal():
            raise click.UsageError(f"--size {part.strip()} is no size: write such as workers=8")
        found[role] = int(count)
    return found
