"""Which slices come, when, and for how long do they run? Drawn, from job lists, or from traces."""

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from flowos.model.cell import Cell
from flowos.model.slice import (
    CircuitWish,
    EngineChoice,
    EngineRole,
    HostRole,
    Run,
    Shape,
    SliceSpec,
)
from flowos.simulation.full.deliberate import engines_of
from flowos.simulation.full.setup import Arrival
from flowos.simulation.jobs import Job as TraceJob
from flowos.simulation.jobs import slice_name
from flowos.simulation.light.loads import Draw
from flowos.simulation.light.loads import Job as LightJob


@dataclass(frozen=True, slots=True)
class Mix:
    """What drawn slices ask for.

    Attributes:
        engines_max: Of a slice.
        engines: What sizes are drawn from; None = evenly from 1 to the most.
        runs_s: What durations are drawn from.
        kind: Of its engines.
        ring: The part of slices of two engines and more whose engines form a ring of circuits.
        shares: The part that asks for a share of one engine instead; 250, 500 or 750 thousandths.
        hosts: The part that needs CPU and memory of its nodes.
        together: Whether all engines have to be on one node.
        policy: Which team serves them; "" = the first.
    """

    engines_max: int = 8
    engines: Draw | None = None
    runs_s: Draw = Draw("exponential", 60.0)
    kind: str = "gpu"
    ring: float = 0.0
    shares: float = 0.0
    hosts: float = 0.0
    together: bool = False
    policy: str = ""


_FASTEST: Final = 1e6  # times as fast
_HALVINGS: Final = 50

# Most slices are small and short; a few take most of the cell, and stay.
HEAVY: Final = Mix(
    engines_max=64, engines=Draw("log-normal", 1.2, 1.6), runs_s=Draw("log-normal", 20.0, 2.0)
)


def drawn(mix: Mix, count: int, gap_s: float, seed: int, *, stem: str = "s") -> list[Arrival]:
    """Return so many slices, the same for the same seed.

    Args:
        mix: What they ask for.
        count: How many.
        gap_s: Mean seconds from one to the next; gaps are exponential.
        seed: Of all that is drawn.
        stem: What their names begin with.
    """
    dice = random.Random(seed)
    now, found = 0.0, []
    for number in range(count):
        now += dice.expovariate(1 / gap_s)
        runs = mix.runs_s(dice)
        spec = _spec(mix, dice, f"{stem}{number}", runs)
        found.append(Arrival(now, spec, runs))
    return found


def _spec(mix: Mix, dice: random.Random, name: str, runs: float) -> SliceSpec:
    if mix.engines is None:
        size = dice.randint(1, mix.engines_max)
    else:
        size = min(mix.engines_max, max(1, math.ceil(mix.engines(dice))))
    shared = dice.random() < mix.shares
    choice = EngineChoice(kind=mix.kind, count=size)
    if shared:
        choice = EngineChoice(kind=mix.kind, share_millis=dice.choice((250, 500, 750)))
    count = choice.count
    ring = not shared and count > 1 and dice.random() < mix.ring
    hosts = {}
    if dice.random() < mix.hosts:
        hosts = {"workers": HostRole(dice.choice((1000, 2000, 4000)), 4 << 30)}
    return SliceSpec(
        name=name,
        policy=mix.policy,
        engines={"workers": EngineRole((choice,))},
        hosts=hosts,
        together={"workers": "node"} if mix.together else {},
        circuits=(CircuitWish(Shape.RING, ("workers",)),) if ring else (),
        run=Run(for_seconds=runs),
    )


def of_light(
    jobs: Iterable[LightJob], teams: Mapping[str, str], *, engines_max: int
) -> list[Arrival]:
    """Return a list of the light mode as slices: an engine for each task, anywhere.

    Args:
        jobs: Tasks that come together.
        teams: Class of jobs -> who serves it.
        engines_max: Larger ones ask for so many.
    """
    found = []
    for number, job in enumerate(jobs):
        choice = EngineChoice(count=min(job.tasks, engines_max))
        spec = SliceSpec(
            name=f"{slice_name(job.name)}-{number}",
            policy=teams[job.name],
            engines={"workers": EngineRole((choice,))},
            run=Run(for_seconds=job.duration_s),
        )
        found.append(Arrival(job.submit_s, spec, job.duration_s))
    return found


def of_trace(
    jobs: Sequence[TraceJob], *, node_engines_max: int, any_model: bool = False
) -> list[Arrival]:
    """Return a trace's jobs as slices; those without a published duration are left out.

    Args:
        jobs: As they were read.
        node_engines_max: Gangs larger than any node may lie on several.
        any_model: Whether the models that a job allows do not matter.
    """
    found = []
    for number, job in enumerate(jobs):
        if not job.duration_s:
            continue
        asked = replace(job, models=()) if any_model else job
        run = Run(for_seconds=job.duration_s)
        name = f"{slice_name(job.name)[:50]}-{number}"
        spec = asked.spec(name, "default", run, node_engines_max=node_engines_max)
        found.append(Arrival(job.submit_s, spec, job.duration_s))
    return found


# ----------------------------------------------------------------------------------- the same, but


def load_of(arrivals: Sequence[Arrival], engines: float) -> float:
    """Return what share of a cell they hold on average while they come, if none has to wait."""
    return _held(arrivals, engines, _last(arrivals))


def at_load(arrivals: Sequence[Arrival], engines: float, load: float) -> list[Arrival]:
    """Return the same slices, coming faster or slower, so that they hold so much of a cell.

    What is meant is the average from the beginning to the last that comes, if none has to wait.

    Raises:
        ValueError: However fast they come, they hold less.
    """
    last = _last(arrivals)
    low, high = 0.0, last  # of the time in which all come
    if _held(arrivals, engines, last / _FASTEST) < load:
        raise ValueError(f"{len(arrivals)} slices never hold {load:g} of {engines:g} engines")
    while _held(arrivals, engines, high) > load:
        low, high = high, 2 * high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _held(arrivals, engines, middle) > load:
            low = middle
        else:
            high = middle
    return [arrival._replace(at_s=arrival.at_s * high / last) for arrival in arrivals]


def _last(arrivals: Sequence[Arrival]) -> float:
    return max((arrival.at_s for arrival in arrivals), default=0.0)


def _held(arrivals: Sequence[Arrival], engines: float, last: float) -> float:
    """Return the share of a cell that slices hold that come within so long."""
    before = _last(arrivals)
    if not last or not before:
        return 0.0
    held = sum(
        engine_amount(arrival.spec) * min(arrival.runs_s, last * (1 - arrival.at_s / before))
        for arrival in arrivals
    )
    return held / (engines * last)


def at_rate(arrivals: Sequence[Arrival], per_s: float) -> list[Arrival]:
    """Return the same in other time: so many come in a second, and run for as much less.

    The load stays. A trace of months has hours between two jobs, and nobody conflicts over hours.
    """
    faster = per_s * _last(arrivals) / len(arrivals) if arrivals else 1.0
    return hurried(arrivals, faster)


def hurried(arrivals: Iterable[Arrival], faster: float) -> list[Arrival]:
    """Return the same in a time that goes so many times as fast."""
    return [_hurried(arrival, 1 / faster) for arrival in arrivals]


def _hurried(arrival: Arrival, part: float) -> Arrival:
    spec, runs = arrival.spec, arrival.runs_s * part
    run = replace(spec.run, for_seconds=runs) if spec.run.for_seconds else spec.run
    return Arrival(arrival.at_s * part, replace(spec, run=run), runs)


def engine_amount(spec: SliceSpec) -> float:
    """Return how many engines a slice asks for, shares as parts of one."""
    choices = [role.choices[0] for role in spec.engines.values()]
    return sum(choice.count * choice.share_millis / 1000 for choice in choices)


def fitting(arrivals: Iterable[Arrival], cell: Cell) -> list[Arrival]:
    """Return those that ask for no more engines than the whole cell has."""
    most = len(cell.engines)
    return [arrival for arrival in arrivals if engines_of(arrival.spec) <= most]
