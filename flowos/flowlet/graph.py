"""Which tasks lead to these, and can they run? Everything that can be seen before anything is held."""

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from flowos.flowlet.errors import FlowletError, users_line
from flowos.flowlet.needs import needs_of
from flowos.flowlet.streams import StreamTask
from flowos.flowlet.task import Port, Task, counted

_UNWRITTEN: Final = (Task.run, StreamTask.run)


@dataclass(frozen=True)
class Graph:
    """A program.

    Attributes:
        tasks: In an order that respects the flows.
        inputs: By task: (task, output port) for each input port.
        ends: Those that were asked for.
        readers: (task, output port) -> the tasks that read it, each once.
    """

    tasks: tuple[Task, ...]
    inputs: tuple[tuple[tuple[int, int], ...], ...]
    ends: tuple[int, ...]
    readers: Mapping[tuple[int, int], tuple[int, ...]] = field(repr=False)

    def width(self) -> int:
        """Return how many tasks can run at the same time, at most, counted by depth."""
        depth = [0] * len(self.tasks)
        for number, inputs in enumerate(self.inputs):
            depth[number] = max((depth[n] + 1 for n, _ in inputs), default=0)
        return max((depth.count(level) for level in set(depth)), default=0)


def graph_of(*ends: Task) -> Graph:
    """Follow the flows back from some tasks.

    Raises:
        FlowletError: A cycle, an input that is not joined, two tasks of one name, something that is
            no task, or a task whose code cannot take its inputs.
    """
    for end in ends:
        if not isinstance(end, Task):
            raise FlowletError(
                f"a program ends in tasks, not in {type(end).__name__}", where=str(users_line())
            )
    order = _ordered(ends)
    _check_names(order)
    _check_code(order)
    numbers = {task: number for number, task in enumerate(order)}
    inputs: list[tuple[tuple[int, int], ...]] = []
    readers: dict[tuple[int, int], dict[int, None]] = {}
    for number, task in enumerate(order):
        ports = tuple((numbers[port.task], port.number) for port in order[task])
        inputs.append(ports)
        for port in ports:
            readers.setdefault(port, {})[number] = None
    return Graph(
        tuple(order),
        tuple(inputs),
        tuple(numbers[end] for end in dict.fromkeys(ends)),
        {port: tuple(tasks) for port, tasks in readers.items()},
    )


def _ordered(ends: Sequence[Task]) -> dict[Task, list[Port]]:
    """Return all tasks that lead to these, each after those that it needs, with what feeds it."""
    order: dict[Task, list[Port]] = {}
    path: dict[Task, list[Port]] = {}  # what is being looked at, from an end down
    for end in ends:
        stack: list[tuple[Task, int]] = [(end, 0)]
        while stack:
            task, turn = stack.pop()
            if turn == 0:
                if task in order:
                    continue
                path[task] = _joined(task)
            ports = path[task]
            while turn < len(ports) and ports[turn].task in order:
                turn += 1
            if turn == len(ports):
                order[task] = path.pop(task)
                continue
            before = ports[turn].task
            if before in path:
                raise _cycle([*path], before)
            stack.append((task, turn + 1))
            stack.append((before, 0))
    return order


def _joined(task: Task) -> list[Port]:
    if not hasattr(task, "inputs"):
        raise FlowletError(
            f"a {type(task).__name__} was not made whole",
            where=str(users_line()),
            hint="its __init__ has to call super().__init__(its inputs)",
        )
    said: object = task.inputs  # a subclass may have written over it
    if not isinstance(said, list) or not all(p is None or isinstance(p, Port) for p in said):
        raise FlowletError(
            f"{task.name} has something else in its field 'inputs' than its input ports",
            where=str(task.made_at),
            hint="give the field of your own another name",
        )
    ports: list[Port] = []
    for number, port in enumerate(task.inputs):
        if port is None:
            raise FlowletError(
                f"input {number} of {task.name} is not joined to anything",
                where=str(task.made_at),
                hint=f"give it when it is made, or call connect({number}, a_task)",
            )
        ports.append(port)
    return ports


def _check_names(tasks: Iterable[Task]) -> None:
    """See to it that results and errors can be told apart."""
    named: dict[str, Task] = {}
    for task in tasks:
        name: object = task.name
        if not isinstance(name, str):
            raise FlowletError(
                f"the name of a {type(task).__name__} is {name!r}, which is no text",
                where=str(task.made_at),
                hint="'name' is what it is called: give a field of your own another name",
            )
        other = named.setdefault(name, task)
        if other is not task:
            raise FlowletError(
                f"two tasks are named '{name}', the other at {other.made_at}",
                where=str(task.made_at),
                hint="leave name= away, or give each its own",
            )


def _check_code(tasks: Iterable[Task]) -> None:
    """See to it that all implementations are written, and take as many inputs as there are."""
    checked: set[tuple[type, int]] = set()
    for task in tasks:
        kind, count = type(task), len(task.inputs)
        if (kind, count) in checked:
            continue
        checked.add((kind, count))
        for need in needs_of(kind):
            method = getattr(task, need.method)
            if getattr(method, "__func__", None) in _UNWRITTEN:
                raise FlowletError(
                    f"{kind.__name__} has no run()",
                    where=str(task.made_at),
                    hint="write run(self, *inputs), which returns its output",
                )
            try:
                inspect.signature(method).bind(*[None] * count)
            except TypeError as error:
                raise FlowletError(
                    f"{need.method}() of {kind.__name__} does not take {counted(count, 'input')}, "
                    f"as {task.name} has: {error}",
                    where=str(task.made_at),
                    hint="all implementations of a task take its inputs, and nothing more",
                ) from None
            except ValueError:  # code that does not say what it takes
                continue


def _cycle(path: Sequence[Task], task: Task) -> FlowletError:
    around = [*path[path.index(task) :], task]
    names = " <- ".join(t.name for t in around)
    return FlowletError(
        f"the flows make a cycle: {names}",
        where=str(task.made_at),
        hint="a task runs when all its inputs have come, so none of these ever would",
    )
