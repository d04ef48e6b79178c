"""How records are written as bytes and read back."""

import json
from collections.abc import Callable
from typing import Any, Final, TypeVar

from flowos.model.errors import SpecError
from flowos.model.structure import Misfit, reader_of

T = TypeVar("T")

# From here on pydantic pays: it reads a record in half the time, but takes 70 ms to import and some
# more for each kind of record.
FEW: Final = 500

# They hold no state. Adapters are asked for their inner functions: what `TypeAdapter` puts around
# them, to pass on a dozen options, takes as long as a small record.
_ADAPTERS: Final[dict[type, Any]] = {}
_WRITERS: Final[dict[type, Callable[..., bytes]]] = {}
_READERS: Final[dict[type, Callable[..., Any]]] = {}
_COUNTS: Final[dict[type, int]] = {}


def _adapter(kind: type) -> Any:  # generic in its argument, which varies here
    found = _ADAPTERS.get(kind)
    if found is None:
        from pydantic import TypeAdapter

        found = _ADAPTERS[kind] = TypeAdapter(kind)
    return found


def encode(record: object) -> bytes:
    """Return the record as JSON, without the fields that have their default."""
    kind = type(record)
    writer = _WRITERS.get(kind)
    if writer is None:
        writer = _WRITERS[kind] = _adapter(kind).serializer.to_json
    return writer(record, exclude_defaults=True)


def decode(kind: type[T], value: bytes) -> T:
    """Return the record of this kind that the bytes are.

    Raises:
        SpecError: They are not; names the field.
    """
    if kind not in _ADAPTERS:
        count = _COUNTS[kind] = _COUNTS.get(kind, 0) + 1
        if count <= FEW:
            return decode_few(kind, value)
    return decode_many(kind, value)


def decode_few(kind: type[T], value: bytes) -> T:
    """Do what `decode` does, with nothing to import first."""
    try:
        return reader_of(kind)(json.loads(value), kind.__name__)  # type: ignore[no-any-return]
    except (Misfit, ValueError, RecursionError) as error:
        raise SpecError(str(error)) from None


def decode_many(kind: type[T], value: bytes) -> T:
    """Do what `decode` does, by compiled code."""
    reader = _READERS.get(kind)
    if reader is None:
        reader = _READERS[kind] = _adapter(kind).validator.validate_json
    try:
        return reader(value, strict=True)  # type: ignore[no-any-return]
    except ValueError as error:
        raise _misfit(kind, error) from None


def _misfit(kind: type, error: ValueError) -> SpecError:
    from pydantic import ValidationError

    if not isinstance(error, ValidationError):
        raise error
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return SpecError(first["msg"], where=f"{kind.__name__}.{where}")
