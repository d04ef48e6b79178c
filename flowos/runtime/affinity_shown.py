"""Why did a slice's roles get engines beside their data, or away from it?"""

from flowos.model.placement import Decision, Placement
from flowos.model.view import CellView
from flowos.planning.affinity.told import Account, described
from flowos.planning.engines.pool import Pool
from flowos.planning.place import plan
from flowos.runtime.shown import placement_of

_NOTHING = Placement(uid=0, attempt="")


def accounts_of(view: CellView, identifier: str) -> list[Account]:
    """Return how the options of a slice's roles compare now; nothing where it names no data and work.

    What the slice holds itself counts as free, else nothing could be compared with it.

    Args:
        view: Follows everything that planners follow; a slice that is placed is taken off it for
            a moment, so nobody else may read it meanwhile.
        identifier: "tenant/name", of a slice that the view has.
    """
    slice_ = view.slices[identifier].value
    spec = slice_.spec
    if not (spec.data or spec.work) or slice_.end is not None:
        return []
    entry = placement_of(view, identifier)
    placed: Decision | None = None
    sizes: dict[str, int] = {}
    if entry is not None and entry.value.ending is None:
        has = entry.value
        placed = Decision(has.engines, has.held, has.hosts, has.circuits, has.bitstreams)
        sizes = {role: len(has.engines[role]) for role in spec.elastic if role in has.engines}
    if identifier in view.placements:
        view.assume(identifier, _NOTHING)
    pool = Pool(view)
    try:
        pool.fold()
        return described(
            pool,
            spec,
            lambda narrowed: plan(pool, narrowed, slice_name=spec.name, sizes=sizes),
            sizes,
            placed=placed,
        )
    finally:
        pool.close()
        if identifier in view.placements:
            view.retract(identifier)
