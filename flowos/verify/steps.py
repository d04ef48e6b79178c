"""What must be true of each step from one revision to the next?

Some laws cannot be seen in a state: that a unit was clean when it was freed, that a grant was
raised within its limit, that a phase was left by a way that the life cycle has.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any, Final, TypeVar

from flowos.model import keys
from flowos.model.cell import WHOLE_MILLIS
from flowos.model.codec import decode
from flowos.model.errors import SpecError
from flowos.model.life import FIRST, Built, built, is_quarantine, moves_legally, phase_of
from flowos.model.placement import Placement
from flowos.model.slice import ENDED, Phase
from flowos.model.transaction import Change
from flowos.model.units import (
    Amounts,
    engine_unit,
    kind_of,
    lane_unit,
    share_unit,
    subject_of,
    things_used,
)
from flowos.protocol.grants import lacks, limit_of, uncovered
from flowos.protocol.orders import cleaners_of
from flowos.protocol.takeover import RESERVED
from flowos.verify.facts import CLAIM, Claim, Facts, Life, life_of, unit_of_claim
from flowos.verify.laws import Fault, fault

GRANT: Final = "grant/"
PLACEMENT: Final = "placement/"

_PARTS: Final = (f"{CLAIM}share/", f"{CLAIM}host/")

T = TypeVar("T")

# What a slice may be in when the last record of it goes: never placed, ended, or being freed after
# its own record was deleted.
LAST: Final = ENDED | {Phase.PENDING, Phase.DRAINING, Phase.CLEANING}


class Limits:
    """What all grants of a purse may come to, remembered until the inventory changes."""

    def __init__(self) -> None:
        self._known: dict[str, int | None] = {}
        self._covered: set[str] = set()  # all that is used of these is spent from grants
        self._inventory = -1

    def of(self, facts: Facts, purse: str) -> int | None:
        """Return the limit of a purse as the facts are; None = unlimited.

        What was placed before there was a limit, and so without a grant, is left out of it.
        """
        if self._inventory != facts.inventory:
            self._known.clear()
            self._covered.clear()
            self._inventory = facts.inventory
        if purse not in self._known:
            self._known[purse] = limit_of(facts.cell, purse)
        limit = self._known[purse]
        if limit is None or purse in self._covered:
            return limit
        much = uncovered(facts.cell, facts.placements, purse)
        if not much:
            self._covered.add(purse)  # nor will there be any, without a change of the inventory
        return limit - much


def freed(facts: Facts, changes: Sequence[Change]) -> Iterator[Fault]:
    """A unit is freed when all places that build it have reported it down, and nobody is awaited.

    A part that moves to who took it over, and waits for its owner, is not freed.

    Args:
        facts: Of the state before the step.
        changes: The step.
    """
    gone = [c.key for c in changes if c.value is None and c.key.startswith(CLAIM)]
    less = [c for c in changes if c.value is not None and c.key.startswith(_PARTS)]
    if not (gone or less):
        return
    lowered = _lowered(facts, gone, less)
    moved = _moved(facts, lowered, changes) if lowered else frozenset()
    for key in dict.fromkeys([*gone, *(CLAIM + below for below in lowered)]):
        below = key[len(CLAIM) :]
        claim, unit = facts.claims.get(below), unit_of_claim(below)
        if claim is None or unit is None or below in moved:
            continue
        owner = facts.placements.get(claim.owner)
        if owner is not None and facts.carried(owner.value.waits):
            waits = list(owner.value.waits)
            yield fault(
                key,
                f"{below} of {claim.owner} is freed while it waits for {', '.join(waits)}",
                owner=claim.owner,
                waits=waits,
            )
        if claim.owner.startswith("~"):
            continue  # what the system held has no order to wait for, or an operator's word
        if owner is not None and unit in owner.value.held:
            yield fault(key, f"{below} of {claim.owner} is freed while it is held")
            continue
        cleaners = cleaners_of(facts.cell, unit, owner.value.ordered if owner else ())
        dirty = [place for place in cleaners if not facts.applied(place, claim.attempt)]
        if dirty:
            yield fault(
                key,
                f"{below} of {claim.owner} is freed before {', '.join(dirty)} reported it down",
                owner=claim.owner,
                attempt=claim.attempt,
                places=dirty,
            )


def _lowered(facts: Facts, gone: Iterable[str], less: Iterable[Change]) -> Mapping[str, Amounts]:
    """Return of each claim of a part, below "claim/", by how much a step lowers it."""
    found: dict[str, Amounts] = {}
    for key in gone:
        claim = facts.claims.get(key[len(CLAIM) :])
        if claim is not None and claim.amounts:
            found[key[len(CLAIM) :]] = claim.amounts
    for change in less:
        claim, now = facts.claims.get(change.key[len(CLAIM) :]), _claim_in(change)
        if claim is not None and now is not None:
            by = [had - has for had, has in zip_longest(claim.amounts, now.amounts, fillvalue=0)]
            if max(by) > 0:
                found[change.key[len(CLAIM) :]] = tuple(max(0, amount) for amount in by)
    return found


def _moved(
    facts: Facts, lowered: Mapping[str, Amounts], changes: Iterable[Change]
) -> frozenset[str]:
    """Return which of the claims that are lowered are so for others, who now wait for them.

    Of a unit no more moves than these others claim; what goes beyond that is freed.
    """
    placed = {change.key: change for change in changes if change.key.startswith(PLACEMENT)}
    # Unit -> attempts that are waited for, and how much is claimed by those who wait.
    takers: dict[str, list[tuple[tuple[str, ...], Amounts]]] = {}
    for change in changes:
        claim = _claim_in(change) if change.key.startswith(CLAIM) else None
        record = placed.get(keys.placement(claim.owner)) if claim is not None else None
        taker = _read(Placement, record) if record is not None else None
        unit = unit_of_claim(change.key[len(CLAIM) :])
        if claim is None or taker is None or unit is None:
            continue
        amounts = claim.amounts
        if kind_of(unit) == "engine":
            unit, amounts = share_unit(subject_of(unit)), (WHOLE_MILLIS,)
        takers.setdefault(unit, []).append((taker.waits, amounts))
    found: set[str] = set()
    for unit, those in takers.items():
        waited = {attempt for waits, _ in those for attempt in waits}
        mine = [
            b for b in lowered if unit_of_claim(b) == unit and facts.claims[b].attempt in waited
        ]
        goes = _sum(lowered[below] for below in mine)
        comes = _sum(amounts for _, amounts in those)
        if all(had <= has for had, has in zip_longest(goes, comes, fillvalue=0)):
            found.update(mine)
    return frozenset(found)


def _sum(amounts: Iterable[Amounts]) -> Amounts:
    return tuple(map(sum, zip_longest(*amounts, fillvalue=0)))


def _claim_in(change: Change) -> Claim | None:
    read: Any = _read(tuple[str, str, tuple[int, ...]], change)
    return Claim(*read) if read is not None else None


def _read(kind: type[T], change: Change) -> T | None:
    """Return what a change puts; None where it deletes, or cannot be read: another law says so."""
    try:
        return None if change.value is None else decode(kind, change.value)
    except SpecError:
        return None


def kept(facts: Facts, changes: Sequence[Change]) -> dict[str, str]:
    """Return the units that a step takes from reservations: unit -> the placement that kept it.

    Args:
        facts: Of the state before the step.
        changes: The step.
    """
    found: dict[str, str] = {}
    for change in changes:
        if change.key.startswith(f"{PLACEMENT}{RESERVED}"):
            name = change.key[len(PLACEMENT) :]
            entry = facts.placements.get(name)
            found |= dict.fromkeys(entry.value.held if entry else (), name)
    return found


def reserved(facts: Facts, before: Mapping[str, str], changes: Sequence[Change]) -> Iterator[Fault]:
    """What is kept for a tenant goes from there to its slices alone.

    Args:
        facts: Of the state after the step.
        before: What `kept` says.
        changes: The step.
    """
    for change in changes if before else ():
        claim = facts.claims.get(change.key[len(CLAIM) :]) if change.key.startswith(CLAIM) else None
        unit = unit_of_claim(change.key[len(CLAIM) :]) if claim else None
        if claim is None or unit is None or claim.owner.startswith("~"):
            continue
        keeper = before.get(engine_unit(subject_of(unit)) if kind_of(unit) == "share" else unit)
        if keeper is None:
            continue
        reservation = keeper.split("/", 2)[1]
        window = facts.reservations.get(reservation)
        if window is None or not window.is_for(claim.owner.partition("/")[0]):
            whom = ", ".join(window.tenants) if window is not None else ""
            yield fault(
                change.key,
                f"{unit}, which reservation {reservation} keeps for {whom or 'nobody'}, "
                f"goes to {claim.owner}",
                owner=claim.owner,
                reservation=reservation,
            )


def granted(facts: Facts, changes: Sequence[Change]) -> dict[str, int]:
    """Return the sum of all grants, now, of each purse in which the step writes one."""
    purses = {
        change.key[len(GRANT) :].rpartition("/")[0]
        for change in changes
        if change.key.startswith(GRANT)
    }
    return {purse: total(facts, purse) for purse in sorted(purses)}


def total(facts: Facts, purse: str) -> int:
    """Return the sum of all grants of a purse."""
    return sum(facts.grants.get(purse, {}).values())


def raised(facts: Facts, before: dict[str, int], limits: dict[str, int | None]) -> Iterator[Fault]:
    """No step raises the sum of grants above the limit that it sees.

    Args:
        facts: Of the state after the step.
        before: Purse -> sum of grants before it, for each purse that it writes in.
        limits: The same purses' limits before it.
    """
    for purse, had in before.items():
        limit, now = limits[purse], total(facts, purse)
        if limit is not None and now > max(limit, had):
            yield fault(
                GRANT + purse,
                f"grants of {purse} are raised from {had} to {now}, its limit is {limit}",
                before=had,
                granted=now,
                limit=limit,
            )


def placed(facts: Facts, changes: Sequence[Change]) -> dict[str, Placement | None]:
    """Return the slices' placements that the step writes, as they are before it."""
    found: dict[str, Placement | None] = {}
    for change in changes:
        if change.key.startswith(PLACEMENT) and not change.key.startswith(f"{PLACEMENT}~"):
            name = change.key[len(PLACEMENT) :]
            entry = facts.placements.get(name)
            found[name] = entry.value if entry else None
    return found


def committed(facts: Facts, before: Mapping[str, Placement | None]) -> Iterator[Fault]:
    """Nothing is placed for a slice that is not there, or is not to be placed.

    Args:
        facts: Of the state after the step.
        before: The placements that it writes, as they were.
    """
    for name, old in before.items():
        # Only a placement's first put: later ones may come just after its slice was deleted.
        if old is not None or name not in facts.placements:
            continue
        entry = facts.slices.get(name)
        if entry is None:
            why = "there is no such slice"
        elif entry.value.cancelled:
            why = "it is cancelled"
        elif entry.value.held:
            why = "it is held"
        else:
            continue  # an ended one's phase goes where it cannot
        yield fault(keys.placement(name), f"{name} is placed, but {why}", placement=name)


def covered(facts: Facts, before: Mapping[str, Placement | None]) -> Iterator[Fault]:
    """No slice gets engines of a kind that its tenant has a quota of without spending from it.

    Args:
        facts: Of the state after the step.
        before: The placements that it writes, as they were.
    """
    for name, old in before.items():
        entry = facts.placements.get(name)
        tenant = facts.cell.tenants.get(name.partition("/")[0])
        if entry is None or tenant is None or not tenant.quota:
            continue
        known = lacks(facts.cell, name, old) if old is not None else {}
        for purse, amount in lacks(facts.cell, name, entry.value).items():
            if amount > known.get(purse, 0):  # what was held before there was a quota stays so
                spent = entry.value.spent.get(purse, 0)
                yield fault(
                    keys.placement(name),
                    f"{name} uses {spent + amount} of {purse} and spends {spent}",
                    purse=purse,
                )


def in_service(facts: Facts, before: Mapping[str, Placement | None]) -> Iterator[Fault]:
    """No slice gets a unit, or a circuit, of what is out of service.

    Args:
        facts: Of the state after the step.
        before: The placements that it writes, as they were.
    """
    if not facts.out_of_service:
        return
    for name, old in before.items():
        entry = facts.placements.get(name)
        if entry is None:
            continue
        known, crossed = (
            ({**old.held, **old.releasing}, old.circuits)
            if old is not None and old.attempt == entry.value.attempt
            else ({}, ())
        )
        units = [unit for unit in entry.value.held if unit not in known]
        for circuit in entry.value.circuits:
            if circuit not in crossed:
                units += [lane_unit(arc.link, arc.direction, 0) for arc in circuit.arcs]
        used = {thing for unit in units for thing in things_used(facts.cell, unit)}
        for thing in sorted(used & facts.out_of_service):
            yield fault(
                keys.placement(name),
                f"{name} is given what is of {thing}, which is out of service",
                thing=thing,
            )


class Phases:
    """The phase of each slice, followed.

    Attributes:
        now: Identifier -> uid -> phase; more than one only while an earlier slice of that name
            has left a placement.
        lives: How many slices were seen so far; a name that is used again counts again.
    """

    def __init__(self) -> None:
        """Start with no slice."""
        self.now: dict[str, dict[int, Phase]] = {}
        self.lives = 0

    def begin(self, facts: Facts) -> None:
        """Take all phases as they are."""
        for identifier in {*facts.slices, *facts.placements}:
            for _ in self.move(facts, identifier, anew=True):
                pass

    def move(self, facts: Facts, identifier: str, *, anew: bool = False) -> Iterator[Fault]:
        """Note a slice's phase; it moved along the table, or its first is one to begin with.

        Args:
            facts: Of the state after the step.
            identifier: The slice.
            anew: Whether nothing is known of what was before.
        """
        if identifier.startswith("~"):
            return
        before = self.now.get(identifier, {})
        after = phases_of(facts, identifier)
        if after == before:
            return
        if after:
            self.now[identifier] = after
        else:
            del self.now[identifier]
        self.lives += len(after.keys() - before.keys())
        if anew:
            return
        for uid, phase in after.items():
            was = before.get(uid)
            if was is None and phase not in FIRST:
                yield _strange(identifier, uid, f"begins {phase}", None, phase)
            elif was is not None and not moves_legally(was, phase):
                yield _strange(identifier, uid, f"went from {was} to {phase}", was, phase)
        for uid, was in before.items():
            if uid not in after and was not in LAST:
                yield _strange(identifier, uid, f"is gone while it was {was}", was, None)


def _strange(
    identifier: str, uid: int, what: str, before: Phase | None, after: Phase | None
) -> Fault:
    return fault(
        keys.slice_(identifier),
        f"{identifier} {what}, which the life cycle does not have",
        uid=uid,
        before=before,
        after=after,
    )


def phases_of(facts: Facts, identifier: str) -> dict[int, Phase]:
    """Return the phase of each life of a name by uid: the slice's, and one that left a placement."""
    slice_, placed = facts.slices.get(identifier), facts.placements.get(identifier)
    found: dict[int, Phase] = {}
    life = life_of(identifier, placed) if placed else None
    if slice_ is not None:
        mine = placed if life == Life(identifier, slice_.created) else None
        progress = _built(facts, identifier) if mine else Built()
        found[slice_.created] = phase_of(slice_.value, mine.value if mine else None, progress)
    if placed is not None and life is not None and life.uid not in found:
        found[life.uid] = phase_of(None, placed.value, _built(facts, identifier))
    return found


def _built(facts: Facts, identifier: str) -> Built:
    placement = facts.placements[identifier].value
    attempt = placement.attempt
    return built(
        placement,
        facts.orders.get(attempt, {}),
        facts.reports.get(attempt, {}),
        quarantined=any(map(is_quarantine, facts.by_attempt[attempt])),
    )
