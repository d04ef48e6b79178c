"""Which slices come, when, and for how long: a recorded log, or one drawn from a few figures."""

import hashlib
import math
import random
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import pairwise
from typing import Final, NamedTuple, Protocol, Self

from flowos.documents.cell_file import cell_json
from flowos.model.cell import Bitstream, Cell
from flowos.model.errors import SpecError
from flowos.model.slice import CircuitWish, EngineChoice, EngineRole, Run, Shape, SliceSpec
from flowos.simulation.jobs import Job, slice_name
from flowos.simulation.replay import accelerators, largest_node

TENANT: Final = "default"
BLOCK_JOBS: Final = 50  # consecutive jobs of a log stay together: bursts come in such lengths
TRAINED_SHARE: Final = 0.6  # of a recorded log, from its start; the rest is kept to judge by
JOBS_MIN: Final = 200  # with fewer recorded jobs, one unlucky block would decide

# How many engines a synthetic slice asks for, and how often: few large gangs, many small ones, as
# in all published logs of accelerator clusters.
GANGS: Final = ((1, 0.4), (2, 0.3), (4, 0.2), (8, 0.1))
_BESIDE: Final = frozenset(("cpu", "nvme"))  # kinds that synthetic slices do not ask for alone


class Arrival(NamedTuple):
    """A slice that comes `at` seconds after the log's start, and runs for `seconds` once it is up."""

    at: float
    spec: SliceSpec
    seconds: float


class Workload(Protocol):
    """Logs without end: one for each seed."""

    @property
    def about(self) -> str:
        """One line for people."""

    @property
    def cell(self) -> Cell:
        """The cell that the slices are meant for."""

    def arrivals(self, seed: int, *, held_out: bool) -> list[Arrival]:
        """Return a log, by time; the same seed gives the same log.

        Args:
            seed: Any number.
            held_out: Whether it is to judge by, so must share nothing with logs to train on.
        """

    def digest(self) -> str:
        """Return "sha256:..." of all that the logs follow from, the cell included."""

    def shifts(self) -> "dict[str, Workload]":
        """Return workloads that differ from this one as tomorrow's may, by name."""


# -------------------------------------------------------------------------------------- synthetic


@dataclass(frozen=True, slots=True)
class Figures:
    """What a synthetic log is drawn from.

    Attributes:
        slices: How many come.
        load: Engine-seconds asked for, over those that there are.
        bitstreams: How many different ones are asked for.
        zipf: Their popularity falls as rank ** -zipf; 0 = all alike.
        seconds: The mean length of a run.
        sigma: Of the logarithm of lengths, which are lognormal.
        load_seconds: What it takes to load a bitstream.
        gang_max: The most engines that a slice asks for.
        ring: The share of gangs that are joined in a ring.
    """

    slices: int = 1000
    load: float = 0.75
    bitstreams: int = 16
    zipf: float = 1.0
    seconds: float = 60.0
    sigma: float = 1.0
    load_seconds: float = 3.0
    gang_max: int = 8
    ring: float = 1.0

    @classmethod
    def read(cls, text: str) -> Self:
        """Return the figures of "load=0.9,slices=500"; what is not said has its default.

        Raises:
            SpecError: A word is none of these figures, or its number cannot be.
        """
        bounds = {
            "slices": (10, 100_000), "load": (0.01, 3), "bitstreams": (1, 10_000), "zipf": (0, 5),
            "seconds": (1, 1e8), "sigma": (0, 3), "load_seconds": (0, 1e5),
            "gang_max": (1, 8), "ring": (0, 1),
        }  # fmt: skip
        whole = {field.name for field in fields(cls) if isinstance(field.default, int)}
        found: dict[str, float] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            name, _, written = part.partition("=")
            if name not in bounds:
                raise SpecError(f"there is no '{name}'", where="--synthetic", hint=_forms(bounds))
            low, high = bounds[name]
            form = r"\d+" if name in whole else r"\d*\.?\d+"
            if not re.fullmatch(form, written) or not low <= float(written) <= high:
                kind = "a whole number" if name in whole else "a number"
                raise SpecError(
                    f"{name} is '{written}', not {kind} from {low:g} to {high:g}",
                    where="--synthetic",
                )
            found[name] = int(written) if name in whole else float(written)
        return cls(**found)  # type: ignore[arg-type]  # whole numbers are ints by now


def _forms(bounds: dict[str, tuple[float, float]]) -> str:
    return f"write e.g. load=0.9,slices=500; there are {', '.join(bounds)}"


@dataclass(frozen=True, slots=True)
class Synthetic:
    """Slices of one role each, over the kinds of engines that a cell has; arrivals are Poisson."""

    cell: Cell
    figures: Figures
    _bitstreams: tuple[Bitstream, ...] = field(default=(), repr=False)
    _kinds: tuple[tuple[str, int, bool], ...] = field(default=(), repr=False)

    @classmethod
    def on(cls, cell: Cell, figures: Figures | None = None) -> Self:
        """Return the workload on a copy of a cell, which gets the bitstreams that are asked for.

        Raises:
            SpecError: The cell has no engines.
        """
        figures = figures or Figures()
        if not cell.engines:
            raise SpecError("the cell has no engines", where="--cell")
        computing = [e for e in cell.engines.values() if e.kind not in _BESIDE]
        counts: dict[tuple[str, bool], int] = {}
        for engine in computing or cell.engines.values():
            key = (engine.kind, engine.loads_bitstreams)
            counts[key] = counts.get(key, 0) + 1
        copy = Cell(cell.name)
        for thing in cell.things():
            copy.add(thing)
        made: list[Bitstream] = []
        for kind in sorted({kind for kind, loads in counts if loads}):
            for number in range(figures.bitstreams):
                name = f"tuning-{kind}-{number}"
                digest = hashlib.sha256(name.encode()).hexdigest()
                made.append(
                    Bitstream(
                        name, f"sha256:{digest}", kind=kind, load_seconds=figures.load_seconds
                    )
                )
                copy.add(made[-1])
        kinds = tuple((kind, count, loads) for (kind, loads), count in sorted(counts.items()))
        return cls(copy, figures, tuple(made), kinds)

    @property
    def about(self) -> str:
        """One line for people."""
        told = ", ".join(f"{name} {value:g}" for name, value in asdict(self.figures).items())
        return f"synthetic: {told}"

    def arrivals(self, seed: int, *, held_out: bool) -> list[Arrival]:
        """Return a log; those held out are drawn from other numbers than those trained on."""
        figures = self.figures
        rng = random.Random(f"flowos tune {'held out' if held_out else 'trained'} {seed}")
        engines = sum(count for _, count, _ in self._kinds)
        gangs = {kind: _gangs(min(count // 4, figures.gang_max)) for kind, count, _ in self._kinds}
        mean = sum(
            count / engines * sum(size * share for size, share in gangs[kind])
            for kind, count, _ in self._kinds
        )
        gap = mean * figures.seconds / (figures.load * engines)
        popular = [(rank + 1) ** -figures.zipf for rank in range(figures.bitstreams)]
        by_kind: dict[str, list[Bitstream]] = {}
        for bitstream in self._bitstreams:
            by_kind.setdefault(bitstream.kind, []).append(bitstream)
        location = math.log(figures.seconds) - figures.sigma**2 / 2
        found: list[Arrival] = []
        now = 0.0
        for number in range(figures.slices):
            now += rng.expovariate(1 / gap)
            kind, _, loads = rng.choices(self._kinds, [count for _, count, _ in self._kinds])[0]
            sizes = gangs[kind]
            count = rng.choices([size for size, _ in sizes], [share for _, share in sizes])[0]
            wanted = rng.choices(by_kind[kind], popular)[0].name if loads else ""
            joined = count > 1 and rng.random() < figures.ring
            spec = SliceSpec(
                name=f"s{number}",
                tenant=TENANT,
                engines={
                    "workers": EngineRole((EngineChoice(kind, count=count, bitstream=wanted),))
                },
                circuits=(CircuitWish(Shape.RING, ("workers",)),) if joined else (),
            )
            found.append(Arrival(now, spec, rng.lognormvariate(location, figures.sigma)))
        return found

    def digest(self) -> str:
        """Return the hash of the cell and the figures."""
        return _digest(self.cell, asdict(self.figures))

    def shifts(self) -> dict[str, Workload]:
        """Return the same with more load, with less, and with bitstreams that are all alike."""
        figures = self.figures
        found: dict[str, Workload] = {
            "heavier": replace(self, figures=replace(figures, load=1.27 * figures.load)),
            "lighter": replace(self, figures=replace(figures, load=0.53 * figures.load)),
        }
        if self._bitstreams and figures.zipf:
            found["uniform bitstreams"] = replace(self, figures=replace(figures, zipf=0.0))
        return found


def _gangs(most: int) -> list[tuple[int, float]]:
    """How many engines slices ask for, no more than the most, and how often; shares sum up to 1."""
    fitting = [gang for gang in GANGS if gang[0] <= most] or [(1, 1.0)]
    total = sum(share for _, share in fitting)
    return [(size, share / total) for size, share in fitting]


# --------------------------------------------------------------------------------------- recorded


@dataclass(frozen=True, slots=True)
class Recorded:
    """A log that was written down: trained on its earlier part, judged by its later part.

    A seed draws blocks of consecutive jobs, each with its gaps as recorded, with replacement. So
    intervals over seeds say how sure a result is on logs like this one, not on any log.

    Source: the moving-block bootstrap, Künsch, "The Jackknife and the Bootstrap for General
    Stationary Observations", Annals of Statistics 17 (1989).

    Attributes:
        jobs: By submission; each with a duration.
        slices: How many a drawn log has.
        pace: What gaps are multiplied with.
    """

    cell: Cell
    jobs: tuple[Job, ...]
    slices: int
    pace: float = 1.0

    @classmethod
    def on(
        cls, cell: Cell, jobs: Sequence[Job], *, slices: int = 1000, load: float | None = None
    ) -> Self:
        """Return the workload of a jobs file.

        Args:
            cell: Where they are to run.
            jobs: In any order.
            slices: How many a drawn log has.
            load: Engine-seconds asked for over those that the cell has; None = as recorded.

        Raises:
            SpecError: The file says too little for this.
        """
        known = [job for job in jobs if job.duration_s is not None]
        if len(known) < len(jobs):
            raise SpecError(
                f"{len(jobs) - len(known)} of {len(jobs)} jobs have no duration_s",
                where="--jobs",
                hint="tuning needs to know how long each ran: leave these rows out",
            )
        if len(known) < JOBS_MIN:
            raise SpecError(
                f"holds {len(known)} jobs, tuning needs at least {JOBS_MIN}",
                where="--jobs",
                hint="record for longer, or use --synthetic",
            )
        known.sort(key=lambda job: job.submit_s)
        pace = 1.0
        if load is not None:
            offered = _offered(cell, known)
            if math.isinf(offered):
                raise SpecError(
                    "all jobs come at once, so no load can be set",
                    where="--load",
                    hint="leave --load out",
                )
            if not offered:
                raise SpecError(
                    "no job asks for an engine that the cell has, so no load can be set",
                    where="--load",
                    hint="leave --load out, or name another --cell",
                )
            pace = offered / load
        return cls(cell, tuple(known), slices, pace)

    @property
    def about(self) -> str:
        """One line for people."""
        paced = "" if self.pace == 1 else f", gaps x {self.pace:.3g}"
        load = _offered(self.cell, self.jobs) / self.pace
        return f"recorded: {len(self.jobs)} jobs, load {load:.2f}{paced}, {self.slices} at a time"

    def arrivals(self, seed: int, *, held_out: bool) -> list[Arrival]:
        """Return a log of blocks, from the part that is trained on or the part to judge by."""
        cut = int(TRAINED_SHARE * len(self.jobs))
        part = self.jobs[cut:] if held_out else self.jobs[:cut]
        rng = random.Random(f"flowos tune {seed}")
        largest = largest_node(self.cell, self.jobs)
        found: list[Arrival] = []
        now = 0.0
        while len(found) < self.slices:
            first = rng.randrange(max(len(part) - BLOCK_JOBS, 1))
            block = part[first : first + BLOCK_JOBS + 1]
            for before, job in pairwise(block):
                now += self.pace * (job.submit_s - before.submit_s)
                name = f"{slice_name(job.name)[:50].rstrip('-')}-{len(found)}"
                spec = job.spec(name, TENANT, Run(), node_engines_max=largest)
                found.append(Arrival(now, spec, job.duration_s or 0.0))
        return found[: self.slices]

    def digest(self) -> str:
        """Return the hash of the cell, the jobs and how they are drawn."""
        return _digest(self.cell, (self.jobs, self.slices, self.pace))

    def shifts(self) -> dict[str, Workload]:
        """Return the same with more load and with less."""
        return {
            "heavier": replace(self, pace=self.pace / 1.27),
            "lighter": replace(self, pace=self.pace / 0.53),
        }


def _offered(cell: Cell, jobs: Sequence[Job]) -> float:
    """Return engine-seconds asked for a second, over the engines of the kinds asked for."""
    engines = accelerators(cell, jobs)
    span = jobs[-1].submit_s - jobs[0].submit_s
    asked = sum(job.engine_amount * (job.duration_s or 0.0) for job in jobs)
    if not engines:
        return 0.0
    return asked / (span * engines) if span else math.inf


def _digest(cell: Cell, figures: object) -> str:
    return f"sha256:{hashlib.sha256(f'{cell_json(cell)}{figures!r}'.encode()).hexdigest()}"
