"""What do a user's calls cost in round trips, and are they right when others are faster?"""

import threading
import time
from dataclasses import replace

import pytest

from flowos.documents.totals import totals
from flowos.model import keys
from flowos.model.cell import Tenant
from flowos.model.codec import decode, encode
from flowos.model.errors import (
    DuplicateName,
    NeverPlaceable,
    NotInTime,
    OutcomeUnknown,
    SpecError,
    StoreUnreachable,
    UnknownName,
)
from flowos.model.slice import CircuitWish, Data, HostRole, Shape, Slice
from flowos.model.transaction import Delete, Put, Transaction
from flowos.runtime.client import CellClient
from flowos.runtime.clock import SystemClock
from flowos.runtime.loading import load_cell_into
from flowos.runtime.looking import look
from tests.runtime.cells import small_cell, wanted
from tests.runtime.lossy import Fate, LossyStore
from tests.runtime.threads import living_cell, until


@pytest.fixture
def counted(store):
    """A store with a small cell in it, that counts what is asked of it."""
    load_cell_into(store, small_cell())
    return LossyStore(store)


@pytest.fixture
def client(counted):
    return CellClient(counted, SystemClock())


def asked(store: LossyStore) -> int:
    """How many requests there were so far."""
    return store.commits + store.reads


def slices(store) -> dict[str, Slice]:
    records = store.inner.read(["slice/"]).records
    return {r.key.partition("/")[2]: decode(Slice, r.value) for r in records}


def write(store, *operations) -> None:
    store.inner.commit([Transaction((), operations)])


# ------------------------------------------------------------------------------------ single keys


def test_a_look_tells_of_the_very_keys_and_writes_nothing(store):
    store.commit([Transaction((), (Put("a", b"1"), Put("ab", b"2")))])
    before = store.read(["a"])
    told = look(store, ["a", "b"])
    assert told.revision == before.revision
    assert told.records["a"] == before.records[0]
    assert told.records["b"] is None
    assert set(told.records) == {"a", "b"}
    assert store.read(["a"]).revision == before.revision


def test_a_look_at_many_keys_is_within_the_limit_of_any_etcd(store):
    names = [f"k{number:03}" for number in range(250)]
    for start in range(0, 250, 50):
        part = names[start : start + 50]
        store.commit([Transaction((), tuple(Put(name, name.encode()) for name in part))])
    told = look(store, names)
    assert {k: r.value for k, r in told.records.items() if r} == {n: n.encode() for n in names}


def test_a_look_whose_answer_is_lost_has_read_nothing(memory):
    lossy = LossyStore(memory)
    lossy.lose = lambda _: Fate.DROPPED
    with pytest.raises(StoreUnreachable):
        look(lossy, ["a"])


# ------------------------------------------------------------------------------------- submitting


def test_a_submission_is_one_round_trip_once_the_cell_is_known(client, counted):
    client.submit([wanted("a", gpus=1)])
    before = asked(counted)
    client.submit([wanted("b", gpus=1), wanted("c", gpus=1)])
    assert asked(counted) == before + 1
    assert sorted(slices(counted)) == ["default/a", "default/b", "default/c"]


def test_a_submission_returns_the_revision_at_which_it_is_there(client, counted):
    revision = client.submit([wanted("a", gpus=1)])
    (record,) = counted.inner.read(["slice/"]).records
    assert record.created == revision


def test_a_tenant_that_was_changed_meanwhile_costs_one_more_try(client, counted):
    client.submit([wanted("a", gpus=1)])
    write(counted, Put("tenant/default", encode(Tenant("default"))))
    client.submit([wanted("b", gpus=1)])
    assert sorted(slices(counted)) == ["default/a", "default/b"]


def test_a_tenant_that_is_gone_is_noticed(client, counted):
    client.submit([wanted("a", gpus=1)])
    write(counted, Delete("tenant/default"))
    with pytest.raises(UnknownName, match="tenant default"):
        client.submit([wanted("b", gpus=1)])
    assert sorted(slices(counted)) == ["default/a"]


def test_a_cell_that_has_shrunk_since_refuses_what_it_can_never_hold(client, counted):
    client.submit([wanted("a", gpus=4)])
    write(counted, Put(keys.TOTALS, encode(totals(small_cell(nodes=1)))))
    with pytest.raises(NeverPlaceable, match="slice b"):
        client.submit([wanted("b", gpus=4)])
    assert sorted(slices(counted)) == ["default/a"]


def test_a_cell_that_has_grown_since_takes_what_it_can_hold_now(client, counted):
    with pytest.raises(NeverPlaceable):
        client.submit([wanted("a", gpus=6)])
    write(counted, Put(keys.TOTALS, encode(totals(small_cell(nodes=3)))))
    client.submit([wanted("a", gpus=6)])
    assert sorted(slices(counted)) == ["default/a"]


def test_a_cell_that_is_gone_is_noticed(client, counted):
    client.submit([wanted("a", gpus=1)])
    write(counted, Delete(keys.TOTALS))
    with pytest.raises(UnknownName, match="holds no cell"):
        client.submit([wanted("b", gpus=1)])


@pytest.mark.parametrize(("at", "what"), [("n9", "node n9"), ("n0/nvme7", "engine n0/nvme7")])
def test_a_place_that_is_named_and_not_there_is_refused(client, counted, at, what):
    spec = wanted("a", gpus=1)
    for named in (
        replace(spec, data=(Data(at, 1, "w"),)),
        replace(spec, hosts={"h": HostRole(cpu_millis=1, count=1, at=at)}),
    ):
        with pytest.raises(UnknownName, match=f"no {what}"):
            client.submit([named])
    assert slices(counted) == {}
    client.submit([replace(spec, data=(Data("n0/gpu0", 1, "w"),))])
    assert set(slices(counted)) == {"default/a"}


def test_a_name_that_is_taken_is_said_and_nothing_of_the_submission_is_there(client, counted):
    client.submit([wanted("a", gpus=1)])
    with pytest.raises(DuplicateName, match="default/a"):
        client.submit([wanted("b", gpus=1), wanted("a", gpus=1)])
    assert sorted(slices(counted)) == ["default/a"]


def test_a_check_refuses_what_a_submission_refuses_and_writes_nothing(client, counted):
    client.check([wanted("a", gpus=1)])
    assert slices(counted) == {}
    client.submit([wanted("a", gpus=1)])
    with pytest.raises(DuplicateName):
        client.check([wanted("a", gpus=1)])
    absurd = replace(wanted("b", gpus=2), circuits=(CircuitWish(Shape.RING, ("w",), -1),))
    for ask in (client.check, client.submit):
        with pytest.raises(SpecError, match="-1 lanes"):
            ask([absurd])


@pytest.mark.parametrize(("fate", "there"), [(Fate.LANDED, True), (Fate.DROPPED, False)])
def test_a_submission_whose_answer_is_lost_is_looked_up(client, counted, fate, there):
    counted.lose_next(fate, "slice/")
    if there:
        assert client.submit([wanted("a", gpus=1)]) > 0
    else:
        with pytest.raises(OutcomeUnknown, match="flowos slice show a"):
            client.submit([wanted("a", gpus=1)])


# ----------------------------------------------------------------------------------------- wishes


def test_ending_a_slice_that_was_submitted_here_is_one_round_trip(client, counted):
    client.submit([wanted("a", gpus=1)])
    before = asked(counted)
    assert client.cancel("default/a")
    assert asked(counted) == before + 1
    assert slices(counted)["default/a"].cancelled


def test_a_wish_is_added_to_what_others_wished_meanwhile(client, counted):
    client.submit([wanted("a", gpus=1)])
    CellClient(counted, SystemClock()).hold("default/a")
    assert client.cancel("default/a")
    found = slices(counted)["default/a"]
    assert found.held
    assert found.cancelled


def test_a_wish_that_changes_nothing_here_is_checked_against_what_others_wished(client, counted):
    client.submit([wanted("a", gpus=1)])
    CellClient(counted, SystemClock()).hold("default/a")
    assert client.unhold("default/a")
    assert not slices(counted)["default/a"].held


def test_a_slice_that_was_forgotten_cannot_be_cancelled(client, counted):
    client.submit([wanted("a", gpus=1)])
    write(counted, Delete("slice/default/a"))
    with pytest.raises(UnknownName, match="default/a"):
        client.cancel("default/a")


# ---------------------------------------------------------------------------------------- waiting


def test_a_wait_ends_with_the_slice_placed_running_and_done(store):
    with living_cell(store) as cell:
        cell.all()
        client = CellClient(store, SystemClock())
        spec = wanted("a", gpus=1, run_for=0.2)
        client.submit([spec])
        view = client.wait(spec.id, "allocated", timeout_seconds=20)
        assert spec.id in view.placements
        client.wait(spec.id, "running", timeout_seconds=20)
        view = client.wait(spec.id, "done", timeout_seconds=20)
        end = view.slices[spec.id].value.end
        assert end is not None
        assert end.exit_code == 0


def test_a_view_that_is_followed_never_goes_back(store):
    """What is read beside a young watch and what the watch tells are one story."""
    load_cell_into(store, small_cell())
    client = CellClient(store, SystemClock())
    stop = threading.Event()

    def write_on() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            puts = tuple(Put(f"grant/p{n}/s", encode(number)) for n in range(2))
            store.commit([Transaction((), puts)])
            time.sleep(0.0005)

    writer = threading.Thread(target=write_on)
    writer.start()
    try:
        seen: list[tuple[int, int]] = []
        for view in client.follow(["grant/p0/", "grant/p1/"]):
            both = [holders["s"].value for holders in view.grants.values() if holders]
            assert len(set(both)) <= 1, "a revision was shown in part"
            seen.append((view.revision, both[0] if both else 0))
            if len(seen) == 300:
                break
    finally:
        stop.set()
        writer.join()
    assert seen == sorted(seen)
    assert len(set(seen)) == len(seen)


def test_who_follows_goes_on_after_an_outage_that_cost_the_watch(store):
    load_cell_into(store, small_cell())
    lossy = LossyStore(store)
    client = CellClient(lossy, SystemClock())
    views = client.follow(["slice/"])
    assert "default/a" not in next(views).slices
    lossy.reachable = False
    lossy.end_watches()
    back = threading.Timer(1.0, setattr, (lossy, "reachable", True))
    back.start()
    CellClient(store, SystemClock()).submit([wanted("a", gpus=1)])
    until(lambda: "default/a" in next(views).slices, "the new slice is seen")


def test_a_wait_ends_at_its_time_though_an_outage_cost_the_watch(store):
    load_cell_into(store, small_cell())
    lossy = LossyStore(store)
    client = CellClient(lossy, SystemClock())
    client.submit([wanted("a", gpus=1)])

    def away(_view):
        lossy.reachable = False
        lossy.end_watches()

    with pytest.raises(NotInTime):
        client.wait("default/a", "allocated", timeout_seconds=1.2, changed=away)
