"""Does a scheduler plug-in keep the laws that the loop relies on?

In a plug-in's own tests, with pytest:

    from flowos.testing.schedulers import SchedulerLaws

    class TestTidy(SchedulerLaws):
        policy = Tidy

Each law is a test there, tried on small cells; with hypothesis installed, also on cells and
requests that nobody thought of. `check_policy` is the same for programs.
"""

import copy
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final, NamedTuple, TypeVar

from flowos.model.placement import Decision, Unplaceable
from flowos.model.slice import Mode, Reason, SliceSpec
from flowos.model.units import kind_of, subject_of
from flowos.model.view import CellView
from flowos.planning.engines.pool import Pool
from flowos.planning.engines.weights import Weights
from flowos.planning.policy import Policy, Waits
from flowos.runtime.guarded import misplanned
from flowos.runtime.plugins import misfit
from flowos.testing.cells import Case, Shaped, cases, want
from flowos.testing.watched import AskedOthers, TooManySteps, watched

T = TypeVar("T")

LAWS: Final[Mapping[str, str]] = {
    "fits_the_seam": "it has a name, its flags, its settings and the five methods",
    "raises_nothing": "whatever it is asked, it answers",
    "comes_to_an_end": "it answers after a bounded number of steps",
    "asks_nobody": "it sleeps, writes, starts and connects to nothing: it reads what it is given",
    "orders_by_numbers": "a place in the queue is a tuple of numbers, none of them a NaN",
    "orders_alike": "the same slice as it waits has the same place, whoever was asked for before",
    "orders_all": "of two slices, one comes first",
    "says_why": "feasible and plan say no with a reason and a sentence",
    "answers_in_kind": "score gives finite weights, commit_mode a mode, plan a decision",
    "changes_nothing": "cell, pool and request are as they were before it was asked",
    "plans_what_is_free": "it takes what is there, is free, and was asked for, as many as asked for",
    "leaves_alone": "it takes nothing of what it is told to leave alone",
    "plans_alike": "the same seed on the same cell gives the same answer",
}
"""Every law by its name, with what it says."""

_NO_ANSWER: Final = object()
_PROBE: Final = SliceSpec("probe", engines={"w": want()})
_AGES: Final = (0.0, 3600.0)
_LIKED_MAX: Final = 4  # units of a plan that are taken away one by one


class Broken(NamedTuple):
    """A law that a policy broke.

    Attributes:
        law: Its name, one of `LAWS`.
        what: What the policy did, and with which request.
    """

    law: str
    what: str

    def __str__(self) -> str:
        """Return it as a sentence."""
        return f"{self.law}: {self.what}"


def check_policy(policy: Policy, on: Iterable[Case] | None = None) -> list[Broken]:
    """Return which laws a policy breaks, each with the first case of it.

    Args:
        policy: Asked as a scheduler process would; a call takes well under a second where it
            plans about as fast as `batch`.
        on: Cells and requests to try; None = the fixed ones of `flowos.testing.cells`.
    """
    wrong = misfit(policy)
    if wrong:
        return [Broken("fits_the_seam", wrong)]
    found: dict[str, Broken] = {}
    for broken in _Examination(policy).all(list(cases() if on is None else on)):
        found.setdefault(broken.law, broken)
        if broken.law in ("comes_to_an_end", "asks_nobody"):
            break  # each more would take its time
    return list(found.values())


class SchedulerLaws:
    """A test class with a test for each law: set `policy` in a class of your own below it.

    Attributes:
        policy: The class, or anything that makes a policy when it is called.
    """

    policy: ClassVar[Callable[[], Policy]]
    _broken: ClassVar[Mapping[str, Broken]]

    def __init_subclass__(cls) -> None:
        """Give the class its tests."""
        super().__init_subclass__()
        for law in LAWS:
            if f"test_{law}" not in cls.__dict__:
                setattr(cls, f"test_{law}", _test_of(law))

    @classmethod
    def broken(cls) -> Mapping[str, Broken]:
        """Return what is broken, by law; found out once."""
        if "_broken" not in cls.__dict__:
            cls._broken = {one.law: one for one in check_policy(_made(cls))}
        return cls._broken

    def test_whatever_comes(self) -> None:
        """All of it, with cells and requests that hypothesis makes up."""
        from flowos.testing.strategies import try_on_cases

        kind = type(self)
        try_on_cases(lambda case: check_policy(_made(kind), [case]))


def _made(kind: type[SchedulerLaws]) -> Policy:
    return kind.__dict__["policy"]() if "policy" in kind.__dict__ else kind.policy()


def _test_of(law: str) -> Callable[[SchedulerLaws], None]:
    def test(self: SchedulerLaws) -> None:
        broken = self.broken().get(law)
        if broken is not None:
            raise AssertionError(f"the law is that {LAWS[law]}; but {broken.what}")

    test.__doc__ = f"The law: {LAWS[law]}."
    test.__name__ = f"test_{law}"
    return test


class _Examination:
    """Asks a policy and judges what it answers."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._faults: list[Broken] = []

    def all(self, on: Sequence[Case]) -> Iterator[Broken]:
        yield from self._orders(list({case.spec.id: case.spec for case in on}.values()))
        for case in on:
            yield from self._answers(case)
            yield from self._plans(case)

    def _ask(self, what: str, about: object, ask: Callable[[], T]) -> T | Any:
        """Return what a question is answered; note what goes wrong on the way."""
        try:
            with watched():
                return ask()
        except TooManySteps as over:
            self._note("comes_to_an_end", f"{what} took more than {over} steps for {about}")
        except AskedOthers as other:
            self._note("asks_nobody", f"{what} used {other} for {about}")
        except Exception as bug:  # noqa: BLE001  # anybody's code: whatever it does
            self._note(
                "raises_nothing", f"{what} raised {type(bug).__name__}: {bug!s:.100} for {about}"
            )
        return _NO_ANSWER

    def _note(self, law: str, what: str) -> None:
        self._faults.append(Broken(law, what))

    def _noted(self) -> Iterator[Broken]:
        faults, self._faults = self._faults, []
        yield from faults

    # -- the order

    def _orders(self, specs: Sequence[SliceSpec]) -> Iterator[Broken]:
        asked = [
            Waits(spec, created, age, usage, float(spec.priority))
            for created, spec in enumerate((*specs, *specs), start=1)
            for age, usage in zip(_AGES, (0.0, 0.5), strict=True)
        ]
        first = [self._order(waits) for waits in asked]
        again = [self._order(waits) for waits in reversed(asked)][::-1]
        yield from self._noted()
        places: dict[object, Waits] = {}
        for waits, order, then in zip(asked, first, again, strict=True):
            if order is None or then is None:
                continue
            about = f"slice {waits.spec.id} of age {waits.age_seconds:g} s"
            if order != then:
                yield Broken("orders_alike", f"{about} is at {order}, and then at {then}")
            other = places.setdefault((waits.age_seconds, order), waits)
            if other.created != waits.created:
                yield Broken(
                    "orders_all",
                    f"the slices created at {other.created} and {waits.created} are both at "
                    f"{order}: end it with waits.created",
                )

    def _order(self, waits: Waits) -> tuple[float, ...] | None:
        order = self._ask("order", f"slice {waits.spec.id}", lambda: self._policy.order(waits))
        if order is _NO_ANSWER:
            return None
        if type(order) is tuple and order and all(map(_is_number, order)):
            return order
        self._note("orders_by_numbers", f"slice {waits.spec.id} is at {order!r:.60}")
        return None

    # -- what it says of a slice

    def _answers(self, case: Case) -> Iterator[Broken]:
        view = case.cell.view()
        pool, spec = Pool(view), case.spec
        policy = self._policy
        before = _seen(view), copy.deepcopy(spec)
        feasible = self._ask("feasible", case, lambda: policy.feasible(spec, pool))
        score = self._ask("score", case, lambda: policy.score(spec, pool))
        mode = self._ask("commit_mode", case, lambda: policy.commit_mode(spec))
        yield from self._noted()
        if feasible is not _NO_ANSWER and feasible is not None and not _says_why(feasible):
            yield Broken("says_why", f"feasible answered {feasible!r:.60} for {case}")
        if score is not _NO_ANSWER and not _are_weights(score):
            yield Broken("answers_in_kind", f"score answered {score!r:.60} for {case}")
        if mode is not _NO_ANSWER and not isinstance(mode, Mode):
            yield Broken("answers_in_kind", f"commit_mode answered {mode!r:.60} for {case}")
        if (_seen(view), spec) != before:
            yield Broken("changes_nothing", f"it changed cell or request when asked of {case}")

    # -- the plan

    def _plans(self, case: Case) -> Iterator[Broken]:
        view = case.cell.view()
        pool, spec = Pool(view), case.spec
        before = _seen(view), copy.deepcopy(spec)
        answer = self._plan(pool, case)
        yield from self._noted()
        if (_seen(view), spec) != before:
            yield Broken("changes_nothing", f"plan changed cell or request for {case}")
            return
        if answer is _NO_ANSWER:
            return
        if isinstance(answer, Unplaceable):
            if not _says_why(answer):
                yield Broken("says_why", f"plan answered {answer!r:.80} for {case}")
        elif isinstance(answer, Decision):
            yield from self._judged(view, case, answer)
        else:
            yield Broken("answers_in_kind", f"plan answered {answer!r:.60} for {case}")
            return
        if _probe(pool) != _probe(Pool(case.cell.view())):
            yield Broken("changes_nothing", f"what is planned after {case} is planned otherwise")
        again = self._plan(Pool(case.cell.view()), case)
        yield from self._noted()
        if again is not _NO_ANSWER and again != answer:
            yield Broken("plans_alike", f"plan gave two answers for {case}")

    def _plan(self, pool: Pool, case: Case) -> object:
        return self._ask(
            "plan",
            case,
            lambda: self._policy.plan(pool, case.spec, seed=case.seed, avoid=case.avoid),
        )

    def _judged(self, view: CellView, case: Case, decision: Decision) -> Iterator[Broken]:
        try:
            wrong = misplanned(view, case.spec, decision)
        except (AttributeError, KeyError, TypeError, ValueError) as bug:
            wrong = f"its decision cannot be read: {type(bug).__name__}: {bug}"
        if wrong:
            yield Broken("plans_what_is_free", f"{wrong}, planned for {case}")
            return
        taken = _left_alone(decision.units, case.avoid)
        if taken:
            yield Broken("leaves_alone", f"{taken} was planned for {case}")
        elif not case.avoid:
            # And just what it would have liked best.
            liked = [unit for unit in decision.units if kind_of(unit) == "engine"]
            for unit in liked[:_LIKED_MAX]:
                without = case._replace(avoid=frozenset({unit}))
                other = self._plan(Pool(case.cell.view()), without)
                yield from self._noted()
                if isinstance(other, Decision) and unit in other.units:
                    yield Broken("leaves_alone", f"{unit} was planned for {without}")


def _left_alone(units: Mapping[str, object], avoid: Collection[str]) -> str:
    """Return a unit that was to be left alone, "" = none is."""
    for unit in units:
        kind, subject = kind_of(unit), subject_of(unit)
        on = {unit}
        if kind in ("engine", "share"):
            on |= {f"engine/{subject}", f"node/{subject.partition('/')[0]}"}
        if on & set(avoid):
            return unit
    return ""


def _probe(pool: Pool) -> object:
    return Policy().plan(pool, _PROBE, seed=0, avoid=frozenset())


def _seen(view: CellView) -> object:
    """Return all of a view that a policy could change, as it is now."""
    return copy.deepcopy(
        (
            view.holders,
            view.shares,
            view.hosts,
            view.lanes_taken,
            view.placements,
            view.slices,
            view.observed,
            view.grants,
            view.marks,
            view.reservations,
            view.revision,
            {unit: names for unit, names in view.wanted.items() if names},
            sorted(view.cell.engines),
            sorted(view.cell.nodes),
            sorted(view.cell.links),
        )
    )


def _says_why(answer: object) -> bool:
    if not isinstance(answer, Unplaceable):
        return False
    reason: object = answer.reason
    sentence: object = answer.sentence
    return isinstance(reason, Reason) and isinstance(sentence, str) and bool(sentence.strip())


def _are_weights(answer: object) -> bool:
    if not isinstance(answer, Weights):
        return False
    weights: tuple[object, ...] = tuple(answer)
    return all(isinstance(weight, int | float) and math.isfinite(weight) for weight in weights)


def _is_number(part: object) -> bool:
    return isinstance(part, int | float) and not math.isnan(part)


__all__ = ["LAWS", "Broken", "Case", "SchedulerLaws", "Shaped", "check_policy"]
