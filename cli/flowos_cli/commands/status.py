"""`flowos status` and `flowos top`: the whole cell on one screen, once or live."""

import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import click

from flowos.model.errors import SpecError, StoreRefused, UnknownName
from flowos_cli import render
from flowos_cli.commands.stats import STATS, conflict_fraction, stats_items
from flowos_cli.output import (
    API_VERSION,
    DRAW_SECONDS,
    FORMS,
    compact,
    follow_views,
    to_yaml,
    warn_of_unreadable,
    write,
)
from flowos_cli.render import Column, Item
from flowos_cli.wiring import Where, where_options

if TYPE_CHECKING:
    from flowos.model.view import CellView
    from flowos_store import EtcdStore

BAR_WIDTH: Final = 16
QUEUE_ROWS: Final = 6
SLICES_MAX: Final = 200
STATES: Final = ("free", "held", "shared", "off", "drained", "reserved", "quarantined")


@click.command()
@click.option(
    "-o",
    "--output",
    "form",
    type=click.Choice(FORMS),
    default="table",
    show_default=True,
    help="Form of the data.",
)
@where_options
def status(form: str, where: Where) -> int:
    """One screen: what is free, held and off, what waits and why, and who is alive."""
    from flowos.runtime.shown import SLICES, view_of

    store = where.store()
    try:
        view = view_of(store, SLICES)
        item = _status(view, store)
        warn_of_unreadable(view)
    finally:
        store.close()
    if form == "json":
        click.echo(json.dumps(item, indent=2, ensure_ascii=False))
    elif form == "yaml":
        click.echo(to_yaml(item), nl=False)
    elif form == "jsonl":
        write([compact(item)])
    elif form == "name":
        write([item["cell"]])
    else:
        width = render.ENDLESS if form == "wide" else render.terminal_width()
        write(render.shortened(line, width) for line in _screen(item, render.has_colour(), width))
    return 0


@click.command()
@where_options
def top(where: Where) -> int:
    """The same, live, with the slices; q or Ctrl-C ends it."""
    if not sys.stdout.isatty():
        raise SpecError(
            "top draws on a terminal",
            hint="'flowos status -o json' is for scripts, 'flowos ls -w -o jsonl' tells changes",
        )
    from flowos.runtime.shown import SLICES, view_of

    store = where.store()
    try:
        view_of(store, ())  # says that there is no cell, where there is none
        rate = _Rate()
        with _q_interrupts(), render.Screen(whole=True) as screen:
            follow_views(
                store, SLICES, DRAW_SECONDS, lambda view: screen.draw(_top(view, store, rate))
            )
    except KeyboardInterrupt:
        pass
    finally:
        store.close()
    return 0


@contextmanager
def _q_interrupts() -> Iterator[None]:
    """Let q do what Ctrl-C does; no Enter is needed."""
    if not sys.stdin.isatty():
        yield
        return
    import signal
    import termios
    import threading
    import tty

    main = threading.get_ident()

    def listen() -> None:
        while (typed := sys.stdin.read(1)) not in ("q", "Q", ""):
            pass
        if typed:
            signal.pthread_kill(main, signal.SIGINT)

    before = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)
    threading.Thread(target=listen, daemon=True).start()
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


class _Rate:
    """How many revisions a second the store has made, between two looks."""

    def __init__(self) -> None:
        self._last: tuple[float, int] | None = None
        self._shown = 0.0

    def of(self, revision: int) -> float:
        now = time.monotonic()
        if self._last is None or now - self._last[0] >= 1.0:
            if self._last is not None:
                self._shown = (revision - self._last[1]) / (now - self._last[0])
            self._last = (now, revision)
        return self._shown


# -------------------------------------------------------------------------------------- figures


def _status(view: "CellView", store: "EtcdStore") -> Item:
    """Return everything that the screen shows, for scripts too."""
    from flowos.model import keys
    from flowos.model.life import phase_in
    from flowos.runtime.shown import slice_shown

    reading = store.read(["cell/"])
    records = {r.key: json.loads(r.value) for r in reading.records}
    if keys.INFO not in records:
        raise UnknownName("the store holds no cell of this name: load one with 'flowos cell init'")
    info, totals = records[keys.INFO], records[keys.TOTALS]
    phases: Counter[str] = Counter()
    queue: Counter[tuple[str, str]] = Counter()
    for identifier, entry in view.slices.items():
        phase = str(phase_in(view, identifier))
        phases[phase] += 1
        if phase == "pending":
            shown = slice_shown(view, identifier, circuits=False)
            queue[entry.value.spec.served_by, shown["reason"] or "not looked at yet"] += 1
    try:
        server = store.status()
    except StoreRefused:
        server = None  # where users have roles, etcd tells this to its root alone
    schedulers = stats_items(view, store)
    leader = view.sessions.get("controller/leader")
    return {
        "apiVersion": API_VERSION,
        "cell": info.get("name", ""),
        "source": info.get("source", ""),
        "revision": reading.revision,
        "engines": _engine_counts(view, store, totals),
        "slices": dict(sorted(phases.items())),
        "queue": [
            {"policy": policy, "reason": reason, "slices": count}
            for (policy, reason), count in queue.most_common()
        ],
        "conflict_fraction": conflict_fraction(schedulers),
        "schedulers": schedulers,
        "alive": {
            "schedulers": len(schedulers),
            "controllers": sum(k.startswith("controller/") for k in view.sessions) - bool(leader),
            "leader": leader.value.name if leader else None,
            "agents": len(view.sessions_of("agents")),
            "places": len(view.sessions_of("agent")),
            "places_expected": totals["nodes"] + totals["switches"],
            "clients": len(view.sessions_of("client")),
        },
        "store": server
        and {
            "version": server.version,
            "database_bytes": server.database_bytes,
            "database_bytes_used": server.database_bytes_used,
            "alarms": list(server.alarms),
        },
    }


def _engine_counts(
    view: "CellView", store: "EtcdStore", totals: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Count engines by kind, model and state; only those that are not simply free are read."""
    from flowos.runtime.shown import add_engines, engine_state

    busy = {u.partition("/")[2] for u in view.holders if u.startswith("engine/")}
    busy |= view.shares.keys()
    closed = [u for u in view.holders if u.startswith("node/")]
    for record in store.read([f"engine/{u.partition('/')[2]}/" for u in closed]).records:
        busy.add(record.key.partition("/")[2])
    add_engines(store, view, busy)
    counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for identifier in busy:
        engine = view.cell.engines.get(identifier)
        if engine is not None:
            counts[engine.kind, engine.model][engine_state(view, engine)[0]] += 1
    found = []
    for kind, figures in totals["kinds"].items():
        for model, of_model in figures["models"].items():
            states = counts[kind, model]
            free = of_model["engines"] - sum(states.values()) + states["free"]
            found.append(
                {
                    "kind": kind,
                    "model": model,
                    "engines": of_model["engines"],
                    **{state: states[state] for state in STATES},
                    "free": free,
                }
            )
    return found


# --------------------------------------------------------------------------------------- screen


def _screen(item: Item, colour: bool, width: int) -> list[str]:
    """Draw the status for people."""
    lines = [*_head(item, colour), ""]
    # The bar fills what a narrow terminal leaves.
    rows = [{**row, "bar": _bar(row, colour)} for row in item["engines"]]
    seen = [s for s in STATES if s in ("free", "held") or any(row[s] for row in item["engines"])]
    columns = (
        Column("kind", lambda r: r["kind"]),
        Column("model", lambda r: r["model"] or "-"),
        Column("all", lambda r: f"{r['engines']:,}", right=True),
        *(Column(state, _count_of(state), right=True, styled=state) for state in seen),
    )
    table = render.table(columns, rows, colour=colour, width=width - BAR_WIDTH - 4)
    lines.append(render.paint("ENGINES", "title", colour=colour))
    lines += [
        f"  {line}{' ' * (max(map(render.width_of, table)) - render.width_of(line))}  {bar}".rstrip()
        for line, bar in zip(table, ["", *(row["bar"] for row in rows)], strict=True)
    ]
    phases = [
        f"{count} {render.paint(phase, phase, colour=colour)}"
        for phase, count in item["slices"].items()
    ]
    lines += [
        "",
        f"{render.paint('SLICES', 'title', colour=colour)}  {', '.join(phases) or 'none'}",
    ]
    lines += [
        f"  {row['slices']:>5,} of {row['policy']} wait: {row['reason']}"
        for row in item["queue"][:QUEUE_ROWS]
    ]
    lines += ["", render.paint("SCHEDULERS", "title", colour=colour)]
    if item["schedulers"]:
        shown = [c for c in STATS.columns if not c.wide]
        lines += render.table(shown, item["schedulers"], colour=colour, width=width, indent="  ")
        lines.append(f"  {render.percent(item['conflict_fraction'])} of all commits conflicted")
    else:
        none = "none lives: what is submitted waits ('flowos scheduler run batch')"
        lines.append(f"  {render.paint(none, 'bad', colour=colour)}")
    return lines


def _head(item: Item, colour: bool) -> list[str]:
    alive, store = item["alive"], item["store"]
    source = f" ({item['source']})" if item["source"] else ""
    title = render.paint(f"cell {item['cell']}{source}", "title", colour=colour)
    said = "etcd, of which only its user root is told more"
    if store:
        used = render.amount(store["database_bytes_used"])
        size = render.amount(store["database_bytes"])
        said = f"etcd {store['version']}, {used} in a file of {size}"
    lead = f"{alive['leader']} leads" if alive["leader"] else "none leads"
    places = f"agents at {alive['places']} of {alive['places_expected']} places"
    parts = [
        (_counted(alive["schedulers"], "scheduler"), bool(alive["schedulers"])),
        (f"{_counted(alive['controllers'], 'controller')}, {lead}", bool(alive["leader"])),
        (places, alive["places"] >= alive["places_expected"]),
    ]
    if alive["clients"]:
        parts.append((_counted(alive["clients"], "client"), True))
    lines = [
        f"{title}  revision {item['revision']:,}  {said}",
        "alive: "
        + "; ".join(
            text if good else render.paint(text, "bad", colour=colour) for text, good in parts
        ),
    ]
    if store and store["alarms"]:
        lines.append(render.paint(f"alarms: {', '.join(store['alarms'])}", "bad", colour=colour))
    return lines


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _count_of(state: str) -> Any:
    return lambda row: f"{row[state]:,}" if row[state] else "-"


def _bar(row: Item, colour: bool) -> str:
    out = row["drained"] + row["reserved"] + row["quarantined"]
    parts = ((row["held"] + row["shared"], "held"), (out, "drained"), (row["off"], "off"))
    return render.bar(parts, row["engines"], BAR_WIDTH, colour=colour)


def _top(view: "CellView", store: "EtcdStore", rate: _Rate) -> list[str]:
    """Draw the status and, below it, the slices: what runs first."""
    from flowos.runtime.shown import in_queue_order, slice_shown
    from flowos_cli.commands.slice import SLICES as LISTING

    colour, width = render.has_colour(), render.terminal_width()
    item = _status(view, store)
    lines = [*_screen(item, colour, width), ""]
    living = [n for n in in_queue_order(view) if view.slices[n].value.end is None]
    # What does not fit the screen is not worth the time to draw, but for the queue: it runs late.
    shown = [slice_shown(view, name, circuits=False) for name in living[:SLICES_MAX]]
    items = sorted(shown, key=lambda s: s["phase"] == "pending")
    columns = [column for column in LISTING.columns if not column.wide]
    lines += render.table(columns, items, colour=colour, width=width)
    room = max(len(lines) // 2, render.terminal_height() - 3)
    if len(lines) > room:
        lines = lines[:room]
    last = f"{rate.of(item['revision']):.0f} changes a second, {len(living):,} slices live; q ends"
    return [*lines, "", render.paint(last, "quiet", colour=colour)]
