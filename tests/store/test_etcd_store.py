"""What only the etcd store has: a server to find, to judge, to log in to, and to lose."""

import contextlib
import subprocess
import time
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest

from flowos.model.errors import (
    Forbidden,
    LoginRefused,
    OutcomeUnknown,
    StoreFull,
    StoreRefused,
    StoreUnreachable,
    TransactionTooLarge,
    UnsafeServer,
)
from flowos.model.transaction import Committed, Lost, Put, Quiet, Seen, Transaction
from flowos_store import EmbeddedEtcd, EtcdStore
from flowos_store.connection import Connection, Tls
from flowos_store.failures import meaning
from flowos_store.wire import auth, etcdrpc, rpc
from tests.plugins.certificates import Authority
from tests.plugins.etcd import paused

pytestmark = pytest.mark.etcd


def put(*keys):
    return Transaction((), tuple(Put(key, b"v") for key in keys))


# -------------------------------------------------------------------------------------- versions


@pytest.fixture
def pretend():
    """Start a server that only says which version it is, and perhaps that it checks roles."""
    servers = []

    def start(version, *, auth_on=False):
        def unary(answer, request):
            return grpc.unary_unary_rpc_method_handler(
                lambda _request, _context: answer,
                request_deserializer=request.FromString,
                response_serializer=type(answer).SerializeToString,
            )

        status = unary(rpc.StatusResponse(version=version), rpc.StatusRequest)
        auth_status = unary(rpc.AuthStatusResponse(enabled=auth_on), rpc.AuthStatusRequest)
        server = grpc.server(futures.ThreadPoolExecutor(2))
        server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(
                    "etcdserverpb.Maintenance", {"Status": status}
                ),
                grpc.method_handlers_generic_handler(
                    "etcdserverpb.Auth", {"AuthStatus": auth_status}
                ),
            )
        )
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        return f"127.0.0.1:{port}"

    yield start
    for server in servers:
        server.stop(0).wait()


@pytest.mark.parametrize("version", ["3.4.23", "3.5.21", "3.6.0"])
def test_a_server_that_loses_data_is_refused_by_name(pretend, version):
    endpoint = pretend(version)
    with pytest.raises(UnsafeServer, match=f"etcd {version} at {endpoint}"):
        EtcdStore([endpoint])


def test_a_server_that_loses_data_is_taken_where_that_is_allowed(pretend):
    EtcdStore([pretend("3.4.23")], allow_unsafe=True).close()


def test_a_server_that_nested_transactions_escape_is_refused_with_auth_alone(pretend):
    EtcdStore([pretend("3.5.27", auth_on=False)]).close()
    with pytest.raises(UnsafeServer, match="past its roles"):
        EtcdStore([pretend("3.5.27", auth_on=True)])


# ------------------------------------------------------------------------------------ reaching it


def test_nobody_there_is_said_with_the_endpoints_and_the_time_waited():
    began = time.monotonic()
    with pytest.raises(StoreUnreachable, match=r"no etcd answered at 127\.0\.0\.1:1 in 0\.5 s"):
        EtcdStore(["127.0.0.1:1"], connect_timeout_seconds=0.5)
    assert time.monotonic() - began < 3


def test_a_server_that_is_just_starting_is_waited_for(tmp_path):
    with EmbeddedEtcd(tmp_path, unsafe_no_fsync=True) as server:
        endpoint = server.endpoint
        server.stop()
        slow = subprocess.Popen(["sleep", "0.3"])
        slow.wait()
        server.start()
        store = EtcdStore([endpoint], connect_timeout_seconds=10)
        assert store.status().version == server.version
        store.close()


def test_a_write_without_an_answer_is_unknown_and_a_read_unreachable(own_etcd, etcd_store):
    store = etcd_store(own_etcd, read_timeout_seconds=0.3)
    store.commit([put("a")])
    with paused(own_etcd):
        with pytest.raises(OutcomeUnknown, match="may or may not have happened"):
            store.commit([put("b")], timeout_seconds=0.3)
        with pytest.raises(StoreUnreachable):
            store.read(["a"])
        with pytest.raises(StoreUnreachable):
            store.lease(600)


def test_a_write_that_found_no_server_was_not_sent(own_etcd, etcd_store):
    store = etcd_store(own_etcd)
    own_etcd.kill()
    with contextlib.suppress(OutcomeUnknown, StoreUnreachable):
        store.commit([put("a")])  # this one may still have met the old connection
    with pytest.raises(StoreUnreachable, match="no answer"):
        store.commit([put("a")])


def test_a_closed_store_is_unreachable(etcd_store):
    store = etcd_store()
    store.close()
    store.close()
    with pytest.raises(StoreUnreachable):
        store.commit([put("a")])
    with pytest.raises(StoreUnreachable):
        store.read(["a"])


def test_status_says_who_leads_and_how_large_the_data_are(etcd_store, etcd_server):
    store = etcd_store()
    (done,) = store.commit([put("a")])
    status = store.status()
    assert (status.version, status.leader, status.alarms) == (etcd_server.version, "flowos", ())
    assert status.revision >= done.revision
    assert status.database_bytes >= status.database_bytes_used > 0


def test_cells_in_one_etcd_do_not_see_each_other(etcd_store):
    one, other = etcd_store(cell="one"), etcd_store(cell="one-more")
    one.commit([put("a")])
    assert other.read([""]).records == []
    (done,) = other.commit([Transaction((Seen("a", 0), Quiet("", 0)), (Put("a", b""),))])
    assert isinstance(done, Committed)


def test_a_full_database_refuses_writes_and_is_told_as_an_alarm(tmp_path):
    full = EmbeddedEtcd(tmp_path, unsafe_no_fsync=True, flags=("--quota-backend-bytes=1000000",))
    with full as server:
        store = EtcdStore([server.endpoint])
        value = bytes(500_000)  # etcd looks at its size ten times a second
        fill = (store.commit([Transaction((), (Put(f"a{n}", value),))]) for n in range(400))
        with contextlib.suppress(OutcomeUnknown, StoreFull):
            list(fill)
        with pytest.raises(StoreFull, match="compact, defragment and disarm"):
            store.commit([put("b")])
        assert any("NOSPACE" in alarm for alarm in store.status().alarms)
        store.close()


def test_what_a_full_database_refused_is_not_there(tmp_path):
    # etcd itself carries out some of the requests that meet the quota first, and refuses them.
    said: dict[str, str] = {}
    full = EmbeddedEtcd(tmp_path, unsafe_no_fsync=True, flags=("--quota-backend-bytes=6000000",))
    with full as server:
        store = EtcdStore([server.endpoint])

        def write(who):
            for number in range(400):
                key = f"{who}/{number}"
                try:
                    store.commit([Transaction((Seen(key, 0),), (Put(key, bytes(20_000)),))])
                    said[key] = "done"
                except StoreFull:
                    said[key] = "refused"
                    return
                except OutcomeUnknown as error:
                    said[key] = "unknown"
                    assert "makes room" in str(error)  # noqa: PT017

        with futures.ThreadPoolExecutor(12) as writers:
            list(writers.map(write, range(12)))
        there = {record.key for record in store.read([""]).records}
        assert {key for key, how in said.items() if how == "done"} <= there
        assert not {key for key, how in said.items() if how == "refused"} & there
        assert "refused" in said.values()
        with pytest.raises(StoreFull):
            store.commit([put("a")])
        store.close()


# ----------------------------------------------------------------------------------------- limits


def test_the_limit_of_operations_is_found_out(etcd_store, etcd_default_flags):
    assert etcd_store().operations_max() == 4096
    assert etcd_store(etcd_default_flags).operations_max() == 128


def test_a_raised_limit_takes_a_gang_without_joining_its_compares(etcd_store):
    store = etcd_store()
    keys = [f"claim/{number}" for number in range(2000)]
    gang = Transaction(tuple(Seen(k, 0) for k in keys), tuple(Put(k, b"") for k in keys))
    assert isinstance(store.commit([gang])[0], Committed)


def test_a_limit_below_the_default_is_noticed_and_kept_to(tmp_path):
    with EmbeddedEtcd(tmp_path, unsafe_no_fsync=True, max_txn_ops=64) as server:
        store = EtcdStore([server.endpoint])
        seen = store.read([""]).revision
        keys = [f"claim/{number}" for number in range(100)]
        gang = Transaction(tuple(Seen(k, 0) for k in keys), tuple(Put(k, b"") for k in keys), seen)
        assert isinstance(store.commit([gang])[0], Committed)
        assert store.operations_max() == 64
        with pytest.raises(TransactionTooLarge, match="accepts 64"):
            store.commit([put(f"a/{number}") for number in range(64)])
        store.close()


def test_etcd_itself_refuses_two_puts_of_a_key_by_members_that_exclude_each_other(etcd_server):
    # Our own check comes first everywhere else; this says that it forbids nothing that etcd allows.
    connection = Connection([etcd_server.endpoint], timeout_seconds=5)
    request = rpc.TxnRequest()
    for revision in (0, 1_000_000):
        member = request.success.add().request_txn
        compare = member.compare.add()
        compare.target, compare.key, compare.mod_revision = rpc.Compare.MOD, b"/x", revision
        member.success.add().request_put.key = b"/x"
    with pytest.raises(StoreRefused, match="duplicate key"):
        connection.ask(lambda: connection.client.kvstub.Txn(request, 5))
    connection.close()


def test_a_request_beyond_etcds_bytes_is_refused_with_the_flag_to_raise(
    etcd_store, etcd_default_flags
):
    store = etcd_store(etcd_default_flags)
    with pytest.raises(StoreRefused, match="--max-request-bytes"):
        store.commit([Transaction((), (Put("a", b"x" * 2_000_000),))])


def test_a_listing_of_several_pages_is_whole_and_of_one_revision(etcd_store, monkeypatch):
    monkeypatch.setattr("flowos_store.etcd.PAGE_KEYS", 100)
    store = etcd_store()
    keys = [f"claim/{number:04}" for number in range(950)]
    (done,) = store.commit([put(*keys)])
    (later,) = store.commit([put("claim/0000x")])
    reading = store.read(["claim/"], at=done.revision)
    assert [record.key for record in reading.records] == keys
    assert len(store.read(["claim/"]).records) == 951
    assert store.read(["claim/"]).revision >= later.revision


class Torn(grpc.RpcError):
    """What a call ends with whose connection is closed, and what waits for it."""

    def code(self):
        return grpc.StatusCode.CANCELLED

    def details(self):
        return "Channel closed!"

    def result(self):
        raise self


def test_a_page_whose_connection_broke_meanwhile_is_asked_for_again(etcd_store, monkeypatch):
    monkeypatch.setattr("flowos_store.etcd.PAGE_KEYS", 100)
    store = etcd_store()
    keys = [f"claim/{number:04}" for number in range(950)]
    store.commit([put(*keys)])
    begun: list[Torn] = []

    def torn(*_, **__):
        begun.append(Torn())
        return begun[-1]

    monkeypatch.setattr(type(store._kv.Range), "future", torn)
    assert [record.key for record in store.read(["claim/"]).records] == keys
    assert len(begun) > 1


def test_a_foreign_key_in_a_page_stops_no_listing(etcd_server, etcd_store):
    store = etcd_store()
    store.commit([put("claim/a", "claim/c")])
    root = store._root
    store._connection.client.kvstub.Put(rpc.PutRequest(key=root + b"claim/b\xff", value=b"?"))
    keys = [record.key for record in store.read(["claim/"]).records]
    assert keys == ["claim/a", "claim/b\udcff", "claim/c"]


# ----------------------------------------------------------------------------- users, roles, TLS


@pytest.fixture
def guarded_etcd(tmp_path):
    """An etcd with auth on, tokens of 2 s, a root, and `agent`, whose role covers agent/ alone."""
    server = EmbeddedEtcd(tmp_path, unsafe_no_fsync=True, flags=("--auth-token-ttl=2",))
    with server:
        channel = grpc.insecure_channel(server.endpoint)
        stub = etcdrpc.AuthStub(channel)
        stub.RoleAdd(rpc.AuthRoleAddRequest(name="agent"))
        covered = auth.Permission(
            permType=auth.Permission.READWRITE,
            key=b"/flowos/main/agent/",
            range_end=b"/flowos/main/agent0",
        )
        stub.RoleGrantPermission(rpc.AuthRoleGrantPermissionRequest(name="agent", perm=covered))
        for user in ("root", "agent"):
            stub.UserAdd(rpc.AuthUserAddRequest(name=user, password=f"{user}-secret"))
        stub.UserGrantRole(rpc.AuthUserGrantRoleRequest(user="root", role="root"))
        stub.UserGrantRole(rpc.AuthUserGrantRoleRequest(user="agent", role="agent"))
        stub.AuthEnable(rpc.AuthEnableRequest())
        channel.close()
        yield server


def test_a_user_logs_in_without_tls_and_a_token_that_ran_out_is_renewed(guarded_etcd):
    store = EtcdStore([guarded_etcd.endpoint], user="agent", password="agent-secret")
    token = store._connection.metadata
    assert isinstance(store.commit([put("agent/a")])[0], Committed)
    lease = store.lease(60)
    store._connection.client.metadata = stale = (("token", "long.gone"),)
    assert isinstance(store.commit([put("agent/b")])[0], Committed)
    assert store._connection.metadata not in (token, stale)
    store._connection.client.metadata = stale
    assert lease.keep_alive() > 0
    store._connection.client.metadata = stale
    told: list[Any] = []
    watch = store.watch(["agent/"], after=1, deliver=told.append)
    deadline = time.monotonic() + 10
    while sum(len(message.changes) for message in told) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert [change.key for message in told for change in message.changes] == ["agent/a", "agent/b"]
    watch.close()
    store.close()


def test_what_a_role_does_not_cover_is_refused_also_inside_a_group(guarded_etcd):
    store = EtcdStore([guarded_etcd.endpoint], user="agent", password="agent-secret")
    with pytest.raises(Forbidden, match="roles do not cover"):
        store.commit([put("agent/a"), put("claim/a")])
    with pytest.raises(Forbidden, match="roles do not cover"):
        store.read([""])
    told: list[Any] = []
    store.watch(["claim/"], after=1, deliver=told.append)
    deadline = time.monotonic() + 10
    while not told and time.monotonic() < deadline:
        time.sleep(0.02)
    assert isinstance(told[0], Lost)
    assert store.operations_max() == 4096
    store.close()


def test_a_wrong_password_is_refused(guarded_etcd):
    with pytest.raises(LoginRefused, match="authentication failed"):
        EtcdStore([guarded_etcd.endpoint], user="agent", password="guess")


def test_a_user_is_refused_where_nobody_is_asked_for_a_password(etcd_server):
    with pytest.raises(LoginRefused, match="leave user and password away"):
        EtcdStore([etcd_server.endpoint], user="agent", password="agent-secret")


def test_a_commit_whose_token_ran_out_happens_once(guarded_etcd):
    store = EtcdStore([guarded_etcd.endpoint], user="agent", password="agent-secret")
    for number in range(3):
        time.sleep(2.5 if number else 0)  # tokens live for 2 s here
        outcomes = store.commit(
            [Transaction((Seen(f"agent/{number}", 0),), put(f"agent/{number}").operations)]
        )
        assert isinstance(outcomes[0], Committed)
    assert [r.created - r.modified for r in store.read(["agent/"]).records] == [0, 0, 0]
    store.close()


def test_nobody_is_refused_where_users_are_asked_for(guarded_etcd):
    with pytest.raises(LoginRefused, match="log in with a user"):
        EtcdStore([guarded_etcd.endpoint])


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """An authority, and a certificate for 127.0.0.1 that servers and clients may show."""
    folder: Path = tmp_path_factory.mktemp("certificates")
    Authority(folder).certificate("own")
    return folder


@pytest.fixture
def etcd_with_tls(tmp_path, certificates):
    """The endpoint of an etcd that asks its clients for a certificate."""
    with EmbeddedEtcd(tmp_path / "plain", unsafe_no_fsync=True) as plain:
        secured, _ = plain._ports()
        plain.stop()
        plain.flags = (
            f"--listen-client-urls=https://127.0.0.1:{secured},http://{plain_client(plain)}",
            f"--advertise-client-urls=https://127.0.0.1:{secured}",
            f"--cert-file={certificates / 'own.pem'}",
            f"--key-file={certificates / 'own.key'}",
            f"--trusted-ca-file={certificates / 'ca.pem'}",
            "--client-cert-auth",
        )
        plain.start()
        yield f"https://127.0.0.1:{secured}"


def plain_client(server):
    server.client_port = server.client_port or server._ports()[0]
    return f"127.0.0.1:{server.client_port}"


def test_a_client_with_a_certificate_commits_and_watches_over_tls(etcd_with_tls, certificates):
    tls = Tls(certificates / "ca.pem", certificates / "own.pem", certificates / "own.key")
    store = EtcdStore([etcd_with_tls], tls=tls)
    told: list[Any] = []
    store.watch(["a"], after=1, deliver=told.append)
    assert isinstance(store.commit([put("a")])[0], Committed)
    deadline = time.monotonic() + 10
    while not told and time.monotonic() < deadline:
        time.sleep(0.02)
    assert told[0].changes[0].key == "a"
    store.close()


def test_what_is_wrong_with_certificates_is_said_in_one_line(
    etcd_with_tls, certificates, tmp_path, capfd
):
    # Authorities that nobody here trusts.
    other, namesake = Authority(tmp_path / "other", "other"), Authority(tmp_path / "namesake")
    own = (certificates / "own.pem", certificates / "own.key")
    plain = etcd_with_tls.removeprefix("https://")
    for endpoint, tls, said in (
        (etcd_with_tls, Tls(certificates / "ca.pem"), "refused this client's certificate"),
        (
            etcd_with_tls,
            Tls(certificates / "ca.pem", *other.certificate("flowos")),
            "refused this client's certificate",
        ),
        (
            etcd_with_tls,
            Tls(certificates / "ca.pem", *namesake.certificate("flowos")),
            "refused this client's certificate",
        ),
        (etcd_with_tls, Tls(other.ca, *own), "give the right CA file"),
        (etcd_with_tls, Tls(namesake.ca, *own), "give the right CA file"),
        (
            etcd_with_tls,
            Tls(certificates / "ca.pem", *own, server_name="elsewhere.example"),
            "the server's certificate is for another name",
        ),
        (plain, None, "does it want TLS"),
    ):
        with pytest.raises(StoreUnreachable, match=said) as error:
            EtcdStore([endpoint], tls=tls, connect_timeout_seconds=0.5)
        assert "\n" not in str(error.value)
    assert capfd.readouterr().err == "", "grpc writes lines of its own"


def test_a_server_without_tls_is_told_from_one_that_is_not_there(etcd_server):
    with pytest.raises(StoreUnreachable, match="no TLS is spoken there"):
        EtcdStore([f"https://{etcd_server.endpoint}"], connect_timeout_seconds=0.5)


def test_a_name_that_nobody_knows_is_named():
    with pytest.raises(StoreUnreachable, match=r"nosuch\.invalid:2379 cannot be resolved"):
        EtcdStore(["nosuch.invalid:2379"], connect_timeout_seconds=0.5)


def test_an_error_of_ours_is_not_taken_for_one_of_the_network(etcd_store):
    store = etcd_store()
    with pytest.raises(ValueError, match="range"):
        store.commit([Transaction((Seen("a", 2**63),), ())])


def test_errors_name_where_the_call_went():
    said = str(meaning(ValueError("closed"), wrote=False, endpoints="10.0.0.1:2379"))
    assert "10.0.0.1:2379" in said
