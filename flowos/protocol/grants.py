"""Spending limits without a shared ledger: each scheduler holds a grant and spends below it.

A commit compares its scheduler's grant and does not write it. Raising compares that nobody else
raised and that the limit is as it was; so the sum of grants never passes the limit that a raise
sees, and use never passes the grants.
"""

from flowos.model import keys
from flowos.model.cell import Cell, idle_draw
from flowos.model.view import CellView
from flowos.protocol.proposal import Draft, Fence, Proposal


def limit_of(cell: Cell, purse: str) -> int | None:
    """Return what all grants of a purse together may come to; None = unlimited.

    A power domain's idle draw is always there, so only the budget above it is given away.
    """
    kind, _, name = purse.partition(":")
    domain = cell.domains.get(name) if kind == "domain" else None
    if domain is None or domain.budget_watts is None:
        return None
    return max(0, domain.budget_watts - idle_draw(cell, name))


def total(view: CellView, purse: str) -> int:
    """Return the sum of all grants of a purse."""
    return sum(entry.value for entry in view.grants.get(purse, {}).values())


def raise_grant(
    view: CellView, purse: str, holder: str, amount: int, *, limit: int, fence: Fence
) -> Proposal | None:
    """Add to the holder's grant; None where the limit would be passed."""
    if total(view, purse) + amount > limit:
        return None
    entry = view.grants.get(purse, {}).get(holder)
    key = keys.grant(purse, holder)
    prefix = f"grant/{purse}/"
    limit_key = keys.inventory("domain", purse.partition(":")[2])
    draft = Draft(fence=fence)
    draft.stays_quiet(prefix, view.guard(prefix))
    draft.seen(limit_key, view.written_at.get(limit_key, 0))
    draft.seen(key, entry.modified if entry else 0)
    draft.put(key, (entry.value if entry else 0) + amount)
    return draft.proposal("raise grant", key, view)


def give_back(
    view: CellView, purse: str, holder: str, keep: int, *, fence: Fence
) -> Proposal | None:
    """Lower the own grant to what is kept.

    Plans under way are assumed in the view and so count as used; from now on and until the answer
    is known, nothing new may be planned on this grant.
    """
    entry = view.grants.get(purse, {}).get(holder)
    if entry is None or keep >= entry.value or view.spent(purse, holder) > keep:
        return None
    key = keys.grant(purse, holder)
    draft = Draft(fence=fence)
    draft.seen(key, entry.modified)
    if keep:
        draft.put(key, keep)
    else:
        draft.delete(key)
    return draft.proposal("give back", key, view)


def fence_dead(view: CellView, purse: str, holder: str, *, fence: Fence) -> Proposal | None:
    """Put a dead holder's grant again, so that none of its commits under way can still land."""
    entry = view.grants[purse][holder]
    if f"scheduler/{holder}" in view.sessions or f"client/{holder}" in view.sessions:
        return None
    key = keys.grant(purse, holder)
    draft = Draft(fence=fence)
    for role in ("scheduler", "client"):
        draft.seen(keys.session(role, holder), 0)
    draft.seen(key, entry.modified)
    draft.put(key, entry.value)
    return draft.proposal("fence grant", key, view)


def lower_dead(
    view: CellView, purse: str, holder: str, fenced_at: int, *, fence: Fence
) -> Proposal | None:
    """Lower a dead holder's grant to what its placements still use; only after the fence.

    Args:
        view: Complete up to `fenced_at` at least, else nothing is done.
        purse: Which limit.
        holder: The dead scheduler's session id.
        fenced_at: The revision at which `fence_dead` was committed.
        fence: The acting process's session.
    """
    entry = view.grants[purse][holder]
    if view.placed_at < fenced_at or entry.modified < fenced_at:
        return None
    used = view.spent(purse, holder)
    if used >= entry.value > 0:
        return None
    key = keys.grant(purse, holder)
    draft = Draft(fence=fence)
    draft.seen(key, entry.modified)
    if used:
        draft.put(key, used)
    else:
        draft.delete(key)
    return draft.proposal("lower grant", key, view)
