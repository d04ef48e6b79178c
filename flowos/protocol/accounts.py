"""What did a slice hold, and from when until when? The lines of its history.

A line is written in the transaction that ends what it tells of: the one that frees the last unit of
a placement, or the one that makes it hold more or less than before. So there is one line for all
that was ever held, however often a controller dies. All times are by the controller's clock, or, at
a resize, by that of whoever resizes; a line never ends before it begins.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from flowos.model import keys
from flowos.model.placement import Held, Placement
from flowos.model.slice import Phase, Reason
from flowos.model.transaction import Delete, Transaction
from flowos.model.units import Amounts, is_divisible, kind_of, subject_of
from flowos.model.view import CellView
from flowos.protocol.proposal import Draft, Fence, Proposal

PREEMPTED: Final = "preempted"
QUEUED_AGAIN: Final = "queued again"
RESIZED: Final = "resized"
RUNNING: Final = "running"  # only ever shown: what is held still has no line
FORGOTTEN_AT_ONCE: Final = 100  # below etcd's default --max-txn-ops of 128


def parts_of(placement: Placement) -> Mapping[str, Amounts]:
    """Return what a placement has of engines and hosts that are held in parts."""
    units = {**placement.held, **placement.releasing}
    return {unit: amounts for unit, amounts in units.items() if is_divisible(unit)}


def held_by(
    placement: Placement, *, policy: str, until_at: float, ended: str, since: float = 0.0
) -> Held:
    """Return what a placement has held up to a time.

    Args:
        placement: As it is before the transaction that ends this.
        policy: Who serves its slice.
        until_at: Wall-clock seconds.
        ended: How, in a word.
        since: From when on, where the placement does not say.
    """
    parts = {**parts_of(placement), **placement.had}
    hosts = [amounts for unit, amounts in parts.items() if kind_of(unit) == "host"]
    told = (placement.started_at, since or None, until_at)
    from_at = placement.committed_at or min(at for at in told if at is not None)
    return Held(
        attempt=placement.attempt,
        number=placement.number,
        policy=policy,
        engines=placement.engines,
        shares={subject_of(u): a[0] for u, a in parts.items() if kind_of(u) == "share"},
        cpu_millis=sum(amounts[0] for amounts in hosts),
        memory_bytes=sum(amounts[1] for amounts in hosts),
        watts=placement.watts,
        from_at=min(from_at, until_at),
        started_at=placement.started_at,
        until_at=until_at,
        ended=ended,
        message=placement.ending.message if placement.ending else "",
    )


def how_ended(placement: Placement) -> str:
    """Return in a word how what a placement holds comes to its end."""
    ending = placement.ending
    if ending is None or ending.phase is Phase.PENDING:
        taken = ending is not None and ending.reason is Reason.BEHIND_HIGHER_PRIORITY
        return PREEMPTED if taken else QUEUED_AGAIN
    return str(ending.phase)


def close(
    draft: Draft,
    view: CellView,
    identifier: str,
    before: Placement,
    *,
    now: float,
    since: float = 0.0,
) -> None:
    """Write the line of a placement that is given back with this transaction.

    Args:
        draft: Collects the writes.
        view: Tells whose policy it was.
        identifier: The slice, "tenant/name"; the system's placements have no history.
        before: The placement as it was.
        now: Wall-clock seconds.
        since: As in `held_by`.
    """
    _write(draft, view, identifier, before, now, how_ended(before), since)


def resized(
    draft: Draft,
    view: CellView,
    identifier: str,
    before: Placement,
    after: Placement,
    *,
    now: float,
) -> Placement:
    """Write the line of what a placement has held up to now; return it as it goes on.

    For whoever makes a running slice hold more or less: the result of `replace(before, ...)` goes
    in as `after`, and what comes out is to be written. Where no engine or part comes or goes, such
    as for other circuits, the line goes on.

    Args:
        draft: Collects the writes.
        view: Tells whose policy it is.
        identifier: The slice, "tenant/name".
        before: The placement as it was.
        after: As it will be.
        now: Wall-clock seconds.
    """
    if (before.engines, parts_of(before)) == (after.engines, parts_of(after)):
        return after
    _write(draft, view, identifier, before, now, RESIZED, 0.0)
    return replace(after, committed_at=now, segment=before.segment + 1)


def _write(
    draft: Draft,
    view: CellView,
    identifier: str,
    before: Placement,
    now: float,
    ended: str,
    since: float,
) -> None:
    spec = view.slices.get(identifier)
    policy = spec.value.spec.served_by if spec else ""
    line = held_by(before, policy=policy, until_at=now, ended=ended, since=since)
    draft.put(keys.history(identifier, before.attempt, before.segment), line)


def forget(names: Sequence[str], *, fence: Fence) -> Proposal:
    """Remove lines of the history, at most `FORGOTTEN_AT_ONCE`.

    Args:
        names: Below "history/", one at least.
        fence: The acting process's session.
    """
    operations = tuple(Delete(f"history/{name}") for name in names)
    # A line is written once and never changed, so there is nothing to compare it with.
    transaction = Transaction((fence.compare,), operations)
    return Proposal("forget history", f"~history/{names[0]}", transaction)
