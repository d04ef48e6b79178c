"""Placing a slice: claims, orders and the placement in one transaction."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import TypeAlias

from flowos.model import keys
from flowos.model.cell import WHOLE_MILLIS, Cell
from flowos.model.placement import Circuit, Decision, Ending, Placement
from flowos.model.slice import Phase, Reason, Slice
from flowos.model.units import (
    Holding,
    claim_key,
    engine_unit,
    is_divisible,
    kind_of,
    share_unit,
    subject_of,
    things_used,
)
from flowos.model.view import CellView
from flowos.protocol.orders import rewrite_orders
from flowos.protocol.proposal import Draft, Fence, Proposal
from flowos.protocol.takeover import RESERVED, Losses, given, losses, step_aside, take, wake

Moved: TypeAlias = Mapping[str, Mapping[str, int]]  # victim -> purse -> how much of what it spends


def commit(
    view: CellView,
    identifier: str,
    decision: Decision,
    *,
    fence: Fence,
    attempt: str,
    scheduler: str,
    victims: Collection[str] = (),
    spec: tuple[str, Slice] | None = None,
) -> Proposal | None:
    """Return the transaction that gives a slice what was decided.

    Args:
        view: What is known.
        identifier: The slice, "tenant/name".
        decision: The planner's.
        fence: The acting process's session.
        attempt: An id that no commit has had.
        scheduler: The session whose grants are spent.
        victims: Slices whose units may be taken over (`flowos.planning.preempt`). Each that loses
            anything is queued again; the slice gets its orders when all of them are clean.
        spec: For an embedded client: the slice's own record, to be created in the same
            transaction. None = it exists and is compared.

    Returns:
        None where the slice is gone, held, cancelled, ended or placed already, a unit cannot be
        taken or is out of service, or the scheduler's grants do not cover it.
    """
    entry = view.slices.get(identifier)
    if view.now(identifier) is not None:
        return None
    draft = Draft(fence=fence)
    if spec is not None:
        if entry is not None:
            return None
        record, uid = spec[1], 0
        draft.seen(keys.slice_(identifier), 0)
        draft.put(keys.slice_(identifier), record)
    elif entry is None or entry.value.cancelled or entry.value.held or entry.value.end:
        return None
    else:
        record, uid = entry.value, entry.created
        draft.seen(keys.slice_(identifier), entry.modified)
    draft.placed(identifier, None)
    if record.spec.array is not None and record.spec.array.parallel:
        # Whoever counted how many of it hold something must not have missed one.
        array = keys.placement(f"{record.spec.tenant}/{record.spec.array.array}-")
        draft.stays_quiet(array, view.guard(array))
    lost = losses(view, decision.units, victims)
    if any(name not in view.placements or view.assumed(name) for name in lost):
        return None
    tenant, named = record.spec.tenant, record.spec.reservation
    kept = [w.name for w in view.reservations.values() if w.is_for(tenant, named)]
    if known := view.epochs.get("reservations", 0):
        # What is kept for whom is as known. A cell that never had a reservation pays nothing; then
        # its first one is not planned around by what is just under way, and takes over from it.
        draft.seen(keys.RESERVATIONS, known)
    unclean = _claim_all(draft, view, identifier, attempt, decision.units, lost, kept)
    if unclean is None:
        return None
    if not in_service(draft, view, decision.units, decision.circuits):
        return None
    spent, watts = drawn(view.cell, decision.units, identifier)
    moved = moves(view, lost, spent)
    if not draw(draft, view, spent, scheduler, moved):
        return None
    waits = _take(draft, view, identifier, record, lost, moved) if lost else ()
    if waits is None:
        return None
    waits = (*waits, *unclean)
    stays(draft, view, record.spec.tenant)
    placement = Placement(
        uid=uid,
        attempt=attempt,
        number=record.attempts + 1,
        held=decision.units,
        waits=waits,
        engines=decision.engines,
        hosts=decision.hosts,
        circuits=decision.circuits,
        bitstreams=decision.bitstreams,
        run=record.spec.run,
        watts=watts,
        spent=spent,
        scheduler=scheduler,
    )
    placement = rewrite_orders(draft, view.cell, identifier, None, placement)
    draft.put(keys.placement(identifier), placement)
    return draft.proposal("commit", identifier, view, placement)


def _claim_all(
    draft: Draft,
    view: CellView,
    identifier: str,
    attempt: str,
    units: Holding,
    lost: Losses,
    kept: Collection[str],
) -> tuple[str, ...] | None:
    """Compare and write the claims.

    Args:
        draft: Collects them.
        view: What is known.
        identifier: The slice.
        attempt: Its attempt.
        units: What is claimed.
        lost: What of it victims give up.
        kept: The reservations that the slice may use.

    Returns:
        The attempts that have to be clean before what was reserved is; None where a unit cannot
        be had.
    """
    unclean: list[str] = []
    unshared: dict[str, list[str]] = {}
    holders, shares, known = view.holders, view.shares, view.cell.engines
    for unit, amounts in units.items():
        if unit.startswith("engine/"):
            subject = unit[7:]
            engine = known.get(subject)
            if engine is None:
                return None
            if engine.shareable:
                parts = shares.get(subject)
                if not parts:
                    unshared.setdefault(engine.node, []).append(subject)
                elif given(lost, share_unit(subject)) == (sum(parts.values()),):
                    _guard(draft, view, share_unit(subject))
                else:
                    return None
            if unit not in holders:  # nearly always
                draft.claim_free(f"claim/{unit}", identifier, attempt, amounts)
                continue
        key = claim_key(unit, attempt)
        if is_divisible(unit):
            if not divide(draft, view, unit, amounts, given(lost, unit) if lost else (), kept):
                return None
        else:
            holder = view.holder(unit)
            if holder is None:
                draft.seen(key, 0)
            elif holder.startswith("~off/"):
                if not wake(draft, view, holder):
                    return None
            elif holder.startswith(RESERVED):
                aside = step_aside(draft, view, holder) if _kept_in(holder) in kept else None
                if aside is None:
                    return None
                unclean += aside
            elif holders[unit] != (holder,) or unit not in lost.get(holder, ()):
                return None
        draft.claim(key, identifier, attempt, amounts)
    for node, engines in unshared.items():
        _stay_unshared(draft, view, node, engines)
    return tuple(dict.fromkeys(unclean))


def _kept_in(reserved: str) -> str:
    """Return the name of the reservation that a `~reserved` placement is of."""
    return reserved.split("/", 2)[1]


def _take(
    draft: Draft,
    view: CellView,
    identifier: str,
    taker: Slice,
    lost: Losses,
    moved: Moved,
) -> tuple[str, ...] | None:
    """Take from the victims; return the attempts to wait for, or None where one has gone."""
    for name in lost:
        victim = view.slices.get(name)
        if victim is None:
            return None
        # What it is worth to its user was weighed against the taker: that is still so.
        draft.seen(keys.slice_(name), victim.modified)
    ending = Ending(
        phase=Phase.PENDING,
        reason=Reason.BEHIND_HIGHER_PRIORITY,
        message=f"gives way to {identifier} of priority {taker.spec.priority}",
    )
    return take(draft, view, identifier, lost, ending, moved)


def moves(view: CellView, lost: Losses, wanted: Mapping[str, int]) -> Moved:
    """Return how much of what victims spend goes over to who takes their units.

    What was taken draws power once, whoever has it; so it is spent once, and at every moment. The
    grants move with it, so a slice can take over even where a limit is used up to the last watt.

    Args:
        view: What is known.
        lost: What each victim loses.
        wanted: Purse -> how much the taker is to spend of it.
    """
    found: dict[str, dict[str, int]] = {}
    left = dict(wanted)
    for name in sorted(lost) if wanted else ():
        victim = view.placements[name].value
        if not victim.spent:
            continue
        units = {**victim.held, **victim.releasing}
        for unit, amounts in lost[name].items():
            units[unit] = tuple(had - gone for had, gone in zip(units[unit], amounts, strict=False))
            if not any(units[unit]):
                del units[unit]
        rest = spend(view.cell, units, name)
        for purse, amount in victim.spent.items():
            grant = view.grants.get(purse, {}).get(victim.scheduler)
            if grant is None:
                continue  # it comes by another watch, and a moment later
            goes = min(left.get(purse, 0), amount - rest.get(purse, 0), grant.value)
            if goes > 0:
                found.setdefault(name, {})[purse] = goes
                left[purse] -= goes
    return found


def _stay_unshared(draft: Draft, view: CellView, node: str, engines: Sequence[str]) -> None:
    """Compare that nobody holds a part of these engines.

    Where all that can be shared there is wanted, and nobody holds a part of it, one compare says so
    of the whole node: half the compares and reads of a gang of whole nodes.
    """
    there, known = view.cell.engines_of[node], view.cell.engines
    whole = len(engines) > 1 and len(engines) == sum([known[e].shareable for e in there])
    if whole and not any(map(view.shares.get, there)):
        draft.stays_quiet(f"claim/share/{node}/", 0)
        return
    for engine in engines:
        draft.stays_quiet(f"claim/{share_unit(engine)}/", 0)


def divide(
    draft: Draft,
    view: CellView,
    unit: str,
    more: tuple[int, ...],
    given: tuple[int, ...] = (),
    kept: Collection[str] = (),
) -> bool:
    """Guard a part of an engine or of a host.

    Args:
        draft: Collects the compares, and the writes that wake an engine.
        view: What is known.
        unit: A divisible unit.
        more: How much of it is wanted in addition to what the same placement holds already.
        given: How much of it victims give up in the same transaction.
        kept: Reservations whose engines may be had.

    Returns:
        False where it does not fit, or the whole engine is held.
    """
    if given:
        more = tuple(want - gets for want, gets in zip_longest(more, given, fillvalue=0))
    if not _fits(view, unit, more, kept):
        return False
    _guard(draft, view, unit)
    if kind_of(unit) == "share":
        whole = engine_unit(subject_of(unit))
        holder = view.holder(whole)
        if holder is None:
            draft.seen(f"claim/{whole}", 0)
        elif holder.startswith("~off/") and wake(draft, view, holder):
            draft.delete(f"claim/{whole}")
        elif holder.startswith(RESERVED) and _kept_in(holder) in kept:
            if step_aside(draft, view, holder) != ():
                return False  # no part of it is free before it is clean
            draft.delete(f"claim/{whole}")
        else:
            return False
    return True


def _guard(draft: Draft, view: CellView, unit: str) -> None:
    """Compare that nobody took a part of a unit since the view."""
    prefix = f"claim/{unit}/"
    draft.stays_quiet(prefix, view.guard(prefix))


def _fits(view: CellView, unit: str, more: tuple[int, ...], kept: Collection[str]) -> bool:
    # The guard says that nothing was put since the view; so the view must have room for it. A
    # placement that cannot be read may hold parts of anything.
    if any(key.startswith("placement/") for key in view.unreadable):
        return False
    subject = subject_of(unit)
    if kind_of(unit) == "share":
        mine = [f"{RESERVED}{name}/{engine_unit(subject)}" for name in kept]
        with view.lifted(mine):
            return subject in view.cell.engines and more[0] <= view.free_millis(subject)
    return subject in view.cell.nodes and view.host_has(subject, more)


def in_service(
    draft: Draft, view: CellView, units: Iterable[str], circuits: Iterable[Circuit]
) -> bool:
    """Compare absent what would take the used nodes, switches and links out of service.

    Returns:
        False where one of them is out of service already. That must be seen here: a large
        transaction only compares that nothing was put since the view.
    """
    cell, switches = view.cell, view.cell.switches
    used: dict[str, None] = {}
    places: dict[str, None] = {}
    for unit in units:
        if unit.startswith("lane/"):
            used |= dict.fromkeys(things_used(cell, unit))
        else:
            places[unit.split("/", 2)[1]] = None
    for circuit in circuits:
        for arc in circuit.arcs:
            used |= dict.fromkeys(things_used(cell, f"lane/{arc.link}/{arc.direction}/0"))
    for place in places:
        used[f"switch/{place}" if place in switches else f"node/{place}"] = None
    for unit in used:
        draft.seen(f"claim/{unit}", 0)
    return all(map(view.in_service, used))


def stays(draft: Draft, view: CellView, tenant: str) -> None:
    """Compare that a tenant is as known: what is spent of its quotas depends on what they are.

    Its own record, and not its epoch: a new epoch may be known while the quotas of before are, for
    the two come by different watches.
    """
    key = keys.inventory("tenant", tenant)
    draft.seen(key, view.written_at.get(key, 0))


def draw(
    draft: Draft,
    view: CellView,
    watts: Mapping[str, int],
    spender: str,
    moved: Moved | None = None,
) -> bool:
    """Compare the grants that are spent and their rules; False where a grant does not cover it.

    What victims spent is covered already. Where they spent it from another scheduler's grant, that
    much of it becomes the spender's; the sum of all grants stays as it was.

    Args:
        draft: Collects the compares, and the writes of grants that move.
        view: What is known; what `spender` has under way counts in it as spent.
        watts: Purse -> how much more is to be spent of it.
        spender: The session whose grants they are: the acting process's own, since nobody else
            knows what that has under way.
        moved: What of it victims have spent so far (see `moves`).
    """
    gets: dict[str, dict[str, int]] = {}  # purse -> whose grant -> how much is the spender's now
    for name, purses in (moved or {}).items():
        for purse, amount in purses.items():
            table = gets.setdefault(purse, {})
            scheduler = view.placements[name].value.scheduler
            table[scheduler] = table.get(scheduler, 0) + amount
    for purse, amount in watts.items():
        grant = view.grants.get(purse, {}).get(spender)
        had = grant.value if grant else 0
        table = gets.get(purse, {})
        if view.spent(purse, spender) + amount - sum(table.values()) > had:
            return False
        draft.seen(keys.grant(purse, spender), grant.modified if grant else 0)
        draft.seen(keys.epoch(purse), view.epochs.get(purse, 0))
        comes = sum(_hand_over(draft, view, purse, table, spender))
        if comes:
            draft.put(keys.grant(purse, spender), had + comes)
    return True


def _hand_over(
    draft: Draft, view: CellView, purse: str, gets: Mapping[str, int], spender: str
) -> Iterator[int]:
    """Lower the grants of others by what moves from them, and yield how much that is."""
    for scheduler, amount in gets.items():
        if scheduler == spender:
            continue
        grant = view.grants[purse][scheduler]
        key = keys.grant(purse, scheduler)
        draft.seen(key, grant.modified)
        if grant.value > amount:
            draft.put(key, grant.value - amount)
        else:
            draft.delete(key)
        yield amount


def spend(
    cell: Cell, units: Iterable[str] | Mapping[str, tuple[int, ...]], owner: str
) -> dict[str, int]:
    """Return what units use of what is limited, by purse.

    Args:
        cell: Has the budgets and quotas.
        units: What is held; parts with their amounts.
        owner: The placement whose they are: "tenant/name", or a system placement's, which counts
            for no tenant.

    Returns:
        "domain:<name>" -> watts above idle, of each power domain with a budget;
        "tenant:<name>:<kind>" -> thousandths of engines of a kind, where the tenant has a quota.
    """
    return drawn(cell, units, owner)[0]


def busy_watts(cell: Cell, units: Iterable[str] | Mapping[str, tuple[int, ...]]) -> int:
    """Return what the engines among the units draw when busy, in watts."""
    return drawn(cell, units, "")[1]


def drawn(
    cell: Cell, units: Iterable[str] | Mapping[str, tuple[int, ...]], owner: str
) -> tuple[dict[str, int], int]:
    """Return what `spend` and what `busy_watts` say, together."""
    tenant = cell.tenants.get(owner.partition("/")[0])
    quota = tenant.quota if tenant else {}
    spent: dict[str, int] = {}
    busy = 0
    purses: dict[str, list[str]] = {}
    for engine_id, millis in _engines(units):
        engine = cell.engines[engine_id]
        if quota and tenant and engine.kind in quota:
            purse = f"tenant:{tenant.name}:{engine.kind}"
            spent[purse] = spent.get(purse, 0) + millis
        watts = engine.watts
        busy += -(-watts.busy * millis // WHOLE_MILLIS)
        # Rounded up: a budget is never passed.
        rise = -(-(watts.busy - watts.idle) * millis // WHOLE_MILLIS)
        if rise:
            node = engine.node
            if node not in purses:
                purses[node] = [
                    f"domain:{domain.name}"
                    for domain in cell.domains_of(node)
                    if domain.budget_watts is not None
                ]
            for purse in purses[node]:
                spent[purse] = spent.get(purse, 0) + rise
    return spent, busy


def _engines(
    units: Iterable[str] | Mapping[str, tuple[int, ...]],
) -> Iterator[tuple[str, int]]:
    amounts = units if isinstance(units, Mapping) else dict.fromkeys(units, ())
    for unit, amount in amounts.items():
        kind, _, subject = unit.partition("/")
        if kind == "engine":
            yield subject, WHOLE_MILLIS
        elif kind == "share":
            yield subject, amount[0]
