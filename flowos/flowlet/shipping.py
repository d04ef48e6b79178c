"""How does a task get to its engine? Its class by cloudpickle, once; its own fields with it.

A class of the program itself is shipped whole; one of a module that is installed, or lies beside
the program, is named, and found there: a worker looks where the program does.
"""

import hashlib
import pickle
from typing import Any, Final

from flowos.flowlet.errors import FlowletError
from flowos.flowlet.task import Task

_LEFT: Final = frozenset({"inputs", "made_at", "number"})  # what makes it part of a graph
_PROTOCOL: Final = 5


def shipped_code(task: Task) -> tuple[str, bytes]:
    """Return what makes tasks like this one, and a name for it.

    Raises:
        FlowletError: It cannot be shipped.
    """
    data = _shipped(type(task), task, f"the class {type(task).__name__}")
    return hashlib.blake2b(data, digest_size=16).hexdigest(), data


def shipped_fields(task: Task) -> bytes:
    """Return what is a task's own.

    Raises:
        FlowletError: One of its fields cannot be shipped.
    """
    fields = {name: value for name, value in vars(task).items() if name not in _LEFT}
    try:
        return pickle.dumps(fields, _PROTOCOL)  # numbers, text, arrays: most of what there is
    except Exception:  # noqa: BLE001, S110  # functions of the program, and what cannot be shipped
        pass
    try:
        return _dumped(fields)
    except Exception:  # noqa: BLE001  # a field may raise anything
        for name, value in fields.items():
            _shipped(value, task, f"its field '{name}', {_a(type(value).__name__)},")
        return _shipped(fields, task, "it")


def loaded_code(data: bytes) -> Any:
    """Return the class that was shipped."""
    return pickle.loads(data)  # noqa: S301  # from the user's own program


def loaded(code: Any, fields: bytes) -> Any:
    """Return a task: without neighbours, it is only run."""
    task = code.__new__(code)
    task.__dict__.update(pickle.loads(fields))  # noqa: S301  # from the user's own program
    return task


def _dumped(value: object) -> bytes:
    import cloudpickle

    return bytes(cloudpickle.dumps(value, _PROTOCOL))


def _shipped(value: object, task: Task, what: str) -> bytes:
    try:
        return _dumped(value)
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
