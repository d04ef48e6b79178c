"""Which tasks come with Flow OS?"""

from collections.abc import Sequence
from typing import Any, ClassVar

from flowos.flowlet.errors import FlowletError, users_line
from flowos.flowlet.task import ANY, Port, Task
from flowos.flowlet.wire.values import NotData, taken_apart


class Source(Task):
    """Data of the user's program, as an output.

    Attributes:
        data: The data.
        at: Where it lies already, a node or "node/engine": its readers go near it; "" = with the
            user's program.
    """

    input_ports: ClassVar[int | None] = 0

    def __init__(self, data: Any, *, at: str = "", name: str = "") -> None:
        """Take bytes or a numpy array.

        Raises:
            FlowletError: It is neither.
        """
        super().__init__(name=name)
        try:
            taken_apart(data)
        except NotData as error:
            raise FlowletError(str(error), where=str(self.made_at)) from None
        self.data = data
        self.at = at

    def run(self) -> Any:
        """Return the data."""
        return self.data


class Sink(Task):
    """What comes back to the user's program."""

    output_ports = 0
    _NOTHING: ClassVar[object] = object()

    def __init__(self, source: "Task | Port", *, name: str = "") -> None:
        """Take one output."""
        super().__init__(source, name=name)
        self._result: Any = self._NOTHING

    @property
    def result(self) -> Any:
        """What came.

        Raises:
            FlowletError: Nothing has, yet.
        """
        if self._result is self._NOTHING:
            raise FlowletError(
                f"{self.name} has no result yet",
                where=str(users_line()),
                hint="call execute() on it first",
            )
        return self._result

    def run(self, value: Any) -> None:
        """Take the result."""
        self._result = value


class Concat(Task):
    """All inputs, one after the other: bytes, or arrays along their first axis."""

    input_ports: ClassVar[int | None] = ANY

    def run(self, *parts: Any) -> Any:
        """Return them joined.

        Raises:
            ValueError: Bytes and arrays are mixed, or shapes do not fit.
        """
        if all(isinstance(part, bytes) for part in parts):
            return b"".join(parts)
        import numpy as np

        if any(isinstance(part, bytes) for part in parts):
            raise ValueError("bytes and arrays cannot be joined: make one kind of them first")
        return np.concatenate([np.atleast_1d(part) for part in parts])


class AddBytewise(Task):
    """The sum of two inputs, byte by byte, modulo 256."""

    def run(self, a: Any, b: Any) -> Any:
        """Return the sum: bytes, or an array like `a`.

        Raises:
            ValueError: They are not of one length, or not of whole numbers.
        """
        import numpy as np

        if isinstance(a, bytes) and isinstance(b, bytes):
            if len(a) != len(b):
                raise ValueError(f"inputs of {len(a)} and {len(b)} bytes cannot be added")
            return (np.frombuffer(a, np.uint8) + np.frombuffer(b, np.uint8)).tobytes()
        one, other = (
            np.frombuffer(x, np.uint8) if isinstance(x, bytes) else _as_bytes(np.asarray(x))
            for x in (a, b)
        )
        if one.shape != other.shape:
            raise ValueError(f"inputs of shape {one.shape} and {other.shape} cannot be added")
        return one + other


def _as_bytes(array: Any) -> Any:
    if array.dtype.kind not in "biu":  # of a fraction, the cast would make some byte in silence
        raise ValueError(f"an array of {array.dtype} is none of bytes: give it the dtype uint8")
    return array.astype("uint8", copy=False)


class Sum(Task):
    """The sum of any number of arrays of one shape; switches may add them on their way."""

    input_ports: ClassVar[int | None] = ANY
    aggregate: ClassVar[str] = "sum"

    def run(self, *arrays: Any) -> Any:
        """Return the sum, element by element.

        Raises:
            ValueError: Shapes differ, or there is none.
        """
        return summed(arrays)


def summed(arrays: Sequence[Any]) -> Any:
    """Return the sum of arrays, in their order and in the type of the first.

    Raises:
        ValueError: Shapes differ, or there is none.
    """
    import numpy as np

    if not arrays:
        raise ValueError("nothing to add")
    shapes = {np.shape(array) for array in arrays}
    if len(shapes) > 1:
        raise ValueError(f"arrays of shapes {sorted(shapes)} cannot be added")
    total = np.array(arrays[0])
    for array in arrays[1:]:
        total += array
    return total
