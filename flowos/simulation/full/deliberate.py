"""How long does a decision take? A policy whose plans take virtual time."""

from collections.abc import Callable, Collection
from copy import copy

from flowos.model.placement import Decision, Unplaceable
from flowos.model.slice import SliceSpec
from flowos.planning.engines.pool import Pool
from flowos.planning.policy import Policy
from flowos.simulation.light.schedulers import Pace


def deliberate(
    policy: Policy, name: str, pace: Pace, takes: Callable[[str, float], None]
) -> Policy:
    """Return a policy of its own that plans like another one, and takes its time.

    Args:
        policy: Whose answers these are.
        name: By which slices ask for it.
        pace: Of its plans.
        takes: Told of each plan: whose it is, and how many seconds it takes.
    """
    mine = copy(policy)
    mine.name = name
    if pace.job_s or pace.task_s:

        def plan(
            pool: Pool, spec: SliceSpec, *, seed: int, avoid: Collection[str]
        ) -> Decision | Unplaceable:
            decision = policy.plan(pool, spec, seed=seed, avoid=avoid)
            takes(spec.id, pace.seconds(engines_of(spec)))
            return decision

        # On this one object: its class stays what the scheduler knows, and asks no more often.
        vars(mine)["plan"] = plan
    return mine


def engines_of(spec: SliceSpec) -> int:
    """Return how many engines a slice asks for, parts counted as whole ones; else how many hosts."""
    engines = sum(role.choices[0].count for role in spec.engines.values())
    return engines or sum(role.count for role in spec.hosts.values())
