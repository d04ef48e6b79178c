"""Stream: all stages of a pipeline at once, each beside the next."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from types import MappingProxyType

from flowos.model.placement import Decision, Unplaceable
from flowos.model.slice import Mode, Shape, SliceSpec
from flowos.planning.engines.pool import Pool
from flowos.planning.engines.weights import Weights
from flowos.planning.policy import Policy
from flowos_schedulers.pieces import near, score


class Stream(Policy):
    """Pipelines: all stages at once, each beside the next.

    Roles are stages, and flows lead from one to the next. Stages are placed in the order in which data runs through them, whatever the order in which
    they are written, on the smallest part of the cell that has room for all; so neighbours share a
    switch, and a flow seldom leaves it. All stages start together: a pipeline that lacks one
    computes nothing, so it is a gang even where the slice says otherwise.

    Settings:
        uplinks: How much a leaf counts against itself whose lanes to other switches are taken.
    """

    name = "stream"
    settings: Mapping[str, float] = MappingProxyType({"uplinks": 8.0})

    def score(self, spec: SliceSpec, pool: Pool) -> Weights:
        """Return how much each feature of a place counts."""
        return score.weighted(pool, self.settings)

    def plan(
        self, pool: Pool, spec: SliceSpec, *, seed: int, avoid: Collection[str]
    ) -> Decision | Unplaceable:
        """Decide where a slice goes: stage by stage, near each other."""
        stages = replace(spec, engines={role: spec.engines[role] for role in in_order(spec)})
        if spec.constraints.spread == "pack":
            for outside in near.parts(pool, stages):
                found = super().plan(pool, stages, seed=seed, avoid={*outside, *avoid})
                if isinstance(found, Decision):
                    return found
        return super().plan(pool, stages, seed=seed, avoid=avoid)

    def commit_mode(self, spec: SliceSpec) -> Mode:
        """Return that it takes all stages at once."""
        return Mode.GANG


def in_order(spec: SliceSpec) -> list[str]:
    """Return the roles with engines in the order in which data runs through them.

    A stage comes right after the one that feeds it, if no other has to feed it first. What no flow
    leads to comes as it is written; of stages that feed each other in a circle the first written.
    """
    left = dict.fromkeys(spec.engines)
    fed: dict[str, set[str]] = {role: set() for role in left}
    feeds: dict[str, list[str]] = {role: [] for role in left}
    for wish in spec.circuits:
        source, target = wish.roles[0], wish.roles[-1]
        if wish.shape is Shape.FLOW and source != target and {source, target} <= left.keys():
            fed[target].add(source)
            feeds[source].append(target)
    found: list[str] = []
    ready: list[str] = []  # what the stages that were taken last feed is on top
    while left:
        if not ready:
            ready = [next((role for role in left if not fed[role]), next(iter(left)))]
        stage = ready.pop()
        del left[stage]
        found.append(stage)
        for after in reversed(feeds[stage]):
            fed[after].discard(stage)
            if after in left and not fed[after] and after not in ready:
                ready.append(after)
    return found
