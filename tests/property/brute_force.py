"""What is true of a request and a small cell, found by trying everything.

Written from docs/vocabulary.md and the list of reasons in docs/explain.md, and from nothing that
plans: no pool, no draft, no fabric.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, permutations, product
from typing import TypeAlias

from flowos.model.cell import Cell, Engine
from flowos.model.slice import EngineChoice, HostRole, Reason, Shape, SliceSpec
from flowos.model.view import CellView

Ends: TypeAlias = Mapping[str, tuple[str, ...]]
Hop: TypeAlias = tuple[str, str, str]  # head, link, direction


@dataclass
class World:
    """What can be had.

    Attributes:
        whole: Engines that can be held whole.
        millis: Engine -> thousandths of it that can be held.
        loaded: Engine -> the bitstreams that those who hold parts of it need; "" = none.
        hosts: Node -> (CPU, memory) left; nodes out of service are not in it.
        lanes: (link, direction) -> lanes left; links out of service have none.
        closed: Switches out of service.
        devices: Node -> how many engines can be joined to its port, where that is limited.
    """

    cell: Cell
    whole: set[str] = field(default_factory=set)
    millis: dict[str, int] = field(default_factory=dict)
    loaded: dict[str, set[str]] = field(default_factory=dict)
    hosts: dict[str, tuple[int, int]] = field(default_factory=dict)
    lanes: dict[tuple[str, str], int] = field(default_factory=dict)
    closed: set[str] = field(default_factory=set)
    devices: dict[str, int] = field(default_factory=dict)
    routes: dict[tuple[object, ...], list[tuple[Hop, ...]]] = field(default_factory=dict)


def empty_world(cell: Cell) -> World:
    """Nothing held, nothing out of service, everything awake."""
    return World(
        cell,
        whole=set(cell.engines),
        millis=dict.fromkeys(cell.engines, 1000),
        hosts={n.name: (n.cpu_millis, n.memory_bytes) for n in cell.nodes.values()},
        devices={n.name: n.devices_max for n in cell.nodes.values() if n.devices_max},
        lanes={(k, way): link.lanes for k, link in cell.links.items() for way in ("fwd", "rev")},
    )


def world_now(view: CellView) -> World:
    """What placements leave: engines that are off can be woken, what a drain waits for is gone."""
    world = empty_world(view.cell)
    listed: list[tuple[str, str, tuple[int, ...]]] = []
    for name in {*view.placements, *view._assumed}:
        placement = view.now(name)
        assert placement is not None
        units = {**placement.held, **placement.releasing, **dict.fromkeys(placement.wanted, ())}
        listed += [(name, unit, amounts) for unit, amounts in units.items()]
    for name, unit, amounts in listed:
        kind, _, subject = unit.partition("/")
        match kind:
            case "engine" if not name.startswith("~off/"):
                world.whole.discard(subject)
                world.millis[subject] = 0
            case "share":
                world.whole.discard(subject)
                world.millis[subject] = max(world.millis[subject] - amounts[0], 0)
                placement = view.now(name)
                assert placement is not None
                needs = placement.bitstreams.get(subject, "")
                world.loaded.setdefault(subject, set()).add(needs)
            case "host" if subject in world.hosts:
                cpu, memory = world.hosts[subject]
                world.hosts[subject] = (cpu - amounts[0], memory - amounts[1])
                if amounts[2:]:
                    world.devices[subject] -= amounts[2]
            case "lane":
                link, direction, _ = subject.rsplit("/", 2)
                world.lanes[link, direction] -= 1
            case "link":
                world.lanes[subject, "fwd"] = world.lanes[subject, "rev"] = 0
            case "switch":
                world.closed.add(subject)
            case "node":
                world.hosts.pop(subject, None)
                for engine in view.cell.engines_of.get(subject, ()):
                    world.whole.discard(engine)
                    world.millis[engine] = 0
    return world


# -- the list of reasons


def truth(view: CellView, spec: SliceSpec) -> Reason | None:
    """The first reason of docs/explain.md that holds; None = it can be placed now."""
    now = world_now(view)
    if any(
        rank >= sum(min(c.count for c in spec.engines[role].choices) for role in wish.roles)
        for wish in spec.circuits
        for rank in (rank for pair in wish.links for rank in pair)
    ):
        return Reason.INFEASIBLE
    if any(
        choice.bitstream and view.cell.bitstream(choice.bitstream) is None
        for role in spec.engines.values()
        for choice in role.choices
    ):
        return Reason.INFEASIBLE
    if possible(now, spec):
        return None
    if not possible(empty_world(view.cell), spec):
        return Reason.INFEASIBLE
    bare = replace(spec, circuits=())
    full = crowded(now, spec)
    if spec.circuits and not full and possible(now, bare):
        return Reason.NO_CIRCUIT
    if possible(now, bare, in_total=True):
        has_switches = bool(view.cell.switches) and not full
        return Reason.FRAGMENTED_ACROSS_SWITCHES if has_switches else Reason.WAITING_FOR_ENGINES
    others = {
        role: wish
        for role, wish in spec.engines.items()
        if not all(choice.bitstream for choice in wish.choices)
    }
    hosts = {r: h for r, h in spec.hosts.items() if r in others or r not in spec.engines}
    rest = replace(bare, engines=others, hosts=hosts)
    if len(others) < len(spec.engines) and possible(now, rest, in_total=True):
        return Reason.WAITING_FOR_BITSTREAM
    return Reason.WAITING_FOR_ENGINES


def crowded(world: World, spec: SliceSpec) -> bool:
    """Whether too few nodes with a port take as many more engines as a host role attaches to each."""
    for role, host in spec.hosts.items():
        peers = {
            other
            for wish in spec.circuits
            if wish.shape is Shape.FLOW and role in wish.roles and role not in spec.engines
            for other in wish.roles
            if other in spec.engines
        }
        engines = sum(min(c.count for c in spec.engines[peer].choices) for peer in peers)
        takers = [
            node
            for node in world.hosts
            if world.cell.links_at.get(node) and world.devices.get(node, engines) >= engines
        ]
        if engines and len(takers) < max(host.count, 1):
            return True
    return False


def possible(world: World, spec: SliceSpec, *, in_total: bool = False) -> bool:
    """Whether any choice of engines, hosts, ranks and ways gives a request all it asks."""
    seen: set[object] = set()
    for choices, engines in assignments(world, spec, in_total=in_total):
        for hosts in host_choices(world, spec, choices, engines, in_total=in_total):
            if not spec.circuits:
                return True
            alike = tuple(
                (role, tuple(sorted(looks(world, end) for end in ends)))
                for role, ends in {**engines, **hosts}.items()
            )
            shared = [c.share_millis < 1000 for c in choices.values()]
            if not any(shared):
                if alike in seen:
                    continue
                seen.add(alike)
            if any(routable(world, spec, ends) for ends in ranked(spec, {**engines, **hosts})):
                return True
    return False


def looks(world: World, end: str) -> tuple[object, ...]:
    """Ends of which this is equal can stand for each other in circuits."""
    cell = world.cell
    links: list[tuple[object, ...]] = []
    for name in cell.links_at.get(end, ()):
        link = cell.links[name]
        other = link.b_thing if link.a_thing == end else link.a_thing
        ways = ("fwd", "rev") if link.a_thing == end else ("rev", "fwd")
        direct = end if other not in cell.switches else ""
        left = tuple(world.lanes[name, way] for way in ways)
        links.append((other, *left, link.latency_ns, direct, name if direct else ""))
    return (world.devices.get(end, -1), *sorted(links))


# -- engines and hosts


def assignments(
    world: World, spec: SliceSpec, *, in_total: bool
) -> Iterator[tuple[dict[str, EngineChoice], dict[str, tuple[str, ...]]]]:
    roles = list(spec.engines)
    options = [
        [
            (choice, group)
            for choice in spec.engines[role].choices
            for group in groups(world, spec, role, choice, in_total=in_total)
        ]
        for role in roles
    ]
    for picked in product(*options):
        if fair(world, [p[0] for p in picked], [p[1] for p in picked]):
            yield (
                {r: p[0] for r, p in zip(roles, picked, strict=True)},
                {r: p[1] for r, p in zip(roles, picked, strict=True)},
            )


def groups(
    world: World, spec: SliceSpec, role: str, choice: EngineChoice, *, in_total: bool
) -> list[tuple[str, ...]]:
    fitting = [e.id for e in world.cell.engines.values() if meets(world, choice, e)]
    found = []
    seen: set[object] = set()
    for group in combinations(fitting, choice.count):
        if not in_total and not is_together(world.cell, spec.together.get(role, "any"), group):
            continue
        # Of engines of one node that are alike in all, one stands for the other.
        alike = tuple(sorted(kind_in(world, engine) for engine in group))
        if len(spec.engines) > 1 or alike not in seen:
            seen.add(alike)
            found.append(group)
    return found


def kind_in(world: World, engine: str) -> tuple[object, ...]:
    it = world.cell.engines[engine]
    left = world.millis[engine]
    return (it.node, it.kind, it.model, it.shareable, left, str(looks(world, engine)))


def meets(world: World, choice: EngineChoice, engine: Engine) -> bool:
    if choice.kind not in ("", engine.kind):
        return False
    if choice.models and engine.model not in choice.models:
        return False
    bitstream = world.cell.bitstream(choice.bitstream) if choice.bitstream else None
    if bitstream and not (
        engine.loads_bitstreams
        and engine.kind == bitstream.kind
        and (not bitstream.models or engine.model in bitstream.models)
    ):
        return False
    if choice.share_millis == 1000:
        return engine.id in world.whole
    needs = {bitstream.reference} if bitstream else None
    others = world.loaded.get(engine.id, set())
    return (
        engine.shareable
        and world.millis[engine.id] >= choice.share_millis
        and (needs is None or others <= needs)
    )


def is_together(cell: Cell, word: str, engines: Sequence[str]) -> bool:
    if word == "node":
        return len({engine.partition("/")[0] for engine in engines}) == 1
    if word == "switch":
        return bool(set.intersection(*(switches_of(cell, engine) for engine in engines)))
    return True


def switches_of(cell: Cell, engine: str) -> set[str]:
    """Its leaf switches."""
    links = [cell.links[name] for name in cell.links_at.get(engine, ())]
    return {end for k in links for end in (k.a_thing, k.b_thing)} & cell.switches.keys()


def fair(world: World, choices: Sequence[EngineChoice], picked: Sequence[Sequence[str]]) -> bool:
    """Whether no engine is given away twice, or beyond what is left of it."""
    whole: set[str] = set()
    parts: dict[str, int] = {}
    loads: dict[str, set[str]] = {}
    for choice, group in zip(choices, picked, strict=True):
        for engine in group:
            if choice.share_millis == 1000:
                if engine in whole:
                    return False
                whole.add(engine)
            else:
                parts[engine] = parts.get(engine, 0) + choice.share_millis
                if choice.bitstream:
                    loads.setdefault(engine, set()).add(choice.bitstream.partition("@")[0])
    return (
        not whole & parts.keys()
        and all(millis <= world.millis[engine] for engine, millis in parts.items())
        and all(len(names) == 1 for names in loads.values())
    )


_NO_HOST = HostRole()


def host_choices(
    world: World,
    spec: SliceSpec,
    choices: Mapping[str, EngineChoice],
    engines: Ends,
    *,
    in_total: bool,
) -> Iterator[dict[str, tuple[str, ...]]]:
    """Yield nodes for each role that asks for hosts alone, where all host resources suffice."""
    asked: list[tuple[str, int, int]] = []
    for role, group in engines.items():
        host = spec.hosts.get(role, _NO_HOST)
        asked += [(e.partition("/")[0], host.cpu_millis, host.memory_bytes) for e in group]
    alone = {r: h for r, h in spec.hosts.items() if r not in engines and r not in spec.engines}
    if in_total:
        cpu = sum(max(c, 0) for c, _ in world.hosts.values())
        memory = sum(max(m, 0) for _, m in world.hosts.values())
        cpu -= sum(c for _, c, _ in asked) + sum(h.cpu_millis * h.count for h in alone.values())
        memory -= sum(m for *_, m in asked)
        memory -= sum(h.memory_bytes * h.count for h in alone.values())
        if cpu >= 0 and memory >= 0:
            yield dict.fromkeys(alone, ())
        return
    joined = {role for wish in spec.circuits for role in wish.roles}
    options = [
        [
            nodes
            for nodes in combinations(world.hosts, host.count)
            if role not in joined or all(world.cell.links_at.get(node) for node in nodes)
        ]
        for role, host in alone.items()
    ]
    for picked in product(*options):
        left = dict(world.hosts)
        wanted = [
            *((node, cpu, memory) for node, cpu, memory in asked if cpu or memory),
            *(
                (node, host.cpu_millis, host.memory_bytes)
                for nodes, host in zip(picked, alone.values(), strict=True)
                for node in nodes
            ),
        ]
        for node, cpu, memory in wanted:
            has = left.get(node, (-1, -1))
            left[node] = (has[0] - cpu, has[1] - memory)
        if all(min(left.get(node, (-1, -1))) >= 0 for node, _, _ in wanted):
            yield dict(zip(alone, picked, strict=True))


# -- circuits


def ranked(spec: SliceSpec, ends: Ends) -> Iterator[Ends]:
    """Yield the ends with every order of ranks, where a shape depends on it."""
    matters = {
        role
        for wish in spec.circuits
        if wish.shape in (Shape.RING, Shape.STAR, Shape.EXPLICIT)
        for role in wish.roles
    }
    orders = [permutations(e) if role in matters else [e] for role, e in ends.items()]
    for picked in product(*orders):
        yield {role: tuple(order) for role, order in zip(ends, picked, strict=True)}


def wanted(spec: SliceSpec, ends: Ends) -> list[tuple[str, tuple[str, ...], int]]:
    """Every circuit: (source, targets, lanes)."""
    found: list[tuple[str, tuple[str, ...], int]] = []
    for wish in spec.circuits:
        pairs: list[tuple[str, tuple[str, ...]]] = []
        if wish.shape is Shape.FLOW:
            sources, targets = ends[wish.roles[0]], ends[wish.roles[1]]
            if len(sources) == 1:
                pairs.append((sources[0], tuple(t for t in targets if t != sources[0])))
            else:
                pairs += [(s, (t,)) for s in sources for t in targets if s != t]
        else:
            members = [end for role in wish.roles for end in ends[role]]
            n = len(members)
            if wish.shape is Shape.RING and n > 1:
                pairs += [(members[i], (members[(i + 1) % n],)) for i in range(n)]
            if wish.shape is Shape.ALL:
                pairs += [(a, (b,)) for a, b in permutations(members, 2)]
            if wish.shape is Shape.EXPLICIT:
                joined = {(members[a], members[b]): None for a, b in wish.links}
                joined = {pair: None for pair in joined if pair[0] != pair[1]}
                if wish.multicast:
                    for source in dict.fromkeys(a for a, _ in joined):
                        pairs.append((source, tuple(b for a, b in joined if a == source)))
                else:
                    pairs += [(a, (b,)) for a, b in joined]
            if wish.shape is Shape.STAR:
                pairs += [(members[0], (b,)) for b in members[1:]]
                pairs += [(b, (members[0],)) for b in members[1:]]
        found += [(source, targets, wish.lanes) for source, targets in pairs if targets]
    return found


def routable(world: World, spec: SliceSpec, ends: Ends) -> bool:
    """Whether lanes can be found for all circuits at once."""
    circuits = wanted(spec, ends)
    joined: dict[str, set[str]] = {}
    for source, targets, _ in circuits:
        for a, b in [(source, t) for t in targets] + [(t, source) for t in targets]:
            if a in world.cell.nodes and b not in world.cell.nodes:
                joined.setdefault(a, set()).add(b)
    if any(len(engines) > world.devices.get(a, len(engines)) for a, engines in joined.items()):
        return False
    legs = [(n, s, t, lanes) for n, (s, ts, lanes) in enumerate(circuits) for t in ts]
    options = {leg: paths(world, spec, leg[1], leg[2], leg[3]) for leg in legs}
    legs.sort(key=lambda leg: (leg[0], len(options[leg])))
    if not all(options.values()):
        return False
    used: dict[tuple[str, str], int] = {}
    trees: list[dict[str, tuple[str, str]]] = [{} for _ in circuits]

    def go(turn: int) -> bool:
        if turn == len(legs):
            return True
        number, _, _, lanes = legs[turn]
        tree = trees[number]
        for way in options[legs[turn]]:
            fresh = [hop for hop in way if hop[0] not in tree]
            if any(tree.get(head, (k, d)) != (k, d) for head, k, d in way):
                continue  # two ways of a tree never lead to the same place differently
            if any(used.get((k, d), 0) + lanes > world.lanes[k, d] for _, k, d in fresh):
                continue
            for head, k, d in fresh:
                tree[head] = (k, d)
                used[k, d] = used.get((k, d), 0) + lanes
            if go(turn + 1):
                return True
            for head, k, d in fresh:
                del tree[head]
                used[k, d] -= lanes
        return False

    return go(0)


def paths(
    world: World, spec: SliceSpec, source: str, target: str, lanes: int
) -> list[tuple[Hop, ...]]:
    """Every way over open switches that has so many lanes on each link, within the bounds."""
    key = (source, target, lanes, spec.constraints)
    if key not in world.routes:
        world.routes[key] = sorted(_paths(world, spec, source, target, lanes), key=len)
    return world.routes[key]


def _paths(
    world: World, spec: SliceSpec, source: str, target: str, lanes: int
) -> Iterator[tuple[Hop, ...]]:
    cell, bounds = world.cell, spec.constraints
    stack: list[tuple[str, tuple[Hop, ...], int]] = [(source, (), 0)]
    while stack:
        here, way, latency = stack.pop()
        if here == target:
            yield way
            continue
        been = {source, *(head for head, _, _ in way)}
        for name in cell.links_at.get(here, ()):
            link = cell.links[name]
            forward = link.a_thing == here
            head = link.b_thing if forward else link.a_thing
            direction = "fwd" if forward else "rev"
            if head in been or world.lanes[name, direction] < lanes:
                continue
            if head != target and (head not in cell.switches or head in world.closed):
                continue
            late = latency + link.latency_ns
            late += cell.switches[head].latency_ns if head in cell.switches else 0
            if bounds.max_hops and len(way) >= bounds.max_hops:
                continue
            if bounds.max_latency_ns and late > bounds.max_latency_ns:
                continue
            stack.append((head, (*way, (head, name, direction)), late))
