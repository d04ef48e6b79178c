"""Which slices would have to move so that a gang fits, and what would that cost? It moves nothing."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import combinations
from typing import Final, NamedTuple

from flowos.model.cell import WHOLE_MILLIS
from flowos.model.placement import Decision, Placement
from flowos.model.slice import SliceSpec
from flowos.model.units import engine_unit, kind_of, place_in, subject_of, things_used
from flowos.model.view import CellView
from flowos.planning.demand import demand_of
from flowos.planning.engines.choose import Draft
from flowos.planning.engines.pool import Pool
from flowos.planning.place import plan
from flowos.planning.reasons.unblock import holders_of, without

ALL_SETS_MAX: Final = 10  # slices of which every set is tried: 1,023 of them
PAIRS_MAX: Final = 24  # slices of which every one and every two are tried, if there are more
TRIALS_MAX: Final = 600  # sets tried in all, some milliseconds each
KEPT_ENGINES_MAX: Final = 4_000  # in larger cells a slice that moves is not asked to keep engines
PLACES_MAX: Final = 4  # of the gang, for each set of slices
_GANG: Final = "~gang"


class Move(NamedTuple):
    """One engine of a slice, from where to where."""

    slice: str
    role: str
    source: str
    target: str


class Defrag(NamedTuple):
    """How a gang is made room for.

    Attributes:
        gang: Where it then goes.
        moved: Slice -> where it then is.
        moves: Engine by engine.
        circuits: How many circuits of the moved slices have to be made anew.
        loads: How many bitstreams have to be loaded for them.
        seconds: How long the longest of these loads takes; stopping and starting is not counted.
        complete: Whether every set of slices was tried; of each set, a few places for the gang.
    """

    gang: Decision
    moved: Mapping[str, Decision]
    moves: tuple[Move, ...]
    circuits: int
    loads: int
    seconds: float
    complete: bool


def defrag(pool: Pool, spec: SliceSpec, *, trials_max: int = TRIALS_MAX) -> Defrag | None:
    """Return few engines to move so that a gang can be placed, or None if none were found.

    Slices that move are given back, the gang is placed, and they are placed anew, keeping the
    engines that they can. Every one of them is then placed as it asked.

    Args:
        pool: Of a view that nobody else plans on: it is changed and put back.
        spec: The gang.
        trials_max: How many sets of slices are tried.
    """
    now = plan(pool, spec)
    if isinstance(now, Decision):
        return Defrag(now, {}, (), 0, 0, 0.0, complete=True)
    view = pool.view
    movable = {
        name: placement
        for name, placement in holders_of(view).items()
        if name in view.slices and placement.ending is None and not placement.waits
    }
    sizes = {name: sum(map(len, p.engines.values())) for name, p in movable.items()}
    order = sorted(movable, key=lambda name: (sizes[name], name))
    with without(view, order):
        if not isinstance(plan(pool, spec), Decision):
            return None  # not even with all of them gone
    best: Defrag | None = None
    trials = 0
    complete = True
    for names in _sets(order, sizes):
        if best is not None and len(names) >= len(best.moves):
            continue  # each slice moves one engine at least
        if trials == trials_max:
            complete = False
            break
        trials += 1
        found = _try(pool, spec, {name: movable[name] for name in names})
        if found is not None and (best is None or _cost(found) < _cost(best)):
            best = found
    if best is None:
        return _all_but(pool, spec, movable, order)
    return best._replace(complete=complete and len(order) <= ALL_SETS_MAX)


def _cost(found: Defrag) -> tuple[int, int, int, float]:
    return len(found.moves), found.circuits, found.loads, found.seconds


def _sets(order: Sequence[str], sizes: Mapping[str, int]) -> Iterator[tuple[str, ...]]:
    """Yield sets of slices: all of a few, else one or two at a time; the smallest first."""
    few = len(order) <= ALL_SETS_MAX
    some = order if few else order[:PAIRS_MAX]
    sets: list[tuple[str, ...]] = [(name,) for name in order] if not few else []
    for number in range(1 if few else 2, len(some) + 1 if few else 3):
        sets += combinations(some, number)
    yield from sorted(sets, key=lambda names: (sum(sizes[n] for n in names), len(names), names))


def _all_but(
    pool: Pool, spec: SliceSpec, movable: Mapping[str, Placement], order: Sequence[str]
) -> Defrag | None:
    """Move ever more slices, the smallest first, and then leave alone again whom one can."""
    some: list[str] = []
    found: Defrag | None = None
    for number in (4, 8, 16, 32, 64):
        some = list(order[:number])
        found = _try(pool, spec, {name: movable[name] for name in some})
        if found is not None or number >= len(order):
            break
    if found is None:
        return None
    for name in reversed(some[:]):
        fewer = [other for other in some if other != name]
        again = _try(pool, spec, {other: movable[other] for other in fewer}) if fewer else None
        if again is not None and _cost(again) <= _cost(found):
            some, found = fewer, again
    return found._replace(complete=False)


# -- one set


def _try(pool: Pool, spec: SliceSpec, movable: Mapping[str, Placement]) -> Defrag | None:
    """Return the cheapest of a few places for the gang, once these slices are gone."""
    best: Defrag | None = None
    nodes: set[str] = set()
    with without(pool.view, list(movable)):
        for _ in range(PLACES_MAX):
            gang = plan(pool, spec, avoid=nodes)
            if not isinstance(gang, Decision):
                break
            found = _beside(pool, gang, movable)
            if found is not None and (best is None or _cost(found) < _cost(best)):
                best = found
            used = {f"node/{place_in(unit)}" for unit in gang.units if _on_node(unit)}
            if used <= nodes:
                break
            nodes |= used
    return best


def _on_node(unit: str) -> bool:
    return unit.startswith(("engine/", "share/", "host/"))


def _beside(pool: Pool, gang: Decision, movable: Mapping[str, Placement]) -> Defrag | None:
    """Place slices anew beside a gang, and count what that changes."""
    view = pool.view
    with _placed(view, _GANG, gang):
        # Large ones find a place more rarely, so they choose first.
        names = sorted(movable, key=lambda n: -sum(map(len, movable[n].engines.values())))
        moved = _again(pool, movable, names)
    if moved is None:
        return None
    moves: list[Move] = []
    circuits = loads = 0
    seconds = 0.0
    changed: dict[str, Decision] = {}
    for name, decision in moved.items():
        was = movable[name]
        if decision.units == was.held:
            continue
        changed[name] = decision
        moves += _moves(name, was, decision)
        before = {(c.source, c.targets, c.arcs) for c in was.circuits}
        circuits += sum((c.source, c.targets, c.arcs) not in before for c in decision.circuits)
        for engine, reference in decision.bitstreams.items():
            observed = view.observed.get(engine)
            if was.bitstreams.get(engine) != reference and (
                observed is None or observed.bitstream != reference
            ):
                loads += 1
                known = view.cell.bitstream(reference)
                seconds = max(seconds, known.load_seconds if known else 0.0)
    return Defrag(gang, changed, tuple(moves), circuits, loads, seconds, complete=False)


def _moves(name: str, was: Placement, decision: Decision) -> Iterator[Move]:
    for role, engines in decision.engines.items():
        old = was.engines.get(role, ())
        gone = [engine for engine in old if engine not in engines]
        come = [engine for engine in engines if engine not in old]
        for source, target in zip(gone, come, strict=False):
            yield Move(name, role, source, target)
    for role, nodes in decision.hosts.items():
        if role not in decision.engines:
            old = was.hosts.get(role, ())
            for source, target in zip(
                [n for n in old if n not in nodes], [n for n in nodes if n not in old], strict=False
            ):
                yield Move(name, role, source, target)


def _again(
    pool: Pool, movable: Mapping[str, Placement], names: Sequence[str]
) -> dict[str, Decision] | None:
    """Place slices anew, one after the other, each where it was if that is still free."""
    if not names:
        return {}
    name, was = names[0], movable[names[0]]
    decision = _where_it_was(pool, was) or _anew(pool, name, was)
    if decision is None:
        return None
    with _placed(pool.view, name, decision, was):
        rest = _again(pool, movable, names[1:])
    return None if rest is None else {name: decision, **rest}


def _where_it_was(pool: Pool, was: Placement) -> Decision | None:
    view = pool.view
    for unit, amounts in was.held.items():
        kind, subject = kind_of(unit), subject_of(unit)
        if view.wanted.get(unit) or not all(map(view.in_service, things_used(view.cell, unit))):
            return None
        if kind in ("engine", "share"):
            if view.free_millis(subject) < (amounts[0] if amounts else WHOLE_MILLIS):
                return None
        elif kind == "host":
            if not view.host_has(subject, amounts):
                return None
        elif unit in view.holders:
            return None
    return Decision(was.engines, was.held, was.hosts, was.circuits, was.bitstreams)


def _anew(pool: Pool, name: str, was: Placement) -> Decision | None:
    spec = pool.view.slices[name].value.spec
    sizes = {role: len(engines) for role, engines in was.engines.items() if role in spec.elastic}
    found = plan(pool, spec, sizes=sizes)
    if not isinstance(found, Decision):
        return None
    old = {engine for engines in was.engines.values() for engine in engines}
    new = {engine for engines in found.engines.values() for engine in engines}
    keeps = old & _free(pool, spec) if len(pool.view.cell.engines) <= KEPT_ENGINES_MAX else set()
    if keeps <= new:
        return found
    # As many of its engines as are left, and of the new ones only what it then lacks.
    lacks = sorted(new - old)[: len(old) - len(keeps)]
    avoid = {engine_unit(e) for e in _free(pool, spec) - keeps - set(lacks)}
    kept = plan(pool, spec, sizes=sizes, avoid=avoid)
    return kept if isinstance(kept, Decision) else found


def _free(pool: Pool, spec: SliceSpec) -> set[str]:
    """Return the engines that are free for any role of a request."""
    pool.fold()
    draft = Draft(pool)
    draft.wake = True
    found: set[str] = set()
    for wants in demand_of(pool, spec).engines:
        for want in wants:
            stock = pool.stock(want.wares)
            for site in pool.sites:
                if site is not None and (mask := draft.engines(site.number, stock)):
                    found.update(e for n, e in enumerate(site.engines) if mask >> n & 1)
    return found


@contextmanager
def _placed(
    view: CellView, name: str, decision: Decision, was: Placement | None = None
) -> Iterator[None]:
    """Count a decision as held while the block lasts."""
    before = view.now(name)
    base = was or Placement(0, f"if {name}")
    view.assume(
        name,
        replace(
            base,
            held=decision.units, releasing={}, engines=decision.engines, hosts=decision.hosts,
            circuits=decision.circuits, bitstreams=decision.bitstreams,
        ),
    )  # fmt: skip
    try:
        yield
    finally:
        if before is None:
            view.retract(name)
        else:
            view.assume(name, before)
