"""Small cells with something wrong in each, and small requests: little enough to try everything."""

from collections.abc import Mapping
from itertools import pairwise
from random import Random

from flowos.model.cell import Bitstream, Cell, Engine, Link, Node, Switch
from flowos.model.placement import Placement
from flowos.model.slice import (
    CircuitWish,
    Constraints,
    EngineChoice,
    EngineRole,
    HostRole,
    Shape,
    SliceSpec,
)
from flowos.model.units import Amounts, engine_unit, host_unit, lane_unit, share_unit
from flowos.model.view import CellView

SUM = Bitstream("sum", "sha256:aa", "fpga", ("U250",))
SORT = Bitstream("sort", "sha256:bb", "fpga")


def small_cell(dice: Random, *, engines_max: int = 12) -> Cell:
    """1..3 leaves, 1..4 nodes a leaf, 1..4 engines a node, few lanes; sometimes no switch at all."""
    cell = Cell()
    cell.add(SUM)
    cell.add(SORT)
    leaves = [f"l{n}" for n in range(dice.choice([1, 1, 2, 2, 2, 3]))]
    switched = dice.random() < 0.93
    spine = switched and len(leaves) > 1 and dice.random() < 0.6
    if switched:
        for leaf in leaves:
            cell.add(Switch(leaf, latency_ns=dice.choice([50, 100])))
        if spine:
            cell.add(Switch("s0", latency_ns=100, tier=1))

    def join(a: str, b: str, lanes: int) -> None:
        n = len(cell.links)
        a, b = (b, a) if dice.random() < 0.5 else (a, b)
        cell.add(Link(f"k{n}", f"{a}:{n}", f"{b}:{n}", lanes, latency_ns=dice.choice([10, 10, 60])))

    if spine:
        for leaf in leaves:
            for _ in range(dice.choice([1, 1, 1, 2])):
                join(leaf, "s0", dice.choice([1, 1, 2, 3]))
    if switched and len(leaves) > 1 and (not spine or dice.random() < 0.3):
        for a, b in pairwise(leaves):
            join(a, b, dice.choice([1, 2, 2]))
    number = 0
    for leaf in leaves:
        for _ in range(dice.choice([1, 2, 2, 2, 3, 4])):
            if len(cell.engines) >= engines_max:
                break
            name = f"n{number}"
            number += 1
            cpu, memory = dice.choice([2000, 4000, 4000]), dice.choice([4, 8])
            limit = dice.choice([0, 0, 1, 2])
            cell.add(Node(name, cpu, memory, rack=leaf, devices_max=limit))
            if switched and dice.random() < 0.5:
                join(name, leaf, 1)
            fpga = number % 3 == 1 and dice.random() < 0.8
            shareable = dice.random() < 0.8
            model = dice.choice(["A100", "A100", "A100", "H100"])
            for e in range(min(dice.choice([1, 2, 2, 2, 3, 4]), engines_max - len(cell.engines))):
                cell.add(
                    Engine(
                        name, f"e{e}", "fpga" if fpga else "gpu",
                        dice.choice(["U250", "U250", "U50"]) if fpga else model,
                        shareable=shareable, loads_bitstreams=fpga,
                    )
                )  # fmt: skip
                if switched:
                    for _ in range(dice.choice([0, *[1] * 12, 2, 2])):
                        at = dice.choice(leaves) if dice.random() < 0.1 else leaf
                        join(f"{name}/e{e}", at, dice.choice([1, 1, 2]))
                if e and dice.random() < 0.05:
                    join(f"{name}/e{e}", f"{name}/e{e - 1}", 1)
    return cell


def small_view(seed: int, *, engines_max: int = 12) -> CellView:
    """A small cell in which some things are held, off, drained, unhealthy or waited for."""
    dice = Random(seed)
    view = CellView(cell=small_cell(dice, engines_max=engines_max))
    cell = view.cell
    busy = dice.choice([0.0, 0.3, 0.5, 0.7, 0.8])

    def hold(by: str, held: dict[str, Amounts], bitstreams: dict[str, str] | None = None) -> None:
        view.assume(by, Placement(1, f"at {by}", held=held, bitstreams=bitstreams or {}))

    held_by: dict[str, dict[str, Amounts]] = {}
    loaded: dict[str, dict[str, str]] = {}
    for name, engine in cell.engines.items():
        if dice.random() >= busy:
            continue
        unit, by = engine_unit(name), f"other/s{dice.randint(0, 3)}"
        match dice.choice(["held", "held", "held", "off", "part", "part", "wanted"]):
            case "off":
                hold(f"~off/{unit}", {unit: ()})
            case "part" if engine.shareable:
                held_by.setdefault(by, {})[share_unit(name)] = (dice.choice([300, 600]),)
                if engine.loads_bitstreams and dice.random() < 0.7:
                    loaded.setdefault(by, {})[name] = dice.choice([SUM, SORT]).reference
            case "wanted":
                view.assume(f"~drain/{unit}", Placement(0, f"d {unit}", wanted=(unit,)))
            case _:
                held_by.setdefault(by, {})[unit] = ()
    for node in cell.nodes.values():
        if dice.random() < busy / 2:
            by = f"other/s{dice.randint(0, 3)}"
            amounts = (dice.choice([1000, 2000]), dice.choice([0, 2, 4]))
            attached = (1,) if node.devices_max and dice.random() < 0.5 else ()
            held_by.setdefault(by, {})[host_unit(node.name)] = (*amounts, *attached)
    # A port of an engine that is held whole is nobody else's: its lanes are claimed by nobody.
    whole = {unit[7:] for held in held_by.values() for unit in held if unit.startswith("engine/")}
    for link in cell.links.values():
        for direction in ("fwd", "rev"):
            for lane in range(link.lanes):
                engine_ends = {link.a_thing, link.b_thing} & cell.engines.keys()
                if engine_ends & whole or (engine_ends and dice.random() < 0.8):
                    continue
                if dice.random() < busy / 3:
                    by = f"other/s{dice.randint(0, 3)}"
                    held_by.setdefault(by, {})[lane_unit(link.name, direction, lane)] = ()
    for by, held in held_by.items():
        hold(by, held, loaded.get(by))
    for unit, chance in [
        *((f"node/{n}", 0.05) for n in cell.nodes),
        *((f"switch/{n}", 0.06) for n in cell.switches),
        *((f"link/{n}", 0.03) for n in cell.links),
    ]:
        if dice.random() < chance:
            hold(f"~{dice.choice(['drain', 'quarantine'])}/{unit}", {unit: ()})
    return view


def small_request(seed: int) -> SliceSpec:
    """One or two roles, sometimes with hosts, choices, shares, bitstreams, circuits and bounds."""
    dice = Random(seed)
    roles = ["a", "b"][: dice.choice([0, 1, 1, 1, 1, 1, 2, 2, 2, 2])]
    joined = dice.random() < 0.6

    def choice() -> EngineChoice:
        kind = dice.choice(["gpu", "gpu", "gpu", "", "fpga"])
        bitstream = dice.choice(["", "sum", "sort", "sort"]) if kind == "fpga" else ""
        share = dice.choice([1000, 1000, 1000, 1000, 400, 700])
        count = dice.choice([1, 1, 2, 2, 2, 3, 4]) if share == 1000 else 1
        if len(roles) > 1:
            count = min(count, 2)
        models = dice.choice([*[()] * 6, ("A100",), ("H100",)]) if kind == "gpu" else ()
        return EngineChoice(kind, models, count, share, bitstream=bitstream)

    hosts: dict[str, HostRole] = {}
    for role in roles:
        if dice.random() < 0.25:
            hosts[role] = HostRole(dice.choice([0, 1000, 2000]), dice.choice([0, 2]))
    if not roles or dice.random() < 0.2:
        hosts["d"] = HostRole(dice.choice([1000, 2000, 3000]), 1, dice.choice([1, 1, 2]))
    circuits: list[CircuitWish] = []
    ends = [*roles, *(["d"] if "d" in hosts else [])]
    if joined and ends:
        lanes = dice.choice([1, 1, 1, 1, 2])
        if len(ends) > 1 and dice.random() < 0.6:
            source, target = dice.sample(ends, 2)
            circuits.append(CircuitWish(Shape.FLOW, (source, target), lanes))
        elif roles:
            circuits.append(CircuitWish(Shape.RING, (dice.choice(roles),), lanes))
        if roles and dice.random() < 0.2:
            shape = dice.choice([Shape.STAR, Shape.ALL, Shape.RING])
            circuits.append(CircuitWish(shape, (dice.choice(roles),), 1))
    engines = {
        role: EngineRole(tuple(choice() for _ in range(dice.choice([1, 1, 1, 1, 2]))))
        for role in roles
    }
    least = min((c.count for wish in engines.values() for c in wish.choices), default=0)
    if joined and roles and least > 2 and dice.random() < 0.5:
        # The first rank to all others: one engine needs more port lanes than the rest.
        links = tuple((0, rank) for rank in range(1, least))
        circuits = [CircuitWish(Shape.EXPLICIT, (roles[0],), links=links)]
    by_rank = some_ranks(Random(f"ranks of {seed}"), engines) if joined else None
    if by_rank is not None:
        circuits = [by_rank]
    return SliceSpec(
        "t",
        engines=engines,
        hosts=hosts,
        together={role: dice.choice(["any", "any", "node", "switch"]) for role in roles},
        circuits=tuple(circuits),
        constraints=Constraints(
            dice.choice([0, 0, 0, 0, 0, 2, 3, 4]),
            dice.choice([0, 0, 0, 0, 0, 250, 400]),
            dice.choice(["pack", "pack", "spread", "rack"]),
        ),
    )


def some_ranks(dice: Random, engines: Mapping[str, EngineRole]) -> CircuitWish | None:
    """Wish circuits between any ranks of several roles; None = rather not.

    Its chance is of its own, so that what was drawn of a seed before there was this stays so.
    """
    known = {
        role: wish.choices[0].count
        for role, wish in engines.items()
        if len({choice.count for choice in wish.choices}) == 1
    }
    ranks = range(sum(known.values()))
    if len(ranks) < 2 or dice.random() < 0.7:
        return None
    pairs = [(a, b) for a in ranks for b in ranks if a != b]
    links = tuple(dice.sample(pairs, dice.randint(1, min(len(pairs), 4))))
    return CircuitWish(Shape.EXPLICIT, tuple(known), links=links, multicast=dice.random() < 0.5)
