"""The system's own placements: whatever makes a unit unavailable takes its claim."""

from dataclasses import replace

from flowos.model import keys
from flowos.model.placement import Ending, Placement
from flowos.model.slice import Phase
from flowos.model.units import claim_key, engine_unit, share_unit, subject_of
from flowos.model.view import CellView
from flowos.protocol.commit import spend
from flowos.protocol.orders import cleaners_of, rewrite_orders
from flowos.protocol.proposal import Draft, Fence, Proposal
from flowos.protocol.takeover import RESERVED, holders_of, take_over

_GIVES_WAY = ("~off/", RESERVED)
DRAINED = Ending(phase=Phase.PENDING, message="an engine of it is drained")


def power_off(view: CellView, engine: str, *, attempt: str, fence: Fence) -> Proposal | None:
    """Claim a free engine for being off; a commit wakes it by writing over this claim."""
    unit = engine_unit(engine)
    if holders_of(view, unit) or view.wanted.get(unit):
        return None
    identifier = f"~off/{unit}"
    draft = Draft(fence=fence)
    claim_free(draft, unit, identifier, attempt)
    blank = Placement(uid=0, attempt=attempt)
    after = replace(blank, held={unit: ()})
    after = rewrite_orders(draft, view.cell, identifier, blank, after)
    draft.placed(identifier, None)
    draft.put(keys.placement(identifier), after)
    return draft.proposal("power off", identifier, view, after)


def claim_free(draft: Draft, unit: str, identifier: str, attempt: str) -> None:
    """Claim a whole unit that nobody holds, or parts of."""
    draft.seen(claim_key(unit, attempt), 0)
    if unit.startswith("engine/"):
        draft.stays_quiet(f"claim/{share_unit(subject_of(unit))}/", 0)
    draft.claim(claim_key(unit, attempt), identifier, attempt, ())


def drain(
    view: CellView,
    unit: str,
    *,
    attempt: str,
    fence: Fence | None,
    why: str = "",
    deadline_at: float | None = None,
    take: bool = False,
) -> Proposal | None:
    """Take a unit out of use: now if it is free or `take` is set, else as soon as it is given back.

    Args:
        view: What is known.
        unit: An engine, node, switch, link, lane or aggregator unit.
        attempt: An id that no commit has had; ignored where the drain exists already.
        fence: The acting process's session; None for an operator's one command.
        why: The operator's reason.
        deadline_at: Wall-clock seconds at which the controller takes over; None = never.
        take: Take the unit over from whoever holds it.

    Returns:
        None where nothing can be done now.
    """
    identifier = f"~drain/{unit}"
    entry = view.placements.get(identifier)
    if entry is not None and (entry.value.held or entry.value.releasing):
        return None
    blank = (
        entry.value
        if entry
        else Placement(uid=0, attempt=attempt, why=why, deadline_at=deadline_at)
    )
    attempt = blank.attempt
    draft = Draft(fence=fence)
    busy = holders_of(view, unit)
    after = replace(blank, held={unit: ()}, wanted=())
    if not busy:
        claim_free(draft, unit, identifier, attempt)
    elif take or all(name.startswith(_GIVES_WAY) for name in busy):
        waits = seize(draft, view, identifier, unit, attempt=attempt, ending=DRAINED)
        if waits is None:
            return None
        after = replace(after, waits=waits)
    elif entry is not None:
        return None
    else:
        after = replace(blank, wanted=(unit,))
    draft.placed(identifier, entry)
    draft.put(keys.placement(identifier), after)
    return draft.proposal("drain", identifier, view, after)


def seize(
    draft: Draft, view: CellView, identifier: str, unit: str, *, attempt: str, ending: Ending
) -> tuple[str, ...] | None:
    """Take a whole unit over from whoever holds it, or parts of it, for the system.

    Args:
        draft: Collects the compares and writes, the claim among them.
        view: What is known.
        identifier: The system placement that takes it.
        unit: Somebody holds it.
        attempt: The system placement's.
        ending: What becomes of slices that lose it.

    Returns:
        The attempts that must be clean before the unit is; None where it cannot be taken now.
    """
    if unit.startswith("engine/"):
        prefix = f"claim/{share_unit(subject_of(unit))}/"
        shared = bool(view.shares.get(subject_of(unit)))
        draft.stays_quiet(prefix, view.guard(prefix) if shared else 0)
        if shared:
            draft.seen(claim_key(unit, attempt), 0)
    waits = take_over(draft, view, identifier, (unit,), ending)
    if waits is not None:
        draft.claim(claim_key(unit, attempt), identifier, attempt, ())
    return waits


def undrain(view: CellView, identifier: str, *, fence: Fence | None) -> Proposal | None:
    """Put a drained unit back to use; not while what it was taken from is still being cleaned."""
    entry = view.placements[identifier]
    if view.carried(entry.value.waits):
        return None
    return drop(view, identifier, fence=fence, step="undrain")


def power_on(view: CellView, identifier: str, *, fence: Fence | None) -> Proposal | None:
    """Remove a `~off` placement: the engine is free and on."""
    return drop(view, identifier, fence=fence, step="power on")


def declare_clean(
    view: CellView, identifier: str, *, fence: Fence | None, by_hand: bool = False
) -> Proposal | None:
    """Take a dead place's orders as carried out, on the word that it has no power.

    What other places have to clean too, such as the other end of a lane, still waits for these.

    Args:
        view: What is known, orders and reports included.
        identifier: A quarantine.
        fence: The acting process's session; None for an operator's one command.
        by_hand: The place was cleaned by hand; else a living agent is believed before anybody.

    Returns:
        None where nothing can be done now.
    """
    entry = view.placements[identifier]
    before = entry.value
    stale = bool(before.ordered or before.releasing) and entry.modified > view.revision
    if stale or view.carried(before.waits):
        return None
    place = identifier.split("/")[1]
    reported = all(view.applied(there, before.attempt) for there in before.ordered)
    if f"agent/{place}" in view.sessions and not (by_hand or reported):
        return None
    dirty = {
        unit: amounts
        for unit, amounts in before.releasing.items()
        if not all(
            there in before.ordered or view.applied(there, before.attempt)
            for there in cleaners_of(view.cell, unit, before.ordered)
        )
    }
    if not dirty:
        return drop(view, identifier, fence=fence, step="declare clean")
    if not before.ordered:
        return None
    draft = Draft(fence=fence)
    draft.placed(identifier, entry)
    for there in before.ordered:
        draft.delete(keys.order(there, before.attempt))
        draft.delete(keys.report(there, before.attempt))
    after = replace(before, ordered=())  # `free` does the rest
    draft.put(keys.placement(identifier), after)
    return draft.proposal("declare clean", identifier, view, after)


def drop(view: CellView, identifier: str, *, fence: Fence | None, step: str) -> Proposal:
    """Remove a system placement with all its claims and orders."""
    entry = view.placements[identifier]
    placement = entry.value
    draft = Draft(fence=fence)
    draft.placed(identifier, entry)
    for unit in (*placement.held, *placement.releasing):
        draft.delete(claim_key(unit, placement.attempt))
    for place in placement.ordered:
        draft.delete(keys.order(place, placement.attempt))
        draft.delete(keys.report(place, placement.attempt))
    draft.delete(keys.placement(identifier))
    return draft.proposal(step, identifier, view)


def take_out(view: CellView, place: str, *, attempt: str, fence: Fence) -> Proposal | None:
    """Take a dead place out of service, so that nothing new is planned there."""
    unit = f"switch/{place}" if place in view.cell.switches else f"node/{place}"
    if unit in view.holders or f"agent/{place}" in view.sessions:
        return None
    identifier = f"~quarantine/{place}/out-of-service"
    draft = Draft(fence=fence)
    draft.seen(keys.session("agent", place), 0)
    draft.placed(identifier, None)
    claim_free(draft, unit, identifier, attempt)
    after = Placement(uid=0, attempt=attempt, held={unit: ()}, why=f"{place} does not answer")
    draft.put(keys.placement(identifier), after)
    return draft.proposal("take out", identifier, view, after)


def quarantine(
    view: CellView, place: str, identifier: str, *, fence: Fence, ending: Ending
) -> Proposal | None:
    """Split what a placement has at a dead place off into a quarantine, the rest goes to releasing.

    Compares that the place's agent has no session: its return is not overtaken. Lanes with an end
    there go along. The quarantine carries the same attempt, so whoever waits for the victim waits
    for it too. Where all that was there has been taken over and only the report is missing, the
    report alone is split off: the rest can end without it.

    Returns:
        None where the placement has nothing there.
    """
    entry = view.placements[identifier]
    before = entry.value
    units = {**before.held, **before.releasing}
    gone = {u: a for u, a in units.items() if place in cleaners_of(view.cell, u, before.ordered)}
    unreported = place in before.ordered and not view.applied(place, before.attempt)
    if identifier.startswith("~") or not (gone or (unreported and not before.held)):
        return None
    name = f"~quarantine/{place}/{before.attempt}"
    if f"agent/{place}" in view.sessions or name in view.placements:
        return None
    draft = Draft(fence=fence)
    draft.seen(keys.session("agent", place), 0)
    draft.placed(identifier, entry)
    draft.placed(name, None)
    left = {u: a for u, a in units.items() if u not in gone}
    # What is dead may still draw power: that counts as used until the quarantine ends. Its tenant
    # does not have it any more, and gets as much elsewhere.
    drawn = {p: min(w, before.spent.get(p, 0)) for p, w in spend(view.cell, gone, name).items()}
    less = {**spend(view.cell, gone, identifier), **drawn}
    spent = {p: w - less.get(p, 0) for p, w in before.spent.items() if w > less.get(p, 0)}
    after = replace(before, held={}, releasing=left, spent=spent, ending=before.ending or ending)
    after = rewrite_orders(draft, view.cell, identifier, before, after)
    after = replace(after, ordered=tuple(p for p in after.ordered if p != place))
    for unit, amounts in gone.items():
        draft.claim(claim_key(unit, before.attempt), name, before.attempt, amounts)
    draft.put(keys.placement(identifier), after)
    parted = Placement(
        uid=0,
        attempt=before.attempt,
        releasing=gone,
        waits=before.waits,
        ordered=(place,) if place in before.ordered else (),
        spent={purse: watts for purse, watts in drawn.items() if watts},
        scheduler=before.scheduler,
        why=f"{place} does not answer",
    )
    draft.put(keys.placement(name), parted)
    return draft.proposal("quarantine", identifier, view, after)
