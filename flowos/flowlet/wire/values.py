"""What goes through a port, and how is it written down? Bytes and numpy arrays, nothing else."""

import sys
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

if TYPE_CHECKING:
    import numpy as np

Data: TypeAlias = "bytes | np.ndarray[Any, Any]"

BYTES: Final = "bytes"


class Form(NamedTuple):
    """How bytes in memory are to be read.

    Attributes:
        dtype: numpy's word for the elements, or its list of named ones; "bytes" = plain bytes.
        shape: Of an array.
    """

    dtype: str | list[Any] = BYTES
    shape: tuple[int, ...] = ()


PLAIN: Final = Form()


class NotData(TypeError):
    """A value that no port carries; says what it is and what to return instead."""


def taken_apart(value: object) -> tuple[Form, memoryview]:
    """Return a value's form and its bytes; these are the value's own memory where it is in one piece.

    Raises:
        NotData: It is neither bytes nor an array of numbers.
    """
    if isinstance(value, bytes):
        return PLAIN, memoryview(value)
    if isinstance(value, bytearray | memoryview):
        return PLAIN, memoryview(value).cast("B") if _flat(value) else memoryview(bytes(value))
    numpy = sys.modules.get("numpy")  # who returns an array has loaded it
    if numpy is not None and isinstance(value, numpy.generic | numpy.ndarray):
        array = numpy.ascontiguousarray(value) if value.ndim else numpy.asarray(value)
        if array.dtype.hasobject:
            raise NotData(
                "an array of Python objects cannot be sent: give it a dtype such as float64"
            )
        dtype = array.dtype.descr if array.dtype.names else array.dtype.str
        flat = array.reshape(-1).view(numpy.uint8) if array.size else numpy.empty(0, numpy.uint8)
        return Form(dtype, tuple(array.shape)), memoryview(flat)
    raise NotData(
        f"a port carries bytes or a numpy array, not {type(value).__name__}: return "
        f"{_instead(value)}"
    )


def put_together(form: Form, memory: Any) -> Any:  # anything with a buffer
    """Return the value that these bytes are: an array in this very memory, read-only, or bytes."""
    if form.dtype == BYTES:
        return memory if isinstance(memory, bytes) else bytes(memory)
    import numpy as np

    dtype = form.dtype if isinstance(form.dtype, str) else [tuple(field) for field in form.dtype]
    array = np.frombuffer(memory, dtype=np.dtype(dtype)).reshape(form.shape)
    if array.flags.writeable:
        array.flags.writeable = False
    return array


def _flat(value: bytearray | memoryview) -> bool:
    return isinstance(value, bytearray) or value.c_contiguous


def _instead(value: object) -> str:
    if isinstance(value, str):
        return "text.encode()"
    if isinstance(value, int | float | list | tuple):
        return "numpy.asarray(it)"
    return "pickle.dumps(it), if the next task is to unpickle it"
