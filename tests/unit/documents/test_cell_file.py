"""A cell file gives the cell that it describes, or says on which line it cannot be one."""

import gc
import json
from pathlib import Path

import pytest

from flowos.documents.cell_file import cell_json, dump_cell, load_cell
from flowos.model.cell import Cell, Domain, Engine, Link, Node, Tenant, Watts
from flowos.model.errors import FileError, SpecError

EXAMPLES = Path(__file__).parents[3] / "examples" / "cells"
DIGEST = "sha256:" + "ab" * 32


def cell(text: str, path: str = "c.yaml") -> Cell:
    return load_cell(path, text=text)


def refused(text: str, path: str = "c.yaml") -> FileError:
    with pytest.raises(FileError) as caught:
        load_cell(path, text=text)
    assert caught.value.hint, "the way out is missing"
    return caught.value


# ------------------------------------------------------------------------------- what is written


def test_a_template_is_spread_over_many_nodes():
    found = cell("""
domains: [{name: room, budget: 20kW}]
templates:
  gpu-node:
    cpu: 64
    memory: 512GiB
    domain: room
    engines:
      - {name: gpu, kind: gpu, model: A100, memory: 40GiB, count: 8, shareable: true,
         watts: {off: 0, idle: 60, busy: 400}, attributes: {nvlink: true}}
nodes: [{name: "n{0..15}", template: gpu-node}, {name: big, template: gpu-node, cpu: 500m, engines: []}]
""")
    assert list(found.nodes) == [*(f"n{number}" for number in range(16)), "big"]
    assert found.nodes["n15"] == Node("n15", 64_000, 512 * 2**30, domain="room")
    assert found.nodes["big"].cpu_millis == 500
    assert found.engines["n15/gpu7"] == Engine(
        node="n15",
        name="gpu7",
        kind="gpu",
        model="A100",
        memory_bytes=40 * 2**30,
        shareable=True,
        watts=Watts(0, 60, 400),
        attributes={"nvlink": True},
    )
    assert len(found.engines) == 128
    assert found.engines_of.get("big") is None
    assert found.domains == {"room": Domain("room", 20_000)}


def test_a_node_says_how_many_devices_it_takes_and_so_does_its_export():
    found = cell("nodes: [{name: h0, devices: 4}, {name: h1}]\n")
    assert [node.devices_max for node in found.nodes.values()] == [4, 0]
    assert '{"name": "h0", "devices": 4}' in cell_json(found)
    assert load_cell("x.json", text=cell_json(found)) == found
    assert ".devices: -1 is out of range" in str(refused("nodes: [{name: h0, devices: -1}]\n"))


def test_ranges_give_every_combination_and_keep_leading_zeros():
    found = cell('nodes: [{name: "r{0..1}-n{08..10}"}]')
    assert list(found.nodes) == ["r0-n08", "r0-n09", "r0-n10", "r1-n08", "r1-n09", "r1-n10"]


def test_variables_are_computed_from_left_to_right():
    found = cell("""
nodes: [{for: {i: 0..5}, name: "n{i}", rack: "r{i/2}", pod: "p{i*2+1%4}"}]
switches: [{name: sw, count: 3, ports: 4}]
links: [{for: {i: 0..2}, a: "sw{i}", b: "sw{i+1%3}"}]
""")
    assert [node.rack for node in found.nodes.values()] == ["r0", "r0", "r1", "r1", "r2", "r2"]
    assert [node.pod for node in found.nodes.values()] == ["p1", "p3", "p1", "p3", "p1", "p3"]
    assert [(link.a, link.b) for link in found.links.values()] == [
        ("sw0:0", "sw1:0"),
        ("sw1:1", "sw2:0"),
        ("sw2:1", "sw0:1"),
    ]


def test_ends_without_a_port_get_the_next_free_one():
    found = cell("""
nodes: [{name: n0, engines: [{name: gpu0, kind: gpu}, {name: gpu1, kind: gpu}]}]
switches: [{name: leaf0, ports: 4}]
links:
  - {a: n0/gpu0, b: leaf0, lanes: 8, gbps: 12.5, latency: 50ns}
  - {a: n0/gpu1, b: "leaf0:0", name: first}
  - {a: n0, b: leaf0, count: 2}
""")
    assert list(found.links.values()) == [
        Link("n0.gpu0-leaf0", "n0/gpu0:0", "leaf0:1", 8, 12.5, 50),
        Link("first", "n0/gpu1:0", "leaf0:0"),
        Link("n0-leaf0", "n0:0", "leaf0:2"),
        Link("n0-leaf0.2", "n0:1", "leaf0:3"),
    ]


def test_links_without_names_never_take_a_name_that_is_written():
    found = cell("""
switches: [{name: a}, {name: b}]
links: [{a: a, b: b, count: 3}, {a: a, b: b, name: a-b}, {a: a, b: b, name: a-b.3}]
""")
    assert list(found.links) == ["a-b.2", "a-b.4", "a-b.5", "a-b", "a-b.3"]


def test_the_default_tenant_is_always_there():
    assert cell("name: x").tenants == {"default": Tenant("default")}
    written = cell(
        "tenants: [{name: vision, weight: 2, quota: {gpu: 8}}, {name: default, weight: 5}]"
    )
    assert written.tenants == {
        "vision": Tenant("vision", 2, {"gpu": 8}),
        "default": Tenant("default", 5),
    }


def test_what_is_null_is_not_written():
    found = cell("domains: [{name: d, budget: null}]\nlinks:\nnodes: [{name: n, domain: ~}]")
    assert found.domains["d"].budget_watts is None
    assert found.nodes["n"].domain == ""


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_an_example_is_read_and_comes_back_from_its_export(path):
    found = load_cell(path)
    assert found.engines
    assert found.links
    assert load_cell("x.json", text=cell_json(found)) == found


def test_an_export_is_one_thing_a_line_and_reads_back_equal():
    made = cell(f"""
name: lab
domains: [{{name: room, budget: 1234W}}, {{name: zero, budget: 0, parent: room}}, {{name: free}}]
nodes: [{{name: n0, cpu: 1.5, memory: 1GB, rack: r, pod: p, domain: room, attributes: {{v: 1.5, w: 2, x: true, y: "1.10"}},
  engines: [{{name: f, kind: fpga, loads_bitstreams: true}}]}}]
switches: [{{name: s, ports: 9, aggregators: 1, functions: [sum, max], latency: 1.5us, tier: 1, domain: free}}]
links: [{{a: n0/f, b: s, lanes: 3, gbps: 0.1, latency: 7ns}}]
bitstreams: [{{name: b, digest: "{DIGEST}", kind: fpga, models: [U50], function: sum, size: 1MB, load: 1m0.5s}}]
tenants: [{{name: t, quota: {{gpu: 0}}}}]
""")
    text = cell_json(made)
    assert load_cell("x.json", text=text) == made
    assert load_cell("x.yaml", text=text) == made
    assert json.loads(text) == dump_cell(made)
    assert dump_cell(made)["apiVersion"] == "flowos/v1"
    assert [line for line in text.splitlines() if '"n0/f:0"' in line] == [
        '    {"name": "n0.f-s", "a": "n0/f:0", "b": "s:0", "lanes": 3, "gbps": 0.1, "latency": "7ns"}'
    ]


def test_an_engine_without_a_node_cannot_be_exported():
    broken = Cell()
    broken.add(Engine("gone", "gpu0", "gpu"))
    with pytest.raises(SpecError, match="gone/gpu0 is on no node"):
        dump_cell(broken)


# ------------------------------------------------------------------------------- what is refused

NODES = """nodes:
  - name: n0
    engines: [{name: gpu0, kind: gpu}, {name: gpu1, kind: gpu}]
switches: [{name: sw0, ports: 2}]
"""


@pytest.mark.parametrize(
    ("text", "line", "words", "way_out"),
    [
        ("nodes:\n  - {nmae: n0}\n", 2, 'there is no field "nmae"', "did you mean name?"),
        ("node:\n  - {name: n0}\n", 1, 'there is no field "node"', "did you mean nodes?"),
        ("nodes:\n  - {cpu: 4}\n", 2, "nodes[0]: name is missing", "add name"),
        ("nodes: {name: n0}\n", 1, "must be a list, not a mapping", "write nodes: [...]"),
        ("nodes:\n  - n0\n", 2, 'must be a mapping, not "n0"', "write its fields"),
        ("apiVersion: flowos/v2\n", 1, '"flowos/v2" is unknown', "use flowos/v1"),
        ("kind: Slice\n", 1, '"Slice" is unknown', "use Cell"),
        ("nodes:\n  - name: n0\n    cpu: four\n", 3, "nodes[0].cpu: ", "write whole CPUs"),
        ("nodes:\n  - {name: n0, memory: 512}\n", 2, "no unit", "512MiB"),
        ("nodes:\n  - {name: N0}\n", 2, '"N0" is not possible', "small letters"),
        ("nodes:\n  - {name: 8}\n", 2, "must be text, not 8", 'write "8" in quotes'),
        (
            "nodes:\n  - {name: n0}\n  - {name: n0}\n",
            3,
            "a node or switch already, on line 2",
            "rename",
        ),
        ("switches:\n - {name: x}\nnodes:\n - {name: x}\n", 4, "already, on line 2", "rename one"),
        ("nodes: [{name: n, domain: roon}]\ndomains: [{name: room}]", 1, "no domain", "mean room?"),
        ("switches:\n  - {name: s, domain: x}\n", 2, 'no domain "x"', "none is known"),
        ("domains:\n  - {name: a, parent: b}\n", 2, 'no domain "b"', "known: a"),
        (
            "domains:\n  - {name: a, parent: b}\n  - {name: b, parent: a}\n",
            2,
            "lie in each other: a in b in a",
            "no parent",
        ),
        (
            "domains: [{name: a}]\ntenants: [{name: t},\n {name: t}]",
            3,
            "named twice",
            "differently",
        ),
        ("nodes: [{name: n, template: gpu}]\ntemplates: {gpus: {}}", 1, "no template", "gpus?"),
        (
            "nodes: [{name: n, template: t}]\ntemplates:\n  t: {ports: 4}",
            3,
            "has ports",
            "one template",
        ),
        ("templates:\n  t: {name: x}\n", 2, 'no field "name"', "known"),
        (
            "nodes: [{name: n, engines: [{name: g, kind: gpu,\n watts: {idle: 500, busy: 400}}]}]",
            2,
            "off 0 W, idle 500 W and busy 400 W do not rise",
            "off <= idle <= busy",
        ),
        ("nodes: [{name: n, engines: [{name: g}]}]", 1, "kind is missing", "add kind"),
        (
            "nodes: [{name: n, engines: [{name: g, kind: gpu}, {name: g, kind: gpu}]}]",
            1,
            'two engines "g"',
            "use count",
        ),
        (
            "nodes: [{name: n, engines: [{name: g, kind: gpu, count: 0}]}]",
            1,
            "out of range",
            "1 to",
        ),
        (
            "nodes: [{name: n, engines: [{name: g, kind: gpu, shareable: 1}]}]",
            1,
            "truth",
            "write true",
        ),
        (
            "nodes: [{name: n, engines: [{name: g, kind: gpu, model: 1.10}]}]",
            1,
            "must be text, not 1.10",
            'write "1.10" in quotes',
        ),
        ("nodes: [{name: n, attributes: {v: 1.10}}]", 1, "1.10 is the number 1.1", "in quotes"),
        ("nodes: [{name: n, attributes: {v: [1]}}]", 1, "a list cannot be an attribute", "a text"),
        ("nodes: [{name: n, attributes: {'a b': 1}}]", 1, "cannot name an attribute", "letters"),
        ("nodes: [{name: n, count: 3000000}]", 1, "out of range", "2000000"),
        ('nodes: [{name: "n{0..2999999}"}]', 1, "stands for 3000000 names", "smaller"),
        ("nodes:\n - {for: {i: 0..1999, j: 0..1999}, name: n}", 2, "stands for 4000000", "smaller"),
        (
            "nodes: [{name: n, engines: [{name: g, kind: gpu, count: 2000}]}]",
            1,
            "2000 is out of range",
            "1 to 1024",
        ),
        (
            'nodes: [{name: n, engines: [{name: "g{0..1999}", kind: gpu}]}]',
            1,
            "has more than 1024 engines",
            "several nodes",
        ),
        ('nodes: [{name: "n{0..3}", count: 3}]', 1, "its name a range", "one of the two"),
        ('nodes: [{name: "n{3..0}"}]', 1, "the range 3..0 is empty", "smaller end first"),
        ('nodes: [{name: "n{i}"}]', 1, "{i} in", "write a range"),
        ('nodes: [{for: {i: 0..3}, name: "n{j}"}]', 1, "neither a range nor a variable", "{i}"),
        ('nodes: [{for: {i: 0..3}, name: "n{i-1}"}]', 1, "is -1 at i = 0", "add before"),
        ('nodes: [{for: {i: 0..3}, name: "n{i%0}"}]', 1, "divides by 0", "write"),
        ('nodes: [{for: {i: 4}, name: "n{i}"}]', 1, "4 is no range", "i: 0..15"),
        ('nodes: [{for: {I: 0..3}, name: "n{I}"}]', 1, "cannot name a variable", "small letters"),
        ('nodes: [{name: "n{0..3"}]', 1, "has no partner", "{0..15}"),
        ("nodes: [{name: n, rack: 'r 1'}]", 1, 'rack: "r 1" is not possible', "letters"),
        ("bitstreams: [{name: b, digest: abc}]", 1, '"abc" is not possible', "64 hexadecimal"),
        ("bitstreams: [{name: b}]", 1, "digest is missing", "add digest"),
        ("tenants: [{name: t, quota: {gpu: -1}}]", 1, "-1 is no number of engines", "0 or more"),
        ("tenants: [{name: t, weight: 0}]", 1, "out of range", "1 to"),
        (NODES + "links:\n  - {a: n0/gpu9, b: sw0}\n", 6, 'engine or node "n0/gpu9"', "n0/gpu"),
        (NODES + "links:\n  - {a: n0/gpu0, b: sw1}\n", 6, "links[0].b: ", "did you mean sw0?"),
        (NODES + "links:\n  - {a: x9/gpu0, b: sw0}\n", 6, '"x9/gpu0"', "n0/gpu0"),
        (NODES + "links:\n  - {a: n0/gpu0}\n", 6, "b is missing", "add b"),
        (
            NODES + 'links:\n  - {a: n0/gpu0, b: "sw0:1"}\n  - {a: n0/gpu1, b: "sw0:1"}\n',
            7,
            "port 1 of sw0 is used already, on line 6",
            "another port",
        ),
        (NODES + 'links:\n  - {a: n0, b: "sw0:2"}\n', 6, "has 2 ports", "use ports 0 to 1"),
        (NODES + "links:\n  - {a: n0, b: sw0, count: 3}\n", 6, "needs port 2", "more ports"),
        (NODES + 'links:\n  - {a: n0, b: "sw0:x"}\n', 6, '"x" is no port number', "sw0:0"),
        (NODES + "links:\n  - {a: sw0, b: sw0}\n", 6, "from sw0 to itself", "two different"),
        (NODES + "links:\n  - {a: n0, b: sw0, lanes: 0}\n", 6, "lanes: 0 is out of range", "1 to"),
        (NODES + "links:\n  - {a: n0, b: sw0, gbps: 0}\n", 6, "gbps: 0 is not a rate", "above 0"),
        (NODES + "links:\n  - {a: n0, b: sw0, latency: 50}\n", 6, "has no unit", "50ns"),
        (NODES + "links:\n  - {a: n0, b: sw0, name: x, count: 2}\n", 6, "one name for 2", "leave"),
        (NODES + 'links:\n  - {a: "n0:1", b: sw0, count: 2}\n', 6, "end at one port", "leave"),
        (
            NODES + "links:\n  - {a: n0, b: sw0, name: x}\n  - {a: n0, b: sw0, name: x}\n",
            7,
            'two links are called "x"',
            "differently",
        ),
        ("a: 1\n---\nb: 2\n", 0, "has 2 documents", "one cell"),
        ("", 0, "is empty", "describe one cell"),
        ("just words", 1, 'must be a mapping, not "just words"', "write its fields"),
    ],
)
def test_a_cell_that_cannot_be_is_refused_with_its_line(text, line, words, way_out):
    error = refused(text)
    assert (error.line, words in error.problem, way_out in error.hint) == (line, True, True), error
    assert str(error).startswith(f"c.yaml:{line}: " if line else "c.yaml: ")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('nodes:\n - {name: "a{0..9}"}\n - {name: "b{0..9}"}', "has 20 nodes or more"),
        ('nodes:\n - name: "a{0..3}"\n   engines: [{name: g, kind: gpu, count: 4}]', "16 engines"),
        ("switches:\n - {name: s, count: 4}\nlinks:\n - {a: s0, b: s1, count: 20}", "20 links"),
    ],
)
def test_a_cell_with_too_many_things_is_refused(text, words, monkeypatch):
    monkeypatch.setattr("flowos.documents.cell_file.THINGS_MAX", 12)
    error = refused(text)
    assert words in error.problem or "out of range" in error.problem
    assert "12" in error.hint


def test_a_budget_below_the_idle_draw_names_both_and_the_line():
    error = refused("""
domains:
  - name: room
    budget: 400W
  - {name: rack, parent: room}
nodes: [{name: "n{0..1}", domain: rack, engines: [{name: g, kind: gpu, count: 4, watts: {idle: 60, busy: 90}}]}]
""")
    assert str(error) == (
        "c.yaml:4: domains[0].budget: the budget of room, 400W, is below the 480W that its engines "
        "draw idle: raise it to 480W or more, or feed fewer engines from it"
    )


def test_a_json_cell_is_refused_with_its_line():
    error = refused('{"nodes": [\n {"name": "n0",\n  "cpu": -1}]}', "c.json")
    assert str(error).startswith("c.json:3: nodes[0].cpu: -1 is not an amount of CPU")


def test_the_garbage_collector_runs_again_after_an_error():
    assert gc.isenabled()
    refused("nodes: 1")
    assert gc.isenabled()


def test_a_mistake_in_a_template_is_told_where_the_template_is():
    error = refused("nodes: [{name: n, template: t}]\ntemplates:\n  t:\n    cpu: x\n")
    assert str(error).startswith("c.yaml:4: templates.t.cpu: ")
