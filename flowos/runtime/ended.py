"""Which slices ended so long ago, or so many others after them, that they are to be forgotten?"""

import heapq

from flowos.model.view import CellView


class EndedSlices:
    """Follows a view and keeps its ended slices in order: a look costs what is found, not all."""

    def __init__(self, view: CellView) -> None:
        """Know none; `restart` finds what is there already."""
        self._view = view
        self._ended: dict[str, float] = {}  # name -> wall-clock second
        # The oldest first. A slice that is made again keeps its old entry here till that comes up.
        self._order: list[tuple[float, str]] = []
        self._due: list[str] = []

    def restart(self) -> None:
        """Look at every slice, after a listing."""
        self._ended.clear()
        self._due.clear()
        for name, entry in self._view.slices.items():
            if entry.value.end is not None:
                self._ended[name] = entry.value.end.ended_at
        self._order = [(at, name) for name, at in self._ended.items()]
        heapq.heapify(self._order)

    def changed(self, name: str) -> None:
        """Note that a slice's record was written or removed."""
        entry = self._view.slices.get(name)
        end = entry.value.end if entry else None
        if end is None:
            self._ended.pop(name, None)
        elif self._ended.get(name) != end.ended_at:
            self._ended[name] = end.ended_at
            heapq.heappush(self._order, (end.ended_at, name))

    def due(self, before: float, kept_max: int, at_most: int) -> list[str]:
        """Return the oldest: all that ended up to `before`, and what is over `kept_max`.

        What was returned before and is still there comes again.
        """
        for name in self._due:
            if name in self._ended:
                heapq.heappush(self._order, (self._ended[name], name))
        self._due = []
        while self._order and len(self._due) < at_most:
            ended_at, name = self._order[0]
            if ended_at > before and len(self._ended) - len(self._due) <= kept_max:
                break
            heapq.heappop(self._order)
            if self._ended.get(name) == ended_at and name not in self._due[-1:]:
                self._due.append(name)
        return list(self._due)
