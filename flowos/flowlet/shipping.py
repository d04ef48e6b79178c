"""How does a task get to its engine? Its class by cloudpickle, once; its own fields with it.

A class of the program itself is shipped whole; one of a module that is installed, or lies beside
the program, is named, and found there: a worker looks where the program does. Other tasks that it
keeps in its fields stay behind but for their names: what they make comes as inputs.
"""

import functools
import hashlib
import io
import pickle
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType
from typing import Any, Final, NamedTuple

from flowos.flowlet.errors import FlowletError, Line
from flowos.flowlet.task import Task

_LEFT: Final = frozenset({"inputs", "made_at"})  # what makes it part of a graph
_PLAIN: Final = (str, bytes, int, float, bool, complex, type(None))  # the same in every process
_PROTOCOL: Final = 5


class Shipped(NamedTuple):
    """A task, written down.

    Attributes:
        code: What makes tasks of its class.
        fields: What is its own.
        functions: The codes of functions and classes among its fields.
    """

    code: str
    fields: bytes
    functions: tuple[str, ...] = ()


class Shipper:
    """Writes the tasks of one program down, and what they have in common only once.

    Attributes:
        codes: Name -> what was written.
    """

    def __init__(self) -> None:
        """Begin with nothing."""
        self.codes: dict[str, bytes] = {}
        self._known: dict[int, tuple[object, str]] = {}  # by identity; kept, so that it stays one

    def shipped(self, task: Task) -> Shipped:
        """Return a task as it is sent.

        Raises:
            FlowletError: It cannot be written down.
        """
        code = self._code(type(task), task, f"the class {type(task).__name__}")
        plain: dict[str, object] = {}
        functions: dict[str, str] = {}
        for name, value in vars(task).items():
            if name in _LEFT:
                continue
            if isinstance(value, FunctionType | type):
                functions[name] = self._code(value, task, _field(name, value))
            else:
                plain[name] = value
        if all(_is_plain(value) for value in plain.values()):
            fields = pickle.dumps((plain, functions), _PROTOCOL)
        else:
            fields = self._fields(plain, functions, task)
        return Shipped(code, fields, tuple(functions.values()))

    def _code(self, value: object, task: Task, what: str) -> str:
        known = self._known.get(id(value))
        if known is not None:
            return known[1]
        data = _dumped(value, task, what)
        name = hashlib.blake2b(data, digest_size=16).hexdigest()
        self.codes[name] = data
        self._known[id(value)] = value, name
        return name

    @staticmethod
    def _fields(plain: dict[str, object], functions: dict[str, str], task: Task) -> bytes:
        try:
            return _without_neighbours((plain, functions))
        except Exception:  # noqa: BLE001  # a field may raise anything
            for name, value in plain.items():
                _dumped(value, task, _field(name, value), _without_neighbours)
            return _dumped((plain, functions), task, "it", _without_neighbours)


def loaded_code(data: bytes) -> Any:
    """Return what was shipped."""
    return pickle.loads(data)  # noqa: S301  # from the user's own program


def loaded(kind: Any, fields: bytes, code: Callable[[str], Any]) -> Any:
    """Return a task: without neighbours, it is only run.

    Args:
        kind: Its class.
        fields: What is its own.
        code: Returns what a code makes.
    """
    task = kind.__new__(kind)
    plain, functions = pickle.loads(fields)  # noqa: S301  # from the user's own program
    task.__dict__.update(plain)
    task.__dict__.update({name: code(digest) for name, digest in functions.items()})
    return task


def _is_plain(value: object) -> bool:
    """Whether it is written down by itself, without any code of the program."""
    if isinstance(value, _PLAIN):
        return type(value).__module__ == "builtins"
    if type(value) in (tuple, list):
        return all(_is_plain(one) for one in value)  # type: ignore[attr-defined]
    if type(value) is dict:
        return all(_is_plain(one) for pair in value.items() for one in pair)
    dtype = getattr(value, "dtype", None)
    return type(value).__module__ == "numpy" and dtype is not None and not dtype.hasobject


def _field(name: str, value: object) -> str:
    return f"its field '{name}', {_a(type(value).__name__)},"


def _dumped(
    value: object, task: Task, what: str, dump: Callable[[object], bytes] | None = None
) -> bytes:
    try:
        return (dump or _with_all)(value)
    except Exception as error:  # noqa: BLE001  # what is being shipped may raise anything
        raise FlowletError(
            f"{task.name} cannot be shipped to an engine: {what} cannot be written down "
            f"({_culprit(value)}{_why(error)})",
            where=str(task.made_at),
            hint="open files, connections and locks in run(), and keep only what describes them",
        ) from None


def _with_all(value: object) -> bytes:
    import cloudpickle

    return bytes(cloudpickle.dumps(value, _PROTOCOL))


def _without_neighbours(value: object) -> bytes:
    """Write fields down: a task among them would take along all that leads to it, with its data."""
    file = io.BytesIO()
    _pickler()(file, _PROTOCOL).dump(value)
    return file.getvalue()


@functools.cache
def _pickler() -> Any:  # made when it is needed: cloudpickle is slow to import
    import cloudpickle

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # it has no types
        def reducer_override(self, found: object) -> Any:
            if isinstance(found, Task):
                return _neighbour, (found.name,)
            return super().reducer_override(found)

    return Pickler


def _neighbour(name: str) -> Task:
    task = Task.__new__(Task)
    task.name = name
    return task


def _culprit(value: object) -> str:
    """Return which variable of a function, or of a class's methods, cannot be written down."""
    seen: set[int] = set()
    stack = [value]
    while stack:
        one = stack.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, type):
            stack += vars(one).values()
        elif isinstance(one, staticmethod | classmethod):
            stack.append(one.__func__)
        elif isinstance(one, FunctionType):
            for name, used in _variables(one):
                try:
                    _with_all(used)
                except Exception:  # noqa: BLE001  # it may raise anything
                    if isinstance(used, FunctionType | type):
                        stack.append(used)
                        continue
                    line = Line(one.__code__.co_filename, one.__code__.co_firstlineno)
                    kind = _a(type(used).__name__)
                    return f"{one.__name__}() at {line} uses '{name}', {kind}: "
    return ""


def _variables(function: FunctionType) -> Iterator[tuple[str, object]]:
    """Yield the variables of its surroundings that a function uses."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # not set yet
            continue
    codes = [function.__code__]
    for code in codes:
        codes += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
        yield from (
            (name, function.__globals__[name])
            for name in code.co_names
            if name in function.__globals__
        )


def _why(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _a(noun: str) -> str:
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"
