"""What do the workers of a program have to be given? From a graph and who does what in it."""

from collections.abc import Mapping

from flowos.flowlet.coordinating.coordinator import Job
from flowos.flowlet.coordinating.workers import Work
from flowos.flowlet.graph import Graph
from flowos.flowlet.library import Sink, Source
from flowos.flowlet.planned import Assignment, is_stream, runs
from flowos.flowlet.shipping import Shipped, Shipper
from flowos.flowlet.streams import StreamTask
from flowos.flowlet.wire.messages import CLIENT, Output, Part


def shipped(graph: Graph) -> tuple[dict[int, Shipped], dict[str, bytes]]:
    """Write a program's tasks down, and the codes that they are made of.

    Raises:
        FlowletError: Something cannot be shipped.
    """
    shipper = Shipper()
    tasks = {n: shipper.shipped(task) for n, task in enumerate(graph.tasks) if runs(task)}
    return tasks, shipper.codes


def work_of(
    graph: Graph,
    assignment: Assignment,
    tasks: Mapping[int, Shipped],
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
    streams, groups = _streams(graph)
    whole = [
        tuple(o for o in inputs if o not in streams.get(n, ()))
        for n, inputs in enumerate(graph.inputs)
    ]
    collected = _collected(graph, streams)
    job = Job(
        number,
        whole,
        outputs,
        assignment.ranks,
        frozenset(sources),
        wanted(graph),
        assignment.waves,
        assignment.kinds(),
        {
            key: wave
            for key, wave in assignment.deliveries.items()
            if not isinstance(graph.tasks[key[0][0]], StreamTask) or key[0] in collected
        },
        streams,
        groups,
    )
    parts: list[Part | None] = []
    for n, task in enumerate(graph.tasks):
        if n not in tasks:
            parts.append(None)
            continue
        stream, ports, homes, readers = _stream_of(graph, assignment, n, streams, collected)
        parts.append(
            Part(
                n,
                task.name,
                graph.inputs[n],
                outputs[n],
                assignment.methods[n],
                tasks[n].code,
                tasks[n].fields,
                tasks[n].functions,
                limit_seconds=limit_seconds,
                stream=stream,
                collected=ports,
                homes=homes,
                readers=readers,
            )
        )
    return Work(job, parts, codes, sources)


def _streams(
    graph: Graph,
) -> tuple[dict[int, tuple[Output, ...]], dict[int, frozenset[int]]]:
    """Return what each stream reads in chunks, and which tasks have to run together for that."""
    streams: dict[int, tuple[Output, ...]] = {}
    groups: dict[int, set[int]] = {}
    for number, inputs in enumerate(graph.inputs):
        chunks = tuple(o for o in inputs if is_stream(graph, o[0], number))
        if chunks:
            streams[number] = chunks
        for source, _ in chunks:
            together = groups.setdefault(source, {source}) | groups.setdefault(number, {number})
            for member in together:
                groups[member] = together
    return streams, {number: frozenset(together) for number, together in groups.items()}


def _collected(graph: Graph, streams: Mapping[int, tuple[Output, ...]]) -> frozenset[Output]:
    """Return the outputs of streams that are also wanted whole."""
    found = {
        output
        for output, readers in graph.readers.items()
        if isinstance(graph.tasks[output[0]], StreamTask)
        and any(output not in streams.get(reader, ()) for reader in readers)
    }
    return frozenset(
        found | {o for o in wanted(graph) if isinstance(graph.tasks[o[0]], StreamTask)}
    )


def _stream_of(
    graph: Graph,
    assignment: Assignment,
    number: int,
    streams: Mapping[int, tuple[Output, ...]],
    collected: frozenset[Output],
) -> tuple[bool, tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Return what `Part` says of a stream."""
    task = graph.tasks[number]
    if not isinstance(task, StreamTask):
        return False, (), (), ()
    chunks = streams.get(number, ())
    homes = tuple(assignment.ranks[o[0]] if o in chunks else CLIENT for o in graph.inputs[number])
    readers = tuple(
        sum(
            graph.inputs[r].count((number, port))
            for r in graph.readers.get((number, port), ())
            if (number, port) in streams.get(r, ())
        )
        for port in range(task.output_ports)
    )
    ports = tuple(p for p in range(task.output_ports) if (number, p) in collected)
    return True, ports, homes, readers


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
