"""What does a slice's own policy say of it now, when nobody means to commit the answer?"""

from typing import Final

from flowos.model.placement import Decision, Unplaceable
from flowos.model.slice import SliceSpec
from flowos.model.view import CellView
from flowos.planning.engines.pool import Pool
from flowos.planning.policy import Policy, settings_of
from flowos.planning.reserved import ahead, planned
from flowos.runtime.guarded import Guarded

_NO_WATCH: Final = 0.0  # nobody waits for these answers but the one who asked


class Asking:
    """A policy that is asked as its scheduler would ask it: its settings, `feasible`, then `plan`.

    What a policy breaks is caught and said as its scheduler would say it.
    """

    def __init__(self, view: CellView, policy: Policy | None = None, *, now: float = 0.0) -> None:
        """Set the policy to what the cell's rules say for it.

        Args:
            view: What planners follow, and `rule/`.
            policy: Of slices that are asked about; None = the plain planner.
            now: Wall-clock seconds, by which reservations open.
        """
        policy = policy or Policy()
        policy.settings = settings_of(policy, view.policies)
        self._view = view
        self._guarded = Guarded(policy, view, lambda: _NO_WATCH)
        self._now = now

    def __call__(self, pool: Pool, spec: SliceSpec) -> Decision | Unplaceable:
        """Return where a slice would go now, or the first reason why it would wait.

        Args:
            pool: Of the same view.
            spec: The request.
        """
        unfeasible = self._guarded.feasible(spec, pool)
        if unfeasible is not None:
            return unfeasible
        return planned(
            self._view,
            spec,
            self._now,
            ahead(self._view, spec, self._now),
            lambda units: self._guarded.plan(pool, spec, seed=0, avoid=units),
        )
