"""Who plays the episodes: this process, or several beside it, always with the same results?"""

import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from types import TracebackType
from typing import NamedTuple, Self

from flowos.planning.engines.weights import Weights
from flowos.simulation.processes import deaf_to_interrupts
from flowos.simulation.tuning.episode import Episode, Metrics, Settings
from flowos.simulation.tuning.workload import Workload


class Trial(NamedTuple):
    """One log under some weights.

    Attributes:
        shift: Which of the workload's shifts; "" = the workload itself.
    """

    weights: Weights
    seed: int
    held_out: bool = False
    shift: str = ""


@dataclass(frozen=True, slots=True)
class _Ground:
    """What every episode of a process is played on."""

    workload: Workload
    settings: Settings
    shifts: dict[str, Workload] = field(default_factory=dict)

    def play(self, trial: Trial) -> Metrics:
        if trial.shift and not self.shifts:
            self.shifts.update(self.workload.shifts())
        workload = self.shifts[trial.shift] if trial.shift else self.workload
        arrivals = workload.arrivals(trial.seed, held_out=trial.held_out)
        episode = Episode(workload.cell, arrivals, self.settings, trial.weights)
        episode.advance()
        return episode.metrics()


class Trials:
    """Plays trials, each once; a context manager, for the sake of its processes."""

    def __init__(
        self, workload: Workload, settings: Settings | None = None, *, processes: int = 1
    ) -> None:
        """Start nothing yet.

        Args:
            workload: What the logs are drawn from.
            settings: Of the devices and the queue.
            processes: 1 = all is played in this one.
        """
        self.workload = workload
        self.settings = settings or Settings()
        self.processes = processes
        self._known: dict[Trial, Metrics] = {}
        self._ground = _Ground(workload, self.settings)
        self._others: ProcessPoolExecutor | None = None

    def play(self, trials: Sequence[Trial]) -> list[Metrics]:
        """Return what each came to; those played before are not played again."""
        new = [trial for trial in dict.fromkeys(trials) if trial not in self._known]
        for trial, metrics in zip(new, self._played(new), strict=True):
            self._known[trial] = metrics
        return [self._known[trial] for trial in trials]

    def _played(self, trials: Sequence[Trial]) -> Iterator[Metrics]:
        if self.processes == 1 or len(trials) < self.processes:
            return map(self._ground.play, trials)
        if self._others is not None:
            return self._others.map(_play, trials)
        # Spawned, not forked: a fork copies threads' locks as they happen to be.
        self._others = ProcessPoolExecutor(
            self.processes,
            mp_context=get_context("spawn"),
            initializer=_begin,
            initargs=(self._ground,),
        )
        with deaf_to_interrupts():  # the first call starts all processes
            return self._others.map(_play, trials)

    def __enter__(self) -> Self:
        """Go on as before."""
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """End the processes."""
        if self._others is not None:
            self._others.shutdown(cancel_futures=True)
            self._others = None


_grounds: list[_Ground] = []  # of a process that was spawned for this: its one workload


def _begin(ground: _Ground) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _grounds[:] = [ground]


def _play(trial: Trial) -> Metrics:
    return _grounds[0].play(trial)
