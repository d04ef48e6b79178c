"""Which units does a new reservation keep, and how does each one stand? For the command."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from math import inf

from flowos.model import keys
from flowos.model.codec import encode
from flowos.model.errors import DuplicateName, SpecError, UnknownName
from flowos.model.rules import Reservation
from flowos.model.transaction import Delete, Put, Seen, Transaction
from flowos.model.units import engine_unit, subject_of
from flowos.model.view import CellView
from flowos.planning.reserved import when
from flowos.planning.shadow import left
from flowos.protocol.reserved import name_of
from flowos.protocol.takeover import holders_of
from flowos.runtime.shown import API_VERSION, Shown

HINT = "'flowos reservation ls' lists all"
FOLLOWS = (*keys.INVENTORY, "slice/", "placement/", "rule/")


def added(
    view: CellView,
    window: Reservation,
    *,
    names: Sequence[str] = (),
    counts: Mapping[str, int] | None = None,
    now: float,
) -> tuple[Reservation, Transaction]:
    """Return a reservation with its units, and the transaction that makes it.

    It compares that no other one is made or removed meanwhile: so no two overlap.

    Args:
        view: Follows `FOLLOWS`.
        window: All that is said of it but its units.
        names: Engines, nodes and switches to keep.
        counts: Kind of engine -> how many to keep: free ones, or those that are free soonest.
        now: Wall-clock seconds.

    Raises:
        DuplicateName: There is one of this name.
        UnknownName: A tenant, an engine, a node or a switch that is not there.
        SpecError: It is over already, it overlaps with another one, or there are too few engines.
    """
    if window.name in view.reservations:
        raise DuplicateName(f"there is a reservation {window.name} already: {HINT}")
    if window.until_at is not None and window.until_at <= max(now, window.from_at):
        before = "it begins" if window.until_at <= window.from_at else "now"
        raise SpecError(f"its end, {when(window.until_at)}, is before {before}", where="--until")
    for tenant in window.tenants:
        if tenant not in view.cell.tenants:
            raise UnknownName(
                f"there is no tenant {tenant}: 'flowos tenant ls' lists all, "
                f"'flowos tenant set {tenant}' makes it"
            )
    units = [unit for name in names for unit in _units_named(view, name, window)]
    units += _picked(view, window, counts or {}, units, now)
    units = list(dict.fromkeys(units))
    for other in view.reservations.values():
        both = sorted({*other.units} & {*units})
        if both and _overlap(window, other):
            raise SpecError(
                f"{subject_of(both[0])} is kept by reservation {other.name} from {_span(other)}",
                hint="choose another time, or other units",
            )
    made = Reservation(
        window.name, tuple(units), window.tenants, window.from_at, window.until_at, window.evict,
        window.why,
    )  # fmt: skip
    known = view.epochs.get("reservations", 0)
    compares = (Seen(keys.RESERVATIONS, known), Seen(keys.reservation(window.name), 0))
    puts = (
        Put(keys.reservation(window.name), encode(made)),
        Put(keys.RESERVATIONS, encode(window.name)),
    )
    return made, Transaction(compares, puts)


def removed(view: CellView, name: str) -> Transaction:
    """Return the transaction that removes a reservation; the controller then lets its units go.

    Raises:
        UnknownName: There is none of this name.
    """
    if name not in view.reservations:
        raise UnknownName(f"there is no reservation {name}: {HINT}")
    compare = Seen(keys.RESERVATIONS, view.epochs.get("reservations", 0))
    changes = (Delete(keys.reservation(name)), Put(keys.RESERVATIONS, encode(name)))
    return Transaction((compare,), changes)


def window_shown(view: CellView, name: str, now: float) -> Shown:
    """Return a reservation as `flowos reservation ls` prints it.

    Args:
        view: Follows rules and placements.
        name: The reservation.
        now: Wall-clock seconds.
    """
    window = view.reservations[name]
    over = window.until_at is not None and window.until_at <= now
    kept = {
        u: view.placements[n].value
        for u in window.units
        if (n := name_of(name, u)) in view.placements
    }
    users = [n for u in window.units for n in holders_of(view, u) if not n.startswith("~")]
    mine = [n for n in users if window.is_for(n.partition("/")[0])]
    return {
        "apiVersion": API_VERSION,
        "name": name,
        "state": "closed" if over else "open" if window.from_at <= now or kept else "planned",
        "tenants": list(window.tenants),
        "maintenance": not window.tenants,
        "from": _iso(window.from_at),
        "until": None if window.until_at is None else _iso(window.until_at),
        "evict": window.evict,
        "units": list(window.units),
        "held": sum(bool(placement.held) for placement in kept.values()),
        "in_use": sum(
            any(window.is_for(n.partition("/")[0]) for n in holders_of(view, u))
            for u in window.units
        ),
        "slices": sorted({*mine}),
        "in_the_way": sorted({*users} - {*mine}) if kept else [],
        "why": window.why,
    }


def _units_named(view: CellView, name: str, window: Reservation) -> list[str]:
    """Return the units that a name means: a node is its engines, and for maintenance itself too."""
    cell = view.cell
    if name in cell.engines:
        return [engine_unit(name)]
    if name in cell.nodes:
        engines = [engine_unit(engine) for engine in cell.engines_of.get(name, ())]
        if window.tenants and not engines:
            raise SpecError(f"node {name} has no engines to keep for a tenant", where="--units")
        return engines if window.tenants else [*engines, f"node/{name}"]
    if name in cell.switches:
        if window.tenants:
            raise SpecError(
                f"switch {name} cannot be kept for a tenant",
                where="--units",
                hint="name engines or nodes, or say --maintenance",
            )
        return [f"switch/{name}"]
    raise UnknownName(
        f"there is no engine, node or switch {name}: 'flowos engine ls' and 'flowos switch ls' "
        "list all"
    )


def _picked(
    view: CellView,
    window: Reservation,
    counts: Mapping[str, int],
    chosen: Sequence[str],
    now: float,
) -> list[str]:
    """Return engines of each kind: those of which the most certain is that they are free then.

    What is free comes first, then what is soonest given back; what is out of service, chosen
    already, or kept by another reservation at the same time is left out. Whole nodes where it
    makes no difference, since gangs want engines together.
    """
    taken = {*chosen}
    for other in view.reservations.values():
        if _overlap(window, other):
            taken |= {*other.units}
    found: list[str] = []
    for kind, count in counts.items():
        there = [
            engine.id
            for engine in view.cell.engines.values()
            if engine.kind == kind and engine_unit(engine.id) not in taken
        ]
        waits = {engine: _free_in(view, engine, now) for engine in there}
        able = [engine for engine in there if waits[engine] is not None]
        if len(able) < count:
            total = sum(engine.kind == kind for engine in view.cell.engines.values())
            if not total:
                kinds = sorted({engine.kind for engine in view.cell.engines.values()})
                raise SpecError(
                    f"the cell has no engines of kind '{kind}'",
                    where="--engines",
                    hint=f"it has {', '.join(kinds)}",
                )
            raise SpecError(
                f"{count} {kind} are asked for, {len(able)} of {total} can be kept then",
                where="--engines",
                hint=f"ask for fewer, or for another time: {HINT}",
            )
        nodes: dict[str, float] = {}
        for engine in able:
            node = engine.partition("/")[0]
            nodes[node] = max(nodes.get(node, 0.0), waits[engine] or 0.0)
        able.sort(key=lambda e: (nodes[e.partition("/")[0]], e.partition("/")[0], waits[e] or 0, e))
        found += [engine_unit(engine) for engine in able[:count]]
    return found


def _free_in(view: CellView, engine: str, now: float) -> float | None:
    """Return in how many seconds an engine is given back; None = it is out of service."""
    node = view.cell.engines[engine].node
    if f"node/{node}" in view.holders:
        return None
    wait = 0.0
    for name in holders_of(view, engine_unit(engine)):
        if name.startswith(("~drain", "~quarantine")):
            return None
        if not name.startswith("~off"):
            ends = left(view, name, now)
            wait = max(wait, inf if ends is None else ends)
    return wait


def _overlap(one: Reservation, other: Reservation) -> bool:
    def until(window: Reservation) -> float:
        return inf if window.until_at is None else window.until_at

    return one.from_at < until(other) and other.from_at < until(one)


def _span(window: Reservation) -> str:
    end = "on" if window.until_at is None else f"to {when(window.until_at)}"
    return f"{when(window.from_at)} {end}"


def _iso(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}"
