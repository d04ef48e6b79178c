"""What has a scheduler done so far, in figures?"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

SAMPLES: Final = 1000  # the quantiles are of the last so many
LATELY_MOMENTS: Final = 30  # figures are told once a second


class _Moment(NamedTuple):
    """Sums at a time."""

    at: float
    busy: float
    commits: int
    conflicts: int


@dataclass(slots=True)
class Figures:
    """What this scheduler has done so far; published for `scheduler stats`."""

    commits: int = 0
    conflicts: int = 0
    plans: int = 0
    placed: int = 0
    refused: int = 0
    repaired: int = 0
    preemptions: int = 0
    busy_seconds: float = 0.0
    decisions_ms: deque[float] = field(default_factory=lambda: deque(maxlen=SAMPLES))
    commits_ms: deque[float] = field(default_factory=lambda: deque(maxlen=SAMPLES))
    attempts: deque[float] = field(default_factory=lambda: deque(maxlen=SAMPLES))
    stale: deque[float] = field(default_factory=lambda: deque(maxlen=SAMPLES))
    waits_seconds: deque[float] = field(default_factory=lambda: deque(maxlen=SAMPLES))
    _lately: deque[_Moment] = field(default_factory=lambda: deque(maxlen=LATELY_MOMENTS))

    def won(self, *, attempts: int, stale: int, waited_seconds: float) -> None:
        """Note how a slice came to be placed.

        Args:
            attempts: How many commits that took.
            stale: How many revisions the view was behind the commit, its own included.
            waited_seconds: Since it was first seen.
        """
        self.attempts.append(attempts)
        self.stale.append(stale)
        self.waits_seconds.append(waited_seconds)

    def shown(self, elapsed_seconds: float) -> dict[str, object]:
        """Return the figures by the names that scripts rely on.

        Args:
            elapsed_seconds: How long the scheduler has run.
        """
        done = self.commits + self.conflicts
        return {
            "commits": self.commits,
            "conflicts": self.conflicts,
            "conflict_fraction": round(self.conflicts / done, 4) if done else 0.0,
            "plans": self.plans,
            "placed": self.placed,
            "plans_per_placed": round(done / self.placed, 3) if self.placed else 0.0,
            "decision_ms": quantiles(self.decisions_ms),
            "commit_ms": quantiles(self.commits_ms),
            "busy": round(self.busy_seconds / elapsed_seconds, 4) if elapsed_seconds else 0.0,
            "refused": self.refused,
            "repaired": self.repaired,
            "preemptions": self.preemptions,
            "attempts": quantiles(self.attempts),
            "stale_revisions": quantiles(self.stale),
            "wait_seconds": quantiles(self.waits_seconds),
            "lately": self._over_the_last(elapsed_seconds),
        }

    def _over_the_last(self, elapsed_seconds: float) -> dict[str, float]:
        """Return what was done since a while ago; each call is a moment to look back to."""
        now = _Moment(elapsed_seconds, self.busy_seconds, self.commits, self.conflicts)
        first = self._lately[0] if self._lately else _Moment(0.0, 0.0, 0, 0)
        self._lately.append(now)
        seconds = now.at - first.at
        commits, conflicts = now.commits - first.commits, now.conflicts - first.conflicts
        done = commits + conflicts
        return {
            "seconds": round(seconds),
            "busy": round((now.busy - first.busy) / seconds, 2) if seconds > 0 else 0.0,
            "commits_per_s": round(commits / seconds, 1) if seconds > 0 else 0.0,
            "conflict_fraction": round(conflicts / done, 4) if done else 0.0,
        }


def quantiles(samples: Sequence[float]) -> dict[str, float]:
    """Return the median and the 99th percentile, 0 where there are no samples."""
    ordered = sorted(samples)
    if not ordered:
        return {"p50": 0.0, "p99": 0.0}
    last = len(ordered) - 1
    return {
        "p50": round(ordered[last // 2], 3),
        "p99": round(ordered[min(last, last * 99 // 100)], 3),
    }
