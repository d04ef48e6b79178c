"""Which cells and requests is a scheduler plug-in tried on? Small ones that have it all, and odd ones."""

from collections.abc import Iterator
from typing import Final, NamedTuple

from flowos.model.cell import Bitstream, Cell, Domain, Engine, Link, Node, Switch, Tenant, Watts
from flowos.model.placement import Observed, Placement
from flowos.model.slice import (
    CircuitWish,
    Constraints,
    Data,
    EngineChoice,
    EngineRole,
    HostRole,
    Mode,
    Run,
    Shape,
    SliceSpec,
    Work,
)
from flowos.model.units import engine_unit, host_unit, share_unit
from flowos.model.view import CellView

GIB: Final = 2**30
SUM: Final = "sum-f32"
MODELS: Final = ("A100", "H100")
HUGE: Final = 1_000_000


class Shaped(NamedTuple):
    """What a cell is made of, and who holds what in it; a new view is made of it each time.

    Attributes:
        nodes: How many; each has a leaf switch of its own, all leaves hang on one spine.
        gpus: On each node; node n has the model n mod 2.
        fpgas: On each node; the first of all has a bitstream loaded.
        lanes: Between a leaf and the spine.
        held: Engines that somebody else holds whole, by node and name.
        shared: Engines of which somebody else holds a quarter.
        asleep: Engines that are powered off.
        busy_hosts: Nodes whose CPU somebody else holds, all but one core.
    """

    nodes: int = 3
    gpus: int = 2
    fpgas: int = 1
    lanes: int = 4
    held: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()
    asleep: tuple[str, ...] = ()
    busy_hosts: tuple[str, ...] = ()

    def view(self) -> CellView:
        """Return a new view of it."""
        view = CellView(cell=self._cell())
        if self.nodes and self.fpgas:
            view.observed["n0/fpga0"] = Observed(bitstream=view.cell.bitstreams[SUM].reference)
        claims: dict[str, dict[str, tuple[int, ...]]] = {
            f"~off/{engine_unit(engine)}": {engine_unit(engine): ()} for engine in self.asleep
        }
        others = claims.setdefault("other/holds", {})
        others |= {engine_unit(engine): () for engine in self.held}
        others |= {share_unit(engine): (250,) for engine in self.shared}
        others |= {host_unit(node): (7000, 15 * GIB) for node in self.busy_hosts}
        for number, (name, held) in enumerate(claims.items()):
            if held:
                view.assume(name, Placement(1, f"attempt-{number}", held=held))
        return view

    def _cell(self) -> Cell:
        cell = Cell()
        cell.add(Tenant("default"))
        cell.add(Domain("room", None))
        cell.add(Bitstream(SUM, "sha256:aa", "fpga", function="sum"))
        cell.add(Switch("spine", tier=1, latency_ns=100))
        watts = Watts(off=0, idle=10, busy=110)
        for number in range(self.nodes):
            node, leaf = f"n{number}", f"leaf{number}"
            cell.add(Switch(leaf, latency_ns=100, pod=f"p{number}"))
            cell.add(Link(f"up{number}", f"{leaf}:up", f"spine:{leaf}", self.lanes, 100.0, 10))
            cell.add(Node(node, 8000, 16 * GIB, domain="room", rack=f"r{number // 2}"))
            model = MODELS[number % 2]
            for n in range(self.gpus):
                cell.add(
                    Engine(node, f"gpu{n}", "gpu", model, 40 * GIB, shareable=True, watts=watts)
                )
            for n in range(self.fpgas):
                cell.add(
                    Engine(node, f"fpga{n}", "fpga", "U250", loads_bitstreams=True, watts=watts)
                )
            names = [f"gpu{n}" for n in range(self.gpus)] + [f"fpga{n}" for n in range(self.fpgas)]
            for name in names:
                cell.add(Link(f"{node}-{name}", f"{node}/{name}:0", f"{leaf}:{name}", 2, 100.0, 10))
        return cell


def want(count: int = 1, kind: str = "gpu", **more: object) -> EngineRole:
    """Return a role of like engines; `more` is as in `EngineChoice`."""
    return EngineRole((EngineChoice(kind, count=count, **more),))  # type: ignore[arg-type]


def _ring(*roles: str) -> CircuitWish:
    return CircuitWish(Shape.RING, roles)


CELLS: Final[dict[str, Shaped]] = {
    "idle": Shaped(),
    "used": Shaped(
        held=("n0/gpu0", "n2/fpga0"),
        shared=("n1/gpu1",),
        asleep=("n2/gpu1",),
        busy_hosts=("n1",),
    ),
    "full": Shaped(nodes=2, fpgas=0, held=("n0/gpu0", "n0/gpu1", "n1/gpu0", "n1/gpu1")),
    "narrow": Shaped(lanes=1),
    "empty": Shaped(nodes=0),
}

SPECS: Final[tuple[SliceSpec, ...]] = (
    SliceSpec("one", engines={"w": want()}),
    SliceSpec("ring", engines={"w": want(3)}, circuits=(_ring("w"),), expected_seconds=60.0),
    SliceSpec("model", engines={"w": want(2, models=("A100",))}),
    SliceSpec("part", engines={"w": want(1, share_millis=250)}),
    SliceSpec(
        "flow",
        engines={"source": want(2), "sink": want(1, "fpga", bitstream=SUM)},
        circuits=(CircuitWish(Shape.FLOW, ("source", "sink"), aggregate="sum"),),
    ),
    SliceSpec("hosts", hosts={"driver": HostRole(cpu_millis=2000, memory_bytes=GIB, count=2)}),
    SliceSpec(
        "beside",
        engines={"w": want(2)},
        hosts={"w": HostRole(cpu_millis=1000)},
        together={"w": "node"},
    ),
    SliceSpec("elastic", engines={"w": want(4)}, elastic={"w": (1, 4)}),
    SliceSpec("parts", engines={"w": want(4)}, least={"w": 1}, commit=Mode.INCREMENTAL),
    SliceSpec(
        "apart",
        engines={"w": want(2)},
        constraints=Constraints(spread="apart"),
        run=Run(for_seconds=1.0),
        work={"w": Work("train", 10.0)},
    ),
    SliceSpec(
        "data",
        engines={"w": want()},
        data=(Data("n0", GIB, "w"),),
        priority=7,
        time_limit_seconds=60.0,
        preemptible=True,
    ),
    # What nobody can be given, and what somebody will send all the same.
    SliceSpec("huge", engines={"w": want(HUGE)}),
    SliceSpec("no-such-kind", engines={"w": want(1, "abacus")}, tenant="nobody"),
    SliceSpec("no-such-bitstream", engines={"w": want(1, "fpga", bitstream="nothing")}),
    SliceSpec("huge-hosts", hosts={"driver": HostRole(HUGE * 1000, HUGE * GIB, count=2)}),
    SliceSpec("nothing"),
    SliceSpec(
        "negative", engines={"w": want()}, priority=-5, expected_seconds=1e12, policy="another"
    ),
)


class Case(NamedTuple):
    """A request on a cell, with units to leave alone."""

    cell: Shaped
    spec: SliceSpec
    avoid: frozenset[str] = frozenset()
    seed: int = 0

    def __str__(self) -> str:
        """Return it as a sentence says it."""
        avoid = f" without {', '.join(sorted(self.avoid))}" if self.avoid else ""
        return f"slice {self.spec.id}{avoid}, seed {self.seed}"


def cases() -> Iterator[Case]:
    """Yield each request on each cell; on the idle one also with something to leave alone."""
    for cell in CELLS.values():
        for spec in SPECS:
            yield Case(cell, spec)
    some = frozenset({engine_unit("n0/gpu0"), "node/n1"})
    for spec in SPECS:
        yield Case(CELLS["idle"], spec, some)
        yield Case(CELLS["used"], spec, seed=7)
