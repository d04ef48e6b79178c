"""What presets are made of: kinds of engines, nodes, switches, and a cell to put them into."""

from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from itertools import product
from typing import Final, NamedTuple

from flowos.documents.accelerators import GIB, known_model
from flowos.documents.cell_file import DEFAULT_TENANT
from flowos.documents.fabrics import FAR_NS, SWITCH_LATENCY_NS, Cables
from flowos.model.cell import Bitstream, Cell, Domain, Engine, Node, Switch, Tenant, Watts

ROOM: Final = "room"
FIC_LANES: Final = 8  # the serial links of an engine board

# What stands for two real bitstreams: their digests are those of these texts.
BITSTREAM_TEXTS: Final[Mapping[str, str]] = {
    "sum-f32": "Flow OS example: adds streams of 32-bit floats, element by element\n",
    "add-bytewise": "Flow OS example: adds streams of bytes, byte by byte, modulo 256\n",
}


class Make(NamedTuple):
    """A kind of engine that presets are made of."""

    kind: str
    model: str
    memory_bytes: int
    watts: Watts
    shareable: bool = False
    loads_bitstreams: bool = False
    attributes: Mapping[str, bool] = {}


def of_model(kind: str, model: str, *, attributes: Mapping[str, bool] | None = None) -> Make:
    """Return a kind of engine whose memory and watts are known by its model."""
    known = known_model(model)
    return Make(
        kind,
        model,
        known.memory_bytes,
        known.watts,
        shareable=kind == "gpu",
        loads_bitstreams=kind == "fpga",
        attributes=attributes or {},
    )


A100: Final = of_model("gpu", "A100", attributes={"nvlink": True})
H100: Final = of_model("gpu", "H100", attributes={"nvlink": True})
P100: Final = of_model("gpu", "P100")
FPGA: Final = of_model("fpga", "U250")
ASIC: Final = of_model("asic", "AI100")
# A data-centre drive of 3.84 TB on PCIe 4: up to 25 W by its form factor, 14 W when it writes.
NVME: Final = Make("nvme", "NVMe-3.84TB", 3_840_000_000_000, Watts(0, 5, 14))


def add_engines(cell: Cell, node: str, makes: Iterable[tuple[Make, int]]) -> list[str]:
    """Put engines on a node, numbered by kind, and return their ids."""
    added = []
    for make, count in makes:
        for number in range(count):
            engine = Engine(
                node=node,
                name=f"{make.kind}{number}",
                kind=make.kind,
                model=make.model,
                memory_bytes=make.memory_bytes,
                shareable=make.shareable,
                loads_bitstreams=make.loads_bitstreams,
                watts=make.watts,
                attributes=make.attributes,
            )
            cell.add(engine)
            added.append(engine.id)
    return added


def new_cell(*, bitstreams: bool, budget_watts: int | None = None) -> Cell:
    """Return a cell with the default tenant and one room, perhaps with the example bitstreams."""
    cell = Cell()
    cell.add(Tenant(DEFAULT_TENANT))
    cell.add(Domain(ROOM, budget_watts))
    if bitstreams:
        for name, text in BITSTREAM_TEXTS.items():
            cell.add(
                Bitstream(
                    name=name,
                    digest=f"sha256:{sha256(text.encode()).hexdigest()}",
                    function=name.partition("-")[0],
                    size_bytes=len(text),
                    load_seconds=0.5,  # one region of an FPGA, not the whole board
                )
            )
    return cell


# ---------------------------------------------------------------------------- nodes and switches


def host(
    name: str,
    *,
    cpus: int,
    memory_gib: int,
    rack: str,
    pod: str = "",
    domain: str = ROOM,
    devices_max: int = 0,
) -> Node:
    """Return a node with its control CPUs and memory."""
    return Node(
        name, cpus * 1000, memory_gib * GIB, domain, rack=rack, pod=pod, devices_max=devices_max
    )


def fic_switch(name: str, *, ports: int, rack: str, domain: str = ROOM) -> Switch:
    """Return a switch whose FPGA has one aggregator, as the switch nodes of Flow in Cloud."""
    return Switch(
        name,
        ports=ports,
        aggregators=1,
        functions=("sum",),
        latency_ns=SWITCH_LATENCY_NS,
        domain=domain,
        rack=rack,
    )


def join_torus(
    cables: Cables, sides: tuple[int, ...], name: Callable[..., str], lanes: int
) -> None:
    """Join each switch to the next one along each side, and the last to the first."""
    for at in product(*map(range, sides)):
        for axis, side in enumerate(sides):
            # Two switches are joined once; one alone has no neighbour.
            if side > 2 or at[axis] + 1 < side:
                beside = [*at]
                beside[axis] = (at[axis] + 1) % side
                cables.join(name(*at), name(*beside), lanes, FAR_NS)
