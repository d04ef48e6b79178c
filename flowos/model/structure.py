"""Reads records without pydantic: slower for each, but with nothing to import or to build.

A command that reads twenty records and prints them would spend most of its time on importing
pydantic and building validators. This takes the same JSON and accepts exactly the same records;
`tests/property/test_codecs_agree.py` holds both equal.
"""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Final, TypeAlias, Union, get_args, get_origin, get_type_hints

Reader: TypeAlias = Callable[[Any, str], Any]


class Misfit(ValueError):
    """A value that is not of its field's type; the message starts with the field."""


def reader_of(kind: Any) -> Reader:  # any type that a record's field may have
    """Return a function of (JSON value, where) that returns the value as this type.

    It raises `Misfit` where the value is not of the type; nothing is converted, except a list into
    a tuple, a word into its enum member, and a whole number into a float.
    """
    known = _READERS.get(kind)
    if known is None:
        known = _READERS[kind] = _make(kind)
    return known


def _make(kind: Any) -> Reader:
    origin = get_origin(kind)
    arguments = get_args(kind)
    if is_dataclass(kind):
        return _record(kind)  # type: ignore[arg-type]
    if origin in (Union, UnionType):
        return _either([reader_of(choice) for choice in arguments])
    if origin is tuple:
        return _sequence(arguments)
    if origin is not None and issubclass(origin, Mapping):
        return _mapping(*(reader_of(argument) for argument in arguments))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return _member(kind)
    if kind is float:
        return _number
    return _exactly(kind)


def _exactly(kind: type) -> Reader:
    def read(value: Any, where: str) -> Any:
        if type(value) is not kind:
            raise Misfit(f"{where}: {value!r} is no {kind.__name__}")
        return value

    return read


def _number(value: Any, where: str) -> float:
    if type(value) not in (int, float):
        raise Misfit(f"{where}: {value!r} is no number")
    return float(value)


def _member(kind: type[Enum]) -> Reader:
    members = {member.value: member for member in kind}

    def read(value: Any, where: str) -> Any:
        found = members.get(value) if isinstance(value, str) else None
        if found is None:
            raise Misfit(f"{where}: {value!r} is none of {', '.join(members)}")
        return found

    return read


def _either(choices: list[Reader]) -> Reader:
    def read(value: Any, where: str) -> Any:
        misfits = []
        for choice in choices:
            try:
                return choice(value, where)
            except Misfit as error:
                misfits.append(error)
        raise misfits[-1]

    return read


def _sequence(arguments: tuple[Any, ...]) -> Reader:
    endless = len(arguments) == 2 and arguments[1] is Ellipsis
    readers = [reader_of(a) for a in (arguments[:1] if endless else arguments)]

    def read(value: Any, where: str) -> Any:
        if type(value) is not list:
            raise Misfit(f"{where}: {value!r} is no list")
        if endless:
            return tuple([readers[0](item, where) for item in value])
        if len(value) != len(readers):
            raise Misfit(f"{where}: {len(value)} values, not {len(readers)}")
        return tuple([r(item, where) for r, item in zip(readers, value, strict=True)])

    return read


def _mapping(of_key: Reader, of_value: Reader) -> Reader:
    def read(value: Any, where: str) -> Any:
        if type(value) is not dict:
            raise Misfit(f"{where}: {value!r} is no mapping")
        return {of_key(k, where): of_value(v, f"{where}.{k}") for k, v in value.items()}

    return read


def _record(kind: type) -> Reader:
    hints = get_type_hints(kind)
    readers = {f.name: reader_of(hints[f.name]) for f in fields(kind)}
    needed = {f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING}

    def read(value: Any, where: str) -> Any:
        if type(value) is not dict:
            raise Misfit(f"{where}: {value!r} is no {kind.__name__}")
        values = {}
        for name, item in value.items():
            reader = readers.get(name)
            if reader is None:
                raise Misfit(f"{where}.{name}: not a field of {kind.__name__}")
            values[name] = reader(item, f"{where}.{name}")
        for name in needed - values.keys():
            raise Misfit(f"{where}.{name}: missing")
        return kind(**values)

    return read


def _nothing(value: Any, where: str) -> None:
    if value is not None:
        raise Misfit(f"{where}: {value!r} is not null")


_READERS: Final[dict[Any, Reader]] = {NoneType: _nothing, dict: _exactly(dict)}
