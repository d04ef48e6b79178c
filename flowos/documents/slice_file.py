"""How is a slice written in a file, and what does it ask for?

    name: train-42
    tenant: vision
    engines:
      workers: {kind: gpu, model: [A100, H100], count: 8, where: {memory: ">=24GiB"}}
      reducer: {kind: fpga, bitstream: sum-f32}
    hosts:
      workers: {cpu: 8, memory: 32GiB}          # for each engine of the role, on its node
      driver: {count: 1, cpu: 4, memory: 16GiB} # a role of its own: on so many nodes
    together: {workers: node}                   # node | switch | any
    circuits:
      - {ring: workers, lanes: 1}               # ring, all and star take a role or a list of them
      - {torus: workers, dims: [2, 4]}          # a ring in each dimension; the last counts fastest
      - {explicit: workers, links: [[0, 1]]}    # just these, by rank; counted through several
                                                # roles, and with multicast: true a tree from each
      - {from: workers, to: reducer, aggregate: sum}
    constraints: {max_hops: 4, max_latency_ns: 2000, spread: pack}
    elastic: {workers: [4, 16]}
    expected_duration: 2h
    time_limit: 4h
    run: {command: [python, train.py]}          # or for: 10s; or flowlet; or image and kernel
                                                # a command may have env: {A: b}, a directory, and
                                                # launch: first (once, not for each engine)
    data:
      - {at: n3/nvme0, bytes: 40GB, to: workers} # or at a node; may add estimated, lanes, share
    work: {workers: {type: bert, amount: 1e6}}  # in units of the type, over all engines; or no amount

`slice_terms` tells the fields that say after whom, as which of an array and how it is placed.
Instead of a count of whole engines a role may have `share: 0.5` of one. `anyOf` is a list of ways to
satisfy a role, the first that fits is taken. A file may hold several slices, parted by `---`.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from math import prod
from pathlib import Path
from typing import Any, Final

from flowos.documents import quantities as amounts
from flowos.documents import slice_terms as terms
from flowos.documents.fabrics import LANES_MAX
from flowos.documents.fields import (
    API_VERSION,
    REFERENCE,
    SLICE_NAME,
    THING_NAME,
    Fields,
    did_you_mean,
    known_fields,
    text_problem,
)
from flowos.documents.quantities import shown
from flowos.documents.text import Document, Place, document_of, parse, shown_path
from flowos.model.cell import WHOLE_MILLIS
from flowos.model.errors import FileError, SpecError
from flowos.model.slice import (
    CircuitWish,
    Constraints,
    Data,
    EngineChoice,
    EngineRole,
    HostRole,
    Run,
    Shape,
    SliceSpec,
    Work,
)

COUNT_MAX: Final = 1_000_000  # engines of a role: as many as the largest cell has
PRIORITY_MAX: Final = 1_000_000_000
HOPS_MAX: Final = 1_000
AMOUNT_MAX: Final = 10**30  # units of work: the largest training runs are 10**26 operations
DIMS_MAX: Final = 6  # sides of a torus
DATA_MAX: Final = 64  # entries: each may become an engine and a circuit of the slice
TOGETHER: Final = ("node", "switch", "any")
_SHAPES: Final = ("ring", "all", "star", "torus", "explicit")
PREFER: Final = ("fastest", "frugal")
SPREAD: Final = ("pack", "spread", "rack", "apart")

_SLICE: Final = known_fields(
    "apiVersion", "kind", "name", "tenant", "policy", "priority", "engines", "hosts", "together",
    "circuits", "constraints", "elastic", "expected_duration", "time_limit", "run", "data", "work",
    *terms.TERMS,
)  # fmt: skip
_CHOICE: Final = known_fields("kind", "model", "count", "share", "where", "bitstream")
_ROLE: Final = known_fields(*_CHOICE, "anyOf")
_HOST: Final = known_fields("count", "cpu", "memory", "at")
_CIRCUIT: Final = known_fields(
    "ring",
    "all",
    "star",
    "torus",
    "explicit",
    "from",
    "to",
    "lanes",
    "aggregate",
    "dims",
    "links",
    "multicast",
)
_CONSTRAINTS: Final = known_fields("max_hops", "max_latency_ns", "spread", "prefer")
_DATA: Final = known_fields("at", "bytes", "to", "estimated", "lanes", "share")
_WORK: Final = known_fields("type", "amount")
_AT: Final = re.compile(rf"{THING_NAME.pattern}(/{THING_NAME.pattern})?")
_RUN: Final = known_fields(
    "for",
    "command",
    "image",
    "kernel",
    "flowlet",
    "env",
    "launch",
    "directory",
    "reduces",
    "tolerant",
)
_OF_COMMANDS: Final = ("env", "launch", "directory", "reduces", "tolerant")
LAUNCHES: Final = ("each", "first")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")

_CONDITION: Final = re.compile(r"(>=|<=|!=|>|<|==|=)?\s*(.+)")
_SIZED: Final = re.compile(r"[-+]?[0-9]{1,40}(\.[0-9]{1,40})?\s?[A-Za-z/%]*")
_CONDITION_FORMS: Final = 'write a value, or such as ">=24GiB" or "!=x"'


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a slice is where its document does not say; a command's options come in here.

    Attributes:
        name: For a document without one; "" = it must have one.
        policy: "" = the cell's rule decides when it is submitted.
        over: Fields that hold whatever the document says, as it would write them.
    """

    name: str = ""
    tenant: str = "default"
    policy: str = ""
    priority: int = 0
    run: Run = Run()
    over: Mapping[str, Any] = field(default_factory=dict)


NO_DEFAULTS: Final = Defaults()


def parse_slice(
    text_or_document: str | Mapping[str, Any], path: str | Path, defaults: Defaults = NO_DEFAULTS
) -> list[SliceSpec]:
    """Return the slices that a text, or a document that was read already, asks for.

    Args:
        text_or_document: YAML or JSON, or one document of plain values.
        path: Where it is from, for errors and by its ending; "-" = standard input.
        defaults: What holds where a document does not say.

    Raises:
        FileError: It cannot be read or cannot be meant; names the line and the way out.
    """
    if isinstance(text_or_document, str):
        documents = parse(text_or_document, path)
    else:
        documents = [document_of(dict(text_or_document), path)]
    if not documents:
        raise FileError("is empty", path=shown_path(path), hint="describe a slice in it")
    readers = [_Reader(_with(document, defaults.over), defaults) for document in documents]
    specs: dict[str, SliceSpec] = {}
    described: dict[str, Fields] = {}
    for reader in readers:
        for spec in reader.read():
            if spec.id in specs:
                problem = f"asks for two slices {spec.id}"
                raise reader.document.error(("name",), problem, "name one of them differently")
            specs[spec.id] = spec
            described[f"{spec.tenant}/{spec.array.array}" if spec.array else spec.id] = reader.top
    terms.refuse_cycle(list(specs.values()), described)
    return list(specs.values())


def _with(document: Document, over: Mapping[str, Any]) -> Document:
    """Return a document that says something else in some fields."""
    if not over or not isinstance(document.value, dict):
        return document

    def line_of(place: Place) -> int:
        return 0 if place and place[0] in over else document.line_of(place)

    return Document(document.path, {**document.value, **over}, line_of)


class _Reader:
    """One pass over a document."""

    def __init__(self, document: Document, defaults: Defaults) -> None:
        self.document = document
        self.defaults = defaults
        self.top = Fields(document, (), document.value, _SLICE)

    def read(self) -> list[SliceSpec]:
        """Return the slice, or each member of the array."""
        top = self.top
        top.one_of("apiVersion", (API_VERSION,), API_VERSION)
        top.one_of("kind", ("Slice",), "Slice")
        engines = dict(self.engines())
        hosts = dict(self.hosts(engines))
        if not engines and not hosts:
            problem = "the slice asks for nothing"
            raise self.document.error((), problem, "add engines, such as {workers: {kind: gpu}}")
        name = top.name("name", self.defaults.name or None, form=SLICE_NAME)
        tenant = top.name("tenant", self.defaults.tenant, form=SLICE_NAME)
        circuits = tuple(self.circuits(engines, hosts))
        least = dict(terms.least(top, engines))
        spec = SliceSpec(
            name=name,
            tenant=tenant,
            policy=top.name("policy", self.defaults.policy, form=SLICE_NAME),
            priority=top.whole("priority", self.defaults.priority, -PRIORITY_MAX, PRIORITY_MAX),
            engines=engines,
            hosts=hosts,
            together=dict(self.together(engines)),
            circuits=circuits,
            constraints=self.constraints(),
            elastic=dict(self.elastic(engines)),
            expected_seconds=top.amount("expected_duration", amounts.seconds_of, 0.0),
            time_limit_seconds=top.amount("time_limit", amounts.seconds_of, 0.0),
            run=replace(self.run(), grace_seconds=self.grace()),
            data=tuple(self.data(engines)),
            work=dict(self.work(engines)),
            depends_on=tuple(terms.dependencies(top, tenant, name)),
            least=least,
            commit=terms.mode(top, least, circuits),
            preemptible=top.flag("preemptible", False),
            reservation=top.name("reservation", "", form=THING_NAME),
        )
        return terms.members(spec, terms.array(top), top)

    def role(self, place: Place, name: object, known: Collection[str]) -> str:
        """Check that a role which another part of the document names is there."""
        if not isinstance(name, str) or name not in known:
            hint = did_you_mean(name if isinstance(name, str) else "", known)
            raise self.document.error(place, f"there is no role {shown(name)}", hint)
        return name

    # -- engines

    def engines(self) -> Iterator[tuple[str, EngineRole]]:
        for name, place, value in self.top.pairs("engines"):
            self.check_role_name(name, place)
            fields = Fields(self.document, place, value, _ROLE)
            if not fields.has("anyOf"):
                yield name, EngineRole((self.choice(fields),))
                continue
            beside = [field for field in _CHOICE if fields.has(field)]
            if beside:
                problem = f"stands beside anyOf, which says all of {name}"
                raise fields.fail(beside[0], problem, "write it in each choice of anyOf")
            choices = tuple(
                self.choice(Fields(self.document, inner, written, _CHOICE))
                for inner, written in fields.entries("anyOf")
            )
            if not choices:
                raise fields.fail("anyOf", "has no choices", "write at least one, or leave it out")
            yield name, EngineRole(choices)

    def check_role_name(self, name: str, place: Place) -> None:
        if SLICE_NAME.fullmatch(name) is None:
            hint = "use up to 63 small letters, digits and dashes, such as workers"
            raise self.document.error(place, f"{shown(name)} cannot name a role", hint)

    def choice(self, fields: Fields) -> EngineChoice:
        count = fields.whole("count", 1, 1, COUNT_MAX)
        share = fields.amount("share", amounts.share_millis_of, WHOLE_MILLIS)
        if share != WHOLE_MILLIS and count != 1:
            problem = f"a share is part of one engine, but count is {count}"
            raise fields.fail("share", problem, "leave the count out, or write one role per share")
        return EngineChoice(
            kind=fields.name("kind", "", form=SLICE_NAME),
            models=fields.texts("model"),
            count=count,
            share_millis=share,
            where={key: self.condition(k, key, v) for key, k, v in fields.pairs("where")},
            bitstream=fields.name("bitstream", "", form=REFERENCE),
        )

    def condition(self, place: Place, name: str, value: object) -> str:
        """Return a condition on an attribute as the model has it: an operator and a value."""
        if isinstance(value, bool):
            return "true" if value else "false"
        written = _number_text(value) or (value.strip() if isinstance(value, str) else "")
        found = _CONDITION.fullmatch(written)
        if found is None or text_problem(written):
            problem = f"{shown(value)} is no condition"
            raise self.document.error(place, problem, _CONDITION_FORMS)
        if name == "memory":
            try:
                amounts.bytes_of(found[2])
            except SpecError as error:
                raise self.document.error(place, error.problem, error.hint) from None
        elif (found[1] or "").startswith((">", "<")) and not _SIZED.fullmatch(found[2]):
            problem = f"{shown(found[2])} is no amount, so nothing is above or below it"
            raise self.document.error(place, problem, _CONDITION_FORMS)
        return written

    # -- hosts and bounds

    def hosts(self, engines: Mapping[str, EngineRole]) -> Iterator[tuple[str, HostRole]]:
        for name, place, value in self.top.pairs("hosts"):
            self.check_role_name(name, place)
            fields = Fields(self.document, place, value, _HOST)
            if name in engines:
                if fields.has("count"):
                    problem = f"the hosts of {name} are as many as its engines"
                    raise fields.fail("count", problem, "leave the count out")
                count = 0
            elif fields.has("count"):
                count = fields.whole("count", None, 1, COUNT_MAX)
            else:
                problem = f"there is no engine role {shown(name)}, and no count of hosts"
                near = did_you_mean(name, engines)
                hint = near if near.startswith("did you") else "add a count, such as count: 1"
                raise self.document.error(place, problem, hint)
            cpu_millis = fields.amount("cpu", amounts.cpu_millis_of, 0)
            memory_bytes = fields.amount("memory", amounts.bytes_of, 0)
            if not cpu_millis and not memory_bytes:
                hint = "add such as cpu: 8, memory: 32GiB"
                raise self.document.error(place, "asks for neither CPU nor memory", hint)
            at = fields.name("at", "", form=THING_NAME)
            if at and count != 1:
                problem = f"names one node, but {name} is on {count or 'those of its engines'}"
                raise fields.fail("at", problem, "leave it out, or write a role with count: 1")
            yield name, HostRole(cpu_millis, memory_bytes, count, at)

    def together(self, engines: Mapping[str, EngineRole]) -> Iterator[tuple[str, str]]:
        for name, place, value in self.top.pairs("together"):
            self.role(place, name, engines)
            if not isinstance(value, str) or value not in TOGETHER:
                hint = f"use {', '.join(TOGETHER)}"
                raise self.document.error(place, f"{shown(value)} is no place to share", hint)
            yield name, value

    def constraints(self) -> Constraints:
        written = self.top.value("constraints")
        if written is None:
            return Constraints()
        fields = Fields(self.document, ("constraints",), written, _CONSTRAINTS)
        return Constraints(
            max_hops=fields.whole("max_hops", 0, 1, HOPS_MAX),
            max_latency_ns=fields.whole("max_latency_ns", 0, 1, amounts.NANOSECONDS_MAX),
            spread=fields.one_of("spread", SPREAD, "pack"),
            prefer=fields.one_of("prefer", PREFER, "") if fields.has("prefer") else "",
        )

    def elastic(self, engines: Mapping[str, EngineRole]) -> Iterator[tuple[str, tuple[int, int]]]:
        for name, place, value in self.top.pairs("elastic"):
            self.role(place, name, engines)
            hint = "write the least and the most engines, such as [4, 16]"
            pair = value if isinstance(value, list | tuple) and len(value) == 2 else ()
            bounds = [amounts.number_of(end) for end in pair]
            whole = [int(end) for end in bounds if end is not None and end.denominator == 1]
            if len(whole) != 2:
                raise self.document.error(place, f"{shown(value)} is no range", hint)
            low, high = whole
            if not 1 <= low <= high <= COUNT_MAX:
                raise self.document.error(place, f"{low} to {high} is no range", hint)
            for choice in engines[name].choices:
                if not low <= choice.count <= high or choice.share_millis != WHOLE_MILLIS:
                    what = f"a count of {choice.count}"
                    what = "a share" if choice.share_millis != WHOLE_MILLIS else what
                    problem = f"{name} has {what}, outside of {low} to {high} whole engines"
                    raise self.document.error(place, problem, "let the range hold the count")
            yield name, (low, high)

    # -- circuits

    def circuits(
        self, engines: Mapping[str, EngineRole], hosts: Mapping[str, HostRole]
    ) -> Iterator[CircuitWish]:
        for place, value in self.top.entries("circuits"):
            fields = Fields(self.document, place, value, _CIRCUIT)
            shapes = [shape for shape in _SHAPES if fields.has(shape)]
            flow = [end for end in ("from", "to") if fields.has(end)]
            if len(shapes) + bool(flow) != 1 or len(flow) == 1:
                problem = f"must have one of {', '.join(_SHAPES)}, or both from and to"
                hint = "write such as {ring: workers}, or {from: workers, to: reducer}"
                raise self.document.error(place, problem, hint)
            if flow:
                shape = Shape.FLOW
                # A host joins in by its attachment port.
                known = {*engines, *hosts}
                source = self.role(fields.place_of("from"), fields.text("from"), known)
                target = self.role(fields.place_of("to"), fields.text("to"), known)
                roles: tuple[str, ...] = (source, target)
                if source == target:
                    problem = f"a flow leads from {source} to itself"
                    hint = f"write {{all: {source}}} or {{ring: {source}}}"
                    raise fields.fail("to", problem, hint)
            else:
                shape = Shape(shapes[0])
                roles = fields.texts(shape)
                for role in roles:
                    self.role(fields.place_of(shape), role, engines)
                if not roles or len(set(roles)) != len(roles):
                    hint = "name each role once"
                    raise fields.fail(shape, "names no role, or one twice", hint)
            for name, owner in (("dims", Shape.TORUS), ("links", Shape.EXPLICIT)):
                if fields.has(name) and shape is not owner:
                    problem = f"{name} belongs to {owner}"
                    raise fields.fail(name, problem, f"leave it out, or write {owner}: ...")
            dims = self.dims(fields, roles, engines) if shape is Shape.TORUS else ()
            links = self.links(fields, roles, engines) if shape is Shape.EXPLICIT else ()
            aggregate = fields.name("aggregate", "", form=SLICE_NAME)
            if aggregate and shape in (Shape.RING, Shape.TORUS):
                problem = f"in a {shape} no circuits meet that could be aggregated"
                raise fields.fail("aggregate", problem, "leave it out, or use star, all or from")
            lanes = fields.whole("lanes", 1, 1, LANES_MAX)
            multicast = shape is Shape.EXPLICIT and fields.flag("multicast", default=False)
            if fields.has("multicast") and shape is not Shape.EXPLICIT:
                raise fields.fail("multicast", "belongs to explicit", "leave it out")
            if multicast and aggregate:
                raise fields.fail("multicast", "and aggregate exclude each other", "leave one out")
            yield CircuitWish(shape, roles, lanes, aggregate, dims, links, multicast)

    def dims(
        self, fields: Fields, roles: Sequence[str], engines: Mapping[str, EngineRole]
    ) -> tuple[int, ...]:
        """Read a torus's sides, which must hold all engines of its one role."""
        count = self.ends_of(fields, "torus", roles, engines)
        fields.required("dims")
        dims = []
        for place, side in fields.entries("dims"):
            if type(side) is not int or not 1 <= side <= COUNT_MAX:
                raise self.document.error(place, f"{shown(side)} is no length", "write such as 4")
            dims.append(side)
        if not 1 <= len(dims) <= DIMS_MAX or prod(dims) != count:
            problem = f"sides of {'x'.join(map(str, dims)) or 0} do not make {count} engines"
            hint = f"write 1 to {DIMS_MAX} numbers whose product is {count}"
            raise fields.fail("dims", problem, hint)
        return tuple(dims)

    def links(
        self, fields: Fields, roles: Sequence[str], engines: Mapping[str, EngineRole]
    ) -> tuple[tuple[int, int], ...]:
        """Read pairs of ranks, each a circuit from the one to the other."""
        count = self.ends_of(fields, "explicit", roles, engines)
        fields.required("links")
        links: dict[tuple[int, int], None] = {}
        for place, value in fields.entries("links"):
            pair = list(value) if isinstance(value, list | tuple) else []
            if len(pair) != 2 or not all(type(rank) is int and 0 <= rank < count for rank in pair):
                hint = f"write two ranks from 0 to {count - 1}, such as [0, 1]"
                raise self.document.error(place, f"{shown(value)} are not two ranks", hint)
            if pair[0] == pair[1] or (pair[0], pair[1]) in links:
                problem = f"{shown(value)} leads from a rank to itself, or is there twice"
                raise self.document.error(place, problem, "leave it out")
            links[pair[0], pair[1]] = None
        if not links:
            raise fields.fail("links", "names no pair", "write such as [[0, 1], [1, 2]]")
        return tuple(links)

    def ends_of(
        self,
        fields: Fields,
        shape: str,
        roles: Sequence[str],
        engines: Mapping[str, EngineRole],
    ) -> int:
        """Return how many engines the one role of a shape has, the same in each of its choices."""
        if len(roles) != 1 and shape != Shape.EXPLICIT:
            raise fields.fail(shape, "takes one role", f"write {shape}: {roles[0]}")
        if len(roles) > 1:
            return sum(self.ends_of(fields, shape, [role], engines) for role in roles)
        counts = {choice.count for choice in engines[roles[0]].choices}
        if len(counts) != 1:
            problem = f"needs to know how many engines {roles[0]} has"
            raise fields.fail(shape, problem, "give all its choices the same count")
        if roles[0] in dict(self.elastic(engines)):
            problem = f"needs to know how many engines {roles[0]} has, and it is elastic"
            raise fields.fail(shape, problem, "leave out its elastic bounds, or use ring")
        return counts.pop()

    # -- what is computed, on what data

    def data(self, engines: Mapping[str, EngineRole]) -> Iterator[Data]:
        """Yield where data lies; circuits from there are the planner's to add."""
        seen: set[tuple[str, str]] = set()
        entries = self.top.entries("data")
        if len(entries) > DATA_MAX:
            hint = f"write at most {DATA_MAX}"
            raise self.document.error(("data",), f"has {len(entries)} entries", hint)
        for place, value in entries:
            fields = Fields(self.document, place, value, _DATA)
            at = fields.text("at")
            if _AT.fullmatch(at) is None:
                problem = f"{shown(at)} is neither an engine nor a node"
                raise fields.fail("at", problem, "write such as n3/nvme0, or n3")
            to = self.role(fields.place_of("to"), fields.text("to"), engines)
            if (at, to) in seen:
                problem = f"there is data at {at} to {to} twice"
                raise self.document.error(place, problem, "write one entry with the sum")
            seen.add((at, to))
            fields.required("bytes")
            if fields.has("share") and "/" not in at:
                raise fields.fail("share", f"{at} is no engine to share", "leave it out")
            yield Data(
                at=at,
                bytes=fields.amount("bytes", amounts.bytes_of, 0),
                to=to,
                estimated=fields.flag("estimated", False),
                lanes=fields.whole("lanes", 1, 1, LANES_MAX),
                share_millis=fields.amount("share", amounts.share_millis_of, WHOLE_MILLIS),
            )

    def work(self, engines: Mapping[str, EngineRole]) -> Iterator[tuple[str, Work]]:
        """Yield what each role computes."""
        for name, place, value in self.top.pairs("work"):
            self.role(place, name, engines)
            fields = Fields(self.document, place, value, _WORK)
            kind = fields.text("type").strip()
            if not kind:
                raise fields.fail("type", "is empty", "name the type of work, such as bert")
            written = fields.value("amount")
            if written is None:
                yield name, Work(kind)
                continue
            exact = amounts.number_of(written)
            if exact is None or not 0 < exact <= AMOUNT_MAX:
                problem = f"{shown(written)} is no amount of work"
                raise fields.fail("amount", problem, "write a number above 0, such as 1000000")
            yield name, Work(kind, float(exact))

    # -- what runs

    def grace(self) -> float:
        default = self.defaults.run.grace_seconds
        return self.top.amount("grace", amounts.seconds_of, default)

    def run(self) -> Run:
        written = self.top.value("run")
        if written is None:
            return self.defaults.run
        fields = Fields(self.document, ("run",), written, _RUN)
        ways = [way for way in ("for", "command", "image", "flowlet") if fields.has(way)]
        if len(ways) != 1:
            both = f"both {' and '.join(ways)}" if ways else "nothing"
            hint = "write one of for: 10s, command: [...], image: ..., flowlet: ..."
            raise self.document.error(fields.place, f"says {both} to run", hint)
        if fields.has("kernel") and ways != ["image"]:
            raise fields.fail("kernel", "belongs to an image", "add image: ..., or leave it out")
        command = fields.texts("command", single=False)
        if ways == ["command"] and not (command and command[0]):
            raise fields.fail("command", "is empty", "write such as [python, train.py]")
        for name in _OF_COMMANDS:
            if fields.has(name) and ways != ["command"]:
                raise fields.fail(name, "belongs to a command", "leave it out")
        for_seconds = fields.amount("for", amounts.seconds_of, 0.0)
        if ways == ["for"] and not for_seconds:
            raise fields.fail("for", "lasts no time", "write such as 10s, or leave run out")
        for way in ("image", "flowlet"):
            if way in ways and not fields.text(way):
                raise fields.fail(way, "is empty", f"name the {way}")
        return Run(
            for_seconds=for_seconds,
            command=command,
            image=fields.text("image", ""),
            kernel=fields.text("kernel", ""),
            flowlet=fields.text("flowlet", ""),
            env=dict(self.environment(fields)),
            launch=fields.one_of("launch", LAUNCHES, "each"),
            directory=fields.text("directory", ""),
            reduces=fields.flag("reduces", default=False),
            tolerant=fields.flag("tolerant", default=False),
        )

    def environment(self, fields: Fields) -> Iterator[tuple[str, str]]:
        for name, place, value in fields.pairs("env"):
            if _VARIABLE.fullmatch(name) is None:
                hint = "use letters, digits and underscores, such as OMP_NUM_THREADS"
                raise self.document.error(place, f"{shown(name)} cannot name a variable", hint)
            if not isinstance(value, str):
                hint = f'write "{value}" in quotes'
                raise self.document.error(place, f"must be text, not {shown(value)}", hint)
            yield name, value


def _number_text(value: object) -> str:
    """Return a number as it was written, for 1.10 may be a version; "" for what is none."""
    if amounts.number_of(value) is None:
        return ""
    return format(value, "f") if isinstance(value, Decimal) else str(value)
