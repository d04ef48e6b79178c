"""Sweeps: what a text means, that runs are the same whoever plays them, and that sentences are true."""

import csv
import io
import os
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

from flowos.documents.presets import preset
from flowos.model.errors import FileError, FlowosError, SpecError
from flowos.simulation.full.run import run as run_full
from flowos.simulation.light.run import run as run_light
from flowos.simulation.sweeps import runs as played
from flowos.simulation.sweeps.charts import Chart, Dot, Line, Panel, is_log, is_wide
from flowos.simulation.sweeps.crew import points_of, sweep
from flowos.simulation.sweeps.figures import DRAWN, as_csv, means, runs
from flowos.simulation.sweeps.folder import Folder
from flowos.simulation.sweeps.knobs import Value, grid, read_axis, read_setting, value_of
from flowos.simulation.sweeps.loads import Load, drawn_load, read_load
from flowos.simulation.sweeps.page import Story
from flowos.simulation.sweeps.readings import Series, Told, reading
from flowos.simulation.sweeps.runs import Full, Ground
from flowos_schedulers.batch import Batch
from flowos_store import MemoryStore

LIGHT = Ground(drawn_load("exponential"))
SHORT: dict[str, Value] = {"seconds": 600.0, "machines": 100}
CONFLICTS = DRAWN["light"][0]
SVG = "{http://www.w3.org/2000/svg}"


# ------------------------------------------------------------------------------ what a text means


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("t_job=0.1:10:log:3", (0.1, 1.0, 10.0)),
        ("prefilled=0:1:linear:5", (0.0, 0.25, 0.5, 0.75, 1.0)),
        ("schedulers=1:8:log:4", (1, 2, 4, 8)),
        ("schedulers.Batch=1,2,4", (1, 2, 4)),
        ("check=fine,coarse", ("fine", "coarse")),
    ],
)
def test_values_are_read(text, values):
    axis = read_axis(text, "light")
    assert axis.name == text.partition("=")[0]
    assert axis.values == values


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("t_job=0.1:100:log", "a span is FROM:TO:log:COUNT"),
        ("t_job=0.1:100:exp:4", "a span is FROM:TO:log:COUNT"),
        ("t_job=0:1:log:3", "begins above 0"),
        ("t_job=1:1:linear:3", "1 is not below 1"),
        ("t_job=1:2:linear:9999", "2 to 1000 make a span"),
        ("t_job=1,1", "twice"),
        ("t_job=nan", "out of range"),
        ("check=fine:coarse:log:2", "it has no numbers"),
        ("schedulers=1.5", "not a whole number"),
        ("check=corse", "did you mean coarse?"),
        ("t_jb=1", "did you mean t_job?"),
        ("load=0.5", "add --mode full"),
        ("check.Batch=fine", "not set for a class"),
        ("t_job.=1", "not set for a class"),
        ("t_job", "has no value"),
    ],
)
def test_what_means_nothing_is_refused_with_its_place_and_a_way_out(text, said):
    with pytest.raises(SpecError, match=re.escape(said)) as raised:
        read_axis(text, "light")
    assert raised.value.where == f"--sweep {text}"


def test_several_axes_make_a_grid_and_nothing_is_said_twice():
    axes = [read_axis("t_job=1,2", "light"), read_axis("schedulers=1,3", "light")]
    key, value = read_setting("t_task=0.5", "light")
    assert grid(axes, {key: value}) == [
        {"t_task": 0.5, "t_job": t, "schedulers": n} for t in (1.0, 2.0) for n in (1, 3)
    ]
    with pytest.raises(SpecError, match="t_job: it is set or varied twice"):
        grid([axes[0], axes[0]], {})
    many = [read_axis(f"{name}=1:1000:linear:1000", "light") for name in ("t_job", "t_task")]
    with pytest.raises(SpecError, match="more than 100,000 runs"):
        grid(many, {})


def test_a_class_has_its_own_value_before_that_of_all_before_the_default():
    settings = {"t_job": 2.0, "t_job.Service": 5.0}
    assert value_of(settings, "t_job", "light", "Service") == 5.0
    assert value_of(settings, "t_job", "light", "Batch") == 2.0
    assert value_of({"t_job.Service": 5.0}, "t_job", "light", "Batch") == 0.1
    assert value_of({}, "schedulers", "full") == 2


# ----------------------------------------------------------------------------------------- loads


def test_what_is_drawn_follows_its_knobs():
    load = drawn_load("log-normal")
    usual = load.jobs_of({"seconds": 50_000.0}, "light")
    same = load.jobs_of({"seconds": 50_000.0, "t_job": 9.0}, "light")
    assert usual is same  # what is not of the load draws nothing anew
    other = load.jobs_of({"seconds": 50_000.0, "draw": 1}, "light")
    assert other != usual
    fast = load.jobs_of({"seconds": 50_000.0, "gap.Batch": 5.0}, "light")
    count = {jobs: sum(j.name == "Batch" for j in x) for jobs, x in (("u", usual), ("f", fast))}
    assert count["f"] / count["u"] == pytest.approx(2.0, rel=0.1)
    flat = load.jobs_of({"seconds": 50_000.0, "tasks": 7.0, "tasks_spread": 0.0}, "light")
    assert {job.tasks for job in flat} <= {7, 8}
    assert {job.cpu_millis for job in load.jobs_of({"cpus": 0.5}, "light")} == {500}


def test_log_normal_has_the_means_of_exponential():
    def mean(name):
        jobs = drawn_load(name).jobs_of({"seconds": 500_000.0}, "light")
        return sum(job.tasks * job.duration_s for job in jobs) / len(jobs)

    assert mean("log-normal") == pytest.approx(mean("exponential"), rel=0.1)


def test_a_list_lasts_to_the_end_of_the_hour_of_its_last_job(tmp_path):
    path = tmp_path / "jobs.csv"
    path.write_text("class,submit_s,tasks,duration_s,cpus,mem_gb\nA,7000,1,1,1,1\nB,0,1,1,1,1\n")
    load = read_load(path, "light")
    assert load.seconds({}, "light") == 7200.0
    assert load.seconds({"seconds": 60.0}, "light") == 60.0
    assert load.classes == ("A", "B")


def test_the_header_says_which_file_it_is(tmp_path):
    trace = tmp_path / "x.jobs.csv"
    trace.write_text("job_id,submit_s,duration_s,engine_type,num_engines\na,0,5,gpu,1\n")
    assert read_load(trace, "full").trace[0].name == "a"
    with pytest.raises(FileError, match="add --mode full"):
        read_load(trace, "light")
    trace.write_text("job_id,submit_s,duration_s,engine_type,num_engines\na,0,,gpu,1\n")
    with pytest.raises(FileError, match="no job has a duration"):
        read_load(trace, "full")
    empty = tmp_path / "empty.csv"
    empty.write_text("class,submit_s,tasks,duration_s,cpus,mem_gb\n")
    with pytest.raises(FileError, match="holds no job"):
        read_load(empty, "light")
    alike = tmp_path / "alike.csv"
    rows = "a b,0,1,1,1,1\na-b,0,1,1,1,1\n"
    alike.write_text("class,submit_s,tasks,duration_s,cpus,mem_gb\n" + rows)
    assert read_load(alike, "light").classes == ("a b", "a-b")
    with pytest.raises(FileError, match="give them other names"):
        read_load(alike, "full")


# ------------------------------------------------------------------------------------------ runs


def test_every_knob_of_light_mode_reaches_the_model(monkeypatch):
    seen = []

    def watched(setup, jobs):
        seen.append(setup)
        return run_light(setup, jobs[:1])

    monkeypatch.setattr(played, "run_light", watched)
    LIGHT.play(
        {
            "architecture": "offers", "schedulers.Batch": 3, "t_job": 2.0, "t_task.Service": 1.0,
            "looks": "live", "round_trip": 0.5, "check": "coarse", "commit": "all-or-nothing",
            "machines": 7, "machine_cpus": 2.0, "machine_mem_gb": 3.0, "prefilled": 0.25,
            "seconds": 99.0,
        },
        5,
    )  # fmt: skip
    (setup,) = seen
    assert (setup.size.count, setup.size.cpu_millis, setup.size.memory_mib) == (7, 2000, 3072)
    assert (setup.prefilled, setup.seconds, setup.architecture) == (0.25, 99.0, "offers")
    assert (setup.paces["Batch"].job_s, setup.paces["Batch"].task_s) == (2.0, 0.005)
    assert setup.paces["Service"].task_s == 1.0
    assert setup.schedulers == {"Batch": 3, "Service": 1}
    assert (setup.check, setup.mode, setup.live_round_trip_s) == ("coarse", "all-or-nothing", 0.5)
    assert setup.seed == 5
    LIGHT.play({"seconds": 99.0}, 1)
    assert seen[-1].live_round_trip_s is None
    assert (seen[-1].size.count, seen[-1].prefilled) == (500, 0.0)


def test_who_only_conflicts_does_not_look_like_one_who_never_does(monkeypatch):
    def watched(setup, jobs):
        found = run_light(setup, jobs[:1])
        found.classes["Batch"].transactions_ok = 0
        found.classes["Batch"].conflicts = 7
        return found

    monkeypatch.setattr(played, "run_light", watched)
    batch, service = LIGHT.play({"seconds": 99.0}, 1)
    assert batch.figures["conflict_fraction"] == 7.0
    assert service.figures["conflict_fraction"] == 0.0


@pytest.fixture
def full():
    means_ = Full(preset("fat-tree:128"), "fat-tree:128", Batch(), "batch", MemoryStore)
    return Ground(drawn_load("exponential"), means_)


def test_every_knob_of_the_production_code_reaches_it(full, monkeypatch):
    seen = []

    def watched(setup, arrivals, **more):
        seen.append(setup)
        return run_full(setup, arrivals, **more)

    monkeypatch.setattr("flowos.simulation.full.run.run", watched)
    full.play(
        {
            "slices": 60, "rate": 5.0, "schedulers": 3, "t_job.Batch": 2.0, "t_task": 1.0, "queues": "each",
            "looks": "frozen", "round_trip": 0.5, "news": 0.25, "check": "coarse", "homes": "no",
            "seconds": 99.0,
        },
        7,
    )  # fmt: skip
    full.play({"slices": 60, "rate": 5.0}, 1)
    said, usual = seen
    batch, service = said.teams
    assert (batch.schedulers, batch.pace.job_s, batch.pace.task_s, batch.queues) == (
        3,
        2.0,
        1.0,
        "each",
    )
    assert service.pace.job_s == 0.1
    assert (said.seconds, said.looks, said.round_trip_s, said.news_s) == (99.0, "frozen", 0.5, 0.25)
    assert (said.check, said.homes, said.seed) == ("coarse", False, 7)
    assert (usual.looks, usual.check, usual.homes) == ("live", "fine", True)


def test_full_mode_runs_the_production_code(full):
    found = full.play({"slices": 60, "rate": 5.0, "schedulers": 3, "queues": "each"}, 1)
    assert [row.of_class for row in found] == ["Batch", "Service"]
    assert sum(row.figures["placed"] for row in found) == 60
    assert all(row.figures["double_holds"] == 0 for row in found)
    assert found == full.play({"slices": 60, "rate": 5.0, "schedulers": 3, "queues": "each"}, 1)
    low, high = (full.play({"slices": 200, "load": load}, 1)[0].figures for load in (0.2, 0.8))
    assert high["utilisation"] > 2 * low["utilisation"]


def test_a_trace_is_one_class(full, tmp_path):
    path = tmp_path / "t.csv"
    rows = [f"j{n},{n},30,gpu,{1 + n % 4}" for n in range(50)]
    path.write_text("\n".join(["job_id,submit_s,duration_s,engine_type,num_engines", *rows]))
    (row,) = Ground(read_load(path, "full"), full.full).play({}, 1)
    assert (row.of_class, row.figures["placed"]) == ("all", 50)


def test_a_load_that_no_cell_can_have_is_refused(full, tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("job_id,submit_s,duration_s,engine_type,num_engines\na,0,5,gpu,1\n")
    with pytest.raises(SpecError, match=r"load: .*: set less of it, or more slices"):
        full.play({"slices": 20, "load": 50.0, "engines_max": 1}, 1)
    with pytest.raises(SpecError, match=r"t\.csv: none that fits the cell comes after"):
        Ground(read_load(path, "full"), full.full).play({}, 1)


def test_it_does_not_matter_who_plays():
    axes = [read_axis("t_job=0.1,3", "light")]
    points = points_of([SHORT | each for each in grid(axes, {})], 2)
    alone, beside = (sweep(LIGHT, points, processes=n) for n in (1, 2))
    assert len(alone.rows) == 4
    assert alone.rows == beside.rows
    # The whole grid under one seed comes before any second seed.
    assert [(point.number, point.seed) for point in points] == [(0, 1), (1, 1), (0, 2), (1, 2)]


class Interrupted:
    """A ground on which somebody presses Ctrl-C in the third run."""

    def __init__(self):
        self.played = 0

    def play(self, settings, seed):
        self.played += 1
        if self.played == 3:
            raise KeyboardInterrupt
        return LIGHT.play(settings, seed)


def test_an_interrupted_sweep_keeps_what_is_done():
    found = sweep(Interrupted(), points_of([SHORT], 5))
    assert found.interrupted
    assert sorted(found.rows) == [0, 1]
    (mean, _) = means(found)
    assert mean.seeds == 2


class Deadly:
    """A ground that ends its process."""

    def play(self, settings, seed):
        os._exit(9)


class Unlawful:
    """A ground with an impossible run."""

    def play(self, settings, seed):
        raise SpecError("cannot be", where="x")


def test_a_process_that_dies_is_told_and_none_is_left():
    with pytest.raises(
        FlowosError, match=r"the process of the run with t_job 3, seed \d, has died"
    ):
        sweep(Deadly(), points_of([{"t_job": 3}], 2), processes=2)
    with pytest.raises(SpecError, match="x: cannot be"):
        sweep(Unlawful(), points_of([{}], 2), processes=2)


# ---------------------------------------------------------------------------------------- tables


def swept(*texts, seeds=2, settings=SHORT, ground=LIGHT):
    axes = tuple(read_axis(text, "light") for text in texts)
    points = points_of([settings | each for each in grid(axes, {})], seeds)
    return Story(ground, axes, {}, seeds, sweep(ground, points), "flowos simulate ...")


def test_means_are_of_all_seeds_and_every_run_is_a_row():
    story = swept("t_job=0.1,3")
    assert len(story.rows) == 2 * 2 * 2
    assert list(story.rows[0])[:3] == ["t_job", "seed", "class"]
    (batch, *_) = [mean for mean in story.means if mean.of_class == "Batch"]
    own = [r["conflict_fraction"] for r in story.rows if (r["t_job"], r["class"]) == (0.1, "Batch")]
    assert batch.figures["conflict_fraction"] == pytest.approx(sum(own) / 2)
    assert (batch.least["conflict_fraction"], batch.most["conflict_fraction"]) == (
        min(own),
        max(own),
    )
    read = list(csv.DictReader(io.StringIO(as_csv(runs(story.swept, story.axes)))))
    assert [float(row["conflict_fraction"]) for row in read] == pytest.approx(
        [row["conflict_fraction"] for row in story.rows]
    )
    assert as_csv([]) == ""


# ------------------------------------------------------------------------------------- sentences


def series(values, *, subject="", saturated=(), ordered=True, noise=0.0):
    told = [
        Told(f"t_job {n} s", f"{n} s", f"{subject}, t_job {n} s".strip(", "), value, noise,
             n in saturated)
        for n, value in enumerate(values, 1)
    ]  # fmt: skip
    return Series(subject, tuple(told), ordered)


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (series([0.001, 0.02, 0.24, 0.1], saturated={4}),
         "grow from 0.001 to 0.24 between t_job 1 s and 3 s, the queue is saturated from 4 s on."),
        (series([3, 2, 1]), "fall from 3 to 1 between t_job 1 s and 3 s."),
        (series([1, 5, 2]), "lie between 1 (t_job 1 s) and 5 (t_job 2 s)."),
        (series([1, 5, 4.9, 6]), "grow from 1 to 6 between t_job 1 s and 4 s."),
        (series([1.0, 1.02, 0.99]), "stay at about 1."),
        (series([1.0, 2.0, 1.5], noise=1.0), "stay at about 1.5."),
        (series([0, 0]), "are 0 throughout."),
        (series([0.5]), "are 0.5 (t_job 1 s)."),
        (series([1, 2], ordered=False), "lie between 1 (t_job 1 s) and 2 (t_job 2 s)."),
        (series([3, 2, 1], saturated={1}),
         "fall from 2 to 1 between t_job 2 s and 3 s, the queue is saturated up to 1 s."),
        (series([1, 9, 2], saturated={2}),
         "grow from 1 to 2 between t_job 1 s and 3 s, the queue is saturated at 2 s."),
        (series([1, 2], saturated={1, 2}),
         "grow from 1 to 2 between t_job 1 s and 2 s, with its queue saturated throughout."),
    ],
)  # fmt: skip
def test_a_sentence_says_what_the_numbers_say(one, said):
    assert reading(CONFLICTS, [one]) == f"Conflicts for each success {said}"


def test_several_lines_are_told_one_by_one_and_many_by_their_ends():
    two = [series([1, 2], subject="Batch"), series([0, 0], subject="Service")]
    assert reading(CONFLICTS, two) == (
        "Conflicts for each success: Batch: grow from 1 to 2 between t_job 1 s and 2 s; "
        "Service: 0 throughout."
    )
    alone = [series([1], subject="Batch"), series([2], subject="Service")]
    assert reading(CONFLICTS, alone) == "Conflicts for each success: Batch 1; Service 2."
    many = [series([n, n + 1], subject=f"c{n}", saturated={2} & {n}) for n in range(1, 6)]
    assert reading(CONFLICTS, many) == (
        "Conflicts for each success lie between 1 (c1, t_job 1 s) and 6 (c5, t_job 2 s); the queue is "
        "saturated in 1 of 10 cases."
    )


# --------------------------------------------------------------------------------------- pictures


def circles(chart):
    return [
        (float(c.attrib["cx"]), float(c.attrib["cy"]), c.attrib["fill"])
        for c in ET.fromstring(chart.svg()).iter(f"{SVG}circle")
    ]


def chart(dots, **more):
    return Chart("C", "x", "y", (Panel("P", (Line("", tuple(dots)),)),), **more)


def test_values_lie_where_the_scales_say():
    at = circles(chart([Dot(x, y, y, y) for x, y in ((0, 0), (1, 5), (2, 10))]))
    assert at[1][0] - at[0][0] == pytest.approx(at[2][0] - at[1][0], abs=0.2)
    assert at[0][1] - at[1][1] == pytest.approx(at[1][1] - at[2][1], abs=0.2)
    assert at[2][1] < at[0][1]  # more is higher
    logs = circles(chart([Dot(x, x, x, x) for x in (1, 10, 100)], x_log=True, y_log=True))
    assert logs[1][0] - logs[0][0] == pytest.approx(logs[2][0] - logs[1][0], abs=0.2)
    assert logs[0][1] - logs[1][1] == pytest.approx(logs[1][1] - logs[2][1], abs=0.2)


def test_nothing_has_its_own_place_on_a_log_scale():
    found = chart([Dot(1, 0, 0, 0), Dot(2, 0.01, 0.01, 0.01), Dot(3, 1, 1, 1)], y_log=True)
    zero, low, _ = circles(found)
    assert zero[1] > low[1]
    assert ">0</text>" in found.svg()


@pytest.mark.parametrize("values", [[0.0], [0.0, 0.0], [1e-9, 1e9], [5.0, 5.0], [0.0, 1e-300]])
@pytest.mark.parametrize("x_log", [False, True])
def test_no_values_are_too_odd_to_be_drawn(values, x_log):
    dots = [Dot(n, value, value, value) for n, value in enumerate(values, 1)]
    found = circles(chart(dots, x_log=x_log and len(dots) > 1, y_log=is_wide(values)))
    assert all(0 <= x <= 600 and 0 <= y <= 306 for x, y, _ in found)


def test_words_become_labels_and_nothing_joins_them():
    found = chart([Dot(0, 1, 1, 1, True), Dot(1, 2, 2, 2)], labels=("a<b", "c"), hollow="full")
    assert [fill for *_, fill in circles(found)][:2] == ["#ffffff", "#0072b2"]
    assert found.pieces() == [found.svg()]
    text = found.svg()
    assert "a&lt;b</text>" in text
    assert ">full</text>" in text
    assert "polyline" not in text


def test_factors_and_steps_are_told_apart():
    assert is_log([1, 2, 4, 8])
    assert is_log([0.1, 10])
    assert not is_log([1, 2, 3, 4])
    assert not is_log([0, 1, 10])
    assert not is_log([5])


# ----------------------------------------------------------------------------------------- a page


def test_the_page_stands_alone_and_says_what_was_assumed():
    story = swept("t_job=0.1,1,10", "schedulers=1,2", seeds=1)
    files = story.files()
    page = files["index.html"]
    # On the page each panel is a picture of its own, so that a narrow screen has room for it.
    assert page.count("<svg") == sum(len(each.chart.panels) for each in story.shown)
    assert len(DRAWN["light"]) == len(files) - 2
    assert "prefers-color-scheme:dark" in page
    assert not re.findall(r'(?:src|href)="(?!results\.csv)', page)
    for each in story.shown:
        assert each.reading.replace("'", "&#x27;") in page
    assert "<th>t_job</th><td>0.1, 1, 10 s</td>" in page
    assert "<th>machines</th>" in page  # what nobody set is there too
    assert "6 points, each run with 1 seed" in page
    for text in files.values():
        if text.startswith("<svg"):
            ET.fromstring(text)
    assert files == swept("t_job=0.1,1,10", "schedulers=1,2", seeds=1).files()


def test_many_lines_go_to_a_panel_for_each_class():
    story = swept("t_job=0.1,1", "schedulers=1,2,3,4", seeds=1)
    first = story.shown[0].chart
    assert [panel.title for panel in first.panels] == ["Conflicts: Batch", "Conflicts: Service"]
    assert [line.label for line in first.panels[0].lines] == [
        f"schedulers {n}" for n in range(1, 5)
    ]
    words = swept("architecture=monolithic-multi,offers", seeds=1).shown[0].chart
    assert words.labels == ("monolithic-multi", "offers")
    assert swept(seeds=1).shown[0].chart.labels == ("",)


def test_who_cannot_keep_up_is_marked():
    slow = swept("t_job=0.1,60", seeds=1, settings={"seconds": 600.0})
    assert [mean.is_saturated for mean in slow.means if mean.of_class == "Batch"] == [False, True]
    assert "the queue is saturated from 60 s on" in slow.shown[0].reading
    left = replace(slow.means[0], figures=slow.means[0].figures | {"queue_left": 50, "jobs": 100})
    assert left.is_saturated


def test_a_name_cannot_break_the_page():
    load = Load(
        "<script>", tuple(replace(j, name="<b>") for j in LIGHT.load.jobs_of(SHORT, "light"))
    )
    page = swept("t_job=1,2", seeds=1, ground=Ground(load)).html()
    assert "<script>" not in page
    assert "<b>" not in page


# --------------------------------------------------------------------------------------- a folder


def test_all_files_or_none(tmp_path, monkeypatch):
    target = tmp_path / "out"
    files = {"results.csv": "a", "x.svg": "s", "index.html": "p"}
    written = Folder.at(target).write(files)
    assert {path.name: path.read_text() for path in written} == files
    # A second sweep replaces the first, with no picture left over.
    Folder.at(target).write({"results.csv": "b", "index.html": "q"})
    assert sorted(path.name for path in target.iterdir()) == ["index.html", "results.csv"]
    assert (target / "results.csv").read_text() == "b"

    def full(*_args, **_more):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    for path in (tmp_path / "new", target):
        with pytest.raises(FileError, match="cannot be written: No space left on device"):
            Folder.at(path).write(files)
    monkeypatch.undo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
    assert (target / "results.csv").read_text() == "b"


def test_a_folder_of_others_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(FileError, match="holds other things: name a new folder"):
        Folder.at(tmp_path)
    with pytest.raises(FileError, match="is a file: name a folder"):
        Folder.at(tmp_path / "mine.txt")
    with pytest.raises(FileError, match="its folder does not exist: mkdir -p"):
        Folder.at(tmp_path / "a" / "b")
    # What refuses is refused before minutes are spent; root, too, makes nothing here.
    with pytest.raises(FileError, match="/proc/out: cannot be written"):
        Folder.at(Path("/proc/out"))
    (tmp_path / "empty").mkdir()
    Folder.at(tmp_path / "empty").write({"index.html": "p", "results.csv": "a"})
