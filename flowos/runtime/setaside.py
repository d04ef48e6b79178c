"""For how long is a slice left aside that made its policy hang?"""

from collections.abc import Collection
from typing import Final

from flowos.model.placement import Unplaceable
from flowos.model.view import CellView

ASIDE_SECONDS: Final = (60.0, 3600.0)  # the first and the longest pause


def pause_after(hangs: int) -> float:
    """Return for how many seconds a slice is left aside that made its policy hang so often."""
    first, longest = ASIDE_SECONDS
    return min(longest, first * 2.0 ** min(hangs - 1, 30))


class SetAside:
    """Which slices are left aside, as their policy hung when it was asked about them?

    A pause begins when this process first sees the reason, by its own clock: others' say nothing.
    """

    def __init__(self, view: CellView, answered: Collection[str]) -> None:
        """Know of none.

        Args:
            view: What tells the reasons.
            answered: Slices about which this process got an answer, though late: never set aside.
        """
        self._view = view
        self._answered = answered
        self._seen: dict[str, tuple[int, float]] = {}

    def until(self, name: str, now: float) -> tuple[float, Unplaceable] | None:
        """Return up to when a slice is left aside, and why; None = it is not.

        Args:
            name: The slice.
            now: Monotonic seconds.
        """
        entry = self._view.reasons.get(name)
        if entry is None or not entry.value.hangs or name in self._answered:
            self._seen.pop(name, None)
            return None
        why = entry.value
        version, seen_at = self._seen.get(name, (0, now))
        if version != entry.modified:
            seen_at = now
        self._seen[name] = entry.modified, seen_at
        over = seen_at + pause_after(why.hangs)
        return (over, Unplaceable(why.reason, why.sentence)) if now < over else None
