"""Which tasks lead to these, and can they run? Everything that can be seen before anything is held."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from flowos.flowlet.errors import FlowletError, users_line
from flowos.flowlet.task import Port, Task


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
        FlowletError: A cycle, an input that is not joined, or something that is no task.
    """
    for end in ends:
        if not isinstance(end, Task):
            raise FlowletError(
                f"a program ends in tasks, not in {type(end).__name__}", where=str(users_line())
            )
    order = _ordered(ends)
    numbers = {task: number for number, task in enumerate(order)}
    inputs: list[tuple[tuple[int, int], ...]] = []
    readers: dict[tuple[int, int], dict[int, None]] = {}
    for number, task in enumerate(order):
        ports = tuple((numbers[port.task], port.number) for port in _joined(task))
        inputs.append(ports)
        for port in ports:
            readers.setdefault(port, {})[number] = None
    return Graph(
        tuple(order),
        tuple(inputs),
        tuple(numbers[end] for end in dict.fromkeys(ends)),
        {port: tuple(tasks) for port, tasks in readers.items()},
    )


def _ordered(ends: Sequence[Task]) -> list[Task]:
    """Return all tasks that lead to these, each after those that it needs."""
    order: dict[Task, None] = {}
    path: dict[Task, None] = {}  # what is being looked at, from an end down
    for end in ends:
        stack: list[tuple[Task, int]] = [(end, 0)]
        while stack:
            task, turn = stack.pop()
            if turn == 0:
                if task in order:
                    continue
                path[task] = None
            ports = _joined(task)
            while turn < len(ports) and ports[turn].task in order:
                turn += 1
            if turn == len(ports):
                del path[task]
                order[task] = None
                continue
            before = ports[turn].task
            if before in path:
                raise _cycle([*path], before)
            stack.append((task, turn + 1))
            stack.append((before, 0))
    return list(order)


def _joined(task: Task) -> list[Port]:
    if not hasattr(task, "inputs"):
        raise FlowletError(
            f"a {type(task).__name__} was not made whole",
            where=str(users_line()),
            hint="its __init__ has to call super().__init__(its inputs)",
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


def _cycle(path: Sequence[Task], task: Task) -> FlowletError:
    around = [*path[path.index(task) :], task]
    names = " <- ".join(t.name for t in around)
    return FlowletError(
        f"the flows make a cycle: {names}",
        where=str(task.made_at),
        hint="a task runs when all its inputs have come, so none of these ever would",
    )
