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
from flowos.simulation.architectures.measured import Figures, Request
from flowos.simulation.architectures.offers import Allocator
from flowos.simulation.architectures.setup import Setup
from flowos.simulation.full.setup import Arrival
from flowos.simulation.light.schedulers import Pace
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
        self.never = 0
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
                self.never += 1
                continue
            kinds: Counter[str] = Counter()
            for wish in arrival.spec.engines.values():
                kinds[wish.choices[0].kind] += wish.choices[0].count
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
                slowest = Pace(
                    max(pace.job_s for pace in paces.values()),
                    max(pace.task_s for pace in paces.values()),
                )
                paces = dict.fromkeys(paces, slowest)
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
            if any(free[kind] < count for kind, count in request.kinds.items()):
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
        found = Figures(now, came=len(self.requests) + self.never, never=self.never)
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
        if self.allocator is not None:
            self.allocator.locked.add(0, now)
            found.locked = self.allocator.locked.total / whole
            found.offers = self.allocator.offers
        return found


def run(setup: Setup, arrivals: Sequence[Arrival]) -> Figures:
    """Let a load pass over a cell, in virtual time.

    Raises:
        SpecError: As `Run`.
    """
    return Run(setup, arrivals).run()


def _checked(setup: Setup, spec: SliceSpec) -> None:
    if spec.policy not in setup.paces:
        raise SpecError(f"{spec.name}: its policy '{spec.policy}' has no pace")
    if any(
        len(wish.choices) > 1 or wish.choices[0].share_millis < 1000
        for wish in spec.engines.values()
    ):
        raise SpecError(f"{spec.name}: only whole engines of one choice are compared")
    pooled = setup.architecture == "offers" and setup.offers.devices != "own"
    if pooled and not any(role not in spec.engines for role in spec.hosts):
        raise SpecError(f"{spec.name}: pooled devices come with a host, and it asks for none")
