"""One run: schedulers as in production on one store, in virtual time; and what came of it."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from math import inf
from typing import Final

from flowos.model import collector, keys
from flowos.model.cell import FAMILY_OF, Cell, name_of
from flowos.model.codec import encode
from flowos.model.placement import Placement, Session
from flowos.model.transaction import (
    Change,
    Changes,
    Committed,
    Conflicted,
    Outcome,
    Put,
    Transaction,
    WatchMessage,
)
from flowos.model.view import CellView
from flowos.protocol.proposal import Fence, Proposal
from flowos.runtime.machine import Machine
from flowos.runtime.scheduling import SCHEDULER_FOLLOWS, Scheduling
from flowos.simulation.full.coarse import NodeNumbers
from flowos.simulation.full.deliberate import deliberate
from flowos.simulation.full.life import Life
from flowos.simulation.full.measured import (
    Book,
    FullFigures,
    SchedulerFigures,
    TeamFigures,
    Waits,
)
from flowos.simulation.full.member import Member
from flowos.simulation.full.setup import Arrival, Setup, Team
from flowos.simulation.stage import VirtualClock
from flowos.simulation.timeline import Timeline
from flowos.simulation.wire import SimStore

_TTL_SECONDS: Final = 10**9  # nobody dies here
_KEPT_REVISIONS: Final = 5_000  # of the history; nobody looks back further
_STUCK_SECONDS: Final = 30.0  # nothing is held and nothing comes: whoever waits does so for ever

NewStore = Callable[[VirtualClock], SimStore]
Progress = Callable[[int, int], None]


def run(
    setup: Setup,
    arrivals: Iterable[Arrival],
    *,
    new_store: NewStore,
    progress: Progress = lambda _placed, _all: None,
) -> FullFigures:
    """Let slices come to a cell, and schedulers place them, in virtual time.

    The same setup, arrivals and store give the same figures, but for `wall_seconds`.

    Args:
        setup: The cell, and who schedules how.
        arrivals: In any order; no two of one name.
        new_store: Makes an empty store on the virtual clock.
        progress: Told now and then how many slices have ended, of how many.

    Raises:
        KeyError: A slice names a team that is not there.
    """
    hall = _Hall(setup, new_store)
    hall.expect(arrivals)
    before = time.perf_counter()
    with (
        collector.paused()
    ):  # as in a scheduler process: it would look at the views again and again
        hall.play(progress)
    return hall.figures(time.perf_counter() - before)


@dataclass(slots=True)
class _Seat:
    """One scheduler, with what is noted of it."""

    team: Team
    member: Member
    machine: Scheduling
    figures: SchedulerFigures
    thought: dict[str, float]  # slice -> seconds in plans since it was last sent or found no room
    waited: float = 0.0


class _Hall:
    """The store, all who use it, and what is on the way between them."""

    def __init__(self, setup: Setup, new_store: NewStore) -> None:
        clock = VirtualClock()
        self.setup = setup
        self.round_trip_s, self.news_s = setup.round_trip_s, setup.news_s
        self.line = Timeline(clock)
        self.store = new_store(clock)
        self.requests = 0
        self.seats: list[_Seat] = []
        self._attempts = map("a{:x}".format, count(1))
        self._news: list[Change] = []
        self._book = Book(len(setup.cell.engines))
        self._arrived: Counter[str] = Counter()
        self._dealt: Counter[str] = Counter()
        self._total = 0
        _load(self.store, setup.cell)
        controller = self._open("controller", "controller", "")
        self.life = Life(
            self.line,
            CellView(cell=setup.cell),
            self._ask,
            self.store.fits,
            controller,
            gather_s=setup.gather_s,
            keeps_ended=setup.keeps_ended,
            ended=self._ended,
        )
        self.life.view.progressed(self.store.revision)
        self._numbers = (
            NodeNumbers(self.life.view, lambda: self.store.revision)
            if setup.check == "coarse"
            else None
        )
        sessions = [
            (team, _policy_of(team, number), f"{team.name}-{number}")
            for team in setup.teams
            for number in range(team.schedulers)
        ]
        fences = [self._open("scheduler", name, policy) for _, policy, name in sessions]
        for fence, (team, policy, name) in zip(fences, sessions, strict=True):
            self.seats.append(self._seat(fence, team, policy, name))
        self._seat_of = {id(seat.machine): seat for seat in self.seats}
        self.store.watch(SCHEDULER_FOLLOWS, after=self.store.revision, deliver=self._noted)

    # -- who is there

    def _open(self, role: str, name: str, policy: str) -> Fence:
        key = keys.session(role, name)
        record = Session(role, name, policy)
        (outcome,) = self.store.commit([Transaction((), (Put(key, encode(record)),))])
        return Fence(key, outcome.revision)

    def _seat(self, fence: Fence, team: Team, policy: str, name: str) -> _Seat:
        setup, number = self.setup, len(self.seats)
        figures = SchedulerFigures(name)
        thought: dict[str, float] = {}
        lease = self.store.lease(_TTL_SECONDS)
        machines: list[Scheduling] = []

        def make(member: Member) -> Machine:
            def takes(slice_: str, seconds: float) -> None:
                member.thinks(seconds)
                thought[slice_] = thought.get(slice_, 0.0) + seconds

            machines.append(
                Scheduling(
                    CellView(),
                    deliberate(team.policy, policy, team.pace, takes),
                    session=name,
                    fence=lambda: fence,
                    seed=setup.seed * 1_000 + number,
                    fits=self._fits,
                    stopwatch=member.clock,
                    new_attempt=self._attempts.__next__,
                    wall=member.clock,
                    lease=lambda: lease.id,
                    repairs=setup.looks == "live",
                    homes=setup.homes,
                )
            )
            return machines[0]

        member = Member(self, SCHEDULER_FOLLOWS, fence.key, make, setup.seed * 1_000 + number)
        return _Seat(team, member, machines[0], figures, thought)

    def _fits(self, proposals: Sequence[Proposal]) -> bool:
        return self.store.fits([proposal.transaction for proposal in proposals])

    # -- what comes

    def expect(self, arrivals: Iterable[Arrival]) -> None:
        """Let slices come at their time."""
        teams = {team.name: team for team in self.setup.teams}
        first = self.setup.teams[0].name
        found = []
        for arrival in arrivals:
            team = teams[arrival.spec.policy or first]
            number = self._dealt[team.name] % team.schedulers
            self._dealt[team.name] += 1
            spec = replace(arrival.spec, policy=_policy_of(team, number))
            if self.setup.seconds is None or arrival.at_s <= self.setup.seconds:
                self._book.came(spec, team.name, arrival.at_s)
                self._arrived[team.name] += 1
                found.append(arrival._replace(spec=spec))
        self._total = len(found)
        self.life.expect(found)

    def play(self, progress: Progress) -> None:
        """Let time pass until the end."""
        line, until = self.line, self.setup.seconds
        for seat in self.seats:
            seat.member.begin()
        told = 0
        while (at := line.next_at()) < inf:
            if until is not None and at > until:
                break
            if until is None and (not self.life.left or self._stuck(at)):
                break
            line.run(at)
            if self._book.ended - told >= 1_000:
                told = self._book.ended
                progress(told, self._total)
                self.store.compact(max(1, self.store.revision - _KEPT_REVISIONS))
        if until is not None:
            line.run(until)
        progress(self._book.ended, self._total)

    def _stuck(self, at: float) -> bool:
        life = self.life
        waits = life.left and not life.holding and not life.coming
        return bool(waits) and at > life.moved_at + _STUCK_SECONDS

    # -- requests

    def carry_out(self, member: Member, proposals: Sequence[Proposal]) -> list[Outcome]:
        """Commit one request of a scheduler now."""
        outcomes = self._committed(proposals)
        self.requests += 1
        seat = self._seat_of[id(member.machine)]
        now, known = self.line.now, []
        for proposal, outcome in zip(proposals, outcomes, strict=True):
            placement = proposal.placement
            committed = isinstance(outcome, Committed)
            if committed and placement is not None and proposal.record:
                known.append(proposal)
            if proposal.step != "commit" or placement is None:
                continue
            thought = seat.thought.pop(proposal.identifier, 0.0)
            if committed:
                seat.figures.placed += 1
                seat.figures.useful_s += thought
                seat.waited += self._book.committed(proposal.identifier, placement, now)
            else:
                seat.figures.conflicts += 1
                seat.figures.wasted_s += thought
        self._tell(known)
        return outcomes

    def _committed(self, proposals: Sequence[Proposal]) -> list[Outcome]:
        """Let the store decide, on what no coarser check has refused before."""
        numbers = self._numbers
        refused = [numbers is not None and numbers.refuses(proposal) for proposal in proposals]
        sent = [p.transaction for p, no in zip(proposals, refused, strict=True) if not no]
        found = iter(self.store.commit(sent) if sent else ())
        now = self.store.revision
        return [Conflicted(now) if no else next(found) for no in refused]

    def _ask(self, transactions: Sequence[Transaction]) -> list[Outcome]:
        outcomes = self.store.commit(transactions)
        self.requests += 1
        self._tell(())
        return outcomes

    def _ended(self, name: str, placement: Placement) -> None:
        self._book.gave_back(placement, self.line.now)

    def _noted(self, message: WatchMessage) -> None:
        assert isinstance(message, Changes)
        self._news += message.changes

    def _tell(self, known: Sequence[Proposal]) -> None:
        """Show what was just written to the life, and send it on its way to all schedulers."""
        news, self._news = self._news, []
        if not news:
            return
        life = self.life
        life.follow([c for c in news if c.key.startswith(("placement/", "slice/"))], known)
        life.view.progressed(self.store.revision)
        if self.setup.holds_checked:
            for proposal in known:
                self._book.double_holds += _held_twice(life.view, proposal)
        # Of one revision in any order; so, nobody queues a slice whose end comes with it.
        news.sort(key=lambda change: change.key[:5] == "place")
        message = Changes(news)
        self.line.after(self.news_s, partial(self._arrive, message))

    def _arrive(self, message: Changes) -> None:
        for seat in self.seats:
            seat.member.hear(message)

    # -- figures

    def figures(self, wall_seconds: float) -> FullFigures:
        """Return what came of it."""
        found = FullFigures(wall_seconds=wall_seconds, requests=self.requests)
        self._book.fill_in(found, self.line.now)
        found.revisions = self.store.revision
        found.arrived = self._total
        found.waiting = self.life.waiting
        causes: Counter[str] = Counter()
        kinds: Counter[str] = Counter()
        for team in self.setup.teams:
            mine = found.teams[team.name] = TeamFigures(team.name, arrived=self._arrived[team.name])
            mine.waits = Waits.of(self._book.waits.get(team.name, []))
            for seat in self.seats:
                if seat.team is team:
                    self._fill_in(mine, seat, found.seconds * team.schedulers)
        for seat in self.seats:
            told = seat.machine.lost
            causes.update(told.causes)
            kinds.update(told.kinds)
        found.causes = dict(causes.most_common())
        found.lost_units = dict(kinds.most_common())
        found.conflicts = sum(team.conflicts for team in found.teams.values())
        return found

    def _fill_in(self, team: TeamFigures, seat: _Seat, seconds: float) -> None:
        one, machine = seat.figures, seat.machine.figures
        one.plans, one.repaired = machine.plans, machine.repaired
        one.vain_s = sum(seat.thought.values())
        one.wait_mean_s = seat.waited / one.placed if one.placed else 0.0
        team.schedulers.append(one)
        team.placed += one.placed
        team.conflicts += one.conflicts
        team.plans += one.plans
        team.repaired += one.repaired
        if seconds:
            team.busy_useful += one.useful_s / seconds
            team.busy_wasted += one.wasted_s / seconds


def _policy_of(team: Team, number: int) -> str:
    return team.name if team.queues == "one" else f"{team.name}-{number}"


def _load(store: SimStore, cell: Cell) -> None:
    things = [
        Put(keys.inventory(FAMILY_OF[type(thing)], name_of(thing)), encode(thing))
        for thing in cell.things()
    ]
    for start in range(0, len(things), 100):
        store.commit([Transaction((), tuple(things[start : start + 100]))])
    store.compact(store.revision)


def _held_twice(view: CellView, proposal: Proposal) -> int:
    """Return how many units of a placement somebody else holds as well."""
    assert proposal.placement is not None
    twice = 0
    for unit in proposal.placement.held:
        kind, _, subject = unit.partition("/")
        if kind == "share":
            over = sum(view.shares[subject].values()) > 1000
            twice += over or bool(view.holders.get(f"engine/{subject}"))
        elif kind == "host":
            free = view.free_host(subject)
            twice += min(free) < 0
        else:
            twice += len(view.holders[unit]) > 1 or (kind == "engine" and subject in view.shares)
    return twice
