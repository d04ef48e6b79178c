"""Which circuits do engines of one switch get among themselves? It is remembered.

Most circuits stay within one switch. While the lanes that are free at the ports are the same, one
shape over the same engines always comes to the same lanes, and only the circuits' names are new.
Finding that again takes a fifth of what laying it anew does.
"""

from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter
from typing import Final, NamedTuple

from flowos.model.placement import Arc, Circuit
from flowos.model.slice import CircuitWish, Shape
from flowos.planning.circuits.graph import Graph

_REMEMBERED_MAX: Final = 1 << 15  # a ring of 8 takes 2 kB, all to all of 8 takes 11 kB
_WAYS_MAX: Final = 1 << 19  # circuits in all, some 100 MB
_WITHIN: Final = frozenset({Shape.RING, Shape.ALL, Shape.STAR, Shape.TORUS, Shape.EXPLICIT})


class Seating:
    """A shape of circuits of one lane each over one role's engines; equal to nothing but itself.

    Attributes:
        role: Whose engines are the ends.
    """

    __slots__ = ("role",)

    def __init__(self, role: str) -> None:
        """Be told apart from all others by identity: that is quicker than by what is asked."""
        self.role = role


def seating_of(wish: CircuitWish) -> Seating | None:
    """Return what to remember a wish's circuits by, or None where they are of another kind."""
    if (
        len(wish.roles) > 1
        or wish.shape not in _WITHIN
        or wish.lanes != 1
        or wish.aggregate
        or wish.multicast
    ):
        return None
    return Seating(wish.roles[0])


class Laid(NamedTuple):
    """How circuits were laid.

    Attributes:
        arcs: At the ports of their ends.
        take: Takes from what is free of all arcs that of these.
        before: What was free of these before.
        after: And with the circuits.
        ways: Of each circuit in order: path, arcs and latency.
    """

    arcs: tuple[int, ...]
    take: Callable[[Sequence[int]], tuple[int, ...]]
    before: tuple[int, ...]
    after: tuple[int, ...]
    ways: tuple[tuple[tuple[str, ...], tuple[Arc, ...], int], ...]

    def lay(self, graph: Graph) -> None:
        """Take the lanes again; `graph.undo` gives them back."""
        graph.journal += zip(self.arcs, self.before, strict=True)
        free = graph.free
        for arc, left in zip(self.arcs, self.after, strict=True):
            free[arc] = left


class Inside:
    """What is remembered of a graph, for as long as its arcs keep their numbers."""

    def __init__(self) -> None:
        """Know nothing."""
        self._laid: dict[tuple[Seating, tuple[str, ...]], Laid] = {}
        self._ways = 0
        self._graph: Graph | None = None
        self._numbering = 0

    def known(self, graph: Graph, seating: Seating, engines: tuple[str, ...]) -> Laid | None:
        """Return how circuits were laid, where the same is free at these ports as was then.

        Args:
            graph: What is free now.
            seating: What is asked.
            engines: In rank order.
        """
        if self._graph is not graph or self._numbering != graph.numbering:
            return None
        laid = self._laid.get((seating, engines))
        return None if laid is None or laid.take(graph.free) != laid.before else laid

    def note(
        self,
        graph: Graph,
        seating: Seating,
        engines: tuple[str, ...],
        circuits: Iterable[Circuit],
        mark: int,
    ) -> None:
        """Remember circuits that were laid just now, where all are within one switch.

        Args:
            graph: With these circuits taken.
            seating: What was asked.
            engines: In rank order.
            circuits: All of them, in order.
            mark: Of the journal before they were taken.
        """
        ways = [(circuit.path, circuit.arcs, circuit.latency_ns) for circuit in circuits]
        if not ways or any(len(path) != 3 for path, _, _ in ways):
            return
        if (
            self._graph is not graph
            or self._numbering != graph.numbering
            or len(self._laid) >= _REMEMBERED_MAX
            or self._ways >= _WAYS_MAX
        ):
            self._laid.clear()
            self._ways = 0
            self._graph, self._numbering = graph, graph.numbering
        arcs = tuple([a for end in engines for p in graph.ports(end) for a in (p.out, p.into)])
        before: dict[int, int] = {}
        for arc, free in graph.journal[mark:]:
            before.setdefault(arc, free)
        free_now = graph.free
        self._ways += len(ways)
        self._laid[seating, engines] = Laid(
            arcs,
            itemgetter(*arcs),
            tuple([before.get(arc, free_now[arc]) for arc in arcs]),
            tuple([free_now[arc] for arc in arcs]),
            tuple(ways),
        )
