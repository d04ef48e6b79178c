"""Spark and parameter-server shapes: what they ask for, and that a cell can give it."""

from pathlib import Path

import pytest

from flowos.documents.presets import preset
from flowos.documents.slice_file import parse_slice
from flowos.model.errors import SpecError
from flowos.model.placement import Decision
from flowos.model.slice import CircuitWish, HostRole, Shape, SliceSpec
from flowos.model.view import CellView
from flowos.planning.engines.pool import Pool
from flowos.planning.place import plan
from flowos.requests import parameter_server, spark

EXAMPLES = Path(__file__).parents[2] / "examples" / "slices"
GIB = 2**30


def example(name: str) -> SliceSpec:
    (spec,) = parse_slice((EXAMPLES / name).read_text(), EXAMPLES / name)
    return spec


def placed(spec: SliceSpec, cell: str = "fic-small") -> Decision:
    found = plan(Pool(CellView(cell=preset(cell))), spec)
    assert isinstance(found, Decision), found
    return found


def test_what_the_builders_return_is_what_the_examples_say():
    assert example("spark.yaml") == spark(
        "etl", executors=8, cores=4, memory="16GiB", driver_cores=2, driver_memory="8GiB",
        kind="gpu", least=2,
    )  # fmt: skip
    assert example("parameter-server.yaml") == parameter_server(
        "learn", workers=4, cores=4, memory="16GiB", server_bitstream="sum-f32"
    )


def test_executors_without_engines_are_on_nodes_of_their_own_beside_the_driver():
    spec = spark("etl", executors=4, cores="500m", memory=3 * GIB)
    assert spec.hosts["executors"] == HostRole(500, 3 * GIB, count=4)
    found = placed(spec)
    assert len(set(found.hosts["executors"])) == 4
    assert len(found.hosts["driver"]) == 1


def test_what_an_executor_has_is_divided_among_its_engines():
    spec = spark("etl", executors=3, cores=8, memory="10GiB", kind="gpu", engines=2, least=1)
    assert spec.engines["executors"].choices[0].count == 6
    assert spec.hosts["executors"] == HostRole(4000, 5 * GIB)
    assert spec.least == {"executors": 2}
    assert len(placed(spec).engines["executors"]) == 6


def test_shuffles_get_circuits_where_lanes_are_asked_for():
    spec = spark("etl", executors=3, kind="gpu", lanes=1)
    assert spec.circuits[0] == CircuitWish(Shape.ALL, ("executors",))
    found = placed(spec)
    ends = {(c.source, target) for c in found.circuits for target in c.targets}
    engines = found.engines["executors"]
    assert {(a, b) for a in engines for b in engines if a != b} == ends


def test_gradients_of_all_workers_reach_each_server_and_come_back():
    found = placed(parameter_server("learn", workers=4, servers=2, server_bitstream="sum-f32"))
    workers, servers = found.engines["workers"], found.engines["servers"]
    to = {(s, t) for c in found.circuits for s in (c.sources or (c.source,)) for t in c.targets}
    assert {(w, s) for w in workers for s in servers} <= to
    assert {(s, w) for w in workers for s in servers} <= to
    assert set(found.bitstreams) == set(servers)


def test_the_cells_rule_says_who_serves_them():
    assert spark("a", executors=1).policy == parameter_server("b", workers=1).policy == ""


@pytest.mark.parametrize(
    ("build", "problem", "hint"),
    [
        (lambda: spark("a", executors=0), "executors is 0", "write 1 or more"),
        (lambda: spark("a", executors=True), "executors is True", "write 1 or more"),
        (lambda: spark("a", executors=2, least=1), "without engines", 'kind="gpu"'),
        (lambda: spark("a", executors=2, lanes=1), "lanes is said", 'kind="gpu"'),
        (lambda: spark("a", executors=2, least=3, kind="gpu"), "least is 3 of 2", "write 1 to 2"),
        (lambda: spark("a", executors=2, memory="4 apples"), "memory: ", "GiB"),
        (lambda: spark("a", executors=2, driver_cores=-1), "driver_cores: ", "500m"),
        (lambda: parameter_server("a", workers=0), "workers is 0", "write 1 or more"),
        (lambda: parameter_server("a", workers=1, lanes=0), "lanes is 0", "write 1 or more"),
    ],
)
def test_what_cannot_be_meant_is_named_with_the_way_out(build, problem, hint):
    with pytest.raises(SpecError) as caught:
        build()
    assert caught.value.where == "a"
    assert problem in caught.value.problem
    assert hint in caught.value.hint
