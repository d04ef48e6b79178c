"""How are figures drawn as lines over what was varied, as SVG and without any library?"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from itertools import pairwise
from typing import Final, NamedTuple

from flowos.simulation.sweeps.knobs import shown

# Okabe and Ito's colours, which the colour-blind can tell apart; their yellow is too pale for lines.
_COLOURS: Final = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#7a5195",
)  # fmt: skip
_DASHES: Final = ("", "6 3", "2 3", "8 3 2 3")
_WIDTH, _HEIGHT = 600, 306  # of one panel's plot with its margins, without legend
_LEFT, _RIGHT, _TOP, _BOTTOM = 72, 16, 34, 56
_LEGEND_ROW = 18
_TICKS_MOST = 7
_APART = 34.0  # at least, of ticks at the very values that were chosen
_FAR = 20.0  # one value is so many times the other: equal steps would hide the smaller ones


class Dot(NamedTuple):
    """A value with its range over the seeds.

    Attributes:
        x: Where; the number of the label if the axis has labels.
        is_hollow: Marked: see the chart's `hollow`.
    """

    x: float
    y: float
    low: float
    high: float
    is_hollow: bool = False


class Line(NamedTuple):
    """Values that belong together, in the order of x."""

    label: str
    dots: tuple[Dot, ...]


class Panel(NamedTuple):
    """A plot of its own; all panels of a chart have the same scales."""

    title: str
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Chart:
    """A picture.

    Attributes:
        labels: Of the x axis, if it is not one of numbers; then nothing joins the dots.
        x_log: Whether equal steps are equal factors.
        hollow: What a hollow dot means; "" = there are none.
    """

    title: str
    x_title: str
    y_title: str
    panels: tuple[Panel, ...]
    labels: tuple[str, ...] = ()
    x_log: bool = False
    y_log: bool = False
    hollow: str = ""

    def pieces(self) -> list[str]:
        """Return each panel as an SVG element of its own, which a narrow page has room for."""
        return [self._svg((panel,)) for panel in self.panels]

    def svg(self) -> str:
        """Return the picture as one SVG element that is a file too."""
        return self._svg(self.panels)

    def _svg(self, panels: Sequence[Panel]) -> str:
        columns = min(2, len(panels))
        rows = -(-len(panels) // columns)
        entries = max(len(panel.lines) for panel in self.panels)
        tall = _HEIGHT + _LEGEND_ROW * (-(-entries // 2) + bool(self.hollow))
        parts = []
        for number, panel in enumerate(panels):
            left, top = number % columns * _WIDTH, number // columns * tall
            parts.append(f'<g transform="translate({left},{top})">{self._panel(panel)}</g>')
        wide, high = columns * _WIDTH, rows * tall
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" width="{wide}" '
            f'height="{high}" role="img" font-family="sans-serif" font-size="12">'
            f"<title>{escape(self.title if len(panels) > 1 else panels[0].title)}</title>"
            f'<rect width="{wide}" height="{high}" fill="#ffffff"/>' + "".join(parts) + "</svg>\n"
        )

    # -- one panel

    def _panel(self, panel: Panel) -> str:
        x, y = self._x_scale(), self._y_scale()
        bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
        parts = [_text((_LEFT + right) / 2, 20, panel.title, size=13, weight="bold")]
        for value, label in y.ticks:
            at = y.at(value)
            parts.append(_stroke(_LEFT, at, right, at, "#dddddd"))
            parts.append(_text(_LEFT - 6, at + 4, label, anchor="end"))
        for value, label in x.ticks:
            at = x.at(value)
            parts.append(_stroke(at, bottom, at, bottom + 4, "#333333"))
            parts.append(_text(at, bottom + 17, label))
        parts.append(_stroke(_LEFT, bottom, right, bottom, "#333333"))
        parts.append(_stroke(_LEFT, _TOP, _LEFT, bottom, "#333333"))
        parts.append(_text((_LEFT + right) / 2, bottom + 36, self.x_title))
        middle = (_TOP + bottom) / 2
        parts.append(
            f'<g transform="rotate(-90 14 {middle:.1f})">{_text(14, middle + 4, self.y_title)}</g>'
        )
        for number, line in enumerate(panel.lines):
            parts.append(self._line(line, number, len(panel.lines), x, y))
        parts += self._legend(panel)
        return "".join(parts)

    def _line(self, line: Line, number: int, among: int, x: "_Scale", y: "_Scale") -> str:
        colour = _COLOURS[number % len(_COLOURS)]
        # Beside each other where they would stand on one another.
        shift = (number - (among - 1) / 2) * min(12.0, 60.0 / among) if self.labels else 0.0
        at = [(x.at(dot.x) + shift, y.at(dot.y), dot) for dot in line.dots]
        parts = []
        if not self.labels and len(at) > 1:
            there = [f"{px:.1f},{y.at(dot.high):.1f}" for px, _, dot in at]
            back = [f"{px:.1f},{y.at(dot.low):.1f}" for px, _, dot in reversed(at)]
            parts.append(
                f'<polygon points="{" ".join(there + back)}" fill="{colour}" opacity="0.15"/>'
            )
            way = " ".join(f"{px:.1f},{py:.1f}" for px, py, _ in at)
            parts.append(
                f'<polyline points="{way}" fill="none" stroke="{colour}" stroke-width="2" '
                f'stroke-dasharray="{_dash(number)}"/>'
            )
        for px, py, dot in at:
            if dot.high > dot.low:
                parts.append(_stroke(px, y.at(dot.low), px, y.at(dot.high), colour))
            fill = "#ffffff" if dot.is_hollow else colour
            said = f"{line.label}: {shown(dot.y)}" if line.label else shown(dot.y)
            parts.append(
                f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3.5" fill="{fill}" stroke="{colour}" '
                f'stroke-width="1.5"><title>{escape(said)}</title></circle>'
            )
        return "".join(parts)

    def _legend(self, panel: Panel) -> list[str]:
        parts = []
        lines = panel.lines if len(panel.lines) > 1 or panel.lines[0].label else ()
        for number, line in enumerate(lines):
            left = _LEFT + number % 2 * (_WIDTH - _LEFT) / 2
            at = _HEIGHT + _LEGEND_ROW * (number // 2)
            colour = _COLOURS[number % len(_COLOURS)]
            parts.append(
                f'<line x1="{left:.1f}" y1="{at}" x2="{left + 22:.1f}" y2="{at}" stroke="{colour}" '
                f'stroke-width="3" stroke-dasharray="{"" if self.labels else _dash(number)}"/>'
            )
            parts.append(_text(left + 28, at + 4, line.label, anchor="start"))
        if self.hollow:
            at = _HEIGHT + _LEGEND_ROW * -(-len(lines) // 2)
            parts.append(
                f'<circle cx="{_LEFT + 11}" cy="{at}" r="3.5" fill="#ffffff" stroke="#333333" '
                'stroke-width="1.5"/>'
            )
            parts.append(_text(_LEFT + 28, at + 4, self.hollow, anchor="start"))
        return parts

    # -- scales

    def _dots(self) -> list[Dot]:
        return [dot for panel in self.panels for line in panel.lines for dot in line.dots]

    def _x_scale(self) -> "_Scale":
        left, right = float(_LEFT), float(_WIDTH - _RIGHT)
        if self.labels:
            ticks = tuple((float(n), label) for n, label in enumerate(self.labels))
            return _Scale(-0.5, len(self.labels) - 0.5, left, right, ticks=ticks)
        places = [dot.x for dot in self._dots()]
        low, high = min(places), max(places)
        inset = 10.0
        if self.x_log:
            ticks = _log_ticks(low, high)
        elif low == high:
            low, high, ticks = low - 0.5, high + 0.5, ((low, shown(low)),)
        else:
            whole = all(float(place).is_integer() for place in places)
            ticks = tuple(
                (value, shown(value))
                for value in _nice(low, high)
                if low <= value <= high and (not whole or value.is_integer())
            )
        scale = _Scale(low, high, left + inset, right - inset, ticks=ticks, is_log=self.x_log)
        own = sorted(set(places))
        if all(scale.at(b) - scale.at(a) >= _APART for a, b in pairwise(own)):
            scale = replace(scale, ticks=tuple((place, shown(place)) for place in own))
        return scale

    def _y_scale(self) -> "_Scale":
        bottom, top = float(_HEIGHT - _BOTTOM), float(_TOP)
        dots = self._dots()
        most = max(dot.high for dot in dots)
        above = [value for dot in dots for value in (dot.low, dot.y) if value > 0]
        if not self.y_log or not above:
            values = _nice(0.0, most if most > 0 else 1.0)
            ticks = tuple((value, shown(value)) for value in values)
            return _Scale(0.0, values[-1], bottom, top, ticks=ticks)
        low = 10.0 ** math.floor(math.log10(min(above)))
        high = 10.0 ** math.ceil(math.log10(most))
        if high <= low:
            high = low * 10
        ticks = _log_ticks(low, high)
        if any(dot.low <= 0 for dot in dots):
            # Nothing has its own place, below all that is something.
            least = low / (high / low) ** 0.12
            return _Scale(least, high, bottom, top, ticks=((least, "0"), *ticks), is_log=True)
        return _Scale(low, high, bottom, top, ticks=ticks, is_log=True)


@dataclass(frozen=True, slots=True)
class _Scale:
    """From values to places."""

    low: float
    high: float
    begin: float
    end: float
    ticks: tuple[tuple[float, str], ...]
    is_log: bool = False

    def at(self, value: float) -> float:
        inside = min(max(value, self.low), self.high)
        if self.is_log:
            part = math.log(inside / self.low) / math.log(self.high / self.low)
        else:
            part = (inside - self.low) / (self.high - self.low)
        return self.begin + part * (self.end - self.begin)


def _nice(low: float, high: float) -> list[float]:
    """Return round values from at most `low` to at least `high`."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * part for part in (1, 2, 2.5, 5, 10) if power * part >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{n * step:.12g}") for n in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> tuple[tuple[float, str], ...]:
    """Return powers of ten, every second or third where there are many; and 2 and 5 where few."""
    first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
    parts = (1, 2, 5) if last - first <= 2 else (1,)
    stride = -(-(last - first + 1) // _TICKS_MOST)
    values = [part * 10.0**power for power in range(first, last + 1, stride) for part in parts]
    inside = [v for v in values if low * 0.999 <= v <= high * 1.001]
    return tuple((v, _power(v)) for v in inside)


def _power(value: float) -> str:
    return f"{value:g}" if 1e-4 <= value < 1e5 else f"{value:.0e}".replace("e-0", "e-")


def is_wide(values: Sequence[float]) -> bool:
    """Return whether values are so far from each other that only a log scale shows all of them."""
    above = [value for value in values if value > 0]
    return bool(above) and max(above) / min(above) >= _FAR


def is_log(values: Sequence[float]) -> bool:
    """Return whether values that were chosen lie rather in equal factors than in equal steps."""
    ordered = sorted(set(values))
    if len(ordered) < 2 or ordered[0] <= 0:
        return False
    if len(ordered) == 2:
        return ordered[1] / ordered[0] >= _FAR
    factors = [b / a for a, b in pairwise(ordered)]
    steps = [b - a for a, b in pairwise(ordered)]
    return max(steps) / min(steps) > max(factors) / min(factors)


def _dash(number: int) -> str:
    """Return how a line is dashed: neighbours differ without colour, and where they lie on each other."""
    return _DASHES[(number + number // len(_COLOURS)) % len(_DASHES)]


def _stroke(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'


def _text(
    x: float, y: float, text: str, *, anchor: str = "middle", size: int = 12, weight: str = "normal"
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" '
        f'font-weight="{weight}" fill="#222222">{escape(text)}</text>'
    )
