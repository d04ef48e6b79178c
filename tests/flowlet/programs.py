"""Tasks that tests run: in a module of its own, so that they are shipped by name."""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from flowos.flowlet import StreamTask, Task


class Inc(Task):
    def run(self, a: Any) -> Any:
        return a + 1


class Both(Task):
    """Two outputs: half each."""

    output_ports = 2

    def run(self, a: Any) -> Any:
        return a[: len(a) // 2], a[len(a) // 2 :]


class Slow(Task):
    """Takes its time, and says in a file that it has begun."""

    def __init__(self, source: Any, seconds: float, mark: str = "") -> None:
        super().__init__(source)
        self.seconds, self.mark = seconds, mark

    def run(self, a: Any) -> Any:
        if self.mark:
            with Path(self.mark).open("a") as file:
                file.write(f"{os.getpid()} {os.getppid()}\n")
        time.sleep(self.seconds)
        return a


class Raises(Task):
    def run(self, a: Any) -> Any:
        print("before it went wrong")
        return vars(self)["no such key"]


class Exits(Task):
    def run(self, a: Any) -> Any:
        sys.exit(3)


class Dies(Task):
    """Ends its worker by a signal, so many times."""

    def __init__(self, source: Any, mark: str, times: int) -> None:
        super().__init__(source)
        self.mark, self.times = mark, times

    def run(self, a: Any) -> Any:
        with Path(self.mark).open("a") as file:
            file.write("x")
        if len(Path(self.mark).read_text()) <= self.times:
            os.kill(os.getpid(), signal.SIGKILL)
        return a


class Eats(Task):
    def run(self, a: Any) -> Any:
        import numpy as np

        return np.ones(1 << 40, np.uint8)


class Returns(Task):
    """Returns what it is told to."""

    def __init__(self, source: Any, what: Any, ports: int = 1) -> None:
        super().__init__(source)
        self.what, self.output_ports = what, ports

    def run(self, a: Any) -> Any:
        return self.what


class Chunks(StreamTask):
    """The same number again and again, as bytes in an array."""

    def __init__(
        self, count: int, size: int, *, grow: bool = False, seconds: float = 0.0, mark: str = ""
    ) -> None:
        super().__init__()
        self.count, self.size, self.grow, self.seconds, self.mark = count, size, grow, seconds, mark

    def run(self) -> Any:
        if self.mark:
            with Path(self.mark).open("a") as file:
                file.write(f"{os.getpid()}\n")
        for number in range(self.count):
            time.sleep(self.seconds)
            yield np.ones(self.size * (number + 1 if self.grow else 1), np.uint8)


class Doubled(StreamTask):
    def run(self, chunks: Any) -> Any:
        for chunk in chunks:
            yield chunk * 2


class Length(StreamTask):
    """How many chunks came, and the sum of all."""

    def __init__(self, source: Any, seconds: float = 0.0) -> None:
        super().__init__(source)
        self.seconds = seconds

    def run(self, chunks: Any) -> Any:
        count, total = 0, 0
        for chunk in chunks:
            time.sleep(self.seconds)
            count, total = count + 1, total + int(chunk.sum(dtype=np.int64))
        yield f"{count} chunks, {total}".encode()


class Split(StreamTask):
    """All that comes, one by one, and every other one."""

    output_ports = 2

    def run(self, chunks: Any) -> Any:
        for chunk in chunks:
            for number, value in enumerate(chunk):
                yield np.atleast_1d(value), np.atleast_1d(value) if number % 2 else None


class First(StreamTask):
    def run(self, chunks: Any) -> Any:
        yield next(chunks).copy()


class Fails(StreamTask):
    def run(self, chunks: Any) -> Any:
        for number, chunk in enumerate(chunks):
            if number == 5:
                raise ValueError("this chunk is not to my taste")
            yield chunk
