"""Is ours as theirs, within the bands?

Conflicts: 15 % of theirs, or 4 standard deviations of the difference of two counts. Busyness and
waits: 3 %, what our own seeds range over, or 0.02 s. Where theirs cannot keep up, ours must not
either, and no more is asked.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

from harness import Figure

from flowos.simulation.light.measured import ClassFigures
from omega_parts.reference import Case


class Compared(NamedTuple):
    """Ours beside theirs."""

    name: str
    figure: Figure

    @property
    def ok(self) -> bool:
        """Whether it lies within its band."""
        return bool(self.figure.ok)


def compared(
    case: Case, name: str, theirs: Mapping[str, str], ours: Sequence[ClassFigures]
) -> list[Compared]:
    """Return the figures of one row.

    Args:
        case: Which run.
        name: Which class of jobs.
        theirs: The row.
        ours: One for each of our seeds.
    """
    label = f"{case} {name}"
    both = _saturated(theirs), any(_is_saturated(each) for each in ours)
    found = [_conflicts(theirs, ours)]
    if not case.is_offers:
        found.append(_within("busyness", "", theirs["busyness"], [f.busyness for f in ours], 0.0))
    found += [
        _within(name, "s", theirs[f"{name}_mean_s"], values, 0.02)
        for name, values in (
            ("wait_first", [f.wait_first_mean_s for f in ours]),
            ("wait_full", [f.wait_full_mean_s for f in ours]),
        )
    ]
    if both[0] and not (not both[1] and all(each.ok for each in found)):
        # In a queue that only grows, or that the end cut off, nothing else is to be compared.
        value = fmean(f.busyness for f in ours)
        figure = Figure(value, "", float(theirs["busyness"]), "both saturated", both[1])
        return [Compared(f"{label} saturated", figure)]
    return [Compared(f"{label} {each.name}", each.figure) for each in found]


def _conflicts(theirs: Mapping[str, str], ours: Sequence[ClassFigures]) -> Compared:
    value, reference = fmean(f.conflicts for f in ours), float(theirs["txn_conflicted"])
    band = max(0.15 * reference, 4 * math.sqrt(value + reference))
    ok = abs(value - reference) <= band
    return Compared("conflicts", Figure(value, "txns", reference, f"+-{band:.3g}", ok))


def _within(
    name: str, unit: str, theirs: str, values: Sequence[float], at_least: float
) -> Compared:
    value, reference = fmean(values), float(theirs)
    band = max(0.03 * reference, at_least, max(values) - min(values))
    # The reference is rounded to so many places.
    band += 0.5 * 10.0 ** -len(theirs.partition(".")[2])
    ok = abs(value - reference) <= band
    return Compared(name, Figure(value, unit, reference, f"+-{band:.3g}", ok))


def _saturated(row: Mapping[str, str]) -> bool:
    return float(row["busyness"]) > 0.95 or float(row["queue_left"]) > 0


def _is_saturated(ours: ClassFigures) -> bool:
    return ours.is_saturated or ours.queue_left > 0


def as_row(ours: ClassFigures) -> dict[str, str]:
    """Return one of our runs as if it were a row of the reference.

    Held against our other seeds, it says how many rows miss their bands by chance alone.
    """
    return {
        "busyness": f"{ours.busyness:.5f}",
        "txn_conflicted": str(ours.conflicts),
        "wait_first_mean_s": f"{ours.wait_first_mean_s:.4f}",
        "wait_full_mean_s": f"{ours.wait_full_mean_s:.4f}",
        "queue_left": str(ours.queue_left),
    }
