"""Does a program come to the same on Dask, and is what goes wrong there told as it is elsewhere?"""

import numpy as np
import pytest

from flowos.flowlet import AddBytewise, Concat, FlowletError, Sink, Source, TaskError, execute
from flowos.model.errors import NotInTime
from tests.flowlet.programs import Both, Dies, Eats, Exits, Inc, Raises, Returns, Slow

pytest.importorskip("distributed")


def test_the_founding_example_comes_to_what_it_does_here(cell):
    base = Source(bytes(range(16)))
    sink = Sink(Concat(*(AddBytewise(base, Source(bytes([n]) * 16)) for n in range(10))))
    result = sink.execute(on="dask")
    there = bytes(sink.result)
    sink.execute(on="here")
    assert there == bytes(sink.result)
    assert set(result.engines.values()) == {f"box/cpu{n}" for n in range(4)}
    assert len(result.tasks) == 11


def test_a_task_that_raises_is_named_with_its_line_and_its_traceback(cell):
    task = Raises(Source(b"ab"))
    with pytest.raises(TaskError) as caught:
        Sink(task).execute(on="dask")
    error = caught.value
    assert (error.task, error.kind) == (task.name, "raised")
    assert error.where == str(task.made_at)
    assert error.engine.startswith("box/cpu")
    assert "no such key" in error.trace
    assert "programs.py" in error.trace
    assert "on_dask.py" not in error.trace


def test_each_of_several_outputs_goes_where_it_is_read(cell):
    halves = Both(Source(np.arange(8)))
    plus = Inc(halves.out[1])
    result = execute(plus, halves, on="dask")
    np.testing.assert_array_equal(result.values[plus.name], [5, 6, 7, 8])
    first, second = result.values[halves.name]
    np.testing.assert_array_equal(first, [0, 1, 2, 3])
    np.testing.assert_array_equal(second, [4, 5, 6, 7])


@pytest.mark.parametrize(
    ("make", "kind", "said"),
    [
        (lambda: Exits(Source(b"a")), "raised", r"SystemExit\(3\)"),
        (lambda: Eats(Source(b"a")), "memory", "more memory"),
        (lambda: Returns(Source(b"a"), {1: 2}), "outputs", "not dict"),
        (lambda: Returns(Source(b"a"), (b"a", b"b")), "outputs", "it returned 2 outputs"),
    ],
)
def test_what_goes_wrong_has_the_kind_that_it_has_on_a_slice(cell, make, kind, said):
    with pytest.raises(TaskError, match=said) as caught:
        execute(make(), on="dask")
    assert caught.value.kind == kind


def test_a_worker_that_is_lost_is_named_and_not_waited_for(cell, tmp_path):
    dies = Dies(Source(np.zeros(4)), str(tmp_path / "mark"), 100)
    sink = Sink(Concat(Inc(dies), Inc(Source(np.ones(4)))))
    with pytest.raises(FlowletError, match=r"the Dask worker of box/cpu\d was lost"):
        sink.execute(on="dask", timeout=60)


def test_circuits_are_planned_where_lanes_are_few(narrow):
    source = Source(np.arange(4))
    task = Concat(*[Inc(source) for _ in range(4)])
    assert execute(task, on="dask", client=narrow.client).waves > 1


def test_a_program_that_takes_too_long_is_ended(cell):
    with pytest.raises(NotInTime, match="not done in 4 s"):
        Sink(Slow(Source(b"a"), 60)).execute(on="dask", timeout=4)
