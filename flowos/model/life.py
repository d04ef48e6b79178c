"""Which phase is a slice in, and why does it wait? Derived from its records and stored nowhere."""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from flowos.model.placement import Order, Placement, Report, Session
from flowos.model.slice import NEXT, Phase, Reason, Slice, Waiting
from flowos.model.view import CellView, Entry

# A client with a scheduler of its own writes the request and the placement in one transaction.
FIRST: Final = frozenset({Phase.PENDING, Phase.COMMITTED})


@dataclass(frozen=True, slots=True)
class Built:
    """How far the agents are with the orders of one placement.

    Attributes:
        places: How many places have an order of its attempt.
        begun: At how many the current order is being built, or is applied.
        applied: At how many the devices equal the current order.
        quarantined: Whether a part of it is split off at a place that does not answer.
    """

    places: int = 0
    begun: int = 0
    applied: int = 0
    quarantined: bool = False

    @property
    def complete(self) -> bool:
        """Whether all devices equal their orders."""
        return self.applied == self.places


NOTHING_BUILT: Final = Built()


def built(
    placement: Placement,
    orders: Mapping[str, Entry[Order]],
    reports: Mapping[str, Entry[Report]],
    *,
    quarantined: bool = False,
) -> Built:
    """Count what the agents say of a placement's orders.

    Args:
        placement: Whose.
        orders: Place -> order, of its attempt.
        reports: Place -> report, of its attempt.
        quarantined: Whether a `~quarantine` placement carries its attempt too.
    """
    begun = applied = 0
    for place in placement.ordered:
        order, report = orders.get(place), reports.get(place)
        if order is not None and report is not None:
            if report.value.applied >= order.modified:
                applied += 1
                begun += 1
            elif report.value.building >= order.modified:
                begun += 1
    return Built(len(placement.ordered), begun, applied, quarantined)


def phase_of(
    slice_: Slice | None, placement: Placement | None, progress: Built = NOTHING_BUILT
) -> Phase:
    """Return the phase that these records say; the only place where it is derived.

    Args:
        slice_: The slice's own record; None where it was deleted while its placement is still
            being given back.
        placement: What it holds: one with its uid, none that an earlier slice of its name left.
        progress: How far the placement's orders are carried out.
    """
    assert slice_ is not None or placement is not None, "there is no such slice"
    if slice_ is not None and slice_.end is not None:
        return slice_.end.phase
    if placement is None:
        return Phase.PENDING
    if placement.ending is not None:
        # What never had an order has nothing to report: it is only waiting to be freed.
        gone = progress.applied > 0 or progress.complete
        return Phase.CLEANING if gone else Phase.DRAINING
    if placement.waits:
        return Phase.COMMITTED
    if placement.started_at is not None:
        if progress.quarantined and placement.releasing and placement.held:
            return Phase.DEGRADED
        return Phase.RUNNING if progress.complete else Phase.REPAIRING
    if progress.begun == 0:
        return Phase.COMMITTED
    return Phase.RUNNING if progress.complete else Phase.PROVISIONING


def phase_in(view: CellView, identifier: str) -> Phase | None:
    """Return a slice's phase as a view has it, or None where the view knows no such slice.

    The view must follow orders and reports.
    """
    slice_, placed = view.slices.get(identifier), view.placements.get(identifier)
    if placed is not None and slice_ is not None:
        # Left by an earlier slice of this name, and on its way out.
        placed = placed if (placed.value.uid or placed.created) == slice_.created else None
    if placed is None:
        return phase_of(slice_.value, None) if slice_ else None
    attempt = placed.value.attempt
    progress = built(
        placed.value,
        view.orders.get(attempt, {}),
        view.reports.get(attempt, {}),
        quarantined=any(map(is_quarantine, view.by_attempt.get(attempt, ()))),
    )
    return phase_of(slice_.value if slice_ else None, placed.value, progress)


def is_quarantine(identifier: str) -> bool:
    """Whether a placement is what a dead place left of another one."""
    return identifier.startswith("~quarantine/")


def moves_legally(before: Phase, after: Phase) -> bool:
    """Whether a slice seen in one phase may next be seen in the other."""
    return after is before or after in NEXT[before]


def served(sessions: Iterable[Session]) -> frozenset[str]:
    """Return the policies that the living schedulers among these sessions serve."""
    return frozenset(session.policy for session in sessions if session.role == "scheduler")


def reason_of(
    slice_: Slice,
    placement: Placement | None,
    waiting: Waiting | None,
    policies: Container[str],
) -> Reason | None:
    """Return the reason to show beside a slice's phase, or None where there is none to give.

    Args:
        slice_: The slice's own record.
        placement: What it holds, if anything.
        waiting: What its scheduler wrote last, if anything.
        policies: The policies that living schedulers serve.
    """
    if slice_.end is not None:
        return slice_.end.reason
    if placement is not None:
        return placement.ending.reason if placement.ending else None
    if slice_.held:
        return Reason.HELD
    if slice_.spec.served_by not in policies:
        # Whatever a scheduler wrote before it went, nobody looks for a place now.
        return Reason.SCHEDULER_DOWN
    return waiting.reason if waiting else None
