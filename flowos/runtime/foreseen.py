"""What would happen: how many more fit, who would have to move, what a request would change?

Everything here looks at a view of its own and changes nothing in the cell.
"""

from collections.abc import Mapping
from typing import Any

from flowos.model.cell import WHOLE_MILLIS
from flowos.model.placement import Decision, Placement, Unplaceable
from flowos.model.slice import Reason, Slice, SliceSpec
from flowos.model.units import lane_unit
from flowos.model.view import CellView
from flowos.planning.engines.pool import Pool
from flowos.planning.place import plan
from flowos.planning.policy import Policy
from flowos.planning.reasons.capacity import Capacity, Count, capacity
from flowos.planning.reasons.defrag import Defrag, defrag
from flowos.planning.reasons.difference import difference
from flowos.planning.reasons.explain import funnel
from flowos.protocol.commit import busy_watts
from flowos.runtime.asking import Asking
from flowos.runtime.explained import short_of
from flowos.runtime.gates import Gates
from flowos.runtime.shown import API_VERSION, Shown, circuit_shown


def capacity_shown(view: CellView, spec: SliceSpec, asked: str) -> Shown:
    """Return what `flowos cell capacity` prints.

    Args:
        view: Inventory, placements and what was observed.
        spec: The request that is counted.
        asked: What was asked, as it was written.

    Raises:
        SpecError: It cannot be counted.
    """
    found = capacity(Pool(view), spec)
    return {
        "apiVersion": API_VERSION,
        "engines": asked,
        "together": next(iter(spec.together.values()), "any"),
        "now": found.now,
        "empty": found.empty,
        "limit": found.limit,
        "sentence": _limit(spec, found),
        "roles": [
            {
                "role": role,
                "now": now.fits,
                "empty": then.fits,
                "free": now.free,
                "engines": then.free,
                "stranded": now.stranded,
            }
            for role, (now, then) in found.roles.items()
        ],
        **{
            plural: [{"name": n, "now": now, "empty": then} for n, (now, then) in table.items()]
            for plural, table in zip(
                ("leaves", "racks", "pods"), found.places.values(), strict=True
            )
        },
    }


def _limit(spec: SliceSpec, found: Capacity) -> str:
    role = found.limit
    choice = spec.engines[role].choices[0]
    now, then = found.roles[role]
    kind = " ".join([choice.kind, *choice.models])
    if not then.free:
        return f"this cell has no {kind} that would do: 'flowos engine ls' lists what it has"
    if choice.share_millis < WHOLE_MILLIS:
        share = f"{choice.share_millis / WHOLE_MILLIS:g}"
        return f"{now.free} of {then.free} {kind} have {share} of themselves free"
    of = f"{now.free} of {then.free} {kind} are free"
    return f"{of}{_stranded(spec, role, now, choice.count)}"


def _stranded(spec: SliceSpec, role: str, now: Count, count: int) -> str:
    if not now.stranded:
        return ""
    word = spec.together.get(role, "any")
    if word == "any":
        return f", of which {now.stranded} are too few for {count} more"
    return f", of which {now.stranded} lie where no {count} are free on one {word}"


def defrag_shown(view: CellView, spec: SliceSpec) -> Shown:
    """Return what `flowos cell defrag --plan` prints.

    Args:
        view: What planners follow, slices included; it is the caller's own.
        spec: The gang that is to be made room for.
    """
    pool = Pool(view)
    now = plan(pool, spec)
    shown: Shown = {
        "apiVersion": API_VERSION,
        "name": spec.name,
        "fits": isinstance(now, Decision),
        "possible": True,
        "reason": None,
        "sentence": "it fits as it is: nothing has to move",
        "moves": [],
        "gang": [],
        "cost": {"engines": 0, "slices": 0, "circuits": 0, "bitstreams": 0, "seconds": 0.0},
        "every_set_tried": True,
    }
    if isinstance(now, Decision):
        shown["gang"] = _engines(now)
        return shown
    found = defrag(pool, spec)
    shown["reason"] = str(now.reason)
    if found is None:
        shown |= {"possible": False, "every_set_tried": False}
        shown["sentence"] = f"no moves that were tried make room for it: {now.sentence}"
        return shown
    shown["sentence"] = _makes_room(found)
    shown["gang"] = _engines(found.gang)
    shown["moves"] = [
        {"slice": m.slice, "role": m.role, "from": m.source, "to": m.target} for m in found.moves
    ]
    shown["cost"] = {
        "engines": len(found.moves),
        "slices": len(found.moved),
        "circuits": found.circuits,
        "bitstreams": found.loads,
        "seconds": found.seconds,
    }
    shown["every_set_tried"] = found.complete
    return shown


def _makes_room(found: Defrag) -> str:
    engines, slices = len(found.moves), len(found.moved)
    what = f"{engines} {'engine' if engines == 1 else 'engines'}"
    whose = f"{slices} {'slice' if slices == 1 else 'slices'}"
    best = "every set of slices was tried" if found.complete else "fewer may do"
    return f"moving {what} of {whose} makes room for it; {best}"


def _engines(decision: Decision) -> list[str]:
    return [engine for engines in decision.engines.values() for engine in engines]


# -- before a submission


def preview(
    view: CellView, spec: SliceSpec, policy: Policy | None = None, *, now: float = 0.0
) -> Shown:
    """Return what `flowos slice submit --dry-run` prints, and count the plan as held from then on.

    Args:
        view: What planners follow, slices included; it is the caller's own.
        spec: The request.
        policy: Whose choice it is; None = the plain planner.
        now: Wall-clock seconds, by which reservations open.

    Returns:
        With `placeable` true, what would change. Else `reason` and `sentence`, and the funnel.
    """
    shown: Shown = {"apiVersion": API_VERSION, "name": spec.name, "tenant": spec.tenant}
    gates = Gates(view)
    gates.restart()
    closed = gates.closed(spec.id, Slice(spec))
    if closed is not None:
        return shown | {
            "placeable": False,
            "reason": str(closed.reason),
            "sentence": closed.sentence,
            "funnel": [],
        }
    pool = Pool(view)
    found = Asking(view, policy, now=now)(pool, spec)
    if isinstance(found, Unplaceable):
        pool.close()
        return shown | {
            "placeable": False,
            "reason": str(found.reason),
            "sentence": found.sentence,
            "funnel": [{"step": s, "engines": n} for s, n in funnel(Pool(view), spec)],
        }
    short = short_of(view, spec.id, found)
    changes = _changes(view, found)
    view.assume(spec.id, _as_if(found, view))
    pool.close()
    if short:
        purse, amount = next(iter(short.items()))
        family, name, *kind = purse.split(":")
        power = family == "domain"
        lack = f"{amount} W" if power else f"a quota of {amount / 1000:g} more {kind[0]}"
        return shown | {
            "placeable": False,
            "reason": str(Reason.WAITING_FOR_POWER if power else Reason.QUOTA_EXCEEDED),
            "sentence": f"its engines are free, but {family} {name} lacks {lack} for them",
            "funnel": [],
        }
    return shown | {"placeable": True, "reason": None, "sentence": _in_words(changes), **changes}


def _as_if(decision: Decision, view: CellView) -> Placement:
    return Placement(
        0, f"if {len(view.by_attempt)}", held=decision.units, engines=decision.engines,
        hosts=decision.hosts, circuits=decision.circuits, bitstreams=decision.bitstreams,
    )  # fmt: skip


def _changes(view: CellView, decision: Decision) -> dict[str, Any]:
    changes = difference(view, decision)
    loads = {load.engine: load for load in changes.loads}
    return {
        "engines": [
            {
                "id": engine,
                "node": engine.partition("/")[0],
                "kind": view.cell.engines[engine].kind,
                "model": view.cell.engines[engine].model,
                "role": role,
                "share": changes.shares.get(engine, WHOLE_MILLIS) / WHOLE_MILLIS,
                "bitstream": decision.bitstreams.get(engine),
                "woken": engine in changes.woken,
                "loads": engine in loads,
            }
            for role, engines in changes.engines.items()
            for engine in engines
        ],
        "hosts": [
            {"node": node, "role": role} for role, nodes in changes.hosts.items() for node in nodes
        ],
        "woken": list(changes.woken),
        "loads": [
            {
                "engine": load.engine,
                "bitstream": load.bitstream,
                "instead_of": load.instead_of or None,
                "seconds": load.seconds,
            }
            for load in changes.loads
        ],
        "circuits": [circuit_shown(view.cell, circuit) for circuit in changes.made],
        "circuits_untouched": changes.untouched,
        "lanes": changes.lanes,
        "lanes_free": changes.lanes_free,
        "lanes_claimed": sum(
            lane_unit(arc.link, arc.direction, lane) in decision.units
            for circuit in decision.circuits
            for arc in circuit.arcs
            for lane in arc.lanes
        ),
        "watts": busy_watts(view.cell, decision.units),
    }


def _in_words(changes: Mapping[str, Any]) -> str:
    def counted(count: int, what: str) -> str:
        return f"{count} {what}{'' if count == 1 else 's'}"

    parts = [
        counted(len(changes["engines"]), "engine"),
        f"{len(changes['woken'])} of them woken" if changes["woken"] else "",
        counted(len(changes["loads"]), "bitstream") + " loaded" if changes["loads"] else "",
        counted(len(changes["circuits"]), "circuit") + " made",
        f"{counted(changes['circuits_untouched'], 'circuit')} of others untouched",
    ]
    return "it can be placed now: " + ", ".join(filter(None, parts))
