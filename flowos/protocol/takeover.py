"""Taking units over from who holds them: preemption, drain of a busy unit, waking.

What is taken leaves the victim's placement and enters the taker's in one transaction; all else of
the victim goes to releasing. The taker waits for the victims' attempts before it builds anything,
so no unit is ever up in two orders. Of a host, or of an engine that is held in parts, an amount
moves: the victim's claim is written anew with what is left of it, beside the taker's, so the sum
of both claims and what is free stays as it was, and nothing is free that is still in use.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from itertools import zip_longest
from typing import Final, TypeAlias

from flowos.model import keys
from flowos.model.placement import Ending, Placement
from flowos.model.units import (
    Amounts,
    Holding,
    claim_key,
    is_divisible,
    kind_of,
    share_unit,
    subject_of,
)
from flowos.model.view import CellView
from flowos.protocol import accounts
from flowos.protocol.orders import rewrite_orders
from flowos.protocol.proposal import Draft

RESERVED: Final = "~reserved/"

Losses: TypeAlias = Mapping[str, Holding]  # victim -> unit -> how much of it goes; () = a whole one


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


def step_aside(draft: Draft, view: CellView, reserved: str) -> tuple[str, ...] | None:
    """Let a `~reserved` system placement wait for its unit again, which the caller takes.

    Its claim is the caller's to overwrite in the same transaction.

    Returns:
        The attempts that the unit was taken from and that are not clean yet: whoever takes it now
        waits for them; None where the placement has gone.
    """
    entry = view.placements.get(reserved)
    if entry is None:
        return None
    before = entry.value
    draft.placed(reserved, entry)
    after = replace(before, held={}, wanted=tuple(before.held), waits=())
    draft.put(keys.placement(reserved), after)
    return tuple(attempt for attempt in before.waits if view.carried((attempt,)))


def take_over(
    draft: Draft, view: CellView, taker: str, units: Iterable[str], ending: Ending
) -> tuple[str, ...] | None:
    """Make whoever holds these units give them up at once, and all else by way of releasing.

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
    lost: dict[str, dict[str, Amounts]] = {}
    for unit in units:
        for name in view.holders.get(unit, ()):
            lost.setdefault(name, {})[unit] = ()
        if unit.startswith("engine/"):
            engine = subject_of(unit)
            for name, millis in view.shares.get(engine, {}).items():
                lost.setdefault(name, {})[share_unit(engine)] = (millis,)
    return take(draft, view, taker, lost, ending)


def take(
    draft: Draft,
    view: CellView,
    taker: str,
    lost: Losses,
    ending: Ending,
    moved: Mapping[str, Mapping[str, int]] | None = None,
) -> tuple[str, ...] | None:
    """Make victims give up just this at once, and all else by way of releasing.

    Claims of whole units, and the taker's own, are the caller's to write in the same transaction;
    so is the guard of divisible ones.

    Args:
        draft: Collects the compares and writes.
        view: What is known.
        taker: Who takes them.
        lost: What each victim loses.
        ending: What becomes of the victims; their tasks have the grace that their slices ask for.
        moved: Victim -> purse -> how much of what it spends is the taker's from now on.

    Returns:
        As `take_over`.
    """
    waits: list[str] = []
    for name in sorted(lost):
        entry = view.placements.get(name)
        if entry is None or view.assumed(name) or name == taker:
            return None
        if name.startswith("~off/"):
            if not wake(draft, view, name):
                return None
            continue
        if name.startswith(RESERVED):
            unclean = step_aside(draft, view, name)
            if unclean is None:
                return None
            waits += unclean
            continue
        if name.startswith("~"):
            return None
        victim = entry.value
        if not lost[name].keys() <= victim.held.keys():
            return None  # it is being freed already
        left = {**victim.held, **victim.releasing}
        for unit, amounts in lost[name].items():
            rest = _less(left.pop(unit), amounts)
            if any(rest):
                if min(rest) < 0:
                    return None
                left[unit] = rest
                draft.claim(claim_key(unit, victim.attempt), name, victim.attempt, rest)
            elif is_divisible(unit):
                draft.delete(claim_key(unit, victim.attempt))
        less = (moved or {}).get(name, {})
        draft.placed(name, entry)
        after = replace(
            victim,
            held={},
            releasing=left,
            spent={p: w - less.get(p, 0) for p, w in victim.spent.items() if w > less.get(p, 0)},
            ending=victim.ending or replace(ending, grace_seconds=_grace(victim)),
            had=victim.had or accounts.parts_of(victim),
        )
        draft.put(keys.placement(name), rewrite_orders(draft, view.cell, name, victim, after))
        waits.append(victim.attempt)
    return tuple(waits)


def losses(
    view: CellView, units: Holding, victims: Collection[str]
) -> dict[str, dict[str, Amounts]]:
    """Return what these victims have of what is wanted, and is not free without them.

    Of a part as much as is lacking goes, from the first of the victims first. Whether they have
    enough, and whether others have some of it, is not looked at.

    Args:
        view: What is known.
        units: What a taker wants, and its amounts.
        victims: Slices' placements.
    """
    lost: dict[str, dict[str, Amounts]] = {}
    if not victims:
        return lost
    for unit, amounts in units.items():
        if is_divisible(unit):
            short = shortage(view, unit, amounts)
            for name in victims if any(short) else ():
                entry = view.placements.get(name)
                had = entry.value.held.get(unit, ()) if entry else ()
                gives = tuple(map(min, short, (*had, *(0 for _ in short[len(had) :]))))
                if any(gives):
                    lost.setdefault(name, {})[unit] = gives
                    short = _less(short, gives)
            continue
        for name in view.holders.get(unit, ()):
            if name in victims:
                lost.setdefault(name, {})[unit] = ()
        if unit.startswith("engine/"):
            engine = subject_of(unit)
            for name, millis in view.shares.get(engine, {}).items():
                if name in victims:
                    lost.setdefault(name, {})[share_unit(engine)] = (millis,)
    return lost


def shortage(view: CellView, unit: str, more: Amounts) -> Amounts:
    """Return how much more of a part is wanted than is free; only zeros where it fits."""
    subject = subject_of(unit)
    if kind_of(unit) == "share":
        known = subject in view.cell.engines
        return (max(0, more[0] - view.free_millis(subject)),) if known else more
    if subject not in view.cell.nodes:
        return more
    free: Amounts = view.free_host(subject)
    devices = view.free_devices(subject) if len(more) > 2 else None
    if devices is not None:
        free = (*free, devices)
    return tuple(max(0, wanted - have) for wanted, have in zip(more, free, strict=False))


def given(lost: Losses, unit: str) -> Amounts:
    """Return how much of a part all victims give together; () = none gives any."""
    gives = [parts[unit] for parts in lost.values() if unit in parts]
    return tuple(map(sum, zip_longest(*gives, fillvalue=0)))


def holders_of(view: CellView, unit: str) -> list[str]:
    """Return who holds a whole unit, or parts of the engine that it is."""
    found = list(view.holders.get(unit, ()))
    if unit.startswith("engine/"):
        found += view.shares.get(subject_of(unit), {})
    return found


def _grace(victim: Placement) -> float:
    return victim.run.grace_seconds if victim.run.ends else 0.0  # else there are no tasks


def _less(amounts: Amounts, by: Amounts) -> Amounts:
    return tuple(have - gone for have, gone in zip_longest(amounts, by, fillvalue=0))
