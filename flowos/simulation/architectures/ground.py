"""Who has what of the cell now, what is off, and what does it draw? One truth for all architectures.

Everything that is held is a placement of one view, and the production planner plans on it. Offers,
too, are placements: what lies in them is nobody else's, and a framework plans with its own lifted.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext

from flowos.model.placement import Decision, Placement
from flowos.model.slice import SliceSpec
from flowos.model.units import (
    Amounts,
    Holding,
    engine_unit,
    host_unit,
    subject_of,
)
from flowos.model.view import CellView
from flowos.planning.engines.pool import Pool
from flowos.planning.place import plan
from flowos.simulation.architectures.measured import Area, Request
from flowos.simulation.architectures.parts import engines_of
from flowos.simulation.architectures.setup import PowerRules
from flowos.simulation.timeline import Timeline


class DoubleHold(Exception):
    """A unit was given to two slices: our own defect, in whichever architecture."""


class Ground:
    """The cell as it is."""

    def __init__(self, cell_view: CellView, line: Timeline, power: PowerRules) -> None:
        """Start with everything free and powered on."""
        self.line = line
        self.power = power
        self.view = cell_view
        self.pool = Pool(cell_view)
        self.freed = 0  # how often anything was given back
        self.changed = 0  # how often anything was given, given back, or powered off
        self.given_back: Callable[[Holding], None] = lambda _: None
        self.holding: dict[str, int] = {}  # engine -> the number of the request that has it
        self.kept: dict[int, Decision] = {}  # what requests keep that wait for more
        self.running: dict[int, tuple[Request, Decision, float]] = {}  # and until when
        self.held_by_class: dict[str, Counter[str]] = {}
        self.useful, self.hoarded, self.waking, self.watts = Area(), Area(), Area(), Area()
        self.wakes = 0
        self._ready_at: dict[str, float] = {}
        self._idle_since: dict[str, float] = {}
        self._state = dict.fromkeys(cell_view.cell.engines, "idle")
        self.watts.add(sum(e.watts.idle for e in cell_view.cell.engines.values()), 0.0)
        self._rests(list(cell_view.cell.engines))

    # -- planning

    def plan(
        self,
        spec: SliceSpec,
        *,
        name: str,
        lifted: Sequence[str] = (),
        avoid: Collection[str] = (),
        seed: int = 0,
    ) -> Decision | None:
        """Return where a slice goes on what is free, and on what these placements have."""
        with self.view.lifted(lifted) if lifted else nullcontext():
            found = plan(self.pool, spec, slice_name=name, avoid=avoid, seed=seed)
        return found if isinstance(found, Decision) else None

    def takeable(self, units: Holding, lifted: Sequence[str] = ()) -> bool:
        """Whether all of this is free, or what these placements have."""
        with self.view.lifted(lifted) if lifted else nullcontext():
            return all(self._is_free(unit, amounts) for unit, amounts in units.items())

    def _is_free(self, unit: str, amounts: Amounts) -> bool:
        if unit.startswith("host/"):
            return self.view.host_has(subject_of(unit), amounts)
        holder = self.view.holder(unit)
        return holder is None or holder.startswith("~off/")

    # -- slices

    def keep(self, request: Request, decision: Decision) -> None:
        """Give a request engines and hosts that it keeps while it waits for the rest.

        What it kept before and this does not name is given back.
        """
        before = self._kept_units(request)
        self._drop_kept(request)
        self._hold(request, decision)
        self.kept[request.number] = decision
        units = without_lanes(decision.units)
        self.view.assume(kept_name(request), Placement(0, kept_name(request), held=units))
        self.hoarded.add(len(engines_of(decision)), self.line.now)
        self._give_back(minus(before, units))

    def let_go(self, request: Request) -> None:
        """Give back what a request kept."""
        before = self._kept_units(request)
        self._drop_kept(request)
        self._give_back(before)

    def start(self, request: Request, decision: Decision) -> None:
        """Give a request all it asked for, and let it run; what it kept beyond that is given back."""
        before = self._kept_units(request)
        self._drop_kept(request)
        self._hold(request, decision)
        now = self.line.now
        placement = Placement(
            request.number + 1, request.name, held=decision.units, engines=decision.engines
        )
        self.view.assume(request.name, placement)
        request.placed_at = now
        engines = engines_of(decision)
        ready = max((self._ready_at.get(engine, 0.0) for engine in engines), default=0.0)
        ends_at = max(ready, now) + request.arrival.runs_s
        self.running[request.number] = (request, decision, ends_at)
        if ready > now:
            self.waking.add(len(engines), now)
            self.line.at(ready, lambda: self._up(engines))
        else:
            self._compute(engines)
        self.line.at(ends_at, lambda: self._end(request, decision))
        self._give_back(minus(before, decision.units))

    def _up(self, engines: Sequence[str]) -> None:
        self.waking.add(-len(engines), self.line.now)
        self._compute(engines)

    def _compute(self, engines: Sequence[str]) -> None:
        self.useful.add(len(engines), self.line.now)
        for engine in engines:
            self._become(engine, "busy")

    def _end(self, request: Request, decision: Decision) -> None:
        engines = engines_of(decision)
        self.useful.add(-len(engines), self.line.now)
        self.view.retract(request.name)
        del self.running[request.number]
        self._release(request, engines)
        self._give_back(without_lanes(decision.units))

    def _kept_units(self, request: Request) -> Holding:
        decision = self.kept.get(request.number)
        return without_lanes(decision.units) if decision else {}

    def _drop_kept(self, request: Request) -> None:
        decision = self.kept.pop(request.number, None)
        if decision is not None:
            self.view.retract(kept_name(request))
            engines = engines_of(decision)
            self.hoarded.add(-len(engines), self.line.now)
            self._release(request, engines)

    def _hold(self, request: Request, decision: Decision) -> None:
        self.changed += 1
        counted = self.held_by_class.setdefault(request.spec.policy, Counter())
        for engine in engines_of(decision):
            if engine in self.holding:
                raise DoubleHold(f"{engine}: {request.number} and {self.holding[engine]}")
            self.holding[engine] = request.number
            counted[self.view.cell.engines[engine].kind] += 1
            self._idle_since.pop(engine, None)
            if self._state[engine] == "off":
                self.wakes += 1
                self.view.retract(off_name(engine))
                self._become(engine, "idle")
                self._ready_at[engine] = self.line.now + self.power.wake_s
        for unit, amounts in decision.units.items():
            if unit.startswith("host/"):
                counted["cpu"] += amounts[0]

    def _release(self, request: Request, engines: Sequence[str]) -> None:
        self.changed += 1
        counted = self.held_by_class[request.spec.policy]
        for engine in engines:
            del self.holding[engine]
            counted[self.view.cell.engines[engine].kind] -= 1
            self._become(engine, "idle")
        self._rests(engines)

    def _give_back(self, units: Holding) -> None:
        if units:
            self.freed += 1
            self.given_back(offerable(units))

    # -- power

    def _become(self, engine: str, state: str) -> None:
        watts = self.view.cell.engines[engine].watts
        draws = {"off": watts.off, "idle": watts.idle, "busy": watts.busy}
        self.watts.add(draws[state] - draws[self._state[engine]], self.line.now)
        self._state[engine] = state

    def _rests(self, engines: Sequence[str]) -> None:
        if self.power.off_after_s == float("inf"):
            return
        now = self.line.now
        self._idle_since.update(dict.fromkeys(engines, now))

        def off() -> None:
            self.changed += 1
            for engine in engines:
                if self._idle_since.get(engine) == now:
                    del self._idle_since[engine]
                    self._become(engine, "off")
                    held: Mapping[str, Amounts] = {engine_unit(engine): ()}
                    self.view.assume(off_name(engine), Placement(0, off_name(engine), held=held))

        self.line.after(self.power.off_after_s, off)

    def is_off(self, engine: str) -> bool:
        """Whether an engine would have to be woken."""
        return self._state[engine] == "off"


def kept_name(request: Request) -> str:
    """Return the name of the placement of what a request keeps."""
    return f"~kept/{request.number}"


def off_name(engine: str) -> str:
    """Return the name of the placement of an engine that is off."""
    return f"~off/{engine_unit(engine)}"


def without_lanes(units: Holding) -> dict[str, Amounts]:
    """Return the engines and hosts of a holding."""
    return {u: a for u, a in units.items() if u.startswith(("engine/", "host/"))}


def offerable(units: Holding) -> dict[str, Amounts]:
    """Return the engines and hosts of a holding, hosts without how many devices they attach.

    That is no part of an offer: whoever attaches devices to a node counts against its limit.
    """
    return {u: a[:2] for u, a in units.items() if u.startswith(("engine/", "host/"))}


def minus(units: Holding, taken: Holding) -> dict[str, Amounts]:
    """Return what is left of engines and hosts."""
    left: dict[str, Amounts] = {}
    for unit, amounts in units.items():
        if unit not in taken:
            left[unit] = amounts
        elif amounts:
            less = (*taken[unit], 0)[: len(amounts)]  # offers do not count devices
            rest = tuple(max(0, a - b) for a, b in zip(amounts, less, strict=True))
            if any(rest):
                left[unit] = rest
    return left


def plus(units: Holding, more: Holding) -> dict[str, Amounts]:
    """Return both together."""
    both = dict(units)
    for unit, amounts in more.items():
        if unit in both:
            amounts = tuple(a + b for a, b in zip(amounts, both[unit], strict=False))
        both[unit] = amounts
    return both


def all_of(view: CellView) -> dict[str, Amounts]:
    """Return all engines and hosts of a cell."""
    units: dict[str, Amounts] = {engine_unit(engine): () for engine in view.cell.engines}
    for node in view.cell.nodes.values():
        if node.cpu_millis or node.memory_bytes:
            units[host_unit(node.name)] = (node.cpu_millis, node.memory_bytes)
    return units
