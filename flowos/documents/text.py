"""How a text becomes plain values that still know their lines: YAML and JSON, read strictly.

A document's values are None, bool, int, Decimal, str, list and dict with text keys. A number with a
decimal point stays a Decimal, so that 0.3 is exact and 1.10 is still what was written.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Final, NoReturn, TypeAlias

from flowos.model.errors import FileError

# Where in a document: keys and list positions from the top, e.g. ("nodes", 3, "engines").
Place: TypeAlias = tuple[str | int, ...]

DEPTH_MAX: Final = 40  # no document of ours nests deeper than 10; beyond, parsers run out of stack
EXPONENT_DIGITS: Final = 4  # of a number such as 1e300; Python's decimals end at 18
STDIN: Final = "-"


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a file.

    Attributes:
        path: The file's name, as its reader knows it.
        value: What it says.
        line_of: Finds the line of a place, or of the deepest part of it that exists; 0 = unknown.
            It reads the text again, so it is only called for an error.
    """

    path: str
    value: object
    line_of: Callable[[Place], int]

    def error(
        self, place: Place, problem: str, hint: str = "", *, named: Place | None = None
    ) -> FileError:
        """Return the error that has the line of a place, and names it, or `named`, in words."""
        words = place_text(place if named is None else named)
        sentence = f"{words}: {problem}" if words else problem
        return FileError(sentence, path=self.path, line=self.line_of(place), hint=hint)


def place_text(place: Place) -> str:
    """Return a place as people write it: nodes[3].engines."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return "".join(parts).lstrip(".")


def shown_path(path: str | Path) -> str:
    """Return the path as errors name it."""
    return "standard input" if str(path) == STDIN else str(path)


def read_text(path: str | Path) -> str:
    """Return a file's text.

    Raises:
        FileError: It cannot be read, or is not UTF-8.
    """
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        raise FileError(
            f"cannot be read: {error.strerror or error}",
            path=str(path),
            hint="name a file that exists and may be read",
        ) from None
    except ValueError:  # a NUL in the path
        raise FileError("is no file name", path=repr(str(path)), hint="name a file") from None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise FileError(
            f"byte {error.start} is not UTF-8", path=str(path), line=line, hint="save it as UTF-8"
        ) from None


def parse(text: str, path: str | Path) -> list[Document]:
    """Return the documents of a YAML or JSON text, empty ones left out.

    What the name does not tell ("-", or another ending than .json, .yaml and .yml) is told by the
    text: JSON starts with `{"` or `[`, apart from white space.

    Raises:
        FileError: It cannot be read, or a key stands twice; names the line.
    """
    suffix = Path(str(path)).suffix.lower()
    like_json = suffix not in (".yaml", ".yml") and re.match(r'\s*(\{\s*["}]|\[)', text)
    if suffix == ".json" or like_json:
        return [_parse_json(text, shown_path(path))]
    # Imported only here: it costs a short command 15 ms at its start.
    from flowos.documents.yaml_text import parse_yaml

    return parse_yaml(text, shown_path(path))


def document_of(value: object, path: str | Path) -> Document:
    """Return a document of values that no text is known of: its errors have no line."""
    return Document(path=shown_path(path), value=value, line_of=lambda _: 0)


# ------------------------------------------------------------------------------------------- JSON

_SPACE: Final = re.compile(r"[ \t\n\r]*")
_ANYTHING: Final = json.JSONDecoder()
_NUMBER_MAX: Final = 100  # characters; a double never needs more


class _Refused(Exception):  # never leaves this file
    """A number or constant that a document cannot hold."""


class _KeyTwice(Exception):  # never leaves this file
    """A key that stands twice in one object."""


def _pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        raise _KeyTwice(next(key for key, _ in pairs if key in seen or seen.add(key)))  # type: ignore[func-returns-value]
    return found


def _decimal(text: str) -> Decimal:
    exponent = re.split("[eE][-+]?", text)[1:]
    if len(text) > _NUMBER_MAX or (exponent and len(exponent[0]) > EXPONENT_DIGITS):
        raise _Refused(text)
    return Decimal(text)


def _constant(text: str) -> NoReturn:
    raise _Refused(text)


def _parse_json(text: str, path: str) -> Document:
    try:
        value = json.loads(
            text,
            object_pairs_hook=_pairs,
            parse_float=_decimal,
            parse_constant=_constant,
        )
    except json.JSONDecodeError as error:
        what = error.msg[:1].lower() + error.msg[1:]
        raise FileError(
            f"is not JSON: {what} at column {error.colno}",
            path=path,
            line=error.lineno,
            hint="repair it there, or write YAML and name the file .yaml",
        ) from None
    except _Refused as error:
        number = str(error)
        line = text.count("\n", 0, text.find(number)) + 1
        raise FileError(
            f"{number[:20]} is no number that is known here",
            path=path,
            line=line,
            hint=f"write a finite number of at most {_NUMBER_MAX} digits",
        ) from None
    except _KeyTwice as error:
        raise FileError(
            f'the key "{error}" stands twice in one object',
            path=path,
            line=_line_of_double(text, str(error)),
            hint="keep one of the two",
        ) from None
    except ValueError:  # an integer of more digits than Python converts
        raise FileError(
            "has a number of thousands of digits", path=path, hint="write fewer"
        ) from None
    except RecursionError:
        raise FileError(
            "nests too deeply", path=path, hint=f"keep below {DEPTH_MAX} levels"
        ) from None
    return Document(path=path, value=value, line_of=lambda place: _json_line(text, place))


def _json_line(text: str, place: Place) -> int:
    """Find where a place of a valid JSON text starts: skip what lies before, at C speed."""
    at = _after_space(text, 0)
    for part in place:
        inner = _json_step(text, at, part)
        if inner is None:
            break
        at = inner
    return text.count("\n", 0, at) + 1


def _json_step(text: str, at: int, part: str | int) -> int | None:
    """Return where the member `part` of the value that starts at `at` begins, or None."""
    if text[at] != ("[" if isinstance(part, int) else "{"):
        return None
    at = _after_space(text, at + 1)
    position = 0
    while text[at] not in "]}":
        key: str | int = position
        if isinstance(part, str):
            key, at = _ANYTHING.raw_decode(text, at)
            at = _after_space(text, _after_space(text, at) + 1)  # over the colon
        if key == part:
            return at
        _, at = _ANYTHING.raw_decode(text, at)
        at = _after_space(text, at)
        if text[at] == ",":
            at = _after_space(text, at + 1)
        position += 1
    return None


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


_JSON_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,]')


def _line_of_double(text: str, key: str) -> int:
    """Return the line of the first key of this name that its object has already."""
    keys: list[set[str]] = []
    before = ""
    start = 0
    for token in _JSON_TOKEN.finditer(text):
        sign = token[0]
        if sign in "{[":
            keys.append(set())
        elif sign in "]}":
            keys.pop()
        elif sign == ":":
            name = json.loads(before)
            if name == key and name in keys[-1]:
                return text.count("\n", 0, start) + 1
            keys[-1].add(name)
        before, start = sign, token.start()
    return 0
