"""How one entry of a cell file stands for many: "n{0..15}", and `for` with its variables.

In a name, `{0..15}` is a range, both ends included; several give every combination, the last one
turning fastest; `{00..15}` keeps the leading zero. Where several fields belong together, `for` names
ranges, and `{i}` stands for the value everywhere in the entry. A variable may be computed with
`+ - * / %` and whole numbers, strictly from left to right, `/` rounding down:

    - {for: {i: 0..15, j: 0..7}, a: "n{i}/gpu{j}", b: "leaf{i/4}"}      # four nodes on each leaf
    - {for: {i: 0..15}, a: "sw{i}", b: "sw{i+1%16}"}                    # a ring
"""

import itertools
import re
from collections.abc import Iterator, Mapping
from math import prod
from typing import Final, NamedTuple

from flowos.documents.fields import Fields
from flowos.documents.quantities import shown
from flowos.model.errors import SpecError

THINGS_MAX: Final = (
    2_000_000  # nodes, engines, switches or links: twice the largest cell planned for
)
BRACES_FORMS: Final = (
    "write a range such as {0..15}, or a variable of `for` such as {i} or {i+1%16}"
)

_VARIABLE: Final = re.compile(r"[a-z][a-z0-9]{0,15}")
_RANGE: Final = re.compile(r"([0-9]{1,9})\.\.([0-9]{1,9})")
_BRACES: Final = re.compile(r"\{([^{}]*)\}")
_COMPUTED: Final = re.compile(r"([a-z][a-z0-9]{0,15})((?:[-+*/%][0-9]{1,9})*)")
_STEP: Final = re.compile(r"([-+*/%])([0-9]+)")


class Number(NamedTuple):
    """The value of a variable, and how many digits its range's ends were written with."""

    value: int
    digits: int


Binding = Mapping[str, Number]
NO_BINDING: Final[Binding] = {}


def bindings(fields: Fields) -> Iterator[Binding]:
    """Yield the values of the variables of `for`, one combination after the other.

    Raises:
        FileError: A range cannot be read, or there are too many combinations.
    """
    ranges: dict[str, list[Number]] = {}
    sizes = 1
    for name, place, value in fields.pairs("for"):
        if _VARIABLE.fullmatch(name) is None:
            hint = "use small letters and digits, such as i"
            raise fields.document.error(place, f"{shown(name)} cannot name a variable", hint)
        found = _RANGE.fullmatch(value) if isinstance(value, str) else None
        if found is None:
            raise fields.document.error(place, f"{shown(value)} is no range", "write i: 0..15")
        try:
            sizes *= _size(found)
            _check_size(sizes)
        except SpecError as error:
            raise fields.document.error(place, error.problem, error.hint) from None
        ranges[name] = _numbers(found)
    for values in itertools.product(*ranges.values()):
        yield dict(zip(ranges, values, strict=True))


def spread(pattern: str) -> list[str]:
    """Return the names that a pattern of ranges stands for, itself if it has none.

    Raises:
        SpecError: Braces hold no range, or there are too many names.
    """
    if "{" not in pattern and "}" not in pattern:
        return [pattern]
    parts = _BRACES.split(pattern)  # texts at even places, what braces hold at odd ones
    _refuse_loose_braces(pattern, parts[::2])
    ranges = [_RANGE.fullmatch(inner) for inner in parts[1::2]]
    for inner, found in zip(parts[1::2], ranges, strict=True):
        if found is None:
            raise SpecError(f"{{{inner}}} in {shown(pattern)} is no range", hint=BRACES_FORMS)
    _check_size(prod(_size(found) for found in ranges if found))
    choices = [[f"{n:0{d}d}" for n, d in _numbers(found)] for found in ranges if found]
    texts = parts[::2]
    return [
        texts[0] + "".join(map("".join, zip(chosen, texts[1:], strict=True)))
        for chosen in itertools.product(*choices)
    ]


def fill(pattern: str, binding: Binding) -> str:
    """Return the pattern with the variables' values put in; ranges in it stay.

    Raises:
        SpecError: Braces hold neither, or a value is below 0.
    """
    if "{" not in pattern and "}" not in pattern:
        return pattern
    parts = _BRACES.split(pattern)
    _refuse_loose_braces(pattern, parts[::2])
    for at in range(1, len(parts), 2):
        kept = _RANGE.fullmatch(parts[at])
        parts[at] = f"{{{parts[at]}}}" if kept else _computed(parts[at], pattern, binding)
    return "".join(parts)


def _computed(inner: str, pattern: str, binding: Binding) -> str:
    found = _COMPUTED.fullmatch(inner)
    if found is None or found[1] not in binding:
        problem = f"{{{inner}}} in {shown(pattern)} is neither a range nor a variable"
        raise SpecError(problem, hint=BRACES_FORMS)
    value, digits = binding[found[1]]
    for sign, written in _STEP.findall(found[2]):
        number = int(written)
        if sign in "/%" and number == 0:
            raise SpecError(f"{{{inner}}} in {shown(pattern)} divides by 0", hint=BRACES_FORMS)
        match sign:
            case "+":
                value += number
            case "-":
                value -= number
            case "*":
                value *= number
            case "/":
                value //= number
            case _:
                value %= number
    if value < 0:
        where = f"{found[1]} = {binding[found[1]].value}"
        hint = f"add before you subtract, as in {{{found[1]}+15%16}}"
        raise SpecError(f"{{{inner}}} in {shown(pattern)} is {value} at {where}", hint=hint)
    return f"{value:0{digits}d}"


def _refuse_loose_braces(pattern: str, texts: list[str]) -> None:
    if any("{" in text or "}" in text for text in texts):
        raise SpecError(f"a brace in {shown(pattern)} has no partner", hint=BRACES_FORMS)


def _size(found: re.Match[str]) -> int:
    first, last = int(found[1]), int(found[2])
    if last < first:
        raise SpecError(f"the range {found[0]} is empty", hint="write the smaller end first")
    return last - first + 1


def _check_size(size: int) -> None:
    if size > THINGS_MAX:
        raise SpecError(
            f"stands for {size} names, the most is {THINGS_MAX}", hint="write smaller ranges"
        )


def _numbers(found: re.Match[str]) -> list[Number]:
    digits = len(found[1]) if found[1].startswith("0") else 1
    return [Number(number, digits) for number in range(int(found[1]), int(found[2]) + 1)]
