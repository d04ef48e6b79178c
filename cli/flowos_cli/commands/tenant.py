"""`flowos tenant`: who slices belong to, and how much of the cell may be theirs."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import click

from flowos.model.errors import SpecError, StillContended, UnknownName
from flowos_cli.commands.completion import live
from flowos_cli.lazy import LazyGroup
from flowos_cli.output import Listing, Output, output_options, say, show_list
from flowos_cli.render import Column, Item
from flowos_cli.wiring import Where, where_options

if TYPE_CHECKING:
    from flowos.model.protocols import CellStore
    from flowos.model.view import CellView

TRIES_MAX: Final = 20
WEIGHT_MAX: Final = 1_000_000
TENANTS: Final = Listing(
    columns=(
        Column("name", lambda t: t["name"]),
        Column("weight", lambda t: str(t["weight"]), right=True),
        Column("quota", lambda t: _amounts(t["quota"])),
        Column("in force", lambda t: _limits(t, "in_force")),
        Column("used", lambda t: _limits(t, "used")),
        Column("granted", lambda t: _limits(t, "granted"), wide=True),
        Column("held", lambda t: _amounts(t["held"])),
        Column("placed", lambda t: str(t["placed"]), right=True),
        Column("pending", lambda t: str(t["pending"]), right=True),
    ),
    empty="no tenants: 'flowos tenant set default' makes the one that is taken where none is named",
)


def _limits(tenant: Item, what: str) -> str:
    return _amounts({kind: limit[what] for kind, limit in tenant["limits"].items()})


def _amounts(counts: dict[str, int]) -> str:
    return ",".join(f"{kind}={count}" for kind, count in counts.items()) or "-"


@click.group(
    cls=LazyGroup,
    short_help="Set and list tenants.",
    table={
        "set": (f"{__name__}:set_", "Make a tenant, or change it."),
        "ls": (f"{__name__}:ls", "List tenants."),
    },
)
def tenant() -> None:
    """Tenants: who slices belong to."""


@click.command("set")
@click.argument("name", metavar="NAME", shell_complete=live("tenant"))
@click.option(
    "--weight",
    type=click.IntRange(1, WEIGHT_MAX),
    default=None,
    metavar="N",
    help="Its share beside others; default 1.",
)
@click.option(
    "--quota",
    default=None,
    metavar="gpu=8,fpga=2",
    help="The most engines of a kind it may hold at once; 'none' takes all limits away.",
)
@where_options
def set_(name: str, weight: int | None, quota: str | None, where: Where) -> int:
    """Make a tenant, or change what is said of it.

    \b
    flowos tenant set vision --weight 2 --quota gpu=8,fpga=2
    flowos tenant set vision --quota none
    """
    import json

    from flowos.documents.fields import SLICE_NAME
    from flowos.model import keys
    from flowos.model.cell import Tenant
    from flowos.model.codec import decode, encode
    from flowos.model.transaction import Committed, Put, Seen, Transaction

    if SLICE_NAME.fullmatch(name) is None:
        raise SpecError(
            f"'{name}' is no name for a tenant",
            hint="use up to 63 small letters, digits and dashes, such as vision",
        )
    limits = None if quota is None else _quota(quota)
    key, epoch = keys.inventory("tenant", name), keys.epoch(f"tenant:{name}")
    store = where.store()
    try:
        for _ in range(TRIES_MAX):
            known = {r.key: r for r in store.read([key, keys.TOTALS, epoch]).records}
            if keys.TOTALS not in known:
                raise UnknownName("the store holds no cell: load one with 'flowos cell init'")
            totals = json.loads(known[keys.TOTALS].value)
            _known_kinds(limits or {}, totals["kinds"])
            before = decode(Tenant, known[key].value) if key in known else Tenant(name)
            after = replace(
                before,
                weight=before.weight if weight is None else weight,
                quota=before.quota if limits is None else limits,
            )
            if after == before and key in known:
                return 0
            totals["tenants"] = sorted({*totals["tenants"], name})
            compares = [Seen(k, known[k].modified if k in known else 0) for k in (key, keys.TOTALS)]
            # Whoever commits for this tenant compares its record: so it sees the new rule.
            puts = (
                Put(key, encode(after)),
                Put(keys.TOTALS, encode(totals)),
                Put(epoch, encode(name)),
            )
            (outcome,) = store.commit([Transaction(tuple(compares), puts)])
            if isinstance(outcome, Committed):
                say(f"tenant {name} is {'changed' if key in known else 'made'}")
                if any(n < before.quota.get(kind, n) for kind, n in after.quota.items()):
                    say(
                        "nothing that runs is taken away: where more is held than the quota allows, "
                        "it comes into force as slices end ('flowos tenant ls')"
                    )
                return 0
    finally:
        store.close()
    raise StillContended(f"tenant {name} kept changing: try again")


def _known_kinds(limits: Mapping[str, int], kinds: Collection[str]) -> None:
    """Refuse limits of kinds that the cell has none of: most are typing errors."""
    for kind in limits:
        if kind not in kinds:
            raise SpecError(
                f"the cell has no engines of kind '{kind}'",
                where="--quota",
                hint=f"it has {', '.join(sorted(kinds))}",
            )


def _quota(text: str) -> dict[str, int]:
    """Read "gpu=8,fpga=2"; "none" is no limit at all."""
    if text == "none":
        return {}
    limits: dict[str, int] = {}
    for part in text.split(","):
        kind, equals, count = (word.strip() for word in part.partition("="))
        if not (kind and equals and count.isascii() and count.isdigit() and len(count) < 10):
            raise SpecError(
                f"'{part.strip()}' is no limit", where="--quota", hint="write gpu=8,fpga=2, or none"
            )
        if kind in limits:
            raise SpecError(f"{kind} stands twice", where="--quota", hint="keep one of the two")
        limits[kind] = int(count)
    return limits


@click.command()
@output_options()
@where_options
def ls(out: Output, where: Where) -> int:
    """List tenants with what they may hold, and what they do hold.

    QUOTA is what is wanted, IN FORCE what is so far: more, as long as slices from before a quota was
    lowered hold more. USED counts parts of engines as parts, GRANTED what schedulers may still give
    away without asking. HELD are the engines of all kinds.

    \b
    flowos tenant ls -o wide
    """
    from flowos.runtime.shown import SLICES, add_engines, held_engines, tenants_shown

    def make(view: "CellView", store: "CellStore") -> list[Item]:
        add_engines(store, view, held_engines(view))
        return [*tenants_shown(view)]

    return show_list(where, out, TENANTS, ("tenant/", "grant/", *SLICES), make)
