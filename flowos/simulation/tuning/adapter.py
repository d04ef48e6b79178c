"""How do others bring a learner of their own? By the `reset` and `step` that such programs expect."""

from typing import Any, TypeAlias

from flowos.planning.engines.weights import DEFAULT, Weights
from flowos.simulation.tuning.episode import Episode, Metrics, Settings
from flowos.simulation.tuning.gate import IMPORTANCE, Objective
from flowos.simulation.tuning.search import decoded, encoded
from flowos.simulation.tuning.workload import Workload

Observation: TypeAlias = tuple[float, ...]
Step: TypeAlias = tuple[Observation, float, bool, bool, dict[str, Any]]


class TuningEnvironment:
    """A planner whose weights are set anew every few slices; the signatures are Gymnasium's.

    An action is log2 of the factor on each default weight, in the order of `Weights`, so all 0 is
    the default. An observation is the share of engines that are held, on and free, and off, and
    the waiting slices over those decided at a time. The rewards of an episode sum up to -J, by
    the default's values on the same log: the default weights come to -1.
    """

    def __init__(
        self, workload: Workload, settings: Settings | None = None, slices_a_step: int = 20
    ) -> None:
        """Take what the logs are drawn from, and how many slices one action decides."""
        self.workload, self.settings, self.slices_a_step = workload, settings, slices_a_step
        self.actions, self.observations = len(Weights._fields), 4

    def reset(self, *, seed: int = 0) -> tuple[Observation, dict[str, Any]]:
        """Begin the log of a seed."""
        arrivals = self.workload.arrivals(seed, held_out=False)
        usual = Episode(self.workload.cell, arrivals, self.settings)
        usual.advance()
        self._objective = Objective.of([usual.metrics()], IMPORTANCE)
        self._episode = Episode(self.workload.cell, arrivals, self.settings)
        self._cost = 0.0
        return self._observation(), {"default": usual.metrics()._asdict()}

    def step(self, action: "list[float] | Observation") -> Step:
        """Plan the next slices by other weights; the reward is what J falls by (so below 0)."""
        factors = zip(DEFAULT, action, strict=True)
        self._episode.weights = Weights(*(decoded(encoded(w) + x) for w, x in factors))
        goes_on = self._episode.advance(self.slices_a_step)
        metrics: Metrics = self._episode.metrics()
        before, self._cost = self._cost, self._objective.cost(metrics)
        return self._observation(), before - self._cost, not goes_on, False, metrics._asdict()

    def _observation(self) -> Observation:
        held, free, off = self._episode.engines()
        count = max(held + free + off, 1)
        waiting = len(self._episode.waiting) / self.slices_a_step
        return held / count, free / count, off / count, waiting
