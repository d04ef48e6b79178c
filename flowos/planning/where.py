"""Which engines does a request's `where` let through?"""

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

from flowos.model.cell import Attribute
from flowos.model.errors import SpecError

_TEST: Final = re.compile(r"\s*(>=|<=|==|!=|=|>|<)?\s*(.*?)\s*", re.DOTALL)
_NUMBER: Final = re.compile(r"([+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)\s*([^\d\s].*)?")
_PREFIXES: Final = {p: n for n, p in enumerate("KMGTPE", start=1)}

_COMPARE: Final[Mapping[str, Callable[[float, float], bool]]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


class Condition(NamedTuple):
    """One attribute and what it must be.

    Attributes:
        key: The attribute's name.
        test: One of == != >= <= > <.
        value: What it is compared with, as written.
    """

    key: str
    test: str
    value: str

    def __str__(self) -> str:
        """Return it as people write it."""
        return (
            f"{self.key} {self.value}"
            if self.test == "=="
            else f"{self.key} {self.test}{self.value}"
        )

    def holds(self, found: str | None) -> bool:
        """Whether an attribute of this value will do; None = there is no such attribute."""
        if found is None:
            return self.test == "!="  # what is absent is certainly not x
        left, right = quantity(found), quantity(self.value)
        comparable = left is not None and right is not None and left[1] == right[1]
        if self.test in ("==", "!="):
            same = left == right if comparable else found == self.value
            return same is (self.test == "==")
        if left is None or right is None or not comparable:
            return False
        return _COMPARE[self.test](left[0], right[0])


def parse_condition(key: str, text: str) -> Condition:
    """Read ">=24GiB", "!=x" or "24".

    Raises:
        SpecError: Nothing to compare with, or an order asked of what is no quantity.
    """
    found = _TEST.fullmatch(text)
    assert found is not None, "the pattern takes any text"
    test, value = found[1] or "==", found[2]
    if not value:
        raise SpecError(f"condition {text!r} compares with nothing", where=key, hint='">=24GiB"')
    if test in _COMPARE and quantity(value) is None:
        raise SpecError(f"{value!r} has no size to compare by {test}", where=key, hint='">=24GiB"')
    return Condition(key, "==" if test == "=" else test, value)


def parse_where(where: Mapping[str, str]) -> tuple[Condition, ...]:
    """Read all conditions of a choice, in the user's order; raises like `parse_condition`."""
    return tuple(parse_condition(key, text) for key, text in where.items())


def quantity(text: str) -> tuple[float, str] | None:
    """Return the amount in base units and the unit: "24GiB" and "24576 MiB" are alike.

    A bare number has the unit "". Bytes are bare numbers too, so that "24GiB" compares with an
    attribute that is a plain number of bytes. None = not a quantity.
    """
    found = _NUMBER.fullmatch(text.strip())
    if found is None:
        return None
    amount, unit = float(found[1]), (found[2] or "").strip()
    stem = unit.removesuffix("B")
    if stem and stem[0].upper() in _PREFIXES and stem[1:] in ("", "i"):
        if stem[0] == "m":  # a thousandth elsewhere, never a million here
            return amount, unit
        return amount * (1024 if stem[1:] else 1000) ** _PREFIXES[stem[0].upper()], ""
    return amount, stem if unit == "B" else unit


def text_of(value: Attribute) -> str:
    """Return an attribute as conditions see it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def all_hold(conditions: Iterable[Condition], found: Mapping[str, str]) -> bool:
    """Whether every condition is met by these attributes."""
    return all(condition.holds(found.get(condition.key)) for condition in conditions)
