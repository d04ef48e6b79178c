"""What was decided: placements, the orders that follow from them, and what agents report."""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from flowos.model.cell import STRICT
from flowos.model.slice import Phase, Reason, Run
from flowos.model.units import Amounts


@dataclass(frozen=True, slots=True)
class Arc:
    """One crossing of a link: in direction "fwd" or "rev", on these lanes."""

    __pydantic_config__: ClassVar = STRICT

    link: str
    direction: str
    lanes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Circuit:
    """A path, or a tree, of lanes from an engine or host to others.

    A multicast tree has one source and several targets; an aggregation tree has several sources
    and one target. In the latter, a switch with one of the circuit's aggregators makes all streams
    that come in one; at any other switch each stream that comes in leaves for itself, the n-th
    arc into it by the n-th arc out of it, and the target may have to receive several.

    Attributes:
        id: "<slice name>/<n>".
        source: An engine id, or a node for a host's attachment port.
        targets: One for a path.
        path: For a path: the things crossed, ends included. For a tree: in order of growth.
        arcs: Every link crossed, in the direction of the stream: a multicast tree's arcs fan out
            from the source, an aggregation tree's meet on their way to the target.
        latency_ns: Along the longest way.
        aggregate: What is computed where streams to one target meet; "" = nothing.
        sources: Of an aggregation tree: all of them, `source` first; else empty.
        aggregators: The units that make streams one, at most one of each switch.
    """

    __pydantic_config__: ClassVar = STRICT

    id: str
    source: str
    targets: tuple[str, ...]
    path: tuple[str, ...]
    arcs: tuple[Arc, ...]
    lanes: int = 1
    latency_ns: int = 0
    aggregate: str = ""
    sources: tuple[str, ...] = ()
    aggregators: tuple[str, ...] = ()


def attached_to(nodes: Container[str], circuits: Iterable[Circuit]) -> dict[str, set[str]]:
    """Return node -> the engines that circuits join to its attachment port.

    Args:
        nodes: The cell's nodes; every other end of a circuit is an engine.
        circuits: Of one placement.
    """
    attached: dict[str, set[str]] = {}
    for circuit in circuits:
        for source in circuit.sources or (circuit.source,):
            for target in circuit.targets:
                for port, device in ((source, target), (target, source)):
                    if port in nodes and device not in nodes:
                        attached.setdefault(port, set()).add(device)
    return attached


@dataclass(frozen=True, slots=True)
class Decision:
    """What a planner found for one slice; nothing is claimed yet.

    Attributes:
        engines: Role -> engine ids, in rank order.
        units: All that is to be held, with amounts.
        hosts: Role -> nodes, one entry per engine of the role or per host.
        circuits: All circuits, lanes chosen.
        bitstreams: Engine id -> bitstream reference "name@digest" that must be loaded.
    """

    engines: Mapping[str, tuple[str, ...]]
    units: Mapping[str, Amounts]
    hosts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    circuits: tuple[Circuit, ...] = ()
    bitstreams: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Unplaceable:
    """Why a slice cannot be placed now.

    Attributes:
        funnel: How many engines were left after each step of the search, in order.
    """

    reason: Reason
    sentence: str
    funnel: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a placement is being given back.

    Attributes:
        phase: How the slice ends once all is clean; PENDING = it is queued again.
        grace_seconds: How long its tasks may go on after they were told to end.
    """

    __pydantic_config__: ClassVar = STRICT

    phase: Phase
    exit_code: int | None = None
    reason: Reason | None = None
    message: str = ""
    grace_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Placement:
    """The whole decision in one record: what a slice, or the system, holds.

    Attributes:
        uid: The spec's create_revision; 0 for system placements.
        attempt: A fresh id per commit: orders, reports and divisible claims are keyed by it.
        number: Which attempt of its slice this is, from 1.
        held: Units in use or to be used.
        releasing: Units on their way back: claimed until they are clean.
        waits: Attempts that units were taken over from; until none of them is carried by any
            placement, this one has no orders and frees nothing.
        ordered: Places that have an order key of this attempt.
        engines: Role -> engine ids in rank order.
        hosts: Role -> nodes.
        bitstreams: Engine id -> "name@digest".
        run: What runs on the engines.
        watts: What its engines draw when busy.
        spent: Power domain or tenant -> what this placement uses of the grant of `scheduler`.
        scheduler: The session whose grants are spent.
        committed_at: Wall-clock seconds since which it holds just this, for people and for
            accounts: since its commit, as the controller saw it, or since it was last resized;
            0 = not said yet.
        started_at: Wall-clock seconds when all of it was first up; for people and time limits.
        ending: Set once it is being given back.
        had: What it held of shared engines and hosts when its end began, for accounts.
        segment: How often it was resized: which line of its history it will be.
        why: For system placements: the operator's reason.
        wanted: For a drain that waits: the units it will take when they are given back.
        deadline_at: For a drain: wall-clock seconds at which it takes over; None = never.
    """

    __pydantic_config__: ClassVar = STRICT

    uid: int
    attempt: str
    number: int = 1
    held: Mapping[str, Amounts] = field(default_factory=dict)
    releasing: Mapping[str, Amounts] = field(default_factory=dict)
    waits: tuple[str, ...] = ()
    ordered: tuple[str, ...] = ()
    engines: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    hosts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    circuits: tuple[Circuit, ...] = ()
    bitstreams: Mapping[str, str] = field(default_factory=dict)
    run: Run = Run()
    watts: int = 0
    spent: Mapping[str, int] = field(default_factory=dict)
    scheduler: str = ""
    committed_at: float = 0.0
    started_at: float | None = None
    ending: Ending | None = None
    had: Mapping[str, Amounts] = field(default_factory=dict)
    segment: int = 0
    why: str = ""
    wanted: tuple[str, ...] = ()
    deadline_at: float | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """One entry of a crossbar: light that comes in on a link's lanes leaves on these.

    Attributes:
        merged: What else comes in and is made one stream with `into` before it leaves.
        aggregator: The unit of this switch that does it; "" = nothing is merged.
        function: What it computes of the streams, e.g. "sum".
    """

    __pydantic_config__: ClassVar = STRICT

    circuit: str
    into: Arc
    out: tuple[Arc, ...]
    merged: tuple[Arc, ...] = ()
    aggregator: str = ""
    function: str = ""


@dataclass(frozen=True, slots=True)
class Joined:
    """Which engines a circuit joins; a tree has several sources or targets.

    Attributes:
        reducer: "switch/number" of the aggregator that makes all streams one; "" = none does.
    """

    __pydantic_config__: ClassVar = STRICT

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    aggregate: str = ""
    reducer: str = ""


@dataclass(frozen=True, slots=True)
class Gang:
    """What a command's tasks are told of the whole slice.

    Attributes:
        engines: Role -> engine ids; the ranks count through the roles in order.
        hosts: The nodes of a slice that has no engines: a task runs on each.
        reducers: The aggregators that a task runs for; their ranks come after the engines'.
        circuits: Those that begin, end or are aggregated at this place.
        addresses: Node -> where others reach it, for those that say so.
    """

    __pydantic_config__: ClassVar = STRICT

    engines: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    hosts: tuple[str, ...] = ()
    reducers: tuple[str, ...] = ()
    circuits: tuple[Joined, ...] = ()
    addresses: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be up at one place for one attempt, perhaps nothing: a level, not an edge.

    Attributes:
        units: The units to be up here; lanes that come with a whole engine are named too.
        tasks: Engine id -> rank of its task in the slice; the run is the same for all.
        bitstreams: Engine id -> "name@digest" to be loaded first.
        crossbar: For a switch: how circuits turn here.
        off: Engines to be powered off (the order of a `~off` placement).
        gang: Where a command runs: the whole slice.
    """

    __pydantic_config__: ClassVar = STRICT

    slice: str
    units: tuple[str, ...] = ()
    tasks: Mapping[str, int] = field(default_factory=dict)
    bitstreams: Mapping[str, str] = field(default_factory=dict)
    crossbar: tuple[Turn, ...] = ()
    run: Run = Run()
    off: tuple[str, ...] = ()
    gang: Gang | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What an agent says of an order.

    Attributes:
        applied: The mod_revision of the order that devices now equal; 0 = none yet.
        building: The mod_revision that is being worked on.
        exit_code: Set once every task of this order here has ended.
        failed: Why the order cannot be built; "" = it can.
    """

    __pydantic_config__: ClassVar = STRICT

    applied: int = 0
    building: int = 0
    exit_code: int | None = None
    failed: str = ""


@dataclass(frozen=True, slots=True)
class Observed:
    """What an engine is like now, as its agent sees it.

    Attributes:
        power: "on" or "off".
        bitstream: What is loaded, "name@digest"; "" = nothing.
        task: The attempt whose task runs on it; "" = none.
    """

    __pydantic_config__: ClassVar = STRICT

    power: str = "on"
    bitstream: str = ""
    task: str = ""


@dataclass(frozen=True, slots=True)
class Session:
    """A living process of the cell.

    Attributes:
        role: scheduler, controller, agent or client.
        name: For people: "batch-0".
        policy: For schedulers: which they serve; for agents: what drives their devices.
    """

    __pydantic_config__: ClassVar = STRICT

    role: str
    name: str
    policy: str = ""
    pid: int = 0
    host: str = ""
    started_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Mark:
    """What a waiting slice asks others to leave alone; advice, and gone with its scheduler.

    Attributes:
        uid: The slice's.
        order: Its place in the queue: whoever comes after it plans around `units`.
        units: Whole engines, and nodes of whose hosts it needs parts.
        eta_seconds: In how long it can have all of them, by what slices say they take; None =
            nobody knows.
        since: Wall-clock seconds, for people.
        why: "starving", "losing": for people.
        purses: Power domain or tenant -> how much of that it needs: whoever comes after it leaves
            that much unspent.
    """

    __pydantic_config__: ClassVar = STRICT

    uid: int
    order: tuple[int, ...]
    units: tuple[str, ...]
    eta_seconds: float | None = None
    since: float = 0.0
    why: str = ""
    purses: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Held:
    """What one placement held for a time: a line of the slice's history.

    Attributes:
        attempt: The placement's.
        number: Which attempt of its slice it was, from 1.
        engines: Role -> engines.
        shares: Engine -> thousandths, where it was not held whole.
        cpu_millis: Of all hosts together.
        memory_bytes: The same.
        watts: What its engines draw when busy.
        from_at: Wall-clock seconds from which on it held this: claims, not tasks.
        started_at: When all of it was up; None = never.
        until_at: When it was given back, clean.
        ended: How, in a word: a phase, "resized", "preempted".
        message: For people.
    """

    __pydantic_config__: ClassVar = STRICT

    attempt: str
    number: int = 1
    policy: str = ""
    engines: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    shares: Mapping[str, int] = field(default_factory=dict)
    cpu_millis: int = 0
    memory_bytes: int = 0
    watts: int = 0
    from_at: float = 0.0
    started_at: float | None = None
    until_at: float = 0.0
    ended: str = ""
    message: str = ""
