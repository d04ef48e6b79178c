"""A whole slice beside its engines alone: a ring over two switches, engines to wake, a bitstream."""

import statistics

from commit_parts.cells import Bench, Spent
from commit_parts.direct import Rounds, in_step
from commit_parts.profiled import Profiled

from flowos.documents.presets import preset
from flowos.model.cell import Cell, Engine, Link, Node, Switch, Tenant, Watts
from flowos.model.placement import Placement
from flowos.model.slice import CircuitWish, EngineChoice, EngineRole, Shape, SliceSpec
from flowos.protocol.proposal import Proposal
from flowos.protocol.system import power_off
from flowos.runtime.embedded import EmbeddedScheduler
from flowos.runtime.processes import new_attempt

NODES = 1000
LANES = 8
MODELS = ("whole", "plain")  # every second node each: otherwise alike
BITSTREAM = "sum-f32"


def two_switch_cell() -> Cell:
    """Return 1,000 nodes of 8 FPGAs, each node's half on one switch and half on another."""
    cell = Cell()
    cell.add(Tenant("default"))
    known = preset("fic-small").bitstream(BITSTREAM)
    assert known is not None
    cell.add(known)
    for number in range(NODES):
        node, pair = f"n{number}", (f"a{number}", f"b{number}")
        cell.add(Node(node, cpu_millis=32_000, memory_bytes=1 << 37))
        for switch in pair:
            cell.add(Switch(switch, ports=16, latency_ns=100))
        for at in range(8):
            engine = Engine(
                node,
                f"fpga{at}",
                "fpga",
                model=MODELS[number % 2],
                loads_bitstreams=True,
                watts=Watts(0, 20, 200),
            )
            cell.add(engine)
            switch = pair[at // 4]
            cell.add(Link(f"{node}.{at}", f"{engine.id}:0", f"{switch}:{at % 4}", lanes=LANES))
        cell.add(Link(f"{node}.ab", f"{pair[0]}:8", f"{pair[1]}:8", lanes=2 * LANES))
    return cell


def request(number: int, *, whole: bool) -> SliceSpec:
    """Return a request of 8 engines of one node, with or without all that a slice can ask for."""
    choice = EngineChoice(
        count=8, models=(MODELS[0 if whole else 1],), bitstream=BITSTREAM if whole else ""
    )
    return SliceSpec(
        name=f"{'whole' if whole else 'plain'}{number}",
        engines={"workers": EngineRole((choice,))},
        together={"workers": "node"},
        circuits=(CircuitWish(Shape.RING, ("workers",)),) if whole else (),
    )


def switch_off(bench: Bench, scheduler: EmbeddedScheduler, engines: list[str]) -> None:
    """Power engines off, as the controller does after a while."""
    group: list[Proposal] = []
    for engine in engines:
        step = power_off(
            scheduler.view, engine, attempt=new_attempt(), fence=scheduler.session.fence
        )
        assert step is not None
        group.append(step)
        if len(group) == 16:
            bench.store.commit([s.transaction for s in group])
            group = []
    if group:
        bench.store.commit([s.transaction for s in group])


def whole_slices(bench: Bench, *, rounds: int, slices: int) -> tuple[Rounds, Rounds]:
    """Return the rounds of whole slices and of engines alone; placements only, one a call."""
    found = (Rounds(), Rounds())
    with bench.scheduler("direct") as scheduler:
        needed = (rounds * slices + slices) * 2
        assert needed <= NODES
        nodes = [n for n in scheduler.view.cell.nodes if int(n[1:]) % 2 == 0][: needed // 2]
        engines = [e for node in nodes for e in scheduler.view.cell.engines_of[node]]
        switch_off(bench, scheduler, engines)
        # Those of the same make that are on would be taken first.
        in_step(scheduler)
        number = 0
        for turn in range(rounds + 1):
            for whole, rounds_of in ((True, found[0]), (False, found[1])):
                into = rounds_of if turn else Rounds()
                specs = [request(number + n, whole=whole) for n in range(slices)]
                with Spent() as spent, Profiled(on=whole and bool(turn)):
                    placed = [scheduler.place([spec])[0] for spec in specs]
                into.add(slices, spent)
                for placement in placed:
                    _check(placement, whole=whole)
            number += slices
    return found


def _check(placement: object, *, whole: bool) -> None:
    assert isinstance(placement, Placement), placement
    assert len([u for u in placement.held if u.startswith("engine/")]) == 8
    if whole:
        assert len(placement.circuits) == 8
        assert placement.bitstreams
        assert len(placement.ordered) == 3, placement.ordered


def ratio_of(found: tuple[Rounds, Rounds]) -> float:
    """Return the median of the rounds' ratios."""
    return statistics.median(a / b for a, b in zip(found[0].rates, found[1].rates, strict=True))
