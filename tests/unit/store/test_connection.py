"""Where do endpoints lead?"""

import pytest

from flowos.model.errors import SpecError, StoreUnreachable
from flowos_store.connection import Connection, Tls, _target


def test_one_host_is_resolved_by_grpc_itself_whenever_it_moves():
    assert _target(["etcd.example:2379"]) == (False, "dns:///etcd.example:2379", "etcd.example")
    assert _target(["http://localhost:1234"]) == (False, "dns:///localhost:1234", "localhost")


def test_several_members_are_one_target_so_that_calls_go_round():
    target = _target(["127.0.0.1:1", "127.0.0.2:2"])
    assert target == (False, "ipv4:127.0.0.1:1,127.0.0.2:2", "127.0.0.1")
    assert _target(["[::1]:1"])[1] == "ipv6:[::1]:1"


def test_https_is_secured_and_the_port_may_be_left_out():
    assert _target(["https://10.0.0.1"]) == (True, "dns:///10.0.0.1:2379", "10.0.0.1")


@pytest.mark.parametrize(
    "endpoints",
    [
        [],
        ["http://a:1", "https://b:1"],
        ["ftp://a:1"],
        ["a:port"],
        [":2379"],
        ["127.0.0.1:1", "[::1]:1"],
    ],
)
def test_endpoints_that_cannot_be_are_named(endpoints):
    with pytest.raises(SpecError, match="endpoints"):
        _target(endpoints)


def test_a_name_that_nobody_knows_is_unreachable():
    with pytest.raises(StoreUnreachable, match="cannot resolve"):
        _target(["nobody.invalid:1", "127.0.0.1:1"])


def test_a_certificate_that_is_not_there_is_named(tmp_path):
    with pytest.raises(SpecError, match=r"cannot read .*ca\.pem"):
        Connection(["127.0.0.1:1"], tls=Tls(ca=tmp_path / "ca.pem"), timeout_seconds=1)
