"""What a user asks for, and the phases that a slice goes through."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar, Final

from flowos.model.cell import STRICT, WHOLE_MILLIS

POLICY_DEFAULT: Final = "batch"


class Phase(StrEnum):
    """Where a slice is in its life."""

    PENDING = "pending"
    COMMITTED = "committed"
    PROVISIONING = "provisioning"
    RUNNING = "running"
    DEGRADED = "degraded"
    REPAIRING = "repairing"
    DRAINING = "draining"
    CLEANING = "cleaning"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Reason(StrEnum):
    """Why a slice waits: a versioned enum, words are only ever added."""

    INFEASIBLE = "Infeasible"
    QUOTA_EXCEEDED = "QuotaExceeded"
    WAITING_FOR_ENGINES = "WaitingForEngines"
    FRAGMENTED_ACROSS_SWITCHES = "FragmentedAcrossSwitches"
    NO_CIRCUIT = "NoCircuit"
    WAITING_FOR_POWER = "WaitingForPower"
    WAITING_FOR_BITSTREAM = "WaitingForBitstream"
    RESERVED_FOR_OTHER = "ReservedForOther"
    BEHIND_HIGHER_PRIORITY = "BehindHigherPriority"
    CONFLICTED = "Conflicted"
    HELD = "Held"
    DEPENDS_ON = "DependsOn"
    TIME_LIMIT = "TimeLimit"
    SCHEDULER_DOWN = "SchedulerDown"


_P = Phase
ENDED = frozenset({_P.DONE, _P.FAILED, _P.CANCELLED})
_LEAVING = frozenset({_P.DRAINING, _P.CLEANING})

# The life cycle: what may follow each phase. Reports can arrive between two looks, so a phase
# that lasts no time may be passed over; that is why e.g. running may follow committed at once.
NEXT: Mapping[Phase, frozenset[Phase]] = {
    _P.PENDING: frozenset({_P.COMMITTED, _P.FAILED, _P.CANCELLED}),
    _P.COMMITTED: frozenset({_P.PROVISIONING, _P.RUNNING}) | _LEAVING,
    # Back to committed: resized before all was up. To repairing: all was up, an agent began anew,
    # and then the start was noted.
    _P.PROVISIONING: frozenset({_P.COMMITTED, _P.RUNNING, _P.REPAIRING}) | _LEAVING,
    # Back to what comes before: resized, or an agent began anew, before the start was noted.
    _P.RUNNING: frozenset({_P.COMMITTED, _P.PROVISIONING, _P.DEGRADED, _P.REPAIRING}) | _LEAVING,
    _P.DEGRADED: frozenset({_P.RUNNING, _P.REPAIRING}) | _LEAVING,
    _P.REPAIRING: frozenset({_P.RUNNING, _P.DEGRADED}) | _LEAVING,
    _P.DRAINING: frozenset({_P.CLEANING, _P.PENDING}) | ENDED,
    # Back to draining: the only place that had reported died, and its part is in quarantine.
    _P.CLEANING: frozenset({_P.DRAINING, _P.PENDING}) | ENDED,
    _P.DONE: frozenset(),
    _P.FAILED: frozenset(),
    _P.CANCELLED: frozenset(),
}


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """One way to satisfy a role: which engines, how many, and what they must have.

    Attributes:
        kind: The engine kind; "" = any.
        models: Allowed models; empty = any.
        count: How many engines together.
        share_millis: Thousandths of one engine, 1..999; 1000 = whole engines. Shares need count 1.
        where: Conditions on attributes ("memory" = the engine's memory): ">=24GiB", "24", "!=x".
        bitstream: What must be loaded, "name" or "name@sha256:..."; "" = none.
    """

    __pydantic_config__: ClassVar = STRICT

    kind: str = ""
    models: tuple[str, ...] = ()
    count: int = 1
    share_millis: int = 1000
    where: Mapping[str, str] = field(default_factory=dict)
    bitstream: str = ""


@dataclass(frozen=True, slots=True)
class EngineRole:
    """A named group of like engines; the first choice that fits is taken."""

    __pydantic_config__: ClassVar = STRICT

    choices: tuple[EngineChoice, ...]


@dataclass(frozen=True, slots=True)
class HostRole:
    """CPU and memory on nodes.

    Attributes:
        count: For a role without engines: on how many nodes. 0 = for each engine of the role of
            the same name, on its own node.
        at: For a role without engines: the one node that will do; "" = any.
    """

    __pydantic_config__: ClassVar = STRICT

    cpu_millis: int = 0
    memory_bytes: int = 0
    count: int = 0
    at: str = ""


class Shape(StrEnum):
    """How the engines of one role are joined; a flow joins two roles."""

    RING = "ring"  # each to the next, the last to the first
    ALL = "all"  # each to each other
    STAR = "star"  # the first to each other and back
    TORUS = "torus"  # in rows of several dimensions: in each, a ring
    EXPLICIT = "explicit"  # just the pairs that are named
    FLOW = "flow"  # `source` role to `target` role


@dataclass(frozen=True, slots=True)
class CircuitWish:
    """Circuits that the slice needs.

    Attributes:
        roles: For a shape, the roles whose engines take part, in order. For a flow, (source,
            target): one source engine to several target engines is one multicast tree; several
            source engines each get a circuit to each target, or one aggregation tree for each
            target where `aggregate` is set.
        lanes: How many lanes wide each circuit is.
        aggregate: What may be computed on the way where many meet ("sum"); "" = nothing. All
            circuits to one target are then one tree of as few streams as can be.
        dims: Of a torus: the length of each side; the rank counts the last side fastest.
        links: Of an explicit shape: (source, target) by rank, counted through its roles in order.
        multicast: Of an explicit shape: all circuits of one source are one tree.
    """

    __pydantic_config__: ClassVar = STRICT

    shape: Shape
    roles: tuple[str, ...]
    lanes: int = 1
    aggregate: str = ""
    dims: tuple[int, ...] = ()
    links: tuple[tuple[int, int], ...] = ()
    multicast: bool = False


@dataclass(frozen=True, slots=True)
class Data:
    """Data that a role works on, and where it lies before the slice starts.

    Attributes:
        at: An engine, "node/engine", or a node.
        bytes: How much each engine of the role must have read in the end.
        to: The role.
        estimated: Whether `bytes` is a guess.
        lanes: How wide a circuit moves it, where it has to move.
        share_millis: Thousandths of the engine at `at` that the slice holds to read it.
    """

    __pydantic_config__: ClassVar = STRICT

    at: str
    bytes: int
    to: str
    estimated: bool = False
    lanes: int = 1
    share_millis: int = 1000


@dataclass(frozen=True, slots=True)
class Work:
    """What a role computes: so many units of a type of work, over all of its engines together.

    Attributes:
        amount: 0 = nobody knows how much it is: engines that are good at it are preferred.
    """

    __pydantic_config__: ClassVar = STRICT

    type: str
    amount: float = 0.0


@dataclass(frozen=True, slots=True)
class Constraints:
    """Bounds on every circuit, and where the engines should lie; 0 = no bound.

    Attributes:
        spread: "pack" = near each other; "spread" = over nodes; "rack" = over racks; "apart" = over
            racks, in each over switches, and there over nodes.
        prefer: What decides between engines beside the data and faster ones elsewhere: "fastest",
            "frugal" (the fewest joules), "" = what the cell's planner rules say.
    """

    __pydantic_config__: ClassVar = STRICT

    max_hops: int = 0
    max_latency_ns: int = 0
    spread: str = "pack"  # pack | spread | rack | apart
    prefer: str = ""


class Mode(StrEnum):
    """How a slice takes what it asks for."""

    GANG = "gang"  # all or nothing
    INCREMENTAL = "incremental"  # what fits now, at least the minimum, and the rest when it can


class Once(StrEnum):
    """What of another slice is waited for."""

    DONE = "done"  # it ended well
    ENDED = "ended"  # it ended, in whatever way
    RUNNING = "running"  # all of it was up


@dataclass(frozen=True, slots=True)
class Dependency:
    """Another slice that has to be so far before this one may be placed.

    Attributes:
        on: "tenant/name".
        once: How far.
    """

    __pydantic_config__: ClassVar = STRICT

    on: str
    once: Once = Once.DONE


@dataclass(frozen=True, slots=True)
class Member:
    """Which of an array a slice is.

    Attributes:
        array: The array's name; the slice's own is "<array>-<index>".
        index: Its number, as the user counts.
        size: How many slices the array has.
        parallel: How many of them may hold anything at once; 0 = all.
    """

    __pydantic_config__: ClassVar = STRICT

    array: str
    index: int
    size: int
    parallel: int = 0


@dataclass(frozen=True, slots=True)
class Run:
    """What runs on the engines; all empty = the slice is held until it is cancelled.

    Attributes:
        grace_seconds: How long its tasks may go on after they were told to end, when the slice
            gives way to another one or is drained.
        for_seconds: A simulated program of this length; 0 = none.
        command: A program with its arguments, started once per engine.
        image: A container or disk image to boot, with `kernel`.
        flowlet: A data-flow program's digest.
        env: Of a command: what is in its environment beside what every task finds there.
        launch: Of a command: "each" = it is started for every engine, "first" = only for rank 0,
            which starts the others itself, as mpirun does.
        tolerant: Of a command: the end of one task does not end the others, and it has ended well if
            any of them has.
        reduces: Of a command: it is also started for each circuit that a switch aggregates for it.
        directory: Of a command: where it starts; "" = in a folder of its own, gone at the end.
    """

    __pydantic_config__: ClassVar = STRICT

    for_seconds: float = 0.0
    command: tuple[str, ...] = ()
    image: str = ""
    kernel: str = ""
    flowlet: str = ""
    grace_seconds: float = 0.0
    env: Mapping[str, str] = field(default_factory=dict)
    launch: str = "each"
    directory: str = ""
    reduces: bool = False
    tolerant: bool = False

    @property
    def ends(self) -> bool:
        """Whether the slice ends by itself."""
        return bool(self.for_seconds or self.command or self.flowlet)


@dataclass(frozen=True, slots=True)
class SliceSpec:
    """A user's request. Roles are named; every mapping is by role, in the user's order.

    Attributes:
        policy: Which scheduler serves it; "" until it is submitted: then the cell's rule decides.
        elastic: Role -> fewest and most engines that the slice can go on with.
        work: Role -> what it computes.
        depends_on: What has to happen before it may be placed.
        array: Which of an array it is; None = of none.
        least: Role -> how many engines it can begin with, where it takes them as they come.
        commit: How it takes them; "" = as its policy does.
        preemptible: Whether it gives way to more important ones, and is queued again.
        reservation: The reservation whose units it may take; "" = any that its tenant may use.
    """

    __pydantic_config__: ClassVar = STRICT

    name: str
    tenant: str = "default"
    policy: str = ""
    priority: int = 0
    engines: Mapping[str, EngineRole] = field(default_factory=dict)
    hosts: Mapping[str, HostRole] = field(default_factory=dict)
    together: Mapping[str, str] = field(default_factory=dict)  # role -> node | switch | any
    circuits: tuple[CircuitWish, ...] = ()
    constraints: Constraints = Constraints()
    elastic: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    expected_seconds: float = 0.0
    time_limit_seconds: float = 0.0
    run: Run = Run()
    data: tuple[Data, ...] = ()
    work: Mapping[str, Work] = field(default_factory=dict)
    depends_on: tuple[Dependency, ...] = ()
    array: Member | None = None
    least: Mapping[str, int] = field(default_factory=dict)
    commit: str = ""
    preemptible: bool = False
    reservation: str = ""

    @property
    def id(self) -> str:
        """The slice's name in the whole cell, "tenant/name"."""
        return f"{self.tenant}/{self.name}"

    @property
    def served_by(self) -> str:
        """The policy; records that name none are of before there were rules about it."""
        return self.policy or POLICY_DEFAULT


def misasked(spec: SliceSpec) -> str:
    """Return which amount of a request is one that cannot be meant, "" = none is.

    Files are read with this in mind; a program, or a record, may say anything.
    """
    for role, wish in spec.engines.items():
        for choice in wish.choices:
            if choice.count < 1:
                return f"{role} asks for {choice.count} engines, at least 1 is meant"
            if not 0 < choice.share_millis <= WHOLE_MILLIS:
                return f"{role} asks for {choice.share_millis} thousandths of an engine"
            if choice.share_millis < WHOLE_MILLIS and choice.count > 1:
                return f"{role} asks for shares of {choice.count} engines, a role has one"
    for role, host in spec.hosts.items():
        if min(host.cpu_millis, host.memory_bytes, host.count) < 0:
            return f"the hosts of {role} are asked for less than nothing"
    for circuit in spec.circuits:
        if circuit.lanes < 1:
            return f"a circuit of {circuit.lanes} lanes is asked for, at least 1 is meant"
    for data in spec.data:
        if data.bytes < 0 or data.lanes < 1 or not 0 < data.share_millis <= WHOLE_MILLIS:
            return f"the data at {data.at} is less than none, or read by less than one lane"
    for role, work in spec.work.items():
        if not work.amount >= 0:  # a NaN is no amount either
            return f"{role} is to do {work.amount:g} of {work.type}"
    return ""


@dataclass(frozen=True, slots=True)
class End:
    """How a slice ended; times are wall-clock seconds since the epoch, for people."""

    __pydantic_config__: ClassVar = STRICT

    phase: Phase
    exit_code: int | None = None
    reason: Reason | None = None
    message: str = ""
    started_at: float | None = None
    ended_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Slice:
    """A slice's own record: the request, the user's wishes, and in the end the outcome.

    Its key's create_revision is the slice's uid and its place in the queue.

    Attributes:
        cancelled: The user wants it gone.
        held: The user wants it to wait.
        attempts: How often it was placed and queued again, so far.
        submitted_at: Wall-clock seconds, for people.
        end: None while it lives.
    """

    __pydantic_config__: ClassVar = STRICT

    spec: SliceSpec
    cancelled: bool = False
    held: bool = False
    attempts: int = 0
    submitted_at: float = 0.0
    end: End | None = None


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why a pending slice waits, as its scheduler last found.

    Attributes:
        sentence: The same for people, with the numbers.
        funnel: How many engines were left after each step of the search, in order.
        scheduler: Who says so.
        hangs: How often in a row its policy has not answered when it was asked about it.
    """

    __pydantic_config__: ClassVar = STRICT

    reason: Reason
    sentence: str
    funnel: tuple[tuple[str, int], ...] = ()
    scheduler: str = ""
    hangs: int = 0
