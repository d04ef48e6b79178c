"""What every decision has to be, checked without the planner's own structures."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import TypeAlias

from flowos.model.cell import Engine
from flowos.model.placement import Circuit, Decision
from flowos.model.slice import EngineChoice, Shape, SliceSpec
from flowos.model.units import engine_unit, lane_unit, share_unit
from flowos.model.view import CellView
from flowos.planning.where import parse_where
from tests.unit.planning.streams import stream_faults


def faults(view: CellView, spec: SliceSpec, decision: Decision) -> list[str]:
    """Return a sentence for each law that a decision breaks on a view that does not hold it yet.

    Several choices of a role may explain its engines: one of them must explain everything.
    """
    choices = {role: choices_of(view, spec, role, decision) for role in spec.engines}
    found = [f"no choice of {role} is met" for role, fitting in choices.items() if not fitting]
    if found:
        return found
    for picked in product(*choices.values()):
        known = dict(zip(choices, picked, strict=True))
        found = [
            *engine_faults(view, spec, decision, known),
            *host_faults(view, spec, decision),
            *circuit_faults(view, spec, decision),
            *lane_faults(view, decision, whole_engines(decision, known)),
            *unit_faults(decision, known),
        ]
        if not found:
            break
    return found


def whole_engines(decision: Decision, choices: Mapping[str, EngineChoice]) -> set[str]:
    return {
        engine
        for role, engines in decision.engines.items()
        if choices[role].share_millis == 1000
        for engine in engines
    }


# -- engines


def choices_of(
    view: CellView, spec: SliceSpec, role: str, decision: Decision
) -> list[EngineChoice]:
    engines = [view.cell.engines[name] for name in decision.engines[role]]
    return [
        choice
        for choice in spec.engines[role].choices
        if len(engines) == choice.count and all(meets(view, choice, e) for e in engines)
    ]


def meets(view: CellView, choice: EngineChoice, engine: Engine) -> bool:
    node = view.cell.nodes[engine.node]
    found = {
        "node": node.name,
        "engine": engine.id,
        "rack": node.rack,
        "pod": node.pod,
        **node.attributes,
    }
    found.update(engine.attributes)
    found.update(kind=engine.kind, model=engine.model, memory=engine.memory_bytes)
    bitstream = view.cell.bitstream(choice.bitstream) if choice.bitstream else None
    return (
        choice.kind in ("", engine.kind)
        and (not choice.models or engine.model in choice.models)
        and (choice.share_millis == 1000 or engine.shareable)
        and (bitstream is None or (engine.loads_bitstreams and bitstream.kind == engine.kind))
        and all(
            condition.holds(str(found[condition.key]) if condition.key in found else None)
            for condition in parse_where(choice.where)
        )
    )


def available(view: CellView, engine: str) -> bool:
    """Whether an engine can be held whole now, or once woken."""
    unit = engine_unit(engine)
    node = f"node/{engine.partition('/')[0]}"
    return (
        all(name.startswith("~off/") for name in view.holders.get(unit, ()))
        and not view.shares.get(engine)
        and not view.wanted.get(unit)
        and not view.wanted.get(node)
        and node not in view.holders
    )


def engine_faults(
    view: CellView, spec: SliceSpec, decision: Decision, choices: Mapping[str, EngineChoice]
) -> Iterator[str]:
    if set(decision.engines) != set(spec.engines):
        yield f"roles {set(decision.engines)} instead of {set(spec.engines)}"
    whole = [e for r, c in choices.items() if c.share_millis == 1000 for e in decision.engines[r]]
    shared = [e for r, c in choices.items() if c.share_millis < 1000 for e in decision.engines[r]]
    if len(set(whole)) < len(whole) or set(whole) & set(shared):
        yield f"an engine serves twice: {whole} {shared}"
    yield from (f"{engine} is not free" for engine in whole if not available(view, engine))
    for engine in set(shared):
        asked = sum(c.share_millis for r, c in choices.items() if engine in decision.engines[r])
        if asked > view.free_millis(engine):
            yield f"{asked} of {engine}, {view.free_millis(engine)} are left"
        if f"node/{engine.partition('/')[0]}" in view.holders:
            yield f"{engine} is on a node out of service"
    for role, choice in choices.items():
        if choice.bitstream:
            known = view.cell.bitstream(choice.bitstream)
            for engine in decision.engines[role]:
                if known is None or decision.bitstreams.get(engine) != known.reference:
                    yield f"{engine} gets the wrong bitstream"
        yield from together_faults(view, spec, role, decision.engines[role])


def together_faults(
    view: CellView, spec: SliceSpec, role: str, engines: Sequence[str]
) -> Iterator[str]:
    word = spec.together.get(role, "any")
    if word == "node" and len({engine.partition("/")[0] for engine in engines}) > 1:
        yield f"{role} is on several nodes: {engines}"
    if word == "switch" and not set.intersection(*(leaves_of(view, e) for e in engines)):
        yield f"{role} is on several switches: {engines}"


def leaves_of(view: CellView, engine: str) -> set[str]:
    links = [view.cell.links[name] for name in view.cell.links_at.get(engine, ())]
    above = {end for link in links for end in (link.a_thing, link.b_thing)} & set(
        view.cell.switches
    )
    return {switch for switch in above if view.cell.switches[switch].tier == 0} or above


# -- hosts


def host_faults(view: CellView, spec: SliceSpec, decision: Decision) -> Iterator[str]:
    sums: Counter[str] = Counter()
    memory: Counter[str] = Counter()
    for role, host in spec.hosts.items():
        if not (host.cpu_millis or host.memory_bytes) and role in spec.engines:
            continue
        nodes = decision.hosts.get(role, ())
        if role in spec.engines:
            if list(nodes) != [engine.partition("/")[0] for engine in decision.engines[role]]:
                yield f"{role}'s hosts {nodes} are not where its engines are"
        elif len(set(nodes)) != max(host.count, 1) or len(nodes) != len(set(nodes)):
            yield f"{role} has the hosts {nodes}"
        for node in nodes:
            sums[node] += host.cpu_millis
            memory[node] += host.memory_bytes
    for node in sums.keys() | memory.keys():
        free = view.free_host(node)
        wanted: tuple[int, ...] = (sums[node], memory[node])
        devices = {e for c in decision.circuits for e in _ends_met(c, node) if "/" in e}
        if devices and view.cell.nodes[node].devices_max:
            wanted += (len(devices),)
            if not view.host_has(node, wanted):
                yield f"{len(devices)} devices are attached to {node}, {view.free_devices(node)} more fit"
        if decision.units.get(f"host/{node}", (0, 0)) != wanted:
            yield f"host/{node} is {decision.units.get(f'host/{node}')}"
        if (sums[node], memory[node]) != (0, 0) and (
            sums[node] > free[0] or memory[node] > free[1] or f"node/{node}" in view.holders
        ):
            yield f"{sums[node]} CPU and {memory[node]} bytes on {node}, {free} are free"


def _ends_met(circuit: Circuit, node: str) -> set[str]:
    sources, targets = {circuit.source, *circuit.sources}, set(circuit.targets)
    return (targets if node in sources else set()) | (sources if node in targets else set())


# -- circuits


Ends: TypeAlias = tuple[frozenset[str], frozenset[str], int]  # sources, targets, lanes


def expected(spec: SliceSpec, decision: Decision) -> Counter[Ends]:
    """All circuits that a spec asks for, of these engines."""
    found: Counter[Ends] = Counter()
    for wish in spec.circuits:
        ends = {role: decision.engines.get(role) or decision.hosts[role] for role in wish.roles}
        if wish.shape is Shape.FLOW:
            sources, targets = ends[wish.roles[0]], ends[wish.roles[-1]]
            if wish.aggregate and len(sources) > 1:
                into = [(frozenset(sources) - {t}, frozenset([t]), wish.lanes) for t in targets]
                found.update(each for each in into if each[0])
                continue
            for source in sources:
                others = frozenset(targets) - {source}
                groups = [others] if len(sources) == 1 else [frozenset([t]) for t in others]
                found.update((frozenset([source]), g, wish.lanes) for g in groups if g)
            continue
        members = [end for role in wish.roles for end in ends[role]]
        if wish.shape is not Shape.EXPLICIT:  # whose ranks may be parts of one engine
            members = list(dict.fromkeys(members))
        pairs: set[tuple[str, str]] = set()
        for index, end in enumerate(members):
            match wish.shape:
                case Shape.RING:
                    pairs.add((end, members[(index + 1) % len(members)]))
                case Shape.ALL:
                    pairs.update((end, other) for other in members)
                case Shape.STAR:
                    pairs.update([(members[0], end), (end, members[0])])
                case Shape.EXPLICIT:
                    pairs.update((end, members[b]) for a, b in wish.links if a == index)
                case Shape.TORUS:
                    # The members' places, as an odometer counts them.
                    at = list(product(*map(range, wish.dims)))
                    for d, side in enumerate(wish.dims):
                        on = (*at[index][:d], (at[index][d] + 1) % side, *at[index][d + 1 :])
                        pairs.add((end, members[at.index(on)]))
        if wish.aggregate:
            for target in {b for a, b in pairs if a != b}:
                into_one = frozenset(a for a, b in pairs if b == target != a)
                found[into_one, frozenset([target]), wish.lanes] += 1
            continue
        if wish.multicast:
            for source in {a for a, b in pairs if a != b}:
                out_of_one = frozenset(b for a, b in pairs if a == source != b)
                found[frozenset([source]), out_of_one, wish.lanes] += 1
            continue
        found.update((frozenset([a]), frozenset([b]), wish.lanes) for a, b in pairs if a != b)
    return found


def circuit_faults(view: CellView, spec: SliceSpec, decision: Decision) -> Iterator[str]:
    got = Counter(
        (frozenset(c.sources or (c.source,)), frozenset(c.targets), c.lanes)
        for c in decision.circuits
    )
    if got != expected(spec, decision):
        yield f"circuits {got} instead of {expected(spec, decision)}"
    ids = [circuit.id for circuit in decision.circuits]
    if ids != [f"{spec.name}/{n}" for n in range(len(ids))]:
        yield f"circuits are called {ids}"
    for circuit in decision.circuits:
        if circuit.sources:
            yield from stream_faults(view, spec, circuit)
        else:
            yield from tree_faults(view, spec, circuit)
    used = [unit for circuit in decision.circuits for unit in circuit.aggregators]
    if len(set(used)) < len(used):
        yield f"an aggregator is used twice: {used}"
    listed = {unit for unit in decision.units if unit.startswith("aggregator/")}
    if listed != set(used):
        yield f"aggregators {listed} instead of {used}"


def tree_faults(view: CellView, spec: SliceSpec, circuit: Circuit) -> Iterator[str]:
    """A circuit grows from its source over switches alone and ends at each target."""
    cell = view.cell
    depth = {circuit.source: 0}
    latency = {circuit.source: 0}
    tails: set[str] = set()
    for arc in circuit.arcs:
        link = cell.links[arc.link]
        tail, head = link.a_thing, link.b_thing
        if arc.direction == "rev":
            tail, head = head, tail
        if tail not in depth or head in depth:
            yield f"{circuit.id}: {arc} does not grow out of {list(depth)}"
            return
        if tail != circuit.source and tail not in cell.switches:
            yield f"{circuit.id} goes through {tail}"
        if f"link/{arc.link}" in view.holders:
            yield f"{circuit.id} uses {arc.link}, which is down"
        if f"switch/{head}" in view.holders:
            yield f"{circuit.id} uses {head}, which is down"
        tails.add(tail)
        depth[head] = depth[tail] + 1
        through = cell.switches[head].latency_ns if head in cell.switches else 0
        latency[head] = latency[tail] + link.latency_ns + through
    ends = set(depth) - tails
    if ends != set(circuit.targets):
        yield f"{circuit.id} ends at {ends} instead of {circuit.targets}"
        return
    if tuple(depth) != circuit.path:
        yield f"{circuit.id} says its path is {circuit.path}, it is {tuple(depth)}"
    if circuit.latency_ns != max(latency[target] for target in circuit.targets):
        yield f"{circuit.id} says {circuit.latency_ns} ns"
    bounds = spec.constraints
    if bounds.max_hops and max(depth[t] for t in circuit.targets) > bounds.max_hops:
        yield f"{circuit.id} is too long: {depth}"
    if bounds.max_latency_ns and circuit.latency_ns > bounds.max_latency_ns:
        yield f"{circuit.id} is too slow: {circuit.latency_ns}"


def lane_faults(view: CellView, decision: Decision, whole: set[str]) -> Iterator[str]:
    seen: set[str] = set()
    claims: set[str] = set()
    for circuit in decision.circuits:
        for arc in circuit.arcs:
            link = view.cell.links[arc.link]
            if len(set(arc.lanes)) != circuit.lanes:
                yield f"{circuit.id} has {arc.lanes} instead of {circuit.lanes} lanes"
            for lane in arc.lanes:
                unit = lane_unit(arc.link, arc.direction, lane)
                if unit in seen:
                    yield f"{unit} is used twice"
                if not 0 <= lane < link.lanes:
                    yield f"{unit} does not exist"
                if unit in view.holders or view.wanted.get(unit):
                    yield f"{unit} is not free"
                seen.add(unit)
                if link.a_thing not in whole and link.b_thing not in whole:
                    claims.add(unit)
    claimed = {unit for unit in decision.units if unit.startswith("lane/")}
    if claimed != claims:
        yield f"claims {claimed} instead of {claims}"


def unit_faults(decision: Decision, choices: Mapping[str, EngineChoice]) -> Iterator[str]:
    """Engines are listed with the right amounts, and nothing is listed that nothing needs."""
    wanted: dict[str, tuple[int, ...]] = {}
    for role, choice in choices.items():
        for engine in decision.engines[role]:
            if choice.share_millis == 1000:
                wanted[engine_unit(engine)] = ()
            else:
                unit = share_unit(engine)
                wanted[unit] = (sum(wanted.get(unit, ())) + choice.share_millis,)
    listed = {u: a for u, a in decision.units.items() if u.startswith(("engine/", "share/"))}
    if listed != wanted:
        yield f"units {listed} instead of {wanted}"
    kinds = {unit.partition("/")[0] for unit in decision.units}
    if not kinds <= {"engine", "share", "host", "lane", "aggregator"}:
        yield f"units of kinds {kinds}"
