"""`flowos cell roles ...`: who may read and write which keys, enforced by etcd."""

import json
import sys
from typing import TYPE_CHECKING, Any, Final

import click

from flowos.model.errors import SpecError, UnknownName
from flowos_cli import render
from flowos_cli.lazy import LazyGroup
from flowos_cli.output import API_VERSION, Listing, Output, output_options, say, to_yaml, write
from flowos_cli.render import Column, Item
from flowos_cli.wiring import Where, read_password, where_options

if TYPE_CHECKING:
    from flowos.documents.rights_file import RightsFile
    from flowos.protocol.rights import Rights, Step
    from flowos_store import EtcdStore
    from flowos_store.access import EtcdAccess

FEW: Final = 400  # steps of which people want to see each; a large cell has tens of thousands


@click.group(
    cls=LazyGroup,
    short_help="Who may read and write what.",
    table={
        "apply": (f"{__name__}:apply", "Make etcd's users and roles what a file says."),
        "show": (f"{__name__}:show", "Which roles there are, and who has them."),
    },
)
def roles() -> None:
    """Roles of the cell, as users and key ranges of its etcd."""


# ---------------------------------------------------------------------------------------- apply


@click.command()
@click.argument("source", metavar="[FILE]", default="")
@click.option("--dry-run", is_flag=True, help="Only say what would change.")
@click.option("--enable-auth", is_flag=True, help="Have etcd check who asks, once all is in place.")
@click.option(
    "--reset-password",
    "resets",
    multiple=True,
    metavar="USER",
    help="Give a user that is there already the password anew.",
)
@click.option(
    "-o",
    "--output",
    "form",
    type=click.Choice(["table", "json", "yaml"]),
    default="table",
    show_default=True,
    help="Form of the answer.",
)
@where_options
def apply(
    source: str,
    dry_run: bool,
    enable_auth: bool,
    resets: tuple[str, ...],
    form: str,
    where: Where,
) -> int:
    """Make etcd's users and roles what FILE says; without FILE, roles alone.

    Only what differs is changed, so it may be given again and again. Users whom FILE does not name
    lose this cell's roles. Needs etcd's user root, once etcd checks who asks.
    """  # fmt: skip
    from flowos.documents.rights_file import load_rights
    from flowos.protocol.rights import of_cell, steps, wanted
    from flowos_store.access import EtcdAccess

    store = where.store()
    try:
        access = EtcdAccess(store)
        access.refuse_leaky_servers()
        tenants, places = _known(store)
        file = load_rights(source, tenants=tenants, places=places) if source else None
        cell = access.cell
        if file:
            want = wanted(cell, file.members)
        else:
            want = wanted(cell, (), tenants=tenants, places=places)
        have = access.rights(lambda found: of_cell(cell, found))
        todo = steps(have, want, users=file is not None)
        passwords = _passwords(file, have, todo, resets, ask=not dry_run)
        root = _root_password(file, have, ask=enable_auth and not dry_run)
        on = access.is_on()
        if not dry_run:
            _carry_out(access, todo, passwords, resets)
            if enable_auth and not on:
                access.make_root(have.users, root)
                access.turn_on()
    finally:
        store.close()
    _tell(form, want, todo, resets, dry_run=dry_run, turned_on=enable_auth and not on, on=on)
    return 0


def _known(store: "EtcdStore") -> tuple[list[str], list[str]]:
    """Return the cell's tenants, and its nodes and switches."""
    records = store.read(["node/", "switch/", "tenant/"]).records
    names = [record.key.partition("/") for record in records]
    places = [name for family, _, name in names if family != "tenant"]
    if not places:
        raise UnknownName("the store holds no cell of this name: load one with 'flowos cell init'")
    return [name for family, _, name in names if family == "tenant"], places


def _passwords(
    file: "RightsFile | None",
    have: "Rights",
    todo: "list[Step]",
    resets: tuple[str, ...],
    *,
    ask: bool,
) -> dict[str, str | None]:
    """Return what each new user is to log in with; None = its certificate."""
    members = {member.name: member for member in file.members} if file else {}
    new = [step.name for step in todo if step.verb == "add user"]
    for name in resets:
        if name not in members or members[name].certificate:
            raise UnknownName(f"--reset-password {name}: no user of FILE with a password")
        if name not in have.users:
            raise UnknownName(f"--reset-password {name}: etcd has no such user yet, leave it out")
    return {
        name: _password(name, members[name].password_file, ask=ask)
        if not members[name].certificate
        else None
        for name in (*new, *resets)
    }


def _root_password(file: "RightsFile | None", have: "Rights", *, ask: bool) -> str | None:
    from flowos_store.access import ROOT

    root = file.root if file else None
    if ROOT in have.users or not ask or (root and root.certificate):
        return None
    return _password(ROOT, root.password_file if root else "", ask=True)


def _password(name: str, path: str, *, ask: bool) -> str:
    if path:
        return read_password(path)
    if not ask:
        return ""
    if not sys.stdin.isatty():
        raise SpecError(
            f"user {name} is new and has no password",
            hint="write password_file: F, or login: certificate, or call this at a terminal",
        )
    typed: str = click.prompt(
        f"new password of {name}", hide_input=True, confirmation_prompt=True, err=True
    )
    return typed


def _carry_out(
    access: "EtcdAccess",
    todo: "list[Step]",
    passwords: dict[str, str | None],
    resets: tuple[str, ...],
) -> None:
    with render.progress_bar("changing rights") as progress:
        for done, step in enumerate(todo, start=1):
            access.apply(step, passwords.get(step.name))
            progress(done, len(todo))
    for name in resets:
        access.change_password(name, passwords[name] or "")


def _tell(
    form: str,
    want: "Rights",
    todo: "list[Step]",
    resets: tuple[str, ...],
    *,
    dry_run: bool,
    turned_on: bool,
    on: bool,
) -> None:
    touched = {step.name for step in todo} | {step.role for step in todo}
    same = [name for name in want.roles if name not in touched]
    lines = [step.line() for step in todo] + [f"~ password {name}" for name in resets]
    lines += ["+ auth on"] if turned_on else []
    if form != "table":
        record = {
            "apiVersion": API_VERSION,
            "changes": lines,
            "unchanged": same,
            "dryRun": dry_run,
            "auth": on or (turned_on and not dry_run),
        }
        text = to_yaml(record) if form == "yaml" else json.dumps(record, indent=2) + "\n"
        click.echo(text, nl=False)
        return
    write(lines if len(lines) <= FEW else [*lines[:FEW], f"... and {len(lines) - FEW:,} more"])
    if same:
        say(f"= {len(same):,} roles unchanged" if len(same) > FEW else _unchanged(same))
    what = "would change" if dry_run else "changed"
    say(
        f"{len(lines):,} {what}; etcd {'checks' if on or turned_on else 'does not check yet'} who asks"
    )


def _unchanged(names: list[str]) -> str:
    return "\n".join(f"= role {name}" for name in names)


# ----------------------------------------------------------------------------------------- show


ROLES: Final = Listing(
    columns=(
        Column("name", lambda r: r["name"]),
        Column("users", lambda r: render.cut(r["users"], 3)),
        Column("writes", lambda r: render.cut(r["writes"], 4)),
        Column("reads", lambda r: render.cut(r["reads"], 4)),
    ),
    empty="no roles: 'flowos cell roles apply' makes them",
)


@click.command()
@output_options(watch=False)
@where_options
def show(out: Output, where: Where) -> int:
    """Which roles the cell has in etcd, what each reads and writes, and who has it."""
    from flowos.protocol.rights import of_cell, shown
    from flowos_store.access import EtcdAccess

    store = where.store()
    try:
        access = EtcdAccess(store)
        cell = access.cell
        rights = access.rights(lambda found: of_cell(cell, found))
    finally:
        store.close()
    items: list[Item] = [dict[str, Any](item) for item in shown(rights, cell)]
    out.put(ROLES, items)
    return 0
