"""What must be true of a state at every revision? One function for each law, and for each subject.

A law returns what is wrong with one subject. What it reads of `Facts` must touch the subject there
when it changes.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

from flowos.model import keys
from flowos.model.cell import WHOLE_MILLIS
from flowos.model.life import is_quarantine
from flowos.model.placement import Circuit, Order, Placement, attached_to
from flowos.model.units import (
    engine_unit,
    host_unit,
    is_divisible,
    kind_of,
    lane_unit,
    share_unit,
    subject_of,
)
from flowos.protocol.orders import nothing_of, orders_of
from flowos.protocol.release import uid_of
from flowos.verify.facts import CLAIM, ByAttempt, Facts, Purse, thing_of, unit_of_claim


@dataclass(frozen=True, slots=True)
class Made:
    """The transaction that made one of the facts which cannot both be true.

    Attributes:
        revision: Its own; 0 = there is none, it was so as far back as is kept.
        wrote: "put <key>" and "deleted <key>".
        by: Who did it, as far as the records tell; "" = not known any more.
        made: The fact, as a clause for people.
        kept: Whether the history still has it; else the fact is at least as old as `revision`.
    """

    revision: int
    wrote: tuple[str, ...]
    by: str
    made: str
    kept: bool


@dataclass(frozen=True, slots=True)
class Violation:
    """One law broken at one place.

    Attributes:
        law: Its name, see `LAWS`.
        where: The key, unit or slice that it is about.
        sentence: What is wrong, with the numbers.
        revision: At which it was first seen to be so.
        details: The same for programs; JSON.
        transactions: Which made it so, in the order in which they were; one where one did it all.
    """

    law: str
    where: str
    sentence: str
    revision: int
    details: Mapping[str, Any] = field(default_factory=dict)
    transactions: tuple[Made, ...] = ()


class Fault(NamedTuple):
    """What a law finds wrong with a subject."""

    where: str
    sentence: str
    details: Mapping[str, Any]


def fault(where: str, sentence: str, **details: object) -> Fault:
    """Return a fault with its details."""
    return Fault(where, sentence, details)


# ------------------------------------------------------------------------- records and claims


def readable(facts: Facts, key: str) -> Iterator[Fault]:
    """Every record can be read, and is about what its key says."""
    why = facts.unreadable.get(key)
    if why is not None:
        yield fault(key, f"{key} cannot be read: {why}", why=why)


def claims(facts: Facts, below: str) -> Iterator[Fault]:
    """The claims are the units that placements list, each once, with owner, attempt and amounts."""
    key = CLAIM + below
    claim = facts.claims.get(below)
    listed = facts.listed.get(below, {})
    if len(listed) > 1:
        names = sorted(listed)
        yield fault(key, f"{below} is listed by {' and by '.join(names)}", placements=names)
    for name in sorted(listed):
        if (name, below) in facts.twice:
            yield fault(
                key, f"{name} lists {below} as held and as releasing", placements=[name, name]
            )
    if claim is None and listed:
        names = sorted(listed)
        sentence = f"{names[0]} lists {below}, but no claim is there"
        yield fault(key, sentence, placements=names, claim=None)
    elif claim is not None and not listed:
        yield fault(
            key,
            f"{below} is claimed for {claim.owner}, which does not list it",
            owner=claim.owner,
            attempt=claim.attempt,
        )
    elif claim is not None and claim not in listed.values():
        wanted = listed[min(listed)]
        yield fault(
            key,
            f"the claim of {below} says {_said(claim)}, its placement says {_said(wanted)}",
            claim=list(claim),
            listed=list(wanted),
        )


def _said(claim: tuple[str, str, tuple[int, ...]]) -> str:
    owner, attempt, amounts = claim
    return " ".join([owner, attempt, *map(str, amounts)])


def exists(facts: Facts, below: str) -> Iterator[Fault]:
    """What is claimed or listed exists in the inventory."""
    unit = unit_of_claim(below)
    if unit is None or not (below in facts.claims or below in facts.listed):
        return
    cell = facts.cell
    family, name = thing_of(unit)
    tables: Mapping[str, Mapping[str, object]] = {
        "engine": cell.engines,
        "node": cell.nodes,
        "switch": cell.switches,
        "link": cell.links,
    }
    kind = kind_of(unit)
    if name not in tables[family]:
        yield fault(CLAIM + below, f"{unit} is held, but there is no {family} {name}", unit=unit)
    elif kind == "lane":
        number, lanes = int(unit.rpartition("/")[2]), cell.links[name].lanes
        if number >= lanes:
            yield fault(CLAIM + below, f"{unit} is held, but {name} has {lanes} lanes", unit=unit)
    elif kind == "aggregator":
        number, aggregators = int(unit.rpartition("/")[2]), cell.switches[name].aggregators
        if number >= aggregators:
            yield fault(
                CLAIM + below,
                f"{unit} is held, but {name} has {aggregators} aggregators",
                unit=unit,
            )
    elif kind == "share" and not cell.engines[name].shareable:
        yield fault(CLAIM + below, f"{unit} is held, but {name} is not shareable", unit=unit)


# ------------------------------------------------------------------------- shares


def shares(facts: Facts, engine: str) -> Iterator[Fault]:
    """Shares of an engine add up to the whole at most, and none is beside a claim of the whole."""
    parts = facts.shares.get(engine)
    if not parts:
        return
    total = sum(parts.values())
    if total > WHOLE_MILLIS:
        yield fault(
            share_unit(engine),
            f"{total} thousandths of {engine} are claimed by {len(parts)} attempts",
            millis=total,
            attempts=sorted(parts),
        )
    whole = facts.claims.get(engine_unit(engine))
    if whole is not None:
        yield fault(
            share_unit(engine),
            f"{engine} is claimed whole for {whole.owner} and in parts by {len(parts)} attempts",
            owner=whole.owner,
            attempts=sorted(parts),
        )


def hosts(facts: Facts, node: str) -> Iterator[Fault]:
    """CPU and memory claimed of a node are at most what it has, devices at most what it takes."""
    parts, there = facts.hosts.get(node), facts.cell.nodes.get(node)
    if not parts or there is None:
        return
    cpu_millis = sum(amount[0] for amount in parts.values())
    memory_bytes = sum(amount[1] for amount in parts.values())
    if cpu_millis > there.cpu_millis or memory_bytes > there.memory_bytes:
        yield fault(
            host_unit(node),
            f"{cpu_millis} CPU thousandths and {memory_bytes} bytes of {node} are claimed, "
            f"it has {there.cpu_millis} and {there.memory_bytes}",
            cpu_millis=cpu_millis,
            memory_bytes=memory_bytes,
            attempts=sorted(parts),
        )
    devices = sum(amount[2] for amount in parts.values() if len(amount) > 2)
    if there.devices_max and devices > there.devices_max:
        yield fault(
            host_unit(node),
            f"{devices} devices are attached to {node}, it takes {there.devices_max} at once",
            devices=devices,
            attempts=sorted(parts),
        )


# ------------------------------------------------------------------------- orders


def up(facts: Facts, unit: str) -> Iterator[Fault]:
    """A unit without claim is up in no order, and none is up in orders of two attempts."""
    attempts = facts.up.get(unit)
    if not attempts:
        return
    divisible = is_divisible(unit)
    if len(attempts) > 1 and not divisible:
        names = sorted(attempts)
        yield fault(unit, f"{unit} is up in orders of {' and of '.join(names)}", attempts=names)
    for attempt in sorted(attempts):
        claim = facts.claims.get(f"{unit}/{attempt}" if divisible else unit)
        if claim is None:
            if kind_of(unit) == "lane" and facts.comes_with_engine(subject_of(unit), attempt):
                continue
            yield fault(unit, f"{unit} is up for {attempt}, which has no claim of it", up=attempt)
        elif claim.attempt != attempt:
            yield fault(
                unit,
                f"{unit} is up for {attempt} but claimed by {claim.attempt} of {claim.owner}",
                up=attempt,
                claimed=claim.attempt,
            )


def orders(facts: Facts, attempt: str) -> Iterator[Fault]:
    """The orders of an attempt are those that follow from its placement."""
    there = facts.orders.get(attempt, {})
    listed: set[str] = set()
    for name in sorted(facts.by_attempt.get(attempt, ())):
        placement = facts.placements[name].value
        if not placement.ordered and not placement.held:
            continue
        wanted = orders_of(facts.cell, name, placement)
        for place in sorted(wanted.keys() - set(placement.ordered)):
            yield fault(
                keys.order(place, attempt),
                f"{name} should have an order at {place}, which it does not list",
                placement=name,
            )
        for place in placement.ordered:
            if place in listed:
                yield fault(
                    keys.order(place, attempt),
                    f"two placements of {attempt} list an order at {place}",
                    placement=name,
                )
            listed.add(place)
            nothing = nothing_of(name, placement)
            yield from _as_wanted(facts, name, attempt, place, wanted.get(place, nothing))
    for place in sorted(there.keys() - listed):
        yield fault(
            keys.order(place, attempt),
            f"the order of {attempt} at {place} belongs to no placement",
            slice=there[place].value.slice,
        )


def _as_wanted(facts: Facts, name: str, attempt: str, place: str, wanted: Order) -> Iterator[Fault]:
    key = keys.order(place, attempt)
    entry = facts.orders.get(attempt, {}).get(place)
    if entry is None:
        yield fault(key, f"{name} lists an order at {place}, but none is there", placement=name)
        return
    order = entry.value
    if is_quarantine(name):
        # One that it took along keeps the name of the slice that it was made for, and its grace.
        order = replace(order, slice=name, run=replace(order.run, grace_seconds=0.0))
    if order != wanted:
        parts = [
            part
            for part in ("slice", "units", "tasks", "bitstreams", "crossbar", "run", "off")
            if getattr(order, part) != getattr(wanted, part)
        ]
        yield fault(
            key,
            f"the order of {name} at {place} is not what its placement says: {', '.join(parts)}",
            placement=name,
            parts=parts,
            modified=entry.modified,
        )


def reports(facts: Facts, subject: ByAttempt) -> Iterator[Fault]:
    """A report is about an order that is there, in a version that it has had."""
    place, attempt = subject
    report = facts.reports.get(attempt, {}).get(place)
    if report is None:
        return
    key = keys.report(place, attempt)
    order = facts.orders.get(attempt, {}).get(place)
    if order is None:
        yield fault(key, f"{place} reports on an order of {attempt} that is not there")
        return
    newest = max(report.value.applied, report.value.building)
    if newest > order.modified:
        yield fault(
            key,
            f"{place} reports on revision {newest} of an order last written at {order.modified}",
            reported=newest,
            modified=order.modified,
        )


def attempts(facts: Facts, attempt: str) -> Iterator[Fault]:
    """An attempt is of one placement, and of what is split off from it for dead places."""
    names = [name for name in facts.by_attempt.get(attempt, ()) if not is_quarantine(name)]
    if len(names) > 1:
        names.sort()
        yield fault(
            keys.placement(names[0]),
            f"{' and '.join(names)} are all attempt {attempt}",
            attempt=attempt,
            placements=names,
        )


def bitstreams(facts: Facts, engine: str) -> Iterator[Fault]:
    """No task runs on an engine whose observed bitstream is not the wanted one."""
    seen = facts.observed.get(engine)
    if seen is None or not seen.task:
        return
    for name in sorted(facts.by_attempt.get(seen.task, ())):
        wanted = facts.placements[name].value.bitstreams.get(engine, "")
        if wanted and wanted != seen.bitstream:
            yield fault(
                keys.observed(engine),
                f"a task of {name} runs on {engine}, which has {seen.bitstream or 'no bitstream'} "
                f"and not {wanted}",
                placement=name,
                wanted=wanted,
                observed=seen.bitstream,
            )


# ------------------------------------------------------------------------- placements


def circuits(facts: Facts, name: str) -> Iterator[Fault]:
    """A circuit joins engines of its slice without a gap, over links that exist, on lanes it holds.

    Where its streams become one there is an aggregator that it holds and that can compute it. What
    it attaches to a host that limits that, it holds of the host.
    """
    entry = facts.placements.get(name)
    # What is being given back loses its lanes one by one; its circuits are only remembered.
    if entry is None or not entry.value.circuits or entry.value.ending or not entry.value.held:
        return
    placement = entry.value
    ends = _ends_of(placement)
    crossed: dict[str, Circuit] = {}
    used: dict[str, Circuit] = {}
    for circuit in placement.circuits:
        for problem in (
            *_strangers(circuit, ends),
            *_gaps(facts, circuit),
            *_lanes(facts, placement, circuit, crossed),
            *_aggregators(placement, circuit, used),
        ):
            yield fault(
                keys.placement(name),
                f"circuit {circuit.id} of {name} {problem}",
                circuit=circuit.id,
            )
    for node, devices in attached_to(facts.cell.nodes, placement.circuits).items():
        held = sum(placement.held.get(host_unit(node), ())[2:])
        if facts.cell.nodes[node].devices_max and held < len(devices):
            yield fault(
                keys.placement(name),
                f"{name} holds room for {held} of the {len(devices)} that it attaches to {node}",
                node=node,
                devices=len(devices),
            )


def _ends_of(placement: Placement) -> set[str]:
    """Return the engines and hosts that a slice holds, where circuits may start and end."""
    engines = {subject_of(u) for u in placement.held if kind_of(u) in ("engine", "share", "host")}
    return engines.union(*placement.hosts.values())


def _strangers(circuit: Circuit, ends: Collection[str]) -> Iterator[str]:
    for source in circuit.sources or (circuit.source,):
        if source not in ends:
            yield f"starts at {source}, which is not of the slice"
    for target in circuit.targets:
        if target not in ends:
            yield f"ends at {target}, which is not of the slice"
    if not circuit.targets:
        yield "has no target"
    if circuit.sources and circuit.source != circuit.sources[0]:
        yield f"has the source {circuit.source}, and {circuit.sources[0]} as the first of all"
    if circuit.sources and len(circuit.targets) > 1:
        yield "has several sources and several targets"


def _gaps(facts: Facts, circuit: Circuit) -> Iterator[str]:
    """Say where a circuit is no tree from its source, or sources, through switches, to its ends."""
    cell = facts.cell
    leaving: dict[str, list[str]] = {}
    entered: dict[str, list[int]] = {}  # by the numbers of the arcs
    leaves: dict[str, list[int]] = {}
    ends: list[str] = []
    for number, arc in enumerate(circuit.arcs):
        link = cell.links.get(arc.link)
        if link is None:
            yield f"crosses {arc.link}, which is no link"
            return
        if arc.direction not in ("fwd", "rev"):
            yield f"crosses {arc.link} in direction {arc.direction!r}"
            return
        start, end = link.a_thing, link.b_thing
        if arc.direction == "rev":
            start, end = end, start
        leaving.setdefault(start, []).append(end)
        leaves.setdefault(start, []).append(number)
        entered.setdefault(end, []).append(number)
        ends.append(end)
    if circuit.sources:
        yield from _unmerged(facts, circuit, entered, leaves, ends)
        return
    reached, ahead = {circuit.source}, [circuit.source]
    while ahead:
        for thing in leaving.get(ahead.pop(), ()):
            if thing not in reached:
                reached.add(thing)
                ahead.append(thing)
    for target in circuit.targets:
        if target not in reached:
            yield f"does not lead from {circuit.source} to {target}"
    for thing in leaving:
        if thing not in reached:
            yield f"has a piece from {thing} that its source does not lead to"
        elif thing != circuit.source and thing not in cell.switches:
            yield f"is to turn at {thing}, which is no switch"
    for thing, numbers in entered.items():
        if len(numbers) > 1 or thing == circuit.source:
            yield f"comes to {thing} twice"
        elif thing not in leaving and thing not in circuit.targets:
            yield f"ends at {thing}, which is no target"
    if circuit.aggregators:
        yield f"has {circuit.aggregators[0]}, but only one source"


def _unmerged(
    facts: Facts,
    circuit: Circuit,
    entering: Mapping[str, Sequence[int]],
    leaving: Mapping[str, Sequence[int]],
    ends: Sequence[str],
) -> Iterator[str]:
    """Say where the streams of an aggregation tree do not all come to its target.

    Args:
        facts: What the switches can compute.
        circuit: With sources.
        entering: Thing -> the numbers of the arcs that lead to it, in their order.
        leaving: Thing -> the numbers of the arcs that lead away from it.
        ends: Where each arc leads.
    """
    switches = facts.cell.switches
    merging: dict[str, int] = {}
    for unit in circuit.aggregators:
        there = subject_of(unit)
        merging[there] = merging.get(there, 0) + 1
        switch = switches.get(there)
        if switch is None or circuit.aggregate not in switch.functions:
            yield f"has {unit}, but {there} cannot compute {circuit.aggregate or 'nothing'!r}"
    after: dict[int, int] = {}  # by which arc a stream goes on
    for thing in {**entering, **leaving}:
        came, goes = entering.get(thing, ()), leaving.get(thing, ())
        if thing in circuit.targets:
            if goes:
                yield f"does not end at its target {thing}"
        elif thing in circuit.sources:
            if came or len(goes) > 1:
                yield f"does not start at its source {thing} as one stream"
        elif thing not in switches:
            yield f"is to turn at {thing}, which is no switch"
        elif thing in merging:
            if len(came) < 2 or len(goes) != 1 or merging[thing] > 1:
                yield (
                    f"makes {len(came)} streams {len(goes)} at {thing} "
                    f"with {merging[thing]} aggregators"
                )
            after |= dict.fromkeys(came, goes[0]) if goes else {}
        else:
            if len(came) != len(goes):
                yield f"makes {len(came)} streams {len(goes)} at {thing} without an aggregator"
            after |= zip(came, goes, strict=False)
    for there in merging.keys() - entering.keys():
        yield f"has an aggregator of {there}, where it does not come by"
    walked: set[int] = set()
    for source in circuit.sources:
        here: int | None = next(iter(leaving.get(source, ())), None)
        seen: set[int] = set()
        last = source
        while here is not None and here not in seen:
            seen.add(here)
            last = ends[here]
            here = after.get(here)
        walked |= seen
        if last not in circuit.targets:
            yield f"does not lead from {source} to {', '.join(circuit.targets)}"
    for number in sorted(set(range(len(ends))) - walked):
        yield f"has a piece to {ends[number]} that no source leads to"


def _aggregators(placement: Placement, circuit: Circuit, used: dict[str, Circuit]) -> Iterator[str]:
    """Say which aggregators a circuit uses that are not held, or used already."""
    for unit in circuit.aggregators:
        if unit not in placement.held:
            yield f"uses {unit}, which it does not hold"
        other = used.setdefault(unit, circuit)
        if other is not circuit or circuit.aggregators.count(unit) > 1:
            yield f"uses {unit}, which {other.id} uses too"


def _lanes(
    facts: Facts, placement: Placement, circuit: Circuit, crossed: dict[str, Circuit]
) -> Iterator[str]:
    """Say which lanes a circuit crosses that are not there, not held, or crossed already."""
    mine: Counter[str] = Counter()
    for arc in circuit.arcs:
        link = facts.cell.links.get(arc.link)
        if link is None:
            continue
        comes = (
            engine_unit(link.a_thing) in placement.held
            or engine_unit(link.b_thing) in placement.held
        )
        if not arc.lanes:
            yield f"crosses {arc.link} on no lane"
        for number in arc.lanes:
            lane = lane_unit(arc.link, arc.direction, number)
            if not 0 <= number < link.lanes:
                yield f"crosses {lane}, but {arc.link} has {link.lanes} lanes"
            elif not comes and lane not in placement.held:
                yield f"crosses {lane}, which it does not hold"
            mine[lane] += 1
            other = crossed.setdefault(lane, circuit)
            if other is not circuit or mine[lane] > 1:
                yield f"crosses {lane}, which {other.id} crosses too"


def uids(facts: Facts, name: str) -> Iterator[Fault]:
    """A placement is of the slice whose name it has, or is being given back.

    A slice that was deleted and submitted again leaves a placement for a moment: until somebody
    has seen it. So the only mistake is a placement made after the slice that it is not of.
    """
    entry, slice_ = facts.placements.get(name), facts.slices.get(name)
    if entry is None or slice_ is None or name.startswith("~") or entry.value.ending is not None:
        return
    uid = uid_of(entry.created, entry.value)
    if uid != slice_.created <= entry.created:
        yield fault(
            keys.placement(name),
            f"the placement of {name} is of slice {uid}, but {slice_.created} has that name",
            uid=uid,
            created=slice_.created,
        )


# ------------------------------------------------------------------------- grants


def grants(facts: Facts, purse: Purse) -> Iterator[Fault]:
    """What a scheduler's placements use of a limit is within its grant."""
    used = facts.spent.get(purse, 0)
    grant = facts.grants.get(purse.purse, {}).get(purse.holder, 0)
    if used > grant:
        yield fault(
            keys.grant(purse.purse, purse.holder),
            f"{purse.holder} uses {used} of {purse.purse} and was granted {grant}",
            used=used,
            granted=grant,
        )


class Law(NamedTuple):
    """What must hold of each subject, and in which set of `Touched` these are."""

    look: Callable[[Facts, Any], Iterator[Fault]]
    subjects: str


# Laws of a state. Those of a step from one state to the next are in steps.py.
LAWS: Final[Mapping[str, Law]] = {
    "readable": Law(readable, "records"),
    "claims": Law(claims, "claims"),
    "exists": Law(exists, "claims"),
    "shares": Law(shares, "engines"),
    "hosts": Law(hosts, "hosts"),
    "up": Law(up, "units"),
    "orders": Law(orders, "attempts"),
    "reports": Law(reports, "reports"),
    "attempts": Law(attempts, "attempts"),
    "bitstreams": Law(bitstreams, "observed"),
    "circuits": Law(circuits, "circuits"),
    "uids": Law(uids, "uids"),
    "grants": Law(grants, "purses"),
}
