"""What a cell has in all: enough to tell at once that a request can never be placed on it.

The totals are kept at `cell/totals`, so that `submit` need not list the cell. They only ever refuse
what no state of the cell could hold; whether the rest fits now is the planners' matter.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from flowos.documents import quantities as amounts
from flowos.model.cell import WHOLE_MILLIS, Cell, Engine
from flowos.model.slice import EngineChoice, EngineRole, HostRole, SliceSpec

VERSION: Final = "flowos/v1"


def totals(cell: Cell) -> dict[str, Any]:
    """Return the figures of a cell, as plain JSON values with stable names.

    Returns:
        engines, switches, links, nodes: how many there are.
        kinds: for each kind of engine:
            engines, shareable, loads_bitstreams: how many;
            on_one_node, on_one_leaf: the most on one node, and at one switch of tier 0;
            memory_bytes_most: the largest engine memory;
            host_cpu_millis_most, host_memory_bytes_most: of the nodes that have one;
            models: the same for each model, "" for engines without one.
        host_cpu_millis_most, host_memory_bytes_most: of any node.
        bitstreams: name -> digest, kind and models.
        tenants: their names.
    """
    leaves_of = _leaves(cell)
    by_kind: dict[str, list[Engine]] = defaultdict(list)
    for engine in cell.engines.values():
        by_kind[engine.kind].append(engine)
    kinds: dict[str, dict[str, Any]] = {}
    for kind, engines in sorted(by_kind.items()):
        by_model: dict[str, list[Engine]] = defaultdict(list)
        for engine in engines:
            by_model[engine.model].append(engine)
        kinds[kind] = _figures(cell, engines, leaves_of)
        kinds[kind]["models"] = {
            model: _figures(cell, of_model, leaves_of)
            for model, of_model in sorted(by_model.items())
        }
    return {
        "apiVersion": VERSION,
        "engines": len(cell.engines),
        "nodes": len(cell.nodes),
        "switches": len(cell.switches),
        "links": len(cell.links),
        "kinds": kinds,
        "host_cpu_millis_most": max((n.cpu_millis for n in cell.nodes.values()), default=0),
        "host_memory_bytes_most": max((n.memory_bytes for n in cell.nodes.values()), default=0),
        "bitstreams": {
            name: {"digest": known.digest, "kind": known.kind, "models": list(known.models)}
            for name, known in sorted(cell.bitstreams.items())
        },
        "tenants": sorted(cell.tenants),
    }


def _leaves(cell: Cell) -> dict[str, set[str]]:
    """Return the switches of tier 0 at which an engine or a node has a link."""
    leaves_of: dict[str, set[str]] = defaultdict(set)
    for link in cell.links.values():
        for thing, other in ((link.a_thing, link.b_thing), (link.b_thing, link.a_thing)):
            switch = cell.switches.get(other)
            if switch is not None and switch.tier == 0:
                leaves_of[thing].add(other)
    return leaves_of


def _figures(
    cell: Cell, engines: list[Engine], leaves_of: Mapping[str, set[str]]
) -> dict[str, Any]:
    on_node: Counter[str] = Counter()
    on_leaf: Counter[str] = Counter()
    for engine in engines:
        on_node[engine.node] += 1
        # An engine without a port of its own is where its node is.
        for leaf in leaves_of.get(engine.id, ()) or leaves_of.get(engine.node, ()):
            on_leaf[leaf] += 1
    hosts = [cell.nodes[node] for node in on_node if node in cell.nodes]
    return {
        "engines": len(engines),
        "shareable": sum(engine.shareable for engine in engines),
        "loads_bitstreams": sum(engine.loads_bitstreams for engine in engines),
        "on_one_node": max(on_node.values(), default=0),
        "on_one_leaf": max(on_leaf.values(), default=0),
        "memory_bytes_most": max((engine.memory_bytes for engine in engines), default=0),
        "host_cpu_millis_most": max((node.cpu_millis for node in hosts), default=0),
        "host_memory_bytes_most": max((node.memory_bytes for node in hosts), default=0),
    }
