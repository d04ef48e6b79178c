"""Which runs does a folder of reference rows ask for, and what came of each there?"""

import csv
import re
import sys
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NamedTuple

from flowos.simulation.light.loads import EXPONENTIAL, HEAVY, PAPERLIKE, Job, drawn
from flowos.simulation.light.machines import Check, MachineSize, Mode
from flowos.simulation.light.run import Architecture, Setup
from flowos.simulation.light.schedulers import Pace

NEEDED = (
    "tag", "arch", "n_batch_sched", "job_class", "t_job_s", "t_task_s", "swept_class",
    "ran_to_end", "sim_s", "jobs", "busyness", "txn_conflicted", "wait_first_mean_s",
    "wait_full_mean_s", "queue_left",
)  # fmt: skip
SEEDS = 3  # of ours, for each row
_CHECKS: dict[str, Check] = {"resource-fit": "fine", "sequence-numbers": "coarse"}
_MODES: dict[str, Mode] = {"incremental": "incremental", "all-or-nothing": "all-or-nothing"}
_BIG = MachineSize(10_000, 4_000, 16 * 1024)
_SMALL = MachineSize(500, 4_000, 16 * 1024)


class Case(NamedTuple):
    """One run of the reference, which has a row for each class.

    Attributes:
        seconds: How long it lasted.
        seed: For where tasks went.
    """

    cell: str
    architecture: str
    batch_schedulers: int
    job_s: float
    task_s: float
    swept: str
    seconds: float
    seed: int

    @property
    def is_offers(self) -> bool:
        """Whether decisions overlap, so that busyness is not to be compared."""
        return self.architecture == "mesos"

    def __str__(self) -> str:
        """Say which it is."""
        seed = f"_seed{self.seed}" if self.seed else ""
        return (
            f"{self.cell}{seed} {self.architecture} x{self.batch_schedulers} "
            f"{self.swept} t_job={self.job_s:g} t_task={self.task_s:g}"
        )


@dataclass
class Reference:
    """What a folder has.

    Attributes:
        cases: Case -> class of jobs -> its row.
        skipped: Why some rows are left out, and how many.
    """

    cases: dict[Case, dict[str, dict[str, str]]] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)

    def skip(self, why: str, rows: int = 1) -> None:
        """Leave rows out."""
        self.skipped[why] = self.skipped.get(why, 0) + rows


def read(folder: Path) -> Reference:
    """Read all tables of a folder; files with another header are left out."""
    tables = sorted(folder.glob("*.csv"))
    if not tables:
        sys.exit(f"{folder}: has no *.csv: name the folder of the reference by --reference")
    found = Reference()
    for path in tables:
        with path.open(newline="", encoding="utf-8") as lines:
            reader = csv.DictReader(lines)
            if any(name not in (reader.fieldnames or ()) for name in NEEDED):
                found.skip(f"{path.name} has another header", sum(1 for _ in reader))
                continue
            for row in reader:
                _take(found, row, f"{path.name}:{reader.line_num}")
    return found


def _take(found: Reference, row: dict[str, str], where: str) -> None:
    tag, _, seed = row["tag"].partition("_seed")
    if jobs_of(tag) is None:
        found.skip(f"no job list is known for {row['tag']}")
    elif row["ran_to_end"] != "1":
        found.skip("the reference stopped on an assertion of its own")
    elif not _is_known(row["arch"]):
        found.skip(f"no architecture of ours is like {row['arch']}")
    else:
        try:
            case = Case(
                tag, row["arch"], int(row["n_batch_sched"]), float(row["t_job_s"]),
                float(row["t_task_s"]), row["swept_class"], float(row["sim_s"]), int(seed or 0),
            )  # fmt: skip
            for name in NEEDED[9:]:
                float(row[name])
        except ValueError as error:
            sys.exit(f"{where}: {error}")
        found.cases.setdefault(case, {})[row["job_class"]] = row


def _is_known(architecture: str) -> bool:
    kind, *rest = architecture.split(":")
    if kind != "omega":
        return architecture in ("mono-single", "mono-multi", "mesos")
    return len(rest) == 2 and rest[0] in _CHECKS and rest[1] in _MODES


@cache
def jobs_of(cell: str) -> tuple[Job, ...] | None:
    """Return a cell's job list, the same as the reference's; None = unknown here."""
    if cell == "exp500":
        return tuple(drawn(EXPONENTIAL, 86_400))
    if cell == "pl10k":
        return tuple(drawn(PAPERLIKE, 86_400))
    if cell == "pl10k_heavy":
        return tuple(drawn(HEAVY, 86_400))
    if faster := re.fullmatch(r"pl6h_x(\d+)", cell):
        return tuple(drawn(PAPERLIKE, 21_600, faster=float(faster[1])))
    return None


def setups(case: Case, *, more: int = 0) -> list[Setup]:
    """Return our runs of a case, and so many more: the same but for where tasks go."""
    kind, *rest = case.architecture.split(":")
    swept, other = Pace(case.job_s, case.task_s), Pace()
    paces = {
        name: swept if kind == "mono-single" or name == case.swept else other
        for name in ("Batch", "Service")
    }
    architecture: Architecture = (
        "monolithic" if kind.startswith("mono") else "offers" if kind == "mesos" else "shared-state"
    )
    small = case.cell == "exp500"
    return [
        Setup(
            _SMALL if small else _BIG,
            0.0 if small else 0.6,
            case.seconds,
            architecture,
            paces,
            {"Batch": case.batch_schedulers},
            _CHECKS[rest[0]] if rest else "fine",
            _MODES[rest[1]] if rest else "incremental",
            seed=case.seed * 100 + n + 1,
        )
        for n in range(SEEDS + more)
    ]
