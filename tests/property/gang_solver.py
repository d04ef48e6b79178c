"""Can a gang be placed at all: engines, hosts and circuits together? By integer programming.

An oracle for the planner that shares nothing with it. Each engine of each role, each node of a
host role and each arc of each circuit is a variable of 0 or 1; HiGHS says whether all demands can
be met at once. Either-or requests are tried choice by choice.
"""

from collections.abc import Iterable, Sequence
from itertools import product

import highspy

from flowos.model.cell import Link
from flowos.model.slice import CircuitWish, EngineChoice, HostRole, Shape, SliceSpec
from flowos.model.units import lane_unit
from flowos.model.view import CellView
from tests.unit.planning.laws import available, leaves_of, meets

SECONDS_MAX = 20.0  # a cell that takes longer proves nothing either way

Member = tuple[str, int]  # role, rank
Arc = tuple[Link, str, str, str]  # link, direction, from, to


def placeable(view: CellView, spec: SliceSpec) -> bool | None:
    """Return whether there is any way to place a slice on what is free; None = not found out."""
    unknown = False
    roles = list(spec.engines)
    for choices in product(*(spec.engines[role].choices for role in roles)):
        found = _Program(view, spec, dict(zip(roles, choices, strict=True))).feasible()
        if found:
            return True
        unknown = unknown or found is None
    return None if unknown else False


class _Program:
    """One integer program: `rows` are (least, most, variables, factors)."""

    def __init__(self, view: CellView, spec: SliceSpec, choices: dict[str, EngineChoice]) -> None:
        self.view, self.spec, self.choices = view, spec, choices
        self.variables = 0
        self.rows: list[tuple[float, float, list[int], list[float]]] = []
        self.at: dict[Member, dict[str, int]] = {}  # rank -> engine or node -> variable
        self.impossible = False
        self.arcs = [*self._arcs()]
        self.use: dict[int, list[tuple[int, int]]] = {}  # arc -> (variable, lanes)
        self._seats()
        self._together()
        self._hosts()
        for wish in spec.circuits:
            self._wish(wish)
        self._capacities()

    def feasible(self) -> bool | None:
        """Return what the solver says; None = it ran out of time."""
        if self.impossible:
            return False
        if not self.variables:
            return True
        model = highspy.Highs()
        model.setOptionValue("output_flag", False)
        model.setOptionValue("threads", 1)
        model.setOptionValue("time_limit", SECONDS_MAX)
        for _ in range(self.variables):
            model.addVar(0.0, 1.0)
        for number in range(self.variables):
            model.changeColIntegrality(number, highspy.HighsVarType.kInteger)
        for least, most, columns, factors in self.rows:
            model.addRow(least, most, len(columns), columns, factors)
        model.run()
        status = model.getModelStatus()
        if status == highspy.HighsModelStatus.kOptimal:
            return True
        return False if status == highspy.HighsModelStatus.kInfeasible else None

    # -- small words

    def variable(self) -> int:
        self.variables += 1
        return self.variables - 1

    def row(self, least: float, most: float, terms: Iterable[tuple[int, float]]) -> None:
        """Say that a sum of variables lies between two bounds."""
        sums: dict[int, float] = {}
        for column, factor in terms:
            sums[column] = sums.get(column, 0.0) + factor
        if sums:
            self.rows.append((least, most, [*sums], [*sums.values()]))
        elif least > 0:
            self.impossible = True

    def at_most(self, most: float, terms: Iterable[tuple[int, float]]) -> None:
        self.row(-highspy.kHighsInf, most, terms)

    def one_of(self, columns: Iterable[int], count: int = 1) -> None:
        self.row(count, count, [(column, 1.0) for column in columns])

    # -- engines and hosts

    def _seats(self) -> None:
        """Each rank has one engine, and no engine serves two; shares add up to what is left."""
        whole: dict[str, list[int]] = {}
        shares: dict[str, list[tuple[int, float]]] = {}
        view = self.view
        for role, choice in self.choices.items():
            shared = choice.share_millis < 1000
            for rank in range(choice.count):
                seats = self.at[role, rank] = {}
                for engine in view.cell.engines.values():
                    node = f"node/{engine.node}"
                    if not meets(view, choice, engine):
                        continue
                    if shared and (node in view.holders or view.wanted.get(node)):
                        continue
                    if not shared and not available(view, engine.id):
                        continue
                    column = seats[engine.id] = self.variable()
                    if shared:
                        term = (column, float(choice.share_millis))
                        shares.setdefault(engine.id, []).append(term)
                    else:
                        whole.setdefault(engine.id, []).append(column)
                self.one_of(seats.values())
        for role, host in self.spec.hosts.items():
            if role not in self.spec.engines:
                self._host_seats(role, host)
        for name, terms in shares.items():
            left = float(view.free_millis(name))
            taken = [(column, left) for column in whole.get(name, ())]
            self.at_most(left, [*terms, *taken])
        for columns in whole.values():
            self.at_most(1, [(column, 1.0) for column in columns])

    def _host_seats(self, name: str, host: HostRole) -> None:
        taken: dict[str, list[int]] = {}
        for rank in range(max(host.count, 1)):
            seats = self.at[name, rank] = {}
            for node in self.view.cell.nodes:
                unit = f"node/{node}"
                if unit not in self.view.holders and not self.view.wanted.get(unit):
                    seats[node] = self.variable()
                    taken.setdefault(node, []).append(seats[node])
            self.one_of(seats.values())
        for columns in taken.values():
            self.at_most(1, [(column, 1.0) for column in columns])

    def _together(self) -> None:
        for role, choice in self.choices.items():
            word = self.spec.together.get(role, "any")
            if word == "any":
                continue
            places: dict[str, int] = {}
            for rank in range(choice.count):
                for engine, column in self.at[role, rank].items():
                    where = (
                        {engine.partition("/")[0]}
                        if word == "node"
                        else leaves_of(self.view, engine)
                    )
                    for place in where:
                        if place not in places:
                            places[place] = self.variable()
                    self.at_most(0, [(column, 1.0), *((places[p], -1.0) for p in where)])
            self.one_of(places.values())

    def _hosts(self) -> None:
        cpu: dict[str, list[tuple[int, float]]] = {}
        memory: dict[str, list[tuple[int, float]]] = {}
        for (role, _), seats in self.at.items():
            host = self.spec.hosts.get(role)
            if host is None or (role in self.spec.engines and host.count):
                continue
            for end, column in seats.items():
                node = end.partition("/")[0]
                cpu.setdefault(node, []).append((column, float(host.cpu_millis)))
                memory.setdefault(node, []).append((column, float(host.memory_bytes)))
        for node in cpu:
            free_cpu, free_memory = self.view.free_host(node)
            self.at_most(free_cpu, cpu[node])
            self.at_most(free_memory, memory[node])

    # -- circuits

    def _arcs(self) -> Iterable[Arc]:
        """Yield all crossings of links that are in service, between things that are."""
        view = self.view

        def open_(thing: str) -> bool:
            unit = f"switch/{thing}"
            return unit not in view.holders and not view.wanted.get(unit)

        for link in view.cell.links.values():
            unit = f"link/{link.name}"
            if unit in view.holders or view.wanted.get(unit):
                continue
            if open_(link.a_thing) and open_(link.b_thing):
                yield link, "fwd", link.a_thing, link.b_thing
                yield link, "rev", link.b_thing, link.a_thing

    def _capacities(self) -> None:
        for number, terms in self.use.items():
            link, direction, _, _ = self.arcs[number]
            units = [lane_unit(link.name, direction, lane) for lane in range(link.lanes)]
            free = [u for u in units if u not in self.view.holders and not self.view.wanted.get(u)]
            self.at_most(len(free), [(column, float(lanes)) for column, lanes in terms])

    def _wish(self, wish: CircuitWish) -> None:
        ends = [[m for m in self.at if m[0] == role] for role in wish.roles]
        if wish.shape is Shape.FLOW:
            sources, targets = ends[0], ends[-1]
            for source in sources:
                others = [target for target in targets if target != source]
                if len(sources) == 1:
                    self._tree(source, others, wish.lanes)
                else:
                    for target in others:
                        self._tree(source, [target], wish.lanes)
            return
        members = list(dict.fromkeys(member for role in ends for member in role))
        for source, target in pairs(wish.shape, members):
            self._tree(source, [target], wish.lanes)

    def _tree(self, source: Member, targets: Sequence[Member], lanes: int) -> None:
        """Carry one unit to each target over arcs that together enter each switch once."""
        if not targets:
            return
        cell, bounds = self.view.cell, self.spec.constraints
        tree: dict[int, int] = {}
        for number, (_, _, tail, head) in enumerate(self.arcs):
            usable = tail in cell.switches or tail in self.at[source]
            if usable and (head in cell.switches or any(head in self.at[t] for t in targets)):
                tree[number] = self.variable()
                self.use.setdefault(number, []).append((tree[number], lanes))
        for switch in cell.switches:
            self.at_most(1, [(c, 1.0) for n, c in tree.items() if self.arcs[n][3] == switch])
        for target in targets:
            flow = {number: self.variable() for number in tree}
            for number, column in flow.items():
                self.at_most(0, [(column, 1.0), (tree[number], -1.0)])
            things = {thing for n in flow for thing in self.arcs[n][2:]}
            things |= self.at[source].keys() | self.at[target].keys()
            for thing in things:
                out = [(c, 1.0) for n, c in flow.items() if self.arcs[n][2] == thing]
                into = [(c, -1.0) for n, c in flow.items() if self.arcs[n][3] == thing]
                starts = [(c, -1.0) for e, c in self.at[source].items() if e == thing]
                stops = [(c, 1.0) for e, c in self.at[target].items() if e == thing]
                self.row(0, 0, [*out, *into, *starts, *stops])
                if thing not in cell.switches:
                    self.at_most(0, [*out, *starts])
            if bounds.max_hops:
                self.at_most(bounds.max_hops, [(c, 1.0) for c in flow.values()])
            if bounds.max_latency_ns:
                self.at_most(
                    bounds.max_latency_ns, [(c, self._latency(n)) for n, c in flow.items()]
                )

    def _latency(self, number: int) -> float:
        link, _, _, head = self.arcs[number]
        switch = self.view.cell.switches.get(head)
        return link.latency_ns + (switch.latency_ns if switch else 0)


def pairs(shape: Shape, members: Sequence[Member]) -> list[tuple[Member, Member]]:
    """Return who sends to whom in a shape."""
    if len(members) < 2:
        return []
    match shape:
        case Shape.RING:
            return list(zip(members, [*members[1:], members[0]], strict=True))
        case Shape.ALL:
            return [(a, b) for a in members for b in members if a != b]
        case _:
            hub = members[0]
            return [pair for other in members[1:] for pair in ((hub, other), (other, hub))]
