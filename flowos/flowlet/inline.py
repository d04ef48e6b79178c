"""What does a program compute? Run here, task after task: for trying out, and to compare with."""

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from flowos.flowlet.errors import FlowletError, TaskError
from flowos.flowlet.graph import Graph
from flowos.flowlet.library import Sink, Source
from flowos.flowlet.needs import CPU, needs_of
from flowos.flowlet.planned import Assignment
from flowos.flowlet.streams import StreamTask
from flowos.flowlet.wire.messages import CLIENT, Output
from flowos.flowlet.wire.values import NotData, put_together, taken_apart
from flowos.flowlet.worker.channels import joined
from flowos.flowlet.worker.running import TaskFailed, outputs_of, users_part

if TYPE_CHECKING:
    from flowos.flowlet.session import Result


def run_here(graph: Graph) -> "Result":
    """Run a program in this process, by each task's implementation for CPUs, else its first.

    Raises:
        TaskError: A task failed.
    """
    from flowos.flowlet.session import Ran, Result

    began = time.monotonic()
    made: dict[Output, Any] = {}
    chunks: dict[Output, list[Any]] = {}
    ran: dict[str, Ran] = {}
    for number, task in enumerate(graph.tasks):
        inputs = _inputs(graph, number, made, chunks)
        if isinstance(task, Sink):
            task.run(*inputs)
            continue
        if isinstance(task, Source):
            made[number, 0] = _as_sent(task.data)
            continue
        begins = time.monotonic()
        try:
            needs = needs_of(type(task))
            method = next((n.method for n in needs if n.kind == CPU), needs[0].method)
            if isinstance(task, StreamTask):
                _stream(number, task, getattr(task, method)(*inputs), made, chunks)
                continue
            outputs = outputs_of(getattr(task, method)(*inputs), task.output_ports)
            for port, output in enumerate(outputs):
                made[number, port] = _as_sent(output)
        except Exception as error:  # noqa: BLE001  # a user's task may raise anything
            raise _failed(task.name, str(task.made_at), error) from None
        ran[task.name] = Ran("here", begins - began, time.monotonic() - begins)
    values = {}
    for number in graph.ends:
        task = graph.tasks[number]
        if task.output_ports:
            found = tuple(made[number, port] for port in range(task.output_ports))
            values[task.name] = found[0] if len(found) == 1 else found
    count = len(graph.tasks)
    nobody = Assignment((), (CLIENT,) * count, ("",) * count, (0,) * count, {})
    seconds = time.monotonic() - began
    return Result(values, ran, {CLIENT: "here"}, (), 1, seconds, "", graph, nobody)


def _inputs(
    graph: Graph, number: int, made: dict[Output, Any], chunks: dict[Output, list[Any]]
) -> list[Any]:
    """Return a task's inputs: of a stream, iterators over chunks."""
    outputs = graph.inputs[number]
    if not isinstance(graph.tasks[number], StreamTask):
        return [made[output] for output in outputs]
    return [iter(chunks[output] if output in chunks else [made[output]]) for output in outputs]


def _as_sent(value: object) -> Any:
    """Return what a reader on another engine would see of a value: what it cannot write into."""
    if type(value) is bytes:
        return value
    form, memory = taken_apart(value)
    return put_together(form, memory)


def _stream(
    number: int,
    task: StreamTask,
    yielded: Iterator[Any],
    made: dict[Output, Any],
    chunks: dict[Output, list[Any]],
) -> None:
    """Run a stream to its end, keeping all it yields."""
    for port in range(task.output_ports):
        chunks[number, port] = []
    for chunk in yielded:
        some = (chunk,) if task.output_ports == 1 else outputs_of(chunk, task.output_ports)
        for port, one in enumerate(some):
            if one is not None or task.output_ports == 1:
                form, memory = taken_apart(one)
                chunks[number, port].append(put_together(form, memory.tobytes()))
    for port in range(task.output_ports):
        made[number, port] = joined(chunks[number, port])


def _failed(name: str, where: str, error: Exception) -> FlowletError:
    if isinstance(error, TaskFailed | NotData):
        kind, message, trace = "outputs", str(error), ""
    else:
        kind, message, trace = "raised", repr(error), users_part(error)
    return TaskError(f"{name} failed: {message}", task=name, kind=kind, where=where, trace=trace)
