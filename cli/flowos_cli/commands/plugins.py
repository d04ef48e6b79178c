"""`flowos scheduler plugins`: which schedulers are installed, and do they keep the laws?"""

from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

import click

from flowos.model.errors import FlowosError
from flowos.runtime.plugins import OURS, Plugin, installed, load, plugin_named, purpose
from flowos_cli import render
from flowos_cli.commands.completion import policies
from flowos_cli.output import API_VERSION, Listing, Output, output_options, say
from flowos_cli.render import Column, Item
from flowos_cli.wiring import Where, where_options

if TYPE_CHECKING:
    from flowos.planning.policy import Policy

PLUGINS: Final = Listing(
    columns=(
        Column("name", lambda p: p["name"]),
        Column("state", lambda p: p["state"]),
        Column("runs", lambda p: "-" if p["runs"] is None else str(len(p["runs"])), right=True),
        Column("purpose", lambda p: p["purpose"] or "-", wraps=True),
        Column("package", lambda p: f"{p['package']} {p['version']}".rstrip(), wide=True),
        Column("module", lambda p: p["module"], wide=True),
        Column("processes", lambda p: render.cut(p["runs"], 4) if p["runs"] else "-", wide=True),
        Column("problem", lambda p: p["problem"] or "-", wide=True),
    ),
    empty="no scheduler is installed: pip install flowos brings six",
)


@click.command("plugins")
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=policies)
@click.option("--check", is_flag=True, help="Try each on small cells: does it keep the laws?")
@output_options(watch=False)
@where_options
def scheduler_plugins(names: tuple[str, ...], check: bool, out: Output, where: Where) -> int:
    """List the installed schedulers, or some of them; -o wide says where they come from.

    \b
    flowos scheduler plugins
    flowos scheduler plugins mine --check

    A state is "ok", "broken" (it cannot be loaded, or breaks a law with --check), or "taken" (a
    package with the same name goes first). No store is needed; where there is one, `runs` says how
    many processes of it live.
    """
    for name in names:
        plugin_named(name)  # a wrong one is said
    runs = _running(where)
    wanted = [plugin for plugin in installed() if not names or plugin.name in names]
    items = [_item(plugin, check, runs) for plugin in wanted]
    out.put(PLUGINS, items)
    for item in items:
        if out.draws and item["problem"]:
            click.echo(f"{item['name']} of package {item['package']}: {item['problem']}", err=True)
    return 2 if check and any(item["state"] == "broken" for item in items) else 0


def policy_of(name: str) -> "Policy | None":
    """Return the policy of a name, to plan by as it would; None, and a line says so, if it cannot.

    It may be installed only where its scheduler runs.
    """
    try:
        return load(plugin_named(name))
    except FlowosError as error:
        say(f"note: planned without policy {name}, whose choice may differ: {error}")
        return None


def _item(plugin: Plugin, check: bool, runs: dict[str, list[str]] | None) -> Item:
    state, problem, about = "ok", "", ""
    broken: list[dict[str, str]] = []
    if plugin.taken_by:
        state, problem = "taken", f"package {plugin.taken_by} has a scheduler of this name"
    else:
        try:
            policy = load(plugin)
        except FlowosError as error:
            state, problem = "broken", str(error)
        else:
            about = purpose(policy)
            broken = _broken(policy) if check else []
            if broken:
                state = "broken"
                problem = "; ".join(f"{one['law']}: {one['what']}" for one in broken)
    return {
        "apiVersion": API_VERSION,
        "name": plugin.name,
        "package": plugin.package,
        "version": plugin.version,
        "module": plugin.module,
        "purpose": about,
        "state": state,
        "checked": check and not plugin.taken_by,
        "broken": broken,
        "problem": problem,
        "runs": None if runs is None else [] if plugin.taken_by else runs[plugin.name],
    }


def _broken(policy: "Policy") -> list[dict[str, str]]:
    from flowos.testing.schedulers import check_policy

    return [{"law": one.law, "what": one.what} for one in check_policy(policy)]


def _running(where: Where) -> dict[str, list[str]] | None:
    """Return policy -> its processes' names, None where no store answers."""
    from flowos.model.codec import decode
    from flowos.model.placement import Session

    found: dict[str, list[str]] = defaultdict(list)
    try:
        store = where.store()
        try:
            records = store.read(["session/scheduler/"]).records
            for session in (decode(Session, record.value) for record in records):
                found[session.policy].append(session.name)
        finally:
            store.close()
    except FlowosError:
        return None
    return found


def policy_named(name: str) -> "Policy":
    """Return the installed policy of a name; what others have written is tried first.

    Raises:
        UnknownName: There is none.
        SpecError: It cannot be loaded, is no scheduler, or breaks a law.
    """
    plugin = plugin_named(name)
    if plugin.package == OURS:
        return load(plugin)  # its own tests have tried it
    return load(plugin, _laws)


def _laws(policy: "Policy") -> list[Any]:
    from flowos.testing.schedulers import check_policy

    return [*check_policy(policy)]
