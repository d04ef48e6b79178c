"""`flowos cancel`, `flowos slice hold` and `release`: what a user wishes of slices that are there."""

from typing import TYPE_CHECKING

import click

from flowos.model.errors import SpecError
from flowos_cli import render
from flowos_cli.commands.slice import ended_by_name, find_all, slice_arguments
from flowos_cli.output import say, tenant_option
from flowos_cli.wiring import Where, where_options

if TYPE_CHECKING:
    from flowos.model.protocols import CellStore


def living(store: "CellStore", names: tuple[str, ...], tenant: str, what: str) -> list[str]:
    """Return the slices that names mean, those of arrays included, all of which must live.

    Raises:
        SpecError: One has ended.
        UnknownName: There is none of such a name.
    """
    found = [n for name in names for n in find_all(store, name, tenant, living=True)]
    from flowos.runtime.looking import look

    records = look(store, [f"slice/{n}" for n in found]).records
    for key, record in records.items():
        if record and b'"end":{' in record.value:
            name = key.partition("/")[2]
            raise SpecError(f"slice {name} has ended", hint=f"only slices that live can be {what}")
    return list(dict.fromkeys(found))


@click.command()
@slice_arguments(several=True)
@click.option(
    "--all", "everything", is_flag=True, help="All that live; of --tenant, if one is said."
)
@tenant_option
@where_options
def cancel(names: tuple[str, ...], everything: bool, tenant: str, where: Where) -> int:
    """End slices: what they hold is given back, and they never come back.

    \b
    flowos cancel train-42 sweep
    flowos cancel --all --tenant vision
    """
    if bool(names) == everything:
        raise click.UsageError("name the slices to cancel, or say --all")
    with where.client() as client:
        if everything:
            known = ended_by_name(client.store, f"{tenant}/" if tenant else "")
            found = [n for n, ended in known.items() if not ended]
            if not found:
                say("no slice lives: nothing to cancel")
        else:
            # All names first: where one is wrong, nothing is cancelled.
            found = [n for name in names for n in find_all(client.store, name, tenant, living=True)]
        for identifier in client.cancel_all(list(dict.fromkeys(found))):
            if not everything:  # of all, some end meanwhile: just what was asked for
                say(f"slice {identifier} has ended already")
    return 0


@click.command()
@slice_arguments(several=True)
@tenant_option
@where_options
def hold(names: tuple[str, ...], tenant: str, where: Where) -> int:
    """Keep pending slices from being placed; those that are placed go on.

    \b
    flowos slice hold train-42        # 'flowos slice release train-42' lets it go on
    """
    return _wish(names, tenant, where, held=True)


@click.command()
@slice_arguments(several=True)
@tenant_option
@where_options
def release(names: tuple[str, ...], tenant: str, where: Where) -> int:
    """Let held slices be placed again.

    \b
    flowos slice release train-42
    """
    return _wish(names, tenant, where, held=False)


def _wish(names: tuple[str, ...], tenant: str, where: Where, *, held: bool) -> int:
    from flowos.runtime.looking import look

    if not names:
        raise click.UsageError("name at least one slice")
    with where.client() as client:
        found = living(client.store, names, tenant, "held")
        (client.hold_all if held else client.unhold_all)(found)
        placed = look(client.store, [f"placement/{n}" for n in found]).records if held else {}
        those = [key.partition("/")[2] for key, record in placed.items() if record]
        if len(those) == 1:
            say(f"slice {those[0]} is placed: it would be held when it is queued again")
        elif those:
            say(
                f"{len(those)} slices are placed: they would be held when they are queued again: "
                f"{render.cut(those)}"
            )
    return 0
