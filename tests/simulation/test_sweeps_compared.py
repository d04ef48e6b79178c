"""Architectures in sweeps: does each knob reach the model, and what has no sense is it refused?"""

from dataclasses import replace

import pytest

from flowos.documents.presets import preset
from flowos.model.errors import SpecError
from flowos.model.slice import CircuitWish, EngineChoice, EngineRole, HostRole, Shape, SliceSpec
from flowos.simulation.architectures.attached import attached
from flowos.simulation.architectures.run import run
from flowos.simulation.architectures.setup import OfferRules, PowerRules
from flowos.simulation.jobs import Job
from flowos.simulation.light.loads import Job as LightJob
from flowos.simulation.light.run import run as run_light
from flowos.simulation.light.schedulers import Pace
from flowos.simulation.sweeps import compared
from flowos.simulation.sweeps import runs as played
from flowos.simulation.sweeps.arrivals import arrivals
from flowos.simulation.sweeps.knobs import (
    COMPARED,
    KNOBS,
    architectures_of,
    check_architectures,
    read_axis,
    read_setting,
)
from flowos.simulation.sweeps.loads import Load, check_load, drawn_load
from flowos.simulation.sweeps.runs import Full, Ground
from flowos_schedulers.batch import Batch
from flowos_store import MemoryStore

ISLANDS = preset("gpu-islands")


def ground(load=None, cell=ISLANDS):
    load = load or drawn_load("exponential")
    return Ground(load, Full(cell, "cell", Batch(), "batch", MemoryStore))


# ------------------------------------------------------------------------------ what is refused


def check(mode, settings, sweeps=()):
    axes = [read_axis(text, mode) for text in sweeps]
    check_architectures(dict(read_setting(text, mode) for text in settings), axes, mode)


@pytest.mark.parametrize(
    ("mode", "settings", "sweeps", "said"),
    [
        ("full", ["hold=5"], [], "leave it out, or take architecture=offers or offers-"),
        ("full", ["architecture=offers", "homes=no"], [], "take architecture=production"),
        ("full", ["architecture=monolithic-multi", "schedulers=2"], [], "schedulers: it has no sense"),
        ("full", ["architecture=offers", "schedulers.Batch=2", "looks=live"], [], "looks: it has no"),
        ("full", [], ["architecture=production,offers"], "production has other figures"),
        ("full", [], ["architecture=shared-state,offers", "hold=0,30"],
         "hold: it has no sense for architecture shared-state"),
        ("full", ["per_host=0"], ["architecture=offers,offers-optimistic"], "add --set per_host=4"),
        ("full", ["architecture=offers-pessimistic"], ["per_host=0,4"], "slices ask for none"),
        ("light", ["architecture=offers", "check=coarse"], [], "take architecture=shared-state"),
        ("light", ["architecture=monolithic-single"], ["schedulers=1,2"], "schedulers: it has no"),
    ],
)  # fmt: skip
def test_what_has_no_sense_for_an_architecture_is_refused(mode, settings, sweeps, said):
    with pytest.raises(SpecError) as raised:
        check(mode, settings, sweeps)
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("mode", "settings", "sweeps"),
    [
        # What is set has to serve one of those that are run; the others are as they are.
        ("full", ["hold=30", "looks=frozen"], ["architecture=shared-state,offers"]),
        ("full", ["per_host=4"], ["architecture=offers-optimistic,offers-pessimistic"]),
        ("full", ["homes=no", "queues=each"], []),
        ("light", ["check=coarse"], ["architecture=shared-state,offers"]),
        ("light", ["architecture=offers"], ["schedulers=1,2"]),
    ],
)
def test_what_has_sense_is_not_refused(mode, settings, sweeps):
    check(mode, settings, sweeps)


def test_every_knob_names_architectures_that_there_are():
    for knob in KNOBS.values():
        for mode, names in knob.only.items():
            assert set(names) <= set(KNOBS["architecture"].words_in(mode)), knob.name
            assert mode in knob.modes, knob.name
    assert architectures_of({}, [], "full") == ("production",)
    assert architectures_of({}, [], "light") == ("shared-state",)


# --------------------------------------------------------------------------- what reaches the model


@pytest.fixture
def seen(monkeypatch):
    found = []

    def watched(setup, arrivals_):
        found.append((setup, arrivals_))
        return run(setup, arrivals_)

    monkeypatch.setattr(compared, "run", watched)
    return found


def play(settings, cell=ISLANDS, seed=3):
    return ground(cell=cell).play({"slices": 40, "rate": 0.2, **settings}, seed)


def test_every_knob_of_offers_reaches_the_model(seen):
    play({
        "architecture": "offers", "gather": 2.0, "dealing": "whole", "hold": 9.0, "off_after": 50.0,
        "wake": 7.0, "t_job.Service": 3.0, "seconds": 99.0, "schedulers.Batch": 3,
        "schedulers.Service": 1,
    })  # fmt: skip
    ((setup, came),) = seen
    assert setup.architecture == "offers"
    assert setup.offers == OfferRules("own", "whole", 2.0, hold_s=9.0)
    assert setup.power == PowerRules(50.0, 7.0)
    assert (setup.seconds, setup.seed) == (99.0, 3)
    # Each framework is one to the allocator: slices go to those of their class in turn.
    assert setup.paces == {f"batch-{n}": Pace() for n in range(3)} | {"service-0": Pace(3.0, 0.005)}
    turns = [each.spec.policy for each in came if each.spec.policy.startswith("batch")]
    assert turns[:4] == ["batch-0", "batch-1", "batch-2", "batch-0"]


@pytest.mark.parametrize(
    ("name", "looks", "way"),
    [
        ("monolithic-single", "live", "monolithic-single"),
        ("monolithic-multi", "live", "monolithic-multi"),
        ("shared-state", "live", "shared-live"),
        ("shared-state", "frozen", "shared-frozen"),
    ],
)
def test_every_way_reaches_the_model(seen, name, looks, way):
    play({"architecture": name, "looks": looks, "marks": "no", "round_trip": 0.5, "schedulers": 3})
    ((setup, came),) = seen
    assert (setup.architecture, setup.round_trip_s) == (way, 0.5)
    assert (setup.starving_s, setup.power.off_after_s) == (float("inf"), float("inf"))
    assert setup.schedulers == {"batch": 3, "service": 3}
    assert setup.seconds == came[-1].at_s  # where nobody says how long
    play({"architecture": name})
    assert seen[-1][0].starving_s == 10.0


@pytest.mark.parametrize("name", COMPARED)
def test_each_gives_the_same_figures_again(name):
    settings = {"architecture": name, "per_host": 2, "engines_max": 4}
    first, again = (play(settings, preset("expether")) for _ in range(2))
    assert first == again
    assert [row.of_class for row in first] == ["Batch", "Service"]
    for row in first:
        figures = row.figures
        assert figures["placed"] + figures["waiting"] == figures["arrived"] > 0
    assert sum(row.figures["arrived"] + row.figures["never"] for row in first) == 40


def test_figures_of_two_frameworks_of_a_class_are_put_together(seen):
    batch, _ = play({"architecture": "offers", "schedulers": 2})
    ((setup, came),) = seen
    found = run(setup, came)
    parts = [found.classes["batch-0"], found.classes["batch-1"]]
    waits = sorted(found.waits_by_class["batch-0"] + found.waits_by_class["batch-1"])
    assert batch.figures["arrived"] == len(waits) == parts[0].came + parts[1].came
    assert batch.figures["wait_mean_s"] == pytest.approx(sum(waits) / len(waits))
    assert batch.figures["wait_longest_s"] == waits[-1]
    hidden = sum(part.only_outside * part.came for part in parts)
    assert batch.figures["only_outside"] == pytest.approx(hidden / len(waits))


def test_slices_that_never_fit_are_counted_and_wait_for_nothing():
    jobs = tuple(
        LightJob("AB"[n % 2], 10.0 * n, 1 + 9 * (n % 2), 5.0, 1000, 1024) for n in range(8)
    )
    whole = ground(Load("l", jobs=jobs), preset("expether"))  # two hosts of four devices each
    small, large = whole.play({"architecture": "shared-state", "per_host": 4, "engines_max": 10}, 1)
    assert (small.figures["never"], small.figures["arrived"]) == (0, 4)
    assert (large.figures["never"], large.figures["arrived"]) == (4, 0)
    assert large.figures["wait_mean_s"] == 0


def test_a_cell_on_which_nothing_has_a_place_is_refused():
    with pytest.raises(SpecError, match="--cell: not one slice has a place on it"):
        play({"architecture": "offers-pessimistic", "per_host": 4})  # islands join no hosts


def test_a_single_path_is_as_slow_as_the_slowest_class_in_light_mode(monkeypatch):
    setups = []

    def watched(setup, jobs):
        setups.append(setup)
        return run_light(setup, jobs[:1])

    monkeypatch.setattr(played, "run_light", watched)
    light = Ground(drawn_load("exponential"))
    for name in ("monolithic-single", "monolithic-multi"):
        light.play({"seconds": 99.0, "architecture": name, "t_job.Service": 5.0}, 1)
    assert [setup.architecture for setup in setups] == ["monolithic", "monolithic"]
    assert [setup.paces["Batch"].job_s for setup in setups] == [5.0, 0.1]


# ------------------------------------------------------------------------------------ what comes


def a_trace(count, submit=lambda n: 10.0 * n):
    return Load("t", trace=tuple(
        Job(f"j{n}", submit(n), 30.0 + n, 1 + n % 4, 1000, 0, 0) for n in range(count)
    ))  # fmt: skip


def test_a_file_comes_as_it_is_unless_a_load_is_kept():
    load = a_trace(100)
    first = arrivals(ISLANDS, load, {"slices": 10})
    assert [each.runs_s for each in first] == [30.0 + n for n in range(10)]
    assert first[-1].at_s == 90.0
    # Each tenth, from its beginning to its end.
    kept = arrivals(ISLANDS, load, {"slices": 10, "load": 0.1})
    assert [each.runs_s for each in kept] == [30.0 + 10 * n for n in range(10)]
    assert {each.spec.policy for each in kept} == {"all"}


def test_as_many_are_drawn_as_are_asked_for_however_short_the_run_is():
    drawn = drawn_load("exponential")
    assert len(arrivals(preset("fat-tree:8"), drawn, {"slices": 14_000, "seconds": 10.0})) == 14_000


def test_gaps_of_a_file_can_be_made_even():
    late = a_trace(11, lambda n: 0.0 if n < 5 else 900.0 + n)
    found = arrivals(ISLANDS, late, {"gaps": "even"})
    assert [each.at_s for each in found] == pytest.approx([91.0 * n for n in range(11)])
    with pytest.raises(SpecError, match="or gaps=even, if most of the file comes late"):
        arrivals(ISLANDS, late, {"load": 0.185})
    assert len(arrivals(ISLANDS, late, {"load": 0.185, "gaps": "even"})) == 11
    key, _ = read_setting("gaps=even", "full")
    with pytest.raises(SpecError, match="gaps: exponential is drawn, and gaps are of a file"):
        check_load(drawn_load("exponential"), [key])
    check_load(late, [key])


def test_a_run_ends_with_the_last_that_comes_where_a_load_is_kept():
    jobs = tuple(LightJob("A", 10.0 * n, 4, 1000.0, 1000, 1024) for n in range(30))
    whole = ground(Load("l", jobs=jobs))

    def seconds(**settings):
        (row,) = whole.play(settings, 1)
        return row.figures["seconds"]

    assert seconds() > 1000
    assert seconds(until="come") == pytest.approx(290.0)
    assert seconds(load=0.5) < seconds(load=0.5, until="ended")


# ------------------------------------------------------------------------------ attached devices


def wish(count, **more):
    engines = {"w": EngineRole((EngineChoice("gpu", count=count),))}
    return SliceSpec("s", engines=engines, circuits=(CircuitWish(Shape.RING, ("w",)),), **more)


def test_each_host_has_so_many_engines_and_circuits_both_ways():
    found = attached(wish(6, together={"w": "node"}), 4)
    assert {role: w.choices[0].count for role, w in found.engines.items()} == {"w0": 4, "w1": 2}
    assert {role: host.count for role, host in found.hosts.items()} == {
        "w0-driver": 1,
        "w1-driver": 1,
    }
    assert [circuit.roles for circuit in found.circuits] == [
        ("w0-driver", "w0"), ("w0", "w0-driver"), ("w1-driver", "w1"), ("w1", "w1-driver"),
    ]  # fmt: skip
    assert found.together == {}


def test_what_is_asked_for_beside_engines_is_asked_for_of_their_hosts():
    beside = HostRole(500, 1 << 30)
    found = attached(wish(3, hosts={"w": beside, "db": HostRole(8000, 1 << 33, 1)}), 2)
    assert found.hosts["w0-driver"] == HostRole(1000, 2 << 30, 1)
    assert found.hosts["w1-driver"] == HostRole(500, 1 << 30, 1)
    assert found.hosts["db"] == HostRole(8000, 1 << 33, 1)


def test_a_share_of_an_engine_is_not_attached():
    share = replace(
        wish(1), circuits=(), engines={"w": EngineRole((EngineChoice("gpu", share_millis=500),))}
    )
    assert attached(share, 4) is share
    bare = SliceSpec("s", hosts={"db": HostRole(8000, 1 << 33, 1)})
    assert attached(bare, 4) is bare


def test_slices_of_any_kind_of_engine_are_offered_what_there_is():
    # Kind "" = any: the allocator and its frameworks have to count all kinds together.
    rows = play({"architecture": "offers", "t_job": 0.0, "t_task": 0.0, "load": 0.2})
    assert sum(row.figures["placed"] for row in rows) > 30
