"""How long does it take to say why a slice waits, with the funnel, in a cell of 8,000 engines?

1,000 nodes of 7 GPUs and 1 FPGA, four nodes a leaf switch, eight spines; slices hold most of it. For
each reason a request that has it is planned in vain, and the funnel counted anew; before every turn
a slice is given back and another one placed, so that nothing is told from memory. The figure is the
slowest reason's median. Beside it what `unblock` takes, which tries what would help.
"""

import statistics
import time
from random import Random
from typing import Final

from harness import Report

from flowos.model.cell import Bitstream, Cell, Engine, Link, Node, Switch
from flowos.model.placement import Placement, Unplaceable
from flowos.model.slice import CircuitWish, EngineChoice, EngineRole, Reason, Shape, SliceSpec
from flowos.model.view import CellView
from flowos.planning.engines.pool import Pool
from flowos.planning.place import plan
from flowos.planning.reasons.explain import funnel
from flowos.planning.reasons.unblock import unblock
from planning_parts.gangs import collecting_as_a_scheduler

NODES: Final = 1_000
NODES_A_LEAF: Final = 4
SPINES: Final = 8
GOAL_MS: Final = 20.0


def cell_of_8000() -> Cell:
    """Return the cell."""
    cell = Cell()
    cell.add(Bitstream("sum", "sha256:aa", "fpga"))
    for spine in range(SPINES):
        cell.add(Switch(f"s{spine}", tier=1, latency_ns=100))
    for leaf in range(NODES // NODES_A_LEAF):
        cell.add(Switch(f"l{leaf}", latency_ns=100, pod=f"p{leaf // 10}"))
        for spine in range(SPINES):
            name = f"l{leaf}-s{spine}"
            cell.add(Link(name, f"l{leaf}:{name}", f"s{spine}:{name}", 1, latency_ns=20))
    for number in range(NODES):
        node, leaf = f"n{number}", f"l{number // NODES_A_LEAF}"
        cell.add(Node(node, 64_000, 2**38, rack=leaf))
        for e in range(8):
            kind = "fpga" if e == 7 else "gpu"
            engine = Engine(
                node, f"{kind}{e}", kind, "A100" if kind == "gpu" else "U250", 2**35,
                loads_bitstreams=kind == "fpga",
            )  # fmt: skip
            cell.add(engine)
            name = f"{node}-{e}"
            cell.add(Link(name, f"{engine.id}:0", f"{leaf}:{name}", 2, latency_ns=10))
    return cell


def ask(kind: str, count: int, together: str = "any", **more: object) -> SliceSpec:
    """Return a request of one role; `ring` joins it."""
    ring = more.pop("ring", False)
    choice = EngineChoice(kind, count=count, **more)  # type: ignore[arg-type]
    circuits = (CircuitWish(Shape.RING, ("w",)),) if ring else ()
    role = {"w": EngineRole((choice,))}
    return SliceSpec("t", engines=role, together={"w": together}, circuits=circuits)


REQUESTS: Final = {
    Reason.INFEASIBLE: ask("gpu", 8, "node"),
    Reason.WAITING_FOR_ENGINES: ask("gpu", 6_000),
    Reason.WAITING_FOR_BITSTREAM: ask("fpga", 800, bitstream="sum"),
    Reason.FRAGMENTED_ACROSS_SWITCHES: ask("gpu", 7, "node"),
    Reason.NO_CIRCUIT: ask("gpu", 100, ring=True),
}


def busy_view(dice: Random) -> CellView:
    """Return the cell with 2..6 GPUs of each node and half of the FPGAs held, and most uplinks."""
    view = CellView(cell=cell_of_8000())
    for number in range(NODES):
        node = f"n{number}"
        held = [f"engine/{node}/gpu{e}" for e in range(dice.randint(2, 6))]
        if dice.random() < 0.5:
            held.append(f"engine/{node}/fpga7")
        hold(view, f"other/{node}", held)
    for leaf in range(NODES // NODES_A_LEAF):
        lanes = [
            f"lane/l{leaf}-s{spine}/{way}/0" for spine in range(SPINES) for way in ("fwd", "rev")
        ]
        hold(view, f"other/l{leaf}", lanes)
    return view


def hold(view: CellView, name: str, units: list[str]) -> None:
    """Let a slice hold units."""
    view.assume(name, Placement(1, f"at {name}", held=dict.fromkeys(units, ())))


def measure(report: Report, quick: bool) -> None:
    """Add the figures."""
    dice = Random(7)
    view = busy_view(dice)
    pool = Pool(view)
    turns = 20 if quick else 60
    slowest = 0.0
    for reason, spec in REQUESTS.items():
        samples: list[float] = []
        with collecting_as_a_scheduler():  # which is who finds the reasons
            for _ in range(turns):
                _change(view, dice)
                pool.fold()
                before = time.perf_counter()
                found = plan(pool, spec)
                steps = funnel(pool, spec)
                samples.append(1000 * (time.perf_counter() - before))
                assert isinstance(found, Unplaceable), found
                assert found.reason is reason, (found, reason)
                assert steps[0][1] > steps[-1][1] or reason is Reason.NO_CIRCUIT
        median = statistics.median(samples)
        report.add(f"explain_8000_{reason}_ms", median, "ms")
        slowest = max(slowest, median)
    report.add("explain_8000_ms", slowest, "ms", at_most=GOAL_MS)
    spec = REQUESTS[Reason.FRAGMENTED_ACROSS_SWITCHES]
    samples = []
    for _ in range(2 if quick else 5):
        _change(view, dice)
        before = time.perf_counter()
        items = unblock(pool, spec, lambda name: float(len(name)))
        samples.append(1000 * (time.perf_counter() - before))
        assert items
    report.add("unblock_8000_ms", statistics.median(samples), "ms")


def _change(view: CellView, dice: Random) -> None:
    """Give back what one node's slice holds, and let it hold one GPU more or less."""
    node = f"n{dice.randrange(NODES)}"
    placement = view.now(f"other/{node}")
    assert placement is not None, "every node has a slice"
    view.retract(f"other/{node}")
    more = [f"engine/{node}/gpu{e}" for e in range(dice.randint(2, 6))]
    fpga = [unit for unit in placement.held if "fpga" in unit]
    hold(view, f"other/{node}", [*more, *fpga])
