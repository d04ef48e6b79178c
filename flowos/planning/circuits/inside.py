"""Which circuits does a gang within one switch get, over ports that nobody uses? It is remembered.

Most gangs are engines of one switch. While nothing crosses their ports, the same shape over the same
engines always comes to the same lanes, and only the circuits' names are new. Finding it again takes
a fifth of what laying it anew does.
"""

from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter
from typing import Final, NamedTuple

from flowos.model.placement import Arc, Circuit
from flowos.model.slice import CircuitWish, Shape
from flowos.planning.circuits.graph import Graph
from flowos.planning.circuits.records import circuit_of

_REMEMBERED_MAX: Final = 1 << 15  # gangs of 8 take 2 kB each
_WITHIN: Final = frozenset({Shape.RING, Shape.ALL, Shape.STAR, Shape.TORUS, Shape.EXPLICIT})


class Seating:
    """Circuits of one lane each among the engines of one role; equal to nothing but itself.

    Attributes:
        role: Whose engines are the ends of all circuits.
    """

    __slots__ = ("role",)

    def __init__(self, role: str) -> None:
        """Be told apart from all others by identity: that is quicker than by what is asked."""
        self.role = role


def seating_of(circuits: Sequence[CircuitWish]) -> Seating | None:
    """Return what to remember a request's circuits by, or None where they are of another kind."""
    roles = {wish.roles for wish in circuits}
    if len(roles) != 1 or len(circuits[0].roles) != 1:
        return None
    alike = all(w.shape in _WITHIN and w.lanes == 1 and not w.aggregate for w in circuits)
    return Seating(circuits[0].roles[0]) if alike else None


class Laid(NamedTuple):
    """Circuits as they were laid over ports that nobody used.

    Attributes:
        free: Takes from what is free of all arcs that of those at these ports.
        lanes: What it was then: all of each.
        ways: Of each circuit in order: path, arcs and latency.
    """

    free: Callable[[Sequence[int]], tuple[int, ...]]
    lanes: tuple[int, ...]
    ways: tuple[tuple[tuple[str, ...], tuple[Arc, ...], int], ...]


class Inside:
    """What is remembered of a graph, for as long as its arcs keep their numbers."""

    def __init__(self) -> None:
        """Know nothing."""
        self._laid: dict[tuple[Seating, tuple[str, ...]], Laid] = {}
        self._graph: Graph | None = None
        self._numbering = 0

    def again(
        self, graph: Graph, seating: Seating, engines: tuple[str, ...], name: str
    ) -> tuple[Circuit, ...] | None:
        """Return the circuits that were laid before, where nothing crosses these ports now.

        Args:
            graph: As it was then, but for what is free.
            seating: What is asked.
            engines: In rank order.
            name: Circuits are called "<name>/<number>".
        """
        laid = self._laid.get((seating, engines))
        if laid is None or not self._knows(graph) or laid.free(graph.free) != laid.lanes:
            return None
        return tuple(
            [
                circuit_of(f"{name}/{number}", path[0], (path[2],), path, arcs, 1, ns)
                for number, (path, arcs, ns) in enumerate(laid.ways)
            ]
        )

    def note(
        self,
        graph: Graph,
        seating: Seating,
        engines: tuple[str, ...],
        circuits: Iterable[Circuit],
    ) -> None:
        """Remember circuits that were laid, where all are within one switch and its ports unused.

        Args:
            graph: With these circuits not taken.
            seating: What was asked.
            engines: In rank order.
            circuits: All of them, in order.
        """
        if not self._knows(graph) or len(self._laid) >= _REMEMBERED_MAX:
            self._laid.clear()
            self._graph, self._numbering = graph, graph.numbering
        arcs: dict[int, int] = {}
        ways: list[tuple[tuple[str, ...], tuple[Arc, ...], int]] = []
        for end in engines:
            for port in graph.ports(end):
                for arc in (port.out, port.into):
                    if graph.free[arc] != (1 << graph.lanes[arc]) - 1:
                        return
                    arcs[arc] = graph.free[arc]
        for circuit in circuits:
            if len(circuit.path) != 3 or len(circuit.targets) != 1 or circuit.sources:
                return
            ways.append((circuit.path, circuit.arcs, circuit.latency_ns))
        if len(arcs) > 1:  # of one it would take no tuple
            self._laid[seating, engines] = Laid(
                itemgetter(*arcs), tuple(arcs.values()), tuple(ways)
            )

    def _knows(self, graph: Graph) -> bool:
        return self._graph is graph and self._numbering == graph.numbering
