"""Taking units over from who holds them: preemption, drain of a busy unit, waking.

The unit leaves the victim's placement and enters the taker's in one transaction; the rest of the
victim goes to releasing. The taker waits for the victims' attempts before it builds anything, so
no unit is ever up in two orders.
"""

from collections.abc import Iterable
from dataclasses import replace

from flowos.model import keys
from flowos.model.placement import Ending
from flowos.model.units import claim_key, is_divisible, share_unit, subject_of
from flowos.model.view import CellView
from flowos.protocol.orders import rewrite_orders
from flowos.protocol.proposal import Draft


def wake(draft: Draft, view: CellView, off: str) -> bool:
    """Remove a `~off` system placement and its order; its claim is the caller's to overwrite.

    Returns:
        False where powering off is still under way.
    """
    entry = view.placements.get(off)
    if entry is None or view.assumed(off):
        return False
    draft.placed(off, entry)
    draft.delete(keys.placement(off))
    for place in entry.value.ordered:
        draft.delete(keys.order(place, entry.value.attempt))
        draft.delete(keys.report(place, entry.value.attempt))
    return True


def take_over(
    draft: Draft, view: CellView, taker: str, units: Iterable[str], ending: Ending
) -> tuple[str, ...] | None:
    """Make the victims give up `units` at once and all else by way of releasing.

    Claims of divisible victims are deleted; claims of whole units are left for the caller to
    overwrite in the same transaction.

    Args:
        draft: Collects the compares and writes.
        view: What is known.
        taker: Who takes them.
        units: Whole units that are held, and engines of which parts are held.
        ending: What becomes of the victims.

    Returns:
        The attempts that the taker must wait for; None where a unit cannot be taken: the system
        holds it, or it is being freed already.
    """
    victims: dict[str, set[str]] = {}
    for unit in units:
        for name in holders_of(view, unit):
            victims.setdefault(name, set()).add(unit)
            if unit.startswith("engine/"):
                victims[name].add(share_unit(subject_of(unit)))
    waits: list[str] = []
    for name in sorted(victims):
        entry = view.placements.get(name)
        if entry is None or view.assumed(name) or name == taker:
            return None
        if name.startswith("~off/"):
            if not wake(draft, view, name):
                return None
            continue
        if name.startswith("~"):
            return None
        victim = entry.value
        lost = victims[name]
        if lost & victim.releasing.keys():
            return None
        left = {u: a for u, a in {**victim.held, **victim.releasing}.items() if u not in lost}
        for unit in lost & victim.held.keys():
            if is_divisible(unit):
                draft.delete(claim_key(unit, victim.attempt))
        draft.placed(name, entry)
        after = replace(victim, held={}, releasing=left, ending=victim.ending or ending)
        draft.put(keys.placement(name), rewrite_orders(draft, view.cell, name, victim, after))
        waits.append(victim.attempt)
    return tuple(waits)


def holders_of(view: CellView, unit: str) -> list[str]:
    """Return who holds a whole unit, or parts of the engine that it is."""
    found = list(view.holders.get(unit, ()))
    if unit.startswith("engine/"):
        found += view.shares.get(subject_of(unit), {})
    return found
