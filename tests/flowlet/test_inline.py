"""Is what a program comes to in one process what it comes to on engines?"""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowos.flowlet import (
    AddBytewise,
    Concat,
    Sink,
    Source,
    StreamTask,
    Task,
    TaskError,
    execute,
    graph_of,
    on,
)
from tests.flowlet.programs import Both, Raises


class Nothing(StreamTask):
    def run(self) -> Any:
        return
        yield


class Count(StreamTask):
    def run(self, chunks: Any) -> Any:
        yield b"%d" % sum(1 for _ in chunks)


class Writes(Task):
    def run(self, a: Any) -> Any:
        a += 1
        return a


class Kind(Task):
    def run(self, a: Any) -> Any:
        return type(a).__name__.encode()


def here(task: Task) -> Any:
    return execute(task, on="here").values[task.name]


def test_a_stream_of_nothing_has_no_chunk():
    assert here(Count(Nothing())) == b"0"
    assert here(Concat(Nothing())) == b""


def test_data_of_an_ordinary_task_is_one_chunk():
    assert here(Count(Source(b""))) == b"1"


@pytest.mark.parametrize("lead", [lambda source: source, Concat])
def test_no_task_writes_into_what_others_read(lead):
    data = np.zeros(2)
    with pytest.raises(TaskError, match="read-only"):
        execute(Writes(lead(Source(data))), on="here")
    np.testing.assert_array_equal(data, [0, 0])
    data += 1  # the user's own array is as it was


@pytest.mark.parametrize("data", [b"a", bytearray(b"a"), memoryview(b"abc")[::2]])
def test_whatever_has_bytes_arrives_as_bytes(data):
    assert here(Kind(Source(data))) == b"bytes"


def test_the_implementation_for_cpus_runs():
    class Two(Task):
        @on("gpu")
        def one(self, a):
            return b"gpu"

        @on("cpu")
        def other(self, a):
            return b"cpu"

    assert here(Two(Source(b"a"))) == b"cpu"


def test_a_task_that_raises_is_named_as_on_engines():
    task = Raises(Source(b"a"), name="wrong")
    with pytest.raises(TaskError, match=r"wrong failed: KeyError\('no such key'\)") as caught:
        execute(Sink(task), on="here")
    assert (caught.value.task, caught.value.kind) == ("wrong", "raised")
    assert caught.value.where == str(task.made_at)
    assert "flowos/flowlet" not in caught.value.trace


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_random_programs_come_to_what_plain_python_does(data):
    """Each output is computed beside, in the order in which the tasks were written."""
    byte = st.binary(min_size=2, max_size=2)
    ports: list[tuple[Any, bytes]] = []
    for _ in range(data.draw(st.integers(1, 3))):
        value = data.draw(byte)
        ports.append((Source(value), value))
    for _ in range(data.draw(st.integers(0, 12))):
        a, x = data.draw(st.sampled_from(ports))
        b, y = data.draw(st.sampled_from(ports))
        match data.draw(st.sampled_from(["add", "concat", "both"])):
            case "add" if len(x) == len(y):
                total = bytes((p + q) % 256 for p, q in zip(x, y, strict=True))
                ports.append((AddBytewise(a, b), total))
            case "both":
                both, middle = Both(a), len(x) // 2
                ports += [(both.out[0], x[:middle]), (both.out[1], x[middle:])]
            case _ if len(x) + len(y) < 200:
                ports.append((Concat(a, b), x + y))
            case _:
                pass
    sinks = [(Sink(port), value) for port, value in ports]
    ends = data.draw(st.permutations(sinks))
    graph = graph_of(*[sink for sink, _ in ends])
    assert len(set(graph.tasks)) == len(graph.tasks)
    for number, inputs in enumerate(graph.inputs):
        assert all(source < number for source, _ in inputs)
    execute(*[sink for sink, _ in ends], on="here")
    for sink, value in sinks:
        assert sink.result == value
