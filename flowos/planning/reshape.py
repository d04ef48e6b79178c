"""A slice wants another size than it has: what is it to take in addition, and what can it give up?

Make before break: first it takes what it lacks, engines and the circuits between all that stay, and
goes on with what it has; once all of that is up, what it does not want any more goes.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Final, NamedTuple

from flowos.model.cell import Cell
from flowos.model.placement import Circuit, Decision, Placement, Unplaceable
from flowos.model.slice import CircuitWish, EngineRole, HostRole, Reason, Shape, SliceSpec
from flowos.model.units import Amounts, kind_of, lane_unit, subject_of
from flowos.planning.circuits.route import Blocked, Wish, route, wishes_of
from flowos.planning.engines.pool import Pool
from flowos.planning.place import plan

Ends = tuple[str, tuple[str, ...], int, str, tuple[str, ...]]  # what two circuits have in common

BY_RANK: Final = frozenset({Shape.TORUS, Shape.EXPLICIT})  # of no use until all ranks are there
_LAID: Final = ("lane", "aggregator")  # what circuits bring with them


class Sizes(NamedTuple):
    """How many engines a role has, and is to have."""

    has: int
    wants: int


def sizes_of(spec: SliceSpec, placement: Placement) -> dict[str, Sizes]:
    """Return the sizes of the roles that can be resized: those with one choice of engines.

    None of a slice that names data: what moves the data was worked out once, for its engines.
    """
    if spec.data:
        return {}
    return {
        role: Sizes(len(placement.engines.get(role, ())), wish.choices[0].count)
        for role, wish in spec.engines.items()
        if len(wish.choices) == 1 and role in placement.engines
    }


def is_as_wanted(spec: SliceSpec, placement: Placement) -> bool:
    """Whether a placement has the engines that its slice asks for; circuits are not looked at."""
    return all(size.has == size.wants for size in sizes_of(spec, placement).values())


def lacks_circuits(spec: SliceSpec, placement: Placement) -> bool:
    """Whether a circuit between the engines that stay is still to be made."""
    stays = _staying(spec, placement)
    if spec.data:
        return False
    return _waits_for_ranks(spec, placement, stays) or bool(_missing(spec, placement, stays))


def grown(
    pool: Pool,
    spec: SliceSpec,
    placement: Placement,
    *,
    seed: int = 0,
    avoid: Collection[str] = (),
) -> Decision | Unplaceable | None:
    """Return all that a slice holds and what it lacks, as far as that can be had now.

    Args:
        pool: What is free now.
        spec: The request, of the new size.
        placement: What it holds; nothing of it is on its way out.
        seed: As for `plan`.
        avoid: Units to leave alone.

    Returns:
        None where it lacks nothing. What is to go afterwards is in the decision still.
    """
    pool.fold()
    lacks = {
        role: size.wants - size.has
        for role, size in sizes_of(spec, placement).items()
        if size.wants > size.has
    }
    stays = _staying(spec, placement)
    if spec.data or (not lacks and not _missing(spec, placement, stays)):
        return None
    first: Unplaceable | None = None
    while True:
        found = _with_more(pool, spec, placement, lacks, seed, {*avoid, *placement.held})
        if isinstance(found, Decision):
            return found
        first = first or found
        lacks = {role: count // 2 for role, count in lacks.items() if count > 1}
        if not lacks:  # what is there already may lack circuits all the same
            return first


def kept(spec: SliceSpec, placement: Placement) -> Decision | None:
    """Return what a slice goes on with when all goes that it does not want.

    Returns:
        None where there is nothing to give up, or circuits between what stays are still to be made.
    """
    engines = _staying(spec, placement)
    if spec.data or _waits_for_ranks(spec, placement, engines):
        return None
    if _missing(spec, placement, engines):
        return None
    return what_stays(spec, placement, engines)


def what_stays(
    spec: SliceSpec, placement: Placement, engines: Mapping[str, tuple[str, ...]] | None = None
) -> Decision | None:
    """Return what is left of a placement with these engines alone, None where that is all of it.

    Args:
        spec: The request.
        placement: What it holds.
        engines: Role -> those that stay; None = the first so many of each role that are wanted, and
            circuits go that will not be wanted with those that are to come.
    """
    after = engines
    if engines is None:
        engines, after = _staying(spec, placement), _to_come(spec, placement)
    assert after is not None, "engines were given, or thought of"
    hosts = _hosts(placement, engines)
    wanted = {_ends(wish) for wish in wishes_of(spec.circuits, {**hosts, **after})}
    circuits = tuple(circuit for circuit in placement.circuits if _ends(circuit) in wanted)
    members = {engine for role in engines.values() for engine in role}
    nodes = {node for role in hosts.values() for node in role}
    laid = {
        lane_unit(arc.link, arc.direction, lane)
        for circuit in circuits
        for arc in circuit.arcs
        for lane in arc.lanes
    }
    laid.update(unit for circuit in circuits for unit in circuit.aggregators)
    units: dict[str, Amounts] = {}
    for unit, amounts in placement.held.items():
        kind, subject = kind_of(unit), subject_of(unit)
        if kind in _LAID:
            stays = unit in laid
        elif kind == "host":
            stays = subject in nodes
        else:
            stays = subject in members
        if stays:
            units[unit] = amounts
    if units.keys() == placement.held.keys() and circuits == placement.circuits:
        return None
    bitstreams = {e: what for e, what in placement.bitstreams.items() if e in members}
    return Decision(engines, units, hosts, circuits, bitstreams)


def more_of(
    pool: Pool,
    spec: SliceSpec,
    role: str,
    count: int,
    *,
    seed: int = 0,
    avoid: Collection[str] = (),
) -> Decision | Unplaceable:
    """Plan so many engines of one role alone, with what each needs of its host, without circuits."""
    (choice,) = spec.engines[role].choices
    host = spec.hosts.get(role)
    alone = replace(
        spec,
        engines={role: EngineRole((replace(choice, count=count),))},
        hosts={role: HostRole(host.cpu_millis, host.memory_bytes)} if host else {},
        together={},
        circuits=(),
        elastic={},
        data=(),
        work={role: spec.work[role]} if role in spec.work else {},
    )
    return plan(pool, alone, seed=seed, avoid=avoid)


def _staying(spec: SliceSpec, placement: Placement) -> dict[str, tuple[str, ...]]:
    sizes = sizes_of(spec, placement)
    return {
        role: engines[: sizes[role].wants] if role in sizes else engines
        for role, engines in placement.engines.items()
    }


def _to_come(spec: SliceSpec, placement: Placement) -> dict[str, tuple[str, ...]]:
    """Return the engines of the wanted size, with names that no engine has for those to come."""
    found = _staying(spec, placement)
    for role, size in sizes_of(spec, placement).items():
        found[role] += tuple(f"?{role}/{n}" for n in range(size.has, size.wants))
    return found


def _hosts(
    placement: Placement, engines: Mapping[str, tuple[str, ...]]
) -> dict[str, tuple[str, ...]]:
    """Return role -> hosts; those of an engine role go with its engines."""
    return {
        role: nodes[: len(engines[role])] if role in engines else nodes
        for role, nodes in placement.hosts.items()
    }


def _ends(circuit: Circuit | Wish) -> Ends:
    return (
        circuit.source,
        circuit.targets,
        circuit.lanes,
        circuit.aggregate,
        circuit.sources,
    )


def _missing(
    spec: SliceSpec, placement: Placement, engines: Mapping[str, tuple[str, ...]]
) -> list[Wish]:
    """Return the circuits that are wanted between these engines and are not there.

    Those that are named by rank come once every rank is there.
    """
    there = {_ends(circuit) for circuit in placement.circuits}
    ends = {**_hosts(placement, engines), **engines}
    sizes = sizes_of(spec, placement)
    wanted = [wish for wish in spec.circuits if not _lacks_ranks(wish, sizes, engines)]
    return [wish for wish in wishes_of(wanted, ends) if _ends(wish) not in there]


def _waits_for_ranks(
    spec: SliceSpec, placement: Placement, engines: Mapping[str, tuple[str, ...]]
) -> bool:
    """Whether circuits are named by the rank of an engine that is not among these."""
    sizes = sizes_of(spec, placement)
    return any(_lacks_ranks(wish, sizes, engines) for wish in spec.circuits)


def _lacks_ranks(
    wish: CircuitWish, sizes: Mapping[str, Sizes], engines: Mapping[str, tuple[str, ...]]
) -> bool:
    return wish.shape in BY_RANK and any(
        len(engines[role]) < sizes[role].wants for role in wish.roles if role in sizes
    )


def _with_more(
    pool: Pool,
    spec: SliceSpec,
    placement: Placement,
    lacks: Mapping[str, int],
    seed: int,
    avoid: set[str],
) -> Decision | Unplaceable:
    stays, hosts = _staying(spec, placement), dict(placement.hosts)
    every = dict(placement.engines)
    units: dict[str, Amounts] = dict(placement.held)
    bitstreams = dict(placement.bitstreams)
    for role, count in lacks.items():
        beside = _elsewhere(pool.view.cell, spec.together.get(role, "any"), stays[role])
        taken = {unit for unit in units if kind_of(unit) != "host"}
        found = more_of(pool, spec, role, count, seed=seed, avoid=avoid | taken | beside)
        if isinstance(found, Unplaceable):
            return found
        stays[role] = every[role] = (*stays[role], *found.engines[role])
        if role in found.hosts:
            hosts[role] = (*hosts.get(role, ()), *found.hosts[role])
        bitstreams |= found.bitstreams
        for unit, amounts in found.units.items():
            had = units.get(unit, ())
            units[unit] = tuple(a + b for a, b in zip(amounts, had, strict=False)) or amounts
            if len(had) > len(amounts):
                units[unit] += had[len(amounts) :]
    after = replace(placement, engines=every, hosts=hosts)
    last = max((int(c.id.rpartition("/")[2]) for c in placement.circuits), default=-1)
    wishes = [
        wish._replace(number=number)
        for number, wish in enumerate(_missing(spec, after, stays), last + 1)
    ]
    shared = {subject_of(unit) for unit in units if kind_of(unit) == "share"}
    whole = {engine for members in every.values() for engine in members} - shared
    # The ports of engines that are held whole are its own, and its circuits use them already.
    used = {
        lane_unit(arc.link, arc.direction, lane)
        for circuit in placement.circuits
        for arc in circuit.arcs
        for lane in arc.lanes
    }
    routed = route(
        pool, wishes, whole=whole, name=spec.name, bounds=spec.constraints, seed=seed,
        avoid=avoid | used,
    )  # fmt: skip
    if isinstance(routed, Blocked):
        ends = f"{routed.wish.source} to {', '.join(routed.wish.targets)}"
        return Unplaceable(
            Reason.NO_CIRCUIT, f"to grow it needs a circuit from {ends}: {routed.why}"
        )
    units.update(dict.fromkeys(routed.units, ()))
    return Decision(every, units, hosts, (*placement.circuits, *routed.circuits), bitstreams)


def _elsewhere(cell: Cell, together: str, engines: tuple[str, ...]) -> set[str]:
    """Return the nodes where more of a role must not go, as units of theirs."""
    if together == "any" or not engines:
        return set()
    nodes = {engine.partition("/")[0] for engine in engines}
    if together == "switch":
        leaves = set.intersection(*(_switches_at(cell, engine) for engine in engines))
        nodes = {
            cell.engines[engine].node
            for engine in cell.engines
            if _switches_at(cell, engine) & leaves
        }
    return {f"node/{node}" for node in cell.nodes if node not in nodes}


def _switches_at(cell: Cell, engine: str) -> set[str]:
    """Return the switches that an engine has a link to."""
    links = (cell.links[name] for name in cell.links_at.get(engine, ()))
    return {
        thing for link in links for thing in (link.a_thing, link.b_thing) if thing in cell.switches
    }
