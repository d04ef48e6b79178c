"""`cell capacity`, `cell defrag --plan` and `submit --dry-run`: what would be, and nothing is done."""

import json

import pytest


def everything(flowos) -> dict[str, bytes]:
    return {record.key: record.value for record in flowos.store.read([""]).records}


@pytest.fixture
def halves(live):
    """On each of four nodes two GPUs are held and two are free."""
    for n in range(4):
        live("submit", "--engines", "gpu=3", "--name", f"s{n}", "--wait", "running")
    for n in range(4):
        live("submit", "--engines", "gpu=1", "--name", f"t{n}", "--wait", "running")
    live("cancel", "t0", "t1", "t2", "t3")
    for n in range(4):
        live("slice", "wait", f"t{n}", code=1)
    return live


def test_capacity_says_how_many_fit_now_and_in_the_empty_cell(halves):
    found = halves(
        "cell", "capacity", "--engines", "gpu=4", "--together", "node", "-o", "json"
    ).json
    assert (found["now"], found["empty"], found["together"]) == (0, 4, "node")
    assert (
        found["sentence"] == "4 of 16 gpu are free, of which 4 lie where no 4 are free on one node"
    )
    (role,) = found["roles"]
    assert role == {
        "role": "gpu", "now": 0, "empty": 4, "free": 4, "engines": 16, "stranded": 4
    }  # fmt: skip
    assert [leaf["now"] for leaf in found["leaves"]] == [0, 0]
    anywhere = halves("cell", "capacity", "--engines", "gpu=4", "-o", "json").json
    assert anywhere["now"] == 1


def test_together_alone_means_one_switch(halves):
    found = halves("cell", "capacity", "--engines", "gpu=2", "--together", "-o", "json").json
    assert (found["together"], found["now"]) == ("switch", 2)
    said = halves("cell", "capacity", "--engines", "gpu=2", "--together").out
    assert said.startswith("gpu=2 on one switch: 2 fit now, 8 in the empty cell")


def test_what_cannot_be_counted_is_said_in_one_sentence(still):
    said = still("cell", "capacity", "--engines", "gpu=x", code=2).err
    assert "is no number of engines" in said
    assert still("cell", "capacity", "--engines", "tpu=1", "-o", "json").json["now"] == 0
    said = still("cell", "capacity", "--engines", "tpu=1").out
    assert "this cell has no tpu that would do: 'flowos engine ls'" in said
    assert "scarcest" not in said


def test_why_a_slice_that_runs_does_not_use_an_engine(halves):
    used = halves("slice", "show", "s0", "-o", "json").json["engines"][0]["id"]

    def why(engine: str) -> str:
        arguments = ("explain", "s0", "--why-not", engine, "-o", "json")
        sentence: str = halves(*arguments).json["why_not"]["sentence"]
        return sentence

    assert why(used) == f"{used} is used"
    idle = next(
        engine["id"]
        for engine in halves("engine", "ls", "-o", "json").json["items"]
        if engine["kind"] == "gpu" and engine["state"] == "free"
    )
    assert why(idle).startswith(f"asked anew, {idle} ")


def test_defrag_names_the_moves_and_moves_nothing(halves):
    before = {key: value for key, value in everything(halves).items() if "placement/" in key}
    arguments = ("--engines", "gpu=4", "--together", "node", "--plan", "-o", "json")
    found = halves("cell", "defrag", *arguments).json
    assert found["possible"]
    assert not found["fits"]
    assert len({engine.partition("/")[0] for engine in found["gang"]}) == 1
    assert found["cost"]["engines"] == len(found["moves"]) == 3
    (slice_,) = {move["slice"] for move in found["moves"]}
    assert slice_.startswith("default/s")
    assert before == {key: v for key, v in everything(halves).items() if "placement/" in key}


def test_defrag_of_a_slice_that_waits(halves, tmp_path):
    gang = {
        "name": "gang",
        "engines": {"w": {"kind": "gpu", "count": 4}},
        "together": {"w": "node"},
    }
    file = tmp_path / "gang.json"
    file.write_text(json.dumps(gang))
    halves("submit", str(file))
    halves("slice", "wait", "gang", "--for", "allocated", "--timeout", "0.5", code=4)
    found = halves("cell", "defrag", "--plan", "gang", "-o", "json").json
    assert found["reason"] == "FragmentedAcrossSwitches"
    assert found["cost"]["slices"] == 1
    helps = halves("explain", "gang", "-o", "json").json["unblock"]
    assert [item["sort"] for item in helps if item["sort"] == "move"] == ["move"]
    assert halves("cell", "defrag", "--plan", "s0", code=2)
    assert halves("cell", "defrag", "gang", code=2)
    assert halves("cell", "defrag", "--plan", code=2)


def test_dry_run_shows_what_would_change_and_writes_nothing(live):
    live("submit", "--engines", "gpu=2", "--circuits", "ring", "--name", "a", "--wait", "running")
    before = everything(live)
    line = ("submit", "--engines", "gpu=2,fpga=1@sum-f32", "--circuits", "ring", "--name", "t")
    found = live(*line, "--dry-run", "-o", "json").json
    assert found["placeable"]
    assert found["reason"] is None
    assert (len(found["circuits"]), found["circuits_untouched"]) == (3, 2)
    assert [e["kind"] for e in found["engines"]] == ["gpu", "gpu", "fpga"]
    (load,) = found["loads"]
    assert load["bitstream"].startswith("sum-f32@sha256:")
    said = live(*line, "--dry-run").out
    assert "= circuits of others, untouched: 2" in said
    assert said.count("+ circuit ") == 3
    sessions = ("session/", "report/", "observed/")
    after = everything(live)
    changed = {k for k in before.keys() | after.keys() if before.get(k) != after.get(k)}
    assert not [key for key in changed if not any(word in key for word in sessions)]
    live(*line, "--wait", "running")
    placed = live("slice", "show", "t", "-o", "json").json
    assert [e["id"] for e in placed["engines"]] == [e["id"] for e in found["engines"]]


def test_dry_run_of_what_would_wait_says_why_with_status_0(live):
    live("submit", "--engines", "gpu=16", "--name", "all", "--wait", "running")
    found = live("submit", "--engines", "gpu=1", "--dry-run", "-o", "json").json
    assert (found["placeable"], found["reason"]) == (False, "WaitingForEngines")
    assert found["funnel"][0] == {"step": "kind gpu", "engines": 16}
    assert "would wait: WaitingForEngines" in live("submit", "--engines", "gpu=1", "--dry-run").out


def test_dry_run_says_which_slice_is_waited_for_first(live, tmp_path):
    live("submit", "--engines", "gpu=1", "--name", "first", "--wait", "running")
    found = live(
        "submit", "--engines", "gpu=1", "--depends-on", "first", "--dry-run", "-o", "json"
    ).json
    assert (found["placeable"], found["reason"]) == (False, "DependsOn")
    assert "default/first" in found["sentence"]
    file = tmp_path / "two.yaml"  # of one submission, whatever their order in the file
    slices = [
        "name: b\ndepends_on: [a]\nengines: {w: {kind: gpu}}",
        "name: a\nengines: {w: {kind: gpu}}",
    ]
    file.write_text("\n---\n".join(slices))
    items = live("submit", str(file), "--dry-run", "-o", "json").json["items"]
    assert [(i["name"], i["reason"]) for i in items] == [("b", "DependsOn"), ("a", None)]


def test_dry_run_of_what_can_never_be_ends_with_3(live, tmp_path):
    live("submit", "--engines", "gpu=17", "--dry-run", code=3)
    # The totals do not tell this one, the planner does: no circuit leads out of one switch by 1 link.
    file = tmp_path / "t.json"
    document = {
        "name": "t", "engines": {"w": {"kind": "gpu", "count": 2}}, "circuits": [{"ring": "w"}],
        "constraints": {"max_hops": 1},
    }  # fmt: skip
    file.write_text(json.dumps(document))
    said = live("submit", str(file), "--dry-run", code=3).err
    assert "can never be placed" in said


def test_dry_run_refuses_what_a_submission_refuses(live):
    live("submit", "--engines", "gpu=1", "--name", "a", "--wait", "running")
    assert "exists" in live("submit", "--engines", "gpu=1", "--name", "a", "--dry-run", code=2).err
    live("submit", "--engines", "gpu=1", "--tenant", "nobody", "--dry-run", code=2)
    live("submit", "--engines", "gpu=1", "--dry-run", "--wait", "done", code=2)


def test_several_slices_are_planned_one_after_the_other(live, tmp_path):
    file = tmp_path / "two.yaml"
    one = "name: {name}\nengines: {{w: {{kind: gpu, count: 9}}}}\n"
    file.write_text(one.format(name="a") + "---\n" + one.format(name="b"))
    items = live("submit", str(file), "--dry-run", "-o", "json").json["items"]
    assert [item["reason"] for item in items] == [None, "WaitingForEngines"]


def nodes(said) -> set[str]:
    return {engine["node"] for engine in said.json["engines"]}


def test_a_dry_run_is_the_choice_of_the_policy_that_would_serve(still, tmp_path):
    ask = ("submit", "--engines", "gpu=4", "--dry-run", "-o", "json")
    assert len(nodes(still(*ask))) == 1  # as batch packs
    assert len(nodes(still(*ask, "--policy", "service"))) == 4  # as service spreads
    rules = tmp_path / "policies.yaml"
    rules.write_text("default: service\n")
    still("cell", "policies", "apply", str(rules))
    assert len(nodes(still(*ask))) == 4  # who would serve it is what the cell's rules say


def test_a_policy_that_is_not_installed_is_said_and_the_plain_planner_plans(still):
    said = still("submit", "--engines", "gpu=1", "--policy", "theirs", "--dry-run", "-o", "json")
    assert said.json["placeable"]
    (line,) = said.err.splitlines()
    assert "planned without policy theirs" in line
    still("submit", "--engines", "gpu=1", "--policy", "theirs", "--name", "t")
    said = still("explain", "t", "-o", "json")
    assert "planned without policy theirs" in said.err
    assert said.json["name"] == "t"
