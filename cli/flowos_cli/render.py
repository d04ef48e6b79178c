"""How does it look to people? Tables, colours, ages and amounts, bars; the only place that draws.

Off a terminal nothing is cut or coloured, so that what scripts cut out of a table stays whole.
"""

import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Self, TextIO

import click

Item = Mapping[str, Any]

STYLES: Final[Mapping[str, Mapping[str, Any]]] = {
    # phases
    "pending": {"fg": "yellow"},
    "committed": {"fg": "cyan"},
    "provisioning": {"fg": "cyan"},
    "running": {"fg": "green"},
    "degraded": {"fg": "magenta"},
    "repairing": {"fg": "magenta"},
    "draining": {"fg": "blue"},
    "cleaning": {"fg": "blue"},
    "done": {"dim": True},
    "failed": {"fg": "red"},
    "cancelled": {"dim": True},
    # states of things
    "free": {"fg": "green"},
    "up": {"fg": "green"},
    "held": {"fg": "cyan"},
    "shared": {"fg": "cyan"},
    "off": {"dim": True},
    "drained": {"fg": "yellow"},
    "reserved": {"fg": "yellow"},
    "quarantined": {"fg": "red"},
    # parts of a screen
    "title": {"bold": True},
    "quiet": {"dim": True},
    "bad": {"fg": "red"},
    "good": {"fg": "green"},
}
_ANSI: Final = re.compile(r"\x1b\[[0-9;]*m")
_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
WIDTH_LEAST: Final = 6  # a column is never cut below this
GAP: Final = "  "
ENDLESS: Final = 1_000_000  # the width of what is no terminal


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    Attributes:
        name: What `--columns` calls it; its title is the same in capitals.
        text: What stands in it for an item.
        wide: Shown by `-o wide` and when it is named, not otherwise.
        right: Numbers stand at the right.
        styled: Coloured by the style of this name; "" = none, "=" = that of its own text.
        wraps: On a narrow terminal it goes on in the next line instead of being cut; of the last
            column of a table.
    """

    name: str
    text: Callable[[Item], str]
    wide: bool = False
    right: bool = False
    styled: str = ""
    wraps: bool = False


def has_colour(stream: TextIO | None = None) -> bool:
    """Whether colours may be written to a stream, stdout by default."""
    stream = stream or sys.stdout
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, style: str, *, colour: bool) -> str:
    """Return the text in a style, if there is one of this name."""
    known = STYLES.get(style)
    return click.style(text, **known) if colour and known else text


def width_of(text: str) -> int:
    """Return how many columns of a terminal a text takes; colours take none."""
    return len(_ANSI.sub("", text))


def plain(text: str) -> str:
    """Return the text without what would move a terminal's cursor, or colour it."""
    return _UNPRINTABLE.sub("?", text)


def tame(text: str) -> str:
    """Return the text without what would move a terminal's cursor; colours stay."""
    return "".join(
        part if _ANSI.fullmatch(part) else plain(part)
        for part in re.split(f"({_ANSI.pattern})", text)
    )


def terminal_width() -> int:
    """Return the width to cut tables to; a very large one off a terminal."""
    return shutil.get_terminal_size((80, 24)).columns if sys.stdout.isatty() else ENDLESS


def terminal_height() -> int:
    """Return how many lines a terminal has."""
    return shutil.get_terminal_size((80, 24)).lines


def table(
    columns: Sequence[Column],
    items: Sequence[Item],
    *,
    headers: bool = True,
    colour: bool = False,
    width: int = ENDLESS,
    indent: str = "",
    kept: list[int] | None = None,
) -> list[str]:
    """Return the lines of a table, its widest columns cut until it fits the width.

    With `kept`, columns are at least that wide, and it then holds their widths: for a table that
    goes on.
    """
    cells = [[plain(column.text(item)) for column in columns] for item in items]
    titles = [column.name.upper().replace("_", " ") for column in columns]
    widths = [
        max([len(title) if headers else 0, *(len(row[i]) for row in cells)])
        for i, title in enumerate(titles)
    ]
    if kept is not None:
        widths = [max(pair) for pair in zip(widths, kept or widths, strict=True)]
        kept[:] = widths
    room = width - len(indent) - len(GAP) * (len(columns) - 1)
    _narrow(widths, room, [max(WIDTH_LEAST, len(t) if headers else 0) for t in titles])
    lines = []
    if headers:
        row = [_fit(t, w, right=c.right) for t, w, c in zip(titles, widths, columns, strict=True)]
        lines.append(indent + paint(GAP.join(row).rstrip(), "title", colour=colour))
    for texts in cells:
        row = []
        texts[-1:], more = _first_line(texts[-1:], columns[-1:], widths[-1:])
        for text, wide, column in zip(texts, widths, columns, strict=True):
            fitted = _fit(text, wide, right=column.right)
            style = text if column.styled == "=" else column.styled
            # The padding stays outside, else underlines and reverse styles would show it.
            bare = fitted.strip()
            row.append(
                fitted.replace(bare, paint(bare, style, colour=colour), 1) if bare else fitted
            )
        lines.append((indent + GAP.join(row)).rstrip())
        before = len(indent) + sum(widths[:-1]) + len(GAP) * (len(widths) - 1)
        lines += [" " * before + text for text in more]
    return lines


def _first_line(
    last: list[str], columns: Sequence[Column], widths: Sequence[int]
) -> tuple[list[str], list[str]]:
    """Return what stands in a row's last column, and what goes on below it."""
    if not last or not columns[0].wraps or len(last[0]) <= widths[0]:
        return last, []
    import textwrap

    first, *more = textwrap.wrap(last[0], widths[0]) or [""]
    return [first], more


def _narrow(widths: list[int], room: int, least: Sequence[int]) -> None:
    """Take from the widest column until all fit, but not below what each needs."""
    while sum(widths) > room:
        spare = [
            (w - max(1, low), w, i) for i, (w, low) in enumerate(zip(widths, least, strict=True))
        ]
        candidates = [(w, i) for over, w, i in spare if over > 0]
        if not candidates:
            return
        widest, index = max(candidates)
        second = max((w for w, i in candidates if i != index), default=0)
        excess = sum(widths) - room
        step = max(1, min(excess, widest - max(second, least[index])))
        widths[index] = max(least[index], widest - step)


def _fit(text: str, width: int, *, right: bool) -> str:
    if len(text) > width:
        text = text[: width - 1] + "…"
    return text.rjust(width) if right else text.ljust(width)


def pairs(
    rows: Sequence[tuple[str, str]], *, colour: bool = False, width: int = ENDLESS
) -> list[str]:
    """Return lines "name:  value", aligned; values that are empty are left out."""
    shown = [(name, tame(value)) for name, value in rows if value != ""]
    wide = max((len(name) for name, _ in shown), default=0) + 1
    lines = []
    for name, value in shown:
        label = paint(f"{name}:", "quiet", colour=colour) + " " * (wide - len(name) - 1)
        lines += _wrapped(label, value, wide + len(GAP), width)
    return lines


def _wrapped(label: str, value: str, indent: int, width: int) -> list[str]:
    """Break a long value at blanks, below where it begins."""
    room = max(20, width - indent)
    parts: list[str] = []
    line = ""
    for word in value.split(" "):
        if line and width_of(line) + 1 + width_of(word) > room:
            parts.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    parts.append(line)
    return [f"{label}{GAP}{parts[0]}", *(" " * indent + part for part in parts[1:])]


def wrap(text: str, width: int, indent: str = "") -> list[str]:
    """Break a sentence at blanks."""
    import textwrap

    wide = min(width, 100)
    lines = textwrap.wrap(plain(text), wide, initial_indent=indent, subsequent_indent=indent)
    return lines or [""]


# ------------------------------------------------------------------------------------- amounts


def age(seconds: float | None) -> str:
    """Return how long something took or is ago: "42s", "3m", "5h", "12d"."""
    if seconds is None:
        return "-"
    whole = max(0, int(seconds))
    for unit, size, least in (("d", 86_400, 172_800), ("h", 3_600, 7_200), ("m", 60, 120)):
        if whole >= least:
            return f"{whole // size}{unit}"
    return f"{whole}s"


def amount(count: int) -> str:
    """Return bytes for people: "40 GiB"."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(size) < 1024 or unit == "TiB":
            break
        size /= 1024
    return f"{size:.0f} {unit}" if size >= 10 or size == int(size) else f"{size:.1f} {unit}"


def watts(count: int | None) -> str:
    """Return a power for people: "800 W", "12.5 kW"."""
    if count is None:
        return "-"
    if abs(count) < 10_000:
        return f"{count} W"
    return f"{count / 1000:.1f} kW" if abs(count) < 10_000_000 else f"{count / 1e6:.1f} MW"


def nanoseconds(count: int) -> str:
    """Return a latency for people: "450 ns", "1.5 µs"."""
    return f"{count} ns" if count < 1000 else f"{count / 1000:.1f} µs"


def percent(fraction: float) -> str:
    """Return "12.5%", without the part behind the point where there is none."""
    return f"{100 * fraction:.1f}%".replace(".0%", "%")


def cut(parts: Sequence[str], most: int = 3) -> str:
    """Return the first of several names and how many more there are: "a, b, +5"."""
    shown = ", ".join(parts[:most])
    return f"{shown}, +{len(parts) - most}" if len(parts) > most else shown


def bar(parts: Sequence[tuple[int, str]], of: int, width: int, *, colour: bool) -> str:
    """Return a bar of parts of a whole, each (size, style); what is left stays light.

    Any part that is not nothing is seen.
    """
    signs = ("█", "▓", "▒", "▒")
    cells = ""
    left = width
    for (size, style), sign in zip(parts, signs, strict=False):
        if size <= 0 or of <= 0 or left <= 0:
            continue
        cell_count = min(left, max(1, round(width * size / of)))
        cells += paint(sign * cell_count, style, colour=colour)
        left -= cell_count
    return cells + paint("░" * left, "quiet", colour=colour)


# ------------------------------------------------------------------------------------ moving


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Give a function that takes (done, of) and draws it, on stderr, if that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda _done, _of: None
        return
    # Only here: importing it costs a short command 50 ms.
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    with progress:
        task = progress.add_task(what, total=None)
        yield lambda done, of: progress.update(task, completed=done, total=of)


class Screen:
    """Redraws lines in place on a terminal; on the way out the last ones stay.

    With `whole`, it takes the whole terminal and gives it back as it was.
    """

    def __init__(self, *, whole: bool = False) -> None:
        self._whole = whole
        self._drawn = 0

    def __enter__(self) -> Self:
        """Hide the cursor."""
        alternate = "\x1b[?1049h" if self._whole else ""
        click.echo(f"{alternate}\x1b[?25l", nl=False, color=True)
        return self

    def __exit__(self, *_: object) -> None:
        """Show it again."""
        alternate = "\x1b[?1049l" if self._whole else ""
        click.echo(f"\x1b[?25h{alternate}", nl=False, color=True)

    def draw(self, lines: Sequence[str]) -> None:
        """Put these lines where the last ones were; what does not fit the height is left out."""
        size = shutil.get_terminal_size((80, 24))
        height = max(2, size.lines - 1)
        if len(lines) > height:
            lines = [*lines[: height - 1], f"... {len(lines) - height + 1} more"]
        text = "".join(f"{shortened(line, size.columns)}\x1b[K\n" for line in lines)
        back = "\x1b[H" if self._whole else f"\x1b[{self._drawn}A" if self._drawn else ""
        click.echo(f"\r{back}{text}\x1b[J", nl=False, color=True)
        self._drawn = len(lines)


def shortened(line: str, width: int) -> str:
    """Cut a line, which may have colours, to a width."""
    if width_of(line) <= width:
        return line
    kept, left = "", width - 1
    for part in re.split(f"({_ANSI.pattern})", line):
        if _ANSI.fullmatch(part):
            kept += part
        else:
            kept += part[:left]
            left -= min(left, len(part))
    return f"{kept}…"
