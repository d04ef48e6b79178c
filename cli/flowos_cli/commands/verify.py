"""`flowos cell verify`: does the shared state keep its laws, now, in all that is kept, and live?"""

import json
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import click

from flowos.model.errors import UnknownName
from flowos_cli import render
from flowos_cli.output import API_VERSION, compact, say, to_yaml, write
from flowos_cli.wiring import Where, where_options

if TYPE_CHECKING:
    from flowos.verify.history import KeptStore, Listed, News, Verdict

NO_CELL: Final = "the store holds no cell of this name: load one with 'flowos cell init'"
CHECKPOINT: Final = "follow"
DRAW_SECONDS: Final = 0.25  # how often the line that tells how far it is changes at most
WROTE_MAX: Final = 8  # keys of a transaction that people are shown


@click.command()
@click.option("--history", is_flag=True, help="Every revision that the store still keeps.")
@click.option("--follow", is_flag=True, help="Every revision from now on, until Ctrl-C.")
@click.option(
    "--checkpoint",
    metavar="NAME",
    help="With --follow: go on where the last one of this name ended ('' = from now)."
    f"  [default: {CHECKPOINT}]",
)
@click.option(
    "-o",
    "--output",
    "form",
    type=click.Choice(["table", "json", "yaml"]),
    default="table",
    show_default=True,
    help="Form of the verdict; violations that are followed come as lines of JSON but in tables.",
)
@where_options
def verify(history: bool, follow: bool, checkpoint: str | None, form: str, where: Where) -> int:
    """Check the laws of the shared state; status 6 where one is broken."""
    from flowos.verify.history import verify_history, verify_now
    from flowos.verify.hold import history_held

    if history and follow:
        raise click.UsageError("--history looks back and --follow ahead: choose one")
    if checkpoint is not None:
        if not follow:
            raise click.UsageError("--checkpoint is for --follow: the others begin anew each time")
        if "/" in checkpoint:
            raise click.UsageError("a checkpoint's name has no '/'")
    store = where.store()
    try:
        if not store.read(["cell/info"]).records:
            raise UnknownName(NO_CELL)
        if follow:
            verdict = _followed(store, form, CHECKPOINT if checkpoint is None else checkpoint)
        elif history:
            with (
                history_held(store, store.oldest()) as move,
                render.progress_bar("checking revisions") as progress,
            ):
                verdict = verify_history(store, _from_first(progress, move))
        else:
            verdict = verify_now(store)
    finally:
        store.close()
    record = {"apiVersion": API_VERSION, **verdict.record()}
    if form == "json":
        click.echo(json.dumps(record, indent=2, ensure_ascii=False))
    elif form == "yaml":
        click.echo(to_yaml(json.loads(json.dumps(record))), nl=False)
    else:
        write(_verdict_lines(record, told=follow))
    return 6 if verdict.violations else 0


def _from_first(
    progress: Callable[[int, int], None], move: Callable[[int], None]
) -> Callable[[int, int, int], None]:
    def tell(at: int, first: int, last: int) -> None:
        progress(at - first, last - first)
        move(at)

    return tell


def _followed(store: "KeptStore", form: str, name: str) -> "Verdict":
    """Tell violations as they come; Ctrl-C or SIGTERM ends it."""
    from flowos.verify.history import Listed, Told
    from flowos.verify.history import follow as follow_history
    from flowos.verify.hold import Checkpoint

    stop = threading.Event()
    line = _StatusLine()
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: stop.set()) for number in signals]

    def deliver(news: "News") -> None:
        line.clear()
        if isinstance(news, Listed):
            say(_begun(news, name))
        elif isinstance(news, Told):
            say(news.sentence)
        elif form == "table":
            line.broken += 1
            write(_violation_lines(asdict(news)))
        else:
            line.broken += 1
            write([compact(asdict(news))])
        sys.stdout.flush()

    checkpoint = Checkpoint(store, name) if name else None
    try:
        return follow_history(store, deliver, stop, checkpoint=checkpoint, progress=line.draw)
    finally:
        line.clear()
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def _begun(news: "Listed", name: str) -> str:
    """Say from where on revisions are checked, and which were not."""
    here = f"all of revision {news.revision} is checked"
    if news.why and news.after >= news.revision:
        return f"{here} ({news.why}); following"
    if news.why:
        missed = f"the steps from {news.after} to {news.revision} could not be ({news.why})"
        return f"{here}, {missed}; following"
    if news.after:
        return f"{here}, where the checkpoint {name} stands: going on from there; following"
    return f"{here}; following"


class _StatusLine:
    """One line on a terminal that tells how far it is; nowhere else."""

    def __init__(self) -> None:
        self.broken = 0
        self._shown = sys.stderr.isatty()
        self._drawn = False
        self._next = 0.0

    def draw(self, at: int, first: int, newest: int) -> None:
        """Say up to where is checked."""
        now = time.monotonic()
        if not self._shown or now < self._next:
            return
        self._next = now + DRAW_SECONDS
        behind = f", {newest - at:,} to go" if newest > at else ""
        found = _counted(self.broken, "violation") if self.broken else "no violation"
        text = f"revision {at:,}: {at - first:,} checked{behind}, {found}"
        click.echo(f"\r{render.shortened(text, render.terminal_width())}\x1b[K", nl=False, err=True)
        self._drawn = True

    def clear(self) -> None:
        """Give the line back."""
        if self._drawn:
            click.echo("\r\x1b[K", nl=False, err=True)
            self._drawn = False


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _verdict_lines(record: dict[str, Any], *, told: bool) -> list[str]:
    colour = render.has_colour()
    checked = record["checked"]
    span = f"revision {record['to']}"
    if record["from"] != record["to"]:
        span = f"revisions {record['from']} to {record['to']}"
    what = (
        f"{span}: {_counted(checked['engines'], 'engine')}, {_counted(checked['slices'], 'slice')}"
    )
    found = record["violations"]
    if not found:
        return [f"{what}: {render.paint('every law holds', 'good', colour=colour)}"]
    lines = [] if told else [line for v in found for line in _violation_lines(v)]
    bad = render.paint(_counted(len(found), "violation"), "bad", colour=colour)
    return [*lines, f"{what}: {bad}"]


def _violation_lines(violation: dict[str, Any]) -> list[str]:
    """Say what is wrong, and below it which transactions made it so."""
    law = render.paint(violation["law"], "bad", colour=render.has_colour())
    lines = [
        f"revision {violation['revision']}: {law}: {violation['sentence']}  ({violation['where']})"
    ]
    for made in violation["transactions"]:
        lines += _made_lines(made)
    return lines


def _made_lines(made: dict[str, Any]) -> list[str]:
    if not made["revision"]:
        return [f"    {made['made']}"]
    head = f"    at {made['revision']}"
    if made["by"]:
        head += f" by {made['by']}" if made["by"] != "unknown" else ", nobody knows by whom"
    if not made["kept"]:
        head += " or before: that is older than the history that is kept"
    lines = [f"{head}: {made['made']}"]
    wrote = made["wrote"]
    if wrote:
        more = f" and {len(wrote) - WROTE_MAX} more" if len(wrote) > WROTE_MAX else ""
        lines.append(f"        {', '.join(wrote[:WROTE_MAX])}{more}")
    return lines
