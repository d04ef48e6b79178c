"""What does a figure say, in one sentence that is computed from its numbers?"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

from flowos.simulation.sweeps.figures import Figure
from flowos.simulation.sweeps.knobs import shown

_SAME: Final = 0.05  # of the larger: what differs by less is about the same
_LINES_MOST: Final = 4  # that are told one by one
# These say themselves whether a queue is saturated, or are not of its schedulers at all.
_TOLD_WHEN_SATURATED: Final = ("busyness", "cpu_use", "utilisation")


@dataclass(frozen=True, slots=True)
class Told:
    """A value at a place.

    Attributes:
        where: On the axis, such as "t_job 30 s".
        short: The same as the end of a span: "30 s".
        whole: With whose it is: "Batch, schedulers 4, t_job 30 s".
        noise: How far the seeds lie apart.
    """

    where: str
    short: str
    whole: str
    value: float
    noise: float
    is_saturated: bool


@dataclass(frozen=True, slots=True)
class Series:
    """Values in the order in which something was varied.

    Attributes:
        subject: Whose they are, such as "Batch" or "Batch, schedulers 4"; "" = of all.
        is_ordered: Whether it was varied from less to more.
    """

    subject: str
    values: tuple[Told, ...]
    is_ordered: bool


def reading(figure: Figure, series: Sequence[Series]) -> str:
    """Return one sentence on a figure."""
    noun = f"{figure.noun[:1].upper()}{figure.noun[1:]}"
    if len(series) > _LINES_MOST:
        everywhere = [replace(told, where=told.whole) for one in series for told in one.values]
        return f"{noun} {_range(figure, everywhere)}."
    if len(series) == 1:
        return f"{noun} {_one(figure, series[0])}."
    if all(len(one.values) == 1 for one in series):
        alone = (
            f"{one.subject} {_amount(figure, one.values[0].value)}{_saturation(one)}"
            for one in series
        )
        return f"{noun}: {'; '.join(alone)}."
    told = [f"{one.subject}: {_without_verb(_one(figure, one))}" for one in series]
    return f"{noun}: {'; '.join(told)}."


def _without_verb(said: str) -> str:
    """Return "0 throughout" for "are 0 throughout": who it is said of stands before a colon."""
    return said.removeprefix("are ").removeprefix("is ")


def _one(figure: Figure, series: Series) -> str:
    counted = [told for told in series.values if not told.is_saturated]
    if figure.name in _TOLD_WHEN_SATURATED or not counted:
        counted = list(series.values)
    return _course(figure, counted, is_ordered=series.is_ordered) + _saturation(series)


def _course(figure: Figure, told: Sequence[Told], *, is_ordered: bool) -> str:
    """Return a verb and the rest: "grow from 0.1 to 0.2 between t_job 1 s and 10 s"."""
    values = [each.value for each in told]
    low, high = min(told, key=lambda t: t.value), max(told, key=lambda t: t.value)
    many = figure.is_many
    if len(told) == 1:
        return f"{'are' if many else 'is'} {_amount(figure, values[0])} {_at(told[0])}".strip()
    if high.value == 0:
        return f"{'are' if many else 'is'} 0 throughout"
    if high.value - low.value <= max(_SAME * abs(high.value), *(each.noise for each in told)):
        mean = sum(values) / len(values)
        return f"{'stay' if many else 'stays'} at about {_amount(figure, mean)}"
    if is_ordered:
        # A step back that is no larger than a twentieth of the whole way is none.
        slack = _SAME * (high.value - low.value)
        first, last = told[0], told[-1]
        steps = [b - a for a, b in pairwise(values)]
        verb = ""
        if all(step >= -slack for step in steps):
            verb = "grow" if many else "grows"
        elif all(step <= slack for step in steps):
            verb = "fall" if many else "falls"
        if verb:
            return (
                f"{verb} from {_amount(figure, first.value)} to "
                f"{_amount(figure, last.value)} between {first.where} and {last.short}"
            )
    return (
        f"{'lie' if many else 'lies'} between {_amount(figure, low.value)} {_at(low)} and "
        f"{_amount(figure, high.value)} {_at(high)}"
    )


def _range(figure: Figure, told: Sequence[Told]) -> str:
    """Say where of many lines the least and the most are."""
    counted = [t for t in told if not t.is_saturated]
    if figure.name in _TOLD_WHEN_SATURATED or not counted:
        counted = list(told)
    said = _course(figure, counted, is_ordered=False)
    full = sum(t.is_saturated for t in told)
    if not full:
        return said
    return f"{said}; the queue is saturated in {full} of {len(told)} cases"


def _saturation(series: Series) -> str:
    """Say where a queue only grows, from where on if that was varied from less to more."""
    full = [told.is_saturated for told in series.values]
    if not any(full):
        return ""
    if all(full):
        return ", with its queue saturated" + (" throughout" if len(full) > 1 else "")
    first = full.index(True)
    if series.is_ordered and all(full[first:]):
        return f", the queue is saturated from {series.values[first].short} on"
    last = full.index(False)
    if series.is_ordered and not any(full[last:]):
        return f", the queue is saturated up to {series.values[last - 1].short}"
    return ", the queue is saturated at " + ", ".join(
        told.short for told in series.values if told.is_saturated
    )


def _at(told: Told) -> str:
    return f"({told.where})" if told.where else ""


def _amount(figure: Figure, value: float) -> str:
    return f"{shown(value)} {figure.unit}".strip()
