"""How a cell is written in a file, and read from one: YAML or JSON, or CSV with a row per node.

    apiVersion: flowos/v1
    kind: Cell
    name: main
    domains: [{name: room, budget: 20kW}]
    templates:                             # what nodes or switches have in common
      gpu-node: {cpu: 64, memory: 512GiB, domain: room, engines: [...]}
    nodes: [{name: "n{0..15}", template: gpu-node}]
    switches: [{name: "leaf{0..3}", ports: 64}]
    links: [{for: {i: 0..15, j: 0..7}, a: "n{i}/gpu{j}", b: "leaf{i/4}", lanes: 8, gbps: 100}]
    bitstreams: [{name: sum-f32, digest: "sha256:...", load: 3s}]
    tenants: [{name: vision, quota: {gpu: 8}}]

Ranges and `for` are told in `patterns`, amounts in `quantities`. `count: 8` on a node, a switch or an
engine gives eight of them, numbered from 0 (gpu0..gpu7); on a link, eight cables side by side. What
an entry writes itself goes before its template. A link's end is a switch, an engine "node/engine",
or a node for its host's attachment port, with ":port" behind it; where none is named it is the next
free one. A link without a name is called after its ends.
"""

import gc
import json
from collections import Counter
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

from flowos.documents import quantities as amounts
from flowos.documents.cell_csv import is_csv, read_csv
from flowos.documents.fabrics import LANES_MAX, PORTS_MAX
from flowos.documents.fields import (
    DIGEST,
    LABEL,
    LABEL_FORMS,
    SLICE_NAME,
    THING_NAME,
    Fields,
    did_you_mean,
    known_fields,
)
from flowos.documents.patterns import NO_BINDING, THINGS_MAX, Binding, bindings, fill, spread
from flowos.documents.quantities import shown
from flowos.documents.text import Document, Place, parse, place_text, read_text, shown_path
from flowos.model.cell import (
    Bitstream,
    Cell,
    Domain,
    Engine,
    Link,
    Node,
    Switch,
    Tenant,
    Watts,
)
from flowos.model.errors import FileError, SpecError

API_VERSION: Final = "flowos/v1"
DEFAULT_TENANT: Final = "default"
NODE_ENGINES_MAX: Final = 1024  # no machine holds more
CANDIDATES_MAX: Final = 2000  # names that a mistyped one is compared with: 20 ms


_CELL = known_fields(
    "apiVersion", "kind", "name", "domains", "templates", "nodes", "switches", "links",
    "bitstreams", "tenants",
)  # fmt: skip
_MANY = ("for", "count", "template")
_NODE = known_fields(
    "name", "cpu", "memory", "devices", "domain", "rack", "pod", "attributes", "engines", *_MANY
)
_SWITCH = known_fields(
    "name", "ports", "aggregators", "functions", "latency", "domain", "rack", "pod", "tier", *_MANY
)
_TEMPLATE = (_NODE | _SWITCH) - {"name", *_MANY}
_ENGINE = known_fields(
    "name", "kind", "model", "memory", "count", "shareable", "loads_bitstreams", "watts",
    "attributes",
)  # fmt: skip
_WATTS = known_fields("off", "idle", "busy")
_LINK = known_fields("name", "a", "b", "lanes", "gbps", "latency", "for", "count")
_DOMAIN = known_fields("name", "budget", "parent", "for", "count")
_BITSTREAM = known_fields("name", "digest", "kind", "models", "function", "size", "load")
_TENANT = known_fields("name", "weight", "quota")


@contextmanager
def collection_paused() -> Iterator[None]:
    """Let the garbage collector rest while a large cell is made: that takes a third less time.

    It would look at millions of new objects again and again, none of which is garbage.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def load_cell(path: str | Path, *, text: str | None = None, fabric: str = "") -> Cell:
    """Return the cell that a file describes.

    Args:
        path: The file; its ending says how it is written, else its first signs do.
        text: What it says, where it has been read already: with path "-", standard input.
        fabric: For CSV, which knows no links: "rack" lays a leaf switch over each rack, "nodes:8"
            over each eight nodes, and a spine over the leaves. "" = no links.

    Raises:
        FileError: It cannot be read or is no possible cell; names the line and the way out.
    """
    written = read_text(path) if text is None else text
    with collection_paused():
        if is_csv(path, written):
            cell = read_csv(written, shown_path(path), fabric)
            cell.add(Tenant(DEFAULT_TENANT))
            return cell
        if fabric:
            hint = "write links in the file"
            raise SpecError("a fabric is only laid over CSV", where=shown_path(path), hint=hint)
        documents = parse(written, path)
        if len(documents) != 1:
            what = f"has {len(documents)} documents" if documents else "is empty"
            raise FileError(what, path=shown_path(path), hint="describe one cell in it")
        return cell_of(documents[0])


def cell_of(document: Document) -> Cell:
    """Return the cell that a document describes.

    Raises:
        FileError: It is no possible cell.
    """
    return _Reader(document).read()


class _End(NamedTuple):
    """An end of a link as written; port -1 = the next free one."""

    thing: str
    port: int


class _Cable(NamedTuple):
    """A link whose ports and name may not be known yet."""

    name: str
    a: _End
    b: _End
    lanes: int
    gbps: float
    latency_ns: int
    place: Place


class _Reader:
    """One pass over a document, in the order in which parts refer to each other."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.top = Fields(document, (), document.value, _CELL)
        self.cell = Cell()
        self.places: dict[str, Place] = {}  # of nodes and switches
        self.templates: dict[str, Fields] = {}
        self.engines_written: dict[str, list[Engine]] = {}  # equal lists are read once
        self.idle: Counter[str] = Counter()  # by domain, sub-domains left out
        self.same: dict[object, Any] = {}  # equal watts and attributes are kept once
        self.counted: Counter[str] = Counter()
        self.domain_fields: dict[str, Fields] = {}

    def read(self) -> Cell:
        self.top.one_of("apiVersion", (API_VERSION,), API_VERSION)
        self.top.one_of("kind", ("Cell",), "Cell")
        self.cell.name = self.top.name("name", "main", form=SLICE_NAME)
        for name, place, value in self.top.pairs("templates"):
            self.templates[name] = Fields(self.document, place, value, _TEMPLATE)
        self.read_domains()
        self.read_bitstreams()
        self.read_tenants()
        self.read_switches()
        self.read_nodes()
        self.check_budgets()
        self.read_links()
        return self.cell

    # -- one entry, many things

    def entries(
        self, section: str, known: AbstractSet[str]
    ) -> Iterator[tuple[str, Fields, Binding]]:
        """Yield the name, the fields and the variables of each thing of a section."""
        for place, value in self.top.entries(section):
            template = self.template_of(place, value, known)
            fields = Fields(self.document, place, value, known, below=template)
            for binding in bindings(fields):
                names = self.names(fields, binding)
                self.count(section, len(names), fields)
                for name in names:
                    yield name, fields, binding

    def template_of(self, place: Place, value: object, known: AbstractSet[str]) -> Fields | None:
        name = value.get("template") if isinstance(value, dict) else None
        if name is None:
            return None
        if not isinstance(name, str) or name not in self.templates:
            hint = did_you_mean(name if isinstance(name, str) else "", self.templates)
            problem = f"there is no template {shown(name)}"
            raise self.document.error((*place, "template"), problem, hint)
        template = self.templates[name]
        for field in template.own:
            if field not in known:
                problem = f"has {field}, which does not belong to what is made from it"
                hint = f"see {place_text(place)}: use one template for nodes, one for switches"
                raise template.fail(field, problem, hint)
        return template

    def names(self, fields: Fields, binding: Binding, most: int = THINGS_MAX) -> list[str]:
        pattern = fields.text("name")
        try:
            names = spread(fill(pattern, binding))
        except SpecError as error:
            raise fields.fail("name", error.problem, error.hint) from None
        if fields.has("count"):
            count = fields.whole("count", None, 1, most)
            if len(names) > 1:
                problem = "has a count, and its name a range"
                raise fields.fail("count", problem, "write one of the two")
            names = [f"{names[0]}{number}" for number in range(count)]
        for name in names:
            if THING_NAME.fullmatch(name) is None:
                hint = "use up to 63 small letters, digits, dots and dashes, such as n0"
                raise fields.fail("name", f"{shown(name)} is not possible here", hint)
        return names

    def count(self, family: str, more: int, fields: Fields) -> None:
        self.counted[family] += more
        if self.counted[family] > THINGS_MAX:
            problem = f"the cell has {self.counted[family]} {family} or more"
            hint = f"the most is {THINGS_MAX}: split it into several cells"
            raise self.document.error(fields.place, problem, hint)

    def new(self, name: str, table: dict[str, Any], fields: Fields) -> None:
        if name in table:
            raise fields.fail("name", f"{shown(name)} is named twice", "name it differently")

    def new_thing(self, name: str, fields: Fields) -> None:
        before = self.places.get(name)
        if before is not None:
            line = self.document.line_of(before)
            where = f"line {line}" if line else place_text(before)
            problem = f"{shown(name)} is a node or switch already, on {where}"
            hint = "nodes and switches share their names: rename one"
            raise fields.fail("name", problem, hint)
        self.places[name] = fields.place

    def text(self, fields: Fields, name: str, binding: Binding) -> str:
        try:
            return fill(fields.text(name, ""), binding)
        except SpecError as error:
            raise fields.fail(name, error.problem, error.hint) from None

    def label(self, fields: Fields, name: str, binding: Binding) -> str:
        label = self.text(fields, name, binding)
        if label and LABEL.fullmatch(label) is None:
            raise fields.fail(name, f"{shown(label)} is not possible here", LABEL_FORMS)
        return label

    def domain(self, fields: Fields, name: str, binding: Binding) -> str:
        domain = self.text(fields, name, binding)
        if domain and domain not in self.cell.domains:
            hint = did_you_mean(domain, list(islice(self.cell.domains, CANDIDATES_MAX)))
            raise fields.fail(name, f"there is no domain {shown(domain)}", hint)
        return domain

    def kept_once(self, key: object, value: Any) -> Any:
        return self.same.setdefault(key, value)

    # -- sections

    def read_domains(self) -> None:
        parents = self.domain_fields
        for name, fields, binding in self.entries("domains", _DOMAIN):
            self.new(name, self.cell.domains, fields)
            budget = fields.amount("budget", amounts.watts_of, None)
            self.cell.add(Domain(name, budget, self.text(fields, "parent", binding)))
            parents[name] = fields
        for name, domain in self.cell.domains.items():
            above, seen = domain.parent, [name]
            while above:
                if above not in self.cell.domains:
                    hint = did_you_mean(above, list(self.cell.domains)[:CANDIDATES_MAX])
                    raise parents[seen[-1]].fail(
                        "parent", f"there is no domain {shown(above)}", hint
                    )
                if above in seen:
                    circle = " in ".join([*seen[seen.index(above) :], above])
                    hint = "let one of them have no parent"
                    raise parents[name].fail("parent", f"domains lie in each other: {circle}", hint)
                seen.append(above)
                above = self.cell.domains[above].parent

    def read_bitstreams(self) -> None:
        for place, value in self.top.entries("bitstreams"):
            fields = Fields(self.document, place, value, _BITSTREAM)
            name = fields.name("name")
            self.new(name, self.cell.bitstreams, fields)
            self.cell.add(
                Bitstream(
                    name=name,
                    digest=fields.name("digest", form=DIGEST),
                    kind=fields.name("kind", "fpga", form=SLICE_NAME),
                    models=fields.texts("models"),
                    function=fields.text("function", ""),
                    size_bytes=fields.amount("size", amounts.bytes_of, 0),
                    load_seconds=fields.amount("load", amounts.seconds_of, 0.0),
                )
            )

    def read_tenants(self) -> None:
        for place, value in self.top.entries("tenants"):
            fields = Fields(self.document, place, value, _TENANT)
            name = fields.name("name", form=SLICE_NAME)
            self.new(name, self.cell.tenants, fields)
            quota = {}
            for kind, inner, written in fields.pairs("quota"):
                limit = amounts.number_of(written)
                if limit is None or limit.denominator != 1 or not 0 <= limit <= THINGS_MAX:
                    problem = f"{shown(written)} is no number of engines"
                    raise self.document.error(inner, problem, "write 0 or more")
                if SLICE_NAME.fullmatch(kind) is None:
                    raise self.document.error(inner, f"{shown(kind)} is no kind", "write gpu: 8")
                quota[kind] = int(limit)
            self.cell.add(Tenant(name, fields.whole("weight", 1, 1, 10**6), quota))
        if DEFAULT_TENANT not in self.cell.tenants:
            self.cell.add(Tenant(DEFAULT_TENANT))

    def read_switches(self) -> None:
        for name, fields, binding in self.entries("switches", _SWITCH):
            self.new_thing(name, fields)
            self.cell.add(
                Switch(
                    name=name,
                    ports=fields.whole("ports", 0, 0, PORTS_MAX),
                    aggregators=fields.whole("aggregators", 0, 0, LANES_MAX),
                    functions=fields.texts("functions"),
                    latency_ns=fields.amount("latency", amounts.nanoseconds_of, 0),
                    domain=self.domain(fields, "domain", binding),
                    rack=self.label(fields, "rack", binding),
                    pod=self.label(fields, "pod", binding),
                    tier=fields.whole("tier", 0, 0, 100),
                )
            )

    def read_nodes(self) -> None:
        for name, fields, binding in self.entries("nodes", _NODE):
            self.new_thing(name, fields)
            domain = self.domain(fields, "domain", binding)
            self.cell.add(
                Node(
                    name=name,
                    cpu_millis=fields.amount("cpu", amounts.cpu_millis_of, 0),
                    memory_bytes=fields.amount("memory", amounts.bytes_of, 0),
                    domain=domain,
                    rack=self.label(fields, "rack", binding),
                    pod=self.label(fields, "pod", binding),
                    attributes=self.attributes(fields),
                    devices_max=fields.whole("devices", 0, 0, amounts.DEVICES_MAX),
                )
            )
            engines = self.engines(fields)
            self.count("engines", len(engines), fields)
            for made in engines:
                self.cell.add(
                    Engine(
                        node=name,
                        name=made.name,
                        kind=made.kind,
                        model=made.model,
                        memory_bytes=made.memory_bytes,
                        shareable=made.shareable,
                        loads_bitstreams=made.loads_bitstreams,
                        watts=made.watts,
                        attributes=made.attributes,
                    )
                )
                self.idle[domain] += made.watts.idle

    def engines(self, fields: Fields) -> list[Engine]:
        """Return the engines of a node, as yet without the node's name."""
        if not fields.has("engines"):
            return []
        # Node after node has the same engines; comparing what is written is ten times faster.
        written = repr(fields.value("engines"))
        if written not in self.engines_written:
            self.engines_written[written] = list(self.read_engines(fields))
        return self.engines_written[written]

    def read_engines(self, node: Fields) -> Iterator[Engine]:
        taken: set[str] = set()
        for place, value in node.entries("engines"):
            fields = Fields(self.document, place, value, _ENGINE)
            watts = self.watts(fields)
            kind = fields.name("kind", form=SLICE_NAME)
            model = fields.text("model", "")
            memory = fields.amount("memory", amounts.bytes_of, 0)
            attributes = self.attributes(fields)
            shareable = fields.flag("shareable", default=False)
            loads = fields.flag("loads_bitstreams", default=False)
            for name in self.names(fields, NO_BINDING, NODE_ENGINES_MAX):
                if len(taken) >= NODE_ENGINES_MAX:
                    problem = f"the node has more than {NODE_ENGINES_MAX} engines"
                    raise fields.fail("name", problem, "write several nodes")
                if name in taken:
                    problem = f"the node has two engines {shown(name)}"
                    raise fields.fail("name", problem, "name them differently, or use count")
                taken.add(name)
                yield Engine("", name, kind, model, memory, shareable, loads, watts, attributes)

    def watts(self, engine: Fields) -> Watts:
        written = engine.value("watts")
        if written is None:
            return Watts()
        fields = Fields(self.document, engine.place_of("watts"), written, _WATTS)
        off, idle, busy = (fields.amount(state, amounts.watts_of, 0) for state in _WATTS)
        if not off <= idle <= busy:
            problem = f"off {off} W, idle {idle} W and busy {busy} W do not rise"
            raise engine.fail("watts", problem, "write off <= idle <= busy")
        watts = Watts(off, idle, busy)
        return self.kept_once(watts, watts)  # type: ignore[no-any-return]

    def attributes(self, fields: Fields) -> dict[str, Any]:
        found = fields.attributes("attributes")
        # 1, 1.0 and true are equal, but not the same attribute.
        key = tuple((name, type(value), value) for name, value in found.items())
        return self.kept_once(key, found)  # type: ignore[no-any-return]

    def check_budgets(self) -> None:
        """Refuse a budget that not even engines at rest keep: no slice could ever be placed."""
        draws: Counter[str] = Counter()
        for domain, idle in self.idle.items():
            above = domain
            while above:
                draws[above] += idle
                above = self.cell.domains[above].parent
        for name, domain_ in self.cell.domains.items():
            budget = domain_.budget_watts
            if budget is not None and draws[name] > budget:
                idle_text = amounts.watts_text(draws[name])
                problem = (
                    f"the budget of {name}, {amounts.watts_text(budget)}, is below the "
                    f"{idle_text} that its engines draw idle"
                )
                hint = f"raise it to {idle_text} or more, or feed fewer engines from it"
                raise self.domain_fields[name].fail("budget", problem, hint)

    # -- links

    def read_links(self) -> None:
        cables = list(self.cables())
        used: dict[tuple[str, int], Place] = {}
        for cable in cables:
            for end in (cable.a, cable.b):
                if end.port >= 0:
                    self.take_port(end, cable.place, used)
        free: Counter[str] = Counter()
        taken = {cable.name for cable in cables}
        made: Counter[str] = Counter()
        for cable in cables:
            a = self.named_port(cable.a, cable.place, used, free)
            b = self.named_port(cable.b, cable.place, used, free)
            name = cable.name or self.free_link_name(cable, taken, made)
            if name in self.cell.links:
                hint = "name it differently, or leave names out"
                problem = f"two links are called {shown(name)}"
                raise self.document.error((*cable.place, "name"), problem, hint)
            self.cell.add(Link(name, a, b, cable.lanes, cable.gbps, cable.latency_ns))

    def cables(self) -> Iterator[_Cable]:
        for place, value in self.top.entries("links"):
            fields = Fields(self.document, place, value, _LINK)
            lanes = fields.whole("lanes", 1, 1, LANES_MAX)
            gbps = fields.amount("gbps", amounts.gbps_of, 100.0)
            latency_ns = fields.amount("latency", amounts.nanoseconds_of, 0)
            count = fields.whole("count", 1, 1, THINGS_MAX)
            for binding in bindings(fields):
                self.count("links", count, fields)
                name = self.text(fields, "name", binding)
                if name and THING_NAME.fullmatch(name) is None:
                    hint = "use up to 63 small letters, digits, dots and dashes, or leave it out"
                    raise fields.fail("name", f"{shown(name)} is not possible here", hint)
                if name and count > 1:
                    hint = "leave the name out, or write the links one by one"
                    raise fields.fail("name", f"is one name for {count} links", hint)
                a, b = self.end(fields, "a", binding), self.end(fields, "b", binding)
                if a.thing == b.thing:
                    hint = "join two different things"
                    raise fields.fail("b", f"the link leads from {a.thing} to itself", hint)
                if count > 1 and max(a.port, b.port) >= 0:
                    hint = "leave the port out, or write the links one by one"
                    raise fields.fail("count", f"{count} links cannot end at one port", hint)
                for _ in range(count):
                    yield _Cable(name, a, b, lanes, gbps, latency_ns, place)

    def end(self, fields: Fields, name: str, binding: Binding) -> _End:
        fields.required(name)
        written = self.text(fields, name, binding)
        thing, colon, number = written.partition(":")
        cell = self.cell
        if thing not in cell.switches and thing not in cell.engines and thing not in cell.nodes:
            hint = did_you_mean(thing, self.like(thing))
            raise fields.fail(name, f"there is no switch, engine or node {shown(thing)}", hint)
        if colon and (not number.isdecimal() or not number.isascii() or len(number) > 5):
            problem = f"{shown(number)} is no port number"
            raise fields.fail(name, problem, f"write {thing}:0, or leave the port out")
        return _End(thing, int(number) if colon else -1)

    def like(self, thing: str) -> list[str]:
        node, slash, _ = thing.partition("/")
        if slash and node in self.cell.nodes:
            return self.cell.engines_of.get(node, [])
        if slash:
            engines_of = islice(self.cell.engines_of.values(), CANDIDATES_MAX // 8)
            return [engine for engines in engines_of for engine in engines]
        # Nodes with engines have most names, switches are meant more often.
        things = [*islice(self.cell.switches, CANDIDATES_MAX), *self.cell.nodes]
        return things[: 2 * CANDIDATES_MAX]

    def take_port(self, end: _End, place: Place, used: dict[tuple[str, int], Place]) -> None:
        before = used.get(end)
        if before is not None:
            line = self.document.line_of(before)
            where = f"on line {line}" if line else f"by {place_text(before)}"
            problem = f"port {end.port} of {end.thing} is used already, {where}"
            raise self.document.error(place, problem, "name another port, or none")
        self.check_port(end.thing, end.port, place)
        used[end] = place

    def check_port(self, thing: str, port: int, place: Place) -> None:
        switch = self.cell.switches.get(thing)
        ports = switch.ports if switch and switch.ports else PORTS_MAX
        if port >= ports:
            problem = f"{thing} has {ports} ports, this link needs port {port}"
            hint = f"use ports 0 to {ports - 1}, or give it more ports"
            raise self.document.error(place, problem, hint)

    def named_port(
        self, end: _End, place: Place, used: dict[tuple[str, int], Place], free: Counter[str]
    ) -> str:
        thing, port = end
        if port < 0:
            port = free[thing]
            while (thing, port) in used:
                port += 1
            free[thing] = port + 1
            self.check_port(thing, port, place)
        return f"{thing}:{port}"

    def free_link_name(self, cable: _Cable, taken: set[str], made: Counter[str]) -> str:
        base = f"{cable.a.thing}-{cable.b.thing}".replace("/", ".")
        if len(base) > 55:  # no room for a number behind it
            base = "link"
        while True:
            made[base] += 1
            name = base if made[base] == 1 else f"{base}.{made[base]}"
            if name not in taken:
                taken.add(name)
                return name


# ----------------------------------------------------------------------------------------- writing


def dump_cell(cell: Cell) -> dict[str, Any]:
    """Return the cell as a document without templates, which reads back as an equal cell.

    Raises:
        SpecError: An engine has no node, so there is no place for it in a document.
    """
    for node, engines in cell.engines_of.items():
        if engines and node not in cell.nodes:
            raise SpecError(f"engine {engines[0]} is on no node of the cell", hint="remove it")
    document: dict[str, Any] = {"apiVersion": API_VERSION, "kind": "Cell", "name": cell.name}
    sections = {
        "domains": [_domain(domain) for domain in cell.domains.values()],
        "bitstreams": [_bitstream(bitstream) for bitstream in cell.bitstreams.values()],
        "tenants": [_tenant(tenant) for tenant in cell.tenants.values()],
        "switches": [_switch(switch) for switch in cell.switches.values()],
        "nodes": [_node(cell, node) for node in cell.nodes.values()],
        "links": [_link(link) for link in cell.links.values()],
    }
    return document | {name: section for name, section in sections.items() if section}


def cell_json(cell: Cell) -> str:
    """Return the cell as JSON with one thing a line, so that two exports can be compared."""
    parts = []
    for key, value in dump_cell(cell).items():
        if isinstance(value, list):
            lines = ",\n    ".join(json.dumps(thing, ensure_ascii=False) for thing in value)
            parts.append(f'  "{key}": [\n    {lines}\n  ]')
        else:
            parts.append(f'  "{key}": {json.dumps(value, ensure_ascii=False)}')
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _written(**fields: Any) -> dict[str, Any]:
    """Leave out what is not said: every such field has the same default when it is read."""
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in fields.items()
        if value is not None and value is not False and value not in ("", 0, (), {})
    }


def _domain(domain: Domain) -> dict[str, Any]:
    budget = domain.budget_watts
    written = None if budget is None else amounts.watts_text(budget)
    return _written(name=domain.name, budget=written, parent=domain.parent)


def _bitstream(bitstream: Bitstream) -> dict[str, Any]:
    return _written(
        name=bitstream.name,
        digest=bitstream.digest,
        kind=bitstream.kind,
        models=bitstream.models,
        function=bitstream.function,
        size=_bytes(bitstream.size_bytes),
        load=amounts.seconds_text(bitstream.load_seconds) if bitstream.load_seconds else None,
    )


def _tenant(tenant: Tenant) -> dict[str, Any]:
    return _written(name=tenant.name, weight=tenant.weight, quota=dict(tenant.quota))


def _switch(switch: Switch) -> dict[str, Any]:
    return _written(
        name=switch.name,
        ports=switch.ports,
        aggregators=switch.aggregators,
        functions=switch.functions,
        latency=_latency(switch.latency_ns),
        domain=switch.domain,
        rack=switch.rack,
        pod=switch.pod,
        tier=switch.tier,
    )


def _node(cell: Cell, node: Node) -> dict[str, Any]:
    engines = [_engine(cell.engines[name]) for name in cell.engines_of.get(node.name, ())]
    return _written(
        name=node.name,
        cpu=amounts.cpu_text(node.cpu_millis) if node.cpu_millis else None,
        memory=_bytes(node.memory_bytes),
        devices=node.devices_max,
        domain=node.domain,
        rack=node.rack,
        pod=node.pod,
        attributes=dict(node.attributes),
        engines=engines or None,
    )


def _engine(engine: Engine) -> dict[str, Any]:
    watts = engine.watts
    return _written(
        name=engine.name,
        kind=engine.kind,
        model=engine.model,
        memory=_bytes(engine.memory_bytes),
        shareable=engine.shareable,
        loads_bitstreams=engine.loads_bitstreams,
        watts=_written(off=watts.off, idle=watts.idle, busy=watts.busy),
        attributes=dict(engine.attributes),
    )


def _link(link: Link) -> dict[str, Any]:
    return _written(
        name=link.name,
        a=link.a,
        b=link.b,
        lanes=link.lanes,
        gbps=int(link.gbps) if link.gbps.is_integer() else link.gbps,
        latency=_latency(link.latency_ns),
    )


def _bytes(amount: int) -> str | None:
    return amounts.bytes_text(amount) if amount else None


def _latency(nanoseconds: int) -> str | None:
    return amounts.nanoseconds_text(nanoseconds) if nanoseconds else None
