"""On which cells are architectures compared, and what is asked of each?

Two classes of slices: batch ones, small and quick to decide on, and services, which are gangs and
take ten times as long to decide on. Where devices are pooled, a slice has a host for each four
devices, and circuits both ways that attach them. Elsewhere a gang's engines form a ring.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from flowos.documents.presets import pooled, preset
from flowos.model.cell import Cell
from flowos.model.slice import CircuitWish, EngineChoice, EngineRole, HostRole, Shape, SliceSpec
from flowos.simulation.full.setup import Arrival
from flowos.simulation.jobs import Job, read_jobs

TRACES: Final = Path(__file__).resolve().parents[3] / "shared" / "traces"
HOURS: Final = 2.0
LOAD: Final = 0.95  # of the GPUs, if nothing were ever lost
SERVICES: Final = 0.3  # of the slices
RUNS_S: Final[Mapping[str, float]] = {"batch": 300.0, "service": 600.0}  # mean, exponential
PER_HOST: Final = 4  # devices
TRACE_FASTER: Final = 10.0  # a day of the trace in 2.4 hours
GIB: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class Place:
    """A cell with its load.

    Attributes:
        about: For people.
        make: The cell.
        sizes: By class: how many GPUs, drawn evenly from these; empty = the trace's.
        is_pooled: Whether its devices are attached to hosts.
    """

    about: str
    make: Callable[[], Cell]
    sizes: Mapping[str, tuple[int, ...]]
    is_pooled: bool = False


def _pool_of_a_rack() -> Cell:
    """Return eight hosts, 32 GPUs and 8 drives around one switch, as the `expether` preset has 2, 8, 4.

    Each host may attach eight devices: so all could attach 64 at once, and there are 40.
    """
    return pooled(hosts=8, gpus=32, drives=8, ports=64, devices_max=8)


SMALL: Final = (1, 1, 2, 3, 4)
PLACES: Final[Mapping[str, Place]] = {
    "expether": Place(
        "2 hosts, 8 pooled GPUs, 4 drives",
        lambda: preset("expether"),
        {"batch": SMALL, "service": (4, 6, 8)},
        is_pooled=True,
    ),
    "pool": Place(
        "8 hosts, 32 pooled GPUs, 8 drives",
        _pool_of_a_rack,
        {"batch": SMALL, "service": (8, 12, 16)},
        is_pooled=True,
    ),
    "rack-pool": Place(
        "2 racks of 8 hosts and 48 GPUs; no circuit leaves a rack",
        lambda: preset("rack-pool:128"),
        {"batch": SMALL, "service": (8, 16, 24)},
    ),
    "fic-small": Place(
        "4 nodes of 4 GPUs, an FPGA and a drive, 2 switches",
        lambda: preset("fic-small"),
        {"batch": SMALL, "service": (4, 6, 8)},
    ),
    "fic": Place(
        "16 nodes of 6 GPUs, an FPGA and a drive on a torus of 8 switches",
        lambda: preset("fic:128"),
        {"batch": SMALL, "service": (8, 16, 24)},
    ),
    "islands": Place(
        "8 islands of 8 GPUs; Philly's jobs, ten times as fast",
        lambda: preset("gpu-islands"),
        {},
    ),
}


def load(place: Place, seed: int, parts: int = 1) -> list[Arrival]:
    """Return what comes to a cell in the hours of a run; a seed always gives the same.

    Args:
        place: The cell.
        seed: Of all that is drawn.
        parts: Into how many each class is divided, in turn: "batch-0", "batch-1".
    """
    dice = random.Random(seed)
    cell = place.make()
    gpus = sum(engine.kind == "gpu" for engine in cell.engines.values())
    drawn = [_drawn(place, dice) for _ in range(20_000)]
    each = sum(count * seconds for _, count, seconds in drawn) / len(drawn)
    gap_s = each / (LOAD * gpus)
    now, found = 0.0, []
    for number, (policy, count, seconds) in enumerate(drawn):
        now += dice.expovariate(1 / gap_s)
        if now > HOURS * 3600:
            break
        spec = _attached if place.is_pooled else _ring
        found.append(Arrival(now, spec(f"s{number}", f"{policy}-{number % parts}", count), seconds))
    return found


def _drawn(place: Place, dice: random.Random) -> tuple[str, int, float]:
    """Return a class, how many GPUs, and for how long."""
    if not place.sizes:
        job = dice.choice(_window())
        # Gangs that need more than half an island are decided on like services.
        policy = "service" if job.engines > PER_HOST else "batch"
        return policy, job.engines, _seconds(job)
    policy = "service" if dice.random() < SERVICES else "batch"
    return policy, dice.choice(place.sizes[policy]), dice.expovariate(1 / RUNS_S[policy])


@cache
def _window() -> list[Job]:
    """Return 4,000 jobs of the trace that follow one another, from its middle."""
    jobs = [job for job in read_jobs(TRACES / "philly_2017a.jobs.csv.gz") if job.duration_s]
    jobs.sort(key=lambda job: job.submit_s)
    return jobs[len(jobs) // 2 : len(jobs) // 2 + 4000]


def _seconds(job: Job) -> float:
    """Return how long a job runs here: within 10 minutes and 8 hours, and then faster."""
    return min(max(job.duration_s or 0.0, 600.0), 8 * 3600.0) / TRACE_FASTER


def _ring(name: str, policy: str, gpus: int) -> SliceSpec:
    ring = (CircuitWish(Shape.RING, ("workers",), 1),) if gpus > 1 else ()
    workers = EngineRole((EngineChoice("gpu", count=gpus),))
    return SliceSpec(name, policy=policy, engines={"workers": workers}, circuits=ring)


def _attached(name: str, policy: str, gpus: int) -> SliceSpec:
    engines, hosts, circuits = {}, {}, []
    for part, first in enumerate(range(0, gpus, PER_HOST)):
        role, driver = f"gpus{part}", f"driver{part}"
        engines[role] = EngineRole((EngineChoice("gpu", count=min(PER_HOST, gpus - first)),))
        hosts[driver] = HostRole(4000, 8 * GIB, 1)
        circuits += [
            CircuitWish(Shape.FLOW, (driver, role)),
            CircuitWish(Shape.FLOW, (role, driver)),
        ]
    return SliceSpec(name, policy=policy, engines=engines, hosts=hosts, circuits=tuple(circuits))
