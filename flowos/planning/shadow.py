"""When, and where, could a slice go that finds no place now?

Placements are lifted off the view in the order in which they are expected to end, until the slice
finds a place: where that is, others may leave room; when the last of them ends is how long it has
to wait at most, if what slices say of themselves is true. The reservation of EASY backfill, for
places that are not all alike.

Source: Mu'alem and Feitelson, "Utilization, Predictability, Workloads, and User Runtime Estimates
in Scheduling the IBM SP2 with Backfilling", IEEE TPDS 12(6), 2001, section 2 ("shadow time").
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf

from flowos.model.placement import Decision, Placement, Unplaceable
from flowos.model.units import Holding, engine_unit, kind_of, lane_unit, subject_of, things_used
from flowos.model.view import CellView
from flowos.planning.engines.pool import Pool

RESERVED = "~reserved/"


@dataclass(frozen=True, slots=True)
class Shadow:
    """Where a slice can go once others have ended.

    Attributes:
        eta_seconds: In how long it can; 0 = now, None = nobody knows.
        units: What it needs there: engines, whole or in part, as "engine/<node>/<engine>", and
            "node/<node>" where it needs a part of a host.
        after: The placements that hold any of it now, or lanes that it needs.
        held: All that it would hold there, and how much of it.
    """

    eta_seconds: float | None
    units: frozenset[str]
    after: tuple[str, ...]
    held: Holding = field(default_factory=dict, compare=False)


def shadow(
    pool: Pool,
    ends: Sequence[tuple[str, float | None]],
    plan: Callable[[], Decision | Unplaceable],
) -> Shadow | None:
    """Find the soonest place for a slice, by who ends when.

    It plans at most 2 log2(n) + 3 times for n placements (31 times for 10,000), each time with
    others lifted off the pool's view, which is as before afterwards.

    Args:
        pool: Of the view that `ends` is of; nothing may be changed in it meanwhile.
        ends: Placements in the order in which they are expected to end, with how many seconds
            that takes (see `ends_of`); what is not named stays.
        plan: Plans the slice on the pool as it is then: the policy's own `plan`, with its seed.

    Returns:
        None where it finds no place even when all of them have ended.
    """
    names = [name for name, _ in ends]
    found: dict[int, Decision] = {}

    def helps(count: int) -> bool:
        with pool.view.lifted(names[:count]):
            decision = plan()
        if isinstance(decision, Decision):
            found[count] = decision
        return count in found

    count = fewest(len(names), helps)
    if count is None:
        return None
    decision = found[count]
    eta = ends[count - 1][1] if count else 0.0
    after = _in_its_place(pool.view, decision, names[:count])
    return Shadow(eta, places(decision.units), after, decision.units)


def saved(
    view: CellView, short: Mapping[str, int], ends: Sequence[tuple[str, float | None]]
) -> tuple[float | None, tuple[str, ...]] | None:
    """Find out when purses will have more, by who ends when.

    Args:
        view: What is known.
        short: Purse -> how much more must be left in it than there is now.
        ends: As for `shadow`.

    Returns:
        In how many seconds all of them have that, None = nobody knows, and whose end that takes;
        None where they do not even when all of them have ended.
    """
    lacking = {purse: amount for purse, amount in short.items() if amount > 0}
    eta: float | None = 0.0
    after: list[str] = []
    for name, seconds in ends:
        if not lacking:
            break
        placement = view.now(name)
        gives = (
            {p: placement.spent[p] for p in lacking if p in placement.spent} if placement else {}
        )
        if gives:
            eta = seconds
            after.append(name)
            left = {purse: amount - gives.get(purse, 0) for purse, amount in lacking.items()}
            lacking = {purse: amount for purse, amount in left.items() if amount > 0}
    return None if lacking else (eta, tuple(after))


def fewest(most: int, helps: Callable[[int], bool], least: int = 0) -> int | None:
    """Return the smallest number that helps, where each number above one that helps does too.

    It asks at most 2 log2(most) + 3 times, and small numbers before large ones.

    Args:
        most: The largest number to try.
        helps: Whether so many help.
        least: The smallest number to try.

    Returns:
        None where not even `most` helps.
    """
    low, high, step = least - 1, least, 1  # `low` does not help
    while not helps(high):
        if high >= most:
            return None
        low, high, step = high, min(most, high + step), 2 * step
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if helps(middle) else (middle, high)
    return high


def ends_of(view: CellView, now: float) -> list[tuple[str, float | None]]:
    """Return who is expected to end, in that order, with in how many seconds: for `shadow`.

    Of those that nothing tells about, the oldest comes first, and all come last. What the system
    holds does not end, but for reservations with an end.

    Args:
        view: What is known.
        now: Wall-clock seconds. Another machine noted when slices started, so where clocks differ
            the times are off by that much, and the order is not.
    """
    found: list[tuple[str, float | None]] = []
    for names in view.by_attempt.values():  # plans of ours that are under way are in it too
        for name in names:
            eta = left(view, name, now)
            if eta is not None or not name.startswith("~"):
                found.append((name, eta))

    def place(end: tuple[str, float | None]) -> tuple[float, float, str]:
        entry = view.placements.get(end[0])
        return inf if end[1] is None else end[1], entry.created if entry else inf, end[0]

    return sorted(found, key=place)


def left(view: CellView, name: str, now: float) -> float | None:
    """Return in how many seconds a placement may be given back; None = nothing tells.

    Args:
        view: What is known.
        name: The placement.
        now: Wall-clock seconds.
    """
    placement = view.now(name)
    if placement is None:
        return None
    if name.startswith(RESERVED):
        window = view.reservations.get(name.split("/", 2)[1])
        if window is None:
            return 0.0
        return None if window.until_at is None else max(0.0, window.until_at - now)
    if name.startswith("~"):
        return None
    if placement.ending is not None:
        return 0.0
    entry = view.slices.get(name)
    if entry is None:
        return None
    spec = entry.value.spec
    ran = max(0.0, now - placement.started_at) if placement.started_at is not None else 0.0
    for takes in (placement.run.for_seconds, spec.expected_seconds, spec.time_limit_seconds):
        if takes > ran:
            return takes - ran
    # It ends by itself, or is ended: at any moment. Whoever is only expected to is not believed.
    return 0.0 if placement.run.for_seconds or spec.time_limit_seconds else None


def places(units: Iterable[str]) -> frozenset[str]:
    """Return what `Mark.units` names of these units."""
    found: set[str] = set()
    for unit in units:
        match kind_of(unit):
            case "engine":
                found.add(unit)
            case "share":
                found.add(engine_unit(subject_of(unit)))
            case "host":
                found.add(f"node/{subject_of(unit)}")
            case _:
                pass
    return frozenset(found)


def _in_its_place(view: CellView, decision: Decision, names: Sequence[str]) -> tuple[str, ...]:
    """Return which of these hold something that a decision needs, or put it out of service."""
    needed = set(decision.units)
    for circuit in decision.circuits:  # the lanes at a whole engine's ports are not among its units
        for arc in circuit.arcs:
            needed |= {lane_unit(arc.link, arc.direction, lane) for lane in arc.lanes}
    for unit in tuple(needed):
        needed.update(things_used(view.cell, unit))
    needed |= places(needed)

    def has(placement: Placement | None) -> bool:
        if placement is None:
            return False
        has = {*placement.held, *placement.releasing, *placement.wanted}
        return not needed.isdisjoint(has | places(has))

    return tuple(name for name in names if has(view.now(name)))
