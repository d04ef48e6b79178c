"""What can happen next in a world, at random; and what would lead it to a good end, fairly.

    PYTHONPATH=.:store python -m tests.protocol.lives SEED

lives one life again and prints every step of it.
"""

import random
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final

from flowos.model.protocols import CellStore
from flowos.model.view import Entry
from tests.protocol.little_cell import DECISIONS, PURSE
from tests.protocol.rules import Rules
from tests.protocol.world import AGAIN, CANCELLED, DONE, HEARD, Control, World

STEPS: Final = 120
NAMES: Final = ("t/S", "t/T", "u/U", "t/V")
KEPT: Final = ("engine/n1/x", "engine/n1/f", "engine/n2/y", "node/n2", "switch/s1")
DRAINED: Final = (
    "engine/n1/x",
    "engine/n1/f",
    "engine/n2/y",
    "lane/trunk/fwd/0",
    "aggregator/s2/0",
    "node/n1",
    "node/n2",
    "switch/s1",
    "link/trunk",
    "link/py",
)


class Life:
    """One world and one generator of what happens in it."""

    def __init__(
        self,
        seed: int,
        rules: Rules | None = None,
        *,
        operations_max: int | None = None,
        store: CellStore | None = None,
    ) -> None:
        self.random = random.Random(seed)
        self.budget = self.random.choice((None, None, 250, 400))
        chosen = self.random.choice((128, 128, 10))  # few: commits are guarded by ranges
        self.world = World(
            rules, budget=self.budget, operations_max=operations_max or chosen, store=store
        )
        self.born = 0
        for role in ("scheduler", "scheduler", "controller", "controller"):
            self._start(role)
        # Each life has its own character: what happens often in one is unheard of in another.
        self.wanted = self.random.sample([*DECISIONS], 5)
        self.preempting = self.random.choice((0.0, 0.5, 1.0))
        self.moves: list[tuple[int, Callable[[], object]]] = [
            (3, self.submit),
            (20, self.hear),
            (12, self.hear_all),
            (24, self.plan_commits),
            (40, self.send),
            (4, self.find_out),
            (24, self.look_after),
            (50, self.agent_moves),
            (16, self.agent_works),
            (3, self.agent_returns),
            (1, self.forget),
            (self._often(1), self.wish),
            (self._often(1), self.drop),
            (self._often(3), self.lose),
            (self._often(3), self.late),
            (self._often(1), self.agent_stops),
            (self._often(1), self.operate),
            (self._often(1), self.restart),
            (self._often(6), self.reservations),
            (3 if self.budget is not None else 0, self.grants),
        ]

    def live(self, steps: int = STEPS) -> None:
        """Let this many things happen, then come to rest."""
        weights = [weight for weight, _ in self.moves]
        while len(self.world.trace) < steps:  # most moves find nothing to do
            (move,) = self.random.choices(self.moves, weights)
            move[1]()
        self.rest()

    def rest(self) -> None:
        """Come to a clean end."""
        if self.budget is not None:
            self.world.set_budget(self.budget)
        self.world.unreserve("r")
        for name in NAMES:
            self.world.wish(name, held=False)
        self.world.come_to_rest(fairly)

    # -- moves

    def _often(self, weight: int) -> int:
        return weight * self.random.choice((0, 1, 1, 3))

    def _start(self, role: str) -> None:
        self.born += 1
        self.world.control(f"{role[0].upper()}{self.born}", role)

    def _who(self, role: str = "") -> Control:
        return self.random.choice([c for c in self.world.controls if c.role.startswith(role)])

    def submit(self) -> None:
        name = self.random.choice(NAMES)
        if self.world.record(name) is None:
            self.world.submit(name)

    def wish(self) -> None:
        what = self.random.choice(({"cancelled": True}, {"held": True}, {"held": False}))
        self.world.wish(self.random.choice(NAMES), **what)

    def hear(self) -> None:
        self._who().hear_one(self.random.choice(HEARD))

    def hear_all(self) -> None:
        self._who().hear()

    def plan_commits(self) -> None:
        control = self._who("scheduler")
        view = control.view
        free = [n for n in NAMES if n in view.slices and view.now(n) is None]
        choice = [(name, DECISIONS[self.random.choice(self.wanted)]) for name in free]
        self.random.shuffle(choice)
        under_way = [p.step for r in (*control.requests, *control.unsure) for p in r.proposals]
        if not choice or "give back" in under_way:
            return
        if control.unsure and self.random.random() < 0.7:
            return
        if len(choice) > 1 and self.random.random() < 0.3:
            self._group(control, choice[:2])
        else:
            name, what = choice[0]
            if self.random.random() < 0.1:
                name = self.random.choice(NAMES)
                control.ask(control.commit(name, what, embedded=True))
                return
            preempt = self.random.random() < self.preempting
            control.ask(control.commit(name, what, preempt=preempt))
            if control.view.now(name) is None:  # then something else, perhaps
                what = DECISIONS[self.random.choice(self.wanted)]
                control.ask(control.commit(name, what, preempt=preempt))

    def _group(self, control: Control, choice: list[tuple[str, Any]]) -> None:
        request = control.group(*choice)
        if request is None:
            for name, _ in choice:
                control.view.retract(name)
        elif control.rules.proposal.writes(request.proposals[:1]) & control.rules.proposal.writes(
            request.proposals[1:]
        ):
            control.drop(request)  # one request may write a key only once

    def _request(self) -> Any:
        requests = [r for c in self.world.controls for r in c.requests]
        return self.random.choice(requests) if requests else None

    def send(self) -> None:
        if (request := self._request()) is not None:
            request.sender.send(request)

    def drop(self) -> None:
        if (request := self._request()) is not None:
            request.sender.drop(request)

    def lose(self) -> None:
        if (request := self._request()) is not None:
            request.sender.lose(request)

    def late(self) -> None:
        if self.world.late:
            self.world.arrive(self.random.choice(self.world.late))

    def find_out(self) -> None:
        self._who().find_out()

    def look_after(self) -> None:
        """A controller, or a scheduler, does one thing that the rules may allow."""
        control = self._who("controller" if self.random.random() < 0.7 else "scheduler")
        view = control.view
        names = [n for n in (*view.placements, *view.slices) if not view.assumed(n)]
        if not names:
            return
        name = self.random.choice(names)
        entry = view.placements.get(name)
        control.ask(self._care(control, name, entry) if entry else unplaced(control, name))

    def _care(self, control: Control, name: str, entry: Entry[Any]) -> Any:
        view, chance = control.view, self.random.random()
        if name.startswith("~drain/") and entry.value.wanted:
            return control.drain(name.partition("/")[2], take=chance < 0.5)
        if name.startswith("~"):
            return system(control, name, entry) if chance < 0.3 else None
        silent = [p for p in self.world.agents if f"agent/{p}" not in view.sessions]
        if silent and chance < 0.6:
            place = self.random.choice(silent)
            return control.quarantine(place, name) or control.take_out(place)
        if chance < 0.04:
            return control.release(name, self.random.choice((AGAIN, CANCELLED, DONE)))
        if chance < 0.15 and entry.value.held:
            return self._resize(control, name, entry.value)
        if chance < 0.17:
            return control.rules.release.mark_started(view, name, 1.0, fence=control.fence)
        runs = entry.value.held and not entry.value.waits
        return None if runs and chance < 0.9 else slice_(control, name, entry)

    def _resize(self, control: Control, name: str, placement: Any) -> Any:
        held = placement.held.keys()
        bigger = [d for d in DECISIONS.values() if d.units.keys() >= held]
        smaller = [d for d in DECISIONS.values() if d.units and d.units.keys() <= held]
        if self.random.random() < 0.5:
            return control.grow(name, self.random.choice(bigger))
        return control.shrink(name, self.random.choice(smaller))

    def agent_moves(self) -> None:
        agent = self.random.choice([*self.world.agents.values()])
        if not agent.works:
            return
        for _ in range(3):
            moves = [agent.sync, agent.power]
            moves += [lambda b=b: agent.tear_down(b) for b in agent.surplus()]  # type: ignore[misc]
            moves += [lambda b=b: agent.build(b) for b in agent.missing()]  # type: ignore[misc]
            moves += [lambda a=a: agent.report(a) for a in agent.known]  # type: ignore[misc]
            self.random.choice(moves)()

    def agent_works(self) -> None:
        agent = self.random.choice([*self.world.agents.values()])
        if agent.works:
            agent.work()

    def agent_stops(self) -> None:
        agent = self.random.choice([*self.world.agents.values()])
        if agent.works and agent.alive:
            agent.works = self.random.random() < 0.4  # or it is only cut off
            self.random.choice((agent.lose_session, agent.lose_session, agent.lose_power))()

    def agent_returns(self) -> None:
        silent = [a for a in self.world.agents.values() if not (a.works and a.alive)]
        if silent:
            self.random.choice(silent).come_back()

    def operate(self) -> None:
        control, chance = self._who(), self.random.random()
        if chance < 0.5:
            unit = self.random.choice(DRAINED)
            control.ask(control.drain(unit, take=self.random.random() < 0.5))
        elif chance < 0.8:
            control.ask(control.power_off(self.random.choice(("n1/x", "n1/f", "n2/z"))))
        else:
            self._declare(control)

    def reservations(self) -> None:
        """An operator makes or removes a reservation, or a controller keeps a unit of it."""
        control, chance = self._who("controller"), self.random.random()
        if chance < 0.1:
            units = self.random.sample(KEPT, 2)
            tenants = self.random.choice((("t",), ("u",), ("t", "u"), ()))
            self.world.reserve("r", *units, tenants=tenants, evict=self.random.random() < 0.6)
        elif chance < 0.15:
            self.world.unreserve("r")
        elif window := control.view.reservations.get("r"):
            control.ask(control.keep("r", self.random.choice(window.units)))

    def _declare(self, control: Control) -> None:
        """The operator has seen that a place has no power, or has cleaned it by hand."""
        view = control.view
        for name in [n for n in view.placements if n.startswith("~quarantine/")]:
            agent = self.world.agents[name.split("/")[1]]
            if not agent.works and not agent.built:
                control.do(control.rules.system.declare_clean(view, name, fence=control.fence))
                return

    def grants(self) -> None:
        control, chance = self._who("scheduler"), self.random.random()
        if chance < 0.6:
            control.ask(control.raise_grant(self.random.choice((100, 200))))
        elif chance < 0.75 and not control.requests:
            control.ask(control.give_back(self.random.choice((0, 100))))
        elif chance < 0.85:
            self.world.set_budget(self.random.choice((150, 250, 400)))
        else:
            keeper = self._who("controller")
            for step in dead_grants(keeper):
                keeper.ask(step)

    def restart(self) -> None:
        control = self._who()
        if self.random.random() < 0.5:
            control.list_again()
            return
        control.die()
        self._start(control.role)

    def forget(self) -> None:
        control = self._who("controller")
        for name in NAMES:
            entry = control.view.slices.get(name)
            if entry and entry.value.end:
                control.ask(control.rules.release.forget(control.view, name, fence=control.fence))


# ---------------------------------------------------------------------------- what leads to an end


def fairly(control: Control) -> Iterator[Any]:
    """Yield steps until this process has nothing to do; its view follows each of them."""
    view = control.view
    for name in sorted(view.placements):
        entry = view.placements.get(name)
        if entry is not None:
            yield system(control, name, entry) if name[0] == "~" else slice_(control, name, entry)
    for name in sorted(view.slices):
        if view.now(name) is None:
            yield unplaced(control, name)
            if control.role == "scheduler":
                yield from place(control, name)
    if control.role == "controller":
        yield from dead_grants(control)


def place(control: Control, name: str) -> Iterator[Any]:
    """Yield a commit of whatever fits, and before it what may be spent on it."""
    view = control.view
    grants = view.grants.get(PURSE, {})
    mine = grants.get(control.session)
    if view.cell.domains["d"].budget_watts is not None:
        used = view.spent(PURSE, control.session)
        if not mine or mine.value < used + 100:
            yield control.raise_grant(100)
        elif mine.value > used + 100:
            yield control.give_back(used + 100)
    for what in ("x", "y", "z", "host small"):
        step = control.commit(name, DECISIONS[what])
        if step is not None:
            yield step
            return
    if mine and mine.value > view.spent(PURSE, control.session):
        yield control.give_back(view.spent(PURSE, control.session))


def slice_(control: Control, name: str, entry: Entry[Any]) -> Any:
    """Return the next step of a slice's placement."""
    view, placement = control.view, entry.value
    spec = view.slices.get(name)
    if placement.ending is None:
        uid = control.rules.release.uid_of(entry.created, placement)
        if spec is None or spec.created != uid or spec.value.cancelled:
            return control.release(name, CANCELLED)
        if placement.waits:
            return control.arm(name)
        complete = entry.modified <= view.revision
        if complete and all(view.applied(p, placement.attempt) for p in placement.ordered):
            return control.release(name, DONE)
    if placement.releasing or placement.ending:
        return control.free(name)
    return None


def system(control: Control, name: str, entry: Entry[Any]) -> Any:
    """Return the next step of a system placement."""
    view, rules = control.view, control.rules.system
    if name.startswith("~off/"):
        return rules.power_on(view, name, fence=control.fence)
    if name.startswith("~reserved/"):
        reservation, unit = control.rules.reserved.parts_of(name)
        window = view.reservations.get(reservation)
        if window is None or unit not in window.units:
            return control.let_go(reservation, unit)
        return control.keep(reservation, unit)
    if name.startswith("~drain/"):
        return rules.undrain(view, name, fence=control.fence)
    if entry.value.releasing:
        return control.free(name)
    if f"agent/{name.split('/')[1]}" in view.sessions:
        return rules.declare_clean(view, name, fence=control.fence)
    return None


def unplaced(control: Control, name: str) -> Any:
    """Return the next step of a slice that holds nothing."""
    entry = control.view.slices[name]
    if entry.value.cancelled and not entry.value.end and control.view.now(name) is None:
        return control.end_unplaced(name)
    return None


def dead_grants(control: Control) -> Iterator[Any]:
    """Yield what takes grants of the dead back."""
    view, rules = control.view, control.rules.grants
    for holder in list(view.grants.get(PURSE, {})):
        fenced_at = control.fenced_grants.get(f"grant/{PURSE}/{holder}")
        if fenced_at is None:
            yield rules.fence_dead(view, PURSE, holder, fence=control.fence)
        else:
            yield rules.lower_dead(view, PURSE, holder, fenced_at, fence=control.fence)


def main() -> None:
    """Live one life and tell it."""
    life = Life(int(sys.argv[1]))
    try:
        life.live()
    finally:
        print(*life.world.trace, sep="\n")


if __name__ == "__main__":
    main()
