"""What is asked of every architecture: slices made of published gangs, always the same ones.

A third of the slices each come from Philly (training, 1 to 32 GPUs, most of them 1), from the trace
of Muri's testbed (training, mostly 8, up to 32) and from the services of Prism (disaggregated
inference, so many GPUs as a service had at its peak, 1 to 114). Nobody published jobs of FPGAs, drives or
circuits, so those are derived:

- A training gang is a ring of its GPUs, 2 lanes wide, and from 4 GPUs on reads from one NVMe drive, a
  tree of 1 lane. Neither trace says what is read.
- A service's GPUs are divided into groups that fill a drive of 3.84 TB with the disk they asked for:
  170 GB each in most services, so 22 GPUs. A group reads from one NVMe drive by a tree of 1 lane. By
  another one it is fed by an FPGA, which prepares what the CPU side of the published service sends:
  0.25 of a network card each, so 22 GPUs fill about the eight lanes that an FPGA has.
- Runs are as long as published but at least 10 minutes and at most 8 hours; a service lasts 8 hours.
"""

import csv
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from random import Random
from typing import Final, NamedTuple

from flowos.model.slice import CircuitWish, EngineChoice, EngineRole, Shape, SliceSpec
from flowos.simulation.jobs import read_jobs

TRACES: Final = Path(__file__).resolve().parents[3] / "shared" / "traces"
RING_LANES: Final = 2
READS_FROM: Final = 4  # GPUs of a training gang that has a drive of its own
DRIVE_GB: Final = 3840
SHORTEST_SECONDS: Final = 600.0
LONGEST_SECONDS: Final = 8 * 3600.0


class Request(NamedTuple):
    """A slice to be: requests of one spec are alike, and share it.

    Attributes:
        demand: Kind -> how many engines.
    """

    spec: SliceSpec
    demand: dict[str, int]
    seconds: float


def requests(seed: int) -> Iterator[Request]:
    """Yield slices without end; a seed always gives the same ones."""
    dice = Random(seed)
    training = [_jobs("philly_2017a.jobs.csv.gz"), _jobs("muri_testbed.jobs.csv")]
    services = _services()
    while True:
        source = dice.randrange(3)
        if source < len(training):
            gpus, seconds = dice.choice(training[source])
            yield _request(_training(gpus), seconds)
        else:
            yield _request(_service(*dice.choice(services)), LONGEST_SECONDS)


def _request(spec: SliceSpec, seconds: float) -> Request:
    demand: dict[str, int] = {}
    for role in spec.engines.values():
        (choice,) = role.choices
        demand[choice.kind] = demand.get(choice.kind, 0) + choice.count
    return Request(spec, demand, min(max(seconds, SHORTEST_SECONDS), LONGEST_SECONDS))


@cache
def _jobs(file: str) -> list[tuple[int, float]]:
    return [(job.engines, job.duration_s or 0.0) for job in read_jobs(TRACES / file) if job.engines]


@cache
def _services() -> list[tuple[int, float]]:
    """Return (GPUs, GB of disk each) of Prism's services."""
    with (TRACES / "prism2025.gangs.csv").open() as file:
        return [(int(row["hn_peak"]), float(row["hn_disk_gib"])) for row in csv.DictReader(file)]


@cache
def _training(gpus: int) -> SliceSpec:
    circuits = []
    engines = {"workers": _role("gpu", gpus)}
    if gpus > 1:
        circuits.append(CircuitWish(Shape.RING, ("workers",), RING_LANES))
    if gpus >= READS_FROM:
        engines["drive"] = _role("nvme", 1)
        circuits.append(CircuitWish(Shape.FLOW, ("drive", "workers")))
    return SliceSpec(f"training-{gpus}", engines=engines, circuits=tuple(circuits))


@cache
def _service(gpus: int, disk_gb: float) -> SliceSpec:
    of_a_drive = max(1, int(DRIVE_GB // disk_gb))
    engines, circuits = {}, []
    for number, first in enumerate(range(0, gpus, of_a_drive)):
        workers = f"workers{number}"
        engines[workers] = _role("gpu", min(of_a_drive, gpus - first))
        for source, kind in ((f"drive{number}", "nvme"), (f"front{number}", "fpga")):
            engines[source] = _role(kind, 1)
            circuits.append(CircuitWish(Shape.FLOW, (source, workers)))
    return SliceSpec(f"service-{gpus}", engines=engines, circuits=tuple(circuits))


def ring_of(gpus: int) -> SliceSpec:
    """Return a training gang's ring alone."""
    ring = CircuitWish(Shape.RING, ("workers",), RING_LANES)
    return SliceSpec("ring", engines={"workers": _role("gpu", gpus)}, circuits=(ring,))


def _role(kind: str, count: int) -> EngineRole:
    return EngineRole((EngineChoice(kind, count=count),))
