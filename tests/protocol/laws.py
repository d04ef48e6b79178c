"""Do the laws of the shared state hold? Written from the design, not from the code under test.

`Laws.look` is shown every state in turn, with what is built on the devices, and raises at the
first one that breaks a law, by itself or as the successor of the one before.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import zip_longest
from typing import Any, NamedTuple

from flowos.model.cell import Cell, Domain, Tenant
from flowos.model.codec import decode
from flowos.model.placement import Order, Placement
from flowos.model.rules import Reservation
from flowos.model.slice import Phase, Slice
from flowos.model.transaction import Versioned
from flowos.model.units import Amounts

State = Mapping[str, Versioned]
CLAIM: Any = tuple[str, str, tuple[int, ...]]  # how a claim is written: see Claim


class LawBroken(AssertionError):
    """A law of the shared state does not hold."""


class Built(NamedTuple):
    """A unit that is up on the devices of a place, for an attempt."""

    place: str
    unit: str
    attempt: str


class Claim(NamedTuple):
    """Who a claim says holds a unit."""

    identifier: str
    attempt: str
    amounts: Amounts


@lru_cache(maxsize=20_000)
def read(kind: Any, value: bytes) -> Any:
    """Decode a record; the same bytes come again and again."""
    return decode(kind, value)


def family(state: State, name: str) -> Iterator[tuple[str, Versioned]]:
    """Yield the keys of a family, without its name."""
    start = f"{name}/"
    for key, record in state.items():
        if key.startswith(start):
            yield key[len(start) :], record


def law(holds: bool, sentence: str) -> None:
    """Raise unless it holds."""
    if not holds:
        raise LawBroken(sentence)


class Laws:
    """The laws of one cell, and what of its past they need to know."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self.before: State = {}
        self.over: set[tuple[str, int]] = set()
        self._placements: dict[str, Placement] = {}
        self._parts: dict[tuple[str, str], Amounts] = {}  # (unit, attempt) -> the most it had

    def look(self, state: State, built: Iterable[Built]) -> None:
        """Check a state and the step that led to it."""
        placements = {n: read(Placement, r.value) for n, r in family(state, "placement")}
        claims = {n: Claim(*read(CLAIM, r.value)) for n, r in family(state, "claim")}
        orders = {tuple(n.rsplit("/", 1)): read(Order, r.value) for n, r in family(state, "order")}
        self._claims(placements, claims)
        self._capacities(claims)
        self._reservations(state, claims)
        self._orders(state, placements, claims, orders)
        self._devices(claims, orders, sorted(built))
        self._parts_of_devices(placements, claims, sorted(built))
        self._circuits(placements)
        self._grants(state, placements)
        for name, placement in placements.items():
            if not name.startswith("~"):
                self._slice(state, name, placement)
        self.before = state
        self._placements = placements

    # -- claims

    def _claims(self, placements: Mapping[str, Placement], claims: Mapping[str, Claim]) -> None:
        listed: dict[str, Claim] = {}
        for name, placement in placements.items():
            law(
                not placement.held.keys() & placement.releasing.keys(),
                f"{name} lists a unit both as held and as releasing",
            )
            for unit, amounts in (*placement.held.items(), *placement.releasing.items()):
                key = f"{unit}/{placement.attempt}" if _divisible(unit) else unit
                law(key not in listed, f"{key} is listed by {name} and {listed.get(key)}")
                listed[key] = Claim(name, placement.attempt, tuple(amounts))
        if listed != claims:
            keys = sorted(k for k in {*listed, *claims} if listed.get(k) != claims.get(k))
            detail = ", ".join(f"{k}: {claims.get(k)} / {listed.get(k)}" for k in keys)
            raise LawBroken(f"claims are not what placements list: {detail}")

    def _capacities(self, claims: Mapping[str, Claim]) -> None:
        shares: dict[str, int] = defaultdict(int)
        hosts: dict[str, list[Amounts]] = defaultdict(list)
        for unit, claim in claims.items():
            if unit.startswith("share/"):
                shares[unit.split("/", 1)[1].rpartition("/")[0]] += claim.amounts[0]
            elif unit.startswith("host/"):
                hosts[unit.split("/")[1]].append(claim.amounts)
        for engine, millis in shares.items():
            law(millis <= 1000, f"{millis} thousandths of {engine} are given away")
            law(f"engine/{engine}" not in claims, f"{engine} is given away whole and in parts")
        for node, amounts in hosts.items():
            there = self.cell.nodes[node]
            used = tuple(map(sum, zip_longest(*amounts, fillvalue=0)))
            fits = used[0] <= there.cpu_millis and used[1] <= there.memory_bytes
            fits &= not there.devices_max or sum(used[2:]) <= there.devices_max
            law(fits, f"host {node} is given away more than once: {used}")

    def _reservations(self, state: State, claims: Mapping[str, Claim]) -> None:
        """What is kept for somebody goes from there only to those whom it is kept for."""
        for name, record in family(self.before, "placement"):
            if not name.startswith("~reserved/"):
                continue
            reservation, _, unit = name.removeprefix("~reserved/").partition("/")
            if unit not in read(Placement, record.value).held:
                continue
            share = f"share/{unit.partition('/')[2]}/"
            rule = state.get(f"rule/reservation/{reservation}")
            tenants = read(Reservation, rule.value).tenants if rule else ()
            for key, claim in claims.items():
                taken = key == unit or key.startswith(share)
                if taken and not claim.identifier.startswith("~"):
                    tenant = claim.identifier.partition("/")[0]
                    sentence = f"{unit}, kept by {reservation}, went to {claim.identifier}"
                    law(tenant in tenants, sentence)

    def _owner(self, unit: str, claims: Mapping[str, Claim]) -> str | None:
        """Whose a whole unit is; a lane at the port of an engine held whole comes with it."""
        claim = claims.get(unit)
        if claim is None and unit.startswith("lane/"):
            link = self.cell.links[unit.split("/")[1]]
            for end in (link.a_thing, link.b_thing):
                claim = claim or claims.get(f"engine/{end}")
        return claim.attempt if claim else None

    # -- orders and devices

    def _orders(
        self,
        state: State,
        placements: Mapping[str, Placement],
        claims: Mapping[str, Claim],
        orders: Mapping[tuple[str, ...], Order],
    ) -> None:
        expected: dict[tuple[str, ...], str] = {}
        carriers: dict[str, list[str]] = defaultdict(list)
        for name, placement in placements.items():
            carriers[placement.attempt].append(name)
            for place in placement.ordered:
                key = (place, placement.attempt)
                law(key not in expected, f"{name} and {expected.get(key)} share the order {key}")
                expected[key] = name
        law(
            expected.keys() == orders.keys(),
            f"orders without placement, or lost: {sorted(expected.keys() ^ orders.keys())}",
        )
        for name, _ in family(state, "report"):
            law(tuple(name.rsplit("/", 1)) in orders, f"report {name} has no order")
        up: dict[str, str] = {}
        for (place, attempt), order in orders.items():
            placement = placements[expected[place, attempt]]
            if order.units:
                waits = [a for a in placement.waits if carriers.get(a)]
                law(not waits, f"{attempt} has orders at {place} but waits for {waits}")
            for unit in order.units:
                self._belongs(unit, place)
                if _divisible(unit):
                    law(f"{unit}/{attempt}" in claims, f"{unit} is up for {attempt} unclaimed")
                    continue
                owner = self._owner(unit, claims)
                law(owner == attempt, f"{unit} is up for {attempt} but claimed by {owner}")
                other = up.setdefault(unit, attempt)
                law(other == attempt, f"{unit} is up in two orders: {other} and {attempt}")

        for name, placement in placements.items():
            if not placement.waits and not name.startswith("~"):
                self._everything_ordered(name, placement, orders)

    def _belongs(self, unit: str, place: str) -> None:
        ends = {thing.partition("/")[2] for thing in self._things(unit)}
        law(place in ends, f"{unit} is ordered at {place}, which cannot build it")

    def _everything_ordered(
        self, name: str, placement: Placement, orders: Mapping[tuple[str, ...], Order]
    ) -> None:
        """Units at their place, and every lane of a circuit at both of its ends."""
        units = [unit for unit in placement.held if not unit.startswith("lane/")]
        for circuit in placement.circuits if placement.held else ():
            for arc in circuit.arcs:
                units += [f"lane/{arc.link}/{arc.direction}/{n}" for n in arc.lanes]
        for unit in units:
            for place in {thing.partition("/")[2] for thing in self._things(unit)}:
                order = orders.get((place, placement.attempt))
                there = place not in self.cell.links
                law(
                    not there or (order is not None and unit in order.units),
                    f"{unit} of {name} is not ordered at {place}",
                )

    def _devices(
        self,
        claims: Mapping[str, Claim],
        orders: Mapping[tuple[str, ...], Order],
        built: Iterable[Built],
    ) -> None:
        ordered: dict[str, set[str]] = defaultdict(set)
        for (_, attempt), order in orders.items():
            for unit in order.units:
                ordered[_exclusive(unit)].add(_user(unit, attempt))
        users: dict[str, set[str]] = defaultdict(set)
        for _, unit, attempt in built:
            thing, user = _exclusive(unit), _user(unit, attempt)
            users[thing].add(user)
            law(
                len(users[thing]) == 1,
                f"{thing} is built for two: {sorted(users[thing])}",
            )
            owner = self._owner(thing, claims)
            free = owner is None and not _divisible(unit)
            law(not free, f"{unit} is free but still built for {attempt}")
            others = ordered[thing] - {user}
            law(not others, f"{thing} is ordered for {sorted(others)} while built for {user}")

    def _parts_of_devices(
        self,
        placements: Mapping[str, Placement],
        claims: Mapping[str, Claim],
        built: Iterable[Built],
    ) -> None:
        """Parts that are in use are claimed for their user, or by somebody who waits for it."""
        for key, claim in claims.items():
            if _divisible(key):
                unit = key.rpartition("/")[0]
                had = self._parts.get((unit, claim.attempt), ())
                most = tuple(map(max, zip_longest(had, claim.amounts, fillvalue=0)))
                self._parts[unit, claim.attempt] = most
        users: dict[str, list[str]] = defaultdict(list)
        for _, unit, attempt in built:
            if _divisible(unit):
                users[unit].append(attempt)
        for unit, attempts in users.items():
            used = _sum(self._parts[unit, attempt] for attempt in attempts)
            law(_covers(self._there(unit), used), f"{used} of {unit} is built, for {attempts}")
            missing: list[Amounts] = []
            for attempt in attempts:
                mine = claims.get(f"{unit}/{attempt}")
                both = zip_longest(self._parts[unit, attempt], mine.amounts if mine else ())
                missing.append(tuple(had - (left or 0) for had, left in both))
            takers = _waiting_for(attempts, placements.values())
            engine = f"engine/{unit.partition('/')[2]}"
            if any(engine in p.held or engine in p.releasing for p in takers):
                continue
            covered = _sum({**p.held, **p.releasing}.get(unit, ()) for p in takers)
            law(
                _covers(covered, _sum(missing)),
                f"{unit} is free but still built for {' and '.join(attempts)}",
            )

    def _there(self, unit: str) -> Amounts:
        """How much of a divisible unit there is."""
        if unit.startswith("share/"):
            return (1000,)
        node = self.cell.nodes[unit.split("/")[1]]
        return node.cpu_millis, node.memory_bytes, node.devices_max or 1_000_000

    def _circuits(self, placements: Mapping[str, Placement]) -> None:
        for name, placement in placements.items():
            for circuit in placement.circuits if placement.held else ():
                held = placement.held
                reached = {circuit.source, *circuit.sources}
                arcs = list(circuit.arcs)
                while arcs:
                    links = {arc.link: self.cell.links[arc.link] for arc in arcs}
                    ends = {
                        arc: (links[arc.link].a_thing, links[arc.link].b_thing)[
                            :: 1 if arc.direction == "fwd" else -1
                        ]
                        for arc in arcs
                    }
                    next_ = [arc for arc in arcs if ends[arc][0] in reached]
                    law(bool(next_), f"a circuit of {name} is in pieces")
                    reached |= {ends[arc][1] for arc in next_}
                    arcs = [arc for arc in arcs if arc not in next_]
                law(set(circuit.targets) <= reached, f"a circuit of {name} misses a target")
                for end in (circuit.source, *circuit.targets):
                    mine = f"engine/{end}" in held or f"share/{end}" in held
                    law(mine, f"a circuit of {name} ends at {end}, which is not its own")
                for arc in circuit.arcs:
                    link = self.cell.links[arc.link]
                    port = {f"engine/{link.a_thing}", f"engine/{link.b_thing}"} & held.keys()
                    lanes = {f"lane/{arc.link}/{arc.direction}/{n}" for n in arc.lanes}
                    law(bool(port) or lanes <= held.keys(), f"{name} uses lanes of others")

    # -- grants

    def _grants(self, state: State, placements: Mapping[str, Placement]) -> None:
        used: dict[tuple[str, str], int] = defaultdict(int)
        for name, placement in placements.items():
            for purse, amount in placement.spent.items():
                used[purse, placement.scheduler] += amount
            if not name.startswith(("~off/", "~drain/", "~reserved/")):
                for purse, watts in self._draw(state, placement).items():
                    spent = placement.spent.get(purse, 0)
                    law(spent >= watts, f"{name} draws {watts} W of {purse} and says {spent}")
            self._covered(state, name, placement)
        grants = {n: read(int, r.value) for n, r in family(state, "grant")}
        for (purse, holder), amount in used.items():
            granted = grants.get(f"{purse}/{holder}", 0)
            law(amount <= granted, f"{holder} spends {amount} of a grant of {granted}")
        before = {n: read(int, r.value) for n, r in family(self.before, "grant")}
        for purse in {name.rpartition("/")[0] for name in grants}:
            total, earlier = (
                sum(amount for name, amount in table.items() if name.startswith(f"{purse}/"))
                for table in (grants, before)
            )
            if total > earlier:
                limit = self._limit(state, placements, purse)
                law(
                    limit is not None and total <= limit,
                    f"raising brings the grants to {total} over a limit of {limit}",
                )

    def _covered(self, state: State, name: str, placement: Placement) -> None:
        """What came after a quota is spent from it; what was there before stays as it was."""
        tenant = name.partition("/")[0]
        for kind in self._quota(state, tenant):
            purse = f"tenant:{tenant}:{kind}"
            uses, spent = self._uses(placement, kind), placement.spent.get(purse, 0)
            earlier = self._placements.get(name)
            known = kind in self._quota(self.before, tenant)
            lacked = self._uses(earlier, kind) - earlier.spent.get(purse, 0) if earlier else 0
            law(
                uses - spent <= max(0, lacked) or not known,
                f"{name} has {uses} of {purse} and says {spent}",
            )

    def _quota(self, state: State, tenant: str) -> Mapping[str, int]:
        record = state.get(f"tenant/{tenant}")
        return read(Tenant, record.value).quota if record else {}

    def _uses(self, placement: Placement, kind: str) -> int:
        """Thousandths of engines of a kind."""
        units = (*placement.held.items(), *placement.releasing.items())
        return sum(
            amounts[0] if amounts else 1000
            for unit, amounts in units
            if unit.startswith(("engine/", "share/"))
            and self.cell.engines[unit.partition("/")[2]].kind == kind
        )

    def _limit(self, state: State, placements: Mapping[str, Placement], purse: str) -> int | None:
        """What all grants may come to; a quota, less what runs since before there was one."""
        family, name, *kind = purse.split(":")
        if family == "domain":
            return self._budget(state, purse)
        quota = self._quota(state, name).get(kind[0])
        free = sum(
            max(0, self._uses(placed, kind[0]) - placed.spent.get(purse, 0))
            for other, placed in placements.items()
            if other.startswith(f"{name}/")
        )
        return None if quota is None else 1000 * quota - free

    def _budget(self, state: State, purse: str) -> int | None:
        record = state.get(f"domain/{purse.partition(':')[2]}")
        return read(Domain, record.value).budget_watts if record else None

    def _draw(self, state: State, placement: Placement) -> dict[str, int]:
        watts = 0
        for unit, amounts in (*placement.held.items(), *placement.releasing.items()):
            kind, _, engine = unit.partition("/")
            if kind in ("engine", "share"):
                busy = self.cell.engines[engine].watts.busy
                watts += busy if kind == "engine" else -(-busy * amounts[0] // 1000)
        limited = self._budget(state, "domain:d") is not None
        return {"domain:d": watts} if watts and limited else {}

    # -- a slice's life

    def _slice(self, state: State, name: str, placement: Placement) -> None:
        uid = placement.uid or state[f"placement/{name}"].created
        if placement.ending and placement.ending.phase is not Phase.PENDING:
            self.over.add((name, uid))
        earlier = self._placements.get(name)
        same = earlier is not None and earlier.attempt == placement.attempt
        if not same:
            law((name, uid) not in self.over, f"{name} was over and is committed again")
            record = self.before.get(f"slice/{name}") or state.get(f"slice/{name}")
            law(record is not None, f"{name} is committed without a request")
            assert record is not None
            wish = read(Slice, record.value)
            alive = not (wish.cancelled or wish.held or wish.end) and record.created == uid
            law(alive, f"{name} is committed while its request is {wish}")
        old = earlier.held if earlier is not None and same else {}
        if earlier is not None and same:
            grown = placement.held.keys() - earlier.held.keys()
            law(not grown or not earlier.ending, f"{name} grows while it ends")
        known = earlier.circuits if earlier is not None and same else ()
        crossed = [a for c in placement.circuits if c not in known for a in c.arcs]
        lanes = [f"lane/{arc.link}/{arc.direction}/0" for arc in crossed if placement.held]
        for unit in [*(placement.held.keys() - old.keys()), *lanes]:
            for thing in self._things(unit):
                law(
                    f"claim/{thing}" not in state, f"{name} takes {unit}, {thing} is out of service"
                )

    def _things(self, unit: str) -> Iterator[str]:
        kind, _, rest = unit.partition("/")
        if kind == "lane":
            link = self.cell.links[rest.split("/")[0]]
            yield f"link/{link.name}"
            ends = [link.a_thing.partition("/")[0], link.b_thing.partition("/")[0]]
        else:
            ends = [rest.split("/")[0]]
        for end in ends:
            yield f"switch/{end}" if end in self.cell.switches else f"node/{end}"


def _divisible(unit: str) -> bool:
    return unit.startswith(("share/", "host/"))


def _waiting_for(attempts: Iterable[str], placements: Iterable[Placement]) -> list[Placement]:
    """Who took from these attempts, or from who took from them and so on."""
    found: list[Placement] = []
    left, gone = list(placements), set(attempts)
    while taken := [p for p in left if gone.intersection(p.waits)]:
        found += taken
        gone |= {p.attempt for p in taken}
        left = [p for p in left if p not in taken]
    return found


def _sum(amounts: Iterable[Amounts]) -> Amounts:
    return tuple(map(sum, zip_longest(*amounts, fillvalue=0)))


def _covers(have: Amounts, wanted: Amounts) -> bool:
    return all(had >= want for had, want in zip_longest(have, wanted, fillvalue=0))


def _exclusive(unit: str) -> str:
    """What can be up for one user only; the parts of an engine have one user, all together."""
    return f"engine/{unit[len('share/') :]}" if unit.startswith("share/") else unit


def _user(unit: str, attempt: str) -> str:
    return "several" if _divisible(unit) else attempt
