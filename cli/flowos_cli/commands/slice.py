"""`flowos slice ...`: from the request to its end."""

import random
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import click

from flowos.model.errors import SpecError, UnknownName
from flowos_cli import render
from flowos_cli.commands.completion import live
from flowos_cli.lazy import LazyGroup
from flowos_cli.output import (
    Listing,
    Output,
    now,
    one_of,
    output_options,
    say,
    seconds,
    show_list,
    show_one,
    tenant_option,
    write,
)
from flowos_cli.render import Column, Item
from flowos_cli.wiring import Where, where_options

if TYPE_CHECKING:
    from flowos.model.protocols import CellStore
    from flowos.model.slice import Run, SliceSpec
    from flowos.model.view import CellView
    from flowos.runtime.client import CellClient

TENANT_DEFAULT: Final = "default"
HINT: Final = "'flowos ls --all' lists all"
WAITS: Final = ("allocated", "running", "done")
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
        Column("engines", lambda s: s["asked"] or "-"),
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


def _ran(item: Item) -> str:
    if item["started_at"] is None:
        return "-"
    return render.age((item["ended_at"] or now()) - item["started_at"])


@click.group(
    "slice",
    cls=LazyGroup,
    short_help="Submit, list, wait for and end slices.",
    table={
        word: (f"{__name__}:{attribute}", text)
        for word, attribute, text in (
            ("submit", "submit", "Ask for a slice."),
            ("ls", "ls", "List slices."),
            ("show", "show", "Everything about a slice."),
            ("wait", "wait", "Wait until a slice is allocated, running or done."),
            ("events", "events", "What happened to a slice, step by step."),
            ("cancel", "cancel", "End slices."),
            ("hold", "hold", "Keep pending slices from being placed."),
            ("release", "release", "Let held slices be placed again."),
        )
    }
    | {"explain": ("flowos_cli.commands.explain:explain", "Why a slice waits.")},
)
def slice_() -> None:
    """Submit, list, wait for and end slices: engines and circuits that belong together."""


# --------------------------------------------------------------------------------------- submit


class _WithCommand(click.Command):
    """Takes what stands behind `--` as a command to run, untouched."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Split the line at `--`."""
        if "--" in args:
            at = args.index("--")
            ctx.meta["flowos.command"] = tuple(args[at + 1 :])
            args = args[:at]
        return super().parse_args(ctx, args)


@click.command(
    cls=_WithCommand,
    options_metavar="[OPTIONS]",
    epilog="A command behind -- runs once per engine.",
)
@click.argument("file", required=False, metavar="[FILE|-]")
@click.option("--engines", default="", metavar="gpu=8,fpga=2", help="Engines by kind.")
@click.option(
    "--circuits",
    type=click.Choice(["ring", "all", "star"]),
    default=None,
    help="How they are joined.",
)
@click.option("--name", default="", help="Default: the kind and five letters.")
@click.option("--policy", default="", metavar="P", help="Who schedules it; default batch.")
@click.option(
    "--tenant",
    envvar="FLOWOS_TENANT",
    default="",
    metavar="T",
    help="Whose it is; default 'default'.",
)
@click.option("--priority", type=int, default=None, metavar="N", help="Higher goes first.")
@click.option(
    "--run-for", callback=seconds, default=None, metavar="10s", help="Simulate a program this long."
)
@click.option("--wait", "until", type=click.Choice(WAITS), default=None, help="Return only then.")
@click.option(
    "--timeout", callback=seconds, default=None, metavar="S", help="Give up waiting after this."
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Write nothing: show what it would change. Status 0, also if it would wait; 3 if never.",
)
@output_options(watch=False, form="name")
@where_options
@click.pass_context
def submit(
    context: click.Context,
    file: str | None,
    engines: str,
    circuits: str | None,
    name: str,
    policy: str,
    tenant: str,
    priority: int | None,
    run_for: float | None,
    until: str | None,
    timeout: float | None,
    dry_run: bool,
    out: Output,
    where: Where,
) -> int:
    """Ask for a slice, described by a file or by options, and print its name.

    \b
    flowos submit train.yaml
    flowos submit --engines gpu=8 --circuits ring --run-for 10s --wait done
    flowos submit --engines gpu=2 -- python train.py
    """  # noqa: D301  # click's mark for lines that stay as they are
    wishes = _Wishes(
        name=name,
        policy=policy,
        tenant=tenant,
        tenant_said=context.get_parameter_source("tenant")
        is click.core.ParameterSource.COMMANDLINE,
        priority=priority,
        run=_run_of(run_for, context.meta.get("flowos.command")),
    )
    if timeout is not None and until is None:
        raise click.UsageError("--timeout is how long --wait waits: say what to wait for")
    if dry_run and until is not None:
        raise click.UsageError("--dry-run submits nothing that could be waited for")
    specs = _specs(file, engines, circuits or "", wishes)
    with where.client() as client:
        if dry_run:
            from flowos_cli.commands.foresee import foretell

            return foretell(client, specs, out)
        client.submit(specs)
        _say_what_is_simulated(client.store, specs)
        if out.form == "name":
            # Before waiting: whoever is interrupted knows what to cancel.
            write(spec.name for spec in specs)
            sys.stdout.flush()
        try:
            return _wait_all(client, [spec.id for spec in specs], until, timeout) if until else 0
        finally:
            # Also for who waited in vain: it is in the queue all the same.
            if out.form != "name":
                _put_submitted(client.store, [spec.id for spec in specs], out)


def _say_what_is_simulated(store: "CellStore", specs: "Sequence[SliceSpec]") -> None:
    """Do not let anybody take a simulated end for that of a command."""
    from flowos.runtime.shown import view_of

    if not any(spec.run.command for spec in specs):
        return
    agents = view_of(store, ["session/agents/"]).sessions.values()
    if any(entry.value.policy == "sim" for entry in agents):
        say("note: this cell's agents are simulated: the command is not run, its end is made up")


def _put_submitted(store: "CellStore", identifiers: list[str], out: Output) -> None:
    from flowos.runtime.shown import view_of

    view = view_of(store)
    items = _items(view, store, [i for i in identifiers if i in view.slices], circuits=True)
    if len(items) == 1:
        out.put_one(SLICES, items[0], _details)
    else:
        out.put(SLICES, items)


@dataclass(frozen=True)
class _Wishes:
    """What options say, over what a file says."""

    name: str
    policy: str
    tenant: str
    tenant_said: bool
    priority: int | None
    run: "Run | None"


def _run_of(run_for: float | None, command: tuple[str, ...] | None) -> "Run | None":
    from flowos.model.slice import Run

    if run_for is not None and command:
        raise click.UsageError("--run-for simulates a program: leave it or the command out")
    if command is not None and not command:
        raise click.UsageError("no command stands behind --")
    if run_for is not None:
        if run_for <= 0:
            raise click.UsageError("--run-for must be longer than nothing")
        return Run(for_seconds=run_for)
    return Run(command=command) if command else None


def _specs(file: str | None, engines: str, circuits: str, wishes: _Wishes) -> "list[SliceSpec]":
    from flowos.documents.slice_file import Defaults, parse_slice, slice_from_options
    from flowos.documents.text import read_text
    from flowos.model.slice import Run

    defaults = Defaults(
        name=wishes.name,
        tenant=wishes.tenant or TENANT_DEFAULT,
        policy=wishes.policy or "batch",
        priority=wishes.priority or 0,
        run=wishes.run or Run(),
    )
    if file is None:
        if not engines:
            raise click.UsageError("say what for: a FILE, - for standard input, or --engines gpu=8")
        rng = random.SystemRandom()
        return [slice_from_options(engines, circuits, name=wishes.name, defaults=defaults, rng=rng)]
    if engines or circuits:
        raise click.UsageError("a slice comes from a FILE or from --engines, not from both")
    text = _standard_input() if file == "-" else read_text(file)
    specs = parse_slice(text, file, defaults)
    if wishes.name and len(specs) > 1:
        raise click.UsageError(f"--name names one slice, {file} describes {len(specs)}")
    # What is said on the command line goes before what the file says.
    said: dict[str, Any] = {"name": wishes.name, "policy": wishes.policy, "run": wishes.run}
    said |= {"tenant": wishes.tenant if wishes.tenant_said else ""}
    changes: dict[str, Any] = {field: value for field, value in said.items() if value}
    if wishes.priority is not None:
        changes["priority"] = wishes.priority
    return [replace(spec, **changes) for spec in specs]


def _standard_input() -> str:
    try:
        return sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SpecError(f"byte {error.start} is not UTF-8", where="standard input") from None


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
@click.option("--policy", default="", metavar="P", help="Only those of this policy.")
@output_options()
@where_options
def ls(
    everything: bool,
    tenant: str,
    phases: tuple[str, ...],
    policy: str,
    out: Output,
    where: Where,
) -> int:
    """List slices in the order of the queue: those that live, with --all the ended too."""
    from flowos.runtime.shown import SLICES as FOLLOWED
    from flowos.runtime.shown import in_queue_order

    def make(view: "CellView", store: "CellStore") -> list[Item]:
        ended_too = everything or any(phase in ENDED for phase in phases)
        names = []
        for identifier in in_queue_order(view):
            slice_ = view.slices[identifier].value
            if (
                slice_.spec.tenant == (tenant or slice_.spec.tenant)
                and slice_.spec.policy == (policy or slice_.spec.policy)
                and (ended_too or slice_.end is None)
            ):
                names.append(identifier)
        if tenant and not names and not store.read([f"tenant/{tenant}"]).records:
            raise UnknownName(f"there is no tenant '{tenant}': 'flowos tenant ls' names them")
        # Kind and model are in the inventory; tables do without.
        items = _items(view, store if not out.draws and out.form != "name" else None, names)
        return [item for item in items if not phases or item["phase"] in phases]

    return show_list(where, out, SLICES, FOLLOWED, make)


def _items(
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
    start = text if "/" in text else f"{tenant or TENANT_DEFAULT}/{text}"
    found = _ended_by_name(store, start)
    if start in found:
        return start
    if not tenant and "/" not in text:
        # A whole name elsewhere is meant rather than the start of one here.
        everywhere = _ended_by_name(store, "")
        plain = {n: n.partition("/")[2] for n in everywhere}
        whole = {n: ended for n, ended in everywhere.items() if plain[n] == text}
        begun = {n: ended for n, ended in everywhere.items() if plain[n].startswith(text)}
        found = whole or found or begun
    if living and len(found) > 1:
        found = {n: ended for n, ended in found.items() if not ended} or found
    return one_of(text, list(found), "slice", HINT)


def _ended_by_name(store: "CellStore", start: str) -> dict[str, bool]:
    """Return the slices whose "tenant/name" starts so, and whether each has ended."""
    return {
        record.key.partition("/")[2]: b'"end":{' in record.value
        for record in store.read([f"slice/{start}"]).records
    }


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
    """Everything about a slice."""
    from flowos.runtime.shown import SLICES as FOLLOWED

    known: list[str] = []

    def make(view: "CellView", store: "CellStore") -> Item:
        if not known:
            known.append(find(store, name, tenant))
        if known[0] not in view.slices:
            raise UnknownName(f"there is no slice {known[0]}: {HINT}")
        return _items(view, store, known, circuits=True)[0]

    return show_one(where, out, SLICES, FOLLOWED, make, _details)


def _details(item: Item) -> list[str]:
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
            ("asked", item["asked"]),
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


# ----------------------------------------------------------------------------------------- wait


@click.command()
@slice_arguments()
@click.option(
    "--for", "until", type=click.Choice(WAITS), default="done", show_default=True, help="What for."
)
@click.option("--timeout", callback=seconds, default=None, metavar="S", help="Give up after this.")
@tenant_option
@where_options
def wait(name: str, until: str, timeout: float | None, tenant: str, where: Where) -> int:
    """Wait until a slice is allocated, running, or done; status 1 if it failed or was cancelled."""
    with where.client() as client:
        return _wait_all(client, [find(client.store, name, tenant)], until, timeout)


def _wait_all(
    client: "CellClient", identifiers: Sequence[str], until: str, timeout: float | None
) -> int:
    """Wait for each, within one time in all; return the status to end with."""
    import time

    start = time.monotonic()
    code = 0
    left = timeout
    for identifier in identifiers:
        view = client.wait(identifier, until, timeout_seconds=left, changed=_teller(identifier))
        left = None if timeout is None else max(0.0, timeout - (time.monotonic() - start))
        end = view.slices[identifier].value.end
        if end is not None and end.phase != "done":
            said = f": {end.message}" if end.message else ""
            say(f"slice {identifier} {_PAST[end.phase]}{said}")
            code = 1
    return code


_PAST: Final[Mapping[str, str]] = {"failed": "failed", "cancelled": "was cancelled"}


def _teller(identifier: str) -> "Callable[[CellView], None]":
    """Return what tells people how far a slice is, on a terminal."""
    told = ""
    seen = sys.stderr.isatty()

    def tell(view: "CellView") -> None:
        nonlocal told
        sentence = _how_far(view, identifier)
        if seen and sentence and sentence != told:
            say(f"{identifier}: {sentence}")
            told = sentence

    return tell


def _how_far(view: "CellView", identifier: str) -> str:
    """Return how far a slice is, without its orders and reports."""
    entry, placed = view.slices.get(identifier), view.placements.get(identifier)
    waiting = view.reasons.get(identifier)
    if entry is None or entry.value.end is not None:
        return ""
    if placed is None:
        return f"waits, {waiting.value.sentence}" if waiting else "waits"
    if placed.value.ending is not None:
        return "is being given back"
    count = sum(map(len, placed.value.engines.values()))
    what = f"{count} {'engine' if count == 1 else 'engines'}"
    if placed.value.started_at is not None:
        return f"runs on {what}"
    return f"has {what}, which are being made ready"


# --------------------------------------------------------------------------------------- events

_EVENTS: Final = Listing(
    columns=(
        Column("revision", lambda e: str(e["revision"]), right=True),
        Column("time", lambda e: _clock(e["at"])),
        Column("phase", lambda e: e["phase"], styled="="),
        Column("reason", lambda e: e["reason"] or "-"),
        Column("what", lambda e: e["what"]),
    ),
    name="revision",
    empty="nothing is kept of what happened to it",
)
_EVENT_WIDTHS: Final = (8, 8, 12, 24)


def _clock(at: float | None) -> str:
    from datetime import datetime

    return datetime.fromtimestamp(at).astimezone().strftime("%H:%M:%S") if at else "-"


@click.command()
@slice_arguments()
@click.option("-f", "--follow", is_flag=True, help="Go on until it ends.")
@tenant_option
@output_options(watch=False)
@where_options
def events(name: str, follow: bool, tenant: str, out: Output, where: Where) -> int:
    """What happened to a slice, as far as the store's history is kept."""
    from flowos.runtime.story import told

    store = where.store()
    try:
        identifier = find(store, name, tenant)
        story = told(store, identifier, follow=follow)
        if not follow:
            out.put(_EVENTS, list(story))
            return 0
        first = True
        for event in story:
            _put_event(out, event, first=first)
            first = False
    except KeyboardInterrupt:
        pass
    finally:
        store.close()
    return 0


def _put_event(out: Output, event: Item, *, first: bool) -> None:
    """Write one event of a story that goes on: columns have their widths beforehand."""
    if not out.draws:
        lines = replace(out, form="jsonl" if out.form == "json" else out.form)
        text = lines.lines(_EVENTS, [event])
        write(["---", *text] if out.form == "yaml" else text)
    else:
        columns = list(_EVENTS.columns)
        if first and out.headers:
            titles = [c.name.upper() for c in columns]
            write([_padded(titles, titles)])
        texts = [column.text(event) for column in columns]
        colour = render.has_colour()
        texts[2] = render.paint(texts[2], texts[2], colour=colour)
        write([_padded(texts, [column.text(event) for column in columns])])
    sys.stdout.flush()


def _padded(texts: Sequence[str], bare: Sequence[str]) -> str:
    widths = (*_EVENT_WIDTHS, 0)
    padded = [
        " " * (w - len(b)) + t if i == 0 else t + " " * (w - len(b))
        for i, (t, b, w) in enumerate(zip(texts, bare, widths, strict=True))
    ]
    return "  ".join(padded).rstrip()


# ------------------------------------------------------------------------------- user's wishes


@click.command()
@slice_arguments(several=True)
@click.option(
    "--all", "everything", is_flag=True, help="All that live; of --tenant, if one is said."
)
@tenant_option
@where_options
def cancel(names: tuple[str, ...], everything: bool, tenant: str, where: Where) -> int:
    """End slices: what they hold is given back, and they never come back."""
    if bool(names) == everything:
        raise click.UsageError("name the slices to cancel, or say --all")
    with where.client() as client:
        if everything:
            known = _ended_by_name(client.store, f"{tenant}/" if tenant else "")
            found = [n for n, ended in known.items() if not ended]
            if not found:
                say("no slice lives: nothing to cancel")
        else:
            # All names first: where one is wrong, nothing is cancelled.
            found = [find(client.store, name, tenant, living=True) for name in names]
        for identifier in dict.fromkeys(found):
            if not client.cancel(identifier):
                say(f"slice {identifier} has ended already")
    return 0


@click.command()
@slice_arguments(several=True)
@tenant_option
@where_options
def hold(names: tuple[str, ...], tenant: str, where: Where) -> int:
    """Keep pending slices from being placed; those that are placed go on."""
    return _wish(names, tenant, where, held=True)


@click.command()
@slice_arguments(several=True)
@tenant_option
@where_options
def release(names: tuple[str, ...], tenant: str, where: Where) -> int:
    """Let held slices be placed again."""
    return _wish(names, tenant, where, held=False)


def _wish(names: tuple[str, ...], tenant: str, where: Where, *, held: bool) -> int:
    if not names:
        raise click.UsageError("name at least one slice")
    with where.client() as client:
        found = [find(client.store, name, tenant, living=True) for name in names]
        gone = [n for n in found if _ended_by_name(client.store, n).get(n)]
        if gone:
            raise SpecError(f"slice {gone[0]} has ended", hint="only slices that live can be held")
        for identifier in dict.fromkeys(found):
            (client.hold if held else client.unhold)(identifier)
            if held and any(
                record.key == f"placement/{identifier}"
                for record in client.store.read([f"placement/{identifier}"]).records
            ):
                say(f"slice {identifier} is placed: it would be held when it is queued again")
    return 0
