"""What can a task run on? One engine kind, or several, each with its own implementation."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from flowos.flowlet.errors import FlowletError, users_line
from flowos.model.errors import SpecError

F = TypeVar("F", bound=Callable[..., Any])

PLAIN: Final = "run"
CPU: Final = "cpu"
_MARK: Final = "__flowos_needs__"


@dataclass(frozen=True, slots=True)
class Need:
    """One way to run a task.

    Attributes:
        kind: Of the engine.
        models: Allowed models; empty = any.
        memory_bytes: What the engine must have; 0 = any.
        bitstream: What must be loaded into it; "" = nothing.
        seconds: How long it takes there; 0 = not known.
        method: What runs.
    """

    kind: str = CPU
    models: tuple[str, ...] = ()
    memory_bytes: int = 0
    bitstream: str = ""
    seconds: float = 0.0
    method: str = PLAIN


def on(
    kind: str,
    *,
    models: tuple[str, ...] | list[str] | str = (),
    memory: str | int = 0,
    bitstream: str = "",
    seconds: float = 0.0,
) -> Callable[[F], F]:
    """Mark a method of a task as its implementation for an engine kind.

    Several methods with marks are several implementations: which of them runs is chosen together
    with the engine, the first that the cell can give, or the fastest where `seconds` says so.

    Args:
        kind: Of the engine, as the cell calls it: cpu, gpu, opencl, fpga, ...
        models: Only these.
        memory: What the engine must have, such as "4GiB".
        bitstream: What must be loaded into it.
        seconds: How long it takes there.

    Raises:
        FlowletError: A wish that cannot be meant.
    """
    said: object = kind  # users write what they like
    if not isinstance(said, str) or not said:
        raise FlowletError(
            "an engine kind is a word, such as 'cpu'",
            where=str(users_line()),
            hint='write @on("cpu") above the method',
        )
    if not 0 <= seconds < math.inf:
        raise FlowletError(
            f"a task takes 0 seconds or more, not {seconds}", where=str(users_line())
        )
    names = (models,) if isinstance(models, str) else tuple(models)
    size = _bytes_of(memory)

    def mark(method: F) -> F:
        needs = getattr(method, _MARK, ())
        need = Need(kind, names, size, bitstream, seconds, method.__name__)
        setattr(method, _MARK, (need, *needs))
        return method

    return mark


def needs_of(kind: type) -> tuple[Need, ...]:
    """Return the implementations of a class of tasks, in the order in which they are written."""
    found: dict[str, tuple[Need, ...]] = {}
    for base in reversed(kind.__mro__):
        for name, method in vars(base).items():
            needs = getattr(method, _MARK, ())
            if needs:
                found[name] = needs
            elif name in found:
                del found[name]  # written anew below, without a mark
    return tuple(need for needs in found.values() for need in needs) or (Need(),)


def _bytes_of(memory: str | int) -> int:
    if isinstance(memory, int):
        if memory < 0:
            raise FlowletError(f"{memory} bytes are less than none", where=str(users_line()))
        return memory
    from flowos.documents.quantities import bytes_of

    try:
        return bytes_of(memory)
    except SpecError as error:
        raise FlowletError(error.problem, where=str(users_line()), hint=error.hint) from None
