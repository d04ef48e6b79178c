"""How is a circuit's record made in little time?

A frozen record's own constructor looks up the name of each field to set it, which takes most of
the time of a plan within one switch. Its slots can be set right away.
"""

from typing import Any, Final

from flowos.model.placement import Arc, Circuit


def _setter(name: str) -> Any:
    return getattr(Circuit, name).__set__


_new: Final = object.__new__
_set_id: Final = _setter("id")
_set_source: Final = _setter("source")
_set_targets: Final = _setter("targets")
_set_path: Final = _setter("path")
_set_arcs: Final = _setter("arcs")
_set_lanes: Final = _setter("lanes")
_set_latency_ns: Final = _setter("latency_ns")
_set_aggregate: Final = _setter("aggregate")
_set_sources: Final = _setter("sources")
_set_aggregators: Final = _setter("aggregators")


def circuit_of(
    identifier: str,
    source: str,
    targets: tuple[str, ...],
    path: tuple[str, ...],
    arcs: tuple[Arc, ...],
    lanes: int,
    latency_ns: int,
    aggregate: str = "",
    sources: tuple[str, ...] = (),
    aggregators: tuple[str, ...] = (),
) -> Circuit:
    """Return the same as `Circuit` of the same arguments, in half the time."""
    circuit: Circuit = _new(Circuit)
    _set_id(circuit, identifier)
    _set_source(circuit, source)
    _set_targets(circuit, targets)
    _set_path(circuit, path)
    _set_arcs(circuit, arcs)
    _set_lanes(circuit, lanes)
    _set_latency_ns(circuit, latency_ns)
    _set_aggregate(circuit, aggregate)
    _set_sources(circuit, sources)
    _set_aggregators(circuit, aggregators)
    return circuit
