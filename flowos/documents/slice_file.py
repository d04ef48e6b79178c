"""How a slice is written in a file or in options, and read from them.

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
      - {explicit: workers, links: [[0, 1]]}    # just these, by rank
      - {from: workers, to: reducer, aggregate: sum}
    constraints: {max_hops: 4, max_latency_ns: 2000, spread: pack}
    elastic: {workers: [4, 16]}
    expected_duration: 2h
    time_limit: 4h
    run: {command: [python, train.py]}          # or for: 10s; or flowlet; or image and kernel
    data:
      - {at: n3/nvme0, bytes: 40GB, to: workers} # or at a node; may add estimated, lanes, share
    work: {workers: {type: bert, amount: 1e6}}  # in units of the type, over all engines of the role

Instead of a count of whole engines a role may have `share: 0.5` of one. `anyOf` is a list of ways to
satisfy a role, the first that fits is taken. A file may hold several slices, parted by `---`.
"""

import random
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from math import prod
from pathlib import Path
from typing import Any, Final

from flowos.documents import quantities as amounts
from flowos.documents.fabrics import LANES_MAX
from flowos.documents.fields import (
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

API_VERSION: Final = "flowos/v1"
COUNT_MAX: Final = 1_000_000  # engines of a role: as many as the largest cell has
PRIORITY_MAX: Final = 1_000_000_000
HOPS_MAX: Final = 1_000
AMOUNT_MAX: Final = 10**30  # units of work: the largest training runs are 10**26 operations
DIMS_MAX: Final = 6  # sides of a torus
DATA_MAX: Final = 64  # entries: each may become an engine and a circuit of the slice
TOGETHER: Final = ("node", "switch", "any")
_SHAPES: Final = ("ring", "all", "star", "torus", "explicit")
PREFER: Final = ("fastest", "frugal")
SPREAD: Final = ("pack", "spread", "rack")


_LATER: Final = ("depends_on", "array", "min", "commit", "preemptible", "grace")
_SLICE: Final = known_fields(
    "apiVersion", "kind", "name", "tenant", "policy", "priority", "engines", "hosts", "together",
    "circuits", "constraints", "elastic", "expected_duration", "time_limit", "run", "data", "work",
)  # fmt: skip
_CHOICE: Final = known_fields("kind", "model", "count", "share", "where", "bitstream")
_ROLE: Final = known_fields(*_CHOICE, "anyOf")
_HOST: Final = known_fields("count", "cpu", "memory", "at")
_CIRCUIT: Final = known_fields(
    "ring", "all", "star", "torus", "explicit", "from", "to", "lanes", "aggregate", "dims", "links"
)
_CONSTRAINTS: Final = known_fields("max_hops", "max_latency_ns", "spread", "prefer")
_DATA: Final = known_fields("at", "bytes", "to", "estimated", "lanes", "share")
_WORK: Final = known_fields("type", "amount")
_AT: Final = re.compile(rf"{THING_NAME.pattern}(/{THING_NAME.pattern})?")
_RUN: Final = known_fields("for", "command", "image", "kernel", "flowlet")

_CONDITION: Final = re.compile(r"(>=|<=|!=|>|<|==|=)?\s*(.+)")
_SIZED: Final = re.compile(r"[-+]?[0-9]{1,40}(\.[0-9]{1,40})?\s?[A-Za-z/%]*")
_CONDITION_FORMS: Final = 'write a value, or such as ">=24GiB" or "!=x"'


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a slice is where its document does not say; a command's options come in here.

    Attributes:
        name: For a document without one; "" = it must have one.
    """

    name: str = ""
    tenant: str = "default"
    policy: str = "batch"
    priority: int = 0
    run: Run = Run()


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
    specs = [_Reader(document, defaults).read() for document in documents]
    for number, spec in enumerate(specs):
        if any(spec.id == other.id for other in specs[:number]):
            problem = f"asks for two slices {spec.id}"
            raise documents[number].error(("name",), problem, "name one of them differently")
    return specs


def random_name(kind: str, rng: random.Random) -> str:
    """Return a name for a slice that was given none: the kind and five random letters."""
    # Without vowels no word comes out that anybody could be hurt by.
    return kind[:50] + "".join(rng.choice("bcdfghjklmnpqrstvwxz") for _ in range(5))


# ----------------------------------------------------------------------------------------- options

_OPTION: Final = re.compile(r"([^=@]+)(?:=([^@]*))?(?:@(.+))?")
_ENGINES_FORMS: Final = "write --engines gpu=8,fpga=2, or gpu=0.5 for a share, or fpga=1@sum-f32"


def slice_from_options(
    engines: str,
    circuits: str = "",
    *,
    name: str = "",
    defaults: Defaults = NO_DEFAULTS,
    rng: random.Random | None = None,
) -> SliceSpec:
    """Return the slice that a command's options ask for; its roles are called after their kinds.

    Args:
        engines: "gpu=8,fpga=2": kinds with how many; "gpu" is one, "gpu=0.5" half of one, and
            "fpga=1@sum-f32" one with this bitstream.
        circuits: "ring", "all" or "star" over all engines, in the order given; "" = none.
        name: The slice's name; "" = that of the defaults, else a random one.
        defaults: The rest.
        rng: For a random name.

    Raises:
        SpecError: An option cannot be meant; names it and its forms.
    """
    roles: dict[str, Any] = {}
    for part in engines.split(","):
        found = _OPTION.fullmatch(part.strip())
        kind = found[1].strip() if found else ""
        if found is None or SLICE_NAME.fullmatch(kind) is None:
            raise _option(
                "engines", f"{shown(part.strip())} is no kind with a count", _ENGINES_FORMS
            )
        if kind in roles:
            raise _option("engines", f"{kind} stands twice", _ENGINES_FORMS)
        roles[kind] = {"kind": kind} | _count_or_share(found[2])
        if found[3]:
            roles[kind]["bitstream"] = found[3].strip()
    document: dict[str, Any] = {"engines": roles}
    if circuits:
        if circuits not in ("ring", "all", "star"):
            hint = "write --circuits ring, all or star"
            raise _option("circuits", f"{shown(circuits)} is no shape", hint)
        document["circuits"] = [{circuits: list(roles)}]
    document["name"] = name or defaults.name
    if not document["name"]:
        if rng is None:
            raise SpecError("the slice has no name", hint="give it one")
        document["name"] = random_name(next(iter(roles)), rng)
    return _Reader(document_of(document, "options"), defaults).read()


def _count_or_share(written: str | None) -> dict[str, Any]:
    if written is None:
        return {"count": 1}
    written = written.strip()
    if re.fullmatch(r"[0-9]{1,9}", written):
        return {"count": int(written)}
    if re.fullmatch(r"0\.[0-9]{1,9}", written):
        return {"share": written}
    raise _option("engines", f"{shown(written)} is no number of engines", _ENGINES_FORMS)


def _option(name: str, problem: str, hint: str) -> SpecError:
    return SpecError(problem, where=f"--{name}", hint=hint)


# ----------------------------------------------------------------------------------------- reading


class _Reader:
    """One pass over a document."""

    def __init__(self, document: Document, defaults: Defaults) -> None:
        self.document = document
        self.defaults = defaults
        self.top = Fields(document, (), document.value, _SLICE, later=_LATER)

    def read(self) -> SliceSpec:
        top = self.top
        top.one_of("apiVersion", (API_VERSION,), API_VERSION)
        top.one_of("kind", ("Slice",), "Slice")
        engines = dict(self.engines())
        hosts = dict(self.hosts(engines))
        if not engines and not hosts:
            problem = "the slice asks for nothing"
            raise self.document.error((), problem, "add engines, such as {workers: {kind: gpu}}")
        return SliceSpec(
            name=top.name("name", self.defaults.name or None, form=SLICE_NAME),
            tenant=top.name("tenant", self.defaults.tenant, form=SLICE_NAME),
            policy=top.name("policy", self.defaults.policy, form=SLICE_NAME),
            priority=top.whole("priority", self.defaults.priority, -PRIORITY_MAX, PRIORITY_MAX),
            engines=engines,
            hosts=hosts,
            together=dict(self.together(engines)),
            circuits=tuple(self.circuits(engines, hosts)),
            constraints=self.constraints(),
            elastic=dict(self.elastic(engines)),
            expected_seconds=top.amount("expected_duration", amounts.seconds_of, 0.0),
            time_limit_seconds=top.amount("time_limit", amounts.seconds_of, 0.0),
            run=self.run(),
            data=tuple(self.data(engines)),
            work=dict(self.work(engines)),
        )

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
            fields = Fields(self.document, place, value, _ROLE, later=_LATER)
            if not fields.has("anyOf"):
                yield name, EngineRole((self.choice(fields),))
                continue
            beside = [field for field in _CHOICE if fields.has(field)]
            if beside:
                problem = f"stands beside anyOf, which says all of {name}"
                raise fields.fail(beside[0], problem, "write it in each choice of anyOf")
            choices = tuple(
                self.choice(Fields(self.document, inner, written, _CHOICE, later=_LATER))
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
            fields = Fields(self.document, place, value, _HOST, later=_LATER)
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
        fields = Fields(self.document, ("constraints",), written, _CONSTRAINTS, later=_LATER)
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
            fields = Fields(self.document, place, value, _CIRCUIT, later=_LATER)
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
            yield CircuitWish(shape, roles, lanes, aggregate, dims, links)

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
        if len(roles) != 1:
            raise fields.fail(shape, "takes one role", f"write {shape}: {roles[0]}")
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
            fields = Fields(self.document, place, value, _DATA, later=_LATER)
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
            fields = Fields(self.document, place, value, _WORK, later=_LATER)
            kind = fields.text("type").strip()
            if not kind:
                raise fields.fail("type", "is empty", "name the type of work, such as bert")
            written = fields.required("amount")
            exact = amounts.number_of(written)
            if exact is None or not 0 < exact <= AMOUNT_MAX:
                problem = f"{shown(written)} is no amount of work"
                raise fields.fail("amount", problem, "write a number above 0, such as 1000000")
            yield name, Work(kind, float(exact))

    # -- what runs

    def run(self) -> Run:
        written = self.top.value("run")
        if written is None:
            return self.defaults.run
        fields = Fields(self.document, ("run",), written, _RUN, later=_LATER)
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
        )


def _number_text(value: object) -> str:
    """Return a number as it was written, for 1.10 may be a version; "" for what is none."""
    if amounts.number_of(value) is None:
        return ""
    return format(value, "f") if isinstance(value, Decimal) else str(value)


# ----------------------------------------------------------------------------------------- writing


def dump_slice(spec: SliceSpec) -> dict[str, Any]:
    """Return the slice as a document, which reads back as an equal one."""
    document: dict[str, Any] = {"apiVersion": API_VERSION, "kind": "Slice"}
    document |= {
        "name": spec.name,
        "tenant": spec.tenant,
        "policy": spec.policy,
        "priority": spec.priority,
        "engines": {name: _role(role) for name, role in spec.engines.items()},
        "hosts": {name: _host(role) for name, role in spec.hosts.items()},
        "together": dict(spec.together),
        "circuits": [_circuit(wish) for wish in spec.circuits],
        "constraints": _constraints(spec.constraints),
        "elastic": {role: list(bounds) for role, bounds in spec.elastic.items()},
        "expected_duration": _duration(spec.expected_seconds),
        "time_limit": _duration(spec.time_limit_seconds),
        "run": _run(spec.run),
        "data": [_data(data) for data in spec.data],
        "work": {
            role: {"type": work.type, "amount": _plain(work.amount)}
            for role, work in spec.work.items()
        },
    }
    return {name: value for name, value in document.items() if value not in (None, {}, [])}


def _role(role: EngineRole) -> dict[str, Any]:
    choices = [_choice(choice) for choice in role.choices]
    return choices[0] if len(choices) == 1 else {"anyOf": choices}


def _choice(choice: EngineChoice) -> dict[str, Any]:
    document: dict[str, Any] = {}
    if choice.kind:
        document["kind"] = choice.kind
    if choice.models:
        document["model"] = _one_or_list(choice.models)
    if choice.share_millis == WHOLE_MILLIS:
        document["count"] = choice.count
    else:
        document["share"] = amounts.share_text(choice.share_millis)
    if choice.where:
        document["where"] = dict(choice.where)
    if choice.bitstream:
        document["bitstream"] = choice.bitstream
    return document


def _host(role: HostRole) -> dict[str, Any]:
    document: dict[str, Any] = {"count": role.count} if role.count else {}
    if role.cpu_millis:
        document["cpu"] = amounts.cpu_text(role.cpu_millis)
    if role.memory_bytes:
        document["memory"] = amounts.bytes_text(role.memory_bytes)
    if role.at:
        document["at"] = role.at
    return document


def _data(data: Data) -> dict[str, Any]:
    document: dict[str, Any] = {"at": data.at, "bytes": amounts.bytes_text(data.bytes)}
    document["to"] = data.to
    if data.estimated:
        document["estimated"] = True
    if data.lanes != 1:
        document["lanes"] = data.lanes
    if data.share_millis != WHOLE_MILLIS:
        document["share"] = amounts.share_text(data.share_millis)
    return document


def _plain(amount: float) -> int | float:
    """Return a number as people write it: whole where it is whole."""
    return int(amount) if amount.is_integer() else amount


def _circuit(wish: CircuitWish) -> dict[str, Any]:
    document: dict[str, Any]
    if wish.shape is Shape.FLOW:
        document = dict(zip(("from", "to"), wish.roles, strict=True))
    else:
        document = {str(wish.shape): _one_or_list(wish.roles)}
    document["lanes"] = wish.lanes
    if wish.aggregate:
        document["aggregate"] = wish.aggregate
    if wish.dims:
        document["dims"] = list(wish.dims)
    if wish.links:
        document["links"] = [list(pair) for pair in wish.links]
    return document


def _constraints(constraints: Constraints) -> dict[str, Any]:
    document: dict[str, Any] = {}
    if constraints.max_hops:
        document["max_hops"] = constraints.max_hops
    if constraints.max_latency_ns:
        document["max_latency_ns"] = constraints.max_latency_ns
    if constraints.spread != "pack":
        document["spread"] = constraints.spread
    if constraints.prefer:
        document["prefer"] = constraints.prefer
    return document


def _run(run: Run) -> dict[str, Any]:
    document = {
        "for": _duration(run.for_seconds),
        "command": list(run.command),
        "image": run.image,
        "kernel": run.kernel,
        "flowlet": run.flowlet,
    }
    return {name: value for name, value in document.items() if value}


def _duration(seconds: float) -> str | None:
    return amounts.seconds_text(seconds) if seconds else None


def _one_or_list(texts: Sequence[str]) -> str | list[str]:
    return texts[0] if len(texts) == 1 else list(texts)
