"""Rows of machines become a cell, with a fabric over them if one is asked for."""

import pytest

from flowos.documents.cell_file import cell_json, load_cell
from flowos.model.cell import Engine, Node, Tenant, Watts
from flowos.model.errors import FileError, SpecError

HEADER = "node_id,engine_type,engine_model,engines,cpu_cores,mem_gib,pod,rack,basis\n"
TWO_RACKS = HEADER + "".join(
    f"n{number},gpu,A100,2,64,512,p0,r{number // 2},published\n" for number in range(4)
)


def test_a_row_is_a_node_with_its_engines():
    found = load_cell(
        "x.csv", text=HEADER + "n0,cpu,CPU,0,32.5,256,,,published\nn1,gpu,T4,2,96,,p,r,x\n"
    )
    assert found.nodes == {
        "n0": Node("n0", 32_500, 256 * 2**30),
        "n1": Node("n1", 96_000, 0, rack="r", pod="p"),
    }
    assert list(found.engines) == ["n1/gpu0", "n1/gpu1"]
    assert found.engines["n1/gpu1"] == Engine(
        "n1", "gpu1", "gpu", "T4", 16 * 2**30, shareable=True, watts=Watts(0, 11, 70)
    )
    assert found.links == {}
    assert found.tenants == {"default": Tenant("default")}


def test_a_row_says_how_many_devices_its_node_takes():
    header = "node_id,engine_type,engines,devices\n"
    found = load_cell("x.csv", text=header + "h0,cpu,0,4\nh1,cpu,0,\n")
    assert [node.devices_max for node in found.nodes.values()] == [4, 0]


def test_an_unknown_model_has_no_memory_and_draws_nothing():
    found = load_cell("x.csv", text=HEADER + "n0,gpu,G2,1,,,,,\n").engines["n0/gpu0"]
    assert (found.model, found.memory_bytes, found.watts) == ("G2", 0, Watts())


def test_csv_comes_on_standard_input_too():
    assert list(load_cell("-", text=TWO_RACKS).nodes) == ["n0", "n1", "n2", "n3"]


@pytest.mark.parametrize(("fabric", "leaves"), [("rack", 2), ("nodes:1", 4), ("nodes:3", 2)])
def test_a_fabric_gives_each_group_a_leaf_and_all_of_them_a_spine(fabric, leaves):
    found = load_cell("x.csv", text=TWO_RACKS, fabric=fabric)
    names = [f"leaf{number}" for number in range(leaves)]
    assert list(found.switches) == [*names, "spine0"]
    assert len(found.links) == 8 + leaves
    for leaf in names:
        up = [found.links[name] for name in found.links_at[leaf] if "spine" in name]
        down = [found.links[name] for name in found.links_at[leaf] if "spine" not in name]
        assert up[0].lanes == sum(link.lanes for link in down), "the spine is too narrow"
    assert load_cell("x.json", text=cell_json(found)) == found


def test_one_group_needs_no_spine():
    assert list(load_cell("x.csv", text=TWO_RACKS, fabric="nodes:9").switches) == ["leaf0"]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("n0,gpu\n", 1, 'there is no column "n0"'),
        ("node_id,engines\nn0,1\n", 1, "has no column engine_type"),
        ("node_id,node_id\n", 1, "a column stands twice"),
        (HEADER + "n0,gpu,T4,2\n", 2, "has 4 values for 9 columns"),
        (HEADER + "n0,gpu,T4,2,1,1,,,\n\nn0,gpu,T4,2,1,1,,,\n", 4, "node n0 stands twice"),
        (HEADER + "N0,gpu,T4,2,1,1,,,\n", 2, 'node_id "N0" is not possible'),
        (HEADER + "n0,GPU!,T4,2,1,1,,,\n", 2, "engine_type"),
        (HEADER + "n0,gpu,T4,two,1,1,,,\n", 2, 'engines is "two"'),
        (HEADER + "n0,gpu,T4,,1,1,,,\n", 2, 'engines is ""'),
        (HEADER + "n0,gpu,T4,99999,1,1,,,\n", 2, "the most is 1024"),
        (HEADER + "n0,gpu,T4,1,-4,1,,,\n", 2, 'cpu_cores is "-4"'),
        (HEADER + "n0,gpu,T4,1,99999999999,1,,,\n", 2, "the most is"),
        # Braces would be a pattern once the cell is exported.
        (HEADER + "n0,gpu,T4,1,1,1,,r{0},\n", 2, 'rack "r{0}" is not possible'),
        (HEADER + 'n0,gpu,"T4,1,1,1,,,\n', 2, "is not CSV"),
        ("node_id,engine_type,engines,devices\nh0,cpu,0,-1\n", 2, 'devices is "-1"'),
        (HEADER, 0, "has no nodes"),
        ("", 1, "has no column node_id"),
    ],
)
def test_a_row_that_cannot_be_is_refused_with_its_line(text, line, words):
    with pytest.raises(FileError) as caught:
        load_cell("x.csv", text=text)
    assert (caught.value.line, words in caught.value.problem) == (line, True), caught.value
    assert caught.value.hint


def test_a_fabric_by_rack_needs_racks():
    with pytest.raises(SpecError, match=r"node n0 has no rack.* or use nodes:8"):
        load_cell("x.csv", text=HEADER + "n0,gpu,T4,1,1,1,,,\n", fabric="rack")


def test_an_unknown_fabric_names_the_known_ones():
    with pytest.raises(SpecError, match='no fabric "mesh": use rack, or nodes:8'):
        load_cell("x.csv", text=TWO_RACKS, fabric="mesh")
    with pytest.raises(SpecError, match="only laid over CSV"):
        load_cell("x.yaml", text="name: x", fabric="rack")


def test_a_node_cannot_be_called_like_a_switch_of_the_fabric():
    with pytest.raises(SpecError, match="a node is called leaf0"):
        load_cell("x.csv", text=HEADER + "leaf0,gpu,T4,1,1,1,,,\n", fabric="nodes:1")


def test_a_leaf_is_never_wider_than_a_link_to_its_spine():
    text = HEADER + "".join(f"n{number},gpu,T4,300,1,1,,r,\n" for number in range(2))
    with pytest.raises(SpecError, match="would have 600 engines: the most is 512: use nodes:K"):
        load_cell("x.csv", text=text, fabric="rack")
    assert len(load_cell("x.csv", text=text, fabric="nodes:1").switches) == 3


def test_links_of_nodes_with_long_names_are_numbered():
    text = HEADER + f"{'n' * 63},gpu,T4,2,1,1,,r,\n"
    found = load_cell("x.csv", text=text, fabric="rack")
    assert list(found.links) == ["link-0", "link-1"]
    assert load_cell("x.json", text=cell_json(found)) == found
