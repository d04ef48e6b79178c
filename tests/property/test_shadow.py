"""Whatever the cell and the request: a shadow is the soonest place, and looking changes nothing."""

from copy import deepcopy
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from flowos.model.placement import Decision, Placement
from flowos.model.rules import Reservation
from flowos.model.slice import Run, Slice, SliceSpec
from flowos.model.view import CellView, Entry
from flowos.planning.engines.pool import Pool
from flowos.planning.place import plan
from flowos.planning.shadow import Shadow, ends_of, fewest, left, shadow
from tests.property.small_cells import small_request, small_view
from tests.unit.planning.cells import gpus, leaves, node, power_off, request, view_of, want
from tests.unit.planning.pictures import kept_is_fresh

NO_RUN = Run()
SEEDS = st.integers(0, 2**32)


def placed(view: CellView, name: str, at: float | None, run: Run = NO_RUN, **spec: float) -> None:
    """Let a slice hold what is held by its name in a small view, or the first engine."""
    had = view.now(name)
    held = had.held if had else {"engine/n0/gpu0": ()}
    tenant, _, short = name.partition("/")
    number = len(view.placements) + 1
    record = Slice(SliceSpec(short, tenant, **spec))  # type: ignore[arg-type]
    view.slices[name] = Entry(record, number, number)
    placement = Placement(number, f"attempt {name}", held=held, run=run, started_at=at)
    view.assume(name, placement)
    view.settle(name, number)


@given(SEEDS, SEEDS, SEEDS)
def test_shadow_is_the_first_prefix_of_those_who_end_with_which_a_plan_is_found(a, b, c):
    view, spec, dice = small_view(a), small_request(b), Random(c)
    names = sorted(name for names in view.by_attempt.values() for name in names)
    names = [name for name in names if not name.startswith("~off/")]
    dice.shuffle(names)
    ends = [(name, float(n)) for n, name in enumerate(names)]
    pool = Pool(view)
    before = deepcopy((view.holders, view.shares, view.hosts, view.lanes_taken))
    asked = 0

    def planned():
        nonlocal asked
        asked += 1
        assert view.supposing
        return plan(pool, spec)

    found = shadow(pool, ends, planned)
    lanes = {key: mask for key, mask in view.lanes_taken.items() if mask or key in before[3]}
    assert (view.holders, view.shares, view.hosts, lanes) == before
    assert kept_is_fresh(pool)
    assert asked <= 2 * max(1, len(names)).bit_length() + 3
    soonest = None
    for count in range(len(names) + 1):
        with view.lifted(names[:count]):
            alone = plan(Pool(view), spec)
        if isinstance(alone, Decision):
            soonest = count
            break
    assert (found is None) == (soonest is None)
    if found is not None and soonest is not None:
        assert found.eta_seconds == (ends[soonest - 1][1] if soonest else 0.0)
        assert set(found.after) <= set(names[:soonest])
        assert soonest == 0 or names[soonest - 1] in found.after
        with view.lifted(found.after):  # who is not named is not in the way
            assert isinstance(plan(Pool(view), spec), Decision)


@given(st.integers(0, 5_000), st.integers(0, 5_000), st.integers(0, 3))
def test_fewest_is_found_in_a_bounded_number_of_questions(first, most, least):
    asked = []

    def helps(count):
        asked.append(count)
        return count >= first

    most = max(most, least)
    found = fewest(most, helps, least)
    assert found == (max(first, least) if first <= most else None)
    assert len(asked) <= 2 * max(1, most).bit_length() + 3


def test_units_are_engines_whole_or_in_part_and_nodes_of_whose_hosts_a_part_is_needed():
    view = view_of(node("n0", *gpus("n0", 2, shareable=True)))
    pool = Pool(view)
    spec = request(w=want(1, share=300))
    assert shadow(pool, [], lambda: plan(pool, spec)) == Shadow(
        0.0, frozenset({"engine/n0/gpu0"}), ()
    )
    power_off(view, "n0/gpu0")
    decision = Decision({}, {"engine/n0/gpu0": (), "share/n1/gpu0": (5,), "host/n1": (1, 1)})
    found = shadow(pool, [], lambda: decision)
    assert found is not None
    assert found.units == {"engine/n0/gpu0", "engine/n1/gpu0", "node/n1"}


def test_those_that_nothing_tells_about_come_last_the_oldest_first():
    view = leaves(1, gpus_each=2)
    placed(view, "a/unknown-old", 10.0)
    placed(view, "a/limited", 10.0, time_limit_seconds=500)
    placed(view, "a/unknown-young", 90.0)
    placed(view, "a/expected", 40.0, expected_seconds=100, time_limit_seconds=500)
    placed(view, "a/simulated", None, Run(for_seconds=70), expected_seconds=100)
    view.assume("~drain/node/n0", Placement(0, "d", wanted=("node/n0",)))
    assert ends_of(view, 100.0) == [
        ("a/expected", 40.0),
        ("a/simulated", 70.0),
        ("a/limited", 410.0),
        ("a/unknown-old", None),
        ("a/unknown-young", None),
    ]


def test_who_has_run_longer_than_was_expected_is_not_believed_but_a_limit_is():
    view = leaves(1, gpus_each=2)
    placed(view, "a/late", 0.0, expected_seconds=50)
    placed(view, "a/limited", 0.0, expected_seconds=50, time_limit_seconds=130)
    placed(view, "a/at-its-limit", 0.0, time_limit_seconds=90)
    told = {name: left(view, name, 100.0) for name in view.placements}
    assert told == {"a/late": None, "a/limited": 30.0, "a/at-its-limit": 0.0}


def test_reserved_units_come_free_when_their_window_closes():
    view = leaves(1, gpus_each=2)
    unit = "engine/n0/gpu0"
    view.assume(f"~reserved/nightly/{unit}", Placement(0, "r", held={unit: ()}))
    view.reservations["nightly"] = Reservation("nightly", (unit,), ("a",), 0.0, 160.0)
    assert ends_of(view, 100.0) == [(f"~reserved/nightly/{unit}", 60.0)]
    view.reservations["nightly"] = Reservation("nightly", (unit,), ("a",), 0.0, None)
    assert ends_of(view, 100.0) == []
