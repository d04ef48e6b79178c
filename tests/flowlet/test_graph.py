"""Is what cannot run told before anything is asked for, and by the user's own line?"""

import random
import subprocess
import sys
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowos.flowlet import (
    AddBytewise,
    Concat,
    FlowletError,
    Sink,
    Source,
    Sum,
    Task,
    execute,
    graph_of,
    on,
)
from flowos.flowlet import map as mapped
from flowos.flowlet import reduce as reduced
from flowos.flowlet.needs import Need, needs_of
from flowos.flowlet.planned import assigned
from flowos.flowlet.shipping import Shipper, loaded, loaded_code
from flowos.flowlet.wire.messages import CLIENT
from flowos.model.cell import Engine
from tests.flowlet.programs import Both, Inc, Returns


def line() -> str:
    """Where the caller's next line is."""
    return f"tests/flowlet/test_graph.py:{sys._getframe(1).f_lineno + 1}"


def test_ports_are_numbered_from_zero_and_a_task_means_its_port_zero():
    both = Both(Source(b"ab"))
    task = Concat(both, both.out[1])
    assert [(p.task, p.number) for p in task.inputs if p] == [(both, 0), (both, 1)]


def test_a_port_that_there_is_not_is_named():
    both = Both(Source(b"ab"), name="both")
    with pytest.raises(FlowletError, match="both has output ports 0 to 1, not 2") as caught:
        both.out[2]
    assert caught.value.where == f"tests/flowlet/test_graph.py:{sys._getframe().f_lineno - 1}"
    with pytest.raises(FlowletError, match="has no output port, not 0"):
        Sink(both).out[0]


def test_too_many_inputs_are_named():
    with pytest.raises(FlowletError, match="AddBytewise takes 2 inputs, 3 are given"):
        AddBytewise(Source(b"a"), Source(b"b"), Source(b"c"))


@pytest.mark.parametrize(
    ("wrong", "hint"), [(b"data", r"Source\(it\)"), ([Source(b"a")], r"write \*inputs")]
)
def test_inputs_that_are_no_tasks_are_named(wrong, hint):
    with pytest.raises(FlowletError, match=hint):
        Concat(wrong)


def test_an_input_that_is_not_joined_is_named_by_the_line_that_made_the_task():
    where = line()
    task = AddBytewise(Source(b"a"))
    with pytest.raises(FlowletError, match=f"input 1 of {task.name} is not joined") as caught:
        graph_of(Sink(task))
    assert caught.value.where == where


def test_an_input_has_one_source():
    task = AddBytewise(Source(b"a"), ...)
    task.connect(1, Source(b"b"))
    with pytest.raises(FlowletError, match=r"input 1 of .* is fed by Source-\d+.out\[0\] already"):
        task.connect(1, Source(b"c"))
    with pytest.raises(FlowletError, match="has input ports 0 to 1, not 2"):
        task.connect(2, Source(b"c"))


def test_a_cycle_is_told_with_all_its_tasks():
    first = AddBytewise(Source(b"a"), ..., name="first")
    second = Inc(first, name="second")
    first.connect(1, second)
    with pytest.raises(FlowletError, match="make a cycle: second <- first <- second"):
        graph_of(Sink(second))


def test_a_task_that_was_not_made_whole_is_told():
    class Forgets(Task):
        def __init__(self, source):
            self.radius = 3

        def run(self, a):
            return a

    with pytest.raises(FlowletError, match=r"has to call super\(\).__init__"):
        Sink(Forgets(Source(b"a")))


@pytest.mark.parametrize("data", ["text", 3, [1.0], None, np.array([object()])])
def test_data_that_no_port_carries_is_refused_where_it_is_given(data):
    with pytest.raises(FlowletError, match=r"test_graph.py:\d+: "):
        Source(data)


def test_a_result_is_there_after_it_was_executed_only():
    sink = Sink(Source(b"a"))
    with pytest.raises(FlowletError, match="has no result yet"):
        _ = sink.result
    sink.execute(on="here")
    assert sink.result == b"a"


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: mapped(cast("Any", 3), [Source(b"a")]), "takes a function first, not 3"),
        (lambda: mapped(len, [Source(b"a")], []), "lists of one length, not 1, 0"),
        (lambda: reduced(max, []), "at least one input"),
        (lambda: reduced(max, [Source(b"a")], fan_in=1), "a fan_in of 1"),
        (lambda: execute(), "nothing to execute"),
        (lambda: execute(Inc(Source(b"a")), on="mars"), "not on 'mars'"),
        (lambda: on(""), "an engine kind is a word"),
    ],
)
def test_builders_refuse_what_cannot_be_meant(build, said):
    with pytest.raises(FlowletError, match=said):
        build()


def test_implementations_are_told_by_their_marks():
    class Two(Task):
        @on("opencl", memory="1GiB")
        def fast(self, a):
            return a

        @on("cpu", seconds=2)
        def slow(self, a):
            return a

    assert needs_of(Two) == (
        Need("opencl", memory_bytes=1 << 30, method="fast"),
        Need("cpu", seconds=2, method="slow"),
    )
    assert needs_of(Inc) == (Need(),)

    class One(Two):
        def fast(self, a):
            return a

    assert [need.method for need in needs_of(One)] == ["slow"]


def engines(**counts: int) -> list[Engine]:
    return [
        Engine("n", f"{k}{n}", k, memory_bytes=1 << 20) for k, c in counts.items() for n in range(c)
    ]


def test_an_implementation_is_chosen_with_the_engine():
    class Two(Task):
        @on("gpu")
        def fast(self, a):
            return a

        @on("cpu")
        def slow(self, a):
            return a

    graph = graph_of(*[Sink(Two(Source(b"a"))) for _ in range(3)])
    with_gpu = assigned(graph, engines(cpu=4, gpu=2))
    assert [(r.name, r.count) for r in with_gpu.roles] == [("gpu", 2)]
    assert {m for m in with_gpu.methods if m} == {"fast"}
    without = assigned(graph, engines(cpu=4))
    assert [(r.name, r.count) for r in without.roles] == [("cpu", 3)]
    assert {m for m in without.methods if m} == {"slow"}


def test_the_fastest_implementation_is_chosen_where_all_say_how_fast_they_are():
    class Two(Task):
        @on("gpu", seconds=3)
        def one(self, a):
            return a

        @on("cpu", seconds=1)
        def other(self, a):
            return a

    (role,) = assigned(graph_of(Sink(Two(Source(b"a")))), engines(cpu=1, gpu=1)).roles
    assert role.need.kind == "cpu"


def random_graph(seed: int, count: int) -> Sink:
    dice = random.Random(seed)
    tasks: list[Task] = [Source(np.full(2, float(n))) for n in range(3)]
    for _ in range(count):
        tasks.append(Sum(*dice.choices(tasks, k=dice.randint(1, 3))))
    return Sink(tasks[-1])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 30), st.integers(1, 5), st.integers(0, 3))
def test_flows_lead_from_earlier_tasks_to_later_ones_over_few_enough_circuits(
    seed, count, ranks, degree
):
    graph = graph_of(random_graph(seed, count))
    for number, inputs in enumerate(graph.inputs):
        assert all(source < number for source, _ in inputs)
    there = assigned(graph, engines(cpu=ranks), degree_max=degree)
    for number, inputs in enumerate(graph.inputs):
        rank = there.ranks[number]
        assert rank < ranks
        for output in inputs:
            assert there.waves[output[0]] <= there.waves[number]
            source = there.ranks[output[0]]
            if rank != CLIENT and source != rank:
                sent = there.deliveries[output, rank]
                assert there.waves[output[0]] <= sent <= there.waves[number]
    for wave in range(there.wave_count):
        out = {(a, b) for a, targets in there.wires(wave) for b in targets}
        for rank in range(ranks):
            assert not degree or sum(a == rank for a, _ in out) <= degree
            assert not degree or sum(b == rank for _, b in out) <= degree


def test_a_task_goes_to_its_engine_with_its_class_and_its_fields_and_nothing_else():
    shipper = Shipper()
    source = Source(np.zeros(1 << 20))
    task = Returns(Inc(source), {"a": [1, 2]}, 1)
    shipped = shipper.shipped(task)
    assert len(shipped.fields) < 1000
    back = loaded(loaded_code(shipper.codes[shipped.code]), shipped.fields, lambda name: name)
    assert (back.what, back.output_ports, back.name) == ({"a": [1, 2]}, 1, task.name)
    assert not hasattr(back, "inputs")


def test_a_function_of_many_tasks_is_shipped_once():
    shipper = Shipper()
    weights = np.zeros(100_000)
    tasks = mapped(lambda a: a + weights, [Source(np.zeros(1)) for _ in range(50)])
    fields = [shipper.shipped(task).fields for task in tasks]
    assert sum(map(len, fields)) < 20_000
    assert sum(map(len, shipper.codes.values())) < 2 * weights.nbytes


def test_the_package_is_imported_without_what_most_programs_do_not_need():
    said = subprocess.run(
        [sys.executable, "-c", "import sys, flowos.flowlet; print(*sys.modules)"],
        capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    assert {"numpy", "cloudpickle", "flowos.runtime", "distributed"}.isdisjoint(said)
