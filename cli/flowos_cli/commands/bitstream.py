"""`flowos bitstream`: what engines can be configured with."""

import re
from typing import TYPE_CHECKING, Any, Final

import click

from flowos.model.errors import DuplicateName, SpecError, StillContended
from flowos_cli import render
from flowos_cli.commands.completion import live
from flowos_cli.lazy import LazyGroup
from flowos_cli.output import (
    Listing,
    Output,
    named,
    one_of,
    output_options,
    say,
    seconds,
    show_list,
    show_one,
)
from flowos_cli.render import Column, Item
from flowos_cli.wiring import Where, where_options

if TYPE_CHECKING:
    from flowos.model.cell import Bitstream
    from flowos.model.protocols import CellStore
    from flowos.model.view import CellView

HINT: Final = "'flowos bitstream ls' lists all"
TRIES_MAX: Final = 20
DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
FOLLOWED: Final = ("bitstream/", "slice/", "placement/", "observed/")

BITSTREAMS: Final = Listing(
    columns=(
        Column("name", lambda b: b["name"]),
        Column("digest", lambda b: b["digest"][:19]),
        Column("kind", lambda b: b["kind"]),
        Column("models", lambda b: ", ".join(b["models"]) or "any"),
        Column("function", lambda b: b["function"] or "-"),
        Column("size", lambda b: render.amount(b["size_bytes"]), wide=True, right=True),
        Column("loads_in", lambda b: f"{b['load_seconds']:g}s", wide=True, right=True),
        Column("loaded", lambda b: str(len(b["loaded_on"])), right=True),
        Column("used_by", lambda b: render.cut(b["used_by"], 2) or "-"),
    ),
    empty="no bitstreams: 'flowos bitstream add FILE' makes one known",
)


@click.group(
    cls=LazyGroup,
    short_help="Add, list and remove bitstreams.",
    table={
        "add": (f"{__name__}:add", "Make a bitstream known to the cell."),
        "ls": (f"{__name__}:ls", "List bitstreams."),
        "show": (f"{__name__}:show", "Where a bitstream is loaded, and who uses it."),
        "rm": (f"{__name__}:rm", "Forget bitstreams that nobody uses."),
    },
)
def bitstream() -> None:
    """Bitstreams: what FPGAs and their like are configured with; known by digest."""


@click.command()
@click.argument("file", required=False, type=click.Path(dir_okay=False), metavar="[FILE]")
@click.option("--name", default="", help="Default: the file's name without its ending.")
@click.option("--digest", default="", metavar="sha256:...", help="Instead of a file.")
@click.option("--kind", default="fpga", show_default=True, help="Which engines it is for.")
@click.option("--model", "models", multiple=True, metavar="M", help="Only these models.")
@click.option("--function", default="", metavar="F", help="What it computes, for people.")
@click.option(
    "--load",
    "load_seconds",
    callback=seconds,
    default="0s",
    metavar="T",
    help="How long loading takes.",
)
@where_options
def add(
    file: str | None,
    name: str,
    digest: str,
    kind: str,
    models: tuple[str, ...],
    function: str,
    load_seconds: float,
    where: Where,
) -> int:
    """Make a bitstream known, from its FILE or by --name and --digest."""
    from flowos.documents.fields import THING_NAME
    from flowos.model.cell import Bitstream

    if (file is None) == (not digest):
        raise click.UsageError("a bitstream comes from a FILE, or from --name and --digest")
    size = 0
    if file is not None:
        digest, size = _digest_of(file)
        name = name or _stem(file)
    if THING_NAME.fullmatch(name) is None:
        raise SpecError(
            f"'{name}' is no name for a bitstream" if name else "the bitstream has no name",
            where="--name",
            hint="use small letters, digits, dots and dashes, such as sum-f32",
        )
    if DIGEST.fullmatch(digest) is None:
        raise SpecError(
            f"'{digest}' is no digest", where="--digest", hint="write sha256: and 64 hex digits"
        )
    if not kind:
        raise SpecError("no kind of engine is named", where="--kind", hint="write fpga")
    wanted = Bitstream(name, digest, kind, models, function, size, load_seconds)
    store = where.store()
    try:
        new = _put(store, wanted)
    finally:
        store.close()
    say(f"bitstream {wanted.name}@{digest[:19]} is {'known now' if new else 'known already'}")
    return 0


def _stem(file: str) -> str:
    from pathlib import Path

    return Path(file).name.split(".")[0].lower()


def _digest_of(file: str) -> tuple[str, int]:
    import hashlib
    from pathlib import Path

    try:
        with Path(file).open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256")
            return f"sha256:{found.hexdigest()}", stream.tell()
    except OSError as error:
        raise SpecError(
            f"cannot be read: {error.strerror or error}", where=file, hint="name a file"
        ) from None


def _put(store: "CellStore", wanted: "Bitstream") -> bool:
    """Write a bitstream; False where it is known already.

    Raises:
        DuplicateName: Another one has its name.
    """
    from flowos.model import keys
    from flowos.model.cell import Bitstream
    from flowos.model.codec import decode, encode
    from flowos.model.transaction import Committed, Put, Seen, Transaction

    key = keys.inventory("bitstream", wanted.name)
    for _ in range(TRIES_MAX):
        totals, modified = _totals(store)
        known = next((r for r in store.read([key]).records if r.key == key), None)
        if known is not None:
            there = decode(Bitstream, known.value)
            if there == wanted:
                return False
            what = "with another digest" if there.digest != wanted.digest else "otherwise described"
            raise DuplicateName(
                f"bitstream {wanted.name} is known {what}: choose another name, or remove it "
                f"with 'flowos bitstream rm {wanted.name}'"
            )
        totals["bitstreams"][wanted.name] = {
            "digest": wanted.digest,
            "kind": wanted.kind,
            "models": list(wanted.models),
        }
        compares = (Seen(key, 0), Seen(keys.TOTALS, modified))
        puts = (Put(key, encode(wanted)), Put(keys.TOTALS, encode(totals)))
        (outcome,) = store.commit([Transaction(compares, puts)])
        if isinstance(outcome, Committed):
            return True
    raise StillContended("the cell kept changing: try again")


def _totals(store: "CellStore") -> "tuple[dict[str, Any], int]":
    """Return the cell's totals, which submissions are checked against, and their revision."""
    import json

    from flowos.model import keys
    from flowos.model.errors import UnknownName

    for record in store.read([keys.TOTALS]).records:
        if record.key == keys.TOTALS:
            return json.loads(record.value), record.modified
    raise UnknownName("the store holds no cell: load one with 'flowos cell init'")


@click.command()
@output_options()
@where_options
def ls(out: Output, where: Where) -> int:
    """List bitstreams, on how many engines they are loaded, and who uses them."""
    from flowos.runtime.shown import bitstream_shown

    def make(view: "CellView", _store: "CellStore") -> list[Item]:
        return [bitstream_shown(view, name) for name in sorted(view.cell.bitstreams)]

    return show_list(where, out, BITSTREAMS, FOLLOWED, make)


@click.command()
@click.argument("name", metavar="NAME", shell_complete=live("bitstream"))
@output_options()
@where_options
def show(name: str, out: Output, where: Where) -> int:
    """Where a bitstream is loaded, and who uses it."""
    from flowos.runtime.shown import bitstream_shown

    def make(view: "CellView", _store: "CellStore") -> Item:
        begun = [n for n in view.cell.bitstreams if n.startswith(name)]
        return bitstream_shown(view, one_of(name, begun, "bitstream", HINT))

    return show_one(where, out, BITSTREAMS, FOLLOWED, make, _details)


def _details(item: Item) -> list[str]:
    return render.pairs(
        [
            ("bitstream", item["name"]),
            ("digest", item["digest"]),
            ("for", f"{item['kind']} {', '.join(item['models'])}".rstrip()),
            ("function", item["function"]),
            ("size", render.amount(item["size_bytes"])),
            ("loads in", f"{item['load_seconds']:g}s"),
            ("loaded on", ", ".join(item["loaded_on"]) or "no engine"),
            ("used by", ", ".join(item["used_by"]) or "no slice"),
        ],
        colour=render.has_colour(),
        width=render.terminal_width(),
    )


@click.command()
@click.argument("names", nargs=-1, metavar="NAME...", shell_complete=live("bitstream"))
@where_options
def rm(names: tuple[str, ...], where: Where) -> int:
    """Forget bitstreams; refused while a slice has or wants one."""
    from flowos.model import keys
    from flowos.model.codec import encode
    from flowos.model.transaction import Committed, Delete, Operation, Put, Seen, Transaction
    from flowos.runtime.shown import bitstream_users, view_of

    if not names:
        raise click.UsageError("name at least one bitstream")
    store = where.store()
    try:
        for _ in range(TRIES_MAX):
            totals, modified = _totals(store)
            found = list(dict.fromkeys(named(store, "bitstream", name, HINT) for name in names))
            view = view_of(store, FOLLOWED)
            for name in found:
                users = bitstream_users(view, view.cell.bitstreams[name])
                if users:
                    raise SpecError(
                        f"bitstream {name} is used by {render.cut(users)}",
                        hint="cancel or wait for who uses it",
                    )
                totals["bitstreams"].pop(name, None)
            writes: list[Operation] = [Delete(keys.inventory("bitstream", n)) for n in found]
            writes.append(Put(keys.TOTALS, encode(totals)))
            (outcome,) = store.commit([Transaction((Seen(keys.TOTALS, modified),), tuple(writes))])
            if isinstance(outcome, Committed):
                return 0
    finally:
        store.close()
    raise StillContended("the cell kept changing: try again")
