"""`flowos tune`: better weights for the planner, where there are any, and the proof of it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flowos.model.errors import FileError, SpecError
from flowos_cli.output import say, seconds, to_yaml

if TYPE_CHECKING:
    from flowos.model.cell import Cell
    from flowos.simulation.tuning.search import Progress, Tuned
    from flowos.simulation.tuning.workload import Workload

SLICES_DEFAULT = 1000


@click.command()
@click.option(
    "--cell",
    "cell_source",
    default="fic",
    show_default=True,
    metavar="F",
    help="Cell file or preset.",
)
@click.option(
    "--jobs", "jobs_file", default=None, metavar="F", help="Jobs file (csv, csv.gz) to learn from."
)
@click.option(
    "--synthetic",
    default=None,
    metavar="A=1,B=2",
    help="Or a drawn log: slices, load, bitstreams, zipf, seconds, sigma, load_seconds, gang_max, ring.",
)
@click.option(
    "--load",
    type=click.FloatRange(0.01, 10),
    default=None,
    help="With --jobs: stretch or squeeze the gaps until the cell has this load.",
)
@click.option(
    "--slices",
    type=click.IntRange(50, 100_000),
    default=None,
    help=f"With --jobs: jobs in an episode; default {SLICES_DEFAULT}.",
)
@click.option(
    "--planner",
    "planner_file",
    default=None,
    metavar="F",
    help="Planner file to start from: its weights are to be beaten, all else in it is kept.",
)
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True)
@click.option(
    "--generations",
    type=click.IntRange(0, 1000),
    default=15,
    show_default=True,
    help="Of candidates.",
)
@click.option(
    "--episodes",
    type=click.IntRange(1, 1000),
    default=3,
    show_default=True,
    help="Logs that each candidate is tried on.",
)
@click.option(
    "--held-out",
    type=click.IntRange(5, 10_000),
    default=20,
    show_default=True,
    help="Logs to judge by, that the search has not seen.",
)
@click.option(
    "--max-worse",
    type=click.FloatRange(0, 1),
    default=0.05,
    show_default=True,
    help="By which share a metric may be worse for the sake of the others.",
)
@click.option(
    "--importance",
    default="",
    metavar="A=1,B=2",
    help="What J weighs: wait_s, reconfigurations, kilojoules, crossings, unplaced.",
)
@click.option(
    "--idle-off",
    callback=seconds,
    default="60s",
    show_default=True,
    metavar="T",
    help="Idle engines are switched off after this long; 0s = never.",
)
@click.option("--processes", type=click.IntRange(1, 64), default=2, show_default=True)
@click.option(
    "--out",
    default="weights.yaml",
    show_default=True,
    metavar="F",
    help="Planner file to write; the report goes beside it, as .report.md and .report.json.",
)
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="How to print the result.",
)
def tune(
    cell_source: str,
    jobs_file: str | None,
    synthetic: str | None,
    load: float | None,
    slices: int | None,
    planner_file: str | None,
    seed: int,
    generations: int,
    episodes: int,
    held_out: int,
    max_worse: float,
    importance: str,
    idle_off: float,
    processes: int,
    out: str,
    output: str,
) -> int:
    """Search for planner weights that suit a log, and keep the default unless they are better.

    Candidates plan the same logs on a simulated cell. The best is adopted only if it is better on
    logs that the search has not seen, beyond chance, and worse in nothing by more than
    --max-worse. Ctrl-C ends the search, and judges what it has. Use the result with
    'flowos cell planner apply weights.yaml'.
    """
    from dataclasses import replace

    from flowos.documents.planner_file import load_planner, planner_document
    from flowos.documents.presets import file_or_preset
    from flowos.model.rules import NO_RULES
    from flowos.planning.engines.weights import Weights, weights_of
    from flowos.simulation.tuning import report
    from flowos.simulation.tuning.episode import Settings
    from flowos.simulation.tuning.gate import importance_of
    from flowos.simulation.tuning.search import Effort
    from flowos.simulation.tuning.search import tune as search
    from flowos.simulation.tuning.trials import Trials

    weighed = importance_of(importance)
    rules = load_planner(planner_file, weights=Weights._fields) if planner_file else NO_RULES
    target = _writable(out)
    workload = _workload(file_or_preset(cell_source), jobs_file, synthetic, load, slices)
    settings = Settings(power_on_seconds=rules.wake_seconds, idle_off_seconds=idle_off)
    effort = Effort(seed, generations, episodes, held_out=held_out)
    say(f"{workload.about}; Ctrl-C ends the search")
    with Trials(workload, settings, processes=processes) as trials, _progress() as tell:
        tuned = search(
            trials,
            effort,
            default=weights_of(rules),
            importance=weighed,
            max_worse=max_worse,
            progress=tell,
        )
    told = report.document(tuned, workload, settings, effort, weighed, max_worse)
    kept = replace(rules, report=report.summary(tuned, workload))
    if tuned.verdict.adopted:
        kept = replace(kept, weights=tuned.weights._asdict())
    files = {
        target: to_yaml(planner_document(kept)),
        target.with_suffix(".report.json"): _json(told),
        target.with_suffix(".report.md"): report.markdown(told),
    }
    for path, text in files.items():
        path.write_text(text)
    _print(tuned, told, [str(path) for path in files], output)
    return 0


def _workload(
    cell: "Cell",
    jobs_file: str | None,
    synthetic: str | None,
    load: float | None,
    slices: int | None,
) -> "Workload":
    from flowos.simulation.jobs import read_jobs
    from flowos.simulation.tuning.workload import Figures, Recorded, Synthetic

    if jobs_file is None:
        for option, value in (("load", load), ("slices", slices)):
            if value is not None:
                raise SpecError(
                    "goes with --jobs",
                    where=f"--{option}",
                    hint=f"write --synthetic {option}={value:g}",
                )
        return Synthetic.on(cell, Figures.read(synthetic or ""))
    if synthetic is not None:
        raise SpecError(
            "a log is either recorded or drawn",
            where="--synthetic",
            hint="leave out one of the two",
        )
    jobs = read_jobs(Path(jobs_file))
    return Recorded.on(cell, jobs, slices=slices or SLICES_DEFAULT, load=load)


def _writable(out: str) -> Path:
    """Return the file to be written, before minutes are spent on what goes into it."""
    target = Path(out)
    if target.is_dir() or not target.name:
        raise FileError("is a folder", path=out, hint="name a file, such as weights.yaml")
    if not target.parent.is_dir():
        raise FileError("its folder does not exist", path=out, hint=f"mkdir -p {target.parent}")
    return target


@contextmanager
def _progress() -> "Iterator[Progress]":
    """Draw a bar on a terminal, else tell each batch in a line; on stderr."""
    from flowos_cli.render import progress_bar

    if not sys.stderr.isatty():
        yield lambda done, of, said: say(f"{said} ({done} of {of} episodes)")
        return
    with progress_bar("tuning") as bar:
        yield lambda done, of, _said: bar(done, of)


def _print(tuned: "Tuned", told: dict[str, Any], files: list[str], output: str) -> None:
    if output == "json":
        click.echo(_json(told | {"files": files}), nl=False)
        return
    from flowos.simulation.tuning.report import WORDS

    if tuned.interrupted:
        say("interrupted: what was found so far was judged")
    click.echo(tuned.verdict.sentence)
    width = max(map(len, WORDS.values()))
    click.echo(f"{'':<{width}}  {'default':>9}  {'found':>9}  {'change':>8}")
    for name, compared in tuned.verdict.metrics.items():
        worse = told["held_out"]["metrics"][name]["worse"]
        change = "from 0" if worse is None else f"{100 * worse:+.1f} %"
        click.echo(
            f"{WORDS[name]:<{width}}  {compared.before:>9.4g}  {compared.after:>9.4g}  {change:>8}"
        )
    changed = {
        name: f"{getattr(tuned.default, name):g} -> {value:g}"
        for name, value in tuned.chosen._asdict().items()
        if value != getattr(tuned.default, name)
    }
    click.echo("weights: " + (", ".join(f"{n} {v}" for n, v in changed.items()) or "as they were"))
    click.echo(f"written: {', '.join(files)}")


def _json(document: dict[str, Any]) -> str:
    import json

    return json.dumps(document, indent=2) + "\n"
