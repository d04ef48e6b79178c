"""Do the laws for scheduler plug-ins let good ones pass, and catch each bad one by its own law?"""

import random
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from flowos.model.placement import Decision, Unplaceable
from flowos.model.slice import Reason
from flowos.model.units import engine_unit
from flowos.planning.engines.pool import Pool
from flowos.planning.engines.weights import DEFAULT
from flowos.planning.policy import Policy
from flowos.testing import strategies, watched
from flowos.testing.cells import CELLS, SPECS, Case, cases
from flowos.testing.schedulers import LAWS, SchedulerLaws, check_policy

SHIPPED = {point.name: point.load() for point in entry_points(group="flowos.schedulers")}


class Plain(Policy):
    """As the base is."""

    name = "plain"


class TestPlain(SchedulerLaws):
    policy = Plain


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_what_ships_keeps_every_law(name):
    assert check_policy(SHIPPED[name]()) == []


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_what_ships_keeps_them_whatever_comes(name):
    strategies.try_on_cases(lambda case: check_policy(SHIPPED[name](), [case]))


def test_a_suite_has_a_test_for_each_law_and_one_for_whatever_comes():
    assert {f"test_{law}" for law in LAWS} | {"test_whatever_comes"} <= set(dir(TestPlain))


# --------------------------------------------------------------------------- planted: one for each

BAD: dict[str, list[type[Policy]]] = {}


def bad(law):
    def note(kind):
        BAD.setdefault(law, []).append(kind)
        kind.name = kind.name or "bad"
        return kind

    return note


@bad("fits_the_seam")
class ForgetsTheSeed(Policy):
    def plan(self, pool, spec):  # type: ignore[override]
        return super().plan(pool, spec, seed=0, avoid=())


@bad("fits_the_seam")
class NameIsNoWord(Policy):
    name = 7  # type: ignore[assignment]


@bad("raises_nothing")
class KnowsOneRole(Policy):
    def feasible(self, spec, pool):
        spec.engines["w"]


@bad("raises_nothing")
class FailsOnAnEmptyCell(Policy):
    def score(self, spec, pool):
        return DEFAULT._replace(load=1 / len(pool.view.cell.nodes))


@bad("comes_to_an_end")
class Spins(Policy):
    def plan(self, pool, spec, *, seed, avoid):
        while spec.name == "ring":
            pass
        return super().plan(pool, spec, seed=seed, avoid=avoid)


@bad("comes_to_an_end")
class CatchesAll(Policy):
    def feasible(self, spec, pool):
        while True:
            try:
                int("x")
            except Exception:  # noqa: BLE001  # that is what is bad about it
                continue


@bad("asks_nobody")
class Sleeps(Policy):
    def order(self, waits):
        time.sleep(0.0001)
        return super().order(waits)


@bad("asks_nobody")
class Writes(Policy):
    def commit_mode(self, spec):
        Path("/tmp/never-written-by-a-policy").write_text("x")
        return super().commit_mode(spec)


@bad("orders_by_numbers")
class OrdersByName(Policy):
    def order(self, waits):
        return (waits.spec.name, waits.created)


@bad("orders_by_numbers")
class OrdersByNan(Policy):
    def order(self, waits):
        return (float("nan"), waits.created)


@bad("orders_alike")
class OrdersByChance(Policy):
    def order(self, waits):
        return (random.Random().getrandbits(64), waits.created)


@bad("orders_alike")
class Remembers(Policy):
    asked = 0

    def order(self, waits):
        self.asked += 1
        return (self.asked, waits.created)


@bad("orders_all")
class AllAreEqual(Policy):
    def order(self, waits):
        return (-waits.priority,)


@bad("says_why")
class SaysNo(Policy):
    def feasible(self, spec, pool):
        return "no"


@bad("says_why")
class SaysNothing(Policy):
    def plan(self, pool, spec, *, seed, avoid):
        return Unplaceable(Reason.INFEASIBLE, "")


@bad("answers_in_kind")
class PlansNone(Policy):
    def plan(self, pool, spec, *, seed, avoid):
        return None


@bad("answers_in_kind")
class ScoresNan(Policy):
    def score(self, spec, pool):
        return DEFAULT._replace(load=float("nan"))


@bad("answers_in_kind")
class ModeByWord(Policy):
    def commit_mode(self, spec):
        return "all"


@bad("changes_nothing")
class TakesForItself(Policy):
    def plan(self, pool, spec, *, seed, avoid):
        pool.view.holders["engine/n0/gpu1"] = ("me/mine",)
        return super().plan(pool, spec, seed=seed, avoid=avoid)


@bad("changes_nothing")
class ChangesTheRequest(Policy):
    def feasible(self, spec, pool):
        spec.engines.pop("w", None)


@bad("plans_what_is_free")
class GivesLess(Policy):
    def plan(self, pool, spec, *, seed, avoid):
        found = super().plan(pool, spec, seed=seed, avoid=avoid)
        if isinstance(found, Decision):
            return replace(found, engines={r: names[:1] for r, names in found.engines.items()})
        return found


@bad("plans_what_is_free")
class TakesWhatIsHeld(Policy):
    def plan(self, pool, spec, *, seed, avoid):
        if spec.name == "one" and pool.view.holder("engine/n0/gpu0"):
            return Decision({"w": ("n0/gpu0",)}, {"engine/n0/gpu0": ()})
        return super().plan(pool, spec, seed=seed, avoid=avoid)


@bad("plans_what_is_free")
class MakesUpEngines(Policy):
    def plan(self, pool, spec, *, seed, avoid):
        return Decision({"w": ("n9/gpu9",)}, {"engine/n9/gpu9": ()})


@bad("leaves_alone")
class AvoidsNothing(Policy):
    def plan(self, pool, spec, *, seed, avoid):
        return super().plan(pool, spec, seed=seed, avoid=())


@bad("leaves_alone")
class KeepsItsFavourite(Policy):
    def plan(self, pool, spec, *, seed, avoid):
        hers = {unit for unit in avoid if unit != engine_unit("n0/gpu1")}
        return super().plan(pool, spec, seed=seed, avoid=hers)


@bad("plans_alike")
class PlansByChance(Policy):
    def plan(self, pool, spec, *, seed, avoid):
        seed = random.Random().getrandbits(32) | 1
        return super().plan(pool, spec, seed=seed, avoid=avoid)


PLANTED = [(law, kind) for law, kinds in BAD.items() for kind in kinds]


def test_every_law_is_broken_by_somebody():
    assert BAD.keys() == LAWS.keys()


@pytest.mark.parametrize(("law", "kind"), PLANTED, ids=lambda p: getattr(p, "__name__", p))
def test_a_bad_one_is_caught_by_the_law_meant_for_it(law, kind, monkeypatch):
    monkeypatch.setattr(watched, "STEPS_MAX", 50_000)
    broken = check_policy(kind())
    assert law in {one.law for one in broken}, [str(one) for one in broken]


@pytest.mark.parametrize(
    "kind", [k for law, k in PLANTED if law in ("plans_alike", "orders_all", "leaves_alone")]
)
def test_who_breaks_one_law_is_not_blamed_for_others(kind):
    (law,) = [law for law, other in PLANTED if other is kind]
    assert {one.law for one in check_policy(kind())} == {law}


@pytest.mark.parametrize("law", ["orders_all", "leaves_alone", "raises_nothing"])
def test_the_suite_fails_for_a_bad_one_and_says_what_it_did(law):
    kind = BAD[law][0]

    class Suite(SchedulerLaws):
        policy = kind

    with pytest.raises(AssertionError, match="the law is that"):
        getattr(Suite(), f"test_{law}")()


def test_what_hypothesis_makes_up_finds_what_the_fixed_cases_do_not():
    class HatesLowPriorities(Policy):
        name = "hates"

        def feasible(self, spec, pool):
            assert spec.priority > -50

    class Suite(SchedulerLaws):
        policy = HatesLowPriorities

    assert check_policy(HatesLowPriorities()) == []
    with pytest.raises(AssertionError, match="raises_nothing"):
        Suite().test_whatever_comes()


def test_the_cases_hold_something_to_place_and_something_that_cannot_be():
    found = [
        type(Plain().plan(Pool(c.cell.view()), c.spec, seed=c.seed, avoid=c.avoid)) for c in cases()
    ]
    assert found.count(Decision) > 30
    assert found.count(Unplaceable) > 30


def test_a_view_is_made_anew_each_time():
    cell = CELLS["used"]
    assert cell.view() is not cell.view()
    assert cell.view().holders == cell.view().holders != {}


def steps() -> Iterator[int]:
    yield from range(10)


def test_a_debugger_finds_its_trace_function_again():
    import sys

    before = sys.gettrace()
    with watched.watched():
        assert sum(steps()) == 45
    assert sys.gettrace() is before


def test_a_case_says_what_it_is_of():
    text = str(Case(CELLS["idle"], SPECS[0], frozenset({"node/n1"}), 7))
    assert text == "slice default/one without node/n1, seed 7"
