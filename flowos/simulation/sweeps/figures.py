"""What came of a sweep: every run as a row, and the mean over the seeds of each point."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final, NamedTuple

from flowos.simulation.sweeps.crew import Swept
from flowos.simulation.sweeps.knobs import Axis, Form, Settings, Value

SATURATED: Final = 0.95  # of a scheduler's time; beyond it, it does not keep up
LEFT: Final = 0.05  # of the jobs: who has more of them in the queue at the end did not either


class Figure(NamedTuple):
    """A figure that is drawn and read.

    Attributes:
        title: Of its picture.
        noun: In a sentence: "conflicts for each success".
        unit: After its values.
        is_many: Whether the noun is plural.
        is_whole: Of the whole cell, not of each class.
        about: What it means.
    """

    name: str
    title: str
    noun: str
    unit: str
    is_many: bool
    is_whole: bool
    about: str


_CONFLICTS: Final = Figure(
    "conflict_fraction", "Conflicts", "conflicts for each success", "", True, False,
    "Transactions that lost a race, for each that succeeded; above 1, more is planned in vain than "
    "not. Where none succeeded, as if one had.",
)  # fmt: skip
_BUSYNESS: Final = Figure(
    "busyness", "Busyness", "busyness", "", False, False,
    "Share of its time that a scheduler spends on decisions, in vain or not; near 1 its queue only "
    "grows.",
)  # fmt: skip
DRAWN: Final[dict[Form, tuple[Figure, ...]]] = {
    "light": (
        _CONFLICTS,
        _BUSYNESS,
        Figure("wait_first_mean_s", "Wait for the first decision", "the mean wait", "s", False, False,
               "From a job's coming until it is first taken up: what its queue costs."),
        Figure("wait_full_mean_s", "Wait for the last decision", "the mean wait in queues", "s", False,
               False, "The same until the decision that placed the last of its tasks is begun."),
        Figure("cpu_use", "CPU in use", "CPU in use", "", False, True,
               "Share of all CPU that tasks hold, on average."),
    ),
    "full": (
        _CONFLICTS,
        Figure("plans_per_placed", "Commits for each placed slice", "commits tried for each slice "
               "placed", "", True, False, "1 = none in vain."),
        _BUSYNESS,
        Figure("wait_mean_s", "Wait, mean", "the mean wait", "s", False, False,
               "From a slice's coming to its commit: queue, decision, room."),
        Figure("wait_p99_s", "Wait, 99th percentile", "the 99th percentile of waits", "s", False,
               False, "All but one in a hundred wait less."),
        Figure("fairness", "Fairness", "Jain's index", "", False, False,
               "Of the slices that each scheduler of a class placed: 1 = all alike."),
        Figure("utilisation", "Engines in use", "engines in use", "", True, True,
               "Share of all engines that slices hold, on average."),
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Mean:
    """A class of jobs at one point of the grid, over the seeds that were run.

    Attributes:
        figures: The mean of each.
        least: And the smallest.
        most: And the largest.
    """

    number: int
    settings: Settings
    of_class: str
    seeds: int
    figures: dict[str, float]
    least: dict[str, float]
    most: dict[str, float]

    @property
    def is_saturated(self) -> bool:
        """Whether those who serve it cannot keep up, or have left much of it at the end."""
        left = self.figures.get("queue_left", 0.0) > LEFT * self.figures.get("jobs", 0.0)
        return self.figures["busyness"] > SATURATED or left


def means(swept: Swept) -> list[Mean]:
    """Return the mean of each point and class, in the order of the grid."""
    by: dict[tuple[int, str], list[dict[str, float]]] = {}
    settings: dict[int, Settings] = {}
    for place, rows in swept.rows.items():
        point = swept.points[place]
        settings[point.number] = point.settings
        for row in rows:
            by.setdefault((point.number, row.of_class), []).append(row.figures)
    numbers = sorted(settings)
    classes = list(dict.fromkeys(of_class for _, of_class in by))
    return [
        Mean(
            number, settings[number], of_class, len(many),
            {name: fmean(each[name] for each in many) for name in many[0]},
            {name: min(each[name] for each in many) for name in many[0]},
            {name: max(each[name] for each in many) for name in many[0]},
        )
        for number in numbers
        for of_class in classes
        if (many := by.get((number, of_class)))
    ]  # fmt: skip


def runs(swept: Swept, axes: Sequence[Axis]) -> list[dict[str, Value]]:
    """Return every run as a flat row: what was varied, the seed, the class, its figures."""
    found = []
    for place in sorted(
        swept.rows, key=lambda place: (swept.points[place].number, swept.points[place].seed)
    ):
        point = swept.points[place]
        varied = {axis.name: point.settings[axis.name] for axis in axes}
        found += [
            {**varied, "seed": point.seed, "class": row.of_class, **row.figures}
            for row in swept.rows[place]
        ]
    return found


def as_csv(rows: Sequence[dict[str, Value]]) -> str:
    """Return rows as a table with a header; numbers to nine digits."""
    if not rows:
        return ""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: f"{v:.9g}" if isinstance(v, float) else v for k, v in row.items()})
    return text.getvalue()
