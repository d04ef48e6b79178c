"""Which orders follow from a placement.

Orders are a function of the placement: whoever rewrites a placement knows what its orders say
without reading them, and one compare of the placement guards them all.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from flowos.model import keys
from flowos.model.cell import Cell
from flowos.model.placement import Arc, Circuit, Gang, Joined, Order, Placement, Turn
from flowos.model.slice import Run
from flowos.model.units import engine_unit, kind_of, lane_unit, places_of, subject_of
from flowos.protocol.proposal import Draft

_NO_RUN: Final = Run()
ADDRESS: Final = "address"  # the attribute of a node that says where others reach it
_IDLE: Final = ("~drain", "~quarantine", "~reserved")  # what these hold is not to be up


def orders_of(cell: Cell, identifier: str, placement: Placement) -> dict[str, Order]:
    """Return what is to be up at each place; nothing while the placement waits for victims."""
    if placement.waits or not placement.held or identifier.startswith(_IDLE):
        return {}
    if identifier.startswith("~off/"):
        (unit,) = placement.held
        engine = subject_of(unit)
        return {cell.place_of(engine): Order(slice=identifier, off=(engine,))}
    units: dict[str, list[str]] = defaultdict(list)
    for unit in placement.held:
        if unit.startswith("lane/"):  # named with the circuits, below
            continue
        # An engine's ports are the switches' affair too, but only as far as circuits use them.
        units[unit.split("/", 2)[1]].append(unit)  # as `place_in`, for each engine of each slice
    turns: dict[str, list[Turn]] = defaultdict(list)
    for circuit in placement.circuits:
        entering: dict[str, list[Arc]] = {}
        leaving: dict[str, list[Arc]] = defaultdict(list)
        for arc in circuit.arcs:
            link = cell.links.get(arc.link)
            if link is None:
                continue
            start, end = link.a_thing, link.b_thing
            if arc.direction == "rev":
                start, end = end, start
            entering.setdefault(end, []).append(arc)
            leaving[start].append(arc)
            for place in {cell.place_of(start), cell.place_of(end)}:
                units[place] += [lane_unit(arc.link, arc.direction, n) for n in arc.lanes]
        for thing, arcs in entering.items():
            if thing in cell.switches:
                turns[thing] += _turns_at(thing, circuit, arcs, leaving[thing])
    tasks: dict[str, dict[str, int]] = defaultdict(dict)
    for engine, rank in rank_of(placement).items():
        tasks[engine.partition("/")[0]][engine] = rank
    wanted = placement.bitstreams
    gang = _gang(cell, placement) if placement.run.command else None
    joined = _joined_at(cell, placement) if gang is not None else {}
    for reducer, rank in _reducers(placement).items():
        tasks[reducer.partition("/")[0]][reducer] = rank
    found = {}
    for place in units | turns if turns else units:
        here = tasks[place]
        runs = bool(here) or place not in cell.switches
        found[place] = Order(
            slice=identifier,
            units=tuple(sorted(set(units[place]))),
            tasks=here,
            bitstreams={e: wanted[e] for e in here if e in wanted} if wanted else {},
            crossbar=tuple(turns[place]),
            run=placement.run if runs else _NO_RUN,
            gang=replace(gang, circuits=tuple(joined.get(place, ())))
            if gang is not None and runs
            else None,
        )
    return found


def _joined_at(cell: Cell, placement: Placement) -> dict[str, list[Joined]]:
    """Return place -> the circuits that begin or end there: of n engines there may be n * n."""
    found: dict[str, list[Joined]] = {}
    for circuit in placement.circuits:
        sources = circuit.sources or (circuit.source,)
        reducer = _reducer(placement, circuit)
        joined = Joined(sources, circuit.targets, circuit.aggregate, reducer)
        at = {cell.place_of(end) for end in (*sources, *circuit.targets)}
        for place in at | ({reducer.partition("/")[0]} if reducer else set()):
            found.setdefault(place, []).append(joined)
    return found


def _reducer(placement: Placement, circuit: Circuit) -> str:
    """Return which aggregator a task runs for, where the command wants that: one of each circuit."""
    reduces = placement.run.reduces and circuit.aggregators
    return circuit.aggregators[0].partition("/")[2] if reduces else ""


def _reducers(placement: Placement) -> dict[str, int]:
    """Return the aggregators that tasks run for, with their ranks: after all engines'."""
    if not placement.run.reduces:
        return {}
    in_order = sorted(placement.circuits, key=lambda c: int(c.id.rpartition("/")[2]))
    names = [name for circuit in in_order if (name := _reducer(placement, circuit))]
    first = len({engine for role in placement.engines.values() for engine in role})
    return {name: first + number for number, name in enumerate(dict.fromkeys(names))}


def _gang(cell: Cell, placement: Placement) -> Gang:
    """Return what the tasks of a command are told of their slice."""
    hosts = (
        () if placement.engines else dict.fromkeys(n for h in placement.hosts.values() for n in h)
    )
    nodes = {e.partition("/")[0] for ids in placement.engines.values() for e in ids} | {*hosts}
    return Gang(
        placement.engines,
        tuple(hosts),
        tuple(_reducers(placement)),
        (),
        {
            node: str(cell.nodes[node].attributes[ADDRESS])
            for node in sorted(nodes)
            if node in cell.nodes and ADDRESS in cell.nodes[node].attributes
        },
    )


def _turns_at(
    switch: str, circuit: Circuit, entering: Sequence[Arc], leaving: Sequence[Arc]
) -> Iterable[Turn]:
    """Yield how the streams of a circuit turn at a switch."""
    if not circuit.sources:  # what comes in goes on to wherever the tree branches
        yield Turn(circuit.id, entering[0], tuple(leaving))
        return
    for unit in circuit.aggregators:
        if subject_of(unit) == switch:
            first, *others = entering
            yield Turn(circuit.id, first, tuple(leaving), tuple(others), unit, circuit.aggregate)
            return
    for into, out in zip(entering, leaving, strict=False):  # a law says that they are as many
        yield Turn(circuit.id, into, (out,))


def rank_of(placement: Placement) -> dict[str, int]:
    """Return each engine's rank in its slice: roles in order, engines in order."""
    flat = [engine for role in placement.engines.values() for engine in role]
    return {engine: rank for rank, engine in enumerate(dict.fromkeys(flat))}


def nothing_of(identifier: str, placement: Placement) -> Order:
    """Return what is ordered where nothing is to be up any more, with the grace its tasks have."""
    ending = placement.ending
    if ending is None or not ending.grace_seconds:
        return Order(slice=identifier)
    return Order(slice=identifier, run=Run(grace_seconds=ending.grace_seconds))


def rewrite_orders(
    draft: Draft, cell: Cell, identifier: str, before: Placement | None, after: Placement
) -> Placement:
    """Put the orders that change, and return `after` with the places it now has orders at.

    Args:
        draft: Collects the writes.
        cell: What exists.
        identifier: The slice, or system placement.
        before: Its placement as it is known; None = it has none yet.
        after: Its placement as it will be.
    """
    new = orders_of(cell, identifier, after)
    if before is None:
        for place in sorted(new):
            draft.put(keys.order(place, after.attempt), new[place])
        return replace(after, ordered=tuple(sorted(new)))
    old = orders_of(cell, identifier, before)
    had_nothing, nothing = nothing_of(identifier, before), nothing_of(identifier, after)
    for place in ordered_first(before.ordered, new):
        wanted = new.get(place, nothing)
        known = place in before.ordered
        # What is ordered there may have left the inventory since, and then `old` does not say it.
        unclear = bool(before.held) and not before.waits and place not in old
        if not known or unclear or old.get(place, had_nothing) != wanted:
            draft.put(keys.order(place, after.attempt), wanted)
    return replace(after, ordered=tuple(sorted({*after.ordered, *new})))


def cleaners_of(cell: Cell, unit: str, ordered: tuple[str, ...]) -> tuple[str, ...]:
    """Return the places that must all have torn a unit down before it is clean.

    The lanes at an engine's port are used without a claim by whoever holds the engine whole, so
    part of an engine is clean no earlier than these. For a unit that has left the inventory, it
    is all places that were `ordered`.
    """
    if kind_of(unit) == "share":
        unit = engine_unit(subject_of(unit))
    return places_of(cell, unit) or ordered


def ordered_first(ordered: Iterable[str], new: Iterable[str]) -> list[str]:
    """Return all places, each once, in an order that does not depend on hashing."""
    return sorted({*ordered, *new})
