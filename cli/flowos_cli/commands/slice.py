"""`flowos slice ...`: which slices are there, and which of them does a name mean?"""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from flowos.model.errors import UnknownName
from flowos_cli import render
from flowos_cli.commands.completion import live, policies
from flowos_cli.lazy import LazyGroup
from flowos_cli.output import (
    Listing,
    Output,
    now,
    one_of,
    output_options,
    show_list,
    show_one,
    tenant_option,
)
from flowos_cli.render import Column, Item
from flowos_cli.wiring import Where, where_options

if TYPE_CHECKING:
    from flowos.model.protocols import CellStore
    from flowos.model.view import CellView

TENANT_DEFAULT: Final = "default"
HINT: Final = "'flowos ls --all' lists all"
PHASES: Final = (
    "pending", "committed", "provisioning", "running", "degraded", "repairing", "draining",
    "cleaning", "done", "failed", "cancelled",
)  # fmt: skip
ENDED: Final = ("done", "failed", "cancelled")

SLICES: Final = Listing(
    columns=(
        Column("name", lambda s: s["name"]),
        Column("tenant", lambda s: s["tenant"]),
        Column("phase", lambda s: s["phase"], styled="="),
        Column("policy", lambda s: s["policy"]),
        Column("prio", lambda s: str(s["priority"]), right=True),
        Column("engines", lambda s: _asked(s) or "-"),
        Column("watts", lambda s: str(s["watts"]) if s["watts"] else "-", wide=True, right=True),
        Column("attempts", lambda s: str(s["attempts"]), wide=True, right=True),
        Column("nodes", lambda s: render.cut(_nodes(s)) or "-", wide=True),
        Column("ran", lambda s: _ran(s), wide=True, right=True),
        Column("age", lambda s: render.age(now() - s["submitted_at"]), right=True),
        Column("reason", lambda s: s["reason"] or ("" if s["phase"] != "failed" else s["message"])),
        Column("message", lambda s: s["message"], wide=True),
    ),
    empty="no slices: 'flowos submit --engines gpu=1' makes one, 'flowos ls --all' lists ended ones",
)


def _nodes(item: Item) -> list[str]:
    return list(dict.fromkeys(e["node"] for e in (*item["engines"], *item["hosts"])))


def _asked(item: Item) -> str:
    """Return "gpu=8", or "gpu=8 (has 4)" of a slice that began with a part of it."""
    text: str = item["asked"]
    return f"{text} (has {len(item['engines'])})" if item["lacks"] else text


def _ran(item: Item) -> str:
    if item["started_at"] is None:
        return "-"
    return render.age((item["ended_at"] or now()) - item["started_at"])


@click.group(
    "slice",
    cls=LazyGroup,
    short_help="Submit, list, wait for and end slices.",
    table={
        word: (f"flowos_cli.commands.{file}:{word}", text)
        for file, word, text in (
            ("submit", "submit", "Ask for a slice, or for an array of them."),
            ("slice", "ls", "List slices."),
            ("slice", "show", "Everything about a slice."),
            ("wait", "wait", "Wait until a slice is allocated, running or done."),
            ("events", "events", "What happened to a slice, step by step."),
            ("logs", "logs", "What the tasks of a slice have written."),
            ("history", "history", "Who held what, and for how long."),
            ("wishes", "cancel", "End slices."),
            ("wishes", "hold", "Keep pending slices from being placed."),
            ("wishes", "release", "Let held slices be placed again."),
            ("update", "update", "Change priority, size or time limit of slices."),
            ("explain", "explain", "Why a slice waits."),
        )
    },
)
def slice_() -> None:
    """Submit, list, wait for and end slices: engines and circuits that belong together."""


# ------------------------------------------------------------------------------------------ ls


@click.command()
@click.option("-a", "--all", "everything", is_flag=True, help="Ended ones too.")
@tenant_option
@click.option(
    "--phase",
    "phases",
    multiple=True,
    type=click.Choice(PHASES),
    metavar="PHASE",
    help="Only those in this phase; may be said more than once.",
)
@click.option(
    "--policy",
    default="",
    metavar="P",
    shell_complete=policies,
    help="Only those of this policy.",
)
@click.option(
    "--members", is_flag=True, help="A line for each slice of an array, also for those that wait."
)
@output_options()
@where_options
def ls(
    everything: bool,
    tenant: str,
    phases: tuple[str, ...],
    policy: str,
    members: bool,
    out: Output,
    where: Where,
) -> int:
    """List slices in the order of the queue: those that live, with --all the ended too.

    In tables, slices of an array that wait for the same reason share a line.

    \b
    flowos ls --all --tenant vision
    flowos ls --phase pending -w
    """
    from flowos.runtime.shown import SLICES as FOLLOWED
    from flowos.runtime.shown import in_queue_order

    def make(view: "CellView", store: "CellStore") -> list[Item]:
        ended_too = everything or any(phase in ENDED for phase in phases)
        names = []
        for identifier in in_queue_order(view):
            slice_ = view.slices[identifier].value
            if (
                slice_.spec.tenant == (tenant or slice_.spec.tenant)
                and slice_.spec.served_by == (policy or slice_.spec.served_by)
                and (ended_too or slice_.end is None)
            ):
                names.append(identifier)
        if tenant and not names and not store.read([f"tenant/{tenant}"]).records:
            raise UnknownName(f"there is no tenant '{tenant}': 'flowos tenant ls' names them")
        # Kind and model are in the inventory; tables do without.
        items = items_of(view, store if not out.draws and out.form != "name" else None, names)
        items = [item for item in items if not phases or item["phase"] in phases]
        return gathered(items) if out.draws and not members else items

    return show_list(where, out, SLICES, FOLLOWED, make)


def gathered(items: Iterable[Item]) -> list[Item]:
    """Return items with one in place of all slices of an array that wait for the same reason."""
    together: dict[object, list[Item]] = {}
    for item in items:
        same: object = (item["tenant"], item["name"])
        if item["array"] and item["phase"] == "pending":
            same = (item["tenant"], item["array"]["of"], item["reason"], item["held"])
        together.setdefault(same, []).append(item)
    return [some[0] if len(some) == 1 else _as_one(some) for some in together.values()]


def _as_one(items: Sequence[Item]) -> Item:
    indexes = sorted(item["array"]["index"] for item in items)
    return {**items[0], "name": f"{items[0]['array']['of']}-[{spans(indexes)}]"}


def spans(indexes: Sequence[int]) -> str:
    """Return sorted indexes as people write them: "0-3,7"."""
    found: list[list[int]] = []
    for index in indexes:
        if found and index == found[-1][1] + 1:
            found[-1][1] = index
        else:
            found.append([index, index])
    return ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in found)


def items_of(
    view: "CellView",
    store: "CellStore | None",
    identifiers: Sequence[str],
    *,
    circuits: bool = False,
) -> list[Item]:
    """Return slices as scripts see them; with a store, kinds and models are read from it."""
    from flowos.model import keys
    from flowos.model.transaction import Change
    from flowos.runtime.shown import add_engines, links_of, placement_of, read_keys, slice_shown

    if store is not None:
        placed = [e for n in identifiers if (e := placement_of(view, n))]
        add_engines(
            store, view, (e for p in placed for role in p.value.engines.values() for e in role)
        )
        if circuits and (links := links_of(view, identifiers)):
            for record in read_keys(store, (keys.inventory("link", link) for link in links)):
                view.apply(Change(*record))
    return [slice_shown(view, identifier, circuits=circuits) for identifier in identifiers]


# ------------------------------------------------------------------------------------ one slice


def find(store: "CellStore", text: str, tenant: str = "", *, living: bool = False) -> str:
    """Return "tenant/name" of the one slice that a text names or begins to name.

    A plain name is looked for in the tenant that options name, else in `default`, else in all.

    Args:
        store: Where.
        text: "name", "tenant/name", or the start of one.
        tenant: "" = not said.
        living: Whether, of several that it begins, those that ended don't count.

    Raises:
        UnknownName: There is none.
        SpecError: There are several.
    """
    if not text:
        raise UnknownName(f"a slice without a name there is not: {HINT}")
    return one_of(text, list(_meant(store, text, tenant, living=living)), "slice", HINT)


def find_all(store: "CellStore", text: str, tenant: str = "", *, living: bool = False) -> list[str]:
    """Return the one slice that a text means, or all slices of the array that it means.

    Args:
        store: Where.
        text: As for `find`, or the name of an array, or its start.
        tenant: "" = not said.
        living: Whether slices that ended don't count; those of an array only where any lives.

    Raises:
        UnknownName: There is none.
        SpecError: There are several, not all of one array.
    """
    found = _meant(store, text, tenant, living=living) if text else {}
    arrays = {known.array for known in found.values()}
    if len(arrays) == 1 and len(found) > 1 and "" not in arrays:
        return sorted(found, key=lambda name: int(name.rpartition("-")[2]))
    return [one_of(text, list(found), "slice", HINT)]


class _Known(NamedTuple):
    """What a slice's record says at a glance: whether it has ended, and of which array it is."""

    ended: bool
    array: str


def _meant(store: "CellStore", text: str, tenant: str, *, living: bool) -> dict[str, _Known]:
    """Return the slices that a text may mean: one, all of an array, or all that it begins."""
    start = text if "/" in text else f"{tenant or TENANT_DEFAULT}/{text}"
    found = _known(store, start)
    if start in found:
        return {start: found[start]}
    array = {n: known for n, known in found.items() if known.array == start}
    if not array and not tenant and "/" not in text:
        # A whole name elsewhere is meant rather than the start of one here.
        everywhere = _known(store, "")
        plain = {n: n.partition("/")[2] for n in everywhere}
        whole = {n: known for n, known in everywhere.items() if plain[n] == text}
        array = {
            n: known
            for n, known in everywhere.items()
            if not whole and known.array.partition("/")[2] == text
        }
        begun = {n: known for n, known in everywhere.items() if plain[n].startswith(text)}
        found = whole or found or begun
    found = array or found
    if living and len(found) > 1:
        found = {n: known for n, known in found.items() if not known.ended} or found
    return found


def _known(store: "CellStore", start: str) -> dict[str, _Known]:
    """Return the slices whose "tenant/name" starts so."""
    known = {}
    for record in store.read([f"slice/{start}"]).records:
        name = record.key.partition("/")[2]
        # Of ten thousand records few are read whole; these words stand nowhere else in one.
        array = name.rpartition("-")[0] if b'"array":{"array":"' in record.value else ""
        known[name] = _Known(b'"end":{' in record.value, array)
    return known


def ended_by_name(store: "CellStore", start: str) -> dict[str, bool]:
    """Return the slices whose "tenant/name" starts so, and whether each has ended."""
    return {name: known.ended for name, known in _known(store, start).items()}


def slice_arguments(*, several: bool = False) -> Callable[[Any], Any]:
    """Add the argument that names a slice, or several."""
    if several:
        return click.argument("names", nargs=-1, metavar="NAME...", shell_complete=live("slice"))
    return click.argument("name", metavar="NAME", shell_complete=live("slice"))


@click.command()
@slice_arguments()
@tenant_option
@output_options()
@where_options
def show(name: str, tenant: str, out: Output, where: Where) -> int:
    """Everything about a slice, or about each one of an array.

    \b
    flowos slice show train-42
    flowos slice show vision/train-42 -o json
    """
    from flowos.runtime.shown import SLICES as FOLLOWED

    store = where.store()
    try:
        known = find_all(store, name, tenant)
    finally:
        store.close()

    def make_all(view: "CellView", store: "CellStore") -> list[Item]:
        there = [identifier for identifier in known if identifier in view.slices]
        if not there:
            raise UnknownName(f"there is no slice {known[0]}: {HINT}")
        return items_of(view, store, there, circuits=True)

    if len(known) > 1:
        return show_list(where, out, SLICES, FOLLOWED, make_all)
    return show_one(
        where, out, SLICES, FOLLOWED, lambda view, store: make_all(view, store)[0], details
    )


def details(item: Item) -> list[str]:
    """Draw a slice for people."""
    colour, width = render.has_colour(), render.terminal_width()
    phase = render.paint(item["phase"], item["phase"], colour=colour)
    if item["reason"]:
        phase += f", {item['reason']}"
    code = item["exit_code"]
    lines = render.pairs(
        [
            ("slice", f"{item['tenant']}/{item['name']}"),
            ("phase", phase),
            ("message", item["message"]),
            ("exit code", "" if code is None else str(code)),
            ("policy", f"{item['policy']}, priority {item['priority']}"),
            ("asked", _asked(item)),
            ("array", _array(item)),
            ("waits for", ", ".join(f"{d['on']} ({d['once']})" for d in item["depends_on"])),
            ("time limit", render.age(item["time_limit_s"]) if item["time_limit_s"] else ""),
            ("submitted", _ago(item["submitted_at"])),
            ("started", _ago(item["started_at"])),
            ("ended", _ago(item["ended_at"])),
            (
                "attempts",
                f"{item['attempts']}" + (f", by {item['scheduler']}" if item["scheduler"] else ""),
            ),
            ("watts", render.watts(item["watts"]) if item["watts"] else ""),
            ("revision", str(item["revision"])),
        ],
        colour=colour,
        width=width,
    )
    for title, columns, rows in (
        ("engines", _ENGINES, item["engines"]),
        ("hosts", _HOSTS, item["hosts"]),
        ("data", _DATA, item["data"]),
        ("circuits", _CIRCUITS, item.get("circuits", ())),
    ):
        if rows:
            table = render.table(columns, rows, colour=colour, width=width, indent="  ")
            lines += ["", render.paint(f"{title} ({len(rows)})", "title", colour=colour), *table]
    return lines


def _array(item: Item) -> str:
    array = item["array"]
    if not array:
        return ""
    at_once = f", {array['parallel']} at once" if array["parallel"] else ""
    return f"{array['of']}, index {array['index']} of {array['count']}{at_once}"


def _ago(at: float | None) -> str:
    return f"{render.age(now() - at)} ago" if at else ""


_ENGINES: Final = (
    Column("id", lambda e: e["id"]),
    Column("kind", lambda e: e["kind"] or "-"),
    Column("model", lambda e: e["model"] or "-"),
    Column("role", lambda e: e["role"]),
    Column("share", lambda e: f"{e['share']:g}", right=True),
    Column("bitstream", lambda e: (e["bitstream"] or "-").partition("@")[0]),
)
_HOSTS: Final = (
    Column("node", lambda h: h["node"]),
    Column("role", lambda h: h["role"]),
    Column("cpu", lambda h: f"{h['cpu_millis'] / 1000:g}", right=True),
    Column("memory", lambda h: render.amount(h["memory_bytes"]), right=True),
    Column("devices", lambda h: str(len(h["devices"])) if h["devices"] else "-", right=True),
)
_DATA: Final = (
    Column("at", lambda d: d["at"]),
    Column("bytes", lambda d: f"{'~' if d['estimated'] else ''}{render.amount(d['bytes'])}"),
    Column("to", lambda d: d["to"]),
    Column("circuit", lambda d: (d["circuit"] or "-").rpartition("/")[2]),
)
_CIRCUITS: Final = (
    Column("id", lambda c: c["id"].rpartition("/")[2]),
    Column("from", lambda c: render.cut(c["sources"])),
    Column("to", lambda c: render.cut(c["to"])),
    Column("hops", lambda c: str(c["hops"]), right=True),
    Column("lanes", lambda c: str(c["lanes"]), right=True),
    Column("latency", lambda c: render.nanoseconds(c["latency_ns"]), right=True),
    Column("over", lambda c: " ".join(t for t in c["path"] if t not in (*c["sources"], *c["to"]))),
)
