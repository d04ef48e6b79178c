"""What planners are told, and slices that name their data and their work."""

import json

import pytest

from flowos.model.codec import decode
from flowos.model.rules import PlannerRules
from flowos.planning.engines.weights import DEFAULT

pytestmark = pytest.mark.etcd

RULES = """
weights: {load: 50, wake: 0}
speeds: {bert: {A100: 3488, U250: 300}}
units: {bert: samples}
joule_seconds: 0
report: {seeds: 10}
"""
SLICE = """
name: near
engines:
  workers:
    anyOf:
      - {kind: gpu, model: A100}
      - {kind: fpga}
data: [{at: n0/nvme0, bytes: SIZE, to: workers}]
work: {workers: {type: bert, amount: 3.488e6}}
"""


@pytest.fixture
def file(tmp_path):
    """Write a file and return its name."""

    def write(text, name="f.yaml"):
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write


def test_planners_are_told_what_a_file_says_and_show_says_it_again(still, file):
    before = still("cell", "planner", "show", "-o", "json").json
    assert before["weights"] == DEFAULT._asdict()
    assert "speeds" not in before
    said = still("cell", "planner", "apply", file(RULES))
    assert said.err == "planners: 2 weights set, 2 speeds of 1 type of work\n"
    shown = still("cell", "planner", "show", "-o", "json").json
    assert shown["weights"] == {**DEFAULT._asdict(), "load": 50, "wake": 0}
    assert shown["speeds"] == {"bert": {"A100": 3488, "U250": 300}}
    assert shown["report"] == {"seeds": 10}
    (record,) = still.store.read(["rule/"]).records
    assert decode(PlannerRules, record.value).weights == {"load": 50.0, "wake": 0.0}


def test_what_show_writes_apply_reads_to_the_same(still, file):
    still("cell", "planner", "apply", file(RULES))
    shown = ""
    for form in ("yaml", "json"):
        shown = still("cell", "planner", "show", "-o", form).out
        still("cell", "planner", "apply", file(shown, f"again.{form}"))
        assert still("cell", "planner", "show", "-o", form).out == shown
    assert still("cell", "planner", "apply", file(shown, "f.json")).err == "planners: unchanged\n"


def test_table_shows_weights_that_differ_from_their_defaults(still, file):
    still("cell", "planner", "apply", file(RULES))
    lines = still("cell", "planner", "show").lines
    (load,) = [line.split() for line in lines if line.startswith("load")]
    assert load == ["load", "50", f"{DEFAULT.load:g}"]
    (bert,) = [line for line in lines if line.startswith("bert")]
    assert "samples" in bert
    assert "A100 3,488" in bert


def test_speeds_come_from_a_table_beside_the_file(still, file):
    file("engine_model,work_type,unit,rate_per_engine\nA100-X,bert,samples/s,7\n", "t.csv")
    name = file("speeds_from: {file: t.csv, models: {A100: A100-X}}")
    still("cell", "planner", "apply", name)
    shown = still("cell", "planner", "show", "-o", "json").json
    assert shown["speeds"] == {"bert": {"A100": 7.0}}
    assert shown["units"] == {"bert": "samples"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("weights: {laod: 1}", "f.yaml:1: weights.laod: there is no weight"),
        ("weights: {load: -1}", "-1 is no weight: write a number from 0 on"),
        ('weights: {load: "NaN"}', "is no weight"),
        ("speeds: {bert: {A100: 0}}", "0 is no speed: write a number above 0"),
        ("speeds: {bert: 3}", "speeds.bert: must be a mapping"),
        ("joule_seconds: -0.1", "-0.1 is no worth of a joule"),
        ("weight: {load: 1}", "did you mean weights?"),
        ("speeds_from: nowhere.csv", "nowhere.csv: cannot be read"),
        ("wake: soon", 'wake: "soon" is not a duration'),
        ("a: 1\n---\nb: 1", "has 2 documents"),
    ],
)
def test_wrong_file_is_refused_with_its_place_and_nothing_is_written(still, file, text, told):
    said = still("cell", "planner", "apply", file(text), code=2)
    assert told in said.err
    assert not still.store.read(["rule/planner"]).records


def test_table_with_a_rate_that_is_none_names_its_line(still, file):
    file("work_type,num_engines,v100\na,1,3\nb,1,fast\n", "t.csv")
    said = still("cell", "planner", "apply", file("speeds_from: t.csv"), code=2)
    assert "t.csv:3" in said.err


def test_store_without_a_cell_is_said(empty, file):
    assert "cell init" in empty("cell", "planner", "apply", file(RULES), code=2).err
    assert "cell init" in empty("cell", "planner", "show", code=2).err


def test_running_scheduler_goes_by_new_rules_and_explain_names_the_choice(live, file):
    live("cell", "planner", "apply", file(RULES))
    # 1,000 s on the A100 and 11,627 s on the FPGA: a petabyte would take longer to move.
    live("submit", file(SLICE.replace("SIZE", "40GB")), "--wait", "running")
    shown = live("slice", "show", "near", "-o", "json").json
    assert [e["kind"] for e in shown["engines"]] == ["gpu"]
    assert shown["engines"][0]["node"] == "n0"
    assert shown["data"] == [
        {
            "at": "n0/nvme0",
            "bytes": 40 * 10**9,
            "estimated": False,
            "to": "workers",
            "circuit": None,
        }
    ]
    assert shown["work"] == {"workers": {"type": "bert", "amount": 3.488e6}}
    assert "n0/nvme0" in live("slice", "show", "near").out
    held = [e for e in live("engine", "ls", "-o", "json").json["items"] if e["by"]]
    assert {e["id"] for e in held} == {"n0/nvme0", shown["engines"][0]["id"]}
    told = live("explain", "near", "-o", "json").json["affinity"]
    assert told[0]["chosen"]["engines"] == "1 A100"
    assert told[0]["chosen"]["seconds"] == pytest.approx(1000, rel=0.01)
    assert told[0]["alternatives"][0]["engines"] == "1 A100"
    assert told[0]["alternatives"][0]["place"] == "over a circuit"
    assert "workers: 1 A100 beside the data on n0" in " ".join(live("explain", "near").out.split())
    live("cancel", "near")
    live("slice", "wait", "near", "--for", "done", code=None)
    assert live("explain", "near", "-o", "json").json["affinity"] == []


def test_data_away_from_all_that_is_free_comes_over_a_circuit(live, file):
    live("cell", "planner", "apply", file(RULES))
    live("submit", "--engines", "gpu=4", "--name", "first", "--wait", "running")
    first = live("slice", "show", "first", "-o", "json").json["engines"][0]["node"]
    asked = SLICE.replace("SIZE", "40GB").replace("n0/", f"{first}/")
    live("submit", file(asked), "--wait", "running")
    shown = live("slice", "show", "near", "-o", "json").json
    assert shown["engines"][0]["kind"] == "gpu"
    (circuit,) = shown["circuits"]
    assert circuit["to"] == [shown["engines"][0]["id"]]
    assert shown["data"][0]["circuit"] == circuit["id"]
    sentence = live("explain", "near", "-o", "json").json["affinity"][0]["sentence"]
    assert "40 GB move in 3.2 s" in sentence
    assert f"1 U250 beside the data on {first} would take 11,627 s" in sentence
    assert live("cell", "verify", "--history").code == 0


@pytest.mark.parametrize(("model", "other"), [("A100", "U250"), ("U250", "A100")])
def test_type_of_work_alone_decides_between_models_and_explain_names_it(live, file, model, other):
    live("cell", "planner", "apply", file(f"speeds: {{bert: {{{model}: 90000, {other}: 90}}}}"))
    text = "name: serve\nengines: {workers: {model: [A100, U250]}}\nwork: {workers: {type: bert}}\n"
    live("submit", file(text), "--wait", "running")
    shown = live("slice", "show", "serve", "-o", "json").json
    assert [e["model"] for e in shown["engines"]] == [model]
    assert shown["work"] == {"workers": {"type": "bert", "amount": 0.0}}
    (account,) = live("explain", "serve", "-o", "json").json["affinity"]
    assert account["sentence"].startswith(f"workers: 1 {model}: each does 90,000 units a second, ")
    assert f"; 1 {other}: each does 90 units a second, " in account["sentence"]
    assert f"1 {model}: each does 90,000" in " ".join(live("explain", "serve").out.split())


def test_one_engine_and_one_node_can_be_asked_for_by_name(live, file):
    text = "name: a\nengines: {w: {kind: gpu, where: {engine: n2/gpu3}}}\n"
    text += "hosts: {d: {count: 1, cpu: 1, at: n3}}\n"
    live("submit", file(text), "--wait", "running")
    shown = live("slice", "show", "a", "-o", "json").json
    assert [e["id"] for e in shown["engines"]] == ["n2/gpu3"]
    assert [h["node"] for h in shown["hosts"]] == ["n3"]
    live("submit", file(text.replace("name: a", "name: b")))
    live("slice", "wait", "b", "--for", "allocated", "--timeout", "0.5", code=4)
    assert live("explain", "b", "-o", "json").json["reason"] == "WaitingForEngines"
    why = live("explain", "b", "--why-not", "n2/gpu2", "-o", "json").json["why_not"]
    assert "engine n2/gpu3" in why["sentence"]


def test_slice_that_waits_for_its_data_says_who_has_it(live, file):
    live("submit", "--engines", "nvme=4", "--name", "disks", "--wait", "running")
    live("submit", file(SLICE.replace("SIZE", "1GB")))
    live("slice", "wait", "near", "--for", "allocated", "--timeout", "0.5", code=4)
    shown = live("explain", "near", "-o", "json").json
    assert shown["reason"] == "WaitingForEngines"
    assert "n0/nvme0, which default/disks holds" in shown["sentence"]
    live("cancel", "disks")
    live("slice", "wait", "near", "--for", "running")


@pytest.mark.parametrize("gpus", ["gpu=1", "gpu=4"])
def test_slice_with_data_runs_to_its_end_though_nothing_runs_where_the_data_is(live, file, gpus):
    # The first slice packs n0's engines, or leaves some: then the data stays or moves.
    live("submit", "--engines", gpus, "--name", "first", "--wait", "running")
    first = live("slice", "show", "first", "-o", "json").json["engines"][0]["node"]
    text = SLICE.replace("SIZE", "1GB").replace("n0/", f"{first}/") + "run: {for: 0.1s}\n"
    live("submit", file(text), "--wait", "done")
    assert json.loads(live("slice", "show", "near", "-o", "json").out)["phase"] == "done"
