"""What comes of a log under some weights: how long slices wait, and what the cell spends on them?

The planner is the one of production, on a pool that follows a view. Around it is just enough of a
cell in virtual time: engines boot, load and run, and those that were idle for long are switched
off. Power and what is loaded stand in the view as in production: `~off/...` placements, and what
agents observed.
"""

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from math import inf
from typing import Final, NamedTuple

from flowos.model.cell import Cell, Watts
from flowos.model.codec import encode
from flowos.model.placement import Decision, Observed, Placement
from flowos.model.slice import Reason, Run, SliceSpec
from flowos.model.transaction import Change
from flowos.model.units import engine_unit, kind_of, subject_of
from flowos.model.view import CellView
from flowos.planning.engines.pool import Pool
from flowos.planning.engines.weights import DEFAULT, Weights
from flowos.planning.place import plan
from flowos.runtime.power import IdleEngines
from flowos.simulation.tuning.workload import Arrival


@dataclass(frozen=True, slots=True)
class Settings:
    """How long devices take, and how the queue is gone through.

    Attributes:
        power_on_seconds: From off to ready.
        idle_off_seconds: An engine idle for this long is switched off; 0 = never. Best is about
            what a boot costs over what being off saves.
        window: How many waiting slices are looked at, in the order in which they came; a later
            one that fits may go first.
    """

    power_on_seconds: float = 20.0
    idle_off_seconds: float = 60.0
    window: int = 64


class Metrics(NamedTuple):
    """What a log came to; less is better in each.

    Attributes:
        wait_s: Seconds from a slice's arrival until all of it is up, in the mean.
        reconfigurations: Bitstreams loaded a slice.
        kilojoules: All that the cell's engines drew, a slice.
        crossings: Circuits that leave a leaf switch, a slice.
        unplaced: The share of slices that found no place in the end.
    """

    wait_s: float = 0.0
    reconfigurations: float = 0.0
    kilojoules: float = 0.0
    crossings: float = 0.0
    unplaced: float = 0.0


_ARRIVES: Final = 0
_ENDS: Final = 1
_LOOK: Final = 2  # whether engines have been idle for long
_MOMENT: Final = 1e-3  # seconds: a look must not come too early by a rounding error


class Episode:
    """One log under way; `weights` may be changed between two advances."""

    def __init__(
        self,
        cell: Cell,
        arrivals: Sequence[Arrival],
        settings: Settings | None = None,
        weights: Weights = DEFAULT,
    ) -> None:
        """Start with every engine on, empty and free, and nobody waiting.

        Args:
            cell: It is read only.
            arrivals: By time, each slice with a name of its own.
            settings: Of the devices and the queue.
            weights: How much each feature of a place counts.
        """
        self.settings = settings or Settings()
        self.weights = weights
        self.view = CellView(cell=cell)
        self.pool = Pool(self.view)
        self.now = 0.0
        self.waiting: dict[str, Arrival] = {}  # by slice, in the order in which they came
        self._idle = IdleEngines(self.view)
        self._total = len(arrivals)
        self._due: list[tuple[float, int, int, Arrival | None]] = []
        self._count = 0
        self._shapes: dict[str, str] = {}
        self._blocked: set[str] = set()  # what found no place since anything was given back
        self._users: dict[str, int] = {}  # engine -> placements that use it
        self._watts = sum(engine.watts.idle for engine in cell.engines.values())
        self._joules = self._waited = 0.0
        self._loads = self._crossings = self._placed = self._refused = 0
        self._held = self._off = 0
        for arrival in arrivals:
            self._at(arrival.at, _ARRIVES, arrival)
        if self.settings.idle_off_seconds:
            self._look_later()

    # -- what is asked

    @property
    def decided(self) -> int:
        """How many slices were placed, or refused for ever, so far."""
        return self._placed + self._refused

    def metrics(self) -> Metrics:
        """Return what it came to so far, over all slices of the log."""
        waited = self._waited + sum(self.now - arrival.at for arrival in self.waiting.values())
        count = max(self._total, 1)
        return Metrics(
            waited / count,
            self._loads / count,
            self._joules / 1000 / count,
            self._crossings / count,
            (self._refused + len(self.waiting)) / count,
        )

    def engines(self) -> tuple[int, int, int]:
        """Return how many engines are held, on and free, and off."""
        count = len(self.view.cell.engines)
        return self._held, count - self._held - self._off, self._off

    # -- time

    def advance(self, slices: float = inf) -> bool:
        """Let time pass until so many more slices are decided, or the log is over.

        Returns:
            Whether there is more to come.
        """
        until = self.decided + slices
        while self._due and self.decided < until:
            self._pass(self._due[0][0])
            while self._due and self._due[0][0] <= self.now:
                _, _, what, arrival = heapq.heappop(self._due)
                if arrival is None:
                    self._switch_off()
                elif what == _ARRIVES:
                    self.waiting[arrival.spec.id] = arrival
                else:
                    self._end(arrival)
            self._place_waiting()
        return bool(self._due)

    def _at(self, moment: float, what: int, arrival: Arrival | None = None) -> None:
        self._count += 1
        heapq.heappush(self._due, (moment, self._count, what, arrival))

    def _pass(self, moment: float) -> None:
        self._joules += self._watts * (moment - self.now)
        self.now = moment

    # -- slices

    def _place_waiting(self) -> None:
        for name in list(islice(self.waiting, self.settings.window)):
            arrival = self.waiting[name]
            shape = self._shapes.get(name)
            if shape is None:
                shape = self._shapes[name] = shape_of(arrival.spec)
            if shape in self._blocked:
                continue
            found = plan(self.pool, arrival.spec, weights=self.weights)
            if isinstance(found, Decision):
                del self.waiting[name]
                self._begin(arrival, found)
            elif found.reason is Reason.INFEASIBLE:
                del self.waiting[name]
                self._refused += 1
            else:
                self._blocked.add(shape)

    def _begin(self, arrival: Arrival, decision: Decision) -> None:
        """Hold what was decided; it runs once its engines are on and loaded."""
        view, name = self.view, arrival.spec.id
        placement = Placement(
            uid=0,
            attempt=name,
            held=decision.units,
            engines=decision.engines,
            bitstreams=decision.bitstreams,
        )
        view.assume(name, placement)
        ready = self.now
        for engine in dict.fromkeys(engines_in(decision.units)):
            up = self.now
            if self._wake(engine):
                up += self.settings.power_on_seconds
            wanted = decision.bitstreams.get(engine, "")
            if wanted and self._loaded(engine) != wanted:
                bitstream = view.cell.bitstream(wanted)
                up += bitstream.load_seconds if bitstream else 0.0
                self._observe(engine, Observed(bitstream=wanted))
                self._loads += 1
            ready = max(ready, up)
            self._use(engine, 1)
        switches = view.cell.switches
        for circuit in decision.circuits:
            self._crossings += sum(thing in switches for thing in circuit.path) > 1
        self._placed += 1
        self._waited += ready - arrival.at
        self._at(ready + arrival.seconds, _ENDS, arrival)

    def _end(self, arrival: Arrival) -> None:
        name = arrival.spec.id
        placement = self.view.now(name)
        assert placement is not None, "what ends was begun"
        self.view.retract(name)
        for engine in engines_in(placement.held):
            self._use(engine, -1)
        self._blocked.clear()
        self._look_later()

    # -- engines

    def _loaded(self, engine: str) -> str:
        observed = self.view.observed.get(engine)
        return observed.bitstream if observed else ""

    def _observe(self, engine: str, observed: Observed) -> None:
        self.view.apply(Change(f"observed/{engine}", encode(observed), 1, 1))

    def _use(self, engine: str, change: int) -> None:
        """Count who uses an engine: it draws its busy watts while anybody does."""
        before = self._users.get(engine, 0)
        self._users[engine] = before + change
        watts = self._watts_of(engine)
        if not before or not before + change:
            self._watts += (watts.busy - watts.idle) * change
            self._held += change

    def _watts_of(self, engine: str) -> Watts:
        return self.view.cell.engines[engine].watts

    def _wake(self, engine: str) -> bool:
        """Switch an engine on, if it is off; whoever commits takes over what kept it off."""
        off = f"~off/{engine_unit(engine)}"
        if self.view.now(off) is None:
            return False
        self.view.retract(off)
        self._observe(engine, Observed(power="on"))  # a bitstream does not survive without power
        watts = self._watts_of(engine)
        self._watts += watts.idle - watts.off
        self._off -= 1
        return True

    def _switch_off(self) -> None:
        seconds = self.settings.idle_off_seconds
        for engine in self._idle.due(self.now, seconds, at_most=len(self.view.cell.engines)):
            unit = engine_unit(engine)
            off = f"~off/{unit}"
            self.view.assume(off, Placement(uid=0, attempt=off, held={unit: ()}))
            self._observe(engine, Observed(power="off"))
            watts = self._watts_of(engine)
            self._watts -= watts.idle - watts.off
            self._off += 1

    def _look_later(self) -> None:
        """Note who is idle from now on, and look again when the first of them is to go off."""
        seconds = self.settings.idle_off_seconds
        if seconds:
            self._switch_off()
            self._at(self.now + seconds + _MOMENT, _LOOK)


def shape_of(spec: SliceSpec) -> str:
    """Return what decides whether a place can be found: everything but what runs, and for whom."""
    return repr(replace(spec, name="", tenant="", run=Run()))


def engines_in(units: Iterable[str]) -> Iterator[str]:
    """Yield the engines of units, whole or in part."""
    for unit in units:
        if kind_of(unit) in ("engine", "share"):
            yield subject_of(unit)
