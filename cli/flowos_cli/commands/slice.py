"""`flowos slice ...`: from the request to its end, and why it waits."""

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
    API_VERSION,
    Listing,
    Output,
    compact,
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
            ("explain", "explain", "Why a slice waits."),
        )
    },
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


@click.command(cls=_WithCommand, options_metavar="[OPTIONS]", epilog="A command behind -- runs once per engine.")
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
    "--tenant", envvar="FLOWOS_TENANT", default="", metavar="T", help="Whose it is; default 'default'."
)
@click.option("--priority", type=int, default=None, metavar="N", help="Higher goes first.")
@click.option(
    "--run-for", callback=seconds, default=None, metavar="10s", help="Simulate a program this long."
)
@click.option("--wait", "until", type=click.Choice(WAITS), default=None, help="Return only then.")
@click.option(
    "--timeout", callback=seconds, default=None, metavar="S", help="Give up waiting after this."
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
    out: Output,
    where: Where,
) -> int:
    """Ask for a slice, described by a file or by options, and print its name.

    \b
    flowos submit train.yaml
    flowos submit --engines gpu=8 --circuits ring --run-for 10s --wait done
    flowos submit --engines gpu=2 -- python train.py
    """
    wishes = _Wishes(
        name=name,
        policy=policy,
        tenant=tenant,
        tenant_said=context.get_parameter_source("tenant") is click.core.ParameterSource.COMMANDLINE,
        priority=priority,
        run=_run_of(run_for, context.meta.get("flowos.command")),
    )
    if timeout is not None and until is None:
        raise click.UsageError("--timeout is how long --wait waits: say what to wait for")
    specs = _specs(file, engines, circuits or "", wishes)
    from flowos.runtime.shown import view_of

    with where.client() as client:
        client.submit(specs)
        names = [{"name": spec.name, "tenant": spec.tenant} for spec in specs]
        # Before waiting: whoever is interrupted knows what to cancel.
        if out.form == "name":
            write(str(shown["name"]) for shown in names)
            sys.stdout.flush()
        code = 0
        if until is not None:
            code = _wait_all(client, [spec.id for spec in specs], until, timeout)
        if out.form != "name":
            view = view_of(client.store)
            known = [spec.id for spec in specs if spec.id in view.slices]
            items = _items(view, client.store, known, circuits=True)
            if len(items) == 1:
                out.put_one(SLICES, items[0], _details)
            else:
                out.put(SLICES, items)
    return code


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
        return [
            slice_from_options(engines, circuits, name=wishes.name, defaults=defaults, rng=rng)
        ]
    if engines or circuits:
        raise click.UsageError("a slice comes from a FILE or from --engines, not from both")
    text = click.get_text_stream("stdin").read() if file == "-" else read_text(file)
    specs = parse_slice(text, file, defaults)
    if wishes.name and len(specs) > 1:
        raise click.UsageError(f"--name names one slice, {file} describes {len(specs)}")
    # What is said on the command line goes before what the file says.
    said: dict[str, Any] = {"name": wishes.name, "policy": wishes.policy, "run": wishes.run}
    said |= {"tenant": wishes.tenant if wishes.tenant_said else ""}
    changes = {field: value for field, value in said.items() if value}
    if wishes.priority is not None:
        changes["priority"] = wishes.priority
    return [replace(spec, **changes) for spec in specs]


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
        names = [
            identifier
            for identifier in in_queue_order(view)
            if (spec := view.slices[identifier].value.spec)
            and (not tenant or spec.tenant == tenant)
            and (not policy or spec.policy == policy)
        ]
        if not (everything or any(phase in ENDED for phase in phases)):
            names = [n for n in names if view.slices[n].value.end is None]
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

    Raises:
        UnknownName: There is none.
        SpecError: There are several.
    """
    within = tenant or TENANT_DEFAULT
    if not text:
        raise UnknownName(f"there is no slice without a name: {HINT}")
    start = text if "/" in text else f"{within}/{text}"
    found = _names(store, f"slice/{start}", living=False)
    if start in found:
        return start
    if not found and not tenant and "/" not in text:
        everywhere = _names(store, "slice/", living=False)
        exact = [n for n in everywhere if n.partition("/")[2] == text]
        found = exact or [n for n in everywhere if n.partition("/")[2].startswith(text)]
    if living and len(found) > 1:
        found = {n: ended for n, ended in found.items() if not ended} or found  # type: ignore[union-attr]
    return one_of(start, list(found), "slice", HINT)


def _names(store: "CellStore", prefix: str, *, living: bool) -> dict[str, bool]:
    """Return the slices under a prefix and whether each has ended."""
    found = {
        record.key.partition("/")[2]: b'"end":{' in record.value
        for record in store.read([prefix]).records
    }
    return {n: ended for n, ended in found.items() if not (living and ended)}
