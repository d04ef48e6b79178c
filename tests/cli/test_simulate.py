"""`flowos simulate` as its users see it: a table, sentences, files that stand alone, clear refusals."""

import csv
import gzip
import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flowos_cli.main import run

PAGE = (Path(__file__).parent.parent.parent / "docs/simulate.md").read_text()
QUICK = ("--workload", "exponential", "--set", "seconds=600", "--set", "machines=200")
HEADER = "class,submit_s,tasks,duration_s,cpus,mem_gb\n"


def simulate(capfd, *words):
    code = run(["simulate", *map(str, words)])
    out, err = capfd.readouterr()
    return code, out, err


@pytest.fixture
def jobs(tmp_path):
    path = tmp_path / "jobs.csv"
    rows = [f"{'AB'[n % 2]},{10 * n},{1 + n % 5},60,1,2\n" for n in range(120)]
    path.write_text(HEADER + "".join(rows))
    return path


def test_a_job_list_becomes_a_table_and_sentences(capfd, jobs):
    code, out, err = simulate(capfd, "--jobs", jobs)
    assert (code, err) == (0, "")  # no bar and no word where nobody looks
    head, first, second, *sentences = out.splitlines()
    assert head.split()[:3] == ["CLASS", "CONFLICT", "FRACTION"]
    assert [first.split()[0], second.split()[0]] == ["A", "B"]
    assert len(sentences) == 5
    assert all(sentence.endswith(".") for sentence in sentences)


def test_forms_for_programs_say_the_same(capfd, jobs):
    words = ("--jobs", jobs, "--sweep", "t_job=0.1,5", "--sweep", "schedulers=1,2", "--seeds", 2)
    code, out, _ = simulate(capfd, *words, "-o", "json")
    told = json.loads(out)
    assert code == 0
    assert told["apiVersion"] == "flowos/v1"
    assert told["runs"] == {"done": 8, "of": 8}
    assert (len(told["items"]), len(told["means"])) == (16, 8)
    assert told["interrupted"] is False
    lines = csv.DictReader(simulate(capfd, *words, "-o", "csv")[1].splitlines())
    assert [(float(row["t_job"]), int(row["schedulers"]), int(row["seed"])) for row in lines] == [
        (each["t_job"], each["schedulers"], each["seed"]) for each in told["items"]
    ]
    # With other processes, the same.
    assert simulate(capfd, *words, "-o", "json", "--processes", 1)[1] == out


def test_a_folder_has_a_page_pictures_and_every_run(capfd, tmp_path):
    target = tmp_path / "out"
    words = (*QUICK, "--sweep", "t_job=0.1:10:log:3", "--out", target)
    code, out, err = simulate(capfd, *words)
    assert code == 0
    files = {path.name: path.read_text() for path in target.iterdir()}
    assert {"index.html", "results.csv", "conflict_fraction.svg"} <= set(files)
    assert str(target / "index.html") in err
    for sentence in out.splitlines()[-5:]:
        assert sentence in files["index.html"]
    assert len(files["results.csv"].splitlines()) == 1 + 3 * 2
    # The page's command runs the same again.
    said = re.search(r"<code>flowos (.*?)</code>", files["index.html"])
    assert said is not None
    assert simulate(capfd, *said[1].split()[1:])[1] == out
    # And the same command writes the same bytes.
    assert simulate(capfd, *words)[0] == 0
    assert {path.name: path.read_text() for path in target.iterdir()} == files


def test_full_mode_shares_the_options(capfd, tmp_path):
    trace = tmp_path / "t.jobs.csv"
    rows = [f"j{n},{5 * n},30,gpu,{1 + n % 4}\n" for n in range(60)]
    trace.write_text("job_id,submit_s,duration_s,engine_type,num_engines\n" + "".join(rows))
    words = ("--mode", "full", "--cell", "fic", "--set", "rate=5", "--sweep", "looks=frozen,live")
    code, out, _ = simulate(capfd, *words, "--jobs", trace, "-o", "json", "--processes", 1)
    told = json.loads(out)
    assert code == 0
    assert [mean["looks"] for mean in told["means"]] == ["frozen", "live"]
    assert all(mean["double_holds"] == 0 for mean in told["means"])
    assert all(mean["placed"] == 60 for mean in told["means"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--sweep", "tjob=1"], "--sweep tjob=1: there is no 'tjob': did you mean t_job?"),
        (["--sweep", "t_job=1:2"], "a span is FROM:TO:log:COUNT"),
        (["--set", "t_job.Servce=1"], "there is no class 'Servce': did you mean Service?"),
        (["--set", "t_job=1", "--set", "t_job=2"], "--set: the same is set twice"),
        (["--set", "t_job=1", "--sweep", "t_job=2,3"], "t_job: it is set or varied twice"),
        (["--jobs", "none.csv"], "none.csv: cannot be read: No such file or directory"),
        (["--jobs", "x.csv", "--workload", "heavy"], "--workload: jobs are either read or drawn"),
        (["--cell", "fic"], "--cell: is of full mode: add --mode full"),
        (["--policy", "batch"], "--policy: is of full mode: add --mode full"),
        (["--mode", "full", "--cell", "fic-smal"], "did you mean fic-small?"),
        (["--mode", "full", "--policy", "nobody"], "there is no scheduler 'nobody'"),
        (["--mode", "full", "--set", "machines=5"], "'machines' is not of full mode"),
        (["--set", "tasks_spread=1", "--workload", "exponential"], "take --workload log-normal"),
        (["--seeds", "0"], "0 is not in the range 1<=x<=1000"),
        (
            ["--mode", "full", "--set", "hold=5"],
            "hold: it has no sense for architecture production",
        ),
        (
            ["--mode", "full", "--set", "architecture=offers", "--policy", "batch"],
            "--policy: architectures are compared by one planner",
        ),
        (["--mode", "full", "--set", "architecture=offers-optimistic"], "add --set per_host=4"),
        (["--mode", "full", "--set", "gaps=even"], "gaps: paperlike is drawn"),
        (["--out", "/proc/x"], "/proc/x: cannot be written: No such file or directory"),
        (["--out", "/"], "/: holds other things: name a new folder"),
        (["--out", "nowhere/x"], "nowhere/x: its folder does not exist"),
        (["--set", "load=50", "--mode", "full"], "load: "),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(capfd, tmp_path, words, said):
    with_out = words if "--out" in words else [*words, "--out", str(tmp_path / "out")]
    code, out, err = simulate(capfd, *with_out)
    assert (code, out) == (2, "")
    assert said in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_jobs_of_a_file_are_not_drawn(capfd, jobs):
    code, _, err = simulate(capfd, "--jobs", jobs, "--sweep", "gap=1,2")
    assert code == 2
    assert "gap: jobs.csv is read from a file, and only a drawn load has that" in err


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("A,soon,1,60,1,2", "submit_s is 'soon', not a number"),
        ("A,1,1.5,60,1,2", "tasks is '1.5', not a whole number"),
        ("A,1,1,60,nan,2", "cpus or mem_gb is not a number"),
        ("A,1,1", "has fewer fields than the header"),
        ("A,1,1,60,1,2,3", "has more fields than the header"),
    ],
)
def test_a_line_that_is_wrong_is_named(capfd, jobs, line, said):
    jobs.write_text(f"{HEADER}A,1,1,60,1,2\n{line}\n")
    code, _, err = simulate(capfd, "--jobs", jobs)
    assert code == 2
    assert f"{jobs}:3: {said}" in err


def test_a_job_list_that_is_no_text_is_refused(capfd, tmp_path):
    packed = tmp_path / "jobs.csv.gz"
    packed.write_bytes(gzip.compress(HEADER.encode()))
    code, _, err = simulate(capfd, "--jobs", packed)
    assert (code, err) == (2, f"error: {packed}: is no text: unpack it first\n")


def test_files_are_kept_where_the_screen_is_not(tmp_path):
    target = tmp_path / "out"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "flowos_cli.main", "simulate", *QUICK, "--out", str(target)],
            stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (
        1,
        "error: no room is left where the output goes: make some\n",
    )
    assert (target / "index.html").is_file()


def test_architectures_are_compared_on_real_slices(capfd, tmp_path):
    target = tmp_path / "out"
    words = ("--mode", "full", "--cell", "expether", "--set", "slices=60", "--set", "rate=0.05",
             "--set", "engines_max=4", "--set", "per_host=4", "--set", "hold=60", "--sweep",
             "architecture=monolithic-single,shared-state,offers-optimistic,offers-pessimistic")  # fmt: skip
    code, out, _ = simulate(capfd, *words, "-o", "json", "--out", target, "--processes", 1)
    told = json.loads(out)
    assert code == 0
    by = {mean["architecture"]: mean for mean in told["means"] if mean["class"] == "Batch"}
    # Who holds and waits hoards; who sees everything has nothing hidden from him.
    assert by["offers-pessimistic"]["hoarded_engine_s"] > 0
    assert by["offers-pessimistic"]["only_outside"] > 0
    for name in ("monolithic-single", "shared-state"):
        assert (by[name]["hoarded_engine_s"], by[name]["only_outside"]) == (0, 0)
    assert all(0 < mean["kj_per_engine_hour"] < 1e5 for mean in told["means"])
    for figure in ("hoarded_engine_s", "only_outside", "stranded", "kj_per_engine_hour"):
        assert told["readings"][figure].endswith(".")
        assert (target / f"{figure}.svg").is_file()
    page = (target / "index.html").read_text()
    assert "<th>hold</th><td>60 s</td>" in page
    assert "<th>homes</th>" not in page  # has no sense for any of them


def screen(terminal):
    """What was drawn next; nothing when the last process that draws has gone."""
    try:
        return os.read(terminal, 4096).decode(errors="replace")
    except OSError:
        return ""


@pytest.mark.parametrize("processes", ["1", "2"])
def test_ctrl_c_keeps_what_is_done(tmp_path, processes):
    target = tmp_path / "out"
    words = (*QUICK, "--seeds", "1000", "--processes", processes, "--out", str(target), "-o", "csv")
    csv_file = tmp_path / "runs.csv"
    ours, theirs = pty.openpty()  # a terminal, so that the bar tells how far it is
    with csv_file.open("w") as written:
        child = subprocess.Popen(
            [sys.executable, "-m", "flowos_cli.main", "simulate", *words],
            stdin=subprocess.DEVNULL, stdout=written, stderr=theirs, start_new_session=True,
        )  # fmt: skip
    os.close(theirs)
    told, asked = "", False
    try:
        while more := screen(ours):
            told += more
            if not asked and re.search(r"(?<![\d/])[1-9]\d*/1000", told):
                asked = True
                os.killpg(child.pid, signal.SIGINT)  # as a terminal does: every process gets it
        child.wait(timeout=60)
    finally:
        child.kill()
        os.close(ours)
    out = csv_file.read_text()
    assert child.returncode == 130, told
    assert "Traceback" not in told
    done = re.search(r"interrupted: (\d+) of 1,000 runs were done", told)
    assert done is not None, told
    assert len(out.splitlines()) == 1 + 2 * int(done[1])
    assert (target / "results.csv").read_text() == out
    assert "The sweep was interrupted" in (target / "index.html").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "runs.csv"]


# ----------------------------------------------------------------------------------- what is told


def test_help_lists_everything_that_can_be_set(capfd):
    from flowos.simulation.sweeps.knobs import KNOBS

    out = simulate(capfd, "--help")[1]
    for knob in KNOBS.values():
        assert re.search(rf"^  {knob.name}(\[\.CLASS\])? ", out, re.MULTILINE), knob.name


def test_the_page_knows_everything_that_can_be_set():
    from flowos.simulation.sweeps.knobs import KNOBS

    assert [name for name in KNOBS if f"`{name}`" not in PAGE] == []


COMMANDS = re.findall(r"^\$ (flowos simulate .*?[^\\])$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_page_has_commands():
    assert len(COMMANDS) >= 4


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_page_works_and_says_what_the_page_says(command, tmp_path, capfd):
    words = command.replace("\\\n", " ").split("#")[0].split()[2:]
    (tmp_path / "my-jobs.csv").write_text(
        HEADER + "".join(f"Batch,{20 * n},5,60,1,2\n" for n in range(100))
    )
    trace = "job_id,submit_s,duration_s,engine_type,num_engines\n" + "".join(
        f"j{n},{600 * n},3000,gpu,{1 + n % 8}\n" for n in range(2000)
    )
    (tmp_path / "philly_2017a.jobs.csv.gz").write_bytes(gzip.compress(trace.encode()))
    before = Path.cwd()
    os.chdir(tmp_path)
    try:
        code, out, err = simulate(capfd, *words)
    finally:
        os.chdir(before)
    assert code == 0, err
    shown = PAGE.partition(f"$ {command}\n")[2].partition("```")[0].partition("$ ")[0]
    said = [" ".join(line.split()) for line in out.splitlines()]
    for line in filter(None, map(str.strip, shown.splitlines())):
        assert " ".join(line.split()) in said
