"""How is a Spark cluster, or a parameter server with its workers, asked for as one slice?

    from dataclasses import replace
    from flowos import connect
    from flowos.requests import spark

    spec = spark("etl", executors=8, cores=4, memory="16GiB", least=2)
    with connect() as cell:
        cell.submit([replace(spec, tenant="vision", run=Run(command=("spark-shell",)))])

What these say of engines, hosts and circuits is all that they do: the rest is the caller's, with
`dataclasses.replace`. The same is written as files in `examples/slices`.
"""

from collections.abc import Callable, Mapping

from flowos.documents.quantities import bytes_of, cpu_millis_of
from flowos.model.errors import SpecError
from flowos.model.slice import (
    CircuitWish,
    EngineChoice,
    EngineRole,
    HostRole,
    Mode,
    Shape,
    SliceSpec,
)


def spark(
    name: str,
    *,
    executors: int,
    cores: float | str = 1,
    memory: int | str = "1GiB",
    driver_cores: float | str = 1,
    driver_memory: int | str = "1GiB",
    kind: str = "",
    models: tuple[str, ...] = (),
    engines: int = 1,
    least: int = 0,
    lanes: int = 0,
) -> SliceSpec:
    """Return a slice with a driver and its executors.

    Without `kind` executors are CPU and memory alone, each on a node of its own. With it each has
    engines, and several may be on one node.

    Args:
        name: The slice's.
        executors: How many.
        cores: CPU of each executor: 4, 0.5 or "500m".
        memory: Of each: bytes, or "16GiB".
        driver_cores: The same of the driver.
        driver_memory: The same of the driver.
        kind: The kind of engine that executors compute on; "" = none.
        models: Allowed models; empty = any.
        engines: How many each executor has, where there is a kind.
        least: With how many executors the work can begin, and the rest join when there is room;
            0 = all at once. Needs a kind: hosts alone are had at once or not at all.
        lanes: Width of a circuit from each executor's engines to each other's, for shuffles; the
            driver says little and needs none. 0 = none. Needs a kind.

    Raises:
        SpecError: An amount that cannot be meant; names it and the way out.
    """
    _at_least(name, 1, executors=executors, engines=engines)
    _at_least(name, 0, least=least, lanes=lanes)
    each = HostRole(_cpu(name, "cores", cores), _memory(name, "memory", memory))
    hosts = {
        "driver": HostRole(
            _cpu(name, "driver_cores", driver_cores),
            _memory(name, "driver_memory", driver_memory),
            count=1,
        )
    }
    if not kind:
        if least or lanes:
            what = "least" if least else "lanes"
            hint = 'add kind="gpu", or leave it out'
            raise SpecError(f"{what} is said of executors without engines", where=name, hint=hint)
        role = HostRole(each.cpu_millis, each.memory_bytes, count=executors)
        return SliceSpec(name, hosts={"executors": role, **hosts})
    if least > executors:
        hint = f"write 1 to {executors}"
        raise SpecError(f"least is {least} of {executors} executors", where=name, hint=hint)
    # A role's host is said for each of its engines.
    part = HostRole(-(-each.cpu_millis // engines), -(-each.memory_bytes // engines))
    return SliceSpec(
        name,
        engines={"executors": EngineRole((EngineChoice(kind, models, executors * engines),))},
        hosts={"executors": part, **hosts},
        circuits=(CircuitWish(Shape.ALL, ("executors",), lanes),) if lanes else (),
        least={"executors": least * engines} if least else {},
        commit=Mode.INCREMENTAL if least else "",
    )


def parameter_server(
    name: str,
    *,
    workers: int,
    servers: int = 1,
    kind: str = "gpu",
    models: tuple[str, ...] = (),
    where: Mapping[str, str] | None = None,
    cores: float | str = 0,
    memory: int | str = 0,
    server_kind: str = "fpga",
    server_bitstream: str = "",
    aggregate: str = "sum",
    lanes: int = 1,
) -> SliceSpec:
    """Return a slice of workers that send gradients to servers and get parameters back.

    Each server has a part of the parameters. What workers send to one is computed on the way where
    circuits meet, if a switch can; what it sends back is one tree to all of them if it is the only
    one, else a circuit to each.

    Args:
        name: The slice's.
        workers: How many engines learn.
        servers: How many engines keep the parameters.
        kind: The workers' kind of engine.
        models: Allowed models of them; empty = any.
        where: Conditions on the workers' attributes, as in files: {"memory": ">=24GiB"}.
        cores: CPU beside each worker: 4, 0.5 or "500m".
        memory: Memory beside each: bytes, or "16GiB".
        server_kind: The servers' kind of engine.
        server_bitstream: What servers are loaded with; "" = nothing.
        aggregate: What may be computed of gradients on the way; "" = nothing.
        lanes: How wide each circuit is.

    Raises:
        SpecError: An amount that cannot be meant; names it and the way out.
    """
    _at_least(name, 1, workers=workers, servers=servers, lanes=lanes)
    beside = HostRole(_cpu(name, "cores", cores), _memory(name, "memory", memory))
    return SliceSpec(
        name,
        engines={
            "workers": EngineRole((EngineChoice(kind, models, workers, where=dict(where or {})),)),
            "servers": EngineRole(
                (EngineChoice(server_kind, count=servers, bitstream=server_bitstream),)
            ),
        },
        hosts={"workers": beside} if beside != HostRole() else {},
        circuits=(
            CircuitWish(Shape.FLOW, ("workers", "servers"), lanes, aggregate),
            CircuitWish(Shape.FLOW, ("servers", "workers"), lanes),
        ),
    )


def _at_least(name: str, fewest: int, /, **amounts: int) -> None:
    for what, amount in amounts.items():
        if type(amount) is not int or amount < fewest:
            hint = f"write {fewest} or more"
            raise SpecError(f"{what} is {amount!r:.40}", where=name, hint=hint)


def _cpu(name: str, what: str, written: float | str) -> int:
    return _read(name, what, lambda: cpu_millis_of(written) if written else 0)


def _memory(name: str, what: str, written: int | str) -> int:
    if type(written) is int and written >= 0:
        return written
    return _read(name, what, lambda: bytes_of(written))


def _read(name: str, what: str, read: Callable[[], int]) -> int:
    try:
        return read()
    except SpecError as error:
        raise SpecError(f"{what}: {error.problem}", where=name, hint=error.hint) from None
