"""What is a row: the figures of one class of jobs in one run?"""

from typing import NamedTuple, TypeAlias

Amount: TypeAlias = float | int


class Row(NamedTuple):
    """One class of jobs in one run.

    Attributes:
        figures: By name; those of the whole run are in each of its rows.
    """

    of_class: str
    figures: dict[str, Amount]


def fraction(conflicts: int, successes: int) -> float:
    """Return conflicts for each success; as if there had been one where there was none.

    A class whose every commit conflicts must not look like one that has no conflicts.
    """
    return conflicts / max(1, successes)
