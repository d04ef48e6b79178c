"""`flowos engine ...`: what can be held, by whom it is, and taking it out of use."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import click

from flowos.model.errors import FlowosError, SpecError, StillContended, UnknownName
from flowos_cli import render
from flowos_cli.commands.completion import live
from flowos_cli.lazy import LazyGroup
from flowos_cli.output import (
    Listing,
    Output,
    named,
    now,
    one_of,
    output_options,
    say,
    seconds,
    show_list,
    show_one,
)
from flowos_cli.render import Column, Item
from flowos_cli.wiring import Where, where_options

if TYPE_CHECKING:
    from flowos.model.cell import Cell
    from flowos.model.protocols import CellStore
    from flowos.model.view import CellView
    from flowos.protocol.proposal import Proposal

STATES: Final = ("free", "held", "shared", "off", "drained", "reserved", "quarantined")
HINT: Final = "'flowos engine ls' lists all"
TRIES_MAX: Final = 20

ENGINES: Final = Listing(
    columns=(
        Column("id", lambda e: e["id"]),
        Column("kind", lambda e: e["kind"]),
        Column("model", lambda e: e["model"] or "-"),
        Column("state", lambda e: e["state"], styled="="),
        Column("by", lambda e: _by(e)),
        Column("free_share", lambda e: f"{e['free_share']:g}", wide=True, right=True),
        Column("power", lambda e: e["power"]),
        Column("watts", lambda e: str(e["watts"]), right=True),
        Column("memory", lambda e: render.amount(e["memory_bytes"]), wide=True, right=True),
        Column("bitstream", lambda e: (e["bitstream"] or "-").partition("@")[0]),
        Column("why", lambda e: e["why"], wide=True),
    ),
    name="id",
    empty="no engines: see what was asked for, or load a cell with 'flowos cell init'",
)


def _by(item: Item) -> str:
    by = render.cut(item["by"], 2) if item["state"] in ("held", "shared") else ""
    return f"{by} (being drained)".lstrip() if item["draining"] else by or "-"


@click.group(
    cls=LazyGroup,
    short_help="List, drain and undrain engines.",
    table={
        "ls": (f"{__name__}:ls", "List engines."),
        "show": (f"{__name__}:show", "Everything about an engine."),
        "drain": (f"{__name__}:drain", "Take engines, nodes, switches or links out of use."),
        "undrain": (f"{__name__}:undrain", "Put them back to use."),
    },
)
def engine() -> None:
    """List, drain and undrain engines: what slices hold."""


@click.command()
@click.option("--kind", default="", metavar="K", help="Only engines of this kind.")
@click.option("--model", default="", metavar="M", help="Only engines of this model.")
@click.option("--node", default="", metavar="N", help="Only engines of this node.")
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice(STATES),
    metavar="STATE",
    help="Only engines in this state; may be said more than once.",
)
@output_options()
@where_options
def ls(kind: str, model: str, node: str, states: tuple[str, ...], out: Output, where: Where) -> int:
    """List engines with their state, and who holds them."""
    from flowos.runtime.shown import engine_shown

    def make(view: "CellView", _store: "CellStore") -> list[Item]:
        chosen = sorted(
            (
                engine.id
                for engine in view.cell.engines.values()
                if engine.kind == (kind or engine.kind)
                and engine.model == (model or engine.model)
                and engine.node == (node or engine.node)
            ),
            key=by_number,
        )
        shown = (engine_shown(view, identifier) for identifier in chosen)
        return [item for item in shown if not states or item["state"] in states]

    # Of a large cell only the part that is meant is read.
    engines = f"engine/{node}/" if node else "engine/"
    return show_list(where, out, ENGINES, (engines, "placement/", "observed/"), make)


def by_number(name: str) -> list[tuple[int, str]]:
    """Return what sorts n2 before n10."""
    import re

    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


@click.command()
@click.argument("name", metavar="NODE/ENGINE", shell_complete=live("engine"))
@output_options()
@where_options
def show(name: str, out: Output, where: Where) -> int:
    """Everything about an engine."""
    from flowos.runtime.shown import engine_shown

    known: list[str] = []

    def make(view: "CellView", store: "CellStore") -> Item:
        if not known:
            known.append(named(store, "engine", name, HINT))
        if known[0] not in view.cell.engines:
            raise UnknownName(f"there is no engine {known[0]}: {HINT}")
        return engine_shown(view, known[0])

    # The part of the name that was written narrows the family down.
    prefixes = (f"engine/{name}", "placement/", f"observed/{name}")
    return show_one(where, out, ENGINES, prefixes, make, _details)


def _details(item: Item) -> list[str]:
    colour, width = render.has_colour(), render.terminal_width()
    state = render.paint(item["state"], item["state"], colour=colour)
    holders = [f"{n} ({share:g})" for n, share in item["shares"].items()] or item["by"]
    return render.pairs(
        [
            ("engine", item["id"]),
            ("kind", f"{item['kind']} {item['model']}".rstrip()),
            ("state", state + (", being drained" if item["draining"] else "")),
            ("by", ", ".join(holders)),
            ("why", item["why"]),
            ("free", f"{item['free_share']:g}" + (" (can be shared)" if item["shareable"] else "")),
            ("power", f"{item['power']}, {render.watts(item['watts'])} {_idle_and_busy(item)}"),
            ("memory", render.amount(item["memory_bytes"])),
            ("bitstream", item["bitstream"] or ""),
            ("attributes", ", ".join(f"{k}={v}" for k, v in item["attributes"].items())),
        ],
        colour=colour,
        width=width,
    )  # fmt: skip


def _idle_and_busy(item: Item) -> str:
    return f"(idle {item['watts_idle']}, busy {item['watts_busy']})"


# -------------------------------------------------------------------------------------- drains


@click.command()
@click.argument(
    "names", nargs=-1, metavar="ENGINE|NODE|SWITCH|LINK...", shell_complete=live("engine")
)
@click.option("--reason", default="", metavar="R", help="For people.")
@click.option(
    "--deadline",
    callback=seconds,
    default=None,
    metavar="T",
    help="Take it over from who still holds it after this; 0s = now. Default: wait.",
)
@where_options
def drain(names: tuple[str, ...], reason: str, deadline: float | None, where: Where) -> int:
    """Take engines, nodes, switches or links out of use.

    An engine that is held is waited for, or taken over at the deadline; its slice is queued again.
    With a node go its engines. Through a switch or a link nothing new is planned; what runs there
    runs on.
    """
    if not names:
        raise click.UsageError("name what to drain: an engine, a node, a switch or a link")
    store = where.store()
    try:
        operator = _Operator(store, names, takes=deadline == 0)
        units = operator.units(names)
        if deadline is not None and (
            lasting := [u for u in units if u.startswith(("switch/", "link/"))]
        ):
            raise SpecError(
                f"{lasting[0].partition('/')[2]} cannot be taken over",
                where="--deadline",
                hint="drain it without, and cancel the slices whose circuits cross it",
            )
        deadline_at = None if deadline is None else now() + deadline
        for unit in units:
            if operator.waits(unit) and deadline is not None:
                # The deadline of a drain that waits is changed by beginning it anew.
                operator.undrain(f"~drain/{unit}")
            operator.drain(unit, reason, deadline_at, take=deadline == 0)
            if operator.waits(unit) is None and deadline == 0:
                # What is just being given back cannot be taken over; the controller takes it then.
                operator.drain(unit, reason, deadline_at, take=False)
            say(operator.told(unit, deadline))
    finally:
        store.close()
    return 0


@click.command()
@click.argument(
    "names", nargs=-1, metavar="ENGINE|NODE|SWITCH|LINK...", shell_complete=live("engine")
)
@click.option(
    "--dirty", is_flag=True, help="A quarantined node has been cleaned by hand, or is off."
)
@where_options
def undrain(names: tuple[str, ...], dirty: bool, where: Where) -> int:
    """Put what was drained back to use; --dirty frees what a dead node has left."""
    if not names:
        raise click.UsageError("name what to put back: an engine, a node, a switch or a link")
    store = where.store()
    try:
        operator = _Operator(store, names)
        units = operator.units(names)
        view = operator.view()
        found = [f"~drain/{unit}" for unit in units if f"~drain/{unit}" in view.placements]
        left = _quarantines(view, units)
        if left and not dirty:
            place = left[0].split("/")[1]
            raise SpecError(
                f"{place} is quarantined",
                hint="its agent's return frees it; --dirty says that it was cleaned by hand, or "
                "has no power",
            )
        for identifier in (*left, *found):  # a drain may wait for a quarantine of its place
            operator.undrain(identifier)
            if identifier in operator.view().placements:
                raise FlowosError(
                    f"{identifier} waits for what it was taken from to be clean: try again then"
                )
        if not (found or left):
            say(f"{', '.join(names)}: not drained")
    finally:
        store.close()
    return 0


def _quarantines(view: "CellView", units: list[str]) -> list[str]:
    """Return what is quarantined at the nodes and switches among the units, the place itself last."""
    places = {u.partition("/")[2] for u in units if u.startswith(("node/", "switch/"))}
    found = [
        n for n in view.placements if n.startswith("~quarantine/") and n.split("/")[1] in places
    ]
    return sorted(found, key=lambda n: (n.endswith("/out-of-service"), n))


class _Operator:
    """Takes an operator's steps one by one, each on the placements as they are then.

    The inventory is read once, since no step compares it; all of it only where units are taken
    over from slices, whose orders then change.
    """

    def __init__(self, store: "CellStore", names: tuple[str, ...], *, takes: bool = False) -> None:
        from flowos.model import keys
        from flowos.runtime.shown import view_of

        named_ones = [f"{f}/{n}" for f in ("engine", "node", "switch", "link") for n in names]
        self._store = store
        self._cell: Cell = view_of(store, keys.INVENTORY if takes else named_ones).cell

    def units(self, names: tuple[str, ...]) -> list[str]:
        """Return the units that names mean; all names are looked up before anything is done."""
        found: list[str] = []
        for name in names:
            unit = self._unit(name)
            found.append(unit)
            if unit.startswith("node/"):
                node = unit.partition("/")[2]
                found += [f"engine/{e}" for e in self._cell.engines_of.get(node, ())]
        return list(dict.fromkeys(found))

    def _unit(self, name: str) -> str:
        families: tuple[tuple[str, dict[str, Any]], ...] = (
            ("engine", self._cell.engines),
            ("node", self._cell.nodes),
            ("switch", self._cell.switches),
            ("link", self._cell.links),
        )
        for family, table in families:
            if name in table:
                return f"{family}/{name}"
        begun = {
            n: family for family, table in families for n in table if name and n.startswith(name)
        }
        whole = one_of(name, list(begun), "engine, node, switch or link", HINT)
        return f"{begun[whole]}/{whole}"

    def view(self) -> "CellView":
        """Return the inventory and the placements as they are."""
        from flowos.model.view import CellView

        reading = self._store.read(["placement/"])
        view = CellView(cell=self._cell)
        view.load(reading.records)
        view.progressed(reading.revision)
        return view

    def drain(self, unit: str, why: str, deadline_at: float | None, *, take: bool) -> bool:
        """Begin a drain; False where it exists, or the unit cannot be taken."""
        from flowos.protocol import system
        from flowos.runtime.processes import new_attempt

        return self._act(
            lambda view: system.drain(
                view,
                unit,
                attempt=new_attempt(),
                fence=None,
                why=why,
                deadline_at=deadline_at,
                take=take,
            )
        )

    def undrain(self, identifier: str) -> bool:
        """End a drain or a quarantine; False where it is gone, or what it took is not clean yet."""
        from flowos.protocol import system

        quarantine = identifier.startswith("~quarantine/")
        step = system.declare_clean if quarantine else system.undrain

        def proposal(view: "CellView") -> "Proposal | None":
            return step(view, identifier, fence=None) if identifier in view.placements else None

        return self._act(proposal)

    def _act(self, step: "Callable[[CellView], Proposal | None]") -> bool:
        """Commit a step, again where a rival was faster; False where the rules don't allow it."""
        from flowos.model.transaction import Committed

        for _ in range(TRIES_MAX):
            proposal = step(self.view())
            if proposal is None:
                return False
            (outcome,) = self._store.commit([proposal.transaction])
            if isinstance(outcome, Committed):
                return True
        raise StillContended("the cell kept changing: try again")

    def waits(self, unit: str) -> bool | None:
        """Whether a unit's drain still waits; None where there is no drain of it."""
        entry = self.view().placements.get(f"~drain/{unit}")
        return bool(entry.value.wanted) if entry else None

    def told(self, unit: str, deadline: float | None) -> str:
        """Return what people are told of a drain."""
        from flowos.protocol.takeover import holders_of

        view = self.view()
        name = unit.partition("/")[2]
        entry = view.placements.get(f"~drain/{unit}")
        if entry is None:
            holders = holders_of(view, unit)
            return f"{name} is not drained: {', '.join(holders) or 'somebody'} has it"
        if not entry.value.wanted:
            return f"{name} is drained"
        holders = holders_of(view, unit)
        when = "when it is given back"
        if deadline:
            when = f"when it is given back, in {render.age(deadline)} at the latest"
        return f"{name} is held by {', '.join(holders)}: it is drained {when}"
