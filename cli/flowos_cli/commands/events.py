"""`flowos slice events`: what happened to a slice, step by step?"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import click

from flowos_cli import render
from flowos_cli.commands.slice import find, slice_arguments
from flowos_cli.output import Listing, Output, output_options, tenant_option, write
from flowos_cli.render import Column, Item
from flowos_cli.wiring import Where, where_options

EVENTS: Final = Listing(
    columns=(
        Column("revision", lambda e: str(e["revision"]), right=True),
        Column("time", lambda e: _clock(e["at"])),
        Column("phase", lambda e: e["phase"], styled="="),
        Column("reason", lambda e: e["reason"] or "-"),
        Column("what", lambda e: e["what"], wraps=True),
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
    """What happened to a slice, as far as the store's history is kept.

    The time stands where a record says it: when it was submitted, ran, was resized, and ended.

    \b
    flowos slice events train-42 -f
    """
    from flowos.runtime.story import told

    store = where.store()
    try:
        identifier = find(store, name, tenant)
        story = told(store, identifier, follow=follow)
        if not follow:
            out.put(EVENTS, list(story))
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
        text = lines.lines(EVENTS, [event])
        write(["---", *text] if out.form == "yaml" else text)
    else:
        columns = list(EVENTS.columns)
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
