"""Does a task go to its engine with all that is its own, and without what is not?"""

import threading
from typing import Any

import numpy as np
import pytest

from flowos.flowlet import FlowletError, Source, Task, shipping
from flowos.flowlet import map as mapped
from flowos.flowlet.shipping import Shipped, Shipper, loaded, loaded_code


class Holds(Task):
    """Keeps whatever it is given, under whatever names."""

    def __init__(self, *sources: Any, **fields: Any) -> None:
        super().__init__(*sources)
        vars(self).update(fields)

    def run(self, *inputs: Any) -> Any:
        return vars(self)


def there(task: Task) -> tuple[Shipped, Any]:
    """Return a task as it is sent, and as it is on its engine."""
    shipper = Shipper()
    shipped = shipper.shipped(task)

    def code(name: str) -> Any:
        return loaded_code(shipper.codes[name])

    return shipped, loaded(code(shipped.code), shipped.fields, code)


@pytest.mark.parametrize("name", ["number", "task", "out_", "kind", "method", "data", "function"])
def test_a_field_may_have_any_name_that_is_not_a_tasks_own(name):
    _, task = there(Holds(Source(b"a"), **{name: 5}))
    assert vars(task)[name] == 5


@pytest.mark.parametrize(
    "kept",
    [
        lambda source: source,
        lambda source: source.out[0],
        lambda source: [source, {"deep": (source,)}],
        lambda source: Holds(source, more=source),
    ],
)
def test_a_task_that_is_kept_in_a_field_takes_neither_data_nor_neighbours_along(kept):
    source = Source(np.zeros(1 << 20), name="big")
    shipped, task = there(Holds(source, kept=kept(source)))
    assert len(shipped.fields) < 500
    assert "kept" in vars(task)


def test_of_a_task_that_is_kept_its_name_is_known():
    source = Source(b"a", name="the source")
    _, task = there(Holds(source, kept=[source, source.out[0]]))
    assert repr(task.kept[0]) == "<the source>"
    assert repr(task.kept[1]) == "the source.out[0]"


@pytest.mark.parametrize(
    "value",
    [1, "a", None, [1, (2, {"a": b"b"})], np.float64(2.5), {1, 2}, lambda a: a + 1, int],
    ids=repr,
)
def test_fields_arrive_as_they_were(value):
    _, task = there(Holds(Source(b"a"), value=value))
    if callable(value):
        assert task.value(3) == value(3)
    else:
        assert task.value == value
        assert type(task.value) is type(value)


LOCK = threading.Lock()


def uses_a_global(a):
    with LOCK:
        return a


def local_class() -> Task:
    lock = threading.Lock()

    class Locks(Task):
        def run(self, a):
            with lock:
                return a

    return Locks(Source(b"a"))


def local_function() -> Task:
    lock = threading.Lock()

    def inner(a):
        with lock:
            return a

    def outer(a):
        return [inner(x) for x in a]

    return mapped(outer, [Source(b"a")])[0]


def local_comprehension() -> Task:
    lock = threading.Lock()
    return mapped(lambda a: [lock.locked() for _ in a], [Source(b"a")])[0]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Holds(Source(b"a"), at=LOCK), "its field 'at', a lock, cannot be written down"),
        (lambda: Holds(Source(b"a"), good=1, bad=[{"x": LOCK}]), "its field 'bad', a list,"),
        (local_class, r"the class Locks .*\(run\(\) at .*test_shipping.py:\d+ uses 'lock', a lock"),
        (local_function, r"\(inner\(\) at .*test_shipping.py:\d+ uses 'lock', a lock: cannot pick"),
        (local_comprehension, r"<lambda>\(\) at .*test_shipping.py:\d+ uses 'lock', a lock"),
    ],
)
def test_what_cannot_be_shipped_is_named_down_to_the_variable(make, said):
    with pytest.raises(FlowletError, match=said) as caught:
        Shipper().shipped(make())
    assert caught.value.where.startswith("tests/flowlet/test_shipping.py:")


@pytest.mark.parametrize("line", ["return LOCK", "return lambda: LOCK", "return [LOCK for _ in a]"])
def test_a_global_of_the_program_itself_is_named(line):
    # As in a program that is run: what is of no module that can be imported is shipped whole.
    program: dict[str, Any] = {"__name__": "__main__", "LOCK": LOCK}
    exec(f"def locks(a):\n    {line}\n", program)
    (task,) = mapped(program["locks"], [Source(b"a")])
    with pytest.raises(FlowletError, match=r"locks\(\) at <string>:1 uses 'LOCK', a lock"):
        Shipper().shipped(task)


def test_what_can_be_imported_is_only_named():
    (task,) = mapped(uses_a_global, [Source(b"a")])
    assert there(task)[1].function is uses_a_global


def test_many_tasks_of_one_class_share_its_code(monkeypatch):
    written: list[object] = []
    whole = shipping._with_all

    def counted(value: object) -> bytes:
        written.append(value)
        return whole(value)

    monkeypatch.setattr(shipping, "_with_all", counted)
    shipper = Shipper()
    table = bytes(range(256)) * 40

    class Looks(Task):
        def __init__(self, source, n):
            super().__init__(source)
            self.n = n

        def run(self, a):
            return table, self.n

    shipped = [shipper.shipped(Looks(Source(b"a"), n)) for n in range(1000)]
    assert len({one.code for one in shipped}) == len(shipper.codes) == 1
    assert sum(len(one.fields) for one in shipped) < 100_000
    assert written == [Looks]  # once: of 1,000 tasks, that is what takes the time
