"""Tasks that tests run: in a module of its own, so that they are shipped by name."""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from flowos.flowlet import Task


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
