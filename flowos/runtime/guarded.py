"""What does a plug-in answer, when it may fail, or answer nonsense?

Whatever a policy does, the loop gets an answer that it can act on, with the plug-in's name in it,
and goes on with other slices. What it is asked just now can be seen from outside, so that one that
never answers can be named (`Guarded.asked`).
"""

import logging
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from math import isnan
from typing import Final, NamedTuple, TypeGuard, TypeVar

from flowos.model.cell import WHOLE_MILLIS, Engine
from flowos.model.placement import Circuit, Decision, Unplaceable
from flowos.model.slice import EngineRole, Mode, Reason, SliceSpec
from flowos.model.units import (
    is_divisible,
    kind_of,
    share_unit,
    subject_of,
    well_formed,
)
from flowos.model.view import CellView
from flowos.planning.engines.pool import Pool
from flowos.planning.policy import Order, Policy, Waits

LOG: Final = logging.getLogger("flowos")

SLOW_SECONDS: Final = 0.1  # an answer that took longer: others may have been told that it hangs

LOGGED_FIRST: Final = 3  # failures of each kind that are logged one by one
LOGGED_EVERY: Final = 1000  # of those after

T = TypeVar("T")


class Asked(NamedTuple):
    """A question that a policy is thinking about.

    Attributes:
        what: The method's name.
        about: The slice.
        since: Monotonic seconds at which it was asked.
    """

    what: str
    about: str
    since: float


class Guarded:
    """A policy, asked with care.

    Attributes:
        policy: The plug-in.
        asked: What it is asked now; None = it has answered. Another thread may read this.
        failures: Method -> how often it has failed.
        slow: Slices about which it took its time, and answered.
    """

    def __init__(self, policy: Policy, view: CellView, stopwatch: Callable[[], float]) -> None:
        """Ask nothing yet."""
        self.policy = policy
        self.asked: Asked | None = None
        self.failures: Counter[str] = Counter()
        self.slow: set[str] = set()
        self._view = view
        self._stopwatch = stopwatch
        kind = type(policy)
        # What comes from this package needs no second look: it would cost as much as some plans do.
        self._own_plan = kind.plan is Policy.plan
        self._own_order = kind.order is Policy.order
        self._own_feasible = kind.feasible is Policy.feasible
        self._all_own = self._own_plan and kind.score is Policy.score

    def order(self, waits: Waits) -> Order:
        """Return a slice's place in the queue; the usual one where the policy names none."""
        if self._own_order:
            return self.policy.order(waits)
        told = self._view.reasons.get(waits.spec.id)
        if told is not None and told.value.hangs:
            return Policy.order(self.policy, waits)  # it may be just this question that it hung in
        self.asked = Asked("order", waits.spec.id, self._stopwatch())
        self.asked = Asked("order", waits.spec.id, self._stopwatch())
        try:
            order: object = self.policy.order(waits)
        except Exception as bug:
            if self._is_news("order"):
                LOG.exception("policy %s failed for slice %s", self.policy.name, waits.spec.id)
            self._failed("order", bug)
        else:
            self.asked = None
            if type(order) is tuple and order and all(map(_is_number, order)):
                return order
            self._nonsense("order", waits.spec, f"{order!r:.60} is no tuple of numbers")
        finally:
            self.asked = None
        self.asked = None
        return Policy.order(self.policy, waits)

    def feasible(self, spec: SliceSpec, pool: Pool) -> Unplaceable | None:
        """Return why a slice must not be planned now, or None where it may be."""
        if self._own_feasible:
            return None
        answer: object = self._ask("feasible", spec, lambda: self.policy.feasible(spec, pool))
        if answer is None or _is_unplaceable(answer):
            return answer
        return self._nonsense("feasible", spec, f"{answer!r:.60} is no reason to wait")

    def plan(
        self, pool: Pool, spec: SliceSpec, *, seed: int, avoid: Collection[str]
    ) -> Decision | Unplaceable:
        """Return where a slice goes, if that is free and what was asked for; or why it waits."""
        if self._all_own:  # nothing of it is the plug-in's: who watches that need not know
            try:
                own = self.policy.plan(pool, spec, seed=seed, avoid=avoid)
            except Exception as bug:
                if self._is_news("plan"):
                    LOG.exception("the planner failed for slice %s", spec.id)
                return self._failed("plan", bug)
            return own if isinstance(own, Unplaceable) else refused(own) or own
        answer: object = self._ask(
            "plan", spec, lambda: self.policy.plan(pool, spec, seed=seed, avoid=avoid)
        )
        if _is_unplaceable(answer):
            return answer
        if not isinstance(answer, Decision):
            return self._nonsense("plan", spec, f"{answer!r:.60} is no decision")
        if not self._own_plan:
            try:
                wrong = misplanned(self._view, spec, answer)
            except (AttributeError, KeyError, TypeError, ValueError) as bug:
                wrong = f"a decision that cannot be read: {type(bug).__name__}: {bug}"
            if wrong:
                return self._nonsense("plan", spec, wrong)
        return refused(answer) or answer

    def mode(self, spec: SliceSpec) -> Mode:
        """Return whether a slice takes all at once, or what fits."""
        answer: object = self._ask("commit_mode", spec, lambda: self.policy.commit_mode(spec))
        if isinstance(answer, Mode):
            return answer
        if not isinstance(answer, Unplaceable):
            self._nonsense("commit_mode", spec, f"{answer!r:.60} is no mode")
        return Mode.GANG

    def _ask(self, what: str, spec: SliceSpec, ask: Callable[[], T]) -> T | Unplaceable:
        asked = self.asked = Asked(what, spec.id, self._stopwatch())
        try:
            return ask()
        except Exception as bug:  # a plug-in that fails for one slice serves the others
            if self._is_news(what):
                LOG.exception("policy %s failed for slice %s", self.policy.name, spec.id)
            return self._failed(what, bug)
        finally:
            self.asked = None
            if self._stopwatch() - asked.since > SLOW_SECONDS:
                self.slow.add(spec.id)

    def _failed(self, what: str, bug: Exception) -> Unplaceable:
        return self._says_no(what, f"failed: {type(bug).__name__}: {bug}")

    def _nonsense(self, what: str, spec: SliceSpec, wrong: str) -> Unplaceable:
        if self._is_news(what):
            LOG.error(
                "policy %s, asked for %s of slice %s: %s", self.policy.name, what, spec.id, wrong
            )
        return self._says_no(what, f"made no sense in {what}: {wrong}")

    def _is_news(self, what: str) -> bool:
        """Whether a failure goes into the log: a queue of 20,000 is put in order each few seconds."""
        count = self.failures[what]
        return count < LOGGED_FIRST or count % LOGGED_EVERY == 0

    def _says_no(self, what: str, why: str) -> Unplaceable:
        self.failures[what] += 1
        return Unplaceable(Reason.SCHEDULER_DOWN, f"policy {self.policy.name} {why}")


def refused(decision: Decision) -> Unplaceable | None:
    """Return why a decision must not be committed, whatever plug-in or request it comes from.

    Whoever holds nothing would be queued again at once, for ever; and whoever holds less than
    nothing would give others more than there is.
    """
    if not decision.units:
        return Unplaceable(Reason.INFEASIBLE, "it asks for no engines and no hosts")
    for unit, amounts in decision.units.items():
        if is_divisible(unit) and (
            min(amounts) < 0 or (kind_of(unit) == "share" and not any(amounts))
        ):
            text = ", ".join(map(str, amounts))
            return Unplaceable(
                Reason.INFEASIBLE, f"it asks for {text} of {unit}: parts are above 0"
            )
    return None


def misplanned(view: CellView, spec: SliceSpec, decision: Decision) -> str:
    """Return what is wrong with a decision that nobody checked, "" = it may be committed.

    It may be worse than the planner's own; but what it takes is there, is free, was asked for, and
    covers all that its circuits cross.

    Args:
        view: As it was planned on, with what was supposed then.
        spec: The request.
        decision: A plug-in's.

    Raises:
        AttributeError, KeyError, TypeError, ValueError: It is not even made like a decision.
    """
    units = decision.units
    for unit, amounts in units.items():
        wrong = _not_there(view, unit, amounts) or _not_free(view, unit, amounts)
        if wrong:
            return wrong
    return _misassigned(view, spec, decision) or _uncovered(view, units, decision.circuits)


def _not_there(view: CellView, unit: str, amounts: tuple[int, ...]) -> str:
    if not well_formed(unit, amounts) or not all(type(amount) is int for amount in amounts):
        return f"{unit!r:.60} with {amounts!r:.40} is no unit that can be held"
    cell, kind, subject = view.cell, kind_of(unit), subject_of(unit)
    if kind in ("engine", "share"):
        there = subject in cell.engines
    elif kind == "host":
        there = subject in cell.nodes
    elif kind == "lane":
        link = cell.links.get(subject)
        there = link is not None and int(unit.rpartition("/")[2]) < link.lanes
    elif kind == "aggregator":
        switch = cell.switches.get(subject)
        there = switch is not None and int(unit.rpartition("/")[2]) < switch.aggregators
    else:
        return f"{unit} is not for slices to hold"
    return "" if there else f"the cell has no {unit}"


def _not_free(view: CellView, unit: str, amounts: tuple[int, ...]) -> str:
    if not is_divisible(unit):
        holder = view.holder(unit)
        if holder is None or holder.startswith("~off/"):
            return ""
        return f"{unit} is held by {holder}"
    if any(amount < 0 for amount in amounts):
        return f"{', '.join(map(str, amounts))} of {unit}: parts are above 0"
    subject = subject_of(unit)
    if kind_of(unit) == "share":
        fits = amounts[0] <= view.free_millis(subject)
    else:
        fits = view.host_has(subject, amounts)
    return "" if fits else f"less than {', '.join(map(str, amounts))} of {unit} is free"


def _misassigned(view: CellView, spec: SliceSpec, decision: Decision) -> str:
    """Return which engines were not asked for, or are missing."""
    units, given = decision.units, set[str]()
    for role, engines in decision.engines.items():
        wish = spec.engines.get(role)
        if wish is None:
            return f"{spec.id} has no role {role!r:.40} with engines"
        if len(engines) not in _counts(spec, role, wish):
            return f"{role} gets {len(engines)} engines, which is not what it asks for"
        for engine in engines:
            record = view.cell.engines.get(engine)
            if record is None:
                return f"the cell has no engine {engine!r:.60}"
            held = units.get(share_unit(engine))
            millis = held[0] if held else WHOLE_MILLIS if f"engine/{engine}" in units else 0
            if not _suits(wish, record, millis):
                return (
                    f"{engine} is not what {role} asks for, or {millis} thousandths of it are not"
                )
            if engine in given and held is None:
                return f"{engine} is given twice"
            given.add(engine)
    missing = spec.engines.keys() - decision.engines.keys()
    if missing:
        return f"{min(missing)} gets no engines"
    read = {data.at for data in spec.data}
    for unit in units:
        kind, _, subject = unit.partition("/")
        if kind in ("engine", "share") and subject not in given and subject not in read:
            return f"{unit} was not asked for"
    if decision.hosts.keys() - spec.hosts.keys():
        return f"{spec.id} has no hosts for {min(decision.hosts.keys() - spec.hosts.keys())!r:.40}"
    return ""


def _counts(spec: SliceSpec, role: str, wish: EngineRole) -> Collection[int]:
    """Return how many engines a role can do with."""
    counts = [choice.count for choice in wish.choices]
    fewest, most = spec.elastic.get(role, (min(counts), max(counts)))
    fewest = spec.least.get(role, fewest)
    if role in spec.elastic or role in spec.least or spec.commit == Mode.INCREMENTAL:
        return range(1 if spec.commit == Mode.INCREMENTAL else fewest, max(most, *counts) + 1)
    return counts


def _suits(wish: EngineRole, engine: Engine, millis: int) -> bool:
    return any(
        choice.kind in ("", engine.kind)
        and (not choice.models or engine.model in choice.models)
        # Roles that share an engine hold what they have of it together.
        and (choice.share_millis == millis or choice.share_millis <= millis < WHOLE_MILLIS)
        for choice in wish.choices
    )


def _uncovered(view: CellView, units: Mapping[str, object], circuits: tuple[Circuit, ...]) -> str:
    """Return which lane a circuit crosses that is not held; a whole engine brings its ports'."""
    cell = view.cell
    for circuit in circuits:
        for arc in circuit.arcs:
            link = cell.links.get(arc.link)
            if link is None:
                return f"circuit {circuit.id} crosses {arc.link!r:.40}, which is no link"
            if f"engine/{link.a_thing}" in units or f"engine/{link.b_thing}" in units:
                continue
            for lane in arc.lanes:
                if f"lane/{arc.link}/{arc.direction}/{lane}" not in units:
                    return (
                        f"circuit {circuit.id} crosses a lane of {arc.link} that it does not hold"
                    )
    return ""


def _is_unplaceable(answer: object) -> TypeGuard[Unplaceable]:
    if not isinstance(answer, Unplaceable):
        return False
    reason: object = answer.reason
    sentence: object = answer.sentence
    return isinstance(reason, Reason) and isinstance(sentence, str)


def _is_number(part: object) -> bool:
    return isinstance(part, int) or (isinstance(part, float) and not isnan(part))
