"""How does a scheduler decide that sees the whole cell: alone, or beside others on shared state?

The rules, for all of them. A scheduler goes through what waits, oldest first, and takes the first
slice that it finds a place for: that takes the slice's decision time, at the end of which it commits.
To find no place takes no time, as in the published simulation. A slice that found none is looked at
again when anything has been given back. Smaller ones may overtake. One that starves (`starving_s`)
has a mark, as in production: others that came later keep away from where it can go soonest, by the
durations that slices say, which are true here.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple, TypeAlias

from flowos.model.placement import Decision, Unplaceable
from flowos.planning.place import plan
from flowos.planning.shadow import shadow
from flowos.simulation.architectures.ground import Ground
from flowos.simulation.architectures.measured import Request
from flowos.simulation.light.schedulers import Pace

Sight: TypeAlias = Literal["alone", "frozen", "live"]


class Mark(NamedTuple):
    """What the first slice of a scheduler that starves asks others to leave alone.

    Attributes:
        number: The slice's; those that came before it do not heed it.
        found_at: How often anything had been given back by then.
        until: When it can go there.
        units: Where.
    """

    number: int
    found_at: int
    until: float
    units: frozenset[str]


class Marks:
    """What slices that starve ask all others to leave alone: one mark for each scheduler."""

    def __init__(self, ground: Ground, starving_s: float) -> None:
        """Nobody starves."""
        self.ground = ground
        self.starving_s = starving_s
        self._marks: dict[str, Mark] = {}  # by scheduler

    def around(self, request: Request) -> frozenset[str]:
        """Return what a request leaves alone: of marks of earlier ones, unless it ends before."""
        ends_at = self.ground.line.now + self.ground.power.wake_s + request.arrival.runs_s
        units: set[str] = set()
        for mark in self._marks.values():
            if mark.number < request.number and ends_at > mark.until:
                units |= mark.units
        return frozenset(units)

    def refused(self, scheduler: str, request: Request) -> None:
        """Note that a request found no room: if it starves, mark where it can go soonest."""
        ground, now = self.ground, self.ground.line.now
        known = self._marks.get(scheduler)
        if now - request.arrival.at_s < self.starving_s or (
            known is not None and (known.number < request.number or known.found_at == ground.freed)
        ):
            return
        running = sorted((end, other.name) for other, _, end in ground.running.values())
        around = self.around(request)

        def place() -> Decision | Unplaceable:
            return plan(ground.pool, request.spec, slice_name=request.name, avoid=around)

        found = shadow(ground.pool, [(name, end - now) for end, name in running], place)
        if found is not None:
            until = now + (found.eta_seconds or 0.0)
            self._marks[scheduler] = Mark(request.number, ground.freed, until, found.units)

    def placed(self, request: Request) -> None:
        """Note that a request does not wait any more."""
        for scheduler, mark in list(self._marks.items()):
            if mark.number == request.number:
                del self._marks[scheduler]
                self.ground.freed += 1  # what was left alone for it, beyond what it took, is free


class Central:
    """One scheduler that sees everything."""

    def __init__(
        self,
        ground: Ground,
        name: str,
        paces: Mapping[str, Pace],
        sight: Sight,
        marks: Marks,
        *,
        round_trip_s: float,
        seed: int,
    ) -> None:
        """Begin with nothing to do.

        Args:
            ground: The cell.
            name: For figures.
            paces: By class.
            sight: What of the others' doings it sees while it decides.
            marks: Shared with all others.
            round_trip_s: With a live copy: from its commit to the answer.
            seed: 0 = it takes the best place, else one of the best few.
        """
        self.ground = ground
        self.name = name
        self.paces = paces
        self.sight = sight
        self.marks = marks
        self.round_trip_s = round_trip_s
        self.seed = seed
        self.queue: list[Request] = []
        self.is_deciding = False
        self.thought_s = 0.0
        self.decisions = 0
        self.conflicts = 0

    def add(self, request: Request) -> None:
        """Take a slice in."""
        self.queue.append(request)
        self.look()

    def look(self) -> None:
        """Take up the oldest slice that has a place, unless another one is decided on."""
        if self.is_deciding:
            return
        for request in list(self.queue):
            if request.no_room_at == self.ground.freed:
                continue
            decision = self._plan(request)
            if decision is None:
                self._no_room(request)
                continue
            self.is_deciding = True
            seconds = self.paces[request.spec.policy].seconds(request.engines)
            self.thought_s += seconds
            self.decisions += 1
            self.ground.line.after(seconds, lambda r=request, d=decision: self._decided(r, d))  # type: ignore[misc]
            return

    def _plan(self, request: Request) -> Decision | None:
        avoid = self.marks.around(request)
        return self.ground.plan(request.spec, name=request.name, avoid=avoid, seed=self.seed)

    def _no_room(self, request: Request) -> None:
        self.marks.refused(self.name, request)
        request.no_room_at = self.ground.freed

    def _decided(self, request: Request, decision: Decision) -> None:
        if self.sight == "live":
            self._send(request, decision)
        else:
            self._commit(request, decision)

    def _send(self, request: Request, decision: Decision) -> None:
        """Commit what was decided, as it is by now: what broke meanwhile is planned anew."""
        fresh: Decision | None = decision
        if not self.ground.takeable(decision.units):
            fresh = self._plan(request)
        if fresh is None:
            self._no_room(request)
            self._next()
            return
        sent = fresh
        self.ground.line.after(self.round_trip_s, lambda: self._commit(request, sent))

    def _commit(self, request: Request, decision: Decision) -> None:
        if self.ground.takeable(decision.units):
            self.queue.remove(request)
            self.ground.start(request, decision)
            self.marks.placed(request)
            self._next()
            return
        self.conflicts += 1
        if self.sight == "live":
            self._send(request, decision)  # the answer brings what is there now
        else:
            self._next()

    def _next(self) -> None:
        self.is_deciding = False
        self.look()
