"""What the controller does that no slice asks for: the dead, the old, the unreadable, and who leads."""

from dataclasses import replace

import pytest

from flowos.drivers.step import Verb
from flowos.model.codec import encode
from flowos.model.errors import StoreRefused, TransactionTooLarge
from flowos.model.placement import Placement
from flowos.model.slice import Phase
from flowos.model.transaction import Delete, Put
from flowos.protocol import release
from flowos.runtime.lifecycle import Rules
from tests.runtime.cells import PURSE, wanted
from tests.runtime.stage import GRACE, PLACES, SECONDS, Stage, machine
from tests.runtime.theatre import TTL_SECONDS

# -------------------------------------------------------------------------------------- dead agents


def dead_node() -> Stage:
    stage = Stage(agents="each")
    stage.submit(wanted("a", gpus=2, run_for=60.0, together="node"), wanted("b", fpgas=1))
    stage.until("default/a", Phase.RUNNING)
    stage.until("default/b", Phase.RUNNING)
    (home,) = {engine.partition("/")[0] for engine in stage.held("default/a")}
    stage.home = home  # type: ignore[attr-defined]
    stage.at[home].die()
    stage.play(TTL_SECONDS + 45)
    return stage


def test_what_a_dead_node_holds_is_quarantined_and_its_slices_run_elsewhere():
    stage = dead_node()
    home = stage.home  # type: ignore[attr-defined]
    assert stage.phase("default/a") is Phase.RUNNING
    assert {engine.partition("/")[0] for engine in stage.held("default/a")} != {home}
    quarantines = stage.records(f"placement/~quarantine/{home}/")
    assert f"placement/~quarantine/{home}/out-of-service" in quarantines
    assert f"claim/node/{home}" in stage.records("claim/")
    assert f"claim/engine/{home}/gpu0" in stage.records("claim/")
    assert "pending" in stage.life("default/a")[3:]


def test_a_node_that_returns_is_cleaned_and_used_again():
    stage = dead_node()
    home = stage.home  # type: ignore[attr-defined]
    stage.submit(wanted("c", gpus=4, run_for=5.0))
    stage.play(5)
    assert stage.placement("default/c") is None
    stage.at[home].acts = True
    stage.at[home].enter()
    stage.play(5)
    assert stage.records("placement/~quarantine/") == {}
    assert f"claim/node/{home}" not in stage.records("claim/")
    for name in ("a", "b"):
        stage.wish(f"default/{name}", cancelled=True)
    stage.play_out()
    assert stage.end("default/c").phase is Phase.DONE


@pytest.mark.parametrize("late", [5.0, 12.0, 25.0, 31.0, 35.0, 60.0])
@pytest.mark.parametrize("place", PLACES)
def test_an_agent_that_returns_after_any_time_finds_or_gets_a_clean_place(place, late):
    stage = Stage(agents="each")
    stage.submit(wanted("a", gpus=4, fpgas=2, ring=True, run_for=20.0))
    stage.submit(wanted("b", gpus=1, run_for=1.0))
    stage.until("default/a", Phase.RUNNING)
    stage.at[place].die()
    stage.play(late)
    stage.at[place].acts = True
    stage.at[place].enter()
    stage.play_out()
    assert {stage.end(f"default/{name}").phase for name in "ab"} == {Phase.DONE}


@pytest.mark.parametrize("place", PLACES)
def test_an_agent_that_dies_in_the_middle_of_a_teardown_holds_up_only_its_own_units(place):
    stage = Stage(agents="each", seconds={**SECONDS, Verb.SCRUB: 5.0, Verb.DISCONNECT: 5.0})
    stage.submit(wanted("a", gpus=4, fpgas=2, ring=True))
    stage.until("default/a", Phase.RUNNING)
    stage.wish("default/a", cancelled=True)
    stage.play(1)
    stage.at[place].die()
    stage.play(TTL_SECONDS + 60)
    assert stage.end("default/a").phase is Phase.CANCELLED
    assert stage.records(f"placement/~quarantine/{place}/")
    stage.at[place].acts = True
    stage.at[place].enter()
    stage.play_out()
    stage.play(5)
    assert stage.records("placement/") == {}


def only_reporter_dies() -> Stage:
    """The only place that had reported its part down dies before the others report."""
    slow = {**SECONDS, Verb.SCRUB: 200.0, Verb.DISCONNECT: 0.1}
    stage = Stage(agents="each", seconds=slow)
    stage.submit(wanted("a", gpus=1, fpgas=1, ring=True))
    stage.until("default/a", Phase.RUNNING)
    stage.wish("default/a", cancelled=True)
    stage.until("default/a", Phase.CLEANING)
    stage.at["sw0"].die()
    stage.play(TTL_SECONDS + 60)
    stage.at["sw0"].acts = True
    stage.at["sw0"].enter()
    stage.play_out(600)
    return stage


def test_a_slice_goes_back_to_draining_when_the_only_place_that_had_reported_dies():
    assert only_reporter_dies().life("default/a")[-5:] == [
        "draining", "cleaning", "draining", "cleaning", "cancelled"
    ]  # fmt: skip


def test_nothing_is_repaired_while_many_agents_are_silent_at_once():
    stage = Stage(agents="each")
    stage.submit(wanted("a", gpus=2, run_for=300.0))
    stage.until("default/a", Phase.RUNNING)
    for place in ("n0", "n1", "sw0"):
        stage.at[place].die()
    stage.play(200)
    assert stage.records("placement/~quarantine/") == {}
    for place in ("sw0", "n1"):
        stage.at[place].acts = True
        stage.at[place].enter()
    stage.play(5)
    assert stage.records("placement/~quarantine/n0/")
    assert not stage.records("placement/~quarantine/n1/")


def test_a_dead_agents_node_is_quarantined_by_the_next_leader_too():
    stage = Stage(agents="each")
    stage.submit(wanted("a", gpus=2, run_for=100.0, together="node"))
    stage.until("default/a", Phase.RUNNING)
    (home,) = {engine.partition("/")[0] for engine in stage.held("default/a")}
    stage.at[home].die()
    stage.play(TTL_SECONDS + 1)
    stage.leader.replace()
    stage.play(TTL_SECONDS + 40)
    assert stage.records(f"placement/~quarantine/{home}/")


def test_places_that_left_the_inventory_count_neither_as_dead_nor_as_many():
    stage = Stage(agents="each", nodes=4, gpus=1, fpgas=0)
    gone = ["n3", "sw3", "n2", "sw2"]
    for place in gone:
        stage.at[place].exit()
    stage.write(
        *(Delete(f"{'node' if p[0] == 'n' else 'switch'}/{p}") for p in gone),
        *(Delete(f"engine/{p}/gpu0") for p in gone if p[0] == "n"),
        *(Delete(f"link/{link}") for link in ("n2.gpu0", "n3.gpu0", "trunk2", "trunk3")),
    )
    stage.play(60)
    assert stage.records("placement/") == {}
    stage.submit(wanted("a", gpus=2))
    stage.until("default/a", Phase.RUNNING)
    stage.at["n0"].die()
    stage.play(60)
    assert stage.records("placement/~quarantine/n0/")


# ----------------------------------------------------------------------------------------- retention


def test_ended_slices_are_forgotten_after_their_time():
    stage = Stage(rules=replace(GRACE, ended_seconds=30.0))
    stage.submit(wanted("a", gpus=1, run_for=1.0))
    stage.play_out()
    stage.play(25)
    assert stage.records("slice/")
    stage.play(10)
    assert stage.records("slice/") == {}


def test_more_ended_slices_than_are_kept_are_forgotten_oldest_first():
    stage = Stage(rules=replace(GRACE, ended_max=2))
    for number in range(5):
        stage.submit(wanted(f"s{number}", gpus=1, run_for=1.0))
        stage.play_out()
    stage.play(5)
    assert sorted(stage.records("slice/")) == ["slice/default/s3", "slice/default/s4"]


def test_a_living_slice_is_never_forgotten():
    stage = Stage(rules=replace(GRACE, ended_seconds=0.0, ended_max=0))
    stage.submit(wanted("a", gpus=1), wanted("b", gpus=9))
    stage.play(100)
    assert sorted(stage.records("slice/")) == ["slice/default/a", "slice/default/b"]


SHORT = replace(GRACE, keep_revisions=20, keep_seconds=30.0, compact_seconds=5.0)


def lived(rules: Rules, lives: int = 20, checkpoint: int = 0) -> Stage:
    stage = Stage(rules=rules)
    if checkpoint:
        stage.write(Put("verify/reader", encode(checkpoint)))
    for number in range(lives):
        stage.submit(wanted(f"s{number}", gpus=1, run_for=1.0))
        stage.play(10)
    return stage


def test_the_history_is_compacted_to_what_the_rules_keep():
    stage = lived(SHORT)
    oldest = stage.store.oldest()
    assert 1 < oldest <= stage.store.revision - 20
    # Three slices' lives fit into the thirty seconds that are kept.
    kept = stage.store.revision - oldest
    assert kept < 12 * 5


def test_the_history_of_the_last_minutes_is_kept_however_long_it_is():
    stage = lived(replace(SHORT, keep_seconds=10_000.0))
    assert stage.store.oldest() == 1


def test_the_last_revisions_are_kept_however_old_they_are():
    stage = lived(replace(SHORT, keep_revisions=100_000))
    assert stage.store.oldest() == 1


def test_compaction_never_passes_the_verifiers_checkpoint():
    stage = lived(SHORT, checkpoint=40)
    assert stage.store.oldest() == 40


# ------------------------------------------------------------------------------------------- grants


def test_a_dead_schedulers_grant_is_lowered_to_what_its_slices_use_and_goes_with_them():
    stage = Stage(budget=400)
    stage.batch.exit()
    dead = stage.scheduler("dead", alone=True)
    stage.submit(wanted("a", gpus=1), wanted("b", gpus=2))
    stage.until("default/b", Phase.RUNNING)
    stage.write(Put(f"grant/{PURSE}/{dead.session.id}", b"390"))
    dead.die()
    stage.play(TTL_SECONDS - 1)
    assert stage.grants() == {f"grant/{PURSE}/{dead.session.id}": 390}
    stage.play(5)
    assert stage.grants() == {f"grant/{PURSE}/{dead.session.id}": 300}
    stage.wish("default/b", cancelled=True)
    stage.play(5)
    assert stage.grants() == {f"grant/{PURSE}/{dead.session.id}": 100}
    stage.wish("default/a", cancelled=True)
    stage.play(5)
    assert stage.grants() == {}


def test_a_living_schedulers_grant_is_left_alone():
    stage = Stage(budget=400)
    stage.submit(wanted("a", gpus=1))
    stage.play(100)
    assert sum(stage.grants().values()) == 100


def test_a_commit_of_a_dead_scheduler_that_lands_late_is_still_within_its_grant():
    for moves in range(0, 40, 3):
        stage = Stage(budget=400)
        stage.batch.exit()
        dead = stage.scheduler("dead", alone=True)
        stage.submit(wanted("a", gpus=1), wanted("b", gpus=2))
        while not any(p.step == "commit" for c in dead.requests for p in c.proposals):
            dead.move(dead.next_move())
        dead.die(requests_land_late=True)
        stage.play(TTL_SECONDS - 0.5)
        for _ in range(moves):
            if stage.leader.next_move():
                stage.leader.move(stage.leader.next_move())
        for commit in stage.late:
            stage.store.commit([proposal.transaction for proposal in commit.proposals])
        stage.scheduler("new", alone=True)
        stage.play(20)
        stage.check()
        assert stage.phase("default/a") is Phase.RUNNING


# ------------------------------------------------------------------------------------------ leaders


def test_of_two_controllers_one_acts_and_the_other_takes_over_when_it_dies():
    stage = Stage()
    second = stage.controller("controller-1", GRACE)
    stage.submit(wanted("a", gpus=1, run_for=1.0))
    stage.play_out()
    assert not any(told.split(": ")[0].endswith("controller-1") for told in stage.trace[3:])
    stage.leader.die()
    stage.submit(wanted("b", gpus=1, run_for=1.0))
    stage.play(TTL_SECONDS - 1)
    assert not stage.slice("default/b").end
    stage.play_out(30)
    assert any("controller-1: free default/b" in told for told in stage.trace)
    assert second.acts


def test_a_controller_that_stands_by_remembers_nothing_of_what_is_over():
    stage = Stage(rules=replace(GRACE, ended_seconds=1.0))
    second = stage.controller("controller-1", GRACE)
    for number in range(10):
        stage.submit(wanted(f"s{number}", gpus=1, run_for=0.1))
        stage.play(5)
    assert stage.records("slice/") == {}
    assert len(machine(second)._due) < 5


def test_a_leader_that_wakes_up_after_its_lease_is_over_changes_nothing():
    stage = Stage()
    stage.submit(wanted("a", gpus=1, run_for=5.0))
    stage.until("default/a", Phase.RUNNING)
    asleep = stage.leader
    asleep.acts = False
    stage.play(10)
    asleep.session.lease.revoke()
    stage.controller("controller-1", GRACE)
    stage.play_out()
    revision = stage.store.revision
    asleep.acts = True
    stage.play(5)
    assert stage.store.revision == revision


# ---------------------------------------------------------------------------------- records gone wrong


@pytest.mark.parametrize(
    "key",
    [
        "slice/default/bad",
        "placement/default/bad",
        "placement/~off/engine/n1/fpga0",
        "placement/~drain/engine/n1/fpga0",
        "placement/~quarantine/n1/a1",
        "placement/~",
        "placement/",
        "order/n0/bad",
        "report/n0/bad",
        "report/x",
        "session/agent/n0/x",
        "session/controller/bad",
        "grant/domain:room/bad",
        "grant/x",
        "node/bad",
        "engine/bad",
        "link/bad",
        "verify/bad",
    ],
)
def test_a_record_that_cannot_be_read_stops_no_controller(key):
    stage = Stage()
    stage.forgiven |= {"readable", "orders", "reports", "exists"}
    stage.write(Put(key, b"?"))
    stage.submit(wanted("a", gpus=1, run_for=1.0))
    assert stage.play(20, lambda: stage.slice("default/a").end is not None)
    stage.leader.replace()
    stage.submit(wanted("b", gpus=1, run_for=1.0))
    assert stage.play(30, lambda: stage.slice("default/b").end is not None)


def test_a_placement_of_what_does_not_exist_stops_no_controller():
    stage = Stage()
    stage.forgiven |= {"readable", "claims", "exists", "orders", "up", "uids", "freed", "phases"}
    stage.forgiven |= {"committed", "attempts"}
    for number, unit in enumerate(("engine/n9/gpu0", "lane/nowhere/fwd/0", "aggregator/sw9/0")):
        strange = Placement(uid=1, attempt=f"x{number}", held={unit: ()}, ordered=("n9",))
        stage.write(Put(f"placement/default/strange{number}", encode(strange)))
    stage.submit(wanted("a", gpus=1, run_for=1.0))
    assert stage.play(20, lambda: stage.slice("default/a").end is not None)
    assert stage.end("default/a").phase is Phase.DONE


def test_an_engine_removed_while_it_is_held_stops_no_controller():
    stage = Stage()
    stage.forgiven |= {"exists", "orders", "freed", "up"}
    stage.submit(wanted("a", gpus=4, run_for=3.0), wanted("b", fpgas=1, run_for=1.0))
    stage.until("default/a", Phase.RUNNING)
    stage.write(Delete("engine/n0/gpu0"), Delete("link/n0.gpu0"))
    assert stage.play(60, lambda: stage.slice("default/b").end is not None)
    assert stage.end("default/b").phase is Phase.DONE


def test_one_step_that_the_store_refuses_does_not_keep_others_from_being_taken():
    stage = Stage()
    commit = stage.store.commit

    def refuse(transactions, **more):
        keys_ = [op.key for t in transactions for op in t.operations]
        if "placement/default/bad" in keys_ and "slice/default/bad" in keys_:
            raise TransactionTooLarge(999, 128)
        return commit(transactions, **more)

    stage.store.commit = refuse  # type: ignore[method-assign]
    stage.submit(*(wanted(name, gpus=1, run_for=1.0) for name in ("a", "bad", "z")))
    assert stage.play(30, lambda: all(stage.slice(f"default/{n}").end for n in ("a", "z")))
    refused = sum("refused" in told for told in stage.trace)
    assert refused < 20
    stage.store.commit = commit  # type: ignore[method-assign]
    stage.play_out()


def test_a_store_that_refuses_everything_for_a_while_is_asked_now_and_then():
    stage = Stage()
    stage.submit(wanted("a", gpus=1, run_for=1.0))
    stage.until("default/a", Phase.RUNNING)
    commit = stage.store.commit
    asked = []

    def refuse(transactions, **more):
        asked.append(stage.clock.now)
        raise StoreRefused("etcdserver: mvcc: database space exceeded")

    stage.store.commit = refuse  # type: ignore[method-assign]
    stage.play(60)
    assert 1 < len(asked) < 200
    stage.store.commit = commit  # type: ignore[method-assign]
    stage.play_out(30)


def test_one_record_that_nobody_thought_of_stops_nothing_but_itself(monkeypatch):
    free = release.free

    def moody(view, identifier, **more):
        if identifier == "default/bad":
            return [][1]
        return free(view, identifier, **more)

    monkeypatch.setattr(release, "free", moody)
    stage = Stage()
    stage.submit(*(wanted(name, gpus=1, run_for=1.0) for name in ("a", "bad", "z")))
    stage.play(20)
    assert {stage.end(f"default/{name}").phase for name in "az"} == {Phase.DONE}
    monkeypatch.undo()
    stage.play_out(20)
    assert stage.end("default/bad").phase is Phase.DONE
