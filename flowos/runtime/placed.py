"""Who of those that hold something would give way, and does any of them say when it ends?"""

from math import inf

from flowos.model.slice import SliceSpec
from flowos.model.view import CellView


class Placed:
    """The slices of a view that hold something, as far as those who wait for room must know.

    In most cells none is preemptible, or none says how long it takes; then nobody goes through all
    of them to find that out.
    """

    def __init__(self, view: CellView) -> None:
        """Know of none; `restart` looks at what is there already."""
        self._view = view
        self._lesser: dict[str, int] = {}  # who would give way -> its priority
        self._least: float = inf
        self._ending: set[str] = set()

    def restart(self) -> None:
        """Look at every placement, after a listing."""
        self._lesser.clear()
        self._ending.clear()
        self._least = inf
        for name in self._view.placements:
            self.changed(name)

    def changed(self, name: str) -> None:
        """Take in a change of a slice or of its placement."""
        entry, placed = self._view.slices.get(name), self._view.placements.get(name)
        before = self._lesser.pop(name, None)
        spec = entry.value.spec if entry and placed else None
        if spec and placed and spec.preemptible and placed.value.ending is None:
            self._lesser[name] = spec.priority
            self._least = min(self._least, spec.priority)
        if before is not None and before == self._least:
            self._least = min(self._lesser.values(), default=inf)
        if spec and takes_seconds(spec) is not None:
            self._ending.add(name)
        else:
            self._ending.discard(name)

    def lesser_than(self, priority: int) -> bool:
        """Whether any of them would give way to a slice of this priority."""
        return self._least < priority

    @property
    def any_ends(self) -> bool:
        """Whether any of them says how long it takes."""
        return bool(self._ending)


def takes_seconds(spec: SliceSpec) -> float | None:
    """Return how long a slice holds what it has, as far as it says; None = it may be for ever.

    The time limit is kept; where there is none, what the user expects is believed, as EASY does.
    """
    return spec.time_limit_seconds or spec.run.for_seconds or spec.expected_seconds or None
