"""Cells shaped like other ways to build one: the rivals that Flow in Cloud was compared with.

The same engines stand in all of them, on nodes of eight: six GPUs, an FPGA and an NVMe drive. What
differs is which of them a circuit can join. Each shape has the best that its kind could plausibly
have; docs/architectures.md says what that is and why.

Source: Takano et al., "Flow OS", 2017, table 1.
"""

from math import isqrt
from typing import Final

from flowos.documents.fabrics import FAR_NS, LANES_PER_ENGINE, NEAR_NS, SWITCH_LATENCY_NS, Cables
from flowos.documents.makes import (
    A100,
    FIC_LANES,
    FPGA,
    NVME,
    Make,
    add_engines,
    fic_switch,
    host,
    join_torus,
    new_cell,
)
from flowos.model.cell import Cell, Switch

NODE: Final[tuple[Make, ...]] = (
    *[A100] * 6,
    FPGA,
    NVME,
)  # the engines of a node of eight, whatever the shape

RACK_ENGINES: Final = 64  # what one rack's power and one tree of PCIe switches can take
PCIE_SWITCH_NS: Final = 150

MEMORY_ENGINES_MAX: Final = 320  # 40 nodes, as the largest such machine that was shown had
MEMORY_SWITCH_NS: Final = 100

BOXES: Final = 3  # hold the engines of four nodes: eight GPUs each
BOX_LANES: Final = 12  # of a GPU inside its box, of 200 Gb/s each way
BOX_UPLINKS: Final = 4  # of a box, of 100 Gb/s each way
PACKET_SWITCH_NS: Final = 450  # a packet switch between boxes, with its adapters left out

FIC_NODES: Final = 2  # at one switch
FIC_TRUNK_LANES: Final = 32


def rack_pool(engines: int) -> Cell:
    """Return racks whose devices attach inside the rack: no circuit leaves it."""
    cell = new_cell(bitstreams=False)
    cables = Cables(cell)
    for number, size in _nodes(engines):
        rack = number * len(NODE) // RACK_ENGINES
        switch = f"rack{rack}"
        if switch not in cell.switches:
            ports = RACK_ENGINES + RACK_ENGINES // len(NODE)
            cell.add(Switch(switch, ports=ports, latency_ns=PCIE_SWITCH_NS, rack=f"r{rack}"))
        _add_node(cell, cables, f"n{number}", size, switch, f"r{rack}")
    return cell


def memory_pool(engines: int) -> Cell:
    """Return one fabric on which all is beside all, and the engines that it has no room for."""
    cell = new_cell(bitstreams=False)
    cables = Cables(cell)
    ports = MEMORY_ENGINES_MAX + MEMORY_ENGINES_MAX // len(NODE)
    cell.add(Switch("memory", ports=ports, latency_ns=MEMORY_SWITCH_NS))
    for number, size in _nodes(engines):
        inside = (number + 1) * len(NODE) <= MEMORY_ENGINES_MAX
        rack = f"r{number * len(NODE) // RACK_ENGINES}"
        _add_node(cell, cables, f"n{number}", size, "memory" if inside else "", rack)
    return cell


def boxes(engines: int) -> Cell:
    """Return boxes of eight GPUs with rich links inside, and four thin ones out of each."""
    cell = new_cell(bitstreams=False)
    cables = Cables(cell)
    count = -(-engines // (4 * len(NODE))) * BOXES
    parts: list[list[Make]] = [[] for _ in range(count)]
    # GPUs fill box after box, FPGAs and drives go round.
    made = [NODE[n % len(NODE)] for n in range(engines)]
    for kind in (A100, FPGA, NVME):
        for place, make in enumerate(make for make in made if make is kind):
            parts[place // 8 if kind is A100 else place % count].append(make)
    for number, makes in enumerate(parts):
        node, switch, rack = f"n{number}", f"box{number}", f"r{number // 4}"
        cell.add(Switch(switch, ports=24, latency_ns=SWITCH_LATENCY_NS, rack=rack))
        cell.add(host(node, cpus=96, memory_gib=1024, rack=rack))
        counted = [(make, makes.count(make)) for make in (A100, FPGA, NVME)]
        for engine in add_engines(cell, node, counted):
            if cell.engines[engine].kind == "gpu":
                cables.join(engine, switch, BOX_LANES, NEAR_NS, gbps=200.0)
            else:
                cables.join(engine, switch, LANES_PER_ENGINE, NEAR_NS)
    if count > 1:
        cell.add(Switch("between", ports=count, latency_ns=PACKET_SWITCH_NS, tier=1))
        for number in range(count):
            cables.join(f"box{number}", "between", BOX_UPLINKS, FAR_NS)
    return cell


def fic(engines: int) -> Cell:
    """Return a torus of switch nodes, as square as can be, with two nodes of engines at each."""
    cell = new_cell(bitstreams=True)
    cables = Cables(cell)
    count = -(-engines // (FIC_NODES * len(NODE)))
    rows = next(side for side in range(isqrt(count), 0, -1) if count % side == 0)
    columns = count // rows
    for number in range(count):
        ports = FIC_NODES * (len(NODE) + 1) + 4
        rack = f"r{number // 4}"
        cell.add(fic_switch(f"sw{number // columns}-{number % columns}", ports=ports, rack=rack))
    for number, size in _nodes(engines):
        at = number // FIC_NODES
        switch = f"sw{at // columns}-{at % columns}"
        _add_node(cell, cables, f"n{number}", size, switch, f"r{at // 4}")
    join_torus(cables, (rows, columns), lambda x, y: f"sw{x}-{y}", lanes=FIC_TRUNK_LANES)
    return cell


def _nodes(engines: int) -> list[tuple[int, int]]:
    """Return (number, engines) of nodes of eight; the last may have fewer."""
    count = -(-engines // len(NODE))
    return [(n, min(len(NODE), engines - n * len(NODE))) for n in range(count)]


def _add_node(cell: Cell, cables: Cables, node: str, size: int, switch: str, rack: str) -> None:
    """Add a node with the first so many engines of eight, all on one switch, or on none."""
    cell.add(host(node, cpus=96, memory_gib=1024, rack=rack))
    counted = [(make, NODE[:size].count(make)) for make in (A100, FPGA, NVME)]
    for engine in add_engines(cell, node, counted):
        if switch:
            cables.join(engine, switch, FIC_LANES, NEAR_NS)
    if switch:
        cables.join(node, switch, 1, NEAR_NS)
