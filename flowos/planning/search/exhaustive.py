"""Is there any plan at all? In a small cell every one is tried, up to what is alike.

The planner's quick ways can miss: who chooses first may leave nothing for the next, and circuits
are laid one after the other. Here all choices, engines, hosts, ranks and ways are gone through,
each kind of alike engines and nodes once. It is asked only after the quick ways failed.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import combinations, product
from typing import Final, NamedTuple, TypeAlias

from flowos.model.cell import WHOLE_MILLIS
from flowos.model.placement import Arc, Circuit
from flowos.model.slice import CircuitWish, Constraints, Shape
from flowos.planning.circuits.route import Wish, wishes_of
from flowos.planning.demand import Demand, HostWant, Want
from flowos.planning.engines.choose import Draft
from flowos.planning.engines.pool import NOWHERE, Direction, Pool
from flowos.planning.search.exact import Verdict

ENGINES_MAX: Final = 64  # that could serve: beyond this there is too much to try
NODES_MAX: Final = 64  # the same, for roles that ask for hosts alone
STEPS_MAX: Final = 20_000  # things tried before it gives up: 0.1 s at most
_WAYS_MAX: Final = 256  # ways between two ends; longer detours than these help nobody

Lane: TypeAlias = tuple[str, Direction]
Ports: TypeAlias = tuple[tuple[str, int, int, int, str], ...]


class Found(NamedTuple):
    """A whole plan.

    Attributes:
        wants: Role -> which of its choices is met.
        engines: Role -> engine ids in rank order.
        hosts: Role without engines -> nodes.
        circuits: In the order of their numbers.
    """

    wants: Mapping[str, Want]
    engines: Mapping[str, tuple[str, ...]]
    hosts: Mapping[str, tuple[str, ...]]
    circuits: tuple[Circuit, ...]


class _Engine(NamedTuple):
    """An engine that some role could use.

    Attributes:
        site: Number of its node.
        lefts: For each choice of each role, the thousandths it could have; 0 = none.
        leaves: Its leaf switches.
        colour: Engines of one node and one colour are interchangeable.
    """

    id: str
    site: int
    lefts: Mapping[int, int]
    leaves: tuple[str, ...]
    colour: int


class _Way(NamedTuple):
    """A way from a source to one target.

    Attributes:
        arcs: (tail, head, link, direction) of each link crossed.
    """

    arcs: tuple[tuple[str, str, str, Direction], ...]
    latency_ns: int


Mark: TypeAlias = tuple[int, str]  # thousandths taken, for which bitstream


def search(
    draft: Draft,
    demand: Demand,
    circuits: Sequence[CircuitWish] = (),
    bounds: Constraints | None = None,
    *,
    name: str = "",
    avoid: Collection[str] = (),
    in_total: bool = False,
    steps_max: int = STEPS_MAX,
) -> Found | Verdict:
    """Find any plan, or prove that there is none.

    Args:
        draft: What is free; nothing is taken off it.
        demand: From `demand_of`.
        circuits: What the slice wants joined.
        bounds: On every circuit.
        name: Circuits are called "<name>/<number>".
        avoid: Units not to use, of which only lanes, links and switches are looked at: the draft
            knows of the others.
        in_total: Ask only whether there is enough in the cell, wherever it is: `together` is
            left out, and host resources are summed over all nodes.
        steps_max: How much is tried before the answer is UNKNOWN.
    """
    try:
        return _Search(
            draft, demand, circuits, bounds or Constraints(), name, avoid, in_total, steps_max
        ).run()
    except _Spent:
        return Verdict.UNKNOWN


class _Spent(Exception):
    """So much was tried that the answer stays open."""


class _Search:
    def __init__(
        self,
        draft: Draft,
        demand: Demand,
        circuits: Sequence[CircuitWish],
        bounds: Constraints,
        name: str,
        avoid: Collection[str],
        in_total: bool,
        steps_max: int,
    ) -> None:
        self.draft = draft.copy()
        self.draft.wake = True
        self.pool: Pool = draft.pool
        self.demand = demand
        self.circuits = circuits
        self.name = name
        self.in_total = in_total
        self.steps = steps_max
        self.maze = _Maze(self.pool, bounds, avoid, self)
        self.numbers = {id(w): n for n, w in enumerate(w for ws in demand.engines for w in ws)}
        self.engines: list[_Engine] = []
        self.at: dict[int, list[int]] = {}
        self.marks: list[tuple[Mark, ...]] = []
        self.hosts: dict[int, tuple[int, int]] = {}
        self.still: dict[int, int] = {}
        self.ends: dict[str, tuple[str, ...]] = {}
        self.wants: dict[str, Want] = {}
        self.failed: set[object] = set()
        self.shades: dict[object, int] = {}

    def run(self) -> Found | Verdict:
        if any(wish.aggregate for wish in self.circuits):
            raise _Spent  # what is computed on the way takes other ways than these
        self._survey()
        if self.in_total:
            cpu = sum(max(cpu, 0) for cpu, _ in self.hosts.values())
            memory = sum(max(memory, 0) for _, memory in self.hosts.values())
            self.hosts = {-1: (cpu, memory)}
        order = sorted(
            self.demand.engines,
            key=lambda wants: (
                {"node": 0, "switch": 1}.get(wants[0].together, 2),
                wants[0].shared,
                -wants[0].count,
            ),
        )
        return self._roles(order, 0) or Verdict.NONE

    def shade(self, colour: object) -> int:
        """Return a number for a colour: quicker to compare, and to sort, than what it stands for."""
        return self.shades.setdefault(colour, len(self.shades))

    def _ports(self, end: str) -> Ports:
        return self.maze.profile(end) if self.circuits else ()

    def step(self) -> None:
        """Count one thing tried."""
        self.steps -= 1
        if self.steps < 0:
            raise _Spent

    # -- what there is

    def _survey(self) -> None:
        wants = [want for wants in self.demand.engines for want in wants]
        stocks = [self.pool.stock(want.wares) for want in wants]
        if any(stock.existing > ENGINES_MAX for stock in stocks):
            raise _Spent
        hosted = bool(self.demand.hosts)
        if hosted and len(self.pool.numbers) > NODES_MAX:
            raise _Spent
        for site in self.pool.sites:
            if site is None:
                continue
            lefts: dict[int, dict[int, int]] = {}
            for want, stock in zip(wants, stocks, strict=True):
                number = self.numbers[id(want)]
                whole = self.draft.engines(site.number, stock)
                for position in range(len(site.engines)):
                    if whole >> position & 1:
                        lefts.setdefault(position, {})[number] = WHOLE_MILLIS
                if want.shared:
                    for position, rest in self.draft.broken(site.number, stock):
                        if rest >= want.millis and self._loadable(site.engines[position], want):
                            lefts.setdefault(position, {})[number] = rest
            self.hosts[site.number] = self.draft.host(site.number)
            if not (lefts or hosted):
                continue
            here: list[int] = []
            for position, found in sorted(lefts.items()):
                engine = site.engines[position]
                leaves = tuple(
                    leaf for leaf, ports in site.leaves if ports >> position & 1 and leaf != NOWHERE
                )
                colour = self.shade((tuple(sorted(found.items())), leaves, self._ports(engine)))
                here.append(len(self.engines))
                self.engines.append(_Engine(engine, site.number, found, leaves, colour))
                self.marks.append(())
            self.at[site.number] = here
            linked = (site.linked, self._ports(site.name) if site.linked else ())
            colours = tuple(sorted(self.engines[e].colour for e in here))
            self.still[site.number] = self.shade((colours, linked))
        if len(self.engines) > ENGINES_MAX:
            raise _Spent

    def _loadable(self, engine: str, want: Want) -> bool:
        """Whether those who hold parts of an engine need the same bitstream, or none is wanted."""
        if not want.bitstream:
            return True
        view = self.pool.view
        return all(
            (placement := view.now(holder)) is not None
            and placement.bitstreams.get(engine) == want.bitstream
            for holder in view.shares.get(engine, ())
        )

    # -- engines

    def _roles(self, order: Sequence[Sequence[Want]], turn: int) -> Found | None:
        if turn == len(order):
            return self._host_roles(0)
        for want in order[turn]:
            for picked in self._sets(want):
                self.step()
                found = self._take(want, picked, order, turn)
                if found is not None:
                    return found
        return None

    def _take(
        self, want: Want, picked: Sequence[int], order: Sequence[Sequence[Want]], turn: int
    ) -> Found | None:
        mark = (want.millis, want.bitstream)
        before = self.hosts.copy()
        for e in picked:
            self.marks[e] = (*self.marks[e], mark)
            place = -1 if self.in_total else self.engines[e].site
            cpu, memory = self.hosts[place]
            self.hosts[place] = (cpu - want.cpu_millis, memory - want.memory_bytes)
        self.ends[want.role] = tuple(self.engines[e].id for e in picked)
        self.wants[want.role] = want
        found = None
        if not self.in_total or min(self.hosts[-1]) >= 0:
            found = self._roles(order, turn + 1)
        for e in picked:
            self.marks[e] = self.marks[e][:-1]
        self.hosts = before
        return found

    def _sets(self, want: Want) -> Iterator[list[int]]:
        """Yield the engines that a role could have, one of each kind of alike sets."""
        usable = [e for e in range(len(self.engines)) if self._usable(e, want)]
        if self.in_total or want.together not in ("node", "switch"):
            regions = [usable]
        elif want.together == "node":
            nodes = dict.fromkeys(self.engines[e].site for e in usable)
            regions = [[e for e in usable if self.engines[e].site == n] for n in nodes]
        else:
            leaves = dict.fromkeys(leaf for e in usable for leaf in self.engines[e].leaves)
            regions = [[e for e in usable if leaf in self.engines[e].leaves] for leaf in leaves]
        for region in regions:
            if len(region) < want.count:
                continue
            groups: dict[int, dict[int, list[int]]] = {}
            for e in region:
                alike = self.shade((self.engines[e].colour, self.marks[e]))
                groups.setdefault(self.engines[e].site, {}).setdefault(alike, []).append(e)
            sites = [
                (self.shade((self._site_colour(site), tuple(sorted(kinds)))), site, kinds)
                for site, kinds in groups.items()
            ]
            sites.sort(key=lambda entry: entry[:2])
            limits = [
                min(sum(map(len, kinds.values())), self._hosted(site, want))
                for _, site, kinds in sites
            ]
            yield from self._spread(want.count, sites, limits, 0, [])

    def _spread(
        self,
        count: int,
        sites: Sequence[tuple[int, int, Mapping[int, list[int]]]],
        limits: Sequence[int],
        turn: int,
        chosen: list[tuple[int, ...]],
    ) -> Iterator[list[int]]:
        if turn == len(sites):
            if not count:
                yield [
                    e
                    for (_, _, kinds), counts in zip(sites, chosen, strict=True)
                    for group, number in zip((kinds[k] for k in sorted(kinds)), counts, strict=True)
                    for e in group[:number]
                ]
            return
        if sum(limits[turn:]) < count:
            return
        colour, _, kinds = sites[turn]
        sizes = [len(kinds[k]) for k in sorted(kinds)]
        alike = turn > 0 and sites[turn - 1][0] == colour
        for counts in product(*(range(size, -1, -1) for size in sizes)):
            # Of alike nodes the first has the most: the other orders are the same again.
            if sum(counts) > min(count, limits[turn]) or (alike and counts > chosen[-1]):
                continue
            self.step()
            chosen.append(counts)
            yield from self._spread(count - sum(counts), sites, limits, turn + 1, chosen)
            chosen.pop()

    def _usable(self, e: int, want: Want) -> bool:
        left = self.engines[e].lefts.get(self.numbers[id(want)], 0)
        marks = self.marks[e]
        if not want.shared:
            return left == WHOLE_MILLIS and not marks
        if left - sum(millis for millis, _ in marks) < want.millis:
            return False
        if any(millis == WHOLE_MILLIS for millis, _ in marks):
            return False
        loads = {bitstream for _, bitstream in marks if bitstream}
        return not (want.bitstream and loads - {want.bitstream})

    def _hosted(self, site: int, want: Want) -> int:
        """Return for how many engines a node has the host resources."""
        if self.in_total:
            return want.count
        cpu, memory = self.hosts[site]
        most = want.count
        if want.cpu_millis:
            most = min(most, cpu // want.cpu_millis)
        if want.memory_bytes:
            most = min(most, memory // want.memory_bytes)
        return max(most, 0)

    def _site_colour(self, site: int) -> int:
        marks = tuple(sorted((self.engines[e].colour, self.marks[e]) for e in self.at[site]))
        attached = any(host.attached for host in self.demand.hosts)
        devices = self.draft.attachable(site) if attached else None
        return self.shade((self.still[site], marks, self.hosts.get(site), devices))

    # -- hosts

    def _host_roles(self, turn: int) -> Found | None:
        if turn == len(self.demand.hosts):
            return self._joined()
        host = self.demand.hosts[turn]
        before = self.hosts.copy()
        for nodes in self._nodes(host):
            self.step()
            devices = self._devices(host)
            for number in nodes:
                cpu, memory = self.hosts[number]
                self.hosts[number] = (cpu - host.cpu_millis, memory - host.memory_bytes)
                if devices:
                    self.draft.attach(number, devices)
            self.ends[host.role] = tuple(
                "" if number < 0 else self.draft.site(number).name for number in nodes
            )
            found = None
            if not self.in_total or min(self.hosts[-1]) >= 0:
                found = self._host_roles(turn + 1)
            self.hosts = before.copy()
            for number in nodes if devices else ():
                self.draft.attach(number, -devices)
            if found is not None:
                return found
        return None

    def _devices(self, host: HostWant) -> int:
        """Return how many engines are attached to each node of a role."""
        if self.in_total:
            return 0
        return host.devices({role: want.count for role, want in self.wants.items()})

    def _nodes(self, host: HostWant) -> Iterator[tuple[int, ...]]:
        if self.in_total:
            yield (-1,) * host.count
            return
        devices = self._devices(host)
        fitting = [
            number
            for number, (cpu, memory) in self.hosts.items()
            if cpu >= host.cpu_millis
            and memory >= host.memory_bytes
            and self.draft.attaches(number, devices)
            and (self.draft.site(number).linked or not host.linked)
            and host.at in ("", self.draft.site(number).name)
        ]
        colours = {number: self._site_colour(number) for number in fitting}
        fitting.sort(key=lambda number: (colours[number], number))
        seen: set[tuple[int, ...]] = set()
        for nodes in combinations(fitting, host.count):
            alike = tuple(colours[number] for number in nodes)
            if alike not in seen:
                seen.add(alike)
                yield nodes

    # -- ranks and circuits

    def _joined(self) -> Found | None:
        if not self.circuits:
            return self._found(self.ends, ())
        for ends in self._ranks():
            wishes = wishes_of(self.circuits, ends)
            alike = self._alike(wishes)
            if alike in self.failed:
                continue
            circuits = None if self.maze.is_narrow(wishes) else self.maze.lay(wishes, self.name)
            if circuits is not None:
                return self._found(ends, circuits)
            self.failed.add(alike)
        return None

    def _found(self, ends: Mapping[str, tuple[str, ...]], circuits: tuple[Circuit, ...]) -> Found:
        roles = [wants[0].role for wants in self.demand.engines]
        return Found(
            {role: self.wants[role] for role in roles},
            {role: ends[role] for role in roles},
            {host.role: ends[host.role] for host in self.demand.hosts},
            circuits,
        )

    def _alike(self, wishes: Sequence[Wish]) -> object:
        """Return what decides whether wishes can be routed: the ports of their ends."""
        names: dict[str, tuple[Ports, int]] = {}
        count: dict[Ports, int] = {}
        for wish in wishes:
            for end in (wish.source, *wish.targets):
                if end not in names:
                    profile = self.maze.profile(end)
                    count[profile] = count.get(profile, 0) + 1
                    names[end] = (profile, count[profile])
        return tuple(
            sorted(
                (names[w.source], tuple(sorted(names[t] for t in w.targets)), w.lanes)
                for w in wishes
            )
        )

    def _ranks(self) -> Iterator[dict[str, tuple[str, ...]]]:
        """Yield the ends of all roles, in every order that makes a difference to circuits."""
        ordered: dict[str, int] = {}
        for wish in self.circuits:
            if wish.shape is Shape.RING:
                ordered.update(
                    {role: ordered.get(role, 0) + 1 for role in dict.fromkeys(wish.roles)}
                )
            elif wish.shape in (Shape.STAR, Shape.TORUS, Shape.EXPLICIT):
                ranked = wish.roles if wish.shape is Shape.EXPLICIT else wish.roles[:1]
                ordered.update({role: ordered.get(role, 0) + 2 for role in ranked})
        roles = [role for role in ordered if len(self.ends[role]) > 1]
        # A ring of one role that nothing else ranks may begin anywhere.
        turns = len(roles) == 1 and ordered[roles[0]] == 1 and len(ordered) == 1
        for picked in product(*(self._orders(self.ends[role], fixed=turns) for role in roles)):
            self.step()
            yield {**self.ends, **dict(zip(roles, picked, strict=True))}

    def _orders(self, ends: Sequence[str], *, fixed: bool) -> Iterator[tuple[str, ...]]:
        """Yield every order of ends, alike ones once."""
        kinds: dict[Ports, list[str]] = {}
        for end in ends:
            kinds.setdefault(self.maze.profile(end), []).append(end)
        labels = [self.maze.profile(end) for end in ends]
        count = {label: len(group) for label, group in kinds.items()}

        def grow(line: list[Ports]) -> Iterator[tuple[str, ...]]:
            if len(line) == len(labels):
                self.step()  # they are all held at once below: of 32 engines too many for any memory
                taken = {label: iter(group) for label, group in kinds.items()}
                yield tuple(next(taken[label]) for label in line)
                return
            for label in [labels[0]] if fixed and not line else list(count):
                if count[label]:
                    count[label] -= 1
                    line.append(label)
                    yield from grow(line)
                    line.pop()
                    count[label] += 1

        yield from grow([])


class _Maze:
    """The free lanes of a cell, and every way through them."""

    def __init__(
        self, pool: Pool, bounds: Constraints, avoid: Collection[str], search: _Search
    ) -> None:
        self.pool = pool
        self.bounds = bounds
        self.search = search
        self.avoid = frozenset(avoid)
        self.free: dict[Lane, int] = {}
        self._taken: dict[Lane, int] = {}
        self._profiles: dict[str, Ports] = {}
        self._ways: dict[tuple[str, str, int], list[_Way]] = {}
        self.cut = False  # whether some ends have more ways than are looked at

    def _is_open(self, unit: str) -> bool:
        return unit not in self.pool.shut and unit not in self.avoid

    def left(self, link: str, direction: Direction) -> int:
        """Return how many lanes of a link are free."""
        key = (link, direction)
        found = self.free.get(key)
        if found is None:
            lanes = self.pool.view.cell.links[link].lanes
            taken = self.pool.view.lanes_taken.get(key, 0) | self.pool.spoken.get(key, 0)
            for lane in range(lanes):
                if f"lane/{link}/{direction}/{lane}" in self.avoid:
                    taken |= 1 << lane
            self._taken[key] = taken
            closed = not self._is_open(f"link/{link}")
            found = self.free[key] = 0 if closed else max(lanes - taken.bit_count(), 0)
        return found

    def beside(self, end: str) -> Iterator[tuple[str, str, Direction, Direction]]:
        """Yield (other end, link, direction away, direction back) of an end's links."""
        cell = self.pool.view.cell
        for name in cell.links_at.get(end, ()):
            link = cell.links[name]
            if link.a_thing == end:
                yield link.b_thing, name, "fwd", "rev"
            else:
                yield link.a_thing, name, "rev", "fwd"

    def profile(self, end: str) -> Ports:
        """Return what of an end matters to its circuits; a direct link makes it unlike any other."""
        found = self._profiles.get(end)
        if found is None:
            cell = self.pool.view.cell
            found = self._profiles[end] = tuple(
                sorted(
                    (
                        other,
                        self.left(link, away),
                        self.left(link, back),
                        cell.links[link].latency_ns,
                        "" if other in cell.switches else link,
                    )
                    for other, link, away, back in self.beside(end)
                )
            )
        return found

    def is_narrow(self, wishes: Sequence[Wish]) -> bool:
        """Whether some end has fewer free lanes at its ports than all its circuits together ask.

        Each circuit leaves its source once and enters each of its targets once. Seen at a glance,
        this spares the search for ways that cannot all be there.
        """
        leaving: dict[str, int] = {}
        entering: dict[str, int] = {}
        for wish in wishes:
            leaving[wish.source] = leaving.get(wish.source, 0) + wish.lanes
            for target in wish.targets:
                entering[target] = entering.get(target, 0) + wish.lanes
        return any(
            sum(self.left(link, away) for _, link, away, _ in self.beside(end)) < lanes
            for end, lanes in leaving.items()
        ) or any(
            sum(self.left(link, back) for _, link, _, back in self.beside(end)) < lanes
            for end, lanes in entering.items()
        )

    def ways(self, source: str, target: str, lanes: int) -> list[_Way]:
        """Return every way within the bounds that has the lanes before any circuit is laid."""
        key = (source, target, lanes)
        known = self._ways.get(key)
        if known is None:
            known = self._ways[key] = []
            if not self._walk(source, target, lanes, known):
                self.cut = True
            known.sort(key=lambda way: (len(way.arcs), way.latency_ns))
        return known

    def _walk(self, source: str, target: str, lanes: int, found: list[_Way]) -> bool:
        cell, bounds = self.pool.view.cell, self.bounds
        arcs: list[tuple[str, str, str, Direction]] = []
        been = {source}

        def go(here: str, latency: int) -> bool:
            for other, link, away, _ in self.beside(here):
                self.search.step()
                if other in been or self.left(link, away) < lanes:
                    continue
                is_switch = other in cell.switches
                if other != target and not (is_switch and self._is_open(f"switch/{other}")):
                    continue
                there = latency + cell.links[link].latency_ns
                there += cell.switches[other].latency_ns if is_switch else 0
                if bounds.max_latency_ns and there > bounds.max_latency_ns:
                    continue
                if bounds.max_hops and len(arcs) + 1 > bounds.max_hops:
                    continue
                arcs.append((here, other, link, away))
                if other == target:
                    if len(found) == _WAYS_MAX:
                        arcs.pop()
                        return False
                    found.append(_Way(tuple(arcs), there))
                else:
                    been.add(other)
                    if not go(other, there):
                        arcs.pop()
                        return False
                    been.discard(other)
                arcs.pop()
            return True

        return go(source, 0)

    def lay(self, wishes: Sequence[Wish], name: str) -> tuple[Circuit, ...] | None:
        """Return circuits for all wishes, or None where no choice of ways serves them all."""
        legs = [(wish, target) for wish in wishes for target in wish.targets]
        every = {leg: self.ways(leg[0].source, leg[1], leg[0].lanes) for leg in legs}
        used: dict[Lane, int] = {}
        trees: dict[int, dict[str, tuple[str, Direction]]] = {w.number: {} for w in wishes}
        chosen: dict[tuple[int, str], _Way] = {}

        def fits(wish: Wish, way: _Way) -> bool:
            tree = trees[wish.number]
            for _, head, link, direction in way.arcs:
                known = tree.get(head)
                if known is None:
                    lanes = used.get((link, direction), 0) + wish.lanes
                    if lanes > self.left(link, direction):
                        return False
                elif known != (link, direction):
                    return False
            return True

        def go(left: list[tuple[Wish, str]]) -> bool:
            if not left:
                return True
            best: tuple[Wish, str] | None = None
            options: list[_Way] = []
            for leg in left:
                fitting = [way for way in every[leg] if fits(leg[0], way)]
                self.search.step()
                if not fitting:
                    return False
                if best is None or len(fitting) < len(options):
                    best, options = leg, fitting
            assert best is not None, "something is left"
            wish, target = best
            tree = trees[wish.number]
            rest = [leg for leg in left if leg != best]
            for way in options:
                self.search.step()
                added = [arc for arc in way.arcs if arc[1] not in tree]
                for _, head, link, direction in added:
                    tree[head] = (link, direction)
                    used[link, direction] = used.get((link, direction), 0) + wish.lanes
                chosen[wish.number, target] = way
                if go(rest):
                    return True
                for _, head, link, direction in added:
                    del tree[head]
                    used[link, direction] -= wish.lanes
            return False

        if not go(legs):
            if self.cut:
                raise _Spent
            return None
        given: dict[Lane, int] = {}
        return tuple(
            self._circuit(wish, [chosen[wish.number, t] for t in wish.targets], name, given)
            for wish in wishes
        )

    def _circuit(
        self, wish: Wish, ways: Sequence[_Way], name: str, given: dict[Lane, int]
    ) -> Circuit:
        arcs: list[Arc] = []
        path: dict[str, None] = {wish.source: None}
        for way in ways:
            for _, head, link, direction in way.arcs:
                if head in path:
                    continue
                taken = given.get((link, direction), self._taken[link, direction])
                lanes: list[int] = []
                for _ in range(wish.lanes):
                    lowest = ~taken & (taken + 1)
                    lanes.append(lowest.bit_length() - 1)
                    taken |= lowest
                given[link, direction] = taken
                arcs.append(Arc(link, direction, tuple(lanes)))
                path[head] = None
        return Circuit(
            id=f"{name}/{wish.number}",
            source=wish.source,
            targets=wish.targets,
            path=tuple(path),
            arcs=tuple(arcs),
            lanes=wish.lanes,
            latency_ns=max(way.latency_ns for way in ways),
        )
