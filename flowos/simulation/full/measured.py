"""What came of a run: how often was planned in vain, how long was waited, who got what?"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from flowos.model.placement import Placement
from flowos.model.slice import SliceSpec


@dataclass(slots=True)
class Waits:
    """How long slices waited from their coming to their commit, in seconds."""

    mean: float = 0.0
    p50: float = 0.0
    p90: float = 0.0
    p99: float = 0.0
    most: float = 0.0

    @classmethod
    def of(cls, samples: Sequence[float]) -> "Waits":
        """Return the figures of samples; all 0 where there are none."""
        if not samples:
            return cls()
        ordered = sorted(samples)

        def at(share: float) -> float:
            return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

        mean = sum(ordered) / len(ordered)
        return cls(mean, at(0.5), at(0.9), at(0.99), ordered[-1])


@dataclass(slots=True)
class SchedulerFigures:
    """One scheduler.

    Attributes:
        useful_s: Virtual time in decisions that were committed.
        wasted_s: In decisions that conflicted, or that broke before they were sent.
        vain_s: In those that found no room.
    """

    name: str
    placed: int = 0
    conflicts: int = 0
    plans: int = 0
    repaired: int = 0
    useful_s: float = 0.0
    wasted_s: float = 0.0
    vain_s: float = 0.0
    wait_mean_s: float = 0.0


class _Commits:
    """What commits cost, of a whole run as of a part of it."""

    __slots__ = ()
    placed: int
    conflicts: int

    @property
    def conflict_fraction(self) -> float:
        """Conflicted commits for each that succeeded, as the paper has it; where none did, as if one had."""
        return self.conflicts / max(1, self.placed)

    @property
    def plans_per_placed(self) -> float:
        """Commits tried for each slice placed; 1 = none in vain."""
        return (self.placed + self.conflicts) / self.placed if self.placed else 0.0


@dataclass(slots=True)
class TeamFigures(_Commits):
    """Schedulers of one kind, and the slices that came to them.

    Attributes:
        arrived: Slices that came.
        placed: Commits that succeeded; a slice that gives way may be placed again.
        conflicts: Commits that conflicted.
        plans: Plans made, those included that found no room.
        repaired: Plans of which only what broke was replaced.
        waits: From coming to commit.
        busy_useful: Share of all schedulers' time in decisions that were committed.
        busy_wasted: In decisions that were thrown away.
    """

    name: str
    schedulers: list[SchedulerFigures] = field(default_factory=list)
    arrived: int = 0
    placed: int = 0
    conflicts: int = 0
    plans: int = 0
    repaired: int = 0
    waits: Waits = field(default_factory=Waits)
    busy_useful: float = 0.0
    busy_wasted: float = 0.0

    @property
    def fairness(self) -> float:
        """Jain's index of the slices that each scheduler placed: 1 = all alike, 1/n = one has all.

        Source: Jain, Chiu, Hawe, "A Quantitative Measure of Fairness", DEC TR-301, 1984.
        """
        return jain([one.placed for one in self.schedulers])


@dataclass(slots=True)
class FullFigures(_Commits):
    """One run of the production code.

    Attributes:
        teams: By name.
        arrived: Slices that came.
        placed: Commits that succeeded.
        ended: Slices that have given back what they had.
        waiting: Slices that held nothing at the end.
        conflicts: Commits that conflicted.
        causes: Why -> how often; one conflict may have several causes.
        lost_units: Kind of unit -> how often one was lost to a rival: engine, share, host, lane.
        waits: Of all teams' slices.
        seconds: Virtual, from the beginning to the end.
        utilisation: Share of all engines that was held, on average over that time.
        utilisation_most: And at most.
        hops_mean: Lanes that a placed slice holds, on average.
        nodes_mean: Nodes that its engines lie on.
        double_holds: Units that were held twice; must be none.
        requests: To the store, of all kinds.
        revisions: That it came to.
        wall_seconds: How long the run took, real.
    """

    teams: dict[str, TeamFigures] = field(default_factory=dict)
    arrived: int = 0
    placed: int = 0
    ended: int = 0
    waiting: int = 0
    conflicts: int = 0
    causes: dict[str, int] = field(default_factory=dict)
    lost_units: dict[str, int] = field(default_factory=dict)
    waits: Waits = field(default_factory=Waits)
    seconds: float = 0.0
    utilisation: float = 0.0
    utilisation_most: float = 0.0
    hops_mean: float = 0.0
    nodes_mean: float = 0.0
    double_holds: int = 0
    requests: int = 0
    revisions: int = 0
    wall_seconds: float = 0.0

    @property
    def slices_per_s(self) -> float:
        """Slices placed in a second of real time."""
        return self.placed / self.wall_seconds if self.wall_seconds else 0.0


def jain(amounts: Sequence[float]) -> float:
    """Return Jain's index of fairness: 1 = all alike."""
    squares = sum(amount * amount for amount in amounts)
    return sum(amounts) ** 2 / (len(amounts) * squares) if squares else 1.0


class Book:
    """Notes what happens in a run, as it happens.

    Attributes:
        placed: Commits that succeeded.
        ended: Slices that gave back what they had.
        double_holds: Units that two placements held at once.
    """

    def __init__(self, engines: int) -> None:
        """Begin with nothing; `engines` is how many there are."""
        self.placed = self.ended = self.double_holds = 0
        self.waits: dict[str, list[float]] = {}
        self._came: dict[str, tuple[str, float]] = {}
        self._engines = engines
        self._held = self._area = self._since = self._most = 0.0
        self._hops = self._nodes = 0

    def came(self, spec: SliceSpec, team: str, at: float) -> None:
        """Note a slice that is to come."""
        self._came[spec.id] = team, at

    def committed(self, name: str, placement: Placement, now: float) -> float:
        """Note a commit that succeeded; return how long its slice had waited."""
        self.placed += 1
        waited = 0.0
        came = self._came.pop(name, None)
        if came is not None:  # the first time
            team, at = came
            waited = now - at
            self.waits.setdefault(team, []).append(waited)
        engines, hops, nodes = extent(placement)
        self._hops += hops
        self._nodes += nodes
        self._count(engines, now)
        return waited

    def gave_back(self, placement: Placement, now: float) -> None:
        """Note a slice that holds nothing any more."""
        self.ended += 1
        self._count(-extent(placement)[0], now)

    def _count(self, more: float, now: float) -> None:
        self._area += self._held * (now - self._since)
        self._since = now
        self._held += more
        self._most = max(self._most, self._held)

    def fill_in(self, figures: FullFigures, now: float) -> None:
        """Write what was noted."""
        self._count(0.0, now)
        figures.placed, figures.ended = self.placed, self.ended
        figures.double_holds = self.double_holds
        figures.seconds = now
        whole = now * self._engines
        figures.utilisation = self._area / whole if whole else 0.0
        figures.utilisation_most = self._most / self._engines if self._engines else 0.0
        if self.placed:
            figures.hops_mean = self._hops / self.placed
            figures.nodes_mean = self._nodes / self.placed
        figures.waits = Waits.of([w for waits in self.waits.values() for w in waits])


def extent(placement: Placement) -> tuple[float, int, int]:
    """Return how many engines a placement holds, how many lanes, and on how many nodes."""
    engines, lanes = 0.0, 0
    nodes = set()
    for unit, amounts in placement.held.items():
        kind, _, subject = unit.partition("/")
        if kind == "engine":
            engines += 1
            nodes.add(subject.partition("/")[0])
        elif kind == "share":
            engines += amounts[0] / 1000
            nodes.add(subject.partition("/")[0])
        elif kind == "lane":
            lanes += 1
    return engines, lanes, len(nodes)
