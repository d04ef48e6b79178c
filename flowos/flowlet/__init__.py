"""Data-flow programs: tasks joined by flows, run on whatever engines a cell has.

from flowos.flowlet import AddBytewise, Concat, Sink, Source

parts = [AddBytewise(Source(a), Source(b)) for a, b in pairs]
sink = Sink(Concat(*parts))
sink.execute()
print(sink.result)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from flowos.flowlet.builders import Call, map, reduce  # noqa: A004  # as users write it
    from flowos.flowlet.errors import FlowletError, TaskError
    from flowos.flowlet.executing import execute
    from flowos.flowlet.graph import Graph, graph_of
    from flowos.flowlet.library import AddBytewise, Concat, Sink, Source, Sum
    from flowos.flowlet.needs import on
    from flowos.flowlet.session import held
    from flowos.flowlet.streams import FileSink, FileSource, StreamTask
    from flowos.flowlet.task import Port, Task

_HOME: Final = {
    "Call": "builders",
    "map": "builders",
    "reduce": "builders",
    "FlowletError": "errors",
    "TaskError": "errors",
    "execute": "executing",
    "Graph": "graph",
    "graph_of": "graph",
    "AddBytewise": "library",
    "Concat": "library",
    "Sink": "library",
    "Source": "library",
    "Sum": "library",
    "held": "session",
    "on": "needs",
    "FileSink": "streams",
    "FileSource": "streams",
    "StreamTask": "streams",
    "Port": "task",
    "Task": "task",
}

__all__ = [  # noqa: RUF022  # in the order of the table above
    "Call", "map", "reduce", "held", "FlowletError", "TaskError", "execute", "Graph", "graph_of", "AddBytewise", "Concat", "Sink",
    "Source", "Sum", "on", "FileSink", "FileSource", "StreamTask", "Port", "Task",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Load what is asked for, when it is."""
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)
