"""How is a slice written as a document, which reads back as an equal one?"""

from collections.abc import Sequence
from typing import Any

from flowos.documents import quantities as amounts
from flowos.documents.fields import API_VERSION
from flowos.model.cell import WHOLE_MILLIS
from flowos.model.slice import (
    CircuitWish,
    Constraints,
    Data,
    Dependency,
    EngineChoice,
    EngineRole,
    HostRole,
    Member,
    Once,
    Run,
    Shape,
    SliceSpec,
)


def dump_slice(spec: SliceSpec) -> dict[str, Any]:
    """Return the slice as a document, which reads back as an equal one."""
    document: dict[str, Any] = {"apiVersion": API_VERSION, "kind": "Slice"}
    document |= {
        "name": spec.name,
        "tenant": spec.tenant,
        "policy": spec.policy or None,
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
            role: {"type": work.type} | ({"amount": _plain(work.amount)} if work.amount else {})
            for role, work in spec.work.items()
        },
        "depends_on": [_dependency(dependency) for dependency in spec.depends_on],
        "array": _member(spec.array),
        "min": dict(spec.least),
        "commit": spec.commit or None,
        "preemptible": spec.preemptible or None,
        "grace": _duration(spec.run.grace_seconds),
        "reservation": spec.reservation or None,
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


def _dependency(dependency: Dependency) -> str | dict[str, str]:
    if dependency.once is Once.DONE:
        return dependency.on
    return {"on": dependency.on, "once": str(dependency.once)}


def _member(member: Member | None) -> dict[str, Any] | None:
    if member is None:
        return None
    document: dict[str, Any] = {"of": member.array, "index": member.index, "count": member.size}
    return document | ({"parallel": member.parallel} if member.parallel else {})


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
    if wish.multicast:
        document["multicast"] = True
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
        "env": dict(run.env),
        "launch": run.launch if run.launch != "each" else "",
        "directory": run.directory,
        "reduces": run.reduces,
        "tolerant": run.tolerant,
    }
    return {name: value for name, value in document.items() if value}


def _duration(seconds: float) -> str | None:
    return amounts.seconds_text(seconds) if seconds else None


def _one_or_list(texts: Sequence[str]) -> str | list[str]:
    return texts[0] if len(texts) == 1 else list(texts)
