"""How much would fragmentation gradient descent, as published, allocate of the same arrivals?

Source: Weng et al., "Beware of Fragmentation: Scheduling GPU-Sharing Workloads with Fragmentation
Gradient Descent", USENIX ATC 2023. A node's fragments, seen from one usual job, are its free
engines that are too small for the job, or all of them where it does not fit; a job goes where their
mean over the usual jobs, by how often they come, grows least.

Two things of the authors' experiments decide as much as the idea, and are kept: the usual jobs are
the most frequent 95 % of a mix that is known beforehand, and the gradient is a score of whole
hundredths on a logistic curve, so that many nodes are equal, of which the first is taken. On the
five published mixes it comes within 0.4 points of what they report.
"""

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple, TypeAlias

from flowos.model.cell import WHOLE_MILLIS, Cell
from flowos.simulation.jobs import Job

_COVERED: Final = 0.95  # of all jobs, the most frequent first
_STEPS: Final = 100  # of the published score

Rests: TypeAlias = tuple[int, ...]  # thousandths left on each engine
Needs: TypeAlias = tuple[int, int, int, int, tuple[str, ...]]


class Fitted(NamedTuple):
    """What was allocated once all engines, and at last, were asked for; shares of all: 0..1."""

    at_full: float
    at_last: float


class Room(NamedTuple):
    """What is left of a node; its engines are of one model."""

    model: str
    rests: Rests
    cpu_millis: int
    memory_bytes: int


def needs_of(job: Job) -> Needs:
    """Return what tells jobs apart."""
    return job.cpu_millis, job.memory_bytes, job.engines, job.share_millis, job.models


class Mix:
    """The usual jobs, and what of a node is of no use to them."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        """Count the jobs that arrivals are drawn from."""
        kinds = Counter((j.cpu_millis, j.engines, j.share_millis, j.models) for j in jobs)
        enough = _COVERED * len(jobs)
        usual: list[tuple[int, int, int, tuple[str, ...], int]] = []
        for kind, often in sorted(kinds.items(), key=lambda entry: (-entry[1], entry[0])):
            if enough <= 0:
                break
            enough -= often
            usual.append((*kind, often))
        self._usual = sorted(usual)
        self._total = sum(often for *_, often in usual)
        self._cpu = [cpu for cpu, *_ in self._usual]
        self._of_use: dict[tuple[str, Rests], list[int]] = {}

    def fragments(self, model: str, rests: Rests, cpu_millis: int) -> float:
        """Return how many thousandths a usual job has no use for; `rests` are sorted."""
        sums = self._of_use.get((model, rests))
        if sums is None:
            # Of use to those who need the least CPU, one more job at a time.
            sums = [0]
            for _, engines, share, models, often in self._usual:
                fit = [rest for rest in rests if rest >= share]
                able = 0 < engines <= len(fit) and (not models or model in models)
                sums.append(sums[-1] + often * sum(fit) * able)
            self._of_use[model, rests] = sums
        return sum(rests) - sums[bisect_right(self._cpu, cpu_millis)] / self._total

    def place(self, needs: Needs, room: Room) -> tuple[int, Room] | None:
        """Return a node's score, the highest is the best, and what is left then; None = no room."""
        cpu, memory, engines, share, models = needs
        model, rests, had_cpu, had_memory = room
        if had_cpu < cpu or had_memory < memory or (models and model not in models):
            return None
        fit = [place for place, rest in enumerate(rests) if rest >= share]
        if len(fit) < engines:
            return None
        before = self.fragments(model, tuple(sorted(rests)), had_cpu)
        best: tuple[int, Rests] | None = None
        # A share has a choice of engines; several engines are free whole and all alike.
        for places in [[place] for place in fit] if engines == 1 else [fit[:engines]]:
            left = list(rests)
            for place in places:
                left[place] -= share
            after = self.fragments(model, tuple(sorted(left)), had_cpu - cpu)
            score = int(_STEPS / (1 + math.exp((after - before) / WHOLE_MILLIS)))
            if best is None or score > best[0]:
                best = score, tuple(left)
        assert best is not None, "there is one way at least"
        return best[0], Room(model, best[1], had_cpu - cpu, had_memory - memory)


def rooms_of(cell: Cell, jobs: Sequence[Job]) -> list[Room]:
    """Return the nodes with engines of the kinds that jobs ask for; none of mixed engines."""
    kinds = {job.kind for job in jobs if job.engines}
    rooms: list[Room] = []
    for name, node in cell.nodes.items():
        here = [cell.engines[engine] for engine in cell.engines_of.get(name, ())]
        models = [engine.model for engine in here if engine.kind in kinds]
        if len(kinds) != 1 or len(set(models)) > 1:
            return []
        if models:
            rests = (WHOLE_MILLIS,) * len(models)
            rooms.append(Room(models[0], rests, node.cpu_millis, node.memory_bytes))
    return rooms


def gradient_fit(cell: Cell, jobs: Sequence[Job], arrivals: Sequence[Job]) -> Fitted | None:
    """Place arrivals one by one by the published rule; none departs.

    Args:
        cell: Nodes without engines are left out.
        jobs: The mix that the arrivals were drawn from.
        arrivals: In order.

    Returns:
        None where the rule says nothing: jobs of several kinds, or nodes of mixed engines.
    """
    rooms, mix = rooms_of(cell, jobs), Mix(jobs)
    if not rooms:
        return None
    total = sum(len(room.rests) for room in rooms)
    asked = allocated = at_full = 0.0
    changed: list[int] = []
    looked: dict[Needs, int] = {}  # how many changes had been then
    found: dict[Needs, list[tuple[int, Room] | None]] = {}
    for job in arrivals:
        needs = needs_of(job)
        ways = found.setdefault(needs, [None] * len(rooms))
        seen = looked.get(needs)
        for number in range(len(rooms)) if seen is None else set(changed[seen:]):
            ways[number] = mix.place(needs, rooms[number])
        looked[needs] = len(changed)
        scored = ((way[0], -number, way[1]) for number, way in enumerate(ways) if way is not None)
        best = max(scored, default=None)
        if best is not None:
            rooms[-best[1]] = best[2]
            changed.append(-best[1])
            allocated += job.engine_amount
        if asked < total:
            at_full = allocated
        asked += job.engine_amount
    return Fitted(at_full / total, allocated / total)
