"""What becomes of one slice that waits: where does it go now, or why does it wait on?

One question after the other, and the first that says no is the reason: what its policy says, where
it fits beside what others have asked to be left alone, who may have to give way, and what its tenant
and the power may spend. What its own record says was asked before (`gates`).
"""

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Final

from flowos.model.placement import Decision, Unplaceable
from flowos.model.slice import Mode, Reason, Slice, SliceSpec
from flowos.model.units import Amounts, engine_unit, kind_of, subject_of
from flowos.model.view import CellView, Entry
from flowos.planning.engines.pool import OFF, Pool
from flowos.planning.incremental import begun
from flowos.planning.preempt import Pays, Preemption, victims
from flowos.planning.repair import repaired
from flowos.planning.reserved import ahead, depends_on, planned
from flowos.planning.shadow import Shadow, ends_of, saved, shadow
from flowos.runtime.expected import Expected
from flowos.runtime.figures import Figures
from flowos.runtime.freed import Freed
from flowos.runtime.guarded import Guarded
from flowos.runtime.marks import LOSSES_MAX, MONEY, ROOM, Around, Marks
from flowos.runtime.peers import Peers
from flowos.runtime.placed import Placed
from flowos.runtime.purses import ASKING, Purses
from flowos.runtime.rejections import Rejections
from flowos.runtime.setaside import SetAside
from flowos.runtime.waiting import Pending

PREEMPT_SECONDS: Final = 0.1  # who gives way is looked for this often at most
PREEMPT_PART: Final = 10  # and at most this part of the time goes there
# It is over in a moment, so it is told to nobody.
OTHERS_FIRST: Final = Unplaceable(
    Reason.BEHIND_HIGHER_PRIORITY, "what it would fit on is about to be taken by who comes first"
)


@dataclass(frozen=True, slots=True)
class Decided:
    """Where a slice goes.

    Attributes:
        victims: Slices whose units are taken over.
        afar: Whether it needs nodes that other schedulers look at first.
    """

    decision: Decision
    victims: tuple[str, ...] = ()
    afar: bool = False


class Deciding:
    """Decides for one scheduler process, on its view and pool."""

    def __init__(
        self,
        view: CellView,
        guarded: Guarded,
        pool: Pool,
        *,
        purses: Purses,
        marks: Marks,
        rejections: Rejections,
        placed: Placed,
        peers: Peers,
        expected: Expected,
        freed: Freed,
        figures: Figures,
        chance: random.Random,
        stopwatch: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        """Know of no slice yet."""
        self._wall = wall
        self.view = view
        self.guarded = guarded
        self.pool = pool
        self._purses = purses
        self._marks = marks
        self._rejections = rejections
        self._placed = placed
        self._peers = peers
        self._expected = expected
        self._freed = freed
        self._figures = figures
        self._chance = chance
        self._stopwatch = stopwatch
        # (shape, reservations) -> what was avoided, and why there is no place then
        self._shapes: dict[object, list[tuple[frozenset[str], Unplaceable]]] = {}
        # (shape, priority, reservations) that nobody's giving way helps
        self._no_victims: set[tuple[object, int, tuple[str, ...]]] = set()
        self._shapes_at = 0
        self._preempt_at = -inf
        self._aside = SetAside(view, guarded.slow)

    def decide(
        self, name: str, entry: Entry[Slice], pending: Pending, now: float
    ) -> Decided | Unplaceable:
        """Return where a slice goes, or the first reason why it does not go anywhere now.

        Args:
            name: The slice, "tenant/name".
            entry: Its own record.
            pending: Its entry in the queue.
            now: Monotonic seconds.
        """
        spec = entry.value.spec
        pending.purse = ""
        aside = self._aside.until(name, now)
        if aside is not None:
            pending.ask_at, why = aside
            return why
        unfeasible = self.guarded.feasible(spec, self.pool)
        if unfeasible is not None:
            return unfeasible
        self._forget_shapes()
        pending.foreseen = self._is_foreseen(name)
        ghosts = self._rejections.avoided(now)
        around = self._marks.around(name, entry, pending, now)
        avoid = ghosts | around.units | ahead(self.view, spec, self._wall())
        others = self._expected.units(now)
        repaired_plan = self._repaired(spec, pending, avoid | others)
        result = repaired_plan or self._planned(spec, pending, pending.avoid, avoid | others)
        if isinstance(result, Unplaceable) and others:
            result = self._planned(spec, pending, pending.avoid, avoid)
            if isinstance(result, Decision):
                self._expected.gave_way(now)
                return OTHERS_FIRST
        if isinstance(result, Unplaceable) and around.units:
            alone = self._planned(spec, pending, pending.avoid, ghosts)
            if isinstance(alone, Decision):
                return behind(around)  # what is kept for another is no reason to take over
        if isinstance(result, Unplaceable) and _lacks_room(spec, result):
            result = self._begun(spec, pending.avoid | avoid) or result
        if isinstance(result, Unplaceable):
            self._lacks_money(pending, around)
            if _lacks_room(spec, result):
                # Where money lacks as well, only who spends of the same is any help.
                found = self._preempting(
                    spec, pending, avoid, now, purse=pending.purse, pays=self._pays(name)
                )
                if found is not None:
                    short = self._affordable(
                        name, found.decision, pending, around, now, found.victims
                    )
                    if short is not None and pending.purse:
                        pending.ask_at = self._preempt_at  # now that this is known
                    return short or Decided(found.decision, found.victims)
                if pending.purse and self._placed.lesser_than(spec.priority):
                    # Others would give way; it is money that lacks.
                    short = paid(self._purses, pending.needs, around, now)
                    if short is not None and short is not ASKING:
                        return short
            return _left_alone(result, ghosts) if ghosts else result
        if self._is_afar(result) and not pending.afar:
            return Decided(result, afar=True)
        short = self._affordable(name, result, pending, around, now)
        if short is not None and short.reason in MONEY and pending.purse:
            found = self._paid_by(name, spec, result, pending, avoid, now)
            if found is not None:
                short = self._affordable(name, found.decision, pending, around, now, found.victims)
                return short or Decided(found.decision, found.victims)
        return short or Decided(result)

    def expect(self, name: str, entry: Entry[Slice], pending: Pending, now: float) -> None:
        """Work out where a slice will go that waits for room and is another scheduler's.

        Args:
            name: The slice, "tenant/name".
            entry: Its own record.
            pending: Its entry in the queue.
            now: Monotonic seconds.
        """
        if not self._is_foreseen(name):
            return
        self._forget_shapes()
        pending.foreseen = True
        spec = entry.value.spec
        avoid = self._rejections.avoided(now) | self._marks.around(name, entry, pending, now).units
        avoid |= ahead(self.view, spec, self._wall()) | self._expected.units(now)
        found = self._planned(spec, pending, frozenset(), avoid)
        if isinstance(found, Decision):
            self._expected.takes(name, found, now)

    def _is_foreseen(self, name: str) -> bool:
        """Whether all who serve the queue plan alike for a slice, so that none need race."""
        return self._peers.many and self._expected.waits_for_room(name)

    def _forget_shapes(self) -> None:
        """What had no place may have one, once anything was freed."""
        if self._shapes_at != self._freed.count:
            self._shapes.clear()
            self._no_victims.clear()
            self._shapes_at = self._freed.count

    def _pays(self, name: str) -> Pays:
        """Return what says whether a slice can pay for a plan with what victims spend."""
        return lambda decision, victims: (
            not self._purses.short(self._purses.needs(name, decision, victims))
        )

    def _paid_by(
        self,
        name: str,
        spec: SliceSpec,
        decision: Decision,
        pending: Pending,
        avoid: frozenset[str],
        now: float,
    ) -> Preemption | None:
        """Return with whose quota or watts a slice finds a place: on the very units they spend it on.

        These go over with the units, as ever. So first only units of others are looked at; then, of
        the free ones that it was to go to, so many beside them as it can pay for.
        """
        free = frozenset(
            unit
            for unit in map(engine_unit, self.view.cell.engines)
            if self._is_free(unit, ()) and not self.view.shares.get(subject_of(unit))
        )

        pays = self._pays(name)
        also: dict[str, Amounts] = {}
        for unit, amounts in decision.units.items():
            if unit in free and pays(Decision({}, {**also, unit: amounts}), ()):
                also[unit] = amounts
        ways = (avoid | free, avoid | (free - also.keys())) if also else (avoid | free,)
        return self._preempting(
            spec, pending, avoid, now, purse=pending.purse, pays=pays, ways=ways
        )

    def _affordable(
        self,
        name: str,
        decision: Decision,
        pending: Pending,
        around: Around,
        now: float,
        victims: Collection[str] = (),
    ) -> Unplaceable | None:
        """Return None where a plan can be paid for, and nobody who comes first saves for that."""
        needs = self._purses.needs(name, decision, victims)
        answer = paid(self._purses, needs, around, now)
        if answer is not None and answer is not ASKING:
            pending.needs = needs
            self._lacks_money(pending, around)
        return answer

    def _lacks_money(self, pending: Pending, around: Around) -> bool:
        """Note of which purse a slice lacks something, with or without room: as far as is known."""
        short = self._purses.short(pending.needs, around.purses)
        pending.purse = next(iter(short), "")
        return bool(short)

    def may_spend(self, more: Mapping[str, int], now: float) -> bool:
        """Whether a slice that runs may spend so much more now: it comes after all that wait."""
        if self._purses.short(more, self._marks.saved(now)):
            return False
        return self._purses.covers(more, now) is None

    def not_to_grow_into(self, spec: SliceSpec, now: float) -> frozenset[str]:
        """Return what a slice that runs leaves alone: it comes after all that wait."""
        kept = self._marks.kept(now) | self._rejections.avoided(now)
        return kept | ahead(self.view, spec, self._wall())

    def room_for(self, name: str, pending: Pending, now: float, wall: float) -> Shadow | None:
        """Return when and where there will be room for a slice, as far as anybody can say.

        Where it lacks money as well, only that is waited for first (`Pending.purse`).

        Args:
            name: The slice.
            pending: Its entry in the queue.
            now: Monotonic seconds.
            wall: Wall-clock seconds.
        """
        entry = self.view.slices[name]
        around = self._marks.around(name, entry, pending, now)
        # Whoever goes on until it is cancelled would be waited for in vain.
        ends = [end for end in ends_of(self.view, wall) if end[1] is not None or self._ends(end[0])]
        if pending.purse:
            return self._saved(pending, around, ends)
        avoid = self._rejections.avoided(now) | around.units
        avoid |= ahead(self.view, entry.value.spec, wall)
        room = shadow(
            self.pool,
            ends,
            lambda: self.guarded.plan(self.pool, entry.value.spec, seed=0, avoid=avoid),
        )
        if room is None:
            return None
        pending.needs = self._purses.needs(name, Decision({}, room.held))
        return self._saved(pending, around, ends) if self._lacks_money(pending, around) else room

    def _saved(
        self, pending: Pending, around: Around, ends: Sequence[tuple[str, float | None]]
    ) -> Shadow | None:
        """Return when a slice will have what it is to spend; till then no unit is to wait for it."""
        when = saved(self.view, self._purses.short(pending.needs, around.purses), ends)
        return when and Shadow(when[0], frozenset(), when[1])

    def _ends(self, name: str) -> bool:
        placed = self.view.now(name)
        return placed is not None and placed.run.ends

    def _repaired(
        self, spec: SliceSpec, pending: Pending, avoid: frozenset[str]
    ) -> Decision | None:
        """Return what was planned before a race was lost, with others in place of what was lost."""
        before, pending.lost = pending.lost, None
        if before is None:
            return None
        gone = {unit for unit, amounts in before.units.items() if not self._is_free(unit, amounts)}
        gone |= (pending.avoid | avoid) & before.units.keys()
        if not gone:
            return before  # it was lost for another reason, which the view shows by now
        found = repaired(
            self.pool, spec, before, gone, seed=self._seed(pending), avoid=pending.avoid | avoid
        )
        if found is not None:
            self._figures.repaired += 1
        return found

    def _is_free(self, unit: str, amounts: Amounts) -> bool:
        match kind_of(unit):
            case "share":
                return amounts[0] <= self.view.free_millis(subject_of(unit))
            case "host":
                return self.view.host_has(subject_of(unit), amounts)
            case _:
                holder = self.view.holder(unit)
                return holder is None or holder.startswith(OFF)

    def _planned(
        self, spec: SliceSpec, pending: Pending, lost: frozenset[str], avoid: frozenset[str]
    ) -> Decision | Unplaceable:
        """Plan a slice, if one like it has not been planned in vain since anything was freed.

        Args:
            spec: The request.
            pending: Its entry in the queue.
            lost: What just this slice leaves alone.
            avoid: What others like it do as well.
        """
        kept = depends_on(self.view, spec, self._wall())
        if self._shapes and not lost:
            pending.shape = pending.shape or _shape(spec)
            for avoided, why in self._shapes.get((pending.shape, kept), ()):
                if avoided <= avoid:  # no place with more to choose from
                    return why
        before = self._stopwatch()
        seed = self._seed(pending)
        result = planned(
            self.view,
            spec,
            self._wall(),
            lost | avoid,
            lambda units: self.guarded.plan(self.pool, spec, seed=seed, avoid=units),
        )
        self._figures.plans += 1
        self._figures.decisions_ms.append(1000 * (self._stopwatch() - before))
        # That a policy failed for one slice says nothing of others like it.
        failed = isinstance(result, Unplaceable) and result.reason is Reason.SCHEDULER_DOWN
        if isinstance(result, Unplaceable) and not (lost or failed):
            pending.shape = pending.shape or _shape(spec)
            self._shapes.setdefault((pending.shape, kept), []).append((avoid, result))
        return result

    def _seed(self, pending: Pending) -> int:
        # Whoever has lost often goes for the same units each time, which others leave to it.
        if not self._peers.others or pending.foreseen or pending.losses >= LOSSES_MAX:
            return 0
        return self._chance.getrandbits(32) | 1

    def _begun(self, spec: SliceSpec, avoid: frozenset[str]) -> Decision | None:
        """Return the part of a slice that it can begin with, where it takes what fits."""
        if self.guarded.mode(spec) is not Mode.INCREMENTAL:
            return None
        return begun(spec, lambda part: self.guarded.plan(self.pool, part, seed=0, avoid=avoid))

    def _preempting(
        self,
        spec: SliceSpec,
        pending: Pending,
        avoid: frozenset[str],
        now: float,
        *,
        purse: str,
        pays: Pays,
        ways: Sequence[frozenset[str]] = (),
    ) -> Preemption | None:
        """Return at whose cost a slice finds a place, None = nobody's, or it is not found out now.

        It takes many plans, so it is asked seldom: not twice for the same, and so that a small part
        of the time goes there.
        """
        if not self._placed.lesser_than(spec.priority):
            return None
        pending.shape = pending.shape or _shape(spec)
        # Of whom its quota comes is a matter of its tenant.
        kept = depends_on(self.view, spec, self._wall())
        known = (pending.shape, purse), spec.priority, kept
        if known in self._no_victims:
            return None
        if now < self._preempt_at:
            pending.ask_at = self._preempt_at
            return None
        before = self._stopwatch()
        found = None
        for left in ways or (avoid,):
            found = found or victims(
                self.pool,
                spec,
                plan=lambda units: self.guarded.plan(self.pool, spec, seed=0, avoid=units),
                avoid=left,
                purse=purse,
                pays=pays if purse else lambda _decision, _victims: True,
            )
        took = self._stopwatch() - before
        self._preempt_at = now + max(PREEMPT_SECONDS, PREEMPT_PART * took)
        if found is None:
            self._no_victims.add(known)
        return found

    def _is_afar(self, decision: Decision) -> bool:
        """Whether a plan needs nodes that others look at first."""
        if not self.pool.divided:
            return False
        nodes = {engine.partition("/")[0] for role in decision.engines.values() for engine in role}
        return any(map(self.pool.is_afar, nodes))


def paid(
    purses: Purses, needs: Mapping[str, int], around: Around, now: float
) -> Unplaceable | None:
    """Return None where so much can be spent, and nobody who comes first saves for that.

    Args:
        purses: Of who is to spend it.
        needs: Purse -> how much.
        around: Whose marks are respected.
        now: Monotonic seconds.
    """
    kept = {} if purses.short(needs) else purses.short(needs, around.purses)
    return _saved_for(around, next(iter(kept))) if kept else purses.covers(needs, now)


def behind(around: Around) -> Unplaceable:
    """Return that a slice finds a place only where it is kept for others."""
    first, more = around.names[0], len(around.names) - 1
    others = f" and {more} more" if more else ""
    return Unplaceable(
        Reason.BEHIND_HIGHER_PRIORITY,
        f"what it would fit on is kept for {first}{others}, which comes first and has waited long",
    )


def _saved_for(around: Around, purse: str) -> Unplaceable:
    family, name, *kind = purse.split(":")
    what = f"quota of {kind[0]}" if family == "tenant" else f"power in domain {name}"
    return Unplaceable(
        Reason.BEHIND_HIGHER_PRIORITY,
        f"what is left of the {what} is kept for {around.savers[purse]}, which comes first and has "
        "waited long",
    )


def _left_alone(why: Unplaceable, ghosts: frozenset[str]) -> Unplaceable:
    first, more = min(ghosts), len(ghosts) - 1
    others = f" and {more} more" if more else ""
    sentence = (
        f"{why.sentence}; {first}{others} is left alone for a while: the store refuses it, though "
        "no placement is seen to hold it"
    )
    return replace(why, sentence=sentence)


def _lacks_room(spec: SliceSpec, answer: Unplaceable) -> bool:
    """Whether fewer engines, or less of others, would help; not before a named window opens."""
    kept = answer.reason is Reason.RESERVED_FOR_OTHER and not spec.reservation
    return kept or answer.reason in ROOM


def _shape(spec: SliceSpec) -> object:
    """Return what decides whether a place can be found: everything but name, tenant and rank."""
    asked = (spec.engines, spec.hosts, spec.together, spec.circuits, spec.constraints, spec.elastic)
    return repr((*asked, spec.data, spec.work))
