"""In which form is data written? The options of every list and show, and the one way out."""

import functools
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

import click

from flowos.model.errors import SpecError, UnknownName
from flowos_cli import render
from flowos_cli.commands.completion import live
from flowos_cli.render import Column, Item

if TYPE_CHECKING:
    from queue import SimpleQueue

    from flowos.model.protocols import CellStore, Watch
    from flowos.model.transaction import WatchMessage
    from flowos.model.view import CellView
    from flowos_cli.wiring import Where

F = TypeVar("F", bound=Callable[..., Any])

API_VERSION: Final = "flowos/v1"
FORMS: Final = ("table", "wide", "json", "jsonl", "yaml", "name")
DRAW_SECONDS: Final = 0.25  # a screen is drawn four times a second at most
TELL_SECONDS: Final = 0.05  # scripts are told sooner
REFRESH_SECONDS: Final = 1.0  # ages go on without any change
AWAY_SECONDS: Final = 0.25  # between two questions whether the store is there again


@dataclass(frozen=True, slots=True)
class Listing:
    """How one kind of thing is listed.

    Attributes:
        columns: Of its table.
        name: The field that names an item.
        empty: What people are told where there are none, with the next useful command.
    """

    columns: tuple[Column, ...]
    name: str = "name"
    empty: str = ""


@dataclass(frozen=True, slots=True)
class Output:
    """What the options say.

    Attributes:
        form: One of `FORMS`.
        columns: Those asked for; empty = the usual ones.
        headers: Whether a table has titles.
        watch: Whether to go on and tell what changes.
    """

    form: str = "table"
    columns: tuple[str, ...] = ()
    headers: bool = True
    watch: bool = False

    @property
    def draws(self) -> bool:
        """Whether people read it."""
        return self.form in ("table", "wide")

    # -- lists

    def lines(
        self,
        listing: Listing,
        items: Sequence[Item],
        kept: list[int] | None = None,
        *,
        beside: Mapping[str, object] | None = None,
    ) -> list[str]:
        """Return the lines that a list takes in this form.

        Args:
            listing: What is listed.
            items: The things.
            kept: As for `render.table`.
            beside: More fields of the whole document, in JSON and YAML.
        """
        if self.form == "name":
            return [name_of(listing, item) for item in items]
        if self.form == "jsonl":
            return [compact(self.picked(listing, item)) for item in items]
        if self.form in ("json", "yaml"):
            picked = [self.picked(listing, item) for item in items]
            return self._document({"apiVersion": API_VERSION, "items": picked, **(beside or {})})
        return render.table(
            self._columns(listing, items),
            items,
            headers=self.headers,
            colour=render.has_colour(),
            # Whoever asks for wide wants all of it.
            width=render.ENDLESS if self.form == "wide" else render.terminal_width(),
            kept=kept,
        )

    def put(self, listing: Listing, items: Sequence[Item]) -> None:
        """Write a list; say on stderr where there is nothing in it."""
        if not items and self.form in ("table", "wide", "name"):
            if listing.empty:
                click.echo(listing.empty, err=True)
            return
        write(self.lines(listing, items))

    # -- one thing

    def one_lines(
        self, listing: Listing, item: Item, details: Callable[[Item], list[str]]
    ) -> list[str]:
        """Return the lines that one thing takes in this form; `details` draws it for people."""
        if self.form == "name":
            return [name_of(listing, item)]
        if self.form == "jsonl":
            return [compact(self.picked(listing, item))]
        if self.form in ("json", "yaml"):
            return self._document(self.picked(listing, item))
        if self.columns:
            return self.lines(listing, [item])
        return details(item)

    def put_one(self, listing: Listing, item: Item, details: Callable[[Item], list[str]]) -> None:
        """Write one thing."""
        write(self.one_lines(listing, item, details))

    # -- parts

    def _document(self, value: object) -> list[str]:
        if self.form == "yaml":
            return to_yaml(value).rstrip("\n").split("\n")
        # Piped, a list takes one line an item less than it could: people look at it all the same.
        return json.dumps(value, indent=2, ensure_ascii=False).split("\n")

    def picked(self, listing: Listing, item: Item) -> Item:
        """Return an item with the fields that were asked for."""
        if not self.columns:
            return item
        self._check_columns(listing, [item])
        known = {column.name: column for column in listing.columns}
        return {
            name: item[name] if name in item else known[name].text(item) for name in self.columns
        }

    def _columns(self, listing: Listing, items: Sequence[Item]) -> list[Column]:
        if not self.columns:
            return [c for c in listing.columns if self.form == "wide" or not c.wide]
        self._check_columns(listing, items)
        known = {column.name: column for column in listing.columns}
        return [known.get(name) or Column(name, _of_field(name)) for name in self.columns]

    def _check_columns(self, listing: Listing, items: Sequence[Item]) -> None:
        names = {column.name for column in listing.columns}.union(*(items[:1]))
        for name in self.columns:
            if items and name not in names:
                raise SpecError(
                    f"there is no column '{name}'",
                    where="--columns",
                    hint=f"choose from {', '.join(sorted(names - {'apiVersion'}))}",
                )


def _of_field(name: str) -> Callable[[Item], str]:
    def text(item: Item) -> str:
        value = item.get(name)
        if value is None or value in ("", [], {}):
            return "-"
        return value if isinstance(value, str) else compact(value)

    return text


def name_of(listing: Listing, item: Item) -> str:
    """Return how a thing is called on the command line.

    Slices of another tenant than the default one carry the tenant.
    """
    name = str(item[listing.name])
    tenant = item.get("tenant", "default")
    return name if tenant == "default" or "/" in name else f"{tenant}/{name}"


def compact(value: object) -> str:
    """Return JSON on one line."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def to_yaml(value: object) -> str:
    """Return YAML, in the order of the fields."""
    import yaml

    dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    text: str = yaml.dump(value, Dumper=dumper, sort_keys=False, allow_unicode=True, width=100)
    return text


def write(lines: Iterable[str]) -> None:
    """Write lines to stdout."""
    text = "\n".join(lines)
    if text:
        click.echo(text, color=render.has_colour())


def say(text: str) -> None:
    """Tell people something, on stderr."""
    click.echo(text, err=True)


def now() -> float:
    """Return wall-clock seconds, for ages."""
    from flowos.runtime.clock import SystemClock

    return SystemClock().wall()


# ------------------------------------------------------------------------------------- options


def seconds(_context: click.Context, _option: click.Parameter, value: str | None) -> float | None:
    """Read an option that is a duration, such as 10s, 5m or 1h30m; a bare number is seconds."""
    from flowos.documents.quantities import seconds_of

    try:
        return None if value is None else seconds_of(value)
    except SpecError as error:
        raise click.BadParameter(str(error)) from None


tenant_option = click.option(
    "--tenant",
    envvar="FLOWOS_TENANT",
    default="",
    metavar="T",
    shell_complete=live("tenant"),
    help="Whose slices.",
)


def named(store: "CellStore", family: str, text: str, hint: str) -> str:
    """Return the name of the one thing of a key family that a text is, or is the start of.

    Raises:
        UnknownName: There is none.
        SpecError: There are several.
    """
    start = f"{family}/{text}"
    names = [record.key[len(family) + 1 :] for record in store.read([start]).records]
    return one_of(text, names, family, hint) if text else unknown(family, text, hint)


def one_of(text: str, names: Sequence[str], what: str, hint: str) -> str:
    """Return the name that a text is, or is the only start of; see `named`."""
    if text in names:
        return text
    if not names:
        return unknown(what, text, hint)
    if len(names) > 1:
        raise SpecError(
            f"'{text}' can be any of {len(names)}: {render.cut(sorted(names), 6)}",
            hint="write more of the name",
        )
    return names[0]


def unknown(what: str, text: str, hint: str) -> NoReturn:
    """Refuse a name."""
    raise UnknownName(f"there is no {what} '{text}': {hint}")


def output_options(
    *, watch: bool = True, form: str = "table", more: Sequence[str] = ()
) -> Callable[[F], F]:
    """Add -o, --columns, --no-headers, -w and -q, and pass them as one `out`.

    Args:
        watch: Whether there is -w.
        form: The default.
        more: Forms beside the usual ones, which the command itself writes.
    """

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:  # click passes what it parsed
            columns = tuple(
                c.strip().lower() for c in kwargs.pop("columns").split(",") if c.strip()
            )
            chosen = kwargs.pop("form")
            if kwargs.pop("quiet"):
                if chosen not in (None, "name"):
                    raise click.UsageError(f"-q prints names alone: leave -o {chosen} or -q out")
                chosen = "name"
            out = Output(
                form=chosen or form,
                columns=columns,
                headers=not kwargs.pop("no_headers"),
                watch=kwargs.pop("watch", False),
            )
            return function(*args, out=out, **kwargs)

        options = [
            click.option(
                "-o", "--output", "form", type=click.Choice([*FORMS, *more]), default=None,
                help=f"Form of the data; default {form}.",
            ),
            click.option(
                "--columns", default="", metavar="A,B", help="Only these columns or fields.",
            ),
            click.option("--no-headers", is_flag=True, help="Tables without titles."),
            click.option("-q", "--quiet", is_flag=True, help="Names alone."),
        ]  # fmt: skip
        if watch:
            options.append(
                click.option("-w", "--watch", is_flag=True, help="Go on and tell what changes.")
            )
        decorated: Any = wrapped
        for option in reversed(options):
            decorated = option(decorated)
        return decorated  # type: ignore[no-any-return]

    return decorate


# --------------------------------------------------------------------------------------- watch


def show_list(
    where: "Where",
    out: Output,
    listing: Listing,
    prefixes: Sequence[str],
    make: "Callable[[CellView, CellStore], Sequence[Item]]",
) -> int:
    """Write a list that follows from a view, once or again with each change.

    Args:
        where: Which store.
        out: The form.
        listing: What is listed.
        prefixes: What the view must follow.
        make: Returns the items; called once for each look.
    """

    def lines(view: "CellView", store: "CellStore") -> list[str]:
        return out.lines(listing, make(view, store))

    def rows(view: "CellView", store: "CellStore") -> dict[str, Item]:
        return {name_of(listing, item): item for item in make(view, store)}

    if out.watch:
        return _watch(where, out, listing, prefixes, lines, rows)
    from flowos.runtime.shown import view_of

    store = where.store()
    try:
        view = view_of(store, prefixes)
        out.put(listing, make(view, store))
        warn_of_unreadable(view)
    finally:
        store.close()
    return 0


def warn_of_unreadable(view: "CellView") -> None:
    """Say on stderr where records of the store were left out because they cannot be read."""
    if view.unreadable:
        key, why = next(iter(view.unreadable.items()))
        count = len(view.unreadable)
        what = "record is" if count == 1 else "records are"
        say(f"warning: {count} {what} left out, since no program can read it: {key}: {why}")


def show_one(
    where: "Where",
    out: Output,
    listing: Listing,
    prefixes: Sequence[str],
    make: "Callable[[CellView, CellStore], Item]",
    details: Callable[[Item], list[str]],
) -> int:
    """Write one thing that follows from a view, once or again with each change; see `show_list`."""

    def lines(view: "CellView", store: "CellStore") -> list[str]:
        return out.one_lines(listing, make(view, store), details)

    def rows(view: "CellView", store: "CellStore") -> dict[str, Item]:
        return {"": make(view, store)}

    if out.watch:
        return _watch(where, out, listing, prefixes, lines, rows)
    from flowos.runtime.shown import view_of

    store = where.store()
    try:
        write(lines(view_of(store, prefixes), store))
    finally:
        store.close()
    return 0


def _watch(
    where: "Where",
    out: Output,
    listing: Listing,
    prefixes: Sequence[str],
    lines: "Callable[[CellView, CellStore], list[str]]",
    rows: "Callable[[CellView, CellStore], dict[str, Item]]",
) -> int:
    """Draw in place on a terminal; else write what is new or changed. Ctrl-C ends it well."""
    from flowos.runtime.shown import view_of

    store = where.store()
    known: dict[str, Item] = {}
    kept: list[int] = []
    document: list[str] = []

    def tell(view: "CellView") -> None:
        nonlocal document, known
        if out.form in ("json", "yaml"):
            new = lines(view, store)
            if new != document:
                document = new
                write(["---", *new] if out.form == "yaml" else [_one_line(new)])
        else:
            found = rows(view, store)
            shown = {name: out.picked(listing, item) for name, item in found.items()}
            changed = [found[name] for name, item in shown.items() if known.get(name) != item]
            if changed:
                headers = out.headers and not kept
                write(replace(out, headers=headers).lines(listing, changed, kept))
            known = shown
        sys.stdout.flush()

    try:
        view_of(store, ())  # says that there is no cell, where there is none
        if out.draws and sys.stdout.isatty():
            with render.Screen() as screen:
                follow_views(
                    store,
                    prefixes,
                    DRAW_SECONDS,
                    lambda view: screen.draw(lines(view, store) or [listing.empty]),
                )
        follow_views(store, prefixes, TELL_SECONDS, tell)
    except KeyboardInterrupt:
        pass
    finally:
        store.close()
    return 0


def _one_line(document: Sequence[str]) -> str:
    return compact(json.loads("\n".join(document)))


def follow_views(
    store: "CellStore",
    prefixes: Sequence[str],
    seconds: float,
    show: "Callable[[CellView], None]",
) -> "NoReturn":
    """Show the newest state again and again: soon after a change, and now and then without one.

    Unlike `CellClient.follow` it passes over what came in between: a screen need not show it.
    Once something was shown, an outage of the store is waited for.

    Args:
        store: Where.
        prefixes: What to follow.
        seconds: The shortest time between two views; more where the receiver takes long.
        show: It may ask the store for what is not in the view.
    """
    import time

    from flowos.model.errors import StoreUnreachable

    shown = False
    while True:
        try:
            for view in _views(store, prefixes, seconds):
                show(view)
                shown = True
        except StoreUnreachable:
            if not shown:
                raise
            time.sleep(AWAY_SECONDS)


def _views(store: "CellStore", prefixes: Sequence[str], seconds: float) -> "Iterator[CellView]":
    """Read, and yield what is due until the watch is lost."""
    from queue import SimpleQueue

    from flowos.model.view import CellView

    reading = store.read(prefixes)
    view = CellView()
    view.load(reading.records)
    view.progressed(reading.revision)
    inbox: SimpleQueue[WatchMessage] = SimpleQueue()
    watch = store.watch(prefixes, after=reading.revision, deliver=inbox.put)
    try:
        yield from _newest(view, inbox, watch, seconds)
    finally:
        watch.close()


def _newest(
    view: "CellView", inbox: "SimpleQueue[WatchMessage]", watch: "Watch", seconds: float
) -> "Iterator[CellView]":
    """Keep a view in step, and yield it when it is due; ends where the watch is lost."""
    from queue import Empty

    from flowos.model.transaction import Changes, Lost, Progress
    from flowos.runtime.clock import SystemClock
    from flowos.runtime.instep import OutOfStep

    clock = SystemClock()
    pending = OutOfStep()
    changed = True
    due = refresh_at = clock.monotonic()
    while True:
        now_ = clock.monotonic()
        if now_ >= (due if changed else refresh_at):
            yield view
            changed = False
            spent = clock.monotonic() - now_
            due = now_ + spent + max(seconds, 2 * spent)
            refresh_at = max(due, now_ + REFRESH_SECONDS)
        try:
            wait = (due if changed else refresh_at) - clock.monotonic()
            message = inbox.get(timeout=max(0.001, wait))
        except Empty:
            watch.ask_progress()
            continue
        match message:
            case Changes(changes):
                pending.add(changes)
                watch.ask_progress()
            case Progress(revision):
                for change in pending.complete_up_to(revision):
                    view.apply(change)
                    changed = True
                view.progressed(revision)
            case Lost():
                return
