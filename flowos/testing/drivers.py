"""Does a driver keep the laws that agents rely on?

In a driver's own tests, with pytest:

    from flowos.testing.drivers import Bench, DriverLaws

    class TestBoards(DriverLaws):
        bench = Bench(make=Boards, goes_on=Run(command=("idle",)), ends=((Run(command=("t",)), 0),))

Each law is a test there, tried on a driver of its own. `check_driver` is the same for programs.
"""

import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import inf
from typing import ClassVar, Final, TypeVar

from flowos.drivers.step import Driver, Finished, Remembering, Standing, Step, Verb
from flowos.model.placement import Arc, Gang, Order, Turn
from flowos.model.slice import Run
from flowos.testing.schedulers import Broken

T = TypeVar("T")

LOOK_SECONDS: Final = 0.05  # how often a driver is looked at that does not know when
LONG_SECONDS: Final = 1e6  # a grace that no test waits for


class Unlawful(AssertionError):
    """A driver did what agents do not expect; the message says what."""


def real_wait(until: float) -> float:
    """Wait until a monotonic second, or a moment if that is later; return which it is then."""
    time.sleep(max(0.0, min(until - time.monotonic(), LOOK_SECONDS)))
    return time.monotonic()


@dataclass(frozen=True, slots=True)
class Bench:
    """What a driver is tried on.

    Attributes:
        make: Gives a driver of devices of which nothing is up.
        goes_on: What runs until it is stopped, in spite of being told to end if it can be.
        ends: What runs and ends by itself, each with its exit code.
        clean: Ends what a law that broke may have left.
        node: A place with at least two engines.
        engines: These.
        switch: A place with at least one aggregator.
        begins_at: The driver's first second.
        wait: Lets time pass: told until when, it returns which second it is then, if only a moment
            later. A driver of simulated time is simply told `lambda until: until`.
        patience_seconds: How long a step that does end may take, and how long a call may take that
            does not block: on a busy machine.
    """

    make: Callable[[], Driver]
    goes_on: Run
    ends: tuple[tuple[Run, int], ...]
    clean: Callable[[Driver], None] = lambda driver: driver.close()
    node: str = "n0"
    engines: tuple[str, str] = ("n0/cpu0", "n0/cpu1")
    switch: str = "s0"
    begins_at: Callable[[], float] = time.monotonic
    wait: Callable[[float], float] = real_wait
    patience_seconds: float = 60.0


@dataclass(slots=True)
class _Trial:
    """One driver, as an agent would drive it."""

    bench: Bench
    driver: Driver
    now: float
    told: list[Finished] = field(default_factory=list)
    mark: str = field(default_factory=lambda: uuid.uuid4().hex[:8])

    # -- steps

    def attempt(self, name: str) -> str:
        """Return an attempt that nobody else has, also where laws are tried twice at a time."""
        return f"{name}-{self.mark}"

    def order(self, engine: int = 0, run: Run | None = None, *, lanes: int = 1) -> Order:
        """Return an order of an engine and its lanes, to and from the switch."""
        name = self.bench.engines[engine]
        return Order(
            "default/laws",
            units=(f"engine/{name}", *(f"lane/l{engine}/fwd/{lane}" for lane in range(lanes))),
            tasks={name: 0},
            run=run or self.bench.goes_on,
            gang=Gang(engines={"w": (name,)}),
        )

    def merging(self) -> Order:
        """Return an order of a switch that merges two streams."""
        into, other, out = (Arc(f"l{n}", way, (0,)) for n, way in enumerate(("fwd", "fwd", "rev")))
        unit = f"aggregator/{self.bench.switch}/0"
        turn = Turn(
            "default/laws/0", into, (out,), merged=(other,), aggregator=unit, function="sum"
        )
        return Order("default/laws", units=(unit,), crossbar=(turn,))

    def step(self, verb: Verb, attempt: str, order: Order, subject: str = "") -> Step:
        """Return a step at the place that the order is for."""
        place = self.bench.switch if order.crossbar else self.bench.node
        return Step(place, self.attempt(attempt), verb, subject, order)

    def sweep(self, verb: Verb, **keep: Order) -> Step:
        """Return a part of a sweep of the node."""
        kept = {self.attempt(name): order for name, order in keep.items()}
        return Step(self.bench.node, "", verb, "", Order(""), keep=kept)

    def begin(self, step: Step) -> Step:
        """Begin a step; it has to return."""
        self._at_once(f"begin of {step.verb}", lambda: self.driver.begin(step, self.now))
        return step

    def did(self, step: Step) -> Finished:
        """Begin a step and see it to its end."""
        self.begin(step)
        return self.until(step)

    def did_well(self, step: Step) -> None:
        """The same, of a step that has no reason to fail."""
        error = self.did(step).error
        expect(not error, f"{step.verb} of {step.attempt or 'a sweep'} was not done: {error}")

    # -- time

    def until(self, step: Step) -> Finished:
        """Wait until it is told how a step has ended."""
        limit = self.now + self.bench.patience_seconds
        while True:
            self.look()
            for finished in self.told:
                if finished.step == step:
                    return finished
            expect(
                self.now <= limit,
                f"{step.verb} had not ended after {self.bench.patience_seconds:g} s",
            )
            self._pass()

    def rest(self) -> None:
        """Let pass what time may still bring something."""
        limit = self.now + self.bench.patience_seconds
        for _ in range(10):
            self.look()
            if self.now > limit or self.next_at() > limit:
                break
            self._pass()

    def look(self) -> None:
        """Take what the driver has to tell."""
        self.told += self._at_once("finished", lambda: self.driver.finished(self.now))

    def next_at(self) -> float:
        """Return when the driver wants to be looked at."""
        return self._at_once("next_at", self.driver.next_at)

    def _pass(self) -> None:
        later = self.next_at()
        until = later if later < inf else self.now + LOOK_SECONDS
        self.now = max(self.now, self.bench.wait(until))

    def _at_once(self, what: str, call: Callable[[], T]) -> T:
        """Return what a call returns, which has to return while all else goes on."""
        answers: list[T] = []
        bugs: list[Exception] = []

        def ask() -> None:
            try:
                answers.append(call())
            except Exception as bug:  # noqa: BLE001  # anybody's code: whatever it does
                bugs.append(bug)

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        thread.join(self.bench.patience_seconds)
        if bugs:
            raise Unlawful(f"{what} raised {type(bugs[0]).__name__}: {bugs[0]}") from bugs[0]
        if not answers:
            raise Unlawful(f"{what} had not returned after {self.bench.patience_seconds:g} s")
        return answers[0]

    # -- what is known of it

    def count(self, step: Step) -> int:
        """Return how often the end of a step was told."""
        return sum(finished.step == step for finished in self.told)

    def standing(self, attempt: str) -> list[Standing] | None:
        """Return what is up for an attempt; None = this driver does not tell."""
        if not isinstance(self.driver, Remembering):
            return None
        there = self.driver.standing()
        return (
            None
            if there is None
            else [one for one in there if one.attempt == self.attempt(attempt)]
        )

    def expect_up(self, attempt: str, *, running: bool, when: str) -> Standing | None:
        """Look whether one thing is up for an attempt, if the driver tells; return it."""
        there = self.standing(attempt)
        if there is None:
            return None
        expect(len(there) == 1, f"standing names {attempt} {len(there)} times {when}, not once")
        expect(
            there[0].running == running,
            f"standing says that {attempt} {'runs' if there[0].running else 'does not run'} {when}",
        )
        return there[0]

    def expect_gone(self, attempt: str, *, when: str) -> None:
        """Look whether nothing is up for an attempt, if the driver tells."""
        there = self.standing(attempt)
        expect(not there, f"standing names {there} {when}")


def expect(holds: bool, otherwise: str) -> None:
    """Go on if it holds.

    Raises:
        Unlawful: It does not; in these words.
    """
    if not holds:
        raise Unlawful(otherwise)


# ------------------------------------------------------------------------------------ the laws


def _blocks_nobody(trial: _Trial) -> None:
    run = trial.begin(trial.step(Verb.RUN, "a", trial.order()))
    trial.look()
    expect(not trial.count(run), "what goes on until it is stopped has ended")
    trial.expect_up("a", running=True, when="while its tasks run")
    stop = replace(
        trial.step(Verb.STOP, "a", trial.order()), graces={trial.attempt("a"): LONG_SECONDS}
    )
    trial.begin(stop)
    trial.look()


def _finishes_once(trial: _Trial) -> None:
    order, begun = trial.order(run=trial.bench.ends[0][0]), []
    engine = trial.bench.engines[0]
    for verb, subject in (
        (Verb.POWER_ON, engine),
        (Verb.CONNECT, ""),
        (Verb.RUN, ""),
        (Verb.STOP, ""),
        (Verb.DISCONNECT, ""),
        (Verb.SCRUB, engine),
    ):
        begun.append(trial.step(verb, "a", order, subject))
        trial.did(begun[-1])
    trial.rest()
    for step in begun:
        expect(trial.count(step) == 1, f"{step.verb} was told {trial.count(step)} times")
    for finished in trial.told:
        expect(finished.step in begun, f"{finished.step.verb} was told, and never asked for")


def _tells_exit_codes(trial: _Trial) -> None:
    for number, (run, code) in enumerate(trial.bench.ends):
        attempt = f"a{number}"
        step = trial.step(Verb.RUN, attempt, trial.order(run=run))
        finished = trial.did(step)
        expect(not finished.error, f"{run} is told with an error: {finished.error}")
        expect(finished.exit_code == code, f"{run} is told as {finished.exit_code}, not {code}")
        there = trial.expect_up(attempt, running=False, when="after its tasks have ended")
        if there is not None:
            expect(there.exit_code == code, f"standing says {there.exit_code}, not {code}")


def _stops_silently(trial: _Trial) -> None:
    run = trial.begin(trial.step(Verb.RUN, "a", trial.order()))
    other = trial.begin(trial.step(Verb.RUN, "b", trial.order(1)))
    trial.did_well(trial.step(Verb.STOP, "a", trial.order()))
    trial.expect_up("a", running=False, when="after a STOP")
    trial.rest()
    expect(not trial.count(run), "a RUN was told that a STOP has ended")
    expect(not trial.count(other), "a STOP of one attempt has ended another")
    trial.expect_up("b", running=True, when="after a STOP of another")


def _stops_what_is_over(trial: _Trial) -> None:
    trial.did_well(trial.step(Verb.STOP, "nobody", trial.order()))
    run, code = trial.bench.ends[0]
    ran = trial.step(Verb.RUN, "a", trial.order(run=run))
    expect(trial.did(ran).exit_code == code, "it ended otherwise than it does")
    trial.did_well(trial.step(Verb.STOP, "a", trial.order(run=run)))
    trial.rest()
    expect(trial.count(ran) == 1, f"the RUN was told {trial.count(ran)} times")


def _runs_again(trial: _Trial) -> None:
    run, code = trial.bench.ends[0]
    trial.begin(trial.step(Verb.RUN, "a", trial.order()))
    trial.did_well(trial.step(Verb.STOP, "a", trial.order()))
    again = trial.did(trial.step(Verb.RUN, "a", trial.order(run=run)))
    expect(again.exit_code == code, f"run again, it is told as {again.exit_code}, not {code}")


def _leaves_nothing(trial: _Trial) -> None:
    order = trial.order()
    trial.did_well(trial.step(Verb.POWER_ON, "a", order, trial.bench.engines[0]))
    trial.did_well(trial.step(Verb.CONNECT, "a", order))
    trial.begin(trial.step(Verb.RUN, "a", order))
    trial.did_well(trial.step(Verb.STOP, "a", order))
    trial.did_well(trial.step(Verb.DISCONNECT, "a", order))
    there = trial.expect_up("a", running=False, when="before its engine is scrubbed")
    if there is not None:
        expect(there.order.units == order.units[:1], f"after DISCONNECT, up is {there.order.units}")
    trial.did_well(trial.step(Verb.SCRUB, "a", order, trial.bench.engines[0]))
    trial.expect_gone("a", when="after its last unit was scrubbed")


def _keeps_what_stays_lit(trial: _Trial) -> None:
    order, less = trial.order(lanes=3), trial.order(lanes=1)
    trial.did_well(trial.step(Verb.CONNECT, "a", order))
    trial.did_well(
        replace(trial.step(Verb.DISCONNECT, "a", order), keep={trial.attempt("a"): less})
    )
    there = trial.expect_up("a", running=False, when="after a part of it was disconnected")
    if there is not None:
        expect({*there.order.units} == {*less.units}, f"up is {there.order.units}")


def _merges_for_one(trial: _Trial) -> None:
    order = trial.merging()
    trial.did_well(trial.step(Verb.CONNECT, "a", order))
    trial.did_well(trial.step(Verb.CONNECT, "a", order))  # its own may be laid anew
    refused = trial.did(trial.step(Verb.CONNECT, "b", order)).error
    expect(bool(refused.strip()), "an aggregator that merges for one attempt was given to another")
    trial.expect_gone("b", when="though its CONNECT was refused")
    trial.did_well(trial.step(Verb.DISCONNECT, "a", order))
    trial.expect_gone("a", when="after its only unit was disconnected")
    trial.did_well(trial.step(Verb.CONNECT, "c", order))


def _sweeps_all(trial: _Trial) -> None:
    ran = [trial.begin(trial.step(Verb.RUN, name, trial.order(n))) for n, name in enumerate("ab")]
    for verb in (Verb.STOP, Verb.DISCONNECT, Verb.SCRUB):
        trial.did_well(trial.sweep(verb))
    trial.rest()
    for step, name in zip(ran, "ab", strict=True):
        expect(not trial.count(step), "a sweep has stopped a RUN, and told its end")
        trial.expect_gone(name, when="after a sweep that keeps nothing")


def _sweep_spares(trial: _Trial) -> None:
    swept = trial.begin(trial.step(Verb.RUN, "a", trial.order()))
    spared = trial.begin(trial.step(Verb.RUN, "b", trial.order(1)))
    for verb in (Verb.STOP, Verb.DISCONNECT, Verb.SCRUB):
        trial.did_well(trial.sweep(verb, b=trial.order(1)))
    trial.expect_gone("a", when="though the sweep was not to keep it")
    there = trial.expect_up("b", running=True, when="though the sweep was to keep it")
    if there is not None:
        expect({*there.order.units} == {*trial.order(1).units}, f"of b is up {there.order.units}")
    trial.rest()
    expect(not trial.count(swept), "a sweep has stopped a RUN, and told its end")
    expect(not trial.count(spared), "a sweep has ended what it was to keep")


def _sweeps_a_part(trial: _Trial) -> None:
    both = replace(
        trial.order(),
        units=tuple(f"engine/{engine}" for engine in trial.bench.engines),
        tasks={engine: rank for rank, engine in enumerate(trial.bench.engines)},
        gang=Gang(engines={"w": trial.bench.engines}),
    )
    run = trial.begin(trial.step(Verb.RUN, "a", both))
    left = replace(both, units=both.units[:1])
    for verb in (Verb.STOP, Verb.DISCONNECT, Verb.SCRUB):
        trial.did_well(trial.sweep(verb, a=left))
    trial.rest()
    expect(not trial.count(run), "tasks of which not all engines stay were not stopped in silence")
    there = trial.expect_up("a", running=False, when="though not all of its engines stay")
    if there is not None:
        expect(there.order.units == left.units, f"of a is up {there.order.units}")


def _says_when(trial: _Trial) -> None:
    trial.did(trial.step(Verb.RUN, "a", trial.order(run=trial.bench.ends[0][0])))
    trial.look()
    later = trial.next_at()
    expect(later > trial.now, f"nothing is under way, and it wants to be looked at {later:g}")


def _is_silent_when_closed(trial: _Trial) -> None:
    trial.begin(trial.step(Verb.RUN, "a", trial.order(run=trial.bench.ends[0][0])))
    trial.begin(trial.step(Verb.CONNECT, "b", trial.order(1)))
    trial.driver.close()
    trial.told.clear()
    trial.rest()
    expect(not trial.told, f"it was closed, and told of {[t.step.verb for t in trial.told]}")
    expect(trial.next_at() == inf, "it was closed, and wants to be looked at")


LAWS: Final[Mapping[str, tuple[str, Callable[[_Trial], None]]]] = {
    "blocks_nobody": ("begin and finished return while tasks go on", _blocks_nobody),
    "finishes_once": ("the end of each step is told once, and of nothing else", _finishes_once),
    "tells_exit_codes": ("what ends by itself is told with its exit code", _tells_exit_codes),
    "stops_silently": ("a STOP ends this attempt's RUN without a word of it", _stops_silently),
    "stops_what_is_over": ("a STOP of nothing ends as well", _stops_what_is_over),
    "runs_again": ("what was stopped can be run again", _runs_again),
    "leaves_nothing": ("a SCRUB of the last unit leaves nothing up", _leaves_nothing),
    "keeps_what_stays_lit": ("a DISCONNECT leaves what it is to keep", _keeps_what_stays_lit),
    "merges_for_one": ("an aggregator merges for one attempt at a time", _merges_for_one),
    "sweeps_all": ("a sweep that keeps nothing leaves nothing up", _sweeps_all),
    "sweep_spares": ("a sweep leaves what it is to keep as it is", _sweep_spares),
    "sweeps_a_part": ("a sweep stops tasks of which it takes an engine", _sweeps_a_part),
    "says_when": ("it is looked at when something may have ended, not all the time", _says_when),
    "is_silent_when_closed": ("a closed driver tells nothing", _is_silent_when_closed),
}
"""Every law by its name: what it says, and how it is tried."""


def try_law(law: str, bench: Bench) -> None:
    """Try one law on a new driver.

    Args:
        law: Its name, one of `LAWS`.
        bench: Where the driver comes from.

    Raises:
        Unlawful: The driver breaks it.
    """
    says, tried = LAWS[law]
    driver = bench.make()
    try:
        tried(_Trial(bench, driver, bench.begins_at()))
    except Unlawful as broken:
        raise Unlawful(f"the law is that {says}; but {broken}") from broken
    finally:
        bench.clean(driver)


def check_driver(bench: Bench) -> list[Broken]:
    """Return which laws a driver breaks."""
    found: list[Broken] = []
    for law in LAWS:
        try:
            try_law(law, bench)
        except Unlawful as broken:
            found.append(Broken(law, str(broken)))
    return found


class DriverLaws:
    """A test class with a test for each law: set `bench` in a class of your own below it."""

    bench: ClassVar[Bench]

    def __init_subclass__(cls) -> None:
        """Give the class its tests."""
        super().__init_subclass__()
        for law in LAWS:
            if f"test_{law}" not in cls.__dict__:
                setattr(cls, f"test_{law}", _test_of(law))


def _test_of(law: str) -> Callable[[DriverLaws], None]:
    def test(self: DriverLaws) -> None:
        try_law(law, self.bench)

    test.__doc__ = f"The law: {LAWS[law][0]}."
    test.__name__ = f"test_{law}"
    return test


__all__ = ["LAWS", "Bench", "Broken", "DriverLaws", "Unlawful", "check_driver", "try_law"]
