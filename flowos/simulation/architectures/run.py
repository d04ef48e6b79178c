"""One run: a cell, a load, an architecture; and what came of it."""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

from flowos.model.errors import SpecError
from flowos.model.placement import Decision
from flowos.model.slice import SliceSpec
from flowos.model.view import CellView
from flowos.planning.engines.pool import Pool
from flowos.planning.place import plan
from flowos.simulation.architectures.central import Central, Marks
from flowos.simulation.architectures.frameworks import Framework, Shape, shape
from flowos.simulation.architectures.ground import Ground
from flowos.simulation.architectures.measured import ClassFigures, Figures, Request
from flowos.simulation.architectures.offers import Allocator
from flowos.simulation.architectures.parts import covers, kinds_of
from flowos.simulation.architectures.setup import Setup
from flowos.simulation.full.setup import Arrival
from flowos.simulation.light.schedulers import Pace, slowest
from flowos.simulation.stage import VirtualClock
from flowos.simulation.timeline import Timeline

LOOKED_AT = 32  # waiting slices for which stranded engines are counted, the oldest


class Run:
    """Everything of one run, for whoever wants to look at it on the way."""

    def __init__(self, setup: Setup, arrivals: Sequence[Arrival]) -> None:
        """Have all slices come at their times.

        Raises:
            SpecError: A slice's policy has no pace, or it asks for shares of engines, or, where
                devices are pooled, for none of the hosts that come with them.
        """
        self.setup = setup
        self.line = Timeline(VirtualClock())
        self.ground = Ground(CellView(cell=setup.cell), self.line, setup.power)
        self.allocator: Allocator | None = None
        self.central: list[Central] = []
        self.frameworks: list[Framework] = []
        self.requests: list[Request] = []
        self.never: Counter[str] = Counter()  # by class
        self.stranded, self.withheld = 0.0, 0.0
        if setup.architecture == "offers":
            self._two_level()
        else:
            self._one_level()
        empty = Pool(CellView(cell=setup.cell))
        fits: dict[Shape, bool] = {}
        turns: Counter[str] = Counter()
        for arrival in sorted(arrivals, key=lambda arrival: arrival.at_s):
            if arrival.at_s > setup.seconds:
                break
            _checked(setup, arrival.spec)
            key = shape(arrival.spec)
            if key not in fits:
                fits[key] = isinstance(plan(empty, arrival.spec), Decision)
            if not fits[key]:
                self.never[arrival.spec.policy] += 1
                continue
            kinds = kinds_of(arrival.spec)
            request = Request(arrival, len(self.requests), kinds.total(), dict(kinds))
            self.requests.append(request)
            self.line.at(arrival.at_s, partial(self._to(arrival.spec, turns), request))
        empty.close()
        if setup.sample_s:
            self.line.after(setup.sample_s, self._sample)

    def _two_level(self) -> None:
        setup = self.setup
        self.allocator = Allocator(self.ground, setup.offers, setup.seed)
        for number, (name, pace) in enumerate(setup.paces.items()):
            seed = setup.seed * 1000 + number
            self.frameworks.append(
                Framework(self.ground, name, pace, self.allocator, setup.offers, seed)
            )

    def _one_level(self) -> None:
        setup = self.setup
        marks = Marks(self.ground, setup.starving_s)
        paces = dict(setup.paces)
        teams: list[tuple[str, dict[str, Pace]]]
        if setup.architecture.startswith("monolithic"):
            if setup.architecture == "monolithic-single":
                paces = dict.fromkeys(paces, slowest(paces.values()))
            teams = [("all", paces)]
        else:
            teams = [
                (f"{name}-{n}", {name: pace})
                for name, pace in paces.items()
                for n in range(setup.schedulers.get(name, 1))
            ]
        for number, (name, mine) in enumerate(teams):
            self.central.append(
                Central(
                    self.ground, name, mine,
                    "alone" if len(teams) == 1 and setup.architecture.startswith("mono")
                    else "live" if setup.architecture == "shared-live" else "frozen",
                    marks, round_trip_s=setup.round_trip_s, seed=number,
                )
            )  # fmt: skip
        self.ground.given_back = lambda _: self.line.after(0.0, self._look)

    def _look(self) -> None:
        for one in self.central:
            one.look()

    def _to(self, spec: SliceSpec, turns: Counter[str]) -> Callable[[Request], None]:
        """Return who takes a slice in: the schedulers of its class in turn."""
        if self.frameworks:
            return next(f for f in self.frameworks if f.name == spec.policy).add
        among = [one for one in self.central if spec.policy in one.paces]
        turns[spec.policy] += 1
        return among[turns[spec.policy] % len(among)].add

    def run(self) -> Figures:
        """Let all of it happen, and return what came of it."""
        self.line.run(self.setup.seconds)
        return self._figures()

    # -- what is counted

    def _sample(self) -> None:
        """Count what is free though somebody waits: could a slice have had it, or not by its place?"""
        self.line.after(self.setup.sample_s, self._sample)
        ground = self.ground
        waiting = [
            r for r in self.requests
            if r.placed_at is None and r.arrival.at_s <= self.line.now
        ][:LOOKED_AT]  # fmt: skip
        if not waiting:
            return
        engines = ground.view.cell.engines
        free = Counter(e.kind for e in engines.values() if e.id not in ground.holding)
        lifted = self.allocator.everything() if self.allocator else []
        found: dict[Shape, bool] = {}
        for request in waiting:
            kept = ground.kept.get(request.number)
            if kept is not None:
                continue  # what it still needs is not all it asks for
            if not covers(free, request.kinds):
                continue
            free.subtract(request.kinds)
            key = shape(request.spec)
            if key not in found:
                found[key] = ground.plan(request.spec, name=request.name, lifted=lifted) is not None
            if found[key]:
                self.withheld += request.engines * self.setup.sample_s
            else:
                self.stranded += request.engines * self.setup.sample_s

    def _figures(self) -> Figures:
        now, ground = self.setup.seconds, self.ground
        whole = len(ground.view.cell.engines) * now
        for area in (ground.useful, ground.hoarded, ground.waking, ground.watts):
            area.add(0, now)
        never = self.never.total()
        found = Figures(now, came=len(self.requests) + never, never=never)
        for request in self.requests:
            until = now if request.placed_at is None else request.placed_at
            wait = until - request.arrival.at_s
            found.waits.append(wait)
            found.waits_by_class.setdefault(request.spec.policy, []).append(wait)
            found.placed += request.placed_at is not None
        for waits in (found.waits, *found.waits_by_class.values()):
            waits.sort()
        count = max(1, len(self.requests))
        found.left = len(self.requests) - found.placed
        found.useful_engine_s = ground.useful.total
        found.hoarded_engine_s = ground.hoarded.total
        found.useful = ground.useful.total / whole
        found.hoarded = ground.hoarded.total / whole
        found.waking = ground.waking.total / whole
        found.stranded = self.stranded / whole
        found.withheld = self.withheld / whole
        found.joules = ground.watts.total
        found.wakes = ground.wakes
        found.only_outside = sum(r.only_outside for r in self.requests) / count
        found.better_outside = sum(r.better_outside for r in self.requests) / count
        found.conflicts = sum(one.conflicts for one in self.central)
        found.failed = sum(one.failed for one in self.frameworks)
        found.gave_up = sum(one.gave_up for one in self.frameworks)
        everyone: list[Central | Framework] = [*self.central, *self.frameworks]
        found.decisions = sum(one.decisions for one in everyone)
        found.busyness = {one.name: one.thought_s / now for one in everyone}
        found.classes = {name: self._of_class(name) for name in self.setup.paces}
        if self.allocator is not None:
            self.allocator.locked.add(0, now)
            found.locked = self.allocator.locked.total / whole
            found.offers = self.allocator.offers
        return found

    def _of_class(self, name: str) -> ClassFigures:
        mine = [request for request in self.requests if request.spec.policy == name]
        count = max(1, len(mine))
        central = [one for one in self.central if name in one.paces]
        frameworks = [one for one in self.frameworks if one.name == name]
        everyone: list[Central | Framework] = [*central, *frameworks]
        placed = sum(request.placed_at is not None for request in mine)
        return ClassFigures(
            came=len(mine) + self.never[name],
            never=self.never[name],
            placed=placed,
            left=len(mine) - placed,
            only_outside=sum(request.only_outside for request in mine) / count,
            better_outside=sum(request.better_outside for request in mine) / count,
            failed=sum(one.failed for one in frameworks),
            conflicts=sum(one.conflicts for one in central),
            decisions=sum(one.decisions for one in everyone),
            gave_up=sum(one.gave_up for one in frameworks),
            busyness=sum(one.thought_s for one in everyone) / (self.setup.seconds * len(everyone)),
        )


def run(setup: Setup, arrivals: Sequence[Arrival]) -> Figures:
    """Let a load pass over a cell, in virtual time.

    Raises:
        SpecError: As `Run`.
    """
    return Run(setup, arrivals).run()


def _checked(setup: Setup, spec: SliceSpec) -> None:
    if spec.policy not in setup.paces:
        raise SpecError(f"its policy '{spec.policy}' has no pace", where=spec.name)
    if any(
        len(wish.choices) > 1 or wish.choices[0].share_millis < 1000
        for wish in spec.engines.values()
    ):
        raise SpecError(
            "it asks for a share of an engine, or has choices, and architectures are compared on "
            "whole engines of one kind", where=spec.name, hint="compare them on another load",
        )  # fmt: skip
    pooled = setup.architecture == "offers" and setup.offers.devices != "own"
    if pooled and not any(role not in spec.engines for role in spec.hosts):
        raise SpecError(
            "pooled devices come with a host, and it asks for none", where=spec.name,
            hint="compare own devices, or leave such slices out",
        )  # fmt: skip
