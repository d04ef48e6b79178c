"""Which races are the worst that were found, what makes them bad, and what is done about that?

Each is all data: a contest and an order of moves, found by `flowos.testing.hunt` and made simpler.
Played again it is the same to the last move, so that whoever changes the loop sees what that does.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Any, Final

from flowos.model.slice import CircuitWish, EngineRole, HostRole, Shape, SliceSpec
from flowos.simulation.full.setup import Arrival
from flowos.simulation.light.schedulers import Pace
from flowos.testing.cells import GIB, Shaped, want
from flowos.testing.interleaving import Contest


@dataclass(frozen=True)
class Known:
    """A race that is known to be bad.

    Attributes:
        name: Two to five words.
        contest: Who wants what where.
        figure: In which it is bad, one of `flowos.testing.hunt.OBJECTIVES`.
        most: What that is with all mitigations, at most.
        without: The mitigations that are about this race; none = no one is.
        least: What the figure is without these, at least; less than `most` where they cost more
            than they save.
        bad: What makes it bad, for people.
        done: What the product does about it, and what is left.
        choices: In which order things happen; () = calmly.
    """

    name: str
    contest: Contest
    figure: str
    most: float
    without: tuple[str, ...]
    least: float
    bad: str
    done: str
    choices: tuple[int, ...] = ()


def _gpus(
    name: str, count: int, *, at: float = 0.0, runs: float = inf, share: int = 1000, **more: Any
) -> Arrival:
    roles: dict[str, EngineRole] = {"w": want(count, share_millis=share)}
    return Arrival(at, SliceSpec(name, engines=roles, **more), runs)


def _cpus(name: str, millis: int) -> Arrival:
    return Arrival(0.0, SliceSpec(name, hosts={"d": HostRole(millis, GIB, 1)}), inf)


def _many(count: int, make: Callable[[str], Arrival]) -> tuple[Arrival, ...]:
    return tuple(make(f"s{number}") for number in range(count))


_RING: Final = (CircuitWish(Shape.RING, ("w",)),)
_10_MS: Final = (Pace(0.01, 0.0),)

WORST: Final[tuple[Known, ...]] = (
    Known(
        "all want most of the cell",
        Contest(
            Shaped(nodes=2, gpus=2, fpgas=0, lanes=1),
            _many(4, lambda name: _gpus(name, 3, circuits=_RING)),
            schedulers=4,
            paces=(Pace(0.001, 0.0),),
        ),
        "conflict fraction",
        3.0,
        (),
        3.0,
        "Four schedulers plan at the same moment, each for a gang of three of the four GPUs with a "
        "ring. Any two of these plans share a GPU, so of each four commits three are lost: the most "
        "that four can lose for each that wins.",
        "Each loses once and no more: it waits until its view shows the winner, finds no room, and "
        "says so. Nobody holds a part. No mitigation can make it less, as nobody knows of the "
        "others before.",
    ),
    Known(
        "every end wakes everybody",
        Contest(
            Shaped(nodes=2, gpus=2, fpgas=0),
            _many(8, lambda name: _gpus(name, 4, runs=0.05)),
            schedulers=4,
            paces=_10_MS,
        ),
        "longest wait",
        0.5,
        ("repair",),
        0.6,
        "Eight gangs of the whole cell, in four queues. Whenever one ends, all who wait are woken, "
        "plan the same and send: one wins, the rest lose again, at each end.",
        "With the plan that was lost kept, the next one is sent without planning anew (repair), so "
        "the cell is idle for a round trip between two gangs and not for a whole decision. The lost "
        "commits are the same.",
    ),
    Known(
        "all like the same place best",
        Contest(
            Shaped(nodes=8, gpus=1, fpgas=0),
            _many(8, lambda name: _gpus(name, 1)),
            schedulers=4,
            paces=_10_MS,
        ),
        "conflict fraction",
        0.7,
        ("chance",),
        1.3,
        "Eight GPUs, all alike, and eight slices for one each: there is room for all. But the best "
        "place is the best for everybody, so all go for the same GPU, and then for the next.",
        "Each takes one of the best few by a seed of its own (chance). What still meets is what "
        "eight places leave to chance.",
    ),
    Known(
        "one queue for all",
        Contest(
            Shaped(nodes=4, gpus=2, fpgas=0),
            _many(8, lambda name: _gpus(name, 1)),
            schedulers=4,
            queues="one",
            paces=_10_MS,
        ),
        "conflict fraction",
        0.8,
        ("division",),
        2.0,
        "Four processes of one policy serve one queue, and each begins at its head: all of them plan "
        "the same slices, and all but one for nothing.",
        "Who goes first with a slice follows from its name and the sessions that live (division); "
        "nobody is asked. An owner that is silent for a second is helped out.",
    ),
    Known(
        "parts of one host",
        Contest(
            Shaped(nodes=1, gpus=1, fpgas=0),
            _many(8, lambda name: _cpus(name, 1000)),
            schedulers=4,
            paces=_10_MS,
        ),
        "wasted work",
        0.1,
        ("repair",),
        0.5,
        "Eight slices want an eighth of one host each, and all fit. But a part is compared by "
        "'nobody put anything here since my view', so any two that are under way meet, though "
        "neither takes anything from the other.",
        "Whoever lost looks whether all it wanted is still free, and sends the same plan again "
        "(repair): a lost round trip, and no lost decision.",
    ),
    Known(
        "a whole request is lost",
        Contest(
            Shaped(nodes=2, gpus=1, fpgas=0, lanes=2),
            _many(8, lambda name: _gpus(name, 1, share=500)),
            paces=_10_MS,
            delay_s=0.05,
            seed=2,
        ),
        "unfairness",
        4.0,
        (),
        4.0,
        "Two schedulers have four halves of a GPU each in one request, and there is room for four. "
        "The first request takes all; all four of the second are lost at once, by the guard of two "
        "engines. So one scheduler has everything and the other one nothing.",
        "Nothing: who comes first has it, and with queues of their own nobody shares. It is told in "
        "`scheduler stats`; a quota or a reservation is what an operator has against it.",
    ),
    Known(
        "a take-over by a slow thinker",
        Contest(
            Shaped(nodes=2, gpus=3, fpgas=0),
            (
                _gpus("high", 6, priority=5),
                _gpus("rival", 1, at=0.05, runs=0.05, priority=5),
                _gpus("low", 6, preemptible=True),
            ),
            schedulers=3,
            paces=(Pace(0.1, 0.0), Pace(0.03, 0.0)),
            seed=1,
        ),
        "longest wait",
        5.0,
        (),
        4.0,
        "A slice that may take over needs several plans to find from whom, 0.1 s each here. While "
        "it thinks, a faster one takes over from the same victim. The commit is lost, and who gives "
        "way is looked for for a tenth of the time at most: the next look is seconds away.",
        "The limit is on purpose: else a slow policy would do nothing else. Policies that plan in "
        "ten milliseconds wait 0.5 s. A take-over is not looked at again before it is sent.",
    ),
    Known(
        "a part of what nobody is seen to hold",
        Contest(
            Shaped(nodes=1, gpus=1, fpgas=0),
            (_gpus("part", 1, share=500),),
            schedulers=1,
            ghosts=("n0/gpu0",),
        ),
        "conflict fraction",
        5.0,
        ("avoidance",),
        8.0,
        "By a mistake the store has a claim of an engine that no placement lists. A slice asks for "
        "half of it; the view says that it is free, the store that it is not. The hunt found that "
        "it came again after ever shorter pauses, some 400 times a second: what was refused was the "
        "whole engine, and only parts of the plan itself were replaced.",
        "What broke for something that is not in the plan is planned anew, around it; and what is "
        "refused though nobody is seen to hold it is left alone for 0.5 s, then twice as long each "
        "time (avoidance).",
    ),
    Known(
        "a gang in an overloaded stream",
        Contest(
            Shaped(nodes=2, gpus=2, fpgas=0),
            (
                _gpus("gang", 4, at=0.1, runs=1.0),
                *(
                    _gpus(f"s{number}", 1, at=0.03 * (number // 2), runs=0.1, expected_seconds=0.1)
                    for number in range(40)
                ),
            ),
            paces=(Pace(0.001, 0.0),),
            delay_s=0.001,
        ),
        "conflict fraction",
        0.8,
        ("marks",),
        0.2,
        "Small slices come one and a half times as fast as they end, to two schedulers, and a gang "
        "of the whole cell among them. Each scheduler marks for the first that waits, at once; both "
        "then wait for the same GPU, and when it is free they race for it.",
        "This is what marks cost: half as many lost commits again as without. What they buy is that "
        "no stream keeps a gang out for ever.",
    ),
)
"""The worst that were found, each with what it is bad in."""
