"""A whole cell for tests of the controller: one of each process, in virtual time."""

from collections.abc import Callable
from typing import Any

from flowos.drivers.step import Verb
from flowos.model.slice import Phase
from flowos.runtime.lifecycle import Lifecycle, Rules
from flowos.simulation.devices import Bench
from tests.runtime.cells import small_cell
from tests.runtime.theatre import Player, Theatre

SECONDS = {
    Verb.POWER_ON: 0.2,
    Verb.POWER_OFF: 0.1,
    Verb.LOAD: 0.5,
    Verb.CONNECT: 0.05,
    Verb.STOP: 0.05,
    Verb.DISCONNECT: 0.02,
    Verb.SCRUB: 0.1,
}
PLACES = ("n0", "n1", "sw0", "sw1")
GRACE = Rules(idle_off_seconds=0, agent_grace_seconds=20.0, mass_silence=0.3)


class Stage(Theatre):
    """A cell with one of each: scheduler, controller, and an agent for all places or for each."""

    def __init__(
        self,
        *,
        rules: Rules | None = None,
        agents: str = "one",
        prepare: Callable[[Bench], None] = lambda _bench: None,
        seconds: dict[Verb, float] | None = None,
        **cell: Any,
    ) -> None:
        super().__init__(small_cell(**cell))
        self.batch = self.scheduler(alone=True)
        self.leader = self.controller(rules=rules or GRACE)
        self.at: dict[str, Player] = {}
        slow = SECONDS if seconds is None else seconds
        if agents == "one":
            self.all = self.agent(seconds=slow, prepare=prepare)
        elif agents == "each":
            for place in sorted({**self.view().cell.nodes, **self.view().cell.switches}):
                self.at[place] = self.agent(place, seconds=slow, prepare=prepare)
        self.settle()

    def until(self, identifier: str, phase: Phase, seconds: float = 100.0) -> None:
        """Play until a slice is in a phase."""
        came = self.play(seconds, lambda: self.phase(identifier) is phase)
        told = "\n".join(self.trace[-30:])
        assert came, f"{identifier} is {self.phase(identifier)}, not {phase}:\n{told}"


def machine(player: Player) -> Lifecycle:
    assert isinstance(player.machine, Lifecycle)
    return player.machine
