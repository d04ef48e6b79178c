"""What does a scheduler plug-in decide? Five questions, each with an answer by default.

A plug-in is a class below `Policy` that a package names in its entry points, in the group
`flowos.schedulers`. All else is the loop's (`flowos.runtime.scheduling`): mirror, races, repair,
quotas, preemption, reasons, figures. A policy asks nobody and writes nothing, so the worst that it
can do is to place its own slices badly.
"""

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

from flowos.model.placement import Decision, Unplaceable
from flowos.model.rules import NO_POLICIES, PolicyRules
from flowos.model.slice import Mode, SliceSpec
from flowos.planning import place
from flowos.planning.engines.pool import Pool
from flowos.planning.engines.weights import Weights, weights_of

Order: TypeAlias = tuple[float, ...]  # a slice's place in the queue: smaller is earlier


class Waits(NamedTuple):
    """A slice that waits, as its policy is asked about its place in the queue.

    Attributes:
        spec: What it asks for.
        created: Its uid: smaller came earlier.
        age_seconds: How long it has waited.
        usage: What its tenant has of the cell now: its largest share of any kind of engine, or of
            hosts, 0..1, divided by the tenant's weight (weighted dominant-resource fairness).
        priority: The slice's, with what it has gained by waiting.
    """

    spec: SliceSpec
    created: int
    age_seconds: float = 0.0
    usage: float = 0.0
    priority: float = 0.0


class Policy:
    """The base of every scheduler plug-in; what is not overridden is as in `batch`.

    Attributes:
        name: By which slices ask for it.
        reorders: Whether `order` depends on age or usage: then the queue is put in order anew
            each second.
        backfills: Whether later slices may pass the first that cannot be placed only where that
            does not make it wait longer; else they always may, until it is starving.
        settings: What can be set for it, by name, as it is where the cell's rules say nothing. The
            loop puts what they say in its place, before any question.
    """

    name: str = ""
    reorders: bool = False
    backfills: bool = False
    settings: Mapping[str, float] = MappingProxyType({})

    def order(self, waits: Waits) -> Order:
        """Return the place in the queue: smaller is earlier.

        The first number is the rank: less important slices are not begun with before those of a
        smaller one have been tried. By default: higher priority first, then who came first.
        """
        return (-waits.priority, waits.created)

    def feasible(self, spec: SliceSpec, pool: Pool) -> Unplaceable | None:
        """Return why a slice must not be planned now, or None where it may be."""
        return None

    def score(self, spec: SliceSpec, pool: Pool) -> Weights:
        """Return how much each feature of a place counts for this slice."""
        return weights_of(pool.view.planner)

    def plan(
        self, pool: Pool, spec: SliceSpec, *, seed: int, avoid: Collection[str]
    ) -> Decision | Unplaceable:
        """Decide where a slice goes, or say why it cannot go anywhere now.

        Args:
            pool: What is free; what others have asked to be left alone is not.
            spec: The request.
            seed: 0 = the best place; else one of the best few.
            avoid: Units to leave alone.
        """
        weights = self.score(spec, pool)
        return place.plan(pool, spec, slice_name=spec.name, seed=seed, avoid=avoid, weights=weights)

    def commit_mode(self, spec: SliceSpec) -> Mode:
        """Return whether it takes all at once, or what fits; where the slice does not say."""
        return Mode(spec.commit) if spec.commit else Mode.GANG


def settings_of(policy: Policy, rules: PolicyRules | None) -> dict[str, float]:
    """Return what a policy is to be set to: what it has by itself, and over it what rules say."""
    said = (rules or NO_POLICIES).settings.get(policy.name, {})
    return {**type(policy).settings, **said}
