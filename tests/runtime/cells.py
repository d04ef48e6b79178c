"""Which cells and requests do the tests of the machines use? The smallest that have it all.

    n0/gpu0 ─┐                      ┌─ n1/gpu0
    n0/gpu1 ─┤ sw0 ────trunk──── sw1├─ n1/gpu1
    n0/fpga ─┘                      └─ n1/fpga

GPUs can be shared, FPGAs are loaded. An engine draws 10 W idle and 110 W busy from domain room.
"""

from typing import Any, Final

from flowos.model.cell import Bitstream, Cell, Domain, Engine, Link, Node, Switch, Tenant, Watts
from flowos.model.slice import (
    CircuitWish,
    EngineChoice,
    EngineRole,
    HostRole,
    Run,
    Shape,
    SliceSpec,
)

BUSY: Final = 100  # watts above idle
SUM: Final = "sum-f32"
PURSE: Final = "domain:room"


def small_cell(
    *,
    nodes: int = 2,
    gpus: int = 2,
    fpgas: int = 1,
    budget: int | None = None,
    lanes: int = 4,
    cpu_millis: int = 8000,
    shareable_fpgas: bool = False,
) -> Cell:
    """Return a cell of like nodes, each on a switch of its own, all switches in a row.

    Args:
        nodes: How many.
        gpus: On each.
        fpgas: On each.
        budget: Watts above idle that all engines together may draw; None = as they like.
        lanes: Between two switches.
        cpu_millis: Of each node.
        shareable_fpgas: Whether FPGAs may be held in parts.
    """
    cell = Cell()
    idle = nodes * (gpus + fpgas) * 10
    cell.add(Tenant("default"))
    cell.add(Domain("room", None if budget is None else budget + idle))
    for name in (SUM, "add-bytewise"):
        cell.add(Bitstream(name, digest=f"sha256:{name}"))
    watts = Watts(off=0, idle=10, busy=10 + BUSY)
    for number in range(nodes):
        node, switch = f"n{number}", f"sw{number}"
        cell.add(Switch(switch, aggregators=1, functions=("sum",)))
        cell.add(Node(node, cpu_millis=cpu_millis, memory_bytes=1 << 30, domain="room"))
        names = [("gpu", f"gpu{n}") for n in range(gpus)]
        names += [("fpga", f"fpga{n}") for n in range(fpgas)]
        for kind, name in names:
            cell.add(
                Engine(
                    node,
                    name,
                    kind=kind,
                    shareable=kind == "gpu" or shareable_fpgas,
                    loads_bitstreams=kind == "fpga",
                    watts=watts,
                )
            )
            cell.add(Link(f"{node}.{name}", f"{node}/{name}:0", f"{switch}:{name}", lanes=2))
        if number:
            cell.add(
                Link(f"trunk{number}", f"sw{number - 1}:right", f"sw{number}:left", lanes=lanes)
            )
    return cell


def wanted(
    name: str,
    *,
    gpus: int = 0,
    fpgas: int = 0,
    share: int = 1000,
    bitstream: str = SUM,
    run_for: float = 0.0,
    ring: bool = False,
    cpu_millis: int = 0,
    together: str = "",
    **more: Any,
) -> SliceSpec:
    """Return a request for some engines; without `run_for` it holds them until it is cancelled."""
    engines, hosts = {}, {}
    if gpus:
        engines["workers"] = EngineRole((EngineChoice("gpu", count=gpus, share_millis=share),))
    if fpgas:
        choice = EngineChoice("fpga", count=fpgas, bitstream=bitstream, share_millis=share)
        engines["reducer"] = EngineRole((choice,))
    if cpu_millis:
        hosts["driver"] = HostRole(cpu_millis=cpu_millis, count=1)
    wishes = (CircuitWish(Shape.RING, tuple(engines)),) if ring else ()
    return SliceSpec(
        name=name,
        engines=engines,
        hosts=hosts,
        circuits=wishes,
        together={"workers": together} if together else {},
        run=Run(for_seconds=run_for),
        **more,
    )
