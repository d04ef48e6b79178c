"""What would a plan change in the cell as it is: what is made, woken, loaded, and left alone?"""

from collections.abc import Mapping
from typing import NamedTuple

from flowos.model.cell import WHOLE_MILLIS
from flowos.model.placement import Circuit, Decision
from flowos.model.units import engine_unit, kind_of, subject_of
from flowos.model.view import CellView
from flowos.planning.engines.pool import OFF


class Load(NamedTuple):
    """A bitstream that would be loaded.

    Attributes:
        instead_of: What is loaded now, "" = nothing.
        seconds: How long it takes.
    """

    engine: str
    bitstream: str
    instead_of: str
    seconds: float


class Difference(NamedTuple):
    """A plan against the cell as it is.

    Attributes:
        engines: Role -> engine ids that would be held.
        shares: Engine -> thousandths, where it is not the whole.
        hosts: Role -> nodes whose CPU and memory would be held.
        woken: Engines that are off now.
        loads: Bitstreams that are not where they are needed.
        made: Circuits that would be made.
        untouched: Circuits of others, which stay as they are.
        lanes: Lanes that the new circuits take, counted on each link.
        lanes_free: Lanes that are free on these links now, in the directions taken.
    """

    engines: Mapping[str, tuple[str, ...]]
    shares: Mapping[str, int]
    hosts: Mapping[str, tuple[str, ...]]
    woken: tuple[str, ...]
    loads: tuple[Load, ...]
    made: tuple[Circuit, ...]
    untouched: int
    lanes: int
    lanes_free: int


def difference(view: CellView, decision: Decision) -> Difference:
    """Return what a decision would change; the view does not hold it yet."""
    shares: dict[str, int] = {}
    woken: list[str] = []
    for unit, amounts in decision.units.items():
        if kind_of(unit) not in ("engine", "share"):
            continue
        engine = subject_of(unit)
        if amounts and amounts[0] != WHOLE_MILLIS:
            shares[engine] = amounts[0]
        if any(name.startswith(OFF) for name in view.holders.get(engine_unit(engine), ())):
            woken.append(engine)
    loads: list[Load] = []
    for engine, reference in decision.bitstreams.items():
        observed = view.observed.get(engine)
        there = observed.bitstream if observed else ""
        if there != reference:
            known = view.cell.bitstream(reference)
            loads.append(Load(engine, reference, there, known.load_seconds if known else 0.0))
    ways: dict[tuple[str, str], int] = {}
    for circuit in decision.circuits:
        for arc in circuit.arcs:
            key = (arc.link, arc.direction)
            ways[key] = ways.get(key, 0) + len(arc.lanes)
    free = sum(
        max(view.cell.links[link].lanes - view.lanes_taken.get((link, way), 0).bit_count(), 0)
        for link, way in ways
    )
    untouched = sum(
        len(placement.circuits)
        for name in {name for names in view.by_attempt.values() for name in names}
        if (placement := view.now(name)) is not None
    )
    return Difference(
        decision.engines, shares, decision.hosts, tuple(woken), tuple(loads), decision.circuits,
        untouched, sum(ways.values()), free,
    )  # fmt: skip
