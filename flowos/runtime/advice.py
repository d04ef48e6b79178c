"""Would one scheduler process more of a policy help, or hurt?

The number of processes is a control variable. More of them plan more at once; but each commit can
conflict with those of all others, so that the part of work that is done twice grows with their
number. What there is now tells how it would be with one more.

Source: Schwarzkopf et al., "Omega: flexible, scalable schedulers for large compute clusters",
EuroSys 2013, section 4.3: busyness and conflict fraction against the number of schedulers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

BUSY_LEAST: Final = (
    0.7  # below that a process has time to spare: planning is not what slices wait for
)
GAIN_LEAST: Final = 1.05  # less is not worth a process
FIRST_CONFLICTS: Final = 0.02  # what two cost each other, as far as is known of one alone


class Verdict(StrEnum):
    """What one more would do."""

    HELPS = "helps"
    HURTS = "hurts"
    NOTHING = "no matter"


@dataclass(frozen=True, slots=True)
class Lately:
    """What one process has done in the last while.

    Attributes:
        busy: Part of the time that it was planning, 0..1.
        queue: How many slices wait for its policy.
        commits_per_s: Commits that happened.
        conflict_fraction: Part of its commits that did not, 0..1.
    """

    busy: float
    queue: int
    commits_per_s: float
    conflict_fraction: float


@dataclass(frozen=True, slots=True)
class Advice:
    """Whether to start one more process of a policy.

    Attributes:
        gain: How many times as much would be placed with one more, 1 = the same.
        sentence: Why, for people.
    """

    verdict: Verdict
    gain: float
    sentence: str


def advise(processes: Sequence[Lately]) -> Advice:
    """Return what one more process would do for a policy.

    Args:
        processes: All that serve it now; none = it is not served.
    """
    count = len(processes)
    if not count:
        return Advice(Verdict.HELPS, 1.0, "nobody serves it")
    busy = sum(p.busy for p in processes) / count
    queue = max(p.queue for p in processes)
    rate = sum(p.commits_per_s for p in processes)
    done = sum(_tried(p) for p in processes)
    conflicts = sum(p.conflict_fraction * _tried(p) for p in processes) / done if done else 0.0
    # Each pair of processes costs the same: with one more there are `count` others, not one less.
    after = min(1.0, conflicts * count / (count - 1)) if count > 1 else FIRST_CONFLICTS
    gain = (count + 1) * (1 - after) / (count * (1 - conflicts)) if conflicts < 1 else 0.0
    numbers = (
        f"{busy:.0%} busy, {queue} waiting, {rate:.1f} commits/s, {conflicts:.0%} of them conflict"
    )
    if gain < 1 and conflicts > FIRST_CONFLICTS:
        return Advice(
            Verdict.HURTS, round(gain, 2), f"{numbers}: more would mostly race each other"
        )
    if not queue:
        return Advice(Verdict.NOTHING, 1.0, f"{numbers}: nothing waits")
    if busy < BUSY_LEAST:
        return Advice(Verdict.NOTHING, 1.0, f"{numbers}: what waits does not wait for planning")
    if gain < GAIN_LEAST:
        return Advice(Verdict.NOTHING, round(gain, 2), f"{numbers}: it would gain next to nothing")
    return Advice(Verdict.HELPS, round(gain, 2), f"{numbers}: about {gain:.2f} times as much")


def _tried(process: Lately) -> float:
    left = 1 - process.conflict_fraction
    return process.commits_per_s / left if left > 0 else 1.0
