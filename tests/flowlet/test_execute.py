"""Do programs run on real workers, and come to what they come to in one process?"""

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowos.flowlet import (
    AddBytewise,
    Concat,
    FlowletError,
    Sink,
    Source,
    Sum,
    Task,
    TaskError,
    execute,
    held,
)
from flowos.flowlet import map as mapped
from flowos.flowlet import reduce as reduced
from flowos.model.errors import NotInTime
from tests.flowlet.programs import Both, Dies, Eats, Exits, Inc, Raises, Returns, Slow


def founding(count: int) -> Sink:
    shared = Source(bytes(range(64)))
    return Sink(Concat(*[AddBytewise(shared, Source(bytes([n]) * 64)) for n in range(count)]))


def wait_for(path: Path, lines: int = 1) -> list[str]:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        if path.exists() and len(found := path.read_text().splitlines()) >= lines:
            return found
        time.sleep(0.005)
    raise AssertionError(f"{path.name} has not {lines} lines")


@pytest.mark.parametrize("count", [1, 3, 100])
def test_founding_example_on_however_many_engines(cell, count):
    sink, here = founding(count), founding(count)
    result = sink.execute()
    here.execute(on="here")
    assert sink.result == here.result
    assert len(result.engines) == min(count, 4)
    assert {ran.engine for ran in result.tasks.values()} == set(result.engines.values())


def test_large_arrays_go_by_shared_memory_and_come_back_whole(cell):
    data = np.arange(3_000_000, dtype=np.float64).reshape(3, -1)
    halves = Both(Inc(Source(data)))
    sink = Sink(Concat(halves.out[1], Inc(halves.out[0])))
    sink.execute()
    np.testing.assert_array_equal(sink.result, np.concatenate([(data + 1)[1:], (data + 2)[:1]]))


def test_structured_and_empty_arrays_and_bytes_keep_their_form(cell):
    kinds: list[Any] = [
        np.zeros(0, np.int16),
        np.array([(1, 2.5)], dtype=[("a", "<i4"), ("b", "<f8")]),
        np.array(7, np.uint8),
        np.ones((2, 3), order="F"),
        b"",
        b"x" * 200_000,
    ]
    sinks = [Sink(mapped(lambda x: x, [Source(kind)])[0]) for kind in kinds]
    execute(*sinks)
    for sink, kind in zip(sinks, kinds, strict=True):
        assert type(sink.result) is type(kind)
        if isinstance(kind, np.ndarray):
            assert sink.result.dtype == kind.dtype
            np.testing.assert_array_equal(sink.result, kind)
        else:
            assert sink.result == kind


def test_map_and_reduce_of_functions_of_the_program(cell):
    parts = mapped(lambda a, *, by: a * by, [Source(np.full(4, n)) for n in range(9)], by=3)
    sink = Sink(reduced(lambda *some: sum(some), parts, fan_in=3))
    sink.execute()
    np.testing.assert_array_equal(sink.result, np.full(4, 3 * sum(range(9))))


def test_an_end_that_is_no_sink_is_in_the_result(cell):
    both = Both(Source(b"abcd"), name="both")
    assert execute(both).values == {"both": (b"ab", b"cd")}


def test_circuits_are_laid_anew_between_waves_where_lanes_are_few(narrow):
    level: list[Task] = [Inc(Source(np.full(8, float(n)))) for n in range(4)]
    for _ in range(2):
        level = [Sum(*level) for _ in range(4)]
    sink = Sink(Sum(*level))
    result = sink.execute(client=narrow.client)
    assert result.waves > 1
    np.testing.assert_array_equal(sink.result, np.full(8, 16.0 * sum(range(1, 5))))


def test_programs_take_turns_on_a_warm_slice(cell):
    with held(engines={"cpu": 2}) as warm:
        for count in (3, 5):
            sink = founding(count)
            result = sink.execute(on=warm)
            assert len(sink.result) == 64 * count
            assert result.slice == warm.id
        with pytest.raises(TaskError):
            Sink(Raises(Source(b"a"))).execute(on=warm)
        assert len(execute(Inc(Source(np.zeros(3))), on=warm).values) == 1


# ------------------------------------------------------------------------- in trouble


def failure(sink: Task, **options) -> TaskError:
    with pytest.raises(TaskError) as caught:
        sink.execute(**options)
    return caught.value


def test_a_task_that_raises_is_named_with_its_line_its_traceback_and_what_it_wrote(cell):
    task = Raises(Source(b"a"))
    error = failure(Sink(task))
    assert (error.task, error.kind) == (task.name, "raised")
    assert error.where.startswith("tests/flowlet/test_execute.py:")
    assert 'return vars(self)["no such key"]' in str(error)
    assert "before it went wrong" in str(error)
    assert "flowos/flowlet/worker" not in str(error)
    assert error.engine.startswith("box/cpu")


def test_a_task_that_exits_does_not_end_its_worker(cell):
    assert "SystemExit: 3" in str(failure(Sink(Exits(Source(b"a")))))


def test_a_task_that_hangs_is_ended_and_says_where_it_was(cell):
    error = failure(Sink(Slow(Source(b"a"), 60)), task_timeout=0.3)
    assert error.kind == "hung"
    assert "time.sleep(self.seconds)" in str(error)


def test_a_program_that_takes_too_long_is_ended_and_names_what_had_not_ended(cell):
    slow = Slow(Source(b"a"), 60)
    with pytest.raises(FlowletError, match=f"not done in time: {slow.name}"):
        Sink(slow).execute(timeout=1.5)


def test_a_task_that_eats_memory_fails_alone(cell):
    error = failure(Sink(Eats(Source(b"a"))))
    assert error.kind == "memory"
    assert "Eats" in error.task


@pytest.mark.parametrize(
    ("what", "ports", "said"),
    [
        ((b"a",), 2, "it returned 1 outputs and has 2 output ports"),
        ((b"a", b"b"), 1, "it returned 2 outputs and has 1 output port"),
        (None, 1, "it returned nothing"),
        ("text", 1, r"not str: return text.encode\(\)"),
        ([1.0], 1, "not list: return numpy.asarray"),
        ({1: 2}, 1, "not dict: return pickle.dumps"),
    ],
)
def test_outputs_that_are_none_are_named(cell, what, ports, said):
    task = Returns(Source(b"a"), what, ports)
    with pytest.raises(TaskError, match=said) as caught:
        execute(task)
    assert caught.value.kind == "outputs"


def test_a_task_that_dies_by_a_signal_runs_again(cell, tmp_path):
    mark = tmp_path / "mark"
    sink = Sink(Concat(Inc(Dies(Source(np.zeros(4)), str(mark), 2)), Inc(Source(np.ones(4)))))
    sink.execute()
    np.testing.assert_array_equal(sink.result, [1, 1, 1, 1, 2, 2, 2, 2])
    assert mark.read_text() == "xxx"


def test_a_task_that_always_dies_is_given_up_after_three_times(cell, tmp_path):
    mark = tmp_path / "mark"
    error = failure(Sink(Dies(Source(b"a"), str(mark), 100)))
    assert (error.kind, mark.read_text()) == ("killed", "xxx")
    assert "3 times, by signal 9" in str(error)


@pytest.mark.parametrize("whole", [False, True], ids=["worker", "all-of-its-engine"])
def test_what_is_lost_with_an_engine_runs_again(cell, tmp_path, whole):
    mark = tmp_path / "mark"
    parts = [Slow(Inc(Source(np.full(30_000, n))), 0.4, str(mark)) for n in range(6)]
    sink = Sink(Concat(*parts))
    thread = threading.Thread(target=sink.execute)
    thread.start()
    pid, parent = map(int, wait_for(mark, 3)[2].split())
    if whole:
        os.killpg(os.getpgid(parent), signal.SIGKILL)
    else:
        os.kill(pid, signal.SIGKILL)
    thread.join(30)
    np.testing.assert_array_equal(
        sink.result, np.concatenate([np.full(30_000, n + 1) for n in range(6)])
    )


def test_nothing_is_waited_for_where_all_engines_are_taken(cell):
    with held(engines={"cpu": 4}), pytest.raises(NotInTime, match=r"has no engines after 0\.5 s"):
        founding(2).execute(timeout=0.5)


def test_code_that_cannot_be_shipped_is_named_before_anything_is_asked_for(cell):
    task = Returns(Source(b"a"), threading.Lock())
    with pytest.raises(FlowletError, match="its field 'what', a lock, cannot be written down") as e:
        Sink(task).execute()
    assert e.value.where.startswith("tests/flowlet/test_execute.py:")


def test_an_engine_kind_that_there_is_not_is_named(cell):
    from flowos.flowlet import on

    class OnFpga(Task):
        @on("fpga")
        def compute(self, a):
            return a

    with pytest.raises(FlowletError, match=r"runs on fpga, and there is no such engine: .* cpu"):
        Sink(OnFpga(Source(b"a"))).execute()


def test_data_may_have_a_place_and_one_that_there_is_not_is_named(cell):
    sink = Sink(Inc(Source(np.zeros(4), at="box/cpu2")))
    sink.execute()
    np.testing.assert_array_equal(sink.result, np.ones(4))
    last = max(cell.client.view(["slice/"]).slices.values(), key=lambda entry: entry.created)
    spec = last.value.spec
    assert [(data.at, data.bytes, data.to) for data in spec.data] == [("box", 32, "cpu")]
    with pytest.raises(FlowletError, match="no node or engine 'mars', where Source-") as caught:
        Sink(Inc(Source(b"a", at="mars"))).execute()
    assert caught.value.where.startswith("tests/flowlet/test_execute.py:")
