"""How does a program run on Dask? The same tasks, on one Dask worker for each engine.

Who runs what is decided as for any slice. But Dask moves the data, as it likes: that a circuit goes
where a flow does is seen when the program is planned, not when it runs.
"""

import itertools
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from flowos.drivers.local.devices import cache_folder, this_machine
from flowos.drivers.local.tasks import variables
from flowos.flowlet.cell import found, offer_of
from flowos.flowlet.errors import FlowletError, TaskError
from flowos.flowlet.graph import Graph
from flowos.flowlet.library import Sink, Source
from flowos.flowlet.planned import Assignment, assigned, suits
from flowos.flowlet.session import Options, Ran, Result
from flowos.flowlet.shipping import loaded, loaded_code
from flowos.flowlet.streams import StreamTask
from flowos.flowlet.wire.values import NotData, taken_apart
from flowos.flowlet.work import shipped, wanted
from flowos.flowlet.worker.channels import joined
from flowos.flowlet.worker.running import TaskFailed, outputs_of, users_part
from flowos.model.cell import Engine
from flowos.model.errors import NotInTime

if TYPE_CHECKING:
    from flowos.runtime.client import CellClient

LOOK_SECONDS: Final = 1.0  # between looks at whether all workers live
SCHEDULER: Final = "FLOWOS_DASK"  # the address of a Dask scheduler to be used
_runs: Final = itertools.count()


class Failed(Exception):  # it becomes a TaskError
    """What is told of a task that failed: its number, kind, sentence and traceback."""


def run_on_dask(graph: Graph, options: Options, client: "CellClient | None") -> Result:
    """Run a program on Dask workers, one for each engine that it would get.

    Raises:
        FlowletError: Dask is not installed, a task failed, or a worker was lost.
        NotInTime: It was not done in time.
    """
    try:
        import distributed
    except ImportError:
        raise FlowletError(
            "the package distributed is not installed", hint="pip install 'flowos[dask]'"
        ) from None
    began = time.monotonic()
    offer = offer_of(found(client))
    there = assigned(
        graph, offer.engines, offer.free, limits=options.engines, degree_max=offer.degree_max
    )
    count = max(1, len(there.kinds()))
    address = os.environ.get(SCHEDULER)
    cluster = None if address else _cluster(count)
    engines = _engines(there, offer.engines)
    try:
        with distributed.Client(address or cluster, timeout=30) as dask:  # type: ignore[no-untyped-call]
            homes = sorted(dask.scheduler_info(n_workers=-1)["workers"])[:count]
            if len(homes) < count:
                raise FlowletError(f"Dask has {len(homes)} workers, the program wants {count}")
            futures = _submitted(dask, graph, there, homes, engines)
            ends = sorted({number for number, _ in wanted(graph)})
            until = began + (options.timeout_seconds or float("inf"))
            _wait(dask, [futures[n] for n in ends], homes, engines, until)
            made = {n: dask.gather(future) for n, future in futures.items() if n in ends}
            times = dask.gather([dask.submit(_times, f) for f in futures.values()])
    except Failed as why:
        number, kind, message, trace = why.args
        raise _error(graph, there, engines, number, kind, message, trace) from None
    except TimeoutError:
        raise NotInTime(f"the program was not done in {options.timeout_seconds:g} s") from None
    finally:
        if cluster is not None:
            cluster.close()
    ran = {
        graph.tasks[n].name: Ran(engines.get(there.ranks[n], ""), at - began, took)
        for n, (at, took) in zip(futures, times, strict=True)
    }
    return _result(graph, there, engines, made, ran, began)


def _wait(
    dask: Any, ends: Sequence[Any], homes: Sequence[str], engines: Mapping[int, str], until: float
) -> None:
    """Wait until all ends are there; a task whose worker is lost would be waited for for ever.

    Raises:
        FlowletError: A worker was lost.
        TimeoutError: They were not there in time.
    """
    from distributed import wait

    while True:
        left = until - time.monotonic()
        try:
            wait(ends, timeout=max(0.0, min(LOOK_SECONDS, left)))  # type: ignore[no-untyped-call]
        except (TimeoutError, CancelledError) as why:
            there = dask.scheduler_info(n_workers=-1)["workers"]
            lost = [engines.get(rank, "") for rank, home in enumerate(homes) if home not in there]
            if lost or isinstance(why, CancelledError):
                raise FlowletError(
                    f"the Dask worker of {', '.join(lost) or 'an engine'} was lost",
                    hint="a task that ends its process, or is killed for its memory, does that; on a "
                    "slice it would run again",
                ) from None
            if left <= LOOK_SECONDS:
                raise
        else:
            return


def _cluster(count: int) -> Any:
    """Start Dask workers on this machine.

    They are spawned, and would run the user's program, as its main module, if they saw that.
    """
    from distributed import LocalCluster

    before, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
    try:
        return LocalCluster(  # type: ignore[no-untyped-call]
            n_workers=count,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            silence_logs=40,
            memory_limit=0,
        )
    finally:
        sys.modules["__main__"] = before


def _devices(engines: Mapping[int, str]) -> dict[int, tuple[tuple[int, ...], dict[str, str]]]:
    """Return rank -> the cores and the environment of its engine, where that is of this machine."""
    known = {device.engine: device for device in this_machine(cache_folder()).devices}
    found: dict[int, tuple[tuple[int, ...], dict[str, str]]] = {}
    for rank, engine in engines.items():
        device = known.get(engine)
        if device is not None:
            found[rank] = device.cores, variables(device)
    return found


def _submitted(
    dask: Any, graph: Graph, there: Assignment, homes: Sequence[str], engines: Mapping[int, str]
) -> dict[int, Any]:
    """Give all tasks to Dask, each to the worker of its engine."""
    tasks, codes = shipped(graph)
    spread = {code: dask.scatter(data, broadcast=True) for code, data in codes.items()}
    run = next(_runs)
    devices = _devices(engines)
    futures: dict[int, Any] = {}
    for number, task in enumerate(graph.tasks):
        if isinstance(task, Sink | Source):
            continue
        inputs: list[Any] = []
        ports: list[int] = []
        for source, port in graph.inputs[number]:
            before = graph.tasks[source]
            inputs.append(before.data if isinstance(before, Source) else futures[source])
            ports.append(-1 if isinstance(before, Source) else port)
        mine = tasks[number]
        at = devices.get(there.ranks[number], ((), {}))
        what = (number, mine.code, mine.fields, there.methods[number], task.output_ports, *at)
        futures[number] = dask.submit(
            _run, what, ports, {code: spread[code] for code in (mine.code, *mine.functions)},
            *inputs, workers=[homes[there.ranks[number]]], allow_other_workers=False, pure=False,
            key=f"{task.name}-{run}",
        )  # fmt: skip
    return futures


def _run(
    what: tuple[int, str, bytes, str, int, tuple[int, ...], dict[str, str]],
    ports: list[int],
    codes: dict[str, bytes],
    *inputs: Any,
) -> tuple[tuple[Any, ...], float, float]:
    """Run a task; returns its outputs, the monotonic second it began at, and what it took."""
    number, code, fields, method, count, cores, environment = what
    os.environ.update(environment)
    if cores:
        os.sched_setaffinity(0, cores)
    began = time.monotonic()
    try:
        task = loaded(loaded_code(codes[code]), fields, lambda name: loaded_code(codes[name]))
        given = [
            value if port < 0 else value[0][port] for port, value in zip(ports, inputs, strict=True)
        ]
        made: Sequence[Any]
        if isinstance(task, StreamTask):
            made = _streamed(getattr(task, method)(*(iter((value,)) for value in given)), count)
        else:
            made = outputs_of(getattr(task, method)(*given), count)
        for output in made:
            taken_apart(output)  # it is sent as it is, but must be what a port carries
    except TaskFailed as why:
        raise Failed(number, why.kind, why.message, why.trace) from None
    except NotData as why:
        raise Failed(number, "outputs", str(why), "") from None
    except MemoryError as error:
        raise Failed(
            number, "memory", "it wants more memory than there is", users_part(error)
        ) from None
    except BaseException as error:  # noqa: BLE001  # a task must not end its worker by SystemExit
        raise Failed(number, "raised", repr(error), users_part(error)) from None
    return tuple(made), began, time.monotonic() - began


def _streamed(chunks: Iterator[Any], count: int) -> list[Any]:
    found: list[list[Any]] = [[] for _ in range(count)]
    for chunk in chunks:
        some = (chunk,) if count == 1 else outputs_of(chunk, count)
        for port, one in enumerate(some):
            if one is not None:
                found[port].append(one)
    return [joined(some) for some in found]


def _times(ran: tuple[Any, float, float]) -> tuple[float, float]:
    return ran[1], ran[2]


def _engines(there: Assignment, engines: Sequence[Engine]) -> dict[int, str]:
    """Return rank -> an engine that its role can have; Dask holds none of them."""
    left = list(engines)
    found: dict[int, str] = {}
    for role in there.roles:
        for _ in range(role.count):
            engine = next(engine for engine in left if suits(engine, role.need))
            left.remove(engine)
            found[len(found)] = engine.id
    return found


def _error(
    graph: Graph,
    there: Assignment,
    engines: dict[int, str],
    number: int,
    kind: str,
    message: str,
    trace: str,
) -> TaskError:
    task = graph.tasks[number]
    return TaskError(
        f"{task.name} failed on Dask: {message}", task=task.name, kind=kind,
        where=str(task.made_at), engine=engines.get(there.ranks[number], ""), trace=trace,
    )  # fmt: skip


def _result(
    graph: Graph,
    there: Assignment,
    engines: dict[int, str],
    made: dict[int, Any],
    ran: dict[str, Ran],
    began: float,
) -> Result:
    def value(number: int, port: int) -> Any:
        task = graph.tasks[number]
        return task.data if isinstance(task, Source) else made[number][0][port]

    for number, task in enumerate(graph.tasks):
        if isinstance(task, Sink):
            task.run(value(*graph.inputs[number][0]))
    values: dict[str, Any] = {}
    for number in graph.ends:
        task = graph.tasks[number]
        if task.output_ports:
            outputs = tuple(value(number, port) for port in range(task.output_ports))
            values[task.name] = outputs[0] if len(outputs) == 1 else outputs
    wires = {(there.ranks[output[0]], rank) for output, rank in there.deliveries}
    return Result(
        values,
        ran,
        engines,
        tuple(sorted((engines[a], engines[b]) for a, b in wires)),
        there.wave_count,
        time.monotonic() - began,
        "",
        graph,
        there,
    )
