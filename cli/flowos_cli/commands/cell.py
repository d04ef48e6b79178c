"""`flowos cell ...`: load a cell, look at it, write it down, and verify its shared state."""

import json
import re
from typing import TYPE_CHECKING, Final

import click

from flowos.model.errors import SpecError, UnknownName
from flowos_cli import render
from flowos_cli.lazy import LazyGroup
from flowos_cli.output import (
    API_VERSION,
    Listing,
    Output,
    output_options,
    say,
    to_yaml,
)
from flowos_cli.render import Column, Item
from flowos_cli.wiring import Where, where_options

if TYPE_CHECKING:
    from flowos.model.cell import Cell
    from flowos.model.protocols import CellStore

NO_CELL: Final = "the store holds no cell of this name: load one with 'flowos cell init'"


@click.group(
    cls=LazyGroup,
    short_help="Load, show, verify and export a cell.",
    table={
        "init": (f"{__name__}:init", "Load a cell from a file or a preset."),
        "show": (f"{__name__}:show", "What the cell is made of."),
        "verify": ("flowos_cli.commands.verify:verify", "Does the shared state keep its laws?"),
        "presets": (f"{__name__}:presets", "Cells that need no file."),
        "export": (f"{__name__}:export", "Write the cell as a file that 'init' reads."),
        "roles": (
            "flowos_cli.commands.roles:roles",
            "Who may read and write what, by etcd's users.",
        ),
        "planner": (
            "flowos_cli.commands.planner:planner",
            "What all planners are told: weights, speeds, a joule's worth.",
        ),
        "policies": ("flowos_cli.commands.policies:policies", "Who serves which slices."),
        "capacity": ("flowos_cli.commands.foresee:capacity", "How many such slices would fit."),
        "defrag": ("flowos_cli.commands.foresee:defrag", "Which moves would make room for a gang."),
        "backup": ("flowos_cli.commands.backup:backup", "Write all of the cell's state to a file."),
        "restore": ("flowos_cli.commands.backup:restore", "Bring a cell back from a backup."),
    },
)
def cell() -> None:
    """Load, show, verify and export a cell: all that is run as one pool."""


# ----------------------------------------------------------------------------------------- init


@click.command()
@click.argument("source", metavar="FILE|PRESET")
@click.option("--replace", is_flag=True, help="Put it in the place of a cell that nobody uses.")
@click.option(
    "--fabric",
    default="",
    metavar="rack|nodes:K",
    help="For CSV files: join nodes by a leaf a rack, or a leaf for each K nodes.",
)
@where_options
def init(source: str, replace: bool, fabric: str, where: Where) -> int:
    """Load a cell from a file (YAML, JSON, CSV) or a preset; 'cell presets' lists these."""
    from flowos.documents.presets import file_or_preset
    from flowos.runtime.loading import load_cell_into

    # A wrong file is said before the store is asked for anything.
    loaded = file_or_preset(source, fabric=fabric)
    store = where.store()
    try:
        _refuse_half_restored(store)
        with render.progress_bar("loading") as progress:
            load_cell_into(store, loaded, source=source, progress=progress, replace=replace)
    finally:
        store.close()
    counts = (
        (len(loaded.engines), "engine"),
        (len(loaded.nodes), "node"),
        (len(loaded.switches), "switch"),
        (len(loaded.links), "link"),
    )
    say(f"loaded {', '.join(_counted(count, what) for count, what in counts)}")
    return 0


def _refuse_half_restored(store: "CellStore") -> None:
    """Don't load a cell over the slices and placements of one that is being brought back."""
    from flowos.runtime.backup import is_being_restored

    if is_being_restored(store):
        raise SpecError(
            "a restore of this cell was begun and is not complete",
            hint="wait for it, or give 'flowos cell restore FILE' again",
        )


def _counted(count: int, what: str) -> str:
    more = "es" if what.endswith("ch") else "s"
    return f"{count:,} {what}{'' if count == 1 else more}"


# ----------------------------------------------------------------------------------------- show


@click.command()
@output_options(watch=False)
@where_options
def show(out: Output, where: Where) -> int:
    """What the cell is made of."""
    from flowos.model import keys

    store = where.store()
    try:
        reading = store.read(["cell/", "domain/"])
        records = {record.key: json.loads(record.value) for record in reading.records}
    finally:
        store.close()
    if keys.INFO not in records:
        raise UnknownName(NO_CELL)
    info, totals = records[keys.INFO], records[keys.TOTALS]
    shown = {
        "apiVersion": API_VERSION,
        "name": info.get("name", ""),
        "source": info.get("source", ""),
        "engines": totals["engines"],
        "nodes": totals["nodes"],
        "switches": totals["switches"],
        "links": totals["links"],
        "kinds": {
            kind: {
                "engines": figures["engines"],
                "models": {m: f["engines"] for m, f in figures["models"].items()},
            }
            for kind, figures in totals["kinds"].items()
        },
        "domains": sorted(key.partition("/")[2] for key in records if key.startswith("domain/")),
        "bitstreams": sorted(totals["bitstreams"]),
        "tenants": totals["tenants"],
        "revision": reading.revision,
        "generation": info.get("generation", 0),
        "restored_at": info.get("restoredAt"),
    }
    out.put_one(_CELLS, shown, _details)
    return 0


_CELLS: Final = Listing(
    columns=(
        Column("name", lambda c: c["name"]),
        Column("engines", lambda c: str(c["engines"]), right=True),
        Column("nodes", lambda c: str(c["nodes"]), right=True),
        Column("switches", lambda c: str(c["switches"]), right=True),
        Column("links", lambda c: str(c["links"]), right=True),
    )
)


def _details(item: Item) -> list[str]:
    colour, width = render.has_colour(), render.terminal_width()
    lines = render.pairs(
        [
            ("cell", item["name"]),
            ("made of", item["source"]),
            ("nodes", f"{item['nodes']:,}"),
            ("switches", f"{item['switches']:,}"),
            ("links", f"{item['links']:,}"),
            ("domains", render.cut(item["domains"], 8)),
            ("bitstreams", render.cut(item["bitstreams"], 8)),
            ("tenants", render.cut(item["tenants"], 8)),
            ("revision", str(item["revision"])),
            ("restored", f"{item['generation']} times" if item["generation"] else ""),
        ],
        colour=colour,
        width=width,
    )
    rows = [
        {"kind": kind, "model": model or "-", "engines": count}
        for kind, figures in item["kinds"].items()
        for model, count in figures["models"].items()
    ]
    columns = (
        Column("kind", lambda r: r["kind"]),
        Column("model", lambda r: r["model"]),
        Column("engines", lambda r: f"{r['engines']:,}", right=True),
    )
    title = render.paint(f"engines ({item['engines']:,})", "title", colour=colour)
    return [
        *lines,
        "",
        title,
        *render.table(columns, rows, colour=colour, width=width, indent="  "),
    ]


# -------------------------------------------------------------------------------------- presets


@click.command()
@output_options(watch=False)
def presets(out: Output) -> int:
    """Cells that need no file."""
    from flowos.documents.presets import PRESETS

    items = [
        {"name": name, "form": preset.form, "about": preset.about}
        for name, preset in PRESETS.items()
    ]
    out.put(_PRESETS, items)
    return 0


_PRESETS: Final = Listing(
    columns=(
        Column("write", lambda p: _short_form(p["name"], p["form"])),
        Column("about", lambda p: p["about"]),
        Column("form", lambda p: p["form"], wide=True),
    )
)


def _short_form(name: str, form: str) -> str:
    """Return "torus:XxYxZ" of a form that says more in words."""
    written = re.search(rf"{name}:[A-Zx]+", form)
    return written[0] if written else name


# --------------------------------------------------------------------------------------- export


@click.command()
@click.option(
    "-o",
    "--output",
    "form",
    type=click.Choice(["yaml", "json"]),
    default="yaml",
    show_default=True,
    help="JSON is much faster for large cells.",
)
@where_options
def export(form: str, where: Where) -> int:
    """Write the cell as a file that 'cell init' reads back to the same cell."""
    from flowos.documents.cell_file import cell_json, dump_cell

    store = where.store()
    try:
        loaded = _stored(store)
    finally:
        store.close()
    click.echo(cell_json(loaded) if form == "json" else to_yaml(dump_cell(loaded)), nl=False)
    return 0


def _stored(store: "CellStore") -> "Cell":
    """Return the cell that the store holds."""
    from flowos.model import keys
    from flowos.runtime.shown import view_of

    view = view_of(store, keys.INVENTORY)
    info = [r.value for r in store.read([keys.INFO]).records if r.key == keys.INFO]
    view.cell.name = json.loads(info[0]).get("name", "main") if info else "main"
    return view.cell
