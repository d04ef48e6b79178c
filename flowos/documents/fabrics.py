"""How switches and links are laid over nodes: the cables of presets, and of lists of machines."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from flowos.model.cell import Cell, Link, Switch

LANES_MAX: Final = 4096  # of a link: its lanes are one bitmap
PORTS_MAX: Final = 65_536  # of a switch
NAME_MAX: Final = 63  # characters, as in every name of a thing

LANES_PER_ENGINE: Final = 8  # a port of 800 Gb/s is eight lanes of 100; eight can be all to all
LEAF_ENGINES_MAX: Final = LANES_MAX // LANES_PER_ENGINE  # what one link to a spine can carry
LANE_GBPS: Final = 100.0
SWITCH_LATENCY_NS: Final = 100  # a circuit through an FPGA or optical crossbar, not a packet switch
NEAR_NS: Final = 10  # two metres of cable
FAR_NS: Final = 100  # twenty metres: to another rack


class Cables:
    """Joins things of a cell, port after port."""

    def __init__(self, cell: Cell) -> None:
        """Start with every port free."""
        self.cell = cell
        self._ports: Counter[str] = Counter()

    def join(self, a: str, b: str, lanes: int, latency_ns: int, gbps: float = LANE_GBPS) -> None:
        """Add a link between the next free ports of two things that have none between them yet."""
        a_port, b_port = self._ports[a], self._ports[b]
        self._ports[a] += 1
        self._ports[b] += 1
        name = f"{a}-{b}".replace("/", ".")
        if len(name) > NAME_MAX:
            name = f"link-{len(self.cell.links)}"
        self.cell.add(Link(name, f"{a}:{a_port}", f"{b}:{b_port}", lanes, gbps, latency_ns))


def add_leaf_and_spine(cell: Cell, leaves: Mapping[str, Sequence[str]]) -> None:
    """Give each group of nodes a leaf switch, and the leaves one spine: non-blocking.

    Args:
        cell: Has the nodes and their engines; none of its things has a leaf's name or "spine0".
        leaves: Leaf -> its nodes, at least one; no more leaves than a switch has ports, and no
            more engines on one than `LEAF_ENGINES_MAX`.
    """
    cables = Cables(cell)
    lanes_below: dict[str, int] = {}
    for leaf, nodes in leaves.items():
        engines = [engine for node in nodes for engine in cell.engines_of.get(node, ())]
        near = cell.nodes[nodes[0]]
        cell.add(
            Switch(
                leaf,
                ports=len(engines) + 1,
                latency_ns=SWITCH_LATENCY_NS,
                rack=near.rack,
                pod=near.pod,
            )
        )
        for engine in engines:
            cables.join(engine, leaf, LANES_PER_ENGINE, NEAR_NS)
        lanes_below[leaf] = max(1, LANES_PER_ENGINE * len(engines))
    if len(leaves) > 1:
        cell.add(Switch("spine0", ports=len(leaves), latency_ns=SWITCH_LATENCY_NS, tier=1))
        for leaf, lanes in lanes_below.items():
            # As many lanes up as down: no set of circuits between leaves runs out of them.
            cables.join(leaf, "spine0", lanes, FAR_NS)
