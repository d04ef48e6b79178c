"""How records are written as bytes and read back."""

from typing import Any, Final, TypeVar

from flowos.model.errors import SpecError

T = TypeVar("T")


_ADAPTERS: Final[dict[type, Any]] = {}  # building one costs a millisecond; they hold no state


def _adapter(kind: type) -> Any:  # noqa: ANN401  # generic in its argument, which varies here
    found = _ADAPTERS.get(kind)
    if found is None:
        # Imported on first use: pydantic costs a short command 70 ms at its start.
        from pydantic import TypeAdapter

        found = _ADAPTERS[kind] = TypeAdapter(kind)
    return found


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
