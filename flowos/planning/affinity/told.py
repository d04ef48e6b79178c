"""What are people told of the options that a role could have got its engines?"""

from collections.abc import Iterator
from math import inf
from typing import Any, Final, NamedTuple

from flowos.model.cell import Cell
from flowos.model.errors import SpecError
from flowos.model.placement import Decision, Unplaceable
from flowos.model.slice import SliceSpec
from flowos.planning.affinity.weighed import (
    Costs,
    Pace,
    Planner,
    Sizes,
    Tried,
    best_of,
    costs_of,
    moves,
    options_of,
    out_of_reach,
    paces,
    paces_of,
    tried_with,
)
from flowos.planning.demand import sift
from flowos.planning.engines.pool import Pool

_TOLD_MAX: Final = 3  # other options in a sentence; programs are told of all


class Line(NamedTuple):
    """One option as it turned out.

    Attributes:
        engines: "1 H100".
        place: Where they are to the data, in words; "" = the role has none.
        moved_bytes: What travels.
        costs: None where it cannot be had now.
        why: Why it cannot be had; "" = it can.
        estimated: Whether some of the data's size is a guess.
        pace: What an engine does of work whose amount nobody knows; None = that is not known.
    """

    engines: str
    place: str
    moved_bytes: int
    costs: Costs | None
    why: str
    estimated: bool
    pace: Pace | None = None


class Account(NamedTuple):
    """How the options of a role compare; `chosen` None = nothing can be had."""

    role: str
    chosen: Line | None
    others: tuple[Line, ...]

    def sentence(self) -> str:
        """Return it for people: the chosen option, and what the others would take."""
        parts = [f"{self.role}: {_worded(self.chosen)}"] if self.chosen else [f"{self.role}: none"]
        for line in self.others[:_TOLD_MAX]:
            if line.pace is not None:
                parts.append(f"{_named(line)}: {_paced(line.pace)}")
            elif line.costs is None:
                parts.append(f"{_named(line)}: {line.why}")
            else:
                parts.append(f"{_named(line)} would take {_duration(line.costs)}")
        return "; ".join(parts)

    def shown(self) -> dict[str, Any]:
        """Return it for programs."""
        return {
            "role": self.role,
            "sentence": self.sentence(),
            "chosen": _shown(self.chosen) if self.chosen else None,
            "alternatives": [_shown(line) for line in self.others],
        }


def described(
    pool: Pool,
    spec: SliceSpec,
    plan: Planner,
    sizes: Sizes | None = None,
    *,
    placed: Decision | None = None,
) -> list[Account]:
    """Return how the options of each role compare on what is free now; planned one by one.

    Args:
        pool: Folded by the caller, without what the slice itself holds.
        spec: The request; without data and work there is nothing to tell.
        plan: Places a request without data and work, on the same pool.
        sizes: Role -> how many engines, for elastic roles.
        placed: What the slice has; None = it waits.
    """
    if not (spec.data or spec.work) or out_of_reach(pool.view, spec):
        return []
    try:
        options = options_of(pool, spec, sizes or {})
        best = best_of(pool, spec, plan, sizes or {})
    except SpecError:
        return []
    found: list[Account] = []
    for role, mine in options.items():
        chosen: Line | None = None
        if placed is not None and placed.engines.get(role):
            costs = costs_of(
                pool.view, spec, role, placed.engines[role], placed.circuits, placed.bitstreams
            )
            chosen = _line_of(pool, spec, role, placed, costs)
        elif role in best.costs and isinstance(best.answer, Decision):
            chosen = _line_of(pool, spec, role, best.answer, best.costs[role])
        others: dict[str, Line] = {}
        for option in mine:
            line = _line(
                pool, spec, role, tried_with(pool, spec, {**best.options, role: option}, plan)
            )
            if chosen is None or _named(line) != _named(chosen):
                others.setdefault(_named(line), line)
        order = sorted(others.values(), key=lambda line: line.costs.seconds if line.costs else inf)
        found.append(Account(role, chosen, tuple(order)))
    for role, work in spec.work.items():
        if role not in options:
            found += _of_models(pool, spec, role, work.type, placed or best.answer)
    return found


def _of_models(
    pool: Pool, spec: SliceSpec, role: str, type_of_work: str, answer: Decision | Unplaceable
) -> Iterator[Account]:
    """Yield how engine models compare, where nobody says how much a role computes."""
    known = paces_of(pool, type_of_work)
    if not known:
        return
    chosen: Line | None = None
    taken: set[str] = set()
    if isinstance(answer, Decision) and answer.engines.get(role):
        engines = answer.engines[role]
        costs = costs_of(pool.view, spec, role, engines, answer.circuits, answer.bitstreams)
        taken = {_model(pool.view.cell, engine) for engine in engines}
        paces_here = [known[model] for model in taken if model in known]
        slowest = min(paces_here) if len(paces_here) == len(taken) else None
        chosen = _line_of(pool, spec, role, answer, costs)._replace(pace=slowest)
    wanted: dict[str, int] = {}
    for choice in spec.engines[role].choices:
        for make, _ in sift(pool, choice).wares:
            wanted.setdefault(pool.makes[make].model, choice.count)
    value = paces(pool, spec)[role]
    order = sorted(wanted.keys() & known.keys() - taken, key=lambda model: (-value[model], model))
    others = [
        Line(f"{wanted[model]} {model}", "", 0, None, "", estimated=False, pace=known[model])
        for model in order
    ]
    yield Account(role, chosen, tuple(others))


def _line(pool: Pool, spec: SliceSpec, role: str, tried: Tried) -> Line:
    option = tried.options[role]
    if isinstance(tried.answer, Decision):
        return _line_of(pool, spec, role, tried.answer, tried.costs[role])
    mine = [data for data in spec.data if data.to == role]
    name = "|".join(option.choice.models) or option.choice.kind or "engine"
    moved = sum(data.bytes for data in mine if moves(data, option))
    place = _place(option.at, over_circuits=bool(moved)) if mine else ""
    estimated = any(data.estimated for data in mine)
    return Line(
        f"{option.choice.count} {name}",
        place,
        moved,
        None,
        tried.answer.sentence.removeprefix(f"{role}: "),
        estimated,
    )


def _line_of(pool: Pool, spec: SliceSpec, role: str, decision: Decision, costs: Costs) -> Line:
    engines = decision.engines[role]
    cell = pool.view.cell
    names = sorted({_model(cell, engine) for engine in engines})
    mine = [data for data in spec.data if data.to == role]
    moving = [
        data
        for data in mine
        if any(
            circuit.source == data.at and not set(circuit.targets).isdisjoint(engines)
            for circuit in decision.circuits
        )
    ]
    place = ""
    if mine:
        nodes = {engine.partition("/")[0] for engine in engines}
        own = next((data.at for data in mine if engines == (data.at,)), "")
        beside = next((d.at for d in mine if d not in moving and d.at in nodes), "") or next(
            (n for d in mine if d not in moving if (n := d.at.partition("/")[0]) in nodes), ""
        )
        place = _place(own or beside, over_circuits=bool(moving))
    return Line(
        f"{len(engines)} {'|'.join(names)}",
        place,
        sum(data.bytes for data in moving),
        costs,
        "",
        any(data.estimated for data in mine),
    )


def _model(cell: Cell, engine: str) -> str:
    known = cell.engines.get(engine)
    return (known.model or known.kind) if known else "engine"


def _place(at: str, *, over_circuits: bool) -> str:
    if not at:
        return "over a circuit" if over_circuits else ""
    beside = f"where the data is, {at}" if "/" in at else f"beside the data on {at}"
    return f"{beside}, the rest over a circuit" if over_circuits else beside


def _named(line: Line) -> str:
    return f"{line.engines} {line.place}".rstrip()


def _worded(line: Line) -> str:
    assert line.costs is not None, "what is chosen can be had"
    costs = line.costs
    steps = [f"{_seconds(costs.set_up_seconds)} to set up"] if costs.set_up_seconds >= 0.5 else []
    if line.moved_bytes:
        about = "about " if line.estimated else ""
        steps.append(f"{about}{_bytes(line.moved_bytes)} move in {_seconds(costs.move_seconds)}")
    if line.pace is not None:
        steps.append(_paced(line.pace))
    elif costs.run_seconds is None:
        steps.append("nobody knows how long it runs")
    else:
        steps.append(f"it runs {_seconds(costs.run_seconds)}")
    return f"{_named(line)}: {', '.join(steps)}"


def _paced(pace: Pace) -> str:
    a_joule = f", {_number(pace.a_joule)} a joule" if pace.a_joule else ""
    return f"each does {_number(pace.a_second)} units a second{a_joule}"


def _number(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 1000 else f"{rate:.3g}"


def _duration(costs: Costs) -> str:
    if costs.run_seconds is None:
        return f"{_seconds(costs.seconds)} before a run of unknown length"
    return _seconds(costs.seconds)


def _seconds(seconds: float) -> str:
    return f"{seconds:,.0f} s" if seconds >= 10 else f"{seconds:.2g} s"


def _bytes(amount: int) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if amount >= size:
            return f"{amount / size:.4g} {unit}"
    return f"{amount} B"


def _shown(line: Line) -> dict[str, Any]:
    costs = line.costs
    run = costs.run_seconds if costs else None
    return {
        "engines": line.engines,
        "place": line.place or None,
        "moved_bytes": line.moved_bytes,
        "estimated": line.estimated,
        "seconds": round(costs.seconds, 3) if costs and run is not None else None,
        "set_up_s": round(costs.set_up_seconds, 3) if costs else None,
        "move_s": round(costs.move_seconds, 3) if costs else None,
        "run_s": None if run is None else round(run, 3),
        "joules": round(costs.joules, 1) if costs else None,
        "units_per_s": round(line.pace.a_second, 6) if line.pace else None,
        "units_per_joule": round(line.pace.a_joule, 6) if line.pace and line.pace.a_joule else None,
        "why_not": line.why or None,
    }
