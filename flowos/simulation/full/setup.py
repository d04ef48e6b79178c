"""What is run: which cell, which schedulers, how long do they think, how old is what they see?"""

from dataclasses import KW_ONLY, dataclass
from typing import Literal, NamedTuple, TypeAlias

from flowos.model.cell import Cell
from flowos.model.slice import SliceSpec
from flowos.planning.policy import Policy
from flowos.simulation.light.schedulers import Pace

AT_ONCE: Pace = Pace(0.0, 0.0)

# "live": what was planned is looked at again, on the view as it is by then, before it is sent, and
# what broke of it is replaced; so it is after a lost race. "frozen": the view is as old as the
# decision, and a lost race is planned anew: Omega as published.
Looks: TypeAlias = Literal["live", "frozen"]
# "one": the schedulers of a team divide one queue among themselves. "each": slices are dealt out,
# in turn, to queues of their own, as in Omega.
Queues: TypeAlias = Literal["one", "each"]
# "fine": a commit conflicts if a unit that it wants is not free any more. "coarse": also if anything
# on one of its nodes was taken since it was planned, as with one sequence number for a machine.
Check: TypeAlias = Literal["fine", "coarse"]


class Arrival(NamedTuple):
    """A slice that comes.

    Attributes:
        at_s: Virtual seconds since the beginning.
        spec: What it asks for. Its policy names the team that it comes to; "" = the first.
        runs_s: How long it holds what it gets; infinite = until the end.
    """

    at_s: float
    spec: SliceSpec
    runs_s: float


@dataclass(frozen=True, slots=True)
class Team:
    """Schedulers of one kind.

    Attributes:
        name: What slices call their policy.
        policy: What decides; each scheduler gets a copy.
        schedulers: How many processes.
        pace: What a decision takes: `job_s`, and `task_s` for each engine asked for. Both 0 = no
            virtual time at all.
        queues: Whose slices are whose.
    """

    name: str
    policy: Policy
    schedulers: int = 1
    pace: Pace = AT_ONCE
    queues: Queues = "one"


@dataclass(frozen=True, slots=True)
class Setup:
    """One run.

    Attributes:
        cell: What there is.
        teams: Who schedules; the first serves the slices that name no policy.
        seconds: When the run ends, virtual; None = when all that came has ended, or nothing more
            can happen.
        looks: How old what they see is when they commit.
        round_trip_s: From a request to its answer; half of it to the store.
        news_s: How long a change is on its way to a view.
        check: What a commit is compared with; the fine compares are made in either case.
        homes: Whether each scheduler looks at its part of the nodes first.
        gather_s: Ends within so long come in one request, as a controller's round has it.
        seed: Of the schedulers' choices among equals, and their pauses.
        keeps_ended: Whether records of slices that have ended stay in the store.
        holds_checked: Whether each placement is checked against all that is held then.
    """

    cell: Cell
    teams: tuple[Team, ...]
    _: KW_ONLY
    seconds: float | None = None
    looks: Looks = "live"
    round_trip_s: float = 0.002
    news_s: float = 0.001
    check: Check = "fine"
    homes: bool = True
    gather_s: float = 0.01
    seed: int = 0
    keeps_ended: bool = False
    holds_checked: bool = True
