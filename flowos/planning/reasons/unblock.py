"""What would let a request be placed that cannot be placed now? Only what was tried and helped.

Every item was tried: who is to be waited for was taken off a private view, what is to be accepted
was asked for, and the plan was found. So each item helps by itself.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import inf
from typing import Final, TypeAlias

from flowos.model.errors import SpecError
from flowos.model.placement import Decision, Placement, Unplaceable
from flowos.model.slice import Constraints, EngineRole, Reason, SliceSpec
from flowos.model.units import engine_unit, kind_of, subject_of
from flowos.model.view import CellView
from flowos.planning.demand import demand_of
from flowos.planning.engines.pool import OFF, Pool
from flowos.planning.place import plan
from flowos.planning.shadow import fewest

Planner: TypeAlias = Callable[[Pool, SliceSpec], Decision | Unplaceable]

EACH_MAX: Final = 3  # items of one sort that are told; more are of no use to know
TRIALS_MAX: Final = 256  # holders that are taken off one by one
PRUNED_MAX: Final = 24  # of so many that help together, each is tried to be left out

# The cheapest for everybody first: what happens by itself, what costs seconds, what only the asker
# gives up, what others have to bear, what needs an operator.
_ORDER: Final[Mapping[str, int]] = {
    "place": 0, "wait": 1, "wake": 2, "accept": 3, "move": 4, "preempt": 5, "undrain": 6,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that would help by itself.

    Attributes:
        sort: place (it fits as it is), wait, wake, accept, move, preempt, undrain.
        names: The placements that have to be given back, all of them.
        engines: The engines that have to be woken.
        accept: What the request would have to say instead; None = it stays as it is.
        words: What would be accepted, for people.
        eta_s: In how many seconds it happens, or can have happened; None = nothing tells.
    """

    sort: str
    names: tuple[str, ...] = ()
    engines: tuple[str, ...] = ()
    accept: SliceSpec | None = None
    words: str = ""
    eta_s: float | None = None


@contextmanager
def without(view: CellView, names: Sequence[str]) -> Iterator[None]:
    """Take placements off a view while the block lasts; then it is as before.

    The view has to be the caller's own: planners that follow it would see them gone.
    """
    before = [(name, view.now(name), view.assumed(name)) for name in names]
    for name, placement, _ in before:
        if placement is not None:
            view.assume(name, replace(placement, held={}, releasing={}, wanted=()))
    try:
        yield
    finally:
        for name, placement, assumed in before:
            if placement is None:
                continue
            if assumed:
                view.assume(name, placement)
            else:
                view.retract(name)


def unblock(
    pool: Pool,
    spec: SliceSpec,
    left_s: Callable[[str], float | None],
    *,
    priority_of: Callable[[str], int | None] = lambda _name: None,
    planner: Planner = plan,
) -> list[Item]:
    """Return what would let a request be placed, the cheapest first.

    Args:
        pool: Of a view that nobody else plans on: it is changed and put back.
        spec: The request.
        left_s: In how many seconds a placement is given back; None = nothing tells.
        priority_of: The priority of a placement's slice; None = it cannot be pre-empted.
        planner: Tries a request on the pool; as its own policy would, where that is not the plain
            planner.
    """
    now = planner(pool, spec)
    if isinstance(now, Decision):
        return [_as_it_is(pool, now)]
    holders = _in_the_way(pool, spec)
    names = sorted(holders, key=lambda n: (left_s(n) is None, left_s(n) or 0, n))
    slices = [name for name in names if not name.startswith("~")]
    found = _given_back(pool, spec, slices, "wait", left_s, planner)
    if now.reason is not Reason.INFEASIBLE:
        lesser = [n for n in slices if (p := priority_of(n)) is not None and p < spec.priority]
        found += _given_back(pool, spec, lesser, "preempt", lambda _name: 0, planner)
        system = [name for name in names if name.startswith("~")]
        found += _given_back(pool, spec, system, "undrain", lambda _name: None, planner)
    found += _accepted(pool, spec, planner)
    if not found and now.reason is not Reason.INFEASIBLE:
        found += _given_back(pool, spec, names, "wait", left_s, planner)
    return cheapest_first(found)


def cheapest_first(items: Iterable[Item]) -> list[Item]:
    """Return items in the order in which they are told: what has a time before what has none."""
    return sorted(
        items, key=lambda i: (i.eta_s is None, _ORDER[i.sort], inf if i.eta_s is None else i.eta_s)
    )


def _as_it_is(pool: Pool, decision: Decision) -> Item:
    asleep = [
        subject_of(unit)
        for unit in decision.units
        if kind_of(unit) in ("engine", "share")
        and (holder := pool.view.holder(engine_unit(subject_of(unit)))) is not None
        and holder.startswith(OFF)
    ]
    return Item("wake" if asleep else "place", engines=tuple(asleep))


# -- who has to give back


def _in_the_way(pool: Pool, spec: SliceSpec) -> set[str]:
    """Return the placements that hold anything a request could use."""
    view = pool.view
    engines: set[str] = set()
    try:
        demand = demand_of(pool, replace(spec, circuits=()))
    except SpecError:
        return set()
    for wants in demand.engines:
        for want in wants:
            stock = pool.stock(want.wares)
            for site in pool.sites:
                mask = stock.mask(site) if site is not None else 0
                if mask and site is not None:
                    engines.update(e for n, e in enumerate(site.engines) if mask >> n & 1)
    found: set[str] = set()
    for engine in engines:
        unit = engine_unit(engine)
        found.update(view.holders.get(unit, ()), view.shares.get(engine, ()))
        found.update(view.wanted.get(unit, ()))
    nodes = {engine.partition("/")[0] for engine in engines}
    if demand.hosts:
        nodes |= view.cell.nodes.keys()
    for node in nodes:
        found.update(view.holders.get(f"node/{node}", ()), view.wanted.get(f"node/{node}", ()))
        if spec.hosts:
            found.update(view.hosts.get(node, ()), view.wanted.get(f"host/{node}", ()))
    if spec.circuits:
        for unit, names in view.holders.items():
            if unit.startswith(("lane/", "link/", "switch/")):
                found.update(names)
        for unit, drains in view.wanted.items():
            if unit.startswith(("lane/", "link/", "switch/")):
                found |= drains
    return {name for name in found if not name.startswith(OFF)}


def _given_back(
    pool: Pool,
    spec: SliceSpec,
    names: Sequence[str],
    sort: str,
    left_s: Callable[[str], float | None],
    planner: Planner,
) -> list[Item]:
    """Return who would do alone, or else who would do together, the soonest first."""

    def helps(some: Sequence[str]) -> bool:
        with without(pool.view, some):
            return isinstance(planner(pool, spec), Decision)

    found: list[Item] = []
    for name in names[:TRIALS_MAX]:
        if helps([name]):
            found.append(Item(sort, (name,), eta_s=left_s(name)))
            if len(found) == EACH_MAX:
                return found
    high = None
    if not found and len(names) > 1:
        high = fewest(len(names), lambda count: helps(names[:count]), 2)
    if high is None:
        return found
    some = list(names[:high])
    if high <= PRUNED_MAX:
        for name in reversed(names[: high - 1]):
            fewer = [other for other in some if other != name]
            if len(fewer) > 1 and helps(fewer):
                some = fewer
    etas = [left_s(name) for name in some]
    known = [eta for eta in etas if eta is not None]
    eta_s = max(known) if len(known) == len(etas) else None
    return [Item(sort, tuple(some), eta_s=eta_s)]


# -- what could be asked instead


def _accepted(pool: Pool, spec: SliceSpec, planner: Planner) -> list[Item]:
    found: list[Item] = []
    for words, other in _wider(spec):
        if isinstance(planner(pool, other), Decision):
            found.append(Item("accept", accept=other, words=words, eta_s=0))
    if not found:
        together = dict.fromkeys(spec.together, "any")
        loose = replace(spec, together=together, constraints=_unbound(spec))
        if loose != spec and isinstance(planner(pool, loose), Decision):
            words = "accept any place and ways of any length: no together, max_hops, max_latency_ns"
            found.append(Item("accept", accept=loose, words=words, eta_s=0))
    return [*found[:EACH_MAX], *_fewer(pool, spec, planner)]


def _unbound(spec: SliceSpec) -> Constraints:
    return replace(spec.constraints, max_hops=0, max_latency_ns=0)


def _wider(spec: SliceSpec) -> Iterator[tuple[str, SliceSpec]]:
    """Yield requests that ask a little less, with what that means."""
    for role, word in spec.together.items():
        if word == "node":
            yield (
                f"accept several nodes for {role}, on one switch (together: switch)",
                replace(spec, together={**spec.together, role: "switch"}),
            )
        if word in ("node", "switch"):
            yield (
                f"accept another {word} for some of {role} (together: any)",
                replace(spec, together={**spec.together, role: "any"}),
            )
    bounds = spec.constraints
    if bounds.max_hops:
        yield (
            f"accept circuits of more than {bounds.max_hops} links (no max_hops)",
            replace(spec, constraints=replace(bounds, max_hops=0)),
        )
    if bounds.max_latency_ns:
        yield (
            f"accept circuits that take more than {bounds.max_latency_ns} ns (no max_latency_ns)",
            replace(spec, constraints=replace(bounds, max_latency_ns=0)),
        )
    if any(wish.lanes > 1 for wish in spec.circuits):
        narrow = tuple(replace(wish, lanes=1) for wish in spec.circuits)
        yield "accept circuits of one lane (lanes: 1)", replace(spec, circuits=narrow)
    for role, wish in spec.engines.items():
        if any(choice.models for choice in wish.choices):
            choices = tuple(replace(choice, models=()) for choice in wish.choices)
            yield (
                f"accept any model for {role}",
                replace(spec, engines={**spec.engines, role: EngineRole(choices)}),
            )


def _fewer(pool: Pool, spec: SliceSpec, planner: Planner) -> Iterator[Item]:
    """Yield the most engines that could be had of a role, where it is the only one of several."""
    if len(spec.engines) != 1:
        return
    ((role, wish),) = spec.engines.items()
    if len(wish.choices) != 1 or wish.choices[0].count == 1:
        return
    choice = wish.choices[0]
    low, high, best = 1, choice.count - 1, None
    while low <= high:
        count = (low + high) // 2
        fewer = EngineRole((replace(choice, count=count),))
        other = replace(spec, engines={role: fewer})
        if isinstance(planner(pool, other), Decision):
            best, low = (count, other), count + 1
        else:
            high = count - 1
    if best is not None:
        words = f"accept {best[0]} of {choice.count} engines for {role}"
        yield Item("accept", accept=best[1], words=words, eta_s=0)


def holders_of(view: CellView) -> dict[str, Placement]:
    """Return what every slice holds now, plans under way included."""
    names = {name for names in view.holders.values() for name in names}
    names |= {
        name for table in (view.shares, view.hosts) for held in table.values() for name in held
    }
    found = {name: view.now(name) for name in sorted(names) if not name.startswith("~")}
    return {name: placement for name, placement in found.items() if placement is not None}
