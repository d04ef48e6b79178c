"""What do the workers of a program have to be given? From a graph and who does what in it."""

from collections.abc import Mapping

from flowos.flowlet.coordinating.coordinator import Job
from flowos.flowlet.coordinating.workers import Work
from flowos.flowlet.graph import Graph
from flowos.flowlet.library import Sink, Source
from flowos.flowlet.planned import Assignment, runs
from flowos.flowlet.shipping import shipped_code, shipped_fields
from flowos.flowlet.wire.messages import Output, Part


def shipped(graph: Graph) -> tuple[dict[int, tuple[str, bytes]], dict[str, bytes]]:
    """Write a program's tasks down: task -> (code, fields), and the codes.

    Raises:
        FlowletError: Something cannot be shipped.
    """
    codes: dict[str, bytes] = {}
    of_class: dict[type, str] = {}
    tasks: dict[int, tuple[str, bytes]] = {}
    for number, task in enumerate(graph.tasks):
        if not runs(task):
            continue
        code = of_class.get(type(task))
        if code is None:
            code, data = shipped_code(task)
            of_class[type(task)], codes[code] = code, data
        tasks[number] = code, shipped_fields(task)
    return tasks, codes


def work_of(
    graph: Graph,
    assignment: Assignment,
    tasks: Mapping[int, tuple[str, bytes]],
    codes: Mapping[str, bytes],
    *,
    number: int,
    limit_seconds: float = 0.0,
) -> Work:
    """Return a job for workers.

    Args:
        graph: The program.
        assignment: Who does what.
        tasks: As `shipped` returns them.
        codes: The same.
        number: The job's.
        limit_seconds: How long each task may run; 0 = for ever.
    """
    sources = {n: task.data for n, task in enumerate(graph.tasks) if isinstance(task, Source)}
    outputs = [task.output_ports for task in graph.tasks]
    job = Job(
        number,
        graph.inputs,
        outputs,
        assignment.ranks,
        frozenset(sources),
        wanted(graph),
        assignment.waves,
        assignment.kinds(),
        assignment.deliveries,
    )
    parts = [
        None
        if n not in tasks
        else Part(
            n, task.name, graph.inputs[n], outputs[n], assignment.methods[n], *tasks[n],
            limit_seconds,
        )
        for n, task in enumerate(graph.tasks)
    ]  # fmt: skip
    return Work(job, parts, codes, sources)


def wanted(graph: Graph) -> frozenset[Output]:
    """Return the outputs that the user's process is to have: what sinks take, and ends make."""
    found: set[Output] = set()
    for number, task in enumerate(graph.tasks):
        if isinstance(task, Sink):
            found.update(graph.inputs[number])
    for number in graph.ends:
        task = graph.tasks[number]
        found.update((number, port) for port in range(task.output_ports))
    return frozenset(o for o in found if not isinstance(graph.tasks[o[0]], Source))
