"""Whether a slice runs beside its data on a slower engine, or moves the data to a faster one."""

import random
from dataclasses import replace

import pytest

from flowos.model.cell import Bitstream, Engine, Switch, Thing, Watts
from flowos.model.placement import Decision, Unplaceable
from flowos.model.rules import PlannerRules
from flowos.model.slice import (
    Constraints,
    Data,
    EngineChoice,
    EngineRole,
    HostRole,
    Reason,
    SliceSpec,
    Work,
)
from flowos.planning.affinity.told import described
from flowos.planning.affinity.weighed import narrowed_to, options_of
from flowos.planning.engines.pool import Pool
from flowos.planning.place import plan
from tests.unit.planning.cells import (
    hold,
    hold_part,
    load,
    node,
    placed,
    ports,
    power_off,
    refused,
    ring,
    trunk,
    view_of,
    want,
)
from tests.unit.planning.laws import faults

GB = 10**9
SPEEDS = {"bert": {"H100": 9000.0, "U250": 1000.0}}
EITHER = EngineRole((EngineChoice("gpu", ("H100",)), EngineChoice("fpga", ("U250",))))
SUM = Bitstream("sum", "sha256:" + "a" * 64, load_seconds=12.0)


def disk(on, **more):
    return Engine(on, "nvme0", "nvme", "P3500", watts=Watts(0, 4, 25), **more)


def fpgas(on, count):
    made = [f"fpga{n}" for n in range(count)]
    return [
        Engine(on, name, "fpga", "U250", loads_bitstreams=True, watts=Watts(0, 34, 225))
        for name in made
    ]


def h100s(on, count):
    return [Engine(on, f"gpu{n}", "gpu", "H100", watts=Watts(0, 105, 700)) for n in range(count)]


def cell(*, lanes=4, shareable=False, attached=True, **rules):
    """FPGAs and a disk on n3, H100s on n9, each on a leaf of its own; 100 Gb/s a lane."""
    near, far, store = fpgas("n3", 2), h100s("n9", 2), disk("n3", shareable=shareable)
    view = view_of(
        Switch("s0"),
        Switch("s1"),
        SUM,
        node("n3", store, *near),
        node("n9", *far),
        ports([store, *near], "s0", lanes=lanes),
        ports(far, "s1", lanes=lanes),
        trunk("s0", "s1", lanes=lanes),
    )
    if attached:
        port = replace(trunk("s0", "n3", lanes=lanes), b="n3:0", name="n3-port")
        view.cell.add(port)
    view.planner = PlannerRules(**{"speeds": SPEEDS, **rules})
    return view


def spec(size=40 * GB, *, at="n3/nvme0", amount=1e6, roles=None, work="bert", **more):
    return SliceSpec(
        "t",
        engines=roles or {"w": EITHER},
        data=(Data(at, size, "w", **more),) if at else (),
        work={"w": Work(work, amount)} if amount else {},
    )


def told(view, asked):
    pool = Pool(view)
    pool.fold()
    return described(pool, asked, lambda narrowed: plan(pool, narrowed))


def preferring(prefer, asked):
    return replace(asked, constraints=Constraints(prefer=prefer))


# -- the choice

# On the FPGA 1,000 s, on the H100 111.1 s and 0.08 s for each GB that moves: even at 11,110 GB.
EVEN = round((1000 - 1e6 / 9000 - 0.01) * 12.5) * GB


@pytest.mark.parametrize(
    ("size", "engine"),
    [(40 * GB, "n9/gpu0"), (EVEN - 2 * GB, "n9/gpu0"), (EVEN + 2 * GB, "n3/fpga0")],
)
def test_data_moves_until_moving_takes_longer_than_the_slower_engine(size, engine):
    decision = placed(cell(), spec(size))
    assert decision.engines == {"w": (engine,)}


def test_more_lanes_move_more_data_in_the_same_time():
    assert placed(cell(), spec(2 * EVEN)).engines == {"w": ("n3/fpga0",)}
    wide = placed(cell(), spec(2 * EVEN - 4 * GB, lanes=2))
    assert wide.engines == {"w": ("n9/gpu0",)}
    assert [circuit.lanes for circuit in wide.circuits] == [2]


def test_slowest_link_on_the_way_decides_how_fast_data_moves():
    view = cell()
    # Half of the even point is too much for a trunk of a third of the rate.
    view.cell.add(replace(trunk("s0", "s1", lanes=4), gbps=33.0))
    assert placed(view, spec(EVEN // 2)).engines == {"w": ("n3/fpga0",)}
    assert placed(cell(), spec(EVEN // 2)).engines == {"w": ("n9/gpu0",)}


def test_slow_disk_holds_up_whoever_reads_it():
    # 2,000 s to read at 20 Gb/s: beside the data just so, and elsewhere before the run.
    size = 5000 * GB
    view = cell()
    view.cell.add(replace(view.cell.engines["n3/nvme0"], attributes={"read_gbps": 20}))
    (account,) = told(view, spec(size))
    assert account.chosen is not None
    others = {line["engines"]: line for line in reversed(account.shown()["alternatives"])}
    assert others["1 H100"]["move_s"] == pytest.approx(2000)
    assert account.shown()["chosen"]["run_s"] == pytest.approx(2000)
    assert account.chosen.engines == "1 U250"
    assert placed(cell(), spec(size)).engines == {"w": ("n9/gpu0",)}


def test_engine_that_computes_on_its_own_memory_is_not_held_up_by_its_port():
    view = cell()
    slow = replace(view.cell.engines["n3/fpga1"], attributes={"read_gbps": 0.001})
    view.cell.add(slow)
    asked = spec(EVEN, at=slow.id, roles={"w": want(1, "fpga")})
    assert placed(view, asked).engines == {"w": (slow.id,)}
    (account,) = told(view, asked)
    assert account.shown()["chosen"]["run_s"] == pytest.approx(1000)


def test_role_beside_the_data_does_not_wait_for_the_role_that_has_it_brought():
    asked = spec(EVEN // 2, roles={"w": want(1, "fpga"), "v": want(1)})
    asked = replace(asked, data=(*asked.data, replace(asked.data[0], to="v")))
    beside, brought = told(cell(), asked)
    assert beside.shown()["chosen"]["move_s"] == 0
    assert brought.shown()["chosen"]["move_s"] == pytest.approx(EVEN / 2 / 12.5e9)


def test_more_work_is_worth_moving_more_data():
    assert placed(cell(), spec(2 * EVEN, amount=3e6)).engines == {"w": ("n9/gpu0",)}


def test_frugal_slice_stays_where_fewer_joules_are_drawn():
    # The H100 draws 78 kJ and the FPGA 229 kJ for this; with the H100 at 3 kW it is the other way.
    assert placed(cell(), preferring("frugal", spec())).engines == {"w": ("n9/gpu0",)}
    view = cell()
    view.cell.add(replace(view.cell.engines["n9/gpu0"], watts=Watts(0, 105, 3000)))
    view.cell.add(replace(view.cell.engines["n9/gpu1"], watts=Watts(0, 105, 3000)))
    assert placed(view, preferring("frugal", spec())).engines == {"w": ("n3/fpga0",)}
    assert placed(view, preferring("fastest", spec())).engines == {"w": ("n9/gpu0",)}
    assert placed(view, spec()).engines == {"w": ("n9/gpu0",)}


def test_operator_says_how_many_seconds_a_joule_is_worth():
    # The H100 saves 886 s and draws about 105 kJ more: a joule is even at 8.4 ms.
    for worth, engine in ((0.005, "n9/gpu0"), (0.012, "n3/fpga0")):
        view = cell(joule_seconds=worth)
        for name in ("n9/gpu0", "n9/gpu1"):
            view.cell.add(replace(view.cell.engines[name], watts=Watts(0, 105, 3000)))
        assert placed(view, spec()).engines == {"w": (engine,)}
        assert placed(view, preferring("fastest", spec())).engines == {"w": ("n9/gpu0",)}


def test_engine_that_must_be_woken_first_is_that_much_later():
    view = cell(wake_seconds=2000.0)
    for name in ("n9/gpu0", "n9/gpu1"):
        power_off(view, name)
    assert placed(view, spec()).engines == {"w": ("n3/fpga0",)}
    assert placed(cell(wake_seconds=2000.0), spec()).engines == {"w": ("n9/gpu0",)}


def test_bitstream_that_must_be_loaded_counts_as_set_up():
    beside = EngineChoice("fpga", ("U250",), bitstream="sum")
    roles = {"w": EngineRole((EngineChoice("gpu", ("H100",)), beside))}
    # Without loading the FPGA is 6 s ahead, loading takes 12 s.
    asked = spec(EVEN + 75 * GB, roles=roles)
    assert placed(cell(), asked).engines == {"w": ("n9/gpu0",)}
    view = cell()
    load(view, "n3/fpga1", SUM)
    assert placed(view, asked).engines == {"w": ("n3/fpga1",)}


def test_work_of_several_engines_is_parted():
    roles = {
        "w": EngineRole((EngineChoice("gpu", ("H100",)), EngineChoice("fpga", ("U250",), count=2)))
    }
    # Two FPGAs take 500 s, so that is even at less data.
    assert placed(cell(), spec(EVEN * 3 // 5, roles=roles)).engines == {
        "w": ("n3/fpga0", "n3/fpga1")
    }


def test_models_of_one_choice_are_told_apart_by_their_speed():
    view = view_of(
        node("n0", Engine("n0", "gpu0", "gpu", "T4")), node("n1", Engine("n1", "gpu0", "gpu", "B"))
    )
    asked = SliceSpec("t", engines={"w": want(1)}, work={"w": Work("bert", 10.0)})
    for fast, engine in (("T4", "n0/gpu0"), ("B", "n1/gpu0")):
        view.planner = PlannerRules(speeds={"bert": {"T4": 1.0, "B": 1.0, fast: 2.0}})
        assert placed(view, asked).engines == {"w": (engine,)}


def test_option_of_unknown_speed_comes_after_those_that_are_known():
    known_last = {"bert": {"U250": 1.0}}
    assert placed(cell(speeds=known_last), spec(0)).engines == {"w": ("n3/fpga0",)}
    # The H100 is the user's first choice, and nobody knows how fast anything is.
    for asked in (spec(EVEN * 9, work="else"), spec(EVEN * 9, amount=0)):
        assert placed(cell(), asked).engines == {"w": ("n9/gpu0",)}


def test_role_of_known_speed_is_worth_more_than_the_order_of_one_that_is_unknown():
    view = view_of(
        node("n0", Engine("n0", "gpu0", "gpu", "H100"), Engine("n0", "asic0", "asic", "X")),
        node("n1", Engine("n1", "gpu0", "gpu", "T4")),
    )
    view.planner = PlannerRules(speeds={"bert": {"H100": 1.0}})
    first, second = EngineChoice("gpu", ("H100",)), EngineChoice("asic")
    roles = {"v": EngineRole((first, second)), "w": want(1)}
    works = {"v": Work("else", 1.0), "w": Work("bert", 1.0)}
    decision = placed(view, SliceSpec("t", engines=roles, work=works))
    assert decision.engines == {"v": ("n0/asic0",), "w": ("n0/gpu0",)}


def test_what_others_take_is_seen_by_the_next_plan_of_the_same_pool():
    view = cell()
    pool = Pool(view)
    asked = spec(EVEN * 2)
    for engines in (("n3/fpga0",), ("n3/fpga1",), ("n9/gpu0",)):
        decision = plan(pool, asked)
        assert isinstance(decision, Decision)
        assert decision.engines == {"w": engines}
        hold(view, f"engine/{engines[0]}", by=f"other/{engines[0][-5:]}")


def test_engine_that_two_roles_read_from_is_computed_on_by_neither():
    asked = spec(EVEN * 2, at="n3/fpga1", roles={"w": want(1, "fpga"), "v": EITHER})
    asked = replace(asked, data=(*asked.data, Data("n3/fpga1", GB, "v")))
    view = cell()
    decision = placed(view, asked)
    assert decision.engines == {"w": ("n3/fpga0",), "v": ("n9/gpu0",)}
    assert {option.at for option in options_of(Pool(view), asked, {})["w"]} == {"n3", ""}
    assert "engine/n3/fpga1" in decision.units


def test_among_like_engines_those_beside_the_data_are_taken():
    near, far = [Engine(n, "gpu0", "gpu", "A100") for n in ("n3", "n9")]
    view = view_of(
        Switch("s0"), node("n3", disk("n3"), near), node("n9", far),
        ports([disk("n3"), near, far], "s0"),
    )  # fmt: skip
    decision = placed(view, spec(GB, amount=0, roles={"w": want(1)}))
    assert decision.engines == {"w": ("n3/gpu0",)}
    assert not decision.circuits
    hold(view, "engine/n3/gpu0")
    moved = placed(view, spec(GB, amount=0, roles={"w": want(1)}))
    assert moved.engines == {"w": ("n9/gpu0",)}
    assert [(c.source, c.targets) for c in moved.circuits] == [("n3/nvme0", ("n9/gpu0",))]


def test_same_leaf_as_the_data_is_preferred_over_one_farther_off():
    far, near = h100s("n1", 1), h100s("n5", 1)
    store = disk("n3")
    view = view_of(
        Switch("s0"), Switch("s1"), node("n1", *far), node("n3", store), node("n5", *near),
        ports([store, *near], "s1"), ports(far, "s0"), trunk("s0", "s1"),
    )  # fmt: skip
    asked = spec(amount=0, roles={"w": want(1)})
    assert placed(view, asked).engines == {"w": ("n5/gpu0",)}


def test_same_leaf_is_preferred_for_the_data_of_a_node_too():
    far, near, there = h100s("n1", 1), h100s("n5", 1), fpgas("n3", 1)
    view = view_of(
        Switch("s0"), Switch("s1"), node("n1", *far), node("n3", *there), node("n5", *near),
        ports([*there, *near], "s1"), ports(far, "s0"), trunk("s0", "s1"),
        replace(trunk("s1", "n3"), b="n3:0", name="n3-port"),
    )  # fmt: skip
    decision = placed(view, spec(at="n3", amount=0, roles={"w": want(1)}))
    assert decision.engines == {"w": ("n5/gpu0",)}
    assert [len(circuit.arcs) for circuit in decision.circuits] == [2]


# -- what is held


def test_slice_holds_the_engine_that_its_data_is_on_and_runs_nothing_there():
    for size, circuits in ((40 * GB, 1), (EVEN * 2, 0)):
        decision = placed(cell(), spec(size))
        assert "engine/n3/nvme0" in decision.units
        assert list(decision.engines) == ["w"]
        assert len(decision.circuits) == circuits


def test_share_of_a_disk_lets_others_read_it_too():
    view = cell(shareable=True)
    decision = placed(view, spec(share_millis=400))
    assert decision.units["share/n3/nvme0"] == (400,)
    # The port's lanes are not the slice's own then.
    assert any(unit.startswith("lane/n3-nvme0/") for unit in decision.units)
    hold_part(view, "share/n3/nvme0", 700)
    answer = refused(view, spec(share_millis=400))
    assert answer.reason is Reason.WAITING_FOR_ENGINES


def test_data_of_a_node_comes_over_its_attachment_port():
    decision = placed(cell(), spec(at="n3"))
    assert [(c.source, c.targets) for c in decision.circuits] == [("n3", ("n9/gpu0",))]
    assert decision.units["host/n3"] == (0, 0)
    assert decision.hosts == {}
    beside = placed(cell(), spec(EVEN * 2, at="n3"))
    assert beside.engines == {"w": ("n3/fpga0",)}
    assert beside.hosts == {}


def test_data_in_an_engine_is_computed_on_where_it_is():
    decision = placed(cell(), spec(EVEN * 2, at="n3/fpga1"))
    assert decision.engines == {"w": ("n3/fpga1",)}
    assert set(decision.units) == {"engine/n3/fpga1"}
    moved = placed(cell(), spec(at="n3/fpga1"))
    assert moved.engines == {"w": ("n9/gpu0",)}
    assert "engine/n3/fpga1" in moved.units


def test_several_engines_get_the_data_by_one_tree():
    roles = {"w": want(2, models=("H100",))}
    decision = placed(cell(), spec(roles=roles))
    (circuit,) = decision.circuits
    assert set(circuit.targets) == {"n9/gpu0", "n9/gpu1"}


def test_circuits_of_the_user_keep_their_numbers():
    asked = spec(roles={"w": want(2, models=("H100",))})
    asked = replace(asked, circuits=(ring("w"),))
    decision = placed(cell(), asked)
    assert [(c.id, c.source) for c in decision.circuits] == [
        ("t/0", "n9/gpu0"),
        ("t/1", "n9/gpu1"),
        ("t/2", "n3/nvme0"),
    ]


# -- refusals


def test_data_on_an_engine_that_somebody_holds_is_waited_for_by_name():
    view = cell()
    hold(view, "engine/n3/nvme0", by="vision/train")
    answer = refused(view, spec())
    assert answer.reason is Reason.WAITING_FOR_ENGINES
    assert "n3/nvme0" in answer.sentence
    assert "vision/train" in answer.sentence


def test_data_for_a_role_that_is_not_there_is_never_placed():
    asked = replace(spec(), data=(Data("n3/nvme0", GB, "x"),))
    assert refused(cell(), asked).reason is Reason.INFEASIBLE
    assert refused(cell(), replace(spec(), work={"x": Work("bert", 1.0)})).reason is (
        Reason.INFEASIBLE
    )


@pytest.mark.parametrize("at", ["n3/nvme7", "n77", "n77/nvme0"])
def test_data_where_the_cell_has_nothing_is_never_placed(at):
    answer = refused(cell(), spec(at=at))
    assert answer.reason is Reason.INFEASIBLE
    assert at in answer.sentence


def test_data_on_a_node_out_of_service_waits_for_the_node():
    view = cell()
    hold(view, "node/n3", by="~drain/node/n3")
    answer = refused(view, spec(at="n3"))
    assert answer.reason is Reason.WAITING_FOR_ENGINES
    assert "~drain/node/n3" in answer.sentence


def test_of_all_options_that_fail_the_nearest_is_told():
    view = cell()
    hold(view, "engine/n3/fpga0", "engine/n3/fpga1")
    taken = {f"lane/s0-s1/fwd/{n}": () for n in range(4)}
    hold(view, *taken, by="other/lanes")
    answer = refused(view, spec())
    assert answer.reason is Reason.NO_CIRCUIT
    assert answer.sentence.startswith("none of ")
    hold(view, "engine/n9/gpu0", "engine/n9/gpu1", by="other/gpus")
    assert refused(view, spec()).reason is Reason.WAITING_FOR_ENGINES


def test_option_that_never_could_be_is_not_the_nearest():
    view = cell()
    hold(view, "engine/n3/fpga0", "engine/n3/fpga1")
    never = EngineChoice("gpu", ("H100",), count=5)
    roles = {"w": EngineRole((never, EngineChoice("fpga")))}
    assert refused(view, spec(roles=roles)).reason is Reason.WAITING_FOR_ENGINES
    assert refused(view, spec(roles={"w": EngineRole((never,))})).reason is Reason.INFEASIBLE


def test_without_lanes_the_slower_engine_beside_the_data_is_taken():
    view = cell()
    hold(view, *[f"lane/s0-s1/fwd/{n}" for n in range(4)])
    assert placed(view, spec()).engines == {"w": ("n3/fpga0",)}


def test_node_without_attachment_port_keeps_its_data():
    assert placed(cell(attached=False), spec(at="n3")).engines == {"w": ("n3/fpga0",)}


def test_condition_of_the_users_that_excludes_the_data_s_node_holds():
    roles = {"w": want(1, "", node="n9")}
    assert placed(cell(), spec(EVEN * 3, roles=roles)).engines == {"w": ("n9/gpu0",)}


# -- the laws, on random cells


def random_case(seed):
    chance = random.Random(seed)
    things: list[Thing] = [Switch(f"s{n}") for n in range(3)]
    engines = []
    for number in range(6):
        name = f"n{number}"
        here = [disk(name, shareable=chance.random() < 0.5)]
        here += fpgas(name, chance.randrange(3)) + h100s(name, chance.randrange(3))
        things += [*node(name, *here), *ports(here, f"s{number % 3}", lanes=chance.randint(1, 3))]
        engines += here
    for a, b in ((0, 1), (1, 2), (0, 2)):
        things.append(trunk(f"s{a}", f"s{b}", lanes=chance.randint(1, 2)))
    view = view_of(*things)
    view.planner = PlannerRules(speeds=SPEEDS)
    for engine in engines:
        if chance.random() < 0.3:
            hold(view, f"engine/{engine.id}", by=f"other/{engine.id.replace('/', '-')}")
        elif chance.random() < 0.1:
            power_off(view, engine.id)
    roles = {
        role: chance.choice(
            [EITHER, want(chance.randint(1, 3)), want(1, "fpga"), want(chance.randint(1, 2), "")]
        )
        for role in ("w", "v")[: chance.randint(1, 2)]
    }
    places = {
        (chance.choice([engine.id for engine in engines]), chance.choice(list(roles)))
        for _ in range(chance.randint(1, 2))
    }
    data = tuple(
        Data(at, chance.choice([GB, EVEN, EVEN * 2]), to, lanes=chance.choice([1, 1, 2]))
        for at, to in sorted(places)
    )
    work = {"w": Work("bert", 1e6)} if chance.random() < 0.7 else {}
    return view, SliceSpec("t", engines=roles, data=data, work=work)


@pytest.mark.parametrize("seed", range(60))
def test_every_option_that_is_planned_keeps_the_laws(seed):
    view, asked = random_case(seed)
    pool = Pool(view)
    found = plan(pool, asked)
    options = options_of(pool, asked, {})
    chance = random.Random(seed)
    picked = {role: chance.choice(mine) for role, mine in options.items()}
    narrowed, added = narrowed_to(view.cell, asked, picked)
    decision = plan(pool, narrowed)
    if isinstance(decision, Decision):
        assert faults(view, narrowed, decision) == []
        assert isinstance(found, Decision), "one option can be had, so the best of all can"
    if isinstance(found, Decision):
        assert set(found.engines) == set(asked.engines)
        for data in asked.data:
            held = f"engine/{data.at}" in found.units
            assert held, "what data is read from is the slice's"
            node_of_data = data.at.partition("/")[0]
            away = [e for e in found.engines[data.to] if e.partition("/")[0] != node_of_data]
            reached = {
                target
                for circuit in found.circuits
                if circuit.source == data.at
                for target in circuit.targets
            }
            assert set(away) <= reached
    assert added <= {f"data at {data.at}" for data in asked.data}


@pytest.mark.parametrize("seed", range(25))
def test_chosen_option_is_the_least_of_all_that_can_be_had(seed):
    view, asked = random_case(seed)
    asked = replace(
        asked,
        engines={"w": EITHER},
        data=tuple(replace(data, to="w") for data in asked.data[:1]),
        work={"w": Work("bert", 1e6)},
    )
    (account,) = told(view, asked) or (None,)
    if account is None or account.chosen is None:
        assert isinstance(plan(Pool(view), asked), Unplaceable)
        return
    assert account.chosen.costs is not None
    others = [line.costs.seconds for line in account.others if line.costs is not None]
    assert account.chosen.costs.seconds <= min(others, default=1e99) + 1e-9


# -- what is told


def test_description_names_the_choice_and_what_the_others_would_take():
    (account,) = told(cell(), spec())
    assert account.sentence() == (
        "w: 1 H100 over a circuit: 40 GB move in 3.2 s, it runs 111 s; "
        "1 U250 beside the data on n3 would take 1,000 s; 1 U250 over a circuit would take 1,003 s"
    )
    shown = account.shown()
    assert shown["chosen"]["seconds"] == pytest.approx(0.01 + 3.2 + 1e6 / 9000, abs=0.01)
    # Idle from placement to end, busy while it runs; the disk is busy while it is read.
    run = 1e6 / 9000
    joules = 105 * (3.21 + run) + 595 * run + 4 * (3.21 + run) + 21 * 3.2
    assert shown["chosen"]["joules"] == pytest.approx(joules, rel=1e-4)
    assert [line["place"] for line in shown["alternatives"]] == [
        "beside the data on n3",
        "over a circuit",
    ]


def test_description_says_why_an_option_cannot_be_had():
    view = cell()
    hold(view, "engine/n9/gpu0", "engine/n9/gpu1")
    (account,) = told(view, spec(estimated=True))
    assert account.chosen is not None
    assert account.chosen.engines == "1 U250"
    (line,) = [line for line in account.others if line.engines == "1 H100"]
    assert line.costs is None
    assert "0 are free" in line.why
    assert line.estimated


def test_data_in_both_places_moves_only_from_the_one_farther_off():
    view = cell()
    other = disk("n9")
    view.cell.add(other)
    for link in ports([other], "s1"):
        view.cell.add(link)
    asked = spec(1 * GB)
    asked = replace(asked, data=(*asked.data, Data("n9/nvme0", 900 * GB, "w")))
    decision = placed(view, asked)
    assert decision.engines == {"w": ("n9/gpu0",)}
    assert [c.source for c in decision.circuits] == ["n3/nvme0"]
    assert {"engine/n3/nvme0", "engine/n9/nvme0"} <= set(decision.units)


def test_role_of_hosts_on_one_node_gets_that_node_or_none():
    view = view_of(node("n0", cpu=8, memory=8), node("n1", cpu=4, memory=8))
    asked = SliceSpec("t", hosts={"d": HostRole(4000, count=1, at="n1")})
    assert placed(view, asked).hosts == {"d": ("n1",)}
    hold_part(view, "host/n1", 1000, 0)
    assert refused(view, asked).reason is not Reason.INFEASIBLE
    never = replace(asked, hosts={"d": HostRole(5000, count=1, at="n1")})
    assert refused(view, never).reason is Reason.INFEASIBLE
