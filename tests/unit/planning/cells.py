"""Small cells and requests for planner tests, and what to hold in them."""

from collections.abc import Iterable, Mapping, Sequence

from flowos.model.cell import Bitstream, Cell, Engine, Link, Node, Switch, Thing
from flowos.model.placement import Decision, Observed, Placement, Unplaceable
from flowos.model.slice import (
    CircuitWish,
    Constraints,
    EngineChoice,
    EngineRole,
    HostRole,
    Shape,
    SliceSpec,
)
from flowos.model.units import engine_unit
from flowos.model.view import CellView
from flowos.planning.engines.pool import Pool
from flowos.planning.place import plan

GIB = 2**30


# -- cells


def view_of(*things: Thing | Sequence[Thing]) -> CellView:
    cell = Cell()
    for thing in things:
        for part in thing if isinstance(thing, Sequence) else [thing]:
            cell.add(part)
    return CellView(cell=cell)


def node(name: str, *engines: Engine, cpu: int = 0, memory: int = 0, rack: str = "") -> list[Thing]:
    """A node with engines; CPU in whole ones, memory in GiB."""
    return [Node(name, cpu * 1000, memory * GIB, rack=rack), *engines]


def gpus(on: str, count: int, model: str = "A100", **more: object) -> list[Engine]:
    return [Engine(on, f"gpu{n}", "gpu", model, 40 * GIB, **more) for n in range(count)]  # type: ignore[arg-type]


def fpgas(on: str, count: int, **more: object) -> list[Engine]:
    more.setdefault("loads_bitstreams", True)
    return [Engine(on, f"fpga{n}", "fpga", "U250", **more) for n in range(count)]  # type: ignore[arg-type]


def ports(
    engines: Iterable[Engine], switch: str, *, lanes: int = 1, latency_ns: int = 10
) -> list[Thing]:
    """One link from each engine to a switch, as "fwd"."""
    return [
        Link(
            f"{e.node}-{e.name}",
            f"{e.id}:0",
            f"{switch}:{e.node}{e.name}",
            lanes,
            100.0,
            latency_ns,
        )
        for e in engines
    ]


def trunk(a: str, b: str, *, lanes: int = 1, latency_ns: int = 10, name: str = "") -> Link:
    name = name or f"{a}-{b}"
    return Link(name, f"{a}:{name}", f"{b}:{name}", lanes, 100.0, latency_ns)


def leaves(
    count: int = 2,
    *,
    gpus_each: int = 2,
    nodes_each: int = 1,
    spines: int = 1,
    lanes: int = 1,
    port_lanes: int = 1,
    cpu: int = 8,
    memory: int = 64,
) -> CellView:
    """Leaf switches l0.., on each nodes n0.. with gpus, all joined by spines s0.."""
    things: list[Thing] = [Switch(f"s{s}", tier=1, latency_ns=100) for s in range(spines)]
    for leaf in range(count):
        things.append(Switch(f"l{leaf}", latency_ns=100, pod=f"p{leaf}"))
        things += [trunk(f"l{leaf}", f"s{s}", lanes=lanes) for s in range(spines)]
        for n in range(nodes_each):
            name = f"n{leaf * nodes_each + n}"
            engines = gpus(name, gpus_each)
            things += node(name, *engines, cpu=cpu, memory=memory, rack=f"r{leaf}")
            things += ports(engines, f"l{leaf}", lanes=port_lanes)
            things.append(Link(f"{name}-host", f"{name}:nic", f"l{leaf}:{name}", port_lanes))
    return view_of(things)


BITSTREAM = Bitstream("sum", "sha256:aa", "fpga", function="sum")
OTHER = Bitstream("sort", "sha256:bb", "fpga", function="sort")


# -- who holds what


def hold(view: CellView, *units: str, by: str = "other/held", **amounts: tuple[int, ...]) -> None:
    """Let a slice, or a system placement, hold whole units, and host= or share amounts by unit."""
    held: dict[str, tuple[int, ...]] = dict.fromkeys(units, ())
    held.update(amounts)
    view.assume(by, Placement(1, f"attempt-{by}", held=held))


def hold_part(view: CellView, unit: str, *amounts: int, by: str = "other/part") -> None:
    view.assume(by, Placement(1, f"attempt-{by}", held={unit: amounts}))


def power_off(view: CellView, engine: str) -> None:
    hold(view, engine_unit(engine), by=f"~off/{engine_unit(engine)}")


def load(view: CellView, engine: str, bitstream: Bitstream) -> None:
    view.observed[engine] = Observed(bitstream=bitstream.reference)
    for listener in view.listeners:
        listener(engine_unit(engine))


# -- requests


def want(
    count: int = 1,
    kind: str = "gpu",
    *,
    models: tuple[str, ...] = (),
    share: int = 1000,
    bitstream: str = "",
    **where: str,
) -> EngineRole:
    return EngineRole((EngineChoice(kind, models, count, share, where, bitstream),))


def request(
    *circuits: CircuitWish,
    together: Mapping[str, str] | str = "any",
    hosts: Mapping[str, HostRole] | None = None,
    max_hops: int = 0,
    max_latency_ns: int = 0,
    spread: str = "pack",
    **roles: EngineRole,
) -> SliceSpec:
    """A spec named t; `together` given as one word is for every role."""
    if isinstance(together, str):
        together = dict.fromkeys(roles, together)
    bounds = Constraints(max_hops, max_latency_ns, spread)
    return SliceSpec(
        "t", engines=roles, hosts=hosts or {}, together=together, circuits=circuits,
        constraints=bounds,
    )  # fmt: skip


def ring(*roles: str, lanes: int = 1) -> CircuitWish:
    return CircuitWish(Shape.RING, roles, lanes)


def flow(source: str, target: str, *, lanes: int = 1, aggregate: str = "") -> CircuitWish:
    return CircuitWish(Shape.FLOW, (source, target), lanes, aggregate)


# -- answers


def placed(view: CellView, spec: SliceSpec, **options: object) -> Decision:
    """What a fresh pool decides; the test fails where it refuses."""
    found = plan(Pool(view), spec, **options)  # type: ignore[arg-type]
    assert isinstance(found, Decision), found
    return found


def refused(view: CellView, spec: SliceSpec, **options: object) -> Unplaceable:
    found = plan(Pool(view), spec, **options)  # type: ignore[arg-type]
    assert isinstance(found, Unplaceable), found
    return found
