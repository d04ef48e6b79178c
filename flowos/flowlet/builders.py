"""How are many tasks of one function written? `map` and `reduce`, and functions as tasks."""

from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Final

from flowos.flowlet.errors import FlowletError, users_line
from flowos.flowlet.task import ANY, Port, Task, numbered

FAN_IN: Final = 2


class Call(Task):
    """A function as a task: its inputs are the function's first arguments.

    Attributes:
        function: What is called.
        more: Arguments by name.
    """

    input_ports: ClassVar[int | None] = ANY

    def __init__(
        self, function: Callable[..., Any], *inputs: Task | Port, name: str = "", **more: Any
    ) -> None:
        """Take a function, what flows into it, and arguments that do not.

        Raises:
            FlowletError: It is no function.
        """
        said: object = function
        if not callable(said) or isinstance(said, type | Task):
            raise FlowletError(
                f"{type(self).__name__} takes a function first, not {said!r}",
                where=str(users_line()),
            )
        super().__init__(*inputs, name=name or numbered(getattr(function, "__name__", "call")))
        self.function = function
        self.more = more

    def run(self, *inputs: Any) -> Any:
        """Return what the function does."""
        return self.function(*inputs, **self.more)


def map(  # noqa: A001  # what everybody calls it; it is flowlet.map to its users
    function: Callable[..., Any], *inputs: Iterable[Task | Port], **more: Any
) -> list[Call]:
    """Return a task for each input, or for each row of several: function(input, ..., **more).

    Args:
        function: Takes bytes or arrays, and returns one of them.
        inputs: One or several lists of tasks or ports, equally long.
        more: Arguments by name, the same for all.

    Raises:
        FlowletError: The lists differ in length.
    """
    rows = [_listed("map", column) for column in inputs]
    if not rows or len({len(row) for row in rows}) != 1:
        lengths = ", ".join(str(len(row)) for row in rows) or "no"
        raise FlowletError(f"map takes lists of one length, not {lengths}", where=str(users_line()))
    return [Call(function, *row, **more) for row in zip(*rows, strict=True)]


def reduce(
    function: Callable[..., Any],
    inputs: Iterable[Task | Port],
    *,
    fan_in: int = FAN_IN,
    **more: Any,
) -> Task | Port:
    """Return the end of a tree of tasks that make one of many: function(some inputs..., **more).

    Args:
        function: Has to be associative; takes up to `fan_in` bytes or arrays.
        inputs: At least one.
        fan_in: How many each task takes.
        more: Arguments by name, the same for all.

    Raises:
        FlowletError: There is nothing to reduce, or `fan_in` is less than 2.
    """
    level: list[Task | Port] = _listed("reduce", inputs)
    if not level:
        raise FlowletError("reduce takes at least one input", where=str(users_line()))
    if fan_in < 2:  # one would never end
        raise FlowletError(f"a fan_in of {fan_in} makes nothing fewer", where=str(users_line()))
    while len(level) > 1:
        level = [
            Call(function, *level[start : start + fan_in], **more)
            if len(level) - start > 1
            else level[start]
            for start in range(0, len(level), fan_in)
        ]
    return level[0]


def _listed(name: str, inputs: object) -> list[Task | Port]:
    if isinstance(inputs, Task | Port) or not isinstance(inputs, Iterable):
        raise FlowletError(
            f"{name} takes a list of tasks or ports, not {inputs!r}",
            where=str(users_line()),
            hint="write [it], or it.out for all of its outputs",
        )
    return list(inputs)
