"""What came of a sweep: every run as a row, and the mean over the seeds of each point."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final, NamedTuple

from flowos.simulation.sweeps.crew import Swept
from flowos.simulation.sweeps.knobs import PRODUCTION, Axis, Form, Settings, Value

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
_WAIT_MEAN: Final = Figure(
    "wait_mean_s", "Wait, mean", "the mean wait", "s", False, False,
    "From a slice's coming to its commit: queue, decision, room.",
)  # fmt: skip
_WAIT_P99: Final = Figure(
    "wait_p99_s", "Wait, 99th percentile", "the 99th percentile of waits", "s", False, False,
    "All but one in a hundred wait less.",
)  # fmt: skip
_USE: Final = Figure(
    "utilisation", "Engines in use", "share of engines in use", "", False, True,
    "Share of all engines that slices hold, on average.",
)  # fmt: skip
DRAWN: Final[dict[Form, tuple[Figure, ...]]] = {
    "light": (
        _CONFLICTS,
        _BUSYNESS,
        Figure("wait_first_mean_s", "Wait for the first decision", "the mean wait", "s", False, False,
               "From a job's coming until it is first taken up: what its queue costs."),
        Figure("wait_full_mean_s", "Wait for the last decision", "the mean wait in queues", "s", False,
               False, "The same until the decision that placed the last of its tasks is begun."),
        Figure("cpu_use", "CPU in use", "share of CPU in use", "", False, True,
               "Share of all CPU that tasks hold, on average."),
    ),
    "full": (
        _CONFLICTS,
        Figure("plans_per_placed", "Commits for each placed slice", "commits tried for each slice "
               "placed", "", True, False, "1 = none in vain."),
        _BUSYNESS,
        _WAIT_MEAN,
        _WAIT_P99,
        Figure("fairness", "Fairness", "Jain's index", "", False, False,
               "Of the slices that each scheduler of a class placed: 1 = all alike."),
        _USE,
    ),
}  # fmt: skip
# Of the architectures that full mode has besides the production code.
_COMPARED: Final = (
    _WAIT_MEAN._replace(about="From a slice's coming until all of it was its own; those that still wait "
                        "at the end count with what they have waited."),
    _WAIT_P99,
    _CONFLICTS,
    _BUSYNESS,
    Figure("failed_fraction", "Failed acceptances", "acceptances that failed for each slice placed", "",
           True, False, "Others had taken the devices that an optimistic offer named."),
    Figure("only_outside", "Hidden places", "share of slices whose only place was hidden", "", False,
           False,
           "Share of slices that had a place on all that was free, and none on what they were shown."),
    Figure("better_outside", "Hidden better places", "share of slices whose better place was hidden", "", False,
           False, "Share of slices that were placed, and outside of what they were shown would have "
           "crossed fewer links, lain on fewer nodes, or woken fewer engines."),
    Figure("hoarded_engine_s", "Hoarding", "engine-seconds that were hoarded", "engine-s", True, True,
           "Engines held, times seconds, by slices that waited for the rest of themselves."),
    Figure("withheld", "Withheld engines", "share of engines withheld", "", False, True,
           "Share of all engine-seconds that were free and fit for a slice that waited, which had not "
           "been shown them, or had not got them yet."),
    Figure("stranded", "Stranded engines", "share of engines stranded", "", False, True,
           "Share of all engine-seconds that were free, and enough for a slice that waited, but lay so "
           "that it had no place on them."),
    Figure("kj_per_engine_hour", "Energy", "energy for each engine-hour of use", "kJ", False, True,
           "What all engines drew, idle ones too, for each hour of an engine that was of use."),
    _USE,
)  # fmt: skip


def figures_of(mode: Form, architectures: Sequence[str]) -> tuple[Figure, ...]:
    """Return what is drawn and read of runs of these architectures."""
    if mode == "full" and PRODUCTION not in architectures:
        return _COMPARED
    return DRAWN[mode]


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
