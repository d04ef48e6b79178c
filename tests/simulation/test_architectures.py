"""Do the architectures that are compared behave as stated, in cases that can be computed by hand?"""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from flowos.model.cell import Cell, Engine, Link, Node, Switch, Watts
from flowos.model.errors import SpecError
from flowos.model.slice import (
    CircuitWish,
    EngineChoice,
    EngineRole,
    HostRole,
    Shape,
    SliceSpec,
)
from flowos.simulation.architectures.measured import Figures
from flowos.simulation.architectures.run import run
from flowos.simulation.architectures.setup import (
    Architecture,
    Dealing,
    Devices,
    OfferRules,
    PowerRules,
    Setup,
)
from flowos.simulation.full.setup import Arrival
from flowos.simulation.light.schedulers import Pace

AT_ONCE = Pace(0.0, 0.0)
FIRST_OFFER_S = 1.001  # a batch, and the allocator's time


def nodes_of(*counts: int) -> Cell:
    """Return nodes with so many GPUs each, and nothing between them."""
    cell = Cell()
    for number, count in enumerate(counts):
        cell.add(Node(f"n{number}", cpu_millis=8000, memory_bytes=1 << 34))
        for engine in range(count):
            side = {"side": number}
            cell.add(
                Engine(f"n{number}", f"g{engine}", "gpu", watts=Watts(1, 10, 100), attributes=side)
            )
    return cell


def pooled(hosts: int, devices: int) -> Cell:
    """Return hosts and boxes of one GPU each around one switch."""
    cell = Cell()
    cell.add(Switch("sw", ports=hosts + devices))
    for number in range(hosts):
        cell.add(Node(f"h{number}", cpu_millis=8000, memory_bytes=1 << 34))
        cell.add(Link(f"h{number}-sw", f"h{number}:0", f"sw:{number}", lanes=8))
    for number in range(devices):
        cell.add(Node(f"b{number}"))
        cell.add(Engine(f"b{number}", "g0", "gpu", watts=Watts(1, 10, 100)))
        cell.add(Link(f"b{number}-sw", f"b{number}/g0:0", f"sw:{hosts + number}", lanes=8))
    return cell


def gang(
    at_s: float, gpus: int, runs_s: float, policy: str = "x", where: Mapping[str, str] | None = None
) -> Arrival:
    choice = EngineChoice("gpu", count=gpus, where=where or {})
    return Arrival(
        at_s, SliceSpec("s", policy=policy, engines={"w": EngineRole((choice,))}), runs_s
    )


def attached(at_s: float, gpus: int, runs_s: float, policy: str = "x") -> Arrival:
    spec = SliceSpec(
        "s",
        policy=policy,
        engines={"w": EngineRole((EngineChoice("gpu", count=gpus),))},
        hosts={"driver": HostRole(1000, 1 << 30, 1)},
        circuits=(CircuitWish(Shape.FLOW, ("driver", "w")),),
    )
    return Arrival(at_s, spec, runs_s)


def offers(
    cell: Cell,
    arrivals: list[Arrival],
    *,
    seconds: float = 100.0,
    devices: Devices = "own",
    dealing: Dealing = "whole",
    hold_s: float = 0.0,
    paces: Mapping[str, Pace] | None = None,
) -> Figures:
    rules = OfferRules(devices, dealing, hold_s=hold_s)
    paces = paces or {"x": AT_ONCE}
    return run(Setup(cell, "offers", paces, seconds, offers=rules), arrivals)


def central(
    cell: Cell,
    architecture: Architecture,
    arrivals: list[Arrival],
    paces: Mapping[str, Pace],
    *,
    seconds: float = 100.0,
    starving_s: float = 10.0,
    power: PowerRules | None = None,
) -> Figures:
    setup = Setup(
        cell, architecture, paces, seconds, starving_s=starving_s, power=power or PowerRules()
    )
    return run(setup, arrivals)


# -- hoarding


def test_gang_that_holds_keeps_what_it_was_offered_until_the_rest_comes() -> None:
    found = offers(nodes_of(1, 1), [gang(0, 1, 50), gang(0, 2, 5)], hold_s=1000)
    # The first has its engine from the first offer on; the gang keeps the other one. The first ends
    # at 51.001, and a second and a millisecond later the gang is offered what is left.
    whole_at = 2 * FIRST_OFFER_S + 50
    assert found.waits == pytest.approx([FIRST_OFFER_S, whole_at])
    assert found.hoarded_engine_s == pytest.approx(whole_at - FIRST_OFFER_S)
    assert found.gave_up == 0


def test_gang_that_refuses_keeps_nothing() -> None:
    found = offers(nodes_of(1, 1), [gang(0, 1, 50), gang(0, 2, 5)])
    assert found.placed == 2
    assert found.hoarded_engine_s == 0


def test_gang_gives_back_what_it_kept_when_the_rest_does_not_come_in_time() -> None:
    found = offers(nodes_of(1, 1), [gang(0, 1, 500), gang(0, 2, 5)], hold_s=20, seconds=22)
    assert found.gave_up == 1
    assert found.hoarded_engine_s == pytest.approx(20)


def test_two_gangs_that_hold_half_each_stand_in_each_others_way() -> None:
    arrivals = [gang(0, 2, 5, "x"), gang(0, 2, 5, "y")]
    paces = {"x": AT_ONCE, "y": AT_ONCE}
    stuck = offers(nodes_of(1, 1), arrivals, dealing="nodes", hold_s=1000, paces=paces)
    assert stuck.placed == 0
    assert stuck.hoarded_engine_s == pytest.approx(2 * (100 - FIRST_OFFER_S))
    loose = offers(nodes_of(1, 1), arrivals, dealing="nodes", hold_s=10, paces=paces)
    assert loose.placed == 2
    shared = central(nodes_of(1, 1), "shared-live", arrivals, paces)
    assert shared.placed == 2
    assert shared.hoarded_engine_s == 0


# -- information hiding


def test_gang_whose_only_place_lies_in_two_frameworks_offers_is_counted() -> None:
    arrivals = [gang(0, 2, 5, "x"), gang(0, 2, 5, "y")]
    found = offers(nodes_of(1, 1), arrivals, dealing="nodes", paces={"x": AT_ONCE, "y": AT_ONCE})
    assert found.placed == 0  # each second each sees one node, and refuses it
    assert found.only_outside == 1.0
    assert found.withheld > 0.9


def test_nothing_is_hidden_from_whoever_is_offered_everything() -> None:
    found = offers(nodes_of(1, 1), [gang(0, 2, 5), gang(0, 2, 5)])
    assert found.placed == 2
    assert found.only_outside == found.better_outside == 0


def test_place_on_two_nodes_is_worse_than_the_hidden_one_on_one() -> None:
    # Four nodes: one with two GPUs, three with one. Whoever is not dealt the first takes two nodes.
    arrivals = [gang(0, 2, 500, "x"), gang(0, 2, 500, "y")]
    found = offers(
        nodes_of(2, 1, 1, 1), arrivals, dealing="nodes", paces={"x": AT_ONCE, "y": AT_ONCE}
    )
    assert found.placed == 2
    assert found.better_outside == 0.5


# -- the proxy agent


def test_second_acceptance_of_one_optimistic_device_fails() -> None:
    paces = {"x": Pace(0.5, 0.0), "y": Pace(0.7, 0.0)}
    arrivals = [attached(0, 1, 20, "x"), attached(0, 1, 20, "y")]
    found = offers(pooled(2, 1), arrivals, devices="optimistic", dealing="nodes", paces=paces)
    assert found.failed == 1
    assert found.placed == 2


def test_pessimistic_device_is_offered_once_and_no_acceptance_fails() -> None:
    paces = {"x": Pace(0.5, 0.0), "y": Pace(0.7, 0.0)}
    arrivals = [attached(0, 1, 20, "x"), attached(0, 1, 20, "y")]
    found = offers(pooled(2, 1), arrivals, devices="pessimistic", dealing="nodes", paces=paces)
    assert found.failed == 0
    assert found.placed == 2


def test_devices_dealt_to_two_hosts_do_not_serve_a_slice_on_one() -> None:
    arrivals = [attached(0, 2, 20)]
    dealt = offers(pooled(2, 2), arrivals, devices="pessimistic")
    assert (dealt.placed, dealt.left) == (0, 1)
    for devices in ("optimistic", "own"):  # each host offers both; both boxes are offered
        assert offers(pooled(2, 2), arrivals, devices=devices).placed == 1


def test_device_dealt_to_another_host_is_not_used_until_it_is_dealt_anew() -> None:
    here = HostRole(1000, 1 << 30, 1, at="h0")
    arrivals = [
        arrival._replace(spec=replace(arrival.spec, hosts={"driver": here}))
        for arrival in (attached(0, 1, 50), attached(0, 1, 50))
    ]
    dealt = offers(pooled(2, 2), arrivals, devices="pessimistic")
    assert dealt.waits[0] == pytest.approx(FIRST_OFFER_S)
    assert 2 * FIRST_OFFER_S - 1e-6 <= dealt.waits[1] < 50
    all_named = offers(pooled(2, 2), arrivals, devices="optimistic")
    assert all_named.waits == pytest.approx([FIRST_OFFER_S, FIRST_OFFER_S])


def test_slice_without_a_host_is_refused_where_devices_come_with_hosts() -> None:
    with pytest.raises(SpecError, match="come with a host"):
        offers(pooled(1, 1), [gang(0, 1, 5)], devices="optimistic")


def test_locked_engines_are_those_in_offers_while_they_are_decided_on() -> None:
    found = offers(nodes_of(2), [gang(0, 1, 500)], paces={"x": Pace(10.0, 0.0)})
    # Both engines lie in the offer from 1 s until the answer at 11.001 s.
    assert found.locked == pytest.approx(2 * 10.001 / (2 * 100))


# -- stranding and energy


def test_engines_on_two_nodes_are_stranded_for_a_slice_that_needs_one() -> None:
    arrivals = [
        gang(0, 1, 500, where={"side": "0"}),
        gang(0, 1, 500, where={"side": "1"}),
        gang(0, 2, 5),
    ]
    together = arrivals[2].spec
    arrivals[2] = Arrival(
        0,
        SliceSpec("s", policy="x", engines=together.engines, together={"w": "node"}),
        5,
    )
    found = central(nodes_of(2, 2), "shared-live", arrivals, {"x": AT_ONCE})
    # Two of four engines, at each of the ten samples.
    assert found.stranded == pytest.approx(0.5)
    assert found.withheld == 0
    assert found.useful == pytest.approx(2 * (100 - 0.004) / 400, abs=1e-3)


def test_energy_is_that_of_engines_off_idle_and_busy() -> None:
    power = PowerRules(off_after_s=20, wake_s=5)
    for architecture in ("monolithic-single", "monolithic-multi", "shared-frozen"):
        found = central(
            nodes_of(1), architecture, [gang(50, 1, 30)], {"x": AT_ONCE}, seconds=120, power=power
        )
        idle, off, waking, busy = 20 + 20, 30 + 15, 5, 30
        assert found.joules == pytest.approx(10 * (idle + waking) + off + 100 * busy)
        assert found.useful_engine_s == pytest.approx(busy)
        assert found.waking == pytest.approx(waking / 120)
        assert found.wakes == 1


def test_engine_that_is_off_is_offered_and_woken_on_acceptance() -> None:
    setup = Setup(
        nodes_of(1),
        "offers",
        {"x": AT_ONCE},
        120,
        power=PowerRules(off_after_s=20, wake_s=5),
    )
    found = run(setup, [gang(50, 1, 30)])
    assert found.wakes == 1
    assert found.useful_engine_s == pytest.approx(30)
    woken = 50 + FIRST_OFFER_S
    assert found.joules == pytest.approx(
        10 * (20 + 5 + 20) + 100 * 30 + (woken - 20) + (120 - woken - 5 - 30 - 20)
    )


# -- those who see everything


def test_decision_on_a_frozen_copy_conflicts_and_on_a_live_one_does_not() -> None:
    paces = {"x": Pace(1.0, 0.0), "y": Pace(2.0, 0.0)}
    arrivals = [gang(0, 1, 10, "x"), gang(0, 1, 10, "y")]
    frozen = central(nodes_of(1), "shared-frozen", arrivals, paces)
    assert (frozen.conflicts, frozen.placed) == (1, 2)
    live = central(nodes_of(1), "shared-live", arrivals, paces)
    assert (live.conflicts, live.placed) == (0, 2)


def test_one_path_makes_quick_slices_as_slow_as_the_slowest() -> None:
    paces = {"x": Pace(1.0, 0.0), "y": Pace(30.0, 0.0)}
    arrivals = [gang(0, 1, 10, "x"), gang(0, 1, 10, "x"), gang(0, 1, 10, "y")]
    cell = nodes_of(3)
    assert central(cell, "monolithic-single", arrivals, paces).waits == [30, 60, 90]
    assert central(cell, "monolithic-multi", arrivals, paces).waits == [1, 2, 32]
    shared = central(cell, "shared-frozen", arrivals, paces)
    assert (shared.waits, shared.conflicts) == ([1, 2, 30], 0)


def test_gang_that_starves_is_let_in_before_small_ones_that_come_later() -> None:
    # Two engines, and each ten seconds a slice that holds one for fifteen.
    small = [gang(10.0 * n, 1, 15) for n in range(60)]
    arrivals = [*small, gang(5, 2, 1, "y")]
    paces = {"x": AT_ONCE, "y": AT_ONCE}
    alone = central(
        nodes_of(2), "shared-live", arrivals, paces, seconds=600, starving_s=float("inf")
    )
    marked = central(nodes_of(2), "shared-live", arrivals, paces, seconds=600, starving_s=10)
    assert alone.waits_by_class["y"][0] > 500
    assert marked.waits_by_class["y"][0] < 30


def test_slice_that_no_empty_cell_has_a_place_for_is_not_tried() -> None:
    found = offers(nodes_of(1), [gang(0, 2, 5), gang(0, 1, 5)], hold_s=50)
    assert (found.never, found.placed, found.hoarded_engine_s) == (1, 1, 0)
