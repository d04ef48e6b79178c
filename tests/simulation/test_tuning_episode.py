"""Episodes wait, load, boot and draw power as devices do, and leave the cell as they found it."""

import pytest

from flowos.documents.presets import file_or_preset
from flowos.model.cell import Bitstream, Cell, Engine, Link, Node, Switch, Watts
from flowos.model.codec import encode
from flowos.model.placement import Observed, Placement
from flowos.model.slice import CircuitWish, EngineChoice, EngineRole, Shape, SliceSpec
from flowos.model.transaction import Change
from flowos.planning.engines.weights import DEFAULT
from flowos.planning.place import plan
from flowos.simulation.tuning import episode as episodes
from flowos.simulation.tuning.episode import Episode, Settings
from flowos.simulation.tuning.workload import Arrival, Figures, Synthetic

ALWAYS_ON = Settings(power_on_seconds=20, idle_off_seconds=0)


def little_cell(*counts, kind="gpu", loads=False):
    """Nodes of so many engines, each on a leaf of its own below one spine."""
    cell = Cell()
    cell.add(Switch("spine", tier=1))
    for number, count in enumerate(counts):
        node, leaf = f"n{number}", f"leaf{number}"
        cell.add(Node(node))
        cell.add(Switch(leaf))
        cell.add(Link(f"up{number}", f"{leaf}:9", f"spine:{number}", lanes=8))
        for place in range(count):
            watts = Watts(off=1, idle=10, busy=100)
            engine = Engine(node, f"e{place}", kind, loads_bitstreams=loads, watts=watts)
            cell.add(engine)
            cell.add(Link(f"{node}-{place}", f"{engine.id}:0", f"{leaf}:{place}", lanes=4))
    for name in ("a", "b"):
        cell.add(Bitstream(name, f"sha256:{name * 64}", kind=kind, load_seconds=3))
    return cell


def comes(at, name, seconds, *, count=1, kind="gpu", bitstream="", ring=False):
    choice = EngineChoice(kind, count=count, bitstream=bitstream)
    return Arrival(
        at,
        SliceSpec(
            name=name,
            engines={"workers": EngineRole((choice,))},
            circuits=(CircuitWish(Shape.RING, ("workers",)),) if ring else (),
        ),
        seconds,
    )


def played(cell, *arrivals, settings=ALWAYS_ON):
    episode = Episode(cell, arrivals, settings)
    episode.advance()
    return episode


def test_the_second_on_one_engine_waits_for_the_first():
    episode = played(little_cell(1), comes(0, "x", 100), comes(30, "y", 50))
    assert episode.metrics().wait_s == (0 + 70) / 2
    assert episode.now == 150
    assert episode.metrics().kilojoules == 150 * 100 / 1000 / 2


def test_what_fits_goes_before_what_has_to_wait_within_the_window():
    log = (
        comes(0, "x", 100),
        comes(1, "large", 10, count=2),
        comes(2, "small", 10),
    )
    assert played(little_cell(2), *log).metrics().wait_s == (0 + 99 + 0) / 3
    narrow = Settings(idle_off_seconds=0, window=1)
    assert played(little_cell(2), *log, settings=narrow).metrics().wait_s == (0 + 99 + 108) / 3


def test_an_idle_engine_goes_off_and_boots_for_the_next_slice():
    settings = Settings(power_on_seconds=20, idle_off_seconds=60)
    episode = played(little_cell(1), comes(0, "x", 100), comes(200, "y", 50), settings=settings)
    assert episode.metrics().wait_s == (0 + 20) / 2
    # On for x, idle for 60 s, off for 40 s; boot and y; then idle until it goes off again.
    joules = 100 * 100 + 60 * 10 + 40 * 1 + 70 * 100 + 60 * 10
    assert episode.metrics().kilojoules == pytest.approx(joules / 1000 / 2, rel=1e-4)
    assert episode.engines() == (0, 0, 1)


def test_a_bitstream_is_loaded_once_and_lost_with_the_power():
    cell = little_cell(1, kind="fpga", loads=True)
    log = (
        comes(0, "x", 10, kind="fpga", bitstream="a"),
        comes(20, "y", 10, kind="fpga", bitstream="a"),
        comes(40, "z", 10, kind="fpga", bitstream="b"),
    )
    metrics = played(cell, *log).metrics()
    assert metrics.reconfigurations == 2 / 3
    assert metrics.wait_s == (3 + 0 + 3) / 3
    late = (log[0], comes(500, "y", 10, kind="fpga", bitstream="a"))
    metrics = played(cell, *late, settings=Settings(idle_off_seconds=60)).metrics()
    assert metrics.reconfigurations == 2 / 2
    assert metrics.wait_s == (3 + 23) / 2


@pytest.mark.parametrize("loaded", ["n0/e0", "n0/e1"])
def test_a_gang_is_up_when_the_last_of_its_engines_is(loaded):
    cell = little_cell(2, kind="fpga", loads=True)
    log = [comes(0, "x", 10, count=2, kind="fpga", bitstream="a")]
    episode = Episode(cell, log, ALWAYS_ON)
    there = Observed(bitstream=cell.bitstreams["a"].reference)
    episode.view.apply(Change(f"observed/{loaded}", encode(there), 1, 1))
    episode.advance()
    assert episode.metrics().reconfigurations == 1
    assert episode.metrics().wait_s == 3


def test_the_view_shows_what_agents_would_have_observed():
    settings = Settings(idle_off_seconds=60)
    log = [comes(0, "x", 10, kind="fpga", bitstream="a"), comes(500, "y", 10, kind="fpga")]
    episode = Episode(little_cell(1, kind="fpga", loads=True), log, settings)
    seen = []
    goes_on = True
    while goes_on:
        goes_on = episode.advance(1)
        observed = episode.view.observed["n0/e0"]
        seen.append((observed.power, observed.bitstream.partition("@")[0]))
    assert seen == [("on", "a"), ("on", ""), ("off", "")]


def test_circuits_that_leave_their_leaf_are_counted():
    assert played(little_cell(4), comes(0, "x", 1, count=4, ring=True)).metrics().crossings == 0
    two_leaves = played(little_cell(2, 2), comes(0, "x", 1, count=4, ring=True))
    assert two_leaves.metrics().crossings == 2


def test_what_can_never_be_placed_is_refused_and_holds_up_nobody():
    episode = played(little_cell(1), comes(0, "x", 1, count=2), comes(0, "y", 1))
    assert episode.metrics().unplaced == 1 / 2
    assert episode.metrics().wait_s == 0
    assert episode.decided == 2


def test_what_still_waits_in_the_end_counts_as_unplaced_with_the_time_it_waited():
    episode = Episode(little_cell(1), (comes(0, "x", 100), comes(10, "y", 5)), ALWAYS_ON)
    drained = Placement(uid=0, attempt="d", held={"engine/n0/e0": ()})
    episode.view.assume("~drain/engine/n0/e0", drained)
    episode.advance()
    assert episode.metrics().unplaced == 1
    assert episode.metrics().wait_s == (10 + 0) / 2


def test_the_weights_are_handed_to_the_planner_of_production(monkeypatch):
    seen = []

    def watched(pool, spec, *, weights):
        seen.append(weights)
        return plan(pool, spec, weights=weights)

    monkeypatch.setattr(episodes, "plan", watched)
    episode = Episode(little_cell(1), [comes(0, "x", 1), comes(9, "y", 1)], ALWAYS_ON)
    episode.advance(1)
    episode.weights = DEFAULT._replace(wake=0.0)
    episode.advance()
    assert seen == [DEFAULT, DEFAULT._replace(wake=0.0)]


@pytest.mark.parametrize("load", [0.4, 1.2])
def test_nothing_is_ever_held_twice_and_all_is_free_in_the_end(load):
    workload = Synthetic.on(file_or_preset("fic-small"), Figures(slices=150, load=load))
    episode = Episode(workload.cell, workload.arrivals(1, held_out=False))
    goes_on = True
    while goes_on:
        goes_on = episode.advance(1)
        assert all(len(names) == 1 for names in episode.view.holders.values())
        held, free, off = episode.engines()
        names = [n for u, (n,) in episode.view.holders.items() if u.startswith("engine/")]
        assert off == sum(name.startswith("~off/") for name in names)
        assert held == len(names) - off
        assert free >= 0
    assert episode.decided == 150
    assert all(name.startswith("~off/") for (name,) in episode.view.holders.values())
    assert not any(episode.view.lanes_taken.values())
    idle = sum(min(e.watts.idle, e.watts.off) for e in workload.cell.engines.values())
    assert episode._watts == idle


def test_an_episode_in_small_steps_comes_to_the_same():
    workload = Synthetic.on(file_or_preset("fic-small"), Figures(slices=60))
    log = workload.arrivals(2, held_out=False)
    whole, steps = Episode(workload.cell, log), Episode(workload.cell, log)
    whole.advance()
    while steps.advance(7):
        pass
    assert steps.metrics() == whole.metrics()
