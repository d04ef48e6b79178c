"""What does a program get that embeds a scheduler, beside rivals and with answers that get lost?"""

import threading
from dataclasses import replace

import pytest

from flowos.model.codec import decode, encode
from flowos.model.errors import (
    DuplicateName,
    SessionLost,
    StillContended,
    StoreUnreachable,
)
from flowos.model.placement import Ending, Order, Placement, Unplaceable
from flowos.model.slice import Phase, Reason, Run, Slice, SliceSpec
from flowos.model.transaction import Change, Changes, Committed, Delete, Put, Transaction
from flowos.runtime.client import CellClient
from flowos.runtime.clock import SystemClock
from flowos.runtime.loading import load_cell_into
from flowos.verify.history import verify_history
from flowos_schedulers.batch import Batch
from flowos_store.memory import MemoryStore
from tests.runtime.cells import PURSE, small_cell, wanted
from tests.runtime.lossy import Fate, LossyStore
from tests.runtime.threads import living_cell, until


class Embedding:
    """A cell, and programs with schedulers of their own."""

    def __init__(self, store, **cell):
        self.store = store
        load_cell_into(store, small_cell(**cell))
        self.opened = []

    def scheduler(self, store=None, **more):
        client = CellClient(store or self.store, SystemClock())
        found = client.scheduler(Batch(), **more)
        self.opened.append(found)
        return found

    def slices(self):
        records = self.store.read(["slice/"]).records
        return {r.key.partition("/")[2]: decode(Slice, r.value) for r in records}

    def placements(self):
        records = self.store.read(["placement/"]).records
        return {r.key.partition("/")[2]: decode(Placement, r.value) for r in records}

    def close(self):
        for scheduler in self.opened:
            scheduler.close()
        assert verify_history(self.store).violations == ()


@pytest.fixture
def cell(store):
    embedding = Embedding(store)
    yield embedding
    embedding.close()


@pytest.fixture
def little(memory):
    embedding = Embedding(memory)
    yield embedding
    embedding.close()


def test_slices_and_placements_are_written_in_one_step(cell):
    scheduler = cell.scheduler()
    one, two = scheduler.place([wanted("a", gpus=2, ring=True), wanted("b", gpus=1, share=500)])
    assert isinstance(one, Placement)
    assert isinstance(two, Placement)
    assert sorted(cell.placements()) == sorted(cell.slices()) == ["default/a", "default/b"]
    assert cell.placements()["default/a"] == one
    created = {r.created for r in cell.store.read(["slice/", "placement/"]).records}
    assert len(created) == 1


def test_each_slice_is_planned_on_what_those_before_it_left(cell):
    placed = cell.scheduler().place([wanted(f"s{n}", gpus=1) for n in range(6)])
    engines = [e for p in placed if isinstance(p, Placement) for e in p.engines["workers"]]
    assert len(set(engines)) == 4
    reasons = [p.reason for p in placed if isinstance(p, Unplaceable)]
    assert reasons == [Reason.WAITING_FOR_ENGINES] * 2
    assert sorted(cell.slices()) == [f"default/s{n}" for n in range(4)]


def test_a_request_for_nothing_is_not_placed(little):
    (found,) = little.scheduler().place([SliceSpec("x")])
    assert isinstance(found, Unplaceable)
    assert found.reason is Reason.INFEASIBLE
    assert little.slices() == {}


def test_many_more_slices_than_rounds_are_no_contention(memory):
    embedding = Embedding(memory, nodes=8, gpus=8, cpu_millis=10_000)
    specs = [wanted(f"s{n}", cpu_millis=10) for n in range(1000)]
    placed = embedding.scheduler().place(specs)
    assert all(isinstance(p, Placement) for p in placed)
    embedding.close()


def test_slices_before_a_name_that_is_taken_are_placed_and_nothing_stays_taken_in_vain(little):
    scheduler = little.scheduler()
    scheduler.place([wanted("a", gpus=1)])
    with pytest.raises(DuplicateName, match="default/a exists"):
        scheduler.place([wanted("b", gpus=1), wanted("a", gpus=1), wanted("c", gpus=1)])
    assert sorted(little.placements()) == ["default/a", "default/b"]
    (found,) = scheduler.place([wanted("d", gpus=2)])
    assert isinstance(found, Placement)


def test_a_name_that_stands_twice_in_one_call_is_a_duplicate(little):
    scheduler = little.scheduler()
    with pytest.raises(DuplicateName):
        scheduler.place([wanted("a", gpus=1), wanted("a", gpus=1)])
    assert sorted(little.placements()) == ["default/a"]


@pytest.mark.parametrize("fate", list(Fate))
@pytest.mark.parametrize("follow", [True, False])
def test_a_lost_answer_is_decided_before_place_returns(cell, fate, follow):
    lossy = LossyStore(cell.store)
    scheduler = cell.scheduler(lossy, follow=follow)
    lossy.lose_next(fate, "placement/")
    placed = scheduler.place([wanted("a", gpus=1), wanted("b", gpus=1)])
    assert lossy.lost
    assert [cell.placements()[f"default/{name}"] for name in "ab"] == placed
    assert scheduler.figures.placed == 2
    assert isinstance(scheduler.place([wanted("c", gpus=2)])[0], Placement)


@pytest.mark.parametrize("follow", [True, False])
def test_a_slice_that_ended_before_its_lost_answer_was_decided_was_placed(store, follow):
    with living_cell(store) as living:
        living.agent()
        living.controller()
        lossy = LossyStore(store)
        scheduler = CellClient(lossy, SystemClock()).scheduler(Batch(), follow=follow)

        def lose(transactions):
            if not any(
                op.key == "placement/default/a" for t in transactions for op in t.operations
            ):
                return None
            lossy.lose = lambda _: None
            lossy.inner.commit(transactions)
            until(lambda: living.slice("a").end, "it has ended")
            return Fate.DROPPED

        lossy.lose = lose
        placed = scheduler.place([replace(wanted("a", gpus=1), run=Run(for_seconds=0.01))])
        assert lossy.lost
        assert isinstance(placed[0], Placement)
        assert living.slice("a").attempts == 1
        free = scheduler.place([wanted("b", gpus=4)])
        assert isinstance(free[0], Placement)
        scheduler.close()


def test_a_lost_answer_about_a_grant_is_decided_too(memory):
    embedding = Embedding(memory, budget=400)
    for fate in Fate:
        lossy = LossyStore(memory)
        scheduler = embedding.scheduler(lossy)
        lossy.lose_next(fate, "grant/")
        (placed,) = scheduler.place([wanted(f"s{fate.name.lower()}", gpus=1)])
        assert isinstance(placed, Placement)
        assert lossy.lost
    embedding.close()


def test_a_store_out_of_reach_is_said_and_nothing_stays_taken_in_vain(little):
    lossy = LossyStore(little.store)
    scheduler = little.scheduler(lossy)
    lossy.reachable = False
    with pytest.raises(StoreUnreachable):
        scheduler.place([wanted("a", gpus=4)])
    lossy.reachable = True
    (placed,) = scheduler.place([wanted("b", gpus=4)])
    assert isinstance(placed, Placement)


def test_a_session_that_is_over_is_said_to_be(cell):
    scheduler = cell.scheduler()
    scheduler.session._lease.revoke()
    with pytest.raises(SessionLost, match="open a new scheduler"):
        scheduler.place([wanted("a", gpus=1)])
    assert cell.slices() == {}


def test_a_slice_too_large_for_one_request_is_told_and_others_are_placed():
    store = MemoryStore(SystemClock(), operations_max=200)
    embedding = Embedding(store, nodes=4, gpus=4, lanes=64)
    store._operations_max = 8
    large, small = embedding.scheduler().place([wanted("large", gpus=14), wanted("s", gpus=1)])
    assert isinstance(large, Unplaceable)
    assert large.reason is Reason.INFEASIBLE
    assert "--max-txn-ops" in large.sentence
    assert isinstance(small, Placement)
    embedding.close()


def test_watts_are_taken_from_a_grant_of_its_own(memory):
    embedding = Embedding(memory, budget=250)
    scheduler = embedding.scheduler()
    one, two, three = scheduler.place([wanted(f"s{n}", gpus=1) for n in range(3)])
    assert isinstance(one, Placement)
    assert isinstance(two, Placement)
    assert isinstance(three, Unplaceable)
    assert three.reason is Reason.WAITING_FOR_POWER
    (grant,) = memory.read([f"grant/{PURSE}/"]).records
    assert grant.key.endswith(scheduler.session.id)
    assert 200 <= int(grant.value) <= 250
    embedding.close()


def test_what_others_give_back_is_seen_at_the_next_call(cell):
    scheduler, rival = cell.scheduler(), cell.scheduler()
    rival.place([wanted("a", gpus=4)])
    (found,) = scheduler.place([wanted("b", gpus=1)])
    assert isinstance(found, Unplaceable)
    placement = cell.placements()["default/a"]
    gone = [Delete("placement/default/a"), Delete("slice/default/a")]
    gone += [Delete(f"claim/{unit}") for unit in placement.held]
    gone += [Delete(f"order/{place}/{placement.attempt}") for place in placement.ordered]
    cell.store.commit([Transaction((), tuple(gone))])
    cell.close = scheduler.close  # the history is not lawful: nothing was cleaned
    four = [wanted("c", gpus=4)]
    until(lambda: isinstance(scheduler.place(four)[0], Placement), "the engines are seen as free")


def test_rivals_in_threads_place_as_many_as_there_is_room_for_and_none_twice(store):
    embedding = Embedding(store, nodes=3, gpus=4)
    placed: list[Placement] = []
    errors: list[BaseException] = []

    def work(name: str) -> None:
        try:
            with CellClient(store, SystemClock()).scheduler(Batch()) as scheduler:
                for number in range(8):
                    (found,) = scheduler.place([wanted(f"{name}{number}", gpus=1)])
                    if isinstance(found, Placement):
                        placed.append(found)
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=work, args=(name,)) for name in ("a", "b", "c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert errors == []
    engines = [e for p in placed for e in p.engines["workers"]]
    assert sorted(set(engines)) == sorted(engines)
    assert len(engines) == 12
    embedding.close()


def test_a_claim_that_is_never_explained_ends_in_still_contended(little):
    scheduler = little.scheduler()
    for engine in ("n0/gpu0", "n0/gpu1", "n1/gpu0", "n1/gpu1"):
        little.store.commit(
            [Transaction((), (Put(f"claim/engine/{engine}", b'["default/x","a0",[]]'),))]
        )
    with pytest.raises(StillContended, match="1 of 1 slices lost 50 races"):
        scheduler.place([wanted("a", gpus=1)])
    little.close = scheduler.close


# ------------------------------------------------------------------------------------ giving back


def orders(store) -> dict[str, Order]:
    return {r.key: decode(Order, r.value) for r in store.read(["order/"]).records}


def test_a_slice_is_given_back_in_one_step_of_its_own_program(cell):
    scheduler = cell.scheduler()
    (placed,) = scheduler.place([wanted("a", gpus=2, ring=True)])
    assert scheduler.release(["default/a"]) == [True]
    given = cell.placements()["default/a"]
    assert given.releasing == placed.held
    assert given.held == {}
    assert given.ending == Ending(Phase.DONE, message="given back by its program")
    assert all(order.units == () for order in orders(cell.store).values())
    written = {r.modified for r in cell.store.read(["placement/", "order/"]).records}
    assert len(written) == 1


def test_what_is_given_back_is_free_only_when_it_is_clean(store):
    with living_cell(store) as living:
        scheduler = CellClient(store, SystemClock()).scheduler(Batch())
        scheduler.place([wanted("a", gpus=4)])
        scheduler.release(["default/a"])
        (refused,) = scheduler.place([wanted("b", gpus=1)])
        assert isinstance(refused, Unplaceable)
        living.agent()
        living.controller()
        until(
            lambda: isinstance(scheduler.place([wanted("b", gpus=4)])[0], Placement), "it is clean"
        )
        end = living.slice("a").end
        assert end is not None
        assert end.phase is Phase.DONE
        scheduler.close()


def test_slices_are_placed_and_given_back_by_one_request(cell):
    lossy = LossyStore(cell.store)
    scheduler = cell.scheduler(lossy)
    scheduler.place([wanted("a", gpus=1), wanted("b", gpus=1)])
    before = lossy.commits
    (placed,) = scheduler.place([wanted("c", gpus=2)], release=["default/a", "default/b"])
    assert lossy.commits == before + 1
    assert isinstance(placed, Placement)
    found = cell.placements()
    assert [bool(found[f"default/{name}"].ending) for name in "abc"] == [True, True, False]


def test_what_cannot_be_placed_keeps_nothing_from_being_given_back(cell):
    scheduler = cell.scheduler()
    scheduler.place([wanted("a", gpus=4)])
    (found,) = scheduler.place([wanted("b", gpus=1)], release=["default/a"])
    assert isinstance(found, Unplaceable)
    assert cell.placements()["default/a"].ending


def test_more_slices_than_one_request_takes_are_given_back(memory):
    embedding = Embedding(memory, nodes=8, gpus=8)
    scheduler = embedding.scheduler()
    names = [f"s{n}" for n in range(60)]
    scheduler.place([wanted(name, gpus=1) for name in names])
    assert scheduler.release([f"default/{name}" for name in names]) == [True] * 60
    assert all(p.ending for p in embedding.placements().values())
    embedding.close()


def test_what_holds_nothing_is_not_given_back(cell):
    scheduler = cell.scheduler()
    scheduler.place([wanted("a", gpus=1)])
    before = cell.store.read([""]).revision
    names = ["default/nobody", "~off/engine/n0/gpu0"]
    assert scheduler.release(names) == [False, False]
    assert cell.store.read([""]).revision == before
    assert scheduler.release(["default/a", "default/nobody", "default/a"]) == [True, False, True]


def test_giving_back_twice_is_once(cell):
    scheduler = cell.scheduler()
    scheduler.place([wanted("a", gpus=1)])
    assert scheduler.release(["default/a"]) == [True]
    revision = cell.store.read([""]).revision
    assert scheduler.release(["default/a"]) == [True]
    assert cell.store.read([""]).revision == revision


def test_a_slice_can_be_put_into_the_queue_again(store):
    with living_cell(store) as living:
        living.controller()
        living.agent()
        scheduler = CellClient(store, SystemClock()).scheduler(Batch())
        scheduler.place([wanted("a", gpus=1)])
        scheduler.release(["default/a"], ending=Ending(Phase.PENDING, message="not now"))
        until(lambda: not living.placed("a"), "it is clean")
        assert living.slice("a").end is None
        living.scheduler()
        until(lambda: living.placed("a"), "it is placed again")
        scheduler._catch_up(store.read(["cell/"]).revision)
        assert scheduler.release(["default/a"]) == [True]
        until(lambda: living.slice("a").end, "it is over")
        scheduler.close()


def test_who_was_cancelled_meanwhile_ends_as_cancelled(cell):
    scheduler = cell.scheduler()
    scheduler.place([wanted("a", gpus=1)])
    CellClient(cell.store, SystemClock()).cancel("default/a")
    assert scheduler.release(["default/a"]) == [True]
    ending = cell.placements()["default/a"].ending
    assert ending is not None
    assert ending.phase is Phase.CANCELLED


def test_what_a_controller_wrote_meanwhile_costs_one_more_try(cell):
    lossy = LossyStore(cell.store)
    scheduler = cell.scheduler(lossy, follow=False)
    scheduler.place([wanted("a", gpus=1)])
    rewrite(cell.store, "default/a", why="changed")
    before = lossy.commits, lossy.reads
    assert scheduler.release(["default/a"]) == [True]
    assert (lossy.commits, lossy.reads) == (before[0] + 2, before[1])
    found = cell.placements()["default/a"]
    assert found.why == "changed"
    assert found.ending


def test_what_a_conflict_tells_of_one_slice_says_nothing_of_others(cell):
    """The guards of shared things are as old as what the watch has brought."""
    scheduler = cell.scheduler(follow=False)
    scheduler.place([wanted("a", gpus=1), wanted("b", gpus=1)])
    known = scheduler.view.placed_at
    rewrite(cell.store, "default/b", why="changed")
    rewrite(cell.store, "default/a", why="changed")
    scheduler.release(["default/a"])
    assert scheduler.view.placed_at == known


def rewrite(store, name: str, **what) -> None:
    """Change a placement as a controller does."""
    (record,) = store.read([f"placement/{name}"]).records
    changed = replace(decode(Placement, record.value), **what)
    store.commit([Transaction((), (Put(record.key, encode(changed)),))])


def test_a_slice_that_is_freed_meanwhile_counts_as_given_back(cell):
    scheduler = cell.scheduler(follow=False)
    (placed,) = scheduler.place([wanted("a", gpus=1)])
    gone = [Delete("placement/default/a"), Delete("slice/default/a")]
    gone += [Delete(f"claim/{unit}") for unit in placed.held]
    gone += [Delete(f"order/{place}/{placed.attempt}") for place in placed.ordered]
    cell.store.commit([Transaction((), tuple(gone))])
    cell.close = scheduler.close  # the history is not lawful: nothing was cleaned
    assert scheduler.release(["default/a"]) == [True]


def test_a_slice_of_another_scheduler_can_be_given_back(cell):
    mine, other = cell.scheduler(), cell.scheduler()
    other.place([wanted("a", gpus=1)])
    until(lambda: mine.release(["default/a"]) == [True], "the placement is seen")
    assert cell.placements()["default/a"].ending


@pytest.mark.parametrize("fate", list(Fate))
@pytest.mark.parametrize("follow", [True, False])
def test_a_lost_answer_is_decided_before_release_returns(cell, fate, follow):
    lossy = LossyStore(cell.store)
    scheduler = cell.scheduler(lossy, follow=follow)
    scheduler.place([wanted("a", gpus=1), wanted("b", gpus=1)])
    lossy.lose_next(fate, "placement/")
    assert scheduler.release(["default/a", "default/b"]) == [True, True]
    assert lossy.lost
    assert all(p.ending for p in cell.placements().values())
    assert not any(isinstance(late, Committed) for late in lossy.late_outcomes)


def test_a_session_that_is_over_gives_nothing_back(cell):
    scheduler = cell.scheduler()
    scheduler.place([wanted("a", gpus=1)])
    scheduler.session._lease.revoke()
    with pytest.raises(SessionLost, match="open a new scheduler"):
        scheduler.release(["default/a"])
    assert cell.placements()["default/a"].ending is None


# ----------------------------------------------------------------------------------- its own mirror


def test_its_own_commits_are_not_read_again_when_they_come_back(cell):
    scheduler = cell.scheduler()
    scheduler.place([wanted("a", gpus=1)])
    known = scheduler.view.placements["default/a"]
    echo = Change("placement/default/a", b"not even JSON", known.created, known.modified)
    scheduler._take(Changes([echo]))
    assert scheduler.view.placements["default/a"] is known
    assert scheduler.view.unreadable == {}
    assert scheduler.view.placed_at == known.modified


def test_a_name_that_somebody_else_has_taken_is_a_duplicate(cell):
    scheduler = cell.scheduler()
    CellClient(cell.store, SystemClock()).submit([wanted("a", gpus=1)])
    with pytest.raises(DuplicateName, match="default/a exists"):
        scheduler.place([wanted("a", gpus=1)])
    (placed,) = scheduler.place([wanted("b", gpus=4)])
    assert isinstance(placed, Placement)


def test_the_slices_of_others_cost_nothing(cell):
    scheduler = cell.scheduler()
    CellClient(cell.store, SystemClock()).submit([wanted("a", gpus=1)])
    scheduler.place([wanted("b", gpus=1)])
    scheduler._catch_up(scheduler._newest)
    assert sorted(scheduler.view.slices) == ["default/b"]


def test_what_has_ended_is_forgotten(store):
    with living_cell(store) as living:
        living.controller()
        living.agent()
        scheduler = CellClient(store, SystemClock()).scheduler(Batch())
        scheduler.place([wanted("a", gpus=1)])
        scheduler.release(["default/a"])
        until(lambda: living.slice("a").end, "it is over")
        scheduler._catch_up(store.read(["cell/"]).revision)
        assert scheduler.view.slices == {}
        scheduler.close()


def test_closing_ends_the_session_and_leaves_the_slices(cell):
    with cell.scheduler() as scheduler:
        scheduler.place([wanted("a", gpus=1)])
    assert cell.store.read(["session/"]).records == []
    assert sorted(cell.placements()) == ["default/a"]
