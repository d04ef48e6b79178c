"""Which contests can hypothesis make up, and in which order can things happen in them?

Small ones: what a race of a hundred schedulers shows, one of three shows as well, and can be read.
"""

from dataclasses import replace
from math import inf
from typing import Final

from flowos.model.slice import CircuitWish, EngineChoice, EngineRole, HostRole, Shape, SliceSpec
from flowos.simulation.full.setup import Arrival
from flowos.simulation.light.schedulers import Pace
from flowos.testing.cells import GIB, Shaped
from flowos.testing.interleaving import Contest

try:
    from hypothesis import strategies as st
except ImportError as missing:
    raise ImportError(
        "contests are made up with hypothesis, which is not installed: pip install hypothesis"
    ) from missing

SCHEDULERS_MAX: Final = 4
SLICES_MAX: Final = 10
CHOICES_MAX: Final = 60
_AMONG: Final = 12  # a choice is taken by its remainder; there are seldom more moves than that


def choices() -> st.SearchStrategy[list[int]]:
    """Return orders in which things happen, as `play` takes them."""
    return st.lists(st.integers(0, _AMONG - 1), max_size=CHOICES_MAX)


@st.composite
def arrivals(draw: st.DrawFn, engines: int, *, takeovers: bool) -> tuple[Arrival, ...]:
    """Return slices that an idle cell of so many GPUs can each serve in some way.

    Half of the time all are alike and come at once: then they want the same.
    """
    count = draw(st.integers(2, SLICES_MAX))
    alike = draw(st.booleans())
    made = [draw(_asked(engines, takeovers=takeovers)) for _ in range(1 if alike else count)]
    return tuple(
        Arrival(
            0.0 if alike else draw(st.sampled_from([0.0, 0.0, 0.005, 0.05])),
            replace(made[number % len(made)][0], name=f"x{number}"),
            made[number % len(made)][1],
        )
        for number in range(count)
    )


@st.composite
def _asked(draw: st.DrawFn, engines: int, *, takeovers: bool) -> tuple[SliceSpec, float]:
    """Return what is asked for, and for how long."""
    kind = draw(st.sampled_from(["gang", "gang", "ring", "share", "host", "beside"]))
    workers: dict[str, EngineRole] = {}
    hosts: dict[str, HostRole] = {}
    if kind == "share":
        millis = draw(st.sampled_from([250, 500]))
        workers["w"] = EngineRole((EngineChoice("gpu", count=1, share_millis=millis),))
    elif kind == "host":
        hosts["d"] = HostRole(draw(st.sampled_from([1000, 4000])), GIB, 1)
    else:
        workers["w"] = EngineRole((EngineChoice("gpu", count=draw(st.integers(1, engines))),))
    if kind == "beside":
        hosts["w"] = HostRole(1000)
    spec = SliceSpec(
        "x",
        priority=draw(st.sampled_from([0, 0, 0, 5])),
        engines=workers,
        hosts=hosts,
        circuits=(CircuitWish(Shape.RING, ("w",)),) if kind == "ring" else (),
        preemptible=draw(st.sampled_from([False, False, takeovers])),
    )
    return spec, draw(st.sampled_from([inf, inf, 0.05, 0.5]))


@st.composite
def contests(
    draw: st.DrawFn, *, mistakes: bool = True, takeovers: bool = True, policies: int = 1
) -> Contest:
    """Return contests.

    Args:
        draw: Hypothesis's own.
        mistakes: Whether the store may hold claims that no placement lists.
        takeovers: Whether slices may have to give way to more important ones.
        policies: From how many policies each scheduler has one.
    """
    cell = Shaped(
        nodes=draw(st.integers(1, 4)),
        gpus=draw(st.integers(1, 4)),
        fpgas=0,
        lanes=draw(st.sampled_from([1, 2, 4])),
    )
    schedulers = draw(st.integers(2, SCHEDULERS_MAX))
    engines = [f"n{node}/gpu{gpu}" for node in range(cell.nodes) for gpu in range(cell.gpus)]
    # What it takes to plan is never nothing: else whoever is first is always done first.
    think = st.sampled_from([0.001, 0.01, 0.03, 0.1])
    ghosts = draw(st.lists(st.sampled_from(engines), max_size=1)) if mistakes else []
    return Contest(
        cell,
        draw(arrivals(len(engines), takeovers=takeovers)),
        schedulers,
        draw(st.sampled_from(["each", "each", "one"])),
        tuple(Pace(draw(think), 0.0) for _ in range(schedulers)),
        draw(st.sampled_from([0.001, 0.01, 0.05])),
        tuple(ghosts),
        seed=draw(st.integers(0, 3)),
        kinds=_kinds(draw, schedulers, policies),
    )


def _kinds(draw: st.DrawFn, schedulers: int, policies: int) -> tuple[int, ...]:
    if policies == 1:
        return ()
    return tuple(draw(st.integers(0, policies - 1)) for _ in range(schedulers))
