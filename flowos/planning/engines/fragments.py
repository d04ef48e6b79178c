"""How much of a node's free engines is of no use to the work that usually comes?

What usually comes is learnt from what is held: each slice leaves a piece on each of its nodes, so
many engines or such a share, with so much of the host. To a usual piece a node's free engines are
worth the mean of two: all engines that it fits on, if it comes once, and what it can take if it
comes again and again. The rest is stranded: too small a share, or without CPU and memory.

Source: Weng et al., "Beware of Fragmentation: Scheduling GPU-Sharing Workloads with Fragmentation
Gradient Descent", USENIX ATC 2023. Two things differ. There only the first of the two counts, which
does not see CPU run out before it has; the second alone breaks nodes that gangs need whole. Filling
a cell with 21 mixes of real jobs, the mean allocated up to 0.4 points more than the second alone
and nowhere over 0.2 fewer; on eight of them a quarter to two thirds of the first did alike. And the
usual pieces are counted here, not given.
"""

from collections.abc import Callable, Hashable, Iterable
from typing import Final, NamedTuple

from flowos.model.cell import WHOLE_MILLIS
from flowos.model.view import CellView
from flowos.planning.engines.stock import Mask, Site

_KINDS_MAX: Final = 32  # more change what is decided by less than chance does
_COVERED: Final = 0.95  # of all pieces; the rest comes too seldom to be waited for
_CHURN: Final = 16  # counted anew after a sixteenth of all pieces has come or gone
_MEMO_MAX: Final = 100_000  # values of nodes in different states: about 20 MB


class Piece(NamedTuple):
    """What one slice holds of one node, of engines of one kind.

    Attributes:
        wholes: Engines held whole; 0 where it is a share of one.
        share_millis: Thousandths of one engine.
    """

    kind: str
    wholes: int
    share_millis: int
    cpu_millis: int
    memory_bytes: int


class Room(NamedTuple):
    """What is free on a node, of engines of one kind.

    Attributes:
        wholes: Engines that are free whole.
        parts: Thousandths left on each engine that is partly held, sorted.
    """

    kind: str
    wholes: int
    parts: tuple[int, ...]
    cpu_millis: int
    memory_bytes: int


class Usual:
    """The pieces that usually come, counted from those that are there.

    Attributes:
        counts: How often each piece is there now.
    """

    __slots__ = ("_changes", "_churn", "_memo", "_of_node", "_usual", "counts")

    def __init__(self) -> None:
        self.counts: dict[Piece, int] = {}
        self._of_node: dict[int, tuple[Piece, ...]] = {}
        self._usual: dict[str, list[tuple[Piece, int]]] = {}
        self._churn = 0
        self._memo: dict[Room, float] = {}
        self._changes: dict[Hashable, float] = {}

    def note(self, number: int, pieces: tuple[Piece, ...]) -> None:
        """Take in what is on a node now, in place of what was there."""
        before = self._of_node.get(number, ())
        if before == pieces:
            return
        if pieces:
            self._of_node[number] = pieces
        else:
            del self._of_node[number]
        counts = self.counts
        for piece in before:
            counts[piece] -= 1
        for piece in pieces:
            counts[piece] = counts.get(piece, 0) + 1
        for piece in before:
            if not counts.get(piece, 1):
                del counts[piece]
        self._churn += abs(len(pieces) - len(before)) or 1

    def settle(self) -> None:
        """Choose the usual pieces anew, if enough has come and gone since the last time."""
        total = sum(self.counts.values())
        if self._churn * _CHURN <= total:
            return
        self._churn = 0
        self._memo.clear()
        self._changes.clear()
        self._usual = {}
        enough = _COVERED * total
        for piece, count in sorted(self.counts.items(), key=lambda e: (-e[1], e[0]))[:_KINDS_MAX]:
            if enough <= 0:
                break
            enough -= count
            self._usual.setdefault(piece.kind, []).append((piece, count))

    def known(self) -> bool:
        """Whether anything is there to learn from."""
        return bool(self._usual)

    def recall(self, key: Hashable, work_out: Callable[[], float]) -> float:
        """Return what follows from the usual pieces alone, worked out once until they change."""
        value = self._changes.get(key)
        if value is None:
            if len(self._changes) > _MEMO_MAX:
                self._changes.clear()
            value = self._changes[key] = work_out()
        return value

    def stranded(self, room: Room) -> float:
        """Return how many engines' worth of a node's room the usual pieces cannot take.

        Between none and all that is free there; 0 as long as no piece of this kind is known.
        """
        value = self._memo.get(room)
        if value is None:
            if len(self._memo) > _MEMO_MAX:
                self._memo.clear()
            value = self._memo[room] = _stranded(room, self._usual.get(room.kind, ()))
        return value


def _stranded(room: Room, usual: Iterable[tuple[Piece, int]]) -> float:
    _, wholes, parts, cpu_millis, memory_bytes = room
    whole = wholes * WHOLE_MILLIS
    free = whole + sum(parts)
    usable = often = 0
    for (_, gang, millis, cpu, memory), count in usual:
        often += count
        if cpu_millis < cpu or memory_bytes < memory:
            continue
        fits = whole
        if gang:
            millis = gang * WHOLE_MILLIS
            times = wholes // gang
        else:
            times = wholes * (WHOLE_MILLIS // millis)
            for rest in parts:
                if rest >= millis:
                    times += rest // millis
                    fits += rest
        if not times:
            continue
        if cpu and times * cpu > cpu_millis:
            times = cpu_millis // cpu
        if memory and times * memory > memory_bytes:
            times = memory_bytes // memory
        usable += count * (fits + times * millis)
    return (free - usable / (2 * often)) / WHOLE_MILLIS if often else 0.0


def pieces_on(view: CellView, site: Site, kinds: Iterable[tuple[str, Mask]]) -> tuple[Piece, ...]:
    """Return what slices hold of a node's engines, sorted.

    Args:
        view: Who holds what.
        site: The node.
        kinds: Which of its engines are of each kind.
    """
    wholes: dict[tuple[str, str], int] = {}  # (slice, kind) -> engines
    shares: list[tuple[str, str, int]] = []
    for kind, mask in kinds:
        for position, (engine, unit) in enumerate(zip(site.engines, site.units, strict=True)):
            if mask >> position & 1:
                for name in view.holders.get(unit, ()):
                    if not name.startswith("~"):
                        wholes[name, kind] = wholes.get((name, kind), 0) + 1
                for name, millis in view.shares.get(engine, {}).items():
                    shares.append((name, kind, millis))
    beside = dict(view.hosts.get(site.name, {}))
    found: list[Piece] = []
    for (name, kind), count in wholes.items():
        found.append(Piece(kind, count, 0, *beside.pop(name, (0, 0))))
    for name, kind, millis in shares:
        # What a slice has of the host goes with the first of its pieces there.
        found.append(Piece(kind, 0, millis, *beside.pop(name, (0, 0))))
    return tuple(sorted(found))
