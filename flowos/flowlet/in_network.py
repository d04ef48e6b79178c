"""Which sums can be made in the network? Those of what comes to one engine from several others.

A sum is split: what comes from elsewhere is added where the streams meet, in a switch, and its
sum is added to what is there already. So the engine that reads it gets one stream instead of many.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from flowos.flowlet.graph import Graph
from flowos.flowlet.library import Sum
from flowos.flowlet.planned import Assignment
from flowos.flowlet.task import Port, Task
from flowos.flowlet.wire.messages import CLIENT, Output

FEWEST: Final = 2  # streams that are worth an aggregator


class Tree(NamedTuple):
    """Streams that meet: from these ranks to that one, with what is computed of them.

    Attributes:
        reducer: The rank of the task that does.
    """

    sources: tuple[int, ...]
    target: int
    function: str
    reducer: int


def split(
    graph: Graph, assignment: Assignment, aggregators: int
) -> tuple[Graph, Assignment, tuple[Tree, ...]]:
    """Return a program whose sums are made in the network, as far as there are aggregators.

    Args:
        graph: The program.
        assignment: Who does what in it; with one wave, else it is returned as it is.
        aggregators: How many streams can be made of others at a time.
    """
    if assignment.wave_count > 1 or aggregators < 1:
        return graph, assignment, ()
    ranks = assignment.ranks
    first = len(assignment.kinds())
    trees: dict[tuple[tuple[int, ...], int, str], Tree] = {}
    chosen: dict[int, Tree] = {}
    for number, task in enumerate(graph.tasks):
        target = ranks[number]
        if not task.aggregate or target == CLIENT:
            continue
        sources = tuple(sorted({ranks[n] for n, _ in graph.inputs[number]} - {target, CLIENT}))
        key = (sources, target, task.aggregate)
        if len(sources) < FEWEST or (key not in trees and len(trees) == aggregators):
            continue
        chosen[number] = trees.setdefault(
            key, Tree(sources, target, task.aggregate, first + len(trees))
        )
    if not chosen:
        return graph, assignment, ()
    after, placed = _rewritten(graph, assignment, chosen)
    return after, replace(placed, reducers=len(trees)), tuple(trees.values())


def _rewritten(
    graph: Graph, assignment: Assignment, chosen: dict[int, Tree]
) -> tuple[Graph, Assignment]:
    ranks = assignment.ranks
    new: dict[int, int] = {}
    count = 0
    for number in range(len(graph.tasks)):  # a part of a sum stands just before it
        count += number in chosen
        new[number] = count
        count += 1
    tasks: list[Task] = []
    inputs: list[tuple[Output, ...]] = []
    placed: list[int] = []
    methods: list[str] = []
    for number, task in enumerate(graph.tasks):
        mine = [(new[n], port) for n, port in graph.inputs[number]]
        tree = chosen.get(number)
        if tree is not None:
            far = [o for o, (n, _) in zip(mine, graph.inputs[number], strict=True)
                   if ranks[n] in tree.sources]  # fmt: skip
            tasks.append(_part(task, [tasks[n].out[port] for n, port in far]))
            inputs.append(tuple(far))
            placed.append(tree.reducer)
            methods.append(assignment.methods[number])
            mine = [(len(tasks) - 1, 0), *(o for o in mine if o not in far)]
        tasks.append(task)
        inputs.append(tuple(mine))
        placed.append(ranks[number])
        methods.append(assignment.methods[number])
    readers: dict[Output, dict[int, None]] = {}
    for number, outputs in enumerate(inputs):
        for output in outputs:
            readers.setdefault(output, {})[number] = None
    after = Graph(
        tuple(tasks),
        tuple(inputs),
        tuple(new[end] for end in graph.ends),
        {output: tuple(numbers) for output, numbers in readers.items()},
    )
    deliveries = {
        (output, placed[reader]): 0
        for output, numbers in readers.items()
        for reader in numbers
        if CLIENT not in (placed[output[0]], placed[reader]) and placed[output[0]] != placed[reader]
    }
    return after, replace(
        assignment,
        ranks=tuple(placed),
        methods=tuple(methods),
        waves=(0,) * len(tasks),
        deliveries=deliveries,
    )


def _part(task: Task, inputs: Sequence[Port]) -> Task:
    """Return a sum of some inputs, named after the one that it is a part of."""
    part = Sum(*inputs, name=f"{task.name} in the network")
    part.made_at = task.made_at
    return part
