"""`flowos submit`: how is a slice asked for, by a file or by options?"""

import random
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flowos.model.errors import SpecError
from flowos_cli.commands.completion import live, policies
from flowos_cli.commands.slice import SLICES, TENANT_DEFAULT, details, items_of
from flowos_cli.commands.wait import WAITS, wait_all
from flowos_cli.output import Output, output_options, say, seconds, write
from flowos_cli.wiring import Where, where_options

if TYPE_CHECKING:
    from flowos.model.protocols import CellStore
    from flowos.model.slice import SliceSpec


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
@click.option(
    "--policy",
    default="",
    metavar="P",
    shell_complete=policies,
    help="Who schedules it; default: the cell's rule.",
)
@click.option(
    "--tenant",
    envvar="FLOWOS_TENANT",
    default="",
    metavar="T",
    shell_complete=live("tenant"),
    help="Whose it is; default 'default'.",
)
@click.option("--priority", type=int, default=None, metavar="N", help="Higher goes first.")
@click.option(
    "--depends-on",
    "depends_on",
    multiple=True,
    metavar="NAME[:done|ended|running]",
    shell_complete=live("slice"),
    help="Wait until that slice, or all of that array, is done; or so far. Several: a,b.",
)
@click.option(
    "--array",
    default="",
    metavar="N|0-99%10",
    help="So many alike, <name>-0 and so on; or with these indexes, ten at once.",
)
@click.option(
    "--min", "least", default="", metavar="N|gpu=N", help="Begin with so many engines of a role."
)
@click.option(
    "--commit",
    "--commit-mode",
    "mode",
    type=click.Choice(["gang", "incremental"]),
    default=None,
    help="All engines at once, or as they come; default: as its policy does.",
)
@click.option(
    "--preemptible/--not-preemptible",
    default=None,
    help="Give way to more important slices, and be queued again.",
)
@click.option(
    "--grace", callback=seconds, default=None, metavar="30s", help="What tasks get to end by then."
)
@click.option(
    "--reservation",
    default="",
    metavar="R",
    shell_complete=live("rule/reservation"),
    help="Whose units it may use.",
)
@click.option(
    "--expected", callback=seconds, default=None, metavar="2h", help="How long it will run."
)
@click.option(
    "--time-limit", callback=seconds, default=None, metavar="4h", help="It is ended after this."
)
@click.option(
    "--run-for", callback=seconds, default=None, metavar="10s", help="Simulate a program this long."
)
@click.option(
    "--env",
    "variables",
    multiple=True,
    metavar="A=B",
    help="What a command finds beside the usual.",
)
@click.option(
    "--launch",
    type=click.Choice(["each", "first"]),
    default=None,
    help="Start a command for each engine, or once, as mpirun wants it.",
)
@click.option(
    "--directory", default="", metavar="D", help="Where a command behind -- starts; default: here."
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
    depends_on: tuple[str, ...],
    array: str,
    least: str,
    mode: str | None,
    preemptible: bool | None,
    grace: float | None,
    reservation: str,
    expected: float | None,
    time_limit: float | None,
    run_for: float | None,
    variables: tuple[str, ...],
    launch: str | None,
    directory: str,
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
    flowos submit --engines gpu=1 --name sweep --array 0-99%10 --depends-on prepare -- ./one.sh
    """
    said = context.get_parameter_source("tenant") is click.core.ParameterSource.COMMANDLINE
    over = {
        "name": name,
        "policy": policy,
        "tenant": tenant if said else "",
        "priority": priority,
        "depends_on": _dependencies(depends_on),
        "array": array,
        "min": _least(least),
        "commit": mode,
        "preemptible": preemptible,
        "grace": _duration(grace),
        "reservation": reservation,
        "expected_duration": _duration(expected),
        "time_limit": _duration(time_limit),
        "run": _run_of(run_for, context.meta.get("flowos.command"), variables, launch, directory),
    }
    if timeout is not None and until is None:
        raise click.UsageError("--timeout is how long --wait waits: say what to wait for")
    if dry_run and until is not None:
        raise click.UsageError("--dry-run submits nothing that could be waited for")
    written = {field: value for field, value in over.items() if value not in (None, "", [], {})}
    specs = _specs(file, engines, circuits or "", tenant or TENANT_DEFAULT, written)
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
            return wait_all(client, [spec.id for spec in specs], until, timeout) if until else 0
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
    items = items_of(view, store, [i for i in identifiers if i in view.slices], circuits=True)
    if len(items) == 1:
        out.put_one(SLICES, items[0], details)
    else:
        out.put(SLICES, items)


def _duration(seconds_: float | None) -> str | None:
    from flowos.documents.quantities import seconds_text

    return None if seconds_ is None else seconds_text(seconds_)


def _dependencies(said: tuple[str, ...]) -> list[dict[str, str]]:
    """Read "a,other/b:ended", said once or several times."""
    found = []
    for part in ",".join(said).split(",") if said else ():
        on, _, once = part.strip().partition(":")
        if not on:
            raise click.UsageError("--depends-on names no slice: write such as prepare, or a:ended")
        found.append({"on": on} | ({"once": once} if once else {}))
    return found


def _least(said: str) -> int | dict[str, int]:
    """Read "4", or "gpu=4,fpga=1" where there are several roles."""
    if said.isdecimal():
        return int(said)
    found = {}
    for part in said.split(",") if said else ():
        role, _, count = part.strip().partition("=")
        if not role or not count.isdecimal():
            raise click.UsageError(f"--min {said} is no number of engines: write 4, or gpu=4")
        found[role] = int(count)
    return found


def _run_of(
    run_for: float | None,
    command: tuple[str, ...] | None,
    variables: tuple[str, ...],
    launch: str | None,
    directory: str,
) -> dict[str, Any] | None:
    if not command and (variables or launch or directory):
        raise click.UsageError("--env, --launch and --directory go with a command behind --")
    if run_for is not None and command:
        raise click.UsageError("--run-for simulates a program: leave it or the command out")
    if command is not None and not command:
        raise click.UsageError("no command stands behind --")
    if run_for is not None:
        if run_for <= 0:
            raise click.UsageError("--run-for must be longer than nothing")
        return {"for": _duration(run_for)}
    if not command:
        return None
    run: dict[str, Any] = {"command": list(command), "directory": directory or str(Path.cwd())}
    for said in variables:
        variable, equals, value = said.partition("=")
        if not equals:
            raise click.UsageError(f"--env {said} has no value: write {said}=1")
        run.setdefault("env", {})[variable] = value
    return run | ({"launch": launch} if launch else {})


def _specs(
    file: str | None, engines: str, circuits: str, tenant: str, over: "Mapping[str, Any]"
) -> "list[SliceSpec]":
    """Return what a file, or options, ask for; what is said on the command line goes first."""
    from flowos.documents.slice_file import Defaults, parse_slice
    from flowos.documents.slice_options import slice_from_options
    from flowos.documents.text import parse, read_text

    defaults = Defaults(tenant=tenant, over=over)
    if file is None:
        if not engines:
            raise click.UsageError("say what for: a FILE, - for standard input, or --engines gpu=8")
        rng = random.SystemRandom()
        name = over.get("name", "")
        return slice_from_options(engines, circuits, name=name, defaults=defaults, rng=rng)
    if engines or circuits:
        raise click.UsageError("a slice comes from a FILE or from --engines, not from both")
    text = _standard_input() if file == "-" else read_text(file)
    if "name" in over and (count := len(parse(text, file))) > 1:
        raise click.UsageError(f"--name names one slice, {file} describes {count}")
    return parse_slice(text, file, defaults)


def _standard_input() -> str:
    try:
        return sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SpecError(f"byte {error.start} is not UTF-8", where="standard input") from None
