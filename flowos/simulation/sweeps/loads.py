"""Which jobs come in a run: from a file, or drawn by laws whose parameters are knobs?"""

import csv
import gzip
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Final

from flowos.model.errors import FileError, SpecError
from flowos.simulation.jobs import Job as TraceJob
from flowos.simulation.jobs import read_jobs, slice_name
from flowos.simulation.light.loads import (
    COLUMNS,
    EXPONENTIAL,
    HEAVY,
    PAPERLIKE,
    Class,
    Draw,
    Job,
    Profile,
    drawn,
    read_job_list,
)
from flowos.simulation.sweeps.knobs import (
    KNOBS,
    Form,
    Key,
    Settings,
    Value,
    number,
    value_of,
)

_HOUR: Final = 3600.0
DRAWN_S: Final = 86_400.0  # what is drawn comes for so long, where nobody says how long


def _log_normal(cls: Class, spread: float) -> Class:
    """Return a class with the same means and heavier tails."""

    def heavier(law: Draw) -> Draw:
        # The mean of a log-normal is its median x exp(spread² / 2).
        return Draw("log-normal", law.middle * math.exp(-(spread**2) / 2), spread)

    return replace(cls, tasks=heavier(cls.tasks), duration_s=heavier(cls.duration_s))


PROFILES: Final[dict[str, Profile]] = {
    "exponential": EXPONENTIAL,
    "log-normal": tuple(_log_normal(cls, 1.0) for cls in EXPONENTIAL),
    "paperlike": PAPERLIKE,
    "heavy": HEAVY,
}
# The cell that each is made for: machines, and the share of its CPU that is held from the beginning.
_CELLS: Final = {"exponential": (500, 0.0), "log-normal": (500, 0.0)}
_BIG_CELL: Final = (10_000, 0.6)


@dataclass(frozen=True, slots=True)
class Load:
    """What comes, before any knob.

    Attributes:
        name: Of the laws, or the file.
        jobs: From a job list.
        trace: From a trace.
        profile: Laws; None = from a file.
    """

    name: str
    jobs: tuple[Job, ...] = ()
    trace: tuple[TraceJob, ...] = ()
    profile: Profile | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """Of its jobs, in the order of their first."""
        if self.profile is not None:
            return tuple(cls.name for cls in self.profile)
        return tuple(dict.fromkeys(job.name for job in self.jobs)) or ("all",)

    @property
    def about(self) -> str:
        """In one line."""
        if self.profile is not None:
            return f"{self.name}, drawn: classes {', '.join(self.classes)}"
        if self.trace:
            return f"{self.name}: {len(self.trace):,} jobs of a trace"
        tasks = sum(job.tasks for job in self.jobs)
        return f"{self.name}: {len(self.jobs):,} jobs of {tasks:,} tasks, classes {', '.join(self.classes)}"

    @property
    def machines(self) -> int:
        """Of the cell that it is made for."""
        return _CELLS.get(self.name, _BIG_CELL)[0]

    @property
    def prefilled(self) -> float:
        """Share of that cell's CPU that is held from the beginning."""
        return _CELLS.get(self.name, _BIG_CELL)[1]

    def seconds(self, settings: Settings, mode: Form) -> float:
        """Return how long a run lasts: what is set, else to the end of the hour of the last job."""
        told = value_of(settings, "seconds", mode)
        if told is not None:
            assert isinstance(told, int | float)
            return float(told)
        if self.profile is not None:
            return DRAWN_S
        last = max((job.submit_s for job in self.jobs or self.trace), default=0.0)
        return (last // _HOUR + 1) * _HOUR

    def jobs_of(self, settings: Settings, mode: Form) -> Sequence[Job]:
        """Return the jobs of a run."""
        if self.profile is None:
            return self.jobs
        seconds = self.seconds(settings, mode)
        set_ = tuple(
            sorted((k, v) for k, v in settings.items() if KNOBS[k.partition(".")[0]].drawn)
        )
        return _drawn(self.profile, set_, mode, seconds)


def drawn_load(name: str) -> Load:
    """Return a load of one of `PROFILES`."""
    return Load(name, profile=PROFILES[name])


def read_load(path: Path, mode: Form) -> Load:
    """Read a job list or, in full mode, a trace; its header says which it is.

    Raises:
        FileError: It is neither, holds no job, or cannot be read.
    """
    name = path.name
    if mode == "full" and "class" not in _header(path):
        trace = tuple(read_jobs(path))
        if not any(job.duration_s for job in trace):
            raise FileError(
                "no job has a duration", path=str(path), hint="fill in the column duration_s"
            )
        return Load(name, trace=trace)
    if mode == "light" and "engine_type" in _header(path):
        raise FileError(
            "is a trace, and light mode knows only CPU and memory", path=str(path),
            hint=f"add --mode full, or name a job list with {','.join(COLUMNS)}",
        )  # fmt: skip
    jobs = tuple(read_job_list(path))
    if not jobs:
        raise FileError(
            "holds no job", path=str(path), hint="write a line for each below its header"
        )
    load = Load(name, jobs=jobs)
    teams = {slice_name(of_class) for of_class in load.classes}
    if mode == "full" and len(teams) < len(load.classes):
        raise FileError(
            f"its classes {', '.join(load.classes)} differ in nothing but signs or capitals",
            path=str(path),
            hint="give them other names",
        )
    return load


def _header(path: Path) -> list[str]:
    """Return a table's first line, or nothing where there is none: readers say more of that."""
    try:
        opened = gzip.open if path.suffix == ".gz" else open
        with opened(path, "rt", encoding="utf-8", newline="") as lines:
            return next(csv.reader(lines), [])
    except (OSError, EOFError, UnicodeDecodeError, csv.Error):
        return []


def check_load(load: Load, keys: Sequence[Key]) -> None:
    """Refuse what has no sense for a load.

    Raises:
        SpecError: Names what, and the way out.
    """
    for key in keys:
        name = key.knob.name
        if key.knob.drawn and load.profile is None:
            raise SpecError(
                f"{load.name} is read from a file, and only a drawn load has that", where=str(key),
                hint="leave it out, or take --workload instead of --jobs",
            )  # fmt: skip
        if name == "gaps" and load.profile is not None:
            raise SpecError(
                f"{load.name} is drawn, and gaps are of a file", where=str(key),
                hint="set gap, its mean time between jobs, or name a file by --jobs",
            )  # fmt: skip
        if name.endswith("_spread") and load.profile and load.profile[0].tasks.law != "log-normal":
            raise SpecError(
                f"{load.name} has no spread", where=str(key), hint="take --workload log-normal"
            )


@lru_cache(maxsize=2)  # runs of one load follow each other; a day of jobs is some 10 MB
def _drawn(
    profile: Profile, settings: tuple[tuple[str, Value], ...], mode: Form, seconds: float
) -> tuple[Job, ...]:
    set_ = dict(settings)
    classes = tuple(_set(cls, set_, mode) for cls in profile)
    return tuple(drawn(classes, seconds, faster=number(set_, "faster", mode)))


def _set(cls: Class, settings: Settings, mode: Form) -> Class:
    """Return a class of jobs with what the knobs say of it."""

    def told(name: str, usual: float) -> float:
        found = value_of(settings, name, mode, cls.name)
        assert not isinstance(found, str)
        return usual if found is None else float(found)

    def law(name: str, usual: Draw) -> Draw:
        return replace(
            usual, middle=told(name, usual.middle), spread=told(f"{name}_spread", usual.spread)
        )

    return replace(
        cls,
        seed=cls.seed + 1_000 * int(number(settings, "draw", mode)),
        gap_s=told("gap", cls.gap_s),
        tasks=law("tasks", cls.tasks),
        duration_s=law("duration", cls.duration_s),
        cpu_millis=round(1000 * told("cpus", cls.cpu_millis / 1000)),
        memory_mib=round(1024 * told("mem_gb", cls.memory_mib / 1024)),
    )
