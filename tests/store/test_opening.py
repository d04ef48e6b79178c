"""Which store is opened, and what is said where there is none?"""

import pytest

from flowos.model.errors import SpecError, StoreUnreachable
from flowos.model.transaction import Committed, Put, Transaction
from flowos_store import open_store

NOBODY = "127.0.0.1:1"


@pytest.mark.etcd
def test_one_member_that_is_there_is_enough(etcd_server):
    for endpoints in ([NOBODY, etcd_server.endpoint], [etcd_server.endpoint, NOBODY]):
        for _ in range(3):  # which of them is asked first differs
            store = open_store(endpoints, cell="opened", connect_timeout_seconds=10)
            assert isinstance(store.commit([Transaction((), (Put("a", b""),))])[0], Committed)
            assert store.status().leader == "flowos"
            store.close()


@pytest.mark.etcd
def test_a_name_among_the_endpoints_that_cannot_be_resolved_does_no_harm(etcd_server):
    store = open_store(
        ["nosuchhost.invalid:2379", etcd_server.endpoint], connect_timeout_seconds=10
    )
    assert store.read(["nothing/"]).records == []
    store.close()


@pytest.mark.etcd
def test_endpoints_come_from_the_environment(etcd_server, monkeypatch):
    monkeypatch.setenv("FLOWOS_ENDPOINTS", f"{NOBODY},{etcd_server.endpoint}")
    monkeypatch.setenv("FLOWOS_CELL", "by-name")
    store = open_store(connect_timeout_seconds=10)
    assert store._root == b"/flowos/by-name/"
    store.close()


def test_where_nobody_is_all_endpoints_are_named():
    with pytest.raises(StoreUnreachable, match=r"127\.0\.0\.1:1,127\.0\.0\.1:2 in 0\.5 s: nobody"):
        open_store([NOBODY, "127.0.0.1:2"], connect_timeout_seconds=0.5)


def test_an_empty_data_directory_names_the_two_ways_out(tmp_path):
    with pytest.raises(StoreUnreachable, match=r"'flowos up'.*--endpoints"):
        open_store(data_dir=str(tmp_path))


@pytest.mark.parametrize(
    "endpoints", [["http://a:1", "https://b:1"], ["a:port"], [":2379"], ["ftp://a:1"]]
)
def test_endpoints_that_cannot_be_are_refused(endpoints):
    with pytest.raises(SpecError, match="endpoints"):
        open_store(endpoints)
