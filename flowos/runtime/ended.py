"""Which records ended so long ago, or so many others after them, that they are to be forgotten?"""

import heapq
from collections.abc import Callable, Iterable, Mapping

from flowos.model.view import CellView


class EndedRecords:
    """Keeps what has ended in order: a look costs what is found, not all that there is."""

    def __init__(
        self, found: Callable[[], Mapping[str, float]], ended_at: Callable[[str], float | None]
    ) -> None:
        """Know none; `restart` finds what is there already.

        Args:
            found: Returns all that has ended, and at which wall-clock second.
            ended_at: Returns that second for one name, None = it has not ended or is not there.
        """
        self._found = found
        self._ended_at = ended_at
        self._ended: dict[str, float] = {}  # name -> wall-clock second
        # The oldest first. What is made again under a name keeps its old entry here till that
        # comes up.
        self._order: list[tuple[float, str]] = []
        self._due: list[str] = []

    def restart(self) -> None:
        """Look at every record, after a listing."""
        self._due.clear()
        self._ended = dict(self._found())
        self._order = [(at, name) for name, at in self._ended.items()]
        heapq.heapify(self._order)

    def changed(self, name: str) -> None:
        """Note that a record was written or removed."""
        at = self._ended_at(name)
        if at is None:
            self._ended.pop(name, None)
        elif self._ended.get(name) != at:
            self._ended[name] = at
            heapq.heappush(self._order, (at, name))

    def due(
        self,
        before: float,
        kept_max: int,
        at_most: int,
        stays: Callable[[str], bool] = lambda _name: False,
    ) -> list[str]:
        """Return the oldest: all that ended up to `before`, and what is over `kept_max`.

        What was returned before and is still there comes again, and so does what had to stay.

        Args:
            before: Wall-clock seconds.
            kept_max: How many are kept.
            at_most: How many are returned.
            stays: Whether somebody needs one still.
        """
        for name in self._due:
            if name in self._ended:
                heapq.heappush(self._order, (self._ended[name], name))
        self._due = []
        found: list[str] = []
        while self._order and len(found) < at_most:
            ended_at, name = self._order[0]
            if ended_at > before and len(self._ended) - len(self._due) <= kept_max:
                break
            heapq.heappop(self._order)
            if self._ended.get(name) == ended_at and name not in self._due[-1:]:
                self._due.append(name)
                if not stays(name):
                    found.append(name)
        return found


def ended_slices(view: CellView) -> EndedRecords:
    """Return the order in which a view's slices have ended."""

    def ended_at(name: str) -> float | None:
        entry = view.slices.get(name)
        return entry.value.end.ended_at if entry and entry.value.end else None

    return EndedRecords(lambda: _known(view.slices, ended_at), ended_at)


def ended_lines(view: CellView) -> EndedRecords:
    """Return the order in which the lines of a view's history have ended."""
    # A view that lists again has another table.
    return EndedRecords(lambda: view.history, lambda name: view.history.get(name))


def _known(names: Iterable[str], ended_at: Callable[[str], float | None]) -> dict[str, float]:
    return {name: at for name in names if (at := ended_at(name)) is not None}
