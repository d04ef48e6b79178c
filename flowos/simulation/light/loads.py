"""Which jobs come, when, and how long do their tasks run?

A job of the light model is a number of like tasks: CPU, memory, one duration. Lists are read from
files, or drawn: exponential or log-normal, the same for the same seed.
"""

import csv
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal, TypeAlias

from flowos.model.errors import FileError

COLUMNS: Final = ("class", "submit_s", "tasks", "duration_s", "cpus", "mem_gb")
_TASKS_MAX: Final = 5_000  # of a drawn job: the tail of a log-normal has no end


@dataclass(frozen=True, slots=True)
class Job:
    """Like tasks that come together.

    Attributes:
        name: Of its class, such as Batch or Service.
    """

    name: str
    submit_s: float
    tasks: int
    duration_s: float
    cpu_millis: int
    memory_mib: int


# -- drawn


@dataclass(frozen=True, slots=True)
class Draw:
    """What a value is drawn from.

    Attributes:
        middle: The mean of an exponential, the median of a log-normal.
        spread: A log-normal's standard deviation, of the logarithm.
    """

    law: Literal["exponential", "log-normal"]
    middle: float
    spread: float = 0.0

    def __call__(self, rng: random.Random) -> float:
        """Return one value."""
        if self.law == "exponential":
            return rng.expovariate(1.0 / self.middle)
        return self.middle * math.exp(self.spread * rng.gauss(0.0, 1.0))


@dataclass(frozen=True, slots=True)
class Class:
    """One class of jobs.

    Attributes:
        gap_s: Mean seconds from a job to the next; gaps are exponential.
    """

    name: str
    seed: int
    gap_s: float
    tasks: Draw
    duration_s: Draw
    cpu_millis: int
    memory_mib: int


Profile: TypeAlias = tuple[Class, ...]

EXPONENTIAL: Final[Profile] = (
    Class("Batch", 11, 10.0, Draw("exponential", 100.0), Draw("exponential", 100.0), 1000, 2048),
    Class("Service", 22, 20.0, Draw("exponential", 10.0), Draw("exponential", 500.0), 1000, 2048),
)
# What the paper says of its cells: over 80 % of jobs are batch, which come every 4 to 7 s and run
# for 12 to 20 min at their 80th percentile; tasks per job with a heavy tail.
PAPERLIKE: Final[Profile] = (
    Class(
        "Batch", 11, 3.4, Draw("log-normal", 5.0, 2.0), Draw("log-normal", 270.0, 1.5), 500, 1024
    ),
    Class(
        "Service", 22, 60.0, Draw("log-normal", 3.0, 1.5), Draw("log-normal", 7200.0, 1.5),
        1000, 2048,
    ),
)  # fmt: skip

# The same with heavier tails, as later traces have them: most tasks are of few jobs, and come to
# about as many.
HEAVY: Final[Profile] = (
    replace(PAPERLIKE[0], tasks=Draw("log-normal", 0.8, 2.9)),
    replace(PAPERLIKE[1], tasks=Draw("log-normal", 0.5, 2.4)),
)


def drawn(profile: Profile, seconds: float, *, faster: float = 1.0) -> list[Job]:
    """Return a list, class after class.

    Args:
        profile: Which classes.
        seconds: Jobs come for so long.
        faster: Batch jobs come so many times as often and run for so much less: the load is the
            same, only the rate of jobs grows.
    """
    jobs = []
    for cls in profile:
        batch = cls.name == "Batch"
        gap = cls.gap_s / faster if batch else cls.gap_s
        rng = random.Random(cls.seed)
        now = rng.expovariate(1.0 / gap)
        while now < seconds:
            tasks = min(_TASKS_MAX, max(1, math.ceil(cls.tasks(rng))))
            duration = max(1.0, cls.duration_s(rng))
            if batch:
                duration = max(1.0, duration / faster)
            # To the millisecond, as a file of them has it.
            jobs.append(
                Job(
                    cls.name, float(f"{now:.3f}"), tasks, float(f"{duration:.3f}"),
                    cls.cpu_millis, cls.memory_mib,
                )
            )  # fmt: skip
            now += rng.expovariate(1.0 / gap)
    return jobs


# -- from a file


def read_job_list(path: Path) -> list[Job]:
    """Read a CSV of class, submit_s, tasks, duration_s, cpus, mem_gb.

    Raises:
        FileError: It cannot be read, a column is missing, or a line is not what it should be.
    """
    try:
        with path.open(newline="", encoding="utf-8") as lines:
            return list(_rows(str(path), csv.DictReader(lines)))
    except UnicodeDecodeError:
        hint = "unpack it first" if path.suffix == ".gz" else "save it as UTF-8"
        raise FileError("is no text", path=str(path), hint=hint) from None
    except (OSError, csv.Error) as error:
        why = getattr(error, "strerror", None) or error
        raise FileError(f"cannot be read: {why}", path=str(path)) from None


def _rows(path: str, reader: "csv.DictReader[str]") -> Iterator[Job]:
    missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        raise FileError(
            f"has no column {', '.join(missing)}",
            path=path,
            line=1,
            hint=f"a job list has {','.join(COLUMNS)}",
        )
    for row in reader:
        line = reader.line_num
        if None in row or None in row.values():
            raise FileError(
                f"has {'more' if None in row else 'fewer'} fields than the header",
                path=path,
                line=line,
            )

        submit_s, tasks, duration_s, cpus, mem_gb = (
            _number(row[name], name, path, line) for name in COLUMNS[1:]
        )
        if not tasks.is_integer():
            problem = f"tasks is '{row['tasks']}', not a whole number"
            raise FileError(problem, path=path, line=line)
        if not (math.isfinite(cpus) and math.isfinite(mem_gb)):
            raise FileError("cpus or mem_gb is not a number from 0 up", path=path, line=line)
        job = Job(
            row["class"], submit_s, int(tasks), duration_s, round(cpus * 1000), round(mem_gb * 1024)
        )
        if not (math.isfinite(job.submit_s) and job.submit_s >= 0):
            raise FileError("submit_s is not a number from 0 up", path=path, line=line)
        if not (math.isfinite(job.duration_s) and job.duration_s > 0):
            raise FileError("duration_s is not a number above 0", path=path, line=line)
        if job.tasks < 1 or job.cpu_millis < 0 or job.memory_mib < 0:
            problem = "asks for less than one task, or for less than no CPU or memory"
            raise FileError(problem, path=path, line=line)
        yield job


def _number(text: str, name: str, path: str, line: int) -> float:
    try:
        return float(text)
    except ValueError:
        raise FileError(f"{name} is '{text}', not a number", path=path, line=line) from None
