"""`flowos switch` and `flowos circuit`: what joins engines, and what joins them now."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import click

from flowos.model.errors import UnknownName
from flowos_cli import render
from flowos_cli.commands.completion import live
from flowos_cli.commands.engine import by_number
from flowos_cli.lazy import LazyGroup
from flowos_cli.output import (
    Listing,
    Output,
    one_of,
    output_options,
    show_list,
    show_one,
    tenant_option,
)
from flowos_cli.render import Column, Item
from flowos_cli.wiring import Where, where_options

if TYPE_CHECKING:
    from flowos.model.cell import Cell
    from flowos.model.protocols import CellStore
    from flowos.model.view import CellView

SWITCH_HINT: Final = "'flowos switch ls' lists all"
CIRCUIT_HINT: Final = "'flowos circuit ls' lists all"
FABRIC: Final = ("switch/", "link/", "placement/")

SWITCHES: Final = Listing(
    columns=(
        Column("name", lambda s: s["name"]),
        Column("state", lambda s: s["state"], styled="="),
        Column("tier", lambda s: str(s["tier"]), right=True),
        Column("ports", lambda s: f"{s['ports_used']}/{s['ports'] or '?'}", right=True),
        Column("circuits", lambda s: str(s["circuits"]), right=True),
        Column("aggregators", lambda s: _free(s), right=True),
        Column("functions", lambda s: ", ".join(s["functions"]) or "-"),
        Column("latency", lambda s: render.nanoseconds(s["latency_ns"]), right=True),
        Column("rack", lambda s: s["rack"] or "-"),
        Column("pod", lambda s: s["pod"] or "-", wide=True),
        Column("domain", lambda s: s["domain"] or "-", wide=True),
    ),
    empty="the cell has no switches",
)
CIRCUITS: Final = Listing(
    columns=(
        Column("id", lambda c: c["id"]),
        Column("tenant", lambda c: c["tenant"], wide=True),
        Column("phase", lambda c: c["phase"], styled="="),
        Column("from", lambda c: render.cut(c["sources"])),
        Column("to", lambda c: render.cut(c["to"])),
        Column("hops", lambda c: str(c["hops"]), right=True),
        Column("lanes", lambda c: str(c["lanes"]), right=True),
        Column("latency", lambda c: render.nanoseconds(c["latency_ns"]), right=True),
        Column("aggregate", lambda c: c["aggregate"] or "-", wide=True),
        Column("aggregators", lambda c: _short(c["aggregators"]) or "-", wide=True),
        Column("over", lambda c: _over(c)),
    ),
    name="id",
    empty="no circuits stand: 'flowos submit --engines gpu=4 --circuits ring' makes some",
)


def _free(item: Item) -> str:
    """Return how many aggregators are free, of how many."""
    return f"{item['aggregators_free']}/{item['aggregators']}" if item["aggregators"] else "-"


def _over(item: Item) -> str:
    return " ".join(t for t in item["path"] if t not in (*item["sources"], *item["to"]))


def _short(units: Sequence[str]) -> str:
    """Return aggregators as people call them: "sw0/0, sw1/0"."""
    return ", ".join(unit.partition("/")[2] for unit in units)


@click.group(
    cls=LazyGroup,
    short_help="List switches.",
    table={
        "ls": (f"{__name__}:switch_ls", "List switches."),
        "show": (f"{__name__}:switch_show", "A switch and its links."),
    },
)
def switch() -> None:
    """Switches: non-blocking crossbars of circuits, some with aggregators."""


@click.command("ls")
@output_options()
@where_options
def switch_ls(out: Output, where: Where) -> int:
    """List switches with their ports, circuits and free aggregators."""
    from flowos.runtime.shown import switches_shown

    def make(view: "CellView", _store: "CellStore") -> list[Item]:
        return [*switches_shown(view, sorted(view.cell.switches, key=by_number))]

    return show_list(where, out, SWITCHES, FABRIC, make)


@click.command("show")
@click.argument("name", metavar="NAME", shell_complete=live("switch"))
@output_options()
@where_options
def switch_show(name: str, out: Output, where: Where) -> int:
    """A switch and its links, with how many of their lanes are in use each way."""
    from flowos.runtime.shown import switches_shown

    def make(view: "CellView", _store: "CellStore") -> Item:
        begun = [n for n in view.cell.switches if n.startswith(name)]
        return switches_shown(view, [one_of(name, begun, "switch", SWITCH_HINT)], links=True)[0]

    return show_one(where, out, SWITCHES, FABRIC, make, _switch_details)


def _switch_details(item: Item) -> list[str]:
    colour, width = render.has_colour(), render.terminal_width()
    lines = render.pairs(
        [
            ("switch", item["name"]),
            ("state", render.paint(item["state"], item["state"], colour=colour)),
            ("tier", str(item["tier"])),
            ("ports", f"{item['ports_used']} of {item['ports'] or 'an unknown number'} used"),
            ("circuits", str(item["circuits"])),
            ("aggregators", f"{_free(item)} free, {', '.join(item['functions'])}"
             if item["aggregators"] else ""),
            ("latency", render.nanoseconds(item["latency_ns"])),
            ("rack", item["rack"]),
            ("pod", item["pod"]),
            ("domain", item["domain"]),
        ],
        colour=colour,
        width=width,
    )  # fmt: skip
    if item["aggregators_held"]:
        title = render.paint("aggregators held", "title", colour=colour)
        held = render.table(
            _HELD, item["aggregators_held"], colour=colour, width=width, indent="  "
        )
        lines += ["", title, *held]
    if item["links"]:
        links = sorted(item["links"], key=lambda link: by_number(link["name"]))
        table = render.table(_LINKS, links, colour=colour, width=width, indent="  ")
        lines += ["", render.paint(f"links ({len(links)})", "title", colour=colour), *table]
    return lines


_LINKS: Final = (
    Column("a", lambda link: link["a"]),
    Column("b", lambda link: link["b"]),
    Column("state", lambda link: link["state"], styled="="),
    Column("lanes", lambda link: str(link["lanes"]), right=True),
    Column("a_to_b", lambda link: str(link["lanes_used"]["fwd"]), right=True),
    Column("b_to_a", lambda link: str(link["lanes_used"]["rev"]), right=True),
    Column("rate", lambda link: f"{link['gbps']:g}G", right=True),
    Column("latency", lambda link: render.nanoseconds(link["latency_ns"]), right=True),
)


_HELD: Final = (
    Column("aggregator", lambda held: held["unit"].rpartition("/")[2], right=True),
    Column("holder", lambda held: held["holder"]),
    Column("circuit", lambda held: held["circuit"] or "-"),
    Column("function", lambda held: held["function"] or "-"),
)


@click.group(
    cls=LazyGroup,
    short_help="List circuits that stand.",
    table={
        "ls": (f"{__name__}:circuit_ls", "List circuits."),
        "show": (f"{__name__}:circuit_show", "A circuit and its lanes."),
    },
)
def circuit() -> None:
    """Circuits: lanes from engine to engine that slices hold."""


@click.command("ls")
@tenant_option
@click.option(
    "--slice",
    "of",
    default="",
    metavar="NAME",
    help="Only this slice's.",
    shell_complete=live("slice"),
)
@output_options()
@where_options
def circuit_ls(tenant: str, of: str, out: Output, where: Where) -> int:
    """List the circuits of all slices that are placed."""
    from flowos.runtime.shown import SLICES, circuits_shown

    known: list[str] = []

    def make(view: "CellView", store: "CellStore") -> list[Item]:
        if of and not known:
            from flowos_cli.commands.slice import find

            known.append(find(store, of, tenant))
        return [
            _with_ends(item, view.cell)
            for item in circuits_shown(view)
            if (not tenant or item["tenant"] == tenant)
            and (not known or known[0] == f"{item['tenant']}/{item['slice']}")
        ]

    return show_list(where, out, CIRCUITS, (*SLICES, "link/"), make)


@click.command("show")
@click.argument("name", metavar="SLICE/N")
@tenant_option
@output_options()
@where_options
def circuit_show(name: str, tenant: str, out: Output, where: Where) -> int:
    """A circuit with every link and lane that it crosses."""
    from flowos.runtime.shown import SLICES, circuits_shown

    def make(view: "CellView", _store: "CellStore") -> Item:
        mine = [c for c in circuits_shown(view) if not tenant or c["tenant"] == tenant]
        exact = [c for c in mine if name in (c["id"], f"{c['tenant']}/{c['id']}")]
        begun = exact or [c for c in mine if c["id"].startswith(name)]
        if not begun:
            raise UnknownName(f"there is no circuit '{name}': {CIRCUIT_HINT}")
        if len(begun) > 1:
            one_of("", [f"{c['tenant']}/{c['id']}" for c in begun], "circuit", CIRCUIT_HINT)
        return _with_ends(begun[0], view.cell)

    return show_one(where, out, CIRCUITS, (*SLICES, "link/"), make, _circuit_details)


def _with_ends(circuit: Item, cell: "Cell") -> Item:
    return {**circuit, "arcs": [_ends(arc, cell) for arc in circuit["arcs"]]}


def _ends(arc: Item, cell: "Cell") -> Item:
    """Return an arc with the things that it leads from and to, where its link is known."""
    link = cell.links.get(arc["link"])
    if link is None:
        return {**arc, "from": None, "to": None}
    ends = (link.a_thing, link.b_thing)
    start, end = ends if arc["direction"] == "fwd" else ends[::-1]
    return {**arc, "from": start, "to": end}


def _tree(branches: Sequence[Item], aggregate: str, indent: str = "") -> list[str]:
    """Return the lines below a thing of a circuit that branches."""
    lines: list[str] = []
    for number, branch in enumerate(branches, start=1):
        last = number == len(branches)
        merges = branch["aggregator"]
        note = f"  {aggregate} in aggregator {merges.rpartition('/')[2]}" if merges else ""
        lines.append(f"{indent}{'└─' if last else '├─'} {branch['at']}{note}")
        lines += _tree(branch["branches"], aggregate, indent + ("   " if last else "│  "))
    return lines


def _circuit_details(item: Item) -> list[str]:
    colour, width = render.has_colour(), render.terminal_width()
    lines = render.pairs(
        [
            ("circuit", item["id"]),
            ("slice", f"{item['tenant']}/{item['slice']}"),
            ("phase", render.paint(item["phase"], item["phase"], colour=colour)),
            ("from", ", ".join(item["sources"])),
            ("to", ", ".join(item["to"])),
            ("path", " → ".join(item["path"]) if item["tree"] is None else ""),
            ("hops", str(item["hops"])),
            ("latency", render.nanoseconds(item["latency_ns"])),
            ("aggregate", item["aggregate"] or ""),
            ("aggregators", _short(item["aggregators"])),
        ],
        colour=colour,
        width=width,
    )
    tree = item["tree"]
    if tree is not None:
        title = render.paint("tree", "title", colour=colour)
        branches = _tree(tree["branches"], item["aggregate"] or "", "  ")
        lines += ["", title, f"  {tree['at']}", *branches]
    table = render.table(_ARCS, item["arcs"], colour=colour, width=width, indent="  ")
    return [*lines, "", render.paint("lanes", "title", colour=colour), *table]


_ARCS: Final = (
    Column("link", lambda arc: arc["link"]),
    Column("direction", lambda arc: arc["direction"]),
    Column("lanes", lambda arc: ",".join(map(str, arc["lanes"]))),
)
