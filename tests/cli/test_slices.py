"""From `flowos submit` to the end of a slice, as scripts see it."""

import io
import json
import sys
import time
from pathlib import Path

import pytest

from flowos.model import keys
from flowos.model.codec import encode
from flowos.model.slice import Reason, Waiting
from flowos.model.transaction import Put, Transaction

SHOWN = {  # field -> what it may be; the contract's fields and the more that we promise
    "apiVersion": "flowos/v1",
    "name": str,
    "tenant": str,
    "phase": str,
    "policy": str,
    "priority": int,
    "reason": (str, type(None)),
    "message": str,
    "attempts": int,
    "revision": int,
    "uid": int,
    "held": bool,
    "submitted_at": float,
    "started_at": (float, type(None)),
    "ended_at": (float, type(None)),
    "exit_code": (int, type(None)),
    "engines": list,
    "hosts": list,
    "circuits": list,
    "latency_ns": int,
    "watts": int,
}


def agrees(item, shape):
    for field, wanted in shape.items():
        assert field in item, f"{field} is missing in {item}"
        if isinstance(wanted, type | tuple):
            assert isinstance(item[field], wanted), f"{field} is {item[field]!r}"
        else:
            assert item[field] == wanted


# ------------------------------------------------------------------------------------ the shapes


def test_slice_show_has_every_field_of_the_contract(live):
    live("submit", "--engines", "gpu=2", "--circuits", "ring", "--name", "t", "--wait", "running")
    shown = live("slice", "show", "t", "-o", "json").json
    agrees(shown, SHOWN | {"phase": "running", "attempts": 1, "reason": None, "watts": 800})
    first, second = (engine["id"] for engine in shown["engines"])
    assert shown["engines"][0] == {
        "id": first,
        "node": first.partition("/")[0],
        "kind": "gpu",
        "model": "A100",
        "role": "gpu",
        "share": 1.0,
        "bitstream": None,
    }
    agrees(
        shown["circuits"][0],
        {"id": "t/0", "from": first, "to": [second], "hops": 2, "lanes": 1, "path": list},
    )
    assert [shown["circuits"][0]["path"][i] for i in (0, -1)] == [first, second]


def test_items_of_slice_ls_are_slice_show_without_circuits(live):
    live(
        "submit",
        "--engines",
        "gpu=2,fpga=1@sum-f32",
        "--circuits",
        "star",
        "--name",
        "t",
        "--wait",
        "running",
    )
    live("submit", "--engines", "gpu=0.5", "--name", "half", "--wait", "running")
    shown = [live("slice", "show", name, "-o", "json").json for name in ("t", "half")]
    for item in shown:
        del item["circuits"]
    listed = live("slice", "ls", "-o", "json").json
    assert listed == {"apiVersion": "flowos/v1", "items": shown}
    assert [e["share"] for e in shown[1]["engines"]] == [0.5]
    assert shown[0]["engines"][2]["bitstream"].startswith("sum-f32@sha256:")


def test_revision_of_a_slice_is_that_of_its_newest_record(live):
    live("submit", "--engines", "gpu=1", "--name", "t", "--wait", "running")
    shown = live("slice", "show", "t", "-o", "json").json
    records = live.store.read(["slice/", "placement/", "order/", "report/"]).records
    assert shown["revision"] == max(record.modified for record in records)
    assert shown["uid"] == next(r.created for r in records if r.key == "slice/default/t")


def test_explain_has_every_field_of_the_contract_and_names_who_is_in_the_way(live):
    live("submit", "--engines", "gpu=16", "--run-for", "1h", "--name", "first", "--wait", "running")
    live("submit", "--engines", "gpu=2", "--name", "second")
    live("slice", "wait", "second", "--for", "allocated", "--timeout", "0.5", code=4)
    shown = live("explain", "second", "-o", "json").json
    agrees(shown, {"name": "second", "reason": "WaitingForEngines", "sentence": str})
    assert shown["funnel"][0] == {"step": "kind gpu", "engines": 16}
    assert shown["funnel"][-1]["engines"] == 0
    (unblock,) = shown["unblock"]
    assert unblock["do"] == "wait for default/first"
    assert 3500 <= unblock["eta_s"] <= 3600
    why = live("explain", "second", "--why-not", "n0/gpu0", "-o", "json").json["why_not"]
    assert why == {"engine": "n0/gpu0", "sentence": "n0/gpu0 is held by default/first"}


def test_explanation_for_people_says_the_same(live):
    live("submit", "--engines", "gpu=16", "--name", "first", "--wait", "running")
    live("submit", "--engines", "gpu=2", "--name", "second")
    live("slice", "wait", "second", "--for", "allocated", "--timeout", "0.5", code=4)
    said = live("explain", "second").out
    assert "second is pending: WaitingForEngines" in said
    assert "wait for default/first" in said
    assert "nothing is in the way" in live("explain", "first").out


def test_events_tell_every_phase_up_to_the_end(live):
    live("submit", "--engines", "gpu=1", "--run-for", "10ms", "--name", "t", "--wait", "done")
    events = live("slice", "events", "t", "-o", "json").json["items"]
    phases = list(dict.fromkeys(event["phase"] for event in events))
    assert phases[0] == "pending"
    assert phases[-1] == "done"
    assert {"committed", "running"} <= set(phases)
    revisions = [event["revision"] for event in events]
    assert revisions == sorted(revisions)
    assert revisions[0] == live("slice", "show", "t", "-o", "json").json["uid"]
    followed = live("slice", "events", "t", "-f", "-o", "jsonl").lines
    assert [json.loads(line) for line in followed] == events


def test_events_begin_with_what_the_store_still_keeps(live):
    live("submit", "--engines", "gpu=1", "--run-for", "10ms", "--name", "t", "--wait", "done")
    events = live("slice", "events", "t", "-o", "json").json["items"]
    live.store.compact(events[2]["revision"])
    kept = live("slice", "events", "t", "-o", "json").json["items"]
    assert [event["phase"] for event in kept] == [event["phase"] for event in events[2:]]


def test_kind_and_model_are_read_by_key_or_with_the_whole_family(live, monkeypatch):
    live("submit", "--engines", "gpu=3", "--name", "t", "--wait", "running")
    by_key = live("ls", "-o", "json").json
    monkeypatch.setattr("flowos.runtime.shown.ENGINES_BY_KEY_MAX", 2)
    assert live("ls", "-o", "json").json == by_key
    assert {e["model"] for e in by_key["items"][0]["engines"]} == {"A100"}


def test_record_that_cannot_be_read_is_left_out_with_a_warning(still):
    still("submit", "--engines", "gpu=1", "--name", "t")
    still.store.commit([Transaction((), (Put("slice/default/broken", b"{"),))])
    said = still("ls", "-q")
    assert said.lines == ["t"]
    assert "slice/default/broken" in said.err


# ---------------------------------------------------------------------------------------- submit


def test_submit_prints_the_name_alone(still):
    assert still("submit", "--engines", "gpu=1", "--name", "t").out == "t\n"
    said = still("submit", "--engines", "gpu=1,fpga=1")
    assert said.out.startswith("gpu")
    assert len(said.out) == len("gpu") + 5 + 1
    assert said.err == ""


def test_submit_prints_the_slice_as_json_where_that_is_asked(still):
    shown = still(
        "submit", "--engines", "gpu=1", "--name", "t", "--priority", "7", "-o", "json"
    ).json
    agrees(shown, SHOWN | {"name": "t", "phase": "pending", "priority": 7, "policy": "batch"})
    assert shown["reason"] == "SchedulerDown"


def test_waiting_for_done_ends_with_0_for_done_and_1_for_failed(still):
    still.start(failing=True)
    still(
        "submit", "--engines", "gpu=1", "--run-for", "1ms", "--name", "t", "--wait", "done", code=1
    )
    shown = still("slice", "show", "t", "-o", "json").json
    agrees(shown, {"phase": "failed", "exit_code": 1, "started_at": float, "ended_at": float})
    still.stop()
    still.start()
    still("submit", "--engines", "gpu=1", "--run-for", "1ms", "--name", "u", "--wait", "done")
    agrees(still("slice", "show", "u", "-o", "json").json, {"phase": "done", "exit_code": 0})


def test_waiting_for_a_cancelled_slice_ends_with_1(live):
    live("submit", "--engines", "gpu=1", "--name", "t", "--wait", "running")
    live("cancel", "t")
    said = live("slice", "wait", "t", code=1)
    assert "was cancelled" in said.err


def test_waiting_too_long_ends_with_4_and_the_slice_goes_on(still):
    said = still(
        "submit", "--engines", "gpu=1", "--name", "t", "--wait", "allocated", "--timeout", "0.1s", code=4
    )  # fmt: skip
    assert said.out == "t\n"
    assert "not placed after 0.1 s" in said.err
    assert still("ls", "-q").out == "t\n"


def test_what_can_never_be_placed_ends_with_3_and_is_not_submitted(still, written):
    with written(still.store) as count:
        said = still("submit", "--engines", "gpu=1000", code=3)
    assert count == [0]
    assert "asks for 1000 gpu, and the cell has 16" in said.err


def test_waiting_ends_with_3_once_a_scheduler_finds_a_slice_infeasible(still):
    still("submit", "--engines", "gpu=1", "--name", "t")
    waiting = Waiting(Reason.INFEASIBLE, "no engine will ever do")
    still.store.commit([Transaction((), (Put(keys.reason("default/t"), encode(waiting)),))])
    said = still("slice", "wait", "t", code=3)
    assert "no engine will ever do" in said.err


def test_command_behind_two_dashes_is_taken_as_it_is(still):
    still("submit", "--engines", "gpu=1", "--name", "t", "--", "python", "--name", "x", "-q")
    record = json.loads(still.store.read(["slice/default/t"]).records[0].value)
    run = record["spec"]["run"]
    assert run == {"command": ["python", "--name", "x", "-q"], "directory": str(Path.cwd())}


def test_options_go_before_what_a_file_says(still, tmp_path):
    file = tmp_path / "s.yaml"
    file.write_text("name: t\npriority: 3\nengines: {a: {kind: gpu}}\nrun: {for: 5s}\n")
    still("submit", str(file))
    still("submit", str(file), "--name", "u", "--priority", "0", "--run-for", "1s")
    shown = {item["name"]: item for item in still("ls", "-o", "json").json["items"]}
    assert {name: item["priority"] for name, item in shown.items()} == {"t": 3, "u": 0}
    record = json.loads(still.store.read(["slice/default/u"]).records[0].value)
    assert record["spec"]["run"] == {"for_seconds": 1.0}


def test_tenant_of_the_environment_holds_where_a_file_names_none(still, tmp_path, monkeypatch):
    for name in ("vision", "speech"):
        still("tenant", "set", name)
    monkeypatch.setenv("FLOWOS_TENANT", "vision")
    for name, line in (("a", ""), ("b", "tenant: speech\n")):
        file = tmp_path / f"{name}.yaml"
        file.write_text(f"name: {name}\n{line}engines: {{a: {{kind: gpu}}}}\n")
        still("submit", str(file))
    still("submit", "--engines", "gpu=1", "--name", "c", "--tenant", "speech")
    tenants = {r.key for r in still.store.read(["slice/"]).records}
    assert tenants == {"slice/vision/a", "slice/speech/b", "slice/speech/c"}
    assert still("ls", "-q").lines == ["vision/a"]


def test_submit_reads_several_slices_from_standard_input(still, monkeypatch):
    text = "name: a\nengines: {a: {kind: gpu}}\n---\nname: b\nengines: {a: {kind: fpga}}\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert still("submit", "-").lines == ["a", "b"]
    assert still("ls", "-q").lines == ["a", "b"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "say what for"),
        (("no-such-file.yaml",), "cannot be read"),
        (("--engines", "gpu=0"), "count"),
        (("--engines", "gpu=x"), "no number of engines"),
        (("--engines", "gpu=1", "--circuits", "square"), "'square' is not one of"),
        (("--engines", "gpu=1", "--timeout", "5"), "--timeout is how long --wait waits"),
        (("--engines", "gpu=1", "--run-for", "0"), "longer than nothing"),
        (("--engines", "gpu=1", "--run-for", "soon"), "soon"),
        (
            ("--engines", "gpu=1", "--run-for", "1s", "--", "sleep", "1"),
            "leave it or the command out",
        ),
        (("--engines", "gpu=1", "--"), "no command stands behind --"),
        (("--engines", "gpu=1", "--name", "No_Name"), "No_Name"),
        (("--engines", "gpu=1", "--tenant", "nobody"), "tenant nobody is not known"),
        (("file.yaml", "--engines", "gpu=1"), "not from both"),
        (("--engines", "gpu=1", "--wat"), "there is no option --wat"),
    ],
)
def test_bad_submission_is_one_sentence_and_writes_nothing(still, written, arguments, sentence):
    with written(still.store) as count:
        said = still("submit", *arguments, code=2)
    assert count == [0]
    assert sentence in said.err
    assert said.out == ""


def test_wrong_slice_file_is_named_with_its_line(still, tmp_path):
    file = tmp_path / "s.yaml"
    file.write_text("name: t\nengines:\n  a: {kind: gpu, cuont: 2}\n")
    said = still("submit", str(file), code=2)
    assert f"{file}:3" in said.err
    assert "cuont" in said.err


def test_name_that_is_taken_is_refused(still):
    still("submit", "--engines", "gpu=1", "--name", "t")
    said = still("submit", "--engines", "gpu=1", "--name", "t", code=2)
    assert "default/t exists" in said.err


# ----------------------------------------------------------------------------------------- names


def test_name_may_be_shortened_as_long_as_it_means_one(still):
    for name in ("train-1", "train-2", "other"):
        still("submit", "--engines", "gpu=1", "--name", name)
    assert still("slice", "show", "oth", "-q").out == "other\n"
    said = still("slice", "show", "train", code=2)
    assert "default/train-1" in said.err
    assert "default/train-2" in said.err
    assert "no slice 'nope'" in still("slice", "show", "nope", code=2).err


def test_whole_name_of_another_tenant_goes_before_the_start_of_one(still):
    still("tenant", "set", "vision")
    still("submit", "--engines", "gpu=1", "--name", "t-long")
    still("submit", "--engines", "gpu=1", "--name", "t", "--tenant", "vision")
    assert still("slice", "show", "t", "-o", "json").json["tenant"] == "vision"
    assert still("slice", "show", "vision/t", "-q").out == "vision/t\n"
    assert still("slice", "show", "t", "--tenant", "default", "-q").out == "t-long\n"


def test_one_wrong_name_cancels_nothing(still, written):
    still("submit", "--engines", "gpu=1", "--name", "t")
    with written(still.store) as count:
        still("cancel", "t", "nope", code=2)
        still("cancel", code=2)
        still("cancel", "t", "--all", code=2)
    assert count == [0]


def test_cancel_all_ends_every_slice_that_lives(live):
    for name in ("a", "b"):
        live("submit", "--engines", "gpu=1", "--name", name)
    live("cancel", "--all")
    for name in ("a", "b"):
        live("slice", "wait", name, code=1)
    assert live("ls", "-q").out == ""
    assert "ended already" in live("cancel", "a").err


def test_held_slice_waits_until_it_is_released(live):
    live("submit", "--engines", "gpu=16", "--name", "first", "--wait", "running")
    live("submit", "--engines", "gpu=1", "--name", "t")
    live("slice", "hold", "t")
    live("cancel", "first")
    live("slice", "wait", "first", code=1)
    agrees(live("slice", "show", "t", "-o", "json").json, {"phase": "pending", "reason": "Held"})
    assert "slice release" in live("explain", "t").out
    live("slice", "release", "t")
    live("slice", "wait", "t", "--for", "running", "--timeout", "10")
    live("slice", "hold", "first", code=2)


# ------------------------------------------------------------------------------------------- ls


def test_ls_lists_what_lives_in_the_order_of_the_queue(still):
    for name, priority in (("a", "0"), ("b", "5"), ("c", "0")):
        still("submit", "--engines", "gpu=1", "--name", name, "--priority", priority)
    assert still("ls", "-q").lines == ["b", "a", "c"]


def test_ended_slices_are_listed_on_demand(live):
    live("submit", "--engines", "gpu=1", "--run-for", "1ms", "--name", "t", "--wait", "done")
    said = live("ls")
    assert said.out == ""
    assert "flowos submit" in said.err
    assert live("ls", "--all", "-q").lines == ["t"]
    assert live("ls", "--phase", "done", "-q").lines == ["t"]
    assert live("ls", "--phase", "failed", "-q").out == ""
    assert live("ls", "-o", "json").json == {"apiVersion": "flowos/v1", "items": []}


def test_ls_keeps_to_a_tenant_a_policy_or_a_phase(still):
    still("tenant", "set", "vision")
    still("submit", "--engines", "gpu=1", "--name", "a")
    still("submit", "--engines", "gpu=1", "--name", "b", "--tenant", "vision", "--policy", "drf")
    assert still("ls", "--tenant", "vision", "-q").lines == ["vision/b"]
    assert still("ls", "--policy", "batch", "-q").lines == ["a"]
    assert still("ls", "--phase", "running", "-q").lines == []
    still("ls", "--phase", "walking", code=2)


def test_slices_of_a_tenant_that_is_not_known_are_asked_for_in_vain(still):
    assert "flowos tenant ls" in still("ls", "--tenant", "nobody", code=2).err
    still("tenant", "set", "vision")
    still("ls", "--tenant", "vision")


def test_a_slice_that_began_with_less_says_what_it_has_until_it_has_all(live):
    gpus = len(live("engine", "ls", "--kind", "gpu", "-q").lines)
    live("submit", "--engines", f"gpu={gpus - 2}", "--name", "big", "--wait", "running")
    live("submit", "--engines", "gpu=4", "--name", "part", "--min", "2", "--wait", "running")
    assert live("slice", "show", "part", "-o", "json").json["lacks"] == {"gpu": 2}
    assert "it has 2 of the engines that it asks for (gpu=4)" in live("explain", "part").out
    assert "gpu=4 (has 2)" in live("ls").out
    live("cancel", "big")
    deadline = time.monotonic() + 20
    while live("slice", "show", "part", "-o", "json").json["lacks"]:
        assert time.monotonic() < deadline
    assert "(has " not in live("ls").out
    assert "nothing is in the way" in live("explain", "part").out


def test_a_name_that_is_taken_is_refused_with_a_way_out_that_works(live):
    live("submit", "--engines", "gpu=1", "--name", "t")
    live("cancel", "t")
    again = live("submit", "--engines", "gpu=1", "--name", "t", code=2)
    assert again.err.startswith("error: slice default/t exists: choose another name (")


def test_holding_an_array_that_is_placed_is_one_line(live):
    live("submit", "--engines", "gpu=1", "--name", "a", "--array", "4", "--wait", "running")
    said = live("slice", "hold", "a").err
    assert said.startswith("4 slices are placed: they would be held when they are queued again: ")
    assert said.count("\n") == 1


def test_what_ends_while_all_is_cancelled_is_nobodys_news(still, monkeypatch):
    from flowos.runtime.client import CellClient

    for name in ("a", "b"):
        still("submit", "--engines", "gpu=1", "--name", name)
    monkeypatch.setattr(CellClient, "cancel_all", lambda _self, names: names)
    assert still("cancel", "a").err == "slice default/a has ended already\n"
    assert still("cancel", "--all").err == ""
