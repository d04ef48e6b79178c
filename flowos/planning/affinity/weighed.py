"""Beside its data on a slower engine, or over circuits on one that fits: which is it to be?

A slice may say where its data lies and what its roles compute. Then there are several ways to give
a role its engines: each choice and each engine model of known speed, beside the data or away from
it. Each option is planned on what is free now, and costs

    seconds = set-up + bytes / (lanes x rate of the slowest lane on the way) + work / speed
    joules  = what the slice's engines draw idle all the while, and the rest while they work

Set-up is waking and loading a bitstream, or setting up circuits, whichever takes longer. Data on
an engine's own node needs no circuit and is read while it computes. A disk that is slower than its
lanes says so by its attribute `read_gbps`. The least wins, by seconds, by joules, or by both, as
slice and operator say. Options whose speed is not known cannot be compared: they come last, in the
user's order.

Idea: the function goes to the engine that fits it and the data to the function, unless the data is
so large that the function had better come to the data; flow-centric computing calls it affinity.
"""

from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice, product
from math import inf
from typing import Final, NamedTuple, TypeAlias

from flowos.model.cell import WHOLE_MILLIS, Cell
from flowos.model.errors import SpecError
from flowos.model.placement import Circuit, Decision, Unplaceable
from flowos.model.rules import NO_RULES, PlannerRules
from flowos.model.slice import (
    CircuitWish,
    Data,
    EngineChoice,
    EngineRole,
    HostRole,
    Reason,
    Shape,
    SliceSpec,
)
from flowos.model.units import engine_unit
from flowos.model.view import CellView
from flowos.planning.demand import sift
from flowos.planning.engines.pool import OFF, Pool
from flowos.planning.where import parse_condition

# How near each answer is to a yes; farthest are those that no state of the cell could answer so.
_NEAR: Final = (
    Reason.NO_CIRCUIT,
    Reason.FRAGMENTED_ACROSS_SWITCHES,
    Reason.WAITING_FOR_BITSTREAM,
    Reason.WAITING_FOR_ENGINES,
)
_COMBINATIONS_MAX: Final = 512  # of roles' options that are put in order
_PLANS_MAX: Final = 32  # of which so many are planned: a role seldom has more than six options
_BITS: Final = 8e-9  # gigabits in a byte

Planner: TypeAlias = Callable[[SliceSpec], Decision | Unplaceable]
Sizes: TypeAlias = Mapping[str, int]


class Option(NamedTuple):
    """One way to give a role its engines.

    Attributes:
        number: Which of the role's choices it is of, in the user's order.
        choice: The choice, of one model where that has a known speed, and of the place.
        at: The node that its engines are to be on, or the engine that it is to be; "" = anywhere.
        speed: Units of the role's work that all its engines do in a second; None = not known.
    """

    number: int
    choice: EngineChoice
    at: str
    speed: float | None


class Costs(NamedTuple):
    """What a role takes from its placement to the end of its work.

    Attributes:
        run_seconds: None = nobody knows.
        joules: Of the role's engines and those that its data comes from, without an unknown run.
    """

    set_up_seconds: float
    move_seconds: float
    run_seconds: float | None
    joules: float

    @property
    def seconds(self) -> float:
        """All of it, as far as it is known."""
        return self.set_up_seconds + self.move_seconds + (self.run_seconds or 0.0)


class Tried(NamedTuple):
    """What came of one combination of options."""

    options: Mapping[str, Option]
    answer: Decision | Unplaceable
    costs: Mapping[str, Costs]


# What is compared: how many roles run nobody knows how long, the user's order of their choices,
# then seconds and joules as the objective weighs them.
Rank: TypeAlias = tuple[int, tuple[int, ...], tuple[float, float]]


def weighed(
    pool: Pool, spec: SliceSpec, plan: Planner, sizes: Sizes | None = None
) -> Decision | Unplaceable:
    """Return the best decision for a slice that says where its data is or what it computes.

    The decision holds the engines that data is read from, without a role or a task there, and has
    circuits from them to the roles that are away from it.

    Args:
        pool: Folded by the caller.
        spec: The request.
        plan: Places a request without data and work, on the same pool.
        sizes: Role -> how many engines, for elastic roles.
    """
    gone = out_of_reach(pool.view, spec)
    if gone is not None:
        return gone
    try:
        best = best_of(pool, spec, plan, sizes or {})
    except SpecError as error:
        return Unplaceable(Reason.INFEASIBLE, str(error))
    return best.answer


def best_of(pool: Pool, spec: SliceSpec, plan: Planner, sizes: Sizes) -> Tried:
    """Return the best combination of options that can be had, or the refusal that is nearest to one.

    Options are planned in the order of what they take at least, until that is more than the best
    takes. Raises like `options_of`.
    """
    rules = pool.view.planner or NO_RULES
    options = options_of(pool, spec, sizes)
    best: Tried | None = None
    rank: Rank | None = None
    refused: list[Tried] = []
    for bound, chosen in _in_order(pool, spec, options, rules)[:_PLANS_MAX]:
        if rank is not None and bound > rank:
            break  # this one and all that follow are dearer even if all goes well
        tried = tried_with(pool, spec, chosen, plan)
        if isinstance(tried.answer, Unplaceable):
            refused.append(tried)
            continue
        found = _rank(chosen, _total(spec, rules, tried.costs.values()))
        if rank is None or found < rank:
            best, rank = tried, found
    if best is not None:
        return best
    nearest = min(refused, key=_distance)
    assert isinstance(nearest.answer, Unplaceable), "only refusals are collected"
    if len(refused) > 1:
        sentence = f"none of {len(refused)} options fits; the nearest: {nearest.answer.sentence}"
        return nearest._replace(answer=replace(nearest.answer, sentence=sentence))
    return nearest


def _distance(tried: Tried) -> int:
    reason = tried.answer.reason if isinstance(tried.answer, Unplaceable) else None
    return _NEAR.index(reason) if reason in _NEAR else len(_NEAR)


def out_of_reach(view: CellView, spec: SliceSpec) -> Unplaceable | None:
    """Say which data cannot be read now, or ever, wherever the slice runs."""
    for role in (*(data.to for data in spec.data), *spec.work):
        if role not in spec.engines:
            sentence = f"data or work is of role {role}, which the slice does not have"
            return Unplaceable(Reason.INFEASIBLE, sentence)
    for data in spec.data:
        node = data.at.partition("/")[0]
        if node not in view.cell.nodes or (node != data.at and data.at not in view.cell.engines):
            what = "node" if node == data.at else "engine"
            sentence = f"the data for {data.to} is at {data.at}, and the cell has no such {what}"
            return Unplaceable(Reason.INFEASIBLE, sentence)
        holder = view.holder(f"node/{node}")
        if holder is not None:
            sentence = f"the data for {data.to} is at {data.at}, and {holder} took {node} out"
            return Unplaceable(Reason.WAITING_FOR_ENGINES, f"{sentence} of service")
        if node == data.at or view.free_millis(data.at) >= data.share_millis:
            continue
        by = sorted(
            name
            for name in (*view.holders.get(engine_unit(data.at), ()), *view.shares.get(data.at, ()))
            if not name.startswith(OFF)
        ) or sorted(view.wanted.get(engine_unit(data.at), ()))
        part = "" if data.share_millis == WHOLE_MILLIS else f"{data.share_millis / 1000:g} of "
        sentence = f"the data for {data.to} is at {data.at}, which {by[0]} holds"
        if len(by) > 1:
            sentence += f" with {len(by) - 1} more"
        return Unplaceable(
            Reason.WAITING_FOR_ENGINES, f"{sentence}; the slice reads {part}that engine itself"
        )
    return None


# -- the options


def options_of(pool: Pool, spec: SliceSpec, sizes: Sizes) -> dict[str, list[Option]]:
    """Return the options of each role that has data or work, in the user's order.

    Raises:
        SpecError: A condition that cannot be read.
    """
    rules = pool.view.planner or NO_RULES
    known = (role for role, work in spec.work.items() if work.amount)
    roles = dict.fromkeys([*(data.to for data in spec.data), *known])
    return {role: list(_options(pool, spec, role, rules, sizes)) for role in roles}


def _options(
    pool: Pool, spec: SliceSpec, role: str, rules: PlannerRules, sizes: Sizes
) -> Iterator[Option]:
    speeds = _speeds_of(rules, spec, role)
    places = list(dict.fromkeys(data.at for data in spec.data if data.to == role))
    nodes = dict.fromkeys(place.partition("/")[0] for place in places)
    # An engine from which another role reads too is nobody's to compute on.
    own = [at for at in places if "/" in at and sum(data.at == at for data in spec.data) == 1]
    for number, choice in enumerate(spec.engines[role].choices):
        count = sizes.get(role) or choice.count
        wares = {make for make, _ in sift(pool, choice).wares}
        here = {pool.makes[make].model for make in wares}
        models = dict.fromkeys([*choice.models, *sorted(here)])
        known = [model for model in models if model in here and speeds.get(model)]
        parts: list[tuple[EngineChoice, float | None]] = [
            (
                replace(choice, models=(model,)),
                speeds[model] * count * choice.share_millis / WHOLE_MILLIS,
            )
            for model in known
        ]
        rest = tuple(model for model in models if model not in known)
        if rest or not known:
            parts.append((replace(choice, models=rest) if known else choice, None))
        for part, speed in parts:
            whole = count == 1 and part.share_millis == WHOLE_MILLIS
            for at in (*(own if whole else ()), *nodes):
                pinned = _pinned(pool.view.cell, part, at)
                if pinned is not None and _has(pool, at, wares, part.models):
                    yield Option(number, pinned, at, speed)
            yield Option(number, part, "", speed)


def _pinned(cell: Cell, choice: EngineChoice, at: str) -> EngineChoice | None:
    """Return a choice of a node's engines alone, or of one engine; None where it excludes them."""
    node = at.partition("/")[0]
    place = {"node": node}
    if node != at:
        engine = cell.engines[at]
        if choice.kind not in ("", engine.kind) or (
            choice.models and engine.model not in choice.models
        ):
            return None
        place["engine"] = at
    for key, name in place.items():
        if key in choice.where and not parse_condition(key, choice.where[key]).holds(name):
            return None
    return replace(choice, where={**choice.where, **place})


def _has(pool: Pool, at: str, wares: Container[int], models: Collection[str]) -> bool:
    """Whether a node has any engine of these wares, held or not."""
    number = pool.numbers.get(at.partition("/")[0])
    site = None if number is None else pool.sites[number]
    return site is not None and any(
        make in wares and (not models or pool.makes[make].model in models) for make in site.makes
    )


def moves(data: Data, option: Option) -> bool:
    """Whether data has to travel to the engines of an option."""
    return option.at.partition("/")[0] != data.at.partition("/")[0]


# -- planning one combination


def tried_with(pool: Pool, spec: SliceSpec, options: Mapping[str, Option], plan: Planner) -> Tried:
    """Return what comes of one combination of options, planned on what is free now."""
    narrowed, added = narrowed_to(pool.view.cell, spec, options)
    answer = plan(narrowed)
    if isinstance(answer, Unplaceable):
        return Tried(options, answer, {})
    decision = replace(
        answer,
        engines={role: e for role, e in answer.engines.items() if role not in added},
        hosts={role: nodes for role, nodes in answer.hosts.items() if role not in added},
    )
    costs = {
        role: costs_of(
            pool.view, spec, role, decision.engines[role], decision.circuits, decision.bitstreams
        )
        for role in options
    }
    return Tried(options, decision, costs)


def narrowed_to(
    cell: Cell, spec: SliceSpec, options: Mapping[str, Option]
) -> tuple[SliceSpec, frozenset[str]]:
    """Return the request of these options without data and work, and the roles that it has more.

    Work whose amount is not known stays: engines are scored by it. Each place that data is read from becomes a role of its own, so that it is held and may be the
    end of a circuit: an engine is taken (or its share), a node lends its attachment port.
    """
    engines = {
        role: EngineRole((options[role].choice,)) if role in options else wish
        for role, wish in spec.engines.items()
    }
    hosts, together = dict(spec.hosts), dict(spec.together)
    circuits = list(spec.circuits)
    added: set[str] = set()
    for data in spec.data:
        option = options[data.to]
        name = f"data at {data.at}"
        node = data.at.partition("/")[0]
        if node != data.at and option.at != data.at:
            engine = cell.engines[data.at]
            share = max(d.share_millis for d in spec.data if d.at == data.at)
            choice = EngineChoice(
                kind=engine.kind, share_millis=share, where={"node": node, "engine": data.at}
            )
            engines[name] = EngineRole((choice,))
            together[name] = "here"
            added.add(name)
        if moves(data, option):
            if node == data.at:
                hosts[name] = HostRole(count=1, at=node)
                added.add(name)
            circuits.append(CircuitWish(Shape.FLOW, (name, data.to), data.lanes))
    narrowed = replace(
        spec,
        engines=engines,
        hosts=hosts,
        together=together,
        circuits=tuple(circuits),
        data=(),
        work={role: work for role, work in spec.work.items() if not work.amount},
    )
    return narrowed, frozenset(added)


# -- costs


def costs_of(
    view: CellView,
    spec: SliceSpec,
    role: str,
    engines: Sequence[str],
    circuits: Iterable[Circuit],
    bitstreams: Mapping[str, str],
) -> Costs:
    """Return what a role takes on these engines, from now on.

    Args:
        view: What is powered and loaded now, and the operator's rules.
        spec: The request.
        role: One of its roles.
        engines: The role's engines.
        circuits: The slice's circuits; those that lead from data to these engines count.
        bitstreams: Engine -> what must be loaded.
    """
    rules = view.planner or NO_RULES
    cell = view.cell
    share = _share_of(spec, role, engines, cell)
    mine = [data for data in spec.data if data.to == role]
    move = read = 0.0
    joined = False
    for data in mine:
        slowest = read_gbps(cell, data.at)
        moved = False
        for circuit in circuits:
            if circuit.source == data.at and not set(circuit.targets).isdisjoint(engines):
                joined = moved = True
                rate = min(slowest, _gbps(cell, circuit))
                move = max(move, data.bytes * _BITS / rate)
        if not moved and data.at not in engines:
            read = max(read, data.bytes * _BITS / slowest)
    ready = 0.0
    for engine in engines:
        wake = rules.wake_seconds if _is_off(view, engine) else 0.0
        ready = max(ready, wake + _load_seconds(view, engine, bitstreams.get(engine, "")))
    sources = {
        d.at: d.share_millis / WHOLE_MILLIS
        for d in mine
        if d.at in cell.engines and d.at not in engines
    }
    for source in sources:
        ready = max(ready, rules.wake_seconds if _is_off(view, source) else 0.0)
    set_up = max(ready, rules.circuit_seconds if joined else 0.0)
    run = _run_seconds(rules, cell, spec, role, engines, share)
    run = None if run is None else max(run, read)
    total = set_up + move + (run or 0.0)
    joules = 0.0
    for engine in engines:
        watts = cell.engines[engine].watts
        joules += share * (watts.idle * total + (watts.busy - watts.idle) * (run or 0.0))
    for source, part in sources.items():
        watts = cell.engines[source].watts
        joules += part * (watts.idle * total + (watts.busy - watts.idle) * move)
    return Costs(set_up, move, run, joules)


def _speeds_of(rules: PlannerRules, spec: SliceSpec, role: str) -> Mapping[str, float]:
    """Return engine model -> units a second, of work whose amount is known."""
    work = spec.work.get(role)
    return rules.speeds.get(work.type, {}) if work and work.amount else {}


def _share_of(spec: SliceSpec, role: str, engines: Sequence[str], cell: Cell) -> float:
    """Return which part of its engines a role has; of several choices that of the engine's kind."""
    choices = spec.engines[role].choices
    known = cell.engines.get(engines[0]) if engines else None
    for choice in choices:
        if known is None or (
            choice.kind in ("", known.kind) and (not choice.models or known.model in choice.models)
        ):
            return choice.share_millis / WHOLE_MILLIS
    return 1.0


def _run_seconds(
    rules: PlannerRules,
    cell: Cell,
    spec: SliceSpec,
    role: str,
    engines: Sequence[str],
    share: float,
) -> float | None:
    """Return how long the role's work takes, parted evenly: the slowest engine ends last."""
    work, speeds = spec.work.get(role), _speeds_of(rules, spec, role)
    found = [speeds.get(cell.engines[engine].model, 0.0) for engine in engines]
    if work is None or not found or not min(found):
        return None
    return work.amount / (len(found) * min(found) * share)


def _gbps(cell: Cell, circuit: Circuit) -> float:
    """Return what a circuit carries, which is what its slowest link does."""
    return min(len(arc.lanes) * cell.links[arc.link].gbps for arc in circuit.arcs)


def read_gbps(cell: Cell, at: str) -> float:
    """Return how fast a place gives its data away, as its engine's attribute `read_gbps` says."""
    engine = cell.engines.get(at)
    written = engine.attributes.get("read_gbps") if engine else None
    return float(written) if isinstance(written, int | float) and written > 0 else inf


def _is_off(view: CellView, engine: str) -> bool:
    holder = view.holder(engine_unit(engine))
    return holder is not None and holder.startswith(OFF)


def _load_seconds(view: CellView, engine: str, wanted: str) -> float:
    if not wanted:
        return 0.0
    observed = view.observed.get(engine)
    if observed is not None and observed.bitstream == wanted:
        return 0.0
    known = view.cell.bitstream(wanted)
    return known.load_seconds if known else 0.0


# -- work of unknown amount


class Pace(NamedTuple):
    """What one engine of a model does of a type of work; `a_joule` 0 = nobody says what it draws."""

    a_second: float
    a_joule: float


def paces_of(pool: Pool, type_of_work: str) -> dict[str, Pace]:
    """Return the pace of each engine model of the cell whose speed is known."""
    rules = pool.view.planner or NO_RULES
    watts = pool.recall("busy watts", lambda: _busy_watts(pool.view.cell))
    return {
        model: Pace(speed, speed / watts[model] if watts[model] else 0.0)
        for model, speed in rules.speeds.get(type_of_work, {}).items()
        if speed and model in watts
    }


def _busy_watts(cell: Cell) -> dict[str, int]:
    watts: dict[str, int] = {}
    for engine in cell.engines.values():
        watts[engine.model] = max(watts.get(engine.model, 0), engine.watts.busy)
    return watts


def paces(pool: Pool, spec: SliceSpec) -> dict[str, dict[str, float]]:
    """Return role -> engine model -> how good it is at work of which nobody says how much it is.

    Work without an amount goes on for as long as it is wanted, so no waking or moving can be set
    against it: what it costs is what a unit of it costs, by the same objective as elsewhere. Where
    neither the slice nor the operator says what a joule is worth, that is joules: units a second
    per watt. Where nobody says what a model draws, only seconds are compared.
    """
    rules = pool.view.planner or NO_RULES
    frugal = replace(spec, constraints=replace(spec.constraints, prefer="frugal"))
    if spec.constraints.prefer or rules.joule_seconds:
        frugal = spec
    found: dict[str, dict[str, float]] = {}
    for role, work in spec.work.items():
        known = {} if work.amount else paces_of(pool, work.type)
        weighable = all(pace.a_joule for pace in known.values())
        found[role] = {}
        for model, pace in known.items():
            joules = 1 / pace.a_joule if weighable else 1 / pace.a_second
            unit = Costs(0.0, 0.0, 1 / pace.a_second, joules)
            found[role][model] = 1 / _total(frugal, rules, [unit])[0]
    return found


# -- the order of trying


def _in_order(
    pool: Pool, spec: SliceSpec, options: Mapping[str, Sequence[Option]], rules: PlannerRules
) -> list[tuple[Rank, dict[str, Option]]]:
    """Return combinations of options, each with what it takes if all goes well, the least first."""
    found: list[tuple[Rank, dict[str, Option]]] = []
    for combination in islice(product(*options.values()), _COMBINATIONS_MAX):
        chosen = dict(zip(options, combination, strict=True))
        least = [
            _least(pool.view.cell, spec, role, option, rules) for role, option in chosen.items()
        ]
        found.append((_rank(chosen, _total(spec, rules, least)), chosen))
    found.sort(key=lambda entry: entry[0])
    return found


def _least(cell: Cell, spec: SliceSpec, role: str, option: Option, rules: PlannerRules) -> Costs:
    """Return what an option takes at least: with all awake and loaded, at the rate of the data's port."""
    move = 0.0
    moved = [data for data in spec.data if data.to == role and moves(data, option)]
    for data in moved:
        links = cell.links_at.get(data.at, ())
        fastest = max((cell.links[link].gbps for link in links), default=0.0) * data.lanes
        fastest = min(fastest, read_gbps(cell, data.at))
        if fastest:
            move = max(move, data.bytes * _BITS / fastest)
    work = spec.work.get(role)
    run = work.amount / option.speed if work and option.speed else None
    return Costs(rules.circuit_seconds if moved else 0.0, move, run, 0.0)


def _rank(chosen: Mapping[str, Option], total: tuple[float, float]) -> Rank:
    blind = [role for role, option in chosen.items() if option.speed is None]
    return len(blind), tuple(chosen[role].number for role in blind), total


def _total(spec: SliceSpec, rules: PlannerRules, costs: Iterable[Costs]) -> tuple[float, float]:
    """Return what is to be least: a slice ends with its last role, and pays for all of them."""
    costs = list(costs)
    seconds = max((cost.seconds for cost in costs), default=0.0)
    joules = sum(cost.joules for cost in costs)
    match spec.constraints.prefer:
        case "fastest":
            return seconds, joules
        case "frugal":
            return joules, seconds
    worth = rules.joule_seconds
    return seconds + worth * joules, joules
