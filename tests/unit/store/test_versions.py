"""Which servers may hold a cell."""

import pytest

from flowos_store.versions import judge, parse


@pytest.mark.parametrize("version", [(3, 4, 45), (3, 5, 1), (3, 5, 21), (3, 6, 0)])
def test_servers_that_lose_writes_or_events_are_refused(version):
    assert judge(version).refusal


@pytest.mark.parametrize("version", [(3, 5, 33), (3, 5, 40), (3, 6, 14), (3, 7, 0), (4, 0, 0)])
def test_nothing_is_said_of_current_servers(version):
    assert judge(version, auth=True) == ("", "")


def test_servers_between_get_advice():
    assert judge((3, 5, 30)).advice
    assert judge((3, 6, 13)).advice


@pytest.mark.parametrize("version", [(3, 5, 27), (3, 6, 8)])
def test_servers_that_nested_transactions_escape_are_refused_with_auth_alone(version):
    assert not judge(version).refusal
    assert "past its roles" in judge(version, auth=True).refusal


def test_versions_are_read_as_etcd_prints_them():
    assert parse("etcd Version: 3.5.30\nGit SHA: 3d1a2b\nGo Version: go1.26.1\n") == (3, 5, 30)
    assert parse("3.6.0-rc.1") == (3, 6, 0)
    with pytest.raises(ValueError, match="no version"):
        parse("bash: etcd: not found")
