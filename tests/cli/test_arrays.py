"""Arrays, dependencies and changes of slices that are there, as scripts see them."""

import csv
import io
import json
from itertools import pairwise

import pytest

from flowos.model.codec import decode
from flowos.model.slice import Slice


def spec(flowos, name, tenant="default"):
    (record,) = flowos.store.read([f"slice/{tenant}/{name}"]).records
    return decode(Slice, record.value).spec


# ------------------------------------------------------------------------------------------ arrays


def test_an_array_is_submitted_listed_waited_for_and_ended_by_its_name(live):
    said = live("submit", "--engines", "gpu=1", "--name", "t", "--array", "20", "--run-for", "1h")
    assert said.lines == [f"t-{i}" for i in range(20)]
    live("slice", "wait", "t-15", "--for", "running", "--timeout", "20")
    live("slice", "wait", "t-19", "--for", "allocated", "--timeout", "0.5", code=4)
    table = live("ls", "--no-headers").lines
    assert len(table) == 17  # 16 run; those that wait share a line
    assert table[-1].startswith("t-[16-19]")
    assert len(live("ls", "--members", "--no-headers").lines) == 20
    assert len(live("ls", "-q").lines) == 20
    items = live("slice", "show", "t", "-o", "json").json["items"]
    assert [item["array"]["index"] for item in items] == list(range(20))
    assert items[0]["array"] == {"of": "t", "index": 0, "count": 20, "parallel": None}
    assert "t, index 3 of 20" in live("slice", "show", "t-3").out
    live("slice", "hold", "t")
    assert {i["held"] for i in live("ls", "-o", "json").json["items"]} == {True}
    live("slice", "release", "t")
    live("cancel", "t")
    said = live("slice", "wait", "t", "--timeout", "30", code=1)
    assert said.err.count("was cancelled") == 20


def test_a_file_may_have_an_array_with_a_limit_and_what_waits_for_all_of_it(live, tmp_path):
    file = tmp_path / "s.yaml"
    file.write_text(
        "name: t\narray: 1-3%1\nengines: {w: {kind: gpu}}\nrun: {for: 20ms}\n---\n"
        "name: last\ndepends_on: t\nengines: {w: {kind: gpu}}\nrun: {for: 20ms}\n"
    )
    said = live("submit", str(file), "--wait", "done", "--timeout", "30")
    assert said.lines == ["t-1", "t-2", "t-3", "last"]
    items = {i["name"]: i for i in live("ls", "--all", "-o", "json").json["items"]}
    times = [(items[n]["started_at"], items[n]["ended_at"]) for n in said.lines]
    assert all(ended <= started for (_, ended), (started, _) in pairwise(times))
    assert items["last"]["depends_on"] == [{"on": "default/t", "once": "done"}]


def test_an_array_of_a_thousand_is_submitted_at_once_or_not_at_all(still, written):
    still("submit", "--engines", "gpu=1", "--name", "t-777")
    with written(still.store) as count:
        said = still("submit", "--engines", "gpu=1", "--name", "t", "--array", "0-999%10", code=2)
    assert count == [0]
    assert "slice default/t-777 exists" in said.err
    still("submit", "--engines", "gpu=1", "--name", "u", "--array", "0-999%10")
    (line,) = (line for line in still("ls", "--no-headers").lines if line.startswith("u"))
    assert line.startswith("u-[0-999]")
    still("cancel", "u")
    assert len(still.store.read(["slice/default/u-"]).records) == 1000


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--array", "5000"], "array: has 5000 slices: write 1 to 4000"),
        (["--array", "x"], "is no array: write such as 10, 0-99"),
        (["--depends-on", "nobody"], "no slice default/nobody, which t depends on"),
        (["--depends-on", "a:soon"], '"soon" is unknown: use done, ended, running'),
        (["--depends-on", ":done"], "--depends-on names no slice"),
        (["--min", "9"], "gpu can begin with 9 engines, but asks for 2"),
        (["--min", "gpu=x"], "--min gpu=x is no number of engines"),
        (["--min", "1", "--commit", "gang"], "leave min out"),
        (["--reservation", "r"], "no reservation r, which t names"),
    ],
)
def test_a_term_that_cannot_be_meant_ends_with_2_and_writes_nothing(still, written, options, words):
    with written(still.store) as count:
        said = still("submit", "--engines", "gpu=2", "--name", "t", *options, code=2)
    assert words in said.err
    assert count == [0]


def test_options_say_all_terms(still):
    for name in ("a", "b"):
        still("submit", "--engines", "gpu=1", "--name", name)
    still(
        "submit", "--engines", "gpu=4", "--name", "t", "--depends-on", "a,b:ended", "--min", "2",
        "--preemptible", "--grace", "90s", "--expected", "2h", "--time-limit", "4h",
    )  # fmt: skip
    shown = still("slice", "show", "t", "-o", "json").json
    wanted = {
        "depends_on": [{"on": "default/a", "once": "done"}, {"on": "default/b", "once": "ended"}],
        "min": {"gpu": 2},
        "commit": "incremental",
        "preemptible": True,
        "expected_s": 7200.0,
        "time_limit_s": 14400.0,
        "array": None,
        "reservation": None,
    }
    assert {field: shown[field] for field in wanted} == wanted
    assert spec(still, "t").run.grace_seconds == 90.0
    assert "default/a (done), default/b (ended)" in still("slice", "show", "t").out


# ------------------------------------------------------------------------------------ dependencies


def test_a_slice_says_whom_it_waits_for_and_ends_with_it(live):
    live("submit", "--engines", "gpu=1", "--name", "a", "--wait", "running")
    live("submit", "--engines", "gpu=1", "--name", "b", "--depends-on", "a")
    live("slice", "wait", "b", "--for", "allocated", "--timeout", "0.5", code=4)
    shown = live("slice", "show", "b", "-o", "json").json
    assert shown["reason"] == "DependsOn"
    assert shown["message"].startswith("it waits until default/a is done; now default/a ")
    assert live("explain", "b", "-o", "json").json["reason"] == "DependsOn"
    live("cancel", "a")
    live("slice", "wait", "b", "--timeout", "20", code=1)
    shown = live("slice", "show", "b", "-o", "json").json
    assert (shown["phase"], shown["reason"]) == ("cancelled", "DependsOn")
    assert "default/a, which was to be done first, was cancelled" in shown["message"]


# ----------------------------------------------------------------------------------------- changed


def test_priority_size_and_time_limit_of_a_waiting_slice_are_changed(still):
    still("submit", "--engines", "gpu=2", "--name", "t")
    still(
        "slice", "update", "t", "--priority", "9", "--size", "gpu=4", "--time-limit", "1h",
        "--expected", "30m",
    )  # fmt: skip
    shown = still("slice", "show", "t", "-o", "json").json
    told = (shown["priority"], shown["asked"], shown["time_limit_s"], shown["expected_s"])
    assert told == (9, "gpu=4", 3600.0, 1800.0)


def test_a_time_limit_that_is_lowered_ends_what_runs(live):
    live("submit", "--engines", "gpu=1", "--name", "t", "--wait", "running")
    live("slice", "update", "t", "--time-limit", "10ms")
    said = live("slice", "wait", "t", "--timeout", "20", code=1)
    assert "ran into its time limit of 0.01 s" in said.err
    assert live("slice", "show", "t", "-o", "json").json["reason"] == "TimeLimit"


def test_all_of_an_array_are_changed_at_once(still):
    still("submit", "--engines", "gpu=1", "--name", "t", "--array", "150")
    still("slice", "update", "t", "--priority", "3")
    assert {i["priority"] for i in still("ls", "-o", "json").json["items"]} == {3}


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ([], 2, "say what is to change"),
        (["--size", "gpu"], 2, "--size gpu is no size: write such as workers=8"),
        (["--size", "fpga=2"], 2, "slice t has no role fpga: known: gpu"),
        (["--size", "gpu=99"], 3, "can never be placed on this cell"),
    ],
)
def test_a_change_that_cannot_be_meant_writes_nothing(still, written, options, code, words):
    still("submit", "--engines", "gpu=2", "--name", "t")
    with written(still.store) as count:
        said = still("slice", "update", "t", *options, code=code)
    assert words in said.err
    assert count == [0]


def test_what_has_ended_cannot_be_changed_or_held(live):
    live("submit", "--engines", "gpu=1", "--name", "t", "--run-for", "10ms", "--wait", "done")
    said = live("slice", "update", "t", "--priority", "1", code=2)
    assert "slice default/t has ended: only slices that live can be changed" in said.err
    assert "can be held" in live("slice", "hold", "t", code=2).err


# ----------------------------------------------------------------------------------------- history


def test_history_tells_who_held_what_and_its_sums(live):
    live("tenant", "set", "vision")
    for name, tenant in (("a", "default"), ("b", "vision")):
        live(
            "submit", "--engines", "gpu=2", "--name", name, "--tenant", tenant, "--run-for", "50ms",
            "--wait", "done",
        )  # fmt: skip
    live("submit", "--engines", "gpu=1", "--name", "runs", "--wait", "running")
    told = live("slice", "history", "-o", "json").json
    items = {item["name"]: item for item in told["items"]}
    assert list(items) == ["a", "b", "runs"]
    assert [items[n]["ended"] for n in items] == ["done", "done", "running"]
    assert items["runs"]["until_at"] is None
    for item in (items["a"], items["b"]):
        seconds = item["until_at"] - item["from_at"]
        assert item["engine_hours"] == pytest.approx(2 * seconds / 3600, abs=1e-5)
        assert item["watt_hours"] == pytest.approx(800 * seconds / 3600, abs=1e-2)
        assert item["from_at"] <= item["started_at"] <= item["until_at"]
    assert [t["tenant"] for t in told["totals"]] == ["default", "vision"]
    assert told["totals"][0]["slices"] == 2

    rows = list(csv.DictReader(io.StringIO(live("slice", "history", "-o", "csv").out)))
    assert [row["name"] for row in rows] == ["a", "b", "runs"]
    assert len(rows[0]["engines"].split()) == 2
    lines = [json.loads(line) for line in live("slice", "history", "-o", "jsonl").lines]
    assert [line["attempt"] for line in lines] == [row["attempt"] for row in rows]
    (only,) = live("slice", "history", "b", "-o", "json").json["items"]
    assert only["tenant"] == "vision"
    assert [i["name"] for i in live("slice", "history", "--tenant", "vision", "-o", "json").json["items"]] == ["b"]  # fmt: skip
    table = live("slice", "history").lines
    assert table[0].split()[:2] == ["NAME", "TENANT"]
    assert table[-1].split()[0] == "vision"
    assert live("slice", "history", "-q").lines == ["a", "vision/b", "runs"]
    assert live("slice", "history", "--columns", "name,ended", "-o", "csv", "--no-headers").lines == [
        "a,done", "b,done", "runs,running",
    ]  # fmt: skip


def test_history_since_a_time_of_an_array_and_of_nobody(live):
    live(
        "submit", "--engines", "gpu=1", "--name", "t", "--array", "3", "--run-for", "10ms",
        "--wait", "done",
    )  # fmt: skip
    assert len(live("slice", "history", "t", "--since", "1h", "-o", "json").json["items"]) == 3
    assert live("slice", "history", "--since", "2100-01-01", "-o", "json").json["items"] == []
    assert "nothing was held" in live("slice", "history", "--since", "2100-01-01").err
    assert "there is no slice 'x'" in live("slice", "history", "x", code=2).err
    assert "write such as 2h" in live("slice", "history", "--since", "soon", code=2).err
    live("submit", "--engines", "gpu=1", "--name", "runs")
    live("submit", "--engines", "gpu=1", "--name", "waits", "--depends-on", "runs")
    assert live("slice", "history", "waits", "-o", "csv").lines[1:] == []
