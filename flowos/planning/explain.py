"""Why is one engine not used for a request?"""

from typing import NamedTuple

from flowos.model.cell import WHOLE_MILLIS
from flowos.model.errors import SpecError
from flowos.model.placement import Unplaceable
from flowos.model.slice import EngineChoice, SliceSpec
from flowos.model.units import engine_unit, share_unit
from flowos.planning.choose import Draft
from flowos.planning.demand import Want, demand_of, steps_of
from flowos.planning.place import plan
from flowos.planning.pool import NOWHERE, OFF, Make, Pool, Site
from flowos.planning.where import parse_where


class _Obstacle(NamedTuple):
    """What stands in the way, and how far the engine got before it."""

    stage: int
    sentence: str


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
    wrong = _unlike(pool, want, choice, site, position)
    if wrong:
        return _Obstacle(0, f"{want.role} asks for {wrong}")
    engine = site.engines[position]
    taken = _taken(pool, want, site, engine)
    if taken:
        return _Obstacle(1, f"{engine} {taken}")
    alone = _hosts_or_company(pool, want, site, position)
    return _Obstacle(2, f"{engine} is free, but {alone}") if alone else None


def _unlike(pool: Pool, want: Want, choice: EngineChoice, site: Site, position: int) -> str:
    """Return the first thing that a choice asks and this engine is not, "" = it is all of it."""
    make = pool.makes[site.makes[position]]
    engine = site.engines[position]
    for step, holds in steps_of(pool, choice, 0):
        if not holds(make):
            return f"{step}, {engine} is {_described(make)}"
    if pool.stock(want.wares).mask(site) >> position & 1:
        return ""
    for condition in parse_where(choice.where):
        own = make.found().get(condition.key)
        if own is not None and not condition.holds(own):
            return f"{condition}, {engine} has {condition.key} {own}"
    if not any(number == site.makes[position] for number, _ in want.wares):
        return f"more port lanes for its circuits than the {make.port_lanes} of {engine}"
    open_ones = dict(want.wares)[site.makes[position]]
    asked = " and ".join(str(condition) for condition in open_ones)
    return f"{asked}, which neither {engine} nor its node {site.name} has"


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
