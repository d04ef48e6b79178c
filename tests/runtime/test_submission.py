"""Many slices at once: all of them or none, what they wait for, and what is changed of them later."""

from dataclasses import replace

import pytest

from flowos.model import keys
from flowos.model.codec import decode, encode
from flowos.model.errors import DuplicateName, NeverPlaceable, SpecError, UnknownName
from flowos.model.placement import Placement
from flowos.model.rules import Assignment, PolicyRules, Reservation
from flowos.model.slice import Dependency, End, Member, Once, Phase, Slice, SliceSpec
from flowos.model.transaction import Delete, Put, Transaction
from flowos.runtime.client import CellClient
from flowos.runtime.clock import SystemClock
from flowos.runtime.loading import load_cell_into
from flowos.runtime.submission import SUBMIT_MAX, members_of
from flowos.runtime.updating import Update
from tests.runtime.cells import small_cell, wanted
from tests.runtime.lossy import LossyStore


@pytest.fixture
def counted(store):
    load_cell_into(store, small_cell())
    return LossyStore(store)


@pytest.fixture
def client(counted):
    return CellClient(counted, SystemClock())


def array(name: str, count: int, **more) -> list[SliceSpec]:
    return [
        wanted(f"{name}-{i}", gpus=1, array=Member(name, i, count), **more) for i in range(count)
    ]


def slices(store) -> dict[str, Slice]:
    records = store.inner.read(["slice/"]).records
    return {r.key.partition("/")[2]: decode(Slice, r.value) for r in records}


def write(store, *operations) -> None:
    store.inner.commit([Transaction((), operations)])


def ends(store, name: str, phase: Phase, started_at: float | None = None) -> None:
    record = Slice(wanted(name, gpus=1), end=End(phase, started_at=started_at))
    write(store, Put(keys.slice_(f"default/{name}"), encode(record)))


# ----------------------------------------------------------------------------- all of them or none


@pytest.mark.parametrize("count", [101, 1000, SUBMIT_MAX])
def test_an_array_is_in_the_queue_at_one_revision(client, counted, count):
    revision = client.submit(array("t", count))
    records = counted.inner.read(["slice/"]).records
    assert len(records) == count
    assert {record.created for record in records} == {revision}
    assert [r.key.rpartition("-")[2] for r in members_of(counted, "default/t")] == [
        str(index) for index in range(count)
    ]


@pytest.mark.parametrize("taken", ["default/t-0", "default/t-555", "default/t"])
def test_of_an_array_one_of_whose_names_is_taken_nothing_is_submitted(client, counted, taken):
    client.submit([wanted(taken.partition("/")[2], gpus=1)])
    with pytest.raises(DuplicateName, match=f"slice {taken} exists"):
        client.submit(array("t", 1000))
    assert list(slices(counted)) == [taken]


def test_a_name_that_is_taken_at_the_last_moment_is_seen(client, counted):
    commit = counted.inner.commit

    def faster(transactions, **more):
        if len(transactions[0].operations) > 100:
            counted.inner.commit = commit
            write(counted, Put("slice/default/t-77", encode(Slice(wanted("t-77", gpus=1)))))
        return commit(transactions, **more)

    counted.inner.commit = faster
    with pytest.raises(DuplicateName, match="slice default/t-77 exists"):
        client.submit(array("t", 500))
    assert list(slices(counted)) == ["default/t-77"]


def test_more_than_can_go_in_at_once_are_refused(client, counted):
    with pytest.raises(SpecError, match=f"{SUBMIT_MAX + 1} slices in one submission.*at most {SUBMIT_MAX}"):  # fmt: skip
        client.submit(array("t", SUBMIT_MAX + 1))
    assert slices(counted) == {}


@pytest.fixture
def usual(etcd_store, etcd_default_flags):
    """A client of a cell in an etcd that takes 128 operations and 1.5 MiB a request."""
    store = etcd_store(etcd_default_flags)
    load_cell_into(store, small_cell())
    return CellClient(store, SystemClock())


def test_four_thousand_go_in_at_once_where_etcd_has_its_own_limits(usual):
    revision = usual.submit(array("t", SUBMIT_MAX))
    records = usual.store.read(["slice/"]).records
    assert len(records) == SUBMIT_MAX
    assert {record.created for record in records} == {revision}
    with pytest.raises(DuplicateName):
        usual.submit(array("t", SUBMIT_MAX))


def test_a_submission_of_too_many_bytes_says_so(usual):
    long = tuple("x" * 100 for _ in range(20))
    specs = [replace(s, run=replace(s.run, command=long)) for s in array("t", 2000)]
    with pytest.raises(SpecError, match=r"2000 slices of \d+ KiB are more than the store takes"):
        usual.submit(specs)
    assert not usual.store.read(["slice/"]).records


def test_a_member_is_named_after_its_array(client):
    with pytest.raises(SpecError, match="not that of its array and index: name it t-1"):
        client.submit([wanted("x", gpus=1, array=Member("t", 1, 2))])


# --------------------------------------------------------------------------------- after each other


def on(name: str, *others: str, once: Once = Once.DONE) -> SliceSpec:
    waits = tuple(Dependency(f"default/{other}", once) for other in others)
    return wanted(name, gpus=1, depends_on=waits)


def test_a_slice_may_wait_for_one_that_is_there_or_is_submitted_with_it(client, counted):
    client.submit([wanted("a", gpus=1)])
    client.submit([on("b", "a", "c"), wanted("c", gpus=1)])
    client.submit(array("t", 3))
    client.submit([on("z", "t", "t-1")])
    assert {"default/b", "default/z"} <= slices(counted).keys()


def test_a_slice_cannot_wait_for_what_is_not_there(client, counted):
    with pytest.raises(UnknownName, match="no slice default/a, which b depends on: 'flowos ls"):
        client.submit([on("b", "a")])
    write(counted, Put("slice/default/a-1", encode(Slice(wanted("a-1", gpus=1)))))
    with pytest.raises(UnknownName):  # it begins like a member of a, and is none
        client.submit([on("b", "a")])


@pytest.mark.parametrize(
    ("phase", "started_at", "fine"),
    [
        (Phase.DONE, 1.0, {Once.DONE, Once.ENDED, Once.RUNNING}),
        (Phase.FAILED, 1.0, {Once.ENDED, Once.RUNNING}),
        (Phase.CANCELLED, None, {Once.ENDED}),
    ],
)
@pytest.mark.parametrize("once", list(Once))
def test_a_slice_cannot_wait_for_what_can_never_happen(
    client, counted, phase, started_at, fine, once
):
    ends(counted, "a", phase, started_at)
    if once in fine:
        client.submit([on("b", "a", once=once)])
        return
    how = "has failed" if phase is Phase.FAILED else "was cancelled"
    with pytest.raises(SpecError, match=f"default/a, which b depends on, {how}.*once: ended"):
        client.submit([on("b", "a", once=once)])
    assert "default/b" not in slices(counted)


def test_what_ended_and_is_forgotten_at_this_moment_is_not_waited_for(client, counted):
    ends(counted, "a", Phase.DONE, 1.0)
    client.submit([wanted("x", gpus=1)])  # the cell is known
    commit = counted.inner.commit

    def forgotten(transactions, **more):
        if any(isinstance(operation, Put) for operation in transactions[0].operations):
            counted.inner.commit = commit
            write(counted, Delete("slice/default/a"))
        return commit(transactions, **more)

    counted.inner.commit = forgotten
    with pytest.raises(UnknownName, match="no slice default/a"):
        client.submit([on("b", "a")])


def test_slices_of_a_program_cannot_wait_for_each_other_either(client):
    with pytest.raises(SpecError, match="default/a waits for default/b, default/b waits for"):
        client.submit([on("a", "b"), on("b", "a")])


# -------------------------------------------------------------------------------------- the rest


def test_a_slice_without_a_policy_gets_that_of_the_first_rule_that_means_it(client, counted):
    rules = PolicyRules(
        (Assignment("mpi", engines_least=2), Assignment("stream", names=("s-*",), preemptible=True))
    )
    write(counted, Put(keys.POLICIES, encode(rules)))
    specs = [wanted("a", gpus=2), wanted("s-1", gpus=1), wanted("b", gpus=1)]
    client.submit([replace(spec, policy="") for spec in specs])
    told = {n: (s.spec.policy, s.spec.preemptible) for n, s in slices(counted).items()}
    assert told == {
        "default/a": ("mpi", False),
        "default/s-1": ("stream", True),
        "default/b": ("batch", False),
    }


def test_rules_that_change_while_slices_are_submitted_count(client, counted):
    first = PolicyRules(default="one")
    write(counted, Put(keys.POLICIES, encode(first)))
    client.submit([replace(wanted("a", gpus=1), policy="")])
    write(counted, Put(keys.POLICIES, encode(PolicyRules(default="two"))))
    client.submit([replace(wanted("b", gpus=1), policy="")])
    assert [s.spec.policy for s in slices(counted).values()] == ["one", "two"]


def test_a_reservation_that_is_named_is_there_for_the_tenant(client, counted):
    for name, tenants in (("mine", ("default",)), ("theirs", ("vision",))):
        record = Reservation(name, ("engine/n0/gpu0",), tenants)
        write(counted, Put(keys.reservation(name), encode(record)))
    client.submit([wanted("a", gpus=1, reservation="mine")])
    with pytest.raises(SpecError, match="reservation theirs is not for tenant default"):
        client.submit([wanted("b", gpus=1, reservation="theirs")])
    with pytest.raises(UnknownName, match="no reservation none, which c names"):
        client.submit([wanted("c", gpus=1, reservation="none")])


# ------------------------------------------------------------------------------ changed afterwards


def test_an_update_changes_what_it_says_and_nothing_else(client, counted):
    spec = replace(wanted("a", gpus=1), policy="mine", expected_seconds=7.0)
    client.submit([spec])
    assert client.update(["default/a"], Update(9, {"workers": 2}, 60.0, 0.0)) == []
    after = slices(counted)["default/a"].spec
    wider = replace(spec.engines["workers"], choices=(replace(spec.engines["workers"].choices[0], count=2),))  # fmt: skip
    assert after == replace(
        spec, priority=9, engines={"workers": wider}, time_limit_seconds=60.0, expected_seconds=0.0
    )


def test_an_update_keeps_what_somebody_else_wishes_at_the_same_moment(client, counted):
    client.submit([wanted("a", gpus=1)])
    commit = counted.inner.commit

    def faster(transactions, **more):
        if any(isinstance(operation, Put) for t in transactions for operation in t.operations):
            counted.inner.commit = commit
            record = Slice(wanted("a", gpus=1), cancelled=True)
            write(counted, Put("slice/default/a", encode(record)))
        return commit(transactions, **more)

    counted.inner.commit = faster
    client.update(["default/a"], Update(priority=9))
    record = slices(counted)["default/a"]
    assert (record.cancelled, record.spec.priority) == (True, 9)


@pytest.mark.parametrize(
    ("spec", "sizes", "error", "words"),
    [
        (wanted("a", gpus=2), {"nobody": 1}, SpecError, "no role nobody: known: workers"),
        (wanted("a", gpus=2), {"workers": 0}, SpecError, "out of range"),
        (wanted("a", gpus=2), {"workers": 99}, NeverPlaceable, "can never be placed"),
        (wanted("a", gpus=1, share=500), {"workers": 2}, SpecError, "has a share of one engine"),
        (wanted("a", gpus=2, elastic={"workers": (2, 3)}), {"workers": 4}, SpecError, "write 2 to 3"),
        (
            wanted("a", gpus=3, least={"workers": 2}, commit="incremental"),
            {"workers": 1}, SpecError, "has a min of 2 engines: write 2 or more",
        ),
    ],
)  # fmt: skip
def test_an_update_that_cannot_be_meant_writes_nothing(client, counted, spec, sizes, error, words):
    client.submit([spec, wanted("b", gpus=1)])
    with pytest.raises(error, match=words):
        client.update(["default/b", "default/a"], Update(priority=5, sizes=sizes))
    assert {s.spec.priority for s in slices(counted).values()} == {0}


def test_many_wishes_go_in_few_requests(client, counted):
    client.submit(array("t", 300))
    names = [f"default/t-{i}" for i in range(300)]
    ends(counted, "t-7", Phase.DONE)
    before = counted.commits + counted.reads
    assert client.cancel_all(names) == ["default/t-7"]
    assert counted.commits + counted.reads - before <= 6
    told = slices(counted)
    assert [n for n, s in told.items() if not s.cancelled] == ["default/t-7"]
    assert client.hold_all(names) == ["default/t-7"]
    assert all(s.held for n, s in slices(counted).items() if n != "default/t-7")


def test_a_wait_for_many_ends_with_the_last_of_them(client, counted):
    client.submit(array("t", 20))
    names = [f"default/t-{i}" for i in range(20)]
    told = slices(counted)
    for name in names[1:]:
        ends(counted, name.partition("/")[2], Phase.DONE)
    seen = []

    def last(view) -> None:
        seen.append(view.revision)
        if len(seen) == 1:
            assert told
            placed = Placement(view.slices[names[0]].created, "a", started_at=1.0, held={"engine/n0/gpu0": ()})  # fmt: skip
            write(counted, Put(keys.placement(names[0]), encode(placed)))

    view = client.wait_all(names, "running", timeout_seconds=20, changed=last)
    assert view.placements[names[0]].value.started_at == 1.0
