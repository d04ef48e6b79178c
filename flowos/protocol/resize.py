"""Changing what a running slice holds: shrink gives back by way of releasing, grow claims more."""

from dataclasses import replace
from itertools import zip_longest

from flowos.model import keys
from flowos.model.placement import Decision, Placement
from flowos.model.units import claim_key, is_divisible, kind_of, share_unit, subject_of
from flowos.model.view import CellView
from flowos.protocol import accounts
from flowos.protocol.commit import busy_watts, divide, draw, in_service, spend, stays
from flowos.protocol.orders import rewrite_orders
from flowos.protocol.proposal import Draft, Fence, Proposal


def shrink(
    view: CellView, identifier: str, keep: Decision, *, fence: Fence, now: float
) -> Proposal | None:
    """Go on with `keep` alone; what it does not name goes to releasing.

    A part of a host or engine that is kept stays as large as it is, whatever `keep` says of it:
    less of it in use is nothing that an agent could report as clean.

    Args:
        view: What is known.
        identifier: The slice.
        keep: What it goes on with.
        fence: The acting process's session.
        now: Wall-clock seconds, for the history.

    Returns:
        None where the placement is on its way out, or does not hold all of `keep`.
    """
    entry = view.placements[identifier]
    before = entry.value
    if not _may_change(before) or not keep.units.keys() <= before.held.keys():
        return None
    kept = {u: a for u, a in before.held.items() if u in keep.units}
    drop = {u: a for u, a in before.held.items() if u not in keep.units}
    draft = Draft(fence=fence)
    draft.placed(identifier, entry)
    after = replace(
        before,
        held=kept,
        releasing={**before.releasing, **drop},
        engines=keep.engines,
        hosts=keep.hosts,
        circuits=keep.circuits,
        bitstreams=keep.bitstreams,
        watts=busy_watts(view.cell, kept),
        # Power is spent until it is off: `spent` follows when the dropped units are clean.
    )
    after = accounts.resized(draft, view, identifier, before, after, now=now)
    after = rewrite_orders(draft, view.cell, identifier, before, after)
    draft.put(keys.placement(identifier), after)
    return draft.proposal("shrink", identifier, view, after)


def grow(
    view: CellView, identifier: str, to: Decision, *, fence: Fence, now: float
) -> Proposal | None:
    """Go on with `to`, which names all that is held and more; every new unit must be free.

    What it draws is spent from the acting process's own grant: if that is not the one that placed
    it, all of it moves there. Parts of hosts and engines may grow too, but do not shrink.

    Args:
        view: What is known.
        identifier: The slice.
        to: What it goes on with.
        fence: The acting process's session.
        now: Wall-clock seconds, for the history.

    Returns:
        None where the placement is on its way out or its slice wants an end, a unit is not free,
        or is out of service, or the grants do not cover it.
    """
    entry = view.placements[identifier]
    before = entry.value
    spec = view.slices.get(identifier)
    if not _may_change(before) or not before.held.keys() <= to.units.keys():
        return None
    if spec is None or spec.value.cancelled or spec.value.end:
        return None
    held: dict[str, tuple[int, ...]] = {
        unit: tuple(map(max, zip_longest(amounts, before.held.get(unit, ()), fillvalue=0)))
        for unit, amounts in to.units.items()
    }
    new = {u: a for u, a in held.items() if u not in before.held or a != before.held[u]}
    draft = Draft(fence=fence)
    draft.placed(identifier, entry)
    draft.seen(keys.slice_(identifier), spec.modified)
    for unit, amounts in new.items():
        if unit in before.releasing:
            return None
        key = claim_key(unit, before.attempt)
        if is_divisible(unit):
            # What is held of a host has a third amount only where devices are attached.
            both = zip_longest(amounts, before.held.get(unit, ()), fillvalue=0)
            if not divide(draft, view, unit, tuple(now - had for now, had in both)):
                return None
        elif view.holder(unit) is not None:
            return None
        else:
            draft.seen(key, 0)
            if kind_of(unit) == "engine":
                draft.stays_quiet(f"claim/{share_unit(subject_of(unit))}/", 0)
        draft.claim(key, identifier, before.attempt, amounts)
    circuits = [circuit for circuit in to.circuits if circuit not in before.circuits]
    if not in_service(draft, view, new, circuits):
        return None
    stays(draft, view, spec.value.spec.tenant)
    had, has = (spend(view.cell, units, identifier) for units in (before.held, held))
    rise = {p: w - had.get(p, 0) for p, w in has.items() if w > had.get(p, 0)}
    spent = {p: before.spent.get(p, 0) + rise.get(p, 0) for p in {**before.spent, **rise}}
    spender = fence.key.rpartition("/")[2] if rise else before.scheduler
    if not draw(draft, view, rise if spender == before.scheduler else spent, spender):
        return None
    after = replace(
        before,
        held=held,
        engines=to.engines,
        hosts=to.hosts,
        circuits=to.circuits,
        bitstreams=to.bitstreams,
        watts=busy_watts(view.cell, held),
        spent=spent,
        scheduler=spender,
    )
    after = accounts.resized(draft, view, identifier, before, after, now=now)
    after = rewrite_orders(draft, view.cell, identifier, before, after)
    draft.put(keys.placement(identifier), after)
    return draft.proposal("grow", identifier, view, after)


def _may_change(placement: Placement) -> bool:
    return bool(placement.held) and not placement.waits and placement.ending is None
