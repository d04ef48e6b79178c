"""What becomes of slices, and of others', when a plug-in fails, answers nonsense, or plans the impossible?"""

from dataclasses import replace
from typing import Any

import pytest

from flowos.model.placement import Decision, Unplaceable
from flowos.model.slice import Mode, Reason
from flowos.planning.policy import Policy
from flowos.runtime.guarded import Guarded
from flowos.runtime.scheduling import Scheduling
from tests.runtime.cells import small_cell, wanted
from tests.runtime.theatre import Player, Theatre


class Wrong(Policy):
    """Does what a test says instead of what a policy should."""

    name = "wrong"

    def __init__(self, **answers):
        self.answers = answers

    def _answer(self, what, *args, **kwargs):
        if what not in self.answers:
            return getattr(Policy, what)(self, *args, **kwargs)
        answer = self.answers[what]
        if isinstance(answer, Exception):
            raise answer
        return answer(*args, **kwargs) if callable(answer) else answer

    def order(self, waits):
        return self._answer("order", waits)

    def feasible(self, spec, pool):
        return self._answer("feasible", spec, pool)

    def score(self, spec, pool):
        return self._answer("score", spec, pool)

    def plan(self, pool, spec, *, seed, avoid):
        return self._answer("plan", pool, spec, seed=seed, avoid=avoid)


def machine(player: Player) -> Scheduling:
    assert isinstance(player.machine, Scheduling)
    return player.machine


def twist(**changes):
    """A plan that is right but for some of it."""

    def plan(pool, spec, *, seed, avoid):
        decision = Policy().plan(pool, spec, seed=seed, avoid=avoid)
        assert isinstance(decision, Decision)
        return replace(
            decision,
            **{k: v(getattr(decision, k)) if callable(v) else v for k, v in changes.items()},
        )

    return plan


GPU0 = "n0/gpu0"
WHOLE = {f"engine/{GPU0}": ()}
ANYTHING: Any = 7  # what no type checker would have let pass

ANSWERS = [
    ("plan", ValueError("no idea"), "failed: ValueError: no idea"),
    ("plan", None, "None is no decision"),
    ("plan", "n0/gpu0", "'n0/gpu0' is no decision"),
    ("plan", Unplaceable(ANYTHING, ANYTHING), "is no decision"),
    ("plan", Decision({"workers": (GPU0,)}, ANYTHING), "cannot be read"),
    ("plan", Decision({"workers": (GPU0,)}, {"engine": ()}), "is no unit"),
    ("plan", Decision({"workers": (GPU0,)}, {"node/n0": ()}), "not for slices"),
    ("plan", Decision({"workers": ("n9/gpu0",)}, {"engine/n9/gpu0": ()}), "has no engine/n9/gpu0"),
    ("plan", Decision({"workers": (GPU0,)}, {"lane/trunk1/fwd/99": ()}), "has no lane"),
    ("plan", Decision({"workers": ("n0/fpga0",)}, {"engine/n0/fpga0": ()}), "not what workers"),
    ("plan", Decision({"other": (GPU0,)}, WHOLE), "no role 'other'"),
    ("plan", Decision({}, WHOLE), "workers gets no engines"),
    ("plan", Decision({"workers": (GPU0, GPU0)}, WHOLE), "gets 2 engines"),
    ("plan", twist(units=lambda u: {**u, "engine/n1/gpu1": ()}), "engine/n1/gpu1 was not asked"),
    ("plan", twist(units=lambda u: {**u, "host/n0": (-5, 0)}), "parts are above 0"),
    ("plan", twist(units=lambda u: {**u, "host/n0": (10**9, 0)}), "is free"),
    ("plan", twist(units=lambda u: {**u, "host/n0": (True, 0)}), "is no unit"),
    ("plan", twist(hosts={"ghost": ("n0",)}), "no hosts for 'ghost'"),
    ("plan", Decision({"workers": (GPU0,)}, {f"share/{GPU0}": (300,)}), "300 thousandths"),
    ("score", RuntimeError("no weights"), "failed: RuntimeError: no weights"),
    ("score", "heavy", "failed:"),
    ("feasible", OSError("disk"), "failed: OSError: disk"),
    ("feasible", True, "True is no reason to wait"),
]


@pytest.mark.parametrize(("what", "answer", "says"), ANSWERS, ids=lambda v: str(v)[:24])
def test_a_plug_in_that_is_wrong_is_named_and_harms_nobody_but_its_own_slices(what, answer, says):
    theatre = Theatre(small_cell())
    theatre.scheduler("wrong-0", policy=Wrong(**{what: answer}))
    theatre.scheduler("batch-0")
    theatre.submit(replace(wanted("x", gpus=1), policy="wrong"), wanted("y", cpu_millis=9))
    theatre.play(3.0)
    assert theatre.placement("default/x") is None
    waiting = theatre.waiting("default/x")
    assert waiting.reason is Reason.SCHEDULER_DOWN
    assert waiting.sentence.startswith("policy wrong ")
    assert says in waiting.sentence
    assert theatre.placement("default/y")
    assert theatre.moves < 500, "it spins"


@pytest.mark.parametrize(
    "order", [KeyError("x"), None, (), ("first",), (float("nan"),), [1, 2]], ids=repr
)
def test_whoever_has_no_place_in_the_queue_gets_the_usual_one(order):
    theatre = Theatre(small_cell(nodes=1, gpus=1))
    theatre.submit(
        replace(wanted("late", gpus=1), policy="wrong"),
        replace(wanted("high", gpus=1, priority=5), policy="wrong"),
    )
    player = theatre.scheduler("wrong-0", policy=Wrong(order=order))
    theatre.play(1.0)
    assert theatre.held("default/high")
    assert machine(player).guarded.failures["order"] >= 2


def test_a_plan_for_what_somebody_holds_names_him_and_does_not_spin():
    theatre = Theatre(small_cell())
    theatre.scheduler("batch-0")
    theatre.submit(wanted("y", gpus=4))
    theatre.settle()
    stolen = Decision({"workers": (GPU0,)}, WHOLE)
    theatre.scheduler("wrong-0", policy=Wrong(plan=stolen))
    theatre.submit(replace(wanted("x", gpus=1), policy="wrong"))
    theatre.play(3.0)
    assert "engine/n0/gpu0 is held by default/y" in theatre.waiting("default/x").sentence
    assert theatre.moves < 500


def test_a_circuit_over_lanes_that_it_does_not_hold_is_refused():
    theatre = Theatre(small_cell())
    plan = twist(units=lambda units: {u: a for u, a in units.items() if not u.startswith("lane/")})
    theatre.scheduler("wrong-0", policy=Wrong(plan=plan))
    theatre.submit(replace(wanted("x", gpus=4, ring=True), policy="wrong"))
    theatre.play(1.0)
    assert "crosses a lane of trunk1 that it does not hold" in theatre.waiting("default/x").sentence


@pytest.mark.parametrize(
    "spec",
    [
        wanted("x", gpus=4, ring=True),
        wanted("x", gpus=1, share=300),
        wanted("x", gpus=2, fpgas=2, ring=True),
        wanted("x", cpu_millis=500),
        wanted("x", gpus=2, cpu_millis=500),
        wanted("x", gpus=2, elastic={"workers": (1, 3)}),
    ],
    ids=["ring", "share", "two roles", "host", "both", "elastic"],
)
def test_what_the_planner_itself_says_passes(spec):
    theatre = Theatre(small_cell())
    theatre.scheduler("wrong-0", policy=Wrong(plan=twist()))
    theatre.submit(replace(spec, policy="wrong"))
    theatre.settle()
    assert theatre.placement("default/x")


def test_what_a_policy_is_asked_just_now_can_be_seen():
    seen = []

    def plan(pool, spec, *, seed, avoid):
        seen.append(guarded.asked)
        return Unplaceable(Reason.WAITING_FOR_ENGINES, "later")

    theatre = Theatre(small_cell())
    player = theatre.scheduler("wrong-0", policy=Wrong(plan=plan))
    guarded = machine(player).guarded
    theatre.submit(replace(wanted("x", gpus=1), policy="wrong"))
    theatre.settle()
    assert [(asked.what, asked.about) for asked in seen if asked] == [("plan", "default/x")]
    assert guarded.asked is None


def test_a_mode_that_is_none_is_all_or_nothing():
    theatre = Theatre(small_cell())

    class Odd(Policy):
        name = "odd"

        def commit_mode(self, spec):
            return "whatever"

    guarded = Guarded(Odd(), theatre.view(), lambda: 0.0)
    assert guarded.mode(wanted("x", gpus=1)) is Mode.GANG
    assert guarded.failures["commit_mode"] == 1
    assert (
        Guarded(Policy(), theatre.view(), lambda: 0.0).mode(
            wanted("x", gpus=1, commit="incremental")
        )
        is Mode.INCREMENTAL
    )


def test_a_policy_that_fails_each_time_does_not_fill_the_log(caplog):
    theatre = Theatre(small_cell())
    theatre.submit(*(replace(wanted(f"x{n}", gpus=1), policy="wrong") for n in range(50)))
    theatre.scheduler("wrong-0", policy=Wrong(order=KeyError("x")))
    theatre.settle()
    told = [r for r in caplog.records if "policy wrong failed" in r.getMessage()]
    assert 1 <= len(told) <= 3
