"""Which cases answer which question?"""

from collections.abc import Iterator
from itertools import product

from beyond_parts.cases import Case
from flowos.simulation.full.setup import Check, Looks
from flowos.simulation.light.schedulers import Pace

LOOKS: tuple[Looks, ...] = ("frozen", "live")
CHECKS: tuple[Check, ...] = ("fine", "coarse")
JOB_S = (0.05, 0.2, 0.5, 1.0, 1.5)
LOADS = (0.6, 0.8, 0.95)
CELL = "fat-tree:512"


def sweep(quick: bool) -> Iterator[Case]:
    """Yield the paper's t_job sweep, eight schedulers on queues of their own, with either view."""
    for job_s, looks in product((0.2, 1.5) if quick else JOB_S, LOOKS):
        yield Case(
            f"t_job_{job_s:g}s_{looks}", "window", "gangs", 250 if quick else 600, 4.0, 0.6,
            cell=CELL, pace=Pace(job_s, 0.005), looks=looks, homes=False,
        )  # fmt: skip


def kinds(quick: bool) -> Iterator[Case]:
    """Yield slices of circuits, shares, and parts of hosts; few uplinks, so that lanes are rare."""
    for looks in LOOKS:
        yield Case(
            f"kinds_{looks}", "kinds", "wide", 200 if quick else 500, 4.0, 0.6, cell="torus:4x4x4",
            pace=Pace(0.5, 0.005), looks=looks, homes=False,
        )  # fmt: skip


def affinity(quick: bool) -> Iterator[Case]:
    """Yield quick decisions on one queue, with the nodes divided and not."""
    for schedulers, homes in product((8,) if quick else (2, 4, 8), (False, True)):
        yield Case(
            f"{schedulers}_schedulers_{'homes' if homes else 'no_homes'}", "affinity", "gangs",
            300 if quick else 800, 100.0 * schedulers, 0.7, cell=CELL, schedulers=schedulers,
            pace=Pace(0.003, 0.0), queues="one", homes=homes,
        )  # fmt: skip


def coarse(quick: bool) -> Iterator[Case]:
    """Yield one sequence number for each node beside a compare for each unit."""
    for busy, check in product((0.6,) if quick else LOADS, CHECKS):
        yield Case(
            f"check_{busy:g}_{check}", "check", "gangs", 250 if quick else 600, 100.0, busy,
            cell=CELL, queues="one", homes=False, check=check,
        )  # fmt: skip


def heavy(quick: bool) -> Iterator[Case]:
    """Yield sizes and durations with a heavy tail."""
    for looks in LOOKS:
        yield Case(
            f"heavy_{looks}", "heavy", "heavy", 250 if quick else 800, 4.0, 0.6, cell=CELL,
            pace=Pace(0.5, 0.005), looks=looks, homes=False,
        )  # fmt: skip


def traces(quick: bool) -> Iterator[Case]:
    """Yield real traces, four schedulers on one queue."""
    for load in (0.6,) if quick else LOADS:
        many = 1 if quick else 1.5
        yield Case(
            f"openb_{load:g}", "traces", "openb_default.jobs.csv.gz", int(500 * many), 50.0, load,
            cell="openb.cell.csv:48" if quick else "openb.cell.csv:24", schedulers=4, queues="one",
        )  # fmt: skip
        yield Case(
            f"philly600_{load:g}", "traces", "philly_2017a.jobs.csv.gz", int(1_000 * many), 10.0, load,
            cell="fat-tree:600", schedulers=4, queues="one",
        )  # fmt: skip
        yield Case(
            f"prism_{load:g}", "traces", "prism", int(60 * many), 10.0, load, cell="fat-tree:200",
            schedulers=4, queues="one",
        )  # fmt: skip
    for policy in ("shortest",) if quick else ("shortest", "batch"):
        yield Case(
            f"muri_{policy}", "muri", "muri_testbed.jobs.csv", 400, 0.0, 0.0, faster=1_000.0,
            cell="gpu-islands:8", schedulers=1, queues="one", policy=policy, to_the_end=True,
        )  # fmt: skip


def eight(quick: bool) -> Iterator[Case]:
    """Yield eight schedulers beside one that is alone and sees all at once: the sequential way."""
    for busy in (0.8,) if quick else LOADS:
        for name, schedulers in (("alone", 1), ("eight", 8)):
            trip, news = (0.0, 0.0) if schedulers == 1 else (0.002, 0.001)
            yield Case(
                f"{name}_{busy:g}", "eight", "rings", 400 if quick else 800, 100.0, busy,
                cell="fat-tree:1000", schedulers=schedulers, queues="one", round_trip_s=trip, news_s=news,
            )  # fmt: skip


def holds(quick: bool, placements: int) -> Iterator[Case]:
    """Yield many placements, all of which are checked, in runs of a bounded length."""
    each = min(placements, 2_500 if quick else 25_000)
    for seed in range(max(1, placements // each)):
        yield Case(
            f"holds_{seed}", "holds", "all", each, 2_000.0, 0.8, schedulers=2, queues="one",
            seed=seed + 1, to_the_end=True,
        )  # fmt: skip


def speed(quick: bool) -> Iterator[Case]:
    """Yield the full code of one scheduler, as fast as it goes."""
    yield Case(
        "speed", "speed", "node", 8_000 if quick else 30_000, 5_000.0, 0.7, schedulers=1,
        queues="one", to_the_end=True,
    )  # fmt: skip
