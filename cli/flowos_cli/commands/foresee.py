"""`flowos cell capacity`, `flowos cell defrag --plan`, `flowos submit --dry-run`: what would be."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import click

from flowos.model.errors import NeverPlaceable
from flowos_cli import render
from flowos_cli.commands.completion import live
from flowos_cli.commands.plugins import policy_of
from flowos_cli.output import Listing, Output, now, output_options, tenant_option
from flowos_cli.render import Column, Item
from flowos_cli.wiring import Where, where_options

if TYPE_CHECKING:
    from flowos.model.protocols import CellStore
    from flowos.model.slice import SliceSpec
    from flowos.model.view import CellView
    from flowos.runtime.client import CellClient

together_option = click.option(
    "--together",
    type=click.Choice(["node", "switch", "any"]),
    is_flag=False,
    flag_value="switch",
    default="any",
    metavar="[node|switch]",
    help="All engines of a kind on one node, or on one switch (said alone: one switch).",
)


def _planners_view(store: "CellStore", *, slices: bool = False) -> "CellView":
    from flowos.model import keys
    from flowos.runtime.shown import view_of

    more = ["slice/", "session/", "reason/"] if slices else []
    prefixes = [*keys.INVENTORY, "placement/", "observed/", "grant/", "rule/"]
    return view_of(store, [*prefixes, *more])


def _spec(engines: str, together: str) -> "SliceSpec":
    from flowos.documents.slice_options import slice_from_options

    (spec,) = slice_from_options(engines, name="gang")
    return replace(spec, together=dict.fromkeys(spec.engines, together))


# ------------------------------------------------------------------------------------- capacity


@click.command()
@click.option("--engines", required=True, metavar="gpu=8", help="What one of them asks for.")
@together_option
@output_options(watch=False)
@where_options
def capacity(engines: str, together: str, out: Output, where: Where) -> int:
    """How many such slices fit now, and in the empty cell, and what limits them.

    \b
    flowos cell capacity --engines gpu=8 --together node
    flowos cell capacity --engines gpu=4,fpga=1@sum-f32 -o json
    """
    from flowos.runtime.foreseen import capacity_shown

    spec = _spec(engines, together)
    store = where.store()
    try:
        shown = capacity_shown(_planners_view(store), spec, engines)
    finally:
        store.close()
    out.put_one(_CAPACITY, shown, _capacity_drawn)
    return 0


_CAPACITY: Final = Listing(
    columns=(
        Column("engines", lambda c: c["engines"]),
        Column("together", lambda c: c["together"]),
        Column("now", lambda c: f"{c['now']:,}", right=True),
        Column("empty", lambda c: f"{c['empty']:,}", right=True),
    ),
    name="engines",
)
_PLACES_MAX: Final = 20  # lines of one table; JSON has them all


def _capacity_drawn(item: Item) -> list[str]:
    colour, width = render.has_colour(), render.terminal_width()
    where = "" if item["together"] == "any" else f" on one {item['together']}"
    title = (
        f"{item['engines']}{where}: {item['now']:,} fit now, {item['empty']:,} in the empty cell"
    )
    lines = [render.paint(title, "title", colour=colour)]
    scarcest = next(role for role in item["roles"] if role["role"] == item["limit"])
    # Of what the cell has none at all it says little to call it scarce.
    sentence = item["sentence"]
    limit = f"{item['limit']} is scarcest: {sentence}" if scarcest["engines"] else sentence
    lines += render.wrap(limit, width, "  ")
    for plural in ("leaves", "racks", "pods"):
        rows = item[plural]
        if not rows or (len(rows) == 1 and plural != "leaves"):
            continue
        columns = (
            Column(plural, lambda r: r["name"]),
            Column("now", lambda r: f"{r['now']:,}", right=True),
            Column("empty", lambda r: f"{r['empty']:,}", right=True),
        )
        table = rows[:_PLACES_MAX]
        lines += ["", *render.table(columns, table, colour=colour, width=width, indent="  ")]
        if len(rows) > _PLACES_MAX:
            lines.append(f"  and {len(rows) - _PLACES_MAX} more: -o json has them all")
    return lines


# --------------------------------------------------------------------------------------- defrag


@click.command()
@click.argument("name", required=False, metavar="[NAME]", shell_complete=live("slice"))
@click.option("--plan", is_flag=True, help="Only say what would move: nothing else is done.")
@click.option("--engines", default="", metavar="gpu=8", help="The gang, where NAME is no slice.")
@together_option
@tenant_option
@output_options(watch=False)
@where_options
def defrag(
    name: str | None,
    plan: bool,
    engines: str,
    together: str,
    tenant: str,
    out: Output,
    where: Where,
) -> int:
    """Which slices would have to move so that a gang, or the slice NAME that waits, can be placed.

    It moves nothing: the moves and their cost are printed.
    """
    from flowos.runtime.foreseen import defrag_shown
    from flowos_cli.commands.slice import find

    if not plan:
        raise click.UsageError("slices are not moved by this command: say --plan to see what would")
    if bool(name) == bool(engines):
        raise click.UsageError("name a slice that waits, or say what for with --engines gpu=8")
    store = where.store()
    try:
        spec = _spec(engines, together) if engines else None
        view = _planners_view(store, slices=True)
        if spec is None:
            identifier = find(store, name or "", tenant)
            if identifier in view.placements:
                raise click.UsageError(f"slice {identifier} is placed: name one that waits")
            spec = view.slices[identifier].value.spec
        shown = defrag_shown(view, spec)
    finally:
        store.close()
    out.put_one(_DEFRAG, shown, _defrag_drawn)
    return 0


_DEFRAG: Final = Listing(
    columns=(
        Column("name", lambda d: d["name"]),
        Column("possible", lambda d: "yes" if d["possible"] else "no"),
        Column("engines", lambda d: str(d["cost"]["engines"]), right=True),
        Column("slices", lambda d: str(d["cost"]["slices"]), right=True),
        Column("circuits", lambda d: str(d["cost"]["circuits"]), right=True),
        Column("bitstreams", lambda d: str(d["cost"]["bitstreams"]), right=True),
    )
)


def _defrag_drawn(item: Item) -> list[str]:
    colour, width = render.has_colour(), render.terminal_width()
    lines = render.wrap(item["sentence"], width, "")
    if item["moves"]:
        columns = (
            Column("slice", lambda m: m["slice"]),
            Column("role", lambda m: m["role"]),
            Column("from", lambda m: m["from"]),
            Column("to", lambda m: m["to"]),
        )
        lines += [
            "",
            *render.table(columns, item["moves"], colour=colour, width=width, indent="  "),
        ]
        cost = item["cost"]
        loads = f"{cost['bitstreams']} bitstreams loaded"
        if cost["seconds"]:
            loads += f" in {cost['seconds']:g} s"
        lines += ["", f"  {cost['circuits']} circuits made anew, {loads}"]
    if item["gang"]:
        lines += render.wrap(
            f"{item['name']} then goes to {render.cut(item['gang'], 8)}", width, "  "
        )
    return lines


# -------------------------------------------------------------------------------------- dry run


def foretell(client: "CellClient", specs: "Sequence[SliceSpec]", out: Output) -> int:
    """Print what a submission would change; write nothing.

    Raises:
        NeverPlaceable: One of them can never be placed.
    """
    from flowos.model.assignment import assigned
    from flowos.model.slice import Slice
    from flowos.model.view import Entry
    from flowos.runtime.foreseen import preview

    client.check(specs)
    view = _planners_view(client.store, slices=True)
    specs = [spec if spec.policy else assigned(spec, view.policies) for spec in specs]
    policies = {name: policy_of(name) for name in dict.fromkeys(s.served_by for s in specs)}
    for spec in specs:  # they may wait for each other
        view.slices.setdefault(spec.id, Entry(Slice(spec), 0, 0))
    items = [preview(view, spec, policies[spec.served_by], now=now()) for spec in specs]
    for item in items:
        if item["reason"] == "Infeasible":
            raise NeverPlaceable(
                f"slice {item['name']} can never be placed on this cell: {item['sentence']}"
            )
    if out.form == "name":
        out = replace(out, form="table")
    if len(items) == 1:
        out.put_one(_FORETOLD, items[0], _foretold_drawn)
    else:
        out.put(_FORETOLD, items)
    return 0


_FORETOLD: Final = Listing(
    columns=(
        Column("name", lambda p: p["name"]),
        Column("now", lambda p: "placed" if p["placeable"] else "waits"),
        Column("reason", lambda p: p["reason"] or ""),
        Column("what", lambda p: p["sentence"]),
    )
)


def _foretold_drawn(item: Item) -> list[str]:
    colour, width = render.has_colour(), render.terminal_width()
    if not item["placeable"]:
        title = f"{item['tenant']}/{item['name']} would wait: {item['reason']}"
        lines = [render.paint(title, "title", colour=colour)]
        return [*lines, *render.wrap(item["sentence"], width, "  ")]
    lines = [render.paint(f"{item['tenant']}/{item['name']}", "title", colour=colour)]
    lines += render.wrap(item["sentence"], width, "  ")
    for engine in item["engines"]:
        notes = ["wakes"] if engine["woken"] else []
        if engine["loads"]:
            notes.append(f"loads {engine['bitstream'].partition('@')[0]}")
        share = "" if engine["share"] == 1 else f" {engine['share']:g}"
        note = f"  {', '.join(notes)}" if notes else ""
        lines.append(f"  + engine  {engine['id']}{share}  {engine['role']}{note}")
    lines += [f"  + host    {host['node']}  {host['role']}" for host in item["hosts"]]
    for circuit in item["circuits"]:
        ends = f"{render.cut(circuit['sources'])} -> {render.cut(circuit['to'])}"
        wide = "" if circuit["lanes"] == 1 else f", {circuit['lanes']} lanes"
        lines.append(f"  + circuit {ends}  {circuit['hops']} hops{wide}")
    lines.append(f"  = circuits of others, untouched: {item['circuits_untouched']}")
    if item["lanes_claimed"]:
        lines.append(f"  lanes between switches: {item['lanes_claimed']} more are taken")
    lines.append(f"  watts when busy: {item['watts']}")
    return lines
