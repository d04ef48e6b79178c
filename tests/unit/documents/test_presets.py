"""Presets are the cells that the command promises, and each is a valid cell file."""

import pytest

from flowos.documents.cell_file import cell_json, load_cell
from flowos.documents.makes import BITSTREAM_TEXTS
from flowos.documents.presets import PRESETS, file_or_preset, preset
from flowos.model.cell import Cell, idle_draw
from flowos.model.errors import SpecError


def kinds(cell: Cell) -> dict[str, int]:
    found = [engine.kind for engine in cell.engines.values()]
    return {kind: found.count(kind) for kind in dict.fromkeys(found)}


@pytest.mark.parametrize(
    "text",
    [
        "fic-small", "fic", "expether", "fat-tree:1", "fat-tree:32", "fat-tree:100",
        "fat-tree:2000", "torus:4x4x4", "torus:1x1x1", "torus:2x1x3", "gpu-islands",
        "gpu-islands:1", "fic:32", "fic:200", "rack-pool:100", "memory-pool:64", "boxes:100",
        "boxes:8",
    ],
)  # fmt: skip
def test_a_preset_reads_back_from_its_export(text):
    cell = preset(text)
    # The reader checks all that a cell must be: ends, ports, domains, watts, budgets.
    assert load_cell("x.json", text=cell_json(cell)) == cell
    assert "default" in cell.tenants
    assert all(cell.links_at.get(engine) for engine in cell.engines), "an engine hangs on nothing"


def test_fic_small_is_what_the_command_promises():
    cell = preset("fic-small")
    assert list(cell.nodes) == ["n0", "n1", "n2", "n3"]
    assert cell.engines_of["n0"] == [
        f"n0/{e}" for e in ("gpu0", "gpu1", "gpu2", "gpu3", "fpga0", "nvme0")
    ]
    assert {name: switch.aggregators for name, switch in cell.switches.items()} == {
        "sw0": 1,
        "sw1": 1,
    }
    assert cell.links["sw0-sw1"].lanes == 16
    assert cell.links["n1.gpu0-sw0"].lanes == 8
    assert cell.links["n2.fpga0-sw1"].gbps == 100.0
    assert cell.links["n3-sw1"].lanes == 2
    assert set(cell.bitstreams) == set(BITSTREAM_TEXTS) == {"sum-f32", "add-bytewise"}
    assert cell.engines["n0/fpga0"].loads_bitstreams
    assert cell.engines["n0/gpu0"].shareable


@pytest.mark.parametrize("text", ["fic-small", "fic", "expether"])
def test_all_engines_of_a_preset_with_budgets_can_be_busy_at_once(text):
    cell = preset(text)
    for domain in cell.domains.values():
        fed = [engine for engine in cell.engines.values() if domain in cell.domains_of(engine.node)]
        assert fed
        assert idle_draw(cell, domain.name) > 0
        if domain.budget_watts is not None:
            assert sum(engine.watts.busy for engine in fed) <= domain.budget_watts


def test_fic_mixes_all_kinds_on_a_torus():
    cell = preset("fic")
    assert len(cell.engines) == 256
    assert set(kinds(cell)) == {"gpu", "fpga", "asic", "nvme"}
    trunks = [
        link for link in cell.links.values() if {link.a_thing, link.b_thing} <= set(cell.switches)
    ]
    assert len(trunks) == 2 * len(cell.switches)


def test_expether_pools_devices_apart_from_its_hosts():
    cell = preset("expether")
    assert kinds(cell) == {"gpu": 8, "nvme": 4}
    hosts = [node.name for node in cell.nodes.values() if node.cpu_millis]
    assert hosts == ["h0", "h1"]
    assert all(cell.nodes[engine.node].cpu_millis == 0 for engine in cell.engines.values())
    assert {engine.model for engine in cell.engines.values() if engine.kind == "gpu"} == {"P100"}
    assert {node.devices_max for node in cell.nodes.values() if node.cpu_millis} == {4}


RIVALS = ("fic", "rack-pool", "memory-pool", "boxes")


def reached(cell: Cell, engine: str) -> set[str]:
    """All engines that a circuit from this one could end at."""
    seen, front = {engine}, [engine]
    while front:
        here = front.pop()
        for link in (cell.links[name] for name in cell.links_at.get(here, ())):
            for end in (link.a_thing, link.b_thing):
                if end not in seen:
                    seen.add(end)
                    front += [end] if end in cell.switches else []
    return seen & cell.engines.keys()


@pytest.mark.parametrize("engines", [32, 256, 1024])
def test_the_same_engines_stand_in_every_shape(engines):
    first, *others = (preset(f"{shape}:{engines}") for shape in RIVALS)
    eighth = engines // 8
    assert kinds(first) == {"gpu": 6 * eighth, "fpga": eighth, "nvme": eighth}
    for cell in others:
        assert kinds(cell) == kinds(first)


@pytest.mark.parametrize(
    ("shape", "joined"), [("rack-pool", 64), ("memory-pool", 320), ("boxes", 1024), ("fic", 1024)]
)
def test_a_shape_limits_which_engines_a_circuit_can_join(shape, joined):
    cell = preset(f"{shape}:1024")
    assert len(reached(cell, "n0/gpu0")) == joined


def test_a_box_has_eight_gpus_and_few_lanes_out():
    cell = preset("boxes:256")
    for node in cell.nodes:
        found = [cell.engines[engine].kind for engine in cell.engines_of[node]]
        assert found.count("gpu") == 8
        assert found.count("fpga") in (1, 2)
        assert found.count("nvme") in (1, 2)
    assert {cell.links[name].lanes for name in cell.links_at["between"]} == {4}


@pytest.mark.parametrize("engines", [1, 31, 33, 1024, 1025, 3000])
def test_a_fat_tree_has_exactly_its_engines_and_as_many_lanes_up_as_down(engines):
    cell = preset(f"fat-tree:{engines}")
    assert len(cell.engines) == engines
    tier = {name: switch.tier for name, switch in cell.switches.items()}
    for name in cell.switches:
        up = down = 0
        for link in (cell.links[at] for at in cell.links_at[name]):
            other = link.b_thing if link.a_thing == name else link.a_thing
            if tier.get(other, -1) > tier[name]:
                up += link.lanes
            else:
                down += link.lanes
        assert up >= down or tier[name] == max(tier.values()), name


@pytest.mark.slow
def test_an_export_of_a_hundred_thousand_engines_is_read_as_the_same_cell():
    cell = preset("fat-tree:100000")
    assert len(cell.engines) == 100_000
    assert load_cell("x.json", text=cell_json(cell)).engines == cell.engines


def test_a_torus_joins_each_switch_to_six_others():
    cell = preset("torus:3x4x5")
    assert len(cell.engines) == 3 * 4 * 5 * 4
    for switch in cell.switches:
        ends = [cell.links[name] for name in cell.links_at[switch]]
        beside = [link for link in ends if link.a_thing in cell.switches]
        assert len({link.name for link in beside}) == 6


@pytest.mark.parametrize(
    ("text", "words", "way_out"),
    [
        ("fat-tree", 'preset "fat-tree"', "write fat-tree:N"),
        ("fat-tree:0", '"0" is no number of engines from 1 to 1000000', "fat-tree:1000"),
        ("fat-tree:2000000", "is no number of engines", "write fat-tree:N"),
        ("torus:4x4", "does not have three sides", "torus:XxYxZ"),
        ("torus:4xax4", '"a" is no number of switches', "torus:XxYxZ"),
        ("torus:900x900x900", "the most is 1000000", "torus:XxYxZ"),
        ("fic-small:3", 'takes no parameter, not "3"', "write fic-small"),
        ("gpu-islands:-1", "is no number of islands", "gpu-islands:N"),
        ("fic-smal", 'there is no preset "fic-smal"', "did you mean fic-small?"),
        ("moon", 'there is no preset "moon"', "known: boxes"),
    ],
)
def test_a_preset_that_cannot_be_names_the_accepted_form(text, words, way_out):
    with pytest.raises(SpecError) as caught:
        preset(text)
    assert words in caught.value.problem
    assert way_out in caught.value.hint


def test_every_preset_has_its_line_for_people():
    for name, known in PRESETS.items():
        assert known.form.startswith(name)
        assert len(known.about) > 20


def test_a_word_is_a_file_or_a_preset(tmp_path):
    file = tmp_path / "cell.yaml"
    file.write_text("nodes: [{name: n0}]")
    assert list(file_or_preset(str(file)).nodes) == ["n0"]
    assert len(file_or_preset("fat-tree:8").engines) == 8
    with pytest.raises(
        SpecError, match='"fic-smal" is neither a file nor a preset: did you mean fic-small'
    ):
        file_or_preset("fic-smal")
    with pytest.raises(SpecError, match=r"missing.yaml: cannot be read"):
        file_or_preset(str(tmp_path / "missing.yaml"))
