"""Who is placed next, who waits and why, and what becomes of lost races: the scheduler's machine."""

import itertools
from dataclasses import replace

import pytest

from flowos.model import keys
from flowos.model.codec import encode
from flowos.model.errors import StoreRefused
from flowos.model.placement import Placement
from flowos.model.slice import (
    CircuitWish,
    EngineChoice,
    EngineRole,
    HostRole,
    Phase,
    Reason,
    Shape,
    SliceSpec,
)
from flowos.model.transaction import Delete, Put, Quiet, Seen
from flowos.runtime.machine import Commit, Refused
from flowos.runtime.scheduling import (
    OVERLAP_SECONDS,
    YIELD_SECONDS,
    Scheduling,
)
from flowos_schedulers.batch import Batch
from tests.runtime.cells import PURSE, SUM, small_cell, wanted
from tests.runtime.theatre import Moods, Player, Theatre


class Recording(Batch):
    """Batch, with a list of whom it planned for."""

    def __init__(self):
        self.planned: list[str] = []

    def plan(self, pool, spec, *, seed, avoid):
        self.planned.append(spec.name)
        return super().plan(pool, spec, seed=seed, avoid=avoid)


def machine(player: Player) -> Scheduling:
    assert isinstance(player.machine, Scheduling)
    return player.machine


def full_cell(**more) -> Theatre:
    """A cell all of whose four GPUs are held, by the slices h0 to h3."""
    theatre = Theatre(small_cell(**more))
    theatre.scheduler(alone=True)
    theatre.submit(*(wanted(f"h{n}", gpus=1) for n in range(4)))
    theatre.settle()
    return theatre


# --------------------------------------------------------------------------------------- the queue


def test_higher_priority_goes_first_and_then_whoever_came_first():
    theatre = Theatre(small_cell())
    theatre.submit(
        wanted("late", gpus=2), wanted("later", gpus=2), wanted("high", gpus=2, priority=9)
    )
    theatre.scheduler()
    theatre.settle()
    assert theatre.held("default/high")
    assert theatre.held("default/late")
    assert not theatre.held("default/later")


def test_a_slice_that_cannot_be_placed_says_why_and_lets_others_pass():
    theatre = Theatre(small_cell())
    theatre.submit(
        wanted("some", gpus=2), wanted("large", gpus=3, priority=5), wanted("small", gpus=2)
    )
    theatre.submit(wanted("first", gpus=2, priority=9))
    theatre.scheduler()
    theatre.settle()
    waiting = theatre.waiting("default/large")
    assert waiting.reason is Reason.WAITING_FOR_ENGINES
    assert waiting.sentence == (
        "workers: 3 gpu wanted, 2 are free: 2 of 4 are held or out of service"
    )
    assert waiting.scheduler == "batch-0"
    assert theatre.held("default/some")


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (wanted("x", gpus=5), Reason.INFEASIBLE),
        (wanted("x", fpgas=1, bitstream="unheard-of"), Reason.INFEASIBLE),
        (wanted("x", gpus=2), Reason.WAITING_FOR_ENGINES),
        (wanted("x", fpgas=2), Reason.WAITING_FOR_BITSTREAM),
        (wanted("x", gpus=1, cpu_millis=8000), Reason.WAITING_FOR_ENGINES),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_slice_that_waits_has_the_reason_that_fits(spec, reason):
    theatre = Theatre(small_cell())
    theatre.scheduler()
    theatre.submit(wanted("h", gpus=3, fpgas=1), wanted("i", gpus=1))
    theatre.settle()
    theatre.submit(spec)
    theatre.settle()
    waiting = theatre.waiting("default/x")
    assert waiting.reason is reason


def test_free_engines_on_two_nodes_are_fragments_to_a_slice_that_wants_one_node():
    theatre = full_cell()
    theatre.submit(wanted("x", gpus=2, together="node"))
    on_n0 = next(f"default/h{n}" for n in range(4) if theatre.held(f"default/h{n}") == ["n0/gpu0"])
    on_n1 = next(f"default/h{n}" for n in range(4) if theatre.held(f"default/h{n}") == ["n1/gpu0"])
    theatre.take_away(on_n0, on_n1)
    theatre.settle()
    waiting = theatre.waiting("default/x")
    assert waiting.reason is Reason.FRAGMENTED_ACROSS_SWITCHES


def test_circuits_without_lanes_are_the_reason_of_a_slice_whose_engines_are_free():
    theatre = Theatre(small_cell(gpus=1, fpgas=1, lanes=1))
    theatre.scheduler()
    theatre.submit(wanted("h", gpus=2, ring=True))
    theatre.settle()
    theatre.submit(wanted("x", fpgas=2, ring=True))
    theatre.settle()
    assert theatre.held("default/h")
    waiting = theatre.waiting("default/x")
    assert waiting.reason is Reason.NO_CIRCUIT


def test_a_reason_goes_with_the_slice_that_is_placed_and_has_ended():
    theatre = full_cell()
    theatre.submit(wanted("x", gpus=1, run_for=1.0))
    theatre.settle()
    assert theatre.waits("default/x")
    theatre.take_away("default/h0")
    theatre.controller()
    theatre.agent()
    assert theatre.play(10, lambda: theatre.phase("default/x") is Phase.DONE)
    assert not theatre.waits("default/x")


# --------------------------------------------------------------------------------- who waits again


def test_freed_units_awaken_the_slices_that_wait():
    theatre = full_cell()
    theatre.submit(wanted("x", gpus=2), wanted("y", gpus=1))
    theatre.settle()
    theatre.take_away("default/h0", "default/h1")
    theatre.settle()
    assert theatre.held("default/x")
    assert not theatre.held("default/y")
    theatre.take_away("default/h2")
    theatre.settle()
    assert theatre.held("default/y")


def test_units_freed_just_behind_a_pass_awaken_slices_without_any_other_event():
    # A slice that ended is first seen without its placement and with its old record: it is in the
    # queue for a moment, and so in the pass that is under way.
    theatre = Theatre(small_cell())
    theatre.scheduler()
    theatre.controller()
    theatre.agent()
    theatre.submit(wanted("a", gpus=2, fpgas=1, run_for=2.0), wanted("b", gpus=3, run_for=1.0))
    theatre.play_out(20)


def test_units_freed_in_the_middle_of_a_pass_go_to_whoever_comes_first():
    theatre = full_cell(nodes=12, gpus=2)
    theatre.submit(*(wanted(f"s{n:02}", gpus=1, priority=5) for n in range(17)))
    theatre.submit(*(wanted(f"f{n}", fpgas=1, priority=1) for n in range(12)))
    theatre.submit(wanted("first", gpus=4, priority=9), wanted("last", gpus=1))
    # 24 GPUs: 4 held, 20 free; `first` gets 4, 16 of s* the rest, in one group.
    theatre.settle()
    assert theatre.held("default/first")
    theatre = full_cell()
    (player,) = theatre.players
    theatre.submit(wanted("first", gpus=1, priority=9))
    theatre.settle()
    theatre.submit(*(wanted(f"f{n}", gpus=0, cpu_millis=1) for n in range(20)))
    theatre.submit(wanted("last", gpus=1))
    while "step" not in player.possible_moves() or "hear" in player.possible_moves():
        player.move(player.next_move())
    player.move("step")  # plans the first sixteen of f*
    theatre.take_away("default/h0")
    theatre.settle()
    assert theatre.held("default/first")
    assert not theatre.held("default/last")


@pytest.mark.parametrize("asked", [{"gpus": 1, "share": 300}, {"cpu_millis": 1000}])
def test_a_slice_is_not_planned_again_because_others_take_parts_of_things(asked):
    theatre = full_cell()
    theatre.take_away("default/h0")
    policy = Recording()
    theatre.players[0].exit()
    theatre.scheduler("other", policy=policy, alone=True)
    theatre.submit(wanted("x", gpus=2))
    theatre.settle()
    for number in range(3):
        theatre.submit(wanted(f"part{number}", **asked))
        theatre.settle()
        assert theatre.placement(f"default/part{number}")
    assert policy.planned.count("x") == 1


@pytest.mark.parametrize("asked", [{"gpus": 1, "share": 600}, {"cpu_millis": 5000}])
def test_freed_parts_awaken_slices_too(asked):
    theatre = Theatre(small_cell(nodes=1, gpus=1))
    theatre.scheduler()
    theatre.submit(wanted("a", **asked), wanted("b", **asked))
    theatre.settle()
    assert theatre.placement("default/b") is None
    theatre.take_away("default/a")
    theatre.settle()
    assert theatre.placement("default/b")


def test_equal_requests_that_wait_are_planned_once():
    policy = Recording()
    theatre = Theatre(small_cell())
    theatre.scheduler(policy=policy)
    theatre.submit(*(wanted(f"x{n}", gpus=3) for n in range(9)))
    theatre.settle()
    assert len(policy.planned) == 2  # the one that fits, and one of those that don't
    assert all(theatre.waits(f"default/x{n}") for n in range(1, 9))


def test_new_numbers_in_a_reason_are_written_only_now_and_then():
    theatre = full_cell()
    theatre.submit(wanted("x", gpus=4))
    theatre.settle()
    before = theatre.records("reason/")["reason/default/x"].modified
    theatre.take_away("default/h0")
    theatre.settle()
    assert theatre.records("reason/")["reason/default/x"].modified == before
    theatre.play(5)
    theatre.take_away("default/h1")
    theatre.settle()
    assert "2 are free" in theatre.waiting("default/x").sentence


def test_a_reason_whose_writing_lost_a_race_is_written_again():
    theatre = full_cell()
    (player,) = theatre.players
    theatre.submit(wanted("x", gpus=1))
    while not player.requests:
        player.move(player.next_move())
    theatre.wish("default/x", submitted_at=1.0)
    theatre.play(5)
    assert theatre.waits("default/x")


# ------------------------------------------------------------------------------ whose turn it is not


@pytest.mark.parametrize(
    "wish", [{"held": True}, {"cancelled": True}, {"spec": wanted("x", gpus=1, policy="other")}]
)
def test_a_slice_that_is_not_to_be_placed_is_left_alone(wish):
    theatre = Theatre(small_cell())
    theatre.submit(wanted("x", gpus=1))
    theatre.wish("default/x", **wish)
    theatre.scheduler()
    theatre.settle()
    assert not theatre.held("default/x")
    assert not theatre.waits("default/x")


def test_a_held_slice_is_placed_when_it_is_released():
    theatre = Theatre(small_cell())
    theatre.submit(wanted("x", gpus=1))
    theatre.wish("default/x", held=True)
    theatre.scheduler()
    theatre.settle()
    theatre.wish("default/x", held=False)
    theatre.settle()
    assert theatre.held("default/x")


def test_a_slice_cancelled_while_its_commit_is_on_the_way_is_not_placed():
    theatre = Theatre(small_cell())
    player = theatre.scheduler()
    theatre.submit(wanted("x", gpus=1))
    while not player.requests:
        player.move(player.next_move())
    theatre.wish("default/x", cancelled=True)
    theatre.settle()
    assert theatre.placement("default/x") is None


def test_a_changed_priority_changes_the_order():
    theatre = full_cell()
    theatre.submit(wanted("x", gpus=1), wanted("y", gpus=1))
    theatre.settle()
    theatre.wish("default/y", spec=wanted("y", gpus=1, priority=7))
    theatre.settle()
    theatre.take_away("default/h0")
    theatre.settle()
    assert theatre.held("default/y")
    assert not theatre.held("default/x")


def test_engines_that_a_drain_waits_for_are_left_alone():
    theatre = full_cell()
    for name in ("gpu0", "gpu1"):
        unit = f"engine/n0/{name}"
        theatre.drain(unit)
    holders = [f"default/h{n}" for n in range(4) if theatre.held(f"default/h{n}")[0][:2] == "n0"]
    theatre.take_away(*holders)
    theatre.submit(wanted("x", gpus=1))
    theatre.settle()
    assert not theatre.held("default/x")


# ----------------------------------------------------------------------------------------- races


def test_a_lost_race_is_planned_again_only_on_a_view_that_shows_it():
    theatre = Theatre(small_cell(nodes=1, gpus=2))
    policy = Recording()
    slow = theatre.scheduler("slow", policy=policy, alone=True)
    theatre.submit(wanted("x", gpus=1))
    while not slow.requests:
        slow.move(slow.next_move())
    slow.acts = False
    rival = theatre.scheduler("rival", alone=True)
    theatre.settle()
    rival.exit()
    theatre.submit(wanted("y", gpus=1))
    slow.acts = True
    slow.move("send")
    slow.move("be told")
    for _ in range(3):
        slow.move("step")  # it has not heard anything yet
        assert not slow.requests
    assert policy.planned == ["x"]
    theatre.settle()
    assert policy.planned == ["x", "y"]
    assert theatre.held("default/y")


def two_schedulers(first_moves: int, second_moves: int) -> Theatre:
    """Two schedulers on one queue: the first is interrupted, and so is the second."""
    theatre = Theatre(small_cell(nodes=2, gpus=2))
    one, two = theatre.scheduler("one", alone=True), theatre.scheduler("two", alone=True)
    theatre.submit(*(wanted(f"s{n}", gpus=1) for n in range(3)))
    theatre.submit(wanted("wide", gpus=2, ring=True), wanted("part", gpus=1, share=500))
    for player, moves in ((one, first_moves), (two, second_moves)):
        for _ in range(moves):
            if not player.next_move():
                break
            player.move(player.next_move())
    theatre.play(5)
    return theatre


def test_two_schedulers_never_place_a_slice_twice_wherever_they_interrupt_each_other():
    for first, second in itertools.product(range(16), range(0, 16, 2)):
        theatre = two_schedulers(first, second)  # the laws are checked at every revision
        placed = [n for n in ("s0", "s1", "s2", "wide", "part") if theatre.held(f"default/{n}")]
        assert placed == ["s0", "s1", "s2", "part"], (first, second)
        assert theatre.waits("default/wide"), (first, second)
        commits = sum(machine(player).figures.commits for player in theatre.players)
        assert commits == 4, (first, second)


def test_a_queue_is_divided_so_that_two_schedulers_hardly_ever_race():
    theatre = Theatre(small_cell(nodes=8, gpus=8))
    players = [theatre.scheduler(f"batch-{n}") for n in range(2)]
    theatre.settle()
    theatre.submit(*(wanted(f"s{n}", gpus=1) for n in range(40)))
    theatre.play(OVERLAP_SECONDS / 2)
    shares = [machine(player).figures.placed for player in players]
    assert sum(shares) == 40
    assert min(shares) >= 8


def test_what_a_silent_scheduler_should_have_planned_is_anybodys_after_a_second():
    theatre = Theatre(small_cell(nodes=8, gpus=8))
    silent, other = (theatre.scheduler(f"batch-{n}") for n in range(2))
    theatre.settle()
    silent.acts = False
    theatre.submit(*(wanted(f"s{n}", gpus=1) for n in range(20)))
    theatre.settle()
    assert 0 < machine(other).figures.placed < 20
    theatre.play(OVERLAP_SECONDS * 1.01)
    assert machine(other).figures.placed == 20


def test_a_plan_under_way_is_kept_when_everything_is_listed_again():
    theatre = Theatre(small_cell(nodes=1, gpus=2))
    player = theatre.scheduler()
    theatre.submit(wanted("x", gpus=1))
    while not player.requests:
        player.move(player.next_move())
    player.list_again()
    theatre.submit(wanted("y", gpus=1))
    theatre.settle()
    assert theatre.held("default/x")
    assert theatre.held("default/y")
    assert machine(player).figures.conflicts == 0


def test_a_commit_that_landed_before_everything_was_listed_again_counts_once():
    theatre = Theatre(small_cell(nodes=1, gpus=2))
    player = theatre.scheduler()
    theatre.submit(wanted("x", gpus=1))
    while not player.answers:
        player.move(player.next_move())
    player.list_again()
    theatre.settle()
    assert machine(player).figures.placed == 1
    assert machine(player).view.now("default/x") == theatre.placement("default/x")


# ------------------------------------------------------------------------------- records gone wrong

GARBAGE = [
    "slice/default/bad",
    "placement/default/bad",
    "placement/~off/engine/n1/gpu1",
    "node/bad",
    "engine/n0/bad",
    "link/bad",
    "switch/bad",
    "domain/bad",
    "bitstream/bad",
    "tenant/bad",
    "session/scheduler/bad",
    "grant/domain:room/bad",
    "observed/n0/gpu0",
    "reason/default/x",
    "rule/epoch/bad",
    "rule/anything",
    "order/n0/bad",
    "report/n0/bad",
    "stats/scheduler/bad",
    "unheard-of/bad",
]


@pytest.mark.parametrize("key", GARBAGE)
@pytest.mark.parametrize("value", [b"", b"\xff\x00", b"[]", b'{"unheard": 1}', b"null"])
def test_a_record_that_cannot_be_read_stops_nobody(key, value):
    theatre = Theatre(small_cell())
    theatre.forgiven |= {"readable", "exists", "orders", "reports"}
    player = theatre.scheduler()
    theatre.write(Put(key, value))
    theatre.submit(wanted("x", gpus=1))
    theatre.settle()
    assert theatre.held("default/x")
    theatre.write(Put(key, value + b" "), Put("slice/default/other", b"?"))
    player.replace()
    theatre.write(Delete(key))
    theatre.submit(wanted("y", gpus=1))
    theatre.play(5)
    assert theatre.held("default/y")


ODD = [
    {"engines": {}},
    {"engines": {"w": EngineRole(())}},
    {"engines": {"w": EngineRole((EngineChoice("gpu", count=0),))}},
    {"engines": {"w": EngineRole((EngineChoice("gpu", count=-3),))}},
    {"engines": {"w": EngineRole((EngineChoice("gpu", share_millis=2500),))}},
    {"engines": {"w": EngineRole((EngineChoice("gpu", count=10**12),))}},
    {"circuits": (CircuitWish(Shape.FLOW, ()),)},
    {"circuits": (CircuitWish(Shape.RING, ("workers",), lanes=-1),)},
    {"priority": 10**30},
    {"engines": {"w": EngineRole((EngineChoice("gpu", where={"memory": ">= a lot"}),))}},
    {"engines": {"w": EngineRole((EngineChoice("gpu", bitstream="@@"),))}},
    {"together": {"workers": "planet"}},
    {"together": {"nobody": "node"}},
    {"circuits": wanted("o", gpus=2, ring=True).circuits, "engines": {}},
    {"elastic": {"workers": (9, 1)}},
    {"time_limit_seconds": -1.0},
]


@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_a_request_that_makes_no_sense_stops_nobody(odd):
    theatre = Theatre(small_cell())
    theatre.forgiven |= {"readable"}
    theatre.scheduler()
    theatre.submit(wanted("a", gpus=1))
    spec = replace(wanted("odd", gpus=1), **odd)
    record = replace(theatre.slice("default/a"), spec=spec)
    theatre.write(Put("slice/default/odd", encode(record)))
    theatre.submit(wanted("z", gpus=1))
    theatre.play(5)
    assert theatre.held("default/a")
    assert theatre.held("default/z")


def test_a_policy_that_fails_for_one_slice_serves_the_others():
    class Moody(Batch):
        def plan(self, pool, spec, *, seed, avoid):
            if spec.name == "odd":
                return [][1]
            return super().plan(pool, spec, seed=seed, avoid=avoid)

    theatre = Theatre(small_cell())
    theatre.scheduler(policy=Moody())
    theatre.submit(wanted("odd", gpus=3), wanted("x", gpus=1))
    theatre.settle()
    assert theatre.held("default/x")
    waiting = theatre.waiting("default/odd")
    assert waiting.sentence == "policy batch failed: IndexError: list index out of range"


@pytest.mark.parametrize("gpus", [1, 2])
def test_a_claim_that_no_placement_lists_is_avoided_while_other_engines_are_free(gpus):
    theatre = Theatre(small_cell())
    theatre.forgiven.add("claims")
    theatre.scheduler()
    for engine in ("n0/gpu0", "n1/gpu0"):
        theatre.write(Put(f"claim/engine/{engine}", encode(("default/nobody", "a0", ()))))
    theatre.submit(wanted("x", gpus=gpus))
    theatre.play(5)
    assert len(theatre.held("default/x")) == gpus


def test_parts_are_not_given_away_while_a_placement_cannot_be_read_and_the_slice_says_so():
    theatre = Theatre(small_cell())
    theatre.forgiven.add("readable")
    theatre.scheduler()
    theatre.write(Put("placement/default/bad", b"?"))
    theatre.submit(wanted("x", gpus=1, share=500))
    theatre.settle()
    assert theatre.placement("default/x") is None
    waiting = theatre.waiting("default/x")
    assert "placement/default/bad cannot be read" in waiting.sentence
    theatre.write(Delete("placement/default/bad"))
    theatre.settle()
    assert theatre.placement("default/x")


# -------------------------------------------------------------------------------- what is refused


def test_a_slice_too_large_for_one_request_says_so_and_lets_others_pass():
    theatre = Theatre(small_cell(nodes=4, gpus=4, lanes=64), operations_max=8)
    theatre.scheduler()
    theatre.submit(wanted("large", gpus=14), wanted("small", gpus=1))
    theatre.settle()
    waiting = theatre.waiting("default/large")
    assert waiting.reason is Reason.INFEASIBLE
    assert "operations, the store accepts" in waiting.sentence
    assert "--max-txn-ops" in waiting.sentence


def test_a_store_that_is_full_for_a_while_makes_nothing_infeasible():
    theatre = Theatre(small_cell())
    theatre.scheduler()
    moods = Moods(theatre, lambda ts: any("claim/" in str(t.operations) for t in ts))
    theatre.submit(wanted("x", gpus=1))
    theatre.play(3)
    waiting = theatre.waiting("default/x")
    assert waiting.reason is Reason.CONFLICTED
    assert "space exceeded" in waiting.sentence
    assert len(moods.sizes) < 20
    moods.refuse = lambda _: False
    theatre.play(3)
    assert theatre.held("default/x")


def test_one_member_that_the_store_refuses_does_not_keep_its_group_from_being_placed():
    theatre = Theatre(small_cell())
    theatre.scheduler()

    def about_bad(transactions):
        return any("placement/default/bad" in op.key for t in transactions for op in t.operations)

    Moods(theatre, about_bad)
    theatre.submit(wanted("a", gpus=1), wanted("bad", gpus=1), wanted("z", gpus=1))
    theatre.play(5)
    assert theatre.held("default/a")
    assert theatre.held("default/z")
    assert theatre.waiting("default/bad").reason is Reason.CONFLICTED


# ------------------------------------------------------------------------------- what a commit says


def test_every_commit_compares_the_own_session_the_request_and_what_it_takes():
    theatre = Theatre(small_cell(budget=400))
    player = theatre.scheduler()
    theatre.submit(wanted("x", gpus=1, fpgas=1, ring=True), wanted("y", gpus=1, share=500))
    commits: list[Commit] = []
    send = player.theatre_commit

    def record(commit: Commit):
        commits.append(commit)
        return send(commit)

    player.theatre_commit = record  # type: ignore[method-assign]
    theatre.settle()
    proposals = [p for c in commits for p in c.proposals if p.step == "commit"]
    assert {p.identifier for p in proposals} == {"default/x", "default/y"}
    for proposal in proposals:
        compares = {
            c.key if isinstance(c, Seen) else c.prefix: c for c in proposal.transaction.compares
        }
        assert compares[player.session.key] == Seen(
            player.session.key, player.session.fence.revision
        )
        assert keys.slice_(proposal.identifier) in compares
        assert compares[keys.placement(proposal.identifier)].revision == 0  # type: ignore[union-attr]
        assert f"grant/{PURSE}/{player.session.id}" in compares
        for operation in proposal.transaction.operations:
            unit = operation.key.partition("/")[2]
            if operation.key.startswith("claim/engine/"):
                assert compares[operation.key] == Seen(operation.key, 0)
                assert f"claim/node/{unit.split('/')[1]}" in compares
            elif operation.key.startswith("claim/share/"):
                prefix = operation.key.rpartition("/")[0] + "/"
                assert isinstance(compares[prefix], Quiet)


def test_a_machine_that_was_refused_goes_on():
    theatre = Theatre(small_cell())
    player = theatre.scheduler()
    theatre.submit(wanted("x", gpus=1))
    while not player.requests:
        player.move(player.next_move())
    commit = player.requests.popleft()
    player.answers.append((commit, [Refused(StoreRefused("no"))]))
    theatre.play(3)
    assert theatre.held("default/x")
    assert machine(player).figures.refused == 1


def test_figures_count_plans_commits_and_conflicts():
    theatre = Theatre(small_cell(nodes=1, gpus=1))
    player = theatre.scheduler()
    theatre.submit(wanted("x", gpus=1), wanted("y", gpus=1))
    theatre.settle()
    shown = machine(player).figures_now(10.0)
    assert (shown["commits"], shown["conflicts"], shown["placed"], shown["queue"]) == (1, 0, 1, 1)
    assert shown["conflict_fraction"] == 0.0
    assert shown["plans_per_placed"] == 1.0


def test_slices_of_all_kinds_can_share_one_request():
    theatre = Theatre(small_cell())
    theatre.scheduler()
    theatre.submit(
        wanted("whole", gpus=1),
        wanted("part", gpus=1, share=500),
        wanted("other", gpus=1, share=500),
        wanted("host", cpu_millis=1000),
        wanted("loaded", fpgas=1),
    )
    theatre.settle()
    for name in ("whole", "part", "other", "host", "loaded"):
        assert theatre.placement(f"default/{name}"), name
    assert theatre.placed("default/loaded").bitstreams == {"n0/fpga0": f"{SUM}@sha256:{SUM}"}


def test_a_slice_that_was_placed_once_keeps_count_of_its_attempts():
    theatre = Theatre(small_cell())
    theatre.scheduler()
    theatre.submit(wanted("x", gpus=1))
    theatre.wish("default/x", attempts=2)
    theatre.settle()
    placement = theatre.placement("default/x")
    assert isinstance(placement, Placement)
    assert placement.number == 3


def test_a_spec_of_another_policy_is_not_even_looked_at():
    policy = Recording()
    theatre = Theatre(small_cell())
    theatre.scheduler(policy=policy)
    theatre.submit(SliceSpec("x", policy="gavel"))
    theatre.settle()
    assert policy.planned == []


def test_a_request_for_nothing_is_never_placed():
    theatre = Theatre(small_cell())
    theatre.scheduler()
    theatre.controller()
    theatre.submit(SliceSpec("x"))
    theatre.play(5)
    assert theatre.placement("default/x") is None
    waiting = theatre.waiting("default/x")
    assert waiting.reason is Reason.INFEASIBLE
    assert theatre.slice("default/x").attempts == 0


@pytest.mark.parametrize(
    "odd",
    [
        {"hosts": {"workers": HostRole(cpu_millis=-5000)}},
        {"hosts": {"driver": HostRole(memory_bytes=-1, count=1)}},
        {"engines": {"w": EngineRole((EngineChoice("gpu", share_millis=0),))}},
        {"engines": {"w": EngineRole((EngineChoice("gpu", share_millis=-500),))}},
    ],
)
def test_a_request_for_less_than_nothing_is_never_placed(odd):
    theatre = Theatre(small_cell())
    theatre.scheduler()
    theatre.submit(replace(wanted("x", gpus=1), **odd))
    theatre.settle()
    assert theatre.placement("default/x") is None
    assert theatre.waiting("default/x").reason is Reason.INFEASIBLE


def test_the_end_of_a_long_queue_is_reached_however_often_something_is_freed():
    theatre = Theatre(small_cell())

    class Slow(Batch):
        def plan(self, pool, spec, *, seed, avoid):
            theatre.clock.now += 0.01
            return super().plan(pool, spec, seed=seed, avoid=avoid)

    player = theatre.scheduler(policy=Slow(), alone=True)
    theatre.submit(*(wanted(f"w{n:03}", gpus=5, cpu_millis=1 + n) for n in range(300)))
    theatre.submit(wanted("last", gpus=1))
    while not theatre.held("default/last"):
        assert theatre.clock.now < 30
        machine(player)._freed.note()  # somewhere, something that helps none of them
        player.move("send" if player.requests else player.next_move() or "step")


def test_a_process_waits_a_moment_for_the_owner_of_a_more_important_slice():
    theatre = Theatre(small_cell(nodes=1, gpus=1))
    one, two = theatre.scheduler("batch-0"), theatre.scheduler("batch-1")
    theatre.settle()
    one.acts = two.acts = False
    names = [f"s{number}" for number in range(20)]
    theatre.submit(*(wanted(name, gpus=1) for name in names))
    created = {k.rpartition("/")[2]: r.created for k, r in theatre.records("slice/").items()}
    ones = {
        n for n in names if machine(one)._peers.owner(created[n], f"default/{n}") == one.session.id
    }
    mine, theirs = min(ones), next(n for n in names if n not in ones)
    for name in {*names} - {mine, theirs}:
        theatre.wish(f"default/{name}", held=True)
    theatre.wish(f"default/{theirs}", spec=wanted(theirs, gpus=1, priority=9))
    one.acts = True
    theatre.play(YIELD_SECONDS * 0.8)
    assert not theatre.held(f"default/{mine}")
    two.acts = True
    theatre.settle()
    assert theatre.held(f"default/{theirs}")


def test_a_process_does_not_wait_for_an_owner_that_is_silent():
    theatre = Theatre(small_cell(nodes=1, gpus=2))
    one, silent = theatre.scheduler("batch-0"), theatre.scheduler("batch-1")
    theatre.settle()
    silent.acts = False
    theatre.submit(*(wanted(f"s{n}", gpus=1, priority=n) for n in range(20)))
    theatre.play(OVERLAP_SECONDS / 2)
    assert machine(one).figures.placed == 2
