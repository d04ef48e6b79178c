"""Reading one mapping of a document field by field, each error with its line and the way out."""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from collections.abc import Set as AbstractSet
from decimal import Decimal
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, Final, TypeVar

from flowos.documents.quantities import number_of, shown
from flowos.documents.text import Document, Place
from flowos.model.cell import Attribute
from flowos.model.errors import FileError, SpecError

T = TypeVar("T")

API_VERSION: Final = "flowos/v1"
THING_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")  # nodes, engines, links, ...
SLICE_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")  # slices, tenants, roles
REFERENCE: Final = re.compile(rf"{THING_NAME.pattern}(@sha256:[0-9a-f]{{64}})?")
LABEL: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?")  # racks, attributes
LABEL_FORMS: Final = "use up to 63 letters, digits and . _ / - between them"
DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")

TEXT_MAX: Final = 4096  # characters; a record's value must stay far below etcd's 1.5 MiB
_UNFIT: Final = re.compile("[\x00\ud800-\udfff]")

_FORMS: Final[Mapping[str, str]] = {
    THING_NAME.pattern: "use up to 63 small letters, digits, dots and dashes, such as n0 or rack-a.n0",
    SLICE_NAME.pattern: "use up to 63 small letters, digits and dashes, such as train-42",
    REFERENCE.pattern: "write its name, or name@sha256: and 64 hexadecimal digits",
    DIGEST.pattern: "write sha256: and 64 hexadecimal digits, as sha256sum prints them",
}


def known_fields(*names: str) -> AbstractSet[str]:
    """Return the fields that a mapping may have, in the order in which errors list them."""
    return dict.fromkeys(names).keys()


def did_you_mean(word: str, known: Collection[str]) -> str:
    """Return the way out for an unknown word: the nearest known one, or all of them."""
    near = get_close_matches(word, known, n=1)
    if near:
        return f"did you mean {near[0]}?"
    if len(known) > 24:
        return f"known are {', '.join(sorted(known)[:24])}, ..."
    return f"known: {', '.join(sorted(known))}" if known else "none is known"


def text_problem(text: str) -> tuple[str, str] | None:
    """Return what makes a text unfit for a record, and the way out; None if nothing does."""
    if len(text) > TEXT_MAX:
        return f"has {len(text)} characters", f"use at most {TEXT_MAX}"
    if _UNFIT.search(text):
        return "has a NUL or half a character in it", "write plain Unicode"
    return None


@lru_cache(maxsize=1024, typed=True)  # 1, 1.0 and true are equal, but read differently
def _amount_of(of: Callable[[object], Any], value: object) -> Any:
    """Read an amount; large cells write the same few amounts a hundred thousand times."""
    return of(value)


class Fields:
    """A mapping of a document whose fields are all known.

    Every `read` method takes a field's name and what it is if it is not written; `null` counts as
    not written. Without a default the field must be there.

    Attributes:
        document: The document it is part of.
        place: Where in it.
        own: What is written there.
        below: The fields of the template that it stands on.
    """

    __slots__ = ("below", "document", "own", "place")

    def __init__(
        self,
        document: Document,
        place: Place,
        value: object,
        known: AbstractSet[str],
        *,
        below: "Fields | None" = None,
    ) -> None:
        """Take the mapping at a place.

        Args:
            document: The document.
            place: Where the mapping stands in it.
            value: What stands there.
            known: The fields that it may have.
            below: Where fields are looked for that it has not.

        Raises:
            FileError: It is no mapping, or has a field that is not known.
        """
        if not isinstance(value, dict):
            raise document.error(
                place,
                f"must be a mapping, not {shown(value)}",
                f"write its fields: {', '.join(list(known)[:6])}",
            )
        self.document = document
        self.place = place
        self.own = value
        self.below = below
        if not value.keys() <= known:
            name = next(name for name in value if name not in known)
            hint = did_you_mean(str(name), known)
            raise document.error(
                (*place, name), f"there is no field {shown(name)}", hint, named=place
            )

    def fail(self, name: str, problem: str, hint: str) -> FileError:
        """Return the error about a field."""
        return self.document.error(self.place_of(name), problem, hint)

    def place_of(self, name: str) -> Place:
        """Return where a field is written, or would be."""
        if self.below is not None and self.own.get(name) is None and self.below.has(name):
            return self.below.place_of(name)
        return (*self.place, name)

    def has(self, name: str) -> bool:
        """Whether a field is written here or in the template."""
        return self.value(name) is not None

    def value(self, name: str) -> object:
        """Return what is written, None if nothing is."""
        found = self.own.get(name)
        return self.below.value(name) if found is None and self.below is not None else found

    def required(self, name: str) -> object:
        """Return what is written, which must be something."""
        found = self.value(name)
        if found is None:
            problem = f"{name} is missing"
            raise self.document.error(self.place, problem, f"add {name}: ...")
        return found

    def text(self, name: str, default: str | None = None) -> str:
        """Read a text; a number or true is refused, for 1.10 would become 1.1."""
        found = self.value(name) if default is not None else self.required(name)
        if found is None and default is not None:
            return default
        return self._text(name, found)

    def name(
        self, name: str, default: str | None = None, *, form: re.Pattern[str] = THING_NAME
    ) -> str:
        """Read a name, or another text of a fixed form."""
        found = self.text(name, default)
        # A default may come from an option, so it is checked as well, unless it says nothing.
        if (found or default != "") and form.fullmatch(found) is None:
            raise self.fail(name, f"{shown(found)} is not possible here", _FORMS[form.pattern])
        return found

    def one_of(self, name: str, words: Collection[str], default: str) -> str:
        """Read one of some words."""
        found = self.text(name, default)
        if found not in words:
            raise self.fail(name, f"{shown(found)} is unknown", f"use {', '.join(words)}")
        return found

    def whole(self, name: str, default: int | None, least: int, most: int) -> int:
        """Read a whole number between bounds."""
        found = self.value(name) if default is not None else self.required(name)
        if found is None and default is not None:
            return default
        if type(found) is int and least <= found <= most:
            return found
        exact = number_of(found)
        if exact is None or exact.denominator != 1:
            quoted = isinstance(found, str) and found.isdecimal()
            hint = f"write {found} without quotes" if quoted else f"write {least} or more"
            raise self.fail(name, f"{shown(found)} is no whole number", hint)
        if not least <= exact <= most:
            raise self.fail(name, f"{shown(found)} is out of range", f"write {least} to {most}")
        return int(exact)

    def flag(self, name: str, default: bool) -> bool:
        """Read true or false."""
        found = self.value(name)
        if found is None:
            return default
        if not isinstance(found, bool):
            raise self.fail(name, f"{shown(found)} is not a truth value", "write true or false")
        return found

    def amount(self, name: str, of: Callable[[object], T], default: T) -> T:
        """Read an amount by one of the readers of `quantities`."""
        found = self.value(name)
        if found is None:
            return default
        try:
            return _amount_of(of, found) if isinstance(found, str | int | Decimal) else of(found)
        except SpecError as error:
            raise self.fail(name, error.problem, error.hint) from None

    def texts(self, name: str, *, single: bool = True) -> tuple[str, ...]:
        """Read a list of texts; with `single`, one text is a list of one."""
        found = self.value(name)
        if single and isinstance(found, str):
            return (self._text(name, found),)
        if number_of(found) is not None or isinstance(found, bool):
            raise self._no_text(self.place_of(name), found)
        entries = self.entries(name)
        for place, value in entries:
            if not isinstance(value, str):
                raise self._no_text(place, value)
        return tuple(self._text(name, value) for _, value in entries)

    def entries(self, name: str) -> list[tuple[Place, object]]:
        """Read a list, each entry with its place."""
        found = self.value(name)
        if found is None:
            return []
        if not isinstance(found, list | tuple):
            raise self.fail(name, f"must be a list, not {shown(found)}", f"write {name}: [...]")
        place = self.place_of(name)
        return [((*place, number), value) for number, value in enumerate(found)]

    def pairs(self, name: str) -> Iterator[tuple[str, Place, object]]:
        """Read a mapping of names that are the writer's own, each with its place and value."""
        found = self.value(name)
        if found is None:
            return
        if not isinstance(found, dict):
            raise self.fail(
                name, f"must be a mapping, not {shown(found)}", f"write {name}: {{...: ...}}"
            )
        place = self.place_of(name)
        for key, value in found.items():
            if not isinstance(key, str):
                raise self.fail(name, f"the key {shown(key)} is not text", "write it as text")
            yield key, (*place, key), value

    def attributes(self, name: str) -> dict[str, Attribute]:
        """Read free words with values: text, whole and other numbers, true and false."""
        return {key: self._attribute(key, place, v) for key, place, v in self.pairs(name)}

    def _attribute(self, key: str, place: Place, value: object) -> Attribute:
        if LABEL.fullmatch(key) is None:
            unnamed = f"{shown(key)} cannot name an attribute"
            raise self.document.error(place, unnamed, LABEL_FORMS)
        if isinstance(value, bool):
            return value
        if isinstance(value, str):
            if problem := text_problem(value):
                raise self.document.error(place, *problem)
            return value
        exact = number_of(value)
        if exact is None:
            hint = "write a text, a number, true or false"
            raise self.document.error(place, f"{shown(value)} cannot be an attribute", hint)
        if isinstance(value, int):
            return value
        number = float(exact)
        if isinstance(value, Decimal) and Decimal(repr(number)).as_tuple() != value.as_tuple():
            # 1.10 may be a number or a version: its writer must say which.
            hint = f'write {number!r}, or "{value}" in quotes'
            raise self.document.error(place, f"{value} is the number {number!r}", hint)
        return number

    def _text(self, name: str, value: object) -> str:
        if not isinstance(value, str):
            raise self._no_text(self.place_of(name), value)
        if problem := text_problem(value):
            raise self.fail(name, *problem)
        return value

    def _no_text(self, place: Place, value: object) -> FileError:
        hint = f'write "{value}" in quotes' if number_of(value) is not None else "write a text"
        if isinstance(value, bool):
            hint = f'write "{str(value).lower()}" in quotes if that is meant'
        return self.document.error(place, f"must be text, not {shown(value)}", hint)
