"""Why does a slice wait, and what would help?"""

from typing import Final

import click

from flowos_cli import render
from flowos_cli.commands.completion import live
from flowos_cli.commands.plugins import policy_of
from flowos_cli.commands.slice import find, slice_arguments
from flowos_cli.output import Listing, Output, now, one_of, output_options, tenant_option
from flowos_cli.render import Column, Item
from flowos_cli.wiring import Where, where_options


@click.command()
@slice_arguments()
@click.option(
    "--why-not",
    "engine",
    default="",
    metavar="ENGINE",
    help="Why this engine is not used.",
    shell_complete=live("engine"),
)
@tenant_option
@output_options(watch=False)
@where_options
def explain(name: str, engine: str, tenant: str, out: Output, where: Where) -> int:
    """Why a slice waits, what is left after each step of the search, and what would help.

    \b
    flowos explain train-42
    flowos explain train-42 --why-not n3/gpu0
    """
    from flowos.model import keys
    from flowos.model.life import phase_in
    from flowos.model.slice import Phase
    from flowos.runtime.explained import explained
    from flowos.runtime.shown import SLICES as FOLLOWED
    from flowos.runtime.shown import view_of

    store = where.store()
    try:
        identifier = find(store, name, tenant)
        view = view_of(store, [*keys.INVENTORY, *FOLLOWED, "grant/", "observed/", "rule/"])
        if engine and engine not in view.cell.engines:
            near = [e for e in view.cell.engines if e.startswith(engine)]
            engine = one_of(engine, near, "engine", "'flowos engine ls' lists all")
        waits = phase_in(view, identifier) is Phase.PENDING
        policy = policy_of(view.slices[identifier].value.spec.served_by) if waits else None
        shown = explained(view, identifier, now=now(), why_not_engine=engine, policy=policy)
    finally:
        store.close()
    out.put_one(_EXPLAINED, shown, _explanation)
    return 0


_EXPLAINED: Final = Listing(
    columns=(
        Column("name", lambda e: e["name"]),
        Column("phase", lambda e: e["phase"], styled="="),
        Column("reason", lambda e: e["reason"] or "-"),
        Column("sentence", lambda e: e["sentence"]),
    )
)


def _explanation(item: Item) -> list[str]:
    colour, width = render.has_colour(), render.terminal_width()
    title = f"{item['tenant']}/{item['name']} is {item['phase']}"
    if item["reason"]:
        title += f": {item['reason']}"
    lines = [render.paint(title, "title", colour=colour)]
    if item["sentence"]:
        lines += render.wrap(item["sentence"], width, "  ")
    if item["affinity"]:
        lines += ["", render.paint("these engines, or others", "title", colour=colour)]
        for account in item["affinity"]:
            lines += render.wrap(account["sentence"], width, "  ")
    if item["funnel"]:
        lines += ["", render.paint("engines left after each step", "title", colour=colour)]
        most = max(step["engines"] for step in item["funnel"]) or 1
        rows = [
            {**step, "bar": render.bar([(step["engines"], "held")], most, 20, colour=False)}
            for step in item["funnel"]
        ]
        lines += render.table(_FUNNEL, rows, headers=False, colour=colour, width=width, indent="  ")
    if item["unblock"]:
        lines += ["", render.paint("what would help", "title", colour=colour)]
        lines += render.table(
            _UNBLOCK, item["unblock"], headers=False, colour=colour, width=width, indent="  "
        )
    if item.get("why_not"):
        engine, why = item["why_not"]["engine"], item["why_not"]["sentence"]
        lines += ["", render.paint(f"why not {engine}", "title", colour=colour)]
        lines += render.wrap(why, width, "  ")
    return lines


def _eta(seconds_left: float | None) -> str:
    if seconds_left is None:
        return ""
    return f"in about {render.age(seconds_left)}" if seconds_left else "at once"


_FUNNEL: Final = (
    Column("step", lambda f: f["step"]),
    Column("engines", lambda f: f"{f['engines']:,}", right=True),
    Column("bar", lambda f: f["bar"], styled="held"),
)
_UNBLOCK: Final = (
    Column("do", lambda u: u["do"]),
    Column("eta", lambda u: _eta(u["eta_s"])),
)
