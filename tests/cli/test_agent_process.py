"""What is `flowos agent run` called, and how long does its driver live?"""

from typing import Any

import pytest

from flowos.runtime import processes
from flowos.runtime.processes import Supervisor


@pytest.fixture
def lives(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """Name and driver of each life of an agent that is told to end in its third."""
    seen: list[tuple[str, Any]] = []

    def life(supervisor: Supervisor, name: str, driver: Any, *_: Any, **_more: Any) -> None:
        seen.append((name, driver))
        if len(seen) == 3:
            supervisor.stop()

    monkeypatch.setattr(processes, "agent_process", life)
    monkeypatch.setattr(Supervisor, "stop_on_signals", lambda _self: None)
    return seen


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ((), "agent-0"),
        (("--place", "n1"), "n1"),
        (("--place", "n1", "--place", "n0"), "n1"),
        (("--place", "n1", "--name", "mine"), "mine"),
    ],
)
def test_an_agent_has_the_name_of_its_first_place_unless_it_is_given_one(still, lives, words, name):
    still("agent", "run", *words, code=0)
    assert [called for called, _ in lives] == [name] * 3


def test_an_agent_has_one_driver_in_all_its_lives_and_closes_it_at_the_end(
    still, lives, monkeypatch
):
    from flowos.drivers.sim import SimDriver

    closed: list[SimDriver] = []
    monkeypatch.setattr(SimDriver, "close", lambda self: closed.append(self))
    still("agent", "run", code=0)
    (driver,) = {id(driver): driver for _, driver in lives}.values()
    assert closed == [driver]
