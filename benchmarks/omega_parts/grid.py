"""The paper's Fig. 9: what does it cost to divide batch jobs among more schedulers, at more load?"""

from statistics import fmean
from typing import Any, NamedTuple

from flowos.simulation.light.law import expected_conflicts
from flowos.simulation.light.run import run
from flowos.simulation.light.schedulers import Pace
from omega_parts.reference import Case, jobs_of, setups

GRID_SCHEDULERS = (1, 2, 4, 8, 16, 32)
GRID_LOADS = (1, 2, 4, 6, 8, 10)
# Counted in the reference's cell, of 10,000: 60 % of CPUs held, batch and service running.
WITH_ROOM = 6_674
SECONDS = 21_600.0


class Cell(NamedTuple):
    """One point of the grid; fractions are conflicts for each success.

    Attributes:
        fine: Measured, where a claim conflicts if it does not fit.
        coarse: Measured, where it conflicts once its machine has changed.
        law: What the birthday law expects of the coarse one.
        busyness: Of a batch scheduler, fine.
    """

    schedulers: int
    load: int
    fine: float
    coarse: float
    law: float
    busyness: float
    wait_s: float


def grid_cell(point: tuple[int, int]) -> Cell:
    """Measure one point, over three seeds."""
    schedulers, load = point
    name = f"pl6h_x{load}"
    jobs = jobs_of(name)
    assert jobs is not None, "a job list of its own"
    found = {}
    for check in ("resource-fit", "sequence-numbers"):
        case = Case(name, f"omega:{check}:incremental", schedulers, 0.1, 0.005, "Batch", SECONDS, 0)
        found[check] = [run(setup, jobs).classes["Batch"] for setup in setups(case)]
    batch = [job for job in jobs if job.name == "Batch"]
    service = [job for job in jobs if job.name == "Service"]
    law = expected_conflicts(
        batch,
        [(batch, 1 - 1 / schedulers), (service, 1.0)],
        Pace(),
        seconds=SECONDS,
        machines=WITH_ROOM,
    )
    fine, coarse = found["resource-fit"], found["sequence-numbers"]
    return Cell(
        schedulers,
        load,
        fmean(f.conflict_fraction for f in fine),
        fmean(f.conflict_fraction for f in coarse),
        law,
        fmean(f.busyness for f in fine),
        fmean(f.wait_first_mean_s for f in fine),
    )


def draw_grid(axes: Any, cells: list[Cell]) -> None:  # matplotlib has no types
    """Draw conflicts over schedulers, a line for each load, the law dashed."""
    for load in sorted({cell.load for cell in cells}):
        line = sorted(c for c in cells if c.load == load)
        (drawn,) = axes.plot([c.schedulers for c in line], [c.coarse for c in line], marker="o",
                             label=f"{load} x")  # fmt: skip
        axes.plot(
            [c.schedulers for c in line],
            [c.law for c in line],
            linestyle="--",
            color=drawn.get_color(),
        )
    axes.set_xscale("log", base=2)
    axes.set_xticks(GRID_SCHEDULERS, [str(n) for n in GRID_SCHEDULERS])
    axes.set_xlabel("batch schedulers")
    axes.set_ylabel("conflicts for each success\n(coarse; dashed: birthday law)")
    axes.legend(title="rate of jobs")
