"""Who may what in a cell: a real etcd with its users and roles on, asked by each of them."""

import threading
from collections.abc import Callable, Iterator

import pytest

from flowos.model.errors import Forbidden, StoreRefused, UnsafeServer
from flowos.model.transaction import (
    Delete,
    Lost,
    Operation,
    Progress,
    Put,
    Quiet,
    Seen,
    Transaction,
)
from flowos.protocol.rights import May, Member, Rights, Role, covers, of_cell, steps, wanted
from flowos_store import EmbeddedEtcd, EtcdStore
from flowos_store.access import EtcdAccess
from flowos_store.wire import rpc

pytestmark = pytest.mark.etcd

SECRET = "s3cret"
READY_SECONDS = 30


# ------------------------------------------------------------------------------ keys and ranges

# What each may do with a key of each family, written by hand: r = look, w = change.
KEYS = {
    "cell/info": {"control": "r", "operator": "rw", "n0": "r", "alice": "r"},
    "node/n0": {"control": "r", "operator": "rw", "n0": "r", "alice": "r"},
    "engine/n0/gpu0": {"control": "r", "operator": "rw", "n0": "", "alice": "r"},
    "tenant/default": {"control": "r", "operator": "rw", "n0": "", "alice": "r"},
    "rule/epoch/tenant:default": {"control": "r", "operator": "rw", "n0": "", "alice": "r"},
    "slice/default/a": {"control": "rw", "operator": "r", "n0": "", "alice": "rw"},
    "slice/default2/a": {"control": "rw", "operator": "r", "n0": "", "alice": "r"},
    "slice/vision/a": {"control": "rw", "operator": "r", "n0": "", "alice": "r"},
    "placement/default/a": {"control": "rw", "operator": "rw", "n0": "", "alice": "r"},
    "placement/~drain/node/n0": {"control": "rw", "operator": "rw", "n0": "", "alice": "r"},
    "claim/engine/n0/gpu0": {"control": "rw", "operator": "rw", "n0": "", "alice": "r"},
    "claim/node/n0": {"control": "rw", "operator": "rw", "n0": "", "alice": "r"},
    "order/n0/1": {"control": "rw", "operator": "rw", "n0": "r", "alice": "r"},
    "order/n01/1": {"control": "rw", "operator": "rw", "n0": "", "alice": "r"},
    "order/n1/1": {"control": "rw", "operator": "rw", "n0": "", "alice": "r"},
    "report/n0/1": {"control": "rw", "operator": "rw", "n0": "rw", "alice": "r"},
    "report/n1/1": {"control": "rw", "operator": "rw", "n0": "", "alice": "r"},
    "observed/n0/gpu0": {"control": "r", "operator": "rw", "n0": "rw", "alice": "r"},
    "observed/n1/gpu0": {"control": "r", "operator": "rw", "n0": "", "alice": "r"},
    "grant/domain:a/s@1": {"control": "rw", "operator": "r", "n0": "", "alice": "r"},
    "reason/default/a": {"control": "rw", "operator": "r", "n0": "", "alice": "r"},
    "history/default/a/1/0": {"control": "rw", "operator": "r", "n0": "", "alice": "r"},
    "stats/scheduler/s@1": {"control": "rw", "operator": "r", "n0": "", "alice": "r"},
    "verify/1": {"control": "rw", "operator": "rw", "n0": "", "alice": "r"},
    "session/scheduler/s@1": {"control": "rw", "operator": "r", "n0": "", "alice": "r"},
    "session/controller/leader": {"control": "rw", "operator": "r", "n0": "", "alice": "r"},
    "session/client/c@1": {"control": "rw", "operator": "r", "n0": "", "alice": "r"},
    "session/agents/n0@1": {"control": "r", "operator": "r", "n0": "rw", "alice": "r"},
    "session/agents/n1@1": {"control": "r", "operator": "r", "n0": "", "alice": "r"},
    "session/agents/n01@1": {"control": "r", "operator": "r", "n0": "", "alice": "r"},
    "session/agent/n0": {"control": "r", "operator": "r", "n0": "rw", "alice": "r"},
    "session/agent/n1": {"control": "r", "operator": "r", "n0": "", "alice": "r"},
    "session/agent/n01": {"control": "r", "operator": "r", "n0": "r", "alice": "r"},
}
WHO = ("control", "operator", "n0", "alice")
MEMBERS = (
    Member("control", Role.CONTROL),
    Member("operator", Role.OPERATOR),
    Member("n0", Role.AGENT, places=("n0",)),
    Member("alice", Role.USER, tenants=("default",)),
)


def give(store: EtcdStore, members, cell="main") -> None:
    """Make roles and users, all with one password, and have etcd check from now on."""
    access = EtcdAccess(store)
    have = access.rights(lambda found: of_cell(cell, found))
    for step in steps(have, wanted(cell, members)):
        certified = any(m.name == step.name and m.certificate for m in members)
        access.apply(step, None if certified else SECRET)
    access.make_root(have.users, SECRET)
    access.turn_on()


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedEtcd]:
    """An etcd that checks who asks, with one user of each role."""
    with EmbeddedEtcd(tmp_path_factory.mktemp("checked"), unsafe_no_fsync=True) as server:
        store = EtcdStore([server.endpoint])
        give(store, MEMBERS)
        store.close()
        yield server


@pytest.fixture(scope="module")
def stores(checked: EmbeddedEtcd) -> Iterator[dict[str, EtcdStore]]:
    """A store for each user."""
    found = {
        name: EtcdStore([checked.endpoint], user=name, password=SECRET) for name in (*WHO, "root")
    }
    yield found
    for store in found.values():
        store.close()


NOTHING = Transaction((), ())
ABSENT = Seen("cell/info", 10**9)  # everybody may look at it; it never holds


def plain(what: Transaction) -> list[Transaction]:
    return [what]


def nested(what: Transaction) -> list[Transaction]:
    return [NOTHING, what]


def nested_in_vain(what: Transaction) -> list[Transaction]:
    """In the branch that is not taken: what is not done is not allowed either."""
    return [NOTHING, Transaction((ABSENT, *what.compares), what.operations)]


def is_forbidden(ask) -> bool:
    """Whether etcd says that the role does not cover it; nothing else is an answer."""
    try:
        ask()
    except Forbidden:
        return True
    except StoreRefused as error:
        if "permission denied" in str(error):
            return True
        raise
    return False


WRITES: dict[str, Callable[[str], tuple[Operation, ...]]] = {
    "put": lambda key: (Put(key, b"{}"),),
    "delete": lambda key: (Delete(key),),
}
SHAPES = {"plain": plain, "nested": nested, "nested in vain": nested_in_vain}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("verb", WRITES)
@pytest.mark.parametrize("who", WHO)
def test_a_role_changes_the_keys_of_its_range_and_no_other(stores, who, verb, shape):
    wrong = []
    for key, may in KEYS.items():
        request = SHAPES[shape](Transaction((), WRITES[verb](key)))
        happened = not is_forbidden(lambda r=request: stores[who].commit(r))
        if happened is not ("w" in may[who]):
            wrong.append(f"{who} {'could' if happened else 'could not'} {verb} {key}, {shape}")
    assert wrong == []


@pytest.mark.parametrize("shape", [plain, nested])
@pytest.mark.parametrize("compare", [lambda key: Seen(key, 0), lambda key: Quiet(key, 0)])
@pytest.mark.parametrize("who", WHO)
def test_a_role_compares_and_so_learns_only_what_it_may_see(stores, who, compare, shape):
    wrong = []
    for key, may in KEYS.items():
        request = shape(Transaction((compare(key),), ()))
        seen = not is_forbidden(lambda r=request: stores[who].commit(r))
        expected = "r" in may[who]
        if seen is not expected:
            wrong.append(f"{who} {'saw' if seen else 'did not see'} {key}")
    assert wrong == []


@pytest.mark.parametrize("who", WHO)
def test_a_role_reads_and_watches_what_it_may_see(stores, who):
    wrong = []
    for key, may in KEYS.items():
        told: list[object] = []
        heard = threading.Event()

        def deliver(message: object, told=told, heard=heard) -> None:
            told.append(message)
            heard.set()

        seen = not is_forbidden(lambda k=key: stores[who].read([k]))
        watch = stores[who].watch([key], after=1, deliver=deliver)
        watch.ask_progress()
        assert heard.wait(READY_SECONDS)
        watch.close()
        watched = not isinstance(told[0], Lost)
        assert watched or isinstance(told[0], Lost | Progress)
        if (seen, watched) != ("r" in may[who], "r" in may[who]):
            wrong.append(f"{who} {key}: read {seen}, watched {watched}")
    assert wrong == []


def test_the_ranges_say_the_same_as_etcd_does():
    rights = wanted("main", MEMBERS)
    for name in WHO:
        merged = [rights.roles[role] for role in rights.users[name]]
        for key, may in KEYS.items():
            for write, sign in ((False, "r"), (True, "w")):
                covered = any(covers(role, f"/flowos/main/{key}", write=write) for role in merged)
                assert covered is (sign in may[name]), (name, key, sign)


@pytest.mark.parametrize("who", WHO)
def test_no_role_touches_another_cell_or_what_is_no_cells(checked, stores, who):
    for cell in ("main2", "mai", "other"):
        other = EtcdStore([checked.endpoint], cell, user=who, password=SECRET)
        for request in (plain, nested):
            foreign = request(Transaction((), (Put("slice/default/a", b""),)))
            assert is_forbidden(lambda o=other, f=foreign: o.commit(f))
        assert is_forbidden(lambda o=other: o.read(["cell/"]))
        other.close()


@pytest.mark.parametrize("who", WHO)
def test_no_role_looks_at_users_or_changes_them(stores, who):
    access = EtcdAccess(stores[who])
    with pytest.raises(Forbidden, match="only etcd's user root"):
        access.rights(lambda found: found)
    with pytest.raises(Forbidden, match="--user root"):
        access.add_user("mallory", "x")


def test_nobody_ends_the_session_of_another(stores):
    lease = stores["control"].lease(600)
    key = "session/scheduler/s@2"
    stores["control"].commit([Transaction((), (Put(key, b"{}", lease.id),))])
    for who in ("n0", "alice", "operator"):
        connection = stores[who]._connection
        request = rpc.LeaseRevokeRequest(ID=lease.id)
        revoke = connection.client.leasestub.LeaseRevoke
        assert is_forbidden(
            lambda c=connection, r=request, call=revoke: c.ask(
                lambda: call(r, 5, metadata=c.metadata)
            )
        )
    assert [r.key for r in stores["control"].read([key]).records] == [key]
    lease.revoke()


# ------------------------------------------------------------------------------------ steps


def test_the_second_application_changes_nothing_and_a_smaller_file_takes_away():
    first = wanted("main", MEMBERS)
    assert steps(first, first) == []
    fewer = wanted("main", MEMBERS[:2])
    gone = [step.line() for step in steps(first, fewer)]
    assert gone == [
        "- user n0: flowos-main-agent-n0",
        "- user alice: flowos-main-read",
        "- user alice: flowos-main-tenant-default",
        "- role flowos-main-tenant-default",
        "- role flowos-main-agent-n0",
    ]


def test_a_range_that_somebody_widened_by_hand_is_taken_back():
    want = wanted("main", MEMBERS)
    name = "flowos-main-agent-n0"
    span = next(iter(want.roles["flowos-main-control"]))
    wide = Rights({**want.roles, name: {**want.roles[name], span: May.BOTH}}, want.users)
    assert [step.line() for step in steps(wide, want)] == [
        f"- range {name}: /flowos/main/ to /flowos/main0"
    ]


def test_a_role_of_a_cell_with_a_longer_name_is_not_taken_for_ones_own():
    mine, other = wanted("main", MEMBERS), wanted("main-agent", MEMBERS)
    both = {**mine.roles, **other.roles}
    assert of_cell("main", both) == mine.roles
    assert of_cell("main-agent", both) == other.roles


def test_a_server_whose_nested_transactions_pass_by_roles_is_refused_by_name(stores, monkeypatch):
    access = EtcdAccess(stores["root"])
    monkeypatch.setattr(access._connection, "version", lambda _seconds: "3.5.27")
    with pytest.raises(UnsafeServer, match=r"etcd 3\.5\.27 .* 3\.5\.28 or newer"):
        access.refuse_leaky_servers()
