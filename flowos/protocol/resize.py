"""Changing what a running slice holds: shrink gives back by way of releasing, grow claims more."""

from collections.abc import Mapping
from dataclasses import replace

from flowos.model import keys
from flowos.model.placement import Decision, Placement
from flowos.model.units import claim_key, is_divisible, kind_of, share_unit, subject_of
from flowos.model.view import CellView
from flowos.protocol.commit import busy_watts, divide, spend
from flowos.protocol.orders import rewrite_orders
from flowos.protocol.proposal import Draft, Fence, Proposal


def shrink(view: CellView, identifier: str, keep: Decision, *, fence: Fence) -> Proposal | None:
    """Go on with `keep` alone; what it does not name goes to releasing."""
    entry = view.placements[identifier]
    before = entry.value
    if not _may_change(before):
        return None
    drop = {u: a for u, a in before.held.items() if u not in keep.units}
    draft = Draft(fence=fence)
    draft.placed(identifier, entry)
    after = replace(
        before,
        held=keep.units,
        releasing={**before.releasing, **drop},
        engines=keep.engines,
        hosts=keep.hosts,
        circuits=keep.circuits,
        bitstreams=keep.bitstreams,
        watts=busy_watts(view.cell, keep.units),
        # Power is spent until it is off: `spent` follows when the dropped units are clean.
    )
    after = rewrite_orders(draft, view.cell, identifier, before, after)
    draft.put(keys.placement(identifier), after)
    return draft.proposal("shrink", identifier, view, after)


def grow(view: CellView, identifier: str, to: Decision, *, fence: Fence) -> Proposal | None:
    """Go on with `to`, which names all that is held and more; every new unit must be free."""
    entry = view.placements[identifier]
    before = entry.value
    spec = view.slices.get(identifier)
    if not _may_change(before) or spec is None:
        return None
    new: Mapping[str, tuple[int, ...]] = {u: a for u, a in to.units.items() if u not in before.held}
    draft = Draft(fence=fence)
    draft.placed(identifier, entry)
    draft.seen(keys.slice_(identifier), spec.modified)
    for unit, amounts in new.items():
        if unit in before.releasing:
            return None
        key = claim_key(unit, before.attempt)
        if is_divisible(unit):
            if not divide(draft, view, unit):
                return None
        elif view.holder(unit) is not None:
            return None
        else:
            draft.seen(key, 0)
            if kind_of(unit) == "engine":
                draft.stays_quiet(f"claim/{share_unit(subject_of(unit))}/", 0)
        draft.claim(key, identifier, before.attempt, amounts)
    spent = spend(view.cell, to.units)
    for purse in spent:
        grant = view.grants.get(purse, {}).get(before.scheduler)
        draft.seen(keys.grant(purse, before.scheduler), grant.modified if grant else 0)
        draft.seen(keys.epoch(purse), view.epochs.get(purse, 0))
    after = replace(
        before,
        held=to.units,
        engines=to.engines,
        hosts=to.hosts,
        circuits=to.circuits,
        bitstreams=to.bitstreams,
        watts=busy_watts(view.cell, to.units),
        spent=spent,
    )
    after = rewrite_orders(draft, view.cell, identifier, before, after)
    draft.put(keys.placement(identifier), after)
    return draft.proposal("grow", identifier, view, after)


def _may_change(placement: Placement) -> bool:
    return bool(placement.held) and not placement.waits and placement.ending is None
