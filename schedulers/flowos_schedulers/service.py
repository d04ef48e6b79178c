"""Service: slices that stay, laid apart, so that whatever fails takes few of their engines."""

from collections.abc import Collection

from flowos.model.placement import Decision, Unplaceable
from flowos.model.slice import SliceSpec
from flowos.planning.engines.pool import Pool
from flowos.planning.policy import Policy
from flowos_schedulers.pieces import wishes


class Service(Policy):
    """What stays: laid apart, so that a failure takes few of it.

    Each role's engines go to as many racks as there are, in each to as many switches, and there to
    as many nodes: a node, a switch or a rack that fails takes as few as can be. A slice that says
    `spread` or, for a role, `together` gets what it says. Nobody passes by promising to be short:
    a service has no expected end.
    """

    name = "service"

    def plan(
        self, pool: Pool, spec: SliceSpec, *, seed: int, avoid: Collection[str]
    ) -> Decision | Unplaceable:
        """Decide where a slice goes: apart, or where it says."""

        def plan(form: SliceSpec) -> Decision | Unplaceable:
            return super(Service, self).plan(pool, form, seed=seed, avoid=avoid)

        # Circuits between racks may be short of lanes: better near each other than nowhere.
        return wishes.first_of(plan, [wishes.spreading(spec, "apart")], spec)
