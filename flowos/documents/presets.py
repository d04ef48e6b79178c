"""Cells that need no file: small ones to try things on, large ones to measure with."""

import re
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import Final, NamedTuple

from flowos.documents import architectures
from flowos.documents.cell_file import collection_paused, load_cell
from flowos.documents.fabrics import (
    FAR_NS,
    LANES_PER_ENGINE,
    NEAR_NS,
    PORTS_MAX,
    SWITCH_LATENCY_NS,
    Cables,
)
from flowos.documents.fields import did_you_mean
from flowos.documents.makes import (
    A100,
    ASIC,
    FIC_LANES,
    FPGA,
    H100,
    NVME,
    P100,
    ROOM,
    add_engines,
    fic_switch,
    host,
    join_torus,
    new_cell,
)
from flowos.documents.quantities import shown
from flowos.model.cell import Cell, Domain, Switch
from flowos.model.errors import FileError, SpecError

ENGINES_MAX: Final = 1_000_000  # the largest cell that Flow OS is planned for
ARCHITECTURE_MAX: Final = 65_536  # engines of a cell that is compared with its rivals


class Preset(NamedTuple):
    """A cell that has a name.

    Attributes:
        form: How it is written, with its parameters.
        about: One line for people.
        make: Returns the cell; takes what stands behind the colon, "" if nothing does.
    """

    form: str
    about: str
    make: Callable[[str], Cell]


def preset(text: str) -> Cell:
    """Return the cell of a preset such as "fic-small" or "fat-tree:1000".

    Raises:
        SpecError: There is none of this name, or its parameter cannot be; names the forms.
    """
    name, _, parameter = text.partition(":")
    if name not in PRESETS:
        raise SpecError(f"there is no preset {shown(name)}", hint=did_you_mean(name, PRESETS))
    try:
        with collection_paused():
            return PRESETS[name].make(parameter)
    except _Unfit as unfit:
        hint = f"write {PRESETS[name].form}"
        raise SpecError(f"preset {shown(text)}: {unfit}", hint=hint) from None


def file_or_preset(text: str, *, fabric: str = "") -> Cell:
    """Return the cell of a file, or of the preset of this name where there is no such file.

    Raises:
        SpecError: It is neither, or the file cannot be read.
    """
    known = text.partition(":")[0] in PRESETS
    if known and not Path(text).exists():
        return preset(text)
    try:
        return load_cell(text, fabric=fabric)
    except FileError as error:
        # A word without a dot or slash that is no file was meant as a preset.
        if error.problem.startswith("cannot be read") and re.fullmatch(r"[a-z0-9:-]+", text):
            hint = did_you_mean(text.partition(":")[0], PRESETS)
            raise SpecError(f"{shown(text)} is neither a file nor a preset", hint=hint) from None
        raise


class _Unfit(Exception):
    """A parameter that a preset cannot have."""


def _no_parameter(parameter: str) -> None:
    if parameter:
        raise _Unfit(f"takes no parameter, not {shown(parameter)}")


def _number(written: str, most: int, what: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", written) or not 1 <= int(written) <= most:
        raise _Unfit(f"{shown(written)} is no number of {what} from 1 to {most}")
    return int(written)


# ---------------------------------------------------------------------------------------- presets


def _fic_small(parameter: str) -> Cell:
    _no_parameter(parameter)
    # All engines busy draw 7.4 kW, so power is accounted for but never in the way.
    cell = new_cell(bitstreams=True, budget_watts=10_000)
    cables = Cables(cell)
    for number in range(2):
        cell.add(fic_switch(f"sw{number}", ports=16, rack=f"r{number}"))
    for number in range(4):
        node, switch = f"n{number}", f"sw{number // 2}"
        cell.add(host(node, cpus=32, memory_gib=128, rack=f"r{number // 2}"))
        for engine in add_engines(cell, node, [(A100, 4), (FPGA, 1), (NVME, 1)]):
            cables.join(engine, switch, FIC_LANES, NEAR_NS)
        cables.join(node, switch, 2, NEAR_NS)
    cables.join("sw0", "sw1", 16, FAR_NS)
    return cell


def _fic(parameter: str) -> Cell:
    if parameter:
        return architectures.fic(_number(parameter, ARCHITECTURE_MAX, "engines"))
    cell = new_cell(bitstreams=True)
    cables = Cables(cell)
    side = 4
    at = [f"sw{x}-{y}" for x, y in product(range(side), repeat=2)]
    for number, switch in enumerate(at):
        # A rack holds one row of the torus; its domain feeds 16 kW of engines with some to spare.
        rack = f"r{number // side}"
        if number % side == 0:
            cell.add(Domain(rack, 20_000, parent=ROOM))
        cell.add(fic_switch(switch, ports=24, rack=rack, domain=rack))
        for half, makes in enumerate(
            ([(A100, 4), (FPGA, 2), (NVME, 2)], [(A100, 2), (FPGA, 3), (ASIC, 3)])
        ):
            node = f"n{2 * number + half}"
            cell.add(host(node, cpus=32, memory_gib=128, rack=rack, domain=rack))
            for engine in add_engines(cell, node, makes):
                cables.join(engine, switch, FIC_LANES, NEAR_NS)
            cables.join(node, switch, 2, NEAR_NS)
    join_torus(cables, (side, side), lambda x, y: f"sw{x}-{y}", lanes=32)
    return cell


def _expether(parameter: str) -> Cell:
    _no_parameter(parameter)
    return pooled(hosts=2, gpus=8, drives=4, ports=32, devices_max=4, budget_watts=4_000)


def pooled(
    *,
    hosts: int,
    gpus: int,
    drives: int,
    ports: int,
    devices_max: int,
    budget_watts: int | None = None,
) -> Cell:
    """Return hosts, and devices in boxes of their own, around one switch, as ExpEther has them.

    Args:
        hosts: How many.
        gpus: How many P100.
        drives: How many NVMe drives.
        ports: Of the switch.
        devices_max: How many devices a host may attach.
        budget_watts: Of all of it; None = no limit.
    """
    cell = new_cell(bitstreams=False, budget_watts=budget_watts)
    cables = Cables(cell)
    # A packet switch, as Ethernet has them: 40 GbE is four lanes of 10 Gb/s.
    cell.add(Switch("sw0", ports=ports, latency_ns=450, domain=ROOM, rack="r0"))
    for number in range(hosts):
        cell.add(host(f"h{number}", cpus=16, memory_gib=64, rack="r0", devices_max=devices_max))
        cables.join(f"h{number}", "sw0", 8, NEAR_NS, gbps=10.0)
    boxes = [(f"gpubox{n}", P100) for n in range(gpus)]
    boxes += [(f"nvmebox{n}", NVME) for n in range(drives)]
    for box, make in boxes:
        cell.add(host(box, cpus=0, memory_gib=0, rack="r0"))
        for engine in add_engines(cell, box, [(make, 1)]):
            cables.join(engine, "sw0", 4, NEAR_NS, gbps=10.0)
    return cell


_ENGINES_PER_NODE: Final = 8
_NODES_PER_LEAF: Final = 4
_LEAVES_PER_POD: Final = 32
_SPINES: Final = 8  # of a pod; and so many cores above each


def _fat_tree(parameter: str) -> Cell:
    """Lay nodes of eight engines below leaves, spines and, from 33 leaves on, cores.

    Each level has as many lanes up as down. The cores have a port for each pod, as optical circuit
    switches of several hundred ports do.
    """
    wanted = _number(parameter, ENGINES_MAX, "engines")
    cell = new_cell(bitstreams=False)
    cables = Cables(cell)
    nodes = -(-wanted // _ENGINES_PER_NODE)
    leaves = -(-nodes // _NODES_PER_LEAF)
    pods = -(-leaves // _LEAVES_PER_POD)
    leaf_ports = _ENGINES_PER_NODE * _NODES_PER_LEAF + _SPINES
    leaf_up = LANES_PER_ENGINE * _ENGINES_PER_NODE * _NODES_PER_LEAF // _SPINES
    spine_up = leaf_up * _LEAVES_PER_POD // _SPINES
    for leaf in range(leaves):
        name, rack = f"leaf{leaf}", f"r{leaf}"
        cell.add(Switch(name, leaf_ports, latency_ns=SWITCH_LATENCY_NS, rack=rack, pod=_pod(leaf)))
    for number in range(nodes):
        node, leaf = f"n{number}", number // _NODES_PER_LEAF
        cell.add(host(node, cpus=96, memory_gib=1024, rack=f"r{leaf}", pod=_pod(leaf)))
        count = min(_ENGINES_PER_NODE, wanted - _ENGINES_PER_NODE * number)
        for engine in add_engines(cell, node, [(H100, count)]):
            cables.join(engine, f"leaf{leaf}", LANES_PER_ENGINE, NEAR_NS)
    for pod in range(pods if leaves > 1 else 0):
        first = pod * _LEAVES_PER_POD
        below = range(first, min(first + _LEAVES_PER_POD, leaves))
        for spine in range(_SPINES):
            name = f"spine{pod}-{spine}"
            ports = _LEAVES_PER_POD + _SPINES
            cell.add(Switch(name, ports=ports, latency_ns=SWITCH_LATENCY_NS, pod=f"p{pod}", tier=1))
            for leaf in below:
                cables.join(f"leaf{leaf}", name, leaf_up, FAR_NS)
    for spine, core in product(range(_SPINES if pods > 1 else 0), range(_SPINES)):
        name = f"core{spine}-{core}"
        cell.add(Switch(name, ports=pods, latency_ns=SWITCH_LATENCY_NS, tier=2))
        for pod in range(pods):
            cables.join(f"spine{pod}-{spine}", name, spine_up, FAR_NS)
    return cell


def _pod(leaf: int) -> str:
    return f"p{leaf // _LEAVES_PER_POD}"


_ENGINES_PER_VERTEX: Final = 4


def _torus(parameter: str) -> Cell:
    parts = parameter.split("x")
    if len(parts) != 3:
        raise _Unfit(f"{shown(parameter)} does not have three sides")
    sides = [_number(part, ENGINES_MAX, "switches on a side") for part in parts]
    engines = sides[0] * sides[1] * sides[2] * _ENGINES_PER_VERTEX
    if engines > ENGINES_MAX:
        raise _Unfit(f"has {engines} engines, the most is {ENGINES_MAX}")
    cell = new_cell(bitstreams=False)
    cables = Cables(cell)
    for x, y, z in product(*map(range, sides)):
        node, switch = f"n{x}-{y}-{z}", f"sw{x}-{y}-{z}"
        # Six neighbours, the engines, and the host.
        cell.add(fic_switch(switch, ports=6 + _ENGINES_PER_VERTEX + 1, rack=f"r{x}-{y}"))
        cell.add(host(node, cpus=32, memory_gib=128, rack=f"r{x}-{y}"))
        for engine in add_engines(cell, node, [(A100, _ENGINES_PER_VERTEX)]):
            cables.join(engine, switch, LANES_PER_ENGINE, NEAR_NS)
        cables.join(node, switch, 1, NEAR_NS)
    join_torus(cables, tuple(sides), lambda x, y, z: f"sw{x}-{y}-{z}", lanes=32)
    return cell


def _gpu_islands(parameter: str) -> Cell:
    islands = _number(parameter, PORTS_MAX, "islands") if parameter else 8
    cell = new_cell(bitstreams=False)
    cables = Cables(cell)
    for number in range(islands):
        node, switch = f"n{number}", f"island{number}"
        cell.add(Switch(switch, ports=9, latency_ns=SWITCH_LATENCY_NS, rack=f"r{number // 4}"))
        cell.add(host(node, cpus=96, memory_gib=1024, rack=f"r{number // 4}"))
        for engine in add_engines(cell, node, [(A100, 8)]):
            # Twelve links of 25 GB/s each way, as eight GPUs on one board have them.
            cables.join(engine, switch, 12, NEAR_NS, gbps=200.0)
    if islands > 1:
        cell.add(Switch("sw0", ports=islands, latency_ns=SWITCH_LATENCY_NS, tier=1))
        for number in range(islands):
            cables.join(f"island{number}", "sw0", 4, FAR_NS)
    return cell


def _of_engines(make: Callable[[int], Cell]) -> Callable[[str], Cell]:
    return lambda parameter: make(_number(parameter, ARCHITECTURE_MAX, "engines"))


PRESETS: Final[Mapping[str, Preset]] = {
    "fic-small": Preset(
        "fic-small", "4 nodes of 4 GPUs, an FPGA and an NVMe drive on 2 switches", _fic_small
    ),
    "fic": Preset(
        "fic, or fic:N with N engines as the rivals' presets have them, such as fic:1024",
        "256 GPUs, FPGAs, ASICs and NVMe drives on a 4 x 4 torus of switches",
        _fic,
    ),
    "expether": Preset(
        "expether", "2 hosts, and 8 P100 GPUs and 4 NVMe drives pooled on 40 GbE", _expether
    ),
    "fat-tree": Preset(
        "fat-tree:N with N engines, such as fat-tree:1000",
        "N GPUs, 8 a node, below a non-blocking tree of switches",
        _fat_tree,
    ),
    "torus": Preset(
        "torus:XxYxZ with a switch and 4 engines at each point, such as torus:4x4x4",
        "a torus of switches, each with a node of 4 GPUs",
        _torus,
    ),
    "gpu-islands": Preset(
        "gpu-islands, or gpu-islands:N with N islands",
        "islands of 8 GPUs with rich links inside and thin ones between (8 islands)",
        _gpu_islands,
    ),
    "rack-pool": Preset(
        "rack-pool:N with N engines, such as rack-pool:256",
        "a rival's shape: GPUs, FPGAs and NVMe drives pooled by rack, no circuit leaves it",
        _of_engines(architectures.rack_pool),
    ),
    "memory-pool": Preset(
        "memory-pool:N with N engines, such as memory-pool:256",
        "a rival's shape: the same on one shared memory that has room for 320 engines",
        _of_engines(architectures.memory_pool),
    ),
    "boxes": Preset(
        "boxes:N with N engines, such as boxes:256",
        "a rival's shape: the same in boxes of 8 GPUs, four thin links out of each",
        _of_engines(architectures.boxes),
    ),
}
