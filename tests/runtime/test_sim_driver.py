"""What do simulated devices do, and when?"""

from dataclasses import replace

import pytest

from flowos.drivers.sim import COMMAND_SECONDS, SimDriver, SimSettings
from flowos.drivers.step import Finished, Step, Verb
from flowos.model.placement import Order
from flowos.model.slice import Run


def step(verb: Verb, attempt: str = "a", subject: str = "", run: Run | None = None) -> Step:
    return Step("n0", attempt, verb, subject, Order("default/t", run=run or Run(for_seconds=10.0)))


def ends(driver: SimDriver, until: float = 1000.0) -> list[tuple[float, str]]:
    """When each step ended, and what it was."""
    found = []
    while driver.next_at() <= until:
        now = driver.next_at()
        found += [(now, str(finished.step.verb)) for finished in driver.finished(now)]
    return found


def test_steps_end_after_their_time_in_whatever_order_they_began():
    driver = SimDriver(SimSettings({Verb.LOAD: 3.0, Verb.SCRUB: 1.0}))
    driver.begin(step(Verb.LOAD), 0.0)
    driver.begin(step(Verb.SCRUB), 1.0)
    driver.begin(step(Verb.CONNECT), 1.5)
    assert driver.next_at() == 1.5
    assert driver.finished(1.0) == []
    assert ends(driver) == [(1.5, "connect"), (2.0, "scrub"), (3.0, "load")]
    assert driver.next_at() == float("inf")


def test_tasks_run_as_long_as_the_order_says_and_commands_a_moment():
    driver = SimDriver(SimSettings())
    driver.begin(step(Verb.RUN), 0.0)
    driver.begin(step(Verb.RUN, "b", run=Run(command=("true",))), 0.0)
    assert ends(driver) == [(COMMAND_SECONDS, "run"), (10.0, "run")]


def test_a_stop_ends_tasks_without_a_word_of_them():
    driver = SimDriver(SimSettings({Verb.STOP: 1.0}))
    driver.begin(step(Verb.RUN), 0.0)
    driver.begin(step(Verb.RUN, "b"), 0.0)
    driver.begin(step(Verb.STOP), 5.0)
    assert ends(driver) == [(6.0, "stop"), (10.0, "run")]


def stop(grace: float, attempt: str = "a") -> Step:
    return replace(step(Verb.STOP, attempt), graces={"a": grace})


@pytest.mark.parametrize(("grace", "end"), [(3.0, 9.0), (5.0, 11.0), (60.0, 11.0)])
def test_tasks_go_on_for_their_grace_or_to_their_own_end(grace, end):
    driver = SimDriver(SimSettings({Verb.STOP: 1.0}))
    driver.begin(step(Verb.RUN), 0.0)
    driver.begin(stop(grace), 5.0)
    (there,) = driver.standing()
    assert there.running
    assert ends(driver) == [(end, "stop")]
    (there,) = driver.standing()
    assert not there.running


def test_a_sweep_leaves_each_attempts_tasks_their_own_grace():
    driver = SimDriver(SimSettings())
    driver.begin(step(Verb.RUN), 0.0)
    driver.begin(step(Verb.RUN, "b"), 0.0)
    driver.begin(stop(4.0, ""), 5.0)
    assert ends(driver) == [(9.0, "stop")]


def test_a_stop_of_tasks_that_are_over_takes_no_grace():
    driver = SimDriver(SimSettings())
    driver.begin(step(Verb.RUN), 0.0)
    assert ends(driver) == [(10.0, "run")]
    driver.begin(stop(30.0), 12.0)
    assert ends(driver) == [(12.0, "stop")]


def test_tasks_that_are_run_again_after_a_stop_end_at_their_own_time():
    driver = SimDriver(SimSettings())
    driver.begin(step(Verb.RUN), 0.0)
    driver.begin(step(Verb.STOP), 5.0)
    driver.begin(step(Verb.RUN), 6.0)
    assert ends(driver) == [(5.0, "stop"), (16.0, "run")]


def test_nothing_is_remembered_of_tasks_that_are_over():
    driver = SimDriver(SimSettings())
    for number in range(50):
        driver.begin(step(Verb.RUN, f"a{number}"), 0.0)
        if number % 2:
            driver.begin(step(Verb.STOP, f"a{number}"), 1.0)
    ends(driver)
    for number in range(50):
        driver.begin(step(Verb.STOP, f"a{number}"), 20.0)
    ends(driver)
    assert driver._runs == {}


def test_what_fails_says_so_and_tasks_that_fail_end_with_1():
    driver = SimDriver(SimSettings(failures={Verb.LOAD: 1.0, Verb.RUN: 1.0}))
    load, run = step(Verb.LOAD, subject="n0/fpga0"), step(Verb.RUN)
    driver.begin(load, 0.0)
    driver.begin(run, 0.0)
    assert driver.finished(0.0) == [Finished(load, error="simulated failure to load n0/fpga0")]
    assert driver.finished(10.0) == [Finished(run, exit_code=1)]


def test_the_same_seed_fails_and_jitters_alike():
    def times(seed: int) -> list[tuple[float, str]]:
        driver = SimDriver(SimSettings({Verb.LOAD: 10.0}, jitter=0.2), seed)
        for _ in range(20):
            driver.begin(step(Verb.LOAD), 0.0)
        return ends(driver)

    assert times(1) == times(1) != times(2)
    assert all(8.0 <= at <= 12.0 for at, _ in times(1))


@pytest.mark.parametrize("verb", list(Verb))
def test_a_closed_driver_has_forgotten_everything(verb):
    driver = SimDriver(SimSettings({verb: 1.0}))
    driver.begin(step(verb), 0.0)
    driver.close()
    assert driver.next_at() == float("inf")
    assert driver.finished(100.0) == []


def connect(driver: SimDriver, attempt: str, *units: str) -> str:
    """The error of a switch that is told to connect these units, "" for none."""
    driver.begin(Step("s0", attempt, Verb.CONNECT, "", Order("default/t", units=units)), 0.0)
    (finished,) = driver.finished(1.0)
    return finished.error


def test_an_aggregator_merges_for_one_attempt_at_a_time():
    driver = SimDriver(SimSettings())
    assert connect(driver, "a", "aggregator/s0/0") == ""
    assert connect(driver, "a", "aggregator/s0/0", "lane/x/fwd/0") == ""
    refused = connect(driver, "b", "aggregator/s0/0")
    assert refused == "aggregator/s0/0 merges streams of a already"
    assert connect(driver, "b", "aggregator/s0/1") == ""
    driver.begin(Step("s0", "a", Verb.DISCONNECT, "", Order("default/t")), 1.0)
    driver.finished(1.0)
    assert connect(driver, "c", "aggregator/s0/0") == ""


def test_what_was_refused_is_not_up():
    driver = SimDriver(SimSettings())
    connect(driver, "a", "aggregator/s0/0")
    connect(driver, "b", "aggregator/s0/0")
    assert {there.attempt for there in driver.standing()} == {"a"}
