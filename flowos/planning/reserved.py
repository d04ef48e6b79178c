"""Which reservations may a slice use, and which does it have to keep out of?

A slice is planned among what is free for everybody; what is reserved for it is asked only then, or
at once where it names its reservation. It keeps out of windows of others that open before it is
over: that is advice, by this process's clock, since the controller opens windows by its own and
takes over then who is in the way.
"""

from collections.abc import Callable, Collection, Iterable
from datetime import UTC, datetime
from math import inf
from typing import Final, TypeAlias

from flowos.model.placement import Decision, Unplaceable
from flowos.model.rules import Reservation
from flowos.model.slice import Reason, SliceSpec
from flowos.model.view import CellView

RESERVED: Final = "~reserved/"
NOTHING: Final[frozenset[str]] = frozenset()

Plan: TypeAlias = Callable[[Collection[str]], Decision | Unplaceable]


def usable(view: CellView, spec: SliceSpec) -> tuple[str, ...]:
    """Return the system placements that give way to a slice: of open windows that it may use."""
    if not view.reservations:
        return ()
    return tuple(_kept(view, _open_to(view, spec)))


def ahead(view: CellView, spec: SliceSpec, now: float) -> frozenset[str]:
    """Return the units of windows that are not for a slice and open before it is over.

    It is over with its time limit, else when it is expected to be, else never.

    Args:
        view: What is known.
        spec: The slice.
        now: Wall-clock seconds.
    """
    windows = in_the_way(view, spec, now)
    return NOTHING.union(*(window.units for window in windows)) if windows else NOTHING


def depends_on(view: CellView, spec: SliceSpec, now: float) -> tuple[str, ...]:
    """Return what else than its shape decides where `planned` finds a place for a slice."""
    if not (view.reservations or spec.reservation):
        return ()
    windows = [window.name for window in in_the_way(view, spec, now)]
    return (spec.reservation, *(w.name for w in _open_to(view, spec)), "/", *windows)


def planned(
    view: CellView, spec: SliceSpec, now: float, avoid: frozenset[str], plan: Plan
) -> Decision | Unplaceable:
    """Plan a slice where reservations leave it room, or say which one does not.

    Without any reservation this is `plan` alone; with some, at most three plans.

    Args:
        view: What `plan` plans on.
        spec: The slice.
        now: Wall-clock seconds.
        avoid: Units to leave alone; what is `ahead` is, whether it is among them or not.
        plan: Plans it now, leaving units alone.
    """
    if not view.reservations:
        return _named(view, spec) or plan(avoid)
    missing = _named(view, spec)
    if missing is not None:
        return missing
    windows = in_the_way(view, spec, now)
    units = NOTHING.union(*(window.units for window in windows))
    around = avoid | units
    mine = usable(view, spec)
    answer: Unplaceable | None = None
    if not (mine and spec.reservation):
        plainly = plan(around)
        if isinstance(plainly, Decision):
            return plainly
        answer = plainly
    if mine:
        with view.lifted(mine):
            found = plan(around)
        if isinstance(found, Decision):
            return found
        answer = answer or found
    assert answer is not None, "one of the two was planned"
    if answer.reason is Reason.INFEASIBLE or not windows:
        return answer
    with view.lifted((*mine, *_kept(view, windows))):
        without = plan(avoid - units)
    return _reserved(windows, now, answer) if isinstance(without, Decision) else answer


def when(at: float) -> str:
    """Return a time for people: "2026-11-23 02:00 UTC"."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC"


def _open_to(view: CellView, spec: SliceSpec) -> list[Reservation]:
    return [w for w in view.reservations.values() if w.is_for(spec.tenant, spec.reservation)]


def _kept(view: CellView, windows: Iterable[Reservation]) -> Iterable[str]:
    """Yield the system placements that are there for windows."""
    for window in windows:
        for unit in window.units:
            name = f"{RESERVED}{window.name}/{unit}"
            if name in view.placements:
                yield name


def in_the_way(view: CellView, spec: SliceSpec, now: float) -> list[Reservation]:
    """Return the windows of others that a slice would run into, or that are open.

    Args:
        view: What is known.
        spec: The slice.
        now: Wall-clock seconds.
    """
    if not view.reservations:
        return []
    takes = spec.time_limit_seconds or spec.run.for_seconds or spec.expected_seconds or inf
    return [
        window
        for window in view.reservations.values()
        if not window.is_for(spec.tenant, spec.reservation)
        and window.from_at < now + takes
        and (window.until_at is None or window.until_at > now)
    ]


def _named(view: CellView, spec: SliceSpec) -> Unplaceable | None:
    """Return why the reservation that a slice names is of no use to it now."""
    if not spec.reservation:
        return None
    window = view.reservations.get(spec.reservation)
    if window is None:
        why = f"there is no reservation {spec.reservation}"
    elif not window.is_for(spec.tenant):
        why = f"reservation {window.name} is not for tenant {spec.tenant}"
    elif not any(_kept(view, [window])):
        why = f"reservation {window.name} is not open: it is from {_span(window)}"
    else:
        return None
    return Unplaceable(Reason.RESERVED_FOR_OTHER, why)


def _reserved(windows: Iterable[Reservation], now: float, answer: Unplaceable) -> Unplaceable:
    said = ", and ".join(
        f"reservation {window.name} keeps {len(window.units)} of the units that it fits on for "
        f"{', '.join(window.tenants) or 'maintenance'} from {_span(window)}"
        if window.from_at > now
        else f"reservation {window.name} keeps {len(window.units)} of the units that it fits on "
        f"for {', '.join(window.tenants) or 'maintenance'}, {_until(window)}"
        for window in windows
    )
    return Unplaceable(Reason.RESERVED_FOR_OTHER, said, answer.funnel)


def _span(window: Reservation) -> str:
    return f"{when(window.from_at)}, {_until(window)}"


def _until(window: Reservation) -> str:
    return "until it is removed" if window.until_at is None else f"until {when(window.until_at)}"
