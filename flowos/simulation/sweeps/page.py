"""How is a sweep shown: its pictures, a sentence on each, and one page with what was assumed?"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from html import escape
from typing import Any, Final, NamedTuple

from flowos.simulation.light.loads import Class
from flowos.simulation.sweeps.arrivals import DRAWN_LOAD
from flowos.simulation.sweeps.charts import Chart, Dot, Line, Panel, is_log, is_wide
from flowos.simulation.sweeps.crew import Swept
from flowos.simulation.sweeps.figures import (
    LEFT,
    SATURATED,
    Figure,
    Mean,
    as_csv,
    figures_of,
    means,
    runs,
)
from flowos.simulation.sweeps.folder import PAGE, TABLE
from flowos.simulation.sweeps.knobs import (
    KNOBS,
    PRODUCTION,
    Axis,
    Key,
    Value,
    architectures_of,
    knobs_of,
    shown,
    with_unit,
)
from flowos.simulation.sweeps.readings import Series, Told, reading
from flowos.simulation.sweeps.runs import Ground

_LINES_IN_ONE: Final = 6  # more go to a panel for each class
_ROWS_MOST: Final = 400  # of the page's table

_MODEL: Final = {
    "light": """\
A decision takes t_job + t_task × (tasks not placed yet); it sees the cell as it was at its beginning \
unless looks is live, and is committed at its end.
What is left of a job after a conflict, or for want of room, comes again 1 s later.
A machine is CPU and memory; tasks go to machines at random, first fit.""",
    "full": """\
The schedulers are the production code, each with a view of its own, on one store in memory and in \
virtual time.
A decision takes t_job + t_task × engines; nothing else takes time but the ways to the store and back.
Slices hold what they get for their duration, and give it back in one transaction; nobody dies, and no \
device fails.""",
}

_COMPARED: Final = """\
All architectures have the same cell and slices, and the production planner; how they share the cell is \
a model, and the production code is not in it.
A decision takes t_job + t_task × engines, for each slice; to find no place, or to refuse an offer, takes no \
time. Smaller slices may overtake.
Shared state: each scheduler decides on a copy that is as old as its decision (frozen), or looks again \
before the commit (live).
Offers: what is free is offered to whoever has the smallest dominant share, and is locked until it answers. \
Pooled devices are in the offer of the node they sit on (offers), in those of all hosts they could be attached \
to, locked for nobody (optimistic), or dealt out among these (pessimistic).
Slices hold what they get for their duration; no device fails."""


class Shown(NamedTuple):
    """A figure as it is shown."""

    figure: Figure
    chart: Chart
    reading: str


@dataclass(frozen=True)
class Story:
    """What was swept, and what came of it.

    Attributes:
        command: That runs the same again.
    """

    ground: Ground
    axes: tuple[Axis, ...]
    settings: Mapping[Key, Value]
    seeds: int
    swept: Swept
    command: str
    version: str = ""

    @cached_property
    def means(self) -> list[Mean]:
        """Of each point and class."""
        return means(self.swept)

    @cached_property
    def rows(self) -> list[dict[str, Value]]:
        """Every run, flat."""
        return runs(self.swept, self.axes)

    @cached_property
    def architectures(self) -> tuple[str, ...]:
        """Which were run."""
        return architectures_of(self.settings, self.axes, self.ground.mode)

    @property
    def _named(self) -> set[str]:
        return {*map(str, self.settings), *(axis.name for axis in self.axes)}

    @property
    def figures(self) -> tuple[Figure, ...]:
        """What is drawn and read of them."""
        return figures_of(self.ground.mode, self.architectures)

    @cached_property
    def shown(self) -> list[Shown]:
        """Return every figure with its picture and its sentence."""
        return [
            Shown(figure, self._chart(figure), reading(figure, self._series(figure)))
            for figure in self.figures
        ]

    def files(self) -> dict[str, str]:
        """Return what a folder of this holds, by file name; the same runs give the same texts."""
        pictures = {f"{each.figure.name}.svg": each.chart.svg() for each in self.shown}
        return {TABLE: as_csv(self.rows), **pictures, PAGE: self.html()}

    def document(self) -> dict[str, Any]:
        """Return all of it for programs: every run, the means, and what they say."""
        return {
            "apiVersion": "flowos/v1",
            "mode": self.ground.mode,
            "load": self.ground.load.about,
            "command": self.command,
            "interrupted": self.swept.interrupted,
            "runs": {"done": len(self.swept.rows), "of": len(self.swept.points)},
            "items": self.rows,
            "means": [
                {
                    **{axis.name: mean.settings[axis.name] for axis in self.axes},
                    "class": mean.of_class,
                    "seeds": mean.seeds,
                    "saturated": mean.is_saturated,
                    **mean.figures,
                }
                for mean in self.means
            ],
            "readings": {each.figure.name: each.reading for each in self.shown},
        }

    # -- lines

    @cached_property
    def over(self) -> Axis | None:
        """Which axis is drawn to the right: the first of numbers, else the first."""
        long = [axis for axis in self.axes if len(axis.values) > 1] or list(self.axes)
        return next((axis for axis in long if axis.is_number), long[0] if long else None)

    def _lines(self, figure: Figure) -> dict[tuple[str, str], list[Mean]]:
        """Return (class, what else was varied) -> its values, in the order of the axis."""
        others = [axis for axis in self.axes if axis is not self.over]
        found: dict[tuple[str, str], list[Mean]] = {}
        one = self.ground.load.classes[0]
        for mean in self.means:
            if figure.is_whole and mean.of_class != one:
                continue
            said = ", ".join(with_unit(axis.key, mean.settings[axis.name]) for axis in others)
            found.setdefault(("" if figure.is_whole else mean.of_class, said), []).append(mean)
        over = self.over
        if over is not None and over.is_number:
            for values in found.values():
                values.sort(key=lambda mean: mean.settings[over.name])
        return found

    def _chart(self, figure: Figure) -> Chart:
        lines = self._lines(figure)
        classes = list(dict.fromkeys(of_class for of_class, _ in lines))
        over = self.over
        labels: tuple[str, ...] = ()
        if over is None:
            labels = ("",)
        elif not over.is_number:
            labels = tuple(map(str, over.values))

        def line(key: tuple[str, str], label: str) -> Line:
            return Line(label, tuple(self._dot(figure, mean) for mean in lines[key]))

        if len(lines) > _LINES_IN_ONE and len(classes) > 1:
            panels = tuple(
                Panel(f"{figure.title}: {of_class}",
                      tuple(line(key, key[1]) for key in lines if key[0] == of_class))
                for of_class in classes
            )  # fmt: skip
        else:
            of_all = tuple(line(key, ", ".join(part for part in key if part)) for key in lines)
            panels = (Panel(figure.title, of_all),)
        dots = [dot for panel in panels for one in panel.lines for dot in one.dots]
        return Chart(
            figure.title,
            "" if over is None else f"{over.name}, {over.key.knob.unit}".removesuffix(", "),
            f"{figure.noun}, {figure.unit}".removesuffix(", "),
            panels,
            labels,
            x_log=not labels and is_log([dot.x for dot in panels[0].lines[0].dots]),
            y_log=is_wide([dot.y for dot in dots]),
            hollow="its queue is saturated" if any(dot.is_hollow for dot in dots) else "",
        )

    def _dot(self, figure: Figure, mean: Mean) -> Dot:
        name, over = figure.name, self.over
        place: Value = 0
        if over is not None:
            value = mean.settings[over.name]
            place = value if over.is_number else over.values.index(value)
        saturated = mean.is_saturated and not figure.is_whole
        return Dot(float(place), mean.figures[name], mean.least[name], mean.most[name], saturated)

    def _series(self, figure: Figure) -> list[Series]:
        over = self.over
        found = []
        for (of_class, said), values in self._lines(figure).items():
            # Only who has rivals needs a name.
            named = of_class if len(self.ground.load.classes) > 1 else ""
            subject = ", ".join(part for part in (named, said) if part)
            told = []
            for mean in values:
                here = with_unit(over.key, mean.settings[over.name]) if over else ""
                told.append(Told(
                    here,
                    here.removeprefix(f"{over.key} ") if over else "",
                    ", ".join(part for part in (subject, here) if part),
                    mean.figures[figure.name],
                    mean.most[figure.name] - mean.least[figure.name],
                    mean.is_saturated and not figure.is_whole,
                ))  # fmt: skip
            found.append(Series(subject, tuple(told), over is not None and over.is_number))
        return found

    # -- what was assumed

    @cached_property
    def assumptions(self) -> list[str]:
        """In sentences, what all of this rests on."""
        load, mode = self.ground.load, self.ground.mode
        full = self.ground.full
        points = {point.number for point in self.swept.points}
        is_compared = mode == "full" and PRODUCTION not in self.architectures
        model = _COMPARED if is_compared else _MODEL[mode]
        found = [*model.splitlines(), f"Load: {load.about}."]
        if full is not None:
            found.append(
                f"Cell: {full.cell_name}, {len(full.cell.engines):,} engines on "
                f"{len(full.cell.nodes):,} nodes."
                + ("" if is_compared else f" Policy: {full.policy_name}.")
            )
        found.append(
            f"{len(points):,} {'point' if len(points) == 1 else 'points'}, each run with "
            f"{self.seeds} {'seed' if self.seeds == 1 else 'seeds'}; lines are means, and what lies "
            "between the seeds' extremes is shaded."
        )
        found.append(
            f"A queue counts as saturated where its schedulers are busy for more than {100 * SATURATED:.0f} % "
            "of the time"
            + (
                f", or leave more than {100 * LEFT:.0f} % of the jobs in it"
                if mode == "light"
                else ""
            )
            + "; sentences compare only what is not."
        )
        if self.swept.interrupted:
            found.append(
                f"The sweep was interrupted: {len(self.swept.rows):,} of {len(self.swept.points):,} "
                "runs were done."
            )
        return found

    @cached_property
    def values(self) -> list[tuple[str, str]]:
        """Return every knob with what it was: set, varied, or its default."""
        found = []
        varied = {axis.name: axis for axis in self.axes}
        set_ = {str(key): key for key in self.settings}
        for knob in knobs_of(self.ground.mode):
            if knob.drawn and self.ground.load.profile is None:
                continue
            if not any(knob.serves(each, self.ground.mode) for each in self.architectures):
                continue
            if knob.name == "gaps" and self.ground.load.profile is not None:
                continue
            names = [name for name in (*varied, *set_) if name.partition(".")[0] == knob.name]
            if knob.name not in names:
                usual = knob.default(self.ground.mode)
                said = self._implied(knob.name) if usual is None else with_unit(Key(knob), usual)
                if said:
                    found.append((knob.name, said.removeprefix(f"{knob.name} ")))
            for name in names:
                if name in varied:
                    axis = varied[name]
                    texts = ", ".join(shown(value) for value in axis.values)
                    found.append((name, f"{texts} {knob.unit}".strip()))
                else:
                    value = with_unit(set_[name], self.settings[set_[name]])
                    found.append((name, value.removeprefix(f"{name} ")))
        return found

    def _implied(self, name: str) -> str:
        """Return what follows from the load where nobody set it."""
        load = self.ground.load
        if name == "machines":
            return f"{load.machines:,}"
        if name == "prefilled":
            return f"{load.prefilled:g}"
        if name == "until":
            return "come" if "load" in self._named else "ended"
        if name == "off_after":
            return "never"
        if name == "load":
            return f"{DRAWN_LOAD:g}" if load.profile is not None else "as the file has it"
        if name == "seconds":
            if self.ground.mode == "full":
                if PRODUCTION in self.architectures:
                    return "as until says"
                return "until the last slice has come"
            return f"{load.seconds({}, 'light'):,.0f} s"
        if load.profile is None or name not in ("gap", "tasks", "duration", "cpus", "mem_gb"):
            return ""

        def of(cls: Class) -> str:
            return {
                "gap": f"{shown(cls.gap_s)} s",
                "tasks": shown(cls.tasks.middle),
                "duration": f"{shown(cls.duration_s.middle)} s",
                "cpus": f"{cls.cpu_millis / 1000:g}",
                "mem_gb": f"{cls.memory_mib / 1024:g} GB",
            }[name]

        return ", ".join(f"{cls.name} {of(cls)}" for cls in load.profile)

    # -- the page

    def html(self) -> str:
        """Return one page that needs no other file."""
        varied = " and ".join(axis.name for axis in self.axes)
        title = f"{varied} varied" if varied else "One run"
        figures = "\n".join(
            f'<section id="{each.figure.name}"><h2>{escape(each.figure.title)}</h2>\n'
            f'<p class="reading">{escape(each.reading)}</p>\n'
            f'<figure><div class="panels">{"".join(each.chart.pieces())}</div>'
            f"<figcaption>{escape(each.figure.about)}</figcaption></figure></section>"
            for each in self.shown
        )
        values = "".join(
            f"<tr><th>{escape(name)}</th><td>{escape(value)}</td>"
            f"<td>{escape(KNOBS[name.partition('.')[0]].about)}</td></tr>"
            for name, value in self.values
        )
        assumed = "".join(f"<li>{escape(text)}</li>" for text in self.assumptions)
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            '<meta name="color-scheme" content="light dark">'
            f"<title>{escape(title)} – flowos simulate</title><style>{_STYLE}</style></head>\n<body>\n"
            f"<h1>{escape(title)}</h1>\n"
            f"<p>{self.ground.mode.capitalize()} mode; the same again: "
            f"<code>{escape(self.command)}</code></p>\n"
            f"{figures}\n"
            f"<section><h2>What was assumed</h2>\n<ul>{assumed}</ul>\n"
            f"<table class=values>{values}</table></section>\n"
            f"<section><h2>Numbers</h2>\n{self._table()}\n"
            f'<p>Every run, with all of its figures: <a href="{TABLE}">{TABLE}</a>.</p></section>\n'
            f"<footer>Flow OS {escape(self.version)}</footer>\n</body></html>\n"
        )

    def _table(self) -> str:
        figures = self.figures
        titles = [*(axis.name for axis in self.axes), "class", "seeds",
                  *(figure.name for figure in figures)]  # fmt: skip
        lines = [f"<tr>{''.join(f'<th>{escape(title)}</th>' for title in titles)}</tr>"]
        for mean in self.means[:_ROWS_MOST]:
            cells = [
                *(shown(mean.settings[axis.name]) for axis in self.axes),
                mean.of_class,
                str(mean.seeds),
                *(shown(mean.figures[figure.name]) for figure in figures),
            ]
            mark = ' class="full"' if mean.is_saturated else ""
            lines.append(f"<tr{mark}>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>")
        more = len(self.means) - _ROWS_MOST
        rest = f"<p>And {more:,} rows more.</p>" if more > 0 else ""
        return f'<div class="wide"><table>{"".join(lines)}</table></div>{rest}'


_STYLE: Final = (
    "body{font:16px/1.5 sans-serif;color:#222;background:#fff;max-width:1240px;margin:2em auto;"
    "padding:0 1em}h1,h2{line-height:1.2}section{margin:2em 0}.reading{font-size:1.1em;"
    "border-left:4px solid #0072b2;padding-left:.8em}figure{margin:0}svg{max-width:100%;height:auto}"
    ".panels{display:flex;flex-wrap:wrap;overflow-x:auto}.panels svg{flex:1 1 28em;max-width:600px}"
    "figcaption{color:#555;font-size:.9em}code{background:#f2f2f2;padding:.1em .3em;"
    "overflow-wrap:anywhere}.wide{overflow-x:auto}table{border-collapse:collapse;font-size:.9em}"
    "th,td{padding:.2em .7em;text-align:right;border-bottom:1px solid #ddd;white-space:nowrap}"
    ".values th,.values td{text-align:left;white-space:normal}tr.full td{color:#a33}"
    "footer{color:#777;font-size:.85em}"
    "@media print{section{break-inside:avoid}body{max-width:none}.wide{overflow:visible}"
    ".wide table{font-size:.55em}}"
    # Pictures are files too and have their colours in themselves; here they are turned over.
    "@media screen and (prefers-color-scheme:dark){body{color:#ddd;background:#181818}"
    "code{background:#2c2c2c}th,td{border-color:#444}figcaption,footer{color:#aaa}a{color:#8cf}"
    "tr.full td{color:#f99}svg>rect,circle[fill='#ffffff']{fill:#181818}svg text{fill:#ddd}"
    "line[stroke='#333333'],circle[stroke='#333333']{stroke:#bbb}line[stroke='#dddddd']{stroke:#444}"
    "[stroke='#000000']{stroke:#fff}[fill='#000000']{fill:#fff}[stroke='#0072b2']{stroke:#3aa0e0}"
    "[fill='#0072b2']{fill:#3aa0e0}[stroke='#7a5195']{stroke:#b48fd0}[fill='#7a5195']{fill:#b48fd0}}"
)
