"""How does a circuit that is a tree branch, from where its streams start or end?"""

from collections import defaultdict
from typing import Any

from flowos.model.cell import Cell
from flowos.model.placement import Circuit
from flowos.model.units import subject_of


def is_tree(circuit: Circuit) -> bool:
    """Whether a circuit has more than two ends."""
    return len(circuit.targets) > 1 or bool(circuit.sources)


def tree_shown(cell: Cell, circuit: Circuit) -> dict[str, Any] | None:
    """Return a tree as its root with what hangs on it: {"at", "aggregator", "branches"}, nested.

    A multicast tree hangs on its source, an aggregation tree on its target. "aggregator" is the
    unit that makes the streams of all branches one; null = there is none. A switch that several
    streams pass each for itself stands in the tree once for each.

    Returns:
        None where the circuit is a path, or the cell lacks a link of it.
    """
    if not is_tree(circuit):
        return None
    starts: dict[str, list[int]] = defaultdict(list)  # thing -> numbers of arcs that leave it
    ends: dict[str, list[int]] = defaultdict(list)
    far: list[str] = []  # by arc: what is farther from the root
    for number, arc in enumerate(circuit.arcs):
        link = cell.links.get(arc.link)
        if link is None:
            return None
        start, end = (link.a_thing, link.b_thing)[:: 1 if arc.direction == "fwd" else -1]
        starts[start].append(number)
        ends[end].append(number)
        far.append(start if circuit.sources else end)
    merging = {subject_of(unit): unit for unit in circuit.aggregators}

    def behind(number: int) -> list[int]:
        """Return the arcs on which the stream of an arc comes, or goes on, seen from the root."""
        thing = far[number]
        if not circuit.sources:
            return starts[thing]
        if thing in merging:
            return ends[thing]
        place = starts[thing].index(number)
        return ends[thing][place : place + 1]

    def hung(thing: str, numbers: list[int], above: frozenset[int]) -> dict[str, Any]:
        return {
            "at": thing,
            "aggregator": merging.get(thing),
            # What a broken record leads back to is not followed again.
            "branches": [hung(far[n], behind(n), above | {n}) for n in numbers if n not in above],
        }

    if circuit.sources:
        (root,) = circuit.targets[:1] or ("",)
        return hung(root, ends[root], frozenset())
    return hung(circuit.source, starts[circuit.source], frozenset())


def depth(tree: dict[str, Any]) -> int:
    """Return how many links lie between the root and what is farthest from it."""
    return max((1 + depth(branch) for branch in tree["branches"]), default=0)
