"""Which weights suit a workload best, and are they better than the default on logs never seen?"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Final, NamedTuple

from flowos.model.errors import SpecError
from flowos.planning.engines.weights import DEFAULT, Weights
from flowos.simulation.tuning.episode import Metrics
from flowos.simulation.tuning.evolution import Evolution
from flowos.simulation.tuning.gate import (
    IMPORTANCE,
    MAX_WORSE,
    Objective,
    Verdict,
    judge,
)
from flowos.simulation.tuning.trials import Trial, Trials

# A weight w is searched as log2(w + FLOOR): factors matter, not differences, and 0 can be reached.
FLOOR: Final = 2.0**-6
BOUNDS: Final = (math.log2(FLOOR), 10.0)
FIRST_STEP: Final = 1.5  # most candidates of the first generation are within a factor of 3 or so
LARGE_FACTOR: Final = 16.0  # a weight that does nothing at 0 and at so much more does nothing
FINALISTS: Final = 8  # of the last four generations
DIGITS: Final = 3  # of a weight: finer differences are noise, and people read the file
SEEDS_APART: Final = 1_000_000  # logs of one run; two runs with unlike seeds share none

Progress = Callable[[int, int, str], None]  # episodes played, of how many, a clause


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is tried.

    Attributes:
        seed: Of the logs and of the evolution.
        generations: Of candidates.
        episodes: Logs each candidate of a generation is tried on, the same for all of it.
        finals: Logs on which the last generations' best and means are compared.
        held_out: Logs to judge by.
        shifted: Logs of each shifted workload; 0 = none are looked at.
    """

    seed: int = 1
    generations: int = 15
    episodes: int = 3
    finals: int = 10
    held_out: int = 20
    shifted: int = 8


class Generation(NamedTuple):
    """What one generation came to: J of the best and in the mean; 1 = the default's."""

    best: float
    mean: float


@dataclass(slots=True)
class Tuned:
    """The outcome, adopted or not.

    Attributes:
        weights: The candidate.
        verdict: Of the gate, on held-out logs.
        shifted: The same on workloads that differ; it decides nothing.
        inert: Weights that made no difference, so were left alone.
        history: Of the search.
        interrupted: Whether it was ended before all generations were played.
    """

    weights: Weights
    verdict: Verdict
    default: Weights = DEFAULT
    shifted: Mapping[str, Verdict] = field(default_factory=dict)
    inert: tuple[str, ...] = ()
    history: list[Generation] = field(default_factory=list)
    interrupted: bool = False

    @property
    def chosen(self) -> Weights:
        """What is to be used from now on."""
        return self.weights if self.verdict.adopted else self.default


def encoded(weight: float) -> float:
    """Return a weight as the search sees it."""
    return math.log2(weight + FLOOR)


def decoded(number: float) -> float:
    """Return the weight that the search means, from 0 up, with few digits."""
    weight = max(2.0**number - FLOOR, 0.0)
    return float(f"{weight:.{DIGITS}g}")


class _Interrupted(Exception):
    """Ctrl-C, where the search can still end well."""


def tune(
    trials: Trials,
    effort: Effort | None = None,
    *,
    default: Weights = DEFAULT,
    importance: Metrics = IMPORTANCE,
    max_worse: float = MAX_WORSE,
    progress: Progress = lambda _done, _of, _said: None,
) -> Tuned:
    """Search for weights, and judge what was found on logs that the search has not seen.

    The same workload and effort give the same answer, however many processes play. A first Ctrl-C
    ends the search, and what was found so far is judged.

    Args:
        trials: Plays the episodes.
        effort: How much is tried.
        default: Where to start, and what to be better than.
        importance: Of each metric in J.
        max_worse: By which share any one metric may be worse.
        progress: Called after each batch of episodes.

    Raises:
        SpecError: Nothing of the workload can be placed on the cell at all.
    """
    effort = effort or Effort()
    search = _Search(trials, effort, default, importance, progress)
    try:
        search.look_for_inert()
        search.evolve()
    except _Interrupted:
        pass
    weights = search.found()  # a second Ctrl-C is for good
    verdict = search.judged("", effort.held_out, weights, max_worse)
    shifts = trials.workload.shifts() if effort.shifted else {}
    if weights == default:
        verdict = replace(verdict, sentence=f"kept the default: {search.nothing()}")
        shifts = {}
    return Tuned(
        weights,
        verdict,
        default,
        {shift: search.judged(shift, effort.shifted, weights, max_worse) for shift in shifts},
        search.inert,
        search.history,
        interrupted=search.interrupted,
    )


class _Search:
    """One search under way."""

    def __init__(
        self,
        trials: Trials,
        effort: Effort,
        default: Weights,
        importance: Metrics,
        progress: Progress,
    ) -> None:
        self._trials = trials
        self._effort = effort
        self._default = default
        self._importance = importance
        self._progress = progress
        self._free: list[str] = list(Weights._fields)
        self._evolution: Evolution | None = None
        self._finalists: list[Weights] = []  # of each generation, the best and the mean
        self._played = 0
        self._expected = 0
        self.inert: tuple[str, ...] = ()
        self.history: list[Generation] = []
        self.interrupted = False

    def look_for_inert(self) -> None:
        """Find the weights that this workload does not depend on: they would drift at random."""
        seeds = self._seeds(self._effort.episodes)
        names = list(Weights._fields)
        pairs = [
            (
                self._default._replace(**{name: 0.0}),
                self._default._replace(**{name: LARGE_FACTOR * max(value, 1.0)}),
            )
            for name, value in zip(names, self._default, strict=True)
        ]
        tried = [self._default, *(weights for pair in pairs for weights in pair)]
        trials = [Trial(weights, seed) for weights in tried for seed in seeds]
        with self._interruptible():
            played = self._play(trials, "what matters")
        count = len(seeds)
        usual, *found = (played[first : first + count] for first in range(0, len(played), count))
        if all(metrics.unplaced == 1 for metrics in usual):
            raise SpecError(
                "none of the slices can be placed on this cell",
                where="--jobs",
                hint="name a --cell with the kinds and models of engines that they ask for",
            )
        self.inert = tuple(
            name
            for name, few, much in zip(names, found[::2], found[1::2], strict=True)
            if few == much == usual
        )
        self._free = [name for name in names if name not in self.inert]
        if len(self._free) > 1:
            # Only the ratios of weights matter, so one of them is the unit.
            self._free.remove("load" if "load" in self._free else self._free[0])

    def evolve(self) -> None:
        """Play the generations."""
        if not self._free:
            return
        start = [encoded(getattr(self._default, name)) for name in self._free]
        evolution = Evolution(start, FIRST_STEP, seed=self._effort.seed, bounds=BOUNDS)
        self._evolution = evolution
        count = self._effort.episodes
        self._expected = self._effort.generations * (evolution.population + 1) * count
        self._expected += self._played
        for generation in range(self._effort.generations):
            seeds = self._seeds(count, after=(1 + generation) * count)
            candidates = [self._weights(point) for point in evolution.ask()]
            said = f"generation {generation + 1} of {self._effort.generations}"
            if self.history:
                said += f", J {self.history[-1].best:.3f}"
            with self._interruptible():
                costs = self._costs([self._default, *candidates], seeds, said)
            evolution.tell(costs)
            self.history.append(Generation(min(costs), fmean(costs)))
            best = candidates[costs.index(min(costs))]
            self._finalists += [best, self._weights(evolution.mean)]

    def found(self) -> Weights:
        """Return the candidate: the best of the finalists and the default, on logs of their own.

        What did best in a generation was lucky as well, and the search may have drifted.
        """
        effort = self._effort
        if not self._finalists:
            return self._default
        rivals = list(dict.fromkeys([self._default, *self._finalists[-FINALISTS:]]))
        count = effort.finals
        seeds = self._seeds(count, after=(1 + effort.generations) * effort.episodes)
        costs = self._costs([self._default, *rivals], seeds, "finals")
        return rivals[costs.index(min(costs))]

    def _costs(self, tried: Sequence[Weights], seeds: Sequence[int], said: str) -> list[float]:
        """Return the mean J of each but the first, whose mean J is 1."""
        played = self._play([Trial(weights, seed) for weights in tried for seed in seeds], said)
        count = len(seeds)
        objective = Objective.of(played[:count], self._importance)
        return [
            fmean(objective.cost(metrics) for metrics in played[first : first + count])
            for first in range(count, len(played), count)
        ]

    def nothing(self) -> str:
        """Say why the candidate is the default itself."""
        if self.history:
            return "nothing better was found"
        if not self._effort.generations:
            return "no generation was played"
        if self.interrupted:
            return "the search was ended before its first generation was over"
        return "none of the weights makes a difference on these logs"

    def judged(self, shift: str, count: int, weights: Weights, max_worse: float) -> Verdict:
        """Compare on held-out logs, perhaps of a shifted workload."""
        seeds = self._seeds(count)
        said = f"judging on {shift or 'held-out'} logs"
        self._expected = self._played + 2 * count
        played = self._play(
            [
                Trial(chosen, seed, held_out=True, shift=shift)
                for chosen in (self._default, weights)
                for seed in seeds
            ],
            said,
        )
        return judge(
            seeds,
            played[:count],
            played[count:],
            importance=self._importance,
            max_worse=max_worse,
        )

    def _weights(self, point: Sequence[float]) -> Weights:
        """Return the weights that a point means; the others stay as they are."""
        named = {name: decoded(x) for name, x in zip(self._free, point, strict=True)}
        return self._default._replace(**named)

    def _seeds(self, count: int, after: int = 0) -> list[int]:
        return [self._effort.seed * SEEDS_APART + after + number for number in range(count)]

    def _play(self, trials: Sequence[Trial], said: str) -> list[Metrics]:
        self._progress(self._played, max(self._expected, self._played + len(trials)), said)
        found = self._trials.play(trials)
        self._played += len(trials)
        return found

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        try:
            yield
        except KeyboardInterrupt:
            self.interrupted = True
            raise _Interrupted from None
