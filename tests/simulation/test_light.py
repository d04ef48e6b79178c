"""The light model: who takes what, for how long, and what conflicts."""

import hashlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowos.model.errors import FileError
from flowos.simulation.light.law import expected_conflicts
from flowos.simulation.light.loads import EXPONENTIAL, PAPERLIKE, Job, drawn, read_job_list
from flowos.simulation.light.machines import Machines, MachineSize, first_fit
from flowos.simulation.light.run import Setup, run
from flowos.simulation.light.schedulers import Pace


def job(tasks: int = 1, *, name: str = "Batch", at: float = 0.0, lasts: float = 10.0) -> Job:
    return Job(name, at, tasks, lasts, 1000, 1024)


def setup(machines: int = 4, **more: object) -> Setup:
    given: dict[str, object] = {
        "size": MachineSize(machines, 2000, 8192),
        "prefilled": 0.0,
        "seconds": 100.0,
        "architecture": "shared-state",
        "paces": {"Batch": Pace(1.0, 0.1), "Service": Pace(2.0, 0.1)},
    }
    return Setup(**{**given, **more})  # type: ignore[arg-type]


# -- loads


@pytest.mark.parametrize(
    ("profile", "seconds", "faster", "digest"),
    [
        (EXPONENTIAL, 86_400, 1, "864728f073782bfc"),
        (PAPERLIKE, 86_400, 1, "9e628772a99bc428"),
        (PAPERLIKE, 21_600, 1, "7c639c7b3ed5aa45"),
        (PAPERLIKE, 21_600, 4, "b56c807c11a11bd9"),
    ],
)
def test_drawn_lists_are_those_the_published_simulator_was_fed(profile, seconds, faster, digest):
    lines = ["class,submit_s,tasks,duration_s,cpus,mem_gb"] + [
        f"{j.name},{j.submit_s:.3f},{j.tasks},{j.duration_s:.3f},"
        f"{j.cpu_millis / 1000},{j.memory_mib / 1024}"
        for j in drawn(profile, seconds, faster=faster)
    ]
    text = "\n".join(lines) + "\n"
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == digest


def test_a_job_list_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "jobs.csv"
    path.write_text("class,submit_s,tasks,duration_s,cpus,mem_gb\nBatch,1.5,3,20.25,0.5,1.0\n")
    assert read_job_list(path) == [Job("Batch", 1.5, 3, 20.25, 500, 1024)]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("Batch,1.5,0,20,0.5,1", "less than one task"),
        ("Batch,nan,1,20,0.5,1", "submit_s"),
        ("Batch,1,1,0,0.5,1", "duration_s"),
        ("Batch,1,x,20,0.5,1", "x"),
        ("Batch,1", "jobs.csv:2"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, line, told):
    path = tmp_path / "jobs.csv"
    path.write_text(f"class,submit_s,tasks,duration_s,cpus,mem_gb\n{line}\n")
    with pytest.raises(FileError, match=told) as caught:
        read_job_list(path)
    assert "jobs.csv:2" in str(caught.value)


def test_a_missing_column_is_named(tmp_path):
    path = tmp_path / "jobs.csv"
    path.write_text("class,submit_s,tasks,duration_s,cpus\n")
    with pytest.raises(FileError, match="mem_gb"):
        read_job_list(path)


# -- transactions


def machines(count: int = 2) -> Machines:
    return Machines(MachineSize(count, 2000, 8192), lambda: 0.0)


def test_finely_a_claim_conflicts_only_where_it_does_not_fit():
    cell = machines()
    seen = cell.copied(changes=False)
    cell.take([0], job())
    first = cell.commit([0], job(), seen, "fine", "incremental")
    second = cell.commit([0, 1], job(), seen, "fine", "incremental")
    assert (first.taken, first.conflicted) == ([0], 0)
    assert (second.taken, second.conflicted) == ([1], 1)


def test_coarsely_a_claim_conflicts_once_its_machine_has_changed():
    cell = machines()
    seen = cell.copied(changes=True)
    cell.take([0], job())
    outcome = cell.commit([0, 1], job(), seen, "coarse", "incremental")
    assert (outcome.taken, outcome.conflicted) == ([1], 1)


def test_the_published_alias_does_not_over_commit():
    cell = machines(1)
    seen = cell.copied(changes=True)
    cell.take([0], job())  # a rival; now one more task fits, not two
    # By the claimer's own count the second claim expects one change, which the rival has made.
    outcome = cell.commit([0, 0], job(), seen, "coarse", "incremental")
    assert (outcome.taken, outcome.conflicted, outcome.aliased) == ([], 2, 1)
    assert cell.cpu == [1000]


def test_of_all_or_nothing_nothing_is_taken_once_one_conflicts():
    cell = machines(3)
    seen = cell.copied(changes=True)
    cell.take([1], job())
    outcome = cell.commit([0, 1, 2], job(), seen, "coarse", "all-or-nothing")
    assert (outcome.taken, outcome.conflicted) == ([], 2)
    assert cell.cpu == [2000, 1000, 2000]
    # Put there and taken back counts as a change; what came after the conflict was never put.
    assert cell.changes == [1, 1, 0]


def test_a_task_goes_to_any_machine_with_room_and_to_no_other():
    rng = random.Random(1)
    cpu, memory = [0, 2000, 1000], [8192, 8192, 8192]
    found = first_fit(cpu, memory, job(), 5, [0, 1, 2], rng.random)
    assert sorted(found) == [1, 1, 2]
    assert cpu == [0, 0, 0]


# -- schedulers


def test_a_job_waits_while_the_one_before_is_decided_on():
    figures = run(setup(), [job(10, at=0.0), job(1, at=0.5)])
    batch = figures.classes["Batch"]
    # 10 tasks take 2.0 s, and find room for 8; the other two come again 1 s later, after the second.
    assert batch.wait_first_mean_s == pytest.approx((0 + 1.5) / 2)
    assert batch.jobs == 2
    assert batch.placed == 2


def test_one_path_for_all_blocks_the_other_class_and_shared_state_does_not():
    jobs = [job(1, name="Service", at=0.0), job(1, at=0.1)]
    one = run(setup(architecture="monolithic"), jobs).classes["Batch"]
    two = run(setup(), jobs).classes["Batch"]
    assert one.wait_first_mean_s == pytest.approx(2.0)
    assert two.wait_first_mean_s == 0.0


def test_a_copy_as_old_as_the_decision_conflicts_and_a_live_one_does_not():
    # Service looks at 0 s and decides until 2.1 s; meanwhile batch takes all that is there.
    jobs = [job(1, name="Service", at=0.0), job(2, at=0.1)]
    stale = run(setup(machines=1), jobs).classes["Service"]
    live = run(setup(machines=1, live_round_trip_s=0.001), jobs).classes["Service"]
    assert stale.conflicts == 1
    assert stale.busy_wasted == pytest.approx(2.1 / 100)
    assert (live.conflicts, live.no_room > 0) == (0, True)
    assert stale.placed == live.placed == 1


def test_with_a_live_copy_only_the_round_trip_is_left_for_rivals():
    jobs = [job(1, name="Service", at=0.0), job(2, at=0.79)]  # 0.79 + 1.2 is within the round trip
    late = run(setup(machines=1, live_round_trip_s=0.5), jobs)
    assert sum(c.conflicts for c in late.classes.values()) == 1


def test_a_job_that_never_fits_is_given_up_after_a_hundred_tries():
    big = Job("Batch", 0.0, 1, 10.0, 4000, 1024)
    batch = run(setup(seconds=1_000.0), [big]).classes["Batch"]
    assert (batch.abandoned, batch.no_room, batch.placed) == (1, 101, 0)
    assert batch.busyness == 0.0  # an attempt that finds no room counts as no work, as published


def test_an_offer_is_gathered_for_a_second_and_holds_all_until_it_is_answered():
    small = setup(machines=100, architecture="offers")
    jobs = [job(1, name="Service", at=0.0), job(1, at=0.1)]
    found = run(small, jobs).classes
    assert found["Service"].wait_first_mean_s == pytest.approx(1.001)
    # All lies in the first offer until 1.001 + 2.1 s; then it is gathered for a second again.
    assert found["Batch"].wait_first_mean_s == pytest.approx(1.001 + 2.1 + 1.001 - 0.1)


def test_nothing_is_offered_while_little_is_free():
    found = run(setup(machines=49, architecture="offers"), [job(1)]).classes["Batch"]
    assert (found.attempted, found.queue_left) == (0, 1)


jobs_of_any_kind = st.lists(
    st.builds(
        Job,
        st.sampled_from(["Batch", "Service"]),
        st.floats(0, 30),
        st.integers(1, 12),
        st.floats(0.5, 40),
        st.sampled_from([500, 1000]),
        st.sampled_from([1024, 4096]),
    ),
    max_size=30,
)


@given(
    jobs_of_any_kind,
    st.sampled_from(["monolithic", "shared-state", "offers"]),
    st.sampled_from(["fine", "coarse"]),
    st.sampled_from(["incremental", "all-or-nothing"]),
    st.sampled_from([None, 0.01]),
    st.integers(1, 3),
    st.integers(0, 5),
)
def test_no_machine_ever_holds_more_than_it_has(
    jobs, architecture, check, mode, live, schedulers, seed
):
    figures = run(
        setup(
            machines=60,
            prefilled=0.1,
            architecture=architecture,
            check=check,
            mode=mode,
            live_round_trip_s=live,
            schedulers={"Batch": schedulers},
            seed=seed,
            seconds=60.0,
        ),
        jobs,
    )
    assert figures.over_committed == 0
    assert figures.cpu_use + 1e-9 >= 0.1
    for found in figures.classes.values():
        assert found.placed + found.abandoned <= found.attempted <= found.jobs


@given(jobs_of_any_kind, st.sampled_from(["monolithic", "shared-state", "offers"]))
def test_the_same_seed_is_the_same_run(jobs, architecture):
    each = setup(machines=60, architecture=architecture, seed=3)
    assert run(each, jobs) == run(each, jobs)


def test_once_all_has_ended_all_is_free_again_but_what_was_there_before():
    jobs = [job(3, at=float(n)) for n in range(10)]
    full = run(setup(machines=60, prefilled=0.5, seconds=50.0), jobs)
    none = run(setup(machines=60, prefilled=0.5, seconds=50.0), [])
    held = 10 * 3 * 10 * 1000 / (60 * 2000 * 50)
    assert none.cpu_use == pytest.approx(0.5)
    assert full.cpu_use == pytest.approx(0.5 + held)


# -- the law


def test_by_the_law_nobody_conflicts_alone_and_more_rivals_conflict_more():
    jobs = [job(5, at=float(n)) for n in range(1000)]

    def law(schedulers: int) -> float:
        rivals = [(jobs, 1 - 1 / schedulers)]
        return expected_conflicts(jobs, rivals, Pace(1.0, 0.0), seconds=1000.0, machines=500)

    assert law(1) == 0.0
    assert 0 < law(2) < law(4) < law(32)
    # One rival commit in 2 s on average, each sharing a machine with probability 1 - exp(-25/500).
    assert law(2) == pytest.approx(0.0247, abs=0.0005)
