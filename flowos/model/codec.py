"""How records are written as bytes and read back."""

from functools import cache
from typing import Any, TypeVar

from flowos.model.errors import SpecError

T = TypeVar("T")


@cache
def _adapter(kind: Any) -> Any:  # pydantic's adapter is generic in its argument
    # Imported on first use: pydantic costs a short command 70 ms at its start.
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def encode(record: object) -> bytes:
    """Return the record as JSON, without the fields that have their default."""
    return _adapter(type(record)).dump_json(record, exclude_defaults=True)  # type: ignore[no-any-return]


def decode(kind: type[T], value: bytes) -> T:
    """Return the record of this kind that the bytes are.

    Raises:
        SpecError: They are not; names the field.
    """
    from pydantic import ValidationError

    try:
        return _adapter(kind).validate_json(value)  # type: ignore[no-any-return]
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise SpecError(first["msg"], where=f"{kind.__name__}.{where}") from None
