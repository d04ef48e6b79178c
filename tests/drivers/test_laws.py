"""Do all drivers keep the laws that agents rely on, and do the laws see who does not?"""

import contextlib
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from flowos.drivers.local.devices import Device
from flowos.drivers.local.driver import LocalDriver
from flowos.drivers.sim import SimDriver, SimSettings
from flowos.drivers.step import Driver, Finished, Standing, Step, Verb
from flowos.model.slice import Run
from flowos.testing.drivers import LAWS, Bench, DriverLaws, check_driver

SIMULATED = Bench(
    make=lambda: SimDriver(SimSettings({Verb.STOP: 0.5, Verb.SCRUB: 1.0, Verb.CONNECT: 0.25})),
    goes_on=Run(for_seconds=1e9),
    ends=((Run(for_seconds=5.0), 0), (Run(command=("true",)), 0)),
    begins_at=lambda: 0.0,
    wait=lambda until: until,
)
FAILING = replace(
    SIMULATED,
    make=lambda: SimDriver(SimSettings(failures={Verb.RUN: 1.0})),
    ends=((Run(for_seconds=5.0), 1),),
)
DEVICES = {e: Device(e, "cpu", "any", 2**30) for e in ("n0/cpu0", "n0/cpu1")}


def shell(script: str) -> Run:
    return Run(command=("sh", "-c", script))


class InFolder(LocalDriver):
    """A driver with a folder that goes with it."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="flowos-laws-")
        super().__init__(Path(self.folder.name), DEVICES)


def clean(driver: Driver) -> None:
    """End what runs, also of a driver that was closed, and so has forgotten it."""
    assert isinstance(driver, InFolder)
    driver.stop_all()
    LocalDriver(Path(driver.folder.name), DEVICES).stop_all()
    driver.folder.cleanup()


LOCAL = Bench(
    make=InFolder,
    goes_on=shell("trap '' TERM; while :; do sleep 1000; done"),
    ends=((shell("exit 0"), 0), (shell("exit 3"), 3), (shell("kill -9 $$"), 137)),
    clean=clean,
)


class TestSimulated(DriverLaws):
    bench = SIMULATED


class TestFailing(DriverLaws):
    bench = FAILING


class TestLocal(DriverLaws):
    bench = LOCAL


# ------------------------------------------------------------------- drivers that break a law


class Blocking(SimDriver):
    def begin(self, step: Step, now: float) -> None:
        if step.verb is Verb.STOP and step.graces:
            raise TimeoutError("stands for a call that does not come back")
        super().begin(step, now)


class TellsTwice(SimDriver):
    def finished(self, now: float) -> list[Finished]:
        return [f for f in super().finished(now) for _ in range(1 + (f.step.verb is Verb.SCRUB))]


class TellsNoCode(SimDriver):
    def finished(self, now: float) -> list[Finished]:
        return [replace(f, exit_code=7) for f in super().finished(now)]


class TellsWhatItStopped(SimDriver):
    def begin(self, step: Step, now: float) -> None:
        stopped = [k for k in self._table.stopped_by(step, self._runs) if k in self._runs]
        super().begin(step, now)
        self._told = [
            Finished(Step(*key, Verb.RUN, "", self._table.up[key].order), exit_code=143)
            for key in stopped
            if step.verb is Verb.STOP
        ]

    def finished(self, now: float) -> list[Finished]:
        told, self._told = getattr(self, "_told", []), []
        return [*super().finished(now), *told]


class NeverStops(SimDriver):
    """Whose STOP of what is over is never told."""

    def finished(self, now: float) -> list[Finished]:
        return [f for f in super().finished(now) if not f.step.attempt.startswith("nobody")]


class RunsOnce(SimDriver):
    def __init__(self, settings: SimSettings) -> None:
        super().__init__(settings)
        self._ran: set[str] = set()

    def begin(self, step: Step, now: float) -> None:
        if step.verb is Verb.RUN:
            if step.attempt in self._ran:
                return
            self._ran.add(step.attempt)
        super().begin(step, now)


class LeavesIt(SimDriver):
    def standing(self) -> list[Standing]:
        for there in super().standing():
            self._table.up.setdefault((f"{there.place}-", there.attempt), there)
        return super().standing()


class Darkens(SimDriver):
    def begin(self, step: Step, now: float) -> None:
        super().begin(replace(step, keep={}) if step.verb is Verb.DISCONNECT else step, now)


class MergesForAll(SimDriver):
    def begin(self, step: Step, now: float) -> None:
        super().begin(step, now)
        self._refused.clear()


class SweepsNothing(SimDriver):
    def begin(self, step: Step, now: float) -> None:
        super().begin(step if step.attempt else replace(step, attempt="nobody at all"), now)


class SparesNobody(SimDriver):
    def begin(self, step: Step, now: float) -> None:
        super().begin(step if step.attempt else replace(step, keep={}), now)


class SparesAPart(SimDriver):
    def begin(self, step: Step, now: float) -> None:
        if not step.attempt:
            keep = {a: t.order for (_, a), t in self._table.up.items() if a in step.keep}
            step = replace(step, keep=keep)
        super().begin(step, now)


class WantsToBeLookedAt(SimDriver):
    def next_at(self) -> float:
        return 0.0 if not self._ends else super().next_at()


class TalksOn(SimDriver):
    def close(self) -> None:
        pass


WRONG: dict[str, Callable[[SimSettings], SimDriver]] = {
    "blocks_nobody": Blocking,
    "finishes_once": TellsTwice,
    "tells_exit_codes": TellsNoCode,
    "stops_silently": TellsWhatItStopped,
    "stops_what_is_over": NeverStops,
    "runs_again": RunsOnce,
    "leaves_nothing": LeavesIt,
    "keeps_what_stays_lit": Darkens,
    "merges_for_one": MergesForAll,
    "sweeps_all": SweepsNothing,
    "sweep_spares": SparesNobody,
    "sweeps_a_part": SparesAPart,
    "says_when": WantsToBeLookedAt,
    "is_silent_when_closed": TalksOn,
}


def test_each_law_has_a_driver_that_breaks_it():
    assert {*WRONG} == {*LAWS}


@pytest.mark.parametrize("law", list(WRONG))
def test_a_law_is_seen_to_be_broken(law):
    kind = WRONG[law]
    broken = check_driver(replace(SIMULATED, make=lambda: kind(SimSettings({Verb.SCRUB: 0.5}))))
    assert law in [one.law for one in broken]
    assert all(LAWS[one.law][0] in str(one) for one in broken)


def test_a_call_that_does_not_come_back_is_seen():
    class Hangs(SimDriver):
        def begin(self, step: Step, now: float) -> None:
            with contextlib.suppress(KeyboardInterrupt):
                gate.wait()

    import threading

    gate = threading.Event()
    bench = replace(SIMULATED, make=lambda: Hangs(SimSettings()), patience_seconds=0.05)
    try:
        broken = {one.law: one.what for one in check_driver(bench)}
    finally:
        gate.set()
    assert "begin of run had not returned after 0.05 s" in broken["blocks_nobody"]


def test_who_keeps_all_laws_breaks_none():
    assert check_driver(SIMULATED) == []
