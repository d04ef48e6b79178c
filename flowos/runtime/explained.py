"""Why does a slice wait, and what would let it go on? For people and scripts."""

from collections.abc import Iterator
from math import inf
from typing import Any

from flowos.model.errors import SpecError
from flowos.model.life import phase_in
from flowos.model.placement import Placement
from flowos.model.slice import Phase, Reason, SliceSpec
from flowos.model.units import engine_unit, subject_of
from flowos.model.view import CellView
from flowos.planning.demand import Want, demand_of
from flowos.planning.explain import why_not
from flowos.planning.pool import Pool
from flowos.runtime.shown import API_VERSION, Shown, slice_shown

UNBLOCK_MAX = 5  # who else is in the way is of no use to know


def explained(view: CellView, identifier: str, *, now: float, why_not_engine: str = "") -> Shown:
    """Return what `flowos slice explain` prints.

    Args:
        view: Follows everything that planners follow, and `reason/`, orders and reports.
        identifier: "tenant/name", of a slice that the view has.
        now: Wall-clock seconds, for how long others may still take.
        why_not_engine: An engine to be told of; "" = none.
    """
    slice_ = view.slices[identifier].value
    shown = slice_shown(view, identifier, circuits=False)
    waiting = view.reasons.get(identifier)
    said = waiting.value if waiting and shown["reason"] == waiting.value.reason else None
    found: Shown = {
        "apiVersion": API_VERSION,
        "name": shown["name"],
        "tenant": shown["tenant"],
        "phase": shown["phase"],
        "policy": shown["policy"],
        "reason": shown["reason"],
        "sentence": shown["message"] or _sentence(shown),
        "funnel": [{"step": step, "engines": left} for step, left in said.funnel] if said else [],
        "unblock": [],
        "scheduler": said.scheduler if said else None,
    }
    if phase_in(view, identifier) is Phase.PENDING:
        found["unblock"] = list(_unblock(view, slice_.spec, shown["reason"], now))
    if why_not_engine:
        sentence = why_not(Pool(view), slice_.spec, why_not_engine)
        if shown["phase"] != Phase.PENDING and why_not_engine in {
            e["id"] for e in shown["engines"]
        }:
            sentence = f"{why_not_engine} is used"
        found["why_not"] = {"engine": why_not_engine, "sentence": sentence}
    return found


def _sentence(shown: Shown) -> str:
    if shown["phase"] == Phase.PENDING:
        return f"no scheduler of policy {shown['policy']} has looked at it yet"
    if shown["ended_at"]:
        return f"it is {shown['phase']}: nothing is in the way"
    return f"it has what it asked for, by {shown['scheduler']}: nothing is in the way"


def _unblock(
    view: CellView, spec: SliceSpec, reason: str | None, now: float
) -> Iterator[dict[str, Any]]:
    """Yield what would help, soonest first."""
    match reason:
        case Reason.HELD:
            yield {"do": f"flowos slice release {spec.name}", "eta_s": None}
        case Reason.SCHEDULER_DOWN:
            yield {"do": f"flowos scheduler run {spec.policy}", "eta_s": None}
        case Reason.INFEASIBLE:
            yield {"do": "ask for less, or for other engines", "eta_s": None}
        case Reason.WAITING_FOR_POWER:
            purses = {f"domain:{name}" for name in view.cell.domains}
            spenders = {
                name for name, e in view.placements.items() if purses & e.value.spent.keys()
            }
            yield from _wait_for(view, spenders, now)
        case _:
            yield from _wait_for(view, _in_the_way(view, spec), now)


def _in_the_way(view: CellView, spec: SliceSpec) -> set[str]:
    """Return the placements that hold engines of the wanted kinds."""
    pool = Pool(view)
    pool.fold()
    try:
        demand = demand_of(pool, spec)
    except SpecError:
        return set()
    found: set[str] = set()
    for wants in demand.engines:
        for want in wants:
            for engine in _matching(pool, want):
                found |= set(view.holders.get(engine_unit(engine), ()))
                found |= view.shares.get(engine, {}).keys()
                found |= set(view.holders.get(f"node/{engine.partition('/')[0]}", ()))
    if not found:
        # Nobody has the engines, so it is the way between them, or the hosts beside them.
        found = {n for n, e in view.placements.items() if e.value.circuits or e.value.hosts}
    return {name for name in found if not name.startswith("~off/")}


def _matching(pool: Pool, want: Want) -> Iterator[str]:
    stock = pool.stock(want.wares)
    for site in pool.sites:
        mask = stock.mask(site) if site is not None else 0
        for position, engine in enumerate(site.engines if site is not None else ()):
            if mask >> position & 1:
                yield engine


def _wait_for(view: CellView, names: set[str], now: float) -> Iterator[dict[str, Any]]:
    whens = {name: _left(view, name, view.placements[name].value, now) for name in names}
    for name in sorted(names, key=lambda n: (whens[n] is None, whens[n] or inf, n))[:UNBLOCK_MAX]:
        yield {"do": _do(view, name), "eta_s": whens[name]}


def _do(view: CellView, name: str) -> str:
    if name.startswith("~drain/"):
        return f"flowos engine undrain {subject_of(name.removeprefix('~drain/'))}"
    if name.startswith("~quarantine/"):
        node = name.split("/")[1]
        return f"start the agent of {node} again, or flowos engine undrain --dirty {node}"
    ending = view.placements[name].value.ending
    return f"wait for {name}" + (", which is being given back" if ending else "")


def _left(view: CellView, name: str, placement: Placement, now: float) -> int | None:
    """Return in how many seconds a placement may be given back; None where nothing tells."""
    if name.startswith("~"):
        return None
    if placement.ending is not None:
        return 0
    entry = view.slices.get(name)
    if entry is None:
        return None
    spec = entry.value.spec
    takes = placement.run.for_seconds or spec.expected_seconds or spec.time_limit_seconds
    if not takes:
        return None
    return max(0, round((placement.started_at or now) + takes - now))
