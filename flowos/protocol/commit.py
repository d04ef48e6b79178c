"""Placing a slice: claims, orders and the placement in one transaction."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from flowos.model import keys
from flowos.model.cell import WHOLE_MILLIS, Cell
from flowos.model.placement import Circuit, Decision, Ending, Placement
from flowos.model.slice import Phase, Reason, Slice
from flowos.model.units import (
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
from flowos.protocol.takeover import take_over, wake

PREEMPTED = Ending(
    phase=Phase.PENDING, reason=Reason.BEHIND_HIGHER_PRIORITY, message="its units were taken over"
)


def commit(
    view: CellView,
    identifier: str,
    decision: Decision,
    *,
    fence: Fence,
    attempt: str,
    scheduler: str,
    preempt: bool = False,
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
        preempt: Whether units that other slices hold may be taken over.
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
    waits = _claim_all(draft, view, identifier, attempt, decision.units, preempt=preempt)
    if waits is None:
        return None
    if not in_service(draft, view, decision.units, decision.circuits):
        return None
    spent, watts = drawn(view.cell, decision.units)
    if not draw(draft, view, spent, scheduler):
        return None
    tenant = f"tenant:{record.spec.tenant}"
    draft.seen(keys.epoch(tenant), view.epochs.get(tenant, 0))
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
    units: Mapping[str, tuple[int, ...]],
    *,
    preempt: bool,
) -> tuple[str, ...] | None:
    """Compare and write the claims; return the attempts to wait for, or None."""
    busy: list[str] = []
    unshared: dict[str, list[str]] = {}
    holders, shares, known = view.holders, view.shares, view.cell.engines
    for unit, amounts in units.items():
        if unit.startswith("engine/"):
            subject = unit[7:]
            engine = known.get(subject)
            if engine is None:
                return None
            if engine.shareable:
                if shares.get(subject):
                    return None
                unshared.setdefault(engine.node, []).append(subject)
            if unit not in holders:  # nearly always
                draft.claim_free(f"claim/{unit}", identifier, attempt, amounts)
                continue
        key = claim_key(unit, attempt)
        if is_divisible(unit):
            if not divide(draft, view, unit, amounts):
                return None
        else:
            holder = view.holder(unit)
            if holder is None:
                draft.seen(key, 0)
            elif holder.startswith("~off/"):
                if not wake(draft, view, holder):
                    return None
            elif preempt:
                busy.append(unit)
            else:
                return None
        draft.claim(key, identifier, attempt, amounts)
    for node, engines in unshared.items():
        _stay_unshared(draft, view, node, engines)
    return take_over(draft, view, identifier, busy, PREEMPTED) if busy else ()


def _stay_unshared(draft: Draft, view: CellView, node: str, engines: Sequence[str]) -> None:
    """Compare that nobody holds a part of these engines.

    Where nobody holds a part of any engine of the node, one compare says so of all of them: half
    the compares and reads of a gang of whole nodes.
    """
    if len(engines) > 1 and not any(map(view.shares.get, view.cell.engines_of[node])):
        draft.stays_quiet(f"claim/share/{node}/", 0)
        return
    for engine in engines:
        draft.stays_quiet(f"claim/{share_unit(engine)}/", 0)


def divide(draft: Draft, view: CellView, unit: str, more: tuple[int, ...]) -> bool:
    """Guard a part of an engine or of a host.

    Args:
        draft: Collects the compares, and the writes that wake an engine.
        view: What is known.
        unit: A divisible unit.
        more: How much of it is wanted in addition to what the same placement holds already.

    Returns:
        False where it does not fit, or the whole engine is held.
    """
    if not _fits(view, unit, more):
        return False
    prefix = f"claim/{unit}/"
    draft.stays_quiet(prefix, view.guard(prefix))
    if kind_of(unit) == "share":
        whole = engine_unit(subject_of(unit))
        holder = view.holder(whole)
        if holder is None:
            draft.seen(f"claim/{whole}", 0)
        elif holder.startswith("~off/") and wake(draft, view, holder):
            draft.delete(f"claim/{whole}")
        else:
            return False
    return True


def _fits(view: CellView, unit: str, more: tuple[int, ...]) -> bool:
    # The guard says that nothing was put since the view; so the view must have room for it. A
    # placement that cannot be read may hold parts of anything.
    if any(key.startswith("placement/") for key in view.unreadable):
        return False
    subject = subject_of(unit)
    if kind_of(unit) == "share":
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


def draw(draft: Draft, view: CellView, watts: Mapping[str, int], spender: str) -> bool:
    """Compare the grants that are spent and their rules; False where a grant does not cover it.

    Args:
        draft: Collects the compares.
        view: What is known; what `spender` has under way counts in it as spent.
        watts: Purse -> how much more is to be spent of it.
        spender: The session whose grants they are: the acting process's own, since nobody else
            knows what that has under way.
    """
    for purse, amount in watts.items():
        grant = view.grants.get(purse, {}).get(spender)
        if view.spent(purse, spender) + amount > (grant.value if grant else 0):
            return False
        draft.seen(keys.grant(purse, spender), grant.modified if grant else 0)
        draft.seen(keys.epoch(purse), view.epochs.get(purse, 0))
    return True


def spend(cell: Cell, units: Iterable[str] | Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Return what units draw above idle, by power domain with a budget: "domain:<name>" -> watts."""
    return drawn(cell, units)[0] if cell.domains else {}


def busy_watts(cell: Cell, units: Iterable[str] | Mapping[str, tuple[int, ...]]) -> int:
    """Return what the engines among the units draw when busy, in watts."""
    return drawn(cell, units)[1]


def drawn(
    cell: Cell, units: Iterable[str] | Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, int], int]:
    """Return what `spend` and what `busy_watts` say, together."""
    spent: dict[str, int] = {}
    busy = 0
    purses: dict[str, list[str]] = {}
    for engine_id, millis in _engines(units):
        engine = cell.engines[engine_id]
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
