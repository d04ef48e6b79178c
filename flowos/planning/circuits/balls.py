"""Which switches lie within so many links of each switch, as one bitmap a switch?"""

from collections.abc import Iterable
from typing import Final

from flowos.planning.circuits.landmarks import Near

_SWITCHES_MAX: Final = 4096  # beyond, a bitmap for each switch takes more memory than it is worth
_RADIUS_MAX: Final = 8  # so it stays below 2 MB a radius, 16 MB in all


def bitmap(switches: Iterable[int]) -> int:
    """Return a bitmap of some switches."""
    found = 0
    for switch in switches:
        found |= 1 << switch
    return found


class Balls:
    """The balls of a fabric, made radius by radius when they are first needed.

    They are of the cell with nothing held and nothing down, as `Graph.bound` is. All balls of a
    radius are made at once, each from those of its neighbours: about 1 ms for 1,331 switches.
    """

    def __init__(self, near: Near) -> None:
        self._near = near
        self._made: list[list[int]] = [[1 << switch for switch in range(len(near))]]
        self._most = _RADIUS_MAX if len(near) <= _SWITCHES_MAX else -1

    def of(self, radius: int) -> list[int] | None:
        """Return by switch: a bitmap of the switches at most so many links away.

        None where that is not worth its memory: ask for the distances instead.
        """
        if not 0 <= radius <= self._most:
            return None
        made = self._made
        while len(made) <= radius:
            last = made[-1]
            wider: list[int] = []
            for here, others in enumerate(self._near):
                ball = last[here]
                for other, _ in others:
                    ball |= last[other]
                wider.append(ball)
            made.append(wider)
        return made[radius]
