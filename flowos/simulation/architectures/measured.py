"""What is counted of a run, and what do its figures mean?"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from flowos.model.slice import SliceSpec
from flowos.simulation.full.setup import Arrival


@dataclass(slots=True)
class Request:
    """A slice that came, and how it fared.

    Attributes:
        engines: How many it asks for.
        kinds: How many of each kind.
        due_at: It is not looked at before.
        no_room_at: How often anything had been given back when it last found no room; -1 = it was
            not tried yet.
        gathering_since: Since when it keeps part of what it needs; None = it keeps nothing.
        not_gathering_until: It gave back what it kept, and tries that again only then.
        placed_at: When all of it was its own; None = it still waits.
        only_outside: It found no room in what was seen, and would have had some in all that was free.
        better_outside: It was placed, and would have been placed better in all that was free.
    """

    arrival: Arrival
    number: int
    engines: int
    kinds: dict[str, int]
    due_at: float = 0.0
    no_room_at: int = -1
    gathering_since: float | None = None
    not_gathering_until: float = 0.0
    placed_at: float | None = None
    only_outside: bool = False
    better_outside: bool = False

    @property
    def spec(self) -> SliceSpec:
        """What it asks for."""
        return self.arrival.spec

    @property
    def name(self) -> str:
        """Its placement's name."""
        return f"{self.spec.tenant}/{self.number}"


@dataclass(slots=True)
class ClassFigures:
    """How one class of slices fared; each attribute means what it does in `Figures`.

    Attributes:
        busyness: Mean over those who schedule it: share of their time that they decided in, for
            whichever class.
    """

    came: int = 0
    never: int = 0
    placed: int = 0
    left: int = 0
    only_outside: float = 0.0
    better_outside: float = 0.0
    failed: int = 0
    conflicts: int = 0
    decisions: int = 0
    gave_up: int = 0
    busyness: float = 0.0


@dataclass(slots=True)
class Figures:
    """What came of a run.

    Attributes:
        came: Slices.
        never: Slices that not even the empty cell has a place for; they are not tried.
        placed: Slices that got all they asked for.
        left: Slices that still waited at the end.
        waits: Seconds that each waited from its coming until all of it was its own, sorted; those
            that are left count with what they waited until the end.
        waits_by_class: The same, by class.
        classes: What else is told of each class; of a monolithic scheduler's decisions each class has
            all, since they stand in one queue.
        useful: Share of all engine-seconds in which slices computed.
        hoarded: Share of them held by slices that still waited for the rest.
        hoarded_engine_s: The same in engine-seconds.
        locked: Share of them that lay in offers.
        stranded: Share of them free, and in number enough for a slice that waited, but lying so that
            the planner finds no place for it even on all that is free.
        withheld: Share of them free, and fit for a slice that waited, which did not have them yet:
            because of a decision, an offer's way, or because nobody showed them to it.
        waking: Share of them held, powered on but not up yet.
        only_outside: Share of slices whose only placement, at some time, lay outside what was seen.
        better_outside: Share of slices that were placed worse than what lay outside would have let.
        failed: Acceptances that the proxy agent could not carry out, since others were faster.
        conflicts: Commits on shared state that lost a race.
        decisions: Decisions that took time.
        gave_up: How often a slice gave back what it had gathered, since the rest did not come.
        offers: How many were made.
        busyness: By scheduler: share of its time that it decided in.
        joules: What all engines drew.
        useful_engine_s: Engine-seconds in which slices computed.
        wakes: Engines powered on again.
        seconds: How long the run was.
    """

    seconds: float
    came: int = 0
    never: int = 0
    placed: int = 0
    left: int = 0
    waits: list[float] = field(default_factory=list)
    waits_by_class: dict[str, list[float]] = field(default_factory=dict)
    classes: dict[str, ClassFigures] = field(default_factory=dict)
    useful: float = 0.0
    hoarded: float = 0.0
    hoarded_engine_s: float = 0.0
    locked: float = 0.0
    stranded: float = 0.0
    withheld: float = 0.0
    waking: float = 0.0
    only_outside: float = 0.0
    better_outside: float = 0.0
    failed: int = 0
    conflicts: int = 0
    decisions: int = 0
    gave_up: int = 0
    offers: int = 0
    busyness: dict[str, float] = field(default_factory=dict)
    joules: float = 0.0
    useful_engine_s: float = 0.0
    wakes: int = 0

    @property
    def wait_mean_s(self) -> float:
        """The mean wait; 0 where nothing came."""
        return sum(self.waits) / len(self.waits) if self.waits else 0.0

    def wait_s(self, part: float) -> float:
        """Return the wait that this part of the slices did not exceed, e.g. 0.9 of them."""
        return part_of(self.waits, part)

    @property
    def kj_per_engine_hour(self) -> float:
        """What the cell drew for each hour of an engine that was of use."""
        hours = self.useful_engine_s / 3600
        return self.joules / 1000 / hours if hours else float("inf")


def part_of(waits: Sequence[float], part: float) -> float:
    """Return what this part of sorted waits does not exceed; 0 where there are none."""
    return waits[min(int(len(waits) * part), len(waits) - 1)] if waits else 0.0


class Area:
    """The integral of a number over virtual time."""

    def __init__(self) -> None:
        """Zero since the beginning."""
        self.level = 0.0
        self.total = 0.0
        self._since = 0.0

    def add(self, amount: float, now: float) -> None:
        """Change the number from now on."""
        self.total += self.level * (now - self._since)
        self._since = now
        self.level += amount
