"""`flowos tune` as its users see it: files that can be applied, a verdict, and clear refusals."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from flowos.documents.planner_file import load_planner
from flowos.planning.engines.weights import DEFAULT, Weights
from flowos.simulation.tuning.episode import Metrics
from flowos_cli.main import run

QUICK = (
    "--cell", "fic-small", "--synthetic", "slices=40", "--generations", "1", "--episodes", "1",
    "--held-out", "5", "--processes", "1",
)  # fmt: skip


def tune(capfd, *words):
    code = run(["tune", *map(str, words)])
    out, err = capfd.readouterr()
    return code, out, err


def test_a_run_writes_a_planner_file_and_its_report(capfd, tmp_path):
    target = tmp_path / "w.yaml"
    code, out, err = tune(capfd, *QUICK, "--out", target, "-o", "json")
    told = json.loads(out)
    assert code == 0
    assert "(0 of" in err
    assert told["files"] == [
        str(target),
        *(str(tmp_path / f"w.report.{x}") for x in ("json", "md")),
    ]
    assert set(told["held_out"]["metrics"]) == set(Metrics._fields)
    assert len(told["held_out"]["seeds"]) == 5
    rules = load_planner(target, weights=Weights._fields)
    assert rules.report["digest"] == told["workload"]["digest"]
    assert rules.report["tuned"] == told["adopted"]
    assert dict(rules.weights) == (told["weights"] if told["adopted"] else {})
    assert json.loads((tmp_path / "w.report.json").read_text())["verdict"] == told["verdict"]
    assert told["verdict"][1:] in (tmp_path / "w.report.md").read_text()


def test_nothing_better_is_no_failure_and_says_so(capfd, tmp_path):
    target = tmp_path / "w.yaml"
    code, out, _ = tune(capfd, *QUICK, "--generations", 0, "--out", target)
    assert code == 0
    assert out.startswith("kept the default: no generation was played\n")
    assert "weights: as they were" in out


def test_a_planner_file_is_started_from_and_what_else_it_says_is_kept(capfd, tmp_path):
    base, target = tmp_path / "base.yaml", tmp_path / "w.yaml"
    base.write_text("weights: {idle: 7}\nspeeds: {bert: {A100: 3845}}\nwake: 5s\n")
    words = ("--planner", base, "--out", target, "-o", "json")
    code, out, _ = tune(capfd, *QUICK, *words, "--generations", 0)
    told = json.loads(out)
    assert code == 0
    assert told["default"] == DEFAULT._replace(idle=7)._asdict()
    assert told["settings"]["power_on_seconds"] == 5
    rules = load_planner(target, weights=Weights._fields)
    assert rules.speeds == {"bert": {"A100": 3845}}
    assert rules.weights == {"idle": 7}


def test_the_same_command_says_the_same(capfd, tmp_path):
    words = (*QUICK, "-o", "json", "--out", tmp_path / "w.yaml")
    assert tune(capfd, *words)[1] == tune(capfd, *words)[1]


def test_recorded_jobs_are_learned_from(capfd, tmp_path):
    jobs = tmp_path / "x.jobs.csv"
    rows = [f"j{n},{40 * n},60,gpu,{1 + n % 3}" for n in range(300)]
    header = "job_id,submit_s,duration_s,engine_type,num_engines"
    jobs.write_text("\n".join([header, *rows]))
    code, out, _ = tune(
        capfd, "--cell", "fic-small", "--jobs", jobs, "--slices", 60, "--load", 0.5,
        "--generations", 1, "--episodes", 1, "--held-out", 5, "--processes", 1,
        "--out", tmp_path / "w.yaml", "-o", "json",
    )  # fmt: skip
    told = json.loads(out)
    assert code == 0
    assert told["workload"]["about"].startswith("recorded: 300 jobs, load 0.50")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--cell", "fic-smal"], "is neither a file nor a preset: did you mean fic-small?"),
        (["--jobs", "none.csv"], "none.csv: cannot be read"),
        (["--synthetic", "lode=1"], "--synthetic: there is no 'lode'"),
        (["--synthetic", "load=1", "--jobs", "x.csv"], "a log is either recorded or drawn"),
        (["--load", "0.5"], "--load: goes with --jobs: write --synthetic load=0.5"),
        (["--importance", "wait=1"], "--importance: there is no metric 'wait'"),
        (["--importance", "wait_s=-1"], "wait_s is '-1', not a number from 0 up"),
        (["--importance", "wait_s=0"], "--importance: nothing counts"),
        (["--planner", "none.yaml"], "none.yaml: cannot be read"),
        (["--max-worse", "2"], "2.0 is not in the range 0<=x<=1"),
        (["--out", "/"], "/: is a folder"),
        (["--out", "nowhere/w.yaml"], "nowhere/w.yaml: its folder does not exist"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_played(capfd, tmp_path, words, said):
    with_out = words if "--out" in words else [*words, "--out", str(tmp_path / "w.yaml")]
    code, out, err = tune(capfd, *with_out)
    assert code == 2
    assert said in err
    assert "Traceback" not in err
    assert out == ""
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_ends_the_search_and_judges_what_there_is(tmp_path):
    target = tmp_path / "w.yaml"
    words = (*QUICK, "--generations", "1000", "--processes", "2", "--out", str(target))
    child = subprocess.Popen(
        [sys.executable, "-m", "flowos_cli.main", "tune", *words],
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert child.stderr is not None
    try:
        for line in child.stderr:
            if "what matters" in line:
                break
        time.sleep(0.5)
        os.killpg(child.pid, signal.SIGINT)  # as a terminal does: every process gets it
        out, err = child.communicate(timeout=60)
    finally:
        child.kill()
    assert child.returncode == 0, err
    assert "Traceback" not in err
    assert target.exists()
    assert "weights:" in out
