"""`flowos replay`: real jobs on a real cell, through a real store."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flowos.model.errors import SpecError
from flowos_cli.commands.plugins import policy_named

if TYPE_CHECKING:
    from flowos.simulation.jobs import Job
    from flowos.simulation.replay import Result
    from flowos_store import EtcdStore


@click.command()
@click.option("--cell", "cell_source", required=True, metavar="F", help="Cell file or preset.")
@click.option("--jobs", "jobs_file", required=True, metavar="F", help="Jobs file (csv, csv.gz).")
@click.option(
    "--speed",
    default=0.0,
    metavar="X",
    help="Replayed seconds a second; 0 (the default) = as fast as it goes.",
)
@click.option(
    "--fill-up",
    "load",
    type=float,
    default=None,
    metavar="L",
    help="No departures: place until L times the engines were asked for, e.g. 1.3.",
)
@click.option(
    "--seed", default=1, show_default=True, help="Of the order and the draws of --fill-up."
)
@click.option(
    "--limit", type=click.IntRange(min=1), default=None, help="Only the first N rows of the file."
)
@click.option("--policy", default="batch", show_default=True, help="Scheduler plug-in.")
@click.option("--no-fsync", is_flag=True, help="Don't wait for the disk: faster, for trials.")
@click.option("--no-verify", is_flag=True, help="Don't check the whole history afterwards.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="How to print the result.",
)
def replay(
    cell_source: str,
    jobs_file: str,
    speed: float,
    load: float | None,
    seed: int,
    limit: int | None,
    policy: str,
    no_fsync: bool,
    no_verify: bool,
    output: str,
) -> int:
    """Replay a jobs file on a cell of its own: a fresh etcd, loaded, filled, verified, removed.

    Every transaction goes through etcd. With durations, the scheduler, the controller and agents
    of all nodes run on a clock that jumps from event to event.
    """
    from flowos.documents.presets import file_or_preset
    from flowos.simulation.jobs import read_jobs
    from flowos_cli.render import progress_bar
    from flowos_store import EmbeddedEtcd, EtcdStore

    chosen = policy_named(policy)
    if load is not None and not 0 < load <= 10:
        raise SpecError(f"--fill-up {load:g} is out of range", hint="0.1 to 10, e.g. 1.3")
    if speed < 0:
        raise SpecError("--speed is below 0", hint="0 = as fast as it goes")
    cell = file_or_preset(cell_source)
    jobs = read_jobs(Path(jobs_file))[:limit]
    if not jobs:
        raise SpecError(f"{jobs_file} holds no job")
    with (
        tempfile.TemporaryDirectory(prefix="flowos-replay-") as folder,
        EmbeddedEtcd(Path(folder) / "etcd", unsafe_no_fsync=no_fsync) as etcd,
    ):
        store = EtcdStore([etcd.endpoint])
        try:
            from flowos.runtime.loading import load_cell_into

            with progress_bar("loading the cell") as tell:
                load_cell_into(store, cell, progress=tell)
            with progress_bar("replaying") as tell:
                result = _play(store, chosen, jobs, speed=speed, load=load, seed=seed, tell=tell)
            violations: list[Any] = []
            if not no_verify:
                from flowos.verify.history import verify_history

                with progress_bar("verifying every revision") as tell:
                    found = verify_history(
                        store, progress=lambda at, first, last: tell(at - first, last - first)
                    )
                violations = list(found.violations)
                result.violations = len(violations)
        finally:
            store.close()
    _print(result, violations, output)
    return 6 if violations else 0


def _play(
    store: "EtcdStore",
    policy: Any,  # a scheduler plug-in
    jobs: "list[Job]",
    *,
    speed: float,
    load: float | None,
    seed: int,
    tell: Any,  # the bar's callback
) -> "Result":
    from flowos.runtime.client import CellClient
    from flowos.runtime.clock import SystemClock
    from flowos.simulation import replay as replays

    def progress(done: int, of: int, _said: str) -> None:
        tell(done, of)

    if load is None:
        return replays.replay(store, policy, jobs, speed=speed, seed=seed, progress=progress)
    client = CellClient(store, SystemClock())
    return replays.fill_up(client, policy, jobs, load=load, seed=seed, progress=progress)


def _print(result: "Result", violations: list[Any], output: str) -> None:
    shown = result.shown()
    if output == "json":
        import json

        click.echo(json.dumps(shown))
        return
    rows = [
        ("jobs", f"{shown['jobs']:,}"),
        ("placed", f"{shown['placed']:,}"),
        ("unplaced", f"{shown['unplaced']:,}"),
        *((f"  {reason}", f"{count:,}") for reason, count in shown["unplaced_reasons"].items()),
        ("engines", f"{shown['engines']:,}"),
        ("allocated", f"{100 * shown['allocated_fraction']:.2f} % of engines"),
        *(
            (f"  at {load}", f"{100 * share:.2f} %")
            for load, share in shown["allocated_at"].items()
        ),
        ("at most", f"{100 * shown['allocated_max']:.2f} %"),
        ("slices/s", f"{shown['slices_per_s']:,} through etcd, {shown['wall_seconds']} s in all"),
        ("decision", f"{shown['decision_ms']['p50']} ms median, {shown['decision_ms']['p99']} p99"),
        ("conflicts", f"{100 * shown['conflict_fraction']:.2f} % of commits"),
        ("violations", str(shown["violations"])),
        ("seed", str(shown["seed"])),
    ]
    width = max(len(word) for word, _ in rows)
    for word, text in rows:
        click.echo(f"{word:<{width}}  {text}")
    for reason, sentence in shown["unplaced_examples"].items():
        click.echo(f"{reason}, for example: {sentence}", err=True)
    for violation in violations[:20]:
        click.echo(f"violation: {violation}", err=True)
