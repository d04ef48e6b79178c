"""`flowos replay` as its users see it, on published traces."""

import json
from pathlib import Path

import pytest

from flowos_cli.main import run
from tests.conftest import require

TRACES = Path(__file__).resolve().parents[3] / "shared" / "traces"
CELL = TRACES / "openb.cell.csv"
JOBS = TRACES / "openb_default.jobs.csv.gz"

pytestmark = pytest.mark.etcd


@pytest.fixture(autouse=True)
def _traces():
    require("traces", CELL.exists(), "shared/traces lies beside the project")


def flowos(capfd, *words):
    code = run(["replay", *map(str, words)])
    out, err = capfd.readouterr()
    return code, out, err


def test_the_fill_up_of_a_real_cluster_allocates_as_much_as_best_fit(capfd):
    code, out, _ = flowos(
        capfd, "--cell", CELL, "--jobs", JOBS, "--fill-up", 1.3, "--seed", 1, "-o", "json"
    )
    shown = json.loads(out)
    assert code == 0
    assert shown["allocated_fraction"] >= 0.92
    assert shown["violations"] == 0
    assert shown["engines"] == 6212
    assert shown["placed"] + shown["unplaced"] == shown["jobs"]
    assert sum(shown["unplaced_reasons"].values()) == shown["unplaced"]
    assert {"slices_per_s", "conflict_fraction", "plans_per_placed", "seed"} <= shown.keys()
    assert shown["allocated_at"]["1.3"] == shown["allocated_fraction"]


def test_real_jobs_arrive_and_depart_in_replayed_time(capfd):
    code, out, _ = flowos(capfd, "--cell", CELL, "--jobs", JOBS, "--limit", 150, "-o", "json")
    shown = json.loads(out)
    assert (code, shown["jobs"], shown["done"], shown["violations"]) == (0, 150, 150, 0)
    assert shown["replayed_seconds"] > 1_000_000


def test_the_table_names_what_was_placed_and_what_not(capfd):
    code, out, _ = flowos(capfd, "--cell", "fic-small", "--jobs", JOBS, "--limit", 20)
    assert code == 0
    assert "placed" in out
    assert "violations  0" in " ".join(out.split()).replace("violations 0", "violations  0")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--cell", "nowhere.yaml", "--jobs", JOBS], 2, "nowhere.yaml"),
        (["--cell", "fic-small", "--jobs", "nowhere.csv"], 2, "nowhere.csv"),
        (["--cell", "fic-small", "--jobs", CELL], 2, "lacks the columns"),
        (["--cell", "fic-small", "--jobs", JOBS, "--fill-up", "0"], 2, "--fill-up"),
        (["--cell", "fic-small", "--jobs", JOBS, "--speed", "-1"], 2, "--speed"),
        (["--cell", "fic-small", "--jobs", JOBS, "--policy", "best"], 2, "batch"),
        (["--jobs", JOBS], 2, "--cell"),
    ],
)
def test_wrong_input_is_named_and_ends_with_2(capfd, words, code, said):
    got, _, err = flowos(capfd, *words)
    assert (got, said in err) == (code, True), err


def test_a_wrong_row_is_named_by_file_and_line(capfd, tmp_path):
    jobs = tmp_path / "mine.jobs.csv"
    jobs.write_text(
        "job_id,submit_s,duration_s,engine_type,num_engines\na,0,5,gpu,1\nb,soon,5,gpu,1\n"
    )
    code, out, err = flowos(capfd, "--cell", "fic-small", "--jobs", jobs)
    assert code == 2
    assert err == f"error: {jobs}:3: submit_s is 'soon', not a number from 0 up\n"
    assert out == ""


def test_a_cell_file_with_a_wrong_row_is_named_by_file_and_line(capfd, tmp_path):
    cell = tmp_path / "mine.cell.csv"
    cell.write_text("node_id,engine_type,engine_model,engines\nn0,gpu,A100,4\nn1,gpu,A100,lots\n")
    code, _, err = flowos(capfd, "--cell", cell, "--jobs", JOBS)
    assert code == 2
    assert f"{cell}:3" in err


def test_a_timed_replay_ends_every_job_and_breaks_no_law(capfd):
    code, out, _ = flowos(capfd, "--cell", CELL, "--jobs", JOBS, "--limit", 300, "-o", "json")
    shown = json.loads(out)
    assert (code, shown["done"], shown["violations"]) == (0, 300, 0)
    assert shown["conflict_fraction"] == 0


def test_a_part_of_the_jobs_fills_a_small_cell_up(capfd):
    words = ["--cell", "fic-small", "--jobs", JOBS, "--fill-up", 1.2, "--limit", 500]
    code, out, _ = flowos(capfd, *words, "--seed", 7, "-o", "json")
    first = json.loads(out)
    assert (code, first["violations"], first["seed"]) == (0, 0, 7)
    assert first["placed"] + first["unplaced"] == first["jobs"]
    _, out, _ = flowos(capfd, *words, "--seed", 7, "-o", "json")
    again = json.loads(out)
    same = ("jobs", "placed", "allocated_fraction", "unplaced_reasons")
    assert [again[name] for name in same] == [first[name] for name in same]
