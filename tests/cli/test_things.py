"""Engines, switches, circuits, bitstreams, tenants and power: seen, and taken out of use."""

import json

import pytest


def state(flowos, engine):
    return flowos("engine", "show", engine, "-o", "json").json


# --------------------------------------------------------------------------------------- engines


def test_engine_tells_its_state_and_by_whom(live):
    live("submit", "--engines", "fpga=1@sum-f32", "--name", "f", "--wait", "running")
    live("submit", "--engines", "gpu=0.25", "--name", "s", "--wait", "running")
    fpga = live("slice", "show", "f", "-o", "json").json["engines"][0]["id"]
    gpu = live("slice", "show", "s", "-o", "json").json["engines"][0]["id"]
    held, shared = state(live, fpga), state(live, gpu)
    assert (held["state"], held["by"], held["free_share"]) == ("held", ["default/f"], 0)
    assert held["bitstream"].startswith("sum-f32@sha256:")
    assert held["watts"] == held["watts_busy"] > held["watts_idle"]
    assert (shared["state"], shared["by"], shared["free_share"]) == ("shared", ["default/s"], 0.75)
    assert held.keys() >= {
        "id",
        "node",
        "kind",
        "model",
        "state",
        "by",
        "power",
        "bitstream",
        "watts",
    }
    rest = live("engine", "ls", "--state", "free", "-o", "json").json["items"]
    assert len(rest) == 22
    assert live("engine", "ls", "--kind", "fpga", "--state", "held", "-q").lines == [fpga]
    assert len(live("engine", "ls", "--node", "n1", "-q").lines) == 6


def test_free_engine_is_drained_at_once_and_put_back(still):
    assert "n0/gpu0 is drained" in still("engine", "drain", "n0/gpu0", "--reason", "fan").err
    shown = state(still, "n0/gpu0")
    assert (shown["state"], shown["why"], shown["free_share"]) == ("drained", "fan", 0)
    still("engine", "drain", "n0/gpu0")
    still("engine", "undrain", "n0/gpu0")
    assert state(still, "n0/gpu0")["state"] == "free"
    assert "not drained" in still("engine", "undrain", "n0/gpu0").err


def test_busy_engine_is_drained_when_it_is_given_back(live):
    live("submit", "--engines", "gpu=1", "--name", "t", "--wait", "running")
    engine = live("slice", "show", "t", "-o", "json").json["engines"][0]["id"]
    assert "held by default/t" in live("engine", "drain", engine).err
    assert (state(live, engine)["state"], state(live, engine)["draining"]) == ("held", True)
    live("cancel", "t")
    live("slice", "wait", "t", code=1)
    while state(live, engine)["state"] != "drained":
        pass


def test_busy_engine_is_taken_over_where_the_deadline_is_now(live):
    live("submit", "--engines", "gpu=1", "--name", "t", "--wait", "running")
    engine = live("slice", "show", "t", "-o", "json").json["engines"][0]["id"]
    live("engine", "drain", engine, "--deadline", "0s")
    assert state(live, engine)["state"] == "drained"
    live("slice", "wait", "t", "--for", "running", "--timeout", "10")
    shown = live("slice", "show", "t", "-o", "json").json
    assert shown["engines"][0]["id"] != engine
    assert shown["attempts"] == 2
    live("cell", "verify", "--history")


def test_node_is_drained_with_its_engines(still):
    still("engine", "drain", "n1")
    assert {
        e["state"] for e in still("engine", "ls", "--node", "n1", "-o", "json").json["items"]
    } == {"drained"}
    counts = still("status", "-o", "json").json["engines"]
    assert [(c["kind"], c["free"], c["drained"]) for c in counts] == [
        ("fpga", 3, 1),
        ("gpu", 12, 4),
        ("nvme", 3, 1),
    ]
    still("engine", "undrain", "n1")
    assert not still.store.read(["placement/", "claim/"]).records


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("drain",), "name what to drain"),
        (("drain", "nope"), "no engine, node, switch or link 'nope'"),
        (("drain", "n0/gpu0", "nope"), "no engine, node, switch or link 'nope'"),
        (("drain", "n0/gpu"), "n0/gpu0, n0/gpu1"),
        (("drain", "sw0", "--deadline", "1s"), "cannot be taken over"),
        (("drain", "n0/gpu0", "--deadline", "soon"), "soon"),
        (("undrain",), "name what to put back"),
        (("show", "n9/gpu0"), "no engine 'n9/gpu0'"),
        (("ls", "--state", "busy"), "'busy' is not one of"),
    ],
)
def test_bad_word_about_engines_writes_nothing(still, written, arguments, sentence):
    with written(still.store) as count:
        said = still("engine", *arguments, code=2)
    assert count == [0]
    assert sentence in said.err


def test_quarantined_node_needs_the_operators_word(still):
    from flowos.model.view import CellView
    from flowos.protocol.proposal import Fence
    from flowos.protocol.system import take_out

    view = CellView()
    reading = still.store.read(["node/", "placement/"])
    view.load(reading.records)
    view.progressed(reading.revision)
    step = take_out(view, "n2", attempt="a1", fence=Fence("session/controller/none", 0))
    assert step is not None
    still.store.commit([step.transaction])
    assert state(still, "n2/gpu0")["state"] == "quarantined"
    assert "--dirty" in still("engine", "undrain", "n2", code=2).err
    still("engine", "undrain", "n2", "--dirty")
    assert state(still, "n2/gpu0")["state"] == "free"


# ---------------------------------------------------------------------------- switches, circuits


def test_switch_tells_its_links_and_what_is_in_use(live):
    live("submit", "--engines", "gpu=4", "--circuits", "ring", "--name", "t", "--wait", "running")
    switches = live("switch", "ls", "-o", "json").json["items"]
    assert sum(s["circuits"] for s in switches) == 4
    used = next(s["name"] for s in switches if s["circuits"])
    shown = live("switch", "show", used, "-o", "json").json
    assert sum(link["lanes_used"]["fwd"] for link in shown["links"]) == 4
    live("switch", "show", used)
    live("engine", "drain", used)
    assert live("switch", "show", used, "-o", "json").json["state"] == "drained"
    assert "no switch 'sw9'" in live("switch", "show", "sw9", code=2).err


def test_a_circuit_to_several_engines_is_drawn_as_the_tree_that_it_is(live, tmp_path):
    path = tmp_path / "t.yaml"
    path.write_text(
        "name: t\nengines: {one: {kind: fpga, count: 1}, all: {kind: gpu, count: 6}}\n"
        "circuits:\n  - {from: one, to: all}\n"
    )
    live("submit", str(path), "--wait", "running")
    (item,) = live("circuit", "ls", "-o", "json").json["items"]
    assert len(item["to"]) == 6
    lines = live("circuit", "show", item["id"]).lines
    start = lines.index("tree") + 1
    tree = lines[start : lines.index("", start)]
    assert tree[0].strip() == item["from"]
    leaves = {line.rpartition("─ ")[2] for line in tree[1:]}
    assert leaves >= set(item["to"])
    arcs = live("circuit", "show", item["id"], "-o", "json").json["arcs"]
    assert len(tree) == 1 + len(arcs)
    assert {arc["from"] for arc in arcs} - {arc["to"] for arc in arcs} == {item["from"]}


def summing(tmp_path, name: str) -> str:
    """The file of a slice whose four workers send to one reducer, on one node."""
    path = tmp_path / f"{name}.yaml"
    path.write_text(
        f"name: {name}\n"
        "engines:\n"
        "  workers: {kind: gpu, count: 4}\n"
        "  reducer: {kind: fpga, bitstream: sum-f32}\n"
        "circuits:\n  - {from: workers, to: reducer, aggregate: sum}\n"
    )
    return str(path)


def test_streams_are_summed_in_a_switch_that_is_then_free_again(live, tmp_path):
    live("submit", summing(tmp_path, "a"), "--wait", "running")
    (item,) = live("slice", "show", "a", "-o", "json").json["circuits"]
    assert (len(item["sources"]), item["aggregate"], item["hops"]) == (4, "sum", 2)
    (unit,) = item["aggregators"]
    switch = unit.split("/")[1]
    (reducer,) = item["to"]
    assert item["tree"]["at"] == reducer
    (merging,) = item["tree"]["branches"]
    assert (merging["at"], merging["aggregator"]) == (switch, unit)
    assert {leaf["at"] for leaf in merging["branches"]} == set(item["sources"])

    drawn = live("circuit", "show", "a/0").lines
    assert f"  └─ {switch}  sum in aggregator 0" in drawn
    assert live("switch", "show", switch, "-o", "json").json["aggregators_held"] == [
        {"unit": unit, "holder": "default/a", "circuit": "a/0", "function": "sum"}
    ]
    assert any("default/a" in line for line in live("switch", "show", switch).lines)

    live("submit", summing(tmp_path, "b"), "--wait", "running")
    (other,) = live("slice", "show", "b", "-o", "json").json["circuits"]
    assert set(other["aggregators"]) == {f"aggregator/sw{1 - int(switch[2:])}/0"}
    free = {
        s["name"]: s["aggregators_free"] for s in live("switch", "ls", "-o", "json").json["items"]
    }
    assert free == {"sw0": 0, "sw1": 0}

    # No aggregator is left: the reducer's port has lanes enough to receive every stream.
    live("submit", summing(tmp_path, "c"), "--wait", "running")
    (plain,) = live("slice", "show", "c", "-o", "json").json["circuits"]
    assert (plain["aggregators"], len(plain["tree"]["branches"])) == ([], 4)

    for name in "abc":
        live("cancel", name)
        live("slice", "wait", name, code=1)
    shown = live("switch", "show", switch, "-o", "json").json
    assert (shown["aggregators_free"], shown["aggregators_held"]) == (1, [])
    live("cell", "verify", "--history")


def test_circuit_tells_its_slice_its_path_and_its_lanes(live):
    live("submit", "--engines", "gpu=2", "--circuits", "ring", "--name", "t", "--wait", "running")
    items = live("circuit", "ls", "-o", "json").json["items"]
    assert [item["id"] for item in items] == ["t/0", "t/1"]
    shown = live("circuit", "show", "t/1", "-o", "json").json
    assert shown == items[1]
    assert (shown["slice"], shown["tenant"], shown["phase"]) == ("t", "default", "running")
    assert [arc["lanes"] for arc in shown["arcs"]] == [[0], [0]]
    live("circuit", "show", "t/1")
    assert live("circuit", "ls", "--slice", "t", "-q").lines == ["t/0", "t/1"]
    assert "t/0" in live("circuit", "show", "t", code=2).err
    assert "no circuit 'x/0'" in live("circuit", "show", "x/0", code=2).err


# ------------------------------------------------------------------------------------ bitstreams


def test_bitstream_is_known_by_the_digest_of_its_file(still, tmp_path):
    file = tmp_path / "max-i8.bit"
    file.write_bytes(b"max")
    still("bitstream", "add", str(file), "--function", "max", "--load", "250ms", "--model", "U250")
    shown = still("bitstream", "show", "max-i8", "-o", "json").json
    assert (
        shown["digest"] == "sha256:9baf3a40312f39849f46dad1040f2f039f1cffa1238c41e9db675315cfad39b6"
    )
    assert (shown["size_bytes"], shown["load_seconds"], shown["models"]) == (3, 0.25, ["U250"])
    still("submit", "--engines", "fpga=1@max-i8")
    file.write_bytes(b"other")
    assert "another digest" in still("bitstream", "add", str(file), code=2).err


def test_bitstream_in_use_is_not_removed(live):
    live("submit", "--engines", "fpga=1@sum-f32", "--name", "t", "--wait", "running")
    shown = live("bitstream", "show", "sum-f32", "-o", "json").json
    assert shown["used_by"] == ["default/t"]
    assert len(shown["loaded_on"]) == 1
    assert "used by default/t" in live("bitstream", "rm", "sum-f32", code=2).err
    live("cancel", "t")
    live("slice", "wait", "t", code=1)
    live("bitstream", "rm", "sum-f32")
    assert live("bitstream", "ls", "-q").lines == ["add-bytewise"]
    live("submit", "--engines", "fpga=1@sum-f32", code=3)


@pytest.mark.parametrize(
    "arguments",
    [
        ("add",),
        ("add", "no-such-file"),
        ("add", "--name", "x", "--digest", "sha256:12"),
        ("add", "--digest", "sha256:" + "0" * 64),
        ("add", "--name", "X Y", "--digest", "sha256:" + "0" * 64),
        ("rm",),
        ("rm", "nope"),
        ("show", "nope"),
    ],
)
def test_bad_word_about_bitstreams_writes_nothing(still, written, arguments):
    with written(still.store) as count:
        said = still("bitstream", *arguments, code=2)
    assert count == [0]
    assert said.err.strip()


# --------------------------------------------------------------------------------- tenants, power


def test_setting_a_tenant_tells_its_epoch_in_the_same_revision(still):
    still("tenant", "set", "vision", "--weight", "3", "--quota", "gpu=8,fpga=2")
    records = {r.key: r for r in still.store.read(["tenant/", "rule/", "cell/"]).records}
    tenant, epoch = records["tenant/vision"], records["rule/epoch/tenant:vision"]
    assert tenant.modified == epoch.modified == records["cell/totals"].modified
    assert json.loads(records["cell/totals"].value)["tenants"] == ["default", "vision"]
    still("tenant", "set", "vision", "--quota", "none")
    items = still("tenant", "ls", "-o", "json").json["items"]
    assert [(t["name"], t["weight"], t["quota"]) for t in items] == [
        ("default", 1, {}),
        ("vision", 3, {}),
    ]


def test_tenant_tells_what_its_slices_hold(live):
    live("submit", "--engines", "gpu=3", "--name", "t", "--wait", "running")
    (tenant,) = live("tenant", "ls", "-o", "json").json["items"]
    assert (tenant["held"], tenant["placed"], tenant["pending"]) == ({"gpu": 3}, 1, 0)


def test_tenant_tells_what_is_wanted_in_force_and_used(live):
    live("tenant", "set", "default", "--quota", "gpu=4,fpga=0")
    live("submit", "--engines", "gpu=3", "--name", "t", "--wait", "running")
    (tenant,) = live("tenant", "ls", "-o", "json").json["items"]
    gpu = tenant["limits"]["gpu"]
    assert (gpu["wanted"], gpu["in_force"], gpu["used"]) == (4, 4, 3)
    said = live("tenant", "set", "default", "--quota", "gpu=2,fpga=0").err
    assert "comes into force as slices end" in said
    (tenant,) = live("tenant", "ls", "-o", "json").json["items"]
    gpu = tenant["limits"]["gpu"]
    assert gpu["wanted"] == 2
    assert gpu["in_force"] == gpu["granted"] >= 3
    assert "gpu=2" in live("tenant", "ls").out
    foreseen = live("submit", "--engines", "gpu=1", "--dry-run", "-o", "json", code=None).json
    assert (foreseen["placeable"], foreseen["reason"]) == (False, "QuotaExceeded")
    assert foreseen["sentence"] == (
        "its engines are free, but tenant default lacks a quota of 2 more gpu for them"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("No Name",),
        ("t", "--weight", "0"),
        ("t", "--quota", "gpu"),
        ("t", "--quota", "gpu=1,gpu=2"),
        ("default", "--quota", "gqu=2"),
    ],
)
def test_bad_tenant_writes_nothing(still, written, arguments):
    with written(still.store) as count:
        still("tenant", "set", *arguments, code=2)
    assert count == [0]


def test_power_tells_budget_idle_held_and_granted(live):
    before = live("power", "show", "-o", "json").json["items"][0]
    live("submit", "--engines", "gpu=2", "--name", "t", "--wait", "running")
    after = live("power", "show", "-o", "json").json["items"][0]
    assert after["name"] == "room"
    assert before["held_watts"] == 0
    assert after["held_watts"] == after["draw_watts"] - before["draw_watts"] == 2 * (400 - 60)
    assert after["granted_watts"] >= after["held_watts"]
    assert (
        after["free_watts"] == after["budget_watts"] - after["idle_watts"] - after["granted_watts"]
    )
