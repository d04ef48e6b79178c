"""`flowos simulate`: schedulers in virtual time, over a sweep of what may matter."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from flowos.model.errors import SpecError
from flowos_cli.output import say

if TYPE_CHECKING:
    from flowos.simulation.sweeps.knobs import Form
    from flowos.simulation.sweeps.page import Story
    from flowos.simulation.sweeps.runs import Full, Ground
    from flowos_cli.render import Column

WORKLOADS: Final = ("exponential", "log-normal", "paperlike", "heavy")
WORKLOAD_DEFAULT: Final = "paperlike"
CELL_DEFAULT: Final = "fat-tree:128"
POLICY_DEFAULT: Final = "batch"
INTERRUPTED: Final = 130


class _Command(click.Command):
    """A command whose help ends with a list of what can be set."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the knobs."""
        from flowos.simulation.sweeps.knobs import KNOBS, shown

        def about(name: str) -> str:
            knob = KNOBS[name]
            words = list(dict.fromkeys(w for mode in knob.modes for w in knob.words_in(mode)))
            told = f"{', '.join(words)}: {knob.about}" if words else knob.about
            defaults = " / ".join(
                dict.fromkeys(
                    f"{shown(knob.default(mode))} {knob.unit}".strip() for mode in knob.modes
                )
            )
            only = f"; {knob.modes[0]} mode" if len(knob.modes) == 1 else ""
            usual = f"; default {defaults}" if "-" not in defaults.split() else ""
            return f"{told}{usual}{only}"

        with formatter.section("Names for --set and --sweep (NAME.CLASS = of one class of jobs)"):
            formatter.write_dl(
                [
                    (f"{knob.name}{'[.CLASS]' if knob.by_class else ''}", about(knob.name))
                    for knob in KNOBS.values()
                ]
            )


@click.command(cls=_Command)
@click.option(
    "--mode",
    type=click.Choice(["light", "full"]),
    default="light",
    show_default=True,
    help="light = a decision takes t_job + t_task x tasks, machines are CPU and memory; "
    "full = the production scheduling code on a cell.",
)
@click.option(
    "--jobs",
    "jobs_file",
    metavar="F",
    help="Job list (class,submit_s,tasks,duration_s,cpus,mem_gb); in full mode also a trace.",
)
@click.option(
    "--workload",
    type=click.Choice(WORKLOADS),
    help="Or a drawn load; the default is paperlike.",
)
@click.option(
    "--cell",
    "cell_source",
    metavar="F",
    help=f"Of full mode: cell file or preset; default {CELL_DEFAULT}.",
)
@click.option(
    "--policy", metavar="P", help=f"Of full mode: scheduler plug-in; default {POLICY_DEFAULT}."
)
@click.option(
    "--set", "settings", multiple=True, metavar="NAME=VALUE", help="Set one thing; see below."
)
@click.option(
    "--sweep",
    "sweeps",
    multiple=True,
    metavar="NAME=VALUES",
    help="Vary one thing: 1,2,4 or 0.1:100:log:10 or 0:1:linear:5. Several make a grid.",
)
@click.option(
    "--seeds",
    type=click.IntRange(1, 1000),
    default=1,
    show_default=True,
    help="Runs of each point, each with another seed.",
)
@click.option("--processes", type=click.IntRange(1, 256), default=None, help="Default: one a core.")
@click.option(
    "--out",
    metavar="FOLDER",
    help="Write results.csv, pictures, and a page index.html with a reading of each.",
)
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json", "csv"]),
    default="table",
    show_default=True,
    help="table = means over the seeds; csv = every run; json = both.",
)
def simulate(
    mode: "Form",
    jobs_file: str | None,
    workload: str | None,
    cell_source: str | None,
    policy: str | None,
    settings: tuple[str, ...],
    sweeps: tuple[str, ...],
    seeds: int,
    processes: int | None,
    out: str | None,
    output: str,
) -> int:
    """Simulate schedulers in virtual time, and sweep over what may matter.

    Nothing is started and no store is used. Ctrl-C ends a sweep; what is done is kept.
    """
    import os

    from flowos import __version__
    from flowos.simulation.sweeps.crew import points_of, sweep
    from flowos.simulation.sweeps.folder import Folder
    from flowos.simulation.sweeps.knobs import (
        PRODUCTION,
        architectures_of,
        check_architectures,
        check_classes,
        grid,
        read_axis,
        read_setting,
    )
    from flowos.simulation.sweeps.loads import check_load
    from flowos.simulation.sweeps.page import Story
    from flowos_cli.render import progress_bar

    fixed = [read_setting(text, mode) for text in settings]
    axes = [read_axis(text, mode) for text in sweeps]
    if len({key for key, _ in fixed}) < len(fixed):
        raise SpecError("the same is set twice", where="--set", hint="say it once")
    check_architectures(dict(fixed), axes, mode)
    compared = mode == "full" and PRODUCTION not in architectures_of(dict(fixed), axes, mode)
    if policy is not None and compared:
        raise SpecError(
            "architectures are compared by one planner, and no scheduler plug-in is asked",
            where="--policy",
            hint=f"leave it out, or take architecture={PRODUCTION}",
        )
    ground = _ground(mode, jobs_file, workload, cell_source, policy)
    keys = [*(key for key, _ in fixed), *(axis.key for axis in axes)]
    check_load(ground.load, keys)
    check_classes(keys, ground.load.classes)
    points = points_of(grid(axes, dict(fixed)), seeds)
    folder = Folder.at(Path(out)) if out is not None else None
    if sys.stderr.isatty():
        say(f"{ground.load.about}; {len(points):,} runs; Ctrl-C ends them and keeps what is done")
    with progress_bar("simulating") as tell:
        swept = sweep(ground, points, processes=processes or os.cpu_count() or 1, progress=tell)
    if not swept.rows:
        say("interrupted before any run was done: nothing was written")
        return INTERRUPTED
    story = Story(
        ground,
        tuple(axes),
        dict(fixed),
        seeds,
        swept,
        _said(click.get_current_context()),
        __version__,
    )
    # Files first: who reads the rest may be gone, and minutes were spent on them.
    written = folder.write(story.files()) if folder is not None else []
    _print(story, output)
    if written:
        say(f"written: {', '.join(map(str, written))}")
    if swept.interrupted:
        say(f"interrupted: {len(swept.rows):,} of {len(points):,} runs were done")
        return INTERRUPTED
    return 0


def _ground(
    mode: "Form",
    jobs_file: str | None,
    workload: str | None,
    cell_source: str | None,
    policy: str | None,
) -> "Ground":
    from flowos.simulation.sweeps.loads import drawn_load, read_load
    from flowos.simulation.sweeps.runs import Ground

    if jobs_file is not None and workload is not None:
        raise SpecError(
            "jobs are either read or drawn", where="--workload", hint="leave out one of the two"
        )
    for option, value in (("--cell", cell_source), ("--policy", policy)):
        if mode == "light" and value is not None:
            raise SpecError("is of full mode", where=option, hint="add --mode full")
    if jobs_file is not None:
        load = read_load(Path(jobs_file), mode)
    else:
        load = drawn_load(workload or WORKLOAD_DEFAULT)
    return Ground(load, _full(cell_source, policy) if mode == "full" else None)


def _full(cell_source: str | None, policy: str | None) -> "Full":
    from flowos.documents.presets import file_or_preset
    from flowos.simulation.sweeps.runs import Full
    from flowos_cli.commands.plugins import policy_named
    from flowos_store import MemoryStore

    source, name = cell_source or CELL_DEFAULT, policy or POLICY_DEFAULT
    return Full(file_or_preset(source), Path(source).name, policy_named(name), name, MemoryStore)


def _said(context: click.Context) -> str:
    """Return the command that runs the same again; where its files go is left out."""
    words = ["flowos", "simulate"]
    for parameter in context.command.params:
        given = context.params[parameter.name or ""]
        if parameter.name in ("out", "output", "processes") or given == parameter.default:
            continue
        for value in given if isinstance(given, tuple) else (given,):
            words += [] if value is None else [parameter.opts[0], str(value)]
    return shlex.join(words)


def _print(story: "Story", output: str) -> None:
    from flowos.simulation.sweeps.figures import as_csv
    from flowos_cli import render

    if output == "csv":
        click.echo(as_csv(story.rows), nl=False)
        return
    axes = [axis.name for axis in story.axes]
    if output == "json":
        import json

        click.echo(json.dumps(story.document()))
        return
    figures = [figure.name for figure in story.figures]
    columns = [
        *(_number_column(name) for name in axes),
        render.Column("class", lambda item: str(item["class"])),
        *(_number_column(name) for name in figures),
    ]
    items = [{**mean.settings, "class": mean.of_class, **mean.figures} for mean in story.means]
    for line in render.table(columns, items, width=render.terminal_width()):
        click.echo(line)
    for each in story.shown:
        click.echo(each.reading)


def _number_column(name: str) -> "Column":
    from flowos.simulation.sweeps.knobs import shown
    from flowos_cli.render import Column

    return Column(name, lambda item: shown(item[name]), right=True)
