"""Are tasks that are not what they seem refused before anything is asked for, by the user's line?"""

import sys
import threading
from typing import Any, cast

import numpy as np
import pytest

from flowos.flowlet import Concat, FlowletError, Sink, Source, StreamTask, Task, graph_of, on
from flowos.flowlet import map as mapped
from flowos.flowlet import reduce as reduced
from tests.flowlet.programs import Both, Inc


def line() -> str:
    """Where the caller's next line is."""
    return f"tests/flowlet/test_task.py:{sys._getframe(1).f_lineno + 1}"


def refused(*ends: Task) -> FlowletError:
    with pytest.raises(FlowletError) as caught:
        graph_of(*ends)
    return caught.value


@pytest.mark.parametrize("kind", [Task, StreamTask])
def test_a_task_without_code_is_refused(kind):
    bare = type("Bare", (kind,), {})
    where = line()
    task = bare(Source(b"a"))
    error = refused(task)
    assert error.where == where
    assert "Bare has no run()" in error.problem


def test_code_that_does_not_take_the_inputs_is_refused():
    class Three(Task):
        input_ports = 3

        def run(self, a):
            return a

    error = refused(Three(*[Source(b"a")] * 3, name="three"))
    assert "run() of Three does not take 3 inputs, as three has: too many" in error.problem


def test_all_implementations_take_the_inputs():
    class Two(Task):
        @on("cpu")
        def one(self, a):
            return a

        @on("gpu")
        def other(self, a, b):
            return a

    assert "other() of Two does not take 1 input," in refused(Two(Source(b"a"))).problem


def test_code_that_does_not_say_what_it_takes_is_left_to_its_engine():
    class Native(Task):
        input_ports = 1
        run = staticmethod(max)

    assert len(graph_of(Native(Source(b"a"))).tasks) == 2


def test_two_tasks_of_one_name_are_refused():
    where = line()
    one = Inc(Source(b"a"), name="step")
    other = Inc(one, name="step")
    error = refused(other)
    assert error.where == str(other.made_at)
    assert error.problem == f"two tasks are named 'step', the other at {where}"


def test_one_task_may_be_an_end_twice():
    task = Inc(Source(b"a"))
    assert len(graph_of(task, Sink(task), task).tasks) == 3


@pytest.mark.parametrize("field", ["name", "inputs"])
def test_a_field_that_hides_what_makes_it_a_task_is_refused(field):
    class Hides(Task):
        def __init__(self, source):
            super().__init__(source)
            setattr(self, field, 3)

        def run(self, a):
            return a

    where = line()
    error = refused(Hides(Source(b"a")))
    assert error.where == where
    assert f"'{field}'" in str(error)
    assert "another name" in error.hint


def test_ports_are_numbered_by_numpys_integers_too():
    both = Both(Source(b"ab"))
    assert [both.out[cast("int", n)].number for n in np.arange(2)] == [0, 1]
    task = Concat()
    task.connect(cast("int", np.int64(0)), both)
    assert task.inputs[0] is not None
    with pytest.raises(FlowletError, match=r"output ports 0 to 1, not 0\.5"):
        both.out[cast("int", 0.5)]
    with pytest.raises(FlowletError, match="input ports 0 to 0, not '1'"):
        task.connect(cast("int", "1"), both)


@pytest.mark.parametrize("build", [mapped, reduced])
@pytest.mark.parametrize("wrong", [Source(b"a"), Source(b"a").out[0], 3])
def test_builders_take_lists(build: Any, wrong: Any):
    with pytest.raises(FlowletError, match="takes a list of tasks or ports"):
        build(len, wrong)
    assert len(mapped(len, Both(Source(b"ab")).out)) == 2


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({"memory": "lots"}, '"lots" is not an amount of memory'),
        ({"memory": -1}, "-1 bytes are less than none"),
        ({"seconds": float("nan")}, "not nan"),
        ({"seconds": float("inf")}, "not inf"),
        ({"seconds": -1.0}, r"not -1\.0"),
    ],
)
def test_wishes_that_cannot_be_meant_are_named_by_their_line(wish, said):
    where = line()
    with pytest.raises(FlowletError, match=said) as caught:
        on("cpu", **wish)
    # The `with` stands between the two.
    assert caught.value.where == where.replace(str(_number(where)), str(_number(where) + 1))


def _number(where: str) -> int:
    return int(where.rpartition(":")[2])


def test_a_task_that_many_feed_is_looked_at_once(monkeypatch):
    looked: dict[Task, int] = {}

    class Counted(Concat):
        def __getattribute__(self, name: str) -> Any:
            if name == "inputs":
                looked[self] = looked.get(self, 0) + 1
            return super().__getattribute__(name)

    def times(count: int) -> int:
        task = Counted(*[Source(b"a") for _ in range(count)])
        looked.clear()
        graph_of(Sink(task))
        return looked[task]

    assert times(3) == times(300)


def test_names_are_given_once_by_however_many_threads():
    made: list[Task] = []
    threads = [
        threading.Thread(target=lambda: made.extend(Source(b"a") for _ in range(200)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({task.name for task in made}) == 800
