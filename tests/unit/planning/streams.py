"""What an aggregation tree has to be, checked stream by stream, without the planner's structures."""

from collections.abc import Iterator

from flowos.model.placement import Circuit
from flowos.model.slice import SliceSpec
from flowos.model.units import aggregator_unit
from flowos.model.view import CellView

Lane = tuple[str, str, tuple[int, ...]]


def stream_faults(view: CellView, spec: SliceSpec, circuit: Circuit) -> Iterator[str]:
    """Light that starts at every source comes to the target; it is made one only where that can be."""
    cell = view.cell
    (target,) = circuit.targets
    merging: dict[str, str] = {}
    for unit in circuit.aggregators:
        switch = unit.split("/")[1]
        there = cell.switches[switch]
        if circuit.aggregate not in there.functions:
            yield f"{switch} cannot compute {circuit.aggregate}"
        if unit not in {aggregator_unit(switch, n) for n in range(there.aggregators)}:
            yield f"{unit} does not exist"
        if unit in view.holders or view.wanted.get(unit):
            yield f"{unit} is not free"
        if switch in merging:
            yield f"{switch} merges twice"
        merging[switch] = unit
    starts: dict[str, list[Lane]] = {}
    ends: dict[str, list[Lane]] = {}
    ns: dict[Lane, int] = {}
    head_of: dict[Lane, str] = {}
    for arc in circuit.arcs:
        link = cell.links[arc.link]
        tail, head = (link.a_thing, link.b_thing)[:: 1 if arc.direction == "fwd" else -1]
        if f"link/{arc.link}" in view.holders or f"switch/{head}" in view.holders:
            yield f"{circuit.id} uses {arc.link} to {head}, which is down"
        lane = (arc.link, arc.direction, arc.lanes)
        starts.setdefault(tail, []).append(lane)
        ends.setdefault(head, []).append(lane)
        head_of[lane] = head
        ns[lane] = link.latency_ns + (
            cell.switches[head].latency_ns if head in cell.switches else 0
        )
    for switch in merging:
        if len(ends.get(switch, ())) < 2 or len(starts.get(switch, ())) != 1:
            yield f"{switch} has an aggregator for nothing"
    walked: set[Lane] = set()
    slowest = longest = 0
    for source in circuit.sources:
        if len(starts.get(source, ())) != 1:
            yield f"{source} does not send one stream"
            return
        (lane,) = starts[source]
        way = [lane]
        while head_of[way[-1]] in cell.switches:
            here = head_of[way[-1]]
            out = starts.get(here, [])
            place = 0 if here in merging else ends[here].index(way[-1])
            if place >= len(out) or out[place] in way:
                yield f"the stream of {source} is lost at {here}"
                return
            way.append(out[place])
        if head_of[way[-1]] != target:
            yield f"the stream of {source} ends at {head_of[way[-1]]}"
        walked.update(way)
        slowest = max(slowest, sum(ns[lane] for lane in way))
        longest = max(longest, len(way))
    if walked != set(ns) or len(ns) != len(circuit.arcs):
        yield f"lanes without a stream, or twice: {circuit.arcs}"
    if circuit.latency_ns != slowest:
        yield f"says {circuit.latency_ns} ns, it is {slowest}"
    bounds = spec.constraints
    if bounds.max_hops and longest > bounds.max_hops:
        yield f"{longest} links are too many"
    if bounds.max_latency_ns and slowest > bounds.max_latency_ns:
        yield f"{slowest} ns are too slow"
    things = {*starts, *ends}
    if set(circuit.path) != things or circuit.path[0] != target:
        yield f"says its path is {circuit.path}, it has {things}"
