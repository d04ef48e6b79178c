"""What `slice explain` tells of a slice that waits, from a view alone."""

from dataclasses import replace

from flowos.model.cell import Domain, Watts
from flowos.model.placement import Ending, Placement, Session
from flowos.model.rules import PlannerRules
from flowos.model.slice import Dependency, Member, Once, Phase, Reason, Run, Slice, Waiting
from flowos.model.view import Entry
from flowos.runtime.explained import explained
from tests.unit.planning.cells import gpus, leaves, power_off, request, want

NOW = 1_000_000.0


def asks(view, name, spec, reason=None, *, priority=0, **slice_):
    spec = replace(spec, name=name.partition("/")[2], tenant=name.partition("/")[0])
    spec = replace(spec, priority=priority)
    view.slices[name] = Entry(Slice(spec, **slice_), 1, 1)
    if reason:
        view.reasons[name] = Entry(Waiting(reason, "so it is", scheduler="batch-0"), 1, 1)


def holds(view, name, *units, priority=0, seconds=0.0, **more):
    asks(view, name, replace(request(w=want(1)), expected_seconds=seconds), priority=priority)
    placement = Placement(
        1, f"at {name}", held=dict.fromkeys(units, ()), started_at=NOW - 10, **more
    )
    view.assume(name, placement)
    view.settle(name, 1)


def helps(view, name="default/t"):
    found = explained(view, name, now=NOW)
    return [(item["sort"], item["do"], item["eta_s"]) for item in found["unblock"]]


def served(view):
    view.sessions["scheduler/batch-0"] = Entry(Session("scheduler", "batch-0", "batch"), 1, 1)
    return view


def test_what_ends_first_is_told_first_with_the_time_it_still_takes():
    view = served(leaves(1, gpus_each=2))
    holds(view, "a/long", "engine/n0/gpu0", seconds=100.0)
    holds(view, "a/run", "engine/n0/gpu1", seconds=100.0, run=Run(for_seconds=40.0))
    asks(view, "default/t", request(w=want(1)), Reason.WAITING_FOR_ENGINES)
    assert helps(view) == [("wait", "wait for a/run", 30), ("wait", "wait for a/long", 90)]
    both = request(w=want(2))
    asks(view, "default/t", both, Reason.WAITING_FOR_ENGINES)
    assert helps(view) == [("wait", "wait for a/run and a/long", 90)]


def test_what_is_being_given_back_is_nearly_there():
    view = served(leaves(1, gpus_each=1))
    holds(view, "a/x", "engine/n0/gpu0", ending=Ending(Phase.DONE))
    asks(view, "default/t", request(w=want(1)), Reason.WAITING_FOR_ENGINES, priority=5)
    assert helps(view) == [("wait", "wait for a/x, which is being given back", 0)]


def test_who_is_of_lower_priority_can_be_pre_empted():
    view = served(leaves(1, gpus_each=1))
    holds(view, "a/x", "engine/n0/gpu0", priority=1)
    asks(view, "default/t", request(w=want(1)), Reason.WAITING_FOR_ENGINES, priority=5)
    assert helps(view)[0] == ("preempt", "pre-empt a/x, of lower priority than 5", 0)


def test_engines_that_sleep_are_woken_in_the_time_that_the_rules_say():
    view = served(leaves(1, gpus_each=2))
    power_off(view, "n0/gpu1")
    view.planner = PlannerRules(wake_seconds=12.0)
    asks(view, "default/t", request(w=want(2)), Reason.WAITING_FOR_ENGINES)
    assert helps(view) == [("wake", "wake 1 engine: n0/gpu1; its scheduler does so", 12)]


def test_watts_are_waited_for_from_those_who_draw_as_many():
    view = served(leaves(1, gpus_each=3))
    view.cell.add(Domain("d", budget_watts=500))
    view.cell.add(replace(view.cell.nodes["n0"], domain="d"))
    for engine in gpus("n0", 3, watts=Watts(0, 0, 200)):
        view.cell.add(engine)
    purse = {"domain:d": 200}
    holds(view, "a/x", "engine/n0/gpu0", spent=purse, scheduler="s", seconds=60.0)
    holds(view, "a/y", "engine/n0/gpu1", spent=purse, scheduler="s")
    holds(view, "a/little", spent={"domain:d": 1}, scheduler="s")
    asks(view, "default/t", request(w=want(1)), Reason.WAITING_FOR_POWER)
    assert helps(view) == [
        ("wait", "wait for a/x", 50),
        ("wait", "wait for a/y", None),
        ("budget", "raise the budget of domain d by 101 W", None),
    ]


def test_a_drain_and_a_dead_agent_are_named_with_the_way_out():
    view = served(leaves(2, gpus_each=1))
    for sort, node in (("drain", "n0"), ("quarantine", "n1")):
        name = f"~{sort}/node/{node}" if sort == "drain" else f"~{sort}/{node}/x"
        view.assume(name, Placement(0, name, held={f"node/{node}": ()}))
    asks(view, "default/t", request(w=want(1)), Reason.WAITING_FOR_ENGINES)
    assert helps(view) == [
        ("undrain", "flowos engine undrain n0", None),
        (
            "undrain",
            "start the agent of n1 again, or flowos engine undrain --dirty n1",
            None,
        ),
    ]


def test_what_is_held_or_not_served_is_told_the_command():
    view = served(leaves(1))
    asks(view, "default/t", request(w=want(1)), held=True)
    assert helps(view) == [("release", "flowos slice release t", None)]
    view.sessions.clear()
    asks(view, "default/t", request(w=want(1)))
    assert helps(view) == [("start", "flowos scheduler run batch", None)]


def test_what_can_never_be_is_told_to_ask_for_less():
    view = served(leaves(1, gpus_each=2))
    asks(view, "default/t", request(w=want(9, "tpu")), Reason.INFEASIBLE)
    assert helps(view) == [("accept", "ask for less, or for other engines", None)]
    asks(view, "default/t", request(w=want(3)), Reason.INFEASIBLE)
    assert helps(view) == [("accept", "accept 2 of 3 engines for w", 0)]


def test_who_depends_on_others_waits_for_each_of_them_and_not_for_engines():
    view = served(leaves(1, gpus_each=4))
    holds(view, "a/run", "engine/n0/gpu0", seconds=100.0, run=Run(for_seconds=40.0))
    asks(view, "a/waits", request(w=want(1)))
    others = (Dependency("a/run"), Dependency("a/waits", Once.RUNNING))
    asks(view, "default/t", replace(request(w=want(1)), depends_on=others), Reason.DEPENDS_ON)
    assert helps(view) == [
        ("wait", "wait for a/run to end", 30),
        ("wait", "wait for a/waits to run", None),
    ]
    member = replace(request(w=want(1)), array=Member("sweep", 3, 9, parallel=2))
    asks(view, "default/t", member, Reason.DEPENDS_ON)
    assert helps(view) == [("wait", "wait for another slice of array sweep to end", None)]
