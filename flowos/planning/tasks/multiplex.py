"""When does each task of a program run on which engine, where there are more tasks than engines?

In space, if every task can have an engine of its own and nothing is gained by sharing; else in
time, where each change of bitstream costs seconds. Tasks of one bitstream are run one after the
other, in waves: in a wave each engine keeps one bitstream, and circuits are up only in the wave
that sends over them.

An engine's memory and ports outlive a change of bitstream (the shell stays, only the region for
functions is loaded), so what a task produced can be sent while the next bitstream is loaded.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

from flowos.model.errors import SpecError
from flowos.model.placement import Unplaceable
from flowos.model.slice import Reason
from flowos.planning.tasks.turns import Plan, Program, by_rank, improved, inserted, listed

_STICKS: Final = (2.0, 1.0, 0.5)  # loads that another bitstream must be worth, the best first
_TRIES_MAX: Final = 1600  # of 10 tasks: 15 ms, and within 5 % of the optimum
_TRIES_EACH: Final = 100  # fewer are better spent on one start
_TRIED: Final = 500_000  # tries times tasks squared beyond that: 3 ms of 100 tasks

NONE: Final[Mapping[str, float]] = MappingProxyType({})


class Task(NamedTuple):
    """A computation.

    Attributes:
        kind: Which engines can run it.
        seconds: How long it runs.
        bitstream: What has to be loaded; "" = whatever is there may stay.
        by_model: Engine model -> seconds, where that differs.
    """

    name: str
    kind: str
    seconds: float
    bitstream: str = ""
    by_model: Mapping[str, float] = NONE


class Flow(NamedTuple):
    """What a task sends to others when it has ended."""

    source: str
    targets: tuple[str, ...]
    size_bytes: int = 0


class Seat(NamedTuple):
    """An engine that tasks can run on.

    Attributes:
        bitstream: What is loaded; "" = nothing.
        powered: Else it has to be woken first.
        free_in_seconds: When its present holder is done with it; 0 = it is free.
    """

    engine: str
    kind: str
    model: str = ""
    bitstream: str = ""
    powered: bool = True
    free_in_seconds: float = 0.0


class Costs(NamedTuple):
    """What it takes besides running.

    Attributes:
        load_seconds: To load a bitstream.
        loads: Bitstream -> seconds, where that differs.
        wake_seconds: To wake an engine.
        circuit_seconds: To set up a circuit.
        lane_bytes_per_second: What one lane carries; 0 = a flow's size does not matter.
    """

    load_seconds: float = 3.0
    loads: Mapping[str, float] = NONE
    wake_seconds: float = 0.0
    circuit_seconds: float = 0.0
    lane_bytes_per_second: float = 0.0


USUAL: Final = Costs()


class Run(NamedTuple):
    """A task's turn on an engine; seconds since the beginning.

    Attributes:
        loading: When its bitstream begins to be loaded; `start` if that is there already.
    """

    task: str
    engine: str
    wave: int
    loading: float
    start: float
    end: float


class Passage(NamedTuple):
    """A circuit in one wave; several flows between the same engines share it.

    Attributes:
        up: When the first flow begins to be sent, in seconds since the beginning.
        down: When the last has arrived.
    """

    source: str
    targets: tuple[str, ...]
    flows: tuple[int, ...]
    size_bytes: int
    up: float
    down: float


class Wave(NamedTuple):
    """What is up together: each engine has one bitstream. Waves of different engines overlap.

    Attributes:
        bitstreams: Engine -> what it has in this wave; "" = whatever it had before the first.
        loads: The engines for which that has to be loaded.
        start: When its first load or task begins.
        end: When its last task has ended and its last flow arrived.
    """

    tasks: tuple[str, ...]
    bitstreams: Mapping[str, str]
    loads: tuple[str, ...]
    circuits: tuple[Passage, ...]
    start: float
    end: float


class Schedule(NamedTuple):
    """A whole program's turns.

    Attributes:
        runs: In the order of their starts; on each engine in the order of its turns.
        seconds: When the last task has ended.
        bound_seconds: No schedule ends sooner than this.
        in_space: Whether each task has an engine of its own.
    """

    runs: tuple[Run, ...]
    waves: tuple[Wave, ...]
    seconds: float
    bound_seconds: float
    in_space: bool


def multiplex(
    tasks: Sequence[Task],
    flows: Sequence[Flow],
    seats: Sequence[Seat],
    costs: Costs = USUAL,
    *,
    seed: int = 0,
    tries: int | None = None,
) -> Schedule | Unplaceable:
    """Find when each task runs on which engine, so that the last one ends early.

    Args:
        tasks: Names must differ.
        flows: Between them, without cycles.
        seats: The engines to be had, now or later.
        costs: What loading, waking and circuits take.
        seed: Another number tries other changes.
        tries: How many changes to try on what list scheduling found; None = as many as take a
            few milliseconds.

    Returns:
        The better of a schedule in space, where that is possible, and one in time; or why a task
        has no engine.

    Raises:
        SpecError: Names are given twice, or unknown, or the flows make a cycle.

    Source: Topcuoglu et al., "Performance-effective and low-complexity task scheduling for
        heterogeneous computing", TPDS 2002 (HEFT: upward ranks, insertion, earliest finish), with
        the finish counting loads, waking and circuits.
    """
    there = {seat.kind for seat in seats}
    lost = next((task for task in tasks if task.kind not in there), None)
    if lost is not None:
        return Unplaceable(
            Reason.WAITING_FOR_ENGINES,
            f"task {lost.name} runs on a {lost.kind}, and none is free or will be",
        )
    program = numbered(tasks, flows, seats, costs)
    if not tasks:
        return Schedule((), (), 0.0, 0.0, in_space=True)
    bound = _bound(program)
    count = len(tasks)
    if tries is None:
        tries = max(1, min(_TRIES_MAX, _TRIED // (count * count)))
    # Where there are tries enough, what each way of listing finds is improved on its own.
    many = tries >= _TRIES_EACH * (1 + len(_STICKS))
    sticks = _STICKS if many else _STICKS[:1]
    found = filter(None, [inserted(program), *(listed(program, stick) for stick in sticks)])
    starts = sorted(found, key=lambda plan: plan.seconds)[: None if many else 1]
    best = min(
        (
            improved(program, plan, bound, seed + turn, tries // len(starts), alone=False)
            for turn, plan in enumerate(starts)
        ),
        key=lambda plan: plan.seconds,
    )
    apart = listed(program, 1.0, alone=True)
    if apart is not None:
        apart = improved(program, apart, bound, seed, tries // len(starts), alone=True)
    if apart is not None and apart.seconds <= best.seconds:
        best = apart
    return _told(program, best, bound, tasks, flows, seats)


# -- names to numbers


def numbered(
    tasks: Sequence[Task], flows: Sequence[Flow], seats: Sequence[Seat], costs: Costs
) -> Program:
    """Return the same by numbers.

    Raises:
        SpecError: As `multiplex`; also where a task's kind is not among the seats.
    """
    number = {task.name: n for n, task in enumerate(tasks)}
    if len(number) < len(tasks):
        twice = next(task.name for n, task in enumerate(tasks) if number[task.name] != n)
        raise SpecError(f"task {twice} is there twice", hint="give each task a name of its own")
    of_kind: dict[str, tuple[int, ...]] = {}
    for seat_number, seat in enumerate(seats):
        of_kind[seat.kind] = (*of_kind.get(seat.kind, ()), seat_number)
    for task in tasks:
        if task.kind not in of_kind:
            raise SpecError(
                f"task {task.name} has no {task.kind}", hint="offer an engine of its kind"
            )
    bitstreams = {"": 0}
    for name in (*(seat.bitstream for seat in seats), *(task.bitstream for task in tasks)):
        bitstreams.setdefault(name, len(bitstreams))
    inputs = _inputs(number, flows, costs)
    outputs: list[list[tuple[int, float]]] = [[] for _ in tasks]
    for target, sources in enumerate(inputs):
        for source, delay in sources:
            outputs[source].append((target, delay))
    run = [[task.by_model.get(seat.model, task.seconds) for seat in seats] for task in tasks]
    usable = [of_kind[task.kind] for task in tasks]
    load = [0.0, *(costs.loads.get(name, costs.load_seconds) for name in list(bitstreams)[1:])]
    return Program(
        run=run,
        seats=usable,
        bitstream=[bitstreams[task.bitstream] for task in tasks],
        load=load,
        inputs=inputs,
        outputs=outputs,
        free=[
            seat.free_in_seconds + (0.0 if seat.powered else costs.wake_seconds) for seat in seats
        ],
        loaded=[bitstreams[seat.bitstream] for seat in seats],
        ranks=_ranks(tasks, run, usable, outputs),
    )


def _inputs(
    number: Mapping[str, int], flows: Sequence[Flow], costs: Costs
) -> list[list[tuple[int, float]]]:
    slowest: list[dict[int, float]] = [{} for _ in number]
    rate = costs.lane_bytes_per_second
    for flow in flows:
        for name in (flow.source, *flow.targets):
            if name not in number:
                raise SpecError(
                    f"a flow names task {name}, which is not there", hint="name one of the tasks"
                )
        source = number[flow.source]
        delay = costs.circuit_seconds + (flow.size_bytes / rate if rate else 0.0)
        for target in flow.targets:
            known = slowest[number[target]]
            known[source] = max(delay, known.get(source, 0.0))
    return [list(sources.items()) for sources in slowest]


def _ranks(
    tasks: Sequence[Task],
    run: Sequence[Sequence[float]],
    usable: Sequence[Sequence[int]],
    outputs: Sequence[Sequence[tuple[int, float]]],
) -> list[float]:
    """Return the seconds from each task's start to the end of all, on average seats."""
    ranks = [0.0] * len(tasks)
    waiting = [len(targets) for targets in outputs]
    sources: list[list[int]] = [[] for _ in tasks]
    for source, targets in enumerate(outputs):
        for target, _ in targets:
            sources[target].append(source)
    last = [task for task, count in enumerate(waiting) if not count]
    for task in last:
        seats = usable[task]
        after = max((delay + ranks[target] for target, delay in outputs[task]), default=0.0)
        ranks[task] = after + sum(run[task][seat] for seat in seats) / len(seats)
        for source in sources[task]:
            waiting[source] -= 1
            if not waiting[source]:
                last.append(source)
    if len(last) < len(tasks):
        cyclic = next(task.name for n, task in enumerate(tasks) if waiting[n])
        raise SpecError(
            f"task {cyclic} is in, or before, a cycle of flows", hint="a program's flows go one way"
        )
    return ranks


def _bound(program: Program) -> float:
    """Return a time that no schedule beats: the longest chain, and each kind's work over its seats.

    Of each bitstream that no seat has, at least one load counts as work.
    """
    shortest = [
        min(row[seat] for seat in seats)
        for row, seats in zip(program.run, program.seats, strict=True)
    ]
    there = set(program.loaded)
    soonest: list[float] = []
    for seats, wanted in zip(program.seats, program.bitstream, strict=True):
        soonest.append(
            min(
                program.free[seat]
                + (program.load[wanted] if wanted and wanted != program.loaded[seat] else 0.0)
                for seat in seats
            )
        )
    ends = [0.0] * len(shortest)
    for task in by_rank(program):
        begun = max((ends[source] for source, _ in program.inputs[task]), default=0.0)
        ends[task] = max(begun, soonest[task]) + shortest[task]
    bound = max(ends)
    for seats in set(map(tuple, program.seats)):
        members = [task for task, own in enumerate(program.seats) if tuple(own) == seats]
        missing = {program.bitstream[task] for task in members} - there - {0}
        work = sum(shortest[task] for task in members) + sum(program.load[b] for b in missing)
        bound = max(bound, _filled(sorted(program.free[seat] for seat in seats), work))
    return bound


def _filled(free: Sequence[float], work: float) -> float:
    """Return when work is done if seats that become free at these times share it evenly."""
    for seats in range(1, len(free) + 1):
        level = (work + sum(free[:seats])) / seats
        if seats == len(free) or level <= free[seats]:
            return level
    return 0.0


# -- numbers to names


def _told(
    program: Program,
    plan: Plan,
    bound: float,
    tasks: Sequence[Task],
    flows: Sequence[Flow],
    seats: Sequence[Seat],
) -> Schedule:
    free, loaded = list(program.free), list(program.loaded)
    names = {0: ""}
    names.update((program.bitstream[n], task.bitstream) for n, task in enumerate(tasks))
    names.update((program.loaded[n], seat.bitstream) for n, seat in enumerate(seats))
    at_wave: list[int] = [-1] * len(seats)  # seat -> the wave it is in; -1 = not yet used
    waves: dict[int, _Draft] = {}
    runs: dict[str, Run] = {}
    ends = [0.0] * len(tasks)
    of_task = [0] * len(tasks)
    for task in plan.order:
        seat, wanted = plan.seats[task], program.bitstream[task]
        change = bool(wanted) and wanted != loaded[seat]
        start = loading = free[seat]
        if change:
            start += program.load[wanted]
            loaded[seat] = wanted
        wave = max(at_wave[seat] + (change and at_wave[seat] >= 0), 0)
        for source, delay in program.inputs[task]:
            start = max(start, ends[source] + (0.0 if plan.seats[source] == seat else delay))
            wave = max(wave, of_task[source])
        free[seat] = ends[task] = start + program.run[task][seat]
        at_wave[seat] = of_task[task] = wave
        engine, name = seats[seat].engine, tasks[task].name
        runs[name] = Run(name, engine, wave, loading if change else start, start, ends[task])
        draft = waves.setdefault(wave, _Draft([], {}, [], {}))
        draft.tasks.append(name)
        draft.bitstreams[engine] = names[loaded[seat]]
        if change:
            draft.loads.append(engine)
    for number, flow in enumerate(flows):
        source_run = runs[flow.source]
        away = {runs[target].engine for target in flow.targets} - {source_run.engine}
        if away:
            ends_of = (source_run.engine, tuple(sorted(away)))
            waves[source_run.wave].flows.setdefault(ends_of, []).append(number)
    number_of = {task.name: n for n, task in enumerate(tasks)}
    return Schedule(
        runs=tuple(sorted(runs.values(), key=lambda run: run.start)),
        waves=tuple(_wave(program, waves[n], runs, flows, number_of) for n in sorted(waves)),
        seconds=max(ends),
        bound_seconds=min(bound, max(ends)),  # sums in another order differ by a hair
        in_space=len(set(plan.seats)) == len(tasks),
    )


class _Draft(NamedTuple):
    tasks: list[str]
    bitstreams: dict[str, str]
    loads: list[str]
    flows: dict[tuple[str, tuple[str, ...]], list[int]]  # (source, targets) -> flows


def _wave(
    program: Program,
    draft: _Draft,
    runs: Mapping[str, Run],
    flows: Sequence[Flow],
    number_of: Mapping[str, int],
) -> Wave:
    circuits: list[Passage] = []
    for (source, targets), numbers in draft.flows.items():
        arrivals: list[float] = []
        for number in numbers:
            flow = flows[number]
            away = [t for t in flow.targets if runs[t].engine != source]
            delays = dict(program.inputs[number_of[away[0]]])
            arrivals.append(runs[flow.source].end + delays[number_of[flow.source]])
        circuits.append(
            Passage(
                source,
                targets,
                tuple(numbers),
                sum(flows[number].size_bytes for number in numbers),
                min(runs[flows[number].source].end for number in numbers),
                max(arrivals),
            )
        )
    turns = [runs[name] for name in draft.tasks]
    return Wave(
        tasks=tuple(draft.tasks),
        bitstreams=MappingProxyType(draft.bitstreams),
        loads=tuple(draft.loads),
        circuits=tuple(circuits),
        start=min(run.loading for run in turns),
        end=max([run.end for run in turns] + [circuit.down for circuit in circuits]),
    )
