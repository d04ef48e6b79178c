"""Which less important slices have to give way so that a slice finds a place, and where does it go?

Asked by supposing: with some placements lifted out of the view, the planner either finds a place or
not. How many it takes is found by doubling, the least important first; then those that turn out not
to be needed are spared. The number of plans is bounded, so a better answer may be missed; a slice
that is as important, not preemptible, or on its way out already is never in it.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Final, NamedTuple, TypeAlias

from flowos.model.cell import Engine
from flowos.model.placement import Decision, Placement, Unplaceable
from flowos.model.slice import EngineChoice, SliceSpec
from flowos.model.units import engine_unit, is_divisible, kind_of, subject_of
from flowos.model.view import CellView, Entry
from flowos.planning.engines.pool import OFF, Pool
from flowos.protocol.takeover import losses

PLANS_MAX: Final = 48  # what-if plans for one slice
_OTHERS_MAX: Final = 2  # places looked at beside the first one found, in each order

Plan: TypeAlias = Callable[[Collection[str]], Decision | Unplaceable]


class Preemption(NamedTuple):
    """A plan that needs what others hold.

    Attributes:
        decision: Where the slice goes.
        victims: The slices that lose something by it, in the order of their names: what `commit`
            is told as its `victims`.
    """

    decision: Decision
    victims: tuple[str, ...]


class _Lesser(NamedTuple):
    """A slice that may have to give way.

    Attributes:
        engines: How many it holds, parts of one counted as one.
        since: The revision of its commit: the greater, the younger.
    """

    name: str
    priority: int
    engines: int
    since: int


class _Cost(NamedTuple):
    """What a plan costs others; the least is taken."""

    priority: int  # of the most important of them
    engines: int
    slices: int
    age: int  # of the oldest: the later it was committed, the less is lost


def victims(
    pool: Pool, spec: SliceSpec, *, plan: Plan, avoid: Collection[str] = ()
) -> Preemption | None:
    """Find a place for a slice that found none among what is free, at the cost of others.

    The same view, spec and plan give the same answer.

    Args:
        pool: Of the view that is to be committed on. It follows the suppositions, and then is as
            it was.
        spec: The slice; its priority is what counts, as it is written.
        plan: Plans the slice on the pool as it is then, leaving these units alone: the policy's
            own `plan`, with its seed.
        avoid: Units to leave alone.

    Returns:
        None where no set of less important, preemptible slices was found that makes room. Whoever
        asks should remember that until something changes.
    """
    lesser = _lesser(pool.view, spec)
    if not lesser:
        return None
    search = _Search(pool.view, plan, avoid, {one.name: one for one in lesser})
    if search.tried([one.name for one in lesser]) is None:
        return None  # not even with all of them gone
    # The least important first in each; then the youngest, the smallest, or the largest.
    for rank in (
        lambda one: (one.priority, -one.since),
        lambda one: (one.priority, one.engines, -one.since),
        lambda one: (one.priority, -one.engines, -one.since),
    ):
        search.grow([one.name for one in sorted(lesser, key=rank)])
    search.spare()
    return search.best


class _Search:
    """Plans in suppositions, of which the cheapest is remembered."""

    def __init__(
        self, view: CellView, plan: Plan, avoid: Collection[str], lesser: dict[str, _Lesser]
    ) -> None:
        self.best: Preemption | None = None
        self._cost: _Cost | None = None
        self._view, self._plan, self._lesser = view, plan, lesser
        self._avoid = frozenset(avoid)
        self._left = PLANS_MAX

    def tried(self, names: Sequence[str]) -> Preemption | None:
        """Plan as if these held nothing; None where there is no place even so."""
        while self._left > 0:
            self._left -= 1
            with self._view.lifted(names):
                decision = self._plan(self._avoid)
            if isinstance(decision, Unplaceable):
                return None
            whole = _held_whole(self._view, decision)
            if not whole:
                lost = losses(self._view, decision.units, names)
                found = Preemption(decision, tuple(sorted(lost)))
                cost = self._cost_of(found.victims)
                if self._cost is None or cost < self._cost:
                    self.best, self._cost = found, cost
                return found
            # Parts of an engine are not to be had while somebody holds it whole: what he does not
            # lose would be free, and in use.
            self._avoid |= whole
        return None

    def grow(self, names: Sequence[str]) -> None:
        """Double the number of those that give way until there is a place; then look for others."""
        count, found = 1, None
        while found is None:
            found = self.tried(names[:count])
            if found is None and (count >= len(names) or self._left <= 0):
                return
            count *= 2
        among = names[: count // 2]
        for _ in range(_OTHERS_MAX):
            among = [name for name in among if name not in found.victims]
            other = self.tried(among) if among else None
            if other is None:
                return
            found = other

    def spare(self) -> None:
        """Leave out, one by one, those without whom there is a place as well."""
        assert self.best is not None, "a place was found"
        by_harm = sorted(self.best.victims, key=self._harm, reverse=True)
        for name in by_harm:
            fewer = [other for other in self.best.victims if other != name]
            if name in self.best.victims and fewer:
                self.tried(fewer)

    def _harm(self, name: str) -> tuple[int, int, int]:
        one = self._lesser[name]
        return one.priority, one.engines, -one.since

    def _cost_of(self, names: Sequence[str]) -> _Cost:
        gone = [self._lesser[name] for name in names]
        return _Cost(
            priority=max((one.priority for one in gone), default=0),
            engines=sum(one.engines for one in gone),
            slices=len(gone),
            age=-min((one.since for one in gone), default=0),
        )


def _held_whole(view: CellView, decision: Decision) -> frozenset[str]:
    """Return the engines of which a plan wants parts and which somebody holds whole."""
    shared = [engine_unit(subject_of(u)) for u in decision.units if kind_of(u) == "share"]
    holders = {unit: view.holder(unit) for unit in shared}
    return frozenset(unit for unit, by in holders.items() if by and not by.startswith(OFF))


def _lesser(view: CellView, spec: SliceSpec) -> list[_Lesser]:
    """Return the slices that may have to give way to a slice, and hold anything of what it asks."""
    choices = [choice for role in spec.engines.values() for choice in role.choices]
    kinds = {"lane", "aggregator"} if spec.circuits else set()
    if spec.hosts:
        kinds.add("host")
    found: list[_Lesser] = []
    for name, entry in view.placements.items():
        placement = entry.value
        asked = view.slices.get(name)
        if (
            asked is None
            or not asked.value.spec.preemptible
            or asked.value.spec.priority >= spec.priority
            or asked.value.cancelled
            or not _settled(view, name, entry)
            or (placement.uid or entry.created) != asked.created
        ):
            continue
        engines = [subject_of(u) for u in placement.held if kind_of(u) in ("engine", "share")]
        helps = any(kind_of(unit) in kinds for unit in placement.held) or any(
            _could_do(view.cell.engines.get(engine), choice)
            for engine in engines
            for choice in choices
        )
        if helps:
            found.append(_Lesser(name, asked.value.spec.priority, len(engines), entry.created))
    return found


def _settled(view: CellView, name: str, entry: Entry[Placement]) -> bool:
    """Whether nobody is about to take from a placement, or give it back, and it waits for nobody."""
    placement = entry.value
    return (
        bool(placement.held)
        and not placement.releasing
        and placement.ending is None
        and not placement.waits
        and not view.assumed(name)
        and all(is_divisible(u) or view.holders.get(u) == (name,) for u in placement.held)
    )


def _could_do(engine: Engine | None, choice: EngineChoice) -> bool:
    return (
        engine is not None
        and choice.kind in ("", engine.kind)
        and (not choice.models or engine.model in choice.models)
    )
