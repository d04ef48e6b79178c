"""Which less important slices have to give way so that a slice finds a place, and where does it go?

Asked by supposing: with some placements lifted out of the view, the planner either finds a place or
not. Supposed are first the cheapest of those on one node, or on one leaf, who are enough by number;
then as many of all as it takes, the least important first, found by doubling and halving. Of each
answer those who turn out not to be needed are spared. The number of plans is bounded, so
a better answer may be missed; a slice that is as important, not preemptible, or on its way out
already is never in it.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple, TypeAlias

from flowos.model.cell import Engine
from flowos.model.placement import Decision, Placement, Unplaceable
from flowos.model.slice import EngineChoice, SliceSpec
from flowos.model.units import engine_unit, is_divisible, kind_of, subject_of
from flowos.model.view import CellView, Entry
from flowos.planning.engines.pool import NOWHERE, OFF, Pool
from flowos.protocol.takeover import losses

PLANS_MAX: Final = 64  # what-if plans for one slice
_SPARED_MAX: Final = 8  # of the victims of one plan, those that are tried to do without
_NEAR_MAX: Final = 8  # nodes and leaves that are tried by themselves

Plan: TypeAlias = Callable[[Collection[str]], Decision | Unplaceable]
Pays: TypeAlias = Callable[[Decision, Collection[str]], bool]


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
        since: Its place among all by age: the greater, the younger.
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
    pool: Pool,
    spec: SliceSpec,
    *,
    plan: Plan,
    avoid: Collection[str] = (),
    purse: str = "",
    pays: Pays = lambda _decision, _victims: True,
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
        purse: Where it is not room that is lacking: only who spends from this gives way.
        pays: Whether a plan can be paid for with what these victims spend on the units that it
            takes over from them.

    Returns:
        None where no set of less important, preemptible slices was found that makes room. Whoever
        asks should remember that until something changes.
    """
    lesser = _lesser(pool.view, spec)
    if purse:
        placed = pool.view.placements
        lesser = {n: one for n, one in lesser.items() if purse in placed[n].value.spent}
    if not lesser:
        return None
    search = _Search(pool.view, plan, avoid, lesser, pays)
    for names in _near(pool, spec, lesser):
        search.tried(names)
    if search.best is None and search.tried(list(lesser)) is None:
        return None  # not even with all of them gone
    # The least important first in each; then the youngest, the smallest, or the largest.
    for rank in _RANKS:
        found = search.grown([one.name for one in sorted(lesser.values(), key=rank)])
        if found is not None:
            search.spare(found)
    return search.best


_RANKS: Final[tuple[Callable[[_Lesser], tuple[int, ...]], ...]] = (
    lambda one: (one.priority, -one.since),
    lambda one: (one.priority, one.engines, -one.since),
    lambda one: (one.priority, -one.engines, -one.since),
)


class _Search:
    """Plans in suppositions, of which the cheapest is remembered."""

    def __init__(
        self,
        view: CellView,
        plan: Plan,
        avoid: Collection[str],
        lesser: Mapping[str, _Lesser],
        pays: Pays,
    ) -> None:
        self.best: Preemption | None = None
        self._cost: _Cost | None = None
        self._view, self._plan, self._lesser, self._pays = view, plan, lesser, pays
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
                if not self._pays(decision, tuple(lost)):
                    return None
                found = Preemption(decision, tuple(sorted(lost)))
                cost = _cost_of([self._lesser[name] for name in lost])
                if self._cost is None or cost < self._cost:
                    self.best, self._cost = found, cost
                return found
            # Parts of an engine are not to be had while somebody holds it whole: what he does not
            # lose would be free, and in use.
            self._avoid |= whole
        return None

    def grown(self, names: Sequence[str]) -> Preemption | None:
        """Find how many of these, from the first on, have to give way."""
        low, high = 0, 1  # `low` are too few
        while (found := self.tried(names[:high])) is None:
            low, high = high, 2 * high
            if low >= len(names) or self._left <= 0:
                return None
        high = min(high, len(names))
        while high - low > 1:
            middle = (low + high) // 2
            fewer = self.tried(names[:middle])
            low, high = (middle, high) if fewer is None else (low, middle)
            found = fewer or found
        return found

    def spare(self, found: Preemption) -> None:
        """Leave out, one by one, those without whom there is a place as well."""
        for name in sorted(found.victims, key=self._harm, reverse=True)[:_SPARED_MAX]:
            fewer = [other for other in found.victims if other != name]
            if name in found.victims and fewer:
                found = self.tried(fewer) or found

    def _harm(self, name: str) -> tuple[int, int, int]:
        one = self._lesser[name]
        return one.priority, one.engines, -one.since


def _cost_of(gone: Collection[_Lesser]) -> _Cost:
    return _Cost(
        priority=max((one.priority for one in gone), default=0),
        engines=sum(one.engines for one in gone),
        slices=len(gone),
        age=-min((one.since for one in gone), default=0),
    )


def _near(pool: Pool, spec: SliceSpec, lesser: Mapping[str, _Lesser]) -> list[list[str]]:
    """Return who would have to leave a node, or a leaf, to be enough by number; the cheapest first."""
    wanted = sum(min(choice.count for choice in role.choices) for role in spec.engines.values())
    choices = [choice for role in spec.engines.values() for choice in role.choices]
    if not wanted:
        return []
    view = pool.view
    on: dict[str, dict[str, int]] = {}  # node -> slice -> how many engines it has there
    for one in lesser.values():
        for unit in view.placements[one.name].value.held:
            if kind_of(unit) in ("engine", "share"):
                there = on.setdefault(unit.split("/", 2)[1], {})
                there[one.name] = there.get(one.name, 0) + 1
    found: list[tuple[_Cost, list[str]]] = []
    for nodes in _groups(pool, on):
        free = sum(_free_on(view, node, choices) for node in nodes)
        here: dict[str, int] = {}
        for node in nodes:
            for name, count in on.get(node, {}).items():
                here[name] = here.get(name, 0) + count
        for rank in _RANKS[1:]:
            leave = _enough([lesser[name] for name in here], here, wanted - free, rank)
            if leave:
                found.append((_cost_of(leave), [one.name for one in leave]))
    found.sort(key=lambda one: one[0])
    few: list[list[str]] = []
    for _, names in found:
        if len(few) < _NEAR_MAX and names not in few:
            few.append(names)
    return few


def _groups(pool: Pool, nodes: Iterable[str]) -> Iterator[Sequence[str]]:
    """Yield each of the nodes, and all nodes of each leaf that has one of them."""
    leaves: dict[str, None] = {}
    for node in nodes:
        yield (node,)
        site = pool.sites[pool.numbers[node]]
        if site is not None:
            leaves |= {leaf: None for leaf, _ in site.leaves if leaf != NOWHERE}
    for leaf in leaves:
        sites = [pool.sites[number] for number in pool.leaf_sites[leaf]]
        if len(sites) > 1:
            yield [site.name for site in sites if site is not None]


def _enough(
    here: Collection[_Lesser],
    counts: Mapping[str, int],
    lacking: int,
    rank: Callable[[_Lesser], tuple[int, ...]],
) -> list[_Lesser]:
    """Return whose engines are as many as lack, without any to spare; none where all are too few."""
    found: list[_Lesser] = []
    for one in sorted(here, key=rank):
        if lacking <= 0:
            break
        found.append(one)
        lacking -= counts[one.name]
    if lacking > 0:
        return []
    for one in sorted(found, key=lambda one: (one.priority, counts[one.name]), reverse=True):
        if lacking + counts[one.name] <= 0:
            lacking += counts[one.name]
            found.remove(one)
    return found


def _free_on(view: CellView, node: str, choices: Collection[EngineChoice]) -> int:
    free = 0
    for engine in view.engines_of(node):
        holder = view.holder(engine_unit(engine.id))
        taken = (holder and not holder.startswith(OFF)) or view.shares.get(engine.id)
        free += not taken and any(_could_do(engine, choice) for choice in choices)
    return free


def _held_whole(view: CellView, decision: Decision) -> frozenset[str]:
    """Return the engines of which a plan wants parts and which somebody holds whole."""
    shared = [engine_unit(subject_of(u)) for u in decision.units if kind_of(u) == "share"]
    holders = {unit: view.holder(unit) for unit in shared}
    return frozenset(unit for unit, by in holders.items() if by and not by.startswith(OFF))


def _lesser(view: CellView, spec: SliceSpec) -> dict[str, _Lesser]:
    """Return, by name, the slices that may have to give way to a slice, and hold anything of what it asks."""
    choices = [choice for role in spec.engines.values() for choice in role.choices]
    kinds = {"lane", "aggregator"} if spec.circuits else set()
    if spec.hosts:
        kinds.add("host")
    found: list[tuple[int, int, str, int]] = []
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
            found.append((entry.created, asked.created, name, len(engines)))
    found.sort()  # those of one commit by the age of their requests
    return {
        name: _Lesser(name, view.slices[name].value.spec.priority, engines, since)
        for since, (_, _, name, engines) in enumerate(found)
    }


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
