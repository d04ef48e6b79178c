"""How does a task get to its engine? Its class by cloudpickle, once; its own fields with it.

A class of the program itself is shipped whole; one of a module that is installed, or lies beside
the program, is named, and found there: a worker looks where the program does.
"""

import hashlib
import pickle
from collections.abc import Callable
from types import FunctionType
from typing import Any, Final, NamedTuple

from flowos.flowlet.errors import FlowletError
from flowos.flowlet.task import Task

_LEFT: Final = frozenset({"inputs", "made_at", "number"})  # what makes it part of a graph
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
        import cloudpickle

        try:
            return bytes(cloudpickle.dumps((plain, functions), _PROTOCOL))
        except Exception:  # noqa: BLE001  # a field may raise anything
            for name, value in plain.items():
                _dumped(value, task, _field(name, value))
            return _dumped((plain, functions), task, "it")


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


def _dumped(value: object, task: Task, what: str) -> bytes:
    import cloudpickle

    try:
        return bytes(cloudpickle.dumps(value, _PROTOCOL))
    except Exception as error:  # noqa: BLE001  # what is being shipped may raise anything
        raise FlowletError(
            f"{task.name} cannot be shipped to an engine: {what} cannot be written down "
            f"({_why(error)})",
            where=str(task.made_at),
            hint="open files, connections and locks in run(), and keep only what describes them",
        ) from None


def _why(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _a(noun: str) -> str:
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"
