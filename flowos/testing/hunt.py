"""In which contest, and in which order of moves, do schedulers cost each other most?

In a plug-in's own tests, with hypothesis installed:

    from flowos.testing.hunt import hunt
    from flowos_store.memory import MemoryStore

    def test_in_races():
        hunt(Deadline, MemoryStore).check()

That makes up some hundreds of contests (cells, requests, schedulers, how long these think, and the
order of all that happens), each played by the production loop with this policy, and looks for the
worst. A law that is broken in any of them is an error; how bad the worst is, is told.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from flowos.testing.interleaving import (
    ALL,
    Contest,
    Ground,
    Mitigations,
    NewStore,
    Played,
    Policies,
    Restless,
    play,
)

EXAMPLES: Final = 150  # contests for each figure: some seconds for all
SIMPLER_TRIES: Final = 300  # at making a found one simpler


class Objective(NamedTuple):
    """A figure whose worst is looked for.

    Attributes:
        name: One word or two, for tables.
        of: Returns it; more is worse.
        says: What it is, with its unit.
        beside_one: Whether it counts from what one scheduler has that plans all slices by itself.
    """

    name: str
    of: Callable[[Played], float]
    says: str
    beside_one: bool = False

    def value(
        self, contest: Contest, played: Played, policy: Policies, new_store: NewStore
    ) -> float:
        """Return the figure of a run of a contest."""
        value = self.of(played)
        if self.beside_one and value:
            one = replace(contest, schedulers=1, queues="one")
            value -= self.of(ended(Ground(one, new_store), (), policy, ALL))
        return value


OBJECTIVES: Final[Mapping[str, Objective]] = {
    each.name: each
    for each in (
        Objective(
            "conflict fraction", lambda p: p.conflict_fraction, "lost commits for each that won"
        ),
        Objective(
            "plans per placed",
            lambda p: p.plans_per_placed,
            "plans that found room, for each slice placed",
        ),
        Objective(
            "longest wait",
            lambda p: p.longest_wait_s,
            "seconds until a slice was placed, beyond what it takes one scheduler that has all",
            beside_one=True,
        ),
        Objective(
            "unfairness",
            lambda p: p.unfairness,
            "commits lost for each that won: the unluckiest scheduler's less the luckiest's",
        ),
        Objective("wasted work", lambda p: p.wasted, "share of the planning time thrown away"),
    )
}
"""What is hunted for."""


@dataclass(frozen=True)
class Catch:
    """A run, with all that it takes to play it again.

    Attributes:
        score: The figure that it was looked for.
    """

    contest: Contest
    choices: tuple[int, ...]
    score: float
    played: Played

    def __str__(self) -> str:
        """Return it as an expression that makes it again."""
        return f"{self.contest!r}, choices={list(self.choices)!r}"


@dataclass
class Hunted:
    """What was found.

    Attributes:
        runs: How many were played.
        worst: Objective -> the worst that was found.
        scores: Objective -> of all runs that were played for it, in their order.
        broken: Law -> the first run that broke it, and what was broken.
    """

    runs: int = 0
    worst: dict[str, Catch] = field(default_factory=dict)
    scores: dict[str, list[float]] = field(default_factory=dict)
    broken: dict[str, tuple[Contest, tuple[int, ...], str]] = field(default_factory=dict)

    def check(self) -> None:
        """Look whether any law was broken.

        Raises:
            AssertionError: One was; it says in which run, as an expression that makes it again.
        """
        for law, (contest, choices, what) in self.broken.items():
            raise AssertionError(f"{law}: {what}\nin {contest!r}, choices={list(choices)!r}")

    def __str__(self) -> str:
        """Return a line for each objective."""
        lines = [
            f"{name:<18} {catch.score:8.3f}  {OBJECTIVES[name].says}"
            for name, catch in self.worst.items()
        ]
        lines += [f"BROKEN {law}: {what}" for law, (_, _, what) in self.broken.items()]
        return "\n".join([f"{self.runs} runs; the worst that were found:", *lines])


def hunt(
    policy: Policies,
    new_store: NewStore,
    *,
    objectives: Sequence[str] = tuple(OBJECTIVES),
    examples: int = EXAMPLES,
    mitigations: Mitigations = ALL,
    searching: bool = True,
    mistakes: bool = True,
    takeovers: bool = True,
    simpler: bool = True,
    checked: bool = True,
) -> Hunted:
    """Look for the worst that can happen to schedulers of a policy; the same each time.

    Args:
        policy: Makes one; each scheduler has its own. Of several, contests say which one.
        new_store: Makes an empty store on a virtual clock: `flowos_store.memory.MemoryStore`.
        objectives: Names of `OBJECTIVES`.
        examples: Contests to make up for each objective.
        mitigations: What is done about races.
        searching: Whether what was bad is made worse (`hypothesis.target`); else each is made up
            on its own.
        mistakes: Whether the store may hold claims that no placement lists.
        takeovers: Whether slices may have to give way to more important ones.
        simpler: Whether the worst are made simpler at the end, as long as they stay as bad.
        checked: Whether the laws are checked at each revision.

    Raises:
        ImportError: Hypothesis is not installed.
    """
    from flowos.testing.hunting import search

    found = Hunted()
    for name in objectives:
        objective = OBJECTIVES[name]

        def score(
            contest: Contest, choices: Sequence[int], objective: Objective = objective
        ) -> float:
            played = tried(found, contest, choices, policy, new_store, mitigations, checked=checked)
            if played is None or not played.placed:
                return 0.0
            value = objective.value(contest, played, policy, new_store)
            found.scores.setdefault(objective.name, []).append(value)
            best = found.worst.get(objective.name)
            if best is None or value > best.score:
                found.worst[objective.name] = Catch(contest, tuple(played.choices), value, played)
            return value

        search(
            score,
            examples=examples,
            searching=searching,
            mistakes=mistakes,
            takeovers=takeovers,
            policies=1 if callable(policy) else len(policy),
        )
        if simpler and name in found.worst:
            found.worst[name] = simplified(
                found.worst[name], objective, policy, new_store, mitigations
            )
    return found


def made_up(
    examples: int, *, mistakes: bool = False, takeovers: bool = True
) -> list[tuple[Contest, tuple[int, ...]]]:
    """Return contests and orders of moves, none of them looked for; the same each time.

    Raises:
        ImportError: Hypothesis is not installed.
    """
    from flowos.testing.hunting import search

    found: list[tuple[Contest, tuple[int, ...]]] = []

    def keep(contest: Contest, choices: Sequence[int]) -> float:
        found.append((contest, tuple(choices)))
        return 0.0

    search(keep, examples=examples, searching=False, mistakes=mistakes, takeovers=takeovers)
    return found


def ended(
    ground: Ground, choices: Sequence[int], policy: Policies, mitigations: Mitigations
) -> Played:
    """Play one run unchecked, and take what came of it by then where it does not come to rest."""
    try:
        return play(ground, choices, policy=policy, mitigations=mitigations, checked=False)
    except Restless as restless:
        return restless.played


def tried(
    found: Hunted,
    contest: Contest,
    choices: Sequence[int],
    policy: Policies,
    new_store: NewStore,
    mitigations: Mitigations,
    *,
    checked: bool,
) -> Played | None:
    """Play one run and note which laws it broke; None = it came to no rest."""
    found.runs += 1
    ground = Ground(contest, new_store)
    try:
        played = play(ground, choices, policy=policy, mitigations=mitigations, checked=checked)
    except Restless as restless:
        found.broken.setdefault("comes to rest", (contest, tuple(choices), str(restless)))
        return None
    run = contest, tuple(played.choices)
    for violation in played.violations:
        found.broken.setdefault(violation.law, (*run, violation.sentence))
    if played.left:
        names = ", ".join(played.left)
        found.broken.setdefault("nobody is left", (*run, f"{names} waits, and there is room"))
    return played


def simplified(
    catch: Catch,
    objective: Objective,
    policy: Policies,
    new_store: NewStore,
    mitigations: Mitigations = ALL,
    *,
    tries: int = SIMPLER_TRIES,
) -> Catch:
    """Return a run about as bad with fewer slices, schedulers and choices that matter."""
    best, least = catch, catch.score * 0.999
    left = tries

    def attempt(contest: Contest, choices: Sequence[int]) -> bool:
        nonlocal best, left
        if left <= 0:
            return False
        left -= 1
        try:
            played = play(
                Ground(contest, new_store),
                choices,
                policy=policy,
                mitigations=mitigations,
                checked=False,
            )
        except Restless:
            return False
        if not played.placed:
            return False
        value = objective.value(contest, played, policy, new_store)
        if value < least:
            return False
        best = Catch(contest, tuple(choices), value, played)
        return True

    changed = True
    while changed and left > 0:
        changed = False
        for contest in _smaller(best.contest):
            changed = attempt(contest, best.choices) or changed
            if changed:
                break
        length = len(best.choices)
        while length:  # the end of it, in ever smaller parts
            length //= 2
            while attempt(best.contest, best.choices[: len(best.choices) - length or None]):
                if not length or not best.choices:
                    break
                changed = True
        for place in range(len(best.choices)):
            if place < len(best.choices) and best.choices[place]:
                choices = list(best.choices)
                choices[place] = 0
                changed = attempt(best.contest, choices) or changed
        while best.choices and not best.choices[-1]:
            best = replace(best, choices=best.choices[:-1])
    return best


def _smaller(contest: Contest) -> list[Contest]:
    """Return contests with something left out, that which matters most first."""
    arrivals = contest.arrivals
    found = [
        replace(contest, arrivals=arrivals[:place] + arrivals[place + 1 :])
        for place in range(len(arrivals))
    ]
    if contest.schedulers > 2:
        found.append(replace(contest, schedulers=contest.schedulers - 1))
    if contest.ghosts:
        found.append(replace(contest, ghosts=()))
    for arrival in arrivals:
        plain = arrival._replace(at_s=0.0)
        if plain != arrival:
            others = tuple(plain if each is arrival else each for each in arrivals)
            found.append(replace(contest, arrivals=others))
    return found
