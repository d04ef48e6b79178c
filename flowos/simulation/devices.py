"""What are simulated devices used for, and does anybody use what somebody else holds?

Devices outlive the agents that act on them: what a dead agent has put up stays up, runs, and is in
the way until somebody tears it down.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Final

from flowos.drivers.sim import SimDriver, SimSettings
from flowos.drivers.step import Finished, Standing, Step, Verb
from flowos.model.units import is_laid

USES: Final = frozenset({Verb.POWER_ON, Verb.LOAD, Verb.CONNECT, Verb.RUN})


@dataclass
class Devices:
    """What drivers were told to do, and who uses what because of it.

    Attributes:
        steps: All that began, with the moment.
        users: Engine -> who uses it: ("engine" or "share", attempt).
        lit: (place, lane or aggregator) -> the attempts that it is connected for there.
        running: (place, attempt) of tasks that run.
        used: Whether anything was ever done to any of them.
    """

    steps: list[tuple[float, Step]] = field(default_factory=list)
    users: dict[str, set[tuple[str, str]]] = field(default_factory=lambda: defaultdict(set))
    lit: dict[tuple[str, str], set[str]] = field(default_factory=lambda: defaultdict(set))
    running: set[tuple[str, str]] = field(default_factory=set)
    used: bool = False

    def begin(self, step: Step, now: float) -> None:
        """Note that a step began."""
        self.steps.append((now, step))
        self.used = True
        if step.verb is Verb.POWER_OFF:
            assert not self.users[step.subject], f"{step.subject} loses power in use"
        if step.verb in USES:
            for engine, kind in _engines(step):
                self.users[engine].add((kind, step.attempt))
        if step.verb is Verb.RUN:
            self.running.add((step.place, step.attempt))
        if step.verb is Verb.CONNECT:
            for unit in step.order.units:
                if is_laid(unit):
                    self.lit[step.place, unit].add(step.attempt)

    def finish(self, finished: Finished) -> None:
        """Note that a step ended."""
        step = finished.step
        if finished.error:
            return
        match step.verb:
            case Verb.RUN:
                self.running.discard((step.place, step.attempt))
            case Verb.STOP:
                self.running = {
                    (place, attempt)
                    for place, attempt in self.running
                    if place != step.place or self._runs_on(step, attempt)
                }
            case Verb.DISCONNECT:
                for (place, lane), attempts in list(self.lit.items()):
                    if place == step.place:
                        self._keep_lit(place, lane, {a for a in attempts if _stays(step, a, lane)})
            case Verb.SCRUB:
                self._scrub(step)
            case _:
                pass

    def _runs_on(self, step: Step, attempt: str) -> bool:
        """Whether tasks outlast a stop: in a sweep, those whose engines all stay."""
        return all(
            _stays(step, attempt, f"{kind}/{engine}")
            for engine, users in self.users.items()
            if engine.partition("/")[0] == step.place
            for kind, user in users
            if user == attempt
        )

    def _scrub(self, step: Step) -> None:
        whole_place = [] if step.subject else list(self.users)
        here = [e for e in whole_place if e.partition("/")[0] == step.place]
        for engine in [step.subject] if step.subject else here:
            left = {
                (kind, attempt)
                for kind, attempt in self.users[engine]
                if _stays(step, attempt, f"{kind}/{engine}")
            }
            for _, attempt in sorted(self.users[engine] - left):
                runs = (step.place, attempt) in self.running
                assert not runs, f"{engine} is scrubbed while tasks of {attempt} run on it"
            self.users[engine] = left

    def _keep_lit(self, place: str, lane: str, attempts: set[str]) -> None:
        if attempts:
            self.lit[place, lane] = attempts
        else:
            del self.lit[place, lane]

    def verbs(self, attempt: str = "", place: str = "") -> list[str]:
        """Return the steps so far, e.g. "load n0/fpga0"."""
        return [
            f"{step.verb} {step.subject}".strip()
            for _, step in self.steps
            if step.attempt.startswith(attempt) and step.place.startswith(place)
        ]

    def check(self, claims: Collection[str]) -> None:
        """Nothing has two users, unless they share it; nothing is used that nobody holds.

        Args:
            claims: The keys of all claims, below "claim/".

        Raises:
            AssertionError: Names the engine, lane or aggregator and its users.
        """
        for (place, lane), attempts in self.lit.items():
            assert len(attempts) < 2, f"{lane} is lit at {place} for {sorted(attempts)}"
            merges = lane.startswith("aggregator/")
            assert not merges or lane in claims, f"{lane} is free but still used for {attempts}"
        for engine, users in self.users.items():
            kinds = {kind for kind, _ in users}
            assert len(users) < 2 or kinds == {"share"}, f"{engine} is used by {sorted(users)}"
            for _, attempt in sorted(users):
                held = f"engine/{engine}" in claims
                # Whoever took its part over, of the same engine, waits for it.
                part = any(key.startswith(f"share/{engine}/") for key in claims)
                assert held or part, f"{engine} is free but still used for {attempt}"


def _stays(step: Step, attempt: str, unit: str) -> bool:
    """Whether a step that tears down leaves a unit alone that is up for an attempt."""
    if step.attempt and attempt != step.attempt:
        return True
    return attempt in step.keep and unit in step.keep[attempt].units


def _engines(step: Step) -> Iterator[tuple[str, str]]:
    for unit in step.order.units:
        kind, _, engine = unit.partition("/")
        if kind in ("engine", "share") and step.subject in ("", engine):
            yield engine, kind


class Bench:
    """A simulated driver whose steps are on record, and may be told to fail.

    It knows what is up only while nothing ever was: its successor has to look after the rest.
    """

    def __init__(self, devices: Devices, settings: SimSettings, seed: int = 0) -> None:
        """Use devices that others may look at."""
        self.inner = SimDriver(settings, seed)
        self.devices = devices
        self.failing: dict[tuple[Verb, str], int] = {}  # (verb, subject) -> how often; -1 = always
        self.exit_codes: dict[str, int] = {}  # place -> what its tasks end with

    def begin(self, step: Step, now: float) -> None:
        """Start a step."""
        self.devices.begin(step, now)
        self.inner.begin(step, now)

    def finished(self, now: float) -> list[Finished]:
        """Return what has ended by now."""
        found = [self._meant(finished) for finished in self.inner.finished(now)]
        for finished in found:
            self.devices.finish(finished)
        return found

    def _meant(self, finished: Finished) -> Finished:
        step = finished.step
        left = self.failing.get((step.verb, step.subject), 0)
        if left:
            self.failing[step.verb, step.subject] = left - 1
            return Finished(step, error=f"no {step.verb} of {step.subject}")
        if step.verb is Verb.RUN and step.place in self.exit_codes:
            return Finished(step, exit_code=self.exit_codes[step.place])
        return finished

    def next_at(self) -> float:
        """Return when the next step ends."""
        return self.inner.next_at()

    def standing(self) -> list[Standing] | None:
        """Say that nothing is up at devices that were never used; else that it does not know."""
        return None if self.devices.used else []

    def close(self) -> None:
        """Forget everything."""
        self.inner.close()
