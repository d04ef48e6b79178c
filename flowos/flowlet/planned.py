"""Which engines does a program ask for, which task runs on which of them, and who sends to whom?

Pure: from a graph and what a cell has, to the slice to be asked for, and who does what in it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from flowos.flowlet.errors import FlowletError
from flowos.flowlet.graph import Graph
from flowos.flowlet.library import Sink, Source
from flowos.flowlet.needs import Need, needs_of
from flowos.flowlet.streams import StreamTask
from flowos.flowlet.task import Task
from flowos.flowlet.wire.messages import CLIENT
from flowos.model.cell import Engine
from flowos.model.placement import Unplaceable
from flowos.planning.tasks import multiplex as tasks

REDUCER: Final = "reducer"
SECONDS_DEFAULT: Final = 1.0  # of a task that does not say
MULTIPLEX_MAX: Final = 300  # tasks; beyond that they are dealt out by depth and neighbours


@dataclass(frozen=True, slots=True)
class Role:
    """Like engines of the slice.

    Attributes:
        name: Of the role.
        need: What they must be.
        count: How many.
    """

    name: str
    need: Need
    count: int


@dataclass(frozen=True, slots=True)
class Assignment:
    """Who does what.

    Attributes:
        roles: In rank order.
        ranks: Task -> rank; CLIENT = the user's process.
        methods: Task -> its implementation.
        waves: Task -> when.
        deliveries: (output, rank) -> the wave in which it is sent there.
        reducers: How many ranks come after those of engines, for what is added in switches.
    """

    roles: tuple[Role, ...]
    ranks: tuple[int, ...]
    methods: tuple[str, ...]
    waves: tuple[int, ...]
    deliveries: Mapping[tuple[tuple[int, int], int], int]
    reducers: int = 0

    @property
    def wave_count(self) -> int:
        """How often circuits are laid."""
        return max((*self.waves, *self.deliveries.values()), default=0) + 1

    def wires(self, wave: int) -> frozenset[tuple[int, tuple[int, ...]]]:
        """Return who sends something to whom in a wave: a tree where it goes to several."""
        targets: dict[tuple[int, int], set[int]] = {}
        for (output, rank), at in self.deliveries.items():
            if at == wave:
                targets.setdefault(output, set()).add(rank)
        return frozenset(
            (self.ranks[output[0]], tuple(sorted(ranks))) for output, ranks in targets.items()
        )

    def kinds(self) -> dict[int, str]:
        """Return rank -> role."""
        names = [role.name for role in self.roles for _ in range(role.count)]
        return dict(enumerate(names + [REDUCER] * self.reducers))


def assigned(
    graph: Graph,
    engines: Sequence[Engine],
    free: int | None = None,
    *,
    limits: Mapping[str, int] | None = None,
    degree_max: int = 0,
    fixed: Sequence[Role] = (),
) -> Assignment:
    """Choose implementations, engines and places for a program's tasks.

    Args:
        graph: The program.
        engines: Those that it may get, the free ones first.
        free: How many of them are free now; None = all.
        limits: Engine kind -> how many of it at most.
        degree_max: How many circuits may begin, or end, at one engine at a time; 0 = any number.
        fixed: The roles of a slice that is there already; empty = none is.

    Raises:
        FlowletError: No engine of this cell can run a task.
    """
    chosen = _chosen(graph, engines, fixed)
    roles, role_of = _roles(graph, chosen, engines, free, limits or {}, fixed)
    running = [number for number, role in enumerate(role_of) if role >= 0]
    ranks = _placed(_Asked(graph, chosen, roles, role_of, _firsts(roles), running))
    waves, deliveries = _waves(graph, ranks, degree_max)
    methods = tuple(need.method if need is not None else "" for need in chosen)
    return Assignment(roles, tuple(ranks), methods, waves, deliveries)


def runs(task: Task) -> bool:
    """Whether a task runs on an engine; sources and sinks are the user's process's affair."""
    return not isinstance(task, Source | Sink)


def is_stream(graph: Graph, source: int, reader: int) -> bool:
    """Whether a flow is one of chunks: both its ends are streams."""
    tasks = graph.tasks
    return isinstance(tasks[source], StreamTask) and isinstance(tasks[reader], StreamTask)


def suits(engine: Engine, need: Need) -> bool:
    """Whether an engine is what an implementation needs."""
    return (
        engine.kind == need.kind
        and (not need.models or engine.model in need.models)
        and engine.memory_bytes >= need.memory_bytes
    )


# -- which implementation


def _chosen(graph: Graph, engines: Sequence[Engine], fixed: Sequence[Role]) -> list[Need | None]:
    kinds: dict[type, Need] = {}
    found: list[Need | None] = []
    for task in graph.tasks:
        if not runs(task):
            found.append(None)
            continue
        kind = type(task)
        if kind not in kinds:
            kinds[kind] = _best(task, engines, fixed)
        found.append(kinds[kind])
    return found


def _best(task: Task, engines: Sequence[Engine], fixed: Sequence[Role]) -> Need:
    needs = needs_of(type(task))
    if fixed:
        there = [n for n in needs if any(_serves(role, n) for role in fixed)]
        have = ", ".join(f"{role.count} of {role.need.kind}" for role in fixed)
    else:
        there = [n for n in needs if any(suits(e, n) for e in engines)]
        have = ", ".join(sorted({e.kind for e in engines})) or "none at all"
    if not there:
        wanted = " or ".join(_told(need) for need in needs)
        raise FlowletError(
            f"{task.name} runs on {wanted}, and there is no such engine",
            where=str(task.made_at),
            hint=f"the engines here: {have}",
        )
    if all(need.seconds for need in there):
        return min(there, key=lambda need: need.seconds)
    return there[0]


def _serves(role: Role, need: Need) -> bool:
    """Whether a role's engines are all what an implementation needs."""
    have = role.need
    return (
        have.kind == need.kind
        and (not need.models or (bool(have.models) and {*have.models} <= {*need.models}))
        and have.memory_bytes >= need.memory_bytes
        and (not need.bitstream or have.bitstream == need.bitstream)
    )


def _told(need: Need) -> str:
    words = [need.kind, *(["(" + " or ".join(need.models) + ")"] if need.models else [])]
    if need.memory_bytes:
        words.append(f"with {need.memory_bytes / 2**30:g} GiB")
    return " ".join(words)


# -- how many engines of what


def _roles(
    graph: Graph,
    chosen: Sequence[Need | None],
    engines: Sequence[Engine],
    free: int | None,
    limits: Mapping[str, int],
    fixed: Sequence[Role],
) -> tuple[tuple[Role, ...], list[int]]:
    """Return the roles, and for each task the index of its own; -1 = none."""
    if fixed:
        return tuple(fixed), [
            -1 if need is None else next(i for i, r in enumerate(fixed) if _serves(r, need))
            for need in chosen
        ]
    groups: dict[tuple[str, tuple[str, ...], int, str], int] = {}
    role_of: list[int] = []
    for need in chosen:
        if need is None:
            role_of.append(-1)
            continue
        key = (need.kind, need.models, need.memory_bytes, need.bitstream)
        role_of.append(groups.setdefault(key, len(groups)))
    if not groups:  # data goes straight from sources to sinks
        return (), role_of
    width = _widths(graph, role_of, len(groups))
    taken: dict[str, int] = {}
    roles: list[Role] = []
    for index, (kind, models, memory_bytes, bitstream) in enumerate(groups):
        need = Need(kind, models, memory_bytes, bitstream)
        suitable = sum(suits(e, need) for e in engines)
        now = sum(suits(e, need) for e in engines[: len(engines) if free is None else free])
        most = min(width[index], suitable, limits.get(kind, suitable))
        others = sum(1 for other in list(groups)[index + 1 :] if other[0] == kind)
        left = suitable - taken.get(kind, 0) - others
        count = max(1, min(most, max(now, 1), left))
        taken[kind] = taken.get(kind, 0) + count
        same = sum(1 for other in list(groups)[:index] if other[0] == kind)
        roles.append(Role(kind if not same else f"{kind}-{same + 1}", need, count))
    return tuple(roles), role_of


def _widths(graph: Graph, role_of: Sequence[int], count: int) -> list[int]:
    """Return for each role how many of its tasks may run at the same time, counted by depth."""
    depth = [0] * len(role_of)
    at: dict[tuple[int, int], int] = {}
    for number, inputs in enumerate(graph.inputs):
        depth[number] = max(
            (depth[n] + (role_of[n] >= 0 and not is_stream(graph, n, number)) for n, _ in inputs),
            default=0,
        )
        if role_of[number] >= 0:
            key = (role_of[number], depth[number])
            at[key] = at.get(key, 0) + 1
    return [max((n for (r, _), n in at.items() if r == role), default=1) for role in range(count)]


def _firsts(roles: Sequence[Role]) -> list[int]:
    firsts, rank = [], 0
    for role in roles:
        firsts.append(rank)
        rank += role.count
    return firsts


# -- who runs what


class _Asked(NamedTuple):
    """What is to be placed where.

    Attributes:
        role_of: Task -> the index of its role; -1 = it runs nowhere.
        first: The first rank of each role.
        running: The tasks that run somewhere.
    """

    graph: Graph
    chosen: Sequence[Need | None]
    roles: Sequence[Role]
    role_of: Sequence[int]
    first: Sequence[int]
    running: Sequence[int]


def _placed(asked: _Asked) -> list[int]:
    """Return each task's rank; a source is where the first of its readers is."""
    placed = _multiplexed(asked) if len(asked.running) <= MULTIPLEX_MAX else _dealt(asked)
    ranks = [placed.get(number, CLIENT) for number in range(len(asked.role_of))]
    for number, task in enumerate(asked.graph.tasks):
        if isinstance(task, Source):
            readers = asked.graph.readers.get((number, 0), ())
            ranks[number] = next((ranks[r] for r in readers if ranks[r] != CLIENT), CLIENT)
    return ranks


def _multiplexed(asked: _Asked) -> dict[int, int]:
    """Place tasks as the planner of programs does: heterogeneous earliest finish, improved."""
    graph, roles = asked.graph, asked.roles
    names = {number: str(number) for number in asked.running}
    wanted = [
        tasks.Task(names[n], roles[asked.role_of[n]].name, _seconds(asked.chosen[n]))
        for n in asked.running
    ]
    flows = []
    for (n, _), readers in graph.readers.items():
        after = tuple(names[r] for r in readers if r in names and not is_stream(graph, n, r))
        if n in names and after:
            flows.append(tasks.Flow(names[n], after))
    seats = [
        tasks.Seat(f"{asked.first[index] + turn}", role.name)
        for index, role in enumerate(roles)
        for turn in range(role.count)
    ]
    found = tasks.multiplex(wanted, flows, seats)
    assert not isinstance(found, Unplaceable), "each role has an engine"
    return {int(run.task): int(run.engine) for run in found.runs}


def _dealt(asked: _Asked) -> dict[int, int]:
    """Give each task, in order, to where it can begin first; of equals to where an input is made."""
    graph = asked.graph
    busy_until = [0.0] * sum(role.count for role in asked.roles)
    ends = [0.0] * len(asked.role_of)
    ranks: dict[int, int] = {}
    for number in asked.running:
        index = asked.role_of[number]
        begin = asked.first[index]
        inputs = graph.inputs[number]
        earliest = max((ends[n] for n, _ in inputs if not is_stream(graph, n, number)), default=0.0)
        near = {ranks.get(n, CLIENT) for n, _ in inputs}
        rank = min(
            range(begin, begin + asked.roles[index].count),
            key=lambda r: (max(busy_until[r], earliest), r not in near, busy_until[r], r),
        )
        ranks[number] = rank
        ends[number] = max(busy_until[rank], earliest) + _seconds(asked.chosen[number])
        busy_until[rank] = ends[number]
    return ranks


def _seconds(need: Need | None) -> float:
    return (need.seconds if need is not None else 0.0) or SECONDS_DEFAULT


# -- who sends to whom, and when


def _waves(
    graph: Graph, ranks: Sequence[int], degree_max: int
) -> tuple[tuple[int, ...], dict[tuple[tuple[int, int], int], int]]:
    """Return each task's wave, and in which wave each output is sent to each rank that reads it.

    An output is sent in the first wave, from that in which it is made, in which neither its maker
    nor its reader has more circuits than there can be; a task runs in the wave of the last of its
    inputs. So one that reads from more engines than it has lanes gets them one after the other.
    """
    waves = [0] * len(ranks)
    out: list[dict[int, set[int]]] = [{}]
    into: list[dict[int, set[int]]] = [{}]
    sent: dict[tuple[tuple[int, int], int], int] = {}
    chunks: list[tuple[tuple[int, int], int]] = []
    for number, inputs in enumerate(graph.inputs):
        rank = ranks[number]
        for output in inputs:
            source = ranks[output[0]]
            if is_stream(graph, output[0], number):
                chunks.append((output, number))
            if CLIENT in (rank, source) or source == rank or (output, number) in chunks[-1:]:
                waves[number] = max(waves[number], waves[output[0]])
                continue
            wave = sent.get((output, rank))
            if wave is None:
                wave = waves[output[0]]
                while degree_max and not _fits(out, into, wave, source, rank, degree_max):
                    wave += 1
                while wave >= len(out):
                    out.append({})
                    into.append({})
                out[wave].setdefault(source, set()).add(rank)
                into[wave].setdefault(rank, set()).add(source)
                sent[output, rank] = wave
            waves[number] = max(waves[number], wave)
    _together(graph, waves, chunks)
    for output, number in chunks:
        if ranks[output[0]] != ranks[number]:
            sent[output, ranks[number]] = waves[number]
    return tuple(waves), sent


def _together(
    graph: Graph, waves: list[int], chunks: Sequence[tuple[tuple[int, int], int]]
) -> None:
    """Put all that are joined by streams into one wave, and what comes after them not before."""
    before: list[int] = []
    while chunks and before != waves:
        before = list(waves)
        for (source, _), number in chunks:
            waves[source] = waves[number] = max(waves[source], waves[number])
        for number, inputs in enumerate(graph.inputs):
            waves[number] = max([waves[number], *(waves[n] for n, _ in inputs)])


def _fits(
    out: Sequence[Mapping[int, set[int]]],
    into: Sequence[Mapping[int, set[int]]],
    wave: int,
    source: int,
    target: int,
    degree_max: int,
) -> bool:
    """Whether one more circuit can be there in a wave."""
    if wave >= len(out):
        return True
    return (
        len(out[wave].get(source, set()) | {target}) <= degree_max
        and len(into[wave].get(target, set()) | {source}) <= degree_max
    )
