"""Published traces: jobs files in one schema, read into slices.

Columns (empty = not published): job_id, submit_s, duration_s, engine_type (gpu | cpu),
num_engines, fraction (share of one engine, with num_engines 1), tenant, cpu_cores, mem_gib,
engine_models ("|"-separated). Others are left alone.
"""

import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from flowos.model.cell import WHOLE_MILLIS
from flowos.model.errors import FileError
from flowos.model.slice import EngineChoice, EngineRole, HostRole, Run, SliceSpec

NEEDED: Final = ("job_id", "submit_s", "engine_type", "num_engines")
GIB: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class Job:
    """One row: when it came, how long it ran (None = not published), and what it needs."""

    name: str
    submit_s: float
    duration_s: float | None
    engines: int
    share_millis: int
    cpu_millis: int
    memory_bytes: int
    models: tuple[str, ...] = ()
    kind: str = "gpu"

    @property
    def engine_amount(self) -> float:
        """How many engines it needs, shares as fractions."""
        return self.engines * self.share_millis / WHOLE_MILLIS

    def spec(
        self, name: str, tenant: str, run: Run, *, node_engines_max: int = 1 << 30
    ) -> SliceSpec:
        """Return the slice that asks for the same: one role, its engines on one node.

        CPU and memory are the job's in all and are divided among its engines; a job without
        engines asks for one host. A gang larger than any node (`node_engines_max` engines) may lie
        on several.
        """
        engines = {}
        if self.engines:
            choice = EngineChoice(
                kind=self.kind,
                models=self.models,
                count=self.engines,
                share_millis=self.share_millis,
            )
            engines = {"workers": EngineRole((choice,))}
        hosts = {}
        if self.cpu_millis or self.memory_bytes:
            parts = max(1, self.engines)
            hosts["workers" if self.engines else "host"] = HostRole(
                cpu_millis=-(-self.cpu_millis // parts),
                memory_bytes=-(-self.memory_bytes // parts),
                count=0 if self.engines else 1,
            )
        return SliceSpec(
            name=name,
            tenant=tenant,
            engines=engines,
            hosts=hosts,
            together={"workers": "node"} if 0 < self.engines <= node_engines_max else {},
            run=run,
        )


def read_jobs(path: Path) -> list[Job]:
    """Read a jobs file, plain or gzipped, in the order of its rows.

    Raises:
        FileError: It is not such a file; names the line.
    """
    return list(_rows(path))


def _rows(path: Path) -> Iterator[Job]:
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode()
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        why = getattr(error, "strerror", None) or error
        raise FileError(f"cannot be read: {why}", path=str(path)) from None
    reader = csv.DictReader(io.StringIO(text))
    try:
        yield from _jobs(reader, str(path))
    except csv.Error as error:
        raise FileError(f"is no table: {error}", path=str(path), line=reader.line_num) from None


def _jobs(reader: "csv.DictReader[str]", path: str) -> Iterator[Job]:
    missing = [name for name in NEEDED if name not in (reader.fieldnames or ())]
    if missing:
        raise FileError(
            f"lacks the columns {', '.join(missing)}",
            path=path,
            line=1,
            hint="a jobs file has a header like job_id,submit_s,duration_s,engine_type,...",
        )
    for row in reader:
        yield _job(row, path, reader.line_num)


def _job(row: dict[str, str], path: str, line: int) -> Job:
    def number(column: str, default: float) -> float:
        text = row.get(column) or ""
        try:
            value = float(text) if text else default
        except ValueError:
            value = -1.0
        if not 0 <= value < 1e15:
            raise FileError(f"{column} is '{text}', not a number from 0 up", path=path, line=line)
        return value

    fraction = number("fraction", 1.0)
    engines = int(number("num_engines", 0))
    if engines != number("num_engines", 0):
        text = row["num_engines"]
        raise FileError(f"num_engines is '{text}', not a whole number", path=path, line=line)
    if not row["job_id"]:
        raise FileError("job_id is empty", path=path, line=line, hint="each job needs a name")
    if not 0 < fraction <= 1:
        raise FileError(f"fraction is {fraction:g}, not within 0..1", path=path, line=line)
    duration = row.get("duration_s") or ""
    if not engines and not number("cpu_cores", 0.0) and not number("mem_gib", 0.0):
        raise FileError("asks for no engines, CPU or memory", path=path, line=line)
    return Job(
        name=row["job_id"],
        submit_s=number("submit_s", 0.0),
        duration_s=number("duration_s", 0.0) if duration else None,
        engines=engines,
        share_millis=max(1, round(WHOLE_MILLIS * fraction)) if engines == 1 else WHOLE_MILLIS,
        cpu_millis=round(1000 * number("cpu_cores", 0.0)),
        memory_bytes=round(GIB * number("mem_gib", 0.0)),
        models=tuple(m for m in (row.get("engine_models") or "").split("|") if m),
        kind=row["engine_type"] or "gpu",
    )


def slice_name(job: str) -> str:
    """Return a job's name as a slice's name: lower case, with dashes for what is not allowed."""
    return re.sub(r"[^a-z0-9-]+", "-", job.lower()).strip("-")[:63] or "job"
