"""Logs to tune on: the same for the same seed, as loaded as asked, and never those to judge by."""

from dataclasses import replace
from itertools import pairwise

import pytest

from flowos.documents.presets import file_or_preset
from flowos.model.errors import SpecError
from flowos.simulation.jobs import Job
from flowos.simulation.tuning.workload import BLOCK_JOBS, Figures, Recorded, Synthetic, Workload

FIC = file_or_preset("fic")


def recorded_jobs(count=400, **changes):
    """One job every 10 s; each named for its place in the log."""
    job = Job("j", 0.0, 100.0, engines=2, share_millis=1000, cpu_millis=0, memory_bytes=0)
    return [
        replace(job, name=f"j{number:04}", submit_s=10.0 * number, **changes)
        for number in range(count)
    ]


def numbers(log):
    return [int(arrival.spec.name[1:5]) for arrival in log]


@pytest.mark.parametrize(
    "workload",
    [Synthetic.on(FIC, Figures(slices=50)), Recorded.on(FIC, recorded_jobs(), slices=120)],
    ids=["synthetic", "recorded"],
)
def test_a_seed_gives_one_log_in_order_with_names_of_its_own(workload):
    log = workload.arrivals(5, held_out=False)
    assert log == workload.arrivals(5, held_out=False)
    assert log != workload.arrivals(6, held_out=False)
    assert log != workload.arrivals(5, held_out=True)
    assert all(a.at <= b.at for a, b in pairwise(log))
    assert len({arrival.spec.id for arrival in log}) == len(log)


def test_a_synthetic_log_asks_for_the_load_that_was_said():
    for load in (0.4, 0.9):
        workload = Synthetic.on(FIC, Figures(slices=20_000, load=load, sigma=0.5))
        log = workload.arrivals(1, held_out=False)
        asked = sum(
            arrival.seconds * arrival.spec.engines["workers"].choices[0].count for arrival in log
        )
        engines = sum(engine.kind != "nvme" for engine in FIC.engines.values())
        assert asked / (engines * log[-1].at) == pytest.approx(load, rel=0.05)


def test_gangs_are_as_large_as_was_said_and_as_a_kind_has_four_of():
    for gang_max, kinds in ((2, FIC), (8, FIC), (8, file_or_preset("fic-small"))):
        workload = Synthetic.on(kinds, Figures(slices=1000, gang_max=gang_max))
        largest: dict[str, int] = {}
        for arrival in workload.arrivals(1, held_out=False):
            choice = arrival.spec.engines["workers"].choices[0]
            largest[choice.kind] = max(largest.get(choice.kind, 0), choice.count)
        fits = {
            kind: max(n for n in (1, 2, 4, 8) if n <= max(1, min(gang_max, count // 4)))
            for kind in largest
            if (count := sum(e.kind == kind for e in kinds.engines.values()))
        }
        assert largest == fits


def test_few_bitstreams_are_popular_and_only_for_engines_that_load_them():
    workload = Synthetic.on(FIC, Figures(slices=5000, bitstreams=4, zipf=2.0))
    choices = [a.spec.engines["workers"].choices[0] for a in workload.arrivals(1, held_out=False)]
    assert {choice.kind for choice in choices if choice.bitstream} == {"fpga"}
    wanted = [choice.bitstream for choice in choices if choice.kind == "fpga"]
    first = wanted.count("tuning-fpga-0") / len(wanted)
    assert first == pytest.approx(1 / (1 + 1 / 4 + 1 / 9 + 1 / 16), abs=0.04)
    assert workload.cell.bitstream("tuning-fpga-3") is not None
    assert "tuning-fpga-3" not in FIC.bitstreams


def test_recorded_logs_to_judge_by_share_no_job_with_those_trained_on():
    workload = Recorded.on(FIC, recorded_jobs(), slices=200)
    trained = {n for seed in range(20) for n in numbers(workload.arrivals(seed, held_out=False))}
    judged = {n for seed in range(20) for n in numbers(workload.arrivals(seed, held_out=True))}
    assert max(trained) < 240 <= min(judged)
    assert len(trained) > 200
    assert len(judged) > 140


def test_jobs_that_came_together_stay_together():
    workload = Recorded.on(FIC, recorded_jobs(), slices=3 * BLOCK_JOBS)
    log = workload.arrivals(1, held_out=False)
    steps = [b - a for a, b in pairwise(numbers(log))]
    assert sum(step != 1 for step in steps) <= 2
    assert {round(b.at - a.at) for a, b in pairwise(log)} == {10}


def test_a_recorded_log_is_stretched_to_the_load_that_is_asked_for():
    # 2 engines x 100 s every 10 s is 20 of the cell's 96 GPUs.
    plain = Recorded.on(FIC, recorded_jobs())
    assert plain.pace == 1
    half = Recorded.on(FIC, recorded_jobs(), load=10 / 96)
    assert half.pace == pytest.approx(2, rel=0.01)
    heavier = half.shifts()["heavier"].arrivals(1, held_out=True)
    assert heavier[-1].at == pytest.approx(half.arrivals(1, held_out=True)[-1].at / 1.27)


def test_the_hash_changes_with_the_cell_and_with_the_figures():
    workload = Synthetic.on(FIC, Figures())
    others: list[Workload] = [
        Synthetic.on(FIC, Figures(load=0.8)),
        Synthetic.on(file_or_preset("fic-small"), Figures()),
        Recorded.on(FIC, recorded_jobs()),
        Recorded.on(FIC, recorded_jobs(), load=0.5),
        Recorded.on(FIC, recorded_jobs(engines=1)),
    ]
    digests = {workload.digest(), *(other.digest() for other in others)}
    assert len(digests) == 1 + len(others)
    assert workload.digest() == Synthetic.on(file_or_preset("fic"), Figures()).digest()


@pytest.mark.parametrize(
    ("jobs", "load", "said"),
    [
        (recorded_jobs(199), None, "holds 199 jobs, tuning needs at least 200"),
        (recorded_jobs(duration_s=None), None, "400 of 400 jobs have no duration_s"),
        ([replace(j, submit_s=5.0) for j in recorded_jobs()], 0.5, "all jobs come at once"),
        (recorded_jobs(kind="tpu"), 0.5, "no job asks for an engine that the cell has"),
    ],
)
def test_a_log_that_says_too_little_is_refused_with_the_way_out(jobs, load, said):
    with pytest.raises(SpecError, match=said) as refused:
        Recorded.on(FIC, jobs, load=load)
    assert refused.value.hint


def test_figures_are_read_from_words():
    assert Figures.read("") == Figures()
    assert Figures.read("load=0.9, slices=500") == Figures(load=0.9, slices=500)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lode=1", "there is no 'lode'"),
        ("load", "load is '', not a number from 0.01 to 3"),
        ("load=9", "load is '9', not a number from 0.01 to 3"),
        ("load=nan", "not a number"),
        ("slices=10.5", "slices is '10.5', not a whole number from 10 to 100000"),
    ],
)
def test_figures_that_cannot_be_are_refused(text, said):
    with pytest.raises(SpecError, match=said):
        Figures.read(text)


def test_a_cell_without_engines_has_no_workload():
    with pytest.raises(SpecError, match="no engines"):
        Synthetic.on(type(FIC)())
