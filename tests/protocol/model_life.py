"""The life of slices: commit, take-over, drain, power, quarantine, resize, lost answers, crashes.

Every actor plans on a snapshot, and its request is applied at any later time or never, so every
staleness of a view is covered. Orders and reports are keyed by node and attempt.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from tests.protocol.model_store import Broken, State, apply, ranked

Units = tuple[str, ...]
# X is on n1; Y, Z and the aggregator G are on n2; L is a lane of the link K between the two.
ENDS: Mapping[str, Units] = {
    "X": ("n1",),
    "Y": ("n2",),
    "Z": ("n2",),
    "G": ("n2",),
    "L": ("n1", "n2"),
    "out:n1": ("n1",),
    "out:n2": ("n2",),
    "out:K": ("n1", "n2"),
}
NODES = ("n1", "n2")


class Placed(NamedTuple):
    """A placement: what it holds, gives back, waits for, and how it ends."""

    attempt: str
    held: Units = ()
    releasing: Units = ()
    waits: Units = ()
    why: str = ""

    @property
    def units(self) -> Units:
        return self.held + self.releasing

    def but(self, **changes: Any) -> "Placed":
        return self._replace(**changes)


class At(NamedTuple):
    """A state, opened: dicts that may be changed, and packed again."""

    revision: int
    records: dict[Any, Any]
    slots: dict[str, Any]  # who -> (label, members): planned; "net A": on the network, from A
    known: dict[str, Any]  # node -> orders as its agent knows them
    built: frozenset[Any]  # (node, unit, attempt)
    budget: dict[str, int]
    past: frozenset[str]

    def but(self, **changes: Any) -> "At":
        return self._replace(**changes)

    def spends(self, what: str) -> "At":
        return self.but(budget={**self.budget, what: self.budget[what] - 1})

    def may(self, what: str) -> bool:
        return self.budget.get(what, 0) > 0


def nodes_of(units: Units) -> list[str]:
    return sorted({node for unit in units for node in ENDS[unit]})


def at(units: Units, node: str) -> Units:
    return tuple(unit for unit in units if node in ENDS[unit])


def things_of(units: Units) -> list[str]:
    """What must be in service for these units."""
    return [f"out:{node}" for node in nodes_of(units)] + ["out:K"] * ("L" in units)


def ordered(units: Units) -> Units:
    return tuple(sorted(units))


def put(key: Any, value: Any) -> Any:
    return ("put", key, value)


def delete(key: Any) -> Any:
    return ("delete", key)


def absent(key: Any) -> Any:
    return (key, "create", 0)


class Life:
    """A cell of two nodes; `wants` says which units each slice may be placed on."""

    def __init__(
        self,
        wants: Mapping[str, list[Units]],
        budget: Mapping[str, int],
        mistakes: tuple[str, ...] = (),
        *,
        actors: str = "Ac",
        eager: bool = True,
        rank: bool = True,
        keeps: Units = (),
        gangs: bool = False,
    ) -> None:
        """Describe what may happen.

        Args:
            wants: Slice -> the units that it can be placed on.
            budget: How often users, operators and accidents may do something.
            mistakes: Rules that are left out.
            actors: Capitals schedule, the others control.
            eager: The controllers' frees are applied when planned: fewer states.
            rank: Take states for one that differ only in numbers.
            keeps: What a slice that shrinks keeps; nothing = its first unit.
            gangs: Commits compare "no claim was put since my view" instead of each claim absent.
        """
        self.wants, self.bad, self.actors = wants, set(mistakes), actors
        self.budget, self.eager, self.rank = dict(budget), eager, rank
        self.keeps, self.gangs = keeps, gangs
        self.units = sorted({u for choices in wants.values() for units in choices for u in units})
        if budget.get("resize") and not keeps:
            self.units = sorted({*self.units, "L", "X", "Y"})

    def start(self) -> State:
        who = [*NODES, *(self.actors if self.budget.get("lose") else "")]
        records = {("session", name): ("", 1, 1) for name in who}
        known: dict[str, Any] = dict.fromkeys(NODES, ())
        return self.packed(At(1, records, {}, known, frozenset(), self.budget, frozenset()))

    def packed(self, s: At) -> State:
        live = (
            s.revision,
            tuple(sorted(s.records.items())),
            tuple(sorted(s.slots.items(), key=repr)),
            tuple(sorted(s.known.items())),
        )
        # Not even the counts of what may still happen are revisions: as floats they stay as they are.
        rest = tuple((what, float(left)) for what, left in sorted(s.budget.items()))
        whole = (*live, tuple(sorted(s.built)), rest, tuple(sorted(s.past)))
        return ranked(whole) if self.rank else whole

    def opened(self, state: State) -> At:
        revision, records, slots, known, built, budget, past = state
        left = {what: int(count) for what, count in budget}
        return At(
            revision,
            dict(records),
            dict(slots),
            dict(known),
            frozenset(built),
            left,
            frozenset(past),
        )

    # -- what records say

    @staticmethod
    def placements(records: Any) -> dict[str, Any]:
        """Return name -> (placement, mod_revision)."""
        return {k[1]: (Placed(*v[0]), v[2]) for k, v in records.items() if k[0] == "placement"}

    @staticmethod
    def applied(records: Any, node: str, attempt: str) -> bool:
        order = records.get(("order", node, attempt))
        if order is None:
            return True
        report = records.get(("report", node, attempt))
        return report is not None and report[0] >= order[2]

    def carried(self, records: Any, waits: Units) -> bool:
        return any(placed.attempt in waits for placed, _ in self.placements(records).values())

    # -- what each actor may ask for: (label, members)

    def plans(self, state: State, s: At, who: str) -> Iterator[tuple[str, Any]]:
        for label, members in self.schedules(state, s) if who.isupper() else self.controls(s):
            session = s.records.get(("session", who))
            if session is not None and "session not compared" not in self.bad:
                compare = (("session", who), "mod", session[2])
                members = tuple(((compare, *compares), ops) for compares, ops in members)
            yield label, members

    def schedules(self, state: State, s: At) -> Iterator[tuple[str, Any]]:
        placements = self.placements(s.records)
        for name, choices in self.wants.items():
            spec, there = s.records.get(("spec", name)), placements.get(name)
            if spec and spec[0] == "wanted" and there is None:
                for units in choices:
                    yield from self.commit(state, s, name, spec, units)
            if there and spec and there[0].held and not there[0].waits and s.may("resize"):
                yield from self.resize(s, name, there, spec)

    def commit(
        self, state: State, s: At, name: str, spec: Any, units: Units
    ) -> Iterator[tuple[str, Any]]:
        used = repr(state)
        attempt = next(a for a in map("a{}".format, range(99)) if f"'{a}'" not in used)
        compares: list[Any] = (
            [] if "spec not compared" in self.bad else [(("spec", name), "mod", spec[2])]
        )
        compares.append(absent(("placement", name)))
        operations: list[Any] = []
        over: list[str] = []
        claimed = [u for u in units if u != "G" or "aggregator is no unit" not in self.bad]
        for unit in claimed:
            claim = s.records.get(("claim", unit))
            if claim is None:
                compares.append(absent(("claim", unit)))
            elif claim[0][0].startswith("~off:"):
                compares.append((("claim", unit), "mod", claim[2]))
                operations.append(delete(("placement", claim[0][0])))
            else:
                over.append(unit)
        if "commit ignores service" not in self.bad:
            things = things_of(units)
            if "crossed links are not asked" in self.bad:
                things = [thing for thing in things if thing != "out:K"]
            known = any(("claim", thing) in s.records for thing in things)
            if known and "known absent is not checked" not in self.bad:
                return
            compares += [absent(("claim", thing)) for thing in things]
        if self.gangs:
            compares = [c for c in compares if c[0][0] != "claim" or c[2]]
            if "range since the request" not in self.bad:
                compares.append((("claim",), "below", s.revision))
        waits: Units = ()
        if over:
            taken = self.take(s.records, name, attempt, tuple(over)) if s.may("preempt") else None
            if taken is None:
                return
            compares += taken[0]
            operations += [op for op in taken[1] if op[1] != ("placement", name)]
            waits = next(op[2].waits for op in taken[1] if op[1] == ("placement", name))
        operations += [put(("claim", u), (name, attempt)) for u in claimed if u not in over]
        operations.append(put(("placement", name), Placed(attempt, tuple(claimed), waits=waits)))
        if not waits or "orders put at take-over" in self.bad:
            operations += [put(("order", n, attempt), at(units, n)) for n in nodes_of(units)]
        label = f"{'preempt' if over else 'commit'} {name}"
        yield label, ((tuple(compares), tuple(operations)),)

    def resize(self, s: At, name: str, there: Any, spec: Any) -> Iterator[tuple[str, Any]]:
        placed = there[0]
        keep = self.keeps or placed.held[:1]
        if set(keep) < set(placed.held):
            drop = tuple(unit for unit in placed.held if unit not in keep)
            still = keep
            if "a branch takes the shared lane" in self.bad:
                drop, still = (*drop, "L"), tuple(u for u in keep if u != "L")
            after = placed.but(held=still, releasing=ordered(placed.releasing + drop))
            yield f"shrink {name}", (self.rewrite(s.records, name, there, after, keep),)
        for unit in self.units if not self.keeps else ():
            if unit in placed.units or ("claim", unit) in s.records:
                continue
            held = ordered((*placed.held, unit))
            compares, operations = self.rewrite(s.records, name, there, placed.but(held=held), held)
            if "grow ignores state" in self.bad:
                compares = ()
            compares += (absent(("claim", unit)), (("spec", name), "mod", spec[2]))
            if "grow ignores service" not in self.bad:
                compares += tuple(absent(("claim", thing)) for thing in things_of((unit,)))
            operations += (put(("claim", unit), (name, placed.attempt)),)
            yield f"grow {name}", ((compares, operations),)

    def controls(self, s: At) -> Iterator[tuple[str, Any]]:
        for name, there in self.placements(s.records).items():
            if name[0] == "~":
                yield from self.control_system(s, name, there)
            else:
                yield from self.control_slice(s, name, there)
        for name in self.wants:
            spec = s.records.get(("spec", name))
            if spec and spec[0] == "cancel" and ("placement", name) not in s.records:
                compares = ((("spec", name), "mod", spec[2]), absent(("placement", name)))
                yield f"ended {name}", ((compares, (put(("spec", name), "ended"),)),)
        for unit in self.units:
            if len(ENDS[unit]) == 1:
                yield from self.take_from_use(s, unit)
        for thing in ("out:n1", "out:K") if s.may("cordon") else ():
            if ("claim", thing) not in s.records:
                yield f"cordon {thing}", (self.claimed(f"~drain:{thing}", thing),)

    def control_system(self, s: At, name: str, there: Any) -> Iterator[tuple[str, Any]]:
        if name.startswith("~off:"):
            yield f"on {name}", self.dropped(name, there)
        elif name.startswith("~quarantine:"):
            yield from self.free(s.records, name, there, None)
        elif not self.carried(s.records, there[0].waits) or "undrain does not wait" in self.bad:
            yield f"undrain {name}", self.dropped(name, there)

    def control_slice(self, s: At, name: str, there: Any) -> Iterator[tuple[str, Any]]:
        placed, spec = there[0], s.records.get(("spec", name))
        if placed.held:
            why = ""
            if spec is None or spec[0] == "cancel":
                why = "cancel"
            elif not placed.waits and all(
                self.applied(s.records, n, placed.attempt) for n in nodes_of(placed.held)
            ):
                why = "done"
            if why:
                after = placed.but(held=(), releasing=ordered(placed.units), why=why)
                compares, operations = self.rewrite(s.records, name, there, after, ())
                if "orders not rewritten at release" in self.bad:
                    operations = tuple(op for op in operations if op[1][0] != "order")
                if why == "done" and spec:
                    compares += ((("spec", name), "mod", spec[2]),)
                yield f"end {why} {name}", ((compares, operations),)
            if placed.waits and not self.carried(s.records, placed.waits):
                after = placed.but(waits=())
                yield f"arm {name}", (self.rewrite(s.records, name, there, after, placed.held),)
        if placed.releasing or not placed.held:
            yield from self.free(s.records, name, there, spec)
        for node in NODES:
            if ("session", node) not in s.records and at(placed.units, node):
                yield f"quarantine {node} {name}", (self.quarantine(s.records, node, name, there),)

    def take_from_use(self, s: At, unit: str) -> Iterator[tuple[str, Any]]:
        free = ("claim", unit) not in s.records
        if s.may("off") and free:
            compares, operations = self.claimed(f"~off:{unit}", unit)
            if "power-off compares nothing" in self.bad:
                compares = ()
            yield f"off {unit}", ((compares, operations),)
        if s.may("drain") and free:
            yield f"drain {unit}", (self.claimed(f"~drain:{unit}", unit),)
        elif s.may("drain"):
            taken = self.take(s.records, f"~drain:{unit}", "system", (unit,))
            if taken:
                yield f"drain over {unit}", (taken,)

    # -- the steps

    @staticmethod
    def claimed(name: str, unit: str) -> Any:
        """A system placement takes a free unit."""
        claim = put(("claim", unit), (name, "system"))
        placement = put(("placement", name), Placed("system", (unit,)))
        return (absent(("claim", unit)),), (claim, placement)

    @staticmethod
    def dropped(name: str, there: Any) -> Any:
        claims = tuple(delete(("claim", unit)) for unit in there[0].held)
        return (
            (((("placement", name), "mod", there[1]),), (*claims, delete(("placement", name)))),
        )

    @staticmethod
    def rewrite(records: Any, name: str, there: Any, after: Placed, up: Units) -> Any:
        """The placement becomes `after`; the orders of its nodes say what is to be up now."""
        operations = [put(("placement", name), after)]
        for node in nodes_of(after.units):
            wanted, key = at(up, node), ("order", node, after.attempt)
            if (key in records and records[key][0] != wanted) or (key not in records and wanted):
                operations.append(put(key, wanted))
        return ((("placement", name), "mod", there[1]),), tuple(operations)

    def take(self, records: Any, name: str, attempt: str, units: Units) -> Any:
        """The claims become ours; the victims go to releasing, without the units taken."""
        compares: list[Any] = []
        operations: list[Any] = []
        waits: list[str] = []
        placements = self.placements(records)
        for victim in sorted({records["claim", unit][0][0] for unit in units}):
            there = placements.get(victim)
            if there is None or victim == name:
                return None
            placed, modified = there
            if victim.startswith("~off:"):
                compares.append((("placement", victim), "mod", modified))
                operations.append(delete(("placement", victim)))
                continue
            if victim[0] == "~" or any(unit in placed.releasing for unit in units):
                return None
            keeps = "victim keeps taken units" in self.bad
            left = ordered(tuple(u for u in placed.units if u not in units or keeps))
            after = placed.but(held=(), releasing=left)
            more, writes = self.rewrite(records, victim, there, after, ())
            compares += more
            operations += writes
            waits.append(placed.attempt)
            written = {operation[1] for operation in operations}
            for node in nodes_of(units):
                key = ("order", node, placed.attempt)
                if key not in written and records.get(key, ((),))[0]:
                    operations.append(put(key, ()))
        operations += [put(("claim", unit), (name, attempt)) for unit in units]
        operations.append(put(("placement", name), Placed(attempt, units, waits=tuple(waits))))
        return tuple(compares), tuple(operations)

    def free(self, records: Any, name: str, there: Any, spec: Any) -> Iterator[tuple[str, Any]]:
        placed, modified = there
        if self.carried(records, placed.waits) and "free does not wait" not in self.bad:
            return
        mine = self.keys_of(records, name, placed.attempt)
        down = {node for node in NODES if self.applied(records, node, placed.attempt)}
        enough = any if "one end frees a lane" in self.bad else all
        told = ("G",) if "aggregator needs no report" in self.bad else ()
        clean = tuple(
            u for u in placed.releasing if u in told or enough(n in down for n in ENDS[u])
        )
        compares: tuple[Any, ...] = ((("placement", name), "mod", modified),)
        operations = tuple(delete(("claim", unit)) for unit in clean)
        over = not placed.held and clean == placed.releasing
        if "no claim left is enough" in self.bad and not placed.units:
            yield f"free {name}", ((compares, (delete(("placement", name)),)),)
        elif over and all(key[1] in down for key in mine):
            operations += (*map(delete, mine), delete(("placement", name)))
            if placed.why and spec and spec[0] != "ended" and "ended not written" not in self.bad:
                compares += ((("spec", name), "mod", spec[2]),)
                operations += (put(("spec", name), "ended"),)
            yield f"free {name}", ((compares, operations),)
        elif clean:
            left = tuple(unit for unit in placed.releasing if unit not in clean)
            operations += (put(("placement", name), placed.but(releasing=left)),)
            yield f"free part {name}", ((compares, operations),)

    def keys_of(self, records: Any, name: str, attempt: str) -> list[Any]:
        """Orders and reports that end with this placement: a quarantine has those of its node."""
        mine: list[Any] = [k for k in records if k[0] in ("order", "report") and k[2] == attempt]
        if name.startswith("~quarantine:"):
            return [key for key in mine if key[1] == name.split(":")[1]]
        parted = [
            other.split(":")[1]
            for other, (placed, _) in self.placements(records).items()
            if other.startswith("~quarantine:") and placed.attempt == attempt
        ]
        return [key for key in mine if key[1] not in parted]

    def quarantine(self, records: Any, node: str, name: str, there: Any) -> Any:
        placed = there[0]
        gone = ordered(at(placed.units, node))
        left = ordered(tuple(unit for unit in placed.units if unit not in gone))
        after = placed.but(held=(), releasing=left)
        compares, operations = self.rewrite(records, name, there, after, ())
        compares += (absent(("session", node)),)
        if "dead units become free" in self.bad:
            keys: list[Any] = [("order", node, placed.attempt), ("report", node, placed.attempt)]
            keys += [("claim", unit) for unit in gone]
            return compares, (*operations, *map(delete, keys))
        parted = f"~quarantine:{node}:{placed.attempt}"
        part = Placed(placed.attempt, (), gone, placed.waits)
        operations += tuple(put(("claim", unit), (parted, placed.attempt)) for unit in gone)
        operations += (put(("placement", parted), part),)
        written = {operation[1] for operation in operations}
        for there_too in nodes_of(gone):
            key = ("order", there_too, placed.attempt)
            if records.get(key, ((),))[0] and key not in written:
                operations += (put(key, ()),)
        return compares, operations

    # -- everything that can happen next

    def next(self, state: State) -> Iterator[tuple[str, State]]:
        s = self.opened(state)
        yield from self.user(s)
        for who in self.actors:
            if who in s.slots:
                yield from self.answers(s, who)
            elif f"unsure {who}" in s.slots:
                yield self.finds_out(s, who)
            else:
                yield from self.asks(state, s, who)
        for name, (label, members) in s.slots.items():
            if name.startswith("net"):
                yield f"late {label}", self.done(s, name, label, members)
        for node in NODES:
            yield from self.agent(s, node)

    def user(self, s: At) -> Iterator[tuple[str, State]]:
        def wrote(operation: Any, after: At) -> State:
            records, revision, _ = apply(s.records, s.revision, [((), (operation,))])
            return self.packed(after.but(records=records, revision=revision))

        for name in self.wants:
            spec, key = s.records.get(("spec", name)), ("spec", name)
            if spec is None and s.may(f"submit {name}"):
                fresh = s.spends(f"submit {name}").but(past=s.past - {f"done {name}"})
                yield f"submit {name}", wrote(put(key, "wanted"), fresh)
            if spec and spec[0] == "wanted" and s.may("cancel"):
                yield f"cancel {name}", wrote(put(key, "cancel"), s.spends("cancel"))
            if spec and spec[0] == "ended" and s.may(f"submit {name}"):
                yield f"forget {name}", wrote(delete(key), s)

    def asks(self, state: State, s: At, who: str) -> Iterator[tuple[str, State]]:
        for label, members in self.plans(state, s, who):
            word = label.split()[0]
            limited = {"shrink": "resize", "grow": "resize"}.get(word, word)
            after = s.spends(limited) if limited in s.budget else s
            waits = ("off", "drain", "cordon", "end", "quarantine")
            if self.eager and who.islower() and word not in waits:
                yield f"{label} at once", self.done(after, who, "", members)
            else:
                slots = {**s.slots, who: (label, members)}
                yield f"{label} planned by {who}", self.packed(after.but(slots=slots))

    def answers(self, s: At, who: str) -> Iterator[tuple[str, State]]:
        label, members = s.slots[who]
        rest = {name: slot for name, slot in s.slots.items() if name != who}
        yield f"{label} applied", self.done(s, who, label, members)
        yield f"{label} dropped", self.packed(s.but(slots=rest))
        if s.may("lose") and f"net {who}" not in s.slots:
            rest |= {f"net {who}": (label, members), f"unsure {who}": ("", ())}
            yield f"{label} lost", self.packed(s.spends("lose").but(slots=rest))

    def finds_out(self, s: At, who: str) -> tuple[str, State]:
        """Put the own session again, then look whether the lost request has happened."""
        records, revision = s.records, s.revision
        if "lost answers are only read" not in self.bad:
            fence = put(("session", who), "")
            records, revision, _ = apply(records, revision, [((), (fence,))])
        slots = {name: slot for name, slot in s.slots.items() if name != f"unsure {who}"}
        if f"net {who}" in slots:
            label, members = slots[f"net {who}"]
            slots[f"net {who}"] = (f"given up: {label}", members)
        after = s.but(records=records, revision=revision, slots=slots)
        return f"{who} finds out", self.packed(after)

    def agent(self, s: At, node: str) -> Iterator[tuple[str, State]]:
        orders = tuple(
            (key[2], value[2], value[0])
            for key, value in sorted(s.records.items())
            if key[0] == "order" and key[1] == node
        )
        if orders != s.known[node]:
            yield f"sync {node}", self.packed(s.but(known={**s.known, node: orders}))
        wanted = {(node, unit, attempt) for attempt, _, units in s.known[node] for unit in units}
        have = {one for one in s.built if one[0] == node}
        for one in sorted(have - wanted):
            yield "tear down {} {} {}".format(*one), self.packed(s.but(built=s.built - {one}))
        for one in sorted(wanted - have):
            if not any(other[1] == one[1] for other in have):
                yield "build {} {} {}".format(*one), self.packed(s.but(built=s.built | {one}))
        for attempt, modified, units in s.known[node]:
            mine = {one for one in have if one[2] == attempt}
            if mine != {(node, unit, attempt) for unit in units} or have - wanted:
                continue
            order = s.records.get(("order", node, attempt))
            report = s.records.get(("report", node, attempt))
            if order and order[2] == modified and (report is None or report[0] < modified):
                yield self.wrote(s, put(("report", node, attempt), modified), f"report {node}")
        if ("session", node) not in s.records:
            yield self.wrote(s, put(("session", node), ""), f"return {node}")
        elif s.may("die"):
            yield self.wrote(s.spends("die"), delete(("session", node)), f"die {node}")

    def wrote(self, s: At, operation: Any, label: str) -> tuple[str, State]:
        records, revision, _ = apply(s.records, s.revision, [((), (operation,))])
        return label, self.packed(s.but(records=records, revision=revision))

    def done(self, s: At, who: str, label: str, members: Any) -> State:
        records, revision, verdicts = apply(s.records, s.revision, members)
        past = set(s.past)
        if label and verdicts[0]:
            self.look_at(s, label, members, past)
        slots = {name: slot for name, slot in s.slots.items() if name != who}
        after = s.but(revision=revision, records=records, slots=slots, past=frozenset(past))
        return self.packed(after)

    def look_at(self, s: At, label: str, members: Any, past: set[str]) -> None:
        """What may not happen, though the state that it leads to looks like any other."""
        if label.startswith("given up"):
            raise Broken(f"{label}, and then it happened")
        word, *rest = label.split()
        if word in ("commit", "preempt"):
            (name,) = rest
            spec = s.records.get(("spec", name))
            if not spec or spec[0] != "wanted":
                raise Broken(f"{name} committed while its spec says {spec and spec[0]}")
            if f"done {name}" in past:
                raise Broken(f"{name} was done and is committed again")
        if word in ("commit", "preempt", "grow"):
            claimed = {op[1][1] for op in members[0][1] if op[0] == "put" and op[1][0] == "claim"}
            for thing in things_of(tuple(claimed)):
                if ("claim", thing) in s.records:
                    raise Broken(f"{label} while {thing[4:]} is out of service")
        if word == "end" and rest[0] == "done":
            past.add(f"done {rest[1]}")

    # -- what must hold

    def check(self, state: State) -> None:
        records = dict(state[1])
        listed: dict[str, tuple[str, str]] = {}
        for name, (placed, _) in self.placements(records).items():
            for unit in placed.units:
                if unit in listed:
                    raise Broken(f"{unit} is listed by {listed[unit][0]} and {name}")
                listed[unit] = (name, placed.attempt)
        claims = {key[1]: value[0] for key, value in records.items() if key[0] == "claim"}
        if claims != listed:
            raise Broken(f"claims {claims} but placements list {listed}")
        built: dict[str, str] = {}
        for _, unit, attempt in state[4]:
            if built.setdefault(unit, attempt) != attempt:
                raise Broken(f"{unit} is built for {built[unit]} and {attempt}")
        for unit, attempt in built.items():
            if unit not in claims:
                raise Broken(f"{unit} is free but still built for {attempt}")
            name, owner = claims[unit]
            if owner != attempt and name[0] != "~" and ("order", ENDS[unit][0], owner) in records:
                raise Broken(f"{unit} ordered for {owner} while built for {attempt}")

    def clean(self, state: State) -> bool:
        records = dict(state[1])
        left = [k for k, v in records.items() if k[0] != "session" and v[0] != "ended"]
        return not left and not state[2] and not state[4]
