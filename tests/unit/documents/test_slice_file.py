"""A slice file gives the request that it describes, or says on which line it cannot be meant."""

import json
import random
import re
from pathlib import Path

import pytest

from flowos.documents.slice_file import Defaults, parse_slice
from flowos.documents.slice_options import random_name, slice_from_options
from flowos.documents.slice_writing import dump_slice
from flowos.model.errors import FileError, SpecError
from flowos.model.slice import (
    CircuitWish,
    Constraints,
    EngineChoice,
    EngineRole,
    HostRole,
    Run,
    Shape,
    SliceSpec,
)

EXAMPLES = Path(__file__).parents[3] / "examples" / "slices"
WHOLE = """
name: train-42
tenant: vision
policy: batch            # which scheduler plug-in serves it
priority: 50
engines:
  workers: {kind: gpu, model: [A100, H100], count: 8, where: {memory: ">=24GiB"}}
  reducer: {kind: fpga, count: 1, bitstream: sum-f32}
hosts:
  workers: {cpu: 8, memory: 32GiB}
  driver: {count: 1, cpu: 4, memory: 16GiB}
together: {workers: node}
circuits:
  - {ring: workers, lanes: 1}
  - {from: workers, to: reducer, aggregate: sum}
  - {from: reducer, to: workers}
constraints: {max_hops: 4, max_latency_ns: 2000, spread: pack}
elastic: {workers: [4, 16]}
expected_duration: 2h
time_limit: 4h
run: {command: [python, train.py]}
"""
GIB = 2**30


def one(text: str, defaults: Defaults | None = None) -> SliceSpec:
    (spec,) = parse_slice(text, "s.yaml", defaults or Defaults())
    return spec


def with_workers(more: str) -> str:
    return f"name: a\nengines:\n  workers: {{kind: gpu, count: 2}}\n{more}\n"


# ------------------------------------------------------------------------------- what is written


def test_the_documented_slice_file_is_read_whole():
    assert one(WHOLE) == SliceSpec(
        name="train-42",
        tenant="vision",
        policy="batch",
        priority=50,
        engines={
            "workers": EngineRole(
                (EngineChoice("gpu", ("A100", "H100"), 8, where={"memory": ">=24GiB"}),)
            ),
            "reducer": EngineRole((EngineChoice("fpga", bitstream="sum-f32"),)),
        },
        hosts={"workers": HostRole(8000, 32 * GIB), "driver": HostRole(4000, 16 * GIB, 1)},
        together={"workers": "node"},
        circuits=(
            CircuitWish(Shape.RING, ("workers",)),
            CircuitWish(Shape.FLOW, ("workers", "reducer"), aggregate="sum"),
            CircuitWish(Shape.FLOW, ("reducer", "workers")),
        ),
        constraints=Constraints(4, 2000),
        elastic={"workers": (4, 16)},
        expected_seconds=7200.0,
        time_limit_seconds=14400.0,
        run=Run(command=("python", "train.py")),
    )


def test_roles_keep_the_order_in_which_they_are_written():
    assert list(one(WHOLE).engines) == ["workers", "reducer"]
    assert list(one(WHOLE).hosts) == ["workers", "driver"]


def test_a_share_and_several_ways_are_read():
    spec = one("""
name: a
engines:
  half: {kind: gpu, model: A100, share: 0.5}
  either: {anyOf: [{kind: fpga, bitstream: x}, {kind: gpu, count: 2, where: {nvlink: true, v: 1.10, n: 3}}]}
run: {for: 10s}
""")
    assert spec.engines["half"].choices == (EngineChoice("gpu", ("A100",), share_millis=500),)
    assert spec.engines["either"].choices == (
        EngineChoice("fpga", bitstream="x"),
        EngineChoice("gpu", count=2, where={"nvlink": "true", "v": "1.10", "n": "3"}),
    )
    assert spec.run == Run(for_seconds=10.0)


def test_a_host_is_attached_to_devices_by_flows_both_ways():
    spec = one("""
name: a
engines: {devices: {kind: gpu, count: 2}}
hosts: {driver: {count: 1, cpu: 4}}
circuits: [{from: driver, to: devices}, {from: devices, to: driver}]
""")
    assert [wish.roles for wish in spec.circuits] == [("driver", "devices"), ("devices", "driver")]


def test_a_torus_has_sides_and_an_explicit_shape_pairs_of_ranks():
    text = """
name: a
engines: {w: {kind: gpu, count: 6}}
circuits: [{torus: w, dims: [2, 3]}, {explicit: w, links: [[0, 1], [5, 0]], lanes: 2}]
"""
    spec = one(text)
    assert spec.circuits == (
        CircuitWish(Shape.TORUS, ("w",), dims=(2, 3)),
        CircuitWish(Shape.EXPLICIT, ("w",), 2, links=((0, 1), (5, 0))),
    )
    assert one(json.dumps(dump_slice(spec))) == spec


def test_a_file_may_hold_several_slices():
    specs = parse_slice(
        "name: a\nengines: {w: {kind: gpu}}\n---\nname: b\nhosts: {d: {count: 1, cpu: 1}}", "-"
    )
    assert [spec.name for spec in specs] == ["a", "b"]


def test_defaults_fill_what_is_not_written():
    defaults = Defaults(name="x", tenant="t", policy="p", priority=7, run=Run(for_seconds=5.0))
    filled = one("engines: {w: {kind: gpu}}", defaults)
    assert (filled.id, filled.policy, filled.priority, filled.run.for_seconds) == (
        "t/x",
        "p",
        7,
        5.0,
    )
    kept = one(
        "name: a\ntenant: b\npolicy: c\npriority: 0\nrun: {for: 1}\nengines: {w: {kind: gpu}}",
        defaults,
    )
    assert (kept.id, kept.policy, kept.priority, kept.run.for_seconds) == ("b/a", "c", 0, 1.0)


def test_a_default_is_checked_like_what_is_written():
    with pytest.raises(FileError, match='tenant: "No Such" is not possible'):
        one("name: a\nengines: {w: {kind: gpu}}", Defaults(tenant="No Such"))


def test_a_document_that_was_read_already_is_taken():
    document = {"name": "a", "engines": {"w": {"kind": "gpu", "share": 0.25}}}
    assert parse_slice(document, "sdk")[0].engines["w"].choices[0].share_millis == 250
    with pytest.raises(FileError, match=r"^sdk: engines\.w\.count: "):
        parse_slice({"name": "a", "engines": {"w": {"count": 1.5}}}, "sdk")


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_an_example_is_read_and_comes_back_from_its_dump(path):
    specs = parse_slice(path.read_text(), path)
    assert specs
    for spec in specs:
        assert parse_slice(json.loads(json.dumps(dump_slice(spec))), "x") == [spec]


def test_a_dump_reads_back_equal_as_json_and_as_yaml():
    spec = one(WHOLE)
    text = json.dumps(dump_slice(spec))
    assert parse_slice(text, "x.json") == [spec]
    assert parse_slice(text, "x.yaml") == [spec]
    assert dump_slice(spec)["apiVersion"] == "flowos/v1"


# ------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("text", "line", "words", "way_out"),
    [
        ("engines: {w: {kind: gpu}}", 1, "name is missing", "add name"),
        ("name: A\nengines: {w: {kind: gpu}}", 1, '"A" is not possible', "small letters"),
        ("name: a.b\nengines: {w: {kind: gpu}}", 1, '"a.b" is not possible', "dashes"),
        ("name: a", 1, "asks for nothing", "add engines"),
        ("name: no\nengines: {}", 1, "plain no can mean two things", "quotes"),
        ("name: a\nenginse: {}", 2, 'no field "enginse"', "did you mean engines?"),
        (
            "name: a\nengines:\n  w: {kind: gpu, cuont: 2}",
            3,
            'engines.w: there is no field "cuont"',
            "count?",
        ),
        ("name: a\nengines: [gpu]", 2, "must be a mapping, not a list", "write engines"),
        ("name: a\nengines: {W: {kind: gpu}}", 2, "cannot name a role", "workers"),
        ("name: a\nengines:\n  w: {kind: gpu, count: 0}", 3, "count: 0 is out of range", "1 to"),
        (
            "name: a\nengines:\n  w: {kind: gpu, count: '8'}",
            3,
            '"8" is no whole number',
            "without quotes",
        ),
        (
            "name: a\nengines:\n  w: {kind: gpu, count: true}",
            3,
            "true is no whole number",
            "write 1",
        ),
        ("name: a\nengines:\n  w: {kind: gpu, count: 2.5}", 3, "2.5 is no whole number", "write 1"),
        ("name: a\nengines:\n  w: {kind: gpu, count: 010}", 3, "plain 010", "leading 0"),
        ("name: a\nengines:\n  w: {kind: gpu, model: 100}", 3, "must be text, not 100", '"100"'),
        (
            "name: a\nengines:\n  w: {kind: gpu, model: [A100, 100]}",
            3,
            "model[1]: must be text",
            '"100"',
        ),
        (
            "name: a\nengines:\n  w: {kind: gpu, share: 0.5, count: 2}",
            3,
            "count is 2",
            "leave the count",
        ),
        ("name: a\nengines:\n  w: {kind: gpu, share: 1}", 3, "1 is no share", "between 0 and 1"),
        ("name: a\nengines:\n  w: {kind: gpu, share: 0.0005}", 3, "is no share", "steps of 0.001"),
        ("name: a\nengines:\n  w: {anyOf: []}", 3, "has no choices", "at least one"),
        (
            "name: a\nengines:\n  w: {anyOf: [{kind: gpu}], count: 2}",
            3,
            "beside anyOf",
            "each choice",
        ),
        (
            "name: a\nengines:\n  w: {kind: gpu, bitstream: 'x@sha256:1'}",
            3,
            "not possible",
            "name@sha256",
        ),
        ("name: a\nengines:\n  w: {kind: gpu, where: {memory: '>=24'}}", 3, "no unit", "32GiB"),
        ("name: a\nengines:\n  w: {kind: gpu, where: {v: '>=new'}}", 3, "is no amount", ">=24GiB"),
        ("name: a\nengines:\n  w: {kind: gpu, where: {v: '>='}}", 3, "is no amount", ">=24GiB"),
        (
            "name: a\nengines:\n  w: {kind: gpu, where: {v: [1]}}",
            3,
            "a list is no condition",
            "!=x",
        ),
        (with_workers("hosts:\n  wokers: {cpu: 1}"), 5, 'no engine role "wokers"', "mean workers?"),
        (with_workers("hosts:\n  driver: {cpu: 1}"), 5, "no count of hosts", "add a count"),
        (
            with_workers("hosts:\n  workers: {cpu: 1, count: 2}"),
            5,
            "as many as its engines",
            "leave",
        ),
        (with_workers("hosts:\n  d: {count: 1}"), 5, "neither CPU nor memory", "cpu: 8"),
        (with_workers("hosts:\n  d: {count: 1, memory: 4}"), 5, "no unit", "32GiB"),
        (with_workers("together: {worker: node}"), 4, 'no role "worker"', "did you mean workers?"),
        (with_workers("together: {workers: rack}"), 4, '"rack" is no place', "node, switch, any"),
        (
            with_workers("circuits:\n  - {ring: wrkers}"),
            5,
            'no role "wrkers"',
            "did you mean workers?",
        ),
        (
            with_workers("circuits:\n  - {ring: workers, all: workers}"),
            5,
            "must have one of",
            "ring",
        ),
        (
            with_workers("hosts: {d: {count: 1, cpu: 1}}\ncircuits:\n  - {ring: d}"),
            6,
            'no role "d"',
            "workers",
        ),
        (with_workers("circuits:\n  - {from: workers}"), 5, "both from and to", "write such as"),
        (with_workers("circuits:\n  - {lanes: 2}"), 5, "must have one of", "write such as"),
        (
            with_workers("circuits:\n  - {from: workers, to: workers}"),
            5,
            "to itself",
            "all: workers",
        ),
        (with_workers("circuits:\n  - {ring: [workers, workers]}"), 5, "one twice", "once"),
        (with_workers("circuits:\n  - {ring: workers, lanes: 0}"), 5, "out of range", "1 to"),
        (
            with_workers("circuits:\n  - {ring: workers, aggregate: sum}"),
            5,
            "in a ring",
            "leave it",
        ),
        (with_workers("circuits: {ring: workers}"), 4, "must be a list", "circuits: [...]"),
        (
            with_workers("circuits:\n  - {torus: workers, dims: [2, 2]}"),
            5,
            "sides of 2x2 do not make 2 engines",
            "whose product is 2",
        ),
        (with_workers("circuits:\n  - {torus: workers}"), 5, "dims is missing", "add dims"),
        (with_workers("circuits:\n  - {ring: workers, dims: [2]}"), 5, "belongs to torus", "torus"),
        (
            with_workers("circuits:\n  - {torus: workers, dims: [2, x]}"),
            5,
            '"x" is no length',
            "such as 4",
        ),
        (
            with_workers("circuits:\n  - {explicit: workers, links: [[0, 2]]}"),
            5,
            "are not two ranks",
            "from 0 to 1",
        ),
        (
            with_workers("circuits:\n  - {explicit: workers, links: [[0, 1], [0, 1]]}"),
            5,
            "there twice",
            "leave it out",
        ),
        (with_workers("circuits:\n  - {explicit: workers, links: []}"), 5, "no pair", "[0, 1]"),
        (
            with_workers("elastic: {workers: [1, 4]}\ncircuits:\n  - {torus: workers, dims: [2]}"),
            6,
            "it is elastic",
            "use ring",
        ),
        (with_workers("constraints: {max_hop: 3}"), 4, 'no field "max_hop"', "max_hops?"),
        (with_workers("constraints: {spread: wide}"), 4, '"wide" is unknown', "pack, spread, rack"),
        (
            with_workers("elastic: {workers: [4, 16]}"),
            4,
            "a count of 2, outside of 4 to 16",
            "hold",
        ),
        (with_workers("elastic: {workers: [3, 1]}"), 4, "3 to 1 is no range", "[4, 16]"),
        (with_workers("elastic: {workers: 4}"), 4, "4 is no range", "[4, 16]"),
        (with_workers("elastic: {boss: [1, 2]}"), 4, 'no role "boss"', "workers"),
        (with_workers("expected_duration: soon"), 4, "is not a duration", "1h30m"),
        (with_workers("time_limit: 12:30:00"), 4, "plain 12:30:00", "1h30m"),
        (with_workers("run: {for: 0}"), 4, "lasts no time", "10s"),
        (with_workers("run: {for: 10s, command: [x]}"), 4, "both for and command", "one of"),
        (with_workers("run: {}"), 4, "says nothing to run", "one of"),
        (with_workers("run: {command: []}"), 4, "is empty", "python"),
        (with_workers("run: {command: python}"), 4, 'must be a list, not "python"', "[...]"),
        (with_workers("run: {for: 1s, kernel: x}"), 4, "belongs to an image", "image"),
        (with_workers("run: {image: ''}"), 4, "image: is empty", "name the image"),
        (with_workers("priority: high"), 4, '"high" is no whole number', "write"),
        (with_workers("tenant: ''"), 4, '"" is not possible', "small letters"),
        (with_workers("kind: Cell"), 4, '"Cell" is unknown', "use Slice"),
        ("", 0, "is empty", "describe a slice"),
        ("- a", 1, "must be a mapping, not a list", "write its fields"),
        (
            "name: a\nengines: {w: {kind: gpu}}\n---\nname: a\nengines: {w: {kind: gpu}}",
            4,
            "two slices default/a",
            "differently",
        ),
    ],
)
def test_a_slice_that_cannot_be_meant_is_refused_with_its_line(text, line, words, way_out):
    with pytest.raises(FileError) as caught:
        parse_slice(text, "s.yaml")
    error = caught.value
    assert (error.line, words in error.problem, way_out in error.hint) == (line, True, True), error
    assert str(error).startswith(f"s.yaml:{line}: " if line else "s.yaml: ")


# -------------------------------------------------------------------------------------- options


def test_options_make_a_slice_whose_roles_are_kinds():
    (spec,) = slice_from_options(
        "gpu=8,fpga=1@sum-f32", "ring", name="a", defaults=Defaults(priority=3)
    )
    assert spec == SliceSpec(
        name="a",
        policy="",
        priority=3,
        engines={
            "gpu": EngineRole((EngineChoice("gpu", count=8),)),
            "fpga": EngineRole((EngineChoice("fpga", bitstream="sum-f32"),)),
        },
        circuits=(CircuitWish(Shape.RING, ("gpu", "fpga")),),
    )


def test_an_option_may_ask_for_one_or_for_a_share():
    (spec,) = slice_from_options("gpu=0.5, nvme", name="a")
    assert spec.engines["gpu"].choices[0].share_millis == 500
    assert spec.engines["nvme"].choices[0].count == 1


def test_a_slice_without_a_name_is_called_after_its_first_kind():
    (spec,) = slice_from_options("gpu=2,fpga=1", rng=random.Random(1))
    assert re.fullmatch("gpu[a-z]{5}", spec.name)
    assert spec.name == slice_from_options("gpu=1", rng=random.Random(1))[0].name
    assert random_name("gpu", random.Random(2)) != spec.name


@pytest.mark.parametrize(
    ("engines", "circuits", "words"),
    [
        ("", "", '--engines: "" is no kind with a count: write --engines gpu=8'),
        ("gpu=", "", '--engines: "" is no number of engines'),
        ("gpu=two", "", '--engines: "two" is no number of engines'),
        ("gpu=-1", "", '--engines: "-1" is no number'),
        ("gpu=1.5", "", '--engines: "1.5" is no number'),
        ("gpu=0", "", "engines.gpu.count: 0 is out of range"),
        ("GPU=1", "", '--engines: "GPU=1" is no kind'),
        ("gpu=1,gpu=2", "", "--engines: gpu stands twice"),
        ("gpu=1,,fpga", "", '--engines: "" is no kind'),
        ("gpu=1", "mesh", '--circuits: "mesh" is no shape: write --circuits ring, all or star'),
        ("fpga=1@", "", "--engines:"),
        ("fpga=1@A!", "", "bitstream"),
    ],
)
def test_an_option_that_cannot_be_meant_is_named(engines, circuits, words):
    with pytest.raises(SpecError) as caught:
        slice_from_options(engines, circuits, name="a")
    assert words in str(caught.value)


def test_explicit_circuits_of_several_roles_and_trees_are_read_and_written_again():
    text = """
name: s
engines: {a: {kind: gpu, count: 2}, b: {kind: fpga}}
circuits:
  - {explicit: [a, b], links: [[0, 2], [0, 1]], multicast: true}
run: {command: [x], env: {A: "1"}, launch: first, directory: /tmp, reduces: true, tolerant: true}
"""
    (spec,) = parse_slice(text, "s.yaml")
    (wish,) = spec.circuits
    assert (wish.roles, wish.links, wish.multicast) == (("a", "b"), ((0, 2), (0, 1)), True)
    assert (dict(spec.run.env), spec.run.launch, spec.run.directory) == (
        {"A": "1"},
        "first",
        "/tmp",
    )
    assert (spec.run.reduces, spec.run.tolerant) == (True, True)
    assert parse_slice(json.dumps(dump_slice(spec)), "again.yaml") == [spec]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("circuits: [{ring: a, multicast: true}]", "multicast: belongs to explicit"),
        (
            "circuits: [{explicit: a, links: [[0, 1]], multicast: true, aggregate: sum}]",
            "multicast: and aggregate exclude each other",
        ),
        ("run: {for: 1s, env: {A: b}}", "env: belongs to a command"),
        ("run: {command: [x], env: {1A: b}}", "cannot name a variable"),
        ("run: {command: [x], env: {A: 1}}", 'write "1" in quotes'),
        ("run: {command: [x], launch: last}", "launch"),
    ],
)
def test_what_a_command_or_a_tree_cannot_have_is_refused(line, words):
    with pytest.raises(FileError, match=re.escape(words)):
        parse_slice(f"name: s\nengines: {{a: {{kind: gpu, count: 2}}}}\n{line}\n", "s.yaml")
