"""Replays: every job is accounted for, and the cell is clean in the end."""

from collections import Counter

import pytest

from flowos.documents.presets import preset
from flowos.model.codec import decode
from flowos.model.slice import Phase, Slice
from flowos.runtime.client import CellClient
from flowos.runtime.loading import load_cell_into
from flowos.simulation.jobs import Job
from flowos.simulation.replay import fill_up, fill_up_alone, fill_up_jobs, replay
from flowos.simulation.stage import VirtualClock
from flowos.verify.history import verify_history
from flowos_schedulers.batch import Batch
from flowos_store import MemoryStore

GIB = 1 << 30


def job(name, at=0.0, runs=10.0, engines=1, share=1000, cpu=1000):
    return Job(name, at, runs, engines, share, cpu, GIB)


@pytest.fixture
def store():
    made = MemoryStore(VirtualClock())
    load_cell_into(made, preset("fic-small"))
    return made


def play(store, jobs, speed=0.0):
    return replay(store, Batch(), jobs, speed=speed, seed=0, progress=lambda *_: None)


def left_over(store):
    records = store.read(["claim/", "placement/", "order/", "report/"]).records
    return [record.key for record in records]


def ends(store):
    slices = [decode(Slice, r.value) for r in store.read(["slice/"]).records]
    return {s.spec.name: s.end for s in slices}


def test_each_job_is_done_and_nothing_is_left(store):
    result = play(store, [job(f"j{n}", at=n, engines=1 + n % 4) for n in range(60)])
    assert (result.placed, result.done, result.reasons) == (60, 60, {})
    assert not left_over(store)
    assert {end.phase for end in ends(store).values()} == {Phase.DONE}
    assert verify_history(store).violations == ()


def test_durations_are_honoured_in_replayed_time(store):
    play(store, [job("a", at=5, runs=100)])
    end = ends(store)["a"]
    assert (end.started_at, end.ended_at) == (5, 105)


def test_a_job_waits_until_another_departs(store):
    sixteen = [job(f"n{n}", runs=50, engines=4) for n in range(4)]
    play(store, [*sixteen, job("late", at=1, runs=5)])
    assert ends(store)["late"].started_at == 50


def test_a_job_that_never_fits_is_counted_with_its_reason(store):
    result = play(store, [job("wide", engines=17), job("ok")])
    assert (result.jobs, result.placed) == (2, 1)
    assert sum(result.reasons.values()) == 1
    assert result.shown()["unplaced"] == 1
    assert verify_history(store).violations == ()


def test_a_gang_larger_than_any_node_may_lie_on_several(store):
    assert play(store, [job("wide", engines=5)]).done == 1


def test_engine_seconds_and_the_peak_are_added_up(store):
    result = play(store, [job("a", runs=10, engines=2), job("b", at=20, runs=10, engines=4)])
    assert result.engine_seconds == pytest.approx(2 * 10 + 4 * 10)
    assert result.allocated_max == pytest.approx(4 / 16)


def test_a_fill_up_asks_for_the_load_and_draws_by_its_seed():
    jobs = [job(f"j{n}", engines=1 + n % 3) for n in range(30)]
    first, again, other = (
        [j.name for j in fill_up_jobs(jobs, 100, 1.3, seed)] for seed in (1, 1, 2)
    )
    assert first == again != other
    amount = sum(j.engine_amount for j in fill_up_jobs(jobs, 100, 1.3, 1))
    assert 125 <= amount <= 133
    assert set(Counter(first)) <= {j.name for j in jobs}


def test_a_fill_up_places_what_fits_and_counts_the_rest(store):
    client = CellClient(store, VirtualClock())
    jobs = [job(f"j{n}", engines=2, cpu=0) for n in range(20)]
    result = fill_up(client, Batch(), jobs, load=1.3, seed=3, progress=lambda *_: None)
    assert result.placed == 8  # sixteen GPUs in pairs
    assert result.placed + sum(result.reasons.values()) == result.jobs
    assert result.allocated == pytest.approx(16 / 16)
    assert verify_history(store).violations == ()


def test_a_fill_up_without_a_store_comes_to_the_same(store):
    jobs = [
        job(f"j{n}", engines=1, share=1000 - 130 * (n % 5), cpu=500 * (n % 4)) for n in range(9)
    ]
    through = fill_up(
        CellClient(store, VirtualClock()), Batch(), jobs, load=1.3, seed=3, progress=lambda *_: None
    )
    alone = fill_up_alone(preset("fic-small"), Batch(), jobs, load=1.3, seed=3)
    assert (alone.placed, alone.allocated, alone.allocated_at, alone.reasons) == (
        through.placed, through.allocated, through.allocated_at, through.reasons,
    )  # fmt: skip
    assert 0 < alone.placed < alone.jobs


def test_a_fill_up_leaves_what_it_placed_in_place(store):
    client = CellClient(store, VirtualClock())
    fill_up(client, Batch(), [job("a")], load=0.05, seed=1, progress=lambda *_: None)
    assert [k for k in left_over(store) if k.startswith("claim/")]
