"""Which phase do records say, and which edges does the life cycle have?"""

from dataclasses import replace

import pytest

from flowos.model.codec import encode
from flowos.model.life import (
    FIRST,
    Built,
    built,
    moves_legally,
    phase_in,
    phase_of,
    reason_of,
    served,
)
from flowos.model.placement import Ending, Order, Placement, Report, Session
from flowos.model.slice import ENDED, NEXT, End, Phase, Reason, Slice, SliceSpec, Waiting
from flowos.model.transaction import Change
from flowos.model.view import CellView, Entry

P = Phase
WISH = Slice(SliceSpec(name="t"))
PLACED = Placement(uid=3, attempt="a1", held={"engine/n1/x": ()}, ordered=("n1", "s1"))
STARTED = replace(PLACED, started_at=1.0)
LEFT = replace(STARTED, releasing={"engine/n2/y": ()})


def ended(phase):
    return replace(WISH, end=End(phase=phase))


def ending(phase, placement=PLACED):
    return replace(
        placement, held={}, releasing=placement.held, ending=Ending(phase=phase, message="over")
    )


# One triple of records for each phase, or for each way to be in it.
PENDING = (WISH, None, Built())
WAITS = (WISH, replace(PLACED, waits=("a0",), ordered=()), Built())
NOT_BEGUN = (WISH, PLACED, Built(places=2))
ONE_BUILDS = (WISH, PLACED, Built(places=2, begun=1))
ONE_IS_UP = (WISH, PLACED, Built(places=2, begun=1, applied=1))
ALL_UP = (WISH, PLACED, Built(places=2, begun=2, applied=2))
RUNNING = (WISH, STARTED, Built(places=2, begun=2, applied=2))
CHANGED = (WISH, STARTED, Built(places=2, begun=1, applied=1))
ALL_CHANGED = (WISH, STARTED, Built(places=2))
PART_LOST = (WISH, LEFT, Built(places=2, begun=1, applied=1, quarantined=True))
LOST_AND_BUILT = (WISH, LEFT, Built(places=2, begun=2, applied=2, quarantined=True))
REPAIRED = (WISH, STARTED, Built(places=2, begun=2, applied=2, quarantined=True))
TOLD_TO_GO = (WISH, ending(P.DONE), Built(places=2))
GOING = (WISH, ending(P.DONE), Built(places=2, begun=2))
ONE_IS_DOWN = (WISH, ending(P.DONE), Built(places=2, begun=1, applied=1))
ALL_DOWN = (WISH, ending(P.DONE), Built(places=2, begun=2, applied=2))
NEVER_ORDERED = (WISH, ending(P.CANCELLED, replace(PLACED, waits=("a0",), ordered=())), Built())
ORPHAN = (None, ending(P.PENDING), Built(places=2))


@pytest.mark.parametrize(
    ("records", "phase"),
    [
        (PENDING, P.PENDING),
        ((replace(WISH, held=True), None, Built()), P.PENDING),
        ((replace(WISH, cancelled=True), None, Built()), P.PENDING),
        (WAITS, P.COMMITTED),
        (NOT_BEGUN, P.COMMITTED),
        (ONE_BUILDS, P.PROVISIONING),
        (ONE_IS_UP, P.PROVISIONING),
        (ALL_UP, P.RUNNING),
        (RUNNING, P.RUNNING),
        (CHANGED, P.REPAIRING),
        (ALL_CHANGED, P.REPAIRING),
        (PART_LOST, P.DEGRADED),
        (LOST_AND_BUILT, P.DEGRADED),
        (REPAIRED, P.RUNNING),
        (TOLD_TO_GO, P.DRAINING),
        (GOING, P.DRAINING),
        (ONE_IS_DOWN, P.CLEANING),
        (ALL_DOWN, P.CLEANING),
        (NEVER_ORDERED, P.CLEANING),
        (ORPHAN, P.DRAINING),
        ((ended(P.DONE), None, Built()), P.DONE),
        ((ended(P.FAILED), None, Built()), P.FAILED),
        ((ended(P.CANCELLED), None, Built()), P.CANCELLED),
        ((ended(P.DONE), PLACED, Built(places=2)), P.DONE),
    ],
)
def test_phase_follows_from_slice_placement_and_reports(records, phase):
    assert phase_of(*records) is phase


def test_every_phase_can_be_reached():
    phases = {phase_of(*records) for pair in TAKEN for records in pair}
    assert phases == set(Phase)


# Each edge of the table, taken: what the records say before, and what they say next.
OVER = {phase: (ended(phase), None, Built()) for phase in ENDED}
TAKEN = [
    (PENDING, WAITS),
    (PENDING, NOT_BEGUN),
    (PENDING, OVER[P.CANCELLED]),  # never placed
    (PENDING, OVER[P.FAILED]),  # can never be
    (NOT_BEGUN, ONE_BUILDS),
    (NOT_BEGUN, (WISH, PLACED, Built(places=1, begun=1, applied=1))),
    (NOT_BEGUN, TOLD_TO_GO),
    (WAITS, NEVER_ORDERED),
    (ONE_BUILDS, NOT_BEGUN),  # all orders rewritten: resized before it was up
    (ONE_IS_UP, ALL_UP),
    (ONE_BUILDS, CHANGED),  # all were up, one agent began anew, then the start was noted
    (ONE_BUILDS, TOLD_TO_GO),
    (ONE_IS_UP, ONE_IS_DOWN),  # the place that is up was empty before it was told to go
    (ALL_UP, ONE_IS_UP),  # one agent began anew before the start was noted
    (ALL_UP, NOT_BEGUN),  # resized before the start was noted
    (RUNNING, ALL_CHANGED),
    (RUNNING, TOLD_TO_GO),
    (RUNNING, ONE_IS_DOWN),
    (CHANGED, RUNNING),
    (CHANGED, TOLD_TO_GO),
    (CHANGED, ONE_IS_DOWN),
    (TOLD_TO_GO, ONE_IS_DOWN),
    (ONE_IS_DOWN, TOLD_TO_GO),  # the only place that had reported died and is split off
    *((ALL_DOWN, over) for over in OVER.values()),
    (ALL_DOWN, PENDING),
]
# A part that is lost does not end a slice any more.
WITH_PARTIAL_REPAIR = [
    (RUNNING, PART_LOST),
    (CHANGED, PART_LOST),
    (PART_LOST, REPAIRED),
    (PART_LOST, CHANGED),
    (PART_LOST, TOLD_TO_GO),
    (PART_LOST, ONE_IS_DOWN),
]
# The last report and the free that it allowed, between two looks.
SKIPPED = [(TOLD_TO_GO, over) for over in OVER.values()] + [(TOLD_TO_GO, PENDING)]
TAKEN += WITH_PARTIAL_REPAIR


@pytest.mark.parametrize(("before", "after"), [*TAKEN, *SKIPPED])
def test_edge_is_in_the_table(before, after):
    assert phase_of(*after) in NEXT[phase_of(*before)]


def test_no_edge_of_the_table_is_superfluous():
    taken = {(phase_of(*before), phase_of(*after)) for before, after in [*TAKEN, *SKIPPED]}
    table = {(before, after) for before, nexts in NEXT.items() for after in nexts}
    assert table - taken == set()
    assert taken - table == set()


def test_a_phase_may_stay_and_nothing_leaves_an_end():
    assert all(moves_legally(phase, phase) for phase in Phase)
    assert not any(moves_legally(end, phase) for end in ENDED for phase in Phase if phase != end)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (P.PENDING, P.RUNNING),
        (P.PENDING, P.DONE),
        (P.COMMITTED, P.PENDING),  # freed without being given back
        (P.RUNNING, P.DONE),
        (P.RUNNING, P.PENDING),
        (P.REPAIRING, P.COMMITTED),  # its start was noted
        (P.CLEANING, P.RUNNING),
    ],
)
def test_what_the_table_does_not_have_is_refused(before, after):
    assert not moves_legally(before, after)


def test_a_slice_begins_pending_or_placed_by_its_own_client():
    assert {phase_of(*PENDING), phase_of(*NOT_BEGUN)} == FIRST


# ------------------------------------------------------------------------- counting reports


def order(modified):
    return Entry(Order(slice="default/t"), 1, modified)


def report(**fields):
    return Entry(Report(**fields), 1, 1)


@pytest.mark.parametrize(
    ("at_s1", "begun", "applied"),
    [
        (None, 1, 1),
        (report(), 1, 1),
        (report(building=7), 2, 1),
        (report(applied=7), 2, 2),
        (report(applied=5), 1, 1),  # an earlier order's
        (report(applied=5, building=7), 2, 1),
        (report(building=5), 1, 1),
    ],
)
def test_only_reports_on_the_current_order_count(at_s1, begun, applied):
    orders = {"n1": order(6), "s1": order(7), "elsewhere": order(8)}
    reports = {"n1": report(applied=6), "elsewhere": report(applied=8)}
    if at_s1:
        reports["s1"] = at_s1
    assert built(PLACED, orders, reports) == Built(places=2, begun=begun, applied=applied)


def test_an_order_that_is_missing_is_not_built():
    assert built(PLACED, {}, {"n1": report(applied=9)}) == Built(places=2)


# ------------------------------------------------------------------------- from a view


def view_of(*records):
    """A view of records: (key, record), each put at the next revision from 3 on."""
    view = CellView()
    for revision, (key, record) in enumerate(records, start=3):
        view.apply(Change(key, encode(record), revision, revision))
    return view


def test_phase_is_read_from_a_view():
    ours = Placement(uid=3, attempt="a1", held={"engine/n1/x": ()}, ordered=("n1",))
    view = view_of(
        ("slice/default/t", WISH),
        ("placement/default/t", ours),
        ("order/n1/a1", Order(slice="default/t")),
        ("report/n1/a1", Report(applied=5)),
    )
    assert phase_in(view, "default/t") is P.RUNNING
    assert phase_in(view, "default/nobody") is None


def test_a_part_in_quarantine_is_seen_in_a_view():
    view = view_of(
        ("slice/default/t", WISH),
        ("placement/default/t", replace(LEFT, ordered=())),
        ("placement/~quarantine/n2/a1", Placement(uid=0, attempt="a1")),
    )
    assert phase_in(view, "default/t") is P.DEGRADED


def test_what_an_earlier_slice_of_the_name_left_does_not_place_the_new_one():
    stale = ending(P.PENDING, replace(PLACED, uid=1, ordered=()))
    view = view_of(("slice/default/t", WISH), ("placement/default/t", stale))
    assert phase_in(view, "default/t") is P.PENDING


def test_a_placement_whose_slice_was_deleted_has_a_phase_still():
    assert phase_in(view_of(("placement/default/t", PLACED)), "default/t") is P.COMMITTED


def test_a_placement_made_with_its_slice_is_of_it():
    # It could not know the revision, so it has no uid: both were created at the same one.
    view = CellView()
    for key, record in [("slice/default/t", WISH), ("placement/default/t", replace(PLACED, uid=0))]:
        view.apply(Change(key, encode(record), 3, 3))
    assert phase_in(view, "default/t") is P.COMMITTED


# ------------------------------------------------------------------------- reasons

FULL = Waiting(Reason.WAITING_FOR_ENGINES, "4 of 8 are free")


@pytest.mark.parametrize(
    ("slice_", "placement", "waiting", "policies", "reason"),
    [
        (WISH, None, FULL, {"batch"}, Reason.WAITING_FOR_ENGINES),
        (WISH, None, None, {"batch"}, None),
        (WISH, None, None, {"other"}, Reason.SCHEDULER_DOWN),
        (WISH, None, FULL, set(), Reason.SCHEDULER_DOWN),
        (replace(WISH, held=True), None, FULL, set(), Reason.HELD),
        (WISH, PLACED, FULL, set(), None),
        (
            WISH,
            replace(PLACED, ending=Ending(P.PENDING, reason=Reason.TIME_LIMIT)),
            FULL,
            set(),
            Reason.TIME_LIMIT,
        ),
        (
            replace(WISH, end=End(P.FAILED, reason=Reason.INFEASIBLE)),
            None,
            FULL,
            set(),
            Reason.INFEASIBLE,
        ),
    ],
)
def test_reason_says_what_the_slice_waits_for(slice_, placement, waiting, policies, reason):
    assert reason_of(slice_, placement, waiting, policies) is reason


def test_only_schedulers_serve_policies():
    sessions = [
        Session("scheduler", "batch-0", policy="batch"),
        Session("scheduler", "batch-1", policy="batch"),
        Session("client", "sdk", policy="lonely"),
        Session("agent", "n1"),
    ]
    assert served(sessions) == {"batch"}
