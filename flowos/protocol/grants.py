"""Spending limits without a shared ledger: each scheduler holds a grant and spends below it.

A commit compares its scheduler's grant and does not write it. Raising compares that nobody else
raised and that the limit is as it was; so the sum of grants never passes the limit that a raise
sees, and use never passes the grants.

What is limited is a purse: "domain:<name>" in watts above idle, "tenant:<name>:<kind>" in thousandths
of an engine, so that parts of one count.

A limit that is lowered below what is granted is in force only bit by bit: nothing is taken from
anybody, but nothing more is placed before the grants, which follow what is held, are below it.
"""

from collections.abc import Mapping

from flowos.model import keys
from flowos.model.cell import WHOLE_MILLIS, Cell, idle_draw
from flowos.model.placement import Placement
from flowos.model.units import kind_of, subject_of
from flowos.model.view import CellView, Entry
from flowos.protocol.commit import spend
from flowos.protocol.proposal import Draft, Fence, Proposal


def tenant_purse(tenant: str, kind: str) -> str:
    """Return the purse of a tenant's engines of a kind."""
    return f"tenant:{tenant}:{kind}"


def limit_of(cell: Cell, purse: str) -> int | None:
    """Return what all grants of a purse together may come to; None = unlimited.

    A power domain's idle draw is always there, so only the budget above it is given away.
    """
    family, _, rest = purse.partition(":")
    if family == "tenant":
        name, _, kind = rest.partition(":")
        tenant = cell.tenants.get(name)
        most = tenant.quota.get(kind) if tenant else None
        return None if most is None else most * WHOLE_MILLIS
    domain = cell.domains.get(rest) if family == "domain" else None
    if domain is None or domain.budget_watts is None:
        return None
    return max(0, domain.budget_watts - idle_draw(cell, rest))


def limit_key(purse: str) -> str:
    """Return the key of the record that says what a purse's limit is."""
    family, name, *_ = purse.split(":")
    return keys.inventory(family, name)


def total(view: CellView, purse: str) -> int:
    """Return the sum of all grants of a purse."""
    return sum(entry.value for entry in view.grants.get(purse, {}).values())


def uncovered(cell: Cell, placements: Mapping[str, Entry[Placement]], purse: str) -> int:
    """Return how much of a purse is used without a grant: from before there was a limit.

    Every commit compares its tenant's record. So whatever was placed without this quota was placed
    before the record was last written, and from then on this only falls. Of power domains nothing
    is: their budgets are there from a cell's first day.
    """
    family, _, rest = purse.partition(":")
    if family != "tenant":
        return 0
    prefix, found = f"{rest.partition(':')[0]}/", 0
    for name, entry in placements.items():
        if name.startswith(prefix):
            found += lacks(cell, name, entry.value).get(purse, 0)
    return found


def lacks(cell: Cell, name: str, placement: Placement) -> dict[str, int]:
    """Return what a placement uses of its tenant's quotas and does not spend from any grant."""
    units = {
        unit: amounts
        for unit, amounts in {**placement.held, **placement.releasing}.items()
        if kind_of(unit) in ("engine", "share") and subject_of(unit) in cell.engines
    }
    used = spend(cell, units, name)
    return {
        purse: amount - spent
        for purse, amount in used.items()
        if purse.startswith("tenant:") and amount > (spent := placement.spent.get(purse, 0))
    }


def raise_grant(
    view: CellView, purse: str, holder: str, amount: int, *, limit: int, fence: Fence
) -> Proposal | None:
    """Add to the holder's grant.

    Args:
        view: What is known.
        purse: What is spent from.
        holder: The session whose grant it is.
        amount: How much more.
        limit: As `limit_of`, less what is `uncovered`.
        fence: The acting process's session.

    Returns:
        None where the limit would be passed, or the view does not show all placements that were
        made before the limit was what it is.
    """
    if total(view, purse) + amount > limit:
        return None
    key, prefix, limited = keys.grant(purse, holder), f"grant/{purse}/", limit_key(purse)
    written_at = view.written_at.get(limited, 0)
    if view.placed_at < written_at:
        return None
    entry = view.grants.get(purse, {}).get(holder)
    draft = Draft(fence=fence)
    draft.stays_quiet(prefix, view.guard(prefix))
    draft.seen(limited, written_at)
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


def is_there(view: CellView, holder: str) -> bool:
    """Whether the session that a grant is for still lives; the view follows all sessions."""
    return f"scheduler/{holder}" in view.sessions or f"client/{holder}" in view.sessions


def fence_dead(view: CellView, purse: str, holder: str, *, fence: Fence) -> Proposal | None:
    """Put a dead holder's grant again, so that none of its commits under way can still land."""
    entry = view.grants[purse][holder]
    if is_there(view, holder):
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
