"""Where did the engines go that a request could have, and why is one of them not used?"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from flowos.model.cell import WHOLE_MILLIS
from flowos.model.errors import SpecError
from flowos.model.placement import Unplaceable
from flowos.model.slice import EngineChoice, SliceSpec
from flowos.model.units import engine_unit, kind_of, share_unit, subject_of
from flowos.planning.demand import Funnel, Want, demand_of, steps_of
from flowos.planning.engines.choose import Draft
from flowos.planning.engines.pool import NOWHERE, OFF, Make, Mask, Pool, Site
from flowos.planning.place import plan
from flowos.planning.reasons.refuse import beside
from flowos.planning.where import parse_where

_QUARANTINE: Final = "~quarantine/"
_DRAIN: Final = "~drain/"


class _Obstacle(NamedTuple):
    """What stands in the way, and how far the engine got before it."""

    stage: tuple[int, int]
    sentence: str


def funnel(pool: Pool, spec: SliceSpec, *, role: str = "") -> Funnel:
    """Return how many engines are left for a role after each step, in the order people ask.

    kind, model and conditions; powered or can be woken; not drained; free; with host resources
    beside them; with free lanes at a port that leads somewhere; together.

    Args:
        pool: Folded here.
        spec: The request.
        role: Which of its roles; "" = the one of which the fewest are left, against what it asks.

    Returns:
        Steps with how many engines each leaves, never more than the one before. Of several
        choices, the one that leaves most.
    """
    pool.fold()
    try:
        demand = demand_of(pool, spec)
    except SpecError:
        return ()
    told = [
        max((_funnel(pool, want, want.role in demand.joined) for want in wants), key=_left)
        for wants in demand.engines
        if role in ("", wants[0].role)
    ]
    if not told:
        return ()
    asked = [min(w.count for w in wants) for wants in demand.engines if role in ("", wants[0].role)]
    return min(zip(told, asked, strict=True), key=lambda both: _left(both[0]) / both[1])[0]


def _left(steps: Funnel) -> int:
    return steps[-1][1]


def _funnel(pool: Pool, want: Want, joined: bool) -> Funnel:
    stock = pool.stock(want.wares)
    dead, drained = _out_of_service(pool, _QUARANTINE), _out_of_service(pool, _DRAIN)
    powered = in_service = free = hosted = 0
    beside_it = want.cpu_millis or want.memory_bytes
    left: list[tuple[Site, Mask]] = []
    for site, there in zip(pool.sites, pool.free, strict=True):
        mask = stock.mask(site) if site is not None else 0
        if site is None or not mask:
            continue
        now = mask & ~dead.get(site.number, 0)
        powered += now.bit_count()
        now &= ~drained.get(site.number, 0)
        in_service += now.bit_count()
        parts = 0
        if want.shared:
            parts = sum(1 << position for position, rest in there.parts if rest >= want.millis)
        now &= there.on | there.off | parts
        if not now:
            continue
        free += now.bit_count()
        if beside_it and (
            there.cpu_millis < want.cpu_millis or there.memory_bytes < want.memory_bytes
        ):
            continue
        hosted += now.bit_count()
        left.append((site, now))
    steps = [*want.funnel, ("powered or can be woken", powered), ("not drained", in_service)]
    steps.append(("free", free))
    if beside_it:
        steps.append((f"with {beside(want.cpu_millis, want.memory_bytes)} beside it", hosted))
    if joined:
        left = [(site, ported) for site, now in left if (ported := _ported(pool, site, now))]
        steps.append(("with a free port", sum(now.bit_count() for _, now in left)))
    if want.together in ("node", "switch") and not want.shared:
        steps.append((f"together on one {want.together}", _gathered(want, left)))
    return tuple(steps)


def _out_of_service(pool: Pool, sort: str) -> dict[int, Mask]:
    """Return node number -> the engines that a drain, or a quarantine, has or waits for."""
    view = pool.view
    found: dict[int, Mask] = {}
    for names in view.by_attempt.values():
        for name in names:
            if not name.startswith(sort):
                continue
            placement = view.now(name)
            assert placement is not None, "by_attempt names placements that are there"
            for unit in (*placement.held, *placement.releasing, *placement.wanted):
                kind, subject = kind_of(unit), subject_of(unit)
                if kind == "node" and subject in pool.numbers:
                    found[pool.numbers[subject]] = -1
                elif kind == "engine" and (at := pool.position(subject)) is not None:
                    site, position = at
                    found[site.number] = found.get(site.number, 0) | 1 << position
    return found


def _ported(pool: Pool, site: Site, mask: Mask) -> Mask:
    """Return the engines that have a free lane, one way or the other, over what is in service."""
    cell, taken, spoken, shut = pool.view.cell, pool.view.lanes_taken, pool.spoken, pool.shut
    found = 0
    for position, engine in enumerate(site.engines):
        if not mask >> position & 1:
            continue
        for name in cell.links_at.get(engine, ()):
            link = cell.links[name]
            if shut:
                other = link.b_thing if link.a_thing == engine else link.a_thing
                if f"link/{name}" in shut or f"switch/{other}" in shut:
                    continue
            ahead, back = (name, "fwd"), (name, "rev")
            if (taken.get(ahead, 0) | spoken.get(ahead, 0)).bit_count() < link.lanes or (
                taken.get(back, 0) | spoken.get(back, 0)
            ).bit_count() < link.lanes:
                found |= 1 << position
                break
    return found


def _gathered(want: Want, left: Sequence[tuple[Site, Mask]]) -> int:
    """Return how many engines are in places that have enough of them."""
    sizes: dict[str, int] = {}
    at: list[tuple[Mask, list[tuple[str, Mask]]]] = []
    for site, now in left:
        places = (
            [(site.name, -1)]
            if want.together == "node"
            else [(leaf, ports) for leaf, ports in site.leaves if leaf != NOWHERE]
        )
        at.append((now, places))
        for place, among in places:
            sizes[place] = sizes.get(place, 0) + (now & among).bit_count()
    gathered = 0
    for now, places in at:
        enough = 0
        for place, among in places:
            if sizes[place] >= want.count:
                enough |= now & among
        gathered += enough.bit_count()
    return gathered


def why_not(pool: Pool, spec: SliceSpec, engine: str) -> str:
    """Return one sentence on why an engine is not used for a request now.

    Of several roles and choices, the one that the engine comes nearest to is told.
    """
    pool.fold()
    if engine not in pool.view.cell.engines:
        return f"the cell has no engine {engine}"
    found = pool.position(engine)
    if found is None:
        return f"the cell has engine {engine} but not its node"
    site, position = found
    if not spec.engines:
        return f"{spec.name} asks for no engines"
    try:
        demand = demand_of(pool, spec)
    except SpecError as error:
        return f"no engine will do: {error}"
    obstacles: list[_Obstacle] = []
    for wants in demand.engines:
        choices = spec.engines[wants[0].role].choices
        for want, choice in zip(wants, choices, strict=True):
            obstacle = _obstacle(pool, want, choice, site, position)
            if obstacle is None:
                return _would_do(pool, spec, engine, want)
            obstacles.append(obstacle)
    return max(obstacles, key=lambda obstacle: obstacle.stage).sentence


def _obstacle(
    pool: Pool, want: Want, choice: EngineChoice, site: Site, position: int
) -> _Obstacle | None:
    passed, wrong = _unlike(pool, want, choice, site, position)
    if wrong:
        return _Obstacle((0, passed), f"{want.role} asks for {wrong}")
    engine = site.engines[position]
    taken = _taken(pool, want, site, engine)
    if taken:
        return _Obstacle((1, 0), f"{engine} {taken}")
    alone = _hosts_or_company(pool, want, site, position)
    return _Obstacle((2, 0), f"{engine} is free, but {alone}") if alone else None


def _unlike(
    pool: Pool, want: Want, choice: EngineChoice, site: Site, position: int
) -> tuple[int, str]:
    """Return the first thing that a choice asks and this engine is not; "" = it is all of it.

    Before it stands how many steps the engine passed.
    """
    make = pool.makes[site.makes[position]]
    engine = site.engines[position]
    passed = 0
    for step, holds in steps_of(pool, choice, 0):
        if not holds(make):
            return passed, f"{step}, {engine} is {_described(make)}"
        passed += 1
    if pool.stock(want.wares).mask(site) >> position & 1:
        return passed, ""
    for condition in parse_where(choice.where):
        own = make.found().get(condition.key)
        if own is not None and not condition.holds(own):
            return passed, f"{condition}, {engine} has {condition.key} {own}"
    if not any(number == site.makes[position] for number, _ in want.wares):
        lanes = f"the {make.port_lanes} of {engine}"
        return passed, f"more port lanes for its circuits than {lanes}"
    open_ones = dict(want.wares)[site.makes[position]]
    asked = " and ".join(str(condition) for condition in open_ones)
    return passed, f"{asked}, which neither {engine} nor its node {site.name} has"


def _described(make: Make) -> str:
    words = [make.kind, make.model]
    if make.memory_bytes:
        words.append(f"with {make.memory_bytes / 2**30:.4g} GiB")
    if make.shareable:
        words.append("(shareable)")
    return " ".join(filter(None, words))


def _taken(pool: Pool, want: Want, site: Site, engine: str) -> str:
    view = pool.view
    closed = f"node/{site.name}"
    if not view.in_service(closed):
        return f"is on node {site.name}, which {view.holder(closed)} took out of service"
    unit = engine_unit(engine)
    holders = [name for name in view.holders.get(unit, ()) if not name.startswith(OFF)]
    if holders:
        return f"is held by {holders[0]}"
    waiting = sorted({*view.wanted.get(unit, ()), *view.wanted.get(closed, ())})
    if waiting:
        return f"is kept for {waiting[0]}, which waits for it"
    held = view.shares.get(engine, {})
    rest = WHOLE_MILLIS - sum(held.values())
    if held and not want.shared:
        return (
            f"is shared: {min(held)} holds {share_unit(engine)}, and {want.role} asks for it whole"
        )
    if want.shared and rest < want.millis:
        return f"has {rest} thousandths left, {want.millis} are wanted"
    return ""


def _hosts_or_company(pool: Pool, want: Want, site: Site, position: int) -> str:
    draft = Draft(pool)
    draft.wake = True
    stock = pool.stock(want.wares)
    cpu, memory = draft.host(site.number)
    if (want.cpu_millis or want.memory_bytes) and (
        cpu < want.cpu_millis or memory < want.memory_bytes
    ):
        return (
            f"its node {site.name} has {max(cpu, 0) / 1000:g} CPU and "
            f"{max(memory, 0) / 2**30:.4g} GiB left, {want.role} asks for "
            f"{want.cpu_millis / 1000:g} CPU and {want.memory_bytes / 2**30:.4g} GiB beside it"
        )
    if want.shared:
        return ""
    if want.together == "node":
        room = draft.room(site.number, want, stock)[1]
        if room < want.count:
            return f"its node {site.name} has room for {room} of {want.count} that must be together"
    if want.together == "switch":
        leaves = [leaf for leaf, ports in site.leaves if ports >> position & 1 and leaf != NOWHERE]
        if not leaves:
            return f"it has no port on a switch, and {want.role} must be on one"
        room = max(stock.leaves.get(leaf, [0, 0])[1] for leaf in leaves)
        if room < want.count:
            return f"its switch {leaves[0]} has {room} free of {want.count} that must be together"
    return ""


def _would_do(pool: Pool, spec: SliceSpec, engine: str, want: Want) -> str:
    found = plan(pool, spec)
    if isinstance(found, Unplaceable):
        return f"{engine} is free and would do for {want.role}, but {found.sentence}"
    if engine_unit(engine) in found.units or share_unit(engine) in found.units:
        return f"{engine} would be used: nothing speaks against it"
    instead = found.engines[want.role][0]
    return (
        f"{engine} is free and would do for {want.role}, but others fit better: "
        f"{instead} would be used, since less would be left over beside it"
    )
