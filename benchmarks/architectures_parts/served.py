"""How well does a cell serve a workload that always waits? The real planner, in virtual time.

All slices wait from the beginning. Whenever engines come free, each of the oldest that wait is
planned, and placed if it fits: smaller ones may overtake, until all that are looked at fit nowhere.
What counts is the time until the last one was placed: until then something always waits.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from architectures_parts.workload import Request, ring_of

from flowos.model.cell import Cell
from flowos.model.placement import Circuit, Decision, Placement
from flowos.model.view import CellView
from flowos.planning.engines.pool import Pool
from flowos.planning.place import plan

WAITING: Final = 64  # slices looked at, the oldest first


@dataclass
class Served:
    """What came of it, until the last slice was placed.

    Attributes:
        seconds: How long that took.
        placed: Slices that were placed.
        refused: Slices that not even the empty cell has a place for.
        held: Engine-seconds of engines held, by kind.
        stranded: Engine-seconds of free engines that waiting slices would have held if it did not
            matter where engines are.
        joules: Of all engines: busy while held, else idle.
        stranded_joules: Of these, what the stranded ones drew.
        circuits: How many were laid.
        hops: Links crossed on the way to a target, summed over all targets.
        targets: How many targets.
        latency_ns: The longest way of each circuit, summed.
    """

    engines: int
    seconds: float = 0.0
    placed: int = 0
    refused: int = 0
    held: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    stranded: float = 0.0
    joules: float = 0.0
    stranded_joules: float = 0.0
    circuits: int = 0
    hops: int = 0
    targets: int = 0
    latency_ns: int = 0

    @property
    def slices_per_hour(self) -> float:
        """How many slices were placed an hour."""
        return 3600 * self.placed / self.seconds

    @property
    def kj_per_gpu_hour(self) -> float:
        """What the whole cell drew for each hour of a GPU that was of use."""
        return self.joules / 1000 / (self.held["gpu"] / 3600)

    @property
    def share_stranded(self) -> float:
        """The mean share of all engines that was stranded."""
        return self.stranded / (self.engines * self.seconds)

    @property
    def gpus_held(self) -> float:
        """The mean number of GPUs that were held."""
        return self.held["gpu"] / self.seconds

    @property
    def hops_each(self) -> float:
        """Links crossed on the way to a target, on average."""
        return self.hops / self.targets if self.targets else 0.0

    @property
    def latency_each_ns(self) -> float:
        """The mean of the circuits' longest ways."""
        return self.latency_ns / self.circuits if self.circuits else 0.0


class Server:
    """A cell, the slices that wait for it, and those that run on it."""

    def __init__(self, cell: Cell, requests: Iterable[Request]) -> None:
        """Start with an empty cell."""
        self.view = CellView(cell=cell)
        self.pool = Pool(self.view)
        self.coming = iter(requests)
        self.waiting: list[Request] = []
        self.running: list[tuple[float, int, Request]] = []
        self.free = Counter(engine.kind for engine in cell.engines.values())
        self.idle_watts = {e.kind: e.watts.idle for e in cell.engines.values()}
        self.busy_watts = {e.kind: e.watts.busy for e in cell.engines.values()}
        self.all = self.free.copy()
        self.found = Served(len(cell.engines))
        self._never: dict[int, bool] = {}  # by the spec's identity: equal ones are the same one
        self._count = 0

    def serve(self) -> Served:
        """Return what came of all requests."""
        now = 0.0
        while True:
            self._place_all(now)
            if not self.waiting:
                return self.found
            until = self.running[0][0]
            self._count_span(until - now, self._stranded())
            now = until
            while self.running and self.running[0][0] <= now:
                _, number, request = heapq.heappop(self.running)
                self.view.retract(f"default/g{number}")
                self.free.update(request.demand)

    def _place_all(self, now: float) -> None:
        self._refill()
        blocked: set[int] = set()
        placed = True
        while placed:
            placed = False
            for request in list(self.waiting):
                if id(request.spec) in blocked or not self._enough(request):
                    continue
                decision = plan(self.pool, request.spec)
                if isinstance(decision, Decision):
                    self._start(request, decision, now)
                    placed = True
                else:
                    blocked.add(id(request.spec))
            self._refill()

    def _enough(self, request: Request) -> bool:
        """Whether as many engines are free as a slice asks for, wherever they are."""
        return all(self.free[kind] >= count for kind, count in request.demand.items())

    def _stranded(self) -> Counter[str]:
        """Return the free engines that waiting slices would hold if places did not matter."""
        left, taken = self.free.copy(), Counter[str]()
        for request in self.waiting:
            if all(left[kind] >= count for kind, count in request.demand.items()):
                left.subtract(request.demand)
                taken.update(request.demand)
        return taken

    def _refill(self) -> None:
        while len(self.waiting) < WAITING:
            request = next(self.coming, None)
            if request is None:
                return
            if self._fits_never(request):
                self.found.refused += 1
            else:
                self.waiting.append(request)

    def _fits_never(self, request: Request) -> bool:
        key = id(request.spec)
        if key not in self._never:
            empty = Pool(CellView(cell=self.view.cell))
            self._never[key] = not isinstance(plan(empty, request.spec), Decision)
            empty.close()
        return self._never[key]

    def _start(self, request: Request, decision: Decision, now: float) -> None:
        self.waiting.remove(request)
        self._count += 1
        placement = Placement(
            self._count, f"a{self._count}", held=decision.units, engines=decision.engines
        )
        self.view.assume(f"default/g{self._count}", placement)
        self.free.subtract(request.demand)
        heapq.heappush(self.running, (now + request.seconds, self._count, request))
        self.found.placed += 1
        for circuit in decision.circuits:
            self._count_circuit(circuit)

    # -- counting

    def _count_span(self, seconds: float, stranded: Counter[str]) -> None:
        found = self.found
        found.seconds += seconds
        for kind, number in self.all.items():
            held = number - self.free[kind]
            found.held[kind] += held * seconds
            found.joules += held * self.busy_watts[kind] * seconds
            found.joules += self.free[kind] * self.idle_watts[kind] * seconds
        found.stranded += stranded.total() * seconds
        watts = sum(self.idle_watts[kind] * count for kind, count in stranded.items())
        found.stranded_joules += watts * seconds

    def _count_circuit(self, circuit: Circuit) -> None:
        links = self.view.cell.links
        depth = {circuit.source: 0}
        for arc in circuit.arcs:
            link = links[arc.link]
            ends = (link.a_thing, link.b_thing)
            tail, head = ends if arc.direction == "fwd" else ends[::-1]
            depth[head] = depth[tail] + 1
        self.found.circuits += 1
        self.found.hops += sum(depth[target] for target in circuit.targets)
        self.found.targets += len(circuit.targets)
        self.found.latency_ns += circuit.latency_ns


def largest_ring(cell: Cell) -> int:
    """Return how many GPUs the empty cell can join in one ring, at most."""
    pool = Pool(CellView(cell=cell))
    least, most = 1, sum(engine.kind == "gpu" for engine in cell.engines.values())
    while least < most:
        middle = (least + most + 1) // 2
        if isinstance(plan(pool, ring_of(middle)), Decision):
            least = middle
        else:
            most = middle - 1
    return least
