"""Is each way to break a law seen, at the revision that broke it?

Every mistake is written raw into a cell that was clean, and must be found by a look at the state as
it is, by reading the history, and by following.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from flowos.model import keys
from flowos.model.cell import Domain, Link, Tenant
from flowos.model.codec import encode
from flowos.model.placement import Arc, Circuit, Ending, Observed, Order, Placement, Report
from flowos.model.rules import Reservation
from flowos.model.slice import End, Phase, Slice, SliceSpec
from flowos.model.transaction import Operation, Put
from flowos.protocol.commit import commit
from flowos.verify.history import Listed, verify_history, verify_now
from flowos.verify.invariants import NAMES
from flowos.verify.laws import Violation
from tests.verify import planted_circuits  # noqa: F401  # adds its own to what is planted
from tests.verify.mistakes import PLACED, PLANTED, A, Mistake, T, mistake, order_of
from tests.verify.scene import (
    ADD,
    GRANT_WATTS,
    HALF,
    LIMIT_WATTS,
    PAIR,
    PURSE,
    SUM,
    TRUNK,
    Scene,
    X,
    Y,
    across,
    attached,
    claim,
    decide,
    followed,
    whole,
)


def seen_in(violations: Iterable[Any], wrong: Mistake, revision: int) -> bool:
    return any(
        isinstance(v, Violation)
        and (v.law, v.where, v.revision) == (wrong.law, wrong.where, revision)
        and wrong.says in v.sentence
        for v in violations
    )


# ------------------------------------------------------------------------- records


@mistake("readable", PLACED, "cannot be read")
def a_placement_is_no_json(scene):
    scene.run(T, X)
    return [Put(PLACED, b"{")]


@mistake("readable", "engine/n1/x", "names itself n2/y")
def an_engine_names_itself_otherwise(scene):
    return [Put("engine/n1/x", scene.value("engine/n2/y"))]


@mistake("readable", "slice/default/u", "names itself default/t")
def a_slice_names_itself_otherwise(scene):
    scene.submit(T)
    return [Put("slice/default/u", scene.value(f"slice/{T}"))]


@mistake("readable", f"slice/{T}", "running is no end")
def a_slice_has_ended_running(scene):
    scene.submit(T)
    return [Put(f"slice/{T}", encode(replace(scene.slice(T), end=End(Phase.RUNNING))))]


@mistake("readable", PLACED, "degraded is no end")
def a_placement_is_to_end_degraded(scene):
    scene.run(T, X)
    return [scene.rewritten(T, ending=Ending(Phase.DEGRADED))]


@mistake("readable", PLACED, "engine/x is no unit")
def a_placement_holds_what_is_no_unit(scene):
    scene.run(T, X)
    return [scene.rewritten(T, held={"engine/x": ()})]


@mistake("readable", PLACED, "[7] is no amount of engine/n1/x")
def a_placement_holds_seven_of_a_whole_engine(scene):
    scene.run(T, X)
    return [scene.rewritten(T, held={"engine/n1/x": (7,)})]


@mistake("readable", "placement/t", "names no tenant")
def a_placement_is_of_no_tenant(scene):
    return [Put("placement/t", encode(Placement(uid=1, attempt=A)))]


@mistake("readable", "placement/~off/engine/n1/x", "nothing else")
def an_engine_that_is_off_holds_another_too(scene):
    held = whole("n1/x", "n2/y")
    return [Put("placement/~off/engine/n1/x", encode(Placement(uid=0, attempt=A, held=held)))]


@mistake("readable", "claim/engine/x", "names no unit")
def a_claim_is_of_no_unit(scene):
    return [claim("engine/x", T, A)]


@mistake("readable", "claim/share/n1/f/a1", "no amount")
def a_claim_is_of_more_than_an_engine(scene):
    return [claim("share/n1/f/a1", T, A, 1001)]


@mistake("readable", "claim/host/n1/a1", "no amount")
def a_claim_of_a_host_says_nothing_of_memory(scene):
    return [claim("host/n1/a1", T, A, 1)]


@mistake("readable", "order/n1/a1", "x is no unit")
def an_order_is_about_what_is_no_unit(scene):
    return [Put("order/n1/a1", encode(Order(slice=T, units=("x",))))]


@mistake("readable", "grant/nobody", "names no holder")
def a_grant_is_of_nobody(scene):
    return [Put("grant/nobody", b"5")]


@mistake("readable", f"grant/{PURSE}/s", "cannot be read")
def a_grant_is_no_number(scene):
    return [Put(f"grant/{PURSE}/s", b'"plenty"')]


# ------------------------------------------------------------------------- claims


@mistake("claims", "claim/engine/n1/x", "which does not list it")
def a_claim_that_nobody_lists(scene):
    return [claim("engine/n1/x", T, A)]


@mistake("claims", "claim/engine/n1/x", "no claim is there")
def a_unit_is_listed_and_not_claimed(scene):
    scene.run(T, X)
    return [scene.gone("claim/engine/n1/x")]


@mistake("claims", "claim/engine/n1/x", "listed by default/t and by ~drain/engine/n1/x")
def two_placements_list_a_unit(scene):
    scene.run(T, X)
    drain = Placement(uid=0, attempt="a9", held=whole("n1/x"))
    return [Put("placement/~drain/engine/n1/x", encode(drain))]


@mistake("claims", "claim/engine/n1/x", "says default/u a1, its placement says default/t a1")
def a_claim_names_another_owner(scene):
    scene.run(T, X)
    return [claim("engine/n1/x", "default/u", A)]


@mistake("claims", "claim/engine/n1/x", "says default/t a9")
def a_claim_names_another_attempt(scene):
    scene.run(T, X)
    return [claim("engine/n1/x", T, "a9")]


@mistake("claims", "claim/share/n1/f/a1", "says default/t a1 400")
def a_claim_is_of_another_amount(scene):
    scene.run(T, HALF)
    return [claim("share/n1/f/a1", T, A, 400)]


@mistake("claims", "claim/engine/n1/x", "as held and as releasing")
def a_placement_lists_a_unit_twice(scene):
    scene.run(T, X)
    return [scene.rewritten(T, releasing=whole("n1/x"))]


# ------------------------------------------------------------------------- what there is


def held_of(unit: str, *amounts: int) -> list[Operation]:
    """A drain that holds what may not be there."""
    drain = Placement(uid=0, attempt="a9", held={unit: amounts})
    key = f"{unit}/a9" if amounts else unit
    return [
        Put(f"placement/~drain/{unit}", encode(drain)),
        claim(key, f"~drain/{unit}", "a9", *amounts),
    ]


@mistake("exists", "claim/engine/n9/x", "there is no engine n9/x")
def an_engine_is_held_that_never_was(scene):
    return held_of("engine/n9/x")


@mistake("exists", "claim/engine/n1/x", "there is no engine n1/x")
def an_engine_is_removed_while_it_is_held(scene):
    scene.run(T, X)
    return [scene.gone("engine/n1/x")]


@mistake("exists", "claim/host/n9/a9", "there is no node n9")
def a_host_is_held_that_never_was(scene):
    return held_of("host/n9", 1, 1)


@mistake("exists", "claim/switch/s9", "there is no switch s9")
def a_switch_is_out_of_service_that_never_was(scene):
    return held_of("switch/s9")


@mistake("exists", "claim/lane/trunk/rev/2", "trunk has 2 lanes")
def a_lane_is_held_that_the_link_does_not_have(scene):
    return held_of("lane/trunk/rev/2")


@mistake("exists", f"claim/{TRUNK}", "there is no link trunk")
def a_link_is_removed_while_a_lane_is_held(scene):
    scene.run(T, PAIR)
    return [scene.gone("link/trunk")]


@mistake("exists", "claim/lane/trunk/fwd/1", "trunk has 1 lanes")
def a_link_loses_a_lane_that_is_held(scene):
    scene.write(*held_of("lane/trunk/fwd/1"))
    return [Put("link/trunk", encode(Link("trunk", a="s1:t", b="s2:t", lanes=1)))]


@mistake("exists", "claim/aggregator/s1/1", "s1 has 1 aggregators")
def an_aggregator_is_held_that_the_switch_does_not_have(scene):
    return held_of("aggregator/s1/1")


@mistake("exists", "claim/share/n1/x/a9", "n1/x is not shareable")
def a_part_is_held_of_what_is_not_shared(scene):
    return held_of("share/n1/x", 5)


# ------------------------------------------------------------------------- shares


@mistake("shares", "share/n1/f", "1001 thousandths of n1/f are claimed by 2 attempts")
def parts_are_more_than_the_engine(scene):
    scene.run(T, HALF)
    return held_of("share/n1/f", 501)


@mistake("shares", "share/n1/f", "n1/f is claimed whole for ~drain/engine/n1/f and in parts")
def an_engine_is_held_whole_and_in_parts(scene):
    scene.run(T, HALF)
    return held_of("engine/n1/f")


@mistake("hosts", "host/n1", "2001 CPU thousandths")
def more_cpu_is_held_than_the_host_has(scene):
    scene.run(T, HALF)
    return held_of("host/n1", 1001, 0)


@mistake("hosts", "host/n1", "2001 bytes")
def more_memory_is_held_than_the_host_has(scene):
    scene.run(T, HALF)
    return held_of("host/n1", 0, 1001)


@mistake("hosts", "host/n1", "3 devices are attached to n1, it takes 2 at once")
def more_devices_are_attached_than_the_host_takes(scene):
    scene.run(T, attached("n2/y", "n2/z", room=2))
    return held_of("host/n1", 0, 0, 1)


@mistake("hosts", "host/n1", "2 devices are attached to n1, it takes 1 at once")
def a_host_takes_fewer_devices_than_are_attached(scene):
    scene.run(T, attached("n2/y", "n2/z", room=2))
    fewer = scene.view().cell.nodes["n1"]
    return [Put("node/n1", encode(replace(fewer, devices_max=1)))]


@mistake("circuits", PLACED, "holds room for 0 of the 1 that it attaches to n2")
def a_host_gets_a_limit_that_nobody_counted(scene):
    node = scene.view().cell.nodes["n2"]
    circuit = Circuit(
        "t/0",
        "n2/y",
        ("n2",),
        ("n2/y", "s2", "n2"),
        (Arc("py", "fwd", (0,)), Arc("nic2", "rev", (0,))),
    )
    units = {**whole("n2/y"), "lane/nic2/rev/0": (), "host/n2": (0, 0)}
    scene.run(T, decide(units, "n2/y", circuits=(circuit,), hosts={"driver": ("n2",)}))
    return [Put("node/n2", encode(replace(node, devices_max=2)))]


@mistake("circuits", PLACED, "holds room for 1 of the 2 that it attaches to n1")
def more_devices_are_attached_than_the_slice_holds_room_for(scene):
    both = attached("n2/y", "n2/z", room=2)
    scene.run(T, both)
    held = {**both.units, "host/n1": (0, 0, 1)}
    return [scene.rewritten(T, held=held), claim("host/n1/a1", T, A, 0, 0, 1)]


@mistake("hosts", "host/n1", "it has 999 and 2000")
def a_host_shrinks_below_what_is_held(scene):
    scene.run(T, HALF)
    small = scene.view().cell.nodes["n1"]
    return [Put("node/n1", encode(replace(small, cpu_millis=999)))]


# ------------------------------------------------------------------------- orders


@mistake("up", "engine/n2/y", "is up for a1, which has no claim of it")
def a_unit_is_up_that_is_free(scene):
    scene.run(T, X)
    return [order_of(scene, "n1", units=("engine/n1/x", "engine/n2/y"))]


@mistake("up", "engine/n2/y", "is up for a1 but claimed by a2 of default/u")
def a_unit_is_up_that_another_holds(scene):
    scene.run(T, X)
    scene.place("default/u", Y)
    return [
        order_of(scene, "n1", units=("engine/n1/x", "engine/n2/y")),
        order_of(scene, "n2", "a2", units=()),
    ]


@mistake("up", "engine/n2/y", "is up in orders of a1 and of a2")
def a_unit_is_up_twice(scene):
    scene.run(T, X)
    scene.run("default/u", Y)
    return [order_of(scene, "n1", units=("engine/n1/x", "engine/n2/y"))]


@mistake("up", "engine/n1/x", "is up in orders of a1 and of a9")
def an_engine_is_up_and_to_be_off(scene):
    scene.run(T, X)
    return [Put("order/n1/a9", encode(Order(slice="~off/engine/n1/x", off=("n1/x",))))]


@mistake("up", "share/n1/f", "is up for a9, which has no claim of it")
def a_part_is_up_for_one_who_has_none(scene):
    scene.run(T, HALF)
    return [Put("order/n1/a9", encode(Order(slice=T, units=("share/n1/f",))))]


@mistake("up", "lane/trunk/fwd/1", "is up for a1, which has no claim of it")
def a_lane_is_up_that_is_nobodys(scene):
    scene.run(T, PAIR)
    return [order_of(scene, "s1", units=(TRUNK, "lane/px/fwd/0", "lane/trunk/fwd/1"))]


@mistake("up", "lane/pz/rev/0", "is up for a1, which has no claim of it")
def a_port_is_up_whose_engine_another_holds(scene):
    scene.run(T, PAIR)
    scene.run("default/u", decide(whole("n2/z"), "n2/z"))
    return [order_of(scene, "s2", units=(TRUNK, "lane/py/rev/0", "lane/pz/rev/0"))]


@mistake("up", "lane/px/fwd/0", "is up for a1 but claimed by a9")
def a_port_is_up_that_another_claims(scene):
    scene.run(T, PAIR)
    return held_of("lane/px/fwd/0")


@mistake("up", "lane/px/fwd/0", "is up for a1, which has no claim of it")
def a_port_is_plugged_elsewhere_while_it_is_up(scene):
    scene.run(T, PAIR)
    return [Put("link/px", encode(Link("px", a="n1/f:1", b="s1:x")))]


@mistake("orders", "order/n1/a1", "but none is there")
def an_order_is_lost(scene):
    scene.place(T, X)
    return [scene.gone("order/n1/a1")]


@mistake("orders", "order/n1/a1", "not what its placement says: units, tasks")
def an_order_says_less_than_its_placement(scene):
    scene.run(T, X)
    return [order_of(scene, "n1", units=(), tasks={})]


@mistake("orders", "order/s2/a1", "not what its placement says: crossbar")
def an_order_turns_a_circuit_away(scene):
    scene.run(T, PAIR)
    return [order_of(scene, "s2", crossbar=())]


@mistake("orders", "order/s1/a1", "not what its placement says: units, crossbar")
def the_ends_of_a_link_are_changed_under_a_circuit(scene):
    scene.run(T, PAIR)
    return [Put("link/px", encode(Link("px", a="n1/x:0", b="s9:x")))]


@mistake("orders", "order/s2/a1", "not what its placement says")
def a_switch_is_removed_under_a_circuit(scene):
    scene.run(T, PAIR)
    return [scene.gone("switch/s2")]


@mistake("orders", "order/n1/a1", "not what its placement says: units, tasks")
def an_order_is_not_rewritten_at_release(scene):
    scene.run(T, X)
    return [scene.rewritten(T, held={}, releasing=whole("n1/x"), ending=Ending(Phase.DONE))]


@mistake("orders", "order/n1/a2", "not what its placement says: units, tasks")
def a_taker_has_orders_before_its_victim_is_down(scene):
    scene.run(T, X)
    scene.submit("default/u")
    scene.commit("default/u", X, preempt=True)
    up = Order(
        slice="default/u", units=("engine/n1/x",), tasks={"n1/x": 0}, run=scene.slice(T).spec.run
    )
    return [Put("order/n1/a2", encode(up)), scene.rewritten("default/u", ordered=("n1",))]


@mistake("orders", "order/n2/a1", "an order at n2, which it does not list")
def a_placement_does_not_list_an_order(scene):
    scene.run(T, PAIR)
    return [scene.rewritten(T, ordered=("n1", "s1", "s2"))]


@mistake("orders", "order/n9/a1", "belongs to no placement")
def an_order_is_nobodys(scene):
    scene.run(T, X)
    return [Put("order/n9/a1", encode(Order(slice=T)))]


@mistake("orders", "order/n1/a1", "two placements of a1 list an order at n1")
def a_quarantine_leaves_its_order_behind_too(scene):
    scene.run(T, X)
    scene.release(T)
    parted = Placement(uid=0, attempt=A, ordered=("n1",))
    return [Put("placement/~quarantine/n1/a1", encode(parted))]


@mistake("reports", "report/n9/a1", "an order of a1 that is not there")
def a_report_is_about_nothing(scene):
    scene.run(T, X)
    return [Put("report/n9/a1", encode(Report()))]


@mistake("reports", "report/n1/a1", "reports on revision 9999")
def a_report_is_ahead_of_its_order(scene):
    scene.place(T, X)
    return [Put("report/n1/a1", encode(Report(building=9999)))]


@mistake("attempts", PLACED, "default/t and default/u are all attempt a1")
def two_placements_have_one_attempt(scene):
    scene.run(T, X)
    scene.submit("default/u")
    return [Put("placement/default/u", encode(Placement(uid=99, attempt=A)))]


# ------------------------------------------------------------------------- bitstreams


@mistake("bitstreams", "observed/n1/f", f"which has {ADD} and not {SUM}")
def a_task_runs_on_another_bitstream(scene):
    scene.run(T, HALF)
    return [Put("observed/n1/f", encode(Observed(bitstream=ADD, task=A)))]


@mistake("bitstreams", "observed/n1/f", "which has no bitstream and not")
def a_task_runs_before_the_bitstream_is_loaded(scene):
    scene.place(T, HALF)
    return [Put("observed/n1/f", encode(Observed(task=A)))]


@mistake("bitstreams", "observed/n1/f", f"which has {SUM} and not {ADD}")
def another_bitstream_is_wanted_under_a_task(scene):
    scene.run(T, HALF)
    return [scene.rewritten(T, bitstreams={"n1/f": ADD})]


# ------------------------------------------------------------------------- grants


@mistake("grants", f"grant/{PURSE}/s", "uses 100 of domain:d and was granted 99")
def a_grant_falls_below_its_use(scene):
    scene.run(T, X)
    return [Put(f"grant/{PURSE}/s", b"99")]


@mistake("grants", f"grant/{PURSE}/s", "uses 100 of domain:d and was granted 0")
def a_grant_is_given_back_while_it_is_used(scene):
    scene.run(T, X)
    return [scene.gone(f"grant/{PURSE}/s")]


@mistake("grants", f"grant/{PURSE}/s", "uses 601 of domain:d and was granted 600")
def more_is_spent_than_was_granted(scene):
    scene.run(T, X)
    return [scene.rewritten(T, spent={PURSE: GRANT_WATTS + 1})]


@mistake("grants", f"grant/{PURSE}/r", "r uses 100 of domain:d and was granted 0")
def a_placement_spends_what_another_was_granted(scene):
    scene.run(T, X)
    return [scene.rewritten(T, scheduler="r")]


@mistake("raised", f"grant/{PURSE}", "raised from 600 to 961, its limit is 960", stays=False)
def grants_are_raised_above_the_budget(scene):
    return [Put(f"grant/{PURSE}/r", encode(LIMIT_WATTS - GRANT_WATTS + 1))]


@mistake("raised", f"grant/{PURSE}", "raised from 600 to 601, its limit is 560", stays=False)
def a_grant_is_raised_after_the_budget_fell(scene):
    scene.write(Put("domain/d", encode(Domain("d", budget_watts=GRANT_WATTS))))
    return [Put(f"grant/{PURSE}/s", encode(GRANT_WATTS + 1))]


@mistake("raised", f"grant/{PURSE}", "raised from 600 to 960, its limit is 950", stays=False)
def a_grant_is_raised_to_what_a_new_engine_draws_idle(scene):
    x = scene.view().cell.engines["n1/x"]
    scene.write(Put("engine/n1/x2", encode(replace(x, name="x2"))))
    return [Put(f"grant/{PURSE}/s", encode(LIMIT_WATTS))]


VISION = "default"
QUOTA = f"tenant:{VISION}:gpu"


def limited(scene: Scene, gpus: int, granted: int) -> None:
    """Give the tenant a quota, and its scheduler a grant of it in whole GPUs."""
    scene.write(Put(f"tenant/{VISION}", encode(Tenant(VISION, quota={"gpu": gpus}))))
    scene.write(Put(f"grant/{QUOTA}/s", encode(1000 * granted)))


@mistake("grants", f"grant/{QUOTA}/s", f"uses 2000 of {QUOTA} and was granted 1000")
def a_tenant_holds_more_than_was_granted(scene):
    limited(scene, 2, 2)
    scene.run(T, PAIR)
    return [Put(f"grant/{QUOTA}/s", encode(1000))]


@mistake("raised", f"grant/{QUOTA}", "raised from 1000 to 3000, its limit is 2000", stays=False)
def grants_are_raised_above_a_quota(scene):
    limited(scene, 2, 1)
    return [Put(f"grant/{QUOTA}/r", encode(2000))]


@mistake("raised", f"grant/{QUOTA}", "raised from 0 to 2000, its limit is 1000", stays=False)
def grants_are_raised_beside_what_was_placed_before_the_quota(scene):
    scene.run(T, X)
    scene.write(Put(f"tenant/{VISION}", encode(Tenant(VISION, quota={"gpu": 2}))))
    return [Put(f"grant/{QUOTA}/s", encode(2000))]


@mistake("covered", PLACED, f"uses 1000 of {QUOTA} and spends 0", stays=False)
def a_commit_of_before_the_quota_lands_after_it(scene):
    scene.submit(T)
    step = commit(scene.view(), T, X, fence=scene.fence(), attempt=scene.fresh(), scheduler="s")
    assert step is not None
    limited(scene, 2, 2)
    return list(step.transaction.operations)


@mistake("covered", PLACED, f"uses 2000 of {QUOTA} and spends 1000", stays=False)
def a_slice_has_more_than_it_spends(scene):
    limited(scene, 2, 2)
    scene.run(T, PAIR)
    return [scene.rewritten(T, spent={**scene.placement(T).spent, QUOTA: 1000})]


# ------------------------------------------------------------------------- uids and phases


@mistake("uids", PLACED, "the placement of default/t is of slice 1, but")
def a_placement_is_made_for_an_earlier_slice(scene):
    scene.submit(T)
    return [Put(PLACED, encode(Placement(uid=1, attempt=A)))]


@mistake("committed", PLACED, "there is no such slice", stays=False)
def a_slice_is_placed_that_nobody_asked_for(scene):
    return [Put(PLACED, encode(Placement(uid=1, attempt=A)))]


@mistake("committed", PLACED, "it is cancelled", stays=False)
def a_cancelled_slice_is_placed(scene):
    uid = scene.submit(T, cancelled=True)
    return [Put(PLACED, encode(Placement(uid=uid, attempt=A)))]


@mistake("committed", PLACED, "it is held", stays=False)
def a_held_slice_is_placed(scene):
    uid = scene.submit(T, held=True)
    return [Put(PLACED, encode(Placement(uid=uid, attempt=A)))]


def too_late(scene: Scene, decision: Any, unit: str) -> list[Operation]:
    """What a commit writes that was planned before a unit was taken out of service."""
    scene.submit(T)
    step = commit(
        scene.view(), T, decision, fence=scene.fence(), attempt=scene.fresh(), scheduler="s"
    )
    assert step is not None
    scene.write(*held_of(unit))
    return list(step.transaction.operations)


@mistake("in service", PLACED, "of node/n1, which is out of service", stays=False)
def a_slice_is_placed_on_a_node_out_of_service(scene):
    return too_late(scene, X, "node/n1")


@mistake("in service", PLACED, "of switch/s1, which is out of service", stays=False)
def a_circuit_is_made_in_a_switch_out_of_service(scene):
    return too_late(scene, PAIR, "switch/s1")


@mistake("in service", PLACED, "of link/px, which is out of service", stays=False)
def a_circuit_leaves_by_a_port_out_of_service(scene):
    return too_late(scene, PAIR, "link/px")


def kept(scene: Scene, unit: str) -> str:
    """A unit is held by an open window of another tenant."""
    window = Reservation("talk", (unit,), ("physics",))
    name = f"~reserved/talk/{unit}"
    scene.write(Put(keys.reservation("talk"), encode(window)))
    scene.write(
        Put(keys.placement(name), encode(Placement(uid=0, attempt="r1", held={unit: ()}))),
        Put(f"claim/{unit}", encode((name, "r1", ()))),
    )
    return name


@mistake("reserved", "claim/engine/n1/x", "talk keeps for physics, goes to default/t", stays=False)
def a_slice_takes_what_is_kept_for_another_tenant(scene):
    name = kept(scene, "engine/n1/x")
    uid = scene.submit(T)
    placement = Placement(uid=uid, attempt=A, held={"engine/n1/x": ()})
    return [
        scene.gone(keys.placement(name)),
        Put("claim/engine/n1/x", encode((T, A, ()))),
        Put(PLACED, encode(placement)),
    ]


@mistake("reserved", f"claim/share/n1/f/{A}", "talk keeps for physics, goes to", stays=False)
def a_slice_takes_a_part_of_what_is_kept_for_another_tenant(scene):
    name = kept(scene, "engine/n1/f")
    uid = scene.submit(T)
    placement = Placement(uid=uid, attempt=A, held={"share/n1/f": (500,)})
    return [
        scene.gone(keys.placement(name)),
        scene.gone("claim/engine/n1/f"),
        Put(f"claim/share/n1/f/{A}", encode((T, A, (500,)))),
        Put(PLACED, encode(placement)),
    ]


@mistake("freed", "claim/engine/n1/x", "freed before n1 reported it down", stays=False)
def a_unit_is_freed_before_it_is_down(scene):
    scene.run(T, PAIR)
    scene.release(T)
    scene.obey("s1", "s2", "n2")
    left = dict(scene.placement(T).releasing)
    del left["engine/n1/x"]
    return [scene.gone("claim/engine/n1/x"), scene.rewritten(T, releasing=left)]


ALL_OF_A_HOST = decide({"host/n1": (2000, 2000)})
SOME_OF_A_HOST = decide({"host/n1": (500, 500)})


def taken(scene: Scene) -> list[Operation]:
    """What a commit writes that takes a part of what another has of a host."""
    scene.run(T, ALL_OF_A_HOST)
    scene.submit("default/u")
    step = commit(
        scene.view(),
        "default/u",
        SOME_OF_A_HOST,
        fence=scene.fence(),
        attempt=scene.fresh(),
        scheduler="s",
        victims=[T],
    )
    assert step is not None
    return list(step.transaction.operations)


def instead(operations: list[Operation], *others: Operation) -> list[Operation]:
    """The same operations, with these in the place of those of the same keys."""
    keys = {other.key for other in others}
    return [*(operation for operation in operations if operation.key not in keys), *others]


@mistake("freed", "claim/host/n1/a1", "freed while it is held", stays=False)
def more_is_taken_from_a_victim_than_its_taker_gets(scene):
    operations = taken(scene)
    ending = Ending(Phase.PENDING)
    return instead(
        operations,
        scene.gone("claim/host/n1/a1"),
        scene.rewritten(T, held={}, ending=ending),
    )


@mistake("freed", "claim/host/n1/a1", "freed while it is held", stays=False)
def a_taker_does_not_wait_for_its_victim(scene):
    taker = Placement(uid=1, attempt="a2", held={"host/n1": (500, 500)})
    return instead(taken(scene), Put("placement/default/u", encode(taker)))


@mistake("freed", "claim/host/n1/a1", "freed while it is held", stays=False)
def a_part_of_a_host_is_lowered_in_use(scene):
    scene.run(T, HALF)
    held = {**scene.placement(T).held, "host/n1": (500, 1000)}
    return [scene.rewritten(T, held=held), claim("host/n1/a1", T, "a1", 500, 1000)]


@mistake("freed", "claim/share/n1/f/a1", "freed before s1 reported it down", stays=False)
def a_part_of_an_engine_is_freed_before_its_port_is_down(scene):
    port = {"share/n1/f": (500,), "lane/pf/fwd/0": (), TRUNK: (), **whole("n2/z")}
    scene.run(T, decide(port, "n1/f", "n2/z", circuits=(across("n1/f", "n2/z"),)))
    scene.release(T)
    scene.obey("n1", "n2", "s2")
    left = dict(scene.placement(T).releasing)
    del left["share/n1/f"]
    return [scene.gone("claim/share/n1/f/a1"), scene.rewritten(T, releasing=left)]


@mistake("freed", f"claim/{TRUNK}", "freed before s2 reported it down", stays=False)
def a_lane_is_freed_with_one_end_down(scene):
    scene.run(T, PAIR)
    scene.release(T)
    scene.obey("s1", "n1")
    left = dict(scene.placement(T).releasing)
    del left[TRUNK]
    return [scene.gone(f"claim/{TRUNK}"), scene.rewritten(T, releasing=left)]


@mistake("freed", "claim/engine/n1/x", "freed while it waits for a1", stays=False)
def a_taker_frees_before_its_victim_is_down(scene):
    scene.run(T, X)
    scene.submit("default/u")
    scene.commit("default/u", X, preempt=True)
    scene.release("default/u")
    return [scene.gone("claim/engine/n1/x"), scene.gone("placement/default/u")]


@mistake("phases", f"slice/{T}", "went from running to pending", stays=False)
def a_running_slice_is_forgotten_by_the_cell(scene):
    scene.run(T, X)
    return [scene.gone(PLACED)]


@mistake("phases", f"slice/{T}", "went from done to pending", stays=False)
def an_end_is_taken_back(scene):
    scene.run(T, X)
    scene.end(T)
    return [Put(f"slice/{T}", encode(replace(scene.slice(T), end=None)))]


@mistake("phases", f"slice/{T}", "went from running to done", stays=False)
def a_slice_is_done_while_it_runs(scene):
    scene.run(T, X)
    return [Put(f"slice/{T}", encode(replace(scene.slice(T), end=End(Phase.DONE))))]


@mistake("phases", f"slice/{T}", "went from pending to running", stays=False)
def a_slice_is_placed_as_if_it_had_always_run(scene):
    uid = scene.submit(T)
    return [Put(PLACED, encode(Placement(uid=uid, attempt=A, started_at=1.0)))]


@mistake("phases", f"slice/{T}", "begins done", stays=False)
def a_slice_begins_with_its_end(scene):
    return [Put(f"slice/{T}", encode(Slice(SliceSpec(name="t"), end=End(Phase.DONE))))]


@mistake("phases", f"slice/{T}", "is gone while it was running", stays=False)
def a_running_slice_vanishes(scene):
    scene.run(T, X)
    return [scene.gone(PLACED), scene.gone(f"slice/{T}")]


# ------------------------------------------------------------------------- all of them


ONE_OF_EACH_LAW = list({wrong.law: wrong for wrong in PLANTED}.values())


@pytest.mark.parametrize("wrong", PLANTED, ids=lambda wrong: wrong.name)
def test_mistake_is_seen_at_its_revision(wrong, little):
    see(wrong, little)


@pytest.mark.etcd
@pytest.mark.parametrize("wrong", ONE_OF_EACH_LAW, ids=lambda wrong: wrong.name)
def test_mistake_in_etcd_is_seen_at_its_revision(wrong, etcd_store):
    see(wrong, Scene(etcd_store()))


def see(wrong: Mistake, scene: Scene) -> None:
    """Plant a mistake, and look at it now, in the history, and as it happens."""
    operations = list(wrong.plant(scene))
    assert verify_history(scene.store).violations == ()
    with followed(scene.store) as live:
        live.wait_for(lambda news: isinstance(news, Listed))
        revision = scene.write(*operations)
        live.wait_for(lambda news: seen_in([news], wrong, revision))
    assert seen_in(verify_history(scene.store).violations, wrong, revision)
    now = verify_now(scene.store)
    assert seen_in(now.violations, wrong, now.last) is wrong.stays


def test_every_law_has_a_mistake_that_breaks_it():
    assert {wrong.law for wrong in PLANTED} == set(NAMES)
