"""What exists in a cell: nodes, engines, switches, links, power domains, bitstreams, tenants."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias

Attribute: TypeAlias = str | int | float | bool

# What a record refuses: a field that nobody knows is a typing error of the operator's.
STRICT = {"extra": "forbid"}

WHOLE_MILLIS = 1000  # an engine is divided into thousandths: fine enough for the traces' 0.01


@dataclass(frozen=True, slots=True)
class Watts:
    """What an engine draws in each power state, in watts; off <= idle <= busy."""

    __pydantic_config__: ClassVar = STRICT

    off: int = 0
    idle: int = 0
    busy: int = 0


@dataclass(frozen=True, slots=True)
class Engine:
    """One accelerator, disk or CPU complex on a node that a slice can hold.

    Attributes:
        node: The node it sits on.
        name: Unique on its node, e.g. "gpu0".
        kind: gpu, fpga, asic, nvme, cpu, or any other word.
        model: What exactly, e.g. "A100"; "" = not said.
        memory_bytes: Its own memory.
        shareable: Whether slices may hold parts of it, in thousandths.
        loads_bitstreams: Whether it must be configured before it computes.
        watts: Its draw by power state.
        attributes: Free words that a request's `where` can ask for.
    """

    __pydantic_config__: ClassVar = STRICT

    node: str
    name: str
    kind: str
    model: str = ""
    memory_bytes: int = 0
    shareable: bool = False
    loads_bitstreams: bool = False
    watts: Watts = Watts()
    attributes: Mapping[str, Attribute] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The engine's name in the whole cell, "node/engine"."""
        return f"{self.node}/{self.name}"


@dataclass(frozen=True, slots=True)
class Node:
    """A machine with a control CPU: an engine node, or a host that slices use CPU and memory of.

    Attributes:
        devices_max: How many engines circuits may join to its attachment port at once; 0 = not
            said. ExpEther calls it max_eeio_count.
    """

    __pydantic_config__: ClassVar = STRICT

    name: str
    cpu_millis: int = 0
    memory_bytes: int = 0
    domain: str = ""
    rack: str = ""
    pod: str = ""
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    devices_max: int = 0


@dataclass(frozen=True, slots=True)
class Switch:
    """A switch node: a non-blocking crossbar of circuits, perhaps with aggregators in its FPGA.

    Attributes:
        ports: How many ends of links it has room for; 0 = not said.
        aggregators: How many streams of circuits it can aggregate at once.
        functions: What its aggregators can compute, e.g. "sum".
        latency_ns: Added to each circuit that crosses it.
        tier: 0 = leaf (engines hang on it), 1 and up = above leaves.
    """

    __pydantic_config__: ClassVar = STRICT

    name: str
    ports: int = 0
    aggregators: int = 0
    functions: tuple[str, ...] = ()
    latency_ns: int = 0
    domain: str = ""
    rack: str = ""
    pod: str = ""
    tier: int = 0


@dataclass(frozen=True, slots=True)
class Link:
    """A cable between two ports, with `lanes` indivisible shares in each direction.

    An end is "switch:port", "node/engine:port" or "node:port" (a host's attachment port).
    Direction "fwd" goes from `a` to `b`, "rev" back.
    """

    __pydantic_config__: ClassVar = STRICT

    name: str
    a: str
    b: str
    lanes: int = 1
    gbps: float = 100.0
    latency_ns: int = 0

    @property
    def a_thing(self) -> str:
        """The switch, engine id or node at end `a`."""
        return self.a.partition(":")[0]

    @property
    def b_thing(self) -> str:
        """The switch, engine id or node at end `b`."""
        return self.b.partition(":")[0]


@dataclass(frozen=True, slots=True)
class Domain:
    """What is fed by one supply: its engines and sub-domains draw no more than the budget.

    `budget_watts` None = unlimited. Engines' idle draw counts against it from the start.
    """

    __pydantic_config__: ClassVar = STRICT

    name: str
    budget_watts: int | None = None
    parent: str = ""


@dataclass(frozen=True, slots=True)
class Bitstream:
    """What an engine that loads bitstreams is configured with; the digest is its identity.

    Attributes:
        kind: The engine kind it is for.
        models: The engine models it runs on; empty = all of that kind.
        function: What it computes, for people.
        load_seconds: How long loading takes, for planning.
    """

    __pydantic_config__: ClassVar = STRICT

    name: str
    digest: str
    kind: str = "fpga"
    models: tuple[str, ...] = ()
    function: str = ""
    size_bytes: int = 0
    load_seconds: float = 0.0

    @property
    def reference(self) -> str:
        """Name and digest together: what an engine reports to have loaded."""
        return f"{self.name}@{self.digest}"


@dataclass(frozen=True, slots=True)
class Tenant:
    """Who slices belong to; `quota` = the most engines of a kind it may hold at once."""

    __pydantic_config__: ClassVar = STRICT

    name: str
    weight: int = 1
    quota: Mapping[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Cell:
    """Everything that exists, by name. Mutable: the mirror keeps it in step.

    Things (nodes and switches) share one name space, since orders go to either.
    """

    name: str = "main"
    nodes: dict[str, Node] = field(default_factory=dict)
    engines: dict[str, Engine] = field(default_factory=dict)
    switches: dict[str, Switch] = field(default_factory=dict)
    links: dict[str, Link] = field(default_factory=dict)
    domains: dict[str, Domain] = field(default_factory=dict)
    bitstreams: dict[str, Bitstream] = field(default_factory=dict)
    tenants: dict[str, Tenant] = field(default_factory=dict)
    links_at: dict[str, list[str]] = field(default_factory=dict)
    engines_of: dict[str, list[str]] = field(default_factory=dict)

    def add(self, thing: "Thing") -> None:
        """Put a thing in, or replace the one of its name, and keep the indexes in step."""
        match thing:
            case Engine():
                identifier = thing.id
                if identifier not in self.engines:
                    self.engines_of.setdefault(thing.node, []).append(identifier)
                self.engines[identifier] = thing
            case Link():
                if thing.name in self.links:
                    self.remove("link", thing.name)
                self.links[thing.name] = thing
                for end in {thing.a_thing, thing.b_thing}:
                    self.links_at.setdefault(end, []).append(thing.name)
            case Node():
                self.nodes[thing.name] = thing
            case Switch():
                self.switches[thing.name] = thing
            case Domain():
                self.domains[thing.name] = thing
            case Bitstream():
                self.bitstreams[thing.name] = thing
            case Tenant():
                self.tenants[thing.name] = thing

    def remove(self, family: str, name: str) -> None:
        """Take a thing out; no error if it is not there.

        Args:
            family: The key family: node, engine, switch, link, domain, bitstream or tenant.
            name: Its name, for engines "node/engine".
        """
        if family == "link":
            link = self.links.pop(name, None)
            for end in {link.a_thing, link.b_thing} if link else ():
                self.links_at[end].remove(name)
        elif family == "engine":
            if self.engines.pop(name, None):
                self.engines_of[name.partition("/")[0]].remove(name)
        else:
            tables: dict[str, dict[str, object]] = {
                "node": self.nodes,  # type: ignore[dict-item]  # only removed from, never put into
                "switch": self.switches,  # type: ignore[dict-item]
                "domain": self.domains,  # type: ignore[dict-item]
                "bitstream": self.bitstreams,  # type: ignore[dict-item]
                "tenant": self.tenants,  # type: ignore[dict-item]
            }
            tables[family].pop(name, None)

    def things(self) -> Iterator["Thing"]:
        """Yield everything, what others refer to first."""
        for table in (
            self.tenants,
            self.domains,
            self.bitstreams,
            self.switches,
            self.nodes,
            self.engines,
            self.links,
        ):
            yield from table.values()

    def place_of(self, thing: str) -> str:
        """Return who carries out orders for an end of a link: its switch or its node."""
        return thing.partition("/")[0]

    def domains_of(self, node: str) -> list[Domain]:
        """Return the power domains that feed a node, innermost first."""
        found: list[Domain] = []
        name = self.nodes[node].domain if node in self.nodes else ""
        while name and name in self.domains and self.domains[name] not in found:
            found.append(self.domains[name])
            name = self.domains[name].parent
        return found

    def bitstream(self, reference: str) -> Bitstream | None:
        """Return the bitstream of a reference, "name" or "name@sha256:...", if it is known."""
        name, _, digest = reference.partition("@")
        known = self.bitstreams.get(name)
        return known if known and digest in ("", known.digest) else None


Thing: TypeAlias = Node | Engine | Switch | Link | Domain | Bitstream | Tenant

FAMILY_OF: Mapping[type, str] = {
    Node: "node",
    Engine: "engine",
    Switch: "switch",
    Link: "link",
    Domain: "domain",
    Bitstream: "bitstream",
    Tenant: "tenant",
}


def name_of(thing: Thing) -> str:
    """Return the name by which a cell's tables know a thing."""
    return thing.id if isinstance(thing, Engine) else thing.name


def idle_draw(cell: Cell, domain: str, engines: Iterable[Engine] | None = None) -> int:
    """Return what the engines below a domain draw when none of them computes, in watts."""
    return sum(
        engine.watts.idle
        for engine in (cell.engines.values() if engines is None else engines)
        if any(above.name == domain for above in cell.domains_of(engine.node))
    )
