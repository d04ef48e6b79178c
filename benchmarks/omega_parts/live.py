"""What is left of the conflicts when the copy is live until the end of the decision?

The paper's t_job sweep again, with the product's way: the private copy is kept in step while a
decision is made, what broke is replaced at its end, and only the commit's round trip is left for
rivals. By the birthday law conflicts fall as the window does.
"""

from dataclasses import replace
from statistics import fmean
from typing import Any, NamedTuple

from flowos.simulation.light.run import run
from omega_parts.reference import Case, jobs_of, setups

ROUND_TRIP_S = 0.002  # of a commit to etcd with fsync, as `commit.py` measures it
SWEEP_S = (0.1, 1.0, 3.0, 10.0, 30.0)
_LOADS = ("pl10k", "pl10k_heavy")


class Window(NamedTuple):
    """One point: conflicts of the service scheduler for each success.

    Attributes:
        load: Which jobs.
        stale: With a copy as old as the decision, as published.
        live: With a live one.
    """

    load: str
    job_s: float
    stale: float
    live: float
    stale_wait_s: float
    live_wait_s: float


def windows(quick: bool) -> list[tuple[str, float]]:
    """Return the points to be measured."""
    if quick:
        return [("pl10k", 10.0)]
    return [(load, job_s) for load in _LOADS for job_s in SWEEP_S]


def window(point: tuple[str, float]) -> Window:
    """Measure one point, over three seeds, where claims conflict coarsely: the harder check."""
    load, job_s = point
    jobs = jobs_of(load)
    assert jobs is not None, "it is one of ours"
    case = Case(load, "omega:sequence-numbers:incremental", 1, job_s, 0.005, "Service", 86_400.0, 0)
    both = [
        [
            run(replace(setup, live_round_trip_s=round_trip), jobs).classes["Service"]
            for setup in setups(case)
        ]
        for round_trip in (None, ROUND_TRIP_S)
    ]
    stale, live = both
    return Window(
        load,
        job_s,
        fmean(f.conflict_fraction for f in stale),
        fmean(f.conflict_fraction for f in live),
        fmean(f.wait_first_mean_s for f in stale),
        fmean(f.wait_first_mean_s for f in live),
    )


def draw_windows(axes: Any, found: list[Window]) -> None:  # matplotlib has no types
    """Draw conflicts over the time of a decision, both ways."""
    for load in _LOADS:
        line = sorted((w for w in found if w.load == load), key=lambda w: w.job_s)
        for name, values in (("stale", [w.stale for w in line]), ("live", [w.live for w in line])):
            axes.plot([w.job_s for w in line], values, marker="o" if load == _LOADS[0] else "s",
                      fillstyle="full" if load == _LOADS[0] else "none",
                      linestyle="-" if name == "stale" else "--", label=f"{load}, {name} copy")  # fmt: skip
    axes.set_xscale("log")
    # Nothing has a place of its own, below all that is something.
    least = min((v for w in found for v in (w.stale, w.live) if v), default=1.0)
    axes.set_yscale("symlog", linthresh=least)
    axes.set_ylim(bottom=-least / 10)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("t_job of service, s")
    axes.set_ylabel("conflicts for each success")
    axes.legend()
