"""How does a program get a slice, and run on it? A slice whose command is the worker, one or many times."""

import contextlib
import os
import secrets
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from flowos.flowlet.cell import Offer, found, offer_of
from flowos.flowlet.coordinating.coordinator import GaveUp, Wires
from flowos.flowlet.coordinating.workers import LOOK_SECONDS, Came, Workers
from flowos.flowlet.errors import FlowletError, TaskError
from flowos.flowlet.graph import Graph
from flowos.flowlet.in_network import Tree, split
from flowos.flowlet.library import Sink, Source
from flowos.flowlet.needs import Need
from flowos.flowlet.planned import Assignment, Role, assigned
from flowos.flowlet.wire.values import taken_apart
from flowos.flowlet.work import shipped, work_of
from flowos.model.errors import FlowosError, NotInTime, StoreError, UnknownName
from flowos.model.life import phase_in
from flowos.model.slice import (
    CircuitWish,
    Data,
    EngineChoice,
    EngineRole,
    Phase,
    Run,
    Shape,
    SliceSpec,
)
from flowos.model.view import CellView
from flowos.planning.reshape import lacks_circuits
from flowos.runtime.client import CellClient
from flowos.runtime.updating import Update

WIRE_SECONDS: Final = 60.0  # for circuits to be laid anew
WORKER: Final = ("python", "-m", "flowos.flowlet.worker")
END_SECONDS: Final = 10.0  # for a slice to be clean again


@dataclass(frozen=True, slots=True)
class Options:
    """How a program is to be run.

    Attributes:
        engines: Engine kind -> how many at most.
        tenant: Whose slice it is.
        policy: Which scheduler serves it; "" = as the cell's rules say.
        priority: Of the slice.
        timeout_seconds: For all of it, waiting for engines included; 0 = for ever.
        task_seconds: For each task; 0 = for ever.
        name: Of the slice; "" = one that nobody has.
        address: How workers elsewhere reach this machine; "" = as it calls itself.
        in_network: Whether sums may be made where streams meet, in switches: their order is not the
            program's then.
        progress: Told of how many tasks how many have ended.
        waiting: Told why the slice waits.
    """

    engines: Mapping[str, int] = field(default_factory=dict)
    tenant: str = "default"
    policy: str = ""
    priority: int = 0
    timeout_seconds: float = 0.0
    task_seconds: float = 0.0
    name: str = ""
    address: str = ""
    in_network: bool = True
    progress: Callable[[int, int], None] = lambda _done, _all: None
    waiting: Callable[[str], None] = lambda _why: None


@dataclass(frozen=True, slots=True)
class Ran:
    """Where and when a task ran: its engine, seconds since the program began, seconds it took."""

    engine: str
    began: float
    took: float


@dataclass(frozen=True)
class Result:
    """What came of a program.

    Attributes:
        values: Task name -> its outputs, for the ends that are no sinks.
        tasks: Task name -> where and when it ran.
        engines: Rank -> engine.
        circuits: (from, to) engines, as they were asked for.
        waves: How often circuits were laid.
        seconds: From `execute` on.
        slice: The slice it ran on.
        graph: The program.
        assignment: Who did what.
    """

    values: Mapping[str, Any]
    tasks: Mapping[str, Ran]
    engines: Mapping[int, str]
    circuits: tuple[tuple[str, str], ...]
    waves: int
    seconds: float
    slice: str
    graph: Graph = field(repr=False)
    assignment: Assignment = field(repr=False)


class Slice:
    """A slice of workers: for one program, or kept for many.

    Example:
        with held(engines={"cpu": 4}) as warm:
            sink.execute(on=warm)
    """

    def __init__(
        self,
        client: CellClient,
        roles: Sequence[Role],
        wires: Wires,
        options: Options,
        offer: Offer,
        trees: Sequence[Tree] = (),
        data: Sequence[Data] = (),
    ) -> None:
        """Ask for it; nothing is waited for.

        Raises:
            FlowosError: It cannot be had.
        """
        self._client = client
        self.roles = tuple(roles)
        self._options = options
        self.offer = offer
        self._laid = _pairs(wires)
        self.workers = Workers(elsewhere=offer.elsewhere, address=options.address)
        self._trees = tuple(trees)
        self._engine_count = sum(role.count for role in roles)
        self._count = self._engine_count + len(trees)
        name = options.name or f"flowlet-{secrets.token_hex(4)}"
        self._spec = SliceSpec(
            name=name,
            tenant=options.tenant,
            policy=options.policy,
            priority=options.priority,
            engines={role.name: EngineRole((_choice(role),)) for role in roles},
            circuits=wishes(roles, wires, trees),
            data=tuple(data),
            run=Run(command=WORKER, env=self._environment(), reduces=bool(trees), tolerant=True),
        )
        self.id = self._spec.id
        self._clock = time.monotonic
        self._ended = False
        try:
            client.submit([self._spec])
        except BaseException:
            self.workers.close()
            raise

    def __enter__(self) -> Self:
        """Wait until its workers are there."""
        self.await_workers()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """Give it back."""
        self.close(failed=kind is not None)

    def await_workers(self) -> None:
        """Wait until its workers are there.

        Raises:
            FlowletError: They will not be.
            NotInTime: They are not there in time.
        """
        seconds = self._options.timeout_seconds
        until = time.monotonic() + seconds if seconds else None

        try:
            with _Lookout(self._how_it_is) as lookout:

                def look() -> str:
                    if until is not None and time.monotonic() > until:
                        raise NotInTime(
                            f"slice {self.id} has no engines after {seconds:g} s{self._waits(': ')}"
                        )
                    return lookout.last()

                if why := self.workers.await_all(self._count, look):
                    raise FlowletError(why)
        except BaseException:
            self.close(failed=True)
            raise

    def run(self, graph: Graph, assignment: Assignment, code: Any, began: float) -> Result:
        """Run a program on it.

        Raises:
            FlowletError: A task of it failed, or it was not done in time.
        """
        options = self._options
        work = work_of(
            graph,
            assignment,
            *code,
            number=self.workers.next_job(),
            limit_seconds=options.task_seconds,
        )
        deadline = began + options.timeout_seconds if options.timeout_seconds else None
        with _Lookout(self._how_it_is) as lookout:
            came = self.workers.run(
                work,
                wire=self._wire,
                look=lookout.last,
                progress=options.progress,
                deadline=deadline,
            )
        if came.gave_up is not None:
            raise self._error(graph, assignment, came.gave_up)
        return self._result(graph, assignment, came, began)

    def close(self, *, failed: bool = False) -> None:
        """Send the workers home, and see the slice end; one that failed is cancelled."""
        if self._ended:
            return
        self._ended = True
        if failed:
            with contextlib.suppress(FlowosError):
                self._client.cancel(self.id)
        self.workers.close()
        with contextlib.suppress(NotInTime, UnknownName, StoreError):
            self._client.wait(self.id, "done", timeout_seconds=END_SECONDS)

    # -- its own

    def _environment(self) -> dict[str, str]:
        return self.workers.environment() | {"PYTHONPATH": os.pathsep.join(_program_path())}

    def _how_it_is(self) -> str:
        """Return why nothing will come of it any more; "" = nothing speaks against it.

        A store that is away is no reason: what runs goes on.
        """
        families = ("slice/", "reason/", *(("placement/",) if self._trees else ()))
        try:
            view = self._client.view([family + self.id for family in families])
        except StoreError:
            return ""
        placed = view.placements.get(self.id)
        if placed is not None and self._trees and len(self.workers.present) < self._count:
            added = sum(1 for circuit in placed.value.circuits if circuit.aggregators)
            if added < len(self._trees):
                raise _NoReducer("there is no aggregator for what was to be added on its way")
        entry = view.slices.get(self.id)
        if entry is None:
            return f"slice {self.id} is gone"
        end = entry.value.end
        if end is not None:
            said = f": {end.message}" if end.message else ""
            code = f" with exit code {end.exit_code}" if end.exit_code is not None else ""
            return f"slice {self.id} has ended as {end.phase}{code}{said}"
        waiting = view.reasons.get(self.id)
        if waiting is not None and len(self.workers.present) < self._count:
            self._options.waiting(waiting.value.sentence)
        return ""

    def _waits(self, before: str) -> str:
        with contextlib.suppress(StoreError):
            waiting = self._client.view(["reason/" + self.id]).reasons.get(self.id)
            if waiting is not None:
                return before + waiting.value.sentence
        return ""

    def _wire(self, wires: Wires) -> None:
        """See to it that these circuits are up."""
        wires = _without(wires, self._engine_count)
        if _pairs(wires) <= self._laid:
            return
        update = Update(circuits=wishes(self.roles, wires, self._trees))
        if self._client.update([self.id], update):
            return  # it has ended: the next look says so
        seconds = self._options.timeout_seconds or WIRE_SECONDS
        until = self._clock() + seconds
        families = [f"{family}/{self.id}" for family in ("slice", "placement")]
        view = None
        for view in self._client.follow([*families, "order/", "report/"], deadline=until):
            if self._is_wired(view):
                self._laid = _pairs(wires)
                return
        raise NotInTime(
            f"the circuits of slice {self.id} were not laid anew in {seconds:g} s{self._waits(': ')}"
        )

    def _is_wired(self, view: CellView) -> bool:
        """Whether all circuits that it asks for are up; also where it has ended, for that is told."""
        entry, placed = view.slices.get(self.id), view.placements.get(self.id)
        if entry is None or entry.value.end is not None:
            return True
        if placed is None or lacks_circuits(entry.value.spec, placed.value):
            return False
        return phase_in(view, self.id) is Phase.RUNNING

    def _engine(self, rank: int) -> str:
        ready = self.workers.present.get(rank)
        return ready.engine if ready is not None else ""

    def _error(self, graph: Graph, assignment: Assignment, why: GaveUp) -> FlowletError:
        if why.task < 0:
            return FlowletError(why.message)
        task = graph.tasks[why.task]
        engine = self._engine(assignment.ranks[why.task])
        at = f" on {engine}" if engine else ""
        hint = {
            "memory": "see @on(..., memory=...), or give it less at a time",
            "killed": "a signal 9 is most often the kernel's, for memory; 11 is a crash in native "
            "code",
            "hung": "its time is task_timeout=",
        }.get(why.kind, "")
        return TaskError(
            f"{task.name} failed{at}: {why.message}",
            task=task.name,
            kind=why.kind,
            where=str(task.made_at),
            engine=engine,
            trace=why.traceback,
            hint=hint,
        )

    def _result(self, graph: Graph, assignment: Assignment, came: Came, began: float) -> Result:
        values: dict[str, Any] = {}
        for number, task in enumerate(graph.tasks):
            if isinstance(task, Sink):
                task.run(_value(graph, came, graph.inputs[number][0]))
        for number in graph.ends:
            task = graph.tasks[number]
            if task.output_ports:
                outputs = tuple(
                    _value(graph, came, (number, port)) for port in range(task.output_ports)
                )
                values[task.name] = outputs[0] if len(outputs) == 1 else outputs
        engines = {rank: self._engine(rank) for rank in assignment.kinds()}
        wires = {(assignment.ranks[o[0]], rank) for o, rank in assignment.deliveries}
        return Result(
            values,
            {
                graph.tasks[n].name: Ran(engines.get(rank, ""), at - began, took)
                for n, (rank, at, took) in sorted(came.timings.items())
            },
            engines,
            tuple(sorted((engines[a], engines[b]) for a, b in wires)),
            assignment.wave_count,
            time.monotonic() - began,
            self.id,
            graph,
            assignment,
        )


class _Lookout:
    """Sees how a slice is, on a thread of its own: a store that is away must keep nobody waiting."""

    def __init__(self, ask: Callable[[], str]) -> None:
        self._ask = ask
        self._last = ""
        self._error: FlowletError | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="lookout", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def last(self) -> str:
        """Return what was seen last.

        Raises:
            FlowletError: What was seen cannot be gone on with.
        """
        if self._error is not None:
            raise self._error
        return self._last

    def _look(self) -> None:
        while not self._over.is_set():
            try:
                self._last = self._ask()
            except FlowletError as error:
                self._error = error
                return
            self._over.wait(LOOK_SECONDS)


class _NoReducer(FlowletError):
    """Streams do not meet in a switch that adds them: then engines do."""


def held(*, engines: Mapping[str, int], client: CellClient | None = None, **options: Any) -> Slice:
    """Take a slice for many programs, with circuits from each engine to each.

    Args:
        engines: Engine kind -> how many.
        client: The cell; None = as for `execute`.
        options: As of `Options`.

    Raises:
        FlowletError: It cannot be had.
    """
    cell = found(client)
    roles = [Role(kind, Need(kind), count) for kind, count in engines.items()]
    count = sum(role.count for role in roles)
    everybody = frozenset((a, (b,)) for a in range(count) for b in range(count) if a != b)
    return Slice(cell, roles, everybody, Options(**options), offer_of(cell))


def run_once(graph: Graph, options: Options, client: CellClient | None) -> Result:
    """Take a slice for one program, run it, and give the slice back.

    Raises:
        FlowletError: It cannot run, or a task of it failed.
    """
    began = time.monotonic()
    code = shipped(graph)
    cell = found(client)
    offer = offer_of(cell)
    assignment = assigned(
        graph, offer.engines, offer.free, limits=options.engines, degree_max=offer.degree_max
    )
    if not assignment.roles:
        return _without_engines(graph, assignment, began)
    whole = graph
    if options.in_network:
        graph, assignment, trees = split(graph, assignment, offer.aggregators)
        code = shipped(graph) if trees else code
    else:
        trees = ()
    wires = assignment.wires(0)
    data = data_of(graph, assignment, offer)
    try:
        with Slice(cell, assignment.roles, wires, options, offer, trees, data) as there:
            return there.run(graph, assignment, code, began)
    except _NoReducer:
        return run_once(whole, replace(options, in_network=False), client)


def data_of(graph: Graph, assignment: Assignment, offer: Offer) -> list[Data]:
    """Return where the data of sources lies: the planner weighs running near it.

    Circuits that are laid anew between waves do not go with that, so it is left out then.

    Raises:
        FlowletError: The cell has no such place.
    """
    kinds = assignment.kinds()
    sizes: dict[tuple[str, str], int] = {}
    for number, task in enumerate(graph.tasks):
        if not isinstance(task, Source) or not task.at:
            continue
        if task.at not in offer.places:
            raise FlowletError(
                f"the cell has no node or engine '{task.at}', where {task.name} has its data",
                where=str(task.made_at),
                hint="'flowos engine ls' names all",
            )
        role = kinds.get(assignment.ranks[number])
        if role is not None:
            key = task.at.partition("/")[0], role
            sizes[key] = sizes.get(key, 0) + taken_apart(task.data)[1].nbytes
    if assignment.wave_count > 1:
        return []
    return [Data(at=node, bytes=max(1, size), to=role) for (node, role), size in sizes.items()]


def run_on(there: Slice, graph: Graph) -> Result:
    """Run a program on a slice that is held.

    Raises:
        FlowletError: It cannot run there, or a task of it failed.
    """
    began = time.monotonic()
    code = shipped(graph)
    assignment = assigned(graph, there.offer.engines, fixed=there.roles)
    return there.run(graph, assignment, code, began)


def wishes(
    roles: Sequence[Role], wires: Wires, sums: Sequence[Tree] = ()
) -> tuple[CircuitWish, ...]:
    """Return what a slice has to ask for, so that these ranks can send to those.

    What one rank sends to several of them alike is one tree; what several send to one, to be added
    on the way, is one, too.
    """
    names = tuple(role.name for role in roles)
    wires = _without(wires, sum(role.count for role in roles))
    pairs = {(a, targets[0]) for a, targets in wires if len(targets) == 1}
    trees = [(a, targets) for a, targets in sorted(wires) if len(targets) > 1]
    found = [CircuitWish(Shape.EXPLICIT, names, links=tuple(sorted(pairs)))] if pairs else []
    for source, targets in trees:
        links = tuple((source, target) for target in targets)
        found.append(CircuitWish(Shape.EXPLICIT, names, links=links, multicast=True))
    for tree in sums:
        links = tuple((source, tree.target) for source in tree.sources)
        found.append(CircuitWish(Shape.EXPLICIT, names, links=links, aggregate=tree.function))
    return tuple(found)


def _without(wires: Wires, engines: int) -> Wires:
    """Return what goes between engines: what is added on its way has trees of its own."""
    between = ((a, tuple(to for to in targets if to < engines)) for a, targets in wires)
    return frozenset((a, targets) for a, targets in between if a < engines and targets)


def _pairs(wires: Wires) -> set[tuple[int, int]]:
    return {(a, b) for a, targets in wires for b in targets}


def _choice(role: Role) -> EngineChoice:
    need = role.need
    where = {"memory": f">={need.memory_bytes}"} if need.memory_bytes else {}
    return EngineChoice(
        kind=need.kind,
        models=need.models,
        count=role.count,
        where=where,
        bitstream=need.bitstream,
    )


def _value(graph: Graph, came: Came, output: tuple[int, int]) -> Any:
    task = graph.tasks[output[0]]
    return task.data if isinstance(task, Source) else came.results[output]


def _without_engines(graph: Graph, assignment: Assignment, began: float) -> Result:
    """Take what sources give straight to sinks: there is nothing to compute."""
    for number, task in enumerate(graph.tasks):
        if isinstance(task, Sink):
            task.run(_value(graph, Came(), graph.inputs[number][0]))
    values = {
        graph.tasks[n].name: graph.tasks[n].run()
        for n in graph.ends
        if isinstance(graph.tasks[n], Source)
    }
    return Result(values, {}, {}, (), 0, time.monotonic() - began, "", graph, assignment)


def _program_path() -> list[str]:
    """Return where the user's program looks for modules, beside what is installed."""
    installed = {Path(path).resolve() for path in sysconfig.get_paths().values()}
    found: dict[str, None] = {}
    for entry in sys.path:
        path = Path(entry or ".").resolve()
        if path in installed or "site-packages" in path.parts or not path.is_dir():
            continue
        found[str(path)] = None
    return list(found)
