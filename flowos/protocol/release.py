"""Giving a placement back: arm, mark, release, free, and the end of slices that hold nothing.

Free means clean: units go to releasing with their orders rewritten, and a unit's claim goes only
when every place that had to tear it down has reported.
"""

from dataclasses import replace
from typing import Final

from flowos.model import keys
from flowos.model.placement import Ending, Placement
from flowos.model.slice import End, Phase
from flowos.model.units import Holding, claim_key
from flowos.model.view import CellView
from flowos.protocol import accounts
from flowos.protocol.commit import spend
from flowos.protocol.orders import cleaners_of, rewrite_orders
from flowos.protocol.proposal import Draft, Fence, Proposal

CANCELLED: Final = Ending(Phase.CANCELLED, message="cancelled by its user")
GIVEN_BACK: Final = Ending(Phase.DONE, message="given back by its program")


def arm(view: CellView, identifier: str, *, fence: Fence) -> Proposal | None:
    """Give a placement its orders, once nobody carries the attempts that it took from."""
    entry = view.placements[identifier]
    before = entry.value
    if not before.waits or view.carried(before.waits) or identifier.startswith("~"):
        return None
    draft = Draft(fence=fence)
    draft.placed(identifier, entry)
    after = rewrite_orders(draft, view.cell, identifier, before, replace(before, waits=()))
    draft.put(keys.placement(identifier), after)
    return draft.proposal("arm", identifier, view, after)


def mark_started(
    view: CellView, identifier: str, at: float, *, fence: Fence, since: float = 0.0
) -> Proposal:
    """Note when all of a placement was first up, and since when it holds what it holds."""
    entry = view.placements[identifier]
    draft = Draft(fence=fence)
    draft.placed(identifier, entry)
    after = replace(entry.value, started_at=at, committed_at=entry.value.committed_at or since)
    draft.put(keys.placement(identifier), after)
    return draft.proposal("start", identifier, view, after)


def release(
    view: CellView, identifier: str, ending: Ending, *, fence: Fence, since: float = 0.0
) -> Proposal | None:
    """Move all that is held to releasing and order it down.

    Args:
        view: What is known.
        identifier: The placement.
        ending: Why, and what becomes of its slice.
        fence: The acting process's session.
        since: Wall-clock seconds since which it was held, where the placement does not say.
    """
    entry = view.placements[identifier]
    before = entry.value
    if before.ending is not None:
        return None
    draft = Draft(fence=fence)
    draft.placed(identifier, entry)
    spec = view.slices.get(identifier)
    # Whoever cancels at this moment must be seen, since the outcome depends on it; and a record
    # that is only not known yet, for it comes by another watch, must not count as gone.
    draft.seen(keys.slice_(identifier), spec.modified if spec else 0)
    after = rewrite_orders(draft, view.cell, identifier, before, released(before, ending, since))
    draft.put(keys.placement(identifier), after)
    return draft.proposal("release", identifier, view, after)


def released(before: Placement, ending: Ending, since: float = 0.0) -> Placement:
    """Return a placement as it is while all that it held is on its way back.

    Args:
        before: As it was.
        ending: Why, and what becomes of its slice.
        since: Wall-clock seconds since which it was held, where it does not say.
    """
    return replace(
        before,
        held={},
        releasing={**before.releasing, **before.held},
        ending=ending,
        had=accounts.parts_of(before),
        committed_at=before.committed_at or since,
    )


def uid_of(created: int, placement: Placement) -> int:
    """Return the slice's uid; one that was created with its placement has the same revision."""
    return placement.uid or created


def free(
    view: CellView, identifier: str, *, fence: Fence, now: float, since: float = 0.0
) -> Proposal | None:
    """Give back the units that are clean; with the last of them the placement ends.

    Args:
        view: What is known, orders and reports included.
        identifier: A placement with units in releasing, or with nothing left.
        fence: The acting process's session.
        now: Wall-clock seconds, for the record.
        since: Since when it was held, where the placement does not say.

    Returns:
        None where nothing is clean yet.
    """
    entry = view.placements[identifier]
    before = entry.value
    if not (before.releasing or before.ending or identifier.startswith("~quarantine/")):
        return None  # such as a drain that waits
    # Orders come by another watch than placements: an order not known yet would look carried out.
    if view.carried(before.waits) or entry.modified > view.revision:
        return None
    clean = _clean_of(view, before)
    last = (
        not before.held
        and len(clean) == len(before.releasing)
        and all(view.applied(place, before.attempt) for place in before.ordered)
    )
    if not clean and not last:
        return None
    draft = Draft(fence=fence)
    draft.placed(identifier, entry)
    for unit in clean:
        draft.delete(claim_key(unit, before.attempt))
    if not last:
        left = {u: a for u, a in before.releasing.items() if u not in clean}
        freed = spend(view.cell, clean, identifier)
        spent = {p: w - freed.get(p, 0) for p, w in before.spent.items() if w > freed.get(p, 0)}
        after = replace(before, releasing=left, spent=spent)
        draft.put(keys.placement(identifier), after)
        return draft.proposal("free part", identifier, view, after)
    for place in before.ordered:
        draft.delete(keys.order(place, before.attempt))
        draft.delete(keys.report(place, before.attempt))
    draft.delete(keys.placement(identifier))
    if not identifier.startswith("~"):
        _write_outcome(draft, view, identifier, before, entry.created, now)
        accounts.close(draft, view, identifier, before, now=now, since=since)
    return draft.proposal("free", identifier, view)


def _clean_of(view: CellView, before: Placement) -> Holding:
    """Return what of the units in releasing every place has reported that had to tear it down."""
    orders = view.orders.get(before.attempt, ())
    if all(view.applied(place, before.attempt) for place in orders):
        return before.releasing  # the common case: nothing is left at any place
    return {
        unit: amounts
        for unit, amounts in before.releasing.items()
        if all(
            view.applied(place, before.attempt)
            for place in cleaners_of(view.cell, unit, before.ordered)
        )
    }


def _write_outcome(
    draft: Draft, view: CellView, identifier: str, placement: Placement, created: int, now: float
) -> None:
    spec = view.slices.get(identifier)
    if spec is None or spec.created != uid_of(created, placement) or spec.value.end:
        return
    ending = placement.ending or Ending(phase=Phase.PENDING)
    if ending.phase is Phase.PENDING:
        record = replace(spec.value, attempts=placement.number)
    else:
        end = End(
            phase=ending.phase,
            exit_code=ending.exit_code,
            reason=ending.reason,
            message=ending.message,
            started_at=placement.started_at,
            ended_at=now,
        )
        record = replace(spec.value, attempts=placement.number, end=end)
    draft.delete(keys.reason(identifier))  # what it lacked before it was placed is not why it waits
    draft.seen(keys.slice_(identifier), spec.modified)
    draft.put(keys.slice_(identifier), record)


def end_unplaced(view: CellView, identifier: str, end: End, *, fence: Fence) -> Proposal | None:
    """Write the outcome of a slice that holds nothing: cancelled before it was placed."""
    spec = view.slices[identifier]
    if view.now(identifier) is not None or spec.value.end:
        return None
    draft = Draft(fence=fence)
    draft.seen(keys.slice_(identifier), spec.modified)
    draft.placed(identifier, None)
    draft.put(keys.slice_(identifier), replace(spec.value, end=end))
    draft.delete(keys.reason(identifier))
    return draft.proposal("end", identifier, view)


def forget(view: CellView, identifier: str, *, fence: Fence) -> Proposal | None:
    """Delete an ended slice's record: its name can be used again."""
    spec = view.slices[identifier]
    if spec.value.end is None or view.now(identifier) is not None:
        return None
    draft = Draft(fence=fence)
    draft.seen(keys.slice_(identifier), spec.modified)
    draft.placed(identifier, None)
    draft.delete(keys.slice_(identifier))
    draft.delete(keys.reason(identifier))
    return draft.proposal("forget", identifier, view)
