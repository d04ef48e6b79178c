"""`flowos slice history`: who held what, for how long, and what does it add up to?"""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any, Final

import click

from flowos.model.errors import SpecError, UnknownName
from flowos_cli import render
from flowos_cli.commands.completion import live
from flowos_cli.output import Listing, Output, now, output_options, tenant_option, write
from flowos_cli.render import Column, Item
from flowos_cli.wiring import Where, where_options

FIELDS: Final = (
    "tenant", "name", "attempt", "number", "policy", "engines", "cpu_millis", "memory_bytes",
    "watts", "from_at", "started_at", "until_at", "engine_hours", "watt_hours", "ended", "message",
)  # fmt: skip

LINES: Final = Listing(
    columns=(
        Column("name", lambda h: h["name"]),
        Column("tenant", lambda h: h["tenant"]),
        Column("try", lambda h: str(h["number"]), right=True),
        Column("policy", lambda h: h["policy"] or "-", wide=True),
        Column("engines", lambda h: str(len(h["engines"])), right=True),
        Column("from", lambda h: _when(h["from_at"])),
        Column("until", lambda h: _when(h["until_at"]), wide=True),
        Column("held", lambda h: render.age((h["until_at"] or now()) - h["from_at"]), right=True),
        Column("engine-hours", lambda h: f"{h['engine_hours']:.3f}", right=True),
        Column("watt-hours", lambda h: f"{h['watt_hours']:.1f}", right=True),
        Column("ended", lambda h: h["ended"], styled="="),
        Column("which", lambda h: render.cut(h["engines"]) or "-", wide=True),
        Column("message", lambda h: h["message"], wide=True),
    ),
    empty="nothing was held: what slices hold is kept for a week after they gave it back",
)
_TOTALS: Final = (
    Column("tenant", lambda t: t["tenant"]),
    Column("slices", lambda t: str(t["slices"]), right=True),
    Column("engine-hours", lambda t: f"{t['engine_hours']:.3f}", right=True),
    Column("watt-hours", lambda t: f"{t['watt_hours']:.1f}", right=True),
)


def _when(at: float | None) -> str:
    from datetime import datetime

    return datetime.fromtimestamp(at).astimezone().strftime("%d %b %H:%M:%S") if at else "now"


def _since(_context: click.Context, _option: click.Parameter, value: str | None) -> float | None:
    """Read how long ago, such as 2h or 7d, or when: 2026-11-20, 2026-11-20T14:00."""
    from datetime import datetime

    from flowos.documents.quantities import seconds_of

    if value is None:
        return None
    try:
        return now() - seconds_of(value)
    except SpecError:
        pass
    try:
        return datetime.fromisoformat(value).astimezone().timestamp()
    except ValueError:
        raise click.BadParameter(
            f"{value} is no time: write such as 2h, 7d or 2026-11-20T14:00"
        ) from None


@click.command()
@click.argument("name", required=False, default="", shell_complete=live("slice"))
@tenant_option
@click.option(
    "--since",
    callback=_since,
    default=None,
    metavar="T",
    help="Only what was held in the last 2h, 7d, or since 2026-11-20T14:00.",
)
@output_options(watch=False, more=("csv",))
@where_options
def history(name: str, tenant: str, since: float | None, out: Output, where: Where) -> int:
    """Who held what, from when until when: engine-hours and watt-hours, also of what runs.

    A line for each try of a slice, and for each size that it had. A table ends with the sums of
    each tenant. NAME is a slice, or an array.

    \b
    flowos slice history --tenant vision --since 7d -o csv
    """
    from flowos.runtime import accounted
    from flowos.runtime.shown import view_of

    store = where.store()
    try:
        view = view_of(store, ["slice/", "placement/"])
        start = accounted.prefix_of(tenant, name)
        items = accounted.history_shown(store, view, now=now(), start=start, since=since or 0.0)
    finally:
        store.close()
    if name:
        names = [f"{item['tenant']}/{item['name']}" for item in items]
        chosen = set(accounted.meant(names, name, tenant))
        known = {*names, *view.slices}
        if not chosen and not accounted.meant(known, name, tenant):
            raise UnknownName(
                f"there is no slice '{name}', and no history of one: 'flowos slice history' lists all"
            )
        items = [i for i, n in zip(items, names, strict=True) if n in chosen]
    _put(out, items, accounted.totals_shown(items))
    return 0


def _put(out: Output, items: Sequence[Item], totals: Sequence[Item]) -> None:
    if out.form == "csv":
        write(_csv(items, out.columns or FIELDS, headers=out.headers))
    elif out.form == "name":
        write(dict.fromkeys(out.lines(LINES, items)))
    elif not out.draws:
        write(out.lines(LINES, items, beside={"totals": list(totals)}))
    elif not items or out.columns:
        out.put(LINES, items)
    else:
        width = render.ENDLESS if out.form == "wide" else render.terminal_width()
        sums = render.table(
            _TOTALS, totals, headers=out.headers, colour=render.has_colour(), width=width
        )
        write([*out.lines(LINES, items), "", *sums])


def _csv(items: Sequence[Item], fields: Sequence[str], *, headers: bool) -> list[str]:
    """Return lines of comma-separated values, as spreadsheets read them."""
    unknown = [field for field in fields if field not in (*FIELDS, "shares")]
    if unknown:
        hint = f"choose from {', '.join(FIELDS)}"
        raise SpecError(f"there is no column '{unknown[0]}'", where="--columns", hint=hint)
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    if headers:
        rows.writerow(fields)
    rows.writerows([_cell(item, field) for field in fields] for item in items)
    return text.getvalue().splitlines()


def _cell(item: Mapping[str, Any], field: str) -> object:
    value = item[field]
    if isinstance(value, list):
        return " ".join(value)
    if isinstance(value, dict):
        return " ".join(f"{name}={amount}" for name, amount in value.items())
    return "" if value is None else value
