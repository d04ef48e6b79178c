"""What a cell has in all: enough to tell at once that a request can never be placed on it.

The totals are kept at `cell/totals`, so that `submit` need not list the cell. They only ever refuse
what no state of the cell could hold; whether the rest fits now is the planners' matter.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from flowos.documents import quantities as amounts
from flowos.model.cell import WHOLE_MILLIS, Cell, Engine, Node
from flowos.model.errors import SpecError
from flowos.model.slice import EngineChoice, EngineRole, HostRole, SliceSpec

VERSION: Final = "flowos/v1"
_NO_NODE: Final = Node("")


def totals(cell: Cell) -> dict[str, Any]:
    """Return the figures of a cell, as plain JSON values with stable names.

    Returns:
        engines, switches, links, nodes: how many there are.
        kinds: for each kind of engine:
            engines, shareable, loads_bitstreams: how many;
            on_one_node, on_one_leaf: the most on one node, and linked to one switch;
            memory_bytes_most: the largest engine memory;
            host_cpu_millis_most, host_memory_bytes_most: of the nodes that have one;
            models: the same for each model, "" for engines without one.
        host_cpu_millis_most, host_memory_bytes_most: of any node.
        bitstreams: name -> digest, kind and models.
        tenants: their names.
    """
    kinds: dict[str, _Sum] = {}
    models: dict[str, dict[str, _Sum]] = {}
    beside: dict[str, set[str]] = {}
    for engine in cell.engines.values():
        node = engine.node
        if node not in beside:
            beside[node] = _switches_at(cell, node)
        # An engine without a port of its own is where its node is.
        switches = _switches_at(cell, engine.id) | beside[node]
        of_kind = models.setdefault(engine.kind, {})
        for table, key in ((kinds, engine.kind), (of_kind, engine.model)):
            if key not in table:
                table[key] = _Sum()
            table[key].add(engine, cell.nodes.get(node, _NO_NODE), switches)
    return {
        "apiVersion": VERSION,
        "engines": len(cell.engines),
        "nodes": len(cell.nodes),
        "switches": len(cell.switches),
        "links": len(cell.links),
        "kinds": {
            kind: kinds[kind].figures()
            | {"models": {model: known.figures() for model, known in sorted(of_kind.items())}}
            for kind, of_kind in sorted(models.items())
        },
        "host_cpu_millis_most": max((n.cpu_millis for n in cell.nodes.values()), default=0),
        "host_memory_bytes_most": max((n.memory_bytes for n in cell.nodes.values()), default=0),
        "bitstreams": {
            name: {"digest": known.digest, "kind": known.kind, "models": list(known.models)}
            for name, known in sorted(cell.bitstreams.items())
        },
        "tenants": sorted(cell.tenants),
    }


def _switches_at(cell: Cell, thing: str) -> set[str]:
    """Return the switches that an engine or a node has a link to, whatever their tier."""
    found = set()
    for name in cell.links_at.get(thing, ()):
        link = cell.links[name]
        a, b = link.a_thing, link.b_thing
        found.add(b if a == thing else a)
    return found & cell.switches.keys() if found else found


class _Sum:
    """The figures of one kind or model, as engine after engine is counted."""

    def __init__(self) -> None:
        self.sums = Counter(engines=0, shareable=0, loads_bitstreams=0)
        self.most = {
            "memory_bytes_most": 0,
            "host_cpu_millis_most": 0,
            "host_memory_bytes_most": 0,
        }
        self.on_node: Counter[str] = Counter()
        self.on_leaf: Counter[str] = Counter()

    def add(self, engine: Engine, node: Node, switches: Iterable[str]) -> None:
        self.sums["engines"] += 1
        self.sums["shareable"] += engine.shareable
        self.sums["loads_bitstreams"] += engine.loads_bitstreams
        self.on_node[engine.node] += 1
        for switch in switches:
            self.on_leaf[switch] += 1
        for name, amount in (
            ("memory_bytes_most", engine.memory_bytes),
            ("host_cpu_millis_most", node.cpu_millis),
            ("host_memory_bytes_most", node.memory_bytes),
        ):
            if amount > self.most[name]:
                self.most[name] = amount

    def figures(self) -> dict[str, Any]:
        return {
            **self.sums,
            "on_one_node": max(self.on_node.values(), default=0),
            "on_one_leaf": max(self.on_leaf.values(), default=0),
            **self.most,
        }


# ------------------------------------------------------------------------------------------ never


def never(spec: SliceSpec, of: Mapping[str, Any]) -> str | None:
    """Return why no state of a cell with these totals could hold the slice, None if one might.

    Args:
        spec: What is asked for.
        of: What `totals` returned, perhaps read back from JSON.
    """
    return next(_reasons(spec, of), None)


def _reasons(spec: SliceSpec, of: Mapping[str, Any]) -> Iterator[str]:
    for name, role in spec.engines.items():
        found = [_Asked(spec, name, choice, of).impossible() for choice in role.choices]
        if found and all(found):
            more = f" (and so is each of its {len(found)} choices)" if len(found) > 1 else ""
            yield f"{name} {found[0]}{more}"
    yield from _too_many_together(spec, of)
    for name, host in spec.hosts.items():
        if name not in spec.engines:
            yield from _host_alone(name, host, of)
    if not of["links"]:
        for wish in spec.circuits:
            roles = [spec.engines[role] for role in wish.roles if role in spec.engines]
            if len(wish.roles) - len(roles) + sum(map(_fewest, roles)) > 1:
                yield "asks for circuits, and the cell has no links"


def _fewest(role: EngineRole) -> int:
    """Return how many whole engines a role takes at least; shares may lie on engines of others."""
    whole = all(choice.share_millis == WHOLE_MILLIS for choice in role.choices)
    return min(choice.count for choice in role.choices) if whole and role.choices else 0


class _Asked:
    """One choice of a role, against the figures of the engines that it allows."""

    def __init__(
        self, spec: SliceSpec, role: str, choice: EngineChoice, of: Mapping[str, Any]
    ) -> None:
        self.choice = choice
        self.of = of
        self.together = spec.together.get(role, "any")
        self.host = spec.hosts.get(role, HostRole())
        self.count = min(choice.count, spec.elastic.get(role, (choice.count, 0))[0])
        self.what = choice.kind or "engines"
        if choice.models:
            self.what = f"{' or '.join(choice.models)} {self.what}"
        kinds = of["kinds"]
        within = [kinds[choice.kind]] if choice.kind in kinds else []
        within = within if choice.kind else list(kinds.values())
        self.figures: list[Mapping[str, Any]] = within
        if choice.models:
            models = (kind["models"] for kind in within)
            self.figures = [m[model] for m in models for model in choice.models if model in m]

    def sum(self, figure: str) -> int:
        return sum(allowed[figure] for allowed in self.figures)

    def most(self, figure: str) -> int:
        return max((allowed[figure] for allowed in self.figures), default=0)

    def impossible(self) -> str | None:
        checks = (self.kind, self.counts, self.bitstream, self.memory, self.hosts)
        return next(filter(None, (check() for check in checks)), None)

    def kind(self) -> str | None:
        kinds = self.of["kinds"]
        if self.choice.kind and self.choice.kind not in kinds:
            return f"asks for {self.what}, and the cell has only {_listed(kinds)}"
        if not self.figures:
            within = [kinds[self.choice.kind]] if self.choice.kind else kinds.values()
            models = {model for kind in within for model in kind["models"] if model}
            return f"asks for {self.what}, and the cell has only {_listed(models)}"
        return None

    def counts(self) -> str | None:
        if self.choice.share_millis != WHOLE_MILLIS:
            if not self.sum("shareable"):
                return f"asks for a share of {self.what}, and none of the cell can be shared"
            return None
        bounds = [("engines", "", "the cell")]
        if self.together == "node":
            bounds.append(("on_one_node", " on one node", "the largest node"))
        if self.together == "switch" and self.of["links"]:
            bounds.append(("on_one_leaf", " on one switch", "the largest switch"))
        for figure, where, holder in bounds:
            # Each model's most may be on another node; their sum is what one could have at best.
            best = self.sum(figure)
            if self.choice.kind and figure != "engines":
                best = min(best, self.of["kinds"][self.choice.kind][figure])
            if self.count > best:
                return f"asks for {self.count} {self.what}{where}, and {holder} has {best}"
        return None

    def bitstream(self) -> str | None:
        if not self.choice.bitstream:
            return None
        name, _, digest = self.choice.bitstream.partition("@")
        known = self.of["bitstreams"].get(name)
        asked = f"asks for bitstream {name}"
        if known is None:
            return f"{asked}, and the cell knows {_listed(self.of['bitstreams'])}"
        if digest not in ("", known["digest"]):
            return f"{asked} with digest {digest[:15]}..., the cell has it with {known['digest']}"
        if self.choice.kind and self.choice.kind != known["kind"]:
            return f"{asked} on {self.what}, and it is for {known['kind']}"
        models = known["models"]
        if models and self.choice.models and not set(models) & set(self.choice.models):
            return f"{asked} on {self.what}, and it is for {_listed(models)}"
        if not self.sum("loads_bitstreams"):
            return f"{asked}, and no {self.what} of the cell loads bitstreams"
        return None

    def memory(self) -> str | None:
        condition = self.choice.where.get("memory", "")
        amount = condition.lstrip("<>=! ")
        if not amount or condition.startswith(("<", "!")):
            return None
        try:
            least = amounts.bytes_of(amount)
        except SpecError:
            return None  # whoever checks the request as a whole says so
        most = self.most("memory_bytes_most")
        beyond = condition.startswith(">") and not condition.startswith(">=")
        if most > least or (most == least and not beyond):
            return None
        largest = amounts.bytes_text(most)
        return f"asks for memory {condition}, and the largest {self.what} has {largest}"

    def hosts(self) -> str | None:
        here = self.count if self.together == "node" else 1
        where = f" for {here} {self.what} on one node" if here > 1 else f" beside each {self.what}"
        return _beyond(
            self.host.cpu_millis * here, self.most("host_cpu_millis_most"),
            self.host.memory_bytes * here, self.most("host_memory_bytes_most"), where,
        )  # fmt: skip


def _too_many_together(spec: SliceSpec, of: Mapping[str, Any]) -> Iterator[str]:
    """Compare what several roles of the same kind, or of the same model, take in all."""
    needed: Counter[tuple[str, str]] = Counter()
    for name, role in spec.engines.items():
        least = min(_fewest(role), spec.elastic.get(name, (_fewest(role), 0))[0])
        kinds = {choice.kind for choice in role.choices}
        models = {choice.models for choice in role.choices}
        if len(kinds) == 1:
            (kind,) = kinds
            needed[kind, ""] += least
            if len(models) == 1 and len(only := next(iter(models))) == 1:
                needed[kind, only[0]] += least
    for (kind, model), count in needed.items():
        figures = of["kinds"].get(kind)
        if figures is None or (model and model not in figures["models"]):
            continue
        there = (figures["models"][model] if model else figures)["engines"]
        if count > there:
            what = f"{model} {kind}" if model else kind
            yield f"its roles ask for {count} {what} in all, and the cell has {there}"


def _host_alone(name: str, host: HostRole, of: Mapping[str, Any]) -> Iterator[str]:
    if host.count > of["nodes"]:
        yield f"{name} asks for {host.count} nodes, and the cell has {of['nodes']}"
    found = _beyond(
        host.cpu_millis, of["host_cpu_millis_most"],
        host.memory_bytes, of["host_memory_bytes_most"], " on one node",
    )  # fmt: skip
    if found:
        yield f"{name} {found}"


def _beyond(cpu: int, cpu_most: int, memory: int, memory_most: int, where: str) -> str | None:
    if cpu > cpu_most:
        asked, most = amounts.cpu_text(cpu), amounts.cpu_text(cpu_most)
        return f"asks for {asked} CPUs{where}, and the largest node has {most}"
    if memory > memory_most:
        asked, most = amounts.bytes_text(memory), amounts.bytes_text(memory_most)
        return f"asks for {asked} of host memory{where}, and the largest node has {most}"
    return None


def _listed(words: Iterable[str]) -> str:
    known = sorted(words)
    return ", ".join(known[:8]) + (", ..." if len(known) > 8 else "") or "none"
