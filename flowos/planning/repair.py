"""A few members of a plan were lost to a rival: which others take their places?

All that was not lost stays where it is, so that a large gang need not be planned again for the
sake of one engine, and does not move into the way of others. Circuits are laid anew over the
same engines, for they have to reach the new ones.
"""

from collections.abc import Collection, Mapping
from typing import Final

from flowos.model.placement import Decision, Unplaceable
from flowos.model.slice import SliceSpec
from flowos.model.units import Amounts, engine_unit, host_unit, kind_of, share_unit, subject_of
from flowos.planning.circuits.route import Blocked, route, wishes_of
from flowos.planning.engines.pool import Pool
from flowos.planning.reshape import BY_RANK, more_of

_LAID: Final = ("lane", "aggregator")  # what circuits bring with them


def repaired(
    pool: Pool,
    spec: SliceSpec,
    decision: Decision,
    lost: Collection[str],
    *,
    seed: int = 0,
    avoid: Collection[str] = (),
) -> Decision | None:
    """Return a decision with others in place of what was lost, all else as it was.

    Args:
        pool: What is free now; nothing of `decision` is held or assumed in it.
        spec: The request.
        decision: What was planned.
        lost: Units of it that somebody else has.
        seed: As for `plan`.
        avoid: Units to leave alone.

    Returns:
        None where that cannot be done simply: then all is planned again. That is so where whole
        roles have to be on one node or switch, data decides where they go, devices are attached
        to hosts, more was lost than was kept, or circuits name ranks that the plan has not: then
        the request has changed since.
    """
    pool.fold()
    broken = {
        role: [engine for engine in engines if _of(engine) & {*lost}]
        for role, engines in decision.engines.items()
    }
    broken = {role: engines for role, engines in broken.items() if engines}
    if not _is_simple(spec, decision, broken, lost):
        return None
    kept = {unit: amounts for unit, amounts in decision.units.items() if kind_of(unit) not in _LAID}
    bitstreams = dict(decision.bitstreams)
    engines, hosts = dict(decision.engines), dict(decision.hosts)
    for role, gone in broken.items():
        taken = {unit for unit in kept if kind_of(unit) != "host"}
        found = _others(pool, spec, decision, role, gone, seed, {*avoid, *lost, *taken})
        if found is None:
            return None
        instead = dict(zip(gone, found.engines[role], strict=True))
        on = dict(zip(found.engines[role], found.hosts.get(role, ()), strict=False))
        nodes = dict(zip(engines[role], hosts.get(role, ()), strict=False))
        engines[role] = tuple(instead.get(engine, engine) for engine in engines[role])
        if nodes:
            after = {**nodes, **on}
            hosts[role] = tuple(after[engine] for engine in engines[role])
        for engine in gone:
            bitstreams.pop(engine, None)
        bitstreams |= found.bitstreams
        _move(kept, spec, role, gone, nodes, found)
    if not _all_free(pool, kept):
        return None
    shared = {subject_of(unit) for unit in kept if kind_of(unit) == "share"}
    whole = {e for members in engines.values() for e in members} - shared
    wishes = wishes_of(spec.circuits, {**hosts, **engines})
    routed = route(
        pool, wishes, whole=whole, name=spec.name, bounds=spec.constraints, seed=seed,
        avoid={*avoid, *lost},
    )  # fmt: skip
    if isinstance(routed, Blocked):
        return None
    units = {**kept, **dict.fromkeys(routed.units, ())}
    return Decision(engines, units, hosts, routed.circuits, bitstreams)


def _of(engine: str) -> set[str]:
    return {engine_unit(engine), share_unit(engine)}


def _is_simple(
    spec: SliceSpec,
    decision: Decision,
    broken: Mapping[str, list[str]],
    lost: Collection[str],
) -> bool:
    if spec.data or spec.work or any(spec.together.get(role, "any") != "any" for role in broken):
        return False
    if any(kind_of(unit) not in ("engine", "share", *_LAID) for unit in lost):
        return False  # hosts, and what is out of service
    if any(role not in spec.engines or len(spec.engines[role].choices) > 1 for role in broken):
        return False
    ranked = {role for wish in spec.circuits if wish.shape in BY_RANK for role in wish.roles}
    if any(
        len(decision.engines.get(role, ())) not in {c.count for c in spec.engines[role].choices}
        for role in ranked & spec.engines.keys()
    ):
        return False
    attached = set(decision.hosts) - set(spec.engines)
    if any(role in attached for wish in spec.circuits for role in wish.roles):
        return False
    gone = sum(map(len, broken.values()))
    return 2 * gone <= sum(map(len, decision.engines.values()))


def _others(
    pool: Pool,
    spec: SliceSpec,
    decision: Decision,
    role: str,
    gone: list[str],
    seed: int,
    avoid: set[str],
) -> Decision | None:
    """Return engines for the members of a role that are gone, beside all that is kept."""
    mine = {unit for members in decision.engines.values() for e in members for unit in _of(e)}
    found = more_of(pool, spec, role, len(gone), seed=seed, avoid=avoid | mine)
    return None if isinstance(found, Unplaceable) else found


def _move(
    kept: dict[str, Amounts],
    spec: SliceSpec,
    role: str,
    gone: list[str],
    nodes: Mapping[str, str],
    found: Decision,
) -> None:
    """Put what was found into the units in place of what is gone."""
    host = spec.hosts.get(role)
    for engine in gone:
        for unit in _of(engine):
            kept.pop(unit, None)
        if engine in nodes and host is not None:
            unit = host_unit(nodes[engine])
            cpu_millis, memory_bytes = kept[unit][:2]
            left = cpu_millis - host.cpu_millis, memory_bytes - host.memory_bytes
            if any(left):
                kept[unit] = left
            else:
                del kept[unit]
    for unit, amounts in found.units.items():
        if kind_of(unit) == "host" and unit in kept:
            cpu_millis, memory_bytes = kept[unit][:2]
            kept[unit] = cpu_millis + amounts[0], memory_bytes + amounts[1]
        else:
            kept[unit] = amounts


def _all_free(pool: Pool, units: Mapping[str, Amounts]) -> bool:
    """Whether all that is kept can still be had; what was lost need not be all that is gone."""
    view = pool.view
    for unit, amounts in units.items():
        match kind_of(unit), subject_of(unit):
            case "engine", engine:
                holder = view.holder(unit)
                if holder is not None and not holder.startswith("~off/"):
                    return False
                if view.shares.get(engine) or view.wanted.get(unit):
                    return False
            case "share", engine:
                if amounts[0] > view.free_millis(engine):
                    return False
            case "host", node:
                if not view.host_has(node, amounts):
                    return False
    return True
