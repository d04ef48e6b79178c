"""What does a program look like, and where did it run? Drawn as SVG, without any library."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape as escaped
from typing import TYPE_CHECKING, Final

from flowos.flowlet.graph import Graph
from flowos.flowlet.library import Sink, Source
from flowos.flowlet.wire.messages import CLIENT

if TYPE_CHECKING:
    from flowos.flowlet.session import Result

ROWS_MAX: Final = (
    12  # tasks of one depth that are drawn one by one; of more, a few and the rest as one
)
BOX: Final = (150, 40)
GAP: Final = (70, 16)
MARGIN: Final = 24
# Okabe and Ito's colours, which people of all kinds of sight can tell apart.
COLOURS: Final = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#F0E442", "#0072B2", "#D55E00")
NOBODY: Final = "#BBBBBB"
_STYLE: Final = """
  text { font: 12px sans-serif; fill: #222 }
  .small { font-size: 10px; fill: #444 }
  .box { stroke: #333; stroke-width: 1 }
  .flow { stroke: #777; fill: none; stroke-width: 1.2 }
  .circuit { stroke: #D55E00; fill: none; stroke-width: 1.8 }
  .ground { fill: #fff }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #1c1c1c }
    .legend { fill: #ddd }
    .flow { stroke: #999 }
  }
"""


@dataclass(frozen=True, slots=True)
class _Box:
    """Tasks that are drawn as one."""

    tasks: tuple[int, ...]
    column: int
    row: int

    @property
    def left(self) -> int:
        return MARGIN + self.column * (BOX[0] + GAP[0])

    @property
    def top(self) -> int:
        return MARGIN + self.row * (BOX[1] + GAP[1])


def drawn(result: "Result") -> str:
    """Return an SVG of a program: a column for each depth, a colour for each engine.

    A flow that goes over a circuit is drawn in the colour of circuits. Of many alike tasks of one
    depth, a few are drawn, and the others as one box with their number.
    """
    graph, assignment = result.graph, result.assignment
    boxes = _boxes(graph)
    at = {number: box for box in boxes for number in box.tasks}
    ranks = assignment.ranks
    engines = dict(result.engines)
    colours = {rank: COLOURS[n % len(COLOURS)] for n, rank in enumerate(sorted(engines))}
    width = MARGIN * 2 + (max(b.column for b in boxes) + 1) * (BOX[0] + GAP[0]) - GAP[0]
    rows = max(b.row for b in boxes) + 1
    height = MARGIN * 2 + rows * (BOX[1] + GAP[1]) + 18 * (len(colours) + 2)
    width = max(width, 420)
    lines = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" role="img" aria-label="A program and its engines">'
        ),
        f"<style>{_STYLE}</style>",
        f'<rect class="ground" width="{width}" height="{height}"/>',
    ]
    flows: dict[tuple[int, int], bool] = {}
    for number, inputs in enumerate(graph.inputs):
        for source, _ in inputs:
            one, other = at[source], at[number]
            far = CLIENT not in (ranks[source], ranks[number]) and ranks[source] != ranks[number]
            key = (one.tasks[0], other.tasks[0])
            flows[key] = flows.get(key, False) or far
    for (source, target), far in flows.items():
        lines.append(_line(at[source], at[target], "circuit" if far else "flow"))
    for box in boxes:
        lines += _drawn_box(graph, box, ranks, engines, colours, assignment.waves)
    lines += _legend(
        engines, colours, result, MARGIN + rows * (BOX[1] + GAP[1]) + 10, any(flows.values())
    )
    return "\n".join([*lines, "</svg>", ""])


def _boxes(graph: Graph) -> list[_Box]:
    depth: list[int] = []
    for inputs in graph.inputs:
        depth.append(max((depth[n] + 1 for n, _ in inputs), default=0))
    # A source stands just before the first that reads it.
    for number, task in enumerate(graph.tasks):
        readers = graph.readers.get((number, 0), ())
        if isinstance(task, Source) and readers:
            depth[number] = min(depth[r] for r in readers) - 1
    columns: dict[int, list[int]] = {}
    for number, column in enumerate(depth):
        columns.setdefault(column, []).append(number)
    boxes: list[_Box] = []
    for column, numbers in sorted(columns.items()):
        kept = numbers if len(numbers) <= ROWS_MAX else numbers[: ROWS_MAX - 1]
        boxes += [_Box((number,), column, row) for row, number in enumerate(kept)]
        if len(kept) < len(numbers):
            boxes.append(_Box(tuple(numbers[len(kept) :]), column, len(kept)))
    return boxes


def _line(one: _Box, other: _Box, kind: str) -> str:
    x1, y1 = one.left + BOX[0], one.top + BOX[1] // 2
    x2, y2 = other.left, other.top + BOX[1] // 2
    bend = max(30, (x2 - x1) // 2)
    return f'<path class="{kind}" d="M{x1} {y1} C{x1 + bend} {y1} {x2 - bend} {y2} {x2} {y2}"/>'


def _drawn_box(
    graph: Graph,
    box: _Box,
    ranks: Sequence[int],
    engines: Mapping[int, str],
    colours: Mapping[int, str],
    waves: Sequence[int],
) -> list[str]:
    first = graph.tasks[box.tasks[0]]
    name = first.name if len(box.tasks) == 1 else f"{len(box.tasks)} more"
    there = {ranks[number] for number in box.tasks}
    rank = there.pop() if len(there) == 1 else CLIENT
    where = engines.get(rank, "" if len(box.tasks) == 1 else "several engines")
    if len(box.tasks) == 1 and isinstance(first, Source | Sink):
        where = "your program" if isinstance(first, Sink) else f"your program → {where or 'here'}"
    if max(waves, default=0) and where and len(box.tasks) == 1:
        where += f", wave {waves[box.tasks[0]] + 1}"
    colour = colours.get(rank, NOBODY)
    shape = 'rx="18"' if isinstance(first, Source | Sink) else 'rx="4"'
    return [
        (
            f'<rect class="box" x="{box.left}" y="{box.top}" width="{BOX[0]}" height="{BOX[1]}" '
            f'{shape} fill="{colour}"><title>{_said(name)} {_said(str(first.made_at))}</title>'
            "</rect>"
        ),
        f'<text x="{box.left + 8}" y="{box.top + 17}">{_said(_cut(name, 20))}</text>',
        f'<text class="small" x="{box.left + 8}" y="{box.top + 31}">{_said(_cut(where, 26))}</text>',
    ]


def _legend(
    engines: Mapping[int, str],
    colours: Mapping[int, str],
    result: "Result",
    top: int,
    circuits: bool,
) -> list[str]:
    lines: list[str] = []
    for rank, colour in colours.items():
        ran = [ran for ran in result.tasks.values() if ran.engine == engines[rank]]
        busy = sum(ran.took for ran in ran)
        tasks = "1 task" if len(ran) == 1 else f"{len(ran)} tasks"
        said = f"{engines[rank] or f'rank {rank}'}: {tasks}, {busy:.3f} s"
        lines += [
            f'<rect class="box" x="{MARGIN}" y="{top}" width="12" height="12" fill="{colour}"/>',
            f'<text class="legend" x="{MARGIN + 18}" y="{top + 10}">{_said(said)}</text>',
        ]
        top += 18
    if circuits:
        said = "over a circuit" + (f", {result.waves} waves" if result.waves > 1 else "")
        lines += [
            f'<path class="circuit" d="M{MARGIN} {top + 6} h12"/>',
            f'<text class="legend" x="{MARGIN + 18}" y="{top + 10}">{said}</text>',
        ]
    return lines


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _said(text: str) -> str:
    """Return text as it can stand in XML, which knows no control characters."""
    return escaped(
        "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in text)
    )
