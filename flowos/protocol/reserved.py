"""Keeping units for somebody during a window: the system holds what of it nobody uses who may.

Each unit of an open window has a placement `~reserved/<reservation>/<unit>`. It holds the unit, or
waits for it (`wanted`) while somebody has it; a slice that may use the window commits over it, and
then it waits until the slice gives the unit back. So between two slices of the window nobody else
gets in, and no clock but that of whoever opens and closes it counts.
"""

from collections.abc import Sequence
from dataclasses import replace

from flowos.model import keys
from flowos.model.placement import Ending, Placement
from flowos.model.rules import Reservation
from flowos.model.slice import Phase, Reason
from flowos.model.view import CellView
from flowos.protocol import system
from flowos.protocol.proposal import Draft, Fence, Proposal
from flowos.protocol.takeover import RESERVED, holders_of


def name_of(reservation: str, unit: str) -> str:
    """Return the placement by which a reservation keeps a unit."""
    return f"{RESERVED}{reservation}/{unit}"


def parts_of(identifier: str) -> tuple[str, str]:
    """Return (reservation, unit) of such a placement."""
    reservation, _, unit = identifier.removeprefix(RESERVED).partition("/")
    return reservation, unit


def may_take(view: CellView, window: Reservation, holders: Sequence[str]) -> bool:
    """Whether an open window takes a unit from those who hold it, or parts of it, at once.

    Slices of others give way where it evicts, and then all that share an engine do: what is held
    in parts cannot be kept whole. Of what the system holds it wakes what is off, and takes what a
    reservation has left that is no more.
    """
    strange = False
    for name in holders:
        if name.startswith(RESERVED):
            if parts_of(name)[0] in view.reservations:
                return False
        elif name.startswith("~"):
            if not name.startswith("~off/"):
                return False
        elif window.is_for(name.partition("/")[0]):
            continue
        elif not window.evict:
            return False
        strange = True
    return strange


def evicted(window: Reservation) -> Ending:
    """Return what becomes of slices that an opening window takes units from."""
    whom = f"tenant {', '.join(window.tenants)}" if window.tenants else "maintenance"
    return Ending(
        Phase.PENDING,
        reason=Reason.RESERVED_FOR_OTHER,
        message=f"reservation {window.name} keeps what it had for {whom}",
    )


def hold(view: CellView, identifier: str, *, attempt: str, fence: Fence) -> Proposal | None:
    """Keep a unit of an open window: hold it if it is free, or is to be taken; else wait for it.

    What slices hold of an engine that the window is not for is taken where the window evicts,
    with the grace that they ask for. Of a node or a switch nothing is taken: it is put out of
    service, and who is there is ended one by one (`flowos.runtime.reserving`).

    Args:
        view: What is known.
        identifier: The placement, of a reservation that the view has.
        attempt: An id that no commit has had; ignored where the placement exists already.
        fence: The acting process's session.

    Returns:
        None where nothing can be done now.
    """
    reservation, unit = parts_of(identifier)
    window = view.reservations[reservation]
    entry = view.placements.get(identifier)
    if entry is not None and (entry.value.held or view.carried(entry.value.waits)):
        return None
    before = entry.value if entry else Placement(uid=0, attempt=attempt, why=window.why)
    after = replace(before, held={unit: ()}, wanted=())
    busy = holders_of(view, unit)
    draft = _draft(view, identifier, fence)
    taken: tuple[str, ...] | None = ()
    if not busy:
        system.claim_free(draft, unit, identifier, before.attempt)
    elif may_take(view, window, busy):
        taken = system.seize(
            draft, view, identifier, unit, attempt=before.attempt, ending=evicted(window)
        )
    else:
        taken = None
    if taken is None:
        if entry is not None:
            return None
        draft = _draft(view, identifier, fence)
        taken, after = (), replace(before, wanted=(unit,))
    after = replace(after, waits=taken)
    draft.put(keys.placement(identifier), after)
    return draft.proposal("reserve", identifier, view, after)


def _draft(view: CellView, identifier: str, fence: Fence) -> Draft:
    draft = Draft(fence=fence)
    draft.placed(identifier, view.placements.get(identifier))
    # Whoever the window is for is not put out by one who knows an older rule.
    draft.seen(keys.RESERVATIONS, view.epochs.get("reservations", 0))
    return draft


def drop(view: CellView, identifier: str, *, fence: Fence) -> Proposal | None:
    """Keep a unit no longer; not while what it was taken from is still being cleaned."""
    if view.carried(view.placements[identifier].value.waits):
        return None
    return system.drop(view, identifier, fence=fence, step="unreserve")


def forget(view: CellView, reservation: str, *, fence: Fence) -> Proposal | None:
    """Remove a reservation that is over, once nothing is kept for it.

    Else a scheduler whose clock is behind would keep slices out of it for as long as that.
    """
    kept = name_of(reservation, "")
    if any(name.startswith(kept) for name in view.placements):
        return None
    draft = Draft(fence=fence)
    draft.seen(keys.RESERVATIONS, view.epochs.get("reservations", 0))
    draft.delete(keys.reservation(reservation))
    draft.put(keys.RESERVATIONS, reservation)
    return draft.proposal("close", f"{RESERVED}{reservation}", view)
