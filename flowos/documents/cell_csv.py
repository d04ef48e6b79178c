"""Reading a cell from CSV, one row a node: the form in which public cluster traces describe machines.

Columns: node_id, engine_type, engine_model, engines (how many), cpu_cores, mem_gib, pod, rack, devices
(how many can be attached at once); `basis` is read over. Engines are called after their type (gpu0, gpu1, ...), can be shared, and have the
memory and watts of their model where it is well known. CSV says nothing of links, so there are none
unless a fabric is asked for.
"""

import csv
import re
from decimal import Decimal, InvalidOperation
from io import StringIO
from pathlib import Path
from typing import Final

from flowos.documents.accelerators import known_model
from flowos.documents.fabrics import LEAF_ENGINES_MAX, PORTS_MAX, add_leaf_and_spine
from flowos.documents.fields import (
    LABEL,
    LABEL_FORMS,
    SLICE_NAME,
    THING_NAME,
    did_you_mean,
    text_problem,
)
from flowos.documents.patterns import THINGS_MAX
from flowos.documents.quantities import BYTES_MAX, CPUS_MAX, DEVICES_MAX, shown
from flowos.model.cell import Attribute, Cell, Engine, Node
from flowos.model.errors import FileError, SpecError

_COLUMNS: Final = (
    "node_id", "engine_type", "engine_model", "engines", "cpu_cores", "mem_gib", "pod", "rack",
    "basis", "devices",
)  # fmt: skip
_NEEDED: Final = ("node_id", "engine_type", "engines")
_GIB: Final = 2**30
_ENGINES_MAX: Final = 1024  # on one node
_PLAIN_NUMBER: Final = re.compile(r"[0-9]{1,15}(\.[0-9]{1,15})?")
_PER_NODES: Final = re.compile(r"nodes:([1-9][0-9]{0,5})")


def is_csv(path: str | Path, text: str) -> bool:
    """Whether a file is CSV, by its name, or on standard input by its first word."""
    return Path(str(path)).suffix.lower() == ".csv" or text.startswith("node_id,")


def read_csv(text: str, path: str, fabric: str = "") -> Cell:
    """Return the cell of a CSV text; `fabric` is "", "rack" or "nodes:K".

    Raises:
        FileError: A row is no possible node; names its line.
        SpecError: The fabric is unknown, or cannot be laid.
    """
    group_size = _group_size(fabric)
    rows = csv.reader(StringIO(text, newline=""), strict=True)
    cell = Cell()
    try:
        header = next(rows, [])
        _check_header(header, path)
        for row in rows:
            if row:
                _add_node(cell, _Row(path, rows.line_num, header, row))
    except csv.Error as error:
        raise FileError(
            f"is not CSV: {error}", path=path, line=rows.line_num, hint="repair the line"
        ) from None
    if not cell.nodes:
        raise FileError("has no nodes", path=path, hint="add a row for each node")
    if fabric:
        _lay(cell, group_size, path)
    return cell


def _check_header(header: list[str], path: str) -> None:
    def fail(problem: str, hint: str) -> FileError:
        return FileError(problem, path=path, line=1, hint=hint)

    for column in header:
        if column not in _COLUMNS:
            raise fail(f"there is no column {shown(column)}", did_you_mean(column, _COLUMNS))
    if len(set(header)) != len(header):
        raise fail("a column stands twice", "keep one of the two")
    missing = [column for column in _NEEDED if column not in header]
    if missing:
        hint = f"begin with a line such as {','.join(_COLUMNS)}"
        raise fail(f"has no column {missing[0]}", hint)


class _Row:
    """One line, read by column."""

    def __init__(self, path: str, line: int, header: list[str], cells: list[str]) -> None:
        self.path = path
        self.line = line
        if len(cells) != len(header):
            problem = f"has {len(cells)} values for {len(header)} columns"
            raise self.fail(problem, "write one for each, empty where it is unknown")
        self.cells = dict(zip(header, cells, strict=True))

    def fail(self, problem: str, hint: str) -> FileError:
        return FileError(problem, path=self.path, line=self.line, hint=hint)

    def text(self, column: str) -> str:
        found = self.cells.get(column, "").strip()
        if problem := text_problem(found):
            raise self.fail(f"{column} {problem[0]}", problem[1])
        return found

    def label(self, column: str) -> str:
        found = self.text(column)
        if found and LABEL.fullmatch(found) is None:
            raise self.fail(f"{column} {shown(found)} is not possible here", LABEL_FORMS)
        return found

    def amount(self, column: str, scale: int, most: int) -> int:
        """Read a number, nothing as 0, in units `scale` times smaller; rounded to a whole one."""
        written = self.text(column)
        if not written:
            return 0
        if _PLAIN_NUMBER.fullmatch(written) is None:
            raise self.fail(f"{column} is {shown(written)}, which is no number", "write 64 or 0.5")
        try:
            scaled = int(Decimal(written) * scale)
        except InvalidOperation:
            scaled = most + 1
        if scaled > most:
            problem = f"{column} is {shown(written)}, the most is {most // scale}"
            raise self.fail(problem, "write a smaller number")
        return scaled

    def whole(self, column: str, most: int) -> int:
        written = self.text(column)
        if not written.isdecimal() or not written.isascii() or len(written) > 15:
            problem = f"{column} is {shown(written)}, which is no whole number"
            raise self.fail(problem, f"write 0 to {most}")
        if int(written) > most:
            raise self.fail(f"{column} is {written}, the most is {most}", "write a smaller number")
        return int(written)


def _add_node(cell: Cell, row: _Row) -> None:
    name, kind, model = row.text("node_id"), row.text("engine_type"), row.text("engine_model")
    if THING_NAME.fullmatch(name) is None:
        hint = "use up to 63 small letters, digits, dots and dashes, such as n0"
        raise row.fail(f"node_id {shown(name)} is not possible here", hint)
    if name in cell.nodes:
        raise row.fail(f"node {name} stands twice", "name it differently")
    if SLICE_NAME.fullmatch(kind) is None or len(kind) > 40:  # a number comes behind it
        raise row.fail(f"engine_type {shown(kind)} is not possible here", "write gpu, fpga, ...")
    count = row.whole("engines", _ENGINES_MAX)
    if len(cell.engines) + count > THINGS_MAX:
        raise row.fail(
            f"the cell has more than {THINGS_MAX} engines", "split it into several cells"
        )
    cell.add(
        Node(
            name=name,
            cpu_millis=row.amount("cpu_cores", 1000, CPUS_MAX * 1000),
            memory_bytes=row.amount("mem_gib", _GIB, BYTES_MAX),
            rack=row.label("rack"),
            pod=row.label("pod"),
            devices_max=row.whole("devices", DEVICES_MAX) if row.text("devices") else 0,
        )
    )
    known = known_model(model)
    nothing: dict[str, Attribute] = {}  # one for all engines of a node
    for number in range(count):
        cell.add(
            Engine(
                node=name,
                name=f"{kind}{number}",
                kind=kind,
                model=model,
                memory_bytes=known.memory_bytes,
                shareable=True,
                watts=known.watts,
                attributes=nothing,
            )
        )


def _group_size(fabric: str) -> int:
    """Return how many nodes share a leaf; 0 = those of a rack."""
    if fabric in ("", "rack"):
        return 0
    found = _PER_NODES.fullmatch(fabric)
    if found is None:
        raise SpecError(f"there is no fabric {shown(fabric)}", hint="use rack, or nodes:8")
    return int(found[1])


def _lay(cell: Cell, group_size: int, path: str) -> None:
    """Put leaves over the nodes that have engines."""
    leaves: dict[str, list[str]] = {}
    hosts = [node for node in cell.nodes if cell.engines_of.get(node)]
    groups: dict[str, list[str]] = {}
    for number, node in enumerate(hosts):
        rack = cell.nodes[node].rack
        if not group_size and not rack:
            problem = f"node {node} has no rack, so there is no leaf for it"
            raise SpecError(problem, where=path, hint="fill in the column rack, or use nodes:8")
        groups.setdefault(str(number // group_size) if group_size else rack, []).append(node)
    for number, nodes in enumerate(groups.values()):
        leaves[f"leaf{number}"] = nodes
        engines = sum(len(cell.engines_of[node]) for node in nodes)
        if engines > LEAF_ENGINES_MAX:
            problem = f"a leaf switch over {nodes[0]} and others would have {engines} engines"
            hint = f"the most is {LEAF_ENGINES_MAX}: use nodes:K with a smaller K"
            raise SpecError(problem, where=path, hint=hint)
    if len(leaves) > PORTS_MAX:
        problem = f"the spine would have {len(leaves)} leaf switches"
        hint = f"the most is {PORTS_MAX}: use nodes:K with a larger K"
        raise SpecError(problem, where=path, hint=hint)
    taken = [name for name in (*leaves, "spine0") if name in cell.nodes]
    if taken:
        problem = f"a node is called {taken[0]}, which a switch would be"
        raise SpecError(problem, where=path, hint="rename the node")
    add_leaf_and_spine(cell, leaves)
