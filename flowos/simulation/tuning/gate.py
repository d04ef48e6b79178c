"""Is one set of weights better than another, beyond chance, and worse in nothing that matters?"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean, stdev
from typing import Final, NamedTuple

from flowos.model.errors import SpecError
from flowos.simulation.tuning.episode import Metrics

CONFIDENCE: Final = 0.95
MAX_WORSE: Final = 0.05  # how much a metric may get worse for the sake of the others
# What counts how much by default. It is a choice, not a fact: whoever pays for power differently
# from waiting says so. What finds no place counts as much as all that waiting does.
IMPORTANCE: Final = Metrics(
    wait_s=0.4, reconfigurations=0.2, kilojoules=0.3, crossings=0.1, unplaced=0.4
)


def importance_of(text: str) -> Metrics:
    """Return the importance that "wait_s=1,kilojoules=2" says; what is not named counts 0.

    Raises:
        SpecError: A word is no metric, a number cannot be, or nothing is left that counts.
    """
    if not text.strip():
        return IMPORTANCE
    found: dict[str, float] = {}
    for part in text.split(","):
        name, _, written = (word.strip() for word in part.partition("="))
        if name not in Metrics._fields:
            hint = f"choose from {', '.join(Metrics._fields)}"
            raise SpecError(f"there is no metric '{name}'", where="--importance", hint=hint)
        if not re.fullmatch(r"\d{1,6}|\d{0,6}\.\d{1,6}", written):
            raise SpecError(
                f"{name} is '{written}', not a number from 0 up",
                where="--importance",
                hint="write e.g. wait_s=0.5,kilojoules=0.5",
            )
        found[name] = float(written)
    if not any(found.values()):
        raise SpecError("nothing counts", where="--importance", hint="give one more than 0")
    return Metrics(**found)


class Interval(NamedTuple):
    """A mean difference between pairs, with its 95 % interval (Student's t)."""

    mean: float
    low: float
    high: float

    @property
    def below_zero(self) -> bool:
        """Whether it is less than 0 beyond chance."""
        return self.high < 0


def paired(before: Sequence[float], after: Sequence[float]) -> Interval:
    """Return the interval of `after - before`, each pair under the same circumstances.

    Args:
        before: Shape (pairs,), at least 2.
        after: The same shape.
    """
    differences = [b - a for a, b in zip(before, after, strict=True)]
    mean = fmean(differences)
    count = len(differences)
    half = quantile_t((1 + CONFIDENCE) / 2, count - 1) * stdev(differences) / math.sqrt(count)
    return Interval(mean, mean - half, mean + half)


@cache
def quantile_t(share: float, freedom: int) -> float:
    """Return where Student's t with so many degrees of freedom has `share` of its mass below it.

    Args:
        share: From 0.5 up, below 1.
        freedom: At least 1.
    """
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2))
    scale /= math.sqrt(freedom * math.pi)

    def density(x: float) -> float:
        return scale * math.pow(1 + x * x / freedom, -(freedom + 1) / 2)

    high = 1.0
    while 0.5 + _area(density, high) < share:
        high *= 2
    low = 0.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if 0.5 + _area(density, middle) < share else (low, middle)
    return high


def _area(density: Callable[[float], float], upper: float, steps: int = 400) -> float:
    """Simpson's rule from 0 up."""
    width = upper / steps
    ends = density(0.0) + density(upper)
    inner = sum((4 if i % 2 else 2) * density(i * width) for i in range(1, steps))
    return width / 3 * (ends + inner)


@dataclass(frozen=True, slots=True)
class Objective:
    """One number for what should be little: each metric over its usual value, weighted.

    Attributes:
        importance: Of each metric.
        usual: What the default weights come to, in the mean over seeds.
    """

    usual: Metrics
    importance: Metrics = IMPORTANCE

    @classmethod
    def of(cls, metrics: Sequence[Metrics], importance: Metrics = IMPORTANCE) -> "Objective":
        """Return the objective by which these metrics come to 1 in the mean.

        A metric that is 0 in all of them counts by its own unit from there on.
        """
        return cls(mean_of(metrics), importance)

    def cost(self, metrics: Metrics) -> float:
        """Return J of one episode."""
        total = sum(
            weight for weight, usual in zip(self.importance, self.usual, strict=True) if usual
        )
        return sum(
            weight * value / (usual or 1.0)
            for weight, value, usual in zip(self.importance, metrics, self.usual, strict=True)
        ) / (total or 1.0)


def mean_of(metrics: Sequence[Metrics]) -> Metrics:
    """Return the mean of each metric."""
    return Metrics(*(fmean(values) for values in zip(*metrics, strict=True)))


class Compared(NamedTuple):
    """One metric under two sets of weights.

    Attributes:
        before: The mean under the default.
        after: The mean under the candidate.
        difference: Between pairs.
        worse: The relative change of the mean, above 0 = worse; infinite where it was 0.
    """

    before: float
    after: float
    difference: Interval
    worse: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate says of a candidate.

    Attributes:
        adopted: Whether it takes the default's place.
        sentence: Why, with the numbers.
        gain: The difference in J; below 0 is better.
        metrics: Every metric by name.
        seeds: Of the logs compared on.
    """

    adopted: bool
    sentence: str
    gain: Interval
    metrics: Mapping[str, Compared]
    seeds: tuple[int, ...]


def judge(
    seeds: Sequence[int],
    default: Sequence[Metrics],
    candidate: Sequence[Metrics],
    *,
    importance: Metrics = IMPORTANCE,
    max_worse: float = MAX_WORSE,
) -> Verdict:
    """Compare a candidate with the default on the same logs.

    It is adopted where the interval of the difference in J lies below 0, and no metric's mean is
    worse by more than `max_worse`.

    Args:
        seeds: Of the logs; nothing of them may have been seen in the search.
        default: Metrics under the default weights, one a seed.
        candidate: Metrics under the candidate.
        importance: Of each metric in J.
        max_worse: A share, 0.05 = 5 %.
    """
    objective = Objective.of(default, importance)
    gain = paired([objective.cost(m) for m in default], [objective.cost(m) for m in candidate])
    metrics: dict[str, Compared] = {}
    for name, before, after in zip(
        Metrics._fields, zip(*default, strict=True), zip(*candidate, strict=True), strict=True
    ):
        was, now = fmean(before), fmean(after)
        worse = (now - was) / was if was else math.inf if now > 0 else 0.0
        metrics[name] = Compared(was, now, paired(before, after), worse)
    falls = {name: m.worse for name, m in metrics.items() if m.worse > max_worse}
    told = f"J changes by {gain.mean:+.4f} (95 % interval {gain.low:+.4f} to {gain.high:+.4f})"
    told += f" on {len(seeds)} held-out seeds"
    if not gain.below_zero:
        sentence = f"kept the default: {told}, which is not better beyond chance"
    elif falls:
        words = ", ".join(
            f"{name} {'appears' if math.isinf(worse) else f'{100 * worse:+.1f} %'}"
            for name, worse in falls.items()
        )
        sentence = f"kept the default: {told}, but {words} is more than {100 * max_worse:g} % worse"
    else:
        sentence = f"better: {told}, and no metric is more than {100 * max_worse:g} % worse"
    adopted = gain.below_zero and not falls
    return Verdict(adopted, sentence, gain, metrics, tuple(seeds))
