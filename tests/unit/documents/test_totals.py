"""Totals refuse what no state of the cell could hold, in one sentence, and nothing else."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowos.documents.cell_file import load_cell
from flowos.documents.presets import preset
from flowos.documents.slice_file import parse_slice
from flowos.documents.slice_options import slice_from_options
from flowos.documents.totals import never, totals
from flowos.model.cell import Cell, Engine
from flowos.model.slice import (
    CircuitWish,
    EngineChoice,
    EngineRole,
    HostRole,
    Shape,
    SliceSpec,
)

SMALL = preset("fic-small")
OF_SMALL = json.loads(json.dumps(totals(SMALL)))  # as it comes back from the store


def test_totals_count_what_there_is():
    gpu = OF_SMALL["kinds"]["gpu"]
    assert (gpu["engines"], gpu["shareable"], gpu["on_one_node"], gpu["on_one_leaf"]) == (
        16,
        16,
        4,
        8,
    )
    assert gpu["models"]["A100"]["engines"] == 16
    assert OF_SMALL["kinds"]["fpga"]["loads_bitstreams"] == 4
    assert (OF_SMALL["engines"], OF_SMALL["nodes"], OF_SMALL["switches"]) == (24, 4, 2)
    assert OF_SMALL["host_cpu_millis_most"] == 32_000
    assert OF_SMALL["bitstreams"]["sum-f32"]["kind"] == "fpga"
    assert OF_SMALL["tenants"] == ["default"]


def test_an_empty_cell_has_totals_too():
    assert totals(Cell())["kinds"] == {}
    (spec,) = slice_from_options("gpu=1", name="a")
    assert never(spec, totals(Cell())) == "gpu asks for gpu, and the cell has only none"


DIGEST = "@sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("engines: {w: {kind: tpu}}", "w asks for tpu, and the cell has only fpga, gpu, nvme"),
        (
            "engines: {w: {kind: gpu, model: H100}}",
            "w asks for H100 gpu, and the cell has only A100",
        ),
        (
            "engines: {w: {kind: gpu, count: 17}}",
            "w asks for 17 gpu, and the cell has 16",
        ),
        (
            "engines: {w: {kind: gpu, count: 5}}\ntogether: {w: node}",
            "w asks for 5 gpu on one node, and the largest node has 4",
        ),
        (
            "engines: {w: {kind: gpu, count: 9}}\ntogether: {w: switch}",
            "w asks for 9 gpu on one switch, and the largest switch has 8",
        ),
        (
            "engines: {a: {kind: gpu, count: 9}, b: {kind: gpu, count: 8}}",
            "its roles ask for 17 gpu in all, and the cell has 16",
        ),
        (
            "engines: {w: {kind: fpga, share: 0.5}}",
            "w asks for a share of fpga, and none of the cell can be shared",
        ),
        (
            "engines: {w: {kind: fpga, bitstream: mul}}",
            "w asks for bitstream mul, and the cell knows add-bytewise, sum-f32",
        ),
        (
            "engines: {w: {kind: gpu, bitstream: sum-f32}}",
            "w asks for bitstream sum-f32 on gpu, and it is for fpga",
        ),
        (
            "engines: {w: {kind: gpu, where: {memory: '>=80GiB'}}}",
            "w asks for memory >=80GiB, and the largest gpu has 40GiB",
        ),
        (
            "engines: {w: {kind: gpu}}\nhosts: {w: {cpu: 33}}",
            "w asks for 33 CPUs beside each gpu, and the largest node has 32",
        ),
        (
            "engines: {w: {kind: gpu, count: 4}}\nhosts: {w: {memory: 64GiB}}\ntogether: {w: node}",
            "w asks for 256GiB of host memory for 4 gpu on one node, and the largest node has 128GiB",
        ),
        ("hosts: {d: {count: 5, cpu: 1}}", "d asks for 5 nodes, and the cell has 4"),
        (
            "hosts: {d: {count: 1, memory: 1TiB}}",
            "d asks for 1TiB of host memory on one node, and the largest node has 128GiB",
        ),
        (
            "engines: {w: {anyOf: [{kind: tpu}, {kind: gpu, count: 99}]}}",
            "w asks for tpu, and the cell has only fpga, gpu, nvme (and so is each of its 2 choices)",
        ),
    ],
)
def test_what_can_never_be_is_told_in_a_sentence(text, sentence):
    (spec,) = parse_slice(f"name: a\n{text}", "s.yaml")
    assert never(spec, OF_SMALL) == sentence


def test_a_bitstream_of_another_digest_can_never_be_loaded():
    (spec,) = slice_from_options(f"fpga=1@sum-f32{DIGEST}", name="a")
    assert "with digest sha256:00000000..., the cell has it with" in (never(spec, OF_SMALL) or "")


@pytest.mark.parametrize(
    "text",
    [
        "engines: {w: {kind: gpu, count: 16}}",
        "engines: {w: {kind: gpu, count: 4}}\ntogether: {w: node}",
        "engines: {w: {kind: gpu, count: 8}}\ntogether: {w: switch}\ncircuits: [{all: w}]",
        "engines: {w: {count: 24}}",
        "engines: {w: {anyOf: [{kind: tpu}, {kind: gpu}]}}",
        "engines: {w: {kind: fpga, bitstream: sum-f32}}",
        "engines: {w: {kind: gpu, count: 16}, s: {kind: gpu, share: 0.5}}",
        "engines: {w: {kind: gpu, where: {memory: '>=40GiB', unknown: '!=x'}}}",
        "engines: {w: {kind: gpu, where: {memory: '<1GiB'}}}",
        "engines: {w: {kind: gpu, count: 4}}\nelastic: {w: [1, 99]}",
        "engines: {w: {kind: gpu, count: 4}}\nhosts: {w: {cpu: 8, memory: 32GiB}}\ntogether: {w: node}",
        "hosts: {d: {count: 4, cpu: 32, memory: 128GiB}}",
    ],
)
def test_what_might_be_is_left_to_the_planners(text):
    (spec,) = parse_slice(f"name: a\n{text}", "s.yaml")
    assert never(spec, OF_SMALL) is None


def test_circuits_need_links():
    cell = load_cell("x.csv", text="node_id,engine_type,engines\nn0,gpu,4\n")
    of = totals(cell)
    assert never(slice_from_options("gpu=4", "ring", name="a")[0], of) == (
        "asks for circuits, and the cell has no links"
    )
    assert never(slice_from_options("gpu=1", "ring", name="a")[0], of) is None
    assert never(slice_from_options("gpu=4", name="a")[0], of) is None


# --------------------------------------------------------------------------------- never too much

CELLS = [SMALL, preset("fic"), preset("expether"), preset("fat-tree:20")]
OF = [totals(cell) for cell in CELLS]


@st.composite
def placed(draw: st.DrawFn) -> tuple[int, SliceSpec]:
    """A slice that is placed already: engines are drawn first, then a request for just them."""
    number = draw(st.integers(0, len(CELLS) - 1))
    cell = CELLS[number]
    engines, hosts, together = {}, {}, {}
    free = set(cell.engines)
    for role in ("a", "b", "c")[: draw(st.integers(1, 3))]:
        where = draw(st.sampled_from(["any", "node", "switch"]))
        first = draw(st.sampled_from(sorted(free)))
        near = _near(cell, first, where)
        others = sorted(free & near)
        chosen = {first, *draw(st.lists(st.sampled_from(others), max_size=8))}
        free -= chosen
        things = [cell.engines[engine] for engine in sorted(chosen)]
        engines[role] = EngineRole(
            tuple(draw(st.permutations([_choice(draw, cell, things), EngineChoice("tpu")])))
        )
        together[role] = where
        nodes = [cell.nodes[engine.node] for engine in things]
        if draw(st.booleans()) and all(node.cpu_millis for node in nodes):
            hosts[role] = HostRole(
                min(node.cpu_millis for node in nodes) // len(things),
                min(node.memory_bytes for node in nodes) // len(things),
            )
        if not free:
            break
    circuits = (CircuitWish(Shape.RING, tuple(engines)),) if draw(st.booleans()) else ()
    spec = SliceSpec("x", engines=engines, hosts=hosts, together=together, circuits=circuits)
    return number, spec


def _near(cell: Cell, engine: str, where: str) -> set[str]:
    if where == "node":
        return set(cell.engines_of[cell.engines[engine].node])
    if where == "any":
        return set(cell.engines)
    switches = {cell.links[name].b_thing for name in cell.links_at[engine]}
    ends = [cell.links[name].a_thing for switch in switches for name in cell.links_at[switch]]
    return {end for end in ends if end in cell.engines}


def _choice(draw: st.DrawFn, cell: Cell, things: list[Engine]) -> EngineChoice:
    kinds = {thing.kind for thing in things}
    models = {thing.model for thing in things}
    least = min(thing.memory_bytes for thing in things)
    where = {"memory": f">={least}B"} if draw(st.booleans()) else {}
    loads = kinds == {"fpga"} and "sum-f32" in cell.bitstreams
    shared = len(things) == 1 and things[0].shareable and draw(st.booleans())
    return EngineChoice(
        kind=kinds.pop() if len(kinds) == 1 and draw(st.booleans()) else "",
        models=tuple(sorted(models)) if draw(st.booleans()) else (),
        count=len(things),
        share_millis=500 if shared else 1000,
        where=where,
        bitstream="sum-f32" if loads and draw(st.booleans()) else "",
    )


@given(placed())
def test_what_is_placed_is_never_called_impossible(example: tuple[int, SliceSpec]):
    number, spec = example
    assert never(spec, OF[number]) is None
