"""How is a program run? Checked, planned, given a slice, and its results brought back."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowos.flowlet.errors import FlowletError, users_line
from flowos.flowlet.graph import graph_of
from flowos.flowlet.task import Task

if TYPE_CHECKING:
    from flowos.flowlet.session import Result, Slice
    from flowos.runtime.client import CellClient


def execute(
    *ends: Task,
    on: "Slice | str | None" = None,
    engines: Mapping[str, int] | None = None,
    timeout: float = 0.0,
    task_timeout: float = 0.0,
    tenant: str = "default",
    policy: str = "",
    priority: int = 0,
    client: "CellClient | None" = None,
    picture: str | Path = "",
    **more: Any,
) -> "Result":
    """Run all that leads to some tasks.

    Args:
        ends: Sinks get their results; of other tasks the outputs are in `Result.values`.
        on: A slice that is held, "here" for this very process, or "dask"; None = a slice of its
            own.
        engines: Engine kind -> how many at most; None = as many as can be used at the same time,
            and are free.
        timeout: Seconds for all of it, waiting for engines included; 0 = for ever.
        task_timeout: Seconds for each task; 0 = for ever.
        tenant: Whose slice it is.
        policy: Which scheduler serves it.
        priority: Of the slice.
        client: The cell; None = the one that `FLOWOS_ENDPOINTS` names, or that is up here; else
            this machine.
        picture: A file for an SVG of the program, with the engines and circuits that it got.
        more: As of `flowos.flowlet.session.Options`.

    Raises:
        FlowletError: It cannot run; or a task of it failed: then it is a `TaskError`.
    """
    graph = graph_of(*ends)
    if not ends:
        raise FlowletError("nothing to execute", where=str(users_line()), hint="name a task")
    from flowos.flowlet.defaults import DEFAULTS, with_defaults
    from flowos.flowlet.session import Options, run_on, run_once

    on, settings = with_defaults(
        on,
        {
            "engines": dict(engines or {}),
            "tenant": tenant,
            "policy": policy,
            "priority": priority,
            "timeout_seconds": timeout,
            "task_seconds": task_timeout,
            **more,
        },
    )
    client = client or DEFAULTS.client
    if on == "here":
        from flowos.flowlet.inline import run_here

        result = run_here(graph)
    elif on == "dask":
        from flowos.flowlet.on_dask import run_on_dask

        result = run_on_dask(graph, Options(**settings), client)
    elif isinstance(on, str):
        raise FlowletError(
            f"a program runs on a slice, 'here' or 'dask', not on '{on}'", where=str(users_line())
        )
    elif on is not None:
        result = run_on(on, graph)
    else:
        result = run_once(graph, Options(**settings), client)
    DEFAULTS.executed(result)
    if picture:
        from flowos.flowlet.picture import drawn

        Path(picture).write_text(drawn(result), encoding="utf-8")
    return result
