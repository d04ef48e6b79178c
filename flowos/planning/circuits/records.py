"""How is a circuit's record made in little time?

A frozen record's own constructor looks up the name of each field to set it, which takes most of
the time of a plan within one switch. So a record is made as a draft, whose slots are the same but
can be set, and is declared to be a circuit when it is whole.
"""

from flowos.model.placement import Arc, Circuit


class _Draft:
    """A circuit that is not frozen yet; Python refuses to make it one if the slots differ."""

    __slots__ = Circuit.__slots__
    id: str
    source: str
    targets: tuple[str, ...]
    path: tuple[str, ...]
    arcs: tuple[Arc, ...]
    lanes: int
    latency_ns: int
    aggregate: str
    sources: tuple[str, ...]
    aggregators: tuple[str, ...]


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
    """Return the same as `Circuit` of the same arguments, in a fifth of the time."""
    draft = _Draft()
    draft.id = identifier
    draft.source = source
    draft.targets = targets
    draft.path = path
    draft.arcs = arcs
    draft.lanes = lanes
    draft.latency_ns = latency_ns
    draft.aggregate = aggregate
    draft.sources = sources
    draft.aggregators = aggregators
    draft.__class__ = Circuit  # type: ignore[assignment]
    return draft  # type: ignore[return-value]
