"""What is a task, and how is it joined to others? The nouns that users write."""

import inspect
import itertools
import operator
from collections.abc import Iterator
from types import EllipsisType
from typing import Any, ClassVar, Final, TypeAlias

from flowos.flowlet.errors import FlowletError, Line, users_line

ANY: Final = -1  # number of input ports: as many as are given
_NUMBERS = itertools.count()

Source: TypeAlias = "Task | Port | EllipsisType"


class Port:
    """An output port of a task, from which flows begin."""

    __slots__ = ("number", "task")

    def __init__(self, task: "Task", number: int) -> None:
        """Name the n-th output of a task."""
        self.task = task
        self.number = number

    def __repr__(self) -> str:
        """Return "AddBytewise-3.out[0]"."""
        return f"{self.task.name}.out[{self.number}]"


class Outputs:
    """A task's output ports, by number."""

    __slots__ = ("_task",)

    def __init__(self, task: "Task") -> None:
        """Belong to a task."""
        self._task = task

    def __len__(self) -> int:
        """Return how many there are."""
        return self._task.output_ports

    def __getitem__(self, number: int) -> Port:
        """Return one of them.

        Raises:
            FlowletError: There is none of this number.
        """
        count = self._task.output_ports
        found = _whole(number)
        if not 0 <= found < count:
            ports = "no output port" if not count else f"output ports 0 to {count - 1}"
            raise FlowletError(
                f"{self._task.name} has {ports}, not {number!r}",
                where=str(users_line()),
                hint="set output_ports in its class, if it returns more",
            )
        return Port(self._task, found)

    def __iter__(self) -> Iterator[Port]:
        """Yield all of them."""
        return (Port(self._task, number) for number in range(self._task.output_ports))


class Task:
    """A computation with numbered inputs and outputs. Subclass it, and write `run`.

    Constructing one takes output ports, the i-th becoming input port i; a task in place of a port
    means its port 0; `...` leaves an input to be joined later, by `connect`. What a subclass keeps
    of its own goes with it to the engine that it runs on; of another task that it keeps, only the
    name does.

    Example:
        class Blur(Task):
            def __init__(self, image, radius):
                super().__init__(image)
                self.radius = radius

            def run(self, image):
                return blurred(image, self.radius)

    Attributes:
        input_ports: How many inputs it has; None = as many as `run` takes.
        output_ports: How many outputs: `run` returns one, or a tuple of so many.
        aggregate: What the network may compute of its inputs on their way ("sum"); "" = nothing.
        inputs: Where each input comes from; None = it is not joined yet.
        made_at: The user's line that made it.
        name: For people; unique in a program.
    """

    input_ports: ClassVar[int | None] = None
    output_ports: int = 1
    aggregate: ClassVar[str] = ""

    inputs: list[Port | None]
    made_at: Line
    name: str

    def __init__(self, *inputs: Source, name: str = "") -> None:
        """Join the inputs.

        Raises:
            FlowletError: They are no ports, too many or too few.
        """
        self._begin(name)
        given = [
            None if source is ... else self._port(source, n) for n, source in enumerate(inputs)
        ]
        wanted = self._input_count()
        if wanted == ANY:
            self.inputs = given
        elif len(given) > wanted:
            raise FlowletError(
                f"{type(self).__name__} takes {counted(wanted, 'input')}, {len(given)} are given",
                where=str(self.made_at),
                hint="its run() says how many: write run(self, *inputs) for any number",
            )
        else:  # what is left out may be joined later
            self.inputs = [*given, *[None] * (wanted - len(given))]

    # Any arguments, for the type checker's sake: each subclass takes the inputs that it has.
    def run(self, *inputs: Any, **_more: Any) -> Any:
        """Compute the outputs: one, or a tuple of as many as there are output ports."""
        raise NotImplementedError

    @property
    def out(self) -> Outputs:
        """Its output ports: `task.out[1]`."""
        return Outputs(self)

    def connect(self, number: int, source: "Task | Port") -> None:
        """Join an input port that is not joined yet.

        Raises:
            FlowletError: There is no such port, or it has a source already.
        """
        line = str(users_line())
        found = _whole(number)
        if self._input_count() == ANY and found == len(self.inputs):
            self.inputs.append(None)
        if not 0 <= found < len(self.inputs):
            ports = f"input ports 0 to {len(self.inputs) - 1}" if self.inputs else "no input port"
            raise FlowletError(f"{self.name} has {ports}, not {number!r}", where=line)
        there = self.inputs[found]
        if there is not None:
            raise FlowletError(
                f"input {found} of {self.name} is fed by {there!r} already",
                where=line,
                hint="an input has one source: a Concat, or a task of your own, makes one of two",
            )
        self.inputs[found] = self._port(source, found)

    def execute(self, **options: Any) -> Any:
        """Run all that leads to this task, and return what came of it: see `flowos.flowlet.executing`.

        Raises:
            FlowletError: The program cannot run, or a task of it failed.
        """
        from flowos.flowlet.executing import execute

        return execute(self, **options)

    def __repr__(self) -> str:
        """Return its name."""
        return f"<{getattr(self, 'name', type(self).__name__)}>"

    # -- for this package

    def _begin(self, name: str = "") -> None:
        self.made_at = users_line(self)
        self.name = name or numbered(type(self).__name__)
        self.inputs = []

    def _input_count(self) -> int:
        if type(self).input_ports is not None:
            return int(type(self).input_ports or 0)
        return _inputs_of(type(self))

    def _port(self, source: object, number: int) -> Port:
        if isinstance(source, Port):
            return source
        if isinstance(source, Task):
            if not hasattr(source, "inputs"):
                raise FlowletError(
                    f"the {type(source).__name__} that feeds input {number} was not made whole",
                    where=str(users_line()),
                    hint="its __init__ has to call super().__init__(its inputs)",
                )
            if not source.output_ports:
                raise FlowletError(
                    f"input {number} of {type(self).__name__}: {source.name} has no output",
                    where=str(users_line()),
                )
            return Port(source, 0)
        hint = "Source(it) makes a task of data"
        if isinstance(source, list | tuple):
            hint = "write *inputs, if it is a list of tasks"
        raise FlowletError(
            f"input {number} of {type(self).__name__} is a task or an output port, not "
            f"{type(source).__name__}",
            where=str(users_line()),
            hint=hint,
        )


def numbered(word: str) -> str:
    """Return a name that no other task of this process is given: "AddBytewise-3"."""
    return f"{word}-{next(_NUMBERS)}"


_COUNTS: dict[type, int] = {}


def _inputs_of(kind: type[Task]) -> int:
    """Return how many inputs the first implementation of a class takes."""
    known = _COUNTS.get(kind)
    if known is None:
        from flowos.flowlet.needs import needs_of

        method = getattr(kind, needs_of(kind)[0].method)
        parameters = list(inspect.signature(method).parameters.values())[1:]
        if any(p.kind is p.VAR_POSITIONAL for p in parameters):
            known = ANY
        else:
            known = sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)
        _COUNTS[kind] = known
    return known


def _whole(number: object) -> int:
    """Return a port's number, a numpy integer's too; -1 = it is none."""
    try:
        return operator.index(number)  # type: ignore[arg-type]  # users write what they like
    except TypeError:
        return -1


def counted(number: int, noun: str) -> str:
    """Return "1 input", "2 inputs"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
