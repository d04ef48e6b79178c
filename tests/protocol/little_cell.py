"""What is the smallest cell in which every rule of the protocol has something to do?

    n1/x ──px──┐                  ┌──py── n2/y
               s1 ────trunk────── s2
    n1/f ──pf──┘                  └──pz── n2/z

x, y and z are held whole; f can be held in parts. Both nodes are hosts, both switches have one
aggregator, the trunk has one lane each way. With a budget, every engine draws from domain d.
"""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from flowos.model.cell import Cell, Domain, Engine, Link, Node, Switch, Tenant, Watts
from flowos.model.placement import Arc, Circuit, Decision
from flowos.model.units import Amounts

BUSY_WATTS: Final = 100  # above idle, each engine
HOST: Final = (2000, 2000)  # CPU thousandths and bytes of each node
DEVICES: Final = 2  # that each node takes at once
TRUNK: Final = "lane/trunk/fwd/0"
PURSE: Final = "domain:d"
QUOTA: Final = "tenant:t:gpu"


def little_cell(budget: int | None = None, quota: int | None = None) -> Cell:
    """Build the cell; `budget` in watts, and `quota` in GPUs of tenant t, limit the grants."""
    cell = Cell()
    cell.add(Tenant("t", quota={} if quota is None else {"gpu": quota}))
    watts = Watts(off=0, idle=0, busy=BUSY_WATTS)
    cell.add(Domain("d", budget_watts=budget))
    for node, switch in (("n1", "s1"), ("n2", "s2")):
        cell.add(Switch(switch, aggregators=1, functions=("sum",), domain="d"))
        cell.add(
            Node(node, cpu_millis=HOST[0], memory_bytes=HOST[1], domain="d", devices_max=DEVICES)
        )
    for node, name, switch in (
        ("n1", "x", "s1"),
        ("n1", "f", "s1"),
        ("n2", "y", "s2"),
        ("n2", "z", "s2"),
    ):
        cell.add(Engine(node, name, kind="gpu", shareable=name == "f", watts=watts))
        cell.add(Link(f"p{name}", a=f"{node}/{name}:0", b=f"{switch}:{name}"))
    cell.add(Link("trunk", a="s1:t", b="s2:t"))
    return cell


def decision(
    units: Mapping[str, Amounts], *engines: str, circuits: tuple[Circuit, ...] = ()
) -> Decision:
    """Decide on these units; each engine is a role of its own."""
    roles = {engine.rpartition("/")[2]: (engine,) for engine in engines}
    return Decision(engines=roles, units=units, circuits=circuits)


def whole(*engines: str) -> dict[str, Amounts]:
    """Return whole engines as units."""
    return {f"engine/{engine}": () for engine in engines}


def across(source: str, *targets: str, aggregate: str = "") -> Circuit:
    """Return the tree from an engine of n1 over the trunk to engines of n2; one target is a path."""
    leaves = [Arc(f"p{target.rpartition('/')[2]}", "rev", (0,)) for target in targets]
    return Circuit(
        id="t/c",
        source=source,
        targets=targets,
        path=(source, "s1", "s2", *targets),
        arcs=(
            Arc(f"p{source.rpartition('/')[2]}", "fwd", (0,)),
            Arc("trunk", "fwd", (0,)),
            *leaves,
        ),
        aggregate=aggregate,
    )


X: Final = decision(whole("n1/x"), "n1/x")
Y: Final = decision(whole("n2/y"), "n2/y")
Z: Final = decision(whole("n2/z"), "n2/z")
XY: Final = decision(whole("n1/x", "n2/y"), "n1/x", "n2/y")
PAIR: Final = decision(  # x and y with a circuit between
    {**whole("n1/x", "n2/y"), TRUNK: ()},
    "n1/x",
    "n2/y",
    circuits=(across("n1/x", "n2/y"),),
)
TREE: Final = decision(  # x to y and z, aggregated at s2 on the way back
    {**whole("n1/x", "n2/y", "n2/z"), TRUNK: (), "aggregator/s2/0": ()},
    "n1/x",
    "n2/y",
    "n2/z",
    circuits=(across("n1/x", "n2/y", "n2/z", aggregate="sum"),),
)
MERGED: Final = decision(  # x and y, made one at s2, to z
    {**whole("n1/x", "n2/y", "n2/z"), TRUNK: (), "aggregator/s2/0": ()},
    "n1/x",
    "n2/y",
    "n2/z",
    circuits=(
        Circuit(
            id="t/c",
            source="n1/x",
            targets=("n2/z",),
            path=("n2/z", "s2", "s1", "n1/x", "n2/y"),
            arcs=(
                Arc("px", "fwd", (0,)),
                Arc("trunk", "fwd", (0,)),
                Arc("py", "fwd", (0,)),
                Arc("pz", "rev", (0,)),
            ),
            aggregate="sum",
            sources=("n1/x", "n2/y"),
            aggregators=("aggregator/s2/0",),
        ),
    ),
)
LAST_STREAM: Final = decision(  # the same after y was given back: nothing is merged any more
    {**whole("n1/x", "n2/z"), TRUNK: ()},
    "n1/x",
    "n2/z",
    circuits=(
        replace(
            MERGED.circuits[0],
            path=("n2/z", "s2", "s1", "n1/x"),
            arcs=(MERGED.circuits[0].arcs[0], MERGED.circuits[0].arcs[1], Arc("pz", "rev", (0,))),
            sources=(),
            aggregators=(),
        ),
    ),
)
SUM: Final = decision({**whole("n2/z"), "aggregator/s2/0": ()}, "n2/z")
F: Final = decision(whole("n1/f"), "n1/f")
F_FAR: Final = decision(  # f whole: its port's lanes come with it
    {**whole("n1/f", "n2/y"), TRUNK: ()},
    "n1/f",
    "n2/y",
    circuits=(across("n1/f", "n2/y"),),
)
F_NEAR: Final = decision(  # f whole, with a circuit that never leaves s1
    whole("n1/f", "n1/x"),
    "n1/f",
    "n1/x",
    circuits=(
        Circuit(
            id="t/c",
            source="n1/f",
            targets=("n1/x",),
            path=("n1/f", "s1", "n1/x"),
            arcs=(Arc("pf", "fwd", (0,)), Arc("px", "rev", (0,))),
        ),
    ),
)
HALF: Final = decision({"share/n1/f": (500,), "host/n1": (1000, 1000)}, "n1/f")
HALF_FAR: Final = decision(  # half of f: its port's lane is claimed
    {"share/n1/f": (500,), "lane/pf/fwd/0": (), TRUNK: (), **whole("n2/z")},
    "n1/f",
    "n2/z",
    circuits=(across("n1/f", "n2/z"),),
)
HOST_SMALL: Final = decision({"host/n1": (1000, 1000)})
HOST_BIG: Final = decision({"host/n1": HOST})
ATTACHED: Final = decision({"host/n1": (0, 0, DEVICES)})
HOSTS: Final = decision({"host/n1": (1000, 1000), "host/n2": (1000, 1000)})

DECISIONS: Final[Mapping[str, Decision]] = MappingProxyType(
    {
        "x": X,
        "y": Y,
        "z": Z,
        "xy": XY,
        "pair": PAIR,
        "tree": TREE,
        "merged": MERGED,
        "sum": SUM,
        "f": F,
        "f far": F_FAR,
        "f near": F_NEAR,
        "half": HALF,
        "half far": HALF_FAR,
        "host small": HOST_SMALL,
        "host big": HOST_BIG,
        "hosts": HOSTS,
    }
)
