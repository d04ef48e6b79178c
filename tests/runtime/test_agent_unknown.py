"""What does an agent do at a place of which neither it nor its driver knows what is up?"""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from flowos.drivers.sim import SimDriver, SimSettings
from flowos.drivers.step import Finished, Remembering, Standing, Step, Verb
from flowos.model import keys
from flowos.model.codec import decode, encode
from flowos.model.placement import Arc, Observed, Order, Report, Turn
from flowos.model.slice import Run
from flowos.model.transaction import Change, Committed, Put, Versioned
from flowos.model.view import CellView
from flowos.protocol.proposal import Fence
from flowos.runtime.agent import RETRY_SECONDS, Agent
from flowos.runtime.machine import Commit

FENCE = Fence("session/agents/a@1", 5)
GPU, OTHER, LANE = "engine/n0/gpu0", "engine/n0/gpu1", "lane/x/fwd/0"
SHARE = "share/n0/gpu0"
NOTHING = Order("default/t")
UP = Order("default/t", units=(GPU, LANE), run=Run(for_seconds=1000.0))
TURNED = Order(
    "default/t",
    units=(LANE,),
    crossbar=(Turn("t/0", Arc("in", "fwd", (0,)), (Arc("out", "fwd", (0,)),)),),
)
SWEEP = ["stop", "disconnect", "scrub"]


class Forgetful:
    """A driver that cannot say what is up; the steps that it was asked for are on record."""

    def __init__(self, seconds: Mapping[Verb, float] | None = None) -> None:
        self._inner = SimDriver(SimSettings(seconds or {}))
        self.steps: list[Step] = []
        self.failing: dict[Verb, int] = {}

    def begin(self, step: Step, now: float) -> None:
        self.steps.append(step)
        self._inner.begin(step, now)

    def finished(self, now: float) -> list[Finished]:
        return [self._meant(found) for found in self._inner.finished(now)]

    def _meant(self, found: Finished) -> Finished:
        left = self.failing.get(found.step.verb, 0)
        if left:
            self.failing[found.step.verb] = left - 1
            return Finished(found.step, error="jammed")
        return found

    def next_at(self) -> float:
        return self._inner.next_at()

    def close(self) -> None:
        self._inner.close()

    @property
    def verbs(self) -> list[str]:
        return [f"{step.verb} {step.subject}".strip() for step in self.steps]


class Life:
    """The life of an agent for some places, which was told nothing but what the store lists."""

    def __init__(
        self,
        *records: tuple[str, object],
        seconds: Mapping[Verb, float] | None = None,
        driver: Forgetful | None = None,
    ) -> None:
        self.driver = driver or Forgetful(seconds)
        self.agent = Agent(
            CellView(),
            self.driver,
            fence=lambda: FENCE,
            serves=lambda place: place.startswith(("n", "sw")),
            fits=lambda _proposals: True,
        )
        self.reports: dict[str, Report] = {}
        self.seen_at_report: dict[str, int] = {}  # how many steps there had been
        self.revision = 100
        view = self.agent.view
        view.clear()
        view.load([Versioned(key, encode(r), 10 + n, 10 + n) for n, (key, r) in enumerate(records)])
        view.progressed(self.revision)
        self.agent.relisted()
        self.until(0.0)

    def order(self, attempt: str, order: Order | None, place: str = "n0") -> int:
        self.revision += 1
        value = encode(order) if order is not None else None
        change = Change(keys.order(place, attempt), value, self.revision, self.revision)
        self.agent.changed(self.agent.view.apply(change))
        return self.revision

    def until(self, now: float) -> None:
        """Let it work until a moment; the store takes what it says."""
        while True:
            for instruction in self.agent.step(min(now, self.agent.wake_at())):
                assert isinstance(instruction, Commit)
                answers = []
                for proposal in instruction.proposals:
                    for put in proposal.transaction.operations:
                        if isinstance(put, Put) and put.key.startswith("report/"):
                            name = put.key.partition("/")[2]
                            self.reports[name] = decode(Report, put.value)
                            self.seen_at_report[name] = len(self.driver.steps)
                    answers.append(Committed(self.revision))
                self.agent.answered(instruction, answers, now)
            if not self.agent._due and self.agent.wake_at() > now:
                return

    def applied(self, attempt: str, place: str = "n0") -> int:
        return self.reports.get(f"{place}/{attempt}", Report()).applied


def test_an_emptied_order_is_reported_only_after_all_that_no_order_names_is_torn_down():
    # Killed after it had built; the order was emptied before its successor began.
    life = Life((keys.order("n0", "a"), NOTHING), (keys.report("n0", "a"), Report(9, 9)))
    assert life.driver.verbs == SWEEP
    assert life.applied("a") == 10
    assert life.seen_at_report["n0/a"] == 3


def test_what_was_emptied_before_anything_was_said_of_it_is_torn_down_too():
    life = Life((keys.order("n0", "a"), NOTHING))
    assert life.driver.verbs == SWEEP
    assert life.applied("a") == 10


def test_a_switch_is_cleared_before_its_emptied_order_is_reported():
    life = Life((keys.order("sw0", "a"), NOTHING), seconds={Verb.DISCONNECT: 1.0})
    life.until(0.5)
    assert life.applied("a", "sw0") == 0
    life.until(2.0)
    assert life.applied("a", "sw0") == 10


@pytest.mark.parametrize("verb", [Verb.STOP, Verb.DISCONNECT, Verb.SCRUB])
def test_a_sweep_that_fails_is_tried_again_and_nothing_is_reported_before(verb):
    driver = Forgetful()
    driver.failing[verb] = 2
    life = Life((keys.order("n0", "a"), NOTHING), driver=driver)
    life.until(2 * RETRY_SECONDS - 0.1)
    assert life.applied("a") == 0
    life.until(2 * RETRY_SECONDS + 0.1)
    assert life.applied("a") == 10
    assert driver.verbs.count(str(verb)) == 3


def test_a_unit_that_this_life_has_not_seen_clean_is_scrubbed_before_it_is_built():
    life = Life((keys.order("n0", "a"), UP))
    assert life.driver.verbs == [*SWEEP, "connect", "run"]
    assert life.driver.steps[0].keep == {}  # perhaps it was begun, but nothing was said of it
    assert life.applied("a") == 10


def test_a_place_is_swept_once_in_a_life_and_only_when_something_is_to_change_there():
    life = Life((keys.order("n1", "b"), UP), (keys.report("n1", "b"), Report(10, 10)))
    assert life.driver.verbs == ["connect", "run"]
    life.order("a", UP)
    life.until(1.0)
    life.order("a", NOTHING)
    life.until(2.0)
    life.order("c", UP)
    life.until(3.0)
    swept = [step.place for step in life.driver.steps if not step.attempt]
    assert swept == ["n0", "n0", "n0"]


def test_what_a_live_order_names_runs_on_through_the_sweep():
    b = Order("default/b", units=(OTHER, LANE), run=Run(for_seconds=1000.0))
    life = Life(
        (keys.order("n0", "b"), b), (keys.report("n0", "b"), Report(10, 10)),
        (keys.order("n0", "a"), NOTHING), (keys.report("n0", "a"), Report(9, 9)),
    )  # fmt: skip
    sweep = [step for step in life.driver.steps if not step.attempt]
    assert [step.verb for step in sweep] == [Verb.STOP, Verb.DISCONNECT, Verb.SCRUB]
    assert all(set(step.keep) == {"b"} for step in sweep)
    assert all(set(step.keep["b"].units) == {OTHER, LANE} for step in sweep)
    mine = [s.verb for s in life.driver.steps if s.attempt == "b"]
    assert Verb.STOP not in mine
    assert Verb.SCRUB not in mine
    assert life.applied("a") == 12


def test_what_ran_on_through_the_sweep_is_stopped_before_it_is_scrubbed():
    b = Order(
        "default/b", units=(OTHER,), bitstreams={"n0/gpu1": "sum@1"}, run=Run(for_seconds=1000.0)
    )
    jammed = Forgetful()
    jammed.failing[Verb.LOAD] = 1  # what an earlier life had loaded was never written
    life = Life(
        (keys.order("n0", "b"), b), (keys.report("n0", "b"), Report(0, 10)),
        (keys.order("n0", "a"), NOTHING), (keys.report("n0", "a"), Report(9, 9)),
        driver=jammed,
    )  # fmt: skip
    assert life.reports["n0/b"].failed
    life.order("b", NOTHING)
    life.until(1.0)
    mine = [step.verb for step in life.driver.steps if step.attempt == "b"]
    assert mine == [Verb.LOAD, Verb.STOP, Verb.SCRUB]


def test_a_shared_engine_is_swept_of_all_but_those_who_share_it_by_a_live_order():
    shared = Order("default/b", units=(SHARE,), run=Run(for_seconds=1000.0))
    life = Life(
        (keys.order("n0", "b"), shared), (keys.report("n0", "b"), Report(10, 10)),
        (keys.order("n0", "a"), NOTHING), (keys.report("n0", "a"), Report(9, 9)),
    )  # fmt: skip
    scrub = next(s for s in life.driver.steps if s.verb is Verb.SCRUB)
    assert scrub.keep["b"].units == (SHARE,)
    assert life.applied("a") == 12


def test_an_order_that_shrank_meanwhile_keeps_what_it_names_and_is_reported_after_the_sweep():
    smaller = Order("default/t", units=(OTHER,), run=Run(for_seconds=1000.0))
    # It was just shrinking when it was killed, and had said so.
    life = Life((keys.order("n0", "a"), smaller), (keys.report("n0", "a"), Report(9, 10)))
    assert life.driver.verbs[:3] == SWEEP
    assert life.driver.steps[0].keep["a"].units == (OTHER,)
    assert life.seen_at_report["n0/a"] >= 3
    assert life.applied("a") == 10


def test_what_was_reported_clean_by_an_earlier_life_is_not_swept_again():
    life = Life((keys.order("n0", "a"), NOTHING), (keys.report("n0", "a"), Report(10, 10)))
    assert life.driver.verbs == []
    assert life.reports == {}


def test_an_order_emptied_after_it_was_taken_over_whole_is_torn_down_by_its_own_steps():
    life = Life((keys.order("n0", "a"), UP), (keys.report("n0", "a"), Report(10, 10)))
    revision = life.order("a", NOTHING)
    life.until(1.0)
    assert life.driver.verbs == ["connect", "run", "stop", "disconnect", "scrub n0/gpu0"]
    assert life.applied("a") == revision


def test_nobody_builds_at_a_place_while_it_is_swept():
    slow = {Verb.SCRUB: 5.0}
    other = Order("default/b", units=(OTHER,), run=Run(for_seconds=1000.0))
    life = Life((keys.order("n0", "a"), NOTHING), seconds=slow)
    revision = life.order("b", other)
    life.until(4.0)
    assert life.driver.verbs == SWEEP
    life.until(6.0)
    assert life.driver.verbs == [*SWEEP, "run"]
    assert life.applied("b") == revision


def test_what_this_life_has_up_grows_only_after_a_sweep_and_goes_down_meanwhile():
    b = Order("default/b", units=(OTHER,))
    life = Life(
        (keys.order("n0", "b"), b), (keys.report("n0", "b"), Report(10, 10)),
        seconds={Verb.SCRUB: 5.0},
    )  # fmt: skip
    assert life.driver.verbs == []
    life.order("a", UP)
    life.order("b", replace(b, units=(OTHER, "lane/y/fwd/0")))
    life.until(4.0)
    assert life.driver.verbs == SWEEP
    life.order("b", NOTHING)
    life.until(4.5)
    assert life.driver.verbs == [*SWEEP, "scrub n0/gpu1"]
    life.until(20.0)
    assert life.driver.verbs == [*SWEEP, "scrub n0/gpu1", "connect", "run"]


def test_an_order_emptied_while_its_place_is_swept_is_reported_after_it():
    life = Life((keys.order("n0", "a"), UP), seconds={Verb.SCRUB: 5.0})
    revision = life.order("a", NOTHING)
    life.until(4.0)
    assert life.applied("a") == 0
    life.until(6.0)
    assert life.driver.verbs == SWEEP
    assert life.applied("a") == revision


def test_an_engine_is_powered_off_without_a_sweep_but_not_in_the_middle_of_one():
    life = Life((keys.order("n0", "o"), Order("~off/x", off=("n0/gpu0",))))
    assert life.driver.verbs == ["power off n0/gpu0"]
    life = Life((keys.order("n0", "a"), NOTHING), seconds={Verb.SCRUB: 5.0})
    life.order("o", Order("~off/x", off=("n0/gpu0",)))
    life.until(4.0)
    assert life.driver.verbs == SWEEP
    life.until(6.0)
    assert life.driver.verbs == [*SWEEP, "power off n0/gpu0"]


def test_a_quarantine_at_an_unknown_place_is_reported_after_the_sweep():
    life = Life((keys.order("n0", "q"), Order("~quarantine/n0/q")))
    assert life.driver.verbs == SWEEP
    assert life.applied("q") == 10


@pytest.mark.parametrize("ordered", [True, False])
def test_a_task_left_on_an_engine_is_stopped_before_it_is_scrubbed(ordered):
    order = [(keys.order("n0", "a"), NOTHING)] if ordered else []
    life = Life(*order, (keys.observed("n0/gpu0"), Observed(task="a")))
    assert life.driver.verbs == SWEEP
    assert life.agent._observed("n0/gpu0").task == ""
    assert life.applied("a") == (10 if ordered else 0)


def test_a_driver_that_says_with_authority_what_stands_spares_the_sweep():
    begun: list[Verb] = []

    class Knowing(SimDriver):
        def begin(self, step: Step, now: float) -> None:
            begun.append(step.verb)
            super().begin(step, now)

    agent = Agent(
        CellView(),
        Knowing(SimSettings()),
        fence=lambda: FENCE,
        serves="n0".__eq__,
        fits=lambda _proposals: True,
    )
    agent.view.load([Versioned(keys.order("n0", "a"), encode(NOTHING), 10, 10)])
    agent.relisted()
    assert len(agent.step(0.0)) == 1
    assert begun == []


def test_a_driver_that_remembers_nothing_after_a_crash_says_so_and_its_places_are_swept():
    class Crashed(Forgetful):
        def standing(self) -> list[Standing] | None:
            return None

    driver = Crashed()
    assert isinstance(driver, Remembering)
    life = Life((keys.order("n0", "a"), NOTHING), driver=driver)
    assert driver.verbs == SWEEP
    assert life.applied("a") == 10


def test_nothing_is_kept_of_places_where_all_is_over():
    life = Life((keys.order("n0", "a"), NOTHING))
    life.until(1.0)
    life.order("a", None)
    life.until(2.0)
    assert life.agent._work == {}
    assert life.agent._at == {}
    assert life.agent._sweeps == {}
