"""Where do endpoints lead?"""

import pytest

from flowos.model.errors import SpecError
from flowos_store.connection import Connection, Tls, _addresses, _target


def test_a_name_is_resolved_by_grpc_itself_whenever_it_moves():
    assert _target("etcd.example", 2379) == "dns:///etcd.example:2379"
    assert _target("::1", 1) == "ipv6:[::1]:1"


def test_each_member_is_a_target_of_its_own_of_whatever_kind():
    addresses = _addresses(["127.0.0.1:1", "[::1]:2", "etcd.example:3"])
    assert addresses == (False, [("127.0.0.1", 1), ("::1", 2), ("etcd.example", 3)])
    assert _addresses(["http://localhost:1234"]) == (False, [("localhost", 1234)])


def test_https_is_secured_and_the_port_may_be_left_out():
    assert _addresses(["https://10.0.0.1"]) == (True, [("10.0.0.1", 2379)])


@pytest.mark.parametrize(
    "endpoints",
    [[], ["http://a:1", "https://b:1"], ["ftp://a:1"], ["a:port"], [":2379"]],
)
def test_endpoints_that_cannot_be_are_named(endpoints):
    with pytest.raises(SpecError, match="endpoints"):
        _addresses(endpoints)


def test_a_certificate_that_is_not_there_is_named(tmp_path):
    with pytest.raises(SpecError, match=r"cannot read .*ca\.pem"):
        Connection(["127.0.0.1:1"], tls=Tls(ca=tmp_path / "ca.pem"), timeout_seconds=1)
