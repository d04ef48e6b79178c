"""What are simulated devices used for, and does anybody use what somebody else holds?"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from flowos.drivers.sim import SimDriver, SimSettings
from flowos.drivers.step import Finished, Step, Verb

USES: Final = frozenset({Verb.POWER_ON, Verb.LOAD, Verb.CONNECT, Verb.RUN})


@dataclass
class Devices:
    """What drivers were told to do, and who uses which engine because of it."""

    steps: list[tuple[float, Step]] = field(default_factory=list)
    users: dict[str, set[tuple[str, str]]] = field(default_factory=lambda: defaultdict(set))

    def begin(self, step: Step, now: float) -> None:
        """Note that a step began."""
        self.steps.append((now, step))
        if step.verb is Verb.POWER_OFF:
            assert not self.users[step.subject], f"{step.subject} loses power in use"
        if step.verb in USES:
            for engine, kind in _engines(step):
                self.users[engine].add((kind, step.attempt))

    def finish(self, finished: Finished) -> None:
        """Note that a step ended."""
        step = finished.step
        if step.verb is Verb.SCRUB and not finished.error:
            self.users[step.subject] = {
                user for user in self.users[step.subject] if user[1] != step.attempt
            }

    def forget(self, places: Iterable[str]) -> None:
        """What a dead agent's simulated devices did is gone with it."""
        for engine in list(self.users):
            if engine.partition("/")[0] in places:
                del self.users[engine]

    def verbs(self, attempt: str = "", place: str = "") -> list[str]:
        """Return the steps so far, e.g. "load n0/fpga0"."""
        return [
            f"{step.verb} {step.subject}".strip()
            for _, step in self.steps
            if step.attempt.startswith(attempt) and step.place.startswith(place)
        ]

    def check(self, claims: Collection[str]) -> None:
        """No engine has two users, unless they share it; and none is used that nobody holds.

        Args:
            claims: The keys of all claims, below "claim/".

        Raises:
            AssertionError: Names the engine and its users.
        """
        for engine, users in self.users.items():
            kinds = {kind for kind, _ in users}
            assert len(users) < 2 or kinds == {"share"}, f"{engine} is used by {sorted(users)}"
            for _, attempt in sorted(users):
                held = f"engine/{engine}" in claims
                part = f"share/{engine}/{attempt}" in claims
                assert held or part, f"{engine} is free but still used for {attempt}"


def _engines(step: Step) -> Iterator[tuple[str, str]]:
    for unit in step.order.units:
        kind, _, engine = unit.partition("/")
        if kind in ("engine", "share") and step.subject in ("", engine):
            yield engine, kind


class Bench:
    """A simulated driver whose steps are on record, and may be told to fail."""

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

    def close(self) -> None:
        """Forget everything."""
        self.inner.close()
