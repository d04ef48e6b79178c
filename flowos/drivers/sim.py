"""A driver of simulated devices: steps take configured times and fail with configured chances."""

import heapq
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf

from flowos.drivers.step import Finished, Standing, Step, Verb
from flowos.drivers.table import Table

# A second of real hardware is minutes of a demonstration: these are scaled to be watched.
DEMO_SECONDS: Mapping[Verb, float] = {
    Verb.POWER_ON: 0.5,
    Verb.POWER_OFF: 0.1,
    Verb.LOAD: 0.8,
    Verb.CONNECT: 0.05,
    Verb.STOP: 0.05,
    Verb.DISCONNECT: 0.02,
    Verb.SCRUB: 0.1,
}
COMMAND_SECONDS = 1.0  # what a command takes that is only simulated


@dataclass(frozen=True, slots=True)
class SimSettings:
    """How simulated devices behave.

    Attributes:
        seconds: How long each verb takes; RUN takes what the order says.
        jitter: Times vary by up to this fraction either way.
        failures: The chance that a verb fails, 0..1.
    """

    seconds: Mapping[Verb, float] = field(default_factory=dict)
    jitter: float = 0.0
    failures: Mapping[Verb, float] = field(default_factory=dict)


class SimDriver:
    """Devices that exist only as a queue of what ends when."""

    def __init__(self, settings: SimSettings, seed: int = 0) -> None:
        """Start with nothing under way."""
        self._settings = settings
        self._random = random.Random(seed)  # simulated failures and jitter
        self._ends: list[tuple[float, int, Step]] = []
        self._count = 0
        # (place, attempt) -> the number of the RUN under way, and when it ends by itself
        self._runs: dict[tuple[str, str], tuple[int, float]] = {}
        self._table = Table()
        self._refused: dict[int, str] = {}  # the number of a step that can't be -> why
        self._ending: set[int] = set()  # the numbers of STOPs whose tasks still go on

    def begin(self, step: Step, now: float) -> None:
        """Queue the step's end."""
        key = (step.place, step.attempt)
        self._count += 1
        ends = now + self._takes(step)
        if step.verb is Verb.STOP:
            goes_on = 0.0
            for stopped in self._table.stopped_by(step, self._runs):
                if stopped not in self._runs:
                    continue
                _, by_itself = self._runs.pop(stopped)
                goes_on = max(goes_on, min(step.graces.get(stopped[1], 0.0), by_itself - now))
            if goes_on:
                self._ending.add(self._count)
            ends += goes_on
        elif step.verb is Verb.RUN:
            self._runs[key] = self._count, ends
        busy = self._table.in_the_way(step)
        if busy:
            self._refused[self._count] = busy
        else:
            self._table.begun(step)
            if step.verb is Verb.STOP and self._count not in self._ending:
                self._table.stopped(step)
        heapq.heappush(self._ends, (ends, self._count, step))

    def finished(self, now: float) -> list[Finished]:
        """Return what has ended by now."""
        found: list[Finished] = []
        while self._ends and self._ends[0][0] <= now:
            _, count, step = heapq.heappop(self._ends)
            if step.verb is Verb.RUN:
                if self._runs.get((step.place, step.attempt), (0,))[0] != count:
                    continue  # stopped since
                del self._runs[step.place, step.attempt]
            chance = self._settings.failures.get(step.verb, 0.0)
            failed = bool(chance) and self._random.random() < chance
            refused = self._refused.pop(count, "")
            if refused:
                found.append(Finished(step, error=refused))
                continue
            if step.verb is Verb.RUN:
                found.append(Finished(step, exit_code=int(failed)))
                self._table.ended(step, int(failed))
            elif failed:
                found.append(
                    Finished(step, error=f"simulated failure to {step.verb} {step.subject}")
                )
            else:
                if count in self._ending:
                    self._ending.discard(count)
                    self._table.stopped(step)
                self._table.torn_down(step)
                found.append(Finished(step))
        return found

    def next_at(self) -> float:
        """Return when the next step ends."""
        return self._ends[0][0] if self._ends else inf

    def standing(self) -> list[Standing]:
        """Return what steps have put up and none has torn down."""
        return list(self._table.up.values())

    def close(self) -> None:
        """Forget everything."""
        self._ends.clear()
        self._runs.clear()
        self._table.up.clear()
        self._refused.clear()
        self._ending.clear()

    def _takes(self, step: Step) -> float:
        if step.verb is Verb.RUN:
            return step.order.run.for_seconds or COMMAND_SECONDS
        seconds = self._settings.seconds.get(step.verb, 0.0)
        if seconds and self._settings.jitter:
            seconds *= 1 + self._settings.jitter * self._random.uniform(-1, 1)
        return seconds
