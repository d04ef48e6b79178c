"""What do scripts see of each thing? Plain values with the field names that the command promises.

Everything here is a function of a view; the names of fields are stable, more may be added. Times are
seconds since the epoch, amounts have their unit in the name. What a view does not hold (an
engine's kind where the inventory was not read) is told as far as placement and request say it.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from flowos.model import keys
from flowos.model.cell import WHOLE_MILLIS, Bitstream, Cell, Engine
from flowos.model.errors import UnknownName
from flowos.model.life import phase_in, reason_of, served
from flowos.model.placement import Circuit, Placement, attached_to
from flowos.model.protocols import CellStore
from flowos.model.slice import EngineRole, Phase, Slice, SliceSpec
from flowos.model.transaction import Change, Conflicted, Seen, Transaction, Versioned
from flowos.model.units import aggregator_unit, engine_unit, share_unit
from flowos.model.view import CellView, Entry
from flowos.protocol.grants import limit_of, tenant_purse, total, uncovered
from flowos.protocol.release import uid_of
from flowos.runtime.tree_shown import depth, is_tree, tree_shown

API_VERSION: Final = "flowos/v1"
KEYS_A_REQUEST: Final = 120  # below 128, etcd's default --max-txn-ops
SLICES: Final = ("slice/", "placement/", "reason/", "session/", "order/", "report/")
UP: Final = "up"

Shown = dict[str, Any]


# ------------------------------------------------------------------------------------- reading


def view_of(store: CellStore, prefixes: Sequence[str] = SLICES) -> CellView:
    """Return everything under some key families, all as of one revision.

    Raises:
        UnknownName: No cell was loaded here.
    """
    reading = store.read([*dict.fromkeys([*prefixes, keys.INFO])])
    if not any(record.key == keys.INFO for record in reading.records):
        raise UnknownName("the store holds no cell of this name: load one with 'flowos cell init'")
    view = CellView()
    view.load(reading.records)
    view.progressed(reading.revision)
    return view


def read_keys(store: CellStore, names: Iterable[str]) -> list[Versioned]:
    """Return those of these keys that exist, in few round trips.

    A transaction that compares them absent and writes nothing brings back all that is there; one
    question for each key would take a hundred times as long.
    """
    wanted = list(dict.fromkeys(names))
    found: list[Versioned] = []
    for start in range(0, len(wanted), KEYS_A_REQUEST):
        compares = tuple(Seen(key, 0) for key in wanted[start : start + KEYS_A_REQUEST])
        (outcome,) = store.commit([Transaction(compares, ())])
        if isinstance(outcome, Conflicted):
            found += [record for record in outcome.keys.values() if record is not None]
    return found


def add_engines(store: CellStore, view: CellView, identifiers: Iterable[str]) -> None:
    """Read these engines into a view's inventory, as far as it does not know them yet."""
    unknown = [keys.inventory("engine", e) for e in identifiers if e not in view.cell.engines]
    if len(unknown) > ENGINES_BY_KEY_MAX:
        records: Iterable[Versioned] = store.read(["engine/"]).records
    else:
        records = read_keys(store, unknown)
    for record in records:
        view.apply(Change(*record))


ENGINES_BY_KEY_MAX: Final = 2_000  # beyond, listing the whole family is quicker


# -------------------------------------------------------------------------------------- slices


def slice_shown(view: CellView, identifier: str, *, circuits: bool = True) -> Shown:
    """Return a slice as `flowos slice show` prints it.

    Args:
        view: Follows at least `SLICES`; engines as far as kind and model are to be told.
        identifier: "tenant/name", of a slice that the view has.
        circuits: Whether to tell them.
    """
    entry = view.slices[identifier]
    slice_, spec = entry.value, entry.value.spec
    placed = placement_of(view, identifier)
    placement = placed.value if placed else None
    waiting = view.reasons.get(identifier)
    phase = phase_in(view, identifier)
    alive = served(e.value for e in view.sessions.values())
    reason = reason_of(slice_, placement, waiting.value if waiting else None, alive)
    sentence = waiting.value.sentence if waiting and spec.served_by in alive else ""
    end = slice_.end
    shown: Shown = {
        "apiVersion": API_VERSION,
        "name": spec.name,
        "tenant": spec.tenant,
        "phase": str(phase),
        "policy": spec.served_by,
        "priority": spec.priority,
        "reason": str(reason) if reason else None,
        "message": _message(view, slice_, placement, sentence, reason),
        "attempts": placement.number if placement else slice_.attempts,
        "revision": _newest(view, identifier),
        "uid": entry.created,
        "held": slice_.held,
        "cancelled": slice_.cancelled,
        "submitted_at": slice_.submitted_at,
        "started_at": end.started_at if end else placement.started_at if placement else None,
        "ended_at": end.ended_at if end else None,
        "exit_code": end.exit_code if end else None,
        "scheduler": placement.scheduler.partition("@")[0] if placement else None,
        "asked": asked(spec),
        "lacks": _lacks(spec, placement),
        "engines": _engines(view, spec, placement),
        "hosts": _hosts(spec, placement),
        "data": _data(spec, placement),
        "work": {role: {"type": w.type, "amount": w.amount} for role, w in spec.work.items()},
        "array": _array(spec),
        "depends_on": [{"on": d.on, "once": str(d.once)} for d in spec.depends_on],
        "min": dict(spec.least),
        "commit": spec.commit or None,
        "preemptible": spec.preemptible,
        "reservation": spec.reservation or None,
        "expected_s": spec.expected_seconds or None,
        "time_limit_s": spec.time_limit_seconds or None,
    }
    if circuits:
        shown["circuits"] = [
            circuit_shown(view.cell, circuit)
            for circuit in (placement.circuits if placement else ())
        ]
    shown["latency_ns"] = (
        max((c.latency_ns for c in placement.circuits), default=0) if placement else 0
    )
    shown["watts"] = placement.watts if placement else 0
    return shown


def _lacks(spec: SliceSpec, placement: Placement | None) -> dict[str, int]:
    """Return role -> how many engines it waits for, while it has others of that role."""
    if placement is None or placement.ending is not None:
        return {}
    found = {
        name: min(choice.count for choice in role.choices) - len(placement.engines.get(name, ()))
        for name, role in spec.engines.items()
    }
    return {name: count for name, count in found.items() if count > 0}


def _array(spec: SliceSpec) -> Shown | None:
    member = spec.array
    if member is None:
        return None
    return {
        "of": member.array,
        "index": member.index,
        "count": member.size,
        "parallel": member.parallel or None,
    }


def placement_of(view: CellView, identifier: str) -> Entry[Placement] | None:
    """Return what a slice holds; not what an earlier slice of its name has left."""
    entry, placed = view.slices.get(identifier), view.placements.get(identifier)
    if entry is None or placed is None or entry.value.end is not None:
        return None
    return placed if uid_of(placed.created, placed.value) == entry.created else None


def _message(
    view: CellView, slice_: Slice, placement: Placement | None, sentence: str, reason: str | None
) -> str:
    """Return the sentence that goes with the reason, or with the end."""
    if slice_.end is not None:
        return slice_.end.message
    if placement is not None and placement.ending is None and placement.waits:
        return _waits_for(view, slice_.spec.id, placement)
    if placement is not None:
        return placement.ending.message if placement.ending else ""
    match reason:
        case "Held":
            return "held by its user: 'flowos slice release' lets it go on"
        case "SchedulerDown" if not sentence:  # else its scheduler lives, and its policy failed
            return f"no scheduler with policy {slice_.spec.served_by} runs"
    return sentence


def _waits_for(view: CellView, identifier: str, placement: Placement) -> str:
    """Return whose end a slice waits for that has taken over from others."""
    found: dict[str, float] = {}
    for attempt in placement.waits:
        for name in view.by_attempt.get(attempt, ()):
            carrier = view.now(name)
            if carrier is not None and name != identifier:
                found[name] = carrier.run.grace_seconds
    if not found:
        return ""
    first, more = min(found), len(found) - 1
    others = f" and {more} more" if more else ""
    grace = max(found.values())
    left = f"; their tasks have up to {grace:g} s to end" if grace else ""
    return f"it takes over from {first}{others}, once that is clean{left}"


def _newest(view: CellView, identifier: str) -> int:
    """Return the newest revision at which anything of the slice was written."""
    found = [view.slices[identifier].modified]
    if reason := view.reasons.get(identifier):
        found.append(reason.modified)
    if placed := placement_of(view, identifier):
        found.append(placed.modified)
        for table in (view.orders, view.reports):
            found += [e.modified for e in table.get(placed.value.attempt, {}).values()]
    return max(found)


def asked(spec: SliceSpec) -> str:
    """Return what a request asks for, in short: "gpu=8,fpga=1"."""
    parts = []
    for name, role in spec.engines.items():
        least = min(role.choices, key=lambda choice: choice.count)
        kind = _kind(role) or name
        amount = (
            f"{least.share_millis / WHOLE_MILLIS:g}"
            if least.share_millis < WHOLE_MILLIS
            else f"{least.count}"
        )
        parts.append(f"{kind}={amount}")
    hosts = sum(host.count for name, host in spec.hosts.items() if name not in spec.engines)
    return ",".join([*parts, *([f"host={hosts}"] if hosts else [])])


def _kind(role: EngineRole | None) -> str:
    """Return the one kind that a role allows, or nothing."""
    kinds = {choice.kind for choice in role.choices} if role else set()
    return kinds.pop() if len(kinds) == 1 else ""


def _engines(view: CellView, spec: SliceSpec, placement: Placement | None) -> list[Shown]:
    if placement is None:
        return []
    held = {**placement.releasing, **placement.held}
    found: list[Shown] = []
    for role, engines in placement.engines.items():
        for identifier in engines:
            known = view.cell.engines.get(identifier)
            share = held.get(share_unit(identifier))
            found.append(
                {
                    "id": identifier,
                    "node": identifier.partition("/")[0],
                    "kind": known.kind if known else _kind(spec.engines.get(role)),
                    "model": known.model if known else "",
                    "role": role,
                    "share": share[0] / WHOLE_MILLIS if share else 1.0,
                    "bitstream": placement.bitstreams.get(identifier) or None,
                }
            )
    return found


def _hosts(spec: SliceSpec, placement: Placement | None) -> list[Shown]:
    found: list[Shown] = []
    if placement is None:
        return found
    ends = {node for nodes in placement.hosts.values() for node in nodes}
    devices = attached_to(ends, placement.circuits)
    for role, nodes in placement.hosts.items():
        wish = spec.hosts.get(role)
        found += [
            {
                "node": node,
                "role": role,
                "cpu_millis": wish.cpu_millis if wish else 0,
                "memory_bytes": wish.memory_bytes if wish else 0,
                "devices": sorted(devices.get(node, ())),
            }
            for node in nodes
        ]
    return found


def _data(spec: SliceSpec, placement: Placement | None) -> list[Shown]:
    """Return where data lies, and the circuit by which it comes to its role, if it does."""
    circuits = placement.circuits if placement else ()
    found: list[Shown] = []
    for data in spec.data:
        engines = set(placement.engines.get(data.to, ())) if placement else set()
        ways = [c.id for c in circuits if c.source == data.at and engines & set(c.targets)]
        found.append(
            {
                "at": data.at,
                "bytes": data.bytes,
                "estimated": data.estimated,
                "to": data.to,
                "circuit": ways[0] if ways else None,
            }
        )
    return found


def circuit_shown(cell: Cell, circuit: Circuit) -> Shown:
    """Return a circuit as it stands in `slice show`; links that the cell lacks count as one hop.

    "from" is the first of "sources"; "tree" is null for a path, else as in `tree_shown`.
    """
    tree = tree_shown(cell, circuit)
    return {
        "id": circuit.id,
        "from": circuit.source,
        "sources": list(circuit.sources or (circuit.source,)),
        "to": list(circuit.targets),
        "path": list(circuit.path),
        "tree": tree,
        "hops": len(circuit.arcs) if tree is None else depth(tree),
        "lanes": circuit.lanes,
        "latency_ns": circuit.latency_ns,
        "aggregate": circuit.aggregate or None,
        "aggregators": list(circuit.aggregators),
    }


def links_of(view: CellView, identifiers: Iterable[str]) -> set[str]:
    """Return the links that trees of these slices cross: what `circuit_shown` asks the cell for."""
    return {
        arc.link
        for identifier in identifiers
        if (placed := placement_of(view, identifier))
        for circuit in placed.value.circuits
        if is_tree(circuit)
        for arc in circuit.arcs
    }


def in_queue_order(view: CellView) -> list[str]:
    """Return all slices: by priority, then first come; those of an array by their index."""

    def place(name: str) -> tuple[int, int, int]:
        entry = view.slices[name]
        spec = entry.value.spec
        return -spec.priority, entry.created, spec.array.index if spec.array else -1

    return sorted(view.slices, key=place)


# ------------------------------------------------------------------------------------- engines


def engine_state(view: CellView, engine: Engine) -> tuple[str, list[str]]:
    """Return free, held, shared, off, drained or quarantined, and by whom."""
    node = f"node/{engine.node}"
    by = list(view.holders.get(engine_unit(engine.id), ()))
    outside = list(view.holders.get(node, ()))
    if by and by[0].startswith("~"):
        states = {"~off": "off", "~drain": "drained", "~reserved": "reserved"}
        state = states.get(by[0].partition("/")[0], "quarantined")
        if state != "off" or not outside:
            return state, by
    elif by:
        return "held", by
    if shares := view.shares.get(engine.id):
        quarantined = [name for name in shares if name.startswith("~quarantine/")]
        return ("quarantined", quarantined) if quarantined else ("shared", sorted(shares))
    if outside:
        return ("quarantined" if outside[0].startswith("~quarantine/") else "drained"), outside
    return ("off" if by else "free"), by


def engine_shown(view: CellView, identifier: str) -> Shown:
    """Return an engine as `flowos engine show` prints it.

    Args:
        view: Follows the inventory, placements and observed engines.
        identifier: "node/engine".
    """
    engine = view.cell.engines[identifier]
    seen = view.observed.get(identifier)
    state, by = engine_state(view, engine)
    free = view.free_millis(identifier) if state in ("free", "shared", "off") else 0
    draining = bool(
        view.wanted.get(engine_unit(identifier)) or view.wanted.get(f"node/{engine.node}")
    )
    why = next((view.placements[n].value.why for n in by if n.startswith("~")), "")
    return {
        "apiVersion": API_VERSION,
        "id": identifier,
        "node": engine.node,
        "name": engine.name,
        "kind": engine.kind,
        "model": engine.model,
        "state": state,
        "by": by,
        "why": why,
        "draining": draining,
        "free_share": free / WHOLE_MILLIS,
        "shareable": engine.shareable,
        "shares": {n: m / WHOLE_MILLIS for n, m in view.shares.get(identifier, {}).items()},
        "power": seen.power if seen else "off" if state == "off" else "on",
        "bitstream": (seen.bitstream or None) if seen else None,
        "watts": _draw(view, engine, state),
        "watts_busy": engine.watts.busy,
        "watts_idle": engine.watts.idle,
        "memory_bytes": engine.memory_bytes,
        "attributes": dict(engine.attributes),
    }


def _draw(view: CellView, engine: Engine, state: str) -> int:
    """Return what an engine draws, as its state says."""
    if state == "off":
        return engine.watts.off
    rise = engine.watts.busy - engine.watts.idle
    if state == "held":
        return engine.watts.busy
    return engine.watts.idle + rise * sum(view.shares.get(engine.id, {}).values()) // WHOLE_MILLIS


# -------------------------------------------------------------------------------------- fabric


def service_state(view: CellView, unit: str) -> str:
    """Return whether a node, switch or link is up, draining, drained or quarantined."""
    holders = view.holders.get(unit)
    if holders:
        return "quarantined" if holders[0].startswith("~quarantine/") else "drained"
    return "draining" if view.wanted.get(unit) else UP


def lanes_in_use(view: CellView) -> dict[tuple[str, str], set[int]]:
    """Return (link, direction) -> lanes that are claimed or that a circuit runs over."""
    found: dict[tuple[str, str], set[int]] = defaultdict(set)
    for end, bitmap in view.lanes_taken.items():
        found[end] |= {lane for lane in range(bitmap.bit_length()) if bitmap >> lane & 1}
    for entry in view.placements.values():
        if entry.value.held:
            for circuit in entry.value.circuits:
                for arc in circuit.arcs:
                    found[arc.link, arc.direction] |= set(arc.lanes)
    return found


def switches_shown(view: CellView, names: Iterable[str], *, links: bool = False) -> list[Shown]:
    """Return switches as `flowos switch ls` prints them; with `links` as `switch show` does.

    Args:
        view: Follows the inventory and placements.
        names: Which.
        links: Whether to tell what is plugged in, how much of it is in use, and who holds which
            aggregator.
    """
    crossings = Counter(
        thing
        for entry in view.placements.values()
        for circuit in entry.value.circuits
        for thing in set(circuit.path)
    )
    used = lanes_in_use(view) if links else {}
    merging = _merging(view) if links else {}
    found: list[Shown] = []
    for name in names:
        switch = view.cell.switches[name]
        at = view.cell.links_at.get(name, [])
        busy = sum(aggregator_unit(name, n) in view.holders for n in range(switch.aggregators))
        shown: Shown = {
            "apiVersion": API_VERSION,
            "name": name,
            "state": service_state(view, f"switch/{name}"),
            "tier": switch.tier,
            "ports": switch.ports,
            "ports_used": len(at),
            "aggregators": switch.aggregators,
            "aggregators_free": switch.aggregators - busy,
            "functions": list(switch.functions),
            "circuits": crossings[name],
            "latency_ns": switch.latency_ns,
            "rack": switch.rack,
            "pod": switch.pod,
            "domain": switch.domain,
        }
        if links:
            shown["links"] = [_link(view, link, used) for link in at]
            shown["aggregators_held"] = [
                {"unit": unit, "holder": holder, **merging.get(unit, _MERGES_NOTHING)}
                for unit in (aggregator_unit(name, n) for n in range(switch.aggregators))
                if (holder := view.holder(unit)) is not None
            ]
        found.append(shown)
    return found


_MERGES_NOTHING: Final[Mapping[str, str | None]] = {"circuit": None, "function": None}


def _merging(view: CellView) -> dict[str, Shown]:
    """Return for each aggregator in use the circuit and what is computed of its streams."""
    return {
        unit: {"circuit": circuit.id, "function": circuit.aggregate or None}
        for entry in view.placements.values()
        for circuit in entry.value.circuits
        for unit in circuit.aggregators
    }


def _link(view: CellView, name: str, used: Mapping[tuple[str, str], set[int]]) -> Shown:
    link = view.cell.links[name]
    return {
        "name": name,
        "a": link.a,
        "b": link.b,
        "state": service_state(view, f"link/{name}"),
        "lanes": link.lanes,
        "lanes_used": {way: len(used.get((name, way), ())) for way in ("fwd", "rev")},
        "gbps": link.gbps,
        "latency_ns": link.latency_ns,
    }


def circuits_shown(view: CellView) -> list[Shown]:
    """Return all circuits that are placed, with whose they are; the view follows `SLICES`."""
    found: list[Shown] = []
    for identifier, entry in sorted(view.placements.items()):
        tenant, _, name = identifier.partition("/")
        phase = phase_in(view, identifier) if entry.value.circuits else None
        found += [
            {
                "apiVersion": API_VERSION,
                **circuit_shown(view.cell, circuit),
                "slice": name,
                "tenant": tenant,
                "phase": str(phase),
                "arcs": [
                    {"link": a.link, "direction": a.direction, "lanes": list(a.lanes)}
                    for a in circuit.arcs
                ],
            }
            for circuit in entry.value.circuits
        ]
    return found


# --------------------------------------------------------------------- bitstreams, tenants, power


def bitstream_shown(view: CellView, name: str) -> Shown:
    """Return a bitstream, where it is loaded and who uses it.

    Args:
        view: Follows `bitstream/`, `slice/`, `placement/` and `observed/`.
        name: Its name.
    """
    bitstream = view.cell.bitstreams[name]
    return {
        "apiVersion": API_VERSION,
        "name": name,
        "digest": bitstream.digest,
        "kind": bitstream.kind,
        "models": list(bitstream.models),
        "function": bitstream.function,
        "size_bytes": bitstream.size_bytes,
        "load_seconds": bitstream.load_seconds,
        "loaded_on": sorted(
            engine
            for engine, seen in view.observed.items()
            if seen.bitstream == bitstream.reference
        ),
        "used_by": bitstream_users(view, bitstream),
    }


def bitstream_users(view: CellView, bitstream: Bitstream) -> list[str]:
    """Return the slices that hold an engine with this bitstream, or that wait for one."""
    users = {
        name
        for name, entry in view.placements.items()
        if bitstream.reference in entry.value.bitstreams.values()
    }
    wanted = {bitstream.name, bitstream.reference}
    users |= {
        name
        for name, slice_ in view.slices.items()
        if slice_.value.end is None
        for role in slice_.value.spec.engines.values()
        if any(choice.bitstream in wanted for choice in role.choices)
    }
    return sorted(users)


def tenants_shown(view: CellView) -> list[Shown]:
    """Return all tenants; the view follows `tenant/`, `grant/`, `SLICES` and engines that are held.

    `quota` is what an operator wants; `limits` tells of each kind in it what is in force: more, as
    long as more is granted or held than is wanted now. All in engines, parts as fractions.
    """
    held: dict[str, Counter[str]] = defaultdict(Counter)
    slices: dict[str, Counter[str]] = defaultdict(Counter)
    for name, entry in view.placements.items():
        spec = view.slices[name].value.spec if name in view.slices else None
        for role, engines in entry.value.engines.items():
            for engine in engines:
                known = view.cell.engines.get(engine)
                asked_kind = _kind(spec.engines.get(role)) if spec else ""
                held[name.partition("/")[0]][known.kind if known else asked_kind] += 1
    for name, slice_ in view.slices.items():
        if slice_.value.end is None:
            phase = "pending" if phase_in(view, name) is Phase.PENDING else "placed"
            slices[slice_.value.spec.tenant][phase] += 1
    return [
        {
            "apiVersion": API_VERSION,
            "name": name,
            "weight": tenant.weight,
            "quota": dict(tenant.quota),
            "limits": {kind: _limit_shown(view, name, kind) for kind in sorted(tenant.quota)},
            "held": dict(sorted(held[name].items())),
            "placed": slices[name]["placed"],
            "pending": slices[name]["pending"],
        }
        for name, tenant in sorted(view.cell.tenants.items())
    ]


def _limit_shown(view: CellView, tenant: str, kind: str) -> Shown:
    purse = tenant_purse(tenant, kind)
    wanted = limit_of(view.cell, purse) or 0
    without = uncovered(view.cell, view.placements, purse)
    granted = total(view, purse) + without
    used = without + sum(e.value.spent.get(purse, 0) for e in view.placements.values())
    amounts = {"wanted": wanted, "in_force": max(wanted, granted), "granted": granted, "used": used}
    return {what: _in_engines(millis) for what, millis in amounts.items()}


def _in_engines(millis: int) -> float:
    whole, part = divmod(millis, WHOLE_MILLIS)
    return millis / WHOLE_MILLIS if part else whole


def domains_shown(view: CellView) -> list[Shown]:
    """Return all power domains; the view follows the inventory, placements and grants.

    Watts: `idle` is what all engines draw when none computes; `held` is what slices may draw above
    that, `granted` what schedulers may give away of the budget above idle, `free` what is left of
    it; `in_force` is the budget, or more as long as more is granted than a lowered one allows;
    `draw` is the sum now, as far as states tell.
    """
    cell = view.cell
    above = {node: [d.name for d in cell.domains_of(node)] for node in cell.nodes}
    figures: dict[str, Counter[str]] = defaultdict(Counter)
    for engine in cell.engines.values():
        state, _ = engine_state(view, engine)
        draw = _draw(view, engine, state)
        rise = draw - engine.watts.idle if state in ("held", "shared") else 0
        for domain in above.get(engine.node, ()):
            figures[domain].update(
                engines=1, off=state == "off", idle=engine.watts.idle, held=rise, draw=draw
            )
    found: list[Shown] = []
    for name, known in sorted(cell.domains.items()):
        purse, sums = f"domain:{name}", figures[name]
        limit, granted = limit_of(cell, purse), total(view, purse)
        found.append(
            {
                "apiVersion": API_VERSION,
                "name": name,
                "parent": known.parent or None,
                "budget_watts": known.budget_watts,
                "in_force_watts": None if limit is None else max(limit, granted) + sums["idle"],
                "idle_watts": sums["idle"],
                "held_watts": sums["held"],
                "granted_watts": granted,
                "free_watts": None if limit is None else max(0, limit - granted),
                "draw_watts": sums["draw"],
                "engines": sums["engines"],
                "off": sums["off"],
                "grants": {
                    holder: entry.value for holder, entry in view.grants.get(purse, {}).items()
                },
            }
        )
    return found


# ----------------------------------------------------------------------------------- processes


def session_shown(view: CellView, key: str) -> Shown:
    """Return a living process; `key` is "role/id" as in `CellView.sessions`."""
    session = view.sessions[key].value
    return {
        "apiVersion": API_VERSION,
        "name": session.name,
        "id": key.partition("/")[2],
        "role": session.role,
        "policy": session.policy or None,
        "pid": session.pid,
        "host": session.host,
        "started_at": session.started_at,
    }


def schedulers_shown(view: CellView) -> list[Shown]:
    """Return the living schedulers, by name."""
    shown = [session_shown(view, f"scheduler/{i}") for i in view.sessions_of("scheduler")]
    return sorted(shown, key=lambda item: (item["name"], item["id"]))


def held_engines(view: CellView) -> set[str]:
    """Return all engines that slices' placements name."""
    return {
        engine
        for name, entry in view.placements.items()
        if not name.startswith("~")
        for engines in entry.value.engines.values()
        for engine in engines
    }
