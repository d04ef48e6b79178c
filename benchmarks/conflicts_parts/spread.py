"""How are conflicts spread over contests that nobody chose, and what does each mitigation do to that?

The same contests, in the same orders, are played with all mitigations, without each of them, and
without any. So what differs is that one thing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import log
from statistics import fmean
from typing import Any, Final

from flowos.testing.hunt import OBJECTIVES, ended
from flowos.testing.interleaving import ALL, NONE, Contest, Ground, Mitigations
from flowos_schedulers.batch import Batch
from flowos_store.memory import MemoryStore

WAYS: Final[dict[str, Mitigations]] = {
    "all": ALL,
    **{f"without {field.name}": ALL.without(field.name) for field in fields(Mitigations)},
    "none": NONE,
}
FIGURES: Final = tuple(OBJECTIVES)


@dataclass(frozen=True)
class Spread:
    """The figures of many runs.

    Attributes:
        values: Figure -> one for each run, in the order of the runs.
        placed: Slices placed in all runs together.
        conflicts: Commits that conflicted.
    """

    values: dict[str, list[float]]
    placed: int
    conflicts: int

    def mean(self, figure: str) -> float:
        """Return the mean over all runs."""
        return fmean(self.values[figure])

    def worst(self, figure: str) -> float:
        """Return the worst of all runs."""
        return max(self.values[figure])


def played(job: tuple[Sequence[tuple[Contest, tuple[int, ...]]], Mitigations]) -> Spread:
    """Play contests under one set of mitigations."""
    contests, ways = job
    runs = [ended(Ground(c, MemoryStore), choices, Batch, ways) for c, choices in contests]
    return Spread(
        {name: [objective.of(run) for run in runs] for name, objective in OBJECTIVES.items()},
        sum(run.placed for run in runs),
        sum(run.conflicts for run in runs),
    )


def draw(figure: Any, spreads: dict[str, Spread]) -> None:  # matplotlib has no types
    """Draw how conflicts are spread, and by how much each mitigation moves the means."""
    figure.clear()
    figure.set_size_inches(12, 4.6)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.25))
    for way, colour in (
        ("all", "#009e73"),
        ("without repair", "#e69f00"),
        ("none", "#d55e00"),
    ):
        ordered = sorted(spreads[way].values["conflict fraction"], reverse=True)
        shares = [(rank + 1) / len(ordered) for rank in range(len(ordered))]
        left.step(ordered, shares, where="post", color=colour, label=_named(way))
    left.set_xlabel("lost commits for each that won, in one run")
    left.set_ylabel("share of runs with at least so many")
    left.set_yscale("log")
    left.legend()
    left.set_title("Contests that nobody chose")
    ways = [way for way in WAYS if way != "all"]
    table = [
        [_ratio(spreads[way].mean(name), spreads["all"].mean(name)) for name in FIGURES]
        for way in ways
    ]
    logs = [[log(ratio) for ratio in line] for line in table]
    right.imshow(logs, cmap="RdYlGn_r", vmin=-log(8), vmax=log(8), aspect="auto")
    right.set_xticks(range(len(FIGURES)), [name.replace(" ", "\n") for name in FIGURES])
    right.set_yticks(range(len(ways)), [_named(way) for way in ways])
    for row, line in enumerate(table):
        for column, ratio in enumerate(line):
            right.text(column, row, f"×{ratio:.2f}", ha="center", va="center", fontsize=9)
    right.set_title("Means beside those with all mitigations (above 1: it helps)")


def _named(way: str) -> str:
    return {"all": "with all", "none": "without any"}.get(way, way.replace("_", "-"))


def _ratio(value: float, baseline: float) -> float:
    return value / baseline if baseline else 1.0
