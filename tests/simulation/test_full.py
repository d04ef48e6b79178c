"""Full mode: production schedulers in virtual time place all that fits, and what is noted is so."""

import pytest

from flowos.documents.presets import preset
from flowos.model.slice import EngineChoice, EngineRole, SliceSpec
from flowos.simulation.full.run import run
from flowos.simulation.full.setup import AT_ONCE, Arrival, Setup, Team
from flowos.simulation.full.workload import Mix, at_load, at_rate, drawn, load_of
from flowos.simulation.light.loads import Draw
from flowos.simulation.light.schedulers import Pace
from flowos_schedulers.batch import Batch
from flowos_store import MemoryStore

CELL = preset("fat-tree:128")
BUSY = Mix(runs_s=Draw("exponential", 4.0), ring=0.3, shares=0.2, hosts=0.3)


def play(arrivals, *, schedulers=2, pace=AT_ONCE, queues="one", cell=CELL, **more):
    team = Team("batch", Batch(), schedulers, pace, queues)
    return run(Setup(cell, (team,), **more), arrivals, new_store=MemoryStore)


def gang(name, at, engines=1, runs=1.0, kind=""):
    choice = EngineChoice(kind=kind, count=engines)
    spec = SliceSpec(name=name, engines={"workers": EngineRole((choice,))})
    return Arrival(at, spec, runs)


def test_all_that_fits_is_placed_and_ends_and_nothing_is_held_twice():
    found = play(drawn(BUSY, 300, 0.1, 1), schedulers=3)
    assert (found.arrived, found.placed, found.ended, found.waiting) == (300, 300, 300, 0)
    assert found.double_holds == 0
    assert sum(one.placed for one in found.teams["batch"].schedulers) == 300


def test_the_same_run_gives_the_same_figures():
    one, other = (play(drawn(BUSY, 120, 0.02, 3), schedulers=3, seed=5) for _ in range(2))
    other.wall_seconds = one.wall_seconds
    assert one == other


def test_what_waits_for_room_waits_until_another_has_ended():
    found = play([gang("a", 0.0, 128, 10.0), gang("b", 1.0, 128, 1.0)], schedulers=1, gather_s=0.0)
    assert found.waits.most == pytest.approx(9.0, abs=0.6)
    assert found.utilisation_most == 1.0


def test_what_can_never_be_placed_ends_the_run():
    found = play([gang("a", 0.0), gang("b", 1.0, 129)], schedulers=1)
    assert (found.placed, found.waiting) == (1, 1)


def test_a_decision_takes_its_time():
    found = play([gang("a", 1.0, 4)], schedulers=1, pace=Pace(2.0, 0.25), round_trip_s=0.5)
    # Half a round trip to the store; the slice itself was heard of after `news_s`.
    assert found.waits.most == pytest.approx(3.0 + 0.25 + 0.001, abs=1e-4)
    assert found.teams["batch"].schedulers[0].useful_s == 3.0


@pytest.mark.parametrize(("check", "conflicts"), [("fine", 0), ("coarse", 1)])
def test_a_coarse_check_refuses_another_engine_of_the_same_node(check, conflicts):
    # All GPUs of four nodes, and the FPGA of one of them.
    found = play(
        [gang("a", 1.0, 16, kind="gpu"), gang("b", 1.5, kind="fpga")], queues="each",
        cell=preset("fic-small"), check=check, pace=Pace(1.0, 0.0), looks="frozen",
    )  # fmt: skip
    assert (found.placed, found.conflicts, found.double_holds) == (2, conflicts, 0)


def test_a_coarse_check_lets_other_nodes_be():
    found = play(
        [gang("a", 1.0, 4), gang("b", 1.5, 4)], queues="each", cell=preset("fat-tree:512"),
        check="coarse", pace=Pace(1.0, 0.0), looks="frozen", seed=3,
    )  # fmt: skip
    assert (found.placed, found.conflicts) == (2, 0)


def test_two_that_do_not_see_each_other_conflict_and_one_starts_later():
    slices = [gang("a", 0.0, 128, 5.0), gang("b", 0.0, 128, 5.0)]
    found = play(slices, queues="each", pace=Pace(1.0, 0.0), looks="frozen")
    assert found.conflicts >= 1
    assert found.lost_units["engine"] >= 128
    assert found.placed == found.ended == 2


def test_a_live_view_spares_what_a_frozen_one_loses():
    slices = at_load(drawn(Mix(engines_max=8), 200, 1.0, 2), 128, 0.6)
    pace, runs = Pace(1.5, 0.0), {}
    for looks in ("frozen", "live"):
        runs[looks] = play(slices, schedulers=4, pace=pace, queues="each", looks=looks, homes=False)
    assert runs["live"].conflicts < runs["frozen"].conflicts / 4
    assert runs["live"].teams["batch"].repaired > 0


def test_conflicts_are_told_by_kind_of_unit():
    mix = Mix(runs_s=Draw("exponential", 30.0), shares=0.5, hosts=0.9, ring=0.5)
    found = play(
        at_load(drawn(mix, 200, 0.1, 4), 128, 0.8),
        schedulers=4,
        queues="each",
        pace=Pace(0.5, 0.0),
        looks="frozen",
        homes=False,
    )
    assert {"engine", "host", "share"} <= found.lost_units.keys()
    assert found.conflicts > 0


def test_who_gives_way_is_queued_again_and_ends_in_the_end():
    def asks(name, at, priority):
        found = gang(name, at, 128, 5.0)
        spec = found.spec
        return found._replace(
            spec=SliceSpec(
                name=name, engines=spec.engines, priority=priority, preemptible=not priority
            )
        )

    found = play([asks("low", 0.0, 0), asks("high", 1.0, 5)], schedulers=1)
    assert (found.placed, found.ended, found.waiting) == (3, 3, 0)
    assert found.seconds == pytest.approx(1.0 + 5.0 + 5.0, abs=0.7)


def test_loads_and_rates_are_what_was_asked_for():
    slices = drawn(Mix(), 500, 1.0, 1)
    assert load_of(at_load(slices, 128, 0.7), 128) == pytest.approx(0.7)
    hurried = at_rate(at_load(slices, 128, 0.7), 50.0)
    assert load_of(hurried, 128) == pytest.approx(0.7)
    assert len(hurried) / max(a.at_s for a in hurried) == pytest.approx(50.0)


def test_a_run_that_has_an_end_stops_there():
    found = play(drawn(Mix(), 100, 1.0, 1), seconds=20.0)
    assert found.seconds == 20.0
    assert 0 < found.arrived < 40
