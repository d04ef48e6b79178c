"""How is the driver of this machine driven in tests? As an agent does, by hand, in real time."""

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from flowos.drivers.local.devices import Device
from flowos.drivers.local.driver import LocalDriver
from flowos.drivers.step import Finished, Standing, Step, Verb
from flowos.model.placement import Gang, Joined, Order
from flowos.model.slice import Run

NODE = "n0"
# Attempts have names that nobody else has, also where these tests run twice at a time.
A, B = f"a{os.getpid()}", f"b{os.getpid()}"
PATIENCE_SECONDS = 60.0  # on a busy machine
CORES = sorted(os.sched_getaffinity(0))
DEVICES = {
    f"{NODE}/cpu{number}": Device(
        f"{NODE}/cpu{number}", "cpu", "any", 2**30, (CORES[number % len(CORES)],)
    )
    for number in range(4)
}


def shell(script: str, **more: Any) -> Run:
    """A command of a shell."""
    return Run(command=("sh", "-c", script), **more)


def soon(holds: Callable[[], object], what: str) -> None:
    """Wait until it holds, as others make it hold."""
    limit = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < limit, f"{what} did not come to be"
        time.sleep(0.005)


def lives(pid: int) -> bool:
    """Whether a process is there, and not just its remains."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def order(
    run: Run,
    *roles: tuple[str, tuple[int, ...]],
    circuits: tuple[Joined, ...] = (),
    addresses: Mapping[str, str] | None = None,
    name: str = "default/t",
) -> Order:
    """Return the order of a slice: a role each, with these CPUs of the node."""
    engines = {role: tuple(f"{NODE}/cpu{n}" for n in cpus) for role, cpus in roles or ONE}
    every = [engine for group in engines.values() for engine in group]
    return Order(
        name,
        units=tuple(f"engine/{engine}" for engine in every),
        tasks={engine: rank for rank, engine in enumerate(every)},
        run=run,
        gang=Gang(engines=engines, circuits=circuits, addresses=addresses or {}),
    )


ONE = (("w", (0,)),)
TWO = ("w", (0, 1))


class Local:
    """A driver in a folder, and what it tells."""

    def __init__(self, folder: Path, devices: Mapping[str, Device] = DEVICES) -> None:
        self.folder = folder
        self.devices = devices
        self.driver = LocalDriver(folder, devices)
        self.told: list[Finished] = []

    def again(self) -> None:
        """End the driver, as with its agent, and let the next one begin."""
        self.driver.close()
        self.driver = LocalDriver(self.folder, self.devices)

    def close(self) -> None:
        """End everything."""
        self.driver.stop_all()

    # -- steps

    def begin(self, verb: Verb, order: Order, attempt: str = A, subject: str = "") -> Step:
        step = Step(NODE, attempt, verb, subject, order)
        self.driver.begin(step, time.monotonic())
        return step

    def did(self, step: Step) -> Finished:
        """See a step to its end."""
        soon(lambda: self.look(step), f"the end of {step.verb}")
        return next(finished for finished in self.told if finished.step == step)

    def look(self, step: Step) -> bool:
        """Take what there is to tell; return whether the end of a step was told."""
        self.told += self.driver.finished(time.monotonic())
        return any(finished.step == step for finished in self.told)

    def run(self, order: Order, attempt: str = A) -> int:
        """Run tasks to their own end; return the exit code."""
        finished = self.did(self.begin(Verb.RUN, order, attempt))
        assert not finished.error
        return finished.exit_code

    def stop(self, order: Order, attempt: str = A, grace: float = 0.0) -> None:
        """Stop tasks, and see them ended."""
        step = replace(Step(NODE, attempt, Verb.STOP, "", order), graces={attempt: grace})
        self.driver.begin(step, time.monotonic())
        assert not self.did(step).error

    def scrub(self, order: Order, attempt: str = A) -> None:
        """Scrub all engines of an order."""
        for unit in order.units:
            self.did(self.begin(Verb.SCRUB, order, attempt, unit.partition("/")[2]))

    def standing(self) -> Standing:
        """What is up, which is one thing."""
        (there,) = self.driver.standing()
        return there

    # -- files

    def at(self, attempt: str = A, name: str = "default/t") -> Path:
        """The folder of an attempt."""
        return self.folder / "slices" / name / attempt

    def log(self, rank: int = 0, attempt: str = A) -> str:
        return (self.at(attempt) / f"rank-{rank}.log").read_text()

    def says(self, what: str, rank: int = 0, attempt: str = A) -> bool:
        """Whether a task has said something by now."""
        path = self.at(attempt) / f"rank-{rank}.log"
        return path.exists() and what in path.read_text()

    def environment(self, rank: int = 0, attempt: str = A) -> dict[str, str]:
        """What a task that ran `SHOW` found in its environment."""
        found: dict[str, str] = json.loads(self.log(rank, attempt))
        return found


SHOW = Run(command=("python", "-c", "import json, os; print(json.dumps(dict(os.environ)))"))
