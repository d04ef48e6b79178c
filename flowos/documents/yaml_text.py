"""Reading YAML so that no plain word silently becomes something else.

YAML 1.1 reads `no` as false, `010` as 8 and `12:30:00` as 45000, and lets the last of two equal
keys win. Here such words, double keys, tags and aliases are refused with their line; what is left
means the same to every reader of YAML. The parser's events are taken one by one, without its
recursive composer: that is faster, and a document of 100,000 open brackets ends in an error instead
of a crash of libyaml's binding.
"""

import re
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final, NoReturn, Protocol

import yaml
from yaml import events

from flowos.documents.quantities import DIGITS_MAX, shown
from flowos.documents.text import DEPTH_MAX, EXPONENT_DIGITS, Document, Place
from flowos.model.errors import FileError

# Built with libyaml it is five times as fast; without, all answers are the same.
FASTEST: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_WHOLE: Final = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_DECIMAL: Final = re.compile(
    r"[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?(?P<exponent>[0-9]+))?"
)
_CONSTANTS: Final = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_WORDS: Final = re.compile(r"(?i:yes|no|on|off)")  # as a key they are text: keys are never truths
# What readers of YAML 1.1 and of 1.2 take for different things.
_TRAPS: Final[list[tuple[re.Pattern[str], str]]] = [
    (_WORDS, "some read it as true or false: write true or false, or put it in quotes"),
    (
        re.compile(r"[-+]?0[0-9_]+"),
        "some read it in base 8: write it without the leading 0, or put it in quotes",
    ),
    (
        re.compile(r"[-+]?0[box][0-9a-fA-F_]+"),
        "it is a number in another base: write it in base 10, or put it in quotes",
    ),
    (
        re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?"),
        "some read it in base 60: write a duration such as 1h30m, or put it in quotes",
    ),
    (
        re.compile(r"[-+]?[0-9][0-9_]*_[0-9_]*(\.[0-9_]*)?|[-+]?[0-9]*\.[0-9]+_[0-9_]*"),
        "some read it as a number: write it without _, or put it in quotes",
    ),
    (
        re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt ].*)?"),
        "some read it as a date: put it in quotes",
    ),
    (re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"), "it is no finite number: write one"),
    (re.compile(r"="), "some read it as a default value: put it in quotes"),
]
_TRAP_STARTS: Final = frozenset("yYoOnN+-.=0123456789")


class _Parser(Protocol):
    """What both of the library's parsers can do."""

    def get_event(self) -> events.Event: ...
    def dispose(self) -> None: ...


@dataclass(slots=True)
class _Frame:
    """A list or mapping that is open; `key` is the one that waits for its value."""

    holds: list[object] | dict[str, object]
    key: str | None = None


@dataclass(slots=True)
class _Building:
    """The documents of a text as its events come in.

    Attributes:
        lines: Filled where it is wanted: the line of each place, with the document's number first.
    """

    path: str
    lines: dict[Place, int] | None = None
    done: list[object] = field(default_factory=list)
    open: list[_Frame] = field(default_factory=list)

    def fail(self, event: events.Event, problem: str, hint: str) -> NoReturn:
        raise FileError(problem, path=self.path, line=_line(event), hint=hint)

    def take(self, event: events.Event) -> None:
        if isinstance(event, events.ScalarEvent):
            self.put(event, self.scalar(event))
        elif isinstance(event, events.MappingStartEvent | events.SequenceStartEvent):
            if event.tag is not None:
                self.refuse_tag(event, event.tag)
            if len(self.open) >= DEPTH_MAX:
                self.fail(event, "nests too deeply", f"keep below {DEPTH_MAX} levels")
            mapping = isinstance(event, events.MappingStartEvent)
            opened = _Frame({} if mapping else [])
            self.put(event, opened.holds, ends=False)
            self.open.append(opened)
        elif isinstance(event, events.MappingEndEvent | events.SequenceEndEvent):
            self.open.pop()
            if self.open:
                self.open[-1].key = None
        elif isinstance(event, events.AliasEvent):
            self.fail(
                event,
                f"the alias *{event.anchor} is not read here",
                "write the value out, or use templates and counts in a cell file",
            )

    def put(self, event: events.Event, value: object, *, ends: bool = True) -> None:
        """Give a value, or a key, to what is open; `ends` unless its own contents follow."""
        if not self.open:
            self.done.append(value)
        else:
            frame = self.open[-1]
            if isinstance(frame.holds, list):
                frame.holds.append(value)
            elif frame.key is None:
                frame.key = self.key(event, frame.holds, value)
                return
            else:
                frame.holds[frame.key] = value
        if self.lines is not None:
            # An entry is where its key is, even if its value starts on the next line.
            self.lines.setdefault(self.place(), _line(event))
        if ends and self.open:
            self.open[-1].key = None

    @property
    def expects_key(self) -> bool:
        return (
            bool(self.open) and self.open[-1].key is None and isinstance(self.open[-1].holds, dict)
        )

    def key(self, event: events.Event, holds: dict[str, object], value: object) -> str:
        if not isinstance(value, str):
            self.fail(event, f"the key {shown(value)} is not text", "put it in quotes")
        if value in holds:
            self.fail(event, f'the key "{value}" stands twice here', "keep one of the two")
        if self.lines is not None:
            self.lines[(*self.place(), value)] = _line(event)
        return value

    def place(self) -> Place:
        parts = (
            len(frame.holds) - 1 if isinstance(frame.holds, list) else frame.key
            for frame in self.open
        )
        return (len(self.done) - 1, *(part for part in parts if part is not None))

    def scalar(self, event: events.ScalarEvent) -> object:
        text: str = event.value
        if event.tag is not None:
            self.refuse_tag(event, event.tag)
        if not event.implicit[0]:  # quoted, or a block
            return text
        if text in _CONSTANTS:
            return _CONSTANTS[text]
        if text[0] not in _TRAP_STARTS:
            return text
        if _WHOLE.fullmatch(text):
            return int(text) if len(text) <= DIGITS_MAX else self.too_long(event)
        if found := _DECIMAL.fullmatch(text):
            fits = len(text) <= 2 * DIGITS_MAX and len(found["exponent"] or "") <= EXPONENT_DIGITS
            return Decimal(text) if fits else self.too_long(event)
        if self.expects_key and _WORDS.fullmatch(text):
            return text
        for trap, way_out in _TRAPS:
            if trap.fullmatch(text):
                self.fail(event, f"plain {text[:DIGITS_MAX]} can mean two things", way_out)
        return text

    def too_long(self, event: events.ScalarEvent) -> NoReturn:
        problem = f"{shown(event.value)} is too long for a number"
        self.fail(event, problem, "write fewer digits, or put it in quotes")

    def refuse_tag(self, event: events.Event, tag: str) -> NoReturn:
        self.fail(event, f"the tag {tag[:DIGITS_MAX]} is not read here", "leave it out")


def _line(event: events.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 0


def parse_yaml(text: str, path: str, loader: Any = FASTEST) -> list[Document]:
    """Return the documents of a YAML text, empty ones left out.

    Raises:
        FileError: It cannot be read, or could be read in two ways; names the line.
    """
    building = _build(text, path, loader, lines=None)

    def line_of(number: int, place: Place) -> int:
        lines: dict[Place, int] = {}
        _build(text, path, loader, lines)
        while place and (number, *place) not in lines:
            place = place[:-1]
        return lines.get((number, *place), 0)

    return [
        Document(path=path, value=value, line_of=lambda place, n=number: line_of(n, place))  # type: ignore[misc]
        for number, value in enumerate(building)
        if value is not None
    ]


def _build(text: str, path: str, loader: Any, lines: dict[Place, int] | None) -> list[object]:
    building = _Building(path, lines)
    parser: _Parser | None = None
    try:
        parser = loader(text)
        event = parser.get_event()
        while event is not None and not isinstance(event, events.StreamEndEvent):
            building.take(event)
            event = parser.get_event()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = " ".join(filter(None, (error.context, error.problem)))
        raise FileError(
            f"is not YAML: {what}" + (f" at column {mark.column + 1}" if mark else ""),
            path=path,
            line=mark.line + 1 if mark else 0,
            hint="repair it there",
        ) from None
    except yaml.reader.ReaderError as error:
        # Its position counts characters; in C it counts bytes of what it was given, so not there.
        raise FileError(
            f"is not YAML: {error.reason}", path=path, hint="remove control characters from it"
        ) from None
    except (ValueError, OverflowError) as error:
        # A lone surrogate, or an escape beyond Unicode, which the library does not foresee.
        raise FileError(f"is not YAML: {error}", path=path, hint="write plain Unicode") from None
    finally:
        if parser is not None:
            parser.dispose()
    return building.done
